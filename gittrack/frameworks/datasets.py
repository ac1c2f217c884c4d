"""Data that a model was trained on or asked about, described for its run."""

from __future__ import annotations

import sys
from typing import Any, Final

from gittrack.types import DatasetInput, InputTag

CONTEXT_TAG: Final = "mlflow.data.context"
_MAX_DENSE_BYTES: Final = 1 << 30  #: of a sparse matrix written out in full


def describe(features: Any, targets: Any, *, context: str) -> DatasetInput | None:
    """Name, digest, schema and size of an array, a sparse matrix, a pandas or polars frame, for ``log_inputs``.

    Args:
        features: The data.  Of anything else than the above, nothing is recorded.
        targets: Labels of an array's rows, or None.
        context: What it is used for: ``train``, ``eval``.
    """
    from gittrack import data

    features, targets = _dense(features), _dense(targets)
    dataset: data.Dataset
    if _is_a("pandas", "DataFrame", features):
        dataset = data.from_pandas(features)
    elif _is_a("polars", "DataFrame", features):
        dataset = data.from_polars(features)
    elif _is_a("numpy", "ndarray", features):
        dataset = data.from_numpy(features, targets=targets)
    else:
        return None
    return DatasetInput(dataset._to_mlflow_entity(), [InputTag(CONTEXT_TAG, context)])


def _is_a(library: str, name: str, value: Any) -> bool:
    """``isinstance``, without importing the library: what nobody imported has no instances."""
    module = sys.modules.get(library)
    return module is not None and isinstance(value, getattr(module, name))


def _dense(matrix: Any) -> Any:
    """A sparse matrix as an array, if it is not too large for that; anything else as it is."""
    sparse = sys.modules.get("scipy.sparse")
    if sparse is None or not sparse.issparse(matrix):
        return matrix
    return matrix.toarray() if matrix.shape[0] * matrix.shape[1] * matrix.dtype.itemsize <= _MAX_DENSE_BYTES else None
