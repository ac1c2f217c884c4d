"""A run on a server that is written to by calls, one after the other.

For runs that this process did not start: what is written is on the server when a call returns.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import UnsupportedError
from gittrack.remote import wire
from gittrack.store import files
from gittrack.track import limits
from gittrack.track.active import ActiveRun, files_in, files_of
from gittrack.track.secrets import redact_value
from gittrack.types import DatasetInput, LifecycleStage, Metric, ModelOutput, Run, RunStatus

if TYPE_CHECKING:
    from gittrack.remote.tracking import RemoteTracker

#: What MLflow's servers take at once.
MAX_METRICS: Final = 1000
MAX_PAIRS: Final = 100
_LOCAL: Final = "`gittrack help tracking` says what works with a server"


def now_ms() -> int:
    """The time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def batches(params: list[wire.Json], tags: list[wire.Json], points: list[wire.Json]) -> Iterator[wire.Json]:
    """What servers take at once of these, one after the other.  Params go first: one that is refused stops the rest."""
    while points or params or tags:
        some = {"params": params[:MAX_PAIRS], "tags": tags[:MAX_PAIRS]}
        room = MAX_METRICS - len(some["params"]) - len(some["tags"])
        yield {**some, "metrics": points[:room]}
        params, tags, points = params[MAX_PAIRS:], tags[MAX_PAIRS:], points[room:]


