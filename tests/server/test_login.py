"""The guard over a socket, before the real application: logging in, what everybody may ask, what cannot be asked."""

import gzip
import http.client
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gittrack.errors import InvalidValueError, UsageError
from gittrack.server.hub.accounts import Accounts
from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.app import App, Hub, Options
from gittrack.server.hub.entrance import Asked, guarded, page_url
from gittrack.server.hub.guard import Guard
from gittrack.server.hub.roles import Grant, Role
from gittrack.server.hub.routes import PUBLIC
from gittrack.server.run import Address
from gittrack.track.runs import Tracker
from tests.conftest import Sandbox
from tests.server.backend import open_repo
from tests.server.conftest import Answer
from tests.server.guarded import PASSWORD, Guarded, basic, bearer, echo, listening, options, raw

pytestmark = pytest.mark.any_backend  # who is let in is decided before anything is looked up
BROWSER = {"user-agent": "Mozilla/5.0", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}


@dataclass
class Wired(Guarded):
    """A guard before the application, over a socket."""

    port: int = 0

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json"} if data is not None else {}
        try:
            connection.request(method, path, data, {**sent, **(headers or {})})
            reply = connection.getresponse()
            return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def log_in(self, **credentials: str) -> Answer:
        return self.send("POST", "/login", credentials, BROWSER)

    def raw(self, text: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        return raw(self.port, text.replace("\n", "\r\n").encode("latin-1") + body)


@pytest.fixture
def wired(git_repo: Sandbox, quick_argon2: None) -> Iterator[Wired]:
    tracker = Tracker(open_repo(git_repo.path), strict=True)
    app = App(Hub(tracker, Options()), ROUTES)
    found = Wired(tracker.repo.root, options(public=PUBLIC), app, start=True)
    with listening(found.guard) as port:
        found.port = port
        yield found
    tracker.close()


def cookie(answer: Answer) -> dict[str, str]:
    return {"cookie": answer.headers["set-cookie"].partition(";")[0]}


def paths_of(route: Any) -> list[str]:
    return [re.sub(r"\{\w+(:path)?\}", "x", path) for path in route.paths()]


# --- N1, B1


def test_every_route_asks_for_credentials(wired: Wired) -> None:
    wired.token()
    asked = 0
    others = ["/", "/docs", "/openapi.json", "/metrics", "/static/x.js", "/git/p/info/refs", "/nothing", "/api/2.0/x"]
    for method, path in [(one.method, path) for one in ROUTES for path in paths_of(one)] + [
        ("GET", one) for one in others
    ]:
        if path in PUBLIC:
            continue
        for verb in {method, "GET", "HEAD", "OPTIONS", "POST", "DELETE"}:
            answer = wired.ask(verb, path, body=b"{}" if verb == "POST" else b"")
            assert answer.status == 401, (verb, path, answer)
            asked += 1
    assert asked > 400
    assert {path for one in ROUTES if one.permission.role is None for path in one.paths()} == PUBLIC


def test_every_route_looks_at_the_host(wired: Wired) -> None:
    for one in ROUTES:
        for path in paths_of(one):
            assert wired.ask(one.method, path, host="evil.example").status == 421
    assert wired.raw("GET /health HTTP/1.1\nHost: evil.example\n\n")[0] == 421
    assert wired.raw("GET /health HTTP/1.0\n\n")[0] == 400


def test_every_route_refuses_other_sites(wired: Wired) -> None:
    for one in ROUTES:
        for path in paths_of(one):
            answer = wired.ask(one.method, path, headers={"origin": "https://evil.example"})
            assert answer.status == 403
            assert "access-control-allow-origin" not in answer.headers


# --- logging in


def test_the_page(wired: Wired) -> None:
    page = wired.send("GET", "/login", headers={"user-agent": "Mozilla/5.0"})
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(rb"<script(?! src=)|<style|\son\w+=|style=", page.body)  # nothing that the policy forbids
    for name, kind in (("login.js", "text/javascript"), ("login.css", "text/css")):
        assert f"/{name}".encode() in page.body
        assert wired.send("GET", f"/{name}").headers["content-type"].startswith(kind)
    script = wired.send("GET", "/login.js").body
    assert b"innerHTML" not in script
    assert b"eval" not in script


def test_a_browser_is_shown_where_to_log_in(wired: Wired) -> None:
    headers = {"user-agent": "Mozilla/5.0", "accept": "text/html,*/*", "sec-fetch-mode": "navigate",
               "sec-fetch-site": "none"}  # fmt: skip
    for path, wanted in (
        ("/", "/login?next=/"),
        ("/a/b%20c", "/login?next=/a/b%20c"),
        ("/a?x=//evil", "/login?next=/a"),
    ):
        answer = wired.send("GET", path, headers=headers)
        assert (answer.status, answer.headers["location"]) == (303, wanted)
    answer = wired.send("GET", "/api/2.0/mlflow/experiments/search", headers=headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="gittrack"'  # no window that asks for a password


def test_a_user_logs_in_and_out(wired: Wired) -> None:
    wired.accounts.add_user("ana", PASSWORD, (Grant(Role.WRITER, "*", "*"),), by="root")
    wired.clock.now += 2
    answer = wired.log_in(user="ana", password=PASSWORD)
    assert answer.ok == {"name": "ana"}
    flags = answer.headers["set-cookie"].split("; ")[1:]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags)
    session = {**BROWSER, **cookie(answer)}
    assert wired.send("GET", "/session", headers=session).ok == {"name": "ana", "kind": "user"}
    made = wired.send("POST", "/ajax-api/2.0/mlflow/experiments/create", {"name": "from a page"}, session)
    assert made.status == 200
    out = wired.send("POST", "/logout", {}, session)
    assert out.status == 200
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert wired.send("GET", "/session", headers=session).status == 401
    assert wired.log_in(user="ana", password="wrong").status == 401
    assert [(one["who"], one["what"], one["outcome"].partition(":")[0]) for one in wired.audit.lines()] == [
        ("ana", "login", "done"), ("ana", "logout", "done"), ("ana", "login", "refused"),
    ]  # fmt: skip
    assert PASSWORD not in (wired.folder / "server" / "audit.jsonl").read_text()


def test_the_token_of_the_start_logs_in(wired: Wired) -> None:
    assert wired.send("GET", "/session", headers=BROWSER).status == 401
    answer = wired.log_in(token=str(wired.auth.start_token))
    session = {**BROWSER, **cookie(answer)}
    assert wired.send("GET", "/session", headers=session).ok["kind"] == "local"
    assert wired.send("GET", "/version", headers=session).status == 200
    assert wired.send("POST", "/logout", {}, session).status == 200
    assert wired.send("GET", "/session", headers=session).status == 401


def test_a_token_logs_in(wired: Wired) -> None:
    answer = wired.log_in(token=wired.token("narrow", (Grant(Role.READER, "a*"),)))
    session = {**BROWSER, **cookie(answer)}
    assert wired.send("GET", "/session", headers=session).ok == {"name": "narrow", "kind": "token"}
    refused = wired.send("POST", "/ajax-api/2.0/mlflow/experiments/create", {"name": "abc"}, session)
    assert refused.status == 403
    assert wired.send("POST", "/logout", {}, session).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"[]", 400), (b"{", 400), (b"{}", 400), (b'{"user": "ana"}', 400),
        (b'{"user": "ana", "password": ""}', 400), (b'{"token": 7}', 400), (b'{"token": "x"}', 401),
        (b'{"user": "ana", "password": "x", "token": "y"}', 400), (b'{"user": "\\ud800", "password": "x"}', 400),
        (b'{"user": "nobody", "password": "x"}', 401),
    ],
)  # fmt: skip
def test_what_is_no_login(wired: Wired, body: bytes, status: int) -> None:
    answer = wired.send("POST", "/login", body, BROWSER)
    assert answer.status == status
    assert "set-cookie" not in answer.headers


