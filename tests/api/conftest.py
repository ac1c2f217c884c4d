"""A git repository to train in, and an API that has forgotten the test before."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gittrack import fluent, session, stores

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *args: str) -> str:
    """What git prints for a command in ``folder``."""
    done = subprocess.run(["git", *args], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def make_project(folder: Path) -> Path:
    """A repository of one commit with one file."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    for key, value in (("user.name", "Ana"), ("user.email", "ana@example.org")):
        git(folder, "config", key, value)
    (folder / "train.py").write_text("print('training')\n", encoding="utf-8")
    git(folder, "add", "train.py")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def _forget() -> None:
    """Put the API's per-process state back to that of a new process."""
    while fluent._thread.stack:
        fluent.end_run()
    fluent._thread.last = None
    session.models.active, session.models.last = "", None
    fluent._process.__init__()  # type: ignore[misc]  # the attributes' first values are exactly what is wanted
    stores._process.uri = None
    stores._process.trackers.clear()
    for tracker in {*session._trackers.values(), *session._adopted}:
        tracker.close()
    session._trackers.clear()
    session._adopted.clear()
    for name in [name for name in os.environ if name.startswith(("GITTRACK_", "MLFLOW_"))]:
        del os.environ[name]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh repository that is the current folder."""
    folder = make_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    _forget()
    yield folder
    _forget()


@pytest.fixture
def python(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program's text in the project, in a process of its own; raises if it fails and ``check`` is left on."""

    def run(text: str, *, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", text],
            cwd=project,
            env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg", **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check and done.returncode:
            raise AssertionError(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    return run
