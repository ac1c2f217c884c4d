"""The only module that opens files for writing, and so the only one that decides what "on disk" means.

Every function here is durable unless its name or its documentation says otherwise: bytes are synced before they get
their name, a name is synced (as an entry of its folder) before the call returns.  A sync that failed is never tried
again on the same file, because the system may have dropped the bytes and say "done" the second time: the caller
writes the bytes anew.  Whatever the operating system refuses becomes a StorageError or a ReadOnlyError.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, Protocol

from gittrack.errors import (
    AlreadyExistsError,
    FormatError,
    GittrackError,
    InvalidValueError,
    LockedError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
)

if sys.platform == "win32":  # pragma: no cover - not reachable on the machines this was tried on
    import msvcrt
    import socket
else:
    import fcntl

_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_BINARY", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
_CHUNK: Final = 1 << 18  # four of them, read here and hashed there, must stay in a core's cache: twice as fast as 1 MiB
#: Bytes after which a writer of something large calls ``start_writing``.
WRITE_BACK: Final = 8 << 20
_TEMP_PREFIX: Final = ".tmp-"
_FICLONE: Final = 0x40049409  # <linux/fs.h>: _IOW(0x94, 9, int)

_REFUSED: Final = {errno.EACCES, errno.EPERM, errno.EROFS}
_HINTS: Final = {
    errno.ENOSPC: "free some space, then run `gittrack fsck`",
    errno.EDQUOT: "free some space or raise the quota, then run `gittrack fsck`",
    errno.EIO: "the disk reports errors: check it, then run `gittrack fsck`",
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "check the owner and the permissions of the folder",
    errno.EPERM: "check the owner and the permissions of the folder",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "too many files are open on this machine",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EFBIG: "raise the limit of the file size (`ulimit -f`)",
}


def failure(error: OSError, path: str | Path, verb: str = "write") -> GittrackError:
    """The gittrack error that says what ``error`` means for ``path``; ``verb`` is what was tried (`write`, `read`).

    A refused write is a ReadOnlyError, something missing that should be read a NotFoundError, the rest a
    StorageError.  ``errno`` is kept.
    """
    reason = error.strerror or str(error) or type(error).__name__
    message = f"cannot {verb} `{os.fspath(path)}`: {reason}"
    hint = _HINTS.get(error.errno or 0)
    kind: type[GittrackError] = StorageError
    if verb == "read" and error.errno == errno.ENOENT:
        kind = NotFoundError
    elif verb != "read" and error.errno in _REFUSED:
        kind = ReadOnlyError
    made = kind(message, hint=hint)
    if isinstance(made, OSError):
        made.errno = error.errno
    return made


@contextmanager
def reporting(path: str | Path, verb: str = "write") -> Iterator[None]:
    """Turns an OSError of the block into ``failure(error, path, verb)``; gittrack's own errors pass."""
    try:
        yield
    except GittrackError:
        raise
    except OSError as error:
        raise failure(error, path, verb) from error


# ---------------------------------------------------------------- syncing


def sync_file(fd: int) -> None:
    """Waits until the bytes and the attributes of an open file are on disk.  Raises OSError as ``os.fsync`` does."""
    if sys.platform == "darwin":  # plain fsync leaves the bytes in the drive's cache there
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
        else:
            return
    os.fsync(fd)  # on macOS: for file systems that do not know the request


def sync_data(fd: int) -> None:
    """Like ``sync_file`` but may leave out times: enough for a file that only grows."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        sync_file(fd)


def sync_dir(path: str | Path) -> None:
    """Waits until the entries of a folder are on disk.  No-op on Windows, which cannot.

    Raises:
        StorageError: The system refused, or the folder is gone.
    """
    if sys.platform == "win32":
        return
    with reporting(path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _CLOEXEC)
        try:
            sync_file(fd)
        finally:
            os.close(fd)


_WHOLE: Final = {"ext4", "xfs"}  # one call puts all on disk, names too, and reports failures: seen by cutting power


def open_for_whole_sync(folder: str | Path) -> int | None:
    """A descriptor for ``sync_whole`` of the file system of ``folder``; None where that cannot be relied on.

    Failures are reported (since Linux 5.8) if they happen after this call, so it comes before the first write.

    Raises:
        StorageError: The folder cannot be opened.
    """
    if sys.platform != "linux" or tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (5, 8):
        return None
    with reporting(folder, "read"):
        device = Path(folder).stat().st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
            fields = line.split(" ")
            if fields[2] == wanted and fields[fields.index("-") + 1] in _WHOLE:
                return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _CLOEXEC)
    return None


def sync_whole(fd: int) -> None:
    """Puts everything written to a file system on disk: for thousands of files far quicker than one sync each.

    Raises:
        OSError: Something, of whatever file, could not be written.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def make_dirs(path: str | Path, *, durable: bool = True) -> None:
    """Makes a folder and the missing ones above it; each new one is synced into its parent.

    With ``durable=False`` nothing is synced: for folders whose first file will sync them.

    Raises:
        ReadOnlyError, StorageError: It cannot be made, or a file is in the way.
    """
    folder = Path(path)
    missing: list[Path] = []
    with reporting(folder):
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            with suppress(FileExistsError):  # another process was quicker; a file in the way shows below
                folder.mkdir()
            if durable:  # also if another process made it: that one may not have synced it yet
                sync_dir(folder.parent)
        if missing and not missing[0].is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


