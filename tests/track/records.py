"""Random runs, experiments, filters and orders for hypothesis; small pools, so that they meet each other often."""

import math
from typing import Any

from hypothesis import strategies as st

from gittrack.track.query import Measured
from gittrack.types import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LoggedModel,
    LoggedModelStatus,
    Metric,
    MetricSummary,
    ModelInput,
    ModelOutput,
    ObjectId,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
)

METRICS = ("acc", "loss", "loss.min", "a b", "val/loss-1", "größe", "x'); DROP TABLE runs; --")
PARAMS = ("lr", "model", "a`b", 'a"b', "1=1 OR", "ключ")
TAGS = ("mlflow.runName", "stage", "mlflow.note.content")
NUMBERS = ("0", "1", "-1", "0.5", "1e-3", "1e400", "-1e400", "9223372036854775807", "123456789012345678901234567890")
TEXTS = (
    *("", "a", "A", "b", "abc", "ABC", "a_c", "a%c", "%", "_", "~", "a~c", "\\", "a'b", 'a"b', "' OR 1=1 --"),
    *("ß", "SS", "ss", "é", "É", "İ", "ς", "Σ", "日本", "\U0001f600", "\U0010ffff", "\ud7ff\ue000", "a\nb", " a "),
    *("1", "1.0", "01", "0.5", "1e-3", "-1", "nan", "inf", "Infinity", "1_0", "0x1", "٣", "1 ", "."),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-3, float("nan"), float("inf"), float("-inf"), 1e308, 5e-324)
TIMES = (-1, 0, 1, 1000, 2**53 + 1, 2**63 - 1)

texts = st.sampled_from(TEXTS)
floats = st.sampled_from(FLOATS)
times = st.sampled_from(TIMES)
commits = st.sampled_from(("a" * 40, "b" * 40))


@st.composite
def summaries(draw: st.DrawFn) -> MetricSummary:
    """A metric that has been logged three times."""
    points = draw(st.lists(floats, min_size=1, max_size=3))
    numbers = [value for value in points if value == value] or [float("nan")]
    return MetricSummary(points[-1], draw(times), draw(times), min(numbers), max(numbers), len(points))


@st.composite
def runs(draw: st.DrawFn, run_id: str) -> Run:
    """A run with anything in it."""
    metrics = draw(st.dictionaries(st.sampled_from(METRICS), summaries(), max_size=4))
    params = draw(st.dictionaries(st.sampled_from(PARAMS), texts, max_size=3))
    tags = draw(st.dictionaries(st.sampled_from(TAGS), texts, max_size=3))
    uses = draw(
        st.lists(
            st.builds(
                DatasetInput,
                st.builds(Dataset, texts, texts, st.just("local"), st.just("{}"), st.none() | texts),
                st.lists(st.builds(InputTag, st.sampled_from(("mlflow.data.context", "other")), texts), max_size=2),
            ),
            max_size=2,
        )
    )
    code = draw(
        st.fixed_dictionaries(
            {}, optional={"commit": commits, "tree": commits, "branch": texts, "dirty": st.booleans(), "remote": texts}
        )
    )
    environment = draw(
        st.dictionaries(
            st.sampled_from(("python", "packages", "argv")),
            texts | st.lists(texts, max_size=12) | st.just("x" * 300) | st.none(),
            max_size=3,
        )
    )
    return Run(
        info=RunInfo(
            run_id=run_id,
            experiment_id=draw(st.sampled_from(("0", "7", "12"))),
            user_id=draw(texts),
            status=draw(st.sampled_from(("RUNNING", "FINISHED", "FAILED"))),
            start_time=draw(times),
            end_time=draw(st.none() | times),
            lifecycle_stage=draw(st.sampled_from(("active", "active", "active", "deleted"))),
            artifact_uri=draw(texts),
            run_name=draw(texts),
        ),
        data=RunData({key: summary.value for key, summary in metrics.items()}, params, tags, metrics),
        inputs=RunInputs(uses, draw(st.lists(st.builds(ModelInput, texts), max_size=2))),
        outputs=RunOutputs(draw(st.lists(st.builds(ModelOutput, texts, times), max_size=2))),
        code=code,
        environment=environment,
        commit=draw(st.none() | commits.map(ObjectId)),
    )


@st.composite
def many_runs(draw: st.DrawFn, max_size: int = 8) -> list[Run]:
    """Runs with ids that are not in the order of anything else."""
    ids = draw(st.lists(st.sampled_from([f"{n * 7919 % 16:x}run" for n in range(16)]), unique=True, max_size=max_size))
    return [draw(runs(run_id)) for run_id in ids]


