"""What a request says: MLflow's rules for JSON, and what is wrong said in MLflow's words."""

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gittrack.errors import InvalidValueError
from gittrack.server.hub.messages import (
    Message,
    boolean,
    double,
    integer,
    message,
    messages,
    number,
    of_body,
    of_query,
    one_of,
    text,
    texts,
)

pytestmark = pytest.mark.any_backend  # it starts no server
POINT = Message(key=text(required=True), value=double(required=True), step=integer())
SCHEMA = Message(
    run_id=text(required=True, alias="run_uuid"),
    size=integer(most=10),
    view=one_of({"ALL": 3}),
    flag=boolean(),
    names=texts(),
    point=message(POINT),
    points=messages(POINT),
)


@pytest.mark.parametrize(
    ("found", "values"),
    [
        ({"run_id": "a"}, {}),
        ({"run_uuid": "a"}, {}),
        ({"run_id": "a", "nobody": {"knows": 1}}, {}),
        ({"run_id": "a", "size": None, "view": None}, {}),
        ({"run_id": "a", "size": "7"}, {"size": 7}),
        ({"run_id": "a", "size": 7.0}, {"size": 7}),
        ({"run_id": "a", "view": "ALL"}, {"view": 3}),
        ({"run_id": "a", "view": 3}, {"view": 3}),
        ({"run_id": "a", "view": "OTHER"}, {}),
        ({"run_id": "a", "view": 9}, {}),
        ({"run_id": "a", "flag": False}, {"flag": False}),
        ({"run_id": "a", "names": []}, {"names": []}),
        ({"run_id": "a", "point": {"key": "k", "value": "1e3"}}, {"point": {"key": "k", "value": 1000.0}}),
        ({"run_id": "a", "points": [{"key": "k", "value": 1}]}, {"points": [{"key": "k", "value": 1.0}]}),
        (
            {"run_id": "a", "points": [{"key": "k", "value": "-Infinity"}]},
            {"points": [{"key": "k", "value": -math.inf}]},
        ),
    ],
)
def test_values_are_read_as_protocol_buffers_read_them(found: dict[str, Any], values: dict[str, Any]) -> None:
    assert SCHEMA.values(found) == {"run_id": "a", **values}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "Missing value for required parameter 'run_id'."),
        ({"run_id": ""}, "Missing value for required parameter 'run_id'."),
        ({"run_id": 31}, "Invalid value 31 for parameter 'run_id' supplied"),
        ({"run_id": "a", "size": "x"}, "Invalid value \"x\" for parameter 'size' supplied"),
        ({"run_id": "a", "size": 1.5}, "Invalid value 1.5 for parameter 'size' supplied"),
        ({"run_id": "a", "size": True}, "Invalid value true for parameter 'size' supplied"),
        ({"run_id": "a", "size": 11}, "Invalid value 11 for parameter 'size' supplied"),
        ({"run_id": "a", "size": 1 << 63}, "for parameter 'size' supplied"),
        ({"run_id": "a", "names": "x"}, "Invalid value \"x\" for parameter 'names' supplied"),
        ({"run_id": "a", "names": [1]}, "Invalid value [1] for parameter 'names' supplied"),
        ({"run_id": "a", "flag": "yes"}, "for parameter 'flag' supplied"),
        ({"run_id": "a", "point": []}, "for parameter 'point' supplied"),
        ({"run_id": "a", "points": [1]}, "for parameter 'points' supplied"),
        ({"run_id": "a", "points": [{"key": "k"}]}, "Missing value for required parameter 'points[0].value'"),
        ({"run_id": "a", "names": "y" * 5000}, "for parameter 'names' supplied"),
    ],
)
def test_what_is_wrong_is_said_as_mlflow_says_it(found: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        SCHEMA.values(found)
    assert said in caught.value.message
    assert len(caught.value.message) < 600


@pytest.mark.parametrize("body", [b"{", b"[]", b"7", b'"x"', b"[" * 100_000, b"\xff", b'"{"'])
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidValueError):
        of_body(body)


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'"{}"'])
def test_an_empty_body_says_nothing(body: bytes) -> None:
    assert of_body(body) == {}


def test_a_body_may_be_json_in_a_text() -> None:
    assert of_body(b'"{\\"a\\": 1}"') == {"a": 1}


def test_a_query_repeats_the_names_of_lists() -> None:
    found = of_query([("run_id", "a"), ("names", "x"), ("names", "y"), ("size", "3"), ("flag", "true")], SCHEMA)
    assert SCHEMA.values(found) == {"run_id": "a", "names": ["x", "y"], "size": 3, "flag": True}


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(), st.lists, max_leaves=5))
def test_no_value_does_more_than_be_refused(value: Any) -> None:
    for name in SCHEMA.fields:
        try:
            SCHEMA.values({"run_id": "a", name: value})
        except InvalidValueError as error:
            assert name in error.message  # noqa: PT017 - any value may be right


def test_numbers_that_json_does_not_have() -> None:
    assert number(1.5) == 1.5
    assert number(math.nan) == "NaN"
    assert number(math.inf) == 1.7976931348623157e308
    assert number(-math.inf) == -1.7976931348623157e308
