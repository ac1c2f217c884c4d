"""Settings: who may see to tokens, users and the server, and that nobody is told a secret twice."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gittrack.server.hub.accounts import Accounts, now
from gittrack.server.hub.credentials import parse_token
from gittrack.server.hub.roles import Grant, Role
from gittrack.server.hub.start import Plan, Server
from gittrack.server.hub.webhooks import WAITING, Delivery, Keys, Webhooks
from gittrack.track.runs import Tracker
from tests.conftest import Sandbox
from tests.server.backend import BACKEND, open_repo
from tests.server.conftest import Answer
from tests.server.guarded import PASSWORD, basic, listening
from tests.server.team import Team, serving

API = "/api/2.0/gittrack/settings"
pytestmark = pytest.mark.usefixtures("quick_argon2")


@pytest.fixture
def team(git_repo: Sandbox, quick_argon2: None) -> Iterator[Team]:
    with serving(git_repo.path, failures=1000) as found:
        yield found


def ask(team: Team, method: str, path: str, token: str | None = None, **said: Any) -> Answer:
    team.server.guard.auth._fresh_until = 0.0  # it looks again
    return team.ask(method, f"{API}/{path}", said or None, token)


def as_user(team: Team, method: str, path: str, who: str = "ana", /, **said: Any) -> Answer:
    """Asked by a user with his password."""
    team.server.guard.auth._fresh_until = 0.0
    return team.ask(method, f"{API}/{path}", said or None, "", basic(who, PASSWORD))


def may(team: Team, token: str, **said: str) -> int:
    """The status of making an experiment with a token."""
    team.server.guard.auth._fresh_until = 0.0
    return team.post("experiments/create", said, token).status


def audited(team: Team) -> list[tuple[str, str, str, str]]:
    lines = team.server.guard.audit.lines()
    return [(one["who"], one["what"], one["object"], one["outcome"]) for one in lines]


def test_who_asks(team: Team) -> None:
    me = ask(team, "GET", "me").ok
    assert me == {"name": "admin", "kind": "token", "is_admin": True, "may": "admin of everything", "accounts": True}
    guest = team.token(Grant(Role.READER, "a*"), Grant(None, models="secret"))
    me = ask(team, "GET", "me", guest).ok
    assert (me["is_admin"], me["may"]) == (False, "reader of experiments a*, denied models secret")


ADMINS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "accounts", {}), ("POST", "users", {"name": "x", "password": PASSWORD, "role": "admin"}),
    ("DELETE", "users", {"name": "ana"}), ("POST", "users/grants", {"name": "ana", "role": "admin"}),
    ("DELETE", "users/grants", {"name": "ana", "role": "writer"}),
    ("POST", "users/password", {"name": "ana", "password": PASSWORD}),
    ("POST", "tokens", {"name": "x", "role": "admin"}), ("DELETE", "tokens", {"id": "admin"}), ("GET", "audit", {}),
    ("GET", "audit/verify", {}), ("GET", "remotes", {}), ("POST", "remotes/look", {"remote": "origin"}),
    ("GET", "storage", {}), ("GET", "server", {}),
]  # fmt: skip


@pytest.mark.parametrize("grants", [
    (), (Grant(Role.MAINTAINER, "*", "*"),), (Grant(Role.ADMIN, "*"),), (Grant(Role.ADMIN, "a*", "*"),),
    (Grant(Role.ADMIN, "*", "*"), Grant(None, "secret")),
], ids=["nothing", "maintainer", "no models", "some", "but one"])  # fmt: skip
def test_what_is_for_administrators_of_everything(team: Team, grants: tuple[Grant, ...]) -> None:
    team.accounts.add_user("ana", PASSWORD, (Grant(Role.WRITER, "*", "*"),), by="test")
    before = team.accounts.users(), [one.id for one in team.accounts.tokens()]
    somebody = team.token(*grants)
    for method, path, said in ADMINS:
        answer = ask(team, method, path, somebody, **said)
        assert answer.status == 403, (method, path, answer)
        assert "token" not in answer.json
    assert (team.accounts.users(), [one.id for one in team.accounts.tokens()][:-1]) == before
    assert sum(line[3].startswith("refused") for line in audited(team)) == len(ADMINS)


def test_users_come_change_and_go(team: Team) -> None:
    made = ask(team, "POST", "users", name="ana", password=PASSWORD, role="writer", experiments="ci-*").ok["user"]
    assert (made["may"], made["created_by"]) == ("writer of experiments ci-*", "admin")
    assert as_user(team, "GET", "me").ok["may"] == "writer of experiments ci-*"
    assert ask(team, "POST", "users", name="ana", password=PASSWORD, role="writer").status == 400
    assert ask(team, "POST", "users", name="bo", password="short", role="writer").status == 400
    assert ask(team, "POST", "users", name="bo", password=PASSWORD, role="king").status == 400
    given = ask(team, "POST", "users/grants", name="ana", role="maintainer", models="iris").ok["user"]
    assert given["may"] == "writer of experiments ci-*, maintainer of models iris"
    denied = ask(team, "POST", "users/grants", name="ana", role="none", experiments="ci-secret").ok["user"]
    assert denied["grants"][-1] == {"role": None, "experiments": "ci-secret", "models": None}
    assert ask(team, "POST", "users/grants", name="ana", role="none").status == 400
    assert ask(team, "DELETE", "users/grants", name="ana", role="writer").status == 404
    taken = ask(team, "DELETE", "users/grants", name="ana", role="maintainer", models="iris").ok["user"]
    assert taken["may"] == "writer of experiments ci-*, denied experiments ci-secret"
    assert ask(team, "POST", "users/password", name="ana", password=PASSWORD + "2").ok == {}
    assert as_user(team, "GET", "me").status == 401
    assert ask(team, "DELETE", "users", name="ana").ok == {}
    assert ask(team, "DELETE", "users", name="ana").status == 404
    assert ask(team, "GET", "accounts").ok["users"] == []
    log = audited(team)
    assert ("admin", "POST /gittrack/settings/users", "name=ana role=writer experiments=ci-*", "done") in log
    assert not any(line[1].startswith("GET") for line in log)  # to look is nothing that was done
    assert PASSWORD not in str(log)


def test_nobody_is_shown_a_hash_or_a_secret_again(team: Team) -> None:
    ask(team, "POST", "users", name="ana", password=PASSWORD, role="admin")
    made = ask(team, "POST", "tokens", name="ci", role="writer", experiments="ci-*", days=30).ok
    assert (made["may"], made["name"]) == ("writer of experiments ci-*", "ci")
    assert made["expires"] > made["created"]
    token = parse_token(made["token"])
    assert token is not None
    kept = {one.id: one.secret for one in team.accounts.tokens()}[token.id]
    shown = [ask(team, method, path).body for method, path, _ in ADMINS if method == "GET"]
    for secret in (token.secret, kept.hex(), "argon2", PASSWORD):
        assert not any(secret.encode() in body for body in shown)
    assert may(team, made["token"], name="ci-1") == 200
    assert ask(team, "DELETE", "tokens", id=token.id).ok == {}
    assert {one["name"]: one["ended"] for one in ask(team, "GET", "accounts").ok["tokens"]}["ci"] is True
    assert may(team, made["token"], name="ci-2") == 401


def test_a_users_own_token_can_never_do_more_than_he(team: Team) -> None:
    ask(team, "POST", "users", name="ana", password=PASSWORD, role="writer")
    ask(team, "POST", "users", name="bo", password=PASSWORD, role="admin")
    made = as_user(team, "POST", "own/tokens", name="laptop", role="admin", days=7).ok
    assert (made["name"], made["owner"]) == ("ana+laptop", "ana")
    mine = made["token"]
    assert may(team, mine, name="one") == 200
    assert ask(team, "GET", "accounts", mine).status == 403  # he is no administrator
    reading = as_user(team, "POST", "own/tokens", name="look", role="reader").ok["token"]
    assert may(team, reading, name="two") == 403
    assert [one["name"] for one in as_user(team, "GET", "own/tokens").ok["tokens"]] == ["ana+laptop", "ana+look"]
    assert as_user(team, "GET", "own/tokens", "bo").ok["tokens"] == []
    assert as_user(team, "DELETE", "own/tokens", "bo", id=made["id"]).status == 404
    # What is taken from him is taken from it, at once.
    ask(team, "POST", "users/grants", name="ana", role="none", experiments="secret")
    assert may(team, mine, name="secret") in (403, 404)
    ask(team, "DELETE", "users", name="ana")
    assert may(team, mine, name="three") == 401
    ask(team, "POST", "users", name="ana", password=PASSWORD, role="admin")  # somebody else of that name
    assert may(team, mine, name="three") == 401
    assert as_user(team, "GET", "own/tokens").ok["tokens"] == []
    assert ("ana", "token.create", f"ana+laptop ({made['id']}): at most admin", "done") in audited(team)


def test_own_tokens_are_revoked_and_named_once(team: Team) -> None:
    ask(team, "POST", "users", name="ana", password=PASSWORD, role="writer")
    made = as_user(team, "POST", "own/tokens", name="a", role="writer").ok
    assert as_user(team, "POST", "own/tokens", name="a", role="writer").status == 400
    for wrong in (
        {"name": "b", "role": "none"}, {"name": "b", "role": "writer", "days": 0}, {"name": "ü", "role": "writer"},
        {"name": "x" * 64, "role": "writer"},
    ):  # fmt: skip
        assert as_user(team, "POST", "own/tokens", **wrong).status == 400, wrong
    assert as_user(team, "DELETE", "own/tokens", id=made["id"]).ok == {}
    assert may(team, made["token"], name="x") == 401
    assert as_user(team, "POST", "own/tokens", name="a", role="writer").status == 200


def test_a_token_makes_no_tokens_of_its_own(team: Team) -> None:
    """Else one that was stolen could outlive its being revoked."""
    ask(team, "POST", "users", name="ana", password=PASSWORD, role="writer")
    mine = as_user(team, "POST", "own/tokens", name="a", role="writer").ok["token"]
    for token in (mine, team.admin):
        assert ask(team, "POST", "own/tokens", token, name="b", role="reader").status == 400
        assert ask(team, "GET", "own/tokens", token).ok == {"tokens": []}


def test_an_administrator_does_not_lock_himself_out(team: Team) -> None:
    ask(team, "POST", "users", name="ana", password=PASSWORD, role="admin")
    answer = as_user(team, "DELETE", "users", name="ana")
    assert (answer.status, "your own account" in answer.json["message"]) == (400, True)
    assert as_user(team, "DELETE", "users/grants", name="ana", role="admin").status == 400


def test_the_audit_log_by_pages(team: Team) -> None:
    for number in range(5):
        ask(team, "POST", "tokens", name=f"t-{number}", role="reader")
    page = ask(team, "GET", "audit?max_results=2").ok
    assert ["name=t-4" in page["lines"][0]["object"], len(page["lines"]), page["more"]] == [True, 2, True]
    older = ask(team, "GET", f"audit?max_results=10&before={page['lines'][-1]['seq']}").ok
    assert ["name=t-2" in older["lines"][0]["object"], older["more"]] == [True, False]
    found = ask(team, "GET", "audit?search=T-3").ok["lines"]
    assert [one["who"] for one in found] == ["admin"]
    whole = ask(team, "GET", "audit/verify").ok
    assert (whole["broken"], len(whole["hash"])) == ("", 64)
    file = team.server.guard.audit.folder / "audit.jsonl"
    file.write_bytes(file.read_bytes().replace(b"name=t-1", b"name=t-9"))
    assert "was changed" in ask(team, "GET", "audit/verify").ok["broken"]


def test_remotes_are_told_of_without_being_asked(team: Team, git_repo: Sandbox, tmp_path: Path) -> None:
    team.things("mine")
    team.tracker.flush()
    hub = tmp_path / "hub.git"
    subprocess.run(["git", "init", "--quiet", "--bare", str(hub)], check=True)
    git_repo.git("remote", "add", "origin", str(hub))
    git_repo.git("remote", "add", "gone", "https://ana:secret@nowhere.invalid/x")
    found = {one["name"]: one for one in ask(team, "GET", "remotes").ok["remotes"]}
    assert "secret" not in str(found)
    assert (found["origin"]["default"], found["origin"]["seen"], found["gone"]["default"]) == (True, 0, False)
    assert (found["origin"]["runs"], found["origin"]["runs_there"]) == (1, 0)
    assert found["origin"]["tags"] == 2  # a version and an alias
    git_repo.git("push", "--quiet", "origin", "refs/runs/*:refs/runs/*", "refs/tags/models/*:refs/tags/models/*")
    looked = ask(team, "POST", "remotes/look", remote="origin").ok
    assert (looked["new"] > 0, looked["refused"]) == (True, {})
    found = {one["name"]: one for one in ask(team, "GET", "remotes").ok["remotes"]}
    assert (found["origin"]["runs"], found["origin"]["tags"]) == (0, 0)
    for wrong in ("nowhere", "--upload-pack=x", str(hub)):
        assert ask(team, "POST", "remotes/look", remote=wrong).status in (400, 404), wrong


def test_storage_and_what_would_go(team: Team) -> None:
    team.things("mine")
    team.things("mine too")
    lost = team.tracker.repo.objects.put_bytes(b"nobody refers to this")[0]
    found = ask(team, "GET", "storage").ok
    assert (found["whole"]["runs"], found["dropped"], found["kept_young"]) == (4, 0, 1)
    assert found["whole"]["distinct"] < found["whole"]["size"]
    assert {one["name"] for one in found["experiments"]} == {"mine", "mine too"}
    assert team.tracker.repo.objects.has(lost)
    server = ask(team, "GET", "server").ok
    assert (server["database"], server["objects"], server["tls"], server["projects"]) == (
        "SQLite" if BACKEND.database is None else "PostgreSQL", "files" if BACKEND.bucket is None else "a bucket",
        False, ["default"],
    )  # fmt: skip


def test_accounts_are_not_begun_on_a_page(git_repo: Sandbox) -> None:
    """Where there are none everybody on the machine may ask: who begins with them must be able to write its files."""
    tracker = Tracker(open_repo(git_repo.path), strict=True)
    server = Server(tracker, Plan())
    accounts = Accounts.in_store(tracker.repo.root)
    with listening(server.watch) as port:
        team = Team(server, tracker, accounts, port)
        me = team.ask("GET", f"{API}/me", token="").ok
        assert (me["kind"], me["is_admin"], me["accounts"]) == ("local", True, False)
        for method, path, said in ADMINS:
            if method != "GET" and "look" not in path:
                answer = team.ask(method, f"{API}/{path}", said, "")
                assert (answer.status, "nobody has an account" in answer.json["message"]) == (400, True), path
        assert team.ask("GET", f"{API}/accounts", token="").ok == {"users": [], "tokens": []}
        assert team.ask("GET", f"{API}/storage", token="").status == 200
        team.close()
    assert not accounts.is_there


def test_webhooks_and_what_became_of_their_deliveries(team: Team, tmp_path: Path) -> None:
    assert ask(team, "GET", "webhooks").ok == {"webhooks": []}
    kept = Webhooks(team.accounts, Keys(tmp_path / "key"))
    hook, secret = kept.add("http://127.0.0.1:9/hook", by="ana", events=["run.finished"], private=True)
    later = now() + 3_600_000  # nobody tries them meanwhile
    came, failed, gone = (
        Delivery(name, hook.id, "run.finished", "{}", WAITING, 0, later, now(), "") for name in ("a", "b", "c")
    )
    kept.queue([came, failed, gone])
    kept.settle(came, 200, "")
    kept.settle(gone, 410, "answered with status 410")
    kept.settle(failed, 500, "answered with status 500")
    answer = ask(team, "GET", "webhooks")
    (said,) = answer.ok["webhooks"]
    assert (said["id"], said["url"], said["events"], said["created_by"]) == (hook.id, hook.url, ["run.finished"], "ana")
    assert (said["delivered"], said["waiting"], said["dead"]) == (1, 1, 1)
    assert said["last_delivered"] == pytest.approx(now(), abs=60_000)
    trouble = said["trouble"]
    assert (trouble["tries"], trouble["event"]) == (1, "run.finished")
    assert trouble["error"].startswith("answered with status")
    assert secret.encode() not in answer.body
    assert ask(team, "GET", "webhooks", team.token(Grant(Role.MAINTAINER, "*", "*"))).status == 403
