"""Opens the source that an address means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from gittrack.errors import InvalidValueError, UnsupportedError

if TYPE_CHECKING:
    from gittrack.convert.hub import Hub
    from gittrack.convert.source import Source


def open_mlflow(address: str, roots: Sequence[Path] = (), environment: Mapping[str, str] | None = None) -> Source:
    """MLflow's store at an address.

    Args:
        address: ``sqlite:///mlflow.db``, ``http://host:5000``, ``file:///path/mlruns``, or the path of a database or a
            folder.
        roots: Folders that artifacts may be read from, besides the store's own.
        environment: Where MLflow's variables for a server's credentials are.

    Raises:
        NotFoundError, FormatError: There is no such store.
        UnsupportedError: An address of a database server.
    """
    parts = urlsplit(address)
    if parts.scheme in ("http", "https"):
        from gittrack.convert.mlflow_rest import ServerStore
        from gittrack.convert.mlflow_server import Server

        return ServerStore(Server(address, environment or {}))
    path = Path(address)
    if parts.scheme == "sqlite":
        path = sqlite_path(address)
    elif parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise InvalidValueError(f"`{address:.200}` names a host", hint="file:///path/mlruns")
        path = Path(unquote(parts.path))
    elif "://" in address:
        raise UnsupportedError(
            f"`{parts.scheme}://…` cannot be read",
            hint="start `mlflow server` on it and name that: http://127.0.0.1:5000",
        )
    if path.is_dir():
        from gittrack.convert.mlflow_files import FileStore

        return FileStore(path, roots)
    from gittrack.convert.mlflow_sqlite import SqliteStore

    return SqliteStore(path, roots)


def open_hub(address: str, environment: Mapping[str, str]) -> Hub:
    """The MLflow at an address, to be written to.

    Raises:
        InvalidValueError: It is none.
        MissingDependencyError: It is no server, and there is no mlflow that would open it.
    """
    scheme = urlsplit(address).scheme
    if scheme in ("http", "https"):
        from gittrack.convert.hub_rest import RestHub
        from gittrack.convert.mlflow_server import Server

        return RestHub(Server(address, environment))
    if "://" not in address:
        raise InvalidValueError(
            f"`{address:.200}` is no address of MLflow", hint="http://HOST:PORT, or sqlite:///FILE.db for a file"
        )
    from gittrack.convert.hub_package import PackageHub

    return PackageHub(address)


def sqlite_path(address: str) -> Path:
    """The file of ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.  Raises InvalidValueError."""
    prefix = "sqlite:///"
    if not address.startswith(prefix) or len(address) == len(prefix) or "?" in address:
        raise InvalidValueError(f"`{address:.200}` names no file", hint="sqlite:///mlflow.db, or four slashes for /…")
    return Path(unquote(address[len(prefix) :]))
