"""What `gittrack import` and `gittrack export` share."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from gittrack.cli import common, output, text

if TYPE_CHECKING:
    from gittrack.convert.report import Report

#: Things that were left out, told one by one.
_TOLD: Final = 20


class Group(common.Helped, click.Group):
    """A verb that does nothing without one of its own verbs."""

    command_class = common.Verb


def tell(report: Report, verb: str, *, dry_run: bool, as_json: bool) -> None:
    """Say what came of it.  Leaves with status 1 if something had to be left out."""
    if as_json:
        output.document(asdict(report))
    else:
        _say(report, verb, dry_run=dry_run)
    if report.problems:
        raise click.exceptions.Exit(1)


def _say(report: Report, verb: str, *, dry_run: bool) -> None:
    for problem in report.problems[:_TOLD]:
        output.warning(problem)
    if len(report.problems) > _TOLD:
        output.message(f"… and {len(report.problems) - _TOLD} more; `--json` lists all")
    found = [
        text.count(report.experiments, "experiment"),
        text.count(report.runs, "run"),
        f"{report.points:,} metric points",
        f"{text.count(report.files, 'file')} ({text.size(report.size)})",
        text.count(report.models, "model"),
        f"{text.count(report.versions, 'version')}",
    ]
    shown = ", ".join(one for one in found if not one.startswith("0 ")) or "nothing"
    place = "here" if verb == "import" else "there"
    are = f"{text.count(report.here, 'run')} {'is' if report.here == 1 else 'are'} {place} already"
    did = f"would {verb}" if dry_run else f"{verb}ed"
    output.message(f"{did} {shown}" + (f"; {are}" if report.here else ""))
    if report.passed:
        passed = ", ".join(f"{amount:,} {kind}" for kind, amount in report.passed.items())
        output.message(f"not taken, for want of a place: {passed}")
    if report.problems:
        output.message(f"left out: {text.count(len(report.problems), 'thing')}, named above (`gittrack help moving`)")
