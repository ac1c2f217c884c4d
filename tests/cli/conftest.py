"""A project with known runs, and a way to run command lines and to compare what they print with files.

``UPDATE_SNAPSHOTS=1 pytest tests/cli`` writes the files anew; read the difference before you commit it.
"""

import hashlib
import io
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gittrack import session
from gittrack.cli import main
from gittrack.store.record import CODE, ENVIRONMENT
from gittrack.store.repo import Repo
from gittrack.track import runs as runs_module
from gittrack.track.capture import Capturer
from gittrack.track.runs import Tracker
from gittrack.types import Dataset, DatasetInput, InputTag
from tests.conftest import MakeRepo, Sandbox

SNAPSHOTS = Path(__file__).parent / "snapshots"
#: Milliseconds: 2026-01-02 03:04:05 UTC.
START = 1_767_323_045_000


@dataclass
class Answer:
    """What a command line did."""

    out: str
    err: str
    status: int


class _Stdout(io.TextIOWrapper):
    """A standard stream that can be read back."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def text(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


Cli = Callable[..., Answer]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``cli("log", "-n", "2")`` runs a command line in this process, in the current folder."""

    def run(*words: str, stdin: str = "") -> Answer:
        out, err, folder = _Stdout(), _Stdout(), Path.cwd()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            try:
                status = main.run(list(words))
            except SystemExit as left:
                status = int(left.code or 0)
            finally:
                os.chdir(folder)  # `-C` changes it
        return Answer(out.text(), err.text(), status)

    return run


@pytest.fixture(autouse=True)
def own_trackers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test starts like a new process: no tracker of an earlier one, times in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    before = dict(vars(session))
    yield
    for name, value in before.items():
        if name.startswith("_") and not name.startswith("__") and isinstance(value, dict):
            value.clear()


def stable_ids(patch: pytest.MonkeyPatch) -> None:
    """Run ids that are the same each time."""
    made = 0

    def token_hex(size: int) -> str:
        nonlocal made
        made += 1
        return hashlib.sha256(f"run {made}".encode()).hexdigest()[: 2 * size]

    patch.setattr(runs_module, "secrets", SimpleNamespace(token_hex=token_hex))


ENVIRONMENT_FACTS: dict[str, Any] = {
    "command": ["python", "train.py", "--lr", "0.1"],
    "directory": ".",
    "host": "laptop",
    "packages": {"numpy": "2.4.5", "scikit-learn": "1.9.1"},
    "python": {"version": "3.11.7", "implementation": "CPython"},
    "user": "ana",
}


def open_tracker(folder: Path, **facts: Any) -> Tracker:
    """A tracker of ``folder`` whose runs get the real code, and an environment that is the same everywhere."""
    capture = Capturer(argv=[], environ={}, cwd=folder, mode="full", max_untracked=1 << 20)

    def events(repo: Repo) -> list[list[Any]]:
        code = [event for event in capture(repo) if event[0] == CODE]
        return [*code, [ENVIRONMENT, {**ENVIRONMENT_FACTS, **facts}]]

    return Tracker(Repo.find(folder, create=True), capture=events, strict=True)


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the project is kept once a test has made it; a copy takes a tenth of the time."""
    return tmp_path_factory.mktemp("project") / "made"


@pytest.fixture
def project(make_repo: MakeRepo, finished_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A repository with five runs, as the current folder: alpha and beta of churn, a failed, a deleted, an odd one."""
    if finished_project.exists():
        project = Sandbox(tmp_path / "ordinary-1", "ordinary")
        shutil.copytree(finished_project, project.path, symlinks=True)
    else:
        project = make_repo("ordinary")
        with monkeypatch.context() as patch:
            stable_ids(patch)
            _record_runs(project)
        shutil.copytree(project.path, finished_project, symlinks=True)
    monkeypatch.chdir(project.path)
    return project


