"""Runs: made, changed, searched; their parameters, tags, inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from gittrack.errors import InvalidValueError, NotFoundError
from gittrack.server.hub import locations, logged_models, records
from gittrack.server.hub.app import Hub, deleted
from gittrack.server.hub.experiments import TAG, VIEWS, tags_of
from gittrack.server.hub.messages import Message, Values, double, integer, message, messages, one_of, text, texts
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route, Scope
from gittrack.track import limits
from gittrack.types import (
    Dataset,
    DatasetInput,
    InputTag,
    LifecycleStage,
    Metric,
    ModelOutput,
    Param,
    RunStatus,
    RunTag,
    ViewType,
)

#: The most of each kind, and in all, that one batch may have.
_BATCH: Final = {"metrics": 1000, "params": 100, "tags": 100}
_BATCH_IN_ALL: Final = 1000
_MODELS_TAG: Final = "mlflow.log-model.history"
_MAX_DATASET_EXPERIMENTS: Final = 20


def run_scope(hub: Hub, values: Values) -> list[Scope]:
    """The experiment of the run that a message is about."""
    return [hub.run_scope(values["run_id"])]


def _experiment_scope(hub: Hub, values: Values) -> list[Scope]:
    return [hub.experiment_scope(values.get("experiment_id") or "0")]


def _create(call: Call) -> Any:
    values = call.values
    experiment_id = values.get("experiment_id") or "0"
    experiment = call.hub.experiment(experiment_id)
    if experiment.lifecycle_stage == LifecycleStage.DELETED:
        raise deleted("experiment", experiment_id)
    tags = tags_of(values)
    if values.get("user_id"):
        tags.setdefault("mlflow.user", values["user_id"])
    made = call.hub.client.create_run(experiment_id, values.get("start_time"), tags, values.get("run_name") or None)
    location = locations.of_experiment(experiment)
    if location is not None:
        run_id = made.info.run_id
        call.hub.writer(run_id).set_artifact_uri(locations.of_run(location, run_id))
        made = call.hub.run(run_id)
    return {"run": records.run(made)}


def _get(call: Call) -> Any:
    return {"run": records.run(call.hub.run(call.values["run_id"]))}


def _update(call: Call) -> Any:
    values = call.values
    run_id, status = values["run_id"], values.get("status")
    writer = call.hub.writer(run_id)
    if values.get("run_name"):
        writer.set_name(values["run_name"])
    if status is not None:
        writer.set_status(RunStatus.to_string(status), values.get("end_time"))
    return {"run_info": records.run_info(call.hub.run(run_id).info)}


def _delete(call: Call) -> Any:
    call.hub.run(call.values["run_id"])
    call.hub.client.delete_run(call.values["run_id"])
    return {}


def _restore(call: Call) -> Any:
    call.hub.run(call.values["run_id"])
    call.hub.client.restore_run(call.values["run_id"])
    return {}


def _search(call: Call) -> Any:
    values = call.values
    page = call.hub.client.search_runs(
        call.hub.readable(call.caller, values.get("experiment_ids", [])),
        values.get("filter", ""),
        values.get("run_view_type", ViewType.ACTIVE_ONLY),
        values.get("max_results", 1000),
        values.get("order_by"),
        values.get("page_token") or None,
    )
    answer: records.Json = {"runs": [records.run(one) for one in page]} if page else {}
    return answer | ({"next_page_token": page.token} if page.token else {})


# --- parameters, tags, metrics


def _metric(values: Values) -> Metric:
    return Metric(
        values["key"],
        values["value"],
        values["timestamp"],
        values.get("step", 0),
        values.get("model_id") or None,
        values.get("dataset_name") or None,
        values.get("dataset_digest") or None,
    )


def _models_of(points: Iterable[Values]) -> set[str]:
    return {one["model_id"] for one in points if one.get("model_id")}


def _check_models(call: Call, model_ids: Iterable[str]) -> None:
    """Refuse to say something of logged models that the caller may not know of.  Raises NotFoundError."""
    if not call.caller.may(Role.READER):
        for model_id in model_ids:
            Permission(Role.READER, logged_models.scope).check(call.caller, call.hub, {"model_id": model_id})


def _only_appends(hub: Hub, values: Values) -> bool:
    return hub.is_open(values) and not _models_of([values, *values.get("metrics", ())])


def _log_metric(call: Call) -> Any:
    _check_models(call, _models_of([call.values]))
    found = _metric(call.values)
    writer = call.hub.writer(call.values["run_id"])
    if found.model_id is None and found.dataset_name is None and found.dataset_digest is None:
        writer.log_metric(found.key, found.value, found.step, found.timestamp)
    else:
        writer.log_metrics([found])
    return {}


def _log_param(call: Call) -> Any:
    call.hub.writer(call.values["run_id"]).log_params({call.values["key"]: call.values.get("value", "")})
    return {}


def _set_tag(call: Call) -> Any:
    call.hub.writer(call.values["run_id"]).set_tags({call.values["key"]: call.values.get("value", "")})
    return {}


def _delete_tag(call: Call) -> Any:
    run_id, key = call.values["run_id"], call.values["key"]
    writer = call.hub.writer(run_id)
    if not writer.has_tag(key):
        raise NotFoundError(f"No tag with name: {key} in run with id {run_id}")
    writer.delete_tag(key)
    return {}


def _log_batch(call: Call) -> Any:
    values = call.values
    found = {kind: values.get(kind, []) for kind in _BATCH}
    for kind, most in _BATCH.items():
        if len(found[kind]) > most:
            raise InvalidValueError(
                f"A batch logging request can contain at most {most} {kind}. Got {len(found[kind])} {kind}. "
                f"Please split up {kind} across multiple requests and try again."
            )
    if sum(map(len, found.values())) > _BATCH_IN_ALL:
        raise InvalidValueError(
            f"A batch logging request can contain at most {_BATCH_IN_ALL} metrics, params, and tags in all."
        )
    _check_models(call, _models_of(found["metrics"]))
    call.hub.writer(values["run_id"])
    call.hub.client.log_batch(
        values["run_id"],
        [_metric(one) for one in found["metrics"]],
        [Param(one["key"], one.get("value", "")) for one in found["params"]],
        [RunTag(one["key"], one.get("value", "")) for one in found["tags"]],
    )
    return {}


# --- inputs, outputs, models


def _dataset_input(values: Values) -> DatasetInput:
    given = values["dataset"]
    return DatasetInput(
        Dataset(
            given["name"],
            given["digest"],
            given["source_type"],
            given["source"],
            given.get("schema"),
            given.get("profile"),
        ),
        [InputTag(tag["key"], tag.get("value", "")) for tag in values.get("tags", ())],
    )


def _log_inputs(call: Call) -> Any:
    values = call.values
    datasets = [_dataset_input(one) for one in values.get("datasets", ())]
    models = [one["model_id"] for one in values.get("models", ())]
    _check_models(call, models)
    call.hub.writer(values["run_id"]).log_inputs(datasets, models)
    return {}


def _log_outputs(call: Call) -> Any:
    _check_models(call, _models_of(call.values["models"]))
    outputs = [ModelOutput(one["model_id"], one.get("step", 0)) for one in call.values["models"]]
    call.hub.writer(call.values["run_id"]).log_outputs(outputs)
    return {}


def _log_model(call: Call) -> Any:
    """What clients before MLflow 3 say of a model: it becomes an entry of the run's tag, as there."""
    run_id, given = call.values["run_id"], call.values["model_json"]
    try:
        model = json.loads(given)
    except (ValueError, RecursionError):
        raise InvalidValueError(f"Malformed model info. \n {given:.200} \n is not a valid JSON.") from None
    if not isinstance(model, dict):
        raise InvalidValueError("Malformed model info: it is no JSON object.")
    missing = {"artifact_path", "flavors", "utc_time_created", "run_id"} - set(model)
    if missing:
        raise InvalidValueError(f"Model json is missing mandatory fields: {missing}")
    writer = call.hub.writer(run_id)
    try:
        known = json.loads(call.hub.run(run_id).data.tags.get(_MODELS_TAG, "[]"))
    except ValueError:
        known = []
    writer.set_tags({_MODELS_TAG: json.dumps([*(known if isinstance(known, list) else []), model])})
    return {}


