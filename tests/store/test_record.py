"""A run folded from its events: the same whether it is folded in one go or bit by bit."""

from __future__ import annotations

import math
from array import array

from hypothesis import given, strategies as st

from gittrack.store import codec, record
from gittrack.store.record import RunState

POINTS = st.lists(
    st.tuples(
        st.sampled_from([0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf]), st.integers(0, 1), st.integers(-1, 1)
    ),
    max_size=8,
)


def rows(points: list[tuple[float, int, int]]) -> list[object]:
    return [record.METRICS, [["a", value, time, step] for value, time, step in points]]


def columns(points: list[tuple[float, int, int]]) -> list[object]:
    values, times, steps = zip(*points, strict=True) if points else ((), (), ())
    parts = {"a": (array("q", steps), array("q", times), array("d", values))} if points else {}
    return [record.COLUMNS, codec.pack_points(parts)]


@given(POINTS, POINTS, st.booleans())
def test_the_index_that_follows_a_run_sees_what_a_later_reader_sees(
    first: list[tuple[float, int, int]], second: list[tuple[float, int, int]], packed: bool
) -> None:
    shape = columns if packed else rows
    follower, reader = RunState("a" * 32), RunState("a" * 32)
    for part in (first, second):
        follower.apply(shape(part))
        follower.settle()
        reader.apply(rows(part))
    assert repr(follower.current_summaries()) == repr(reader.current_summaries())


def test_zero_has_no_sign() -> None:
    for event in (rows([(-0.0, 1, 0)]), columns([(-0.0, 1, 0)])):
        state = RunState("a" * 32)
        state.apply(event)
        assert [math.copysign(1.0, value) for value in state.new_history("a").values] == [1.0]
