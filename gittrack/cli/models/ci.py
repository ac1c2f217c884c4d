"""``gittrack models ci``."""

from __future__ import annotations

from pathlib import Path

import click

from gittrack.cli import common, output
from gittrack.errors import AlreadyExistsError

#: Where a host looks for it, from the top of the work tree.
_PLACES = {"github": ".github/workflows/deploy-model.yml", "gitlab": ".gitlab-ci.yml"}


@common.verb()
@click.argument("host", metavar="HOST", type=click.Choice(list(_PLACES), case_sensitive=False))
@click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path), metavar="FILE", help="Where to write; - is stdout."
)
@click.option("-f", "--force", is_flag=True, help="Write over a file that is there.")
def verb(host: str, target: Path | None, force: bool) -> None:
    """Write the workflow that a promotion starts, for HOST: github or gitlab.

    A promotion is a tag; pushing it runs this on HOST: signatures, digests and policy are verified, the model is tried
    where only its requirements are installed, the build context of an image is written, your own command (the variable
    DEPLOY) deploys it, and the deployment is noted as a tag of the version.
    """
    from gittrack.models import ci
    from gittrack.store import files

    text = ci.workflow(host)
    if target == Path("-"):
        output.lines(text.splitlines())
        return
    path = target or Path(_PLACES[host])
    if path.exists() and not force:
        raise AlreadyExistsError(f"`{path}` exists", hint="`--force` writes over it, `-o FILE` writes elsewhere")
    files.make_dirs(path.parent, durable=False)
    files.write_atomic(path, text.encode())
    output.message(
        f"wrote `{path}`; commit it, and the next `gittrack models promote … production` that is pushed runs it"
    )
