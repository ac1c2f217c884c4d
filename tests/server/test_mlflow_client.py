"""The real MLflow's client, at our server and in its own process: quickstart, models, autologging, registry, CLI."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Sandbox
from tests.server.conftest import Running

mlflow: Any = pytest.importorskip("mlflow", reason="the real MLflow is not installed: pip install '.[peers]'")
pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]


@pytest.fixture(params=["server", "process"])
def where(request: pytest.FixtureRequest, git_repo: Sandbox) -> str:
    """A tracking address: of a server, or of a repository that MLflow uses by our plug-in, without a server."""
    if request.param == "server":
        server: Running = request.getfixturevalue("server")
        return server.url
    return f"gittrack://{git_repo.path}"


@pytest.fixture
def client(where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """MLflow's client; its fluent API goes the same way."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(where)
    mlflow.set_registry_uri(where)  # another test may have chosen one
    mlflow.set_experiment(experiment_id="0")  # it remembers the one of the test before
    yield mlflow.MlflowClient()
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


def test_runs_nested_searched_and_read_back(client: Any) -> None:
    mlflow.set_experiment("quickstart")
    with mlflow.start_run(run_name="parent") as parent:
        mlflow.log_params({"alpha": 0.5, "kind": "ridge"})
        for step in range(5):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"nan": float("nan"), "inf": float("inf")}, step=2)
        mlflow.set_tags({"a": "b", "c": 1})
        mlflow.log_metric("later", 1.0, synchronous=False).wait()
        for value in range(3):
            with mlflow.start_run(nested=True, run_name=f"child {value}"):
                mlflow.log_metric("score", value)
    run = client.get_run(parent.info.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"alpha": "0.5", "kind": "ridge"}
    assert run.data.metrics["loss"] == 0.2
    assert run.data.metrics["nan"] != run.data.metrics["nan"]
    assert run.data.metrics["later"] == 1.0
    assert [one.step for one in client.get_metric_history(run.info.run_id, "loss")] == list(range(5))
    children = mlflow.search_runs(
        filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}' and metrics.score >= 1",
        order_by=["metrics.score DESC"],
    )
    assert list(children["tags.mlflow.runName"]) == ["child 2", "child 1"]
    client.delete_tag(run.info.run_id, "c")
    with pytest.raises(mlflow.exceptions.MlflowException, match="No tag with name: c"):
        client.delete_tag(run.info.run_id, "c")
    with pytest.raises(mlflow.exceptions.MlflowException, match=r"Run .+ not found"):
        client.get_run("0" * 32)
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_metric("more", 2)
    assert client.get_run(run.info.run_id).data.metrics["more"] == 2


def test_artifacts_of_every_kind(client: Any, tmp_path: Path) -> None:
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "folder/a.txt").write_text("a")
    (tmp_path / "folder/deep/b ü.txt").write_text("b")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tmp_path / "folder"), "in")
        mlflow.log_artifact(str(tmp_path / "folder/a.txt"))
        mlflow.log_text("text", "t.txt")
        mlflow.log_dict({"x": 1}, "d.json")
        mlflow.log_table({"q": ["1"], "a": ["2"]}, "table.json")
        mlflow.log_table({"q": ["3"], "a": ["4"]}, "table.json")
    assert {one.path for one in client.list_artifacts(run.info.run_id)} == {
        "in",
        "a.txt",
        "t.txt",
        "d.json",
        "table.json",
    }
    assert [one.path for one in client.list_artifacts(run.info.run_id, "in/deep")] == ["in/deep/b ü.txt"]
    where = Path(
        mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="in", dst_path=str(tmp_path / "out"))
    )
    assert sorted(str(one.relative_to(where)) for one in where.rglob("*.txt")) == ["a.txt", "deep/b ü.txt"]
    assert mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/d.json") == {"x": 1}
    whole = Path(mlflow.artifacts.download_artifacts(artifact_uri=run.info.artifact_uri))
    assert {one.name for one in whole.iterdir()} == {"in", "a.txt", "t.txt", "d.json", "table.json"}
    assert [one.path for one in mlflow.artifacts.list_artifacts(f"{run.info.artifact_uri}/in")] == [
        "in/a.txt",
        "in/deep",
    ]
    with pytest.raises(mlflow.exceptions.MlflowException):
        mlflow.artifacts.load_text(f"{run.info.artifact_uri}/none.txt")
    assert list(mlflow.load_table("table.json", run_ids=[run.info.run_id])["q"]) == [1, 3]


@pytest.mark.parametrize("kind", ["place", "folder"])
def test_files_where_the_experiment_wants_them(client: Any, tmp_path: Path, kind: str) -> None:
    """In the tree, or in a folder of the client's, which the server never opens."""
    location = "mlflow-artifacts:/team/churn" if kind == "place" else (tmp_path / "mine").as_uri()
    experiment_id = client.create_experiment(f"own {kind}", location)
    with mlflow.start_run(experiment_id=experiment_id) as run:
        mlflow.log_text("text", "deep/t.txt")
    info = client.get_run(run.info.run_id).info
    assert info.artifact_uri == f"{client.get_experiment(experiment_id).artifact_location}/{info.run_id}/artifacts"
    assert [one.path for one in client.list_artifacts(info.run_id, "deep")] == ["deep/t.txt"]
    assert mlflow.artifacts.load_text(f"runs:/{info.run_id}/deep/t.txt") == "text"
    assert (tmp_path / f"mine/{info.run_id}/artifacts/deep/t.txt").exists() == (kind == "folder")
    client.create_registered_model(f"own {kind}")
    source = f"runs:/{info.run_id}/deep"
    client.create_model_version(f"own {kind}", source, info.run_id)
    where = client.get_model_version_download_uri(f"own {kind}", "1")
    assert mlflow.artifacts.load_text(f"{where}/t.txt") == "text"


