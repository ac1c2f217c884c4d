"""Which of two ledgers knows more.  What they say decides, not which commit descends from which: owners rewrite theirs.

A ledger is *behind* another one if the other has every run of it, at the same or a later revision (or a tombstone in
its place), every tombstone and every edit of the experiment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gittrack.registry import documents
from gittrack.store import layout
from gittrack.store.experiments import ExperimentState

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.types import ObjectId

SAME: Final = "same"
BEHIND: Final = "behind"
AHEAD: Final = "ahead"
APART: Final = "apart"


def compare(repo: Repo, ref: str, mine: ObjectId, theirs: ObjectId) -> str:
    """How ``mine`` stands to ``theirs``, two values of one ledger or of one writer's documents: one of the above.

    Raises:
        CorruptError, NotFoundError: One of them cannot be read.
    """
    if mine == theirs:
        return SAME
    parsed = layout.parse_ledger_ref(ref)
    if parsed is None:
        below, above = _documents_within(repo, mine, theirs), _documents_within(repo, theirs, mine)
    else:
        below, above = within(repo, parsed[0], mine, theirs), within(repo, parsed[0], theirs, mine)
    if below and above:
        return SAME
    return BEHIND if below else AHEAD if above else APART


def within(repo: Repo, experiment_id: str, small: ObjectId, great: ObjectId) -> bool:
    """True if the ledger ``great`` has all that ``small`` has."""
    stones = repo.tombstones({"": great}, strict=True)
    if not repo.tombstones({"": small}, strict=True) <= stones:
        return False
    for run_id, old, new in repo.git.ledger_diff(small, great):
        if old is None or (new is None and layout.tombstone(run_id) in stones):
            continue
        if new is None or not repo.is_ancestor(old, new):
            return False
    mine, theirs = _experiment(repo, experiment_id, small), _experiment(repo, experiment_id, great)
    return all(
        not edit.beats(theirs.fields.get(name)) or edit == theirs.fields.get(name) for name, edit in mine.fields.items()
    )


def _experiment(repo: Repo, experiment_id: str, commit: ObjectId) -> ExperimentState:
    data = repo.git.ledger_blob(commit, layout.EXPERIMENT_FILE)
    return ExperimentState(experiment_id, 0) if data is None else ExperimentState.decode(experiment_id, data)


def _documents_within(repo: Repo, small: ObjectId, great: ObjectId) -> bool:
    theirs = documents.blobs(repo.git, great)
    for key, blob in documents.blobs(repo.git, small).items():
        if theirs.get(key) == blob:
            continue
        mine = documents.read(repo.git, key, [blob])
        other = documents.read(repo.git, key, [theirs[key]] if key in theirs else [])
        if any(
            edit.beats(other.fields.get(name)) and edit != other.fields.get(name) for name, edit in mine.fields.items()
        ):
            return False
        if not mine.log.keys() <= other.log.keys():
            return False
    return True
