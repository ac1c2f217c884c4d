"""Points gathered in columns: 24 bytes each, so that a long history fits into memory while its file is read once."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from gittrack.track import limits
from gittrack.types import Metric


class Series:
    """Points by metric, in the order in which they came."""

    def __init__(self) -> None:
        self._columns: dict[str, tuple[array[int], array[int], array[float]]] = {}
        self.first = 0  #: the earliest time, in milliseconds; 0 if there is none
        self.last = 0

    def __contains__(self, key: str) -> bool:
        return key in self._columns

    def __len__(self) -> int:
        return sum(len(columns[0]) for columns in self._columns.values())

    def seen(self, timestamp: int) -> None:
        """Something happened at that time."""
        if timestamp > 0:
            self.first = min(self.first or timestamp, timestamp)
            self.last = max(self.last, timestamp)

    def add(self, key: str, value: float, step: int, timestamp: int) -> None:
        """Add a point; a step or a time beyond 64 bits becomes the nearest one there is."""
        columns = self._columns.setdefault(key, (array("q"), array("q"), array("d")))
        columns[0].append(min(max(step, limits.INT64_MIN), limits.INT64_MAX))
        columns[1].append(min(max(timestamp, 0), limits.INT64_MAX))
        columns[2].append(value)
        self.seen(timestamp)

    def __iter__(self) -> Iterator[Metric]:
        for key, (steps, timestamps, values) in self._columns.items():
            for step, timestamp, value in zip(steps, timestamps, values, strict=True):
                yield Metric(key, value, timestamp, step)


def milliseconds(seconds: float) -> int:
    """Seconds since the epoch as milliseconds; 0 for what is no time."""
    return int(seconds * 1000) if 0 < seconds < 1e15 else 0
