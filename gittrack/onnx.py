"""``gittrack.onnx``: ONNX under MLflow's name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gittrack.frameworks import onnx as flavour, publish
from gittrack.models import pyfunc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Unpack

    from gittrack.frameworks.arguments import LogArguments, SaveArguments
    from gittrack.models.model import ModelInfo

__all__ = ["load_model", "log_model", "save_model"]


def log_model(
    onnx_model: Any,
    artifact_path: str | None = None,
    *,
    name: str | None = None,
    input_example: Any = None,
    onnx_execution_providers: Sequence[str] | None = None,
    onnx_session_options: Mapping[str, Any] | None = None,
    save_as_external_data: bool = True,
    **common: Unpack[LogArguments],
) -> ModelInfo:
    """Keep a model with the active run, in MLflow's format; a run is started if there is none.

    Args:
        onnx_model: An ``onnx.ModelProto``.
        artifact_path: MLflow's older name of ``name``.
        name: Folder among the run's artifacts; ``model`` if not given.
        input_example: Some rows of its input; the signature is inferred from them.
        onnx_execution_providers: Which of onnxruntime's providers MLflow shall use.
        onnx_session_options: Options of onnxruntime's session for MLflow.
        save_as_external_data: Weights in files of their own, if they do not fit into one.
        common: As for ``gittrack.sklearn.log_model``.

    Raises:
        InvalidValueError: It is no such model, or cannot be kept as asked; the hint says how it can.
        MissingDependencyError: ONNX is not installed.
    """
    options = {
        "onnx_execution_providers": onnx_execution_providers,
        "onnx_session_options": onnx_session_options,
        "save_as_external_data": save_as_external_data,
    }
    return publish.log_model(
        flavour,
        onnx_model,
        artifact_path=artifact_path,
        name=name,
        input_example=input_example,
        options=options,
        **common,
    )


def save_model(
    onnx_model: Any,
    path: str | os.PathLike[str],
    *,
    input_example: Any = None,
    onnx_execution_providers: Sequence[str] | None = None,
    onnx_session_options: Mapping[str, Any] | None = None,
    save_as_external_data: bool = True,
    **common: Unpack[SaveArguments],
) -> None:
    """Write a model's folder to ``path``, which must be empty or not exist; the rest as ``log_model``.

    Raises:
        AlreadyExistsError: There is something at ``path``.
    """
    options = {
        "onnx_execution_providers": onnx_execution_providers,
        "onnx_session_options": onnx_session_options,
        "save_as_external_data": save_as_external_data,
    }
    publish.save_model(flavour, onnx_model, path, input_example=input_example, options=options, **common)


def load_model(
    model_uri: str | os.PathLike[str], dst_path: str | os.PathLike[str] | None = None, *, trust: bool = False
) -> Any:
    """The ``onnx.ModelProto`` at an address; see ``gittrack.pyfunc.load_model`` for addresses and ``trust``.

    Raises:
        NotFoundError: No such model, or it is of another flavour.
        UntrustedModelError: Loading it runs code, and ``trust`` is not set.
    """
    return pyfunc.load_native(flavour.NAME, model_uri, trust=trust, dst_path=dst_path)