def _record_runs(git_repo: Sandbox) -> None:
    tracker = open_tracker(git_repo.path)
    churn = tracker.create_experiment("churn")

    alpha = tracker.create_run(churn, name="alpha", start_time=START, user_id="ana", tags={"team": "blue"})
    alpha.log_params({"lr": "0.1", "model": "svc", "seed": 1})
    for step in range(10):
        alpha.log_metric("acc", 1 - 1 / (step + 2), step, START + step)
        alpha.log_metric("loss", 1 / (step + 1), step, START + step)
    alpha.log_bytes(b"first line\nsecond\tline\n", "notes/a.txt")
    alpha.log_bytes(b"\x00\x01binary", "model.bin")
    dataset = Dataset("iris", "abc123", "code", "train.py")
    alpha.log_inputs([DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    tracker.flush()
    alpha.end(end_time=START + 12_300)

    git_repo.write("train.py", "print('train')\nprint('more')\n")
    git_repo.write("new.py", "NEW = 1\n")
    tracker = reopened(tracker, git_repo.path, packages={"numpy": "2.4.6", "scikit-learn": "1.9.1"})
    beta = tracker.create_run(churn, name="beta", start_time=START + 60_000, user_id="bo", parent_run_id=alpha.run_id)
    beta.log_params({"lr": "0.01", "model": "svc", "depth": 3})
    beta.log_metric("acc", 0.95, 0, START)
    beta.log_metric("précision", float("nan"), 0, START)
    beta.log_bytes(b"first line\nother line\n", "notes/a.txt")
    beta.set_tags({"mlflow.note.content": "# Better\n\nthan the first"})
    tracker.flush()
    beta.end(end_time=START + 60_000 + 4_000)

    gamma = tracker.create_run(name="gamma", start_time=START + 120_000, user_id="ana", capture=False)
    gamma.end("FAILED", end_time=START + 120_250)
    delta = tracker.create_run(churn, name="delta", start_time=START + 180_000, user_id="ana", capture=False)
    delta.end(end_time=START + 180_001)
    tracker.flush()
    tracker.delete_run(delta.run_id)
    odd = tracker.create_run(name="日本語 run", start_time=START + 240_000, user_id="ana", capture=False)
    odd.log_metric("acc", float("inf"), 0, START)
    odd.end(end_time=START + 7_440_000)
    tracker.close()


def reopened(tracker: Tracker, folder: Path, **facts: Any) -> Tracker:
    """Close ``tracker``; another one of the same folder, with other facts about the environment."""
    tracker.close()
    return open_tracker(folder, **facts)


Snapshot = Callable[[str, Answer], None]


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """``snapshot(name, answer)`` compares an answer with the file of that name."""

    def check(name: str, answer: Answer) -> None:
        parts = [steady(answer.out, tmp_path)]
        if answer.err:
            parts.append("--- stderr\n" + steady(answer.err, tmp_path))
        text = "".join(parts) + f"--- exit {answer.status}\n"
        file = SNAPSHOTS / f"{name}.txt"
        if os.environ.get("UPDATE_SNAPSHOTS"):
            SNAPSHOTS.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"no snapshot `{name}`: UPDATE_SNAPSHOTS=1 makes it"
        assert text == file.read_text(encoding="utf-8")

    return check


def steady(text: str, tmp_path: Path) -> str:
    """``text`` without what differs from one test run to the next: folders, commit ids, ages, durations."""
    text = text.replace(str(tmp_path), "<tmp>")
    text = re.sub(r"(Commit:     |\"commit\": \"|Code: +(?:commit )?|\"tree\": \")[0-9a-f]{8,64}", r"\1<commit>", text)
    text = re.sub(r"\d[\d,]* (second|minute|hour|day|week|month|year)s? ago", "<ago>", text)
    text = re.sub(r"in \d+(\.\d+)? m?s", "in <time>", text)
    text = re.sub(r"(\"(?:creation|last_update)_time\": )\d{13}", r"\1<time>", text)
    return re.sub(r"gittrack-bug-\w+", "gittrack-bug-<name>", text)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program as a file to run, first on the PATH, as an installed one would be."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("gittrack", "git-track"):
        file = folder / name
        root = Path(main.__file__).parents[2]
        file.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(root)!r})\n"
            "from gittrack.cli.main import main\nmain()\n"
        )
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "gittrack"
