"""The signature of a model: what goes in, what comes out, and which parameters a prediction takes.

The JSON is MLflow's.  That an input fits is checked in ``enforcement``.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gittrack.data.schema import ANY, ColSpec, Kind, Schema, checked, element_type, infer_schema, value_type
from gittrack.errors import FormatError, InvalidValueError

_log = logging.getLogger("gittrack")


@dataclass(frozen=True, slots=True, repr=False)
class ParamSpec:
    """A parameter of predictions.

    Attributes:
        name: Its name.
        dtype: Name of a type, or the dict of an object type.
        default: What it is if a caller does not say.
        shape: None for one value, ``(-1,)`` for a list.

    Raises:
        InvalidValueError: No such type, or ``default`` does not fit.
    """

    name: str
    dtype: Kind
    default: Any
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        kind = checked(self.dtype)
        if kind in ("binary", ANY) or (not isinstance(kind, str) and kind["type"] != "object"):
            raise InvalidValueError(f"parameter `{self.name}` cannot be of type {kind}")
        object.__setattr__(self, "name", str(self.name))
        object.__setattr__(self, "dtype", kind)
        if self.shape is not None and tuple(self.shape) != (-1,):
            raise InvalidValueError(
                f"parameter `{self.name}` has shape {self.shape}", hint="None for one value, (-1,) for a list"
            )
        object.__setattr__(self, "shape", None if self.shape is None else (-1,))
        object.__setattr__(self, "default", self.validate(self.default))

    def validate(self, value: Any) -> Any:
        """``value`` as a plain value of this parameter's type.

        Integers become floats where floats are due; nothing else changes its type.  None stays None.

        Raises:
            InvalidValueError: It has another type or shape.
        """
        if self.shape is None:
            return self._validate_one(value)
        if not isinstance(value, (list, tuple)) and len(getattr(value, "shape", ())) != 1:
            raise InvalidValueError(f"parameter `{self.name}` is a list, got {type(value).__name__}")
        return [self._validate_one(item) for item in value]

    def _validate_one(self, value: Any) -> Any:
        if value is None:
            return None
        plain = value.item() if hasattr(value, "dtype") and not getattr(value, "shape", None) else value
        if isinstance(self.dtype, str):
            return self._validate_scalar(plain)
        missing = [key for key, one in self.dtype["properties"].items() if one["required"]]
        if not isinstance(plain, dict) or any(key not in plain for key in missing):
            raise InvalidValueError(f"parameter `{self.name}` is a dict with the keys {', '.join(missing)}")
        unknown = [key for key in plain if key not in self.dtype["properties"]]
        if unknown:
            raise InvalidValueError(f"parameter `{self.name}` has no key `{unknown[0]}`")
        return plain

    def _validate_scalar(self, value: Any) -> Any:
        if self.dtype == "datetime":
            try:
                return value if isinstance(value, dt.date) else dt.datetime.fromisoformat(value)
            except (TypeError, ValueError) as error:
                raise self._mismatch(value) from error
        known = {"boolean": bool, "string": str, "integer": int, "long": int, "float": float, "double": float}
        wanted: Any = known[str(self.dtype)]
        if type(value) is wanted or (wanted is float and type(value) is int):
            return wanted(value)
        raise self._mismatch(value)

    def _mismatch(self, value: Any) -> InvalidValueError:
        return InvalidValueError(f"parameter `{self.name}` is of type {self.dtype}, got {type(value).__name__}")

    def to_dict(self) -> dict[str, Any]:
        """In MLflow's form."""
        kind = {"type": self.dtype} if isinstance(self.dtype, str) else dict(self.dtype)
        default = self.default
        if self.dtype == "datetime":
            default = [one.isoformat() for one in default] if self.shape else default and default.isoformat()
        return {"name": self.name, "default": default, "shape": self.shape and list(self.shape), **kind}

    def __repr__(self) -> str:
        shape = "" if self.shape is None else f" (shape: {self.shape})"
        return f"{self.name!r}: {self.dtype} (default: {self.default}){shape}"


@dataclass(frozen=True, slots=True, repr=False)
class ParamSchema:
    """The parameters of predictions.

    Raises:
        InvalidValueError: Two have the same name.
    """

    params: Sequence[ParamSpec]

    def __post_init__(self) -> None:
        if len({spec.name for spec in self.params}) != len(self.params):
            raise InvalidValueError("two parameters have the same name")

    def to_dict(self) -> list[dict[str, Any]]:
        """In MLflow's form: a list, in spite of the name."""
        return [spec.to_dict() for spec in self.params]

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, json_str: str) -> ParamSchema:
        """The parameters that ``to_json`` wrote, or MLflow's.  Raises FormatError."""
        try:
            specs, listed = [], json.loads(json_str)
            if not isinstance(listed, list):
                raise FormatError("a schema of parameters is a list")
            for raw in listed:
                kind = raw if raw.get("type") == "object" else raw.get("type") or raw.get("dtype")
                specs.append(ParamSpec(str(raw["name"]), kind, raw["default"], raw.get("shape")))
            return cls(specs)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise FormatError(f"cannot read a schema of parameters: {error}") from error

    def __len__(self) -> int:
        return len(self.params)

    def __iter__(self) -> Iterator[ParamSpec]:
        return iter(self.params)

    def __repr__(self) -> str:
        return repr(list(self.params))


