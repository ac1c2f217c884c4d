"""``gittrack run``."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output, text

if TYPE_CHECKING:
    from gittrack.config import Config
    from gittrack.track.runs import Tracker

#: What shells return for a program that is not there, or cannot be started.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


@common.verb(context_settings={"help_option_names": ["-h", "--help"], "allow_interspersed_args": False})
@click.argument("words", metavar="[--] CMD…", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--name", help="Name of the run; made up if not given.")
@click.option(
    "-e", "--experiment", metavar="NAME", shell_complete=common.complete_experiments, help="Experiment; made if needed."
)
@click.option("-t", "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag; may be given several times.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing about the run.")
def command(
    words: tuple[str, ...], name: str | None, experiment: str | None, tags: tuple[str, ...], quiet: bool
) -> int:
    """Run a program, in any language, and record it as a run.

    Its output is kept as the artifacts stdout.txt and stderr.txt (the first and last 5 MiB of each), its exit status as
    a tag; the status of `gittrack run` is the program's own. A program that logs with gittrack itself logs into this
    run. Standard output and standard error are pipes for the program, even on a terminal.
    """
    from gittrack import config, session
    from gittrack.cli.tag import pairs
    from gittrack.track.command import environment_of, execute

    if shutil.which(words[0]) is None:
        return _refuse(words[0])
    settings, labels = config.current(), pairs(tags)
    opened = session.open_tracker()
    run = opened.create_run(
        _experiment(opened, experiment, settings),
        name=name,
        tags=labels,
        user_id=session.user(settings),
        parent_run_id=settings.run_id,  # set if this is a program that `gittrack run` runs
        environment=environment_of(words, config.environment()),
    )
    opened.end_at_exit(run)
    opened.flush()  # the code is captured before the program can change it
    short = run.run_id[: common.SHORT]
    if not quiet:
        output.message(f"run {short} {run.to_run().info.run_name} started")
    started = time.monotonic()
    try:
        outcome = execute(
            run,
            words,
            environment=child_environment(config.environment(), opened, run.run_id),
            pass_on={"stdout": output.passing_on(sys.stdout), "stderr": output.passing_on(sys.stderr)},
        )
    except OSError as error:
        opened.close()
        output.error(f"cannot run `{words[0]}`: {error.strerror}", f"run {short} is recorded as failed")
        return _NOT_EXECUTABLE
    opened.close()
    if not quiet:
        took = text.duration((time.monotonic() - started) * 1000)
        output.message(f"run {short} {outcome.status.lower()} after {took}, exit status {outcome.exit_status}")
    return outcome.exit_status


def _refuse(word: str) -> int:
    """Say why ``word`` cannot be run; the exit status, as shells have it."""
    named = os.path.dirname(word) and Path(word).exists()  # noqa: PTH120 - `./x` and `x` are the same Path
    hint = "`gittrack run -h` shows how it is used"
    if Path(word).is_file():
        hint = f"`gittrack run -- {'python' if word.endswith('.py') else 'sh'} {word}` gives the file to an interpreter"
    output.error(f"cannot run `{word}`: {'it is not executable' if named else 'no such program'}", hint)
    return _NOT_EXECUTABLE if named else _NOT_FOUND


def _experiment(opened: Tracker, name: str | None, settings: Config) -> str:
    """Id of the experiment of this name, else of the one in the settings; made if there is none."""
    name = settings.experiment_name if name is None else name
    if name is None:
        return settings.experiment_id or "0"
    found = opened.get_experiment_by_name(name)
    return opened.create_experiment(name) if found is None else found.experiment_id


def child_environment(inherited: Mapping[str, str], opened: Tracker, run_id: str) -> dict[str, str]:
    """The program's environment: ours, and where and into which run it logs."""
    paths = opened.repo.paths
    # The work tree that the program runs in, linked or not: further runs of the program carry the code that is there.
    uri = (paths.work_tree or paths.main_root).as_uri()
    own = {"GITTRACK_RUN_ID": run_id, "GITTRACK_TRACKING_URI": uri}
    # MLflow itself cannot read this store, and fails on a run id that its own store does not have.
    if inherited.get("MLFLOW_TRACKING_URI") in (uri, paths.main_root.as_uri()):
        own["MLFLOW_RUN_ID"] = run_id
    # What a Python program prints should be seen when it is printed, also through a pipe.
    return {"PYTHONUNBUFFERED": "1", **inherited, **own}
