"""Events: what happened to a model, as the messages of annotated tags.  Written and read side by side, strictly.

    iris v3 is Production

    passed the shadow test of last week

    Gittrack-Model: iris
    Gittrack-Version: 3
    …

A line for people, an optional reason, and git trailers in the last paragraph; a signature may follow.  Who and when
are the tagger's; ``Gittrack-Time`` has the milliseconds, which decide nothing.  A tag that says another name than the
ref it is found at, or whose parts do not go together, is no event.  Knows text only, no git.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from gittrack.errors import FormatError, InvalidValueError
from gittrack.registry import names
from gittrack.track import limits
from gittrack.types import Digest, ModelVersionStages, ObjectId, check_run_id

if TYPE_CHECKING:
    from gittrack.store.git import TagInfo

MAX_REASON: Final = 10_000  #: characters
#: Approvals of one event, events replaced and versions archived by one event.
MAX_REPEATED: Final = 5_000
#: Characters of the address of files that are elsewhere.
MAX_SOURCE: Final = 1_000

_UNWRITTEN: Final = ObjectId("")
_NOTHING: Final = Digest("")

_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{1,15}")
_MODEL_ID = re.compile(r"[A-Za-z0-9][\w\-]{0,127}", re.ASCII)
_TRAILER = re.compile(r"Gittrack-([A-Za-z0-9-]{1,40}): (.*)")
#: How git begins what `git tag -s` appends, for each kind of key.
_SIGNATURE = re.compile(r"^-----BEGIN (?:PGP SIGNATURE|PGP MESSAGE|SSH SIGNATURE|SIGNED MESSAGE)-----$", re.MULTILINE)
_ARMOUR: Final = "-----BEGIN "
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPED = re.compile("[%\x00-\x1f\x7f-\x9f\u2028\u2029]|^ | $")


class EventRef(NamedTuple):
    """An event as another one names it: its tag's name for people, its object id for programs."""

    tag: str
    oid: ObjectId

    def __str__(self) -> str:
        """As in a trailer."""
        return f"{self.tag} {self.oid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event has.

    Attributes:
        key: The model's part of ref names.
        number: Of the version, or of the event among those of its stage or alias.
        target: The run commit that the tag points at.
        who: The tagger, ``Name <mail>``.
        time: Milliseconds since the epoch.
        title: The first line of the message.
        reason: Why, in the person's words.
        signed: The tag has a signature; whether it is a good one is another question.
        oid: Id of the tag object; empty while it is not written.
    """

    key: str
    number: int
    target: ObjectId
    who: str
    time: int
    title: str = ""
    reason: str = ""
    signed: bool = False
    oid: ObjectId = _UNWRITTEN

    @property
    def slot(self) -> str:
        """The middle part of the tag's name, as in ``names.TagName``."""
        raise NotImplementedError

    @property
    def tag(self) -> str:
        """The tag's name below ``refs/tags/``."""
        return str(names.TagName(self.key, self.slot, self.number))

    @property
    def ref(self) -> EventRef:
        """How another event names this one."""
        return EventRef(self.tag, self.oid)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionTag(Event):
    """A version was registered.

    Attributes:
        run_id: The run that made the model.
        path: Where it is among the run's artifacts.
        manifest: sha256 of its manifest.
        model_id: MLflow's id of the logged model, if it has one.
        replaces: The version that it is a new number for: its own was taken on a remote.
        source: The address of its files, if they are elsewhere; then the run is there for nothing else, and has none.
        source_run: The run that made them there, as whoever registered them said.
    """

    run_id: str
    path: str
    manifest: Digest
    model_id: str | None = None
    replaces: tuple[EventRef, ...] = ()
    source: str | None = None
    source_run: str | None = None

    @property
    def slot(self) -> str:
        """``v``."""
        return "v"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTag(Event):
    """A version was put into a stage, or (with ``approves``) that was approved by somebody else.

    Attributes:
        version: Its number.
        stage: As in ``ModelVersionStages``.
        run_id, manifest: The version's, so that a signature covers them.
        replaces: The events that say no longer where this version and the archived ones are.
        archives: The versions that became Archived by it.
        approves: The events that it approves; then it changes nothing itself.
        was: The name that it was made under, if another event has got that name on a remote: they are a conflict.
    """

    version: int
    stage: str
    run_id: str
    manifest: Digest
    replaces: tuple[EventRef, ...] = ()
    archives: tuple[int, ...] = ()
    approves: tuple[EventRef, ...] = ()
    was: str = ""

    @property
    def slot(self) -> str:
        """The stage in lower case."""
        return self.stage.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasTag(Event):
    """An alias was given to a version, or taken away.

    Attributes:
        alias: Its name.
        version: The version's number; None: the alias is gone.
        run_id, manifest: The version's; empty if the alias is gone.
        replaces: The events about the alias that are over.
        was: As in ``StageTag``.
    """

    alias: str
    version: int | None
    run_id: str = ""
    manifest: Digest = _NOTHING
    replaces: tuple[EventRef, ...] = ()
    was: str = ""

    @property
    def slot(self) -> str:
        """``@`` and the alias."""
        return f"@{self.alias}"


