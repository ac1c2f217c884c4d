"""``gittrack gc``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output, text
from gittrack.errors import StateError, UsageError
from gittrack.types import RunId

if TYPE_CHECKING:
    from gittrack.store.check import GcReport
    from gittrack.track.runs import Tracker

_DAY = 24 * 3600


@common.verb()
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would go.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--older-than",
    "days",
    type=common.NUMBER,
    default=14.0,
    show_default=True,
    metavar="DAYS",
    help="Keep artifacts younger than this.",
)
@click.option(
    "--purge",
    "purged",
    multiple=True,
    metavar="RUN",
    shell_complete=common.complete_runs,
    help="Also forget this deleted run, or logged model that no run made, for good.",
)
@click.option("--fold", is_flag=True, help="Instead: take the ledgers of writers silent for that long into this one's.")
def command(dry_run: bool, yes: bool, days: float, purged: tuple[str, ...], fold: bool) -> None:
    """Remove artifacts that no run refers to.

    Says what would go, and asks, before anything goes. Runs are never removed, unless a deleted one is named with
    `--purge`; that cannot be undone. With `--fold` nothing is lost: the runs of CI jobs and of clones that are gone
    become part of this clone's ledger, and the next `gittrack push` tells the others.
    """
    from gittrack.store import check, rewrite

    if fold:
        if purged:
            raise UsageError("`--fold` and `--purge` exclude each other", hint="do one after the other")
        _fold(days, dry_run=dry_run)
        return
    with common.tracker(fresh=False) as opened:
        ids = [_deleted(opened, run) for run in purged]
        with output.Progress("looking for what nothing refers to") as progress:
            report = check.gc(opened.repo, dry_run=True, grace_s=days * _DAY, progress=progress.update)
        if not (report.objects or ids):
            output.message("nothing to remove" + _young(report))
            return
        if report.objects:
            output.message(_sentence(report, "would remove"))
        for run_id in ids:
            output.message(f"would forget run `{run_id[: common.SHORT]}` for good")
        if dry_run:
            return
        if not yes:
            if not output.is_terminal(sys.stdin):
                raise UsageError(
                    "nothing removed: there is no terminal to ask on", hint="`gittrack gc --yes` does not ask"
                )
            if not output.confirm("Remove this?"):
                output.message("nothing removed")
                return
        with output.Progress("removing") as progress:
            for run_id in ids:
                freed = rewrite.purge(opened.repo, run_id)
                output.message(f"forgot run `{run_id[: common.SHORT]}` and {text.size(freed)} of artifacts")
            report = check.gc(opened.repo, grace_s=days * _DAY, progress=progress.update)
        if report.objects:
            output.message(_sentence(report, "removed"))


def _fold(days: float, *, dry_run: bool) -> None:
    from gittrack.store import rewrite, seal

    with common.tracker(write=True, fresh=False) as opened:
        seal.seal(opened.repo)
        with output.Progress("folding"):
            found = rewrite.fold(opened.repo, older_than_s=days * _DAY, dry_run=dry_run)
    if not found.ledgers:
        output.message("no writer has been silent for that long (see `--older-than`)")
        return
    did = "would fold" if dry_run else "folded"
    output.message(f"{did} {text.count(found.ledgers, 'ledger')} of {text.count(len(found.writers), 'writer')}"
                   f" with {text.count(found.runs, 'run')} into this clone's")  # fmt: skip


def _deleted(opened: Tracker, run: str) -> RunId:
    """The id of a deleted run, or of the one that keeps a deleted logged model.  Raises StateError for any other."""
    from gittrack.types import LifecycleStage

    keeper = common.keeper_of(opened, run)
    run_id = RunId(keeper or opened.resolve(run))
    if opened.get_run(run_id).info.lifecycle_stage != LifecycleStage.DELETED:
        short = run if keeper else run_id[: common.SHORT]
        what = "logged model" if keeper else "run"
        raise StateError(f"{what} `{short}` is not deleted", hint=f"`gittrack rm {short}` deletes it; then purge it")
    return run_id


def _sentence(report: GcReport, verb: str) -> str:
    return f"{verb} {text.count(len(report.objects), 'artifact')}, {text.size(report.size)}{_young(report)}"


def _young(report: GcReport) -> str:
    if not report.kept_young:
        return ""
    return f"; {text.count(report.kept_young, 'artifact is', 'artifacts are')} too young (see `--older-than`)"
