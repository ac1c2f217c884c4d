"""Who is let in, and what is refused; asked in this process."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gittrack.errors import GittrackError, InvalidValueError, OverloadedError, TooManyRequestsError, UsageError
from gittrack.server.hub import accounts
from gittrack.server.hub.accounts import Accounts, now
from gittrack.server.hub.app import refusal
from gittrack.server.hub.credentials import Password, parse_token
from gittrack.server.hub.options import AuthOptions, allowed_hosts, check_address, networks
from gittrack.server.hub.roles import Grant, Role
from gittrack.server.hub.throttle import Failures, Rates
from gittrack.server.run import Address
from tests.server.guarded import API, EVERYTHING, PASSWORD, Clock, Guarded, basic, bearer, echo, options

BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux)", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
OWN = "http://127.0.0.1:5000"

pytestmark = [pytest.mark.usefixtures("quick_argon2"), pytest.mark.any_backend]  # no server is behind the guard


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that argon2 was asked about."""
    asked: list[str] = []
    real = accounts.is_password

    def is_password(stored: str, password: str) -> bool:
        asked.append(password)
        return real(stored, password)

    monkeypatch.setattr(accounts, "is_password", is_password)
    return asked


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path, options())


@pytest.fixture
def team(tmp_path: Path) -> Guarded:
    """A server with accounts, that others can reach."""
    return Guarded(tmp_path, options(hosts=frozenset(("hub.example",)), loopback=False))


# --- on a machine of one's own, without accounts


def test_a_program_of_this_machine_needs_nothing(guarded: Guarded) -> None:
    for host in ("127.0.0.1:5000", "localhost", "localhost:80", "[::1]:5000"):
        assert guarded.ask(host=host).ok["kind"] == "local"
    assert guarded.ask(headers=basic("left", "over from another server")).ok["kind"] == "local"


def test_a_browser_of_this_machine_needs_the_token(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, options(), start=True)
    for sign in (
        {"user-agent": BROWSER["user-agent"]}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"},
        {"origin": OWN}, {"sec-fetch-mode": "navigate"},
    ):  # fmt: skip
        assert guarded.ask(headers=sign).status == 401, sign
    assert guarded.ask(headers={**BROWSER, **bearer(str(guarded.auth.start_token))}).ok["kind"] == "local"
    wrong = str(guarded.auth.start_token)[:-1] + "!"
    assert guarded.ask(headers={**BROWSER, **bearer(wrong)}).status == 401


@pytest.mark.parametrize("name", ["x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-proto"])
def test_who_comes_through_a_proxy_is_not_of_this_machine(guarded: Guarded, name: str) -> None:
    assert guarded.ask(headers={name: "10.0.0.1"}).status == 401


def test_a_name_for_this_machine_is_not_its_own(guarded: Guarded) -> None:
    named = guarded.with_options(hosts=guarded.options.hosts | {"box.example"})
    assert named.ask(host="box.example").status == 401
    assert named.ask().status == 200


def test_credentials_can_be_required(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, options(required=True), start=True)
    answer = guarded.ask()
    assert answer.status == 401
    assert "printed when it started" in answer.json["message"]
    assert guarded.ask(headers=bearer(str(guarded.auth.start_token))).ok["kind"] == "local"
    assert guarded.ask(headers=basic("any", str(guarded.auth.start_token))).ok["kind"] == "local"


def test_the_first_account_closes_the_door(guarded: Guarded) -> None:
    assert guarded.ask().status == 200
    token = guarded.token()
    assert guarded.ask().status == 401
    assert guarded.ask(headers=bearer(token)).ok["name"] == "ci"
    guarded.accounts.revoke_token("ci")
    guarded.clock.now += 2
    assert guarded.ask().status == 401  # the last one does not open it again


# --- tokens (N2)


