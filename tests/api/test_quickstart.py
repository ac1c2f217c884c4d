"""Programs as MLflow's documentation writes them, with one line changed: ``import gittrack as mlflow``."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import gittrack

Python = Callable[..., "subprocess.CompletedProcess[str]"]

#: The tracking quickstart (https://mlflow.org/docs/latest/ml/tracking/quickstart/), up to the model, which is not here.
QUICKSTART = """
import mlflow

mlflow.set_experiment("MLflow Quickstart")

import pandas as pd
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

# Load the Iris dataset
X, y = datasets.load_iris(return_X_y=True)

# Split the data into training and test sets
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.2, random_state=42
)

# Define the model hyperparameters
params = {
    "solver": "lbfgs",
    "max_iter": 1000,
    "random_state": 8888,
}

# Start an MLflow run
with mlflow.start_run():
    # Log the hyperparameters
    mlflow.log_params(params)

    # Train the model
    lr = LogisticRegression(**params)
    lr.fit(X_train, y_train)

    # Predict on the test set, compute and log the loss metric
    y_pred = lr.predict(X_test)
    accuracy = accuracy_score(y_test, y_pred)
    mlflow.log_metric("accuracy", accuracy)

    # Optional: Set a tag that we can use to remind ourselves what this run was for
    mlflow.set_tag("Training Info", "Basic LR model for iris data")
"""

#: The autologging quickstart: nothing but a switch before the training.
AUTOLOG = """
import mlflow

from sklearn.model_selection import train_test_split
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor

mlflow.autolog()

db = load_diabetes()
X_train, X_test, y_train, y_test = train_test_split(db.data, db.target)

# Create and train models.
rf = RandomForestRegressor(n_estimators=10, max_depth=6, max_features=3)
rf.fit(X_train, y_train)

# Use the model to make predictions on the test dataset.
predictions = rf.predict(X_test)
autolog_run = mlflow.last_active_run()
assert autolog_run.info.status == "FINISHED", autolog_run.info.status
"""

#: Parent and child runs of a parameter search.
NESTED = """
import mlflow
import random

mlflow.set_experiment("nested")

def evaluate(depth, rate):
    return 1 / (depth * rate)

with mlflow.start_run(run_name="search") as parent_run:
    mlflow.set_tag("kind", "grid")
    best = None
    for depth in [2, 4]:
        for rate in [0.1, 0.2]:
            with mlflow.start_run(run_name=f"depth_{depth}_rate_{rate}", nested=True) as child_run:
                mlflow.log_params({"depth": depth, "rate": rate})
                for step in range(3):
                    mlflow.log_metric("loss", evaluate(depth, rate) / (step + 1), step=step)
                loss = evaluate(depth, rate)
                if best is None or loss < best:
                    best = loss
    mlflow.log_metric("best_loss", best)

child_runs = mlflow.search_runs(
    filter_string=f"tags.mlflow.parentRunId = '{parent_run.info.run_id}'",
    order_by=["metrics.loss ASC"],
)
print(child_runs[["run_id", "params.depth", "params.rate", "metrics.loss"]])
assert len(child_runs) == 4
assert child_runs.iloc[0]["params.depth"] == "4" and child_runs.iloc[0]["params.rate"] == "0.2"
"""

#: The low-level client.
CLIENT = """
from mlflow import MlflowClient
from mlflow.entities import ViewType

client = MlflowClient()
experiment_id = client.create_experiment("Social NLP Experiments")
client.set_experiment_tag(experiment_id, "nlp.framework", "Spark NLP")
for value, release in ((1.55, "1.1.0-RC"), (2.50, "1.2.0-GA")):
    run = client.create_run(experiment_id)
    client.log_metric(run.info.run_id, "m", value)
    client.set_tag(run.info.run_id, "s.release", release)
    client.set_terminated(run.info.run_id)
runs = client.search_runs(
    experiment_ids=experiment_id,
    filter_string="tags.s.release ILIKE '%rc%'",
    run_view_type=ViewType.ACTIVE_ONLY,
    max_results=5,
    order_by=["metrics.m ASC"],
)
assert [r.data.metrics["m"] for r in runs] == [1.55]
"""


def run(python: Python, text: str) -> str:
    """Run a program of MLflow's with gittrack in its place; what it prints."""
    text = text.replace("import mlflow\n", "import gittrack as mlflow\n").replace("from mlflow", "from gittrack")
    return python(text).stdout


def test_the_quickstart(project: Path, python: Python) -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install '.[demo]'")
    run(python, QUICKSTART)
    (found,) = gittrack.search_runs(experiment_names=["MLflow Quickstart"], output_format="list")
    assert found.info.status == "FINISHED"
    assert found.data.params == {"solver": "lbfgs", "max_iter": "1000", "random_state": "8888"}
    assert 0.9 <= found.data.metrics["accuracy"] <= 1.0
    assert found.data.tags["Training Info"] == "Basic LR model for iris data"
    assert found.commit is not None


def test_the_autologging_quickstart(project: Path, python: Python) -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install '.[demo]'")
    run(python, AUTOLOG)
    (found,) = gittrack.search_runs(output_format="list")
    assert found.data.params["max_depth"] == "6"
    assert found.data.metrics


def test_nested_runs(project: Path, python: Python) -> None:
    assert "params.depth" in run(python, NESTED)


def test_the_client(project: Path, python: Python) -> None:
    run(python, CLIENT)
    experiment = gittrack.get_experiment_by_name("Social NLP Experiments")
    assert experiment is not None
    assert experiment.tags == {"nlp.framework": "Spark NLP"}
