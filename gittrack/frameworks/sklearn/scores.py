"""Metrics that a program computes after the training, logged to the run that trained the model.

MLflow's names: ``<metric>[-<n>]_<variable>``, where ``n`` counts the calls of that metric from the second on and the
variable is the one that was predicted from, as the program calls it.  What a model predicts is known by identity, as
long as it lives; nothing is kept alive, and no attribute is added to the user's objects.
"""

from __future__ import annotations

import inspect
import json
import sys
import threading
import time
from collections import defaultdict
from numbers import Real
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakValueDictionary

from gittrack.frameworks import datasets
from gittrack.frameworks.patch import WeakMap, inside, quiet
from gittrack.frameworks.recorder import client
from gittrack.types import Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import FrameType, ModuleType

    from gittrack.frameworks.patch import Integration
    from gittrack.frameworks.sklearn import SklearnOptions

#: Functions of ``sklearn.metrics`` that compute no metric.
_NO_METRICS: Final = frozenset({"check_scoring", "get_scorer", "make_scorer", "get_scorer_names"})
_UNKNOWN: Final = "unknown_dataset"
_MAX_DATASETS: Final = 10  #: logged for one run: a program may predict in a loop
_MAX_TEXT: Final = 32  #: characters of a text argument shown in `metric_info.json`


class _Run:
    """What was predicted and computed with the models of one run."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._lock = threading.Lock()
        self._names: WeakMap[str] = WeakMap()
        self._named: defaultdict[str, int] = defaultdict(int)
        self._computed: defaultdict[str, int] = defaultdict(int)
        self.calls: dict[str, str] = {}
        self.datasets = 0

    def name(self, data: object, frame: FrameType | None) -> tuple[str, bool]:
        """The name of the data of a prediction, and whether it is new: the variable's, numbered if that is taken."""
        with self._lock:
            known = self._names.get(data)
            if known is not None:
                return known, False
            variable = _variable(data, frame) or _UNKNOWN
            self._named[variable] += 1
            name = _numbered(variable, self._named[variable])
            self._names.set(data, name)
            return name, True

    def key(self, metric: str, dataset: str, call: str) -> str:
        """The name of the next value of ``metric`` on ``dataset``."""
        with self._lock:
            self._computed[metric] += 1
            key = f"{_numbered(metric, self._computed[metric])}_{dataset}"
            self.calls[key] = call
            return key


class _Model(NamedTuple):
    """A trained model: its run, and its id if it was saved."""

    run: _Run
    model_id: str | None


_runs: WeakValueDictionary[str, _Run] = WeakValueDictionary()
_models: WeakMap[_Model] = WeakMap()
_predictions: WeakMap[tuple[_Model, str]] = WeakMap()


def remember(estimator: object, run_id: str, model_id: str | None) -> None:
    """Log metrics of ``estimator`` to the run ``run_id`` from now on."""
    run = _runs.setdefault(run_id, _Run(run_id))
    _models.set(estimator, _Model(run, model_id))


def metric_names(module: ModuleType) -> list[str]:
    """The functions of ``sklearn.metrics`` that compute a metric."""
    return [
        name
        for name in module.__all__
        if name not in _NO_METRICS and callable(getattr(module, name)) and not inspect.isclass(getattr(module, name))
    ]


