"""Journals: what a run in progress has recorded, one file for each process that writes into the run.

A journal is a row of frames (see ``codec``) that only grows, ``live/<run-id>/<process>.journal``.  A frame is there,
also after ``kill -9``, when ``append`` has returned, and on disk when ``sync`` has.  The reader takes the longest valid
prefix, so a write that was cut off costs only itself.
"""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zlib import crc32

from gittrack.errors import CorruptError, InvalidValueError, NotFoundError, StateError, StorageError
from gittrack.store import files
from gittrack.store.codec import HEADER, MAX_FRAME, frame, read_frames
from gittrack.types import RunId, check_run_id

SUFFIX = ".journal"
#: Ends the name of a journal that has no first frame yet.
OPENING = ".opening"
#: Begins the name of a journal that another clone sent: whether its process lives, nobody here can tell.
SHIPPED = "shipped-"
_FIRST_CHUNK = 64 << 10
_CHUNK = 16 << 20

_OPEN, _MENDING, _TORN, _CLOSED = "open", "mending", "torn", "closed"

# Looked up once: `append` is on the training loop's path.
_write = os.write
_header = HEADER.pack
_crc32 = crc32


class Received(NamedTuple):
    """How many bytes of a journal that was shipped are here, and whether it was closed."""

    size: int
    closed: bool


class Overtaken(Exception):  # noqa: N818 - no error: the writer reads on
    """Somebody else wrote into a journal that several write into; nothing was added."""


