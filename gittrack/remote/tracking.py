"""RemoteTracker: the runs and experiments of a tracking server, with the interface of ``Tracker``.

What is read is asked of the server, each time.  What is changed is changed there when the call returns.  The server is
gittrack's own or MLflow's: both speak MLflow's REST API.  But runs that are made here are recorded into a store of this
machine and shipped from there (``shipping``), and are asked of that as long as they are in it.  MLflow's server gives a
run its id, so that one is made there first.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gittrack.errors import (
    FormatError,
    GittrackError,
    NetworkError,
    NoEndpointError,
    NotFoundError,
    StateError,
    UnsupportedError,
)
from gittrack.remote import wire
from gittrack.remote.folders import Folder
from gittrack.remote.http import Connection
from gittrack.remote.outbox import has_outbox
from gittrack.remote.runs import RemoteRun, now_ms
from gittrack.store import files, gateway
from gittrack.track import limits
from gittrack.track.runs import Tracker, check_page
from gittrack.types import (
    Artifact,
    Experiment,
    FileInfo,
    LifecycleStage,
    MetricHistory,
    PagedList,
    Run,
    ViewType,
    check_run_id,
)

if TYPE_CHECKING:
    from gittrack.remote.models import RemoteModels
    from gittrack.remote.shipping import OutboxTracker
    from gittrack.store.repo import Repo
    from gittrack.track.active import ActiveRun

T = TypeVar("T")
U = TypeVar("U")
_POINTS: Final = 25_000  #: of a history, on a page
_MAX_BYTES: Final = 1 << 30  #: of an artifact that is read into memory
_VIEWS: Final = {ViewType.ACTIVE_ONLY: "ACTIVE_ONLY", ViewType.DELETED_ONLY: "DELETED_ONLY", ViewType.ALL: "ALL"}
_DEFAULT: Final = "0"
#: Seconds for finding out what kind of server it is, and that calls wait for what was recorded here: those that need
#: it there, and those that only read.
_GREETING_S: Final = 5.0
_SHIPPING_S: Final = 60.0
#: Seconds for which a server that was away is taken to be away.
_AWAY_S: Final = 10.0
_READING_S: Final = 5.0


class RemoteTracker(Tracker):
    """The runs and experiments of a server.  Threads may share it; a forked child goes on with it.

    It has the interface of ``Tracker``, of which it shares nothing else: there is no repository.

    Args:
        connection: The server.
        home: The folder whose store takes new runs first; None: they are written there by calls.
        apart: That for a server of MLflow's, whose experiments have ids of its own; None: likewise.
        patience: Seconds that the end of the program waits until they are shipped.
        truncate: Cut over-long param and tag values with a warning, instead of refusing them.

    Attributes:
        connection: The server.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        home: Path | None = None,
        apart: Path | None = None,
        patience: float = 10.0,
        truncate: bool = True,
    ) -> None:
        self.connection = connection
        self.truncate = truncate
        self._home = home
        self._apart = apart
        self._patience = patience
        self._recorder: OutboxTracker | None = None
        self._ours: bool | None = None  # whether it is gittrack's own server
        self._away = -_AWAY_S  # when it was seen to be away
        self._known: set[str] = set()  # experiments that are in the recorder's store
        self.serving = False
        self._at_exit: list[ActiveRun] = []
        self._folders: dict[str, Folder] = {}
        self.after_fork_in_child()
        files.tell_after_fork(self)

    def after_fork_in_child(self) -> None:
        """A forked child gets its locks anew: another thread of the parent may have held them."""
        self._lock = threading.Lock()
        self._opening = threading.RLock()

    @property
    def repo(self) -> Repo:  # type: ignore[override]  # of a Tracker it is an attribute
        """There is none.  Raises UnsupportedError."""
        raise UnsupportedError(
            f"this needs a repository, and runs are kept at `{self.connection.url}`",
            hint="`gittrack help tracking` says what works with a server",
        )

    @property
    def address(self) -> str:
        """The tracking URI, without credentials."""
        return self.connection.url

    @property
    def exists(self) -> bool:
        """A server may come back at any time."""
        return True

    @property
    def models(self) -> RemoteModels:
        """The logged models of the server."""
        self._ship_quietly()  # what is asked there, or made, may be of a run that was just recorded
        from gittrack.remote.models import RemoteModels

        return RemoteModels(self)

    # -- runs: writing -----------------------------------------------------------------------------------------------

    def create_run(
        self,
        experiment_id: str = _DEFAULT,
        *,
        name: str | None = None,
        start_time: int | None = None,
        tags: Mapping[str, Any] | None = None,
        user_id: str = "",
        parent_run_id: str | None = None,
        capture: bool = True,
        environment: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        keeper: bool = False,
    ) -> ActiveRun:
        """Start a run.  Raises as ``Tracker.create_run``."""
        recorder = self.recorder()
        if recorder is None:
            return RemoteRun(self, self._make_run(experiment_id, name, start_time, tags, user_id, parent_run_id))
        if self._ours is False:
            try:
                made = self._make_run(experiment_id, name, start_time, tags, user_id, parent_run_id)
            except NetworkError:
                pass  # it is made there when the server is back, as is said when that is tried
            else:
                if not Folder.takes_files(made.info.artifact_uri):
                    return RemoteRun(self, made)
                self._learn_experiment(recorder, made.info.experiment_id)
                return recorder.go_on_with(made, capture=capture, environment=environment)
        self._learn_experiment(recorder, limits.check_experiment_id(experiment_id))
        return recorder.create_run(
            experiment_id, name=name, start_time=start_time, tags=tags, user_id=user_id,
            parent_run_id=parent_run_id, capture=capture, environment=environment, run_id=run_id, keeper=keeper,
        )  # fmt: skip

    def _make_run(
        self,
        experiment_id: str,
        name: str | None,
        start_time: int | None,
        tags: Mapping[str, Any] | None,
        user_id: str,
        parent_run_id: str | None,
    ) -> Run:
        """Make a run on the server.  Raises NetworkError if that is away."""
        checked = dict(limits.check_tag(key, value, truncate=self.truncate) for key, value in (tags or {}).items())
        if parent_run_id:
            checked["mlflow.parentRunId"] = check_run_id(parent_run_id)
        body = wire.present(
            experiment_id=limits.check_experiment_id(experiment_id),
            run_name=None if name is None else limits.check_run_name(name),
            start_time=now_ms() if start_time is None else limits.check_timestamp(start_time),
            user_id=user_id or None,
            tags=wire.pairs(checked),
        )
        return wire.run(wire.part(self.connection.post("runs/create", body), "run"))

    # -- runs that are recorded here first ---------------------------------------------------------------------------

    def recorder(self) -> OutboxTracker | None:
        """What new runs are recorded with; None if there is no place for it: they are written there by calls."""
        if self._home is None:
            return None
        with self._opening:
            if self._recorder is None:
                home = self._home if self._takes_journals() else self._apart
                if home is None:
                    return None
                from gittrack import session
                from gittrack.remote.shipping import OutboxTracker

                recorder = session.open_recorder(home, OutboxTracker)
                recorder.ship_to(self.connection, patience=self._patience)
                self._recorder = recorder
            return self._recorder

    def _takes_journals(self) -> bool:
        """Whether it is gittrack's own server; one that is away is taken for one until it says otherwise."""
        if self._ours is None:
            try:
                self.connection.call("GET", "/api/2.0/gittrack/server-info", seconds=_GREETING_S)
            except (NotFoundError, NoEndpointError, FormatError):
                self._ours = False
            except NetworkError:
                self._away = time.monotonic()
                return True
            else:
                self._ours = True
        return self._ours

    def keeper_of(self, run_id: str) -> OutboxTracker | None:
        """What a run is recorded with here, as long as not all of it is on the server; None if it is there only."""
        recorder = self._recorder
        if recorder is None and any(has_outbox(one) for one in (self._home, self._apart) if one is not None):
            recorder = self.recorder()
        return recorder if recorder is not None and recorder.holds(run_id) else None

    def was_made_there(self, run_id: str) -> bool:
        """Whether a run that is recorded here was made on a server of MLflow's, which keeps its models itself."""
        return self._recorder is not None and self._recorder.outbox.was_made_there(check_run_id(run_id))

    def ship(self, seconds: float = _SHIPPING_S) -> None:
        """Wait until what was recorded here is on the server.  Raises NetworkError, or what it refuses a run with."""
        if self._recorder is not None:
            self._recorder.ship_now(seconds)

    def _ship_quietly(self) -> None:
        """Show readers what this program has recorded, if the server is there."""
        with suppress(GittrackError):
            self.ship(
                _READING_S if self._ours else _SHIPPING_S
            )  # MLflow's takes many calls for what ours takes at once

    def _or_here(self, ask: Callable[[], T], answer: Callable[[OutboxTracker], U]) -> T | U:
        """What the server says; while it is away, what the recorder's store does, so that runs can begin.

        Raises:
            NetworkError: It is away, and new runs are not recorded here.
        """
        if time.monotonic() - self._away > _AWAY_S or self.recorder() is None:
            try:
                return ask()
            except NetworkError:
                self._away = time.monotonic()
        recorder = self.recorder()
        if recorder is None:  # it is back, and is not gittrack's
            return ask()
        return answer(recorder)

    def _learn_experiment(self, recorder: OutboxTracker, experiment_id: str) -> None:
        """Let the recorder's store know an experiment of the server, under the same id.  Raises as ``create_run``."""
        if experiment_id in self._known:
            return
        if experiment_id not in recorder.repo.experiment_states():
            found = self.active_experiment(experiment_id)
            recorder.repo.edit_experiment(experiment_id, {"name": found.name}, found.creation_time or now_ms())
        self._known.add(experiment_id)

    def resume(self, run_id: str) -> ActiveRun:
        """Go on with a run.  Raises NotFoundError, StateError if it is deleted."""
        here = self.keeper_of(run_id)
        if here is not None:
            return here.resume(run_id)
        run = self.active_writer(run_id)
        if run.terminated:
            run.set_status("RUNNING")
        return self.writer(run_id)

    def writer(self, run_id: str) -> ActiveRun:
        """The handle to write to a run.  Raises NotFoundError."""
        here = self.keeper_of(run_id)
        return here.writer(run_id) if here is not None else RemoteRun(self, self.get_run(run_id))

    def open_run(self, run_id: str) -> ActiveRun | None:
        """None: no journal is open."""
        return None

    def delete_run(self, run_id: str) -> None:
        """Mark a run deleted; ``restore_run`` undoes it.  Raises NotFoundError."""
        self.ship()
        self.connection.post("runs/delete", {"run_id": check_run_id(run_id)})

    def restore_run(self, run_id: str) -> None:
        """Undo ``delete_run``.  Raises NotFoundError."""
        self.connection.post("runs/restore", {"run_id": check_run_id(run_id)})

    def settle(self, run: ActiveRun) -> None:
        """Nothing waits."""

    # -- runs: reading -----------------------------------------------------------------------------------------------

    def get_run(self, run_id: str) -> Run:
        """The run as it is now.  Raises NotFoundError, InvalidValueError."""
        here = self.keeper_of(run_id)
        if here is not None:
            return here.get_run(run_id)
        found = self.connection.get("runs/get", run_id=check_run_id(run_id))
        return wire.run(wire.part(found, "run"))

    def metric_history(self, run_id: str, key: str) -> MetricHistory:
        """All points of a metric; empty if the run has no such metric.  Raises NotFoundError."""
        here = self.keeper_of(run_id)
        if here is not None:
            return here.metric_history(run_id, key)
        asked = {"run_id": check_run_id(run_id), "metric_key": limits.check_key("metric", key), "max_results": _POINTS}
        steps, times, values = array("q"), array("q"), array("d")
        found = map(wire.metric, self.connection.pages("metrics/get-history", "metrics", None, **asked))
        for one in sorted(found, key=lambda one: (one.timestamp, one.step, one.value)):
            steps.append(one.step)
            times.append(one.timestamp)
            values.append(one.value)
        return MetricHistory(key, steps, times, values)

    def search_runs(
        self,
        experiment_ids: Sequence[str] | None = None,
        filter_string: str = "",
        *,
        view: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        """One page of the runs that match, by the server's grammar.  Raises InvalidValueError."""
        check_page(max_results)
        self._ship_quietly()
        if experiment_ids is None:
            experiment_ids = [one.experiment_id for one in self.search_experiments(max_results=1000)]
        ViewType.stages(view)
        body = wire.present(
            experiment_ids=list(experiment_ids),
            filter=filter_string or None,
            run_view_type=_VIEWS[view],
            max_results=max_results,
            order_by=_list(order_by),
            page_token=page_token or None,
        )
        return wire.page(self.connection.post("runs/search", body, repeatable=True), "runs", wire.run)

    # -- artifacts ---------------------------------------------------------------------------------------------------

    def folder(self, run_id: str) -> Folder:
        """The files of a run.  Raises NotFoundError."""
        with self._lock:
            found = self._folders.get(run_id)
        if found is None:
            uri = self.get_run(run_id).info.artifact_uri
            found = Folder(self.connection, uri, run_id=run_id)
            with self._lock:
                self._folders[run_id] = found
        return found

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[FileInfo]:
        """The entries of one artifact folder; empty for a file or nothing there.  Raises NotFoundError."""
        here = self.keeper_of(run_id)
        if here is not None:
            return here.list_artifacts(run_id, path)
        return self.folder(check_run_id(run_id)).listing(_place(path))

    def download_artifacts(
        self,
        run_id: str,
        path: str | None,
        target: Path,
        *,
        strip: bool = False,
        link: bool = False,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> Path:
        """Copy an artifact file or folder below ``target``; arguments and errors are those of ``Tracker``'s."""
        here = self.keeper_of(run_id)
        if here is not None:
            return here.download_artifacts(run_id, path, target, strip=strip, link=link, progress=progress)
        wanted = _place(path)
        folder = self.folder(check_run_id(run_id))
        chosen = list(folder.walk(wanted))
        if wanted and not chosen:
            one = folder.find(wanted)
            if one is None or one.is_dir:
                raise NotFoundError(f"run `{run_id}` has no artifact `{wanted}`", hint="`list_artifacts` lists them")
            chosen = [one]
        target.mkdir(parents=True, exist_ok=True)
        above = wanted.rpartition("/")[0] + "/" if strip and "/" in wanted else ""
        for done, one in enumerate(chosen, 1):
            folder.fetch(one.path, target / one.path.removeprefix(above), size=one.file_size)
            if progress is not None:
                progress(done, len(chosen))
        return target / wanted.removeprefix(above) if wanted else target

    def read_artifact(self, run_id: str, path: str) -> bytes:
        """The bytes of one artifact.  Raises NotFoundError, InvalidValueError."""
        here = self.keeper_of(run_id)
        if here is not None:
            return here.read_artifact(run_id, path)
        return self.folder(check_run_id(run_id)).read(limits.check_artifact_path(path), _MAX_BYTES)

    def artifact(self, run_id: str, path: str) -> Artifact:
        """What a server tells of its files is no ``Artifact``.  Raises UnsupportedError."""
        raise UnsupportedError("a server does not tell the digests of its files", hint="use download_artifacts")

    # -- experiments -------------------------------------------------------------------------------------------------

    def create_experiment(
        self,
        name: str,
        *,
        tags: Mapping[str, Any] | None = None,
        artifact_location: str | None = None,
        creation_time: int | None = None,
    ) -> str:
        """Make an experiment; its id.  Raises AlreadyExistsError, InvalidValueError."""
        checked = dict(limits.check_experiment_tag(key, value) for key, value in (tags or {}).items())
        body = wire.present(
            name=limits.check_experiment_name(name),
            artifact_location=limits.check_artifact_location(artifact_location),
            tags=wire.pairs(checked),
        )
        return self._or_here(
            lambda: str(self.connection.post("experiments/create", body).get("experiment_id", "")),
            lambda here: here.create_experiment(name, tags=tags, artifact_location=artifact_location),
        )

    def get_experiment(self, experiment_id: str) -> Experiment:
        """The experiment with this id.  Raises NotFoundError."""
        wanted = limits.check_experiment_id(experiment_id)
        found = self._or_here(
            lambda: self.connection.get("experiments/get", experiment_id=wanted),
            lambda here: here.get_experiment(wanted),
        )
        return found if isinstance(found, Experiment) else wire.experiment(wire.part(found, "experiment"))

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """The experiment of this name, deleted or not; None if there is none."""
        try:
            found = self._or_here(
                lambda: self.connection.get("experiments/get-by-name", experiment_name=name),
                lambda here: here.get_experiment_by_name(name),
            )
        except NotFoundError:
            return None
        if found is None or isinstance(found, Experiment):
            return found
        return wire.experiment(wire.part(found, "experiment"))

    def search_experiments(
        self,
        *,
        view: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        filter_string: str | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """One page of the experiments that match, by the server's grammar.  Raises InvalidValueError."""
        check_page(max_results)
        ViewType.stages(view)
        body = wire.present(
            view_type=_VIEWS[view],
            max_results=max_results,
            filter=filter_string or None,
            order_by=_list(order_by),
            page_token=page_token or None,
        )
        return wire.page(
            self.connection.post("experiments/search", body, repeatable=True), "experiments", wire.experiment
        )

    def rename_experiment(self, experiment_id: str, name: str) -> None:
        """Give an experiment another name.  Raises NotFoundError, AlreadyExistsError."""
        self._experiment("update", experiment_id, new_name=limits.check_experiment_name(name))

    def delete_experiment(self, experiment_id: str) -> None:
        """Mark an experiment and its runs deleted.  Raises NotFoundError."""
        if experiment_id == _DEFAULT:
            raise StateError("the Default experiment cannot be deleted", hint="delete its runs")
        self._experiment("delete", experiment_id)

    def restore_experiment(self, experiment_id: str) -> None:
        """Undo ``delete_experiment``.  Raises NotFoundError."""
        self._experiment("restore", experiment_id)

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags of an experiment.  Raises NotFoundError, InvalidValueError."""
        for key, value in dict(limits.check_experiment_tag(key, value) for key, value in tags.items()).items():
            self._experiment("set-experiment-tag", experiment_id, key=key, value=value)

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Remove a tag of an experiment.  Raises NotFoundError."""
        self._experiment("delete-experiment-tag", experiment_id, key=limits.check_key("experiment tag", key))

    def _experiment(self, action: str, experiment_id: str, **facts: str) -> None:
        body = {"experiment_id": limits.check_experiment_id(experiment_id), **facts}
        self.connection.post(f"experiments/{action}", body)

    def active_experiment(self, experiment_id: str) -> Experiment:
        """The experiment with this id.  Raises NotFoundError, StateError if it is deleted."""
        experiment = self.get_experiment(experiment_id)
        if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
            raise StateError(f"experiment `{experiment.name}` is deleted", hint="`restore_experiment` brings it back")
        return experiment

    # -- background --------------------------------------------------------------------------------------------------

    def code_commit(self) -> str | None:
        """The commit of the code that runs here: of the repository that the current folder is in."""
        paths = gateway.discover(Path.cwd())
        if paths is None:
            return None
        found = gateway.Git(paths.git_dir, paths.work_tree).call("rev-parse", "--verify", "--quiet", "HEAD")
        return found.stdout.decode().strip() or None

    @contextmanager
    def sealing_later(self) -> Iterator[None]:
        """Nothing waits."""
        yield

    def flush(self) -> None:
        """Wait until what was recorded here is on the server, for a bounded time.  Raises NetworkError."""
        self.ship()

    def close(self) -> None:
        """Close the connections; the tracker can still be used afterwards."""
        if self._recorder is not None:
            self._recorder.close()
        self.connection.close()

    def shutdown(self, status: str, *, hurry: bool) -> None:
        """The process ends: so do its runs, with ``status``."""
        for run in reversed(self._at_exit):
            if not run.terminated:
                run.end(status)
        self._at_exit.clear()
        if self._recorder is not None:
            self._recorder.shutdown(status, hurry=hurry)
        self.connection.close()


def _place(path: str | None) -> str:
    """The path of a file or folder to read; a folder's may end in a slash, the root's is empty."""
    return limits.check_artifact_path(path.removesuffix("/")) if path else ""


def _list(words: Sequence[str] | None) -> list[str] | None:
    return list(words) if words else None
