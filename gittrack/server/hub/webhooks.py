"""Webhooks and their deliveries, kept in the database of the accounts.

A delivery waits until it was answered with a 2xx status; tries that failed are made again, later each time, and after
the last one the row stays as `dead`.  Secrets are encrypted (Fernet) with a key that is a file of its own, so that
nobody can sign anything with a copy of the database.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update as change,
)
from sqlalchemy.exc import IntegrityError

from gittrack.errors import (
    CorruptError,
    InvalidValueError,
    MissingDependencyError,
    NotFoundError,
    StateError,
    StorageError,
    shown,
)
from gittrack.server.hub.accounts import Accounts, now
from gittrack.server.hub.news import EVENTS
from gittrack.server.hub.outgoing import Target, check_url
from gittrack.store import files

if TYPE_CHECKING:
    from cryptography.fernet import Fernet
    from sqlalchemy.engine import Row

KEY_FILE: Final = "webhooks.key"  #: below `.gittrack/server`
SHORTEST_SECRET: Final = 16
_LONGEST_SECRET: Final = 1024
#: Seconds to wait after each try that failed; as many tries as there are, and one.
WAITS: Final = (10, 30, 120, 600, 3600, 3 * 3600, 8 * 3600)
#: A server that took a delivery and died leaves it to the others after so many seconds.
_LEASE: Final = 60
_KEEP_DAYS: Final = 14  #: delivered and dead ones, for `list`
WAITING: Final = "waiting"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"

_metadata: Final = MetaData()
_hooks: Final = Table(
    "gittrack_webhooks",
    _metadata,
    Column("id", String(16), primary_key=True),
    Column("url", Text, nullable=False),
    Column("events", Text, nullable=False),
    Column("projects", Text, nullable=False),
    Column("private", Boolean, nullable=False),
    Column("secret", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
)
_deliveries: Final = Table(
    "gittrack_webhook_deliveries",
    _metadata,
    Column("id", String(64), primary_key=True),
    Column("webhook", String(16), nullable=False, index=True),
    Column("event", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    Column("error", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook.

    Attributes:
        id: Its name.
        url: Where deliveries go.
        events: What it hears of; empty: everything.
        projects: Of which projects; empty: of all.
        private: The address may be in a private network.
        created: Milliseconds since 1970.
        created_by: By whom.
    """

    id: str
    url: str
    events: tuple[str, ...]
    projects: tuple[str, ...]
    private: bool
    created: int
    created_by: str

    @property
    def target(self) -> Target:
        """Where deliveries go."""
        return Target(self.url, self.private)

    def wants(self, event: str, project: str) -> bool:
        """Whether it hears of an event in a project."""
        return (not self.events or event in self.events) and (not self.projects or project in self.projects)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery; see ``Webhook``.

    Attributes:
        id: The same for every try.
        webhook: The webhook's id.
        event: What it tells of.
        body: JSON.
        state: ``waiting``, ``delivered`` or ``dead``.
        tries: How often it was tried.
        due: When it is tried next, in milliseconds since 1970; of one that was taken, by whom else.
        created: When it happened.
        error: What went wrong the last time.
    """

    id: str
    webhook: str
    event: str
    body: str
    state: str
    tries: int
    due: int
    created: int
    error: str


class Keys:
    """Encrypts secrets with the key in a file; the file is made when it is first needed.

    Args:
        file: Where the key is.  Servers that share a database share it, too.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def _fernet(self, *, make: bool) -> Fernet:
        try:
            from cryptography.fernet import Fernet
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                "webhooks need the package `cryptography`", hint="pip install 'gittrack[webhooks]'"
            ) from error
        if make and not self._file.exists():
            files.make_dirs(self._file.parent)
            try:
                handle = files.create_append(self._file, 0o600)
            except StorageError as error:
                if error.errno != errno.EEXIST:
                    raise
            else:
                try:
                    os.write(handle, Fernet.generate_key() + b"\n")
                    os.fsync(handle)
                finally:
                    os.close(handle)
                files.sync_dir(self._file.parent)
        try:
            return Fernet(self._file.read_bytes().strip())
        except (OSError, ValueError) as error:
            raise StateError(
                f"the key of the webhooks' secrets, `{self._file}`, cannot be read",
                hint="restore it, or remove the webhooks and add them again",
            ) from error

    def lock(self, secret: str) -> str:
        """A secret as it is kept."""
        return self._fernet(make=True).encrypt(secret.encode()).decode()

    def unlock(self, kept: str) -> str:
        """A secret that is kept.  Raises StateError if the key is another one."""
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet(make=False).decrypt(kept.encode()).decode()
        except InvalidToken:
            raise StateError(
                "the webhook's secret was locked with another key", hint="servers that share a database share the key"
            ) from None


