"""Models that are Python code: classes, functions, and files of code; MLflow's ``PythonModel``.

They are the one kind that always runs code when it is loaded.  They can be kept, and are loaded for who trusts them.
"""

from __future__ import annotations

import inspect
import os
import pickle
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gittrack.errors import FormatError, InvalidValueError, MissingDependencyError, NotFoundError
from gittrack.models import hints, logging as writing
from gittrack.models.flavours import PYFUNC, Saved
from gittrack.models.signature import ModelSignature
from gittrack.models.trust import inside, unpickle
from gittrack.track import limits

if TYPE_CHECKING:
    from gittrack.models.addresses import LocalModel
    from gittrack.models.logging import SaveOptions
    from gittrack.models.model import Model

CLASS_LOADER: Final = "mlflow.pyfunc.model"
CODE_LOADER: Final = "mlflow.pyfunc.loaders.code_model"
LOADERS: Final = (CLASS_LOADER, CODE_LOADER)

_PICKLE: Final = "python_model.pkl"
_ARTIFACTS: Final = "artifacts"


class TypeHints(NamedTuple):
    """What ``predict`` says about its input and output; None for nothing."""

    input: Any = None
    output: Any = None


class PythonModelContext:
    """What a Python model is given when it is loaded and when it predicts.

    Attributes:
        artifacts: Name -> path of the file or folder that was logged with the model.
        model_config: The configuration.
    """

    def __init__(self, artifacts: Mapping[str, str], model_config: dict[str, Any] | None) -> None:
        self.artifacts = dict(artifacts)
        self.model_config = model_config


