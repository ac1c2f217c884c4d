"""Hooks under the real git: commit, amend, rebase, squash, merge, work trees, and what must not stop a commit."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gittrack
from gittrack.hooks import REFUSED, dispatch, install, notes, quick
from gittrack.hooks.install import BEFORE
from gittrack.store import gateway, record as record_module
from gittrack.store.repo import Repo
from gittrack.track import links
from gittrack.track.runs import Tracker
from tests.cli.conftest import Cli, open_tracker
from tests.conftest import MakeRepo, Sandbox, run_git
from tests.hooks.conftest import Record, note_of, reader, runs_of, tags_of

SOURCE = Path(gittrack.__file__).parents[1]
HEAVY = ("click", "dataclasses", "gittrack.store", "pathlib", "sqlite3", "subprocess")


def commit(sandbox: Sandbox, *options: str, ok: bool = True) -> str:
    """`git commit`; what it and the hooks said."""
    done = subprocess.run(["git", "commit", *options], cwd=sandbox.path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is ok, done.stderr
    return done.stdout + done.stderr


# --- post-commit: the run comes first, the commit after it


def test_a_run_of_uncommitted_changes_is_linked_to_the_commit_of_them(project: Sandbox, record: Record) -> None:
    project.write("train.py", "print('better')\n")
    run = record(project.path, acc=0.9)
    before = project.git("rev-list", "--all", "--glob=refs/runs/*").splitlines()
    said = commit(project, "-am", "better")
    head = project.git("rev-parse", "HEAD")
    assert "linked 1 run to this commit" in said
    assert tags_of(project, run) == {head: "same code"}
    assert runs_of(project) == [(run, "exact")]
    assert runs_of(project, "HEAD~1") == []  # its changes are committed: it is no run of the commit before
    # an event: nothing of the history was rewritten
    assert set(before) <= set(project.git("rev-list", "--all", "--glob=refs/runs/*").splitlines())
    assert note_of(project) == f"{run[:8]} run acc=0.9"
    assert project.git("fsck", "--strict") == ""


def test_other_changes_are_not_linked(project: Sandbox, record: Record) -> None:
    project.write("train.py", "print('better')\n")
    run = record(project.path, acc=0.9)
    project.write("train.py", "print('better still')\n")
    commit(project, "-am", "other")
    assert tags_of(project, run) == {}
    assert runs_of(project) == []
    assert runs_of(project, "HEAD~1") == [(run, "changed")]
    assert note_of(project, "HEAD~1") == f"{run[:8]} run (with changes) acc=0.9"


def test_new_files_beside_the_changes_do_not_count(project: Sandbox, record: Record) -> None:
    project.write("train.py", "print('better')\n")
    project.write("out/results.csv", "made,by,a,run\n")
    run = record(project.path, acc=0.9)
    commit(project, "-am", "better")
    assert tags_of(project, run) == {project.git("rev-parse", "HEAD"): "same code"}
    assert runs_of(project) == [(run, "beside")]
    assert note_of(project) == f"{run[:8]} run (with new files) acc=0.9"
    again = record(project.path, name="again", acc=0.9)
    assert runs_of(project) == [(again, "beside"), (run, "beside")]
    project.write("train.py", "print('better, and a part of what was new')\n")
    project.write("new.py", "x = 1\n")
    third = record(project.path, name="third", acc=0.8)
    project.git("add", "new.py", "train.py")
    commit(project, "-m", "with a new file")
    assert runs_of(project) == [(third, "beside")]
    project.write("train.py", "print('amended')\n")
    fourth = record(project.path, name="fourth", acc=0.7)
    commit(project, "-a", "--amend", "--no-edit")
    assert runs_of(project) == [(fourth, "beside"), (third, "earlier")]


def test_a_commit_of_a_part_is_linked_to_nothing(project: Sandbox, record: Record) -> None:
    project.write("train.py", "print('better')\n")
    project.write("README.md", "# Other\n")
    run = record(project.path, acc=0.9)
    commit(project, "-m", "a part", "train.py")  # git has an index of its own for that
    assert tags_of(project, run) == {}
    commit(project, "-am", "the rest")
    assert tags_of(project, run) == {project.git("rev-parse", "HEAD"): "same code"}


def test_a_run_after_its_commit_needs_no_link_and_has_a_note_at_the_next_commit(
    project: Sandbox, record: Record
) -> None:
    run = record(project.path, acc=0.5)
    first = project.git("rev-parse", "HEAD")
    assert runs_of(project) == [(run, "exact")]
    project.write("new.txt", "x\n")
    project.git("add", "new.txt")
    commit(project, "-m", "next")
    assert tags_of(project, run) == {}
    assert note_of(project, first) == f"{run[:8]} run acc=0.5"


def test_a_commit_with_the_files_of_another_has_its_runs(project: Sandbox, record: Record) -> None:
    run = record(project.path, acc=0.5)
    commit(project, "--allow-empty", "-m", "the same again")
    assert runs_of(project) == [(run, "exact")]
    assert tags_of(project, run) == {}  # found by its files; no event needed
    assert note_of(project) == f"{run[:8]} run acc=0.5"


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_was_purged_is_in_no_note_and_in_none_before(
    project: Sandbox, record: Record, cli: Cli, elsewhere: bool
) -> None:
    kept, gone = record(project.path, name="kept", acc=0.5), record(project.path, name="gone", acc=0.6)
    head = project.git("rev-parse", "HEAD")
    project.write("train.py", "print('next')\n")
    commit(project, "-am", "next")
    assert "gone" in note_of(project, head)
    notes_before = project.git("rev-parse", "refs/notes/gittrack")
    assert cli("rm", gone).status == 0
    assert cli("gc", "--purge", gone, "--yes").status == 0
    if elsewhere:  # another clone, which learns of it by a pull, still has its notes
        project.git("update-ref", "refs/notes/gittrack", notes_before)
    commit(project, "--allow-empty", "-m", "after it")
    assert note_of(project, head) == f"{kept[:8]} kept acc=0.5"
    history = project.git("log", "-p", "refs/notes/gittrack")
    assert gone[:8] not in history
    assert "gone" not in history


def test_a_run_that_is_going_on_is_linked_too(project: Sandbox) -> None:
    project.write("train.py", "print('better')\n")
    tracker = open_tracker(project.path)
    run = tracker.create_run(name="long")
    tracker.flush()
    commit(project, "-am", "while it trains")
    assert tags_of(project, run.run_id) == {project.git("rev-parse", "HEAD"): "same code"}
    run.log_metric("acc", 0.7)
    run.end()
    tracker.close()
    assert runs_of(project) == [(run.run_id, "exact")]
    assert reader(project).get_run(run.run_id).data.metrics == {"acc": 0.7}


def test_names_cannot_command_the_terminal(project: Sandbox, record: Record) -> None:
    run = reader(project).get_run(record(project.path, acc=1.0))
    evil = "evil\x1b]0;x\x07\n\u202ename"  # refused here, but a run may come from anywhere
    info = dataclasses.replace(run.info, run_name=evil)
    data = dataclasses.replace(run.data, metrics={evil: 1.0})
    found = [links.Link(dataclasses.replace(run, info=info, data=data), links.EXACT)]
    note = notes.text(found)
    assert note.removesuffix("\n").isprintable()
    assert note.count("evil") == 2


# --- post-rewrite


def test_links_follow_an_amended_message_and_amended_files(project: Sandbox, record: Record) -> None:
    project.write("train.py", "print('better')\n")
    run = record(project.path, acc=0.9)
    commit(project, "-am", "better")
    commit(project, "--amend", "-m", "better, said better")
    assert runs_of(project) == [(run, "exact")]
    project.write("train.py", "print('better, with a fix')\n")
    said = commit(project, "-a", "--amend", "--no-edit")
    assert "1 run followed the rewritten commits" in said
    assert runs_of(project) == [(run, "earlier")]  # not its code any more, and that is said
    assert note_of(project) == f"{run[:8]} run (an earlier version) acc=0.9"


def test_links_follow_a_rebase(project: Sandbox, record: Record) -> None:
    project.git("checkout", "--quiet", "-b", "topic")
    project.write("train.py", "print('better')\n")
    commit(project, "-am", "better")
    run = record(project.path, acc=0.9)
    project.write("other.py", "x = 1\n")
    project.git("add", "other.py")
    commit(project, "-m", "other")
    second = record(project.path, name="second", acc=0.8)
    project.git("checkout", "--quiet", "main")
    project.write("README.md", "# Moved on\n")
    commit(project, "-am", "main moves on")
    project.git("checkout", "--quiet", "topic")
    old = project.git("rev-parse", "topic~1")
    project.git("rebase", "--quiet", "main")
    assert runs_of(project, "topic~1") == [(run, "earlier")]
    assert runs_of(project, "topic") == [(second, "earlier")]
    assert tags_of(project, run) == {project.git("rev-parse", "topic~1"): f"was {old}"}
    # and a second time: links of links
    project.git("checkout", "--quiet", "main")
    project.write("README.md", "# Moved on again\n")
    commit(project, "-am", "main moves on again")
    project.git("rebase", "--quiet", "main", "topic")
    assert runs_of(project, "topic~1") == [(run, "earlier")]


def test_links_follow_a_squash(project: Sandbox, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    for number in (1, 2):
        project.write("train.py", f"print({number})\n")
        commit(project, "-am", f"step {number}")
        runs.append(record(project.path, name=f"run{number}", acc=number / 10))
    monkeypatch.setenv("GIT_SEQUENCE_EDITOR", "sed -i 2s/pick/squash/")
    monkeypatch.setenv("GIT_EDITOR", "true")
    project.git("rebase", "--quiet", "-i", "HEAD~2")
    assert project.git("log", "--format=%s", "-1") == "step 1"
    assert runs_of(project) == [(runs[1], "exact"), (runs[0], "earlier")]


def test_a_merge_squashed_by_hand_finds_its_runs_by_their_files(project: Sandbox, record: Record) -> None:
    project.git("checkout", "--quiet", "-b", "topic")
    project.write("train.py", "print('better')\n")
    commit(project, "-am", "better")
    run = record(project.path, acc=0.9)
    project.git("checkout", "--quiet", "main")
    project.git("merge", "--quiet", "--squash", "topic")
    commit(project, "-m", "squashed")
    assert runs_of(project) == [(run, "exact")]
    assert note_of(project) == f"{run[:8]} run acc=0.9"


def test_a_merge_runs_the_hooks_and_needs_no_link(project: Sandbox, record: Record) -> None:
    project.git("checkout", "--quiet", "-b", "topic")
    project.write("train.py", "print('better')\n")
    commit(project, "-am", "better")
    run = record(project.path, acc=0.9)
    project.git("checkout", "--quiet", "main")
    project.git("merge", "--quiet", "--no-ff", "-m", "merged", "topic")
    assert runs_of(project) == [(run, "exact")]  # main had not moved: the merge has the files of the topic


def test_commits_in_a_linked_work_tree(project: Sandbox, record: Record, tmp_path: Path) -> None:
    side = Sandbox(tmp_path / "side", "linked")
    project.git("worktree", "add", "--quiet", "-b", "side", str(side.path))
    side.write("train.py", "print('aside')\n")
    run = record(side.path, acc=0.4)
    said = commit(side, "-am", "aside")
    assert "linked 1 run" in said
    assert runs_of(side) == [(run, "exact")]
    assert note_of(project, "side") == f"{run[:8]} run acc=0.4"


def test_a_sha256_repository(make_repo: MakeRepo, program: Path, record: Record) -> None:
    sandbox = make_repo("sha256")
    install.install(sandbox.paths)
    sandbox.write("train.py", "print('better')\n")
    run = record(sandbox.path, acc=0.9)
    commit(sandbox, "-am", "better")
    assert runs_of(sandbox) == [(run, "exact")]


# --- pre-commit


def test_the_store_stays_out_of_commits(project: Sandbox) -> None:
    project.git("add", "--force", ".gittrack/writer")
    said = commit(project, "-m", "oops", ok=False)
    assert "`.gittrack/writer` would be committed" in said
    assert "git rm -r --cached .gittrack" in said
    project.git("rm", "-r", "--quiet", "--cached", ".gittrack")
    assert (project.path / ".gittrack" / "writer").exists()
    commit(project, "--allow-empty", "-m", "fine")


@pytest.mark.parametrize("how", [["-a"], ["big.bin"], []])
def test_big_files_stay_out_of_commits(project: Sandbox, how: list[str]) -> None:
    project.commit("small", big_bin="small")
    project.write("big.bin", b"\0" * (10 * 2**20 + 1))
    if not how:
        project.git("add", "big.bin")
    said = commit(project, "-m", "oops", *how, ok=False)
    assert "`big.bin (10 MiB)` would be committed, larger than 10 MiB" in said
    assert "gittrack.log_artifact('big.bin')" in said
    assert "git commit --no-verify" in said
    project.git("config", "gittrack.maxStaged", "11m")
    commit(project, "-m", "allowed", *how)


def test_files_at_the_limit_and_small_files_pass(project: Sandbox) -> None:
    project.write("at.bin", b"\0" * (10 * 2**20))
    project.write("a name\nwith a line end", "x")
    project.git("add", "--all")
    commit(project, "-m", "fine")
    project.git("rm", "--quiet", "at.bin")
    commit(project, "-m", "removing is fine")


def test_the_first_commit_of_a_repository(make_repo: MakeRepo, program: Path) -> None:
    sandbox = make_repo("unborn")
    install.install(sandbox.paths)
    sandbox.write("big.bin", b"\0" * (10 * 2**20 + 1))
    sandbox.git("add", "--all")
    assert "big.bin" in commit(sandbox, "-m", "first", ok=False)
    sandbox.git("rm", "--cached", "--quiet", "big.bin")
    sandbox.write("small.txt", "x\n")
    sandbox.git("add", "small.txt")
    commit(sandbox, "-m", "first")


GATE = """\
[tool.gittrack.gate]
metric = "acc"
tolerance = "1%"
"""


def test_the_gate_refuses_a_worse_metric(project: Sandbox, record: Record) -> None:
    project.commit("gate", pyproject_toml=GATE)
    record(project.path, acc=0.9)
    record(project.path, acc=0.8)  # the best counts
    project.git("checkout", "--quiet", "-b", "topic")
    project.write("train.py", "print('worse')\n")
    record(project.path, acc=0.85)
    said = commit(project, "-am", "worse", ok=False)
    assert "`acc` is 0.85" in said
    assert "from 0.9" in said
    assert "1% is allowed (at least 0.891)" in said
    project.write("train.py", "print('within tolerance')\n")
    run = record(project.path, acc=0.895)
    said = commit(project, "-am", "nearly as good")
    assert f"`acc` is 0.895 in run {run[:8]}, -0.005 from 0.9" in said


def test_the_gate_lets_untried_code_pass_unless_it_is_told_to_ask_for_a_run(project: Sandbox, record: Record) -> None:
    project.commit("gate", pyproject_toml=GATE)
    record(project.path, acc=0.9)
    project.write("README.md", "# Words\n")
    commit(project, "-am", "words")
    project.write("pyproject.toml", GATE + "require-run = true\n")
    said = commit(project, "-am", "strict", ok=False)
    assert "no run of this code has the metric `acc`" in said
    commit(project, "-am", "strict", "--no-verify")
    commit(project, "--amend", "-m", "only words change")


def test_a_gate_that_cannot_be_read_stops_nothing(project: Sandbox) -> None:
    project.write("pyproject.toml", "[tool.gittrack.gate]\nmetrik = 'acc'\n")
    project.git("add", "pyproject.toml")
    said = commit(project, "-m", "a mistake")
    assert "the pre-commit hook did nothing" in said
    assert "names no metric" in said


# --- prepare-commit-msg


def test_the_trailer_is_for_those_who_want_it(project: Sandbox, record: Record) -> None:
    project.write("train.py", "print('better')\n")
    run = record(project.path, acc=0.9)
    commit(project, "-am", "without")
    assert "Gittrack-Run" not in project.git("log", "-1", "--format=%B")
    project.git("reset", "--quiet", "--soft", "HEAD~1")
    project.git("config", "gittrack.commitTrailer", "true")
    commit(project, "-m", "with")
    assert project.git("log", "-1", "--format=%(trailers:key=Gittrack-Run,valueonly)").strip() == run
    commit(project, "--amend", "--no-edit")
    assert project.git("log", "-1", "--format=%B").count("Gittrack-Run") == 1
    project.write("train.py", "print('untried')\n")
    commit(project, "-am", "untried")
    assert "Gittrack-Run" not in project.git("log", "-1", "--format=%B")


# --- what must not stop a commit


def test_no_gittrack_on_the_path(project: Sandbox, without_program: None) -> None:
    project.write("train.py", "print('better')\n")
    assert commit(project, "-aqm", "better") == ""
    assert commit(project, "-aqm", "amended", "--amend") == ""
    project.git("rebase", "--quiet", "--force-rebase", "HEAD~1")


@pytest.mark.parametrize("body", ["exit 1", "exit 255", "kill -9 $$", "echo broken >&2; exit 127"])
def test_a_broken_gittrack(project: Sandbox, program: Path, body: str) -> None:
    (program / "gittrack").write_text(f"#!/bin/sh\n{body}\n")
    project.write("train.py", "print('better')\n")
    project.git("config", "gittrack.commitTrailer", "true")
    commit(project, "-aqm", "better")
    commit(project, "-aqm", "amended", "--amend")
    assert project.git("log", "-1", "--format=%s") == "amended"


def test_a_broken_store(project: Sandbox, record: Record) -> None:
    record(project.path, acc=0.9)
    (project.path / ".gittrack" / "writer").write_text("no writer id at all!\n")
    (project.path / ".gittrack" / "index.db").write_bytes(b"no database")
    ref = next((project.path / ".git" / "refs" / "runs").rglob("*-*"))
    ref.write_text("0" * 39 + "1\n")
    project.write("train.py", "print('better')\n")
    commit(project, "-am", "better")
    commit(project, "--amend", "-m", "amended")


def test_a_read_only_store(project: Sandbox) -> None:
    store = project.path / ".gittrack"
    store.chmod(0o555)
    project.write("train.py", "print('better')\n")
    try:
        commit(project, "-am", "better")
    finally:
        store.chmod(0o755)


def test_a_repository_without_a_store(make_repo: MakeRepo, program: Path) -> None:
    sandbox = make_repo("ordinary")
    install.install(sandbox.paths)
    sandbox.write("train.py", "print('better')\n")
    assert commit(sandbox, "-aqm", "better") == ""
    assert not (sandbox.path / ".gittrack").exists()  # a hook makes nothing


def test_hooks_do_not_touch_the_repository_around_the_current_folder(
    project: Sandbox, record: Record, make_repo: MakeRepo
) -> None:
    """`git --git-dir=OTHER commit` in a work tree of this one."""
    other = make_repo("ordinary")
    install.install(other.paths)
    project.write("train.py", "print('better')\n")
    run = record(project.path, acc=0.9)
    run_git(
        project.path, f"--git-dir={other.path}/.git", "--work-tree=.", "commit", "--quiet", "--all", "-m", "other's"
    )
    assert tags_of(project, run) == {}


# --- the hooks' own shortcuts


def test_what_the_shortcut_passes_over_is_nothing_to_do(project: Sandbox, record: Record) -> None:
    record(project.path, acc=0.9)
    commit(project, "--allow-empty", "-m", "looked at")
    assert quick.idle(["post-commit"]) is False  # its files have a run
    project.write("train.py", "print('new')\n")
    commit(project, "-am", "untried")
    assert quick.idle(["post-commit"]) is True
    project.git("pack-refs", "--all")
    assert quick.idle(["post-commit"]) is False  # a packed HEAD is unusual
    commit(project, "--allow-empty", "-m", "looked at again")
    commit(project, "--allow-empty", "-m", "and again")
    assert quick.idle(["post-commit"]) is True
    project.write("train.py", "print('dirty')\n")
    record(project.path, acc=0.8)
    assert quick.idle(["post-commit"]) is False  # the ledger has moved
    project.git("stash", "--quiet")
    commit(project, "--allow-empty", "-m", "looked at once more")
    assert quick.idle(["post-commit"]) is False  # somebody ran changes on the commit before
    commit(project, "--allow-empty", "-m", "the next")
    project.write("train.py", "print('untried')\n")
    commit(project, "-qam", "and the next")
    assert quick.idle(["post-commit"]) is True


def test_the_shortcut_in_a_submodule_and_a_linked_work_tree(
    project: Sandbox, make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project.git("submodule", "add", "--quiet", str(make_repo("ordinary").path), "sub")
    project.git("worktree", "add", "--quiet", str(tmp_path / "side"))
    monkeypatch.chdir(project.path / "sub")
    assert quick.idle(["post-commit"]) is True  # it has no store
    Repo.find(project.path / "sub", create=True)
    assert quick.idle(["post-commit"]) is False
    monkeypatch.chdir(tmp_path / "side")
    assert quick.idle(["post-commit"]) is False  # that of the main work tree
    monkeypatch.chdir(make_repo("plain").path)
    assert quick.idle(["post-commit"]) is False


def test_with_nothing_to_do_hardly_anything_is_loaded(project: Sandbox, record: Record) -> None:
    """Loading is what a hook's time goes into; the benchmark `hooks` has the figures."""
    record(project.path, acc=0.9)
    commit(project, "--allow-empty", "-m", "looked at")
    project.write("train.py", "print('new')\n")
    commit(project, "-am", "untried")
    project.write("train.py", "print('newer')\n")
    project.git("add", "--all")
    staged = project.git("diff", "--cached", "--raw", "-z", "--no-abbrev").encode()
    told = f"{'1' * 40} {'2' * 40}\n".encode()
    for words, given in ((["post-commit"], b""), (["pre-commit", "--staged"], staged), (["post-rewrite"], told)):
        program = f"""
import sys
sys.argv[1:] = {["hook", *words]}
from gittrack.cli import start
try:
    start()
except SystemExit as left:
    print(left.code, *(name for name in {HEAVY!r} if name in sys.modules))
"""
        done = subprocess.run(
            [sys.executable, "-S", "-c", program],
            cwd=project.path, env={**os.environ, "PYTHONPATH": str(SOURCE)}, input=given, capture_output=True,
            check=False,
        )  # fmt: skip
        assert done.stdout.decode() == "0\n", (words, done.stderr)


