"""Catalog: what is known of all models, read: from refs and git objects into the index, and out of it by name.

A tag object is read out of git once, a model is folded again when one of its refs moved, and every question after that
is one to the index.  Nothing here changes a ref.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from gittrack.errors import ConflictError, CorruptError, FormatError, InvalidValueError, NotFoundError
from gittrack.registry import documents, events, names
from gittrack.registry.documents import Document
from gittrack.registry.events import Event
from gittrack.registry.manifest import Manifest
from gittrack.registry.state import ModelState
from gittrack.store import gateway, layout
from gittrack.store.index import MODEL_VERSIONS, MODELS, Row, Table
from gittrack.types import LifecycleStage, ModelVersion, ModelVersionStages, ObjectId, PagedList, RegisteredModel

if TYPE_CHECKING:
    from gittrack.store.index import CompiledQuery
    from gittrack.store.repo import Repo

#: MLflow's greatest pages.
MAX_MODELS: Final = 1_000
MAX_VERSIONS: Final = 200_000
#: Events, and versions, that are kept as they were read, unless a single model has more.
_KEPT: Final = 4_000

T = TypeVar("T")
_REMOTE = re.compile(r"refs/gittrack/remotes/.+/tags/(models/[^/]+/.+)")
_VERSION_FIELDS: Final = tuple(one.name for one in fields(ModelVersion))


class _Refs(NamedTuple):
    """The refs that concern one model."""

    own: dict[str, ObjectId]  #: tag name to tag object
    seen: dict[str, ObjectId]  #: full ref to tag object
    documents: list[ObjectId]  #: blobs

    def digest(self) -> str:
        """Differs if any of them moved."""
        text = repr((sorted(self.own.items()), sorted(self.seen.items()), sorted(self.documents)))
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


class Catalog:
    """All models of a repo, to be read.

    Args:
        repo: Where they are.
    """

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self._events: dict[str, Event | str] = {}  # what tag objects say, as they were read lately
        self._indexed: dict[str, tuple[str, dict[int, ModelVersion]]] = {}  # of models: which refs gave which versions

    # -- index -------------------------------------------------------------------------------------------------------

    def refresh(self, *, changed: bool = False) -> None:
        """Bring the index up to the refs.  Costs a look at the refs when nothing changed.

        ``changed`` says that something did, which saves finding that out.
        """
        self.repo.look()
        index = self.repo.index
        if not changed and index.meta_get("registry") == self._stamp():
            return
        with index.transaction():
            stamp = self._stamp()  # looked at again where only one process is at a time
            known: dict[str, str] = index.meta_get("registry.models") or {}
            found, problems = self._refs()
            now = {key: about.digest() for key, about in found.items()}
            for key in {*known, *now}:
                if known.get(key) != now.get(key):
                    self._index(key, found.get(key, _Refs({}, {}, [])), known.get(key))
            index.meta_set("registry.models", now)
            index.meta_set("registry.problems", problems)
            index.meta_set("registry", stamp)

    def problems(self) -> list[str]:
        """What is wrong with tags and documents, one line each: they do not count."""
        self.refresh()
        found = list(self.repo.index.meta_get("registry.problems") or [])
        for key in self.repo.index.meta_get("registry.models") or {}:
            found += self.state(key).problems
        return found

    def stale(self) -> list[str]:
        """The keys of the models of which the index says something else than refs and git objects do."""
        self.refresh()
        wrong = {model.key for model in self.models()}
        for key, about in self._refs()[0].items():
            state = self._fold(key, about, _events(self._read({*about.own.values(), *about.seen.values()})))
            model, versions = state.records()
            known = sorted(self.versions(key=key), key=lambda version: int(version.version))
            if self.models(key=key) == ([model] if state.exists else []) and known == versions:
                wrong.discard(key)
            else:
                wrong.add(key)
        return sorted(wrong)

    def _stamp(self) -> str:
        prefixes = (layout.TAG_PREFIX, layout.DOCUMENT_PREFIX, layout.REMOTE_PREFIX)
        return "".join(self.repo.git.refs_fingerprint(prefix).hex() for prefix in prefixes)

    def _refs(self) -> tuple[dict[str, _Refs], list[str]]:
        """The refs of every model by key, and what is wrong with those of none."""
        found: dict[str, _Refs] = {}
        problems: list[str] = []

        def of(key: str) -> _Refs:
            return found.setdefault(key, _Refs({}, {}, []))

        for ref, oid in self.repo.git.refs(layout.TAG_PREFIX).items():
            name = ref[len("refs/tags/") :]
            try:
                of(names.parse_tag(name).key).own[name] = oid
            except FormatError as error:
                problems.append(f"{error.message}: it does not count")
        for ref, oid in self.repo.git.refs(layout.REMOTE_PREFIX).items():
            match = _REMOTE.fullmatch(ref)
            key = match[1].split("/")[1] if match else ""
            if match is not None and names.is_key(key):
                of(key).seen[ref] = oid
        for ref, commit in self.repo.git.refs(layout.DOCUMENT_PREFIX).items():
            try:
                for key, blob in documents.blobs(self.repo.git, commit).items():
                    of(key).documents.append(blob)
            except (NotFoundError, CorruptError) as error:
                problems.append(f"`{ref}` cannot be read: {error.message}")
        return found, problems

    def _index(self, key: str, about: _Refs, before: str | None) -> None:
        """Put what is known of a model into the index, which has what refs of the digest ``before`` gave."""
        index = self.repo.index
        lacking = index.parsed_lacks({*about.own.values(), *about.seen.values()})
        index.parsed_set(self._read(map(ObjectId, lacking)))
        index.meta_set(f"registry:{key}", list(about) if any(about) else None)
        state = self.state(key)
        model, versions = state.records()
        digest, same = self._indexed.pop(key, ("", {}))
        if digest != before:
            same = {}
        now = {int(version.version): version for version in versions}
        kept = {number for number, version in now.items() if same.get(number) == version}
        index.put_rows(MODELS, key, [_model_row(model)] if state.exists else [])
        rows = (_version_row(version) for number, version in now.items() if number not in kept)
        index.put_rows(MODEL_VERSIONS, key, rows, kept)
        self._indexed[key] = about.digest(), now
        while len(self._indexed) > 1 and sum(len(known) for _, known in self._indexed.values()) > _KEPT:
            self._indexed.pop(next(iter(self._indexed)))

    def _read(self, oids: Iterable[ObjectId]) -> dict[str, Any]:
        """What tag objects say: an event as ``events.to_list`` gives it, or why it is none."""
        said: dict[str, Any] = {}
        for oid in sorted(oids):
            try:
                said[oid] = events.to_list(events.parse(oid, self.repo.git.read_tag(oid)))
            except FormatError as error:
                said[oid] = error.message
            except (NotFoundError, CorruptError):  # it may come with the next fetch, or be mended
                continue
        return said

    def state(self, key: str) -> ModelState:
        """The fold of what the index has of a model."""
        own, seen, blobs = self.repo.index.meta_get(f"registry:{key}") or ({}, {}, [])
        return self._fold(key, _Refs(own, seen, blobs), self._said({*own.values(), *seen.values()}))

    def _said(self, oids: Collection[str]) -> Mapping[str, Event | str]:
        """What the index has of these tag objects, at least, which never change: events, or why they are none."""
        known = self._events
        missing = [oid for oid in oids if oid not in known]
        if missing:
            if len(known) + len(missing) > _KEPT:
                known, missing = {}, list(oids)
            known = self._events = {**known, **_events(self.repo.index.parsed_get(missing))}
        return known

    def _fold(self, key: str, about: _Refs, said: Mapping[str, Event | str]) -> ModelState:
        """The fold of these refs, whose tag objects say what ``said`` has."""
        problems: list[str] = []

        def known(tag: str, oid: str) -> Iterable[Event]:
            event = said.get(oid)
            if event is None or isinstance(event, str):
                problems.append(f"`{tag}` does not count: {event or 'its object is missing or no annotated tag'}")
                return ()
            if event.tag != tag:
                problems.append(f"`{tag}` does not count: it was made as `{event.tag}`")
                return ()
            return (event,)

        mine = [event for tag, oid in about.own.items() for event in known(tag, oid)]
        others = [event for ref, oid in about.seen.items() for event in known(_REMOTE.sub(r"\1", ref), oid)]
        try:
            document = documents.read(self.repo.git, key, about.documents)
        except (NotFoundError, CorruptError) as error:
            problems.append(error.message)
            document = Document(key)
        state = ModelState(key, mine, others, document)
        state.problems[:0] = problems
        return state

    def own_events(self, key: str) -> list[Event]:
        """What this clone's tags say of a model, whether it counts or not."""
        own: dict[str, ObjectId] = (self.repo.index.meta_get(f"registry:{key}") or ({},))[0]
        said = self._said({*own.values()})
        found = [event for oid in own.values() if isinstance(event := said.get(oid), Event)]
        return [event for event in found if own.get(event.tag) == event.oid]

    def seen(self, key: str, remote: str | None = None) -> set[ObjectId]:
        """The tag objects of a model that were seen on some remote, or on one."""
        _, seen, _ = self.repo.index.meta_get(f"registry:{key}") or ({}, {}, [])
        prefix = layout.REMOTE_PREFIX + (f"{remote}/tags/" if remote is not None else "")
        return {oid for ref, oid in seen.items() if ref.startswith(prefix)}

    def unpublished(self, version: ModelVersion) -> bool:
        """True if the remote that this clone shares with has not taken the version's number yet.

        Without a remote the clone is the authority, and every number is official.
        """
        remote = gateway.default_remote(self.repo.paths, self.repo.git.head_branch())
        return remote is not None and version.tag_oid not in self.seen(version.key, remote)

    # -- looking up --------------------------------------------------------------------------------------------------

    def models(self, **equal: str | int) -> list[RegisteredModel]:
        """The models, deleted ones too, whose columns have these values."""
        return [to_model(row) for row in self.repo.index.find_rows(MODELS, **equal)]

    def versions(self, **equal: str | int) -> list[ModelVersion]:
        """The versions, deleted ones too, whose columns have these values."""
        return [to_version(row) for row in self.repo.index.find_rows(MODEL_VERSIONS, **equal)]

    def count(self, key: str) -> int:
        """How many versions of a model are not deleted."""
        return self.repo.index.count_rows(MODEL_VERSIONS, key=key, lifecycle_stage=LifecycleStage.ACTIVE)

    def model(self, name: str) -> RegisteredModel:
        """A model that is not deleted, by its name, or by ``:`` and its key.

        Raises:
            NotFoundError: There is none; says what exists.
            ConflictError: There are several: clones gave the same name to different models.
            InvalidValueError: It can be no model's name.
        """
        if isinstance(name, str) and name.startswith(":"):
            found = self.models(key=name[1:], lifecycle_stage=LifecycleStage.ACTIVE)
        else:
            name = names.check_model_name(name)
            found = self.models(name=name, lifecycle_stage=LifecycleStage.ACTIVE)
        if len(found) > 1:
            keys = ", ".join(f"`:{model.key}`" for model in found)
            raise ConflictError(
                f"{len(found)} models are called `{name}`: {keys}", hint="rename one, by its key with the colon"
            )
        if not found:
            raise self._no_model(name)
        return found[0]

    def _no_model(self, name: str) -> NotFoundError:
        known = self.models()
        if any(model.name == name for model in known):
            return NotFoundError(
                f"model `{name}` is deleted", hint=f"`gittrack models restore '{name}'` brings it back"
            )
        active = sorted(model.name for model in known if model.lifecycle_stage == LifecycleStage.ACTIVE)
        near = difflib.get_close_matches(name, active, n=1)
        if near:
            return NotFoundError(f"no model `{name:.200}`", hint=f"did you mean `{near[0]}`?")
        shown = ", ".join(f"`{one}`" for one in active[:5]) + (" …" if len(active) > 5 else "")
        return NotFoundError(f"no model `{name:.200}`", hint=f"there is {shown}" if shown else "there are none yet")

    def version(self, model: RegisteredModel, number: int) -> ModelVersion:
        """A version that is not deleted.  Raises NotFoundError."""
        found = self.versions(key=model.key, version_number=number)
        if not found or found[0].lifecycle_stage == LifecycleStage.DELETED:
            raise self.no_version(model, number, deleted=bool(found))
        return found[0]

    def no_version(self, model: RegisteredModel, number: int, *, deleted: bool = False) -> NotFoundError:
        """The error that says that a version does not exist and which do."""
        if deleted:
            return NotFoundError(
                f"version {number} of model `{model.name}` is deleted",
                hint=f"`gittrack models restore '{model.name}@v{number}'` brings it back",
            )
        rows = self.versions(key=model.key, lifecycle_stage=LifecycleStage.ACTIVE)
        known = sorted(int(version.version) for version in rows)
        shown = ", ".join(map(str, known)) if len(known) <= 8 else f"{known[0]} to {known[-1]}"
        return NotFoundError(
            f"model `{model.name}` has no version {number}", hint=f"it has {shown}" if known else "it has none yet"
        )

    def next_number(self, key: str, slot: str) -> int:
        """The number of the next version or event (``names.TagName`` has the slots): above every one ever seen."""
        own, seen, _ = self.repo.index.meta_get(f"registry:{key}") or ({}, {}, [])
        numbers = [0]
        for tag in (*own, *(_REMOTE.sub(r"\1", ref) for ref in seen)):
            try:
                name = names.parse_tag(tag)
            except FormatError:  # of a remote; one of this clone was looked at before
                continue
            if name.slot == slot:
                numbers.append(name.number)
        return max(numbers) + 1

    def search_models(
        self, filter_string: str | None, size: int, order_by: Sequence[str] | None, token: str | None
    ) -> PagedList[RegisteredModel]:
        """One page of the models that match.  Raises QuerySyntaxError, InvalidValueError."""
        from gittrack.registry import prompts
        from gittrack.track import query

        where = prompts.apart(query.parse_filter(filter_string, query.MODELS))
        compiled = query.compile_query(where, query.parse_order(order_by, query.MODELS), query.MODELS)
        return self._page(MODELS, compiled, to_model, size, MAX_MODELS, token)

    def search_versions(
        self, filter_string: str | None, size: int, order_by: Sequence[str] | None, token: str | None
    ) -> PagedList[ModelVersion]:
        """One page of the versions of all models that match.  Raises QuerySyntaxError, InvalidValueError."""
        from gittrack.registry import prompts
        from gittrack.track import query

        where = prompts.apart(query.parse_filter(filter_string, query.MODEL_VERSIONS))
        compiled = query.compile_query(where, query.parse_order(order_by, query.MODEL_VERSIONS), query.MODEL_VERSIONS)
        return self._page(MODEL_VERSIONS, compiled, to_version, size, MAX_VERSIONS, token)

    def _page(
        self,
        table: Table,
        compiled: CompiledQuery,
        convert: Callable[[list[Any]], T],
        size: int,
        most: int,
        token: str | None,
    ) -> PagedList[T]:
        from gittrack.track import query

        offset = query.page_offset(token)
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= most:
            raise InvalidValueError(f"max_results is `{size}`, it must be a number from 1 to {most}")
        self.refresh()
        found = self.repo.index.search_rows(table, compiled, limit=size + 1, offset=offset)
        return PagedList(map(convert, found[:size]), query.page_token(offset + size) if len(found) > size else None)

    # -- addresses ---------------------------------------------------------------------------------------------------

    def resolve(self, address: str) -> ModelVersion:
        """The version that an address stands for (``names.parse_address`` has the forms).

        Raises:
            NotFoundError: No such model, version or alias, or the stage is empty; says what exists.
            ConflictError: Clones disagree about the stage, the alias or the version.
            InvalidValueError: It is no address, or one of a model without a version.
        """
        wanted = names.parse_address(address)
        self.refresh()
        model = self.model(wanted.name)
        version = self._addressed(model, wanted)
        self.require_agreement(model, f"v{version.version}")
        return version

    def _addressed(self, model: RegisteredModel, wanted: names.Address) -> ModelVersion:
        if wanted.version is not None:
            return self.version(model, wanted.version)
        if wanted.latest:
            if not model.latest_versions:
                raise NotFoundError(f"model `{model.name}` has no versions")
            return max(model.latest_versions, key=lambda one: int(one.version))
        if wanted.word is not None:
            return self._meant_by(model, wanted.word)
        if wanted.stage is not None:
            return self._in_stage(model, wanted.stage)
        raise InvalidValueError(
            f"`{model.name}` names a model and no version of it",
            hint=f"write `{model.name}/Production`, `{model.name}@ALIAS`, `{model.name}/3` or `{model.name}/latest`",
        )

    def _meant_by(self, model: RegisteredModel, word: str) -> ModelVersion:
        """The version that an alias, a number or a stage behind an ``@`` stands for."""
        self.require_agreement(model, f"@{word}")
        if word in model.aliases:
            return self.version(model, int(model.aliases[word]))
        if word.isascii() and word.isdecimal():
            return self.version(model, names.check_version(word))
        for stage in ModelVersionStages.ALL:
            if word.lower() == stage.lower():
                return self._in_stage(model, stage)
        known = [*model.aliases, *(stage.lower() for stage in ModelVersionStages.ALL)]
        near = difflib.get_close_matches(word, known, n=1)
        aliases = ", ".join(f"`@{alias}`" for alias in model.aliases)
        hint = f"did you mean `@{near[0]}`?" if near else f"it has {aliases}" if aliases else "it has no aliases"
        raise NotFoundError(f"model `{model.name}` has no alias `{word}`", hint=hint)

    def _in_stage(self, model: RegisteredModel, stage: str) -> ModelVersion:
        self.require_agreement(model, stage)
        for version in model.latest_versions:
            if version.current_stage == stage:
                return version
        there = ", ".join(f"v{version.version} is {version.current_stage}" for version in model.latest_versions)
        raise NotFoundError(
            f"no version of model `{model.name}` is {stage}",
            hint=there or f"`gittrack models register RUN {model.name}` makes one",
        )

    def require_agreement(self, model: RegisteredModel, about: str) -> None:
        """Raise ConflictError if clones disagree about a stage, ``@<alias>`` or ``v<N>``."""
        if about in model.conflicts:
            self.state(model.key).require_agreement(about)

    # -- content -----------------------------------------------------------------------------------------------------

    def manifest(self, version: ModelVersion) -> Manifest:
        """The files of a version, as the commit that its tag points at has them.

        Raises:
            CorruptError: They are not those that the tag vouches for.
            NotFoundError: The commit is not in this clone.
        """
        manifest = self.manifest_at(version.commit, version.path)
        if manifest.digest != version.manifest:
            raise CorruptError(
                f"the files of `{version.name}` v{version.version} are not those that were registered",
                hint="`gittrack fsck` tells more; fetch the version again",
            )
        return manifest

    def manifest_at(self, commit: ObjectId, path: str) -> Manifest:
        """The files at a path among the artifacts of a run commit.  Raises CorruptError, NotFoundError."""
        if not self.repo.is_run_commit(commit):
            raise CorruptError(f"commit `{commit}` is no run commit", hint="`gittrack fsck` tells more")
        folder, _, _ = path.rpartition("/")
        artifacts = self.repo.artifacts_of(commit, path) or self.repo.artifacts_of(commit, folder)
        return Manifest.of(artifacts.values(), path)

    def by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that has an alias, or the newest for ``latest``.

        Raises:
            NotFoundError: No such model, or no version at all.
            InvalidValueError: No such alias: MLflow's error for it.
            ConflictError: Clones disagree about the alias.
        """
        if isinstance(alias, str) and alias.lower() == "latest":
            return self.resolve(f"{names.check_model_name(name)}/latest")
        if not isinstance(alias, str) or not re.fullmatch(r"[\w\-]+", alias):
            raise InvalidValueError(f"invalid alias `{alias!r:.80}`", hint="letters, digits, `_` and `-` only")
        self.refresh()
        model = self.model(name)
        self.require_agreement(model, f"@{alias}")
        if alias not in model.aliases:
            known = ", ".join(f"`{one}`" for one in model.aliases)
            raise InvalidValueError(
                f"model `{name}` has no alias `{alias}`", hint=f"it has {known}" if known else "it has none"
            )
        return self.version(model, int(model.aliases[alias]))


# ----------------------------------------------------------------------------------------------------------------------


def _events(said: Mapping[str, Any]) -> dict[str, Event | str]:
    """What ``Catalog._read`` gives, as events."""
    return {oid: events.from_list(values) if isinstance(values, list) else values for oid, values in said.items()}


def to_version(values: list[Any]) -> ModelVersion:
    """A version from its document in the index."""
    return ModelVersion(*values)


def to_model(values: list[Any]) -> RegisteredModel:
    """A model from its document in the index."""
    known = list(values)
    place = RegisteredModel.__slots__.index("latest_versions")
    known[place] = [ModelVersion(*version) for version in known[place]]
    return RegisteredModel(*known)


def _version_row(version: ModelVersion) -> Row:
    values = {
        "key": version.key,
        "version_number": int(version.version),
        "name": version.name,
        "lifecycle_stage": version.lifecycle_stage,
        "current_stage": version.current_stage,
        "run_id": version.source_run_id if version.elsewhere else version.run_id,
        "source": version.source,
        "manifest": version.manifest,
        "creation_timestamp": version.creation_timestamp,
        "last_updated_timestamp": version.last_updated_timestamp,
    }
    return Row(values, version.tags, [getattr(version, name) for name in _VERSION_FIELDS])


def _model_row(model: RegisteredModel) -> Row:
    values = {
        "key": model.key,
        "name": model.name,
        "lifecycle_stage": model.lifecycle_stage,
        "creation_timestamp": model.creation_timestamp,
        "last_updated_timestamp": model.last_updated_timestamp,
    }
    doc = [getattr(model, one.name) for one in fields(model)]
    place = RegisteredModel.__slots__.index("latest_versions")
    doc[place] = [[getattr(version, name) for name in _VERSION_FIELDS] for version in model.latest_versions]
    return Row(values, model.tags, doc)
