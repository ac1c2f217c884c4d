"""``gittrack.transformers``: pipelines of Hugging Face's transformers under MLflow's name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from gittrack.errors import InvalidValueError, UnsupportedError
from gittrack.frameworks import publish
from gittrack.frameworks.transformers import flavour
from gittrack.models import pyfunc

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gittrack.frameworks.arguments import LogArguments, SaveArguments
    from gittrack.models.model import ModelInfo

__all__ = ["load_model", "log_model", "save_model"]


def log_model(
    transformers_model: Any,
    artifact_path: str | None = None,
    *,
    processor: Any = None,
    task: str | None = None,
    torch_dtype: Any = None,
    model_card: Any = None,
    name: str | None = None,
    input_example: Any = None,
    model_config: Mapping[str, Any] | None = None,
    prompt_template: str | None = None,
    save_pretrained: bool = True,
    **common: Unpack[LogArguments],
) -> ModelInfo:
    """Keep a pipeline with the active run, in MLflow's format; a run is started if there is none.

    Args:
        transformers_model: A ``transformers.Pipeline``, or a dict of its parts: ``model``, ``tokenizer``,
            ``feature_extractor``, ``image_processor``, ``torch_dtype``.
        artifact_path: MLflow's older name of ``name``.
        processor: A ``Processor`` to keep beside it; the parts can then be loaded, and no pipeline.
        task: What the parts are for, such as ``text-classification``; a pipeline knows it.
        torch_dtype: Type of the weights when they are loaded; that of the model if not given.
        model_card: A ``ModelCard`` of huggingface_hub to keep beside it; none is fetched.
        name: Folder among the run's artifacts; ``model`` if not given.
        input_example: Some input; the signature is inferred from it.  Without one it is the usual of the task.
        model_config: Options of ``python_function``'s predictions, such as ``{"top_k": 2}``.
        prompt_template: Text with one ``{prompt}`` that ``python_function`` puts its input into.
        save_pretrained: The weights are kept, too; nothing else is supported.
        common: As for ``gittrack.sklearn.log_model``.

    Raises:
        InvalidValueError: It is no such model, or cannot be kept as asked; the hint says how it can.
        UnsupportedError: ``task`` is one of MLflow's own, or the weights are not to be kept.
        MissingDependencyError: transformers is not installed.
    """
    pipeline, options = _prepared(transformers_model, task, save_pretrained, model_config, prompt_template)
    options |= {"processor": processor, "torch_dtype": torch_dtype, "model_card": model_card}
    if prompt_template is not None:
        common["metadata"] = {**(common.get("metadata") or {}), "prompt_template": prompt_template}
    return publish.log_model(
        flavour,
        pipeline,
        artifact_path=artifact_path,
        name=name,
        input_example=input_example,
        options=options,
        **common,
    )


def save_model(
    transformers_model: Any,
    path: str | os.PathLike[str],
    *,
    processor: Any = None,
    task: str | None = None,
    torch_dtype: Any = None,
    model_card: Any = None,
    input_example: Any = None,
    model_config: Mapping[str, Any] | None = None,
    prompt_template: str | None = None,
    save_pretrained: bool = True,
    **common: Unpack[SaveArguments],
) -> None:
    """Write a pipeline's folder to ``path``, which must be empty or not exist; the rest as ``log_model``.

    Raises:
        AlreadyExistsError: There is something at ``path``.
    """
    pipeline, options = _prepared(transformers_model, task, save_pretrained, model_config, prompt_template)
    options |= {"processor": processor, "torch_dtype": torch_dtype, "model_card": model_card}
    if prompt_template is not None:
        common["metadata"] = {**(common.get("metadata") or {}), "prompt_template": prompt_template}
    publish.save_model(flavour, pipeline, path, input_example=input_example, options=options, **common)


def _prepared(
    model: Any,
    task: str | None,
    save_pretrained: bool,
    model_config: Mapping[str, Any] | None,
    prompt_template: str | None,
) -> tuple[Any, dict[str, Any]]:
    """The pipeline, and the options of the flavour that say how it predicts."""
    if not save_pretrained:
        raise UnsupportedError("a model is kept with its weights", hint="save_pretrained=True")
    pipeline = flavour.as_pipeline(model, task)
    return pipeline, {"model_config": model_config, "prompt_template": prompt_template}


def load_model(
    model_uri: str | os.PathLike[str],
    dst_path: str | os.PathLike[str] | None = None,
    return_type: Literal["pipeline", "components"] = "pipeline",
    device: Any = None,
    *,
    trust: bool = False,
    **kwargs: Any,
) -> Any:
    """The pipeline at an address; see ``gittrack.pyfunc.load_model`` for addresses and ``trust``.

    Nothing is fetched: what is not in the model's folder is not there.

    Args:
        model_uri: The address.
        dst_path: An existing folder to put the model's files into; a private one if not given.
        return_type: ``pipeline``, or ``components`` for a dict of the task and the parts.
        device: Where the pipeline computes, as ``transformers.pipeline`` takes it.
        trust: Code that came with the model may run.
        kwargs: More arguments of ``transformers.pipeline``, such as ``dtype`` or ``batch_size``.

    Raises:
        NotFoundError: No such model, or it is of another flavour.
        UntrustedModelError: It has parts that could run code, and ``trust`` is not set.
        UnsupportedError: Its weights are not in it, or it has a processor, which no pipeline takes.
    """
    if return_type not in ("pipeline", "components"):
        raise InvalidValueError(f"unknown return_type `{return_type!s:.80}`", hint="pipeline or components")
    local, conf = pyfunc.fetch_native(flavour.NAME, model_uri, trust=trust, dst_path=dst_path)
    if return_type == "components":
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        if kwargs:
            raise InvalidValueError(f"`{next(iter(kwargs))}` is for pipelines, not for their parts")
        return flavour.load_components(local.folder, conf, trust=local.trust, dtype=dtype)
    return flavour.load(local.folder, conf, trust=local.trust, device=device, **kwargs)
