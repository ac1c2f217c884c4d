"""What the server does for nobody: fetch addresses, mix up uploads, work without end (rows Z3, S1, K2, K3)."""

import contextlib
import http.server
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from gittrack.server.hub.roles import Grant, Role
from tests.conftest import Sandbox
from tests.server.asking import is_public, request, stored
from tests.server.guarded import bearer, raw
from tests.server.team import API, Team, serving

FILES = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture
def team(git_repo: Sandbox) -> Iterator[Team]:
    with serving(git_repo.path, failures=10**9) as found:
        yield found


# --- Z3


def test_files_of_others_are_not_sent_for_them(team: Team) -> None:
    things = team.things("mine")
    before = stored(team)
    model = f"{things['experiment_id']}/models/{things['model_id']}/artifacts/MLmodel"
    for grant in (Grant(Role.ADMIN, "other*", "*"), Grant(Role.READER, "mine", "mine")):
        somebody = team.token(grant)
        status = 403 if grant.role == Role.READER else 404
        for path in (things["path"], model, f"{things['experiment_id']}/{things['run_id']}/artifacts/new.txt"):
            for method in ("PUT", "DELETE"):
                assert team.ask(method, f"{FILES}/{path}", b"other", somebody).status == status
    assert stored(team) == before


def test_an_upload_that_is_not_finished_takes_nothing_away(team: Team) -> None:
    things = team.things("mine")
    before = stored(team)
    lines = [f"PUT {FILES}/{things['path']} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {team.admin}"]
    for header in ("Content-Length: 3000000", "Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", team.port)) as connection:
            connection.sendall("\r\n".join([*lines, header, "", ""]).encode())
            connection.sendall(b"%x\r\n" % (1 << 19) if "chunked" in header else b"")
            connection.sendall(b"x" * (1 << 19))
    assert team.ask("GET", f"{FILES}/{things['path']}").body == b"flavors: {}"
    assert stored(team) == before


