"""Logging in by an identity provider that is not ours, at a server as it is started by its command."""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.cli.conftest import Cli, cli
from tests.cli.test_server import started
from tests.conftest import Sandbox
from tests.server.provider import SECRET, free_port, provider

pytestmark = pytest.mark.any_backend  # who is let in is decided before anything is looked up
pytest.importorskip("joserfc", reason="joserfc is not installed: pip install 'gittrack[oidc]'")

__all__ = ["cli"]  # a fixture


class Person:
    """A browser without scripts: follows redirects, keeps cookies, fills in the provider's forms."""

    def __init__(self, hub: str) -> None:
        self.hub = hub
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

    def ask(self, url: str, data: bytes | None = None, **headers: str) -> tuple[int, str, str]:
        """Status, where it ended, and what was said."""
        sent = {"user-agent": "Mozilla/5.0", **{name.replace("_", "-"): one for name, one in headers.items()}}
        try:
            with self._opener.open(urllib.request.Request(url, data, sent), timeout=30) as answer:
                return answer.status, answer.url, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.url, error.read().decode()

    def json(self, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        status, _, text = self.ask(self.hub + path, data, content_type="application/json", sec_fetch_site="same-origin")
        return status, json.loads(text)

    def log_in(self, name: str) -> str:
        """Where it ends, in the words of the address."""
        status, begun = self.json("/login/oidc", {"next": "/models"})
        assert status == 200, begun
        return self.visit(begun["url"], {"login": name, "password": "x"})

    def log_out(self) -> str:
        """Likewise."""
        status, said = self.json("/logout", {})
        assert status == 200, said
        return self.visit(said["url"], {"logout": "yes"})

    def visit(self, url: str, words: dict[str, str]) -> str:
        """Where it ends for who fills in the provider's forms so."""
        _, where, page = self.ask(url)
        self.forms = 0
        while not where.startswith(self.hub) and self.forms < 3:
            self.forms += 1
            form = re.search(r'<form[^>]* action="([^"]+)"', page)
            assert form, page
            fields = dict(re.findall(r'<input[^>]* name="(\w+)"[^>]* value="([^"]*)"', page))
            _, where, page = self.ask(form[1], urlencode({**fields, **words}).encode())
        return where.removeprefix(self.hub)


def test_a_certified_provider(git_repo: Sandbox, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    hub = f"http://127.0.0.1:{port}"
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    monkeypatch.chdir(git_repo.path)
    with provider(tmp_path, f"{hub}/login/oidc/callback") as issuer:
        words = ["--port", str(port), "--public-url", hub, "--oidc-issuer", issuer, "--oidc-client-id", "hub",
                 "--oidc-secret-file", str(secret), "--oidc-scope", "groups", "--oidc-name", "the Company",
                 "--oidc-grant", "groups=ml-team", "writer"]  # fmt: skip
        with started(git_repo.path, *words) as server:
            assert server.ask("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0")[0] == 401  # also from here
            ana, bo = Person(hub), Person(hub)
            assert "Log in with the Company" in ana.ask(f"{hub}/login")[2]
            assert ana.log_in("ana") == "/login?next=/models"
            assert ana.json("/session") == (200, {"name": "ana", "kind": "user"})
            assert ana.json("/ajax-api/2.0/mlflow/runs/create", {"experiment_id": "0"})[0] == 200
            assert (ana.forms, ana.log_in("ana"), ana.forms) == (2, "/login?next=/models", 0)  # the provider knows her
            assert ana.log_out() == "/login"
            assert ana.json("/session")[0] == 401
            assert (ana.log_in("ana"), ana.forms) == ("/login?next=/models", 2)  # and asks her anew
            assert bo.log_in("bo") == "/login#refused=unknown"
            assert bo.json("/session")[0] == 401
            link = cli("server", "user", "add", "bo", "--role", "reader", "--oidc", issuer, "bo")
            assert link.status == 0
            assert bo.log_in("bo") == "/login?next=/models"
            assert bo.json("/session")[1]["name"] == "bo"
            assert cli("server", "user", "remove", "bo").status == 0
            assert bo.log_in("bo") == "/login#refused=unknown"
            server.end()
            assert not [line for line in server.said if "Traceback" in line], server.said
    users = json.loads(cli("server", "user", "list", "--json").out)
    assert [(one["name"], one["grants"], one["created_by"]) for one in users] == [("ana", [], issuer)]
    granted = [{"role": "writer", "experiments": "*", "models": "*"}]
    assert users[0]["identities"] == [{"issuer": issuer, "subject": "ana", "grants": granted}]
    noted = [(one["who"], one["what"]) for one in json.loads(cli("server", "audit", "show", "--json").out)]
    did = ("user.add", "login", "login", "logout", "login")
    assert noted[:5] == [("ana", one) for one in did]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--oidc-client-id", "hub"], "the identity provider is missing"),
        (["--oidc-issuer", "https://id.example.org"], "the provider has to know this server"),
        (["--oidc-issuer", "https://id.example.org", "--oidc-client-id", "hub"], "--public-url"),
        (["--oidc-issuer", "http://id.example.org", "--oidc-client-id", "hub", "--public-url", "https://hub.example",
          "--oidc-only-known"], "it speaks TLS"),
        (["--oidc-issuer", "https://id.example.org", "--oidc-client-id", "hub", "--public-url", "http://hub.example",
          "--oidc-only-known"], "nobody can log in at"),
        (["--oidc-issuer", "https://id.example.org", "--oidc-client-id", "hub", "--public-url", "https://hub.example"],
         "nobody may come in"),
        (["--oidc-issuer", "https://id.example.org", "--oidc-client-id", "hub", "--public-url", "https://hub.example",
          "--oidc-grant", "groups=x", "king"], "is no role"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(
    cli: Cli, git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(git_repo.path)
    done = cli("server", "start", *words)
    assert done.status != 0
    assert said in done.err
    assert "hint:" in done.err


def test_a_user_is_linked(cli: Cli, git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(git_repo.path)
    assert cli("server", "user", "add", "bo", "--role", "reader", "--oidc", "https://id.example.org", "7").status == 0
    assert cli("server", "user", "add", "cy", "--role", "reader", "--oidc", "https://id.example.org", "8").status == 0
    assert cli("server", "user", "link", "bo", "https://id.example.org", "8").status != 0
    assert cli("server", "user", "link", "nobody", "https://id.example.org", "9").status != 0
    assert cli("server", "user", "link", "bo", "https://other.example.org", "7").status == 0
    found = {one["name"]: one["identities"] for one in json.loads(cli("server", "user", "list", "--json").out)}
    assert [(one["issuer"], one["subject"]) for one in found["bo"]] == [
        ("https://id.example.org", "7"),
        ("https://other.example.org", "7"),
    ]
    assert [one["what"] for one in json.loads(cli("server", "audit", "show", "--json").out)] == [
        "user.add", "user.add", "user.link",
    ]  # fmt: skip
