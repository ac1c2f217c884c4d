"""What a MLflow has to take to be written to: a ``Hub``; answered over REST, or by the mlflow package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from gittrack.types import DatasetInput, Metric, ModelOutput


class There(NamedTuple):
    """Something that is there already.

    Attributes:
        key: The id of an experiment or a run; the number of a version.
        tags: Its tags.
        deleted: True if it is deleted.
        created: When a version was registered, in milliseconds; 0 for others.
        whole: False for a logged model whose files are still to come.
    """

    key: str
    tags: Mapping[str, str]
    deleted: bool = False
    created: int = 0
    whole: bool = True


class Hub(Protocol):
    """A MLflow that can be written to.

    Every method raises InvalidValueError or AlreadyExistsError where MLflow says no, and NetworkError where it does not
    answer.
    """

    def experiment(self, name: str) -> There | None:
        """The experiment of that name, also a deleted one."""

    def create_experiment(self, name: str, tags: Mapping[str, str]) -> str:
        """Make an experiment; its id."""

    def restore_experiment(self, experiment_id: str) -> None:
        """Bring it back."""

    def delete_experiment(self, experiment_id: str) -> None:
        """Delete it, restorably."""

    def runs(self, experiment_id: str) -> Iterator[There]:
        """Its runs, also deleted ones."""

    def create_run(self, experiment_id: str, name: str, start_time: int, user_id: str, tags: Mapping[str, str]) -> str:
        """Make a run; its id."""

    def log(self, run_id: str, metrics: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Add to a run; at most 1,000 things, 100 of them params, and 100 tags."""

    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput], models: Sequence[str]) -> None:
        """Record what a run read."""

    def log_outputs(self, run_id: str, models: Sequence[ModelOutput]) -> None:
        """Record the logged models that a run made."""

    def set_status(self, run_id: str, status: str, end_time: int | None) -> None:
        """Say how a run is, or how it ended."""

    def delete_run(self, run_id: str) -> None:
        """Delete it, restorably."""

    def restore_run(self, run_id: str) -> None:
        """Bring it back: a deleted run takes nothing."""

    def upload(self, run_id: str, path: str, file: Path) -> None:
        """Keep a file as the artifact ``path`` of a run; its name is that of the path's last part."""

    def logged_models(self, experiment_id: str) -> Iterator[There]:
        """The logged models of an experiment."""

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

    def upload_to_model(self, model_id: str, path: str, file: Path) -> None:
        """As ``upload``, to a logged model."""

    def finish_model(self, model_id: str, status: str) -> None:
        """Say that it is complete: READY or FAILED."""

    def aliases(self, name: str) -> Mapping[str, int] | None:
        """The aliases of a registered model; None if there is none of that name."""

    def create_registered(self, name: str, description: str | None, tags: Mapping[str, str]) -> None:
        """Make a registered model."""

    def versions(self, name: str, *, prompt: bool) -> Iterable[There]:
        """The versions of a registered model, or of a prompt."""

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

    def delete_version(self, name: str, number: int) -> None:
        """Delete it; its number stays used."""

    def set_stage(self, name: str, number: int, stage: str) -> None:
        """Put a version into a stage."""

    def set_alias(self, name: str, alias: str, number: int) -> None:
        """Give an alias to a version."""

    def close(self) -> None:
        """Let go of what is open."""
