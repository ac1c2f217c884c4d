"""Random operations through the public client, compared with plain dicts; searches compared with plain Python."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from gittrack import session, stores
from gittrack.client import Client
from gittrack.errors import AlreadyExistsError, GittrackError, InvalidValueError, StateError
from gittrack.store.check import fsck, gc
from gittrack.store.seal import seal
from gittrack.track.query import parse_filter, parse_order
from gittrack.track.query.python import predicate, sort_key
from gittrack.types import LifecycleStage, Metric, MetricSummary, Param, Run, RunData, RunInfo, RunTag, ViewType

#: As for the fault tests: hours instead of seconds.
FULL = os.environ.get("GITTRACK_FAULTS") == "full"
START = 1_750_000_000_000

# Few names, so that things meet; odd ones, so that quoting is tried.
KEYS = st.sampled_from(["a", "b", "loss.min", "with space", "ü/x"])
FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 0.5, math.inf, -math.inf, math.nan, 1e308, 5e-324]), st.floats(width=32)
)
STEPS = st.one_of(st.integers(-3, 3), st.sampled_from([2**63 - 1, -(2**63)]))
TIMES = st.integers(START, START + 5)
TEXTS = st.sampled_from(
    ["", "x", "X", "0.5", "1", "1e3", "nan", "100%", "a_b", "it's", 'say "so"', "ünïcödé", "two\nlines"]
)
NAMES = st.sampled_from(["first", "second", "First", "50%", "ünï"])
PATHS = st.sampled_from(["a.txt", "dir/a.txt", "dir/b.txt", "dir/sub/ü.txt"])
STATUSES = st.sampled_from(["FINISHED", "FAILED", "KILLED"])
VIEWS = st.sampled_from([ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL])


@dataclass
class ModelRun:
    """What a run must be."""

    experiment: str
    name: str
    start: int
    status: str = "RUNNING"
    end: int | None = None
    deleted: bool = False
    points: dict[str, list[tuple[int, int, float]]] = field(default_factory=dict)  #: (timestamp, step, value)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)

    def to_run(self, run_id: str) -> Run:
        """As the record that predicates read."""
        stage = LifecycleStage.DELETED if self.deleted else LifecycleStage.ACTIVE
        info = RunInfo(
            run_id, self.experiment, "", self.status, self.start, self.end, stage, f"runs:/{run_id}", self.name
        )
        summaries = {key: _summary(points) for key, points in self.points.items()}
        metrics = {key: summary.value for key, summary in summaries.items()}
        tags = {**self.tags, "mlflow.runName": self.name}
        return Run(info, RunData(metrics, dict(self.params), tags, summaries))


def _summary(points: list[tuple[int, int, float]]) -> MetricSummary:
    """MLflow's last value is of the greatest (step, timestamp, value); NaN is less than any number."""
    time, step, value = max(points, key=lambda p: (p[1], p[0], p[2] == p[2], p[2] if p[2] == p[2] else 0.0))
    numbers = [v for _, _, v in points if v == v]
    return MetricSummary(value, time, step, min(numbers, default=math.nan), max(numbers, default=math.nan), len(points))


# -- filters and orders ----------------------------------------------------------------------------------------------


def _quoted(kind: str, key: str) -> str:
    return f"{kind}.`{key}`" if not key.isalpha() or not key.isascii() else f"{kind}.{key}"


