"""Two servers to talk to, gittrack's own and the real MLflow's, and a program's project in a fresh process state."""

import contextlib
import http.client
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import gittrack
from tests.api.conftest import make_project, project, python
from tests.server.conftest import running

__all__ = ["project", "python"]


@dataclass(frozen=True)
class Place:
    """A server."""

    kind: str
    url: str


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """The real one, with its runs in SQLite and its artifacts in a folder; its address."""
    if port is None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"), "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        environ = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # nobody asks for its dozen processes
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environ, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            asked = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.suppress(OSError), contextlib.closing(asked):
                asked.request("GET", "/health")
                if asked.getresponse().status == 200:
                    break
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # its workers are in the same group
        process.wait(30)


@pytest.fixture(scope="session", params=["gittrack", pytest.param("mlflow", marks=pytest.mark.peer)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Each of the two."""
    folder = tmp_path_factory.mktemp("server")
    if request.param == "gittrack":
        with running(make_project(folder)) as found:
            yield Place("gittrack", found.url)
        return
    if importlib.util.find_spec("mlflow") is None:
        pytest.skip("mlflow is not installed")
    with mlflow_server(folder) as url:
        yield Place("mlflow", url)


@pytest.fixture
def there(server: Place, project: Path) -> str:
    """The server is the one in use; its address."""
    gittrack.set_tracking_uri(server.url)
    return server.url
