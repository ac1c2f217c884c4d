"""What the verbs of ``gittrack models`` share: opening the registry, its arguments and options, its words."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gittrack.cli import common, output
from gittrack.errors import GittrackError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from gittrack.registry.registry import Registry
    from gittrack.types import ModelVersion, RegisteredModel

F = TypeVar("F", bound=Callable[..., Any])

#: The colour of each stage that is one.
_STAGE_STYLE = {"Production": "green", "Staging": "yellow", "Archived": "dim"}


@contextlib.contextmanager
def registry(*, write: bool = False) -> Iterator[Registry]:
    """The registry of the store that the current folder belongs to.

    Args:
        write: What is changed is committed before this ends.

    Raises:
        NotARepositoryError: There is no store.
    """
    from gittrack.registry.registry import Registry

    with common.tracker(write=write, fresh=False) as opened:
        found = Registry(opened)
        with output.Progress("reading new tags"):
            found.catalog.refresh()
        yield found


def fetch_version(registry: Registry, version: ModelVersion) -> None:
    """Bring the files of a version here that are not in this clone, with a bar.  Raises as ``common.fetch``."""
    from gittrack.types import Artifact

    files = registry.manifest(version).files
    common.fetch(registry.tracker, [Artifact(path, *found) for path, found in files.items()])


def fetch_model(uri: str) -> None:
    """Bring the files of the model at an address here that are not in this clone, with a bar.

    Raises:
        GittrackError: As ``addresses.locate`` and ``common.fetch``.
    """
    from gittrack import session
    from gittrack.models import addresses
    from gittrack.server.following import is_folder

    if is_folder(uri):
        return
    opened = session.open_reader()
    try:
        common.fetch(opened, addresses.locate(uri, tracker=opened).files.values())
    finally:
        opened.repo.close()


def version_of(registry: Registry, address: str) -> tuple[str, str | None]:
    """The model and, if the address is one of a version, the version's number that an address names."""
    from gittrack.registry.names import parse_address

    wanted = parse_address(address)
    if wanted.of_model:
        return registry.get_model(wanted.name).name, None
    found = registry.resolve(address)
    return found.name, found.version


def move(opened: Registry, name: str, number: str, stage: str, *, archive: bool, reason: str, sign: bool) -> None:
    """Put a version into a stage, and say what that changed."""
    before = opened.state(name).heads(int(number))
    found = opened.promote(name, number, stage, archive_existing=archive, reason=reason, sign=sign)
    what = f"`{found.name}` v{found.version}"
    if opened.state(name).heads(int(number)) != before:
        output.message(f"{what} is in stage {found.current_stage} now")
    elif sign:
        output.message(f"{what} was in stage {found.current_stage} already; you signed that it is")
    else:
        kept = ", nor the reason kept" if reason else ""
        output.message(f"{what} is in stage {found.current_stage} already; nothing was changed{kept}")


def reason_option(function: F) -> F:
    """``-m``: why, for the audit trail."""
    return click.option(
        "-m", "--message", "reason", default="", metavar="TEXT", help="Why; kept for `gittrack models log`."
    )(function)


def sign_option(function: F) -> F:
    """``-s``: sign the tag."""
    return click.option("-s", "--sign", is_flag=True, help="Sign the tag with your git signing key.")(function)


def version_argument(function: F) -> F:
    """``VERSION``, required: NAME@v3, NAME@ALIAS, NAME@STAGE or NAME@latest."""
    return click.argument("version", shell_complete=complete_versions)(function)


def model_option(function: F) -> F:
    """``-m``, required: the model to load."""
    return click.option(
        "-m",
        "--model-uri",
        "uri",
        required=True,
        metavar="MODEL",
        shell_complete=complete_versions,
        help="The model: `models:/NAME/STAGE`, `NAME@ALIAS`, `NAME@vN`, `runs:/RUN/PATH` or a folder.",
    )(function)


def trust_option(function: F) -> F:
    """``--trust``: code that came with the model may run."""
    return click.option("--trust", is_flag=True, help="Run code that came with the model (`gittrack help models`).")(
        function
    )


def name_argument(function: F) -> F:
    """``NAME``, required: a model."""
    return click.argument("name", shell_complete=complete_models)(function)


def complete_models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models by name; never an error, at worst no proposals."""
    from click.shell_completion import CompletionItem

    try:
        with registry() as opened:
            return [CompletionItem(one.name) for one in _all(opened) if one.name.startswith(incomplete)]
    except GittrackError:
        return []  # a shell that completes a line is no place for a message


def complete_versions(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models by name or, behind an ``@``, the versions and aliases of one."""
    from click.shell_completion import CompletionItem

    name, at, _ = incomplete.rpartition("@")
    if not at:
        return complete_models(context, parameter, incomplete)
    try:
        with registry() as opened:
            words = [*opened.get_model(name).aliases, *(f"v{one.version}" for one in opened.versions(name)), "latest"]
    except GittrackError:
        return []
    return [CompletionItem(f"{name}@{word}") for word in words if f"{name}@{word}".startswith(incomplete)]


def _all(opened: Registry) -> Iterator[RegisteredModel]:
    return common.every(lambda token: opened.search_models(max_results=1000, page_token=token))


def stage(name: str) -> str:
    """A stage as a cell in its colour; nothing for None."""
    return output.Cell(name, _STAGE_STYLE[name]) if name in _STAGE_STYLE else ""


def version_json(version: ModelVersion, registry: Registry | None = None) -> dict[str, Any]:
    """A version as `--json` prints it; with ``registry``, also whether its number is official."""
    return dict(version) | ({} if registry is None else {"published": not registry.catalog.unpublished(version)})


def number(registry: Registry, version: ModelVersion) -> str:
    """A version's number as it is shown: ``v4?`` while no remote has taken it."""
    return f"v{version.version}{'?' if registry.catalog.unpublished(version) else ''}"


def model_json(model: RegisteredModel) -> dict[str, Any]:
    """A model as `--json` prints it."""
    return dict(model) | {"latest_versions": [version_json(one) for one in model.latest_versions]}
