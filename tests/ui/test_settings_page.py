"""Settings: an administrator's, a user's, and those on a machine where nobody has an account."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from gittrack.server.hub import accounts
from gittrack.server.hub.accounts import now
from gittrack.server.hub.roles import Grant, Role
from gittrack.server.hub.webhooks import WAITING, Delivery, Keys, Webhooks
from tests.conftest import run_git
from tests.server.guarded import PASSWORD
from tests.server.team import Team, serving
from tests.ui.conftest import ATTACK, Served, Watched
from tests.ui.models import logged_in
from tests.ui.sound import sound

PARTS = ("account", "users", "tokens", "remotes", "storage", "webhooks", "audit", "server")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A server with an administrator, `ana`, and a writer, `bo`, and a git remote with two refs less than it has."""
    from argon2 import PasswordHasher

    folder = tmp_path_factory.mktemp("team")
    run_git(folder, "init", "--quiet")
    hub = tmp_path_factory.mktemp("hub")
    subprocess.run(["git", "init", "--quiet", "--bare", str(hub)], check=True)
    run_git(folder, "remote", "add", "origin", str(hub))
    patch = pytest.MonkeyPatch()
    patch.setattr(accounts, "_hasher", lambda: PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    with patch.context(), serving(folder, failures=1000) as team:
        team.things("mine")
        team.tracker.flush()
        team.accounts.add_user("ana", PASSWORD, (Grant(Role.ADMIN, "*", "*"),), by="test")
        team.accounts.add_user(
            "bo", PASSWORD, (Grant(Role.WRITER, "mine*", "<b>*"), Grant(None, ATTACK[:80])), by="test"
        )
        yield team
    patch.undo()


@pytest.fixture
def team(started: Team) -> Team:
    """The same, asked over a new connection: the server closes those that nothing comes over."""
    started.close()
    started.server.guard.auth._fresh_until = 0.0
    return started


def opened(watched: Watched, part: str) -> Page:
    page = watched.open(f"/settings?part={part}")
    expect(page.get_by_role("heading", level=2)).to_be_visible()
    page.wait_for_load_state("networkidle")
    return page


def test_every_part_is_accessible_and_fits(browser: Browser, team: Team) -> None:
    with logged_in(browser, team, user="ana") as watched:
        for part in PARTS:
            page = opened(watched, part)
            if part == "users":
                page.get_by_role("button", name="Add a user").click()
            sound(watched, part, phone=True)


def test_a_token_of_ones_own_is_shown_once(browser: Browser, team: Team) -> None:
    with logged_in(browser, team, user="bo") as watched:
        page = watched.open("/")
        page.get_by_role("link", name="Settings").click()
        expect(page.get_by_text("You are bo: writer of experiments mine*")).to_be_visible()
        expect(page.get_by_role("navigation", name="Settings")).to_have_count(0)  # the rest is for administrators
        page.get_by_role("button", name="Make a token of your own").click()
        page.get_by_label("Name").fill("laptop")
        page.keyboard.press("Enter")
        token = page.locator("pre", has_text=re.compile("^gtk_")).inner_text()
        team.server.guard.auth._fresh_until = 0.0
        assert team.ask("GET", "/session", token=token).ok == {"name": "bo+laptop", "kind": "token"}
        assert "gtk_" not in page.url
        page.get_by_role("button", name="I have it").click()
        expect(page.get_by_text("gtk_")).to_have_count(0)
        page.reload()
        row = page.get_by_role("row", name=re.compile("bo\\+laptop"))
        expect(row).to_contain_text("what you may, at most as writer")
        expect(page.get_by_text("gtk_")).to_have_count(0)
        row.get_by_role("button", name="Revoke bo+laptop").click()
        page.get_by_role("button", name="Revoke it").click()
        expect(page.get_by_text("You have no token.")).to_be_visible()
        team.server.guard.auth._fresh_until = 0.0
        assert team.ask("GET", "/session", token=token).status == 401
        watched.open("/settings?part=users")
        expect(page.get_by_role("heading", name="Account")).to_be_visible()


def test_users_are_added_granted_denied_and_removed(browser: Browser, team: Team) -> None:
    with logged_in(browser, team, user="ana") as watched:
        page = opened(watched, "users")
        assert page.get_by_role("button", name="Remove ana").count() == 0
        page.get_by_role("button", name="Add a user").click()
        dialog = page.get_by_role("dialog", name="A new user")
        dialog.get_by_label("Name", exact=True).fill("cleo")
        dialog.get_by_label("Password").fill(PASSWORD)
        dialog.get_by_label("Role").select_option("reader")
        dialog.get_by_role("textbox", name=re.compile("^Experiments")).fill("ci-*")
        dialog.get_by_role("button", name="Add").click()
        row = page.get_by_role("row", name=re.compile("^cleo"))
        expect(row).to_contain_text("reader of experiments ci-*")
        row.get_by_role("button", name="Grant cleo").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Role").select_option("none")
        dialog.get_by_role("button", name="Change").click()
        expect(dialog.get_by_role("alert")).to_contain_text("what is denied?")
        dialog.get_by_role("textbox", name=re.compile("^Models")).fill("secret")
        dialog.get_by_role("button", name="Change").click()
        expect(row).to_contain_text("denied models secret")
        row.get_by_role("button", name="Take from cleo: reader of experiments ci-*").click()
        page.get_by_role("button", name="Take it away").click()
        expect(row).not_to_contain_text("reader")
        row.get_by_role("button", name="Password of cleo").click()
        page.get_by_role("dialog").get_by_role("textbox").fill("another password of hers")
        page.get_by_role("button", name="Set it").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        row.get_by_role("button", name="Remove cleo").click()
        page.get_by_role("dialog").get_by_role("button", name="Remove").click()
        expect(row).to_have_count(0)
        assert PASSWORD not in "".join(watched.asked)
        watched.wrong = [one for one in watched.wrong if "400" not in one]
        page = opened(watched, "audit")
        expect(page.get_by_role("region", name="Audit log")).to_contain_text("name=cleo role=reader experiments=ci-*")


def test_the_audit_log_is_searched_and_checked(browser: Browser, team: Team) -> None:
    team.post("registered-models/create", {"name": "searched"})
    team.ask("DELETE", "/api/2.0/mlflow/registered-models/delete", {"name": "searched"})
    with logged_in(browser, team, user="ana") as watched:
        page = opened(watched, "audit")
        page.get_by_role("searchbox").fill("searched")
        page.keyboard.press("Enter")
        expect(page.get_by_role("region", name="Audit log").get_by_role("row")).to_have_count(2)
        assert "search=searched" in page.url
        page.get_by_role("button", name="Check the chain").click()
        expect(page.get_by_text("lines are as they were written")).to_be_visible()


def test_nothing_is_asked_of_a_remote_before_a_click(browser: Browser, team: Team) -> None:
    with logged_in(browser, team, user="ana") as watched:
        page = opened(watched, "remotes")
        row = page.get_by_role("row", name=re.compile("^origin"))
        expect(row).to_contain_text("nothing was seen there yet")
        expect(row).to_contain_text("2 registry tags")
        run_git(team.tracker.repo.paths.main_root, "push", "--quiet", "origin", "refs/tags/models/*:refs/tags/models/*")
        page.reload()
        expect(row).to_contain_text("2 registry tags")
        page.get_by_role("button", name="Ask origin").click()
        expect(page.get_by_text("origin was asked just now.")).to_be_visible()
        expect(row).not_to_contain_text("2 registry tags")


def test_webhooks_are_listed(browser: Browser, team: Team, tmp_path: Path) -> None:
    with logged_in(browser, team, user="ana") as watched:
        page = opened(watched, "webhooks")
        expect(page.get_by_text("Nobody is told of what happens here.")).to_be_visible()
        kept = Webhooks(team.accounts, Keys(tmp_path / "key"))
        hook, _ = kept.add("http://127.0.0.1:9/hook", by=ATTACK, private=True)
        failed = Delivery("a", hook.id, "run.finished", "{}", WAITING, 0, now() + 3_600_000, now(), "")
        kept.queue([failed])
        kept.settle(failed, 410, f"answered with {ATTACK}")
        page.reload()
        row = page.get_by_role("row", name=re.compile(hook.id))
        expect(row).to_contain_text("everything")
        expect(row).to_contain_text("1 given up")
        expect(row).to_contain_text("tried 1 time, given up")
        kept.remove(hook.id)


def test_storage_is_counted_when_asked_for(browser: Browser, team: Team) -> None:
    with logged_in(browser, team, user="ana") as watched:
        page = opened(watched, "storage")
        assert not any("settings/storage" in one for one in watched.asked)
        page.get_by_role("button", name="Count").click()
        expect(page.get_by_role("region", name="Storage by experiment")).to_contain_text("mine")
        expect(page.get_by_text("What gittrack gc would remove")).to_be_visible()


def test_logging_out(browser: Browser, team: Team) -> None:
    with logged_in(browser, team, user="ana") as watched:
        page = opened(watched, "account")
        with page.expect_console_message(lambda said: "401" in said.text):  # the login's page asks who one is
            page.get_by_role("button", name="Log out").click()
        page.wait_for_url(f"{team.url}/login")
        assert page.request.get(f"{team.url}/session").status == 401
        watched.wrong = [one for one in watched.wrong if "401" not in one]


def test_where_nobody_has_an_account(watched: Watched, served: Served) -> None:
    """`gittrack ui`: the page says calmly that none is needed, and offers none."""
    page = opened(watched, "account")
    expect(page.get_by_text("You are on this machine")).to_be_visible()
    for part in ("users", "tokens"):
        page = opened(watched, part)
        expect(page.get_by_text("Nobody has an account on this server")).to_be_visible()
        expect(page.get_by_role("button")).to_have_count(0)
    page = opened(watched, "server")
    expect(page.get_by_text("this machine only")).to_be_visible()