@dataclass(frozen=True, repr=False)
class ModelSignature:
    """What a model takes and gives; None for what is not known.

    Attributes:
        inputs: Schema of the input.
        outputs: Schema of the output.
        params: Parameters of a prediction.
        from_type_hints: It says what the type hints of ``predict`` say, which checks its input itself.
        from_example: The type hint said only that the input is like the example.

    Raises:
        InvalidValueError: Nothing is known.
    """

    inputs: Schema | None = None
    outputs: Schema | None = None
    params: ParamSchema | None = None
    from_type_hints: bool = False
    from_example: bool = False

    def __post_init__(self) -> None:
        if self.inputs is None and self.outputs is None and self.params is None:
            raise InvalidValueError("a signature has inputs, outputs or params")
        for name, value, kind in (
            ("inputs", self.inputs, Schema),
            ("outputs", self.outputs, Schema),
            ("params", self.params, ParamSchema),
        ):
            if value is not None and not isinstance(value, kind):
                raise InvalidValueError(
                    f"`{name}` of a signature must be a {kind.__name__}, got {type(value).__name__}"
                )

    def to_dict(self) -> dict[str, str | None]:
        """In MLflow's form: JSON inside of a dict."""
        return {
            "inputs": self.inputs.to_json() if self.inputs else None,
            "outputs": self.outputs.to_json() if self.outputs else None,
            "params": self.params.to_json() if self.params else None,
        }

    @classmethod
    def from_dict(
        cls, signature_dict: Mapping[str, Any], *, from_type_hints: bool = False, from_example: bool = False
    ) -> ModelSignature:
        """The signature that ``to_dict`` wrote, or MLflow's.  Raises FormatError."""
        parts = {key: signature_dict.get(key) for key in ("inputs", "outputs", "params")}
        if not all(text is None or isinstance(text, str) for text in parts.values()):
            raise FormatError("the parts of a signature are JSON texts")
        inputs, outputs, params = parts.values()
        try:
            return cls(
                Schema.from_json(inputs) if inputs else None,
                Schema.from_json(outputs) if outputs else None,
                ParamSchema.from_json(params) if params else None,
                from_type_hints,
                from_example,
            )
        except InvalidValueError as error:
            raise FormatError(f"cannot read a signature: {error.message}") from error

    def __repr__(self) -> str:
        return f"inputs: \n  {self.inputs!r}\noutputs: \n  {self.outputs!r}\nparams: \n  {self.params!r}\n"


def infer_signature(
    model_input: Any = None, model_output: Any = None, params: dict[str, Any] | None = None
) -> ModelSignature:
    """The signature of a model that takes ``model_input`` and gives ``model_output``.

    What cannot be described is described as ``any``, with a warning.

    Args:
        model_input: Some of the training data: a DataFrame, Series, array, sparse matrix, dict, list or one value.
        model_output: What the model predicts from it, likewise.
        params: Parameters of ``predict`` and their defaults.

    Raises:
        InvalidValueError: Nothing is given, or a parameter has a type that parameters cannot have.
    """
    return ModelSignature(_inferred(model_input, "input"), _inferred(model_output, "output"), _param_schema(params))


def _inferred(data: Any, what: str) -> Schema | None:
    if data is None or isinstance(data, Schema):
        return data
    try:
        return infer_schema(data)
    except (InvalidValueError, TypeError, ValueError) as error:
        _log.warning("the schema of the model's %s is `any`: %s", what, error)
        return Schema([ColSpec(ANY)])


def _param_schema(params: dict[str, Any] | None) -> ParamSchema | None:
    if not params:
        return None
    if not isinstance(params, dict):
        raise InvalidValueError(f"parameters must be a dict, got {type(params).__name__}")
    return ParamSchema([_param_spec(str(name), value) for name, value in params.items()])


def _param_spec(name: str, value: Any) -> ParamSpec:
    if isinstance(value, (list, tuple)) or getattr(value, "shape", None):
        import numpy as np

        kinds = {value_type(item) for item in value if not isinstance(item, (dict, list))}
        kind = "datetime" if kinds == {"datetime"} else element_type(np.array(value).dtype)
        if np.ndim(value) != 1:
            raise InvalidValueError(f"parameter `{name}` has {np.ndim(value)} dimensions, it can have one")
        return ParamSpec(name, kind, value.tolist() if hasattr(value, "tolist") else list(value), (-1,))
    kind_of_value = value_type(value)
    if kind_of_value is None or kind_of_value == ANY:
        raise InvalidValueError(f"the type of parameter `{name}` cannot be told from `{value}`")
    return ParamSpec(name, kind_of_value, value)
