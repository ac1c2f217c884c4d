"""Measuring fairly on a noisy machine: turn about, several times, median with the extremes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

_UNITS: Final = {"s": (1.0, "s"), "ms": (1e3, "ms"), "us": (1e6, "µs")}


@dataclass(frozen=True)
class Figures:
    """Repeated measurements of one thing.

    Attributes:
        values: Seconds each, or units per second if ``rate``.
        unit: How to print them: ``s``, ``ms``, ``us``, or the name of what is counted per second.
    """

    values: tuple[float, ...]
    unit: str

    @property
    def rate(self) -> bool:
        """True if more is better."""
        return self.unit not in _UNITS

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        low, high = min(self.values), max(self.values)
        if self.rate:
            return f"{_round(self.median)} {self.unit}/s ({_round(low)}–{_round(high)})"
        scale, name = _UNITS[self.unit]
        return f"{_round(self.median * scale)} {name} ({_round(low * scale)}–{_round(high * scale)})"


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        work: What was done.
        ours: gittrack's figures.
        bound: Figures of the least that any program would have to do; empty if there is no such thing.
        bound_name: What that is.
        aim: What the design asks for.
        peer: MLflow's figures; None if they were not taken.
        note: What else must be known to read the line.
    """

    work: str
    ours: Figures
    bound: Figures | None
    bound_name: str
    aim: str
    peer: Figures | None = None
    note: str = ""


@dataclass
class Settings:
    """What the command line asked for.

    Attributes:
        quick: Small sizes and few rounds: shows that everything works, the figures are rough.
        peer: An interpreter that can import mlflow, or None.
        cache: Where populated repositories are kept from one call to the next.
        scratch: A folder of this call's own.
        fasttrackml: FastTrackML's program, or None.
        aim: An interpreter that can import aim, or None.
        home: The HOME of the programs that are started, so that the user's git settings play no part.
    """

    quick: bool
    peer: Path | None
    cache: Path
    scratch: Path
    home: Path
    rounds: int = 5
    fasttrackml: Path | None = None
    aim: Path | None = None
    log: list[str] = field(default_factory=list)

    def size(self, full: int, quick: int) -> int:
        """``full``, or ``quick`` where that was asked for."""
        return quick if self.quick else full

    def say(self, text: str) -> None:
        """Tell on stderr how far it is; kept for the notes below the table."""
        sys.stderr.write(f"{text}\n")
        self.log.append(text)

    def folder(self, name: str) -> Path:
        """A new folder."""
        number = len(list(self.scratch.iterdir()))
        path = self.scratch / f"{name}-{number}"
        path.mkdir(parents=True)
        return path

    def environment(self) -> dict[str, str]:
        """The environment of programs that are started."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT", "MLFLOW"))}
        return {
            **kept,
            "HOME": str(self.home),
            "GIT_CONFIG_GLOBAL": str(self.home / "gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PYTHONPATH": str(ROOT),
        }


def turn_about(rounds: int, **work: Callable[[], float]) -> dict[str, list[float]]:
    """Measure each of ``work`` once per round, one after the other, after one round that does not count.

    Args:
        rounds: How often.
        work: Each returns its own seconds, so that preparing does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, one in work.items():
            took = one()
            if number:
                seconds[name].append(took)
    return seconds


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """``work`` as something that returns its seconds."""

    def one() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return one


def process(
    settings: Settings, arguments: Sequence[str], *, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> Callable[[], float]:
    """Start a program, wait for its end: the seconds it took.  It must succeed."""
    environment = {**settings.environment(), **(env or {})}

    def one() -> float:
        start = time.perf_counter()
        done = subprocess.run(
            arguments, cwd=folder or settings.scratch, env=environment, capture_output=True, check=False
        )
        took = time.perf_counter() - start
        if done.returncode != 0:
            raise RuntimeError(f"{list(arguments)}: {done.stderr.decode(errors='replace')[-2000:]}")
        return took

    return one


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [
        "| Work | gittrack | bound, same run | ratio | aim | MLflow sqlite | MLflow ÷ gittrack |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        bound = f"{row.bound} — {row.bound_name}" if row.bound else row.bound_name or "–"
        ratio = times(row.ours, row.bound) if row.bound else "–"
        peer = str(row.peer) if row.peer else "–"
        factor = times(row.peer, row.ours) if row.peer else "–"
        work = f"{row.work}<br>{row.note}" if row.note else row.work
        lines.append(f"| {work} | {row.ours} | {bound} | {ratio} | {row.aim} | {peer} | {factor} |")
    return "\n".join(lines)


def times(one: Figures, other: Figures) -> str:
    """How many times the time of ``other`` does ``one`` take."""
    if not one.median or not other.median:  # less than the clock can tell
        return "–"
    quotient = other.median / one.median if one.rate else one.median / other.median
    return f"{_round(quotient)}×"


def _round(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
