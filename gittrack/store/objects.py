"""Artifacts by the hash of their bytes, in the layout of a git-lfs media folder: ``ab/cd/<sha256>``.

An object appears under its name whole and on disk, and never changes; what is read is checked against the name.  The
same bytes are stored once.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TypeVar, cast

from gittrack.errors import CorruptError, GittrackError, InvalidValueError, NotFoundError, StorageError
from gittrack.store import files
from gittrack.types import Digest

if TYPE_CHECKING:
    from typing_extensions import Buffer

_T = TypeVar("_T")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_SHARD: Final = re.compile(r"[0-9a-f]{2}")
_MODE: Final = 0o444
_SMALL: Final = 1 << 20  # bytes up to which a file is hashed in memory before anything is written
_MANY: Final = 64  # files from which on one sync of the whole file system beats a sync of each
_GROUP: Final = 128  # files that are synced together; each holds a descriptor
_GROUP_BYTES: Final = 64 << 20
_PATIENCE: Final = 60.0  # seconds that another process may stand still with an object that this one wants too
_SYNCERS: Final = 8  # threads: the disk takes several syncs into one commit of its journal


class ObjectStore:
    """The objects below ``root``; made on the first write.  Any number of processes may share it.

    Args:
        root: The folder of the objects.
        temp: Where files are until they are whole, on the same file system; ``tmp`` below ``root`` if not given.
    """

    def __init__(self, root: Path, *, temp: Path | None = None) -> None:
        self.root = Path(root)
        self._root = str(self.root)
        self._temp = temp or self.root / "tmp"
        self._settled: set[str] = set()  # shards ("abcd") whose folders this process has synced into their parents
        self._doubtful: set[str] = set()  # shards whose folder could not be synced

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
            InvalidValueError, NotFoundError, ReadOnlyError, StorageError: As ``put_file``, for the first file at
                fault; some of the others may be stored then.
        """
        paths = list(paths)
        with _Batch(self, many=len(paths) >= _MANY) as batch:
            return [batch.add_file(path) for path in paths]

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """The place for bytes that come in pieces, and whose digest nobody knows yet.

        What is finished is an object, durably, when the block ends; what is not is gone then.

        Raises:
            ReadOnlyError, StorageError: The store cannot be written.
        """
        with _Batch(self) as batch:
            yield Incoming(batch)

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
        return Path(f"{self._root}/{digest[:2]}/{digest[2:4]}/{digest}")  # one text: joining parts is slow in bulk

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """True if the object is here, and has ``size`` bytes if that is given.  Its bytes are not looked at."""
        return _is_object(self.path(digest), size)

    def open(self, digest: Digest) -> BinaryIO:
        """The object's bytes as a stream without seek; its last bytes are given out only if all of them are right.

        Raises:
            NotFoundError: It is not here.
            CorruptError: Here or from ``read``: the bytes are not those of ``digest``.
            StorageError: It cannot be read.
        """
        fd = self._open(digest)
        return cast("BinaryIO", io.BufferedReader(_Verified(fd, digest), _SMALL))

    def size(self, digest: Digest) -> int:
        """Bytes of the object.  Raises NotFoundError, StorageError."""
        return self._status(digest).st_size

    def modified(self, digest: Digest) -> float:
        """When the object was stored, again if it came again, in seconds since the epoch.  Raises as ``size``."""
        return self._status(digest).st_mtime

    def _status(self, digest: Digest) -> os.stat_result:
        path = self.path(digest)
        with files.reporting(path, "read"):
            try:
                return path.stat()
            except FileNotFoundError as error:
                raise _absent(digest) from error

    def open_from(self, digest: Digest, start: int) -> BinaryIO:
        """The object's bytes from an offset on, which are not checked.  Raises NotFoundError, StorageError."""
        file = os.fdopen(self._open(digest), "rb")
        file.seek(start)
        return file

    @contextmanager
    def descriptor(self, digest: Digest) -> Iterator[int]:
        """The object as an open file, whose bytes are not checked.  Raises NotFoundError, StorageError."""
        fd = self._open(digest)
        try:
            yield fd
        finally:
            os.close(fd)

    def read(self, digest: Digest) -> bytes:
        """All bytes of the object, checked.  Raises as ``open``."""
        with files.reporting(self.path(digest), "read"), io.FileIO(self._open(digest)) as file:
            data = file.readall()
        if hashlib.sha256(data).hexdigest() != digest:
            raise wrong_object(digest)
        return data

    def verify(self, digest: Digest) -> None:
        """Reads the whole object and checks it.  Raises as ``open``."""
        fd = self._open(digest)
        try:
            with files.reporting(self.path(digest), "read"):
                found = files.copy_hashing(fd, None)
        finally:
            os.close(fd)
        if found.digest != digest:
            raise wrong_object(digest)

    def copy_out(self, digest: Digest, target: Path, *, root: Path | None = None, link: bool = False) -> None:
        """Writes the checked bytes to ``target``; a file or symlink of that name is replaced, not followed.

        Readers see the old file or the whole new one.  Not synced: the object stays here.  Where the file system can,
        the copy shares the object's bytes until one of them is changed (a reflink), and takes no space.

        Args:
            digest: The object.
            target: The new file.
            root: An existing folder above ``target``.  The folders between them are made where they are missing, and
                none of them may be a symlink, not even one that is put there meanwhile.  Left out: the folder of
                ``target``.
            link: Where there are no reflinks, let ``target`` be the object itself under another name (a hard link).  It
                is read-only; whoever makes it writable all the same, and changes it, changes the object, which is
                found out when it is read the next time.

        Raises:
            NotFoundError, CorruptError: As ``open``; ``target`` is as before.
            InvalidValueError: ``target`` is not below ``root``, or a symlink or a file is where a folder is needed.
            ReadOnlyError, StorageError: It cannot be written; ``target`` is as before.
        """
        root = target.parent if root is None else root
        if root not in target.parents or ".." in target.relative_to(root).parts:
            raise InvalidValueError(f"`{target}` is not below `{root}`")
        source = self._open(digest)
        try:
            with files.open_below(root, target.relative_to(root).parts[:-1]) as folder:
                fd, temp = files.create_temp(target.parent, 0o666, dir_fd=folder)
                name, final = (temp, target) if folder is None else (temp.name, target.name)
                try:
                    try:
                        with files.reporting(self.path(digest), "read"):
                            shared = files.clone_bytes(source, fd)
                            linked = link and not shared and files.link_over(self.path(digest), temp, dir_fd=folder)
                            # What is hashed is what will be at `target`.
                            copied = files.copy_hashing(*((fd, None) if shared else (source, None if linked else fd)))
                    finally:
                        os.close(fd)
                    if copied.failed:
                        raise files.failure(copied.failed, target) from copied.failed
                    if copied.digest != digest:
                        raise wrong_object(digest)
                    with files.reporting(target):
                        os.replace(name, final, src_dir_fd=folder, dst_dir_fd=folder)
                    if linked:
                        files.discard(name, dir_fd=folder)  # two names of one file: the system renamed nothing
                except BaseException:
                    files.discard(name, dir_fd=folder)
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
            raise _absent(digest) from error


