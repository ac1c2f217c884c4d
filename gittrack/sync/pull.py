"""Pull: what a remote has, into quarantine, looked at, and taken over.  Every step can be cut off and is gone on with.

Write order: objects → ``refs/gittrack/incoming/…`` (git's fetch) → looked at → ``refs/gittrack/remotes/…`` → this
clone's own refs.  A call that dies leaves what it had finished; the next one fetches only what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from gittrack.store import files, layout, seal
from gittrack.store.refs import RefUpdate
from gittrack.sync import publish as publishing
from gittrack.sync.publish import Published
from gittrack.sync.select import EVERYTHING, Selection
from gittrack.sync.transport import Progress, Transport, silent

if TYPE_CHECKING:
    from gittrack.registry.registry import Registry
    from gittrack.store.repo import Repo
    from gittrack.sync.remotes import Remote
    from gittrack.types import ObjectId

#: Seconds to wait for another push or pull of this clone.
LOCK_TIMEOUT: Final = 120.0


@dataclass
class Fetched:
    """What came of asking a remote.

    Attributes:
        refs: Every ref the remote shows, by its name there.
        shared: Those that are gittrack's, by their names here.
        wanted: Refs of those that were new or had moved, and were asked for.
        refused: Refs that do not count, and why.
    """

    refs: dict[str, ObjectId]
    shared: dict[str, ObjectId]
    wanted: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass
class PullReport:
    """What a pull has done.

    Attributes:
        remote: The remote's name.
        dry_run: Nothing was fetched; ``wanted`` says what would be.
        wanted: Refs that were new on the remote or had moved there.
        refused: Refs that do not count, and why.
        published: What has changed here.
    """

    remote: str
    dry_run: bool
    wanted: list[str]
    refused: dict[str, str]
    published: Published

    @property
    def ledgers(self) -> int:
        """How many ledgers were new or had moved."""
        return sum(ref.startswith(layout.LEDGER_PREFIX) for ref in self.wanted)

    @property
    def tags(self) -> int:
        """How many tags were new."""
        return sum(ref.startswith(layout.TAG_PREFIX) for ref in self.wanted)


def lock(repo: Repo) -> files.FileLock:
    """Held by whoever fetches into quarantine or pushes from this clone."""
    return files.FileLock(repo.root / "locks" / "sync", timeout=LOCK_TIMEOUT)


def pull(
    registry: Registry,
    remote: Remote,
    *,
    select: Selection = EVERYTHING,
    dry_run: bool = False,
    take_over: bool = True,
    progress: Progress = silent,
    interactive: bool = False,
) -> PullReport:
    """Fetch runs and models, and take them over.

    Args:
        registry: Runs and models of the clone.
        remote: Where from.
        select: Only these.
        dry_run: Only say what would be fetched.
        take_over: False only looks at what is there (``gittrack fetch``).
        progress: Told what is done.
        interactive: git may ask for a password on the terminal.

    Raises:
        NetworkError: The remote cannot be reached, or the connection broke.
        RemoteDataError: The remote cannot be right as a whole; single refs are in the report's ``refused``.
        ConflictError, LockedError, ReadOnlyError, StorageError: What was done until then stays; call again.
    """
    repo = registry.repo
    repo.require_writable()
    if not dry_run:
        seal.seal(repo)
    with lock(repo), repo.git.reading():
        repo.git.heal_locks()
        transport = Transport(repo, remote, progress=progress, interactive=interactive)
        found = ask(repo, transport, select)
        if dry_run:
            return PullReport(remote.name, True, found.wanted, {}, Published())
        bring(registry, transport, found)
        done = publishing.publish(registry, remote, select) if take_over else Published()
    return PullReport(remote.name, False, found.wanted, found.refused, done)


def ask(repo: Repo, transport: Transport, select: Selection = EVERYTHING, *, pushing: bool = False) -> Fetched:
    """What the remote has, and what of that was not seen yet.  Raises NetworkError, RemoteDataError."""
    refs = transport.refs(pushing=pushing)
    found = Fetched(refs, transport.shared(refs))
    seen = transport.remote.seen_refs(repo)
    found.wanted = [ref for ref, oid in found.shared.items() if seen.get(ref) != oid and select.ref(ref)]
    return found


def bring(registry: Registry, transport: Transport, found: Fetched, *, whole: bool = True) -> None:
    """Fetch what is wanted, look at it, and let what is good count as seen.

    What an earlier call has fetched and not looked at is looked at now.

    Args:
        registry: Runs and models of the clone.
        transport: The way to the remote.
        found: What it has; gets what was refused.
        whole: What it does not show it does not have any more.

    Raises:
        NetworkError: The connection broke.
    """
    repo, remote = registry.repo, transport.remote
    seen = remote.seen_refs(repo)
    if found.wanted:
        here = remote.incoming_refs(repo)
        # A tag that moved is refused without its objects: nothing that it could bring may count.
        moved = {ref for ref in found.wanted if ref.startswith(layout.TAG_PREFIX) and ref in seen}
        missing = [ref for ref in found.wanted if here.get(ref) != found.shared[ref] and ref not in moved]
        found.refused |= transport.fetch(missing)
        found.refused |= dict.fromkeys(moved, "the tag was another one before; tags are never moved")
        repo.git.close()  # the new packs are found when it opens again
    incoming = remote.incoming_refs(repo)
    if incoming:
        from gittrack.sync.quarantine import Quarantine

        known = dict(seen)  # what a ledger has got since is new; a tag that is another one here is a conflict for later
        for ref in incoming.keys() - seen.keys():
            mine = None if ref.startswith(layout.TAG_PREFIX) else repo.git.ref(ref)
            if mine is not None:
                known[ref] = mine
        verdict = Quarantine(repo, registry.catalog).judge(incoming, known)
        found.refused |= verdict.bad
        _move(repo, remote, seen, verdict.good, incoming)
    if whole:
        _forget(repo, remote, found.shared)


def _move(
    repo: Repo,
    remote: Remote,
    seen: Mapping[str, ObjectId],
    good: Mapping[str, ObjectId],
    incoming: Mapping[str, ObjectId],
) -> None:
    """Let what was found good count as seen, and end the quarantine of all."""
    moves = [RefUpdate(remote.seen(ref), seen.get(ref), oid) for ref, oid in good.items() if seen.get(ref) != oid]
    moves += [RefUpdate(remote.incoming(ref), oid, None) for ref, oid in incoming.items()]
    repo.git.publish(repo.git.batch(), moves)
    repo.git.maintain()


def _forget(repo: Repo, remote: Remote, shared: Mapping[str, ObjectId]) -> None:
    """Ledgers that the remote has no more were not seen on it any more.  Tags keep their numbers for ever."""
    gone = {
        ref: oid
        for ref, oid in remote.seen_refs(repo).items()
        if ref not in shared and not ref.startswith(layout.TAG_PREFIX)
    }
    if gone:
        repo.git.publish(repo.git.batch(), [RefUpdate(remote.seen(ref), oid, None) for ref, oid in gone.items()])
