"""Publisher: every change of the registry, as one publish under one lock.

New tags, which are created and never moved, and this clone's document of the model go out together or not at all.  A
tag whose name was taken meanwhile (by a `git fetch`, say) is no error: the attempt is made again with the next number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gittrack.errors import AlreadyExistsError, ConflictError
from gittrack.registry import documents, events, names
from gittrack.registry.catalog import Catalog
from gittrack.registry.documents import Document
from gittrack.registry.events import AliasTag, Event, EventRef, StageTag, VersionTag
from gittrack.store import layout
from gittrack.store.refs import RefUpdate
from gittrack.store.repo import LOCK_TIMEOUT
from gittrack.types import LifecycleStage, ObjectId

if TYPE_CHECKING:
    from gittrack.store.pack import Batch

#: Attempts to publish while others move the same refs.
ATTEMPTS: Final = 20

T = TypeVar("T")

_acting: Final[ContextVar[str | None]] = ContextVar("acting", default=None)


@contextmanager
def acting_for(name: str | None) -> Iterator[None]:
    """What is changed inside is done for somebody whom git's settings do not name: a caller of a server.

    Args:
        name: The account's; None: whoever git's settings name.
    """
    before = _acting.set(None if name is None else f"{name} <{name}>")
    try:
        yield
    finally:
        _acting.reset(before)


class Publisher:
    """Changes the registry of one repo.

    Args:
        catalog: What is there.
        clock: The time in milliseconds since the epoch.
    """

    def __init__(self, catalog: Catalog, clock: Callable[[], int]) -> None:
        self._catalog = catalog
        self.clock = clock
        self._repo = catalog.repo

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Held by whoever changes the registry of this clone; inside, the index is up to date."""
        self._repo.require_writable()
        with self._repo.lock("registry", LOCK_TIMEOUT):
            self._catalog.refresh()
            yield

    def retried(self, attempt: Callable[[], T | None]) -> T:
        """What ``attempt`` returns, under the lock; it is made again while it returns None: a ref was just taken."""
        for _ in range(ATTEMPTS):
            with self.writing():
                done = attempt()
            if done is not None:
                return done
        raise ConflictError("others change the same model all the time; nothing was changed", hint="try again")

    def now(self) -> dict[str, Any]:
        """Who acts, and when: two fields of every event."""
        return {"who": _acting.get() or self._repo.git.identity(), "time": self.clock()}

    def edit(self, key: str, changes: Mapping[str, str | None], reason: str = "") -> None:
        """Change a model's document, under the lock.  Raises ConflictError if somebody else moved it all the same."""
        if not self.publish([], key, changes, reason=reason):
            raise ConflictError("somebody else moved this clone's documents; nothing was changed", hint="try again")

    def publish(
        self,
        new: Sequence[Event],
        key: str,
        changes: Mapping[str, str | None],
        moves: Sequence[RefUpdate] = (),
        *,
        reason: str = "",
        sign: bool = False,
        signed: Collection[str] = (),
    ) -> bool:
        """Create the tags of events and change a model's document: both, or nothing.

        Args:
            new: The events; one may name another that stands before it by its tag only.
            key: The model.
            changes: Field to new value; None removes.
            moves: Refs to move in the same step.
            reason: For the document's log.
            sign: Sign every tag.
            signed: Sign these tags.

        Returns:
            False if nothing was written, because a tag of that name came into being meanwhile.

        Raises:
            ConflictError: A tag cannot be made for another reason; nothing was written.
            PolicyError: The team's rules forbid an event; nothing was written.
            GitError: git could not sign one; likewise.
        """
        git, now = self._repo.git, self.now()
        batch = git.batch()
        updates = list(moves)
        made: dict[str, ObjectId] = {}
        for event in new:
            oid = self._add(batch, _named(event, made), sign=sign or event.tag in signed)
            made[event.tag] = oid
            updates.append(RefUpdate(f"refs/tags/{event.tag}", None, oid))
        if changes:
            updates.append(self._document_update(batch, key, changes, reason, now))
        try:
            git.publish(batch, updates)
        except ConflictError:
            if all(git.ref(update.name) == update.old for update in updates):
                raise  # such as a tag that is called `models`: another number would not help
            self._catalog.refresh()
            return False
        git.maintain()
        self._catalog.refresh(changed=True)
        return True

    def _add(self, batch: Batch, event: Event, *, sign: bool) -> ObjectId:
        """Put the tag object of an event into the batch, if the team's rules allow it."""
        from gittrack.registry import policy, signing

        gate = policy.Gate(self._catalog)
        gate.before(event, sign=sign)
        text, seconds = events.message(event), event.time // 1000
        if not sign:
            return batch.add_tag(event.tag, event.target, text, event.who, seconds)
        mine = signing.sign_tag(self._repo.git, batch, event.tag, event.target, text, time_s=seconds)
        gate.after(event, mine)
        return mine.oid

    def _document_update(
        self, batch: Batch, key: str, changes: Mapping[str, str | None], reason: str, now: Mapping[str, Any]
    ) -> RefUpdate:
        git, ref = self._repo.git, layout.DOCUMENT_PREFIX + self._repo.writer
        old = git.ref(ref)
        blob = None if old is None else documents.blobs(git, old).get(key)
        mine = documents.read(git, key, [] if blob is None else [blob])
        known = self._catalog.state(key).document
        mine.edit(self._repo.writer, changes, now=now["time"], who=now["who"], reason=reason, known=known)
        text = f"{names.first_name(key)}: {', '.join(list(changes)[:5])}\n" + (f"\n{reason}\n" if reason else "")
        return RefUpdate(ref, old, documents.build(git, batch, old, [mine], message=text, now=now["time"]))

    def documents_of(self, key: str) -> tuple[Document, Document]:
        """What this clone says of a model, and what all others do."""
        git, own = self._repo.git, layout.DOCUMENT_PREFIX + self._repo.writer
        mine, others = Document(key), Document(key)
        for ref, commit in git.refs(layout.DOCUMENT_PREFIX).items():
            blob = documents.blobs(git, commit).get(key)
            if blob is not None:
                (mine if ref == own else others).merge(documents.read(git, key, [blob]))
        return mine, others

    def new_key(self, name: str) -> tuple[str, dict[str, str | None]]:
        """The key for a new model of that name, and what has to be changed if a deleted one had it."""
        self.require_free(name)
        taken = self._catalog.models()
        for model in taken:
            if model.name == name:  # deleted, or it would not be free
                state = self._catalog.state(model.key)
                back = [n for n in state.versions if state.version_lifecycle(n) == LifecycleStage.ACTIVE]
                gone = {f"versions.{n}.lifecycle": LifecycleStage.DELETED for n in back}
                said = [field for field in state.document.below("") if field.startswith("tags.")]
                return model.key, {"description": None, "made": str(self.clock()), **dict.fromkeys(said), **gone}
        keys = {names.folded(model.key) for model in taken}
        attempt = 1
        while names.folded(key := names.key_of(name, attempt)) in keys:
            attempt += 1
        return key, {}

    def key_for(self, name: str) -> tuple[str, dict[str, str | None]]:
        """The key of the model of that name, and what has to be changed to make it if there is none."""
        found = self._catalog.models(name=name, lifecycle_stage=LifecycleStage.ACTIVE)
        if found:
            return self._catalog.model(name).key, {}
        key, changes = self.new_key(name)
        if names.first_name(key) != name or changes:
            changes |= {"name": name, "lifecycle": LifecycleStage.ACTIVE}
        return key, changes

    def require_free(self, name: str, but: str | None = None) -> None:
        """Raise AlreadyExistsError if a model has that name, or one that only upper and lower case tell apart."""
        for model in self._catalog.models():
            deleted = model.lifecycle_stage == LifecycleStage.DELETED
            if model.key == but or names.folded(model.name) != names.folded(name) or (deleted and model.name == name):
                continue
            if model.name == name:
                raise AlreadyExistsError(f"model `{name}` exists")
            raise AlreadyExistsError(
                f"model `{name}` differs from {'the deleted ' if deleted else ''}`{model.name}` only by upper and"
                " lower case",
                hint=f"use `{model.name}`, or another name",
            )


def _named(event: Event, made: Mapping[str, ObjectId]) -> Event:
    """The event with the ids of those that it names and that were made just now."""

    def ids(refs: Iterable[EventRef]) -> tuple[EventRef, ...]:
        return tuple(EventRef(ref.tag, ref.oid or made[ref.tag]) for ref in refs)

    if isinstance(event, StageTag):
        return replace(event, replaces=ids(event.replaces), approves=ids(event.approves))
    return replace(event, replaces=ids(event.replaces)) if isinstance(event, (VersionTag, AliasTag)) else event
