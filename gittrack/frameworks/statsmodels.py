"""Results of statsmodels: a pickle, which is all that it has; loaded only by who trusts the model."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import InvalidValueError
from gittrack.frameworks import native
from gittrack.models.flavours import Saved
from gittrack.models.trust import inside, unpickle

if TYPE_CHECKING:
    from gittrack.models.trust import Trust

NAME: Final = "statsmodels"
FILE: Final = "model.statsmodels"


def save(model: Any, folder: Path, options: Mapping[str, Any]) -> Saved:
    """Write ``model.statsmodels``; see ``models.flavours.Flavour``.

    Option: ``remove_data``, leave out what is as long as the training data.
    """
    statsmodels = native.library("statsmodels", "statsmodels")
    if not hasattr(model, "save") or not hasattr(model, "model"):
        raise InvalidValueError(
            f"a {type(model).__name__} is no result of statsmodels", hint="pass what fit() returned"
        )
    try:
        model.save(str(folder / FILE), bool(options.get("remove_data", False)))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InvalidValueError(f"this {type(model).__name__} cannot be pickled: {error!s:.300}") from error
    return Saved(
        native_conf={"data": FILE, "statsmodels_version": statsmodels.__version__},
        pyfunc_conf={"data": FILE},
        formats=["pickle"],
        requirements=["statsmodels"],
    )


def load(folder: Path, conf: Mapping[str, Any], *, trust: Trust) -> Any:
    """The results; see ``models.flavours.Flavour``."""
    trust.require("a pickle of statsmodels")
    native.library("statsmodels", "statsmodels")
    return unpickle(inside(folder, conf.get("data", FILE)), trust)


def predictor(model: Any, conf: Mapping[str, Any]) -> native.NativePredictor:
    """``model`` as ``python_function``: of a time series, the rows from ``start`` to ``end``."""
    tsa = native.library("statsmodels.tsa.base.tsa_model", "statsmodels")
    if not isinstance(model.model, tsa.TimeSeriesModel):
        return native.NativePredictor(model, model.predict)

    def predict(data: Any) -> Any:
        if data.shape[0] != 1 or not {"start", "end"} <= set(data.columns):
            raise InvalidValueError(
                "a time series is predicted from one row with the columns `start` and `end`",
                hint="DataFrame({'start': [0], 'end': [9]})",
            )
        return model.predict(data["start"][0], data["end"][0])

    return native.NativePredictor(model, predict)
