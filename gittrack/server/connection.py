"""Uvicorn's HTTP connection with limits that uvicorn does not have: size of a head, time to send a request.

A client that sends its request in one piece costs nothing here.
"""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_SAID: Final = {408: "the request was not complete in time", 431: "the head of the request is too large"}


@dataclass(frozen=True)
class Limits:
    """What a client may take.

    Attributes:
        head_bytes: Bytes of the request line and the headers.
        head_seconds: Until the head of a request is there, from its first byte; from the start of a connection, too.
        idle_seconds: Between two pieces of a body.
        receive_seconds: From the first byte of a request to its last.
        unread_seconds: While an answer waits for the client to read, until it reads some of it.
        write_seconds: For the last bytes of an answer to be read by the client, once the connection is closing.
        linger_seconds: For the rest of a request that was answered before it was complete, as one that is too large is.
    """

    head_bytes: int = 64 << 10
    head_seconds: float = 30.0
    idle_seconds: float = 60.0
    receive_seconds: float = 30.0
    unread_seconds: float = 120.0
    write_seconds: float = 30.0
    linger_seconds: float = 2.0


class GuardedConnection(HttpToolsProtocol):
    """A connection with limits; see the module."""

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._head = 0  #: bytes of a head that is not complete
        self._complete = True  #: no request is half here
        self._deadline: TimerHandle | None = None
        self._unread: TimerHandle | None = None
        self._begun = self._last = 0.0  #: when the first and the last bytes of the request came

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # uvicorn's own narrowing
        """A client is there: its first request is expected."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._forget_deadline()
        self._forget_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self._limits.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        self._forget_unread()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        """Bytes of one or more requests, or of a part of one."""
        self._head += len(data)
        if not self._complete:
            self._last = self.loop.time()
        super().data_received(data)
        if self._head > self._limits.head_bytes:
            self._refuse(431)
        elif self._complete:
            if self._deadline is not None:
                self._forget_deadline()
        elif self._deadline is None:
            self._begun = self._last = self.loop.time()
            if self._head < 0:
                self._expect_body()
            else:
                self._expect_head()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._complete = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head of a request is there; what is counted from now on is its body."""
        self._head = -(1 << 62)
        if self._deadline is not None:  # it came in pieces
            self._forget_deadline()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        self._head = 0
        self._complete = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer is sent: whoever is still sending the request has not long for it."""
        super().on_response_complete()
        if not self._complete and not self.transport.is_closing():
            self._forget_deadline()
            self._deadline = self.loop.call_later(self._limits.linger_seconds, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for a while: close; a client that does not read its last answer is cut off."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self._limits.write_seconds, self.transport.abort)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _expect_head(self) -> None:
        seconds = min(self._limits.head_seconds, self._limits.receive_seconds)
        self._deadline = self.loop.call_later(seconds, self._expired)

    def _expect_body(self) -> None:
        """Look again when the body could be late: no timer is set for each of its pieces."""
        if self.flow.read_paused:  # the client may go on when what it sent was worked on
            self._last = self.loop.time()
        late = min(self._last + self._limits.idle_seconds, self._begun + self._limits.receive_seconds)
        if late <= self.loop.time():
            self._expired()
        else:
            self._deadline = self.loop.call_at(late, self._expect_body)

    def _expired(self) -> None:
        self._refuse(408)

    def _refuse(self, status: int) -> None:
        self._forget_deadline()
        if self.transport.is_closing():
            return
        if self.cycle is None or not self.cycle.response_started or self.cycle.response_complete:
            text = _SAID[status].encode()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
                b"content-length: %d\r\n\r\n%s" % (status, text, len(text), text)
            )
        self.transport.close()
        self.loop.call_later(self._limits.write_seconds, self.transport.abort)
