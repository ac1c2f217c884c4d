"""Writing a model's folder in MLflow's format, and keeping it with a run; what all flavours share.

A folder has ``MLmodel``, the flavour's own files, ``requirements.txt`` and a lock of what it leads to, ``conda.yaml``,
``python_env.yaml``, the input example in two forms, and ``code/`` if code paths were given.  The formats are those of
MLflow 3.17, and so are the names of the arguments.
"""

from __future__ import annotations

import copy
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from gittrack import session, stores
from gittrack.errors import AlreadyExistsError, GittrackError, InvalidValueError, NotFoundError, StateError
from gittrack.models import rehearsal, requirements
from gittrack.models.addresses import is_model_id
from gittrack.models.enforcement import enforce_params, enforce_schema
from gittrack.models.examples import Example
from gittrack.models.flavours import PYFUNC, Flavour, Predictor, Saved, loader_module
from gittrack.models.model import MLMODEL, Model, ModelInfo
from gittrack.models.signature import ModelSignature, infer_signature
from gittrack.models.trust import runs_code
from gittrack.store import files
from gittrack.track import limits
from gittrack.track.active import files_in
from gittrack.track.logged_models import CONTEXT_TAGS, LoggedModels, Place, new_model_id
from gittrack.types import Metric, ModelOutput

if TYPE_CHECKING:
    from gittrack.remote.tracking import RemoteTracker
    from gittrack.store.record import RunState
    from gittrack.track.runs import Tracker
    from gittrack.types import LoggedModel

_log = logging.getLogger("gittrack")

CODE: Final = "code"
PYTHON_ENV: Final = "python_env.yaml"
#: Where the files of a model go whose name is given to a newer model of the same run.
_SUPERSEDED: Final = "superseded"

#: Writes a model's folder: gets its path and what is known of the model, returns what MLmodel says.
Save = Callable[[Path, Model], Model]


@dataclass(frozen=True)
class SaveOptions:
    """What ``save_model`` and ``log_model`` of every flavour take; MLflow's names.

    Attributes:
        signature: What the model takes and gives; None: inferred if there is an example; False: none.
        input_example: Data like the model's input, or a pair of data and a dict of parameters.
        pip_requirements: Requirement lines, or the path of a file with them, instead of inferred ones.
        extra_pip_requirements: Requirement lines in addition to the inferred ones.
        conda_env: A conda environment as a dict, or the path of a YAML file, instead of inferred requirements.
        code_paths: Files and folders of code that the model needs; copied into ``code/``.
        metadata: Anything that JSON can say, kept in MLmodel.
        extra_files: Paths of files that are kept in ``extra_files/``.
    """

    signature: ModelSignature | Literal[False] | None = None
    input_example: Any = None
    pip_requirements: Sequence[str] | str | None = None
    extra_pip_requirements: Sequence[str] | str | None = None
    conda_env: Mapping[str, Any] | str | None = None
    code_paths: Sequence[str | os.PathLike[str]] | None = None
    metadata: dict[str, Any] | None = None
    extra_files: Sequence[str | os.PathLike[str]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.signature, ModelSignature) and self.signature not in (None, False):
            raise InvalidValueError(f"a signature is a ModelSignature, got {type(self.signature).__name__}")
        if self.conda_env is not None and (self.pip_requirements or self.extra_pip_requirements):
            raise InvalidValueError("`conda_env` and pip requirements exclude each other", hint="give one of them")
        if self.pip_requirements is not None and self.extra_pip_requirements is not None:
            raise InvalidValueError("`pip_requirements` and `extra_pip_requirements` exclude each other")