def _text(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"


_SIGNS = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
_NUMBERS = st.one_of(st.sampled_from(["0", "1", "0.5", "-1", "1e3", "1e308"]), st.integers(-3, 3).map(str))
_SAFE_TEXTS = TEXTS.filter(lambda text: not ("'" in text and '"' in text))
_METRIC = st.builds(
    lambda key, part, sign, number: f"{_quoted('metrics', key)}{part} {sign} {number}",
    KEYS,
    st.sampled_from(["", ".min", ".max", ".last"]),
    _SIGNS,
    _NUMBERS,
)
_PARAM_NUMBER = st.builds(lambda key, sign, n: f"{_quoted('params', key)} {sign} {n}", KEYS, _SIGNS, _NUMBERS)
_TEXTUAL = st.builds(
    lambda kind, key, sign, text: f"{_quoted(kind, key)} {sign} {_text(text)}",
    st.sampled_from(["params", "tags"]),
    KEYS,
    st.sampled_from(["=", "!=", "LIKE", "ILIKE"]),
    st.one_of(_SAFE_TEXTS, st.sampled_from(["%", "x%", "%_%", "ÜN%"])),
)
_LISTED = st.builds(
    lambda kind, key, sign, texts: f"{_quoted(kind, key)} {sign} ({', '.join(map(_text, texts))})",
    st.sampled_from(["params", "tags"]),
    KEYS,
    st.sampled_from(["IN", "NOT IN"]),
    st.lists(_SAFE_TEXTS.filter(bool), min_size=1, max_size=3),
)
_NULLNESS = st.builds(
    lambda kind, key, sign: f"{_quoted(kind, key)} {sign}",
    st.sampled_from(["params", "tags"]),
    KEYS,
    st.sampled_from(["IS NULL", "IS NOT NULL"]),
)
_ATTRIBUTE = st.one_of(
    st.builds(
        lambda sign, name: f"attributes.run_name {sign} {_text(name)}", st.sampled_from(["=", "!=", "LIKE"]), NAMES
    ),
    st.builds(lambda sign, status: f"status {sign} '{status}'", st.sampled_from(["=", "!="]), STATUSES),
    st.builds(
        lambda name, sign, time: f"attributes.{name} {sign} {time}",
        st.sampled_from(["start_time", "end_time"]),
        _SIGNS,
        TIMES,
    ),
)
COMPARISONS = st.one_of(_METRIC, _PARAM_NUMBER, _TEXTUAL, _LISTED, _NULLNESS, _ATTRIBUTE)
FILTERS = st.one_of(
    st.just(""),
    st.recursive(
        COMPARISONS,
        lambda inner: st.one_of(
            st.builds(lambda a, b: f"{a} AND {b}", inner, inner),
            st.builds(lambda a, b: f"({a} OR {b})", inner, inner),
            st.builds(lambda a: f"NOT ({a})", inner),
        ),
        max_leaves=5,
    ),
)
ORDERS = st.lists(
    st.builds(
        lambda column, way: f"{column}{way}",
        st.one_of(
            KEYS.map(lambda key: _quoted("metrics", key)),
            KEYS.map(lambda key: f"{_quoted('metrics', key)}.min"),
            KEYS.map(lambda key: _quoted("params", key)),
            KEYS.map(lambda key: _quoted("tags", key)),
            st.sampled_from(["attributes.run_name", "start_time", "end_time", "status"]),
        ),
        st.sampled_from(["", " ASC", " DESC"]),
    ),
    max_size=2,
    unique_by=lambda text: text.split(" ")[0],
)


# -- the machine -----------------------------------------------------------------------------------------------------


class Store(RuleBasedStateMachine):
    """One store, one client, one model of dicts."""

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="gittrack-model-"))
        shutil.copytree(_template(), self.folder, dirs_exist_ok=True)
        self.client = Client(str(self.folder))
        self.model: dict[str, ModelRun] = {}
        self.experiments: dict[str, tuple[str, bool, dict[str, str]]] = {"0": ("Default", False, {})}

    def teardown(self) -> None:
        """Everything that a fresh look finds is right, too."""
        try:
            self.reopen()
            self.everything_is_as_in_the_model()
            problems = fsck(self._repo, full=True)
            assert problems == [], [
                (self._repo.run(p.subject), self._repo.index.get_run(p.subject)) for p in problems if p.kind == "index"
            ]
        finally:
            stores.tracker(str(self.folder)).close()
            shutil.rmtree(self.folder)

    @property
    def _repo(self) -> Any:
        return stores.tracker(str(self.folder)).repo

    def _refused(self, run_id: str) -> contextlib.AbstractContextManager[Any]:
        """A deleted run takes no writes."""
        return pytest.raises(StateError) if self.model[run_id].deleted else contextlib.nullcontext()

    # -- making ------------------------------------------------------------------------------------------------------

    @initialize(target=runs, name=NAMES)
    def first_run(self, name: str) -> str:
        """There is always a run to work with."""
        return self._create("0", name, START, {})

    @rule(target=runs, name=NAMES, start=TIMES, tags=st.dictionaries(KEYS, TEXTS, max_size=2), data=st.data())
    def create_run(self, name: str, start: int, tags: dict[str, str], data: st.DataObject) -> Any:
        """In any experiment; a deleted one refuses."""
        experiment = data.draw(st.sampled_from(sorted(self.experiments)))
        if self.experiments[experiment][1]:
            with pytest.raises(StateError):
                self.client.create_run(experiment, start, tags, name)
            return multiple()
        return self._create(experiment, name, start, tags)

    def _create(self, experiment: str, name: str, start: int, tags: dict[str, str]) -> str:
        run = self.client.create_run(experiment, start, tags, name)
        self.model[run.info.run_id] = ModelRun(experiment, name, start, tags=dict(tags))
        return str(run.info.run_id)

    @rule(name=NAMES, tags=st.dictionaries(KEYS, TEXTS, max_size=2))
    def create_experiment(self, name: str, tags: dict[str, str]) -> None:
        """A name can be taken, also by a deleted experiment."""
        if any(name == known for known, _, _ in self.experiments.values()):
            with pytest.raises(AlreadyExistsError):
                self.client.create_experiment(name, tags=tags)
        else:
            self.experiments[self.client.create_experiment(name, tags=tags)] = (name, False, dict(tags))

    @rule(name=NAMES, key=KEYS, value=TEXTS, delete=st.booleans(), data=st.data())
    def edit_experiment(self, name: str, key: str, value: str, delete: bool, data: st.DataObject) -> None:
        """Rename, tag, delete or restore."""
        chosen = data.draw(st.sampled_from(sorted(self.experiments)))
        known, deleted, tags = self.experiments[chosen]
        if chosen == "0" or deleted:
            if deleted:
                self.client.restore_experiment(chosen)
                self._set_deleted(chosen, False)
            return
        if delete:
            self.client.delete_experiment(chosen)
            self._set_deleted(chosen, True)
            return
        self.client.set_experiment_tag(chosen, key, value)
        self.experiments[chosen] = (known, False, {**tags, key: value})
        if all(name != other for other, _, _ in self.experiments.values()):
            self.client.rename_experiment(chosen, name)
            self.experiments[chosen] = (name, False, {**tags, key: value})

    def _set_deleted(self, experiment: str, deleted: bool) -> None:
        """Its runs go and come with it, as in MLflow."""
        name, _, tags = self.experiments[experiment]
        self.experiments[experiment] = (name, deleted, tags)
        for run in self.model.values():
            if run.experiment == experiment:
                run.deleted = deleted

    # -- logging, also into runs that are over -------------------------------------------------------------------------

    @rule(run=runs, key=KEYS, value=FLOATS, time=TIMES, step=STEPS)
    def log_metric(self, run: str, key: str, value: float, time: int, step: int) -> None:
        """One point."""
        with self._refused(run):
            self.client.log_metric(run, key, value, time, step)
            self.model[run].points.setdefault(key, []).append((time, step, value))

    @rule(
        run=runs,
        points=st.lists(st.tuples(KEYS, FLOATS, TIMES, STEPS), max_size=100),
        params=st.dictionaries(KEYS, TEXTS, max_size=2),
        tags=st.dictionaries(KEYS, TEXTS, max_size=2),
    )
    def log_batch(
        self, run: str, points: list[tuple[str, float, int, int]], params: dict[str, str], tags: dict[str, str]
    ) -> None:
        """All of it or nothing: a param that has another value refuses the whole batch."""
        model = self.model[run]
        arguments: tuple[Any, ...] = (
            run,
            [Metric(key, value, time, step) for key, value, time, step in points],
            [Param(key, value) for key, value in params.items()],
            [RunTag(key, value) for key, value in tags.items()],
        )
        if not model.deleted and any(model.params.get(key, value) != value for key, value in params.items()):
            with pytest.raises(InvalidValueError):
                self.client.log_batch(*arguments)
            return
        with self._refused(run):
            self.client.log_batch(*arguments)
            for key, value, time, step in points:
                model.points.setdefault(key, []).append((time, step, value))
            model.params.update(params)
            model.tags.update(tags)

    @rule(run=runs, key=KEYS, value=TEXTS)
    def log_param(self, run: str, key: str, value: str) -> None:
        """Once; the same value again is fine."""
        model = self.model[run]
        if not model.deleted and model.params.get(key, value) != value:
            with pytest.raises(InvalidValueError):
                self.client.log_param(run, key, value)
            return
        with self._refused(run):
            self.client.log_param(run, key, value)
            model.params[key] = value

    @rule(run=runs, key=KEYS, value=TEXTS)
    def set_tag(self, run: str, key: str, value: str) -> None:
        """As often as one likes."""
        with self._refused(run):
            self.client.set_tag(run, key, value)
            self.model[run].tags[key] = value

    @rule(run=runs, key=KEYS)
    def delete_tag(self, run: str, key: str) -> None:
        """Only one that is there."""
        if key not in self.model[run].tags:
            with pytest.raises(GittrackError):
                self.client.delete_tag(run, key)
            return
        with self._refused(run):
            self.client.delete_tag(run, key)
            del self.model[run].tags[key]

    @rule(run=runs, path=PATHS, text=TEXTS)
    def log_text(self, run: str, path: str, text: str) -> None:
        """A new artifact, or another one under the same path."""
        with self._refused(run):
            self.client.log_text(run, text, path)
            self.model[run].artifacts[path] = text.encode()

    # -- life --------------------------------------------------------------------------------------------------------

    @rule(run=runs, status=STATUSES, end=TIMES)
    def end(self, run: str, status: str, end: int) -> None:
        """Also one that is over already."""
        with self._refused(run):
            self.client.set_terminated(run, status, end)
            self.model[run].status, self.model[run].end = status, end

    @rule(run=runs, name=NAMES)
    def rename(self, run: str, name: str) -> None:
        """Its name is a tag, too."""
        with self._refused(run):
            self.client.update_run(run, name=name)
            self.model[run].name = name

    @rule(run=runs)
    def resume(self, run: str) -> None:
        """An ended run goes on."""
        with self._refused(run):
            self.client.update_run(run, status="RUNNING")
            self.model[run].status, self.model[run].end = "RUNNING", None

    @rule(run=runs)
    def delete_or_restore(self, run: str) -> None:
        """In turn; the second time in a row changes nothing."""
        change, again = (
            (self.client.restore_run, self.client.delete_run)
            if self.model[run].deleted
            else (self.client.delete_run, self.client.restore_run)
        )
        again(run)
        change(run)
        self.model[run].deleted = not self.model[run].deleted

    # -- housekeeping ------------------------------------------------------------------------------------------------

    @rule()
    def reopen(self) -> None:
        """As the next process would see it; everything that is over is committed."""
        stores.tracker(str(self.folder)).close()
        stores._process.trackers.clear()
        session._trackers.clear()
        self.client = Client(str(self.folder))

    @rule()
    def seal(self) -> None:
        """Whatever is ready."""
        seal(self._repo)

    @rule()
    def collect(self) -> None:
        """Nothing that a run refers to goes."""
        gc(self._repo, grace_s=0)

    @rule()
    def reindex(self) -> None:
        """A new index tells the same."""
        assert self._repo.reindex() == len(self.model)

    @rule(command=st.sampled_from([["gc", "--prune=now", "-q"], ["pack-refs", "--all"], ["repack", "-adq"]]))
    def git_housekeeping(self, command: list[str]) -> None:
        """The user's git tidies up."""
        subprocess.run(["git", *command], cwd=self.folder, check=True)

    # -- looking -----------------------------------------------------------------------------------------------------

    @rule(where=FILTERS, order=ORDERS, view=VIEWS, page=st.integers(1, 4))
    def search(self, where: str, order: list[str], view: int, page: int) -> None:
        """SQL and the plain predicate over the model agree, also about the order and across pages."""
        found: list[Run] = []
        token = None
        while True:
            part = self.client.search_runs(sorted(self.experiments), where, view, page, order, token)
            found += part
            token = part.token
            if token is None:
                break
            assert len(part) == page
        known = {key for run in self.model.values() for key in run.points}
        matches = predicate(parse_filter(where, has_metric=known.__contains__))
        key = sort_key(parse_order(order, has_metric=known.__contains__))
        stages = ViewType.stages(view)
        runs = [run.to_run(run_id) for run_id, run in self.model.items()]
        expected = sorted((run for run in runs if run.info.lifecycle_stage in stages and matches(run)), key=key)
        assert [run.info.run_id for run in found] == [run.info.run_id for run in expected]

    @rule(run=runs)
    def read(self, run: str) -> None:
        """Everything about one run."""
        model, found = self.model[run], self.client.get_run(run)
        assert _facts(found) == _facts(model.to_run(run))
        assert set(found.data.metrics) == set(model.points)
        for key, points in model.points.items():
            history = [(m.timestamp, m.step, m.value) for m in self.client.get_metric_history(run, key)]
            assert [(time, step) for time, step, _ in history] == sorted((time, step) for time, step, _ in history)
            assert sorted((t, s, _said(v)) for t, s, v in history) == sorted({(t, s, _said(v)) for t, s, v in points})
        listed = [a for folder in ("", "dir", "dir/sub") for a in self.client.list_artifacts(run, folder or None)]
        assert {a.path: a.file_size for a in listed if not a.is_dir} == {p: len(d) for p, d in model.artifacts.items()}
        with tempfile.TemporaryDirectory() as target:
            for path, data in model.artifacts.items():
                assert Path(self.client.download_artifacts(run, path, target)).read_bytes() == data

    @invariant()
    def everything_is_as_in_the_model(self) -> None:
        """Runs and experiments, by a search for all of them."""
        experiments = self.client.search_experiments(ViewType.ALL)
        seen = {
            e.experiment_id: (e.name, e.lifecycle_stage == LifecycleStage.DELETED, dict(e.tags)) for e in experiments
        }
        assert seen == self.experiments
        found = self.client.search_runs(sorted(self.experiments), run_view_type=ViewType.ALL)
        assert {run.info.run_id: _facts(run) for run in found} == {
            run_id: _facts(run.to_run(run_id)) for run_id, run in self.model.items()
        }


