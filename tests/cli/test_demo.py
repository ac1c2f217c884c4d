"""`gittrack demo`, as a person runs it: in a process of its own, with the real scikit-learn."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gittrack import session
from gittrack.cli import demo, main
from gittrack.types import Run
from tests.conftest import FOREIGN, run_git

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[2]
#: What the demo may take, on two cores that have nothing else to do.
SECONDS = 60
#: Which is so many times as much processor time as it takes to import what each of its programs imports (1.7 s there):
#: a slower or a busy machine does both more slowly.
IMPORTS = 30


def run_demo(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment = {**kept, "GIT_CONFIG_NOSYSTEM": "1", "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **variables}
    return subprocess.run(
        [sys.executable, "-m", "gittrack", "demo", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=5 * SECONDS, check=False,
    )  # fmt: skip


def _processor_time() -> float:
    """Seconds that the programs that were started here have taken."""
    now = os.times()
    return now.children_user + now.children_system


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The demo, run once for all tests of this file, by somebody whom git does not know."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / ".gitconfig").write_text("[user]\n    useConfigOnly = true\n", encoding="utf-8")
    misleading = {"GITTRACK_TRACKING_URI": str(folder / "elsewhere"), "MLFLOW_EXPERIMENT_NAME": "other"}
    begun = _processor_time()
    subprocess.run([sys.executable, "-c", "import sklearn.ensemble, skops.io"], check=True)
    imported = _processor_time()
    done = run_demo("project", cwd=folder, HOME=str(folder), **misleading)
    assert _processor_time() - imported < IMPORTS * (imported - begun)
    assert done.returncode == 0, done.stderr
    assert not (folder / "elsewhere").exists()
    return folder / "project", done


def runs_of(project: Path) -> list[Run]:
    opened = session.open_reader(str(project))
    try:
        return list(opened.search_runs(None, order_by=["attributes.start_time ASC"]))
    finally:
        opened.repo.close()


def test_runs(answer: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    runs = runs_of(answer[0])
    assert [run.info.run_name for run in runs] == ["knn", "tree", "forest", "svc"] * 2 + ["knn", "svc", "knn"]
    assert [run.info.status for run in runs] == ["FINISHED"] * 10 + ["FAILED"]
    assert [run.code["dirty"] for run in runs] == [False] * 8 + [True] * 3
    assert all(run.commit and run.code["commit"] == runs[0].code["commit"] for run in runs)
    assert all({"accuracy_score_X_test", "training_score"} < run.data.metrics.keys() for run in runs[:10])
    assert runs[10].data.params["n_neighbors"] == "0"
    plain, scaled = runs[3], runs[9]
    assert plain.data.params == scaled.data.params
    assert scaled.data.metrics["accuracy_score_X_test"] > plain.data.metrics["accuracy_score_X_test"] + 0.1


def test_the_project_is_an_ordinary_repository(answer: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    project = answer[0]
    assert run_git(project, "status", "--porcelain").splitlines() == [" M train.py", "?? wines.json"]
    assert run_git(project, "log", "--format=%s %an") == "train classifiers gittrack demo"
    run_git(project, "fsck", "--strict")
    dirty = runs_of(project)[9]
    assert "StandardScaler" in run_git(project, "show", f"{dirty.commit}:train.py")


def test_what_it_says(answer: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    project, done = answer
    lines = done.stdout.splitlines()
    commands = [line for line in lines if line.startswith("$ ")]
    assert sum(line.startswith("$ python train.py ") for line in commands) == 4
    verbs = ["init", "log", "search", "diff", "models", "models", "models"]
    assert [line.split()[2] for line in commands if line.startswith("$ gittrack ")] == verbs
    assert "$ gittrack models predict -m models:/wine/Production -i wines.json" in lines
    assert '{"predictions":[0,2]}' in lines
    assert run_git(project, "tag", "--list").splitlines() == ["models/wine/production/1", "models/wine/v1"]
    assert "InvalidParameterError" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "+scaler = StandardScaler().fit(X_train)" in lines
    following = lines[lines.index(next(line for line in lines if "To try next" in line)) + 1 :]
    named = re.findall(r"gittrack show (\w+)", "\n".join(following))
    assert runs_of(project)[9].info.run_id.startswith(named[0])
    assert re.search(r"in \d+ seconds", done.stdout)
    told = [line for line in lines if line.startswith("# ") or line in following]
    assert max(len(line) for line in told if str(project) not in line) <= 80


def test_its_commands_can_be_repeated(answer: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    project, done = answer
    following = done.stdout.partition("To try next:")[2].splitlines()[1:]
    commands = [line.strip().partition("  ")[0].split() for line in following if line.strip()]
    readers = [words[1:] for words in commands if words[0] == "gittrack"]
    assert [words[0] for words in readers] == ["show", "artifacts", "reproduce", "log", "models", "models", "help"]
    for words in readers:
        if words[0] != "reproduce" and "serve" not in words:  # have tests of their own; the first leaves a work tree
            done = subprocess.run(
                [sys.executable, "-m", "gittrack", *words],
                cwd=project, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, ""), words
            assert done.stdout


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert main.run(["demo", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert "is not empty" in shown
    assert "hint:" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_scikit_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert main.run(["demo", str(tmp_path / "new")]) == 1
    assert "pip install 'gittrack[demo]'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_changes_fit_the_program() -> None:
    text = (ROOT / "gittrack" / "demo" / "train.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 50
    for before in demo._CHANGES:
        assert text.count(before) == 1


def test_the_dirty_run_is_reproduced(answer: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """Its program makes two runs, and it is the second."""
    run = runs_of(answer[0])[9].info.run_id
    done = subprocess.run(
        [sys.executable, "-m", "gittrack", "reproduce", run, "--run", "--into", tmp_path / "again"],
        cwd=answer[0], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {line.split()[-1] for line in done.stdout.splitlines()[1:]} == {"reproduced"}
