"""What nobody should send, to every route that reads something, by one who may everything: so only what is wrong with
the request can stop it.  It is answered with the right status in MLflow's shape, and nothing is stored."""

import hashlib
import json
import logging
import os
import random
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from gittrack.server.hub.messages import Field, Message
from gittrack.server.hub.options import STREAMS
from gittrack.server.hub.routes import Route
from tests.conftest import Sandbox
from tests.server.asking import Asked, is_public, request, stored
from tests.server.conftest import Answer
from tests.server.guarded import raw
from tests.server.team import Team, serving

WRONG: dict[str, Sequence[Any]] = {
    "string": (7, 1.5, True, [], {}, ["x"]),
    "integer": ("x", "", "1.5", "1_0", " 1", "0x1", 1.5, True, [], {}, 1 << 63, -(1 << 63) - 1, "9" * 30),
    "number": ("x", "", "1,5", "nan", "0x1p3", True, [], {}),
    "boolean": ("x", "", 7, 0.5, [], {}),
    "enum": (1.5, True, [], {}),
    "object": ("x", 7, True, [], ["x"]),
}
#: Bodies that are no message, whatever is asked for.
NO_MESSAGE = (
    b"{", b'{"a":}', b"{}{}", b"[]", b"7", b"true", b'"x"', b'"[]"', b"nul", b"\xff\xfe{}", b"\xef\xbb\xbf{", b"\0",
    b"[" * 100_000, b'{"a":' * 100_000, b'{"name": NaN}', b'{"name": Infinity}', b'{"name": "\\ud800"}',
    b'{"name": "\xed\xa0\x80"}', b"{'name': 1}", b'{"name": 1e400000, }', b"--x\r\n\r\nname\r\n--x--",
)  # fmt: skip

ODD = (
    "\0", "a\0b", "../../x", "\u202e", "\ufeff", "x" * 70_000, "a\r\nb", "${HOME}", "%00", "/", ".git", "{{7*7}}",
)  # fmt: skip
FULL = os.environ.get("GITTRACK_FAULTS") == "full"


@pytest.fixture
def team(git_repo: Sandbox, caplog: pytest.LogCaptureFixture) -> Iterator[Team]:
    with serving(git_repo.path, failures=10**9) as found:
        yield found
    assert [one for one in caplog.records if one.name == "gittrack.server" and one.levelno >= logging.ERROR] == []


def reading(team: Team) -> list[Route]:
    """The routes that read a message; below some addresses bodies are files, of any size and packing."""
    return [
        one
        for one in team.routes
        if one.message is not None
        and one.method != "GET"
        and not one.streams
        and not next(one.paths()).startswith(STREAMS)
    ]


def on_disk(team: Team) -> dict[str, str]:
    """The refs and journals as they are in files."""
    root = team.tracker.repo.root
    common = team.tracker.repo.paths.common_dir
    folders = [common / "refs", root / "live", root / "journals", root / "runs"]
    found = {}
    for path in [common / "packed-refs", *(one for folder in folders for one in folder.rglob("*"))]:
        if path.is_file():
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def refused(answer: Answer, team: Team, *statuses: int) -> None:
    """It is an error in MLflow's shape that tells nothing of the machine."""
    assert answer.status in statuses, answer
    said = answer.json
    assert set(said) == {"error_code", "message"}
    assert said["error_code"].isupper()
    assert said["message"]
    assert said["message"].isprintable()
    for secret in (str(team.tracker.repo.root), "Traceback", "sqlite", "psycopg", "/gittrack/", team.admin):
        assert secret not in said["message"]
    assert len(answer.body) < 4000
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def wrong_of(name: str, field: Field) -> Iterator[Any]:
    """Values that the field may not have, on its own."""
    kind = "enum" if field.names else field.type
    if field.many:
        yield from ("x", 7, True, {})
        yield from ([one] for one in (None, *WRONG[kind]) if one != [])
    else:
        yield from WRONG[kind]
    if field.required:
        yield None
        if not field.many:
            yield ""
    if field.most is not None:
        yield field.most + 1
    if field.longest is not None and field.longest < 100_000:
        yield "x" * (field.longest + 1)
    if field.of is not None:
        for one in wrong_messages(field.of):
            yield [one] if field.many else one


