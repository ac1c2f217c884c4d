"""``gittrack models tag``."""

from __future__ import annotations

import click

from gittrack.cli import common, output
from gittrack.cli.models import base
from gittrack.cli.tag import pairs


@common.verb()
@base.version_argument
@click.argument("tags", metavar="[KEY=VALUE]…", nargs=-1)
@click.option("-d", "--delete", "removed", multiple=True, metavar="KEY", help="Remove this tag.")
@common.json_option
def verb(version: str, tags: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    """List the tags of a model or a version, or set and remove some.

    VERSION is NAME for the model, else NAME@v3. These are MLflow's tags, text that may be changed at any time; the
    tags of git that stand for versions and events are never changed.
    """
    new = pairs(tags)
    with base.registry(write=bool(new or removed)) as opened:
        name, number = base.version_of(opened, version)
        if new or removed:
            if number is None:
                opened.tag_model(name, new, removed)
            else:
                opened.tag_version(name, number, new, removed)
            return
        found = (opened.get_model(name) if number is None else opened.get_version(name, number)).tags
        if as_json:
            output.document(dict(sorted(found.items())))
        elif not found:
            output.message(f"`{name}`{'' if number is None else f' v{number}'} has no tags")
        else:
            output.lines(output.table(["", ""], sorted(found.items()), cut=False))
