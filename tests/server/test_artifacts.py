"""The files of runs over HTTP: in pieces, verified, and nothing but them."""

import hashlib
import http.client
import json
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from gittrack.server.hub.app import Options
from gittrack.server.hub.roles import Caller, Grant, Role
from tests.conftest import Sandbox
from tests.server.conftest import Running, running
from tests.server.process import Process

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
FILES = "/api/2.0/mlflow-artifacts/artifacts"


def put(server: Running, run_id: str, path: str, data: bytes) -> None:
    assert server.ask("PUT", f"{FILES}/0/{run_id}/artifacts/{path}", data).status == 200


def test_files_come_back_as_they_were_sent(server: Running) -> None:
    run_id = server.new_run()
    large = os.urandom(3 << 20)
    put(server, run_id, "model/data.bin", large)
    put(server, run_id, "model/MLmodel", b"x: 1\n")
    put(server, run_id, "a%20b%C3%A9.txt", b"hello")
    put(server, run_id, "empty", b"")
    got = server.get(f"{FILES}/0/{run_id}/artifacts/model/data.bin")
    assert (got.status, got.body) == (200, large)
    assert got.headers["etag"] == f'"{hashlib.sha256(large).hexdigest()}"'
    assert server.get(f"{FILES}/0/{run_id}/artifacts/empty").body == b""
    listed = server.get(f"{FILES}?path=0/{run_id}/artifacts").ok["files"]
    assert listed == [
        {"path": "a bé.txt", "is_dir": False, "file_size": 5},
        {"path": "empty", "is_dir": False, "file_size": 0},
        {"path": "model", "is_dir": True},
    ]
    listed = server.get(f"{FILES}?path=0/{run_id}/artifacts/model").ok["files"]
    assert [one["path"] for one in listed] == ["MLmodel", "data.bin"]
    of_run = server.get(f"/api/2.0/mlflow/artifacts/list?run_id={run_id}&path=model").ok
    assert of_run["root_uri"] == f"mlflow-artifacts:/0/{run_id}/artifacts"
    assert [one["path"] for one in of_run["files"]] == ["model/MLmodel", "model/data.bin"]
    assert server.get(f"/get-artifact?run_id={run_id}&path=model/MLmodel").body == b"x: 1\n"
    assert server.ask("DELETE", f"{FILES}/0/{run_id}/artifacts/model").status == 200
    assert server.get(f"{FILES}?path=0/{run_id}/artifacts/model").ok == {}
    assert server.get(f"{FILES}/0/{run_id}/artifacts/model/MLmodel").status == 404


def test_what_a_browser_gets_cannot_run(server: Running) -> None:
    run_id = server.new_run()
    for name, said in {
        "x.html": "filename=x.html",
        "x.svg": "filename=x.svg",
        "dog+step+1.png": "filename=dog+step+1.png",
        "MLmodel": "filename=MLmodel",
        "a b;c.txt": 'filename="a b;c.txt"',
        "ü%41.txt": "filename*=UTF-8''%C3%BC%2541.txt",
    }.items():
        put(server, run_id, quote(name), b"<script>alert(1)</script>")
        headers = server.get(f"{FILES}/0/{run_id}/artifacts/{quote(name)}").headers
        assert headers["content-disposition"] == f"attachment; {said}"
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]


OUTSIDE = (
    "../x", "..%2fx", "%2e%2e/x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "a%00b", "a\\b", "..%5cx", "",
    ".git/config", "%252e%252e%252fx/..", "C:x", "con",
)  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_no_path_leads_out(server: Running, method: str) -> None:
    run_id = server.new_run()
    for path in OUTSIDE:
        answer = server.ask(method, f"{FILES}/0/{run_id}/artifacts/{path}", b"x" if method == "PUT" else None)
        assert answer.status in (400, 404, 405), (path, answer)
    assert server.get(f"{FILES}?path=0/{run_id}/artifacts").ok == {}


