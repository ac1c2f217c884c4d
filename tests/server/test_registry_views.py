"""What the web page is told of registered models: versions, signatures, conflicts, the audit trail, lineage."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from gittrack.registry.registry import Registry
from gittrack.server.hub.roles import Caller, Grant, Role
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from tests.conftest import Sandbox
from tests.server.conftest import Answer, Running, running
from tests.server.team import Team, serving
from tests.server.test_artifacts import put

API = "/api/2.0/gittrack"
MLMODEL = b"""flavors: {python_function: {loader_module: x}, sklearn: {}}
signature:
  inputs: '[{"type": "double", "name": "petal", "required": true}]'
  outputs: '[{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]'
  params: null
"""
HOSTILE = "<b onclick=x()> '\"`${1} é 模型"


def view(server: Running | Team, path: str, **said: Any) -> Any:
    return server.ask("GET", f"{API}/{path}?{urlencode(said)}").ok


def done(answer: Answer) -> None:
    assert answer.status == 200, answer


def version_of(server: Running, name: str, acc: float = 0.9, **files: bytes) -> str:
    """A run with a dataset and a model, registered; the run's id."""
    run_id = server.new_run(run_name=f"trained {acc}")
    done(server.post("runs/log-metric", {"run_id": run_id, "key": "acc", "value": acc, "timestamp": 1}))
    done(server.post("runs/log-parameter", {"run_id": run_id, "key": "lr", "value": str(acc / 10)}))
    data = {"name": "iris.csv", "digest": "d1", "source_type": "local", "source": "data/iris.csv"}
    done(server.post("runs/log-inputs", {"run_id": run_id, "datasets": [{"tags": [], "dataset": data}]}))
    for path, content in {"MLmodel": MLMODEL, "requirements.txt": b"scikit-learn==1.7.2\n", **files}.items():
        put(server, run_id, f"model/{path}", content)
    done(server.post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 5}))
    made = server.post("model-versions/create", {"name": name, "source": f"runs:/{run_id}/model"}).ok
    assert made["model_version"]["run_id"] == run_id
    return run_id


@pytest.fixture
def iris(server: Running) -> Running:
    """Two versions of `iris`."""
    done(server.post("registered-models/create", {"name": "iris", "description": "of flowers"}))
    version_of(server, "iris", 0.8)
    version_of(server, "iris", 0.9, extra=b"more")
    return server


def test_the_state_of_a_model(iris: Running) -> None:
    moved = {"name": "iris", "version": "2", "stage": "Production", "reason": "the better one"}
    done(iris.post("model-versions/transition-stage", moved))
    alias = {"name": "iris", "alias": "champion", "version": "1", "reason": "for a while"}
    done(iris.ask("POST", "/api/2.0/mlflow/registered-models/alias", alias))
    found = view(iris, "registered-models/state", name="iris")
    assert (found["model"]["name"], found["model"]["description"], found["role"]) == ("iris", "of flowers", "admin")
    assert [one["version"] for one in found["versions"]] == ["2", "1"]
    newest = found["versions"][0]
    assert (newest["current_stage"], newest["published"], newest["refused"]) == ("Production", True, [])
    assert newest["signed"]["state"] == "unsigned"
    assert found["versions"][1]["aliases"] == ["champion"]
    assert (found["total"], found["conflicts"], found["rules"], found["rules_trouble"]) == (2, [], [], "")
    older = view(iris, "registered-models/state", name="iris", max_results=1, offset=1)
    assert ([one["version"] for one in older["versions"]], older["total"]) == (["1"], 2)


def test_the_audit_trail_says_why_and_what_was_replaced(iris: Running) -> None:
    for version, reason in (("1", "first"), ("2", "better")):
        moved = {"name": "iris", "version": version, "stage": "Staging", "archive_existing_versions": True}
        done(iris.post("model-versions/transition-stage", {**moved, "reason": reason}))
    done(
        iris.ask(
            "DELETE", f"{API}/model-versions/requirements", {"name": "iris", "version": "1", "reason": "as it was"}
        )
    )
    found = view(iris, "registered-models/history", name="iris")
    told = [(one["what"], one["version"], one["old"], one["new"], one["reason"]) for one in found["changes"]]
    assert ("stage", 2, "None", "Staging", "better") in told
    assert ("stage", 1, "Staging", "Archived", "better") in told
    assert any(one[0] == "requirements" and one[4] == "as it was" for one in told)
    later = next(one for one in found["changes"] if one["reason"] == "better" and one["version"] == 2)
    assert later["replaces"] == ["models/iris/staging/1"]
    of_one = view(iris, "registered-models/history", name="iris", version=1)
    assert {one["version"] for one in of_one["changes"]} == {1}
    page = view(iris, "registered-models/history", name="iris", max_results=1, offset=1)
    assert (page["total"], page["changes"]) == (found["total"], found["changes"][1:2])


