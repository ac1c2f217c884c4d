"""What several verbs share: opening the store, options of the same meaning, completion of names."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gittrack.cli import output, text
from gittrack.errors import GittrackError, NotFoundError, UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from gittrack.track.runs import Tracker
    from gittrack.types import Artifact, Experiment, PagedList, Run

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

#: In a context's ``meta``: the first word after a group, if that is none of its verbs.
_FIRST = "gittrack.first"
#: Characters of a run id that are shown where the whole id would be noise.
SHORT = 8
#: Runs that are read at a time: more than a screen, little enough to show the first ones at once.
PAGE = 200


def _color(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        output.settings.color = value


def _no_pager(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        output.settings.pager = False


def terminal_options(hidden: bool = False) -> list[click.Parameter]:
    """``--color`` and ``--no-pager``: listed once, for the program, and understood after every verb too."""
    return [
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            help="When to use colour; `auto` is on a terminal, unless NO_COLOR is set.",
            callback=_color,
            expose_value=False,
            hidden=hidden,
        ),
        click.Option(
            ["--no-pager"],
            is_flag=True,
            help="Do not page long output.",
            callback=_no_pager,
            expose_value=False,
            hidden=hidden,
        ),
    ]


class _Number(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A number of 0 or more."""

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind
        self.name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number that ``value`` spells."""
        try:
            number = self.kind(value)
        except ValueError:
            number = -1
        if not number >= 0:
            self.fail(f"`{value}` is no {'whole ' if self.kind is int else ''}number of 0 or more", param, ctx)
        return number


COUNT = _Number(int)
NUMBER = _Number(float)


class Helped(click.Command):
    """A command with ``-h``, whose help goes through the pager like any other text."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Click's option, with another way to print."""

        def show(context: click.Context, parameter: click.Parameter, value: bool) -> None:
            if value and not context.resilient_parsing:
                output.lines(context.get_help().split("\n"))
                context.exit()

        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = show
        return option


class Verb(Helped):
    """A verb: a click command that also takes the program's terminal options, and ``-h``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **kwargs)
        self.params.extend(terminal_options(hidden=True))


def verb(*, name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Verb]:
    """Make a function a verb, as ``click.command`` does."""
    return click.command(name, cls=Verb, **settings)


class VerbGroup(Helped, click.Group):
    """A verb with verbs of its own; without one of them, it is the one named ``default``."""

    command_class = Verb

    def __init__(self, *args: Any, default: str, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        kwargs["no_args_is_help"] = False
        kwargs.setdefault("subcommand_metavar", "[VERB] [ARGS]…")
        super().__init__(*args, **kwargs)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default in where the first word is none of the group's verbs."""
        if not args and ctx.resilient_parsing:
            return super().parse_args(ctx, args)  # a shell asks what could come first
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            if args and not args[0].startswith("-"):
                ctx.meta[_FIRST] = args[0]
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb.  Of a word that means nothing to the default verb, the error says that it is no verb either."""
        first = ctx.meta.get(_FIRST)
        if first is None:
            return super().invoke(ctx)
        close = text.suggest(first, self.commands)
        hint = close or f"`{ctx.command_path} -h` lists the verbs"
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if type(error) is not click.UsageError:  # about an option, say
                raise
            raise UsageError(f"`{first}` is no verb of `{ctx.command_path}`", hint=hint) from error
        except NotFoundError as error:
            if f"`{first}`" in error.message and (close or error.hint is None or "did you mean" not in error.hint):
                error.hint = f"{error.hint}; {hint}" if error.hint else hint
            raise

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The group's verbs, and what the default verb's first argument could be."""
        found = super().shell_complete(ctx, incomplete)
        first = next((one for one in self.commands[self.default].params if isinstance(one, click.Argument)), None)
        return found if first is None else found + first.shell_complete(ctx, incomplete)


