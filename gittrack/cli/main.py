"""``gittrack`` and ``git track``: finds the verb, and turns every failure into one shape and one exit status.

Exit statuses: 0 success; 1 not found, refused, conflict; 2 wrong usage; 3 not reproduced; 4 damaged data; 130 ^C;
141 the reader of the output went away; 255 a bug of gittrack's.  ``gittrack help errors`` is the whole table.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from gittrack.cli import output, text
from gittrack.cli.common import Helped, terminal_options
from gittrack.errors import GittrackError, QuerySyntaxError, StorageError

#: Every verb, in the order and under the headings of `gittrack help`.  The file of a verb has its name.
VERBS: Final = {
    "start": ("init", "demo", "run"),
    "look": ("ui", "tui", "log", "show", "diff", "status", "experiments", "search", "metrics", "artifacts"),
    "change": ("tag", "note", "rm", "restore"),
    "reproduce": ("reproduce",),
    "share": ("push", "pull", "fetch", "clone", "sync", "remote", "bundle", "unbundle"),
    "models by name": ("models",),
    "serve a team": ("server",),
    "commits and branches": ("which", "report", "gate", "bisect", "hooks"),
    "move in and out": ("import", "export"),
    "take care of the store": ("gc", "fsck", "reindex"),
    "settings and help": ("config", "completion", "help"),
}
#: Called by git, not by people.
HIDDEN: Final = ("textconv", "hook")
#: What people type who come from elsewhere, and what it is called here.
ELSEWHERE: Final = {
    "ls": "log", "list": "log", "runs": "log", "compare": "diff", "delete": "rm", "remove": "rm", "undelete": "restore",
    "check": "fsck", "verify": "fsck", "exec": "run", "plot": "metrics", "cat": "artifacts cat", "get": "artifacts get",
    "download": "artifacts get", "find": "search",
    "upload": "push", "experiment": "experiments", "artifact": "artifacts",
    "metric": "metrics", "model": "models", "register": "models register", "promote": "models promote",
    "repro": "reproduce", "version": "--version",
}  # fmt: skip

#: How the script of `gittrack completion` asks.
COMPLETE: Final = "_GITTRACK_COMPLETE"
_REFUSED: Final = "the operating system says so: look at the path, its owner and the room on the disk"
_POINTABLE: Final = 160  #: characters of a filter that a mark beneath it still makes clearer
EXIT_INTERRUPTED: Final = 130
EXIT_BROKEN_PIPE: Final = 141
EXIT_BUG: Final = 255


class Program(Helped, click.Group):
    """The program: its verbs are loaded when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb that people call."""
        return [name for names in VERBS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a verb from its file."""
        if cmd_name not in self.list_commands(ctx) and cmd_name not in HIDDEN:
            return None
        command: click.Command = import_module(f"gittrack.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that the first word names, or an error that says which one was meant."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            known = ELSEWHERE.get(name)
            hint = f"did you mean `{known}`?" if known else text.suggest(name, self.list_commands(ctx))
            raise Usage(f"`{name}` is not a gittrack command", hint or "`gittrack help` lists the commands")
        return name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs with their first line, under their headings."""
        for heading, names in VERBS.items():
            with formatter.section(heading.capitalize()):
                commands = [(name, self.get_command(ctx, name)) for name in names]
                formatter.write_dl([(name, one.get_short_help_str(90)) for name, one in commands if one is not None])
        formatter.write_paragraph()
        formatter.write_text("`gittrack help VERB` explains a verb, `gittrack help TOPIC` a topic, `gittrack help -l`"
                             " lists the topics.")  # fmt: skip


class Usage(click.UsageError):
    """A usage error with its own hint."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from gittrack._version import __version__

        output.lines([f"gittrack {__version__}"])
        context.exit()


def _change_folder(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    for folder in value:
        try:
            os.chdir(folder)
        except OSError as error:
            raise Usage(f"cannot change to `{folder}`: {error.strerror}", "`-C` takes a folder that exists") from None


def program() -> Program:
    """The program as click sees it."""
    return Program(
        name="gittrack",
        help="Track machine learning in git: a run is a commit on top of the code that made it.",
        epilog=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        params=[
            click.Option(
                ["-C", "folder"],
                multiple=True,
                metavar="DIR",
                is_eager=True,
                expose_value=False,
                callback=_change_folder,
                help="Run as if started in DIR; each further one is relative to the one before.",
            ),
            *terminal_options(),
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_version,
                help="Show the version.",
            ),
        ],
        subcommand_metavar="VERB [ARGS]…",
        callback=_nothing,
    )


def _nothing() -> None:
    """The program's own options act through their callbacks."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``gittrack`` and ``git-track``; always leaves by ``SystemExit``."""
    name = os.path.basename(sys.argv[0]) if sys.argv else "gittrack"  # noqa: PTH119 - pathlib costs more than this verb
    sys.exit(
        run(list(sys.argv[1:] if arguments is None else arguments), "git track" if name == "git-track" else "gittrack")
    )


def run(arguments: list[str], name: str = "gittrack") -> int:
    """Run one command line; the exit status.

    Args:
        arguments: The words after the program's name.
        name: What the program is called in usage lines.
    """
    output.reset()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings = _Warnings()
    logging.getLogger("gittrack").addHandler(warnings)
    try:
        status = _run(arguments, name)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more when it ends; with nobody listening that would be a second failure.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    finally:
        logging.getLogger("gittrack").removeHandler(warnings)
    return status


def _run(arguments: list[str], name: str) -> int:
    try:
        arguments = arguments or ["--help"]
        # Not `main` of click's: it has its own opinion on a reader that went away.
        if instruction := os.environ.get(COMPLETE):
            return _complete(instruction)
        with program().make_context(name, arguments) as context:
            result = context.command.invoke(context)
    except click.exceptions.Exit as left:  # after `--help`, for one
        return left.exit_code
    except QuerySyntaxError as error:
        short = len(error.text) <= _POINTABLE
        error.hint = error.hint or "`gittrack help search` explains filters and orders"
        output.error(error.message, error.hint, pointing=(error.text, error.column) if short else None)
        return error.exit_status
    except GittrackError as error:
        output.error(error.message, error.hint)
        return error.exit_status
    except click.ClickException as error:
        message, hint = _usage(error, _path(error, name, arguments))
        output.error(message, hint)
        return 2 if isinstance(error, click.UsageError) else 1
    except (click.Abort, KeyboardInterrupt):
        if output.is_terminal(sys.stderr):
            output.message("")  # the prompt that comes next does not stand behind the terminal's `^C`
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None:
            return _bug(error, [name, *arguments])
        # A file that the person named, or the disk; not worth a report.
        refused = StorageError(
            f"cannot use `{os.fsdecode(error.filename)}`: {str(error.strerror).lower()}", hint=_REFUSED
        )
        output.error(refused.message, refused.hint)
        return refused.exit_status
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug becomes a report
        return _bug(error, [name, *arguments])
    return result if isinstance(result, int) else 0


def _bug(error: Exception, words: Sequence[str]) -> int:
    """Write a report about ``error`` and say where it is."""
    from gittrack.cli.bugs import report

    path = report(error, words)
    output.error(
        f"gittrack has a bug: {type(error).__name__}: {error}", f"the details are in `{path}`; please report them"
    )
    return EXIT_BUG


def _complete(instruction: str) -> int:
    """Answer a shell that completes a line."""
    from click.shell_completion import shell_complete

    return shell_complete(program(), {}, "gittrack", COMPLETE, instruction)


def _path(error: click.ClickException, name: str, arguments: Sequence[str]) -> str:
    """The command that the error is about, as the person called it."""
    context = getattr(error, "ctx", None)
    if context is not None:
        return str(context.command_path)
    verb = next((word for word in arguments if any(word in names for names in VERBS.values())), None)
    return f"{name} {verb}" if verb else name


def _usage(error: click.ClickException, path: str) -> tuple[str, str | None]:
    """Message and hint of one of click's own errors about the command ``path``, in gittrack's wording."""
    context = getattr(error, "ctx", None)
    hint: str | None = f"`{path} -h` shows how it is used"
    if isinstance(error, Usage):
        return error.message, error.hint
    if isinstance(error, click.NoSuchOption):
        close = text.suggest(error.option_name, error.possibilities or [])
        return f"no option `{error.option_name}`", f"{close} {hint}" if close else hint
    if isinstance(error, click.MissingParameter) and error.param is not None:
        word = error.param.metavar or (error.param.name or "").upper()
        option = f"`{error.param.opts[-1]} {word}`" if isinstance(error.param, click.Option) else word
        return f"`{path}` needs {option}", hint
    if isinstance(error, click.BadParameter) and isinstance(error.param, click.Argument):
        said = error.message.strip().rstrip(".").replace("'", "`")
        return said[:1].lower() + said[1:], hint
    message = error.format_message().strip().rstrip(".").replace("'", "`")
    extra = re.fullmatch(r"Got unexpected extra arguments? \((.*)\)", message)
    if extra and context is not None:
        return f"`{path}` does not take `{extra[1]}`", getattr(context.command, "extra_hint", hint)
    return message[:1].lower() + message[1:], hint


class _Warnings(logging.Handler):
    """What the layers below warn about, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        output.warning(record.getMessage().removeprefix("gittrack: "))
