"""What goes wrong around a server: lost answers, a full disk, a database that is away, clients that are slow."""

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from gittrack.server.connection import Limits
from tests.conftest import Sandbox, run_git
from tests.databases import Server as Postgres, start_server
from tests.faults.power import Disk, disk, full, unavailable
from tests.server.conftest import Running, running
from tests.server.process import Process, process

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
JSON = {"content-type": "application/json"}
#: Seconds that a request may take beside slow clients, on a machine that is busy with other things.
PATIENCE = 5.0

pytestmark = pytest.mark.timeout(600 if FULL else 120)


def posted(call: str, body: Any) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /api/2.0/mlflow/{call} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def put(path: str, data: bytes) -> bytes:
    return f"PUT {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


def files_of(run_id: str, name: str) -> str:
    return f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/{name}"


# --- answers that get lost


def asked_twice(server: Running, request: bytes) -> bytes:
    """The answer to a request whose first answer was lost on the way, as a client's retry gets it."""
    for last in (False, True):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.settimeout(30)
            sock.sendall(request)
            answer = sock.recv(1 << 16)  # the server has done it; the client does not hear of it
            assert answer.startswith(b"HTTP/1.1 200"), answer
            if last:
                return answer
    raise AssertionError


def test_what_is_logged_again_is_there_once(server: Running) -> None:
    run_id = server.new_run()
    point = {"key": "m", "value": 1.5, "timestamp": 10, "step": 3}
    asked_twice(server, posted("runs/log-metric", {"run_id": run_id, **point}))
    points = [{"key": "b", "value": at / 2, "timestamp": at, "step": at} for at in range(200)]
    batch = {
        "run_id": run_id,
        "metrics": points,
        "params": [{"key": "p", "value": "1"}],
        "tags": [{"key": "t", "value": "2"}],
    }
    asked_twice(server, posted("runs/log-batch", batch))
    asked_twice(server, posted("runs/log-parameter", {"run_id": run_id, "key": "q", "value": "1"}))
    asked_twice(server, posted("runs/set-tag", {"run_id": run_id, "key": "u", "value": "1"}))
    for size in (10, 1 << 20):
        asked_twice(server, put(files_of(run_id, f"f{size}"), bytes(size)))
    asked_twice(server, posted("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 99}))
    for _ in range(2):  # from the journal, and from the commit
        for key, count in (("m", 1), ("b", 200)):
            found = server.get(f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key={key}").ok["metrics"]
            assert len(found) == count
        run = server.get(f"/api/2.0/mlflow/runs/get?run_id={run_id}").ok["run"]
        assert sorted(one["key"] for one in run["data"]["params"]) == ["p", "q"]
        assert run["info"]["end_time"] == 99
        listed = server.get(f"/api/2.0/mlflow/artifacts/list?run_id={run_id}").ok["files"]
        assert sorted(one["path"] for one in listed) == ["f10", f"f{1 << 20}"]
        server.hub.tracker.flush()


def test_what_is_made_again_is_whole_and_another(server: Running) -> None:
    """MLflow's requests do not say that they were sent before; a second run or version is one of its own."""
    asked_twice(server, posted("runs/create", {"experiment_id": "0", "start_time": 7}))
    runs = server.post("runs/search", {"experiment_ids": ["0"]}).ok["runs"]
    assert len({run["info"]["run_id"] for run in runs}) == len(runs) == 2
    run_id = runs[0]["info"]["run_id"]
    server.ask("PUT", files_of(run_id, "model/MLmodel"), b"flavors: {}\n")
    server.post("registered-models/create", {"name": "m"})
    source = {"name": "m", "source": f"mlflow-artifacts:/0/{run_id}/artifacts/model", "run_id": run_id}
    asked_twice(server, posted("model-versions/create", source))
    versions = server.get("/api/2.0/mlflow/model-versions/search").ok["model_versions"]
    assert sorted(one["version"] for one in versions) == ["1", "2"]
    assert {one["run_id"] for one in versions} == {run_id}
    # What has a name is there once: the second answer says so.
    assert server.post("registered-models/create", {"name": "m"}).json["error_code"] == "RESOURCE_ALREADY_EXISTS"
    assert server.post("experiments/create", {"name": "e"}).status == 200
    assert server.post("experiments/create", {"name": "e"}).json["error_code"] == "RESOURCE_ALREADY_EXISTS"


# --- a full disk


@pytest.fixture(scope="module")
def volume() -> Iterator[Disk]:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    with disk(32) as made:
        yield made


class Teller:
    """Asks a server and keeps what was answered with 200."""

    def __init__(self, server: Process) -> None:
        self.server = server
        self.refused: list[tuple[int, str]] = []
        self.points: list[int] = []
        self.params: list[str] = []
        self.files: dict[str, int] = {}

    def ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The answer's JSON; None if it was refused, in MLflow's shape."""
        with self.server.connected() as connection:
            connection.request(method, path, body, JSON if method == "POST" else {})
            answer = connection.getresponse()
            text = answer.read()
        if answer.status == 200:
            return json.loads(text) if text else {}
        self.refused.append((answer.status, json.loads(text)["message"]))
        assert json.loads(text)["error_code"]
        return None

    def post(self, call: str, **body: Any) -> Any:
        return self.ask("POST", f"/api/2.0/mlflow/{call}", json.dumps(body).encode())

    def fill(self, run_id: str, times: int) -> None:
        """Log and upload, whatever comes of it."""
        for _ in range(times):
            step = len(self.points) + len(self.refused) + 1
            point = {"key": "m", "value": float(step), "timestamp": step, "step": step}
            if self.post("runs/log-metric", run_id=run_id, **point) is not None:
                self.points.append(step)
            name = f"p{step}"
            if self.post("runs/log-parameter", run_id=run_id, key=name, value="v" * 5000) is not None:
                self.params.append(name)
            size = 3000 if step % 2 else 700_000
            if self.ask("PUT", files_of(run_id, f"f{step}"), os.urandom(size)) is not None:
                self.files[f"f{step}"] = size

    def check(self, run_id: str) -> None:
        """What was answered with 200 is there, and nothing twice."""
        found = self.ask("GET", f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=m")["metrics"]
        steps = [one["step"] for one in found]
        assert len(steps) == len(set(steps))
        assert set(self.points) <= set(steps)
        run = self.ask("GET", f"/api/2.0/mlflow/runs/get?run_id={run_id}")["run"]
        assert set(self.params) <= {one["key"] for one in run["data"].get("params", ())}
        listed = self.ask("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run_id}").get("files", ())
        assert self.files.items() <= {one["path"]: one["file_size"] for one in listed}.items()
        for name, size in self.files.items():
            with self.server.connected() as connection:
                connection.request("GET", files_of(run_id, name))
                answer = connection.getresponse()
                assert (answer.status, len(answer.read())) == (200, size)


@pytest.mark.any_backend  # of files here
def test_a_full_disk(volume: Disk) -> None:
    folder = volume.mount / "hub"
    folder.mkdir()
    run_git(folder, "init", "-q")
    with process(folder) as server:
        teller = Teller(server)
        run_id = teller.post("runs/create", experiment_id="0")["run"]["info"]["run_id"]
        teller.fill(run_id, 3)
        assert teller.refused == []
        for kib in (0, 16, 64, 256) if FULL else (0, 64):
            before = len(teller.refused)
            with full(volume, kib):
                teller.fill(run_id, 4)
                refused = teller.refused[before:]
                assert refused, "there was room"
                assert {status for status, _ in refused} == {507}, refused
                assert all("no space left" in text.lower() for _, text in refused), refused
                teller.post("runs/create", experiment_id="0")
                teller.post("runs/update", run_id=run_id, status="RUNNING")
                server.kill()  # what was answered must not have been in memory only
            server.start()
            teller.check(run_id)
            teller.fill(run_id, 2)
            teller.check(run_id)
        count = len(teller.refused)
        assert teller.post("runs/update", run_id=run_id, status="FINISHED") is not None
        assert server.stop() == 0
        server.start()
        teller.check(run_id)
        assert len(teller.refused) == count
        assert server.stop() == 0
    assert not list((folder / ".gittrack" / "objects" / "tmp").glob("*"))
    assert "error" not in run_git(folder, "fsck", "--strict", "--no-progress")


@pytest.mark.any_backend  # of files here
def test_a_full_disk_and_a_server_that_goes_on(volume: Disk) -> None:
    """Nobody restarts it: as soon as there is room, the next request is answered."""
    folder = volume.mount / "going"
    folder.mkdir()
    run_git(folder, "init", "-q")
    with process(folder) as server:
        teller = Teller(server)
        run_id = teller.post("runs/create", experiment_id="0")["run"]["info"]["run_id"]
        teller.fill(run_id, 2)
        with full(volume, 0):
            teller.fill(run_id, 4)
            assert {status for status, _ in teller.refused} == {507}
        count = len(teller.refused)
        teller.fill(run_id, 3)
        assert len(teller.refused) == count
        teller.check(run_id)
        assert server.stop() == 0
        server.start()
        teller.check(run_id)
        assert server.stop() == 0


# --- a database that is away


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with ExitStack() as stack:
        yield start_server(stack)


@pytest.mark.any_backend  # the server has a database of its own
def test_a_database_that_is_away_and_comes_back(git_repo: Sandbox, database: Postgres) -> None:
    with running(git_repo.path, database=database.url) as server:
        runs = [server.new_run() for _ in range(2)]
        logged: dict[str, list[int]] = {run_id: [] for run_id in runs}

        def log(step: int) -> None:
            for run_id in runs:
                point = {"key": "m", "value": float(step), "timestamp": step, "step": step}
                answer = server.post("runs/log-metric", {"run_id": run_id, **point})
                assert answer.status in (200, 503), answer
                if answer.status == 200:
                    logged[run_id].append(step)

        def read() -> int:
            began = time.monotonic()
            answer = server.get(f"/api/2.0/mlflow/runs/get?run_id={runs[0]}")
            assert time.monotonic() - began < PATIENCE, "a client has to wait"
            assert answer.status == 200 or answer.json["error_code"] == "TEMPORARILY_UNAVAILABLE"
            return answer.status

        for turn in range(5 if FULL else 2):
            log(turn * 10)
            assert read() == 200
            database.stop("immediate" if turn % 2 else "fast")
            try:
                for step in range(1, 4):
                    log(turn * 10 + step)
                    assert read() == 503
                assert server.post("runs/create").status == 503
            finally:
                database.start()
            log(turn * 10 + 4)
            assert read() == 200
        for run_id in runs:
            found = server.get(f"/api/2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=m").ok["metrics"]
            steps = [one["step"] for one in found]
            assert len(steps) == len(set(steps))
            assert set(logged[run_id]) <= set(steps)
            assert {0, 4} <= set(logged[run_id])


# --- slow clients


def quick(server: Running, run_id: str) -> None:
    """Others are served."""
    for step in range(5):
        began = time.monotonic()
        point = {"key": "q", "value": 1.0, "timestamp": 1, "step": step}
        assert server.post("runs/log-metric", {"run_id": run_id, **point}).status == 200
        assert server.get(f"/api/2.0/mlflow/runs/get?run_id={run_id}").status == 200
        assert time.monotonic() - began < PATIENCE


def connected(stack: ExitStack, server: Running, count: int) -> list[socket.socket]:
    return [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(count)]


def closed(sock: socket.socket, seconds: float = 20.0) -> bytes:
    """What a connection says before it is closed."""
    sock.settimeout(seconds)
    said = b""
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(1 << 16):
            said += piece
    return said


@pytest.mark.any_backend  # of connections
def test_slow_heads_and_bodies_do_not_keep_others_out(git_repo: Sandbox) -> None:
    limits = Limits(head_seconds=1.0, idle_seconds=1.0, receive_seconds=600.0)
    with running(git_repo.path, limits=limits) as server, ExitStack() as stack:
        run_id = server.new_run()
        silent = connected(stack, server, 100)
        heads = connected(stack, server, 50)
        bodies = connected(stack, server, 50)
        whole = put(files_of(run_id, "slow"), bytes(1 << 20))
        for sock in heads:
            sock.sendall(b"POST /api/2.0/mlflow/runs/create HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        for sock in bodies:
            sock.sendall(whole[:70_000])
        quick(server, run_id)
        for sock in silent[:5] + heads[:5]:
            assert closed(sock).startswith(b"HTTP/1.1 408")
        for sock in bodies[:5]:
            assert b" 408 " in closed(sock)
        # Who sends slowly, but sends, is waited for.
        patient = socket.create_connection(("127.0.0.1", server.port))
        with patient:
            small = put(files_of(run_id, "patient"), b"x" * 40)
            patient.sendall(small[:-40])
            for _ in range(8):
                time.sleep(0.2)
                patient.sendall(b"x" * 5)
            patient.settimeout(20)
            assert patient.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert [one["path"] for one in server.get(f"/api/2.0/mlflow/artifacts/list?run_id={run_id}").ok["files"]] == [
            "patient"
        ]
        assert not list((git_repo.path / ".gittrack" / "objects" / "tmp").glob("*"))


@pytest.mark.any_backend  # of connections
def test_readers_that_do_not_read_cost_neither_memory_nor_others(git_repo: Sandbox) -> None:
    size = 1 << 30 if FULL else 64 << 20
    with (
        running(git_repo.path, limits=Limits(unread_seconds=1.5, receive_seconds=600.0)) as server,
        ExitStack() as stack,
    ):
        run_id = server.new_run()
        path = files_of(run_id, "large")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        with contextlib.closing(connection):
            block = os.urandom(1 << 20)
            connection.request("PUT", path, (block for _ in range(size >> 20)), {"content-length": str(size)})
            assert connection.getresponse().status == 200
        before = psutil.Process().memory_info().rss
        readers = connected(stack, server, 30)
        for sock in readers:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
        quick(server, run_id)
        time.sleep(0.5)
        assert psutil.Process().memory_info().rss - before < 160 << 20  # some pieces of 1 MiB for each
        deadline = time.monotonic() + 30
        while any(one.status == "ESTABLISHED" and one.laddr[1:] == (server.port,)
                  for one in psutil.Process().net_connections("tcp")):  # fmt: skip
            assert time.monotonic() < deadline, "they are never let go"
            time.sleep(0.1)
        quick(server, run_id)


@pytest.mark.any_backend  # of connections
def test_many_idle_connections(git_repo: Sandbox) -> None:
    with running(git_repo.path) as server, ExitStack() as stack:
        run_id = server.new_run()
        before = psutil.Process().memory_info().rss
        threads = threading.active_count()
        idle = connected(stack, server, 500)
        for sock in idle[:250]:  # half of them have asked something before
            sock.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        for sock in idle[:250]:
            sock.settimeout(20)
            assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200")
        quick(server, run_id)
        assert psutil.Process().memory_info().rss - before < 64 << 20
        assert threading.active_count() <= threads + 20
