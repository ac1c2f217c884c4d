"""What the flavours share: their library or a clear error, classes by the names that gittrack knows, one predictor."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from gittrack.errors import FormatError, GittrackError, InvalidValueError, MissingDependencyError

_log = logging.getLogger("gittrack")


def library(module: str, package: str) -> Any:
    """The module of a model's library.  Raises MissingDependencyError if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"this is a model of {package}, which cannot be imported: {error}", hint=f"`pip install {package}`"
        ) from error


def qualified(kind: type) -> str:
    """Name of a class with its module, as MLflow writes it into MLmodel."""
    return f"{kind.__module__}.{kind.__qualname__}"


def class_of(model: Any, known: Collection[str], what: str) -> str:
    """The name in ``known`` of the model's class, or of the nearest one that it is derived from.

    Raises:
        InvalidValueError: It is none of them.
    """
    for kind in type(model).__mro__:
        if qualified(kind) in known:
            return qualified(kind)
    shown = ", ".join(sorted({name.rpartition(".")[2] for name in known}))
    raise InvalidValueError(f"a {type(model).__name__} is no model of {what}", hint=f"one of {shown}")


def named(name: object, known: Collection[str]) -> type:
    """The class of that name; only those in ``known`` are ever imported.  Raises FormatError for any other."""
    if not isinstance(name, str) or name not in known:
        raise FormatError(f"the model is of a class `{name!s:.80}`, which gittrack does not know")
    module, _, attribute = name.rpartition(".")
    found: type = getattr(import_module(module), attribute)
    return found


@contextmanager
def reading(file: str) -> Iterator[None]:
    """Whatever a library raises while it reads a file that came from outside becomes a FormatError."""
    try:
        yield
    except (GittrackError, KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        shown = " ".join(str(error).split())
        raise FormatError(f"`{file}` cannot be read: {type(error).__name__}: {shown:.200}") from error


class NativePredictor:
    """A model as ``python_function``.

    Args:
        model: The model of its own library.
        function: What predicts; parameters that it does not take are left out, with a warning.
        columns: ``function`` answers an array with these columns as it answers a table, and each row by itself; None if
            it takes tables only.
    """

    def __init__(self, model: Any, function: Callable[..., Any], columns: Sequence[str] | None = None) -> None:
        self._model = model
        self._function = function
        self._columns = columns

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """What the model says."""
        return self._function(data, **accepted(self._function, params or {}))

    def takes_matrix(self, names: Sequence[str | int] | None) -> bool:
        """True for the columns that the model was fitted with, if it takes them by position; see ``Predictor``."""
        return self._columns is not None and names is not None and list(names) == list(self._columns)

    def get_raw_model(self) -> Any:
        """The model itself."""
        return self._model


def accepted(function: Callable[..., Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``params`` that ``function`` takes."""
    if not params:
        return {}
    known = inspect.signature(function).parameters.values()
    if any(one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in known):
        return dict(params)
    names = {one.name for one in known}
    if unknown := sorted(set(params) - names):
        _log.warning("the model takes no parameter %s; left out", ", ".join(unknown))
    return {name: value for name, value in params.items() if name in names}
