"""Asks MLflow, in an interpreter that has it, to do the same work."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.benchmarks.measure import Figures, Settings

_SCRIPT = Path(__file__).with_name("mlflow_side.py")


def ask(settings: Settings, row: str, *, folder: Path | None = None, **arguments: Any) -> dict[str, list[float]] | None:
    """What ``mlflow_side.row(**arguments)`` measured in an empty folder; None without a peer."""
    if settings.peer is None:
        return None
    done = subprocess.run(
        [str(settings.peer), str(_SCRIPT), row, json.dumps(arguments)],
        cwd=folder or settings.folder(f"mlflow-{row}"),
        env={**settings.environment(), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        settings.say(f"MLflow failed at `{row}` with exit status {done.returncode}: {said[-1]}")
        return None
    answer: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def figures(answer: dict[str, list[float]] | None, name: str, unit: str) -> Figures | None:
    """One list of ``answer``, of seconds; for a rate, as things per second."""
    if answer is None:
        return None
    one = Figures(tuple(answer[name]), unit)
    return Figures(tuple(1 / value for value in answer[name]), unit) if one.rate else one
