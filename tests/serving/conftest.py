"""A server in a thread of the test's process, and a client that asks it."""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from gittrack.server.connection import Limits
from gittrack.server.metrics import Metrics
from gittrack.server.run import Address, Plan, config, listen
from gittrack.server.serving import Options, ServedModel, Service, Source


class Given:
    """A source that serves what it is given, and follows what is put into ``next``."""

    def __init__(self, model: Any, name: str = "iris", version: str | None = "3") -> None:
        self.served = ServedModel(model, name, version)
        self.next: ServedModel | Exception | None = None

    def load(self) -> ServedModel:
        return self.served

    def newer(self) -> ServedModel | None:
        found, self.next = self.next, None
        if isinstance(found, Exception):
            raise found
        return found


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def predictions(self) -> Any:
        assert self.status == 200, (self.status, self.body)
        return self.json["predictions"]


@dataclass
class Running:
    """A server that answers."""

    port: int
    service: Service
    metrics: Metrics
    server: uvicorn.Server
    thread: threading.Thread = field(repr=False)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host="host" in headers, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            if body is not None and "transfer_encoding" not in headers:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body)
            reply = connection.getresponse()
            return Response(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Response:
        return self.ask("GET", path, None, **headers)

    def post(self, body: Any, path: str = "/invocations", content_type: str | None = "application/json") -> Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {} if content_type is None else {"content_type": content_type}
        return self.ask("POST", path, data, **headers)

    def counted(self, line: str) -> float:
        """The value of a line of `/metrics`; 0 if it is not there."""
        for found in self.get("/metrics").body.decode().splitlines():
            if found.startswith(line + " "):
                return float(found.rpartition(" ")[2])
        return 0.0

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "it did not come"
            time.sleep(0.02)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(model, **options)`` serves a model, or what a source has; stopped when the test is over."""
    with starting() as make:
        yield make


@contextlib.contextmanager
def starting() -> Iterator[Start]:
    """The same, as a context."""
    running: list[Running] = []

    def make(model: Any, *, limits: Limits | None = None, **options: Any) -> Running:
        source: Source = model if hasattr(model, "newer") else Given(model)
        plan = Plan(source, Address(port=0), Options(**options), limits or Limits())
        metrics = Metrics()
        service = Service(source, plan.options, metrics)
        server = uvicorn.Server(config(service, plan.limits, patience=plan.options.timeout))
        listening = listen(plan.address)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        one = Running(listening.getsockname()[1], service, metrics, server, thread)
        thread.start()
        one.until(lambda: server.started)
        running.append(one)
        return one

    try:
        yield make
    finally:
        for one in running:
            one.stop()
