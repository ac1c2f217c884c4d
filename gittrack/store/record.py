"""What happened to a run (events), folded to its state, and that state as the bytes of a run commit.

An event is the payload of one journal frame: a msgpack array whose first element is one of the kinds below.  A run is
the fold of its events, in order.  A sealed run is the same state as files: ``run.msgpack`` (every small fact), metric
segments (columns) and artifact pointers.  ``RunState.decode`` and further ``apply`` calls give an amended run, so a
live run, a finished run and an edit of a finished run are one mechanism.  Knows bytes, no files and no git.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from operator import le, lt
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from gittrack.errors import FormatError, InvalidValueError
from gittrack.store import codec, layout
from gittrack.types import (
    TERMINAL,
    Artifact,
    Dataset,
    DatasetInput,
    Field,
    InputTag,
    LifecycleStage,
    Metric,
    MetricHistory,
    MetricSummary,
    ModelInput,
    ModelOutput,
    ObjectId,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
    RunStatus,
    check_run_id,
)

if TYPE_CHECKING:
    from gittrack.types import LoggedModel

T = TypeVar("T")

VERSION: Final = 1

# Event kinds; the shapes stand beside them and in `gittrack help storage`.
CREATE: Final = 0  #: [0, {run_id, experiment_id, name, user_id, start_time, parent_run_id?, tags?, keeper?}]
METRIC: Final = 1  #: [1, key, value, timestamp, step]
METRICS: Final = 2  #: [2, [[key, value, timestamp, step], …]]: a few points
PARAMS: Final = 3  #: [3, {key: value}]
FIELDS: Final = 4  #: [4, counter, writer, {field: value | nil}]
ARTIFACTS: Final = 5  #: [5, [[path, sha256 | nil, size], …]]; nil removes the path
INPUT: Final = 6  #: [6, {dataset: {…}, tags: {…}}] or [6, {model_id}]
STATUS: Final = 7  #: [7, status, end_time | nil]
CODE: Final = 8  #: [8, {commit, tree, branch, dirty, …}]
ENVIRONMENT: Final = 9  #: [9, {…}]
OUTPUT: Final = 10  #: [10, {model_id, step, path?}]
CLOSE: Final = 11  #: [11]: this process writes no more into this journal
OPEN: Final = 12  #: [12, {version, run_id, process, opened, serving}]: the first frame of every journal
COLUMNS: Final = 14  #: [14, columns]: many points, as `codec.pack_points` writes them
LINK: Final = 13  #: [13, key, step, timestamp, {model_id?, dataset_name?, dataset_digest?, value?}]
#: [15, {model_id, name?, created?, path?, model_type?, experiment_id?, source_run_id?, flavors?, params?}]; that run is
#: said of a model of no run here only.
MODEL: Final = 15

#: What this version writes into a record; anything else is kept untouched for the version that does.
_KNOWN: Final = frozenset(
    "version run_id experiment_id user_id status start_time end_time parent_run_id params metrics fields inputs outputs"
    " links refused absorbed code environment segments models keeper".split()
)

#: Points per metric segment; bounds the memory of one blob (24 bytes a point).
SEGMENT_POINTS: Final = 500_000

RUN_NAME_TAG: Final = "mlflow.runName"
PARENT_TAG: Final = "mlflow.parentRunId"

Columns = tuple["array[int]", "array[int]", "array[float]"]  #: steps, timestamps, values


class EncodedRun(NamedTuple):
    """A run's files below ``.gittrack/`` in its commit, artifacts apart.

    Attributes:
        record: The bytes of ``run.msgpack``.
        segments: Metric segments made now, by name; earlier ones stay as they are in the previous revision.
    """

    record: bytes
    segments: dict[str, bytes]


_EXPERIMENT_ID: Final = re.compile(r"[0-9]{1,19}")
_OBJECT_ID: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_INT64: Final = range(-(2**63), 2**63)
_STATUSES: Final = frozenset(map(RunStatus.to_string, RunStatus.all_status()))
_DATASET: Final = frozenset(Dataset.__slots__)
_MODEL_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
#: Editable facts of a logged model are fields of this name, then its id, a dot and ``status``, ``tags.<key>`` …
MODEL_FIELDS: Final = "models."


# Events and records may come from anywhere.  What these let pass can be committed, read back and indexed; that the keys
# of a map are text, `codec` sees to.


def _of(kind: type[T], value: Any, what: str) -> T:
    if type(value) is not kind:
        raise FormatError(f"{what} is {type(value).__name__}, not {kind.__name__}")
    return value


def int64(value: Any, what: str) -> int:
    """``value`` if it is a signed 64-bit number.  Raises FormatError."""
    if type(value) is not int or value not in _INT64:
        raise FormatError(f"{what} is no 64-bit number")
    return value


def _texts(value: Any, what: str) -> dict[str, str]:
    return {key: _of(str, text, what) for key, text in _of(dict, value, what).items()}


def _optional(value: Any, what: str) -> str | None:
    return None if value is None else _of(str, value, what)


def _checked_status(status: Any, end_time: Any) -> tuple[str, int | None]:
    if status not in _STATUSES:
        raise FormatError(f"`{status!s:.80}` is no status of a run")
    return status, None if end_time is None else int64(end_time, "the end time")


def _checked_input(item: Any) -> dict[str, Any]:
    facts: dict[str, Any] = _of(dict, item, "an input")
    if "dataset" in facts:
        dataset = _of(dict, facts["dataset"], "a dataset")
        for name in ("name", "digest", "source_type", "source"):
            _of(str, dataset[name], f"the {name} of a dataset")
        for name in _DATASET & dataset.keys():
            _optional(dataset[name], f"the {name} of a dataset")
        _texts(facts.get("tags", {}), "the tags of a dataset")
    else:
        _of(str, facts["model_id"], "the model of an input")
    return facts


def _checked_output(item: Any) -> dict[str, Any]:
    facts: dict[str, Any] = _of(dict, item, "an output")
    _of(str, facts["model_id"], "the model of an output")
    int64(facts.get("step", 0), "the step of an output")
    if facts.get("path") is not None:
        layout.check_path(facts["path"])
    return facts


def _checked_link(link: Any) -> list[Any]:
    key, step, timestamp, to = link
    return [_of(str, key, "a metric"), int64(step, "a step"), int64(timestamp, "a time"), _texts(to, "a link")]


def _checked_model(item: Any) -> dict[str, Any]:
    facts: dict[str, Any] = _of(dict, item, "a logged model")
    if not is_model_id(facts["model_id"]):
        raise FormatError("the id of a logged model is none")
    for name in ("name", "model_type", "experiment_id"):
        _optional(facts.get(name), f"the {name} of a logged model")
    if facts.get("created") is not None:
        int64(facts["created"], "a time")
    if facts.get("path") is not None:
        layout.check_path(facts["path"])
    if facts.get("source_run_id") is not None:
        _checked_run_id(facts["source_run_id"])
    for flavour in _of(list, facts.get("flavors", []), "the flavours of a logged model"):
        _of(str, flavour, "a flavour")
    _texts(facts.get("params", {}), "a param of a logged model")
    return facts


def _checked_run_id(value: Any) -> str:
    try:
        return check_run_id(value)
    except InvalidValueError as error:
        raise FormatError(error.message) from error


def is_model_id(value: object) -> bool:
    """True for what can be the id of a logged model: letters, digits, ``_`` and ``-``."""
    return isinstance(value, str) and _MODEL_ID.fullmatch(value) is not None


def _checked_code(facts: Any) -> dict[str, Any]:
    code: dict[str, Any] = _of(dict, facts, "the code")
    for name in ("commit", "tree"):
        oid = code.get(name)
        if oid is not None and not _OBJECT_ID.fullmatch(_of(str, oid, f"the code's {name}")):
            raise FormatError(f"the code's {name} is no id of git's")
    _optional(code.get("branch"), "the code's branch")
    return dict(code)


def checked_field(counter: Any, writer: Any, value: Any) -> Field:
    """An editable fact.  Raises FormatError."""
    return Field(int64(counter, "a counter"), _of(str, writer, "a writer"), _optional(value, "a field"))


def _dataset_input(raw: Mapping[str, Any]) -> DatasetInput:
    dataset = raw["dataset"]
    return DatasetInput(
        Dataset(**{name: dataset.get(name) for name in Dataset.__slots__}),
        [InputTag(key, value) for key, value in raw.get("tags", {}).items()],
    )


def ordered(steps: array[int], timestamps: array[int], values: array[float]) -> Columns:
    """The columns sorted by (timestamp, step, value) without exact repeats: MLflow's history order.

    Columns that are strictly increasing already, which is how training loops write them, are returned as they are.
    """
    # Almost all are, by the steps alone: without making pairs, that is seen ten times as fast.
    if all(map(lt, steps, islice(steps, 1, None))) and all(map(le, timestamps, islice(timestamps, 1, None))):
        return steps, timestamps, values
    points = list(zip(timestamps, steps, values, strict=True))
    if all(map(lambda a, b: (a[0], a[1]) < (b[0], b[1]), points, points[1:])):
        return steps, timestamps, values
    # NaN compares with nothing, so it sorts by a flag; its repeats fall together because of the flag too.
    keyed = {(t, s, v != v, 0.0 if v != v else v): (s, t, v) for t, s, v in points}
    out = [keyed[key] for key in sorted(keyed)]
    return array("q", [p[0] for p in out]), array("q", [p[1] for p in out]), array("d", [p[2] for p in out])


def summarise(previous: MetricSummary | None, columns: Columns) -> MetricSummary | None:
    """``previous`` extended by the points of ``columns``; None if there is no point at all."""
    steps, timestamps, values = columns
    if not values:
        return previous
    numbers: Sequence[float] = values
    total = sum(values)
    if total != total:  # a NaN, or infinities of both signs
        numbers = [v for v in values if v == v]
    # `last` is the greatest (step, timestamp, value); NaN counts as smaller than any number.
    if len(numbers) == len(values):
        step, timestamp, value = max(zip(steps, timestamps, values, strict=True))
        last = (step, timestamp, (True, value))
    else:
        last = max(zip(steps, timestamps, ((v == v, v) for v in values), strict=True))
    low = min(numbers, default=math.nan)
    high = max(numbers, default=math.nan)
    count = len(values)
    if previous is not None:
        old = (previous.step, previous.timestamp, (previous.value == previous.value, previous.value))
        last = max(last, old)
        low = _extreme(min, low, previous.minimum)
        high = _extreme(max, high, previous.maximum)
        count += previous.count
    return MetricSummary(last[2][1], last[1], last[0], low, high, count)


def _united(a: MetricSummary, b: MetricSummary) -> MetricSummary:
    """The summary of two revisions that share their earlier points: the larger count is the better guess."""
    last = max(a, b, key=lambda s: (s.step, s.timestamp, s.value == s.value, s.value if s.value == s.value else 0.0))
    low, high = _extreme(min, a.minimum, b.minimum), _extreme(max, a.maximum, b.maximum)
    return MetricSummary(last.value, last.timestamp, last.step, low, high, max(a.count, b.count))


def _extreme(pick: Any, a: float, b: float) -> float:
    if a != a:
        return b
    return a if b != b else float(pick(a, b))


class RunState:
    """A run being folded from its events.  Mutable; ``to_run`` gives the frozen record."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.experiment_id = "0"
        self.user_id = ""
        self.start_time = 0
        self.end_time: int | None = None
        self.status = "RUNNING"
        self.parent_run_id: str | None = None
        self.params: dict[str, str] = {}
        self.fields: dict[str, Field] = {}
        self.summaries: dict[str, MetricSummary] = {}
        self.artifacts: dict[str, Artifact | None] = {}  #: changes since the base revision; None: removed
        self.inputs: list[dict[str, Any]] = []
        self.outputs: list[dict[str, Any]] = []
        self.links: list[list[Any]] = []
        self.models: dict[str, dict[str, Any]] = {}  #: what never changes of the logged models that the run keeps
        self.keeper = False  #: the run is there only to keep what no run made: a logged model, or files
        self.code: dict[str, Any] = {}
        self.environment: dict[str, Any] = {}
        self.segments: list[str] = []  #: metric segments of the base revision, oldest first
        self.created = False
        self.refused: list[str] = []  #: params that a second process wrote with another value
        self.absorbed: dict[str, int] = {}  #: how far each journal is folded in already, so that nothing counts twice
        self.base: ObjectId | None = None  #: the revision this state continues
        self._points: dict[str, Columns] = {}  #: points since the base revision
        self._unknown: dict[str, Any] = {}  #: keys a later gittrack wrote; kept as they are

    # -- folding -----------------------------------------------------------------------------------------------------

    def apply(self, event: Any) -> None:
        """Fold one event in.  Kinds of a later version are passed over.

        Raises:
            FormatError: The event has a known kind and not its shape.
        """
        try:
            handler = _HANDLERS.get(event[0])
            if handler is not None:
                handler(self, *event[1:])
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise FormatError(f"event of run `{self.run_id}` has the wrong shape: {error}") from error

    def _create(self, facts: Mapping[str, Any]) -> None:
        self._identify(facts)
        self.created = True
        self._edit(1, "", {"name": facts["name"]})
        self._edit(1, "", {f"tags.{key}": value for key, value in facts.get("tags", {}).items()})

    def _identify(self, facts: Mapping[str, Any]) -> None:
        if not _EXPERIMENT_ID.fullmatch(facts["experiment_id"]):
            raise FormatError("the experiment's id is not a number")
        self.experiment_id = facts["experiment_id"]
        self.user_id = _of(str, facts.get("user_id", ""), "the user")
        self.start_time = int64(facts["start_time"], "the start time")
        self.parent_run_id = _optional(facts.get("parent_run_id"), "the parent run")
        self.keeper = _of(bool, facts.get("keeper", False), "what a run is for")

    def _metrics(self, rows: Iterable[tuple[str, float, int, int]]) -> None:
        for row in rows:
            self._point(*row)

    def _point(self, key: str, value: float, timestamp: int, step: int) -> None:
        columns = self._points.get(key)
        if columns is None:
            columns = self._points[_of(str, key, "a metric")] = (array("q"), array("q"), array("d"))
        columns[0].append(step)
        columns[1].append(timestamp)
        columns[2].append(value + 0.0)  # zero has no sign: 0.0 and -0.0 are equal, so which came last could not be told

    def _columns(self, data: bytes) -> None:
        for key, new in codec.unpack_points(data).items():
            if 0.0 in new[2]:
                new[2][:] = array("d", [value + 0.0 for value in new[2]])
            known = self._points.setdefault(key, (array("q"), array("q"), array("d")))
            known[0].extend(new[0])
            known[1].extend(new[1])
            known[2].extend(new[2])

    def _write_params(self, params: Mapping[str, str]) -> None:
        for key, value in _texts(params, "a param").items():
            if self.params.setdefault(key, value) != value:
                self.refused.append(key)

    def _artifacts(self, rows: Iterable[tuple[str, str | None, int]]) -> None:
        for path, digest, size in rows:
            layout.check_path(path)
            self.artifacts.pop(path, None)  # a later change stands behind an earlier one, also of another path
            self.artifacts[path] = None if digest is None else Artifact(path, layout.check_digest(digest), size)
            if int64(size, "a size") < 0:
                raise FormatError("a size is negative")

    def _end(self, status: str, end_time: int | None) -> None:
        self.status, self.end_time = _checked_status(status, end_time)

    def _input(self, item: dict[str, Any]) -> None:
        if _checked_input(item) not in self.inputs:
            self.inputs.append(item)

    def _output(self, item: dict[str, Any]) -> None:
        """A model that is there already has been moved to another path."""
        model = _model_of(_checked_output(item))
        self.outputs = [one for one in self.outputs if _model_of(one) != model] + [item]

    def _model(self, item: dict[str, Any]) -> None:
        """What was said first stays; there can be more params later."""
        facts = _checked_model(item)
        known = self.models.setdefault(facts["model_id"], {})
        params = {**facts.get("params", {}), **known.get("params", {})}
        known.update({**facts, **known, **({"params": params} if params else {})})

    def _code(self, facts: Mapping[str, Any]) -> None:
        self.code = _checked_code(facts)

    def _environment(self, facts: Mapping[str, Any]) -> None:
        self.environment = dict(_of(dict, facts, "the environment"))

    def _link(self, key: str, step: int, timestamp: int, to: Mapping[str, str]) -> None:
        self.links.append(_checked_link([key, step, timestamp, to]))

    def _edit(self, counter: int, writer: str, changes: Mapping[str, str | None]) -> None:
        for name, value in changes.items():
            edit = checked_field(counter, writer, value)
            if edit.beats(self.fields.get(name)):
                self.fields[name] = edit

    def merge(self, other: RunState) -> None:
        """Take in a revision of the same run that another clone made; the order of merging does not matter.

        Fields: the newest edit wins.  Params: written once, the smaller value stays if two clones disagree.  Status:
        the later end.  Metrics: both histories, whose points the reader unites; the summaries count points of both.
        """
        for name, edit in other.fields.items():
            if edit.beats(self.fields.get(name)):
                self.fields[name] = edit
        for key, value in other.params.items():
            kept = min(self.params.get(key, value), value)
            if kept != self.params.setdefault(key, kept):
                self.params[key] = kept
                self.refused.append(key)
        if (other.end_time or 0, other.status) > (self.end_time or 0, self.status):
            self.status, self.end_time = other.status, other.end_time
        for key, theirs in other.summaries.items():
            mine = self.summaries.get(key)
            self.summaries[key] = theirs if mine is None else _united(mine, theirs)
        self.inputs.extend(item for item in other.inputs if item not in self.inputs)
        known = {_model_of(item) for item in self.outputs}
        self.outputs.extend(item for item in other.outputs if _model_of(item) not in known)
        linked = {codec.pack(item) for item in self.links}
        self.links.extend(item for item in other.links if codec.pack(item) not in linked)
        for model_id, facts in other.models.items():
            self.models[model_id] = _merged_model(self.models.get(model_id, facts), facts)
        for name, end in other.absorbed.items():
            self.absorbed[name] = max(end, self.absorbed.get(name, 0))
        self.code = self.code or other.code
        self.environment = self.environment or other.environment

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def terminated(self) -> bool:
        """True once the run has ended."""
        return self.status in TERMINAL

    @property
    def next_counter(self) -> int:
        """The Lamport counter of the next edit (design section 6)."""
        return 1 + max((f.counter for f in self.fields.values()), default=0)

    def field(self, name: str, default: str = "") -> str:
        """The current value of an editable field."""
        found = self.fields.get(name)
        return default if found is None or found.value is None else found.value

    def tags(self) -> dict[str, str]:
        """The current tags, MLflow's run name tag among them."""
        tags = {
            name[5:]: f.value for name, f in self.fields.items() if f.value is not None and name.startswith("tags.")
        }
        tags[RUN_NAME_TAG] = self.field("name")
        if self.parent_run_id is not None:
            tags.setdefault(PARENT_TAG, self.parent_run_id)
        return tags

    def current_summaries(self) -> dict[str, MetricSummary]:
        """Every metric's summary, the points not yet stored included."""
        out = dict(self.summaries)
        for key, columns in self._points.items():
            summary = summarise(out.get(key), columns)
            if summary is not None:
                out[key] = summary
        return out

    def points_at(self, step: int) -> list[Metric]:
        """The points of a step, as far as they are at hand: those since the base revision, and each metric's last."""
        found = {
            (key, last.timestamp, repr(last.value)): Metric(key, last.value, last.timestamp, step)
            for key, last in self.current_summaries().items()
            if last.step == step
        }
        for key, (steps, timestamps, values) in self._points.items():
            if step in steps:
                for at, timestamp, value in zip(steps, timestamps, values, strict=True):
                    if at == step:
                        found[(key, timestamp, repr(value))] = Metric(key, value, timestamp, step)
        return list(found.values())

    def settle(self) -> None:
        """Take the pending points into the summaries and forget them.

        For the index, which follows a live run frame by frame and needs no history.
        """
        self.summaries = self.current_summaries()
        self._points = {}

    def replace_history(self, history: MetricHistory) -> None:
        """Take ``history`` for all there is of its metric, to be stored anew."""
        self._points[history.key] = (history.steps, history.timestamps, history.values)
        self.summaries.pop(history.key, None)

    def new_history(self, key: str) -> MetricHistory:
        """The points of ``key`` since the base revision, in history order."""
        steps, timestamps, values = ordered(*self._points.get(key, (array("q"), array("q"), array("d"))))
        return MetricHistory(key, steps, timestamps, values)

    def to_run(self, artifact_uri: str) -> Run:
        """The frozen record, sorted throughout: the same run reads the same from journal, commit and index."""
        summaries = dict(sorted(self.current_summaries().items()))
        info = RunInfo(
            run_id=self.run_id,
            experiment_id=self.experiment_id,
            user_id=self.user_id,
            status=self.status,
            start_time=self.start_time,
            end_time=self.end_time,
            lifecycle_stage=self.field("lifecycle", LifecycleStage.ACTIVE),
            artifact_uri=self.field("artifact_uri", artifact_uri),
            run_name=self.field("name"),
        )
        inputs = RunInputs(
            [_dataset_input(raw) for raw in self.inputs if "dataset" in raw],
            [ModelInput(raw["model_id"]) for raw in self.inputs if "model_id" in raw],
        )
        return Run(
            info=info,
            data=RunData(
                metrics={key: s.value for key, s in summaries.items()},
                params=dict(sorted(self.params.items())),
                tags=dict(sorted(self.tags().items())),
                summaries=summaries,
            ),
            inputs=inputs,
            outputs=RunOutputs([self._model_output(raw) for raw in self.outputs]),
            code=dict(sorted(self.code.items())),
            environment=dict(sorted(self.environment.items())),
            commit=self.base,
        )

    def _model_output(self, raw: Mapping[str, Any]) -> ModelOutput:
        path = raw.get("path") or self.models.get(raw["model_id"], {}).get("path")
        return ModelOutput(raw["model_id"], raw.get("step", 0), path)

    def logged_models(self, artifact_uri: str) -> list[LoggedModel]:
        """The logged models that the run keeps, by id, without what was measured of them.

        One that an earlier version kept is known by its output alone.
        """
        places = {raw["model_id"]: raw["path"] for raw in self.outputs if raw.get("path") is not None}
        if not self.models and not places:
            return []
        from gittrack.model_types import LoggedModel, LoggedModelStatus

        told: dict[str, dict[str, str]] = {}
        for name, field in self.fields.items():
            if name.startswith(MODEL_FIELDS) and field.value is not None:
                model_id, _, fact = name[len(MODEL_FIELDS) :].partition(".")
                told.setdefault(model_id, {})[fact] = field.value
        found = []
        for model_id in sorted({*self.models, *places}):
            facts, edits = self.models.get(model_id, {}), told.get(model_id, {})
            path = places.get(model_id) or facts.get("path") or ""
            created = facts.get("created", self.start_time)
            status = edits.get("status", "READY")
            updated = edits.get("updated", "")
            model = LoggedModel(
                experiment_id=facts.get("experiment_id") or self.experiment_id,
                model_id=model_id,
                name=facts.get("name") or path.rpartition("/")[2] or model_id,
                artifact_location=edits.get("artifact_uri") or (f"{artifact_uri}/{path}" if path else artifact_uri),
                creation_timestamp=created,
                last_updated_timestamp=int(updated) if updated.isdecimal() else created,
                model_type=facts.get("model_type"),
                source_run_id=facts.get("source_run_id") if self.keeper else self.run_id,
                status=LoggedModelStatus.__members__.get(status, LoggedModelStatus.UNSPECIFIED),
                status_message=edits.get("status_message"),
                tags={fact[5:]: value for fact, value in sorted(edits.items()) if fact.startswith("tags.")},
                params=dict(sorted(facts.get("params", {}).items())),
                lifecycle_stage=edits.get("lifecycle", LifecycleStage.ACTIVE),
                run_id=self.run_id,
                path=path,
                flavors=tuple(facts.get("flavors", ())),
            )
            found.append(model)
        return found

    def measured(self) -> list[Metric]:
        """The points of the run that were measured of a logged model, of this run or another one."""
        found: dict[Metric, None] = {}
        summaries = self.current_summaries() if self.links else {}
        for key, step, timestamp, to in self.links:
            if "model_id" not in to:
                continue
            value = number_said(to.get("value"))
            if value is None:  # an earlier version did not say it here
                last = summaries.get(key)
                if last is None or (last.step, last.timestamp) != (step, timestamp):
                    continue
                value = last.value
            link = (to["model_id"], to.get("dataset_name"), to.get("dataset_digest"))
            found[Metric(key, value, timestamp, step, *link, self.run_id)] = None
        return list(found)

    # -- stored form -------------------------------------------------------------------------------------------------

    def record(self) -> bytes:
        """``run.msgpack`` of the state as it is, with sorted keys so that equal states give equal bytes."""
        facts: dict[str, Any] = {
            **self._unknown,
            "version": VERSION,
            "run_id": self.run_id,
            "experiment_id": self.experiment_id,
            "user_id": self.user_id,
            "status": self.status,
            "start_time": self.start_time,
            "end_time": self.end_time,
            "parent_run_id": self.parent_run_id,
            "params": dict(sorted(self.params.items())),
            "metrics": {
                key: [s.value, s.timestamp, s.step, s.minimum, s.maximum, s.count]
                for key, s in sorted(self.current_summaries().items())
            },
            "fields": {name: [f.counter, f.writer, f.value] for name, f in sorted(self.fields.items())},
            "inputs": self.inputs,
            "outputs": self.outputs,
            "links": self.links,
            "refused": self.refused,
            "absorbed": dict(sorted(self.absorbed.items())),
            "code": dict(sorted(self.code.items())),
            "environment": dict(sorted(self.environment.items())),
            "segments": self.segments,
        }
        if self.models:
            facts["models"] = {model_id: _ordered_facts(of) for model_id, of in sorted(self.models.items())}
        if self.keeper:
            facts["keeper"] = True
        return codec.pack(dict(sorted(facts.items())))

    def encode(self) -> EncodedRun:
        """The files of the next revision; the pending points become new segments, listed in the record."""
        segments: dict[str, bytes] = {}
        earlier = list(self.segments)
        for part in _parts(self._points):
            name = f"{len(self.segments) + 1:06d}"
            segments[name] = codec.pack_points(part)
            self.segments = [*self.segments, name]
        encoded = EncodedRun(self.record(), segments)
        self.segments = earlier
        return encoded

    @classmethod
    def decode(cls, record: bytes, *, base: ObjectId | None = None) -> RunState:
        """The state that ``record`` was made from.

        Args:
            record: Bytes of ``run.msgpack``.
            base: The run commit they were read from.

        Raises:
            FormatError: Not a record of this format version, or values of the wrong type.
        """
        raw = codec.unpack(record)
        if not isinstance(raw, dict) or raw.get("version") != VERSION:
            version = raw.get("version") if isinstance(raw, dict) else None
            raise FormatError(f"run record has format version `{version}`, this gittrack reads {VERSION}")
        try:
            state = cls(_of(str, raw["run_id"], "the run's id"))
            state.created = True
            state.base = base
            state._identify(raw)
            state.status, state.end_time = _checked_status(raw["status"], raw["end_time"])
            state.params = _texts(raw["params"], "a param")
            state.code = _checked_code(raw["code"])
            state.environment = _of(dict, raw["environment"], "the environment")
            state.inputs = [_checked_input(item) for item in raw["inputs"]]
            state.outputs = [_checked_output(item) for item in raw["outputs"]]
            state.links = [_checked_link(link) for link in raw["links"]]
            state.refused = [_of(str, key, "a param") for key in raw["refused"]]
            state.segments = [_of(str, name, "a segment") for name in raw["segments"]]
            state.absorbed = {name: int64(end, "a journal's length") for name, end in raw["absorbed"].items()}
            state.summaries = {
                key: MetricSummary(
                    float(s[0]), int64(s[1], "a time"), int64(s[2], "a step"), float(s[3]), float(s[4]), int(s[5])
                )
                for key, s in raw["metrics"].items()
            }
            state.fields = {name: checked_field(*field) for name, field in raw["fields"].items()}
            state.models = {facts["model_id"]: facts for facts in map(_checked_model, raw.get("models", {}).values())}
        except FormatError:
            raise
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise FormatError(f"run record has the wrong shape: {error}") from error
        state._unknown = {key: value for key, value in raw.items() if key not in _KNOWN}
        return state

    @classmethod
    def fold(cls, run_id: str, events: Iterable[Any], base: RunState | None = None) -> RunState:
        """``base`` (or nothing) continued by ``events``."""
        state = base if base is not None else cls(run_id)
        for event in events:
            state.apply(event)
        return state


