"""How a server decides who may ask it: what ``guard`` is given, and what an address it listens on takes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gittrack.errors import InvalidValueError, UsageError, shown
from gittrack.server.run import LOCAL_HOSTS, Address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Below these, bodies are files: they may be large, of any type, and compressed by the client.
STREAMS: Final = (
    "/api/2.0/mlflow-artifacts/artifacts/",
    "/ajax-api/2.0/mlflow-artifacts/artifacts/",
    "/api/2.0/mlflow-artifacts/mpu/part/",
    "/ajax-api/2.0/mlflow-artifacts/mpu/part/",
    "/api/2.0/gittrack/experiments/",
    "/git/",
)


@dataclass(frozen=True)
class AuthOptions:
    """Who may ask, from where, how much.

    Attributes:
        hosts: What the header Host may name, lower case; with a port only if that port is meant.
        loopback: Only this machine can reach the server.
        required: Credentials are asked for on this machine too, where there are no accounts.
        secure: Clients use TLS, be it here or at a proxy that is not named.
        proxies: Whose X-Forwarded-For and X-Forwarded-Proto are believed.
        origins: Other sites whose pages may ask with a token (``https://notebook.example.org``).
        public: Paths that need no credentials.
        streams: Beginnings of paths whose bodies are files.
        max_body: Bytes of a body elsewhere.
        max_stream: Bytes of a body that is a file; None: any.
        failures: Wrong credentials in a minute that an address or an account may show.
        rate: Requests in a second that a caller may make, on average over ten; None: any.
        session: Seconds that a login on the web page lasts.
    """

    hosts: frozenset[str] = LOCAL_HOSTS
    loopback: bool = True
    required: bool = False
    secure: bool = False
    proxies: tuple[Network, ...] = ()
    origins: frozenset[str] = frozenset()
    public: frozenset[str] = frozenset()
    streams: tuple[str, ...] = STREAMS
    max_body: int = 8 << 20
    max_stream: int | None = None
    failures: int = 10
    rate: float | None = None
    session: int = 12 * 3600


def allowed_hosts(address: Address, named: Iterable[str]) -> frozenset[str]:
    """What the header Host may name.

    Args:
        address: Where the server listens.
        named: What `--allowed-host` says.

    Raises:
        UsageError: The address can be reached from other machines, and no name was given.
        InvalidValueError: A name is none.
    """
    found = {name.lower().rstrip(".") for name in named}
    for name in found:
        if not name or name == "*" or any(sign in name for sign in "/@ "):
            raise InvalidValueError(f"`{shown(name)}` is no host", hint="`--allowed-host mlflow.example.org`")
    if address.is_loopback:
        return frozenset(found | LOCAL_HOSTS | {_written(address.host.lower())})
    if not found:
        raise UsageError(
            f"the server would answer to any name at `{address.host}`, also to one that a web page made up",
            hint="`--allowed-host NAME` says what it is called",
        )
    return frozenset(found)


def check_address(address: Address, *, accounts: bool) -> None:
    """Refuse to listen where others can reach a server that knows nobody.

    Args:
        address: Where the server is to listen.
        accounts: Whether there is a token or a user.

    Raises:
        UsageError: There is none, and the address can be reached from other machines.
    """
    if not accounts and not address.is_loopback:
        raise UsageError(
            f"nobody has an account on this server, and `{address.host}` can be reached from other machines",
            hint="`gittrack server token create NAME --role writer` makes a token, `gittrack server user add` a user",
        )


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks as `--trusted-proxy` names them.  Raises InvalidValueError."""
    found = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError:
            raise InvalidValueError(
                f"`{shown(text)}` is no address", hint="such as 10.0.0.7, 10.0.0.0/24 or fd00::/64"
            ) from None
    return tuple(found)


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host
