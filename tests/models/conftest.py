"""A repository to log models into, and models of many kinds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gittrack
from gittrack import stores


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A git repository that is the current folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", folder], check=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(stores, "_process", stores._Process())
    yield folder
    while gittrack.active_run():
        gittrack.end_run()
    stores.tracker().close()


@pytest.fixture(scope="session")
def iris() -> tuple[Any, Any]:
    """Rows and labels, as a DataFrame and a Series."""
    from sklearn.datasets import load_iris

    rows, labels = load_iris(return_X_y=True, as_frame=True)
    return rows, labels


Load = Callable[..., "subprocess.CompletedProcess[str]"]

_PROGRAM = """
import sys
from gittrack.errors import GittrackError
{before}
try:
    import gittrack.models.pyfunc as pyfunc
    model = pyfunc.load_model(sys.argv[1])
    import numpy as np, warnings
    warnings.simplefilter("ignore")
    for rows in ({rows}):
        model.predict(rows)
    print("LOADED")
except GittrackError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a model folder in a process of its own and predict; what it says."""

    def run(folder: Path, rows: str = "np.zeros((3, 4)),", before: str = "") -> subprocess.CompletedProcess[str]:
        program = tmp_path / "load.py"
        program.write_text(_PROGRAM.format(rows=rows, before=before), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        return subprocess.run(
            [sys.executable, program, folder], capture_output=True, text=True, env=environment, check=False, timeout=120
        )

    return run


def equal(a: Any, b: Any) -> bool:
    """The same predictions."""
    a, b = np.asarray(a), np.asarray(b)
    return bool(a.shape == b.shape and (np.allclose(a, b) if a.dtype.kind == "f" else (a == b).all()))
