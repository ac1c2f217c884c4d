"""Registry: models by name, as the Python API, the command line and the server call it.

Every change is one publish: new tags, created and never moved, and this clone's documents, together or not at all.
Every read goes through the index, which is brought up to the refs first; what a tag object says is read out of git
once.  A call that fails has changed nothing.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import (
    AlreadyExistsError,
    CorruptError,
    InvalidValueError,
    NotFoundError,
    StateError,
)
from gittrack.registry import events, names, policy
from gittrack.registry.catalog import Catalog
from gittrack.registry.documents import Edit
from gittrack.registry.events import AliasTag, Event, StageTag, VersionTag
from gittrack.registry.manifest import Manifest
from gittrack.registry.publisher import Publisher
from gittrack.registry.rebase import Renamed, rebase
from gittrack.registry.state import Change, ModelState, refs
from gittrack.store import files, seal
from gittrack.store.refs import RefUpdate
from gittrack.track import limits
from gittrack.track.secrets import redact_url
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
    from gittrack.track.runs import Tracker

#: Seconds to wait for a run of another process whose code is being captured.
CAPTURE_TIMEOUT: Final = 10.0
#: Characters of a description.
MAX_DESCRIPTION: Final = 100_000


class Registry:
    """Registered models and their versions.  Threads may share it.

    Args:
        tracker: The runs that the models come from.
        clock: The time in milliseconds since the epoch that is written into what is done; it decides nothing.
    """

    def __init__(self, tracker: Tracker, *, clock: Callable[[], int] = lambda: int(time.time() * 1000)) -> None:
        self.tracker = tracker
        self.repo = tracker.repo
        self.catalog = Catalog(tracker.repo)
        self._publisher = Publisher(self.catalog, clock)

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
        with self._publisher.writing():
            key, revived = self._publisher.new_key(name)
            self._publisher.edit(key, {"name": name, "lifecycle": LifecycleStage.ACTIVE} | revived | changes)
        return self.get_model(name)

    def get_model(self, name: str) -> RegisteredModel:
        """A model by its name.  Raises NotFoundError, which says what exists, and InvalidValueError."""
        self.catalog.refresh()
        return self.catalog.model(name)

    def rename_model(self, name: str, new_name: str) -> RegisteredModel:
        """Give a model another name; its refs keep the first one.  Raises NotFoundError, AlreadyExistsError."""
        new_name = names.check_model_name(new_name)
        with self._publisher.writing():
            model = self.catalog.model(name)
            if new_name != model.name:
                self._publisher.require_free(new_name, but=model.key)
                self._publisher.edit(model.key, {"name": new_name, **self._now_updated()})
        return self.get_model(new_name)

    def describe_model(self, name: str, description: str | None) -> RegisteredModel:
        """Change the description of a model; None removes it.  Raises NotFoundError."""
        with self._publisher.writing():
            model = self.catalog.model(name)
            self._publisher.edit(model.key, {**_described(description, remove=True), **self._now_updated()})
        return self.get_model(name)

    def delete_model(self, name: str, reason: str = "") -> None:
        """Delete a model with all its versions; ``restore_model`` brings them back.  Raises NotFoundError."""
        with self._publisher.writing():
            self._publisher.edit(
                self.catalog.model(name).key, {"lifecycle": LifecycleStage.DELETED, **self._now_updated()}, reason
            )

    def restore_model(self, name: str) -> RegisteredModel:
        """Undo ``delete_model``.

        Raises:
            NotFoundError: No such model.
            StateError: It is not deleted.
            AlreadyExistsError: Another model has got the name meanwhile.
        """
        with self._publisher.writing():
            deleted = self.catalog.models(name=name, lifecycle_stage=LifecycleStage.DELETED)
            if not deleted:
                self.catalog.model(name)
                raise StateError(f"model `{name}` is not deleted", hint=f"`gittrack models show '{name}'` shows it")
            self._publisher.require_free(name, but=deleted[0].key)
            self._publisher.edit(deleted[0].key, {"lifecycle": LifecycleStage.ACTIVE, **self._now_updated()})
        return self.get_model(name)

    def tag_model(self, name: str, tags: Mapping[str, Any], removed: Iterable[str] = ()) -> None:
        """Set and remove tags of a model; removing one that is not there is no error.  Raises NotFoundError."""
        changes = _tagged(tags) | {f"tags.{names.check_tag_key(key)}": None for key in removed}
        with self._publisher.writing():
            self._publisher.edit(self.catalog.model(name).key, changes)

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
        return self.catalog.search_models(filter_string, max_results, order_by, page_token)

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
        number: int | None = None,
        sign: bool = False,
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
            number: The version's number, if it had one elsewhere already; the next one if not given.
            sign: Sign the tag with the person's git signing key.

        Raises:
            NotFoundError: No such run, or it has nothing at ``path``.
            StateError: The run is deleted.
            AlreadyExistsError: The name differs from another model's only by upper and lower case, or the number is
                used.
            InvalidValueError: A bad name, path, tag or description.
        """
        name = names.check_model_name(name)
        if path:
            path = limits.check_artifact_path(path)
        if model_id is not None:
            events.check_model_id(model_id)
        said = _said(description, tags, run_link)
        run = self.tracker.get_run(run_id)
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            raise StateError(f"run `{run_id}` is deleted", hint=f"`gittrack restore {run_id}` brings it back")
        self._require_artifacts(run_id, path)
        self._check_registering(name, sign=sign)
        commit = self._commit_of(check_run_id(run_id))
        return self._register(name, run, commit, path, model_id, said, number=number, sign=sign)

    def register_elsewhere(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        *,
        description: str | None = None,
        tags: Mapping[str, Any] | None = None,
        model_id: str | None = None,
        run_link: str | None = None,
    ) -> ModelVersion:
        """Register the address of files that are not here as the next version of a model, made if there is none.

        The version's tag vouches for the address, not for the files: it points at a run that has none.

        Args:
            name: The model's.
            source: The address; passwords and tokens are no part of it, since tags are for everybody.
            run_id: The run that made the files there, if it has an id.
            description: Of the version.
            tags: Of the version; the values become text.
            model_id: MLflow's id of the logged model, if it has one.
            run_link: Where the run is shown.

        Raises:
            AlreadyExistsError: The name differs from another model's only by upper and lower case.
            InvalidValueError: A bad name, address, run id, tag or description.
            StateError: The default experiment, which keeps the run, is deleted.
        """
        name = names.check_model_name(name)
        if redact_url(events.check_source(source)) != source:
            raise InvalidValueError("the address has a secret in it", hint="leave it out: whoever loads it logs in")
        source_run = None if run_id is None else check_run_id(run_id)
        said = _said(description, tags, run_link)
        self._check_registering(name, sign=False)
        keeper = self.tracker.create_run(name=name, capture=False, keeper=True)
        keeper.end()
        run, commit = self.tracker.get_run(keeper.run_id), self._commit_of(RunId(keeper.run_id))
        if model_id is not None:
            events.check_model_id(model_id)
        return self._register(name, run, commit, "", model_id, said, source=source, source_run=source_run, sign=False)

    def _check_registering(self, name: str, *, sign: bool) -> None:
        """Refuse what will be refused before a run is committed for it; others may be quicker all the same.

        Raises:
            AlreadyExistsError, PolicyError: As ``register``.
            ReadOnlyError: Nothing can be written.
        """
        self.repo.require_writable()
        self.catalog.refresh()
        self._publisher.key_for(name)
        policy.Gate(self.catalog).require_signing(policy.VERSIONS, name, sign=sign)

    def copy(
        self,
        version: ModelVersion,
        name: str,
        *,
        description: str | None = None,
        tags: Mapping[str, Any] | None = None,
        run_link: str | None = None,
        sign: bool = False,
    ) -> ModelVersion:
        """Register the very files of a version as the next version of another model, made if there is none.

        The other arguments are those of ``register``.

        Raises:
            AlreadyExistsError, InvalidValueError: As ``register``.
            CorruptError, NotFoundError: The version's commit cannot be read.
        """
        name = names.check_model_name(name)
        self.manifest(version)  # what is copied is what was registered
        run, source = self.run_of(version), version.source if version.elsewhere else None
        said = {**_said(description, tags, run_link), "copied_from": names.address_of(version.name, version.version)}
        return self._register(
            name, run, version.commit, version.path, version.model_id, said,
            source=source, source_run=version.source_run_id, sign=sign,
        )  # fmt: skip

    def _register(
        self,
        name: str,
        run: Run,
        commit: ObjectId,
        path: str,
        model_id: str | None,
        said: Mapping[str, str | None],
        *,
        number: int | None = None,
        source: str | None = None,
        source_run: str | None = None,
        sign: bool,
    ) -> ModelVersion:
        manifest = self.catalog.manifest_at(commit, path)
        wanted = None if number is None else names.check_version(number)

        def attempt() -> int | None:
            key, changes = self._publisher.key_for(name)
            number = wanted or self.catalog.next_number(key, "v")
            if wanted is not None and self.catalog.versions(key=key, version_number=wanted):
                raise AlreadyExistsError(f"model `{name}` has a version {wanted}", hint="let it get the next number")
            changes |= {f"versions.{number}.{field}": value for field, value in said.items()}
            event = VersionTag(
                key=key,
                number=number,
                target=commit,
                run_id=run.info.run_id,
                path=path,
                manifest=manifest.digest,
                model_id=model_id,
                source=source,
                source_run=source_run,
                title=f"{name} v{number}: {_headline(run) if source is None else source}",
                **self._publisher.now(),
            )
            return number if self._publisher.publish([event], key, changes, sign=sign) else None

        given = self._publisher.retried(attempt)
        return self.catalog.version(self.catalog.model(name), given)

    def get_version(self, name: str, version: int | str) -> ModelVersion:
        """A version by its number.  Raises NotFoundError, which says what exists, and InvalidValueError."""
        number = names.check_version(version)
        self.catalog.refresh()
        return self.catalog.version(self.catalog.model(name), number)

    def files_uri(self, version: ModelVersion) -> str:
        """The address of a version's files."""
        return version.source

    def versions(self, name: str, view: int = ViewType.ACTIVE_ONLY) -> list[ModelVersion]:
        """The versions of a model, oldest first.  Raises NotFoundError."""
        model = self.get_model(name)
        found = self.catalog.versions(key=model.key)
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
            self.catalog.state(model.key).require_agreement(stage)
        return [version for version in model.latest_versions if version.current_stage in wanted]

    def describe_version(self, name: str, version: int | str, description: str | None) -> ModelVersion:
        """Change the description of a version; None removes it.  Raises NotFoundError."""
        self._edit_version(name, version, {**_described(description, remove=True), **self._now_updated()})
        return self.get_version(name, version)

    def tag_version(self, name: str, version: int | str, tags: Mapping[str, Any], removed: Iterable[str] = ()) -> None:
        """Set and remove tags of a version; removing one that is not there is no error.  Raises NotFoundError."""
        changes = _tagged(tags) | {f"tags.{names.check_tag_key(key)}": None for key in removed}
        self._edit_version(name, version, changes)

    def delete_version(self, name: str, version: int | str, reason: str = "") -> None:
        """Delete a version; ``restore_version`` brings it back.  Raises NotFoundError."""
        number = names.check_version(version)
        with self._publisher.writing():
            model = self.catalog.model(name)
            self.catalog.version(model, number)
            self._publisher.edit(model.key, self._moved(number, LifecycleStage.DELETED), reason)

    def restore_version(self, name: str, version: int | str) -> ModelVersion:
        """Undo ``delete_version``.  Raises NotFoundError, StateError if it is not deleted."""
        number = names.check_version(version)
        with self._publisher.writing():
            model = self.catalog.model(name)
            found = self.catalog.versions(key=model.key, version_number=number)
            if not found:
                raise self.catalog.no_version(model, number)
            if found[0].lifecycle_stage == LifecycleStage.ACTIVE:
                raise StateError(
                    f"version {number} of model `{name}` is not deleted",
                    hint=f"`gittrack models show '{name}@v{number}'` shows it",
                )
            self._publisher.edit(model.key, self._moved(number, LifecycleStage.ACTIVE))
        return self.get_version(name, number)

    def _moved(self, number: int, lifecycle: str) -> dict[str, str | None]:
        """The changes that delete a version or bring it back, which is something that happened to its model, too."""
        now = self._now_updated()
        return {f"versions.{number}.lifecycle": lifecycle, f"versions.{number}.updated": now["updated"], **now}

    def _edit_version(self, name: str, version: int | str, changes: Mapping[str, str | None], reason: str = "") -> None:
        number = names.check_version(version)
        with self._publisher.writing():
            model = self.catalog.model(name)
            self.catalog.version(model, number)
            self._publisher.edit(
                model.key, {f"versions.{number}.{field}": value for field, value in changes.items()}, reason
            )

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
        return self.catalog.search_versions(filter_string, max_results, order_by, page_token)

    # -- stages and aliases ------------------------------------------------------------------------------------------

    def promote(
        self, name: str, version: int | str, stage: str, *, archive_existing: bool, reason: str = "", sign: bool = False
    ) -> ModelVersion:
        """Put a version into a stage, as one event.

        If that changes nothing, since it is in the stage already and nothing is to be archived, nothing is written, and
        the reason is not kept. Signing what is in the stage approves of it: another signature for the same event.

        Args:
            name: The model's.
            version: The version's number.
            stage: A name of ``ModelVersionStages``, in any case.
            archive_existing: Every other version in that stage becomes Archived; for Staging and Production only.
            reason: Why; kept in the tag.
            sign: Sign the tag with the person's git signing key.

        Raises:
            NotFoundError: No such model or version.
            InvalidValueError: A bad stage or reason, or a stage whose versions cannot be archived.
            ConflictError: Clones disagree about the stage.
            PolicyError: The team's rules forbid it (``gittrack.registry.policy``).
            GitError: It could not be signed.
        """
        number, stage = names.check_version(version), ModelVersionStages.canonical(stage)
        reason = events.check_reason(reason)
        if archive_existing and stage not in ModelVersionStages.ACTIVE:
            raise InvalidValueError(
                f"`{stage}` is no active stage: its versions cannot be archived",
                hint=f"archive_existing goes with {' and '.join(ModelVersionStages.ACTIVE)}",
            )

        def attempt() -> bool | None:
            model = self.catalog.model(name)
            self.catalog.version(model, number)
            state = self.catalog.state(model.key)
            for about in (stage, state.stage(number), f"v{number}"):
                state.require_agreement(about)
            others = [other for other in state.in_stage(stage) if other != number] if archive_existing else []
            if others or state.stage(number) != stage:
                return self._publish_stage(state, number, stage, others, reason, (), sign=sign)
            if sign:
                return self._publish_approval(state, number, stage, reason)
            policy.Gate(self.catalog).before(self._stage_event(state, number, stage, (), reason, ()), sign=False)
            return True

        self._publisher.retried(attempt)
        return self.get_version(name, number)

    def _publish_stage(
        self,
        state: ModelState,
        number: int,
        stage: str,
        archived: Sequence[int],
        reason: str,
        settled: Iterable[Event],
        *,
        sign: bool,
    ) -> bool | None:
        """One event that puts ``number`` into a stage, archives ``archived`` and comes after ``settled``."""
        event = self._stage_event(state, number, stage, archived, reason, settled)
        return self._publisher.publish([event], state.key, {}, sign=sign) or None

    def _stage_event(
        self, state: ModelState, number: int, stage: str, archived: Sequence[int], reason: str, settled: Iterable[Event]
    ) -> StageTag:
        before = [head for subject in (number, *archived) for head in state.heads(subject)]
        return StageTag(
            archives=tuple(archived),
            replaces=refs([*before, *settled]),
            title=f"{state.name} v{number} is {'in no stage' if stage == ModelVersionStages.NONE else stage}",
            **self._about(state, number, stage, reason),
        )

    def _publish_approval(self, state: ModelState, number: int, stage: str, reason: str) -> bool | None:
        """A signed event that approves of those that put ``number`` into the stage that it is in."""
        event = StageTag(
            approves=refs(state.heads(number)),
            title=f"{state.name} v{number} is approved as {stage}",
            **self._about(state, number, stage, reason),
        )
        return self._publisher.publish([event], state.key, {}, sign=True) or None

    def _about(self, state: ModelState, number: int, stage: str, reason: str) -> dict[str, Any]:
        """What every event about a version and a stage says."""
        tag = state.versions[number]
        return {
            "key": state.key,
            "number": self.catalog.next_number(state.key, stage.lower()),
            "target": tag.target,
            "version": number,
            "stage": stage,
            "run_id": tag.run_id,
            "manifest": tag.manifest,
            "reason": reason,
            **self._publisher.now(),
        }

    def set_alias(self, name: str, alias: str, version: int | str, reason: str = "", *, sign: bool = False) -> None:
        """Give an alias to a version; it is taken from the one that had it.

        Nothing is written if it has the alias, unless that is to be signed.

        Raises:
            NotFoundError: No such model or version.
            InvalidValueError: A bad alias or reason, or it differs from another one only by upper and lower case.
            ConflictError: Clones disagree about the alias.
        """
        alias, number, reason = names.check_alias(alias), names.check_version(version), events.check_reason(reason)

        def attempt() -> bool | None:
            model = self.catalog.model(name)
            self.catalog.version(model, number)
            state = self.catalog.state(model.key)
            twin = state.alias_twin(alias)
            if twin is not None:
                raise InvalidValueError(
                    f"alias `{alias}` differs from `{twin}` only by upper and lower case", hint=f"use `{twin}`"
                )
            state.require_agreement(f"@{alias}")
            state.require_agreement(f"v{number}")
            heads = state.heads(f"@{alias}")
            if heads and not sign and all(head.version == number for head in heads):
                return True
            return self._publish_alias(state, alias, number, reason, (), sign=sign)

        self._publisher.retried(attempt)

    def delete_alias(self, name: str, alias: str, reason: str = "", *, sign: bool = False) -> None:
        """Take an alias away; nothing happens if there is none.  Raises NotFoundError, ConflictError."""
        alias, reason = names.check_alias(alias), events.check_reason(reason)

        def attempt() -> bool | None:
            state = self.catalog.state(self.catalog.model(name).key)
            state.require_agreement(f"@{alias}")
            if any(head.version is not None for head in state.heads(f"@{alias}")):
                return self._publish_alias(state, alias, None, reason, (), sign=sign)
            return True

        self._publisher.retried(attempt)

    def _publish_alias(
        self, state: ModelState, alias: str, number: int | None, reason: str, settled: Iterable[Event], *, sign: bool
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
            key=state.key,
            number=self.catalog.next_number(state.key, slot),
            alias=alias,
            version=number,
            replaces=before,
            title=title,
            reason=reason,
            **about,
            **self._publisher.now(),
        )
        return self._publisher.publish([event], state.key, {}, sign=sign) or None

    # -- addresses ---------------------------------------------------------------------------------------------------

    def resolve(self, address: str) -> ModelVersion:
        """The version that an address stands for (``names.parse_address`` has the forms).

        Raises:
            NotFoundError: No such model, version or alias, or the stage is empty; says what exists.
            ConflictError: Clones disagree about the stage, the alias or the version.
            InvalidValueError: It is no address, or one of a model without a version.
        """
        return self.catalog.resolve(address)

    def by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that has an alias, or the newest for ``latest``.

        Raises:
            NotFoundError: No such model, or no version at all.
            InvalidValueError: No such alias: MLflow's error for it.
            ConflictError: Clones disagree about the alias.
        """
        return self.catalog.by_alias(name, alias)

    # -- conflicts ---------------------------------------------------------------------------------------------------

    def settle(
        self, name: str, about: str, version: int | str | None = None, reason: str = "", *, sign: bool = False
    ) -> ModelVersion | None:
        """Settle a conflict by an event that replaces both.

        Args:
            name: The model's.
            about: A stage: ``version`` is put into it, the other one becomes Archived.  ``@<alias>``: ``version`` gets
                it, or nobody if that is None.  ``v<N>``: the remote's version keeps the number, the one of this clone
                gets the next free one, with the stage and the aliases that it has.
            version: The one to prefer.
            reason: Why; kept in the tag.
            sign: Sign the tag with the person's git signing key.

        Returns:
            The version that was preferred, or the renumbered one.

        Raises:
            NotFoundError: No such model or version.
            StateError: There is no such conflict.
        """
        if re.fullmatch(r"v[0-9]+", about):
            return self._renumber(name, names.check_version(about[1:]), reason, sign=sign)
        alias = about[1:] if about.startswith("@") else None
        about = about if alias is not None else ModelVersionStages.canonical(about)
        reason = events.check_reason(reason)
        number = None if version is None else names.check_version(version)

        def attempt() -> bool | None:
            model = self.catalog.model(name)
            state = self.catalog.state(model.key)
            conflict = state.conflict(about)
            if conflict is None:
                change = f"alias '{name}@vN' {alias}" if alias is not None else f"promote '{name}@vN' {about.lower()}"
                raise StateError(
                    f"{about} of model `{name}` is in no conflict", hint=f"`gittrack models {change}` changes it"
                )
            if number is not None and number not in state.versions:
                state = self._adopted(state, model, number)
            both = [event for event in conflict.events if isinstance(event, (StageTag, AliasTag))]
            if alias is not None:
                return self._publish_alias(state, alias, number, reason, both, sign=sign)
            if number is None:
                raise InvalidValueError(f"which version shall be {about}?", hint="name one")
            concerned = {event.version for event in both if isinstance(event, StageTag)} - {number}
            archived = sorted(other for other in concerned if other in state.versions)
            return self._publish_stage(state, number, about, archived, reason, both, sign=sign)

        self._publisher.retried(attempt)
        return None if number is None else self.get_version(name, number)

    def _adopted(self, state: ModelState, model: RegisteredModel, number: int) -> ModelState:
        """The state with a version that was only seen on a remote made one of this clone."""
        seen = state.seen_version(number)
        if seen is None:
            raise self.catalog.no_version(model, number)
        self.repo.git.publish(self.repo.git.batch(), [RefUpdate(f"refs/tags/{seen.tag}", None, seen.oid)])
        self.catalog.refresh()
        return self.catalog.state(state.key)

    def _renumber(self, name: str, number: int, reason: str, *, sign: bool) -> ModelVersion:
        reason = events.check_reason(reason)
        self.catalog.refresh()
        state = self.catalog.state(self.catalog.model(name).key)
        mine, theirs = state.versions.get(number), state.seen_version(number)
        if mine is None or theirs is None:
            raise StateError(
                f"v{number} of model `{name}` is in no conflict", hint="`gittrack models` marks what is in conflict"
            )
        # The number was never this clone's: the remote that gave it to another version decides.
        taken = {mine.tag: theirs.oid}
        done = rebase(self.catalog, self._publisher, state.key, taken, reason, published=True, sign=sign)
        given = names.parse_tag(next(one.new for one in done if one.old == mine.tag)).number
        return self.catalog.version(self.catalog.model(name), given)

    def rebase(self, key: str, taken: Mapping[str, ObjectId], reason: str = "") -> list[Renamed]:
        """Make this clone's unpublished tags of a model anew behind those of a remote: ``gittrack.registry.rebase``.

        Raises:
            ConflictError: Others change the model all the time.
            GitError, PolicyError: A signed tag could not be signed again; nothing was changed.
        """
        self.catalog.refresh()
        return rebase(self.catalog, self._publisher, key, taken, reason)

    # -- content -----------------------------------------------------------------------------------------------------

    def manifest(self, version: ModelVersion) -> Manifest:
        """The files of a version, as the commit that its tag points at has them.

        Raises:
            CorruptError: They are not those that the tag vouches for.
            NotFoundError: The commit is not in this clone.
        """
        return self.catalog.manifest(version)

    def run_of(self, version: ModelVersion) -> Run:
        """The run of a version as it was when that was registered.  Raises CorruptError, NotFoundError."""
        state = self.repo.stored_state(str(version.run_id), [version.commit])
        if state is None:
            raise CorruptError(f"commit `{version.commit}` is no run commit", hint="`gittrack fsck` tells more")
        return state.to_run(self.repo.artifact_uri(state.run_id))

    def pull(
        self, version: ModelVersion, folder: Path, *, progress: Callable[[int, int | None], None] | None = None
    ) -> Manifest:
        """Copy the files of a version into a folder, each checked against the manifest.

        ``progress`` is told (files done, files in all).

        Raises:
            CorruptError: The files are not those that were registered; what was copied before is left.
            NotFoundError: A file's bytes are not in this clone, or the version's files are elsewhere.
            ReadOnlyError, StorageError: A file cannot be written.
        """
        require_here(version)
        manifest = self.manifest(version)
        files.make_dirs(folder, durable=False)
        for done, (path, (digest, _)) in enumerate(manifest.files.items(), 1):
            self.repo.objects.copy_out(digest, folder / path, root=folder)
            if progress is not None:
                progress(done, len(manifest.files))
        return manifest

    def runs_with(self, digest: Digest) -> list[tuple[RunId, str]]:
        """(run, path) of every artifact of that sha256.  Looks at every run, which takes long where there are many."""
        found = []
        for run_id in sorted(self.repo.all_run_ids()):
            for path, artifact in self.repo.artifacts(run_id).items():
                if artifact.digest == digest:
                    found.append((RunId(run_id), path))
        return found

    def which(self, digest: Digest) -> list[ModelVersion]:
        """The versions, deleted ones too, that have a file of that sha256, by model and number."""
        self.catalog.refresh()
        found = [one for one in self.catalog.versions() if digest in self._digests(one)]
        return sorted(found, key=lambda one: (one.name, one.key, int(one.version)))

    def _digests(self, version: ModelVersion) -> set[str]:
        """The digests of a version's files; read out of git once."""
        name = f"{version.commit}:{version.path}"
        known = self.repo.index.parsed_get([name])
        if name not in known:
            files_ = self.catalog.manifest_at(version.commit, version.path).files.values()
            known = {name: sorted({digest for digest, _ in files_})}
            self.repo.index.parsed_set(known)
        return set(known[name])

    # -- requirements ------------------------------------------------------------------------------------------------

    def requirements(self, name: str, version: int | str) -> str | None:
        """The text used instead of the model's own requirements; None if there is none.  Raises NotFoundError."""
        found = self.get_version(name, version)
        return self.catalog.state(found.key).document.value(f"versions.{found.version}.requirements")

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
        log = sorted(self.catalog.state(found.key).document.log.items())
        return [edit for _, edit in log if edit.field == f"versions.{found.version}.requirements"]

    # -- history -----------------------------------------------------------------------------------------------------

    def history(self, name: str) -> list[Change]:
        """The audit trail of a model, oldest first.  Raises NotFoundError."""
        return self.catalog.state(self.get_model(name).key).history()

    def state(self, name: str) -> ModelState:
        """All that is known of a model, for those who look at more than its records.  Raises NotFoundError."""
        return self.catalog.state(self.get_model(name).key)

    def at(self, name: str, when: datetime | ObjectId) -> ModelState:
        """The state of the model that had that name at a time, or when a commit was made.

        Raises:
            NotFoundError: There was none then.
        """
        found = [state for state in self.all_at(when) if name in (state.name, f":{state.key}")]
        if not found:
            self.catalog.model(name)  # says what exists, if it never did
            raise NotFoundError(
                f"model `{name}` did not exist then", hint=f"`gittrack models log '{name}'` tells its history"
            )
        return found[0]

    def all_at(self, when: datetime | ObjectId) -> list[ModelState]:
        """The states of all models that there were at a time, or when a commit was made, by their names then."""
        if isinstance(when, datetime):
            moment = int(when.timestamp() * 1000)
        else:
            moment = self.repo.git.read_commit(when).time * 1000 + 999  # a commit tells seconds only
        self.catalog.refresh()
        states = [self.catalog.state(model.key).at(moment) for model in self.catalog.models()]
        return sorted((one for one in states if one.exists and not one.deleted), key=lambda one: (one.name, one.key))

    def _now_updated(self) -> dict[str, str | None]:
        return {"updated": str(self._publisher.clock())}

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
        revisions = self.repo.revisions(run_id)
        if len(revisions) == 1 and not self.repo.journals(run_id):
            return revisions[0]
        if not self.tracker.serving:  # a server captures no code that has to be waited for
            self.tracker.flush()
        deadline = time.monotonic() + CAPTURE_TIMEOUT
        while True:
            late = time.monotonic() > deadline
            commit = seal.checkpoint(self.repo, run_id, force=late, but=self.tracker.open_ids())
            if commit is not None:
                return commit
            time.sleep(0.02)


def require_here(version: ModelVersion) -> None:
    """Raise NotFoundError if the files of a version are elsewhere."""
    if version.elsewhere:
        raise NotFoundError(
            f"the files of `{version.name}` v{version.version} are not here, only their address: `{version.source}`",
            hint="MLflow's `load_model` fetches them from there",
        )


def _said(description: object, tags: Mapping[str, Any] | None, run_link: str | None) -> dict[str, str | None]:
    """The changes that say something of a new version."""
    said = _described(description) | _tagged(tags)
    return said if run_link is None else {**said, "run_link": run_link}


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


def _headline(run: Run) -> str:
    """A run in a few words: its name and its first metrics."""
    mine = [item for item in sorted(run.data.metrics.items()) if not item[0].startswith("system/")]
    shown = ", ".join(f"{key} {value:.4g}" for key, value in mine[:3])
    return f"run {run.info.run_name}" + (f", {shown}" if shown else "")
