"""A recorder in memory, for tests that look at what autologging logs and not at how it is stored."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING

from gittrack.types import DatasetInput, Metric, Param, Run, RunData, RunInfo, RunTag

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass
class FakeRun:
    """One run: everything logged to it, in order."""

    run_id: str
    status: str = "RUNNING"
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    points: list[Metric] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    inputs: list[DatasetInput] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)

    def entity(self) -> Run:
        """The run as the API returns it."""
        info = RunInfo(self.run_id, "0", "ana", self.status, 1000, None, "active", f"runs:/{self.run_id}", "name")
        return Run(info, RunData(dict(self.metrics), dict(self.params), dict(self.tags)))


class FakeRecorder:
    """``gittrack.fluent`` and ``gittrack.client.Client`` in one, in memory.

    Attributes:
        runs: All runs, oldest first.
        broken: Names of calls that raise OSError.
    """

    def __init__(self) -> None:
        self.runs: list[FakeRun] = []
        self.broken: set[str] = set()
        self._active = local()

    def _stack(self) -> list[FakeRun]:
        if not hasattr(self._active, "stack"):
            self._active.stack = []
        stack: list[FakeRun] = self._active.stack
        return stack

    def _check(self, call: str) -> None:
        if call in self.broken:
            raise OSError(28, "No space left on device")

    def run(self, run_id: str) -> FakeRun:
        return next(run for run in self.runs if run.run_id == run_id)

    # -- fluent

    def active_run(self) -> Run | None:
        self._check("active_run")
        return self._stack()[-1].entity() if self._stack() else None

    def start_run(self, *, tags: dict[str, str] | None = None) -> Run:
        self._check("start_run")
        run = FakeRun(uuid.uuid4().hex, tags=dict(tags or {}))
        self.runs.append(run)
        self._stack().append(run)
        return run.entity()

    def end_run(self, status: str = "FINISHED") -> None:
        self._check("end_run")
        self._stack().pop().status = status

    @contextmanager
    def started(self) -> Iterator[FakeRun]:
        """A run of the user's."""
        run = self.run(self.start_run().info.run_id)
        yield run
        self.end_run()

    # -- client

    def create_run(
        self, experiment_id: str, start_time: int | None = None, tags: Mapping[str, str] | None = None
    ) -> Run:
        assert experiment_id == "0"
        assert start_time == 1000
        run = FakeRun(uuid.uuid4().hex, tags=dict(tags or {}))
        self.runs.append(run)
        return run.entity()

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = (), tags: Sequence[RunTag] = ()
    ) -> None:
        self._check("log_batch")
        run = self.run(run_id)
        run.points.extend(metrics)
        run.metrics.update({metric.key: metric.value for metric in metrics})
        run.params.update({param.key: param.value for param in params})
        run.tags.update({tag.key: tag.value for tag in tags})

    def log_inputs(self, run_id: str, datasets: Sequence[DatasetInput] | None = None) -> None:
        self._check("log_inputs")
        self.run(run_id).inputs.extend(datasets or ())

    def log_artifacts(self, run_id: str, local_dir: str) -> None:
        self._check("log_artifacts")
        for path in Path(local_dir).iterdir():
            self.run(run_id).artifacts[path.name] = path.read_bytes()

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self._check("log_text")
        self.run(run_id).artifacts[artifact_file] = text.encode()

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        assert end_time is None or end_time > 1000
        self.run(run_id).status = status or "FINISHED"
