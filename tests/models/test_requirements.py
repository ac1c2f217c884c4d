"""What a model needs, read out of its files; requirement lines, read strictly."""

from __future__ import annotations

import importlib.metadata
import json
import pickle
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gittrack.errors import FormatError, GittrackError, InvalidValueError, NotFoundError
from gittrack.models import requirements


def version(name: str) -> str:
    return importlib.metadata.version(name).partition("+")[0]


def names(lines: list[str]) -> set[str]:
    return {requirements.canonical(requirements.parse_line(line).name) for line in lines}


# --- inferring


def forest() -> Any:
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=100, random_state=0).fit(*load_iris(return_X_y=True))


def test_a_pickle_names_what_it_is_made_of(tmp_path: Path) -> None:
    for protocol in (2, 3, 4, 5):
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(forest(), protocol))
        lines = requirements.infer(tmp_path)
        assert f"scikit-learn=={version('scikit-learn')}" in lines
        assert names(lines) == {"scikit-learn", "numpy"}, protocol


def test_a_function_that_imports_when_it_is_called(tmp_path: Path) -> None:
    import cloudpickle

    scope: dict[str, Any] = {"__name__": "__main__"}
    exec("class Model:\n  def predict(self, x):\n    import yaml, scipy.special\n    return yaml.safe_load(x)", scope)
    (tmp_path / "python_model.pkl").write_bytes(cloudpickle.dumps(scope["Model"]()))
    assert {"pyyaml", "scipy", "cloudpickle"} <= names(requirements.infer(tmp_path))


def test_the_pickle_is_read_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "PWNED"
    (tmp_path / "model.pkl").write_bytes(b"cposix\nsystem\n(S'touch %s'\ntR." % str(marker).encode())
    assert requirements.infer(tmp_path) == []
    assert not marker.exists()


def test_skops_keras_and_torch_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.skops", "w") as archive:
        archive.writestr(
            "schema.json", json.dumps({"__module__": "sklearn.svm", "content": [{"__module__": "scipy.x"}]})
        )
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(__import__("numpy").float64(1)))
    assert names(requirements.infer(tmp_path)) == {"scikit-learn", "scipy", "numpy"}


def test_code_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text("import os, mine, other\ndef f():\n    from msgpack import packb\n")
    (tmp_path / "code" / "other.py").write_text("import pandas as pd\n")
    (tmp_path / "code" / "broken.py").write_text("import numpy ((")
    assert names(requirements.infer(tmp_path)) == {"msgpack", "pandas"}


def test_what_a_prediction_imported_is_pruned_but_what_is_named_is_not(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(forest()))
    found = requirements.infer(
        tmp_path, distributions=["pandas"], modules=["joblib._x", "msgpack", "dateutil.tz", "os"]
    )
    # joblib comes with scikit-learn and dateutil with pandas; numpy comes with both, but the pickle names it itself.
    assert names(found) == {"scikit-learn", "numpy", "pandas", "msgpack"}


def test_what_writes_models_is_not_needed_to_run_them(tmp_path: Path) -> None:
    assert requirements.infer(tmp_path, distributions=["setuptools", "gittrack"], modules=["mlflow", "pip"]) == []


def test_a_local_build_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.9.0+cpu")
    assert requirements.pinned("torch") == "torch==2.9.0  # installed was 2.9.0+cpu"
    assert requirements.parse_line("torch==2.9.0  # installed was 2.9.0+cpu").name == "torch"


def test_garbage_has_no_requirements(tmp_path: Path) -> None:
    for name, data in {
        "a.pkl": b"\x80\x05garbage",
        "b.skops": b"PK\x03\x04nothing",
        "c.pt": b"",
        "d.py": b"\0",
    }.items():
        (tmp_path / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / "e.skops", "w") as archive:
        archive.writestr("schema.json", "[" * 100_000)
    assert requirements.infer(tmp_path) == []


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_without_harm(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "model.pkl").write_bytes(b"\x80\x04" + data)
    requirements.infer(folder)


def test_inferring_does_not_slow_the_training(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(forest()))
    requirements.infer(tmp_path)  # reads once what is installed
    took = []
    for _ in range(5):
        start = time.perf_counter()
        requirements.infer(tmp_path, distributions=["scikit-learn"], modules=["pandas"])
        took.append(time.perf_counter() - start)
    assert min(took) < 0.5


