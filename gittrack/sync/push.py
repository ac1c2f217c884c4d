"""Push: what a remote lacks of this clone's ledgers, documents and tags; artifacts first.

Every ref is pushed from exactly where it was seen, all refs of a chunk or none; to remotes that cannot do that, in an
order in which what has come does no harm without the rest.  If something is in the way (a version number that was
taken, a ledger that somebody else has brought further), it is pulled, this clone gives way, and the push is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gittrack.errors import ConflictError, CorruptError, GittrackError, NotFoundError, StorageError
from gittrack.registry.names import parse_tag
from gittrack.store import layout, seal
from gittrack.store.refs import RefUpdate
from gittrack.sync import order, publish as publishing, transport as transports
from gittrack.sync.publish import Published
from gittrack.sync.pull import Fetched, ask, bring, lock
from gittrack.sync.remotes import is_shared
from gittrack.sync.select import EVERYTHING, Selection, is_meant, some_of
from gittrack.sync.transport import MAX_PUSH, Move, Progress, Transport, chunks, silent
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from gittrack.registry.registry import Registry
    from gittrack.store.repo import Repo
    from gittrack.sync.remotes import Remote

#: How often a push gives way to others before it gives up.
ROUNDS: Final = 8
_WITHOUT: Final = "`gittrack push --no-artifacts` pushes the rest without the files"
#: Bytes of one push: hosts refuse 2 GiB.
MAX_BYTES: Final = 1 << 30


@dataclass
class PushReport:
    """What a push has done, or would do.

    Attributes:
        remote: The remote's name.
        dry_run: Nothing was pushed.
        runs: Runs that the remote did not have.
        revised: Runs of which it has got a later revision.
        ledgers: Refs of ledgers that moved.
        documents: Writers whose registry documents moved.
        tags: Registry tags that it has got, below ``refs/tags/``.
        files: Files of runs that the remote did not have.
        size: Their bytes.
        absent: Files of them that neither this clone nor the remote has.
        code: Commits of code that came along, because the remote did not have them.
        folded: Refs of ledgers that were removed there, because another one has all they had.
        skipped: Refs that were not pushed, and why.
        pulled: What had to be taken over from the remote first, in the order in which that was done.
        refused: Refs of the remote's that do not count, and why.
        atomic: False if the remote could not move several refs at once or none, and got them one kind after the other.
    """

    remote: str
    dry_run: bool = False
    runs: int = 0
    revised: int = 0
    ledgers: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0
    absent: int = 0
    code: int = 0
    folded: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    pulled: list[Published] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    atomic: bool = True


def push(
    registry: Registry,
    remote: Remote,
    *,
    select: Selection = EVERYTHING,
    dry_run: bool = False,
    files: bool = True,
    progress: Progress = silent,
    sending: Callable[[int, int | None], None] | None = None,
    interactive: bool = False,
) -> PushReport:
    """Push runs and models, the files of runs first.

    Args:
        registry: Runs and models of the clone.
        remote: Where to.
        select: Only these.
        dry_run: Only say what would be pushed.
        files: Send the files of runs that the remote does not have.
        progress: Told what is done.
        sending: Told about the bytes of files.
        interactive: git may ask for a password on the terminal.

    Raises:
        NetworkError: The remote cannot be reached, or the connection broke; the same call goes on.
        PushRefusedError: The remote does not take it; says what was pushed.
        ConflictError: Others push the same all the time.
    """
    repo = registry.repo
    repo.require_writable()
    seal.seal(repo)
    report = PushReport(remote.name, dry_run)
    tally = _Tally(report)
    with lock(repo), repo.git.reading():
        repo.git.heal_locks()
        transport = Transport(repo, remote, progress=progress, interactive=interactive)
        for _ in range(ROUNDS):
            found = ask(repo, transport, select, pushing=True)
            plan = Plan(repo, remote, found.shared, select, report.refused, given_way=bool(report.pulled))
            plan.look()
            report.skipped = plan.skipped
            if plan.unknown and not dry_run:
                _give_way(registry, transport, found, report)
                continue
            if files and (plan.ledgers or plan.others):
                from gittrack.sync import artifacts  # a third of what it takes to find out that there is nothing to do

                try:
                    sent = artifacts.send(registry.tracker, remote.name, plan.commits(), progress=sending,
                                          dry_run=dry_run, interactive=interactive)  # fmt: skip
                except GittrackError as error:
                    left = "nothing would be pushed" if dry_run else tally.left(len(plan.ledgers) + len(plan.others))
                    error.leaving(left, hint=_WITHOUT)
                    raise
                report.files, report.size = report.files + sent.moved.count, report.size + sent.moved.bytes
                report.absent = sent.absent
            if dry_run:
                tally.add(plan, (ref for ref, _ in plan.ordered()))
                return report
            if _send(repo, transport, plan, found, tally):
                unpin(repo)
                return report
            _give_way(registry, transport, ask(repo, transport, select, pushing=True), report)
    raise ConflictError(f"others push to `{remote.name}` all the time; not everything was pushed", hint="try again")


def _give_way(registry: Registry, transport: Transport, found: Fetched, report: PushReport) -> None:
    """Take over what the remote has, so that what is pushed can stand behind it."""
    bring(registry, transport, found)
    report.refused |= found.refused
    report.pulled.append(publishing.publish(registry, transport.remote))


class Plan:
    """What is to be moved on the remote.

    Args:
        repo: The clone.
        remote: The remote.
        shared: What it has of gittrack's refs, by the names that they have here.
        select: Only these runs and models.
        bad: Refs of the remote's that do not count.
        given_way: What the remote has has been taken over already.

    Attributes:
        ledgers, others: Moves of ledgers; of documents and tags.
        unknown: Refs of which the remote has something that this clone has not seen.
        skipped: Refs that stay as they are there, and why.
        runs, revised: Runs that are new, or newer, to the remote, by the ledger that lists them.
        fresh: Run commits that are new to it.
        earlier: Of the runs of which it has an earlier revision, those.
        batch: Ledger commits with less than everything, made for this.
    """

    def __init__(
        self,
        repo: Repo,
        remote: Remote,
        shared: Mapping[str, ObjectId],
        select: Selection,
        bad: Mapping[str, str],
        *,
        given_way: bool = False,
    ) -> None:
        self._given_way = given_way
        self._repo = repo
        self._bad = bad
        self._remote = remote
        self._shared = shared
        self._select = select
        self.ledgers: dict[str, Move] = {}
        self.others: dict[str, Move] = {}
        self.unknown: list[str] = []
        self.skipped: dict[str, str] = {}
        self.runs: dict[str, set[str]] = {}
        self.revised: dict[str, set[str]] = {}
        self.fresh: set[ObjectId] = set()
        self.earlier: set[ObjectId] = set()
        self.batch = repo.git.batch()

    def look(self) -> None:
        """Compare what is here with what the remote has."""
        repo = self._repo
        known = repo.ledger_refs()
        mine = {ref: oid for ref, oid in known.items() if self._select.ref(ref) and self._shared.get(ref) != oid}
        there_only = any(layout.parse_ledger_ref(ref) and ref not in known for ref in self._shared)
        gone = publishing.folded(repo, repo.ledgers()) if mine else {}
        stones = repo.tombstones() if mine else frozenset()
        for ref, oid in mine.items():
            there = self._shared.get(ref)
            if ref in gone or not self._ledger(ref, oid, there, stones):
                continue
            target: ObjectId | None = oid
            if self._select.picks:
                target, _ = some_of(repo, self.batch, self._select, there, oid)
            if target is not None and target != there:
                self.ledgers[ref] = Move(self._remote.there(ref), there, target)
                self._count(ref, there, oid)
        if mine or there_only:
            self._folded()
        for ref, oid in repo.git.refs(layout.DOCUMENT_PREFIX).items():
            there = self._shared.get(ref)
            if there != oid and self._select.ref(ref) and self._known(ref, oid, there):
                self.others[ref] = Move(self._remote.there(ref), there, oid)
        seen = self._remote.seen_refs(repo)
        for ref, oid in repo.git.refs(layout.TAG_PREFIX).items():
            if not is_shared(ref):
                continue
            there = self._shared.get(ref)
            if there == oid or not self._select.ref(ref):
                continue
            if there is None:
                self.others[ref] = Move(ref, None, oid)
            elif ref in self._bad or (self._given_way and seen.get(ref) == there):
                self.skipped[ref] = "another tag has that name there; `gittrack models resolve` settles it"
            else:
                self.unknown.append(ref)

    def ordered(self) -> list[tuple[str, Move]]:
        """All moves, those first without which others are of no use."""
        return sorted([*self.ledgers.items(), *self.others.items()], key=_rank)

    def _ledger(self, ref: str, mine: ObjectId, there: ObjectId | None, stones: frozenset[str]) -> bool:
        """True if a ledger is to be pushed."""
        if not self._known(ref, mine, there):
            return False
        own = ref.endswith(f"/{self._repo.writer}")
        if not own and stones and any(layout.tombstone(run) in stones for run, _ in self._repo.git.ledger_read(mine)):
            self.skipped[ref] = (
                "it lists runs that were purged; its owner has to push it, or `gittrack gc --fold` takes it in"
            )
            return False
        return True

    def _known(self, ref: str, mine: ObjectId, there: ObjectId | None) -> bool:
        """True if what is here is more than what is there; notes the ref if that cannot be told."""
        if there is None:
            return True
        if ref in self._bad:
            self.skipped[ref] = "what the remote has there cannot be right"
            return False
        own = ref.endswith(f"/{self._repo.writer}")
        if not self._repo.git.exists(there):
            if own:
                self.unknown.append(ref)
            return False  # what others have added to their own ledgers is for pulling
        try:
            how = order.compare(self._repo, ref, mine, there)
        except (CorruptError, NotFoundError) as error:
            self.skipped[ref] = f"what the remote has there cannot be read: {error.message}"
            return False
        if how == order.AHEAD or (how == order.SAME and own):
            return True
        if own:
            self.unknown.append(ref)
        elif how == order.APART:
            self.skipped[ref] = "it was rewritten there without what this clone has of it"
        return False

    def _count(self, ref: str, there: ObjectId | None, mine: ObjectId) -> None:
        known = there if there is not None and self._repo.git.exists(there) else None
        for run_id, old, new in self._repo.git.ledger_diff(known, mine):
            if new is not None and is_meant(self._repo, self._select, run_id, new):
                (self.runs if old is None else self.revised).setdefault(ref, set()).add(run_id)
                self.fresh.add(new)
                if old is not None:
                    self.earlier.add(old)

    def commits(self) -> set[ObjectId]:
        """Run commits that are new to the remote: those of ledgers, and those that its new tags are about."""
        git = self._repo.git
        tags = [move.new for ref, move in self.others.items() if ref.startswith(layout.TAG_PREFIX)]
        targets = {git.read_tag(oid).target for oid in tags if oid is not None}
        return self.fresh | {oid for oid in targets if self._repo.is_run_commit(oid)}

    def _folded(self) -> None:
        """Ledgers on the remote that another ledger, which is or will be there, has taken in."""
        repo = self._repo
        there = {ref: oid for ref, oid in self._shared.items() if layout.parse_ledger_ref(ref) and repo.git.exists(oid)}
        will_be = {**there, **{ref: move.new for ref, move in self.ledgers.items() if move.new is not None}}
        for ref in publishing.folded(repo, {ref: oid for ref, oid in will_be.items() if oid not in self.batch}):
            if ref in there:
                self.ledgers[ref] = Move(self._remote.there(ref), there[ref], None)
            else:
                self.ledgers.pop(ref, None)


class _Tally:
    """What has been pushed, as it goes.

    Args:
        report: Gets it.
    """

    def __init__(self, report: PushReport) -> None:
        self.report = report
        self._runs: set[str] = set()
        self._revised: set[str] = set()

    def add(self, plan: Plan, refs: Iterable[str]) -> None:
        """These refs of the plan's have been moved."""
        report = self.report
        for ref in refs:
            if ref in plan.ledgers:
                (report.folded if plan.ledgers[ref].new is None else report.ledgers).append(ref)
                self._runs |= plan.runs.get(ref, set())
                self._revised |= plan.revised.get(ref, set())
            elif ref.startswith(layout.DOCUMENT_PREFIX):
                report.documents.append(ref.rpartition("/")[2])
            else:
                report.tags.append(ref[len("refs/tags/") :])
        report.runs, report.revised = len(self._runs), len(self._revised - self._runs)

    def left(self, coming: int) -> str:
        """What to say about it if ``coming`` refs more are not pushed."""
        report = self.report
        done = sum(map(len, (report.ledgers, report.folded, report.documents, report.tags)))
        parts = [f"{report.files} file{'s'[: report.files != 1]} of runs"] if report.files else []
        parts += [f"{done} of {done + coming} refs"] if done or parts else []
        return f"{' and '.join(parts)} were pushed" if parts else "nothing was pushed"


