"""Registry: models by name, as the Python API, the command line and the server call it.

Every change is one publish: new tags, created and never moved, and this clone's documents, together or not at all.
Every read goes through the index, which is brought up to the refs first; what a tag object says is read out of git
once.  A call that fails has changed nothing.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from gittrack.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptError,
    FormatError,
    InvalidValueError,
    NotFoundError,
    StateError,
)
from gittrack.registry import documents, events, names
from gittrack.registry.documents import Document, Edit
from gittrack.registry.events import AliasTag, Event, StageTag, VersionTag
from gittrack.registry.manifest import Manifest
from gittrack.registry.state import Change, ModelState, refs
from gittrack.store import files, layout, seal
from gittrack.store.index import MODEL_VERSIONS, MODELS, Row, Table
from gittrack.store.refs import RefUpdate
from gittrack.store.repo import LOCK_TIMEOUT
from gittrack.track import limits
from gittrack.types import (
    Digest,
    LifecycleStage,
    ModelVersion,
    ModelVersionStages,
    ObjectId,
    PagedList,
    RegisteredModel,
    Run,
    RunId,
    ViewType,
    check_run_id,
)

if TYPE_CHECKING:
    from gittrack.store.pack import Batch
    from gittrack.track.query import Entity
    from gittrack.track.runs import Tracker

#: MLflow's greatest pages.
MAX_MODELS: Final = 1_000
MAX_VERSIONS: Final = 200_000
#: Attempts to publish while others (a `git fetch`, say) move the same refs.
ATTEMPTS: Final = 20
#: Seconds to wait for a run of another process whose code is being captured.
CAPTURE_TIMEOUT: Final = 10.0
#: Characters of a description.
MAX_DESCRIPTION: Final = 100_000

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


class Registry:
    """Registered models and their versions.  Threads may share it.

    Args:
        tracker: The runs that the models come from.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.repo = tracker.repo

    # -- models ------------------------------------------------------------------------------------------------------

    def create_model(
        self, name: str, tags: Mapping[str, Any] | None = None, description: str | None = None
    ) -> RegisteredModel:
        """Make a model without versions.

        The name of a deleted model can be used anew: its old versions stay deleted, and its numbers are not used again.

        Raises:
            AlreadyExistsError: The name is taken, or differs from a taken one only by upper and lower case.
            InvalidValueError: A bad name, tag or description.
        """
        name = names.check_model_name(name)
        changes = _described(description) | _tagged(tags)
        with self._writing():
            key, revived = self._new_key(name)
            self._edit(key, {"name": name, "lifecycle": LifecycleStage.ACTIVE} | revived | changes)
        return self.get_model(name)

    def get_model(self, name: str) -> RegisteredModel:
        """A model by its name.  Raises NotFoundError, which says what exists, and InvalidValueError."""
        self.refresh()
        return self._model(name)

    def rename_model(self, name: str, new_name: str) -> RegisteredModel:
        """Give a model another name; its refs keep the first one.  Raises NotFoundError, AlreadyExistsError."""
        new_name = names.check_model_name(new_name)
        with self._writing():
            model = self._model(name)
            if new_name != model.name:
                self._require_free(new_name, but=model.key)
                self._edit(model.key, {"name": new_name, **_now_updated()})
        return self.get_model(new_name)

    def describe_model(self, name: str, description: str | None) -> RegisteredModel:
        """Change the description of a model; None removes it.  Raises NotFoundError."""
        with self._writing():
            model = self._model(name)
            self._edit(model.key, {**_described(description, remove=True), **_now_updated()})
        return self.get_model(name)

    def delete_model(self, name: str, reason: str = "") -> None:
        """Delete a model with all its versions; ``restore_model`` brings them back.  Raises NotFoundError."""
        with self._writing():
            self._edit(self._model(name).key, {"lifecycle": LifecycleStage.DELETED, **_now_updated()}, reason)

    def restore_model(self, name: str) -> RegisteredModel:
        """Undo ``delete_model``.

        Raises:
            NotFoundError: No such model.
            StateError: It is not deleted.
            AlreadyExistsError: Another model has got the name meanwhile.
        """
        with self._writing():
            deleted = self._rows(MODELS, _to_model, name=name, lifecycle_stage=LifecycleStage.DELETED)
            if not deleted:
                self._model(name)
                raise StateError(f"model `{name}` is not deleted")
            self._require_free(name, but=deleted[0].key)
            self._edit(deleted[0].key, {"lifecycle": LifecycleStage.ACTIVE, **_now_updated()})
        return self.get_model(name)

    def tag_model(self, name: str, tags: Mapping[str, Any], removed: Iterable[str] = ()) -> None:
        """Set and remove tags of a model; removing one that is not there is no error.  Raises NotFoundError."""
        changes = _tagged(tags) | {f"tags.{names.check_tag_key(key)}": None for key in removed}
        with self._writing():
            self._edit(self._model(name).key, changes)

    def search_models(
        self,
        filter_string: str | None = None,
        max_results: int = 100,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """One page of the models that match, by name unless ``order_by`` says otherwise.

        Args:
            filter_string: Over ``name``, ``creation_timestamp``, ``last_updated_timestamp`` and ``tags.<key>``.
            max_results: Models on a page, 1 to 1,000.
            order_by: Columns, each with ``ASC`` or ``DESC``.
            page_token: The ``token`` of the page before.

        Raises:
            QuerySyntaxError, InvalidValueError: An argument is wrong.
        """
        from gittrack.track import query

        return self._search(
            MODELS, query.MODELS, _to_model, (filter_string, max_results, order_by, page_token), MAX_MODELS
        )

    # -- versions ----------------------------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        run_id: str,
        path: str,
        *,
        description: str | None = None,
        tags: Mapping[str, Any] | None = None,
        model_id: str | None = None,
        run_link: str | None = None,
    ) -> ModelVersion:
        """Register what a run logged at ``path`` as the next version of a model, which is made if there is none.

        The run is committed first; one that goes on is committed as it is now.

        Args:
            name: The model's.
            run_id: The run.
            path: A folder or file among its artifacts; empty: all of them.
            description: Of the version.
            tags: Of the version; the values become text.
            model_id: MLflow's id of the logged model, if it has one.
            run_link: Where the run is shown, if that is somewhere else.

        Raises:
            NotFoundError: No such run, or it has nothing at ``path``.
            StateError: The run is deleted.
            AlreadyExistsError: The name differs from another model's only by upper and lower case.
            InvalidValueError: A bad name, path, tag or description.
        """
        name = names.check_model_name(name)
        if path:
            path = limits.check_artifact_path(path)
        if model_id is not None:
            events.check_model_id(model_id)
        said = _described(description) | _tagged(tags)
        if run_link is not None:
            said["run_link"] = run_link
        run = self.tracker.get_run(run_id)
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            raise StateError(f"run `{run_id}` is deleted", hint=f"`gittrack restore {run_id}` brings it back")
        self._require_artifacts(run_id, path)
        with self._writing():  # a bad name is refused before the run is committed for it
            self._key_for(name)
        commit = self._commit_of(check_run_id(run_id))
        manifest = self._manifest_at(commit, path)

        def attempt() -> int | None:
            key, changes = self._key_for(name)
            state = self._state(key)
            number = state.next_number
            changes |= {f"versions.{number}.{field}": value for field, value in said.items()}
            event = VersionTag(
                key=key, number=number, target=commit, run_id=run_id, path=path, manifest=manifest.digest,
                model_id=model_id, title=f"{name} v{number}: {_headline(run)}", **self._now(),
            )  # fmt: skip
            return number if self._publish([event], key, changes) else None

        return self.get_version(name, self._retried(attempt))

    def get_version(self, name: str, version: int | str) -> ModelVersion:
        """A version by its number.  Raises NotFoundError, which says what exists, and InvalidValueError."""
        number = names.check_version(version)
        self.refresh()
        return self._version(self._model(name), number)

    def versions(self, name: str, view: int = ViewType.ACTIVE_ONLY) -> list[ModelVersion]:
        """The versions of a model, oldest first.  Raises NotFoundError."""
        model = self.get_model(name)
        found = self._rows(MODEL_VERSIONS, _to_version, key=model.key)
        stages = ViewType.stages(view)
        return sorted((one for one in found if one.lifecycle_stage in stages), key=lambda one: int(one.version))

    def latest(self, name: str, stages: Sequence[str] | None = None) -> list[ModelVersion]:
        """The newest version in each stage, or in each of ``stages``.

        Raises:
            NotFoundError: No such model.
            ConflictError: Clones disagree about a stage that was asked for.
        """
        model = self.get_model(name)
        if not stages:
            return model.latest_versions
        wanted = {ModelVersionStages.canonical(stage) for stage in stages}
        for stage in sorted(wanted.intersection(model.conflicts)):
            self._state(model.key).require_agreement(stage)
        return [version for version in model.latest_versions if version.current_stage in wanted]

    def describe_version(self, name: str, version: int | str, description: str | None) -> ModelVersion:
        """Change the description of a version; None removes it.  Raises NotFoundError."""
        self._edit_version(name, version, {**_described(description, remove=True), **_now_updated()})
        return self.get_version(name, version)

    def tag_version(self, name: str, version: int | str, tags: Mapping[str, Any], removed: Iterable[str] = ()) -> None:
        """Set and remove tags of a version; removing one that is not there is no error.  Raises NotFoundError."""
        changes = _tagged(tags) | {f"tags.{names.check_tag_key(key)}": None for key in removed}
        self._edit_version(name, version, changes)

    def delete_version(self, name: str, version: int | str, reason: str = "") -> None:
        """Delete a version; ``restore_version`` brings it back.  Raises NotFoundError."""
        self._edit_version(name, version, {"lifecycle": LifecycleStage.DELETED, **_now_updated()}, reason)

    def restore_version(self, name: str, version: int | str) -> ModelVersion:
        """Undo ``delete_version``.  Raises NotFoundError, StateError if it is not deleted."""
        number = names.check_version(version)
        with self._writing():
            model = self._model(name)
            found = self._rows(MODEL_VERSIONS, _to_version, key=model.key, version_number=number)
            if not found:
                raise self._no_version(model, number)
            if found[0].lifecycle_stage == LifecycleStage.ACTIVE:
                raise StateError(f"version {number} of model `{name}` is not deleted")
            changes = {"lifecycle": LifecycleStage.ACTIVE, **_now_updated()}
            self._edit(model.key, {f"versions.{number}.{field}": value for field, value in changes.items()})
        return self.get_version(name, number)

    def _edit_version(self, name: str, version: int | str, changes: Mapping[str, str | None], reason: str = "") -> None:
        number = names.check_version(version)
        with self._writing():
            model = self._model(name)
            self._version(model, number)
            self._edit(model.key, {f"versions.{number}.{field}": value for field, value in changes.items()}, reason)

    def search_versions(
        self,
        filter_string: str | None = None,
        max_results: int = 10_000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """One page of the versions of all models that match, last changed first unless ``order_by`` says otherwise.

        Args:
            filter_string: Over ``name``, ``version_number``, ``run_id``, ``source_path``, ``stage``, the two times, and
                ``tags.<key>``.
            max_results: Versions on a page, 1 to 200,000.
            order_by: Columns, each with ``ASC`` or ``DESC``.
            page_token: The ``token`` of the page before.

        Raises:
            QuerySyntaxError, InvalidValueError: An argument is wrong.
        """
        from gittrack.track import query

        return self._search(
            MODEL_VERSIONS,
            query.MODEL_VERSIONS,
            _to_version,
            (filter_string, max_results, order_by, page_token),
            MAX_VERSIONS,
        )

    # -- stages and aliases ------------------------------------------------------------------------------------------

    def promote(
        self, name: str, version: int | str, stage: str, *, archive_existing: bool, reason: str = ""
    ) -> ModelVersion:
        """Put a version into a stage, as one event.

        Args:
            name: The model's.
            version: The version's number.
            stage: A name of ``ModelVersionStages``, in any case.
            archive_existing: Every other version in that stage becomes Archived; for Staging and Production only.
            reason: Why; kept in the tag.

        Raises:
            NotFoundError: No such model or version.
            InvalidValueError: A bad stage or reason, or a stage whose versions cannot be archived.
            ConflictError: Clones disagree about the stage.
        """
        number, stage = names.check_version(version), ModelVersionStages.canonical(stage)
        reason = events.check_reason(reason)
        if archive_existing and stage not in ModelVersionStages.ACTIVE:
            raise InvalidValueError(
                f"`{stage}` is no active stage: its versions cannot be archived",
                hint=f"archive_existing goes with {' and '.join(ModelVersionStages.ACTIVE)}",
            )

        def attempt() -> bool | None:
            model = self._model(name)
            self._version(model, number)
            state = self._state(model.key)
            for about in (stage, state.stage(number), f"v{number}"):
                state.require_agreement(about)
            others = [other for other in state.in_stage(stage) if other != number] if archive_existing else []
            return self._publish_stage(state, number, stage, others, reason, ())

        self._retried(attempt)
        return self.get_version(name, number)

    def _publish_stage(
        self, state: ModelState, number: int, stage: str, archived: Sequence[int], reason: str, settled: Iterable[Event]
    ) -> bool | None:
        """One event that puts ``number`` into a stage, archives ``archived`` and comes after ``settled``."""
        tag = state.versions[number]
        before = [head for subject in (number, *archived) for head in state.heads(subject)]
        event = StageTag(
            key=state.key,
            number=self._next(state.key, stage.lower()),
            target=tag.target,
            version=number,
            stage=stage,
            run_id=tag.run_id,
            manifest=tag.manifest,
            archives=tuple(archived),
            replaces=refs([*before, *settled]),
            title=f"{state.name} v{number} is {'in no stage' if stage == ModelVersionStages.NONE else stage}",
            reason=reason,
            **self._now(),
        )
        return self._publish([event], state.key, {}) or None

    def set_alias(self, name: str, alias: str, version: int | str, reason: str = "") -> None:
        """Give an alias to a version; it is taken from the one that had it.

        Raises:
            NotFoundError: No such model or version.
            InvalidValueError: A bad alias or reason, or it differs from another one only by upper and lower case.
            ConflictError: Clones disagree about the alias.
        """
        alias, number, reason = names.check_alias(alias), names.check_version(version), events.check_reason(reason)

        def attempt() -> bool | None:
            model = self._model(name)
            self._version(model, number)
            state = self._state(model.key)
            state.require_agreement(f"@{alias}")
            state.require_agreement(f"v{number}")
            return self._publish_alias(state, alias, number, reason, ())

        self._retried(attempt)

    def delete_alias(self, name: str, alias: str, reason: str = "") -> None:
        """Take an alias away; nothing happens if there is none.  Raises NotFoundError, ConflictError."""
        alias, reason = names.check_alias(alias), events.check_reason(reason)

        def attempt() -> bool | None:
            state = self._state(self._model(name).key)
            state.require_agreement(f"@{alias}")
            if any(head.version is not None for head in state.heads(f"@{alias}")):
                return self._publish_alias(state, alias, None, reason, ())
            return True

        self._retried(attempt)

    def _publish_alias(
        self, state: ModelState, alias: str, number: int | None, reason: str, settled: Iterable[Event]
    ) -> bool | None:
        slot, settled = f"@{alias}", list(settled)
        before = refs([*state.heads(slot), *settled])
        if number is None:
            about: dict[str, Any] = {"target": [*state.heads(slot), *settled][0].target}
            title = f"{state.name} {slot} is no version any more"
        else:
            tag = state.versions[number]
            about = {"target": tag.target, "run_id": tag.run_id, "manifest": tag.manifest}
            title = f"{state.name} {slot} is v{number}"
        event = AliasTag(
            key=state.key, number=self._next(state.key, slot), alias=alias, version=number, replaces=before,
            title=title, reason=reason, **about, **self._now(),
        )  # fmt: skip
        return self._publish([event], state.key, {}) or None

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
        model = self._model(wanted.name)
        version = self._addressed(model, wanted)
        self._require_agreement(model, f"v{version.version}")
        return version

    def _addressed(self, model: RegisteredModel, wanted: names.Address) -> ModelVersion:
        if wanted.version is not None:
            return self._version(model, wanted.version)
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
        self._require_agreement(model, f"@{word}")
        if word in model.aliases:
            return self._version(model, int(model.aliases[word]))
        if word.isascii() and word.isdecimal():
            return self._version(model, names.check_version(word))
        for stage in ModelVersionStages.ALL:
            if word.lower() == stage.lower():
                return self._in_stage(model, stage)
        known = [*model.aliases, *(stage.lower() for stage in ModelVersionStages.ALL)]
        near = difflib.get_close_matches(word, known, n=1)
        aliases = ", ".join(f"`@{alias}`" for alias in model.aliases)
        hint = f"did you mean `@{near[0]}`?" if near else f"it has {aliases}" if aliases else "it has no aliases"
        raise NotFoundError(f"model `{model.name}` has no alias `{word}`", hint=hint)

    def _in_stage(self, model: RegisteredModel, stage: str) -> ModelVersion:
        self._require_agreement(model, stage)
        for version in model.latest_versions:
            if version.current_stage == stage:
                return version
        there = ", ".join(f"v{version.version} is {version.current_stage}" for version in model.latest_versions)
        raise NotFoundError(
            f"no version of model `{model.name}` is {stage}",
            hint=there or f"`gittrack models register RUN {model.name}` makes one",
        )

    def _require_agreement(self, model: RegisteredModel, about: str) -> None:
        if about in model.conflicts:
            self._state(model.key).require_agreement(about)

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
        model = self.get_model(name)
        self._require_agreement(model, f"@{alias}")
        if alias not in model.aliases:
            known = ", ".join(f"`{one}`" for one in model.aliases)
            raise InvalidValueError(
                f"model `{name}` has no alias `{alias}`", hint=f"it has {known}" if known else "it has none"
            )
        return self._version(model, int(model.aliases[alias]))

    # -- conflicts ---------------------------------------------------------------------------------------------------

    def settle(self, name: str, about: str, version: int | str | None = None, reason: str = "") -> ModelVersion | None:
        """Settle a conflict by an event that replaces both.

        Args:
            name: The model's.
            about: A stage: ``version`` is put into it, the other one becomes Archived.  ``@<alias>``: ``version`` gets
                it, or nobody if that is None.  ``v<N>``: the remote's version keeps the number, the one of this clone
                gets the next free one; stages and aliases have to be given to it anew.
            version: The one to prefer.
            reason: Why; kept in the tag.

        Returns:
            The version that was preferred, or the renumbered one.

        Raises:
            NotFoundError: No such model or version.
            StateError: There is no such conflict.
        """
        if re.fullmatch(r"v[0-9]+", about):
            return self._renumber(name, names.check_version(about[1:]), reason)
        alias = about[1:] if about.startswith("@") else None
        about = about if alias is not None else ModelVersionStages.canonical(about)
        reason = events.check_reason(reason)
        number = None if version is None else names.check_version(version)

        def attempt() -> bool | None:
            model = self._model(name)
            state = self._state(model.key)
            conflict = state.conflict(about)
            if conflict is None:
                raise StateError(f"{about} of model `{name}` is in no conflict")
            if number is not None and number not in state.versions:
                state = self._adopted(state, model, number)
            both = [event for event in conflict.events if isinstance(event, (StageTag, AliasTag))]
            if alias is not None:
                return self._publish_alias(state, alias, number, reason, both)
            if number is None:
                raise InvalidValueError(f"which version shall be {about}?", hint="name one")
            concerned = {event.version for event in both if isinstance(event, StageTag)} - {number}
            archived = sorted(other for other in concerned if other in state.versions)
            return self._publish_stage(state, number, about, archived, reason, both)

        self._retried(attempt)
        return None if number is None else self.get_version(name, number)

    def _adopted(self, state: ModelState, model: RegisteredModel, number: int) -> ModelState:
        """The state with a version that was only seen on a remote made one of this clone."""
        seen = state.seen_version(number)
        if seen is None:
            raise self._no_version(model, number)
        self.repo.git.publish(self.repo.git.batch(), [RefUpdate(f"refs/tags/{seen.tag}", None, seen.oid)])
        self.refresh()
        return self._state(state.key)

    def _renumber(self, name: str, number: int, reason: str) -> ModelVersion:
        reason = events.check_reason(reason)

        def attempt() -> int | None:
            state = self._state(self._model(name).key)
            mine, theirs = state.versions.get(number), state.seen_version(number)
            if mine is None or theirs is None:
                raise StateError(f"v{number} of model `{name}` is in no conflict")
            new = state.next_number
            event = VersionTag(
                key=state.key, number=new, target=mine.target, run_id=mine.run_id, path=mine.path,
                manifest=mine.manifest, model_id=mine.model_id, replaces=refs([mine]),
                title=mine.title.replace(f"v{number}:", f"v{new}:", 1), reason=reason, **self._now(),
            )  # fmt: skip
            old = f"versions.{number}."
            said = {f"versions.{new}.{field}": value for field, value in state.document.below(old).items()}
            others = self._document_of_others(state.key)
            changes: dict[str, str | None] = dict(said)
            changes |= {field: others.value(field) for field in state.document.fields if field.startswith(old)}
            # The number was never this clone's: the remote that gave it to another version decides.
            adopted = RefUpdate(f"refs/tags/{mine.tag}", mine.oid, theirs.oid)
            return new if self._publish([event], state.key, changes, [adopted]) else None

        return self.get_version(name, self._retried(attempt))

    # -- content -----------------------------------------------------------------------------------------------------

    def manifest(self, version: ModelVersion) -> Manifest:
        """The files of a version, as the commit that its tag points at has them.

        Raises:
            CorruptError: They are not those that the tag vouches for.
            NotFoundError: The commit is not in this clone.
        """
        manifest = self._manifest_at(version.commit, version.path)
        if manifest.digest != version.manifest:
            raise CorruptError(
                f"the files of `{version.name}` v{version.version} are not those that were registered",
                hint="`gittrack fsck` tells more; fetch the version again",
            )
        return manifest

    def _manifest_at(self, commit: ObjectId, path: str) -> Manifest:
        if not self.repo.is_run_commit(commit):
            raise CorruptError(f"commit `{commit}` is no run commit", hint="`gittrack fsck` tells more")
        folder, _, _ = path.rpartition("/")
        artifacts = self.repo.artifacts_of(commit, path) or self.repo.artifacts_of(commit, folder)
        return Manifest.of(artifacts.values(), path)

    def which(self, digest: Digest) -> list[ModelVersion]:
        """The versions, deleted ones too, that have a file of that sha256, by model and number."""
        self.refresh()
        found = [one for one in self._rows(MODEL_VERSIONS, _to_version) if digest in self._digests(one)]
        return sorted(found, key=lambda one: (one.name, one.key, int(one.version)))

    def _digests(self, version: ModelVersion) -> set[str]:
        """The digests of a version's files; read out of git once."""
        name = f"{version.commit}:{version.path}"
        known = self.repo.index.parsed_get([name])
        if name not in known:
            files_ = self._manifest_at(version.commit, version.path).files.values()
            known = {name: sorted({digest for digest, _ in files_})}
            self.repo.index.parsed_set(known)
        return set(known[name])

    # -- requirements ------------------------------------------------------------------------------------------------

    def requirements(self, name: str, version: int | str) -> str | None:
        """The text used instead of the model's own requirements; None if there is none.  Raises NotFoundError."""
        found = self.get_version(name, version)
        return self._state(found.key).document.value(f"versions.{found.version}.requirements")

    def set_requirements(self, name: str, version: int | str, text: str | None, reason: str = "") -> None:
        """Use ``text`` instead of the model's own requirements from now on; None goes back to those.

        Raises:
            NotFoundError: No such version.
            InvalidValueError: The text is too long.
        """
        if text is not None and len(text) > MAX_DESCRIPTION:
            raise InvalidValueError(f"requirements of {len(text)} characters", hint=f"at most {MAX_DESCRIPTION}")
        self._edit_version(name, version, {"requirements": text}, events.check_reason(reason))

    def requirements_history(self, name: str, version: int | str) -> list[Edit]:
        """Every override of a version's requirements, oldest first.  Raises NotFoundError."""
        found = self.get_version(name, version)
        log = sorted(self._state(found.key).document.log.items())
        return [edit for _, edit in log if edit.field == f"versions.{found.version}.requirements"]

    # -- history -----------------------------------------------------------------------------------------------------

    def history(self, name: str) -> list[Change]:
        """The audit trail of a model, oldest first.  Raises NotFoundError."""
        return self._state(self.get_model(name).key).history()

    def state(self, name: str) -> ModelState:
        """All that is known of a model, for those who look at more than its records.  Raises NotFoundError."""
        return self._state(self.get_model(name).key)

    def at(self, name: str, when: datetime | ObjectId) -> ModelState:
        """The state of a model at a time, or when a commit was made.  Raises NotFoundError."""
        moment = when.timestamp() if isinstance(when, datetime) else self.repo.git.read_commit(when).time
        return self.state(name).at(int(moment * 1000))

    # -- index -------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Bring the index up to the refs.  Costs a look at the refs when nothing changed."""
        index = self.repo.index
        if index.meta_get("registry") == self._stamp():
            return
        with index.transaction():
            stamp = self._stamp()  # looked at again where only one process is at a time
            known: dict[str, str] = index.meta_get("registry.models") or {}
            found, problems = self._refs()
            now = {key: about.digest() for key, about in found.items()}
            for key in {*known, *now}:
                if known.get(key) != now.get(key):
                    self._index(key, found.get(key, _Refs({}, {}, [])))
            index.meta_set("registry.models", now)
            index.meta_set("registry.problems", problems)
            index.meta_set("registry", stamp)

    def problems(self) -> list[str]:
        """What is wrong with tags and documents, one line each: they do not count."""
        self.refresh()
        found = list(self.repo.index.meta_get("registry.problems") or [])
        for key in self.repo.index.meta_get("registry.models") or {}:
            found += self._state(key).problems
        return found

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

    def _index(self, key: str, about: _Refs) -> None:
        """Put what is known of a model into the index."""
        index = self.repo.index
        self._read_tags(about)
        index.meta_set(f"registry:{key}", None if not any(about) else [about.own, about.seen, about.documents])
        state = self._state(key)
        if not state.versions and not about.documents:
            index.put_rows(MODELS, key, [])
            index.put_rows(MODEL_VERSIONS, key, [])
            return
        model, versions = state.records()
        index.put_rows(MODELS, key, [_model_row(model)])
        index.put_rows(MODEL_VERSIONS, key, [_version_row(version) for version in versions])

    def _read_tags(self, about: _Refs) -> None:
        """Read the tag objects that nobody has read yet, once."""
        wanted = {*about.own.values(), *about.seen.values()}
        unread = wanted - self.repo.index.parsed_get(wanted).keys()
        said: dict[str, Any] = {}
        for oid in sorted(unread):
            try:
                said[oid] = events.to_list(events.parse(oid, self.repo.git.read_tag(oid)))
            except CorruptError as error:
                said[oid] = error.message
        self.repo.index.parsed_set(said)

    def _state(self, key: str) -> ModelState:
        """The fold of what the index has of a model."""
        index = self.repo.index
        own, seen, blobs = index.meta_get(f"registry:{key}") or ({}, {}, [])
        parsed = index.parsed_get({*own.values(), *seen.values()})
        problems: list[str] = []

        def known(tag: str, oid: str) -> Iterable[Event]:
            said = parsed.get(oid)
            if not isinstance(said, list):
                problems.append(f"`{tag}` does not count: {said or 'its object is missing'}")
                return ()
            event = events.from_list(said)
            if event.tag != tag:
                problems.append(f"`{tag}` does not count: it was made as `{event.tag}`")
                return ()
            return (event,)

        mine = [event for tag, oid in own.items() for event in known(tag, oid)]
        others = [event for ref, oid in seen.items() for event in known(_REMOTE.sub(r"\1", ref), oid)]
        try:
            document = documents.read(self.repo.git, key, [ObjectId(oid) for oid in blobs])
        except CorruptError as error:
            problems.append(error.message)
            document = Document(key)
        state = ModelState(key, mine, others, document)
        state.problems[:0] = problems
        return state

    # -- looking up --------------------------------------------------------------------------------------------------

    def _rows(self, table: Table, convert: Callable[[list[Any]], T], **equal: str | int) -> list[T]:
        return [convert(row) for row in self.repo.index.find_rows(table, **equal)]

    def _model(self, name: str) -> RegisteredModel:
        """A model that is not deleted, by its name, or by ``:`` and its key."""
        if isinstance(name, str) and name.startswith(":"):
            found = self._rows(MODELS, _to_model, key=name[1:], lifecycle_stage=LifecycleStage.ACTIVE)
        else:
            name = names.check_model_name(name)
            found = self._rows(MODELS, _to_model, name=name, lifecycle_stage=LifecycleStage.ACTIVE)
        if len(found) > 1:
            keys = ", ".join(f"`:{model.key}`" for model in found)
            raise ConflictError(
                f"{len(found)} models are called `{name}`: {keys}", hint="rename one, by its key with the colon"
            )
        if not found:
            raise self._no_model(name)
        return found[0]

    def _no_model(self, name: str) -> NotFoundError:
        known = self._rows(MODELS, _to_model)
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

    def _version(self, model: RegisteredModel, number: int) -> ModelVersion:
        found = self._rows(MODEL_VERSIONS, _to_version, key=model.key, version_number=number)
        if not found or found[0].lifecycle_stage == LifecycleStage.DELETED:
            raise self._no_version(model, number, deleted=bool(found))
        return found[0]

    def _no_version(self, model: RegisteredModel, number: int, *, deleted: bool = False) -> NotFoundError:
        if deleted:
            return NotFoundError(
                f"version {number} of model `{model.name}` is deleted",
                hint=f"`gittrack models restore '{model.name}@v{number}'` brings it back",
            )
        rows = self._rows(MODEL_VERSIONS, _to_version, key=model.key, lifecycle_stage=LifecycleStage.ACTIVE)
        known = sorted(int(version.version) for version in rows)
        shown = ", ".join(map(str, known)) if len(known) <= 8 else f"{known[0]} to {known[-1]}"
        return NotFoundError(
            f"model `{model.name}` has no version {number}", hint=f"it has {shown}" if known else "it has none yet"
        )

    def _search(
        self,
        table: Table,
        entity: Entity,
        convert: Callable[[list[Any]], T],
        asked: tuple[str | None, int, Sequence[str] | None, str | None],
        most: int,
    ) -> PagedList[T]:
        from gittrack.track import query

        filter_string, size, order_by, token = asked
        offset = query.page_offset(token)
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= most:
            raise InvalidValueError(f"max_results is `{size}`, it must be a number from 1 to {most}")
        compiled = query.compile_search(filter_string, order_by, entity)
        self.refresh()
        found = self.repo.index.search_rows(table, compiled, limit=size + 1, offset=offset)
        return PagedList(map(convert, found[:size]), query.page_token(offset + size) if len(found) > size else None)

    # -- writing -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Held by whoever changes the registry of this clone; inside, the index is up to date."""
        self.repo.require_writable()
        with files.FileLock(self.repo.root / "locks" / "registry", timeout=LOCK_TIMEOUT):
            self.refresh()
            yield

    def _retried(self, attempt: Callable[[], T | None]) -> T:
        """What ``attempt`` returns, under the lock; it is made again while it returns None: a ref was just taken."""
        for _ in range(ATTEMPTS):
            with self._writing():
                done = attempt()
            if done is not None:
                return done
        raise ConflictError("others change the same model all the time; nothing was changed", hint="try again")

    def _now(self) -> dict[str, Any]:
        return {"who": self.repo.git.identity(), "time": int(time.time() * 1000)}

    def _next(self, key: str, slot: str) -> int:
        """The number of the next event of a stage or alias: above every one that was ever seen."""
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

    def _edit(self, key: str, changes: Mapping[str, str | None], reason: str = "") -> None:
        if not self._publish([], key, changes, reason=reason):
            raise ConflictError("somebody else moved this clone's documents; nothing was changed", hint="try again")

    def _publish(
        self,
        new: Sequence[Event],
        key: str,
        changes: Mapping[str, str | None],
        moves: Sequence[RefUpdate] = (),
        *,
        reason: str = "",
    ) -> bool:
        """Create the tags of events and change a model's document: both, or nothing.

        Returns:
            False if nothing was written, because a tag of that name came into being meanwhile.
        """
        git, now = self.repo.git, self._now()
        batch = git.batch()
        updates = list(moves)
        for event in new:
            text = events.message(event)
            oid = batch.add_tag(event.tag, event.target, text, now["who"], now["time"] // 1000)
            updates.append(RefUpdate(f"refs/tags/{event.tag}", None, oid))
        if changes:
            updates.append(self._document_update(batch, key, changes, reason, now))
        try:
            git.publish(batch, updates)
        except ConflictError:
            self.refresh()
            return False
        git.maintain()
        self.refresh()
        return True

    def _document_update(
        self, batch: Batch, key: str, changes: Mapping[str, str | None], reason: str, now: Mapping[str, Any]
    ) -> RefUpdate:
        git, ref = self.repo.git, layout.DOCUMENT_PREFIX + self.repo.writer
        old = git.ref(ref)
        blob = None if old is None else documents.blobs(git, old).get(key)
        mine = documents.read(git, key, [] if blob is None else [blob])
        known = self._state(key).document
        mine.edit(self.repo.writer, changes, now=now["time"], who=now["who"], reason=reason, known=known)
        text = f"{names.first_name(key)}: {', '.join(list(changes)[:5])}\n" + (f"\n{reason}\n" if reason else "")
        return RefUpdate(ref, old, documents.build(git, batch, old, [mine], message=text, now=now["time"]))

    def _document_of_others(self, key: str) -> Document:
        """What all writers but this clone say of a model."""
        git, mine = self.repo.git, layout.DOCUMENT_PREFIX + self.repo.writer
        commits = [oid for ref, oid in git.refs(layout.DOCUMENT_PREFIX).items() if ref != mine]
        found = [documents.blobs(git, commit).get(key) for commit in commits]
        return documents.read(git, key, [blob for blob in found if blob is not None])

    def _new_key(self, name: str) -> tuple[str, dict[str, str | None]]:
        """The key for a new model of that name, and what has to be changed if a deleted one had it."""
        self._require_free(name)
        taken = self._rows(MODELS, _to_model)
        for model in taken:
            if model.name == name:  # deleted, or it would not be free
                state = self._state(model.key)
                back = [n for n in state.versions if state.version_lifecycle(n) == LifecycleStage.ACTIVE]
                gone = {f"versions.{n}.lifecycle": LifecycleStage.DELETED for n in back}
                said = [field for field in state.document.below("") if field.startswith("tags.")]
                return model.key, {"description": None, **dict.fromkeys(said), **gone}
        keys = {names.folded(model.key) for model in taken}
        attempt = 1
        while names.folded(key := names.key_of(name, attempt)) in keys:
            attempt += 1
        return key, {}

    def _key_for(self, name: str) -> tuple[str, dict[str, str | None]]:
        """The key of the model of that name, and what has to be changed to make it if there is none."""
        found = self._rows(MODELS, _to_model, name=name, lifecycle_stage=LifecycleStage.ACTIVE)
        if found:
            return self._model(name).key, {}
        key, changes = self._new_key(name)
        if names.first_name(key) != name or changes:
            changes |= {"name": name, "lifecycle": LifecycleStage.ACTIVE}
        return key, changes

    def _require_free(self, name: str, but: str | None = None) -> None:
        """Raise AlreadyExistsError if a model has that name, or one that only upper and lower case tell apart."""
        for model in self._rows(MODELS, _to_model):
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

    # -- runs --------------------------------------------------------------------------------------------------------

    def _require_artifacts(self, run_id: str, path: str) -> None:
        artifacts = self.repo.artifacts(run_id)
        if any(not path or name == path or name.startswith(f"{path}/") for name in artifacts):
            return
        tops = sorted({name.partition("/")[0] for name in artifacts})
        near = difflib.get_close_matches(path, [*artifacts, *tops], n=1)
        hint = f"did you mean `{near[0]}`?" if near else ("it has " + ", ".join(f"`{top}`" for top in tops[:8]))
        raise NotFoundError(
            f"run `{run_id}` has no artifact `{path}`" if path else f"run `{run_id}` has no artifacts",
            hint=hint if tops else "log the model first",
        )

    def _commit_of(self, run_id: RunId) -> ObjectId:
        """The commit of a run as it is now; made if it is not there yet."""
        self.tracker.flush()
        deadline = time.monotonic() + CAPTURE_TIMEOUT
        while True:
            commit = seal.checkpoint(self.repo, run_id, force=time.monotonic() > deadline)
            if commit is not None:
                return commit
            time.sleep(0.02)


def _to_version(values: list[Any]) -> ModelVersion:
    return ModelVersion(*values)


def _to_model(values: list[Any]) -> RegisteredModel:
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
        "run_id": version.run_id,
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


def _described(description: object, *, remove: bool = False) -> dict[str, str | None]:
    """The change that sets a description; none if there is none to set, unless that removes it."""
    if description is None:
        return {"description": None} if remove else {}
    if not isinstance(description, str):
        raise InvalidValueError(f"a description is text, not {type(description).__name__}")
    if len(description) > MAX_DESCRIPTION:
        raise InvalidValueError(f"a description of {len(description)} characters", hint=f"at most {MAX_DESCRIPTION}")
    return {"description": description.encode("utf-8", "backslashreplace").decode("utf-8")}


def _tagged(tags: Mapping[str, Any] | None) -> dict[str, str | None]:
    """The changes that set tags."""
    return {f"tags.{key}": value for key, value in (names.check_model_tag(*item) for item in (tags or {}).items())}


def _now_updated() -> dict[str, str | None]:
    return {"updated": str(int(time.time() * 1000))}


def _headline(run: Run) -> str:
    """A run in a few words: its name and its first metrics."""
    mine = [item for item in sorted(run.data.metrics.items()) if not item[0].startswith("system/")]
    shown = ", ".join(f"{key} {value:.4g}" for key, value in mine[:3])
    return f"run {run.info.run_name}" + (f", {shown}" if shown else "")
