"""Looking after the store: fsck proves that what is promised is there, gc drops what nothing refers to.

Deleting goes in the reverse order of writing (design section 5): the reference first, the bytes last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gittrack.errors import CorruptError, FormatError, GittrackError, NotFoundError
from gittrack.store import codec, journal, layout
from gittrack.store.experiments import ExperimentState
from gittrack.store.record import RunState
from gittrack.store.repo import JournalFile
from gittrack.store.seal import seal
from gittrack.types import Digest

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
    for run_id in repo.live_runs():
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
        stored = repo.git.lookup(repo.git.tree_of(commit), f"{layout.FOLDER}/{layout.METRICS}")
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
    if more := repo.index.count_runs(view=None) - len(indexed):
        wrong["index.db"] = f"has {more} run(s) that do not exist"
    return [Problem("index", subject, why, "run `gittrack reindex`") for subject, why in sorted(wrong.items())]


def _is_readable(repo: Repo, run_id: str) -> bool:
    try:
        repo.state(run_id)
    except (CorruptError, NotFoundError):
        return False
    return True


def referenced(repo: Repo, ledgers: Mapping[str, ObjectId] | None = None) -> set[Digest]:
    """The digests that some revision of some run, deleted ones included, some tag or some journal refers to.

    Args:
        repo: The store.
        ledgers: What the ledgers are, or are about to be, if not what they are.
    """
    if ledgers is None:
        ledgers = repo.ledgers()
    stones = repo.tombstones(ledgers)
    todo = [
        commit
        for ledger in set(ledgers.values())
        for run_id, commit in repo.git.ledger_read(ledger)
        if not stones or layout.tombstone(run_id) not in stones
    ]
    todo += [commit for _, commit in tagged(repo, layout.TAG_PREFIX, layout.REMOTE_PREFIX)]
    found = {artifact.digest for oid in history(repo, todo) for artifact in repo.artifacts_of(oid).values()}
    lost = {run_id: [*map(JournalFile, paths)] for run_id, paths in journal.list_journals(repo.root / "lost").items()}
    for journals_of in (repo.live_runs(), lost):
        for run_id, journals in journals_of.items():
            state = RunState(run_id)
            for one in journals:
                for _, payload in one.frames():
                    try:
                        state.apply(codec.unpack(payload))
                    except FormatError:  # a damaged journal in `lost`: what can be read of it still counts
                        continue
                    found.update(a.digest for a in state.artifacts.values() if a is not None)
    return found


def history(repo: Repo, commits: Iterable[ObjectId]) -> Iterator[ObjectId]:
    """The run commits among these and before them, each once."""
    done: set[ObjectId] = set()
    todo = list(commits)
    while todo:
        oid = todo.pop()
        if oid not in done and repo.is_run_commit(oid):
            done.add(oid)
            yield oid
            todo.extend(repo.git.read_commit(oid).parents)


def tagged(repo: Repo, *prefixes: str) -> Iterator[tuple[str, ObjectId]]:
    """(Ref, commit) of the annotated tags below these prefixes."""
    for ref, oid in [item for prefix in prefixes for item in repo.git.refs(prefix).items()]:
        try:
            info = repo.git.read_tag(oid)
        except (CorruptError, NotFoundError):  # no annotated tag, such as a ledger; fsck tells what is damaged
            continue
        if info.target_type == "commit" and repo.git.exists(info.target):
            yield ref, info.target


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
            if repo.objects.modified(digest) > horizon:
                report.kept_young += 1
                continue
            report.objects.append(digest)
            report.size += size if dry_run else repo.objects.delete(digest)
        if not dry_run:
            report.temporaries = repo.objects.sweep_tmp(min(grace_s, 24 * 3600))
    return report
