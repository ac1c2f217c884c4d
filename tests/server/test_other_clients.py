"""The forms of requests that MLflow's clients in R and in Java send, which are not those of its client in Python."""

from typing import Any

import pytest

from tests.server.conftest import Running
from tests.server.test_artifacts import put


def test_r_sends_every_value_as_text(server: Running) -> None:
    """It says numbers as R prints them: ``1e+05``; truth as ``TRUE``; a run by its old name, too."""
    experiment = server.post("experiments/create", {"name": "r", "tags": [{"key": "a", "value": "1"}]}).ok
    start = "1.7e+12"
    made = server.post(
        "runs/create",
        {
            "experiment_id": experiment["experiment_id"],
            "user_id": "ana",
            "start_time": start,
            "tags": [{"key": "mlflow.user", "value": "ana"}, {"key": "mlflow.source.type", "value": "LOCAL"}],
        },
    ).ok["run"]["info"]
    assert (made["start_time"], made["user_id"]) == (1_700_000_000_000, "ana")
    run_id = made["run_uuid"]
    both = {"run_uuid": run_id, "run_id": run_id}
    for value, step in (("0.25", "1e+05"), ("NaN", "100001"), ("-Infinity", "3")):
        point = {**both, "key": "loss", "value": value, "timestamp": "1.7e+12", "step": step}
        assert server.post("runs/log-metric", point).ok == {}
    batch = {
        "run_id": run_id,
        "metrics": [{"key": "acc", "value": "1e-05", "step": "0", "timestamp": "1700000000001"}],
        "params": [{"key": "depth", "value": "3"}],
    }
    assert server.post("runs/log-batch", batch).ok == {}
    assert server.post("runs/log-parameter", {**both, "key": "lr", "value": "NA"}).ok == {}
    assert server.post("runs/set-tag", {**both, "key": "t", "value": "x"}).ok == {}
    query = f"run_uuid={run_id}&run_id={run_id}"
    history = server.get(f"/api/2.0/mlflow/metrics/get-history?{query}&metric_key=loss&max_results=25000").ok["metrics"]
    assert [(one["step"], one["value"]) for one in history] == [
        (3, -1.7976931348623157e308),
        (100_000, 0.25),
        (100_001, "NaN"),
    ]
    ended = server.post("runs/update", {**both, "status": "FINISHED", "end_time": "1.7e+12"}).ok["run_info"]
    assert (ended["run_uuid"], ended["end_time"]) == (run_id, 1_700_000_000_000)
    data = server.get(f"/api/2.0/mlflow/runs/get?{query}").ok["run"]["data"]
    assert {"key": "acc", "value": 1e-05, "timestamp": 1_700_000_000_001, "step": 0} in data["metrics"]
    found = server.post(
        "runs/search", {"experiment_ids": [experiment["experiment_id"]], "run_view_type": "ACTIVE_ONLY"}
    ).ok
    assert [one["info"]["run_uuid"] for one in found["runs"]] == [run_id]
    listed = server.post("experiments/search", {"view_type": "ALL", "max_results": "1000"}).ok["experiments"]
    assert {one["name"] for one in listed} == {"Default", "r"}
    put(server, server.new_run(), "a.txt", b"a")
    assert "files" not in server.get(f"/api/2.0/mlflow/artifacts/list?{query}").ok


def test_r_asks_the_registry(server: Running) -> None:
    run_id = server.new_run()
    put(server, run_id, "model/MLmodel", b"flavors: {}\n")
    for name in ("one", "two"):
        assert server.post("registered-models/create", {"name": name}).ok
    first = server.post("registered-models/search", {"max_results": "1", "order_by": ["name DESC"]}).ok
    assert [one["name"] for one in first["registered_models"]] == ["two"]
    rest = {"max_results": "1", "order_by": ["name DESC"], "page_token": first["next_page_token"]}
    assert [one["name"] for one in server.post("registered-models/search", rest).ok["registered_models"]] == ["one"]
    for _ in range(2):
        source = f"mlflow-artifacts:/0/{run_id}/artifacts/model"
        assert server.post("model-versions/create", {"name": "one", "source": source, "run_id": run_id}).ok
    moves = [("1", "FALSE"), ("2", "TRUE")]
    for version, archive in moves:
        move = {"name": "one", "version": version, "stage": "Production", "archive_existing_versions": archive}
        assert server.post("model-versions/transition-stage", move).ok["model_version"]["current_stage"] == "Production"
    assert _get(server, "model-versions/get?name=one&version=1")["model_version"]["current_stage"] == "Archived"
    # A deletion says what in its body, as the client in Python does.
    body = {"name": "one", "version": "1"}
    assert server.ask("DELETE", "/api/2.0/mlflow/model-versions/delete", body).ok == {}


