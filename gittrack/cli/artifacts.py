"""``gittrack artifacts`` and its verbs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output, render, text
from gittrack.errors import InvalidValueError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gittrack.types import Artifact

#: A byte that text does not have; files with it are not written to a terminal.
_BINARY = b"\x00"


@click.group(cls=common.VerbGroup, default="ls")
def command() -> None:
    """List, fetch or print the files that a run kept.

    `gittrack artifacts RUN` is short for `gittrack artifacts ls RUN`.
    """


@command.command("ls")
@common.run_argument
@click.argument("path", default="")
@common.json_option
def list_artifacts(run: str, path: str, as_json: bool) -> None:
    """List the files of RUN.

    All of them or those below PATH, with size and sha256.
    """
    with common.tracker() as opened:
        found = below(opened.repo.artifacts(opened.resolve(run)), path, run)
    if as_json:
        output.array(render.artifact_json(one) for one in found.values())
        return
    if not found:
        output.message(f"run `{run}` has no artifacts")
        return
    rows = [
        [text.size(one.size), output.Cell(one.digest[: common.SHORT], "yellow"), one.path] for one in found.values()
    ]
    output.lines(output.table(["size", "sha256", "path"], rows, right=[0]))


@command.command("get")
@common.run_argument
@click.argument("path", default="")
@click.option("-o", "--output", "target", type=click.Path(), help="Folder to put the files into; default: this one.")
@click.option("--link", is_flag=True, help="Read-only hard links, which take no space, instead of copies.")
def get(run: str, path: str, target: str | None, link: bool) -> None:
    """Copy files of RUN into a folder.

    All of them or those below PATH, checked against their sha256. What is not in this clone is fetched from the remote
    first. Files that exist are not overwritten.
    """
    folder = Path(target or ".")
    with common.tracker() as opened:
        run_id = opened.resolve(run)
        found = below(opened.repo.artifacts(run_id), path, run)
        if not found:
            output.message(f"run `{run}` has no artifacts")
            return
        for one in found:
            if (folder / one).exists():
                raise InvalidValueError(
                    f"`{folder / one}` exists already", hint="choose another folder with `--output`"
                )
        common.fetch(opened, found.values())
        with output.Progress("copying") as progress:
            opened.download_artifacts(run_id, path.strip("/"), folder, link=link, progress=progress.update)
    total = sum(one.size for one in found.values())
    output.message(f"copied {text.count(len(found), 'file')}, {text.size(total)}, into `{folder}`")


@command.command("fetch")
@click.argument("runs", metavar="RUN…", nargs=-1, required=True, shell_complete=common.complete_runs)
@click.option("--from", "remote", metavar="REMOTE", help="The git remote to fetch from; default: this clone's own.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be fetched.")
def fetch(runs: tuple[str, ...], remote: str | None, dry_run: bool) -> None:
    """Bring the files of runs into this clone, for when the network is gone.

    They come from where `gittrack push` puts them. What is here already is not fetched again; interrupted, the same
    command goes on.
    """
    with common.tracker() as opened:
        found = [one for run in runs for one in opened.artifacts(opened.resolve(run))]
        if dry_run:
            from gittrack.sync import artifacts as sync

            items = sync.absent(opened.repo, sync.Item.of(found))
            total = text.size(sum(item.size for item in items))
            output.message(f"would fetch {text.count(len(items), 'file')}, {total}")
            return
        if not common.fetch(opened, found, remote=remote):
            output.message("every file is here already")


@command.command("push")
@click.argument("runs", metavar="RUN…", nargs=-1, required=True, shell_complete=common.complete_runs)
@click.option("--to", "remote", metavar="REMOTE", help="The git remote to send to; default: this clone's own.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be sent.")
def push(runs: tuple[str, ...], remote: str | None, dry_run: bool) -> None:
    """Send the files of runs to where others fetch them.

    `gittrack push` does that for runs that it sends; this is for what stayed behind then, or got lost there. What is
    there already is not sent again.
    """
    from gittrack.sync import artifacts as sync

    with common.tracker() as opened:
        items = sync.Item.of(one for run in runs for one in opened.artifacts(opened.resolve(run)))
        with output.Progress("sending", sizes=True) as progress:
            moved = sync.upload(opened, remote, items, progress=progress.update, dry_run=dry_run,
                                interactive=output.is_terminal(sys.stderr))  # fmt: skip
    if moved.count:
        verb = "would send" if dry_run else "sent"
        output.message(f"{verb} {text.count(moved.count, 'file')}, {text.size(moved.bytes)}")
    else:
        output.message("every file is there already")


@command.command("cat")
@common.run_argument
@click.argument("path")
def cat(run: str, path: str) -> None:
    """Print the file PATH of RUN.

    Byte for byte; on a terminal, with control characters spelled out.
    """
    with common.tracker() as opened:
        run_id = opened.resolve(run)
        if path.strip("/") not in below(opened.repo.artifacts(run_id), path, run):
            raise InvalidValueError(f"`{path}` is a folder", hint=f"`gittrack artifacts ls {run} {path}` lists it")
        common.fetch(opened, opened.artifacts(run_id, path))
        data = opened.read_artifact(run_id, path.strip("/"))
    if not output.is_terminal():
        output.raw(data)
    elif _BINARY in data[:8192]:
        raise InvalidValueError(
            f"`{path}` is no text", hint=f"`gittrack artifacts get {run} {path}` copies it into a file"
        )
    else:
        output.lines(text.clean_lines(data.decode(errors="backslashreplace").removesuffix("\n")))


def below(artifacts: Mapping[str, Artifact], path: str, run: str) -> dict[str, Artifact]:
    """The artifacts that ``path`` names: that file, or all below that folder; every one for an empty path.

    Raises:
        NotFoundError: ``path`` names nothing.
    """
    path = path.strip("/")
    found = {name: one for name, one in artifacts.items() if not path or name == path or name.startswith(path + "/")}
    if path and not found:
        hint = text.suggest(path, artifacts) or f"`gittrack artifacts ls {run}` lists its files"
        raise NotFoundError(f"run `{run}` has no artifact `{path}`", hint=hint)
    return found
