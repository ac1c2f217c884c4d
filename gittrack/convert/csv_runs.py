"""Runs from CSV files: a row per run, a row per point, or (a training log) a row per step.

Which it is, the header says: ``key`` and ``value`` are points (of runs that are in another file, or only there); a
``step``, ``epoch`` or ``iteration``, and none of the columns of a table of runs, is a training log, whose columns are
metrics, of one run or of as many as the column ``run`` names; everything else has a row per run.  There a column
without a prefix is a metric if all of it are numbers, else a parameter.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gittrack.convert.series import Series
from gittrack.convert.source import RunsOnly, SourceExperiment, SourceRun, derived_id
from gittrack.convert.tables import FACTS, PREFIXES, from_time, unguarded
from gittrack.errors import FormatError, InvalidValueError
from gittrack.types import LifecycleStage, RunStatus, check_run_id

_STEPS: Final = ("step", "_step", "epoch", "iteration", "global_step")
_TIMES: Final = ("timestamp", "_timestamp", "time", "wall_time")
#: Columns of MLflow's tables that say nothing here.
_IGNORED: Final = ("experiment_id", "artifact_uri")

Row = Mapping[str, str]


@dataclass
class _Run:
    """A run as its rows tell it."""

    key: str
    facts: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    changed: int = 0  #: when its file was, in milliseconds: the time of what has no other
    series: Series = field(default_factory=Series)


class CsvFiles(RunsOnly):
    """CSV files; those whose name ends in ``.tsv`` have tabs.

    Args:
        paths: The files.
        experiment: The experiment of the rows that do not name one.

    Raises:
        FormatError: No CSV, or one without a header.
    """

    kind = "csv"

    def __init__(self, paths: Sequence[Path], experiment: str) -> None:
        super().__init__()
        self._default = experiment
        self._runs: dict[str, _Run] = {}
        for path in paths:
            header, rows = _read(path)
            names = set(header)
            if {"key", "value"} <= names:
                self._points(path, rows)
            elif names & set(_STEPS) and not names & set(FACTS) and not any(n.startswith(PREFIXES) for n in header):
                self._steps(path, header, rows)
            else:
                self._rows(path, header, rows)

    # -- the three kinds ---------------------------------------------------------------------------------------------

    def _points(self, path: Path, rows: Iterable[Row]) -> None:
        for number, row in enumerate(rows, 2):
            value, when = _number(row["value"]), from_time(row.get("timestamp", ""))
            if value is None:
                self.problems.append(f"`{path}`, line {number}: `{row['value']:.40}` is no number")
                continue
            run = self._run(path, row.get("run_id") or path.stem)
            run.series.add(unguarded(row["key"]), value, _whole(row.get("step", "")), when or 0)

    def _steps(self, path: Path, header: Sequence[str], rows: Iterable[Row]) -> None:
        step_column = next(name for name in _STEPS if name in header)
        time_column = next((name for name in _TIMES if name in header), None)
        apart = {step_column, time_column, "run"}
        texts: dict[tuple[str, str], set[str]] = {}
        for row in rows:
            name = row.get("run") or path.stem
            run = self._run(path, f"{self._default}/{name}" if row.get("run") else name)
            run.facts.setdefault("name", name)
            when = from_time(row[time_column]) if time_column else None
            for column in header:
                if column in apart or not row[column]:
                    continue
                value = _number(row[column])
                if value is not None:
                    run.series.add(column, value, _whole(row[step_column]), when or 0)
                elif len(known := texts.setdefault((run.key, column), set())) < 2:
                    known.add(row[column])
        for (key, column), values in texts.items():
            if len(values) == 1 and column not in self._runs[key].series:
                self._runs[key].params[column] = unguarded(values.pop())  # the same in all rows
            else:
                self.problems.append(f"`{path}`: column `{column:.80}` has values that are no numbers")

    def _rows(self, path: Path, header: Sequence[str], rows: Iterable[Row]) -> None:
        kept = list(rows)
        plain = [name for name in header if name not in FACTS + _IGNORED and not name.startswith(PREFIXES)]
        numeric = {name for name in plain if all(_number(row[name]) is not None for row in kept if row[name])}
        seen: dict[str, int] = {}
        for number, row in enumerate(kept, 2):
            content = "\0".join(f"{name}={row[name]}" for name in header)
            seen[content] = seen.get(content, 0) + 1
            run = self._run(path, row.get("run_id") or f"{path.stem} {derived_id(self.kind, content, seen[content])}")
            run.facts |= {name: unguarded(row[name]) for name in FACTS if row.get(name)}
            for name in header:
                cell = row[name]
                prefix = next((one for one in PREFIXES if name.startswith(one)), "")
                if not cell or name in FACTS + _IGNORED:
                    continue
                if prefix == "metrics." or name in numeric:
                    value = _number(cell)
                    if value is None:
                        self.problems.append(f"`{path}`, line {number}: `{cell:.40}` is no number")
                    else:
                        run.last[name[len(prefix) :]] = value
                elif prefix == "tags.":
                    run.tags[name[len(prefix) :]] = unguarded(cell)
                else:
                    run.params[name[len(prefix) :]] = unguarded(cell)

    def _run(self, path: Path, key: str) -> _Run:
        if key not in self._runs:
            self._runs[key] = _Run(key, changed=path.stat().st_mtime_ns // 1_000_000)
        return self._runs[key]

    # -- as a source -------------------------------------------------------------------------------------------------

    def experiments(self) -> Iterable[SourceExperiment]:
        """Those that the rows name."""
        names = sorted({run.facts.get("experiment", self._default) for run in self._runs.values()})
        return [SourceExperiment(key=name, name=name) for name in names]

    def _of(self, experiment: SourceExperiment) -> list[_Run]:
        return [run for run in self._runs.values() if run.facts.get("experiment", self._default) == experiment.name]

    def count(self, experiment: SourceExperiment) -> int:
        """How many runs it has."""
        return len(self._of(experiment))

    def runs(self, experiment: SourceExperiment) -> Iterator[SourceRun]:
        """Its runs, in the order of the rows."""
        for run in self._of(experiment):
            yield self._to_run(run)

    def _to_run(self, run: _Run) -> SourceRun:
        facts, series = run.facts, run.series
        start = from_time(facts.get("start_time", ""))
        end = from_time(facts.get("end_time", ""))
        start = (series.first or run.changed) if start is None else start
        end = (series.last or start) if end is None else end
        for key, value in run.last.items():
            if key not in series:
                series.add(key, value, 0, end)
        status = facts.get("status", "FINISHED").upper()
        known = status in map(RunStatus.to_string, RunStatus.all_status())
        if not known:
            self.problems.append(f"run `{run.key:.80}`: `{status:.40}` is no status")
        try:
            run_id = str(check_run_id(run.key))
            own = len(run_id) == 32
        except InvalidValueError:
            own = False
        return SourceRun(
            key=run.key,
            run_id=run.key if own else derived_id(self.kind, run.key),
            state=f"{status} {len(series)} points",
            name=facts.get("name") or run.tags.get("mlflow.runName") or None,
            user_id=facts.get("user", ""),
            status=status if known else "FINISHED",
            start_time=max(start, 0),
            end_time=max(end, 0),
            lifecycle_stage=LifecycleStage.DELETED
            if facts.get("lifecycle_stage") == "deleted"
            else LifecycleStage.ACTIVE,
            params=run.params,
            tags=run.tags,
            metrics=lambda: series,
        )


def _read(path: Path) -> tuple[list[str], Iterator[Row]]:
    """Header and rows of a file.  Raises FormatError."""
    with path.open(encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        header = next(_lines(reader, path), None)
    if not header or not any(header):
        raise FormatError(f"`{path}` has no header", hint="its first line has to name the columns")
    if len(set(header)) != len(header):
        raise FormatError(f"`{path}` has a column twice")
    return header, _rows_of(path, header)


def _rows_of(path: Path, header: list[str]) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        lines = _lines(reader, path)
        next(lines)
        for line in lines:
            if any(line):
                yield dict(zip(header, [*line, *[""] * len(header)], strict=False))


def _lines(reader: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise FormatError(f"`{path}` is no CSV: {error}") from error


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _whole(cell: str) -> int:
    value = _number(cell)
    return int(value) if value is not None and abs(value) < 2**63 else 0