def test_runs_from_anywhere_break_no_hook(project: Sandbox) -> None:
    """What a hostile clone may have written into a run's record."""
    tracker = Tracker(Repo.find(project.path), strict=True)
    head = project.git("rev-parse", "HEAD")
    tree = project.git("rev-parse", "HEAD^{tree}")
    for number, taken in enumerate([7, {"a": 1}, [[1], 2, None], "text", ["../x"]]):
        run = tracker.create_run(name=f"odd{number}", capture=False)
        tags = {
            "tags.gittrack.commit.--output=x": "y",
            "tags.gittrack.commit.\n": "",
            f"tags.gittrack.commit.{'0' * 40}": "",
        }
        run.write_event([record_module.FIELDS, 9, "evil", tags])
        facts = {"commit": head, "tree": tree if number else "1" * 40, "dirty": "maybe", "mode": "full"}
        run.write_event([record_module.CODE, {**facts, "untracked_taken": taken}])
        run.log_metric("acc", float("nan"))
        run.end()
    tracker.close()
    project.write("train.py", "print('better')\n")
    assert "did nothing" not in commit(project, "-am", "better")
    assert "did nothing" not in commit(project, "--amend", "-m", "amended")
    assert not (project.path / "x").exists()
    assert note_of(project, head).count("with changes") == 5


