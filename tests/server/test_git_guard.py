"""git and git-lfs behind the guard, with tokens of real accounts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from gittrack.server.hub import git, lfs
from gittrack.server.hub.app import App, Hub, Options
from gittrack.server.hub.projects import Projects
from gittrack.server.hub.roles import Grant, Role
from gittrack.track.runs import Tracker
from tests.conftest import Sandbox, run_git
from tests.server.backend import open_repo
from tests.server.guarded import Guarded, listening, options
from tests.sync.conftest import Desk, closed_desks, hub  # noqa: F401 - fixtures


def test_a_token_is_the_password(hub: Sandbox, tmp_path: Path, sealed_environment: Path) -> None:  # noqa: F811
    tracker = Tracker(open_repo(hub.path), strict=True)
    projects = Projects(tracker.repo, tracker.flush)
    routes = (*git.GitRemote(projects).routes(), *lfs.LfsServer(projects).routes())
    guarded = Guarded(tmp_path / "accounts", options(), App(Hub(tracker, Options()), routes))
    tokens = {"writes": guarded.token("ana"), "reads": guarded.token("bo", (Grant(Role.READER, "*", "*"),))}
    with listening(guarded.guard) as port:
        url = f"http://127.0.0.1:{port}/git/default"
        told = subprocess.run(["git", "ls-remote", url], capture_output=True, check=False, cwd=tmp_path)
        assert b"could not read Username" in told.stderr, "git was asked who it is"
        store = sealed_environment / "credentials"
        run_git(tmp_path, "config", "--global", "credential.helper", f"store --file={store}")
        store.write_text(f"http://any:{tokens['writes']}@127.0.0.1:{port}\n")
        run_git(tmp_path, "clone", "--quiet", url, "ana")
        ana = Desk(Sandbox(tmp_path / "ana", "ordinary"))
        ana.run("of ana", files={"x.bin": os.urandom(200_000)})
        assert ana.push().files == 1
        ana.sandbox.write("large.bin", os.urandom(3 << 20))
        if shutil.which("git-lfs"):
            ana.sandbox.git("lfs", "install", "--local")
            ana.sandbox.git("lfs", "track", "*.bin")
        ana.sandbox.commit("large")
        ana.sandbox.git("push", "--quiet", "origin", "HEAD:large")
        assert len(list(tracker.repo.objects.iter_digests())) == 1 + (shutil.which("git-lfs") is not None)
        store.write_text(f"http://any:{tokens['reads']}@127.0.0.1:{port}\n")
        run_git(tmp_path, "-c", "filter.lfs.smudge=cat", "clone", "--quiet", url, "bo")
        done = subprocess.run(
            ["git", "push", "origin", "HEAD:more"], cwd=tmp_path / "bo", capture_output=True, check=False
        )
        assert b"role of a writer" in done.stderr
        assert b"403" in done.stderr
