"""MLflow's GraphQL, which its own page asks; what answers it is imported with the first document."""

from __future__ import annotations

from typing import Any, Final

from gittrack.errors import InvalidValueError
from gittrack.server.hub.messages import Message, anything, text, texts
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route

#: Characters of a document: those of MLflow's page have two thousand.
_LONGEST: Final = 100_000


def _answer(call: Call) -> Any:
    from gittrack.server.hub import graphql_documents

    document = call.values["query"]
    if len(document) > _LONGEST:
        raise InvalidValueError(f"the query has more than {_LONGEST} characters")
    return graphql_documents.answer(call, document, call.values.get("variables"), call.values.get("operationName"))


ROUTES: Final = (
    Route(
        "POST",
        "/graphql",
        Permission(Role.READER),  # each of its fields is a route with a permission of its own
        _answer,
        Message(query=text(required=True, longest=_LONGEST), operationName=text(), variables=anything()),
        answer=Message(data=anything(nullable=True), errors=texts(nullable=True)),
    ),
)
