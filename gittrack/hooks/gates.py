"""The gates of the project, applied: what `gittrack gate` and the pre-commit hook say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gittrack import config
from gittrack.track import commits, gate

if TYPE_CHECKING:
    from gittrack.track.runs import Tracker
    from gittrack.types import ObjectId, Run


def project_rules(tracker: Tracker) -> list[gate.Rule]:
    """The gates in pyproject.toml; empty if there are none.  Raises InvalidValueError."""
    table = config.team_settings(tracker.repo.paths).get("gate")
    return [] if table is None else gate.rules(table)


def verdicts(
    tracker: Tracker, rules: Iterable[gate.Rule], runs: Iterable[Run], commit: ObjectId | None, base: str | None = None
) -> list[gate.Verdict]:
    """What each gate says about runs of code that comes after ``commit``, or is it.

    Args:
        tracker: Where the runs are.
        rules: The gates.
        runs: Runs of the code that is judged.
        commit: A commit on the branch that is judged; None if there is none yet.
        base: The branch to compare with, in the place of the rules' own.

    Raises:
        InvalidValueError: The branch to compare with does not exist.
    """
    runs, found = list(runs), []
    for rule in rules:
        name = base or rule.base or commits.default_base(tracker.repo)
        at = None if name is None or commit is None else commits.merge_base(tracker.repo, name, commit)
        found.append(gate.judge(tracker, rule, runs, at))
    return found


def sentence(verdict: gate.Verdict) -> str:
    """What a gate says, in a line."""
    rule = verdict.rule
    if verdict.run is None or verdict.value is None:
        return f"no run of this code has the metric `{rule.metric}`"
    name = f"`{rule.metric}` is {verdict.value:.6g} in run {verdict.run.info.run_id[:8]}"
    if verdict.baseline is None or verdict.before is None or verdict.commit is None:
        return f"{name}; there is no run before it to compare with"
    change = verdict.value - verdict.before
    allowed = f", {rule.tolerance} is allowed" if verdict.failed else ""
    direction = "at least" if rule.direction == gate.MAX else "at most"
    return (
        f"{name}, {change:+.6g} from {verdict.before:.6g} at {verdict.commit[:8]}"
        f"{allowed} ({direction} {_limit(verdict):.6g})"
    )


def _limit(verdict: gate.Verdict) -> float:
    before = verdict.before or 0.0
    room = verdict.rule.tolerance.of(before)
    return before - room if verdict.rule.direction == gate.MAX else before + room
