"""The options of ``gittrack server`` about logging in by an identity provider."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import click

from gittrack.cli.accounts import base
from gittrack.errors import UsageError, shown

if TYPE_CHECKING:
    from gittrack.server.hub.oidc_login import OidcOptions

F = TypeVar("F", bound=Callable[..., Any])

#: The variable that may have the client's secret; never an option, which other users of the machine can see.
SECRET: Final = "GITTRACK_OIDC_SECRET"  # noqa: S105 — the name of a variable
_USUAL: Final = ("openid", "profile", "email")
_LOCAL: Final = ("127.0.0.1", "localhost", "::1")


def options(function: F) -> F:
    """The options, for ``taken``."""
    for option in (
        click.option("--oidc-only-known", is_flag=True,
                     help="Give nobody an account because he logs in: only who has one already (`gittrack server user"
                     " link`) is let in."),
        click.option("--oidc-user-claim", default="preferred_username", show_default=True, metavar="CLAIM",
                     help="Name new accounts after this claim."),
        click.option("--oidc-name", default="", metavar="TEXT",
                     help="What the login page calls the identity provider; the default is its host."),
        click.option("--oidc-scope", "oidc_scopes", multiple=True, metavar="SCOPE",
                     help="Ask for this scope besides openid, profile and email; repeatable."),
        click.option("--oidc-grant", "oidc_grants", type=(str, str), multiple=True, metavar="CLAIM=PATTERN ROLE",
                     help="Let in whom the provider gives such a claim (`groups=ml-team`), as reader, writer,"
                     " maintainer or admin; `writer:ci-*` is for experiments and models of such names. Repeatable."),
        click.option("--oidc-secret-file", type=click.Path(path_type=Path, exists=True, dir_okay=False),
                     help=f"A file whose first line is the client's secret; it may also be in the variable {SECRET}."),
        click.option("--oidc-client-id", "oidc_client", metavar="ID", help="What the provider calls this server."),
        click.option("--oidc-issuer", metavar="URL",
                     help="Let people log in by this OpenID Connect provider; needs --public-url."),
    ):  # fmt: skip
        function = option(function)
    return function


def taken(
    *,
    oidc_issuer: str | None,
    oidc_client: str | None,
    oidc_secret_file: Path | None,
    oidc_grants: Sequence[tuple[str, str]],
    oidc_scopes: Sequence[str],
    oidc_name: str,
    oidc_user_claim: str,
    oidc_only_known: bool,
    public_url: str | None,
) -> OidcOptions | None:
    """What the options ask for; None: nothing.

    Raises:
        UsageError: One of them is missing.
        InvalidValueError: An address or a grant cannot be.
    """
    from gittrack.server.hub.oidc import Client
    from gittrack.server.hub.oidc_login import CALLBACK, OidcOptions, admission

    if oidc_issuer is None:
        if oidc_client or oidc_grants:
            raise UsageError("the identity provider is missing", hint="`--oidc-issuer URL`")
        return None
    if oidc_client is None:
        raise UsageError("the provider has to know this server", hint="`--oidc-client-id ID` is what it calls it")
    if public_url is None:
        raise UsageError(
            "the provider sends browsers back to an address of this server",
            hint="`--public-url https://hub.example.org`",
        )
    where = urlsplit(public_url)
    if where.path.strip("/") or not (where.scheme == "https" or (where.scheme == "http" and where.hostname in _LOCAL)):
        raise UsageError(f"nobody can log in at `{shown(public_url)}`", hint="it is `https://` and a host, no path")
    if not oidc_grants and not oidc_only_known:
        raise UsageError(
            "nobody may come in by the provider",
            hint="`--oidc-grant groups=ml-team writer`, or `--oidc-only-known` for accounts that are there",
        )
    secret = os.environ.get(SECRET) or None
    if oidc_secret_file is not None:
        secret = base.first_line(oidc_secret_file)
    scopes = tuple(dict.fromkeys((*_USUAL, *oidc_scopes)))
    client = Client(oidc_issuer, oidc_client, secret, public_url.rstrip("/") + CALLBACK, scopes)
    admissions = tuple(admission(condition, what) for condition, what in oidc_grants)
    return OidcOptions(client, admissions, oidc_name, oidc_user_claim, oidc_only_known)
