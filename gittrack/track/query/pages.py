"""Page tokens: where the next page of an answer starts, written as MLflow writes it.

A token comes back from whoever was given it, so nothing is assumed of it.
"""

from __future__ import annotations

from gittrack.errors import InvalidValueError, shown


def page_token(offset: int) -> str:
    """The token for the page that starts at ``offset``."""
    import base64

    return base64.b64encode(b'{"offset": %d}' % offset).decode()


def page_offset(token: str | bytes | None) -> int:
    """Where the page of a token starts; 0 without one.

    Raises:
        InvalidValueError: It is no token.
    """
    if not token:
        return 0
    import base64
    import json

    try:
        offset = int(json.loads(base64.b64decode(token))["offset"])
        if not 0 < offset < 1 << 63:
            raise ValueError(offset)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise InvalidValueError(
            f"invalid page token `{shown(token)}`", hint="use the token of the page before, unchanged"
        ) from error
    return offset
