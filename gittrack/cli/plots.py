"""Metrics drawn with characters: as many points as there is room for, and no spike lost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gittrack.types import MetricHistory

HEIGHT: Final = 16
_TICKS: Final = 6
Point = tuple[int, float]


def points_of(history: MetricHistory) -> list[Point]:
    """The points that can be drawn, by step."""
    return sorted(pair for pair in zip(history.steps, history.values, strict=True) if math.isfinite(pair[1]))


def drawable(points: Sequence[Point]) -> bool:
    """Whether there are two places to draw a line between."""
    return bool(points) and points[0][0] != points[-1][0]


def drawn(curves: Sequence[Sequence[Point]], width: int, height: int = HEIGHT) -> list[str]:
    """The lines of a chart; of several curves each is drawn with its number, from 1 to 9.

    Args:
        curves: Points by step, of which at least one curve is `drawable`.
        width: Columns.
        height: Lines.
    """
    import plotext

    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, height)
    for number, curve in enumerate(curves, 1):
        kept = _thinned(curve, width * 2)
        if not kept:
            continue
        columns = [step for step, _ in kept], [value for _, value in kept]
        signal = figure.signal(*columns) if len(curves) == 1 else figure.signal(*columns, marker=str(number))
        figure.draw(signal.lines())
    figure.label("step", "x")
    there = [step for curve in curves for step, _ in curve]
    ticks = _ticks(min(there), max(there))
    figure.ruler("x").ticks(ticks, [f"{tick:,}" for tick in ticks])
    return [line.rstrip() for line in plotext.uncolorize(str(figure.build())).rstrip("\n").split("\n")]


def _ticks(low: int, high: int) -> list[int]:
    """Round steps from ``low`` to ``high``, five or so."""
    rough = max((high - low) // _TICKS, 1)
    unit = 10 ** (len(str(rough)) - 1)
    stride = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return list(range(-(-low // stride) * stride, high + 1, stride))


def _thinned(points: Sequence[Point], buckets: int) -> list[Point]:
    """At most two points a bucket: its least and its greatest, so that no spike is lost."""
    if len(points) <= 2 * buckets:
        return list(points)
    kept = []
    for number in range(buckets):
        part = points[number * len(points) // buckets : (number + 1) * len(points) // buckets]
        least, greatest = min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])
        kept += sorted({least, greatest})
    return kept