def save_model(
    flavour: Flavour,
    model: Any,
    path: str | os.PathLike[str],
    *,
    options: Mapping[str, Any],
    common: SaveOptions,
    mlflow_model: Model | None = None,
) -> Model:
    """Write a model's folder.

    Args:
        flavour: What knows the model's library.
        model: The model.
        path: The folder; it must be empty or not exist.
        options: The arguments that only this flavour has.
        common: Those that all have.
        mlflow_model: Facts that are known already; completed here.

    Returns:
        What MLmodel says.

    Raises:
        AlreadyExistsError: There is something at ``path``.
        InvalidValueError: The model cannot be saved like that, or an argument is wrong.
    """
    folder = Path(path)
    about, example = start(folder, common, mlflow_model)
    saved = flavour.save(model, folder, options)
    rehearsal.remember(folder, flavour.NAME, saved.native_conf)
    code = copy_code(common.code_paths, folder)
    about.add_flavor(flavour.NAME, **{**saved.native_conf, "code": code})
    predictor = None
    if saved.pyfunc_conf is None:
        _log.warning("the model cannot predict: it is kept, but not as `%s`", PYFUNC)
    else:
        conf = {"loader_module": loader_module(flavour.NAME), **pyfunc_environment(code), **saved.pyfunc_conf}
        about.add_flavor(PYFUNC, **conf)
        predictor = flavour.predictor(model, conf)
    return finish(folder, about, saved, common, example=example, predictor=predictor)


def start(folder: Path, common: SaveOptions, mlflow_model: Model | None) -> tuple[Model, Example | None]:
    """Begin a folder: what is known of the model, and its input example, which is written.

    Raises:
        AlreadyExistsError: There is something at ``folder``.
    """
    _make_empty(folder)
    about = Model.new() if mlflow_model is None else mlflow_model
    if common.metadata is not None:
        about.metadata = dict(common.metadata)
    example = None if common.input_example is None else Example.of(common.input_example)
    if example is not None:
        example.save(folder)
        about.saved_input_example_info = example.info
    return about, example


def finish(
    folder: Path,
    about: Model,
    saved: Saved,
    common: SaveOptions,
    *,
    example: Example | None,
    predictor: Predictor | None,
) -> Model:
    """Complete a folder whose native files are there: signature, MLmodel, requirements, environments."""
    modules: set[str] = set()
    if isinstance(common.signature, ModelSignature):
        about.signature = common.signature
    if example is not None and predictor is not None:
        before = set(sys.modules)
        inferred = _inferred_signature(example, predictor)
        modules = set(sys.modules) - before
        if common.signature is None and about.signature is None:
            about.signature = inferred
    if common.signature is None and about.signature is None and predictor is not None:
        about.signature = saved.signature
    about.gittrack = {**about.gittrack, "formats": list(saved.formats), "runs_code": runs_code(saved.formats)}
    _copy_extra_files(common.extra_files, folder, about)
    about.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    about.save(folder / MLMODEL)
    _write_environment(folder, about, saved, common, modules | _modules_of_data(about, example))
    return about


def pyfunc_environment(code: str | None) -> dict[str, Any]:
    """What every ``python_function`` entry says about code, environments and Python."""
    return {
        "python_version": platform.python_version(),
        "env": {"conda": requirements.CONDA_ENV, "virtualenv": PYTHON_ENV},
        "code": code,
    }


def _inferred_signature(example: Example, predictor: Predictor) -> ModelSignature | None:
    """The signature that the example and the prediction for it show; None, with a warning, if there is none."""
    try:
        signature = infer_signature(example.data, None, example.params)
        rows = copy.deepcopy(example.data)
        if signature.inputs is not None:
            rows = enforce_schema(rows, signature.inputs)
        output = predictor.predict(rows, enforce_params(example.params, signature.params))
        if signature.inputs is not None and not signature.inputs.is_tensor_spec():
            output = _as_column(output)
        inferred = infer_signature(model_output=output)
    except Exception as error:  # noqa: BLE001 - a model that cannot predict its own example is kept all the same
        _log.warning("the model has no signature: predicting the input example failed: %s", error)
        return None
    return ModelSignature(signature.inputs, inferred.outputs, signature.params)


