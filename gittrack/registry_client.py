"""The registry half of ``Client``: models, versions, stages and aliases under MLflow's names and argument order.

A call here is a call of ``gittrack.registry``; what is added is MLflow's shapes, and what a source can be.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from gittrack import stores
from gittrack.errors import InvalidValueError, NotFoundError, UnsupportedError
from gittrack.track import limits

if TYPE_CHECKING:
    from gittrack.registry.registry import Registry
    from gittrack.remote.tracking import RemoteTracker
    from gittrack.track.runs import Tracker
    from gittrack.types import ModelVersion, PagedList, RegisteredModel

#: Seconds that MLflow waits for a version to be READY; here it is when the call returns.
DEFAULT_AWAIT_MAX_SLEEP_SECONDS: Final = 300
SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT: Final = 100
SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT: Final = 10_000

_RUN_SOURCE = re.compile(r"runs:/{1,3}([^/]+)(?:/(.*))?", re.DOTALL)


class _Source(NamedTuple):
    """Where a version's files are: a path among the artifacts of a run."""

    run_id: str
    path: str


class RegistryClient:
    """What ``Client`` can do with registered models."""

    @property
    def _tracker(self) -> Tracker:
        raise NotImplementedError

    @property
    def _registry(self) -> Registry:
        return stores.registry(self._tracker)

    # -- models ------------------------------------------------------------------------------------------------------

    def create_registered_model(
        self,
        name: str,
        tags: dict[str, Any] | None = None,
        description: str | None = None,
        deployment_job_id: str | None = None,
    ) -> RegisteredModel:
        """Make a model without versions.

        Args:
            name: Its name, without `/` and `:`.
            tags: First tags; the values become text.
            description: Text for people.
            deployment_job_id: A thing of Databricks; refused.

        Raises:
            AlreadyExistsError: The name is taken, or differs from a taken one only by upper and lower case.
        """
        _refuse_deployment_job(deployment_job_id)
        return self._registry.create_model(name, tags, description)

    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Give a model another name; its versions and their tags in git stay.  Raises AlreadyExistsError."""
        return self._registry.rename_model(name, new_name)

    def update_registered_model(
        self, name: str, description: str | None = None, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        """Change the description of a model.  Raises NotFoundError."""
        _refuse_deployment_job(deployment_job_id)
        return self._registry.describe_model(name, description)

    def delete_registered_model(self, name: str) -> None:
        """Delete a model with all its versions; `gittrack models restore` brings them back.  Raises NotFoundError."""
        self._registry.delete_model(name)

    def get_registered_model(self, name: str) -> RegisteredModel:
        """A model with its newest version in each stage.  Raises NotFoundError, which says what exists."""
        return self._registry.get_model(name)

    def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """One page of the models that match, by name.

        Args:
            filter_string: Over ``name`` and ``tags.<key>``, as in ``gittrack help search``; everything if empty.
            max_results: Most models on the page, 1 to 1000.
            order_by: Over ``name``, ``creation_timestamp`` and ``last_updated_timestamp``.
            page_token: ``token`` of the page before, with the same query.
        """
        return self._registry.search_models(filter_string, max_results, order_by, page_token)

    def get_latest_versions(self, name: str, stages: list[str] | None = None) -> list[ModelVersion]:
        """The newest version in each stage, or in each of ``stages``.

        Raises:
            NotFoundError: No such model.
            ConflictError: Clones disagree about a stage that was asked for.
        """
        return self._registry.latest(name, stages)

    def set_registered_model_tag(self, name: str, key: str, value: Any) -> None:
        """Set a tag of a model; the value becomes text."""
        self._registry.tag_model(name, {key: value})

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Remove a tag of a model, if it has it."""
        self._registry.tag_model(name, {}, [key])

    # -- versions ----------------------------------------------------------------------------------------------------

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: dict[str, Any] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        await_creation_for: int | None = DEFAULT_AWAIT_MAX_SLEEP_SECONDS,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Register a model as the next version.

        Args:
            name: A model that exists.
            source: ``runs:/<run id>/<path>``, ``models:/m-<id>``, ``models:/<name>@<alias>`` (or ``/<version>``), or a
                local folder, which is logged into a run of its own.
            run_id: The run, if ``source`` does not say it.
            tags: Of the version; the values become text.
            run_link: Where the run is shown, if that is somewhere else.
            description: Of the version.
            await_creation_for: Taken for MLflow's sake; the version is ready when the call returns.
            model_id: MLflow's id of the logged model, if it has one.

        Raises:
            NotFoundError: No such model, run or artifact; says what exists.
            InvalidValueError: A source that cannot be registered.
        """
        self._registry.get_model(name)
        return self._register_source(
            source, name, run_id=run_id, tags=tags, run_link=run_link, description=description, model_id=model_id
        )

    def _register_source(
        self,
        source: str,
        name: str,
        *,
        run_id: str | None = None,
        tags: dict[str, Any] | None = None,
        run_link: str | None = None,
        description: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """``create_model_version`` for a model that need not exist yet: it is made with its version, or not at all."""
        remote = stores.server_of(self._tracker)
        if remote is not None:
            return self._register_there(
                remote, source, name, run_id, tags=tags, run_link=run_link, description=description, model_id=model_id
            )
        from gittrack.models import addresses
        from gittrack.track.logged_models import LoggedModels

        logged = addresses.model_id_of(str(source))
        if logged is not None:
            model_id, source = logged, "runs:/{}/{}".format(*LoggedModels(self._tracker).files(logged))
        elif str(source).startswith("models:"):
            version = self._registry.resolve(str(source))
            return self._registry.copy(version, name, description=description, tags=tags, run_link=run_link)
        from gittrack.registry.names import check_model_name

        check_model_name(name)  # before a local folder is logged
        found = self._source(source, run_id)
        return self._registry.register(
            name, found.run_id, found.path, description=description, tags=tags, model_id=model_id, run_link=run_link
        )

    def _register_there(
        self, server: RemoteTracker, source: str, name: str, run_id: str | None, *, model_id: str | None, **about: Any
    ) -> ModelVersion:
        """``_register_source`` on a server."""
        from gittrack.registry.names import address_of, check_model_name
        from gittrack.remote import addresses
        from gittrack.remote.registry import RemoteRegistry

        check_model_name(name)
        text = str(source)
        if not text.startswith(("models:", "runs:")):
            text = f"runs:/{'/'.join(self._source(text, run_id))}"
        found = addresses.locate(server, text)
        if run_id is not None and found.run_id not in (None, run_id):
            raise InvalidValueError(f"source `{text}` is not of run `{run_id}`", hint="leave the run id out")
        uri = found.uri if found.version is None else address_of(found.version.name, found.version.version)
        return RemoteRegistry(server).create_version(
            name, uri, run_id=found.run_id, model_id=model_id or found.model_id, **about
        )

    def _source(self, source: str, run_id: str | None) -> _Source:
        """The run and path that a source names; the files of a local folder are logged first."""
        from gittrack.models import addresses

        text = str(source)
        match = _RUN_SOURCE.fullmatch(text)
        if match is not None:
            if run_id is not None and run_id != match[1]:
                raise InvalidValueError(f"source `{text}` is not of run `{run_id}`", hint="leave the run id out")
            path = (match[2] or "").rstrip("/")
            path = limits.check_artifact_path(path) if path else ""
            return _Source(match[1], addresses.place_in(self._tracker, match[1], path))
        parts = urlsplit(text)
        if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
            raise InvalidValueError(
                f"source `{text:.200}` cannot be registered",
                hint="use runs:/RUN/PATH, models:/NAME/VERSION or a local folder",
            )
        folder = Path(unquote(parts.path) if parts.scheme else text)
        if not folder.is_dir():
            raise NotFoundError(f"there is no folder `{folder}`", hint="a run's model is `runs:/RUN/PATH`")
        run = self._tracker.create_run(name=f"register {folder.name}", capture=False)
        try:
            run.log_artifacts(folder, "model")
        except BaseException:
            run.end("FAILED")
            raise
        run.end("FINISHED")
        return _Source(run.run_id, "model")

    def copy_model_version(self, src_model_uri: str, dst_name: str) -> ModelVersion:
        """Register a version of one model as the next version of another, which is made if there is none.

        Args:
            src_model_uri: Such as ``models:/iris@champion``.
            dst_name: The other model.

        Raises:
            NotFoundError: There is no such version.
            InvalidValueError: The address is none of a registered version.
        """
        from gittrack.registry.names import address_of

        if not str(src_model_uri).startswith("models:/"):
            raise InvalidValueError(
                f"`{src_model_uri!s:.200}` is no registered version", hint="only `models:/…` can be copied"
            )
        version = self._registry.resolve(src_model_uri)
        return self._register_source(
            address_of(version.name, version.version),
            dst_name,
            tags=version.tags,
            run_link=version.run_link,
            description=version.description,
        )

    def update_model_version(self, name: str, version: str, description: str | None = None) -> ModelVersion:
        """Change the description of a version.  Raises NotFoundError, InvalidValueError if nothing is given."""
        if description is None:
            raise InvalidValueError("there is nothing to change", hint="give a description")
        return self._registry.describe_version(name, version, description)

    def transition_model_version_stage(
        self, name: str, version: str, stage: str, archive_existing_versions: bool = False
    ) -> ModelVersion:
        """Put a version into a stage.  If it is there already, and nothing is to be archived, nothing is written.

        Args:
            name: The model.
            version: The version's number.
            stage: None, Staging, Production or Archived, in any case.
            archive_existing_versions: The other versions in Staging or Production become Archived.

        Raises:
            NotFoundError: No such model or version.
            InvalidValueError: No such stage, or one whose versions cannot be archived.
            ConflictError: Clones disagree about the stage; `gittrack models resolve` settles it.
        """
        return self._registry.promote(name, version, stage, archive_existing=archive_existing_versions)

    def delete_model_version(self, name: str, version: str) -> None:
        """Delete a version; `gittrack models restore` brings it back, its number is not used again."""
        self._registry.delete_version(name, version)

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        """A version.  Raises NotFoundError, which says what exists."""
        return self._registry.get_version(name, version)

    def get_model_version_download_uri(self, name: str, version: str) -> str:
        """Where the files of a version are: ``runs:/<run id>/<path>``, or a server's address of them."""
        return self._registry.files_uri(self.get_model_version(name, version))

    def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """One page of the versions of all models that match, last changed first.

        Args:
            filter_string: Over ``name``, ``run_id``, ``source_path``, ``version_number``, ``stage`` and ``tags.<key>``;
                everything if empty.
            max_results: Most versions on the page, 1 to 200000.
            order_by: Over ``name``, ``version_number``, ``creation_timestamp`` and ``last_updated_timestamp``.
            page_token: ``token`` of the page before, with the same query.
        """
        return self._registry.search_versions(filter_string, max_results, order_by, page_token)

    def get_model_version_stages(self, name: str, version: str) -> list[str]:
        """Every stage that there is."""
        from gittrack.types import ModelVersionStages

        return list(ModelVersionStages.ALL)

    def set_model_version_tag(
        self,
        name: str,
        version: str | None = None,
        key: str | None = None,
        value: Any = None,
        stage: str | None = None,
    ) -> None:
        """Set a tag of a version, or of the newest version in ``stage``; the value becomes text."""
        if key is None:
            raise InvalidValueError("a tag's key is missing", hint="give it a key")
        self._registry.tag_version(name, self._version_or_newest(name, version, stage), {key: value})

    def delete_model_version_tag(
        self, name: str, version: str | None = None, key: str | None = None, stage: str | None = None
    ) -> None:
        """Remove a tag of a version, or of the newest version in ``stage``, if it has it."""
        if key is None:
            raise InvalidValueError("a tag's key is missing", hint="give it a key")
        self._registry.tag_version(name, self._version_or_newest(name, version, stage), {}, [key])

    def _version_or_newest(self, name: str, version: str | None, stage: str | None) -> str:
        if version and stage:
            raise InvalidValueError("a version and a stage are given", hint="give one of them")
        if version:
            return version
        if not stage:
            raise InvalidValueError("neither a version nor a stage is given", hint="give one of them")
        found = self.get_latest_versions(name, [stage])
        if not found:
            raise NotFoundError(f"no version of model `{name}` is in stage {stage}")
        return found[0].version

    # -- aliases -----------------------------------------------------------------------------------------------------

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        """Give an alias to a version; it is taken from the one that had it."""
        self._registry.set_alias(name, alias, version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Take an alias away, if the model has it."""
        self._registry.delete_alias(name, alias)

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that has an alias.  Raises InvalidValueError (as MLflow) if the model has no such alias."""
        return self._registry.by_alias(name, alias)


def _refuse_deployment_job(deployment_job_id: str | None) -> None:
    if deployment_job_id is not None:
        raise UnsupportedError("deployment jobs are a thing of Databricks", hint="`gittrack help registry`")
