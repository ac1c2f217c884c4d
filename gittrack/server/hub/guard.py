"""Stands before every route, and lets in only whom it knows: hosts, browsers, credentials, limits.

One ASGI middleware, so that no route can be forgotten.  What it lets through carries ``scope["gittrack.caller"]``, and
``scope["gittrack.guard"]`` for the login page.  In this order it looks at

1. the path: written one way only, no ``/./`` or encoded slash, which others read differently; whoever writes ``//`` is
   sent to the plain form, and asks again
2. the header Host, against a page that had its own name point here (DNS rebinding), on every path
3. Origin and Sec-Fetch-Site: what a page of another site makes a browser send is refused
4. the body: compressed ones, those that are too large, those that a form can send
5. the credentials: a token, a name and a password, the session of a login; on a machine of one's own, where no
   accounts are kept, programs need none, and browsers need the token that the server printed when it started
6. how often the caller asks

Headers that proxies set count only from ``--trusted-proxy``; nothing here or behind it reads headers that change
method, path or host (``X-HTTP-Method-Override``, ``X-Original-URL``, ``X-Forwarded-Host``).
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote_to_bytes

import anyio.to_thread
from starlette.responses import RedirectResponse, Response

from gittrack.errors import (
    GittrackError,
    InvalidValueError,
    MediaTypeError,
    MisdirectedError,
    NoMethodError,
    PermissionDeniedError,
    TooLargeError,
    UnauthenticatedError,
    UsageError,
)
from gittrack.server.hub import credentials, website
from gittrack.server.hub.app import refusal
from gittrack.server.hub.audit import Audit, Event
from gittrack.server.hub.authentication import Authenticator
from gittrack.server.hub.credentials import Password, Token
from gittrack.server.hub.options import AuthOptions
from gittrack.server.hub.roles import LOCAL, Caller
from gittrack.server.hub.throttle import Failures, Rates
from gittrack.server.run import LOCAL_HOSTS

if TYPE_CHECKING:
    from gittrack.server.hub.oidc_login import Oidc

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

LOGIN: Final = "/login"
#: Whoever shows no credentials at a path that needs none.
NOBODY: Final = Caller("anonymous")
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))
#: What a form, or a page without being asked, may send to another site.
_SIMPLE: Final = frozenset((b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data"))
#: A header that no form can set: it stands in for a JSON body where that is a file or empty.
_OWN_HEADER: Final = b"x-requested-with"
#: What a document of ours may load and do.
CSP: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; font-src 'self'; "
    b"media-src 'self'; connect-src 'self'; frame-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    b"form-action 'self'; require-trusted-types-for 'script'"
)
_ALWAYS: Final[Headers] = [
    (b"content-security-policy", CSP),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"cache-control", b"no-store"),
]
#: For a year; not on a machine of one's own, whose name other programs have, too.
_HSTS: Final = (b"strict-transport-security", b"max-age=31536000")
_ALWAYS_NAMES: Final = frozenset(name for name, _ in _ALWAYS)
_LOGIN_COOKIE: Final = "-login"  #: behind the name of the session's
_PROOF_COOKIE: Final = "-proof"  #: likewise
_LOGOUT: Final = "/logout"
_PREFLIGHT_SECONDS: Final = 600
_KNOWN_HOSTS: Final = 256  #: headers Host whose verdict is remembered

_log = logging.getLogger("gittrack.server")


#: The headers that are read here.  Of those in `_LISTS` several make one list, of the others there is one.
_READ: Final = frozenset(
    (
        b"accept", b"authorization", b"content-encoding", b"content-length", b"content-type", b"cookie", b"forwarded",
        b"host", b"origin", b"sec-fetch-mode", b"sec-fetch-site", b"user-agent", b"via", b"x-forwarded-for",
        b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", _OWN_HEADER,
    )
)  # fmt: skip
_LISTS: Final = frozenset((b"accept", b"cookie", b"forwarded", b"via", b"x-forwarded-for", _OWN_HEADER))
#: A program that sends one of these is not on this machine: it came through a proxy.
_BY_PROXIES: Final = frozenset(
    (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip")
)


Head = dict[bytes, bytes]


def read_head(headers: Iterable[tuple[bytes, bytes]]) -> Head:
    """The headers that are read here, by name.

    Raises:
        UsageError: One that must be there once is there twice.
    """
    found: Head = {}
    for name, value in headers:
        if name not in _READ:
            continue
        if name not in found:
            found[name] = value
        elif name in _LISTS:
            found[name] += (b"; " if name == b"cookie" else b", ") + value
        else:
            raise UsageError(f"the header `{name.decode('latin-1')}` is there twice")
    return found


def _plain(scope: Scope) -> Response:
    """Where a path with ``//`` is found: never at another server, which two slashes of any kind could name."""
    path = re.sub(rb"/{2,}", b"/", scope.get("raw_path") or quote(scope["path"]).encode()).replace(b"\\", b"%5C")
    query = scope["query_string"]
    return Response(status_code=308, headers={"location": (path + (b"?" + query if query else b"")).decode("latin-1")})