def _modules_of_data(about: Model, example: Example | None) -> set[str]:
    """The modules that the model's input is made of.

    Who logs a model has them loaded already, so that watching a prediction does not show them.
    """
    modules = set() if example is None else {type(example.data).__module__}
    signature = about.signature
    if signature is not None and signature.inputs is not None and not signature.from_type_hints:
        modules.add("numpy" if signature.inputs.is_tensor_spec() else "pandas")  # what enforce_schema makes of it
    return modules


def _as_column(output: Any) -> Any:
    """Predictions for rows are a column, not a tensor."""
    if hasattr(output, "dtype") and getattr(output, "ndim", 0) == 1 and not hasattr(output, "iloc"):
        import pandas as pd

        return pd.Series(output)
    return output


def _make_empty(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise AlreadyExistsError(f"there is something at `{folder}` already", hint="choose another folder")
    files.make_dirs(folder, durable=False)


# --- code and extra files


def copy_code(paths: Sequence[str | os.PathLike[str]] | None, folder: Path) -> str | None:
    """Copy code into ``code/``; its name there, or None if there is none."""
    if isinstance(paths, (str, os.PathLike)):
        raise InvalidValueError("`code_paths` is a list of paths")
    for path in paths or ():
        copy_into(Path(path), folder / CODE)
    return CODE if paths else None


def _copy_extra_files(paths: Sequence[str | os.PathLike[str]] | None, folder: Path, about: Model) -> None:
    if paths:
        for path in paths:
            copy_into(Path(path), folder / "extra_files")
        listed = [{"path": f"extra_files/{Path(path).name}"} for path in paths]
        for name, conf in about.flavors.items():
            if name != PYFUNC:
                conf["extra_files"] = listed


def copy_into(source: Path, target: Path) -> str:
    """Copy a file or a folder, without caches, into the folder ``target``; its name there.

    Raises:
        NotFoundError: There is no such file or folder.
        InvalidValueError: Something of that name is there already.
    """
    source = source.absolute()
    if not source.exists():
        raise NotFoundError(f"there is no file or folder `{source}`")
    files.make_dirs(target, durable=False)
    place = target / limits.check_artifact_path(source.name)
    if place.exists():
        raise InvalidValueError(f"two paths end in `{source.name}`")
    with files.reporting(source, "read"):
        if source.is_dir():
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__", ".git", "*.pyc"))
        else:
            shutil.copyfile(source, place)
    return source.name


# --- requirements and environments


def _write_environment(folder: Path, about: Model, saved: Saved, common: SaveOptions, modules: set[str]) -> None:
    import yaml

    conda = _conda_env(common.conda_env)
    constraints: list[str] = []
    if conda is not None:
        parts = [part for part in conda.get("dependencies", ()) if isinstance(part, dict)]
        lines = requirements.check(line for part in parts for line in part.get("pip", ()))
    else:
        if common.pip_requirements is None:
            lines = requirements.infer(folder, distributions=saved.requirements, modules=modules)
            more, constraints = requirements.given(common.extra_pip_requirements)
            lines = requirements.edited(lines, add=more)
        else:
            lines, constraints = requirements.given(common.pip_requirements)
        conda = {
            "channels": ["conda-forge"],
            "dependencies": [f"python={platform.python_version()}", *_pip_for_conda(), {"pip": lines}],
            "name": "mlflow-env",
        }
    if constraints:
        (folder / requirements.CONSTRAINTS).write_text("\n".join(constraints), encoding="utf-8")
    (folder / requirements.REQUIREMENTS).write_bytes(requirements.text_of(lines, constrained=bool(constraints)))
    (folder / requirements.LOCK).write_text("\n".join(requirements.lock(lines)), encoding="utf-8")
    (folder / requirements.CONDA_ENV).write_text(yaml.safe_dump(conda, default_flow_style=False), encoding="utf-8")
    python_env = {
        "python": platform.python_version(),
        "build_dependencies": [requirements.pinned(name) or name for name in ("pip", "setuptools", "wheel")],
        "dependencies": [f"-r {requirements.REQUIREMENTS}"],
    }
    text = yaml.safe_dump(python_env, default_flow_style=False, sort_keys=False)
    (folder / PYTHON_ENV).write_text(text, encoding="utf-8")


def _pip_for_conda() -> list[str]:
    version = requirements.pinned("pip")
    return [] if version is None else [version.replace("==", "<=")]


def _conda_env(given: Mapping[str, Any] | str | None) -> dict[str, Any] | None:
    import yaml

    if isinstance(given, str):
        try:
            given = yaml.safe_load(Path(given).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise InvalidValueError(f"the conda environment `{given:.200}` cannot be read: {error}") from error
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise InvalidValueError("a conda environment is a dict, or the path of a YAML file")
    return dict(given)


# --- logging


@dataclass(frozen=True)
class LogOptions:
    """What ``log_model`` of every flavour takes beyond ``SaveOptions``.

    Attributes:
        name: The model's folder among the run's artifacts.
        registered_model_name: Register it as a version of this name.
        model_id: Its id; made up if not given.
        model_type: What kind of model it is, for people.
        params: Facts about it, for people.
        tags: Likewise.
        step: Step of the training.
    """

    name: str = "model"
    registered_model_name: str | None = None
    model_id: str | None = None
    model_type: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0

    def __post_init__(self) -> None:
        limits.check_artifact_path(self.name)
        limits.check_step(self.step)
        if self.model_id is not None and not is_model_id(self.model_id):
            raise InvalidValueError(f"invalid model id `{self.model_id!s:.80}`", hint="`m-`, then letters and digits")


def log_model(tracker: Tracker, run_id: str, about: LogOptions, save: Save) -> ModelInfo:
    """Keep a model with a run.

    A model that the run has under the same name makes room: its files get another path, and its id still finds them.

    Args:
        tracker: The store.
        run_id: The run.
        about: Name, id and the like.
        save: Writes the model's folder: gets the path and the facts that are known, returns what MLmodel says.

    Raises:
        NotFoundError, StateError: No such run, or it is deleted.
        AlreadyExistsError: The run has other artifacts under that name.
    """
    server = stores.server_of(tracker)
    if server is not None:
        here = server.keeper_of(run_id)
        if here is None or about.model_id is not None or server.was_made_there(run_id):
            server.ship()
            return _log_there(server, run_id, about, save)
        tracker = here
    writer = tracker.active_writer(run_id)
    logged = LoggedModels(tracker)
    waiting = None if about.model_id is None else _waiting(logged, about.model_id)
    model_id = about.model_id or new_model_id(run_id)
    state = tracker.repo.state(run_id)
    earlier = None if waiting is not None else _earlier(tracker, state, about.name)
    model = Model(artifact_path=about.name, run_id=run_id, model_uuid=model_id, model_id=model_id)
    told = {"model_type": about.model_type, "params": _texts(about.params), "tags": _texts(about.tags)}
    model.gittrack = {key: value for key, value in told.items() if value}
    with tempfile.TemporaryDirectory(prefix="gittrack-") as scratch:
        folder = Path(scratch, "model")
        model = save(folder, model)
        if earlier is not None:
            target = f"{_SUPERSEDED}/{earlier.model_id}"
            writer.move_artifacts(about.name, target)
            writer.log_outputs([ModelOutput(earlier.model_id, earlier.step, target)])
        if waiting is None:
            place = Place(run_id, about.name)
            writer.log_artifacts(folder, about.name)
        else:
            place = Place(waiting.run_id, waiting.path)
            tracker.writer(place.run_id).log_artifacts(folder, place.folder)
    if waiting is None:
        writer.log_outputs([ModelOutput(model_id, about.step, about.name)])
        logged.keep(
            writer, state, model_id, about.name, step=about.step, model_type=about.model_type,
            flavors=list(model.flavors), params=about.params, tags=about.tags,
        )  # fmt: skip
    else:
        writer.log_outputs([ModelOutput(model_id, about.step)])
        logged.finalize(model_id, "READY")
    session.models.last = model_id
    version = None
    if about.registered_model_name is not None and server is not None:
        from gittrack.remote.registry import RemoteRegistry

        server.ship()
        made = RemoteRegistry(server).create_version(
            about.registered_model_name, f"models:/{model_id}", run_id=run_id, model_id=model_id
        )
        version = int(made.version)
    elif about.registered_model_name is not None:
        from gittrack.registry.registry import Registry

        registered = Registry(tracker).register(about.registered_model_name, *place, model_id=model_id)
        version = int(registered.version)
    return _info(model, model_id, about, version)


def _log_there(server: RemoteTracker, run_id: str, about: LogOptions, save: Save) -> ModelInfo:
    """``log_model`` on a server, where the files belong to the logged model and not to the run, as MLflow does it."""
    from gittrack.remote.registry import RemoteRegistry

    writer = server.active_writer(run_id)
    run = server.get_run(run_id)
    told = {"model_type": about.model_type, "params": _texts(about.params), "tags": _texts(about.tags)}
    context = {key: value for key, value in run.data.tags.items() if key in CONTEXT_TAGS}
    if about.model_id is None:
        made = server.models.create(
            run.info.experiment_id,
            about.name,
            source_run_id=run_id,
            tags={**context, **(about.tags or {})},
            params={**run.data.params, **(about.params or {})},
            model_type=about.model_type,
        )
    else:
        made = server.models.get(about.model_id)
    model_id = made.model_id
    model = Model(artifact_path=about.name, run_id=run_id, model_uuid=model_id, model_id=model_id)
    model.gittrack = {key: value for key, value in told.items() if value}
    try:
        with tempfile.TemporaryDirectory(prefix="gittrack-") as scratch:
            folder = Path(scratch, "model")
            model = save(folder, model)
            server.models.folder(model_id).send_all(files_in(folder))
    except BaseException:
        with suppress(GittrackError):  # what went wrong is told, whatever becomes of this
            server.models.finalize(model_id, "FAILED")
        raise
    server.models.finalize(model_id, "READY")
    writer.log_outputs([ModelOutput(model_id, about.step)])
    writer.log_metrics(
        [
            Metric(key, last.value, last.timestamp, last.step, model_id)
            for key, last in run.data.summaries.items()
            if last.step == about.step
        ]
    )
    session.models.last = model_id
    version = None
    if about.registered_model_name is not None:
        registered = RemoteRegistry(server).create_version(
            about.registered_model_name, f"models:/{model_id}", run_id=run_id, model_id=model_id
        )
        version = int(registered.version)
    return _info(model, model_id, about, version)


def _info(model: Model, model_id: str, about: LogOptions, version: int | None) -> ModelInfo:
    return ModelInfo.of(
        model,
        f"models:/{model_id}",
        name=about.name,
        registered_model_version=version,
        model_type=about.model_type,
        step=about.step,
        params=_texts(about.params),
        tags=_texts(about.tags),
    )


def _texts(facts: Mapping[str, Any] | None) -> dict[str, str]:
    return {str(key): str(value) for key, value in (facts or {}).items()}


def _waiting(logged: LoggedModels, model_id: str) -> LoggedModel | None:
    """The logged model that was made before its files."""
    try:
        model = logged.get(model_id)
    except NotFoundError:
        return None
    if not model.path:
        raise StateError(f"logged model `{model_id}` has no folder for files", hint="log the model under another id")
    return model


def _earlier(tracker: Tracker, state: RunState, name: str) -> ModelOutput | None:
    """The model that the run has at ``name``.  Raises AlreadyExistsError if something else is there."""
    found = tracker.repo.artifacts_as(state, name)
    if not found:
        return None
    for output in reversed(state.outputs):
        if output.get("path") == name:
            return ModelOutput(output["model_id"], output.get("step", 0), name)
    raise AlreadyExistsError(
        f"run `{state.run_id}` has artifacts at `{name}` that are no model, such as `{next(iter(found))}`",
        hint="choose another name",
    )
