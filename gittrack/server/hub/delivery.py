"""One webhook's delivery: a signed POST to an address that was looked at."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Final

from gittrack.errors import GittrackError
from gittrack.server.hub.outgoing import Target, exchange

MAX_ANSWER: Final = 64 << 10  #: bytes of an answer that are read at most


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
    timestamp = str(int(time.time()))
    headers = {
        "Content-Type": "application/json",
        "X-Gittrack-Event": event,
        "X-Gittrack-Delivery": delivery,
        "X-Gittrack-Timestamp": timestamp,
        "X-Gittrack-Signature": signature(secret, timestamp, body),
    }
    return exchange(target, "POST", body, headers, most=MAX_ANSWER)[0]


def tried(target: Target, secret: str, event: str, delivery: str, body: bytes) -> tuple[int | None, str]:
    """``send``, without raising: the status, and what went wrong (empty: nothing did)."""
    try:
        status = send(target, secret, event, delivery, body)
    except GittrackError as error:
        return None, error.message
    return status, "" if 200 <= status < 300 else f"answered with status {status}"
