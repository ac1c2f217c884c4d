"""Curves of metrics for a screen: few points, all on one axis, and no spike lost.

The axis is cut into buckets, the same for all curves.  Of each bucket a curve keeps its least and its greatest value,
in the order in which they came; so what is drawn is what all points would have drawn, at the width of a bucket.  Where
there are few points, all are kept as they are.  Knows columns of numbers, no runs, no files.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import le, lt
from typing import Any, Final, NamedTuple

from gittrack.types import MetricHistory

AXES: Final = ("step", "relative", "time")
_NOTHING: Final = math.nan


class Curve(NamedTuple):
    """One curve, on the axis of all.

    Attributes:
        points: How many points of it are in the window.
        values: 64-bit floats, one for each place on the axis; NaN where there is none.
        smoothed: Likewise, if asked for; else empty.
    """

    points: int
    values: array[float]
    smoothed: array[float]


class Chart(NamedTuple):
    """Curves on one axis.

    Attributes:
        axis: The places, ascending: steps, seconds since the start of a run, or milliseconds since 1970.
        curves: In the order that was asked for.
        exact: Every point in the window is there; otherwise two for each bucket.
        low: Where the window begins; NaN if there is no point at all.
        high: Where it ends.
    """

    axis: array[float]
    curves: list[Curve]
    exact: bool
    low: float
    high: float


class _Points(NamedTuple):
    """The points of a curve, by place, and which of them are in the window."""

    places: Sequence[float]
    values: array[float]
    smoothed: Sequence[float] | None
    first: int
    end: int


def chart(
    histories: Sequence[tuple[MetricHistory, int]],
    *,
    axis: str = "step",
    buckets: int = 750,
    low: float | None = None,
    high: float | None = None,
    smoothing: float = 0.0,
) -> Chart:
    """Fit curves onto a screen.

    Args:
        histories: Each with the time its run started at, in milliseconds.
        axis: One of `AXES`.
        buckets: How many, at least 1; a curve has up to twice as many points.
        low: Where to begin; where the first point is if not given.
        high: Where to end, included; where the last point is if not given.
        smoothing: 0: none; below 1: how much of the average so far each point keeps.  An exponential moving average
            over all points, without the pull to zero at the start, as TensorBoard draws it.
    """
    placed = [_placed(history, start, axis) for history, start in histories]
    ends = [(places[0], places[-1]) for places, _ in placed if places]
    if low is None:
        low = min((first for first, _ in ends), default=_NOTHING)
    if high is None:
        high = max((last for _, last in ends), default=_NOTHING)
    curves = [
        _Points(
            places,
            values,
            list(_smooth(values, smoothing)) if smoothing else None,
            bisect_left(places, low),
            bisect_right(places, high),
        )
        for places, values in placed
    ]
    grid = _grid(curves, 2 * buckets)
    if grid is not None:
        aligned = [_aligned(points, grid) for points in curves]
        return Chart(array("d", grid), aligned, exact=True, low=low, high=high)
    width = (high - low) / buckets
    bounds = [low + width * index for index in range(1, buckets)] if width > 0 else []
    marks = array("d")
    for index in range(len(bounds) + 1):
        marks.extend((low + width * (index + 0.25), low + width * (index + 0.75)))
    return Chart(marks, [_bucketed(points, bounds) for points in curves], exact=False, low=low, high=high)


def _placed(history: MetricHistory, start: int, axis: str) -> tuple[Sequence[float], array[float]]:
    """Places and values of all points, by place."""
    places: Any = history.timestamps
    if axis == "relative":
        places = array("d", [(time - start) / 1000 for time in places])
    elif axis == "step":
        places = history.steps
        if not _ascends(places):
            order = sorted(range(len(places)), key=places.__getitem__)
            return [places[at] for at in order], array("d", [history.values[at] for at in order])
    return places, history.values


def _ascends(places: Sequence[float], *, strictly: bool = False) -> bool:
    return all(map(lt if strictly else le, places, islice(places, 1, None)))


def _smooth(values: Iterable[float], weight: float) -> Iterator[float]:
    """The moving average at each point; what is not finite is passed on and forgotten."""
    average, pull = 0.0, 1.0
    for value in values:
        if math.isfinite(value):
            average = average * weight + value * (1 - weight)
            pull *= weight
            yield average / (1 - pull)
        else:
            yield value


def _grid(curves: Iterable[_Points], most: int) -> list[float] | None:
    """Every place where a curve has a point, if they are few and no curve has two at one."""
    found: set[float] = set()
    for points in curves:
        places = points.places[points.first : points.end]
        if len(places) > most or not _ascends(places, strictly=True):
            return None
        found.update(places)
        if len(found) > most:
            return None
    return sorted(found)


def _aligned(points: _Points, grid: Sequence[float]) -> Curve:
    """All points of a curve, at their places."""
    first, end = points.first, points.end
    where = dict(zip(points.places[first:end], range(first, end), strict=True))
    rows = [where.get(place) for place in grid]
    values, smoothed = (
        array("d", () if column is None else [_NOTHING if row is None else column[row] for row in rows])
        for column in (points.values, points.smoothed)
    )
    return Curve(end - first, values, smoothed)


def _bucketed(points: _Points, bounds: Sequence[float]) -> Curve:
    """The extremes of a curve in each bucket, and the mean of what was smoothed."""
    values, smoothed = array("d"), array("d")
    start = points.first
    for end in [*(bisect_left(points.places, bound, points.first, points.end) for bound in bounds), points.end]:
        values.extend(_extremes(points.values[start:end]))
        if points.smoothed is not None:
            finite = [value for value in points.smoothed[start:end] if math.isfinite(value)]
            mean = math.fsum(finite) / len(finite) if finite else _NOTHING
            smoothed.extend((mean, mean))
        start = end
    return Curve(points.end - points.first, values, smoothed)


def _extremes(values: Sequence[float]) -> tuple[float, float]:
    """The least and the greatest value, the one that came first first; NaN is no value."""
    if not values:
        return _NOTHING, _NOTHING
    if math.isnan(sum(values)):  # or two infinities, which does no harm
        values = [value for value in values if value == value]
        if not values:
            return _NOTHING, _NOTHING
    least, greatest = min(values), max(values)
    return (least, greatest) if values.index(least) <= values.index(greatest) else (greatest, least)
