"""What was inferred is enough: installed alone, in a clean environment, each model is loaded and predicts its example.

One flavour by default; all of them with ``GITTRACK_REQUIREMENTS=full``, which downloads every library anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gittrack
from gittrack.models import addresses, environments, requirements

FULL = os.environ.get("GITTRACK_REQUIREMENTS") == "full"
pytestmark = [pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore")]


def sklearn(folder: Path, table: Any, labels: Any) -> None:
    from sklearn.ensemble import RandomForestClassifier

    gittrack.sklearn.save_model(RandomForestClassifier(5).fit(table, labels), folder, input_example=table[:2])


def xgboost(folder: Path, table: Any, labels: Any) -> None:
    module = pytest.importorskip("xgboost", reason="a model of xgboost")
    model = module.XGBClassifier(n_estimators=2).fit(table, labels)
    gittrack.xgboost.save_model(model, folder, input_example=table[:2])


def lightgbm(folder: Path, table: Any, labels: Any) -> None:
    module = pytest.importorskip("lightgbm", reason="a model of lightgbm")
    model = module.LGBMClassifier(n_estimators=2, verbose=-1).fit(table, labels)
    gittrack.lightgbm.save_model(model, folder, input_example=table[:2])


def catboost(folder: Path, table: Any, labels: Any) -> None:
    module = pytest.importorskip("catboost", reason="a model of catboost")
    model = module.CatBoostClassifier(iterations=2, verbose=False, allow_writing_files=False).fit(table, labels)
    gittrack.catboost.save_model(model, folder, input_example=table[:2])


def statsmodels(folder: Path, table: Any, labels: Any) -> None:
    api = pytest.importorskip("statsmodels.api", reason="a model of statsmodels")
    gittrack.statsmodels.save_model(api.OLS(labels, table).fit(), folder, input_example=table[:2])


def onnx(folder: Path, table: Any, labels: Any) -> None:
    pytest.importorskip("onnx", reason="a model in ONNX")
    from tests.flavours.test_onnx import linear

    gittrack.onnx.save_model(linear(), folder, input_example=table.to_numpy()[:2])


MAKERS: list[Callable[[Path, Any, Any], None]] = [sklearn, xgboost, lightgbm, catboost, statsmodels, onnx]


@pytest.mark.parametrize("make", MAKERS if FULL else MAKERS[:1], ids=lambda make: make.__name__)
def test_what_was_inferred_is_enough(
    make: Callable[[Path, Any, Any], None], tmp_path: Path, table: Any, labels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path / "probe"), "six"]
    if subprocess.run(probe, capture_output=True, check=False, timeout=60).returncode:
        pytest.skip("no package index can be reached")
    make(tmp_path / "model", table, labels)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = addresses.fetch(tmp_path / "model", trust=make is statsmodels)
    lines = requirements.read(local.folder)
    found = environments.verify(local, lines)
    assert (found.works, found.predicted) == (True, True), found.problem
    environment = environments.for_model(local, lines)
    words = [str(environment.python), "-I", "-m", "pip", "freeze"]
    frozen = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    truth = {requirements.canonical(line.partition("==")[0]): line.partition("==")[2] for line in frozen}
    for line in lines:  # and what was installed is what was recorded
        wanted = requirements.parse_line(line)
        assert wanted.specifier.contains(truth[requirements.canonical(wanted.name)])
    print(f"{make.__name__}: {len(lines)} inferred, {len(frozen)} installed with gittrack's own")
