"""The same filters and orders on the same runs, asked of the real MLflow and of the index.

Needs the ``mlflow`` package (``pip install 'mlflow>=3.17'``): run where it is installed, for instance
``PYTHONPATH=. python -m pytest tests/track/test_query_mlflow.py`` in an environment of MLflow's own.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gittrack.errors import InvalidValueError
from gittrack.store.index import Index
from gittrack.track.query import EXPERIMENTS, compile_search, page_offset, page_token
from gittrack.types import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    MetricSummary,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    ViewType,
)

pytest.importorskip("mlflow", reason="compares with the real MLflow, which is not installed here")
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]

METRICS = ("acc", "a b", "loss.min")
PARAMS = ("lr", "model")
TAGS = ("stage", "mlflow.note.content")
TEXTS = ("a", "A", "b", "abc", "ABC", "a_c", "a%c", "0.1", "10", "9", "it's", 'say "x"', "\\", "~")
FLOATS = (0.0, 1.0, -1.0, 0.5, math.nan, math.inf, -math.inf)


class Both(NamedTuple):
    """MLflow's store and the index, with the same in them."""

    store: Any
    ours: Index
    experiments: list[str]


def run_of(entity: Any) -> Run:
    """An MLflow run as one of ours."""
    info = RunInfo(**{name: getattr(entity.info, name) for name in RunInfo.__slots__})
    summaries = {key: MetricSummary(v, 0, 0, v, v, 1) for key, v in entity.data.metrics.items()}
    uses = [
        DatasetInput(
            Dataset(use.dataset.name, use.dataset.digest, use.dataset.source_type, use.dataset.source),
            [InputTag(tag.key, tag.value) for tag in use.tags],
        )
        for use in entity.inputs.dataset_inputs
    ]
    data = RunData(dict(entity.data.metrics), dict(entity.data.params), dict(entity.data.tags), summaries)
    return Run(info, data, RunInputs(uses))


def fill(store: Any) -> list[str]:
    """Experiments and runs of every kind; the ids of the experiments."""
    from mlflow import entities

    names = ("one", "Two", "THREE", "x' OR 1=1 --")
    ids = ["0"] + [
        store.create_experiment(name, tags=[entities.ExperimentTag("team", name[:1])] if n % 2 else [])
        for n, name in enumerate(names)
    ]
    store.delete_experiment(ids[2])
    active = [i for i in ids if i != ids[2]]
    for n in range(60):
        run = store.create_run(
            active[n % 3], f"user{n % 3}", n % 7 * 1000, [], None if n % 5 == 0 else f"Run {TEXTS[n % len(TEXTS)]}"
        )
        run_id = run.info.run_id
        metrics = [
            entities.Metric(key, FLOATS[(n * 3 + k) % len(FLOATS)], 0, 0)
            for k, key in enumerate(METRICS)
            if (n >> k) % 2
        ]
        params = [entities.Param(key, TEXTS[(n * 5 + k) % len(TEXTS)]) for k, key in enumerate(PARAMS) if (n + k) % 4]
        tags = [entities.RunTag(key, TEXTS[(n * 3 + k) % len(TEXTS)]) for k, key in enumerate(TAGS) if (n + k) % 3]
        store.log_batch(run_id, metrics, params, tags)
        if n % 4 == 0:
            uses = [
                entities.DatasetInput(
                    entities.Dataset(TEXTS[(n + k) % len(TEXTS)], f"d{n % 3}{k}", "local", "{}"),
                    [entities.InputTag("mlflow.data.context", ("train", "eval")[k])] if n % 8 else [],
                )
                for k in range(1 + n % 2)
            ]
            store.log_inputs(run_id, uses)
        if n % 3:
            status = entities.RunStatus.FINISHED if n % 2 else entities.RunStatus.FAILED
            store.update_run_info(run_id, status, n * 10, None)
        if n % 11 == 0:
            store.delete_run(run_id)
    return ids


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Both stores, filled once."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    root: Path = tmp_path_factory.mktemp("mlflow")
    store = SqlAlchemyStore(f"sqlite:///{root / 'mlflow.db'}", str(root / "artifacts"))
    ids = fill(store)
    index = Index(None)
    index.put_runs(map(run_of, store.search_runs(ids, "", ViewType.ALL, 1000)))
    fields = (
        "experiment_id",
        "name",
        "artifact_location",
        "lifecycle_stage",
        "tags",
        "creation_time",
        "last_update_time",
    )
    index.put_experiments(
        Experiment(*(getattr(found, field) for field in fields))
        for found in store.search_experiments(ViewType.ALL, 1000)
    )
    yield Both(store, index, ids)
    index.close()
    store.engine.dispose()