def around_quiet(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function and log nothing of what it does."""
    with quiet():
        return original(*args, **kwargs)


def around_predict(
    integration: Integration[SklearnOptions], original: Callable[..., Any], estimator: Any, *args: Any, **kwargs: Any
) -> Any:
    """Call a method that predicts, and remember what came out."""
    model = _model(integration, estimator)
    if model is None:
        return original(estimator, *args, **kwargs)
    with quiet():
        predicted = original(estimator, *args, **kwargs)
        with integration.attempt("remember a prediction"):
            data = _data(original, args, kwargs)
            name, new = model.run.name(data, _callers_frame())
            _predictions.set(predicted, (model, name))
            if new and integration.options is not None and integration.options.log_datasets:
                _log_dataset(model.run, data)
    return predicted


def _log_dataset(run: _Run, data: object) -> None:
    run.datasets += 1
    if run.datasets <= _MAX_DATASETS:
        dataset = datasets.describe(data, None, context="eval")
        if dataset is not None:
            client().log_inputs(run.run_id, [dataset])


def around_score(
    integration: Integration[SklearnOptions], original: Callable[..., Any], estimator: Any, *args: Any, **kwargs: Any
) -> Any:
    """Call a model's ``score``, and log it as a metric ``<Class>_score_<variable>``."""
    model = _model(integration, estimator)
    if model is None:
        return original(estimator, *args, **kwargs)
    with quiet():
        value = original(estimator, *args, **kwargs)
        with integration.attempt("log a score"):
            if _is_number(value):
                frame = _callers_frame()
                dataset, _ = model.run.name(_data(original, args, kwargs), frame)
                metric = f"{type(estimator).__name__}_score"
                call = _call(f"{type(estimator).__name__}.score", original, (estimator, *args), kwargs, frame, skip=1)
                _log(model, metric, dataset, call, value)
    return value


def around_metric(
    integration: Integration[SklearnOptions], original: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """Call a function of ``sklearn.metrics``, and log what it computes if it was given a prediction."""
    found = None if inside() or not _wanted(integration) else _prediction((*args, *kwargs.values()))
    if found is None:
        return original(*args, **kwargs)
    model, dataset = found
    with quiet():
        value = original(*args, **kwargs)
        with integration.attempt("log a metric"):
            if _is_number(value):
                call = _call(original.__name__, original, args, kwargs, _callers_frame())
                _log(model, original.__name__, dataset, call, value)
    return value


def _log(model: _Model, metric: str, dataset: str, call: str, value: float) -> None:
    run = model.run
    key = run.key(metric, dataset, call)
    now = int(time.time() * 1000)
    client().log_batch(run.run_id, metrics=[Metric(key, float(value), now, 0, model.model_id)])
    client().log_text(run.run_id, json.dumps(dict(sorted(run.calls.items())), indent=2), "metric_info.json")


def _wanted(integration: Integration[SklearnOptions]) -> bool:
    return integration.options is not None and integration.options.log_post_training_metrics


def _model(integration: Integration[SklearnOptions], estimator: object) -> _Model | None:
    return None if inside() or not _wanted(integration) else _models.get(estimator)


def _prediction(arguments: Iterable[object]) -> tuple[_Model, str] | None:
    """The first of ``arguments`` that a model predicted."""
    return next((found for found in map(_predictions.get, arguments) if found is not None), None)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


# --- names, as the program calls them


def _data(method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The first argument of a method's call."""
    return args[0] if args else kwargs.get(list(inspect.signature(method).parameters)[1])


def _callers_frame() -> FrameType | None:
    """The frame of whoever called the patched function."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("gittrack.frameworks."):
        frame = frame.f_back
    return frame


def _variable(value: object, frame: FrameType | None) -> str | None:
    """What the program calls ``value``: the variable in the outermost function that it was handed down from."""
    while frame is not None and any(one is value for one in _arguments(frame)):
        frame = frame.f_back
    if frame is None:
        return None
    return next(
        (name for names in (frame.f_locals, frame.f_globals) for name, one in names.items() if one is value), None
    )


def _arguments(frame: FrameType) -> list[object]:
    """What the function of ``frame`` was called with."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    several = bool(code.co_flags & inspect.CO_VARARGS)
    named = bool(code.co_flags & inspect.CO_VARKEYWORDS)
    names = frame.f_locals
    found = [names.get(name) for name in code.co_varnames[:count]]
    for name in code.co_varnames[count : count + several + named]:
        rest = names.get(name, ())
        found.extend(rest.values() if isinstance(rest, dict) else rest)
    return found


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"  # a variable has no `-` in its name: these do not clash


def _call(
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    frame: FrameType | None,
    skip: int = 0,
) -> str:
    """A call as the program wrote it, or nearly: ``accuracy_score(y_true=y_test, y_pred=predicted)``."""
    names = list(inspect.signature(function).parameters)
    given = [*zip(names, args, strict=False)][skip:] + list(kwargs.items())
    return f"{name}({', '.join(f'{key}={_shown(value, frame)}' for key, value in given)})"


def _shown(value: object, frame: FrameType | None) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "...")
    if value is None or isinstance(value, int | float | complex | bool):
        return repr(value)
    return _variable(value, frame) or f"<{type(value).__name__}>"
