"""What can be asked of what: keys and attributes of runs, experiments, models and versions, in SQL and in Python.

It is the only place that knows both sides, and is data: nothing here reads text, writes SQL or compares.  It may assume
the index's table and column names and the records of ``gittrack.types``.
"""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gittrack.types import Experiment, MetricSummary, Run

if TYPE_CHECKING:
    from gittrack.types import LoggedModel, ModelVersion, RegisteredModel

# Kinds of keys.
METRIC: Final = "metric"
PARAM: Final = "param"
TAG: Final = "tag"
ATTRIBUTE: Final = "attribute"
DATASET: Final = "dataset"

# Operators, by what they go with.
ORDERED: Final = ("=", "!=", "<", "<=", ">", ">=")  #: numbers
TEXTUAL: Final = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN")  #: text
NULLNESS: Final = ("IS NULL", "IS NOT NULL")  #: what can be missing

SUMMARIES: Final = {"min": "minimum", "max": "maximum", "last": "value"}  #: of a metric: word after the dot, column
DATASET_KEYS: Final = ("name", "digest", "context")


class Attribute(NamedTuple):
    """A fixed field of an entity.

    Attributes:
        column: Its name in the entity's table.
        read: The same of the Python record.
        number: It is an integer; otherwise text.
        nullable: It can be missing.
        indexed: The database finds rows by it quickly.
        operators: The comparisons it takes, beside those with NULL.
        tag: If not empty, a filter looks at this tag instead (and an order does not), as MLflow does it.
        order: SQL over the entity's row ``r`` by which it is ordered; empty: by ``column``.
        order_read: The same of the Python record.
    """

    column: str
    read: Callable[[Any], Any]
    number: bool = False
    nullable: bool = False
    indexed: bool = False
    operators: tuple[str, ...] = TEXTUAL
    tag: str = ""
    order: tuple[str, ...] = ()
    order_read: Callable[[Any], Any] | None = None


class Entity(NamedTuple):
    """A kind of thing that can be searched.

    Attributes:
        name: What a message calls one of them.
        table: Its SQL table.
        tables: SQL table for each kind of key it has beside attributes.
        prefixes: The word before the dot, and the kind it stands for.
        attributes: By name.
        aliases: Other names of attributes.
        default_order: Used if no order is given.
        last_order: Appended to any order that does not have these keys already; the last one is unique.
        lookup: Of a record, kind and key: the value (of a metric its summary), or None.
        several: Kinds of keys of which a record can have several values: it matches if one of them does.
        summaries: What can be asked of a metric beside its value: the word after the dot, and the column.
    """

    name: str
    table: str
    tables: Mapping[str, str]
    prefixes: Mapping[str, str]
    attributes: Mapping[str, Attribute]
    aliases: Mapping[str, str]
    default_order: tuple[str, ...]
    last_order: tuple[str, ...]
    lookup: Callable[[Any, str, str], Any]
    several: tuple[str, ...] = (DATASET,)
    summaries: Mapping[str, str] = SUMMARIES


def _commit(run: Run) -> str | None:
    return _text(run.code.get("commit"))


def _tree(run: Run) -> str | None:
    return _text(run.code.get("tree"))


def _branch(run: Run) -> str | None:
    return _text(run.code.get("branch"))


def _dirty(run: Run) -> str | None:
    dirty = run.code.get("dirty")
    return None if dirty is None else str(bool(dirty)).lower()


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _of_run(run: Run, kind: str, key: str) -> MetricSummary | str | None:
    if kind == PARAM:
        return run.data.params.get(key)
    if kind == TAG:
        return run.data.tags.get(key)
    value = run.data.metrics.get(key)
    return None if value is None else run.data.summaries.get(key, MetricSummary(value, 0, 0, value, value, 1))


def _of_tags(thing: "Experiment | RegisteredModel | ModelVersion", _kind: str, key: str) -> str | None:
    return thing.tags.get(key)


RUNS: Final = Entity(
    name="run",
    table="runs",
    tables={METRIC: "metrics", PARAM: "params", TAG: "tags", DATASET: "inputs"},
    prefixes={
        **dict.fromkeys(("metrics", "metric"), METRIC),
        **dict.fromkeys(("params", "param", "parameters", "parameter"), PARAM),
        **dict.fromkeys(("tags", "tag"), TAG),
        **dict.fromkeys(("attributes", "attribute", "attr", "run"), ATTRIBUTE),
        **dict.fromkeys(("datasets", "dataset"), DATASET),
    },
    attributes={
        "run_id": Attribute("run_id", attrgetter("info.run_id"), indexed=True),
        "run_name": Attribute("run_name", attrgetter("info.run_name"), tag="mlflow.runName"),
        "status": Attribute("status", attrgetter("info.status"), indexed=True),
        "user_id": Attribute("user_id", attrgetter("info.user_id")),
        "artifact_uri": Attribute("artifact_uri", attrgetter("info.artifact_uri")),
        "start_time": Attribute(
            "start_time", attrgetter("info.start_time"), number=True, indexed=True, operators=ORDERED
        ),
        "end_time": Attribute("end_time", attrgetter("info.end_time"), number=True, nullable=True, operators=ORDERED),
        "commit": Attribute("code_commit", _commit, nullable=True, indexed=True),
        "tree": Attribute("code_tree", _tree, nullable=True, indexed=True),
        "branch": Attribute("code_branch", _branch, nullable=True),
        "dirty": Attribute("code_dirty", _dirty, nullable=True),
    },
    aliases={
        **dict.fromkeys(("created", "Created"), "start_time"),
        **dict.fromkeys(("run name", "Run name", "Run Name"), "run_name"),
    },
    default_order=(),
    last_order=("start_time DESC", "run_id ASC"),
    lookup=_of_run,
)

