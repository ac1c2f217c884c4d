"""The same requests to the real ``mlflow models serve`` and to ours: the same answers, but where ours says more."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gittrack.sklearn
from gittrack.models.signature import infer_signature
from gittrack.server.following import Addressed
from tests.serving.conftest import Response, Running, starting

mlflow: Any = pytest.importorskip("mlflow", reason="the real MLflow is not installed: pip install '.[peers]'")
pd = pytest.importorskip("pandas")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:X does not have valid feature names"),
]


def numbers() -> tuple[Any, Any]:
    from sklearn.linear_model import Ridge

    features = pd.DataFrame(np.random.default_rng(0).random((50, 3)), columns=["a", "b", "c"])
    features["n"] = np.arange(50)
    return Ridge().fit(features, features.sum(axis=1)), features


def mixed() -> tuple[Any, Any]:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    features = pd.DataFrame({"a": np.linspace(0, 1, 30), "n": np.arange(30), "t": ["x", "y", "z"] * 10})
    encode = ColumnTransformer([("t", OneHotEncoder(handle_unknown="ignore"), ["t"])], remainder="passthrough")
    return make_pipeline(encode, Ridge()).fit(features, features.a + features.n), features


def tensor() -> tuple[Any, Any]:
    from sklearn.linear_model import Ridge

    features = np.random.default_rng(0).random((50, 2))
    return Ridge().fit(features, features.sum(axis=1)), features


MODELS = {"numbers": numbers, "mixed": mixed, "tensor": tensor}


@dataclass
class Pair:
    """The two servers with the same model."""

    name: str
    theirs: int
    ours: Running

    def ask(self, body: Any, content_type: str | None = "application/json") -> tuple[Response, Response]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.theirs, timeout=60)
        headers = {} if content_type is None else {"content-type": content_type}
        with contextlib.closing(connection):
            connection.request("POST", "/invocations", data, headers)
            reply = connection.getresponse()
            theirs = Response(reply.status, dict(reply.getheaders()), reply.read())
        return theirs, self.ours.post(data, content_type=content_type)


@pytest.fixture(params=list(MODELS), scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    model, features = MODELS[request.param]()
    folder = tmp_path_factory.mktemp("peer") / "model"
    signature = infer_signature(features, model.predict(features))
    gittrack.sklearn.save_model(model, folder, signature=signature, pip_requirements=["scikit-learn"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["-m", "mlflow", "models", "serve", "-m", str(folder), "-p", str(port), "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    log = folder.parent / "mlflow.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, *words], env={**os.environ, "PATH": path}, stdout=out, stderr=out, start_new_session=True
        )
    try:
        until_up(port, process, log)
        with starting() as start:
            yield Pair(request.param, port, start(Addressed(str(folder))))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(60)


def until_up(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while True:
        with contextlib.suppress(OSError), contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as probe:
            probe.request("GET", "/ping")
            if probe.getresponse().status == 200:
                return
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.3)


def rows(name: str) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows that fit the model."""
    known: dict[str, tuple[list[str], list[list[Any]]]] = {
        "numbers": (["a", "b", "c", "n"], [[0.5, 1, 0.25, 7], [0.1, 0.2, 0.3, 0]]),
        "mixed": (["a", "n", "t"], [[0.5, 3, "x"], [1, 2, "other"]]),
        "tensor": (["p", "q"], [[0.5, 1.5], [0.1, 2]]),
    }
    return known[name]


def test_forms(pair: Pair) -> None:
    names, data = rows(pair.name)
    turned = [list(column) for column in zip(*data, strict=True)]
    records = [dict(zip(names, row, strict=True)) for row in data]
    requests: list[Any] = [
        {"dataframe_split": {"columns": names, "data": data}},
        {"dataframe_split": {"columns": names, "data": data, "index": [5, 6]}},
        {"dataframe_records": records},
    ]
    if pair.name == "tensor":
        requests += [{"inputs": data}, {"instances": data}]
    else:
        order = names[::-1]
        requests += [
            {"dataframe_split": {"columns": order, "data": [row[::-1] for row in data]}},
            {"dataframe_split": {"columns": ["extra", *names], "data": [["?", *row] for row in data]}},
            {"dataframe_records": [{**record, "extra": [1]} for record in records]},
            {"inputs": dict(zip(names, turned, strict=True))},
            {"inputs": records},
            {"inputs": records[0]},
            {"instances": dict(zip(names, turned, strict=True))},
            {"dataframe_records": records, "params": {"unknown": 1}},
        ]
        if pair.name == "numbers":
            requests.append({"instances": records})
    for request in requests:
        theirs, ours = pair.ask(request)
        assert theirs.status == 200, (request, theirs.body)
        assert ours.predictions == pytest.approx(theirs.predictions, rel=1e-14), request


