"""Logged models: what clients since MLflow 3 make of every model that they log."""

from __future__ import annotations

from typing import Any, Final

from gittrack.errors import InvalidValueError, NotFoundError
from gittrack.server.hub import locations, records
from gittrack.server.hub.app import Hub
from gittrack.server.hub.experiments import TAG, tags_of
from gittrack.server.hub.messages import Message, Values, boolean, integer, message, messages, one_of, text, texts
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route, Scope
from gittrack.track import limits
from gittrack.types import LoggedModelStatus, check_run_id

#: MLflow's names on the wire.
STATUSES: Final = {
    LoggedModelStatus.UNSPECIFIED: "LOGGED_MODEL_STATUS_UNSPECIFIED",
    LoggedModelStatus.PENDING: "LOGGED_MODEL_PENDING",
    LoggedModelStatus.READY: "LOGGED_MODEL_READY",
    LoggedModelStatus.FAILED: "LOGGED_MODEL_UPLOAD_FAILED",
}
_NUMBERS: Final = {name: status.to_int() for status, name in STATUSES.items()}


def scope(hub: Hub, values: Values) -> list[Scope]:
    """The experiment of the logged model that a message is about."""
    model_id = values["model_id"]
    absent = _none(model_id)
    found = hub.logged_model(model_id, deleted=True)
    return [Scope("experiment", hub.experiment(found.experiment_id).name, absent)]


def _none(model_id: str) -> NotFoundError:
    return NotFoundError(f"Logged model with ID '{model_id}' not found.")


def _new_scope(hub: Hub, values: Values) -> list[Scope]:
    return [hub.experiment_scope(values["experiment_id"])]


def _is_here(call: Call, run_id: str) -> bool:
    """Whether a run is here for the caller to write to; one that he may not read is none of this server to him.

    Raises:
        InvalidValueError: It can be no run's id.
        PermissionDeniedError: He may read it, and no more.
    """
    check_run_id(run_id)
    try:
        call.hub.run_experiment(run_id)
        Permission(Role.WRITER, lambda hub, _: [hub.run_scope(run_id)]).check(call.caller, call.hub, {})
    except NotFoundError:
        return False
    return True


def _params_of(values: Values) -> dict[str, str]:
    return {one["key"]: one.get("value", "") for one in values.get("params", ())}


def _create(call: Call) -> Any:
    values = call.values
    source = values.get("source_run_id") or None
    here = source is not None and _is_here(call, source)
    made = call.hub.logged_models.create(
        values["experiment_id"],
        values.get("name") or None,
        source_run_id=source if here else None,
        absent_run_id=None if here else source,
        tags=tags_of(values),
        params=_params_of(values),
        model_type=values.get("model_type") or None,
    )
    location = locations.of_experiment(call.hub.experiment(made.experiment_id))
    if location is not None:
        address = locations.of_model(location, made.model_id)
        call.hub.writer(made.run_id).edit_model(made.model_id, {"artifact_uri": address})
        made = call.hub.logged_model(made.model_id)
    return {"model": records.logged_model(made, STATUSES[made.status])}


def _get(call: Call) -> Any:
    found = call.hub.logged_model(call.values["model_id"], deleted=call.values.get("allow_deleted", False))
    return {"model": records.logged_model(found, STATUSES[found.status])}


def _finalize(call: Call) -> Any:
    status = call.values.get("status")
    if status is None:
        raise InvalidValueError("Missing value for required parameter 'status'.")
    done = call.hub.client.finalize_logged_model(call.values["model_id"], LoggedModelStatus.from_int(status))
    return {"model": records.logged_model(done, STATUSES[done.status])}


def _delete(call: Call) -> Any:
    call.hub.client.delete_logged_model(call.values["model_id"])
    return {}


def _set_tags(call: Call) -> Any:
    model_id = call.values["model_id"]
    call.hub.client.set_logged_model_tags(model_id, tags_of(call.values))
    found = call.hub.logged_model(model_id)
    return {"model": records.logged_model(found, STATUSES[found.status])}


