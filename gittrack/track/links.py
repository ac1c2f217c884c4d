"""Which runs belong to a commit: those of its very code, those of that code with changes, and those of its past.

A run knows the commit it started on and the tree of files it ran.  So a run made before its code was committed belongs
to the commit by that tree, whichever hook ran or did not.  What a tree cannot tell is written into the run as an event,
a tag ``gittrack.commit.<id>``: that a commit was amended, rebased or squashed into another, and that a commit was made
of a run's uncommitted changes.  A tag per commit, so that links of several clones unite instead of replacing each
other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from gittrack.errors import CorruptError, NotFoundError
from gittrack.store import gateway
from gittrack.types import ObjectId, RunId

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.track.runs import Tracker
    from gittrack.types import Run

#: The commit's id follows.
LINK_TAG: Final = "gittrack.commit."
_LINK: Final = re.compile(re.escape(LINK_TAG) + "([0-9a-f]{40}(?:[0-9a-f]{24})?)")
# Its values: the run had the files of the commit before it was made, or was a run of the commit that it replaced.
_SAME: Final = "same code"
_WAS: Final = "was "  #: the id of that commit follows

# How a run belongs to a commit, the closest first.
EXACT: Final = "exact"  #: it ran the files of the commit
BESIDE: Final = "beside"  #: it ran them, and there were new files beside them that were not committed
CHANGED: Final = "changed"  #: it ran them with changes that were not committed
EARLIER: Final = "earlier"  #: it ran a commit that this one replaced: amended, rebased, squashed
ORDER: Final = (EXACT, BESIDE, CHANGED, EARLIER)
#: Those that tried the code of the commit.
TRIED: Final = (EXACT, BESIDE)
_PAGE: Final = 200  #: runs that are read at a time
_FOLDER: Final = 0o040000


class Link(NamedTuple):
    """A run of a commit.

    Attributes:
        run: The run.
        how: One of ``ORDER``.
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
        unchanged = commit is not None and repo.git.tree_of(commit) == tree
    except NotFoundError:  # a shallow clone
        unchanged = False
    return None if unchanged else ObjectId(tree)  # a tracked file had changed, and was too large to be taken


def is_beside(repo: Repo, run: Run, tree: ObjectId) -> bool:
    """True if the run ran the files of ``tree``, and what else it took along are new files that ``tree`` lacks."""
    mine, taken = exact_tree(repo, run), run.code.get("untracked_taken")
    if mine is None or not isinstance(taken, list | tuple) or not taken:
        return False
    new = {path for path in taken if isinstance(path, str)}  # a record may come from anywhere
    try:
        return all(theirs is None and path in new for path, theirs in _differences(repo, mine, tree))
    except (CorruptError, NotFoundError):  # a partial clone, or damage that `gittrack fsck` names
        return False


def _differences(
    repo: Repo, mine: ObjectId, theirs: ObjectId, prefix: str = ""
) -> Iterator[tuple[str, ObjectId | None]]:
    """(path, what ``theirs`` has there) of every file that differs; only folders that differ are read."""
    if mine == theirs:
        return
    a = {name: (mode, oid) for name, mode, oid in repo.git.list_tree(mine)} if mine else {}
    b = {name: (mode, oid) for name, mode, oid in repo.git.list_tree(theirs)} if theirs else {}
    for name in {**a, **b}:
        left, right = a.get(name), b.get(name)
        if left == right:
            continue
        folders = [one[1] if one is not None and one[0] == _FOLDER else ObjectId("") for one in (left, right)]
        if any(folders) and all(one is None or one[0] == _FOLDER for one in (left, right)):
            yield from _differences(repo, folders[0], folders[1], f"{prefix}{name}/")
        else:
            shown = f"{prefix}{name}".encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            yield shown, None if right is None else right[1]


def runs_of(tracker: Tracker, commit: ObjectId, limit: int | None = None) -> list[Link]:
    """The runs of a commit, the closest first and of those the newest.  Deleted runs are left out.

    Args:
        tracker: Where the runs are.
        commit: The commit.
        limit: Look only at about so many of the newest runs: a sweep can have thousands.

    Raises:
        NotFoundError: git has no such commit.
    """
    repo, found = tracker.repo, tracker.repo.git.read_commit(commit)
    links: dict[str, Link] = {}
    for condition in (f"attributes.commit = '{commit}'", f"attributes.tree = '{found.tree}'", _is_linked(commit)):
        for run in islice(all_runs(tracker, condition), limit):
            near = how(repo, run, {commit: commit, found.tree: commit})
            # Changes that were committed since belong to that commit, and no longer to the one they were made on.
            linked = linked_commits(run) if near is not None and near[1] == CHANGED else {}
            moved = any(repo.git.exists(ObjectId(one)) for one in linked)
            if near is not None and not moved:
                links[run.info.run_id] = Link(run, near[1])
    for run in _made_on(tracker, found.parents, limit):
        if run.info.run_id not in links and is_beside(repo, run, found.tree):
            links[run.info.run_id] = Link(run, BESIDE)
    return sorted(links.values(), key=lambda one: (ORDER.index(one.how), -one.run.info.start_time, one.run.info.run_id))


