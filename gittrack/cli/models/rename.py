"""``gittrack models rename``."""

from __future__ import annotations

import click

from gittrack.cli import common, output
from gittrack.cli.models import base


@common.verb()
@base.name_argument
@click.argument("new_name")
def verb(name: str, new_name: str) -> None:
    """Rename the model NAME; its tags in git keep the first name."""
    with base.registry(write=True) as opened:
        opened.rename_model(name, new_name)
    output.message(f"renamed model `{name}` to `{new_name}`")
