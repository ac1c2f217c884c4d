"""Any model as one thing that predicts: loading it, and holding its input against its signature.

What reads a model is found in gittrack's own tables.  A loader that is named by the model, a pickled class or a file of
code is used only if the model is trusted; then its ``code/`` is importable, too, as in MLflow.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gittrack.errors import FormatError, MissingDependencyError, NotFoundError, UnsupportedError
from gittrack.models import addresses, examples, flavours, python_model, rehearsal
from gittrack.models.enforcement import enforce_params, enforce_schema
from gittrack.models.flavours import PYFUNC
from gittrack.models.trust import inside

if TYPE_CHECKING:
    from gittrack.models.addresses import LocalModel
    from gittrack.models.model import Model


class PyFuncModel:
    """A loaded model.

    Args:
        local: Its files.
        implementation: What predicts: ``predict(data, params)``.
        predict_fn: Name of the method that predicts.
    """

    def __init__(self, local: LocalModel, implementation: Any, predict_fn: str = "predict") -> None:
        if not hasattr(implementation, predict_fn):
            raise FormatError(f"what the model was loaded as has no method `{predict_fn:.80}`")
        self.local = local
        self._model_impl = implementation
        self._predict_fn = getattr(implementation, predict_fn)

    @property
    def metadata(self) -> Model:
        """What MLmodel says."""
        return self.local.model

    @property
    def model_id(self) -> str | None:
        """Id of the logged model."""
        return self.metadata.model_id

    @property
    def loader_module(self) -> str | None:
        """MLflow's name of what loads it."""
        return self._conf.get("loader_module")

    @property
    def model_config(self) -> dict[str, Any]:
        """The configuration that was logged with it."""
        return dict(self._conf.get("config") or {})

    @property
    def _conf(self) -> dict[str, Any]:
        return self.metadata.flavors.get(PYFUNC, {})

    @property
    def input_example(self) -> Any | None:
        """The data of the input example that was logged with it; None if there is none."""
        info = self.metadata.saved_input_example_info
        if info is None:
            return None
        return examples.read(self.local.folder, info, self.metadata.get_input_schema())[0]

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """The model's output for ``data``.

        If the model has a signature, ``data`` is brought into its form first: columns into order, numbers made wider,
        what is not known left out.

        Args:
            data: A DataFrame, Series, array, dict, list, sparse matrix or one value, as the model takes it.
            params: Parameters of the prediction.

        Raises:
            SchemaError: ``data`` or ``params`` is not what the signature says.
        """
        return self._call(self._predict_fn, data, params)

    def predict_stream(self, data: Any, params: dict[str, Any] | None = None) -> Iterator[Any]:
        """The parts of the output as they come, of a model that has ``predict_stream``.

        Raises:
            UnsupportedError: It has not.
            SchemaError: As ``predict``.
        """
        stream = getattr(self._model_impl, "predict_stream", None)
        if stream is None:
            raise UnsupportedError("this model has no `predict_stream`")
        found: Iterator[Any] = self._call(stream, data, params)
        return found

    def _call(self, function: Any, data: Any, params: dict[str, Any] | None) -> Any:
        signature = self.metadata.signature
        given = enforce_params(params, None if signature is None else signature.params)
        if signature is not None and signature.inputs is not None and not signature.from_type_hints:
            data = enforce_schema(data, signature.inputs)
        if _takes_params(function):
            return function(data, params=given)
        return function(data)

    def matrix_predictor(self) -> Any | None:
        """What predicts, if it takes a matrix with the signature's columns in place of a table and answers row by row.

        A server that has checked its input can call it without pandas, and join the rows of several requests.  None if
        only ``predict`` will do.
        """
        inputs = self.metadata.get_input_schema()
        takes = getattr(self._model_impl, "takes_matrix", None)
        if inputs is None or takes is None or inputs.is_tensor_spec():
            return None
        return self._model_impl if takes(inputs.input_names() if inputs.has_input_names() else None) else None

    def unwrap_python_model(self) -> Any:
        """The Python object that was logged.  Raises UnsupportedError if the model is of another kind."""
        model = getattr(self._model_impl, "python_model", None)
        if model is None:
            raise UnsupportedError(
                "there is no Python object in this model", hint="get_raw_model() gives the native one"
            )
        return model

    def get_raw_model(self) -> Any:
        """The model of its own library.  Raises UnsupportedError if it has none."""
        get = getattr(self._model_impl, "get_raw_model", None)
        if get is None:
            raise UnsupportedError("this model is of no library")
        return get()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PyFuncModel) and self.metadata == other.metadata

    __hash__ = None  # type: ignore[assignment]  # as MLflow's: equal by what MLmodel says, which may be edited

    def __repr__(self) -> str:
        about = self.metadata
        facts = {"run_id": about.run_id, "artifact_path": about.artifact_path, "flavor": self.loader_module}
        shown = "".join(f"  {name}: {value}\n" for name, value in facts.items() if value is not None)
        return f"mlflow.pyfunc.loaded_model:\n{shown}"


def _takes_params(function: Any) -> bool:
    try:
        parameter = inspect.signature(function).parameters.get("params")
    except ValueError:  # of compiled functions nothing is known
        return False
    return parameter is not None and parameter.kind is not inspect.Parameter.VAR_KEYWORD


