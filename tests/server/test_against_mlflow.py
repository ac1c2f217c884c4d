"""The same requests to MLflow's own server and to ours: the same statuses, error codes and answers.

Where we answer otherwise on purpose, ``OTHERWISE`` says why.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import Running

mlflow = pytest.importorskip("mlflow", reason="compares with the real MLflow, which is not installed here")
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

Ask = Callable[[str, str, Any], tuple[int, Any]]

#: Steps whose status or code is not MLflow's, and why.
OTHERWISE = {
    "rename to a taken name": "MLflow shows what its database said",
    "search runs, duplicate order": "MLflow answers 500, which its client retries for minutes",
    "transition, archive on none": "MLflow answers 500, which its client retries for minutes",
    "no json": "MLflow takes what it cannot read for an empty request; it is refused with the same code",
    "delete run twice": "MLflow deletes what is deleted; we do, too",
    "create model with slash": "MLflow has a name with a slash refused by a later check",
}

_TIMES = re.compile(r"time|timestamp")
#: MLflow has workspaces, and does not know who registered a version.
_ONLY_ONE_SAYS = ("workspace", "user_id")
_IDS = ("run_id", "run_uuid", "experiment_id", "artifact_uri", "artifact_location", "source", "root_uri")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    folder = tmp_path_factory.mktemp("mlflow")
    saved = dict(os.environ)
    os.environ.update({
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    })  # fmt: skip
    try:
        from mlflow.server import app

        client = app.test_client()

        def ask(method: str, path: str, body: Any) -> tuple[int, Any]:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body)
            kind = None if data is None else "application/json"
            answer = client.open(path, method=method, data=data, content_type=kind)
            text = answer.get_data()
            return answer.status_code, json.loads(text) if answer.mimetype == "application/json" and text else None

        yield ask
    finally:
        os.environ.clear()
        os.environ.update(saved)


def ours_of(server: Running) -> Ask:
    def ask(method: str, path: str, body: Any) -> tuple[int, Any]:
        answer = server.ask(method, path, body)
        return answer.status, answer.json if answer.headers.get("content-type") == "application/json" else None

    return ask


def conversation(ask: Ask) -> Iterator[tuple[str, int, Any]]:
    """Everything that is asked, step by step: its name, the status, the answer."""

    def say(name: str, path: str, body: Any = None, method: str = "POST") -> tuple[str, int, Any]:
        return (name, *ask(method, f"/api/2.0/mlflow/{path}", body))

    def get(name: str, path: str) -> tuple[str, int, Any]:
        return say(name, path, None, "GET")

    # experiments
    yield (first := say("create experiment", "experiments/create", {"name": "e", "tags": [{"key": "a", "value": "b"}]}))
    e = first[2]["experiment_id"]
    yield say("create experiment again", "experiments/create", {"name": "e"})
    yield say("create experiment without name", "experiments/create", {})
    yield say("create experiment, name of a number", "experiments/create", {"name": 7})
    yield say("create experiment, tags of a text", "experiments/create", {"name": "x", "tags": "5"})
    yield get("get experiment", f"experiments/get?experiment_id={e}")
    yield get("get default", "experiments/get?experiment_id=0")
    yield get("get no experiment", "experiments/get?experiment_id=99")
    yield get("get experiment without id", "experiments/get")
    yield get("get by name", "experiments/get-by-name?experiment_name=e")
    yield get("get by no name", "experiments/get-by-name?experiment_name=nobody")
    yield say("set experiment tag", "experiments/set-experiment-tag", {"experiment_id": e, "key": "k", "value": "v"})
    yield say("set experiment tag, no value", "experiments/set-experiment-tag", {"experiment_id": e, "key": "n"})
    yield say("delete experiment tag", "experiments/delete-experiment-tag", {"experiment_id": e, "key": "n"})
    yield say("delete no experiment tag", "experiments/delete-experiment-tag", {"experiment_id": e, "key": "n"})
    yield say("search experiments", "experiments/search", {"max_results": 10, "order_by": ["name ASC"]})
    yield say("search experiments, filter", "experiments/search", {"max_results": 10, "filter": "name ILIKE 'E%'"})
    yield say("search experiments, bad filter", "experiments/search", {"max_results": 10, "filter": "name ~ 'e'"})
    yield say("search experiments, no size", "experiments/search", {})
    yield say("search experiments, too many", "experiments/search", {"max_results": 50_001})
    yield get("search experiments by GET", "experiments/search?max_results=1&view_type=ALL&order_by=name")
    yield say("rename experiment", "experiments/update", {"experiment_id": e, "new_name": "f"})
    yield say("rename to nothing", "experiments/update", {"experiment_id": e, "new_name": ""})
    yield say("rename to a taken name", "experiments/update", {"experiment_id": e, "new_name": "Default"})
    # runs
    body: dict[str, Any] = {
        "experiment_id": e,
        "start_time": 1000,
        "run_name": "one",
        "tags": [{"key": "mlflow.user", "value": "ana"}],
    }
    yield (first := say("create run", "runs/create", body))
    r = first[2]["run"]["info"]["run_id"]
    yield say("create run, no experiment", "runs/create", {"experiment_id": "99"})
    yield say("create run, start of a text", "runs/create", {"experiment_id": e, "start_time": "x"})
    yield say("create run, experiment of a number", "runs/create", {"experiment_id": 5})
    point = {"run_id": r, "key": "m", "value": 1.5, "timestamp": 5, "step": 1}
    yield say("log metric", "runs/log-metric", point)
    yield say("log metric, text value", "runs/log-metric", {**point, "value": "2.5", "timestamp": "6", "step": "2"})
    yield say("log metric, NaN", "runs/log-metric", {**point, "key": "nan", "value": "NaN"})
    yield say("log metric, infinite", "runs/log-metric", {**point, "key": "inf", "value": "Infinity"})
    yield say("log metric, word", "runs/log-metric", {**point, "value": "high"})
    yield say("log metric, no time", "runs/log-metric", {"run_id": r, "key": "m", "value": 1})
    yield say("log metric, bad name", "runs/log-metric", {**point, "key": "../x"})
    yield say("log metric, long name", "runs/log-metric", {**point, "key": "k" * 251})
    yield say("log metric, negative time", "runs/log-metric", {**point, "timestamp": -1})
    yield say("log metric, no run", "runs/log-metric", {**point, "run_id": "nobody"})
    yield say("log metric, run of a number", "runs/log-metric", {**point, "run_id": 31})
    yield say(
        "log metric, old name of the run", "runs/log-metric", {"run_uuid": r, "key": "o", "value": 1, "timestamp": 1}
    )
    yield say("log param", "runs/log-parameter", {"run_id": r, "key": "p", "value": "1"})
    yield say("log param again", "runs/log-parameter", {"run_id": r, "key": "p", "value": "1"})
    yield say("log param, another value", "runs/log-parameter", {"run_id": r, "key": "p", "value": "2"})
    yield say("log param, no value", "runs/log-parameter", {"run_id": r, "key": "q"})
    yield say("log param, value of a number", "runs/log-parameter", {"run_id": r, "key": "s", "value": 4})
    yield say("set tag", "runs/set-tag", {"run_id": r, "key": "t", "value": "1"})
    yield say("set tag, no key", "runs/set-tag", {"run_id": r, "value": "1"})
    yield say("delete tag", "runs/delete-tag", {"run_id": r, "key": "t"})
    yield say("delete no tag", "runs/delete-tag", {"run_id": r, "key": "t"})
    batch = {
        "run_id": r,
        "metrics": [{"key": "b", "value": 1, "timestamp": 1, "step": s} for s in range(3)],
        "params": [{"key": "bp", "value": ""}],
        "tags": [{"key": "bt", "value": ""}],
    }
    yield say("log batch", "runs/log-batch", batch)
    yield say("log batch, nothing", "runs/log-batch", {"run_id": r})
    yield say("log batch, no time", "runs/log-batch", {"run_id": r, "metrics": [{"key": "m", "value": 1}]})
    yield say("log batch, metrics of a text", "runs/log-batch", {"run_id": r, "metrics": "foo"})
    many = [{"key": f"p{i}", "value": "1"} for i in range(101)]
    yield say("log batch, many params", "runs/log-batch", {"run_id": r, "params": many})
    same = [{"key": "d", "value": "1"}, {"key": "d", "value": "2"}]
    yield say("log batch, a param twice", "runs/log-batch", {"run_id": r, "params": same})
    dataset = {"name": "d", "digest": "1", "source_type": "local", "source": "s", "schema": "{}", "profile": "{}"}
    tag = {"key": "mlflow.data.context", "value": "train"}
    yield say("log inputs", "runs/log-inputs", {"run_id": r, "datasets": [{"tags": [tag], "dataset": dataset}]})
    yield say("log inputs, no run", "runs/log-inputs", {"datasets": []})
    yield get("get run", f"runs/get?run_id={r}")
    yield get("get run by its old name", f"runs/get?run_uuid={r}")
    yield get("get no run", "runs/get?run_id=nobody")
    yield get("get run without id", "runs/get")
    yield get("history", f"metrics/get-history?run_id={r}&metric_key=m")
    yield get("history, page", f"metrics/get-history?run_id={r}&metric_key=m&max_results=1")
    yield get("history, no size", f"metrics/get-history?run_id={r}&metric_key=m&max_results=0")
    yield get("history, nothing", f"metrics/get-history?run_id={r}&metric_key=none")
    yield get("history, no key", f"metrics/get-history?run_id={r}")
    yield say("second run", "runs/create", {"experiment_id": e, "start_time": 2000, "run_name": "two"})
    search = {"experiment_ids": [e], "order_by": ["start_time ASC"]}
    yield say("search runs", "runs/search", search)
    yield say("search runs, filter", "runs/search", {**search, "filter": "metrics.m >= 2.5 and params.p = '1'"})
    yield say("search runs, page", "runs/search", {**search, "max_results": 1})
    yield say("search runs, nowhere", "runs/search", {"experiment_ids": []})
    yield say("search runs, bad filter", "runs/search", {**search, "filter": "metrics.m > 'x'"})
    yield say("search runs, bad key", "runs/search", {**search, "filter": "nothing.m > 1"})
    yield say("search runs, or", "runs/search", {**search, "filter": "metrics.m > 1 ; metrics.m < 2"})
    yield say("search runs, too many", "runs/search", {**search, "max_results": 50_001})
    yield say("search runs, bad token", "runs/search", {**search, "page_token": "x"})
    yield say("search runs, duplicate order", "runs/search", {**search, "order_by": ["start_time", "start_time DESC"]})
    yield say("search runs, unknown view", "runs/search", {**search, "run_view_type": "SOME"})
    yield say("end run", "runs/update", {"run_id": r, "status": "FINISHED", "end_time": 3000})
    yield say("end run, unknown status", "runs/update", {"run_id": r, "status": "DONE"})
    yield say("rename run", "runs/update", {"run_id": r, "run_name": "uno"})
    yield say("log metric after the end", "runs/log-metric", {**point, "step": 9, "timestamp": 9})
    yield say("delete run", "runs/delete", {"run_id": r})
    yield say("delete run twice", "runs/delete", {"run_id": r})
    yield say("log to a deleted run", "runs/log-metric", point)
    yield say("tag a deleted run", "runs/set-tag", {"run_id": r, "key": "k", "value": "v"})
    yield say("search deleted runs", "runs/search", {**search, "run_view_type": "DELETED_ONLY"})
    yield say("restore run", "runs/restore", {"run_id": r})
    yield say("restore no run", "runs/restore", {"run_id": "nobody"})
    # artifacts
    files = "/api/2.0/mlflow-artifacts/artifacts"
    yield ("put", *ask("PUT", f"{files}/{e}/{r}/artifacts/model/MLmodel", b"x: 1"))
    yield ("list tree", *ask("GET", f"{files}?path={e}/{r}/artifacts", None))
    yield ("list tree, folder", *ask("GET", f"{files}?path={e}/{r}/artifacts/model", None))
    yield get("list artifacts", f"artifacts/list?run_id={r}&path=model")
    yield get("list artifacts, bad path", f"artifacts/list?run_id={r}&path=../x")
    yield get("list artifacts, no run", "artifacts/list?run_id=nobody")
    # registry
    yield say("create model", "registered-models/create", {"name": "m", "description": "d"})
    yield say("create model again", "registered-models/create", {"name": "m"})
    yield say("create model without name", "registered-models/create", {"name": ""})
    yield say("create model with slash", "registered-models/create", {"name": "a/b"})
    yield get("get model", "registered-models/get?name=m")
    yield get("get no model", "registered-models/get?name=nobody")
    source = {"name": "m", "source": f"mlflow-artifacts:/{e}/{r}/artifacts/model", "run_id": r}
    yield say("register", "model-versions/create", source)
    yield say("register again", "model-versions/create", {**source, "tags": [{"key": "a", "value": "b"}]})
    yield say("register, no model", "model-versions/create", {**source, "name": "nobody"})
    yield say("register, another run", "model-versions/create", {**source, "run_id": "0" * 32})
    yield say("register local", "model-versions/create", {"name": "m", "source": "/etc"})
    yield say("register up", "model-versions/create", {"name": "m", "source": "s3://b/../../x"})
    yield get("get version", "model-versions/get?name=m&version=1")
    yield get("get no version", "model-versions/get?name=m&version=9")
    yield get("get version of a word", "model-versions/get?name=m&version=x")
    move = {"name": "m", "version": "1", "stage": "production"}
    yield say("transition", "model-versions/transition-stage", move)
    yield say("transition, archive", "model-versions/transition-stage",
              {**move, "version": "2", "archive_existing_versions": True})  # fmt: skip
    yield say("transition, archive on none", "model-versions/transition-stage",
              {**move, "stage": "None", "archive_existing_versions": True})  # fmt: skip
    yield say("transition, no stage", "model-versions/transition-stage", {**move, "stage": "Live"})
    yield say("latest versions", "registered-models/get-latest-versions", {"name": "m"})
    yield say(
        "latest versions in a stage", "registered-models/get-latest-versions", {"name": "m", "stages": ["Archived"]}
    )
    yield say("alias", "registered-models/alias", {"name": "m", "alias": "best", "version": "2"})
    yield say("alias, no version", "registered-models/alias", {"name": "m", "alias": "x", "version": "9"})
    yield say("alias, reserved", "registered-models/alias", {"name": "m", "alias": "v1", "version": "2"})
    yield get("by alias", "registered-models/alias?name=m&alias=best")
    yield get("by no alias", "registered-models/alias?name=m&alias=none")
    yield say("delete alias", "registered-models/alias", {"name": "m", "alias": "best"}, "DELETE")
    yield say("delete no alias", "registered-models/alias", {"name": "m", "alias": "best"}, "DELETE")
    yield say("tag model", "registered-models/set-tag", {"name": "m", "key": "k", "value": "v"})
    yield say("delete model tag", "registered-models/delete-tag", {"name": "m", "key": "k"}, "DELETE")
    yield say("delete no model tag", "registered-models/delete-tag", {"name": "m", "key": "k"}, "DELETE")
    yield say("tag version", "model-versions/set-tag", {"name": "m", "version": "1", "key": "k", "value": "v"})
    yield say("tag no version", "model-versions/set-tag", {"name": "m", "version": "9", "key": "k", "value": "v"})
    yield say("describe model", "registered-models/update", {"name": "m", "description": "e"}, "PATCH")
    yield say("describe version", "model-versions/update", {"name": "m", "version": "1", "description": "e"}, "PATCH")
    yield get("search models", "registered-models/search")
    yield get("search models, filter", "registered-models/search?filter=name%20LIKE%20%27m%25%27")
    yield get("search models, bad filter", "registered-models/search?filter=nothing%20%3D%201")
    yield get("search models, too many", "registered-models/search?max_results=1001")
    yield get("search versions", "model-versions/search?order_by=version_number%20ASC")
    yield get("search versions of the run", f"model-versions/search?filter=run_id%3D%27{r}%27&order_by=version_number")
    yield say("rename model", "registered-models/rename", {"name": "m", "new_name": "n"})
    yield say("rename no model", "registered-models/rename", {"name": "m", "new_name": "o"})
    yield say("delete version", "model-versions/delete", {"name": "n", "version": "1"}, "DELETE")
    yield say("delete version twice", "model-versions/delete", {"name": "n", "version": "1"}, "DELETE")
    yield say("delete model", "registered-models/delete", {"name": "n"}, "DELETE")
    yield say("delete model twice", "registered-models/delete", {"name": "n"}, "DELETE")
    # and the end
    yield say("no json", "experiments/create", b"{")
    yield say("delete experiment", "experiments/delete", {"experiment_id": e})
    yield say("delete experiment twice", "experiments/delete", {"experiment_id": e})
    yield say("run in a deleted experiment", "runs/create", {"experiment_id": e})
    yield say("restore experiment", "experiments/restore", {"experiment_id": e})
    yield say("restore experiment twice", "experiments/restore", {"experiment_id": e})


def shape(answer: Any, name: str = "") -> Any:
    """An answer without what cannot be the same: ids, times, and the text of errors."""
    if isinstance(answer, dict):
        if "error_code" in answer:
            return {"error_code": answer["error_code"]}
        found = {key: shape(value, key) for key, value in sorted(answer.items()) if key not in _ONLY_ONE_SAYS}
        return {key: value for key, value in found.items() if value not in ("", {}, [])}
    if isinstance(answer, list):
        listed = [shape(one) for one in answer]
        return sorted(listed, key=str) if listed and set(listed[0]) >= {"key", "value"} else listed
    if name in _IDS or name == "next_page_token" or (_TIMES.search(name) and isinstance(answer, int)):
        return type(answer).__name__
    return answer


def _first(mine: Any, theirs: Any, where: str = "") -> str:
    """Where two answers differ first."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in sorted({*mine, *theirs}):
            if mine.get(key) != theirs.get(key):
                return _first(mine.get(key), theirs.get(key), f"{where}.{key}")
    if isinstance(mine, list | tuple) and isinstance(theirs, list | tuple) and len(mine) == len(theirs):
        for index, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            if one != other:
                return _first(one, other, f"{where}[{index}]")
    return f"{where}: {mine!r:.200} != {theirs!r:.200}"


def test_the_same_requests_have_the_same_answers(server: Running, theirs: Ask, tmp_path: Path) -> None:
    different = {}
    for (name, status, answer), (_, their_status, their_answer) in zip(
        conversation(ours_of(server)), conversation(theirs), strict=True
    ):
        mine, expected = (status, shape(answer)), (their_status, shape(their_answer))
        if mine != expected and name not in OTHERWISE:
            different[name] = {
                "mine": (status, answer),
                "theirs": (their_status, their_answer),
                "at": _first(mine, expected),
            }
        assert status < 500, (name, answer)
    assert {name: found["at"] for name, found in different.items()} == {}
