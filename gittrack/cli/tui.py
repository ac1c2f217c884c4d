"""``gittrack tui``."""

from __future__ import annotations

import click

from gittrack.cli import common, output
from gittrack.errors import MissingDependencyError, UsageError


@common.verb()
@click.argument("filter_string", metavar="[FILTER]", default="")
@common.experiment_option
def command(filter_string: str, experiments: tuple[str, ...]) -> None:
    """See the runs in this terminal: table, charts, runs beside each other.

    FILTER is what `gittrack search` takes. Keys are those of the web page; `?` lists them.
    """
    import sys

    if not (output.is_terminal() and output.is_terminal(sys.stdin)):
        raise UsageError("this is no terminal", hint="`gittrack search` prints the same table")
    try:
        from gittrack.cli.screens import View
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "textual":
            raise
        raise MissingDependencyError(
            "the terminal view needs the package textual", hint="pip install 'gittrack[tui]'"
        ) from error
    with common.tracker() as opened:
        chosen = common.experiment_ids(opened, experiments)
        View(opened, filter_string=filter_string, experiment_ids=chosen).run()