# -- writing -----------------------------------------------------------------------------------------------------------


def check_reason(text: object) -> str:
    """A reason to be written into a tag.

    Raises:
        InvalidValueError: It is no text, is too long, or has a line that git would take for a signature.
    """
    if not isinstance(text, str):
        raise InvalidValueError(f"a reason is text, not {type(text).__name__}")
    clean = text.replace("\r\n", "\n").replace("\0", "").encode("utf-8", "backslashreplace").decode("utf-8").strip()
    if len(clean) > MAX_REASON:
        raise InvalidValueError(f"a reason of {len(clean)} characters", hint=f"at most {MAX_REASON}")
    if any(line.startswith(_ARMOUR) for line in clean.split("\n")):
        raise InvalidValueError(f"a line of the reason begins with `{_ARMOUR}`", hint="indent it")
    return clean


def message(event: Event) -> str:
    """The message of an event's tag; ``parse`` reads it back.  Raises InvalidValueError for a bad title or reason."""
    title = " ".join(event.title.split())[:200].strip()
    if not title or title.startswith(_ARMOUR):
        raise InvalidValueError("an event needs a title")
    paragraphs = [title, check_reason(event.reason)]
    trailers = "\n".join(f"Gittrack-{name}: {value}" for name, value in _trailers(event))
    return "\n\n".join(part for part in (*paragraphs, trailers) if part) + "\n"


def _trailers(event: Event) -> Iterable[tuple[str, object]]:
    yield "Model", event.key
    if isinstance(event, VersionTag):
        yield "Version", event.number
        yield "Run", event.run_id
        if event.path:
            yield "Path", _escape(event.path)
        yield "Manifest-SHA256", event.manifest
        if event.model_id is not None:
            yield "Model-Id", event.model_id
        if event.source is not None:
            yield "Source", _escape(event.source)
            if event.source_run is not None:
                yield "Source-Run", event.source_run
        yield from (("Replaces", ref) for ref in event.replaces)
    elif isinstance(event, StageTag):
        yield "Version", event.version
        yield "Stage", event.stage
        yield "Run", event.run_id
        yield "Manifest-SHA256", event.manifest
        yield from (("Replaces", ref) for ref in event.replaces)
        yield from (("Archives", version) for version in event.archives)
        yield from (("Approves", ref) for ref in event.approves)
    elif isinstance(event, AliasTag):
        yield "Alias", event.alias
        if event.version is not None:
            yield "Version", event.version
            yield "Run", event.run_id
            yield "Manifest-SHA256", event.manifest
        yield from (("Replaces", ref) for ref in event.replaces)
    if isinstance(event, (StageTag, AliasTag)) and event.was:
        yield "Was", event.was
    yield "Time", event.time


def _escape(text: str) -> str:
    """A path on one line whose ends survive: what would not is percent-encoded."""
    return _ESCAPED.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)