class Journal(Protocol):
    """A journal as its readers see it, be it a file or not."""

    @property
    def name(self) -> str:
        """Which one, among all of its run."""
        ...

    @property
    def size(self) -> int:
        """Bytes, about."""
        ...

    @property
    def opened(self) -> int:
        """When it was opened, in nanoseconds since the epoch; 0 if it does not say."""
        ...

    def frames(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """The frames from ``start`` on as (where to go on behind it, payload).  Raises StorageError, NetworkError."""
        ...

    def gone(self, ends: Sequence[int]) -> int:
        """Up to where it was dropped at most, if frames are there that end at ``ends``."""
        ...

    def drop(self, end: int) -> None:
        """What comes before ``end`` is in a commit: it is not needed any more.  Raises StorageError, NetworkError."""
        ...

    def remove(self) -> None:
        """Remove all of it.  Raises StorageError, NetworkError."""
        ...


class JournalWriter:
    """The one writer of a journal; any number of threads may share it.

    In a forked child it is closed (``is_open`` is False): the journal stays the parent's, the child opens its own.

    ``append`` takes no lock: one write to a file opened for appending is atomic.  What makes that safe is that the
    descriptor it writes to keeps its number for as long as this object lives.  To keep appends out, while a torn
    write is cut off or after ``close``, the number is made to stand for the null device, open for reading only.

    The file gets its name when the first frame is in it: nobody ever sees a journal that does not say whose it is.

    Args:
        path: The new file, in an existing folder.
        opening: Payload of the first frame.

    Raises:
        InvalidValueError: ``opening`` is empty or too long for a frame.
        ReadOnlyError, StorageError: The file exists or cannot be written; nothing is left of it.
    """

    __slots__ = (
        "__weakref__", "_fd", "_file", "_lock", "_named", "_partial", "_path", "_state", "_suspect", "_synced",
        "_syncing",
    )  # fmt: skip

    def __init__(self, path: Path, opening: bytes) -> None:
        self._fd = self._file = -1
        self._path = Path(path)
        self._lock = threading.RLock()  # re-entrant, like the next: a signal handler may log or end the run
        self._syncing = threading.RLock()
        self._state = _OPEN
        self._partial = b""  # what a write that was cut off left at the end of the file
        self._named = False  # the folders hold the name durably
        self._synced = -1  # bytes that are on disk
        self._suspect = False  # a sync has failed: the bytes must be written anew
        self._create(frame(opening))
        try:
            self._file = files.open_append(self._path)
            with files.reporting(self._path):
                self._fd = os.dup(self._file)
        except BaseException:
            self.close()
            files.discard(self._path)
            raise
        files.tell_after_fork(self)

    def _create(self, first: bytes) -> None:
        unnamed = self._path.with_name(self._path.name + OPENING)
        fd = files.create_append(unnamed)
        try:
            with files.reporting(self._path):
                try:
                    files.write_all(fd, first)
                finally:
                    os.close(fd)  # before the rename, for Windows
                if os.path.lexists(self._path):  # elsewhere a rename would replace it
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
                unnamed.rename(self._path)
        except BaseException:
            files.discard(unnamed)
            raise

    def __del__(self) -> None:
        """Gives the descriptors back."""
        for fd in (self._fd, self._file):
            if fd >= 0:
                os.close(fd)

    @property
    def path(self) -> Path:
        """Where the journal is."""
        return self._path

    @property
    def is_open(self) -> bool:
        """False after ``close``, and in a forked child."""
        return self._state is not _CLOSED

    @property
    def size(self) -> int:
        """Bytes in the file.  Raises StateError if the journal is closed."""
        with self._lock:
            if self._state is _CLOSED:
                raise self._closed()
            return os.fstat(self._file).st_size

    @property
    def written(self) -> float:
        """When the last frame was added, in seconds since the epoch; 0 if the journal is closed."""
        with self._lock:
            return 0.0 if self._state is _CLOSED else os.fstat(self._file).st_mtime

    def append(self, payload: bytes) -> None:
        """Adds one frame.

        Raises:
            InvalidValueError: ``payload`` is empty or longer than MAX_FRAME.
            StateError: The journal is closed, or belongs to the parent of this process.
            ReadOnlyError, StorageError: Nothing was added, and the journal can be appended to again.
        """
        size = len(payload)
        if not 0 < size <= MAX_FRAME:
            raise InvalidValueError(f"a frame holds 1 to {MAX_FRAME} bytes, not {size}")
        data = _header(size, _crc32(payload)) + payload
        try:
            written = _write(self._fd, data)
        except OSError as error:
            self._append_slowly(data, 0, error)
        else:
            if written != size + 8:
                self._append_slowly(data, written, None)

    def sync(self) -> None:
        """Waits until everything appended before the call is on disk, without holding up appends meanwhile.

        Raises:
            StateError: The journal is closed.
            ReadOnlyError, StorageError: It is not on disk.
            CorruptError: The disk lost frames that had been appended; the message says how many bytes.
        """
        with self._syncing:
            if self._state is _CLOSED:
                raise self._closed()
            if not self._suspect:
                size = os.fstat(self._file).st_size
                if size == self._synced and self._named:
                    return
                try:
                    files.sync_data(self._file)
                    self._sync_name()
                    self._synced = size
                except OSError:
                    self._suspect = True  # a second sync of the same bytes would report success without being one
            if self._suspect:
                self._rewrite()

    def _sync_name(self) -> None:
        """Puts the journal's name on disk, once.  OSError."""
        if not self._named:
            files.sync_dir(self._path.parent)
            files.sync_dir(self._path.parent.parent)
            self._named = True

    def finish(self, payload: bytes) -> None:
        """Adds the last frame, syncs and closes; an append that comes meanwhile waits, and then finds it closed.

        So no frame lands behind the last one, where nobody would look for it who has seen the last one.

        Raises:
            StateError: The journal was closed before.
            ReadOnlyError, StorageError: The last frame is not on disk; the journal is closed all the same.
            CorruptError: As ``sync``.
        """
        with self._syncing, self._lock:
            if self._state is _CLOSED:
                raise self._closed()
            try:
                self._park()
                try:
                    # Before the last frame: whoever sees that may commit the run and remove the journal at once.
                    self._sync_name()
                except OSError:
                    self._suspect = True
                with files.reporting(self._path):
                    self._cut_partial()
                    self._write_whole(frame(payload))
                self.sync()
            finally:
                self.close()

    def close(self) -> None:
        """Ends the writing; does not sync.  Closing twice is fine."""
        with self._syncing, self._lock:
            self._state = _CLOSED
            if self._fd >= 0:
                self._park()
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def after_fork_in_child(self) -> None:
        """Closes the copy of the journal that a forked child got."""
        self._lock = threading.RLock()  # another thread of the parent may have held them
        self._syncing = threading.RLock()
        self.close()

    def _park(self) -> None:
        """Makes every append fail, and so come to ``_append_slowly``."""
        os.dup2(_null(), self._fd, inheritable=False)

    def _unpark(self) -> None:
        os.dup2(self._file, self._fd, inheritable=False)
        self._state = _OPEN

    def _append_slowly(self, data: bytes, written: int, error: OSError | None) -> None:
        """Adds ``data`` after a write that failed, or was cut off after ``written`` bytes, or leaves no trace of it."""
        with self._lock:
            if self._state is _CLOSED:
                raise self._closed()
            if error is not None and (error.errno != errno.EBADF or self._state is _MENDING):
                raise files.failure(error, self._path) from error
            self._park()
            self._partial = self._partial or data[:written]
            self._state = _MENDING  # for a signal handler that logs meanwhile: its append fails
            try:
                with files.reporting(self._path):
                    self._cut_partial()
                    self._write_whole(data)
            finally:
                if self._partial:
                    self._state = _TORN  # cutting failed: the next append tries again before it adds anything
                else:
                    self._unpark()

    def _write_whole(self, data: bytes) -> None:
        """Writes ``data``, or nothing of it; while appends are kept out.  Raises OSError."""
        written = 0
        try:
            while written < len(data):
                written += _write(self._file, data[written:])
        except OSError:
            self._partial = data[:written]
            self._cut_partial()
            raise

    def _cut_partial(self) -> None:
        """Takes back what a write that was cut off left; keeps what other threads had added behind it.  OSError."""
        partial = self._partial
        if not partial:
            return
        end = os.fstat(self._file).st_size - len(partial)
        os.lseek(self._file, end, os.SEEK_SET)
        kept = b""
        if os.read(self._file, len(partial)) != partial:
            end = read_journal(self._path)[1]
            os.lseek(self._file, end, os.SEEK_SET)
            behind = os.read(self._file, 2 * MAX_FRAME).partition(partial)[2]
            kept = behind[: max((stop for stop, _ in read_frames(behind)), default=0)]
        os.ftruncate(self._file, end)
        self._partial = b""
        files.write_all(self._file, kept)

    def _rewrite(self) -> None:
        """Writes the whole journal anew, under its name, from what the system still has of it."""
        with self._lock:
            if self._state is not _OPEN:
                raise StorageError(f"cannot sync `{self._path}`: a write to it was cut off", hint="free some space")
            self._state = _MENDING
            self._park()
            try:
                size = -1
                while size != (size := os.fstat(self._file).st_size):  # a write may have been under way
                    frames, end = read_journal(self._path)
                    files.write_atomic(self._path, b"".join(map(frame, frames)))
                fresh = files.open_append(self._path)
                os.close(self._file)
                self._file = fresh
                self._suspect = False
                self._named = True
            finally:
                self._unpark()
        if end < size:
            raise CorruptError(
                f"the disk lost {size - end} bytes of `{self._path}`", hint="check the disk, then run `gittrack fsck`"
            )

    def _closed(self) -> StateError:
        return StateError(f"journal `{self._path.name}` is closed, or belongs to the parent of this process")


@cache
def _null() -> int:
    return os.open(os.devnull, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))


