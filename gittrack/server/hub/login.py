"""Logging in and out on the web page: a name and a password, or a token, for a session.

The page has nothing inline, as its Content-Security-Policy wants, and sends JSON, which no form of another site can.
The token that a server prints when it starts comes behind the ``#`` of the address, which stays in the browser.
"""

from __future__ import annotations

import html
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import orjson
from starlette.responses import Response

from gittrack.errors import GittrackError, InvalidValueError, UnauthenticatedError
from gittrack.server.hub import credentials
from gittrack.server.hub.audit import Event
from gittrack.server.hub.credentials import Password, Token
from gittrack.server.hub.messages import Message, Values, text
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route

if TYPE_CHECKING:
    from gittrack.server.hub.guard import Guard

_PAGE: Final = Path(__file__).parent / "page"


@lru_cache(maxsize=8)
def _file(name: str) -> bytes:
    return (_PAGE / name).read_bytes()


async def _login_page(call: Call) -> Response:
    guard: Guard = call.request.scope["gittrack.guard"]
    page = _file("login.html").decode()
    button = ""
    if guard.oidc is not None:
        button = (
            f'<button type="button" id="provider">Log in with {html.escape(guard.oidc.options.title)}</button>'
            '<p class="or">or</p>'
        )
    return Response(page.replace("<!-- provider -->", button), media_type="text/html")


async def _script(call: Call) -> Response:
    return Response(_file("login.js"), media_type="text/javascript")


async def _style(call: Call) -> Response:
    return Response(_file("login.css"), media_type="text/css")


async def _log_in(call: Call) -> Response:
    guard: Guard = call.request.scope["gittrack.guard"]
    client: str = call.request.scope["gittrack.address"]
    shown = _shown(call.values)
    name = shown.user if isinstance(shown, Password) else f"token {shown.id}"
    try:
        await guard.auth.refresh()
        caller = await guard.identify(shown, client)
        secret = await guard.auth.open_session(caller, guard.options.session)
    except GittrackError as error:
        await _noted(guard, Event(name, "anonymous", "login", "", client, f"refused: {error.message}"))
        raise
    await _noted(guard, Event(caller.name, caller.kind, "login", "", client))
    answer = Response(orjson.dumps({"name": caller.name}), media_type="application/json")
    answer.headers.append("set-cookie", guard.set_cookie(call.request.scope, secret, guard.options.session))
    if guard.oidc is not None:
        answer.headers.append("set-cookie", guard.set_proof(call.request.scope, "", 0))  # of whoever was here before
    return answer


def _shown(values: Values) -> Token | Password:
    if set(values) == {"token"}:
        token = credentials.parse_token(values["token"])
        if token is None:
            raise UnauthenticatedError("that is no token of gittrack's")
        return token
    if set(values) == {"user", "password"} and values["password"]:
        return Password(values["user"], values["password"])
    raise InvalidValueError("a login has a `user` and a `password`, or a `token`")


async def _log_out(call: Call) -> Response:
    scope = call.request.scope
    guard: Guard = scope["gittrack.guard"]
    secret = guard.cookie_of(scope)
    if secret is not None:
        await guard.auth.close_session(secret)
        client: str = scope["gittrack.address"]
        await _noted(guard, Event(call.caller.name, call.caller.kind, "logout", "", client))
    proof = guard.proof_of(scope)
    url = await guard.oidc.farewell(proof) if guard.oidc is not None and proof is not None else None
    answer = Response(orjson.dumps({} if url is None else {"url": url}), media_type="application/json")
    answer.headers.append("set-cookie", guard.set_cookie(scope, "", 0))
    if proof is not None:
        answer.headers.append("set-cookie", guard.set_proof(scope, "", 0))
    return answer


async def _session(call: Call) -> Any:
    return {"name": call.caller.name, "kind": call.caller.kind}


async def _noted(guard: Guard, event: Event) -> None:
    await anyio.to_thread.run_sync(guard.audit.record, event)


_LOGIN: Final = Message(user=text(), password=text(), token=text())

ROUTES: Final = (
    Route("GET", "/login", Permission(None), _login_page, answer="text/html"),
    Route("GET", "/login.js", Permission(None), _script, answer="text/javascript"),
    Route("GET", "/login.css", Permission(None), _style, answer="text/css"),
    Route("POST", "/login", Permission(None), _log_in, _LOGIN, answer=Message(name=text(required=True))),
    Route("POST", "/logout", Permission(Role.READER), _log_out, answer=Message(url=text())),
    Route(
        "GET",
        "/session",
        Permission(Role.READER),
        _session,
        answer=Message(name=text(required=True), kind=text(required=True)),
    ),
)