def test_tokens(team: Guarded) -> None:
    token = team.token()
    host = "hub.example"
    assert team.ask(host=host, headers=bearer(token)).ok == {
        "name": "ci", "kind": "token", "method": "POST", "path": API, "size": 0, "address": "127.0.0.1",
    }  # fmt: skip
    assert team.ask(host=host, headers=basic("anybody", token)).ok["name"] == "ci"
    assert team.ask(host=host, headers=basic(token, "x-oauth-basic")).ok["name"] == "ci"


def test_what_is_no_token(team: Guarded, tmp_path: Path) -> None:
    token = team.token()
    other = Guarded(tmp_path / "other", team.options).token()
    wrong = [
        None, bearer(token[:-1]), bearer(token + "x"), bearer(token[:-1] + ("a" if token[-1] != "a" else "b")),
        bearer(token.upper()), bearer(other), bearer(token.replace("gtk_", "")), basic(token, ""), basic("", ""),
        {"authorization": token}, {"authorization": f"Token {token}"}, {"cookie": f"gittrack-5000={token}"},
        bearer(f"{token}, {token}"), bearer(f"gtk_{'0' * 10}_{token[15:]}"),
    ]  # fmt: skip
    for headers in wrong[:5]:
        answer = team.ask(host="hub.example", headers=headers)
        assert answer.status == 401, headers
        assert answer.json["error_code"] == "UNAUTHENTICATED"
        assert answer.headers["www-authenticate"] == 'Basic realm="gittrack", charset="UTF-8", Bearer realm="gittrack"'
        assert token not in answer.body.decode()
    for index, headers in enumerate(wrong[5:]):
        answer = team.ask(host="hub.example", headers=headers, client=f"10.1.{index}.1")
        assert answer.status == 401, headers


def test_tokens_that_ended(team: Guarded) -> None:
    ended = team.token("ended", expires=now() + 1)
    revoked = team.token("revoked")
    team.accounts.revoke_token("revoked")
    team.clock.now += 2
    for token, said in ((ended, "has expired"), (revoked, "was revoked")):
        answer = team.ask(host="hub.example", headers=bearer(token))
        assert answer.status == 401
        assert said in answer.json["message"]
        # Only whoever has all of it learns what became of it.
        answer = team.ask(host="hub.example", headers=bearer(token[:-1] + ("a" if token[-1] != "a" else "b")))
        assert answer.json["message"] == "the credentials are wrong"


def test_a_token_in_an_address_is_not_taken(team: Guarded, guarded: Guarded) -> None:
    token = team.token()
    for query in (f"token={token}", f"access_token={token}&x=1", f"a=b&{token}"):
        assert team.ask("GET", host="hub.example", query=query).status == 401
        answer = team.ask("GET", host="hub.example", query=query, headers=bearer(token))
        assert answer.status == 401
        assert "ends up in logs" in answer.json["message"]
        assert guarded.ask("GET", query=query).status == 401


def test_revoking_is_seen_within_a_second(team: Guarded) -> None:
    token = team.token()
    assert team.ask(host="hub.example", headers=bearer(token)).status == 200
    Accounts.in_store(team.folder).revoke_token("ci")  # another process, say
    team.clock.now += 1.01
    assert team.ask(host="hub.example", headers=bearer(token)).status == 401


def test_when_a_token_was_used_is_written_now_and_then(team: Guarded) -> None:
    token = team.token()
    for _ in range(3):
        assert team.ask(host="hub.example", headers=bearer(token)).status == 200
    assert team.accounts.tokens()[0].last_used is None
    team.clock.now += 61
    assert team.ask(host="hub.example", headers=bearer(token)).status == 200
    first = team.accounts.tokens()[0].last_used
    assert first is not None
    team.auth.close()
    assert (team.accounts.tokens()[0].last_used or 0) >= first


