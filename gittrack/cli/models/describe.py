"""``gittrack models describe``."""

from __future__ import annotations

from typing import IO

import click

from gittrack.cli import common, output, text
from gittrack.cli.models import base
from gittrack.errors import UsageError


@common.verb()
@base.version_argument
@click.option("-m", "--message", "messages", multiple=True, metavar="TEXT", help="The text; each `-m` is a paragraph.")
@click.option("-F", "--file", "file", type=click.File(), help="Read the text from this file; `-` is standard input.")
@click.option("-e", "--edit", is_flag=True, help="Write the text in your editor.")
@click.option("-d", "--delete", is_flag=True, help="Remove the description.")
@common.json_option
def verb(
    version: str, messages: tuple[str, ...], file: IO[str] | None, edit: bool, delete: bool, as_json: bool
) -> None:
    """Show the description of a model or a version, or write it.

    VERSION is NAME for the model, else NAME@v3.
    """
    if sum([bool(messages), file is not None, edit, delete]) > 1:
        raise UsageError("`-m`, `-F`, `--edit` and `--delete` exclude each other", hint="use one of them")
    writing = bool(messages or file is not None or edit or delete)
    with base.registry(write=writing) as opened:
        name, number = base.version_of(opened, version)
        now = (opened.get_model(name) if number is None else opened.get_version(name, number)).description
        if not writing:
            if as_json:
                output.document({"description": now})
            elif now is None:
                output.message(
                    f"`{version}` has no description; `gittrack models describe {version} --edit` writes one"
                )
            else:
                output.lines(text.clean_lines(now))
            return
        new = None if delete else "\n\n".join(messages) if messages else _read(file, now)
        new = new.strip() or None if new is not None else None
        if number is None:
            opened.describe_model(name, new)
        else:
            opened.describe_version(name, number, new)


def _read(file: IO[str] | None, now: str | None) -> str:
    if file is not None:
        return file.read()
    edited = click.edit(now or "", extension=".md")
    return (now or "") if edited is None else edited