class RemoteRun(ActiveRun):
    """A run on a server.  It has the interface of ``ActiveRun``, of which it shares nothing else.

    Args:
        tracker: The server.
        run: As it is there.
    """

    def __init__(self, tracker: RemoteTracker, run: Run) -> None:
        self.run_id = run.info.run_id
        self.experiment_id = run.info.experiment_id
        self.user_id = run.info.user_id
        self.start_time = run.info.start_time
        self.owner = True
        self._status = run.info.status
        self.models = {}
        for one in run.outputs.model_outputs:
            self.models.setdefault(one.step, []).append(one.model_id)
        self._server = tracker
        self._run = run

    def _post(self, path: str, body: Mapping[str, Any], *, repeatable: bool = False) -> dict[str, Any]:
        return self._server.connection.post(path, {"run_id": self.run_id, **body}, repeatable=repeatable)

    # -- metrics, params, tags ---------------------------------------------------------------------------------------

    def log_metric(self, key: str, value: float, step: int | None = None, timestamp: int | None = None) -> None:
        """Add one point.  Raises InvalidValueError."""
        self.log_metrics([Metric(key, value, now_ms() if timestamp is None else timestamp, step or 0)])

    def log_metrics(self, metrics: Iterable[Metric]) -> None:
        """Add many points.  Raises InvalidValueError."""
        self.log_batch(metrics, {}, {})

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write parameters, once each.  Raises InvalidValueError."""
        self.log_batch((), params, {})

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags.  Raises InvalidValueError."""
        self.log_batch((), {}, tags)

    def log_batch(self, metrics: Iterable[Metric], params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        """Metrics, params and tags; nothing is sent if one is invalid here.  Raises InvalidValueError."""
        truncate = self._server.truncate
        points = [wire.point(_checked(one)) for one in metrics]
        checked = dict(limits.check_param(key, value, truncate=truncate) for key, value in params.items())
        lasting = wire.pairs({key: redact_value(key, value) for key, value in checked.items()})
        edited = wire.pairs(dict(limits.check_tag(key, value, truncate=truncate) for key, value in tags.items()))
        for some in batches(lasting, edited, points):
            self._post("runs/log-batch", some, repeatable=True)

    def delete_tag(self, key: str) -> None:
        """Remove a tag.  Raises NotFoundError."""
        self._post("runs/delete-tag", {"key": limits.check_key("tag", key)})

    def has_tag(self, key: str) -> bool:
        """True if the run has that tag."""
        return key in self._server.get_run(self.run_id).data.tags

    def set_name(self, name: str) -> None:
        """Rename the run.  Raises InvalidValueError."""
        self._post("runs/update", {"run_name": limits.check_run_name(name)}, repeatable=True)

    def set_lifecycle(self, stage: str) -> None:
        """Delete (restorably) or restore the run."""
        self._post("runs/delete" if stage == LifecycleStage.DELETED else "runs/restore", {})

    # -- artifacts, inputs -------------------------------------------------------------------------------------------

    def log_artifact(self, local_path: str | Path, artifact_path: str | None = None) -> None:
        """Keep a file, or a folder with all that is in it.  Raises InvalidValueError."""
        self.log_files(files_of(local_path, artifact_path))

    def log_artifacts(self, local_dir: str | Path, artifact_path: str | None = None) -> None:
        """Keep every file below a folder, as paths relative to it.  Raises InvalidValueError."""
        self.log_files(files_in(local_dir, artifact_path))

    def log_bytes(self, data: bytes, path: str) -> None:
        """Keep ``data`` as the artifact ``path``.  Raises InvalidValueError for a bad path."""
        with tempfile.TemporaryDirectory(prefix="gittrack-") as scratch:
            place = Path(scratch, "data")
            with files.reporting(place):
                place.write_bytes(data)
            self.log_files({path: place})

    def log_files(self, found: Mapping[str, Path]) -> None:
        """Keep files under the artifact paths that they are given by.  Raises InvalidValueError."""
        self._server.folder(self.run_id).send_all(found)

    def remove_artifacts(self, paths: Iterable[str]) -> None:
        """Drop artifacts from the run.  Raises NotFoundError, UnsupportedError."""
        folder = self._server.folder(self.run_id)
        for path in paths:
            folder.remove(limits.check_artifact_path(path))

    def log_inputs(self, inputs: Iterable[DatasetInput], model_ids: Iterable[str] = ()) -> None:
        """Record datasets and logged models that the run read.  Raises InvalidValueError."""
        read = [wire.read_dataset(limits.check_dataset_input(one)) for one in inputs]
        models = [{"model_id": limits.check_model_id(one)} for one in dict.fromkeys(model_ids)]
        if read or models:
            self._post("runs/log-inputs", {"datasets": read, "models": models}, repeatable=True)

    def log_outputs(self, outputs: Iterable[ModelOutput]) -> None:
        """Record logged models that the run made.  Raises InvalidValueError."""
        made = [wire.made_model(one) for one in outputs]
        if made:
            self._post("runs/outputs", {"models": made})
            for one in made:
                self.models.setdefault(one["step"], []).append(one["model_id"])

    # -- life --------------------------------------------------------------------------------------------------------

    def to_run(self) -> Run:
        """The run as it was when this was made."""
        return self._run

    @property
    def lifecycle_stage(self) -> str:
        """``active`` or ``deleted``."""
        return self._run.info.lifecycle_stage

    def set_status(self, status: str, end_time: int | None = None) -> None:
        """Say how the run is doing."""
        if end_time is None and RunStatus.is_terminated(status):
            end_time = now_ms()
        self._post("runs/update", wire.present(status=status, end_time=end_time), repeatable=True)
        self._status = status

    def end(self, status: str = "FINISHED", end_time: int | None = None) -> None:
        """The run is over."""
        self.set_status(status, end_time)

    @property
    def open(self) -> bool:
        """There is no journal."""
        return False

    def write_event(self, event: list[Any]) -> None:
        """There is no journal.  Raises UnsupportedError."""
        raise UnsupportedError(f"`{event[0]}` cannot be recorded of a run on a server", hint=_LOCAL)

    def release(self) -> None:
        """Nothing waits."""

    def sync(self) -> None:
        """Nothing waits."""

    def __repr__(self) -> str:
        return f"RemoteRun({self.run_id!r})"


def _checked(metric: Metric) -> Metric:
    """A point within MLflow's limits.  Raises InvalidValueError."""
    limits.check_key("metric", metric.key)
    limits.check_metric_link(metric)
    value = limits.check_metric_value(metric.key, metric.value)
    return metric._replace(
        value=value, timestamp=limits.check_timestamp(metric.timestamp), step=limits.check_step(metric.step)
    )
