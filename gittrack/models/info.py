"""What is known of a model without loading it; its signature and requirements changed; a try of a server's request."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from gittrack import stores
from gittrack.errors import InvalidValueError, UnsupportedError
from gittrack.models import addresses, requirements
from gittrack.models.model import MLMODEL, Model, ModelInfo
from gittrack.models.signature import ModelSignature


def read_model(model_uri: str | os.PathLike[str]) -> Model:
    """What MLmodel of the model at an address says; nothing else of it is read.

    Raises:
        NotFoundError, ConflictError, InvalidValueError, CorruptError, FormatError: See ``addresses.fetch``.
    """
    source = addresses.locate(os.fspath(model_uri))
    if source.local:
        return Model.load(source.path)
    return Model.from_bytes(source.read(MLMODEL, stores.tracker()))


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
    if source.local:
        model.save(Path(source.path) / MLMODEL)
    else:
        source.write(MLMODEL, model.to_yaml().encode(), stores.tracker())


def get_model_requirements(model_uri: str | os.PathLike[str]) -> list[str]:
    """The requirement lines of a model, as every copy of it asks for them.

    Of a registered version they are those that were set since, or else those that it was registered with.

    Raises:
        NotFoundError, ConflictError, InvalidValueError, CorruptError, PolicyError: See ``addresses.fetch``.
    """
    return _requirements(addresses.locate(os.fspath(model_uri)))


def _requirements(source: addresses.Source) -> list[str]:
    if source.version is not None:
        registry = stores.registry(stores.tracker())
        if source.folder is None:
            return requirements.in_force(registry, source.version)
        text = registry.requirements(source.version.name, source.version.version)
        if text is not None:
            return requirements.check(text.splitlines())
    if source.local:
        return requirements.read(Path(source.path))
    if requirements.REQUIREMENTS not in source.files:
        return []
    return requirements.parse(source.read(requirements.REQUIREMENTS, stores.tracker()))


def update_model_requirements(
    model_uri: str | os.PathLike[str],
    operation: Literal["add", "remove"],
    requirement_list: Sequence[str],
    *,
    reason: str = "",
) -> None:
    """Change what a model needs to be installed.

    A registered version never changes: the new requirements are kept beside it, with their history, and every copy of
    it asks for them.  The files of a model in a folder or of a run are written anew; of a run, the old ones stay in
    its history.

    Args:
        model_uri: As for ``gittrack.pyfunc.load_model``.
        operation: ``add`` puts a requirement in the place of one for the same distribution; ``remove`` looks at the
            names only, and those that are not there do not matter.
        requirement_list: Requirement lines.
        reason: For people; kept for a registered version.

    Raises:
        InvalidValueError: Another operation, or a line that is no requirement.
        NotFoundError, ConflictError, CorruptError, PolicyError: See ``addresses.fetch``.
    """
    if operation not in ("add", "remove"):
        raise InvalidValueError(f"unknown operation `{operation!s:.40}`", hint="`add` or `remove`")
    source = addresses.locate(os.fspath(model_uri))
    before = _requirements(source)
    if operation == "add":
        after = requirements.edited(before, add=requirement_list)
    else:
        unwanted = {requirements.name_of(line) for line in requirement_list}
        after = [line for line in before if requirements.name_of(line) not in unwanted]
    if after != before:
        _set_requirements(source, after, reason)


def _set_requirements(source: addresses.Source, lines: list[str], reason: str) -> None:
    version = source.version
    if version is not None:
        text = requirements.text_of(lines).decode()
        stores.registry(stores.tracker()).set_requirements(version.name, version.version, text, reason)
    elif source.local:
        requirements.replace(Path(source.path), lines)
    else:
        tracker = stores.tracker()
        if requirements.CONDA_ENV in source.files:
            document = requirements.conda_with(source.read(requirements.CONDA_ENV, tracker), lines)
            source.write(requirements.CONDA_ENV, document, tracker)
        content = requirements.text_of(lines, constrained=requirements.CONSTRAINTS in source.files)
        source.write(requirements.REQUIREMENTS, content, tracker)
        if requirements.LOCK in source.files:
            source.remove(requirements.LOCK, tracker)


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
