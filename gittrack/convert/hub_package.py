"""A MLflow store of any kind, such as a SQLite file, written to by the mlflow package, which has to be installed."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

from gittrack.convert.hub import There
from gittrack.convert.mlflow import PROMPT_OWN, PROMPT_TEXT, is_chat, is_prompt, versions_of
from gittrack.errors import AlreadyExistsError, InvalidValueError, MissingDependencyError, NetworkError
from gittrack.types import Dataset, DatasetInput, LifecycleStage, Metric, ModelOutput

F = TypeVar("F", bound=Callable[..., Any])
_PAGE: Final = 1000


def _told(function: F) -> F:
    """Turn MLflow's errors into ours, and keep its warnings about its own stages to itself."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                return function(*args, **kwargs)
        except MlflowException as error:
            said = f"MLflow says no: {' '.join(str(error).split())}"[:400]
            if error.error_code == "RESOURCE_ALREADY_EXISTS":
                raise AlreadyExistsError(said) from error
            kind = InvalidValueError if error.get_http_status_code() < 500 else NetworkError
            raise kind(said) from error

    return call  # type: ignore[return-value]  # the same signature


class PackageHub:
    """A store that MLflow opens.

    Args:
        address: Its address, as MLflow takes it.

    Raises:
        MissingDependencyError: There is no mlflow.
    """

    def __init__(self, address: str) -> None:
        self._prompts: set[str] = set()
        try:
            import mlflow
        except ImportError as error:
            raise MissingDependencyError(
                "writing to a store of MLflow needs the package mlflow",
                hint="pip install mlflow, or start a `mlflow server` on the store and name that: http://127.0.0.1:5000",
            ) from error
        self._open(mlflow, address)

    @_told
    def _open(self, mlflow: Any, address: str) -> None:
        mlflow.set_tracking_uri(
            address
        )  # where a client looks for the logged model of a version, whatever it was given
        mlflow.set_registry_uri(address)
        self._client = mlflow.MlflowClient(tracking_uri=address, registry_uri=address)
        self._client.search_experiments(max_results=1)  # makes or updates its tables now, or says that it cannot

    def close(self) -> None:
        """Nothing is open."""

    # -- experiments and runs ----------------------------------------------------------------------------------------

    @_told
    def experiment(self, name: str) -> There | None:
        """The experiment of that name, also a deleted one."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            return None
        return There(found.experiment_id, found.tags, found.lifecycle_stage == LifecycleStage.DELETED)

    @_told
    def create_experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """Make an experiment; its id."""
        return str(self._client.create_experiment(name, tags=dict(tags)))

    @_told
    def restore_experiment(self, experiment_id: str) -> None:
        """Bring it back."""
        self._client.restore_experiment(experiment_id)

    @_told
    def delete_experiment(self, experiment_id: str) -> None:
        """Delete it, restorably."""
        self._client.delete_experiment(experiment_id)

    def runs(self, experiment_id: str) -> Iterator[There]:
        """Its runs, also deleted ones."""
        for run in self._pages(lambda token: self._search_runs(experiment_id, token)):
            yield There(run.info.run_id, run.data.tags, run.info.lifecycle_stage == LifecycleStage.DELETED)

    @_told
    def _search_runs(self, experiment_id: str, token: str | None) -> Any:
        from mlflow.entities import ViewType

        return self._client.search_runs(
            [experiment_id], run_view_type=ViewType.ALL, max_results=_PAGE, page_token=token
        )

    def _pages(self, page: Callable[[str | None], Any]) -> Iterator[Any]:
        token: str | None = None
        while True:
            found = page(token)
            yield from found
            token = found.token
            if not token:
                return

    @_told
    def create_run(self, experiment_id: str, name: str, start_time: int, user_id: str, tags: Mapping[str, str]) -> str:
        """Make a run; its id.  Whose it is, MLflow takes from a tag."""
        mine = {"mlflow.user": user_id} if user_id and user_id != "unknown" else {}
        run = self._client.create_run(experiment_id, start_time=start_time, tags={**mine, **tags}, run_name=name)
        return str(run.info.run_id)

    @_told
    def log(self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Add to a run."""
        from mlflow import entities

        self._client.log_batch(
            run_id,
            metrics=[
                entities.Metric(
                    one.key, one.value, one.timestamp, one.step,
                    model_id=one.model_id, dataset_name=one.dataset_name, dataset_digest=one.dataset_digest,
                )
                for one in metrics
            ],
            params=[entities.Param(*item) for item in params.items()],
            tags=[entities.RunTag(*item) for item in tags.items()],
        )  # fmt: skip

    @_told
    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput], models: Sequence[str]) -> None:
        """Record what a run read."""
        from mlflow import entities

        read = [
            entities.DatasetInput(
                entities.Dataset(**{name: getattr(one.dataset, name) for name in Dataset.__slots__}),
                [entities.InputTag(tag.key, tag.value) for tag in one.tags],
            )
            for one in datasets
        ]
        more = {"models": [entities.LoggedModelInput(model_id) for model_id in models]} if models else {}
        self._client.log_inputs(run_id, read, **more)

    @_told
    def log_outputs(self, run_id: str, models: Sequence[ModelOutput]) -> None:
        """Record the logged models that a run made."""
        from mlflow.entities import LoggedModelOutput

        self._client.log_outputs(run_id, [LoggedModelOutput(one.model_id, one.step) for one in models])

    @_told
    def set_status(self, run_id: str, status: str, end_time: int | None) -> None:
        """Say how a run is, or how it ended."""
        if end_time is None:
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status, end_time)

    @_told
    def delete_run(self, run_id: str) -> None:
        """Delete it, restorably."""
        self._client.delete_run(run_id)

    @_told
    def restore_run(self, run_id: str) -> None:
        """Bring it back."""
        self._client.restore_run(run_id)

    @_told
    def upload(self, run_id: str, path: str, file: Path) -> None:
        """Keep a file as an artifact of a run."""
        self._client.log_artifact(run_id, str(file), path.rpartition("/")[0] or None)

    # -- logged models -----------------------------------------------------------------------------------------------

    def logged_models(self, experiment_id: str) -> Iterator[There]:
        """The logged models of an experiment."""
        for model in self._pages(lambda token: self._search_models(experiment_id, token)):
            yield There(model.model_id, model.tags, whole=str(model.status) != "PENDING")

    @_told
    def _search_models(self, experiment_id: str, token: str | None) -> Any:
        return self._client.search_logged_models([experiment_id], max_results=50, page_token=token)

    @_told
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
        made = self._client.create_logged_model(experiment_id, name, run_id, dict(tags), dict(params), model_type)
        return str(made.model_id)

    @_told
    def upload_to_model(self, model_id: str, path: str, file: Path) -> None:
        """Keep a file of a logged model."""
        self._client.log_model_artifact(model_id, str(file), path.rpartition("/")[0] or None)

    @_told
    def finish_model(self, model_id: str, status: str) -> None:
        """Say that it is complete."""
        self._client.finalize_logged_model(model_id, "READY" if status == "READY" else "FAILED")

    # -- the registry ------------------------------------------------------------------------------------------------

    def aliases(self, name: str) -> Mapping[str, int] | None:
        """The aliases of a registered model."""
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):
            found = self._client.get_registered_model(name)
            return {alias: int(version) for alias, version in found.aliases.items()}
        with contextlib.suppress(MlflowException):  # prompts are asked for by other names
            if self._client.get_prompt(name) is not None:
                self._prompts.add(name)
                versions = self._pages(lambda token: self._search_versions(versions_of(name, prompt=True), token))
                return {alias: int(one.version) for one in versions for alias in one.aliases}
        return None

    @_told
    def create_registered(self, name: str, description: str | None, tags: Mapping[str, str]) -> None:
        """Make a registered model, or a prompt, which MLflow's client lets be made only as such."""
        if is_prompt(tags):
            self._prompts.add(name)
            self._client.create_prompt(name, description, {k: v for k, v in tags.items() if k not in PROMPT_OWN})
        else:
            self._client.create_registered_model(name, dict(tags), description)

    def versions(self, name: str, *, prompt: bool) -> Iterator[There]:
        """The versions of a registered model, or of a prompt."""
        only = versions_of(name, prompt=prompt)
        for one in self._pages(lambda token: self._search_versions(only, token)):
            yield There(str(one.version), one.tags, created=int(one.creation_timestamp or 0))

    @_told
    def _search_versions(self, only: str, token: str | None) -> Any:
        return self._client.search_model_versions(only, max_results=_PAGE, page_token=token)

    @_told
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
        if PROMPT_TEXT in tags:
            text = tags[PROMPT_TEXT]
            template = json.loads(text) if is_chat(tags) else text
            kept = {key: value for key, value in tags.items() if key not in PROMPT_OWN}
            return int(self._client.create_prompt_version(name, template, description, kept).version)
        made = self._client.create_model_version(
            name, source, run_id, dict(tags), run_link, description, await_creation_for=0, model_id=model_id
        )
        return int(made.version)

    @_told
    def delete_version(self, name: str, number: int) -> None:
        """Delete it."""
        self._client.delete_model_version(name, str(number))

    @_told
    def set_stage(self, name: str, number: int, stage: str) -> None:
        """Put a version into a stage."""
        self._client.transition_model_version_stage(name, str(number), stage)

    @_told
    def set_alias(self, name: str, alias: str, number: int) -> None:
        """Give an alias to a version."""
        if name in self._prompts:
            self._client.set_prompt_alias(name, alias, number)
        else:
            self._client.set_registered_model_alias(name, alias, str(number))