def test_who_did_something_is_whose_account_it_was(iris: Running) -> None:
    """Not the person whom git's settings on the server's machine name; on a machine of one's own that is who did it."""
    iris.caller = Caller("ana", (Grant(Role.MAINTAINER, models="*"),), "user")
    done(iris.post("model-versions/transition-stage", {"name": "iris", "version": "2", "stage": "Staging"}))
    lines = {"name": "iris", "version": "2", "requirements": ["numpy"]}
    done(iris.ask("POST", f"{API}/model-versions/requirements", lines))
    found = view(iris, "registered-models/history", name="iris")["changes"]
    assert {one["what"]: one["who"] for one in found if one["version"] == 2 and one["what"] != "version"} == {
        "stage": "ana <ana>", "requirements": "ana <ana>",
    }  # fmt: skip
    registered = next(one for one in found if one["what"] == "version")
    assert registered["who"] == iris.hub.tracker.repo.git.identity()


def test_a_version_with_its_lineage_schema_and_requirements(iris: Running) -> None:
    found = view(iris, "model-versions/overview", name="iris", version=2)
    lineage = found["lineage"]
    assert lineage["datasets"][0]["dataset"]["name"] == "iris.csv"
    run = lineage["run"]
    assert (run["run_name"], run["experiment"], run["metrics"], run["params"]["lr"]) == (
        "trained 0.9", "Default", {"acc": 0.9}, "0.09",
    )  # fmt: skip
    assert [one["path"] for one in found["files"]] == ["MLmodel", "extra", "requirements.txt"]
    assert found["signature"]["inputs"] == [{"type": "double", "name": "petal", "required": True}]
    assert (found["flavors"], found["signature"]["params"]) == (["python_function", "sklearn"], None)
    assert found["requirements"]["lines"] == found["requirements"]["recorded"] == ["scikit-learn==1.7.2"]
    new = {"name": "iris", "version": "2", "requirements": ["numpy==2.0", "scikit-learn"], "reason": "it needs it"}
    done(iris.ask("POST", f"{API}/model-versions/requirements", new))
    changed = view(iris, "model-versions/overview", name="iris", version=2)["requirements"]
    assert (changed["lines"], changed["changed"]) == (["numpy==2.0", "scikit-learn"], True)
    assert (changed["recorded"], changed["history"][0]["reason"]) == (["scikit-learn==1.7.2"], "it needs it")
    wrong = iris.ask("POST", f"{API}/model-versions/requirements", {**new, "requirements": ["--index-url=http://x"]})
    assert wrong.status == 400
    done(iris.ask("DELETE", f"{API}/model-versions/requirements", {"name": "iris", "version": "2"}))
    assert not view(iris, "model-versions/overview", name="iris", version=2)["requirements"]["changed"]


def test_what_differs_between_two_versions(iris: Running) -> None:
    found = view(iris, "model-versions/diff", name="iris", version=1, other=2)
    assert found["params"] == {"lr": {"a": "0.08", "b": "0.09"}}
    assert found["metrics"] == {"acc": {"a": 0.8, "b": 0.9}}
    assert found["artifacts"]["extra"]["a"] is None
    assert found["artifacts"]["extra"]["b"]["size"] == 4
    assert found["same"]["artifacts"] == 2
    assert found["requirements"] == [["scikit-learn==1.7.2"], ["scikit-learn==1.7.2"]]
    same = view(iris, "model-versions/diff", name="iris", version=1, other=1)
    assert (same["params"], same["artifacts"]) == ({}, {})


def test_a_run_that_is_hidden_stays_hidden(iris: Running) -> None:
    """Who may read the model and not the experiment is told neither the run's name, data nor results."""
    iris.caller = Caller("guest", (Grant(Role.READER, models="iris"),), "token")
    found = view(iris, "model-versions/overview", name="iris", version=2)
    assert found["lineage"] == {"run": None, "datasets": [], "models": []}
    assert found["files"]
    compared = view(iris, "model-versions/diff", name="iris", version=1, other=2)
    assert compared["runs_seen"] is False
    assert not {"params", "metrics", "environment"} & set(compared)
    assert set(compared["same"]) == {"artifacts"}
    assert view(iris, "registered-models/state", name="iris")["role"] == "reader"
    for said in ({"name": "other"}, {"name": "iris2"}):
        assert iris.get(f"{API}/registered-models/state?{urlencode(said)}").status == 404


