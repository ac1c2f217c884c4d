"""The newest MLflow at our server: models of other libraries, files in parts, what is logged beside the loop."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gittrack.server.hub import artifacts, parts
from gittrack.server.hub.roles import Grant, Role
from tests.conftest import Sandbox
from tests.server.conftest import Running
from tests.server.team import serving

mlflow: Any = pytest.importorskip("mlflow", reason="the real MLflow is not installed: pip install '.[peers]'")
FULL = os.environ.get("GITTRACK_FAULTS") == "full"
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


def test_files_in_parts_and_ranges_with_an_account(
    git_repo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everywhere else, a client shows its token or its password, also for each part."""
    seen: list[str] = []
    pieces, some = parts.Upload.pieces, artifacts._range

    def parted(*given: Any) -> Any:
        seen.append("parts")
        return pieces(*given)

    def ranged(*given: Any) -> Any:
        seen.append("range")
        return some(*given)

    monkeypatch.setattr(parts.Upload, "pieces", parted)
    monkeypatch.setattr(artifacts, "_range", ranged)
    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "true",
        "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": str(1 << 20),
        "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": str(1 << 20),
        "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": str(1 << 20),
    }.items():
        monkeypatch.setenv(name, value)
    data = os.urandom((5 << 20) + 7)
    (tmp_path / "big.bin").write_bytes(data)
    with serving(git_repo.path) as team:
        token = team.token(Grant(Role.WRITER, "*", "*"))
        for login in (
            {"MLFLOW_TRACKING_TOKEN": token},
            {"MLFLOW_TRACKING_USERNAME": "any", "MLFLOW_TRACKING_PASSWORD": token},
        ):
            with monkeypatch.context() as shown:
                for name, value in login.items():
                    shown.setenv(name, value)
                client = mlflow.MlflowClient(team.url)
                run_id = client.create_run("0").info.run_id
                client.log_artifact(run_id, str(tmp_path / "big.bin"), "deep")
                there = client.download_artifacts(run_id, "deep/big.bin", str(tmp_path))
                assert Path(there).read_bytes() == data
                assert seen == ["parts", *["range"] * 6]
                seen.clear()
        assert os.listdir(team.tracker.repo.root / "server/uploads") == []


def test_what_is_logged_beside_the_loop(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asynchronously, and figures, images, tables and datasets."""
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="logs a figure")
    numpy = pytest.importorskip("numpy", reason="logs an image")
    pytest.importorskip("PIL", reason="logs an image")
    pandas = pytest.importorskip("pandas", reason="logs a dataset")
    pyplot.switch_backend("agg")
    figure, axes = pyplot.subplots()
    axes.plot([1, 2])
    mlflow.config.enable_async_logging()
    try:
        with mlflow.start_run() as run:
            for step in range(1500):
                mlflow.log_metric("loss", 1 / (step + 1), step=step)
            mlflow.log_params({f"p{number}": number for number in range(150)})
            mlflow.set_tag("a", "b")
            mlflow.log_figure(figure, "plots/figure.png")
            mlflow.log_image(numpy.zeros((8, 8, 3), dtype="uint8"), "black.png")
            mlflow.log_image(numpy.zeros((8, 8, 3), dtype="uint8"), key="black", step=3)
            mlflow.log_input(mlflow.data.from_pandas(pandas.DataFrame({"x": [1.0]}), name="rows"), context="training")
        mlflow.flush_async_logging()
        mlflow.flush_artifact_async_logging()
    finally:
        mlflow.config.enable_async_logging(False)
        pyplot.close(figure)
    found = client.get_run(run.info.run_id)
    assert len(found.data.params) == 150
    assert found.data.tags["a"] == "b"
    assert [one.step for one in client.get_metric_history(run.info.run_id, "loss")] == list(range(1500))
    assert [(one.dataset.name, one.tags[0].value) for one in found.inputs.dataset_inputs] == [("rows", "training")]
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {"plots", "black.png", "images"}
    assert len(client.list_artifacts(run.info.run_id, "images")) == 2  # and a small one
    assert mlflow.artifacts.load_image(f"{run.info.artifact_uri}/black.png").size == (8, 8)


def test_pages_of_runs_and_of_logged_models(client: Any) -> None:
    """In the full form more runs than one page of MLflow's has."""
    page = 1000 if FULL else 20
    for number in range(page + 5):
        client.create_run("0", run_name=str(number))
    assert len(mlflow.search_runs(["0"])) == page + 5
    first = client.search_runs(["0"], max_results=page)
    second = client.search_runs(["0"], max_results=page, page_token=first.token)
    assert (len(first), len(second), second.token) == (page, 5, None)
    assert len({one.info.run_id for one in [*first, *second]}) == page + 5
    for number in range(3):
        mlflow.create_external_model(name=f"m{number}", params={"n": str(number)})
    order = [{"field_name": "name", "ascending": False}]
    listed = mlflow.search_logged_models(["0"], "params.n != '1'", order_by=order, output_format="list")
    assert [one.name for one in listed] == ["m2", "m0"]
    models = client.search_logged_models(["0"], max_results=2)
    assert len(client.search_logged_models(["0"], max_results=2, page_token=models.token)) == 1
