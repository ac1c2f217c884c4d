"""Logging in by an identity provider: the right way, and what a hostile one, or a hostile browser, can do."""

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

pytest.importorskip("joserfc", reason="joserfc is not installed: pip install 'gittrack[oidc]'")

from joserfc import jwe, jwk, jws, jwt

from gittrack.errors import AlreadyExistsError, InvalidValueError
from gittrack.server.hub import outgoing
from gittrack.server.hub.accounts import Identity
from gittrack.server.hub.all_routes import ROUTES
from gittrack.server.hub.app import App, Hub, Options
from gittrack.server.hub.oidc import Client, Provider
from gittrack.server.hub.oidc_login import Admission, Oidc, OidcOptions, admission, values_of
from gittrack.server.hub.roles import Grant, Role
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from tests.server.guarded import PASSWORD, Guarded, options
from tests.server.issuer import BROWSER, CLIENT, REDIRECT, SECRET, Browser, Issuer, key

pytestmark = pytest.mark.any_backend  # who is let in is decided before anything is looked up
ADMISSIONS = (admission("groups=ml-*", "writer"), admission("groups=leads", "maintainer:churn*"))
SUBJECT = "248289761001"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    found = Issuer()
    yield found
    found.close()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The application, which the tests share: what they change is in the accounts."""
    tracker = Tracker(Repo.find(tmp_path_factory.mktemp("oidc"), create=True), strict=True)
    yield App(Hub(tracker, Options()), ROUTES)
    tracker.close()


@pytest.fixture
def hub(app: App, issuer: Issuer, tmp_path: Path, quick_argon2: None) -> Guarded:
    found = Guarded(tmp_path, options(required=True), app)
    set_up(found, issuer)
    return found


def set_up(hub: Guarded, issuer: Issuer, admissions: tuple[Admission, ...] = ADMISSIONS, **more: Any) -> Oidc:
    client = Client(issuer.url, CLIENT, SECRET, REDIRECT)
    hub.guard.oidc = Oidc(OidcOptions(client, admissions, **more), Provider(client))
    hub.guard.oidc.rates._clock = hub.clock
    return hub.guard.oidc


@pytest.fixture
def browser(hub: Guarded, issuer: Issuer) -> Browser:
    return Browser(hub, issuer)


def refused(answer: Any, why: str) -> bool:
    """Sent back to the login page, and the login's own cookie is taken away."""
    return (answer.status, answer.headers["location"]) == (303, f"/login#refused={why}") and answer.headers[
        "set-cookie"
    ].startswith("gittrack-5000-login=;")


def outcomes(hub: Guarded) -> list[str]:
    return [one["outcome"] for one in hub.audit.lines() if one["what"] == "login"]


# --- the right way


