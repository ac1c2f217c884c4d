"""Servers with clones of their own on one git remote: what one publishes, the others have before they need it.

Runs in progress are rows of a database that all of them share; what is over, and everything else that is known, is in
git.  Whoever changes something there has a lock in the database, takes over first what the others sent, and has pushed
before it lets go: so numbers of versions are given once, and nobody has to give way.  A number in the database counts
the pushes.  It grows before frames are dropped: who does not find a run's frames any more, and looks at the number
then, fetches the commit that they went into.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from gittrack.errors import ConflictError, GittrackError, StateError
from gittrack.registry.registry import Registry
from gittrack.store import layout
from gittrack.store.refs import RefUpdate
from gittrack.sync import publish as publishing, pull
from gittrack.sync.remotes import choose, is_shared
from gittrack.sync.transport import Move, Transport, refused
from gittrack.track.runs import Tracker

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.store.shared import Frames
    from gittrack.types import ObjectId


class _Here(threading.local):
    """What a thread is at."""

    def __init__(self) -> None:
        self.inside = False


class Exchange:
    """What a clone shares with others through a remote, as ``store.repo.Exchange`` describes it.

    Args:
        repo: The clone, of a server with a database.
        name: The remote.

    Attributes:
        group: The same for all clones with that remote.

    Raises:
        NotFoundError, UsageError: No such remote.
    """

    def __init__(self, repo: Repo, name: str) -> None:
        self._repo = repo
        self._remote = choose(repo, name)
        self.group = hashlib.sha256(self._remote.url.encode()).hexdigest()[:16]
        self._registry = Registry(Tracker(repo, strict=True, serving=True))
        self._here = _Here()
        self._one = threading.Lock()
        self._at = -1  # how many pushes this clone knows
        self._doubt = True  # nobody knows what became of the last push

    @property
    def inside(self) -> bool:
        """True in a thread that is at it, and must not begin with it anew."""
        return self._here.inside

    @contextmanager
    def alone(self) -> Iterator[None]:
        """In this thread nothing is brought or locked for it; blocks may be nested."""
        before, self._here.inside = self._here.inside, True
        try:
            yield
        finally:
            self._here.inside = before

    def behind(self) -> bool:
        """True if others have sent something that is not here.  Raises NetworkError."""
        return self._doubt or self._frames.pushes() != self._at

    def look(self) -> None:
        """Bring what others sent.  Costs a look at the database if they sent nothing, and nothing at all inside.

        Raises:
            NetworkError: Database or remote cannot be reached.
            ConflictError, LockedError, StorageError: It could not be taken over.
        """
        if not self.inside and self.behind():
            with self._one, self.alone():
                self.bring()

    def bring(self) -> None:
        """As ``look``, for who is inside."""
        if not self.behind():
            return
        at = self._frames.pushes()
        with pull.lock(self._repo):
            for attempt in range(3):
                try:
                    transport = Transport(self._repo, self._remote)
                    pull.bring(self._registry, transport, pull.ask(self._repo, transport))
                    publishing.publish(self._registry, self._remote)
                except ConflictError:  # what was seen on the remote moved: this clone has just pushed
                    if attempt == 2:
                        raise
                else:
                    break
        self._at, self._doubt = at, False

    def send(self) -> None:
        """Push what this clone has moved.  Costs a look at its refs if that is nothing.

        Raises:
            NetworkError: The remote cannot be reached; what was to be sent is sent the next time.
            PushRefusedError: It does not take it.
        """
        seen = self._remote.seen_refs(self._repo)
        moves = {ref: (seen.get(ref), oid) for ref, oid in self._own().items() if seen.get(ref) != oid}
        moves = {ref: move for ref, move in moves.items() if move[0] is None or not ref.startswith(layout.TAG_PREFIX)}
        if not moves:
            return
        there = [Move(self._remote.there(ref), old, new) for ref, (old, new) in moves.items()]
        try:
            refusals = Transport(self._repo, self._remote).push([there])
        except GittrackError:
            self._doubt = True
            raise
        if refusals:
            self._doubt = True
            raise refused(self._remote.name, refusals, "it is brought up to date and sent again the next time")
        with suppress(ConflictError):  # the next look says it
            updates = [RefUpdate(self._remote.seen(ref), old, new) for ref, (old, new) in moves.items()]
            self._repo.git.publish(self._repo.git.batch(), updates)
        now = self._frames.pushed()
        if now == self._at + 1:
            self._at = now

    def _own(self) -> dict[str, ObjectId]:
        """What this clone alone moves, and all tags, which nobody moves."""
        git, writer = self._repo.git, self._repo.writer
        refs = {**git.refs(layout.LEDGER_PREFIX), **git.refs(layout.DOCUMENT_PREFIX)}
        own = {ref: oid for ref, oid in refs.items() if ref.rpartition("/")[2] == writer}
        return own | {ref: oid for ref, oid in git.refs(layout.TAG_PREFIX).items() if is_shared(ref)}

    @property
    def _frames(self) -> Frames:
        found = self._repo.frames
        if found is None:
            raise StateError("servers that share a remote share a database, too", hint="--backend-store-uri")
        return found
