"""How autologging saves models: as ``log_model`` of their flavour does, with the training data's first rows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from gittrack.errors import InvalidValueError
from gittrack.frameworks import publish
from gittrack.models import flavours
from gittrack.models.signature import infer_signature

if TYPE_CHECKING:
    from gittrack.frameworks.models import FittedModel
    from gittrack.models.model import ModelInfo
    from gittrack.models.signature import ModelSignature

_log = logging.getLogger("gittrack")


def save(fitted: FittedModel) -> str | None:
    """Keep a trained model with its run; its id.

    A model that has no form that runs no code is kept as a pickle, if its flavour can do that, with a warning.
    """
    form = fitted.options.get("serialization_format")
    try:
        info = _log_model(fitted, form)
    except InvalidValueError as error:
        if form != "skops":
            raise
        _log.warning("the model is kept as a pickle, which runs code when it is loaded: %s", error.message)
        info = _log_model(fitted, "cloudpickle")
    return info.model_id


def _log_model(fitted: FittedModel, form: Any) -> ModelInfo:
    return publish.log_model(
        flavours.flavour(fitted.framework),
        fitted.model,
        artifact_path=None,
        name=fitted.name,
        run_id=fitted.run_id,
        options={"serialization_format": form},
        signature=_signature(fitted),
        input_example=fitted.sample if fitted.options.get("log_input_examples") else None,
        registered_model_name=fitted.options.get("registered_model_name"),
        params=fitted.params,
    )


def _signature(fitted: FittedModel) -> ModelSignature | bool | None:
    """The signature that the sample and the prediction for it show; False if none is wanted."""
    if not fitted.options.get("log_model_signatures"):
        return False
    if fitted.sample is None:
        return None
    return infer_signature(fitted.sample, fitted.predictions())
