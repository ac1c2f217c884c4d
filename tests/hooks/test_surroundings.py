"""Hooks where git is started by other programs, in odd places and in every way that makes commits."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gittrack.hooks import install
from gittrack.store.repo import Repo
from tests.cli.conftest import Cli
from tests.conftest import MakeRepo, Sandbox
from tests.hooks.conftest import Record, runs_of, tags_of
from tests.hooks.test_commits import commit


def git(sandbox: Sandbox, *words: str, env: dict[str, str] | None = None) -> str:
    """git, as it is started by hand; what it and the hooks said."""
    done = subprocess.run(["git", *words], cwd=sandbox.path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


# --- other programs


def test_a_desktop_client_without_the_path_of_a_shell_finds_the_program(
    project: Sandbox, program: Path, record: Record, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("hooks", "install").status == 0
    project.write("train.py", "print('better')\n")
    run = record(project.path, acc=0.9)
    bare = {"PATH": os.defpath, "HOME": os.environ["HOME"]}
    assert "linked 1 run" in git(project, "commit", "-am", "better", env=bare)
    assert list(tags_of(project, run).values()) == ["same code"]
    monkeypatch.setenv("PATH", os.defpath)
    assert cli("hooks", "status", "--json").out.count(f'"program": "{program}/gittrack"') == 1
    # the environment that it was installed in is removed: nothing stops, nothing is said
    shutil.rmtree(program)
    project.write("train.py", "print('more')\n")
    assert git(project, "commit", "-qam", "more", env=bare) == ""
    assert "remembers where it is" in cli("hooks", "status").err
    assert cli("hooks", "uninstall").status == 0
    assert subprocess.run(["git", "config", install.PROGRAM], capture_output=True, check=False).returncode == 1


def test_an_empty_environment(project: Sandbox) -> None:
    """No HOME, no PATH, no LANG: what some editors start git with."""
    project.git("config", "user.name", "Ana")
    project.git("config", "user.email", "ana@example.org")
    project.write("train.py", "print('better')\n")
    found = shutil.which("git")
    assert found is not None
    done = subprocess.run(
        [found, "commit", "-qam", "better"], cwd=project.path, env={}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "text", ["#!/no/such/python\n", f"#!{sys.executable}\nimport no_such_module\n", f"#!{sys.executable} -S\nprint(\n"]
)
def test_a_python_that_is_gone_or_broken(project: Sandbox, program: Path, text: str) -> None:
    (program / "gittrack").write_text(text)
    project.git("config", "gittrack.commitTrailer", "true")
    project.write("train.py", "print('better')\n")
    commit(project, "-qam", "better")
    commit(project, "-qam", "amended", "--amend", "--allow-empty")
    assert project.git("log", "-1", "--format=%s") == "amended"


# --- odd places


@pytest.mark.parametrize("name", ['наука \'и "$HOME" `x`\nthe next line', "-dash"])
def test_folders_of_any_name(
    make_repo: MakeRepo, program: Path, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "odd" / name
    folder.parent.mkdir()
    make_repo("ordinary").path.rename(folder)
    sandbox = Sandbox(folder, "ordinary")
    Repo.find(folder, create=True)
    install.install(sandbox.paths)
    monkeypatch.chdir(folder)
    sandbox.write("train.py", "print('better')\n")
    run = record(folder, acc=0.9)
    commit(sandbox, "-am", "better")
    assert list(tags_of(sandbox, run).values()) == ["same code"]
    sandbox.write("big one.bin", b"\0" * (10 * 2**20 + 1))
    sandbox.git("add", "--all")
    assert "big one.bin" in commit(sandbox, "-m", "big", ok=False)


def test_from_a_folder_below_and_with_git_told_where_it_is(project: Sandbox, record: Record) -> None:
    project.write("src/deep/model.py", "x = 1\n")
    project.git("add", "--all")
    run = record(project.path, acc=0.9)
    below = Sandbox(project.path / "src" / "deep", "below")
    git(below, "commit", "-qm", "from below")
    assert runs_of(project)[0] == (run, "exact")
    project.write("src/deep/model.py", "x = 2\n")
    run = record(project.path, acc=0.8)
    env = {**os.environ, "GIT_DIR": f"{project.path}/.git", "GIT_WORK_TREE": str(project.path)}
    elsewhere = Sandbox(project.path.parent, "elsewhere")
    git(elsewhere, "commit", "-qam", "told where", env=env)
    assert list(tags_of(project, run).values()) == ["same code"]


def test_a_submodule_has_hooks_and_runs_of_its_own(project: Sandbox, make_repo: MakeRepo, record: Record) -> None:
    project.git("submodule", "add", "--quiet", str(make_repo("ordinary").path), "sub")
    sub = Sandbox(project.path / "sub", "submodule")
    Repo.find(sub.path, create=True)
    install.install(sub.paths)
    sub.write("train.py", "print('better')\n")
    run = record(sub.path, acc=0.9)
    git(sub, "commit", "-qam", "better")
    assert list(tags_of(sub, run).values()) == ["same code"]
    git(project, "commit", "-qam", "the submodule moves")
    assert runs_of(project) == []


def test_a_push_from_a_bare_repository(project: Sandbox, tmp_path: Path) -> None:
    git(project, "clone", "--quiet", "--bare", ".", str(tmp_path / "mirror.git"))
    mirror = Sandbox(tmp_path / "mirror.git", "bare")
    hook = mirror.path / "hooks" / "pre-push"  # nobody installs it there; a template may
    hook.parent.mkdir(exist_ok=True)
    hook.write_bytes(install.script("pre-push"))
    hook.chmod(0o755)
    mirror.git("config", "gittrack.pushRuns", "true")
    subprocess.run(["git", "init", "--quiet", "--bare", str(tmp_path / "target.git")], check=True)
    git(mirror, "push", "--quiet", str(tmp_path / "target.git"), "main")


# --- every way that makes commits


def test_a_commit_without_its_checks_is_linked_all_the_same(project: Sandbox, record: Record) -> None:
    project.write("big.bin", b"\0" * (10 * 2**20 + 1))
    project.git("add", "big.bin")
    run = record(project.path, acc=0.9)
    commit(project, "--no-verify", "-m", "on purpose")
    assert list(tags_of(project, run).values()) == ["same code"]


def test_a_cherry_pick_and_a_revert(project: Sandbox, record: Record) -> None:
    start = record(project.path, name="start", acc=0.1)
    project.git("checkout", "--quiet", "-b", "topic")
    project.write("train.py", "print('better')\n")
    commit(project, "-am", "better")
    run = record(project.path, acc=0.9)
    project.git("checkout", "--quiet", "main")
    git(project, "cherry-pick", "topic")
    assert runs_of(project) == [(run, "exact")]
    git(project, "revert", "--no-edit", "HEAD")
    assert runs_of(project) == [(start, "exact")]


TODO = """\
#!/bin/sh
take() { sed -n "s/^pick \\(.*\\) $2\\$/$1 \\1 $2/p" "$file"; }
file=$1.given
cp "$1" "$file"
{ take pick one; take fixup two; take pick five; take reword four; } > "$1"
"""


def test_an_interactive_rebase(
    project: Sandbox, record: Record, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One is joined by two, three is dropped, four comes behind five and gets another message."""
    runs = {}
    for name in ("one", "two", "three", "four", "five"):
        project.write(f"{name}.py", f"print('{name}')\n")
        project.git("add", "--all")
        commit(project, "-m", name)
        runs[record(project.path, name=name, acc=0.5)] = name
    editor = tmp_path / "todo"
    editor.write_text(TODO)
    editor.chmod(0o755)
    monkeypatch.setenv("GIT_SEQUENCE_EDITOR", str(editor))
    monkeypatch.setenv("GIT_EDITOR", "sed -i '1s/$/ again/'")
    assert "the post-rewrite hook" not in git(project, "rebase", "-i", "HEAD~5")
    found = {project.git("log", "-1", "--format=%s", at): sorted(runs[run] for run, _ in runs_of(project, at))
             for at in ("HEAD", "HEAD~1", "HEAD~2")}  # fmt: skip
    assert found == {"four again": ["four"], "five": ["five"], "one": ["one", "two"]}


