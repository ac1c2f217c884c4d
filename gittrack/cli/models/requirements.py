"""``gittrack models requirements``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output, text
from gittrack.cli.models import base
from gittrack.errors import InvalidValueError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gittrack.registry.registry import Registry
    from gittrack.types import ModelVersion

#: The exit status of `--verify` when the model does not work, as `gittrack reproduce` has it.
_NOT_PROVED = 3


@common.verb()
@base.version_argument
@click.option("-a", "--add", "added", multiple=True, metavar="REQ", help="Add a requirement, or put another version.")
@click.option("-r", "--remove", "removed", multiple=True, metavar="NAME", help="Remove the requirement of this name.")
@click.option("--set", "file", metavar="FILE", help="Take all of them from this file; `-` is standard input.")
@click.option("-e", "--edit", is_flag=True, help="Change them in your editor.")
@click.option("--reset", is_flag=True, help="Go back to what was recorded with the model.")
@base.reason_option
@click.option("--log", "history", is_flag=True, help="Show who changed them, when and why.")
@click.option("--verify", "prove", is_flag=True, help="Install them in a fresh environment; load and predict there.")
@click.option(
    "--env", "kind", type=click.Choice(["venv", "uv"]), default="venv", help="What `--verify` makes; venv by default."
)
@click.option("--trust", is_flag=True, help="Let `--verify` run code that came with the model.")
@common.json_option
def verb(
    version: str,
    added: tuple[str, ...],
    removed: tuple[str, ...],
    file: str | None,
    edit: bool,
    reset: bool,
    reason: str,
    history: bool,
    prove: bool,
    kind: str,
    trust: bool,
    as_json: bool,
) -> int:
    """Show what VERSION needs to be installed, change it, or prove it.

    The version itself is never touched: a change is a fact of its own, with a history, that every pull and serve uses
    from then on. `--verify` makes an environment with nothing but these requirements and what gittrack needs, and
    says what is missing; its exit status is 3 if the model does not work there.
    """
    from gittrack.models import requirements

    writing = bool(added or removed or file is not None or edit or reset)
    if sum([bool(added or removed), file is not None, edit, reset]) > 1:
        raise UsageError("`--add` and `--remove`, `--set`, `--edit` and `--reset` exclude each other")
    if sum([writing, history, prove]) > 1:
        raise UsageError("changing, `--log` and `--verify` exclude each other", hint="one after the other")
    with base.registry(write=writing) as opened:
        found = opened.resolve(version)
        if history:
            _log(opened, found, as_json)
            return 0
        if prove:
            return _verify(opened, found, version, kind, trust=trust, as_json=as_json)
        lines = requirements.in_force(opened, found)
        if not writing:
            _show(opened, found, lines, as_json)
            return 0
        if reset:
            new: list[str] | None = None
        elif file is not None:
            new = requirements.parse(_bytes_of(file))
        elif edit:
            changed = click.edit("\n".join(lines) + "\n", extension=".txt")
            new = lines if changed is None else requirements.check(changed.splitlines())
        else:
            new = requirements.edited(lines, add=added, remove=removed)
        if new == lines:
            output.message(f"the requirements of `{found.name}` v{found.version} stay as they are")
            return 0
        opened.set_requirements(found.name, found.version, None if new is None else "\n".join(new) + "\n", reason)
        output.lines(_changes(lines, requirements.in_force(opened, found)))
    return 0


def _bytes_of(file: str) -> bytes:
    """What is in the file that `--set` names."""
    from gittrack.models import requirements
    from gittrack.store import files

    if file == "-":
        return sys.stdin.buffer.read()
    if not Path(file).exists():
        try:
            requirements.parse_line(file)
        except InvalidValueError as error:
            raise InvalidValueError(
                f"`{file}` is neither a file nor a requirement",
                hint="`--set` takes a file with lines like NAME==VERSION, `--add` one such line",
            ) from error
        raise NotFoundError(f"there is no file `{file}`", hint="`--set` takes a file, `--add` a single requirement")
    with files.reporting(file, "read"):
        return Path(file).read_bytes()


def _show(opened: Registry, version: ModelVersion, lines: list[str], as_json: bool) -> None:
    from gittrack.models import requirements

    changed = opened.requirements(version.name, version.version) is not None
    if as_json:
        recorded = requirements.recorded(opened, version)
        output.document({"requirements": lines, "changed": changed, "recorded": recorded})
        return
    output.lines(text.clean(line) for line in lines)
    if changed:
        output.message(f"changed since v{version.version} was registered; `--log` says by whom, `--reset` undoes it")


def _changes(before: list[str], after: list[str]) -> Iterator[str]:
    """What went and what came, as in a diff."""
    yield from (output.style(f"- {text.clean(line)}", "red") for line in before if line not in after)
    yield from (output.style(f"+ {text.clean(line)}", "green") for line in after if line not in before)


def _log(opened: Registry, version: ModelVersion, as_json: bool) -> None:
    edits = opened.requirements_history(version.name, version.version)
    if as_json:
        output.array(
            {"time": one.time, "who": one.who, "requirements": one.value, "reason": one.reason} for one in edits
        )
        return
    if not edits:
        output.message(f"the requirements of `{version.name}` v{version.version} were never changed")
    for one in reversed(edits):
        output.lines(
            [
                output.style(f"{text.date(one.time)}  {text.clean(one.who)}", "yellow"),
                *(f"    {line}" for line in text.clean_lines(one.reason)),
                *(f"    {line}" for line in text.clean_lines(one.value or "back to what was recorded")),
                "",
            ]
        )


def _verify(opened: Registry, version: ModelVersion, address: str, kind: str, *, trust: bool, as_json: bool) -> int:
    from gittrack.models import addresses, environments, requirements
    from gittrack.registry.names import address_of

    local = addresses.fetch(address_of(version.name, version.version), trust=trust, tracker=opened.tracker)
    found = environments.verify(local, requirements.read(local.folder), kind=kind, say=output.message)
    if as_json:
        output.document(
            {
                "works": found.works, "predicted": found.predicted, "problem": found.problem,
                "missing": found.missing, "suggestion": found.suggestion, "requirements": found.requirements,
            }
        )  # fmt: skip
    elif found.works:
        done = (
            "loads and predicts its input example" if found.predicted else "loads; it has no input example to predict"
        )
        output.lines([f"`{address}` {done} with {text.count(len(found.requirements), 'requirement')}"])
    else:
        hint = None
        if found.suggestion:
            hint = f"`gittrack models requirements {address} --add '{found.suggestion.partition('  #')[0]}'`"
        output.error(f"`{address}` does not work with its requirements alone: {text.clean(found.problem)}", hint)
    return 0 if found.works else _NOT_PROVED
