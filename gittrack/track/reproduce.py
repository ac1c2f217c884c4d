"""Reproducing a run: its exact code in a work tree of its own, and a rerun whose metrics are compared.

Making the work tree executes nothing of the run's: no hook, no script.  A rerun executes the recorded command, and
happens only when it is asked for.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gittrack.errors import AlreadyExistsError, GitError, NotFoundError, ReproductionError
from gittrack.store import files, gateway, layout
from gittrack.track.environment import MAX_ARGUMENTS, MAX_TEXT
from gittrack.track.secrets import REDACTED

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.track.runs import Tracker
    from gittrack.types import Run, RunId

#: Tag of a rerun: the id of the run that it repeats.
REPRODUCES_TAG: Final = "gittrack.reproduces"
#: Variable of a rerun's program: the id of the run that was made for it.  Runs record it with their environment.
RERUN_VARIABLE: Final = "GITTRACK_RERUN"
#: Where `--artifacts` puts a run's files, below the work tree.
ARTIFACTS_FOLDER: Final = "artifacts"


class Check(NamedTuple):
    """One metric of a run and of its rerun.

    Attributes:
        key: The metric.
        recorded: Its last value in the run.
        rerun: Its last value in the rerun; None if the rerun does not have it.
        deviation: |rerun - recorded| as a share of the greater absolute value; NaN if the rerun does not have it.
        ok: True if the deviation is within the tolerance.
    """

    key: str
    recorded: float
    rerun: float | None
    deviation: float
    ok: bool


def make_worktree(repo: Repo, run: Run, target: Path) -> None:
    """Make ``target`` a linked work tree that holds the run's code exactly as it ran.

    HEAD is the code commit, detached; what was not committed when the run started is not committed there either.

    Args:
        repo: Where the run is.
        run: The run.
        target: A folder that does not exist yet, or is empty.

    Raises:
        AlreadyExistsError: Something is in ``target``.
        ReproductionError: The run carries no code.
        GitError: git cannot make the work tree.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AlreadyExistsError(f"`{target}` is not empty", hint="choose another folder with `--into`")
    tree, head = run.code.get("tree"), run.code.get("commit")
    source = run.commit or tree or head
    if source is None or not (tree or head):
        raise ReproductionError(
            f"run `{run.info.run_id}` carries no code",
            hint="it was recorded outside git, or with `gittrack.code` set to `none`",
        )
    base = gateway.rev(str(head or run.commit or _refuse_unborn(run)))
    main = gateway.Git(repo.paths.git_dir, repo.paths.work_tree)
    main.run("worktree", "add", "--detach", "--no-checkout", "--end-of-options", str(target), base)
    try:
        linked = gateway.discover(target)
        if linked is None:
            raise GitError(f"git made no work tree at `{target}`")
        git = gateway.Git(linked.git_dir, linked.work_tree)
        git.run("read-tree", "--end-of-options", gateway.rev(str(source)))
        git.run("rm", "-r", "-q", "--cached", "--ignore-unmatch", "--", f":(top,literal){layout.FOLDER}")
        git.run("checkout-index", "--all", "--force")
        git.run("reset", "-q", "--mixed", "HEAD")
    except GitError:
        main.run("worktree", "remove", "--force", "--end-of-options", str(target), check=False)
        raise


def _refuse_unborn(run: Run) -> str:
    raise ReproductionError(
        f"run `{run.info.run_id}` is not committed yet", hint="`gittrack fsck` commits finished runs; then try again"
    )


def recorded_command(run: Run, target: Path) -> tuple[list[str], Path]:
    """The command that made the run, and the folder below ``target`` to run it in.

    Raises:
        ReproductionError: The run does not say how it was started, or not in a way that can be repeated.
    """
    words = run.environment.get("command")
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise ReproductionError(
            f"run `{run.info.run_id}` does not record a command", hint="rerun it by hand in the work tree"
        )
    if any(REDACTED in word or len(word) >= MAX_TEXT for word in words) or len(words) >= MAX_ARGUMENTS:
        raise ReproductionError(
            f"the command of run `{run.info.run_id}` is not recorded in full: {shlex.join(words)[:200]}",
            hint="secrets and very long arguments are left out; rerun it by hand in the work tree",
        )
    folder = target / str(run.environment.get("directory") or ".")
    if not folder.resolve().is_relative_to(target.resolve()):
        raise ReproductionError(
            f"run `{run.info.run_id}` was started outside its repository", hint="rerun it by hand in the work tree"
        )
    return list(words), folder


