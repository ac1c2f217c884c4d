"""A gate: a metric may not get worse than it was, by more than a tolerance.  Knows runs and numbers, no settings."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import InvalidValueError
from gittrack.track import commits, links
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from gittrack.track.runs import Tracker
    from gittrack.types import Run

MAX: Final = "max"  #: more is better
MIN: Final = "min"  #: less is better
_KEYS: Final = ("metric", "direction", "tolerance", "base", "where", "experiment", "require-run")
#: How far back from the merge base a commit with runs is looked for.
REACH: Final = 200


@dataclass(frozen=True, slots=True)
class Amount:
    """How much worse is still good: a share of the baseline, or an absolute amount."""

    value: float
    relative: bool

    def of(self, baseline: float) -> float:
        """The absolute amount for a baseline."""
        return abs(baseline) * self.value if self.relative else self.value

    def __str__(self) -> str:
        return f"{self.value * 100:g}%" if self.relative else f"{self.value:g}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One gate.

    Attributes:
        metric: The metric that counts, by its last value.
        direction: ``MAX`` if more is better, ``MIN`` if less is.
        tolerance: How much worse it may be.
        base: The branch to compare with; None: the one that the remote calls its default, or main or master.
        where: Only runs that match this filter count.
        experiment: Only runs of this experiment count; its name or its id.
        require_run: The hook refuses a commit whose code no run has tried.
    """

    metric: str
    direction: str = MAX
    tolerance: Amount = Amount(0.0, False)
    base: str | None = None
    where: str = ""
    experiment: str | None = None
    require_run: bool = False

    def worse(self, baseline: float, value: float) -> float:
        """By how much ``value`` is worse than the baseline; negative if it is better, infinite if it is no number."""
        if math.isnan(value):
            return math.inf
        return value - baseline if self.direction == MIN else baseline - value


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate says.

    Attributes:
        rule: The gate.
        run: The best run of the code that is judged; None if there is none.
        value: Its metric.
        baseline: The run that it is compared with; None if there is none.
        before: Its metric.
        commit: The baseline's commit.
    """

    rule: Rule
    run: Run | None = None
    value: float | None = None
    baseline: Run | None = None
    before: float | None = None
    commit: ObjectId | None = None

    @property
    def failed(self) -> bool:
        """True if the metric is worse than the tolerance allows."""
        if self.value is None or self.before is None:
            return False
        worse = self.rule.worse(self.before, self.value)
        # What is worse by exactly the tolerance is not refused for how numbers are rounded.
        return worse > 0 and worse > self.rule.tolerance.of(self.before) * (1 + 1e-9) + 1e-12 * abs(self.before)


def amount(text: object) -> Amount:
    """``1%`` or ``0.01`` as an amount.  Raises InvalidValueError."""
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(%?)\s*", str(text))
    try:
        value = float(match[1]) if match else math.nan
    except ValueError:
        value = math.nan
    if match is None or not 0 <= value < math.inf:
        raise InvalidValueError(
            f"`{text!s:.40}` is no amount", hint="write `1%` of the value, or a number such as 0.01"
        )
    return Amount(value / 100 if match[2] else value, bool(match[2]))


def direction(text: object, metric: str) -> str:
    """``MAX`` or ``MIN`` from the word for it; without one, what the metric's name says.  Raises InvalidValueError."""
    if text is None:
        return MIN if re.search(r"loss|error|\berr\b|mae|mse|rmse|perplexity|wer\b|latency", metric.lower()) else MAX
    if text not in (MAX, MIN):
        raise InvalidValueError(f"direction is `{text!s:.40}`", hint="`max` if more is better, `min` if less is")
    return str(text)


def rules(table: object) -> list[Rule]:
    """The gates of `[tool.gittrack.gate]`, or of several `[[tool.gittrack.gate]]`.  Raises InvalidValueError."""
    where = "tool.gittrack.gate"
    tables = table if isinstance(table, list) else [table]
    found = []
    for one in tables:
        if not isinstance(one, Mapping) or not isinstance(one.get("metric"), str):
            raise InvalidValueError(
                f"`{where}` in pyproject.toml names no metric", hint='write metric = "val_accuracy"'
            )
        if unknown := [key for key in one if key not in _KEYS]:
            raise InvalidValueError(f"`{where}` has `{unknown[0]:.80}`", hint=f"it takes {', '.join(_KEYS)}")
        found.append(_rule(one))
    return found


def _rule(table: Mapping[str, Any]) -> Rule:
    for key in ("base", "where", "experiment"):
        if not isinstance(table.get(key, ""), str):
            raise InvalidValueError(f"`tool.gittrack.gate.{key}` in pyproject.toml is no text")
    return Rule(
        table["metric"],
        direction(table.get("direction"), table["metric"]),
        amount(table.get("tolerance", 0)),
        table.get("base"),
        table.get("where", ""),
        table.get("experiment"),
        table.get("require-run", False) is True,
    )


# -- judging -----------------------------------------------------------------------------------------------------------


def judge(tracker: Tracker, rule: Rule, runs: Iterable[Run], base: ObjectId | None) -> Verdict:
    """Compare the best of ``runs`` with the best run of ``base``, or of the nearest commit before it that has one."""
    only = links.matching(tracker, rule.where, rule.experiment)
    run = best(rule, [one for one in runs if only is None or one.info.run_id in only])
    baseline, commit = (None, None) if base is None else _baseline(tracker, rule, base, only)
    return Verdict(
        rule,
        run,
        None if run is None else run.data.metrics[rule.metric],
        baseline,
        None if baseline is None else baseline.data.metrics[rule.metric],
        commit,
    )


def best(rule: Rule, runs: Iterable[Run]) -> Run | None:
    """The run with the best value of the rule's metric; one whose value is no number only if there is no other."""
    having = [run for run in runs if rule.metric in run.data.metrics]
    sign = 1 if rule.direction == MAX else -1

    def rank(run: Run) -> tuple[bool, float]:
        value = run.data.metrics[rule.metric]
        return (not math.isnan(value), 0.0 if math.isnan(value) else sign * value)

    return max(having, key=rank, default=None)


def _baseline(
    tracker: Tracker, rule: Rule, base: ObjectId, only: Collection[str] | None
) -> tuple[Run | None, ObjectId | None]:
    """The best run of the nearest commit at or before ``base`` that has one, along first parents."""
    for commit, _ in commits.history(tracker.repo, base, REACH):
        runs = [one.run for one in links.runs_of(tracker, commit) if one.how in links.TRIED]
        found = best(rule, [one for one in runs if only is None or one.info.run_id in only])
        if found is not None and not math.isnan(found.data.metrics[rule.metric]):
            return found, commit
    return None, None