def test_nobody_is_let_in_if_the_accounts_cannot_be_read(team: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    token = team.token()
    assert team.ask(host="hub.example", headers=bearer(token)).status == 200

    def gone() -> int:
        raise OverloadedError("the database of the accounts does not answer: gone")

    monkeypatch.setattr(team.accounts, "generation", gone)
    team.clock.now += 2
    assert team.ask(host="hub.example", headers=bearer(token)).status == 503
    assert team.ask("GET", "/health", host="hub.example").status == 200  # that it is alive is still said
    monkeypatch.undo()
    assert team.ask(host="hub.example", headers=bearer(token)).status == 200


def test_a_database_that_cannot_be_written_keeps_nobody_out(team: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    token = team.token()
    assert team.ask(host="hub.example", headers=bearer(token)).status == 200

    def refuse(used: object) -> None:
        raise OverloadedError("the database of the accounts does not answer: read-only")

    monkeypatch.setattr(team.accounts, "note_used", refuse)
    team.clock.now += 61
    assert team.ask(host="hub.example", headers=bearer(token)).status == 200
    team.auth.close()


# --- passwords


def test_passwords(team: Guarded, verified: list[str]) -> None:
    team.accounts.add_user("ana", PASSWORD, EVERYTHING, by="root")
    for _ in range(3):
        assert team.ask(host="hub.example", headers=basic("ana", PASSWORD)).ok["kind"] == "user"
    assert len(verified) == 1  # argon2 once
    team.clock.now += 301
    assert team.ask(host="hub.example", headers=basic("ana", PASSWORD)).status == 200
    assert len(verified) == 2
    assert team.ask(host="hub.example", headers=basic("ana", "wrong password")).status == 401
    assert team.ask(host="hub.example", headers=basic("bob", PASSWORD)).status == 401
    assert len(verified) == 4  # for a name that nobody has, too: that takes as long
    team.accounts.set_password("ana", "another password")
    team.clock.now += 2
    assert team.ask(host="hub.example", headers=basic("ana", PASSWORD)).status == 401
    assert team.ask(host="hub.example", headers=basic("ana", "another password")).status == 200
    team.accounts.remove_user("ana")
    team.clock.now += 2
    assert team.ask(host="hub.example", headers=basic("ana", "another password")).status == 401


def test_many_with_one_password_at_a_time_are_no_attack(team: Guarded, verified: list[str]) -> None:
    team.accounts.add_user("ana", PASSWORD, EVERYTHING, by="root")

    async def many() -> list[Any]:
        await team.auth.refresh()
        return await asyncio.gather(*(team.guard.identify(Password("ana", PASSWORD), "10.0.0.1") for _ in range(40)))

    assert {one.name for one in asyncio.run(many())} == {"ana"}
    assert len(verified) <= 2


# --- too often (N5)


@pytest.mark.parametrize("how", ["token", "password", "nonsense"])
def test_ten_failures_are_enough(team: Guarded, how: str) -> None:
    token = team.token()
    team.accounts.add_user("ana", PASSWORD, EVERYTHING, by="root")

    def wrong(number: int) -> dict[str, str]:
        if how == "token":
            return bearer(f"gtk_{number:010d}_{token[15:]}")
        return basic("ana", f"wrong {number}") if how == "password" else {"authorization": f"Basic {number}"}

    def ask(number: int, client: str = "10.0.0.1") -> Any:
        return team.ask(host="hub.example", headers=wrong(number), client=client)

    assert [ask(number).status for number in range(10)] == [401] * 10
    answer = ask(10)
    assert answer.status == 429
    assert answer.json["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    lines = list(team.audit.lines())
    assert [(one["what"], one["address"], one["outcome"]) for one in lines] == [
        ("credentials", "10.0.0.1", "refused: wrong too often")
    ]
    assert team.ask(host="hub.example", headers=bearer(token), client="10.0.0.1").status == 200  # it was no guess
    right = team.ask(host="hub.example", headers=basic("ana", PASSWORD), client="10.0.0.1")
    assert right.status == 429  # this could be one
    assert ask(11, "10.0.0.2").status == 401
    team.clock.now += 61
    assert team.ask(host="hub.example", headers=basic("ana", PASSWORD), client="10.0.0.1").status == 200


def test_a_token_id_is_tried_from_many_addresses(team: Guarded) -> None:
    token = team.token()
    wrong = bearer(token[:-1] + ("a" if token[-1] != "a" else "b"))
    found = [team.ask(host="hub.example", headers=wrong, client=f"10.0.0.{n}").status for n in range(12)]
    assert found == [401] * 10 + [429] * 2
    assert team.ask(host="hub.example", headers=bearer(token)).status == 200


def test_addresses_of_one_ipv6_customer_are_one(team: Guarded) -> None:
    team.token()
    found = [
        team.ask(host="hub.example", headers={"authorization": "Basic x"}, client=f"2001:db8::{n:x}").status
        for n in range(11)
    ]
    assert found == [401] * 10 + [429]


def test_counters_are_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gittrack.server.hub.throttle._MOST", 100)
    clock = Clock()
    failures = Failures(2, clock=clock)
    rates = Rates(1, clock=clock)
    for number in range(1000):
        failures.count(f"a{number}")
        failures.count(f"b{number}")
        failures.count(f"b{number}")
        rates.count(str(number))
    assert max(len(failures._seen), len(failures._locked), len(rates._left)) <= 100


def test_callers_have_a_rate(team: Guarded) -> None:
    token = team.token()
    limited = team.with_options(rate=0.2)
    found = [limited.ask(host="hub.example", headers=bearer(token)) for _ in range(4)]
    assert [one.status for one in found] == [200, 200, 429, 429]
    assert int(found[2].headers["retry-after"]) in range(1, 6)


def test_a_rate_fills_up_again() -> None:
    clock = Clock()
    rates = Rates(2, clock=clock)
    for _ in range(20):
        rates.count("x")
    with pytest.raises(TooManyRequestsError):
        rates.count("x")
    rates.count("y")
    clock.now += 1
    rates.count("x")
    rates.count("x")
    with pytest.raises(TooManyRequestsError):
        rates.count("x")


# --- hosts (B1)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "127.0.0.1.evil.example", "localhost.evil.example", "", "127.0.0.2",
             "127.0.0.1:5000:5000", "[::1", "localhost.", "0.0.0.0", "user@localhost", "localhost,evil.example"]
)  # fmt: skip
@pytest.mark.parametrize("path", ["/health", "/login", API])
def test_other_names_are_refused_everywhere(guarded: Guarded, host: str, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS", "HEAD"):
        answer = guarded.ask(method, path, host=host)
        assert answer.status == 421, (method, answer)
        assert answer.json["error_code"] == "BAD_REQUEST"


def test_a_host_is_named_once(guarded: Guarded) -> None:
    assert guarded.ask(host=None).status == 400
    asked = guarded.ask(headers={"Host": "evil.example"})
    assert asked.status == 400
    assert "twice" in asked.json["message"]


def test_names_can_be_allowed() -> None:
    local = Address("127.0.0.1")
    assert allowed_hosts(local, []) == {"127.0.0.1", "localhost", "[::1]"}
    assert "box.example" in allowed_hosts(local, ["Box.Example."])
    assert "[::1]" in allowed_hosts(Address("::1"), [])
    with pytest.raises(UsageError, match="any name"):
        allowed_hosts(Address("0.0.0.0"), [])
    assert allowed_hosts(Address("0.0.0.0"), ["hub.example:5000"]) == {"hub.example:5000"}
    for name in ("", "*", "http://x", "a b"):
        with pytest.raises(InvalidValueError):
            allowed_hosts(local, [name])


def test_a_name_with_a_port_is_of_that_port(guarded: Guarded) -> None:
    named = guarded.with_options(hosts=frozenset(("hub.example:5000",)))
    assert named.ask("GET", "/health", host="hub.example:5000").status == 200
    assert named.ask("GET", "/health", host="hub.example:6000").status == 421
    assert named.ask("GET", "/health", host="hub.example").status == 421


def test_a_server_that_knows_nobody_is_for_one_machine(tmp_path: Path) -> None:
    """N3."""
    for host in ("0.0.0.0", "::", "hub.example", "192.168.1.7"):
        with pytest.raises(UsageError, match="nobody has an account") as error:
            check_address(Address(host), accounts=False)
        assert "gittrack server token create" in str(error.value.hint)
        check_address(Address(host), accounts=True)
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        check_address(Address(host), accounts=False)


# --- browsers (B2, B3)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "https://127.0.0.1",
        "http://127.0.0.1:6000",
        "http://127.0.0.1:5000.evil.example",
        "file://",
        "http://localhost:5000",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_pages_of_others_may_not_ask(tmp_path: Path, origin: str, method: str) -> None:
    guarded = Guarded(tmp_path, options(), start=True)
    credentials = bearer(str(guarded.auth.start_token))
    for path in (API, "/health", "/login"):
        answer = guarded.ask(method, path, headers={"origin": origin, **credentials})
        assert answer.status == 403, path
        assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_requests_that_others_cause(tmp_path: Path, site: str) -> None:
    guarded = Guarded(tmp_path, options(), start=True)
    credentials = bearer(str(guarded.auth.start_token))
    for method in ("POST", "PUT", "DELETE", "PATCH", "GET", "HEAD"):
        assert (
            guarded.ask(method, headers={"sec-fetch-site": site, "sec-fetch-mode": "cors", **credentials}).status == 403
        )
        assert guarded.ask(method, headers={"sec-fetch-site": site, **credentials}).status == 403
    form = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", **credentials}
    assert guarded.ask("POST", headers=form).status == 403
    link = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "accept": "text/html"}
    assert guarded.ask("GET", "/x", headers=link).status == 303  # to log in
    assert guarded.ask("GET", API, headers=link).status == 401


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
                                  "TEXT/PLAIN;charset=utf-8"])  # fmt: skip
