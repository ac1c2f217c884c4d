"""Trains all sorts of models under autologging and writes what was logged, as JSON.  Run once for each tracker:

python parity_program.py {mlflow|gittrack} OUTPUT
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn import (
    calibration,
    cluster,
    compose,
    covariance,
    decomposition,
    dummy,
    ensemble,
    feature_extraction,
    feature_selection,
    linear_model,
    metrics,
    mixture,
    model_selection,
    multiclass,
    naive_bayes,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

if TYPE_CHECKING:
    from collections.abc import Callable

IRIS, KINDS = load_iris(return_X_y=True)
FRAME, LABELS = load_iris(return_X_y=True, as_frame=True)
CANCER, MALIGN = load_breast_cancer(return_X_y=True)
DIABETES, PROGRESS = load_diabetes(return_X_y=True)

CASES: dict[str, Callable[[Any], object]] = {}


def case(function: Callable[[Any], object]) -> Callable[[Any], object]:
    CASES[function.__name__] = function
    return function


@case
def forest(_: Any) -> None:
    ensemble.RandomForestClassifier(8, random_state=0).fit(CANCER, MALIGN)


@case
def after_the_training(_: Any) -> None:
    model = tree.DecisionTreeClassifier(random_state=0, max_depth=2).fit(CANCER, MALIGN)
    test, truth = CANCER[:200], MALIGN[:200]
    predicted = model.predict(test)
    metrics.accuracy_score(truth, predicted)
    metrics.f1_score(y_true=truth, y_pred=predicted, average="macro")
    metrics.accuracy_score(truth, predicted, normalize=False)
    metrics.log_loss(truth, model.predict_proba(test))
    metrics.log_loss(truth, model.predict_proba(CANCER[:200]))
    likely = model.predict_proba(test)
    metrics.brier_score_loss(truth, likely)
    model.score(test, truth)
    model.score(X=test, y=truth)
    kept = []  # MLflow knows data by its id only, which may be taken by the next one
    for start in (200, 300):
        fold = CANCER[start : start + 100]
        kept.append(fold)
        metrics.recall_score(MALIGN[start : start + 100], model.predict(fold))
    metrics.confusion_matrix(truth, predicted)

    def helper(data: Any, **more: Any) -> None:
        metrics.precision_score(more["labels"], model.predict(data))

    helper(test, labels=truth)


@case
def multinomial(_: Any) -> None:
    linear_model.LogisticRegression(max_iter=500).fit(IRIS, KINDS)


@case
def weights(_: Any) -> None:
    tree.DecisionTreeClassifier(max_depth=3, random_state=0).fit(
        CANCER, MALIGN, sample_weight=np.linspace(1, 2, len(MALIGN))
    )


@case
def positional_weights(_: Any) -> None:
    tree.DecisionTreeClassifier(max_depth=3, random_state=0).fit(IRIS, KINDS, np.linspace(1, 2, len(KINDS)))


@case
def frames_by_keyword(_: Any) -> None:
    tree.DecisionTreeClassifier(random_state=0).fit(y=LABELS, X=FRAME)


@case
def regression(_: Any) -> None:
    linear_model.Ridge(alpha=0.5).fit(DIABETES, PROGRESS)


@case
def two_targets(_: Any) -> None:
    linear_model.Ridge().fit(DIABETES, np.c_[PROGRESS, PROGRESS**2])


@case
def text_labels(_: Any) -> None:
    svm.SVC().fit(CANCER, np.where(MALIGN == 1, "good", "bad"))


@case
def several_labels(_: Any) -> None:
    tree.DecisionTreeClassifier(max_depth=2, random_state=0).fit(IRIS, np.c_[KINDS > 0, KINDS > 1].astype(int))


@case
def scaled(_: Any) -> None:
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    data, truth = CANCER[:400], MALIGN[:400]
    model.fit(data, truth).score(data, truth)


@case
def columns(_: Any) -> None:
    chosen = compose.ColumnTransformer([("scale", preprocessing.StandardScaler(), [0, 1])], remainder="passthrough")
    pipeline.make_pipeline(chosen, linear_model.LogisticRegression(max_iter=1000)).fit(IRIS, KINDS)


@case
def documents(_: Any) -> None:
    model = pipeline.make_pipeline(feature_extraction.text.TfidfVectorizer(), naive_bayes.MultinomialNB())
    model.fit(["a good one", "a bad one", "bad bad", "good"], [1, 0, 0, 1])


@case
def lists(_: Any) -> None:
    tree.DecisionTreeClassifier(random_state=0).fit(IRIS.tolist(), KINDS.tolist())


@case
def sparse(_: Any) -> None:
    linear_model.LogisticRegression(max_iter=500).fit(importlib.import_module("scipy.sparse").csr_matrix(IRIS), KINDS)


@case
def clusters(_: Any) -> None:
    cluster.KMeans(3, n_init=2, random_state=0).fit_predict(IRIS)


@case
def components(_: Any) -> None:
    decomposition.PCA(2).fit_transform(IRIS)


@case
def components_with_labels(_: Any) -> None:
    decomposition.PCA(2).fit(IRIS, KINDS)


@case
def preparations(_: Any) -> None:
    preprocessing.StandardScaler().fit(IRIS, KINDS)
    preprocessing.LabelEncoder().fit_transform(KINDS)
    feature_selection.SelectKBest(k=2).fit(IRIS, KINDS)


@case
def densities(_: Any) -> None:
    mixture.GaussianMixture(2, random_state=0).fit(IRIS)
    covariance.EmpiricalCovariance().fit(IRIS)


@case
def outliers(_: Any) -> None:
    ensemble.IsolationForest(n_estimators=10, random_state=0).fit(IRIS)


@case
def neurons(_: Any) -> None:
    neural_network.MLPClassifier((5,), max_iter=20, random_state=0).fit(IRIS, KINDS)


@case
def boosting(_: Any) -> None:
    ensemble.HistGradientBoostingClassifier(max_iter=5).fit(CANCER, MALIGN)


@case
def calibrated(_: Any) -> None:
    calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), cv=2).fit(IRIS, KINDS)


@case
def voting(_: Any) -> None:
    members = [("tree", tree.DecisionTreeClassifier(random_state=0)), ("bayes", naive_bayes.GaussianNB())]
    ensemble.VotingClassifier(members).fit(IRIS, KINDS)


@case
def stacking(_: Any) -> None:
    ensemble.StackingRegressor([("ridge", linear_model.Ridge())]).fit(DIABETES, PROGRESS)


@case
def one_against_the_rest(_: Any) -> None:
    multiclass.OneVsRestClassifier(svm.SVC()).fit(IRIS, KINDS)


@case
def constant(_: Any) -> None:
    dummy.DummyClassifier(strategy="constant", constant=np.array(0)).fit(CANCER, MALIGN)


@case
def grid(_: Any) -> None:
    search = model_selection.GridSearchCV(
        svm.SVC(), {"C": [0.01, 0.1, 1, 10], "kernel": ["rbf", "linear"]}, cv=2, return_train_score=True
    )
    data, truth = IRIS[::2], KINDS[::2]
    search.fit(data, truth).score(data, truth)


@case
def grid_of_pipelines(_: Any) -> None:
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVC())
    model_selection.GridSearchCV(model, {"svc__C": [0.01, 1]}, cv=2).fit(FRAME, LABELS)


@case
def randomized(_: Any) -> None:
    model_selection.RandomizedSearchCV(
        linear_model.Ridge(), {"alpha": [0.1, 1, 10]}, n_iter=3, cv=2, random_state=0
    ).fit(DIABETES, PROGRESS)


@case
def several_scores(_: Any) -> None:
    scoring = {"acc": "accuracy", "f1": "f1_macro"}
    model_selection.GridSearchCV(svm.SVC(), {"C": [0.01, 0.1, 1]}, cv=2, scoring=scoring, refit="f1").fit(IRIS, KINDS)


@case
def cross_validation(_: Any) -> None:
    model_selection.cross_val_score(svm.SVC(), IRIS, KINDS)


@case
def failing(_: Any) -> None:
    with contextlib.suppress(ValueError):
        ensemble.RandomForestClassifier(n_estimators=-3).fit(CANCER, MALIGN)


@case
def in_a_run(tracker: Any) -> None:
    with tracker.start_run(run_name="mine"):
        svm.SVC(gamma=0.1).fit(IRIS, KINDS)
        tracker.log_metric("extra", 1)


def main(name: str, output: Path) -> None:
    """Run every case in an experiment of its own."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    tracker = importlib.import_module(name)
    if name == "mlflow":
        tracker.set_tracking_uri("sqlite:///mlflow.db")
    importlib.import_module(f"{name}.sklearn").autolog(log_models=False)
    client = tracker.MlflowClient()
    logged = {}
    for title, run_case in CASES.items():
        experiment = tracker.set_experiment(title).experiment_id
        run_case(tracker)
        logged[title] = [_told(client, run) for run in client.search_runs([experiment])]
    output.write_text(json.dumps(logged, indent=1), encoding="utf-8")


def _told(client: Any, run: Any) -> dict[str, Any]:
    files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
    calls = None
    if "metric_info.json" in files:
        calls = json.loads(Path(client.download_artifacts(run.info.run_id, "metric_info.json")).read_text("utf-8"))
    return {
        "status": run.info.status,
        "params": run.data.params,
        "metrics": run.data.metrics,
        "tags": run.data.tags,
        "files": files,
        "calls": calls,
        "inputs": [  # without the digests: ours cover all of the data, MLflow's a part of it
            [one.dataset.name, one.dataset.source_type, one.dataset.schema, one.dataset.profile]
            + [tag.value for tag in one.tags]
            for one in run.inputs.dataset_inputs
        ],
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
