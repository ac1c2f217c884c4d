"""Models of LightGBM: a booster in its own text format, an estimator as skops; neither runs code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.frameworks import estimators, native, skops
from gittrack.models.flavours import Saved
from gittrack.models.trust import inside, refuse_pickle

if TYPE_CHECKING:
    from gittrack.models.trust import Trust

NAME: Final = "lightgbm"
BOOSTER: Final = "lightgbm.basic.Booster"
CLASSES: Final = frozenset(
    {BOOSTER, *(f"lightgbm.sklearn.{name}" for name in "LGBMClassifier LGBMModel LGBMRanker LGBMRegressor".split())}
)
#: What an estimator is made of.  A booster restores itself from its text, through LightGBM's own reader.
ALLOWED: Final = skops.ALLOWED | CLASSES


def save(model: Any, folder: Path, options: Mapping[str, Any]) -> Saved:
    """Write ``model.lgb`` or ``model.skops``; see ``models.flavours.Flavour``.

    Options: ``serialization_format`` of an estimator, ``skops_trusted_types``.
    """
    lightgbm = native.library("lightgbm", "lightgbm")
    kind = native.class_of(model, CLASSES, "LightGBM")
    form = options.get("serialization_format") or "skops"
    types: list[str] | None = None
    formats, needed = ["lightgbm"], ["lightgbm"]
    if kind == BOOSTER:
        name = "model.lgb"
        model.save_model(str(folder / name))
    else:
        name = estimators.file_name(form)
        types, formats = estimators.save(
            model, folder / name, form, trusted=options.get("skops_trusted_types"), allowed=ALLOWED
        )
        needed += ["scikit-learn", *([] if form == "pickle" else [form])]
    return Saved(
        native_conf={
            "data": name,
            "lgb_version": lightgbm.__version__,
            "model_class": kind,
            "serialization_format": form,
            "skops_trusted_types": types,
        },
        pyfunc_conf={"data": name},
        formats=formats,
        requirements=needed,
    )


def load(folder: Path, conf: Mapping[str, Any], *, trust: Trust) -> Any:
    """The booster, or the estimator around it; see ``models.flavours.Flavour``."""
    lightgbm = native.library("lightgbm", "lightgbm")
    path = inside(folder, conf.get("data"))
    kind = conf.get("model_class", BOOSTER)
    if kind == BOOSTER:
        refuse_pickle(path, trust)
        with native.reading(path.name):
            return lightgbm.Booster(model_file=str(path))
    return estimators.load(path, conf.get("serialization_format", "cloudpickle"), trust=trust, allowed=ALLOWED)


def predictor(model: Any, conf: Mapping[str, Any]) -> native.NativePredictor:
    """``model`` as ``python_function``; see ``models.flavours.Flavour``."""
    booster = model if hasattr(model, "feature_name") else getattr(model, "booster_", None)
    if booster is None or booster.pandas_categorical:  # categories are told from the types of a table's columns
        return native.NativePredictor(model, model.predict)
    return native.NativePredictor(model, model.predict, booster.feature_name())
