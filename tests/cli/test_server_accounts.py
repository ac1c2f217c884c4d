"""``gittrack server token``, ``user`` and ``audit``."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gittrack.server.hub import accounts
from gittrack.server.hub.accounts import Accounts, is_password
from gittrack.server.hub.credentials import parse_token
from tests.cli.conftest import Answer, Cli
from tests.conftest import Sandbox

PASSWORD = "correct horse battery"


@pytest.fixture
def store(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Path:
    from argon2 import PasswordHasher

    monkeypatch.setattr(accounts, "_hasher", lambda: PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    monkeypatch.setenv("GITTRACK_USER", "root")
    monkeypatch.chdir(git_repo.path)
    return git_repo.path


def said(answer: Answer) -> str:
    assert answer.status == 0, answer.err
    return answer.out


def failed(answer: Answer, status: int, *words: str) -> None:
    assert (answer.status, answer.out) == (status, ""), answer
    for word in words:
        assert word in answer.err
    assert "hint: " in answer.err


def rows(cli: Cli, what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(said(cli("server", what, "list", "--json")))
    return found


def test_a_token(store: Path, cli: Cli) -> None:
    answer = cli("server", "token", "create", "ci", "--role", "writer", "--experiment", "ci-*", "--deny-model", "x")
    token = parse_token(said(answer).removesuffix("\n"))
    assert token is not None
    assert answer.err == "`ci` is writer of experiments ci-*, denied models x; the token is not shown again\n"
    [row] = rows(cli, "token")
    assert row["id"] == token.id
    assert row["grants"] == [
        {"role": "writer", "experiments": "ci-*", "models": None}, {"role": None, "experiments": None, "models": "x"},
    ]  # fmt: skip
    assert (row["name"], row["created_by"], row["expires"], row["revoked"]) == ("ci", "root", None, None)
    listed = said(cli("server", "token"))
    assert re.search(rf"(?m)^ci +{token.id} +writer of experiments ci-\*, denied models x", listed)
    assert token.secret not in listed
    failed(cli("server", "token", "create", "ci", "--role", "reader"), 1, "`ci` already", "token revoke ci")
    assert "was revoked" in cli("server", "token", "revoke", "ci").err
    failed(cli("server", "token", "revoke", token.id), 1, "no token")
    assert rows(cli, "token")[0]["revoked"] is not None
    assert "revoked 2" in said(cli("server", "token"))


def test_the_store_is_ignored_by_git(store: Path, cli: Cli) -> None:
    said(cli("server", "token", "create", "ci", "--role", "writer"))
    assert (store / ".gittrack" / "server" / "accounts.db").exists()
    assert subprocess.run(["git", "status", "--porcelain"], capture_output=True, check=True).stdout == b""


def test_reading_makes_nothing(store: Path, cli: Cli) -> None:
    for what, words in (("token", "no tokens"), ("user", "no users"), ("audit", "nothing was written")):
        answer = cli("server", what)
        assert (answer.status, answer.out) == (0, "")
        assert words in answer.err
    assert rows(cli, "user") == json.loads(said(cli("server", "audit", "show", "--json"))) == []
    assert not (store / ".gittrack").exists()


def test_outside_of_a_repository(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["token"], ["user"], ["audit"], ["token", "create", "x", "--role", "reader"]):
        failed(cli("server", *words), 1, "no gittrack store", "gittrack init")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["create", "x"], 2, "needs"),
        (["create", "x", "--role", "boss"], 2, "boss"),
        (["create", "a b", "--role", "reader"], 2, "cannot be the name of an account"),
        (["create", "x", "--role", "reader", "--experiment", ""], 2, "a pattern has 1 to 500"),
        (["create", "x", "--role", "reader", "--expires", "soon"], 2, "`soon` is no time"),
        (["create", "x", "--role", "reader", "--expires", "2001-01-01"], 2, "would have ended already"),
        (["revoke", "x"], 1, "no token `x`"),
        (["rotate"], 2, "`rotate` is no verb"),
    ],
)
def test_what_cannot_be_made(store: Path, cli: Cli, words: list[str], status: int, message: str) -> None:
    failed(cli("server", "token", *words), status, message)


@pytest.mark.parametrize(("text", "days"), [("24h", 1), ("90d", 90), ("2w", 14)])
def test_tokens_end(store: Path, cli: Cli, text: str, days: int) -> None:
    made = json.loads(said(cli("server", "token", "create", "x", "--role", "admin", "--expires", text, "--json")))
    assert made["grants"] == [{"role": "admin", "experiments": "*", "models": "*"}]
    row = rows(cli, "token")[0]
    assert row["expires"] == made["expires"]
    assert made["expires"] - row["created"] == pytest.approx(days * 86_400_000, abs=60_000)
    assert "until 2" in said(cli("server", "token"))


def test_users(store: Path, cli: Cli) -> None:
    add = ["server", "user", "add", "ana", "--role", "writer", "--password-stdin"]
    answer = cli(*add, stdin=f"{PASSWORD}\n")
    assert (answer.status, answer.out) == (0, "")
    assert answer.err == "`ana` is writer of everything\n"
    failed(cli(*add, stdin=f"{PASSWORD}\n"), 1, "user passwd ana")
    kept = Accounts.in_store(store / ".gittrack")
    assert is_password(kept.users()[0].password, PASSWORD)
    said(cli("server", "user", "passwd", "ana", "--password-stdin", stdin="another password\r\n"))
    assert is_password(kept.users()[0].password, "another password")
    failed(cli("server", "user", "passwd", "ana", "--password-stdin", stdin="short\n"), 2, "10 to 1024")
    failed(cli("server", "user", "passwd", "ana"), 2, "no terminal", "--password-stdin")
    failed(cli("server", "user", "passwd", "bob", "--password-stdin", stdin=PASSWORD), 1, "no user `bob`")
    answer = cli("server", "user", "grant", "ana", "--deny-experiment", "secret-*")
    assert answer.err == "`ana` is writer of everything, denied experiments secret-*\n"
    said(cli("server", "user", "grant", "ana", "--deny-experiment", "secret-*"))
    assert len(rows(cli, "user")[0]["grants"]) == 2
    said(cli("server", "user", "grant", "ana", "--role", "reader", "--model", "iris", "--replace"))
    assert rows(cli, "user")[0]["grants"] == [{"role": "reader", "experiments": None, "models": "iris"}]
    assert re.search(r"(?m)^ana +reader of models iris", said(cli("server", "user")))
    failed(cli("server", "user", "grant", "ana"), 2, "nothing is granted")
    failed(cli("server", "user", "grant", "ana", "--model", "x"), 2, "needs a role")
    said(cli("server", "user", "remove", "ana"))
    failed(cli("server", "user", "remove", "ana"), 1, "no user `ana`")
    assert rows(cli, "user") == []
    kept.close()


def test_what_was_done_is_in_the_audit_log(store: Path, cli: Cli) -> None:
    said(cli("server", "token", "create", "ci", "--role", "writer"))
    said(cli("server", "user", "add", "ana", "--role", "admin", "--password-stdin", stdin=PASSWORD))
    said(cli("server", "token", "revoke", "ci"))
    found = json.loads(said(cli("server", "audit", "show", "--json")))
    assert [(one["who"], one["how"], one["what"]) for one in found] == [
        ("root", "command line", "token.create"), ("root", "command line", "user.add"),
        ("root", "command line", "token.revoke"),
    ]  # fmt: skip
    assert PASSWORD not in json.dumps(found)
    lines = said(cli("server", "audit", "show", "-n", "1")).splitlines()
    assert len(lines) == 2
    assert re.match(r"3 +20\d\d-.*Z +root +command line +token.revoke +ci \(", lines[1])
    answer = cli("server", "audit", "verify")
    noted = said(answer).removesuffix("\n")
    assert re.fullmatch(r"3:[0-9a-f]{64}", noted)
    assert answer.err == "3 lines, all as they were written\n"
    assert json.loads(said(cli("server", "audit", "verify", "--noted", noted, "--json")))["line"] == 3
    log = store / ".gittrack" / "server" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"ana", b"eve"))
    failed(cli("server", "audit", "verify"), 4, "line 2 or line 3", "was changed")
    failed(cli("server", "audit", "verify", "--noted", "3"), 2, "is no line")


def test_accounts_can_be_kept_elsewhere(store: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    said(cli("server", "token", "create", "ci", "--role", "writer", "--accounts", url))
    assert rows(cli, "token") == []
    monkeypatch.setenv("GITTRACK_ACCOUNTS", url)
    assert len(rows(cli, "token")) == 1
    monkeypatch.setenv("GITTRACK_ACCOUNTS", "nonsense")
    failed(cli("server", "token"), 2, "is no address of a database")
