"""Tables: pandas, and what turns into it."""

from __future__ import annotations

import json
import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gittrack.data.dataset import Dataset
from gittrack.data.dataset_source_registry import source_or_code
from gittrack.data.digest_utils import compute_pandas_digest
from gittrack.data.schema import Schema, column_schema
from gittrack.errors import InvalidValueError, MissingDependencyError

if TYPE_CHECKING:
    import os

    import pandas as pd

    from gittrack.data.dataset_source import DatasetSource

_logger = logging.getLogger("gittrack")


class PandasDataset(Dataset):
    """A pandas DataFrame.

    Args:
        df: The table.
        source: Where it came from.
        targets: Column to be predicted.
        name: ``dataset`` if not given.
        digest: Computed from all of the table if not given.
        predictions: Column of a model's predictions.

    Raises:
        InvalidValueError: There is no such column.
    """

    def __init__(
        self,
        df: pd.DataFrame,
        source: DatasetSource,
        targets: str | None = None,
        name: str | None = None,
        digest: str | None = None,
        predictions: str | None = None,
    ) -> None:
        for role, column in (("targets", targets), ("predictions", predictions)):
            if column is not None and column not in df.columns:
                raise InvalidValueError(f"the table has no column `{column}` for {role}")
        self._df = df
        self._targets = targets
        self._predictions = predictions
        super().__init__(source, name, digest)

    def _compute_digest(self) -> str:
        return compute_pandas_digest(self._df)

    @property
    def df(self) -> pd.DataFrame:
        """The table."""
        return self._df

    @property
    def targets(self) -> str | None:
        """Column to be predicted."""
        return self._targets

    @property
    def predictions(self) -> str | None:
        """Column of a model's predictions."""
        return self._predictions

    @property
    def profile(self) -> dict[str, int]:
        """``num_rows`` and ``num_elements``."""
        return {"num_rows": len(self._df), "num_elements": int(self._df.size)}

    @cached_property
    def schema(self) -> Schema | None:
        """Types of the columns; None if one of them has no type in MLflow's schemas."""
        try:
            return column_schema(self._df)
        except (ValueError, RecursionError) as error:
            _logger.debug("the dataset `%s` has no schema: %s", self.name, error)
            return None

    def to_dict(self) -> dict[str, str | None]:
        """With ``schema`` and ``profile``, both as JSON."""
        schema = None if self.schema is None else json.dumps({"mlflow_colspec": self.schema.to_dict()})
        return {**super().to_dict(), "schema": schema, "profile": json.dumps(self.profile)}


def from_pandas(
    df: pd.DataFrame,
    source: str | os.PathLike[str] | DatasetSource | None = None,
    targets: str | None = None,
    name: str | None = None,
    digest: str | None = None,
    predictions: str | None = None,
) -> PandasDataset:
    """Describe a pandas DataFrame, to be passed to ``log_input``.

    Args:
        df: The table.
        source: A path, a URI or a source object; the running program if not given.
        targets: Column to be predicted.
        name: ``dataset`` if not given.
        digest: At most 36 characters; computed from all of the table if not given.
        predictions: Column of a model's predictions.

    Raises:
        InvalidValueError: There is no such column.
        NotFoundError: ``source`` names nothing that is known.
    """
    return PandasDataset(df, source_or_code(source), targets, name, digest, predictions)


def from_polars(
    df: Any,
    source: str | os.PathLike[str] | DatasetSource | None = None,
    targets: str | None = None,
    name: str | None = None,
    digest: str | None = None,
    predictions: str | None = None,
) -> PandasDataset:
    """Describe a polars DataFrame, as ``from_pandas`` does: equal tables of both kinds have equal digests.

    Raises:
        MissingDependencyError: polars needs pandas and pyarrow to convert a table.
    """
    try:
        table = df.to_pandas()
    except ImportError as error:
        raise MissingDependencyError(
            f"a polars table cannot be described: {error}", hint="pip install pandas pyarrow"
        ) from error
    return from_pandas(table, source, targets, name, digest, predictions)
