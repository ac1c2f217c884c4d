"""Looking after the store: fsck proves that what is promised is there, gc drops what nothing refers to, purge forgets.

Deleting goes in the reverse order of writing (design section 5): the reference first, the bytes last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gittrack.errors import CorruptError, FormatError, GittrackError, NotFoundError, StateError
from gittrack.store import codec, files, journal, layout
from gittrack.store.experiments import ExperimentState
from gittrack.store.git import RefUpdate
from gittrack.store.record import RunState
from gittrack.store.seal import merged, owner_alive, seal
from gittrack.types import Digest, ViewType

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.types import ObjectId

#: Called with (done, total); total is None while it is not known.
Progress = Callable[[int, "int | None"], None]

#: Artifacts younger than this are kept by gc: a run that is being recorded may be about to name them.
GRACE_SECONDS: Final = 14 * 24 * 3600


@dataclass(frozen=True)
class Problem:
    """Something fsck found.

    Attributes:
        kind: ``git``, ``ledger``, ``run``, ``artifact``, ``journal``, ``index`` or ``registry``.
        subject: What it is about: a ref, a run id, a digest, a path.
        message: What is wrong.
        hint: What to do about it.
    """

    kind: str
    subject: str
    message: str
    hint: str | None = None


@dataclass
class GcReport:
    """What gc removed, or would remove.

    Attributes:
        objects: Digests of artifacts.
        size: Their bytes together.
        temporaries: Left-over temporary files.
        kept_young: Unreferenced artifacts that are too young.
    """

    objects: list[Digest] = field(default_factory=list)
    size: int = 0
    temporaries: int = 0
    kept_young: int = 0


def _silent(_done: int, _total: int | None) -> None:
    """No progress wanted."""


def fsck(repo: Repo, *, full: bool = False, progress: Progress | None = None) -> list[Problem]:
    """Check everything that can be checked; commit first what dead processes left behind.

    Args:
        repo: The store.
        full: Also hash every artifact, and compare the index with a rebuild.
        progress: Told about runs done.
    """
    progress = progress or _silent
    problems = [Problem("git", "repository", text, "`git fsck` tells more") for text in repo.git.fsck()]
    if repo.exists and not repo.read_only:
        try:
            seal(repo)
        except GittrackError as error:
            problems.append(
                Problem("journal", "live", f"finished runs cannot be committed: {error.message}", error.hint)
            )
    broken = sorted(repo.ledger_refs().keys() - repo.ledgers().keys())
    hint = "fetch it from a remote or another clone"
    problems += [Problem("ledger", ref, "the commit it names is missing", hint) for ref in broken]
    digests: dict[Digest, tuple[int, str]] = {}
    seen = 0
    stones = repo.tombstones()
    for ref, ledger in sorted(repo.ledgers().items()):
        try:
            entries = list(repo.git.ledger_read(ledger))
        except GittrackError as error:
            problems.append(Problem("ledger", ref, error.message))
            continue
        try:
            parsed, data = layout.parse_ledger_ref(ref), repo.git.ledger_blob(ledger, layout.EXPERIMENT_FILE)
            if parsed is not None and data is not None:
                ExperimentState.decode(parsed[0], data)
            repo.tombstones({ref: ledger}, strict=True)
        except GittrackError as error:
            problems.append(Problem("ledger", ref, error.message))
        for run_id, commit in entries:
            if stones and layout.tombstone(run_id) in stones:
                continue
            problems += _check_run(repo, run_id, commit, digests)
            seen += 1
            progress(seen, None)
    for run_id in journal.list_journals(repo.live):
        try:
            for artifact in repo.state(run_id).artifacts.values():
                if artifact is not None:
                    digests[artifact.digest] = (artifact.size, run_id)
        except GittrackError as error:
            problems.append(Problem("journal", run_id, error.message))
    lost = repo.root / "lost"
    if lost.is_dir():
        problems += [
            Problem("journal", entry.name, f"its damaged journal was moved to `{entry}`")
            for entry in sorted(lost.iterdir())
        ]
    problems += _check_artifacts(repo, digests, full=full, progress=progress)
    if full:
        problems += _check_index(repo)
    return problems


def _check_run(repo: Repo, run_id: str, commit: ObjectId, digests: dict[Digest, tuple[int, str]]) -> list[Problem]:
    try:
        state = repo.stored_state(run_id, [commit])
        if state is None:
            raise CorruptError("it has no record")
        stored = repo.git.lookup(repo.git.read_commit(commit).tree, f"{layout.FOLDER}/{layout.METRICS}")
        names = {name for name, _, _ in repo.git.list_tree(stored[1])} if stored else set()
        if missing := [name for name in state.segments if name not in names]:
            raise CorruptError(f"metric segments {', '.join(missing)} are missing")
        for artifact in repo.artifacts_of(commit).values():
            digests[artifact.digest] = (artifact.size, run_id)
    except GittrackError as error:
        return [Problem("run", run_id, error.message, error.hint)]
    return []


def _check_artifacts(
    repo: Repo, digests: dict[Digest, tuple[int, str]], *, full: bool, progress: Progress
) -> list[Problem]:
    problems = []
    elsewhere = kept_elsewhere(repo)
    for done, (digest, (size, run_id)) in enumerate(sorted(digests.items()), 1):
        try:
            if not repo.objects.has(digest, size):
                if run_id in elsewhere and not repo.objects.has(digest):
                    continue
                raise NotFoundError("its bytes are not in this clone")
            if full:
                repo.objects.verify(digest)
        except (NotFoundError, CorruptError) as error:
            problems.append(
                Problem("artifact", digest, f"artifact of run `{run_id}`: {error.message}", "fetch it from a remote")
            )
        progress(done, len(digests))
    return problems


def kept_elsewhere(repo: Repo) -> set[str]:
    """The runs that a remote was last seen to have: their artifacts went there first, and come when they are read."""
    found: set[str] = set()
    for ref, ledger in repo.git.refs(layout.REMOTE_PREFIX).items():
        if "/runs/" in ref:
            with suppress(CorruptError, NotFoundError):  # a remote's trouble is none of this clone's
                found.update([run_id for run_id, _ in repo.git.ledger_read(ledger)])
    return found


def _check_index(repo: Repo) -> list[Problem]:
    """Compare what the index answers with what the runs say themselves."""
    repo.refresh()
    ids = {run_id for run_id in repo.all_run_ids() if _is_readable(repo, run_id)}  # the others have been reported
    indexed = {run.info.run_id: run for run in repo.index.get_runs(sorted(ids))}
    wrong = dict.fromkeys(ids - set(indexed), "is not in the index")
    # Compared as text, since NaN equals nothing.
    wrong |= {i: "is something else in the index" for i in indexed if repr(repo.run(i)) != repr(indexed[i])}
    if more := repo.index.count_runs(view=ViewType.ALL) - len(indexed):
        wrong["index.db"] = f"has {more} run(s) that do not exist"
    return [Problem("index", subject, why, "run `gittrack reindex`") for subject, why in sorted(wrong.items())]


def _is_readable(repo: Repo, run_id: str) -> bool:
    try:
        repo.state(run_id)
    except (CorruptError, NotFoundError):
        return False
    return True


def referenced(repo: Repo) -> set[Digest]:
    """The digests that some revision of some run, deleted ones included, some tag or some journal refers to."""
    ledgers = repo.ledgers()
    stones = repo.tombstones(ledgers)
    todo = [
        commit
        for ledger in set(ledgers.values())
        for run_id, commit in repo.git.ledger_read(ledger)
        if not stones or layout.tombstone(run_id) not in stones
    ]
    todo += [commit for _, commit in _tagged(repo, layout.TAG_PREFIX, layout.REMOTE_PREFIX)]
    found = {artifact.digest for oid in _history(repo, todo) for artifact in repo.artifacts_of(oid).values()}
    for folder in (repo.live, repo.root / "lost"):
        for run_id, paths in journal.list_journals(folder).items():
            state = RunState(run_id)
            for path in paths:
                for payload in journal.read_journal(path)[0]:
                    try:
                        state.apply(codec.unpack(payload))
                    except FormatError:  # a damaged journal in `lost`: what can be read of it still counts
                        continue
                    found.update(a.digest for a in state.artifacts.values() if a is not None)
    return found


def _history(repo: Repo, commits: Iterable[ObjectId]) -> Iterator[ObjectId]:
    """The run commits among these and before them, each once."""
    done: set[ObjectId] = set()
    todo = list(commits)
    while todo:
        oid = todo.pop()
        if oid not in done and repo.is_run_commit(oid):
            done.add(oid)
            yield oid
            todo.extend(repo.git.read_commit(oid).parents)


def _tagged(repo: Repo, *prefixes: str) -> Iterator[tuple[str, ObjectId]]:
    """(Ref, commit) of the annotated tags below these prefixes."""
    for ref, oid in [item for prefix in prefixes for item in repo.git.refs(prefix).items()]:
        try:
            info = repo.git.read_tag(oid)
        except (CorruptError, NotFoundError):  # no annotated tag, such as a ledger; fsck tells what is damaged
            continue
        if info.target_type == "commit" and repo.git.exists(info.target):
            yield ref, info.target


def _tags_at(repo: Repo, revisions: Iterable[ObjectId]) -> list[str]:
    """The tags that point at one of the revisions, below ``refs/tags/``."""
    known = set(revisions)
    return [ref.removeprefix("refs/tags/") for ref, commit in _tagged(repo, layout.TAG_PREFIX) if commit in known]


def gc(
    repo: Repo, *, dry_run: bool = False, grace_s: float = GRACE_SECONDS, progress: Progress | None = None
) -> GcReport:
    """Drop artifacts that no run refers to and what crashes left behind.

    Args:
        repo: The store.
        dry_run: Only say what would go.
        grace_s: Keep artifacts younger than this many seconds.
        progress: Told about objects done.

    Raises:
        ReadOnlyError: The store cannot be written.
        LockedError: Another process is at it.
    """
    repo.require_writable()
    progress = progress or _silent
    seal(repo)
    report = GcReport()
    with repo.seal_lock():
        keep = referenced(repo)
        horizon = time.time() - grace_s
        for done, (digest, size) in enumerate(list(repo.objects.iter_digests()), 1):
            progress(done, None)
            if digest in keep:
                continue
            if repo.objects.path(digest).stat().st_mtime > horizon:
                report.kept_young += 1
                continue
            report.objects.append(digest)
            report.size += size if dry_run else repo.objects.delete(digest)
        if not dry_run:
            report.temporaries = repo.objects.sweep_tmp(min(grace_s, 24 * 3600))
    return report


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
    if any(owner_alive(path) for path in repo.journals(run_id)):
        raise StateError(f"run `{run_id}` goes on", hint="end it first")
    revisions = list(_history(repo, repo.revisions(run_id)))
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
        freed = _forget(repo, [run_id], own, began)
    repo.refresh()
    return freed


def drop_purged(repo: Repo) -> list[str]:
    """Take what other clones have purged out of this clone's own ledgers, with its artifacts; the ids of those runs.

    Raises:
        ReadOnlyError, StorageError, LockedError: Not everything was dropped; the next call goes on.
    """
    dropped: set[str] = set()
    began = time.time()
    with repo.seal_lock():
        stones = repo.tombstones()
        own: set[Digest] = set()
        for ref, ledger in repo.ledgers().items() if stones else ():
            parsed = layout.parse_ledger_ref(ref)
            if parsed is None or parsed[1] != repo.writer:
                continue
            gone = {run: oid for run, oid in repo.git.ledger_read(ledger) if layout.tombstone(run) in stones}
            for oid in _history(repo, gone.values()):
                with suppress(CorruptError, NotFoundError):
                    own.update(artifact.digest for artifact in repo.artifacts_of(oid).values())
            if gone:
                _rewrite_ledger(repo, ref, ledger, gone)
                dropped.update(gone)
        if dropped:
            _forget(repo, dropped, own, began)
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
        older_than_s: Take a writer whose last ledger commit is older than this many seconds.
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


def _forget(repo: Repo, run_ids: Iterable[str], own: set[Digest], began: float) -> int:
    """Remove the journals of runs, and of the artifacts that were theirs what nothing else refers to; bytes freed."""
    for path in [path for run_id in run_ids for path in repo.journals(run_id)]:
        files.remove(path)
    if notes := repo.git.ref(layout.NOTES_REF):  # they and their history name the runs; the hooks write them again
        repo.git.publish(repo.git.batch(), [RefUpdate(layout.NOTES_REF, notes, None)])
    freed = 0
    # Only its own: other processes may have stored objects that they are about to name, equal ones too.
    for digest in own - referenced(repo):
        with suppress(FileNotFoundError):
            if repo.objects.path(digest).stat().st_mtime < began:
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
