"""Runs, or the points of their metrics, as CSV, JSON or Parquet; ``tables`` says which columns there are."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, Final

from gittrack.convert.tables import FACTS, HISTORY, guarded, to_time
from gittrack.errors import MissingDependencyError

if TYPE_CHECKING:
    from gittrack.track.runs import Tracker
    from gittrack.types import Metric, Run

#: Rows of Parquet that are held at a time.
_ROWS: Final = 100_000
_TIMES: Final = ("start_time", "end_time")


class Columns:
    """The columns that some runs have.

    Args:
        runs: The runs; gone through once.
        experiments: Names of experiments by id.
    """

    def __init__(self, runs: Iterable[Run], experiments: dict[str, str]) -> None:
        self._experiments = experiments
        params: set[str] = set()
        metrics: set[str] = set()
        tags: set[str] = set()
        for run in runs:
            params |= run.data.params.keys()
            metrics |= run.data.metrics.keys()
            tags |= run.data.tags.keys()
        self.metrics = [f"metrics.{key}" for key in sorted(metrics)]
        self.texts = [f"params.{key}" for key in sorted(params)], [f"tags.{key}" for key in sorted(tags)]

    @property
    def names(self) -> list[str]:
        """Every column, in order."""
        return [*FACTS, *self.texts[0], *self.metrics, *self.texts[1]]

    def row(self, run: Run) -> dict[str, Any]:
        """A run's cells: text, numbers, times in milliseconds; what it does not have is not there."""
        info, data = run.info, run.data
        facts = {
            "run_id": info.run_id,
            "experiment": self._experiments.get(info.experiment_id, info.experiment_id),
            "name": info.run_name,
            "status": info.status,
            "start_time": info.start_time,
            "end_time": info.end_time,
            "user": info.user_id,
            "lifecycle_stage": info.lifecycle_stage,
        }
        for prefix, values in (("params.", data.params), ("metrics.", data.metrics), ("tags.", data.tags)):
            facts |= {f"{prefix}{key}": value for key, value in values.items()}
        return {key: value for key, value in facts.items() if value is not None}


def points(tracker: Tracker, runs: Iterable[Run]) -> Iterator[tuple[str, Metric]]:
    """(run id, point) of every metric of the runs."""
    for run in runs:
        for key in sorted(run.data.metrics):
            for point in tracker.metric_history(run.info.run_id, key):
                yield run.info.run_id, point


# -- CSV ---------------------------------------------------------------------------------------------------------------


def runs_to_csv(out: IO[str], runs: Iterable[Run], columns: Columns) -> int:
    """Write a row per run; how many."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(guarded, columns.names))
    count = 0
    for count, run in enumerate(runs, 1):  # noqa: B007 - counted
        row = columns.row(run)
        writer.writerow([_cell(name, row.get(name)) for name in columns.names])
    return count


def points_to_csv(out: IO[str], found: Iterable[tuple[str, Metric]]) -> int:
    """Write a row per point; how many."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HISTORY)
    count = 0
    for count, (run_id, point) in enumerate(found, 1):  # noqa: B007 - counted
        writer.writerow([run_id, guarded(point.key), point.step, to_time(point.timestamp), repr(point.value)])
    return count


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in _TIMES:
        return to_time(value)
    return repr(value) if isinstance(value, float) else guarded(str(value))


# -- JSON --------------------------------------------------------------------------------------------------------------


def runs_to_json(out: IO[str], runs: Iterable[Run], histories: Tracker | None) -> int:
    """Write an array with an object per run, in the shape of MLflow's ``to_dictionary``; how many.

    Args:
        out: Where to.
        runs: The runs.
        histories: Where the points are; they are left out if None.
    """
    count = 0
    out.write("[")
    for count, run in enumerate(runs, 1):
        facts = run.to_dictionary()
        facts["outputs"] = {
            "model_outputs": [
                {"model_id": one.model_id, "step": one.step, "path": one.path} for one in run.outputs.model_outputs
            ]
        }
        if histories is not None:
            facts["history"] = {
                key: [[p.step, p.timestamp, p.value] for p in histories.metric_history(run.info.run_id, key)]
                for key in sorted(run.data.metrics)
            }
        out.write(("," if count > 1 else "") + "\n" + json.dumps(_plain(facts), ensure_ascii=True))
    out.write("\n]\n" if count else "]\n")
    return count


def _plain(value: Any) -> Any:
    """``value`` with what JSON has no word for spelled as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


# -- Parquet -----------------------------------------------------------------------------------------------------------


def runs_to_parquet(path: str, runs: Iterable[Run], columns: Columns) -> int:
    """Write a row per run: times are timestamps in UTC, metrics are numbers, everything else is text; how many.

    Raises:
        MissingDependencyError: There is no pyarrow.
    """
    pa, _ = _arrow()
    kinds = dict.fromkeys(columns.names, pa.string())
    kinds |= dict.fromkeys(columns.metrics, pa.float64()) | dict.fromkeys(_TIMES, pa.timestamp("ms", "UTC"))
    return _write(path, pa.schema(list(kinds.items())), (columns.row(run) for run in runs))


def points_to_parquet(path: str, found: Iterable[tuple[str, Metric]]) -> int:
    """Write a row per point; how many.  Raises MissingDependencyError."""
    pa, _ = _arrow()
    kinds = (pa.string(), pa.string(), pa.int64(), pa.timestamp("ms", "UTC"), pa.float64())
    rows = (dict(zip(HISTORY, (run_id, p.key, p.step, p.timestamp, p.value), strict=True)) for run_id, p in found)
    return _write(path, pa.schema(list(zip(HISTORY, kinds, strict=True))), rows)


def _write(path: str, schema: Any, rows: Iterable[dict[str, Any]]) -> int:
    pa, parquet = _arrow()
    every = iter(rows)
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        while some := list(islice(every, _ROWS)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))
            count += len(some)
    return count


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError("Parquet needs the package pyarrow", hint="pip install pyarrow") from error
    return pa, parquet
