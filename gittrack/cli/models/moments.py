"""``--at``: a point in time, said as a date or as a commit."""

from __future__ import annotations

from datetime import datetime, time
from typing import TYPE_CHECKING, Any

import click

from gittrack.errors import NotFoundError
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from collections.abc import Callable

    from gittrack.store.repo import Repo


def option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--at DATE|COMMIT``."""
    return click.option(
        "--at",
        metavar="DATE|COMMIT",
        help="As it was then: `2026-11-03` (the end of that day), `2026-11-03T14:30`, or any name of a commit.",
    )(function)


def moment(repo: Repo, text: str) -> datetime | ObjectId:
    """What ``--at`` names: a date, in the local zone unless it says another, or a commit.

    Raises:
        NotFoundError: It is neither.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return _commit(repo, text)
    if len(text) <= len("2026-11-03"):
        found = datetime.combine(found, time.max)
    return found.astimezone()


def _commit(repo: Repo, text: str) -> ObjectId:
    from gittrack.store import gateway

    name = gateway.rev(text) + "^{commit}"
    found = repo.git.program.call("rev-parse", "--verify", "--quiet", "--end-of-options", name)
    if found.status != 0:
        raise NotFoundError(f"`{text}` is no date and no commit", hint="write a date as 2026-11-03 or 2026-11-03T14:30")
    return ObjectId(found.stdout.decode("ascii", "replace").strip())
