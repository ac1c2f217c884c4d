"""``gittrack clone``."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from gittrack.cli import common, init, output, pull, sharing
from gittrack.errors import AlreadyExistsError, UsageError


@common.verb()
@click.argument("url")
@click.argument("folder", required=False, type=click.Path(file_okay=False))
@click.option("--depth", type=common.COUNT, metavar="N", help="Only the last N commits of the code's history.")
@click.option("--filter", "spec", metavar="SPEC", help="What git may leave out until it is needed: `blob:none`.")
@click.option("--bare", is_flag=True, help="Without a work tree.")
def command(url: str, folder: str | None, depth: int | None, spec: str | None, bare: bool) -> None:
    """Clone a git repository with its runs and models.

    As `git clone`, followed by `gittrack init` and `gittrack pull` in it. The files of runs come when they are asked
    for. FOLDER is the last part of URL if it is not given.
    """
    from gittrack.store import gateway
    from gittrack.sync import remotes, transport

    remotes.check_url(url)
    target = Path(folder if folder is not None else _name(url, bare=bare))
    if target.exists() and any(target.iterdir()):
        raise AlreadyExistsError(f"`{target}` exists and is not empty", hint="name another folder")
    if spec is not None and not re.fullmatch(r"[a-z]+:[a-z0-9]+", spec):
        raise UsageError(f"`{spec:.40}` is no filter of git's", hint="such as `--filter blob:none`")
    there = os.path.abspath(url) if _is_path(url) else url  # noqa: PTH100 - Path.resolve would follow links
    arguments = [f"--depth={depth}"] if depth else []
    arguments += [f"--filter={spec}"] if spec is not None else []
    arguments += ["--bare"] if bare else []
    with output.Progress(f"cloning into {target}") as progress:
        done = gateway.clone(there, target.absolute(), *arguments, interactive=sharing.interactive(),
                             progress=lambda line: progress.tell(line.partition(":")[0].lower(), 0))  # fmt: skip
    if done.status != 0:
        raise transport.failure(done.stderr.decode("utf-8", "replace"), done.status,
                                f"`{gateway.strip_credentials(url)}`", f"`{target}` was not made")  # fmt: skip
    output.message(f"cloned into `{target}`")
    os.chdir(target)
    context = click.get_current_context()
    context.invoke(init.command, folder=Path())
    context.invoke(pull.command, remote="origin", experiments=(), runs=(), models=(), author="", since=None)


def _is_path(url: str) -> bool:
    return Path(url).exists() or (":" not in url and "/" in url)


def _name(url: str, *, bare: bool) -> str:
    """The folder that git would make."""
    last = re.split(r"[/:\\]", url.rstrip("/"))[-1].removesuffix(".git")
    if last in ("", ".", "..") or last.startswith("-"):
        raise UsageError(f"`{url:.200}` does not say what the folder shall be called", hint="name one behind it")
    return f"{last}.git" if bare else last
