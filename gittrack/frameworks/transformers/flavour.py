"""Models of transformers: a pipeline's parts, each in a folder of its own, read without the hub and without code.

Source of the format: ``mlflow.transformers`` 3.17: ``model/`` and ``components/<name>/`` as the library's own
``save_pretrained`` writes them, and the names of their classes in MLmodel.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.data.schema import ColSpec, Schema, TensorSpec
from gittrack.errors import FormatError, InvalidValueError, MissingDependencyError, UnsupportedError
from gittrack.frameworks import native
from gittrack.frameworks.transformers import folders
from gittrack.frameworks.transformers.predictor import TASKS, TransformersPredictor, check_options, check_template
from gittrack.models.flavours import Saved
from gittrack.models.signature import ModelSignature
from gittrack.models.trust import inside

if TYPE_CHECKING:
    from gittrack.models.trust import Trust

NAME: Final = "transformers"
MODEL: Final = "model"
COMPONENTS: Final = "components"
PROCESSOR: Final = "processor"
#: The parts of a pipeline beside its model -> the class that all of their kind are derived from.
_PARTS: Final = {
    "feature_extractor": "FeatureExtractionMixin",
    "tokenizer": "PreTrainedTokenizerBase",
    "image_processor": "ImageProcessingMixin",
}
#: What MLmodel says of a model whose weights are somewhere else.
_ELSEWHERE: Final = ("source_model_revision", "local_base_model_path", "peft_adaptor")
#: Tasks that MLflow makes from others; its wrapper speaks OpenAI's protocol for them.
_PROTOCOLS: Final = "llm/v1/"
_CLASS = re.compile(r"[A-Z]\w{0,200}")
_DTYPE = re.compile(r"(?:torch\.)?((?:b?float|complex|u?int)\d{1,3}|float8_\w{1,20}|double|half|bool)")
_hub_lock = threading.RLock()


# --- saving


def as_pipeline(model: Any, task: str | None) -> Any:
    """A pipeline from one, or from a dict of its parts: ``model``, ``tokenizer``, ``image_processor`` ….

    Raises:
        InvalidValueError: It is neither, or the parts make no pipeline.
        UnsupportedError: The task is one that only MLflow has.
        MissingDependencyError: transformers is not installed.
    """
    transformers = native.library("transformers", "transformers")
    if task is not None and task.startswith(_PROTOCOLS):
        raise UnsupportedError(f"the task `{task:.80}` is not supported", hint="a task of transformers is")
    if isinstance(model, transformers.Pipeline):
        return model
    if not isinstance(model, dict):
        raise InvalidValueError(
            f"a {type(model).__name__} is no model of transformers", hint="pass a pipeline, or a dict of its parts"
        )
    known = {"model", "torch_dtype", "dtype", *_PARTS}
    if "model" not in model or set(model) - known:
        raise InvalidValueError(
            f"the parts of a pipeline are `model` and {', '.join(sorted(_PARTS))}, got {', '.join(map(str, model))}"
        )
    if task is None:
        raise InvalidValueError("what the parts are for is not known", hint='pass task, such as "text-classification"')
    parts = {name: part for name, part in model.items() if name not in ("torch_dtype", "dtype")}
    dtype = model.get("dtype") or model.get("torch_dtype")
    try:
        return transformers.pipeline(task, **parts, **({} if dtype is None else {"dtype": dtype}))
    except Exception as error:  # parts can fail to fit in any way
        shown = " ".join(str(error).split())
        raise InvalidValueError(f"the parts make no pipeline for `{task:.80}`: {shown:.300}") from error


def save(model: Any, folder: Path, options: Mapping[str, Any]) -> Saved:
    """Write ``model/`` and ``components/``; see ``models.flavours.Flavour``.

    Options: ``processor``, ``torch_dtype``, ``model_card``, ``model_config``, ``prompt_template``.
    """
    transformers = native.library("transformers", "transformers")
    pipeline = model
    if not isinstance(getattr(pipeline, "model", None), transformers.PreTrainedModel):
        kind = type(getattr(pipeline, "model", pipeline)).__name__
        raise InvalidValueError(
            f"a {kind} is no model of transformers", hint="of an adapter of PEFT: model.merge_and_unload()"
        )
    if len(set((getattr(pipeline.model, "hf_device_map", None) or {}).values())) > 1:
        raise InvalidValueError("the model is spread over several devices", hint="load it without device_map")
    processor = options.get(PROCESSOR)
    parts = {name: part for name in _PARTS if (part := getattr(pipeline, name, None)) is not None}
    written = {**parts, PROCESSOR: processor} if processor is not None else parts
    pipeline.model.save_pretrained(str(folder / MODEL))
    for name, part in written.items():
        part.save_pretrained(str(folder / COMPONENTS / name))
    _write_card(options.get("model_card"), folder)
    try:
        folders.check(folder / MODEL, folder / COMPONENTS)
        form = "safetensors"
    except FormatError:
        form = "transformers with code"  # a model or a tokenizer of the user's own
    return Saved(
        native_conf={
            "transformers_version": transformers.__version__,
            "task": pipeline.task,
            "instance_type": type(pipeline).__name__,
            "torch_dtype": str(options.get("torch_dtype") or pipeline.model.dtype),
            "pipeline_model_type": type(pipeline.model).__name__,
            "source_model_name": _repository(pipeline.model.name_or_path),
            "model_binary": MODEL,
            **{f"{name}_type": type(part).__name__ for name, part in written.items()},
            COMPONENTS: list(parts),
        },
        pyfunc_conf=None if processor is not None else _pyfunc_conf(pipeline, options),
        formats=[form],
        requirements=_requirements(written),
        signature=_signature(type(pipeline).__name__),
    )


def _pyfunc_conf(pipeline: Any, options: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = type(pipeline).__name__
    config = dict(options.get("model_config") or {})
    check_options(config)
    if options.get("prompt_template") is not None:
        check_template(options["prompt_template"], kind)
        if kind == "TextGenerationPipeline":
            config.setdefault("return_full_text", False)  # the template is none of the user's words
    if kind not in TASKS:
        return None
    return {"config": config} if config else {}


def _repository(name: Any) -> str:
    """The name of a repository; none of a folder here, which is nobody's business."""
    return name if isinstance(name, str) and re.fullmatch(r"[\w.\-]+(?:/[\w.\-]+)?", name) else ""