def test_csv(pair: Pair) -> None:
    names, data = rows(pair.name)
    text = pd.DataFrame(data, columns=names).to_csv(index=False).encode()
    theirs, ours = pair.ask(text, "text/csv")
    assert ours.status == 200
    if pair.name != "tensor":  # there, MLflow takes no table with whole numbers in it
        assert ours.predictions == pytest.approx(theirs.predictions, rel=1e-14)


def test_parquet(pair: Pair, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    names, data = rows(pair.name)
    pd.DataFrame(data, columns=names).astype({name: "float64" for name in names if name in "abcpq"}).to_parquet(
        tmp_path / "rows.parquet"
    )
    theirs, ours = pair.ask((tmp_path / "rows.parquet").read_bytes(), "application/vnd.apache.parquet")
    assert ours.predictions == pytest.approx(theirs.predictions, rel=1e-14)


#: Requests that both refuse, with MLflow's own codes.
REFUSED: dict[str, Any] = {
    "no json": b"{",
    "empty": b"",
    "list": [1],
    "text": "a",
    "no form": {},
    "two forms": {"inputs": [1], "instances": [1]},
    "split is a list": {"dataframe_split": []},
    "split without data": {"dataframe_split": {"columns": ["a"]}},
    "split with more": {"dataframe_split": {"data": [[1]], "more": 1}},
    "records are an object": {"dataframe_records": {"a": 1}},
    "missing columns": {"dataframe_split": {"columns": ["zzz"], "data": [[1]]}},
    "missing columns in records": {"dataframe_records": [{"zzz": 1}]},
    "no names": {"inputs": [[1.0, 2.0, 3.0, 4.0, 5.0]]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors(pair: Pair, name: str) -> None:
    theirs, ours = pair.ask(REFUSED[name])
    assert (theirs.status, ours.status) == (400, 400)
    assert set(ours.json) <= set(theirs.json)
    if pair.name != "tensor":
        assert (ours.json["error_code"], ours.json.get("error_class")) in (
            (theirs.json["error_code"], theirs.json["error_class"]),
            (theirs.json["error_code"], None),  # MLflow names a class for every error
        )
    assert "stack_trace" not in ours.json


def test_a_value_of_another_type_is_a_bad_request(pair: Pair) -> None:
    """And no case of SCHEMA_ENFORCEMENT_FAILED, which is for columns that are missing."""
    names, data = rows(pair.name)
    number = names.index("q" if pair.name == "tensor" else "n")
    changed = [[*row[:number], "x", *row[number + 1 :]] for row in data]
    theirs, ours = pair.ask({"dataframe_split": {"columns": names, "data": changed}})
    assert (theirs.status, ours.status) == (400, 400)
    if pair.name != "tensor":
        assert ours.json["error_code"] == theirs.json["error_code"] == "BAD_REQUEST"
        assert theirs.json["error_class"] != "SCHEMA_ENFORCEMENT_FAILED"
        assert "error_class" not in ours.json


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/json; charset=latin-1", "application/json; x=1", "application/xml"],
)
def test_content_types(pair: Pair, content_type: str) -> None:
    names, data = rows(pair.name)
    theirs, ours = pair.ask({"dataframe_split": {"columns": names, "data": data}}, content_type)
    assert (theirs.status, ours.status) == (415, 415)


def test_where_ours_is_stricter(pair: Pair) -> None:
    """What MLflow answers with 200 or 500; should it change its mind, this is to be looked at."""
    names, data = rows(pair.name)
    good = {"dataframe_split": {"columns": names, "data": data}}
    theirs, ours = pair.ask(good, None)
    assert (theirs.status, ours.status) == (500, 415)
    if pair.name == "tensor":
        return
    number = names.index("n")
    for value, expected in (("3", 200), (True, 200), (1.5, 200)):
        changed = [[*row[:number], value, *row[number + 1 :]] for row in data]
        theirs, ours = pair.ask({"dataframe_split": {"columns": names, "data": changed}})
        assert (theirs.status, ours.status) == (expected, 400), value
    records = json.dumps([dict(zip(names, row, strict=True)) for row in data])
    theirs, ours = pair.ask(f'{{"dataframe_records": [], "dataframe_records": {records}}}'.encode())
    assert (theirs.status, ours.status) == (200, 400)


def test_health(pair: Pair) -> None:
    for path in ("/ping", "/health"):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", pair.theirs)) as connection:
            connection.request("GET", path)
            reply = connection.getresponse()
            found = reply.status, reply.read(), reply.getheader("content-type")
        ours = pair.ours.get(path)
        assert found == (ours.status, ours.body, ours.headers["content-type"])
