"""A project whose commits go through the installed hooks, with `gittrack` on the PATH as a person has it."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gittrack
from gittrack.hooks import install
from gittrack.store.repo import Repo
from gittrack.track import links
from gittrack.track.runs import Tracker
from gittrack.types import ObjectId
from tests.cli.conftest import cli, open_tracker, own_trackers  # noqa: F401 - fixtures
from tests.conftest import MakeRepo, Sandbox

if sys.platform == "win32":
    pytest.skip("the hooks' scripts are for a shell", allow_module_level=True)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a `gittrack` program, first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    path = folder / "gittrack"
    source = Path(gittrack.__file__).parents[1]
    path.write_text(
        f'#!/bin/sh\nPYTHONPATH="{source}" exec "{sys.executable}"'
        " -c 'from gittrack.cli import start; start()' \"$@\"\n"
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def without_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with what scripts need, and no gittrack."""
    folder = tmp_path / "plain-bin"
    folder.mkdir()
    for name in ("sh", "git", "cat", "grep", "dirname", "sed", "ls", "rm", "env"):
        found = shutil.which(name)
        if found is not None:
            (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    assert shutil.which("gittrack") is None


@pytest.fixture
def project(make_repo: MakeRepo, program: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A repository with a store and all hooks, as the current folder."""
    sandbox = make_repo("ordinary")
    Repo.find(sandbox.path, create=True)
    install.install(sandbox.paths)
    monkeypatch.chdir(sandbox.path)
    return sandbox


Record = Callable[..., str]


@pytest.fixture
def record() -> Record:
    """``record(folder, acc=0.9)`` makes a finished run of what lies there; its id."""

    def make(folder: Path, name: str = "run", **metrics: float) -> str:
        tracker = open_tracker(folder)
        run = tracker.create_run(name=name)
        for key, value in metrics.items():
            run.log_metric(key, value)
        tracker.flush()  # the code is captured before it changes
        run.end()
        tracker.close()
        return run.run_id

    return make


def reader(sandbox: Sandbox) -> Tracker:
    """A tracker that sees what is there now."""
    return Tracker(Repo.find(sandbox.path), strict=True)


def tags_of(sandbox: Sandbox, run_id: str) -> dict[str, str]:
    """The links of a run: commit to reason."""
    tracker = reader(sandbox)
    try:
        tags = tracker.get_run(run_id).data.tags
    finally:
        tracker.repo.close()
    return {key[len(links.LINK_TAG) :]: value for key, value in tags.items() if key.startswith(links.LINK_TAG)}


def runs_of(sandbox: Sandbox, rev: str = "HEAD") -> list[tuple[str, str]]:
    """(run id, how) of the runs of a commit."""
    tracker = reader(sandbox)
    try:
        found = links.runs_of(tracker, ObjectId(sandbox.git("rev-parse", rev)))
    finally:
        tracker.repo.close()
    return [(one.run.info.run_id, one.how) for one in found]


def note_of(sandbox: Sandbox, rev: str = "HEAD") -> str:
    """What `git log --notes=gittrack` shows below a commit."""
    return sandbox.git("log", "-1", "--notes=gittrack", "--format=%N", rev).strip()
