"""`which`, `log --branch`, `report`, `gate` and `bisect` on a project with a branch, under the real git."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gittrack
from gittrack.cli import output
from gittrack.cli.report import md
from tests.cli.conftest import Cli, open_tracker
from tests.conftest import MakeRepo, Sandbox

PROGRAM = """\
import pathlib, sys
import gittrack
with gittrack.start_run(run_name="trained"):
    gittrack.log_metric("acc", float(pathlib.Path("acc.txt").read_text()))
"""


def record(sandbox: Sandbox, name: str, **facts: float | str) -> str:
    """A run of what lies there: numbers are metrics, text is a param."""
    tracker = open_tracker(sandbox.path)
    run = tracker.create_run(name=name, user_id="ana")
    for key, value in facts.items():
        if isinstance(value, str):
            run.log_params({key: value})
        else:
            run.log_metric(key, value)
    tracker.flush()
    run.end()
    tracker.close()
    return run.run_id


@pytest.fixture
def branched(make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """main with a run, and a topic of two commits: the first with a run, the second with a run made before it."""
    sandbox = make_repo("ordinary")
    monkeypatch.chdir(sandbox.path)
    record(sandbox, "base", acc=0.9, lr="0.1")
    sandbox.git("checkout", "--quiet", "-b", "topic")
    sandbox.commit("first step", train_py="print(1)\n")
    record(sandbox, "one", acc=0.8, lr="0.2")
    sandbox.write("train.py", "print(2)\n")
    record(sandbox, "two", acc=0.85, lr="0.2")
    sandbox.commit("second step")
    return sandbox


def test_which_lists_the_runs_of_a_commit(branched: Sandbox, cli: Cli) -> None:
    assert cli("which", "--format", "%N").out == "two\n"
    assert cli("which", "topic~1", "--format", "%N %m(acc)").out == "one 0.8\ntwo 0.85\n"
    answer = cli("which", "topic~1")
    assert answer.out.splitlines()[1].endswith("two (with uncommitted changes) acc=0.85")
    assert [(one["how"], one["info"]["run_name"]) for one in json.loads(cli("which", "main", "--json").out)] == [
        ("exact", "base")
    ]
    answer = cli("which", "main~1")
    assert (answer.status, answer.out) == (1, "")
    assert answer.err.startswith("no run of ")
    answer = cli("which", "nonsense")
    assert (answer.status, "`nonsense` is no commit" in answer.err) == (2, True)
    assert cli("which", "--", "--output=pwned").status == 2


def test_log_of_a_branch(branched: Sandbox, cli: Cli) -> None:
    line = ("log", "--format", "%N", "--branch")
    assert cli(*line, "topic").out.split() == ["two", "one", "base"]
    assert cli(*line, "main..topic").out.split() == ["two", "one"]
    assert cli(*line, "main").out.split() == ["base"]
    assert cli(*line, "topic", "-2").out.split() == ["two", "one"]
    answer = cli(*line, "nonsense")
    assert (answer.status, "no branch, commit or range" in answer.err) == (2, True)


def test_report_is_markdown_of_what_changed(branched: Sandbox, cli: Cli) -> None:
    out = cli("report", "--base", "main").out
    assert out.startswith("## topic compared with main\n")
    assert "| acc | 0.9 | 0.85 | -0.05 (-5.6%) |" in out
    assert "| lr | 0.1 | 0.2 |" in out
    assert " train.py | 2 +-" in out
    plain = json.loads(cli("report", "--json").out)
    assert plain["changes"]["params"] == {"lr": {"a": "0.1", "b": "0.2"}}
    assert plain["base"]["run_commit"] == branched.git("rev-parse", "main")
    branched.commit("words", README_md="# Words\n")
    out = cli("report").out
    assert f"of {branched.git('rev-parse', 'HEAD~1')[:8]} before it" in out  # nobody ran the last commit
    assert cli("report", "--base", "nonsense").status == 2
    branched.git("checkout", "--quiet", "--orphan", "alone")
    branched.commit("alone")
    assert "no history in common" in cli("report", "--base", "main").err


def test_report_of_a_project_without_runs(git_repo: Sandbox, cli: Cli) -> None:
    git_repo.git("checkout", "--quiet", "-b", "topic")
    git_repo.commit("x", train_py="x\n")
    out = cli("-C", str(git_repo.path), "report").out
    assert out.count("no run") == 2
    assert "### Metrics" not in out


def test_no_name_is_markup_in_a_report(branched: Sandbox, cli: Cli) -> None:
    evil = "@team | <img src=x> [x](http://y) `a` **b** \\ #1 &amp;"
    record(branched, evil, acc=0.7, **{"p q": evil})
    out = cli("report").out
    assert "@team" not in out
    assert "<img" not in out
    assert "http://" not in out
    row = next(line for line in out.splitlines() if "p q" in line)
    assert row.replace("\\|", "").count("|") == 4
    assert md("a\nb\x1b[31m") == "a\\\\nb\\\\x1b\\[31m"


def test_gate_for_ci(branched: Sandbox, cli: Cli) -> None:
    answer = cli("gate", "-m", "acc", "--tolerance", "1%")
    assert answer.status == 1
    assert answer.out.startswith("worse  `acc` is 0.85 in run ")
    assert "from 0.9" in answer.out
    assert "1 gate of 1 not passed" in answer.err
    assert cli("gate", "-m", "acc", "--tolerance", "10%").status == 0
    assert cli("gate", "-m", "acc", "--base", "topic~1").status == 0
    assert cli("gate", "topic~1", "-m", "acc", "--tolerance", "10%").status == 1
    (plain,) = json.loads(cli("gate", "-m", "acc", "--json").out)
    assert (plain["passed"], plain["value"], plain["baseline"]) == (False, 0.85, 0.9)
    answer = cli("gate", "-m", "nothing")
    assert (answer.status, "no run of this code has the metric `nothing`" in answer.out) == (1, True)
    answer = cli("gate")
    assert (answer.status, "there is no gate" in answer.err) == (2, True)


def test_gates_of_the_project(branched: Sandbox, cli: Cli) -> None:
    branched.write(
        "pyproject.toml",
        "[[tool.gittrack.gate]]\nmetric = 'acc'\ntolerance = '10%'\nbase = 'main'\n"
        "[[tool.gittrack.gate]]\nmetric = 'acc'\ntolerance = 0.01\nwhere = \"params.lr = '0.2'\"\n",
    )
    answer = cli("gate")
    assert answer.status == 0
    assert "there is no run before it to compare with" in answer.out.splitlines()[1]  # only runs with that lr count
    line = ("gate", "-m", "acc", "--tolerance", "1%", "-e")
    assert cli(*line, "Default").status == 1
    answer = cli(*line, "nowhere")
    assert (answer.status, "no experiment" in answer.err) == (1, True)
    cli("experiments", "create", "empty")
    assert "no run of this code has" in cli(*line, "empty").out
    assert cli("report", "-e", "empty").out.count(", no run\n") == 2
    assert cli("report").out.count("✅") == 2


def test_bisect_uses_what_is_recorded_then_runs_what_is_missing(
    make_repo: MakeRepo, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = make_repo("ordinary")
    monkeypatch.chdir(sandbox.path)
    values = [0.9, 0.9, 0.91, 0.7, 0.7, 0.7]
    for number, value in enumerate(values):
        sandbox.commit(f"step {number}", train_py=PROGRAM, acc_txt=f"{value}\n", step_txt=f"{number}\n")
    record(sandbox, "last", acc=values[-1])
    sandbox.git("checkout", "--quiet", "HEAD~5")
    record(sandbox, "first", acc=values[0])
    sandbox.git("checkout", "--quiet", "main")
    worktrees = sandbox.git("worktree", "list")

    answer = cli("bisect", "-m", "acc", "--drop", "1%")
    assert answer.status == 1
    assert "4 commits between them without a run" in answer.err
    assert answer.out.count("unknown") == 4

    asked: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("gittrack.cli.bisect._may_ask", lambda: True)
        patch.setattr(output, "confirm", asked.append)
        assert cli("bisect", "-m", "acc", "--drop", "1%").out.count("unknown") == 4  # the answer was no
    assert asked == ["run `python train.py --lr 0.1` on some of them?"]  # as the runs recorded it

    question = ("bisect", "-m", "acc", "--drop", "1%", "--", sys.executable, "train.py")
    answer = cli(*question)
    assert answer.status == 0, answer.err
    assert f"first bad commit: {sandbox.git('rev-parse', 'main~2')}" in answer.out
    assert answer.err.count("running ") == 2
    assert sandbox.git("worktree", "list") == worktrees
    assert sandbox.git("status", "--porcelain") == ""

    answer = cli(*question)  # the runs are recorded now
    assert (answer.status, answer.err.count("running ")) == (0, 0)
    answer = cli("bisect", "-m", "acc", "--drop", "1%", "--json")
    assert json.loads(answer.out)["first_bad"] == sandbox.git("rev-parse", "main~2")
    answer = cli("bisect", "-m", "acc", "--drop", "50%")
    assert (answer.status, "no recorded run shows" in answer.err) == (1, True)


def test_bisect_goes_around_commits_that_cannot_be_run(
    make_repo: MakeRepo, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = make_repo("ordinary")
    monkeypatch.chdir(sandbox.path)
    sandbox.commit("good", train_py="raise SystemExit(1)\n", acc_txt="0.9\n")
    record(sandbox, "first", acc=0.9)
    sandbox.commit("broken", train_py="raise SystemExit(2)\n")
    sandbox.commit("bad", acc_txt="0.7\n")
    record(sandbox, "last", acc=0.7)
    answer = cli("bisect", "-m", "acc", "--drop", "1%", "--good", "HEAD~2", "--", sys.executable, "train.py")
    assert answer.status == 1
    assert "skipped" in answer.out
    assert "first bad commit" not in answer.out
    with monkeypatch.context() as patch:
        patch.setattr("gittrack.cli.bisect._may_ask", lambda: True)
        patch.setattr(output, "confirm", lambda _: True)
        answer = cli("bisect", "-m", "acc", "--drop", "1%")
        assert answer.status == 1  # the recorded command is `python train.py --lr 0.1`: it runs, and fails
        assert "running `python train.py --lr 0.1`" in answer.err
    assert cli("bisect", "-m", "acc", "--drop", "1%", "--rerun").out == answer.out
    answer = cli("bisect", "-m", "acc", "--drop", "1%", "--rerun", "true")
    assert (answer.status, "exclude each other" in answer.err) == (2, True)
    answer = cli("bisect", "-m", "acc", "--drop", "1%", "--good", "main", "--bad", "main")
    assert (answer.status, "is not before" in answer.err) == (2, True)


def test_bisect_tells_how_to_look_into_a_merge(make_repo: MakeRepo, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make_repo("ordinary")
    monkeypatch.chdir(sandbox.path)
    record(sandbox, "start", acc=0.9)
    sandbox.git("checkout", "--quiet", "-b", "topic")
    for value in (0.9, 0.7, 0.7):
        sandbox.commit(f"topic {value}", acc_txt=f"{value}\n", step_txt=f"{value}")
        record(sandbox, f"topic {value}", acc=value)
    sandbox.git("checkout", "--quiet", "main")
    sandbox.commit("meanwhile", other_txt="x\n")
    record(sandbox, "meanwhile", acc=0.9)
    sandbox.git("merge", "--quiet", "--no-ff", "-m", "merge topic", "topic")
    record(sandbox, "merged", acc=0.7)
    question = ("bisect", "-m", "acc", "--drop", "1%")
    answer = cli(*question)
    merge = sandbox.git("rev-parse", "--short", "main")
    assert "merge topic" in answer.out
    assert f"`--bad {merge}^2` with the same options" in answer.out
    answer = cli(*question, "--bad", f"{merge}^2")
    assert f"first bad commit: {sandbox.git('rev-parse', 'topic~1')}" in answer.out
    assert "a merge" not in answer.out


def test_a_bisection_that_was_killed_leaves_nothing_for_long(
    make_repo: MakeRepo, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    sandbox = make_repo("ordinary")
    monkeypatch.chdir(sandbox.path)
    record(sandbox, "first", acc=0.9)
    sandbox.commit("middle", acc_txt="0.8\n")
    sandbox.commit("last", acc_txt="0.7\n")
    record(sandbox, "last", acc=0.7)
    worktrees = sandbox.git("worktree", "list")
    kill = "import os; os.kill(os.getppid(), 9)"
    words = ["bisect", "-m", "acc", "--drop", "1%", "--", sys.executable, "-c", kill]
    done = subprocess.run(
        [sys.executable, "-m", "gittrack", *words],
        env={**os.environ, "PYTHONPATH": str(Path(gittrack.__file__).parents[1])}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("gittrack-*/code"))) == 1
    assert sandbox.git("worktree", "list") != worktrees
    answer = cli("bisect", "-m", "acc", "--drop", "1%")
    assert "took away 1 work tree of a bisection that was interrupted" in answer.err
    assert sandbox.git("worktree", "list") == worktrees
    assert not list(tmp_path.glob("gittrack-*"))
    assert cli("bisect", "-m", "acc", "--drop", "1%").err.count("took away") == 0


def test_words_for_those_who_mistype_or_forget(branched: Sandbox, cli: Cli) -> None:
    branched.git("checkout", "--quiet", "topic~1")
    assert "did you mean `acc`?" in cli("gate", "-m", "ac").err
    assert "did you mean `acc`?" in cli("bisect", "-m", "ac", "--drop", "1%").err
    assert "needs `--drop AMOUNT`" in cli("bisect", "-m", "acc").err
    branched.git("checkout", "--quiet", "main")
    assert "all of `main` is in `main`: `--base main~1`" in cli("report").err