def context_of(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    """A context to explain ``command`` in, with the settings it would be called with."""
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


@contextlib.contextmanager
def tracker(*, write: bool = False, create: bool = False, fresh: bool = True) -> Iterator[Tracker]:
    """The tracker of the store that the current folder belongs to.

    Args:
        fresh: Bring the index up to date first, which shows progress; a verb that takes care of that itself says false.
        write: What is changed is committed before this ends.
        create: Make a store where there is none; implies ``write``.

    Raises:
        NotARepositoryError: There is no store, and ``create`` is false.
    """
    from gittrack import session

    opened = session.open_tracker() if create else session.open_reader()
    try:
        if fresh:
            with output.Progress("reading new runs") as progress:
                opened.repo.refresh(progress.update)
        yield opened
    finally:
        if write or create:
            opened.close()
        else:
            opened.repo.close()


def fetch(opened: Tracker, artifacts: Iterable[Artifact], *, remote: str | None = None) -> bool:
    """Bring the bytes of artifacts here that are not in this clone; False if all are.

    They come from ``remote``, the default one if None.

    Raises:
        NotFoundError: Nobody has some of them.
        GittrackError: They cannot be fetched; see ``gittrack.sync.artifacts.ensure``.
    """
    import sys

    from gittrack.sync import artifacts as sync

    items = sync.absent(opened.repo, sync.Item.of(artifacts))
    if not items:
        return False
    ask = output.is_terminal(sys.stderr)
    with output.Progress("fetching", sizes=True) as progress:
        moved = sync.ensure(opened, items, remote=remote, progress=progress.update, interactive=ask)
    output.message(f"fetched {text.count(moved.count, 'file')}, {text.size(moved.bytes)}")
    return True


def experiment_ids(opened: Tracker, names: Sequence[str]) -> list[str] | None:
    """Ids of the experiments given by name or id; None, which means all, if there are no names.

    Raises:
        NotFoundError: No experiment is called that.
    """
    return [experiment_id(opened, name) for name in names] or None


def experiment_id(opened: Tracker, name: str) -> str:
    """Id of the experiment called ``name``, or with that id.  Raises NotFoundError with a suggestion."""
    known = all_experiments(opened)
    found = [one for one in known if one.name == name] or [one for one in known if one.experiment_id == name]
    if not found:
        hint = text.suggest(name, [one.name for one in known]) or "`gittrack experiments` lists them"
        raise NotFoundError(f"no experiment `{name}`", hint=hint)
    return found[0].experiment_id


def all_experiments(opened: Tracker) -> list[Experiment]:
    """Every experiment, deleted ones too."""
    from gittrack.types import ViewType

    return list(every(lambda token: opened.search_experiments(view=ViewType.ALL, page_token=token)))


def experiment_names(opened: Tracker) -> dict[str, str]:
    """Names of all experiments by id."""
    return {one.experiment_id: one.name for one in all_experiments(opened)}


def every(page: Callable[[str | None], PagedList[T]]) -> Iterator[T]:
    """The items of all pages; ``page`` gets a token and returns that page.  The next page is asked for when needed."""
    token: str | None = None
    while True:
        items = page(token)
        yield from items
        token = items.token
        if token is None:
            return


def pages(
    opened: Tracker,
    *,
    experiments: Sequence[str] = (),
    filter_string: str = "",
    view: int = 1,
    order_by: list[str] | None = None,
    limit: int | None = None,
) -> Iterator[Run]:
    """Runs that match, newest first unless ``order_by`` says otherwise, read page by page as they are used.

    Raises:
        NotFoundError: An experiment in ``experiments`` does not exist.
        QuerySyntaxError: The filter or the order cannot be read.
    """
    ids = experiment_ids(opened, experiments)
    size = PAGE if limit is None else min(limit, PAGE)
    if size == 0:
        return iter(())
    runs = every(
        lambda token: opened.search_runs(
            ids, filter_string, view=view, max_results=size, order_by=order_by, page_token=token
        )
    )
    return islice(runs, limit)


def program() -> str:
    """The program that was started, by its full path; `gittrack` where it is not known (`python -m`)."""
    started = Path(sys.argv[0])
    if started.name in ("gittrack", "git-track") and started.exists():
        return str(started.with_name("gittrack").resolve())
    return shutil.which("gittrack") or "gittrack"


def without_models(opened: Tracker, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that do not name a logged model by its id, and those that do."""
    if not any(word.startswith("m-") for word in words):
        return list(words), []
    from gittrack.track.logged_models import LoggedModels

    models = []
    for word in words:
        with contextlib.suppress(NotFoundError):
            models.append(LoggedModels(opened).get(word, deleted=True).model_id)
    return [word for word in words if word not in models], models


def keeper_of(opened: Tracker, word: str) -> str | None:
    """The run that is there only to keep the logged model of that id; None if the word names none.

    Raises:
        UsageError: A run made the model, which cannot be forgotten without it.
    """
    for model_id in without_models(opened, [word])[1]:
        from gittrack.track.logged_models import LoggedModels

        model = LoggedModels(opened).get(model_id, deleted=True)
        if not model.is_alone:
            raise UsageError(f"`{model_id}` goes with the run that made it", hint=f"--purge {model.run_id[:SHORT]}")
        return model.run_id
    return None


def core_pager() -> str | None:
    """Git's ``core.pager``, as seen from this folder."""
    from gittrack import config

    return config.git_value("core.pager")


# --- options with one meaning everywhere


class Bytes(click.ParamType):  # type: ignore[type-arg]  # generic only in newer clicks
    """A number of bytes, with k, m or g behind it for multiples of 1024."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that ``value`` spells."""
        match = re.fullmatch(r"([0-9]{1,12})([kmg]?)", str(value).lower())
        if match is None:
            self.fail(f"`{value}` is no number of bytes, such as 500k or 8m", param, ctx)
        return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2]]


