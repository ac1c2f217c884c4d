"""The records of models: registered ones, their versions and parts, and logged ones, frozen.

They belong to ``gittrack.types``, which hands them out; they are in a module of their own because making them takes
as long as making all the others, and most verbs do not need them.  What is said there holds here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from gittrack.errors import InvalidValueError, shown
from gittrack.types import LifecycleStage, Metric, ObjectId

_UNKNOWN: Final = ObjectId("")


class ModelVersionStages:
    """The stages of a model version: MLflow's, in the order in which a version becomes more exposed."""

    NONE: Final = "None"
    ARCHIVED: Final = "Archived"
    STAGING: Final = "Staging"
    PRODUCTION: Final = "Production"

    ALL: Final = (NONE, STAGING, PRODUCTION, ARCHIVED)  #: in MLflow's order
    ACTIVE: Final = (STAGING, PRODUCTION)  #: those whose other versions a transition can archive

    @classmethod
    def canonical(cls, stage: object) -> str:
        """A stage's name as it is written, from any spelling of upper and lower case.  Raises InvalidValueError."""
        for known in cls.ALL:
            if isinstance(stage, str) and stage.lower() == known.lower():
                return known
        raise InvalidValueError(f"invalid model version stage `{stage!s:.80}`", hint=f"one of {', '.join(cls.ALL)}")


class ModelVersionStatus:
    """Whether a version can be used; those that gittrack makes are READY at once."""

    PENDING_REGISTRATION: Final = "PENDING_REGISTRATION"
    FAILED_REGISTRATION: Final = "FAILED_REGISTRATION"
    READY: Final = "READY"


@dataclass(frozen=True, slots=True)
class RegisteredModelTag:
    """A tag of a registered model: text, editable."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class ModelVersionTag:
    """A tag of a model version: text, editable."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class RegisteredModelAlias:
    """A name for one version of a model, which can be given to another version later."""

    alias: str
    version: str


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model: MLflow's entity, plus what only gittrack knows.

    Attributes:
        version: Its number, as text, as in MLflow's REST API.
        source: ``runs:/<run id>/<path>``, or the address of files that are elsewhere.
        run_id: The run that made it; of files that are elsewhere, one that is there for nothing else.
        path: Where the model is among the run's artifacts; empty: all of them.
        commit: The revision of the run that the version's tag points at.
        manifest: sha256 of the model's manifest (``gittrack.registry.manifest``).
        tag: The version's tag, below ``refs/tags/``.
        tag_oid: Id of the tag object.
        key: The model's part of ref names; it stays when the model is renamed.
        elsewhere: Its files are not here: it has an address, and no file.
        source_run_id: The run that made files that are elsewhere, as whoever registered them said.
        copied_from: ``models:/<name>/<version>`` that it is a copy of, as that was called then; None if it is none.
    """

    name: str
    version: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | None
    user_id: str | None
    current_stage: str
    source: str
    run_id: str | None
    status: str = ModelVersionStatus.READY
    status_message: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    run_link: str | None = None
    aliases: list[str] = field(default_factory=list)
    model_id: str | None = None
    path: str = ""
    commit: ObjectId = _UNKNOWN
    manifest: str = ""
    tag: str = ""
    tag_oid: ObjectId = _UNKNOWN
    lifecycle_stage: str = LifecycleStage.ACTIVE
    key: str = ""
    elsewhere: bool = False
    source_run_id: str | None = None
    copied_from: str | None = None

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Name and value of each fact, so that ``dict(version)`` works as with MLflow's."""
        return ((name, getattr(self, name)) for name in ModelVersion.__slots__)

    def _repr_html_(self) -> str:
        """The version as a notebook shows it."""
        from gittrack import cards

        return cards.version(self)


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A name that versions of a model are registered under.

    Attributes:
        aliases: Alias to version.
        latest_versions: The newest version in each stage that has one.
        key: The model's part of ref names; it stays when the model is renamed.
        conflicts: The stages (``Production``), aliases (``@champion``) and versions (``v3``) about which clones
            disagree.
    """

    name: str
    creation_timestamp: int
    last_updated_timestamp: int
    description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    latest_versions: list[ModelVersion] = field(default_factory=list)
    lifecycle_stage: str = LifecycleStage.ACTIVE
    key: str = ""
    conflicts: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Name and value of each fact, so that ``dict(model)`` works as with MLflow's."""
        return ((name, getattr(self, name)) for name in RegisteredModel.__slots__)

    def _repr_html_(self) -> str:
        """The model as a notebook shows it."""
        from gittrack import cards

        return cards.model(self)


