"""HTTP to servers that may be slow, broken or hostile: every exchange is bounded in time, size and direction.

Where a request may go: to the server that the person named, and to where that one sends it, by an address in an answer
or by a redirect; but never from https to http, never to a link-local address (where clouds keep the credentials of a
machine), and to this machine or a private network only if the server itself is there.  The address that was really
connected to decides, not the name.  Headers that were meant for one server are not sent to another.
"""

from __future__ import annotations

import ipaddress
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urljoin, urlsplit

from gittrack.errors import GittrackError, MissingDependencyError, NetworkError, NotFoundError
from gittrack.store.gateway import strip_credentials

if TYPE_CHECKING:
    import socket

    import urllib3

_CONNECT_S: Final = 20.0
_SILENCE_S: Final = 120.0  #: without a byte; a server may take long to put away what it got
_SLOW_S: Final = 120.0  #: in which at least that many bytes must move:
_SLOW_BYTES: Final = 30 << 10
_REDIRECTS: Final = 5
_CHUNK: Final = 1 << 20
_PIECE: Final = 64 << 10  #: what is lost of what came if a connection breaks
_REST: Final = 64 << 10  #: of an answer that nobody wants; more is not worth keeping the connection for
_MAX_URL: Final = 16 << 10
#: What may be sent to another server than the one it was meant for.
_HARMLESS: Final = {"accept", "accept-encoding", "content-length", "content-type", "range", "user-agent"}
_PORTS: Final = {"http": 80, "https": 443}

#: From how far an address is to be reached: this machine, a private network, everywhere.
_LOOPBACK, _PRIVATE, _GLOBAL = 0, 1, 2

Origin = tuple[str, str, int]


def origin(url: str) -> Origin:
    """Scheme, host and port of an address that ``check_url`` has passed."""
    parts = urlsplit(url)
    return parts.scheme.lower(), (parts.hostname or "").lower(), parts.port or _PORTS[parts.scheme.lower()]


def shown(url: str) -> str:
    """An address as it may stand in a message: without credentials, and without what may be one."""
    return strip_credentials(url.partition("?")[0])[:200]


def check_url(url: object, *, secure: bool) -> str:
    """``url`` if a request may go there, as far as its text tells.

    Args:
        url: What a server said.
        secure: The server itself is reached by https.

    Raises:
        NetworkError: Another scheme, credentials in it, or not an address at all.
    """
    text = url if isinstance(url, str) else ""
    parts = _split(text)
    if parts is None or len(text) > _MAX_URL or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise NetworkError(f"the server gave `{text!s:.80}` as an address, which is none")
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise NetworkError(f"the server gave an address with `{scheme:.20}:`, only http and https are followed")
    if parts.username is not None or parts.password is not None:
        raise NetworkError(f"the server gave an address with credentials in it: `{shown(text)}`")
    if secure and scheme != "https":
        raise NetworkError(
            f"the server is reached by https and gave an address without: `{shown(text)}`",
            hint="its administrator can set the address by which it is reached from outside",
        )
    return text


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises if it is no number
    except ValueError:
        return None
    return parts if parts.hostname else None


def header_value(name: object, value: object) -> tuple[str, str]:
    """A header that a server wants to be sent, checked.  Raises NetworkError."""
    if (
        not isinstance(name, str)
        or not isinstance(value, str)
        or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}", name)
        or not re.fullmatch(r"[\t\x20-\x7e]{0,16384}", value)
    ):
        raise NetworkError(f"the server asks for a header `{name!s:.40}` that cannot be sent")
    if name.lower() in (
        "host",
        "content-length",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "proxy-authorization",
    ):
        raise NetworkError(f"the server asks for the header `{name}`, which is not its to set")
    return name, value


@dataclass(frozen=True)
class Settings:
    """How a person reaches servers; from git's configuration and the environment.

    Attributes:
        proxy: Address of a proxy, if one is used.
        verify: Check certificates.
        certificates: A file of certificates to trust instead of the system's.
        headers: Sent with every request to the server that the person named.
    """

    proxy: str | None = None
    verify: bool = True
    certificates: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


# --- time


class _Watch:
    """Ends an exchange that does not get on: after ``seconds`` in all, or when too little moves."""

    def __init__(self, kill: Callable[[], None], seconds: float | None) -> None:
        now = time.monotonic()
        self._kill = kill
        self._until = None if seconds is None else now + seconds
        self._since, self._moved = now, 0
        self.expired = False

    def moved(self, amount: int) -> None:
        """So many bytes were sent or came."""
        self._moved += amount

    def check(self, now: float) -> None:
        """End it if it is time."""
        if self._until is not None:
            late = now >= self._until
        elif self._moved >= _SLOW_BYTES:
            self._since, self._moved, late = now, 0, False
        else:
            late = now >= self._since + _SLOW_S
        if late:
            self.expired = True
            self._kill()


