"""Artifacts by the hash of their bytes, in the layout of a git-lfs media folder: ``ab/cd/<sha256>``.

An object appears under its name whole and on disk, and never changes; what is read is checked against the name.  The
same bytes are stored once.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar, cast

from gittrack.errors import CorruptError, InvalidValueError, NotFoundError, StorageError
from gittrack.store import files
from gittrack.types import Digest

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SHARD: Final = re.compile(r"[0-9a-f]{2}")
_MODE: Final = 0o444
_SMALL: Final = 1 << 20  # bytes up to which a file is hashed in memory before anything is written
_GROUP: Final = 128  # files that are synced together; each holds a descriptor
_GROUP_BYTES: Final = 64 << 20
_SYNCERS: Final = 8  # threads: the disk takes several syncs into one commit of its journal


class ObjectStore:
    """The objects below ``root``; made on the first write.  Any number of processes may share it."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._temp = self.root / "tmp"
        self._settled: set[str] = set()  # shards ("abcd") whose folders this process has synced into their parents

    # ------------------------------------------------------------ writing

    def put_file(self, path: Path) -> tuple[Digest, int]:
        """Stores the bytes of a file; durable on return.  Bytes that are here already take no space again.

        Returns:
            sha256 and size in bytes.

        Raises:
            InvalidValueError: Not a regular file (a symlink is not followed: resolve it first).
            NotFoundError: It is missing.
            ReadOnlyError, StorageError: It cannot be read, or the store cannot be written; nothing was stored.
        """
        return self.put_many([path])[0]

    def put_bytes(self, data: bytes) -> tuple[Digest, int]:
        """Stores ``data``; durable on return.  Returns sha256 and size.  Raises ReadOnlyError or StorageError."""
        with _Batch(self) as batch:
            return batch.add_bytes(data)

    def put_many(self, paths: Iterable[Path]) -> list[tuple[Digest, int]]:
        """Stores the bytes of many files with few waits for the disk; all are durable on return.

        Returns:
            sha256 and size of each, in order.

        Raises:
            InvalidValueError, NotFoundError, StorageError: As ``put_file``, for the first file at
                fault; some of the others may be stored then.
        """
        with _Batch(self) as batch:
            return [batch.add_file(path) for path in paths]

    def delete(self, digest: Digest) -> int:
        """Removes an object; returns the bytes freed (0 if it was not here).

        Not synced: what a power cut brings back is an object that nothing names, as before the call.

        Raises:
            ReadOnlyError, StorageError: It is still there.
        """
        path = self.path(digest)
        with files.reporting(path, "remove"):
            try:
                size = path.lstat().st_size
                if os.name == "nt":  # pragma: no cover - a read-only file cannot be removed there
                    path.chmod(stat.S_IWRITE)
                path.unlink()
            except FileNotFoundError:
                return 0
        return size

    def sweep_tmp(self, older_than_seconds: float) -> int:
        """Removes temporary files that nobody wrote to for that long; returns how many."""
        return files.sweep_temps(self._temp, older_than_seconds)

    # ------------------------------------------------------------ reading

    def path(self, digest: Digest) -> Path:
        """Where the object is, or would be.  Raises InvalidValueError if ``digest`` is no sha256 in lower-case hex."""
        if not _DIGEST.fullmatch(digest):
            raise InvalidValueError(f"`{digest!s:.80}` is not a sha256")
        return self.root / digest[:2] / digest[2:4] / digest

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """True if the object is here, and has ``size`` bytes if that is given.  Its bytes are not looked at."""
        path = self.path(digest)
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise files.failure(error, path, "read") from error
        return stat.S_ISREG(found.st_mode) and size in (None, found.st_size)

    def open(self, digest: Digest) -> BinaryIO:
        """The object's bytes as a stream without seek; its last bytes are given out only if all of them are right.

        Raises:
            NotFoundError: It is not here.
            CorruptError: Here or from ``read``: the bytes are not those of ``digest``.
            StorageError: It cannot be read.
        """
        fd = self._open(digest)
        return cast("BinaryIO", io.BufferedReader(_Verified(fd, digest), _SMALL))

    def read(self, digest: Digest) -> bytes:
        """All bytes of the object, checked.  Raises as ``open``."""
        with self.open(digest) as stream, files.reporting(self.path(digest), "read"):
            return stream.read()

    def verify(self, digest: Digest) -> None:
        """Reads the whole object and checks it.  Raises as ``open``."""
        fd = self._open(digest)
        try:
            with files.reporting(self.path(digest), "read"):
                found = files.copy_hashing(fd, None)
        finally:
            os.close(fd)
        if found.digest != digest:
            raise _corrupt(digest)

    def copy_out(self, digest: Digest, target: Path) -> None:
        """Writes the checked bytes to ``target``, whose folder exists; a file or symlink of that name is replaced.

        Readers see the old file or the whole new one.  Not synced: the object stays here.

        Raises:
            NotFoundError, CorruptError: As ``open``; ``target`` is as before.
            ReadOnlyError, StorageError: It cannot be written; ``target`` is as before.
        """
        source = self._open(digest)
        try:
            fd, temp = files.create_temp(target.parent, 0o666)
            try:
                try:
                    with files.reporting(self.path(digest), "read"):
                        copied = files.copy_hashing(source, fd)
                finally:
                    os.close(fd)
                if copied.failed:
                    raise files.failure(copied.failed, target) from copied.failed
                if copied.digest != digest:
                    raise _corrupt(digest)
                with files.reporting(target):
                    temp.replace(target)
            except BaseException:
                files.discard(temp)
                raise
        finally:
            os.close(source)

    def iter_digests(self) -> Iterator[tuple[Digest, int]]:
        """Every object here with its size in bytes, sorted; files that are no objects are passed over.

        Raises:
            StorageError: A folder cannot be read.
        """
        for first in _folders(self.root):
            for second in _folders(first.path):
                for entry in _scan(second.path):
                    name = entry.name
                    if not _DIGEST.fullmatch(name) or not name.startswith(first.name + second.name):
                        continue
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # deleted meanwhile
                    if stat.S_ISREG(found.st_mode):
                        yield Digest(name), found.st_size

    def _open(self, digest: Digest) -> int:
        path = self.path(digest)
        try:
            return files.open_source(path)
        except NotFoundError as error:
            raise NotFoundError(
                f"artifact object `{digest}` is not in this clone", hint="fetch it with `gittrack pull`"
            ) from error