# -- reading -----------------------------------------------------------------------------------------------------------


def parse(oid: ObjectId, info: TagInfo) -> Event:
    """The event that a tag object is.

    Args:
        oid: Its id.
        info: What it says.

    Raises:
        FormatError: It is none.
    """
    name = names.parse_tag(info.name)
    if info.target_type != "commit":
        raise FormatError(f"tag `{info.name}` points at a {info.target_type}, not at a run")
    try:
        text, signed = _unsigned(info.message)
        title, reason, trailers = _paragraphs(text)
        known = {"target": info.target, "who": info.tagger, "title": title, "reason": reason, "signed": signed}
        event = _event(name, trailers, {**known, "oid": oid})
        trailers.done()
    except (FormatError, InvalidValueError) as error:
        raise FormatError(f"tag `{info.name}` is no event: {error.message}") from error
    return event


def _unsigned(text: str) -> tuple[str, bool]:
    found = _SIGNATURE.search(text)
    return (text, False) if found is None else (text[: found.start()], True)


def _paragraphs(text: str) -> tuple[str, str, _Trailers]:
    head, separator, last = text.rstrip("\n").rpartition("\n\n")
    if not separator:
        raise FormatError("it has no trailers")
    title, _, rest = head.partition("\n")
    if not title.strip():
        raise FormatError("it has no title")
    return title, rest.strip("\n"), _Trailers(last)