def test_what_a_form_can_send_is_not_read(guarded: Guarded, kind: str) -> None:
    answer = guarded.ask(headers={"content-type": kind}, body=b"{}")
    assert answer.status == 400
    assert answer.json["message"] == "Bad Request. Content-Type must be one of ['application/json']."
    files = "/api/2.0/mlflow-artifacts/artifacts/0/x/artifacts/a.txt"
    assert guarded.ask("PUT", files, headers={"content-type": kind}, body=b"{}").status == 200


def test_preflights(guarded: Guarded) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    refused = guarded.ask("OPTIONS", headers={"origin": "https://other.example", **asked})
    assert (refused.status, [name for name in refused.headers if name.startswith("access-control")]) == (403, [])
    friendly = guarded.with_options(origins=frozenset(("https://notebook.example",)))
    answer = friendly.ask("OPTIONS", headers={"origin": "https://notebook.example", **asked})
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "https://notebook.example"
    assert "access-control-allow-credentials" not in answer.headers
    assert "authorization" in answer.headers["access-control-allow-headers"]
    token = friendly.token()
    answer = friendly.ask(headers={"origin": "https://notebook.example", **bearer(token)})
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "https://notebook.example"
    assert answer.headers["vary"] == "Origin"
    assert friendly.ask(headers={"origin": "https://notebook.example"}).status == 401


