"""``gittrack hook``: what the scripts in `.git/hooks` call."""

from __future__ import annotations

import click

from gittrack.cli import common, output


@common.verb(hidden=True, context_settings={"help_option_names": ["-h", "--help"], "ignore_unknown_options": True})
@click.argument("name")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(name: str, arguments: tuple[str, ...]) -> int:
    """Do what the git hook NAME does; exit status 10 means that git is to stop.

    The scripts that `gittrack hooks install` sets up call it; so can a hook of your own, with the same arguments.
    """
    from gittrack.hooks import dispatch

    said = dispatch.run(name, [one for one in arguments if one != "--staged"])
    for line in said.notes:
        output.message(f"gittrack: {line}")
    for message, hint in said.errors:
        output.error(message, hint)
    return said.status
