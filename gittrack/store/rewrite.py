"""Rewriting ledgers, which otherwise only grow: purge forgets a run, fold takes in ledgers of writers that are gone.

Both leave a mark by which other clones do the same: a tombstone for a run, the last commit of a ledger taken in.
Deleting goes in the reverse order of writing (design section 5): the reference first, the bytes last.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gittrack.errors import CorruptError, NotFoundError, StateError
from gittrack.store import codec, layout
from gittrack.store.check import history, referenced, tagged
from gittrack.store.experiments import ExperimentState
from gittrack.store.git import RefUpdate
from gittrack.store.seal import going_on, merged, seal
from gittrack.types import Digest

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.types import ObjectId


def purge(repo: Repo, run_id: str) -> int:
    """Forget a deleted run for good: rewrite the ledgers of this clone without it and leave a tombstone.

    The tombstone is the sha256 of the run id; it makes other clones drop the run and refuse to bring it back.

    Returns:
        Bytes of artifacts that went with it.

    Raises:
        NotFoundError: No such run.
        StateError: The run is not deleted, goes on, or tags point at it.
    """
    repo.require_writable()
    seal(repo)
    state = repo.state(run_id)
    if state.field("lifecycle") != "deleted":
        raise StateError(f"run `{run_id}` is not deleted", hint=f"`gittrack rm {run_id[:8]}` first")
    if any(map(going_on, repo.journals(run_id))):
        raise StateError(f"run `{run_id}` goes on", hint="end it first")
    revisions = list(history(repo, repo.revisions(run_id)))
    if tags := _tags_at(repo, revisions):
        shown = ", ".join(f"`{name}`" for name in tags[:3]) + (" …" if len(tags) > 3 else "")
        raise StateError(
            f"run `{run_id}` is kept by {shown}", hint="`git tag -d` removes a tag, here and not elsewhere"
        )
    began = time.time()
    with repo.seal_lock():
        own = {artifact.digest for artifact in state.artifacts.values() if artifact is not None}
        for oid in revisions:
            with suppress(CorruptError, NotFoundError):  # a damaged run can be forgotten too; `gc` frees what it had
                own.update(artifact.digest for artifact in repo.artifacts_of(oid).values())
        for ref, ledger in repo.ledgers().items():
            if repo.git.ledger_lookup(ledger, run_id) is None:
                continue
            parsed = layout.parse_ledger_ref(ref)
            if parsed is not None and parsed[1] == repo.writer:
                _rewrite_ledger(repo, ref, ledger, [run_id])
        if not repo.purged(run_id):  # it is another clone's, which drops it when it hears of it
            _add_tombstone(repo, state.experiment_id, run_id)
        freed = _forget(repo, [run_id], own, began, repo.ledgers())
    repo.refresh()
    return freed


def drop_purged(repo: Repo, coming: Mapping[str, ObjectId]) -> list[str]:
    """Take what other clones have purged out of this clone's own ledgers, with its artifacts; the ids of those runs.

    Args:
        repo: The store.
        coming: Ledgers of others that are about to be taken over.  What they say is gone goes before they come: a
            process that dies in between leaves them to be taken over, and the next one goes on.

    Raises:
        ReadOnlyError, StorageError, LockedError: Not everything was dropped; the next call goes on.
    """
    dropped: set[str] = set()
    began = time.time()
    with repo.seal_lock():
        ledgers = {**repo.ledgers(), **coming}
        stones = repo.tombstones(ledgers)
        own: set[Digest] = set()
        for ref, ledger in ledgers.items() if stones else ():
            parsed = layout.parse_ledger_ref(ref)
            if parsed is None or parsed[1] != repo.writer:
                continue
            gone = {run: oid for run, oid in repo.git.ledger_read(ledger) if layout.tombstone(run) in stones}
            for oid in history(repo, gone.values()):
                with suppress(CorruptError, NotFoundError):
                    own.update(artifact.digest for artifact in repo.artifacts_of(oid).values())
            if gone:
                _rewrite_ledger(repo, ref, ledger, gone)
                dropped.update(gone)
        if dropped:
            _forget(repo, dropped, own, began, {**repo.ledgers(), **coming})
    return sorted(dropped)


@dataclass
class FoldReport:
    """What fold took in, or would take in.

    Attributes:
        writers: The writers whose ledgers are part of this clone's now.
        ledgers: How many ledgers that were.
        runs: How many runs were in them.
    """

    writers: list[str] = field(default_factory=list)
    ledgers: int = 0
    runs: int = 0


def fold(repo: Repo, *, older_than_s: float, dry_run: bool = False) -> FoldReport:
    """Take the ledgers of writers that have been silent for some time into this clone's own.

    A ledger that was taken in goes; its writer's name and last commit stay in this clone's ledger, so that other clones
    and remotes let go of it too.  A writer that comes back has more than what was taken in, and is there again.

    Args:
        repo: The store.
        older_than_s: Take a writer whose ledgers, which are as old as their newest runs, are older than this many
            seconds.
        dry_run: Only say what would be taken.

    Raises:
        CorruptError, NotFoundError: A ledger cannot be read; it and those after it stay.
    """
    repo.require_writable()
    report = FoldReport()
    horizon = time.time() - older_than_s
    with repo.seal_lock():
        ledgers = repo.ledgers()
        last: dict[str, int] = {}
        found: dict[str, dict[str, ObjectId]] = {}  #: by experiment and writer
        for ref, oid in ledgers.items():
            parsed = layout.parse_ledger_ref(ref)
            if parsed is not None and parsed[1] != repo.writer:
                last[parsed[1]] = max(last.get(parsed[1], 0), repo.git.read_commit(oid).time)
                found.setdefault(parsed[0], {})[parsed[1]] = oid
        silent = {writer for writer, seconds in last.items() if seconds < horizon}
        for experiment_id, writers in sorted(found.items()):
            dead = {writer: oid for writer, oid in writers.items() if writer in silent}
            if not dead:
                continue
            report.writers += [writer for writer in dead if writer not in report.writers]
            report.ledgers += len(dead)
            report.runs += sum(1 for oid in dead.values() for _ in repo.git.ledger_read(oid))
            if not dry_run:
                _fold_in(repo, experiment_id, dead)
    return report


def _fold_in(repo: Repo, experiment_id: str, dead: Mapping[str, ObjectId]) -> None:
    """Make ledgers of one experiment part of this clone's own, in one step."""
    ref = layout.ledger_ref(experiment_id, repo.writer)
    own = repo.git.ref(ref)
    sources = {
        **({ref: own} if own is not None else {}),
        **{layout.ledger_ref(experiment_id, w): o for w, o in dead.items()},
    }
    stones = repo.tombstones(sources, strict=True)
    gone = repo.tombstones()
    changes: dict[str, ObjectId] = {}
    batch, now = repo.git.batch(), int(time.time())
    for run_id in sorted({run for oid in dead.values() for run, _ in repo.git.ledger_read(oid)}):
        mine = None if own is None else repo.git.ledger_lookup(own, run_id)
        heads = repo.revisions(run_id, sources)
        if layout.tombstone(run_id) in gone or not heads or heads == [mine]:
            continue
        changes[run_id] = heads[0] if len(heads) == 1 else merged(repo, batch, run_id, heads)
    states = [state for oid in sources.values() if (state := _experiment(repo, experiment_id, oid)) is not None]
    folded = (
        {} if own is None else layout.check_folded(codec.unpack(repo.git.ledger_blob(own, layout.FOLDED) or b"\x80"))
    )
    kept: dict[str, bytes | None] = {layout.FOLDED: codec.pack(dict(sorted({**folded, **dead}.items())))}
    if states:
        for other in states[1:]:
            states[0].merge(other)
        kept[layout.EXPERIMENT_FILE] = states[0].encode()
    if stones := stones | {layout.tombstone(r) for o in dead.values() for r, _ in repo.git.ledger_read(o)} & gone:
        kept[layout.TOMBSTONES] = codec.pack(sorted(stones))
    new, author = own, repo.git.identity()
    for chunk in _chunks(sorted(changes.items()), 500) or [[]]:
        new = repo.git.ledger_build(batch, new, dict(chunk), kept, "ledgers folded\n", author=author, time_s=now)
    moves = [RefUpdate(ref, own, new)]
    moves += [RefUpdate(layout.ledger_ref(experiment_id, writer), oid, None) for writer, oid in dead.items()]
    repo.git.publish(batch, moves)


