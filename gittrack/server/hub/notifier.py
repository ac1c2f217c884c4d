"""Tells webhooks what happened, in threads of its own: no request waits for it, or fails because of it.

Every second, and whenever something was changed, it compares the refs of each project with what it saw last, puts what
happened into the queue, and notes what it has seen in the store: if the server is killed in between, the same
happenings get the same ids the next time, and are in the queue once.  So are those that several servers of one database
see, be they on one repository or on clones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from gittrack.errors import FormatError, GittrackError, NotFoundError
from gittrack.server.hub import delivery, news
from gittrack.server.hub.accounts import FOLDER, now
from gittrack.server.hub.news import Happening, Seen
from gittrack.server.hub.projects import Projects
from gittrack.server.hub.webhooks import WAITING, Delivery, Webhook, Webhooks
from gittrack.store import files
from gittrack.store.repo import Repo

TEST: Final = "webhook.test"
_SEEN: Final = "webhooks.seen.json"
_SECONDS: Final = 1.0  #: between two looks
_THREADS: Final = 4
_TIDY: Final = 3600.0
_ACTORS: Final = 4096  #: who did something, until it is told
_PATIENCE: Final = 3.0  #: seconds for deliveries under way when the server ends

_log = logging.getLogger("gittrack.server")


class Noted(NamedTuple):
    """What was told last.

    Attributes:
        seen: The refs of that time.
        hooks: The webhooks of that time: what happened before is not for others.
    """

    seen: Seen
    hooks: frozenset[str]


class Memory:
    """What was seen of the refs of a repository, in a file of its store.

    Args:
        repo: The repository.
    """

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._file = repo.root / FOLDER / _SEEN

    def read(self) -> Noted | None:
        """What was told last; None if nothing was, or it cannot be read."""
        try:
            found = json.loads(self._file.read_bytes())
            return Noted(Seen(dict(found["ledgers"]), dict(found["tags"])), frozenset(found["hooks"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("what webhooks were told last cannot be read, they go on from now: %s", error)
            return None

    def write(self, noted: Noted) -> None:
        """Note what was told.  Raises StorageError."""
        files.make_dirs(self._file.parent)
        text = json.dumps({"ledgers": noted.seen.ledgers, "tags": noted.seen.tags, "hooks": sorted(noted.hooks)})
        files.write_atomic(self._file, text.encode())


class Actors:
    """Who did what, as the server knows callers: by the ref that was pushed, or by what a request was about."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, about: str, name: str) -> None:
        """``name`` did something about ``about``."""
        with self._lock:
            self._known[about] = name
            self._known.move_to_end(about)
            if len(self._known) > _ACTORS:
                self._known.popitem(last=False)

    def of(self, one: Happening) -> str:
        """Who did it: as the server knows him, or as git has it."""
        run = one.facts.get("run_id")
        about = f"run {run}" if run else f"version {one.facts.get('model')} {one.facts.get('version')}"
        with self._lock:
            return self._known.get(about) or self._known.get(one.ref) or one.actor