def test_there_and_back(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    page = browser.ask("GET", "/login")
    assert b'<button type="button" id="provider">Log in with 127.0.0.1</button>' in page.body
    begun = browser.ask("POST", "/login/oidc", {"next": "/experiments/0?x=1"})
    flags = begun.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"} <= set(flags)
    answer = browser.back(issuer.log_in(begun.ok["url"]))
    assert (answer.status, answer.headers["location"]) == (303, "/login?next=/experiments/0%3Fx%3D1")
    assert "gittrack-5000=" in answer.headers["set-cookie"]
    assert "SameSite=Strict" in answer.headers["set-cookie"]
    assert list(browser.cookies) == ["gittrack-5000", "gittrack-5000-proof"]
    assert browser.session.ok == {"name": "ana", "kind": "user"}
    made = browser.ask("POST", "/ajax-api/2.0/mlflow/experiments/create", {"name": "of ana"})
    assert made.status == 200
    forged = browser.ask("POST", "/ajax-api/2.0/mlflow/experiments/create", {"name": "x"},
                         headers={**BROWSER, "sec-fetch-site": "cross-site"})  # fmt: skip
    assert forged.status == 403
    assert browser.ask("POST", "/logout", {}).ok == {}  # the provider has no place for it
    assert (browser.session.status, browser.cookies) == (401, {})
    assert [(one["who"], one["what"], one["outcome"]) for one in hub.audit.lines()] == [
        ("ana", "user.add", "done"), ("ana", "login", "done"), ("ana", "logout", "done"),
    ]  # fmt: skip
    (user,) = hub.accounts.users()
    assert user.identities == (Identity(issuer.url, SUBJECT, (Grant(Role.WRITER, "*", "*"),)),)
    assert user.grants == ()
    kept = b"".join(path.read_bytes() for path in (hub.folder / "server").iterdir())
    for secret in (SECRET, "an-access-token"):
        assert secret.encode() not in kept


def test_logging_out_of_the_provider_too(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    issuer.document = {"end_session_endpoint": f"{issuer.url}/bye?tenant=1"}
    flags = next(one for one in browser.log_in().headers["set-cookie"].split(", ") if "-proof" in one).split("; ")
    proof = browser.cookies["gittrack-5000-proof"]
    assert {"Path=/logout", "HttpOnly", "SameSite=Strict", f"Max-Age={hub.guard.options.session}"} == set(flags[1:])
    assert proof.encode() not in b"".join(path.read_bytes() for path in (hub.folder / "server").iterdir())
    url = urlsplit(browser.ask("POST", "/logout", {}).ok["url"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{issuer.url}/bye"
    assert dict(parse_qsl(url.query)) == {
        "tenant": "1", "client_id": CLIENT, "post_logout_redirect_uri": REDIRECT, "id_token_hint": proof,
    }  # fmt: skip
    assert (browser.session.status, browser.cookies) == (401, {})
    back = browser.back("/login/oidc/callback")
    assert (back.status, back.headers["location"]) == (303, "/login")
    assert outcomes(hub) == ["done"]
    issuer.claims = {"groups": ["ml-team", "x" * 4000]}  # more than a browser keeps
    browser.log_in()
    assert "id_token_hint" not in browser.ask("POST", "/logout", {}).ok["url"]


@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://evil.example/bye", 7])
def test_a_place_to_log_out_that_cannot_be_and_none_at_all(
    hub: Guarded, browser: Browser, issuer: Issuer, url: object
) -> None:
    """Who logs out is logged out here, whatever the provider says; who came in otherwise is not sent there."""
    issuer.document = {"end_session_endpoint": url}
    browser.log_in()
    assert browser.ask("POST", "/logout", {}).ok == {}
    assert browser.session.status == 401
    issuer.document = {"end_session_endpoint": f"{issuer.url}/bye"}
    hub.accounts.add_user("bo", PASSWORD, (Grant(Role.READER, "*", "*"),), by="test")
    hub.clock.now += 10
    browser.log_in()
    assert browser.ask("POST", "/login", {"user": "bo", "password": PASSWORD}).status == 200
    assert list(browser.cookies) == ["gittrack-5000"]
    assert browser.ask("POST", "/logout", {}).ok == {}


def test_nothing_of_it_is_there_without_a_provider(hub: Guarded, browser: Browser) -> None:
    hub.guard.oidc = None
    assert b"provider" not in browser.ask("GET", "/login").body.replace(b"<!-- provider -->", b"")
    assert browser.ask("POST", "/login/oidc", {}).status == 404
    assert browser.back("/login/oidc/callback?code=x&state=y").status == 404


def test_the_name_of_the_provider_is_text(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    set_up(hub, issuer, name="<script>alert(1)</script>")
    assert b"Log in with &lt;script&gt;alert(1)&lt;/script&gt;</button>" in browser.ask("GET", "/login").body


def test_the_second_time_it_is_the_same_account(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    browser.log_in()
    issuer.claims = {"preferred_username": "another name", "groups": ["leads"]}
    other = Browser(hub, issuer)
    other.log_in()
    assert other.session.ok["name"] == browser.session.ok["name"] == "ana"
    (user,) = hub.accounts.users()
    assert user.all_grants == (Grant(Role.MAINTAINER, "churn*", "churn*"),)
    assert (
        browser.ask("POST", "/ajax-api/2.0/mlflow/experiments/create", {"name": "x"}).status == 404
    )  # also in the session that began before


def test_any_server_of_the_same_accounts_ends_a_login(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    other = Guarded(hub.folder, hub.options, hub.app)
    set_up(other, issuer)
    back = issuer.log_in(browser.begin())
    browser.hub = other
    assert browser.back(back).headers["location"] == "/login?next=/"
    assert browser.session.ok["name"] == "ana"
    browser.hub = hub
    assert browser.back(back).headers["location"] == "/login#refused=again"


def test_claims_that_only_the_provider_tells(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    set_up(hub, issuer, (admission("team.name=x", "reader"),))
    issuer.answers["/me"] = (200, json.dumps({"sub": SUBJECT, "team": {"name": ["x", "y"]}, "iss": "evil"}).encode())
    browser.log_in()
    assert browser.session.ok["name"] == "ana"
    issuer.answers["/me"] = (200, json.dumps({"sub": "another", "team": {"name": "x"}}).encode())
    assert refused(browser.log_in(), "again")


def test_what_a_client_shows(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    browser.log_in()
    method, _, headers, form = next(one for one in issuer.asked if one[1] == "/token")
    assert method == "POST"
    assert set(form) == {"grant_type", "code", "redirect_uri", "code_verifier"}
    assert "client_secret" not in form
    assert 43 <= len(form["code_verifier"]) <= 128
    assert headers["authorization"].startswith("Basic ")
    assert SECRET not in repr(hub.guard.oidc.options if hub.guard.oidc else "")


def test_keys_are_kept_and_asked_for_again_when_they_change(
    hub: Guarded, browser: Browser, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hub.guard.oidc is not None
    provider = hub.guard.oidc.provider

    def fetched(path: str) -> int:
        return sum(one[1] == path for one in issuer.asked)

    browser.log_in()
    browser.log_in()
    assert (fetched("/jwks"), fetched("/.well-known/openid-configuration")) == (1, 1)
    old, issuer.keys = issuer.keys, [key(1)]
    assert refused(browser.log_in(), "again")  # whoever makes up ids of keys does not make us ask all the time
    assert fetched("/jwks") == 1
    real = provider._clock
    monkeypatch.setattr(provider, "_clock", lambda: real() + 11)
    assert browser.log_in().headers["location"] == "/login?next=/"
    assert fetched("/jwks") == 2
    monkeypatch.setattr(provider, "_clock", lambda: real() + 22)
    issuer.token = lambda claims: jwt.encode({"alg": "RS256", "kid": old[0].kid}, claims, old[0])
    assert refused(browser.log_in(), "again")
    assert fetched("/jwks") == 3
    monkeypatch.setattr(provider, "_clock", lambda: real() + 3700)
    issuer.token = None
    issuer.claims = {"exp": int(time.time()) + 9999}
    assert browser.log_in().headers["location"] == "/login?next=/"
    assert fetched("/.well-known/openid-configuration") == 2


# --- tokens that prove nothing


def _pieces(token: str) -> tuple[str, str, str]:
    header, payload, signature = token.split(".")
    return header, payload, signature


def _plain(found: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(found).encode()).rstrip(b"=").decode()


def _tampered(issuer: Issuer, claims: dict[str, Any]) -> str:
    header, _, signature = _pieces(issuer.sign(claims))
    return f"{header}.{_plain({**claims, 'sub': 'root'})}.{signature}"


def _hs256(secret: bytes, claims: dict[str, Any], kid: str | None) -> str:
    text = f"{_plain({'alg': 'HS256', 'kid': kid} if kid else {'alg': 'HS256'})}.{_plain(claims)}"
    mac = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _encrypted(issuer: Issuer, claims: dict[str, Any]) -> str:
    header = {"alg": "RSA-OAEP", "enc": "A128GCM", "kid": "0"}
    public = jwk.RSAKey.import_key(issuer.keys[0].as_dict(private=False, use="enc"))
    return jwe.encrypt_compact(header, json.dumps(claims), public)


def _own_key(claims: dict[str, Any]) -> str:
    """Signed with a key that the token brings along."""
    header = {"alg": "RS256", "kid": "0", "jwk": key(2).as_dict(private=False), "jku": "https://evil.example/jwks"}
    signed = jws.JWSRegistry(strict_check_header=False, algorithms=["RS256"])
    signed.max_header_length = 10_000
    return jws.serialize_compact(header, json.dumps(claims), key(2), ["RS256"], signed)


NOW = time.time
BAD: dict[str, Callable[[Issuer, dict[str, Any]], str]] = {
    "another audience": lambda i, c: i.sign({**c, "aud": "another"}),
    "no audience": lambda i, c: i.sign({k: v for k, v in c.items() if k != "aud"}),
    "audiences without a party": lambda i, c: i.sign({**c, "aud": [CLIENT, "another"]}),
    "another party": lambda i, c: i.sign({**c, "aud": [CLIENT, "another"], "azp": "another"}),
    "another party, one audience": lambda i, c: i.sign({**c, "azp": "another"}),
    "another issuer": lambda i, c: i.sign({**c, "iss": "https://evil.example"}),
    "an issuer and a slash": lambda i, c: i.sign({**c, "iss": i.url + "/"}),
    "no issuer": lambda i, c: i.sign({k: v for k, v in c.items() if k != "iss"}),
    "another nonce": lambda i, c: i.sign({**c, "nonce": "x" * 64}),
    "nonces": lambda i, c: i.sign({**c, "nonce": [c["nonce"]]}),
    "no nonce": lambda i, c: i.sign({k: v for k, v in c.items() if k != "nonce"}),
    "expired": lambda i, c: i.sign({**c, "exp": NOW() - 61}),
    "never expires": lambda i, c: i.sign({k: v for k, v in c.items() if k != "exp"}),
    "expires as text": lambda i, c: i.sign({**c, "exp": str(NOW() + 300)}),
    "expires at NaN": lambda i, c: i.sign({**c, "exp": float("nan")}),
    "issued in the future": lambda i, c: i.sign({**c, "iat": NOW() + 90}),
    "issued at no time": lambda i, c: i.sign({k: v for k, v in c.items() if k != "iat"}),
    "not yet good": lambda i, c: i.sign({**c, "nbf": NOW() + 90}),
    "nobody": lambda i, c: i.sign({k: v for k, v in c.items() if k != "sub"}),
    "somebody empty": lambda i, c: i.sign({**c, "sub": ""}),
    "somebody long": lambda i, c: i.sign({**c, "sub": "x" * 256}),
    "a number": lambda i, c: i.sign({**c, "sub": 248289761001}),
    "a line feed": lambda i, c: i.sign({**c, "sub": "a\nb"}),
    "alg none": lambda i, c: f"{_plain({'alg': 'none', 'typ': 'JWT'})}.{_plain(c)}.",
    "alg None": lambda i, c: f"{_plain({'alg': 'None'})}.{_plain(c)}.",
    "no alg": lambda i, c: f"{_plain({'kid': '0'})}.{_plain(c)}.{_pieces(i.sign(c))[2]}",
    "HS256 by the public key": lambda i, c: _hs256(i.keys[0].as_pem(private=False), c, i.keys[0].kid),
    "HS256 by the client's secret": lambda i, c: _hs256(SECRET.encode(), c, None),
    "another key": lambda i, c: jwt.encode({"alg": "RS256", "kid": "0"}, c, key(2)),
    "a key of its own": lambda i, c: _own_key(c),
    "a key that nobody has": lambda i, c: jwt.encode({"alg": "RS256", "kid": "7"}, c, i.keys[0]),
    "changed": _tampered,
    "without a signature": lambda i, c: ".".join(_pieces(i.sign(c))[:2]) + ".",
    "encrypted": _encrypted,
    "critical": lambda i, c: jws.serialize_compact(
        {"alg": "RS256", "kid": "0", "crit": ["b64"], "b64": False}, "x", i.keys[0]
    ),
    "deep": lambda i, c: f"{_plain({'alg': 'RS256', 'kid': '0'})}.{_plain(c)}.x",
    "no token": lambda i, c: "x",
    "a list": lambda i, c: jws.serialize_compact({"alg": "RS256", "kid": "0"}, "[" * 40_000, i.keys[0]),
}  # fmt: skip


@pytest.mark.parametrize("how", BAD)
def test_tokens_that_prove_nothing(hub: Guarded, browser: Browser, issuer: Issuer, how: str) -> None:
    issuer.token = lambda claims: BAD[how](issuer, claims)
    answer = browser.log_in()
    assert answer.headers["location"] == "/login#refused=again", outcomes(hub)
    assert browser.cookies == {}
    assert hub.accounts.users() == []
    assert [one.partition(":")[0] for one in outcomes(hub)] == ["refused"]


def test_clocks_may_differ_a_little(browser: Browser, issuer: Issuer) -> None:
    issuer.claims = {"exp": time.time() - 50, "iat": time.time() + 50, "nbf": time.time() + 50}
    assert browser.log_in().headers["location"] == "/login?next=/"
    issuer.claims = {"aud": [CLIENT, "another"], "azp": CLIENT}
    assert browser.log_in().headers["location"] == "/login?next=/"


# --- answers that are not for this browser


def test_an_answer_is_good_once(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    back = issuer.log_in(browser.begin())
    cookies = dict(browser.cookies)
    assert browser.back(back).headers["location"] == "/login?next=/"
    browser.cookies = dict(cookies)
    assert refused(browser.back(back), "again")
    assert sum(one[1] == "/token" for one in issuer.asked) == 1


def test_an_answer_for_another_browser(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    """Somebody makes a victim's browser come back with his own login."""
    other = Browser(hub, issuer)
    back = issuer.log_in(other.begin())
    assert refused(browser.back(back), "again")  # it has never begun
    other_back = issuer.log_in(other.begin())
    browser.begin()
    assert refused(browser.back(other_back), "again")
    assert refused(other.back(other_back), "again")  # and that login is over
    assert sum(one[1] == "/token" for one in issuer.asked) == 0


def test_the_code_of_another_login(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    """A code that somebody got hold of is worth nothing in his own login: PKCE and the nonce see to that."""
    stolen = issuer.log_in(Browser(hub, issuer).begin()).partition("code=")[2].partition("&")[0]
    own = issuer.log_in(browser.begin())
    code = own.partition("code=")[2].partition("&")[0]
    assert refused(browser.back(own.replace(code, stolen)), "again")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda back: back.partition("&iss=")[0], "again"),
        (lambda back: back.partition("&iss=")[0] + "&iss=https://evil.example", "again"),
        (lambda back: back.replace("state=", "estate="), "again"),
        (lambda back: back.replace("state=", "state=x"), "again"),
        (lambda back: back.replace("code=", "decode="), "again"),
        (lambda back: back.replace("code=", "code=" + "x" * 5000), "again"),
        (lambda back: back.replace("code=", "error=access_denied&code="), "denied"),
    ],
)
def test_answers_that_are_wrong(
    hub: Guarded, browser: Browser, issuer: Issuer, change: Callable[[str], str], why: str
) -> None:
    assert refused(browser.back(change(issuer.log_in(browser.begin()))), why)
    assert browser.session.status == 401


def test_a_login_takes_ten_minutes_at_most(
    hub: Guarded, browser: Browser, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gittrack.server.hub import accounts

    back = issuer.log_in(browser.begin())
    real = accounts.now
    monkeypatch.setattr(accounts, "now", lambda: real() + 601_000)
    assert refused(browser.back(back), "again")


@pytest.mark.parametrize(
    "page",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\/evil", "javascript:alert(1)", "/a\nb", "", "x",
     "/" + "x" * 2001, "/a\\b", "/é"],
)  # fmt: skip
def test_nobody_is_sent_elsewhere(browser: Browser, page: str) -> None:
    assert browser.log_in(page).headers["location"] == "/login?next=/"


def test_pages_of_other_sites_begin_nothing(hub: Guarded, browser: Browser) -> None:
    headers = {**BROWSER, "sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert browser.ask("POST", "/login/oidc", {}, headers).status == 403
    form = {**BROWSER, "content-type": "application/x-www-form-urlencoded"}
    assert browser.ask("POST", "/login/oidc", {}, form).status == 400
    assert browser.ask("GET", "/login/oidc").status == 405


def test_how_often(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    assert [browser.ask("POST", "/login/oidc", {}).status for _ in range(12)] == [200] * 10 + [429] * 2
    hub.clock.now += 5
    other = Browser(hub, issuer)
    other.address = "203.0.113.7"
    other.begin()
    seen = [browser.back("/login/oidc/callback?code=x&state=y").headers["location"] for _ in range(11)]
    assert seen == ["/login#refused=again"] * 10 + ["/login#refused=often"]
    back = issuer.log_in(browser.begin())
    assert browser.back(back).headers["location"] == "/login#refused=often"
    hub.clock.now += 61
    assert browser.log_in().headers["location"] == "/login?next=/"


# --- a provider that does not answer as it should


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/.well-known/openid-configuration", 200, b"<html>"),
        ("/.well-known/openid-configuration", 404, b"{}"),
        ("/.well-known/openid-configuration", 302, b"{}"),
        ("/.well-known/openid-configuration", 200, b'{"issuer": "https://evil.example"}'),
        ("/.well-known/openid-configuration", 200, b" " * (300 << 10) + b"{}"),
    ],
)
def test_a_provider_that_does_not_describe_itself(
    hub: Guarded, browser: Browser, issuer: Issuer, path: str, status: int, body: bytes
) -> None:
    issuer.answers[path] = (status, body)
    answer = browser.ask("POST", "/login/oidc", {})
    assert answer.status in (409, 422, 500, 502, 503), answer
    assert browser.cookies == {}
    assert [one[1] for one in issuer.asked] == [path]
    issuer.answers.clear()
    assert browser.log_in().headers["location"] == "/login?next=/"  # nothing of it was kept


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/token", 200, b"{}"),
        ("/token", 200, b'{"id_token": 7}'),
        ("/token", 200, b'{"id_token": "' + b"x" * (300 << 10) + b'"}'),
        ("/token", 307, b""),
        ("/token", 500, b""),
        ("/token", 401, b'{"error": "invalid_client"}'),
        ("/token", 400, b'["x"]'),
        ("/token", 200, b"[" * 5000),
        ("/jwks", 200, b"[]"),
        ("/jwks", 503, b""),
        ("/me", 200, b"no"),
    ],
)
def test_a_provider_that_breaks_off(
    hub: Guarded, browser: Browser, issuer: Issuer, path: str, status: int, body: bytes
) -> None:
    set_up(hub, issuer, (*ADMISSIONS, admission("elsewhere=x", "reader")))
    issuer.answers[path] = (status, body)
    assert refused(browser.log_in(), "broken")
    assert "/elsewhere" not in [one[1] for one in issuer.asked]
    assert hub.accounts.users() == []


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("token_endpoint", "http://169.254.169.254/latest/meta-data"),
        ("token_endpoint", "http://example.org/token"),
        ("token_endpoint", "https://10.0.0.1/token"),
        ("token_endpoint", "file:///etc/passwd"),
        ("token_endpoint", None),
        ("token_endpoint", "https://user:pass@example.org/"),
        ("jwks_uri", "https://[::ffff:169.254.169.254]/"),
        ("jwks_uri", "https://192.168.0.1/keys"),
    ],
)
def test_addresses_that_a_provider_must_not_name(
    hub: Guarded, browser: Browser, issuer: Issuer, name: str, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = browser.begin()
    assert hub.guard.oidc is not None
    hub.guard.oidc.provider._known = None
    issuer.document = {name: url}
    connected: list[Any] = []
    real = socket.socket.connect

    def connect(self: socket.socket, where: Any) -> None:
        connected.append(where)
        real(self, where)

    monkeypatch.setattr(socket.socket, "connect", connect)
    answer = browser.back(issuer.log_in(back))
    assert answer.headers["location"] in ("/login#refused=broken", "/login#refused=denied")
    assert {str(where[0]) for where in connected} <= {"127.0.0.1"}


def test_where_browsers_are_sent(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    for url in ("javascript:alert(1)", "http://evil.example/auth", "//evil.example"):
        issuer.document = {"authorization_endpoint": url}
        assert browser.ask("POST", "/login/oidc", {}).status >= 400
    issuer.document = {"code_challenge_methods_supported": ["plain"]}
    assert browser.ask("POST", "/login/oidc", {}).status >= 400


def test_a_slow_provider(hub: Guarded, browser: Browser, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    back = issuer.log_in(browser.begin())
    monkeypatch.setattr(outgoing, "ALL_SECONDS", 0.2)
    issuer.slow = 0.6
    began = time.monotonic()
    assert refused(browser.back(back), "broken")
    assert time.monotonic() - began < 0.6


def test_a_provider_whose_answer_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "ALL_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n{")
                    while True:
                        connection.sendall(b" ")
                        time.sleep(0.01)
                except OSError:
                    pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        client = Client(f"http://127.0.0.1:{listening.getsockname()[1]}", CLIENT, None, REDIRECT)
        began = time.monotonic()
        with pytest.raises(Exception, match=r"description|did not answer"):
            Provider(client).address("s", "n", "v")
        assert time.monotonic() - began < 3
        thread.join(5)


@pytest.mark.parametrize(
    "url",
    ["http://id.example.org", "ftp://id.example.org", "id.example.org", "https://", "https://a:b@id.example.org",
     "https://id.example.org/#x", "https://id.example.org/?x", "http://127.0.0.1.evil.example"],
)  # fmt: skip
def test_what_is_no_issuer(url: str) -> None:
    with pytest.raises(InvalidValueError):
        Client(url, CLIENT, None, REDIRECT)


# --- who may come in


def test_who_nothing_is_granted_to_stays_out(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    issuer.claims = {"groups": ["all"]}
    assert refused(browser.log_in(), "unknown")
    assert hub.accounts.users() == []
    assert SUBJECT in outcomes(hub)[0]  # who keeps the accounts can link it
    issuer.claims = {"groups": ["leads"]}
    browser.log_in()
    issuer.claims = {"groups": []}
    assert refused(Browser(hub, issuer).log_in(), "unknown")
    hub.clock.now += 2
    assert hub.accounts.users()[0].all_grants == ()  # the session that goes on may nothing any more
    assert browser.ask("POST", "/ajax-api/2.0/mlflow/registered-models/create", {"name": "churn"}).status == 404
    hub.accounts.set_grants("ana", lambda _: (Grant(Role.READER, "*", "*"),))
    assert Browser(hub, issuer).log_in().headers["location"] == "/login?next=/"  # what was granted here counts


def test_what_is_denied_here_stays_denied(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    browser.log_in()
    hub.accounts.set_grants("ana", lambda _: (Grant(None, "secret*"),))
    browser.log_in()
    assert browser.ask("POST", "/ajax-api/2.0/mlflow/experiments/create", {"name": "secret 1"}).status == 404
    assert browser.ask("POST", "/ajax-api/2.0/mlflow/experiments/create", {"name": "no secret"}).status == 200


def test_a_removed_user_stays_out(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    browser.log_in()
    hub.accounts.remove_user("ana")
    hub.clock.now += 2
    assert browser.session.status == 401
    assert refused(browser.log_in(), "unknown")
    assert hub.accounts.users() == []
    hub.accounts.add_user("ana", PASSWORD, (Grant(Role.ADMIN, "*", "*"),), by="root")  # somebody else of that name
    assert refused(browser.log_in(), "unknown")
    hub.accounts.link("ana", Identity(issuer.url, SUBJECT), by="root")
    assert browser.log_in().headers["location"] == "/login?next=/"


def test_names_and_addresses_are_no_proof(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    hub.accounts.add_user("ana", PASSWORD, (Grant(Role.ADMIN, "*", "*"),), by="root")
    issuer.claims = {"email": "ana", "email_verified": True}
    browser.log_in()
    name = browser.session.ok["name"]
    assert name.startswith("ana-")
    assert {one.name: one.all_grants for one in hub.accounts.users()} == {
        "ana": (Grant(Role.ADMIN, "*", "*"),),
        name: (Grant(Role.WRITER, "*", "*"),),
    }
    issuer.claims = {"sub": "another one"}
    other = Browser(hub, issuer)
    other.log_in()
    assert other.session.ok["name"] not in ("ana", name)


def test_only_who_is_known(hub: Guarded, browser: Browser, issuer: Issuer) -> None:
    set_up(hub, issuer, (), only_known=True)
    assert refused(browser.log_in(), "unknown")
    identity = Identity(issuer.url, SUBJECT)
    hub.accounts.add_user("bo", None, (Grant(Role.READER, "*", "*"),), by="root", identity=identity)
    with pytest.raises(AlreadyExistsError):
        hub.accounts.add_user("cy", None, (), by="root", identity=identity)
    assert [one.name for one in hub.accounts.users()] == ["bo"]
    browser.log_in()
    assert browser.session.ok["name"] == "bo"
    for password in ("", "x", PASSWORD):  # he has none
        assert browser.ask("POST", "/login", {"user": "bo", "password": password}).status in (400, 401)


@pytest.mark.parametrize(
    ("name", "called"),
    [("ana", "ana"), ("Ana Ćelić", "Ana--eli-"), ("../x", "x"), ("", SUBJECT), (7, SUBJECT), ("\n", "user"),
     ("a" * 99, "a" * 64), (["first", "second"], "first")],
)  # fmt: skip
def test_what_new_accounts_are_called(browser: Browser, issuer: Issuer, name: Any, called: str) -> None:
    issuer.claims = {"preferred_username": name}
    browser.log_in()
    assert browser.session.ok["name"] == (called if called != SUBJECT or name == 7 else browser.session.ok["name"])


@pytest.mark.parametrize(
    ("claims", "path", "found"),
    [
        ({"groups": ["a", 7, None, "b"]}, "groups", ["a", "b"]),
        ({"groups": "a"}, "groups", ["a"]),
        ({"realm": {"roles": ["x"]}}, "realm.roles", ["x"]),
        ({"realm.roles": "y", "realm": {"roles": "x"}}, "realm.roles", ["y"]),
        ({"https://a.example/roles": ["r"]}, "https://a.example/roles", ["r"]),
        ({"realm": "x"}, "realm.roles", []),
        ({"staff": True}, "staff", ["true"]),
        ({"email": "a@b"}, "email", []),
        ({"email": "a@b", "email_verified": False}, "email", []),
        ({"email": "a@b", "email_verified": "true"}, "email", ["a@b"]),
        ({"groups": {"a": 1}}, "groups", []),
    ],
)
def test_what_a_claim_says(claims: dict[str, Any], path: str, found: list[str]) -> None:
    assert list(values_of(claims, path)) == found


@pytest.mark.parametrize(
    ("condition", "what"),
    [("groups", "reader"), ("=x", "reader"), ("groups=", "reader"), ("groups=x", "king"), ("groups=x", "reader:")],
)
def test_what_is_no_grant(condition: str, what: str) -> None:
    with pytest.raises(InvalidValueError):
        admission(condition, what)


def test_what_is_kept_of_a_login(hub: Guarded, browser: Browser) -> None:
    """Neither the state nor the browser's secret: who reads the database cannot use it."""
    address = browser.begin()
    state = address.partition("state=")[2].partition("&")[0]
    kept = b"".join(path.read_bytes() for path in (hub.folder / "server").iterdir())
    for secret in (state, *browser.cookies.values()):
        assert secret.encode() not in kept
