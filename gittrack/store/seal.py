"""Sealing: finished journals become run commits, many at a time (group commit, design sections 4 and 5).

Write order, each on disk before the next: journal (done by its writer) → git objects, one pack → ledger refs by
compare-and-swap → index → journal removed.  Whoever holds the seal lock commits every journal that is ready, whoever
wrote it; a crash anywhere leaves either the journal or the commit, and the next call goes on from there.
"""

from __future__ import annotations

import contextlib
import logging
import time as clock
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from gittrack.errors import (
    CorruptError,
    FormatError,
    GittrackError,
    InvalidValueError,
    LockedError,
    NotFoundError,
    ReadOnlyError,
)
from gittrack.store import codec, files, journal, layout
from gittrack.store.git import RefUpdate
from gittrack.store.record import CLOSE, CREATE, STATUS, RunState
from gittrack.store.repo import LOCK_TIMEOUT, JournalEvents, JournalFile, journal_opening
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from gittrack.store.git import Batch
    from gittrack.store.journal import Journal
    from gittrack.store.repo import Repo
    from gittrack.store.shared import SharedJournal

#: Runs per pack and ledger commit: bounds the parents of one commit.
GROUP: Final = 500
#: Bytes of journals per pack, unless a single run has more: bounds memory.
GROUP_BYTES: Final = 32 << 20

#: Names of journals that a record remembers to have absorbed.
MAX_ABSORBED: Final = 256
#: A journal that is being opened for that long never will be.
STALE_SECONDS: Final = 60.0

_CLOSING = codec.frame(codec.pack([CLOSE]))
#: How the events begin that only the process writes that made or resumed the run: an array of two or three, its kind.
OWNERS: Final = {codec.pack([CREATE, None])[:2], codec.pack([STATUS, None, None])[:2]}
_FILE, _FOLDER = 0o100644, 0o040000
_log = logging.getLogger("gittrack")


class _Ready(NamedTuple):
    """A run whose journals nobody writes any more."""

    run_id: str
    journals: list[Journal]
    killed: bool  #: its owner died without ending it


class _Spent(NamedTuple):
    """A run whose journals are not needed any more.

    Attributes:
        ends: How far each of them goes that was read.
        shipped: Those that were shipped, which the commit tells of.
    """

    run: _Ready
    ends: dict[str, int]
    shipped: Collection[str]


def heal(repo: Repo) -> list[str]:
    """``seal`` if there is any journal whose process is gone; costs one look at a folder otherwise.

    For reading commands, which must not fail or wait because somebody else is sealing.
    """
    try:
        for journals in repo.live_runs().values():
            if not any(map(going_on, journals)):
                return seal(repo, timeout=1.0)
    except (LockedError, ReadOnlyError) as error:
        _log.debug("left to whoever is sealing: %s", error)
    except GittrackError as error:
        _log.warning("gittrack: what dead processes left could not be committed: %s", error)
    return []


def seal(repo: Repo, *, timeout: float = LOCK_TIMEOUT, but: Collection[str] = ()) -> list[str]:
    """Commit every run that is ready; the ids of the runs committed.

    Args:
        repo: The store.
        timeout: Seconds to wait for another process that is sealing.
        but: Runs that this process has open, which nobody need look at: a server has thousands.

    Raises:
        LockedError: Another process was sealing for ``timeout`` seconds.
        StorageError, GitError: Nothing was lost; the journals are still there.
    """
    repo.require_writable()
    done: list[str] = []
    if repo.frames is not None:
        repo.frames.tidy()
    for run_id in journal.empty_runs(repo.live, but):
        _remove_if_abandoned(repo.live / run_id)
    if not repo.live_runs(but):
        return done
    with repo.seal_lock(timeout):
        repo.git.heal_locks()
        ready = [r for run_id, journals in repo.live_runs(but).items() if (r := _ready(run_id, journals))]
        for group in _groups(ready):
            done += _commit_group(repo, group)
        if ready:
            if not but and not repo.live_runs():
                repo.git.unpin_except((), grace_s=5)  # nothing goes on: no captured code waits for its commit
            repo.git.maintain()
    return done