EXPERIMENTS: Final = Entity(
    name="experiment",
    table="experiments",
    tables={TAG: "experiment_tags"},
    prefixes={
        **dict.fromkeys(("tags", "tag"), TAG),
        **dict.fromkeys(("attributes", "attribute", "attr"), ATTRIBUTE),
    },
    attributes={
        "name": Attribute("name", attrgetter("name")),
        "experiment_id": Attribute(
            "experiment_id",
            attrgetter("experiment_id"),
            operators=("=", "!=", "IN", "NOT IN"),
            order=("LENGTH(r.experiment_id)", "r.experiment_id"),  # as the numbers they are
            order_read=lambda experiment: (len(experiment.experiment_id), experiment.experiment_id),
        ),
        "creation_time": Attribute(
            "creation_time", attrgetter("creation_time"), number=True, nullable=True, operators=ORDERED
        ),
        "last_update_time": Attribute(
            "last_update_time", attrgetter("last_update_time"), number=True, nullable=True, operators=ORDERED
        ),
    },
    aliases={},
    default_order=("creation_time DESC", "experiment_id ASC"),
    last_order=("experiment_id DESC",),
    lookup=_of_tags,
)

_TAGGED: Final = {
    **dict.fromkeys(("tags", "tag"), TAG),
    **dict.fromkeys(("attributes", "attribute", "attr"), ATTRIBUTE),
}
_TIMES: Final = {
    name: Attribute(name, attrgetter(name), number=True, operators=ORDERED)
    for name in ("creation_timestamp", "last_updated_timestamp")
}

MODELS: Final = Entity(
    name="registered model",
    table="models",
    tables={TAG: "model_tags"},
    prefixes=_TAGGED,
    attributes={
        "name": Attribute("name", attrgetter("name"), indexed=True),
        "key": Attribute("key", attrgetter("key"), indexed=True),
        **_TIMES,
    },
    aliases={"timestamp": "last_updated_timestamp"},
    default_order=(),
    last_order=("name ASC", "key ASC"),
    lookup=_of_tags,
)

MODEL_VERSIONS: Final = Entity(
    name="model version",
    table="model_versions",
    tables={TAG: "model_version_tags"},
    prefixes=_TAGGED,
    attributes={
        "name": Attribute("name", attrgetter("name"), indexed=True),
        "key": Attribute("key", attrgetter("key"), indexed=True),
        "version_number": Attribute(
            "version_number", lambda version: int(version.version), number=True, operators=ORDERED
        ),
        "run_id": Attribute("run_id", attrgetter("run_id"), nullable=True, indexed=True),
        "source_path": Attribute("source", attrgetter("source")),
        "current_stage": Attribute("current_stage", attrgetter("current_stage")),
        "manifest": Attribute("manifest", attrgetter("manifest")),
        **_TIMES,
    },
    aliases={"stage": "current_stage"},
    default_order=("last_updated_timestamp DESC",),
    last_order=("name ASC", "version_number DESC", "key ASC"),
    lookup=_of_tags,
)


def _of_logged_model(model: "LoggedModel", kind: str, key: str) -> str | None:
    return (model.params if kind == PARAM else model.tags).get(key)


def _status(model: "LoggedModel") -> str:
    return str(model.status)


LOGGED_MODELS: Final = Entity(
    name="logged model",
    table="logged_models",
    tables={METRIC: "logged_model_metrics", PARAM: "logged_model_params", TAG: "logged_model_tags"},
    prefixes={"attributes": ATTRIBUTE, "metrics": METRIC, "params": PARAM, "tags": TAG},
    attributes={
        "name": Attribute("name", attrgetter("name"), indexed=True),
        "model_id": Attribute("model_id", attrgetter("model_id"), indexed=True),
        "model_type": Attribute("model_type", attrgetter("model_type"), nullable=True),
        "source_run_id": Attribute("source_run_id", attrgetter("source_run_id"), nullable=True),
        "status": Attribute("status", _status),
        "status_message": Attribute("status_message", attrgetter("status_message"), nullable=True),
        "experiment_id": Attribute("experiment_id", attrgetter("experiment_id")),
        "artifact_location": Attribute("artifact_location", attrgetter("artifact_location")),
        **_TIMES,
    },
    aliases={
        **dict.fromkeys(("creation_time", "creation_timestamp_ms"), "creation_timestamp"),
        **dict.fromkeys(("last_updated_time", "last_updated_timestamp_ms"), "last_updated_timestamp"),
    },
    default_order=(),
    last_order=("creation_timestamp DESC", "model_id ASC"),
    lookup=_of_logged_model,
    several=(METRIC,),
    summaries={},
)
