"""``gittrack models list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output, text
from gittrack.cli.models import base, moments
from gittrack.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gittrack.registry.registry import Registry
    from gittrack.types import ModelVersion, RegisteredModel


@common.verb()
@click.argument("name", default="", shell_complete=base.complete_models)
@click.option("-a", "--all", "everything", is_flag=True, help="Also what is deleted.")
@click.option(
    "-f", "--filter", "filter_string", default="", metavar="TEXT", help="Only what matches, as `tags.a = 'x'`."
)
@moments.option
@common.json_option
def verb(name: str, everything: bool, filter_string: str, at: str | None, as_json: bool) -> None:
    """List the models, or the versions of the model NAME.

    A stage or an alias that two clones disagree about is marked; `gittrack models resolve` settles it. A number with a
    question mark, `v4?`, has not been pushed yet: `gittrack push` makes it official, or gives the version another one.
    """
    if at is not None and filter_string:
        raise UsageError("`--filter` asks for what is, `--at` for what was", hint="use one of them")
    with base.registry() as opened:
        if name:
            versions = list(_versions(opened, name, everything, filter_string, at))
            if as_json:
                output.array(base.version_json(one, opened) for one in versions)
            else:
                output.lines(_version_table(opened, versions))
            return
        if at is None:
            models = list(_models(opened, everything, filter_string))
        else:
            then = opened.all_at(moments.moment(opened.repo, at))
            models = [(state.records()[0], len(state.visible)) for state in then]
        if as_json:
            output.array(base.model_json(model) | {"versions": count} for model, count in models)
        elif models:
            output.lines(_model_table(opened, models))
        elif at is not None:
            output.message("there were no models then")
        elif filter_string:
            output.message("no model matches the filter")
        else:
            output.message("no models; `gittrack models register RUN NAME` makes one")


def _models(opened: Registry, everything: bool, filter_string: str) -> Iterator[tuple[RegisteredModel, int]]:
    """The models, each with how many versions it has."""
    from gittrack.types import LifecycleStage

    found: Iterable[RegisteredModel] = common.every(
        lambda token: opened.search_models(filter_string, 1000, None, token)
    )
    if everything:
        deleted = opened.catalog.models(lifecycle_stage=LifecycleStage.DELETED)
        found = sorted([*found, *deleted], key=lambda model: (model.name, model.key))
    for model in found:
        yield model, opened.catalog.count(model.key)


def _versions(
    opened: Registry, name: str, everything: bool, filter_string: str, at: str | None
) -> Iterator[ModelVersion]:
    from gittrack.types import LifecycleStage, ViewType

    view = ViewType.ALL if everything else ViewType.ACTIVE_ONLY
    if at is not None:
        then = opened.at(name, moments.moment(opened.repo, at)).records()[1]
        found = [one for one in then if everything or one.lifecycle_stage == LifecycleStage.ACTIVE]
    else:
        found = opened.versions(name, view)
    if filter_string:
        key = opened.get_model(name).key
        pages = common.every(lambda token: opened.search_versions(filter_string, 10_000, None, token))
        wanted = {one.version for one in pages if one.key == key}
        found = [one for one in found if one.version in wanted]
    yield from reversed(found)


def _model_table(opened: Registry, models: Sequence[tuple[RegisteredModel, int]]) -> Iterator[str]:
    rows = []
    for model, count in models:
        by_stage = {one.current_stage: base.number(opened, one) for one in model.latest_versions}
        marks = ["conflict: " + ", ".join(model.conflicts)] if model.conflicts else []
        marks += ["deleted"] if model.lifecycle_stage == "deleted" else []
        rows.append(
            [
                output.Cell(model.name, "yellow"),
                output.Cell("; ".join(marks), "red"),
                f"{count:,}",
                by_stage.get("Production", ""),
                by_stage.get("Staging", ""),
                " ".join(f"@{alias}=v{version}" for alias, version in model.aliases.items()),
                text.ago(model.last_updated_timestamp),
            ]
        )
    return output.table(["name", "", "versions", "production", "staging", "aliases", "changed"], rows, right=[2])


def _version_table(opened: Registry, versions: Sequence[ModelVersion]) -> Iterator[str]:
    rows = [
        [
            output.Cell(base.number(opened, one), "yellow"),
            output.Cell("deleted", "red") if one.lifecycle_stage == "deleted" else "",
            base.stage(one.current_stage),
            " ".join(f"@{alias}" for alias in one.aliases),
            (one.run_id or "")[: common.SHORT],
            text.ago(one.creation_timestamp),
            (one.user_id or "").partition(" <")[0],
            (one.description or "").split("\n")[0],
        ]
        for one in versions
    ]
    return output.table(["version", "", "stage", "aliases", "run", "registered", "by", "description"], rows)
