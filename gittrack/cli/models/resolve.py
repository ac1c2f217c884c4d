"""``gittrack models resolve``."""

from __future__ import annotations

import click

from gittrack.cli import common, output
from gittrack.cli.models import base


@common.verb()
@base.name_argument
@click.argument("about", metavar="STAGE|@ALIAS|vN")
@click.argument("version", default="")
@base.reason_option
@base.sign_option
def verb(name: str, about: str, version: str, reason: str, sign: bool) -> None:
    """Settle a conflict: say which VERSION of NAME is meant by a stage or an alias.

    Two clones that changed the same stage or alias without knowing of each other are in conflict, and nothing is loaded
    or served from it. What this writes replaces both. For a number that was given twice (`v4`) it takes no VERSION: the
    remote's version keeps it, and this clone's gets the next one.
    """
    with base.registry(write=True) as opened:
        number = version.lower().removeprefix("v") or None
        found = opened.settle(name, about, number, reason, sign=sign)
    if found is None:
        output.message(f"`{name}` {about} is no version any more")
    elif about.startswith("v"):
        output.message(f"this clone's {about} of `{name}` is v{found.version} now, with its stage and aliases")
    else:
        output.message(f"`{name}` {about} is v{found.version} now")