def test_a_login_cannot_be_forged(wired: Wired) -> None:
    body = json.dumps({"token": str(wired.auth.start_token)}).encode()
    for headers in (
        {**BROWSER, "sec-fetch-site": "cross-site"}, {**BROWSER, "origin": "https://evil.example"},
        {**BROWSER, "content-type": "text/plain"}, {**BROWSER, "content-type": "application/octet-stream"},
    ):  # fmt: skip
        answer = wired.send("POST", "/login", body, headers)
        assert answer.status in (400, 403, 415)
        assert "set-cookie" not in answer.headers


def test_logging_in_can_be_tried_ten_times(wired: Wired) -> None:
    wired.accounts.add_user("ana", PASSWORD, (), by="root")
    wired.clock.now += 2
    found = [wired.log_in(user="ana", password=f"wrong {number}").status for number in range(12)]
    assert found == [401] * 10 + [429] * 2
    assert wired.log_in(user="ana", password=PASSWORD).status == 429
    wired.clock.now += 61
    assert wired.log_in(user="ana", password=PASSWORD).status == 200


# --- how a server is started (N3)


def entrance(root: Path, host: str = "127.0.0.1", **asked: Any) -> Guard:
    return guarded(echo, root, Address(host), Asked(**asked), public=PUBLIC)


