"""Journal shipping: gittrack's own clients send what they have recorded, byte for byte, by offset.

The client sends pieces; the answer to each is where the next one belongs, so after any outage both agree again.  What
a piece may say is looked at in ``gittrack.track.shipped``; who may send it, the table of routes says: whoever may write
to the experiment, and to the run if there is one.
"""

from __future__ import annotations

from typing import Any, Final

import anyio.to_thread

from gittrack.errors import InvalidValueError, MediaTypeError, NotFoundError, TooLargeError
from gittrack.server.hub.app import Hub, no_experiment
from gittrack.server.hub.messages import Values
from gittrack.server.hub.roles import Caller, Role
from gittrack.server.hub.routes import Call, Permission, Route, Scope
from gittrack.server.hub.rules import may_code
from gittrack.track.shipped import MAX_PIECE, MayName

#: The version of this protocol.
VERSION: Final = 1
KIND: Final = "application/octet-stream"
_HEADER: Final = "gittrack-source"


def _scopes(hub: Hub, values: Values) -> list[Scope]:
    found = [hub.experiment_scope(values["experiment_id"])]
    try:
        where = hub.run_experiment(values["run_id"])
    except NotFoundError:
        return found  # the run is to be made
    if where != values["experiment_id"]:
        raise no_experiment(values["experiment_id"])  # as if it were not there: he may not know of it
    return found


def _server(call: Call) -> Any:
    return {"journals": VERSION, "writer": call.hub.tracker.repo.writer}


def _list(call: Call) -> Any:
    return {"journals": call.hub.shipped.ends(call.values["run_id"], call.request.headers.get(_HEADER, ""))}


async def _append(call: Call) -> Any:
    request, values = call.request, call.values
    if request.headers.get("content-type", "") != KIND:
        raise MediaTypeError(f"the body is no `{KIND}`")
    offset = request.query_params.get("offset", "")
    if not offset.isascii() or not offset.isdecimal() or len(offset) > 18:
        raise InvalidValueError("`offset` is a number of bytes")
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > MAX_PIECE:
            raise TooLargeError(f"a piece of a journal has at most {MAX_PIECE} bytes")
        pieces.append(piece)

    def take() -> int:
        return call.hub.shipped.take(
            values["run_id"],
            values["experiment_id"],
            request.headers.get(_HEADER, ""),
            values["name"],
            int(offset),
            b"".join(pieces),
            may_name=_may_name(call.caller),
        )

    return {"offset": await anyio.to_thread.run_sync(take)}


def _may_name(caller: Caller) -> MayName | None:
    """A run keeps alive, and shows, the code it names: nobody gets to see code by that who may not."""
    return None if caller.may(Role.READER) or may_code(caller, Role.READER) else lambda oid: False


_AT: Final = "{api}/gittrack/experiments/{experiment_id}/runs/{run_id}/journals"

ROUTES: Final = (
    Route("GET", "{api}/gittrack/server-info", Permission(Role.READER), _server),
    Route("GET", _AT, Permission(Role.WRITER, _scopes), _list),
    Route("POST", f"{_AT}/{{name}}", Permission(Role.WRITER, _scopes), _append),
)
