"""Curves for a screen: whatever is drawn of them is what all their points would have drawn."""

import math
from array import array

from hypothesis import given, strategies as st

from gittrack.track.series import AXES, Chart, along, bands, chart
from gittrack.types import MetricHistory

FINITE = st.floats(-1e6, 1e6, width=32)
VALUES = FINITE | st.sampled_from([math.nan, math.inf, -math.inf])
POINTS = st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 10_000), VALUES), max_size=40)


def history(points: list[tuple[int, int, float]]) -> MetricHistory:
    ordered = sorted(points, key=lambda point: (point[1], point[0]))
    steps, times, values = zip(*ordered, strict=True) if ordered else ((), (), ())
    return MetricHistory("m", array("q", steps), array("q", times), array("d", values))


def place(axis: str, step: int, time: int) -> float:
    return {"step": step, "relative": (time - 100) / 1000, "time": time}[axis]


def numbers(values: array) -> list[float]:  # type: ignore[type-arg]
    return [value for value in values if value == value]


@given(st.lists(POINTS, min_size=1, max_size=4), st.sampled_from(AXES), st.integers(1, 12), st.data())
def test_against_all_points(
    curves: list[list[tuple[int, int, float]]], axis: str, buckets: int, data: st.DataObject
) -> None:
    window = data.draw(st.none() | st.tuples(FINITE, FINITE).map(sorted))
    low, high = window or (None, None)
    found = chart([(history(points), 100) for points in curves], axis=axis, buckets=buckets, low=low, high=high)
    assert list(found.axis) == sorted(found.axis)
    assert len(found.axis) <= 2 * buckets
    for points, curve in zip(curves, found.curves, strict=True):
        inside = [
            (place(axis, step, time), value)
            for step, time, value in points
            if window is None or window[0] <= place(axis, step, time) <= window[1]
        ]
        assert curve.points == len(inside)
        assert len(curve.values) == len(found.axis)
        real = [value for _, value in inside if value == value]
        assert set(numbers(curve.values)) <= set(real)
        assert min(numbers(curve.values), default=0) == min(real, default=0)
        assert max(numbers(curve.values), default=0) == max(real, default=0)
        if found.exact:
            drawn = {at: value for at, value in zip(found.axis, curve.values, strict=True) if value == value}
            assert drawn == {at: value for at, value in inside if value == value}
        else:
            check_buckets(found, buckets, inside, curve.values)


def check_buckets(found: Chart, buckets: int, inside: list[tuple[float, float]], values: array) -> None:  # type: ignore[type-arg]
    """Each bucket has the extremes of the points that lie in it."""
    count = len(found.axis) // 2
    assert count in (1, buckets)
    width = (found.high - found.low) / buckets
    bounds = [found.low + width * index for index in range(1, count)]
    for index in range(count):
        lower = bounds[index - 1] if index else -math.inf
        upper = bounds[index] if index < count - 1 else math.inf
        of_bucket = [value for at, value in inside if lower <= at < upper and value == value]
        two = numbers(values[2 * index : 2 * index + 2])
        assert sorted(two) == ([min(of_bucket), max(of_bucket)] if of_bucket else [])


def test_no_spike_is_lost_and_the_extremes_keep_their_order() -> None:
    values = [math.sin(step / 500) for step in range(10_000)]
    spikes = {step: 100.0 + step for step in range(17, 10_000, 500)}
    for step, value in spikes.items():
        values[step] = value
    found = chart([(MetricHistory("m", array("q", range(10_000)), array("q", range(10_000)), array("d", values)), 0)])
    (curve,) = found.curves
    assert (found.exact, len(found.axis), curve.points) == (False, 1500, 10_000)
    assert {value for value in curve.values if value >= 100} == set(spikes.values())
    rising = chart([(history([(step, step, float(step)) for step in range(100)]), 0)], buckets=10).curves[0].values
    assert list(rising) == sorted(rising)
    falling = chart([(history([(step, step, -float(step)) for step in range(100)]), 0)], buckets=10).curves[0].values
    assert list(falling) == sorted(falling, reverse=True)


def test_steps_that_a_double_cannot_tell_apart_from_their_neighbours_are_all_there() -> None:
    steps = [2**53, 2**53 + 1, 2**53 + 2]
    found = chart([(history([(step, at, float(at)) for at, step in enumerate(steps)]), 0)])
    assert numbers(found.curves[0].values) == [0.0, 1.0, 2.0]


