"""``gittrack.statsmodels``: statsmodels under MLflow's name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gittrack.frameworks import publish, statsmodels as flavour
from gittrack.models import pyfunc

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gittrack.frameworks.arguments import LogArguments, SaveArguments
    from gittrack.models.model import ModelInfo

__all__ = ["load_model", "log_model", "save_model"]


def log_model(
    statsmodels_model: Any,
    artifact_path: str | None = None,
    *,
    name: str | None = None,
    input_example: Any = None,
    remove_data: bool = False,
    **common: Unpack[LogArguments],
) -> ModelInfo:
    """Keep a model with the active run, in MLflow's format; a run is started if there is none.

    Args:
        statsmodels_model: Results, as ``fit()`` gives them; kept as a pickle, which is all that statsmodels has.
        artifact_path: MLflow's older name of ``name``.
        name: Folder among the run's artifacts; ``model`` if not given.
        input_example: Some rows of its input; the signature is inferred from them.
        remove_data: Leave out what is as long as the training data.
        common: As for ``gittrack.sklearn.log_model``.

    Raises:
        InvalidValueError: It is no such model, or cannot be kept as asked; the hint says how it can.
        MissingDependencyError: statsmodels is not installed.
    """
    options = {"remove_data": remove_data}
    return publish.log_model(
        flavour,
        statsmodels_model,
        artifact_path=artifact_path,
        name=name,
        input_example=input_example,
        options=options,
        **common,
    )


def save_model(
    statsmodels_model: Any,
    path: str | os.PathLike[str],
    *,
    input_example: Any = None,
    remove_data: bool = False,
    **common: Unpack[SaveArguments],
) -> None:
    """Write a model's folder to ``path``, which must be empty or not exist; the rest as ``log_model``.

    Raises:
        AlreadyExistsError: There is something at ``path``.
    """
    options = {"remove_data": remove_data}
    publish.save_model(flavour, statsmodels_model, path, input_example=input_example, options=options, **common)


def load_model(
    model_uri: str | os.PathLike[str], dst_path: str | os.PathLike[str] | None = None, *, trust: bool = False
) -> Any:
    """The results at an address; see ``gittrack.pyfunc.load_model`` for addresses and ``trust``.

    Raises:
        NotFoundError: No such model, or it is of another flavour.
        UntrustedModelError: ``trust`` is not set: it is a pickle.
    """
    return pyfunc.load_native(flavour.NAME, model_uri, trust=trust, dst_path=dst_path)
