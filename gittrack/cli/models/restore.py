"""``gittrack models restore``."""

from __future__ import annotations

import click

from gittrack.cli import common, output
from gittrack.cli.models import base


@common.verb()
@click.argument("versions", metavar="VERSION…", nargs=-1, required=True)
def verb(versions: tuple[str, ...]) -> None:
    """Bring deleted versions or models back.

    VERSION is NAME for a model, else NAME@v3.
    """
    from gittrack.registry.names import parse_address

    with base.registry(write=True) as opened:
        for one in versions:
            wanted = parse_address(one)
            number = wanted.version or (wanted.word if wanted.word and wanted.word.isdecimal() else None)
            if number is None:
                opened.restore_model(one)
            else:
                opened.restore_version(wanted.name, number)
    output.message(f"restored {', '.join(f'`{one}`' for one in versions)}")
