"""Autologging for scikit-learn and everything that is built on its ``BaseEstimator``.

Nothing of scikit-learn is imported here: its modules are patched when the user's program imports them.  What a
training logs is in ``fit``, ``metrics``, ``plots`` and ``search``; what is logged afterwards in ``scores``.
"""

from __future__ import annotations

import copy
import functools
import sys
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import InvalidValueError
from gittrack.frameworks.patch import Integration, Patched, Patches, in_version_range
from gittrack.frameworks.sklearn import fit, parallel, scores
from gittrack.frameworks.table import FRAMEWORKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MINIMUM_VERSION: Final = (1, 4)
NEWEST_TESTED_VERSION: Final = (1, 9)
SERIALIZATION_FORMATS: Final = ("pickle", "cloudpickle", "skops")

_FIT: Final = ("fit", "fit_transform", "fit_predict")
_PREDICT: Final = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")
_SCORE: Final = ("score",)

#: They train, predict or score many times over for one answer; none of it is a result of its own.
_QUIET: Final = {
    "sklearn.model_selection": (
        "cross_validate",
        "cross_val_predict",
        "cross_val_score",
        "learning_curve",
        "permutation_test_score",
        "validation_curve",
    ),
    "sklearn.inspection": ("permutation_importance", "partial_dependence"),
}


@dataclass(frozen=True)
class SklearnOptions:
    """The arguments of :func:`autolog`."""

    log_input_examples: bool = False
    log_model_signatures: bool = True
    log_models: bool = True
    log_datasets: bool = True
    disable_for_unsupported_versions: bool = False
    exclusive: bool = False
    silent: bool = False
    max_tuning_runs: int | None = 5
    log_post_training_metrics: bool = True
    serialization_format: str = "skops"
    registered_model_name: str | None = None
    pos_label: Any = None
    extra_tags: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.max_tuning_runs is not None and self.max_tuning_runs < 0:
            raise InvalidValueError(f"max_tuning_runs must not be negative, got {self.max_tuning_runs}")
        if self.serialization_format not in SERIALIZATION_FORMATS:
            raise InvalidValueError(
                f"unknown serialization_format `{self.serialization_format}`",
                hint="one of " + ", ".join(SERIALIZATION_FORMATS),
            )


def autolog(
    log_input_examples: bool = False,
    log_model_signatures: bool = True,
    log_models: bool = True,
    log_datasets: bool = True,
    disable: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
    silent: bool = False,
    max_tuning_runs: int | None = 5,
    log_post_training_metrics: bool = True,
    serialization_format: str = "skops",
    registered_model_name: str | None = None,
    pos_label: Any = None,
    extra_tags: Mapping[str, str] | None = None,
) -> None:
    """Log every training with scikit-learn from now on.

    A call of ``fit``, ``fit_transform`` or ``fit_predict`` logs to the active run, or to a run of its own if there is
    none.  Logged are the parameters (``get_params``), the metrics of the training data (``training_score``,
    ``training_accuracy_score``, ``training_mean_squared_error`` …), the dataset, tags with the estimator's class, its
    HTML view, plots if matplotlib is installed; for a parameter search also the best parameters and a child run for
    each of the best settings.  Trainings within a training (the steps of a pipeline, the folds of a search) are part
    of it.  Afterwards ``model.score()`` and the functions of ``sklearn.metrics``, called with what the model predicted,
    add metrics like ``accuracy_score_X_test``, named after the variable that was predicted from.

    Nothing in here ever makes a training fail: trouble is one warning.

    Args:
        log_input_examples: Save the first rows of the training data with the model.
        log_model_signatures: Save the types of the model's input and output with it.
        log_models: Save the trained model.
        log_datasets: Log name and digest of the data that is trained on and predicted from.
        disable: Switch off, and put scikit-learn back as it was.
        exclusive: Log nothing while a run is active that the user started.
        disable_for_unsupported_versions: Stay off if scikit-learn's version is not among those that were tested.
        silent: Give no warnings.
        max_tuning_runs: How many child runs a parameter search makes, best first; None: one for each setting.
        log_post_training_metrics: Log metrics that are computed after the training.
        serialization_format: How models are saved: ``skops``, which anybody can load since it runs no code, with
            ``cloudpickle`` for models that it cannot keep; or ``pickle`` or ``cloudpickle`` for all.
        registered_model_name: Register each saved model as a version of this name.
        pos_label: The class that precision, recall and f1 are computed for; None: all, weighted by frequency.
        extra_tags: Tags for the runs that are started here.

    Raises:
        InvalidValueError: An argument has a value it cannot have.
    """
    options = SklearnOptions(
        log_input_examples=log_input_examples,
        log_model_signatures=log_model_signatures,
        log_models=log_models,
        log_datasets=log_datasets,
        disable_for_unsupported_versions=disable_for_unsupported_versions,
        exclusive=exclusive,
        silent=silent,
        max_tuning_runs=max_tuning_runs,
        log_post_training_metrics=log_post_training_metrics,
        serialization_format=serialization_format,
        registered_model_name=registered_model_name,
        pos_label=pos_label,
        extra_tags=extra_tags,
    )
    INTEGRATION.by_user = True
    if disable:
        INTEGRATION.disable()
    else:
        INTEGRATION.enable(options)