@st.composite
def many_experiments(draw: st.DrawFn) -> list[Experiment]:
    """Experiments with ids whose order as text is not their order as numbers."""
    ids = draw(st.lists(st.sampled_from(("0", "1", "2", "9", "10", "11", "100", "99999999999999999999")), unique=True))
    return [
        Experiment(
            experiment_id,
            draw(texts),
            draw(texts),
            draw(st.sampled_from(("active", "active", "deleted"))),
            draw(st.dictionaries(st.sampled_from(TAGS), texts, max_size=2)),
            draw(st.none() | times),
            draw(st.none() | times),
        )
        for experiment_id in ids
    ]


#: Of points of logged models; one NaN, so that tuples with it are equal.
VALUES = (0.0, 1.0, -1.0, 0.5, math.nan, math.inf, -math.inf)
NAMES = ("train", "test")


@st.composite
def many_logged_models(draw: st.DrawFn) -> list[LoggedModel]:
    """Logged models with several values of a metric, measured by several runs on several datasets."""
    ids = draw(st.lists(st.sampled_from([f"m-{n * 7919 % 16:x}" for n in range(16)]), unique=True, max_size=6))
    return [draw(logged_models(model_id)) for model_id in ids]


@st.composite
def logged_models(draw: st.DrawFn, model_id: str) -> LoggedModel:
    """A logged model with anything in it."""
    points = draw(
        st.lists(
            st.builds(
                Metric,
                st.sampled_from(METRICS),
                st.sampled_from(VALUES),
                st.integers(0, 2),
                st.integers(-1, 1),
                st.just(model_id),
                st.none() | st.sampled_from(NAMES),
                st.none() | st.sampled_from(("d1", "d2")),
                st.sampled_from(("r1", "r2")),
            ),
            max_size=6,
            unique_by=lambda point: (point.key, point.timestamp, point.step, point.run_id),
        )
    )
    return LoggedModel(
        experiment_id=draw(st.sampled_from(("0", "7", "12"))),
        model_id=model_id,
        name=draw(texts),
        artifact_location=draw(texts),
        creation_timestamp=draw(st.integers(0, 3)),
        last_updated_timestamp=draw(times),
        model_type=draw(st.none() | texts),
        source_run_id=draw(st.none() | texts),
        status=draw(st.sampled_from(LoggedModelStatus)),
        status_message=draw(st.none() | texts),
        tags=draw(st.dictionaries(st.sampled_from(TAGS), texts, max_size=3)),
        params=draw(st.dictionaries(st.sampled_from(PARAMS), texts, max_size=3)),
        metrics=sorted(points, key=lambda point: (point.key, point.timestamp, point.step, point.run_id or "")),
        lifecycle_stage=draw(st.sampled_from(("active", "active", "active", "deleted"))),
        run_id=draw(st.sampled_from(("r1", "r2", "r3"))),
        path=draw(texts),
        flavors=tuple(draw(st.lists(texts, max_size=2))),
    )


def quoted(text: str) -> str:
    """``text`` as a filter has it; only for text without one of the two quotes."""
    mark = '"' if "'" in text else "'"
    assert mark not in text
    return mark + text + mark


def quoted_key(key: str) -> str:
    """``key`` after a dot."""
    mark = "`" if '"' in key else '"'
    return mark + key + mark


SIGNS = ("=", "!=", "<", "<=", ">", ">=")
plain_texts = st.sampled_from([text for text in TEXTS if "'" not in text or '"' not in text])
literals = plain_texts.map(quoted)
numbers = st.sampled_from((*NUMBERS, "+1", ".5", "1.", "2E0"))
text_tests = st.one_of(
    st.builds("{} {}".format, st.sampled_from(("=", "!=", "LIKE", "ilike")), literals),
    st.builds("LIKE '{}%'".format, st.sampled_from(("a", "A", "a_", "ß", "~", "\ud7ff", "\U0010ffff"))),
    st.builds("ILIKE '%{}%'".format, st.sampled_from(("a", "A", "ss", "Σ", "~", "_"))),
    st.builds(
        "{} ({})".format, st.sampled_from(("IN", "not in")), st.lists(literals, min_size=1, max_size=3).map(", ".join)
    ),
)
number_tests = st.builds("{} {}".format, st.sampled_from(SIGNS), numbers)
null_tests = st.sampled_from(("IS NULL", "is not null"))


def _keys(prefix: str, keys: tuple[str, ...]) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{prefix}.{quoted_key(key)}" for key in keys])


