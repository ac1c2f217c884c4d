"""``gittrack tag``."""

from __future__ import annotations

from collections.abc import Iterable

import click

from gittrack.cli import common, output
from gittrack.errors import UsageError


@common.verb()
@common.run_argument
@click.argument("tags", metavar="[KEY=VALUE]…", nargs=-1)
@click.option("-d", "--delete", "removed", multiple=True, metavar="KEY", help="Remove this tag.")
@common.json_option
def command(run: str, tags: tuple[str, ...], removed: tuple[str, ...], as_json: bool) -> None:
    """List the tags of a run, or set and remove some.

    Tags are text and may be changed at any time; the run's commits keep every earlier state.
    """
    new = pairs(tags)
    with common.tracker(write=bool(new or removed)) as opened:
        run_id = opened.resolve(run)
        if new or removed:
            writer = opened.writer(run_id)
            if new:
                writer.set_tags(new)
            for key in removed:
                writer.delete_tag(key)
            return
        found = dict(sorted(opened.get_run(run_id).data.tags.items()))
        if as_json:
            output.document(found)
        else:
            output.lines(output.table(["", ""], found.items(), cut=False))


def pairs(words: Iterable[str]) -> dict[str, str]:
    """Tags from words like KEY=VALUE.  Raises UsageError for any other word."""
    found = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise UsageError(f"`{word}` is no tag", hint="write it as KEY=VALUE")
        found[key] = value
    return found