def _experiment(repo: Repo, experiment_id: str, ledger: ObjectId) -> ExperimentState | None:
    data = repo.git.ledger_blob(ledger, layout.EXPERIMENT_FILE)
    return None if data is None else ExperimentState.decode(experiment_id, data)


def _forget(repo: Repo, run_ids: Iterable[str], own: set[Digest], began: float, ledgers: Mapping[str, ObjectId]) -> int:
    """Remove the journals of runs, and of the artifacts that were theirs what nothing else refers to; bytes freed."""
    for one in [one for run_id in run_ids for one in repo.journals(run_id)]:
        one.remove()
    if notes := repo.git.ref(layout.NOTES_REF):  # they and their history name the runs; the hooks write them again
        repo.git.publish(repo.git.batch(), [RefUpdate(layout.NOTES_REF, notes, None)])
    freed = 0
    # Only its own: other processes may have stored objects that they are about to name, equal ones too.
    for digest in own - referenced(repo, ledgers):
        with suppress(NotFoundError):
            if repo.objects.modified(digest) < began:
                freed += repo.objects.delete(digest)
    return freed


def _add_tombstone(repo: Repo, experiment_id: str, run_id: str) -> None:
    """Say in this clone's ledger that a run is gone that is not in it."""
    old = repo.git.ref(layout.ledger_ref(experiment_id, repo.writer))
    known = repo.tombstones({"": old}) if old is not None else frozenset()
    stones = codec.pack(sorted({*known, layout.tombstone(run_id)}))
    batch = repo.git.batch()
    update = repo.ledger_update(
        batch, experiment_id, {}, files={layout.TOMBSTONES: stones}, message="run purged\n", time=int(time.time())
    )
    repo.git.publish(batch, [update])


