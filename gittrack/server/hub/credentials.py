"""What clients show to say who they are: the form of tokens, and what a header `Authorization` carries.

A token is ``gtk_<id>_<secret>``: the id finds it, and the secret is 32 random bytes in base 62, so that a plain hash of
it is enough to keep.  It travels as a bearer token or in HTTP Basic, as password or as user name; never in an address,
which ends up in logs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from typing import Final, NamedTuple

from gittrack.errors import UnauthenticatedError

_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH: Final = 43  # digits of 32 bytes in base 62
_TOKEN: Final = re.compile(r"gtk_([0-9a-z]{10})_([0-9A-Za-z]{43})")
#: Anywhere in a text: for what must not carry one.
LIKE_TOKEN: Final = re.compile(rb"gtk_[0-9a-z]{10}_[0-9A-Za-z]{43}")
_LONGEST: Final = 4096  #: characters of a header that is read


class Token(NamedTuple):
    """A token as its owner has it.

    Attributes:
        id: Finds it; no secret.
        secret: Proves it.
    """

    id: str
    secret: str

    def __str__(self) -> str:
        return f"gtk_{self.id}_{self.secret}"


class Password(NamedTuple):
    """A name and a password."""

    user: str
    password: str


def new_token() -> Token:
    """A token that nobody can guess."""
    value = int.from_bytes(secrets.token_bytes(32), "big")
    digits = []
    for _ in range(_LENGTH):
        value, digit = divmod(value, 62)
        digits.append(_DIGITS[digit])
    return Token("".join(secrets.choice(_DIGITS[:10] + _DIGITS[36:]) for _ in range(10)), "".join(digits))


def parse_token(text: str) -> Token | None:
    """A token in its written form; None if the text is none."""
    match = _TOKEN.fullmatch(text)
    return None if match is None else Token(match[1], match[2])


def hashed(secret: str) -> bytes:
    """What is kept of a secret of 32 random bytes."""
    return hashlib.sha256(secret.encode()).digest()


def of_header(value: bytes) -> Token | Password:
    """What a header `Authorization` says.

    Raises:
        UnauthenticatedError: It is of another scheme, or cannot be read.
    """
    scheme, _, rest = value.strip().partition(b" ")
    kind = scheme.lower()
    if len(value) <= _LONGEST:
        if kind == b"bearer":
            token = parse_token(rest.strip().decode("latin-1"))
            if token is not None:
                return token
        elif kind == b"basic":
            return _of_basic(rest.strip())
    raise UnauthenticatedError(
        "the header Authorization carries no credentials of this server", hint="a token, or a name and a password"
    )


def _of_basic(encoded: bytes) -> Token | Password:
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise UnauthenticatedError("the header Authorization is no HTTP Basic") from None
    user, colon, password = text.partition(":")
    if not colon or not password:
        raise UnauthenticatedError("the password is empty", hint="a token can stand in its place")
    return parse_token(password) or parse_token(user) or Password(user, password)
