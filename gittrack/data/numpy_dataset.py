"""Arrays."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gittrack.data.dataset import Dataset
from gittrack.data.dataset_source_registry import source_or_code
from gittrack.data.digest_utils import compute_numpy_digest
from gittrack.data.schema import TensorDatasetSchema, tensor_schema

if TYPE_CHECKING:
    import os
    from typing import TypeAlias

    import numpy as np

    from gittrack.data.dataset_source import DatasetSource

    Arrays: TypeAlias = np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]


class NumpyDataset(Dataset):
    """A numpy array or a dict of arrays, and targets of the same kinds.

    Args:
        features: What a model reads.
        source: Where it came from.
        targets: What a model predicts.
        name: ``dataset`` if not given.
        digest: Computed from all of the arrays if not given.
    """

    def __init__(
        self,
        features: Arrays,
        source: DatasetSource,
        targets: Arrays | None = None,
        name: str | None = None,
        digest: str | None = None,
    ) -> None:
        self._features = features
        self._targets = targets
        super().__init__(source, name, digest)

    def _compute_digest(self) -> str:
        return compute_numpy_digest(self._features, self._targets)

    @property
    def features(self) -> Arrays:
        """What a model reads."""
        return self._features

    @property
    def targets(self) -> Arrays | None:
        """What a model predicts."""
        return self._targets

    @property
    def profile(self) -> dict[str, Any]:
        """``features_shape``, ``features_size`` (elements), ``features_nbytes``, and the same of ``targets``."""
        parts = {"features": self._features} | ({} if self._targets is None else {"targets": self._targets})
        return {
            f"{part}_{fact}": {name: getattr(array, fact) for name, array in data.items()}
            if isinstance(data, dict)
            else getattr(data, fact)
            for part, data in parts.items()
            for fact in ("shape", "size", "nbytes")
        }

    @cached_property
    def schema(self) -> TensorDatasetSchema:
        """Element types and shapes."""
        targets = None if self._targets is None else tensor_schema(self._targets)
        return TensorDatasetSchema(tensor_schema(self._features), targets)

    def to_dict(self) -> dict[str, str | None]:
        """With ``schema`` and ``profile``, both as JSON."""
        return {
            **super().to_dict(),
            "schema": json.dumps(self.schema.to_dict()),
            "profile": json.dumps(self.profile),
        }


def from_numpy(
    features: Arrays,
    source: str | os.PathLike[str] | DatasetSource | None = None,
    targets: Arrays | None = None,
    name: str | None = None,
    digest: str | None = None,
) -> NumpyDataset:
    """Describe arrays, to be passed to ``log_input``.

    Args:
        features: What a model reads: an array, or a dict of arrays.
        source: A path, a URI or a source object; the running program if not given.
        targets: What a model predicts.
        name: ``dataset`` if not given.
        digest: At most 36 characters; computed from all of the arrays if not given.

    Raises:
        NotFoundError: ``source`` names nothing that is known.
    """
    return NumpyDataset(features, source_or_code(source), targets, name, digest)