def _of_browser(head: Head) -> bool:
    """Whether a browser sends this, as far as can be told: all name themselves so."""
    return (
        b"sec-fetch-site" in head
        or b"sec-fetch-mode" in head
        or b"origin" in head
        or head.get(b"user-agent", b"").startswith(b"Mozilla/")
    )


class Guard:
    """The middleware; see the module.

    Args:
        app: What is behind it.
        auth: Knows callers by their credentials.
        audit: Where it is written who gave wrong credentials too often, and who logged in.
        options: Who may ask, from where, how much.
        oidc: How people log in by an identity provider; None: they do not.
    """

    def __init__(
        self, app: App, auth: Authenticator, audit: Audit, options: AuthOptions, oidc: Oidc | None = None
    ) -> None:
        self._app = app
        self.auth = auth
        self.audit = audit
        self.options = options
        self.oidc = oidc
        self.failures = Failures(options.failures)
        self._rates = None if options.rate is None else Rates(options.rate)
        self._hosts: dict[bytes, bool] = {}
        self._names = frozenset(host.encode() for host in options.hosts)
        self._local_names = frozenset(host.encode() for host in LOCAL_HOSTS)
        self._origins = frozenset(origin.encode() for origin in options.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        kind = scope["type"]
        if kind == "http":
            await self._answer(scope, receive, send)
        elif kind == "lifespan":

            async def noted(message: Message) -> None:
                if message["type"] == "lifespan.shutdown.complete":  # after which nobody waits any more
                    await anyio.to_thread.run_sync(self.auth.close)
                await send(message)

            await self._app(scope, receive, noted)
        else:  # there are no routes for others
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        extra: Headers | None = None
        started = False

        async def secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = _with_headers(message.get("headers") or (), extra)
                if not self.options.loopback and self._is_secure(scope, head):
                    message["headers"].append(_HSTS)
            await send(message)

        head: Head = {}
        try:
            head = read_head(scope["headers"])
            self._check_path(scope)
            self._check_host(head)
            if "//" in scope["path"]:
                await _plain(scope)(scope, receive, secured)
                return
            client = self._client(scope, head)
            extra = self._check_origin(scope, head)
            if scope["method"] == "OPTIONS" and extra is not None:
                await self._preflight(head)(scope, receive, secured)
                return
            receive = self._check_body(scope, head, receive)
            scope["gittrack.address"] = client
            scope["gittrack.guard"] = self
            scope["gittrack.caller"] = await self._caller(scope, head, client)
            self.count(scope)
            await self._app(scope, receive, secured)
        except GittrackError as error:
            if started:
                raise
            await self._refused(scope, head, error)(scope, receive, secured)

    def count(self, scope: Scope, times: int = 1) -> None:
        """Count a request of a caller's, or what is worth several.  Raises TooManyRequestsError."""
        if self._rates is not None:
            caller: Caller = scope["gittrack.caller"]
            client: str = scope["gittrack.address"]
            self._rates.count(client if caller is NOBODY else f"{caller.kind} {caller.name}", times)

    # --- path, host

    def _check_path(self, scope: Scope) -> None:
        path = scope["path"]
        raw = scope.get("raw_path") or b""
        if "//" in path or "/." in path or "\0" in path or not path.startswith("/"):
            parts = path.split("/")
            if not path.startswith("/") or "\0" in path or "." in parts or ".." in parts:
                raise UsageError("the path is not written in its plain form", hint="no `.` and no `..` in it")
        if b"%" in raw:
            if b"%2f" in raw.lower():
                raise UsageError("the path has an encoded slash", hint="write `/` where a slash is meant")
            try:
                unquote_to_bytes(raw).decode()
            except UnicodeDecodeError:  # several such paths would be one file
                raise UsageError("the path is not in UTF-8") from None
        if scope["method"] not in _METHODS:
            raise NoMethodError(f"the method `{scope['method']}` is not answered here")
        if b"gtk_" in scope["query_string"] and credentials.LIKE_TOKEN.search(scope["query_string"]):
            raise UnauthenticatedError(
                "a token in an address ends up in logs, and is not taken", hint="send it in the header Authorization"
            )

    def _check_host(self, head: Head) -> None:
        host = head.get(b"host")
        if host is None:
            raise UsageError("the header Host is missing")
        known = self._hosts.get(host)
        if known is None:
            lower = host.lower()
            known = lower in self._names or _without_port(lower) in self._names
            if len(self._hosts) < _KNOWN_HOSTS:
                self._hosts[host] = known
        if not known:
            raise MisdirectedError("the header Host names another server", hint="`--allowed-host NAME` adds a name")

    def _client(self, scope: Scope, head: Head) -> str:
        """The address of whoever asks; a trusted proxy says it, from right to left."""
        peer = scope["client"][0] if scope.get("client") else ""
        if not self.options.proxies or b"x-forwarded-for" not in head or not self._is_proxy(peer):
            return peer
        for text in reversed(head[b"x-forwarded-for"].decode("latin-1").split(",")):
            found = text.strip()
            if not _is_address(found):
                return peer
            if not self._is_proxy(found):
                return found
            peer = found
        return peer

    def _is_proxy(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self.options.proxies)

    def _is_secure(self, scope: Scope, head: Head) -> bool:
        if self.options.secure or scope.get("scheme") == "https":
            return True
        peer = scope["client"][0] if scope.get("client") else ""
        return head.get(b"x-forwarded-proto") == b"https" and self._is_proxy(peer)

    # --- browsers

    def _check_origin(self, scope: Scope, head: Head) -> Headers | None:
        """Refuse what another site made a browser send.

        Returns:
            Headers for the answer, if the page is one of another site that may ask.
        """
        origin = head.get(b"origin")
        if origin is not None:
            if origin in self._origins:
                return [
                    (b"access-control-allow-origin", origin),
                    (b"vary", b"Origin"),
                    (b"cross-origin-resource-policy", b"cross-origin"),
                ]
            host = head[b"host"].lower()
            # https even if this server speaks http: a proxy may end TLS, and such a page is no less ours
            if origin != b"https://" + host and (origin != b"http://" + host or self._is_secure(scope, head)):
                raise PermissionDeniedError(
                    "the request comes from a page of another site", hint="`--allowed-origin` names sites that may ask"
                )
        if head.get(b"sec-fetch-site") in (b"cross-site", b"same-site") and not (
            # A link from elsewhere may be followed; the session's cookie does not come along.
            scope["method"] == "GET" and head.get(b"sec-fetch-mode") == b"navigate"
        ):
            raise PermissionDeniedError("the request comes from a page of another site")
        return None

    def _preflight(self, head: Head) -> Response:
        headers = {
            "access-control-allow-methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
            "access-control-allow-headers": "authorization, content-type, x-requested-with",
            "access-control-max-age": str(_PREFLIGHT_SECONDS),
        }
        return Response(status_code=204, headers=headers)

    # --- bodies

    def _check_body(self, scope: Scope, head: Head, receive: Receive) -> Receive:
        if scope["method"] in ("GET", "HEAD") and b"content-length" not in head:
            return receive
        streamed = scope["path"].startswith(self.options.streams)
        most = self.options.max_stream if streamed else self.options.max_body
        if not streamed:
            if b"content-encoding" in head and head[b"content-encoding"].lower() != b"identity":
                raise MediaTypeError("the body is compressed", hint="send it as it is")
            if scope["method"] == "POST" and _media_type(head) in _SIMPLE:
                raise InvalidValueError("Bad Request. Content-Type must be one of ['application/json'].")
        if most is None:
            return receive
        if b"content-length" not in head:  # in pieces, of which nobody said how many
            return _counted(receive, most)
        length = head[b"content-length"]
        if len(length) > 18 or not length.isdigit() or int(length) > most:
            raise _too_large(most)
        return receive

    # --- credentials

    async def _caller(self, scope: Scope, head: Head, client: str) -> Caller:
        if scope["path"] in self.options.public:
            return NOBODY
        auth = self.auth
        if not auth.is_fresh:
            await auth.refresh()
        if b"authorization" in head and not self._is_open(scope, head):
            return await self._by_header(head[b"authorization"], client)
        if b"cookie" in head:
            secret = _cookie(head[b"cookie"], self.cookie_name(scope, head))
            caller = None if secret is None else await auth.by_session(secret)
            if caller is not None:
                self._check_forged(scope, head)
                return caller
        if self._is_open(scope, head):
            return LOCAL
        raise UnauthenticatedError("who asks?", hint=self._how_to_log_in())

    async def again(self, scope: Scope) -> Caller:
        """Who asked, as it is now: for an answer that goes on.  Raises UnauthenticatedError if he may not any more."""
        return await self._caller(scope, read_head(scope["headers"]), scope["gittrack.address"])

    def _is_open(self, scope: Scope, head: Head) -> bool:
        """Whether a program of this machine asks, where nobody keeps accounts."""
        options = self.options
        return (
            options.loopback
            and not options.required
            and not self.auth.has_accounts
            and not _of_browser(head)
            and _BY_PROXIES.isdisjoint(head)
            and _without_port(head[b"host"].lower()) in self._local_names
        )

    def _how_to_log_in(self) -> str:
        if self.auth.has_accounts:
            return "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        return "the address that the server printed when it started has a token in it"

    async def _by_header(self, value: bytes, client: str) -> Caller:
        try:
            shown = credentials.of_header(value)
        except UnauthenticatedError:
            await self.failed(client)
            raise
        return await self.identify(shown, client)

    async def identify(self, shown: Token | Password, client: str) -> Caller:
        """Whose credentials these are.

        Args:
            shown: The credentials.
            client: The address that they come from.

        Raises:
            UnauthenticatedError: They are wrong.
            TooManyRequestsError: Wrong ones came too often.
        """
        if isinstance(shown, Token):
            try:
                return self.auth.by_token(shown)  # however many wrong ones came: nobody guesses one of these
            except UnauthenticatedError:
                await self._failed(client, f"token {shown.id}", shown.id)
                raise
        known = self.auth.remembers(shown)
        if known is not None:
            return known
        account = f"user {shown.user[:64]}"
        async with self.auth.hashing:  # those that come at the same time are counted one after the other, too
            known = self.auth.remembers(shown)
            if known is not None:
                return known
            self.failures.check(network_of(client))
            self.failures.check(account)
            try:
                return await self.auth.by_password(shown)
            except UnauthenticatedError:
                await self._failed(client, account, shown.user)
                raise

    def check_failures(self, client: str) -> None:
        """Refuse an address that wrong credentials came from too often.  Raises TooManyRequestsError."""
        self.failures.check(network_of(client))

    async def failed(self, client: str) -> None:
        """Count that wrong credentials came from an address.  Raises TooManyRequestsError if it was too often."""
        await self._failed(client, client, None)

    async def _failed(self, client: str, account: str, name: str | None) -> None:
        """Count a failure.  Raises TooManyRequestsError if there were too many before."""
        keys = [(network_of(client), 1)]
        if account != client:  # a user must not be locked out by few guesses of others
            keys.append((account, 10 if account.startswith("user ") else 1))
        full = [key for key, times in keys if self.failures.count(key, times)]
        if full:
            event = Event(name or "anonymous", "anonymous", "credentials", "", client, "refused: wrong too often")
            _log.warning("wrong credentials too often from %s", client)
            await anyio.to_thread.run_sync(self.audit.record, event)
            return  # the last one that is answered as those before
        for key, _ in keys:
            self.failures.check(key)

    # --- sessions

    def cookie_name(self, scope: Scope, head: Head | None = None) -> str:
        """What the cookie of a session is called: browsers keep `__Host-` to TLS, and share others between ports."""
        if self._is_secure(scope, head or read_head(scope["headers"])):
            return "__Host-gittrack"
        port = scope["server"][1] if scope.get("server") else 0
        return f"gittrack-{port}"

    def cookie_of(self, scope: Scope, *, login: bool = False) -> str | None:
        """The secret that a request carries: of the session, or of a login that is under way."""
        head = read_head(scope["headers"])
        if b"cookie" not in head:
            return None
        return _cookie(head[b"cookie"], self.cookie_name(scope, head) + (_LOGIN_COOKIE if login else ""))

    def set_cookie(self, scope: Scope, secret: str, seconds: int, *, login: bool = False) -> str:
        """The header Set-Cookie for a session; 0 seconds take it away.

        That of a login under way has to come back when the identity provider sends the browser here.
        """
        name = self.cookie_name(scope)
        secure = "; Secure" if name.startswith("__Host-") else ""
        name, site = (name + _LOGIN_COOKIE, "Lax") if login else (name, "Strict")
        return f"{name}={secret}; Path=/; HttpOnly; SameSite={site}; Max-Age={seconds}{secure}"

    def proof_of(self, scope: Scope) -> str | None:
        """What the browser keeps of a login by an identity provider; None if there was none."""
        head = read_head(scope["headers"])
        return _cookie(head.get(b"cookie", b""), self._proof_name(scope))

    def set_proof(self, scope: Scope, proof: str, seconds: int) -> str:
        """The header Set-Cookie that leaves the proof of a login with the browser, which shows it to log out only."""
        name = self._proof_name(scope)
        secure = "; Secure" if name.startswith("__Secure-") else ""
        return f"{name}={proof}; Path={_LOGOUT}; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}"

    def _proof_name(self, scope: Scope) -> str:
        return self.cookie_name(scope).replace("__Host-", "__Secure-") + _PROOF_COOKIE

    def _check_forged(self, scope: Scope, head: Head) -> None:
        """Refuse what changes something with a session's cookie, unless a page of ours did it with intent."""
        if scope["method"] in _SAFE:
            return
        # Other foreign pages were refused before.
        if b"origin" in head:
            ours = head[b"origin"] not in self._origins
        else:
            ours = head.get(b"sec-fetch-site") in (b"same-origin", b"none")
        if not ours or not (_media_type(head) == b"application/json" or _OWN_HEADER in head):
            raise PermissionDeniedError(
                "the request does not show that a page of this server made it",
                hint="send JSON, or the header X-Requested-With",
            )

    # --- refusals

    def _refused(self, scope: Scope, head: Head, error: GittrackError) -> Response:
        browser = _of_browser(head)
        if isinstance(error, UnauthenticatedError):
            if browser and website.wants_page(scope, head):
                return RedirectResponse(f"{LOGIN}?next={quote(scope['path'], safe='/')}", 303)
            answer = refusal(error)
            if not browser:  # it would ask for a password in a window of its own, and send it whatever page asks
                answer.headers.append("www-authenticate", 'Basic realm="gittrack", charset="UTF-8"')
            answer.headers.append("www-authenticate", 'Bearer realm="gittrack"')
            return answer
        if isinstance(error, NoMethodError):
            return refusal(error, {"allow": ", ".join(sorted(_METHODS))})
        return refusal(error)


def _media_type(head: Head) -> bytes:
    return head.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _with_headers(given: Iterable[tuple[bytes, bytes]], extra: Headers | None) -> Headers:
    """The answer's own headers, and those of ours that it does not set itself."""
    found = list(given)
    if extra:
        found += extra
    taken = {name for name, _ in found} & _ALWAYS_NAMES
    if not taken:
        return found + _ALWAYS
    return found + [one for one in _ALWAYS if one[0] not in taken]


def _counted(receive: Receive, most: int) -> Receive:
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise _too_large(most)
        return message

    return counting


def _too_large(most: int) -> TooLargeError:
    return TooLargeError(f"the body has more than {most} bytes", hint="send it in several requests")


def _without_port(host: bytes) -> bytes:
    name, colon, port = host.rpartition(b":")
    return name if colon and port.isdigit() else host


def _cookie(header: bytes, name: str) -> str | None:
    """A cookie's value; None if it is not there, or there twice: then somebody else set one of them."""
    start = name.encode() + b"="
    found = [part.strip()[len(start) :] for part in header.split(b";") if part.strip().startswith(start)]
    return found[0].decode("latin-1") if len(found) == 1 else None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def network_of(client: str) -> str:
    """The address, or of IPv6 the network that one customer has."""
    if ":" not in client or not _is_address(client):
        return client
    return str(ipaddress.ip_network((client.partition("%")[0], 64), strict=False))