class _Batch:
    """Objects on their way: staged as temporary files, synced in groups, named, and their folders synced at the end."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._staged: dict[Digest, tuple[int, Path]] = {}
        self._staged_bytes = 0
        self._shards: set[str] = set()

    def __enter__(self) -> _Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._sync_shards()
        finally:
            for fd, temp in self._staged.values():
                os.close(fd)
                files.discard(temp)
            self._staged.clear()

    def add_file(self, path: Path) -> tuple[Digest, int]:
        source = files.open_source(path)
        try:
            with files.reporting(path, "read"):
                size = os.fstat(source).st_size
                if size <= _SMALL:
                    data = _read_all(source, _SMALL)
                    if len(data) <= _SMALL:
                        return self.add_bytes(data)
                    os.lseek(source, 0, os.SEEK_SET)  # it has grown since
            return self._add_large(path, source)
        finally:
            os.close(source)

    def add_bytes(self, data: bytes) -> tuple[Digest, int]:
        digest, size = Digest(hashlib.sha256(data).hexdigest()), len(data)
        if not self._known(digest, size):
            fd, temp = self._create()
            try:
                with files.reporting(self._store.path(digest)):
                    files.write_all(fd, data)
            except BaseException:
                os.close(fd)
                files.discard(temp)
                raise
            self._stage(digest, size, fd, temp)
        return digest, size

    def _add_large(self, path: Path, source: int) -> tuple[Digest, int]:
        fd, temp = self._create()
        try:
            with files.reporting(path, "read"):
                copied = files.copy_hashing(source, fd)
            digest = Digest(copied.digest)
            known = self._known(digest, copied.size)
            if copied.failed and not known:
                raise files.failure(copied.failed, self._store.path(digest)) from copied.failed
        except BaseException:
            os.close(fd)
            files.discard(temp)
            raise
        if known:
            os.close(fd)
            files.discard(temp)
        else:
            self._stage(digest, copied.size, fd, temp)
        return digest, copied.size

    def _create(self) -> tuple[int, Path]:
        try:
            return files.create_temp(self._store._temp, _MODE)
        except StorageError:
            files.make_dirs(self._store._temp)
            return files.create_temp(self._store._temp, _MODE)

    def _known(self, digest: Digest, size: int) -> bool:
        if digest in self._staged:
            return True
        if not self._store.has(digest, size):
            return False
        self._shards.add(digest[:4])  # another process may have named it and not synced the folder yet
        try:
            os.utime(self._store.path(digest))  # young again, so that a collection under way leaves it
        except FileNotFoundError:
            return False
        except OSError:
            pass
        return True

    def _stage(self, digest: Digest, size: int, fd: int, temp: Path) -> None:
        self._staged[digest] = fd, temp
        self._staged_bytes += size
        if len(self._staged) >= _GROUP or self._staged_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Syncs what is staged and gives it its names."""
        with files.reporting(self._store.root):
            _each(files.sync_file, [fd for fd, _ in self._staged.values()])
        for digest in list(self._staged):
            fd, temp = self._staged.pop(digest)
            os.close(fd)
            target = self._store.path(digest)
            try:
                try:
                    temp.replace(target)
                except FileNotFoundError:
                    files.make_dirs(target.parent, durable=False)  # synced with the shards
                    temp.replace(target)
            except OSError as error:
                files.discard(temp)
                raise files.failure(error, target) from error
            self._shards.add(digest[:4])
        self._staged_bytes = 0

    def _sync_shards(self) -> None:
        root = self._store.root
        new = self._shards - self._store._settled
        folders = [root / shard[:2] / shard[2:] for shard in sorted(self._shards)]
        folders += [root / first for first in sorted({shard[:2] for shard in new})]
        if new:
            folders.append(root)
        _each(files.sync_dir, folders)
        self._store._settled |= new


