"""``gittrack server audit`` and its verbs."""

from __future__ import annotations

import re
from collections import deque

import click

from gittrack.cli import common, output, text
from gittrack.cli.accounts import base
from gittrack.errors import UsageError


@click.group(cls=common.VerbGroup, default="show")
def command() -> None:
    """Look at the audit log: who logged in, made tokens, promoted, deleted.

    Without a further word this shows its newest lines.
    """


@command.command("show")
@click.option("-n", "--max-count", type=common.COUNT, default=50, show_default=True, help="The newest so many.")
@common.json_option
def show(max_count: int, as_json: bool) -> None:
    """Show the newest lines, the oldest of them first."""
    with base.kept() as opened:
        found = deque(opened.audit.lines(), maxlen=max_count)
    if as_json:
        output.array(found)
    elif found:
        rows = [
            [str(one["seq"]), one["time"][:19] + "Z", output.Cell(one["who"], "yellow"), one["how"], one["what"],
             one["object"], one["address"], one["outcome"]]
            for one in found
        ]  # fmt: skip
        output.lines(output.table(["", "when", "who", "known by", "what", "to", "from", "outcome"], rows))
    else:
        output.message("nothing was written yet")


@command.command("verify")
@click.option("--since", type=click.IntRange(1), default=1, metavar="LINE",
              help="The oldest line that must be there, if older files were put away.")  # fmt: skip
@click.option("--noted", metavar="LINE:HASH", help="A line that this verb printed at an earlier time.")
@common.json_option
def verify(since: int, noted: str | None, as_json: bool) -> None:
    """Check that no line was changed, removed or moved; print the newest one's hash.

    Whoever can write the log's files can make them anew: note what this prints in another place, and give it back as
    `--noted`.
    """
    from gittrack.server.hub.audit import Line

    expected = None
    if noted is not None:
        match = re.fullmatch(r"([1-9][0-9]{0,17}):([0-9a-f]{64})", noted)
        if match is None:
            raise UsageError(f"`{noted}` is no line", hint="a number, a colon and 64 digits, as this verb prints it")
        expected = Line(int(match[1]), match[2])
    with base.kept() as opened:
        newest = opened.audit.verify(since=since, noted=expected)
    if as_json:
        output.document({"line": newest.seq, "hash": newest.hash})
        return
    output.lines([f"{newest.seq}:{newest.hash}"])
    output.message(f"{text.count(newest.seq - since + 1, 'line')}, all as they were written")
