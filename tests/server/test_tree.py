"""The free tree: files under paths of somebody's own, kept as those of runs are, for those who may see everything."""

import os
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from gittrack.server.hub.app import Options
from gittrack.server.hub.roles import Grant, Role
from gittrack.store import check, layout
from gittrack.track.runs import Tracker
from gittrack.track.tree import RUN_ID, Tree
from tests.conftest import Sandbox
from tests.databases import Server
from tests.server.backend import open_repo
from tests.server.conftest import Running, running
from tests.server.process import Process
from tests.server.team import Team, serving

FILES = "/api/2.0/mlflow-artifacts/artifacts"
PARTS = "/api/2.0/mlflow-artifacts/mpu"


def put(server: Running, path: str, data: bytes) -> None:
    assert server.ask("PUT", f"{FILES}/{path}", data).ok == {}


def names(server: Running, folder: str = "") -> list[str]:
    found = server.get(f"{FILES}?path={quote(folder)}" if folder else FILES).ok
    return [one["path"] for one in found.get("files", [])]


def test_files_come_back_as_they_were_sent(server: Running) -> None:
    assert server.get(FILES).ok == server.get(f"{FILES}?path=a").ok == {}
    large = os.urandom(1 << 20)
    put(server, "team/data/large.bin", large)
    put(server, "team/a%20b%C3%A9.txt", b"hello")
    put(server, "top.txt", b"")
    assert server.get(FILES).ok["files"] == [
        {"path": "team", "is_dir": True},
        {"path": "top.txt", "is_dir": False, "file_size": 0},
    ]
    assert (names(server, "team"), names(server, "team/")) == (["a bé.txt", "data"],) * 2
    assert server.get(f"{FILES}/team/data/large.bin").body == large
    part = server.get(f"{FILES}/team/data/large.bin", range="bytes=5-9")
    assert (part.status, part.body) == (206, large[5:10])
    put(server, "top.txt", b"again")
    assert server.get(f"{FILES}/top.txt").body == b"again"
    assert server.get(f"{FILES}/team").status == server.get(f"{FILES}/team/none").status == 404
    assert server.ask("DELETE", f"{FILES}/team/data").ok == {}
    assert server.get(f"{FILES}/team/data/large.bin").status == 404
    assert server.ask("DELETE", f"{FILES}/team/data").status == 404
    assert names(server, "team") == ["a bé.txt"]


def test_a_file_and_a_folder_have_different_names_also_after_a_restart(git_repo: Sandbox) -> None:
    with running(git_repo.path) as server:
        put(server, "a/b/c", b"1")
        server.hub.tracker.flush()
    with running(git_repo.path) as server:
        for path in ("a", "a/b", "a/b/c/d"):
            assert server.ask("PUT", f"{FILES}/{path}", b"2").status == 400
        assert server.get(f"{FILES}/a/b/c").body == b"1"


def test_what_was_answered_survives_gc_fsck_and_the_end_of_the_server(git_repo: Sandbox) -> None:
    process = Process(git_repo.path)
    process.start()
    try:
        with process.connected() as connection:
            for name in ("kept", "gone"):
                connection.request("PUT", f"{FILES}/x/{name}", name.encode())
                assert connection.getresponse().read() == b"{}"
            connection.request("DELETE", f"{FILES}/x/gone")
            assert connection.getresponse().read() == b"{}"
    finally:
        process.kill()
    repo = open_repo(git_repo.path)
    assert check.fsck(repo, full=True) == []
    check.gc(repo, grace_s=0)
    check.gc(repo, grace_s=0)
    assert repo.objects.read(Tree(Tracker(repo)).file("x/kept").digest) == b"kept"
    assert check.fsck(repo, full=True) == []
    assert any(ref.startswith(f"refs/runs/{layout.TREE_EXPERIMENT_ID}/") for ref in repo.ledger_refs())


def test_it_is_no_run(server: Running) -> None:
    put(server, "a", b"1")
    assert "runs" not in server.post("runs/search", {"experiment_ids": ["0", layout.TREE_EXPERIMENT_ID]}).ok
    assert [one["name"] for one in server.post("experiments/search", {"max_results": 9}).ok["experiments"]] == [
        "Default"
    ]
    assert server.get(f"/api/2.0/mlflow/runs/get?run_id={RUN_ID}").status == 404
    assert server.get(f"/api/2.0/mlflow/artifacts/list?run_id={RUN_ID}").status == 404
    for route, more in (
        ("runs/set-tag", {"key": "k", "value": "v"}),
        ("runs/delete", {}),
        ("runs/update", {"status": "FAILED"}),
    ):
        assert server.post(route, {"run_id": RUN_ID, **more}).status == 404
    assert server.get(f"{FILES}/a").body == b"1"


def test_it_cannot_be_begun_by_somebody_elses_journal(server: Running) -> None:
    where = f"/api/2.0/gittrack/experiments/0/runs/{RUN_ID}/journals/x"
    sent = server.ask(
        "POST", f"{where}?offset=0", b"", content_type="application/octet-stream", gittrack_source="0" * 32
    )
    assert (sent.status, "no run can be called" in sent.json["message"]) == (400, True)