def check_event(event: list[Any]) -> list[Any]:
    """``event`` if it can be folded.  Raises InvalidValueError: whoever writes must not write what nobody can read."""
    try:
        RunState("").apply(event)
    except FormatError as error:
        raise InvalidValueError(f"cannot be recorded: {error.message}") from error
    return event


#: What each kind of event does; a kind that is not here is a later version's, or says nothing about the run.
_HANDLERS: Final[dict[int, Callable[..., None]]] = {
    CREATE: RunState._create,
    METRIC: RunState._point,
    METRICS: RunState._metrics,
    COLUMNS: RunState._columns,
    PARAMS: RunState._write_params,
    FIELDS: RunState._edit,
    ARTIFACTS: RunState._artifacts,
    INPUT: RunState._input,
    STATUS: RunState._end,
    CODE: RunState._code,
    ENVIRONMENT: RunState._environment,
    OUTPUT: RunState._output,
    LINK: RunState._link,
    MODEL: RunState._model,
}


def _model_of(output: Mapping[str, Any]) -> tuple[Any, Any]:
    """What an output is about: a model at a step."""
    return output.get("model_id"), output.get("step", 0)


def _ordered_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a logged model in the order in which they are stored."""
    return {name: dict(sorted(one.items())) if name == "params" else one for name, one in sorted(facts.items())}


def _merged_model(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """What two clones say of a logged model: all of it; where they disagree, the smaller, as for params of runs."""
    params = {**theirs.get("params", {}), **mine.get("params", {})}
    params = {key: min(value, theirs.get("params", {}).get(key, value)) for key, value in params.items()}
    both = {key: min((one[key] for one in (mine, theirs) if key in one), key=codec.pack) for key in {**mine, **theirs}}
    return {**both, **({"params": params} if params else {})}


def number_said(text: str | None) -> float | None:
    """The number that a link's ``value`` says, as ``repr`` writes it; None if it says none."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _parts(points: Mapping[str, Columns]) -> list[dict[str, Columns]]:
    """The points cut into segments of at most SEGMENT_POINTS; a metric's points keep their order across them."""
    parts: list[dict[str, Columns]] = []
    room = 0
    for key in sorted(points):
        columns = ordered(*points[key])
        start = 0
        while start < len(columns[2]):
            if room == 0:
                parts.append({})
                room = SEGMENT_POINTS
            stop = min(len(columns[2]), start + room)
            parts[-1][key] = (columns[0][start:stop], columns[1][start:stop], columns[2][start:stop])
            room -= stop - start
            start = stop
    return parts


def merge_histories(key: str, pieces: Iterable[Columns]) -> MetricHistory:
    """One history from the pieces of several segments and journals."""
    steps, timestamps, values = array("q"), array("q"), array("d")
    count = 0
    for piece in pieces:
        if piece[2]:
            count += 1
            steps.extend(piece[0])
            timestamps.extend(piece[1])
            values.extend(piece[2])
    if count > 1:  # a single piece was ordered when it was stored
        steps, timestamps, values = ordered(steps, timestamps, values)
    return MetricHistory(key, steps, timestamps, values)
