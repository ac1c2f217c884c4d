"""Registered models, their versions, stages, aliases and tags."""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from gittrack.errors import AlreadyExistsError, InvalidValueError, NotFoundError, PermissionDeniedError
from gittrack.models import addresses, requirements
from gittrack.registry import events, names
from gittrack.registry.publisher import acting_for
from gittrack.server.hub import artifacts, logged_models, records
from gittrack.server.hub.app import Hub, no_file, no_run
from gittrack.server.hub.experiments import TAG, tags_of
from gittrack.server.hub.messages import Field, Message, Values, boolean, integer, message, messages, text, texts
from gittrack.server.hub.roles import Caller, Role
from gittrack.server.hub.routes import Call, Permission, Route, Scope
from gittrack.store import layout
from gittrack.types import ModelVersion, RegisteredModel

_SEPARATORS: Final = re.compile(r"/+")
_VERSIONS_TAG: Final = "mlflow.modelVersions"
_WHOLE: Final = re.compile(r"[0-9]{1,10}")
#: Addresses that clients fetch files from without this server: not those of MLflow's own schemes, nor of folders.
_ELSEWHERE: Final = re.compile(
    r"(?!(?:file|runs|models|mlflow-artifacts|gittrack):)[a-z][a-z0-9+.-]+:/+[^/].*", re.IGNORECASE
)


def _scope(hub: Hub, values: Values) -> list[Scope]:
    return [hub.model_scope(values["name"])]


def _renaming(hub: Hub, values: Values) -> list[Scope]:
    return [hub.model_scope(values["name"]), hub.model_scope(values["new_name"])]


# --- answers


def _source(caller: Caller, version: ModelVersion) -> str:
    """What a version is a copy of, if the caller may read that; else where its files are, here or elsewhere."""
    copied = version.copied_from
    if copied is not None and caller.may(Role.READER, model=names.parse_address(copied).name):
        return copied
    found = None if version.elsewhere else _run_path(version.source)
    return version.source if found is None else "/".join(("runs:", *found)).rstrip("/")


def _run_path(source: str) -> tuple[str, str] | None:
    match = re.fullmatch(r"runs:/+([^/]+)/?(.*)", source, re.DOTALL)
    return None if match is None else (match[1], match[2])


def version_json(caller: Caller, version: ModelVersion) -> records.Json:
    """A version as MLflow's JSON, for a caller."""
    return records.model_version(version, _source(caller, version))


def model_json(caller: Caller, model: RegisteredModel) -> records.Json:
    """A model as MLflow's JSON, for a caller."""
    return records.registered_model(model, _versions(caller, model.latest_versions))


def _versions(caller: Caller, found: Iterable[ModelVersion]) -> list[records.Json]:
    return [version_json(caller, one) for one in sorted(found, key=lambda one: int(one.version))]


def _page(name: str, found: Iterable[records.Json], token: str | None) -> records.Json:
    listed = list(found)
    return ({name: listed} if listed else {}) | ({"next_page_token": token} if token else {})


def _number(value: Any) -> str:
    """A version's number.  Raises InvalidValueError in MLflow's words, TypeError."""
    if type(value) not in (str, int):
        raise TypeError
    if not _WHOLE.fullmatch(str(value)):
        raise InvalidValueError(f"Parameter 'version' must be an integer, got '{str(value)[:200]}'.")
    return str(value)


# --- what is absent


