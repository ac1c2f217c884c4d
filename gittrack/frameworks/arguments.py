"""The arguments that ``save_model`` and ``log_model`` of every flavour share, for type checkers: MLflow's names.

What they mean is said where they are used: ``models.logging.SaveOptions`` and ``LogOptions``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from gittrack.models.model import Model
    from gittrack.models.signature import ModelSignature


class CommonArguments(TypedDict, total=False):
    """Of both."""

    conda_env: Mapping[str, Any] | str | None
    code_paths: Sequence[str | os.PathLike[str]] | None
    signature: ModelSignature | Literal[False] | None
    pip_requirements: Sequence[str] | str | None
    extra_pip_requirements: Sequence[str] | str | None
    metadata: dict[str, Any] | None
    extra_files: Sequence[str | os.PathLike[str]] | None


class SaveArguments(CommonArguments, total=False):
    """Of ``save_model``."""

    mlflow_model: Model | None


class LogArguments(CommonArguments, total=False):
    """Of ``log_model``."""

    registered_model_name: str | None
    await_registration_for: int | None
    params: Mapping[str, Any] | None
    tags: Mapping[str, Any] | None
    model_type: str | None
    step: int
    model_id: str | None
    run_id: str | None
