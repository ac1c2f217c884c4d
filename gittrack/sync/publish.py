"""Publish: from what was seen on a remote to this clone's own refs, never overwriting what only this clone has.

Ledgers and documents of other writers move forward, tags are created, and nothing else happens to a ref.  Where that is
not enough, this clone gives way in ways that lose nothing: it makes its unpublished tags again under other names, takes
another writer id, drops runs that somebody purged.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gittrack.errors import ConflictError, CorruptError, GitError, NotFoundError, PolicyError
from gittrack.registry import names
from gittrack.store import codec, layout, rewrite
from gittrack.store.refs import RefUpdate
from gittrack.store.repo import new_writer
from gittrack.sync import order
from gittrack.sync.select import EVERYTHING, Selection, some_of
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from gittrack.registry.rebase import Renamed
    from gittrack.registry.registry import Registry
    from gittrack.store.pack import Batch
    from gittrack.store.repo import Repo
    from gittrack.sync.remotes import Remote

#: Attempts while other processes move the same refs.
ATTEMPTS: Final = 10


@dataclass
class Published:
    """What was changed here.

    Attributes:
        runs: Ids of runs that are new here.
        revised: Ids of runs that others have amended.
        dropped: Ids of this clone's runs that somebody has purged.
        tags: Registry tags that are new here, below ``refs/tags/``.
        documents: Writers whose registry documents are new or newer.
        renamed: Tags of this clone that had to give way to others of the same name.
        conflicts: What stands against each other and was left as it is, a line each.
        writer: This clone's new writer id, if another clone had the one it had.
        unfolded: Refs of ledgers that are part of another one now and went away here.
    """

    runs: set[str] = field(default_factory=set)
    revised: set[str] = field(default_factory=set)
    dropped: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    renamed: list[Renamed] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    writer: str | None = None
    unfolded: list[str] = field(default_factory=list)


def publish(registry: Registry, remote: Remote, select: Selection = EVERYTHING, *, partial: bool = False) -> Published:
    """Take over what was seen on a remote.

    Args:
        registry: Runs and models of the clone.
        remote: What was seen on it and looked at counts.
        select: Only these runs and models.
        partial: Whoever sent it says that its ledgers list only some of their runs: what a ledger lacks was not
            taken out of it.

    Raises:
        ConflictError: Other processes move the same refs all the time.
        ReadOnlyError, StorageError, LockedError: What was done until then stays; the next call goes on.
    """
    repo = registry.repo
    done = Published()
    seen = {ref: oid for ref, oid in remote.seen_refs(repo).items() if select.ref(ref)}
    tags = {ref: oid for ref, oid in seen.items() if ref.startswith(layout.TAG_PREFIX)}
    others = {ref: oid for ref, oid in seen.items() if ref not in tags}
    here = {**repo.git.refs(layout.LEDGER_PREFIX), **repo.git.refs(layout.DOCUMENT_PREFIX)}
    here |= repo.git.refs(layout.TAG_PREFIX)
    if all(here.get(ref) == oid for ref, oid in seen.items()):
        return done  # as after any pull that was not cut off
    _own(repo, others, done)
    _follow(repo, _Follow(repo, others, select, done, partial=partial))
    taken = _create_tags(registry, tags, done)
    for key, names_taken in taken.items():
        _give_way(registry, remote, key, names_taken, done)
    if stones := repo.tombstones():
        done.runs -= {run for run in done.runs if layout.tombstone(run) in stones}
    if done.tags or done.renamed:
        _tell_conflicts(registry, done)
    return done


def _retried(repo: Repo, plan: _Plan) -> None:
    """Move what ``plan`` says; look again if somebody else has moved it meanwhile."""
    for _ in range(ATTEMPTS):
        updates = plan.updates()
        plan.before(updates)
        if not updates:
            return
        try:
            repo.git.publish(plan.batch or repo.git.batch(), updates)
        except ConflictError:
            if all(repo.git.ref(update.name) == update.old for update in updates):
                raise
            continue
        plan.done(updates)
        return
    raise ConflictError("others move the same refs all the time", hint="try again")


class _Plan(ABC):
    """What one step wants to move, looked at anew for every attempt.

    Attributes:
        batch: New objects that the moves need.
    """

    batch: Batch | None = None

    @abstractmethod
    def updates(self) -> list[RefUpdate]:
        """The moves that are due as things are now."""

    def before(self, updates: list[RefUpdate]) -> None:
        """Do what has to be done before the updates are made; nothing, for most."""
        del updates

    @abstractmethod
    def done(self, updates: list[RefUpdate]) -> None:
        """The updates have been made."""


# -- ledgers and documents ---------------------------------------------------------------------------------------------


def _writer_of(ref: str) -> str:
    return ref.rpartition("/")[2]


def _own(repo: Repo, seen: Mapping[str, ObjectId], done: Published) -> None:
    """Refs that this clone's writer alone moves: forward; if another clone has the same writer id, take another one."""
    mine = {ref: oid for ref, oid in seen.items() if _writer_of(ref) == repo.writer}
    if not mine:
        return
    with repo.seal_lock():
        here = {ref: repo.git.ref(ref) for ref in mine}
        stand = {ref: _stand(repo, ref, here[ref], oid) for ref, oid in mine.items()}
        if order.APART in stand.values():
            _part(repo, mine, done)
            return
        updates = [RefUpdate(ref, here[ref], mine[ref]) for ref, how in stand.items() if how == order.BEHIND]
        if updates:
            _tell(repo, updates, done)
            repo.git.publish(repo.git.batch(), updates)


