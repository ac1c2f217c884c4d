"""Page tokens: where the next page of an answer starts, written as MLflow writes it.

A token comes back from whoever was given it, so nothing is assumed of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gittrack.errors import InvalidValueError, shown


def page_token(offset: int) -> str:
    """The token for the page that starts at ``offset``."""
    import base64

    return base64.b64encode(b'{"offset": %d}' % offset).decode()


def bound_token(offset: int, query: Mapping[str, Any]) -> str:
    """The token for the page that starts at ``offset`` of the answer to a query, and to no other."""
    import base64
    import json

    return base64.b64encode(json.dumps({**query, "offset": offset}).encode()).decode()


def bound_offset(token: str | None, query: Mapping[str, Any]) -> int:
    """Where the page of such a token starts; 0 without one.

    Raises:
        InvalidValueError: It is no token, or one of another query.
    """
    offset = page_offset(token)
    if token:
        import base64
        import json

        said = json.loads(base64.b64decode(token))
        other = [name for name, value in query.items() if (said.get(name) or None) != (value or None)]
        if other:
            raise InvalidValueError(
                f"the page token is of a search with other {' and '.join(other)}", hint="ask again without a token"
            )
    return offset


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
