"""Stock git-lfs lists, pushes and fetches a run's artifacts, and what it fetched are our objects."""

import shutil
from pathlib import Path

import pytest

from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from tests.conftest import Sandbox, run_git

pytestmark = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="git-lfs is not installed")


def use_our_objects(folder: Path) -> None:
    """Let git-lfs keep its objects where gittrack does.

    By configuration and not with `-c`, which the program that plays the remote would inherit; and only in a test, since
    `git lfs prune` would delete run artifacts.
    """
    run_git(folder, "config", "lfs.storage", "../.gittrack")


def test_git_lfs_lists_pushes_and_fetches_artifacts(git_repo: Sandbox, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    tracker = Tracker(Repo.find(git_repo.path, create=True), strict=True)
    run = tracker.create_run()
    run.log_bytes(content, "model/weights.bin")
    run.log_bytes(b"notes", "notes.txt")
    run.end()
    tracker.close()
    commit = tracker.get_run(run.run_id).commit
    assert commit is not None
    digest = tracker.repo.artifacts(run.run_id)["model/weights.bin"].digest

    listed = git_repo.git("lfs", "ls-files", "--long", commit).splitlines()
    assert [line.split(maxsplit=2)[2] for line in listed] == [
        ".gittrack/artifacts/model/weights.bin",
        ".gittrack/artifacts/notes.txt",
    ]
    assert listed[0].split()[0] == digest

    run_git(tmp_path, "init", "-q", "--bare", "remote.git")
    remote = tmp_path / "remote.git"
    git_repo.git("remote", "add", "lfsremote", remote.as_uri())
    use_our_objects(git_repo.path)
    git_repo.git("lfs", "push", "lfsremote", "--object-id", *(line.split()[0] for line in listed))
    git_repo.git("push", "-q", "lfsremote", "HEAD:refs/heads/main", "refs/runs/*:refs/runs/*")
    assert (remote / "lfs" / "objects" / digest[:2] / digest[2:4] / digest).read_bytes() == content
    assert run_git(remote, "fsck", "--strict", "--no-progress") == ""

    run_git(tmp_path, "clone", "-q", "--branch", "main", remote.as_uri(), "clone")
    clone = tmp_path / "clone"
    run_git(clone, "fetch", "-q", "origin", "refs/runs/*:refs/runs/*")
    use_our_objects(clone)
    run_git(clone, "lfs", "fetch", "origin", commit)
    reader = Tracker(Repo.find(clone, create=True))
    assert reader.get_run(run.run_id).info.status == "FINISHED"
    assert reader.read_artifact(run.run_id, "model/weights.bin") == content
