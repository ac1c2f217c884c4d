"""What the web page shows of runs and of several beside each other: values, code, environment, lineage, documents."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from gittrack.server.hub.roles import Caller, Grant, Role
from gittrack.store.repo import Repo
from gittrack.track import code
from gittrack.track.capture import Capturer
from gittrack.track.runs import Tracker
from tests.conftest import Sandbox
from tests.server.conftest import Answer, Running

AT = "/ajax-api/2.0/gittrack/runs"
ANA = Caller("ana", (Grant(Role.READER, experiments="Default"),), "user")
#: A run with code, and options of how it is made.
Coded = Callable[..., str]


def ask(server: Running, at: str, /, **said: Any) -> Answer:
    return server.get(f"{AT}/{at}?{urlencode(said, doseq=True)}")


def put(server: Running, run_id: str, path: str, data: bytes) -> None:
    assert server.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/{path}", data).status == 200


@pytest.fixture
def coded(git_repo: Sandbox, server: Running) -> Coded:
    """Makes runs as a training on this machine does, with the code as it is now."""

    def make(
        *, name: str = "coded", mode: str = "full", environ: dict[str, str] | None = None, seal: bool = True
    ) -> str:
        capture = Capturer(argv=["train.py", "--lr", "1"], environ=environ or {}, cwd=git_repo.path, mode=mode,
                           max_untracked=1 << 20)  # fmt: skip
        tracker = Tracker(Repo.find(git_repo.path, create=True), capture=capture, strict=True)
        run = tracker.create_run(name="coded")
        tracker.flush()
        if seal:
            run.end("FINISHED")
        tracker.close()
        return str(run.run_id)

    return make


# --- code


def changed(server: Running, **said: Any) -> dict[str, tuple[str, Any, Any]]:
    found = ask(server, "code/changes", **said).ok
    assert found["total"] == len(found["files"])
    return {one["path"]: (one["status"], one.get("added"), one.get("deleted")) for one in found["files"]}


@pytest.mark.parametrize("seal", [True, False], ids=["committed", "going on"])
def test_what_was_not_committed(server: Running, git_repo: Sandbox, coded: Coded, seal: bool) -> None:
    git_repo.write("data.bin", b"\0")
    git_repo.commit(train_py="a\nb\n", gone_py="x\n", old_py="1\n2\n3\n4\n5\n6\n", same_py="s\n")
    git_repo.write("train.py", "a\nB\nc\n")
    git_repo.write("new file é.py", "n\n")
    git_repo.write("data.bin", b"\0\1\2")
    (git_repo.path / "gone.py").unlink()
    (git_repo.path / "old.py").rename(git_repo.path / "moved.py")
    run_id = coded(seal=seal)
    found = changed(server, run_id=run_id)
    assert found == {
        "data.bin": ("M", None, None),
        "gone.py": ("D", 0, 1),
        "moved.py": ("R", 0, 0),
        "new file é.py": ("A", 1, 0),
        "train.py": ("M", 2, 1),
    }
    moved = next(one for one in ask(server, "code/changes", run_id=run_id).ok["files"] if one["status"] == "R")
    assert moved["old_path"] == "old.py"
    lines = ask(server, "code/diff", run_id=run_id, path="train.py").ok["diff"].splitlines()
    assert lines[-4:] == [" a", "-b", "+B", "+c"]
    assert (
        "rename from old.py" in ask(server, "code/diff", run_id=run_id, path="moved.py", old_path="old.py").ok["diff"]
    )
    assert "Binary files" in ask(server, "code/diff", run_id=run_id, path="data.bin").ok["diff"]
    assert ask(server, "code/diff", run_id=run_id, path="same.py").ok["diff"] == ""


def test_the_files_of_a_run(server: Running, git_repo: Sandbox, coded: Coded) -> None:
    git_repo.write("src/model.py", "m\n")
    git_repo.write("data.bin", b"\0\1")
    git_repo.commit(train_py="a\n")
    (git_repo.path / "link").symlink_to("train.py")
    run_id = coded()
    git_repo.commit(train_py="later\n")
    top = ask(server, "code/files", run_id=run_id).ok
    assert top == {
        "total": 6,
        "files": [
            {"name": "lib", "kind": "folder"},
            {"name": "src", "kind": "folder"},
            {"name": "README.md", "kind": "file", "size": len((git_repo.path / "README.md").read_bytes())},
            {"name": "data.bin", "kind": "file", "size": 2},
            {"name": "link", "kind": "link"},
            {"name": "train.py", "kind": "file", "size": 2},
        ],
    }
    assert ask(server, "code/files", run_id=run_id, path="src").ok["files"][0]["name"] == "model.py"
    assert ask(server, "code/file", run_id=run_id, path="train.py").ok == {"kind": "file", "size": 2, "text": "a\n"}
    assert ask(server, "code/file", run_id=run_id, path="link").ok == {"kind": "link", "size": 8, "text": "train.py"}
    assert ask(server, "code/file", run_id=run_id, path="data.bin").ok == {"kind": "file", "size": 2}


def test_before_the_first_commit_everything_is_new(server: Running, git_repo: Sandbox, coded: Coded) -> None:
    git_repo.git("checkout", "--quiet", "--orphan", "fresh")
    git_repo.git("rm", "-rfq", "--ignore-unmatch", ".")
    git_repo.write("a.py", "1\n")
    assert changed(server, run_id=coded()) == {"a.py": ("A", 1, 0)}


def test_how_two_runs_differ(server: Running, git_repo: Sandbox, coded: Coded) -> None:
    git_repo.commit(train_py="a\n")
    first = coded()
    git_repo.write("train.py", "b\n")
    other = coded()
    nothing = server.new_run()
    assert changed(server, run_id=other, base_run_id=first) == {"train.py": ("M", 1, 1)}
    assert changed(server, run_id=first, base_run_id=first) == {}
    found = ask(server, "code/diff", run_id=first, base_run_id=other, path="train.py").ok["diff"]
    assert found.splitlines()[-2:] == ["-b", "+a"]
    assert changed(server, run_id=other, base_run_id=nothing)["train.py"] == ("A", 1, 0)


@pytest.mark.parametrize("ended", [True, False])
def test_a_run_without_code(server: Running, ended: bool) -> None:
    run_id = server.new_run()
    if ended:
        server.post("runs/update", {"run_id": run_id, "status": "FINISHED"})
        server.hub.tracker.flush()
    assert ask(server, "environment", run_ids=[run_id]).ok["code"][0]["has_code"] is False
    assert ask(server, "code/changes", run_id=run_id).ok == {"total": 0, "files": []}
    refused = ask(server, "code/files", run_id=run_id)
    assert (refused.status, "carries no code" in refused.json["message"]) == (404, True)


def test_what_gittrack_adds_is_no_code(server: Running, git_repo: Sandbox, coded: Coded) -> None:
    git_repo.commit(train_py="a\n")
    run_id = coded()
    assert changed(server, run_id=run_id) == {}
    listed = ask(server, "code/files", run_id=run_id).ok["files"]
    assert [one["name"] for one in listed] == ["lib", "README.md", "train.py"]
    for path in (".gittrack", ".gittrack/run", ".git", "../x", "/etc/passwd", "train.py/x", "src//x"):
        assert ask(server, "code/files", run_id=run_id, path=path).status == 404
        assert ask(server, "code/file", run_id=run_id, path=path).status == 404


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a\0b", "a/./b", "--output=x/..", "a//b"])
def test_paths_that_are_none(server: Running, git_repo: Sandbox, coded: Coded, path: str) -> None:
    git_repo.commit(train_py="a\n")
    assert ask(server, "code/diff", run_id=coded(), path=path).status == 400


def test_names_that_git_could_take_for_more(server: Running, git_repo: Sandbox, coded: Coded) -> None:
    git_repo.commit(train_py="a\n")
    names = ["--output=x", ":(glob)*", ":100644 100644 " + "0" * 40 + " " + "0" * 40 + " M", "1\t2\t", 'q"\n.py']
    for name in names:
        git_repo.write(name, "x\n")
    run_id = coded()
    assert changed(server, run_id=run_id) == dict.fromkeys(names, ("A", 1, 0))
    for name in names:
        assert ask(server, "code/diff", run_id=run_id, path=name).ok["diff"].endswith("+x\n"), name
    assert not (git_repo.path / "x").exists()


def test_what_is_too_large_is_said(
    server: Running, git_repo: Sandbox, coded: Coded, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_repo.commit(train_py="a\n")
    git_repo.write("large.txt", "0123456789\n" * 10)
    run_id = coded()
    monkeypatch.setattr(code, "MAX_FILE", 100)
    assert ask(server, "code/file", run_id=run_id, path="large.txt").ok == {"kind": "file", "size": 110}
    refused = ask(server, "code/diff", run_id=run_id, path="large.txt")
    assert (refused.status, "gittrack diff" in refused.json["message"]) == (413, True)


def test_a_record_that_names_a_commit_shows_nothing_of_it(server: Running, git_repo: Sandbox, coded: Coded) -> None:
    """What a run builds on was checked when it came here; what its record says it started on was not."""
    secret = git_repo.commit(secret_py="the secret\n")
    git_repo.git("checkout", "--quiet", "--orphan", "mine")
    git_repo.git("rm", "-rfq", ".")
    git_repo.commit(mine_py="1\n")
    run_id = coded()
    run = server.hub.run(run_id)
    forged = type(run)(run.info, run.data, code={**run.code, "commit": secret}, commit=run.commit)
    server.hub.run = lambda run_id: forged  # type: ignore[method-assign]
    for path, said in (("code/changes", {}), ("code/diff", {"path": "secret.py"})):
        refused = ask(server, path, run_id=run_id, **said)
        assert refused.status == 404
        assert b"the secret" not in refused.body


# --- values, environment, files


def test_runs_beside_each_other(server: Running) -> None:
    first, second = (server.new_run(run_name=name, start_time=1) for name in ("first", "second"))
    for step, value in enumerate([3, 1, 2]):
        point = {"key": "loss", "value": value, "timestamp": 1, "step": step}
        server.post("runs/log-metric", {"run_id": first, **point})
    server.post("runs/log-metric", {"run_id": second, "key": "odd", "value": "NaN", "timestamp": 1})
    server.post("runs/log-parameter", {"run_id": second, "key": "lr", "value": "1"})
    server.post("runs/set-tag", {"run_id": first, "key": "team", "value": "blue"})
    found = ask(server, "compare", run_ids=[second, first, second]).ok
    assert [(one["run_name"], one["experiment_name"]) for one in found["runs"]] == [
        ("second", "Default"),
        ("first", "Default"),
    ]
    assert found["metrics"] == {
        "loss": {"last": [None, 2.0], "min": [None, 1.0], "max": [None, 3.0], "step": [None, 2], "count": [None, 3]},
        "odd": {
            "last": ["NaN", None],
            "min": ["NaN", None],
            "max": ["NaN", None],
            "step": [0, None],
            "count": [1, None],
        },
    }
    assert found["params"] == {"lr": ["1", None]}
    assert found["tags"]["team"] == [None, "blue"]
    assert found["absent"] == []


def test_a_run_that_was_taken_away_leaves_the_others(server: Running) -> None:
    run_id = server.new_run()
    for path in ("compare", "environment", "files"):
        found = ask(server, path, run_ids=["0" * 32, run_id]).ok
        assert (found["absent"], [one["run_id"] for one in found["runs"]]) == (["0" * 32], [run_id])
        assert ask(server, path, run_ids=[f"x{number}" for number in range(101)]).status == 400
        assert ask(server, path, run_ids=["'; DROP TABLE runs --", "../x"]).ok["runs"] == []


def test_what_somebody_may_not_see_is_absent(server: Running) -> None:
    other = server.post("experiments/create", {"name": "other"}).ok["experiment_id"]
    mine, secret = server.new_run(), server.new_run(experiment_id=other, run_name="the secret")
    server.caller = ANA
    for path in ("compare", "environment", "files"):
        found = ask(server, path, run_ids=[mine, secret])
        assert found.ok["absent"] == [secret]
        assert b"the secret" not in found.body
    for path in ("code/changes", "code/files", "lineage"):
        assert ask(server, path, run_id=secret).status == 404
    assert ask(server, "code/changes", run_id=mine, base_run_id=secret).status == 404


def test_the_environment(server: Running, git_repo: Sandbox, coded: Coded) -> None:
    git_repo.commit(train_py="a\n")
    git_repo.git("remote", "add", "origin", "https://ana:password@example.com/team/model.git")
    git_repo.write(".env", "AWS_SECRET=1\n")
    run_id = coded(environ={"CUDA_VISIBLE_DEVICES": "3"})
    found = ask(server, "environment", run_ids=[server.new_run(), run_id]).ok
    assert found["environment"]["command"] == [None, "train.py --lr 1"]
    assert found["environment"]["variables.CUDA_VISIBLE_DEVICES"] == [None, "3"]
    assert found["environment"]["packages.orjson"][1]
    said = found["code"][1]
    assert said["commit"] == git_repo.git("rev-parse", "HEAD")
    assert said["remote_url"] == "https://example.com/team/model.git"
    assert said["run_commit"] == git_repo.git("rev-parse", said["run_commit"])
    assert [path for path, _ in said["left_out"]] == [".env"]


def test_files_of_several_runs(server: Running) -> None:
    first, second = server.new_run(), server.new_run()
    put(server, first, "plots/a.png", b"1")
    put(server, second, "plots/a.png", b"22")
    put(server, second, "b.txt", b"3")
    found = ask(server, "files", run_ids=[first, second]).ok
    assert {path: [one and one["size"] for one in column] for path, column in found["files"].items()} == {
        "b.txt": [None, 1],
        "plots/a.png": [1, 2],
    }


# --- lineage


def test_lineage(server: Running, git_repo: Sandbox, coded: Coded) -> None:
    git_repo.commit(train_py="a\n")
    run_id = coded()
    child = server.new_run(run_name="child", tags=[{"key": "mlflow.parentRunId", "value": run_id}])
    again = server.new_run(run_name="again", tags=[{"key": "gittrack.reproduces", "value": run_id}])
    dataset = {"name": "digits", "digest": "1", "source_type": "local", "source": "x"}
    tags = [{"key": "mlflow.data.context", "value": "training"}]
    server.post("runs/log-inputs", {"run_id": child, "datasets": [{"dataset": dataset, "tags": tags}]})
    put(server, child, "m/MLmodel", b"flavors: {}")
    server.post("registered-models/create", {"name": "net"})
    server.post("model-versions/create", {"name": "net", "source": f"runs:/{child}/m", "run_id": child})
    model = server.post("logged-models", {"experiment_id": "0", "name": "logged", "source_run_id": child}).ok["model"]
    server.post("runs/outputs", {"run_id": child, "models": [{"model_id": model["info"]["model_id"], "step": 0}]})
    found = ask(server, "lineage", run_id=run_id).ok
    assert [one["run_name"] for one in found["children"]] == ["child"]
    assert [one["run_name"] for one in found["repeated_by"]] == ["again"]
    assert len(found["revisions"]) == 1
    of_child = ask(server, "lineage", run_id=child).ok
    assert of_child["parent"]["run_id"] == run_id
    assert [(one["name"], one["context"]) for one in of_child["datasets"]] == [("digits", "training")]
    assert [(one["name"], one["version"]) for one in of_child["versions"]] == [("net", "1")]
    assert [one["name"] for one in of_child["models"]] == ["logged"]
    assert ask(server, "lineage", run_id=again).ok["repeats"]["run_id"] == run_id


def test_the_lineage_leads_to_nothing_hidden(server: Running) -> None:
    other = server.post("experiments/create", {"name": "other"}).ok["experiment_id"]
    secret = server.new_run(experiment_id=other, run_name="the secret")
    mine = server.new_run(tags=[{"key": "mlflow.parentRunId", "value": secret}])
    server.new_run(experiment_id=other, run_name="the secret", tags=[{"key": "mlflow.parentRunId", "value": mine}])
    put(server, mine, "m/MLmodel", b"flavors: {}")
    server.post("registered-models/create", {"name": "the secret"})
    server.post("model-versions/create", {"name": "the secret", "source": f"runs:/{mine}/m", "run_id": mine})
    model = server.post("logged-models", {"experiment_id": other, "name": "the secret"}).ok["model"]["info"]["model_id"]
    server.post("runs/log-inputs", {"run_id": mine, "models": [{"model_id": model}]})
    assert len(ask(server, "lineage", run_id=mine).ok["children"]) == 1
    server.caller = ANA
    found = ask(server, "lineage", run_id=mine)
    assert "parent" not in found.ok
    assert b"secret" not in found.body
    assert secret.encode() not in found.body


def test_each_change_of_a_run_is_a_revision(server: Running, git_repo: Sandbox, coded: Coded) -> None:
    git_repo.commit(train_py="a\n")
    run_id = coded()
    before = ask(server, "lineage", run_id=run_id).ok["revisions"]
    server.post("runs/set-tag", {"run_id": run_id, "key": "t", "value": "1"})
    server.hub.tracker.flush()
    after = ask(server, "lineage", run_id=run_id).ok["revisions"]
    assert len(after) == len(before) + 1
    assert before[0] in after


# --- documents in a frame


def show(server: Running, run_id: str, path: str, destination: str | None = "iframe", **said: Any) -> Answer:
    headers = {} if destination is None else {"sec_fetch_dest": destination}
    return server.get(f"/show-artifact?{urlencode({'run_id': run_id, 'path': path, **said})}", **headers)


def test_a_document_is_shown_in_a_frame_of_its_own(server: Running) -> None:
    run_id = server.new_run()
    put(server, run_id, "report.html", b"<p>hello</p>")
    put(server, run_id, "a.svg", b"<svg/>")
    plain = show(server, run_id, "report.html")
    assert (plain.status, plain.body, plain.headers["content-type"]) == (
        200,
        b"<p>hello</p>",
        "text/html; charset=utf-8",
    )
    policy = plain.headers["content-security-policy"]
    assert policy.startswith("sandbox; default-src 'none';")
    assert "script-src" not in policy
    assert "allow" not in policy
    assert plain.headers["x-content-type-options"] == "nosniff"
    scripts = show(server, run_id, "report.html", scripts="true").headers["content-security-policy"]
    assert scripts.startswith("sandbox allow-scripts; default-src 'none';")
    assert "allow-same-origin" not in scripts
    assert "connect-src" not in scripts
    for destination in ("document", "empty", "script", "object", None):
        assert show(server, run_id, "report.html", destination).status == 400
    assert show(server, run_id, "a.svg").status == 400
    assert show(server, run_id, "none.html").status == 404


def test_answers_are_small_and_typed(server: Running) -> None:
    """Ten thousand parameters of one run are one answer."""
    run_id = server.new_run()
    for start in range(0, 10_000, 100):
        params = [{"key": f"p{number:05}", "value": "1"} for number in range(start, start + 100)]
        server.post("runs/log-batch", {"run_id": run_id, "params": params})
    found = ask(server, "compare", run_ids=[run_id])
    assert len(json.loads(found.body)["params"]) == 10_000
