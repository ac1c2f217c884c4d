"""The objects of a server in a bucket: any number of servers share it, and none of them keeps a file that matters.

What is sent is hashed on its way into a local file, goes from there into the bucket under its sha256, and only then
counts.  What is read is read in pieces.  Objects that the clone has from before the bucket are found all the same.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast
from urllib.parse import unquote, urlsplit

from gittrack.errors import GittrackError, InvalidValueError, NotFoundError, shown
from gittrack.store import files
from gittrack.store.objects import Incoming, ObjectStore, wrong_object
from gittrack.sync.bucket import SCHEMES, BucketDepot
from gittrack.sync.depots import Item
from gittrack.types import Digest

if TYPE_CHECKING:
    from typing_extensions import Buffer

#: Bytes that are read at a time.
_PIECE: Final = 4 << 20


class BucketStore(ObjectStore):
    """The objects in a bucket.  Threads and processes may share it.

    Args:
        root: The folder of the clone's objects; they stay here only until they are in the bucket.
        url: Of the bucket, with a prefix.

    Raises:
        InvalidValueError, MissingDependencyError, NetworkError: As ``BucketDepot``.
    """

    def __init__(self, root: Path, url: str) -> None:
        super().__init__(root)
        self._bucket = BucketDepot(self, url)

    # ------------------------------------------------------------ writing

    def put_bytes(self, data: bytes) -> tuple[Digest, int]:
        """As ``ObjectStore.put_bytes``.  Raises NetworkError, too."""
        found = super().put_bytes(data)
        self._move([Item(*found)])
        return found

    def put_many(self, paths: Iterable[Path]) -> list[tuple[Digest, int]]:
        """As ``ObjectStore.put_many``.  Raises NetworkError, too."""
        found = super().put_many(paths)
        self._move([Item(*one) for one in found])
        return found

    @contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """As ``ObjectStore.incoming``.  Raises NetworkError, too."""
        with super().incoming() as incoming:
            yield incoming
        if incoming.digest is not None:
            self._move([Item(incoming.digest, incoming.size)])

    def _move(self, items: Iterable[Item]) -> None:
        """Put objects that are here into the bucket, and remove them here."""
        for item in dict.fromkeys(items):
            if not self._kept(item):
                try:
                    self._bucket.keep(item)
                except GittrackError:  # somebody else who had the same bytes may have been quicker, and removed it
                    if not self._kept(item):
                        raise
            super().delete(item.digest)

    def _kept(self, item: Item) -> bool:
        try:
            return self._bucket.size(item.digest) == item.size
        except NotFoundError:
            return False

    def delete(self, digest: Digest) -> int:
        """As ``ObjectStore.delete``.  Raises NetworkError, too."""
        freed = super().delete(digest)
        with suppress(NotFoundError):
            freed = self._bucket.size(digest)
            self._bucket.remove(digest)
        return freed

    # ------------------------------------------------------------ reading

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """As ``ObjectStore.has``.  Raises NetworkError, too."""
        self.path(digest)  # it must be a digest
        with suppress(NotFoundError):
            return size in (None, self._bucket.size(digest))
        return super().has(digest, size)

    def size(self, digest: Digest) -> int:
        """As ``ObjectStore.size``.  Raises NetworkError, too."""
        with suppress(NotFoundError):
            return self._bucket.size(digest)
        return super().size(digest)

    def modified(self, digest: Digest) -> float:
        """As ``ObjectStore.modified``.  Raises NetworkError, too."""
        with suppress(NotFoundError):
            return self._bucket.modified(digest)
        return super().modified(digest)

    def open(self, digest: Digest) -> BinaryIO:
        """As ``ObjectStore.open``, in pieces from the bucket.  Raises NetworkError, too."""
        with suppress(NotFoundError):
            return self._reader(digest, 0, checked=True)
        return super().open(digest)

    def open_from(self, digest: Digest, start: int) -> BinaryIO:
        """As ``ObjectStore.open_from``.  Raises NetworkError, too."""
        with suppress(NotFoundError):
            return self._reader(digest, start, checked=False)
        return super().open_from(digest, start)

    def read(self, digest: Digest) -> bytes:
        """As ``ObjectStore.read``.  Raises NetworkError, too."""
        with self.open(digest) as file:
            return file.read()

    def verify(self, digest: Digest) -> None:
        """As ``ObjectStore.verify``.  Raises NetworkError, too."""
        with self.open(digest) as file:
            while file.read(_PIECE):
                pass

    def copy_out(self, digest: Digest, target: Path, *, root: Path | None = None, link: bool = False) -> None:
        """As ``ObjectStore.copy_out``, and always a copy.  Raises NetworkError, too."""
        super().copy_out(digest, target, root=root)

    def iter_digests(self) -> Iterator[tuple[Digest, int]]:
        """As ``ObjectStore.iter_digests``.  Raises NetworkError, too."""
        yield from sorted({**dict(super().iter_digests()), **dict(self._bucket.listed())}.items())

    def _reader(self, digest: Digest, start: int, *, checked: bool) -> BinaryIO:
        self.path(digest)  # it must be a digest
        item = Item(digest, self._bucket.size(digest))
        return cast("BinaryIO", io.BufferedReader(_Reader(self._bucket, item, start, checked=checked), 1 << 20))

    def _open(self, digest: Digest) -> int:
        """A file without a name that has the object's bytes."""
        try:
            source = self._reader(digest, 0, checked=True)
        except NotFoundError:
            return super()._open(digest)
        files.make_dirs(self._temp)
        fd, temp = files.create_temp(self._temp)
        try:
            files.discard(temp)
            with source, files.reporting(temp):
                while data := source.read(_PIECE):
                    files.write_all(fd, data)
                os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd


class _Reader(io.RawIOBase):
    """Reads an object in pieces; if it is ``checked``, its last bytes are given out only if all of them are right."""

    def __init__(self, bucket: BucketDepot, item: Item, start: int, *, checked: bool) -> None:
        super().__init__()
        self._bucket = bucket
        self._item = item
        self._next = start
        self._hash = hashlib.sha256() if checked else None
        self._piece = memoryview(b"")
        if checked and not item.size:
            self._check()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._piece and self._next < self._item.size:
            end = min(self._item.size, self._next + _PIECE)
            data = self._bucket.piece(self._item, self._next, end)
            self._next = end
            if self._hash is not None:
                self._hash.update(data)
                if end == self._item.size:
                    self._check()
            self._piece = memoryview(data)
        count = min(len(view), len(self._piece))
        view[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def _check(self) -> None:
        if self._hash is not None and self._hash.hexdigest() != self._item.digest:
            raise wrong_object(self._item.digest)


def at(root: Path, url: str) -> ObjectStore:
    """Where the objects of a server are.

    Args:
        root: The folder of the clone's objects.
        url: A bucket, or a folder as a path or a ``file:`` address.

    Raises:
        InvalidValueError, MissingDependencyError, NetworkError: It cannot be used.
    """
    scheme = url.partition("://")[0].lower() if "://" in url else "file"
    if scheme in SCHEMES:
        return BucketStore(root, url)
    parts = urlsplit(url) if url.startswith("file:") else None
    if scheme != "file" or not url or (parts is not None and parts.netloc not in ("", "localhost")):
        raise InvalidValueError(
            f"artifacts cannot be kept at `{shown(url)}`", hint="a folder, or a bucket: s3://BUCKET/PREFIX"
        )
    folder = Path(url if parts is None else unquote(parts.path)).absolute()
    files.make_dirs(folder)
    return ObjectStore(folder)
