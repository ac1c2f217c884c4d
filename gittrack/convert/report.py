"""What an import or an export did."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Report:
    """What an import or an export did, or would do.

    Attributes:
        experiments: Made.
        runs: Made, or completed.
        here: Runs that were there already, whole.
        points: Metric points.
        files: Artifacts; ``size`` is their bytes.
        models: Registered models made.
        versions: Versions made.
        problems: What was left out, and why.
        passed: How many things there were of each kind that has no place where they were to go; no trouble, but said.
    """

    experiments: int = 0
    runs: int = 0
    here: int = 0
    points: int = 0
    files: int = 0
    size: int = 0
    models: int = 0
    versions: int = 0
    problems: list[str] = field(default_factory=list)
    passed: dict[str, int] = field(default_factory=dict)