def told(handler: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """A handler that says what is absent, or there already, in MLflow's words: without the names of other models.

    What it changes is done by the caller, as tags and their readers see it, if he has an account.
    """

    def answered(call: Call) -> Any:
        try:
            with acting_for(call.caller.name if call.caller.kind in ("user", "token") else None):
                return handler(call)
        except NotFoundError:
            absent = _absent(call.hub, call.values)
            if absent is None:
                raise
            raise absent from None
        except AlreadyExistsError:
            name = call.values.get("new_name", call.values.get("name"))
            raise AlreadyExistsError(f"Registered Model (name={name}) already exists.") from None

    return answered


def _absent(hub: Hub, values: Values) -> NotFoundError | None:
    """What there is not of that which a message names; None if it is something else."""
    if "name" not in values:
        return None
    name, version = values["name"], values.get("version")
    try:
        hub.client.get_registered_model(name)
    except NotFoundError:
        return NotFoundError(f"Registered Model with name={name} not found")
    if version is None:
        return None
    return NotFoundError(f"Model Version (name={name}, version={version}) not found")


# --- models


def _create(call: Call) -> Any:
    values = call.values
    made = call.hub.client.create_registered_model(values["name"], tags_of(values), values.get("description") or None)
    return {"registered_model": model_json(call.caller, made)}


def _get(call: Call) -> Any:
    return {"registered_model": model_json(call.caller, call.hub.client.get_registered_model(call.values["name"]))}


def _update(call: Call) -> Any:
    changed = call.hub.client.update_registered_model(call.values["name"], call.values.get("description", ""))
    return {"registered_model": model_json(call.caller, changed)}


def _rename(call: Call) -> Any:
    changed = call.hub.client.rename_registered_model(call.values["name"], call.values["new_name"])
    return {"registered_model": model_json(call.caller, changed)}


def _delete(call: Call) -> Any:
    call.hub.client.delete_registered_model(call.values["name"])
    return {}


def _search(call: Call) -> Any:
    values = call.values
    page = call.hub.seen(
        call.caller,
        lambda size, token: call.hub.client.search_registered_models(
            values.get("filter"), size, values.get("order_by"), token
        ),
        lambda one: call.caller.may(Role.READER, model=one.name),
        values.get("max_results", 100),
        values.get("page_token") or None,
    )
    return _page("registered_models", (model_json(call.caller, one) for one in page), page.token)


def _latest(call: Call) -> Any:
    found = call.hub.client.get_latest_versions(call.values["name"], call.values.get("stages") or None)
    return _page("model_versions", _versions(call.caller, found), None)


def _set_tag(call: Call) -> Any:
    values = call.values
    call.hub.client.set_registered_model_tag(values["name"], values["key"], values.get("value", ""))
    return {}


def _delete_tag(call: Call) -> Any:
    call.hub.client.delete_registered_model_tag(call.values["name"], call.values["key"])
    return {}


# --- versions


def _register(call: Call) -> Any:
    values, hub = call.values, call.hub
    run_id = values.get("run_id") or None
    about: dict[str, Any] = {
        "tags": tags_of(values),
        "run_link": values.get("run_link") or None,
        "description": values.get("description") or None,
    }
    model_id = values.get("model_id") or None
    source = _local_source(hub, call, values["source"], run_id, model_id)
    if source is None:
        hub.registry.get_model(values["name"])
        made = hub.registry.register_elsewhere(values["name"], values["source"], run_id, model_id=model_id, **about)
    else:
        made = hub.client.create_model_version(values["name"], source, model_id=model_id, **about)
    if model_id is not None:
        _tell_model(call, model_id, made)
    return {"model_version": version_json(call.caller, made)}


def _tell_model(call: Call, model_id: str, version: ModelVersion) -> None:
    """Have a logged model say which versions it became, in the tag that MLflow has for it, if the caller may write."""
    hub = call.hub
    # Somebody may have written something else there, or there may be too many to say.
    with contextlib.suppress(NotFoundError, PermissionDeniedError, ValueError, TypeError):
        Permission(Role.WRITER, logged_models.scope).check(call.caller, hub, {"model_id": model_id})
        said = hub.logged_model(model_id).tags.get(_VERSIONS_TAG, "[]")
        known = [*json.loads(said), {"name": version.name, "version": int(version.version)}]
        hub.client.set_logged_model_tags(model_id, {_VERSIONS_TAG: json.dumps(known)})


def _local_source(hub: Hub, call: Call, source: str, run_id: str | None, model_id: str | None) -> str | None:
    """The files that a version is to have, as ``runs:/<run>/<path>`` or ``models:/…``, which this server keeps.

    Returns:
        None if it keeps none of them: they are at an address of somebody else's, or of a run of another server.  A run
        that the caller may not read is none of this one to him.

    Raises:
        InvalidValueError: They are nowhere that clients could fetch them from, or not of the run that is named.
        NotFoundError: No such run, or the caller may not read it.
    """
    folder = _folder(source)
    if folder is not None:
        if _is_of_clients(hub, call, folder, run_id, model_id):
            return None
        raise InvalidValueError(
            f"Invalid model version source: '{source}'. To use a local path as a model version source, the run_id "
            "request parameter has to be specified and the local path has to be contained within the artifact "
            "directory of the run specified by the run_id."
        )
    plain = source
    while (unquoted := unquote(plain)) != plain:
        plain = unquoted
    if "\0" in plain or ".." in re.split(r"[/\\]", plain):
        raise InvalidValueError(
            f"Invalid model version source: '{source}'. If supplying a source as an http, https, local file path, ftp, "
            "objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references "
            "present. Please provide an absolute path."
        )
    parts = [one for one in _SEPARATORS.split(urlsplit(source).path) if one]
    in_tree = urlsplit(source).scheme == "mlflow-artifacts"
    if in_tree and records.is_here(source) and not layout.is_derived_id("".join(parts[:1])):
        return _of_tree(hub, call, "/".join(parts))
    of_model = in_tree and parts[1:2] == ["models"] and parts[3:] == ["artifacts"]
    model_id = parts[2] if of_model else addresses.model_id_of(source)
    if model_id is not None:
        Permission(Role.READER, logged_models.scope).check(call.caller, hub, {"model_id": model_id})
        model = hub.logged_model(model_id)
        return f"runs:/{model.run_id}/{model.path}"
    if source.startswith("models:"):
        READ.check(call.caller, hub, {"name": names.parse_address(source).name})
        return source
    found = _run_path(source)
    if found is None and in_tree and parts[2:3] == ["artifacts"]:
        found = parts[1], "/".join(parts[3:])
    if found is None and _ELSEWHERE.fullmatch(source):
        return None
    if found is not None and run_id is not None and not in_tree and not _may_read(call, found[0], run_id):
        return None
    if found is None or (run_id is not None and found[0] != run_id):
        raise InvalidValueError(
            f"Invalid model version source: '{source}'. It is not among the artifacts of a run of this server"
            f"{'' if run_id is None else f' with the id {run_id}'}.",
            hint="use runs:/RUN/PATH",
        )
    if not _may_read(call, found[0]):
        raise no_run(found[0])
    if records.is_elsewhere(records.artifact_root(hub.run(found[0]).info)):
        return None
    return f"runs:/{found[0]}/{found[1]}"


def _folder(source: str) -> str | None:
    """The folder of clients that a source names, in its plain form; None if it names none."""
    parts = urlsplit(source)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return posixpath.normpath(unquote(parts.path))
    return posixpath.normpath(source) if source.startswith("/") else None


def _is_of_clients(hub: Hub, call: Call, folder: str, run_id: str | None, model_id: str | None) -> bool:
    """Whether clients keep the files of that run, or of that logged model, in a folder, or above it.

    Raises:
        NotFoundError: No such run or model, or the caller may not read it.
    """
    if model_id is not None:
        Permission(Role.READER, logged_models.scope).check(call.caller, hub, {"model_id": model_id})
        root = _folder(records.model_root(hub.logged_model(model_id)))
    elif run_id is not None:
        if not _may_read(call, run_id):
            raise no_run(run_id)
        root = _folder(records.artifact_root(hub.run(run_id).info))
    else:
        return False
    return root is not None and f"{folder}/".startswith(f"{root}/")


def _of_tree(hub: Hub, call: Call, path: str) -> str | None:
    """The files at a place in the tree that is not below the folder of an experiment.

    Returns:
        As ``runs:/…`` if they are of a run; None if they are of none.

    Raises:
        NotFoundError: The caller may not read them.
    """
    place = artifacts.place_of(hub, path) if path else artifacts.TOP
    if not hub.place_scope(place.run_id).open_to(call.caller, Role.READER):
        raise no_file()
    return None if place.free else f"runs:/{place.run_id}/{place.path}"


def _may_read(call: Call, *run_ids: str) -> bool:
    """Whether one of these runs is here for the caller."""
    for run_id in run_ids:
        with contextlib.suppress(NotFoundError):
            if call.caller.may(Role.READER, experiment=call.hub.run_scope(run_id).name):
                return True
    return False


def _get_version(call: Call) -> Any:
    return {
        "model_version": version_json(
            call.caller, call.hub.client.get_model_version(call.values["name"], call.values["version"])
        )
    }


def _update_version(call: Call) -> Any:
    values = call.values
    changed = call.hub.client.update_model_version(values["name"], values["version"], values.get("description", ""))
    return {"model_version": version_json(call.caller, changed)}


def _delete_version(call: Call) -> Any:
    call.hub.client.delete_model_version(call.values["name"], call.values["version"])
    return {}


def _search_versions(call: Call) -> Any:
    values = call.values
    page = call.hub.seen(
        call.caller,
        lambda size, token: call.hub.client.search_model_versions(
            values.get("filter"), size, values.get("order_by"), token
        ),
        lambda one: call.caller.may(Role.READER, model=one.name),
        values.get("max_results", 200_000),
        values.get("page_token") or None,
    )
    return _page("model_versions", (version_json(call.caller, one) for one in page), page.token)


def _transition(call: Call) -> Any:
    values = call.values
    changed = call.hub.registry.promote(
        values["name"],
        values["version"],
        values["stage"],
        archive_existing=values.get("archive_existing_versions", False),
        reason=values.get("reason", ""),
    )
    return {"model_version": version_json(call.caller, changed)}


def _download_uri(call: Call) -> Any:
    """Where MLflow's clients fetch the files: among the artifacts that this server hands out."""
    version = call.hub.client.get_model_version(call.values["name"], call.values["version"])
    found = None if version.elsewhere else _run_path(version.source)
    if found is None:
        return {"artifact_uri": version.source}
    root = records.usual_root(call.hub.run(found[0]).info)
    return {"artifact_uri": f"{root}/{found[1]}".rstrip("/")}


def _set_version_tag(call: Call) -> Any:
    values = call.values
    call.hub.client.set_model_version_tag(values["name"], values["version"], values["key"], values.get("value", ""))
    return {}


def _delete_version_tag(call: Call) -> Any:
    values = call.values
    call.hub.client.delete_model_version_tag(values["name"], values["version"], values["key"])
    return {}


# --- requirements, which MLflow cannot change once a version is there


def _requirements(call: Call) -> Any:
    registry = call.hub.registry
    version = registry.get_version(call.values["name"], call.values["version"])
    return {"requirements": requirements.in_force(registry, version)}


def _set_requirements(call: Call) -> Any:
    values = call.values
    lines = requirements.check(values["requirements"])
    call.hub.registry.set_requirements(
        values["name"], values["version"], requirements.text_of(lines).decode(), values.get("reason", "")
    )
    return {}


def _reset_requirements(call: Call) -> Any:
    values = call.values
    call.hub.registry.set_requirements(values["name"], values["version"], None, values.get("reason", ""))
    return {}


# --- aliases


def _set_alias(call: Call) -> Any:
    values = call.values
    call.hub.registry.set_alias(values["name"], values["alias"], values["version"], values.get("reason", ""))
    return {}


def _delete_alias(call: Call) -> Any:
    call.hub.registry.delete_alias(call.values["name"], call.values["alias"], call.values.get("reason", ""))
    return {}


def _by_alias(call: Call) -> Any:
    found = call.hub.client.get_model_version_by_alias(call.values["name"], call.values["alias"])
    return {"model_version": version_json(call.caller, found)}


_MODELS: Final = "{api}/mlflow/registered-models"
_VERSIONS: Final = "{api}/mlflow/model-versions"
_REQUIREMENTS: Final = "{api}/gittrack/model-versions/requirements"
NAME: Final = text(required=True, longest=names.MAX_PART)
NUMBER: Final = Field(_number, required=True, type="integer")
ONE: Final = Message(name=NAME)
ONE_VERSION: Final = Message(name=NAME, version=NUMBER)
_KEY: Final = text(required=True, longest=names.MAX_TAG_KEY)
_FIND: Final = {"filter": text(), "order_by": texts(), "page_token": text()}
_ALIAS_NAME: Final = text(required=True, longest=names.MAX_PART)
_LATEST: Final = Message(name=NAME, stages=texts())
_ALIAS: Final = Message(name=NAME, alias=_ALIAS_NAME)
_MODEL: Final = Message(registered_model=message(records.REGISTERED_MODEL, required=True))
_VERSION: Final = Message(model_version=message(records.MODEL_VERSION, required=True))
_LISTED: Final = Message(model_versions=messages(records.MODEL_VERSION), **records.PAGE)
_LINES: Final = Message(requirements=texts(required=True))
#: Why, for the audit trail; MLflow's clients do not say it.
REASON: Final = text(longest=events.MAX_REASON)
READ: Final = Permission(Role.READER, _scope)
_WRITE: Final = Permission(Role.WRITER, _scope)
MAINTAIN: Final = Permission(Role.MAINTAINER, _scope)

_ROUTES: Final = (
    Route(
        "POST",
        f"{_MODELS}/create",
        _WRITE,
        _create,
        Message(name=NAME, tags=messages(TAG), description=text()),
        answer=_MODEL,
    ),
    Route("GET", f"{_MODELS}/get", READ, _get, ONE, answer=_MODEL),
    Route("PATCH", f"{_MODELS}/update", _WRITE, _update, Message(name=NAME, description=text()), answer=_MODEL),
    Route(
        "POST",
        f"{_MODELS}/rename",
        Permission(Role.MAINTAINER, _renaming),
        _rename,
        Message(name=NAME, new_name=NAME),
        answer=_MODEL,
    ),
    Route("DELETE", f"{_MODELS}/delete", MAINTAIN, _delete, ONE, answer=records.DONE),
    Route(
        "GET",
        f"{_MODELS}/search",
        Permission(Role.READER),
        _search,
        Message(max_results=integer(most=1000), **_FIND),
        answer=Message(registered_models=messages(records.REGISTERED_MODEL), **records.PAGE),
    ),
    Route(  # R's client asks this way, though MLflow's own server does not answer
        "POST",
        f"{_MODELS}/search",
        Permission(Role.READER),
        _search,
        Message(max_results=integer(most=1000), **_FIND),
        answer=Message(registered_models=messages(records.REGISTERED_MODEL), **records.PAGE),
    ),
    Route("POST", f"{_MODELS}/get-latest-versions", READ, _latest, _LATEST, answer=_LISTED),
    Route("GET", f"{_MODELS}/get-latest-versions", READ, _latest, _LATEST, answer=_LISTED),
    Route(
        "POST", f"{_MODELS}/set-tag", _WRITE, _set_tag, Message(name=NAME, key=_KEY, value=text()), answer=records.DONE
    ),
    Route("DELETE", f"{_MODELS}/delete-tag", _WRITE, _delete_tag, Message(name=NAME, key=_KEY), answer=records.DONE),
    Route(
        "POST",
        f"{_MODELS}/alias",
        MAINTAIN,
        _set_alias,
        Message(name=NAME, alias=_ALIAS_NAME, version=NUMBER, reason=REASON),
        answer=records.DONE,
    ),
    Route(
        "DELETE",
        f"{_MODELS}/alias",
        MAINTAIN,
        _delete_alias,
        Message(name=NAME, alias=_ALIAS_NAME, reason=REASON),
        answer=records.DONE,
    ),
    Route("GET", f"{_MODELS}/alias", READ, _by_alias, _ALIAS, answer=_VERSION),
    Route(
        "POST",
        f"{_VERSIONS}/create",
        _WRITE,
        _register,
        Message(
            name=NAME,
            source=text(required=True),
            run_id=text(),
            tags=messages(TAG),
            run_link=text(),
            description=text(),
            model_id=text(),
        ),
        answer=_VERSION,
    ),
    Route("GET", _REQUIREMENTS, READ, _requirements, ONE_VERSION, answer=_LINES),
    Route(
        "POST",
        _REQUIREMENTS,
        MAINTAIN,
        _set_requirements,
        Message(name=NAME, version=NUMBER, requirements=texts(required=True), reason=REASON),
        answer=records.DONE,
    ),
    Route(
        "DELETE",
        _REQUIREMENTS,
        MAINTAIN,
        _reset_requirements,
        Message(name=NAME, version=NUMBER, reason=REASON),
        answer=records.DONE,
    ),
    Route("GET", f"{_VERSIONS}/get", READ, _get_version, ONE_VERSION, answer=_VERSION),
    Route(
        "PATCH",
        f"{_VERSIONS}/update",
        _WRITE,
        _update_version,
        Message(name=NAME, version=NUMBER, description=text()),
        answer=_VERSION,
    ),
    Route("DELETE", f"{_VERSIONS}/delete", MAINTAIN, _delete_version, ONE_VERSION, answer=records.DONE),
    Route(
        "GET",
        f"{_VERSIONS}/search",
        Permission(Role.READER),
        _search_versions,
        Message(max_results=integer(most=200_000), **_FIND),
        answer=_LISTED,
    ),
    Route(
        "POST",
        f"{_VERSIONS}/transition-stage",
        MAINTAIN,
        _transition,
        Message(
            name=NAME,
            version=NUMBER,
            stage=text(required=True),
            archive_existing_versions=boolean(),
            reason=REASON,
        ),
        answer=_VERSION,
    ),
    Route(
        "GET",
        f"{_VERSIONS}/get-download-uri",
        READ,
        _download_uri,
        ONE_VERSION,
        answer=Message(artifact_uri=text(required=True)),
    ),
    Route(
        "POST",
        f"{_VERSIONS}/set-tag",
        _WRITE,
        _set_version_tag,
        Message(name=NAME, version=NUMBER, key=_KEY, value=text()),
        answer=records.DONE,
    ),
    Route(
        "DELETE",
        f"{_VERSIONS}/delete-tag",
        _WRITE,
        _delete_version_tag,
        Message(name=NAME, version=NUMBER, key=_KEY),
        answer=records.DONE,
    ),
)

ROUTES: Final = tuple(replace(route, handler=told(route.handler)) for route in _ROUTES)