def load_model(
    model_uri: str | os.PathLike[str],
    suppress_warnings: bool = False,
    dst_path: str | os.PathLike[str] | None = None,
    model_config: str | os.PathLike[str] | dict[str, Any] | None = None,
    *,
    trust: bool = False,
) -> PyFuncModel:
    """Load a model as ``python_function``.

    Args:
        model_uri: ``models:/NAME/VERSION``, ``models:/NAME/STAGE``, ``models:/NAME@ALIAS``, ``models:/m-ID``,
            ``runs:/RUN/PATH``, ``NAME@ALIAS``, or a folder.
        suppress_warnings: Taken for MLflow's sake.
        dst_path: An existing folder to put the model's files into; a private one if not given.
        model_config: Configuration of a Python model or a pipeline of transformers, as a dict or a YAML file; over what
            was logged.
        trust: Code that came with the model may run.

    Raises:
        NotFoundError: No such model, or it cannot predict.
        UntrustedModelError: Loading it runs code, and ``trust`` is not set.
        ConflictError, CorruptError, FormatError, MissingDependencyError: See `gittrack help models`.
    """
    local = addresses.fetch(model_uri, trust=trust, dst=dst_path)
    return load_local(local, model_config)


def load_local(local: LocalModel, model_config: str | os.PathLike[str] | dict[str, Any] | None = None) -> PyFuncModel:
    """``load_model`` for files that are here."""
    conf = local.model.flavors.get(PYFUNC)
    if conf is None:
        raise NotFoundError(
            f"{local.trust.model} cannot predict: it has no `{PYFUNC}`",
            hint="it has " + ", ".join(sorted(local.model.flavors)) if local.model.flavors else None,
        )
    module = conf.get("loader_module")
    name = flavours.of_loader(module)
    _add_code(local, conf)
    config = _config(model_config, conf)
    if name is not None:
        flavour, known = flavours.flavour(name), _native_conf(local, name)
        rehearsal.rehearse(local, name, known)
        native = flavour.load(local.folder, known, trust=local.trust)
        asked = {**conf, "config": config, "metadata": local.model.metadata}
        return PyFuncModel(local, flavour.predictor(native, asked))
    if module in python_model.LOADERS:
        return PyFuncModel(local, python_model.load(local, conf, config))
    return PyFuncModel(local, _load_by_name(local, conf, module, config), _text(conf.get("predict_fn", "predict")))


def load_native(
    name: str, model_uri: str | os.PathLike[str], *, trust: bool = False, dst_path: str | os.PathLike[str] | None = None
) -> Any:
    """The model of its own library, such as a scikit-learn estimator.

    Args:
        name: The flavour.
        model_uri: As for ``load_model``.
        trust: Code that came with the model may run.
        dst_path: As for ``load_model``.

    Raises:
        NotFoundError: No such model, or it is of another flavour.
        UntrustedModelError: Loading it runs code, and ``trust`` is not set.
    """
    local, conf = fetch_native(name, model_uri, trust=trust, dst_path=dst_path)
    rehearsal.rehearse(local, name, conf)
    return flavours.flavour(name).load(local.folder, conf, trust=local.trust)


def fetch_native(
    name: str, model_uri: str | os.PathLike[str], *, trust: bool = False, dst_path: str | os.PathLike[str] | None = None
) -> tuple[LocalModel, dict[str, Any]]:
    """What ``load_native`` loads: the files, and the flavour's entry under ``flavors``; raises as that."""
    local = addresses.fetch(model_uri, trust=trust, dst=dst_path)
    conf = _native_conf(local, name)
    _add_code(local, conf)
    return local, conf


def _native_conf(local: LocalModel, name: str) -> dict[str, Any]:
    conf = local.model.flavors.get(name)
    if conf is None:
        raise NotFoundError(
            f"{local.trust.model} is no model of the flavour `{name}`",
            hint="it has " + ", ".join(sorted(local.model.flavors)) if local.model.flavors else None,
        )
    return conf


def _add_code(local: LocalModel, conf: Mapping[str, Any]) -> None:
    """Make the code that came with a trusted model importable; that of another is left alone."""
    code = conf.get("code")
    if code is None or not local.trust.granted:
        return
    folder = str(inside(local.folder, code))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    local.keep()


def _load_by_name(local: LocalModel, conf: Mapping[str, Any], module: Any, config: dict[str, Any] | None) -> Any:
    """What a module that the model names makes of its files; for trusted models only."""
    name = _text(module)
    local.trust.require(f"a loader of its own, the module `{name:.80}`")
    local.keep()
    data = inside(local.folder, conf["data"]) if conf.get("data") else local.folder
    try:
        loader = import_module(name)._load_pyfunc
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(
            f"the model is loaded by the module `{name:.80}`, which cannot be used: {error}",
            hint="install what its requirements.txt lists",
        ) from error
    return loader(str(data), config) if config else loader(str(data))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise FormatError("`python_function` of the model has a name that is no text")
    return value


def _config(given: Any, conf: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration of a Python model: what was logged, and over it what the caller says."""
    given = python_model.read_config(given)
    logged = conf.get("config")
    return {**logged, **(given or {})} if isinstance(logged, dict) else given
