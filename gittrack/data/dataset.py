"""The base of all datasets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gittrack import types
from gittrack.track.limits import MAX_DATASET_PROFILE, MAX_DATASET_SCHEMA

if TYPE_CHECKING:
    from gittrack.data.dataset_source import DatasetSource


class Dataset:
    """Name, digest and source of some data; subclasses add schema and profile.

    A subclass sets what its digest needs before it calls this constructor.

    Args:
        source: Where the data came from.
        name: ``dataset`` if not given.
        digest: At most 36 characters; computed from the data if not given.
    """

    def __init__(self, source: DatasetSource, name: str | None = None, digest: str | None = None) -> None:
        self._name = name
        self._source = source
        self._digest = digest or self._compute_digest()

    def _compute_digest(self) -> str:
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return "dataset" if self._name is None else self._name

    @property
    def digest(self) -> str:
        """Fingerprint of the data: equal data have equal digests."""
        return self._digest

    @property
    def source(self) -> DatasetSource:
        """Where the data came from."""
        return self._source

    @property
    def profile(self) -> Any | None:
        """Sizes, as plain numbers; None if unknown."""
        return None

    @property
    def schema(self) -> Any | None:
        """Columns or tensors, with their types; None if unknown."""
        return None

    def to_dict(self) -> dict[str, str | None]:
        """``name``, ``digest``, ``source`` (JSON) and ``source_type``; subclasses add ``schema`` and ``profile``."""
        return {
            "name": self.name,
            "digest": self.digest,
            "source": self.source.to_json(),
            "source_type": self.source._get_source_type(),
        }

    def to_json(self) -> str:
        """``to_dict`` as JSON."""
        return json.dumps(self.to_dict())

    def _get_source_type(self) -> str:
        return self.source._get_source_type()

    def _to_mlflow_entity(self) -> types.Dataset:
        """The record of this dataset, under the name that MLflow's own code and plugins call."""
        facts = {"schema": None, "profile": None} | self.to_dict()
        return types.Dataset(
            name=facts["name"] or "",
            digest=facts["digest"] or "",
            source_type=facts["source_type"] or "",
            source=facts["source"] or "",
            schema=_within(facts["schema"], MAX_DATASET_SCHEMA),
            profile=_within(facts["profile"], MAX_DATASET_PROFILE),
        )


def _within(text: str | None, limit: int) -> str | None:
    """Half a JSON document is of no use: what is too long is left out, so that a wide table never stops a training."""
    return text if text is not None and len(text) <= limit else None