def test_a_page_behind_a_proxy_with_tls_is_ours(guarded: Guarded) -> None:
    token = bearer(guarded.token())
    assert guarded.ask(headers={"origin": "https://127.0.0.1:5000", **token}).status == 200
    secure = guarded.with_options(secure=True)
    assert secure.ask(headers={"origin": "https://127.0.0.1:5000", **token}).status == 200
    assert secure.ask(headers={"origin": "http://127.0.0.1:5000", **token}).status == 403


# --- headers


def test_answers_are_safe_in_a_browser(guarded: Guarded) -> None:
    for answer in (
        guarded.ask(),
        guarded.ask(host="evil.example"),
        guarded.ask("GET", "//"),
        guarded.ask("POST", "/login"),
    ):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers


def test_an_answer_may_be_stricter(tmp_path: Path) -> None:
    async def artifact(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-security-policy", b"sandbox; default-src 'none'"), (b"cache-control", b"max-age=9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    answer = Guarded(tmp_path, options(), artifact).ask()
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["cache-control"] == "max-age=9"
    assert answer.headers["x-content-type-options"] == "nosniff"


# --- paths and methods (N4)


@pytest.mark.parametrize(
    "path",
    ["/api/./2.0", "/api/../health", "/..", "/.", "/api/2.0/..", "x", "/a\0b", "/x/./", "//..", "//api/./2.0",
     "//a\0b"],
)  # fmt: skip
def test_paths_are_written_in_one_way(guarded: Guarded, path: str) -> None:
    assert guarded.ask(path=path).status == 400
    assert guarded.ask("GET", path).status == 400


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("//api/2.0/x", "/api/2.0/x"), ("/api//2.0", "/api/2.0"), ("//", "/"), ("/health//", "/health/"),
        ("//evil.example/x", "/evil.example/x"), ("///%C3%A9", "/%C3%A9"), ("//\\evil.example", "/%5Cevil.example"),
    ],
)  # fmt: skip
def test_two_slashes_are_put_right_by_who_asks(guarded: Guarded, path: str, plain: str) -> None:
    """And lead to no other server; nothing behind the guard is asked."""
    for method in ("GET", "POST"):
        answer = guarded.ask(method, path)
        assert (answer.status, answer.headers["location"], answer.body) == (308, plain, b"")
        assert guarded.ask(method, path, query="a=1&b=//").headers["location"] == f"{plain}?a=1&b=//"
    assert guarded.ask("GET", path, host="evil.example").status == 421


