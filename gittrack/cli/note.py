"""``gittrack note``."""

from __future__ import annotations

from typing import IO

import click

from gittrack.cli import common, output, render, text
from gittrack.errors import UsageError


class _Note(common.Verb):
    """Says how a note is written to those who write it as a further word."""

    extra_hint = "`gittrack note RUN -m TEXT` writes one"


@click.command(cls=_Note)
@common.run_argument
@click.option("-m", "--message", "messages", multiple=True, metavar="TEXT", help="The note; each `-m` is a paragraph.")
@click.option("-F", "--file", "file", type=click.File(), help="Read the note from this file; `-` is standard input.")
@click.option("-e", "--edit", is_flag=True, help="Write the note in your editor.")
@click.option("-d", "--delete", is_flag=True, help="Remove the note.")
@common.json_option
def command(run: str, messages: tuple[str, ...], file: IO[str] | None, edit: bool, delete: bool, as_json: bool) -> None:
    """Show the note of a run, or write it.

    The note is Markdown and says what the numbers do not: what was tried, and what came of it.
    """
    if sum([bool(messages), file is not None, edit, delete]) > 1:
        raise UsageError("`-m`, `-F`, `--edit` and `--delete` exclude each other", hint="use one of them")
    writing = bool(messages or file is not None or edit or delete)
    with common.tracker(write=writing) as opened:
        run_id = opened.resolve(run)
        now = opened.get_run(run_id).data.tags.get(render.NOTE_TAG)
        if not writing:
            if as_json:
                output.document({"note": now})
            elif now is None:
                output.message(f"run `{run}` has no note; `gittrack note {run} --edit` writes one")
            else:
                output.lines(text.clean_lines(now))
            return
        new = (
            None if delete else "\n\n".join(messages) if messages else file.read() if file is not None else _edited(now)
        )
        writer = opened.writer(run_id)
        if new is not None and new.strip():
            writer.set_tags({render.NOTE_TAG: new.strip()})
        elif now is not None:
            writer.delete_tag(render.NOTE_TAG)


def _edited(now: str | None) -> str:
    edited = click.edit(now or "", extension=".md")
    return (now or "") if edited is None else edited
