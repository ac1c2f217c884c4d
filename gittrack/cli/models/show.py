"""``gittrack models show``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gittrack.cli import common, output, render, text
from gittrack.cli.models import base, moments
from gittrack.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gittrack.registry.manifest import Manifest
    from gittrack.registry.registry import Registry
    from gittrack.types import ModelVersion, RegisteredModel, Run


@common.verb()
@base.version_argument
@moments.option
@common.json_option
def verb(version: str, at: str | None, as_json: bool) -> None:
    """Show a model, or one version and where it comes from.

    VERSION is NAME for the model, else NAME@v3, NAME@ALIAS or NAME@STAGE. For a version: the run, its code, data and
    environment, and the files with their digests.
    """
    with base.registry() as opened:
        if at is not None:
            _at(opened, version, at, as_json)
            return
        name, number = base.version_of(opened, version)
        if number is None:
            model = opened.get_model(name)
            if as_json:
                output.document(base.model_json(model))
            else:
                output.lines(_model(opened, model))
        else:
            found = opened.get_version(name, number)
            run, manifest = opened.run_of(found), opened.manifest(found)
            names = common.experiment_names(opened.tracker)
            if as_json:
                output.document(_document(opened, found, run, manifest, names))
            else:
                output.lines(_version(opened, found, run, manifest, names))


def _at(opened: Registry, address: str, at: str, as_json: bool) -> None:
    """Show a model or a version as it was; an alias or a stage stands for what it stood for then."""
    from gittrack.registry.names import parse_address

    wanted = parse_address(address)
    state = opened.at(wanted.name, moments.moment(opened.repo, at))
    if wanted.of_model:
        model = state.records()[0]
        if as_json:
            output.document(base.model_json(model))
        else:
            output.lines(_model(opened, model))
        return
    number = state.addressed(wanted)
    if number is None:
        raise NotFoundError(
            f"`{address}` was no version at `{at}`", hint=f"`gittrack models log '{wanted.name}'` tells more"
        )
    version = state.version_record(number)
    if as_json:
        output.document(base.version_json(version))
    else:
        output.lines(_facts(version))


def _model(opened: Registry, model: RegisteredModel) -> Iterator[str]:
    yield output.style(f"model {model.name}", "yellow")
    yield f"Created:    {text.date(model.creation_timestamp)}"
    yield f"Changed:    {text.date(model.last_updated_timestamp)}"
    if model.conflicts:
        yield output.style(f"Conflict:   {', '.join(model.conflicts)}", "red")
    yield from _described(model.description)
    stages = [[base.stage(one.current_stage) or "None", base.number(opened, one)] for one in model.latest_versions]
    yield from _section("Newest in each stage", stages)
    yield from _section("Aliases", [[f"@{alias}", f"v{version}"] for alias, version in sorted(model.aliases.items())])
    yield from _section("Tags", [list(item) for item in sorted(model.tags.items())])
    yield ""


def _signed(opened: Registry, version: ModelVersion) -> str:
    """Who vouches for a version, in words."""
    from gittrack.registry import signing

    found = signing.verify_version(opened.catalog, version)
    if found.valid:
        return f"by {found.signer}, key {found.key}"
    return "no" if found.state == "unsigned" else f"not validly: {found.reason}"


def _facts(version: ModelVersion, signed: str = "", unpublished: bool = False) -> Iterator[str]:
    shown = f"model {version.name} v{version.version}{'?' if unpublished else ''}"
    yield f"{output.style(shown, 'yellow')} ({version.current_stage})"
    if unpublished:
        yield "Not pushed: `gittrack push` makes the number official, or gives the version the next free one"
    if version.aliases:
        yield f"Aliases:    {' '.join(f'@{alias}' for alias in version.aliases)}"
    yield f"Registered: {text.date(version.creation_timestamp)} by {version.user_id}"
    yield f"Tag:        {version.tag}"
    yield f"Source:     {version.source}"
    if version.copied_from is not None:
        yield f"Copy of:    {version.copied_from}"
    yield f"Commit:     {version.commit}"
    yield f"Manifest:   sha256:{version.manifest}"
    if signed:
        yield f"Signed:     {signed}"
    yield from _described(version.description)
    yield from _section("Tags", [list(item) for item in sorted(version.tags.items())])


def _version(
    opened: Registry, version: ModelVersion, run: Run, manifest: Manifest, names: dict[str, str]
) -> Iterator[str]:
    yield from _facts(version, _signed(opened, version), opened.catalog.unpublished(version))
    yield ""
    yield output.style("Lineage", "bold")
    yield from ("    " + line for line in render.heading(_as_it_went_on(opened, run), names))
    remote = run.code.get("remote_url")
    if remote:
        yield f"    Remote:     {remote}"
    inputs = [f"{one.dataset.name}  {one.dataset.digest}  {one.dataset.source}" for one in run.inputs.dataset_inputs]
    yield from _lines("Data", inputs)
    yield from _lines("Environment", render.environment(run, packages=False))
    yield from _section("Parameters", [list(item) for item in sorted(run.data.params.items())])
    yield from _lines("Metrics", render.metric_table(run, "") if run.data.metrics else ())
    override = opened.requirements(version.name, version.version)
    yield from _lines("Requirements, changed", () if override is None else text.clean_lines(override))
    files = [[path, text.size(size), digest[: common.SHORT]] for path, (digest, size) in manifest.files.items()]
    yield from _section("Files", files, right=[1])
    yield ""


def _as_it_went_on(opened: Registry, run: Run) -> Run:
    """The run with the state that it has by now: it may have been registered while it ran."""
    if run.info.end_time is not None:
        return run
    try:
        return replace(run, info=opened.tracker.get_run(run.info.run_id).info)
    except NotFoundError:  # it is in another clone
        return run


def _document(
    opened: Registry, version: ModelVersion, run: Run, manifest: Manifest, names: dict[str, str]
) -> dict[str, Any]:
    files = [{"path": path, "size": size, "sha256": digest} for path, (digest, size) in manifest.files.items()]
    return base.version_json(version, opened) | {"run": render.as_json(run, names), "files": files}


def _described(description: str | None) -> Iterator[str]:
    if description:
        yield ""
        yield from ("    " + line for line in text.clean_lines(description))


def _section(title: str, rows: list[list[str]], right: tuple[int, ...] | list[int] = ()) -> Iterator[str]:
    yield from _lines(title, output.table([""] * len(rows[0]), rows, right=right, cut=False) if rows else ())


def _lines(title: str, body: Any) -> Iterator[str]:
    """A heading and its indented lines; nothing if there are none."""
    for number, line in enumerate(body):
        if number == 0:
            yield ""
            yield output.style(title, "bold")
        yield "    " + line
