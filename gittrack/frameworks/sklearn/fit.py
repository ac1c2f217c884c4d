"""What one training logs, before and after it."""

from __future__ import annotations

import copy
import inspect
import re
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.frameworks import datasets, models
from gittrack.frameworks.patch import quiet
from gittrack.frameworks.recorder import client
from gittrack.frameworks.sklearn import metrics, plots, scores, search
from gittrack.track.limits import MAX_KEY
from gittrack.types import DatasetInput, Metric, Param, Run, RunTag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gittrack.frameworks.patch import Integration
    from gittrack.frameworks.sklearn import SklearnOptions

SAMPLE_ROWS: Final = 5  #: of the training data, for a model's input example and signature
_PAGE: Final = '<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="UTF-8"></head>\n<body>\n{}\n</body>\n</html>\n'
_PREPARATION: Final = (
    "sklearn.preprocessing.",
    "sklearn.impute.",
    "sklearn.feature_extraction.",
    "sklearn.feature_selection.",
    "sklearn.compose._column_transformer",
)
_HTML_ID: Final = re.compile(r"(sk-(?:container|estimator)-id-)\d+")
_FORBIDDEN: Final = re.compile(r"[^/\w.\- :]")


class TrainingData:
    """What a training was given; None for what it was not.

    Attributes:
        y: Labels.
        weight: Of each row.
    """

    def __init__(self, x: Any, y: Any, weight: Any, *, changes: bool) -> None:
        """``changes`` says that the estimator works in its input, also when it predicts.

        Only then are copies made, since the data may be most of the memory.
        """
        self._x, self.y, self.weight = copy.deepcopy((x, y, weight)) if changes else (x, y, weight)
        self._changes = changes

    @property
    def x(self) -> Any:
        """The features, as they were before the training."""
        return copy.deepcopy(self._x) if self._changes else self._x


def around(
    integration: Integration[SklearnOptions], original: Callable[..., Any], estimator: Any, *args: Any, **kwargs: Any
) -> Any:
    """Call a method that trains, and log the training."""
    options = integration.options
    if _is_preparation(estimator):
        with quiet():  # some train a model for it
            return original(estimator, *args, **kwargs)
    if not _is_worth_a_run(type(estimator)):
        return original(estimator, *args, **kwargs)
    with integration.training() as run:
        if run is None or options is None:
            return original(estimator, *args, **kwargs)
        training = None
        with integration.attempt("log the parameters and the data of a training"):
            training = _Training(integration, options, estimator, run)
            training.before(args, kwargs)
        result = original(estimator, *args, **kwargs)
        if training is not None:
            with integration.attempt("log the results of a training"):
                training.after()
        return result


