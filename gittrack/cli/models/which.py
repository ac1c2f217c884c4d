"""``gittrack models which``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output
from gittrack.cli.models import base
from gittrack.errors import NotFoundError

if TYPE_CHECKING:
    from gittrack.types import Digest


@common.verb()
@click.argument("file")
@common.json_option
def verb(file: str, as_json: bool) -> None:
    """Say which versions and runs a model's FILE comes from.

    FILE is a file anywhere, or a sha256. It is found by its content, whatever it is called.
    """
    digest = _digest(file)
    with base.registry() as opened:
        versions = opened.which(digest)
        with output.Progress("looking through the runs"):
            runs = opened.runs_with(digest)
        if not versions and not runs:
            raise NotFoundError(f"no version and no run has `{file}`", hint=f"its sha256 is {digest}")
        if as_json:
            output.document(
                {
                    "sha256": digest,
                    "versions": [base.version_json(one) for one in versions],
                    "runs": [{"run_id": run_id, "path": path} for run_id, path in runs],
                }
            )
            return
        rows = [
            [output.Cell(f"{one.name}@v{one.version}", "yellow"), base.stage(one.current_stage)] for one in versions
        ]
        output.lines([*output.table(["", ""], rows), *(f"runs:/{run_id}/{path}" for run_id, path in runs)])


def _digest(file: str) -> Digest:
    from gittrack.types import Digest as Text

    path = Path(file)
    if path.is_file():
        import hashlib

        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return Text(digest.hexdigest())
    if re.fullmatch(r"(?:sha256:)?[0-9a-f]{64}", file):
        return Text(file[-64:])
    raise NotFoundError(f"there is no file `{file}`", hint="name a file or a sha256")
