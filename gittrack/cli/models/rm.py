"""``gittrack models rm``."""

from __future__ import annotations

import shlex

import click

from gittrack.cli import common, output
from gittrack.cli.models import base


@common.verb()
@click.argument("versions", metavar="VERSION…", nargs=-1, required=True, shell_complete=base.complete_versions)
@base.reason_option
def verb(versions: tuple[str, ...], reason: str) -> None:
    """Delete versions, or models with all their versions.

    `gittrack models restore` brings them back. VERSION is NAME for a model, else NAME@v3. The tags in git stay, and a
    number is never used again.
    """
    with base.registry(write=True) as opened:
        found = [base.version_of(opened, one) for one in versions]  # all names are read before anything is deleted
        for name, number in found:
            if number is None:
                opened.delete_model(name, reason)
            else:
                opened.delete_version(name, number, reason)
    gone = [name if number is None else f"{name}@v{number}" for name, number in found]
    undo = " ".join(map(shlex.quote, gone))
    output.message(f"deleted {', '.join(f'`{one}`' for one in gone)}; `gittrack models restore {undo}` undoes it")
