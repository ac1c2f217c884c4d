"""``gittrack.pytorch``: PyTorch under MLflow's name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gittrack.frameworks import publish, pytorch as flavour
from gittrack.models import pyfunc

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gittrack.frameworks.arguments import LogArguments, SaveArguments
    from gittrack.models.model import ModelInfo

__all__ = ["load_model", "log_model", "save_model"]


def log_model(
    pytorch_model: Any,
    artifact_path: str | None = None,
    *,
    name: str | None = None,
    input_example: Any = None,
    serialization_format: str | None = None,
    **common: Unpack[LogArguments],
) -> ModelInfo:
    """Keep a model with the active run, in MLflow's format; a run is started if there is none.

    Args:
        pytorch_model: A ``torch.nn.Module``.
        artifact_path: MLflow's older name of ``name``.
        name: Folder among the run's artifacts; ``model`` if not given.
        input_example: Some rows of its input; the signature is inferred from them.
        serialization_format: ``pt2`` (the default: traced with the input example; nobody runs code by loading
            it) or ``pickle``.
        common: As for ``gittrack.sklearn.log_model``.

    Raises:
        InvalidValueError: It is no such model, or cannot be kept as asked; the hint says how it can.
        MissingDependencyError: PyTorch is not installed.
    """
    options = {"serialization_format": serialization_format, "input_example": input_example}
    return publish.log_model(
        flavour,
        pytorch_model,
        artifact_path=artifact_path,
        name=name,
        input_example=input_example,
        options=options,
        **common,
    )


def save_model(
    pytorch_model: Any,
    path: str | os.PathLike[str],
    *,
    input_example: Any = None,
    serialization_format: str | None = None,
    **common: Unpack[SaveArguments],
) -> None:
    """Write a model's folder to ``path``, which must be empty or not exist; the rest as ``log_model``.

    Raises:
        AlreadyExistsError: There is something at ``path``.
    """
    options = {"serialization_format": serialization_format, "input_example": input_example}
    publish.save_model(flavour, pytorch_model, path, input_example=input_example, options=options, **common)


def load_model(
    model_uri: str | os.PathLike[str], dst_path: str | os.PathLike[str] | None = None, *, trust: bool = False
) -> Any:
    """The module at an address; see ``gittrack.pyfunc.load_model`` for addresses and ``trust``.

    Raises:
        NotFoundError: No such model, or it is of another flavour.
        UntrustedModelError: Loading it runs code, and ``trust`` is not set.
    """
    return pyfunc.load_native(flavour.NAME, model_uri, trust=trust, dst_path=dst_path)
