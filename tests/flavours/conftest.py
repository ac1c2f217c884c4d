"""Data to train on, and a model's folder loaded by the real MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

#: Loads a folder as MLflow does and prints its predictions: in a process of its own, which knows nothing of gittrack.
_MLFLOW = """
import json, sys, numpy as np, pandas as pd, mlflow
folder, rows, table = sys.argv[1], np.array(json.loads(sys.argv[2]), dtype=sys.argv[4]), sys.argv[3] == "table"
data = pd.DataFrame(rows, columns=[f"f{i}" for i in range(rows.shape[1])]) if table else rows
found = mlflow.pyfunc.load_model(folder).predict(data)
if isinstance(found, dict):
    found = next(iter(found.values()))
print("ANSWER" + json.dumps(np.asarray(found, dtype=float).reshape(len(rows), -1).tolist()))
"""


@pytest.fixture(scope="session")
def rows() -> Any:
    """The 150 irises: four numbers each."""
    from sklearn.datasets import load_iris

    return load_iris().data.astype("float32")


@pytest.fixture(scope="session")
def labels() -> Any:
    """Their kinds, 0 to 2."""
    from sklearn.datasets import load_iris

    return load_iris().target


@pytest.fixture(scope="session")
def table(rows: Any) -> Any:
    """The irises as a DataFrame."""
    import pandas as pd

    return pd.DataFrame(rows, columns=[f"f{number}" for number in range(4)])


Mlflow = Callable[..., Any]


@pytest.fixture
def mlflow_predicts() -> Mlflow:
    """``mlflow_predicts(folder, rows)``: what the real MLflow says; skips where it is not installed."""

    def predict(folder: Path, rows: Any, *, table: bool = True) -> Any:
        pytest.importorskip("mlflow", reason="compares with the real MLflow")
        words = [sys.executable, "-c", _MLFLOW, str(folder), json.dumps(np.asarray(rows).tolist())]
        words += ["table" if table else "array", str(np.asarray(rows).dtype)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return np.array(json.loads(done.stdout.rpartition("ANSWER")[2]))

    return predict


def matrix(found: Any) -> Any:
    """Predictions as one row of floats for each row."""
    if isinstance(found, dict):
        found = next(iter(found.values()))
    values = np.asarray(found, dtype=float)
    return values.reshape(len(values), -1)