class Webhooks:
    """The webhooks of a server; threads may share it.

    Args:
        accounts: Whose database it is.
        keys: What secrets are locked with.
    """

    def __init__(self, accounts: Accounts, keys: Keys) -> None:
        self._accounts = accounts
        self._keys = keys

    # --- webhooks

    def add(
        self,
        url: str,
        *,
        by: str,
        events: Sequence[str] = (),
        projects: Sequence[str] = (),
        private: bool = False,
        secret: str | None = None,
    ) -> tuple[Webhook, str]:
        """Add a webhook; with it, its secret, made up if none is given.

        Raises:
            InvalidValueError: The address, an event or the secret cannot be.
            MissingDependencyError: Secrets cannot be locked.
            OverloadedError: The database does not answer.
        """
        check_url(Target(url, private))
        for event in events:
            if event not in EVENTS:
                raise InvalidValueError(f"there is no event `{shown(event)}`", hint=f"one of {', '.join(EVENTS)}")
        secret = secrets.token_urlsafe(32) if secret is None else secret
        if not SHORTEST_SECRET <= len(secret) <= _LONGEST_SECRET:
            raise InvalidValueError(f"a secret has {SHORTEST_SECRET} to {_LONGEST_SECRET} characters")
        made = Webhook(
            secrets.token_hex(4), url, tuple(dict.fromkeys(events)), tuple(dict.fromkeys(projects)), private, now(), by
        )
        with self._accounts.beside(_metadata) as db:
            db.execute(
                insert(_hooks).values(
                    id=made.id,
                    url=url,
                    events=json.dumps(made.events),
                    projects=json.dumps(made.projects),
                    private=private,
                    secret=self._keys.lock(secret),
                    created=made.created,
                    created_by=by,
                )
            )
        return made, secret

    def all(self) -> list[Webhook]:
        """Every webhook, the oldest first.  Raises OverloadedError."""
        if not self._accounts.is_there:
            return []
        with self._accounts.beside(_metadata) as db:
            return [_hook(row) for row in db.execute(select(_hooks).order_by(_hooks.c.created, _hooks.c.id))]

    def get(self, which: str) -> tuple[Webhook, str]:
        """A webhook and its secret.

        Raises:
            NotFoundError: There is none.
            StateError: The key of the secrets is another one, or gone.
            OverloadedError: The database does not answer.
        """
        with self._accounts.beside(_metadata) as db:
            row = db.execute(select(_hooks).where(_hooks.c.id == which)).one_or_none()
        if row is None:
            raise _unknown(which)
        return _hook(row), self._keys.unlock(row.secret)

    def remove(self, which: str) -> None:
        """Remove a webhook and its deliveries.  Raises NotFoundError and OverloadedError."""
        with self._accounts.beside(_metadata) as db:
            if not db.execute(delete(_hooks).where(_hooks.c.id == which)).rowcount:
                raise _unknown(which)
            db.execute(delete(_deliveries).where(_deliveries.c.webhook == which))

    # --- deliveries

    def queue(self, found: Iterable[Delivery]) -> int:
        """Put deliveries into the queue, those that are in it already aside; how many are new."""
        new = 0
        for one in found:
            with self._accounts.beside(_metadata) as db:
                if db.execute(select(_deliveries.c.id).where(_deliveries.c.id == one.id)).one_or_none() is not None:
                    continue
                with contextlib.suppress(IntegrityError), db.begin_nested():  # another server did at the same time
                    db.execute(
                        insert(_deliveries).values(
                            id=one.id,
                            webhook=one.webhook,
                            event=one.event,
                            body=one.body,
                            state=WAITING,
                            tries=0,
                            due=one.due,
                            created=one.created,
                            changed=now(),
                            error="",
                        )
                    )
                    new += 1
        return new

    def take(self, most: int) -> list[Delivery]:
        """Deliveries that are due, for this server to try now."""
        moment, taken = now(), []
        due = _deliveries.c.state == WAITING, _deliveries.c.due <= moment
        with self._accounts.beside(_metadata) as db:
            rows = db.execute(select(_deliveries).where(*due).order_by(_deliveries.c.due).limit(most)).all()
        for row in rows:
            with self._accounts.beside(_metadata) as db:
                mine = db.execute(
                    change(_deliveries)
                    .where(_deliveries.c.id == row.id, _deliveries.c.due == row.due, *due)
                    .values(due=moment + _LEASE * 1000)
                )
                if mine.rowcount:
                    taken.append(replace(_delivery(row), due=moment + _LEASE * 1000))
        return taken

    def settle(self, one: Delivery, status: int | None, error: str) -> None:
        """Say what came of a try: an empty ``error`` means that it was taken.

        That one failed counts only as long as no other server has it: a try that took too long was made anew there.
        """
        tries, mine = one.tries + 1, [_deliveries.c.id == one.id, _deliveries.c.state == WAITING]
        values: dict[str, Any] = {"state": DELIVERED}
        if error:
            mine.append(_deliveries.c.due == one.due)
            values = {"due": now() + WAITS[min(one.tries, len(WAITS) - 1)] * (900 + secrets.randbelow(200))}
            if status == 410 or tries > len(WAITS):  # 410: gone for good
                values = {"state": DEAD}
        with self._accounts.beside(_metadata) as db:
            db.execute(change(_deliveries).where(*mine).values(tries=tries, error=error[:500], changed=now(), **values))

    def retry(self, which: str | None = None) -> int:
        """Try dead deliveries anew, those of one webhook or all; how many they are.

        Raises:
            NotFoundError: There is no such webhook.
            OverloadedError: The database does not answer.
        """
        about = [_deliveries.c.state == DEAD]
        if which is not None:
            if which not in {one.id for one in self.all()}:
                raise _unknown(which)
            about.append(_deliveries.c.webhook == which)
        with self._accounts.beside(_metadata) as db:
            again = change(_deliveries).where(*about).values(state=WAITING, tries=0, due=now(), changed=now())
            return int(db.execute(again).rowcount)

    def tidy(self) -> None:
        """Forget deliveries that ended long ago."""
        with self._accounts.beside(_metadata) as db:
            db.execute(
                delete(_deliveries).where(
                    _deliveries.c.state != WAITING, _deliveries.c.changed < now() - _KEEP_DAYS * 86_400_000
                )
            )

    def counts(self) -> dict[str, dict[str, int]]:
        """For each webhook, how many deliveries are in which state."""
        found: dict[str, dict[str, int]] = {}
        if not self._accounts.is_there:
            return found
        query = select(_deliveries.c.webhook, _deliveries.c.state, func.count()).group_by(
            _deliveries.c.webhook, _deliveries.c.state
        )
        with self._accounts.beside(_metadata) as db:
            for hook, state, number in db.execute(query):
                found.setdefault(hook, {})[state] = number
        return found

    def last_delivered(self) -> dict[str, int]:
        """For each webhook that took one, when the last delivery came through, in milliseconds since 1970."""
        if not self._accounts.is_there:
            return {}
        query = (
            select(_deliveries.c.webhook, func.max(_deliveries.c.changed))
            .where(_deliveries.c.state == DELIVERED)
            .group_by(_deliveries.c.webhook)
        )
        with self._accounts.beside(_metadata) as db:
            return {hook: int(moment) for hook, moment in db.execute(query)}

    def troubles(self, which: str, most: int = 20) -> list[Delivery]:
        """Deliveries of a webhook that failed so far, the newest first."""
        query = (
            select(_deliveries)
            .where(_deliveries.c.webhook == which, _deliveries.c.error != "", _deliveries.c.state != DELIVERED)
            .order_by(_deliveries.c.changed.desc())
            .limit(most)
        )
        with self._accounts.beside(_metadata) as db:
            return [_delivery(row) for row in db.execute(query)]


def _unknown(which: str) -> NotFoundError:
    return NotFoundError(f"there is no webhook `{shown(which)}`", hint="`gittrack server webhook` lists them")


def _hook(row: Row[Any]) -> Webhook:
    try:
        events, projects = json.loads(row.events), json.loads(row.projects)
    except ValueError as error:
        raise CorruptError("a webhook cannot be read", hint="restore the accounts' database") from error
    return Webhook(row.id, row.url, tuple(events), tuple(projects), bool(row.private), row.created, row.created_by)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(row.id, row.webhook, row.event, row.body, row.state, row.tries, row.due, row.created, row.error)
