"""Models of XGBoost: saved in its own formats, which run no code."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import InvalidValueError
from gittrack.frameworks import native
from gittrack.models.flavours import Saved
from gittrack.models.trust import inside, refuse_pickle

if TYPE_CHECKING:
    from gittrack.models.trust import Trust

NAME: Final = "xgboost"
FORMATS: Final = ("ubj", "json", "xgb")
BOOSTER: Final = "xgboost.core.Booster"
CLASSES: Final = frozenset(
    {
        BOOSTER,
        *(
            f"xgboost.sklearn.{name}"
            for name in "XGBClassifier XGBModel XGBRanker XGBRegressor XGBRFClassifier XGBRFRegressor".split()
        ),
    }
)


def save(model: Any, folder: Path, options: Mapping[str, Any]) -> Saved:
    """Write ``model.ubj`` (or ``.json``); see ``models.flavours.Flavour``.  Option: ``model_format``."""
    xgboost = native.library("xgboost", "xgboost")
    form = options.get("model_format") or "ubj"
    if form not in FORMATS:
        raise InvalidValueError(f"unknown model_format `{form!s:.80}`", hint="one of " + ", ".join(FORMATS))
    kind, name = native.class_of(model, CLASSES, "XGBoost"), f"model.{form}"
    try:
        model.save_model(str(folder / name))
    except (xgboost.core.XGBoostError, TypeError, ValueError) as error:
        raise InvalidValueError(f"this {type(model).__name__} cannot be saved: {error!s:.300}") from error
    return Saved(
        native_conf={
            "data": name,
            "model_class": kind,
            "model_format": form,
            "xgb_version": xgboost.__version__,
        },
        pyfunc_conf={"data": name},
        formats=["xgboost"],
        requirements=["xgboost", *([] if kind == BOOSTER else ["scikit-learn"])],
    )


def load(folder: Path, conf: Mapping[str, Any], *, trust: Trust) -> Any:
    """The booster, or the estimator around it; see ``models.flavours.Flavour``."""
    native.library("xgboost", "xgboost")
    path = inside(folder, conf.get("data"))
    refuse_pickle(path, trust)
    with native.reading(path.name):
        model = native.named(conf.get("model_class", BOOSTER), CLASSES)()
        model.load_model(str(path))
        return model


def predictor(model: Any, conf: Mapping[str, Any]) -> native.NativePredictor:
    """``model`` as ``python_function``; see ``models.flavours.Flavour``."""
    xgboost = native.library("xgboost", "xgboost")
    if not isinstance(model, xgboost.Booster):
        columns = None if getattr(model, "feature_names_in_", None) is None else _columns(model.get_booster())
        return native.NativePredictor(model, partial(model.predict, validate_features=True), columns)
    columns = _columns(model)

    def predict(data: Any, **params: Any) -> Any:
        names = None if hasattr(data, "columns") or columns is None else model.feature_names
        matrix = xgboost.DMatrix(data, feature_names=names)
        return model.predict(matrix, **native.accepted(model.predict, params))

    return native.NativePredictor(model, predict, columns)


def _columns(booster: Any) -> list[str] | None:
    """Names of the columns, if they have names and all of them are numbers."""
    if booster.feature_names is None or "c" in (booster.feature_types or ()):
        return None
    return list(booster.feature_names)