def test_there_is_nothing_but_runs_below_an_experiment(server: Running) -> None:
    run, other = server.new_run(), server.new_run()
    for where in ("0", f"0/{other}", f"{'1' * 18}/{run}/artifacts/x", f"0/{run}/other/x", "0/nobody/artifacts/x"):
        for method in ("GET", "PUT", "DELETE"):
            assert server.ask(method, f"{FILES}/{where}", b"x" if method == "PUT" else None).status in (400, 404)


def test_the_files_of_a_logged_model_are_not_listed_among_those_of_its_run(server: Running) -> None:
    run_id = server.new_run()
    model = server.post("logged-models", {"experiment_id": "0", "name": "m", "source_run_id": run_id}).ok["model"]
    model_id = model["info"]["model_id"]
    assert server.ask("PUT", f"{FILES}/0/models/{model_id}/artifacts/MLmodel", b"x: 1\n").status == 200
    here = f"/api/2.0/mlflow/artifacts/list?run_id={run_id}"
    assert "files" not in server.get(here).ok
    assert server.get(f"{FILES}?path=0/{run_id}/artifacts").ok == {}
    assert [one["path"] for one in server.get(f"{FILES}?path=0/models/{model_id}/artifacts").ok["files"]] == ["MLmodel"]
    one = f"/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files?artifact_file_path="
    assert server.get(f"{one}MLmodel").body == b"x: 1\n"
    assert server.get(f"{one}absent").status == 404
    assert server.get(f"{one}../MLmodel").status == 400
    put(server, run_id, "models/mine/a.txt", b"a")  # somebody's own folder of that name
    put(server, run_id, "models/m-1/a.txt", b"a")
    assert [one["path"] for one in server.get(here).ok["files"]] == ["models"]
    found = server.get(f"{here}&path=models").ok["files"]
    assert [one["path"] for one in found] == ["models/m-1", "models/mine"]
    assert server.ask("DELETE", f"/api/2.0/mlflow/logged-models/{model_id}").ok == {}
    assert len(server.get(f"{here}&path=models").ok["files"]) == 2


def test_a_small_file_comes_from_mlflows_page(server: Running) -> None:
    run_id = server.new_run()
    page = "/ajax-api/2.0/mlflow/upload-artifact"
    sent = server.ask("POST", f"{page}?run_uuid={run_id}&path=images/a.txt", b"hello", content_type="text/plain")
    assert (sent.status, server.get(f"/get-artifact?run_uuid={run_id}&path=images/a.txt").body) == (200, b"hello")
    for query, said in {
        "": "Request must specify run_uuid.",
        f"run_uuid={run_id}": "Request must specify path.",
        f"run_uuid={run_id}&path=../a": "Invalid path",
        f"run_uuid={run_id}&path=a": "Request must specify data.",
    }.items():
        refused = server.ask("POST", f"{page}?{query}", b"")
        assert (refused.status, refused.json["message"].partition(" (hint")[0]) == (400, said)
    assert server.ask("POST", f"{page}?run_uuid={'0' * 32}&path=a", b"a").status == 404
    server.caller = Caller("ana", (Grant(Role.READER, "Default"),), "token")
    assert server.ask("POST", f"{page}?run_uuid={run_id}&path=b", b"b").status == 403
    assert server.ask("POST", page, b"b").status == 403


def test_a_file_that_is_too_large_leaves_nothing(git_repo: Sandbox) -> None:
    with running(git_repo.path, Options(max_artifact=1 << 20)) as server:
        run_id = server.new_run()
        where = f"{FILES}/0/{run_id}/artifacts/x"
        assert server.ask("PUT", where, b"x" * (2 << 20)).status == 413
        chunked = (b"y" * (1 << 19) for _ in range(4))
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("PUT", where, chunked, encode_chunked=True, headers={"transfer-encoding": "chunked"})
        assert connection.getresponse().status == 413
        connection.close()
        assert server.get(f"{FILES}?path=0/{run_id}/artifacts").ok == {}
        assert list(server.hub.tracker.repo.objects.iter_digests()) == []


