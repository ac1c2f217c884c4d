"""What autologging needs of the Python API, under MLflow's names.

Everything in ``frameworks`` records through here.  The API is imported when the first training is recorded; ``use``
puts something else in its place: a fake in a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gittrack.types import DatasetInput, Metric, Param, Run, RunTag


class Client(Protocol):
    """The calls on a run by its id; see :class:`gittrack.client.Client`."""

    def create_run(self, experiment_id: str, start_time: int | None = None, tags: dict[str, Any] | None = None) -> Run:
        """Make a run that is not active."""

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> object:
        """Write metrics, params and tags."""

    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput] | None = None) -> None:
        """Record datasets that were read."""

    def log_artifacts(self, run_id: str, local_dir: str) -> None:
        """Keep the files of a folder."""

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Keep a text as a file."""

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        """End a run."""


class Recorder(Protocol):
    """The calls on the active run; see :mod:`gittrack.fluent`."""

    def active_run(self) -> Run | None:
        """The active run of this thread, or None."""

    def start_run(self, *, tags: dict[str, str] | None = None) -> Run:
        """Start a run and make it active."""

    def end_run(self, status: str = "FINISHED") -> None:
        """End the active run."""


_replacement: tuple[Recorder, Client] | None = None


def recorder() -> Recorder:
    """Where the active run is asked for and started."""
    if _replacement:
        return _replacement[0]
    from gittrack import fluent

    return fluent


def client() -> Client:
    """A client for the store that :func:`recorder` writes to."""
    if _replacement:
        return _replacement[1]
    from gittrack.client import Client as ApiClient

    return ApiClient()


def use(replacement: tuple[Recorder, Client] | None) -> None:
    """Record through ``replacement`` from now on; None: through gittrack's own API again."""
    global _replacement  # noqa: PLW0603 - one per process, like the active run
    _replacement = replacement
