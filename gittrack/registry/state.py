"""The state of a model: its events and documents folded, whatever the order in which they came.

What is known of a version is said by the event about it that no other event about it replaces; of an alias likewise.
Wall clocks never decide.  Two events that do not know of each other and are about the same thing are a conflict until
an event replaces both; that is so if they have the same name, replace the same event, or are both the last ones.

Events come from this clone's own tags, which count, and from the tags last seen on remotes, which only make conflicts
visible.  An event about a version must point at that version's commit and carry its manifest; one that does not (the
number was given to another model meanwhile, or the tag was forged) does not count and is among the ``problems``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import combinations
from typing import Final, NamedTuple, Union

from gittrack.errors import ConflictError
from gittrack.registry import names
from gittrack.registry.documents import Document
from gittrack.registry.events import AliasTag, Event, EventRef, StageTag, VersionTag
from gittrack.types import (
    Field,
    LifecycleStage,
    ModelVersion,
    ModelVersionStages,
    ObjectId,
    RegisteredModel,
)

#: From hidden to seen by users: of two stages that clones disagree about, the one nearer to the beginning is shown.
_EXPOSURE: Final = (
    ModelVersionStages.NONE,
    ModelVersionStages.ARCHIVED,
    ModelVersionStages.STAGING,
    ModelVersionStages.PRODUCTION,
)

#: What an event is about: a version's number, or an alias.
Subject = Union[int, str]  # noqa: UP007 — evaluated at run time on Python 3.10


class Change(NamedTuple):
    """One line of the audit trail.

    Attributes:
        time: Milliseconds since the epoch.
        who: ``Name <mail>``.
        what: ``version``, ``stage``, ``@<alias>``, ``approval``, or the field of a document.
        version: The number of the version it is about; None: the model.
        old: What it was; None: nothing.
        new: What it is since; None: nothing.
        reason: Why, in the person's words.
        tag: The event's tag below ``refs/tags/``; empty for an edit of a document.
        oid: Id of the tag object; empty likewise.
        signed: The tag has a signature.
    """

    time: int
    who: str
    what: str
    version: int | None
    old: str | None
    new: str | None
    reason: str
    tag: str = ""
    oid: str = ""
    signed: bool = False


class Conflict(NamedTuple):
    """Two events that do not know of each other.

    Attributes:
        about: The stages (``Production``), alias (``@champion``) or version (``v3``) concerned.
        events: Both.
    """

    about: tuple[str, ...]
    events: tuple[Event, Event]


class ModelState:
    """What is known of one model.

    Args:
        key: Its part of ref names.
        own: The events of this clone's tags.
        seen: Those last seen on remotes; what is also in ``own`` is ignored.
        document: The fold of all writers' documents.

    Attributes:
        versions: The tag of each version, deleted ones too, by number.
        problems: Events that do not count, and why.
    """

    def __init__(self, key: str, own: Iterable[Event], seen: Iterable[Event], document: Document) -> None:
        self.key = key
        self.document = document
        self.problems: list[str] = []
        mine = {event.oid: event for event in own}
        self._seen = {event.oid: event for event in seen if event.oid not in mine}
        self.versions = {event.number: event for event in mine.values() if isinstance(event, VersionTag)}
        self._events: dict[ObjectId, StageTag | AliasTag] = {}
        self.approvals: list[StageTag] = []
        for event in mine.values():
            if isinstance(event, (StageTag, AliasTag)) and self._counts(event):
                if isinstance(event, StageTag) and event.approves:
                    self.approvals.append(event)
                else:
                    self._events[event.oid] = event
        self._about: dict[Subject, list[StageTag | AliasTag]] = {}
        for event in self._events.values():
            for subject in subjects(event):
                self._about.setdefault(subject, []).append(event)
        self._heads = _heads(self._events.values(), _successors(self._events.values()))
        self.conflicts = list(_conflicts(mine.values(), self._events, self._seen))
        self._said: dict[int, dict[str, str]] = {}
        for name, value in document.below("").items():
            number, field = _split(name)
            if number is not None:
                self._said.setdefault(number, {})[field] = value
        self._blocked = {about: conflict for conflict in self.conflicts for about in conflict.about}

    def _counts(self, event: StageTag | AliasTag) -> bool:
        if event.version is None:
            return True
        version = self.versions.get(event.version)
        if version is None:
            self.problems.append(f"`{event.tag}` is about v{event.version}, which does not exist here")
        elif (version.target, version.manifest, version.run_id) != (event.target, event.manifest, event.run_id):
            self.problems.append(f"`{event.tag}` is about another v{event.version} than the one that is here")
        else:
            return True
        return False

    @property
    def exists(self) -> bool:
        """True if there is such a model: somebody made it, or registered a version of it."""
        return bool(self.versions or self.document.fields)

    # -- what holds --------------------------------------------------------------------------------------------------

    @cached_property
    def name(self) -> str:
        """Its current name; a document, which comes from anybody, can say no name that could not have been given."""
        said = self.document.value("name")
        return said if said is not None and names.is_model_name(said) else names.first_name(self.key)

    @property
    def lifecycle(self) -> str:
        """Active or deleted."""
        return _lifecycle(self.document.value("lifecycle"))

    @property
    def deleted(self) -> bool:
        """True if the model is deleted, with all its versions."""
        return self.lifecycle == LifecycleStage.DELETED

    def version_lifecycle(self, number: int) -> str:
        """Active or deleted: on its own, or because the name of its deleted model was used anew."""
        return _lifecycle(self.document.value(f"versions.{number}.lifecycle"))

    @property
    def visible(self) -> list[int]:
        """The numbers of the versions that are not deleted, in order."""
        return [n for n in sorted(self.versions) if self.version_lifecycle(n) == LifecycleStage.ACTIVE]

    def heads(self, subject: Subject) -> list[StageTag | AliasTag]:
        """The events about a version or an alias that no other event about it replaces; two if clones disagree."""
        return sorted(self._heads.get(subject, []), key=lambda event: event.oid)

    def stage(self, number: int) -> str:
        """The stage that a version is in; if clones disagree, the less exposed one."""
        said = {claim(event, number) for event in self.heads(number) if isinstance(event, StageTag)}
        return min(said, key=_EXPOSURE.index, default=ModelVersionStages.NONE)

    def in_stage(self, stage: str) -> list[int]:
        """The numbers of the versions in a stage that are not deleted, in order."""
        return [number for number in self.visible if self.stage(number) == stage]

    def aliases(self) -> dict[str, int]:
        """Every alias that clones agree about, and the version it stands for if that is not deleted."""
        found: dict[str, int] = {}
        visible = set(self.visible)
        for subject in sorted(subject for subject in self._about if isinstance(subject, str)):
            said = {event.version for event in self.heads(subject)}
            version = said.pop() if len(said) == 1 else None
            if version is not None and version in visible:
                found[subject[1:]] = version
        return found

    def addressed(self, wanted: names.Address) -> int | None:
        """The number of the version that an address stands for; None if there is none.  Looks past conflicts."""
        visible = self.visible
        if wanted.version is not None or wanted.latest:
            number = wanted.version if wanted.version is not None else max(visible, default=None)
            return number if number in visible else None
        word = wanted.word
        aliases = self.aliases()
        if word in aliases:
            return aliases[word]
        if word is not None and word.isascii() and word.isdecimal():
            return int(word) if int(word) in visible else None
        said = (wanted.stage or word or "").lower()
        stage = next((one for one in ModelVersionStages.ALL if one.lower() == said), None)
        return None if stage is None else max(self.in_stage(stage), default=None)

    def event(self, oid: ObjectId) -> Event | None:
        """An event that counts, by the id of its tag object; None if there is none."""
        return self._events.get(oid)

    def conflict(self, about: str) -> Conflict | None:
        """The conflict about a stage, ``@<alias>`` or ``v<N>``, if there is one."""
        return self._blocked.get(about)

    def require_agreement(self, about: str) -> None:
        """Raise ConflictError if clones disagree about a stage, ``@<alias>`` or ``v<N>``."""
        conflict = self.conflict(about)
        if conflict is not None:
            one, other = conflict.events
            what = about if about.startswith(("@", "v")) else f"stage {about}"
            how = f"`gittrack models resolve '{self.name}' {about}" + ("`" if about.startswith("v") else " VERSION`")
            raise ConflictError(
                f"{what} of model `{self.name}` is in conflict: {_described(one)}, {_described(other)}",
                hint=f"{how} settles it",
            )

    def alias_twin(self, alias: str) -> str | None:
        """An alias that was ever used and differs from ``alias`` only by upper and lower case."""
        known = (subject[1:] for subject in self._about if isinstance(subject, str))
        return next((one for one in known if one != alias and names.folded(one) == names.folded(alias)), None)

    def seen_version(self, number: int) -> VersionTag | None:
        """A version that was seen on a remote and is another one here, or none."""
        for event in self._seen.values():
            if isinstance(event, VersionTag) and event.number == number:
                return event
        return None

    # -- records -----------------------------------------------------------------------------------------------------

    def version_record(self, number: int, aliases: Mapping[str, int] | None = None) -> ModelVersion:
        """The record of a version that exists; ``aliases`` saves finding them again."""
        tag, said = self.versions[number], self._said.get(number, {})
        aliases = self.aliases() if aliases is None else aliases
        copied = said.get("copied_from")
        return ModelVersion(
            name=self.name,
            version=str(number),
            creation_timestamp=tag.time,
            last_updated_timestamp=max(self._last_event(number), _time(said.get("updated"))),
            description=said.get("description"),
            user_id=tag.who,
            current_stage=self.stage(number),
            source=_source(tag),
            run_id=tag.run_id,
            tags={name[len("tags.") :]: value for name, value in said.items() if name.startswith("tags.")},
            run_link=said.get("run_link"),
            aliases=[alias for alias, version in aliases.items() if version == number],
            model_id=tag.model_id,
            path=tag.path,
            commit=tag.target,
            manifest=tag.manifest,
            tag=tag.tag,
            tag_oid=tag.oid,
            lifecycle_stage=LifecycleStage.DELETED if self.deleted else self.version_lifecycle(number),
            key=self.key,
            elsewhere=tag.source is not None,
            source_run_id=tag.source_run,
            copied_from=copied if copied is not None and names.is_address_of_version(copied) else None,
        )

    def _last_event(self, number: int) -> int:
        """When the last event about a version was."""
        return max([self.versions[number].time, *(event.time for event in self._about.get(number, ()))])

    def records(self) -> tuple[RegisteredModel, list[ModelVersion]]:
        """The model and all its versions, deleted ones too."""
        aliases = self.aliases()
        versions = [self.version_record(number, aliases) for number in sorted(self.versions)]
        latest: dict[str, ModelVersion] = {}
        for version in versions:
            if self.version_lifecycle(int(version.version)) == LifecycleStage.ACTIVE:
                latest[version.current_stage] = version
        created = [version.creation_timestamp for version in versions]
        created += [self.document.created] if self.document.created else []
        # since ``made`` it is another model of a deleted one's name
        since = _time(self.document.value("made")) or min(created, default=0)
        events = (self._last_event(number) for number in self.versions)
        model = RegisteredModel(
            name=self.name,
            creation_timestamp=since,
            last_updated_timestamp=max([since, *events, _time(self.document.value("updated"))]),
            description=self.document.value("description"),
            tags=self.document.below("tags."),
            aliases={alias: str(number) for alias, number in aliases.items()},
            latest_versions=[latest[stage] for stage in ModelVersionStages.ALL if stage in latest],
            lifecycle_stage=self.lifecycle,
            key=self.key,
            conflicts=sorted(self._blocked),
        )
        return model, versions

    # -- history -----------------------------------------------------------------------------------------------------

    def history(self) -> list[Change]:
        """The audit trail, oldest first by the clocks of those who acted."""
        found = [*self._registrations(), *self._events_told(), *self._edits()]
        return sorted(found, key=lambda change: (change.time, change.tag, change.oid, change.what, change.version or 0))

    def _registrations(self) -> Iterator[Change]:
        for number, tag in self.versions.items():
            yield _change(tag, "version", number, None, _source(tag))

    def _events_told(self) -> Iterator[Change]:
        for approval in self.approvals:
            yield _change(approval, "approval", approval.version, None, approval.stage)
        for event in self._events.values():
            if isinstance(event, AliasTag):
                old = self._before(event, event.slot)
                yield _change(
                    event, event.slot, event.version, old, None if event.version is None else str(event.version)
                )
                continue
            for number in subjects(event):
                yield _change(event, "stage", int(number), self._before(event, number), claim(event, int(number)))

    def _before(self, event: StageTag | AliasTag, subject: Subject) -> str | None:
        """What the events that ``event`` replaces said about a version or an alias."""
        known = [self._events[ref.oid] for ref in event.replaces if ref.oid in self._events]
        for old in known:
            if subject in subjects(old):
                if isinstance(old, StageTag):
                    return claim(old, int(subject))
                return None if old.version is None else str(old.version)
        return ModelVersionStages.NONE if isinstance(event, StageTag) else None

    def _edits(self) -> Iterator[Change]:
        last: dict[str, str | None] = {}
        for _, edit in sorted(self.document.log.items()):
            old, last[edit.field] = last.get(edit.field), edit.value
            version, field = _split(edit.field)
            if field in ("made", "updated", "copied_from"):  # whoever may see a copy need not know what it is one of
                continue
            yield Change(edit.time, edit.who, field, version, old, edit.value, edit.reason)

    def at(self, time: int) -> ModelState:
        """The state at a time (milliseconds since the epoch), as far as clocks can be believed."""
        document = Document(self.key)
        for (counter, writer, _), edit in sorted(self.document.log.items()):
            if edit.time <= time:
                document.fields[edit.field] = Field(counter, writer, edit.value)
                document.created = min(document.created or edit.time, edit.time)
        events = [*self.versions.values(), *self._events.values(), *self.approvals]
        return ModelState(self.key, [event for event in events if event.time <= time], [], document)


# ----------------------------------------------------------------------------------------------------------------------


def subjects(event: Event) -> tuple[Subject, ...]:
    """What an event says something about."""
    if isinstance(event, StageTag):
        return (event.version, *event.archives)
    return (event.slot,) if isinstance(event, AliasTag) else (event.number,)


def claim(event: StageTag, number: int) -> str:
    """The stage in which an event says a version is."""
    return event.stage if number == event.version else ModelVersionStages.ARCHIVED


def _says(event: Event) -> tuple[object, ...]:
    """What an event says, apart from who says it: clones that say the same do not disagree."""
    if isinstance(event, StageTag):
        return (event.version, event.stage, event.target, sorted(event.archives))
    if isinstance(event, AliasTag):
        return (event.slot, event.version, event.target)
    return (event.oid,)


def _conflicts(
    own: Iterable[Event], counting: Mapping[ObjectId, StageTag | AliasTag], seen: Mapping[ObjectId, Event]
) -> Iterator[Conflict]:
    """Every conflict between events that count, and between them and those seen on remotes."""
    versions = {event.number: event for event in own if isinstance(event, VersionTag)}
    for event in seen.values():
        if isinstance(event, VersionTag) and event.number in versions:
            yield Conflict((f"v{event.number}",), (versions[event.number], event))
    events: dict[ObjectId, StageTag | AliasTag] = dict(counting)
    events |= {
        oid: event
        for oid, event in seen.items()
        if isinstance(event, (StageTag, AliasTag)) and not (isinstance(event, StageTag) and event.approves)
    }
    successors = _successors(events.values())
    done: set[frozenset[ObjectId]] = set()
    for one, other in _candidates(events, successors):
        pair = frozenset((one.oid, other.oid))
        if pair in done or (one.oid not in counting and other.oid not in counting) or _says(one) == _says(other):
            continue
        done.add(pair)
        later = _descendants(one, successors)
        if other.oid in later or one.oid in (others := _descendants(other, successors)):
            continue
        # An event settles it that comes after both and says where both are now.
        both = {subjects(one)[0], subjects(other)[0]}
        if not any(both <= set(subjects(later[oid])) for oid in later.keys() & others.keys()):
            about = {event.stage if isinstance(event, StageTag) else event.slot for event in (one, other)}
            yield Conflict(tuple(sorted(about)), (one, other))


def _successors(events: Iterable[StageTag | AliasTag]) -> dict[ObjectId, list[StageTag | AliasTag]]:
    """The events that replace an event, by its object id."""
    found: dict[ObjectId, list[StageTag | AliasTag]] = {}
    for event in events:
        for ref in event.replaces:
            found.setdefault(ref.oid, []).append(event)
    return found


def _candidates(
    events: Mapping[ObjectId, StageTag | AliasTag], successors: Mapping[ObjectId, list[StageTag | AliasTag]]
) -> Iterator[tuple[StageTag | AliasTag, StageTag | AliasTag]]:
    """Pairs that have or had one name, that replace the same about the same, pairs of last ones that disagree."""
    groups: dict[object, list[StageTag | AliasTag]] = {}
    for event in events.values():
        for name in {event.tag, event.was or event.tag}:
            groups.setdefault(("name", name), []).append(event)
    for subject, heads in _heads(events.values(), successors).items():
        for one, other in combinations(heads, 2):
            if _claim(one, subject) != _claim(other, subject):
                yield one, other
    for oid, later in successors.items():
        if len(later) > 1:
            about = set(subjects(events[oid])) if oid in events else None
            for event in later:
                for subject in subjects(event):
                    if about is None or subject in about:
                        groups.setdefault(("replaces", oid, subject), []).append(event)
    for group in groups.values():
        if len(group) > 1:
            yield from combinations(group, 2)


def _heads(
    events: Iterable[StageTag | AliasTag], successors: Mapping[ObjectId, list[StageTag | AliasTag]]
) -> dict[Subject, list[StageTag | AliasTag]]:
    """The events about each version and alias that no other event about it replaces."""
    found: dict[Subject, list[StageTag | AliasTag]] = {}
    for event in events:
        later = {subject for one in successors.get(event.oid, ()) for subject in subjects(one)}
        for subject in subjects(event):
            if subject not in later:
                found.setdefault(subject, []).append(event)
    return found


def _claim(event: StageTag | AliasTag, subject: Subject) -> object:
    """What an event says about one version or alias."""
    return claim(event, int(subject)) if isinstance(event, StageTag) else event.version


def _descendants(
    event: StageTag | AliasTag, successors: Mapping[ObjectId, list[StageTag | AliasTag]]
) -> dict[ObjectId, StageTag | AliasTag]:
    """Every event that replaces this one, or one that does."""
    found: dict[ObjectId, StageTag | AliasTag] = {}
    todo = [event]
    while todo:
        for later in successors.get(todo.pop().oid, ()):
            if later.oid not in found:
                found[later.oid] = later
                todo.append(later)
    return found


def refs(events: Iterable[Event]) -> tuple[EventRef, ...]:
    """How another event names these, each once, in order."""
    return tuple(sorted({event.ref for event in events}))


def _source(tag: VersionTag) -> str:
    return f"runs:/{tag.run_id}/{tag.path}" if tag.source is None else tag.source


def _described(event: Event) -> str:
    who = event.who.partition(" <")[0]
    if isinstance(event, StageTag):
        return f"{who} put v{event.version} into {event.stage}"
    if isinstance(event, AliasTag):
        return f"{who} took it away" if event.version is None else f"{who} gave it to v{event.version}"
    return f"{who} registered `{event.target[:10]}`"


def _change(event: Event, what: str, version: int | None, old: str | None, new: str | None) -> Change:
    return Change(
        event.time, event.who, what, version, old, new, event.reason, event.tag, event.oid, signed=event.signed
    )


def _split(field: str) -> tuple[int | None, str]:
    """The version's number, if it is about one, and the rest of a field's name."""
    parts = field.split(".", 2)
    if len(parts) == 3 and parts[0] == "versions" and parts[1].isdecimal():
        return int(parts[1]), parts[2]
    return None, field


def _lifecycle(text: str | None) -> str:
    return LifecycleStage.DELETED if text == LifecycleStage.DELETED else LifecycleStage.ACTIVE


def _time(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 16 else 0