def test_files_of_no_run(client: Any, where: str, tmp_path: Path) -> None:
    top = "mlflow-artifacts:/free" if where.startswith("http") else f"{where}/.gittrack/artifacts/free"
    (tmp_path / "free").mkdir()
    (tmp_path / "free/a.txt").write_text("a")
    repository = mlflow.store.artifact.artifact_repository_registry.get_artifact_repository(top)
    repository.log_artifact(str(tmp_path / "free/a.txt"), "deep")
    repository.log_artifacts(str(tmp_path / "free"), "all")
    assert [(one.path, one.is_dir) for one in repository.list_artifacts()] == [("all", True), ("deep", True)]
    assert mlflow.artifacts.load_text(f"{top}/deep/a.txt") == "a"
    repository.delete_artifacts("all")
    assert [one.path for one in repository.list_artifacts()] == ["deep"]


def test_models_are_logged_registered_and_loaded(client: Any) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="logs a model of scikit-learn")
    model = linear_model.LinearRegression().fit([[1.0], [2.0]], [2.0, 4.0])
    with mlflow.start_run() as run:
        mlflow.log_metric("before", 1.0)
        logged = mlflow.sklearn.log_model(
            model, name="model", input_example=[[1.0]], registered_model_name="line", pip_requirements=["scikit-learn"]
        )
        mlflow.log_metric("r2", 0.9, model_id=logged.model_id)
    assert int(logged.registered_model_version) == 1
    found = mlflow.get_logged_model(logged.model_id)
    assert (found.name, found.source_run_id, found.status.value) == ("model", run.info.run_id, "READY")
    assert {one.key: one.value for one in found.metrics}["r2"] == 0.9
    listed = mlflow.search_logged_models(filter_string="metrics.r2 > 0.5", output_format="list")
    assert [one.model_id for one in listed] == [logged.model_id]
    client.set_registered_model_alias("line", "champion", 1)
    client.transition_model_version_stage("line", 1, "Production")
    client.set_model_version_tag("line", 1, "checked", "yes")
    client.update_model_version("line", 1, description="straight")
    for uri in (
        "models:/line/1", "models:/line@champion", "models:/line/Production", "models:/line/latest",
        f"runs:/{run.info.run_id}/model", f"models:/{logged.model_id}",
    ):  # fmt: skip
        assert mlflow.pyfunc.load_model(uri).predict([[3.0]])[0] == pytest.approx(6.0), uri
    version = client.get_model_version("line", 1)
    assert (version.current_stage, version.description, version.tags) == ("Production", "straight", {"checked": "yes"})
    again = mlflow.register_model(f"runs:/{run.info.run_id}/model", "line")
    assert int(again.version) == 2
    copied = client.copy_model_version("models:/line@champion", "copy")
    assert (copied.name, int(copied.version)) == ("copy", 1)
    assert client.copy_model_version("models:/copy/1", "copy").source == "models:/copy/1"
    for number, source in ((1, "models:/line/1"), (2, "models:/copy/1")):
        assert client.get_model_version("copy", number).source == source
        assert "MLmodel" in os.listdir(mlflow.artifacts.download_artifacts(f"models:/copy/{number}"))
        assert mlflow.pyfunc.load_model(f"models:/copy/{number}").predict([[3.0]])[0] == pytest.approx(6.0)
    assert [int(one.version) for one in client.search_model_versions("name = 'line'")] == [2, 1]
    assert {one.name for one in client.search_registered_models()} == {"line", "copy"}
    with pytest.raises(mlflow.exceptions.MlflowException):
        mlflow.register_model("runs:/" + "0" * 32 + "/model", "line")
    client.delete_model_version("line", 2)
    client.delete_registered_model("copy")


def test_autologging_of_scikit_learn(client: Any) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="trains a model of scikit-learn")
    numpy = pytest.importorskip("numpy", reason="trains a model of scikit-learn")
    mlflow.sklearn.autolog()
    try:
        with mlflow.start_run() as run:
            linear_model.LogisticRegression(C=2.0).fit(
                numpy.array([[0.0], [1.0], [2.0], [3.0]]), numpy.array([0, 0, 1, 1])
            )
    finally:
        mlflow.sklearn.autolog(disable=True)
    found = client.get_run(run.info.run_id)
    assert found.data.params["C"] == "2.0"
    assert "training_accuracy_score" in found.data.metrics
    assert len(found.outputs.model_outputs) == 1
    model = mlflow.pyfunc.load_model(f"models:/{found.outputs.model_outputs[0].model_id}")
    assert list(model.predict(numpy.array([[0.0], [3.0]]))) == [0, 1]
    assert [one.dataset.name for one in found.inputs.dataset_inputs] == ["dataset"]


def test_the_command_line(where: str, client: Any, tmp_path: Path) -> None:
    environment = os.environ | {"MLFLOW_TRACKING_URI": where}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mlflow", *words], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = client.create_run("0")
    (tmp_path / "x.txt").write_text("x")
    run("artifacts", "log-artifact", "--local-file", str(tmp_path / "x.txt"), "--run-id", made.info.run_id)
    assert json.loads(run("artifacts", "list", "--run-id", made.info.run_id))[0]["path"] == "x.txt"


def test_system_metrics_are_recorded(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    with mlflow.start_run(log_system_metrics=True) as run:
        time.sleep(1.5)
    assert any(key.startswith("system/") for key in client.get_run(run.info.run_id).data.metrics)
