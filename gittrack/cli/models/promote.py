"""``gittrack models promote``."""

from __future__ import annotations

import click

from gittrack.cli import common
from gittrack.cli.models import base
from gittrack.errors import UsageError


@common.verb()
@base.version_argument
@click.argument(
    "stage", metavar="STAGE", type=click.Choice(["staging", "production", "archived", "none"], case_sensitive=False)
)
@click.option("-k", "--keep", is_flag=True, help="Leave the other versions in that stage where they are.")
@base.reason_option
@base.sign_option
def verb(version: str, stage: str, keep: bool, reason: str, sign: bool) -> None:
    """Put VERSION into STAGE: staging, production, archived or none.

    The versions that are in staging or production so far become archived, unless `--keep` is given. The event is an
    annotated tag, `models/NAME/production/1`; pushing it is what starts a deployment. If VERSION is there already, and
    nothing is to be archived, there is no event, unless `--sign` asks for a signature.
    """
    with base.registry(write=True) as opened:
        name, number = base.version_of(opened, version)
        if number is None:
            raise UsageError(f"`{version}` is a model and no version of it", hint=f"write `{version}@v1`")
        archive = not keep and stage.lower() in ("staging", "production")
        base.move(opened, name, number, stage, archive=archive, reason=reason, sign=sign)
