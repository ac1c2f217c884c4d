"""A server whose projects people push to: a thread of the test's process, and those whom it knows."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from gittrack.server.connection import GuardedConnection, Limits
from gittrack.server.hub import git, incoming, lfs
from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.app import App, Hub, Options
from gittrack.server.hub.projects import Projects
from gittrack.server.hub.roles import LOCAL, Caller
from gittrack.track.runs import Tracker
from tests.server.backend import open_repo
from tests.server.conftest import Answer


@dataclass
class Served:
    """A server that answers.

    Attributes:
        hub: The runs of its default project.
        projects: All of them.
        port: On loopback.
        callers: Whom it knows, by the token that is their password; empty: everybody is ``LOCAL``.
    """

    hub: Hub
    projects: Projects
    port: int = 0
    callers: dict[str, Caller] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def project(self, name: str = "default", token: str | None = None) -> str:
        """The address of a project, for git."""
        login = "" if token is None else f"x:{token}@"
        return f"http://{login}127.0.0.1:{self.port}/git/{name}"

    def caller(self, headers: dict[bytes, bytes]) -> Caller:
        if not self.callers:
            return LOCAL
        kind, _, value = headers.get(b"authorization", b"").partition(b" ")
        if kind != b"Basic":
            return Caller("nobody")
        token = base64.b64decode(value).decode().partition(":")[2]
        return self.callers.get(token, Caller("nobody"))


@contextlib.contextmanager
def serving(
    folder: Path, bounds: incoming.Bounds | None = None, lfs_bounds: lfs.Bounds | None = None, public: str | None = None
) -> Iterator[Served]:
    """A server of the repository in ``folder``."""
    tracker = Tracker(open_repo(folder), strict=True)
    hub = Hub(tracker, Options())
    found = Served(hub, Projects(tracker.repo, tracker.flush))
    remote = git.GitRemote(found.projects, bounds)
    store = lfs.LfsServer(found.projects, public=public, bounds=lfs_bounds)
    app = App(hub, (*ROUTES, *remote.routes(), *store.routes()))

    async def known(scope: Any, receive: Any, send: Any) -> None:
        scope["gittrack.caller"] = found.caller(dict(scope.get("headers", ())))
        await app(scope, receive, send)

    config = uvicorn.Config(
        known,
        port=0,
        http=partial(GuardedConnection, limits=Limits(receive_seconds=600.0)),  # type: ignore[arg-type]  # as the class
        ws="none",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    found.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.should_exit = True
        thread.join(20)
        found.projects.close()
        tracker.close()
        assert not thread.is_alive()


def ask(
    served: Served,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    token: str | None = None,
    *,
    sink: bool = False,
    **headers: str,
) -> Answer:
    """One request; with ``sink``, what comes is hashed and not kept: the body is its sha256."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        sent["authorization"] = "Basic " + base64.b64encode(f"x:{token}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    try:
        connection.request(method, path, body, sent, encode_chunked=body is not None and not isinstance(body, bytes))
        reply = connection.getresponse()
        found = {name.lower(): value for name, value in reply.getheaders()}
        if not sink:
            return Answer(reply.status, found, reply.read())
        digest = hashlib.sha256()
        while piece := reply.read(1 << 20):
            digest.update(piece)
        return Answer(reply.status, found, digest.hexdigest().encode())
    finally:
        connection.close()
