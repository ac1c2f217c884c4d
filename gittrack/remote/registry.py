"""RemoteRegistry: the registered models of a tracking server, with the interface of ``Registry``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from gittrack.errors import InvalidValueError, NoEndpointError, NotFoundError, UnsupportedError
from gittrack.registry import names
from gittrack.registry.registry import Registry
from gittrack.remote import wire
from gittrack.remote.http import items
from gittrack.types import ModelVersion, ModelVersionStages, PagedList, RegisteredModel

if TYPE_CHECKING:
    from gittrack.registry.catalog import Catalog
    from gittrack.remote.tracking import RemoteTracker

_MODELS: Final = "registered-models"
_VERSIONS: Final = "model-versions"
_REQUIREMENTS: Final = "/api/2.0/gittrack/model-versions/requirements"


class RemoteRegistry(Registry):
    """Registered models and their versions on a server.

    It has the interface of ``Registry`` as far as MLflow's API goes, and shares nothing else with it.

    Args:
        tracker: The server.
    """

    def __init__(self, tracker: RemoteTracker) -> None:
        self.tracker = tracker
        self._connection = tracker.connection

    @property
    def catalog(self) -> Catalog:  # type: ignore[override]  # of a Registry it is an attribute
        """There is none.  Raises UnsupportedError."""
        raise UnsupportedError(
            f"this needs a repository, and models are kept at `{self._connection.url}`",
            hint="`gittrack help tracking` says what works with a server",
        )

    # -- models ------------------------------------------------------------------------------------------------------

    def create_model(
        self, name: str, tags: Mapping[str, Any] | None = None, description: str | None = None
    ) -> RegisteredModel:
        """Make a model without versions.  Raises AlreadyExistsError, InvalidValueError."""
        checked = dict(names.check_model_tag(key, value) for key, value in (tags or {}).items())
        body = wire.present(name=names.check_model_name(name), tags=wire.pairs(checked), description=description)
        return _model(self._connection.post(f"{_MODELS}/create", body))

    def get_model(self, name: str) -> RegisteredModel:
        """A model by its name.  Raises NotFoundError."""
        return _model(self._connection.get(f"{_MODELS}/get", name=names.check_model_name(name)))

    def rename_model(self, name: str, new_name: str) -> RegisteredModel:
        """Give a model another name.  Raises NotFoundError, AlreadyExistsError."""
        body = {"name": name, "new_name": names.check_model_name(new_name)}
        return _model(self._connection.post(f"{_MODELS}/rename", body))

    def describe_model(self, name: str, description: str | None) -> RegisteredModel:
        """Change the description of a model.  Raises NotFoundError."""
        body = {"name": name, "description": description or ""}
        return _model(self._connection.post(f"{_MODELS}/update", body, method="PATCH"))

    def delete_model(self, name: str, reason: str = "") -> None:
        """Delete a model with all its versions.  Raises NotFoundError."""
        self._connection.post(f"{_MODELS}/delete", {"name": name}, method="DELETE")

    def tag_model(self, name: str, tags: Mapping[str, Any], removed: Iterable[str] = ()) -> None:
        """Set and remove tags of a model.  Raises NotFoundError."""
        for key, value in dict(names.check_model_tag(key, value) for key, value in tags.items()).items():
            self._connection.post(f"{_MODELS}/set-tag", {"name": name, "key": key, "value": value})
        for key in removed:
            body = {"name": name, "key": names.check_tag_key(key)}
            self._connection.post(f"{_MODELS}/delete-tag", body, method="DELETE")

    def search_models(
        self,
        filter_string: str | None = None,
        max_results: int = 100,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """One page of the models that match, by the server's grammar.  Raises InvalidValueError."""
        found = self._connection.get(
            f"{_MODELS}/search",
            filter=filter_string or None,
            max_results=max_results,
            order_by=list(order_by) if order_by else None,
            page_token=page_token or None,
        )
        return wire.page(found, "registered_models", wire.registered_model)

    # -- versions ----------------------------------------------------------------------------------------------------

    def create_version(
        self,
        name: str,
        source: str,
        *,
        run_id: str | None = None,
        model_id: str | None = None,
        description: str | None = None,
        tags: Mapping[str, Any] | None = None,
        run_link: str | None = None,
    ) -> ModelVersion:
        """Register what is at an address of the server as the next version of a model, which is made if need be.

        Raises:
            NotFoundError: There is nothing at that address.
            InvalidValueError: A bad name, tag or source.
        """
        checked = dict(names.check_model_tag(key, value) for key, value in (tags or {}).items())
        try:
            self.get_model(name)
        except NotFoundError:
            self.create_model(name)
        body = wire.present(
            name=name,
            source=source,
            run_id=run_id,
            model_id=model_id,
            description=description,
            tags=wire.pairs(checked),
            run_link=run_link,
        )
        return _version(self._connection.post(f"{_VERSIONS}/create", body))

    def get_version(self, name: str, version: int | str) -> ModelVersion:
        """A version by its number.  Raises NotFoundError, InvalidValueError."""
        return _version(self._connection.get(f"{_VERSIONS}/get", **_of(name, version)))

    def latest(self, name: str, stages: Sequence[str] | None = None) -> list[ModelVersion]:
        """The newest version in each stage, or in each of ``stages``.  Raises NotFoundError, InvalidValueError."""
        wanted = [ModelVersionStages.canonical(stage) for stage in stages or ()]
        body = {"name": names.check_model_name(name), **({"stages": wanted} if wanted else {})}
        found = self._connection.post(f"{_MODELS}/get-latest-versions", body, repeatable=True)
        return [wire.model_version(one) for one in items(found, "model_versions")]

    def describe_version(self, name: str, version: int | str, description: str | None) -> ModelVersion:
        """Change the description of a version.  Raises NotFoundError."""
        body = {**_of(name, version), "description": description or ""}
        return _version(self._connection.post(f"{_VERSIONS}/update", body, method="PATCH"))

    def tag_version(self, name: str, version: int | str, tags: Mapping[str, Any], removed: Iterable[str] = ()) -> None:
        """Set and remove tags of a version.  Raises NotFoundError."""
        one = _of(name, version)
        for key, value in dict(names.check_model_tag(key, value) for key, value in tags.items()).items():
            self._connection.post(f"{_VERSIONS}/set-tag", {**one, "key": key, "value": value})
        for key in removed:
            body = {**one, "key": names.check_tag_key(key)}
            self._connection.post(f"{_VERSIONS}/delete-tag", body, method="DELETE")

    def delete_version(self, name: str, version: int | str, reason: str = "") -> None:
        """Delete a version.  Raises NotFoundError."""
        self._connection.post(f"{_VERSIONS}/delete", _of(name, version), method="DELETE")

    def search_versions(
        self,
        filter_string: str | None = None,
        max_results: int = 10_000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """One page of the versions of all models that match, by the server's grammar.  Raises InvalidValueError."""
        found = self._connection.get(
            f"{_VERSIONS}/search",
            filter=filter_string or None,
            max_results=max_results,
            order_by=list(order_by) if order_by else None,
            page_token=page_token or None,
        )
        return wire.page(found, "model_versions", wire.model_version)

    def promote(
        self,
        name: str,
        version: int | str,
        stage: str,
        *,
        archive_existing: bool = False,
        reason: str = "",
        sign: bool = False,
    ) -> ModelVersion:
        """Put a version into a stage.  Raises NotFoundError, InvalidValueError."""
        stage = ModelVersionStages.canonical(stage)
        body = {**_of(name, version), "stage": stage, "archive_existing_versions": archive_existing}
        return _version(self._connection.post(f"{_VERSIONS}/transition-stage", body))

    def set_alias(self, name: str, alias: str, version: int | str, reason: str = "", *, sign: bool = False) -> None:
        """Give an alias to a version.  Raises NotFoundError, InvalidValueError."""
        self._connection.post(f"{_MODELS}/alias", {**_of(name, version), "alias": names.check_alias(alias)})

    def delete_alias(self, name: str, alias: str, reason: str = "", *, sign: bool = False) -> None:
        """Take an alias away, if the model has it."""
        self._connection.post(f"{_MODELS}/alias", {"name": name, "alias": alias}, method="DELETE")

    # -- addresses ---------------------------------------------------------------------------------------------------

    def by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that has an alias.  Raises NotFoundError, InvalidValueError."""
        return _version(self._connection.get(f"{_MODELS}/alias", name=name, alias=alias))

    def resolve(self, address: str) -> ModelVersion:
        """The version that an address stands for (``names.parse_address`` has the forms).

        Raises:
            NotFoundError: No such model, version or alias, or the stage is empty.
            InvalidValueError: It is no address, or one of a model without a version.
        """
        wanted = names.parse_address(address)
        if wanted.version is not None:
            return self.get_version(wanted.name, wanted.version)
        if wanted.word is not None:
            return self._by_word(wanted.name, wanted.word)
        if wanted.of_model:
            raise InvalidValueError(f"`{address:.200}` names no version", hint="write NAME@ALIAS or NAME/VERSION")
        found = self.latest(wanted.name, None if wanted.stage is None else [wanted.stage])
        if not found:
            where = "no version" if wanted.stage is None else f"no version in stage {wanted.stage}"
            raise NotFoundError(f"model `{wanted.name}` has {where}")
        return max(found, key=lambda one: int(one.version))

    def _by_word(self, name: str, word: str) -> ModelVersion:
        """The version that has ``word`` as an alias, or else that number, or that stage."""
        aliases = self.get_model(name).aliases
        if word in aliases:
            return self.get_version(name, aliases[word])
        if word.isdecimal():
            return self.get_version(name, word)
        if word.lower() in (stage.lower() for stage in ModelVersionStages.ALL):
            return self.resolve(f"{name}/{word}")
        known = ", ".join(f"@{alias}" for alias in sorted(aliases)) or "no aliases"
        raise NotFoundError(f"model `{name}` has no alias `{word}`", hint=f"it has {known}")

    def files_uri(self, version: ModelVersion) -> str:
        """Where the server says that the files of a version are.  Raises NotFoundError."""
        found = self._connection.get(f"{_VERSIONS}/get-download-uri", name=version.name, version=version.version)
        return str(found.get("artifact_uri") or version.source)

    # -- requirements, which only gittrack's server can change once a version is there

    def requirements(self, name: str, version: int | str) -> str | None:
        """What copies of a version are to ask for; None: what is in its files."""
        try:
            found = self._connection.call("GET", f"{_REQUIREMENTS}?{urlencode(_of(name, version))}")
        except (NotFoundError, NoEndpointError):
            return None
        lines = found.get("requirements")
        return "\n".join(map(str, lines)) if isinstance(lines, list) else None

    def set_requirements(self, name: str, version: int | str, text: str | None, reason: str = "") -> None:
        """Change what copies of a version ask for.  Raises NotFoundError; UnsupportedError on MLflow's servers."""
        lines = [] if text is None else text.splitlines()
        try:
            self._connection.call(
                "POST", _REQUIREMENTS, {**_of(name, version), "requirements": lines, "reason": reason}
            )
        except NoEndpointError as error:
            raise UnsupportedError("the requirements of a version cannot be changed on this server") from error


def _of(name: str, version: int | str) -> dict[str, str]:
    return {"name": names.check_model_name(name), "version": str(names.check_version(version))}


def _model(found: wire.Json) -> RegisteredModel:
    return wire.registered_model(wire.part(found, "registered_model"))


def _version(found: wire.Json) -> ModelVersion:
    return wire.model_version(wire.part(found, "model_version"))
