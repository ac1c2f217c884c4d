"""Refs as files: read without dulwich (every command does), moved many at once by compare-and-swap, durably.

This is git's own protocol: ``<ref>.lock`` is created exclusively, holds the new value and is renamed over the ref;
``packed-refs`` is only rewritten under ``packed-refs.lock``.  So ``git pack-refs``, ``git gc`` and ``git fetch`` may
run beside it.  dulwich's refs are not used for writing: they move one ref at a time, do not sync folders, and take
"no old value" for "any old value".
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from gittrack.errors import ConflictError, InvalidValueError, LockedError, StorageError
from gittrack.store import files
from gittrack.store.gateway import RepoPaths
from gittrack.types import ObjectId

#: Seconds to wait for a lock that git or another gittrack holds on a ref.
LOCK_TIMEOUT: Final = 10.0

#: Nanoseconds in which the clock of a file system may stand still; network file systems count seconds.
_YOUNG_NS: Final = 3_000_000_000

#: git holds the lock of the packed refs, which the user's branches are in, for as long as it writes all of them.
PACKED_LOCK_S: Final = 600.0

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BAD_NAME = re.compile(r"\.\.|@\{|//|[\x00-\x20\x7f~^:?*\[\\]|/\.|\.lock(?:/|$)|[./]$")
_PER_WORKTREE: Final = ("refs/bisect/", "refs/worktree/", "refs/rewritten/")
#: Where heal_locks looks: nobody but gittrack and git's own housekeeping writes there.
OWN_FOLDERS: Final = ("refs/runs", "refs/heads/gittrack", "refs/gittrack", "refs/tags/models", "refs/notes")


class RefUpdate(NamedTuple):
    """One move of a ref.

    Attributes:
        name: Full name, such as ``refs/runs/0/ana-laptop-3f2a``.
        old: Where it must be now; None: it must not exist.
        new: Where it shall be; None: it shall be gone.
    """

    name: str
    old: ObjectId | None
    new: ObjectId | None


def check_name(name: str) -> str:
    """``name`` if it is a full ref name by the rules of ``git check-ref-format``.  Raises InvalidValueError."""
    if not name.startswith("refs/") or name.count("/") < 2 or len(name) > 1024 or _BAD_NAME.search(name):
        raise InvalidValueError(f"invalid ref name `{name!r:.80}`")
    return name


class RefStore:
    """The refs of one clone.  Reads see the disk: what is kept of a file counts as long as its stat is the same."""

    def __init__(self, paths: RepoPaths) -> None:
        self._kept: dict[str, tuple[tuple[int, ...], str]] = {}
        self._git_dir = paths.git_dir
        self._common = paths.common_dir
        self._packed: tuple[tuple[int, ...] | None, dict[str, ObjectId]] = (None, {})

    # -- reading -----------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return (self._git_dir if name == "HEAD" or name.startswith(_PER_WORKTREE) else self._common) / name

    def _loose(self, name: str) -> str | None:
        """What the ref's own file says: an id or ``ref: <name>``; None without a file."""
        try:
            return _read_small(self._path(name))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise files.failure(error, self._path(name), "read") from error

    def packed(self) -> dict[str, ObjectId]:
        """Every ref in ``packed-refs``; do not change the dict."""
        path = self._common / "packed-refs"
        try:
            found = path.stat()
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            if self._packed[0] != stamp:
                text = os.fsdecode(path.read_bytes())
                after = path.stat()
                refs = dict(_parse_packed(text))
                if (after.st_ino, after.st_size, after.st_mtime_ns, after.st_ctime_ns) != stamp:
                    return refs
                self._packed = (stamp, refs)
                self._kept.clear()  # their files are gone
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise files.failure(error, path, "read") from error
        return self._packed[1]

    def read(self, name: str) -> ObjectId | None:
        """Where the ref ``name`` (or HEAD) is, through symbolic refs; None if it does not exist.

        Raises:
            StorageError: It cannot be read.
        """
        for _ in range(6):
            # Loose before packed: packing writes packed-refs first and removes the file afterwards.
            value = self._loose(name)
            if value is None:
                return self.packed().get(name)
            if not value.startswith("ref: "):
                return _as_oid(value)
            name = value[len("ref: ") :].strip()
        return None

    def symbolic(self, name: str) -> str | None:
        """The ref that ``name`` stands for; None if it holds an id or does not exist."""
        value = self._loose(name)
        return value[len("ref: ") :].strip() if value is not None and value.startswith("ref: ") else None

    def below(self, prefix: str) -> dict[str, ObjectId]:
        """Every ref whose name begins with ``prefix``, sorted by name."""
        found: dict[str, ObjectId] = {}
        for name, value in self._loose_below(prefix):
            oid = self.read(name) if value.startswith("ref: ") else _as_oid(value)
            if oid is not None:
                found[name] = oid
        for name, oid in self.packed().items():  # after the loose ones, for the reason above
            if name.startswith(prefix):
                found.setdefault(name, oid)
        return dict(sorted(found.items()))

    def fingerprint(self, prefix: str) -> bytes:
        """Bytes that differ if any ref below ``prefix`` moved: the loose values, and the stat of ``packed-refs``."""
        import hashlib

        digest = hashlib.blake2b(digest_size=16)
        for name, value in sorted(self._loose_below(prefix)):
            digest.update(f"{name}\0{value}\n".encode("utf-8", "surrogateescape"))
        with suppress(FileNotFoundError):
            found = (self._common / "packed-refs").stat()
            digest.update(f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}".encode())
        return digest.digest()

    def _loose_below(self, prefix: str) -> Iterator[tuple[str, str]]:
        """(name, content) of every ref that has a file; strings instead of Path: every command comes through here."""
        root = os.fspath(self._common)
        todo = [prefix.rpartition("/")[0]]
        while todo:
            folder = todo.pop()
            try:
                with os.scandir(f"{root}/{folder}") as entries:
                    found = [(f"{folder}/{entry.name}", entry) for entry in entries]
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise files.failure(error, f"{root}/{folder}", "read") from error
            for name, entry in found:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(name)
                elif name.startswith(prefix) and not name.endswith(".lock"):
                    with suppress(FileNotFoundError):  # packed meanwhile
                        yield name, self._content(name, entry)

    def _content(self, name: str, entry: os.DirEntry[str]) -> str:
        """What a ref's file says.  There may be thousands: one that was read is not opened again while it is as it was.

        A ref moves by becoming another file.  Its number may be that of an earlier one, but then not its time, unless
        both are from the same moment: what is as young as that when it is read is read again.
        """
        found = entry.stat(follow_symlinks=False)
        stamp = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        kept = self._kept.get(name)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        young = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < _YOUNG_NS
        text = _read_small(entry.path)
        if young or not found.st_ino or entry.is_symlink():
            self._kept.pop(name, None)
        else:
            self._kept[name] = (stamp, text)
        return text

    def count_loose(self, prefix: str) -> int:
        """How many refs below ``prefix`` have files of their own."""
        return sum(1 for _ in self._loose_below(prefix))

    # -- moving ------------------------------------------------------------------------------------------------------

    def update(self, updates: Iterable[RefUpdate], *, timeout: float = LOCK_TIMEOUT) -> None:
        """Move all these refs, or none; on disk when it returns.

        Everything is checked under the locks of all refs before the first one moves.  Only a crash or a disk error in
        the few renames after that can leave some moved and some not.

        Raises:
            ConflictError: A ref is not where it should be; nothing was moved.
            LockedError: A lock was not free within ``timeout`` seconds; nothing was moved.
            InvalidValueError: A name is invalid or there twice.
            ReadOnlyError, StorageError: The system refused.
        """
        moves = sorted(updates)
        if len({move.name for move in moves}) != len(moves):
            raise InvalidValueError("a ref is named twice in one update")
        for move in moves:
            check_name(move.name)
        deadline = time.monotonic() + timeout
        locks: list[_Lock] = []
        try:
            for move in moves:
                locks.append(_Lock(self._path(move.name), deadline))
                self._check(move)
                if move.new is not None:
                    locks[-1].write(f"{move.new}\n".encode())
            gone = [move.name for move in moves if move.new is None]
            if any(name in self.packed() for name in gone):
                self._drop_packed(gone, deadline)
            for lock, move in zip(locks, moves, strict=True):
                if move.new is None:
                    lock.delete()
                    self._forget_log(move.name)
                else:
                    lock.commit()
        finally:
            for lock in locks:
                lock.release()
        self._sync({self._path(move.name).parent for move in moves})

    def _check(self, move: RefUpdate) -> None:
        value = self._loose(move.name)
        if value is not None and value.startswith("ref: "):
            raise ConflictError(f"`{move.name}` is a symbolic ref")
        now = self.packed().get(move.name) if value is None else _as_oid(value)
        if now != move.old:
            was, is_now = (oid[:10] if oid else "absent" for oid in (move.old, now))
            raise ConflictError(f"`{move.name}` was moved by someone else: expected {was}, found {is_now}")
        if move.old is None and move.new is not None:
            for other in self.packed():
                if other.startswith(move.name + "/") or move.name.startswith(other + "/"):
                    raise ConflictError(f"`{move.name}` cannot exist beside `{other}`")
            folder = self._path(move.name)
            if folder.is_dir():
                _remove_empty(folder)
                if folder.is_dir():
                    raise ConflictError(f"`{move.name}` cannot exist beside refs below it")

    def _drop_packed(self, names: list[str], deadline: float) -> None:
        """Rewrite ``packed-refs`` without ``names``, keeping every other line (peeled ids too) as it is."""
        path = self._common / "packed-refs"
        lock = _Lock(path, deadline)
        try:
            kept: list[bytes] = []
            dropped = False
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.startswith(b"^"):
                    dropped = os.fsdecode(line.rstrip(b"\n").partition(b" ")[2]) in names and not line.startswith(b"#")
                if not dropped:
                    kept.append(line)
            lock.write(b"".join(kept))
            lock.commit()
        except FileNotFoundError:
            return
        except OSError as error:
            raise files.failure(error, path) from error
        finally:
            lock.release()
        files.sync_dir(self._common)

    def _forget_log(self, name: str) -> None:
        """A deleted ref's reflog goes with it, as in git: it would keep what was purged alive."""
        with suppress(FileNotFoundError, NotADirectoryError):
            (self._common / "logs" / name).unlink()

    def _sync(self, folders: set[Path]) -> None:
        for folder in folders:
            try:
                files.sync_dir(folder)
            except StorageError as error:
                if error.errno != errno.ENOENT:
                    raise
                # `git pack-refs` moved the ref into packed-refs at once and removed the empty folder; git does not
                # sync that file, so that it has to be done here.
                self._sync_packed()

    def _sync_packed(self) -> None:
        path = self._common / "packed-refs"
        with files.reporting(path), suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY)
            try:
                files.sync_file(fd)
            finally:
                os.close(fd)
        files.sync_dir(self._common)

    def touch(self, name: str, oid: ObjectId) -> None:
        """Make a ref that exists count as new for ``younger_than``."""
        try:
            os.utime(self._path(name))
        except FileNotFoundError:  # packed: give it a file of its own again
            self.update([RefUpdate(name, oid, oid)])

    def younger_than(self, prefix: str, limit: float) -> set[str]:
        """The refs below ``prefix`` whose file was written or touched after ``limit`` (seconds since the epoch).

        Packed ones have no file; they count as old, for ``touch`` would have unpacked them.
        """
        young: set[str] = set()
        for name, _ in self._loose_below(prefix):
            with suppress(FileNotFoundError):
                if self._path(name).stat().st_mtime > limit:
                    young.add(name)
        return young

    def stale_locks(self, older_than_s: float) -> list[Path]:
        """Lock files in gittrack's own folders that nobody touched for that long, and that of the packed refs."""
        found = {self._common / "packed-refs.lock": max(older_than_s, PACKED_LOCK_S)}
        for folder in OWN_FOLDERS:
            for where, _, names in os.walk(self._common / folder):
                found.update((Path(where, name), older_than_s) for name in names if name.endswith(".lock"))
        stale: list[Path] = []
        now = time.time()
        for path, limit in found.items():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= now - limit:
                    stale.append(path)
        return stale