def test_java_sends_long_numbers_as_text(server: Running) -> None:
    """So does whatever writes protocol buffers as JSON; a run has its old name beside the new one."""
    experiment_id = server.post("experiments/create", {"name": "java", "artifact_location": ""}).ok["experiment_id"]
    run = {"experiment_id": experiment_id, "user_id": "ana", "start_time": "1700000000000", "tags": []}
    run_id = server.post("runs/create", run).ok["run"]["info"]["run_id"]
    both = {"run_uuid": run_id, "run_id": run_id}
    for number, value in enumerate((0.5, "NaN", "Infinity")):
        point = {**both, "key": "loss", "value": value, "timestamp": "1700000000000", "step": str(number)}
        assert server.post("runs/log-metric", point).ok == {}
    metric = {"key": "acc", "value": 1.0, "timestamp": "1700000000000", "step": "-1"}
    assert server.post("runs/log-batch", {"run_id": run_id, "metrics": [metric]}).ok == {}
    search = {
        "experiment_ids": [experiment_id],
        "filter": "metrics.acc = 1",
        "run_view_type": "ACTIVE_ONLY",
        "max_results": 1000,
        "order_by": ["metrics.acc DESC"],
        "page_token": "",
    }
    assert [one["info"]["run_id"] for one in server.post("runs/search", search).ok["runs"]] == [run_id]
    assert server.post("runs/update", {**both, "status": "FAILED", "end_time": "1700000000001"}).ok
    assert _get(server, "experiments/get-by-name?experiment_name=java")["experiment"]["experiment_id"] == experiment_id
    search = {"view_type": "ACTIVE_ONLY", "max_results": "1000", "filter": "", "order_by": [], "page_token": ""}
    assert len(server.post("experiments/search", search).ok["experiments"]) == 2

    put(server, server.new_run(), "model/MLmodel", b"flavors: {}\n")
    model_run = server.post("runs/search", {"experiment_ids": ["0"]}).ok["runs"][0]["info"]["run_id"]
    assert server.post("registered-models/create", {"name": "m"}).ok
    for _ in range(2):
        version = {"name": "m", "run_id": model_run, "source": f"runs:/{model_run}/model"}
        assert server.post("model-versions/create", version).ok
    assert server.post("model-versions/transition-stage", {"name": "m", "version": "1", "stage": "Staging"}).ok
    path = "registered-models/get-latest-versions?name=m&stages=None&stages=Staging"
    assert {one["version"] for one in _get(server, path)["model_versions"]} == {"1", "2"}
    assert server.ask("PATCH", "/api/2.0/mlflow/model-versions/update", {"name": "m", "version": "1"}).ok
    path = "model-versions/search?max_results=10&filter=name%3D%27m%27&order_by=version_number+ASC&order_by=name"
    assert [one["version"] for one in _get(server, path)["model_versions"]] == ["1", "2"]


@pytest.mark.parametrize("step", ["1.5", "1e+400", "1e+19", "NaN", "Infinity", "", "x", "0x10", "1" * 21])
def test_a_text_that_is_no_whole_number_is_refused(server: Running, step: str) -> None:
    point = {"run_id": server.new_run(), "key": "k", "value": 1, "timestamp": "1", "step": step}
    answer = server.post("runs/log-metric", point)
    assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def _get(server: Running, path: str) -> Any:
    return server.get(f"/api/2.0/mlflow/{path}").ok
