"""The pages of `gittrack help` that are written from the program: ``cli``, from its verbs, and ``config``.

``python -m gittrack.cli.reference cli`` prints a page; a test compares it with the file in ``gittrack/help``.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Final

import click

from gittrack.cli import common, output
from gittrack.cli.main import VERBS, program

_INTRODUCTION: Final = """\
# Command line reference

Written from the program by `python -m gittrack.cli.reference cli > gittrack/help/cli.md`; a test keeps it so.

`git track VERB` is the same as `gittrack VERB`. Standard output carries data only; what is said about it goes to
standard error. Exit statuses: 0 success, 1 not found or refused, 2 wrong usage, 3 not reproduced, 4 damaged data, 130
interrupted, 141 the reader of the output went away, 255 a bug (`gittrack help errors`).
"""


_SETTINGS: Final = """\
# Settings

Written from the program by `python -m gittrack.cli.reference config > gittrack/help/config.md`; a test keeps it so.

A setting is taken from the first of these that has it:

1. the environment of the process: `GITTRACK_…`, then MLflow's name where there is one
2. git's configuration, for a person or a clone: `git config --global gittrack.user ana`
3. `[tool.gittrack]` in pyproject.toml at the top of the work tree, for a team: `sync = 5`
4. the default

`gittrack config` lists them with their values and where each comes from, `gittrack config NAME VALUE` sets one for this
clone, `gittrack config --unset NAME` takes it away. `--global` is git's: `git config --global gittrack.NAME VALUE`.
"""


def reference() -> str:
    """The whole reference as Markdown."""
    root = program()
    context = common.context_of(root, "gittrack")
    parts = [_INTRODUCTION, "## gittrack\n", *_described(root, context)]
    for heading, names in VERBS.items():
        for name in names:
            command = root.get_command(context, name)
            if command is not None:
                parts += _verb(command, common.context_of(command, name, context), heading)
    return "\n".join(parts)


def _verb(command: click.Command, context: click.Context, heading: str) -> Iterator[str]:
    depth = "#" * (1 + len(context.command_path.split()))
    yield f"{depth[:4]} {context.command_path}\n"
    yield from _described(command, context)
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from _verb(one, common.context_of(one, name, context), heading)


def _described(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"```\n{usage}\n```\n"
    yield re.sub(r"(?m)^\x08\n", "", inspect.cleandoc(command.help or "")) + "\n"
    rows = [one.get_help_record(context) for one in command.get_params(context) if isinstance(one, click.Option)]
    if rows:
        yield "".join(f"- `{row[0]}`: {row[1]}\n" for row in rows if row is not None)


def settings() -> str:
    """The page about settings as Markdown."""
    from gittrack.config import SETTINGS

    parts = [_SETTINGS]
    for one in SETTINGS:
        default = "not set" if one.default in (None, ()) else f"`{str(one.default).lower()}`"
        variables = f"`{one.variable}`" + (f" or `{one.mlflow}`" if one.mlflow else "")
        parts.append(f"## {one.team_key}\n\n{one.help[:1].upper()}{one.help[1:]}.\n")
        git = f"`{one.git_key}`" + (", yours and not a repository's: `git config --global`" if one.personal else "")
        parts.append(f"- default: {default}\n- environment: {variables}\n- git: {git}\n")
    return "\n".join(parts)


PAGES: Final = {"cli": reference, "config": settings}

if __name__ == "__main__":
    output.raw(PAGES[sys.argv[1]]().encode())
