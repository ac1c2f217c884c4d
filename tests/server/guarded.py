"""A guard with a tiny application behind it: in this process, or over a socket."""

import asyncio
import base64
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from gittrack.server.connection import GuardedConnection, Limits
from gittrack.server.hub.accounts import Accounts
from gittrack.server.hub.audit import Audit
from gittrack.server.hub.authentication import Authenticator
from gittrack.server.hub.guard import Guard
from gittrack.server.hub.options import AuthOptions
from gittrack.server.hub.roles import Caller, Grant, Role
from gittrack.server.hub.routes import PUBLIC
from tests.server.conftest import Answer

EVERYTHING = (Grant(Role.WRITER, "*", "*"),)
API = "/api/2.0/mlflow/runs/create"
PASSWORD = "correct horse battery"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says who asked, and how large the body was."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    caller: Caller = scope["gittrack.caller"]
    body = {"name": caller.name, "kind": caller.kind, "method": scope["method"], "path": scope["path"], "size": size,
            "address": scope["gittrack.address"]}  # fmt: skip
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


@dataclass
class Guarded:
    """A guard, and how to ask it without a socket."""

    folder: Path
    options: AuthOptions
    app: Any = echo
    start: bool = False

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.accounts = Accounts.in_store(self.folder)
        self.audit = Audit(self.folder / "server")
        self.auth = Authenticator(self.accounts, start=self.start, clock=self.clock)
        self.guard = Guard(self.app, self.auth, self.audit, self.options)
        self.guard.failures._clock = self.clock

    def with_options(self, **changes: Any) -> "Guarded":
        return replace(self, options=replace(self.options, **changes))

    def ask(
        self,
        method: str = "POST",
        path: str = API,
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        query: str = "",
        host: str | None = "127.0.0.1:5000",
        client: str = "127.0.0.1",
        pieces: list[bytes] | None = None,
        scheme: str = "http",
    ) -> Answer:
        sent = {} if host is None else {"host": host}
        sent.update(headers or {})
        if method in ("POST", "PUT", "PATCH"):
            sent.setdefault("content-type", "application/json")
            if pieces is None:
                sent.setdefault("content-length", str(len(body)))
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in sent.items()],
            "client": (client, 5), "server": ("127.0.0.1", 5000), "scheme": scheme,
        }  # fmt: skip
        return asyncio.run(self._ask(scope, pieces if pieces is not None else [body]))

    async def _ask(self, scope: Any, pieces: list[bytes]) -> Answer:
        rest = list(pieces)
        said: list[Any] = []

        async def receive() -> Any:
            piece = rest.pop(0) if rest else b""
            return {"type": "http.request", "body": piece, "more_body": bool(rest)}

        async def send(message: Any) -> None:
            said.append(message)

        self.auth._refreshing = asyncio.Lock()  # of this loop
        await self.guard(scope, receive, send)
        headers: dict[str, str] = {}
        for name, value in said[0]["headers"]:
            text = value.decode("latin-1")
            headers[name.decode()] = f"{headers[name.decode()]}, {text}" if name.decode() in headers else text
        return Answer(said[0]["status"], headers, b"".join(one.get("body", b"") for one in said[1:]))

    def token(self, name: str = "ci", grants: tuple[Grant, ...] = EVERYTHING, **facts: Any) -> str:
        made = str(self.accounts.create_token(name, grants, by="test", **facts)[1])
        self.clock.now += 2  # what changed is seen within a second
        return made


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@contextlib.contextmanager
def listening(app: Any) -> Iterator[int]:
    """The application behind uvicorn; its port."""
    config = uvicorn.Config(
        app,
        port=0,
        http=partial(GuardedConnection, limits=Limits()),  # type: ignore[arg-type]  # called as the class is
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def raw(port: int, text: bytes) -> tuple[int, dict[str, str], bytes]:
    """What is answered to these very bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(text)
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()


def options(**changes: Any) -> AuthOptions:
    return replace(AuthOptions(public=PUBLIC), **changes)