def _groups(ready: list[_Ready]) -> Iterator[list[_Ready]]:
    group: list[_Ready] = []
    room = GROUP_BYTES
    for item in ready:
        size = sum(one.size for one in item.journals)
        if group and (len(group) == GROUP or size > room):
            yield group
            group, room = [], GROUP_BYTES
        group.append(item)
        room -= size
    if group:
        yield group


def going_on(one: Journal) -> bool:
    """True if somebody may write into this journal as part of a run that goes on."""
    return owner_alive(one.path) if isinstance(one, JournalFile) else not cast("SharedJournal", one).ended


def owner_alive(path: Path) -> bool:
    """True if the process that writes this journal runs, or may run: on another host nobody here can tell."""
    if path.name.startswith(journal.SHIPPED):
        return not is_closed(path)
    opening = journal_opening(path)
    if opening is None or files.is_alive(files.ProcessId.from_list(opening["process"])) is False:
        return False
    return not is_closed(path)


def _by_server(path: Path) -> bool:
    """True if a server wrote the journal for a client."""
    return bool((journal_opening(path) or {}).get("serving"))


def is_closed(path: Path) -> bool:
    """True if the journal's last frame is CLOSE.  Looks at the end first: journals can be long."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - len(_CLOSING)))
            if file.read() != _CLOSING:
                return False
    except FileNotFoundError:
        return True
    last = max(journal.iter_journal(path), default=(0, b""))[1]  # the offsets rise
    return last == _CLOSING[codec.HEADER.size :]


def _ready(run_id: str, journals: list[Journal]) -> _Ready | None:
    """The run if all its journals are closed or orphaned, and its end is known or its owner dead."""
    orphaned = False
    for one in journals:
        if going_on(one):
            return None
        if not isinstance(one, JournalFile) or is_closed(one.path):
            continue
        journal.repair(one.path)
        # A helper process that died says nothing about the run, nor does a server, whose clients go on with it
        # elsewhere; the process that made or resumed it does.
        if not _by_server(one.path):
            orphaned = orphaned or any(payload[:2] in OWNERS for _, payload in one.frames())
    # Only these: a journal that was opened meanwhile is somebody's, and has not been looked at.
    return _Ready(run_id, journals, orphaned)


def _commit_group(repo: Repo, group: list[_Ready]) -> list[str]:
    batch = repo.git.batch()
    states: dict[str, RunState] = {}
    commits: dict[str, dict[str, ObjectId]] = {}
    ledgers = repo.ledgers()
    names = {key: state.name for key, state in repo.experiment_states().items()}
    roots: dict[str, list[tuple[str, int, ObjectId]]] = {}
    spent: list[_Spent] = []
    revisions = repo.revisions_of([item.run_id for item in group], ledgers)
    for item in group:
        if repo.purged(item.run_id, ledgers):  # by another clone, while somebody here went on with it
            shipped = _shipped_whole(repo, item.run_id)
            spent.append(_Spent(item, JournalEvents.read(item.journals).ends, list(shipped)))
            continue
        try:
            stored = repo.stored_state(item.run_id, revisions[item.run_id])
        except (CorruptError, NotFoundError) as error:
            _leave(item, error)
            continue
        try:
            shipped = _shipped_whole(repo, item.run_id)  # before their frames: the commit has all that they say
            events = JournalEvents.read(item.journals)
            known = {} if stored is None else dict(stored.absorbed)
            told = stored is None or stored.terminated  # else it went on after a checkpoint
            if events.empty or (told and all(known.get(name, 0) >= end for name, end in events.ends.items())):
                # It died before it said anything, or right after it was committed.
                spent.append(_Spent(item, events.ends, shipped.keys() & known))
                continue
            state = _final_state(item, events.fold(item.run_id, stored))
        except FormatError as error:
            _set_aside(repo, item, str(error))
            continue
        if state is None:
            continue
        # The names of long ago need not be kept: a reader is never that far behind.
        state.absorbed = dict(list({**known, **shipped, **events.ends}.items())[-MAX_ABSORBED:])
        try:
            commit = _add_run(repo, batch, state, names.get(state.experiment_id, state.experiment_id), roots)
        except (InvalidValueError, CorruptError, NotFoundError) as error:
            _leave(item, error)
            continue
        spent.append(_Spent(item, events.ends, shipped.keys() & state.absorbed))
        states[item.run_id] = state
        commits.setdefault(state.experiment_id, {})[item.run_id] = commit
        state.base = commit
    _publish(repo, batch, states, commits)
    if repo.exchange is not None:
        repo.exchange.send()  # the others must find the commits where the frames were
    for item, ends, shipped_whole in spent:
        if repo.frames is not None and shipped_whole:
            repo.frames.forget(item.run_id, shipped_whole)
        for one in item.journals:
            one.drop(ends[one.name])
        _remove_folder(repo.live / item.run_id)
    if spent:
        files.sync_dir(repo.live)
    return list(states)


def _shipped_whole(repo: Repo, run_id: str) -> dict[str, int]:
    """How long the journals of a run are that were shipped as a whole, where servers share a database."""
    if repo.frames is None:
        return {}
    return {name: one.size for name, one in repo.frames.received(run_id, journal.SHIPPED).items() if one.closed}


def _publish(
    repo: Repo, batch: Batch, states: Mapping[str, RunState], commits: Mapping[str, Mapping[str, ObjectId]]
) -> None:
    """Put run commits on disk and into the ledgers; ``commits`` are by experiment and run."""
    now = int(clock.time())
    updates = []
    for experiment_id, changes in commits.items():
        # Not the present: git keeps the commits that it has still to visit in a list by date, and 50,000 runs that are
        # older than the ledgers that list them took each fetch and push 20 s of walking up and down in it.
        newest = max(states[run_id].end_time or states[run_id].start_time for run_id in changes) // 1000
        text = f"{len(changes)} run(s)\n"
        updates.append(repo.ledger_update(batch, experiment_id, changes, message=text, time=min(now, newest)))
    if updates:
        before = repo.git.refs_fingerprint(layout.LEDGER_PREFIX).hex()
        repo.git.publish(batch, updates)
        _index(repo, states, updates, before)


def checkpoint(repo: Repo, run_id: str, *, force: bool = False, but: Collection[str] = ()) -> ObjectId | None:
    """Commit a run as it is now, be it over or not; what is logged later becomes a later revision.

    Args:
        repo: The store.
        run_id: The run.
        force: Do not wait for its code.
        but: As for ``seal``.

    Returns:
        The run's commit; None if its code is still being captured.

    Raises:
        NotFoundError: No such run.
        LockedError: Another process was sealing for too long.
    """
    if run_id not in but:  # else it goes on, and nothing is to be waited for that others are
        seal(repo, but=but)
    with repo.seal_lock():
        ledgers = repo.ledgers()
        revisions = repo.revisions(run_id, ledgers)
        stored = repo.stored_state(run_id, revisions)
        events = JournalEvents.read(repo.journals(run_id))
        known = {} if stored is None else dict(stored.absorbed)
        news = not events.empty and any(known.get(name, 0) < end for name, end in events.ends.items())
        if len(revisions) == 1 and not news:
            return revisions[0]
        state = events.fold(run_id, stored)
        if state is None or not state.created:
            raise NotFoundError(f"no run `{run_id}`", hint="`gittrack log` lists the runs")
        if state.code and not state.environment and not state.terminated and not force:
            return None
        state.absorbed = dict(list({**known, **events.ends}.items())[-MAX_ABSORBED:])
        batch = repo.git.batch()
        experiment = repo.experiment_states().get(state.experiment_id)
        commit = _add_run(repo, batch, state, state.experiment_id if experiment is None else experiment.name, {})
        state.base = commit
        _publish(repo, batch, {run_id: state}, {state.experiment_id: {run_id: commit}})
        return commit


def _final_state(item: _Ready, state: RunState | None) -> RunState | None:
    """The run as it will be committed; None if it is not over and its process ended properly."""
    if state is None or not state.created:
        raise FormatError("its first record is missing")
    if not state.terminated:
        if not item.killed:
            return None
        paths = [one.path for one in item.journals if isinstance(one, JournalFile)]
        last_sign = max(path.stat().st_mtime_ns for path in paths) // 1_000_000
        state.apply([STATUS, "KILLED", max(last_sign, state.start_time)])
    return state


def _leave(item: _Ready, error: GittrackError) -> None:
    """Say that a run cannot be committed.  It stays in its journals, readable, and holds up no other."""
    _log.warning("gittrack: run `%s` stays in its journals, it cannot be committed: %s", item.run_id, error)


def _set_aside(repo: Repo, item: _Ready, why: str) -> None:
    """Move journals that make no run out of the way, where `gittrack fsck` reports them; never delete them."""
    target = repo.root / "lost" / item.run_id
    files.make_dirs(target)
    for one in item.journals:
        if isinstance(one, JournalFile):
            one.path.replace(target / one.name)
        else:
            frames = b"".join(codec.frame(payload) for _, payload in one.frames())
            files.write_atomic(target / one.name, frames)
            one.remove()
    files.sync_dir(target)
    _remove_folder(repo.live / item.run_id)
    _log.warning("gittrack: the journal of run `%s` is damaged (%s); it was moved to `%s`", item.run_id, why, target)


def _remove_if_abandoned(folder: Path) -> None:
    """Remove a run's folder in which nobody is about to open the first journal."""
    with contextlib.suppress(FileNotFoundError):
        if any(folder.iterdir()) or folder.stat().st_mtime < clock.time() - STALE_SECONDS:
            _remove_folder(folder)