# ---------------------------------------------------------------- writing


def create_temp(
    folder: str | Path, mode: int = 0o600, *, dir_fd: int | None = None, about: Path | None = None
) -> tuple[int, Path]:
    """A new empty file with an unguessable name in ``folder``, open for writing: (descriptor, path).

    ``mode`` is cut by the umask; the descriptor can write even if the mode cannot (0o444).  With ``dir_fd`` the file
    is made in that open folder, whatever ``folder`` is by now, and its path is only good for ``dir_fd`` and messages.
    ``about`` is the file that a message names; the new one, if it is None.

    Raises:
        ReadOnlyError, StorageError: It cannot be made.
    """
    path = Path(f"{folder}{os.sep}{_TEMP_PREFIX}{os.urandom(8).hex()}")
    with reporting(about or path):
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC
        return os.open(path if dir_fd is None else path.name, flags, mode, dir_fd=dir_fd), path


def part_path(folder: str | Path, name: str) -> Path:
    """Where what arrives bit by bit under ``name`` is kept until it is whole; a temporary file for ``sweep_temps``."""
    return Path(folder, f"{_TEMP_PREFIX}{name}.part")


def open_part(path: Path, *, patience: float) -> int | None:
    """A part file, made if missing, open for reading and writing, and locked until ``close_part``.

    Waits while another process or thread fills it, for as long as it does fill it.

    Args:
        path: As ``part_path`` gives it.
        patience: Seconds without a new byte after which the other is not waited for any more.

    Returns:
        The descriptor; None if the file is not to be had: the other stands still, or it is another user's.

    Raises:
        ReadOnlyError, StorageError: It cannot be made.
    """
    size, until = -1, time.monotonic() + patience
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | _NOFOLLOW | _CLOEXEC, 0o666)
        except PermissionError:
            return None
        except OSError as error:
            raise failure(error, path) from error
        try:
            _try_lock(fd)
            if _is_at(path, fd):  # not renamed or removed by whoever had it before
                return fd
            _unlock(fd)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                os.close(fd)
                raise failure(error, path, "lock") from error
            found = os.fstat(fd).st_size
            if found != size:
                size, until = found, time.monotonic() + patience
        os.close(fd)
        if time.monotonic() >= until:
            return None
        time.sleep(0.05)


def close_part(fd: int) -> None:
    """Lets go of a part file.  Raises nothing."""
    with suppress(OSError):
        _unlock(fd)
    with suppress(OSError):
        os.close(fd)


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def is_temp(name: str) -> bool:
    """True if ``name`` is one that ``create_temp`` gives."""
    return name.startswith(_TEMP_PREFIX)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Writes all of ``data``, however many calls that takes.  Not durable.  Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def fits(fd: int, size: int) -> bool:
    """False if the file system of an open file has no room for ``size`` more bytes.  Raises OSError."""
    if not hasattr(os, "fstatvfs"):  # Windows finds out while it writes
        return True
    room = os.fstatvfs(fd)
    return size <= room.f_bavail * room.f_frsize


def discard(path: str | Path, *, dir_fd: int | None = None) -> None:
    """Removes a temporary file if it is there, quietly: for use while another error is on its way.  Not durable."""
    with suppress(OSError):
        os.unlink(path, dir_fd=dir_fd)