def test_a_server_of_ones_own(tmp_path: Path) -> None:
    guard = entrance(tmp_path)
    url = page_url(guard, "http://127.0.0.1:5000")
    assert re.fullmatch(r"http://127\.0\.0\.1:5000/login#token=gtk_[0-9a-z]{10}_[0-9A-Za-z]{43}", url)
    assert page_url(entrance(tmp_path), "x") != url
    assert guard.options.loopback
    assert not guard.options.required
    assert entrance(tmp_path, auth=True).options.required
    assert list(tmp_path.iterdir()) == []


def test_a_server_for_others(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="any name"):
        entrance(tmp_path, "0.0.0.0")
    with pytest.raises(UsageError, match="nobody has an account"):
        entrance(tmp_path, "0.0.0.0", hosts=("hub.example",))
    kept = Accounts.in_store(tmp_path)
    kept.create_token("ci", (), by="x")
    guard = entrance(tmp_path, "0.0.0.0", hosts=("hub.example",), proxies=("10.0.0.1",), rate=5.0, secure=True)
    assert guard.auth.start_token is None
    assert page_url(guard, "https://hub.example") == "https://hub.example"
    assert (guard.options.loopback, guard.options.secure, guard.options.rate) == (False, True, 5.0)
    assert entrance(tmp_path, accounts=f"sqlite:///{tmp_path / 'other.db'}").auth.start_token is not None


@pytest.mark.parametrize("site", ["*", "null", "x.example", "https://", "ftp://x", "https://x/y", "https://*.x", "https://a@b",
                                  "https://x:y", "https://x y", "https://x\n"])  # fmt: skip
def test_what_is_no_site(tmp_path: Path, site: str) -> None:
    with pytest.raises(InvalidValueError, match="is no site"):
        entrance(tmp_path, origins=(site,))
    for fine in ("https://Notebook.example", "http://localhost:8888", "http://[::1]:8888"):
        assert entrance(tmp_path, origins=(fine,)).options.origins == {fine.lower()}


# --- on the wire (N2, N4, K1, L1, L3)


def test_stock_clients_log_in(wired: Wired) -> None:
    token = wired.token()
    wired.accounts.add_user("ana", PASSWORD, (Grant(Role.READER, "*", "*"),), by="root")
    for headers in (bearer(token), basic("mlflow", token), basic("ana", PASSWORD)):
        assert wired.send("GET", "/version", headers=headers).status == 200
    assert wired.send("GET", "/version").status == 401


_CLIENT = """
import os, sys, mlflow
from mlflow.exceptions import MlflowException
mlflow.set_tracking_uri(sys.argv[1])
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
for variables in eval(sys.argv[2]):
    os.environ.update(variables)
    try:
        mlflow.set_experiment("e")
        with mlflow.start_run() as run:
            mlflow.log_metric("m", 2.0)
            mlflow.log_text("hello", "sub folder/a b.txt")
        print(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/sub folder/a b.txt"))
    except MlflowException as error:
        print(error.error_code)
    for name in variables:
        del os.environ[name]
"""