def _remove_folder(folder: Path) -> None:
    """Remove a run's folder, unless a journal was opened in it meanwhile; that one is the next seal's work."""
    try:
        for path in folder.glob(f"*{journal.OPENING}"):
            opening = journal_opening(path)
            if opening is None:
                dead = path.stat().st_mtime < clock.time() - STALE_SECONDS
            else:
                dead = files.is_alive(files.ProcessId.from_list(opening["process"])) is False
            if dead:  # it never got its name, so nothing in it was acknowledged
                path.unlink()
        folder.rmdir()
    except OSError as error:
        _log.debug("`%s` stays: %s", folder, error)


def _add_run(
    repo: Repo, batch: Batch, state: RunState, experiment: str, roots: dict[str, list[tuple[str, int, ObjectId]]]
) -> ObjectId:
    """Add a run's commit, its tree and blobs to the batch."""
    git = repo.git
    revisions = repo.revisions(state.run_id) if state.base else []
    base_tree: ObjectId | None = None
    if revisions:
        base_tree = git.tree_of(revisions[0])
        if len(revisions) > 1:
            _unite_histories(repo, state, revisions)
    code_commit = state.code.get("commit")
    root_tree = base_tree or state.code.get("tree")
    if not root_tree and code_commit and state.code.get("mode") != "none" and git.exists(code_commit):
        root_tree = git.tree_of(code_commit)  # the capture was cut short; the commit is what is known
    if root_tree and root_tree not in roots:
        roots[root_tree] = git.list_tree(root_tree) if git.exists(root_tree) else []
    root = [entry for entry in roots.get(root_tree or "", []) if entry[0] != layout.FOLDER]
    parents = revisions or ([code_commit] if code_commit and git.exists(code_commit) else [])

    state.code.pop("pin", None)  # it has done its work once the commit is there
    encoded = state.encode()
    folder: list[tuple[str, int, ObjectId]] = [(layout.RECORD, _FILE, batch.add_blob(encoded.record))]
    metrics = [(name, _FILE, batch.add_blob(data)) for name, data in encoded.segments.items()]
    if base_tree and len(revisions) == 1:
        kept = git.lookup(base_tree, f"{layout.FOLDER}/{layout.METRICS}")
        metrics += git.list_tree(kept[1]) if kept else []
    if metrics:
        folder.append((layout.METRICS, _FOLDER, batch.add_tree(metrics)))
    artifacts = _artifact_tree(repo, batch, state, revisions)
    if artifacts:
        folder.append((layout.ARTIFACTS, _FOLDER, artifacts))
    root.append((layout.FOLDER, _FOLDER, batch.add_tree(folder)))
    time = (state.end_time or state.start_time) // 1000
    return batch.add_commit(batch.add_tree(root), parents, message(state, experiment), git.identity(), time)


