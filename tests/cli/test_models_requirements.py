"""``gittrack models requirements``: shown, changed with a history, undone, proved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gittrack
from gittrack.models import addresses, requirements
from tests.api import conftest
from tests.cli.conftest import Cli
from tests.conftest import run_git

project = conftest.project


@pytest.fixture
def iris(project: Path) -> Path:
    """A repository, which is the current folder, with a registered model."""
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    features, target = load_iris(return_X_y=True)
    with gittrack.start_run():
        model = LogisticRegression(max_iter=1000).fit(features, target)
        gittrack.sklearn.log_model(model, name="model", input_example=features[:2], registered_model_name="iris")
    return project


def test_shown_changed_and_undone(iris: Path, cli: Cli) -> None:
    before = cli("models", "requirements", "iris@v1")
    assert before.status == 0, before.err
    recorded = before.out.splitlines()
    assert any(line.startswith("scikit-learn==") for line in recorded)
    assert any(line.startswith("skops==") for line in recorded)
    tag = run_git(iris, "rev-parse", "refs/tags/models/iris/v1")

    changed = cli("models", "requirements", "iris@v1", "--add", "scikit_learn==1.5.0", "-r", "skops", "-m", "a fix")
    assert changed.status == 0, changed.err
    assert "+ scikit_learn==1.5.0" in changed.out
    assert any(line.startswith("- skops==") for line in changed.out.splitlines())
    after = cli("models", "requirements", "iris@v1")
    assert "scikit_learn==1.5.0" in after.out.splitlines()
    assert "`--reset` undoes it" in after.err
    assert run_git(iris, "rev-parse", "refs/tags/models/iris/v1") == tag
    # Every copy asks for them from now on, and tells what was recorded.
    local = addresses.fetch("models:/iris/1")
    assert "scikit_learn==1.5.0" in requirements.read(local.folder)
    assert (local.folder / requirements.RECORDED).read_text().splitlines() == recorded

    document = json.loads(cli("models", "requirements", "iris@v1", "--json").out)
    assert (document["changed"], document["recorded"]) == (True, recorded)
    log = cli("models", "requirements", "iris@v1", "--log").out
    assert "a fix" in log
    assert "scikit_learn==1.5.0" in log
    assert cli("models", "requirements", "iris@v1", "--reset").status == 0
    assert cli("models", "requirements", "iris@v1").out.splitlines() == recorded
    assert len(json.loads(cli("models", "requirements", "iris@v1", "--log", "--json").out)) == 2


def test_from_a_file_and_the_same_again(iris: Path, cli: Cli) -> None:
    assert "`iris` v1 were never changed" in cli("models", "requirements", "iris@latest", "--log").err
    answer = cli("models", "requirements", "iris@latest", "--set", "-", stdin="# mine\nnumpy\nskops\n")
    assert answer.status == 0, answer.err
    assert cli("models", "requirements", "iris@latest").out == "numpy\nskops\n"
    assert "were never changed" not in cli("models", "requirements", "iris@latest", "--log").err
    again = cli("models", "requirements", "iris@latest", "--add", "numpy")
    assert (again.out, again.status) == ("", 0)
    assert "stay as they are" in again.err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["iris@v9"], 1, "iris"),
        (["iris@v1", "--add", "--index-url https://evil.example"], 2, "option of pip"),
        (["iris@v1", "--remove", "pandas"], 1, "none of the requirements"),
        (["iris@v1", "--reset", "--add", "numpy"], 2, "exclude each other"),
        (["iris@v1", "--log", "--verify"], 2, "exclude each other"),
        (["iris@v1", "--env", "local", "--verify"], 2, "local"),
        (["iris@v1", "--set", "numpy=="], 2, "`numpy==` is neither a file nor a requirement"),
        (["iris@v1", "--set", "numpy==2.1.3"], 1, "there is no file `numpy==2.1.3`"),
        (["iris@v1", "--set", "."], 1, "cannot read `.`"),
        (["iris"], 2, "iris"),
    ],
)
def test_wrong_questions_change_nothing(iris: Path, cli: Cli, words: list[str], status: int, message: str) -> None:
    before = cli("models", "requirements", "iris@v1").out
    answer = cli("models", "requirements", *words)
    assert (answer.status, answer.out) == (status, ""), answer.err
    assert answer.err.startswith("error: ")
    assert message in answer.err
    assert cli("models", "requirements", "iris@v1").out == before