def wrong_messages(message: Message) -> Iterator[dict[str, Any]]:
    """Messages whose other fields are right."""
    right = {name: right_of(field) for name, field in message.fields.items() if field.required}
    for name, field in message.fields.items():
        for value in wrong_of(name, field):
            yield {**right, name: value}


def right_of(field: Field) -> Any:
    if field.of is not None:
        one: Any = {name: right_of(inner) for name, inner in field.of.fields.items() if inner.required}
    else:
        one = {"integer": 1, "number": 1.0, "boolean": True}.get(field.type, "x")
    return [one] if field.many else one


def test_what_is_no_message(team: Team) -> None:
    things = team.things()
    before, files = stored(team), on_disk(team)
    assert files
    for route in reading(team):
        right = request(route, things)
        for body in NO_MESSAGE:
            refused(right._replace(body=body).of(team), team, 400)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/xml"):
            refused(right._replace(headers={"content-type": kind}).of(team), team, 400, 415)
        packed = {"content-type": "application/json", "content-encoding": "gzip"}
        refused(right._replace(headers=packed).of(team), team, 415)
    assert stored(team) == before
    assert on_disk(team) == files


def test_values_of_a_wrong_type_or_size(team: Team) -> None:
    """Each field of each message in turn, and those of the messages in it; the others are right."""
    things = team.things()
    before, files = stored(team), on_disk(team)
    asked = 0
    for route in reading(team):
        assert route.message is not None
        right = request(route, things)
        for name, field in route.message.fields.items():
            if f"{{{name}" in route.path:
                continue
            for value in wrong_of(name, field):
                answer = right._replace(body={**right.body, name: value}).of(team)
                assert answer.status == 400, (route.path, name, value, answer)
                refused(answer, team, 400)
                asked += 1
            body = json.dumps(right.body).encode()[:-1]  # the last of two of one name counts
            twice = body + (b", " if len(body) > 1 else b"") + json.dumps({name: [{}, 7]}).encode()[1:]
            refused(right._replace(body=twice).of(team), team, 400)
        assert stored(team) == before, route.path
    assert on_disk(team) == files
    assert asked > 1000


def test_texts_that_nobody_writes(team: Team) -> None:
    """They are refused, or kept as they are: never half of each, and never a failure of the server."""
    things = team.things()
    asked = [
        (route, name)
        for route in reading(team)
        if route.message is not None and not is_public(route)
        for name, field in route.message.fields.items()
        if field.type == "string" and not field.many and f"{{{name}" not in route.path
    ]
    chosen = random.Random(7)  # the short form is the same every time
    for route, name in asked if FULL else chosen.sample(asked, 30):
        for value in ODD if FULL else chosen.sample(ODD, 3):
            before = stored(team)
            answer = request(route, things, **{name: value}).of(team)
            if answer.status != 200:
                assert answer.status in (400, 404), (route.path, name, value, answer)
                refused(answer, team, 400, 404)
                assert stored(team) == before, (route.path, name, value)


