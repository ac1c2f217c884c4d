"""The same program under MLflow's autologging and under gittrack's: the same names, the same values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow", reason="compares with the real MLflow")
pytestmark = [pytest.mark.peer, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).with_name("parity_program.py")
#: Durations differ from run to run.
TIMES = ("mean_fit_time", "std_fit_time", "mean_score_time", "std_score_time")


def run_program(tracker: str, folder: Path) -> dict[str, list[dict[str, Any]]]:
    folder.mkdir()
    subprocess.run(["git", "init", "-q", folder], check=True)
    output = folder / "logged.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, PROGRAM, tracker, output], check=True, cwd=folder, env=environment)
    logged: dict[str, list[dict[str, Any]]] = json.loads(output.read_text(encoding="utf-8"))
    return logged


def comparable(runs: list[dict[str, Any]]) -> list[Any]:
    """What must be equal, parents first; children by their parameters, since several may have the same rank."""
    told = []
    for run in runs:
        tags = {key: run["tags"].get(key) for key in ("estimator_name", "estimator_class", "mlflow.autologging")}
        metrics = {key: 0.0 if key in TIMES else value for key, value in run["metrics"].items()}
        told.append(("mlflow.parentRunId" in run["tags"], run["params"], metrics, {**run, "tags": tags, "metrics": {}}))
    return sorted(told, key=lambda one: (one[0], sorted(one[1].items())))


def test_parity(tmp_path: Path) -> None:
    theirs = run_program("mlflow", tmp_path / "theirs")
    ours = run_program("gittrack", tmp_path / "ours")
    # When a training fails, MLflow's parameters may or may not have been written.  Ours are.
    assert [run["status"] for run in theirs.pop("failing")] == ["FAILED"]
    [failed] = ours.pop("failing")
    assert (failed["status"], failed["params"]["n_estimators"]) == ("FAILED", "-3")
    assert theirs.keys() == ours.keys()
    for case in theirs:
        expected, found = comparable(theirs[case]), comparable(ours[case])
        assert len(found) == len(expected), case
        for their_run, our_run in zip(expected, found, strict=True):
            assert our_run[2] == pytest.approx(their_run[2], rel=1e-9), case
            assert [*our_run[:2], our_run[3]] == [*their_run[:2], their_run[3]], case