OUTSIDE = (
    "../x", "a/../../x", "..%2fx", "%2e%2e/x", "a/%2e%2e/%2e%2e/x", "/etc/passwd", "a//b", "a/./b", "a%00b", "a\\b",
    "..%5cx", "%252e%252e%252fx", ".git/config", "C:x", "C:/x", "a/C:/x", "con", "a.", "a%0ab", "a%E2%80%AEb",
    "n" * 256, "d/" * 600 + "x",
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_no_path_leads_out(server: Running, method: str) -> None:
    put(server, "x", b"1")
    for path in OUTSIDE:
        answer = server.ask(method, f"{FILES}/{path}", b"x" if method == "PUT" else None)
        assert answer.status in (400, 404, 405), (path[:40], answer)
        assert server.get(f"{FILES}?path={path}").status in (400, 404), path[:40]
        into = server.ask("POST", f"{PARTS}/create/{path}", {"path": "x", "num_parts": 1})
        assert into.status in (400, 404, 405), (path[:40], into)
    assert names(server) == ["x"]


def test_parts_are_put_together(server: Running) -> None:
    made = server.ask("POST", f"{PARTS}/create/team", {"path": "/home/ana/big.bin", "num_parts": 2}).ok
    etags = []
    for one in made["credentials"]:
        sent = server.ask("PUT", one["url"].removeprefix(server.url), b"%d" % one["part_number"])
        etags.append({"part_number": one["part_number"], "etag": sent.headers["etag"]})
    said = {"path": "/home/ana/big.bin", "upload_id": made["upload_id"], "parts": etags}
    assert server.ask("POST", f"{PARTS}/complete/other", said).status == 404
    assert server.ask("POST", f"{PARTS}/complete/team", said).ok == {}
    assert server.get(f"{FILES}/team/big.bin").body == b"12"
    found = server.get("/api/2.0/mlflow-artifacts/presigned/team/big.bin").ok
    assert (found["url"], found["file_size"]) == (f"{server.url}{FILES}/team/big.bin", 2)


def test_a_file_that_is_too_large_leaves_nothing(git_repo: Sandbox) -> None:
    with running(git_repo.path, Options(max_artifact=10)) as server:
        assert server.ask("PUT", f"{FILES}/x", b"x" * 11).status == 413
        assert (names(server), list(server.hub.tracker.repo.objects.iter_digests())) == ([], [])


@pytest.fixture
def team(git_repo: Sandbox) -> Iterator[Team]:
    with serving(git_repo.path) as found:
        yield found


def test_it_is_for_those_who_may_see_everything(team: Team) -> None:
    """Whoever may not gets the answer that he gets for what is not there."""
    assert team.ask("PUT", f"{FILES}/a/b", b"1").ok == {}
    run = team.things()["path"].rpartition("/")[0]
    some = (
        (Grant(Role.ADMIN, "*"),),
        (Grant(Role.ADMIN, models="*"),),
        (Grant(Role.ADMIN, "1"), Grant(Role.ADMIN, RUN_ID)),
        (Grant(Role.ADMIN, "*", "*"), Grant(None, "secret")),
    )
    for token in (team.token(*one) for one in some):
        nothing = team.ask("GET", f"{FILES}/a/none", token=token)
        assert nothing.status == 404
        for method, path in (("GET", "/a/b"), ("PUT", "/a/b"), ("PUT", "/a/c"), ("DELETE", "/a"), ("GET", ""),
                             ("GET", "?path=a")):  # fmt: skip
            answer = team.ask(method, f"{FILES}{path}", b"2" if method == "PUT" else None, token)
            assert (answer.status, answer.body) == (404, nothing.body), (method, path)
        begun = team.ask("POST", f"{PARTS}/create/a", {"path": "c", "num_parts": 1}, token)
        assert (begun.status, begun.body) == (404, nothing.body)
    reader = team.token(Grant(Role.READER, "*", "*"))
    assert team.ask("GET", f"{FILES}/a/b", token=reader).body == b"1"
    assert team.ask("PUT", f"{FILES}/a/b", b"2", reader).status == 403
    writer = team.token(Grant(Role.WRITER, "*", "*"))
    assert team.ask("PUT", f"{FILES}/a/c", b"3", writer).ok == {}
    assert team.ask("DELETE", f"{FILES}/a/c", token=writer).status == 403
    assert team.ask("DELETE", f"{FILES}/a/c", token=team.token(Grant(Role.MAINTAINER, "*", "*"))).ok == {}
    hidden = team.ask("GET", f"{FILES}/{run}", token=team.token(Grant(Role.READER, "other")))
    assert hidden.body == team.ask("GET", f"{FILES}/a/none", token=team.token(Grant(Role.READER, "other"))).body


def test_git_shows_it_to_those_only(team: Team) -> None:
    assert team.ask("PUT", f"{FILES}/a", b"1").ok == {}
    team.tracker.flush()
    ledger = f"refs/runs/{layout.TREE_EXPERIMENT_ID}/{team.tracker.repo.writer}".encode()
    at = "/git/default/info/refs?service=git-upload-pack"
    version = {"git-protocol": "version=0"}
    assert ledger in team.ask("GET", at, token=team.token(Grant(Role.READER, "*", "*")), headers=version).body
    assert ledger not in team.ask("GET", at, token=team.token(Grant(Role.READER, "*")), headers=version).body


def test_two_servers_of_one_database_have_one_tree(git_repo: Sandbox, postgres: Server) -> None:
    with (
        running(git_repo.path, database=postgres.url) as one,
        running(git_repo.path, database=postgres.url) as two,
    ):
        put(one, "a/1", b"1")
        put(two, "a/2", b"2")
        assert names(one, "a") == names(two, "a") == ["1", "2"]
        assert two.ask("PUT", f"{FILES}/a", b"3").status == 400
        assert two.ask("DELETE", f"{FILES}/a/1").ok == {}
        one.hub.tracker.flush()
        assert names(one, "a") == names(two, "a") == ["2"]