def _write_card(card: Any, folder: Path) -> None:
    import yaml

    if card is not None:
        (folder / "model_card.md").write_text(card.text, encoding="utf-8")
        text = yaml.safe_dump(card.data.to_dict(), default_flow_style=False)
        (folder / "model_card_data.yaml").write_text(text, encoding="utf-8")


def _requirements(parts: Mapping[str, Any]) -> list[str]:
    found = ["transformers", "torch", "pandas"]
    if "image_processor" in parts or PROCESSOR in parts:
        found += ["pillow", "torchvision"]  # those of them that are installed
    if hasattr(parts.get("tokenizer"), "sp_model"):
        found += ["sentencepiece", "protobuf"]
    return found


def _signature(kind: str) -> ModelSignature | None:
    """What MLflow says that a pipeline of this kind takes and gives."""
    text = Schema([ColSpec("string")])
    labels = Schema([ColSpec("string", "label"), ColSpec("double", "score")])
    if kind == "FeatureExtractionPipeline":
        return ModelSignature(text, Schema([TensorSpec("float64", (-1,), "double")]))
    if kind == "ZeroShotClassificationPipeline":
        names = ("sequences", "candidate_labels", "hypothesis_template")
        found = [ColSpec("string", "sequence"), ColSpec("string", "labels"), ColSpec("double", "scores")]
        return ModelSignature(Schema([ColSpec("string", name) for name in names]), Schema(found))
    if kind in ("TextClassificationPipeline", "ImageClassificationPipeline"):
        return ModelSignature(text, labels)
    return ModelSignature(text, text) if kind in TASKS else None


# --- loading


def load(folder: Path, conf: Mapping[str, Any], *, trust: Trust, **options: Any) -> Any:
    """The pipeline; see ``models.flavours.Flavour``.  ``options`` are those of ``transformers.pipeline``."""
    transformers = native.library("transformers", "transformers")
    if f"{PROCESSOR}_type" in conf:
        raise UnsupportedError(
            "the model was saved with a processor, which pipelines do not take",
            hint='gittrack.transformers.load_model(…, return_type="components")',
        )
    parts = load_components(folder, conf, trust=trust, dtype=options.pop("dtype", options.pop("torch_dtype", None)))
    with _offline(), _reading("the pipeline"):
        return transformers.pipeline(**parts, **options)


