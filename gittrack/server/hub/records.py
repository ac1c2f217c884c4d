"""The server's answers: records as MLflow's JSON.

A field that has no value is left out, as protocol buffers do.  Where the files of a run are is said by an address that
MLflow's client asks this server for, ``mlflow-artifacts:/<experiment>/<run>/artifacts``, unless its experiment wants
them elsewhere (``locations``).  Records come from anywhere, so that is looked at again before it is said: clients send
files, and credentials, to where they are told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from gittrack.server.hub.messages import (
    Message,
    boolean,
    double,
    integer,
    message,
    messages,
    number,
    one_of,
    text,
    texts,
)
from gittrack.types import (
    DatasetInput,
    Experiment,
    FileInfo,
    LoggedModel,
    Metric,
    ModelVersion,
    RegisteredModel,
    Run,
    RunInfo,
)

#: Begins the address of what this server keeps.
ARTIFACTS: Final = "mlflow-artifacts:/"

#: What MLflow's clients write to by themselves: buckets, file servers, folders.
_ELSEWHERE: Final = re.compile(
    r"(?:(?:s3|gs|r2|b2|abfss?|wasbs?|hdfs|viewfs|dbfs|s?ftp|file):/|/)[^\x00-\x1f\x7f?#;\\]*", re.IGNORECASE
)

Json = dict[str, Any]

_ALWAYS: Final = text(required=True)
_NUMBER: Final = integer(required=True)
_STAGE: Final = one_of({"active": 1, "deleted": 2})
_PAIR: Final = Message(key=_ALWAYS, value=_ALWAYS)
PAGE: Final = {"next_page_token": text()}

#: What the functions below answer, for the description.
EXPERIMENT: Final = Message(
    experiment_id=_ALWAYS,
    name=_ALWAYS,
    artifact_location=_ALWAYS,
    lifecycle_stage=_STAGE,
    last_update_time=integer(),
    creation_time=integer(),
    tags=messages(_PAIR),
)
RUN_INFO: Final = Message(
    run_uuid=_ALWAYS,
    experiment_id=_ALWAYS,
    run_name=text(),
    user_id=_ALWAYS,
    status=_ALWAYS,
    start_time=integer(),
    end_time=integer(),
    artifact_uri=_ALWAYS,
    lifecycle_stage=_STAGE,
    run_id=_ALWAYS,
)
METRIC: Final = Message(
    key=_ALWAYS,
    value=double(required=True),
    timestamp=_NUMBER,
    step=_NUMBER,
    model_id=text(),
    dataset_name=text(),
    dataset_digest=text(),
    run_id=text(),
)
_DATASET: Final = Message(
    name=_ALWAYS, digest=_ALWAYS, source_type=_ALWAYS, source=_ALWAYS, schema=text(), profile=text()
)
_DATASET_INPUT: Final = Message(tags=messages(_PAIR), dataset=message(_DATASET, required=True))
RUN: Final = Message(
    info=message(RUN_INFO, required=True),
    data=message(Message(metrics=messages(METRIC), params=messages(_PAIR), tags=messages(_PAIR)), required=True),
    inputs=message(
        Message(dataset_inputs=messages(_DATASET_INPUT), model_inputs=messages(Message(model_id=_ALWAYS))),
        required=True,
    ),
    outputs=message(Message(model_outputs=messages(Message(model_id=_ALWAYS, step=_NUMBER), required=True))),
)
LOGGED_MODEL: Final = Message(
    info=message(
        Message(
            experiment_id=_ALWAYS,
            model_id=_ALWAYS,
            name=text(),
            artifact_uri=_ALWAYS,
            creation_timestamp_ms=integer(),
            last_updated_timestamp_ms=integer(),
            model_type=text(),
            source_run_id=text(),
            status=_ALWAYS,
            status_message=text(),
            tags=messages(_PAIR),
        ),
        required=True,
    ),
    data=message(Message(params=messages(_PAIR), metrics=messages(METRIC)), required=True),
)
FILE: Final = Message(path=_ALWAYS, is_dir=boolean(required=True), file_size=integer())
MODEL_VERSION: Final = Message(
    name=_ALWAYS,
    version=_ALWAYS,
    creation_timestamp=integer(),
    last_updated_timestamp=integer(),
    user_id=text(),
    current_stage=text(),
    description=text(),
    source=text(),
    run_id=text(),
    status=text(),
    status_message=text(),
    run_link=text(),
    model_id=text(),
    tags=messages(_PAIR),
    aliases=texts(),
)
REGISTERED_MODEL: Final = Message(
    name=_ALWAYS,
    creation_timestamp=integer(),
    last_updated_timestamp=integer(),
    description=text(),
    latest_versions=messages(MODEL_VERSION),
    tags=messages(_PAIR),
    aliases=messages(Message(alias=_ALWAYS, version=_ALWAYS)),
)
#: A list of files, and where they are.
FILES: Final = Message(root_uri=_ALWAYS, files=messages(FILE))
#: Nothing.
DONE: Final = Message()


def is_elsewhere(address: str) -> bool:
    """Whether an address is one that clients reach without this server, and may be sent to."""
    plain = address
    while (unquoted := unquote(plain)) != plain:
        plain = unquoted
    return _ELSEWHERE.fullmatch(plain) is not None and ".." not in re.split(r"[/\\]", plain)


def is_here(address: str) -> bool:
    """Whether an address is a place in this server's tree: one that names a host is that of any server."""
    return address in (ARTIFACTS, ARTIFACTS[:-1]) or (address.startswith(ARTIFACTS) and address[len(ARTIFACTS)] != "/")


