"""``gittrack models log``."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from gittrack.cli import common, output, text
from gittrack.cli.models import base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gittrack.registry.state import Change


@common.verb()
@base.version_argument
@common.limit_option
@common.json_option
def verb(version: str, limit: int | None, as_json: bool) -> None:
    """Show what happened to a model, newest first: who, when, why, from what to what.

    VERSION is NAME for everything, or NAME@v3 for what is about that version.
    """
    with base.registry() as opened:
        name, number = base.version_of(opened, version)
        found = [one for one in reversed(opened.history(name)) if number is None or one.version == int(number)]
        changes = list(islice(found, limit))
        if as_json:
            output.array(one._asdict() for one in changes)
        else:
            output.lines(line for one in changes for line in _block(name, one))


def _block(name: str, change: Change) -> Iterator[str]:
    yield output.style(_headline(name, change), "yellow")
    if change.tag:
        yield f"Tag:    {change.tag}" + (" (signed)" if change.signed else "")
    yield f"Author: {change.who}"
    yield f"Date:   {text.date(change.time)}"
    if change.reason:
        yield ""
        yield from ("    " + line for line in text.clean_lines(change.reason))
    yield ""


def _headline(name: str, change: Change) -> str:
    about = name if change.version is None else f"{name} v{change.version}"
    old, new = ("–" if value is None else text.clean(value) for value in (change.old, change.new))
    if change.what == "version":
        return f"{about} registered from {new}"
    if change.what == "approval":
        return f"{about} approved for {new}"
    if change.what.startswith("@"):
        old, new = (value if value == "–" else f"v{value}" for value in (old, new))
        return f"{name} {change.what}: {old} → {new}"
    return f"{about} {change.what}: {old} → {new}"