@pytest.mark.peer
def test_mlflow_itself_logs_in(wired: Wired) -> None:
    pytest.importorskip("mlflow", reason="the real MLflow is not installed")

    def ask(*each: dict[str, str]) -> list[str]:
        url = f"http://127.0.0.1:{wired.port}"
        done = subprocess.run(
            [sys.executable, "-c", _CLIENT, url, repr(list(each))],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if line in ("hello", "UNAUTHENTICATED")]

    name, password = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
    assert ask({}) == ["hello"]  # as in MLflow's quickstart: nothing was set up
    token = wired.token()
    wired.accounts.add_user("ana", PASSWORD, (Grant(Role.WRITER, "*", "*"),), by="root")
    wired.clock.now += 2
    logins = [{"MLFLOW_TRACKING_TOKEN": token}, {name: "ana", password: PASSWORD}, {name: "any", password: token}]
    assert ask(*logins, {}, {name: "ana", password: "wrong"}) == ["hello"] * 3 + ["UNAUTHENTICATED"] * 2


@pytest.mark.parametrize(
    "line",
    ["GET /./version HTTP/1.1", "GET /x/../version HTTP/1.1", "GET /%2e%2e/version HTTP/1.1",
     "GET /%2e/version HTTP/1.1", "GET /api%2fversion HTTP/1.1", "GET /api%2Fversion HTTP/1.1",
     "GET /%2fversion HTTP/1.1", "GET /x%00 HTTP/1.1", "GET /%ff HTTP/1.1"],
)  # fmt: skip
def test_other_spellings_of_a_path(wired: Wired, line: str) -> None:
    status, _, body = wired.raw(f"{line}\nHost: 127.0.0.1\n\n")
    assert status == 400
    assert json.loads(body)["error_code"] == "BAD_REQUEST"


def test_two_slashes_are_answered_with_where_the_plain_path_is(wired: Wired) -> None:
    status, headers, _ = wired.raw("GET //version//x?a=//b HTTP/1.1\nHost: 127.0.0.1\n\n")
    assert (status, headers["location"]) == (308, "/version/x?a=//b")


@pytest.mark.parametrize(
    ("line", "status"),
    [("GET /%252e%252e/version HTTP/1.1", 404), ("GET /VERSION HTTP/1.1", 404), ("GET /version/ HTTP/1.1", 404),
     ("GET /version;x HTTP/1.1", 404), ("TRACE /version HTTP/1.1", 405),
     ("DELETE /version HTTP/1.1", 405)],
)  # fmt: skip
def test_what_is_like_a_path_is_another(wired: Wired, line: str, status: int) -> None:
    assert wired.raw(f"{line}\nHost: 127.0.0.1\n\n")[0] == status


def test_two_hosts(wired: Wired) -> None:
    assert wired.raw("GET /version HTTP/1.1\nHost: 127.0.0.1\nHost: evil.example\n\n")[0] == 400
    assert wired.raw("GET /version HTTP/1.1\nHost: evil.example\nX-Forwarded-Host: 127.0.0.1\n\n")[0] == 421


def test_large_bodies(wired: Wired) -> None:
    head = "POST /api/2.0/mlflow/runs/create HTTP/1.1\nHost: 127.0.0.1\nContent-Type: application/json\n"
    assert wired.raw(f"{head}Content-Length: 9999999999\n\n")[0] == 413
    piece = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    assert wired.raw(f"{head}Transfer-Encoding: chunked\n\n", piece * 9 + b"0\r\n\r\n")[0] == 413
    assert wired.raw(f"{head}Content-Length: 5\nTransfer-Encoding: chunked\n\n", b"0\r\n\r\n")[0] == 400
    bomb = gzip.compress(b" " * (100 << 20))
    assert wired.raw(f"{head}Content-Encoding: gzip\nContent-Length: {len(bomb)}\n\n", bomb)[0] == 415
    assert wired.send("GET", "/version").status == 200


def test_a_large_head(wired: Wired) -> None:
    assert wired.raw(f"GET /version HTTP/1.1\nHost: 127.0.0.1\nX: {'x' * (600 << 10)}\n\n")[0] == 431
    many = "".join(f"X-{number}: y\n" for number in range(100_000))
    assert wired.raw(f"GET /version HTTP/1.1\nHost: 127.0.0.1\n{many}\n")[0] == 431
