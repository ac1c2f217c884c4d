"""MLflow's REST API of experiments, runs and metrics, asked as its clients ask."""

import json
from typing import Any

import pytest

from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.roles import Caller, Grant, Role
from gittrack.server.hub.routes import PUBLIC, Permission, Route, Table
from tests.server.conftest import Running


def test_a_run_from_its_beginning_to_its_end(server: Running) -> None:
    experiment = server.post("experiments/create", {"name": "iris", "tags": [{"key": "k", "value": "v"}]}).ok
    run = server.post(
        "runs/create",
        {
            "experiment_id": experiment["experiment_id"],
            "run_name": "one",
            "start_time": "1700000000000",
            "tags": [{"key": "mlflow.user", "value": "ana"}],
        },
    ).ok["run"]
    info = run["info"]
    assert info["run_uuid"] == info["run_id"]
    assert (info["status"], info["lifecycle_stage"], info["user_id"]) == ("RUNNING", "active", "ana")
    assert info["start_time"] == 1700000000000
    assert "end_time" not in info
    assert info["artifact_uri"] == f"mlflow-artifacts:/{info['experiment_id']}/{info['run_id']}/artifacts"
    run_id = info["run_id"]
    for step, value in enumerate([0.5, "NaN", 1.5]):
        point = {"run_id": run_id, "key": "loss", "value": value, "timestamp": 1000 + step, "step": step}
        assert server.post("runs/log-metric", point).ok == {}
    assert server.post("runs/log-parameter", {"run_id": run_id, "key": "lr", "value": "0.1"}).ok == {}
    assert server.post("runs/set-tag", {"run_id": run_id, "key": "t", "value": "1"}).ok == {}
    batch: dict[str, Any] = {
        "run_id": run_id,
        "metrics": [{"key": "acc", "value": 0.9, "timestamp": 5, "step": -1}],
        "params": [{"key": "depth", "value": "3"}],
        "tags": [{"key": "u", "value": ""}],
    }
    assert server.post("runs/log-batch", batch).ok == {}
    assert server.post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 1700000001000}).ok[
        "run_info"
    ] == {**info, "status": "FINISHED", "end_time": 1700000001000}
    data = server.get(f"/api/2.0/mlflow/runs/get?run_id={run_id}").ok["run"]["data"]
    assert sorted(data["metrics"], key=lambda one: one["key"]) == [
        {"key": "acc", "value": 0.9, "timestamp": 5, "step": -1},
        {"key": "loss", "value": 1.5, "timestamp": 1002, "step": 2},
    ]
    assert {one["key"]: one["value"] for one in data["params"]} == {"lr": "0.1", "depth": "3"}
    assert {"t": "1", "u": "", "mlflow.runName": "one"}.items() <= {
        one["key"]: one["value"] for one in data["tags"]
    }.items()
    history = server.get(f"/ajax-api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=loss").ok["metrics"]
    assert [one["value"] for one in history] == [0.5, "NaN", 1.5]
    found = server.post("runs/search", {"experiment_ids": [info["experiment_id"]], "filter": "metrics.acc > 0.5"}).ok
    assert [one["info"]["run_id"] for one in found["runs"]] == [run_id]


def test_search_comes_in_pages(server: Running) -> None:
    runs = sorted(server.new_run(start_time=1) for _ in range(5))
    seen, token = [], ""
    for size in (2, 2, 1):
        page = server.post("runs/search", {"experiment_ids": ["0"], "max_results": 2, "page_token": token}).ok
        assert len(page["runs"]) == size
        seen += [one["info"]["run_id"] for one in page["runs"]]
        token = page.get("next_page_token", "")
    assert (seen, token) == (runs, "")


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "said"),
    [
        ("runs/create", {"experiment_id": "77"}, 404, "RESOURCE_DOES_NOT_EXIST", "No Experiment with id=77 exists"),
        ("runs/log-metric", {"run_id": "x"}, 400, "INVALID_PARAMETER_VALUE", "Missing value for required parameter"),
        ("runs/delete", {"run_id": "abc"}, 404, "RESOURCE_DOES_NOT_EXIST", "Run with id=abc not found"),
        ("runs/set-tag", {"run_id": "../x", "key": "k", "value": "v"}, 400, "INVALID_PARAMETER_VALUE", "run id"),
        ("runs/search", {"experiment_ids": ["0"], "filter": "metrics."}, 400, "INVALID_PARAMETER_VALUE", "column"),
        ("runs/search", {"experiment_ids": ["0"], "max_results": 50_001}, 400, "INVALID_PARAMETER_VALUE", "50001"),
        ("runs/search", {"experiment_ids": ["0"], "page_token": "x"}, 400, "INVALID_PARAMETER_VALUE", "token"),
        (
            "experiments/create",
            {"name": "Default"},
            400,
            "RESOURCE_ALREADY_EXISTS",
            "Experiment(name=Default) already exists.",
        ),
        ("runs/create", {"experiment_id": "-1"}, 404, "RESOURCE_DOES_NOT_EXIST", "No Experiment with id=-1 exists"),
        ("experiments/delete", {"experiment_id": "0"}, 400, "INVALID_PARAMETER_VALUE", "Default"),
        ("nothing/here", {}, 404, "ENDPOINT_NOT_FOUND", "nothing"),
        ("runs/get", {}, 405, "BAD_REQUEST", "POST"),
    ],
)
def test_what_cannot_be_done_is_said_in_mlflows_shape(
    server: Running, path: str, body: Any, status: int, code: str, said: str
) -> None:
    answer = server.post(path, body)
    assert (answer.status, answer.json["error_code"]) == (status, code)
    assert said in answer.json["message"]
    assert answer.headers["content-type"] == "application/json"


