"""The tracking server as an ASGI application: finds the route, reads the message, asks for permission, answers.

Handlers call gittrack's client and may wait for disks, so they run in threads, except for those that only append to an
open journal.  Every failure is answered in MLflow's shape; what nobody foresaw is logged and shows nothing outside.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio.to_thread
import orjson
from anyio import CapacityLimiter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gittrack.client import Client, all_pages
from gittrack.errors import (
    GittrackError,
    InvalidValueError,
    LockedError,
    NetworkError,
    NoEndpointError,
    NoMethodError,
    NotFoundError,
    QuerySyntaxError,
    StateError,
    TooLargeError,
    TooManyRequestsError,
)
from gittrack.registry.registry import Registry
from gittrack.server.hub import messages, website
from gittrack.server.hub.feed import Feed
from gittrack.server.hub.roles import Caller, Role
from gittrack.server.hub.routes import Call, Route, Scope, Table
from gittrack.track import query
from gittrack.track.active import ActiveRun
from gittrack.track.logged_models import LoggedModels
from gittrack.track.runs import Tracker
from gittrack.track.shipped import Shipped
from gittrack.track.tree import RUN_ID, Tree
from gittrack.types import Experiment, LifecycleStage, LoggedModel, PagedList, Run

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

Noted = Callable[[Route, Call, str], None]
Done = Callable[[Route, Call, Any], None]

T = TypeVar("T")

_MOST_AT_ONCE: Final = 1000  #: that every search gives
_MOST_SAID: Final = 2000  #: characters of an error
#: Seconds after which a client is to come back, if nothing else says it: MLflow's come back seven times.  For a lock it
#: has waited already.
_LATER: Final = 10.0
_LATER_LOCK: Final = 1.0
_DELETED: Final = "The {kind} {name} must be in the 'active' state. Current state is deleted."

_log = logging.getLogger("gittrack.server")


@dataclass(frozen=True)
class Options:
    """How to serve.

    Attributes:
        max_body: Bytes of a request's body, except for artifacts.
        max_artifact: Bytes of an artifact; None for any.
        threads: Requests that are worked on at a time.
        public: How clients reach this server, as ``https://host``; None: as they say themselves.
        artifact_root: Where the files of new experiments are, if these do not say it; None: here.
    """

    max_body: int = 8 << 20
    max_artifact: int | None = None
    threads: int = 16
    public: str | None = None
    artifact_root: str | None = None


class _Client(Client):
    """A client of one tracker."""

    def __init__(self, tracker: Tracker, registry: Registry) -> None:
        super().__init__()
        self._of = tracker
        self._models = registry

    @property
    def _tracker(self) -> Tracker:
        return self._of

    @property
    def _registry(self) -> Registry:
        return self._models  # one for all calls: it knows what it has read of the models


class Hub:
    """What handlers work with: the runs and models of one repository.

    Args:
        tracker: Its runs.
        options: How to serve.

    Attributes:
        client: Every operation, under MLflow's names.
        registry: Its registered models.
        logged_models: Its logged models.
        tree: Its files that are of no run.
        routes: What is answered, once there is an application.
        is_ending: Whether the server was told to end.
        shipped: Takes journals that gittrack's own clients send.
        feed: What changed lately.
        streams: By caller, how many are being told what changes.
    """

    def __init__(self, tracker: Tracker, options: Options) -> None:
        self.tracker = tracker
        self.options = options
        tracker.artifact_root = options.artifact_root
        self.routes: tuple[Route, ...] = ()
        self.registry = Registry(tracker)
        self.client: Client = _Client(tracker, self.registry)
        self.logged_models = LoggedModels(tracker)
        self.tree = Tree(tracker)
        self.is_ending: Callable[[], bool] = lambda: False
        self.shipped = Shipped(tracker)
        self.feed = Feed(tracker.repo)
        self.streams: Counter[str] = Counter()

    # --- experiments

    def experiment(self, experiment_id: str) -> Experiment:
        """An experiment.  Raises NotFoundError in MLflow's words."""
        try:
            return self.client.get_experiment(experiment_id)
        except (NotFoundError, InvalidValueError):  # what can be no id is none
            raise no_experiment(experiment_id) from None

    def experiment_scope(self, experiment_id: str) -> Scope:
        """An experiment as something to ask permission for.  Raises NotFoundError."""
        return Scope("experiment", self.experiment(experiment_id).name, no_experiment(experiment_id))

    def experiments(self) -> list[Experiment]:
        """Every experiment, deleted ones too."""
        self.tracker.repo.refresh()
        return self.tracker.repo.index.get_experiments(None)

    def readable(self, caller: Caller, experiment_ids: Sequence[str]) -> list[str]:
        """Those of some experiments that a caller may read."""
        if caller.may(Role.READER):
            return list(experiment_ids)
        names = {one.experiment_id: one.name for one in self.experiments()}
        return [one for one in experiment_ids if one in names and caller.may(Role.READER, experiment=names[one])]

    def readable_runs(self, caller: Caller, run_ids: Iterable[str]) -> list[Run]:
        """Those of some runs that are there and that a caller may read, each once, in the order asked for."""
        self.tracker.repo.refresh()
        found = self.tracker.repo.index.get_runs(dict.fromkeys(run_ids), keepers=False)
        known = set(self.readable(caller, list({run.info.experiment_id for run in found})))
        return [run for run in found if run.info.experiment_id in known]

    def seen(
        self,
        caller: Caller,
        page: Callable[[int, str | None], PagedList[T]],
        sees: Callable[[T], bool],
        size: int,
        token: str | None,
    ) -> PagedList[T]:
        """One page of what a caller may see of a search; how long it is, or that there is another, tells of no more.

        Args:
            caller: Who asks.
            page: The search; what is wrong with the query, it says.
            sees: Whether he may see one of what is found.
            size: Of the page.
            token: That of the page before.
        """
        found = page(size, token)
        if caller.may(Role.READER):
            return found
        every = [one for one in all_pages(page, most=_MOST_AT_ONCE) if sees(one)]
        start = query.page_offset(token)
        end = start + size
        return PagedList(every[start:end], query.page_token(end) if end < len(every) else None)

    def logged_model(self, model_id: str, *, deleted: bool = False) -> LoggedModel:
        """A logged model; one that is deleted only if ``deleted``.  Raises NotFoundError in MLflow's words."""
        try:
            return self.logged_models.get(model_id, deleted=deleted)
        except NotFoundError:
            raise NotFoundError(f"Logged model with ID '{model_id}' not found.") from None

    # --- runs

    def run_experiment(self, run_id: str) -> str:
        """The id of a run's experiment.  Raises NotFoundError in MLflow's words."""
        found = None if run_id == RUN_ID else self.tracker.open_run(run_id)
        return self.run(run_id).info.experiment_id if found is None else found.experiment_id

    def runs_of(self, experiment_id: str) -> list[Run]:
        """The active runs of an experiment."""
        return all_pages(
            lambda size, token: self.client.search_runs([experiment_id], max_results=size, page_token=token)
        )

    def run(self, run_id: str) -> Run:
        """A run as it is now; what keeps the free tree is none.  Raises NotFoundError in MLflow's words."""
        if run_id == RUN_ID:
            raise no_run(run_id)
        repo = self.tracker.repo
        repo.refresh()
        found = repo.index.get_run(run_id)
        if found is None:
            raise no_run(run_id)
        return found

    def run_scope(self, run_id: str) -> Scope:
        """The experiment of a run, as something to ask permission for.  Raises NotFoundError."""
        return Scope("experiment", self.experiment(self.run_experiment(run_id)).name, no_run(run_id))

    def model_scope(self, name: str) -> Scope:
        """A registered model, there or not, as something to ask permission for."""
        return Scope("model", name, NotFoundError(f"Registered Model with name={name} not found"))

    def place_scope(self, run_id: str) -> Scope:
        """Where files are, as something to ask permission for: a run, or the free tree.  Raises NotFoundError."""
        if run_id == RUN_ID:
            return Scope("everything", "", no_file())
        return self.run_scope(run_id)._replace(absent=no_file())

    def writer(self, run_id: str) -> ActiveRun:
        """The handle to write to a run.

        Raises:
            NotFoundError, StateError: No such run, or it is deleted; in MLflow's words.
        """
        if run_id == RUN_ID:
            raise no_run(run_id)
        try:
            run = self.tracker.writer(run_id)
        except NotFoundError:
            raise no_run(run_id) from None
        if run.lifecycle_stage == LifecycleStage.DELETED:
            raise deleted("run", run_id)
        return run

    def is_open(self, values: Mapping[str, Any]) -> bool:
        """True if a write to the run of a message only appends to an open journal that is a file."""
        return self.tracker.repo.frames is None and self.tracker.open_run(values["run_id"]) is not None


