"""Sources that are files: here, or in a store that a URI names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.data.dataset_source import DatasetSource, text_field
from gittrack.errors import NotFoundError, UnsupportedError
from gittrack.track.secrets import redact_url

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from typing_extensions import Self

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):")  # two characters: `C:` is a drive


def scheme_of(uri: str) -> str:
    """The scheme of a URI in lower case; empty for a path, also for one on a Windows drive."""
    found = _SCHEME.match(uri)
    return found[1].lower() if found else ""


class FileSystemDatasetSource(DatasetSource):
    """Files at a path or URI."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    @property
    def uri(self) -> str:
        """Path or URI, as it was given."""
        return self._uri

    def to_dict(self) -> dict[str, Any]:
        """``uri``, without a password."""
        return {"uri": redact_url(self.uri)}

    @classmethod
    def from_dict(cls, source_dict: Mapping[str, Any]) -> Self:
        """From ``uri``."""
        return cls(text_field(source_dict, "uri"))

    @classmethod
    def _resolve(cls, raw_source: Any) -> Self:
        return cls(str(raw_source))


class LocalArtifactDatasetSource(FileSystemDatasetSource):
    """A file or folder of this machine: a path or a ``file:`` URI."""

    @staticmethod
    def _get_source_type() -> str:
        return "local"

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return isinstance(raw_source, Path) or (isinstance(raw_source, str) and scheme_of(raw_source) in ("", "file"))

    def load(self, dst_path: str | os.PathLike[str] | None = None) -> str:
        """Path of the file or folder, or of its copy in the folder ``dst_path``.

        Raises:
            NotFoundError: There is nothing at the path.
        """
        import shutil
        from urllib.parse import unquote, urlsplit
        from urllib.request import url2pathname

        path = Path(url2pathname(unquote(urlsplit(self.uri).path)) if scheme_of(self.uri) == "file" else self.uri)
        if not path.exists():
            raise NotFoundError(f"there is no `{self.uri}` on this machine")
        if dst_path is None:
            return str(path)
        target = Path(dst_path, path.name)
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        return str(target)


class RemoteDatasetSource(FileSystemDatasetSource):
    """Data in a store with a scheme of its own, such as ``s3://bucket/key``: recorded, not loaded."""

    def _get_source_type(self) -> str:  # type: ignore[override]  # the scheme is known of an instance only
        return scheme_of(self.uri)

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return isinstance(raw_source, str) and "://" in raw_source and scheme_of(raw_source) != ""

    def load(self) -> Any:
        """Raises UnsupportedError: gittrack has no client for such a store."""
        raise UnsupportedError(
            f"gittrack cannot load `{redact_url(self.uri)}`", hint=f"use the client of `{self._get_source_type()}`"
        )