def ours(both: Both, text: str, order: list[str], view: int = ViewType.ACTIVE_ONLY) -> list[str]:
    """Ids of the runs that the index finds."""
    compiled = compile_search(text, order, has_metric=both.ours.has_metric)
    return both.ours.search_run_ids(compiled, both.experiments, view)


def theirs(both: Both, text: str, order: list[str], view: int = ViewType.ACTIVE_ONLY) -> list[str]:
    """Ids of the runs that MLflow finds."""
    return [run.info.run_id for run in both.store.search_runs(both.experiments, text, view, 1000, order)]


FILTERS = [
    "",
    "metrics.acc > 0",
    "metric.acc >= 0.5 AND params.model = 'a'",
    "metrics.acc != 0",
    "metrics.acc = 0",
    "metrics.acc <= 1e400",
    "metrics.`a b` < .5",
    'metrics."a b" < 1',
    "metrics.loss.min != -1",
    "params.lr LIKE '%a%' and tags.stage ilike 'ABC'",
    "params.lr LIKE 'a_c'",
    "params.lr LIKE 'A%'",
    "params.lr ILIKE 'a%C'",
    'params.lr = "it\'s"',
    "parameters.lr != 'a'",
    "tags.stage IS NULL",
    "tags.stage is not null AND params.model IS NULL",
    "tag.mlflow.note.content != 'b'",
    "tags.\"mlflow.note.content\" = 'b'",
    "status = 'FINISHED'",
    "attributes.status != 'FINISHED'",
    "attr.status ILIKE 'f%'",
    "run.user_id = 'user1'",
    "run_name LIKE 'Run %'",
    "attributes.`Run name` = 'Run a'",
    "attribute.run_name != 'Run a'",
    "start_time > 3000",
    "attributes.created <= 3000 AND end_time > 100",
    "end_time != 0",
    "run_id IN ('x', 'y')",
    "attributes.run_id NOT IN ('x',)",
    "artifact_uri LIKE '%artifacts'",
    "datasets.name = 'a'",
    "dataset.digest LIKE 'd0%'",
    "datasets.context = 'train'",
    "datasets.context != 'train'",
    "datasets.context NOT IN ('eval', 'x')",
    "datasets.name IN ('a', 'b', 'ABC') AND datasets.context = 'eval'",
    "params.lr = 'a' AND ",
]
ORDERS = [
    [],
    ["metrics.acc"],
    ["metrics.acc DESC"],
    ["metric.`a b` asc", "params.lr DESC"],
    ["params.lr", "metrics.acc DESC"],
    ["params.model DESC", "start_time ASC"],
    ["tags.stage desc", "attributes.status"],
    ["end_time"],
    ["end_time DESC", "created ASC"],
    ["attributes.run_name", "run_id"],
    ['metrics."loss.min"', "user_id DESC"],
    ["metrics.loss.min DESC", "metrics.acc ASC", "params.lr"],
    ["metrics.none"],
]


@pytest.mark.parametrize("text", FILTERS)
def test_filters_find_what_mlflow_finds(both: Both, text: str) -> None:
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL):
        assert ours(both, text, [], view) == theirs(both, text, [], view)


@pytest.mark.parametrize("order", ORDERS, ids=", ".join)
def test_orders_are_mlflows(both: Both, order: list[str]) -> None:
    for text in ("", "metrics.acc != 0.5", "params.lr LIKE '%'"):
        assert ours(both, text, order) == theirs(both, text, order)


def quoted(text: str) -> str:
    """``text`` as a filter has it."""
    return f'"{text}"' if "'" in text else f"'{text}'"


literals = st.sampled_from([text for text in TEXTS if text != "\\"]).map(quoted)
numbers = st.sampled_from(("0", "1", "-1", "0.5", ".5", "1e3", "3000"))
signs = st.sampled_from(("=", "!=", "<", "<=", ">", ">="))
matches = st.one_of(
    st.builds("{} {}".format, st.sampled_from(("=", "!=", "LIKE", "ILIKE")), literals),
    st.builds(
        "{} '{}'".format, st.sampled_from(("LIKE", "ilike")), st.sampled_from(("a%", "%C", "_", "%b%", "%", "a__"))
    ),
)
nulls = st.sampled_from(("IS NULL", "IS NOT NULL"))
comparisons = st.one_of(
    st.builds("metrics.`{}` {} {}".format, st.sampled_from(METRICS), signs, numbers),
    st.builds("params.{} {}".format, st.sampled_from(PARAMS), matches | nulls),
    st.builds("tags.`{}` {}".format, st.sampled_from(TAGS), matches | nulls),
    st.builds("{} {}".format, st.sampled_from(("status", "run_name", "attributes.user_id")), matches),
    st.builds("{} {} {}".format, st.sampled_from(("start_time", "attributes.end_time")), signs, numbers),
    st.builds("datasets.{} {}".format, st.sampled_from(("name", "digest", "context")), matches),
)
keys = st.one_of(
    st.sampled_from([f"metrics.`{key}`" for key in METRICS]),
    st.sampled_from([f"params.{key}" for key in PARAMS]),
    st.sampled_from([f"tags.`{key}`" for key in TAGS]),
    st.sampled_from(("start_time", "end_time", "status", "user_id", "run_name")),
)


