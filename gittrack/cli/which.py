"""``gittrack which``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from gittrack.cli import common, output, render

if TYPE_CHECKING:
    from gittrack.track.links import Link

_WORDS: Final = {
    "exact": "",
    "beside": "with new files beside",
    "changed": "with uncommitted changes",
    "earlier": "an earlier version",
}


@common.verb()
@click.argument("commit", default="HEAD")
@common.format_option
@common.json_option
def command(commit: str, template: str | None, as_json: bool) -> int:
    """List the runs of a commit.

    COMMIT is a branch, a tag or an id; HEAD if it is left out. First the runs that ran exactly its files (also before
    it was committed, or on another commit with the same files), then those with new files beside that git does not
    track, those with uncommitted changes, and those of commits that it replaced by amending, rebasing or squashing, as
    far as the hooks saw it (`gittrack help hooks`). Exit status 1 means that there is none.
    """
    from gittrack.track import commits, links

    line = render.filled(template) if template is not None else None
    with common.tracker() as opened:
        oid = commits.resolve(opened.repo, commit)
        found = links.runs_of(opened, oid)
        names = common.experiment_names(opened)
        if as_json:
            output.document([{"how": one.how, **render.as_json(one.run, names)} for one in found])
        elif line is not None:
            output.lines((row for one in found for row in line(one.run, names)), cleaned=True)
        else:
            output.lines(map(_line, found))
    if not found and not as_json:
        output.message(f"no run of {oid[: common.SHORT]}")
    return 0 if found else 1


def _line(one: Link) -> str:
    about = f" ({_WORDS[one.how]})" if _WORDS[one.how] else ""
    state = "" if one.run.info.status == "FINISHED" else f" {one.run.info.status}"
    metrics = render.pairs(render.metrics(one.run))
    return " ".join(
        filter(
            None,
            [
                output.style(one.run.info.run_id[: common.SHORT], "yellow"),
                one.run.info.run_name + state + output.style(about, "cyan"),
                metrics,
            ],
        )
    )
