"""``gittrack show``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from gittrack.cli import common, output, render, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gittrack.types import Artifact, DatasetInput, Run

#: The files are in a store, whichever: this one has them, or can have them.
_HERE: Final = ("runs:/", "mlflow-artifacts:")


@common.verb()
@click.argument("runs", metavar="[RUN]…", nargs=-1, shell_complete=common.complete_runs)
@click.option("--env", "environment", is_flag=True, help="Also every installed package.")
@common.format_option
@common.json_option
def command(runs: tuple[str, ...], environment: bool, template: str | None, as_json: bool) -> None:
    """Show everything about a run.

    Without RUN, about the latest. RUN is an id or the start of one, a run's name, `latest`, or `@{-N}` for the N-th
    last.
    """
    line = render.filled(template) if template is not None else None
    with common.tracker() as opened:
        names = common.experiment_names(opened)
        found = [opened.get_run(opened.resolve(one)) for one in runs or ("latest",)]
        artifacts = {run.info.run_id: opened.repo.artifacts(run.info.run_id) for run in found}
        if as_json:
            documents = [
                render.as_json(run, names)
                | {"artifacts": [render.artifact_json(one) for one in artifacts[run.info.run_id].values()]}
                for run in found
            ]
            output.document(documents[0] if len(documents) == 1 else documents)
        elif line is not None:
            output.lines((one for run in found for one in line(run, names)), cleaned=True)
        else:
            output.lines(
                one for run in found for one in everything(run, names, artifacts[run.info.run_id], environment)
            )


def everything(
    run: Run, names: Mapping[str, str], artifacts: Mapping[str, Artifact], packages: bool = False
) -> Iterator[str]:
    """All that is known of a run, for people."""
    yield from render.heading(run, names)
    if run.commit:
        yield f"Commit:     {run.commit}"
    if not run.info.artifact_uri.startswith(_HERE):
        yield f"Files:      {run.info.artifact_uri}"
    note = run.data.tags.get(render.NOTE_TAG)
    if note:
        yield ""
        yield from ("    " + line for line in text.clean_lines(note))
    if run.data.metrics:
        yield from _section("Metrics", render.metric_table(run, ""))
    yield from _section("Parameters", output.table(["", ""], sorted(run.data.params.items()), cut=False))
    tags = sorted(item for item in run.data.tags.items() if not item[0].startswith("mlflow."))
    yield from _section("Tags", output.table(["", ""], tags, cut=False))
    yield from _section("Datasets", output.table(["", "", ""], map(_dataset, run.inputs.dataset_inputs), cut=False))
    made = [[one.model_id, one.path or "", f"step {one.step}"] for one in run.outputs.model_outputs]
    yield from _section("Models", output.table(["", "", ""], made, cut=False))
    sizes = [[path, text.size(one.size)] for path, one in artifacts.items()]
    yield from _section("Artifacts", output.table(["", ""], sizes, right=[1], cut=False))
    yield from _section("Environment", render.environment(run, packages=packages))
    left_out = run.code.get("left_out") or []
    yield from _section("Not recorded with the code", (f"{path}: {reason}" for path, reason in left_out))
    yield ""


def _dataset(one: DatasetInput) -> list[str]:
    context = next((tag.value for tag in one.tags if tag.key == "mlflow.data.context"), "")
    return [one.dataset.name, context, one.dataset.digest]


def _section(title: str, body: Iterator[str]) -> Iterator[str]:
    """A heading and its indented lines; nothing if there are none."""
    for number, line in enumerate(body):
        if number == 0:
            yield ""
            yield output.style(title, "bold")
        yield "    " + line
