"""The base of all sources."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gittrack.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self


class DatasetSource:
    """Where a dataset came from.  Stored as JSON under the name of its type; no credentials are in either."""

    @staticmethod
    def _get_source_type() -> str:
        raise NotImplementedError

    def load(self) -> Any:
        """Get the data this source refers to; for files, the path of a local copy."""
        raise NotImplementedError

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        """True if ``_resolve`` understands ``raw_source``: a path, a URI, or an object of some library."""
        raise NotImplementedError

    @classmethod
    def _resolve(cls, raw_source: Any) -> Self:
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """What is stored, as plain values."""
        raise NotImplementedError

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, source_dict: Mapping[str, Any]) -> Self:
        """The source that ``to_dict`` gave.  Raises InvalidValueError if a field is missing."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, source_json: str) -> Self:
        """The source that ``to_json`` gave.  Raises InvalidValueError for anything else."""
        return cls.from_dict(parse(source_json))


def parse(source_json: str) -> dict[str, Any]:
    """The JSON object of a source.  Raises InvalidValueError for anything else."""
    try:
        fields = json.loads(source_json)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"the source of a dataset is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidValueError("the source of a dataset is not a JSON object")
    return fields


def text_field(fields: Mapping[str, Any], key: str) -> str:
    """A field of text.  Raises InvalidValueError if it is missing or something else."""
    value = fields.get(key)
    if not isinstance(value, str):
        raise InvalidValueError(f"the source of a dataset has no text in `{key}`")
    return value
