"""Runs that travel with `git push`, and after a commit."""

import subprocess
import time
from pathlib import Path

import pytest

from gittrack.hooks.install import BEFORE
from tests.conftest import Sandbox
from tests.hooks.conftest import Record


@pytest.fixture
def shared(project: Sandbox, tmp_path: Path) -> Path:
    """The bare repository that is the project's origin, with main in it."""
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(origin)], check=True)
    project.git("remote", "add", "origin", str(origin))
    project.git("push", "--quiet", "--set-upstream", "origin", "main")
    return origin


def runs_at(origin: Path) -> int:
    """How many runs the ledgers of a repository have."""
    sandbox = Sandbox(origin, "bare")
    ledgers = sandbox.git("for-each-ref", "--format=%(refname)", "refs/runs/").splitlines()
    return sum(sandbox.git("ls-tree", "-r", ref).count(" commit ") for ref in ledgers)


def push(sandbox: Sandbox, *options: str, ok: bool = True) -> str:
    done = subprocess.run(
        ["git", "push", *options], cwd=sandbox.path, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.returncode == 0) is ok, done.stderr
    return done.stderr


def test_runs_go_with_their_commits_when_that_is_asked_for(project: Sandbox, shared: Path, record: Record) -> None:
    project.write("train.py", "print('better')\n")
    record(project.path, acc=0.9)
    project.git("commit", "--quiet", "--all", "-m", "better")
    push(project)
    assert runs_at(shared) == 0
    project.git("checkout", "--quiet", "-b", "topic")
    project.write("train.py", "print('better still')\n")
    project.git("commit", "--quiet", "--all", "-m", "better still")
    project.git("config", "gittrack.pushRuns", "true")
    assert "pushed" not in push(project, "origin", "HEAD:refs/heads/early")  # no run of this commit yet
    assert runs_at(shared) == 0
    project.git("commit", "--quiet", "--allow-empty", "-m", "tried")
    record(project.path, acc=0.95)
    assert "pushed 1 run to origin" in push(project, "origin", "topic")  # that of the commit before was not asked for
    assert runs_at(shared) == 1
    assert "pushed" not in push(project, "origin", "--delete", "topic")
    assert Sandbox(shared, "bare").git("fsck", "--strict") == ""


def test_a_push_does_not_fail_because_of_runs(project: Sandbox, shared: Path, record: Record) -> None:
    project.git("config", "gittrack.pushRuns", "true")
    update = shared / "hooks" / "update"
    update.write_text('#!/bin/sh\ncase "$1" in refs/runs/*) exit 1;; esac\n')
    update.chmod(0o755)
    project.write("train.py", "print('better')\n")
    project.git("commit", "--quiet", "--all", "-m", "better")
    record(project.path, acc=0.9)
    said = push(project)
    assert "the pre-push hook did nothing" in said
    assert Sandbox(shared, "bare").git("rev-parse", "main") == project.git("rev-parse", "main")
    project.git("commit", "--quiet", "--allow-empty", "-m", "to an address")
    assert "the pre-push hook did nothing" in push(project, str(shared), "main")  # a remote without a name


def test_an_existing_pre_push_hook_gets_what_git_says_and_decides(
    project: Sandbox, shared: Path, tmp_path: Path
) -> None:
    hook = project.write(f".git/hooks/pre-push{BEFORE}", f'#!/bin/sh\ncat > "{tmp_path}/told"\nexit 1\n')
    hook.chmod(0o755)
    project.git("commit", "--quiet", "--allow-empty", "-m", "x")
    push(project, ok=False)
    head = project.git("rev-parse", "HEAD")
    assert (tmp_path / "told").read_text().startswith(f"refs/heads/main {head} refs/heads/main ")
    hook.write_text("#!/bin/sh\nexit 0\n")
    push(project)


def test_a_push_in_the_background(project: Sandbox, shared: Path, record: Record) -> None:
    project.git("config", "gittrack.pushAfterCommit", "true")
    project.write("train.py", "print('better')\n")
    record(project.path, acc=0.9)
    project.git("commit", "--quiet", "--all", "-m", "better")
    deadline = time.monotonic() + 60
    while runs_at(shared) == 0:
        assert time.monotonic() < deadline, (project.path / ".gittrack" / "push.log").read_text()
        time.sleep(0.1)
    assert runs_at(shared) == 1
