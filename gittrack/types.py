"""The records everything else passes around: runs, experiments and their parts, frozen.

Field names are MLflow's where MLflow has the thing, so that code written for its entities reads ours.  All times are
integer milliseconds since the Unix epoch (UTC); all ids are strings.  Imports nothing of gittrack but ``errors``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, NewType, TypeVar

from gittrack.errors import InvalidValueError, shown

if TYPE_CHECKING:
    from typing_extensions import Self

    from gittrack.model_types import (
        LoggedModel as LoggedModel,
        LoggedModelParameter as LoggedModelParameter,
        LoggedModelStatus as LoggedModelStatus,
        LoggedModelTag as LoggedModelTag,
        ModelVersion as ModelVersion,
        ModelVersionStages as ModelVersionStages,
        ModelVersionStatus as ModelVersionStatus,
        ModelVersionTag as ModelVersionTag,
        RegisteredModel as RegisteredModel,
        RegisteredModelAlias as RegisteredModelAlias,
        RegisteredModelTag as RegisteredModelTag,
    )

#: Records that are made when they are first asked for: see ``gittrack.model_types``.
_LATER: Final = frozenset(
    "LoggedModel LoggedModelParameter LoggedModelStatus LoggedModelTag"
    " ModelVersion ModelVersionStages ModelVersionStatus ModelVersionTag"
    " RegisteredModel RegisteredModelAlias RegisteredModelTag".split()
)

RunId = NewType("RunId", str)  #: 32 lower-case hex digits for runs made here
ExperimentId = NewType("ExperimentId", str)  #: decimal digits; "0" is Default
ObjectId = NewType("ObjectId", str)  #: hex id of a git object: 40 digits (SHA-1) or 64 (SHA-256)
Digest = NewType("Digest", str)  #: sha256 of an artifact's bytes, 64 lower-case hex digits

T = TypeVar("T")


def _plain(value: Any) -> Any:
    """``value`` with records as dicts, also those in lists."""
    if isinstance(value, (_Record, Metric)):
        return value.to_dictionary()
    return [_plain(item) for item in value] if isinstance(value, list) else value


class _Record:
    """What MLflow's entities can all do: ``dict(record)``, and ``to_dictionary`` for all that is in it, too."""

    __slots__ = ()

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Name and value of each fact."""
        return ((name, getattr(self, name)) for name in self.__dataclass_fields__)  # type: ignore[attr-defined]

    def to_dictionary(self) -> dict[str, Any]:
        """The record as plain dicts, lists and scalars."""
        return {name: _plain(value) for name, value in self}

    @classmethod
    def from_dictionary(cls, values: Mapping[str, Any]) -> Self:
        """The record with these values; names that it does not have are passed over, as in MLflow."""
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})  # type: ignore[attr-defined]


class LifecycleStage:
    """Where a run or an experiment is between created and collected."""

    ACTIVE: Final = "active"
    DELETED: Final = "deleted"


class ViewType:
    """Which lifecycle stages a search looks at (MLflow's numbers)."""

    ACTIVE_ONLY: Final = 1
    DELETED_ONLY: Final = 2
    ALL: Final = 3

    _NAMES: Final = {1: "active_only", 2: "deleted_only", 3: "all"}

    @classmethod
    def from_string(cls, name: str) -> int:
        """Number of a view's name, such as ``active_only``.  Raises InvalidValueError for an unknown name."""
        for number, known in cls._NAMES.items():
            if known == name:
                return number
        raise InvalidValueError(f"unknown view type `{shown(name)}`", hint="one of " + ", ".join(cls._NAMES.values()))

    @classmethod
    def to_string(cls, view: int) -> str:
        """Name of a view's number.  Raises InvalidValueError for an unknown number."""
        cls.stages(view)
        return cls._NAMES[view]

    @classmethod
    def stages(cls, view: int) -> tuple[str, ...]:
        """The lifecycle stages that ``view`` includes.

        Raises:
            InvalidValueError: ``view`` is none of the three numbers.
        """
        table = {
            cls.ACTIVE_ONLY: (LifecycleStage.ACTIVE,),
            cls.DELETED_ONLY: (LifecycleStage.DELETED,),
            cls.ALL: (LifecycleStage.ACTIVE, LifecycleStage.DELETED),
        }
        if not isinstance(view, int) or view not in table:
            raise InvalidValueError(
                f"unknown view type `{shown(view)}`", hint="use ViewType.ACTIVE_ONLY, DELETED_ONLY or ALL"
            )
        return table[view]


class RunStatus:
    """The states of a run.  MLflow passes them as strings in entities and as numbers on the wire."""

    RUNNING: Final = 1
    SCHEDULED: Final = 2
    FINISHED: Final = 3
    FAILED: Final = 4
    KILLED: Final = 5

    _NAMES: Final = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}

    @classmethod
    def to_string(cls, status: int) -> str:
        """Name of a status number.  Raises InvalidValueError for an unknown number."""
        if status not in cls._NAMES:
            raise InvalidValueError(f"unknown run status `{shown(status)}`")
        return cls._NAMES[status]

    @classmethod
    def from_string(cls, name: str) -> int:
        """Number of a status name.  Raises InvalidValueError for an unknown name."""
        for number, known in cls._NAMES.items():
            if isinstance(name, str) and known == name:
                return number
        raise InvalidValueError(f"unknown run status `{shown(name)}`", hint="one of " + ", ".join(cls._NAMES.values()))

    @classmethod
    def is_terminated(cls, status: int | str) -> bool:
        """True for FINISHED, FAILED and KILLED, by number or by name."""
        return (cls.to_string(status) if isinstance(status, int) else status) in TERMINAL

    @classmethod
    def all_status(cls) -> list[int]:
        """Every status number."""
        return list(cls._NAMES)


