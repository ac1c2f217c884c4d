"""Buckets and folders elsewhere, through fsspec: ``s3://``, ``gs://``, ``az://`` and ``ssh://``.

Objects lie there as in `.gittrack/objects`: ``<prefix>/ab/cd/<sha256>``.  They appear whole: where a backend shows
files while they are written, they are written under another name first.  Credentials are those of the backend: the
environment, `~/.aws`, `~/.ssh` and so on; hosts that ssh does not know are refused.
"""

from __future__ import annotations

import importlib
import os
import posixpath
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from gittrack.errors import (
    CorruptError,
    GittrackError,
    InvalidValueError,
    MissingDependencyError,
    NetworkError,
    NotFoundError,
)
from gittrack.store.gateway import strip_credentials
from gittrack.store.objects import Arrivals, ObjectStore, Part
from gittrack.sync.depots import Count, Item, Progress, in_parallel, persist, receive
from gittrack.types import Digest

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_THREADS: Final = 8
_LOOKERS: Final = 16  #: a look at an object is one short request
_PIECE: Final = 16 << 20  #: bytes that are fetched at a time
#: Bytes that are sent as one part, unless an object had more than so many of them then, and how many parts are under
#: way at a time: each is in memory more than once, in a server that may have little.
_PART: Final = 8 << 20
_MOST_PARTS: Final = 10_000
_PARTS: Final = 3


@dataclass(frozen=True)
class _Kind:
    """A backend.

    Attributes:
        module: The package that has it.
        name: Its class there.
        extra: The extra of ours that installs it.
        atomic: Files appear when they are whole.
        options: For the class.
        parts: Its ``put_file`` takes the size of a part.
        sending: For its ``put_file``.
    """

    module: str
    name: str
    extra: str
    atomic: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    parts: bool = False
    sending: Mapping[str, Any] = field(default_factory=dict)


_FRESH: Final = {"use_listings_cache": False}
_S3: Final = _Kind("s3fs", "S3FileSystem", "s3", options={"max_concurrency": _PARTS, **_FRESH}, parts=True)
_GCS: Final = _Kind("gcsfs", "GCSFileSystem", "gcs", options=_FRESH, parts=True)
_AZURE: Final = _Kind("adlfs", "AzureBlobFileSystem", "azure", options=_FRESH, sending={"overwrite": True})
# Left to itself sshfs takes any host for the one that is meant; an empty tuple is `~/.ssh/known_hosts`.
_SSH: Final = _Kind(
    "sshfs", "SSHFileSystem", "ssh", atomic=False, options={"known_hosts": (), "keepalive_interval": 30}
)
_KINDS: Final = {
    "s3": _S3,
    "gs": _GCS,
    "gcs": _GCS,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "ssh": _SSH,
    "sftp": _SSH,
}
#: The kinds of addresses that are buckets, or folders on another machine.
SCHEMES: Final = frozenset(_KINDS)