@given(
    st.lists(comparisons, max_size=4),
    st.lists(
        st.builds("{}{}".format, keys, st.sampled_from(("", " ASC", " DESC"))),
        max_size=3,
        unique_by=lambda k: k.split(" ")[0],
    ),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_questions_get_mlflows_answers(both: Both, parts: list[str], order: list[str]) -> None:
    text = " AND ".join(parts)
    assert ours(both, text, order) == theirs(both, text, order)


def test_pages_are_mlflows(both: Both) -> None:
    order = ["metrics.acc DESC", "params.lr"]
    compiled = compile_search("", order)
    token = None
    while True:
        page = both.store.search_runs(both.experiments, "", ViewType.ACTIVE_ONLY, 7, order, token)
        offset = page_offset(token)
        found = both.ours.search_run_ids(compiled, both.experiments, limit=8, offset=offset)
        assert found[:7] == [run.info.run_id for run in page]
        assert (page_token(offset + 7) if len(found) > 7 else None) == (page.token.decode() if page.token else None)
        token = page.token
        if token is None:
            break


EXPERIMENT_FILTERS = [
    ("", []),
    ("name = 'one'", []),
    ("name ILIKE 't%'", ["name ASC"]),
    ("attribute.name != 'one'", ["experiment_id DESC"]),
    ("tags.team = 'T'", ["name DESC"]),
    ("tag.team != 'T'", ["experiment_id"]),
    ("tags.team IS NULL", ["creation_time"]),
    ("tags.team IS NOT NULL AND name LIKE '%o%'", []),
    ("experiment_id IN ('0', '1')", []),
    ("experiment_id NOT IN ('0')", ["name"]),
    ("experiment_id != '2'", []),
    ("creation_time > 0", ["last_update_time DESC"]),
    ("creation_time <= 5", []),
]


@pytest.mark.parametrize(("text", "order"), EXPERIMENT_FILTERS)
def test_experiments_are_found_as_mlflow_finds_them(both: Both, text: str, order: list[str]) -> None:
    for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL):
        compiled = compile_search(text, order, EXPERIMENTS)
        found = [experiment.experiment_id for experiment in both.ours.search_experiments(compiled, view)]
        expected = both.store.search_experiments(view, 1000, text, order or None)
        assert found == [experiment.experiment_id for experiment in expected]


REFUSED = [
    "metrics.acc > '0'",
    "metrics.acc > abc",
    "metrics.acc LIKE 'a'",
    "metrics.acc == 0",
    "metrics.acc",
    "acc > 0",
    "foo.acc > 0",
    "params.lr > 'a'",
    "params.lr = a",
    "params.lr = `a`",
    "params.lr = 'a' ; tags.stage = 'b'",
    "tags.stage = 5",
    "tags.stage < 'a'",
    "status > 'A'",
    "status = FINISHED",
    "status IS NULL",
    "start_time = 'x'",
    "start_time LIKE 'x'",
    "run_id IN ()",
    "run_id IN (1)",
    "run_id IN 'a'",
    "datasets.foo = 'a'",
    "datasets.name > 'a'",
    "0 < metrics.acc",
    "' OR 1=1--",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_mlflow_refuses_and_gittrack_too(both: Both, text: str) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException):
        theirs(both, text, [])
    with pytest.raises(InvalidValueError):
        ours(both, text, [])


@pytest.mark.parametrize(
    "order",
    [["acc"], ["metrics.acc DSC"], ["metrics.acc, metrics.b"], ["metrics.acc", "metric.acc"], ["datasets.name"]],
)
def test_orders_that_mlflow_refuses_and_gittrack_too(both: Both, order: list[str]) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(MlflowException):
        theirs(both, "", order)
    with pytest.raises(InvalidValueError):
        ours(both, "", order)