class Notifier:
    """See the module.

    Args:
        projects: Whose events are told.
        webhooks: Who is told.
        base: The server's address, for links.
    """

    def __init__(self, projects: Projects, webhooks: Webhooks, base: str = "") -> None:
        self._projects = projects
        self._webhooks = webhooks
        self.base = base
        self.actors = Actors()
        self._last: dict[str, tuple[bytes, bytes, frozenset[str]]] = {}
        self._wake = threading.Event()
        self._stopping = False
        self._busy: set[str] = set()
        self._tidied = time.monotonic()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="webhook")
        self._thread = threading.Thread(target=self._loop, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def poke(self) -> None:
        """Something may have happened."""
        self._wake.set()

    def close(self) -> None:
        """Put what happened until now into the queue, and end; what was not delivered is left for the next start."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE)
        self._quietly(self.look)
        self._threads.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + _PATIENCE
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.02)

    def _loop(self) -> None:
        while not self._stopping:
            self._quietly(self.look)
            self._quietly(self.deliver)
            self._wake.wait(_SECONDS)
            self._wake.clear()

    def _quietly(self, work: Any) -> None:
        try:
            work()
        except GittrackError as error:
            _log.warning("webhooks: %s", error)
        except Exception:  # noqa: BLE001 - a bug of ours must not end the thread
            _log.exception("webhooks failed")

    # --- what happened

    def look(self) -> None:
        """Queue what happened since the last look."""
        hooks = self._webhooks.all()
        if not hooks:
            return
        for name in self._projects.names():
            self._quietly(partial(self._look, name, hooks))  # one that is damaged does not keep the others from it

    def _look(self, name: str, hooks: list[Webhook]) -> None:
        repo = self._projects.get(name).repo
        repo.look()  # what other servers sent is told by any of them, or one that dies would keep it to itself
        git, known = repo.git, frozenset(hook.id for hook in hooks)
        stamp = git.refs_fingerprint("refs/runs/"), git.refs_fingerprint("refs/tags/models/"), known
        if self._last.get(name) == stamp:
            return
        memory = Memory(repo)
        old, new = memory.read(), Noted(news.look(repo), known)
        if old is not None and old.seen != new.seen:
            told = [hook for hook in hooks if hook.id in old.hooks]
            for one in news.between(repo, old.seen, new.seen):
                self._webhooks.queue(self._deliveries(told, name, one))
        if old != new:
            memory.write(new)
        self._last[name] = stamp

    def _deliveries(self, hooks: list[Webhook], project: str, one: Happening) -> list[Delivery]:
        found = []
        for hook in hooks:
            if hook.wants(one.event, project):
                ident = hashlib.sha256(f"{hook.id}\0{project}\0{one.event}\0{one.key}".encode()).hexdigest()[:32]
                body = body_of(one.event, ident, one.time, self.actors.of(one), project, self.link(one), one.facts)
                found.append(Delivery(ident, hook.id, one.event, body, WAITING, 0, now(), now(), ""))
        return found

    def link(self, one: Happening) -> str:
        """Where to look at it."""
        model = one.facts.get("model")
        return f"{self.base}/runs/{one.facts['run_id']}" if model is None else f"{self.base}/models/{quote(model, '')}"

    # --- deliveries

    def deliver(self) -> None:
        """Begin those that are due."""
        free = 2 * _THREADS - len(self._busy)
        if free > 0 and not self._stopping and self._webhooks.all():
            for one in self._webhooks.take(free):
                self._busy.add(one.id)
                self._threads.submit(self._quietly, lambda one=one: self._try(one))
        if time.monotonic() - self._tidied > _TIDY:
            self._tidied = time.monotonic()
            self._webhooks.tidy()

    def _try(self, one: Delivery) -> None:
        try:
            try:
                hook, secret = self._webhooks.get(one.webhook)
            except NotFoundError:  # removed meanwhile, and its deliveries with it
                return
            except GittrackError as error:
                self._webhooks.settle(one, None, error.message)
                return
            status, trouble = delivery.tried(hook.target, secret, one.event, one.id, one.body.encode())
            if trouble:
                _log.warning("webhook %s: %s", hook.id, trouble)
            self._webhooks.settle(one, status, trouble)
        finally:
            self._busy.discard(one.id)
            self._wake.set()


def body_of(event: str, ident: str, moment: int, actor: str, project: str, link: str, facts: Mapping[str, Any]) -> str:
    """What is delivered."""
    try:
        told = datetime.fromtimestamp(moment / 1000, timezone.utc).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError) as error:
        raise FormatError("the time of an event cannot be") from error
    return json.dumps(
        {"event": event, "id": ident, "time": told, "actor": actor, "project": project, "link": link, **facts},
        ensure_ascii=False,
    )