def _send(repo: Repo, transport: Transport, plan: Plan, found: Fetched, tally: _Tally) -> bool:
    """Push what the plan says; False if something was in the way and has to be pulled first."""
    report = tally.report
    report.code = max(report.code, code_commits(repo, plan, found.refs))
    if len(plan.batch):  # kept alive by what was seen on the remote, once it is there
        pin(repo, plan)
    ordered = plan.ordered()
    names = {move.ref: ref for ref, move in ordered}

    def took(moves: Sequence[Move]) -> None:
        taken = {names.pop(move.ref): move for move in moves}
        tally.add(plan, taken)
        try:
            _seen(repo, transport.remote, taken.items())
        except StorageError as error:
            error.leaving(tally.left(len(names)), hint="the same command goes on from there")
            raise

    for chunk in _chunks(repo, ordered):
        groups = [[move for _, move in group] for _, group in groupby(chunk, key=_rank)]
        refusals = transport.push(groups, took, lambda: tally.left(len(names)))
        report.atomic = transport.atomic or len(ordered) == 1
        if refusals:
            if _was_moved(transport, [move for _, move in chunk if move.ref in names]):
                return False
            raise transports.refused(transport.remote.name, refusals, tally.left(len(names)))
    return True


def _rank(item: tuple[str, Move]) -> int:
    """When a ref is pushed: nothing does harm, or is of no use, without what is pushed after it.

    What a folded ledger had is there in another one before it goes; an event comes after the version it is about.
    """
    ref, move = item
    if ref.startswith(layout.TAG_PREFIX):
        return 3 if parse_tag(ref.removeprefix("refs/tags/")).slot == "v" else 4
    if layout.parse_ledger_ref(ref) is None:
        return 0
    return 1 if move.new is not None else 2


