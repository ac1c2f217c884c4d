"""How a clone stands to a remote, by what was last seen there: nothing is asked over a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gittrack.errors import CorruptError, NotFoundError
from gittrack.store import layout
from gittrack.sync.push import Plan
from gittrack.sync.select import EVERYTHING

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.sync.remotes import Remote


class Standing(NamedTuple):
    """What one side has and the other lacks.

    Attributes:
        seen: Refs of gittrack's that were seen there; 0: it was never asked, or has nothing.
        runs: Runs here that a push would send.
        revised: Runs of which it has an earlier revision.
        tags: Registry tags here that a push would send.
        runs_there: Runs there that this clone does not have.
        tags_there: Registry tags there that this clone does not have.
        unreadable: Ledgers there that cannot be read here.
    """

    seen: int
    runs: int
    revised: int
    tags: int
    runs_there: int
    tags_there: int
    unreadable: int


def standing(repo: Repo, remote: Remote) -> Standing:
    """How a clone stands to a remote, by what was last seen there.

    Raises:
        CorruptError, NotFoundError: A ledger of this clone cannot be read.
    """
    seen = remote.seen_refs(repo)
    plan = Plan(repo, remote, seen, EVERYTHING, {})
    plan.look()
    new = set().union(*plan.runs.values())
    own, mine = repo.ledgers(), repo.all_run_ids()
    there: set[str] = set()
    unreadable = 0
    for ref, ledger in seen.items():
        if layout.parse_ledger_ref(ref) is None or own.get(ref) == ledger:
            continue
        try:
            there.update([run_id for run_id, _ in repo.git.ledger_read(ledger)])
        except (CorruptError, NotFoundError):
            unreadable += 1
    tags = repo.git.refs(layout.TAG_PREFIX)
    return Standing(
        seen=len(seen),
        runs=len(new),
        revised=len(set().union(*plan.revised.values()) - new),
        tags=sum(ref.startswith(layout.TAG_PREFIX) for ref in plan.others),
        runs_there=len(there - mine),
        tags_there=sum(ref.startswith(layout.TAG_PREFIX) and ref not in tags for ref in seen),
        unreadable=unreadable,
    )