def is_place(address: str) -> bool:
    """Whether an address is one that clients may be sent to, here or elsewhere."""
    return is_here(address) or is_elsewhere(address)


def artifact_root(found: RunInfo) -> str:
    """Where a run's files are, as its client sees it."""
    return found.artifact_uri if is_place(found.artifact_uri) else usual_root(found)


def usual_root(found: RunInfo) -> str:
    """Where this server has a run's files, wherever else its client may see them, too."""
    return f"{ARTIFACTS}{found.experiment_id}/{found.run_id}/artifacts"


def model_root(found: LoggedModel) -> str:
    """Where a logged model's files are, as its client sees it."""
    if is_place(found.artifact_location):
        return found.artifact_location
    return f"{ARTIFACTS}{found.experiment_id}/models/{found.model_id}/artifacts"


def _pairs(values: Mapping[str, str]) -> list[Json]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _present(**facts: Any) -> Json:
    return {name: value for name, value in facts.items() if value is not None}


def experiment(found: Experiment) -> Json:
    """An experiment."""
    return _present(
        experiment_id=found.experiment_id,
        name=found.name,
        artifact_location=found.artifact_location
        if is_place(found.artifact_location)
        else f"{ARTIFACTS}{found.experiment_id}",
        lifecycle_stage=found.lifecycle_stage,
        last_update_time=found.last_update_time,
        creation_time=found.creation_time,
        tags=_pairs(found.tags) or None,
    )


def run_info(found: RunInfo) -> Json:
    """The facts about a run that are not its data."""
    return _present(
        run_uuid=found.run_id,
        experiment_id=found.experiment_id,
        run_name=found.run_name,
        user_id=found.user_id or "unknown",
        status=found.status,
        start_time=found.start_time,
        end_time=found.end_time,
        artifact_uri=artifact_root(found),
        lifecycle_stage=found.lifecycle_stage,
        run_id=found.run_id,
    )


def run(found: Run) -> Json:
    """A run with the last value of every metric."""
    data = found.data
    last = [
        {"key": key, "value": number(one.value), "timestamp": one.timestamp, "step": one.step}
        for key, one in data.summaries.items()
    ]
    inputs = _present(
        dataset_inputs=[dataset_input(one) for one in found.inputs.dataset_inputs] or None,
        model_inputs=[{"model_id": one.model_id} for one in found.inputs.model_inputs] or None,
    )
    outputs = [{"model_id": one.model_id, "step": one.step} for one in found.outputs.model_outputs]
    return {
        "info": run_info(found.info),
        "data": _present(metrics=last or None, params=_pairs(data.params) or None, tags=_pairs(data.tags) or None),
        "inputs": inputs,
        **({"outputs": {"model_outputs": outputs}} if outputs else {}),
    }


def dataset_input(found: DatasetInput) -> Json:
    """A dataset as a run used it."""
    of = found.dataset
    return {
        "tags": [{"key": tag.key, "value": tag.value} for tag in found.tags],
        "dataset": _present(
            name=of.name,
            digest=of.digest,
            source_type=of.source_type,
            source=of.source,
            schema=of.schema,
            profile=of.profile,
        ),
    }


def metric(found: Metric, run_id: str | None = None) -> Json:
    """A point of a metric; with ``run_id``, whose it is."""
    return _present(
        key=found.key,
        value=number(found.value),
        timestamp=found.timestamp,
        step=found.step,
        model_id=found.model_id,
        dataset_name=found.dataset_name,
        dataset_digest=found.dataset_digest,
        run_id=run_id,
    )


def logged_model(found: LoggedModel, status: str) -> Json:
    """A logged model, whose status has the name ``status`` on the wire."""
    info = _present(
        experiment_id=found.experiment_id,
        model_id=found.model_id,
        name=found.name,
        artifact_uri=model_root(found),
        creation_timestamp_ms=found.creation_timestamp,
        last_updated_timestamp_ms=found.last_updated_timestamp,
        model_type=found.model_type,
        source_run_id=found.source_run_id,
        status=status,
        status_message=found.status_message,
        tags=_pairs(found.tags) or None,
    )
    data = _present(
        params=_pairs(found.params) or None,
        metrics=[metric(one, one.run_id) for one in found.metrics] or None,
    )
    return {"info": info, "data": data}


def file_info(found: FileInfo, path: str | None = None) -> Json:
    """An entry of a list of artifacts, under ``path`` if it is given."""
    return _present(path=found.path if path is None else path, is_dir=found.is_dir, file_size=found.file_size)


def model_version(found: ModelVersion, source: str) -> Json:
    """A version of a model, whose files are at ``source``."""
    return _present(
        name=found.name,
        version=found.version,
        creation_timestamp=found.creation_timestamp,
        last_updated_timestamp=found.last_updated_timestamp,
        user_id=found.user_id or None,
        current_stage=found.current_stage,
        description=found.description or "",
        source=source,
        run_id=found.source_run_id if found.elsewhere else found.run_id,
        status=found.status,
        status_message=found.status_message,
        run_link=found.run_link,
        model_id=found.model_id,
        tags=_pairs(found.tags) or None,
        aliases=list(found.aliases) or None,
    )


def registered_model(found: RegisteredModel, latest: Iterable[Json]) -> Json:
    """A model with its newest versions."""
    return _present(
        name=found.name,
        creation_timestamp=found.creation_timestamp,
        last_updated_timestamp=found.last_updated_timestamp,
        description=found.description,
        latest_versions=list(latest) or None,
        tags=_pairs(found.tags) or None,
        aliases=[{"alias": alias, "version": version} for alias, version in found.aliases.items()] or None,
    )
