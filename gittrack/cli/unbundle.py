"""``gittrack unbundle``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gittrack.cli import common, output, sharing, text
from gittrack.errors import RemoteDataError, UsageError

if TYPE_CHECKING:
    from gittrack.sync.bundle import UnbundleReport

_STDIN = "-"


@common.verb()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("-n", "--dry-run", is_flag=True, help="Read and check the whole file, say what is in it, change nothing.")
@common.json_option
def command(file: str, dry_run: bool, as_json: bool) -> None:
    """Take over the runs and models of a bundle, with their files.

    FILE is what `gittrack bundle` wrote; `-` is standard input. Everything is looked at before it counts, as with
    `gittrack pull`, and nothing of this clone's is overwritten. A bundle that follows another one needs that first.
    Interrupted, the same command goes on; a second time it adds nothing.
    """
    from gittrack.sync.bundle import unbundle

    if file == _STDIN and output.is_terminal(sys.stdin):
        raise UsageError("there is no bundle on standard input", hint="name a file: `gittrack unbundle FILE`")
    with sharing.registry() as opened, output.Progress(f"reading {file}") as progress:
        report = unbundle(
            opened,
            sys.stdin.fileno() if file == _STDIN else Path(file),
            dry_run=dry_run,
            progress=progress.tell,
            reading=progress.sizes("reading files"),
        )
    if as_json:
        output.document(_document(report))
    else:
        _tell(report)
    _refuse(report)


def _tell(report: UnbundleReport) -> None:
    where = "standard input" if report.file == _STDIN else f"`{report.file}`"
    parts = _announced(report) if report.dry_run else sharing.brought(report.published)
    if report.files:
        parts.append(f"{text.count(report.files, 'file')} of runs, {text.size(report.size)}")
    if not parts:
        output.message(f"{where} has nothing new")
    elif report.dry_run:
        output.message(f"{where} is whole; would take over: {', '.join(parts)}")
    else:
        output.message(f"from {where}: {', '.join(parts)}")
    sharing.tell_published(report.published)
    if report.manifest.absent and parts:
        output.warning(f"{text.count(report.manifest.absent, 'file')} of its runs are not in it")


def _announced(report: UnbundleReport) -> list[str]:
    """What a bundle says it has, if there is anything new in it."""
    if not report.wanted:
        return []
    manifest = report.manifest
    tags = sum(ref.startswith("refs/tags/") for ref in report.wanted)
    parts = [
        text.count(manifest.runs, "run") if manifest.runs else "",
        text.count(manifest.revised, "revised run") if manifest.revised else "",
        text.count(tags, "registry tag") if tags else "",
    ]
    return [part for part in parts if part] or [text.count(len(report.wanted), "ref")]


def _refuse(report: UnbundleReport) -> None:
    """Raise RemoteDataError if some of it does not count, after naming all of that."""
    if not report.refused:
        return
    for ref, why in report.refused.items():
        output.warning(f"`{ref}` in `{report.file}` does not count: {why}")
    raise RemoteDataError(
        f"{text.count(len(report.refused), 'ref')} of bundle `{report.file}` cannot be right and did not count; the"
        " rest did",
        hint="whoever made the file, or had it in hand, made them; `gittrack help sharing` says more",
    )


def _document(report: UnbundleReport) -> dict[str, Any]:
    manifest = report.manifest
    return {
        "file": report.file,
        "dry_run": report.dry_run,
        "made_by": manifest.writer,
        "created": manifest.created,
        "refs": sorted(report.wanted),
        "files": report.files,
        "size": report.size,
        "absent": manifest.absent,
        "refused": report.refused,
        **sharing.published_json(report.published),
    }
