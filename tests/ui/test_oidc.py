"""Logging in by an identity provider, in a real browser: the button, the provider's pages, and back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.cli.test_server import started
from tests.conftest import Sandbox
from tests.server.provider import SECRET, free_port, provider

pytest.importorskip("joserfc", reason="joserfc is not installed: pip install 'gittrack[oidc]'")


@pytest.fixture
def hub(git_repo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server with a provider."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("GITTRACK_OIDC_SECRET", SECRET)
    with provider(tmp_path, f"{url}/login/oidc/callback") as issuer:
        words = ["--port", str(port), "--public-url", url, "--oidc-issuer", issuer, "--oidc-client-id", "hub",
                 "--oidc-scope", "groups", "--oidc-name", "the Company",
                 "--oidc-grant", "groups=ml-team", "writer"]  # fmt: skip
        with started(git_repo.path, *words):
            yield url


def test_there_and_back(browser: Browser, hub: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" and page.url.startswith(hub)
            and "401" not in said.text else None)  # fmt: skip
    page.goto(f"{hub}/models")
    page.wait_for_url(f"{hub}/login?next=/models")
    page.get_by_role("button", name="Log in with the Company").click()
    page.locator("input[name=login]").fill("ana")
    page.locator("input[name=password]").fill("x")
    page.locator("button[type=submit]").click()
    page.locator("button[type=submit]").click()  # consents
    page.wait_for_url(f"{hub}/models")
    kept = {one["name"]: one for one in context.cookies(hub)}
    session = next(one for name, one in kept.items() if name.startswith("gittrack-") and not name.endswith("-login"))
    assert (session["httpOnly"], session["sameSite"]) == (True, "Strict")
    assert not [name for name in kept if name.endswith("-login")]
    assert page.evaluate("fetch('/session').then((answer) => answer.json())") == {"name": "ana", "kind": "user"}
    page.goto(f"{hub}/login#refused=denied")
    page.wait_for_url(f"{hub}/")  # who is logged in goes on
    assert wrong == []
    context.close()


def test_who_has_no_account_is_told(browser: Browser, hub: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(f"{hub}/login")
    page.get_by_role("button", name="Log in with the Company").click()
    page.locator("input[name=login]").fill("bo")
    page.locator("input[name=password]").fill("x")
    page.locator("button[type=submit]").click()
    page.locator("button[type=submit]").click()
    page.wait_for_url(f"{hub}/login#refused=unknown")
    expect(page.get_by_role("alert")).to_contain_text("You have no account here")
    context.close()
