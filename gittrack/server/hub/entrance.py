"""Puts the guard before the application, as whoever starts the server asked for, or says why that is not safe."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gittrack.errors import InvalidValueError, shown
from gittrack.server.hub.accounts import FOLDER, Accounts
from gittrack.server.hub.audit import Audit
from gittrack.server.hub.authentication import Authenticator
from gittrack.server.hub.guard import App, Guard
from gittrack.server.hub.oidc_login import Oidc, OidcOptions
from gittrack.server.hub.options import AuthOptions, allowed_hosts, check_address, networks
from gittrack.server.run import Address

_ORIGIN: Final = re.compile(r"(?i:https?)://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


@dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    Attributes:
        auth: Credentials on this machine, too.
        hosts: Names of the server.
        proxies: Addresses and networks of proxies that are believed.
        origins: Other sites whose pages may ask.
        accounts: Another database of accounts, as SQLAlchemy names it.
        rate: Requests in a second that a caller may make.
        secure: Clients use TLS.
        oidc: How people log in by an identity provider.
    """

    auth: bool = False
    hosts: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    accounts: str | None = None
    rate: float | None = None
    secure: bool = False
    oidc: OidcOptions | None = None


def guarded(
    app: App,
    root: Path,
    address: Address,
    asked: Asked,
    *,
    public: Iterable[str],
    max_body: int = AuthOptions.max_body,
    max_stream: int | None = None,
) -> Guard:
    """The application behind a guard.

    Args:
        app: The application.
        root: The store: a folder `.gittrack`.
        address: Where it is going to listen.
        asked: How.
        public: The paths that need no credentials.
        max_body: Bytes of a body that is no file.
        max_stream: Bytes of one that is; None: any.

    Raises:
        UsageError: Others could reach a server that knows nobody, or that has no name.
        InvalidValueError: A name, an address or a site is none.
        OverloadedError: The accounts cannot be read.
        MissingDependencyError: What reads the tokens of an identity provider is not installed.
    """
    hosts = allowed_hosts(address, asked.hosts)
    accounts = Accounts.in_store(root) if asked.accounts is None else Accounts(asked.accounts)
    ever = accounts.snapshot().ever
    oidc = None if asked.oidc is None else Oidc(asked.oidc)
    check_address(address, accounts=ever or oidc is not None)
    options = AuthOptions(
        hosts=hosts,
        loopback=address.is_loopback,
        required=asked.auth or oidc is not None,
        secure=asked.secure,
        proxies=networks(asked.proxies),
        origins=frozenset(_origin(text) for text in asked.origins),
        public=frozenset(public),
        max_body=max_body,
        max_stream=max_stream,
        rate=asked.rate,
    )
    auth = Authenticator(accounts, start=address.is_loopback and not ever)
    return Guard(app, auth, Audit(root / FOLDER), options, oidc)


def page_url(guard: Guard, url: str) -> str:
    """The address for a browser: with the token of the start, if there is one, where no server sees it."""
    token = guard.auth.start_token
    return url if token is None else f"{url}/login#token={token}"


def _origin(text: str) -> str:
    if not _ORIGIN.fullmatch(text):
        raise InvalidValueError(f"`{shown(text)}` is no site", hint="`--allowed-origin https://notebook.example.org`")
    return text.lower()
