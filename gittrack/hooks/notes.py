"""`refs/notes/gittrack`: the metrics of each commit's runs, for `git log --notes=gittrack`.

Derived: delete the ref, and the next hook writes it again.  Only the notes of commits whose runs have changed since the
last time are made anew; the index remembers which ledgers that was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from gittrack.errors import CorruptError, NotFoundError
from gittrack.store import layout
from gittrack.store.git import RefUpdate
from gittrack.track import links
from gittrack.types import ObjectId, RunId

if TYPE_CHECKING:
    from gittrack.store.git import Batch
    from gittrack.track.runs import Tracker
    from gittrack.types import Run

_META: Final = "notes"  #: in the index: the ledgers whose runs are in the notes
_FOLDER, _FILE = 0o040000, 0o100644
_RUNS: Final = 10  #: runs in a note, the closest and newest
_METRICS: Final = 8  #: metrics of a run in a note
_WORDS: Final = {
    links.EXACT: "",
    links.BESIDE: " (with new files)",
    links.CHANGED: " (with changes)",
    links.EARLIER: " (an earlier version)",
}


def refresh(tracker: Tracker, new: Iterable[ObjectId] = ()) -> int:
    """Bring the notes up to the ledgers; how many have changed.

    Args:
        tracker: Where the runs are.
        new: Commits that may have runs by their files, though no run has changed.

    Raises:
        ConflictError: Somebody else wrote notes at the same time; the next call makes up for it.
    """
    repo = tracker.repo
    repo.refresh()
    ledgers = repo.ledgers()
    old = repo.git.ref(layout.NOTES_REF)
    before: dict[str, ObjectId] = {} if old is None else repo.index.meta_get(_META) or {}
    changed = _changed(tracker, before, ledgers)
    runs = repo.index.get_runs([RunId(one) for one in changed])
    # A run that is gone was purged: neither its note may stay, nor the history of the notes.
    anew = bool(before) and (len(runs) < len(changed) or any(not repo.git.exists(one) for one in before.values()))
    if anew:
        runs = repo.index.get_runs([RunId(one) for one in _changed(tracker, {}, ledgers)])
    written = _write(tracker, dict.fromkeys([*_commits(tracker, runs), *new]), old, anew=anew)
    repo.index.meta_set(_META, ledgers)
    return written


def _changed(tracker: Tracker, before: Mapping[str, ObjectId], now: Mapping[str, ObjectId]) -> set[str]:
    """The runs in which two states of the ledgers differ."""
    git, changed = tracker.repo.git, set[str]()
    for ref in {*before, *now}:
        if before.get(ref) != now.get(ref):
            known = before.get(ref)
            try:
                known = known if known is not None and git.exists(known) else None
                changed.update(run_id for run_id, _, _ in git.ledger_diff(known, now.get(ref)))
            except (CorruptError, NotFoundError):  # `gittrack fsck` names it, and the index has warned
                continue
    return changed


def _commits(tracker: Tracker, runs: Iterable[Run]) -> list[ObjectId]:
    """The commits that these runs belong to, or started from, and that are here."""
    found: dict[str, None] = {}
    for run in runs:
        found.update(dict.fromkeys([*filter(None, [run.code.get("commit")]), *links.linked_commits(run)]))
    return [ObjectId(oid) for oid in found if tracker.repo.git.exists(ObjectId(oid))]


def _write(tracker: Tracker, commits: Iterable[ObjectId], old: ObjectId | None, *, anew: bool) -> int:
    """Write the notes of these commits on top of what ``old`` has, or of nothing; how many are different."""
    git, batch = tracker.repo.git, tracker.repo.git.batch()
    folders: dict[str, dict[str, ObjectId]] = {}
    changes = {oid: text(links.runs_of(tracker, oid, 2 * _RUNS)) for oid in commits}
    table = {} if old is None or anew else {n: (m, o) for n, m, o in git.list_tree(git.tree_of(old))}
    done = 0
    for oid, note in changes.items():
        folder, name = oid[:2], oid[2:]
        if folder not in folders:
            mode, tree = table.get(folder, (0, ObjectId("")))
            folders[folder] = {n: o for n, _, o in git.list_tree(tree)} if mode == _FOLDER else {}
        blob = batch.add_blob(note.encode()) if note else None
        if folders[folder].get(name) == blob:
            continue
        done += 1
        if blob is None:
            del folders[folder][name]
        else:
            folders[folder][name] = blob
        if table.get(oid, (_FOLDER,))[0] == _FILE:  # as `git notes` itself lays a few of them out
            del table[oid]
    if done or anew:
        _publish(tracker, batch, old, table, folders, parents=[] if old is None or anew else [old])
    return done


def _publish(
    tracker: Tracker,
    batch: Batch,
    old: ObjectId | None,
    table: dict[str, tuple[int, ObjectId]],
    folders: dict[str, dict[str, ObjectId]],
    *,
    parents: Sequence[ObjectId],
) -> None:
    git = tracker.repo.git
    for folder, notes in folders.items():
        table.pop(folder, None)
        if notes:
            table[folder] = (_FOLDER, batch.add_tree((name, _FILE, oid) for name, oid in notes.items()))
    tree = batch.add_tree((name, mode, oid) for name, (mode, oid) in table.items())
    new = batch.add_commit(tree, parents, "Notes by gittrack\n", git.identity(), int(time.time()))
    git.publish(batch, [RefUpdate(layout.NOTES_REF, old, new)])


def text(found: Iterable[links.Link]) -> str:
    """The note of a commit with these runs; empty without any."""
    runs = list(found)
    lines = [_line(one) for one in runs[:_RUNS]]
    if len(runs) > _RUNS:
        lines.append("and more: `gittrack which` lists them")
    return "".join(line + "\n" for line in lines)


def _line(one: links.Link) -> str:
    return " ".join(filter(None, [f"{_about(one.run)}{_WORDS[one.how]}", *_metrics(one.run)]))


def _about(run: Run) -> str:
    state = "" if run.info.status == "FINISHED" else f" {run.info.status}"
    return f"{run.info.run_id[:8]} {clean(run.info.run_name)}{state}"


def _metrics(run: Run) -> list[str]:
    keys = [key for key in run.data.metrics if not key.startswith("system/")]
    keys.sort(key=lambda key: (key.startswith("training_"), key))
    return [f"{clean(key)}={run.data.metrics[key]:.6g}" for key in keys[:_METRICS]]


def clean(value: str) -> str:
    """``value`` in one line, with whatever could command a terminal spelled out: git prints notes as they are."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in value)
