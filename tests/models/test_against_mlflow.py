"""The real MLflow reads what gittrack writes, gittrack reads what MLflow writes, and both infer and enforce the same.

Needs the ``mlflow`` package (``pip install 'mlflow>=3.17'``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import gittrack
import gittrack.sklearn
from gittrack import pyfunc
from gittrack.data.schema import ColSpec, Schema, TensorSpec, infer_schema
from gittrack.errors import FormatError, SchemaError
from gittrack.models import examples, signature as ours
from gittrack.models.enforcement import enforce_params, enforce_schema
from gittrack.models.examples import Example
from tests.models import cases, estimators
from tests.models.conftest import equal

mlflow = pytest.importorskip("mlflow", reason="compares with the real MLflow, which is not installed here")
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]


# --- models


@pytest.mark.parametrize("name", estimators.NAMES)
def test_mlflow_loads_what_gittrack_logged(name: str, tmp_path: Path) -> None:
    model, rows = estimators.fitted(name)
    gittrack.sklearn.save_model(model, tmp_path / "m")
    path = str(tmp_path / "m")
    assert equal(mlflow.sklearn.load_model(path).predict(rows), model.predict(rows))
    assert equal(mlflow.pyfunc.load_model(path).predict(rows), model.predict(rows))


@pytest.mark.parametrize("form", ["skops", "cloudpickle", "pickle"])
def test_gittrack_loads_what_mlflow_logged(form: str, tmp_path: Path, iris: Any) -> None:
    model, _ = estimators.fitted("logistic")
    mlflow.sklearn.save_model(
        model,
        str(tmp_path / "m"),
        serialization_format=form,
        input_example=iris[0][:3].to_numpy(),
        pip_requirements=["x"],
    )
    trust = form != "skops"
    assert equal(gittrack.sklearn.load_model(tmp_path / "m", trust=trust).predict(iris[0]), model.predict(iris[0]))
    loaded = pyfunc.load_model(tmp_path / "m", trust=trust)
    assert equal(loaded.predict(iris[0].to_numpy()), model.predict(iris[0]))
    assert equal(loaded.input_example, iris[0][:3])


def test_gittrack_loads_forests_that_mlflow_was_told_to_trust(tmp_path: Path) -> None:
    model, rows = estimators.fitted("forest")
    mlflow.sklearn.save_model(
        model, str(tmp_path / "m"), skops_trusted_types=["sklearn.tree._tree.Tree"], pip_requirements=["x"]
    )
    assert equal(gittrack.sklearn.load_model(tmp_path / "m").predict(rows), model.predict(rows))


def test_mlflow_fails_where_gittrack_does_not(tmp_path: Path) -> None:
    model, _ = estimators.fitted("forest")
    with pytest.raises(mlflow.exceptions.MlflowException, match="untrusted types"):
        mlflow.sklearn.save_model(model, str(tmp_path / "m"), pip_requirements=["x"])


def test_mlflow_crashes_where_gittrack_refuses(tmp_path: Path) -> None:
    """A tree whose first child is far away; MLflow trusts the list of types that the model brings along."""
    from tests.models.test_malicious import CRAFTED, change, skops_folder

    kind, edit = CRAFTED["child-far"]
    model, _ = estimators.fitted(kind)
    folder = change(skops_folder(tmp_path / "m", model), edit)
    program = (
        "import mlflow, numpy, sys\nmodel = mlflow.sklearn.load_model(sys.argv[1])\n"
        "print('loaded', flush=True)\nmodel.predict(numpy.zeros((3, 4)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["loaded"]
    assert done.returncode == -signal.SIGSEGV
    with pytest.raises(FormatError, match="a child of a tree leads out of bounds"):
        gittrack.sklearn.load_model(folder)


def test_python_models_both_ways(tmp_path: Path) -> None:
    class Theirs(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]  # mlflow is read as untyped
        def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
            return model_input["x"] * 2

    rows = pd.DataFrame({"x": [1, 2]})
    mlflow.pyfunc.save_model(str(tmp_path / "a"), python_model=Theirs(), input_example=rows, pip_requirements=["x"])
    assert pyfunc.load_model(tmp_path / "a", trust=True).predict(rows).tolist() == [2, 4]
    from tests.models.test_pyfunc import Configured

    pyfunc.save_model(tmp_path / "b", python_model=Configured(), model_config={"a": 1})
    assert mlflow.pyfunc.load_model(str(tmp_path / "b")).predict(rows) == [{"a": 1}]


def test_signature_and_example_are_mlflows(tmp_path: Path, iris: Any) -> None:
    model, _ = estimators.fitted("logistic")
    gittrack.sklearn.save_model(model, tmp_path / "a", input_example=iris[0][:3])
    mlflow.sklearn.save_model(model, str(tmp_path / "b"), input_example=iris[0][:3], pip_requirements=["x"])
    a, b = (mlflow.models.Model.load(str(tmp_path / name)) for name in "ab")
    assert a.signature.to_dict() == b.signature.to_dict()
    assert a.saved_input_example_info == b.saved_input_example_info
    for file in ("input_example.json", "serving_input_example.json"):
        assert json.loads((tmp_path / "a" / file).read_bytes()) == json.loads((tmp_path / "b" / file).read_bytes())
    assert a.load_input_example(str(tmp_path / "a")).equals(iris[0][:3])


# --- signatures


@pytest.mark.parametrize("name", [*cases.DATA, *cases.NO_SCHEMA])
def test_the_same_schema(name: str) -> None:
    data = {**cases.DATA, **cases.NO_SCHEMA}[name]
    theirs = mlflow.models.infer_signature(data, data)
    assert ours.infer_signature(data, data).to_dict() == theirs.to_dict()
    again = ours.ModelSignature.from_dict(theirs.to_dict())
    assert mlflow.models.ModelSignature.from_dict(again.to_dict()) == theirs


@pytest.mark.parametrize(
    "params", [{"a": 1, "b": 1.5, "c": "x", "d": True}, {"l": [1, 2], "s": ["a", "b"], "f": [0.5]}, {"o": {"x": 1}}]
)
def test_the_same_params(params: dict[str, Any]) -> None:
    theirs = mlflow.models.infer_signature(params=params)
    assert json.loads(str(ours.infer_signature(params=params).to_dict()["params"])) == json.loads(
        theirs.to_dict()["params"]
    )


EXAMPLES = {
    name: data for name, data in cases.DATA.items() if not name.startswith(("series", "list-arrays", "dict-array"))
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_same_example(name: str) -> None:
    theirs = mlflow.models.utils._Example(EXAMPLES[name])
    mine = Example.of(EXAMPLES[name])
    assert mine.info == theirs.info
    # MLflow writes NaN, which is no JSON; and a sparse matrix as a text.
    if "NaN" not in theirs.json_input_example:
        assert json.loads(mine.input_json) == json.loads(theirs.json_input_example)
        assert json.loads(mine.serving_json) == json.loads(theirs.json_serving_input)


# --- enforcement

COLUMNS = Schema(
    [ColSpec("double", "d"), ColSpec("long", "l"), ColSpec("integer", "i", required=False),
     ColSpec("float", "f", False), ColSpec("string", "s", False), ColSpec("boolean", "b", False),
     ColSpec("datetime", "t", False)]
)  # fmt: skip
INPUTS: dict[str, Any] = {
    "plain": pd.DataFrame({"d": [1.5], "l": [1]}),
    "order": pd.DataFrame({"l": [1], "x": [0], "d": [1.5]}, index=[5]),
    "missing": pd.DataFrame({"d": [1.5]}),
    "narrow": pd.DataFrame({"d": np.array([1], "float32"), "l": np.array([1], "int8")}),
    "int-for-double": pd.DataFrame({"d": np.array([1], "int32"), "l": [1]}),
    "long-for-double": pd.DataFrame({"d": [3], "l": [1]}),
    "flags-for-double": pd.DataFrame({"d": [0, 1], "l": [1, 2]}),
    "double-for-long": pd.DataFrame({"d": [1.0], "l": [1.0]}),
    "nan-for-long": pd.DataFrame({"d": [1.0], "l": [np.nan]}),
    "unsigned": pd.DataFrame({"d": [1.0], "l": np.array([1], "uint32")}),
    "unsigned-wide": pd.DataFrame({"d": [1.0], "l": np.array([1], "uint64")}),
    "bool-for-double": pd.DataFrame({"d": [True], "l": [1]}),
    "text-for-double": pd.DataFrame({"d": ["1"], "l": [1]}),
    "objects": pd.DataFrame({"d": pd.Series([1.5], dtype=object), "l": pd.Series([1], dtype=object)}),
    "long-for-integer": pd.DataFrame({"d": [1.5], "l": [1], "i": [1]}),
    "double-for-float": pd.DataFrame({"d": [1.5], "l": [1], "f": [1.5]}),
    "others": pd.DataFrame({"d": [1.5], "l": [1], "s": ["a"], "b": [True], "t": pd.to_datetime(["2020-01-01"])}),
    "none-for-bool": pd.DataFrame({"d": [1.5, 2.5], "l": [1, 2], "b": [True, None]}),
    "int-for-text": pd.DataFrame({"d": [1.5], "l": [1], "s": [1]}),
    "text-for-time": pd.DataFrame({"d": [1.5], "l": [1], "t": ["2020-01-01"]}),
    "dict": {"d": 1.5, "l": 1},
    "dict-columns": {"d": [1.5, 2.5], "l": [1, 2]},
    "rows": [{"d": 1.5, "l": 1}],
    "array": np.zeros((2, 2)),
    "series": pd.Series([1.5], name="d"),
    "scalar": 1.5,
    "empty": pd.DataFrame({"d": pd.Series([], dtype="float64"), "l": pd.Series([], dtype="int64")}),
}


def both(mine: Any, theirs: Any) -> None:
    """The same result, or an error on both sides."""
    try:
        expected = theirs()
    except Exception:  # noqa: BLE001 - MLflow raises what numpy and pandas raise, too
        with pytest.raises(SchemaError):
            mine()
        return
    found = mine()
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    elif isinstance(expected, dict):
        assert sorted(found) == sorted(expected)
        assert all(equal(found[key], expected[key]) for key in expected)
    else:
        assert equal(found, expected)


@pytest.mark.parametrize("name", INPUTS)
def test_the_same_columns(name: str) -> None:
    theirs = mlflow.types.Schema.from_json(COLUMNS.to_json())
    both(
        lambda: enforce_schema(INPUTS[name], COLUMNS),
        lambda: mlflow.models.utils._enforce_schema(INPUTS[name], theirs),
    )


TENSORS: list[tuple[Schema, Any]] = [
    (Schema([TensorSpec("float64", (-1, 2))]), data)
    for data in (
        np.zeros((3, 2)), np.zeros((3, 3)), np.zeros((3, 2), "float32"), np.zeros(3), pd.DataFrame(np.zeros((3, 2))),
        pd.DataFrame({"a": [[1, 2], [3, 4]]}), pd.DataFrame({"a": [1, 2]}), [[1.0, 2.0]],
    )
] + [
    (Schema([TensorSpec("int64", (-1,), "a"), TensorSpec("float64", (-1, 2), "b")]), data)
    for data in (
        {"a": np.zeros(1, "int64"), "b": np.zeros((1, 2))}, {"b": np.zeros((1, 2))}, {"a": [1], "b": np.zeros((1, 2))},
        pd.DataFrame({"a": [1, 2], "b": [[1, 2], [3, 4]]}), {"a": np.zeros(1), "b": np.zeros((1, 2))},
    )
]  # fmt: skip


@pytest.mark.parametrize(("schema", "data"), TENSORS)
def test_the_same_tensors(schema: Schema, data: Any) -> None:
    theirs = mlflow.types.Schema.from_json(schema.to_json())
    both(lambda: enforce_schema(data, schema), lambda: mlflow.models.utils._enforce_schema(data, theirs))


@pytest.mark.parametrize(
    ("column", "data"),
    [
        ([{"a": 1}], [{"a": 2}]),
        ([{"a": 1}], [{"b": 2}]),
        ([{"a": [1, 2]}], [{"a": [3]}]),
        ([{"a": [1, 2]}], [{"a": ["x"]}]),
        ([[1.0, 2.0]], [[3.0]]),
        ([["a"]], [["b", "c"], []]),
        ([{"a": {"b": 1}}, {"a": {}}], [{"a": {"b": 2}}]),
    ],
)
def test_the_same_nested_values(column: list[Any], data: list[Any]) -> None:
    schema = infer_schema(pd.DataFrame({"x": column}))
    theirs = mlflow.types.Schema.from_json(schema.to_json())
    frame = pd.DataFrame({"x": data})
    both(
        lambda: enforce_schema(frame.copy(deep=True), schema),
        lambda: mlflow.models.utils._enforce_schema(frame.copy(deep=True), theirs),
    )


@pytest.mark.parametrize(
    "given", [None, {}, {"n": 5}, {"n": 2.5}, {"n": "x"}, {"t": 1}, {"q": 1}, {"s": ["b"]}, {"s": "b"}]
)
def test_the_same_parameters(given: Any) -> None:
    params = {"n": 3, "t": 0.5, "s": ["a"]}
    mine = ours.infer_signature(params=params).params
    theirs = mlflow.models.infer_signature(params=params).params
    both(lambda: enforce_params(given, mine), lambda: mlflow.models.utils._enforce_params_schema(given, theirs))


# --- speed


def test_log_model_of_a_forest(project: Path, iris: Any) -> None:
    """A forest of 100 trees with all defaults, requirements included; the bound is generous, the figure is printed."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(100).fit(*iris)
    seconds = []
    with gittrack.start_run():
        for _ in range(4):
            before = time.perf_counter()
            gittrack.sklearn.log_model(model, name="model", input_example=iris[0][:3])
            seconds.append(time.perf_counter() - before)
    program = (
        "import mlflow, time, sys\nfrom sklearn.datasets import load_iris\n"
        "from sklearn.ensemble import RandomForestClassifier\n"
        "rows, labels = load_iris(return_X_y=True, as_frame=True)\n"
        "model = RandomForestClassifier(100).fit(rows, labels)\nmlflow.set_tracking_uri('sqlite:///' + sys.argv[1])\n"
        "with mlflow.start_run():\n"
        "    before = time.perf_counter()\n"
        "    mlflow.sklearn.log_model(model, name='model', input_example=rows[:3],\n"
        "                             skops_trusted_types=['sklearn.tree._tree.Tree'])\n"
        "    print(time.perf_counter() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(project / "mlflow.db")],
        capture_output=True, text=True, check=True, cwd=project, env={**os.environ},
    )  # fmt: skip
    theirs = float(done.stdout.split()[-1])
    print(f"\nlog_model of a forest: first {seconds[0]:.2f} s, then {min(seconds[1:]):.2f} s; MLflow {theirs:.2f} s")
    assert min(seconds[1:]) < 3
    assert min(seconds[1:]) < theirs / 3


def test_serving_input_is_mlflows() -> None:
    data = pd.DataFrame({"a": [1, 2]})
    theirs = mlflow.models.convert_input_example_to_serving_input(data)
    assert json.loads(str(examples.convert_input_example_to_serving_input(data))) == json.loads(theirs)
    with warnings.catch_warnings():
        assert examples.convert_input_example_to_serving_input(None) is None
