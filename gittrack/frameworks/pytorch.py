"""Models of PyTorch: saved as ``torch.export`` archives, whose every part is looked at before PyTorch reads it.

An archive has a graph in JSON, weights as raw bytes or in PyTorch's own pickles, and may have compiled libraries.
PyTorch resolves the operators that a graph names by walking through its own module, so that a graph can name
``torch.os.system``; it evaluates the texts of symbolic sizes; and it unpickles without limits.  So only operators of
``torch.ops.aten`` and plain arithmetic, symbols and numbers, and pickles of nothing but tensors are let through.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import FormatError, InvalidValueError
from gittrack.frameworks import native
from gittrack.models.flavours import Saved
from gittrack.models.trust import check_archive, inside

if TYPE_CHECKING:
    from gittrack.models.trust import Trust

NAME: Final = "pytorch"
DATA: Final = "data"
EXPORTED: Final = "model.pt2"
PICKLED: Final = "model.pth"
FORMATS: Final = ("pt2", "pickle")
#: MLflow reads from it which module unpickles ``model.pth``.
_PICKLE_MODULE: Final = "pickle_module_info.txt"
_MAX_JSON: Final = 256 << 20

#: Operators of a graph.
_TARGET = re.compile(
    r"torch\.ops\.(?:aten|prims|prim)\.\w+(?:\.\w+)?"
    r"|torch\.sym_(?:float|int|max|min|not|sqrt|ite)"
    r"|_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|ge|le|gt|lt|eq|ne|and_|or_|pos|not_)"
    r"|math\.(?:ceil|floor|trunc|sqrt)"
)
#: A symbolic size as sympy writes it: symbols, numbers, arithmetic, and the functions that PyTorch adds.
_EXPRESSION = re.compile(
    r"(?:Symbol\('[a-z]{1,2}\d+'(?:, [a-z_]+=(?:True|False))*\)|[suz]\d+|\d+(?:\.\d+)?"
    r"|Integer|Rational|Float|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|CeilToInt|FloorToInt"
    r"|IntTrueDiv|Eq|Ne|Ge|Gt|Le|Lt|And|Or|Not|True|False|oo|int_oo|[()+\-*/,<>=&|~ ])+"
)
_OPERATORS: Final = ("target", "as_operator")
_EXPRESSIONS: Final = ("expr_str",)
_REFUSED: Final = ("as_custom_obj", "as_opaque_obj")
#: What a pickle of tensors is made of.
_TENSORS = re.compile(
    r"torch\._utils _rebuild_(?:tensor|tensor_v2|tensor_v3|parameter)"
    r"|torch (?:\w+Storage|Size|device|float\d+|bfloat16|int\d+|uint\d+|bool|complex\d+|strided)"
    r"|torch\.storage (?:Untyped|Typed)Storage"
    r"|collections OrderedDict"
)
_NOTES: Final = ("archive_format", "archive_version", "byteorder", "version", "serialization_id", ".format_version")


def save(model: Any, folder: Path, options: Mapping[str, Any]) -> Saved:
    """Write ``data/model.pt2`` or ``data/model.pth``; see ``models.flavours.Flavour``.

    Options: ``serialization_format`` (``pt2``, or ``pickle``), ``input_example``, which an export is traced with.
    """
    torch = native.library("torch", "torch")
    if not isinstance(model, torch.nn.Module):
        raise InvalidValueError(f"a {type(model).__name__} is no model of PyTorch", hint="pass a torch.nn.Module")
    form = options.get("serialization_format") or "pt2"
    if form not in FORMATS:
        raise InvalidValueError(f"unknown serialization_format `{form!s:.80}`", hint="one of " + ", ".join(FORMATS))
    (folder / DATA).mkdir()
    if form == "pt2":
        _export(torch, model, folder / DATA / EXPORTED, options.get("input_example"))
    else:
        (folder / DATA / _PICKLE_MODULE).write_text("pickle", encoding="utf-8")
        try:
            torch.save(model, str(folder / DATA / PICKLED))
        except Exception as error:  # a module can hold anything, and fail in any way
            raise InvalidValueError(f"this {type(model).__name__} cannot be pickled: {error!s:.300}") from error
    return Saved(
        native_conf={"model_data": DATA, "pytorch_version": str(torch.__version__)},
        pyfunc_conf={"data": DATA, "pickle_module_name": "pickle", "config": {"device": None}},
        formats=["torch.export" if form == "pt2" else "pickle"],
        requirements=["torch", "numpy"],
    )


def _export(torch: Any, model: Any, path: Path, example: Any) -> None:
    tensors = _tensors(torch, example)
    hint = "or pass serialization_format='pickle', which runs code when it is loaded"
    if not tensors:
        raise InvalidValueError(
            "a model of PyTorch is kept without code by tracing it, which needs an input example",
            hint=f"pass input_example, an array or a DataFrame of numbers with two rows or more, {hint}",
        )
    automatic = torch.export.Dim.AUTO
    try:
        program = torch.export.export(
            model, tensors, dynamic_shapes=[{0: automatic} if one.ndim and len(one) > 1 else None for one in tensors]
        )
        torch.export.save(program, str(path))
    except Exception as error:  # tracing fails in as many ways as there are models
        shown = " ".join(str(error).split())
        raise InvalidValueError(f"this {type(model).__name__} cannot be traced: {shown:.300}", hint=hint) from error


def _tensors(torch: Any, example: Any) -> tuple[Any, ...]:
    """The example as the model's arguments; empty if it is none of numbers."""
    if isinstance(example, tuple) and len(example) == 2 and isinstance(example[1], dict):
        example = example[0]  # the second part are parameters of a prediction
    if hasattr(example, "columns"):
        example = example.to_numpy(dtype="float32")
    if not isinstance(example, (tuple, list)):
        example = (example,)
    found = [torch.from_numpy(one) if hasattr(one, "__array_interface__") else one for one in example]
    return tuple(found) if all(isinstance(one, torch.Tensor) for one in found) else ()


