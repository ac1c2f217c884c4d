"""A source on the web."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gittrack.data.dataset_source import DatasetSource, text_field
from gittrack.errors import InvalidValueError, StorageError
from gittrack.track.limits import check_artifact_path
from gittrack.track.secrets import redact_url

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from typing_extensions import Self


class HTTPDatasetSource(DatasetSource):
    """A file at an ``http`` or ``https`` URL.  Credentials in the URL are used to load it, and never recorded."""

    def __init__(self, url: str) -> None:
        if not self._can_resolve(url):
            raise InvalidValueError(f"not an http or https URL: `{redact_url(str(url))}`")
        self._url = url

    @property
    def url(self) -> str:
        """The URL, as it was given."""
        return self._url

    @staticmethod
    def _get_source_type() -> str:
        return "http"

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return isinstance(raw_source, str) and raw_source.lower().startswith(("http://", "https://"))

    @classmethod
    def _resolve(cls, raw_source: Any) -> Self:
        return cls(raw_source)

    def to_dict(self) -> dict[str, Any]:
        """``url``, without credentials."""
        return {"url": redact_url(self.url)}

    @classmethod
    def from_dict(cls, source_dict: Mapping[str, Any]) -> Self:
        """From ``url``."""
        return cls(text_field(source_dict, "url"))

    def load(self, dst_path: str | os.PathLike[str] | None = None) -> str:
        """Download the file.

        Args:
            dst_path: The folder to put it in; a new temporary one if None.

        Returns:
            Path of the file.  Its name is the server's choice, else the last part of the URL.

        Raises:
            InvalidValueError: The server gives a name that is not a plain file name.
            StorageError: The download failed, or the file cannot be written.
        """
        import shutil
        import tempfile
        from urllib.error import HTTPError
        from urllib.parse import unquote, urlsplit
        from urllib.request import urlopen

        shown = redact_url(self.url)
        try:
            with urlopen(self.url, timeout=60) as response:  # noqa: S310 - the scheme was checked
                name = response.headers.get_filename() or unquote(urlsplit(self.url).path.rpartition("/")[2])
                target = Path(dst_path or tempfile.mkdtemp(prefix="gittrack-")) / _file_name(name or "dataset_source")
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(response, file, 1 << 20)
        except OSError as error:  # urllib's errors are OSErrors
            if isinstance(error, HTTPError):  # it is also the answer, with an open connection
                error.close()
            raise StorageError(f"cannot download `{shown}`: {error}") from error
        return str(target)


def _file_name(name: str) -> str:
    if "/" in name:
        raise InvalidValueError(f"the server names the file `{name[:80]!a}`, which is a path", hint="download by hand")
    return check_artifact_path(name)