# --- hooks that were there before


def before(sandbox: Sandbox, name: str, text: str, mode: int = 0o755) -> Path:
    """A hook of the person's own, and gittrack's beside it."""
    hook = sandbox.path / ".git" / "hooks" / name
    hook.unlink()
    hook.write_text(text)
    hook.chmod(mode)
    install.install(sandbox.paths)
    return hook


def test_a_hook_that_git_would_not_run_is_not_run(project: Sandbox) -> None:
    hook = before(project, "pre-commit", "#!/bin/sh\nexit 1\n", 0o644)
    commit(project, "--allow-empty", "-m", "fine")
    install.uninstall(project.paths)
    assert hook.stat().st_mode & 0o777 == 0o644


def test_a_slow_or_failing_hook_after_the_commit_is_as_before(project: Sandbox, record: Record, tmp_path: Path) -> None:
    before(project, "post-commit", f"#!/bin/sh\nsleep 1\necho mine > '{tmp_path}/log'\nexit 1\n")
    before(project, "post-rewrite", f"#!/bin/sh\necho \"$1\" > '{tmp_path}/rewritten'; cat >> '{tmp_path}/rewritten'\n")
    project.write("train.py", "print('better')\n")
    run = record(project.path, acc=0.9)
    commit(project, "-am", "better")
    old = project.git("rev-parse", "HEAD")
    assert (tmp_path / "log").read_text() == "mine\n"
    assert list(tags_of(project, run)) == [old]
    commit(project, "--amend", "-m", "amended")
    new = project.git("rev-parse", "HEAD")
    assert (tmp_path / "rewritten").read_text() == f"amend\n{old} {new}\n"


def test_a_hook_that_changes_what_is_committed(project: Sandbox, record: Record) -> None:
    """A formatter: what it stages is what is looked at."""
    project.write("train.py", "print('formatted')\n")
    run = record(project.path, acc=0.9)
    project.write("train.py", "print( 'formatted' )\n")
    before(project, "pre-commit", "#!/bin/sh\nprintf '%s\\n' \"print('formatted')\" > train.py\ngit add train.py\n")
    project.git("add", "train.py")
    commit(project, "-m", "formatted on the way")
    assert list(tags_of(project, run).values()) == ["same code"]
