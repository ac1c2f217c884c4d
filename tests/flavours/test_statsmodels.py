"""statsmodels: a pickle, so it is marked and loaded only by who trusts it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gittrack
from gittrack import pyfunc
from gittrack.errors import InvalidValueError, UntrustedModelError
from gittrack.models.model import Model
from tests.flavours.conftest import Mlflow, matrix

api = pytest.importorskip("statsmodels.api", reason="models of statsmodels")


def test_only_with_trust(tmp_path: Path, table: Any, labels: Any, mlflow_predicts: Mlflow) -> None:
    results = api.OLS(labels, table).fit()
    gittrack.statsmodels.save_model(results, tmp_path / "model", input_example=table[:2])
    assert Model.load(tmp_path / "model").gittrack == {"formats": ["pickle"], "runs_code": True}
    with pytest.raises(UntrustedModelError):
        gittrack.statsmodels.load_model(tmp_path / "model")
    with pytest.raises(UntrustedModelError):
        pyfunc.load_model(tmp_path / "model")
    loaded = gittrack.statsmodels.load_model(tmp_path / "model", trust=True)
    assert np.allclose(loaded.params, results.params)
    found = matrix(pyfunc.load_model(tmp_path / "model", trust=True).predict(table))
    assert np.allclose(found, matrix(results.predict(table)))
    assert np.allclose(found, mlflow_predicts(tmp_path / "model", table))


def test_a_time_series(tmp_path: Path) -> None:
    import pandas as pd

    series = np.sin(np.arange(50.0))
    results = api.tsa.ARIMA(series, order=(1, 0, 0)).fit()
    gittrack.statsmodels.save_model(results, tmp_path / "model", remove_data=False)
    model = pyfunc.load_model(tmp_path / "model", trust=True)
    found = model.predict(pd.DataFrame({"start": [50], "end": [52]}))
    assert np.allclose(found, results.predict(50, 52))
    with pytest.raises(InvalidValueError, match="one row"):
        model.predict(pd.DataFrame({"x": [1, 2]}))


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="no result of statsmodels"):
        gittrack.statsmodels.save_model(object(), tmp_path / "model")