def _search_datasets(call: Call) -> Any:
    wanted = call.values.get("experiment_ids", [])
    if not wanted:
        raise InvalidValueError("SearchDatasets request must specify at least one experiment_id.")
    if len(wanted) > _MAX_DATASET_EXPERIMENTS:
        raise InvalidValueError(
            f"SearchDatasets request cannot specify more than {_MAX_DATASET_EXPERIMENTS} experiment_ids. "
            f"Received {len(wanted)} experiment_ids."
        )
    found: dict[tuple[str, str, str, str | None], None] = {}
    for experiment_id in call.hub.readable(call.caller, wanted):
        for run in call.hub.runs_of(experiment_id):
            for one in run.inputs.dataset_inputs:
                context = next((tag.value for tag in one.tags if tag.key == "mlflow.data.context"), None)
                found[experiment_id, one.dataset.name, one.dataset.digest, context] = None
    names_of = ("experiment_id", "name", "digest", "context")
    summaries = [{k: v for k, v in zip(names_of, one, strict=True) if v is not None} for one in found]
    return {"dataset_summaries": summaries} if summaries else {}


_ID: Final = text(required=True, alias="run_uuid")
_ONE: Final = Message(run_id=_ID)
_STATUS: Final = {"RUNNING": 1, "SCHEDULED": 2, "FINISHED": 3, "FAILED": 4, "KILLED": 5}
_KEY: Final = text(required=True, longest=limits.MAX_KEY)
_POINT: Final = {
    "key": _KEY,
    "value": double(required=True),
    "timestamp": integer(required=True),
    "step": integer(),
    "model_id": text(),
    "dataset_name": text(),
    "dataset_digest": text(),
}
_DATASET: Final = Message(
    name=text(required=True, longest=limits.MAX_DATASET_NAME),
    digest=text(required=True, longest=limits.MAX_DATASET_DIGEST),
    source_type=text(required=True, longest=limits.MAX_DATASET_NAME),
    source=text(required=True, longest=limits.MAX_DATASET_SOURCE),
    schema=text(longest=limits.MAX_DATASET_SCHEMA),
    profile=text(longest=limits.MAX_DATASET_PROFILE),
)
_RUN: Final = Message(run=message(records.RUN, required=True))
_SUMMARY: Final = Message(
    experiment_id=text(required=True), name=text(required=True), digest=text(required=True), context=text()
)
_INPUT_TAG: Final = Message(
    key=text(required=True, longest=limits.MAX_INPUT_TAG_KEY), value=text(longest=limits.MAX_INPUT_TAG_VALUE)
)
_AT: Final = "{api}/mlflow/runs"
_READ: Final = Permission(Role.READER, run_scope)
_WRITE: Final = Permission(Role.WRITER, run_scope)
_MAINTAIN: Final = Permission(Role.MAINTAINER, run_scope)

