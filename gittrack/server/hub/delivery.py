"""One webhook's delivery over HTTP: to an address that was looked at, signed, without redirects, within bounds.

The name is resolved once, every address that it has is checked, and the connection goes to the very address that was
checked; TLS and the header Host speak of the name.  So a name that answers differently the next time (DNS rebinding)
changes nothing, and no answer can send the request on to somewhere else.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

from gittrack._version import __version__
from gittrack.errors import GittrackError, InvalidValueError, NetworkError, PermissionDeniedError, shown

CONNECT_SECONDS: Final = 5.0
ALL_SECONDS: Final = 15.0  #: for all of a delivery, however slowly bytes come
MAX_ANSWER: Final = 64 << 10  #: bytes of an answer that are read at most
_MAX_URL: Final = 2000
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Target(NamedTuple):
    """Where deliveries go.

    Attributes:
        url: The address.
        private: The administrator allowed that it is in a private network, on this machine, or without TLS.
    """

    url: str
    private: bool = False


def check_url(target: Target) -> SplitResult:
    """The parts of a webhook's address.  Raises InvalidValueError if deliveries cannot go there."""
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
        raise InvalidValueError("the address has a user, a password or a fragment", hint="deliveries are signed")
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
    """Refuse an address that a delivery must not go to.

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
        raise PermissionDeniedError(
            "the webhook's name leads to an address that is not public",
            hint="`gittrack server webhook add --private` allows private networks for one webhook",
        )


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
        raise NetworkError("the webhook's name has no address") from None
    for _, _, _, _, where in found:
        check_address(str(where[0]), private=private)
    family, _, _, _, where = found[0]
    return family, (str(where[0]), port)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What `X-Gittrack-Signature` says: HMAC-SHA256 of the timestamp, a dot and the body."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def send(target: Target, secret: str, event: str, delivery: str, body: bytes) -> int:
    """Deliver once.

    Args:
        target: Where to.
        secret: What the delivery is signed with.
        event: Its name.
        delivery: Its id, the same for every try.
        body: JSON.

    Returns:
        The status of the answer, of whatever kind.

    Raises:
        NetworkError: Nobody answered, or not in time.
        PermissionDeniedError, InvalidValueError: The address must not be asked.
    """
    parts = check_url(target)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"gittrack/{__version__}",
        "X-Gittrack-Event": event,
        "X-Gittrack-Delivery": delivery,
        "X-Gittrack-Timestamp": timestamp,
        "X-Gittrack-Signature": signature(secret, timestamp, body),
        "Connection": "close",
    }
    family, where = resolve(host, port, private=target.private)
    try:
        with _connected(family, where) as raw:
            connection = http.client.HTTPConnection(host, port if parts.port else None)
            connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=host) if secure else raw
            with contextlib.closing(connection):
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                answer.read(MAX_ANSWER)
                return answer.status
    except ssl.SSLError as error:
        raise NetworkError(f"TLS with the webhook failed: {error.reason or error}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NetworkError(f"the webhook did not answer: {type(error).__name__}") from error


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


def tried(target: Target, secret: str, event: str, delivery: str, body: bytes) -> tuple[int | None, str]:
    """``send``, without raising: the status, and what went wrong (empty: nothing did)."""
    try:
        status = send(target, secret, event, delivery, body)
    except GittrackError as error:
        return None, error.message
    return status, "" if 200 <= status < 300 else f"answered with status {status}"
