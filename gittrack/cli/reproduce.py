"""``gittrack reproduce``."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output, text
from gittrack.errors import ReproductionError, UsageError

if TYPE_CHECKING:
    from gittrack.track.reproduce import Check
    from gittrack.types import Run


@common.verb()
@common.run_argument
@click.option(
    "--into", type=click.Path(path_type=Path), metavar="DIR", help="The new work tree; default: beside this one."
)
@click.option("--artifacts", is_flag=True, help="Also copy the run's artifacts into `artifacts/` there.")
@click.option("--run", "rerun", is_flag=True, help="Run the recorded command there, as a new run, and compare metrics.")
@click.option(
    "--tolerance",
    type=common.NUMBER,
    default=1e-6,
    show_default=True,
    metavar="REL",
    help="Greatest relative deviation of a metric that still counts as reproduced.",
)
@click.option("-m", "--metric", "keys", multiple=True, metavar="KEY", help="Compare only this metric; repeatable.")
@common.json_option
def command(
    run: str, into: Path | None, artifacts: bool, rerun: bool, tolerance: float, keys: tuple[str, ...], as_json: bool
) -> None:
    """Bring back the exact code of a run; rerun it on request.

    Makes a git work tree with the code as it ran, uncommitted changes and new files included. Nothing of the run is
    executed without `--run`: then its recorded command is, so look at it first (`gittrack show RUN`). Exit status 3
    means that a metric was outside the tolerance. The path of the work tree is printed; `git worktree remove` takes
    it away.
    """
    from gittrack.track import reproduce

    if keys and not rerun:
        raise UsageError("`--metric` is for comparing after a rerun", hint="add `--run`")
    with common.tracker() as opened:
        found = opened.get_run(opened.resolve(run))
        if keys:
            reproduce.metrics_to_check(found, keys)  # before anything is made or run
        short = found.info.run_id[: common.SHORT]
        root = opened.repo.paths.work_tree or opened.repo.paths.main_root
        target = (into or root.with_name(f"{root.name}-{short}")).absolute()
        reproduce.make_worktree(opened.repo, found, target)
        output.message(f"made a work tree with the code of run {short} {found.info.run_name}")
        if artifacts:
            common.fetch(opened, opened.artifacts(found.info.run_id))
            with output.Progress("copying artifacts"):
                amount = reproduce.restore_artifacts(opened, found, target)
            output.message(f"copied {text.count(amount, 'artifact')} into {target / reproduce.ARTIFACTS_FOLDER}")
    if not rerun:
        if as_json:
            output.document({"run": found.info.run_id, "worktree": str(target)})
        else:
            output.lines([str(target)])
        return
    again = _rerun(found, target)
    checks = reproduce.check_metrics(found, again, tolerance=tolerance, keys=keys)
    _report(found, again, checks, target if as_json else None)
    bad = [one.key for one in checks if not one.ok]
    if bad:
        raise ReproductionError(
            f"{len(bad)} of {text.count(len(checks), 'metric')} not within {tolerance:g}: {text.quoted(bad[:5])}",
            hint=f"`gittrack diff {short} {again.info.run_id[: common.SHORT]}` shows what differs",
        )


def _rerun(run: Run, target: Path) -> Run:
    """Run the recorded command in the work tree; of the runs that it makes, the one that repeats ``run``."""
    from gittrack import config, session
    from gittrack.cli.run import child_environment
    from gittrack.track import reproduce
    from gittrack.track.command import environment_of, execute
    from gittrack.types import RunId

    words, folder = reproduce.recorded_command(run, target)
    words = _with_python(words)
    output.message(f"running `{shlex.join(words)}` in {folder}")
    opened = session.open_tracker(str(target))
    again = opened.create_run(
        run.info.experiment_id,
        name=f"{run.info.run_name}-rerun",
        tags={reproduce.REPRODUCES_TAG: run.info.run_id},
        user_id=session.user(),
        environment={
            **environment_of(words, config.environment()),
            "directory": folder.relative_to(target).as_posix(),
        },
    )
    opened.end_at_exit(again)
    opened.flush()
    say = output.passing_on(sys.stderr)  # standard output is for the comparison
    try:
        outcome = execute(
            again,
            words,
            environment={
                **child_environment(config.environment(), opened, again.run_id),
                reproduce.RERUN_VARIABLE: again.run_id,
            },
            folder=folder,
            pass_on={"stdout": say, "stderr": say},
        )
    except OSError as error:
        raise ReproductionError(f"cannot run `{words[0]}`: {error.strerror}", hint="rerun it by hand") from error
    opened.flush()
    if outcome.exit_status:
        raise ReproductionError(
            f"the rerun failed with exit status {outcome.exit_status}",
            hint=f"`gittrack artifacts cat {again.run_id[: common.SHORT]} stderr.txt` has what it said",
        )
    made = reproduce.runs_of_rerun(opened, RunId(again.run_id))
    found = reproduce.counterpart(run, made)
    if len(made) > 1:
        short, name = found.info.run_id[: common.SHORT], found.info.run_name
        output.message(f"the program made {len(made)} runs; {short} {name} is the one to compare")
    if found.info.run_id != again.run_id:
        opened.writer(RunId(found.info.run_id)).set_tags({reproduce.REPRODUCES_TAG: run.info.run_id})
        opened.writer(again.run_id).delete_tag(reproduce.REPRODUCES_TAG)
        opened.flush()
    return found


def _with_python(words: list[str]) -> list[str]:
    """The command with this Python in the place of one that is not on this machine."""
    if shutil.which(words[0]) is None and Path(words[0]).name.startswith("python"):
        output.message(f"`{words[0]}` is not here; using {sys.executable}")
        return [sys.executable, *words[1:]]
    return words


def _report(run: Run, again: Run, checks: Sequence[Check], json_of: Path | None) -> None:
    from gittrack.track.reproduce import changed_packages

    packages = changed_packages(run.environment, again.environment)
    if json_of is not None:
        document = {
            "run": run.info.run_id,
            "worktree": str(json_of),
            "rerun": again.info.run_id,
            "reproduced": all(one.ok for one in checks),
            "metrics": {one.key: one._asdict() for one in checks},
            "packages": {name: {"recorded": pair[0], "here": pair[1]} for name, pair in packages.items()},
        }
        output.document(document)
        return
    if packages:
        shown = ", ".join(f"{name} {old or '–'} → {new or '–'}" for name, (old, new) in list(packages.items())[:5])
        output.message(f"{text.count(len(packages), 'package differs', 'packages differ')}: {shown}")
    rows = [
        [
            one.key,
            text.number(one.recorded),
            "–" if one.rerun is None else text.number(one.rerun),
            "" if one.rerun is None else f"{one.deviation:.2g}",
            output.Cell("reproduced", "green") if one.ok else output.Cell("differs", "red"),
        ]
        for one in checks
    ]
    output.lines(output.table(["metric", "recorded", "rerun", "deviation", ""], rows, right=[1, 2, 3]))
