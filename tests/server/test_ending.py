"""Whether a server is ready, and how it ends: what runs is finished, what was answered is there, the status is 0."""

import http.client
import json
import shutil
import signal
import socket
import threading
import time
from collections import namedtuple
from typing import Any

import pytest

from gittrack.errors import OverloadedError, ReadOnlyError
from tests.cli.test_server import started
from tests.conftest import Sandbox
from tests.server.backend import open_repo
from tests.server.conftest import Running
from tests.server.test_login import Wired, wired

__all__ = ["wired"]  # a fixture

API = "/api/2.0/mlflow/"


def test_sigterm_under_load(git_repo: Sandbox) -> None:
    """Writers go on all the while, and one has sent half of a file: it is let finish, and nobody else is let in."""
    answered: dict[str, list[int]] = {}
    stop = threading.Event()

    with started(git_repo.path) as server:

        def ask(connection: http.client.HTTPConnection, path: str, **body: Any) -> Any:
            connection.request("POST", API + path, json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise OSError(text)
            return json.loads(text)

        def write() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            try:
                run_id = ask(connection, "runs/create", experiment_id="0")["run"]["info"]["run_id"]
                done = answered[run_id] = []
                while not stop.is_set():
                    step = len(done)
                    ask(connection, "runs/log-metric", run_id=run_id, key="m", value=step, timestamp=1, step=step)
                    done.append(step)
            except (OSError, http.client.HTTPException):
                pass  # the end of the server
            finally:
                connection.close()

        finished = server.ask("POST", API + "runs/create", {"experiment_id": "0"})[1]["run"]["info"]["run_id"]
        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        data = b"x" * (1 << 20)
        path = f"/api/2.0/mlflow-artifacts/artifacts/0/{finished}/artifacts/half"
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        kept.request("GET", "/ready")
        ready = kept.getresponse()
        assert (ready.status, ready.read()) == (200, b"OK")
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as uploading:
            head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            uploading.sendall(head + data[: len(data) // 2])
            deadline = time.monotonic() + 20
            while len(answered) < 4 or min(map(len, answered.values())) < 5:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:  # nobody else is let in
                try:
                    socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
                except OSError:
                    break
                time.sleep(0.02)
            else:
                raise AssertionError("the server still listens")
            assert server.process.poll() is None
            uploading.sendall(data[len(data) // 2 :])
            reply = http.client.HTTPResponse(uploading)
            reply.begin()
            assert reply.status == 200
        assert server.process.wait(30) == 0
        stop.set()
        for thread in threads:
            thread.join(20)
        kept.close()

    repo = open_repo(git_repo.path)
    try:
        for run_id, steps in answered.items():
            stored = {int(one.step) for one in repo.history(run_id, "m")}
            assert stored >= set(steps), "an answered point is gone"
            assert len(stored) <= len(steps) + 1
        assert "half" in repo.artifacts(finished)
    finally:
        repo.close()


def test_ready(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.get("/ready").status == 200
    server.hub.is_ending = lambda: True
    assert server.get("/ready").status == 503
    assert server.get("/health").status == 200  # it is alive
    server.hub.is_ending = lambda: False
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage(10, 10, 0))
        assert server.get("/ready").status == 503

    def fail(*_: Any, **__: Any) -> None:
        raise OverloadedError("the database does not answer")

    with monkeypatch.context() as away:
        away.setattr(server.hub.tracker.repo, "refresh", fail)
        assert server.get("/ready").status == 503

    def refuse() -> None:
        raise ReadOnlyError("the store cannot be written")

    with monkeypatch.context() as closed:
        closed.setattr(server.hub.tracker.repo, "require_writable", refuse)
        assert server.get("/ready").status >= 400
    assert server.get("/ready").status == 200


def test_not_ready_without_accounts(wired: Wired, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wired.send("GET", "/ready").status == 200

    def fail() -> int:
        raise OverloadedError("the database of the accounts does not answer")

    monkeypatch.setattr(wired.auth.accounts, "generation", fail)
    assert wired.send("GET", "/ready").status == 503
    assert wired.send("GET", "/health").status == 200
