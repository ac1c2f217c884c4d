"""``gittrack server``: the tracking server of a repository."""

from __future__ import annotations

import click

from gittrack.cli import common
from gittrack.cli.accounts import audit, token, user


@click.group(cls=common.VerbGroup, default="token")
def command() -> None:
    """Serve the runs and models of this repository to every MLflow client.

    Without a further word it starts the server.
    """


command.add_command(token.command, "token")
command.add_command(user.command, "user")
command.add_command(audit.command, "audit")
