"""Starts the tracking server of a repository, and ends it without losing what it answered for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import GittrackError
from gittrack.server import run
from gittrack.server.connection import Limits
from gittrack.server.hub.accounts import FOLDER
from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.app import App, Hub, Options
from gittrack.server.hub.audit import Event
from gittrack.server.hub.entrance import Asked, guarded, page_url
from gittrack.server.hub.git import GitRemote
from gittrack.server.hub.lfs import LfsServer
from gittrack.server.hub.notifier import Notifier
from gittrack.server.hub.projects import DEFAULT, Project, Projects
from gittrack.server.hub.roles import Caller
from gittrack.server.hub.routes import PUBLIC, Call, Route
from gittrack.server.hub.rules import Update
from gittrack.server.hub.watching import METRICS, Watch
from gittrack.server.hub.webhooks import KEY_FILE, Keys, Webhooks
from gittrack.server.tls import Files, Tls

if TYPE_CHECKING:
    from gittrack.server.ending import Ending
    from gittrack.track.runs import Tracker

#: Seconds that requests get to end when the server does.
_PATIENCE: Final = 10.0
#: Seconds in which a request has to be complete: files of any size are sent.
_RECEIVING: Final = 6 * 3600.0
#: What of a message says what it is about.
_ABOUT: Final = (
    "name", "version", "stage", "alias", "about", "new_name", "run_id", "experiment_id", "model_id", "path", "role",
    "experiments", "models", "id", "days", "remote",
)  # fmt: skip

_log = logging.getLogger("gittrack.server")


@dataclass(frozen=True)
class Plan:
    """Everything that a tracking server is started with, besides its runs.

    Attributes:
        address: Where to listen.
        asked: Who may ask.
        options: How to serve.
        public: How clients reach it (`https://mlflow.example.org`), where a proxy is before it.
        webhook_key: The file with the key of the webhooks' secrets; None: the one in the store.
        public_metrics: Everybody may read `/metrics`.
        tls: Certificate and key; None: plain HTTP.
    """

    address: run.Address = field(default_factory=run.Address)
    asked: Asked = field(default_factory=Asked)
    options: Options = field(default_factory=Options)
    public: str | None = None
    webhook_key: Path | None = None
    tls: Files | None = None
    public_metrics: bool = False


class Server:
    """The parts of a server, put together.

    Args:
        tracker: The runs.
        plan: How.

    Attributes:
        guard: Lets in whom it knows.
        watch: What uvicorn runs: counts requests, and asks the guard.
        notifier: Tells webhooks.
        hub: What it serves.

    Raises:
        UsageError: Others could reach it, and nobody has an account, or it has no name.
    """

    def __init__(self, tracker: Tracker, plan: Plan) -> None:
        projects = Projects(tracker.repo, tracker.flush)
        routes = (
            *ROUTES,
            *GitRemote(projects, told=self._pushed).routes(),
            *LfsServer(projects, public=plan.public).routes(),
        )
        self.hub = Hub(tracker, replace(plan.options, public=plan.public))
        self.guard = guarded(
            App(self.hub, routes, self._noted, self._done),
            tracker.repo.root,
            plan.address,
            plan.asked,
            public=PUBLIC | {METRICS} if plan.public_metrics else PUBLIC,
            max_body=plan.options.max_body,
            max_stream=plan.options.max_artifact,
        )
        keys = Keys(plan.webhook_key or tracker.repo.root / FOLDER / KEY_FILE)
        webhooks = Webhooks(self.guard.auth.accounts, keys)
        self.notifier = Notifier(projects, webhooks, (plan.public or "").rstrip("/"))
        self.watch = Watch(self.guard, tracker, self.hub.shipped, self.guard.auth.accounts, webhooks)

    def _done(self, route: Route, call: Call, answer: Any) -> None:
        values = call.values
        if "run_id" in values:
            self.notifier.actors.note(f"run {values['run_id']}", call.caller.name)
        if "name" in values and isinstance(answer, dict):
            version = (answer.get("model_version") or values).get("version")
            self.notifier.actors.note(f"version {values['name']} {version}", call.caller.name)
            self.notifier.poke()

    def _noted(self, route: Route, call: Call, outcome: str) -> None:
        about = " ".join(f"{name}={call.values[name]}" for name in _ABOUT if name in call.values)
        what = f"{route.method} {route.path.removeprefix('{api}')}"
        address = call.request.scope.get("gittrack.address", "")
        self._record(Event(call.caller.name, call.caller.kind, what, about, address, outcome))

    def _pushed(self, caller: Caller, project: Project, update: Update, error: GittrackError | None) -> None:
        where = "" if project.name == DEFAULT else f"{project.name}: "
        outcome = "done" if error is None else f"refused: {error.message}"
        self._record(Event(caller.name, caller.kind, "push", f"{where}{update.ref}", "", outcome))
        if error is None:
            self.notifier.actors.note(update.ref, caller.name)
            self.notifier.poke()

    def _record(self, event: Event) -> None:
        try:
            self.guard.audit.record(event)
        except GittrackError as error:
            _log.error("the audit log cannot be written: %s", error)


def serve(tracker: Tracker, plan: Plan, said: Callable[[str, str], None], ending: Ending) -> int:
    """Serve until a signal comes; the exit status.

    Args:
        tracker: The runs.
        plan: How.
        said: Told the address, and the one for a browser, once requests are accepted.
        ending: Asked to end by the signals.

    Raises:
        GittrackError: The address is taken, or must not be listened on; the certificate cannot be used.
    """
    run.allow_many_files()
    run.share_memory()
    try:
        tls = None if plan.tls is None else Tls(plan.tls)
        server = Server(tracker, plan)
        server.hub.is_ending = lambda: ending.asked
        listening = run.listen(plan.address)
        settings = run.config(server.watch, Limits(receive_seconds=_RECEIVING), patience=_PATIENCE)

        def started(url: str) -> None:
            server.notifier.base = server.notifier.base or url
            server.notifier.start()
            said(url, page_url(server.guard, url))

        try:
            run.run(settings, listening, started, ending, tls)
        finally:
            tracker.close()  # commits what is over, so that it is told
            server.notifier.close()
            server.guard.auth.accounts.close()
    finally:
        tracker.close()
    return 0
