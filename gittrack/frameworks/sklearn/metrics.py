"""The metrics of the training data: MLflow's names, each model asked once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gittrack.frameworks.sklearn.fit import TrainingData

Attempt = Callable[[str], AbstractContextManager[None]]


@dataclass
class Outputs:
    """What a classifier says about its training data.

    Attributes:
        predicted: One class for each row.
        probabilities: One column for each class; None if it gives none.
    """

    predicted: Any
    probabilities: Any = None


def of_training(
    estimator: Any, data: TrainingData, pos_label: Any, attempt: Attempt
) -> tuple[dict[str, float], Outputs | None]:
    """The metrics of the data that ``estimator`` was trained on, and a classifier's outputs for it.

    Args:
        estimator: Trained.
        data: With labels.
        pos_label: See :func:`gittrack.frameworks.sklearn.autolog`.
        attempt: Takes what goes wrong; that metric is then left out.
    """
    base = import_module("sklearn.base")
    values: dict[str, float] = {}
    outputs = None
    if getattr(estimator, "refit", True) is False:
        return values, outputs  # a search that was told not to train the best setting: there is nothing to ask
    if hasattr(estimator, "predict"):
        with attempt("compute training metrics"):
            if base.is_classifier(estimator):
                outputs = Outputs(estimator.predict(data.x))
                if hasattr(estimator, "predict_proba"):
                    outputs.probabilities = estimator.predict_proba(data.x)
                _classifier(values, data, outputs, pos_label, attempt)
            elif base.is_regressor(estimator):
                _regressor(values, data, estimator.predict(data.x), attempt)
    if hasattr(estimator, "score"):
        with attempt("compute training_score"):
            values["training_score"] = _score(estimator, data, values)
    return values, outputs


def _classifier(
    values: dict[str, float], data: TrainingData, outputs: Outputs, pos_label: Any, attempt: Attempt
) -> None:
    sklearn_metrics = import_module("sklearn.metrics")
    true, weight = data.y, data.weight
    with attempt("compute training precision, recall and f1"):
        chosen = {"average": "weighted"} if pos_label is None else {"average": "binary", "pos_label": pos_label}
        # One pass for the three; zero_division is the default's value without its warning.
        precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
            true, outputs.predicted, sample_weight=weight, zero_division=0, **chosen
        )
        values["training_precision_score"] = float(precision)
        values["training_recall_score"] = float(recall)
        values["training_f1_score"] = float(f1)
    with attempt("compute training_accuracy_score"):
        accuracy = sklearn_metrics.accuracy_score(true, outputs.predicted, sample_weight=weight)
        values["training_accuracy_score"] = float(accuracy)
    if outputs.probabilities is None:
        return
    with attempt("compute training_log_loss"):
        loss = sklearn_metrics.log_loss(true, outputs.probabilities, sample_weight=weight)
        values["training_log_loss"] = float(loss)
    with attempt("compute training_roc_auc"):
        columns = outputs.probabilities
        area = sklearn_metrics.roc_auc_score(
            true,
            columns[:, 1] if len(columns[0]) == 2 else columns,
            average="weighted",
            sample_weight=weight,
            multi_class="ovo",
        )
        values["training_roc_auc"] = float(area)


def _regressor(values: dict[str, float], data: TrainingData, predicted: Any, attempt: Attempt) -> None:
    sklearn_metrics = import_module("sklearn.metrics")
    for name in ("mean_squared_error", "mean_absolute_error", "r2_score"):
        with attempt(f"compute training_{name}"):
            function = getattr(sklearn_metrics, name)
            values[f"training_{name}"] = float(function(data.y, predicted, sample_weight=data.weight))
    if "training_mean_squared_error" in values:
        values["training_root_mean_squared_error"] = math.sqrt(values["training_mean_squared_error"])


def _score(estimator: Any, data: TrainingData, known: dict[str, float]) -> float:
    """The estimator's own score; taken from ``known`` where it is scikit-learn's default, to predict only once."""
    base = import_module("sklearn.base")
    for mixin, metric in ((base.ClassifierMixin, "accuracy_score"), (base.RegressorMixin, "r2_score")):
        if type(estimator).score is mixin.score and f"training_{metric}" in known:
            return known[f"training_{metric}"]
    if "sample_weight" in inspect.signature(estimator.score).parameters:
        return float(estimator.score(data.x, data.y, sample_weight=data.weight))
    return float(estimator.score(data.x, data.y))