def runs_of_files(tracker: Tracker, tree: ObjectId, parents: Iterable[ObjectId]) -> list[Run]:
    """The runs that ran these files before they were committed, or did so elsewhere, newest first.

    Args:
        tracker: Where the runs are.
        tree: The files.
        parents: The commits that they were made on.
    """
    repo = tracker.repo
    found = {
        run.info.run_id: run
        for run in all_runs(tracker, f"attributes.tree = '{tree}'")
        if exact_tree(repo, run) == tree
    }
    found |= {run.info.run_id: run for run in _made_on(tracker, parents) if is_beside(repo, run, tree)}
    return sorted(found.values(), key=lambda run: (-run.info.start_time, run.info.run_id))


def _made_on(tracker: Tracker, commits: Iterable[ObjectId], limit: int | None = None) -> Iterator[Run]:
    """The runs with uncommitted changes that started on these commits."""
    for commit in commits:
        yield from islice(all_runs(tracker, f"attributes.commit = '{commit}' AND attributes.dirty = 'true'"), limit)


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
    linked = linked_commits(run)
    if same := next((one for one, why in linked.items() if why == _SAME and one in commits), None):
        return commits[same], BESIDE  # or it would have the tree
    if start in commits:
        return commits[start], BESIDE if is_beside(repo, run, repo.git.tree_of(ObjectId(start))) else CHANGED
    return next(((commits[one], EARLIER) for one in linked if one in commits), None)


def all_runs(tracker: Tracker, filter_string: str = "") -> Iterator[Run]:
    """Every run that matches and is not deleted, newest first, read page by page."""
    token: str | None = None
    while True:
        page = tracker.search_runs(filter_string=filter_string, max_results=_PAGE, page_token=token)
        yield from page
        token = page.token
        if token is None:
            return


def matching(tracker: Tracker, where: str, experiment: str | None) -> frozenset[str] | None:
    """The ids of the runs that match a filter and are of an experiment; None for all, if neither is given.

    Args:
        tracker: Where the runs are.
        where: A filter; empty for any run.
        experiment: Its name, or its id.

    Raises:
        QuerySyntaxError: The filter cannot be read.
        NotFoundError: There is no such experiment.
    """
    if not where and experiment is None:
        return None
    only = None
    if experiment is not None:
        found = tracker.get_experiment_by_name(experiment) or tracker.get_experiment(experiment)
        only = found.experiment_id
    runs = all_runs(tracker, where)
    return frozenset(run.info.run_id for run in runs if only is None or run.info.experiment_id == only)


def linked_commits(run: Run) -> dict[str, str]:
    """The commits that the run was linked to after it ran, and why."""
    return {oid: why for key, why in run.data.tags.items() if (oid := linked_commit(key))}


def linked_commit(key: str) -> str:
    """The commit that a tag is about; empty if it is no link."""
    match = _LINK.fullmatch(key)
    return match[1] if match else ""


def _is_linked(commit: str) -> str:
    return f'tags."{LINK_TAG}{gateway.rev(commit)}" IS NOT NULL'


# -- writing -----------------------------------------------------------------------------------------------------------


def link_same_code(tracker: Tracker, commit: ObjectId, replaced: Iterable[ObjectId] = ()) -> list[RunId]:
    """Link the runs that ran the files of a commit as uncommitted changes; their ids.  The tracker commits them.

    Only the first commit with these files is written into a run; others are found by their tree.

    Args:
        tracker: Where the runs are.
        commit: The commit.
        replaced: Commits that it replaces: runs may have started there.
    """
    found = tracker.repo.git.read_commit(commit)
    runs = runs_of_files(tracker, found.tree, [*found.parents, *replaced])
    return _link(tracker, [run for run in runs if run.code.get("dirty") and not linked_commits(run)], commit, _SAME)


def link_rewritten(tracker: Tracker, pairs: Iterable[tuple[ObjectId, ObjectId]]) -> list[RunId]:
    """Link the runs of commits to those that replace them; their ids.  The tracker commits them.

    Args:
        tracker: Where the runs are.
        pairs: The commit that was, the commit that replaces it; several may be replaced by one.
    """
    done: list[RunId] = []
    git = tracker.repo.git
    for old, new in pairs:
        if old == new or not (git.exists(old) and git.exists(new)):
            continue
        runs = [one.run for one in runs_of(tracker, old) if one.how != CHANGED]
        done += _link(tracker, runs, new, _WAS + old)
        done += link_same_code(tracker, new, [old])
    return done


def _link(tracker: Tracker, runs: Iterable[Run], commit: ObjectId, why: str) -> list[RunId]:
    key = LINK_TAG + commit
    missing = [run for run in runs if key not in run.data.tags]
    for run in missing:
        tracker.writer(RunId(run.info.run_id)).set_tags({key: why})
    return [RunId(run.info.run_id) for run in missing]
