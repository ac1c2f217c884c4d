"""The server's JSON routes for a caller in this very process: no socket, no guard, the same answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gittrack.errors import NoEndpointError
from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.app import Hub, Options
from gittrack.server.hub.roles import LOCAL
from gittrack.server.hub.routes import Call, Table
from gittrack.track.runs import Tracker


class LocalApi:
    """Answers requests of the REST API.

    Args:
        tracker: The runs.

    Attributes:
        hub: What answers.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.hub = Hub(tracker, Options())
        self._table = Table(ROUTES)

    def ask(self, method: str, path: str, said: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request that says ``said``, in its query or its body.

        Raises:
            GittrackError: It cannot be answered; NoEndpointError: there is no such route.
        """
        route, parts = self._table.find(method, path)
        if route is None or route.message is None:
            raise NoEndpointError(f"there is nothing at {path}")
        values = route.message.values({**said, **parts})
        request = Request({"type": "http", "method": method, "headers": []})
        answer: Any = route.handler(Call(self.hub, LOCAL, values, request))
        return dict(orjson.loads(bytes(answer.body)) if isinstance(answer, Response) else answer)
