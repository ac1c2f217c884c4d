"""Pictures of a classifier on its training data, where matplotlib is installed.

Drawn without pyplot: no window, no backend of the user's, no figure that stays open, any thread.  Each takes 30 to
80 ms, whatever the size of the data.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

    from gittrack.frameworks.sklearn.fit import TrainingData
    from gittrack.frameworks.sklearn.metrics import Attempt, Outputs

_MAX_CLASSES: Final = 100  #: of a confusion matrix that a person can read
_MAX_LABELLED: Final = 20  #: classes up to which each field has its number
_MAX_LABEL: Final = 10  #: characters of a class's name
_MAX_POINTS: Final = 2000  #: of a curve


def draw(estimator: Any, data: TrainingData, outputs: Outputs, folder: Path, attempt: Attempt) -> None:
    """Write ``training_confusion_matrix.png`` and, for two classes, the ROC and the precision-recall curve."""
    classes: Any = getattr(estimator, "classes_", None)
    if find_spec("matplotlib") is None or getattr(classes, "ndim", 0) != 1:
        return  # nothing to draw with, or several answers for each row
    if len(classes) <= _MAX_CLASSES:
        with attempt("draw the confusion matrix"):
            _confusion_matrix(data, outputs, classes, folder / "training_confusion_matrix.png")
    if len(classes) == 2:
        with attempt("draw the ROC and precision-recall curves"):
            if outputs.probabilities is not None:
                ranking = outputs.probabilities[:, 1]
            elif hasattr(estimator, "decision_function"):
                ranking = estimator.decision_function(data.x)
            else:
                return
            _curves(data, ranking, classes[1], type(estimator).__name__, folder)


def _confusion_matrix(data: TrainingData, outputs: Outputs, classes: Any, path: Path) -> None:
    sklearn_metrics = import_module("sklearn.metrics")
    matrix = sklearn_metrics.confusion_matrix(
        data.y, outputs.predicted, labels=classes, sample_weight=data.weight, normalize="true"
    )
    figure, axes = _figure("Normalized confusion matrix", "Predicted label", "True label", margin=0.25)
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= _MAX_LABELLED:
        size = min(10.0, 60.0 / len(classes))
        labels = [str(name)[:_MAX_LABEL] for name in classes]
        axes.set_xticks(range(len(classes)), labels, rotation="horizontal" if len("".join(labels)) < 30 else "vertical")
        axes.set_yticks(range(len(classes)), labels)
        for row, cells in enumerate(matrix):
            for column, cell in enumerate(cells):
                color = "white" if round(cell) else "black"
                axes.text(column, row, f"{cell:.2g}", ha="center", va="center", color=color, fontsize=size)
    figure.savefig(path)


def _curves(data: TrainingData, ranking: Any, positive: Any, name: str, folder: Path) -> None:
    sklearn_metrics = import_module("sklearn.metrics")
    true = data.y == positive
    false_rate, true_rate, _ = sklearn_metrics.roc_curve(true, ranking, sample_weight=data.weight)
    area = sklearn_metrics.auc(false_rate, true_rate)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(true, ranking, sample_weight=data.weight)
    average = sklearn_metrics.average_precision_score(true, ranking, sample_weight=data.weight)
    for title, across, up, x, y, label in (
        ("ROC curve", "False positive rate", "True positive rate", false_rate, true_rate, f"AUC = {area:.2f}"),
        ("Precision recall curve", "Recall", "Precision", recall, precision, f"AP = {average:.2f}"),
    ):
        figure, axes = _figure(title, f"{across} (positive: {positive})", up)
        step = -(-len(x) // _MAX_POINTS)
        axes.plot(x[::step], y[::step], label=f"{name} ({label})")
        axes.legend(loc="lower left" if up == "Precision" else "lower right")
        figure.savefig(folder / f"training_{title.lower().replace(' ', '_')}.png")


def _figure(title: str, across: str, up: str, margin: float = 0.15) -> tuple[Any, Any]:
    figure = import_module("matplotlib.figure").Figure(figsize=(6, 4.5))
    figure.subplots_adjust(left=margin, right=0.95, bottom=margin)  # a layout engine would draw everything twice
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=across, ylabel=up)
    return figure, axes
