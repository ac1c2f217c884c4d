"""``gittrack.catboost``: CatBoost under MLflow's name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gittrack.frameworks import catboost as flavour, publish
from gittrack.models import pyfunc

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gittrack.frameworks.arguments import LogArguments, SaveArguments
    from gittrack.models.model import ModelInfo

__all__ = ["load_model", "log_model", "save_model"]


def log_model(
    cb_model: Any,
    artifact_path: str | None = None,
    *,
    name: str | None = None,
    input_example: Any = None,
    format: str = "cbm",
    **common: Unpack[LogArguments],
) -> ModelInfo:
    """Keep a model with the active run, in MLflow's format; a run is started if there is none.

    Args:
        cb_model: A model of CatBoost.
        artifact_path: MLflow's older name of ``name``.
        name: Folder among the run's artifacts; ``model`` if not given.
        input_example: Some rows of its input; the signature is inferred from them.
        format: ``cbm`` or ``json``.
        common: As for ``gittrack.sklearn.log_model``.

    Raises:
        InvalidValueError: It is no such model, or cannot be kept as asked; the hint says how it can.
        MissingDependencyError: CatBoost is not installed.
    """
    options = {"format": format}
    return publish.log_model(
        flavour,
        cb_model,
        artifact_path=artifact_path,
        name=name,
        input_example=input_example,
        options=options,
        **common,
    )


def save_model(
    cb_model: Any,
    path: str | os.PathLike[str],
    *,
    input_example: Any = None,
    format: str = "cbm",
    **common: Unpack[SaveArguments],
) -> None:
    """Write a model's folder to ``path``, which must be empty or not exist; the rest as ``log_model``.

    Raises:
        AlreadyExistsError: There is something at ``path``.
    """
    options = {"format": format}
    publish.save_model(flavour, cb_model, path, input_example=input_example, options=options, **common)


def load_model(
    model_uri: str | os.PathLike[str], dst_path: str | os.PathLike[str] | None = None, *, trust: bool = False
) -> Any:
    """The model at an address; see ``gittrack.pyfunc.load_model`` for addresses and ``trust``.

    Raises:
        NotFoundError: No such model, or it is of another flavour.
        UntrustedModelError: Loading it runs code, and ``trust`` is not set.
    """
    return pyfunc.load_native(flavour.NAME, model_uri, trust=trust, dst_path=dst_path)