ROUTES: Final = (
    Route(
        "POST",
        f"{_AT}/create",
        Permission(Role.WRITER, _experiment_scope),
        _create,
        Message(
            experiment_id=text(),
            user_id=text(),
            run_name=text(longest=limits.MAX_TAG_VALUE),
            start_time=integer(),
            tags=messages(TAG),
        ),
        answer=_RUN,
    ),
    Route("GET", f"{_AT}/get", _READ, _get, _ONE, answer=_RUN),
    Route(
        "POST",
        f"{_AT}/update",
        _WRITE,
        _update,
        Message(run_id=_ID, status=one_of(_STATUS), end_time=integer(), run_name=text(longest=limits.MAX_TAG_VALUE)),
        answer=Message(run_info=message(records.RUN_INFO, required=True)),
    ),
    Route("POST", f"{_AT}/delete", _MAINTAIN, _delete, _ONE, answer=records.DONE),
    Route("POST", f"{_AT}/restore", _MAINTAIN, _restore, _ONE, answer=records.DONE),
    Route(
        "POST",
        f"{_AT}/search",
        Permission(Role.READER),
        _search,
        Message(
            experiment_ids=texts(),
            filter=text(),
            run_view_type=one_of(VIEWS),
            max_results=integer(most=50_000),
            order_by=texts(),
            page_token=text(),
        ),
        answer=Message(runs=messages(records.RUN), **records.PAGE),
    ),
    Route(
        "POST",
        f"{_AT}/log-metric",
        _WRITE,
        _log_metric,
        Message(run_id=_ID, **_POINT),
        _only_appends,
        answer=records.DONE,
    ),
    Route(
        "POST",
        f"{_AT}/log-parameter",
        _WRITE,
        _log_param,
        Message(run_id=_ID, key=_KEY, value=text()),
        Hub.is_open,
        answer=records.DONE,
    ),
    Route(
        "POST",
        f"{_AT}/set-tag",
        _WRITE,
        _set_tag,
        Message(run_id=_ID, key=_KEY, value=text()),
        Hub.is_open,
        answer=records.DONE,
    ),
    Route(
        "POST",
        f"{_AT}/delete-tag",
        _WRITE,
        _delete_tag,
        Message(run_id=_ID, key=text(required=True)),
        answer=records.DONE,
    ),
    Route(
        "POST",
        f"{_AT}/log-batch",
        _WRITE,
        _log_batch,
        Message(
            run_id=_ID,
            metrics=messages(Message(**_POINT)),
            params=messages(TAG),
            tags=messages(TAG),
        ),
        _only_appends,
        answer=records.DONE,
    ),
    Route(
        "POST",
        f"{_AT}/log-inputs",
        _WRITE,
        _log_inputs,
        Message(
            run_id=_ID,
            datasets=messages(Message(tags=messages(_INPUT_TAG), dataset=message(_DATASET, required=True))),
            models=messages(Message(model_id=text(required=True))),
        ),
        answer=records.DONE,
    ),
    Route(
        "POST",
        f"{_AT}/outputs",
        _WRITE,
        _log_outputs,
        Message(run_id=_ID, models=messages(Message(model_id=text(required=True), step=integer()), required=True)),
        answer=records.DONE,
    ),
    Route(
        "POST",
        f"{_AT}/log-model",
        _WRITE,
        _log_model,
        Message(run_id=_ID, model_json=text(required=True)),
        answer=records.DONE,
    ),
    Route(
        "POST",
        "{api}/mlflow/experiments/search-datasets",
        Permission(Role.READER),
        _search_datasets,
        Message(experiment_ids=texts()),
        answer=Message(dataset_summaries=messages(_SUMMARY)),
    ),
)