def load(folder: Path, conf: Mapping[str, Any], *, trust: Trust) -> Any:
    """The module, ready to predict; see ``models.flavours.Flavour``."""
    torch = native.library("torch", "torch")
    data = inside(folder, conf.get("model_data", DATA))
    if (data / PICKLED).exists():
        path = inside(folder, f"{data.relative_to(folder)}/{PICKLED}")
        trust.require(f"a pickle of PyTorch, `{PICKLED}`")
        with native.reading(PICKLED):
            return torch.load(str(path), map_location="cpu", weights_only=False).eval()
    path = inside(folder, f"{data.relative_to(folder)}/{EXPORTED}")
    if not trust.granted:
        check(path)
    with native.reading(EXPORTED):
        return torch.export.load(str(path)).module()


# --- looking into an archive


def check(path: Path) -> None:
    """Refuse an archive that could do anything but compute.

    Raises:
        FormatError: It has something that is not known to be harmless; says what.
    """
    names = check_archive(path)
    with zipfile.ZipFile(path) as archive:
        documents = {name: _json(archive, name) for name in names if name.endswith(".json")}
        raw = set(_raw(documents))
        for name in names:
            if name.endswith("/"):
                continue
            if name in documents:
                _check_document(name, documents[name])
            elif name.rpartition("/")[2] in _NOTES:
                if archive.getinfo(name).file_size > 100:
                    raise _refused(name, "is no note")
            elif name not in raw:
                _check_tensors(name, archive.read(name))


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > _MAX_JSON:
        raise _refused(name, "is too large")
    try:
        return json.loads(archive.read(name))
    except (ValueError, RecursionError) as error:
        raise _refused(name, "is no JSON") from error


def _raw(documents: Mapping[str, Any]) -> Iterator[str]:
    """The members that are the bytes of tensors, as PyTorch will read them: never as pickles."""
    pickled: set[str] = set()
    raw: set[str] = set()
    for name, document in documents.items():
        entries = document.get("config") if isinstance(document, dict) else None
        if not name.endswith("_config.json") or not isinstance(entries, dict):
            continue
        for entry in entries.values():
            path = entry.get("path_name") if isinstance(entry, dict) else None
            if isinstance(path, str) and re.fullmatch(r"(?:weight|tensor)_\d+", path):
                member = f"{name.rpartition('/')[0]}/{path}"
                (raw if entry.get("use_pickle") is False else pickled).add(member)
    yield from raw - pickled


def _check_document(name: str, document: Any) -> None:
    todo = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo.extend(value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                if key in _REFUSED and inner is not None:
                    raise _refused(name, f"has a `{key}`")
                if key in _OPERATORS and isinstance(inner, str) and not _TARGET.fullmatch(inner):
                    raise _refused(name, f"names the operator `{inner:.80}`")
                if key in _EXPRESSIONS and isinstance(inner, str) and not _EXPRESSION.fullmatch(inner):
                    raise _refused(name, f"has the expression `{inner:.80}`")
                todo.append(inner)


def _check_tensors(name: str, data: bytes) -> None:
    """Only what ``torch.save`` writes of tensors, tuples, lists and dicts of them."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            pickles = [one for one in archive.namelist() if one.endswith(".pkl")]
            if not pickles:
                raise _refused(name, "is of no known kind")
            for pickle_ in pickles:
                if archive.getinfo(pickle_).file_size > _MAX_JSON:
                    raise _refused(name, "is too large")
                _check_pickle(name, archive.read(pickle_))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        if isinstance(error, FormatError):
            raise
        raise _refused(name, "is of no known kind") from error


def _check_pickle(name: str, data: bytes) -> None:
    """Every global must be one of a tensor's; those that are put together at run time are none."""
    for operation, argument, _ in pickletools.genops(data):
        if operation.name == "GLOBAL" and not _TENSORS.fullmatch(str(argument)):
            raise _refused(name, f"unpickles `{argument!s:.80}`")
        if operation.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            raise _refused(name, f"unpickles by `{operation.name}`")


def _refused(name: str, why: str) -> FormatError:
    return FormatError(f"`{name:.80}` in `{EXPORTED}` {why}: it could run code", hint="only trust=True loads it")


class TorchPredictor:
    """A module as ``python_function``: one array or table of numbers in, one tensor out."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """The output as an array; as a table for a table."""
        torch = native.library("torch", "torch")
        table = hasattr(data, "columns")
        if not table and not hasattr(data, "__array_interface__"):
            raise InvalidValueError(
                f"a model of PyTorch predicts from a DataFrame or an array, not a {type(data).__name__}"
            )
        rows = torch.from_numpy(data.to_numpy(dtype="float32") if table else data)
        with torch.no_grad():
            found = self._model(rows, **(params or {}))
        if not isinstance(found, torch.Tensor):
            raise InvalidValueError(f"the model gives a {type(found).__name__}, not one tensor")
        if not table:
            return found.cpu().numpy()
        import pandas as pd

        return pd.DataFrame(found.cpu().numpy(), index=data.index)

    def get_raw_model(self) -> Any:
        """The module itself."""
        return self._model


def predictor(model: Any, conf: Mapping[str, Any]) -> TorchPredictor:
    """``model`` as ``python_function``; see ``models.flavours.Flavour``."""
    return TorchPredictor(model)