class _Watchdog:
    """One thread that looks at all watches."""

    def __init__(self) -> None:
        self._watches: set[_Watch] = set()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def over(self, watch: _Watch) -> Iterator[None]:
        with self._lock:
            self._watches.add(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="gittrack-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._watches.discard(watch)

    def _run(self) -> None:
        while not self._end.wait(0.25):
            now = time.monotonic()
            with self._lock:
                watches = list(self._watches)
            for watch in watches:
                watch.check(now)

    def close(self) -> None:
        self._end.set()


# --- one exchange


class Answer:
    """The answer to a request, while its exchange lasts.

    Attributes:
        status: HTTP's.
        headers: Its headers; look-up does not mind case.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, watch: _Watch, where: str) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._watch = watch
        self._where = where

    @property
    def ok(self) -> bool:
        """True for success."""
        return 200 <= self.status < 300

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes.  Raises NetworkError if it breaks off."""
        while True:
            with _reporting(self._where, self._watch):
                # Whole pieces: a server that sends a few hundred bytes at a time costs no more than another.
                chunk = self._response.read(_PIECE)
            if not chunk:
                return
            self._watch.moved(len(chunk))
            yield chunk

    def read(self, limit: int) -> bytes:
        """The body.  Raises NetworkError if it is longer than ``limit`` bytes, or breaks off."""
        found = bytearray()
        for chunk in self.chunks():
            found += chunk
            if len(found) > limit:
                raise NetworkError(f"{self._where} answers more than {limit} bytes where less is enough")
        return bytes(found)

    def pause(self) -> float | None:
        """Seconds that the server asks to wait; None if it does not say."""
        said = self.headers.get("Retry-After", "")
        return float(said) if re.fullmatch(r"[0-9]{1,6}", said) else None


class Body:
    """What a request sends; ``open`` is called anew for each attempt.

    Args:
        open: Gives a binary stream; closed after use.
        size: Its bytes.
        chunked: Send it without saying its size first.
        told: Called with the bytes of every piece that is sent, and with what was sent, negated, if it was in vain.
    """

    def __init__(
        self,
        open: Callable[[], IO[bytes]],
        size: int,
        *,
        chunked: bool = False,
        told: Callable[[int], None] | None = None,
    ) -> None:
        self.open = open
        self.size = size
        self.chunked = chunked
        self.told = told


class _Sending:
    """A body on its way."""

    def __init__(self, stream: IO[bytes], watch: _Watch, told: Callable[[int], None] | None) -> None:
        self._stream = stream
        self._watch = watch
        self._told = told
        self.sent = 0
        self.failed: GittrackError | None = None

    def read(self, amount: int = -1) -> bytes:
        try:
            data = self._stream.read(_CHUNK if amount < 0 else amount)
        except GittrackError as error:  # the file cannot be read, or is damaged: no fault of the network
            self.failed = error
            raise OSError("the bytes to send cannot be read") from error
        self.sent += len(data)
        self._watch.moved(len(data))
        if self._told is not None:
            self._told(len(data))
        return data


class Client:
    """Talks to one server and to where it sends us; threads may share it.  Close it in the end.

    Args:
        url: The server.
        settings: How it is reached.
        anywhere: It may be wherever it is, since the person named it; else not on this machine, and not link-local.
    """

    def __init__(self, url: str, settings: Settings | None = None, *, anywhere: bool = True) -> None:
        self.settings = settings or Settings()
        self.home = origin(url)
        self._anywhere = anywhere
        self.stop = threading.Event()  #: set to end everything that goes on
        self._reach: int | None = None  # from how far the server itself is to be reached
        self._lock = threading.Lock()
        self._local = threading.local()
        self._sessions: set[_Session] = set()
        self._watchdog = _Watchdog()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections, also those in use by other threads."""
        self.stop.set()
        self.end_thread()
        self._watchdog.close()
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.kill()

    def end_thread(self) -> None:
        """Close the calling thread's connections."""
        session: _Session | None = getattr(self._local, "session", None)
        if session is not None:
            session.close()
            del self._local.session
            with self._lock:
                self._sessions.discard(session)

    @contextmanager
    def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: Body | None = None,
        seconds: float | None = None,
    ) -> Iterator[Answer]:
        """One request and its answer, after redirects.

        Args:
            method: HTTP's.
            url: Where to; ``check_url`` has passed it, or the person said it.
            headers: Meant for that server.
            body: What to send.
            seconds: In which all must be over; if left out it may take long, but must get on.

        Raises:
            NetworkError: It cannot be reached, breaks off, is too slow, or sends us where we do not go.
            GittrackError: The body cannot be read.
        """
        headers = {"Accept-Encoding": "identity", "User-Agent": "gittrack", **headers}
        if origin(url) == self.home:
            given = {name.lower() for name in headers}
            ours = {name: value for name, value in self.settings.headers.items() if name.lower() not in given}
            headers = {**ours, **headers}
        for _ in range(_REDIRECTS + 1):
            with self._once(method, url, headers, body, seconds) as answer:
                target = answer.headers.get("Location")
                moved = answer.status in (307, 308) or (answer.status in (301, 302, 303) and method == "GET")
                if not moved or target is None:
                    yield answer
                    return
            target = check_url(urljoin(url, target), secure=url.lower().startswith("https:"))
            if origin(target) != origin(url):
                headers = {name: value for name, value in headers.items() if name.lower() in _HARMLESS}
            url = target
        raise NetworkError(f"`{shown(url)}` redirects again and again")

    @contextmanager
    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: Body | None, seconds: float | None
    ) -> Iterator[Answer]:
        where = f"`{shown(url)}`"
        self._check_literal(url)
        session = self._session()
        watch = _Watch(session.kill, seconds)
        sending = None
        finished = succeeded = False
        response: urllib3.BaseHTTPResponse | None = None
        with self._watchdog.over(watch):
            try:
                options: dict[str, Any] = {}
                if body is not None:
                    sending = _Sending(body.open(), watch, body.told)
                    options = {"body": sending, "chunked": body.chunked}
                    if not body.chunked:
                        headers = {**headers, "Content-Length": str(body.size)}
                with _reporting(where, watch, sending):
                    response = session.pools.urlopen(
                        method, url, headers=dict(headers), redirect=False, retries=False, preload_content=False,
                        decode_content=False, **options,
                    )  # fmt: skip
                answer = Answer(response, watch, where)
                yield answer
                succeeded = answer.ok
                with suppress(NetworkError):
                    answer.read(_REST)  # else it would stand before the next answer
                    finished = True
            finally:
                if sending is not None:
                    sending._stream.close()
                    if not succeeded and body is not None and body.told is not None:
                        body.told(-sending.sent)
                if response is not None and finished:
                    response.release_conn()
                else:  # what is left of the answer is of no use
                    if response is not None:
                        response.close()
                    session.close()

    def _session(self) -> _Session:
        if self.stop.is_set():
            raise NetworkError("stopped")
        session: _Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _Session(self)
            with self._lock:
                self._sessions.add(session)
        return session

    # -- where requests may go

    def _check_literal(self, url: str) -> None:
        """Refuse an address that is written as a number: a proxy would connect to it for us."""
        with suppress(ValueError):
            self.check_address(origin(url), (urlsplit(url).hostname or "").strip("[]"), settle=False)

    def check_address(self, target: Origin, address: str, *, settle: bool = True) -> None:
        """Refuse to talk to a server that was found at ``address``.

        Raises:
            NetworkError: It is link-local, or nearer than the server that the person named.
            ValueError: ``address`` is no IP address.
        """
        ip = ipaddress.ip_address(address.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        reach = _LOOPBACK if ip.is_loopback else _GLOBAL if ip.is_global else _PRIVATE
        if target == self.home and self._anywhere:
            if settle:
                self._reach = reach if self._reach is None else min(self._reach, reach)
            return
        if ip.is_link_local or ip.is_unspecified or ip.is_multicast:
            raise NetworkError(f"the server sends us to `{address}`, an address of no server; that is not followed")
        if target == self.home:
            if reach == _LOOPBACK:
                raise NetworkError(f"the server is said to be at `{address}`, on this machine; that is not followed")
            self._reach = reach
        elif self._reach is not None and reach < self._reach:
            raise NetworkError(
                f"the server sends us from a public address to `{address}`, a private one; that is not followed"
                if self._reach == _GLOBAL
                else f"the server sends us to `{address}` on this machine; that is not followed"
            )


class _Session:
    """The connections of one thread."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sockets: dict[int, socket.socket] = {}
        self.pools = _pools(self)

    @property
    def settings(self) -> Settings:
        """How servers are reached."""
        return self._client.settings

    def connected(self, connection: Any, sock: socket.socket) -> None:
        """A connection was made, nothing was sent yet.  Raises NetworkError if it leads where we do not go."""
        stale = self._sockets.pop(id(connection), None)
        if stale is not None:
            stale.close()
        # Another descriptor of the same connection: TLS will take the first one over, and this one can end it.
        self._sockets[id(connection)] = sock.dup()
        if self.settings.proxy is None:
            scheme = "https" if connection.default_port == _PORTS["https"] else "http"
            target = (scheme, connection.host.strip("[]").lower(), connection.port)
            try:
                self._client.check_address(target, sock.getpeername()[0])
            except NetworkError:
                sock.close()
                raise

    def kill(self) -> None:
        """End the connections, from another thread: whoever reads or writes gets an error."""
        import socket

        for sock in list(self._sockets.values()):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connections, from their own thread."""
        self.pools.clear()
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()


def _pools(session: _Session) -> urllib3.PoolManager:
    try:
        import urllib3
        from urllib3 import connection, connectionpool
    except ImportError as error:
        raise MissingDependencyError(
            f"nothing can be fetched over http: {error}", hint="pip install urllib3"
        ) from error

    class Plain(connection.HTTPConnection):
        def _new_conn(self) -> socket.socket:
            sock = super()._new_conn()
            session.connected(self, sock)
            return sock

    class Secure(connection.HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            sock = super()._new_conn()
            session.connected(self, sock)
            return sock

    class PlainPool(connectionpool.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(connectionpool.HTTPSConnectionPool):
        ConnectionCls = Secure

    settings = session.settings
    options: dict[str, Any] = {
        "num_pools": 4,
        "maxsize": 1,
        "blocksize": _CHUNK,
        "timeout": urllib3.Timeout(connect=_CONNECT_S, read=_SILENCE_S),
        "cert_reqs": "CERT_REQUIRED" if settings.verify else "CERT_NONE",
        "ca_certs": settings.certificates,
    }
    made: urllib3.PoolManager
    if settings.proxy is None:
        made = urllib3.PoolManager(**options)
    else:
        proxy = urlsplit(settings.proxy)
        if proxy.username:
            credentials = f"{proxy.username}:{proxy.password or ''}"
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=credentials)
        made = urllib3.ProxyManager(settings.proxy, **options)
    made.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return made


@contextmanager
def _reporting(where: str, watch: _Watch, sending: _Sending | None = None) -> Iterator[None]:
    """Turn what urllib3 raises into a NetworkError; what went wrong with the body into that."""
    from urllib3 import exceptions

    try:
        yield
        if watch.expired:  # a connection that is ended in the middle of the headers looks as if they were at their end
            raise NetworkError(f"{where} is too slow", again=0.0)
    except NetworkError:
        raise
    except (exceptions.HTTPError, OSError, ValueError) as error:
        if sending is not None and sending.failed is not None:
            raise sending.failed from None
        if isinstance(error, exceptions.LocationParseError):
            raise NetworkError(f"{where} is no address") from error
        if watch.expired:
            raise NetworkError(f"{where} is too slow", again=0.0) from error
        raise NetworkError(
            f"{where}: {_reason(error)}", hint=_hint(error), again=None if _final(error) else 0.0
        ) from error


def _root(error: BaseException) -> BaseException:
    """What lies at the bottom of urllib3's error."""
    while True:
        inner = getattr(error, "reason", None) or next(
            (a for a in reversed(error.args) if isinstance(a, Exception)), None
        )
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _reason(error: BaseException) -> str:
    from urllib3 import exceptions

    root = _root(error)
    if isinstance(error, exceptions.NameResolutionError):
        return "there is no such host, or no network"
    refused = isinstance(error, exceptions.NewConnectionError) and not isinstance(root, TimeoutError)
    if isinstance(error, (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError)) and not refused:
        return "no answer in time"
    text = getattr(root, "strerror", None) or str(root).rpartition(": ")[2] or type(root).__name__
    return strip_credentials(re.sub(r"[^\x20-\x7e]", "?", str(text)))[:200]


def _final(error: BaseException) -> bool:
    """True if trying again is no use: the certificate is wrong."""
    from urllib3 import exceptions

    return isinstance(error, exceptions.SSLError) or type(_root(error)).__name__ == "SSLCertVerificationError"


def _hint(error: BaseException) -> str | None:
    if _final(error):
        return "`git config http.sslCAInfo FILE` names the certificates of a server of your own"
    return None


# --- what an answer means


def refusal(answer: Answer, where: str, said: str = "") -> GittrackError:
    """The error that an answer without success means.

    Args:
        answer: The answer.
        where: Who gave it.
        said: What the server says about it, if it does; anything.
    """
    words = re.sub(r"\s+", " ", re.sub(r"[^\x20-\x7e]", " ", strip_credentials(said))).strip()[:200]
    message = f"{where} answers {answer.status}" + (f": {words}" if words else "")
    if answer.status == 401:
        hint = "check the credentials that git keeps for it, and that you have access"
        return NetworkError(message, hint=hint, denied=True)
    if answer.status == 403:
        return NetworkError(message, hint="ask its owner for the right to do that", denied=True)
    if answer.status in (404, 410):
        return NotFoundError(message)
    if answer.status in (408, 425, 429, 500, 502, 503, 504):
        return NetworkError(message, hint="try again later: it goes on from here", again=answer.pause() or 0.0)
    if answer.status in (507, 509):
        return NetworkError(message, hint="the server has no room or no bandwidth left for you")
    return NetworkError(message)


__all__ = ["Answer", "Body", "Client", "Settings", "check_url", "header_value", "origin", "refusal", "shown"]
