"""Which tracker a process uses: tracking addresses, settings and the end of the process, wired together.

The Python API records through ``open_tracker``; the command line reads through ``open_reader``.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote, urlsplit

from gittrack import cards, config
from gittrack.errors import GittrackError, InvalidValueError, UnsupportedError
from gittrack.store import files, gateway, seal
from gittrack.store.repo import Repo
from gittrack.track.capture import Capturer
from gittrack.track.lifecycle import Lifecycle
from gittrack.track.runs import Tracker

if TYPE_CHECKING:
    from gittrack.store.objects import ObjectStore
    from gittrack.store.repo import Exchange

T = TypeVar("T", bound=Tracker)
#: Of a drawing in a notebook, each with its least and its greatest value.
_POINTS: Final = 24
_LOCAL_SCHEMES: Final = ("", "file", "gittrack")


class _Lock:
    """A lock that a forked child gets anew: another thread of the parent may have held it."""

    def __init__(self) -> None:
        self.after_fork_in_child()
        files.tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        self.held = threading.RLock()


class _Models(threading.local):
    """The logged models of one thread.

    Attributes:
        active: Id of the one that metrics are linked to; empty as long as nobody has asked what the settings say.
        last: Id of the one that was logged, or made, last.
    """

    def __init__(self) -> None:
        self.active: str | None = ""
        self.last: str | None = None

    def active_id(self) -> str | None:
        """Id of the active model: as the program set it, or else as the settings say."""
        if self.active == "":
            self.active = config.current().active_model_id or None
        return self.active


models = _Models()
_lock = _Lock()
_trackers: dict[Path, Tracker] = {}
_adopted: list[Tracker] = []


def parse_uri(uri: str | None) -> Path:
    """The folder that a tracking address names: ``None`` is the current one, a server's is where it is recorded first.

    Args:
        uri: A path, ``file:///path``, ``gittrack:///path``, or nothing.

    Raises:
        UnsupportedError: An address of a database.
        InvalidValueError: An address with a host, a query or a NUL.
    """
    if not uri:
        return Path.cwd()
    text = os.fspath(uri)
    if "\0" in text:
        raise InvalidValueError("the tracking address has a NUL character")
    parts = urlsplit(text) if "://" in text or text.startswith(("file:", "gittrack:")) else None
    if parts is None:
        if text.split(":")[0] in ("databricks", "databricks-uc"):
            raise UnsupportedError(f"tracking address `{text}` is not supported", hint="use a folder of a git project")
        return Path(text).expanduser()
    if parts.scheme.lower() in ("http", "https"):
        return home_of(text)
    if parts.scheme.lower() not in _LOCAL_SCHEMES:
        raise UnsupportedError(
            f"tracking address `{parts.scheme}://…` is no folder",
            hint="this works in a repository only; `gittrack help tracking` says what works with a server",
        )
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise InvalidValueError(
            f"tracking address `{parts.scheme}://…` names a host, a query or a fragment",
            hint="a local address has three slashes: gittrack:///path",
        )
    return Path(unquote(parts.path))


def open_tracker(uri: str | None = None) -> Tracker:
    """The tracker to record with; makes `.gittrack` where there is none.  One per repo and process.

    Commits what dead processes left behind.

    Raises:
        UnsupportedError, InvalidValueError: An address that cannot be used, or a setting that cannot be read.
        ReadOnlyError, StorageError: The store cannot be made.
    """
    with _lock.held:
        start = parse_uri(uri or config.current().tracking_uri).resolve()
        tracker = _trackers.get(start)
        if tracker is not None and tracker.repo.exists:
            return tracker
        repo = Repo.find(start, create=True)
        for known in _trackers.values():
            if known.repo.paths == repo.paths and known.repo.exists:
                _trackers[start] = known
                return known
        tracker = _trackers[start] = _recording(repo, Tracker)
        _lifecycle.install()
        return tracker


def _recording(repo: Repo, kind: type[T]) -> T:
    settings = config.current(repo.paths.work_tree or repo.paths.main_root)
    if not repo.read_only:
        seal.heal(repo)
    return kind(
        repo,
        capture=Capturer(
            argv=command_line(),
            environ=config.environment(),
            cwd=Path.cwd(),
            mode=settings.code,
            max_untracked=settings.max_untracked,
        ),
        sync_interval=settings.sync,
        strict=settings.strict,
        truncate=settings.truncate_long_values,
    )


def open_recorder(start: Path, kind: type[T]) -> T:
    """A tracker of a kind of its own to record with; whoever opens it shuts it down.  Raises as ``open_tracker``."""
    with _lock.held:
        return _recording(Repo.find(start.resolve(), create=True), kind)


def home_of(server: str) -> Path:
    """The folder whose store records what goes to a server: the current one if it is in a repository.

    Elsewhere it is ``apart``.
    """
    here = Path.cwd()
    return here if gateway.discover(here) is not None else apart(server)


def apart(server: str) -> Path:
    """A folder of the user's own for what goes to a server: also for one that gives experiments ids of its own."""
    plain = gateway.strip_credentials(server).rstrip("/").lower()
    name = re.sub(r"[^a-z0-9.]+", "-", plain.partition("://")[2]).strip("-.")[:60]
    return config.data_folder() / "outbox" / f"{name}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def _points_of(run_id: str, key: str) -> list[float]:
    """A metric in a few points, for `cards`, out of the stores that this process has open; a server is not asked."""
    from gittrack.track import series

    for tracker in list(_trackers.values()):
        if not tracker.repo.exists:
            continue
        try:
            history = tracker.metric_history(run_id, key)
        except GittrackError:  # it is another store's, or was purged: a picture is no reason to fail
            continue
        return list(series.chart([(history, 0)], buckets=_POINTS).curves[0].values)
    return []


