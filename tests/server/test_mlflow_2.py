"""A client of MLflow 2 at our server.  It cannot be installed beside MLflow 3, so an interpreter of its own runs it.

``GITTRACK_MLFLOW_2`` names that interpreter: one of an environment with ``mlflow-skinny<3 scikit-learn pandas psutil``.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import Running

PYTHON = os.environ.get("GITTRACK_MLFLOW_2")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.timeout(300),
    pytest.mark.skipif(PYTHON is None, reason="GITTRACK_MLFLOW_2 names no interpreter with MLflow 2"),
]

#: Ahead of every program; ``answer`` is what the test sees.
_BEGINNING = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
import mlflow
from mlflow import MlflowClient
assert mlflow.__version__.startswith("2."), mlflow.__version__
client = MlflowClient()
def answer(**facts):
    print("ANSWER" + json.dumps(facts))
"""


class Two:
    """Runs programs of MLflow 2 against a server."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON"))},
            "MLFLOW_TRACKING_URI": url,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        }

    def run(self, *words: str, **environment: str) -> str:
        assert PYTHON is not None
        done = subprocess.run(
            [PYTHON, *words],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def program(self, text: str, **environment: str) -> dict[str, Any]:
        """What a program answers."""
        lines = self.run("-c", _BEGINNING + text, **environment).splitlines()
        (found,) = [line.removeprefix("ANSWER") for line in lines if line.startswith("ANSWER")]
        facts: dict[str, Any] = json.loads(found)
        return facts


@pytest.fixture
def two(server: Running, tmp_path: Path) -> Two:
    return Two(server.url, tmp_path)


def test_runs_are_logged_nested_searched_and_deleted(two: Two) -> None:
    found = two.program(
        """
mlflow.set_experiment("quickstart")
with mlflow.start_run(run_name="parent") as parent:
    mlflow.log_params({"alpha": 0.5, "kind": "ridge"})
    for step in range(5):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metrics({"nan": float("nan"), "inf": float("inf")})
    mlflow.set_tags({"a": "b", "c": 1})
    mlflow.log_metric("later", 1.0, synchronous=False).wait()
    for value in range(3):
        with mlflow.start_run(nested=True, run_name=f"child {value}"):
            mlflow.log_metric("score", value)
mlflow.config.enable_async_logging()
with mlflow.start_run(run_name="async") as other:
    for step in range(100):
        mlflow.log_metric("m", step, step=step)
    mlflow.log_param("p", "q")
mlflow.flush_async_logging()
with mlflow.start_run(log_system_metrics=True) as measured:
    time.sleep(1.2)
mlflow.config.enable_async_logging(False)
run = client.get_run(parent.info.run_id)
children = mlflow.search_runs(
    filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}' and metrics.score >= 1",
    order_by=["metrics.score DESC"],
)
client.delete_run(other.info.run_id)
left = client.search_runs([run.info.experiment_id], "attributes.run_name = 'async'")
client.restore_run(other.info.run_id)
try:
    client.log_param(run.info.run_id, "alpha", 0.6)
    refused = None
except mlflow.exceptions.MlflowException as error:
    refused = error.error_code
answer(
    status=run.info.status, params=run.data.params, loss=run.data.metrics["loss"], later=run.data.metrics["later"],
    nan=str(run.data.metrics["nan"]), tag=run.data.tags["c"],
    history=[one.step for one in client.get_metric_history(run.info.run_id, "loss")],
    children=list(children["tags.mlflow.runName"]), left=len(left), refused=refused,
    many=len(client.get_metric_history(other.info.run_id, "m")), p=client.get_run(other.info.run_id).data.params,
    names=[one.name for one in client.search_experiments(order_by=["name ASC"])],
    system=any(key.startswith("system/") for key in client.get_run(measured.info.run_id).data.metrics),
)
""",
        MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL="0.2",
        MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING="1",
    )
    assert found == {
        "status": "FINISHED", "params": {"alpha": "0.5", "kind": "ridge"}, "loss": 0.2, "later": 1.0, "nan": "nan",
        "tag": "1", "history": [0, 1, 2, 3, 4], "children": ["child 2", "child 1"], "left": 0,
        "refused": "INVALID_PARAMETER_VALUE", "many": 100, "p": {"p": "q"}, "names": ["Default", "quickstart"],
        "system": True,
    }  # fmt: skip


def test_artifacts_and_data_sets(two: Two) -> None:
    (two.folder / "in/deep").mkdir(parents=True)
    (two.folder / "in/a.txt").write_text("a")
    (two.folder / "in/deep/b ü.txt").write_text("b")
    (two.folder / "large").write_bytes(os.urandom(5 << 20))
    found = two.program(
        """
