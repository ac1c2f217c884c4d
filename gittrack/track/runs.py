"""Tracker: runs and experiments of one repo, as the Python API, the command line and the server call it.

Every write goes through an ``ActiveRun`` and its journal, whether the run is new, going on or long over.  Every read
folds what is committed with what is still in journals; searches go through the index, which is refreshed first.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gittrack.errors import (
    AlreadyExistsError,
    GittrackError,
    InvalidValueError,
    LockedError,
    NetworkError,
    NotFoundError,
    PushRefusedError,
    StateError,
    shown,
)
from gittrack.store import gateway, layout, record, seal
from gittrack.store.following import Following
from gittrack.store.record import RunState
from gittrack.store.repo import JournalFile, Repo
from gittrack.track import limits
from gittrack.track.active import ActiveRun
from gittrack.track.keeper import Keeper
from gittrack.types import (
    Artifact,
    Experiment,
    FileInfo,
    LifecycleStage,
    MetricHistory,
    PagedList,
    Run,
    RunId,
    ViewType,
    check_run_id,
)

if TYPE_CHECKING:
    from gittrack.store.index import CompiledQuery, RunColumns

#: Seconds that this process waits while another one commits; what is left then, the next command does.
SEAL_TIMEOUT: Final = 5.0
#: Seconds after which a run that is over, and that its server has not committed, is committed by another one.
LEFT: Final = 2.0
#: Runs whose journals are closed together (two descriptors each), and how many at a time.
_TOGETHER: Final = 64
_SYNCS: Final = 8
#: MLflow's greatest page.
MAX_RESULTS: Final = 50_000
#: What names the run in the message of its commit.
_RUN_TRAILER: Final = "Gittrack-Run"

T = TypeVar("T")
_log = logging.getLogger("gittrack")
Capture = Callable[[Repo], "list[list[Any]]"]


class Tracker:
    """Runs and experiments of one repo.  Threads may share it; a forked child goes on with it.

    Args:
        repo: Where they are.
        capture: Returns the events that say which code and environment a run starts in; called off the training's
            path, once for all runs that start at about the same time.
        sync_interval: Seconds between putting the journals on disk.
        strict: Raise trouble with the disk instead of warning once.
        truncate: Cut over-long param and tag values with a warning (MLflow's way) instead of refusing them.
        serving: Runs belong to clients elsewhere: that this process ends, or dies, ends none of them.

    Attributes:
        artifact_root: Where new experiments that do not say it have their files: below it, in a folder each, named as
            their id is; None: here.
    """

    def __init__(
        self,
        repo: Repo,
        *,
        capture: Capture | None = None,
        sync_interval: float = 1.0,
        strict: bool = False,
        truncate: bool = True,
        serving: bool = False,
    ) -> None:
        self.repo = repo
        self.truncate = truncate
        self.serving = serving
        self.artifact_root: str | None = None
        self._history = repo.history
        if serving:  # pages of runs that go on ask again and again
            repo.look_out()
            self._history = Following(repo).history
        self._strict = strict
        self._capture = capture
        # One handle per run, as long as somebody has it or its journal is open.
        self._handles: weakref.WeakValueDictionary[str, ActiveRun] = weakref.WeakValueDictionary()
        self._open: set[ActiveRun] = set()
        self._recorded = False  # a journal was written in this process
        self._later: list[ActiveRun] | None = None  # runs that ended while commits are put off
        self._warned: set[str] = set()
        self._at_exit: list[ActiveRun] = []
        self._keeper = Keeper(
            handles=lambda: list(self._open),
            seal=self._seal_quietly,
            capture=self._capture_for,
            sync_interval=sync_interval,
            waiting=self._others_wait,
            relieve=self._relieve,
        )
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._keeper.reset)

    @property
    def address(self) -> str:
        """The tracking URI of the store."""
        return self.repo.paths.main_root.as_uri()

    @property
    def exists(self) -> bool:
        """Whether the store is still there."""
        return self.repo.root.is_dir()

    # -- runs: writing -----------------------------------------------------------------------------------------------

    def create_run(
        self,
        experiment_id: str = layout.DEFAULT_EXPERIMENT_ID,
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
        """Start a run.

        Args:
            experiment_id: An active experiment.
            name: A name; made up if not given.
            start_time: Milliseconds since the epoch; now if not given.
            tags: Its first tags.
            user_id: Who runs it.
            parent_run_id: The run it belongs to.
            capture: Record code and environment, in the background.
            environment: What differs from this process's environment, if another program makes the run.
            run_id: The id that it has elsewhere already; made up if not given.
            keeper: The run is there only to keep what no run made; no search finds it.

        Raises:
            NotFoundError: No such experiment.
            StateError: The experiment is deleted.
            AlreadyExistsError: There is a run with that id.
            InvalidValueError: A bad name, tag, time or id.
        """
        self.repo.require_writable()
        experiment_id = limits.check_experiment_id(experiment_id)
        if experiment_id != layout.DEFAULT_EXPERIMENT_ID:
            self.active_experiment(experiment_id)
        run = self.begin_run(
            secrets.token_hex(16) if run_id is None else self._free_id(run_id),
            experiment_id,
            name=name,
            start_time=start_time,
            tags=tags,
            user_id=user_id,
            parent_run_id=parent_run_id,
            keeper=keeper,
        )
        if capture and self._capture is not None:
            # What HEAD is right now costs one file; the working tree is captured in the background.
            head = self.repo.git.head()
            run.write_event([record.CODE, {"commit": head, "branch": self.repo.git.head_branch()}])
            run.environment = dict(environment or {})
            self._keeper.capture_soon(run)
        return run

    def begin_run(
        self,
        run_id: str,
        experiment_id: str,
        *,
        name: str | None = None,
        start_time: int | None = None,
        tags: Mapping[str, Any] | None = None,
        user_id: str = "",
        parent_run_id: str | None = None,
        keeper: bool = False,
    ) -> ActiveRun:
        """``create_run`` for who begins many, and knows already that the experiment is active and the id is free.

        Neither code nor environment is recorded.  Raises InvalidValueError.
        """
        checked = dict(limits.check_tag(key, value, truncate=self.truncate) for key, value in (tags or {}).items())
        given = checked.pop(record.RUN_NAME_TAG, None)
        parent_run_id = parent_run_id or checked.get(record.PARENT_TAG)
        facts: dict[str, Any] = {
            "run_id": check_run_id(run_id),
            "experiment_id": experiment_id,
            "name": limits.check_run_name(name or given or made_up_name()),
            "user_id": user_id,
            "start_time": int(time.time() * 1000) if start_time is None else limits.check_timestamp(start_time),
            "parent_run_id": None if parent_run_id is None else check_run_id(parent_run_id),
            "tags": checked,
            **({"keeper": True} if keeper else {}),
        }
        state = RunState(run_id)
        state.apply(record.check_event([record.CREATE, facts]))
        run = ActiveRun(self, state, owner=True)
        self._handles[run_id] = run
        try:
            run.write_event([record.CREATE, facts])
        except GittrackError:
            with suppress(GittrackError):
                run.release()
            raise
        return run

    def _free_id(self, run_id: str) -> str:
        """``run_id`` if no run has it.  Raises AlreadyExistsError, InvalidValueError."""
        if self.repo.revisions(check_run_id(run_id)) or self.repo.journals(run_id):
            raise AlreadyExistsError(f"run `{run_id}` exists", hint=f"`gittrack show {run_id}` shows it")
        return run_id

    def resume(self, run_id: str) -> ActiveRun:
        """Go on with a run.

        If another process has it open, this one joins: it writes beside it and does not say how the run ends.

        Raises:
            NotFoundError: No such run.
            StateError: The run is deleted.
        """
        run = self.writer(run_id)
        if run.lifecycle_stage == LifecycleStage.DELETED:
            raise self._deleted(run.run_id)
        if run.terminated:
            run.owner = True
            run.set_status("RUNNING")
        return run

    def writer(self, run_id: str) -> ActiveRun:
        """The handle to write to a run, going on or over.  Raises NotFoundError, ReadOnlyError."""
        run = self._handles.get(run_id)
        if run is None:
            self.repo.require_writable()
            mark = None if self.repo.frames is None else self.repo.frames.mark(run_id)  # before what it says is read
            state = self.repo.state(check_run_id(run_id))
            others = state.status == "RUNNING" and self._open_elsewhere(run_id)
            run = self._handles.setdefault(run_id, ActiveRun(self, state, owner=not others, mark=mark))
        else:
            run.look_again()
        return run

    def open_run(self, run_id: str) -> ActiveRun | None:
        """The handle of an active run whose journal this process has open; None if it has none."""
        run = self._handles.get(run_id)
        return run if run is not None and run.open and run.lifecycle_stage == LifecycleStage.ACTIVE else None

    def open_ids(self) -> frozenset[str]:
        """The runs that nobody need look at, for this process has a journal of its own open for them."""
        if self.repo.frames is not None:  # another server may have ended them
            return frozenset()
        return frozenset(run.run_id for run in list(self._open))

    def active_writer(self, run_id: str) -> ActiveRun:
        """``writer`` for what a deleted run refuses.  Raises StateError for one, NotFoundError, ReadOnlyError."""
        run = self.writer(run_id)
        if run.lifecycle_stage == LifecycleStage.DELETED:
            raise self._deleted(run_id)
        return run

    def _deleted(self, run_id: str) -> StateError:
        return StateError(f"run `{run_id}` is deleted", hint=f"`gittrack restore {run_id}` brings it back")

    def _open_elsewhere(self, run_id: str) -> bool:
        """True if another process has a journal of the run open; servers that share one are all the same."""
        return any(isinstance(one, JournalFile) and seal.going_on(one) for one in self.repo.journals(run_id))

    def delete_run(self, run_id: str) -> None:
        """Mark a run deleted; ``restore_run`` undoes it.  Raises NotFoundError, StateError if it is deleted already."""
        run = self.writer(run_id)
        if run.lifecycle_stage == LifecycleStage.DELETED:
            raise self._deleted(run_id)
        run.set_lifecycle(LifecycleStage.DELETED)
        self.settle(run)

    def restore_run(self, run_id: str) -> None:
        """Undo ``delete_run``.  Raises NotFoundError, StateError if the run is not deleted."""
        run = self.writer(run_id)
        if run.lifecycle_stage == LifecycleStage.ACTIVE:
            raise StateError(f"run `{run_id[:8]}` is not deleted", hint="`gittrack log --all` lists deleted runs too")
        run.set_lifecycle(LifecycleStage.ACTIVE)
        self.settle(run)

    def settle(self, run: ActiveRun) -> None:
        """Put an edit of a finished run on disk; the keeper commits it together with others."""
        run.sync()
        self._keeper.watch()

    # -- runs: reading -----------------------------------------------------------------------------------------------

    def get_run(self, run_id: str) -> Run:
        """The run as it is now.  Raises NotFoundError, InvalidValueError."""
        return self.repo.run(check_run_id(run_id))

    def metric_history(self, run_id: str, key: str) -> MetricHistory:
        """All points of a metric; empty if the run has no such metric.  Raises NotFoundError."""
        return self._history(check_run_id(run_id), key)

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
        """One page of the runs that match (`gittrack help search` has the grammar).

        Args:
            experiment_ids: Where to look; everywhere if None, nowhere if empty.
            filter_string: The filter; everything if empty.
            view: ``ViewType``.
            max_results: Runs on a page, 1 to 50,000.
            order_by: Columns, each with ``ASC`` or ``DESC``; newest first if not given.
            page_token: The ``token`` of the page before.

        Raises:
            QuerySyntaxError: A filter or an order that cannot be read.
            InvalidValueError: A bad page size or token.
        """
        from gittrack.track import query

        offset = query.page_offset(page_token)
        compiled = self._compiled(filter_string, order_by, max_results)
        if experiment_ids is not None and not experiment_ids:
            return PagedList()
        found = self.repo.index.search_runs(compiled, experiment_ids, view=view, limit=max_results + 1, offset=offset)
        return page(found, offset, max_results)

    def _compiled(self, filter_string: str, order_by: Sequence[str] | None, max_results: int) -> CompiledQuery:
        """A search, after the index has been brought up to date."""
        from gittrack.track import query

        check_page(max_results)
        self.repo.refresh()
        return query.compile_search(filter_string, order_by, query.RUNS, self.repo.index.has_metric)

    def search_columns(
        self,
        experiment_ids: Sequence[str] | None = None,
        filter_string: str = "",
        *,
        view: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] | None = None,
        offset: int = 0,
        wanted: Mapping[str, Collection[str]] | None = None,
        also: Mapping[str, Collection[str]] | None = None,
    ) -> tuple[RunColumns, int]:
        """As ``search_runs``, but column by column, and how many there are in all.

        Args:
            experiment_ids: As there, like the next four.
            filter_string: Likewise.
            view: Likewise.
            max_results: Likewise.
            order_by: Likewise.
            offset: Leave out so many at the start.
            wanted: As for ``Index.search_columns``.
            also: Likewise.

        Raises:
            QuerySyntaxError: A filter or an order that cannot be read.
            InvalidValueError: A bad page size.
        """
        compiled = self._compiled(filter_string, order_by, max_results)
        index = self.repo.index
        columns = index.search_columns(compiled, experiment_ids, view, max_results, max(offset, 0), wanted, also)
        return columns, index.count_runs(compiled, experiment_ids, view)

    def metric_ranges(
        self,
        keys: Iterable[str],
        experiment_ids: Sequence[str] | None = None,
        filter_string: str = "",
        *,
        view: int = ViewType.ACTIVE_ONLY,
    ) -> dict[str, tuple[float, float]]:
        """The least and the greatest finite value of metrics among the runs that a search finds.

        Args:
            keys: As for ``Index.metric_ranges``.
            experiment_ids: As for ``search_runs``, like the next two.
            filter_string: Likewise.
            view: Likewise.

        Raises:
            QuerySyntaxError: A filter that cannot be read.
        """
        compiled = self._compiled(filter_string, None, 1)
        return self.repo.index.metric_ranges(keys, compiled, experiment_ids, view)

    def run_keys(
        self, experiment_ids: Sequence[str] | None = None, view: int = ViewType.ACTIVE_ONLY
    ) -> dict[str, list[str]]:
        """The keys of metrics, params and tags that any run has; as ``Index.run_keys``."""
        self.repo.refresh()
        return self.repo.index.run_keys(experiment_ids, view)

    def resolve(self, text: str) -> RunId:
        """The run that a person means: an id or a name or its beginning, ``latest``, ``@{-N}`` (the N-th newest).

        The run's commit is as good as its id.

        Raises:
            NotFoundError: Nothing fits; the hint names what comes near.
            InvalidValueError: Several runs fit.
        """
        match = re.fullmatch(r"@\{-([1-9]\d{0,8})\}", text)
        if text in ("latest", "@") or match:
            nth = int(match[1]) if match else 1
            found = self.search_runs(max_results=MAX_RESULTS if nth > 1000 else nth)
            if not found:
                raise NotFoundError(
                    f"no run `{text}`: there are no runs", hint="`gittrack run -- python train.py` records one"
                )
            if len(found) < nth:
                there = "is only 1 run" if len(found) == 1 else f"are only {len(found)} runs"
                raise NotFoundError(f"no run `{text}`: there {there}", hint="`gittrack log` lists the runs")
            return RunId(found[nth - 1].info.run_id)
        self.repo.refresh()
        rows = self._meant_by(text)
        if len(rows) == 1:
            return RunId(rows[0][0])
        if rows:
            shown = ", ".join(f"`{run_id[:8]}` {name}" for run_id, name in rows[:5])
            more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
            by_id = all(run_id.startswith(text) for run_id, _ in rows)
            hint = "use more digits of the id" if by_id else f"say which by its id, for example `{rows[0][0][:8]}`"
            raise InvalidValueError(f"`{text}` fits {len(rows)} runs: {shown}{more}", hint=hint)
        if re.fullmatch(r"[0-9a-f]{7,64}", text) and (committed := self._committed_as(text)):
            return committed
        import difflib

        near = difflib.get_close_matches(text, self.repo.index.run_names(), n=1)
        raise NotFoundError(
            f"no run `{text}`", hint=f"did you mean `{near[0]}`?" if near else "`gittrack log` lists the runs"
        )

    def _committed_as(self, commit: str) -> RunId | None:
        """The run whose commit this is, as `git log` shows it; None if git knows no such commit.

        Raises:
            NotFoundError: It is a commit, and none of a run.
        """
        git = gateway.Git(self.repo.paths.git_dir, self.repo.paths.work_tree)
        show = ("show", "--no-patch", f"--format=%(trailers:key={_RUN_TRAILER},valueonly)%H")
        answer = git.call(*show, "--end-of-options", f"{commit}^{{commit}}")
        if answer.status:
            return None
        *runs, whole = answer.stdout.decode().split()
        if not runs or not self.repo.index.find_run_prefix(runs[-1]):
            raise NotFoundError(
                f"`{commit}` is a commit, and none of a run",
                hint=f"`gittrack search \"commit = '{whole}'\"` lists the runs of that code",
            )
        return RunId(runs[-1])

    def _meant_by(self, text: str) -> list[tuple[str, str]]:
        """(Run id, name) of the runs that ``text`` fits best: a whole id, a name, the beginning of an id, of a name."""
        index = self.repo.index
        by_id = index.find_run_prefix(text) if re.fullmatch(r"[\w\-]{1,256}", text, re.ASCII) else []
        if any(run_id == text for run_id, _ in by_id):
            return [row for row in by_id if row[0] == text]
        begun = [name for name in index.run_names() if text and name.startswith(text)]
        return index.find_run_name(text) or by_id or [row for name in begun for row in index.find_run_name(name)]

    # -- artifacts ---------------------------------------------------------------------------------------------------

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[FileInfo]:
        """The entries of one artifact folder, folders first named like files; empty for a file or nothing there.

        Raises:
            NotFoundError: No such run.
            InvalidValueError: A bad path.
        """
        folder = _artifact_place(path)
        prefix = f"{folder}/" if folder else ""
        found: dict[str, FileInfo] = {}
        for name, artifact in self.repo.artifacts(check_run_id(run_id), folder).items():
            head, slash, _ = name[len(prefix) :].partition("/")
            child = prefix + head
            if slash:
                found[child] = FileInfo(child, True, None)
            else:
                found[child] = FileInfo(child, False, artifact.size, artifact.digest)
        return [found[name] for name in sorted(found)]

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
        """Copy an artifact file or folder (everything if ``path`` is empty) below ``target``, verified.

        Args:
            run_id: The run.
            path: The file or folder.
            target: A folder; made if missing.
            strip: Leave out the folders above ``path``, as ``cp -r`` does: only its last part is made below ``target``.
            link: Read-only hard links instead of copies, where that is possible (see ``ObjectStore.copy_out``).
            progress: Told (files done, files in all).

        Returns:
            Where it is now.

        Raises:
            NotFoundError: No such run or artifact, or its bytes are not in this clone.
            CorruptError: The bytes do not match their digest; nothing of that file is left.
        """
        wanted = _artifact_place(path)
        chosen = self.artifacts(run_id, wanted)
        target.mkdir(parents=True, exist_ok=True)
        above = wanted.rpartition("/")[0] + "/" if strip and "/" in wanted else ""
        for done, artifact in enumerate(chosen, 1):
            place = target / artifact.path.removeprefix(above)
            self.repo.objects.copy_out(artifact.digest, place, root=target, link=link)
            if progress is not None:
                progress(done, len(chosen))
        return target / wanted.removeprefix(above) if wanted else target

    def read_artifact(self, run_id: str, path: str) -> bytes:
        """The bytes of one artifact, verified.  Raises NotFoundError, CorruptError, InvalidValueError."""
        return self.repo.objects.read(self.artifact(run_id, path).digest)

    def artifact(self, run_id: str, path: str) -> Artifact:
        """One artifact, wherever its bytes are.  Raises NotFoundError, InvalidValueError."""
        path = limits.check_artifact_path(path)
        found = self.repo.artifacts(check_run_id(run_id)).get(path)
        if found is None:
            raise NotFoundError(
                f"run `{run_id}` has no artifact `{path}`", hint=f"`gittrack artifacts ls {run_id[:8]}` lists them"
            )
        return found

    def artifacts(self, run_id: str, path: str | None = None) -> list[Artifact]:
        """An artifact, or those in a folder, or all if ``path`` is empty, wherever their bytes are.

        Raises:
            NotFoundError: No such run or artifact.
            InvalidValueError: A bad path.
        """
        wanted = _artifact_place(path)
        found = self.repo.artifacts(check_run_id(run_id))
        chosen = [one for name, one in found.items() if not wanted or name == wanted or name.startswith(f"{wanted}/")]
        if wanted and not chosen:
            import difflib

            near = difflib.get_close_matches(wanted, found, n=1)
            raise NotFoundError(
                f"run `{run_id}` has no artifact `{wanted}`",
                hint=f"did you mean `{near[0]}`?" if near else f"`gittrack artifacts ls {run_id[:8]}` lists them",
            )
        return chosen

    # -- experiments -------------------------------------------------------------------------------------------------

    def create_experiment(
        self,
        name: str,
        *,
        tags: Mapping[str, Any] | None = None,
        artifact_location: str | None = None,
        creation_time: int | None = None,
    ) -> str:
        """Make an experiment; its id.  The id follows from the name, so two clones that make it have one experiment.

        Args:
            name: 1 to 500 characters.
            tags: First tags; the values become text.
            artifact_location: Kept as a note; a server hands it out to its clients.
            creation_time: Milliseconds since the epoch, if it was made elsewhere before; now if not given.

        Raises:
            AlreadyExistsError: The name is taken, maybe by a deleted experiment.
            InvalidValueError: A bad name, tag or location.
        """
        name = limits.check_experiment_name(name)
        checked = dict(limits.check_experiment_tag(key, value) for key, value in (tags or {}).items())
        states = self.repo.experiment_states()
        for state in states.values():
            if state.name == name:
                deleted = state.value("lifecycle") == LifecycleStage.DELETED
                raise AlreadyExistsError(
                    f"experiment `{name}` exists{' and is deleted' if deleted else ''}",
                    hint=f"`gittrack experiments restore {name}` brings it back" if deleted else None,
                )
        attempt = 0
        while (experiment_id := layout.experiment_id_of(name, attempt)) in states:
            attempt += 1
        if artifact_location is None and self.artifact_root is not None:
            artifact_location = f"{self.artifact_root.rstrip('/')}/{experiment_id}"
        location = limits.check_artifact_location(artifact_location)
        changes: dict[str, str | None] = {"name": name, "artifact_location": location}
        changes |= {f"tags.{key}": value for key, value in checked.items()}
        when = int(time.time() * 1000) if creation_time is None else limits.check_timestamp(creation_time)
        self.repo.edit_experiment(experiment_id, changes, when)
        return experiment_id

    def _edit_experiment(self, experiment_id: str, changes: Mapping[str, str | None]) -> None:
        self.repo.edit_experiment(experiment_id, changes, int(time.time() * 1000))

    def get_experiment(self, experiment_id: str) -> Experiment:
        """The experiment with this id.  Raises NotFoundError."""
        self.repo.refresh_ledgers()
        found = self.repo.index.get_experiments([str(experiment_id)])
        if not found:
            raise NotFoundError(
                f"no experiment with id `{experiment_id}`", hint="`gittrack experiments` lists the experiments"
            )
        return found[0]

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """The experiment of this name, deleted or not; None if there is none."""
        self.repo.refresh_ledgers()
        for experiment in self.repo.index.get_experiments(None):
            if experiment.name == name:
                return experiment
        return None

    def search_experiments(
        self,
        *,
        view: int = ViewType.ACTIVE_ONLY,
        max_results: int = 1000,
        filter_string: str | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """One page of the experiments that match.  Raises QuerySyntaxError, InvalidValueError."""
        from gittrack.track import query

        offset = query.page_offset(page_token)
        check_page(max_results)
        compiled = query.compile_search(filter_string, order_by, query.EXPERIMENTS)
        self.repo.refresh_ledgers()
        found = self.repo.index.search_experiments(compiled, view=view, limit=max_results + 1, offset=offset)
        return page(found, offset, max_results)

    def rename_experiment(self, experiment_id: str, name: str) -> None:
        """Give an active experiment another name.  Raises NotFoundError, StateError, AlreadyExistsError."""
        name = limits.check_experiment_name(name)
        if self.active_experiment(experiment_id).name == name:
            return
        if self.get_experiment_by_name(name) is not None:
            raise AlreadyExistsError(f"experiment `{name}` exists", hint="choose another name")
        self._edit_experiment(experiment_id, {"name": name})

    def delete_experiment(self, experiment_id: str) -> None:
        """Mark an experiment and its runs deleted.  Raises NotFoundError, StateError if it is deleted or Default."""
        if experiment_id == layout.DEFAULT_EXPERIMENT_ID:
            raise StateError(
                "the Default experiment cannot be deleted",
                hint="`gittrack rm` deletes runs, `gittrack experiments rm` others",
            )
        self.active_experiment(experiment_id)
        self._edit_experiment(experiment_id, {"lifecycle": LifecycleStage.DELETED})
        self._all_runs(experiment_id, ViewType.ACTIVE_ONLY, self.delete_run)

    def restore_experiment(self, experiment_id: str) -> None:
        """Undo ``delete_experiment``.  Raises NotFoundError, StateError if it is not deleted."""
        experiment = self.get_experiment(experiment_id)
        if experiment.lifecycle_stage == LifecycleStage.ACTIVE:
            raise StateError(
                f"experiment `{experiment.name}` is not deleted",
                hint="`gittrack experiments --all` lists deleted ones too",
            )
        self._edit_experiment(experiment_id, {"lifecycle": LifecycleStage.ACTIVE})
        self._all_runs(experiment_id, ViewType.DELETED_ONLY, self.restore_run)

    def _all_runs(self, experiment_id: str, view: int, change: Callable[[str], None]) -> None:
        while some := self.search_runs([experiment_id], view=view, max_results=MAX_RESULTS):
            for run in some:
                change(run.info.run_id)
            if some.token is None:
                return

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags of an active experiment.  Raises NotFoundError, StateError, InvalidValueError."""
        checked = dict(limits.check_experiment_tag(key, value) for key, value in tags.items())
        self.active_experiment(experiment_id)
        self._edit_experiment(experiment_id, {f"tags.{key}": value for key, value in checked.items()})

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Remove a tag of an active experiment.  Raises NotFoundError, StateError."""
        if limits.check_key("experiment tag", key) not in self.active_experiment(experiment_id).tags:
            raise NotFoundError(
                f"experiment `{experiment_id}` has no tag `{key}`", hint="`gittrack experiments --json` lists its tags"
            )
        self._edit_experiment(experiment_id, {f"tags.{key}": None})

    def active_experiment(self, experiment_id: str) -> Experiment:
        """The experiment with this id.  Raises NotFoundError, StateError if it is deleted."""
        experiment = self.get_experiment(experiment_id)
        if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
            raise StateError(
                f"experiment `{experiment.name}` is deleted",
                hint=f"`gittrack experiments restore {experiment.name}` brings it back",
            )
        return experiment

    # -- background --------------------------------------------------------------------------------------------------

    def code_commit(self) -> str | None:
        """The commit of the code that runs here; None if there is none."""
        return self.repo.git.head()

    def opened(self, run: ActiveRun, path: Path | None = None) -> None:
        """``run``, whose lock the caller holds, has a journal open in this process from now on.

        Args:
            run: The run.
            path: The journal's file; None if it is one that servers share.
        """
        self._open.add(run)
        self._recorded = True
        self._keeper.watch()
        if self.serving and len(self._open) > most_open():
            self._keeper.relieve_soon()

    def closed(self, run: ActiveRun) -> None:
        """``run``, whose lock the caller holds, has no journal open in this process any more."""
        self._open.discard(run)

    def _relieve(self) -> None:
        """A server closes the journals that were written to longest ago, if many are open; runs go on in new ones."""
        if not self.serving or len(self._open) <= (most := most_open()):
            return
        runs = sorted(self._open, key=lambda run: run.written)
        for run in runs[: len(runs) - most * 3 // 4]:
            run.release()

    def ended(self, run: ActiveRun) -> None:
        """``run`` is over: its journal is closed, and it is committed in the background."""
        if self._later is None:
            run.release()
            self._keeper.seal_soon()
        else:
            self._later.append(run)
            if len(self._later) >= _TOGETHER:
                self._release_together()

    def ended_elsewhere(self, run_id: str, status: str, end_time: int | None) -> None:
        """A run is over, as a journal says that was written elsewhere: nothing waits for this process any more."""
        run = self._handles.get(run_id)
        if run is not None:
            run.take_end(status, end_time)

    def seal_soon(self) -> None:
        """A run is over, or an edit of one is complete: commit it in the background."""
        if self._later is None:
            self._keeper.seal_soon()

    @contextmanager
    def sealing_later(self) -> Iterator[None]:
        """Runs that end inside are put on disk and committed together, at the latest when this ends.

        For one thread that writes many runs; what ended a moment ago is not yet on disk.
        """
        self._later = []
        try:
            yield
        finally:
            self._release_together()
            self._later = None
            if not self._seal_quietly():
                self._keeper.seal_soon()

    def _release_together(self) -> None:
        """Close the journals of runs that ended: the disk does many syncs at once in the time of a few."""
        from concurrent.futures import ThreadPoolExecutor

        ended, self._later = self._later or [], []
        with ThreadPoolExecutor(_SYNCS) as pool:
            for _ in pool.map(ActiveRun.release, ended):
                pass  # raises what a release raised

    def flush(self) -> None:
        """Wait until everything that is over is committed; what is going on is on disk."""
        self._keeper.drain(release=False)

    def close(self) -> None:
        """Finish the background work and close every journal; the tracker can still be used afterwards."""
        self._keeper.drain(release=True)
        self.repo.close()

    @property
    def open_runs(self) -> int:
        """How many runs have a journal open in this process."""
        return len(self._open)

    @property
    def seal_lag(self) -> float:
        """Seconds that a run which is over has waited to be committed; 0 if none waits."""
        return self._keeper.lag

    def end_at_exit(self, run: ActiveRun) -> None:
        """End ``run`` when the process ends, if nobody has by then."""
        self._at_exit = [known for known in self._at_exit if not known.terminated]
        self._at_exit.append(run)

    def shutdown(self, status: str, *, hurry: bool) -> None:
        """The process ends: so do its runs, with ``status``.

        Args:
            status: What becomes of the runs.
            hurry: Somebody waits with a SIGKILL: the runs' end is put on disk, but if committing takes more than two
                seconds, that is left to the next command.
        """
        for run in reversed(self._at_exit):
            if not run.terminated:
                run.end(status)
        self._at_exit.clear()
        if hurry:
            self._keeper.wait_idle(2.0)
        else:
            self.close()

    def watch(self) -> None:
        """Do the background work from now on, also before anything is recorded here: other servers may end."""
        self._keeper.watch()

    def _others_wait(self) -> bool:
        """True if runs of other servers are over, and those servers have not committed them."""
        try:
            return self.repo.frames is not None and self.repo.frames.waiting(LEFT)
        except GittrackError as error:  # the database is away: clients are told
            _log.info("gittrack: %s", error)
            return False

    def _seal_quietly(self) -> bool:
        """Commit what is ready; False if another process is at it.  Trouble is reported, not raised."""
        if self.repo.read_only and not self._recorded:
            return True  # whoever tried has been told, and nothing waits
        if self._later is not None:
            return True  # who puts it off does it
        try:
            seal.seal(self.repo, timeout=SEAL_TIMEOUT, but=self.open_ids())
        except LockedError:
            return False
        except (NetworkError, PushRefusedError) as error:  # the database or the remote is away
            _log.warning("gittrack: finished runs are committed later: %s", error)
        except GittrackError as error:
            self.trouble(error, "finished runs stay in their journals; `gittrack fsck` commits them later")
        except Exception:  # a bug of ours must not end the thread
            if self._strict:
                raise
            _log.warning("gittrack: finished runs stay in their journals", exc_info=True)
        return True

    def _capture_for(self, runs: list[ActiveRun]) -> None:
        if self._capture is not None:
            events = self._capture(self.repo)
            for run in runs:
                for event in events:
                    known = event[1] | run.environment if event[0] == record.ENVIRONMENT else event[1]
                    run.write_event([event[0], known])

    def trouble(self, error: GittrackError, consequence: str) -> None:
        """Say once per kind of trouble that recording does not work; never stop the training for it.

        Raises:
            GittrackError: ``error`` itself, if the tracker is strict.
        """
        if self._strict:
            raise error
        kind = type(error).__name__
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("gittrack: %s; %s", error, consequence)


# ----------------------------------------------------------------------------------------------------------------------


def most_open() -> int:
    """Journals that a server keeps open: with two descriptors each, half of what the system gives a process."""
    try:
        import resource
    except ImportError:  # Windows
        return 1000
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 16_000 if soft == resource.RLIM_INFINITY else min(max(soft // 4, 16), 16_000)


def _artifact_place(path: str | None) -> str:
    """The path of a file or folder to read; a folder's may end in a slash, the root's is empty."""
    return limits.check_artifact_path(path.removesuffix("/") if isinstance(path, str) else path) if path else ""


def check_page(max_results: int) -> None:
    """Raise InvalidValueError unless a page may have so many."""
    if not isinstance(max_results, int) or isinstance(max_results, bool) or not 1 <= max_results <= MAX_RESULTS:
        raise InvalidValueError(f"max_results is `{shown(max_results)}`, it must be a number from 1 to {MAX_RESULTS}")


def page(found: list[T], offset: int, size: int, token: Callable[[int], str] | None = None) -> PagedList[T]:
    """The page of ``found``, which has one more than a page holds if there is another page.

    ``token`` makes the token of the page that starts somewhere; the plain one if not given.
    """
    from gittrack.track import query

    return PagedList(found[:size], (token or query.page_token)(offset + size) if len(found) > size else None)


_ADJECTIVES: Final = (
    "amber bold brave bright brisk calm clear clever crisp deft eager early easy fair fast fine fleet fond free fresh"
    " gentle glad golden grand keen kind light lively lucky merry mild neat nimble noble plain proud quick quiet rapid"
    " ready rosy round sharp shiny silver smart smooth snug solid spry still sunny sure swift tidy trim true vivid warm"
    " wide wise witty young"
).split()
_NOUNS: Final = (
    "ant badger bat bear bee bison boar buck carp cat colt crab crane crow deer dove duck eagle eel elk falcon"
    " finch fox frog gnat goat goose grouse gull hare hawk hen heron horse ibis jay kite koi lamb lark lion loon"
    " lynx mole moose moth mouse mule newt otter owl ox panda pike pony quail ram raven robin seal shark sheep"
    " shrew skunk sloth snail sole stag stoat stork swan swift tern tiger toad trout vole wasp whale wolf wren yak"
    " zebra"
).split()


def made_up_name() -> str:
    """A run name that can be said aloud, such as ``quiet-heron-421``."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{secrets.randbelow(1000)}"
