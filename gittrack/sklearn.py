"""``gittrack.sklearn``: scikit-learn under MLflow's name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from gittrack.frameworks import publish
from gittrack.frameworks.sklearn import autolog, flavour
from gittrack.models import pyfunc

if TYPE_CHECKING:
    from gittrack.models.model import Model, ModelInfo
    from gittrack.models.signature import ModelSignature

__all__ = [
    "SERIALIZATION_FORMAT_CLOUDPICKLE",
    "SERIALIZATION_FORMAT_PICKLE",
    "SERIALIZATION_FORMAT_SKOPS",
    "autolog",
    "load_model",
    "log_model",
    "save_model",
]

SERIALIZATION_FORMAT_PICKLE = "pickle"
SERIALIZATION_FORMAT_CLOUDPICKLE = "cloudpickle"
SERIALIZATION_FORMAT_SKOPS = "skops"


def log_model(
    sk_model: Any,
    artifact_path: str | None = None,
    conda_env: Mapping[str, Any] | str | None = None,
    code_paths: Sequence[str | os.PathLike[str]] | None = None,
    serialization_format: str | None = None,
    registered_model_name: str | None = None,
    signature: ModelSignature | Literal[False] | None = None,
    input_example: Any = None,
    await_registration_for: int | None = 300,
    pip_requirements: Sequence[str] | str | None = None,
    extra_pip_requirements: Sequence[str] | str | None = None,
    pyfunc_predict_fn: str = "predict",
    metadata: dict[str, Any] | None = None,
    extra_files: Sequence[str | os.PathLike[str]] | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    model_type: str | None = None,
    step: int = 0,
    model_id: str | None = None,
    name: str | None = None,
    skops_trusted_types: Sequence[str] | None = None,
    run_id: str | None = None,
    **kwargs: Any,
) -> ModelInfo:
    """Keep an estimator with the active run, in MLflow's format; a run is started if there is none.

    Args:
        sk_model: A fitted estimator or pipeline.
        artifact_path: MLflow's older name of ``name``.
        conda_env: A conda environment instead of inferred requirements, as a dict or the path of a file.
        code_paths: Files and folders of code that the model needs.
        serialization_format: ``skops`` (the default: nobody runs code by loading it), ``cloudpickle`` or ``pickle``
            (loaded only by who trusts the model).
        registered_model_name: Also register it, as the next version of this name.
        signature: What it takes and gives; inferred from ``input_example`` if not given, False for none.
        input_example: Some rows of its input, or a pair of rows and a dict of parameters.
        await_registration_for: Taken for MLflow's sake.
        pip_requirements: Requirements instead of inferred ones, as lines or the path of a file.
        extra_pip_requirements: Requirements in addition to the inferred ones.
        pyfunc_predict_fn: What ``gittrack.pyfunc`` and servers call: ``predict``, ``predict_proba`` …
        metadata: Anything that JSON can say.
        extra_files: More files to keep with it.
        params: Facts about the model.
        tags: Tags of the model.
        model_type: What kind of model it is.
        step: Step of the training.
        model_id: Its id; made up if not given.
        name: Folder among the run's artifacts; ``model`` if not given.
        skops_trusted_types: Types that you know to be harmless, where gittrack does not; loading such a model needs
            ``trust=True``.
        run_id: Another run than the active one.
        kwargs: More arguments of MLflow's that mean nothing here.

    Raises:
        InvalidValueError: The model cannot be kept as asked; the hint says how it can.
        MissingDependencyError: skops or cloudpickle is not installed.
    """
    return publish.log_model(
        flavour,
        sk_model,
        artifact_path=artifact_path,
        name=name,
        run_id=run_id,
        options=_options(serialization_format, pyfunc_predict_fn, skops_trusted_types),
        conda_env=conda_env,
        code_paths=code_paths,
        registered_model_name=registered_model_name,
        signature=signature,
        input_example=input_example,
        await_registration_for=await_registration_for,
        pip_requirements=pip_requirements,
        extra_pip_requirements=extra_pip_requirements,
        metadata=metadata,
        extra_files=extra_files,
        params=params,
        tags=tags,
        model_type=model_type,
        step=step,
        model_id=model_id,
        **kwargs,
    )


def save_model(
    sk_model: Any,
    path: str | os.PathLike[str],
    conda_env: Mapping[str, Any] | str | None = None,
    code_paths: Sequence[str | os.PathLike[str]] | None = None,
    mlflow_model: Model | None = None,
    serialization_format: str | None = None,
    signature: ModelSignature | Literal[False] | None = None,
    input_example: Any = None,
    pip_requirements: Sequence[str] | str | None = None,
    extra_pip_requirements: Sequence[str] | str | None = None,
    pyfunc_predict_fn: str = "predict",
    metadata: dict[str, Any] | None = None,
    skops_trusted_types: Sequence[str] | None = None,
    extra_files: Sequence[str | os.PathLike[str]] | None = None,
) -> None:
    """Write an estimator's folder to ``path``, which must be empty or not exist; the rest as ``log_model``.

    Raises:
        AlreadyExistsError: There is something at ``path``.
    """
    publish.save_model(
        flavour,
        sk_model,
        path,
        options=_options(serialization_format, pyfunc_predict_fn, skops_trusted_types),
        mlflow_model=mlflow_model,
        conda_env=conda_env,
        code_paths=code_paths,
        signature=signature,
        input_example=input_example,
        pip_requirements=pip_requirements,
        extra_pip_requirements=extra_pip_requirements,
        metadata=metadata,
        extra_files=extra_files,
    )


def _options(form: str | None, function: str, types: Sequence[str] | None) -> dict[str, Any]:
    return {"serialization_format": form, "pyfunc_predict_fn": function, "skops_trusted_types": types}


def load_model(
    model_uri: str | os.PathLike[str], dst_path: str | os.PathLike[str] | None = None, *, trust: bool = False
) -> Any:
    """The estimator at an address; see ``gittrack.pyfunc.load_model`` for addresses and ``trust``.

    Raises:
        NotFoundError: No such model, or it is of another flavour.
        UntrustedModelError: It is a pickle, or has types that gittrack does not know, and ``trust`` is not set.
    """
    return pyfunc.load_native(flavour.NAME, model_uri, trust=trust, dst_path=dst_path)
