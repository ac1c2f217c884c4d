"""From what a user passes as ``source``, or what a run has recorded, to a source object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gittrack import types
from gittrack.data.code_dataset_source import CodeDatasetSource
from gittrack.data.dataset import Dataset
from gittrack.data.dataset_source import DatasetSource, parse
from gittrack.data.filesystem_dataset_source import LocalArtifactDatasetSource, RemoteDatasetSource
from gittrack.data.http_dataset_source import HTTPDatasetSource
from gittrack.errors import InvalidValueError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

_BUILT_IN: Final[tuple[type[DatasetSource], ...]] = (HTTPDatasetSource, LocalArtifactDatasetSource, CodeDatasetSource)
_registered: list[type[DatasetSource]] = []


def register_dataset_source(source: type[DatasetSource]) -> None:
    """Make a class of sources known; it is asked before those registered earlier and before the built-in ones."""
    _registered.insert(0, source)


def resolve_dataset_source(
    raw_source: Any, candidate_sources: Sequence[type[DatasetSource]] | None = None
) -> DatasetSource:
    """The source that ``raw_source`` names.

    Args:
        raw_source: A path, a URI, or an object that a registered class understands.
        candidate_sources: Only these classes and their subclasses are asked.

    Raises:
        NotFoundError: No class understands it.
    """
    sources: list[type[DatasetSource]] = [*_registered, *_BUILT_IN, RemoteDatasetSource]
    for source in sources:
        if (not candidate_sources or issubclass(source, tuple(candidate_sources))) and source._can_resolve(raw_source):
            return source._resolve(raw_source)
    raise NotFoundError(
        f"not a source of data: {str(raw_source)[:80]!a} ({type(raw_source).__name__})", hint="give a path or a URI"
    )


def source_or_code(source: Any) -> DatasetSource:
    """What ``from_pandas`` takes as ``source``: a source, something that names one, or None for the running code."""
    if source is None:
        return CodeDatasetSource.here()
    return source if isinstance(source, DatasetSource) else resolve_dataset_source(source)


def get_dataset_source_from_json(source_json: str, source_type: str) -> DatasetSource:
    """The source that a run has recorded.

    Raises:
        InvalidValueError: The JSON is not that of such a source.
        NotFoundError: No class has this type.
    """
    for source in (*_registered, *_BUILT_IN):
        if source._get_source_type() == source_type:
            return source.from_json(source_json)
    fields = parse(source_json)
    if str(fields.get("uri", "")).lower().startswith(source_type.lower() + "://"):
        return RemoteDatasetSource.from_dict(fields)
    raise NotFoundError(
        f"unknown type of dataset source: {source_type[:80]!a}", hint="register_dataset_source adds one"
    )


def get_source(dataset: types.Dataset | types.DatasetInput | Dataset) -> DatasetSource:
    """The source of a dataset: of one just made, or as a run has recorded it.

    Raises:
        InvalidValueError: ``dataset`` is something else, or its source is not readable.
        NotFoundError: Its source is of an unknown type.
    """
    if isinstance(dataset, Dataset):
        return dataset.source
    recorded = dataset.dataset if isinstance(dataset, types.DatasetInput) else dataset
    if not isinstance(recorded, types.Dataset):
        raise InvalidValueError(f"not a dataset: {type(dataset).__name__}", hint="`run.inputs.dataset_inputs` has them")
    return get_dataset_source_from_json(recorded.source, recorded.source_type)
