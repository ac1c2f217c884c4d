"""``gittrack models dockerfile``."""

from __future__ import annotations

from pathlib import Path

import click

from gittrack.cli import common, output, text
from gittrack.cli.models import base


@common.verb()
@base.model_option
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where to write."
)
@click.option("--base", "image", metavar="IMAGE", help="The image to start from; Python's slim one if not given.")
@click.option(
    "-p", "--port", type=click.IntRange(1, 65535), default=8080, show_default=True, help="The port it listens on."
)
@base.trust_option
def verb(uri: str, folder: Path, image: str | None, port: int, trust: bool) -> None:
    """Write what `docker build` needs to make an image that serves a model.

    DIR gets a Dockerfile, the model's files (checked), its requirements in force, and gittrack itself: the image needs
    neither this repository nor a network to it. It runs without root's rights and has a health check.
    """
    from gittrack.models import addresses, dockerfile

    written = dockerfile.write(addresses.fetch(uri, trust=trust), folder, base=image, port=port)
    output.lines([str(folder)])
    output.message(f"wrote {text.count(len(written), 'entry', 'entries')}; next: docker build -t NAME {folder}")