class _Lock:
    """``<path>.lock``, held from construction to ``commit``, ``delete`` or ``release``."""

    def __init__(self, path: Path, deadline: float) -> None:
        self._target = path
        self._lock = Path(f"{path}.lock")
        self._fd = -1
        pause = 0.001
        while True:
            try:
                files.make_dirs(path.parent)
                self._fd = files.create_append(self._lock)
            except OSError as error:
                if error.errno == errno.ENOTDIR:
                    raise ConflictError(f"`{path.name}` cannot be made: a part of its path is a ref") from error
                # EEXIST: held by another; ENOENT: git removed the empty folder between the two calls
                if error.errno not in (errno.EEXIST, errno.ENOENT):
                    raise
            else:
                return
            if time.monotonic() >= deadline:
                raise LockedError(
                    f"`{self._lock}` is held by another process", hint="if none runs, `gittrack fsck` removes it"
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def write(self, data: bytes) -> None:
        """Put the new content into the lock file, on disk."""
        with files.reporting(self._lock):
            files.write_all(self._fd, data)
            files.sync_file(self._fd)

    def commit(self) -> None:
        """Make the lock file the file it locks."""
        self._close()
        with files.reporting(self._target):
            self._lock.replace(self._target)
        self._lock = Path()

    def delete(self) -> None:
        """Remove the file it locks."""
        with files.reporting(self._target, "remove"), suppress(FileNotFoundError):
            self._target.unlink()

    def release(self) -> None:
        """Let go, if it was not committed."""
        self._close()
        if self._lock != Path():
            files.discard(self._lock)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _remove_empty(folder: Path) -> None:
    """Remove empty folders that were left where a ref should be."""
    for where, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty: the caller sees that it is still there
            Path(where).rmdir()


def _read_small(path: str | Path) -> str:
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    try:
        return os.fsdecode(os.read(fd, 4096)).rstrip()
    finally:
        os.close(fd)


def _as_oid(text: str) -> ObjectId | None:
    return ObjectId(text) if _OID.fullmatch(text) else None


def _parse_packed(text: str) -> Iterator[tuple[str, ObjectId]]:
    for line in text.split("\n"):
        oid, _, name = line.partition(" ")
        if name and _OID.fullmatch(oid):
            yield name, ObjectId(oid)
