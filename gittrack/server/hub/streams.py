"""Bodies that are too large for memory: read in pieces with limits, and sent in pieces to clients that take them."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from gittrack.errors import DeadlineError, InvalidValueError, MediaTypeError, TooLargeError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

_T = TypeVar("_T")
PIECE: Final = 1 << 20
_TOGETHER: Final = 512 << 10  #: bytes that are handed on at once: each time a thread takes over
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_HOST: Final = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?"
)


async def threaded(
    work: Callable[..., _T], *arguments: Any, limiter: anyio.CapacityLimiter | None = None, leave: bool = False
) -> _T:
    """The result of ``work`` in a thread.

    Args:
        work: What to do.
        arguments: With these.
        limiter: How many may do such things at a time.
        leave: It may be left to itself when nobody waits for it any more; otherwise it is waited for even then.
    """
    return await anyio.to_thread.run_sync(work, *arguments, abandon_on_cancel=leave, limiter=limiter)


class Body:
    """The body of a request, unpacked if it is gzip.

    Args:
        request: The request.
        limit: Bytes that there may be, unpacked; None for any number.
        silence: Seconds without a byte after which the client is left.

    Raises:
        MediaTypeError: It is packed in another way.
    """

    def __init__(self, request: Request, *, limit: int | None, silence: float) -> None:
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip", "x-gzip"):
            raise MediaTypeError("the body is packed in a way that this server does not know", hint="gzip is known")
        self._source = request.stream()
        self._unpack = None if coding == "identity" else zlib.decompressobj(wbits=31)
        self._packed = b""
        self._here = b""  #: unpacked, and not taken yet
        self._limit = limit
        self._silence = silence
        self.size = 0  #: bytes so far, unpacked

    async def exactly(self, size: int) -> bytes:
        """The next ``size`` bytes.  Raises InvalidValueError if there are fewer."""
        while len(self._here) < size:
            piece = await self._more()
            if not piece:
                raise InvalidValueError("the body ends too early")
            self._here += piece
        found, self._here = self._here[:size], self._here[size:]
        return found

    async def pieces(self) -> AsyncIterator[bytes]:
        """What is left, in pieces that are worth the way to a thread, none of them empty.

        Raises:
            DeadlineError: The client says nothing for too long.
            TooLargeError: It says more than it may.
            InvalidValueError: It is no gzip, or is cut off.
        """
        some, self._here = [self._here], b""
        size = len(some[0])
        while piece := await self._more():
            some.append(piece)
            size += len(piece)
            if size >= _TOGETHER:
                yield b"".join(some)
                some, size = [], 0
        if size:
            yield b"".join(some)

    async def _more(self) -> bytes:
        if self._unpack is None:
            piece = await self._received()
        else:
            piece = await self._unpacked(self._unpack)
        self.size += len(piece)
        if self._limit is not None and self.size > self._limit:
            raise TooLargeError(f"the body has more than {self._limit:,} bytes")
        return piece

    async def _received(self) -> bytes:
        try:
            with anyio.fail_after(self._silence):
                async for piece in self._source:
                    if piece:
                        return piece
        except TimeoutError:
            raise DeadlineError(f"nothing was sent for {self._silence:g} s") from None
        return b""

    async def _unpacked(self, unpack: Any) -> bytes:
        while not unpack.eof:
            packed = self._packed or await self._received()
            if not packed:
                raise InvalidValueError("the body ends too early")
            try:
                piece: bytes = unpack.decompress(packed, PIECE)
            except zlib.error:
                raise InvalidValueError("the body is no gzip") from None
            self._packed = unpack.unconsumed_tail
            if piece:
                return piece
        if unpack.unused_data or await self._received():
            raise InvalidValueError("there is something behind the end of the body")
        return b""


class Timely(StreamingResponse):
    """An answer in pieces; a client that takes none for ``silence`` seconds is left.

    Args:
        pieces: Of the body.
        silence: Seconds.
        ended: Called when it was sent, or never will be: also if not one piece was asked for.
        options: As for any response.
    """

    def __init__(
        self, pieces: AsyncIterator[bytes], *, silence: float, ended: Callable[[], None] | None = None, **options: Any
    ) -> None:
        super().__init__(pieces, **options)
        self._silence = silence
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def in_time(message: Any) -> None:
            try:
                with anyio.fail_after(self._silence):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None

        try:
            await super().__call__(scope, receive, in_time)
        except ClientDisconnect:
            return  # the connection is closed by the server: the answer is not complete
        finally:
            if self._ended is not None:
                self._ended()


def asked_range(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """The one range of a file that is asked for: its first byte and its end; None if all of the file is to be sent.

    The end is not behind the first byte if the file has no such bytes.

    Args:
        request: The request.
        size: Bytes of the file.
        etag: The file, for a client that goes on with a download only if the file is still the same.
    """
    asked = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if asked is None or asked[0] == "bytes=-" or request.headers.get("if-range", etag) != etag:
        return None
    if not asked[1]:
        return max(0, size - int(asked[2])), size
    start, last = int(asked[1]), int(asked[2]) if asked[2] else size
    return start, min(size, last + 1)


def is_known(request: Request, etag: str) -> bool:
    """Whether the client has what it asks for (`If-None-Match`)."""
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return etag in known or "*" in known


def address(request: Request, public: str | None) -> str:
    """How the client reaches this server: ``public`` if that is configured, else what it says itself.

    Raises:
        InvalidValueError: It says no host that could be one.
    """
    if public is not None:
        return public.rstrip("/")
    host = request.headers.get("host", "")
    if _HOST.fullmatch(host) is None:
        raise InvalidValueError("the header `Host` names no host")
    return f"{request.url.scheme}://{host}{request.scope.get('root_path', '')}"


def no_cache() -> Mapping[str, str]:
    """What is asked for again each time."""
    return {"cache-control": "no-cache, max-age=0, must-revalidate", "x-content-type-options": "nosniff"}