def test_two_who_send_one_file_leave_one_whole(team: Team) -> None:
    things = team.things("mine")
    bodies = [bytes([65 + number]) * (400 << 10) for number in range(4)]

    def send(body: bytes) -> None:
        with contextlib.closing(Team(team.server, team.tracker, team.accounts, team.port, team.admin)) as mine:
            assert mine.ask("PUT", f"{FILES}/{things['path']}", body).status == 200

    threads = [threading.Thread(target=send, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert team.ask("GET", f"{FILES}/{things['path']}").body in bodies


# --- S1


class Listener(http.server.BaseHTTPRequestHandler):
    heard: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.heard.append(self.path)
        self.send_response(302)
        self.send_header("location", "/again")
        self.end_headers()

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815 - as http.server has it

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def listener() -> Iterator[int]:
    Listener.heard.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join(10)


def test_no_address_that_somebody_sends_is_asked(team: Team, listener: int) -> None:
    """Whatever field it is in: addresses of this machine in every spelling, of a cloud's metadata, of files."""
    things = team.things("mine")
    hosts = ["127.0.0.1", "0x7f.1", "2130706433", "localhost", "[::ffff:127.0.0.1]"]
    addresses = [f"http://{host}:{listener}/x" for host in hosts]
    addresses += [f"{scheme}://127.0.0.1:{listener}/x" for scheme in ("git", "s3", "gopher")]
    addresses += ["http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", f"//127.0.0.1:{listener}/x"]
    asked = 0
    for route in team.routes:
        if route.message is None or is_public(route):
            continue
        for name, field in route.message.fields.items():
            if field.type != "string" or f"{{{name}" in route.path:
                continue
            address = random.choice(addresses) if name not in ("source", "artifact_location", "url") else None
            for one in addresses if address is None else [address]:
                answer = request(route, things, **{name: [one] if field.many else one}).of(team)
                assert answer.status < 500, (route.path, name, one, answer)
                assert b"root:" not in answer.body
                asked += 1
    assert asked > 150
    assert Listener.heard == []


def test_a_version_has_no_source_of_this_machine_and_none_is_asked(team: Team, listener: int) -> None:
    things = team.things("mine")
    for source in ("file:///etc", "/etc", "../../etc", f"runs:/{things['run_id']}/../../../etc",
                   f"mlflow-artifacts://127.0.0.1:{listener}/x"):  # fmt: skip
        assert team.post("model-versions/create", {"name": "mine", "source": source}).status == 400
    for source in (f"http://127.0.0.1:{listener}/m", "s3://bucket/m"):
        made = team.post("model-versions/create", {"name": "mine", "source": source}).ok["model_version"]
        query = f"name=mine&version={made['version']}"
        assert team.ask("GET", f"{API}/model-versions/get-download-uri?{query}").ok == {"artifact_uri": source}
        assert team.ask("GET", f"/model-versions/get-artifact?{query}&path=MLmodel").status == 404
    assert Listener.heard == []


# --- K2, K3


def test_very_many_ranges_are_one_file(team: Team) -> None:
    things = team.things("mine")
    for ranges in ("0-," * 5000 + "1-", ",".join(f"{at}-" for at in range(900)), "0-,-1,5-2"):
        answer = team.ask("GET", f"{FILES}/{things['path']}", headers={"range": f"bytes={ranges}"})
        assert answer.status in (200, 416), ranges
        assert len(answer.body) < 1000
    head = b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: " + b"0-," * 300_000
    assert raw(team.port, head)[0] == 431


def test_idle_connections_keep_nobody_out(team: Team) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(250):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", team.port)))
            connection.sendall(b"GET /version HTTP/1.1\r\nHost: 127.0")
        start = time.monotonic()
        assert team.ask("GET", "/version").status == 200
        assert time.monotonic() - start < 5


def test_there_are_no_web_sockets(team: Team) -> None:
    asked = b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + (
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Authorization: %s\r\n\r\n" % bearer(team.admin)["authorization"].encode()
    )
    assert raw(team.port, asked)[0] != 101


def test_pages_have_a_size(team: Team) -> None:
    things = team.things("mine")
    for route in team.routes:
        if route.message is None or "max_results" not in route.message.fields:
            continue
        endless = route.path.endswith(
            ("get-history", "get-history-bulk")
        )  # MLflow bounds these in other ways, if at all
        for size in (-1, 0, 10**9, -(2**63), 2**63 - 1):
            answer = request(route, things, max_results=size).of(team)
            assert answer.status in (200, 400), (route.path, answer)
            assert answer.status == 400 or size >= 0 or endless, (route.path, answer)


def test_long_histories_are_thinned(team: Team) -> None:
    things = team.things("mine")
    for start in range(0, 6000, 1000):
        points = [{"key": "long", "value": at, "timestamp": at, "step": at} for at in range(start, start + 1000)]
        assert team.post("runs/log-batch", {"run_id": things["run_id"], "metrics": points}).ok == {}
    query = f"run_ids={things['run_id']}&metric_key=long"
    found = team.ask("GET", f"{API}/metrics/get-history-bulk-interval?{query}").ok["metrics"]
    assert 2000 < len(found) <= 2600
    assert team.ask("GET", f"{API}/metrics/get-history-bulk-interval?{query}&max_results=1000000").status == 400


def test_a_request_that_comes_again_changes_nothing_more(team: Team) -> None:
    """Clients send again what was not answered."""
    things = team.things("mine")
    run = {"run_id": things["run_id"]}
    sent = [
        ("runs/log-parameter", {**run, "key": "p", "value": "1"}),
        ("runs/set-tag", {**run, "key": "t", "value": "1"}),
        ("runs/log-batch", {**run, "params": [{"key": "q", "value": "1"}], "tags": [{"key": "u", "value": "1"}]}),
        ("runs/update", {**run, "status": "FINISHED", "end_time": 5}),
        ("registered-models/set-tag", {"name": "mine", "key": "t", "value": "1"}),
        ("registered-models/alias", {"name": "mine", "alias": "best", "version": "1"}),
    ]
    for path, body in sent:
        assert team.post(path, body).status == 200
        before = stored(team)
        assert team.post(path, body).status == 200
        after = stored(team)
        assert after["runs"] == before["runs"], path
        assert after["versions"].keys() == before["versions"].keys(), path
    assert team.post("runs/log-parameter", {**run, "key": "p", "value": "2"}).status == 400


def test_very_many_tags(team: Team) -> None:
    things = team.things("mine")
    for start in range(0, 2000, 100):
        tags = [{"key": f"t{number}", "value": "v"} for number in range(start, start + 100)]
        assert team.post("runs/log-batch", {"run_id": things["run_id"], "tags": tags}).ok == {}
    assert team.post("runs/log-batch", {"run_id": things["run_id"], "tags": [*tags, tags[0]]}).status == 400
    found = team.ask("GET", f"{API}/runs/get?run_id={things['run_id']}").ok["run"]["data"]["tags"]
    assert len(found) > 2000
