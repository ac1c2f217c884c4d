"""What the verbs about accounts share: opening them, options of grants, times, the audit log."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from gittrack.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from gittrack.server.hub.accounts import Accounts
    from gittrack.server.hub.audit import Audit
    from gittrack.server.hub.roles import Grant

F = TypeVar("F", bound=Callable[..., Any])

ROLES: Final = ("reader", "writer", "maintainer", "admin")
_UNITS: Final = {"h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}


class Kept:
    """The accounts and the audit log of a server.

    Attributes:
        accounts: Who is known.
        audit: What was done.
        by: Who calls this.
    """

    def __init__(self, accounts: Accounts, audit: Audit, by: str) -> None:
        self.accounts = accounts
        self.audit = audit
        self.by = by

    def note(self, what: str, about: str) -> None:
        """Write to the audit log that something was done here."""
        from gittrack.server.hub.audit import Event

        self.audit.record(Event(self.by, "command line", what, about))


@contextlib.contextmanager
def kept(url: str | None = None, *, write: bool = False) -> Iterator[Kept]:
    """The accounts and the audit log of the store that the current folder belongs to.

    Args:
        url: Another database of accounts.
        write: Make the store if it is missing, so that git ignores what is written.

    Raises:
        NotARepositoryError: There is no repository.
    """
    from gittrack import session
    from gittrack.server.hub.accounts import FOLDER, Accounts
    from gittrack.server.hub.audit import Audit

    opened = session.open_reader()
    try:
        if write:
            opened.repo.create()
        root = opened.repo.root
        accounts = Accounts.in_store(root) if url is None else Accounts(url)
        try:
            yield Kept(accounts, Audit(root / FOLDER), session.user())
        finally:
            accounts.close()
    finally:
        opened.repo.close()


def accounts_option(function: F) -> F:
    """``--accounts``: another database than the one in the store."""
    return click.option(
        "--accounts",
        "url",
        envvar="GITTRACK_ACCOUNTS",
        metavar="URL",
        help="Where accounts are kept, as SQLAlchemy names a database; also the variable GITTRACK_ACCOUNTS. The default"
        " is a file in `.gittrack/server`.",
    )(function)


def guard_options(function: F) -> F:
    """Who may ask a server that is started: options for ``asked``."""
    for option in (
        accounts_option,
        click.option("--rate-limit", "rate", type=click.FloatRange(0.01, 1e6), metavar="NUMBER",
                     help="Requests a second that each caller may make, on average over ten seconds; the default is any"
                     " number."),
        click.option("--allowed-origin", "origins", multiple=True, metavar="URL",
                     help="Let pages of this site ask, with a token of their own; repeatable."),
        click.option("--trusted-proxy", "proxies", multiple=True, metavar="ADDRESS",
                     help="Believe what this proxy (an address or a network) says about who asks, and whether by TLS;"
                     " repeatable."),
        click.option("--allowed-host", "hosts", multiple=True, metavar="NAME",
                     help="A name of this server: requests that name another are refused; repeatable. Needed unless it"
                     " listens on this machine's own address."),
        click.option("--auth", is_flag=True,
                     help="Ask programs of this machine for credentials, too, where there are no accounts yet."),
    ):  # fmt: skip
        function = option(function)
    return function


def grant_options(*, required: bool) -> Callable[[F], F]:
    """``--role``, ``--experiment`` and ``--model``: what is given."""

    def add(function: F) -> F:
        for option in (
            click.option("--deny-model", "no_models", multiple=True, metavar="PATTERN",
                         help="Not these models, whatever else is granted; repeatable."),
            click.option("--deny-experiment", "no_experiments", multiple=True, metavar="PATTERN",
                         help="Not these experiments, whatever else is granted; repeatable."),
            click.option("--model", "models", multiple=True, metavar="PATTERN",
                         help="For models whose name matches; repeatable."),
            click.option("--experiment", "experiments", multiple=True, metavar="PATTERN",
                         help="For experiments whose name matches (`*`, `?`, `[ab]`); repeatable. Without any pattern"
                         " the role is for everything."),
            click.option("--role", type=click.Choice(ROLES), required=required,
                         help="reader, writer (records and registers), maintainer (promotes and deletes), or admin."),
        ):  # fmt: skip
            function = option(function)
        return function

    return add


def grants(
    role: str | None,
    experiments: Sequence[str],
    models: Sequence[str],
    no_experiments: Sequence[str],
    no_models: Sequence[str],
) -> tuple[Grant, ...]:
    """What the options of ``grant_options`` ask for.  Raises UsageError if they ask for nothing."""
    from gittrack.server.hub.roles import Grant, Role

    denied = [Grant(None, experiments=one) for one in no_experiments] + [Grant(None, models=one) for one in no_models]
    if role is None:
        if experiments or models:
            raise UsageError("a pattern needs a role", hint=f"`--role` is one of {', '.join(ROLES)}")
        if not denied:
            raise UsageError("nothing is granted and nothing denied", hint="`--role` or a `--deny-…` says what")
        return tuple(denied)
    given = Role[role.upper()]
    if not experiments and not models:
        return (Grant(given, "*", "*"), *denied)
    return (
        *(Grant(given, experiments=one) for one in experiments),
        *(Grant(given, models=one) for one in models),
        *denied,
    )


def said(found: Sequence[Grant]) -> str:
    """Grants for people."""
    from gittrack.server.hub.roles import described

    return described(found)


def written(found: Sequence[Grant]) -> list[dict[str, str | None]]:
    """Grants for programs."""
    return [
        {
            "role": None if one.role is None else one.role.name.lower(),
            "experiments": one.experiments,
            "models": one.models,
        }
        for one in found
    ]


def until(text: str | None) -> int | None:
    """A time to come: ``12h``, ``90d``, ``8w``, or a date.  Milliseconds since 1970; raises UsageError."""
    from gittrack.server.hub.accounts import now

    if text is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", text)
    if match is not None:
        return now() + int(match[1]) * _UNITS[match[2]]
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=timezone.utc)
    except ValueError:
        raise UsageError(f"`{text}` is no time", hint="such as 12h, 90d, 8w or 2030-01-31") from None
    return int(day.timestamp() * 1000)


def first_line(file: Path) -> str:
    """The secret that a file has in its first line.  Raises UsageError if that is empty."""
    found = (file.read_text(encoding="utf-8").splitlines() or [""])[0].strip()
    if not found:
        raise UsageError(f"the first line of `{file}` is empty", hint="put the secret there")
    return found


def day(moment: int | None) -> str:
    """A time for people: the day, in UTC."""
    return "" if moment is None else f"{datetime.fromtimestamp(moment / 1000, timezone.utc):%Y-%m-%d}"
