"""The newest MLflow at our server: models that libraries train come back by ``models:/`` and predict."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import Running

mlflow: Any = pytest.importorskip("mlflow", reason="the real MLflow is not installed: pip install '.[peers]'")
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]


@pytest.fixture
def client(server: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """MLflow's client; its fluent API goes the same way."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(server.url)
    mlflow.set_registry_uri(server.url)
    mlflow.set_experiment(experiment_id="0")
    yield mlflow.MlflowClient()
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@pytest.fixture
def data() -> tuple[Any, Any]:
    """Sixty rows of two numbers, and which side of a line they are on."""
    numpy = pytest.importorskip("numpy", reason="trains models")
    x = numpy.random.default_rng(7).normal(size=(60, 2)).astype("float32")
    return x, (x.sum(axis=1) > 0).astype(int)


def check(client: Any, run: Any, data: tuple[Any, Any]) -> Any:
    """A run with a model: what is logged of it, and the model by its name."""
    found = client.get_run(run.info.run_id)
    (output,) = found.outputs.model_outputs
    logged = mlflow.get_logged_model(output.model_id)
    assert (logged.status.value, logged.source_run_id) == ("READY", run.info.run_id)
    version = mlflow.register_model(f"models:/{output.model_id}", "line")
    client.set_registered_model_alias("line", "champion", version.version)
    model = mlflow.pyfunc.load_model("models:/line@champion")
    predicted = model.predict(data[0])
    assert ((predicted.ravel() > 0.5) == data[1]).mean() > 0.8
    return found


def test_xgboost(client: Any, data: tuple[Any, Any]) -> None:
    xgboost = pytest.importorskip("xgboost", reason="trains a model of XGBoost")
    mlflow.xgboost.autolog()
    try:
        with mlflow.start_run() as run:
            rows = xgboost.DMatrix(data[0], label=data[1])
            xgboost.train({"objective": "binary:logistic", "max_depth": 3}, rows, 5, evals=[(rows, "train")])
    finally:
        mlflow.xgboost.autolog(disable=True)
    found = check(client, run, data)
    assert found.data.params["max_depth"] == "3"
    assert len(client.get_metric_history(run.info.run_id, "train-logloss")) == 5
    loaded = mlflow.xgboost.load_model("models:/line/1")
    assert isinstance(loaded, xgboost.Booster)


def test_lightgbm(client: Any, data: tuple[Any, Any]) -> None:
    lightgbm = pytest.importorskip("lightgbm", reason="trains a model of LightGBM")
    mlflow.lightgbm.autolog()
    try:
        with mlflow.start_run() as run:
            rows = lightgbm.Dataset(data[0], label=data[1])
            settings = {"objective": "binary", "num_leaves": 4, "min_data_in_leaf": 2, "verbose": -1}
            lightgbm.train(settings, rows, 10, valid_sets=[rows], valid_names=["train"])
    finally:
        mlflow.lightgbm.autolog(disable=True)
    found = check(client, run, data)
    assert found.data.params["num_leaves"] == "4"
    assert len(client.get_metric_history(run.info.run_id, "train-binary_logloss")) == 10
    assert isinstance(mlflow.lightgbm.load_model("models:/line/1"), lightgbm.Booster)


def test_torch(client: Any, data: tuple[Any, Any]) -> None:
    torch = pytest.importorskip("torch", reason="trains a model of PyTorch")
    rows, labels = torch.from_numpy(data[0]), torch.from_numpy(data[1]).float().reshape(-1, 1)
    model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Sigmoid())
    steps = torch.optim.Adam(model.parameters(), lr=0.2)
    mlflow.pytorch.autolog()
    try:
        with mlflow.start_run() as run:
            mlflow.log_params({"lr": 0.2})
            for step in range(20):
                loss = torch.nn.functional.binary_cross_entropy(model(rows), labels)
                steps.zero_grad()
                loss.backward()
                steps.step()
                mlflow.log_metric("loss", loss.item(), step=step)
            mlflow.pytorch.log_model(
                model,
                name="model",
                input_example=data[0][:2],
                pip_requirements=["torch"],
                serialization_format="pickle",
            )
    finally:
        mlflow.pytorch.autolog(disable=True)
    check(client, run, data)
    assert len(client.get_metric_history(run.info.run_id, "loss")) == 20
    assert isinstance(mlflow.pytorch.load_model("models:/line/1"), torch.nn.Module)


def test_the_command_line_predicts(client: Any, server: Running, data: tuple[Any, Any], tmp_path: Path) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="trains a model of scikit-learn")
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            linear_model.LogisticRegression().fit(*data),
            name="model",
            pip_requirements=["scikit-learn"],
            registered_model_name="line",
        )
    (tmp_path / "rows.csv").write_text("a,b\n9,9\n-9,-9\n")
    words = ["models", "predict", "-m", "models:/line/1", "-i", "rows.csv", "-t", "csv", "--env-manager", "local"]
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", *words, "-o", "out.json"],
        env=os.environ | {"MLFLOW_TRACKING_URI": server.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.json").read_text() == '{"predictions": [1, 0]}'
