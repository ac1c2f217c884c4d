"""``gittrack hooks``."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output
from gittrack.errors import GittrackError, NotARepositoryError

if TYPE_CHECKING:
    from gittrack.hooks.install import Done
    from gittrack.store.gateway import RepoPaths

_STYLES = {"installed": "green", "updated": "green", "removed": "green", "refused": "red", "outdated": "yellow"}


@click.group(cls=common.VerbGroup, default="status")
def command() -> None:
    """Install git hooks that keep runs and commits together.

    Without a further word it says how they stand. `gittrack help hooks` tells what each hook does.
    """


def _names_argument(function: common.F) -> common.F:
    return click.argument("names", metavar="[HOOK]…", nargs=-1)(function)


def _dry_run_option(function: common.F) -> common.F:
    return click.option("--dry-run", is_flag=True, help="Change nothing, say what would be done.")(function)


@command.command()
@_names_argument
@_dry_run_option
def install(names: tuple[str, ...], dry_run: bool) -> int:
    """Install the hooks, or only the named ones.

    A hook that is there already is kept and run first. Where core.hooksPath or a hook manager owns the hooks, nothing
    is changed, and the line to put there is shown. Running it again renews the scripts.
    """
    from gittrack.hooks import install as hooks

    return _report(hooks.install(_paths(), names, program=common.program(), dry_run=dry_run), dry_run)


@command.command()
@_names_argument
@_dry_run_option
def uninstall(names: tuple[str, ...], dry_run: bool) -> int:
    """Take the hooks out, or only the named ones, and put back what was there before."""
    from gittrack.hooks import install as hooks

    return _report(hooks.uninstall(_paths(), names, dry_run=dry_run), dry_run)


@command.command()
@common.json_option
def status(as_json: bool) -> None:
    """Say how each hook stands."""
    from gittrack.hooks import install as hooks

    paths = _paths()
    try:
        where, found, owner = str(hooks.folder(paths)), hooks.status(paths), None
    except GittrackError as error:
        if not as_json:
            raise
        where, found, owner = None, [], error.message
    program = shutil.which("gittrack") or hooks.remembered(paths)
    if as_json:
        output.document(
            {"folder": where, "owner": owner, "program": program, "hooks": [one._asdict() for one in found]}
        )
        return
    rows = [
        [one.name, output.Cell(one.state, _STYLES.get(one.state, "dim")), _about(one.before, one.name, one.note)]
        for one in found
    ]
    output.lines(output.table(["hook", "state", ""], rows, cut=False))
    if program is None:
        output.warning(
            "`gittrack` is not on the PATH here: without it the hooks do nothing;"
            " `gittrack hooks install` remembers where it is"
        )


def _about(before: bool, name: str, note: str) -> str:
    return "; ".join(filter(None, [f"runs {name}.before-gittrack first" if before else "", note]))


def _paths() -> RepoPaths:
    from gittrack.store import gateway

    paths = gateway.discover(Path.cwd())
    if paths is None:
        raise NotARepositoryError(f"`{Path.cwd()}` is in no git repository", hint="run `git init` first")
    return paths


def _report(done: Sequence[Done], dry_run: bool) -> int:
    rows = [[one.name, output.Cell(one.what, _STYLES.get(one.what, "dim")), one.note] for one in done]
    output.lines(output.table(["hook", "would be" if dry_run else "", ""], rows, cut=False))
    return 1 if any(one.what == "refused" for one in done) else 0
