"""Experiments."""

from __future__ import annotations

from typing import Any, Final

from gittrack.errors import AlreadyExistsError, NotFoundError, StateError
from gittrack.server.hub import locations, records
from gittrack.server.hub.app import Hub, deleted, no_experiment
from gittrack.server.hub.messages import Message, Values, integer, message, messages, one_of, text, texts
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route, Scope
from gittrack.server.hub.streams import address
from gittrack.track import limits
from gittrack.types import LifecycleStage, ViewType

VIEWS: Final = {"ACTIVE_ONLY": ViewType.ACTIVE_ONLY, "DELETED_ONLY": ViewType.DELETED_ONLY, "ALL": ViewType.ALL}
_KEY: Final = text(required=True, longest=limits.MAX_KEY)
TAG: Final = Message(key=_KEY, value=text())


def tags_of(values: Values) -> dict[str, str]:
    """The tags of a message."""
    return {tag["key"]: tag.get("value", "") for tag in values.get("tags", ())}


def _named(hub: Hub, values: Values) -> list[Scope]:
    return [hub.experiment_scope(values["experiment_id"])]


def _new(hub: Hub, values: Values) -> list[Scope]:
    return [Scope("experiment", values["name"], no_experiment(values["name"]))]


def _renaming(hub: Hub, values: Values) -> list[Scope]:
    return [*_named(hub, values), *_new(hub, {"name": values["new_name"]})]


def _by_name(hub: Hub, values: Values) -> list[Scope]:
    return [Scope("experiment", values["experiment_name"], _no_name(values["experiment_name"]))]


def _no_name(name: str) -> NotFoundError:
    return NotFoundError(f"Could not find experiment with name '{name}'")


def _taken(name: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"Experiment(name={name}) already exists.")


def _create(call: Call) -> Any:
    values = call.values
    location = locations.taken(
        values.get("artifact_location", ""),
        lambda: address(call.request, call.hub.options.public),
        local=call.caller.kind == "local",
    )
    try:
        made = call.hub.tracker.create_experiment(values["name"], tags=tags_of(values), artifact_location=location)
    except AlreadyExistsError as error:
        raise _taken(values["name"]) from error
    return {"experiment_id": made}


def _get(call: Call) -> Any:
    return {"experiment": records.experiment(call.hub.experiment(call.values["experiment_id"]))}


def _get_by_name(call: Call) -> Any:
    name = call.values["experiment_name"]
    found = call.hub.client.get_experiment_by_name(name)
    if found is None:
        raise _no_name(name)
    return {"experiment": records.experiment(found)}


def _search(call: Call) -> Any:
    values = call.values
    page = call.hub.seen(
        call.caller,
        lambda size, token: call.hub.client.search_experiments(
            values.get("view_type", ViewType.ACTIVE_ONLY), size, values.get("filter"), values.get("order_by"), token
        ),
        lambda one: call.caller.may(Role.READER, experiment=one.name),
        values.get("max_results", 0),
        values.get("page_token") or None,
    )
    answer: records.Json = {"experiments": [records.experiment(one) for one in page]} if page else {}
    return answer | ({"next_page_token": page.token} if page.token else {})


def _active(hub: Hub, experiment_id: str) -> None:
    if hub.experiment(experiment_id).lifecycle_stage == LifecycleStage.DELETED:
        raise deleted("experiment", experiment_id)


def _delete(call: Call) -> Any:
    experiment_id = call.values["experiment_id"]
    if call.hub.experiment(experiment_id).lifecycle_stage == LifecycleStage.DELETED:
        raise no_experiment(experiment_id)
    call.hub.client.delete_experiment(experiment_id)
    return {}


def _restore(call: Call) -> Any:
    experiment_id = call.values["experiment_id"]
    if call.hub.experiment(experiment_id).lifecycle_stage == LifecycleStage.ACTIVE:
        raise no_experiment(experiment_id)
    call.hub.client.restore_experiment(experiment_id)
    return {}


def _update(call: Call) -> Any:
    experiment_id = call.values["experiment_id"]
    if call.hub.experiment(experiment_id).lifecycle_stage == LifecycleStage.DELETED:
        raise StateError("Cannot rename a non-active experiment.")
    try:
        call.hub.client.rename_experiment(experiment_id, call.values["new_name"])
    except AlreadyExistsError as error:
        raise _taken(call.values["new_name"]) from error
    return {}


def _set_tag(call: Call) -> Any:
    _active(call.hub, call.values["experiment_id"])
    call.hub.client.set_experiment_tag(call.values["experiment_id"], call.values["key"], call.values.get("value", ""))
    return {}


def _delete_tag(call: Call) -> Any:
    experiment_id, key = call.values["experiment_id"], call.values["key"]
    _active(call.hub, experiment_id)
    if key not in call.hub.experiment(experiment_id).tags:
        raise NotFoundError(f"No tag with name: {key} in experiment with id {experiment_id}")
    call.hub.client.delete_experiment_tag(experiment_id, key)
    return {}


_NAME: Final = text(required=True, longest=limits.MAX_EXPERIMENT_NAME)
_ONE: Final = Message(experiment_id=text(required=True))
_SEARCH: Final = Message(
    view_type=one_of(VIEWS),
    max_results=integer(),
    order_by=texts(),
    filter=text(),
    page_token=text(),
)
_AT: Final = "{api}/mlflow/experiments"
_READ: Final = Permission(Role.READER, _named)
_WRITE: Final = Permission(Role.WRITER, _named)
_MAINTAIN: Final = Permission(Role.MAINTAINER, _named)

ROUTES: Final = (
    Route(
        "POST",
        f"{_AT}/create",
        Permission(Role.WRITER, _new),
        _create,
        Message(name=_NAME, artifact_location=text(), tags=messages(TAG)),
        answer=Message(experiment_id=text(required=True)),
    ),
    Route(
        "GET", f"{_AT}/get", _READ, _get, _ONE, answer=Message(experiment=message(records.EXPERIMENT, required=True))
    ),
    Route(
        "GET",
        f"{_AT}/get-by-name",
        Permission(Role.READER, _by_name),
        _get_by_name,
        Message(experiment_name=text(required=True)),
        answer=Message(experiment=message(records.EXPERIMENT, required=True)),
    ),
    Route(
        "POST",
        f"{_AT}/search",
        Permission(Role.READER),
        _search,
        _SEARCH,
        answer=Message(experiments=messages(records.EXPERIMENT), **records.PAGE),
    ),
    Route(
        "GET",
        f"{_AT}/search",
        Permission(Role.READER),
        _search,
        _SEARCH,
        answer=Message(experiments=messages(records.EXPERIMENT), **records.PAGE),
    ),
    Route("POST", f"{_AT}/delete", _MAINTAIN, _delete, _ONE, answer=records.DONE),
    Route("POST", f"{_AT}/restore", _MAINTAIN, _restore, _ONE, answer=records.DONE),
    Route(
        "POST",
        f"{_AT}/update",
        Permission(Role.WRITER, _renaming),
        _update,
        Message(experiment_id=text(required=True), new_name=_NAME),
        answer=records.DONE,
    ),
    Route(
        "POST",
        f"{_AT}/set-experiment-tag",
        _WRITE,
        _set_tag,
        Message(experiment_id=text(required=True), key=_KEY, value=text(longest=limits.MAX_EXPERIMENT_TAG_VALUE)),
        answer=records.DONE,
    ),
    Route(
        "POST",
        f"{_AT}/delete-experiment-tag",
        _WRITE,
        _delete_tag,
        Message(experiment_id=text(required=True), key=text(required=True)),
        answer=records.DONE,
    ),
)
