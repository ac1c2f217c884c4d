"""``--env`` of the verbs that load a model: the same command again, in the environment that the model asks for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from gittrack.cli import output

F = TypeVar("F", bound=Callable[..., Any])

LOCAL: Final = "local"


def option(function: F) -> F:
    """``--env``: where the model is loaded."""
    return click.option(
        "--env",
        "--env-manager",
        "environment",
        type=click.Choice([LOCAL, "venv", "uv"]),
        default=LOCAL,
        show_default=True,
        help="Where to load it: in this Python, or in an environment made from its requirements.",
    )(function)


def enter(kind: str, uri: str, *, trust: bool, waiting: Sequence[signal.Signals] = ()) -> int | None:
    """Run this command in the environment of the model at ``uri``, unless it is to run here.

    Args:
        kind: The choice of ``option``.
        uri: The model's address.
        trust: Code that comes with the model may run.
        waiting: Signals that the other process takes as soon as it can (``gittrack.server.ending``).

    Returns:
        None if it is to run here; else the exit status, where the process could not simply become the other one.

    Raises:
        GittrackError: The model is not there, or its environment cannot be made.
    """
    if kind == LOCAL:
        return None
    from gittrack import session
    from gittrack.models import addresses, environments, requirements
    from gittrack.server.following import is_folder

    tracker = None if is_folder(uri) else session.open_reader()
    local = addresses.fetch(uri, trust=trust, tracker=tracker)
    built = environments.for_model(local, requirements.read(local.folder), kind=kind, say=output.message)
    if tracker is not None:
        tracker.repo.close()
    # The last `--env` counts.  What came before the verb has had its effect on this process.
    words = [str(built.python), "-I", "-m", "gittrack", *sys.argv[sys.argv.index("models") :], "--env", LOCAL]
    del local  # with its files: the other process fetches them anew
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_BLOCK, waiting)
        os.execve(words[0], words, environments.child_environment())  # noqa: S606 - no shell is wanted
    return subprocess.run(words, env=environments.child_environment(), check=False).returncode
