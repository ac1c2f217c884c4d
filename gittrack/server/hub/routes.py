"""The one table of routes: each says who may ask it, what it reads and who answers.

A path begins with ``{api}`` where MLflow's clients find it twice: under ``/api/2.0`` and, for its page, under
``/ajax-api/2.0``.  Paths without parameters are found by one look-up.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gittrack.errors import NotFoundError, PermissionDeniedError
from gittrack.server.hub.messages import Message, Values
from gittrack.server.hub.roles import Caller, Role

if TYPE_CHECKING:
    from starlette.requests import Request

    from gittrack.server.hub.app import Hub

PREFIXES: Final = ("/api/2.0", "/ajax-api/2.0")
#: The paths that everybody may ask without saying who he is: all there are.
PUBLIC: Final = frozenset(
    ("/health", "/ready", "/login", "/login.js", "/login.css", "/login/oidc", "/login/oidc/callback")
)


class Scope(NamedTuple):
    """What a call is about, by name.

    Attributes:
        kind: ``experiment`` or ``model``; or ``everything``, for what is no part of any of them.
        name: Its name.
        absent: What is said to somebody who may not know that it is there: the same as if it were not.
    """

    kind: str
    name: str
    absent: NotFoundError

    def open_to(self, caller: Caller, role: Role) -> bool:
        """Whether a caller may do with it what takes ``role``."""
        return caller.may(role) if self.kind == "everything" else caller.may(role, **{self.kind: self.name})


Scoping = Callable[["Hub", Values], Iterable[Scope]]


@dataclass(frozen=True, slots=True)
class Permission:
    """Who may ask.

    Attributes:
        role: The least role; None: everybody, which is for very few.
        about: What the call is about; None: the server as a whole, or the handler shows each caller what he may see.
    """

    role: Role | None
    about: Scoping | None = None

    def check(self, caller: Caller, hub: Hub, values: Values) -> None:
        """Refuse a caller who may not.

        Raises:
            NotFoundError: He may not know of it.
            PermissionDeniedError: He may not do this with it.
        """
        if self.role is None or caller.may(self.role):
            return
        scopes = () if self.about is None else tuple(self.about(hub, values))
        for scope in scopes:
            if scope.open_to(caller, self.role):
                continue
            if scope.open_to(caller, Role.READER):
                raise _denied(self.role)
            raise scope.absent
        if not scopes and self.role > Role.READER:
            raise _denied(self.role)


def _denied(role: Role) -> PermissionDeniedError:
    return PermissionDeniedError(
        f"this takes the role of a {role.name.lower()}", hint="ask an administrator of this server for it"
    )


class Call(NamedTuple):
    """One request, for its handler.

    Attributes:
        hub: What it is asked of.
        caller: Who asks.
        values: What he says; parts of the path, too.
        request: For handlers that read the body themselves, or the query.
    """

    hub: Hub
    caller: Caller
    values: Values
    request: Request


#: Answers with JSON, or with a response of its own.  An asynchronous one runs on the event loop, others in a thread.
Handler = Callable[[Call], Any] | Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Route:
    """One route; see the module.

    Attributes:
        method: ``GET``, ``POST`` …
        path: With ``{name}`` for a part, ``{name:path}`` for the rest.
        permission: Who may ask it.
        handler: Who answers it.
        message: What it says; None: nothing, or the handler reads it.
        at_once: Whether the answer takes no time worth a thread.
        answer: What is answered: the fields of JSON, or a media type; None: JSON that is not described.
        streams: The body is a file, which the handler reads; the message is the query.
    """

    method: str
    path: str
    permission: Permission
    handler: Handler
    message: Message | None = None
    at_once: Callable[[Hub, Values], bool] | None = None
    answer: Message | str | None = None
    streams: bool = False

    def paths(self) -> Iterator[str]:
        """The paths that it answers at."""
        if self.path.startswith("{api}"):
            yield from (prefix + self.path.removeprefix("{api}") for prefix in PREFIXES)
        else:
            yield self.path

    def answered(self, call: Call) -> Any:
        """What the handler answers, if the caller may ask.  Raises GittrackError."""
        self.permission.check(call.caller, call.hub, call.values)
        return self.handler(call)


@dataclass
class Table:
    """Finds the route of a request.

    Args:
        routes: All of them.

    Raises:
        ValueError: Two routes answer the same request.
        TypeError: A route declares no permission, or is for everybody without being one of the few that are.
    """

    routes: Iterable[Route]
    _plain: dict[tuple[str, str], Route] = field(default_factory=dict)
    _patterns: list[tuple[re.Pattern[str], Route]] = field(default_factory=list)
    _methods: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for route in self.routes:
            if not isinstance(route.permission, Permission):
                raise TypeError(f"{route.method} {route.path} declares no permission")
            if route.permission.role is None and not set(route.paths()) <= PUBLIC:
                raise TypeError(f"{route.method} {route.path} is for everybody, and not one of those that may be")
            for path in route.paths():
                if "{" in path:
                    self._patterns.append((_pattern(path), route))
                    continue
                if (route.method, path) in self._plain:
                    raise ValueError(f"two routes answer {route.method} {path}")
                self._plain[route.method, path] = route
                self._methods.setdefault(path, set()).add(route.method)

    def find(self, method: str, path: str) -> tuple[Route | None, Mapping[str, str]]:
        """The route, and the parts of the path; the route is None if there is none."""
        found = self._plain.get((method, path))
        if found is not None:
            return found, {}
        if path in self._methods:  # by other methods: it is no name of something
            return None, {}
        for pattern, route in self._patterns:
            if route.method == method:
                match = pattern.fullmatch(path)
                if match is not None:
                    return route, match.groupdict()
        return None, {}

    def methods(self, path: str) -> set[str]:
        """The methods that are answered at a path."""
        found = self._methods.get(path)
        return found or {route.method for pattern, route in self._patterns if pattern.fullmatch(path)}


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)(:path)?\}", path)
    text = re.escape(parts[0])
    for name, rest, after in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        text += f"(?P<{name}>{'.+' if rest else '[^/]+'})" + re.escape(after)
    return re.compile(text, re.DOTALL)
