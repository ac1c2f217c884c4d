"""An experiment's own `artifact_location`: a place in the server's tree, or an address that clients are sent to."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gittrack.cli.show import everything
from gittrack.errors import InvalidValueError
from gittrack.server.hub import locations, records
from gittrack.server.hub.app import Options
from gittrack.server.hub.roles import Caller, Grant, Role
from tests.conftest import Sandbox
from tests.server.conftest import Running, running
from tests.server.team import Team, serving

FILES = "/api/2.0/mlflow-artifacts/artifacts"


def experiment(server: Running, location: str, name: str = "mine") -> Any:
    made = server.post("experiments/create", {"name": name, "artifact_location": location}).ok["experiment_id"]
    return server.get(f"/api/2.0/mlflow/experiments/get?experiment_id={made}").ok["experiment"]


def run_in(server: Running, of: Any) -> Any:
    return server.post("runs/create", {"experiment_id": of["experiment_id"]}).ok["run"]["info"]


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("mlflow-artifacts:/my/place", "mlflow-artifacts:/my/place"),
        ("mlflow-artifacts:/my/place/", "mlflow-artifacts:/my/place"),
        ("mlflow-artifacts:/", "mlflow-artifacts:/"),
        ("mlflow-artifacts:", "mlflow-artifacts:/"),
        ("mlflow-artifacts://HOST/my/place", "mlflow-artifacts:/my/place"),
        (f"http://HOST{FILES}/my/a%20place", "mlflow-artifacts:/my/a place"),
        (f"http://HOST{FILES}", "mlflow-artifacts:/"),
    ],
)
def test_a_place_of_ones_own(server: Running, location: str, shown: str) -> None:
    """Its runs and logged models have their files there, and at the usual place, too; both are the same files."""
    of = experiment(server, location.replace("HOST", f"127.0.0.1:{server.port}"))
    assert of["artifact_location"] == shown
    info = run_in(server, of)
    assert info["artifact_uri"] == f"{shown.rstrip('/')}/{info['run_id']}/artifacts"
    there = f"{FILES}{info['artifact_uri'].removeprefix('mlflow-artifacts:').replace(' ', '%20')}"
    usual = f"{FILES}/{of['experiment_id']}/{info['run_id']}/artifacts"
    assert server.ask("PUT", f"{there}/sub/x", b"1").ok == {}
    assert server.get(f"{there}/sub/x").body == server.get(f"{usual}/sub/x").body == b"1"
    listed = server.get(f"/api/2.0/mlflow/artifacts/list?run_id={info['run_id']}").ok
    assert listed == {"root_uri": info["artifact_uri"], "files": [{"path": "sub", "is_dir": True}]}
    assert server.get(FILES).ok == {}  # the free tree has nothing of it
    made = server.post("logged-models", {"experiment_id": of["experiment_id"], "name": "m"}).ok["model"]["info"]
    assert made["artifact_uri"] == f"{shown.rstrip('/')}/models/{made['model_id']}/artifacts"
    there = f"{FILES}{made['artifact_uri'].removeprefix('mlflow-artifacts:').replace(' ', '%20')}"
    assert server.ask("PUT", f"{there}/MLmodel", b"2").ok == {}
    one = f"/api/2.0/mlflow/logged-models/{made['model_id']}/artifacts"
    assert server.get(f"{one}/files?artifact_file_path=MLmodel").body == b"2"
    assert server.get(f"{one}/directories").ok["root_uri"] == made["artifact_uri"]
    assert server.post("registered-models/create", {"name": "m"}).ok
    for source, path in ((f"{info['artifact_uri']}/sub", "x"), (made["artifact_uri"], "MLmodel")):
        version = server.post("model-versions/create", {"name": "m", "source": source}).ok["model_version"]
        asked = f"name=m&version={version['version']}"
        assert server.get(f"/model-versions/get-artifact?{asked}&path={path}").body in (b"1", b"2")
    assert server.get(f"/api/2.0/mlflow/runs/get?run_id={info['run_id']}").ok["run"]["info"] == info


@pytest.mark.parametrize(
    "location", ["s3://bucket/a", "file:///data/a", "/data/a", "gs://b", "dbfs:/a", "hdfs://h:1/a"]
)
def test_what_only_clients_reach_is_remembered_and_never_opened(server: Running, location: str) -> None:
    of = experiment(server, location)
    assert of["artifact_location"] == location
    info = run_in(server, of)
    assert info["artifact_uri"] == f"{location}/{info['run_id']}/artifacts"
    assert server.get(f"/api/2.0/mlflow/artifacts/list?run_id={info['run_id']}").ok == {
        "root_uri": info["artifact_uri"]
    }
    answer = server.get(f"/get-artifact?run_id={info['run_id']}&path=x")
    assert (answer.status, info["artifact_uri"] in answer.json["message"]) == (404, True)
    found = server.post("runs/search", {"experiment_ids": [of["experiment_id"]]}).ok["runs"]
    assert found[0]["info"]["artifact_uri"] == info["artifact_uri"]
    run = server.hub.tracker.get_run(info["run_id"])
    assert run.info.artifact_uri == info["artifact_uri"]
    assert f"Files:      {location}/{info['run_id']}/artifacts" in everything(run, {}, {})
    assert server.post("registered-models/create", {"name": "m"}).ok
    for source in (f"{info['artifact_uri']}/model", f"runs:/{info['run_id']}/model"):
        said = {"name": "m", "source": source, "run_id": info["run_id"]}
        version = server.post("model-versions/create", said).ok["model_version"]
        assert (version["source"], version["run_id"]) == (source, info["run_id"])


def test_a_folder_that_a_version_names_is_one_of_its_run(server: Running) -> None:
    of = experiment(server, "file:///data/a")
    info, other = run_in(server, of), run_in(server, of)
    assert server.post("registered-models/create", {"name": "m"}).ok
    top = info["artifact_uri"]
    for source in (top, f"{top}/model", f"{top}/.", f"{top}/model/..", top.removeprefix("file://")):
        said = {"name": "m", "source": source, "run_id": info["run_id"]}
        assert server.post("model-versions/create", said).status == 200, source
    for source, run in ((top, None), (top, other), ("/tmp", info), (f"{top}/../..", info), (f"{top}x", info),
                        (f"{top}/%2e%2e", info), ("file://127.0.0.1/x", info)):  # fmt: skip
        said = {"name": "m", "source": source, **({} if run is None else {"run_id": run["run_id"]})}
        assert server.post("model-versions/create", said).status == 400, source


def test_a_logged_model_says_which_versions_it_became(server: Running) -> None:
    for name, location in (("here", ""), ("there", "file:///data/a")):
        of = experiment(server, location, name)
        made = server.post("logged-models", {"experiment_id": of["experiment_id"], "name": "m"}).ok["model"]["info"]
        model_id, source = made["model_id"], made["artifact_uri"]
        if not location:
            where = source.removeprefix("mlflow-artifacts:")
            assert server.ask("PUT", f"{FILES}{where}/MLmodel", b"flavors: {}").ok == {}
        assert server.post("registered-models/create", {"name": name}).ok
        for number in (1, 2):
            said = {"name": name, "source": source, "model_id": model_id}
            version = server.post("model-versions/create", said).ok["model_version"]
            assert version["model_id"] == model_id
            found = server.hub.logged_model(model_id).tags["mlflow.modelVersions"]
            assert json.loads(found) == [{"name": name, "version": one} for one in range(1, number + 1)]
        server.hub.client.set_logged_model_tags(model_id, {"mlflow.modelVersions": "mine"})
        assert server.post("model-versions/create", said).status == 200
        assert server.hub.logged_model(model_id).tags["mlflow.modelVersions"] == "mine"


@pytest.mark.parametrize(
    "location",
    [
        "https://elsewhere.example/x", f"http://elsewhere.example{FILES}/x", "mlflow-artifacts://elsewhere.example/x",
        f"http://HOST{FILES}/../x", f"http://HOST{FILES}/%2e%2e/x", "http://HOST/x", f"http:{FILES}/x",
        "mlflow-artifacts:/a/../b", "mlflow-artifacts:/a/%252e%252e/b", "mlflow-artifacts:/a\\b",
        "mlflow-artifacts:/C:/x",
        "mlflow-artifacts:/a%00b", "mlflow-artifacts:/.git", "mlflow-artifacts:/a?b", "mlflow-artifacts:/a#b",
        "mlflow-artifacts:/0", f"mlflow-artifacts:/{'1' * 18}/x", "mlflow-artifacts:/" + "a" * 300,
        "s3://bucket/../x", "s3://bucket/%2e%2e/x", "s3://bucket/a?versionId=1", "s3://bucket\\x", "s3://b\nc",
        "ftp://ana:secret@host/x", "javascript:alert(1)", "runs:/x", "models:/x/1", "gittrack:/x", "data:x", "C:\\x",
        "file:///a/../../b", "file://host\\x", "s3://" + "a" * 3000,
    ],
)  # fmt: skip
def test_what_files_cannot_be_at_is_refused(server: Running, location: str) -> None:
    said = {"name": "mine", "artifact_location": location.replace("HOST", f"127.0.0.1:{server.port}")}
    assert server.post("experiments/create", said).status == 400
    assert server.get("/api/2.0/mlflow/experiments/get-by-name?experiment_name=mine").status == 404


def test_new_experiments_are_where_the_server_was_told(git_repo: Sandbox) -> None:
    with running(git_repo.path, Options(artifact_root="s3://bucket/top/")) as server:
        of = experiment(server, "")
        assert of["artifact_location"] == f"s3://bucket/top/{of['experiment_id']}"
        assert experiment(server, "mlflow-artifacts:/x", "other")["artifact_location"] == "mlflow-artifacts:/x"
        run_id = server.new_run()
        run = server.get(f"/api/2.0/mlflow/runs/get?run_id={run_id}").ok["run"]["info"]
        assert run["artifact_uri"] == f"mlflow-artifacts:/0/{run_id}/artifacts"  # Default was there before
    assert locations.taken_root("/data/x/") == "/data/x"
    for wrong in ("https://elsewhere.example/x", "s3://ana:secret@bucket", "models:/x"):
        with pytest.raises(InvalidValueError):
            locations.taken_root(wrong)


def test_a_plain_folder_is_one_of_this_machine_or_none(server: Running) -> None:
    assert experiment(server, "place")["artifact_location"] == str(Path.cwd() / "place")
    server.caller = Caller("ana", (Grant(Role.WRITER, "*", "*"),), "token")
    of = experiment(server, "./place", "other")
    assert of["artifact_location"] == f"mlflow-artifacts:/{of['experiment_id']}"
    for nothing in ("", " "):
        of = experiment(server, nothing, f"usual {nothing!r}")
        assert run_in(server, of)["artifact_uri"].startswith(f"mlflow-artifacts:/{of['experiment_id']}/")


def test_what_a_record_says_is_looked_at_before_clients_are_sent_there(server: Running) -> None:
    """It may have been pushed, or shipped, by anybody who may write runs."""
    run_id = server.new_run()
    for address in ("http://elsewhere.example/x", "mlflow-artifacts://elsewhere.example/x", "s3://b/../x", "x", ""):
        server.hub.writer(run_id).set_artifact_uri(address)
        info = server.get(f"/api/2.0/mlflow/runs/get?run_id={run_id}").ok["run"]["info"]
        assert info["artifact_uri"] == f"mlflow-artifacts:/0/{run_id}/artifacts"
    assert not records.is_place("mlflow-artifacts:x")


@pytest.fixture
def team(git_repo: Sandbox) -> Iterator[Team]:
    with serving(git_repo.path) as found:
        yield found


def test_who_may_not_see_a_run_does_not_find_it_at_its_place(team: Team) -> None:
    made = team.post("experiments/create", {"name": "mine", "artifact_location": "mlflow-artifacts:/place"}).ok
    run_id = team.post("runs/create", made).ok["run"]["info"]["run_id"]
    where = f"{FILES}/place/{run_id}/artifacts/x"
    owner, other = team.token(Grant(Role.WRITER, "mine")), team.token(Grant(Role.WRITER, "other", "*"))
    assert team.ask("PUT", where, b"1", owner).ok == {}
    assert team.ask("GET", where, token=owner).body == b"1"
    assert team.ask("PUT", f"{FILES}/place/x", b"1", owner).status == 404  # of no run
    nothing = team.ask("GET", f"{FILES}/place/{'0' * 32}/artifacts/x", token=other)
    for method in ("GET", "PUT", "DELETE"):
        answer = team.ask(method, where, b"2" if method == "PUT" else None, other)
        assert (answer.status, answer.body) == (404, nothing.body)
    assert team.post("registered-models/create", {"name": "other"}, other).ok
    said = [
        team.post(
            "model-versions/create", {"name": "other", "source": f"mlflow-artifacts:/place/{one}/artifacts"}, other
        )
        for one in (run_id, "0" * 32)
    ]
    assert [one.status for one in said] == [404, 404]
    assert said[0].body == said[1].body