def merged(repo: Repo, batch: Batch, run_id: str, revisions: list[ObjectId]) -> ObjectId:
    """Add the commit of a run that several clones amended, merged, to a batch."""
    state = repo.stored_state(run_id, revisions)
    if state is None:
        raise NotFoundError(f"no run `{run_id}`")
    experiment = repo.experiment_states().get(state.experiment_id)
    return _add_run(repo, batch, state, state.experiment_id if experiment is None else experiment.name, {})


def _unite_histories(repo: Repo, state: RunState, revisions: list[ObjectId]) -> None:
    """Two clones amended this run: store its whole history anew, so that the merged revision stands alone."""
    for key in list(state.summaries):
        state.replace_history(repo.history(state.run_id, key))
    state.segments = []


def _artifact_tree(repo: Repo, batch: Batch, state: RunState, revisions: list[ObjectId]) -> ObjectId | None:
    """The tree of pointer files; unchanged folders of the previous revision are taken over by id."""
    if not state.artifacts and len(revisions) == 1:
        found = repo.git.lookup(repo.git.tree_of(revisions[0]), f"{layout.FOLDER}/{layout.ARTIFACTS}")
        return found[1] if found else None
    merged = repo.stored_artifacts(revisions)
    layout.overlay(merged, state.artifacts)
    if not merged:
        return None
    tree: dict[str, dict[str, ObjectId] | object] = {}
    for path, artifact in merged.items():
        *folders, name = path.split("/")
        level = tree
        for part in folders:
            level = level.setdefault(part, {})  # type: ignore[assignment]  # folders hold folders, leaves hold ids
        level[name] = batch.add_blob(layout.pointer(artifact.digest, artifact.size))
    return _add_folder(batch, tree)