def test_the_status_that_stops_git_is_no_other_failure(project: Sandbox, program: Path) -> None:
    project.git("add", "--force", ".gittrack/writer")
    done = subprocess.run(
        [program / "gittrack", "hook", "pre-commit"], cwd=project.path, capture_output=True, check=False
    )
    assert done.returncode == REFUSED
    done = subprocess.run([program / "gittrack", "hook", "no-such"], cwd=project.path, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"the hooks are pre-commit" in done.stderr


def test_git_sees_no_foreign_variables(project: Sandbox, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook hands nothing of git's environment on to the git that it starts itself."""
    seen: list[dict[str, str]] = []
    original = gateway._environment

    def spy(extra: dict[str, str] | None) -> dict[str, str]:
        seen.append(original(extra))
        return seen[-1]

    monkeypatch.setattr(gateway, "_environment", spy)
    monkeypatch.setenv("GIT_EXEC_PATH", "/nowhere")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "touch pwned")
    assert dispatch.run("pre-commit", []).status == 0
    assert seen
    assert not {"GIT_EXEC_PATH", "GIT_CONFIG_COUNT", "GIT_EXTERNAL_DIFF"} & {name for one in seen for name in one}


def test_an_existing_hook_runs_first_and_decides(project: Sandbox, tmp_path: Path) -> None:
    hook = project.write(f".git/hooks/pre-commit{BEFORE}", f"#!/bin/sh\necho mine >> {tmp_path}/log\nexit 3\n")
    hook.chmod(0o755)
    project.write("train.py", "print('better')\n")
    commit(project, "-am", "better", ok=False)
    hook.write_text(f"#!/bin/sh\necho mine >> {tmp_path}/log\n")
    commit(project, "-am", "better")
    assert (tmp_path / "log").read_text() == "mine\nmine\n"


def test_core_hooks_path_on_the_command_line(project: Sandbox, record: Record, tmp_path: Path) -> None:
    project.write("train.py", "print('better')\n")
    run = record(project.path, acc=0.9)
    run_git(project.path, "-c", "core.hooksPath=/dev/null", "commit", "--quiet", "--all", "-m", "no hooks")
    assert tags_of(project, run) == {}
    assert runs_of(project) == [(run, "exact")]  # found by its files all the same
    hooks = tmp_path / "team-hooks"
    (project.path / ".git" / "hooks").rename(hooks)
    project.write("train.py", "print('again')\n")
    run = record(project.path, acc=0.9)
    run_git(project.path, "-c", f"core.hooksPath={hooks}", "commit", "--quiet", "--all", "-m", "hooks from elsewhere")
    assert list(tags_of(project, run).values()) == ["same code"]