def load_components(folder: Path, conf: Mapping[str, Any], *, trust: Trust, dtype: Any = None) -> dict[str, Any]:
    """The task, the model and the other parts, by their names.

    Args:
        folder: As for ``load``.
        conf: As for ``load``.
        trust: As for ``load``.
        dtype: Type of the weights in memory; what MLmodel says if not given.

    Raises:
        UnsupportedError: The weights are somewhere else: nothing is fetched.
        UntrustedModelError, FormatError, MissingDependencyError: As ``load``.
    """
    native.library("transformers", "transformers")
    for key in _ELSEWHERE:
        if conf.get(key):
            raise UnsupportedError(
                "the weights are not in the model, and are not fetched from elsewhere",
                hint="log it with its weights: save_pretrained=True, adapters merged",
            )
    task = conf.get("task")
    if not isinstance(task, str):
        raise FormatError("MLmodel does not say what the pipeline is for")
    # Models of before MLflow 2.4.1 have `pipeline/`.
    places = {MODEL: inside(folder, conf.get("model_binary", "pipeline"))}
    bases = {MODEL: "PreTrainedModel"}
    for name in _names(conf):
        places[name] = inside(folder, f"{COMPONENTS}/{name}")
        bases[name] = _PARTS.get(name, "ProcessorMixin")
    try:
        folders.check(*places.values())
        safe = True
    except FormatError as error:
        trust.require(f"parts that could run code ({error.message})")
        safe = False
    found: dict[str, Any] = {"task": task}
    for name, place in places.items():
        kind = _class(conf.get("pipeline_model_type" if name == MODEL else f"{name}_type"), bases[name], conf)
        arguments: dict[str, Any] = {"local_files_only": True}
        if name == MODEL:
            arguments |= {"dtype": dtype or _dtype(conf.get("torch_dtype"))}
            arguments |= {"use_safetensors": True} if safe else {}
        with _offline(), _reading(str(place.relative_to(folder))):
            found[name] = kind.from_pretrained(str(place), **arguments)
    return found


def _names(conf: Mapping[str, Any]) -> list[str]:
    names = conf.get(COMPONENTS) or []
    if not isinstance(names, list) or not all(isinstance(one, str) and one in _PARTS for one in names):
        raise FormatError(f"the parts of a pipeline are {', '.join(_PARTS)}; MLmodel names others")
    return [*names, *([PROCESSOR] if f"{PROCESSOR}_type" in conf else [])]


def _class(name: Any, base: str, conf: Mapping[str, Any]) -> Any:
    """A class of the library's own.  Raises FormatError if there is none of that name."""
    transformers = native.library("transformers", "transformers")
    found = None
    if isinstance(name, str) and _CLASS.fullmatch(name):
        with _reading(f"the class {name}"):
            found = getattr(transformers, name, None)
    if not isinstance(found, type) or not issubclass(found, getattr(transformers, base)):
        raise FormatError(
            f"transformers {transformers.__version__} has no class `{name!s:.80}` for a part of a model",
            hint=f"the model was made with transformers {conf.get('transformers_version')!s:.20}; classes of a model's "
            "own are loaded by transformers itself only",
        )
    return found


def _dtype(name: Any) -> Any:
    if name is None:
        return "auto"
    torch = native.library("torch", "torch")
    match = _DTYPE.fullmatch(name) if isinstance(name, str) else None
    found = getattr(torch, match[1], None) if match else None
    if not isinstance(found, torch.dtype):
        raise FormatError(f"the weights are said to be of the type `{name!s:.80}`, which PyTorch does not have")
    return found


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        with native.reading(what):
            yield
    except FormatError as error:
        if isinstance(error.__cause__, ImportError):  # parts such as image processors need more than the library
            raise MissingDependencyError(
                f"`{what}` cannot be read: {error.__cause__!s:.300}", hint="install what its requirements.txt lists"
            ) from error
        raise


@contextmanager
def _offline() -> Iterator[None]:
    """Nothing is asked of the hub meanwhile, by any thread: what the library reads is one setting of the process."""
    constants = native.library("huggingface_hub.constants", "huggingface_hub")
    with _hub_lock:
        before = constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before


def predictor(model: Any, conf: Mapping[str, Any]) -> TransformersPredictor:
    """``model`` as ``python_function``; see ``models.flavours.Flavour``."""
    about = conf.get("metadata") or {}
    if str(about.get("task", "")).startswith(_PROTOCOLS):
        raise UnsupportedError(
            f"models for MLflow's task `{about['task']:.80}` are not supported as python_function",
            hint="gittrack.transformers.load_model gives the pipeline",
        )
    return TransformersPredictor(model, conf.get("config") or {}, about.get("prompt_template"))