class PythonModel:
    """Base of models that are classes: override ``predict``, and ``load_context`` if there is something to load."""

    def load_context(self, context: PythonModelContext) -> None:
        """Prepare for predictions; called once when the model was loaded.

        Args:
            context: The artifacts and the configuration.
        """

    def predict(self, context: PythonModelContext, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        """The output for ``model_input``.  ``context`` and ``params`` may be left out of an override.

        Raises:
            NotImplementedError: The class has no ``predict`` of its own.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `predict`")

    @property
    def predict_type_hints(self) -> TypeHints:
        """What ``predict`` says about its input and output."""
        return type_hints(self.predict)


def type_hints(function: Callable[..., Any]) -> TypeHints:
    """The type of the input, which is the first parameter but ``context``, and of the output."""
    import typing

    try:
        known = typing.get_type_hints(function)
    except (NameError, TypeError):  # names that mean nothing here
        return TypeHints()
    names = [name for name in inspect.signature(function).parameters if name not in ("self", "context")]
    return TypeHints(known.get(names[0]) if names else None, known.get("return"))


class FunctionModel(PythonModel):
    """A function as a model.

    Args:
        function: Takes the input, and ``params`` if it has such a parameter.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.func = function

    @property
    def predict_type_hints(self) -> TypeHints:
        """What the function says about its input and output."""
        return type_hints(self.func)

    def predict(  # type: ignore[override]  # without a context, which is allowed
        self, model_input: Any, params: dict[str, Any] | None = None
    ) -> Any:
        """What the function returns."""
        if "params" in inspect.signature(self.func).parameters:
            return self.func(model_input, params=params)
        return self.func(model_input)


class PythonPredictor:
    """A Python model as ``python_function``: adds what its ``predict`` asks for.

    Args:
        model: The Python model, gittrack's or MLflow's.
        context: Its context.
    """

    def __init__(self, model: Any, context: PythonModelContext) -> None:
        self.python_model = model
        self.context = context
        self.hint = type_hints_of(model).input

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """The model's output."""
        return self._call(self.python_model.predict, data, params)

    def predict_stream(self, data: Any, params: Mapping[str, Any] | None = None) -> Iterator[Any]:
        """The model's output as it comes."""
        found: Iterator[Any] = self._call(self.python_model.predict_stream, data, params)
        return found

    def _call(self, function: Callable[..., Any], data: Any, params: Mapping[str, Any] | None) -> Any:
        names = list(inspect.signature(function).parameters)
        given = {"params": params} if "params" in names else {}
        positional = [name for name in names if name != "params"]
        data = hints.convert(data, self.hint)
        if "context" in positional or len(positional) > 1:
            return function(self.context, data, **given)
        return function(data, **given)


# --- files of code


class _Chosen(threading.local):
    """What is said between a file of code and who runs it.

    Attributes:
        model: What ``set_model`` was called with.
        config: What ``ModelConfig`` is; None while no file is run for a model.
    """

    model: Any = None
    config: dict[str, Any] | None = None


_chosen = _Chosen()


def set_model(model: Any) -> None:
    """Say, in a file of code that is logged as a model, which object the model is.

    Args:
        model: A ``PythonModel``, or a function.

    Raises:
        InvalidValueError: It is neither.
    """
    if not callable(model) and not hasattr(model, "predict"):
        raise InvalidValueError(f"a model is a PythonModel or a function, got {type(model).__name__}")
    _chosen.model = model


class ModelConfig:
    """The configuration of a model that is a file of code, for use in that file.

    Args:
        development_config: A dict, or the path of a YAML file, for when the file is run by itself.

    Raises:
        InvalidValueError: It cannot be read.
        NotFoundError: There is none.
    """

    def __init__(self, *, development_config: Any = None) -> None:
        found = read_config(development_config) if _chosen.config is None else _chosen.config
        if not found:
            raise NotFoundError("there is no model configuration", hint="pass model_config to log_model")
        self._values = found

    def get(self, key: str) -> Any:
        """The value of ``key``.  Raises NotFoundError."""
        if key not in self._values:
            raise NotFoundError(f"the model configuration has no `{key}`", hint="it has " + ", ".join(self._values))
        return self._values[key]

    def to_dict(self) -> dict[str, Any]:
        """All of it."""
        return dict(self._values)


def _run_code(path: Path, config: dict[str, Any] | None) -> Any:
    """The model that a file of code chooses with ``set_model``, gittrack's or MLflow's."""
    theirs = "mlflow.models.model"
    _chosen.model, _chosen.config = None, config or {}
    if theirs in sys.modules:
        vars(sys.modules[theirs]).pop("__mlflow_model__", None)
    spec = spec_from_file_location(f"gittrack_model_code_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InvalidValueError(f"`{path.name}` is no file of Python code", hint="its name ends in .py")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # classes in it are found by their module's name
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        _chosen.config = None
        sys.path.remove(str(path.parent))
    model, _chosen.model = _chosen.model, None
    if model is None and theirs in sys.modules:
        model = vars(sys.modules[theirs]).get("__mlflow_model__")
    if model is None:
        raise InvalidValueError(
            f"`{path.name}` does not say which object is the model", hint="call gittrack.models.set_model(model) in it"
        )
    return _as_model(model)


# --- saving


@dataclass(frozen=True)
class PythonOptions:
    """What ``gittrack.pyfunc.save_model`` takes beyond ``SaveOptions``.

    Attributes:
        python_model: A ``PythonModel``, a function, or the path of a file of code that calls ``set_model``.
        artifacts: Name -> file or folder, or address of a run's artifact, that the model needs; copied.
        model_config: Configuration, as a dict or the path of a YAML file.
        streamable: The model has ``predict_stream``; found out if not given.
        loader_module: Instead of ``python_model``: a module with ``_load_pyfunc(path)``, among ``code_paths``.
        data_path: With ``loader_module``: the file or folder that it loads.
    """

    python_model: Any = None
    artifacts: Mapping[str, str | os.PathLike[str]] | None = None
    model_config: Any = None
    streamable: bool | None = None
    loader_module: str | None = None
    data_path: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.python_model is None) == (self.loader_module is None):
            raise InvalidValueError("give either `python_model` or `loader_module`")
        if self.loader_module is not None and self.artifacts:
            raise InvalidValueError("`artifacts` go with `python_model`", hint="give `loader_module` a `data_path`")
        if self.loader_module is None and self.data_path is not None:
            raise InvalidValueError("`data_path` goes with `loader_module`", hint="give `python_model` `artifacts`")


def save_model(
    path: str | os.PathLike[str], options: PythonOptions, common: SaveOptions, mlflow_model: Model | None = None
) -> Model:
    """Write the folder of a model that is Python code.

    Raises:
        AlreadyExistsError, InvalidValueError, NotFoundError, MissingDependencyError: As ``logging.save_model``.
    """
    folder = Path(path)
    about, example = writing.start(folder, common, mlflow_model)
    conf = writing.pyfunc_environment(writing.copy_code(common.code_paths, folder))
    config = read_config(options.model_config)
    if config is not None:
        conf["config"] = config
    if options.loader_module is not None:
        conf["loader_module"] = options.loader_module
        if options.data_path is not None:
            conf["data"] = f"data/{writing.copy_into(Path(options.data_path), folder / 'data')}"
        about.add_flavor(PYFUNC, **conf)
        saved = Saved({}, None, ["loader module"])
        return writing.finish(folder, about, saved, common, example=example, predictor=None)
    if options.artifacts:
        conf["artifacts"] = {
            name: {"path": _copy_artifact(name, source, folder), "uri": _shown(source)}
            for name, source in options.artifacts.items()
        }
    model, told, formats = _write(options.python_model, folder, config)
    conf |= told
    conf["streamable"] = hasattr(model, "predict_stream") if options.streamable is None else options.streamable
    about.add_flavor(PYFUNC, **conf)
    predictor = PythonPredictor(model, _context(folder, conf, config))
    if not isinstance(common.signature, ModelSignature) and common.signature is not False:
        about.signature = hints.signature(predictor.hint, type_hints_of(model).output, example)
    if example is not None:
        model.load_context(predictor.context)
    saved = Saved({}, None, formats, [] if formats == ["python code"] else ["cloudpickle"])
    return writing.finish(folder, about, saved, common, example=example, predictor=predictor)


def _write(given: Any, folder: Path, config: dict[str, Any] | None) -> tuple[Any, dict[str, Any], list[str]]:
    """Write a Python model into ``folder``: the object, its part of ``python_function``, what its file is."""
    if isinstance(given, (str, os.PathLike)):
        source = Path(given)
        if not source.is_file():
            raise NotFoundError(f"there is no file `{source}`", hint="python_model is an object or a file of code")
        name = limits.check_artifact_path(source.name)
        shutil.copyfile(source, folder / name)
        return (
            _run_code(folder / name, config),
            {"loader_module": CODE_LOADER, "model_code_path": name},
            ["python code"],
        )
    if isinstance(given, type) or not (callable(given) or hasattr(given, "predict")):
        raise InvalidValueError(
            f"python_model is a PythonModel object, a function or a file, not the {type(given).__name__} {given!r:.80}"
        )
    model = _as_model(given)
    try:
        import cloudpickle
    except ImportError as error:
        raise MissingDependencyError(
            "a Python object is kept with the package cloudpickle, which is not installed",
            hint="`pip install cloudpickle`, or log a file of code",
        ) from error
    try:
        (folder / _PICKLE).write_bytes(cloudpickle.dumps(model, protocol=pickle.DEFAULT_PROTOCOL))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InvalidValueError(
            f"the Python model cannot be pickled: {error!s:.200}", hint="put it into a file and log that"
        ) from error
    told = {"loader_module": CLASS_LOADER, "python_model": _PICKLE, "cloudpickle_version": cloudpickle.__version__}
    return model, told, ["cloudpickle"]


def _as_model(model: Any) -> Any:
    return model if hasattr(model, "predict") else FunctionModel(model)


def type_hints_of(model: Any) -> TypeHints:
    """The hints of gittrack's or MLflow's Python model."""
    found = getattr(model, "predict_type_hints", None)
    return TypeHints(getattr(found, "input", None), getattr(found, "output", None))


def _copy_artifact(name: str, source: str | os.PathLike[str], folder: Path) -> str:
    """Copy what a model needs into ``artifacts/``; its path in the model."""
    if re.match(r"(runs|models):", os.fspath(source)):
        raise InvalidValueError(
            f"artifact `{name}` is at `{source}`", hint="gittrack.artifacts.download_artifacts gives a path to pass"
        )
    path = Path(os.fspath(source).removeprefix("file://"))
    return f"{_ARTIFACTS}/{writing.copy_into(path, folder / _ARTIFACTS)}"


def _shown(source: str | os.PathLike[str]) -> str:
    """Where an artifact came from, without the folders of the person who logged it."""
    return Path(os.fspath(source)).name


def read_config(given: Any) -> dict[str, Any] | None:
    """A configuration as a dict, from a dict or the path of a YAML file.  Raises InvalidValueError."""
    import yaml

    if isinstance(given, (str, os.PathLike)):
        try:
            given = yaml.safe_load(Path(given).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise InvalidValueError(f"the model configuration cannot be read: {error}") from error
    if given is not None and not isinstance(given, dict):
        raise InvalidValueError("a model configuration is a dict, or the path of a YAML file with one")
    return given


# --- loading


def load(local: LocalModel, conf: Mapping[str, Any], config: dict[str, Any] | None) -> PythonPredictor:
    """The model of a trusted folder.

    Raises:
        UntrustedModelError: It is not trusted.
        FormatError, NotFoundError, MissingDependencyError: It cannot be loaded.
    """
    if conf.get("loader_module") == CODE_LOADER:
        path = inside(local.folder, conf.get("model_code_path"))
        local.trust.require(f"Python code, `{path.name}`")
        local.keep()
        model = _run_code(path, config)
    else:
        path = inside(local.folder, conf.get("python_model"))
        model = unpickle(path, local.trust, "a pickled Python object")
    context = _context(local.folder, conf, config)
    model.load_context(context)
    if context.artifacts:
        local.keep()  # the model may read them when it predicts
    return PythonPredictor(model, context)


def _context(folder: Path, conf: Mapping[str, Any], config: dict[str, Any] | None) -> PythonModelContext:
    artifacts = conf.get("artifacts") or {}
    if not isinstance(artifacts, Mapping) or not all(isinstance(one, Mapping) for one in artifacts.values()):
        raise FormatError("`artifacts` of the model is no mapping of mappings")
    return PythonModelContext({name: str(inside(folder, one.get("path"))) for name, one in artifacts.items()}, config)
