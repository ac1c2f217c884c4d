"""The search for the commit that made a metric worse, over made-up lines of commits."""

import math

import pytest
from hypothesis import given, strategies as st

from gittrack.errors import InvalidValueError, NotFoundError
from gittrack.track import gate
from gittrack.track.bisect import BAD, GOOD, Point, Search
from gittrack.track.gate import MAX, MIN, Rule
from gittrack.types import ObjectId

ONE_PERCENT = gate.amount("1%")


def line_of(*values: float | None) -> list[Point]:
    """Commits c0, c1 … with one recorded run each, or none."""
    return [
        Point(ObjectId(f"c{place}"), [] if value is None else [value], value is not None)
        for place, value in enumerate(values)
    ]


def test_recorded_runs_are_enough() -> None:
    search = Search(line_of(0.9, 0.9, 0.91, 0.7, 0.7), Rule("acc"), ONE_PERCENT)
    search.begin(None)
    assert search.run()
    assert (search.good, search.bad) == (2, 3)


def test_without_trials_the_range_is_what_is_known() -> None:
    search = Search(line_of(0.9, None, 0.9, None, None, 0.7, None, 0.7), Rule("acc"), ONE_PERCENT)
    search.begin(None)
    assert not search.run()
    assert (search.good, search.bad) == (2, 5)


def test_less_is_better() -> None:
    search = Search(line_of(1.0, 1.0, 1.5, 1.4), Rule("loss", MIN), gate.amount("0.1"))
    search.begin(None)
    assert search.run()
    assert (search.good, search.bad) == (1, 2)
    assert search.limit == pytest.approx(1.1)


def test_the_good_end_can_be_named() -> None:
    points = line_of(0.5, 0.9, 0.7, 0.6)
    search = Search(points, Rule("acc"), ONE_PERCENT)
    search.begin(ObjectId("c1"))
    assert search.run()
    assert search.bad == 2
    with pytest.raises(NotFoundError, match="did not get worse"):
        Search(points, Rule("acc"), ONE_PERCENT).begin(ObjectId("c0"))


def test_nothing_got_worse() -> None:
    with pytest.raises(NotFoundError, match=r"no recorded run shows `acc` better than 0\.9"):
        Search(line_of(0.9, 0.899, None, 0.9), Rule("acc"), ONE_PERCENT).begin(None)


def test_no_value_at_the_end() -> None:
    with pytest.raises(NotFoundError, match="the bad end, has the metric"):
        Search(line_of(0.9, None), Rule("acc"), ONE_PERCENT).begin(None)


def test_a_value_near_the_limit_is_repeated_and_the_middle_counts() -> None:
    answers = iter([0.893, 0.8935])  # the limit is 0.891, and 0.888 is near it
    search = Search(line_of(0.9, 0.888, 0.7), Rule("acc"), ONE_PERCENT, trial=lambda _: next(answers))
    search.begin(ObjectId("c0"))
    assert search.run()
    assert search.line[1].values == [0.888, 0.893, 0.8935]
    assert (search.good, search.bad) == (1, 2)
    clear = Search(line_of(0.9, 0.8, 0.7), Rule("acc"), ONE_PERCENT, trial=pytest.fail)
    clear.begin(ObjectId("c0"))
    assert clear.run()  # nothing near the limit: nothing is run again


@given(st.data())
def test_it_finds_the_commit_with_few_new_runs(data: st.DataObject) -> None:
    length = data.draw(st.integers(2, 60))
    first_bad = data.draw(st.integers(1, length - 1))
    sign = data.draw(st.sampled_from([1, -1]))
    known = data.draw(st.sets(st.integers(1, length - 2)) if length > 2 else st.just(set()))
    broken = data.draw(st.sets(st.integers(1, length - 2), max_size=3) if length > 2 else st.just(set())) - known
    truth = [sign * (0.9 if place < first_bad else 0.5) for place in range(length)]
    ends = {0, length - 1}
    tried: list[int] = []

    def trial(commit: ObjectId) -> float | None:
        place = int(commit[1:])
        tried.append(place)
        return None if place in broken else truth[place]

    points = line_of(*[truth[place] if place in known | ends else None for place in range(length)])
    search = Search(points, Rule("m", MAX if sign == 1 else MIN), ONE_PERCENT, trial=trial)
    search.begin(None)
    found = search.run()
    assert search.good < first_bad <= search.bad
    assert search.verdict(search.good) == GOOD
    assert search.verdict(search.bad) == BAD
    between = set(range(search.good + 1, search.bad))
    assert between <= broken
    assert found is (not between)
    assert not set(tried) & (known | ends)
    assert len(tried) == len(set(tried)) <= math.ceil(math.log2(length)) + len(broken) + 1


@pytest.mark.parametrize(
    ("text", "of_two", "shown"), [("1%", 0.02, "1%"), ("0.5 %", 0.01, "0.5%"), ("0.01", 0.01, "0.01"), (0, 0, "0")]
)
def test_amounts(text: object, of_two: float, shown: str) -> None:
    amount = gate.amount(text)
    assert amount.of(-2) == pytest.approx(of_two)
    assert str(amount) == shown


@pytest.mark.parametrize("text", ["", "x", "-1%", "nan", "inf", "1%%", "1 2", None, "1e", "--1"])
def test_what_is_no_amount(text: object) -> None:
    with pytest.raises(InvalidValueError):
        gate.amount(text)


@pytest.mark.parametrize(
    ("name", "way"), [("acc", MAX), ("val_loss", MIN), ("RMSE", MIN), ("f1", MAX), ("log_error", MIN), ("aloha", MAX)]
)
def test_the_direction_follows_from_the_name(name: str, way: str) -> None:
    assert gate.direction(None, name) == way
    assert gate.direction("min", name) == MIN


def test_tables_of_gates() -> None:
    assert gate.rules({"metric": "acc"}) == [Rule("acc")]
    several = gate.rules([{"metric": "acc", "tolerance": "1%"}, {"metric": "loss", "base": "dev", "require-run": True}])
    assert [one.metric for one in several] == ["acc", "loss"]
    assert several[1] == Rule("loss", MIN, base="dev", require_run=True)
    wrong: object
    for wrong in ({}, {"metric": 1}, {"metric": "a", "x": 1}, {"metric": "a", "base": 1}, "acc", [[]]):
        with pytest.raises(InvalidValueError):
            gate.rules(wrong)


@pytest.mark.parametrize(
    ("direction", "tolerance", "before", "after", "failed"),
    [
        (MAX, "0", 0.9, 0.9, False),
        (MAX, "0", 0.9, 0.8999, True),
        (MAX, "1%", 0.9, 0.891, False),  # exactly the tolerance
        (MAX, "1%", 0.9, 0.8909, True),
        (MAX, "0", -1.0, -0.5, False),
        (MIN, "10%", -1.0, -0.9, False),
        (MIN, "10%", -1.0, -0.8, True),
        (MIN, "0", 1.0, math.inf, True),
        (MAX, "0", 0.9, math.nan, True),
        (MAX, "0", 0.0, 0.0, False),
    ],
)
def test_what_fails(direction: str, tolerance: str, before: float, after: float, failed: bool) -> None:
    rule = Rule("m", direction, gate.amount(tolerance))
    assert gate.Verdict(rule, value=after, before=before).failed is failed
    assert not gate.Verdict(rule, value=after).failed
    assert not gate.Verdict(rule, before=before).failed