class _Trailers:
    """The trailers of one message; each is asked for once, and none may be left."""

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        for line in text.split("\n"):
            match = _TRAILER.fullmatch(line)
            if match is None:
                raise FormatError(f"`{line!r:.80}` is no trailer")
            values = self._values.setdefault(match[1], [])
            values.append(match[2])
            if len(values) > MAX_REPEATED:
                raise FormatError(f"more than {MAX_REPEATED} times `Gittrack-{match[1]}`")

    def all(self, name: str) -> list[str]:
        return self._values.pop(name, [])

    def optional(self, name: str) -> str | None:
        values = self.all(name)
        if len(values) > 1:
            raise FormatError(f"`Gittrack-{name}` is there {len(values)} times")
        return values[0] if values else None

    def one(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        value = self.optional(name)
        if value is None:
            raise FormatError(f"`Gittrack-{name}` is missing")
        if pattern is not None and not pattern.fullmatch(value):
            raise FormatError(f"`Gittrack-{name}` is `{value!r:.80}`")
        return value

    def expect(self, name: str, value: str) -> None:
        found = self.one(name)
        if found != value:
            raise FormatError(f"`Gittrack-{name}` is `{found!r:.80}`, its name says `{value!r:.80}`")

    def refs(self, name: str, key: str, size: int) -> tuple[EventRef, ...]:
        return tuple(_ref(value, key, size) for value in self.all(name))

    def done(self) -> None:
        if self._values:
            raise FormatError(f"`Gittrack-{next(iter(self._values))}` is unknown here", hint="update gittrack")


def _event(name: names.TagName, trailers: _Trailers, known: dict[str, Any]) -> Event:
    """The event of a tag of that name; ``known`` is what its trailers do not say."""
    trailers.expect("Model", name.key)
    known |= {"key": name.key, "number": name.number, "time": int(trailers.one("Time", _TIME))}
    size = len(known["target"])
    known["replaces"] = trailers.refs("Replaces", name.key, size)
    if name.slot != "v" and (was := trailers.optional("Was")) is not None:
        if names.parse_tag(was)[:2] != name[:2]:
            raise FormatError(f"`Gittrack-Was` is `{was!r:.80}`")
        known["was"] = was
    if name.slot.startswith("@"):
        alias = names.check_alias(name.slot[1:])
        trailers.expect("Alias", alias)
        version = trailers.optional("Version")
        if version is None:
            return AliasTag(alias=alias, version=None, **known)
        return AliasTag(alias=alias, version=_number(version), **_content(trailers), **known)
    if name.slot == "v":
        trailers.expect("Version", str(name.number))
        path, model_id = _path(trailers), trailers.optional("Model-Id")
        if model_id is not None:
            check_model_id(model_id)
        elsewhere = {} if path else _elsewhere(trailers)
        return VersionTag(path=path, model_id=model_id, **elsewhere, **_content(trailers), **known)
    stage = ModelVersionStages.canonical(name.slot)
    trailers.expect("Stage", stage)
    return StageTag(
        version=_number(trailers.one("Version")),
        stage=stage,
        archives=tuple(_number(value) for value in trailers.all("Archives")),
        approves=trailers.refs("Approves", name.key, size),
        **_content(trailers),
        **known,
    )


def _content(trailers: _Trailers) -> dict[str, Any]:
    run_id = check_run_id(trailers.one("Run"))
    return {"run_id": run_id, "manifest": Digest(trailers.one("Manifest-SHA256", _DIGEST))}


def check_model_id(model_id: str) -> str:
    """MLflow's id of a logged model.  Raises InvalidValueError."""
    if not isinstance(model_id, str) or not _MODEL_ID.fullmatch(model_id):
        raise InvalidValueError(f"invalid model id `{model_id!r:.80}`")
    return model_id


def check_source(source: object) -> str:
    """The address of files that are elsewhere.  Raises InvalidValueError."""
    if not isinstance(source, str) or not source or len(source) > MAX_SOURCE or _CONTROL.search(source):
        raise InvalidValueError(
            f"invalid address `{source!r:.80}`", hint=f"one line of at most {MAX_SOURCE} characters"
        )
    return source


def _elsewhere(trailers: _Trailers) -> dict[str, Any]:
    source = _unescaped(trailers, "Source")
    if source is None:
        return {}
    run = trailers.optional("Source-Run")
    return {"source": check_source(source), "source_run": None if run is None else check_run_id(run)}


def _path(trailers: _Trailers) -> str:
    path = _unescaped(trailers, "Path")
    if path is None:
        return ""
    if limits.check_artifact_path(path) != path:
        raise FormatError(f"`Gittrack-Path` is `{path!r:.80}`")
    return path


def _unescaped(trailers: _Trailers, name: str) -> str | None:
    """What ``_escape`` made the value of a trailer of."""
    text = trailers.optional(name)
    if text is None:
        return None
    try:
        value = unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise FormatError(f"`Gittrack-{name}` is `{text!r:.80}`") from error
    if _escape(value) != text:
        raise FormatError(f"`Gittrack-{name}` is `{text!r:.80}`")
    return value


def _number(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text) or int(text) > names.MAX_NUMBER:
        raise FormatError(f"`{text!r:.40}` is no version")
    return int(text)


def _ref(text: str, key: str, size: int) -> EventRef:
    tag, _, oid = text.partition(" ")
    if names.parse_tag(tag).key != key or len(oid) != size or not _OID.fullmatch(oid):
        raise FormatError(f"`{text!r:.200}` names no event of this model")
    return EventRef(tag, ObjectId(oid))


# -- for the index's cache ---------------------------------------------------------------------------------------------

_KINDS: Final[Sequence[type[Event]]] = (VersionTag, StageTag, AliasTag)
_FIELDS: Final = {kind: tuple(one.name for one in fields(kind)) for kind in _KINDS}


def to_list(event: Event) -> list[Any]:
    """An event as msgpack can hold it."""
    return [_KINDS.index(type(event)), *(getattr(event, name) for name in _FIELDS[type(event)])]


def from_list(values: list[Any]) -> Event:
    """The inverse of ``to_list``, as msgpack gives it back."""
    kind = _KINDS[values[0]]
    known = dict(zip(_FIELDS[kind], values[1:], strict=True))
    for name in ("replaces", "approves"):
        if name in known:
            known[name] = tuple(EventRef(tag, ObjectId(oid)) for tag, oid in known[name])
    if "archives" in known:
        known["archives"] = tuple(known["archives"])
    event: Event = kind(**known)
    return event