def _facts(run: Run) -> Any:
    """What can be compared: NaN as text, without what the machine adds, the order of dicts aside."""
    summaries = {
        key: (_said(s.value), s.timestamp, s.step, _said(s.minimum), _said(s.maximum))
        for key, s in run.data.summaries.items()
    }
    tags = {key: value for key, value in run.data.tags.items() if key in _OUR_TAGS}
    return replace(run.info, user_id="", artifact_uri=""), run.data.params, tags, summaries


def _said(value: float) -> str:
    """A float as text, because NaN is not equal to itself; the two zeros are one."""
    return repr(value + 0.0)


_OUR_TAGS = {"a", "b", "loss.min", "with space", "ü/x", "mlflow.runName"}
_made: list[Path] = []


def _template() -> Path:
    """A git repository with one commit, made once."""
    if not _made:
        folder = Path(tempfile.mkdtemp(prefix="gittrack-template-"))
        (folder / "train.py").write_text("print('training')\n")
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
            subprocess.run(["git", *command], cwd=folder, check=True)
        _made.append(folder)
    return _made[0]


@pytest.mark.timeout(900)
def test_random_operations() -> None:
    run_state_machine_as_test(
        Store,
        settings=settings(
            max_examples=300 if FULL else 15,
            stateful_step_count=50 if FULL else 25,
            suppress_health_check=list(HealthCheck),
        ),
    )
    shutil.rmtree(_made.pop())
