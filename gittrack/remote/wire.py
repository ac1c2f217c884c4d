"""MLflow's JSON as a client sends and gets it: the server's answers as records, records as parts of requests.

What a server leaves out has the value that protocol buffers give it; what has the wrong type is a FormatError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from gittrack.errors import FormatError
from gittrack.model_types import LoggedModel, LoggedModelStatus, ModelVersion, RegisteredModel
from gittrack.registry.names import is_address_of_version
from gittrack.remote.http import items
from gittrack.types import (
    Dataset,
    DatasetInput,
    Experiment,
    FileInfo,
    InputTag,
    LifecycleStage,
    Metric,
    MetricSummary,
    ModelInput,
    ModelOutput,
    PagedList,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunOutputs,
)

Json = dict[str, Any]
T = TypeVar("T")

#: MLflow's names of the states of a logged model.
STATUSES: Final = {
    LoggedModelStatus.UNSPECIFIED: "LOGGED_MODEL_STATUS_UNSPECIFIED",
    LoggedModelStatus.PENDING: "LOGGED_MODEL_PENDING",
    LoggedModelStatus.READY: "LOGGED_MODEL_READY",
    LoggedModelStatus.FAILED: "LOGGED_MODEL_UPLOAD_FAILED",
}
_KNOWN: Final = {name: status for status, name in STATUSES.items()}

# --- requests


def pairs(values: Mapping[str, Any]) -> list[Json]:
    """Tags or params; the values become text."""
    return [{"key": key, "value": str(value)} for key, value in values.items()]


def present(**facts: Any) -> Json:
    """The facts that are there."""
    return {name: value for name, value in facts.items() if value is not None}


def point(metric: Metric) -> Json:
    """A point of a metric."""
    value: float | str = metric.value
    if math.isnan(metric.value):
        value = "NaN"
    elif math.isinf(metric.value):
        value = "Infinity" if metric.value > 0 else "-Infinity"
    return present(
        key=metric.key,
        value=value,
        timestamp=metric.timestamp,
        step=metric.step,
        model_id=metric.model_id,
        dataset_name=metric.dataset_name,
        dataset_digest=metric.dataset_digest,
    )


def read_dataset(one: DatasetInput) -> Json:
    """A dataset as a run used it."""
    facts = {name: getattr(one.dataset, name) for name in Dataset.__slots__}
    return {"dataset": present(**facts), "tags": pairs({tag.key: tag.value for tag in one.tags})}


def made_model(one: ModelOutput) -> Json:
    """A logged model that a run made."""
    return {"model_id": one.model_id, "step": one.step}


# --- answers


def part(found: Json, key: str) -> Json:
    """The object under a key; empty if it is not there.  Raises FormatError."""
    return _typed(found, key, dict) or {}


def page(found: Json, key: str, read: Callable[[Json], T]) -> PagedList[T]:
    """The page of a list that a server answers.  Raises FormatError."""
    return PagedList(map(read, items(found, key)), _given(found, "next_page_token"))


def _typed(found: Json, key: str, kind: type[T]) -> T | None:
    value = found.get(key)
    if value is not None and not isinstance(value, kind):
        raise FormatError(f"a server answers a `{key}` that is no {kind.__name__}")
    return value


def _text(found: Json, key: str) -> str:
    return _typed(found, key, str) or ""


def _given(found: Json, key: str) -> str | None:
    return _typed(found, key, str) or None


def integer(found: Json, key: str) -> int | None:
    """A 64-bit integer, which may be written as text; None if it is not there.  Raises FormatError."""
    value = found.get(key)
    if isinstance(value, str) and value.lstrip("-").isdecimal() and len(value) <= 20:
        value = int(value)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
        raise FormatError(f"a server answers a `{key}` that is no whole number")
    return value


def _double(found: Json, key: str) -> float:
    value = found.get(key, 0.0)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise FormatError(f"a server answers a `{key}` that is no number") from None


def _values(found: Json, key: str) -> dict[str, str]:
    return {_text(one, "key"): _text(one, "value") for one in items(found, key)}


def experiment(found: Json) -> Experiment:
    """An experiment."""
    return Experiment(
        experiment_id=_text(found, "experiment_id"),
        name=_text(found, "name"),
        artifact_location=_text(found, "artifact_location"),
        lifecycle_stage=_text(found, "lifecycle_stage") or LifecycleStage.ACTIVE,
        tags=_values(found, "tags"),
        creation_time=integer(found, "creation_time"),
        last_update_time=integer(found, "last_update_time"),
    )


def run(found: Json) -> Run:
    """A run; of its metrics a server tells the last values only."""
    info, data = part(found, "info"), part(found, "data")
    last = [metric(one) for one in items(data, "metrics")]
    unknown = math.nan
    inputs, outputs = part(found, "inputs"), part(found, "outputs")
    return Run(
        RunInfo(
            run_id=_text(info, "run_id") or _text(info, "run_uuid"),
            experiment_id=_text(info, "experiment_id"),
            user_id=_text(info, "user_id"),
            status=_text(info, "status"),
            start_time=integer(info, "start_time") or 0,
            end_time=integer(info, "end_time"),
            lifecycle_stage=_text(info, "lifecycle_stage") or LifecycleStage.ACTIVE,
            artifact_uri=_text(info, "artifact_uri"),
            run_name=_text(info, "run_name"),
        ),
        RunData(
            metrics={one.key: one.value for one in last},
            params=_values(data, "params"),
            tags=_values(data, "tags"),
            summaries={one.key: MetricSummary(one.value, one.timestamp, one.step, unknown, unknown, 1) for one in last},
        ),
        RunInputs(
            [_dataset_input(one) for one in items(inputs, "dataset_inputs")],
            [ModelInput(_text(one, "model_id")) for one in items(inputs, "model_inputs")],
        ),
        RunOutputs(
            [ModelOutput(_text(one, "model_id"), integer(one, "step") or 0) for one in items(outputs, "model_outputs")]
        ),
    )


def metric(found: Json) -> Metric:
    """A point of a metric."""
    return Metric(
        _text(found, "key"),
        _double(found, "value"),
        integer(found, "timestamp") or 0,
        integer(found, "step") or 0,
        _given(found, "model_id"),
        _given(found, "dataset_name"),
        _given(found, "dataset_digest"),
        _given(found, "run_id"),
    )


def _dataset_input(found: Json) -> DatasetInput:
    of = part(found, "dataset")
    texts = {name: _text(of, name) for name in ("name", "digest", "source_type", "source")}
    dataset = Dataset(**texts, schema=_given(of, "schema"), profile=_given(of, "profile"))
    return DatasetInput(dataset, [InputTag(key, value) for key, value in _values(found, "tags").items()])


def file_info(found: Json) -> FileInfo:
    """An entry of a list of artifacts."""
    folder = bool(found.get("is_dir"))
    return FileInfo(_text(found, "path"), folder, None if folder else integer(found, "file_size"))


def logged_model(found: Json) -> LoggedModel:
    """A logged model."""
    info, data = part(found, "info"), part(found, "data")
    created = integer(info, "creation_timestamp_ms") or 0
    return LoggedModel(
        experiment_id=_text(info, "experiment_id"),
        model_id=_text(info, "model_id"),
        name=_text(info, "name"),
        artifact_location=_text(info, "artifact_uri"),
        creation_timestamp=created,
        last_updated_timestamp=integer(info, "last_updated_timestamp_ms") or created,
        model_type=_given(info, "model_type"),
        source_run_id=_given(info, "source_run_id"),
        status=_KNOWN.get(_text(info, "status"), LoggedModelStatus.UNSPECIFIED),
        status_message=_given(info, "status_message"),
        tags=_values(info, "tags"),
        params=_values(data, "params"),
        metrics=[metric(one) for one in items(data, "metrics")],
    )


def model_version(found: Json) -> ModelVersion:
    """A version of a registered model."""
    source = _text(found, "source")
    created = integer(found, "creation_timestamp") or 0
    return ModelVersion(
        name=_text(found, "name"),
        version=str(found.get("version", "")),
        creation_timestamp=created,
        last_updated_timestamp=integer(found, "last_updated_timestamp") or created,
        description=_given(found, "description"),
        user_id=_given(found, "user_id"),
        current_stage=_text(found, "current_stage") or "None",
        source=source,
        run_id=_given(found, "run_id"),
        status=_text(found, "status") or "READY",
        status_message=_given(found, "status_message"),
        tags=_values(found, "tags"),
        run_link=_given(found, "run_link"),
        aliases=_texts(found, "aliases"),
        model_id=_given(found, "model_id"),
        copied_from=source if is_address_of_version(source) else None,
    )


def registered_model(found: Json) -> RegisteredModel:
    """A registered model with its newest versions."""
    created = integer(found, "creation_timestamp") or 0
    return RegisteredModel(
        name=_text(found, "name"),
        creation_timestamp=created,
        last_updated_timestamp=integer(found, "last_updated_timestamp") or created,
        description=_given(found, "description"),
        tags=_values(found, "tags"),
        aliases={_text(one, "alias"): str(one.get("version", "")) for one in items(found, "aliases")},
        latest_versions=[model_version(one) for one in items(found, "latest_versions")],
    )


def _texts(found: Json, key: str) -> list[str]:
    listed: Iterable[Any] = _typed(found, key, list) or []
    return [one for one in listed if isinstance(one, str)]
