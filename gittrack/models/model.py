"""MLmodel, the file that says what a model is: MLflow's format, read with suspicion and written.

Source: ``mlflow/models/model.py`` of MLflow 3.17.  The file is YAML.  Keys that are not known are kept.  gittrack adds
``gittrack`` with ``formats``, what the model's files are, and ``runs_code``, a mark for people: what may be loaded is
decided by the formats that the loaders find, not by this.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import FormatError, NotFoundError
from gittrack.models.signature import ModelSignature
from gittrack.store import files

if TYPE_CHECKING:
    import yaml

    from gittrack.data.schema import Schema
    from gittrack.models.signature import ParamSchema

MLMODEL: Final = "MLmodel"
MAX_BYTES: Final = 4 << 20  #: of an MLmodel file
_MAX_NODES: Final = 500_000  #: of its YAML, counting what an alias refers to as often as it is used

_TEXTS: Final = ("artifact_path", "run_id", "model_uuid", "mlflow_version", "model_id")
_DICTS: Final = ("saved_input_example_info", "metadata")


@dataclass
class Model:
    """What MLmodel says.

    Attributes:
        artifact_path: Path of the model's folder among the artifacts of its run.
        run_id: The run that made it.
        utc_time_created: When, as text, without a time zone.
        flavors: Name of a flavour -> its facts; ``python_function`` says how it predicts.
        signature: What it takes and gives.
        saved_input_example_info: Where the input example is and of which form.
        model_uuid: Unique id; the same as ``model_id`` for a logged model.
        mlflow_version: The MLflow that wrote it; None if gittrack did.
        metadata: Whatever the user adds.
        model_size_bytes: Of all files but MLmodel and the requirements.
        model_id: ``m-`` and 32 hex digits, for a logged model.
        gittrack: ``formats`` and ``runs_code``; see the module.
        more: Keys that are not known here.
    """

    artifact_path: str | None = None
    run_id: str | None = None
    utc_time_created: str = ""
    flavors: dict[str, dict[str, Any]] = field(default_factory=dict)
    signature: ModelSignature | None = None
    saved_input_example_info: dict[str, Any] | None = None
    model_uuid: str | None = None
    mlflow_version: str | None = None
    metadata: dict[str, Any] | None = None
    model_size_bytes: int | None = None
    model_id: str | None = None
    gittrack: dict[str, Any] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.utc_time_created:
            self.utc_time_created = str(dt.datetime.now(dt.timezone.utc).replace(tzinfo=None))

    @classmethod
    def new(cls, **facts: Any) -> Model:
        """A model that is being saved, with a unique id of its own."""
        return cls(**{"model_uuid": uuid.uuid4().hex, **facts})

    def add_flavor(self, name: str, **params: Any) -> Model:
        """Add a flavour's facts.  Returns the model itself."""
        self.flavors[name] = params
        return self

    def get_input_schema(self) -> Schema | None:
        """Schema of the input; None without a signature."""
        return self.signature.inputs if self.signature else None

    def get_output_schema(self) -> Schema | None:
        """Schema of the output; None without a signature."""
        return self.signature.outputs if self.signature else None

    def get_params_schema(self) -> ParamSchema | None:
        """Parameters of a prediction; None without a signature."""
        return self.signature.params if self.signature else None

    # -- writing

    def to_dict(self) -> dict[str, Any]:
        """In MLflow's form; what is not known is left out."""
        facts: dict[str, Any] = {name: getattr(self, name) for name in (*_TEXTS, *_DICTS, "model_size_bytes")}
        facts = {name: value for name, value in facts.items() if value is not None}
        facts |= {"flavors": self.flavors, "utc_time_created": self.utc_time_created}
        if self.signature is not None:
            facts["signature"] = self.signature.to_dict()
            facts["is_signature_from_type_hint"] = self.signature.from_type_hints
            facts["type_hint_from_example"] = self.signature.from_example
        if self.gittrack:
            facts["gittrack"] = self.gittrack
        return {**self.more, **facts}

    def to_yaml(self) -> str:
        """``to_dict`` as YAML."""
        import yaml

        # Through JSON, so that equal objects are written twice and not referred to.
        return yaml.safe_dump(json.loads(self.to_json()), default_flow_style=False, allow_unicode=True)

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file ``path``.  Raises StorageError."""
        files.write_atomic(Path(path), self.to_yaml().encode())

    # -- reading

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """What an MLmodel file, or the one in a folder, says.

        Raises:
            NotFoundError: There is none.
            FormatError: It is none, or breaks the limits: size, depth, keys that are there twice, YAML's tags.
        """
        file = Path(path)
        file = file / MLMODEL if file.is_dir() else file
        if not file.is_file():
            raise NotFoundError(f"`{file.parent}` has no file `{MLMODEL}`: it is not the folder of a model")
        with files.reporting(file, "read"), file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        return cls.from_bytes(data)

    @classmethod
    def from_bytes(cls, data: bytes) -> Model:
        """What the bytes of an MLmodel file say.  Raises FormatError."""
        if len(data) > MAX_BYTES:
            raise FormatError(f"`{MLMODEL}` has more than {MAX_BYTES} bytes")
        return cls.from_dict(parsed(data, MLMODEL))

    @classmethod
    def from_dict(cls, model_dict: Any) -> Model:
        """What ``to_dict`` wrote, or MLflow's.  Raises FormatError."""
        if not isinstance(model_dict, Mapping) or not all(isinstance(key, str) for key in model_dict):
            raise FormatError(f"`{MLMODEL}` is no mapping")
        facts = dict(model_dict)
        flavors = facts.pop("flavors", None)
        if not isinstance(flavors, dict) or not all(
            isinstance(name, str) and isinstance(conf, dict) for name, conf in flavors.items()
        ):
            raise FormatError(f"`flavors` of `{MLMODEL}` is no mapping of mappings")
        signature = facts.pop("signature", None)
        hints = bool(facts.pop("is_signature_from_type_hint", False))
        example = bool(facts.pop("type_hint_from_example", False))
        if signature is not None and not isinstance(signature, Mapping):
            raise FormatError(f"`signature` of `{MLMODEL}` is no mapping")
        known: dict[str, Any] = {name: _typed(facts.pop(name, None), name, str) for name in _TEXTS}
        known |= {name: _typed(facts.pop(name, None), name, dict) for name in _DICTS}
        known["model_size_bytes"] = _typed(facts.pop("model_size_bytes", None), "model_size_bytes", int)
        known["gittrack"] = _typed(facts.pop("gittrack", None), "gittrack", dict) or {}
        return cls(
            utc_time_created=str(facts.pop("utc_time_created", None) or "unknown"),
            flavors=flavors,
            signature=None
            if signature is None or not any(signature.values())
            else ModelSignature.from_dict(signature, from_type_hints=hints, from_example=example),
            more=facts,
            **known,
        )