def name_new(temp: Path, path: Path, *, replace: bool = False) -> None:
    """Gives a temporary file of the same folder, which is on disk, its name.

    Args:
        temp: As ``create_temp`` gave it.
        path: The name.
        replace: It may be another file's, which goes.

    Raises:
        AlreadyExistsError: The name is taken; the temporary file stays.
        ReadOnlyError, StorageError: It cannot be named.
    """
    with reporting(path):
        if replace:
            temp.replace(path)
        else:
            try:
                os.link(temp, path)  # unlike a rename, it takes no name that somebody else has got meanwhile
                temp.unlink()
            except FileExistsError as error:
                raise AlreadyExistsError(f"`{path}` exists") from error
            except OSError:  # a file system without hard links
                if os.path.lexists(path):
                    raise AlreadyExistsError(f"`{path}` exists") from None
                temp.rename(path)
    sync_dir(path.parent)


def write_atomic(path: str | Path, data: bytes, *, mode: int = 0o644) -> None:
    """Gives ``path`` the content ``data``: readers and a power cut see the old content or the new, never a mixture.

    A symlink at ``path`` is replaced, not followed.  ``mode`` is cut by the umask.

    Raises:
        ReadOnlyError, StorageError: Nothing was changed, and no temporary file is left.
    """
    path = Path(path)
    fd, temp = create_temp(path.parent, mode, about=path)
    try:
        with reporting(path):
            try:
                write_all(fd, data)
                sync_file(fd)
            finally:
                os.close(fd)
            temp.replace(path)
    except BaseException:
        discard(temp)
        raise
    sync_dir(path.parent)


@contextmanager
def open_below(root: str | Path, parts: Sequence[str]) -> Iterator[int | None]:
    """The folder ``root/parts[0]/parts[1]…`` as a descriptor, for ``dir_fd``; None on Windows, which has none.

    Missing folders below ``root`` are made, not synced.  A symlink below ``root`` is never followed, also if it takes
    the place of a folder while this runs.

    Raises:
        InvalidValueError: One of the parts is a symlink or a file.
        ReadOnlyError, StorageError: A folder cannot be made or opened.
    """
    path = Path(root)
    if os.open not in os.supports_dir_fd:  # pragma: no cover - Windows: checked, but not safe against a swap
        for part in parts:
            path /= part
            with reporting(path), suppress(FileExistsError):
                path.mkdir()
            if path.is_symlink() or not path.is_dir():
                raise _not_a_folder(path)
        yield None
        return
    with reporting(path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _CLOEXEC)
    try:
        for part in parts:
            path /= part
            with reporting(path):
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=fd)
                try:
                    inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _NOFOLLOW | _CLOEXEC, dir_fd=fd)
                except OSError as error:
                    if error.errno in (errno.ELOOP, errno.ENOTDIR):
                        raise _not_a_folder(path) from error
                    raise
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def _not_a_folder(path: Path) -> InvalidValueError:
    return InvalidValueError(f"`{path}` is a file or a symbolic link where a folder is needed")


def create_append(path: str | Path, mode: int = 0o644) -> int:
    """A new file that can only grow, as a descriptor; its name is not durable before the folder is synced.

    Raises:
        ReadOnlyError, StorageError: It cannot be made, or exists (``errno`` is EEXIST).
    """
    with reporting(path):
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _NOFOLLOW | _CLOEXEC, mode)


def open_append(path: str | Path) -> int:
    """An existing regular file, open for reading and appending.  Raises ReadOnlyError or StorageError."""
    with reporting(path):
        return os.open(path, os.O_RDWR | os.O_APPEND | _NOFOLLOW | _CLOEXEC)


def open_source(path: str | Path) -> int:
    """A regular file open for reading; never follows a symlink at ``path`` and never waits for a pipe.

    Raises:
        InvalidValueError: It is a folder, symlink, pipe, socket or device.
        NotFoundError, StorageError: It is missing or cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | _NOFOLLOW | _NONBLOCK | _CLOEXEC)
    except OSError as error:
        kind = _kind_of(path)
        if kind is not None:
            raise _not_a_file(path, kind) from error
        raise failure(error, path, "read") from error
    kind = _kind(os.fstat(fd).st_mode)
    if kind is not None:
        os.close(fd)
        raise _not_a_file(path, kind)
    return fd


def _kind(mode: int) -> str | None:
    """What is not a regular file, in words; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    tests: tuple[tuple[Callable[[int], bool], str], ...] = (
        (stat.S_ISDIR, "folder"),
        (stat.S_ISLNK, "symbolic link"),
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISSOCK, "socket"),
    )
    return next((word for test, word in tests if test(mode)), "device")