def _delete_tag(call: Call) -> Any:
    model_id, key = call.values["model_id"], call.values["tag_key"]
    if key not in call.hub.logged_model(model_id).tags:
        raise NotFoundError(f"No tag with key '{key}' found for model with ID '{model_id}'.")
    call.hub.client.delete_logged_model_tag(model_id, key)
    return {}


def _log_params(call: Call) -> Any:
    call.hub.client.log_model_params(call.values["model_id"], _params_of(call.values))
    return {}


def _search(call: Call) -> Any:
    values = call.values
    page = call.hub.client.search_logged_models(
        call.hub.readable(call.caller, values["experiment_ids"]),
        values.get("filter") or None,
        values.get("datasets") or None,
        values.get("max_results") or None,
        values.get("order_by") or None,
        values.get("page_token") or None,
    )
    answer: records.Json = {}
    if page:
        answer["models"] = [records.logged_model(one, STATUSES[one.status]) for one in page]
    return answer | ({"next_page_token": page.token} if page.token else {})


def _list(call: Call) -> Any:
    given = call.values.get("artifact_directory_path")
    try:
        path = limits.check_artifact_path(given) if given else None
    except InvalidValueError as error:
        raise InvalidValueError("Invalid path") from error
    found = call.hub.logged_model(call.values["model_id"])
    files = [records.file_info(one) for one in call.hub.client.list_logged_model_artifacts(found.model_id, path)]
    root = records.model_root(found)
    return {"root_uri": root} | ({"files": files} if files else {})


_AT: Final = "{api}/mlflow/logged-models"
_ONE: Final = f"{_AT}/{{model_id}}"
_ID: Final = text(required=True)
_MODEL: Final = Message(model=message(records.LOGGED_MODEL, required=True))
_READ: Final = Permission(Role.READER, scope)
_WRITE: Final = Permission(Role.WRITER, scope)

ROUTES: Final = (
    Route(
        "POST",
        _AT,
        Permission(Role.WRITER, _new_scope),
        _create,
        Message(
            experiment_id=text(required=True),
            name=text(longest=limits.MAX_MODEL_NAME),
            model_type=text(longest=limits.MAX_MODEL_TYPE),
            source_run_id=text(),
            params=messages(TAG),
            tags=messages(TAG),
        ),
        answer=_MODEL,
    ),
    Route(
        "POST",
        f"{_AT}/search",
        Permission(Role.READER),
        _search,
        Message(
            experiment_ids=texts(required=True),
            filter=text(),
            datasets=messages(Message(dataset_name=text(required=True), dataset_digest=text())),
            max_results=integer(),
            order_by=messages(
                Message(field_name=text(required=True), ascending=boolean(), dataset_name=text(), dataset_digest=text())
            ),
            page_token=text(),
        ),
        answer=Message(models=messages(records.LOGGED_MODEL), **records.PAGE),
    ),
    Route("GET", _ONE, _READ, _get, Message(model_id=_ID, allow_deleted=boolean()), answer=_MODEL),
    Route("PATCH", _ONE, _WRITE, _finalize, Message(model_id=_ID, status=one_of(_NUMBERS)), answer=_MODEL),
    Route("DELETE", _ONE, Permission(Role.MAINTAINER, scope), _delete, Message(model_id=_ID), answer=records.DONE),
    Route("PATCH", f"{_ONE}/tags", _WRITE, _set_tags, Message(model_id=_ID, tags=messages(TAG)), answer=_MODEL),
    Route(
        "DELETE",
        f"{_ONE}/tags/{{tag_key:path}}",
        _WRITE,
        _delete_tag,
        Message(model_id=_ID, tag_key=_ID),
        answer=records.DONE,
    ),
    Route(
        "POST", f"{_ONE}/params", _WRITE, _log_params, Message(model_id=_ID, params=messages(TAG)), answer=records.DONE
    ),
    Route(
        "GET",
        f"{_ONE}/artifacts/directories",
        _READ,
        _list,
        Message(model_id=_ID, artifact_directory_path=text(), page_token=text()),
        answer=records.FILES,
    ),
)