# --- patching


def _usable() -> bool:
    """Whether the imported scikit-learn is of a version to work with."""
    options = INTEGRATION.options
    version = str(sys.modules["sklearn"].__version__)
    new_enough, tested = in_version_range(version, MINIMUM_VERSION, NEWEST_TESTED_VERSION)
    if options is None or (options.disable_for_unsupported_versions and not (new_enough and tested)):
        return False
    if not new_enough:
        minimum = ".".join(map(str, MINIMUM_VERSION))
        INTEGRATION.warn("promise to work", f"scikit-learn {version} is older than {minimum}")
    return True


def _patch_estimators(module: ModuleType, patches: Patches) -> None:
    """Patch the estimators that exist, and those that are defined later as they are defined."""
    if not _usable():
        return
    base = module.BaseEstimator
    before = vars(base).get("__init_subclass__")

    def init_subclass(cls: type, /, **kwargs: Any) -> None:
        if before is None:
            super(base, cls).__init_subclass__(**kwargs)
        else:
            before.__get__(None, cls)(**kwargs)
        if INTEGRATION.options is not None:
            with INTEGRATION.attempt(f"watch the class {cls.__name__}"):
                _patch_class(cls, base, patches)

    patches.replace(base, "__init_subclass__", classmethod(init_subclass))
    for cls in set(_subclasses(base)):
        _patch_class(cls, base, patches)


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _patch_class(cls: type, base: type, patches: Patches) -> None:
    """Patch the methods of ``cls`` where they are defined: in itself, in its bases and in their mixins."""
    package = cls.__module__.partition(".")[0]
    if package in FRAMEWORKS and package != "sklearn":
        return  # that framework's own module logs its trainings
    for owner in cls.__mro__:
        if owner in (object, base):
            continue
        for names, around in ((_FIT, fit.around), (_PREDICT, scores.around_predict), (_SCORE, scores.around_score)):
            for name in names:
                attribute = vars(owner).get(name)
                patched = _watched(attribute, functools.partial(around, INTEGRATION))
                if patched is not attribute:
                    patches.replace(owner, name, patched)


def _watched(attribute: Any, around: Any) -> Any:
    """``attribute`` of a class as a patched method; as it is if it is no method, or patched."""
    if isinstance(attribute, FunctionType):
        return Patched(attribute, around)
    inner = getattr(attribute, "fn", None)  # scikit-learn's `available_if`, which checks before it binds
    if isinstance(inner, FunctionType):
        attribute = copy.copy(attribute)
        attribute.fn = Patched(inner, around)
    return attribute


def _patch_metrics(module: ModuleType, patches: Patches) -> None:
    around = functools.partial(scores.around_metric, INTEGRATION)
    _patch_functions(module, scores.metric_names(module), around, patches)


def _patch_quiet(module: ModuleType, patches: Patches) -> None:
    _patch_functions(module, _QUIET[module.__name__], scores.around_quiet, patches)


def _patch_functions(module: ModuleType, names: Iterable[str], around: Any, patches: Patches) -> None:
    """Patch functions in their public module and where programs have imported them from it, also before ``autolog()``.

    Modules of scikit-learn keep the originals: they call each other's functions for their own ends.
    """
    if not _usable():
        return
    originals = {name: vars(module)[name] for name in names if callable(vars(module).get(name))}
    patched = {id(original): Patched(original, around) for original in originals.values()}
    for other in list(sys.modules.values()):
        if isinstance(other, ModuleType) and (other is module or other.__name__.partition(".")[0] != "sklearn"):
            for name, value in list(vars(other).items()):
                if id(value) in patched:
                    patches.replace(other, name, patched[id(value)])


def _patch_parallel(module: ModuleType, patches: Patches) -> None:
    if _usable():
        patches.replace(module.Parallel, "__call__", Patched(vars(module.Parallel)["__call__"], parallel.around))


INTEGRATION: Final[Integration[SklearnOptions]] = Integration(
    "sklearn",
    {
        "sklearn.base": _patch_estimators,
        "sklearn.metrics": _patch_metrics,
        "sklearn.utils.parallel": _patch_parallel,
        **dict.fromkeys(_QUIET, _patch_quiet),
    },
)