def test_a_batch_is_recorded_whole_or_not_at_all(server: Running) -> None:
    run_id = server.new_run()
    assert server.post("runs/log-parameter", {"run_id": run_id, "key": "p", "value": "1"}).ok == {}
    batch = {
        "run_id": run_id,
        "metrics": [{"key": "m", "value": 1, "timestamp": 1}],
        "params": [{"key": "q", "value": "1"}, {"key": "p", "value": "2"}],
        "tags": [{"key": "t", "value": "1"}],
    }
    refused = server.post("runs/log-batch", batch)
    assert (refused.status, refused.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert refused.json["message"].startswith("Changing param values is not allowed. Param with key='p'"), "as MLflow"
    batch["params"] = [{"key": "q", "value": "1"}, {"key": "q", "value": "2"}]
    assert "Duplicate parameter keys have been submitted" in server.post("runs/log-batch", batch).json["message"]
    data = server.get(f"/api/2.0/mlflow/runs/get?run_id={run_id}").ok["run"]["data"]
    assert "metrics" not in data
    assert [one["key"] for one in data["params"]] == ["p"]
    assert "t" not in {one["key"] for one in data["tags"]}
    many = [{"key": f"p{i}", "value": "1"} for i in range(101)]
    assert "at most 100 params" in server.post("runs/log-batch", {"run_id": run_id, "params": many}).json["message"]


def test_deleted_things_refuse_to_be_written(server: Running) -> None:
    run_id = server.new_run()
    assert server.post("runs/delete", {"run_id": run_id}).ok == {}
    refused = server.post("runs/set-tag", {"run_id": run_id, "key": "k", "value": "v"})
    assert (refused.status, refused.json["message"]) == (
        400,
        f"The run {run_id} must be in the 'active' state. Current state is deleted.",
    )
    assert server.post("runs/restore", {"run_id": run_id}).ok == {}
    assert server.post("runs/set-tag", {"run_id": run_id, "key": "k", "value": "v"}).ok == {}
    experiment_id = server.post("experiments/create", {"name": "gone"}).ok["experiment_id"]
    assert server.post("experiments/delete", {"experiment_id": experiment_id}).ok == {}
    assert server.post("experiments/delete", {"experiment_id": experiment_id}).status == 404
    refused = server.post("runs/create", {"experiment_id": experiment_id})
    assert "must be in the 'active' state" in refused.json["message"]
    assert server.post("experiments/restore", {"experiment_id": experiment_id}).ok == {}


def test_inputs_outputs_and_old_models_are_recorded(server: Running) -> None:
    run_id = server.new_run()
    dataset = {"name": "d", "digest": "1", "source_type": "local", "source": "{}"}
    tag = {"key": "mlflow.data.context", "value": "train"}
    body = {"run_id": run_id, "datasets": [{"dataset": dataset, "tags": [tag]}], "models": [{"model_id": "m-1"}]}
    assert server.post("runs/log-inputs", body).ok == {}
    assert server.post("runs/outputs", {"run_id": run_id, "models": [{"model_id": "m-2", "step": 4}]}).ok == {}
    model = {"artifact_path": "model", "flavors": {}, "utc_time_created": "now", "run_id": run_id}
    assert server.post("runs/log-model", {"run_id": run_id, "model_json": json.dumps(model)}).ok == {}
    run = server.get(f"/api/2.0/mlflow/runs/get?run_id={run_id}").ok["run"]
    assert run["inputs"] == {
        "dataset_inputs": [{"dataset": dataset, "tags": [tag]}],
        "model_inputs": [{"model_id": "m-1"}],
    }
    assert run["outputs"] == {"model_outputs": [{"model_id": "m-2", "step": 4}]}
    assert json.loads({t["key"]: t["value"] for t in run["data"]["tags"]}["mlflow.log-model.history"]) == [model]
    found = server.post("experiments/search-datasets", {"experiment_ids": ["0"]}).ok["dataset_summaries"]
    assert found == [{"experiment_id": "0", "name": "d", "digest": "1", "context": "train"}]


def test_histories_of_many_runs_come_at_once(server: Running) -> None:
    runs = sorted(server.new_run() for _ in range(2))
    for run_id, count in zip(runs, (10, 20), strict=True):
        points = [{"key": "m", "value": 1.0, "timestamp": 1, "step": step} for step in range(count)]
        assert server.post("runs/log-batch", {"run_id": run_id, "metrics": points}).ok == {}
    query = "&".join(f"run_id={one}" for one in runs)
    bulk = server.get(f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?{query}&metric_key=m&max_results=12").ok
    assert [(one["run_id"], one["step"]) for one in bulk["metrics"]] == [
        *((runs[0], step) for step in range(10)),
        *((runs[1], step) for step in range(2)),
    ]
    sampled = "/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"
    query = "&".join(f"run_ids={one}" for one in runs)
    found = server.get(f"{sampled}?{query}&metric_key=m&max_results=5").ok["metrics"]
    assert [one["step"] for one in found if one["run_id"] == runs[0]] == [0, 4, 8, 9]
    assert [one["step"] for one in found if one["run_id"] == runs[1]] == [0, 4, 8, 9, 12, 16, 19]
    only = server.get(f"{sampled}?{query}&metric_key=m&max_results=5&start_step=3&end_step=4").ok["metrics"]
    assert {one["step"] for one in only} == {3, 4}
    for wrong in ("max_results=0", "start_step=1", "start_step=2&end_step=1"):
        assert server.get(f"{sampled}?{query}&metric_key=m&{wrong}").status == 400


def test_one_sees_only_what_one_may(server: Running) -> None:
    mine = server.post("experiments/create", {"name": "mine"}).ok["experiment_id"]
    theirs = server.post("experiments/create", {"name": "theirs"}).ok["experiment_id"]
    runs = {one: server.new_run(experiment_id=one) for one in (mine, theirs)}
    server.caller = Caller("ana", (Grant(Role.WRITER, "mine"), Grant(Role.READER, "shared*")), "token")
    found = server.post("experiments/search", {"max_results": 10}).ok["experiments"]
    assert [one["name"] for one in found] == ["mine"]
    found = server.post("runs/search", {"experiment_ids": [mine, theirs, "0"]}).ok["runs"]
    assert [one["info"]["run_id"] for one in found] == [runs[mine]]
    tag = {"key": "k", "value": "v"}
    assert server.post("runs/set-tag", {"run_id": runs[mine], **tag}).ok == {}
    for path, body in {
        "runs/set-tag": {"run_id": runs[theirs], **tag},
        "runs/delete": {"run_id": runs[theirs]},
        "experiments/update": {"experiment_id": theirs, "new_name": "mine2"},
    }.items():
        hidden = server.post(path, body)
        absent = server.post(path, {**body, **{k: "0" * 32 for k in ("run_id", "experiment_id") if k in body}})
        assert hidden.status == absent.status == 404
        assert hidden.json["message"].replace(runs[theirs], "X").replace(theirs, "X") == absent.json["message"].replace(
            "0" * 32, "X"
        )
    refused = server.post("runs/delete", {"run_id": runs[mine]})
    assert (refused.status, refused.json["error_code"]) == (403, "PERMISSION_DENIED")


def test_every_route_says_who_may_ask_it() -> None:
    # What a document of GraphQL asks for are routes, each with a permission of its own.
    reading = ("search", "search-datasets", "get-latest-versions", "logout", "/graphql")
    for route in ROUTES:
        role = route.permission.role
        assert (role is None) == (set(route.paths()) <= PUBLIC), route.path
        own = route.path.startswith("{api}/gittrack/settings/own/")  # everybody's own tokens
        if route.method != "GET" and role is not None and not own and not route.path.endswith(reading):
            assert role > Role.READER, route.path


@pytest.mark.parametrize("permission", [None, Permission(None)])
def test_a_route_without_a_permission_stops_the_start(permission: Any) -> None:
    with pytest.raises(TypeError, match="/new"):
        Table([*ROUTES, Route("GET", "/new", permission, lambda call: {})])


def test_a_body_of_another_type_or_too_large_is_refused(server: Running) -> None:
    answer = server.ask("POST", "/api/2.0/mlflow/runs/create", b"{}", content_type="text/plain")
    assert (answer.status, "Content-Type" in answer.json["message"]) == (400, True)
    answer = server.ask("POST", "/api/2.0/mlflow/runs/create", b" " * (9 << 20))
    assert answer.status == 413
