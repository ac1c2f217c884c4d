"""post-rewrite: when commits are amended, rebased or squashed, their runs are linked to what became of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gittrack.hooks import post_commit
from gittrack.track import links
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from gittrack.track.runs import Tracker
    from gittrack.types import RunId

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


def follow(tracker: Tracker, told: str) -> list[RunId]:
    """Link the runs of the commits that were to the commits that are; their ids.

    Args:
        tracker: The clone's.
        told: What git says: a line for each commit, the old id and the new one.

    Raises:
        GittrackError: They cannot be read or written.
    """
    rows = [line.split() for line in told.splitlines()]
    pairs = [(ObjectId(row[0]), ObjectId(row[1])) for row in rows if len(row) > 1 and all(map(_OID.fullmatch, row[:2]))]
    linked = links.link_rewritten(tracker, pairs)
    post_commit.settle(tracker, linked, [new for _, new in pairs if tracker.repo.git.exists(new)])
    return linked