def json_option(function: F) -> F:
    """``--json``: one JSON document instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON (see `gittrack help runs`).")(function)


def experiment_option(function: F) -> F:
    """``-e``, repeatable: only runs of these experiments."""
    return click.option(
        "-e",
        "--experiment",
        "experiments",
        multiple=True,
        metavar="NAME",
        shell_complete=complete_experiments,
        help="Only runs of this experiment (name or id); may be given several times.",
    )(function)


def one_experiment_option(function: F) -> F:
    """``-e``: only runs of this experiment."""
    return click.option(
        "-e",
        "--experiment",
        metavar="NAME",
        shell_complete=complete_experiments,
        help="Only runs of this experiment (name or id) count.",
    )(function)


def limit_option(function: F) -> F:
    """``-n``: at most that many."""
    return click.option("-n", "--max-count", "limit", type=COUNT, help="Show at most N.", metavar="N")(function)


def format_option(function: F) -> F:
    """``--format``: a line per run, from placeholders."""
    return click.option(
        "--format", "template", metavar="FORMAT", help="Print this for each run: `%h %N %m(acc)`; see `help runs`."
    )(function)


def run_argument(function: F) -> F:
    """``RUN``, required."""
    return click.argument("run", shell_complete=complete_runs)(function)


# --- completion: never an error, at worst no proposals


def complete_runs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Recent runs by name where that is one run's only, and by id, each with the other beside it."""
    from click.shell_completion import CompletionItem

    def items(opened: Tracker) -> list[CompletionItem]:
        from collections import Counter

        from gittrack.types import ViewType

        runs: Sequence[Run] = opened.search_runs(view=ViewType.ALL, max_results=PAGE)
        amounts = Counter(run.info.run_name for run in runs)
        by_name = [
            run
            for run in runs
            if incomplete and run.info.run_name.startswith(incomplete) and amounts[run.info.run_name] == 1
        ]
        by_id = [run for run in runs if run.info.run_id.startswith(incomplete)]
        return [CompletionItem(run.info.run_name, help=run.info.run_id[:SHORT]) for run in by_name] + [
            CompletionItem(run.info.run_id[:SHORT], help=text.clean(run.info.run_name)) for run in by_id
        ]

    return _completed(items)


def complete_experiments(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Experiments by name."""
    from click.shell_completion import CompletionItem

    return _completed(
        lambda opened: [
            CompletionItem(one.name) for one in opened.search_experiments() if one.name.startswith(incomplete)
        ]
    )


def _completed(items: Callable[[Tracker], list[CompletionItem]]) -> list[CompletionItem]:
    try:
        with tracker() as opened:
            return items(opened)
    except GittrackError:
        return []  # a shell that completes a line is no place for a message
