"""MLflow's scoring protocol over HTTP: the forms, the errors, and what is stricter than there."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gittrack._version import __version__
from gittrack.models.signature import ParamSchema, ParamSpec
from tests.serving.conftest import Running, Start, starting
from tests.serving.models import Echo, Fake, Linear, columns, iris_like, tensor

NAMES = ["a", "b", "c", "d"]
ROW = {"a": 1, "b": 2, "c": 3, "d": 4}


@pytest.fixture(params=[True, False], ids=["matrix", "table"], scope="module")
def iris(request: pytest.FixtureRequest) -> Iterator[Running]:
    """The same model, once as one that takes matrices and once as one that takes tables."""
    with starting() as start:
        yield start(iris_like(matrix=request.param))


def split(*rows: Any, names: Any = NAMES) -> dict[str, Any]:
    return {"dataframe_split": {"columns": names, "data": list(rows)}}


GOOD = {
    "split": split([1, 2, 3, 4]),
    "split with index": {"dataframe_split": {"columns": NAMES, "index": [7], "data": [[1, 2, 3, 4]]}},
    "data first": {"dataframe_split": {"data": [[1, 2, 3, 4]], "columns": NAMES}},
    "other order": split([4, 3, 2, 1], names=NAMES[::-1]),
    "extra columns": split([9, 1, 2, 3, 4], names=["x", *NAMES]),
    "records": {"dataframe_records": [ROW]},
    "records in another order": {"dataframe_records": [dict(reversed(ROW.items()))]},
    "records with more": {"dataframe_records": [{**ROW, "x": None}]},
    "inputs of columns": {"inputs": {name: [value] for name, value in ROW.items()}},
    "inputs of one row": {"inputs": ROW},
    "inputs of rows": {"inputs": [ROW]},
    "instances of columns": {"instances": {name: [value] for name, value in ROW.items()}},
    "instances of rows": {"instances": [ROW]},
    "other keys": {**split([1, 2, 3, 4]), "note": "ignored"},
    "params that it has not": {**split([1, 2, 3, 4]), "params": {"x": 1}},
}


@pytest.mark.parametrize("name", GOOD)
def test_every_form_is_the_same_row(iris: Running, name: str) -> None:
    assert iris.post(GOOD[name]).predictions == [4321.0]


def test_csv(iris: Running) -> None:
    assert iris.post(b"d,c,b,a,x\n4,3,2,1,text\n8,7,6,5.5,\n", content_type="text/csv").predictions == [4321.0, 8765.5]
    assert iris.post(b"a,b,c,d\r\n1,2,3,4\r\n", content_type="text/csv; charset=UTF-8").predictions == [4321.0]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ('Application/JSON; Charset="UTF-8"', 200),
        ("application/json; charset=latin-1", 415),
        ("application/json; version=2", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
        (None, 415),
    ],
)
def test_content_types(iris: Running, content_type: str | None, status: int) -> None:
    reply = iris.post(split([1, 2, 3, 4]), content_type=content_type)
    assert reply.status == status
    if status == 415:
        assert reply.headers["content-type"].startswith("text/plain")


BAD: dict[str, tuple[Any, str, str]] = {
    # body, error code, what the message has
    "empty": (b"", "BAD_REQUEST", "not JSON"),
    "no json": (b"{", "BAD_REQUEST", "not JSON"),
    "no UTF-8": (b'{"inputs": "\xff"}', "BAD_REQUEST", "not JSON"),
    "NaN": (b'{"inputs": [NaN]}', "BAD_REQUEST", "not JSON"),
    "too deep": (b'{"inputs": ' + b"[" * 5000, "BAD_REQUEST", "not JSON"),
    "list": ([1], "BAD_REQUEST", "a list"),
    "text": ("a", "BAD_REQUEST", "a single value"),
    "no form": ({}, "BAD_REQUEST", "exactly one of"),
    "two forms": ({"inputs": [], "instances": []}, "BAD_REQUEST", "exactly one of"),
    "key twice": (b'{"inputs": {"a": 1, "a": 2}}', "BAD_REQUEST", "a key twice"),
    "form twice": (b'{"inputs": [1], "inputs": [2]}', "BAD_REQUEST", "a key twice"),
    "column twice": (split([1, 2], names=["a", "a"]), "BAD_REQUEST", "a name twice"),
    "text in a number": (split([1, 2, 3, "4"]), "BAD_REQUEST", "column `d` is of type double and has a text"),
    "truth in a number": (split([1, 2, 3, True]), "BAD_REQUEST", "column `d` is of type double and has true or false"),
    "list in a number": (split([1, 2, 3, [4]]), "BAD_REQUEST", "column `d` is of type double and has a list"),
    "rows differ": (split([1, 2, 3, 4], [1]), "BAD_REQUEST", "the same length"),
    "rows are too short": (split([1, 2, 3]), "BAD_REQUEST", "as long as `columns`"),
    "rows are values": (split(1), "BAD_REQUEST", "must be lists"),
    "split is a list": ({"dataframe_split": []}, "BAD_REQUEST", "`dataframe_split` must be"),
    "split without data": ({"dataframe_split": {"columns": []}}, "BAD_REQUEST", "`dataframe_split` has"),
    "split with more": ({"dataframe_split": {"data": [], "x": 1}}, "BAD_REQUEST", "`dataframe_split` has"),
    "index is too short": (
        {"dataframe_split": {"columns": NAMES, "index": [], "data": [[1, 2, 3, 4]]}},
        "BAD_REQUEST",
        "not as long",
    ),
    "records are an object": ({"dataframe_records": {}}, "BAD_REQUEST", "a list of objects"),
    "records are lists": ({"dataframe_records": [[1, 2, 3, 4]]}, "BAD_REQUEST", "a list of objects"),
    "columns differ": ({"inputs": {"a": [1], "b": [1, 2], "c": [1], "d": [1]}}, "BAD_REQUEST", "differ in length"),
    "params are a list": ({**split([1, 2, 3, 4]), "params": [1]}, "BAD_REQUEST", "`params` must be an object"),
    "missing column": (split([1, 2, 3], names=NAMES[:3]), "INVALID_PARAMETER_VALUE", "the input misses `d`"),
    "no names": ({"dataframe_split": {"data": [[1, 2, 3, 4]]}}, "INVALID_PARAMETER_VALUE", "misses `a`, `b`, `c`, `d`"),
    "list of lists": ({"inputs": [[1, 2, 3, 4]]}, "INVALID_PARAMETER_VALUE", "no names of columns"),
    "the model refuses": (split([1, 2, 3, None]), "BAD_REQUEST", "the model failed on this input"),
    "a value is missing": ({"dataframe_records": [ROW, {"a": 1}]}, "BAD_REQUEST", "the model failed on this input"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said(iris: Running, name: str) -> None:
    body, code, message = BAD[name]
    reply = iris.post(body)
    assert reply.status == 400
    assert reply.headers["content-type"] == "application/json"
    found = reply.json
    assert found["error_code"] == code
    assert message in found["message"]
    assert ("error_class" in found) == (code == "INVALID_PARAMETER_VALUE")
    if code == "INVALID_PARAMETER_VALUE":
        assert (found["error_class"], found["sqlstate"]) == ("SCHEMA_ENFORCEMENT_FAILED", "KAM01")


def test_errors_show_no_path_no_trace_and_no_data(iris: Running) -> None:
    for body in (split([1, 2, 3, None]), split([1, 2, 3, "secret-4711"]), b'{"secret-4711": '):
        reply = iris.post(body)
        assert reply.status == 400
        assert set(reply.json) <= {"error_code", "message", "sqlstate", "error_class"}
        for hidden in (b"Traceback", b"/", b".py", b"secret", b"NaN", b"1."):
            assert hidden not in reply.body.replace(b"`/", b"")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"a,b,c,d\n1,2\n", 400),
        (b"a,b,c\n1,2,3\n", 400),
        (b"a,b,c,d\n1,2,3,x\n", 400),
        (b"a,b,c,d\n1,2,3,\n", 400),
        (b'a,b,c,d\n1,2,3,"4\n', 400),
        (b"\xff", 400),
    ],
)
def test_bad_csv(iris: Running, body: bytes, status: int) -> None:
    assert iris.post(body, content_type="text/csv").status == status


def test_no_rows_is_for_the_model_to_answer(iris: Running) -> None:
    assert iris.post(split()).predictions == []


def test_pages(iris: Running) -> None:
    for path in ("/ping", "/health"):
        assert (iris.get(path).status, iris.get(path).body) == (200, b"\n")
        assert iris.ask("HEAD", path).status == 200
    assert iris.get("/version").body.decode() == __version__
    assert iris.get("/nothing").json["error_code"] == "ENDPOINT_NOT_FOUND"
    assert iris.get("/nothing").status == 404
    assert iris.get("/ping/").status == 404
    assert iris.get("/invocations").status == 405
    assert iris.ask("DELETE", "/ping").status == 405
    assert iris.post({}, path="//invocations").status == 404


# --- types


@pytest.mark.parametrize("matrix", [True, False])
@pytest.mark.parametrize(
    ("kinds", "row", "found"),
    [
        (("long", "double"), [1, 0.5], 6.0),
        (("long", "double"), [1.0, 1], 11.0),
        (("integer", "integer"), [1, 2], 21.0),
        (("long", "long"), [2**53 + 1, 0], float(2**53 + 1)),
        (("float", "double"), [0.1, 0], float(np.float32(0.1))),
        (("float", "float"), [0.5, 0], 0.5),
        (("boolean", "double"), [True, 0.5], 6.0),
        (("boolean", "boolean"), [True, False], 1.0),
        (("boolean", "long"), [1, 0], 1.0),
    ],
)
def test_numbers_of_every_type(
    start: Start, matrix: bool, kinds: tuple[str, ...], row: list[Any], found: float
) -> None:
    running = start(Fake(Linear(), columns(*kinds), matrix=matrix))
    for body in (split(row, names=["a", "b"]), {"dataframe_records": [dict(zip("ab", row, strict=True))]}):
        assert running.post(body).predictions == [found]


@pytest.mark.parametrize("matrix", [True, False])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("long", 1.5),
        ("long", None),
        ("long", 2**63),
        ("long", 1e300),
        ("integer", 2**31),
        ("integer", "1"),
        ("integer", True),
        ("boolean", 2),
        ("boolean", 0.5),
        ("boolean", "true"),
        ("boolean", None),
        ("float", "1"),
        ("float", 1e39),
        ("double", {}),
    ],
)
def test_what_would_change_a_value_is_refused(start: Start, matrix: bool, kind: str, value: Any) -> None:
    running = start(Fake(Linear(), columns(kind, "double"), matrix=matrix))
    for row in ([value, 1.0], [value, 1]):
        reply = running.post(split(row, names=["a", "b"]))
        assert reply.status == 400, reply.body
        assert "column `a`" in reply.json["message"]


def test_columns_without_names(start: Start) -> None:
    running = start(Fake(Linear(), columns("double", "double", names=None)))
    assert running.post({"inputs": [[1, 2], [3, 4]]}).predictions == [21.0, 43.0]
    assert running.post({"instances": [[1, 2, 9]]}).predictions == [21.0]  # by position; what is too much is ignored
    assert running.post(split([1, 2], names=["x", "y"])).predictions == [21.0]
    assert running.post({"dataframe_split": {"data": [[1, 2]]}}).predictions == [21.0]
    assert "takes 2 columns, the input has 1" in running.post({"inputs": [[1]]}).json["message"]


def test_one_column_takes_a_list(start: Start) -> None:
    running = start(Fake(Linear(), columns("double")))
    assert running.post({"inputs": [1, 2]}).predictions == [1.0, 2.0]
    assert running.post({"instances": 3}).predictions == [3.0]
    assert running.post({"inputs": [[1, 2]]}).status == 400


def test_an_optional_column_may_be_left_out(start: Start) -> None:
    model = Fake(Echo(), columns("double", "double", optional=["b"]))
    running = start(model)
    assert running.post(split([1.0], names=["a"])).predictions == [{"a": 1.0}]
    assert running.post(split([1.0, 2.0], names=["a", "b"])).predictions == [[1.0, 2.0]]


def test_other_types_go_through_pandas(start: Start) -> None:
    kinds = ("string", "long", "datetime", "binary")
    model = Fake(Echo(), columns(*kinds), matrix=False)
    running = start(model)
    reply = running.post(split(["x", 1, "2026-01-31T12:00:00", "aGk="], [None, 2, None, None]))
    first = reply.predictions[0]
    assert first == {"a": "x", "b": 1, "c": "2026-01-31T12:00:00", "d": "aGk=\n"}
    assert model.predictor.seen["b"].dtype == np.int64
    assert model.predictor.seen["c"].dtype.kind == "M"
    assert model.predictor.seen["d"].iloc[0] == b"hi"
    assert running.post(b"a,b,c,d\nx,1,2026-01-31,aGk=\n", content_type="text/csv").status == 200
    for row in ([1, 1, None, None], ["x", "y", None, None], ["x", 1, "no date", None], ["x", 1, None, "no base64!"]):
        assert running.post(split(row)).json["error_code"] == "BAD_REQUEST"


def test_tensors(start: Start) -> None:
    running = start(Fake(Echo(), tensor("float32", -1, 2)))
    assert running.post({"inputs": [[1, 2.5]]}).predictions == [[1.0, 2.5]]
    assert running.post({"instances": [[1, None]]}).predictions == [[1.0, None]]
    assert running.post(split([1, 2], names=["x", "y"])).predictions == [[1.0, 2.0]]
    assert running.post({"inputs": [[1, 2, 3]]}).json["error_class"] == "SCHEMA_ENFORCEMENT_FAILED"
    for bad in ([[1, "2"]], [[1, True]], [[1, 2], [3]], {"x": [[1, 2]]}, [[1, {}]]):
        assert running.post({"inputs": bad}).status == 400
    named = start(Fake(Echo(), tensor("int64", -1, 2, name="x")))
    assert named.post({"inputs": {"x": [[1, 2]]}}).predictions == {"x": [[1, 2]]}
    assert named.post({"instances": [{"x": [1, 2]}]}).predictions == {"x": [[1, 2]]}
    assert named.post({"inputs": {"y": [[1, 2]]}}).status == 400
    assert named.post({"inputs": {"x": [[1, 2.5]]}}).status == 400


def test_without_a_signature(start: Start) -> None:
    model = Fake(Echo(), matrix=False)
    running = start(model)
    assert running.post({"inputs": [1, 2]}).predictions == [1, 2]
    assert running.post(split([1, "x"], names=["p", "q"])).predictions == [{"p": 1, "q": "x"}]
    assert running.post({"instances": [{"p": 1}, {"p": 2}]}).predictions == {"p": [1, 2]}
    assert running.post(b"p,q\n1,x\n", content_type="text/csv").predictions == [{"p": 1, "q": "x"}]


def test_params(start: Start) -> None:
    params = ParamSchema([ParamSpec("depth", "long", 3), ParamSpec("name", "string", "x")])
    running = start(Fake(Echo(), columns("double"), params=params))
    body = split([1.0], names=["a"])
    assert running.post(body).predictions == {"data": [[1.0]], "params": {"depth": 3, "name": "x"}}
    reply = running.post({**body, "params": {"depth": 5, "unknown": 1}})
    assert reply.predictions["params"] == {"depth": 5, "name": "x"}
    assert running.post({**body, "params": {"depth": "five"}}).json["error_class"] == "SCHEMA_ENFORCEMENT_FAILED"


def test_chat_is_passed_on_as_it_is(start: Start) -> None:
    params = ParamSchema([ParamSpec("temperature", "double", 0.5)])
    model = Fake(Echo(), None, matrix=False, params=params)
    running = start(model)
    reply = running.post({"messages": [{"role": "user", "content": "hi"}], "temperature": 1.0})
    assert reply.json == {
        "data": {"messages": [{"role": "user", "content": "hi"}]},
        "params": {"temperature": 1.0},
    }


def test_a_signature_from_type_hints_takes_inputs_as_they_are(start: Start) -> None:
    running = start(Fake(Echo(), columns("string"), matrix=False, from_type_hints=True))
    assert running.post({"inputs": [{"a": "x"}]}).predictions == [{"a": "x"}]
    assert running.post({"instances": [1]}).status == 400


# --- answers


class Answers:
    def __init__(self, value: Any) -> None:
        self.value = value

    def predict(self, data: Any, params: Any = None) -> Any:
        return self.value


def test_predictions_of_every_kind(start: Start) -> None:
    pd = pytest.importorskip("pandas")
    cases: list[tuple[Any, Any]] = [
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([0.1], dtype=np.float32), [float(np.float32(0.1))]),
        (np.array([[1, 2, 3], [4, 5, 6]])[:, ::2], [[1, 3], [4, 6]]),
        (np.array(["x", "y"]), ["x", "y"]),
        (np.array([float("nan"), 1.0]), [None, 1.0]),
        (np.array([{"a": np.int64(1)}, None], dtype=object), [{"a": 1}, None]),
        (np.float64(1.5), 1.5),
        (pd.DataFrame({"p": [1, 2], "q": ["x", None]}), [{"p": 1, "q": "x"}, {"p": 2, "q": None}]),
        (pd.Series([1, 2], name="p"), [{"p": 1}, {"p": 2}]),
        ([pd.Timestamp("2026-01-31")], ["2026-01-31T00:00:00"]),
        ({"p": np.array([1])}, {"p": [1]}),
        (b"hi", "aGk=\n"),
    ]
    for value, found in cases:
        assert start(Fake(Answers(value), columns("double"), matrix=False)).post({"inputs": [1]}).predictions == found


def test_what_json_cannot_carry_is_the_servers_fault(start: Start) -> None:
    for value in (object(), {1j}, np.array([1j])):
        reply = start(Fake(Answers(value), columns("double"), matrix=False)).post({"inputs": [1]})
        assert (reply.status, reply.json["error_code"]) == (500, "DATA_LOSS")


def test_the_page_is_static_and_escapes_the_model(start: Start) -> None:
    hostile = "<script>alert(1)</script>'"
    running = start(Fake(Linear(), columns("double", names=[hostile])))
    page = running.get("/docs")
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert b"<script" not in page.body
    assert b"&lt;script&gt;" in page.body
    document = json.loads(running.get("/openapi.json").body)
    assert document["openapi"].startswith("3.1")
    served = {path for path in document["paths"] if "{" not in path}
    for path in served - {"/invocations"}:
        assert running.get(path).status == 200
    row = document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert running.post(row).status == 200
