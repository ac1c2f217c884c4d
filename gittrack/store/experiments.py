"""An experiment's editable facts and their bytes: one document per writer, merged field by field (design section 6).

The document is the blob ``experiment.msgpack`` at the root of each ledger of the experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gittrack.errors import FormatError
from gittrack.store import codec, layout
from gittrack.store.record import checked_field, int64
from gittrack.types import Experiment, Field, LifecycleStage

VERSION: Final = 1


class ExperimentState:
    """An experiment being folded from the documents of its writers.  Mutable; ``to_experiment`` gives the record."""

    def __init__(self, experiment_id: str, created: int) -> None:
        self.experiment_id = experiment_id
        self.fields: dict[str, Field] = {}
        self.created = created
        self.updated = created

    @classmethod
    def default(cls) -> ExperimentState:
        """The experiment that is always there."""
        state = cls(layout.DEFAULT_EXPERIMENT_ID, 0)
        state.fields["name"] = Field(0, "", layout.DEFAULT_EXPERIMENT_NAME)
        return state

    @property
    def name(self) -> str:
        """Its current name; the id while nobody has said one."""
        return self.value("name") or self.experiment_id

    def value(self, field: str) -> str | None:
        """The current value of an editable field."""
        found = self.fields.get(field)
        return None if found is None else found.value

    def edit(self, writer: str, changes: Mapping[str, str | None], now: int) -> None:
        """Change fields; ``now`` in milliseconds."""
        counter = 1 + max((f.counter for f in self.fields.values()), default=0)
        for name, value in changes.items():
            self.fields[name] = Field(counter, writer, value)
        self.updated = max(self.updated, now)

    def merge(self, other: ExperimentState) -> None:
        """Take in what another writer knows."""
        for name, edit in other.fields.items():
            if edit.beats(self.fields.get(name)):
                self.fields[name] = edit
        self.created = min(self.created, other.created) if self.created else other.created
        self.updated = max(self.updated, other.updated)

    def to_experiment(self) -> Experiment:
        """The frozen record."""
        return Experiment(
            experiment_id=self.experiment_id,
            name=self.name,
            artifact_location=self.value("artifact_location") or f"gittrack:/{self.experiment_id}",
            lifecycle_stage=self.value("lifecycle") or LifecycleStage.ACTIVE,
            tags={
                name[5:]: edit.value
                for name, edit in sorted(self.fields.items())
                if name.startswith("tags.") and edit.value is not None
            },
            creation_time=self.created,
            last_update_time=self.updated,
        )

    def encode(self) -> bytes:
        """The document's bytes; equal states give equal bytes."""
        return codec.pack(
            {
                "created": self.created,
                "fields": {name: [f.counter, f.writer, f.value] for name, f in sorted(self.fields.items())},
                "updated": self.updated,
                "version": VERSION,
            }
        )

    @classmethod
    def decode(cls, experiment_id: str, data: bytes) -> ExperimentState:
        """The state that ``data`` was made from.  Raises FormatError."""
        raw = codec.unpack(data)
        try:
            if raw["version"] != VERSION:
                raise FormatError(f"experiment `{experiment_id}` has format version `{raw['version']}`")
            state = cls(experiment_id, int64(raw["created"], "the time it was made"))
            state.updated = int64(raw["updated"], "the time of its last change")
            state.fields = {name: checked_field(*field) for name, field in raw["fields"].items()}
        except (TypeError, KeyError, AttributeError) as error:
            raise FormatError(f"experiment `{experiment_id}` has the wrong shape: {error}") from error
        return state
