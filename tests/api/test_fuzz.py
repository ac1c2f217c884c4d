"""Any value at all to every call that records: taken and read back, or refused with nothing written."""

from __future__ import annotations

import math
import warnings
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import gittrack
from gittrack import stores
from gittrack.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from gittrack.errors import GittrackError
from gittrack.store import seal
from gittrack.store.check import fsck


class Unprintable:
    """A value that says nothing about itself."""

    def __str__(self) -> str:
        raise ValueError("no text")

    def __repr__(self) -> str:
        return "Unprintable()"


class Text(str):
    """A text of a class of its own."""

    __slots__ = ()


NUMBERS = st.one_of(
    st.sampled_from([0, -1, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**400, True, 1.5, -0.0, Decimal("0.1")]),
    st.sampled_from(
        [math.nan, math.inf, -math.inf, np.float32(1), np.int64(-5), np.uint64(2**64 - 1), np.array([1.0])]
    ),
    st.integers(),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(["", "a", "a/b", "../a", ".git", "x" * 251, "\0", "\ud800", "ü\u202e", "loss", "mlflow.runName"]),
    st.sampled_from(["FINISHED", "RUNNING", "0", "1", "-1", "nan", "x" * 9000, Text("own"), np.str_("numpy's")]),
    st.text(max_size=20),
)
#: What is true or false, as every argument that may be left out must be: an array is neither.
SCALARS: st.SearchStrategy[Any] = st.one_of(
    NUMBERS,
    TEXTS,
    st.sampled_from([None, b"bytes", Unprintable(), object, [1], {"a": 1}, (), {1: {2: 3}}, Path("p")]),
)
ANYTHING = SCALARS | st.just(np.zeros((2, 2)))
KEYS = st.one_of(TEXTS, st.sampled_from(["k1", "k2"]), ANYTHING.filter(lambda value: value.__hash__ is not None))
#: What each call gets, in order.
CALLS: dict[str, tuple[Any, ...]] = {
    "log_metric": (KEYS, NUMBERS | ANYTHING, NUMBERS | ANYTHING, NUMBERS | ANYTHING),
    "log_batch": (KEYS, ANYTHING, NUMBERS, NUMBERS),
    "log_linked": (KEYS, NUMBERS, ANYTHING, ANYTHING, ANYTHING),
    "log_params": (KEYS, ANYTHING),
    "log_param_of_an_entity": (KEYS, ANYTHING),
    "set_tags": (KEYS, ANYTHING),
    "set_tag_of_an_entity": (KEYS, ANYTHING),
    "delete_tag": (KEYS,),
    "log_input": (ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING, ANYTHING),
    "log_input_tags": (ANYTHING, ANYTHING),
    "log_model_input": (ANYTHING,),
    "log_outputs": (ANYTHING, NUMBERS | ANYTHING),
    "create_run": (SCALARS, NUMBERS | ANYTHING, KEYS, ANYTHING, SCALARS),
    "update_run": (SCALARS, SCALARS),
    "set_terminated": (SCALARS, NUMBERS | ANYTHING),
    "create_experiment": (TEXTS | ANYTHING, TEXTS | ANYTHING, KEYS, ANYTHING),
    "rename_experiment": (TEXTS | ANYTHING,),
    "set_experiment_tag": (KEYS, ANYTHING),
    "log_text": (TEXTS, TEXTS | ANYTHING),
    "log_dict": (ANYTHING, TEXTS | ANYTHING),
    "log_table": (ANYTHING, st.just("t.json")),
    "start_run": (SCALARS, SCALARS, SCALARS, KEYS, ANYTHING, SCALARS),
    "search_runs": (SCALARS, SCALARS, SCALARS, SCALARS, SCALARS, SCALARS),
    "search_experiments": (SCALARS, SCALARS, SCALARS, SCALARS, SCALARS),
    "read": (SCALARS, SCALARS),
}


