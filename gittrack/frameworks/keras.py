"""Models of Keras 3: its own archives, looked into before Keras reads them, and read in its safe mode.

Safe mode alone was got around more than once: an archive names modules and classes that Keras imports, some layers
unpickle or run code of their own, and the file of weights can take its numbers from other files.  So only the parts of
Keras that make models are let through, and a file of weights that has everything in itself.
"""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import FormatError, InvalidValueError
from gittrack.frameworks import native
from gittrack.models.flavours import Saved
from gittrack.models.trust import check_archive, inside

if TYPE_CHECKING:
    from gittrack.models.trust import Trust

NAME: Final = "keras"
DATA: Final = "data"
FILE: Final = "model.keras"
#: MLflow reads from it which module is Keras.
_KERAS_MODULE: Final = "keras_module.txt"
_WEIGHTS: Final = "model.weights.h5"
_MAX_JSON: Final = 64 << 20
_BACKENDS: Final = ("tensorflow", "torch", "jax")
#: Modules of Keras that are made of layers, numbers and formulas.
_MODULES = re.compile(
    r"keras(?:\.(?:activations|constraints|dtype_policies|initializers|layers|losses|metrics|models|optimizers"
    r"|optimizers\.schedules|quantizers|random|regularizers))?"
)
#: They hold code, or unpickle some, or run another library's files.
_REFUSED: Final = frozenset({"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})


def save(model: Any, folder: Path, options: Mapping[str, Any]) -> Saved:
    """Write ``data/model.keras``; see ``models.flavours.Flavour``.  Option: ``save_model_kwargs``."""
    keras = native.library("keras", "keras")
    if not isinstance(model, keras.Model):
        raise InvalidValueError(f"a {type(model).__name__} is no model of Keras", hint="pass a keras.Model")
    (folder / DATA).mkdir()
    (folder / DATA / _KERAS_MODULE).write_text("keras", encoding="utf-8")
    model.save(str(folder / DATA / FILE), **(options.get("save_model_kwargs") or {}))
    try:
        check(folder / DATA / FILE)
        form = "keras"
    except FormatError:
        form = "keras with code"  # a Lambda layer, a class of the user's
    backend = keras.backend.backend()
    return Saved(
        native_conf={
            "data": DATA,
            "keras_backend": backend,
            "keras_version": keras.__version__,
            "save_exported_model": False,
        },
        pyfunc_conf={},
        formats=[form],
        requirements=["keras", {"torch": "torch", "jax": "jax"}.get(backend, "tensorflow")],
    )


def load(folder: Path, conf: Mapping[str, Any], *, trust: Trust) -> Any:
    """The model; see ``models.flavours.Flavour``."""
    if "keras" not in sys.modules and conf.get("keras_backend") in _BACKENDS:
        # Keras chooses what it computes with when it is imported; what the model was made with is what it asks for.
        os.environ.setdefault("KERAS_BACKEND", conf["keras_backend"])
    keras = native.library("keras", "keras")
    if conf.get("save_exported_model"):
        trust.require("a model that TensorFlow exported")
    path = inside(folder, f"{conf.get('data', DATA)}/{FILE}")
    try:
        check(path)
        safe = True
    except FormatError as error:
        trust.require(f"parts that could run code ({error.message})")
        safe = False
    with native.reading(FILE):
        return keras.saving.load_model(str(path), safe_mode=safe)


def check(path: Path) -> None:
    """Refuse an archive that could do anything but compute.

    Raises:
        FormatError: It has something that is not known to be harmless; says what.
    """
    names = check_archive(path)
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in names:
            raise _refused("it has no config.json")
        for name in names:
            if name not in ("config.json", "metadata.json", _WEIGHTS) and not name.startswith("assets/"):
                raise _refused(f"it has a member `{name:.80}`")
        if archive.getinfo("config.json").file_size > _MAX_JSON:
            raise _refused("its config.json is too large")
        try:
            _check_config(json.loads(archive.read("config.json")))
        except (ValueError, RecursionError) as error:
            if isinstance(error, FormatError):
                raise
            raise _refused("its config.json is no JSON") from error
        if _WEIGHTS in names:
            with native.reading(_WEIGHTS), archive.open(_WEIGHTS) as file:
                _check_weights(file)


def _check_config(document: Any) -> None:
    todo = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, list):
            todo.extend(value)
        elif isinstance(value, dict):
            module, kind = value.get("module"), value.get("class_name")
            if isinstance(module, str) and not _MODULES.fullmatch(module):
                raise _refused(f"it names the module `{module:.80}`")
            if isinstance(kind, str) and (kind in _REFUSED or not re.fullmatch(r"\w+", kind)):
                raise _refused(f"it has a `{kind:.80}`")
            if isinstance(kind, str) and "config" in value and module is None and kind not in _PLAIN:
                raise _refused(f"it has a class of its own, `{kind:.80}`")
            todo.extend(value.values())


#: What Keras writes without a module: tensors, shapes, types, numbers.
_PLAIN: Final = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__",
                           "__complex__", "__tuple__", "TensorShape", "TypeSpec"})  # fmt: skip


def _check_weights(file: Any) -> None:
    """Everything must be in the file itself."""
    import h5py

    with h5py.File(file, "r") as weights:
        todo = [weights]
        while todo:
            group = todo.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise _refused(f"its weights `{name:.80}` are a link")
                member = group[name]
                if isinstance(member, h5py.Group):
                    todo.append(member)
                elif member.external or member.is_virtual:
                    raise _refused(f"its weights `{name:.80}` are in another file")


def _refused(why: str) -> FormatError:
    return FormatError(f"`{FILE}` could run code or read other files: {why}", hint="only trust=True loads it")


class KerasPredictor:
    """A model as ``python_function``: a table or arrays in, a table or an array out."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """What the model says."""
        if hasattr(data, "columns"):
            import pandas as pd

            return pd.DataFrame(self._model.predict(data.to_numpy(), verbose=0), index=data.index)
        return self._model.predict(data, verbose=0)

    def get_raw_model(self) -> Any:
        """The model itself."""
        return self._model


def predictor(model: Any, conf: Mapping[str, Any]) -> KerasPredictor:
    """``model`` as ``python_function``; see ``models.flavours.Flavour``."""
    return KerasPredictor(model)
