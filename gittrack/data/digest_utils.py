"""Fingerprints of data.

The digest is the first 16 hex digits of a SHA-256 over all of the data, so it tells apart what differs in a single
value, at any row (MLflow's looks at 10,000 rows).  What is hashed, in this order:

- for each array: a line with numpy's element type in little-endian notation and the shape, then the elements,
  little-endian, in C order;
- for text and other Python objects: a line with their number, then for each 65,536 of them one byte each (0 missing,
  1 text, 2 anything else, as ``repr``), the length of each in characters (64 bits, little-endian), and the text of all
  of them in UTF-8;
- for a table: a line with the number of rows and columns; the levels of the index, and the columns, each after a line
  with its name.

So the digest is the same on every machine, and for a table that holds the same values as pandas' own or as nullable or
as Arrow columns.  It changes with names, order and element types.  Objects whose ``repr`` is their address have no
digest that could be found again: give one of your own.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd

DIGEST_LENGTH: Final = 16
_CHUNK: Final = 65_536
_MISSING_TYPES: Final = frozenset(("NoneType", "NAType", "NaTType"))


def compute_numpy_digest(features: Any, targets: Any = None) -> str:
    """Digest of an array, or of a dict of arrays, and of the targets that belong to it."""
    hasher = hashlib.sha256()
    for part, data in (("features", features), ("targets", targets)):
        arrays = dict(sorted(data.items())) if isinstance(data, dict) else {"": data}
        for name, array in arrays.items():
            if array is not None:
                hasher.update(f"{part} {name!r}\n".encode())
                _add_array(hasher, array)
    return hasher.hexdigest()[:DIGEST_LENGTH]


def compute_pandas_digest(df: pd.DataFrame) -> str:
    """Digest of a table with its index."""
    hasher = hashlib.sha256()
    hasher.update(f"table {len(df)} {len(df.columns)}\n".encode())
    for level in range(df.index.nlevels):
        _add_column(hasher, "index", df.index.names[level], df.index.get_level_values(level).to_series())
    for position, name in enumerate(df.columns):
        _add_column(hasher, "column", name, df.iloc[:, position])
    return hasher.hexdigest()[:DIGEST_LENGTH]


def _add_column(hasher: hashlib._Hash, part: str, name: Any, column: pd.Series[Any]) -> None:
    import numpy as np

    hasher.update(f"{part} {name!r}\n".encode("utf-8", "surrogatepass"))
    dtype: Any = column.dtype
    numpy_dtype = getattr(dtype, "numpy_dtype", None)  # of nullable and of Arrow columns
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        _add_array(hasher, column.to_numpy())
    elif getattr(dtype, "tz", None) is not None:
        hasher.update(f"{dtype.tz}\n".encode())
        _add_array(hasher, column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy())
    elif numpy_dtype is not None and numpy_dtype.kind in "biuf":
        missing = column.isna().to_numpy()
        _add_array(hasher, column.to_numpy(dtype=numpy_dtype, na_value=numpy_dtype.type(0)))
        if missing.any():
            _add_array(hasher, missing)
    else:
        _add_objects(hasher, column.astype(object).tolist())


def _add_array(hasher: hashlib._Hash, data: Any) -> None:
    import numpy as np

    array: np.ndarray[Any, Any] = np.asarray(data)
    if array.dtype.hasobject:
        hasher.update(f"{array.shape}\n".encode())
        _add_objects(hasher, array.reshape(-1).tolist())
        return
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    hasher.update(f"{array.dtype.str} {np.shape(data)}\n".encode())
    hasher.update(array.reshape(-1).view(np.uint8).data)  # without Python's lock


def _add_objects(hasher: hashlib._Hash, values: Sequence[Any]) -> None:
    import numpy as np

    hasher.update(f"objects {len(values)}\n".encode())
    for start in range(0, len(values), _CHUNK):
        texts = values[start : start + _CHUNK]
        try:
            text, kinds = "".join(texts), b"\1" * len(texts)
        except TypeError:  # not all of them are text
            kinds, texts = _as_texts(texts)
            text = "".join(texts)
        hasher.update(kinds)
        hasher.update(np.fromiter(map(len, texts), "<i8", len(texts)).data)
        hasher.update(text.encode("utf-8", "surrogatepass"))


def _as_texts(values: Sequence[Any]) -> tuple[bytes, list[str]]:
    kinds, texts = bytearray(), []
    for value in values:
        if isinstance(value, str):
            kind, text = 1, value
        elif type(value).__name__ in _MISSING_TYPES or (isinstance(value, float) and value != value):
            kind, text = 0, ""
        else:
            kind, text = 2, _as_text(value)
        kinds.append(kind)
        texts.append(text)
    return bytes(kinds), texts


def _as_text(value: Any) -> str:
    if hasattr(value, "tolist"):  # numpy's own text of an array leaves out its middle, and differs between versions
        return repr((value.dtype.str, value.tolist()))
    return repr(value)
