"""``gittrack reproduce``: the exact code back, and reruns that are compared."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gittrack.errors import NotFoundError, ReproductionError
from gittrack.track import reproduce
from gittrack.types import Run, RunData, RunInfo
from tests.cli.conftest import Cli, open_tracker
from tests.conftest import Sandbox, run_git

PACKAGE = str(Path(reproduce.__file__).parents[2])
TRAIN = f"""
import json, sys
sys.path.insert(0, {PACKAGE!r})
import gittrack
with gittrack.start_run():
    gittrack.log_metric("acc", float(open("acc.txt").read()))
    gittrack.log_metric("speed", 1 + __import__("random").random() / 10)
"""


@pytest.fixture
def trained(git_repo: Sandbox, cli: Cli, program: Path, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A project with one run, recorded with uncommitted changes, an untracked file, a deleted and a staged one."""
    monkeypatch.chdir(git_repo.path)
    git_repo.write("train.py", TRAIN)
    git_repo.write("acc.txt", "0.5\n")
    git_repo.write("staged.py", "STAGED = 1\n")
    git_repo.git("add", "staged.py")
    git_repo.write("README.md", "# Changed\n")
    (git_repo.path / "lib/util.py").unlink()
    git_repo.write("lib/other.py", "import os\n")

    subprocess.run(
        [program, "run", "-q", "--name", "first", "--", sys.executable, "train.py"], check=True, capture_output=True
    )
    return git_repo


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and not {".git", ".gittrack"} & set(path.relative_to(folder).parts)
    }


def test_the_code_is_as_it_ran(trained: Sandbox, cli: Cli, tmp_path: Path) -> None:
    as_it_ran, status = files(trained.path), trained.git("status", "--porcelain")
    head = trained.git("rev-parse", "HEAD")
    trained.git("stash", "--include-untracked", "--quiet")
    trained.commit("later", train_py="print('later')\n")

    answer = cli("reproduce", "first", "--into", str(tmp_path / "again"))

    assert (answer.status, answer.out) == (0, f"{tmp_path / 'again'}\n")
    assert files(tmp_path / "again") == as_it_ran
    assert run_git(tmp_path / "again", "rev-parse", "HEAD") == head
    # Uncommitted is uncommitted again; only what had been staged is not staged.
    again = run_git(tmp_path / "again", "status", "--porcelain")
    assert {line[3:] for line in again.splitlines()} == {line[3:] for line in status.splitlines()}
    assert not (tmp_path / "again/.gittrack").exists()
    assert trained.git("branch", "--format=%(refname:short)").splitlines()[-1] == "main"


def test_where_it_goes_by_itself(trained: Sandbox, cli: Cli) -> None:
    answer = cli("reproduce", "first")
    target = Path(answer.out.strip())
    assert target.parent == trained.path.parent
    assert target.name.startswith("ordinary-1-")
    assert target.is_dir()


