"""MLflow's REST API of the model registry."""

import pytest

from gittrack.server.hub.roles import Caller, Grant, Role
from tests.server.conftest import Running
from tests.server.test_artifacts import put

MODELS = "/api/2.0/mlflow/registered-models"
VERSIONS = "/api/2.0/mlflow/model-versions"


@pytest.fixture
def run_id(server: Running) -> str:
    found = server.new_run()
    put(server, found, "model/MLmodel", b"flavors: {}\n")
    return found


def test_a_model_from_its_run_to_production(server: Running, run_id: str) -> None:
    made = server.post("registered-models/create", {"name": "iris", "tags": [{"key": "k", "value": "v"}]}).ok
    assert made["registered_model"]["tags"] == [{"key": "k", "value": "v"}]
    version = server.post(
        "model-versions/create",
        {"name": "iris", "source": f"mlflow-artifacts:/0/{run_id}/artifacts/model", "run_id": run_id},
    ).ok["model_version"]
    assert (version["version"], version["current_stage"], version["status"]) == ("1", "None", "READY")
    assert (version["run_id"], version["source"]) == (run_id, f"runs:/{run_id}/model")
    again = server.post("model-versions/create", {"name": "iris", "source": f"runs:/{run_id}/model"}).ok
    assert again["model_version"]["version"] == "2"
    moved = server.post(
        "model-versions/transition-stage",
        {"name": "iris", "version": "2", "stage": "production", "archive_existing_versions": True},
    ).ok["model_version"]
    assert moved["current_stage"] == "Production"
    assert server.ask("POST", f"{MODELS}/alias", {"name": "iris", "alias": "champion", "version": "1"}).ok == {}
    by_alias = server.get(f"{MODELS}/alias?name=iris&alias=champion").ok["model_version"]
    assert (by_alias["version"], by_alias["aliases"]) == ("1", ["champion"])
    latest = server.post("registered-models/get-latest-versions", {"name": "iris", "stages": ["Production"]}).ok
    assert [one["version"] for one in latest["model_versions"]] == ["2"]
    uri = server.get(f"{VERSIONS}/get-download-uri?name=iris&version=2").ok["artifact_uri"]
    assert uri == f"mlflow-artifacts:/0/{run_id}/artifacts/model"
    assert server.get("/model-versions/get-artifact?name=iris&version=2&path=MLmodel").body == b"flavors: {}\n"
    changed = server.ask("PATCH", f"{VERSIONS}/update", {"name": "iris", "version": "1", "description": "first"}).ok
    assert changed["model_version"]["description"] == "first"
    tag = {"name": "iris", "version": "1", "key": "q", "value": "1"}
    assert server.post("model-versions/set-tag", tag).ok == {}
    found = server.get(f"{VERSIONS}/search?filter=name%3D%27iris%27&order_by=version_number%20ASC").ok["model_versions"]
    assert [one["version"] for one in found] == ["1", "2"]
    assert found[0]["tags"] == [{"key": "q", "value": "1"}]
    assert server.ask("DELETE", f"{VERSIONS}/delete-tag", {"name": "iris", "version": "1", "key": "q"}).ok == {}
    assert server.ask("DELETE", f"{MODELS}/alias", {"name": "iris", "alias": "champion"}).ok == {}
    assert server.ask("PATCH", f"{MODELS}/update", {"name": "iris", "description": "of flowers"}).ok
    renamed = server.post("registered-models/rename", {"name": "iris", "new_name": "flower"}).ok["registered_model"]
    assert (renamed["name"], renamed["description"]) == ("flower", "of flowers")
    assert [one["name"] for one in server.get(f"{MODELS}/search").ok["registered_models"]] == ["flower"]
    assert server.ask("DELETE", f"{VERSIONS}/delete", {"name": "flower", "version": "1"}).ok == {}
    assert server.ask("DELETE", f"{MODELS}/delete", {"name": "flower"}).ok == {}
    gone = server.get(f"{MODELS}/get?name=flower")
    assert (gone.status, gone.json["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


ELSEWHERE = (
    "/etc", "file:///etc", "file://./etc", "s3://", "c:/x", "http:///#/../etc", "runs:/{run}/../../x",
    "runs:/{run}/%2e%2e", "mlflow-artifacts:/0/{run}/artifacts/..%2f..", "mlflow-artifacts:/0/{run}",
    "mlflow-artifacts:/0/{other}/artifacts/model", "runs:/{other}/model", "models:/m/%2e%2e", "models:/m/1", "x",
    "runs:/{run}/model%00", "FILE:///etc", "mlflow-artifacts://other:5000/m", "gittrack:///etc", "s3://bucket/../x",
)  # fmt: skip


def test_a_logged_model_is_registered_by_the_place_of_its_files(server: Running) -> None:
    info = server.post("logged-models", {"experiment_id": "0", "name": "m"}).ok["model"]["info"]
    files = info["artifact_uri"]
    where = files.replace("mlflow-artifacts:", "/api/2.0/mlflow-artifacts/artifacts")
    assert server.ask("PUT", f"{where}/MLmodel", b"flavors: {}\n").status == 200
    assert server.post("registered-models/create", {"name": "iris"}).ok
    version = {"name": "iris", "source": files, "model_id": info["model_id"]}
    assert server.post("model-versions/create", version).ok["model_version"]["version"] == "1"
    assert server.get("/model-versions/get-artifact?name=iris&version=1&path=MLmodel").body == b"flavors: {}\n"
    none = {"name": "iris", "source": files.replace(info["model_id"], "m-1")}
    assert server.post("model-versions/create", none).status == 404


def test_a_logged_model_of_a_run_that_is_not_here(server: Running) -> None:
    """Its run's id is kept as it was given, and nothing looks for that run."""
    secret = server.post("experiments/create", {"name": "secret"}).ok["experiment_id"]
    other = server.new_run(experiment_id=secret)
    whole = server.caller
    server.caller = Caller("ana", (Grant(Role.MAINTAINER, "Default", "*"),), "token")
    for run_id in ("123", other):
        made = server.post("logged-models", {"experiment_id": "0", "name": "m", "source_run_id": run_id}).ok["model"]
        info = made["info"]
        assert info["source_run_id"] == run_id
        one = f"/api/2.0/mlflow/logged-models/{info['model_id']}"
        where = info["artifact_uri"].replace("mlflow-artifacts:", "/api/2.0/mlflow-artifacts/artifacts")
        assert server.ask("PUT", f"{where}/MLmodel", b"flavors: {}\n").status == 200
        done = {"model_id": info["model_id"], "status": "LOGGED_MODEL_READY"}
        assert server.ask("PATCH", one, done).ok["model"]["info"]["source_run_id"] == run_id
        assert server.get(one).ok["model"]["info"]["source_run_id"] == run_id
        asked = {"experiment_ids": ["0"], "filter": f"source_run_id = '{run_id}'"}
        found = server.post("logged-models/search", asked).ok["models"]
        assert [model["info"]["model_id"] for model in found] == [info["model_id"]]
        name = f"of-{run_id}"
        assert server.post("registered-models/create", {"name": name}).ok
        version = {"name": name, "source": f"models:/{info['model_id']}", "run_id": run_id}
        assert server.post("model-versions/create", version).ok["model_version"]["version"] == "1"
        file = server.get(f"/model-versions/get-artifact?name={name}&version=1&path=MLmodel")
        assert file.body == b"flavors: {}\n"
    for wrong in ("../x", "a\n", "a\0b", "x" * 257):
        answer = server.post("logged-models", {"experiment_id": "0", "source_run_id": wrong})
        assert (answer.status, answer.json["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    server.caller = whole
    lineage = server.get(f"/ajax-api/2.0/gittrack/runs/lineage?run_id={other}").ok
    assert lineage["models"] == []


def test_a_run_that_one_may_only_read_gets_no_logged_model(server: Running) -> None:
    experiment = server.post("experiments/create", {"name": "shown"}).ok["experiment_id"]
    run_id = server.new_run(experiment_id=experiment)
    server.caller = Caller("ana", (Grant(Role.WRITER, "Default", None), Grant(Role.READER, "shown", None)), "token")
    answer = server.post("logged-models", {"experiment_id": "0", "source_run_id": run_id})
    assert (answer.status, answer.json["error_code"]) == (403, "PERMISSION_DENIED")


def test_the_source_of_a_copy_is_told_to_who_may_read_it(server: Running, run_id: str) -> None:
    for name in ("secret-a", "open-b", "open-c"):
        assert server.post("registered-models/create", {"name": name}).ok
    files = f"runs:/{run_id}/model"
    for name, source in (("secret-a", files), ("open-b", "models:/secret-a/1"), ("open-c", "models:/open-b/1")):
        made = server.post("model-versions/create", {"name": name, "source": source}).ok["model_version"]
        assert made["source"] == source
    assert server.post("registered-models/alias", {"name": "open-b", "alias": "best", "version": "1"}).ok == {}
    whole, ana = server.caller, Caller("ana", (Grant(Role.MAINTAINER, "Default", "open-*"),), "token")
    for caller, source in ((whole, "models:/secret-a/1"), (ana, files)):
        server.caller = caller
        found = [
            server.get(f"{VERSIONS}/get?name=open-b&version=1").ok["model_version"],
            server.get(f"{MODELS}/alias?name=open-b&alias=best").ok["model_version"],
            server.get(f"{MODELS}/get?name=open-b").ok["registered_model"]["latest_versions"][0],
            server.get(f"{VERSIONS}/search?filter=name%3D%27open-b%27").ok["model_versions"][0],
            server.get(f"{MODELS}/search?filter=name%3D%27open-b%27").ok["registered_models"][0]["latest_versions"][0],
            server.post("registered-models/get-latest-versions", {"name": "open-b"}).ok["model_versions"][0],
            server.ask("PATCH", f"{VERSIONS}/update", {"name": "open-b", "version": "1"}).ok["model_version"],
            server.get("/ajax-api/2.0/gittrack/model-versions/overview?name=open-b&version=1").ok["version"],
            *server.get("/ajax-api/2.0/gittrack/model-versions/diff?name=open-b&version=1&other=1").ok["versions"],
            server.get("/ajax-api/2.0/gittrack/registered-models/state?name=open-b").ok["versions"][0],
        ]
        assert {one["source"] for one in found} == {source}
        asked = {"query": "{ mlflowSearchModelVersions(input: {}) { modelVersions { name source } } }"}
        answer = server.ask("POST", "/graphql", asked).ok["data"]["mlflowSearchModelVersions"]["modelVersions"]
        told = {one["name"]: one["source"] for one in answer}
        assert (told["open-b"], told["open-c"]) == (source, "models:/open-b/1")
        history = server.get("/ajax-api/2.0/gittrack/registered-models/history?name=open-b")
        assert b"secret" not in history.body
        for name in ("open-b", "open-c"):
            where = server.get(f"{VERSIONS}/get-download-uri?name={name}&version=1").ok["artifact_uri"]
            assert where == f"mlflow-artifacts:/0/{run_id}/artifacts/model"
            file = server.get(f"/model-versions/get-artifact?name={name}&version=1&path=MLmodel")
            assert file.body == b"flavors: {}\n"
    refused = server.post("model-versions/create", {"name": "open-c", "source": "models:/secret-a/1"})
    assert refused.status == 404
    server.caller = whole
    assert server.ask("DELETE", f"{MODELS}/delete", {"name": "secret-a"}).ok == {}
    renamed = server.post("registered-models/rename", {"name": "open-b", "new_name": "open-d"})
    assert renamed.ok["registered_model"]["latest_versions"][0]["source"] == "models:/secret-a/1"
    kept = server.get(f"{VERSIONS}/get?name=open-c&version=1").ok["model_version"]
    assert kept["source"] == "models:/open-b/1"
    assert server.get("/model-versions/get-artifact?name=open-c&version=1&path=MLmodel").status == 200


def test_what_is_absent_is_said_without_the_names_of_others(server: Running, run_id: str) -> None:
    for name in ("secret-iris", "public-a"):
        assert server.post("registered-models/create", {"name": name}).ok
    assert server.post("model-versions/create", {"name": "public-a", "source": f"runs:/{run_id}/model"}).ok
    server.caller = Caller("ana", (Grant(Role.MAINTAINER, None, "public-*"),), "token")
    for path, said in {
        f"{MODELS}/get?name=public-iris": "Registered Model with name=public-iris not found",
        f"{MODELS}/get?name=secret-iris": "Registered Model with name=secret-iris not found",
        f"{VERSIONS}/get?name=public-iris&version=1": "Registered Model with name=public-iris not found",
        f"{VERSIONS}/get?name=public-a&version=7": "Model Version (name=public-a, version=7) not found",
    }.items():
        answer = server.get(path).json
        assert answer == {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": said}
    wrong = server.get(f"{VERSIONS}/get?name=public-a&version=one")
    said = "Parameter 'version' must be an integer, got 'one'."
    assert (wrong.status, wrong.json) == (400, {"error_code": "INVALID_PARAMETER_VALUE", "message": said})
    twice = server.post("registered-models/create", {"name": "public-a"})
    said = "Registered Model (name=public-a) already exists."
    assert (twice.status, twice.json) == (400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": said})


def test_only_files_of_the_named_run_can_be_registered(server: Running, run_id: str) -> None:
    other = server.new_run()
    put(server, other, "model/MLmodel", b"x")
    assert server.post("registered-models/create", {"name": "m"}).ok
    for source in ELSEWHERE:
        body = {"name": "m", "source": source.format(run=run_id, other=other), "run_id": run_id}
        answer = server.post("model-versions/create", body)
        assert answer.status in (400, 404), (source, answer)
    assert server.get(f"{VERSIONS}/search").ok == {}


def test_the_files_of_a_run_that_one_may_not_read_cannot_be_registered(server: Running, run_id: str) -> None:
    server.caller = Caller("eve", (Grant(Role.WRITER, "mine", "*"),), "token")
    assert server.post("registered-models/create", {"name": "m"}).ok
    answer = server.post("model-versions/create", {"name": "m", "source": f"runs:/{run_id}/model"})
    assert (answer.status, answer.json["message"]) == (404, f"Run with id={run_id} not found")


def test_one_sees_only_the_models_that_one_may(server: Running, run_id: str) -> None:
    for name in ("mine", "theirs"):
        assert server.post("registered-models/create", {"name": name}).ok
        assert server.post("model-versions/create", {"name": name, "source": f"runs:/{run_id}/model"}).ok
    server.caller = Caller("ana", (Grant(Role.WRITER, "*", "mine"),), "token")
    assert [one["name"] for one in server.get(f"{MODELS}/search").ok["registered_models"]] == ["mine"]
    assert [one["name"] for one in server.get(f"{VERSIONS}/search").ok["model_versions"]] == ["mine"]
    hidden, absent = (server.get(f"{MODELS}/get?name={name}") for name in ("theirs", "nobody"))
    assert hidden.status == absent.status == 404
    assert hidden.json["message"].replace("theirs", "X") == absent.json["message"].replace("nobody", "X")
    stage = {"name": "mine", "version": "1", "stage": "Production"}
    assert server.post("model-versions/transition-stage", stage).status == 403
    assert server.post("registered-models/rename", {"name": "mine", "new_name": "theirs2"}).status in (403, 404)


def test_requirements_are_edited_without_touching_the_version(server: Running, run_id: str) -> None:
    where = "/api/2.0/gittrack/model-versions/requirements"
    assert server.post("registered-models/create", {"name": "m"}).ok
    made = server.post("model-versions/create", {"name": "m", "source": f"runs:/{run_id}/model"}).ok
    assert server.get(f"{where}?name=m&version=1").ok == {"requirements": []}
    body = {"name": "m", "version": "1", "requirements": ["numpy==1.26.4"], "reason": "a fix"}
    assert server.ask("POST", where, body).ok == {}
    assert server.get(f"{where}?name=m&version=1").ok == {"requirements": ["numpy==1.26.4"]}
    assert [one.reason for one in server.hub.registry.requirements_history("m", "1")][-1:] == ["a fix"]
    again = server.get(f"{VERSIONS}/get?name=m&version=1").ok["model_version"]
    assert again["source"] == made["model_version"]["source"]
    assert server.ask("POST", where, {**body, "requirements": ["--index-url http://evil"]}).status == 400
    assert server.ask("POST", where, {**body, "version": "9"}).status == 404
