"""What the page works out itself where it has no server, and what Python works out: the same, from the same numbers.

`UPDATE_SNAPSHOTS=1` writes the numbers anew; `npm test` in `gittrack/ui` reads them, too.
"""

import json
import math
import os
import random
from array import array
from pathlib import Path
from typing import Any

import gittrack
from gittrack.track import series
from gittrack.types import MetricHistory

VECTORS = Path(gittrack.__file__).parent / "ui" / "src" / "lib" / "site"
START = 1_700_000_000_000


def number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def check(name: str, found: Any) -> None:
    """The file says what Python says."""
    path = VECTORS / name
    lines = ",\n".join(json.dumps(one) for one in found)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(f"[\n{lines}\n]\n")
    assert path.read_text() == f"[\n{lines}\n]\n"


def history(draw: random.Random, count: int, *, odd: bool) -> MetricHistory:
    steps = [step * draw.choice([1, 2]) for step in range(count)]
    if odd:
        draw.shuffle(steps)
    values = [round(draw.choice([draw.gauss(0, 1), draw.gauss(0, 100)]), 2) for _ in range(count)]
    for at in range(0, count if odd else 0, 4):
        values[at] = draw.choice([math.nan, math.inf, -math.inf])
    times = sorted(START + draw.randrange(100_000) for _ in range(count))
    return MetricHistory("m", array("q", steps), array("q", times), array("d", values))


def test_curves() -> None:
    draw = random.Random(7)
    cases: list[Any] = []
    for odd in (False, True):
        for window in (
            {"buckets": 20}, {"buckets": 3}, {"buckets": 4, "smoothing": 0.8}, {"buckets": 30, "smoothing": 0.5},
            {"buckets": 3, "low": 4.5, "high": 20.0}, {"buckets": 6, "axis": "time"},
            {"buckets": 40, "axis": "relative", "smoothing": 0.3}, {"buckets": 1}, {"buckets": 9, "low": 1e9},
        ):  # fmt: skip
            histories = [(history(draw, count, odd=odd), START + 10 * count) for count in (13, 9, 1, 0)]
            groups = ["a", "b", "a", "b"]
            cases.append([window, histories, groups])
    written = []
    for window, histories, groups in cases:
        plain = [
            ([*one.steps], [*one.timestamps], [number(value) for value in one.values], start)
            for one, start in histories
        ]
        chart, bands = series.chart(histories, **window), series.bands(histories, groups, **window)
        along = series.along(histories[0][0], histories[1][0])
        said = {
            "window": {"axis": "step", **window},
            "histories": plain,
            "groups": groups,
            "axis": [number(one) for one in chart.axis],
            "exact": chart.exact,
            "low": number(chart.low),
            "high": number(chart.high),
            "curves": [[c.points, [*map(number, c.values)], [*map(number, c.smoothed)]] for c in chart.curves],
            "band_axis": [number(one) for one in bands.axis],
            "bands": [
                [b.curves, b.points, *([*map(number, column)] for column in (b.mean, b.least, b.greatest))]
                for b in bands.bands
            ],
            "along": [[number(one) for one in column] for column in (along.steps, along.timestamps, along.values)],
        }
        written.append(said)
    check("series.vectors.json", written)