def read_journal(path: Path, offset: int = 0, *, limit: int | None = None) -> tuple[list[bytes], int]:
    """The payloads from ``offset`` on and the offset to go on from; may be called while the journal is written.

    Args:
        path: The journal; a missing one is empty.
        offset: 0, or what an earlier call returned.
        limit: How many payloads at most.

    Raises:
        InvalidValueError: Not a regular file.
        StorageError: It cannot be read.
    """
    payloads: list[bytes] = []
    for end, payload in iter_journal(path, offset):
        payloads.append(payload)
        offset = end
        if len(payloads) == limit:
            break
    return payloads, offset


def iter_journal(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The frames from ``offset`` on as (offset behind the frame, payload), without holding the whole file in memory.

    Ends at the first frame that is cut off or damaged; a missing file has none.

    Raises:
        InvalidValueError: Not a regular file.
        StorageError: It cannot be read.
    """
    try:
        fd = files.open_source(path)
    except NotFoundError:
        return
    with io.FileIO(fd, "rb") as file:
        rest = b""
        wanted = _FIRST_CHUNK
        while True:
            with files.reporting(path, "read"):
                file.seek(offset + len(rest))
                chunk = file.read(wanted)
            if not chunk:
                return
            rest += chunk
            end = 0
            for end, payload in read_frames(rest):
                yield offset + end, payload
            offset += end
            rest = rest[end:]
            if len(rest) >= HEADER.size:
                needed = HEADER.size + HEADER.unpack_from(rest)[0]
                if not HEADER.size < needed <= HEADER.size + MAX_FRAME or len(rest) >= needed:
                    return  # damaged
            wanted = min(4 * wanted, _CHUNK)


def repair(path: Path) -> int:
    """Cuts a torn tail off behind the last good frame and syncs; returns the bytes cut.  Only when its writer is dead.

    Raises:
        ReadOnlyError, StorageError: It cannot be read or cut.
    """
    end = max((end for end, _ in iter_journal(path)), default=0)
    fd = files.open_append(path)
    try:
        with files.reporting(path):
            cut = os.fstat(fd).st_size - end
            if cut:
                os.ftruncate(fd, end)
                files.sync_file(fd)
    finally:
        os.close(fd)
    return cut


def list_journals(live_dir: Path, but: Collection[str] = ()) -> dict[RunId, list[Path]]:
    """The journals of each run below ``live_dir`` but for some, sorted; a folder that is missing has none.

    Raises:
        StorageError: A folder cannot be read.
    """
    return {run_id: paths for run_id, paths in _runs(live_dir, but) if paths}


def empty_runs(live_dir: Path, but: Collection[str] = ()) -> list[RunId]:
    """The runs, but for some, that have a folder below ``live_dir`` and no journal in it.  Raises StorageError."""
    return [run_id for run_id, paths in _runs(live_dir, but) if not paths]


def _runs(live_dir: Path, but: Collection[str]) -> Iterator[tuple[RunId, list[Path]]]:
    for folder in _entries(live_dir):
        if folder.name in but:
            continue
        try:
            run_id = check_run_id(folder.name)
        except InvalidValueError:
            continue  # not ours
        if folder.is_dir(follow_symlinks=False):
            yield run_id, list_run(folder.path)


def list_run(folder: str | Path) -> list[Path]:
    """The journals in a run's folder, sorted by name; none if it is missing.  Raises StorageError."""
    names = [entry for entry in _entries(folder) if entry.name.endswith(SUFFIX)]
    return [Path(entry.path) for entry in names if entry.is_file(follow_symlinks=False)]


def stamps(live_dir: Path) -> dict[str, list[list[Any]]]:
    """Per run below ``live_dir``, its journals by name, with size and modification time in nanoseconds.

    There may be thousands, and a server looks often: no paths are made, nothing is read but the folders.

    Raises:
        StorageError: A folder cannot be read.
    """
    found: dict[str, list[list[Any]]] = {}
    for folder in _entries(live_dir):
        try:
            run_id = check_run_id(folder.name)
        except InvalidValueError:
            continue  # not ours
        if not folder.is_dir(follow_symlinks=False):
            continue
        rows: list[list[Any]] = []
        for entry in _entries(folder.path):
            if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False):
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # sealed meanwhile: its run is in a ledger now
                    continue
                rows.append([entry.name, status.st_size, status.st_mtime_ns])
        if rows:
            found[run_id] = rows
    return found


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with files.reporting(folder, "read"):
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
