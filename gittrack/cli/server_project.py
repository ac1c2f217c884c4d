"""``gittrack server project`` and its verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gittrack.cli import common, output

if TYPE_CHECKING:
    from gittrack.server.hub.projects import Projects


@click.group(cls=common.VerbGroup, default="list")
def command() -> None:
    """List the projects that a server has; make one.

    A project is a repository of its own on the server: `http://HOST:5000/git/NAME` is its address for git, git-lfs and
    `gittrack remote add`. `default` is the repository that the server is started in. Without a further word the
    projects are listed.
    """


def _projects() -> Projects:
    from pathlib import Path

    from gittrack.server.hub.projects import Projects
    from gittrack.store.repo import Repo

    return Projects(Repo.find(Path.cwd()))


@command.command("list")
@common.json_option
def list_projects(as_json: bool) -> None:
    """List the projects of the server of this repository."""
    names = _projects().names()
    if as_json:
        output.array([{"name": name} for name in names])
    else:
        output.lines(names)


@command.command("create")
@click.argument("name")
def create(name: str) -> None:
    """Make the empty project NAME; a server that runs has it at once.

    A name has lower-case letters, digits, `-`, `_` and inner dots.
    """
    folder = _projects().create(name)
    output.message(f"made `{name}`: {folder}")
    output.message(f"`git remote add hub http://HOST:5000/git/{name}` in a clone lets it push there")
