"""``gittrack bundle``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gittrack.cli import common, output, sharing, text
from gittrack.errors import InvalidValueError, UsageError

if TYPE_CHECKING:
    from gittrack.registry.registry import Registry
    from gittrack.sync.bundle import BundleReport
    from gittrack.sync.remotes import Remote

_STDOUT = "-"


@common.verb()
@click.argument("file", type=click.Path(allow_dash=True))
@sharing.picking
@click.option(
    "--since",
    multiple=True,
    metavar="WHAT",
    help="Leave out what a former bundle (its file) or a remote (its name) has, or older runs than a date (`2w`).",
)
@click.option("--no-artifacts", is_flag=True, help="Leave the files of runs here.")
@click.option("-f", "--force", is_flag=True, help="Replace FILE if it exists.")
@sharing.dry_run_option
@common.json_option
def command(
    file: str, since: tuple[str, ...], no_artifacts: bool, force: bool, dry_run: bool, as_json: bool, **options: Any
) -> None:
    """Write runs and models, with their files, into one file that can be carried.

    For a clone that no network reaches: `gittrack unbundle FILE` takes them over there. With `--since`, which may be
    given several times, only what is new: `--since last.bundle`. FILE is a tar archive that stock tools can open; `-`
    is standard output.
    """
    from gittrack.sync.bundle import bundle

    if file == _STDOUT and as_json:
        raise UsageError("`--json` and the bundle cannot both go to standard output", hint="name a file")
    if file == _STDOUT and output.is_terminal() and not dry_run:
        raise UsageError("a bundle is nothing for a terminal", hint="name a file, or send it on: `… - | ssh …`")
    with sharing.registry() as opened:
        leave, date = _since(opened, since)
        select = sharing.chosen(opened, {**options, "since": date}, known=True)
        with output.Progress(f"writing {file}") as progress:
            report = bundle(
                opened,
                sys.stdout.fileno() if file == _STDOUT else Path(file),
                select=select,
                since=leave,
                artifacts=not no_artifacts,
                dry_run=dry_run,
                overwrite=force,
                progress=progress.tell,
                writing=progress.sizes("writing files"),
            )
    if as_json:
        output.document(report.__dict__)
    else:
        _tell(report)


def _since(registry: Registry, words: tuple[str, ...]) -> tuple[list[Path | Remote], str | None]:
    """What to leave out, and a date."""
    from gittrack import config
    from gittrack.sync.bundle import basis

    paths = registry.repo.paths
    prefix = config.current(paths.work_tree or paths.main_root).ref_prefix
    leave: list[Path | Remote] = []
    dates: list[str] = []
    for word in words:
        found = basis(registry.repo, word, prefix)
        if found is not None:
            leave.append(found)
            continue
        try:
            sharing.moment(word)
        except InvalidValueError as error:
            raise InvalidValueError(f"`{word:.80}` is no bundle, no remote and no date",
                                    hint="`last.bundle`, `origin`, `2026-11-03`, `3d`") from error  # fmt: skip
        dates.append(word)
    if len(dates) > 1:
        raise UsageError("`--since` was given two dates", hint="the later one alone means the same")
    return leave, dates[0] if dates else None


def _tell(report: BundleReport) -> None:
    verb = "would write" if report.dry_run else "wrote"
    size = "" if report.dry_run else f" ({text.size(report.length)})"
    where = "standard output" if report.file == _STDOUT else f"`{report.file}`"
    output.message(f"{verb} {where}{size}: {', '.join(_parts(report))}")
    if report.needed:
        output.message(f"it builds on {text.count(report.needed, 'commit')} that must be there already")
    if report.absent:
        output.warning(f"{text.count(report.absent, 'file')} of these runs left out: not in this clone "
                       "(`gittrack artifacts fetch`)")  # fmt: skip
    for ref, why in report.skipped.items():
        output.warning(f"`{ref}` was left out: {why}")


def _parts(report: BundleReport) -> list[str]:
    parts = [
        text.count(report.runs, "run") if report.runs else "",
        text.count(report.revised, "revised run") if report.revised else "",
        text.count(len(report.tags), "registry tag") if report.tags else "",
        "descriptions of models" if report.documents else "",
        f"{text.count(report.files, 'file')} of runs, {text.size(report.size)}" if report.files else "",
        f"{text.count(report.code, 'commit')} of code" if report.code else "",
    ]
    return [part for part in parts if part] or [text.count(len(report.ledgers), "ledger")]
