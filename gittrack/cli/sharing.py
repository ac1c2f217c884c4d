"""What the verbs that share have in common: opening remotes, options that select, telling what was done."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gittrack.cli import common, output, text
from gittrack.errors import GittrackError, RemoteDataError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from gittrack.registry.registry import Registry
    from gittrack.sync.publish import Published
    from gittrack.sync.pull import PullReport
    from gittrack.sync.push import PushReport
    from gittrack.sync.remotes import Remote
    from gittrack.sync.select import Selection
    from gittrack.types import Artifact

F = TypeVar("F", bound=Callable[..., Any])

#: Names of a kind that are listed before it is only said how many there are.
_LISTED = 5


def _complete_remotes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from pathlib import Path

    from click.shell_completion import CompletionItem

    from gittrack.store import gateway

    try:
        paths = gateway.discover(Path.cwd())
        names = [] if paths is None else list(gateway.remotes(paths))
    except GittrackError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def remote_argument(function: F) -> F:
    """``REMOTE``, optional."""
    return click.argument("remote", required=False, shell_complete=_complete_remotes)(function)


def dry_run_option(function: F) -> F:
    """``-n``: only say it."""
    return click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")(function)


def selecting(function: F) -> F:
    """``--experiment --run --model --author --since``: less than everything."""
    told = "Only runs that began then or later: `2026-11-03`, `2w`, `3d`."
    return picking(click.option("--since", metavar="DATE", help=told)(function))


def picking(function: F) -> F:
    """``--experiment --run --model --author``: the same without a date."""
    for option in (
        click.option("--author", metavar="NAME", default="", help="Only runs of this person (part of the name)."),
        click.option(
            "-m", "--model", "models", multiple=True, metavar="NAME", help="Only this registered model; repeatable."
        ),
        click.option(
            "-r",
            "--run",
            "runs",
            multiple=True,
            metavar="RUN",
            shell_complete=common.complete_runs,
            help="Only this run; repeatable.",
        ),
    ):
        function = option(function)
    return common.experiment_option(function)


def chosen(registry: Registry, options: dict[str, Any], *, known: bool) -> Selection:
    """What the options of ``selecting`` mean.

    Args:
        registry: What there is here.
        options: Their values.
        known: What is named must exist here (push); otherwise it may be the remote's only (pull).

    Raises:
        NotFoundError: No such experiment, run or model.
        InvalidValueError: A date that cannot be read.
    """
    from gittrack.registry import names
    from gittrack.store import layout
    from gittrack.sync.select import Selection
    from gittrack.types import check_run_id

    tracker = registry.tracker
    experiments, runs, models = set(), set(), set()
    for name in options["experiments"]:
        try:
            experiments.add(common.experiment_id(tracker, name))
        except GittrackError:
            if known:
                raise
            experiments.add(name if name.isdecimal() else layout.experiment_id_of(name))
    for run in options["runs"]:
        runs.add(tracker.resolve(run) if known else check_run_id(run))
    for name in options["models"]:
        try:
            models.add(registry.get_model(name).key)
        except GittrackError:
            if known:
                raise
            models.add(names.key_of(names.check_model_name(name)))
    since = None if options["since"] is None else moment(options["since"])
    return Selection(frozenset(experiments), frozenset(runs), frozenset(models), options["author"], since)


def files_of(registry: Registry, select: Selection) -> Iterator[Artifact]:
    """The files of the runs, and of the versions, that are meant."""
    from gittrack.types import Artifact

    tracker = registry.tracker
    registry.catalog.refresh()
    tracker.repo.refresh()
    if select.by_run or not select.models:
        for run in common.every(lambda token: tracker.search_runs(list(select.experiments) or None, page_token=token)):
            if select.run(run.info, run.info.user_id):
                yield from tracker.artifacts(run.info.run_id)
    for key in select.models:
        for version in registry.catalog.versions(key=key):
            yield from (Artifact(path, *found) for path, found in registry.manifest(version).files.items())


def moment(said: str) -> int:
    """Milliseconds since the epoch of a date, or of an age such as ``3d``.  Raises InvalidValueError."""
    import re
    import time
    from datetime import datetime

    from gittrack.errors import InvalidValueError

    age = re.fullmatch(r"([0-9]{1,5})\s*(h|d|w|m|y)\w*(?:\s+ago)?", said.strip().lower())
    if age is not None:
        hours = int(age[1]) * {"h": 1, "d": 24, "w": 168, "m": 730, "y": 8766}[age[2]]
        return int(time.time() * 1000) - hours * 3_600_000
    try:
        return int(datetime.fromisoformat(said.strip()).timestamp() * 1000)
    except ValueError:
        raise InvalidValueError(
            f"`{said:.40}` is no date", hint="write `2026-11-03`, `2026-11-03T14:30` or `3d`"
        ) from None


@contextlib.contextmanager
def registry() -> Iterator[Registry]:
    """Runs and models of the clone that the current folder belongs to; its store is made if there is none.

    Raises:
        NotARepositoryError: There is neither a clone nor a store.
    """
    from gittrack import config, session
    from gittrack.registry.registry import Registry
    from gittrack.store.repo import Repo

    repo = Repo.find(session.parse_uri(config.current().tracking_uri).resolve())
    if not repo.read_only:
        repo.create()
    with common.tracker(write=True, fresh=False) as opened:
        yield Registry(opened)


def open_remote(registry: Registry, name: str | None) -> Remote:
    """The remote that is meant.  Raises NotFoundError, UsageError."""
    from gittrack import config
    from gittrack.sync import remotes

    paths = registry.repo.paths
    settings = config.current(paths.work_tree or paths.main_root)
    return remotes.choose(registry.repo, name, settings.ref_prefix)


def interactive() -> bool:
    """True if somebody could answer a question on the terminal."""
    return output.is_terminal(sys.stdin) and output.is_terminal(sys.stderr)


# -- telling -----------------------------------------------------------------------------------------------------------


def tell_pull(report: PullReport) -> None:
    """Say what a pull or a fetch has done."""
    if report.dry_run:
        _say(f"would fetch {_amounts(report)} from `{report.remote}`" if report.wanted else _nothing(report.remote))
        return
    done = report.published
    parts = brought(done)
    output.message(f"from `{report.remote}`: {', '.join(parts)}" if parts else _nothing(report.remote))
    tell_published(done)
    refuse(report.refused, report.remote)


def tell_fetch(report: PullReport) -> None:
    """Say what a fetch has brought."""
    if report.dry_run:
        tell_pull(report)
        return
    _say(f"fetched {_amounts(report)} from `{report.remote}`; `gittrack pull` takes it over" if report.wanted
         else _nothing(report.remote))  # fmt: skip
    refuse(report.refused, report.remote)


def tell_push(report: PushReport) -> None:
    """Say what a push has done."""
    from gittrack.sync.idle import SAID

    for done in report.pulled:
        tell_published(done)
    parts = []
    if report.runs:
        parts.append(text.count(report.runs, "run"))
    if report.revised:
        parts.append(text.count(report.revised, "revised run"))
    if report.tags:
        parts.append(text.count(len(report.tags), "registry tag"))
    if report.documents:
        parts.append("descriptions of models")
    if report.files:
        parts.append(f"{text.count(report.files, 'file')} of runs, {text.size(report.size)}")
    if report.code:
        parts.append(f"{text.count(report.code, 'commit')} of code that it did not have")
    if report.folded:
        parts.append(f"{text.count(len(report.folded), 'folded ledger')} removed")
    if report.ledgers and not parts:
        parts.append(text.count(len(report.ledgers), "ledger"))
    verb = "would push" if report.dry_run else "pushed"
    output.message(f"{verb} to `{report.remote}`: {', '.join(parts)}" if parts else SAID["push"].format(report.remote))
    for tag in report.tags[:_LISTED]:
        output.message(f"    {tag}")
    if not report.atomic:
        output.warning(
            f"`{report.remote}` does not move several refs at once or none: it got one kind after the other, tags last"
        )
    if report.absent:
        output.warning(f"{text.count(report.absent, 'file')} of these runs not sent: neither in this clone nor there")
    for ref, why in report.skipped.items():
        output.warning(f"`{ref}` was not pushed: {why}")
    refuse(report.refused, report.remote)


def tell_published(done: Published) -> None:
    """Say loudly what else has changed here than that something came."""
    for one in done.renamed:
        output.warning(f"{_called(one.model, one.old)} was taken: yours is {_called(one.model, one.new)} now")
    if done.writer is not None:
        output.warning(
            f"another clone has this one's writer id (a copied `.gittrack`?); this one is `{done.writer}` now"
        )
    for run_id in done.dropped:
        output.warning(f"run `{run_id[: common.SHORT]}` was purged by somebody and is gone here too")
    for conflict in done.conflicts:
        output.warning(f"conflict: {conflict}")


def refuse(refused: dict[str, str], remote: str) -> None:
    """Raise RemoteDataError if a remote sent what does not count, after naming all of it."""
    if not refused:
        return
    for ref, why in refused.items():
        output.warning(f"`{ref}` from `{remote}` does not count: {why}")
    raise RemoteDataError(
        f"{text.count(len(refused), 'ref')} of remote `{remote}` cannot be right and did not count; the rest did",
        hint="whoever may write to the remote made them; `gittrack help sharing` says more",
    )


def _called(model: str, tag: str) -> str:
    """A tag in words: `iris` v4, or the name of the event."""
    last = tag.rpartition("/")[2]
    return f"`{model}` {last}" if last.startswith("v") else f"event `{tag}`"


def brought(done: Published) -> list[str]:
    """What is new here, in words."""
    parts = []
    if done.runs:
        parts.append(f"{text.count(len(done.runs), 'new run')}")
    if done.revised:
        parts.append(f"{text.count(len(done.revised), 'revised run')}")
    if done.tags:
        parts.append(text.count(len(done.tags), "registry tag"))
    if done.documents:
        parts.append("descriptions of models")
    if done.unfolded:
        parts.append(text.count(len(done.unfolded), "folded ledger"))
    return parts


def _amounts(report: PullReport) -> str:
    rest = len(report.wanted) - report.ledgers - report.tags
    parts = [
        text.count(report.ledgers, "ledger") if report.ledgers else "",
        text.count(report.tags, "registry tag") if report.tags else "",
        text.count(rest, "document") if rest else "",
    ]
    return ", ".join(part for part in parts if part)


def _nothing(remote: str) -> str:
    from gittrack.sync.idle import SAID

    return SAID["pull"].format(remote)


def _say(line: str) -> None:
    output.message(line)


def published_json(done: Published) -> dict[str, Any]:
    """What was taken over, as `--json` prints it."""
    return {
        "runs": sorted(done.runs),
        "revised": sorted(done.revised),
        "dropped": done.dropped,
        "tags": done.tags,
        "documents": sorted(set(done.documents)),
        "renamed": [one._asdict() for one in done.renamed],
        "conflicts": done.conflicts,
        "writer": done.writer,
        "folded": done.unfolded,
    }


def pull_json(report: PullReport) -> dict[str, Any]:
    """A pull as `--json` prints it."""
    asked = {"remote": report.remote, "dry_run": report.dry_run, "refs": sorted(report.wanted)}
    return asked | {"refused": report.refused, **published_json(report.published)}


def push_json(report: PushReport) -> dict[str, Any]:
    """A push as `--json` prints it."""
    names: Iterable[str] = (
        "remote", "dry_run", "runs", "revised", "ledgers", "documents", "tags", "files", "size", "absent", "code",
        "folded", "skipped", "refused", "atomic",
    )  # fmt: skip
    return {name: getattr(report, name) for name in names} | {
        "pulled": [published_json(done) for done in report.pulled]
    }
