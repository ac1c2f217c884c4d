"""``gittrack models demote``."""

from __future__ import annotations

import click

from gittrack.cli import common
from gittrack.cli.models import base
from gittrack.errors import UsageError


@common.verb()
@base.version_argument
@click.option(
    "--to",
    "stage",
    type=click.Choice(["archived", "staging", "none"], case_sensitive=False),
    default="archived",
    help="Where to; default: archived.",
)
@base.reason_option
@base.sign_option
def verb(version: str, stage: str, reason: str, sign: bool) -> None:
    """Take VERSION out of its stage.

    `gittrack models demote NAME@production -m 'too many false alarms'` leaves nothing in production.
    """
    with base.registry(write=True) as opened:
        name, number = base.version_of(opened, version)
        if number is None:
            raise UsageError(f"`{version}` is a model and no version of it", hint=f"write `{version}@production`")
        base.move(opened, name, number, stage, archive=False, reason=reason, sign=sign)
