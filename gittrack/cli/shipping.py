"""What is to be shipped to tracking servers, for the verbs that do it and that show it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gittrack.cli import output, text
from gittrack.errors import GittrackError

if TYPE_CHECKING:
    from gittrack.remote.outbox import Waiting
    from gittrack.store.repo import Repo
    from gittrack.types import RunId

#: Seconds for another process that ships.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Shipped:
    """What was shipped to a server.

    Attributes:
        before: What there was to ship.
        left: What is left: of runs that go on, of those that are refused, all if the server is away.
        refused: Runs that the server does not take, and why.
        failed: Why nothing, or nothing more, could be shipped.
    """

    before: Waiting
    left: Waiting
    refused: Mapping[RunId, GittrackError]
    failed: GittrackError | None


def ship(repo: Repo) -> list[Shipped]:
    """Ship what a store has for servers, to each of those that something was ever recorded for."""
    from gittrack import config
    from gittrack.remote.address import is_server
    from gittrack.remote.http import Connection
    from gittrack.remote.outbox import Outbox
    from gittrack.remote.shipping import Shipper

    # The outbox may have come here with the folder: credentials go to the server that the person names himself.
    named = config.current().tracking_uri if config.is_own("tracking_uri") else None
    done = []
    for outbox in [one for store in _stores(repo) for one in Outbox.all(store)]:
        before = outbox.waiting()
        mine = is_server(named) and Connection(named).url == outbox.url
        connection = Connection(named or "") if mine else Connection(outbox.url, credentials=False)
        shipper = Shipper(outbox, connection)
        failed = None
        with output.Progress(f"shipping to {outbox.url}") as progress:
            sent = 0

            def told(amount: int) -> None:
                nonlocal sent
                sent += amount
                progress.update(min(sent, before.size), before.size)  # noqa: B023 - called before the next turn

            try:
                shipper.ship(timeout=_PATIENCE, told=told)
            except GittrackError as error:
                failed = error
        connection.close()
        done.append(Shipped(before, outbox.waiting(), dict(shipper.refused), failed))
    return done


def tell(done: Iterable[Shipped]) -> None:
    """Say what was shipped."""
    for one in done:
        runs = len(set(one.before.runs) - set(one.refused)) if one.failed is None else 0
        if runs:
            output.message(f"shipped {text.count(runs, 'run')} to {one.before.server}")
        elif one.failed is None and not one.refused:
            output.message(f"{one.before.server} has everything")


def refuse(done: Iterable[Shipped]) -> None:
    """Raise what kept something from being shipped, after the rest was said."""
    for one in done:
        for error in (one.failed, *one.refused.values()):
            if error is not None:
                raise error


def as_json(done: Iterable[Shipped]) -> list[dict[str, Any]]:
    """What was shipped, as `--json` prints it."""
    return [
        {
            "server": one.before.server,
            "runs": sorted(set(one.before.runs) - set(one.refused)) if one.failed is None else [],
            "refused": {run_id: str(error) for run_id, error in one.refused.items()},
            "failed": None if one.failed is None else str(one.failed),
            "left": one.left._asdict(),
        }
        for one in done
    ]


def waiting(repo: Repo) -> list[Waiting]:
    """What was not shipped yet, by server."""
    from gittrack.remote.outbox import Outbox

    return [one for store in _stores(repo) for outbox in Outbox.all(store) if (one := outbox.waiting()).runs]


def _stores(repo: Repo) -> Iterator[Repo]:
    """A store, and the one of the user's own that records what goes to the server in use, if that has one."""
    from gittrack import config, session
    from gittrack.remote.address import is_server
    from gittrack.remote.outbox import has_outbox
    from gittrack.store.repo import Repo

    yield repo
    named = config.current().tracking_uri
    if is_server(named) and has_outbox(place := session.apart(named)):
        own = Repo.find(place)
        if own.paths != repo.paths:
            yield own


def lines(found: Iterable[Waiting]) -> Iterator[str]:
    """What was not shipped yet, for people."""
    for one in found:
        when = "" if one.since is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(one.since / 1000))
        since = f", since {when}" if when else ""
        yield f"    {text.count(len(one.runs), 'run')}, {one.size:,} bytes of records, for {one.server}{since}"
