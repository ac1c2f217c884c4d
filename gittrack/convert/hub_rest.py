"""A live MLflow server, written to over its REST API."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gittrack.convert import mlflow
from gittrack.convert.hub import There
from gittrack.convert.mlflow_server import Server, quoted
from gittrack.errors import NotFoundError, UnsupportedError
from gittrack.types import Dataset, DatasetInput, LifecycleStage, Metric, ModelOutput

_PAGE: Final = 1000
_ARTIFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts/"
#: MLflow's server keeps this tag itself.
_VERSIONS_TAG: Final = "mlflow.modelVersions"


class RestHub:
    """A server.

    Args:
        server: Where it is.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._places: dict[str, str] = {}  #: run or logged model -> where its artifacts are

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    # -- experiments and runs ----------------------------------------------------------------------------------------

    def experiment(self, name: str) -> There | None:
        """The experiment of that name, also a deleted one."""
        try:
            found = self._server.get("experiments/get-by-name", experiment_name=name)["experiment"]
        except NotFoundError:
            return None
        return There(found["experiment_id"], _pairs(found), found["lifecycle_stage"] == LifecycleStage.DELETED)

    def create_experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """Make an experiment; its id."""
        return str(self._server.post("experiments/create", {"name": name, "tags": _listed(tags)})["experiment_id"])

    def restore_experiment(self, experiment_id: str) -> None:
        """Bring it back."""
        self._server.post("experiments/restore", {"experiment_id": experiment_id})

    def delete_experiment(self, experiment_id: str) -> None:
        """Delete it, restorably."""
        self._server.post("experiments/delete", {"experiment_id": experiment_id})

    def runs(self, experiment_id: str) -> Iterator[There]:
        """Its runs, also deleted ones."""
        body = {"experiment_ids": [experiment_id], "run_view_type": "ALL", "max_results": _PAGE}
        for item in self._server.pages("runs/search", "runs", body):
            info = item["info"]
            self._places[info["run_id"]] = info.get("artifact_uri", "")
            yield There(
                info["run_id"], _pairs(item.get("data", {})), info.get("lifecycle_stage") == LifecycleStage.DELETED
            )

    def create_run(self, experiment_id: str, name: str, start_time: int, user_id: str, tags: Mapping[str, str]) -> str:
        """Make a run; its id."""
        body = {"experiment_id": experiment_id, "run_name": name, "start_time": start_time, "user_id": user_id}
        info = self._server.post("runs/create", {**body, "tags": _listed(tags)})["run"]["info"]
        self._places[info["run_id"]] = info.get("artifact_uri", "")
        return str(info["run_id"])

    def log(self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Add to a run."""
        body = {"run_id": run_id, "metrics": [_point(one) for one in metrics]}
        self._server.post("runs/log-batch", {**body, "params": _listed(params), "tags": _listed(tags)})

    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput], models: Sequence[str]) -> None:
        """Record what a run read."""
        read = [
            {
                "dataset": {
                    name: value for name in Dataset.__slots__ if (value := getattr(one.dataset, name)) is not None
                },
                "tags": [{"key": tag.key, "value": tag.value} for tag in one.tags],
            }
            for one in datasets
        ]
        body: dict[str, Any] = {"run_id": run_id, "datasets": read}
        if models:
            body["models"] = [{"model_id": model_id} for model_id in models]
        self._server.post("runs/log-inputs", body)

    def log_outputs(self, run_id: str, models: Sequence[ModelOutput]) -> None:
        """Record the logged models that a run made."""
        made = [{"model_id": one.model_id, "step": one.step} for one in models]
        self._server.post("runs/outputs", {"run_id": run_id, "models": made})

    def set_status(self, run_id: str, status: str, end_time: int | None) -> None:
        """Say how a run is, or how it ended."""
        body: dict[str, Any] = {"run_id": run_id, "status": status}
        if end_time is not None:
            body["end_time"] = end_time
        self._server.post("runs/update", body)

    def delete_run(self, run_id: str) -> None:
        """Delete it, restorably."""
        self._server.post("runs/delete", {"run_id": run_id})

    def restore_run(self, run_id: str) -> None:
        """Bring it back."""
        self._server.post("runs/restore", {"run_id": run_id})

    def upload(self, run_id: str, path: str, file: Path) -> None:
        """Keep a file as an artifact of a run."""
        self._put(self._places[run_id], path, file)

    def _put(self, place: str, path: str, file: Path) -> None:
        parts = urlsplit(place)
        if parts.scheme != "mlflow-artifacts":
            raise UnsupportedError(
                f"the server does not take files, they belong to `{place:.120}`",
                hint="start it with `mlflow server --serve-artifacts`",
            )
        self._server.upload(_ARTIFACTS + quoted(f"{parts.path.strip('/')}/{path}"), file)

    # -- logged models -----------------------------------------------------------------------------------------------

    def logged_models(self, experiment_id: str) -> Iterator[There]:
        """The logged models of an experiment."""
        body = {"experiment_ids": [experiment_id], "max_results": 50}
        for item in self._server.pages("logged-models/search", "models", body):
            info = item["info"]
            self._places[info["model_id"]] = info.get("artifact_uri", "")
            yield There(info["model_id"], _pairs(info), whole=info.get("status") != "LOGGED_MODEL_PENDING")

    def create_model(
        self,
        experiment_id: str,
        name: str,
        run_id: str | None,
        model_type: str | None,
        params: Mapping[str, str],
        tags: Mapping[str, str],
    ) -> str:
        """Make a logged model; its id."""
        kept = {key: value for key, value in tags.items() if key != _VERSIONS_TAG}
        body = {"experiment_id": experiment_id, "name": name, "params": _listed(params), "tags": _listed(kept)}
        more = {"source_run_id": run_id, "model_type": model_type}
        found = self._server.post(
            "logged-models", {**body, **{key: value for key, value in more.items() if value is not None}}
        )
        info = found["model"]["info"]
        self._places[info["model_id"]] = info.get("artifact_uri", "")
        return str(info["model_id"])

    def upload_to_model(self, model_id: str, path: str, file: Path) -> None:
        """Keep a file of a logged model."""
        self._put(self._places[model_id], path, file)

    def finish_model(self, model_id: str, status: str) -> None:
        """Say that it is complete."""
        body = {"model_id": model_id, "status": f"LOGGED_MODEL_{'READY' if status == 'READY' else 'UPLOAD_FAILED'}"}
        self._server.post(f"logged-models/{model_id}", body, method="PATCH")

    # -- the registry ------------------------------------------------------------------------------------------------

    def aliases(self, name: str) -> Mapping[str, int] | None:
        """The aliases of a registered model."""
        try:
            found = self._server.get("registered-models/get", name=name)["registered_model"]
        except NotFoundError:
            return None
        return {one["alias"]: mlflow.number(one["version"]) for one in found.get("aliases", [])}

    def create_registered(self, name: str, description: str | None, tags: Mapping[str, str]) -> None:
        """Make a registered model."""
        body = {"name": name, "tags": _listed(tags), **({} if description is None else {"description": description})}
        self._server.post("registered-models/create", body)

    def versions(self, name: str, *, prompt: bool) -> Iterator[There]:
        """The versions of a registered model, or of a prompt."""
        only = mlflow.versions_of(name, prompt=prompt)
        for item in self._server.pages(
            "model-versions/search", "model_versions", None, filter=only, max_results=10_000
        ):
            yield There(item["version"], _pairs(item), created=mlflow.number(item.get("creation_timestamp")))

    def create_version(
        self,
        name: str,
        source: str,
        *,
        run_id: str | None,
        model_id: str | None,
        description: str | None,
        run_link: str | None,
        tags: Mapping[str, str],
    ) -> int:
        """Register a version; its number."""
        more = {"run_id": run_id, "model_id": model_id, "description": description, "run_link": run_link}
        body = {"name": name, "source": source, "tags": _listed(tags)}
        found = self._server.post(
            "model-versions/create", {**body, **{key: value for key, value in more.items() if value is not None}}
        )
        return mlflow.number(found["model_version"]["version"])

    def delete_version(self, name: str, number: int) -> None:
        """Delete it."""
        self._server.post("model-versions/delete", {"name": name, "version": str(number)}, method="DELETE")

    def set_stage(self, name: str, number: int, stage: str) -> None:
        """Put a version into a stage."""
        body = {"name": name, "version": str(number), "stage": stage, "archive_existing_versions": False}
        self._server.post("model-versions/transition-stage", body)

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """Give an alias to a version."""
        self._server.post("registered-models/alias", {"name": name, "alias": alias, "version": str(number)})


def _listed(pairs: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in pairs.items()]


def _pairs(item: Mapping[str, Any]) -> dict[str, str]:
    return {mlflow.text(one.get("key")): mlflow.text(one.get("value")) for one in item.get("tags", [])}


def _point(metric: Metric) -> dict[str, Any]:
    value: float | str = metric.value
    if math.isnan(metric.value):
        value = "NaN"
    elif math.isinf(metric.value):
        value = "Infinity" if metric.value > 0 else "-Infinity"
    about = {name: getattr(metric, name) for name in ("model_id", "dataset_name", "dataset_digest")}
    point = {"key": metric.key, "value": value, "timestamp": metric.timestamp, "step": metric.step}
    return {**point, **{name: told for name, told in about.items() if told is not None}}
