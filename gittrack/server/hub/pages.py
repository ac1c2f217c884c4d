"""The server about itself: is it alive and ready, which versions, what it counts."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from gittrack._version import __version__
from gittrack.errors import OverloadedError
from gittrack.server.hub import openapi
from gittrack.server.hub.messages import Message, boolean, text
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route

if TYPE_CHECKING:
    from gittrack.server.hub.guard import Guard

#: The version of MLflow whose API this is, for clients that ask.
MLFLOW_VERSION: Final = "3.17.2"
_FREE: Final = 1 << 20  #: bytes on the disk without which nothing is taken


def _health(call: Call) -> Response:
    return Response("OK", media_type="text/plain")


def _ready(call: Call) -> Response:
    repo = call.hub.tracker.repo
    if call.hub.is_ending():
        raise OverloadedError("the server is ending", hint="ask another one")
    repo.require_writable()
    if shutil.disk_usage(repo.root).free < _FREE:
        raise OverloadedError("the disk is full", hint="make room")
    guard: Guard | None = call.request.scope.get("gittrack.guard")
    if guard is not None:
        guard.auth.accounts.generation()
    repo.refresh()
    return Response("OK", media_type="text/plain")


def _version(call: Call) -> Response:
    return Response(MLFLOW_VERSION, media_type="text/plain")


def _server_info(call: Call) -> Any:
    return {
        "store_type": "gittrack",
        "workspaces_enabled": False,
        "multipart_uploads_enabled": False,
        "multipart_downloads_enabled": False,
        "gittrack_version": __version__,
    }


async def _openapi(call: Call) -> Any:
    return openapi.description(call.hub.routes)


_INFO: Final = Message(
    store_type=text(required=True),
    workspaces_enabled=boolean(required=True),
    multipart_uploads_enabled=boolean(required=True),
    multipart_downloads_enabled=boolean(required=True),
    gittrack_version=text(required=True),
)
_EVERYBODY: Final = Permission(None)

ROUTES: Final = (
    Route("GET", "/health", _EVERYBODY, _health, answer="text/plain"),
    Route("GET", "/ready", _EVERYBODY, _ready, answer="text/plain"),
    Route("GET", "{api}/gittrack/openapi.json", Permission(Role.READER), _openapi),
    Route("GET", "/version", Permission(Role.READER), _version, answer="text/plain"),
    Route("GET", "/api/3.0/mlflow/server-info", Permission(Role.READER), _server_info, answer=_INFO),
    Route("GET", "/ajax-api/3.0/mlflow/server-info", Permission(Role.READER), _server_info, answer=_INFO),
)