import pandas as pd
with mlflow.start_run() as run:
    mlflow.log_artifacts("in", "in")
    mlflow.log_artifact("large")
    mlflow.log_text("text", "t.txt")
    mlflow.log_dict({"x": 1}, "d.json")
    mlflow.log_table({"q": ["1"], "a": ["2"]}, "table.json")
    mlflow.log_input(mlflow.data.from_pandas(pd.DataFrame({"x": [1.0]}), name="rows"), context="training")
uri = run.info.artifact_uri
there = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="in")
seen = client.get_run(run.info.run_id)
answer(
    paths=sorted(one.path for one in client.list_artifacts(run.info.run_id)),
    deep=[one.path for one in client.list_artifacts(run.info.run_id, "in/deep")],
    files=sorted(os.listdir(there)), data=mlflow.artifacts.load_dict(f"{uri}/d.json"),
    text=mlflow.artifacts.load_text(f"{uri}/t.txt"), uri=uri.partition(":")[0],
    same=open(mlflow.artifacts.download_artifacts(f"{uri}/large"), "rb").read() == open("large", "rb").read(),
    rows=[[one.dataset.name, one.tags[0].value] for one in seen.inputs.dataset_inputs],
)
""",
    )
    assert found == {
        "paths": ["d.json", "in", "large", "t.txt", "table.json"], "deep": ["in/deep/b ü.txt"],
        "files": ["a.txt", "deep"], "data": {"x": 1}, "text": "text", "uri": "mlflow-artifacts", "same": True,
        "rows": [["rows", "training"]],
    }  # fmt: skip


def test_models_stages_and_aliases(two: Two) -> None:
    found = two.program(
        """
import numpy as np
from sklearn.linear_model import LogisticRegression
x, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
mlflow.sklearn.autolog()
with mlflow.start_run() as run:
    LogisticRegression(C=2.0).fit(x, y)
mlflow.sklearn.autolog(disable=True)
seen = client.get_run(run.info.run_id)
first = mlflow.register_model(f"runs:/{run.info.run_id}/model", "line")
with mlflow.start_run() as other:
    mlflow.sklearn.log_model(
        LogisticRegression().fit(x, y), "model", registered_model_name="line", input_example=x,
        pip_requirements=["scikit-learn"],
    )
client.set_registered_model_alias("line", "champion", 1)
client.transition_model_version_stage("line", 1, "Production")
client.transition_model_version_stage("line", 2, "Production", archive_existing_versions=True)
client.set_model_version_tag("line", "1", "checked", "yes")
client.update_model_version("line", 1, description="straight")
client.update_registered_model("line", description="lines")
loaded = {
    uri: mlflow.pyfunc.load_model(uri).predict(np.array([[0.0], [3.0]])).tolist()
    for uri in ("models:/line/1", "models:/line@champion", "models:/line/Production", "models:/line/latest",
                f"runs:/{run.info.run_id}/model")
}
version = client.get_model_version("line", 1)
copied = client.copy_model_version("models:/line@champion", "copy")
answer(
    c=seen.data.params["C"], score=seen.data.metrics["training_accuracy_score"], first=int(first.version),
    loaded=sorted(loaded), right=all(one == [0, 1] for one in loaded.values()),
    run_id=version.run_id == run.info.run_id,
    version=[version.current_stage, version.description, version.tags, list(version.aliases)],
    latest=[[int(one.version), one.current_stage] for one in client.get_latest_versions("line", ["Production"])],
    found=[int(one.version) for one in client.search_model_versions("name = 'line'", order_by=["version_number ASC"])],
    names=sorted(one.name for one in client.search_registered_models()), copied=[copied.name, int(copied.version)],
)
"""
    )
    assert len(found.pop("loaded")) == 5
    assert found == {
        "c": "2.0", "score": 1.0, "first": 1, "right": True, "run_id": True,
        "version": ["Archived", "straight", {"checked": "yes"}, ["champion"]], "latest": [[2, "Production"]],
        "found": [1, 2], "names": ["copy", "line"], "copied": ["copy", 1],
    }  # fmt: skip


def test_the_command_line(two: Two, server: Running) -> None:
    (two.folder / "x.txt").write_text("x")
    run_id = server.new_run(experiment_id="0")
    two.run("-m", "mlflow", "artifacts", "log-artifact", "--local-file", "x.txt", "--run-id", run_id)
    listed = json.loads(two.run("-m", "mlflow", "artifacts", "list", "--run-id", run_id))
    assert [one["path"] for one in listed] == ["x.txt"]
    assert run_id in two.run("-m", "mlflow", "runs", "list", "--experiment-id", "0")