class _Verified(io.RawIOBase):
    """Reads a descriptor, which it owns, and hashes on the way; fails instead of giving out wrong last bytes."""

    def __init__(self, fd: int, digest: Digest) -> None:
        super().__init__()
        self._fd = fd
        self._digest = digest
        self._hash = hashlib.sha256()
        self._left = os.fstat(fd).st_size
        if not self._left:
            self._check()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        with files.reporting(self._digest, "read"):
            count = files.read_into(self._fd, view[: self._left]) if self._left else 0
        self._hash.update(view[:count])
        self._left -= count
        if not self._left or not count:
            self._check()
        return count

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()

    def _check(self) -> None:
        if self._hash.hexdigest() != self._digest:
            self.close()
            raise _corrupt(self._digest)


def _corrupt(digest: Digest) -> CorruptError:
    return CorruptError(
        f"artifact object `{digest}` has other bytes than its name says",
        hint="`gittrack fsck --full` lists all such objects; remove it and fetch it again with `gittrack pull`",
    )


def _read_all(fd: int, limit: int) -> bytes:
    """The bytes of ``fd``, but not many more than ``limit``.  Raises OSError."""
    chunks: list[bytes] = []
    total = 0
    while total <= limit and (chunk := os.read(fd, limit + 1)):
        chunks.append(chunk)
        total += len(chunk)
    return b"".join(chunks)


def _each(sync: Callable[[T], None], items: Sequence[T]) -> None:
    """``sync`` for each item, several at a time; all are done, or were tried, on return.  Raises the first error."""
    if len(items) < 2:
        for item in items:
            sync(item)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_SYNCERS, len(items))) as pool:
        for _ in pool.map(sync, items):
            pass


def _scan(folder: str | Path) -> list[os.DirEntry[str]]:
    with files.reporting(folder, "read"):
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []


def _folders(folder: str | Path) -> list[os.DirEntry[str]]:
    return [e for e in _scan(folder) if _SHARD.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
