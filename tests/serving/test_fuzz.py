"""No body whatever makes the server fail: every answer has one of the documented statuses, and 500 is not for input."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from gittrack.errors import GittrackError
from gittrack.models.inference import Inference, answer
from gittrack.models.scoring import FORMS, JSON, Scorer, dump
from gittrack.models.signature import ParamSchema, ParamSpec
from tests.serving.conftest import Running, starting
from tests.serving.models import Echo, Fake, Linear, columns, iris_like, tensor

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
KINDS = ("string", "long", "datetime", "binary")
MODELS = {
    "matrix": iris_like(),
    "table": iris_like(matrix=False),
    "whole numbers": Fake(Linear(), columns("long", "integer", "boolean", "float")),
    "unnamed": Fake(Linear(), columns("double", "double", names=None)),
    "one column": Fake(Linear(), columns("double")),
    "optional": Fake(Echo(), columns("double", "double", optional=["b"])),
    "texts": Fake(Echo(), columns(*KINDS), matrix=False),
    "tensor": Fake(Echo(), tensor("float32", -1, 2)),
    "named tensor": Fake(Echo(), tensor("int64", -1, name="a")),
    "nothing": Fake(Echo(), matrix=False),
    "params": Fake(Echo(), columns("double"), params=ParamSchema([ParamSpec("p", "long", 1)])),
}
SCORERS = {name: Scorer(model) for name, model in MODELS.items()}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 1e308, -0.0, 0.1]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "1", "NaN", "2026-01-31", "aGk=", "\u0000", "é:é", "\ud7ff", '"']),
)
names = st.sampled_from(["a", "b", "c", "d", "x", "", "data", "columns", "index", ":", "messages"])
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
rows = st.lists(st.lists(scalars, min_size=4, max_size=4), max_size=3)
tables = st.fixed_dictionaries(
    {"data": st.one_of(rows, values)},
    optional={"columns": st.one_of(st.just(list("abcd")), st.lists(names, max_size=5), values), "index": values},
)
forms = st.one_of(
    st.fixed_dictionaries({"dataframe_split": st.one_of(tables, values)}, optional={"params": values}),
    st.fixed_dictionaries(
        {"dataframe_records": st.one_of(st.lists(st.dictionaries(names, scalars), max_size=3), values)}
    ),
    st.dictionaries(st.sampled_from([*FORMS, "params", "x", "prompt"]), values, max_size=2),
)
bodies = st.one_of(forms.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60))
requests = st.fixed_dictionaries(
    {
        "inputs": st.one_of(
            values,
            st.lists(
                st.fixed_dictionaries(
                    {
                        "name": names,
                        "shape": st.one_of(st.lists(st.integers(-1, 4), max_size=3), values),
                        "datatype": st.one_of(st.sampled_from(["FP64", "FP32", "INT64", "BOOL", "BYTES", "X"]), values),
                        "data": st.one_of(rows, values),
                    }
                ),
                max_size=4,
            ),
        )
    },
    optional={"id": values, "outputs": values, "parameters": values},
)
texts = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(["a,b,c,d", "1,2,3,4", "1,2", '"', "\0", ",,,", "x,1,2026-01-31,aGk=", "1e999,0,0,0"])
    ).map("\n".join),
)


def check(error: GittrackError) -> None:
    assert error.http_status in (400, 415), repr(error)
    assert "\n" not in error.message
    assert len(error.message) < 2000


@pytest.mark.parametrize("name", SCORERS)
@settings(max_examples=150 if FULL else 50, suppress_health_check=[HealthCheck.too_slow])
@given(body=bodies)
@example(body=b'{"dataframe_split": {"columns": ["a"], "data": [[1], [1, 2]]}}')
@example(body=b'{"dataframe_split": {"columns": [], "data": [[]]}}')
@example(body=b'{"inputs": {}}')
@example(body=b'{"inputs": []}')
@example(body=b'{"inputs": [[1e100, 1]]}')
def test_scoring(name: str, body: bytes) -> None:
    scorer = SCORERS[name]
    try:
        request = scorer.read(body, JSON)
        scorer.write(scorer.predict(request), unwrapped=request.unwrapped)
    except GittrackError as error:
        check(error)


@pytest.mark.parametrize("name", SCORERS)
@settings(max_examples=60 if FULL else 30, suppress_health_check=[HealthCheck.too_slow])
@given(text=texts)
def test_csv(name: str, text: str) -> None:
    scorer = SCORERS[name]
    try:
        scorer.write(scorer.predict(scorer.read(text.encode("utf-8", "surrogatepass"), "text/csv")))
    except GittrackError as error:
        check(error)


@pytest.mark.parametrize("name", SCORERS)
@settings(max_examples=100 if FULL else 40, suppress_health_check=[HealthCheck.too_slow])
@given(request=requests)
@example(request={"inputs": [{"name": "a", "shape": [0], "datatype": "FP64", "data": []}]})
@example(request={"inputs": [{"name": "x", "shape": [0, 4], "datatype": "FP64", "data": []}]})
@example(request={"inputs": [{"name": "x", "shape": [], "datatype": "FP64", "data": [1]}]})
def test_inference(name: str, request: dict[str, Any]) -> None:
    scorer = SCORERS[name]
    try:
        asked = Inference(scorer, json.dumps(request).encode())
        dump(answer(asked, scorer.predict(asked.request), None, "m", None))
    except GittrackError as error:
        check(error)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with starting() as start:
        yield start(iris_like())


@settings(max_examples=100 if FULL else 40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=bodies,
    content_type=st.one_of(st.just(JSON), st.text(st.characters(codec="latin-1", exclude_categories=["C"]))),
)
def test_over_http(running: Running, body: bytes, content_type: str) -> None:
    assert running.post(body, content_type=content_type).status in (200, 400, 415)
