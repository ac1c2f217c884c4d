"""Which runs belong to a commit: those of its very code, those of that code with changes, and those of its past.

A run knows the commit it started on and the tree of files it ran.  So a run made before its code was committed belongs
to the commit by that tree, whichever hook ran or did not.  What a tree cannot tell is written into the run as an event,
a tag ``gittrack.commit.<id>``: that a commit was amended, rebased or squashed into another, and that a commit was made
of a run's uncommitted changes.  A tag per commit, so that links of several clones unite instead of replacing each
other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from gittrack.errors import NotFoundError
from gittrack.store import gateway
from gittrack.types import ObjectId, RunId

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.track.runs import Tracker
    from gittrack.types import Run

#: The commit's id follows; the value says how the run came to it: ``same code`` or ``was <id of the commit before>``.
LINK_TAG: Final = "gittrack.commit."

# How a run belongs to a commit, the closest first.
EXACT: Final = "exact"  #: it ran the files of the commit
CHANGED: Final = "changed"  #: it ran them with changes that were not committed
EARLIER: Final = "earlier"  #: it ran a commit that this one replaced: amended, rebased, squashed
_PAGE: Final = 200  #: runs that are read at a time
ORDER: Final = (EXACT, CHANGED, EARLIER)


class Link(NamedTuple):
    """A run of a commit.

    Attributes:
        run: The run.
        how: ``EXACT``, ``CHANGED`` or ``EARLIER``.
    """

    run: Run
    how: str


def exact_tree(repo: Repo, run: Run) -> ObjectId | None:
    """The tree of files that the run ran; None if that is not known to the last file.

    New files that were not taken along (too large, or like secrets) count as not being there: git does not track them.
    """
    tree, commit = run.code.get("tree"), run.code.get("commit")
    if not tree or not run.code.get("dirty"):
        return tree
    if run.code.get("mode") != "full":
        return None
    try:
        unchanged = commit is not None and repo.git.read_commit(commit).tree == tree
    except NotFoundError:  # a shallow clone
        unchanged = False
    return None if unchanged else ObjectId(tree)  # a tracked file had changed, and was too large to be taken


def runs_of(tracker: Tracker, commit: ObjectId, limit: int | None = None) -> list[Link]:
    """The runs of a commit, the closest first and of those the newest.  Deleted runs are left out.

    Args:
        tracker: Where the runs are.
        commit: The commit.
        limit: Look only at about so many of the newest runs: a sweep can have thousands.

    Raises:
        NotFoundError: git has no such commit.
    """
    tree = tracker.repo.git.read_commit(commit).tree
    found = {
        run.info.run_id: Link(run, _how(tracker.repo, run, commit, tree))
        for condition in (f"attributes.commit = '{commit}'", f"attributes.tree = '{tree}'", _is_linked(commit))
        for run in islice(all_runs(tracker, condition), limit)
    }
    links = [one for one in found.values() if one.how]
    return sorted(links, key=lambda one: (ORDER.index(one.how), -one.run.info.start_time, one.run.info.run_id))


def runs_of_tree(tracker: Tracker, tree: ObjectId) -> list[Run]:
    """The runs that ran exactly these files, newest first."""
    return [run for run in all_runs(tracker, f"attributes.tree = '{tree}'") if exact_tree(tracker.repo, run) == tree]


def how(repo: Repo, run: Run, commits: Mapping[str, str]) -> tuple[str, str] | None:
    """The commit among ``commits`` that a run belongs to most closely, and how; None if to none of them.

    For looking at many commits at once.

    Args:
        repo: Where the run is.
        run: The run.
        commits: Ids of commits, and of their trees: each to the id of the commit.
    """
    tree, start = str(exact_tree(repo, run)), str(run.code.get("commit"))
    if start in commits and not run.code.get("dirty"):
        return commits[start], EXACT
    if tree in commits:
        return commits[tree], EXACT
    if start in commits:
        return commits[start], CHANGED
    return next(((commits[one], EARLIER) for one in linked_commits(run) if one in commits), None)


def all_runs(tracker: Tracker, filter_string: str = "") -> Iterator[Run]:
    """Every run that matches and is not deleted, newest first, read page by page."""
    token: str | None = None
    while True:
        page = tracker.search_runs(filter_string=filter_string, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if token is None:
            return


def linked_commits(run: Run) -> list[str]:
    """The commits that the run was linked to after it ran."""
    return [key[len(LINK_TAG) :] for key in run.data.tags if key.startswith(LINK_TAG)]


def _how(repo: Repo, run: Run, commit: ObjectId, tree: ObjectId) -> str:
    found = how(repo, run, {commit: commit, tree: commit})
    if found is None:
        return ""  # the same tree, and something that was not taken along
    # Changes that were committed since belong to that commit, and no longer to the one they were made on.
    return "" if found[1] == CHANGED and linked_commits(run) and commit not in linked_commits(run) else found[1]


def _is_linked(commit: str) -> str:
    return f'tags."{LINK_TAG}{gateway.rev(commit)}" IS NOT NULL'


# -- writing -----------------------------------------------------------------------------------------------------------


def link_same_code(tracker: Tracker, commit: ObjectId) -> list[RunId]:
    """Link the runs that ran the files of a commit as uncommitted changes; their ids.  The tracker commits them.

    Only the first commit with these files is written into a run; others are found by their tree.
    """
    tree = tracker.repo.git.read_commit(commit).tree
    runs = [run for run in runs_of_tree(tracker, tree) if run.code.get("dirty") and not linked_commits(run)]
    return _link(tracker, runs, commit, "same code")


def link_rewritten(tracker: Tracker, pairs: Iterable[tuple[ObjectId, ObjectId]]) -> list[RunId]:
    """Link the runs of commits to those that replace them; their ids.  The tracker commits them.

    Args:
        tracker: Where the runs are.
        pairs: The commit that was, the commit that replaces it; several may be replaced by one.
    """
    done: list[RunId] = []
    for old, new in pairs:
        if not tracker.repo.git.exists(old) or old == new:
            continue
        runs = [one.run for one in runs_of(tracker, old) if one.how != CHANGED]
        done += _link(tracker, runs, new, f"was {old}")
    return done


def _link(tracker: Tracker, runs: Iterable[Run], commit: ObjectId, why: str) -> list[RunId]:
    key = LINK_TAG + commit
    missing = [run for run in runs if key not in run.data.tags]
    for run in missing:
        tracker.writer(RunId(run.info.run_id)).set_tags({key: why})
    return [RunId(run.info.run_id) for run in missing]