TERMINAL: Final = frozenset({"FINISHED", "FAILED", "KILLED"})


class Metric(NamedTuple):
    """One point of a metric; a tuple, since there are millions of them.

    Attributes:
        key: Name, at most 250 characters.
        value: Any float, NaN and infinities included.
        timestamp: Milliseconds since the epoch, not negative.
        step: Any signed 64-bit integer.
    """

    key: str
    value: float
    timestamp: int
    step: int = 0
    model_id: str | None = None
    dataset_name: str | None = None
    dataset_digest: str | None = None
    run_id: str | None = None

    def keys(self) -> tuple[str, ...]:
        """Names of the fields: with ``metric["value"]`` it makes ``dict(metric)`` work as for MLflow's."""
        return self._fields

    def __getitem__(self, which: Any) -> Any:
        return getattr(self, which) if isinstance(which, str) else tuple.__getitem__(self, which)

    def to_dictionary(self) -> dict[str, Any]:
        """Name and value of each field."""
        return self._asdict()

    @classmethod
    def from_dictionary(cls, values: Mapping[str, Any]) -> Metric:
        """The point with these values; names that it does not have are passed over, as in MLflow."""
        return cls(**{name: values[name] for name in cls._fields if name in values})


@dataclass(frozen=True, slots=True)
class Param(_Record):
    """A parameter: written once, text."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class RunTag(_Record):
    """A tag of a run: text, editable."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class ExperimentTag(_Record):
    """A tag of an experiment."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class InputTag(_Record):
    """A tag on the use of a dataset by a run; ``mlflow.data.context`` says what for."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Dataset(_Record):
    """What is recorded of a dataset: its name, digest and where it came from, never its rows."""

    name: str
    digest: str
    source_type: str
    source: str
    schema: str | None = None
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetInput(_Record):
    """A dataset as a run used it."""

    dataset: Dataset
    tags: list[InputTag] = field(default_factory=list)

    def to_dictionary(self) -> dict[str, Any]:
        """The record as plain dicts; the tags are one of them."""
        return {"dataset": self.dataset.to_dictionary(), "tags": {tag.key: tag.value for tag in self.tags}}


@dataclass(frozen=True, slots=True)
class ModelInput(_Record):
    """A logged model that a run read."""

    model_id: str


@dataclass(frozen=True, slots=True)
class ModelOutput(_Record):
    """A logged model that a run made, at a step of its training.

    Attributes:
        path: The folder of its files among the run's artifacts; None if they are not there.
    """

    model_id: str
    step: int = 0
    path: str | None = None


@dataclass(frozen=True, slots=True)
class RunInputs(_Record):
    """Datasets and models a run read."""

    dataset_inputs: list[DatasetInput] = field(default_factory=list)
    model_inputs: list[ModelInput] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RunOutputs(_Record):
    """Models a run made."""

    model_outputs: list[ModelOutput] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FileInfo(_Record):
    """One entry of an artifact listing.

    Attributes:
        path: Path below the run's artifact root, with ``/``.
        is_dir: A folder has no bytes of its own.
        file_size: Bytes; None for a folder.
        digest: sha256 of the bytes; None for a folder.
    """

    path: str
    is_dir: bool
    file_size: int | None
    digest: Digest | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a run: its bytes live in the object store under ``digest``."""

    path: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Field:
    """An editable fact: the newest (counter, writer) wins, wall clocks never decide (design section 6)."""

    counter: int
    writer: str
    value: str | None  #: None: removed

    def beats(self, other: Field | None) -> bool:
        """True if this edit replaces ``other``.  Total: equal counters are ordered by writer, then by value."""
        if other is None:
            return True
        mine = (self.counter, self.writer, self.value is not None, self.value or "")
        return mine > (other.counter, other.writer, other.value is not None, other.value or "")


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """What the index and the run record keep of a metric's history.

    ``last`` is the point with the greatest (step, timestamp, value), as in MLflow.  ``minimum`` and ``maximum`` are
    over the points that are numbers; NaN if there is none.
    """

    value: float
    timestamp: int
    step: int
    minimum: float
    maximum: float
    count: int


@dataclass(frozen=True, slots=True)
class RunInfo(_Record):
    """The facts about a run that are not its data."""

    run_id: str
    experiment_id: str
    user_id: str
    status: str
    start_time: int
    end_time: int | None
    lifecycle_stage: str
    artifact_uri: str
    run_name: str

    @property
    def run_uuid(self) -> str:
        """MLflow's old name of ``run_id``."""
        return self.run_id