class LoggedModelStatus(str, Enum):
    """Whether a logged model is complete.  MLflow passes it as text, and as a number in dicts."""

    UNSPECIFIED = "UNSPECIFIED"
    PENDING = "PENDING"
    READY = "READY"
    FAILED = "FAILED"

    def __str__(self) -> str:
        return self.value

    @staticmethod
    def is_finalized(status: str) -> bool:
        """True for READY and FAILED: nothing more is to come."""
        return status in (LoggedModelStatus.READY, LoggedModelStatus.FAILED)

    def to_int(self) -> int:
        """MLflow's number of it."""
        return list(LoggedModelStatus).index(self)

    @classmethod
    def from_int(cls, status_int: int) -> LoggedModelStatus:
        """The status of a number.  Raises InvalidValueError."""
        if type(status_int) is not int or not 0 <= status_int < len(cls):
            raise InvalidValueError(f"unknown status of a logged model `{shown(status_int)}`", hint="0 to 3")
        return list(cls)[status_int]

    @classmethod
    def of(cls, status: object) -> LoggedModelStatus:
        """The status of a name.  Raises InvalidValueError."""
        try:
            return cls(status)
        except ValueError:
            names = ", ".join(cls.__members__)
            raise InvalidValueError(
                f"unknown status of a logged model `{shown(status)}`", hint=f"one of {names}"
            ) from None


@dataclass(frozen=True, slots=True)
class LoggedModelParameter:
    """A parameter of a logged model: written once, text."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class LoggedModelTag:
    """A tag of a logged model: text, editable."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model as it was logged: MLflow's entity, plus what only gittrack knows.

    Attributes:
        artifact_location: ``runs:/<run id>/<folder>`` of its files.
        source_run_id: The run that made it, which need not be here; None if none did.
        metrics: What was measured of it, by whatever run; by name, time and step.
        run_id: The run that keeps it: the one that made it, or one that is there for nothing else.
        path: The folder of its files among the artifacts of that run.
        flavors: The flavours that it can be loaded as, as far as they are known.
    """

    experiment_id: str
    model_id: str
    name: str
    artifact_location: str
    creation_timestamp: int
    last_updated_timestamp: int
    model_type: str | None = None
    source_run_id: str | None = None
    status: LoggedModelStatus = LoggedModelStatus.READY
    status_message: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[Metric] = field(default_factory=list)
    lifecycle_stage: str = LifecycleStage.ACTIVE
    run_id: str = ""
    path: str = ""
    flavors: tuple[str, ...] = ()

    @property
    def is_alone(self) -> bool:
        """True if the run that keeps it is there for nothing else: no run here made it."""
        return self.run_id != self.source_run_id

    @property
    def model_uri(self) -> str:
        """The address to load it from."""
        return f"models:/{self.model_id}"

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Name and value of each fact that MLflow has too, so that ``dict(model)`` works as with MLflow's."""
        return ((name, getattr(self, name)) for name in (*_LOGGED_MODEL, "model_uri"))

    def to_dictionary(self) -> dict[str, Any]:
        """MLflow's dict of it; the status is a number there."""
        return {name: getattr(self, name) for name in _LOGGED_MODEL} | {"status": self.status.to_int()}


#: What MLflow knows of a logged model, in the order of its dicts.
_LOGGED_MODEL: Final = (
    "artifact_location", "creation_timestamp", "experiment_id", "last_updated_timestamp", "metrics", "model_id",
    "model_type", "name", "params", "source_run_id", "status", "status_message", "tags",
)  # fmt: skip
