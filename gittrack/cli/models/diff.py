"""``gittrack models diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from gittrack.cli import common, output
from gittrack.cli.diff import lines, sides
from gittrack.cli.models import base
from gittrack.errors import UsageError

if TYPE_CHECKING:
    from gittrack.registry.registry import Registry
    from gittrack.types import Artifact, ModelVersion


@common.verb()
@click.argument("a", shell_complete=base.complete_versions)
@click.argument("b", default="", shell_complete=base.complete_versions)
@common.json_option
def verb(a: str, b: str, as_json: bool) -> None:
    """Show what differs between two versions.

    Parameters, metrics and environment of their runs, and the files of the models. Without B, A is compared with the
    version in production. `gittrack diff` compares two runs, with their code.
    """
    from gittrack.track import compare

    with base.registry() as opened:
        versions = [opened.resolve(one) for one in (a, b or f"{base.version_of(opened, a)[0]}@production")]
        if versions[0] == versions[1]:
            raise UsageError(f"both are v{versions[0].version} of `{versions[0].name}`", hint="name another version")
        runs = [opened.run_of(one) for one in versions]
        files = [_files(opened, one) for one in versions]
        found = compare.compare(runs[0], runs[1], files[0], files[1])
    titles = [f"{one.name} v{one.version} ({one.current_stage})" for one in versions]
    if as_json:
        said: dict[str, Any] = {"a": base.version_json(versions[0]), "b": base.version_json(versions[1])}
        output.document(said | sides(found))
    else:
        output.lines(lines(titles, found, None))


def _files(opened: Registry, version: ModelVersion) -> dict[str, Artifact]:
    from gittrack.types import Artifact

    return {path: Artifact(path, *about) for path, about in opened.manifest(version).files.items()}
