"""Who may do what: roles, grants and the caller who has them.  Plain values; ``accounts`` keeps them.

Nothing is allowed that no grant allows, and a denial wins over every grant.  Grants name experiments and models by
patterns, since those that are to come count, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Literal

Kind = Literal["token", "user", "local", "anonymous"]


class Role(IntEnum):
    """What one may do; a larger one may do all that a smaller one may."""

    READER = 1  #: read
    WRITER = 2  #: record runs, register models
    MAINTAINER = 3  #: promote, delete, restore, collect
    ADMIN = 4  #: accounts and permissions


@dataclass(frozen=True, slots=True)
class Grant:
    """A role for some experiments or models.

    Attributes:
        role: The role; None denies.
        experiments: A pattern of experiments' names (``*``, ``?``, ``[…]``); None for no experiment.
        models: A pattern of models' names; None for no model.
    """

    role: Role | None
    experiments: str | None = None
    models: str | None = None

    def covers(self, *, experiment: str | None, model: str | None) -> bool:
        """True if the grant is about that experiment or that model."""
        return (
            self.experiments is not None and experiment is not None and fnmatchcase(experiment, self.experiments)
        ) or (self.models is not None and model is not None and fnmatchcase(model, self.models))

    @property
    def covers_all(self) -> bool:
        """True if it is about every experiment and every model."""
        return self.experiments == "*" and self.models == "*"

    def at_most(self, role: Role) -> Grant:
        """The same for somebody who may not do what takes more than ``role``."""
        return self if self.role is None else replace(self, role=min(self.role, role))


def described(grants: Iterable[Grant]) -> str:
    """Grants for people."""
    parts = []
    for one in grants:
        role = "denied" if one.role is None else f"{one.role.name.lower()} of"
        if one.covers_all:
            parts.append(f"{role} everything")
            continue
        about = [
            f"experiments {one.experiments}" if one.experiments is not None else "",
            f"models {one.models}" if one.models is not None else "",
        ]
        parts.append(f"{role} {' and '.join(filter(None, about))}")
    return ", ".join(parts) or "nothing"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: For people and for the audit log.
        grants: What was given to him.
        kind: How he is known.
    """

    name: str
    grants: tuple[Grant, ...] = ()
    kind: Kind = "anonymous"

    def may(self, role: Role, *, experiment: str | None = None, model: str | None = None) -> bool:
        """True if he may do what takes ``role``.

        Args:
            role: The role.
            experiment: With this experiment, by name.
            model: With this model, by name; neither: with everything that there is and will be.
        """
        if experiment is None and model is None:
            if any(grant.role is None for grant in self.grants):
                return False
            return any(grant.role is not None and grant.role >= role and grant.covers_all for grant in self.grants)
        about = [grant for grant in self.grants if grant.covers(experiment=experiment, model=model)]
        if any(grant.role is None for grant in about):
            return False
        return any(grant.role is not None and grant.role >= role for grant in about)


#: Whoever is at this machine, where nobody else can ask and no accounts are kept.
LOCAL = Caller("local", (Grant(Role.ADMIN, "*", "*"),), "local")
