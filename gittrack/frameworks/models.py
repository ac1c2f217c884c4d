"""Where the saving of models plugs into autologging.

Autologging knows when a model is ready and with which data; what a saved model is, is not its business.  The module
``saver`` knows, for every framework that has a flavour; somebody else may register another function:

    models.register("sklearn", save)      # save(fitted: FittedModel) -> model id or None

It is called right after the training, with the run open and its metrics still to come (they then name the model):
with the estimator as ``model`` and, for a parameter search, once more with the best one as ``best_estimator``.  What it
raises becomes autologging's one warning.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gittrack.models.flavours import FLAVOURS


@dataclass(frozen=True)
class FittedModel:
    """A trained model, with what it takes to describe it.

    Attributes:
        framework: Name in the table of frameworks, ``sklearn``.
        model: The trained object itself.
        name: ``model``, or ``best_estimator`` of a parameter search.
        run_id: The run that trained it.
        sample: The first rows of the training data, copied before the training; None if they cannot be had.
        predictor: Computes the model's output for rows like ``sample``; None if it has no such method.
        params: The parameters of the training, as logged.
        options: The options of ``autolog()`` that concern models: ``log_input_examples``, ``log_model_signatures``,
            ``serialization_format``, ``registered_model_name``.
    """

    framework: str
    model: Any
    name: str
    run_id: str
    sample: Any = None
    predictor: Callable[[Any], Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def predictions(self) -> Any:
        """The model's output for ``sample``; None without a sample or a method that predicts.

        A copy of the sample is given to the model, so that ``sample`` stays as it was.
        """
        if self.sample is None or self.predictor is None:
            return None
        return self.predictor(copy.deepcopy(self.sample))


Saver = Callable[[FittedModel], str | None]

_savers: dict[str, Saver | None] = {}


def register(framework: str, saver: Saver | None) -> None:
    """Let ``saver`` save the models of ``framework``; None: save none.

    Args:
        framework: Name in the table of frameworks.
        saver: Gets the model, returns the id it was saved under or None.
    """
    _savers[framework] = saver


def forget(framework: str) -> None:
    """Undo ``register``: gittrack saves the models of ``framework`` itself again."""
    _savers.pop(framework, None)


def wanted(framework: str) -> bool:
    """True if somebody saves the models of ``framework``; else nothing needs to be collected for it."""
    return _savers[framework] is not None if framework in _savers else framework in FLAVOURS


def save(fitted: FittedModel) -> str | None:
    """Save ``fitted``.  Returns the model's id; None if nobody saves models of its framework."""
    if fitted.framework not in _savers and fitted.framework in FLAVOURS:
        from gittrack.frameworks import saver

        return saver.save(fitted)
    registered = _savers.get(fitted.framework)
    return None if registered is None else registered(fitted)