def perform(call: str, run: str, experiment: str, given_values: tuple[Any, ...]) -> None:
    """Make one of the calls."""
    client = gittrack.Client()
    values: list[Any] = [*given_values, *[None] * (6 - len(given_values))]
    a, b, c, d, e, f = values
    calls: dict[str, Any] = {
        "log_metric": lambda: client.log_metric(run, a, b, d, c),
        "log_batch": lambda: client.log_batch(run, [Metric("good", 1.0, 0), Metric(a, b, c, d)]),
        "log_linked": lambda: client.log_metric(run, a, b, dataset_name=c, dataset_digest=d, model_id=e),
        "log_params": lambda: gittrack.log_params({"good": 1, a: b}, run_id=run),
        "log_param_of_an_entity": lambda: client.log_batch(run, params=[Param(a, b)]),
        "set_tags": lambda: client.set_tag(run, a, b),
        "set_tag_of_an_entity": lambda: client.log_batch(run, tags=[RunTag(a, b)]),
        "delete_tag": lambda: client.delete_tag(run, a),
        "log_input": lambda: client.log_inputs(run, [DatasetInput(Dataset(a, b, c, d, e, f))]),
        "log_input_tags": lambda: client.log_inputs(
            run, [DatasetInput(Dataset("d", "1", "local", "{}"), [InputTag(a, b)])]
        ),
        "log_model_input": lambda: client.log_inputs(run, models=[LoggedModelInput(a)]),
        "log_outputs": lambda: client.log_outputs(run, [LoggedModelOutput(a, b)]),
        "create_run": lambda: client.create_run(a, b, {c: d}, e),
        "update_run": lambda: client.update_run(run, a, b),
        "set_terminated": lambda: client.set_terminated(run, a, b),
        "create_experiment": lambda: client.create_experiment(a, b, {c: d}),
        "rename_experiment": lambda: client.rename_experiment(experiment, a),
        "set_experiment_tag": lambda: client.set_experiment_tag(experiment, a, b),
        "log_text": lambda: client.log_text(run, a, b),
        "log_dict": lambda: client.log_dict(run, a, b),
        "log_table": lambda: client.log_table(run, a, b),
        "start_run": lambda: gittrack.start_run(a, b, c, tags={d: e}, description=f),
        "search_runs": lambda: client.search_runs(a, b, c, d, e, f),
        "search_experiments": lambda: client.search_experiments(a, b, c, d, e),
        "read": lambda: (client.get_run(a), client.get_metric_history(run, b), client.list_artifacts(a, b)),
    }
    calls[call]()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(CALLS)).flatmap(lambda call: st.tuples(st.just(call), st.tuples(*CALLS[call]))))
def test_any_value_is_taken_or_refused(store: tuple[str, str], call: tuple[str, tuple[Any, ...]]) -> None:
    run, experiment = store
    client = gittrack.Client()
    before = client.get_run(run)
    said = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy, about numbers beyond its range
            perform(call[0], run, experiment, call[1])
    except GittrackError as error:
        said = error.message
        after = client.get_run(run)  # commit, code and environment may have come meanwhile
        assert repr((after.info, after.data, after.inputs)) == repr((before.info, before.data, before.inputs))
    assert "\n" not in said
    while gittrack.active_run():
        gittrack.end_run()
    # Whatever was taken, everything can be read.
    assert client.get_run(run).info.run_id == run
    assert client.search_runs([experiment], run_view_type=ViewType.ALL)


@pytest.fixture
def store(project: Path) -> Any:
    """A run that goes on, and its experiment; at the end everything is committed and checked."""
    experiment = gittrack.create_experiment("fuzzed")
    run = gittrack.Client().create_run(experiment)
    yield run.info.run_id, experiment
    client = gittrack.Client()
    for one in client.search_runs([experiment, "0"], run_view_type=ViewType.ALL):
        if one.info.status != "FINISHED":
            client.set_terminated(one.info.run_id)
    gittrack.flush_async_logging()
    seal.seal(stores.tracker().repo)  # on a busy machine the background leaves some; and what stops it is raised here
    assert client.get_run(run.info.run_id).commit is not None
    assert fsck(stores.tracker().repo, full=True) == []
    assert not list((project / ".gittrack").glob("lost/*"))