def _typed(value: Any, name: str, kind: type) -> Any:
    if value is not None and not isinstance(value, kind):
        raise FormatError(f"`{name}` of `{MLMODEL}` is {type(value).__name__}")
    return value


def parsed(data: bytes, name: str) -> Any:
    """What the bytes of a YAML file say: plain data, of a bounded size once its aliases are resolved.

    Args:
        data: The bytes; who reads them has bounded their number.
        name: The file's, for messages.

    Raises:
        FormatError: It is no YAML, has tags or a key twice, or is too large.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(data)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _check_node(root, name)
            return loader.construct_document(root)
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError, OverflowError, TypeError) as error:
        if isinstance(error, FormatError):
            raise
        shown = " ".join(str(error).split())
        raise FormatError(f"`{name}` is no YAML that can be read: {shown:.200}") from error


def _check_node(root: yaml.Node, name: str) -> None:
    """Refuse keys that are there twice, and aliases that grow beyond what anybody writes."""
    import yaml

    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        sizes[id(node)] = _MAX_NODES  # an alias to itself is too large
        total = 1
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) != len(node.value):
                raise FormatError(f"`{name}` has a key twice, or one that is no text")
            total += sum(size(key) + size(value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(map(size, node.value))
        if total > _MAX_NODES:
            raise FormatError(f"`{name}` has too many parts")
        sizes[id(node)] = total
        return total

    size(root)


@dataclass(frozen=True)
class ModelInfo:
    """What ``log_model`` says about the model that it logged; MLflow's names.

    Attributes:
        artifact_path: Path of its folder among the artifacts of the run.
        flavors: What MLmodel has under ``flavors``.
        model_uri: Address to load it from.
        model_uuid: Its id.
        run_id: The run that made it.
        model_id: Its id, ``m-…``.
        name: Name that it was logged under.
        registered_model_version: Number of the version, if it was registered.
        step: Step of the training that it was logged at.
    """

    artifact_path: str | None
    flavors: dict[str, Any]
    model_uri: str
    model_uuid: str | None
    run_id: str | None
    saved_input_example_info: dict[str, Any] | None
    signature: ModelSignature | None
    utc_time_created: str
    mlflow_version: str | None
    metadata: dict[str, Any] | None = None
    model_id: str | None = None
    name: str | None = None
    registered_model_version: int | None = None
    model_type: str | None = None
    step: int | None = None
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def signature_dict(self) -> dict[str, Any] | None:
        """The signature in MLflow's form."""
        return None if self.signature is None else self.signature.to_dict()

    @classmethod
    def of(cls, model: Model, model_uri: str, **more: Any) -> ModelInfo:
        """The facts of ``model``, with ``more``."""
        names = {one.name for one in fields(cls)}
        facts = {one.name: getattr(model, one.name) for one in fields(model) if one.name in names}
        return cls(**{**facts, "model_uri": model_uri, **more})
