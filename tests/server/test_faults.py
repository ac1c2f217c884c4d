"""The server dies under load, or is asked to end: whatever it answered for is there afterwards, once."""

import contextlib
import http.client
import json
import os
import threading
import time
from typing import Any

import pytest

from tests.conftest import Sandbox
from tests.server.process import Process, process

pytestmark = pytest.mark.any_backend  # `test_two_servers` kills those with a database and a bucket
FULL = os.environ.get("GITTRACK_FAULTS") == "full"
WRITERS = 16 if FULL else 6
KILLS = 12 if FULL else 2


class Writer(threading.Thread):
    """Records points, params, tags and files in a run of its own, and remembers what was answered with 200."""

    def __init__(self, server: Process, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.number = number
        self.stop = stop
        self.run_id = ""
        self.points: list[int] = []
        self.params: list[str] = []
        self.files: list[str] = []
        self.refused: list[tuple[int, bytes]] = []

    def run(self) -> None:
        step = 0
        while not self.stop.is_set():
            step += 1
            with contextlib.suppress(OSError, http.client.HTTPException), self.server.connected() as connection:
                while not self.stop.is_set():
                    self._one(connection, step)
                    step += 1
            time.sleep(0.02)

    def _one(self, connection: http.client.HTTPConnection, step: int) -> None:
        if not self.run_id:
            self.run_id = self._ask(connection, "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
        point = {"key": "m", "value": float(step), "timestamp": step, "step": step}
        kind = step % 10
        if kind == 0:
            path = f"/api/2.0/mlflow-artifacts/artifacts/0/{self.run_id}/artifacts/f{step}"
            connection.request("PUT", path, f"{self.number}:{step}".encode() * (1 + step % 3 * 50_000))
            answer = connection.getresponse()
            if answer.status == 200:
                self.files.append(f"f{step}")
            answer.read()
        elif kind == 5:
            self._ask(connection, "runs/log-parameter", {"run_id": self.run_id, "key": f"p{step}", "value": str(step)})
            self.params.append(f"p{step}")
        elif kind == 7:
            self._ask(connection, "runs/log-batch", {"run_id": self.run_id, "metrics": [point]})
            self.points.append(step)
        else:
            self._ask(connection, "runs/log-metric", {"run_id": self.run_id, **point})
            self.points.append(step)

    def _ask(self, connection: http.client.HTTPConnection, path: str, body: Any) -> Any:
        connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            self.refused.append((answer.status, text))
            raise http.client.HTTPException
        return json.loads(text)


def get(server: Process, path: str) -> Any:
    with server.connected() as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read()
    assert answer.status == 200, text
    return json.loads(text)


def check(server: Process, writers: list[Writer]) -> None:
    """Everything that was answered for is there, once."""
    for writer in writers:
        run = get(server, f"/api/2.0/mlflow/runs/get?run_id={writer.run_id}")["run"]
        assert run["info"]["status"] == "RUNNING"
        history = get(server, f"/api/2.0/mlflow/metrics/get-history?run_id={writer.run_id}&metric_key=m")["metrics"]
        steps = [one["step"] for one in history]
        assert len(steps) == len(set(steps)), "a point is there twice"
        assert set(writer.points) <= set(steps)
        assert {one["value"] == one["step"] for one in history} == {True}
        assert set(writer.params) <= {one["key"] for one in run["data"].get("params", ())}
        listed = get(server, f"/api/2.0/mlflow/artifacts/list?run_id={writer.run_id}").get("files", ())
        assert set(writer.files) <= {one["path"] for one in listed}
        assert writer.refused == []


@pytest.mark.timeout(900 if FULL else 120)
def test_a_killed_server_has_kept_what_it_answered_for(git_repo: Sandbox) -> None:
    with process(git_repo.path) as server:
        stop = threading.Event()
        writers = [Writer(server, number, stop) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        for kill in range(KILLS):
            time.sleep(0.7 + kill * 0.13 % 0.5)
            server.kill()
            server.start()
        time.sleep(0.5)
        stop.set()
        for writer in writers:
            writer.join(30)
        assert min(len(writer.points) for writer in writers) > 10
        check(server, writers)
        for writer in writers[:2]:
            body = json.dumps({"run_id": writer.run_id, "status": "FINISHED"})
            with server.connected() as connection:
                connection.request("POST", "/api/2.0/mlflow/runs/update", body, {"content-type": "application/json"})
                assert connection.getresponse().status == 200
        server.kill()
        server.start()
        for writer in writers[:2]:
            run = get(server, f"/api/2.0/mlflow/runs/get?run_id={writer.run_id}")["run"]
            assert run["info"]["status"] == "FINISHED"
        assert server.stop() == 0
    fsck = git_repo.git("fsck", "--strict", "--no-progress")
    assert "error" not in fsck


def test_a_server_that_is_asked_to_end_answers_first(git_repo: Sandbox) -> None:
    with process(git_repo.path) as server:
        stop = threading.Event()
        writers = [Writer(server, number, stop) for number in range(3)]
        for writer in writers:
            writer.start()
        time.sleep(0.6)
        assert server.stop() == 0
        stop.set()
        for writer in writers:
            writer.join(30)
        server.start()
        check(server, writers)