cards.points_of = _points_of


def adopt(tracker: Tracker) -> None:
    """Let ``tracker``, which was made elsewhere, know when the process ends."""
    with _lock.held:
        _adopted.append(tracker)
        _lifecycle.install()


def open_reader(uri: str | None = None) -> Tracker:
    """The tracker to read with; makes nothing.  Commits what dead processes left behind, where it may write.

    Raises:
        NotARepositoryError: There is no store.
    """
    start = parse_uri(uri or config.current().tracking_uri).resolve()
    repo = Repo.find(start)
    settings = config.current(repo.paths.work_tree or repo.paths.main_root)
    if repo.exists and not repo.read_only:
        seal.heal(repo)
    return Tracker(repo, sync_interval=settings.sync, strict=True, truncate=settings.truncate_long_values)


def open_server(
    uri: str | None = None,
    database: str | None = None,
    objects: Callable[[Path], ObjectStore] | None = None,
    exchange: Callable[[Repo], Exchange] | None = None,
) -> Tracker:
    """The tracker of a server, whose runs are made by its clients; makes `.gittrack` where there is none.

    Args:
        uri: Of the repository; the setting if not given.
        database: Of what the index is in: ``postgresql://…``, where what runs in progress record is kept, too, or
            ``sqlite:///FILE`` (four slashes: from the root); the usual file if not given.
        objects: Gives the place of the objects, if that is another one than the clone's folder of them, which it is
            told.
        exchange: Gives the way to what servers with other clones know, if there are some.

    Raises:
        NetworkError, MissingDependencyError: The database cannot be used.
        UnsupportedError, InvalidValueError: An address that cannot be used, or a setting that cannot be read.
        ReadOnlyError, StorageError: The store cannot be made or written.
    """
    place: str | Path | None = database
    if database is not None and database.startswith("sqlite:///") and len(database) > len("sqlite:///"):
        place = Path(database.removeprefix("sqlite:///")).resolve()
    elif database is not None and not database.startswith(("postgresql://", "postgres://")):
        raise InvalidValueError(
            "the index can be in a PostgreSQL database or in a file of SQLite",
            hint="--backend-store-uri postgresql://…, or sqlite:///FILE",
        )
    repo = Repo.find(parse_uri(uri or config.current().tracking_uri).resolve(), create=True, database=place)
    repo.require_writable()
    if objects is not None:
        repo.objects = objects(repo.objects.root)
    if exchange is not None:
        repo.exchange = exchange(repo)
    settings = config.current(repo.paths.work_tree or repo.paths.main_root)
    repo.refresh()  # what is wrong with a database is said at the start
    seal.heal(repo)
    found = Tracker(
        repo, sync_interval=settings.sync, strict=True, truncate=settings.truncate_long_values, serving=True
    )
    if repo.frames is not None:
        found.watch()
    return found


def user(settings: config.Config | None = None) -> str:
    """Who runs are recorded as: the `user` setting (of ``settings``, if they are read already), else the system's."""
    try:
        return (settings or config.current()).user or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a passwd entry
        return "unknown"


def command_line() -> list[str]:
    """The command that started this process, as far as Python knows it."""
    return list(getattr(sys, "orig_argv", [sys.executable, *sys.argv]))


def _at_end(status: str, hurry: bool) -> None:
    for tracker in {id(t): t for t in (*_trackers.values(), *_adopted)}.values():
        tracker.shutdown(status, hurry=hurry)


_lifecycle = Lifecycle(_at_end)