@pytest.mark.parametrize("role", list(Role))
def test_what_it_takes_to_change_something(iris: Running, role: Role) -> None:
    iris.caller = Caller("somebody", (Grant(role, "*", "iris"),), "token")
    wanted = 200 if role >= Role.MAINTAINER else 403
    moved = {"name": "iris", "version": "1", "stage": "Staging", "reason": "now"}
    assert iris.post("model-versions/transition-stage", moved).status == wanted
    lines = {"name": "iris", "version": "1", "requirements": ["numpy"]}
    assert iris.ask("POST", f"{API}/model-versions/requirements", lines).status == wanted
    assert iris.ask("DELETE", f"{API}/model-versions/requirements", {"name": "iris", "version": "1"}).status == wanted
    settled = iris.ask("POST", f"{API}/registered-models/settle", {"name": "iris", "about": "Staging", "version": "1"})
    assert settled.status == (400 if role >= Role.MAINTAINER else 403)  # there is no conflict
    assert view(iris, "registered-models/state", name="iris")["role"] == role.name.lower()


def test_rules_are_told_to_those_who_have_to_keep_them(git_repo: Sandbox) -> None:
    (git_repo.path / "pyproject.toml").write_text(
        '[tool.gittrack.registry.production]\nrequire = "metrics.acc > 0.85"\n'
    )
    with running(git_repo.path) as server:
        done(server.post("registered-models/create", {"name": "iris"}))
        version_of(server, "iris", 0.8)
        found = view(server, "registered-models/state", name="iris")
        assert [(one["place"], one["require"]) for one in found["rules"]] == [("Production", "metrics.acc > 0.85")]
        refused = server.post(
            "model-versions/transition-stage", {"name": "iris", "version": "1", "stage": "Production"}
        )
        assert refused.status == 403
        assert "metrics.acc > 0.85" in refused.json["message"]
        server.caller = Caller("writer", (Grant(Role.WRITER, models="*"),), "token")
        assert view(server, "registered-models/state", name="iris")["rules"] == []
        server.caller = Caller("admin", (Grant(Role.ADMIN, "*", "*"),), "token")
        (git_repo.path / "pyproject.toml").write_text("[tool.gittrack.registry.nowhere]\n")
        assert "nowhere" in view(server, "registered-models/state", name="iris")["rules_trouble"]


# --- what other clones did


@pytest.fixture
def shared(git_repo: Sandbox, tmp_path: Path) -> Iterator[tuple[Running, Registry]]:
    """A server, and a colleague's clone with the same model, that share a git remote."""
    hub = tmp_path / "hub.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(hub)], check=True)
    git_repo.git("remote", "add", "origin", str(hub))
    git_repo.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
    with running(git_repo.path) as server:
        done(server.post("registered-models/create", {"name": "iris"}))
        version_of(server, "iris", 0.8)
        version_of(server, "iris", 0.9)
        server.hub.tracker.flush()
        tags = ("refs/tags/models/*:refs/tags/models/*", "refs/runs/*:refs/runs/*")
        documents = "refs/gittrack/registry/*:refs/gittrack/registry/*"
        git_repo.git("push", "--quiet", "origin", *tags, documents)
        subprocess.run(["git", "clone", "--quiet", str(hub), str(tmp_path / "bo")], check=True)
        other = Sandbox(tmp_path / "bo", "ordinary")
        other.git("fetch", "--quiet", "origin", *tags, documents)
        other.git("config", "user.name", "Bo")
        other.git("config", "user.email", "bo@lab")
        tracker = Tracker(Repo.find(other.path, create=True), strict=True)
        yield server, Registry(tracker)
        tracker.close()


