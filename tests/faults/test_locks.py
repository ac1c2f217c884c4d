"""Locks that somebody left behind, and locks that somebody still holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.harness import Project, git
from tests.faults.zygote import Fault, Zygote

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]


def _ledger(project: Project) -> str:
    return git(project.folder, "for-each-ref", "--format=%(refname)", "refs/runs").split()[0]


@pytest.mark.parametrize("content", [b"", b"0" * 40 + b"\n"], ids=["empty", "written"])
@pytest.mark.parametrize("name", ["{ledger}.lock", "packed-refs.lock"])
def test_stale_lock_of_git_is_removed(project: Project, name: str, content: bytes) -> None:
    path = project.folder / ".git" / name.format(ledger=_ledger(project))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - 3600,) * 2)
    project.verify(f"a stale `{name}`")


def test_lock_that_git_holds_is_waited_for(project: Project, zygote: Zygote) -> None:
    """A fresh lock on the ledger is somebody's at work: nothing of it is touched, and the run gets through later."""
    path = project.folder / ".git" / f"{_ledger(project)}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"at work")
    outcome = zygote.run("end_at_once", folder=str(project.folder))
    project.learn(outcome, 0)
    assert path.read_bytes() == b"at work"
    path.unlink()
    project.verify("a lock that was held")


_HOLDER = """
import signal, sys
from pathlib import Path
from gittrack.store.repo import Repo
with Repo.find(Path(sys.argv[1])).seal_lock():
    print("held", flush=True)
    signal.pause()
"""


def test_ending_beside_a_sealer_that_hangs(project: Project, zygote: Zygote) -> None:
    """Another process sits on the seal lock: a run ends at once all the same, and is sealed later."""
    root = Path(__file__).parents[2]
    started = time.monotonic()
    project.learn(zygote.run("end_at_once", folder=str(project.folder)), 0)
    alone = time.monotonic() - started
    command = [sys.executable, "-c", _HOLDER, str(project.folder)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            started = time.monotonic()
            outcome = zygote.run("end_at_once", folder=str(project.folder))
            assert time.monotonic() - started < 2.0 + 3 * alone  # a busy machine takes longer, with or without
        finally:
            holder.kill()
    project.learn(outcome, 0)
    project.verify("a sealer that hung")


@pytest.mark.parametrize("operation", ["end", "collect"])
def test_killed_holder_of_the_seal_lock(project: Project, tracing: Zygote, operation: str) -> None:
    outcome = tracing.run(operation, folder=str(project.folder), fault=Fault(1, "kill", calls=("fsync", "unlink")))
    assert outcome.status == -signal.SIGKILL
    project.learn(outcome)
    project.verify(f"`{operation}` killed at {outcome.hit}")


def test_foreign_files_are_left_alone(project: Project) -> None:
    """What is not gittrack's is not cleaned up: the user's own lock, and files next to ours."""
    theirs: list[Path] = [
        project.folder / ".git" / "refs" / "heads" / "topic.lock",
        project.folder / ".git" / "mine.lock",
    ]
    for path in theirs:
        path.write_bytes(b"mine")
        os.utime(path, (time.time() - 3600,) * 2)
    for step in ("go_on", "problems"):
        assert project.zygote.run(step, folder=str(project.folder)).status == 0
    assert all(path.read_bytes() == b"mine" for path in theirs)


def test_pins_of_code_states_go(project: Project, zygote: Zygote) -> None:
    """What keeps a captured code state alive until its runs are sealed does not stay for ever."""
    assert git(project.folder, "for-each-ref", "refs/gittrack/live")
    project.age(".git/refs/gittrack/live/*")
    assert zygote.run("edit", folder=str(project.folder), run_id=project.runs()[0]).status == 0
    assert not git(project.folder, "for-each-ref", "refs/gittrack/live")
