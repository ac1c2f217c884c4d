"""Files of a foreign folder: what may be read of it, without following a link and within bounds.

What a foreign store says about paths is a claim: a database that names ``/home/ana/.ssh`` as the artifacts of a run
must not put keys into a run that is shared later.  So every folder has to lie in one that the person named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from gittrack.convert.source import SourceFile
from gittrack.errors import FormatError, InvalidValueError, NotFoundError
from gittrack.models.model import parsed
from gittrack.store import files

#: Files of one run, and how deep they may lie.
MAX_FILES: Final = 1_000_000
MAX_DEPTH: Final = 64
#: Where MLflow, and its server, keep artifacts unless they are told otherwise.
_OWN: Final = ("mlruns", "mlartifacts")
#: Bytes of a text file of a foreign store: a tag, a YAML document.
MAX_TEXT: Final = 4 << 20


def read_bytes(path: Path, limit: int = MAX_TEXT) -> bytes:
    """A small file.  Raises FormatError for a link, a special or a big file, NotFoundError, StorageError."""
    try:
        fd = files.open_source(path)
    except InvalidValueError as error:
        raise FormatError(f"`{path}` is no regular file") from error
    with os.fdopen(fd, "rb") as file, files.reporting(path, "read"):
        data = file.read(limit + 1)
    if len(data) > limit:
        raise FormatError(f"`{path}` has more than {limit} bytes")
    return data


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """A small text file; what is no UTF-8 is spelled out."""
    return read_bytes(path, limit).decode("utf-8", "backslashreplace")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.  Raises FormatError for what is none, or too big."""
    found = parsed(read_bytes(path), path.name)
    if not isinstance(found, dict):
        raise FormatError(f"`{path}` is no YAML mapping")
    return found


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted; links and files are passed over.  Empty if there is no such folder."""
    try:
        with os.scandir(folder) as found:
            return sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def names_below(folder: Path) -> Iterator[str]:
    """Relative paths, with ``/``, of the regular files below a folder, sorted folder by folder; links are passed over.

    Raises:
        FormatError: Too many, or too deep.
    """
    count = 0
    todo = [""]
    while todo:
        below = todo.pop()
        try:
            with files.reporting(folder / below, "read"), os.scandir(folder / below) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except (NotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if name.count("/") >= MAX_DEPTH:
                    raise FormatError(f"`{folder}` has folders more than {MAX_DEPTH} deep")
                todo.append(f"{name}/")
            elif entry.is_file(follow_symlinks=False):
                count += 1
                if count > MAX_FILES:
                    raise FormatError(f"`{folder}` has more than {MAX_FILES} files")
                yield name


def files_below(folder: Path, prefix: str = "") -> Iterator[SourceFile]:
    """``names_below`` as files to be kept, below ``prefix``."""
    for name in names_below(folder):
        path = folder / name
        yield SourceFile(prefix + name, lambda _, path=path: path)  # type: ignore[misc]  # a default is no argument


class Roots:
    """The folders that artifacts may be read from.

    Those are MLflow's own beside the store, and what the person named; not all that is beside the store, since that may
    be somebody's home.

    Args:
        base: The folder that the store is in: relative addresses begin there.
        named: What the person named.
    """

    def __init__(self, base: Path, named: Sequence[Path] = ()) -> None:
        self._base = base.resolve()
        self.roots = [*(self._base / name for name in _OWN), *(root.resolve() for root in named)]

    def folder(self, uri: str) -> Path | None:
        """The local folder that a store's address means, if it may be read; None if it may not, or is not there.

        A store that was moved has the addresses of where it was: then the folder is looked for by the end of its path.
        """
        path = local_path(uri)
        if path is None:
            return None
        if urlsplit(uri).scheme != "mlflow-artifacts":
            found = self._allowed(self._base / path)
            if found is not None:
                return found
        return self._moved(path)

    def absent(self, uri: str) -> bool:
        """True if ``folder`` found nothing because it was never made: MLflow makes it with the first file."""
        path = local_path(uri)
        if path is None:
            return False
        if urlsplit(uri).scheme == "mlflow-artifacts":
            return any(root.is_dir() for root in self.roots)
        place = self._base / path
        return not place.exists() and any(root in (place, *place.parents) for root in self.roots)

    def _allowed(self, path: Path) -> Path | None:
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        inside = any(root in (real, *real.parents) for root in map(Path.resolve, self.roots))
        return real if inside and real.is_dir() else None

    def _moved(self, path: Path) -> Path | None:
        """``…/1/<run>/artifacts`` below a root."""
        parts = [part for part in path.parts if part != path.anchor]
        if ".." in parts:
            return None
        for length in range(min(len(parts), 5), 1, -1):
            for root in self.roots:
                found = self._allowed(root.joinpath(*parts[-length:]))
                if found is not None:
                    return found
        return None


def local_path(uri: str) -> Path | None:
    """The path that an address has; None if it is not one of a file, or of what a server keeps."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file", "mlflow-artifacts") or "\0" in uri:
        return None
    return Path(unquote(parts.path) if parts.scheme else uri)
