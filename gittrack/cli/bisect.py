"""``gittrack bisect``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from gittrack.cli import common, output, text
from gittrack.errors import InvalidValueError, NotFoundError, ReproductionError, UsageError

if TYPE_CHECKING:
    from gittrack.track.bisect import Search
    from gittrack.track.runs import Tracker
    from gittrack.types import ObjectId


@common.verb(context_settings={"help_option_names": ["-h", "--help"], "allow_interspersed_args": False})
@click.argument("words", metavar="[--] [CMD]…", nargs=-1, type=click.UNPROCESSED)
@click.option("-m", "--metric", metavar="KEY", required=True, help="The metric that got worse.")
@click.option("--drop", required=True, metavar="AMOUNT", help="How much worse is bad: 1% of the good value, or 0.01.")
@click.option(
    "--direction", type=click.Choice(["max", "min"]), help="Is more better, or less?  By its name if not said."
)
@click.option("--good", metavar="REV", help="A good commit; default: the nearest that a run shows to be.")
@click.option("--bad", metavar="REV", default="HEAD", show_default=True, help="A bad commit.")
@click.option("--where", default="", metavar="FILTER", help="Only runs that match count; see `gittrack help search`.")
@common.one_experiment_option
@click.option("--rerun", is_flag=True, help="Make missing runs with the command recorded in the bad commit's run.")
@click.option(
    "--repeat", type=click.IntRange(1, 100), default=3, show_default=True, metavar="N",
    help="Run a commit whose value is near the limit up to N times; the middle value counts.",
)  # fmt: skip
@common.json_option
def command(
    words: tuple[str, ...],
    metric: str,
    drop: str,
    direction: str | None,
    good: str | None,
    bad: str,
    where: str,
    experiment: str | None,
    rerun: bool,
    repeat: int,
    as_json: bool,
) -> int:
    """Find the commit that made a metric worse.

    Recorded runs are used first. Missing runs are made with the command CMD, or with the recorded one after a question
    (`--rerun` answers it): each in a work tree of its own of that very commit, recorded like any other run, so that
    nothing is ever run twice. What git ignores, such as a data folder, is not there: name it by an absolute path.
    Follows first parents: a merge counts as one commit, and if it is the bad one, `--bad MERGE^2` looks into it. Exit
    status 1 means that commits without a run are left between good and bad.
    """
    from gittrack.track import bisect, commits, gate, links, worktrees

    if words and rerun:
        raise UsageError("a command and `--rerun` exclude each other", hint="leave one of them out")
    amount, rule = gate.amount(drop), gate.Rule(metric, gate.direction(direction, metric))
    with common.tracker(write=True) as opened:
        if left := worktrees.tidy(opened.repo):
            output.message(f"took away {text.count(left, 'work tree')} of a bisection that was interrupted")
        ends = [commits.resolve(opened.repo, bad), None if good is None else commits.resolve(opened.repo, good)]
        line = commits.history(opened.repo, str(ends[0]))[::-1]
        if ends[1] is not None:
            if ends[1] not in dict(line[:-1]):
                raise InvalidValueError(
                    f"`{good}` is not before `{bad}` along first parents",
                    hint="`git log --first-parent` lists the commits that can be named",
                )
            line = line[[commit for commit, _ in line].index(ends[1]) :]
        only = links.matching(opened, where, experiment)
        runs = (run for run in links.all_runs(opened) if only is None or run.info.run_id in only)
        points = bisect.recorded(opened.repo, line, runs, metric)
        make = None
        if words or rerun:
            how = (list(words), _here(opened)) if words else _recorded(opened, line[-1][0])
            make = _Trial(opened, *how, metric, where, experiment)
        search = bisect.Search(list(points.values()), rule, amount, repeat=repeat, trial=make)
        try:
            search.begin(ends[1])
        except NotFoundError as error:
            logged = {key for one in links.runs_of(opened, line[-1][0]) for key in one.run.data.metrics}
            if metric in logged or (close := text.suggest(metric, logged)) is None:
                raise
            raise NotFoundError(error.message, hint=close) from error
        output.message(
            f"{text.count(len(line) - search.good, 'commit')} from good to bad; `{metric}` is bad"
            f" {'above' if rule.direction == gate.MIN else 'below'} {search.limit:.6g}"
        )
        found = search.run()
        if not found and make is None and not as_json and _may_ask():
            offered = _offered(opened, search, line[-1][0])
            if offered is not None:
                search.trial = _Trial(opened, *offered, metric, where, experiment)
                found = search.run()
        if as_json:
            output.document(_document(search, found))
        else:
            output.lines(_lines(opened, search, metric, found))
    if not found and (left := len(search.unknown())):
        commits_left = text.count(left, "commit")
        output.message(f"{commits_left} between them without a run; a command after `--`, or `--rerun`, makes one")
    return 0 if found else 1


def _may_ask() -> bool:
    """True if somebody could answer."""
    return output.is_terminal(sys.stdin) and output.is_terminal(sys.stderr)


def _offered(opened: Tracker, search: Search, bad: ObjectId) -> tuple[list[str], str] | None:
    """The recorded command and its folder, if the person wants it to be run for what is missing."""
    try:
        words, folder = _recorded(opened, bad)
    except ReproductionError:  # there is none that could be offered
        return None
    amount = text.count(len(search.unknown()), "commit")
    output.message(f"{amount} without a run are left between good and bad")
    return (words, folder) if output.confirm(f"run `{shlex.join(words)}` on some of them?") else None


def _here(opened: Tracker) -> str:
    """The current folder, relative to the top of the work tree."""
    root = opened.repo.paths.work_tree
    here = Path.cwd().resolve()
    return here.relative_to(root).as_posix() if root is not None and here.is_relative_to(root) else "."


def _recorded(opened: Tracker, commit: ObjectId) -> tuple[list[str], str]:
    """Command and folder of the newest run of the bad commit.  Raises ReproductionError if there is none."""
    from gittrack.track import links, reproduce

    runs = [one.run for one in links.runs_of(opened, commit) if one.how in links.TRIED]
    if not runs:
        raise ReproductionError(
            f"no run of `{commit[: common.SHORT]}` tells how to make one", hint="give the command after `--`"
        )
    root = opened.repo.paths.work_tree or opened.repo.paths.main_root
    words, folder = reproduce.recorded_command(runs[0], root)
    return words, folder.relative_to(root).as_posix()


class _Trial:
    """Makes a run of a commit in a work tree of its own, which is taken away afterwards."""

    def __init__(
        self, opened: Tracker, words: Sequence[str], folder: str, metric: str, where: str, experiment: str | None
    ) -> None:
        self._opened = opened
        self._words = list(words)
        self._folder = folder  #: relative to the top of the work tree
        self._metric = metric
        self._where = where
        self._experiment = experiment

    def __call__(self, commit: ObjectId) -> float | None:
        """The metric of a new run; None if the program failed, or did not log it."""
        from gittrack.track import commits, worktrees

        about = commits.subject(self._opened.repo, commit)
        output.message(f"running `{shlex.join(self._words)}` on {about.short} {about.subject}")
        with worktrees.Temporary(self._opened.repo, commit) as target:
            value = self._run(target, commit) if (target / self._folder).is_dir() else None
        output.message(f"{about.short}: {'no value' if value is None else f'{self._metric} = {value:.6g}'}")
        return value

    def _run(self, target: Path, commit: ObjectId) -> float | None:
        from gittrack import config, session
        from gittrack.cli.run import child_environment
        from gittrack.track import links, reproduce
        from gittrack.track.command import environment_of, execute
        from gittrack.types import RunId

        opened = session.open_tracker(str(target))
        experiment = "0" if self._experiment is None else common.experiment_id(opened, self._experiment)
        run = opened.create_run(
            experiment,
            name=f"bisect-{commit[: common.SHORT]}",
            user_id=session.user(),
            environment={**environment_of(self._words, config.environment()), "directory": self._folder},
        )
        opened.end_at_exit(run)
        opened.flush()
        say = output.passing_on(sys.stderr)  # standard output is for the result
        environment = {
            **child_environment(config.environment(), opened, run.run_id),
            reproduce.RERUN_VARIABLE: run.run_id,
        }
        try:
            outcome = execute(
                run,
                self._words,
                environment=environment,
                folder=target / self._folder,
                pass_on={"stdout": say, "stderr": say},
            )
        except OSError as error:
            raise ReproductionError(
                f"cannot run `{self._words[0]}`: {error.strerror}", hint="it is looked for as in a shell"
            ) from error
        finally:
            opened.close()
        if outcome.exit_status:
            return None
        made = {one.info.run_id: one for one in reproduce.runs_of_rerun(self._opened, RunId(run.run_id))}
        only = links.matching(self._opened, self._where, self._experiment)
        made = {run_id: one for run_id, one in made.items() if only is None or run_id in only}
        values = [one.data.metrics[self._metric] for one in made.values() if self._metric in one.data.metrics]
        return median(values) if values else None


def _document(search: Search, found: bool) -> dict[str, Any]:
    return {
        "first_bad": search.line[search.bad].commit if found else None,
        "last_good": search.line[search.good].commit,
        "bad": search.line[search.bad].commit,
        "limit": search.limit,
        "commits": [
            {
                "commit": point.commit,
                "verdict": search.verdict(place),
                "values": point.values,
                "recorded": point.recorded,
            }
            for place, point in enumerate(search.line)
        ],
    }


def _lines(opened: Tracker, search: Search, metric: str, found: bool) -> Iterator[str]:
    from gittrack.track import bisect, commits

    styles = {bisect.GOOD: "green", bisect.BAD: "red", bisect.SKIPPED: "yellow"}
    rows = []
    for place in range(search.good, search.bad + 1):
        point, about = search.line[place], commits.subject(opened.repo, search.line[place].commit)
        verdict = search.verdict(place)
        value = "" if point.value is None else text.number(point.value)
        runs = "" if len(point.values) < 2 else f"middle of {len(point.values)}"
        rows.append([about.short, output.Cell(verdict, styles.get(verdict, "dim")), value, runs, about.subject])
    yield from output.table(["commit", "", metric, "", "subject"], rows, right=[2])
    if found:
        point = search.line[search.bad]
        about = commits.subject(opened.repo, point.commit)
        yield ""
        yield output.style(f"first bad commit: {point.commit}", "bold")
        yield f"    {about.author}, {about.date}: {about.subject}"
        if commits.is_merge(opened.repo, point.commit):
            yield f"    a merge; `--bad {about.short}^2` with the same options looks at the commits that it brought"
