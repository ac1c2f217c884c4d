"""``gittrack fsck``."""

from __future__ import annotations

from dataclasses import asdict

import click

from gittrack.cli import common, output, text
from gittrack.errors import CorruptError


@common.verb()
@click.option("--full", is_flag=True, help="Also read and hash every artifact, and compare the index with a rebuild.")
@common.json_option
def command(full: bool, as_json: bool) -> None:
    """Check that everything recorded is there and undamaged.

    Exit status 4 says that something is not. First it finishes what a crash left half done: finished runs are
    committed, runs of dead processes are closed.
    """
    from gittrack.registry import check as models
    from gittrack.registry.registry import Registry
    from gittrack.store import check

    with common.tracker(fresh=False) as opened, output.Progress("checking") as progress:
        problems = check.fsck(opened.repo, full=full, progress=progress.update)
        problems += models.fsck(Registry(opened), full=full, progress=progress.update)
        runs = opened.repo.index.count_runs()
    if as_json:
        output.array(asdict(problem) for problem in problems)
    else:
        output.lines(
            f"{problem.kind} {problem.subject}: {problem.message}" + (f" ({problem.hint})" if problem.hint else "")
            for problem in problems
        )
    if problems:
        raise CorruptError(
            f"{text.count(len(problems), 'problem')} found in {text.count(runs, 'run')}",
            hint="each line above names its next step; `gittrack help storage` says what each part is",
        )
    output.message(f"{text.count(runs, 'run')} checked, no problems")