metric_keys = st.one_of(
    _keys("metrics", METRICS),
    st.sampled_from(
        ("metrics.loss.min", "metric.acc.max", "metrics.acc.last", 'metrics."loss".min', "metrics.`a b`.max")
    ),
)
run_comparisons = st.one_of(
    st.builds("{} {}".format, metric_keys, number_tests | null_tests),
    st.builds("{} {}".format, _keys("params", PARAMS), number_tests | text_tests | null_tests),
    st.builds("{} {}".format, _keys("tags", TAGS), text_tests | null_tests),
    st.builds(
        "{} {}".format,
        st.sampled_from(
            ("status", "attributes.run_name", "`Run name`", "user_id", "attr.artifact_uri", "run_id", "branch")
        ),
        text_tests,
    ),
    st.builds("{} {}".format, st.sampled_from(("commit", "tree", "dirty", "end_time", "branch")), null_tests),
    st.sampled_from(("dirty = 'true'", "dirty != 'true'", "status = 'FINISHED'", "run_id IN ('0run', 'frun', '7run')")),
    st.builds("{} {}".format, st.sampled_from(("start_time", "created", "attributes.end_time")), number_tests),
    st.builds("datasets.{} {}".format, st.sampled_from(("name", "digest", "context")), text_tests),
)
experiment_comparisons = st.one_of(
    st.builds("{} {}".format, _keys("tags", TAGS), text_tests | null_tests),
    st.builds("name {}".format, text_tests),
    st.sampled_from(("experiment_id = '10'", "experiment_id != '0'", "attribute.experiment_id IN ('1', '11')")),
    st.builds("{} {}".format, st.sampled_from(("creation_time", "last_update_time")), number_tests | null_tests),
)


def filters(comparisons: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Comparisons put together by AND, OR, NOT and parentheses."""
    return st.just("") | st.recursive(
        comparisons,
        lambda inner: st.one_of(
            st.builds("{} AND {}".format, inner, inner),
            st.builds("{} or {}".format, inner, inner),
            st.builds("NOT {}".format, inner),
            st.builds("( {})".format, inner),
        ),
        max_leaves=6,
    )


def orders(keys: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    """Keys with and without a direction; some lists have a key twice."""
    return st.lists(st.builds("{}{}".format, keys, st.sampled_from(("", " ASC", " desc"))), max_size=3)


run_orders = orders(
    st.one_of(
        metric_keys,
        _keys("params", PARAMS),
        _keys("tags", TAGS),
        st.sampled_from(
            ("start_time", "end_time", "status", "run_name", "user_id", "artifact_uri", "run_id", "commit")
        ),
    )
)
experiment_orders = orders(
    st.sampled_from(("name", "experiment_id", "creation_time", "last_update_time", "tags.stage"))
)
model_comparisons = st.one_of(
    st.builds("{} {}".format, _keys("metrics", METRICS), number_tests | null_tests),
    st.builds("{} {}".format, st.sampled_from(("metrics.loss.min", "metrics.acc")), number_tests),
    st.builds("{} {}".format, _keys("params", PARAMS), number_tests | text_tests | null_tests),
    st.builds("{} {}".format, _keys("tags", TAGS), text_tests | null_tests),
    st.builds(
        "{} {}".format,
        st.sampled_from(("name", "attributes.model_id", "model_type", "source_run_id", "status", "artifact_location")),
        text_tests,
    ),
    st.builds("{} {}".format, st.sampled_from(("model_type", "status_message")), null_tests),
    st.sampled_from(("status = 'READY'", "status != 'PENDING'", "model_id IN ('m-0', 'm-f')")),
    st.builds(
        "{} {}".format,
        st.sampled_from(("creation_time", "creation_timestamp", "attributes.last_updated_timestamp")),
        number_tests,
    ),
)


@st.composite
def model_orders(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Orders of logged models as MLflow writes them."""
    names = ("name", "creation_time", "model_type", "status", "model_id", "last_updated_timestamp", "source_run_id")
    found: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 3))):
        key: dict[str, Any] = {}
        if draw(st.booleans()):
            key["field_name"] = f"metrics.{draw(st.sampled_from(METRICS))}"
            if draw(st.booleans()):
                key["dataset_name"] = draw(st.none() | st.sampled_from(NAMES))
            if draw(st.booleans()):
                key["dataset_digest"] = draw(st.sampled_from(("d1", "d2")))
        else:
            key["field_name"] = draw(st.sampled_from(names))
        if draw(st.booleans()):
            key["ascending"] = draw(st.booleans())
        found.append(key)
    return found


datasets = st.lists(st.builds(Measured, st.sampled_from((*NAMES, "x'")), st.none() | st.just("d1")), max_size=2)