def test_it_takes_no_folder_that_is_in_use(trained: Sandbox, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used/mine.txt").write_text("mine")
    answer = cli("reproduce", "first", "--into", str(tmp_path / "used"))
    assert answer.status == 1
    assert "is not empty" in answer.err
    assert files(tmp_path / "used") == {"mine.txt": "mine"}


def test_nothing_runs_unless_asked(trained: Sandbox, cli: Cli, tmp_path: Path) -> None:
    hook = trained.write(".git/hooks/post-checkout", f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
    hook.chmod(0o755)
    before = cli("log", "--all", "--oneline").out
    assert cli("reproduce", "first", "--into", str(tmp_path / "again")).status == 0
    assert cli("log", "--all", "--oneline").out == before
    assert not (tmp_path / "pwned").exists()


def test_artifacts(trained: Sandbox, cli: Cli, tmp_path: Path) -> None:
    tracker = open_tracker(trained.path)
    run = tracker.create_run(name="second")
    run.log_bytes(b"weights", "model/weights.bin")
    tracker.flush()
    run.end()
    tracker.close()
    answer = cli("reproduce", "second", "--artifacts", "--into", str(tmp_path / "again"))
    assert answer.status == 0
    assert "copied 1 artifact" in answer.err
    assert (tmp_path / "again/artifacts/model/weights.bin").read_bytes() == b"weights"


def test_a_rerun_that_agrees(trained: Sandbox, cli: Cli, tmp_path: Path) -> None:
    answer = cli("reproduce", "first", "--run", "-m", "acc", "--into", str(tmp_path / "again"), "--json")
    assert answer.status == 0, answer.err
    report = json.loads(answer.out)
    assert report["reproduced"] is True
    assert report["metrics"]["acc"] == {"key": "acc", "recorded": 0.5, "rerun": 0.5, "deviation": 0.0, "ok": True}

    runs = {run["info"]["run_id"]: run for run in json.loads(cli("log", "--json").out)}
    first, rerun = runs[report["run"]], runs[report["rerun"]]
    assert rerun["info"]["run_name"] == "first-rerun"
    assert rerun["data"]["tags"]["gittrack.reproduces"] == report["run"]
    assert rerun["code"]["tree"] == first["code"]["tree"]
    assert rerun["environment"]["command"] == first["environment"]["command"]


def test_a_rerun_that_differs(trained: Sandbox, cli: Cli, tmp_path: Path) -> None:
    answer = cli("reproduce", "first", "--run", "--into", str(tmp_path / "again"))
    assert answer.status == 3
    rows = {line.split()[0]: line.split() for line in answer.out.splitlines()[1:]}
    assert rows["acc"][-1] == "reproduced"
    assert rows["speed"][-1] == "differs"
    assert "error: 1 of 2 metrics not within 1e-06: `speed`" in answer.err
    loose = cli("reproduce", "first", "--run", "--tolerance", "0.5", "--into", str(tmp_path / "loose"))
    assert loose.status == 0


SEVERAL = f"""
import sys
sys.path.insert(0, {PACKAGE!r})
import gittrack
for C in (0.01, 0.1, 1.0):
    with gittrack.start_run(run_name=sys.argv[1] if len(sys.argv) > 1 else None):
        gittrack.log_param("C", C)
        gittrack.log_metric("acc", C / 2)
"""


@pytest.mark.parametrize("names", [[], ["same"]])
def test_a_program_that_makes_several_runs(
    git_repo: Sandbox, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    monkeypatch.chdir(git_repo.path)
    git_repo.write("several.py", SEVERAL)
    subprocess.run([sys.executable, "several.py", *names], check=True)

    for number, value in {1: 0.5, 2: 0.05, 3: 0.005}.items():
        target = str(tmp_path / f"again-{number}")
        runs = json.loads(cli("search", f"metrics.acc = {value}", "-o", "start_time ASC", "--json").out)
        wanted = runs[0]["info"]["run_id"]
        answer = cli("reproduce", wanted, "--run", "--into", target, "--json")
        assert answer.status == 0, answer.err
        report = json.loads(answer.out)
        assert (report["run"], report["worktree"]) == (wanted, target)
        assert report["metrics"]["acc"]["rerun"] == value
        assert "the program made 3 runs; " in answer.err

        # Each of the runs carries the code of the work tree it ran in, not of the one that is here now.
        git_repo.write("several.py", SEVERAL + f"# edited {number} times since\n")
        made = json.loads(cli("log", "-n", "3", "--json").out)
        assert {run["code"]["tree"] for run in made} == {runs[0]["code"]["tree"]}
        assert {run["environment"]["directory"] for run in made} == {"."}

        tagged = json.loads(cli("search", f"tags.`gittrack.reproduces` = '{wanted}'", "--json").out)
        assert [run["info"]["run_id"] for run in tagged] == [report["rerun"]]


def test_a_metric_that_is_not_there_is_said_before_anything_is_made(trained: Sandbox, cli: Cli, tmp_path: Path) -> None:
    answer = cli("reproduce", "first", "--run", "-m", "nope", "--into", str(tmp_path / "again"))
    assert (answer.status, "has no metric `nope`" in answer.err) == (1, True)
    assert not (tmp_path / "again").exists()


def test_the_work_tree_as_json(trained: Sandbox, cli: Cli, tmp_path: Path) -> None:
    answer = cli("reproduce", "first", "--into", str(tmp_path / "again"), "--json")
    assert json.loads(answer.out)["worktree"] == str(tmp_path / "again")


def test_a_rerun_that_fails(trained: Sandbox, cli: Cli, tmp_path: Path, program: Path) -> None:

    subprocess.run([program, "run", "-q", "--name", "bad", "--", "sh", "-c", "exit 4"], check=False)
    answer = cli("reproduce", "bad", "--run", "--into", str(tmp_path / "again"))
    assert answer.status == 3
    assert "the rerun failed with exit status 4" in answer.err


def some_run(metrics: dict[str, float] | None = None, **facts: Any) -> Run:
    info = RunInfo("a" * 32, "0", "ana", "FINISHED", 0, 1, "active", "", "name")
    return Run(info, RunData(metrics or {}, {}, {}), **facts)


@pytest.mark.parametrize(
    ("recorded", "rerun", "tolerance", "ok"),
    [
        (1.0, 1.0, 0.0, True),
        (1.0, 1.1, 0.1, True),
        (1.0, 1.2, 0.1, False),
        (-1.0, 1.0, 1.0, False),
        (0.0, 0.0, 0.0, True),
        (0.0, 1e-300, 0.5, False),
        (float("nan"), float("nan"), 0.0, True),
        (float("nan"), 1.0, 10.0, False),
        (float("inf"), float("inf"), 0.0, True),
        (float("inf"), 1.0, 10.0, False),
    ],
)
def test_tolerance(recorded: float, rerun: float, tolerance: float, ok: bool) -> None:
    (check,) = reproduce.check_metrics(some_run({"m": recorded}), some_run({"m": rerun}), tolerance=tolerance)
    assert check.ok is ok


def test_what_is_compared() -> None:
    run, rerun = some_run({"a": 1, "b": 2, "system/cpu": 50}), some_run({"a": 1})
    assert [(one.key, one.ok) for one in reproduce.check_metrics(run, rerun, tolerance=0)] == [
        ("a", True),
        ("b", False),
    ]
    assert [one.key for one in reproduce.check_metrics(run, rerun, tolerance=0, keys=["a"])] == ["a"]
    with pytest.raises(ReproductionError):
        reproduce.check_metrics(some_run({}), rerun, tolerance=0)
    with pytest.raises(NotFoundError):
        reproduce.check_metrics(run, rerun, tolerance=0, keys=["c"])


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"command": "rm -rf /"},
        {"command": []},
        {"command": [1]},
        {"command": ["train", "--token", "[redacted]"]},
        {"command": ["x" * 1024]},
        {"command": ["train"], "directory": "/etc"},
        {"command": ["train"], "directory": "../.."},
    ],
)
def test_commands_that_cannot_be_repeated(environment: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ReproductionError):
        reproduce.recorded_command(some_run(environment=environment), tmp_path)


def test_packages() -> None:
    recorded = {"packages": {"a": "1", "b": "1", "c": "1"}}
    here = {"packages": {"a": "1", "b": "2", "d": "1"}}
    assert reproduce.changed_packages(recorded, here) == {"b": ("1", "2"), "c": ("1", None), "d": (None, "1")}
    assert reproduce.changed_packages({}, here) == {}