def _kind_of(path: str | Path) -> str | None:
    try:
        return _kind(os.lstat(path).st_mode)
    except OSError:
        return None


def _not_a_file(path: str | Path, kind: str) -> InvalidValueError:
    return InvalidValueError(f"`{os.fspath(path)}` is a {kind}, not a regular file")


def remove(path: str | Path) -> None:
    """Removes a file if it exists, and syncs its folder.

    Raises:
        ReadOnlyError, StorageError: It is still there.
    """
    path = Path(path)
    with reporting(path, "remove"):
        try:
            path.unlink()
        except FileNotFoundError:
            return
    sync_dir(path.parent)


def sweep_temps(folder: str | Path, older_than_s: float) -> int:
    """Removes the temporary files of ``folder`` that nobody wrote to for ``older_than_s`` seconds; returns how many.

    Not durable: what comes back after a power cut is swept the next time.  A missing folder has none.

    Raises:
        ReadOnlyError, StorageError: One cannot be removed.
    """
    limit = time.time() - older_than_s
    swept = 0
    with reporting(folder, "remove"):
        try:
            entries = list(os.scandir(folder))
        except FileNotFoundError:
            return 0
        for entry in entries:
            with suppress(FileNotFoundError):  # its owner finished meanwhile
                if is_temp(entry.name) and entry.stat(follow_symlinks=False).st_mtime <= limit:
                    Path(entry.path).unlink()
                    swept += 1
    return swept


# ---------------------------------------------------------------- copying


class Copied(NamedTuple):
    """What ``copy_hashing`` did: sha256 in hex, bytes read, and why the copy is incomplete (None: it is complete)."""

    digest: str
    size: int
    failed: OSError | None


def copy_hashing(
    source: int,
    target: int | None,
    *,
    digest: Any = None,
    told: Callable[[int], None] | None = None,
    length: int | None = None,
) -> Copied:
    """Reads ``source`` to its end once, hashing and writing the same bytes to ``target``; not synced.

    A second thread hashes while this one copies.  If ``target`` cannot be written the rest is still read and hashed,
    so that the caller can find out that it needs no copy.  ``target=None`` only hashes.

    Args:
        source: Read from where it stands.
        target: Written to from where it stands.
        digest: A sha256 of ``hashlib`` that has the bytes before these; the sizes count only what is read now.
        told: Called with the bytes of every piece.
        length: Not to the end, but only that many bytes, or fewer if there are no more.

    Raises:
        OSError: ``source`` cannot be read.
    """
    digest = hashlib.sha256() if digest is None else digest
    failed: OSError | None = None
    size = started = 0
    left = sys.maxsize if length is None else length
    if target is None or min(os.fstat(source).st_size, left) <= _CHUNK:
        while chunk := os.read(source, min(_CHUNK, left - size)):
            digest.update(chunk)
            size += len(chunk)
            if told is not None:
                told(len(chunk))
            if target is not None and failed is None:
                failed = _try_write(target, chunk)
        return Copied(digest.hexdigest(), size, failed)

    begin = _position(target)
    free: SimpleQueue[memoryview] = SimpleQueue()
    full: SimpleQueue[tuple[memoryview, int] | None] = SimpleQueue()
    for _ in range(4):
        free.put(memoryview(bytearray(_CHUNK)))

    def hash_all() -> None:
        while (item := full.get()) is not None:
            buffer, count = item
            digest.update(buffer[:count])
            free.put(buffer)

    hasher = threading.Thread(target=hash_all, name="gittrack-hash", daemon=True)
    hasher.start()
    try:
        while True:
            buffer = free.get()
            count = read_into(source, buffer[: left - size])
            if not count:
                break
            full.put((buffer, count))  # the hasher only reads it, and only this thread takes from `free`
            size += count
            if told is not None:
                told(count)
            if failed is None:
                failed = _try_write(target, buffer[:count])
                if begin is not None and size - started >= WRITE_BACK:
                    start_writing(target, begin + started, size - started)
                    started = size
    finally:
        full.put(None)
        hasher.join()
    return Copied(digest.hexdigest(), size, failed)


def _position(fd: int) -> int | None:
    """Where an open file stands; None for a pipe."""
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return None


