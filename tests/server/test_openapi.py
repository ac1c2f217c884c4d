"""The OpenAPI description: made from the routes themselves, and nothing that they answer contradicts it."""

import json
import re
from typing import Any

from click.testing import CliRunner

from gittrack.cli.server import command
from gittrack.errors import (
    GittrackError,
    LockedError,
    NetworkError,
    NotFoundError,
    OverloadedError,
    TooManyRequestsError,
)
from gittrack.server.hub import openapi
from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.app import later, refusal
from gittrack.server.hub.git import asking
from gittrack.server.hub.messages import Message, integer, text, texts
from gittrack.server.hub.roles import Caller, Role
from gittrack.server.hub.routes import Permission, Route
from tests.conftest import Sandbox
from tests.server.conftest import Running
from tests.server.team import serving


def _operations(described: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, item in described["paths"].items() for method in item}


def test_every_route_is_described_once_with_its_answers(server: Running) -> None:
    described = server.get("/api/2.0/gittrack/openapi.json").ok
    wanted = {(one.method, re.sub(r":path\}", "}", next(one.paths()))) for one in ROUTES}
    assert _operations(described) == wanted
    names = [one["operationId"] for item in described["paths"].values() for one in item.values()]
    assert len(set(names)) == len(names) == len(ROUTES)
    for path, item in described["paths"].items():
        for method, one in item.items():
            assert {"200", "400", "404", "413", "421", "429"} <= set(one["responses"])
            public = one["x-permission"] == "everybody"
            assert public == (one.get("security") == []), path
            assert ("401" in one["responses"]) == (not public or method == "post")
    server.caller = Caller("nobody", (), "token")
    assert server.get("/ajax-api/2.0/gittrack/openapi.json").ok == described


def test_who_is_to_come_back_later_is_told_when() -> None:
    def every(base: type[GittrackError]) -> list[type[GittrackError]]:
        return [base, *(found for one in base.__subclasses__() for found in every(one))]

    said = openapi.description(ROUTES)["components"]["responses"]
    found = {one.__name__: one("x") for one in every(GittrackError) if one.http_status in (429, 503)}
    assert {"TooManyRequestsError", "LockedError", "OverloadedError", "NetworkError"} <= set(found)
    for error in [*found.values(), TooManyRequestsError("x", again=7), NetworkError("x", again=6.5)]:
        assert "Retry-After" in said[str(error.http_status)]["headers"]
        assert refusal(error).headers["retry-after"] == asking(error)["retry-after"]  # of MLflow's shape, and git's
        assert int(refusal(error).headers["retry-after"]) >= 1
        again = getattr(error, "again", None)
        assert again is None or again <= int(refusal(error).headers["retry-after"]) < again + 1
    assert (later(LockedError("x")), later(OverloadedError("x"))) == ({"retry-after": "1"}, {"retry-after": "10"})
    assert "retry-after" not in refusal(NotFoundError("x")).headers


def test_mlflows_routes_say_what_they_answer() -> None:
    assert [one.path for one in ROUTES if "/mlflow/" in one.path and one.answer is None] == []


def test_what_a_message_is_said_to_be() -> None:
    message = Message(name=text(required=True, longest=9), size=integer(most=7), of=texts())
    route = Route("POST", "{api}/x/{name}", Permission(Role.WRITER), lambda call: None, message)
    (item,) = openapi.description([route])["paths"].values()
    said = item["post"]
    assert said["x-permission"] == "writer"
    assert said["x-also-at"] == ["/ajax-api/2.0/x/{name}"]
    assert [one["name"] for one in said["parameters"]] == ["name"]
    properties = said["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(properties) == {"size", "of"}
    assert properties["size"]["anyOf"][0]["anyOf"][0]["maximum"] == 7
    got = openapi.description([Route("GET", "/x", Permission(Role.READER), lambda call: None, message)])
    query = {one["name"]: one for one in got["paths"]["/x"]["get"]["parameters"]}
    assert query["name"] == {
        "name": "name", "in": "query", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 9},
    }  # fmt: skip
    assert query["of"]["schema"]["type"] == "array"


def test_it_is_printed_without_a_server(git_repo: Sandbox) -> None:
    printed = CliRunner().invoke(command, ["openapi"])
    assert printed.exit_code == 0
    with serving(git_repo.path) as team:
        assert json.loads(printed.output) == team.ask("GET", "/api/2.0/gittrack/openapi.json").ok


def test_methods_that_an_address_has_not(server: Running) -> None:
    for route in ROUTES:
        path = re.sub(r"\{\w+(:path)?\}", "x", next(route.paths()))
        here = {one.method for one in ROUTES for at in one.paths() if re.sub(r"\{\w+(:path)?\}", "x", at) == path}
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} - here:
            answer = server.ask(method, path)
            assert answer.status == 405, (method, path, answer)
            allowed = set(answer.headers["allow"].split(", "))
            assert here <= allowed
            assert method not in allowed
