"""``gittrack config``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gittrack.cli import common, output
from gittrack.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from gittrack.config import Value


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from gittrack.config import SETTINGS

    return [CompletionItem(one.team_key, help=one.help) for one in SETTINGS if one.team_key.startswith(incomplete)]


@common.verb()
@click.argument("name", required=False, shell_complete=_complete)
@click.argument("value", required=False)
@click.option("--unset", is_flag=True, help="Take the setting out of this clone's git configuration.")
@common.json_option
def command(name: str | None, value: str | None, unset: bool, as_json: bool) -> None:
    """List the settings, show one, or change one.

    What is set here is for this clone. A setting comes from the environment (`GITTRACK_…`), from git's
    configuration (`gittrack.…`), from `[tool.gittrack]` in pyproject.toml, or is the default: the first that has it
    wins.
    """
    from gittrack import config

    if name is not None and (unset or value is not None):
        if unset and value is not None:
            raise UsageError("`--unset` takes no value", hint=f"`gittrack config --unset {name}`")
        known = config.store(name, value)
        where = "your own" if known.personal else "this clone's"
        output.message(
            f"{'removed' if unset else 'set'} `{known.git_key}` {'from' if unset else 'in'} {where} git configuration"
        )
        return
    if unset:
        raise UsageError("`--unset` needs the name of a setting", hint="`gittrack config` lists the settings")
    found = config.values()
    if name is not None:
        wanted = config.setting(name)
        found = [one for one in found if one.setting is wanted]
    if as_json:
        documents = [_document(one) for one in found]
        output.document(documents[0] if name is not None else documents)
    elif name is not None:
        output.lines([_shown(found[0].value)])
    else:
        rows = [[one.setting.team_key, _shown(one.value), one.where or "default", one.setting.help] for one in found]
        output.lines(output.table(["setting", "value", "from", "meaning"], rows))


def _shown(value: Any) -> str:
    return (
        ""
        if value is None
        else str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else ",".join(value)
        if isinstance(value, tuple)
        else str(value)
    )


def _document(one: Value) -> dict[str, Any]:
    return {
        "name": one.setting.team_key,
        "value": one.value,
        "default": one.setting.default,
        "origin": one.origin,
        "where": one.where,
        "variable": one.setting.variable,
        "git_key": one.setting.git_key,
        "help": one.setting.help,
    }
