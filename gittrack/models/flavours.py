"""What a library's models are to gittrack: one small module each, behind one Protocol, imported when it is needed.

Which module reads a model is decided by the table here, from the names under ``flavors`` in MLmodel; nothing that a
model says is ever imported as a module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from gittrack.errors import UnsupportedError

if TYPE_CHECKING:
    from gittrack.models.signature import ModelSignature
    from gittrack.models.trust import Trust

PYFUNC: Final = "python_function"

#: Name under ``flavors`` in MLmodel -> the module that knows it.  ``python_function`` models that MLflow's own loader
#: ``mlflow.<name>`` reads are of the flavour ``<name>``.
FLAVOURS: Final[dict[str, str]] = {
    "catboost": "gittrack.frameworks.catboost",
    "keras": "gittrack.frameworks.keras",
    "lightgbm": "gittrack.frameworks.lightgbm",
    "onnx": "gittrack.frameworks.onnx",
    "pytorch": "gittrack.frameworks.pytorch",
    "sklearn": "gittrack.frameworks.sklearn.flavour",
    "statsmodels": "gittrack.frameworks.statsmodels",
    "transformers": "gittrack.frameworks.transformers.flavour",
    "xgboost": "gittrack.frameworks.xgboost",
}


@dataclass(frozen=True)
class Saved:
    """What a flavour says about the files that it wrote.

    Attributes:
        native_conf: Its own entry under ``flavors``, with MLflow's keys; ``code`` is added for it.
        pyfunc_conf: What MLflow's loader of this flavour needs in the entry ``python_function`` (``model_path`` or
            ``data``, ``predict_fn`` …); ``loader_module``, ``env``, ``code`` and ``python_version`` are added for it.
            None if the model cannot predict.
        formats: What the files are: names of ``trust.SAFE_FORMATS``, or others such as ``cloudpickle``, which run code.
        requirements: Distributions that loading needs, by name, such as ``scikit-learn``.
        signature: What such a model takes and gives, if nobody says so and there is no example to see it from.
    """

    native_conf: Mapping[str, Any]
    pyfunc_conf: Mapping[str, Any] | None
    formats: Sequence[str]
    requirements: Sequence[str] = field(default_factory=list)
    signature: ModelSignature | None = None


class Predictor(Protocol):
    """A model as ``python_function``.

    It may have ``takes_matrix(names: Sequence[str | int] | None) -> bool`` besides: whether ``predict`` answers a
    matrix with these columns in this order (None: they have no names) as it answers a table with them, and each row by
    itself, whatever the others are.
    """

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """The model's output for ``data``, as MLflow's wrapper of this flavour gives it."""


class Flavour(Protocol):
    """A module of ``gittrack.frameworks`` that saves and loads the models of a library.

    Attributes:
        NAME: Its name in the table, and under ``flavors``.
    """

    NAME: str

    def save(self, model: Any, folder: Path, options: Mapping[str, Any]) -> Saved:
        """Write the files of ``model`` into an existing, empty folder.

        Args:
            model: A model of the library.
            folder: Where to write; nothing else is there but the input example.
            options: The arguments of ``log_model`` that only this flavour has.

        Raises:
            InvalidValueError: It is no such model, or cannot be written as asked; the hint says what to do.
        """

    def load(self, folder: Path, conf: Mapping[str, Any], *, trust: Trust) -> Any:
        """The native model.

        Args:
            folder: A private copy of the model's files, each verified.
            conf: The flavour's entry under ``flavors``: from outside, so every value of it is checked, and paths go
                through ``trust.inside``.
            trust: Asked with ``require`` before anything runs code that came with the model.

        Raises:
            UntrustedModelError: Loading would run code.
            FormatError: The files or ``conf`` are not what they should be.
            MissingDependencyError: The library is not installed.
        """

    def predictor(self, model: Any, conf: Mapping[str, Any]) -> Predictor:
        """``model`` as ``python_function``.  Raises FormatError.

        ``conf`` is that entry under ``flavors``; of a loaded model, with ``config`` as the caller wants it and with the
        ``metadata`` of MLmodel.
        """


def flavour(name: str) -> Flavour:
    """The flavour of that name.

    Raises:
        UnsupportedError: gittrack does not know it.
    """
    if name not in FLAVOURS:
        raise UnsupportedError(
            f"models of the flavour `{name:.80}` are not supported", hint="one of " + ", ".join(sorted(FLAVOURS))
        )
    return cast("Flavour", import_module(FLAVOURS[name]))


def loader_module(name: str) -> str:
    """MLflow's name of the module that loads a flavour, as it is written into MLmodel."""
    return f"mlflow.{name}"


def of_loader(module: object) -> str | None:
    """The flavour that MLflow's loader module of that name reads; None if it is none of the table."""
    name = module.removeprefix("mlflow.") if isinstance(module, str) and module.startswith("mlflow.") else ""
    return name if name in FLAVOURS else None