def test_the_lock_is_the_closure(tmp_path: Path) -> None:
    lines = requirements.lock([f"pandas=={version('pandas')}"])
    assert {"pandas", "numpy", "python-dateutil", "six"} >= names(lines) - {"tzdata", "pytz"}
    assert {"pandas", "numpy", "python-dateutil"} <= names(lines)
    assert all("==" in line for line in lines)
    assert requirements.lock(["no-such-distribution-anywhere"]) == []


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, gittrack.models.requirements; print({'packaging', 'yaml', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# --- lines


@pytest.mark.parametrize(
    "line",
    [
        "numpy",
        "numpy==2.0",
        "scikit-learn[all]>=1.4,<2 ; python_version >= '3.10'",
        f"numpy==2.0 --hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}",
        "torch==2.9.0  # installed was 2.9.0+cpu",
        "mine @ https://example.org/mine-1.0-py3-none-any.whl",
    ],
)
def test_requirements(line: str) -> None:
    assert requirements.check([line, "", "# only a comment"]) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://evil.example",
        "-e .",
        "-r other.txt",
        "./local",
        "../up",
        "numpy==2.0 --index-url https://evil.example",
        "mine @ https://user:secret@example.org/x.whl",
        "mine @ git+https://example.org/x",
        "mine @ file:///etc/passwd",
        "numpy==2.0\nevil",
        "a b",
        "x" * 5000,
        "numpy; __import__('os')",
    ],
)
def test_no_requirements(line: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        requirements.check([line])
    assert caught.value.message


@given(st.text(max_size=60))
def test_lines_fail_only_in_our_way(line: str) -> None:
    try:
        requirements.check([line])
    except GittrackError:
        return


def test_files_with_includes_and_constraints(tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("numpy\n-c limits.txt\n")
    (tmp_path / "limits.txt").write_text("pandas<3\n")
    (tmp_path / "all.txt").write_text("# mine\n-r base.txt\nscipy>=1\n")
    assert requirements.given(str(tmp_path / "all.txt")) == (["numpy", "scipy>=1"], ["pandas<3"])
    assert requirements.given(["numpy", f"-c {tmp_path}/limits.txt"]) == (["numpy"], ["pandas<3"])
    assert requirements.given(None) == ([], [])
    with pytest.raises(NotFoundError, match=r"no requirements file"):
        requirements.given(str(tmp_path / "missing.txt"))
    (tmp_path / "loop.txt").write_text("-r loop.txt\n")
    with pytest.raises(InvalidValueError, match="include each other"):
        requirements.given(str(tmp_path / "loop.txt"))


def test_editing() -> None:
    lines = ["numpy==1.0", "scikit_learn==1.4"]
    assert requirements.edited(lines, add=["Scikit-Learn==1.5", "scipy"]) == [
        "numpy==1.0",
        "Scikit-Learn==1.5",
        "scipy",
    ]
    assert requirements.edited(lines, remove=["numpy"]) == ["scikit_learn==1.4"]
    with pytest.raises(NotFoundError) as caught:
        requirements.edited(lines, remove=["pandas"])
    assert caught.value.hint == "they are numpy, scikit-learn"
    with pytest.raises(InvalidValueError, match="twice"):
        requirements.check(["numpy==1", "NumPy==2"])


def test_an_override_keeps_what_was_recorded(tmp_path: Path) -> None:
    (tmp_path / requirements.REQUIREMENTS).write_text("numpy==1.0")
    (tmp_path / requirements.LOCK).write_text("numpy==1.0\n")
    (tmp_path / "conda.yaml").write_text("dependencies:\n- python=3.11\n- pip:\n  - numpy==1.0\nname: mlflow-env\n")
    requirements.override(tmp_path, "numpy==2.0\nscipy\n")
    assert requirements.read(tmp_path) == ["numpy==2.0", "scipy"]
    assert (tmp_path / requirements.RECORDED).read_text() == "numpy==1.0"
    assert not (tmp_path / requirements.LOCK).exists()
    assert "numpy==2.0" in (tmp_path / "conda.yaml").read_text()


def test_an_override_keeps_to_the_constraints(tmp_path: Path) -> None:
    (tmp_path / requirements.CONSTRAINTS).write_text("scipy<2")
    requirements.override(tmp_path, "scipy\n")
    assert (tmp_path / requirements.REQUIREMENTS).read_text() == "scipy\n-c constraints.txt"
    assert requirements.read(tmp_path) == ["scipy"]
    (tmp_path / requirements.CONDA_ENV).write_text("dependencies: [")
    with pytest.raises(FormatError, match="cannot be read"):
        requirements.override(tmp_path, "numpy\n")
    assert requirements.read(tmp_path) == ["scipy"]


@pytest.mark.parametrize("table", [True, False])
def test_what_the_input_is_made_of_is_needed_though_it_was_loaded_before(tmp_path: Path, table: bool) -> None:
    import pandas as pd

    import gittrack
    from gittrack.models import infer_signature

    rows = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    data = rows if table else rows.to_numpy()
    for number, options in enumerate([{"input_example": data}, {"signature": infer_signature(data)}]):
        folder = tmp_path / str(number)
        gittrack.sklearn.save_model(forest(), folder, **options)
        assert ("pandas" in names(requirements.read(folder))) == table
