"""``gittrack.keras``: Keras 3 under MLflow's name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gittrack.frameworks import keras as flavour, publish
from gittrack.models import pyfunc

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Unpack

    from gittrack.frameworks.arguments import LogArguments, SaveArguments
    from gittrack.models.model import ModelInfo

__all__ = ["load_model", "log_model", "save_model"]


def log_model(
    model: Any,
    artifact_path: str | None = None,
    *,
    name: str | None = None,
    input_example: Any = None,
    save_model_kwargs: Mapping[str, Any] | None = None,
    **common: Unpack[LogArguments],
) -> ModelInfo:
    """Keep a model with the active run, in MLflow's format; a run is started if there is none.

    Args:
        model: A ``keras.Model``.
        artifact_path: MLflow's older name of ``name``.
        name: Folder among the run's artifacts; ``model`` if not given.
        input_example: Some rows of its input; the signature is inferred from them.
        save_model_kwargs: Arguments of the model's own ``save``.
        common: As for ``gittrack.sklearn.log_model``.

    Raises:
        InvalidValueError: It is no such model, or cannot be kept as asked; the hint says how it can.
        MissingDependencyError: Keras is not installed.
    """
    options = {"save_model_kwargs": save_model_kwargs}
    return publish.log_model(
        flavour,
        model,
        artifact_path=artifact_path,
        name=name,
        input_example=input_example,
        options=options,
        **common,
    )


def save_model(
    model: Any,
    path: str | os.PathLike[str],
    *,
    input_example: Any = None,
    save_model_kwargs: Mapping[str, Any] | None = None,
    **common: Unpack[SaveArguments],
) -> None:
    """Write a model's folder to ``path``, which must be empty or not exist; the rest as ``log_model``.

    Raises:
        AlreadyExistsError: There is something at ``path``.
    """
    options = {"save_model_kwargs": save_model_kwargs}
    publish.save_model(flavour, model, path, input_example=input_example, options=options, **common)


def load_model(
    model_uri: str | os.PathLike[str], dst_path: str | os.PathLike[str] | None = None, *, trust: bool = False
) -> Any:
    """The model at an address; see ``gittrack.pyfunc.load_model`` for addresses and ``trust``.

    Raises:
        NotFoundError: No such model, or it is of another flavour.
        UntrustedModelError: It has parts that could run code, and ``trust`` is not set.
    """
    return pyfunc.load_native(flavour.NAME, model_uri, trust=trust, dst_path=dst_path)