def test_paths_that_look_like_it(guarded: Guarded) -> None:
    for path in ("/.well-known", "/a/.b", "/a/..b", "/a/b./c", "/a/...", "/"):
        assert guarded.ask(path=path).ok["path"] == path


@pytest.mark.parametrize("path", ["/Health", "/health/", "/HEALTH", "/login/", "/login.js/x"])
def test_only_the_public_paths_themselves_are_public(team: Guarded, path: str) -> None:
    assert team.ask("GET", path, host="hub.example").status == 401
    assert team.ask("GET", "/health", host="hub.example").ok["kind"] == "anonymous"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "get", "FOO"])
def test_methods_that_nobody_needs(guarded: Guarded, method: str) -> None:
    assert guarded.ask(method).status == 405


def test_headers_that_change_a_request_do_not(team: Guarded) -> None:
    token = bearer(team.token())
    tricks = {
        "x-http-method-override": "DELETE", "x-method-override": "DELETE", "x-http-method": "DELETE",
        "x-original-url": "/health", "x-rewrite-url": "/health", "x-forwarded-prefix": "/x",
        "x-forwarded-uri": "/health",
        "x-forwarded-host": "evil.example", "x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1",
        "x-forwarded-user": "root", "remote-user": "root", "x-remote-user": "root",
    }  # fmt: skip
    assert team.ask(host="hub.example", headers=tricks).status == 401
    found = team.ask(host="hub.example", headers={**tricks, **token}, client="10.0.0.9").ok
    assert (found["method"], found["path"], found["address"], found["name"]) == ("POST", API, "10.0.0.9", "ci")


def test_only_trusted_proxies_say_who_asks(team: Guarded) -> None:
    token = bearer(team.token())
    trusting = team.with_options(proxies=networks(["10.0.0.0/24", "fd00::/64"]))

    def address(client: str, said: str) -> str:
        headers = {"x-forwarded-for": said, **token}
        return str(trusting.ask(host="hub.example", headers=headers, client=client).ok["address"])

    assert address("10.0.0.1", "8.8.8.8") == "8.8.8.8"
    assert address("10.0.0.1", "1.1.1.1, 8.8.8.8") == "8.8.8.8"  # what the client itself said is not believed
    assert address("10.0.0.1", "8.8.8.8, 10.0.0.2") == "8.8.8.8"
    assert address("10.0.0.1", "nonsense") == "10.0.0.1"
    assert address("10.0.0.1", "8.8.8.8, evil") == "10.0.0.1"
    assert address("10.0.1.1", "8.8.8.8") == "10.0.1.1"
    assert address("fd00::5", "2001:db8::1") == "2001:db8::1"
    assert address("unix", "8.8.8.8") == "unix"
    for text in ("10.0.0.0/99", "proxy.example", ""):
        with pytest.raises(InvalidValueError):
            networks([text])


