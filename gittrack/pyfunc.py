"""``gittrack.pyfunc``: any model as one thing that predicts, and models that are Python code; MLflow's names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from gittrack.frameworks import publish
from gittrack.models import python_model as python
from gittrack.models.pyfunc import PyFuncModel, load_model
from gittrack.models.python_model import PythonModel, PythonModelContext, PythonOptions

if TYPE_CHECKING:
    from gittrack.models.model import Model, ModelInfo
    from gittrack.models.signature import ModelSignature

__all__ = ["PyFuncModel", "PythonModel", "PythonModelContext", "load_model", "log_model", "save_model"]


def log_model(
    artifact_path: str | None = None,
    loader_module: str | None = None,
    data_path: str | os.PathLike[str] | None = None,
    code_paths: Sequence[str | os.PathLike[str]] | None = None,
    conda_env: Mapping[str, Any] | str | None = None,
    python_model: Any = None,
    artifacts: Mapping[str, str | os.PathLike[str]] | None = None,
    registered_model_name: str | None = None,
    signature: ModelSignature | Literal[False] | None = None,
    input_example: Any = None,
    await_registration_for: int | None = 300,
    pip_requirements: Sequence[str] | str | None = None,
    extra_pip_requirements: Sequence[str] | str | None = None,
    metadata: dict[str, Any] | None = None,
    model_config: Any = None,
    streamable: bool | None = None,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    model_type: str | None = None,
    step: int = 0,
    model_id: str | None = None,
    run_id: str | None = None,
    **kwargs: Any,
) -> ModelInfo:
    """Keep a model that is Python code with the active run; loading it runs that code, so it needs ``trust=True``.

    Args:
        artifact_path: MLflow's older name of ``name``.
        loader_module: Instead of ``python_model``: a module with ``_load_pyfunc(path)``, in ``code_paths``.
        data_path: With ``loader_module``: the file or folder that it loads.
        code_paths: Files and folders of code that the model needs.
        conda_env: A conda environment instead of inferred requirements, as a dict or the path of a file.
        python_model: A ``PythonModel``, a function, or the path of a file of code that calls
            ``gittrack.models.set_model``.
        artifacts: Name -> path of files that the model needs; its context has the paths of the copies.
        registered_model_name: Also register it, as the next version of this name.
        signature: What it takes and gives; if not given, what the type hints of ``predict`` say, else inferred from
            ``input_example``.
        input_example: Some of its input, or a pair of input and a dict of parameters.
        await_registration_for: Taken for MLflow's sake.
        pip_requirements: Requirements instead of inferred ones, as lines or the path of a file.
        extra_pip_requirements: Requirements in addition to the inferred ones.
        metadata: Anything that JSON can say.
        model_config: Configuration, as a dict or the path of a YAML file.
        streamable: The model has ``predict_stream``.
        name: Folder among the run's artifacts; ``model`` if not given.
        params: Facts about the model.
        tags: Tags of the model.
        model_type: What kind of model it is.
        step: Step of the training.
        model_id: Its id; made up if not given.
        run_id: Another run than the active one.
        kwargs: More arguments of MLflow's that mean nothing here.

    Raises:
        InvalidValueError: The model cannot be kept as asked.
        NotFoundError: A file is missing.
    """
    save_options, log_options = publish.split(
        {
            **kwargs,
            "code_paths": code_paths,
            "conda_env": conda_env,
            "registered_model_name": registered_model_name,
            "signature": signature,
            "input_example": input_example,
            "await_registration_for": await_registration_for,
            "pip_requirements": pip_requirements,
            "extra_pip_requirements": extra_pip_requirements,
            "metadata": metadata,
            "params": params,
            "tags": tags,
            "model_type": model_type,
            "step": step,
            "model_id": model_id,
        }
    )
    options = PythonOptions(python_model, artifacts, model_config, streamable, loader_module, data_path)

    def save(folder: os.PathLike[str], about: Model) -> Model:
        return python.save_model(folder, options, save_options, about)

    return publish.keep(save, artifact_path=artifact_path, name=name, run_id=run_id, log_options=log_options)


def save_model(
    path: str | os.PathLike[str],
    loader_module: str | None = None,
    data_path: str | os.PathLike[str] | None = None,
    code_paths: Sequence[str | os.PathLike[str]] | None = None,
    conda_env: Mapping[str, Any] | str | None = None,
    mlflow_model: Model | None = None,
    python_model: Any = None,
    artifacts: Mapping[str, str | os.PathLike[str]] | None = None,
    signature: ModelSignature | Literal[False] | None = None,
    input_example: Any = None,
    pip_requirements: Sequence[str] | str | None = None,
    extra_pip_requirements: Sequence[str] | str | None = None,
    metadata: dict[str, Any] | None = None,
    model_config: Any = None,
    streamable: bool | None = None,
    **kwargs: Any,
) -> None:
    """Write the model's folder to ``path``, which must be empty or not exist; the rest as ``log_model``.

    Raises:
        AlreadyExistsError: There is something at ``path``.
    """
    save_options, _ = publish.split(
        {
            **kwargs,
            "code_paths": code_paths,
            "conda_env": conda_env,
            "signature": signature,
            "input_example": input_example,
            "pip_requirements": pip_requirements,
            "extra_pip_requirements": extra_pip_requirements,
            "metadata": metadata,
        }
    )
    options = PythonOptions(python_model, artifacts, model_config, streamable, loader_module, data_path)
    python.save_model(path, options, save_options, mlflow_model)