def _part(repo: Repo, theirs: Mapping[str, ObjectId], done: Published) -> None:
    """``.gittrack/writer`` was copied: what this clone has goes on under another id, the old one is the other clone's.

    The id changes last: after a crash in between all is there, and the next pull parts once more.
    """
    refs = {**repo.git.refs(layout.LEDGER_PREFIX), **repo.git.refs(layout.DOCUMENT_PREFIX)}
    mine = {ref: oid for ref, oid in refs.items() if _writer_of(ref) == repo.writer}
    done.writer = new_writer()
    moves = [RefUpdate(f"{ref.rpartition('/')[0]}/{done.writer}", None, oid) for ref, oid in mine.items()]
    back = [RefUpdate(ref, mine.get(ref), theirs.get(ref)) for ref in {**mine, **theirs}]
    _tell(repo, [move for move in back if move.new is not None], done)
    repo.git.publish(repo.git.batch(), [*moves, *(move for move in back if move.old != move.new)])
    repo.become(done.writer)


def _stand(repo: Repo, ref: str, mine: ObjectId | None, theirs: ObjectId) -> str:
    return order.BEHIND if mine is None else order.compare(repo, ref, mine, theirs)


class _Follow(_Plan):
    """Other writers' refs move forward; ledgers that were folded into another one go."""

    def __init__(
        self, repo: Repo, seen: Mapping[str, ObjectId], select: Selection, done: Published, *, partial: bool
    ) -> None:
        self._repo = repo
        self._seen = {ref: oid for ref, oid in seen.items() if _writer_of(ref) != repo.writer}
        self._select = select
        self._done = done
        self._partial = partial
        self._apart: dict[str, str] = {}

    def updates(self) -> list[RefUpdate]:
        repo = self._repo
        moves: dict[str, RefUpdate] = {}
        self._apart.clear()
        self.batch = repo.git.batch()
        for ref, oid in self._seen.items():
            mine = repo.git.ref(ref)
            if mine == oid:
                continue
            try:
                how = _stand(repo, ref, mine, oid)
            except (CorruptError, NotFoundError) as error:
                self._apart[ref] = f"`{ref}` cannot be compared: {error.message}"
                continue
            ledger = layout.parse_ledger_ref(ref) is not None
            if how == order.APART and not (ledger and (self._partial or self._select.picks)):
                self._apart[ref] = (
                    f"`{ref}` was rewritten on the remote without what this clone has of it; kept as it is here"
                )
            elif how != order.AHEAD:
                target: ObjectId | None = oid
                if ledger and (self._select.picks or how == order.APART):  # they are added to what is here
                    target, _ = some_of(repo, self.batch, self._select, mine, oid)
                if target != mine:
                    moves[ref] = RefUpdate(ref, mine, target)
        after = {**repo.ledgers(), **{ref: move.new for ref, move in moves.items() if move.new is not None}}
        # A part of a ledger, made just now, has taken in nothing and is taken in by nobody.
        for ref in folded(repo, {ref: oid for ref, oid in after.items() if oid not in self.batch}):
            known = repo.git.ref(ref)
            if known is None:
                moves.pop(ref, None)
            elif self._apart.pop(ref, None) is None or self._select.picks:
                moves[ref] = RefUpdate(ref, known, None)
            else:  # its writer began anew after it was folded
                moves[ref] = RefUpdate(ref, known, self._seen[ref])
        return list(moves.values())

    def before(self, updates: list[RefUpdate]) -> None:
        """Drop the runs that somebody has purged as far as they are this clone's, before it is heard of here."""
        coming = {update.name: self._seen[update.name] for update in updates if update.new is not None}
        self._done.dropped += rewrite.drop_purged(
            self._repo, {ref: oid for ref, oid in coming.items() if layout.parse_ledger_ref(ref)}
        )

    def done(self, updates: list[RefUpdate]) -> None:
        self._done.unfolded += [update.name for update in updates if update.new is None]
        _tell(self._repo, [update for update in updates if update.new is not None], self._done)

    def finish(self) -> None:
        """Say what was left as it is."""
        self._done.conflicts += self._apart.values()


