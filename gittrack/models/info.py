"""What is known of a model without loading it, its signature given afterwards, and a try of a server's request."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from gittrack import stores
from gittrack.errors import InvalidValueError, UnsupportedError
from gittrack.models import addresses
from gittrack.models.model import MLMODEL, Model, ModelInfo
from gittrack.models.signature import ModelSignature


def read_model(model_uri: str | os.PathLike[str]) -> Model:
    """What MLmodel of the model at an address says; nothing else of it is read.

    Raises:
        NotFoundError, ConflictError, InvalidValueError, CorruptError, FormatError: See ``addresses.fetch``.
    """
    source = addresses.locate(os.fspath(model_uri))
    if source.run_id is None:
        return Model.load(source.path)
    return Model.from_bytes(stores.tracker().repo.objects.read(source.files[MLMODEL].digest))


def get_model_info(model_uri: str | os.PathLike[str]) -> ModelInfo:
    """What MLmodel says, as ``log_model`` returned it.  Raises as ``read_model``."""
    model = read_model(model_uri)
    return ModelInfo.of(model, f"models:/{model.model_id}" if model.model_id else os.fspath(model_uri))


def set_signature(model_uri: str | os.PathLike[str], signature: ModelSignature) -> None:
    """Give a logged model, or one in a folder, another signature.

    Args:
        model_uri: ``runs:/RUN/PATH``, ``models:/m-ID`` or a folder.
        signature: The signature.

    Raises:
        UnsupportedError: The address of a registered version, which never changes.
        InvalidValueError: ``signature`` is none.
        NotFoundError: There is no such model.
    """
    if not isinstance(signature, ModelSignature):
        raise InvalidValueError(f"a signature is a ModelSignature, got {type(signature).__name__}")
    address = os.fspath(model_uri)
    source = addresses.locate(address)
    if source.version is not None:
        raise UnsupportedError(
            f"`{address}` is a registered version, which never changes",
            hint="set the signature of the run's model, runs:/RUN/PATH, and register that",
        )
    model = read_model(address)
    model.signature = signature
    if source.run_id is None:
        model.save(Path(source.path) / MLMODEL)
    else:
        path = f"{source.path}/{MLMODEL}" if source.path else MLMODEL
        stores.tracker().active_writer(source.run_id).log_bytes(model.to_yaml().encode(), path)


def validate_serving_input(
    model_uri: str | os.PathLike[str], serving_input: str | dict[str, Any], *, trust: bool = False
) -> Any:
    """What a server of the model would answer to a request, before it is written as JSON.

    Args:
        model_uri: As for ``gittrack.pyfunc.load_model``.
        serving_input: The JSON body of the request, as text or as a dict.
        trust: Code that came with the model may run.

    Raises:
        UsageError: The request breaks the protocol.
        SchemaError: It does not fit the model's signature.
        PredictionError: The model failed on it.
    """
    from gittrack.models.pyfunc import load_model
    from gittrack.models.scoring import Scorer

    scorer = Scorer(load_model(model_uri, trust=trust))
    body = serving_input if isinstance(serving_input, str) else json.dumps(serving_input)
    request = scorer.read(body.encode(), "application/json")
    with warnings.catch_warnings():
        # scikit-learn misses the columns' names, which were held against the signature already.
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        return scorer.predict(request)