def _add_folder(batch: Batch, level: Mapping[str, object]) -> ObjectId:
    entries: list[tuple[str, int, ObjectId]] = []
    for name, child in level.items():
        if isinstance(child, dict):
            entries.append((name, _FOLDER, _add_folder(batch, child)))
        else:
            entries.append((name, _FILE, ObjectId(str(child))))
    return batch.add_tree(entries)


def message(state: RunState, experiment: str) -> str:
    """The commit message: a subject for people, then trailers for programs."""
    summaries = sorted(state.current_summaries().items())[:3]
    shown = ", ".join(f"{key} {summary.value:.4g}" for key, summary in summaries)
    name = " ".join(state.field("name").split())
    subject = f"{' '.join(experiment.split())}: {name}"[:200] + (f" — {shown}" if shown else "")
    trailers = [
        f"Gittrack-Run: {state.run_id}",
        f"Gittrack-Experiment: {state.experiment_id}",
        f"Gittrack-Status: {state.status}",
    ]
    if state.code.get("commit"):
        trailers.append(f"Code-Commit: {state.code['commit']}{' (dirty)' if state.code.get('dirty') else ''}")
    if state.parent_run_id:
        trailers.append(f"Gittrack-Parent-Run: {state.parent_run_id}")
    body = state.field("tags.mlflow.note.content").strip()
    return "\n\n".join(part for part in (subject, body, "\n".join(trailers)) if part) + "\n"


def _index(repo: Repo, states: Mapping[str, RunState], updates: list[RefUpdate], before: str) -> None:
    """Tell the index what was just committed, so that the next reader need not find it out from git.

    Only if the index knew everything up to now; otherwise its next refresh does all of it.  The index is derived: that
    it cannot be written must not undo a commit, and is no trouble before somebody reads, who is told.
    """
    try:
        index = repo.index
        with index.transaction():
            ledgers = index.meta_get("ledgers") or {}
            if index.meta_get("fingerprint") != before or any(ledgers.get(u.name) != u.old for u in updates):
                return
            for run_id, state in states.items():
                # What was logged since, another reader may have indexed already: it must not disappear again.
                JournalEvents.read(repo.journals(run_id), state.absorbed).fold(run_id, state)
                state.settle()
            after = repo.git.refs_fingerprint(layout.LEDGER_PREFIX).hex()
            expected = {**ledgers, **{u.name: u.new for u in updates}}
            if repo.ledgers() != expected:  # a fetch brought others at this moment
                return
            repo.index_states(states.values())
            index.meta_set("ledgers", expected)
            index.meta_set("fingerprint", after)
            live = index.meta_get("live") or {}
            index.meta_set("live", {run_id: stamp for run_id, stamp in live.items() if run_id not in states})
            for run_id in states:
                index.meta_set(f"live:{run_id}", None)
    except GittrackError as error:
        _log.info("gittrack: the index could not be brought up to date: %s", error)