# --- bodies (K1)


def test_bodies_have_a_size(guarded: Guarded) -> None:
    small = guarded.with_options(max_body=100)
    assert small.ask(body=b"x" * 100).ok["size"] == 100
    assert small.ask(body=b"x" * 101).status == 413
    for length in ("101", "9" * 19, "-1", "1e3", "0x10", ""):
        assert small.ask(headers={"content-length": length}).status == 413, length
    assert small.ask("GET", headers={"content-length": "101"}).status == 413


def test_bodies_in_pieces_are_counted(tmp_path: Path) -> None:
    async def answering(scope: Any, receive: Any, send: Any) -> None:
        """Reads as the real application does: a body that is too large is an error there."""
        try:
            await echo(scope, receive, send)
        except GittrackError as error:
            await refusal(error)(scope, receive, send)

    for app in (echo, answering):
        guarded = Guarded(tmp_path, options(max_body=100), app)
        assert guarded.ask(pieces=[b"x" * 50, b"x" * 50]).ok["size"] == 100
        answer = guarded.ask(pieces=[b"x" * 50, b"x" * 50, b"x"])
        assert answer.status == 413
        assert "content-security-policy" in answer.headers


def test_files_may_be_larger(guarded: Guarded) -> None:
    files = "/api/2.0/mlflow-artifacts/artifacts/0/x/artifacts/a.bin"
    small = guarded.with_options(max_body=10)
    assert small.ask("PUT", files, body=b"x" * 1000).ok["size"] == 1000
    limited = guarded.with_options(max_body=10, max_stream=100)
    assert limited.ask("PUT", files, body=b"x" * 101).status == 413
    assert limited.ask("PUT", files, pieces=[b"x" * 60, b"x" * 60]).status == 413


def test_compressed_bodies_are_not_read(guarded: Guarded) -> None:
    for kind in ("gzip", "deflate", "br", "GZIP", "gzip, identity"):
        assert guarded.ask(headers={"content-encoding": kind}).status == 415
    assert guarded.ask(headers={"content-encoding": "identity"}).status == 200
    assert guarded.ask("POST", "/git/p/git-upload-pack", headers={"content-encoding": "gzip"}).status == 200


# --- sessions


def test_the_name_of_a_cookie(guarded: Guarded) -> None:
    scope: dict[str, Any] = {"headers": [], "scheme": "http", "server": ("127.0.0.1", 5000), "client": ("10.0.0.1", 1)}
    assert guarded.guard.set_cookie(scope, "s", 9) == "gittrack-5000=s; Path=/; HttpOnly; SameSite=Strict; Max-Age=9"
    expected = "__Host-gittrack=s; Path=/; HttpOnly; SameSite=Strict; Max-Age=9; Secure"
    assert guarded.with_options(secure=True).guard.set_cookie(scope, "s", 9) == expected
    assert guarded.guard.set_cookie({**scope, "scheme": "https"}, "s", 9) == expected
    proxied = {**scope, "headers": [(b"x-forwarded-proto", b"https")]}
    assert guarded.guard.set_cookie(proxied, "s", 9).startswith("gittrack-5000=")
    trusting = guarded.with_options(proxies=networks(["10.0.0.1"]))
    assert trusting.guard.set_cookie(proxied, "s", 9) == expected


