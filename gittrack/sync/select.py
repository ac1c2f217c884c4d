"""Selection: which runs and models a push or a pull is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gittrack.store import codec, layout
from gittrack.store.experiments import ExperimentState

if TYPE_CHECKING:
    from gittrack.store.pack import Batch
    from gittrack.store.repo import Repo
    from gittrack.types import ObjectId, RunInfo


@dataclass(frozen=True)
class Selection:
    """What is meant; empty parts mean everything.

    Attributes:
        experiments: Ids of experiments.
        runs: Ids of runs.
        models: Keys of models.
        author: Part of the name of whoever made a run, or of the writer of a ledger, in any case.
        since: Runs that began then or later; milliseconds since the epoch.
    """

    experiments: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    author: str = ""
    since: int | None = None

    def ref(self, ref: str) -> bool:
        """True if a ref, by its name here, can hold something that is meant."""
        parsed = layout.parse_ledger_ref(ref)
        if parsed is not None:
            if self.models and not self.by_run:
                return False
            return not self.experiments or parsed[0] in self.experiments
        if ref.startswith(layout.TAG_PREFIX):
            key = ref[len(layout.TAG_PREFIX) :].partition("/")[0]
            return key in self.models if self.models else not self.by_run
        return bool(self.models) or not self.by_run

    @property
    def by_run(self) -> bool:
        """True if single runs are meant rather than models."""
        return bool(self.experiments or self.picks)

    @property
    def picks(self) -> bool:
        """True if not every run of a ledger is meant."""
        return bool(self.runs or self.author or self.since is not None)

    def run(self, info: RunInfo, who: str) -> bool:
        """True if a run of a ledger that is meant is meant itself; ``who`` is the author of its commit."""
        if self.runs and info.run_id not in self.runs:
            return False
        if self.since is not None and info.start_time < self.since:
            return False
        wanted = self.author.casefold()
        return wanted in info.user_id.casefold() or wanted in who.casefold()


EVERYTHING: Final = Selection()


def some_of(
    repo: Repo, batch: Batch, select: Selection, base: ObjectId | None, full: ObjectId
) -> tuple[ObjectId | None, set[str]]:
    """A ledger that has what ``base`` has and, of ``full``, the runs that are meant.

    Args:
        repo: The store.
        batch: Takes the new ledger commit.
        select: Which runs are meant.
        base: The ledger so far; None: it does not exist.
        full: The ledger that has all of them.

    Returns:
        Its commit (``base`` if nothing is to be added, ``full`` if nothing is left out) and the ids of the runs added.
    """
    added: dict[str, ObjectId] = {}
    left = 0
    for run_id, old, new in repo.git.ledger_diff(base, full):
        if new is None:
            continue
        if not is_meant(repo, select, run_id, new):
            left += 1
        elif old is None or repo.is_ancestor(old, new):
            added[run_id] = new
    if not added:
        return base, set()
    if not left and base is None:
        return full, set(added)
    kept = {
        name: repo.git.ledger_blob(full, name) for name in (layout.EXPERIMENT_FILE, layout.TOMBSTONES, layout.FOLDED)
    }
    if base is not None:
        kept[layout.EXPERIMENT_FILE] = _experiment(repo, kept[layout.EXPERIMENT_FILE], base)
        kept[layout.TOMBSTONES] = codec.pack(sorted(repo.tombstones({"": base}) | repo.tombstones({"": full})))
        kept[layout.FOLDED] = kept[layout.FOLDED] or repo.git.ledger_blob(base, layout.FOLDED)
    author, now = repo.git.identity(), repo.git.read_commit(full).time
    text = f"{len(added)} run(s) of {full[:10]}\n"
    return repo.git.ledger_build(batch, base, added, kept, text, author=author, time_s=now), set(added)


def _experiment(repo: Repo, data: bytes | None, base: ObjectId) -> bytes | None:
    """What one ledger says about its experiment, with what another one knows better."""
    other = repo.git.ledger_blob(base, layout.EXPERIMENT_FILE)
    if data is None or other is None or data == other:
        return data or other
    state = ExperimentState.decode("", data)
    state.merge(ExperimentState.decode("", other))
    return state.encode()


def is_meant(repo: Repo, select: Selection, run_id: str, commit: ObjectId) -> bool:
    """True if a run at a commit is one of those that are meant."""
    if select.runs and run_id not in select.runs:
        return False
    if not select.author and select.since is None:
        return True
    state = repo.stored_state(run_id, [commit])
    return state is not None and select.run(state.to_run("").info, repo.git.read_commit(commit).author)
