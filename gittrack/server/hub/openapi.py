"""The server's OpenAPI description, made from its table of routes and the messages that they read and answer.

Nothing is said here that another place decides: a route that is not in the table is not described, and one that is
cannot be left out, but for those of git and git-lfs, whose protocols are those programs' own.

Source: https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from gittrack._version import __version__
from gittrack.server.hub.messages import INT64, Field, Message

if TYPE_CHECKING:
    from gittrack.server.hub.routes import Route

Json = dict[str, Any]

_VERSION: Final = "3.1.0"
_JSON: Final = "application/json"
_FILE: Final = "application/octet-stream"
#: What every route may answer (404 also where nothing is set up for it, as for logins by a provider), and what those
#: may besides that need to know the caller, or change something.
_ANY: Final = (400, 404, 413, 415, 421, 429, 500, 503)
_GUARDED: Final = (401, 403)
_CHANGING: Final = (409, 507)
_PART: Final = re.compile(r"\{(\w+)(?::path)?\}")
_FOREIGN: Final = "/git/"
_LARGEST: Final = 1.7976931348623157e308


def description(routes: Iterable[Route]) -> Json:
    """The description of some routes, as OpenAPI has it in JSON."""
    paths: dict[str, Json] = {}
    for route in routes:
        if route.path.startswith(_FOREIGN):
            continue
        first, *others = route.paths()
        item = paths.setdefault(_PART.sub(r"{\1}", first), {})
        item[route.method.lower()] = _operation(route, first, others)
    return {
        "openapi": _VERSION,
        "info": {
            "title": "gittrack server",
            "version": __version__,
            "description": "MLflow's REST API and gittrack's own. Names that are not described are passed over.",
        },
        "security": [{"token": []}, {"password": []}, {"session": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "password": {"type": "http", "scheme": "basic"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-gittrack"},
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {
                        "error_code": {"type": "string"},
                        "message": {"type": "string"},
                        "column": {"type": "integer", "description": "where in a filter or an order, from 1"},
                    },
                    "required": ["error_code", "message"],
                    "additionalProperties": False,
                }
            },
            "responses": {
                str(status): _refusal(status) for status in sorted({*_ANY, *_GUARDED, *_CHANGING})
            },
        },
    }  # fmt: skip


def _refusal(status: int) -> Json:
    found: Json = {
        "description": HTTPStatus(status).phrase,
        "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    if status in (429, 503):
        seconds = {"type": "integer", "minimum": 1}
        found["headers"] = {"Retry-After": {"required": True, "schema": seconds, "description": "in seconds"}}
    return found


def _operation(route: Route, path: str, others: list[str]) -> Json:
    role = route.permission.role
    named = re.sub(r"\W+", "_", path.removeprefix("/api/2.0/mlflow").replace("{", "").replace("}", "")).strip("_")
    found: Json = {
        "operationId": f"{route.method.lower()}_{named}",
        "x-permission": "everybody" if role is None else role.name.lower(),
        "responses": _answers(route),
    }
    if role is None:
        found["security"] = []
    if others:
        found["x-also-at"] = others
    fields = {} if route.message is None else route.message.fields
    parts = _PART.findall(path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in parts
    ]
    said = {name: field for name, field in fields.items() if name not in parts}
    if route.method == "GET":
        parameters += [
            {"name": name, "in": "query", "required": field.required, "schema": _in_query(field)}
            for name, field in said.items()
        ]
    elif route.message is not None:
        found["requestBody"] = _body(Message(**said))
    elif route.method == "PUT":
        found["requestBody"] = {"content": {_FILE: {"schema": {}}}}
    if parameters:
        found["parameters"] = parameters
    return found


def _body(message: Message) -> Json:
    schema = _object(message)
    if "required" in schema:
        return {"required": True, "content": {_JSON: {"schema": schema}}}
    return {"content": {_JSON: {"schema": {**schema, "type": ["object", "null"]}}}}


def _answers(route: Route) -> Json:
    role = route.permission.role
    refused = {*_ANY, *(() if role is None else _GUARDED), *(() if route.method == "GET" else _CHANGING)}
    if role is None and route.method != "GET":
        refused.add(401)  # it is how one says who one is
    if isinstance(route.answer, str):
        content: Json = {route.answer: {}}
    else:
        content = {_JSON: {"schema": {"type": "object"} if route.answer is None else _answer(route.answer)}}
    done = {"200": {"description": HTTPStatus.OK.phrase, "content": content}}
    return done | {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(refused)}


# --- what is read


def _object(message: Message) -> Json:
    required = [name for name, field in message.fields.items() if field.required]
    properties = {name: _in_body(field) for name, field in message.fields.items()}
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


def _in_body(field: Field) -> Json:
    schema = _value(field)
    if field.many:
        schema = {"type": "array", "items": schema}
    if field.required:
        return schema
    return {"anyOf": [schema, {"type": "null"}]}  # which is as if it were not there


def _value(field: Field) -> Json:
    if field.of is not None:
        return _object(field.of)
    if field.names:  # values that nobody knows are as if they were not there
        return {"anyOf": [{"enum": list(field.names)}, {"type": "string"}, _integer(field)]}
    if field.type == "integer":
        return {"anyOf": [_integer(field), {"type": "string", "pattern": "^-?[0-9]{1,18}$"}]}
    if field.type == "number":
        names = {"enum": ["NaN", "Infinity", "-Infinity"]}
        return {"anyOf": [{"type": "number", "minimum": -_LARGEST, "maximum": _LARGEST}, names, _DECIMAL]}
    if field.type == "boolean":
        return {"enum": [True, False, "true", "false"]}
    return {"type": "object"} if field.type == "object" else _text(field)


_DECIMAL: Final = {"type": "string", "maxLength": 400, "pattern": r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"}


def _text(field: Field) -> Json:
    schema: Json = {"type": "string"}
    if field.required and not field.many:
        schema["minLength"] = 1
    if field.longest is not None:
        schema["maxLength"] = field.longest
    return schema


def _integer(field: Field) -> Json:
    most = INT64[-1] if field.most is None else field.most
    return {"type": "integer", "minimum": INT64[0], "maximum": most}


def _in_query(field: Field) -> Json:
    if field.many:
        return {"type": "array", "items": {"type": "string"}}
    if field.names:
        return {"anyOf": [{"enum": list(field.names)}, {"type": "string"}]}
    if field.type == "integer":
        return _integer(field)
    return {"type": field.type} if field.type in ("boolean", "number") else _text(field)


# --- what is answered


def _answer(message: Message) -> Json:
    required = [name for name, field in message.fields.items() if field.required]
    properties = {name: _answered(field) for name, field in message.fields.items()}
    schema: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def _answered(field: Field) -> Json:
    kinds: Mapping[str, Json] = {"number": {"anyOf": [{"type": "number"}, {"const": "NaN"}]}}
    schema: Json
    if field.of is not None:
        schema = _answer(field.of)
    elif field.names:
        schema = {"enum": list(field.names)}
    else:
        schema = kinds.get(field.type, {"type": field.type})
    if field.many:
        schema = {"type": "array", "items": schema}
    return {"anyOf": [schema, {"type": "null"}]} if field.nullable else schema
