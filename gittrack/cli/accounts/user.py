"""``gittrack server user`` and its verbs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from gittrack.cli import common, output
from gittrack.cli.accounts import base
from gittrack.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=common.VerbGroup, default="list")
def command() -> None:
    """Add, list and remove the people who log in with a name and a password.

    Without a further word this lists them.
    """


def _password_option(function: F) -> F:
    return click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")(function)


def _password(from_stdin: bool) -> str:
    """The password, typed twice, or the first line of standard input."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not output.is_terminal(sys.stdin):
        raise UsageError("there is no terminal to ask for the password at", hint="`--password-stdin` reads it")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


@command.command("add")
@click.argument("name")
@base.grant_options(required=True)
@_password_option
@base.accounts_option
def add(
    name: str,
    role: str,
    experiments: Sequence[str],
    models: Sequence[str],
    no_experiments: Sequence[str],
    no_models: Sequence[str],
    password_stdin: bool,
    url: str | None,
) -> None:
    """Add a user called NAME."""
    asked = base.grants(role, experiments, models, no_experiments, no_models)
    with base.kept(url, write=True) as opened:
        opened.accounts.add_user(name, _password(password_stdin), asked, by=opened.by)
        opened.note("user.add", f"{name}: {base.said(asked)}")
    output.message(f"`{name}` is {base.said(asked)}")


@command.command("passwd")
@click.argument("name")
@_password_option
@base.accounts_option
def passwd(name: str, password_stdin: bool, url: str | None) -> None:
    """Give NAME another password, and end his sessions."""
    with base.kept(url, write=True) as opened:
        opened.accounts.set_password(name, _password(password_stdin))
        opened.note("user.passwd", name)
    output.message(f"`{name}` has another password")


@command.command("list")
@base.accounts_option
@common.json_option
def list_users(url: str | None, as_json: bool) -> None:
    """List the users."""
    with base.kept(url) as opened:
        found = opened.accounts.users()
    if as_json:
        output.array(
            {"name": one.name, "grants": base.written(one.grants), "created": one.created, "created_by": one.created_by}
            for one in found
        )
    elif found:
        rows = [
            [output.Cell(one.name, "yellow"), base.said(one.grants), base.day(one.created), one.created_by]
            for one in found
        ]
        output.lines(output.table(["name", "is", "added", "by"], rows))
    else:
        output.message("no users; `gittrack server user add NAME --role writer` adds one")


@command.command("grant")
@click.argument("name")
@base.grant_options(required=False)
@click.option("--replace", is_flag=True, help="Take away what was granted and denied before.")
@base.accounts_option
def grant(
    name: str,
    role: str | None,
    experiments: Sequence[str],
    models: Sequence[str],
    no_experiments: Sequence[str],
    no_models: Sequence[str],
    replace: bool,
    url: str | None,
) -> None:
    """Give NAME a role, or deny him something, besides what he has."""
    asked = base.grants(role, experiments, models, no_experiments, no_models)
    with base.kept(url, write=True) as opened:
        record = opened.accounts.set_grants(
            name, lambda before: asked if replace else tuple(dict.fromkeys((*before, *asked)))
        )
        opened.note("user.grant", f"{name}: {base.said(record.grants)}")
    output.message(f"`{name}` is {base.said(record.grants)}")


@command.command("remove")
@click.argument("name")
@base.accounts_option
def remove(name: str, url: str | None) -> None:
    """End the account of NAME and his sessions; what he recorded stays."""
    with base.kept(url, write=True) as opened:
        opened.accounts.remove_user(name)
        opened.note("user.remove", name)
    output.message(f"`{name}` was removed")
