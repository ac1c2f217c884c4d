"""``gittrack help``: the verbs, and the guides in ``gittrack/help``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import click

from gittrack.cli import common, output, text
from gittrack.errors import NotFoundError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_WIDTH: Final = 100  # columns; longer lines are hard to read
_ITEM: Final = re.compile(r"(?:-|\d+\.) ")


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from gittrack.cli.main import program

    known = {*topics(), *program().list_commands(context)}
    return [CompletionItem(name) for name in sorted(known) if name.startswith(incomplete)]


@common.verb()
@click.argument("words", metavar="[VERB|TOPIC]", nargs=-1, shell_complete=_complete)
@click.option("-l", "--list", "listing", is_flag=True, help="List the topics.")
def command(words: tuple[str, ...], listing: bool) -> None:
    """Explain a verb or a topic.

    Where both have the name (`search`), the verb comes first and the topic follows. Topics are Markdown.
    """
    if listing:
        output.lines(output.table(["", ""], [[output.Cell(name, "bold"), title(name)] for name in topics()]))
    elif not words:
        output.lines(_verb([]))
    else:
        output.lines(_explained(words))


def topics() -> list[str]:
    """Names of all topics, sorted."""
    return sorted(
        one.name.removesuffix(".md") for one in files("gittrack").joinpath("help").iterdir() if one.name.endswith(".md")
    )


def topic(name: str) -> str:
    """The Markdown text of a topic."""
    return files("gittrack").joinpath("help").joinpath(f"{name}.md").read_text(encoding="utf-8")


def title(name: str) -> str:
    """The first heading of a topic."""
    return topic(name).partition("\n")[0].lstrip("# ")


def _explained(words: tuple[str, ...]) -> Iterator[str]:
    from gittrack.cli.main import program

    name, known, verbs = words[0], topics(), program().list_commands(click.Context(program()))
    if name not in known and name not in verbs:
        hint = text.suggest(name, {*known, *verbs}) or "`gittrack help` lists the verbs, `gittrack help -l` the topics"
        raise NotFoundError(f"no help on `{name}`", hint=hint)
    if name in verbs:
        yield from _verb(list(words))
    if name in known and len(words) == 1:
        if name in verbs:
            yield ""
        yield from styled(topic(name))


def _verb(words: list[str]) -> list[str]:
    """The help text of the verb that ``words`` lead to, of the program itself for none."""
    from gittrack.cli.main import program

    command: click.Command = program()
    context = common.context_of(command, "gittrack")
    for word in words:
        found = command.get_command(context, word) if isinstance(command, click.Group) else None
        if found is None:
            raise NotFoundError(
                f"`{context.command_path}` has no verb `{word}`", hint=f"`{context.command_path} -h` lists them"
            )
        context = common.context_of(found, word, context)
        command = found
    return command.get_help(context).split("\n")


def styled(markdown: str) -> Iterator[str]:
    """Markdown for a terminal: headings in bold, paragraphs and lists as wide as it is, code indented, tables as is."""
    width = min(output.columns() or _WIDTH, _WIDTH)
    paragraph: list[str] = []
    fenced = False
    for line in [*markdown.rstrip("\n").split("\n"), ""]:
        plain = not fenced and line and not line.startswith(("```", "#", "|"))
        if paragraph and (not plain or _ITEM.match(line)):
            yield from _wrapped(" ".join(paragraph), width)
            paragraph = []
        if line.startswith("```"):
            fenced = not fenced
        elif fenced:
            yield "    " + line
        elif line.startswith("#"):
            yield output.style(line.lstrip("# "), "bold")
        elif plain:
            paragraph.append(line.strip())
        else:
            yield line


def _wrapped(paragraph: str, width: int) -> list[str]:
    found = _ITEM.match(paragraph)
    indent = " " * len(found[0]) if found else ""
    return textwrap.wrap(paragraph, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
