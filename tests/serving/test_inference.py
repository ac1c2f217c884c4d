"""The Open Inference Protocol: https://github.com/kserve/open-inference-protocol, version 2, JSON."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gittrack._version import __version__
from gittrack.data.schema import ColSpec, Schema, TensorSpec
from gittrack.models.signature import ParamSchema, ParamSpec
from tests.serving.conftest import Given, Running, Start, starting
from tests.serving.models import Echo, Fake, Linear, columns, iris_like, tensor

PATHS = ("/v2/models/iris", "/v2/models/iris/versions/3")


def one(name: str, shape: list[int], datatype: str, data: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data, **more}


MATRIX = one("x", [2, 4], "FP64", [1, 2, 3, 4, 5, 6, 7, 8.5])


@pytest.fixture(params=[True, False], ids=["matrix", "table"], scope="module")
def iris(request: pytest.FixtureRequest) -> Iterator[Running]:
    with starting() as start:
        yield start(iris_like(matrix=request.param, outputs=Schema([ColSpec("double", "sum")])))


def infer(running: Running, *inputs: Any, path: str = PATHS[0], **more: Any) -> Any:
    return running.post({"inputs": list(inputs), **more}, path=f"{path}/infer")


def test_server(iris: Running) -> None:
    assert iris.get("/v2").json == {"name": "gittrack", "version": __version__, "extensions": []}
    assert iris.get("/v2/health/live").json == {"live": True}
    assert iris.get("/v2/health/ready").json["live"] is True


@pytest.mark.parametrize("path", PATHS)
def test_model(iris: Running, path: str) -> None:
    assert iris.get(f"{path}/ready").json == {"name": "iris", "ready": True}
    assert iris.get(path).json == {
        "name": "iris",
        "versions": ["3"],
        "platform": "gittrack_sklearn",
        "inputs": [{"name": name, "datatype": "FP64", "shape": [-1]} for name in "abcd"],
        "outputs": [{"name": "sum", "datatype": "FP64", "shape": [-1]}],
    }


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/iris/versions/4"])
def test_another_model_or_version_is_not_there(iris: Running, path: str) -> None:
    for reply in (iris.get(path), iris.get(f"{path}/ready"), infer(iris, MATRIX, path=path)):
        assert reply.status == 404
        assert "/v2/models/iris/versions/3" in reply.json["error"]


@pytest.mark.parametrize("path", PATHS)
def test_one_tensor_of_all_columns(iris: Running, path: str) -> None:
    reply = infer(iris, MATRIX, path=path, id="42")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {
        "model_name": "iris",
        "model_version": "3",
        "id": "42",
        "outputs": [{"name": "sum", "datatype": "FP64", "shape": [2], "data": [4321.0, 9265.0]}],
    }


def test_nested_data_is_the_same_as_flat(iris: Running) -> None:
    nested = one("x", [2, 4], "FP64", [[1, 2, 3, 4], [5, 6, 7, 8.5]])
    assert infer(iris, nested).json == infer(iris, MATRIX).json
    assert "id" not in infer(iris, nested).json


def test_a_tensor_for_each_column(iris: Running) -> None:
    given = [one(name, [2, 1], "FP32", [[at], [at + 4]]) for at, name in enumerate("abcd", 1)]
    for inputs in (given, given[::-1]):
        assert infer(iris, *inputs).json["outputs"][0]["data"] == [4321.0, 8765.0]


def test_outputs_that_are_wanted(iris: Running) -> None:
    assert len(infer(iris, MATRIX, outputs=[{"name": "sum", "parameters": {}}]).json["outputs"]) == 1
    reply = infer(iris, MATRIX, outputs=[{"name": "other"}])
    assert (reply.status, "`sum`" in reply.json["error"]) == (400, True)


BAD: dict[str, Any] = {
    "no inputs": [],
    "no objects": [1],
    "no name": [{**MATRIX, "name": None}],
    "no shape": [{**MATRIX, "shape": None}],
    "shape of truths": [{**MATRIX, "shape": [True, 8]}],
    "negative shape": [{**MATRIX, "shape": [-2, -4]}],
    "too many values": [{**MATRIX, "shape": [1, 4]}],
    "huge shape": [{**MATRIX, "shape": [2**62, 2**62]}],
    "other width": [{**MATRIX, "shape": [4, 2]}],
    "unknown type": [{**MATRIX, "datatype": "FP128"}],
    "list as type": [{**MATRIX, "datatype": ["FP64"]}],
    "texts for numbers": [{**MATRIX, "datatype": "BYTES"}],
    "truths for numbers": [{**MATRIX, "datatype": "BOOL"}],
    "texts in numbers": [{**MATRIX, "data": ["1"] * 8}],
    "lists and values": [{**MATRIX, "data": [[1, 2, 3, 4], 5, 6, 7, 8]}],
    "values and lists": [{**MATRIX, "data": [1, 2, 3, 4, [5, 6, 7, 8]]}],
    "the same twice": [MATRIX, MATRIX],
    "a column is missing": [one("a", [1], "FP64", [1]), one("b", [1], "FP64", [1])],
    "columns differ": [one(name, [at], "FP64", [1] * at) for at, name in enumerate("abcd", 1)],
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests(iris: Running, name: str) -> None:
    reply = infer(iris, *BAD[name])
    assert reply.status == 400
    assert list(reply.json) == ["error"]


@pytest.mark.parametrize("body", [b"{", b"[]", {"inputs": {}}, {"inputs": [MATRIX], "id": 1}, {"input": [MATRIX]}])
def test_bad_bodies(iris: Running, body: Any) -> None:
    assert iris.post(body, path="/v2/models/iris/infer").status == 400


def test_methods_and_types(iris: Running) -> None:
    assert iris.get("/v2/models/iris/infer").status == 405
    reply = iris.post(b"", path="/v2/models/iris/infer", content_type="text/csv")
    assert (reply.status, list(reply.json)) == (415, ["error"])
    reply = iris.post(b" " * (9 << 20), path="/v2/models/iris/infer")
    assert (reply.status, list(reply.json)) == (413, ["error"])


@pytest.mark.parametrize(
    ("dtype", "datatype", "data", "found"),
    [
        ("float32", "FP32", [0.5, 2], [0.5, 2.0]),
        ("float64", "FP32", [0.5, None], [0.5, None]),
        ("int64", "INT64", [1, -(2**63)], [1, -(2**63)]),
        ("int32", "INT32", [1, 2], [1, 2]),
        ("bool", "BOOL", [True, False], [True, False]),
        ("str", "BYTES", ["a", "é"], ["a", "é"]),
    ],
)
def test_every_datatype_comes_back_as_it_went(
    start: Start, dtype: str, datatype: str, data: list[Any], found: list[Any]
) -> None:
    running = start(Fake(Echo(), tensor(dtype, -1, name="x")))
    described = running.get("/v2/models/iris").json["inputs"][0]
    reply = infer(running, one("x", [2], datatype, data))
    assert reply.status == 200, reply.body
    output = reply.json["outputs"][0]
    assert output["data"] == found
    assert (output["name"], output["datatype"]) == ("x", described["datatype"])


@pytest.mark.parametrize(
    ("dtype", "datatype", "data"),
    [("int32", "INT32", [2**31]), ("int64", "FP64", [1.0]), ("bool", "BOOL", [1]), ("float32", "FP32", ["a"])],
)
def test_what_does_not_fit_is_refused(start: Start, dtype: str, datatype: str, data: list[Any]) -> None:
    assert infer(start(Fake(Echo(), tensor(dtype, -1, name="x"))), one("x", [1], datatype, data)).status == 400


def test_several_tensors(start: Start) -> None:
    schema = Schema([TensorSpec("float64", (-1, 2), "x"), TensorSpec("int64", (-1,), "y")])
    running = start(Fake(Echo(), schema))
    reply = infer(running, one("y", [1], "INT64", [7]), one("x", [1, 2], "FP64", [[1, 2]]))
    found = {output["name"]: output for output in reply.json["outputs"]}
    assert found["x"] == {"name": "x", "datatype": "FP64", "shape": [1, 2], "data": [1.0, 2.0]}
    assert found["y"]["data"] == [7]
    assert infer(running, one("y", [1], "INT64", [7])).status == 400
    assert infer(running, one("y", [1], "INT64", [7]), one("x", [1, 1], "FP64", [1])).status == 400


def test_texts_and_numbers_in_columns(start: Start) -> None:
    running = start(Fake(Echo(), columns("string", "long"), matrix=False))
    reply = infer(running, one("a", [2], "BYTES", ["p", "q"]), one("b", [2], "INT64", [1, 2]))
    assert {o["name"]: o["data"] for o in reply.json["outputs"]} == {"a": ["p", "q"], "b": [1, 2]}
    assert infer(running, one("a", [1], "INT64", [1]), one("b", [1], "INT64", [1])).status == 400


def test_without_names_or_signature(start: Start) -> None:
    unnamed = start(Fake(Linear(), columns("double", "double", names=None)))
    assert unnamed.get("/v2/models/iris").json["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}]
    assert infer(unnamed, one("input", [1, 2], "FP64", [1, 2])).json["outputs"][0]["data"] == [21.0]
    nothing = start(Given(Fake(Echo(), matrix=False), version=None))
    reply = infer(nothing, one("x", [2], "INT32", [1, 2]))
    assert reply.json == {
        "model_name": "iris",
        "outputs": [{"name": "predictions", "datatype": "INT32", "shape": [2], "data": [1, 2]}],
    }


def test_parameters_are_the_models(start: Start) -> None:
    class Scaled:
        def predict(self, data: Any, params: Any = None) -> Any:
            return np.asarray(data)[:, 0] * params["factor"]

    running = start(Fake(Scaled(), columns("double"), params=ParamSchema([ParamSpec("factor", "double", 2.0)])))
    assert infer(running, one("a", [1], "FP64", [3])).json["outputs"][0]["data"] == [6.0]
    reply = infer(running, one("a", [1], "FP64", [3]), parameters={"factor": 4.0, "priority": 1})
    assert reply.json["outputs"][0]["data"] == [12.0]
