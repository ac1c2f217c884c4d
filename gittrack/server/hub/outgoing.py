"""HTTP to addresses that others name: looked at first, without redirects, within bounds of time and size.

The name is resolved once, every address that it has is checked, and the connection goes to the very address that was
checked; TLS and the header Host speak of the name.  So a name that answers differently the next time (DNS rebinding)
changes nothing, and no answer can send the request on to somewhere else.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from gittrack._version import __version__
from gittrack.errors import InvalidValueError, NetworkError, PermissionDeniedError, shown

CONNECT_SECONDS: Final = 5.0
ALL_SECONDS: Final = 15.0  #: for all of a request, however slowly bytes come
_MAX_URL: Final = 2000
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Target(NamedTuple):
    """Where a request goes.

    Attributes:
        url: The address.
        private: The administrator allowed that it is in a private network, on this machine, or without TLS.
    """

    url: str
    private: bool = False


def check_url(target: Target) -> SplitResult:
    """The parts of an address.  Raises InvalidValueError if requests cannot go there."""
    text = target.url
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise InvalidValueError(f"`{shown(text)}` is no address") from None
    if len(text) > _MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidValueError("the address has other than printable ASCII characters, or too many")
    if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
        raise InvalidValueError(f"`{shown(text)}` is no address", hint="such as https://ci.example.org/hook")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidValueError("the address has a user, a password or a fragment")
    if parts.scheme == "http" and not target.private:
        raise InvalidValueError("the address is without TLS", hint="`--private` allows that, for a network of yours")
    return parts


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
    return address


def check_address(text: str, *, private: bool) -> None:
    """Refuse an address that a request must not go to.

    Args:
        text: An IP address.
        private: Addresses of this machine and of private networks are allowed; link-local ones, where clouds keep
            credentials, never are.

    Raises:
        PermissionDeniedError: It is one of those.
    """
    address = _plain(ipaddress.ip_address(text.partition("%")[0]))
    never = address.is_link_local or address.is_multicast or address.is_unspecified or str(address) in _METADATA
    usable = address.is_global and not address.is_reserved
    if never or not (usable or private):
        raise PermissionDeniedError("the name leads to an address that is not public")


#: Where clouds hand out credentials, other than link-local addresses.
_METADATA: Final = frozenset(("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))


def resolve(host: str, port: int, *, private: bool) -> tuple[int, tuple[str, int]]:
    """The family and the address of a name, all of whose addresses were checked.

    Raises:
        NetworkError: It has none.
        PermissionDeniedError: One of them must not be asked.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NetworkError("the name has no address") from None
    for _, _, _, _, where in found:
        check_address(str(where[0]), private=private)
    family, _, _, _, where = found[0]
    return family, (str(where[0]), port)


def exchange(
    target: Target, method: str, body: bytes | None, headers: Mapping[str, str], *, most: int
) -> tuple[int, bytes]:
    """Ask once.

    Args:
        target: Whom.
        method: ``GET`` or ``POST``.
        body: What is sent.
        headers: Besides those that every request has.
        most: Bytes of the answer that are read; the rest is left unread.

    Returns:
        The status of the answer, of whatever kind, and its body.

    Raises:
        NetworkError: Nobody answered, or not in time.
        PermissionDeniedError, InvalidValueError: The address must not be asked.
    """
    parts = check_url(target)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    family, where = resolve(host, port, private=target.private)
    try:
        with _connected(family, where) as raw:
            connection = http.client.HTTPConnection(host, port if parts.port else None)
            connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=host) if secure else raw
            with contextlib.closing(connection):
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                sent = {"User-Agent": f"gittrack/{__version__}", **headers, "Connection": "close"}
                connection.request(method, path, body, sent)
                answer = connection.getresponse()
                return answer.status, answer.read(most)
    except ssl.SSLError as error:
        raise NetworkError(f"TLS with `{host}` failed: {error.reason or error}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NetworkError(f"`{host}` did not answer: {type(error).__name__}") from error


@contextlib.contextmanager
def _connected(family: int, where: tuple[str, int]) -> Iterator[socket.socket]:
    """A connection that ends after ``ALL_SECONDS``, whatever the other side does."""
    with socket.socket(family, socket.SOCK_STREAM) as raw:
        raw.settimeout(CONNECT_SECONDS)
        raw.connect(where)
        handle = raw.dup()  # TLS takes the other one over
        handle.settimeout(None)

        def end() -> None:
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

        raw.settimeout(ALL_SECONDS)
        timer = threading.Timer(ALL_SECONDS, end)
        timer.daemon = True
        timer.start()
        try:
            yield raw
        finally:
            timer.cancel()
            handle.close()