def no_run(run_id: str) -> NotFoundError:
    """There is no such run, in MLflow's words."""
    return NotFoundError(f"Run with id={run_id} not found")


def no_file() -> NotFoundError:
    """There are no files at some path of the tree."""
    return NotFoundError("there are no artifacts at this path")


def no_experiment(experiment_id: str) -> NotFoundError:
    """There is no such experiment, in MLflow's words."""
    return NotFoundError(f"No Experiment with id={experiment_id} exists")


def deleted(kind: str, name: str) -> StateError:
    """What is to be written to is deleted, in MLflow's words."""
    return StateError(_DELETED.format(kind=kind, name=name))


class App:
    """The application.

    Args:
        hub: What it serves.
        routes: Everything that it answers.
        noted: Told what those changed, or were refused, who may do more than write.
        done: Told what was changed, with the answer; quick, and never fails.

    Raises:
        TypeError: A route declares no permission.
    """

    def __init__(self, hub: Hub, routes: Iterable[Route], noted: Noted | None = None, done: Done | None = None) -> None:
        self.hub = hub
        self._noted = noted
        self._done = done
        self.routes = hub.routes = tuple(routes)
        self._table = Table(self.routes)
        self._threads = CapacityLimiter(hub.options.threads)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request, or start and end with the server."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        try:
            response = await self._answer(scope, receive)
        except ClientDisconnect:
            return
        except GittrackError as error:
            response = refusal(discreet(error, scope["gittrack.caller"]))
        except Exception:  # noqa: BLE001 - a bug of ours: said in the log, and to nobody outside
            _log.exception(
                "%s %s failed, request %s", scope["method"], scope["path"], scope.get("gittrack.request", "")
            )
            response = refusal(GittrackError("the server failed; its log says why"))
        await response(scope, receive, send)

    async def _answer(self, scope: AsgiScope, receive: Receive) -> Response:
        method, path = scope["method"], scope["path"]
        route, parts = self._table.find(method, path)
        if route is None:
            return self._nothing(scope)
        scope["gittrack.route"] = route.path
        request = Request(scope, receive)
        caller: Caller = scope["gittrack.caller"]
        values = await self._values(route, request, parts)
        if route.at_once is not None and route.at_once(self.hub, values):
            return self._respond(self._work(route, Call(self.hub, caller, values, request)))
        if inspect.iscoroutinefunction(route.handler):
            await self._in_thread(route.permission.check, caller, self.hub, values)
            return self._respond(await route.handler(Call(self.hub, caller, values, request)))
        return self._respond(await self._in_thread(self._work, route, Call(self.hub, caller, values, request)))

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await anyio.to_thread.run_sync(work, *arguments, limiter=self._threads)

    def _work(self, route: Route, call: Call) -> Any:
        if self._noted is None or route.permission.role is None or route.permission.role < Role.MAINTAINER:
            answer = route.answered(call)
        else:
            try:
                answer = route.answered(call)
            except GittrackError as error:
                self._noted(route, call, f"refused: {error.message}")
                raise
            if route.method != "GET":
                self._noted(route, call, "done")
        if self._done is not None and route.method != "GET":
            self._done(route, call, answer)
        return answer

    async def _values(self, route: Route, request: Request, parts: Mapping[str, str]) -> dict[str, Any]:
        if route.message is None:
            return dict(parts)
        if route.streams or (request.method in ("GET", "HEAD") and request.scope["query_string"]):
            found = messages.of_query(request.query_params.multi_items(), route.message)
        else:
            found = messages.of_body(await self._body(request))
        return route.message.values({**found, **parts})

    async def _body(self, request: Request) -> bytes:
        most = self.hub.options.max_body
        content_type = request.headers.get("content-type", "application/json")
        body = b""
        async for piece in request.stream():
            body = body + piece if body else piece
            if len(body) > most:
                raise TooLargeError(f"the body has more than {most} bytes", hint="send it in several requests")
        if body and content_type.partition(";")[0].strip().lower() != "application/json":
            raise InvalidValueError("Bad Request. Content-Type must be one of ['application/json'].")
        return body

    def _respond(self, found: Any) -> Response:
        if isinstance(found, Response):
            return found
        return Response(orjson.dumps(found if found is not None else {}), media_type="application/json")

    def _nothing(self, scope: AsgiScope) -> Response:
        methods = ", ".join(sorted(self._table.methods(scope["path"])))
        if methods:
            error = NoMethodError(f"{scope['method']} is not answered at this address", hint=f"use {methods}")
            return refusal(error, {"allow": methods})
        if website.is_built() and website.wants_page(scope, dict(scope["headers"])):
            return website.nothing()
        return refusal(NoEndpointError("there is nothing at this address"))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        with contextlib.suppress(GittrackError):
            await self._in_thread(self.hub.tracker.close)
        await send({"type": "lifespan.shutdown.complete"})


def discreet(error: GittrackError, caller: Caller) -> GittrackError:
    """An error as a caller may see it."""
    if isinstance(error, NotFoundError) and not caller.may(Role.READER):
        error.hint = None  # it may tell what is there instead
    return error


def shown(message: str) -> str:
    """As much of an error's message as is sent: what was sent to us may be in it."""
    return message if len(message) <= _MOST_SAID else f"{message[:_MOST_SAID]}…"


def refusal(error: GittrackError, headers: Mapping[str, str] | None = None) -> Response:
    """An error in MLflow's shape."""
    body: dict[str, str | int] = {"error_code": error.code, "message": shown(str(error))}
    if isinstance(error, QuerySyntaxError):
        body["column"] = error.column  # for whoever shows what was sent beside it
    found = {**later(error), **(headers or {})}
    return Response(orjson.dumps(body), error.http_status, found, media_type="application/json")


def later(error: GittrackError) -> dict[str, str]:
    """When a client is to come back that was not refused for good."""
    if error.http_status not in (429, 503):
        return {}
    again = error.again if isinstance(error, (TooManyRequestsError, NetworkError)) else None
    return {"retry-after": str(math.ceil(again or (_LATER_LOCK if isinstance(error, LockedError) else _LATER)))}
