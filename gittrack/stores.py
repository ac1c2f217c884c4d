"""Which store the API uses: the tracking URI, and the ``Tracker`` behind it.

A tracking URI names a folder: a path, ``file:///path`` or ``gittrack:///path``.  The store is that of the git
repository the folder lies in, as with ``git -C``; a folder that lies in none gets a private store of its own.  Without
a tracking URI the folder is the current one when a store is first needed, and stays that for the life of the process.

The environment is read through ``gittrack.config``: ``GITTRACK_TRACKING_URI`` and ``MLFLOW_TRACKING_URI``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gittrack.track.runs import Tracker


class _Process:
    """What this process uses."""

    def __init__(self) -> None:
        self.uri: str | None = None  #: as set by set_tracking_uri
        self.trackers: dict[str, Tracker] = {}  #: by tracking URI; "" is the one found without


_process = _Process()


def set_tracking_uri(uri: str | Path) -> None:
    """Choose the store for what follows; runs that are active stay where they are.  Child processes inherit it.

    Args:
        uri: A folder as a path, ``file:///path`` or ``gittrack:///path``; it need not exist yet.  An empty text goes
            back to the default: the current folder's repository.

    Raises:
        UnsupportedError: The address of a server or a database.
        InvalidValueError: An address that names no folder.
    """
    from gittrack import config, session

    # Absolute, so that a later change of the current folder means nothing.
    _process.uri = session.parse_uri(str(uri)).absolute().as_uri() if str(uri) else None
    _process.trackers.pop("", None)
    config.export(tracking_uri=_process.uri)


def get_tracking_uri() -> str:
    """The tracking URI in use, as a ``file:`` address; without one, that of the repository that would be used."""
    chosen = _chosen()
    if chosen is not None:
        from gittrack import session

        return session.parse_uri(chosen).absolute().as_uri()
    if "" in _process.trackers:
        return _process.trackers[""].repo.paths.main_root.as_uri()
    from gittrack.store import gateway

    paths = gateway.discover(Path.cwd())
    return (Path.cwd() if paths is None else paths.main_root).as_uri()


def set_registry_uri(uri: str | Path) -> None:
    """Taken for MLflow's sake: models are registered in the repository that holds their runs.

    Raises:
        UnsupportedError: The address of another store than the one in use.
    """
    from gittrack import session
    from gittrack.errors import UnsupportedError
    from gittrack.store import gateway

    if not str(uri):
        return
    wanted, used = (session.parse_uri(one).absolute() for one in (str(uri), get_tracking_uri()))
    paths = gateway.discover(wanted)
    if wanted != used and (paths is None or paths != gateway.discover(used)):
        raise UnsupportedError(
            f"`{uri}` is another store than the one in use", hint="set_tracking_uri chooses the store of both"
        )


def get_registry_uri() -> str:
    """The tracking URI: models are registered in the repository that holds their runs."""
    return get_tracking_uri()


def is_tracking_uri_set() -> bool:
    """True if a tracking URI was chosen, by ``set_tracking_uri`` or by the settings."""
    return _chosen() is not None


def _chosen() -> str | None:
    from gittrack import config

    return _process.uri or config.current().tracking_uri or None


def tracker(uri: str | None = None) -> Tracker:
    """The ``Tracker`` of a store, made when it is first asked for.

    Args:
        uri: A tracking URI; the one in use if not given.

    Raises:
        UnsupportedError, InvalidValueError: See ``set_tracking_uri``.
        StorageError, ReadOnlyError: The store cannot be made there.
    """
    key = uri or _process.uri or ""
    found = _process.trackers.get(key)
    if found is None or not found.repo.root.is_dir():
        from gittrack import session

        found = _process.trackers[key] = session.open_tracker(key or None)
    return found