def read_into(fd: int, buffer: memoryview) -> int:
    """Reads at most ``len(buffer)`` bytes into ``buffer``; returns how many, 0 at the end.  Raises OSError."""
    if hasattr(os, "readv"):
        return os.readv(fd, [buffer])
    data = os.read(fd, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def clone_bytes(source: int, target: int) -> bool:
    """Lets the empty ``target`` share the bytes of ``source`` until one is written to (a reflink); False if it cannot.

    That takes no time and no space, where both are on one file system that can do it: Btrfs, XFS, bcachefs.
    """
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # another file system, or one that cannot: the bytes are copied then
        return False
    return True


def link_over(source: Path, temp: Path, *, dir_fd: int | None) -> bool:
    """Puts another name of ``source`` in the place of a temporary file; False if the file system cannot.

    Args:
        source: A regular file.
        temp: As ``create_temp`` gave it.
        dir_fd: As it was given to ``create_temp``.

    Raises:
        OSError: It has another name, and not that one.
    """
    other = temp.with_name(f"{temp.name}-link")
    name, final = (other, temp) if dir_fd is None else (other.name, temp.name)
    try:
        os.link(source, name, dst_dir_fd=dir_fd)
    except OSError:  # another file system, too many names, or somebody else's file
        return False
    os.replace(name, final, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    return True


def start_writing(fd: int, start: int, length: int) -> None:
    """Has the system begin to put a range on disk, so that the sync at the end finds little left to do."""
    if sys.platform == "linux":  # documented for dropping pages from memory: dirty ones are written, not dropped
        os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)


def _try_write(fd: int, data: bytes | memoryview) -> OSError | None:
    try:
        write_all(fd, data)
    except OSError as error:
        return error
    return None


# ---------------------------------------------------------------- processes and locks


class ForkAware(Protocol):
    """Something that must let go of its descriptors in a forked child."""

    def after_fork_in_child(self) -> None:
        """Called in the child, with one thread running."""


_fork_aware: weakref.WeakSet[Any] = weakref.WeakSet()


def tell_after_fork(thing: ForkAware) -> None:
    """Has ``thing.after_fork_in_child()`` called in every child that this process forks while ``thing`` lives."""
    _fork_aware.add(thing)


def _after_fork_in_child() -> None:
    for thing in list(_fork_aware):
        thing.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


@dataclass(frozen=True, slots=True)
class ProcessId:
    """Which process, among all machines and for all time.

    Attributes:
        host: Name of the machine.
        boot_id: Id of the kernel's start and of the pid namespace (Linux: ``<uuid>:<inode>``); empty elsewhere.
        pid: Process id in that namespace.
        started: When it started; compares equal for one process only.  Empty if it cannot be told.
    """

    host: str
    boot_id: str
    pid: int
    started: str

    def to_list(self) -> list[Any]:
        """The four facts as plain values."""
        return [self.host, self.boot_id, self.pid, self.started]

    @classmethod
    def from_list(cls, values: Any) -> ProcessId:
        """The inverse of ``to_list``.  Raises FormatError for anything else."""
        if (
            not isinstance(values, (list, tuple))
            or len(values) != 4
            or [type(value) for value in values] != [str, str, int, str]
            or not 0 < values[2] < 1 << 31
        ):
            raise FormatError("a process id must be [host, boot id, pid, started]")
        return cls(*values)


def process_identity() -> ProcessId:
    """The calling process."""
    return _identity_of(os.getpid())


@lru_cache(maxsize=1)  # every journal names its process; a forked child has another number
def _identity_of(pid: int) -> ProcessId:
    return ProcessId(_host(), _boot_id(), pid, (_started(pid) or ("", ""))[0])


def is_alive(identity: ProcessId) -> bool | None:
    """Whether that process still runs (a zombie does not); None if it cannot be told from here."""
    host, boot_id = _host(), _boot_id()
    if identity.boot_id.partition(":")[0] != boot_id.partition(":")[0]:
        return False if identity.host == host else None  # restarted since, or another machine
    if identity.boot_id != boot_id or (not boot_id and identity.host != host):
        return None  # another container on this machine, or another machine
    found = _started(identity.pid)
    if found is None:
        return _answers(identity.pid)
    started, state = found
    return started == identity.started and state not in ("Z", "X")


def _host() -> str:
    if sys.platform == "win32":
        return socket.gethostname()
    return os.uname().nodename


def _boot_id() -> str:
    try:
        uuid = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{uuid}:{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> tuple[str, str] | None:
    """(start time, state letter) of a process; None if it does not exist or hides."""
    if sys.platform == "linux":
        try:
            line = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return None
        fields = line.rpartition(b")")[2].split()  # the name before `)` may hold anything
        return fields[19].decode("ascii"), fields[0].decode("ascii")
    import psutil

    try:
        process = psutil.Process(pid)
        state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "R"
        return f"{process.create_time():.2f}", state
    except psutil.Error:
        return None


def _answers(pid: int) -> bool | None:
    """False if no process has that id; None if one has it but shows nothing of itself."""
    if sys.platform == "win32":
        return False  # os.kill would end it there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return None
    return None


class _Queues:
    """Where threads of this process wait for each other before they try for a lock of the system's.

    That has to be asked for again and again, and whoever has just come may get it before those who wait.
    """

    def __init__(self) -> None:
        self.after_fork_in_child()
        tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        """None of the parent's threads is here."""
        self._locks: weakref.WeakValueDictionary[str, threading.Lock] = weakref.WeakValueDictionary()
        self._guard = threading.RLock()  # a signal handler may end a run, which takes locks

    def of(self, path: str) -> threading.Lock:
        """The lock for a path."""
        with self._guard:
            found = self._locks.get(path)
            if found is None:
                found = self._locks[path] = threading.Lock()
            return found


_queues: Final = _Queues()


class FileLock:
    """A lock between processes and threads: ``with FileLock(path, timeout=10): …``.

    The system frees it when its holder dies; the file stays (removing it would let two holders in) and names the
    last holder as ``host pid``.  A forked child does not hold its parent's locks.

    Args:
        path: The lock file, in an existing folder; made if missing.
        timeout: Seconds to wait for another holder; 0 tries once.

    Raises:
        LockedError: On entering: another holder did not let go in time.
        ReadOnlyError, StorageError: On entering: the lock file cannot be made.
    """

    def __init__(self, path: str | Path, *, timeout: float) -> None:
        self.path = Path(path)
        self.timeout = timeout
        self._fd = -1
        self._threads = _queues.of(str(self.path.absolute()))

    def __enter__(self) -> FileLock:
        deadline = time.monotonic() + self.timeout
        if not self._threads.acquire(timeout=max(0.0, self.timeout)):
            raise self._locked()
        try:
            with reporting(self.path):
                fd = os.open(self.path, os.O_RDWR | os.O_CREAT | _NOFOLLOW | _CLOEXEC, 0o644)
            try:
                self._wait(fd, deadline)
                with reporting(self.path):
                    self._sign(fd)
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            self._threads.release()
            raise
        self._fd = fd
        tell_after_fork(self)
        return self

    def _sign(self, fd: int) -> None:
        """Say who holds it; nothing is written if that is who held it before.

        Never emptied first: what was cut to nothing and written anew, ext4 puts on disk, as slowly as an fsync.
        """
        holder = f"{_host()} {os.getpid()}\n".encode()
        if os.read(fd, len(holder) + 1) != holder:
            os.lseek(fd, 0, os.SEEK_SET)
            write_all(fd, holder)
            os.ftruncate(fd, len(holder))

    def __exit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return  # a forked child leaves the block: the lock is its parent's
        try:
            _unlock(fd)  # closing alone would not do: a forked child may still have the descriptor open
        finally:
            os.close(fd)
            self._threads.release()

    def after_fork_in_child(self) -> None:
        """Forgets the lock in a forked child, whose parent still holds it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._threads = threading.Lock()  # maybe the parent's other threads held the one before

    def _wait(self, fd: int, deadline: float) -> None:
        pause = 0.001
        while True:
            try:
                _try_lock(fd)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
                    raise failure(error, self.path, "lock") from error
            else:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._locked()
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.05)

    def _locked(self) -> LockedError:
        try:
            holder = self.path.read_text("utf-8", "replace").split()[:2]
        except OSError:
            holder = []
        who = f"process {holder[1]} on {holder[0]}" if len(holder) == 2 else "another process"
        hint = "try again when it is done; the lock of a process that died frees itself"
        return LockedError(f"`{self.path}` is locked by {who}", hint=hint)


if sys.platform == "win32":  # pragma: no cover - see above
    _LOCK_AT: Final = 1 << 30  # locks are mandatory there: a byte far behind the text keeps the text readable

    def _try_lock(fd: int) -> None:
        os.lseek(fd, _LOCK_AT, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)

    def _unlock(fd: int) -> None:
        os.lseek(fd, _LOCK_AT, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:

    def _try_lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
