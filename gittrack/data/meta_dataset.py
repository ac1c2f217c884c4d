"""A dataset of which only the description is here."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from gittrack.data.dataset import Dataset
from gittrack.data.digest_utils import DIGEST_LENGTH

if TYPE_CHECKING:
    from gittrack.data.dataset_source import DatasetSource


class MetaDataset(Dataset):
    """Source, name and schema without the data, such as an archive on the web.

    Args:
        source: Where the data are.
        name: ``dataset`` if not given.
        digest: Computed from the description if not given, so it does not notice that the data change.
        schema: A ``Schema``, or anything else with ``to_dict``.
    """

    def __init__(
        self, source: DatasetSource, name: str | None = None, digest: str | None = None, schema: Any | None = None
    ) -> None:
        self._schema = schema
        super().__init__(source, name, digest)

    def _compute_digest(self) -> str:
        described = [self.name, self.source._get_source_type(), self.source.to_json(), self._schema_json()]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:DIGEST_LENGTH]

    def _schema_json(self) -> str | None:
        return None if self._schema is None else json.dumps({"mlflow_colspec": self._schema.to_dict()})

    @property
    def schema(self) -> Any | None:
        """The schema, as it was given."""
        return self._schema

    def to_dict(self) -> dict[str, str | None]:
        """With ``schema``, if there is one."""
        schema = self._schema_json()
        return super().to_dict() | ({} if schema is None else {"schema": schema})