def test_a_conflict_is_told_and_settled(shared: tuple[Running, Registry], git_repo: Sandbox) -> None:
    server, bo = shared
    found = view(server, "registered-models/state", name="iris")
    assert found["remote"] == "origin"
    assert [one["published"] for one in found["versions"]] == [False, False]  # nothing was looked at there yet
    bo.promote("iris", 1, "Production", archive_existing=False, reason="it is proved")
    done(server.post("model-versions/transition-stage", {"name": "iris", "version": "2", "stage": "Production"}))
    bo.repo.git.program.run("push", "--quiet", "origin", "refs/tags/models/*:refs/tags/models/*")
    git_repo.git("fetch", "--quiet", "origin", "refs/tags/models/*:refs/gittrack/remotes/origin/tags/models/*")
    found = view(server, "registered-models/state", name="iris")
    assert [one["published"] for one in found["versions"]] == [True, True]
    (conflict,) = found["conflicts"]
    assert conflict["about"] == ["Production"]
    sides = {one["here"]: one for one in conflict["events"]}
    assert (sides[True]["version"], sides[False]["version"], sides[False]["reason"]) == (2, 1, "it is proved")
    assert sides[False]["who"] == "Bo <bo@lab>"
    stuck = server.post("model-versions/transition-stage", {"name": "iris", "version": "1", "stage": "Production"})
    assert stuck.status == 409
    settled = {"name": "iris", "about": "Production", "version": "1", "reason": "Bo is right"}
    answer = server.ask("POST", f"{API}/registered-models/settle", settled).ok["model_version"]
    assert (answer["version"], answer["current_stage"]) == ("1", "Production")
    found = view(server, "registered-models/state", name="iris")
    assert found["conflicts"] == []
    assert {one["version"]: one["current_stage"] for one in found["versions"]} == {"1": "Production", "2": "Archived"}


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_signatures(git_repo: Sandbox, tmp_path: Path) -> None:
    key, allowed = tmp_path / "key", tmp_path / "allowed"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    allowed.write_text(f"ana@lab {(tmp_path / 'key.pub').read_text()}")
    git_repo.git("config", "gpg.format", "ssh")
    git_repo.git("config", "user.signingKey", str(key))
    git_repo.git("config", "gpg.ssh.allowedSignersFile", str(allowed))
    git_repo.git("config", "gittrack.requireSigned", "production")
    with running(git_repo.path) as server:
        done(server.post("registered-models/create", {"name": "iris"}))
        version_of(server, "iris", 0.8)
        unsigned = server.post(
            "model-versions/transition-stage", {"name": "iris", "version": "1", "stage": "Production"}
        )
        assert unsigned.status == 403
        assert "signed" in unsigned.json["message"]
        server.hub.registry.promote("iris", 1, "Production", archive_existing=False, sign=True)
        (version,) = view(server, "registered-models/state", name="iris")["versions"]
        assert (version["signed"]["state"], version["signed"]["signer"]) == ("good", "ana@lab")
        assert version["refused"] == []
        tags = view(server, "model-versions/overview", name="iris", version=1)["tags"]
        assert [(one["tag"], one["state"]) for one in tags] == [
            ("models/iris/v1", "unsigned"), ("models/iris/production/1", "good"),
        ]  # fmt: skip
        allowed.write_text("")  # and nobody may any more
        (version,) = view(server, "registered-models/state", name="iris")["versions"]
        assert version["signed"]["state"] == "unsigned"
        assert "not released" in version["refused"][0]


def test_a_version_whose_files_are_elsewhere(server: Running) -> None:
    done(server.post("registered-models/create", {"name": "iris"}))
    done(server.post("model-versions/create", {"name": "iris", "source": "s3://bucket/model"}))
    assert view(server, "registered-models/state", name="iris")["total"] == 1
    found = view(server, "model-versions/overview", name="iris", version=1)
    assert found["version"]["source"] == "s3://bucket/model"
    assert (found["files"], found["lineage"]["run"], found["signature"]) == ([], None, None)


# --- what is hostile


def test_hostile_names_and_files(server: Running) -> None:
    done(server.post("registered-models/create", {"name": HOSTILE, "description": HOSTILE}))
    version_of(server, HOSTILE, 0.8, MLmodel=b"flavors: &a [*a]\n", **{"requirements.txt": b"--index-url=http://x\n"})
    assert view(server, "registered-models/state", name=HOSTILE)["model"]["description"] == HOSTILE
    found = view(server, "model-versions/overview", name=HOSTILE, version=1)
    assert found["signature"] is None
    assert found["schema_trouble"]
    assert found["requirements"]["trouble"]
    for said in (
        {"name": "../x"}, {"name": HOSTILE, "version": "-1"}, {"name": HOSTILE, "version": "9" * 30},
        {"name": "\0", "version": "1"}, {},
    ):  # fmt: skip
        for path in ("model-versions/overview", "model-versions/diff"):
            assert server.get(f"{API}/{path}?{urlencode({'other': '1', **said})}").status in (400, 404), said
    page = view(server, "registered-models/history", name=HOSTILE, max_results=0)
    assert page["changes"] == []


def test_who_settles_is_in_the_audit_log(git_repo: Sandbox) -> None:
    with serving(git_repo.path) as team:
        team.things("mine")
        said = {"name": "mine", "about": "Production", "version": "1"}
        assert team.ask("POST", f"{API}/registered-models/settle", said).status == 400
        newest = list(team.server.guard.audit.lines())[-1]
        assert (newest["who"], newest["what"]) == ("admin", "POST /gittrack/registered-models/settle")
        assert newest["outcome"].startswith("refused")