def _rewrite_ledger(repo: Repo, ref: str, ledger: ObjectId, run_ids: Collection[str]) -> None:
    """The same ledger as a new chain that never knew these runs."""
    entries = {other: commit for other, commit in repo.git.ledger_read(ledger) if other not in run_ids}
    kept = {layout.EXPERIMENT_FILE: repo.git.ledger_blob(ledger, layout.EXPERIMENT_FILE)}
    kept[layout.FOLDED] = repo.git.ledger_blob(ledger, layout.FOLDED)
    stones = {*repo.tombstones({ref: ledger}, strict=True), *map(layout.tombstone, run_ids)}
    kept[layout.TOMBSTONES] = codec.pack(sorted(stones))
    batch = repo.git.batch()
    now, author = int(time.time()), repo.git.identity()
    new: ObjectId | None = None
    for chunk in _chunks(sorted(entries.items()), 500) or [[]]:
        new = repo.git.ledger_build(batch, new, dict(chunk), kept, "ledger rewritten\n", author=author, time_s=now)
    repo.git.publish(batch, [RefUpdate(ref, ledger, new)])


def _chunks(items: list[tuple[str, ObjectId]], size: int) -> list[list[tuple[str, ObjectId]]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _tags_at(repo: Repo, revisions: Iterable[ObjectId]) -> list[str]:
    """The tags that point at one of the revisions, below ``refs/tags/``."""
    known = set(revisions)
    return [ref.removeprefix("refs/tags/") for ref, commit in tagged(repo, layout.TAG_PREFIX) if commit in known]