@dataclass(frozen=True, slots=True)
class RunData(_Record):
    """Parameters, tags and the last value of every metric."""

    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]
    summaries: dict[str, MetricSummary] = field(default_factory=dict)

    def to_dictionary(self) -> dict[str, Any]:
        """Metrics, params and tags as dicts, which MLflow knows; the summaries are ours."""
        return {"metrics": dict(self.metrics), "params": dict(self.params), "tags": dict(self.tags)}


@dataclass(frozen=True, slots=True)
class Run(_Record):
    """A run as it can be read: MLflow's entity, plus what only gittrack knows.

    Attributes:
        code: ``commit``, ``branch``, ``dirty``, ``remote``, ``tree``, ``left_out`` … as captured at the start.
        environment: Python, packages, host, command line, seeds … as captured at the start.
        commit: Id of the run commit; None while the run is only in its journal.
    """

    info: RunInfo
    data: RunData
    inputs: RunInputs = field(default_factory=RunInputs)
    outputs: RunOutputs = field(default_factory=RunOutputs)
    code: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    commit: ObjectId | None = None

    def to_dictionary(self) -> dict[str, Any]:
        """The run as plain dicts, lists and scalars: ``info data inputs outputs`` as MLflow's, and what is ours."""
        parts = {name: _plain(value) for name, value in self}
        return {**parts, "code": dict(self.code), "environment": dict(self.environment)}

    def _repr_html_(self) -> str:
        """The run as a notebook shows it."""
        from gittrack import cards

        return cards.run(self)


@dataclass(frozen=True, slots=True)
class Experiment(_Record):
    """A named group of runs."""

    experiment_id: str
    name: str
    artifact_location: str
    lifecycle_stage: str
    tags: dict[str, str] = field(default_factory=dict)
    creation_time: int | None = None
    last_update_time: int | None = None


class PagedList(list[T], Generic[T]):
    """A page of results; ``token`` asks for the next page and is None on the last one."""

    def __init__(self, items: Iterable[T] = (), token: str | None = None) -> None:
        super().__init__(items)
        self.token = token

    def to_list(self) -> list[T]:
        """The page as a plain list."""
        return list(self)

    def _repr_html_(self) -> str | None:
        """Runs beside each other, as a notebook shows them; None, which is ``repr``, for anything else."""
        from gittrack import cards

        return cards.runs(self) if self and all(isinstance(one, Run) for one in self) else None


class MetricHistory:
    """All points of one metric as three parallel columns, ordered by (timestamp, step, value) like MLflow's history.

    Attributes:
        steps: Signed 64-bit integers.
        timestamps: Milliseconds, signed 64-bit integers.
        values: 64-bit floats.
    """

    __slots__ = ("key", "steps", "timestamps", "values")

    def __init__(self, key: str, steps: Any, timestamps: Any, values: Any) -> None:
        self.key = key
        self.steps = steps
        self.timestamps = timestamps
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Metric]:
        nothing = repeat(None)
        rows = zip(
            repeat(self.key), self.values, self.timestamps, self.steps, nothing, nothing, nothing, nothing, strict=False
        )
        return map(partial(tuple.__new__, Metric), rows)  # without Metric's own, slower constructor


_RUN_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}", re.ASCII)


def check_run_id(value: str) -> RunId:
    r"""``value`` as a run id.

    Raises:
        InvalidValueError: It is not MLflow's ``[a-zA-Z0-9][\w-]{0,255}``.
    """
    if not isinstance(value, str) or not _RUN_ID.fullmatch(value):
        raise InvalidValueError(
            f"invalid run id `{shown(value)}`", hint="a run id has letters, digits, `_` and `-` only"
        )
    return RunId(value)


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"gittrack.types has no `{name}`", name=name)
    from importlib import import_module

    return getattr(import_module("gittrack.model_types"), name)
