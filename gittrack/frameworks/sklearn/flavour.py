"""Models of scikit-learn: saved as skops, which runs no code, or as a pickle if asked for."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import FormatError, InvalidValueError, MissingDependencyError
from gittrack.frameworks import skops
from gittrack.models.flavours import Saved
from gittrack.models.trust import inside, unpickle

if TYPE_CHECKING:
    from types import ModuleType

    from gittrack.models.trust import Trust

NAME: Final = "sklearn"
FORMATS: Final = ("skops", "cloudpickle", "pickle")
#: What ``python_function`` may call; the first is the default.
PREDICT_FUNCTIONS: Final = ("predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba", "score")


def save(model: Any, folder: Path, options: Mapping[str, Any]) -> Saved:
    """Write ``model.skops`` or ``model.pkl``; see ``models.flavours.Flavour``.

    Options: ``serialization_format``, ``skops_trusted_types``, ``pyfunc_predict_fn``.
    """
    import sklearn

    form = options.get("serialization_format") or "skops"
    if form not in FORMATS:
        raise InvalidValueError(f"unknown serialization_format `{form!s:.80}`", hint="one of " + ", ".join(FORMATS))
    function = options.get("pyfunc_predict_fn") or "predict"
    if function not in PREDICT_FUNCTIONS:
        raise InvalidValueError(
            f"unknown pyfunc_predict_fn `{function!s:.80}`", hint="one of " + ", ".join(PREDICT_FUNCTIONS)
        )
    name = "model.skops" if form == "skops" else "model.pkl"
    formats, types = [form], None
    if form == "skops":
        found, unknown = skops.dump(model, folder / name)
        types = found or None
        if unknown:
            formats = ["skops with other types"]
            _require_trusted(folder / name, unknown, options.get("skops_trusted_types"))
    else:
        _pickle(model, folder / name, form)
    return Saved(
        native_conf={
            "pickled_model": name,
            "serialization_format": form,
            "skops_trusted_types": types,
            "sklearn_version": sklearn.__version__,
        },
        pyfunc_conf={"model_path": name, "predict_fn": function} if hasattr(model, function) else None,
        formats=formats,
        requirements=["scikit-learn", *([] if form == "pickle" else [form])],
    )


def _require_trusted(path: Path, unknown: list[str], trusted: Any) -> None:
    if set(unknown) <= set(trusted or ()):
        return
    path.unlink()
    shown = ", ".join(f"`{name}`" for name in unknown[:5]) + (" …" if len(unknown) > 5 else "")
    raise InvalidValueError(
        f"the model has types that gittrack does not know to be harmless: {shown}",
        hint="pass skops_trusted_types with their names, or serialization_format='cloudpickle' if they are your own "
        "code; loading it then needs trust=True, or a version signed by someone who may",
    )


def _pickle(model: Any, path: Path, form: str) -> None:
    # Python's default protocol, so that the oldest supported Python reads it.
    module = _cloudpickle() if form == "cloudpickle" else pickle
    try:
        path.write_bytes(module.dumps(model, protocol=pickle.DEFAULT_PROTOCOL))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InvalidValueError(f"this {type(model).__name__} cannot be pickled: {error!s:.300}") from error


def _cloudpickle() -> ModuleType:
    try:
        import cloudpickle
    except ImportError as error:
        raise MissingDependencyError(
            "the format `cloudpickle` needs the package of that name", hint="`pip install cloudpickle`"
        ) from error
    return cloudpickle  # type: ignore[no-any-return]  # it has no types


def load(folder: Path, conf: Mapping[str, Any], *, trust: Trust) -> Any:
    """The estimator; see ``models.flavours.Flavour``."""
    _require_sklearn()
    path = inside(folder, conf.get("pickled_model"))
    form = conf.get("serialization_format", "pickle")  # as MLflow takes it: early versions did not say
    if form == "skops":
        return skops.load(path, trust=trust)
    if form not in FORMATS:
        raise FormatError(f"unknown serialization format `{form!s:.80}`")
    return unpickle(path, trust)


def _require_sklearn() -> None:
    try:
        import sklearn  # noqa: F401 - only asked for
    except ImportError as error:
        raise MissingDependencyError(
            "this is a model of scikit-learn, which is not installed", hint="`pip install scikit-learn`"
        ) from error


class SklearnPredictor:
    """An estimator as ``python_function``.

    Args:
        model: The estimator.
        function: Which of its methods predicts.
    """

    def __init__(self, model: Any, function: str) -> None:
        self.sklearn_model = model
        self._function = getattr(model, function)

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """What the estimator says."""
        return self._function(data)

    def get_raw_model(self) -> Any:
        """The estimator itself."""
        return self.sklearn_model


def predictor(model: Any, conf: Mapping[str, Any]) -> SklearnPredictor:
    """``model`` as ``python_function``; see ``models.flavours.Flavour``."""
    function = conf.get("predict_fn", "predict")
    if function not in PREDICT_FUNCTIONS or not hasattr(model, function):
        raise FormatError(f"the model does not predict with `{function!s:.80}`")
    return SklearnPredictor(model, function)
