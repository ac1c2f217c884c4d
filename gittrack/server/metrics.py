"""Counters of a server in Prometheus' text format; exact with several worker processes, too.

Every process counts in a file of its own, which has a fixed layout, and whoever is asked adds all files up.  Format:
https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4).
"""

from __future__ import annotations

import mmap
import os
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import MutableSequence, Sequence
from pathlib import Path
from typing import Final, cast

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"

ROUTES: Final = ("invocations", "infer", "other")
#: Every status that the server answers with.
STATUSES: Final = (200, 400, 404, 405, 413, 415, 421, 500, 503, 504)
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

_Key = tuple[str, str]  # name and labels of a line


class Counters:
    """Counters and histograms that are declared once and counted up in a row of numbers."""

    def __init__(self) -> None:
        self._slots: dict[_Key, int] = {}
        self._kinds: list[tuple[str, str, str]] = []
        self._values: MutableSequence[float] = array("d")

    def _slot(self, key: _Key) -> int:
        slot = self._slots.setdefault(key, len(self._slots))
        if slot == len(self._values):
            self._values.append(0.0)
        return slot

    def _counter(self, name: str, labels: str, text: str) -> int:
        if all(known[0] != name for known in self._kinds):
            self._kinds.append((name, "counter", text))
        return self._slot((name, labels))

    def _histogram(self, name: str, label: str, limits: Sequence[float], text: str) -> tuple[int, Sequence[float]]:
        """Slots: one for each limit and one for the rest, then the sum."""
        self._kinds += [] if any(known[0] == name for known in self._kinds) else [(name, "histogram", text)]
        first = len(self._slots)
        for limit in (*(f"{limit:g}" for limit in limits), "+Inf", "sum"):
            self._slot((name, f"{label}|{limit}"))
        return first, limits

    def _add(self, slot: int, amount: float = 1) -> None:
        self._values[slot] += amount

    def _observe(self, histogram: tuple[int, Sequence[float]], value: float) -> None:
        first, limits = histogram
        self._values[first + bisect_left(limits, value)] += 1
        self._values[first + len(limits) + 1] += value

    # --- to be read

    def _lines(self, values: Sequence[float]) -> list[str]:
        lines: list[str] = []
        for name, kind, text in list(self._kinds):
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            lines += self._histogram_lines(name, values) if kind == "histogram" else self._counter_lines(name, values)
        return lines

    def _counter_lines(self, name: str, values: Sequence[float]) -> list[str]:
        """A line per counter; those of requests that never came are left out."""
        return [
            f"{name}{labels} {values[slot]:.17g}"
            for (known, labels), slot in list(self._slots.items())
            if known == name and (values[slot] or not labels)
        ]

    def _histogram_lines(self, name: str, values: Sequence[float]) -> list[str]:
        lines, total = [], 0.0
        for (known, place), slot in list(self._slots.items()):
            if known != name:
                continue
            label, _, limit = place.partition("|")
            if limit == "sum":
                labels = f"{{{label}}}" if label else ""
                lines += [f"{name}_sum{labels} {values[slot]:.17g}", f"{name}_count{labels} {total:.17g}"]
                total = 0.0
            else:
                total += values[slot]
                lines.append(f'{name}_bucket{{{label}{"," if label else ""}le="{limit}"}} {total:.17g}')
        return lines


class Metrics(Counters):
    """The counters of this process, and the sum of all processes'.

    Args:
        folder: Where the processes of one server count; None for a server of one process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.requests = {
            (route, status): self._counter(
                "gittrack_requests_total", f'{{route="{route}",status="{status}"}}', "Requests by route and status."
            )
            for route in ROUTES
            for status in STATUSES
        }
        self._seconds = {
            route: self._histogram(
                "gittrack_request_seconds",
                f'route="{route}"',
                SECONDS,
                "Seconds from the request's head to the answer.",
            )
            for route in ROUTES[:2]
        }
        self._batches = self._histogram("gittrack_batch_requests", "", SIZES, "Requests that one prediction answered.")
        self._batch_rows = self._counter("gittrack_rows_total", "", "Rows that were predicted in batches.")
        self._switches = self._counter("gittrack_model_switches_total", "", "Times that another version was put in.")
        self._failures = self._counter(
            "gittrack_model_switch_failures_total", "", "Times that a new version could not be put in."
        )
        self._started = self._counter("gittrack_workers_started_total", "", "Worker processes that were started.")
        self._folder = folder
        size = len(self._slots)
        if folder is not None:
            handle, _ = tempfile.mkstemp(suffix=".counters", dir=folder)
            os.ftruncate(handle, 8 * size)
            # A memoryview is one as far as this module goes: it is indexed.
            self._values = cast("MutableSequence[float]", memoryview(mmap.mmap(handle, 8 * size)).cast("d"))
            os.close(handle)
        self._add(self._started)

    # --- what happened

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        values = self._values
        values[self.requests[route, status]] += 1
        found = self._seconds.get(route)
        if found is not None:
            self._observe(found, seconds)

    def batch(self, requests: int, rows: int) -> None:
        """One prediction answered ``requests`` requests with ``rows`` rows in all."""
        self._observe(self._batches, requests)
        self._values[self._batch_rows] += rows

    def switched(self) -> None:
        """Another version answers from now on."""
        self._add(self._switches)

    def failed_switch(self) -> None:
        """A new version could not be put in; the old one goes on."""
        self._add(self._failures)

    # --- to be read

    def text(self, model: str, version: str) -> bytes:
        """All counters, and which model this process answers with."""
        lines = [
            *self._lines(self._sum()),
            "# HELP gittrack_model_info The model that the process which was asked answers with.",
            "# TYPE gittrack_model_info gauge",
            f'gittrack_model_info{{model="{escaped(model)}",version="{escaped(version)}"}} 1',
        ]
        return "\n".join([*lines, ""]).encode()

    def _sum(self) -> Sequence[float]:
        if self._folder is None:
            return self._values
        total = [0.0] * len(self._slots)
        for file in self._folder.glob("*.counters"):
            counted = array("d", file.read_bytes())
            if len(counted) == len(total):  # not one that is just being made
                total = [one + other for one, other in zip(total, counted, strict=True)]
        return total


def escaped(text: str) -> str:
    """Text as the value of a label."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