class _Batch:
    """Objects on their way: temporary files that are synced together, then named, their folders synced at the end.

    If the block ends with an error, the files that have no name yet are removed.
    """

    def __init__(self, store: ObjectStore, *, many: bool = False) -> None:
        self._store = store
        self._temps: dict[Path, int] = {}  # the temporary files and their descriptors (-1: closed)
        self._staged: dict[Digest, tuple[Path, Path]] = {}  # the complete ones: where each is, and where it will be
        self._staged_bytes = 0
        self._shards: set[str] = set()
        self._whole: int | None = None  # for syncing the file system as a whole
        if many:
            files.make_dirs(store._temp)
            self._whole = files.open_for_whole_sync(store._temp)

    def __enter__(self) -> _Batch:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._sync_shards()
        finally:
            for temp in list(self._temps):
                self._drop(temp)
            if self._whole is not None:
                os.close(self._whole)

    def add_file(self, path: Path) -> tuple[Digest, int]:
        """Adds a file; returns its sha256 and size."""
        source = files.open_source(path)
        try:
            with files.reporting(path, "read"):
                if os.fstat(source).st_size <= _SMALL:
                    data = _read_all(source, _SMALL)
                    if len(data) <= _SMALL:
                        return self.add_bytes(data)
                    os.lseek(source, 0, os.SEEK_SET)  # it has grown since
            return self._add_large(path, source)
        finally:
            os.close(source)

    def add_bytes(self, data: bytes) -> tuple[Digest, int]:
        """Adds bytes; returns their sha256 and size.  They are hashed first: what is known is not written."""
        digest, size = Digest(hashlib.sha256(data).hexdigest()), len(data)
        target = self._store.path(digest)
        if not self._known(digest, size, target):
            fd, temp = self._create()
            with files.reporting(target):
                files.write_all(fd, data)
            self._stage(digest, size, temp, target)
        return digest, size

    def _add_large(self, path: Path, source: int) -> tuple[Digest, int]:
        """Adds what is too large to read twice: it is copied while it is hashed, and the copy dropped if known.

        What does not fit is only hashed, to see if it is known; and not even that if nothing known is as large.
        """
        store = self._store
        fd, temp = self._create()
        full = None
        with files.reporting(path, "read"):
            size = os.fstat(source).st_size
            if not files.fits(fd, size):
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if all(size != other for _, other in store.iter_digests()):
                    raise files.failure(full, store.root)
            copied = files.copy_hashing(source, None if full else fd)
        digest = Digest(copied.digest)
        target = store.path(digest)
        failed = full or copied.failed
        if self._known(digest, copied.size, target):
            self._drop(temp)
        elif failed:
            raise files.failure(failed, target) from failed
        else:
            self._stage(digest, copied.size, temp, target)
        return digest, copied.size

    def named(self, digest: Digest) -> None:
        """Have the folder of an object synced that got its name elsewhere."""
        self._shards.add(digest[:4])

    def _create(self) -> tuple[int, Path]:
        folder = self._store._temp
        try:
            fd, temp = files.create_temp(folder, _MODE)
        except StorageError:
            files.make_dirs(folder)  # the store may be new; any other trouble shows again
            fd, temp = files.create_temp(folder, _MODE)
        self._temps[temp] = fd
        return fd, temp

    def _close(self, temp: Path) -> None:
        fd, self._temps[temp] = self._temps[temp], -1
        if fd >= 0:
            os.close(fd)

    def _drop(self, temp: Path) -> None:
        self._close(temp)
        del self._temps[temp]
        files.discard(temp)

    def _known(self, digest: Digest, size: int, target: Path) -> bool:
        """True if the object is staged, or stored already; then it is made young, for a collection under way."""
        if digest in self._staged:
            return True
        shard = digest[:4]
        if shard in self._store._doubtful or not _is_object(target, size):
            return False
        try:
            os.utime(target)
        except FileNotFoundError:
            return False  # collected just now
        except OSError:
            pass  # another user's object, or a read-only store: it is there all the same
        self._shards.add(shard)  # another process may have named it and not synced the folder yet
        return True

    def _stage(self, digest: Digest, size: int, temp: Path, target: Path) -> None:
        self._staged[digest] = temp, target
        self._staged_bytes += size
        if self._whole is not None:
            self._close(temp)
        elif len(self._staged) >= _GROUP or self._staged_bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Syncs what is staged and gives it its names."""
        if not self._staged:
            return
        with files.reporting(self._store.root):
            if self._whole is not None:
                files.sync_whole(self._whole)
            else:
                _each(files.sync_file, [self._temps[temp] for temp, _ in self._staged.values()])
        for digest, (temp, target) in self._staged.items():
            self._shards.add(digest[:4])
            with files.reporting(target):
                self._close(temp)  # before the rename, for Windows
                _rename(temp, target)
            del self._temps[temp]
        self._staged.clear()
        self._staged_bytes = 0

    def _sync_shards(self) -> None:
        """Syncs the folders that got names, and those above them that this process has not synced yet."""
        store = self._store
        new = self._shards - store._settled
        folders = [f"{store._root}/{shard[:2]}/{shard[2:]}" for shard in self._shards]
        folders += {f"{store._root}/{shard[:2]}" for shard in new}
        if new:
            folders.append(store._root)
        try:
            if self._whole is not None and self._shards:
                with files.reporting(store.root):
                    files.sync_whole(self._whole)
            else:
                _each(files.sync_dir, folders)
        except GittrackError:
            store._doubtful |= self._shards  # a second sync would say "done": its objects must be written anew
            raise
        store._settled |= new


class Incoming:
    """Bytes that come in pieces.  One thread at a time uses it.

    Attributes:
        size: How many have come.
        digest: Their sha256, once they are finished.
    """

    def __init__(self, batch: _Batch) -> None:
        self._batch = batch
        self._fd, self._temp = batch._create()
        self._hash = hashlib.sha256()
        self._written = 0
        self.size = 0
        self.digest: Digest | None = None

    def write(self, data: bytes) -> None:
        """Adds the next bytes.  Raises StorageError."""
        with files.reporting(self._temp):
            files.write_all(self._fd, data)
        self._hash.update(data)
        self.size += len(data)
        if self.size - self._written >= files.WRITE_BACK:
            files.start_writing(self._fd, self._written, self.size - self._written)
            self._written = self.size

    def finish(self, expected: Digest | None = None) -> tuple[Digest, int]:
        """There is no more; sha256 and size of all that came.  Raises CorruptError if it is not what was expected."""
        digest = Digest(self._hash.hexdigest())
        if expected not in (None, digest):
            raise _wrong_bytes(expected)
        target = self._batch._store.path(digest)
        if self._batch._known(digest, self.size, target):
            self._batch._drop(self._temp)
        else:
            self._batch._stage(digest, self.size, self._temp, target)
        self.digest = digest
        return digest, self.size


class Arrivals:
    """Objects that come from elsewhere, by any number of threads at once; used as a context manager.

    What has come whole and has the right bytes is an object, durably, when the block ends, also if it ends with an
    error.  What has come in part counts for nothing, and is kept for the next time.

    Args:
        store: Where they go.
        amount: How many are expected, about.

    Raises:
        ReadOnlyError, StorageError: The store cannot be written.
    """

    def __init__(self, store: ObjectStore, amount: int = 1) -> None:
        self.store = store
        files.make_dirs(store._temp)
        self._batch = _Batch(store, many=amount >= _MANY)
        self._lock = threading.Lock()

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._batch.__exit__(None)
            return
        with suppress(GittrackError):  # the error that ends the block is the one to tell
            self._batch.__exit__(None)

    def add(self, data: bytes, digest: Digest) -> None:
        """Takes a small object.  Raises CorruptError if the bytes are others, ReadOnlyError, StorageError."""
        if hashlib.sha256(data).hexdigest() != digest:
            raise _wrong_bytes(digest)
        with self._lock:
            self._batch.add_bytes(data)

    @contextmanager
    def part(self, digest: Digest, size: int) -> Iterator[Part | None]:
        """The place for the bytes of one object; None if it came another way while this waited for its turn.

        Raises:
            ReadOnlyError, StorageError: There is no room for it, or it cannot be made.
        """
        path = files.part_path(self.store._temp, digest)
        fd = files.open_part(path, patience=_PATIENCE)
        shared = fd is not None
        if fd is None:
            fd, path = files.create_temp(self.store._temp, 0o666)
        try:
            if self.store.has(digest, size):
                files.discard(path)
                yield None
                return
            part = Part(self.store, fd, path, digest, size)
            try:
                yield part
            finally:
                if not shared and not part.done:
                    files.discard(path)
                if part.done:
                    with self._lock:
                        self._batch.named(digest)
        finally:
            files.close_part(fd)

    def copy(self, source: int, digest: Digest, size: int, told: Callable[[int], None]) -> None:
        """Takes an object from an open file; ``told`` hears the bytes of every piece.

        Raises:
            CorruptError: The file has other bytes.
            ReadOnlyError, StorageError: It cannot be read, or not be kept.
        """
        if size <= _SMALL:
            with files.reporting(digest, "read"):
                data = _read_all(source, size)
            self.add(data, digest)
            told(size)
            return
        with self.part(digest, size) as part:
            if part is not None:
                part.copy(source, told)


class Part:
    """What has come of one object.  One thread uses it.

    Attributes:
        have: Bytes that are here, from the beginning.  They are those that somebody sent, not necessarily the right
            ones: that is told at the end.
        done: It came whole, was right, and has its name.
    """

    def __init__(self, store: ObjectStore, fd: int, path: Path, digest: Digest, size: int) -> None:
        self._store = store
        self._fd = fd
        self._path = path
        self._digest = digest
        self._size = size
        self._written = 0
        self.done = False
        self._hash = hashlib.sha256()
        self.have = 0
        with files.reporting(path):
            if os.fstat(fd).st_size > size:
                os.ftruncate(fd, 0)
            self.have = files.copy_hashing(fd, None, digest=self._hash).size
            if not files.fits(fd, size - self.have):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, data: bytes | memoryview) -> None:
        """Adds the next bytes.  Raises CorruptError if they are more than there can be, StorageError."""
        if self.have + len(data) > self._size:
            self.restart()
            raise CorruptError(f"more than the {self._size} bytes of `{self._digest}` were sent")
        with files.reporting(self._path):
            files.write_all(self._fd, data)
        self._hash.update(data)
        self.have += len(data)
        if self.have - self._written >= files.WRITE_BACK:
            files.start_writing(self._fd, self._written, self.have - self._written)
            self._written = self.have

    def copy(self, source: int, told: Callable[[int], None]) -> None:
        """Fills it from an open file, and finishes it.  Raises as ``finish``."""
        with files.reporting(self._digest, "read"):
            length = os.fstat(source).st_size
            if length != self._size:
                raise CorruptError(f"`{self._digest}` has {length} bytes there, not {self._size}")
            if self.have == 0 and files.clone_bytes(source, self._fd):
                copied = files.copy_hashing(self._fd, None, digest=self._hash, told=told)
            else:
                told(self.have)
                os.lseek(source, self.have, os.SEEK_SET)
                copied = files.copy_hashing(source, self._fd, digest=self._hash, told=told)
        if copied.failed:
            raise files.failure(copied.failed, self._path) from copied.failed
        self.have += copied.size
        self.finish()

    def take(self, source: int, told: Callable[[int], None]) -> None:
        """Fills it from where an open file or a pipe stands, however much follows, and finishes it.

        What had come of it before is not counted on.  Raises as ``finish``.
        """
        self.restart()
        with files.reporting(self._digest, "read"):
            copied = files.copy_hashing(source, self._fd, digest=self._hash, told=told, length=self._size)
        if copied.failed:
            raise files.failure(copied.failed, self._path) from copied.failed
        self.have = copied.size
        self.finish()

    def restart(self) -> None:
        """Forgets what is here.  Raises StorageError."""
        with files.reporting(self._path):
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        self.have = self._written = 0
        self._hash = hashlib.sha256()

    def finish(self) -> None:
        """Makes it an object.

        Raises:
            CorruptError: It is not whole, or has other bytes; then nothing of it is left.
            ReadOnlyError, StorageError: It cannot be put on disk.
        """
        if self.have != self._size or self._hash.hexdigest() != self._digest:
            whole = self.have == self._size
            have = self.have
            self.restart()
            if whole:
                raise _wrong_bytes(self._digest)
            raise CorruptError(f"only {have} of the {self._size} bytes of `{self._digest}` came")
        target = self._store.path(self._digest)
        try:
            with files.reporting(target):
                self._path.chmod(os.fstat(self._fd).st_mode & _MODE)
                files.sync_file(self._fd)
        except GittrackError:
            files.discard(self._path)  # a second sync would say "done"
            raise
        with files.reporting(target):
            _rename(self._path, target)
        self.done = True


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
            raise wrong_object(self._digest)


def _rename(temp: Path, target: Path) -> None:
    """Gives ``temp`` its name; the folder may have to be made, and is synced later with the other shards."""
    try:
        temp.replace(target)
    except FileNotFoundError:
        files.make_dirs(target.parent, durable=False)
        temp.replace(target)


def _is_object(path: Path, size: int | None) -> bool:
    """True for a regular file of ``size`` bytes (of any size if None)."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise files.failure(error, path, "read") from error
    return stat.S_ISREG(found.st_mode) and size in (None, found.st_size)


