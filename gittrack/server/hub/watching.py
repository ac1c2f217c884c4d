"""What a server tells about itself: counters in Prometheus' format, and a line in the log for each request.

An ASGI middleware before all others.  Requests are counted by the template of their route and never by their path, so
that clients cannot make up as many counters as they like; neither counters nor lines have tokens, queries or bodies.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from gittrack._version import __version__
from gittrack.errors import GittrackError, NoEndpointError
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route
from gittrack.server.metrics import CONTENT_TYPE, Counters, escaped
from gittrack.store import journal

if TYPE_CHECKING:
    from gittrack.server.hub.accounts import Accounts
    from gittrack.server.hub.webhooks import Webhooks
    from gittrack.store.repo import Repo
    from gittrack.track.runs import Tracker
    from gittrack.track.shipped import Shipped

METRICS: Final = "/metrics"
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NONE: Final = "none"  #: no route: refused before one was looked for, or there is none
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
_Timed = tuple[tuple[int, Sequence[float]], int, int]  # a histogram, bytes received and sent
Gauge = tuple[str, str, str, float]  # name, labels, text, value

_requests = logging.getLogger("gittrack.server.requests")


class Request:
    """One request as it goes on: what is known of it when it is over."""

    __slots__ = ("begun", "received", "sent", "status")

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.status = 0
        self.received = 0
        self.sent = 0


class Watch(Counters):
    """The middleware; see the module.

    Args:
        app: What is behind it.
        tracker: The runs of the server.
        shipped: Takes journals.
        accounts: Whose database is looked at.
        webhooks: Whose queue is.
    """

    def __init__(self, app: App, tracker: Tracker, shipped: Shipped, accounts: Accounts, webhooks: Webhooks) -> None:
        super().__init__()
        self._app = app
        self._tracker = tracker
        self._shipped = shipped
        self._accounts = accounts
        self._webhooks = webhooks
        self._running = 0
        self._known: dict[tuple[str, str, int], int] = {}
        self._times: dict[tuple[str, str], _Timed] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and note it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        one = Request()
        ident = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        if _REQUEST_ID.fullmatch(ident) is None:
            ident = secrets.token_hex(8).encode()
        scope["gittrack.request"] = ident.decode()
        scope["gittrack.watch"] = self

        async def counting() -> Message:
            message = await receive()
            one.received += len(message.get("body", b""))
            return message

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                one.status = message["status"]
                message["headers"] = [*(message.get("headers") or ()), (b"x-request-id", ident)]
            else:
                one.sent += len(message.get("body", b""))
            await send(message)

        self._running += 1
        try:
            await self._app(scope, counting, noting)
        finally:
            self._running -= 1
            self._over(scope, one)

    def _over(self, scope: Scope, one: Request) -> None:
        seconds = time.perf_counter() - one.begun
        route = scope.get("gittrack.route", _NONE)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        key = method, route, one.status
        slot = self._known.get(key)
        if slot is None:
            labels = f'method="{method}",route="{escaped(route)}"'
            slot = self._known[key] = self._counter(
                "gittrack_http_requests_total", f'{{{labels},status="{one.status}"}}',
                "Requests by method, route and status; 0 is a client that went away.",
            )  # fmt: skip
        self._add(slot)
        times, received, sent = self._times.get(key[:2]) or self._timed(method, route)
        self._observe(times, seconds)
        self._add(received, one.received)
        self._add(sent, one.sent)
        if _requests.isEnabledFor(logging.INFO):
            caller = scope.get("gittrack.caller")
            _requests.info(
                "%s %s", method, route,
                extra={"facts": {
                    "method": method, "route": route, "status": one.status, "ms": round(seconds * 1000, 2),
                    "bytes_in": one.received, "bytes_out": one.sent, "caller": None if caller is None else caller.name,
                    "request_id": scope["gittrack.request"],
                }},
            )  # fmt: skip

    def _timed(self, method: str, route: str) -> _Timed:
        labels = f'method="{method}",route="{escaped(route)}"'
        times = self._histogram(
            "gittrack_http_request_seconds", labels, SECONDS, "Seconds from a request's head to its answer's end."
        )
        received, sent = (
            self._counter(f"gittrack_http_{kind}_bytes_total", f"{{{labels}}}", f"Bytes of {kind} bodies.")
            for kind in ("request", "response")
        )
        found = self._times[method, route] = (times, received, sent)
        return found

    # --- to be read

    def page(self) -> Response:
        """The answer at ``/metrics``."""
        return Response(self.text(), headers={"content-type": CONTENT_TYPE.decode()})

    def text(self) -> bytes:
        """All that is counted, and how things are at this moment."""
        lines, told = self._lines(self._values), set()
        for name, labels, text, value in self._gauges():
            if name not in told:
                kind = "counter" if name.endswith("_total") else "gauge"
                lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
                told.add(name)
            lines.append(f"{name}{labels} {value:.17g}")
        return "\n".join([*lines, ""]).encode()

    def _gauges(self) -> Iterator[Gauge]:
        repo = self._tracker.repo
        labels = f'{{version="{escaped(__version__)}",writer="{escaped(repo.writer)}"}}'
        yield "gittrack_info", labels, "This server's version, and the ledger that it writes.", 1
        yield "gittrack_http_requests_running", "", "Requests that are being answered.", self._running
        yield "gittrack_open_runs", "", "Runs with a journal that is open in this process.", self._tracker.open_runs
        with suppress(GittrackError):  # that the database is away is said below
            sizes = list(_waiting(repo))
            yield "gittrack_journals", "", "Journals that are not committed yet.", len(sizes)
            yield "gittrack_journal_bytes", "", "Bytes of journals that are not committed yet.", sum(sizes)
        yield "gittrack_shipped_frames_total", "", "Frames of journals that clients have sent.", self._shipped.frames
        yield "gittrack_shipped_bytes_total", "", "Bytes of these frames.", self._shipped.bytes
        yield ("gittrack_seal_lag_seconds", "", "How long the run that waits longest waits to be committed.",
               self._tracker.seal_lag)  # fmt: skip
        databases = {"index": lambda: repo.index.meta_get("fingerprint"), "accounts": self._accounts.generation}
        for name, works in databases.items():
            yield "gittrack_database_up", f'{{database="{name}"}}', "Whether a database answers.", float(_tries(works))
        try:
            states: dict[str, int] = dict.fromkeys(("waiting", "delivered", "dead"), 0)
            for counts in self._webhooks.counts().values():
                for state, number in counts.items():
                    states[state] += number
        except GittrackError:
            states = {}
        for state, number in states.items():
            yield "gittrack_webhook_deliveries", f'{{state="{state}"}}', "Deliveries of webhooks.", number
        yield from _process()


def _process() -> Iterator[Gauge]:
    import psutil

    process = psutil.Process()
    with process.oneshot():
        cpu = process.cpu_times()
        yield "process_cpu_seconds_total", "", "Seconds of CPU, of user and system.", cpu.user + cpu.system
        yield "process_resident_memory_bytes", "", "Memory that is in use.", process.memory_info().rss
        yield "process_start_time_seconds", "", "When the process was started, since 1970.", process.create_time()
        if hasattr(process, "num_fds"):  # not on Windows
            yield "process_open_fds", "", "Descriptors that are open.", process.num_fds()
        yield "process_threads", "", "Threads.", process.num_threads()


def _waiting(repo: Repo) -> Iterator[int]:
    """The bytes of each journal that is not committed yet, of files and in the database.  Raises NetworkError."""
    for paths in journal.list_journals(repo.live).values():
        for path in paths:
            with suppress(FileNotFoundError):  # committed meanwhile
                yield path.stat().st_size
    if repo.frames is not None:
        for shared in repo.frames.runs().values():
            yield shared.size


def _tries(work: Callable[[], Any]) -> bool:
    try:
        work()
    except GittrackError:
        return False
    return True


# --- the log


def _page(call: Call) -> Response:
    watch: Watch | None = call.request.scope.get("gittrack.watch")
    if watch is None:
        raise NoEndpointError("nobody counts requests here")
    return watch.page()


#: For every reader: it tells nothing of experiments or models.
ROUTES: Final = (Route("GET", METRICS, Permission(Role.READER), _page, answer="text/plain"),)


class TextLines(logging.Formatter):
    """A line with the time for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        """The line; of a request, with what is known of it."""
        line = super().format(record)
        facts = getattr(record, "facts", None)
        return line if facts is None else f"{line} {' '.join(f'{k}={v}' for k, v in list(facts.items())[2:])}"


class JsonLines(logging.Formatter):
    """An object a line for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        found = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            found["error"] = self.formatException(record.exc_info)
        return json.dumps({**found, **getattr(record, "facts", {})})


def show_requests(form: str | None) -> None:
    """Give the log of this process, which is shown already, a form.

    Args:
        form: ``text`` or ``json``, with a line for each request; None: text, without requests.
    """
    lines = JsonLines() if form == "json" else TextLines()
    for name in ("gittrack.server", "uvicorn.error"):
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(lines)
    _requests.setLevel(logging.WARNING if form is None else logging.INFO)
