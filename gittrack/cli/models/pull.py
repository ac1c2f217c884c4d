"""``gittrack models pull``."""

from __future__ import annotations

from pathlib import Path

import click

from gittrack.cli import common, output, text
from gittrack.cli.models import base
from gittrack.errors import InvalidValueError


@common.verb()
@base.version_argument
@click.argument("folder", default="", type=click.Path())
def verb(version: str, folder: str) -> None:
    """Copy the files of VERSION into FOLDER and print its name.

    Every file is checked against the manifest that the version's tag vouches for; what is not in this clone is fetched
    from the remote first. Without FOLDER, one is made that is named after the version.
    """
    with base.registry() as opened:
        found = opened.resolve(version)
        target = Path(folder or f"{found.key}-v{found.version}")
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InvalidValueError(f"`{target}` exists and is not empty", hint="name another folder")
        base.fetch_version(opened, found)
        with output.Progress("copying") as progress:
            manifest = opened.pull(found, target, progress=progress.update)
    output.lines([str(target)])
    output.message(f"copied {text.count(len(manifest.files), 'file')}, {text.size(manifest.size)}, of v{found.version}")