class BucketDepot:
    """A prefix in a bucket, or a folder on another machine.

    Args:
        store: The objects of this clone.
        url: Its address.

    Raises:
        InvalidValueError: No such address.
        MissingDependencyError: The package for it is not installed.
        NetworkError: It cannot be reached.
    """

    def __init__(self, store: ObjectStore, url: str) -> None:
        self.name = f"`{strip_credentials(url)}`"
        self._store = store
        self._stop = threading.Event()
        scheme = url.partition("://")[0].lower()
        self._kind = _KINDS[scheme]
        try:
            found = getattr(importlib.import_module(self._kind.module), self._kind.name)
        except ImportError as error:
            raise MissingDependencyError(
                f"`{scheme}:` addresses need the package `{self._kind.module}`: {error}",
                hint=f"pip install 'gittrack[{self._kind.extra}]'",
            ) from error
        self._root = str(found._strip_protocol(url)).rstrip("/")
        if not self._root.strip("/"):
            raise InvalidValueError(f"{self.name} names no bucket or folder", hint=f"{scheme}://BUCKET/PREFIX")
        options = {**found._get_kwargs_from_urls(url), **self._kind.options}
        with self._reporting():
            self._fs = found(skip_instance_cache=True, **options)

    def lacking(self, items: Sequence[Item]) -> list[Item]:
        """Those that are not there with their size; see ``Depot``."""
        absent: set[Item] = set()

        def look(item: Item, _: None) -> None:
            if not self._has(item):
                absent.add(item)

        self._all(items, look, _LOOKERS)
        return [item for item in items if item in absent]

    def upload(self, items: Sequence[Item], progress: Progress) -> None:
        """Send objects; see ``Depot``."""
        count = Count(items, progress)
        self._all(items, lambda item, _: self._send(item, count), _THREADS)

    def download(self, items: Sequence[Item], progress: Progress) -> None:
        """Fetch objects; see ``Depot``."""
        count = Count(items, progress)
        with Arrivals(self._store, len(items)) as arrivals:
            self._all(items, lambda item, _: self._fetch(arrivals, item, count), _THREADS)

    # -- one object

    def size(self, digest: Digest) -> int:
        """Bytes that an object has there.  Raises NotFoundError, NetworkError."""

        def look() -> int:
            with self._reporting():
                return int(self._fs.info(self._path(digest))["size"])

        return persist(look, self._stop)

    def modified(self, digest: Digest) -> float:
        """When an object was put there, in seconds since the epoch.  Raises NotFoundError, NetworkError."""
        with self._reporting():
            when: datetime = self._fs.modified(self._path(digest))
        return when.timestamp()

    def keep(self, item: Item) -> None:
        """Put an object of the clone there, whose bytes were just looked at.  Raises as ``upload``."""
        persist(lambda: self._put(item, Count([item], lambda _done, _total: None)), self._stop)

    def piece(self, item: Item, start: int, end: int) -> bytes:
        """Some bytes of an object, unchecked.  Raises NotFoundError, CorruptError if there are fewer, NetworkError."""
        return self._piece(item, start, end)

    def remove(self, digest: Digest) -> None:
        """Remove an object.  Raises NotFoundError, NetworkError."""
        with self._reporting():
            self._fs.rm_file(self._path(digest))

    def listed(self) -> list[Item]:
        """Every object there, sorted.  Raises NetworkError."""
        with self._reporting():
            found = self._fs.find(self._root, detail=True).values()
        items = [(str(one["name"]).rpartition("/")[2], int(one["size"])) for one in found]
        return sorted(Item(Digest(name), size) for name, size in items if _DIGEST.fullmatch(name))

    def _path(self, digest: Digest) -> str:
        return f"{self._root}/{digest[:2]}/{digest[2:4]}/{digest}"

    def _has(self, item: Item) -> bool:
        try:
            return self.size(item.digest) == item.size
        except NotFoundError:
            return False

    def _send(self, item: Item, count: Count) -> None:
        self._store.verify(item.digest)
        persist(lambda: self._put(item, count), self._stop)

    def _put(self, item: Item, count: Count) -> None:
        from fsspec.callbacks import Callback

        told = 0

        class Told(Callback):  # type: ignore[misc]  # fsspec has no types
            def relative_update(self, inc: int = 1) -> None:
                nonlocal told
                told += inc
                count.add(inc)

            def absolute_update(self, value: int) -> None:
                self.relative_update(value - told)

        sending = dict(self._kind.sending)
        if self._kind.parts:
            sending["chunksize"] = max(_PART, -(-item.size // _MOST_PARTS))
        path = self._path(item.digest)
        target = path if self._kind.atomic else f"{self._root}/incoming/{item.digest}.{os.urandom(8).hex()}"
        try:
            with self._reporting(gone="the bucket or folder is not there"):
                self._fs.put_file(str(self._store.path(item.digest)), target, callback=Told(), **sending)
                if target != path:
                    self._fs.makedirs(posixpath.dirname(path), exist_ok=True)
                    self._fs.mv(target, path)
                if self._fs.info(path)["size"] != item.size:
                    raise NetworkError(f"{self.name} did not keep all of object `{item.digest[:12]}`", again=0.0)
        except BaseException:
            count.add(-told)
            if target != path:
                with suppress(Exception):  # whatever the backend raises: what went wrong first is what is told
                    self._fs.rm_file(target)
            raise
        count.add(item.size - told)  # not every backend tells

    def _fetch(self, arrivals: Arrivals, item: Item, count: Count) -> None:
        receive(
            arrivals,
            item,
            count,
            whole=lambda: self._piece(item, 0, item.size),
            rest=lambda part: self._fill(part, item, count),
        )

    def _fill(self, part: Part, item: Item, count: Count) -> None:
        while part.have < item.size:
            data = self._piece(item, part.have, min(item.size, part.have + _PIECE))
            part.write(data)
            count.add(len(data))

    def _piece(self, item: Item, start: int, end: int) -> bytes:
        if start == end:
            return b""

        def fetch() -> bytes:
            with self._reporting():
                data = bytes(self._fs.cat_file(self._path(item.digest), start=start, end=end))
            if len(data) != end - start:
                raise CorruptError(f"{self.name} has not {item.size} bytes of object `{item.digest[:12]}`")
            return data

        return persist(fetch, self._stop)

    # -- all

    def _all(self, items: Sequence[Item], work: Callable[[Item, None], None], threads: int) -> None:
        if items:
            tasks = ((item, None) for item in items)
            in_parallel(
                tasks, work, name=self.name, total=len(items), threads=threads, stop=self._stop.set,
                end_thread=lambda: None,
            )  # fmt: skip

    @contextmanager
    def _reporting(self, gone: str | None = None) -> Iterator[None]:
        """Turn what a backend raises, which may be anything, into our errors."""
        if self._stop.is_set():
            raise NetworkError("stopped")
        try:
            yield
        except GittrackError:
            raise
        except FileNotFoundError as error:
            if gone is not None:
                raise NetworkError(f"{self.name}: {gone}", hint="make it first") from error
            raise NotFoundError(f"{self.name} does not have it") from error
        except PermissionError as error:
            hint = "check the credentials of the backend and the rights on the bucket or folder"
            raise NetworkError(f"{self.name} does not let us in: {_said(error)}", hint=hint, denied=True) from error
        except Exception as error:  # each backend has errors of its own
            raise NetworkError(f"{self.name}: {_said(error)}", again=0.0) from error


def _said(error: Exception) -> str:
    text = re.sub(r"[^\x20-\x7e]+", " ", strip_credentials(str(error))).strip()
    return text[:200] or type(error).__name__


__all__ = ["SCHEMES", "BucketDepot"]
