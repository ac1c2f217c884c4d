"""`import gittrack`: what it costs, and that type checkers and Python see the same names."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gittrack

Python = Callable[..., "subprocess.CompletedProcess[str]"]

LOADED = "import sys\nbefore = set(sys.modules)\n{}\nprint(*sorted(set(sys.modules) - before))"
HEAVY = ("dulwich", "git", "numpy", "pandas", "psutil", "sqlalchemy", "click", "PIL", "matplotlib", "sklearn", "yaml")


def test_the_import_loads_nothing_else(python: Python) -> None:
    assert python(LOADED.format("import gittrack")).stdout.split() == ["__future__", "gittrack"]


def test_logging_loads_no_heavy_package(python: Python) -> None:
    program = """
import gittrack
with gittrack.start_run():
    gittrack.log_metric("m", 1)
    gittrack.log_param("p", 1)
    gittrack.set_tag("t", 1)
    loaded = set(sys.modules) - before
print(*sorted(loaded))
sys.stdout.flush()
import os
os._exit(0)
"""
    # What happens afterwards, or in the background, is the commit: it needs dulwich and the rest of them.
    done = python(LOADED.format(program), GITTRACK_CODE="none")
    assert not {name.partition(".")[0] for name in done.stdout.split()} & set(HEAVY) - {"psutil"}


def test_type_checkers_and_python_see_the_same_names() -> None:
    tree = ast.parse(Path(gittrack.__file__).read_text(encoding="utf-8"))
    checked: dict[str, str] = {}
    for block in tree.body:
        if isinstance(block, ast.If):
            for line in block.body:
                if isinstance(line, ast.ImportFrom) and line.module != "typing":
                    checked |= {alias.name: str(line.module) for alias in line.names}
    modules = {name for name, home in checked.items() if home == "gittrack"}
    assert modules == set(gittrack._MODULES)
    assert {name: home for name, home in checked.items() if home != "gittrack"} == gittrack._WHERE
    assert set(gittrack.__all__) == set(checked) <= set(dir(gittrack))


@pytest.mark.parametrize("name", sorted(gittrack._WHERE))
def test_every_name_is_the_one_of_its_home(name: str) -> None:
    assert getattr(gittrack, name) is getattr(importlib.import_module(gittrack._WHERE[name]), name)


def test_a_name_that_does_not_exist_is_answered_with_a_near_one() -> None:
    with pytest.raises(AttributeError, match="gittrack has no `log_metrik`; did you mean `log_metric`"):
        gittrack.log_metrik  # noqa: B018
    assert not hasattr(gittrack, "spark")


def test_mlflows_modules_are_there() -> None:
    from gittrack import entities, exceptions, tracking, types

    assert tracking.MlflowClient is gittrack.MlflowClient is gittrack.Client
    assert exceptions.MlflowException is gittrack.MlflowException is gittrack.GittrackError
    assert entities.Run is types.Run
    assert entities.LoggedModelOutput is types.ModelOutput
    assert set(entities.__all__) == {name for name in dir(entities) if name[0].isupper()}


def test_every_public_function_says_what_it_does() -> None:
    for name in gittrack.__all__:
        value = getattr(gittrack, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert value.__doc__, name
            assert inspect.isclass(value) or "return" in value.__annotations__, name
    for name, method in inspect.getmembers(gittrack.Client, inspect.isfunction):
        assert name.startswith("_") or method.__doc__, name


@pytest.mark.skipif(sys.platform == "win32", reason="measures with a POSIX clock")
def test_the_import_is_fast() -> None:
    code = (
        "import time\nimport __future__\nstart = time.process_time()\nimport gittrack\n"
        "print(time.process_time() - start)"
    )
    root = str(Path(gittrack.__file__).parents[1])
    took = min(
        float(subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True).stdout)
        for _ in range(5)
    )
    assert took < 0.005
