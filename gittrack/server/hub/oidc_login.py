"""Logging in on the web page by an identity provider: there and back, and who may come in.

A browser gets a secret in a cookie, for ten minutes, and what the provider is asked with follows from it; the database
keeps the hash of that, and of the ``state`` in the address.  So an answer is good once, in the browser that asked, at
any of the servers that share the database, and who reads the database cannot use it.  What then begins is a session as
any other; its browser keeps the ID token, to show the provider what ends when it logs out.

What somebody may do follows from what the provider says of him each time he logs in, besides what was granted to him
here; who may nothing is not let in.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import quote, urlsplit

import anyio.to_thread
import orjson
from anyio import CapacityLimiter
from starlette.responses import RedirectResponse, Response

from gittrack.errors import (
    GittrackError,
    InvalidValueError,
    NoEndpointError,
    PermissionDeniedError,
    TooManyRequestsError,
    UnauthenticatedError,
    shown,
)
from gittrack.server.hub.accounts import Identity
from gittrack.server.hub.audit import Event
from gittrack.server.hub.guard import Guard, network_of
from gittrack.server.hub.messages import Message, text
from gittrack.server.hub.oidc import Claims, Client, Provider
from gittrack.server.hub.roles import Caller, Grant, Role
from gittrack.server.hub.routes import Call, Permission, Route
from gittrack.server.hub.throttle import Rates

PATH: Final = "/login/oidc"
CALLBACK: Final = "/login/oidc/callback"
_SECONDS: Final = 600  #: that a login may take
_AT_ONCE: Final = 4  #: threads that wait for the provider
_RATE: Final = 1.0  #: logins a second that one address may begin
_LONGEST_NEXT: Final = 2000
#: ID tokens that a browser can keep, whose cookies have 4096 bytes; and what it keeps if this is none.
_PROOF: Final = re.compile(r"[A-Za-z0-9_.-]{2,3800}")
_NO_PROOF: Final = "-"
_PLAIN_PATH: Final = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")
#: What the login page is told: it has the words.
_AGAIN, _OFTEN, _DENIED, _UNKNOWN, _BROKEN = "again", "often", "denied", "unknown", "broken"

_log = logging.getLogger("gittrack.server")


@dataclass(frozen=True)
class Admission:
    """A grant for those of whom the provider says something.

    Attributes:
        claim: The name of a claim; with dots for one inside of another.
        pattern: What it has to be (``*``, ``?``, ``[…]``), or one of its values if it has several.
        grant: What they get.
    """

    claim: str
    pattern: str
    grant: Grant

    def applies(self, claims: Claims) -> bool:
        """True if the provider says that of somebody."""
        return any(fnmatchcase(one, self.pattern) for one in values_of(claims, self.claim))


@dataclass(frozen=True)
class OidcOptions:
    """How people log in by an identity provider.

    Attributes:
        client: What this server is to the provider.
        admissions: Who may come in, and what he may do.
        name: What the login page calls the provider.
        user_claim: The claim that accounts are named after.
        only_known: Nobody gets an account by logging in: it has to be there, and linked.
    """

    client: Client
    admissions: tuple[Admission, ...] = ()
    name: str = ""
    user_claim: str = "preferred_username"
    only_known: bool = False

    @property
    def title(self) -> str:
        """What the login page calls the provider."""
        return self.name or urlsplit(self.client.issuer).hostname or self.client.issuer


def values_of(claims: Claims, path: str) -> Iterator[str]:
    """What a claim says, as texts; nothing of an e-mail address that nobody verified."""
    found: Any = claims.get(path)
    if found is None:
        found = claims
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
    if path == "email" and claims.get("email_verified") not in (True, "true"):
        return
    for one in found if isinstance(found, list) else (found,):
        if isinstance(one, str):
            yield one
        elif isinstance(one, bool):
            yield "true" if one else "false"


class Oidc:
    """The logins of one server by an identity provider.

    Args:
        options: How.
        provider: The provider; made from the options if it is not given.

    Raises:
        MissingDependencyError: What reads its tokens is not installed.
    """

    def __init__(self, options: OidcOptions, provider: Provider | None = None) -> None:
        self.options = options
        self.provider = provider or Provider(options.client)
        self.threads = CapacityLimiter(_AT_ONCE)
        self.rates = Rates(_RATE)
        first = {options.user_claim, *(one.claim for one in options.admissions)}
        self._wanted = tuple(sorted({one.partition(".")[0] if "://" not in one else one for one in first}))

    def identity(self, code: str, issuer: str | None, browser: str) -> tuple[Identity, str, str]:
        """Who it is that a code came with, what he would like to be called, and the ID token that proves it.

        Raises:
            UnauthenticatedError: Nothing proves it.
            NetworkError, RemoteDataError: The provider does not answer, or not as it should.
        """
        claims, token = self.provider.claims(code, issuer, _derived("nonce", browser), _derived("verifier", browser),
                                             self._wanted)  # fmt: skip
        options = self.options
        grants = tuple(dict.fromkeys(one.grant for one in options.admissions if one.applies(claims)))
        names = (*values_of(claims, options.user_claim), *values_of(claims, "email"), claims["sub"])
        return Identity(options.client.issuer, claims["sub"], grants), names[0], token

    def address(self, state: str, browser: str) -> str:
        """Where a browser with this secret logs in.  Raises NetworkError and RemoteDataError."""
        return self.provider.address(state, _derived("nonce", browser), _derived("verifier", browser))

    async def farewell(self, proof: str) -> str | None:
        """Where a browser with the proof of a login goes to log out of the provider; None if there is no such place."""
        try:
            token = None if proof == _NO_PROOF else proof
            return await anyio.to_thread.run_sync(self.provider.farewell, token, limiter=self.threads)
        except GittrackError as error:  # he is logged out here
            _log.warning("nobody can be logged out of %s: %s", self.options.title, error)
            return None


def _derived(what: str, browser: str) -> str:
    """Something that only the browser knows, and that tells nothing of its secret."""
    return hashlib.sha256(f"{what} {browser}".encode()).hexdigest()


def _next_page(wanted: str) -> str:
    """A path of this server; the first one for what could lead elsewhere."""
    return wanted if len(wanted) <= _LONGEST_NEXT and _PLAIN_PATH.fullmatch(wanted) else "/"


def _of(call: Call) -> tuple[Guard, Oidc, str]:
    guard: Guard = call.request.scope["gittrack.guard"]
    if guard.oidc is None:
        raise NoEndpointError("nobody logs in by an identity provider here")
    return guard, guard.oidc, call.request.scope["gittrack.address"]


async def _begin(call: Call) -> Response:
    guard, oidc, client = _of(call)
    oidc.rates.count(network_of(client))
    state, browser = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    try:
        url = await anyio.to_thread.run_sync(oidc.address, state, browser, limiter=oidc.threads)
    except GittrackError as error:
        _log.error("logging in by %s failed: %s", oidc.options.title, error)
        raise
    page = _next_page(call.values.get("next", "/"))
    await anyio.to_thread.run_sync(guard.auth.accounts.begin_login, state, browser, page, _SECONDS)
    answer = Response(orjson.dumps({"url": url}), media_type="application/json")
    answer.headers["set-cookie"] = guard.set_cookie(call.request.scope, browser, _SECONDS, login=True)
    return answer


async def _end(call: Call) -> Response:
    guard, oidc, client = _of(call)
    scope = call.request.scope
    if not call.values:
        return RedirectResponse("/login", 303)  # he has logged out of the provider
    try:
        guard.check_failures(client)
        caller, secret, page, token = await _logged_in(call, guard, oidc)
    except GittrackError as error:
        _log.warning("logging in by %s failed: %s", oidc.options.title, error)
        await _noted(guard, Event("anonymous", "anonymous", "login", PATH, client, f"refused: {error.message}"))
        answer = RedirectResponse(f"/login#refused={_said(error)}", 303)
    else:
        await _noted(guard, Event(caller.name, caller.kind, "login", PATH, client))
        # Not to the page itself: a browser that another site sends here does not show it the new cookie.
        answer = RedirectResponse(f"/login?next={quote(page, safe='/')}", 303)
        answer.headers.append("set-cookie", guard.set_cookie(scope, secret, guard.options.session))
        proof = token if _PROOF.fullmatch(token) else _NO_PROOF
        answer.headers.append("set-cookie", guard.set_proof(scope, proof, guard.options.session))
    answer.headers.append("set-cookie", guard.set_cookie(scope, "", 0, login=True))
    return answer


async def _logged_in(call: Call, guard: Guard, oidc: Oidc) -> tuple[Caller, str, str, str]:
    """Who has logged in, the secret of his session, where he goes, and the ID token that proves who he is."""
    values, accounts = call.values, guard.auth.accounts
    browser = guard.cookie_of(call.request.scope, login=True)
    page = None
    if browser is not None and "state" in values:
        page = await anyio.to_thread.run_sync(accounts.end_login, values["state"], browser)
    if browser is None or page is None:
        await guard.failed(call.request.scope["gittrack.address"])
        raise UnauthenticatedError("this login has ended, or was not begun in this browser", hint="begin again")
    if "error" in values:
        raise PermissionDeniedError(f"the provider refused: {shown(values['error'])}")
    try:
        identity, name, token = await anyio.to_thread.run_sync(
            oidc.identity, values.get("code", ""), values.get("iss"), browser, limiter=oidc.threads
        )
    except UnauthenticatedError:
        await guard.failed(call.request.scope["gittrack.address"])
        raise
    known = None if oidc.options.only_known else name
    try:
        user, new = await anyio.to_thread.run_sync(accounts.admit, identity, known)
    except PermissionDeniedError as error:  # who keeps the accounts has to know whom to link
        who = f"{shown(identity.subject)} of {identity.issuer}"
        raise NotAdmittedError(f"{error.message}: {who}") from None
    if new:
        who = f"{user.name}: {identity.subject} of {identity.issuer}"
        await _noted(guard, Event(user.name, "user", "user.add", who, call.request.scope["gittrack.address"]))
    await guard.auth.refresh(at_once=True)
    caller = Caller(user.name, user.all_grants, "user")
    return caller, await guard.auth.open_session(caller, guard.options.session), page, token


class NotAdmittedError(PermissionDeniedError):
    """He is who he is, and may not come in."""


def _said(error: GittrackError) -> str:
    """What the login page is told of a failure; the log and the audit log tell more."""
    if isinstance(error, NotAdmittedError):
        return _UNKNOWN
    if isinstance(error, PermissionDeniedError):
        return _DENIED
    if isinstance(error, TooManyRequestsError):
        return _OFTEN
    return _AGAIN if isinstance(error, UnauthenticatedError) else _BROKEN


async def _noted(guard: Guard, event: Event) -> None:
    await anyio.to_thread.run_sync(guard.audit.record, event)


def admission(condition: str, what: str) -> Admission:
    """What ``--oidc-grant CLAIM=PATTERN ROLE[:PATTERN]`` says.  Raises InvalidValueError."""
    claim, equals, pattern = condition.partition("=")
    role, colon, names = what.partition(":")
    if not equals or not claim or not pattern:
        raise InvalidValueError(f"`{shown(condition)}` is no claim and its value", hint="such as groups=ml-team")
    if role.upper() not in Role.__members__ or (colon and not names):
        raise InvalidValueError(
            f"`{shown(what)}` is no role", hint="reader, writer, maintainer or admin; writer:ci-* for names like that"
        )
    return Admission(claim, pattern, Grant(Role[role.upper()], names or "*", names or "*"))


ROUTES: Final = (
    Route(
        "POST",
        PATH,
        Permission(None),
        _begin,
        Message(next=text()),
        answer=Message(url=text(required=True)),
    ),
    Route(
        "GET",
        CALLBACK,
        Permission(None),
        _end,
        Message(state=text(), code=text(), iss=text(), error=text()),
        answer="text/html",
    ),
)
