"""Curves of metrics for a screen: few points, all on one axis, and no spike lost.

The axis is cut into buckets, the same for all curves.  Of each bucket a curve keeps its least and its greatest value,
in the order in which they came; so what is drawn is what all points would have drawn, at the width of a bucket.  Where
there are few points, all are kept as they are.  Curves that belong together can be drawn as one: their mean, between
the least and the greatest of them all.  Knows columns of numbers, no runs, no files.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
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


class Band(NamedTuple):
    """Curves that are drawn as one; each column has a value for each place on the axis, NaN where there is none.

    Attributes:
        curves: How many there are.
        points: How many points of them are in the window.
        mean: Of the curves that go on there, smoothed if asked for.
        least: The least finite value of all, as it was logged.
        greatest: Likewise.
    """

    curves: int
    points: int
    mean: array[float]
    least: array[float]
    greatest: array[float]


class Bands(NamedTuple):
    """Groups of curves on one axis; see `Chart`, except that a bucket is one place."""

    axis: array[float]
    bands: list[Band]
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
    curves, low, high = _window(histories, axis, low, high, smoothing)
    grid = _grid(curves, 2 * buckets)
    if grid is not None:
        aligned = [_aligned(points, grid) for points in curves]
        return Chart(array("d", grid), aligned, exact=True, low=low, high=high)
    width, bounds = _bounds(low, high, buckets)
    marks = array("d")
    for index in range(len(bounds) + 1):
        marks.extend((low + width * (index + 0.25), low + width * (index + 0.75)))
    return Chart(marks, [_bucketed(points, bounds) for points in curves], exact=False, low=low, high=high)


def bands(
    histories: Sequence[tuple[MetricHistory, int]],
    groups: Sequence[Hashable],
    *,
    axis: str = "step",
    buckets: int = 750,
    low: float | None = None,
    high: float | None = None,
    smoothing: float = 0.0,
) -> Bands:
    """Fit groups of curves onto a screen, in the order in which the groups come first.

    Between two of its points a curve has what a straight line between them has, so that a group whose curves have
    points at different places has a mean that does not jump; before its first and after its last it has nothing.

    Args:
        histories: As of `chart`, and so are the others.
        groups: The group of each.
        axis: One of `AXES`.
        buckets: How many, at least 1.
        low: Where to begin.
        high: Where to end.
        smoothing: Of each curve, before they are put together.
    """
    curves, low, high = _window(histories, axis, low, high, smoothing)
    grid = _grid(curves, 2 * buckets)
    if grid is None:
        width, bounds = _bounds(low, high, buckets)
        axis_of = array("d", [low + width * (index + 0.5) for index in range(len(bounds) + 1)])
    else:
        axis_of = array("d", grid)
    members: dict[Hashable, list[_Points]] = {}
    for group, points in zip(groups, curves, strict=True):
        finite = array("d", [value if math.isfinite(value) else _NOTHING for value in points.values])
        members.setdefault(group, []).append(points._replace(values=finite))
    found = []
    for of_group in members.values():
        means: list[array[float]] = []
        least: list[array[float]] = []
        greatest: list[array[float]] = []
        for points in of_group:
            if grid is None:
                cut = _bucketed(points._replace(smoothed=points.smoothed or points.values), bounds)
                pairs = cut.values[::2], cut.values[1::2]
                columns = cut.smoothed[::2], array("d", map(min, *pairs)), array("d", map(max, *pairs))
            else:
                whole = _aligned(points, grid)
                columns = whole.smoothed or whole.values, whole.values, whole.values
            for column, kept in zip(columns, (means, least, greatest), strict=True):
                kept.append(_bridged(column, axis_of))
        found.append(
            Band(
                len(of_group),
                sum(points.end - points.first for points in of_group),
                _across(means, lambda values: math.fsum(values) / len(values)),
                _across(least, min),
                _across(greatest, max),
            )
        )
    return Bands(axis_of, found, exact=grid is not None, low=low, high=high)


def along(history: MetricHistory, other: MetricHistory) -> MetricHistory:
    """The points of a metric at the steps where another has one, with that one's values in place of the steps.

    A point where the other is not finite is left out; of several at one step the other's last counts.
    """
    where = {step: value for step, value in zip(other.steps, other.values, strict=True) if math.isfinite(value)}
    rows = [
        (where[step], time, value)
        for step, time, value in zip(history.steps, history.timestamps, history.values, strict=True)
        if step in where
    ]
    steps, times, values = zip(*rows, strict=True) if rows else ((), (), ())
    return MetricHistory(history.key, array("d", steps), array("q", times), array("d", values))


def _window(
    histories: Sequence[tuple[MetricHistory, int]], axis: str, low: float | None, high: float | None, smoothing: float
) -> tuple[list[_Points], float, float]:
    """Curves by place, with what of them is between two places, and those places."""
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
    return curves, low, high


def _bounds(low: float, high: float, buckets: int) -> tuple[float, list[float]]:
    """How wide a bucket is, and where each but the first begins."""
    width = (high - low) / buckets
    return width, [low + width * index for index in range(1, buckets)] if width > 0 else []


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


def _bridged(values: Sequence[float], axis: Sequence[float]) -> array[float]:
    """The finite values, and between two of them what a straight line has."""
    filled = array("d", values)
    if all(map(math.isfinite, values)):
        return filled
    last: int | None = None
    for at, value in enumerate(values):
        if not math.isfinite(value):
            filled[at] = _NOTHING
            continue
        if last is not None and at - last > 1:
            start, rise = values[last], (value - values[last]) / (axis[at] - axis[last])
            for between in range(last + 1, at):
                filled[between] = start + rise * (axis[between] - axis[last])
        last = at
    return filled


def _across(columns: Sequence[array[float]], of: Callable[[list[float]], float]) -> array[float]:
    """What a function makes of the values at each place."""
    found = array("d")
    for row in zip(*columns, strict=True):
        there = [value for value in row if value == value]
        found.append(of(there) if there else _NOTHING)
    return found
