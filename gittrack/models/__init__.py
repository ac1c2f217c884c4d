"""What a model is: MLflow's format written and read, with signatures, examples, requirements and trust.

The names here are those of MLflow's ``mlflow.models`` and ``mlflow.types``; each is loaded when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it for true; see gittrack/__init__.py
if TYPE_CHECKING:
    from typing import Any

    from gittrack.data.schema import (
        AnyType as AnyType,
        Array as Array,
        ColSpec as ColSpec,
        DataType as DataType,
        Map as Map,
        Object as Object,
        Property as Property,
        Schema as Schema,
        TensorSpec as TensorSpec,
    )
    from gittrack.models.enforcement import (
        validate_schema as validate_schema,
    )
    from gittrack.models.examples import (
        convert_input_example_to_serving_input as convert_input_example_to_serving_input,
    )
    from gittrack.models.info import (
        get_model_info as get_model_info,
        get_model_requirements as get_model_requirements,
        set_signature as set_signature,
        update_model_requirements as update_model_requirements,
        validate_serving_input as validate_serving_input,
    )
    from gittrack.models.model import (
        Model as Model,
        ModelInfo as ModelInfo,
    )
    from gittrack.models.python_model import (
        ModelConfig as ModelConfig,
        set_model as set_model,
    )
    from gittrack.models.signature import (
        ModelSignature as ModelSignature,
        ParamSchema as ParamSchema,
        ParamSpec as ParamSpec,
        infer_signature as infer_signature,
    )

#: Where each name is defined; the imports above say the same to type checkers.
_HOMES = {
    "gittrack.data.schema": "AnyType Array ColSpec DataType Map Object Property Schema TensorSpec",
    "gittrack.models.enforcement": "validate_schema",
    "gittrack.models.examples": "convert_input_example_to_serving_input",
    "gittrack.models.info": (
        "get_model_info get_model_requirements set_signature update_model_requirements validate_serving_input"
    ),
    "gittrack.models.model": "Model ModelInfo",
    "gittrack.models.python_model": "ModelConfig set_model",
    "gittrack.models.signature": "ModelSignature ParamSchema ParamSpec infer_signature",
}
_MODULES = ("model", "signature")  #: MLflow's modules that are reached as attributes
_WHERE = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [*_WHERE]  # noqa: PLE0604 - these are texts


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"gittrack.models.{name}")
    if name not in _WHERE:
        raise AttributeError(f"gittrack.models has no `{name}`", name=name)
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
