"""``gittrack log``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output, render

if TYPE_CHECKING:
    from gittrack.track.runs import Tracker
    from gittrack.types import Run


#: Options that take the next word as their value.
_VALUED = ("-n", "--max-count", "-e", "--experiment", "--branch", "--format", "--color")


class _Log(common.Verb):
    """Also takes git's ``-5`` for ``-n 5``."""

    extra_hint = "`gittrack log -e NAME` lists one experiment, `gittrack show RUN` a run"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Rewrite ``-5`` before click sees it, unless it is the value of an option."""
        pairs = zip(["", *args], args, strict=False)
        return super().parse_args(
            ctx,
            [
                f"-n{word[1:]}" if re.fullmatch(r"-\d+", word) and before not in _VALUED else word
                for before, word in pairs
            ],
        )


@click.command(cls=_Log)
@common.limit_option
@click.option("--oneline", is_flag=True, help="One line per run: id, name, experiment, metrics.")
@click.option("-a", "--all", "everything", is_flag=True, help="Also deleted runs.")
@click.option("--reverse", is_flag=True, help="Oldest first.")
@click.option("--branch", metavar="REV", help="Only runs of the commits of this branch, or of a range `main..topic`.")
@common.experiment_option
@common.format_option
@common.json_option
def command(
    limit: int | None,
    oneline: bool,
    everything: bool,
    reverse: bool,
    branch: str | None,
    experiments: tuple[str, ...],
    template: str | None,
    as_json: bool,
) -> None:
    """List the runs, newest first.

    Like `git log`: a block per run with who, when, which code, metrics and parameters. `-5` is short for `-n 5`.
    """
    from gittrack.types import ViewType

    lines = renderer(oneline, template)
    nothing = (
        "no runs"
        if experiments or branch or limit == 0
        else "no runs yet; `gittrack run -- python train.py` records one"
    )
    with common.tracker() as opened:
        names = common.experiment_names(opened)
        runs = common.pages(
            opened,
            experiments=experiments,
            view=ViewType.ALL if everything else ViewType.ACTIVE_ONLY,
            order_by=["attributes.start_time ASC"] if reverse else None,
            limit=limit if branch is None else None,
        )
        if branch is not None:
            runs = islice(_of_branch(opened, branch, runs), limit)
        show(runs, names, lines, as_json, cleaned=template is not None, nothing=nothing)


def _of_branch(opened: Tracker, revs: str, runs: Iterator[Run]) -> Iterator[Run]:
    """Those of ``runs`` that belong to a commit of the branch."""
    from gittrack.track import commits, links

    reachable = commits.reachable(opened.repo, revs)
    return (run for run in runs if links.how(opened.repo, run, reachable) is not None)


def renderer(oneline: bool, template: str | None) -> Callable[[Run, Mapping[str, str]], Iterator[str] | list[str]]:
    """How each run is turned into lines, for `--oneline`, `--format` or neither."""
    if template is not None:
        return render.filled(template)
    return (lambda run, names: [render.oneline(run, names)]) if oneline else render.block


def show(
    runs: Iterator[Run],
    names: Mapping[str, str],
    lines: Callable[[Run, Mapping[str, str]], Iterator[str] | list[str]],
    as_json: bool,
    cleaned: bool,
    nothing: str = "no runs",
) -> None:
    """Print runs as JSON or as lines; say ``nothing`` if there are none."""
    first = next(runs, None)
    if as_json:
        output.array(render.as_json(run, names) for run in _rejoined(first, runs))
    elif first is None:
        output.message(nothing)
    else:
        output.lines((line for run in _rejoined(first, runs) for line in lines(run, names)), cleaned=cleaned)


def _rejoined(first: Run | None, rest: Iterator[Run]) -> Iterator[Run]:
    if first is not None:
        yield first
    yield from rest
