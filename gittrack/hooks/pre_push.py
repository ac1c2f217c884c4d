"""pre-push: the runs of the commits that `git push` is about to push go with them, for those who want it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final

from gittrack import config
from gittrack.registry.registry import Registry
from gittrack.store import gateway
from gittrack.sync import remotes
from gittrack.sync.push import push
from gittrack.sync.select import Selection
from gittrack.track import links
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from gittrack.sync.push import PushReport
    from gittrack.track.runs import Tracker

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
#: Commits of one push whose runs are looked for.
_MOST: Final = 10_000
_REFS: Final = 1000  #: and refs whose commits are looked at


def push_runs(tracker: Tracker, remote: str, told: str) -> PushReport | None:
    """Push the runs of the commits that the remote does not have yet; None if they have none.

    Args:
        tracker: The clone's.
        remote: Its name.
        told: What git says: a line for each ref, with its name and id here and there.

    Raises:
        GittrackError: There is no such remote, or it does not take them.
    """
    rows = [line.split() for line in told.splitlines()]
    tips = [row[1] for row in rows if len(row) == 4 and _OID.fullmatch(row[1]) and row[1].strip("0")]
    settings = config.current(tracker.repo.paths.work_tree)
    target = remotes.choose(tracker.repo, remote, settings.ref_prefix)
    commits = _new_commits(tracker, target.name, tips)
    if not commits:
        return None
    runs = [run.info for run in links.all_runs(tracker) if links.how(tracker.repo, run, commits)]
    if not runs:
        return None
    return push(Registry(tracker), target, select=Selection(runs=frozenset(run.run_id for run in runs)))


def _new_commits(tracker: Tracker, remote: str, tips: Iterable[str]) -> dict[str, str]:
    """The commits below ``tips`` that were not seen on the remote: ids and trees, both to the id."""
    wanted = list(tips)[:_REFS]
    if not wanted:
        return {}
    git = gateway.Git(tracker.repo.paths.git_dir, tracker.repo.paths.work_tree)
    out = git.run("rev-list", "--format=%H %T", f"--max-count={_MOST}", *wanted, "--not", f"--remotes={remote}", "--")
    found: dict[str, str] = {}
    for line in islice(out.decode().splitlines(), 1, None, 2):  # each behind a line `commit <id>`
        commit, tree = map(ObjectId, line.split())
        found |= {tree: commit, commit: commit}
    return found