def pin(repo: Repo, plan: Plan) -> None:
    """Put ledger commits that were made for this on disk, where the next push forgets them."""
    moves = []
    for ref, move in plan.ledgers.items():
        if move.new is not None and move.new in plan.batch:
            name = f"{layout.INCOMING_PREFIX}outgoing/{ref.removeprefix('refs/')}"
            moves.append(RefUpdate(name, repo.git.ref(name), move.new))
    repo.git.publish(plan.batch, moves)


def unpin(repo: Repo) -> None:
    """Forget them: the remote keeps them alive now, as what was seen there."""
    pins = repo.git.refs(f"{layout.INCOMING_PREFIX}outgoing/")
    repo.git.publish(repo.git.batch(), [RefUpdate(ref, oid, None) for ref, oid in pins.items()])


def _was_moved(transport: Transport, moves: Iterable[Move]) -> bool:
    """True if somebody else has moved one of these refs since they were looked at."""
    now = transport.refs(pushing=True)
    return any(now.get(move.ref) != move.old for move in moves)


def _seen(repo: Repo, remote: Remote, chunk: Iterable[tuple[str, Move]]) -> None:
    """What was pushed is what is there."""
    moves = []
    for ref, move in chunk:
        name = remote.seen(ref)
        moves.append(RefUpdate(name, repo.git.ref(name), move.new))
    repo.git.publish(repo.git.batch(), [one for one in moves if one.old != one.new])


