"""XGBoost, LightGBM and CatBoost: kept without code, the same predictions here, there and in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gittrack
from gittrack import pyfunc
from gittrack.errors import FormatError, InvalidValueError, UntrustedModelError
from gittrack.models.model import Model
from gittrack.models.scoring import Scorer
from tests.flavours.conftest import Mlflow, matrix

NAMES = ("xgboost-booster", "xgboost-estimator", "lightgbm-booster", "lightgbm-estimator", "catboost")


def trained(name: str, table: Any, labels: Any) -> tuple[Any, Any]:
    """(gittrack's module, a model)."""
    library, _, kind = name.partition("-")
    module = pytest.importorskip(library, reason=f"a model of {library}")
    ours = getattr(gittrack, library)
    if library == "catboost":
        return ours, module.CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False).fit(
            table, labels
        )
    if library == "xgboost":
        if kind == "booster":
            settings = {"objective": "multi:softprob", "num_class": 3}
            return ours, module.train(settings, module.DMatrix(table, label=labels), 3)
        return ours, module.XGBClassifier(n_estimators=3).fit(table, labels)
    settings = {"verbose": -1, "n_estimators": 3}
    if kind == "booster":
        data = module.Dataset(table, label=labels)
        return ours, module.train({**settings, "objective": "multiclass", "num_class": 3}, data)
    return ours, module.LGBMClassifier(**settings).fit(table, labels)


@pytest.mark.parametrize("name", NAMES)
def test_kept_and_loaded_without_trust(
    name: str, tmp_path: Path, table: Any, labels: Any, mlflow_predicts: Mlflow
) -> None:
    ours, model = trained(name, table, labels)
    ours.save_model(model, tmp_path / "model", input_example=table[:3])
    about = Model.load(tmp_path / "model")
    assert about.gittrack["runs_code"] is False
    lines = (tmp_path / "model" / "requirements.txt").read_text().splitlines()
    assert any(line.startswith(f"{name.partition('-')[0]}==") for line in lines)

    expected = matrix(pyfunc.load_model(tmp_path / "model").predict(table))
    native = ours.load_model(tmp_path / "model")
    assert type(native) is type(model)
    if hasattr(native, "predict_proba"):
        assert np.allclose(native.predict_proba(table), model.predict_proba(table))
    assert np.allclose(expected, mlflow_predicts(tmp_path / "model", table))


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_what_mlflow_logged_is_loaded(name: str, tmp_path: Path, table: Any, labels: Any) -> None:
    pytest.importorskip("mlflow", reason="compares with the real MLflow")
    import importlib

    _, model = trained(name, table, labels)
    theirs = importlib.import_module(f"mlflow.{name.partition('-')[0]}")
    options = {"skops_trusted_types": ["collections.OrderedDict", "lightgbm.basic.Booster",
               "lightgbm.sklearn.LGBMClassifier"]} if name == "lightgbm-estimator" else {}  # fmt: skip
    theirs.save_model(model, tmp_path / "model", pip_requirements=["numpy"], **options)
    import mlflow

    expected = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(table)
    assert np.allclose(matrix(pyfunc.load_model(tmp_path / "model").predict(table)), matrix(expected))


@pytest.mark.parametrize("name", NAMES)
def test_garbage_is_a_typed_error(name: str, tmp_path: Path, table: Any, labels: Any) -> None:
    ours, model = trained(name, table, labels)
    ours.save_model(model, tmp_path / "model")
    [file] = [path for path in (tmp_path / "model").iterdir() if path.name.startswith("model.")]
    for data in (b"", b"garbage", b"{}", b"\0" * 100):
        file.write_bytes(data)
        with pytest.raises(FormatError, match=r"cannot be read|skops format"):
            ours.load_model(tmp_path / "model")
    import pickle

    file.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises((UntrustedModelError, FormatError)):
        ours.load_model(tmp_path / "model")


@pytest.mark.parametrize("name", ["xgboost-booster", "xgboost-estimator", "catboost"])
def test_a_class_that_is_not_known_is_never_imported(name: str, tmp_path: Path, table: Any, labels: Any) -> None:
    ours, model = trained(name, table, labels)
    ours.save_model(model, tmp_path / "model")
    about = Model.load(tmp_path / "model")
    flavour = name.partition("-")[0]
    about.flavors[flavour]["model_type" if flavour == "catboost" else "model_class"] = "subprocess.Popen"
    about.save(tmp_path / "model" / "MLmodel")
    with pytest.raises(FormatError, match="which gittrack does not know"):
        ours.load_model(tmp_path / "model")


@pytest.mark.parametrize("name", ["xgboost-booster", "lightgbm-booster", "catboost"])
def test_no_model_of_the_library(name: str, tmp_path: Path) -> None:
    library = name.partition("-")[0]
    pytest.importorskip(library, reason=f"a model of {library}")
    with pytest.raises(InvalidValueError, match="is no model of"):
        getattr(gittrack, library).save_model(object(), tmp_path / "model")


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("name", NAMES)
def test_a_server_predicts_from_arrays_what_a_table_gives(name: str, tmp_path: Path, table: Any, labels: Any) -> None:
    ours, model = trained(name, table, labels)
    ours.save_model(model, tmp_path / "model", input_example=table[:3])
    loaded = pyfunc.load_model(tmp_path / "model")
    scorer = Scorer(loaded)
    shuffled = table[["f3", "f1", "f0", "f2"]]
    body = json.dumps({"dataframe_split": shuffled.to_dict(orient="split")}).encode()
    request = scorer.read(body, "application/json")
    assert request.matrix is (name != "catboost")
    assert np.array_equal(np.asarray(scorer.predict(request)), np.asarray(loaded.predict(table)))
    one = scorer.rows(["f0", "f1", "f2", "f3"], [table.iloc[70].tolist()], None)
    assert np.array_equal(np.asarray(scorer.predict(one))[0], np.asarray(loaded.predict(table))[70])
