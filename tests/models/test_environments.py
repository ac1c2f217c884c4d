"""Environments are made once, hold what was asked for, and prove whether a model works in them."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack.errors import InvalidValueError, MissingDependencyError, NotFoundError, StateError
from gittrack.models import addresses, environments, requirements
from gittrack.models.environments import Environment
from gittrack.models.trust import Trust


def test_the_local_environment_is_this_python(tmp_path: Path) -> None:
    found = environments.build(["whatever==1"], kind="local", root=tmp_path)
    assert found == Environment("local", Path(sys.executable))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"lines": ["numpy"], "kind": "conda"}, InvalidValueError, "unknown environment `conda`"),
        ({"lines": ["--index-url https://evil.example"]}, InvalidValueError, "an option of pip"),
        ({"lines": ["mine @ https://example.org/m.whl"]}, InvalidValueError, "names an address"),
        ({"lines": ["a"], "constraints": ["a @ https://example.org/m.whl"]}, InvalidValueError, "names an address"),
        ({"lines": ["six"], "python": "3.3.1"}, MissingDependencyError, "made with Python 3.3"),
    ],
)
def test_nothing_is_made_for_a_bad_question(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        environments.build(**arguments, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_child_gets_only_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "AWS_SECRET_ACCESS_KEY", "PIP_TARGET", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "x")
    child = environments.child_environment({"MINE": "1"})
    assert child["MINE"] == "1"
    assert "PATH" in child
    assert not {"PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD", "AWS_SECRET_ACCESS_KEY", "PIP_TARGET"} & set(child)


def test_the_recorded_python(tmp_path: Path) -> None:
    assert environments.recorded_python(tmp_path) is None
    file = tmp_path / "python_env.yaml"
    for text, expected in {
        "python: 3.11.7\n": "3.11.7",
        "python: 3.12\n": None,  # a number to YAML
        "python: '3.12'\n": "3.12",
        "python: ../../evil\n": None,
        "[]": None,
    }.items():
        file.write_text(text)
        assert environments.recorded_python(tmp_path) == expected
    file.write_text("python: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(InvalidValueError):
        environments.recorded_python(tmp_path)


def test_what_pip_says() -> None:
    said = "WARNING: x\nERROR: Could not find a version\nERROR: No matching distribution found for nothing==9\n"
    assert environments._cause(said) == "No matching distribution found for nothing==9"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A forest with an input example, in a folder."""
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    features, target = load_iris(return_X_y=True)
    forest = RandomForestClassifier(n_estimators=5, random_state=0).fit(features, target)
    gittrack.sklearn.save_model(forest, tmp_path / "model", input_example=features[:2])
    return tmp_path / "model"


def test_a_signature_does_not_vouch_for_requirements_that_were_set_later(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted: list[bool] = []

    def build(lines: list[str], **options: Any) -> Environment:
        trusted.append(options["trusted"])
        return Environment("venv", Path(sys.executable))

    monkeypatch.setattr(environments, "build", build)
    for trust in (Trust(signed=lambda: None), Trust(True, signed=lambda: "nobody")):
        local = addresses.fetch(model)
        local.trust = trust
        environments.for_model(local, requirements.read(local.folder))
        requirements.override(local.folder, "six\n")
        environments.for_model(local, requirements.read(local.folder))
    assert trusted == [True, False, True, True]


def test_what_the_requirements_lead_to_is_of_the_locked_versions(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[list[str]] = []

    def build(lines: list[str], **options: Any) -> Environment:
        limits.append(options["constraints"])
        return Environment("venv", Path(sys.executable))

    monkeypatch.setattr(environments, "build", build)
    local = addresses.fetch(model)
    lines = requirements.read(local.folder)
    pins = requirements.lock(lines)
    assert len(pins) > len(lines)
    environments.for_model(local, lines)
    environments.for_model(local, [*lines, "numpy"])  # what is locked will do
    environments.for_model(local, [*lines, "colorama==0.1"])
    environments.for_model(local, ["numpy<1"])
    (local.folder / requirements.LOCK).write_text("numpy\n", encoding="utf-8")
    environments.for_model(local, ["numpy"])
    (local.folder / requirements.CONSTRAINTS).write_text("numpy<9\n", encoding="utf-8")
    environments.for_model(local, lines)
    assert limits == [pins, pins, [], [], [], ["numpy<9"]]
    (local.folder / requirements.CONSTRAINTS).unlink()
    (local.folder / requirements.LOCK).write_text("--index-url https://evil.example\n", encoding="utf-8")
    with pytest.raises(InvalidValueError, match="an option of pip"):
        environments.for_model(local, lines)


@pytest.fixture
def installing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments go into a folder of the test; skips where no package index can be reached.

    pip compiles nothing, unless somebody has decided how it works here: that takes longer than the rest, and Python
    compiles what is imported.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if "PIP_CONFIG_FILE" not in os.environ:
        (tmp_path / "pip.conf").write_text("[install]\ncompile = no\n", encoding="utf-8")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    words = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path / "probe"), "six"]
    if subprocess.run(words, capture_output=True, check=False, timeout=60).returncode:
        pytest.skip("no package index can be reached")


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("installing")
def test_a_model_is_proved_in_an_environment_of_its_own(model: Path) -> None:
    local = addresses.fetch(model)
    said: list[str] = []
    lines = requirements.read(local.folder)
    found = environments.verify(local, lines, say=said.append)
    assert (found.works, found.predicted, found.problem) == (True, True, "")
    assert any("installing" in line for line in said)
    # The same again is there already.
    said.clear()
    environment = environments.for_model(local, lines, say=said.append)
    assert said == []
    done = subprocess.run(
        [environment.python, "-I", "-c", "import gittrack, sklearn; print(gittrack.__file__, sklearn.__version__)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(environment.python.parents[1]) in done.stdout
    assert importlib.metadata.version("scikit-learn") in done.stdout


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("installing")
def test_what_is_missing_is_named(model: Path) -> None:
    local = addresses.fetch(model)
    found = environments.verify(local, ["six"])
    assert not found.works
    assert found.missing in ("numpy", "sklearn", "skops", "pandas")
    assert found.suggestion is not None
    assert "==" in found.suggestion
    with pytest.raises(StateError, match="no-such-distribution-1234"):
        environments.verify(local, ["no-such-distribution-1234==1.0"])
    with pytest.raises(NotFoundError, match="names no requirements"):
        environments.verify(local, [])
    with pytest.raises(InvalidValueError, match="proves nothing"):
        environments.verify(local, ["six"], kind="local")
