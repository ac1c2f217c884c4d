"""A tracking server in a thread of the test's process, and what asks it."""

import contextlib
import http.client
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from gittrack.server.connection import Limits
from gittrack.server.hub import accounts
from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.app import App, Hub, Options
from gittrack.server.hub.lfs import LfsServer
from gittrack.server.hub.projects import Projects
from gittrack.server.hub.roles import LOCAL, Caller
from gittrack.server.run import Address, config, listen
from gittrack.track.runs import Tracker
from tests.conftest import Sandbox
from tests.server.backend import BACKEND, open_repo
from tests.transfer import servers


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def ok(self) -> Any:
        assert self.status == 200, (self.status, self.body)
        return self.json


@dataclass
class Running:
    """A server that answers; ``caller`` is whom it takes everybody for."""

    hub: Hub
    port: int
    caller: Caller

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            sent.setdefault("content-type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, data, sent)
            reply = connection.getresponse()
            return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None) -> Answer:
        return self.ask("POST", f"/api/2.0/mlflow/{path}", {} if body is None else body)

    def new_run(self, **facts: Any) -> str:
        return str(self.post("runs/create", facts).ok["run"]["info"]["run_id"])


@contextlib.contextmanager
def running(
    folder: Path,
    options: Options | None = None,
    database: str | None = None,
    bucket: str | None = None,
    limits: Limits | None = None,
) -> Iterator[Running]:
    """A server of the repository in ``folder``, with its index in this database and its files in this bucket."""
    tracker = Tracker(open_repo(folder, database, bucket), strict=True, serving=True)
    app = App(Hub(tracker, options or Options()), (*ROUTES, *LfsServer(Projects(tracker.repo, tracker.flush)).routes()))
    found = Running(app.hub, 0, LOCAL)

    async def known(scope: Any, receive: Any, send: Any) -> None:
        scope["gittrack.caller"] = found.caller
        await app(scope, receive, send)

    settings = config(known, limits or Limits(), patience=5.0)
    listening = listen(Address(port=0))
    found.port = listening.getsockname()[1]
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield found
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
        tracker.close()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With an index or artifacts elsewhere, tests that show nothing more there are left out."""
    if config.getoption("--database") == "sqlite" and config.getoption("--objects") == "folder":
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("any_backend")])
    items[:] = [item for item in items if not item.get_closest_marker("any_backend")]


@pytest.fixture(scope="session", autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Servers have their index and their artifacts where the options say."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption("--database") == "postgres":
            patch.setattr(BACKEND, "database", request.getfixturevalue("postgres").uri)
        if request.config.getoption("--objects") == "s3":
            patch.setattr(BACKEND, "bucket", new_bucket(request.getfixturevalue("s3"), patch))
        yield


@pytest.fixture
def quick_argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that cost nearly nothing."""
    from argon2 import PasswordHasher

    monkeypatch.setattr(accounts, "_hasher", lambda: PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def server(git_repo: Sandbox) -> Iterator[Running]:
    with running(git_repo.path) as found:
        yield found


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An S3 over HTTP; its address."""
    servers.needs("moto", "s3fs", "flask")
    with servers.moto(tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a bucket, with the credentials for it in the environment."""
    return new_bucket(s3, monkeypatch)


def new_bucket(s3: str, patch: pytest.MonkeyPatch) -> str:
    """As ``bucket``."""
    import boto3

    patch.setenv("AWS_ENDPOINT_URL", s3)
    patch.setenv("AWS_ACCESS_KEY_ID", "testing")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"b{secrets.token_hex(8)}"
    with contextlib.closing(boto3.client("s3")) as client:
        client.create_bucket(Bucket=name)
    return f"s3://{name}/artifacts"