def test_queries_and_paths_that_nobody_writes(team: Team) -> None:
    things = team.things()
    before = stored(team)
    for route in team.routes:
        if route.path.startswith("/git/") or is_public(route):
            continue
        right = request(route, things)
        for name, field in (route.message.fields if route.message is not None else {}).items():
            if route.method == "GET" and field.type in ("integer", "boolean"):
                for value in ("x", "", "1.5", "9" * 30, "%ff", "null", "[]"):
                    answer = right._replace(path=f"{right.path}&{name}={value}").of(team)
                    refused(answer, team, 400)
        if "{" in route.path:
            start = next(route.paths()).partition("{")[0]
            for odd in (
                "%00",
                "..",
                "%2e%2e",
                "%ff",
                "x" * 3000,
                "..%2f..%2fetc",
                "%5c..%5c",
                "%0d%0aSet-Cookie:x",
            ):
                answer = right._replace(path=f"{start}{odd}").of(team)
                assert "set-cookie" not in answer.headers
                if answer.status != 200 or route.answer != "text/html":  # the page itself says that it is not there
                    refused(answer, team, 400, 404, 405)
            plain = right._replace(path=f"{start}a//b").of(team)
            assert (plain.status, plain.headers["location"], plain.body) == (308, f"{start}a/b", b"")
    for query in ("?run_id=%ff%fe", "?run_id=%00", "?run_id=a&run_id=b", "?run_id", "?=&&&=", "?" + "a=1&" * 3000):
        refused(team.ask("GET", f"/api/2.0/mlflow/runs/get{query}"), team, 400, 404)
    assert stored(team) == before


def test_who_and_from_where(team: Team) -> None:
    """Nobody's token, another's name for this server, another site's page; for every route, git's and LFS's too."""
    things = team.things()
    before, files = stored(team), on_disk(team)
    for route in team.routes:
        right = request(route, things)
        for header, value, status in [
            ("host", "evil.example", 421),
            ("origin", "https://evil.example", 403),
            ("origin", "null", 403),
            ("sec-fetch-site", "cross-site", 403),
        ]:
            refused(right._replace(headers={**right.headers, header: value}).of(team), team, status)
        if is_public(route):
            continue
        for token in ("", "gtk_x", team.admin[:-1], team.admin + "x", "gtk_aaaaaaaa_" + "A" * 43):
            refused(right.of(team, token), team, 401)
        for value in ("Bearer", "Basic", "Basic eA==", "Basic \xff", "Digest x", "Basic Og=="):
            refused(right._replace(headers={**right.headers, "authorization": value}).of(team), team, 401)
    assert stored(team) == before
    assert on_disk(team) == files


def head(sent: Asked, team: Team, *headers: str) -> bytes:
    said = {"Host": f"127.0.0.1:{team.port}", "Authorization": f"Bearer {team.admin}", **sent.headers}
    lines = [f"{sent.method} {sent.path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def test_bodies_of_any_size(team: Team) -> None:
    """With or without saying how many bytes; what is too much is not waited for."""
    things = team.things()
    before, files = stored(team), on_disk(team)
    kind = "Content-Type: application/json"
    for route in reading(team):
        sent = request(route, things)
        for length in ("99999999", str((8 << 20) + 1), "9" * 19):
            status, _, body = raw(team.port, head(sent, team, kind, f"Content-Length: {length}"))
            assert (status, set(json.loads(body))) == (413, {"error_code", "message"})
    sent = request(reading(team)[0], things)
    pieces = (b" " * (1 << 20) for _ in range(1 << 20))
    found = endless(team, head(sent, team, kind, "Transfer-Encoding: chunked"), pieces)
    assert b" 413 " in found.partition(b"\r\n")[0]
    for length in ("-1", "1e3", "0x10", "1, 2"):
        assert raw(team.port, head(sent, team, kind, f"Content-Length: {length}"))[0] == 400
    assert stored(team) == before
    assert on_disk(team) == files


def endless(team: Team, start: bytes, pieces: Iterator[bytes]) -> bytes:
    """What is said to one who does not stop sending."""
    said = b""
    with socket.create_connection(("127.0.0.1", team.port), timeout=20) as connection:
        try:
            connection.sendall(start)
            for number, piece in enumerate(pieces):
                assert number < 200
                time.sleep(0.05 if number > 10 else 0)
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        except OSError:
            pass
        try:
            while piece := connection.recv(1 << 16):
                said += piece
        except OSError:
            pass
    return said