def test_forged_requests_with_a_session(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, options(), start=True)
    token = guarded.auth.start_token
    assert token is not None

    async def opened() -> str:
        return await guarded.auth.open_session(guarded.auth.by_token(token), 3600)

    cookie = {"cookie": f"theme=dark; gittrack-5000={asyncio.run(opened())}"}
    assert guarded.ask("GET", headers={**BROWSER, **cookie}).ok["kind"] == "local"
    assert guarded.ask(headers={**BROWSER, **cookie}).ok["kind"] == "local"
    assert guarded.ask(headers={"origin": OWN, **cookie}).status == 200
    assert guarded.ask(headers=cookie).status == 403  # nothing says which page made this
    octets = {"content-type": "application/octet-stream"}
    files = "/api/2.0/mlflow-artifacts/artifacts/a"
    assert guarded.ask("PUT", files, headers={**BROWSER, **cookie, **octets}).status == 403
    assert guarded.ask("PUT", files, headers={**BROWSER, **cookie, **octets, "x-requested-with": "x"}).status == 200
    assert guarded.ask("DELETE", headers={**BROWSER, **cookie}).status == 403
    assert guarded.ask(headers={**BROWSER, "cookie": f"{cookie['cookie']}; gittrack-5000=planted"}).status == 401
    assert guarded.ask(headers={**BROWSER, "cookie": "gittrack-5000=" + "x" * 43}).status == 401
    friendly = guarded.with_options(origins=frozenset(("https://other.example",)))
    assert friendly.ask(headers={"origin": "https://other.example", **cookie}).status in (401, 403)
    guarded.clock.now += 3601
    assert guarded.ask("GET", headers={**BROWSER, **cookie}).status == 401


def test_sessions_of_users_and_tokens_end_with_them(team: Guarded) -> None:
    token = parse_token(team.token())
    assert token is not None
    team.accounts.add_user("ana", PASSWORD, EVERYTHING, by="root")

    async def opened(shown: Any) -> str:
        await team.auth.refresh()
        return await team.auth.open_session(await team.guard.identify(shown, "10.0.0.1"), 3600)

    of_user, of_token = (asyncio.run(opened(shown)) for shown in (Password("ana", PASSWORD), token))

    def status(secret: str) -> int:
        headers = {**BROWSER, "cookie": f"gittrack-5000={secret}"}
        return team.ask("GET", host="hub.example", headers=headers).status

    assert [status(of_user), status(of_token)] == [200, 200]
    team.accounts.revoke_token("ci")
    team.clock.now += 2
    assert [status(of_user), status(of_token)] == [200, 401]
    team.accounts.set_password("ana", "another password")
    team.clock.now += 2
    assert [status(of_user), status(of_token)] == [401, 401]


def test_grants_that_change_are_seen(team: Guarded) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["gittrack.caller"].grants)
        await refusal(UsageError("x"))(scope, receive, send)

    guarded = Guarded(team.folder, options(), app)
    token = guarded.token("narrow", (Grant(Role.READER, "a*"),))
    guarded.ask(headers=bearer(token))
    assert seen == [(Grant(Role.READER, "a*"),)]


def test_other_protocols_are_closed(guarded: Guarded) -> None:
    said: list[Any] = []

    async def ask() -> None:
        async def send(message: Any) -> None:
            said.append(message)

        await guarded.guard({"type": "websocket", "path": "/"}, None, send)  # type: ignore[arg-type]

    asyncio.run(ask())
    assert said == [{"type": "websocket.close", "code": 1008}]


def test_errors_have_mlflows_shape(guarded: Guarded, team: Guarded) -> None:
    answers = [
        guarded.ask(host="evil.example"), guarded.ask(path="/./"), guarded.ask("TRACE"), team.ask(host="hub.example"),
        guarded.ask(headers={"origin": "null"}), guarded.ask(headers={"content-encoding": "gzip"}),
        guarded.ask(headers={"content-length": "999999999999"}),
    ]  # fmt: skip
    for answer in answers:
        assert 400 <= answer.status < 500
        assert set(json.loads(answer.body)) == {"error_code", "message"}
        assert answer.headers["content-type"] == "application/json"
    assert AuthOptions().max_body == 8 << 20
