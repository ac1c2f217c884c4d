"""``gittrack models register``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output
from gittrack.cli.models import base
from gittrack.cli.tag import pairs
from gittrack.errors import InvalidValueError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable


@common.verb()
@common.run_argument
@base.name_argument
@click.option("-p", "--path", metavar="PATH", help="The model among the run's files; default: the only one there is.")
@click.option("-d", "--description", metavar="TEXT", help="What is to be said about the version.")
@click.option("-t", "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="A tag of the version; repeatable.")
@base.sign_option
@common.json_option
def verb(
    run: str, name: str, path: str | None, description: str | None, tags: tuple[str, ...], sign: bool, as_json: bool
) -> None:
    """Register a model that RUN logged as the next version of NAME.

    RUN is what `gittrack show` takes, or `runs:/ID/PATH`. The version is an annotated tag, `models/NAME/v1`, at the
    run's commit; a run that goes on is committed as it is now.
    """
    with base.registry(write=True) as opened:
        match = re.fullmatch(r"runs:/+([^/]+)(?:/(.+))?", run)
        run_id = opened.tracker.resolve(match[1] if match else run)
        path = path if path is not None else match[2] if match else None
        if path is None:
            path = _only_model(run, opened.repo.artifacts(run_id))
        found = opened.register(name, run_id, path.strip("/"), description=description, tags=pairs(tags), sign=sign)
    if as_json:
        output.document(base.version_json(found))
    else:
        output.lines([f"{found.name}@v{found.version}"])
        output.message(f"registered run `{run}` as version {found.version} of `{found.name}`: tag `{found.tag}`")


def _only_model(run: str, artifacts: Iterable[str]) -> str:
    """The folder that holds a model: the only one with an `MLmodel`, else the only folder or file there is."""
    known = list(artifacts)
    models = sorted({name.rpartition("/")[0] for name in known if name.rpartition("/")[2] == "MLmodel"})
    found = models or sorted({name.partition("/")[0] for name in known})
    if not found:
        raise NotFoundError(f"run `{run}` has no artifacts", hint="log the model first")
    if len(found) > 1:
        raise InvalidValueError(
            f"run `{run}` has {len(found)} that could be the model: {', '.join(f'`{one}`' for one in found[:8])}",
            hint="say which with `--path`",
        )
    return found[0]
