"""Which store the API uses: the tracking URI, and the ``Tracker``, ``Registry`` and ``LoggedModels`` behind it.

A tracking URI names a folder: a path, ``file:///path`` or ``gittrack:///path``.  The store is that of the git
repository the folder lies in, as with ``git -C``; a folder that lies in none gets a private store of its own.  Without
a tracking URI the folder is the current one when a store is first needed, and stays that for the life of the process.
Or it names a server, gittrack's or MLflow's: ``http://host:5000``.

The environment is read through ``gittrack.config``: ``GITTRACK_TRACKING_URI`` and ``MLFLOW_TRACKING_URI``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gittrack.remote.address import is_server, parts_of

if TYPE_CHECKING:
    from gittrack.registry.registry import Registry
    from gittrack.remote.tracking import RemoteTracker
    from gittrack.track.logged_models import LoggedModels
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
        uri: A folder as a path, ``file:///path`` or ``gittrack:///path``, which need not exist yet; or a server,
            ``http://host:5000``.  An empty text goes back to the default: the current folder's repository.

    Raises:
        UnsupportedError: The address of a database.
        InvalidValueError: An address that names neither a folder nor a server.
    """
    from gittrack import config

    _process.uri = _plain(str(uri)) if str(uri) else None
    _process.trackers.pop("", None)
    config.export(tracking_uri=_process.uri)


def _plain(uri: str) -> str:
    """A tracking URI in the form that is told, whatever becomes of the current folder.  Raises InvalidValueError."""
    if is_server(uri):
        parts_of(uri)
        return uri.rstrip("/")
    from gittrack import session

    return session.parse_uri(uri).absolute().as_uri()


def get_tracking_uri() -> str:
    """The tracking URI in use, a folder as a ``file:`` address; without one, that of the repository that is used."""
    chosen = _chosen()
    if chosen is not None:
        return _plain(chosen)
    if "" in _process.trackers:
        return _process.trackers[""].address
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

    if not str(uri) or _plain(str(uri)) == get_tracking_uri():
        return
    if is_server(str(uri)) or is_server(get_tracking_uri()):
        raise UnsupportedError(
            f"`{uri}` is another store than the one in use", hint="set_tracking_uri chooses the store of both"
        )
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
    if found is None or not found.exists:
        found = _process.trackers[key] = _opened(key)
    return found


def _opened(key: str) -> Tracker:
    from gittrack import config, session

    chosen = key or _chosen()
    if not is_server(chosen):
        return session.open_tracker(key or None)
    from gittrack.remote.http import Connection
    from gittrack.remote.tracking import RemoteTracker

    connection = Connection(chosen, credentials=bool(key) or config.is_own("tracking_uri"))
    settings = config.current()
    tracker = RemoteTracker(
        connection,
        home=session.home_of(chosen),
        apart=session.apart(chosen),
        patience=settings.ship_timeout,
        truncate=settings.truncate_long_values,
    )
    session.adopt(tracker)
    return tracker


def registry(tracker: Tracker) -> Registry:
    """The registered models of a store."""
    from gittrack.registry.registry import Registry

    remote = server_of(tracker)
    if remote is None:
        return Registry(tracker)
    from gittrack.remote.registry import RemoteRegistry

    return RemoteRegistry(remote)


def logged_models(tracker: Tracker) -> LoggedModels:
    """The logged models of a store."""
    from gittrack.track.logged_models import LoggedModels

    remote = server_of(tracker)
    if remote is None:
        return LoggedModels(tracker)
    return remote.models


def server_of(tracker: Tracker) -> RemoteTracker | None:
    """The tracker of a server; None if it is one of a repository."""
    from gittrack.track.runs import Tracker

    if type(tracker) is Tracker:
        return None  # and nothing is loaded to find out
    from gittrack.remote.tracking import RemoteTracker

    return tracker if isinstance(tracker, RemoteTracker) else None


def read_artifact(tracker: Tracker, run_id: str, path: str) -> bytes:
    """The bytes of an artifact, which are fetched if need be.  Raises NotFoundError, NetworkError, CorruptError."""
    if server_of(tracker) is not None:
        return tracker.read_artifact(run_id, path)
    from gittrack.sync import artifacts

    return artifacts.read(tracker, tracker.artifact(run_id, path))


def download_artifacts(tracker: Tracker, run_id: str, path: str, target: Path) -> Path:
    """Copy an artifact, or a folder of them, below ``target``; what is not here is fetched."""
    if server_of(tracker) is None:
        from gittrack.sync import artifacts

        artifacts.bring(tracker, tracker.artifacts(run_id, path))
    return tracker.download_artifacts(run_id, path, target, strip=True)