def restore_artifacts(tracker: Tracker, run: Run, target: Path) -> int:
    """Copy the run's artifacts, verified, into ``artifacts`` below ``target``; how many there are.

    Raises:
        AlreadyExistsError: The code has a folder of that name itself.
        NotFoundError, CorruptError: Bytes that are not in this clone, or damaged.
    """
    folder = target / ARTIFACTS_FOLDER
    if folder.exists():
        raise AlreadyExistsError(
            f"the code has an `{ARTIFACTS_FOLDER}` of its own",
            hint=f"`gittrack artifacts get {run.info.run_id[:8]} --output DIR` copies them elsewhere",
        )
    files.make_dirs(folder, durable=False)
    tracker.download_artifacts(run.info.run_id, None, folder)
    return len(tracker.repo.artifacts(run.info.run_id))


def changed_packages(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, tuple[str | None, str | None]]:
    """Packages whose version differs, as (recorded, here); None where a package is missing."""
    a, b = recorded.get("packages"), here.get("packages")
    if not isinstance(a, Mapping) or not isinstance(b, Mapping):
        return {}
    return {name: (a.get(name), b.get(name)) for name in sorted({*a, *b}) if a.get(name) != b.get(name)}


def runs_of_rerun(tracker: Tracker, rerun_id: RunId) -> list[Run]:
    """Every run that the program of a rerun made, in the order they started: the one made for it, then its own."""
    first = tracker.get_run(rerun_id)
    since = f"attributes.start_time >= {first.info.start_time}"
    found, token = [first], None
    while True:
        page = tracker.search_runs(filter_string=since, order_by=["start_time ASC"], page_token=token)
        found += [
            run
            for run in page
            if run.environment.get("variables", {}).get(RERUN_VARIABLE) == rerun_id and run.info.run_id != rerun_id
        ]
        token = page.token
        if token is None:
            return found


def counterpart(run: Run, made: Sequence[Run]) -> Run:
    """The run in ``made`` that repeats ``run``: of the same name, then with the most like parameters; else the first.

    A program may make several runs, one per model for instance; only one of them is the rerun of ``run``.
    """

    def likeness(one: Run) -> tuple[bool, float]:
        params = {*run.data.params, *one.data.params}
        same = sum(run.data.params.get(key) == one.data.params.get(key) for key in params)
        return one.info.run_name == run.info.run_name, same / max(len(params), 1)

    return max(made, key=likeness)


def metrics_to_check(run: Run, keys: Sequence[str] = ()) -> list[str]:
    """``keys``, or all metrics of the run but system metrics if there are none.

    Raises:
        NotFoundError: The run does not have one of ``keys``.
        ReproductionError: The run has no metric to compare.
    """
    short = run.info.run_id[:8]
    for key in keys:
        if key not in run.data.metrics:
            raise NotFoundError(
                f"run `{short}` has no metric `{key}`", hint=f"`gittrack metrics {short}` lists its metrics"
            )
    wanted = list(keys) or sorted(key for key in run.data.metrics if not key.startswith("system/"))
    if not wanted:
        raise ReproductionError(
            f"run `{short}` has no metric to compare", hint=f"`gittrack reproduce {short}` brings its code back"
        )
    return wanted


def check_metrics(run: Run, rerun: Run, *, tolerance: float, keys: Sequence[str] = ()) -> list[Check]:
    """Compare the last values of the run's metrics with the rerun's.

    Args:
        run: The run that was recorded.
        rerun: The run that repeats it.
        tolerance: Greatest allowed deviation, as a share of the greater absolute value.
        keys: Only these metrics; all but system metrics if there are none.

    Raises:
        NotFoundError, ReproductionError: As :func:`metrics_to_check`.
    """
    wanted = metrics_to_check(run, keys)
    return [_check(key, run.data.metrics[key], rerun.data.metrics.get(key), tolerance) for key in wanted]


def _check(key: str, recorded: float, rerun: float | None, tolerance: float) -> Check:
    if rerun is None:
        return Check(key, recorded, None, math.nan, False)
    if recorded == rerun or (math.isnan(recorded) and math.isnan(rerun)):
        return Check(key, recorded, rerun, 0.0, True)
    deviation = abs(rerun - recorded) / max(abs(rerun), abs(recorded))
    if not math.isfinite(deviation):
        deviation = math.inf
    return Check(key, recorded, rerun, deviation, deviation <= tolerance)
