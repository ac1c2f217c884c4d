"""Models of CatBoost: saved in its own formats, which run no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import FormatError, InvalidValueError
from gittrack.frameworks import native
from gittrack.models.flavours import Saved
from gittrack.models.trust import inside, refuse_pickle

if TYPE_CHECKING:
    from gittrack.models.trust import Trust

NAME: Final = "catboost"
#: Formats that CatBoost reads again.
FORMATS: Final = ("cbm", "json")
FILE: Final = "model.cb"
CLASSES: Final = frozenset(
    f"catboost.core.{name}" for name in "CatBoost CatBoostClassifier CatBoostRanker CatBoostRegressor".split()
)


def save(model: Any, folder: Path, options: Mapping[str, Any]) -> Saved:
    """Write ``model.cb``; see ``models.flavours.Flavour``.  Option: ``format``."""
    catboost = native.library("catboost", "catboost")
    form = options.get("format") or "cbm"
    if form not in FORMATS:
        raise InvalidValueError(f"unknown format `{form!s:.80}`", hint="one of " + ", ".join(FORMATS))
    kind = native.class_of(model, CLASSES, "CatBoost")
    try:
        model.save_model(str(folder / FILE), format=form)
    except catboost.CatBoostError as error:
        raise InvalidValueError(f"this {type(model).__name__} cannot be saved: {error!s:.300}") from error
    return Saved(
        native_conf={
            "catboost_version": catboost.__version__,
            "data": FILE,
            "model_type": kind.rpartition(".")[2],
            "save_format": form,
        },
        pyfunc_conf={"data": FILE},
        formats=["catboost"],
        requirements=["catboost"],
    )


def load(folder: Path, conf: Mapping[str, Any], *, trust: Trust) -> Any:
    """The model; see ``models.flavours.Flavour``."""
    native.library("catboost", "catboost")
    path = inside(folder, conf.get("data"))
    form = conf.get("save_format", "cbm")
    if form not in FORMATS:
        raise FormatError(f"unknown format `{form!s:.80}` of CatBoost")
    refuse_pickle(path, trust)
    with native.reading(path.name):
        model = native.named(f"catboost.core.{conf.get('model_type')}", CLASSES)()
        model.load_model(str(path), form)
        return model


def predictor(model: Any, conf: Mapping[str, Any]) -> native.NativePredictor:
    """``model`` as ``python_function``; see ``models.flavours.Flavour``."""
    return native.NativePredictor(model, model.predict)