def test_smoothing_is_made_of_all_points_and_does_not_begin_at_zero() -> None:
    points = [(step, step, 5.0) for step in range(50)]
    (curve,) = chart([(history(points), 0)], smoothing=0.9).curves
    assert all(math.isclose(value, 5.0) for value in curve.smoothed)
    noisy = [(step, step, float(step % 2)) for step in range(1000)]
    (zoomed,) = chart([(history(noisy), 0)], smoothing=0.99, low=900, high=999).curves
    assert len(zoomed.smoothed) == 100
    assert all(abs(value - 0.5) < 0.05 for value in zoomed.smoothed)
    (cut,) = chart([(history(noisy), 0)], smoothing=0.99, buckets=10).curves
    assert len(cut.smoothed) == len(cut.values) == 20
    gap = [(0, 0, 1.0), (1, 1, math.nan), (2, 2, math.inf), (3, 3, 1.0)]
    (odd,) = chart([(history(gap), 0)], smoothing=0.5).curves
    assert (odd.smoothed[0], odd.smoothed[2], odd.smoothed[3]) == (1.0, math.inf, 1.0)
    assert math.isnan(odd.smoothed[1])


def test_no_points_at_all() -> None:
    for histories in ([], [(history([]), 0)], [(history([(1, 1, math.nan)]), 0)]):
        found = chart(histories, smoothing=0.5)
        assert found.exact
        assert [numbers(curve.values) for curve in found.curves] == [[]] * len(histories)


# --- groups


@given(st.lists(POINTS, min_size=1, max_size=5), st.integers(1, 12), st.integers(1, 3), st.sampled_from([0.0, 0.5]))
def test_a_band_holds_every_value_of_its_group(
    curves: list[list[tuple[int, int, float]]], buckets: int, count: int, smoothing: float
) -> None:
    groups = [at % count for at in range(len(curves))]
    histories = [(history(points), 100) for points in curves]
    found = bands(histories, groups, buckets=buckets, smoothing=smoothing)
    assert len(found.axis) <= 2 * buckets
    for group, band in zip(dict.fromkeys(groups), found.bands, strict=True):
        of_group = [points for points, one in zip(curves, groups, strict=True) if one == group]
        assert (band.curves, band.points) == (len(of_group), sum(map(len, of_group)))
        finite = [value for points in of_group for _, _, value in points if math.isfinite(value)]
        assert min(numbers(band.least), default=0) == min(finite, default=0)
        assert max(numbers(band.greatest), default=0) == max(finite, default=0)
        for mean, least, greatest in zip(band.mean, band.least, band.greatest, strict=True):
            assert not (least > greatest)
            if mean == mean and not smoothing:
                assert least - 1e-6 * abs(least) <= mean <= greatest + 1e-6 * abs(greatest)


def test_the_mean_of_a_group_is_that_of_its_lines() -> None:
    even = history([(step, step, 0.0) for step in range(0, 11, 2)])
    odd = history([(step, step, 10.0) for step in range(1, 10, 2)])
    other = history([(3, 3, 7.0)])
    found = bands([(even, 0), (odd, 0), (other, 0)], ["a", "a", "b"])
    first, second = found.bands
    assert list(found.axis) == [float(step) for step in range(11)]
    assert list(first.mean) == [0, *[5] * 9, 0]  # at its ends only one of them goes on
    assert (list(first.least), list(first.greatest)) == ([0] * 11, [0, *[10] * 9, 0])
    assert (numbers(second.mean), second.mean[3]) == ([7.0], 7.0)
    spiked = [math.sin(step / 50) for step in range(5000)]
    spiked[777] = 1e6
    many = MetricHistory("m", array("q", range(5000)), array("q", range(5000)), array("d", spiked))
    (band,) = bands([(many, 0)] * 3, ["a"] * 3, buckets=50, smoothing=0.9).bands
    assert (len(band.mean), max(band.greatest), min(band.least)) == (50, 1e6, min(spiked))
    assert max(band.mean) < 1e6


def test_one_metric_along_another() -> None:
    loss = history([(0, 0, 3.0), (1, 1, 2.0), (2, 2, 1.0), (3, 3, 0.5), (4, 4, 0.1)])
    epoch = history([(0, 0, 0.5), (1, 1, 0.25), (2, 2, math.nan), (3, 3, 1.0), (3, 4, 2.0)])
    (curve,) = (found := chart([(along(loss, epoch), 0)])).curves
    assert (list(found.axis), list(curve.values)) == ([0.25, 0.5, 2.0], [2.0, 3.0, 0.5])
    assert len(along(loss, history([]))) == 0
