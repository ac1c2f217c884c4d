"""Folders of files on a tracking server: listed, fetched and sent.

MLflow's servers show one tree of files under ``/api/2.0/mlflow-artifacts/artifacts``, and say of a run, a logged model
or a version where in it its files are: ``mlflow-artifacts:/<path>``.  A run's files that are kept elsewhere (a bucket)
can be read through the server all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlencode, urlsplit

from gittrack.errors import CorruptError, FormatError, NotFoundError, UnsupportedError
from gittrack.remote import wire
from gittrack.remote.http import Connection, items, quoted
from gittrack.store import files
from gittrack.track import limits
from gittrack.types import FileInfo

_TREE: Final = "/api/2.0/mlflow-artifacts/artifacts"
_MAX_FILES: Final = 100_000
_MAX_DEPTH: Final = 64


class Folder:
    """A folder on a server.

    Args:
        connection: The server.
        uri: What the server says where it is.
        path: Below that place.
        run_id: The run whose files they are, if they are a run's.

    Raises:
        UnsupportedError: The server does not hand these files out.
    """

    def __init__(self, connection: Connection, uri: str, path: str = "", *, run_id: str | None = None) -> None:
        parts = urlsplit(uri)
        self._connection = connection
        self._run_id: str | None = None
        self.path = path  #: below the run's artifacts, or below what the server named
        self._root = ""
        if self.takes_files(uri):
            self._root = unquote(parts.path).strip("/")
        elif run_id is not None:
            self._run_id = run_id
        else:
            raise UnsupportedError(
                f"the server does not hand out the files at `{uri:.200}`",
                hint="start it with `mlflow server --serve-artifacts`",
            )

    @staticmethod
    def takes_files(uri: str) -> bool:
        """Whether the server takes files for what it says is at ``uri``; others are kept elsewhere, and only read."""
        parts = urlsplit(uri)
        return parts.scheme == "mlflow-artifacts" and not parts.netloc

    def below(self, path: str) -> Folder:
        """A folder in it."""
        made = Folder.__new__(Folder)
        made.__dict__.update(self.__dict__)
        made.path = _joined(self.path, path)
        return made

    def listing(self, path: str = "") -> list[FileInfo]:
        """Files and folders directly below ``path``, whose paths begin with it; empty if there is nothing, or a file.

        Raises:
            FormatError: The server names what cannot be there.
        """
        place = _joined(self.path, path)
        try:
            if self._run_id is None:
                found = self._connection.call("GET", f"{_TREE}?{urlencode({'path': _joined(self._root, place)})}")
            else:
                found = self._connection.get("artifacts/list", run_id=self._run_id, path=place or None)
        except NotFoundError:
            return []
        listed = []
        for one in map(wire.file_info, items(found, "files")):
            name = one.path.rpartition("/")[2]
            if self._run_id is not None and one.path != _joined(place, name):
                continue  # a file lists itself
            if not name or limits.check_artifact_path(name) != name:
                raise FormatError(f"a server names a file `{one.path!r:.80}`, which is no name of one")
            listed.append(FileInfo(_joined(path, name), one.is_dir, one.file_size))
        return sorted(listed, key=lambda one: one.path)

    def walk(self, path: str = "") -> Iterator[FileInfo]:
        """Every file below ``path``.  Raises FormatError, also for too many of them."""
        todo, seen = [path], 0
        while todo:
            below = todo.pop()
            if below.count("/") > _MAX_DEPTH:
                raise FormatError(f"the folders of `{self.path or '.'}` on the server never end")
            for one in self.listing(below):
                seen += 1
                if seen > _MAX_FILES:
                    raise FormatError(f"`{self.path or '.'}` has more than {_MAX_FILES} files on the server")
                if one.is_dir:
                    todo.append(one.path)
                else:
                    yield one

    def find(self, path: str) -> FileInfo | None:
        """What is at ``path``; None if there is nothing."""
        above = path.rpartition("/")[0]
        return next((one for one in self.listing(above) if one.path == path), None)

    def _target(self, path: str) -> str:
        place = _joined(self.path, path)
        if self._run_id is None:
            return f"{_TREE}/{quoted(_joined(self._root, place))}"
        return f"/get-artifact?{urlencode({'run_id': self._run_id, 'path': place})}"

    def read(self, path: str, most: int) -> bytes:
        """The bytes of a file.  Raises NotFoundError, and NetworkError for more than ``most``."""
        return self._connection.read(self._target(path), most)

    def fetch(self, path: str, target: Path, *, size: int | None = None) -> str:
        """Write a file into a new one, and give its sha256.

        Raises:
            CorruptError: It has not ``size`` bytes, or not the digest that the server says.
            NotFoundError, NetworkError, StorageError: It cannot be fetched, or not be written.
        """
        with files.reporting(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        digest, tag = self._connection.download(self._target(path), target)
        told = re.fullmatch(r'"([0-9a-f]{64})"', tag)
        if (size is not None and target.stat().st_size != size) or (told is not None and told[1] != digest):
            target.unlink()
            raise CorruptError(f"`{path}` came from the server with other bytes than it says", hint="try again")
        return digest

    def send(self, path: str, file: Path) -> None:
        """Keep a file under ``path``.  Raises UnsupportedError if the server takes no files."""
        self._require_tree()
        self._connection.upload(self._target(path), file)

    def send_all(self, found: Mapping[str, Path]) -> None:
        """Keep files under the paths that they are given by.  Raises InvalidValueError before any is sent."""
        for path, file in {limits.check_artifact_path(path): file for path, file in found.items()}.items():
            self.send(path, file)

    def remove(self, path: str) -> None:
        """Drop a file.  Raises NotFoundError; UnsupportedError if the server takes no files."""
        self._require_tree()
        self._connection.call("DELETE", self._target(path))

    def _require_tree(self) -> None:
        if self._run_id is not None:
            raise UnsupportedError(
                "the server takes no files of runs", hint="start it with `mlflow server --serve-artifacts`"
            )


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder and name else folder or name