def test_a_client_that_goes_away_leaves_nothing(server: Running) -> None:
    run_id = server.new_run()
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.putrequest("PUT", f"{FILES}/0/{run_id}/artifacts/x")
    connection.putheader("content-length", str(8 << 20))
    connection.endheaders(b"x" * (1 << 20))
    connection.close()
    assert server.get("/health").status == 200
    assert server.get(f"{FILES}?path=0/{run_id}/artifacts").ok == {}
    assert list(server.hub.tracker.repo.objects.iter_digests()) == []


def test_who_may_not_write_a_run_cannot_send_files(server: Running) -> None:
    run_id = server.new_run()
    put(server, run_id, "x", b"1")
    where = f"{FILES}/0/{run_id}/artifacts/x"
    server.caller = Caller("ana", (Grant(Role.READER, "*", "*"),), "token")
    assert server.get(where).body == b"1"
    assert server.ask("PUT", where, b"2").status == 403
    assert server.ask("DELETE", where).status == 403
    server.caller = Caller("eve", (Grant(Role.WRITER, "other", "*"),), "token")
    assert server.get(where).status == 404
    assert server.ask("PUT", where, b"2").status == 404
    assert server.get(f"{FILES}?path=0/{run_id}/artifacts").status == 404
    assert server.get(f"/get-artifact?run_id={run_id}&path=x").status == 404


def test_a_large_file_takes_no_memory(server: Running) -> None:
    run_id = server.new_run()
    size = 96 << 20
    piece = os.urandom(1 << 20)
    where = f"{FILES}/0/{run_id}/artifacts/smaller"  # what sends it is loaded, and takes what it always takes
    assert server.ask("PUT", where, piece * 40).status == 200
    threads = threading.active_count()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    where = f"{FILES}/0/{run_id}/artifacts/large"
    connection.request("PUT", where, (piece for _ in range(96)), headers={"content-length": str(size)})
    assert connection.getresponse().status == 200
    connection.close()
    connection.request("GET", where)
    answer = connection.getresponse()
    digest, expected = hashlib.sha256(), hashlib.sha256()
    for _ in range(96):
        expected.update(piece)
    while got := answer.read(1 << 20):
        digest.update(got)
    assert digest.digest() == expected.digest()
    connection.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 << 10  # KiB
    assert threading.active_count() < threads + 20


@pytest.mark.skipif(not FULL, reason="a gibibyte only if GITTRACK_FAULTS=full")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_gibibyte_up_and_down_takes_no_memory(
    git_repo: Sandbox, request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    place = request.getfixturevalue("bucket") if kind == "bucket" else str(tmp_path / "elsewhere")
    server = Process(git_repo.path, [f"--artifacts-destination={place}"])
    server.start()
    assert server.process is not None
    peaks = []

    def note() -> None:
        lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if server.process else []
        peaks.append(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))

    sent, received = hashlib.sha256(), hashlib.sha256()

    def pieces(count: int) -> Iterator[bytes]:
        for number in range(count):
            data = block[:-8] + number.to_bytes(8, "big")
            sent.update(data)
            yield data

    block = os.urandom(1 << 20)
    try:
        with server.connected() as connection:
            connection.timeout = 300
            connection.request("POST", "/api/2.0/mlflow/runs/create", b"{}", {"content-type": "application/json"})
            run_id = json.loads(connection.getresponse().read())["run"]["info"]["run_id"]
            # A bucket is sent three parts of 8 MiB at a time, which the first file fills, too.
            for name, count in (("smaller", 192), ("large", 1024)):
                path = f"{FILES}/0/{run_id}/artifacts/{name}"
                sent, received = hashlib.sha256(), hashlib.sha256()
                connection.request("PUT", path, pieces(count), headers={"content-length": str(count << 20)})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
                connection.request("GET", path)
                answer = connection.getresponse()
                while got := answer.read(1 << 20):
                    received.update(got)
                assert (answer.status, received.digest()) == (200, sent.digest())
                note()
    finally:
        assert server.stop() == 0
    print(f"VmHWM: {peaks[0] >> 10} MiB after 192 MiB, {peaks[1] >> 10} MiB after 1 GiB, in a {kind}")
    assert peaks[1] - peaks[0] < 48 << 10  # KiB
