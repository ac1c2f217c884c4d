"""Versions whose files are elsewhere, through MLflow's REST API."""

import contextlib
from typing import Any

import pytest

from gittrack.convert.hub_rest import RestHub
from gittrack.convert.mlflow_export import Exporter
from gittrack.convert.mlflow_server import Server
from gittrack.server.hub.roles import Caller, Grant, Role
from tests.conftest import MakeRepo
from tests.registry.conftest import Desk
from tests.server.conftest import Running
from tests.server.test_artifacts import put
from tests.server.test_registry import VERSIONS

ADDRESS = "s3://bucket/models/iris"


def register(server: Running, **body: Any) -> Any:
    return server.post("model-versions/create", {"name": "iris", **body})


@pytest.fixture(autouse=True)
def model(server: Running) -> None:
    assert server.post("registered-models/create", {"name": "iris"}).ok


@pytest.mark.parametrize(
    ("source", "run_id"),
    [(ADDRESS, None), (ADDRESS, "abc"), ("https://files.example/iris", None), ("dbfs:/iris", None),
     ("runs:/not_here/model", "not_here"), ("runs:/not_here/model", "nor_here")],
)  # fmt: skip
def test_clients_are_sent_to_where_the_files_are(server: Running, source: str, run_id: str | None) -> None:
    made = register(server, source=source, run_id=run_id, tags=[{"key": "a", "value": "b"}]).ok["model_version"]
    assert (made["version"], made["source"], made.get("run_id"), made["status"]) == ("1", source, run_id, "READY")
    assert server.get(f"{VERSIONS}/get-download-uri?name=iris&version=1").ok == {"artifact_uri": source}
    found = server.get(f"{VERSIONS}/search?filter=source_path%3D%27{source}%27").ok["model_versions"]
    assert [one["version"] for one in found] == ["1"]
    if run_id is not None:
        found = server.get(f"{VERSIONS}/search?filter=run_id%3D%27{run_id}%27").ok["model_versions"]
        assert [one["version"] for one in found] == ["1"]
    moved = server.post("model-versions/transition-stage", {"name": "iris", "version": "1", "stage": "Staging"}).ok
    assert moved["model_version"]["source"] == source
    copied = register(server, source="models:/iris/1").ok["model_version"]
    assert (copied["version"], copied["source"]) == ("2", "models:/iris/1")
    assert server.get(f"{VERSIONS}/get-download-uri?name=iris&version=2").ok == {"artifact_uri": source}
    assert server.get("/model-versions/get-artifact?name=iris&version=1&path=MLmodel").status == 404
    assert server.post("runs/search", {"experiment_ids": ["0"]}).ok == {}


def test_a_run_that_one_may_not_read_is_one_that_is_not_here(server: Running) -> None:
    run_id = server.new_run()
    put(server, run_id, "model/MLmodel", b"x")
    server.caller = Caller("eve", (Grant(Role.WRITER, "mine", "*"),), "token")
    answers = [register(server, source=f"runs:/{one}/model", run_id=one) for one in (run_id, "0" * 32)]
    (_, hidden), (_, absent) = ((one.status, one.ok["model_version"]) for one in answers)
    assert hidden["source"] == f"runs:/{run_id}/model"
    assert hidden.keys() == absent.keys()
    server.caller = Caller("eve", (Grant(Role.READER, "mine", "*"),), "token")
    assert server.get("/model-versions/get-artifact?name=iris&version=1&path=MLmodel").status == 404


def test_what_is_here_is_of_the_run_that_is_named(server: Running) -> None:
    run_id = server.new_run()
    put(server, run_id, "model/MLmodel", b"x")
    assert register(server, source=f"runs:/{run_id}/model", run_id="not_here").status == 400
    assert register(server, source="runs:/not_here/model", run_id=run_id).status == 400
    assert register(server, source="runs:/not_here/model").status == 404


def test_an_address_for_a_model_that_is_not_there_makes_none(server: Running) -> None:
    answer = register(server, name="rose", source=ADDRESS)
    assert (answer.status, answer.json["message"]) == (404, "Registered Model with name=rose not found")
    refused = register(server, source="https://ana:secret@host/model")
    assert (refused.status, refused.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert server.get(f"{VERSIONS}/search").ok == {}


def test_an_export_takes_the_address_along(server: Running, make_repo: MakeRepo) -> None:
    registry = Desk.at(make_repo("ordinary")).registry
    registry.register_elsewhere("iris", ADDRESS, "abc", description="big")
    with contextlib.closing(RestHub(Server(server.url, {}))) as there:
        report = Exporter(registry.tracker, there).run()
    registry.tracker.close()
    assert (report.versions, report.problems) == (1, [])
    found = server.get(f"{VERSIONS}/get?name=iris&version=1").ok["model_version"]
    assert (found["source"], found["run_id"], found["description"]) == (ADDRESS, "abc", "big")
