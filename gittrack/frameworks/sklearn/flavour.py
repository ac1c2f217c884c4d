"""Models of scikit-learn: saved as skops, which runs no code, or as a pickle if asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import FormatError, InvalidValueError
from gittrack.frameworks import estimators, native
from gittrack.models.flavours import Saved
from gittrack.models.trust import inside

if TYPE_CHECKING:
    from gittrack.models.trust import Trust

NAME: Final = "sklearn"
#: Those that answer each row by itself.
_BY_ROW: Final = frozenset(("predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba"))
#: What may pick columns by name, or calls functions that might.
_BY_NAME: Final = frozenset(("ColumnTransformer", "FunctionTransformer"))
#: What ``python_function`` may call; the first is the default.
PREDICT_FUNCTIONS: Final = ("predict", "predict_proba", "predict_log_proba", "predict_joint_log_proba", "score")


def save(model: Any, folder: Path, options: Mapping[str, Any]) -> Saved:
    """Write ``model.skops`` or ``model.pkl``; see ``models.flavours.Flavour``.

    Options: ``serialization_format``, ``skops_trusted_types``, ``pyfunc_predict_fn``.
    """
    import sklearn

    form = options.get("serialization_format") or "skops"
    name = estimators.file_name(form)
    function = options.get("pyfunc_predict_fn") or "predict"
    if function not in PREDICT_FUNCTIONS:
        raise InvalidValueError(
            f"unknown pyfunc_predict_fn `{function!s:.80}`", hint="one of " + ", ".join(PREDICT_FUNCTIONS)
        )
    types, formats = estimators.save(model, folder / name, form, trusted=options.get("skops_trusted_types"))
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


def load(folder: Path, conf: Mapping[str, Any], *, trust: Trust) -> Any:
    """The estimator; see ``models.flavours.Flavour``."""
    native.library("sklearn", "scikit-learn")
    path = inside(folder, conf.get("pickled_model"))
    # As MLflow takes it: early versions did not say.
    return estimators.load(path, conf.get("serialization_format", "pickle"), trust=trust)


class SklearnPredictor:
    """An estimator as ``python_function``.

    Args:
        model: The estimator.
        function: Which of its methods predicts.
    """

    def __init__(self, model: Any, function: str) -> None:
        self.sklearn_model = model
        self.function = function
        self._function = getattr(model, function)

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        """What the estimator says."""
        return self._function(data)

    def takes_matrix(self, names: Sequence[str | int] | None) -> bool:
        """True if it uses its columns by position only: no step of it picks them by name, or hands a table on.

        Only estimators of scikit-learn itself are known to do so, and to answer each row by itself.
        """
        known = getattr(self.sklearn_model, "feature_names_in_", None)
        if known is not None and (names is None or list(known) != list(names)):
            return False
        return self.function in _BY_ROW and all(map(_by_position, _parts(self.sklearn_model)))

    def get_raw_model(self) -> Any:
        """The estimator itself."""
        return self.sklearn_model


def _parts(model: Any) -> Iterator[Any]:
    """The estimator and those that it is made of."""
    yield model
    if hasattr(model, "get_params"):
        yield from (part for part in model.get_params(deep=True).values() if hasattr(part, "fit"))


def _by_position(part: Any) -> bool:
    kind = type(part)
    return (
        kind.__module__.startswith("sklearn.")
        and kind.__name__ not in _BY_NAME
        and "transform" not in getattr(part, "_sklearn_output_config", {})
    )


def predictor(model: Any, conf: Mapping[str, Any]) -> SklearnPredictor:
    """``model`` as ``python_function``; see ``models.flavours.Flavour``."""
    function = conf.get("predict_fn", "predict")
    if function not in PREDICT_FUNCTIONS or not hasattr(model, function):
        raise FormatError(f"the model does not predict with `{function!s:.80}`")
    return SklearnPredictor(model, function)
