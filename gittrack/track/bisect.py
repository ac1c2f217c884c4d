"""Finding the commit that made a metric worse: recorded runs first, new runs for what they leave open.

Pure decisions over a line of commits; who makes new runs is a function that the caller gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

from gittrack.errors import NotFoundError
from gittrack.track import links
from gittrack.track.gate import Amount, Rule

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.types import ObjectId, Run

GOOD: Final = "good"
BAD: Final = "bad"
UNKNOWN: Final = "unknown"
SKIPPED: Final = "skipped"  #: it was tried, and gave no value

#: Makes a run of a commit; the metric's value, None if it failed or has none.
Trial = Callable[["ObjectId"], "float | None"]


@dataclass
class Point:
    """A commit on the line.

    Attributes:
        commit: Its id.
        values: The metric of its runs, recorded ones first.
        recorded: How many of them were recorded before.
        failed: A run of it was tried and gave no value.
    """

    commit: ObjectId
    values: list[float] = field(default_factory=list)
    recorded: int = 0
    failed: bool = False

    @property
    def value(self) -> float | None:
        """The middle of its values; None without any."""
        return median(self.values) if self.values else None


def recorded(
    repo: Repo, line: Sequence[tuple[ObjectId, ObjectId]], runs: Iterable[Run], metric: str
) -> dict[ObjectId, Point]:
    """The commits of a line, (commit, tree) each, with what their runs say.  Runs with changed code do not count."""
    points = {commit: Point(commit) for commit, _ in line}
    trees: dict[str, ObjectId] = dict(line)
    same: dict[str, list[ObjectId]] = {}
    for commit, tree in line:
        same.setdefault(tree, []).append(commit)
    known: dict[str, str] = {tree: commits[0] for tree, commits in same.items()} | {one: one for one in trees}
    for run in runs:
        value = run.data.metrics.get(metric)
        found = links.how(repo, run, known)
        if value is None or value != value or found is None or found[1] not in links.TRIED:  # NaN says nothing
            continue
        for commit in same[trees[found[0]]]:  # equal files are as good as equal commits
            points[commit].values.append(value)
            points[commit].recorded += 1
    return points


class Search:
    """The search for the first bad commit on a line.

    Args:
        line: The commits, oldest first; the last one is bad.
        rule: The metric and its direction.
        drop: How much worse than the good commit is still good.
        repeat: How many runs of a commit decide where one is not clear.
        trial: Makes a run; None if none may be made.

    Attributes:
        line: As given.
        good: Place of the last good commit on the line.
        bad: Place of the first commit known to be bad.
        trial: As given.
    """

    def __init__(
        self, line: Sequence[Point], rule: Rule, drop: Amount, *, repeat: int = 3, trial: Trial | None = None
    ) -> None:
        self.line = list(line)
        self.good = 0
        self.bad = len(line) - 1
        self._rule = rule
        self._drop = drop
        self._repeat = repeat
        self.trial = trial
        self._baseline = 0.0

    def begin(self, good: ObjectId | None) -> None:
        """Find both ends.

        Args:
            good: A commit of the line that is good; None: the nearest one that a run shows to be.

        Raises:
            NotFoundError: There is no value for an end, or nothing got worse.
        """
        end = self._value_of(self.bad, "the bad end")
        if good is not None:
            self.good = next(place for place, point in enumerate(self.line) if point.commit == good)
            self._baseline = self._value_of(self.good, "the good end")
            if not self._is_worse(end):
                raise NotFoundError(
                    f"`{self._rule.metric}` did not get worse by more than {self._drop}:"
                    f" {self._baseline:.6g} at the good end, {end:.6g} at the bad one",
                    hint="a smaller `--drop`, or other ends with `--good` and `--bad`",
                )
            return
        for place in range(self.bad - 1, -1, -1):
            value = self.line[place].value
            if value is not None and self._rule.worse(value, end) > self._drop.of(value):
                self.good, self._baseline = place, value
                return
        raise NotFoundError(
            f"no recorded run shows `{self._rule.metric}` better than {end:.6g} by more than {self._drop}",
            hint="name a good commit with `--good`, and a command after `--` to run it",
        )

    def run(self) -> bool:
        """Narrow the range down; True if the first bad commit is found, False if commits without a run are left."""
        self._narrow()
        while self.bad - self.good > 1:
            place = self._next()
            if place is None:
                return False
            self._measure(place)
            self._narrow()
        return True

    def unknown(self) -> list[int]:
        """The places between good and bad of which nothing is known, and that were not tried in vain."""
        return [place for place in range(self.good + 1, self.bad) if self.verdict(place) == UNKNOWN]

    def verdict(self, place: int) -> str:
        """What is known of a commit: ``GOOD``, ``BAD``, ``UNKNOWN`` or ``SKIPPED``."""
        point = self.line[place]
        if point.value is None:
            return SKIPPED if point.failed else UNKNOWN
        if self._is_open(point) and self.trial is not None and not point.failed:
            return UNKNOWN
        return BAD if self._is_worse(point.value) else GOOD

    @property
    def limit(self) -> float:
        """The value beyond which a commit is bad."""
        room = self._drop.of(self._baseline)
        return self._baseline + room if self._rule.direction == "min" else self._baseline - room

    def _is_worse(self, value: float) -> bool:
        return self._rule.worse(self._baseline, value) > self._drop.of(self._baseline)

    def _is_open(self, point: Point) -> bool:
        """True if another run could change the verdict: the value is near the limit, and few runs say so."""
        near = self._drop.of(self._baseline) / 2
        return point.value is not None and len(point.values) < self._repeat and abs(point.value - self.limit) <= near

    def _narrow(self) -> None:
        """Take in what is known: the good commit nearest to the bad end, and the first bad one after it."""
        for place in range(self.bad - 1, self.good, -1):
            if self.verdict(place) == GOOD:
                self.good = place
                break
        for place in range(self.good + 1, self.bad):
            if self.verdict(place) == BAD:
                self.bad = place
                return

    def _next(self) -> int | None:
        """The place to look at next: as near to the middle as possible."""
        middle = (self.good + self.bad) / 2
        left = self.unknown()
        if self.trial is None or not left:
            return None
        return min(left, key=lambda place: (abs(place - middle), place))

    def _measure(self, place: int) -> None:
        point = self.line[place]
        while point.value is None or self._is_open(point):
            value = None if self.trial is None else self.trial(point.commit)
            if value is None or value != value:
                point.failed = True
                return
            point.values.append(value)

    def _value_of(self, place: int, what: str) -> float:
        point = self.line[place]
        if point.value is None and self.trial is not None:
            self._measure(place)
        if point.value is None:
            raise NotFoundError(
                f"no run of `{point.commit[:8]}`, {what}, has the metric `{self._rule.metric}`",
                hint="a command after `--` makes one, as in `gittrack bisect -m acc --drop 1% -- python train.py`",
            )
        return point.value
