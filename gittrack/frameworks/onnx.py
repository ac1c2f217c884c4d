"""Models in ONNX: run by onnxruntime.  A model that keeps weights in other files may only have them beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import InvalidValueError
from gittrack.frameworks import native
from gittrack.models.flavours import Saved
from gittrack.models.trust import inside, refuse_pickle

if TYPE_CHECKING:
    from gittrack.models.trust import Trust

NAME: Final = "onnx"
FILE: Final = "model.onnx"
#: Weights beyond this many bytes do not fit into one file of the format.
_ONE_FILE: Final = 2**31 - (1 << 20)
PROVIDERS: Final = ("CUDAExecutionProvider", "CPUExecutionProvider")


def save(model: Any, folder: Path, options: Mapping[str, Any]) -> Saved:
    """Write ``model.onnx``; see ``models.flavours.Flavour``.

    Options: ``onnx_execution_providers``, ``onnx_session_options``, ``save_as_external_data`` (weights in files of
    their own, which large models need).
    """
    onnx = native.library("onnx", "onnx")
    if not isinstance(model, onnx.ModelProto):
        raise InvalidValueError(f"a {type(model).__name__} is no ONNX model", hint="pass an onnx.ModelProto")
    external = options.get("save_as_external_data", True) and model.ByteSize() > _ONE_FILE
    onnx.save_model(model, str(folder / FILE), save_as_external_data=external)
    return Saved(
        native_conf={
            "data": FILE,
            "onnx_version": onnx.__version__,
            "onnx_session_options": options.get("onnx_session_options"),
            "providers": list(options.get("onnx_execution_providers") or PROVIDERS),
        },
        pyfunc_conf={"data": FILE},
        formats=["onnx"],
        requirements=["onnx", "onnxruntime"],
    )


def load(folder: Path, conf: Mapping[str, Any], *, trust: Trust) -> Any:
    """The checked ``onnx.ModelProto``; see ``models.flavours.Flavour``."""
    onnx = native.library("onnx", "onnx")
    path = inside(folder, conf.get("data", FILE))
    refuse_pickle(path, trust)
    with native.reading(path.name):
        model = onnx.load_model(str(path), load_external_data=False)
        for name in _external(model):
            inside(folder, name)
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(str(path) if model.ByteSize() > _ONE_FILE else model)
        return model


def _external(model: Any) -> Iterator[str]:
    """The files that the weights of a model are in, wherever in it the weights are."""
    todo = [model]
    while todo:
        message = todo.pop()
        if type(message).__name__ == "TensorProto":
            yield from (entry.value for entry in message.external_data if entry.key == "location")
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                repeated = isinstance(value, Sequence) or hasattr(value, "add")
                todo.extend(value if repeated else [value])


class OnnxPredictor:
    """A model as ``python_function``.

    Args:
        model: The ``onnx.ModelProto``.
        providers: Which of onnxruntime's execution providers to use, if they are there.
    """

    def __init__(self, model: Any, providers: Sequence[str]) -> None:
        runtime = native.library("onnxruntime", "onnxruntime")
        available = runtime.get_available_providers()
        usable = [name for name in providers if name in available] or ["CPUExecutionProvider"]
        with native.reading(FILE):
            self._session = runtime.InferenceSession(model.SerializeToString(), providers=usable)
        self._inputs = {one.name: one.type for one in self._session.get_inputs()}
        self._outputs = [one.name for one in self._session.get_outputs()]

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """The outputs by name: a table for a table, arrays for an array or a dict of arrays."""
        import numpy as np

        feed = self._feed(data)
        for name, kind in self._inputs.items():
            value = feed.get(name)
            if kind == "tensor(float)" and getattr(value, "dtype", None) == np.float64:
                feed[name] = np.asarray(value, dtype=np.float32)
        found = dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))
        if not hasattr(data, "columns"):
            return found
        import pandas as pd

        return pd.DataFrame({name: np.asarray(value).reshape(-1) for name, value in found.items()})

    def _feed(self, data: Any) -> dict[str, Any]:
        first = next(iter(self._inputs))
        if isinstance(data, dict):
            return dict(data)
        if hasattr(data, "columns"):
            if len(self._inputs) == 1:
                return {first: data.to_numpy()}
            return {name: data[name].to_numpy() for name in self._inputs}
        if len(self._inputs) != 1:
            raise InvalidValueError(
                f"the model has {len(self._inputs)} inputs: {', '.join(self._inputs)}",
                hint="pass a dict of arrays, or a DataFrame with these columns",
            )
        return {first: data}

    def get_raw_model(self) -> Any:
        """The session of onnxruntime."""
        return self._session


def predictor(model: Any, conf: Mapping[str, Any]) -> OnnxPredictor:
    """``model`` as ``python_function``; see ``models.flavours.Flavour``."""
    return OnnxPredictor(model, PROVIDERS)
