"""Requests over raw sockets: as many connections as asked for, each with one request at a time."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


def post(
    body: bytes, path: str = "/invocations", content_type: str = "application/json", host: str = "127.0.0.1"
) -> bytes:
    """A request as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True)
class Reply:
    """An answer: ``number`` of the request among those of its connection, and seconds until it was there."""

    connection: int
    number: int
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


@dataclass
class Load:
    """What came back; ``lost`` are requests whose connection broke before the answer was there."""

    replies: list[Reply] = field(default_factory=list)
    lost: int = 0
    seconds: float = 0.0

    @property
    def statuses(self) -> set[int]:
        """Every status that was seen."""
        return {reply.status for reply in self.replies}


class _Client(asyncio.Protocol):
    def __init__(self, number: int, ask: Callable[[int, int], bytes | None], load: Load) -> None:
        self.number, self.ask, self.load = number, ask, load
        self.sent = 0
        self.received = b""
        self.begun = 0.0
        self.waiting = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.next()

    def next(self) -> None:
        request = self.ask(self.number, self.sent)
        if request is None:
            self.transport.close()
            return
        self.waiting = True
        self.begun = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received = self.received + data if self.received else data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return
        status, *lines = head.split(b"\r\n")
        headers = dict(line.decode("latin-1").lower().split(": ", 1) for line in lines)
        if len(body) < int(headers["content-length"]):
            return
        seconds = time.perf_counter() - self.begun
        self.load.replies.append(Reply(self.number, self.sent, int(status.split()[1]), headers, body, seconds))
        self.received = b""
        self.waiting = False
        self.sent += 1
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost += self.waiting
        if not self.over.done():
            self.over.set_result(None)


async def hammer(port: int, connections: int, ask: Callable[[int, int], bytes | None], limit: float = 120.0) -> Load:
    """Send what ``ask(connection, number)`` gives until it gives None; what came back.

    Raises:
        TimeoutError: It took longer than ``limit`` seconds.
    """
    load = Load()
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    clients = [
        (await loop.create_connection(lambda number=number: _Client(number, ask, load), "127.0.0.1", port))[1]  # type: ignore[misc]
        for number in range(connections)
    ]
    await asyncio.wait_for(asyncio.gather(*(client.over for client in clients)), limit)
    load.seconds = time.perf_counter() - begun
    return load


def repeat(request: bytes, times: int) -> Callable[[int, int], bytes | None]:
    """The same request, so many times on each connection."""
    return lambda _, number: request if number < times else None


def in_turn(requests: Sequence[bytes], times: int) -> Callable[[int, int], bytes | None]:
    """One request after the other; connections begin at different ones."""
    return lambda connection, number: requests[(connection + number) % len(requests)] if number < times else None
