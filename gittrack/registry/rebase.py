"""Rebase: what a clone did to a model without knowing what a remote has, done anew behind it.

A remote takes each tag's name once.  A tag of this clone whose name another one has there, and which no remote has
seen yet, is made again under the next free number; so is every unpublished event that speaks of it.  Nothing is lost by
that: what was said is said again, with its time and reason.  Tags that some remote has are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from gittrack.registry import names
from gittrack.registry.catalog import Catalog
from gittrack.registry.events import AliasTag, Event, EventRef, StageTag, VersionTag
from gittrack.registry.publisher import Publisher
from gittrack.store.refs import RefUpdate
from gittrack.types import ObjectId


class Renamed(NamedTuple):
    """A tag that was made again.

    Attributes:
        model: The model's name.
        old: What it was called, below ``refs/tags/``.
        new: What it is called.
    """

    model: str
    old: str
    new: str


def rebase(
    catalog: Catalog,
    publisher: Publisher,
    key: str,
    taken: Mapping[str, ObjectId],
    reason: str = "",
    *,
    published: bool = False,
    sign: bool = False,
) -> list[Renamed]:
    """Make a model's unpublished tags anew where their names are taken.

    Args:
        catalog: What is there.
        publisher: Changes it; its lock must not be held.
        key: The model.
        taken: The names that are another tag on the remote, and which; those tags must be in the store.
        reason: Why, for versions; kept in the tag.
        published: Also make those again that are taken and that some other remote has as they are here.
        sign: Sign what is made again, even what was not signed.

    Returns:
        What was made again, versions first.

    Raises:
        ConflictError: Others change the model all the time.
        GitError, PolicyError: A signed tag could not be signed again; nothing was changed.
    """

    def attempt() -> list[Renamed] | None:
        plan = _Plan(catalog, key, taken, published=published)
        if not plan.new:
            return []
        changes = plan.document_changes(publisher)
        new = [replace(one, reason=reason or one.reason) if isinstance(one, VersionTag) else one for one in plan.new]
        # A signature is over the tag's name too, so that what was signed has to be signed again.
        if not publisher.publish(new, key, changes, plan.moves, sign=sign, signed=plan.signed):
            return None
        return [Renamed(plan.name, old, new) for old, new in plan.renamed.items()]

    return publisher.retried(attempt)


class _Plan:
    """What has to be made again, and how."""

    def __init__(self, catalog: Catalog, key: str, taken: Mapping[str, ObjectId], *, published: bool) -> None:
        state = catalog.state(key)
        self.name = state.name
        self.new: list[Event] = []
        self.signed: set[str] = set()
        self.renamed: dict[str, str] = {}
        self.moves: list[RefUpdate] = []
        self.numbers: dict[int, int] = {}  #: of versions, old to new
        seen = catalog.seen(key)
        own = catalog.own_events(key)
        mine = [one for one in own if one.oid not in seen or (published and one.tag in taken)]
        self._taken = {one.tag: taken[one.tag] for one in mine if taken.get(one.tag, one.oid) != one.oid}
        self._next: dict[str, int] = {}
        self._refs: dict[ObjectId, EventRef] = {}
        for event in sorted((one for one in mine if isinstance(one, VersionTag)), key=lambda one: one.number):
            if event.tag in self._taken:
                self._again_version(catalog, event)
        for other in _in_order([one for one in mine if not isinstance(one, VersionTag)]):
            if other.tag in self._taken or self._concerned(other):
                self._again(catalog, other)

    def _number(self, catalog: Catalog, event: Event) -> int:
        """The next free one for an event like that."""
        number = max(self._next.get(event.slot, 0), catalog.next_number(event.key, event.slot))
        self._next[event.slot] = number + 1
        return number

    def _again_version(self, catalog: Catalog, event: VersionTag) -> None:
        number = self._number(catalog, event)
        title = event.title.replace(f"v{event.number}:", f"v{number}:", 1)
        self._made(event, replace(event, number=number, title=title, replaces=(event.ref,), oid=_UNWRITTEN))
        self.numbers[event.number] = number

    def _concerned(self, event: Event) -> bool:
        """True if the event speaks of something that is made again."""
        if isinstance(event, StageTag):
            told: Collection[int] = (event.version, *event.archives)
        else:
            told = (event.version,) if isinstance(event, AliasTag) and event.version is not None else ()
        return any(number in self.numbers for number in told) or any(ref.oid in self._refs for ref in _refs(event))

    def _again(self, catalog: Catalog, event: Event) -> None:
        changes: dict[str, object] = {"number": self._number(catalog, event), "oid": _UNWRITTEN}
        if isinstance(event, (StageTag, AliasTag)):
            changes["replaces"] = self._mapped(event.replaces)
            if event.tag in self._taken:
                changes["was"] = event.was or event.tag
            if event.version in self.numbers:
                changes["version"] = self.numbers[event.version]
                changes["title"] = re.sub(rf"\bv{event.version}\b", f"v{self.numbers[event.version]}", event.title)
        if isinstance(event, StageTag):
            changes["approves"] = self._mapped(event.approves)
            changes["archives"] = tuple(self.numbers.get(number, number) for number in event.archives)
        self._made(event, replace(event, **changes))  # type: ignore[arg-type]  # fields of the event's own class

    def _mapped(self, refs: Iterable[EventRef]) -> tuple[EventRef, ...]:
        # An event that is made again has no id yet; the publisher fills in that of the tag of that name.
        return tuple(self._refs.get(ref.oid, ref) for ref in refs)

    def _made(self, old: Event, new: Event) -> None:
        self.new.append(new)
        self.renamed[old.tag] = new.tag
        self._refs[old.oid] = EventRef(new.tag, _UNWRITTEN)
        if old.signed:
            self.signed.add(new.tag)
        self.moves.append(RefUpdate(f"refs/tags/{old.tag}", old.oid, self._taken.get(old.tag)))

    def document_changes(self, publisher: Publisher) -> dict[str, str | None]:
        """What this clone said of a version goes with it; what others said was of the one that has the number."""
        changes: dict[str, str | None] = {}
        if not self.numbers:
            return changes
        own, others = publisher.documents_of(self.new[0].key)
        for old, new in self.numbers.items():
            prefix = f"versions.{old}."
            changes |= {f"versions.{new}.{field}": value for field, value in own.below(prefix).items()}
            known = {field for field in (*own.fields, *others.fields) if field.startswith(prefix)}
            changes |= {field: others.value(field) for field in known if own.value(field) != others.value(field)}
        return changes


_UNWRITTEN = ObjectId("")


def _refs(event: Event) -> tuple[EventRef, ...]:
    if isinstance(event, StageTag):
        return (*event.replaces, *event.approves)
    return event.replaces if isinstance(event, AliasTag) else ()


def _in_order(events: list[Event]) -> list[Event]:
    """The events, each behind those of them that it replaces or approves of."""
    known = {event.oid: event for event in events}
    done: dict[ObjectId, Event] = {}
    todo = sorted(events, key=lambda one: (names.TagName(one.key, one.slot, one.number), one.oid), reverse=True)
    waiting: set[ObjectId] = set()
    while todo:
        event = todo[-1]
        before = [known[ref.oid] for ref in _refs(event) if ref.oid in known and ref.oid not in done]
        if before and event.oid not in waiting:
            waiting.add(event.oid)
            todo += before
            continue
        todo.pop()
        done.setdefault(event.oid, event)
    return list(done.values())