def _follow(repo: Repo, plan: _Follow) -> None:
    _retried(repo, plan)
    plan.finish()


def folded(repo: Repo, ledgers: Mapping[str, ObjectId]) -> dict[str, ObjectId]:
    """Those of these ledgers that another one of them has taken in with all they have, and where they are.

    A writer that was folded and comes back has more than what was taken in, and stays.  Of writers that have taken in
    each other one stays, the same one for everybody who sees the same ledgers.
    """
    takers: dict[str, list[str]] = {}
    for ref, oid in ledgers.items():
        parsed = layout.parse_ledger_ref(ref)
        if parsed is None:
            continue
        for writer in _folded_into(repo, oid):
            other = layout.ledger_ref(parsed[0], writer)
            if other in ledgers and other != ref and order.within(repo, parsed[0], ledgers[other], oid):
                takers.setdefault(other, []).append(ref)
    found: dict[str, ObjectId] = {}
    for ref in sorted(takers):
        if any(taker not in found for taker in takers[ref]):
            found[ref] = ledgers[ref]
    return found


def _folded_into(repo: Repo, oid: ObjectId) -> Iterable[str]:
    try:
        data = repo.git.ledger_blob(oid, layout.FOLDED)
        return () if data is None else layout.check_folded(codec.unpack(data))
    except (CorruptError, NotFoundError):  # `gittrack fsck` names it
        return ()


def _tell(repo: Repo, updates: Iterable[RefUpdate], done: Published) -> None:
    """Note what these moves bring."""
    for update in updates:
        if update.name.startswith(layout.DOCUMENT_PREFIX):
            done.documents.append(_writer_of(update.name))
            continue
        for run_id, old, new in repo.git.ledger_diff(update.old, update.new):
            if new is not None:
                (done.revised if old is not None else done.runs).add(run_id)


# -- tags --------------------------------------------------------------------------------------------------------------


def _create_tags(registry: Registry, seen: Mapping[str, ObjectId], done: Published) -> dict[str, dict[str, ObjectId]]:
    """Create the tags that are not here; those whose names are another tag here, by model."""
    plan = _Tags(registry.repo, seen, done)
    _retried(registry.repo, plan)
    done.conflicts += plan.twins
    return plan.taken


class _Tags(_Plan):
    def __init__(self, repo: Repo, seen: Mapping[str, ObjectId], done: Published) -> None:
        self._repo = repo
        self._seen = seen
        self._done = done
        self.taken: dict[str, dict[str, ObjectId]] = {}
        self.twins: list[str] = []

    def updates(self) -> list[RefUpdate]:
        own = self._repo.git.refs(layout.TAG_PREFIX)
        keys = {names.folded(key): key for key in map(_key_of, own)}
        self.taken, self.twins = {}, []
        moves = []
        for ref, oid in self._seen.items():
            mine, key = own.get(ref), _key_of(ref)
            twin = keys.setdefault(names.folded(key), key)
            if mine is None and twin != key:
                self.twins.append(f"`{ref}` differs from model `{names.first_name(twin)}` only by upper and lower case")
            elif mine is None:
                moves.append(RefUpdate(ref, None, oid))
            elif mine != oid:
                self.taken.setdefault(key, {})[ref[len("refs/tags/") :]] = oid
        return moves

    def done(self, updates: list[RefUpdate]) -> None:
        self._done.tags += [update.name[len("refs/tags/") :] for update in updates]


def _tell_conflicts(registry: Registry, done: Published) -> None:
    """Note the stages and aliases that nothing can be loaded from until somebody says which version is meant."""
    registry.catalog.refresh()
    for key in sorted({tag.split("/")[1] for tag in [*done.tags, *(one.new for one in done.renamed)]}):
        for about in sorted({about for one in registry.catalog.state(key).conflicts for about in one.about}):
            if not re.fullmatch(r"v[0-9]+", about):
                done.conflicts.append(
                    f"{about} of model `{names.first_name(key)}` was given to two versions; "
                    f"`gittrack models resolve` says which one is meant"
                )


def _key_of(ref: str) -> str:
    return ref[len(layout.TAG_PREFIX) :].partition("/")[0]


def _give_way(registry: Registry, remote: Remote, key: str, taken: Mapping[str, ObjectId], done: Published) -> None:
    """Make this clone's tags again whose names another one has on the remote; say what cannot be."""
    try:
        renamed = registry.rebase(key, taken, f"its number was taken on {remote.name}")
    except (GitError, PolicyError, ConflictError) as error:
        done.conflicts.append(f"model `{names.first_name(key)}`: {error.message}")
        return
    done.renamed += renamed
    for tag in taken.keys() - {one.old for one in renamed}:
        done.conflicts.append(f"`{tag}` is another tag here than on `{remote.name}`, and both are published")