def _chunks(repo: Repo, moves: list[tuple[str, Move]]) -> Iterator[list[tuple[str, Move]]]:
    """The moves in pushes that hosts accept: few refs, and not too much at once."""
    if _stored(repo) < MAX_BYTES:
        yield from chunks(moves, MAX_PUSH)
        return
    chunk: list[tuple[str, Move]] = []
    room = MAX_BYTES
    for ref, move in moves:
        size = _size(repo, move)
        if chunk and (len(chunk) == MAX_PUSH or size > room):
            yield chunk
            chunk, room = [], MAX_BYTES
        chunk.append((ref, move))
        room -= size
    if chunk:
        yield chunk


def _stored(repo: Repo) -> int:
    """Bytes of all packs: an upper bound for any push, but for loose objects."""
    folder = repo.paths.common_dir / "objects" / "pack"
    return sum(Path(entry).stat().st_size for entry in folder.glob("*.pack")) if folder.is_dir() else 0


def _size(repo: Repo, move: Move) -> int:
    """About how many bytes a move takes."""
    if move.new is None:
        return 0
    spec = f"{move.new}\n" + (f"^{move.old}\n" if move.old is not None else "")
    said = repo.git.program.run("rev-list", "--objects", "--disk-usage", "--stdin", input=spec.encode())
    return int(said.strip() or 0)


def code_commits(repo: Repo, plan: Plan, there: Mapping[str, ObjectId]) -> int:
    """How many commits of code come along with the runs: those that none of the refs has that are ``there``."""
    if not plan.fresh:
        return 0
    spec = "".join(f"{oid}\n" for oid in plan.fresh)
    said = repo.git.program.run("rev-list", "--no-walk=unsorted", "--parents", "--stdin", input=spec.encode())
    parents = {ObjectId(parent) for line in said.decode().splitlines() for parent in line.split()[1:]}
    code = {oid for oid in parents if not repo.is_run_commit(oid)}
    known = {oid for oid in there.values() if repo.git.exists(oid)}
    if not code - known:
        return 0
    spec = "".join(f"{oid}\n" for oid in code) + "".join(f"^{oid}\n" for oid in known)
    return int(repo.git.program.run("rev-list", "--count", "--stdin", input=spec.encode()).strip())
