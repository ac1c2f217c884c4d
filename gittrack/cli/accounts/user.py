"""``gittrack server user`` and its verbs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gittrack.cli import common, output
from gittrack.cli.accounts import base
from gittrack.errors import UsageError

if TYPE_CHECKING:
    from gittrack.server.hub.accounts import Identity

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=common.VerbGroup, default="list")
def command() -> None:
    """Add, list and remove people who log in with a name and a password, or elsewhere.

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
@click.option(
    "--oidc",
    type=(str, str),
    metavar="ISSUER SUBJECT",
    help="He has no password, and logs in by this identity provider, which knows him as SUBJECT.",
)
@base.accounts_option
def add(
    name: str,
    role: str,
    experiments: Sequence[str],
    models: Sequence[str],
    no_experiments: Sequence[str],
    no_models: Sequence[str],
    password_stdin: bool,
    oidc: tuple[str, str] | None,
    url: str | None,
) -> None:
    """Add a user called NAME."""
    asked = base.grants(role, experiments, models, no_experiments, no_models)
    if oidc is not None and password_stdin:
        raise UsageError("he has a password, or an identity provider", hint="`passwd` sets one later, too")
    with base.kept(url, write=True) as opened:
        password = None if oidc is not None else _password(password_stdin)
        opened.accounts.add_user(name, password, asked, by=opened.by, identity=_identity(oidc))
        opened.note("user.add", f"{name}: {base.said(asked)}{_linked(oidc)}")
    output.message(f"`{name}` is {base.said(asked)}")


def _identity(oidc: tuple[str, str] | None) -> Identity | None:
    from gittrack.server.hub.accounts import Identity

    return None if oidc is None else Identity(*oidc)


def _linked(oidc: tuple[str, str] | None) -> str:
    return "" if oidc is None else f", {oidc[1]} of {oidc[0]}"


@command.command("link")
@click.argument("name")
@click.argument("issuer")
@click.argument("subject")
@base.accounts_option
def link(name: str, issuer: str, subject: str, url: str | None) -> None:
    """Let NAME log in by the identity provider ISSUER, which knows him as SUBJECT.

    The audit log has the subject of who was refused because he has no account (`gittrack server audit`).
    """
    from gittrack.server.hub.accounts import Identity

    with base.kept(url, write=True) as opened:
        opened.accounts.link(name, Identity(issuer, subject), by=opened.by)
        opened.note("user.link", f"{name}{_linked((issuer, subject))}")
    output.message(f"{subject} of {issuer} is `{name}`")


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
            {
                "name": one.name,
                "grants": base.written(one.grants),
                "created": one.created,
                "created_by": one.created_by,
                "identities": [
                    {"issuer": known.issuer, "subject": known.subject, "grants": base.written(known.grants)}
                    for known in one.identities
                ],
            }
            for one in found
        )
    elif found:
        rows = [
            [output.Cell(one.name, "yellow"), base.said(one.all_grants), base.day(one.created), one.created_by]
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
