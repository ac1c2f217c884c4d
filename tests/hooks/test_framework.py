"""Our hooks under the real pre-commit framework (https://pre-commit.com), from a repository that carries them."""

import subprocess
import sys
from pathlib import Path

import pytest

import gittrack
from gittrack.hooks import framework, install
from gittrack.store.repo import Repo
from tests.conftest import MakeRepo, Sandbox
from tests.hooks.conftest import Record, runs_of, tags_of
from tests.hooks.test_pushes import runs_at, shared  # noqa: F401 - a fixture

pytest.importorskip("pre_commit", reason="the pre-commit framework is not installed")

MANIFEST = Path(gittrack.__file__).parents[1] / ".pre-commit-hooks.yaml"
#: `language` would be python, in an environment made from the network; with it `gittrack` on the PATH is taken.
CONFIG = """\
default_install_hook_types: [pre-commit, prepare-commit-msg, post-commit, post-rewrite, pre-push]
repos:
  - repo: file://{origin}
    rev: {rev}
    hooks:
      - {{id: gittrack, language: system}}
      - {{id: gittrack-commit-trailer, language: system}}
      - {{id: gittrack-post-commit, language: system, verbose: true}}
      - {{id: gittrack-post-rewrite, language: system, verbose: true}}
      - {{id: gittrack-pre-push, language: system, verbose: true}}
"""


@pytest.fixture
def project(make_repo: MakeRepo, program: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sandbox:
    """A repository whose hooks are the framework's, as the current folder."""
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "framework"))
    monkeypatch.setenv("PRE_COMMIT_COLOR", "never")
    monkeypatch.setenv("SETUPTOOLS_USE_DISTUTILS", "stdlib")
    carrier = make_repo("unborn")
    carrier.write(".pre-commit-hooks.yaml", MANIFEST.read_text())
    carrier.git("add", "--all")
    carrier.git("commit", "--quiet", "-m", "hooks")
    sandbox = make_repo("ordinary")
    Repo.find(sandbox.path, create=True)
    sandbox.write(".pre-commit-config.yaml", CONFIG.format(origin=carrier.path, rev=carrier.git("rev-parse", "HEAD")))
    sandbox.git("add", "--all")
    monkeypatch.chdir(sandbox.path)
    subprocess.run([sys.executable, "-m", "pre_commit", "install"], check=True, capture_output=True)
    sandbox.git("commit", "--quiet", "--no-verify", "-m", "the framework")
    return sandbox


def commit(*options: str) -> tuple[int, str]:
    return git("commit", *options)


def git(*words: str) -> tuple[int, str]:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_every_stage_of_a_commit_and_a_push(project: Sandbox, shared: Path, record: Record) -> None:  # noqa: F811
    project.git("config", "gittrack.commitTrailer", "true")
    project.git("config", "gittrack.pushRuns", "true")
    project.write("big.bin", b"\0" * (10 * 2**20 + 1))
    project.git("add", "big.bin")
    status, said = commit("-m", "big")
    assert status == 1
    assert "`big.bin (10 MiB)` would be committed" in said
    project.git("rm", "--quiet", "--cached", "big.bin")
    project.write("train.py", "print('better')\n")
    run = record(project.path, acc=0.9)
    status, said = commit("-am", "better")
    assert status == 0, said
    head = project.git("rev-parse", "HEAD")
    assert tags_of(project, run) == {head: "same code"}
    assert project.git("log", "-1", "--format=%(trailers:key=Gittrack-Run,valueonly)").strip() == run
    status, said = git("push", "origin", "main")
    assert status == 0, said
    assert "pushed 1 run to origin" in said
    assert runs_at(shared) == 1
    found = install.install(project.paths)  # and ours leave the framework's hooks alone
    assert {one.what for one in found} == {"refused"}
    assert "pre-commit framework" in found[0].note


def test_links_follow_amend_and_rebase(project: Sandbox, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework tells its hooks nothing about what was rewritten: git does."""
    project.write("train.py", "print(1)\n")
    run = record(project.path, acc=0.9)
    commit("-am", "step 1")
    first = project.git("rev-parse", "HEAD")
    project.write("train.py", "print('with a fix')\n")
    status, said = commit("-a", "--amend", "--no-edit")
    assert status == 0, said
    assert "1 run followed the rewritten commits" in said
    amended = project.git("rev-parse", "HEAD")
    assert tags_of(project, run) == {first: "same code", amended: f"was {first}"}
    project.write("train.py", "print(2)\n")
    commit("-am", "step 2")
    monkeypatch.setenv("GIT_SEQUENCE_EDITOR", "sed -i 2s/pick/fixup/")
    project.git("rebase", "--quiet", "-i", "HEAD~2")
    assert project.git("log", "-2", "--format=%s").splitlines() == ["step 1", "the framework"]
    assert runs_of(project) == [(run, "earlier")]


def test_where_all_of_the_history_is_new_a_push_is_known_by_its_branch(
    project: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = project.git("rev-parse", "HEAD")
    monkeypatch.setenv("PRE_COMMIT", "1")
    monkeypatch.setenv("PRE_COMMIT_REMOTE_NAME", "origin")
    monkeypatch.setenv("PRE_COMMIT_REMOTE_URL", "/nowhere")
    monkeypatch.setenv("PRE_COMMIT_LOCAL_BRANCH", "refs/heads/main")
    monkeypatch.setenv("PRE_COMMIT_REMOTE_BRANCH", "refs/heads/other")
    assert framework.arguments("pre-push", []) == ["origin", "/nowhere"]
    assert framework.pushed(project.paths) == f"refs/heads/main {head} refs/heads/other {'0' * 40}\n"
    monkeypatch.setenv("PRE_COMMIT_LOCAL_BRANCH", "--output=x")
    assert framework.pushed(project.paths) == ""
    monkeypatch.setenv("PRE_COMMIT_REWRITE_COMMAND", "amend")
    assert framework.rewritten(project.paths) == ""  # the last thing that happened is a commit
    monkeypatch.delenv("PRE_COMMIT")
    assert framework.arguments("pre-push", ["origin", "/x"]) == ["origin", "/x"]
    assert framework.pushed(project.paths) == ""