class _Training:
    """One training, from the call to the last thing logged about it."""

    def __init__(
        self, integration: Integration[SklearnOptions], options: SklearnOptions, estimator: Any, run: Run
    ) -> None:
        self._integration = integration
        self._attempt = integration.attempt
        self._options = options
        self._estimator = estimator
        self._run = run
        self._run_id = run.info.run_id
        self._client = client()
        self._params: dict[str, Any] = {}
        self._data: TrainingData | None = None
        self._sample: Any = None
        self._dataset: DatasetInput | None = None

    def before(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Log what is known before the training, so that a failed one has it too."""
        with self._attempt("log parameters"):
            # The parameters of a search's seed would look like those of its result: its children have them.
            self._params = self._estimator.get_params(deep=not search.is_search(self._estimator))
            self._client.log_batch(self._run_id, params=as_params(self._params))
        with self._attempt("log tags"):
            tags = [RunTag(key, value) for key, value in class_tags(self._estimator).items()]
            self._client.log_batch(self._run_id, tags=tags)
        self._data = _training_data(self._estimator, args, kwargs)
        if models.wanted("sklearn") and self._options.log_models:
            with self._attempt("copy a sample of the training data"):
                self._sample = copy.deepcopy(self._data.x[:SAMPLE_ROWS])
        if self._options.log_datasets:
            with self._attempt("log the dataset"):
                self._dataset = datasets.describe(self._data.x, self._data.y, context="train")
                if self._dataset is not None:
                    self._client.log_inputs(self._run_id, [self._dataset])

    def after(self) -> None:
        """Log the model, the metrics of the training data, the pictures and, for a search, its other settings."""
        ended = int(time.time() * 1000)
        model_id = self._save(self._estimator, "model")
        outputs = None
        if self._data is not None and self._data.y is not None:
            values, outputs = metrics.of_training(self._estimator, self._data, self._options.pos_label, self._attempt)
            with self._attempt("log training metrics"):
                self._client.log_batch(self._run_id, metrics=as_metrics(values, self._dataset, model_id))
        if search.is_search(self._estimator):
            self._log_search(ended)
        with self._attempt("log artifacts"), tempfile.TemporaryDirectory(prefix="gittrack-") as folder:
            self._draw(Path(folder), outputs)
            self._client.log_artifacts(self._run_id, folder)
        if self._options.log_post_training_metrics:
            scores.remember(self._estimator, self._run_id, model_id)

    def _save(self, model: Any, name: str) -> str | None:
        if not (models.wanted("sklearn") and self._options.log_models):
            return None
        best = getattr(self._estimator, "best_params_", {})
        fitted = models.FittedModel(
            framework="sklearn",
            model=model,
            name=name,
            run_id=self._run_id,
            sample=self._sample,
            predictor=getattr(model, "predict", None) or getattr(model, "transform", None),
            params={**self._params, **{f"best_{key}": value for key, value in best.items()}},
            options={
                key: getattr(self._options, key)
                for key in ("log_input_examples", "log_model_signatures", "serialization_format")
            }
            | {"registered_model_name": self._options.registered_model_name if name == "model" else None},
        )
        with self._attempt("save the model"):
            return models.save(fitted)
        return None

    def _log_search(self, ended: int) -> None:
        estimator = self._estimator
        with self._attempt("log the result of a parameter search"):
            best_score = getattr(estimator, "best_score_", None)
            values = {} if best_score is None else {"best_cv_score": float(best_score)}
            best = {f"best_{key}": value for key, value in getattr(estimator, "best_params_", {}).items()}
            self._client.log_batch(
                self._run_id, params=as_params(best), metrics=as_metrics(values, self._dataset, None)
            )
        best_id = None
        if hasattr(estimator, "best_estimator_"):
            best_id = self._save(estimator.best_estimator_, "best_estimator")
        with self._attempt("log the settings of a parameter search"):
            for setting in search.best_settings(estimator, self._options.max_tuning_runs):
                self._log_setting(setting, ended, best_id)

    def _log_setting(self, setting: search.Setting, ended: int, best_id: str | None) -> None:
        """Log one setting that a search tried as a child run."""
        made_by = {key: value for key, value in self._run.data.tags.items() if key.startswith("mlflow.source.")}
        tags = {
            **made_by,
            **class_tags(self._estimator.estimator),
            "mlflow.user": self._run.info.user_id,
            "mlflow.parentRunId": self._run_id,
            "mlflow.autologging": self._integration.name,
        }
        child = self._client.create_run(self._run.info.experiment_id, start_time=self._run.info.start_time, tags=tags)
        run_id = child.info.run_id
        model_id = best_id if setting.best else None
        self._client.log_batch(
            run_id, metrics=as_metrics(setting.metrics, self._dataset, model_id), params=as_params(setting.params)
        )
        if self._dataset is not None:
            self._client.log_inputs(run_id, [self._dataset])
        self._client.set_terminated(run_id, end_time=ended)

    def _draw(self, folder: Path, outputs: metrics.Outputs | None) -> None:
        """Write the files that are logged with the run into ``folder``."""
        with self._attempt("draw the estimator"):
            html = _renumbered(import_module("sklearn.utils").estimator_html_repr(self._estimator))
            (folder / "estimator.html").write_text(_PAGE.format(html), encoding="utf-8")
        if hasattr(self._estimator, "cv_results_"):
            with self._attempt("write the results of a parameter search"):
                (folder / "cv_results.csv").write_text(search.as_csv(self._estimator.cv_results_), encoding="utf-8")
        if outputs is not None and self._data is not None:
            plots.draw(self._estimator, self._data, outputs, folder, self._attempt)


# --- reading what was given


def _is_preparation(estimator: Any) -> bool:
    """True for what scikit-learn has to prepare data, rather than learn from it: worth no run, as in MLflow."""
    return type(estimator).__module__.startswith(_PREPARATION)


def _is_worth_a_run(cls: type) -> bool:
    """True for scikit-learn's other estimators, and of those from elsewhere for what predicts."""
    return hasattr(cls, "get_params") and (cls.__module__.startswith("sklearn.") or hasattr(cls, "predict"))


def _training_data(estimator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> TrainingData:
    """What the arguments of a training mean."""
    names = list(inspect.signature(estimator.fit).parameters)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    x = given.get(names[0]) if names else None
    y = given.get(names[1]) if len(names) > 1 and names[1] != "sample_weight" else None
    weight = given.get("sample_weight") if "sample_weight" in names else None
    return TrainingData(x, y, weight, changes=_changes_its_input(estimator.get_params(deep=True)))


def _changes_its_input(params: Mapping[str, Any]) -> bool:
    """True if an estimator was told that it may work in its input: ``copy=False`` or the like, also deep down."""
    return any(
        (name in ("copy", "copy_X", "copy_x") and value is False) or (name.startswith("overwrite") and value is True)
        for name, value in ((key.rpartition("__")[2], value) for key, value in params.items())
    )


def _renumbered(html: str) -> str:
    """An estimator's HTML with its ids counted from 1, not from the start of the process.

    So that equal estimators have equal pages, which are stored once; most of a page is style.
    """
    numbers: dict[str, int] = {}
    return _HTML_ID.sub(lambda found: f"{found[1]}{numbers.setdefault(found[0], len(numbers) + 1)}", html)


# --- as the API wants it


def class_tags(estimator: Any) -> dict[str, str]:
    """The tags that say what was trained."""
    cls = type(estimator)
    return {"estimator_name": cls.__name__, "estimator_class": f"{cls.__module__}.{cls.__name__}"}


def as_params(params: Mapping[str, Any]) -> list[Param]:
    """Parameters as text.  Names are shortened to what a name may be; values the API shortens itself."""
    return [Param(_name(key), str(value)) for key, value in params.items()]


def as_metrics(values: Mapping[str, float], data: DatasetInput | None, model_id: str | None) -> list[Metric]:
    """Metrics of now, of the model and the dataset they were computed with."""
    now = int(time.time() * 1000)
    name, digest = (None, None) if data is None else (data.dataset.name, data.dataset.digest)
    return [Metric(_name(key), value, now, 0, model_id, name, digest) for key, value in values.items()]


def _name(key: str) -> str:
    name = _FORBIDDEN.sub("_", str(key))
    return name if len(name) <= MAX_KEY else name[: MAX_KEY - 3] + "..."