def _absent(digest: Digest) -> NotFoundError:
    return NotFoundError(
        f"artifact object `{digest}` is not in this clone",
        hint="fetch it from where the run came from: `gittrack help artifacts`",
    )


def wrong_object(digest: Digest) -> CorruptError:
    """What is kept under a sha256 has another one."""
    return CorruptError(
        f"artifact object `{digest}` has other bytes than its name says",
        hint="`gittrack fsck --full` lists all such objects; remove it and fetch it again: `gittrack help artifacts`",
    )


def _wrong_bytes(digest: Digest) -> CorruptError:
    return CorruptError(f"other bytes than those of `{digest}` were sent")


def _read_all(fd: int, limit: int) -> bytes:
    """The bytes of ``fd``, but not many more than ``limit``.  Raises OSError."""
    chunks: list[bytes] = []
    total = 0
    while total <= limit and (chunk := os.read(fd, limit + 1)):
        chunks.append(chunk)
        total += len(chunk)
    return b"".join(chunks)


def _each(sync: Callable[[_T], None], items: Sequence[_T]) -> None:
    """``sync`` for each item, several at a time; all are done on return.  Raises one of the errors if any failed."""
    if len(items) < 2:
        for item in items:
            sync(item)
        return
    from concurrent.futures import ThreadPoolExecutor

    def sync_some(some: Sequence[_T]) -> None:
        for item in some:
            sync(item)

    with ThreadPoolExecutor(_SYNCERS) as pool:
        list(pool.map(sync_some, [items[start::_SYNCERS] for start in range(_SYNCERS)]))


def _scan(folder: str | Path) -> list[os.DirEntry[str]]:
    with files.reporting(folder, "read"):
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []


def _folders(folder: str | Path) -> list[os.DirEntry[str]]:
    return [e for e in _scan(folder) if _SHARD.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
