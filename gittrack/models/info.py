"""What is known of a model without loading it, and its signature given afterwards."""

from __future__ import annotations

import os
from pathlib import Path

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
