"""``gittrack server``: started as people start it, asked by a stock client's requests, ended by ^C."""

import contextlib
import http.client
import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gittrack import session
from gittrack.errors import InvalidValueError
from gittrack.store.index import is_index
from tests.conftest import Sandbox
from tests.databases import Server
from tests.server.backend import BACKEND


class Started:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        more = BACKEND.words(folder, before=words)
        command = [sys.executable, "-m", "gittrack", "server", "--port", "0", *words, *more]
        self.process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            found = re.search(r"at http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                break
        else:
            raise AssertionError("".join(self.said))
        self._rest = threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()), daemon=True)
        self._rest.start()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            sent = {
                "content-type": "application/json",
                **{name.replace("_", "-"): text for name, text in headers.items()},
            }
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            text = answer.read()
        return answer.status, json.loads(text) if text.startswith(b"{") else text.decode()

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        status = self.process.wait(30)
        self._rest.join(10)
        return status


@contextlib.contextmanager
def started(folder: Path, *words: str) -> Iterator[Started]:
    found = Started(folder, *words)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait()
        found._rest.join(10)
        if found.process.stderr is not None:
            found.process.stderr.close()


def gittrack(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gittrack", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_what_clients_record_are_runs_of_the_repository(git_repo: Sandbox) -> None:
    with started(git_repo.path) as server:
        assert server.ask("GET", "/health") == (200, "OK")
        status, made = server.ask("POST", "/api/2.0/mlflow/runs/create", {"run_name": "by REST"})
        assert status == 200
        run_id = made["run"]["info"]["run_id"]
        point = {"run_id": run_id, "key": "acc", "value": 0.5, "timestamp": 1}
        assert server.ask("POST", "/api/2.0/mlflow/runs/log-metric", point) == (200, {})
        ended = {"run_id": run_id, "status": "FINISHED"}
        assert server.ask("POST", "/api/2.0/mlflow/runs/update", ended)[0] == 200
        assert server.ask("POST", "/api/2.0/mlflow/runs/delete", {"run_id": run_id})[0] == 200
        clone = git_repo.path.parent / "clone"
        git_repo.git("clone", "-q", f"http://127.0.0.1:{server.port}/git/default", str(clone))
        assert server.end() == 0
    assert len([line for line in server.said if "ERROR" in line or "Traceback" in line]) == 0, server.said
    assert re.search(r"in a browser: http://127\.0\.0\.1:\d+/login#token=gtk_", "".join(server.said))
    assert "by REST" in gittrack(git_repo.path, "log", "--all")
    noted = json.loads(gittrack(git_repo.path, "server", "audit", "show", "--json"))
    assert [(one["what"], one["object"]) for one in noted] == [("POST /mlflow/runs/delete", f"run_id={run_id}")]
    assert (clone / "train.py").exists()


def test_where_there_are_accounts_everybody_needs_one(git_repo: Sandbox) -> None:
    token = gittrack(git_repo.path, "server", "token", "create", "ci", "--role", "writer").strip()
    with started(git_repo.path) as server:
        assert server.ask("POST", "/api/2.0/mlflow/runs/create", {})[0] == 401
        assert server.ask("POST", "/api/2.0/mlflow/runs/create", {}, authorization=f"Bearer {token}")[0] == 200
        assert server.ask("GET", "/health")[0] == 200


def test_its_index_in_a_database(git_repo: Sandbox, postgres: Server) -> None:
    with started(git_repo.path, "--backend-store-uri", postgres.uri) as server:
        made = server.ask("POST", "/api/2.0/mlflow/runs/create", {"run_name": "by REST", "experiment_id": "0"})[1]
        point = {"run_id": made["run"]["info"]["run_id"], "key": "acc", "value": 0.5, "timestamp": 1}
        postgres.stop("immediate")
        assert server.ask("POST", "/api/2.0/mlflow/runs/search", {"experiment_ids": ["0"]})[0] == 503
        postgres.start()
        assert server.ask("POST", "/api/2.0/mlflow/runs/log-metric", point) == (200, {})
        asked = {"experiment_ids": ["0"], "filter": "metrics.acc = 0.5"}
        status, found = server.ask("POST", "/api/2.0/mlflow/runs/search", asked)
        assert (status, [run["info"]["run_name"] for run in found["runs"]]) == (200, ["by REST"])
        assert server.end() == 0
    assert not (git_repo.path / ".gittrack" / "index.db").exists()


def test_its_index_in_a_file_of_ones_own(git_repo: Sandbox, tmp_path: Path) -> None:
    file = tmp_path / "fast disk" / "index.db"
    file.parent.mkdir()
    for _ in range(2):
        with started(git_repo.path, "--backend-store-uri", f"sqlite:///{file}") as server:
            assert server.ask("POST", "/api/2.0/mlflow/runs/create", {"experiment_id": "0"})[0] == 200
            assert server.end() == 0
    assert not (git_repo.path / ".gittrack" / "index.db").exists()
    assert len(json.loads(gittrack(git_repo.path, "log", "--all", "--json"))) == 2
    assert is_index(file)

    (tmp_path / "other").mkdir()
    with pytest.raises(InvalidValueError, match="index of another clone"):
        session.open_server(str(tmp_path / "other"), f"sqlite:///{file}")


def test_a_database_of_somebody_else_is_left_alone(git_repo: Sandbox, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as mlflow:
        mlflow.execute("CREATE TABLE runs (run_uuid TEXT)")
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for name in ("mlflow.db", "thesis.txt"):
        with pytest.raises(InvalidValueError, match="no index of gittrack"):
            session.open_server(str(git_repo.path), f"sqlite:///{tmp_path / name}")
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "would answer to any name"),
        (["--host", "0.0.0.0", "--allowed-host", "hub.example"], "nobody has an account on this server"),
        (["--trusted-proxy", "here"], "is no address"),
        (["--allowed-host", "*"], "is no host"),
        (["--host", "203.0.113.7", "--port", "99999"], "99999"),
        (["--backend-store-uri", "mysql://ana:s3cret@here/x"], "in a PostgreSQL database or in a file"),
        (["--backend-store-uri", "sqlite://"], "in a PostgreSQL database or in a file"),
        (["--backend-store-uri", "postgresql://ana:s3cret@127.0.0.1:1/x"], "database `x` at `127.0.0.1`"),
    ],
)
def test_a_server_that_must_not_start(git_repo: Sandbox, words: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gittrack", "server", *words],
        cwd=git_repo.path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "s3cret" not in done.stderr
    assert "hint:" in done.stderr or "range" in done.stderr
