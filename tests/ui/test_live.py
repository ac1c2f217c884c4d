"""A page that is open shows what happens, in every tab, until the server or the login ends, and says so then."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, expect

from gittrack.server.hub.accounts import Accounts
from gittrack.server.hub.roles import Grant, Role
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from tests.conftest import run_git
from tests.server.process import Process
from tests.ui.conftest import Served, log_in

CHANGES = "/gittrack/changes"
#: Milliseconds after which it does not come any more; how soon it comes if nothing else is going on, one test says.
SLOW = 30_000
#: What a page without Web Locks has: as over plain HTTP from another machine.
NO_LOCKS = "delete Navigator.prototype.locks"


class Going(NamedTuple):
    """A run that goes on, and its experiment, which has no other."""

    run_id: str
    experiment: str


@pytest.fixture
def going(served: Served) -> Iterator[Going]:
    experiment = served.new_experiment("live")
    run_id = served.new_run(experiment_id=experiment, run_name="goes on")
    served.log(run_id, metrics=[point(1.0, 0)])
    yield Going(run_id, experiment)
    served.post("runs/update", run_id=run_id, status="FINISHED")


def point(value: float, step: int) -> dict[str, Any]:
    return {"key": "loss", "value": value, "timestamp": 1_700_000_000_000 + step, "step": step}


class Tabs:
    """Several tabs of one browser, and what they ask."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.requests: list[Request] = []
        context.on("request", self._asks)

    def _asks(self, request: Request) -> None:
        self.requests.append(request)

    def open(self, path: str) -> Page:
        page = self.context.new_page()
        page.goto(self.url + path)
        return page

    def asked(self, part: str) -> list[str]:
        return [request.url for request in self.requests if part in request.url]

    @property
    def streams(self) -> list[Page]:
        """The tabs that listen to the server, one for each stream that was opened."""
        return [one.frame.page for one in self.requests if CHANGES in one.url and one.resource_type == "eventsource"]


@contextmanager
def logged_in(browser: Browser, served: Served, script: str = "") -> Iterator[Tabs]:
    context = browser.new_context(reduced_motion="reduce")
    if script:
        context.add_init_script(script)
    log_in(context, served.link)
    yield Tabs(context, served.url)
    context.close()


def until_listening(tabs: Tabs) -> None:
    """A tab listens, and all have come to rest."""
    page = tabs.context.pages[0]
    deadline = time.monotonic() + SLOW / 1000
    seen = -1
    while (not tabs.streams or seen < len(tabs.requests)) and time.monotonic() < deadline:
        seen = len(tabs.requests)
        page.wait_for_timeout(800)


def test_two_tabs_see_it_within_two_seconds_and_one_listens(browser: Browser, served: Served, going: Going) -> None:
    with logged_in(browser, served) as tabs:
        run, table = tabs.open(f"/runs/{going.run_id}"), tabs.open(f"/?experiment={going.experiment}")
        expect(run.get_by_role("cell", name="1", exact=True).first).to_be_visible()
        expect(table.get_by_text("1 run", exact=True)).to_be_visible()
        until_listening(tabs)
        took = []
        for step in range(1, 6):  # the machine may do something else meanwhile, but not each time
            begun = time.monotonic()
            value = 2.0**-step
            served.log(going.run_id, metrics=[point(value, step)])
            expect(run.get_by_role("cell", name=f"{value:g}", exact=True).first).to_be_visible(timeout=SLOW)
            expect(table.get_by_role("gridcell", name=f"{value:g}")).to_be_visible(timeout=SLOW)
            took.append(time.monotonic() - begun)
            if took[-1] < 2.0:
                break
        assert min(took) < 2.0
        assert len(tabs.streams) == 1
        # The one that listens goes; the other takes over.
        leader = tabs.streams[0]
        other = table if leader == run else run
        leader.close()
        served.log(going.run_id, metrics=[point(77.0, 6)])
        expect(other.get_by_text("77", exact=True).first).to_be_visible(timeout=SLOW)
        assert tabs.streams[1:] == [other]


def test_only_what_changed_is_read_again(browser: Browser, served: Served, going: Going) -> None:
    with logged_in(browser, served) as tabs:
        page = tabs.open(f"/?experiment={going.experiment}")
        expect(page.get_by_text("1 run", exact=True)).to_be_visible()
        until_listening(tabs)
        tabs.requests.clear()
        served.log(served.evil, tags=[{"key": "elsewhere", "value": "1"}])
        second = served.new_run(experiment_id=going.experiment, run_name="comes later")
        expect(page.get_by_text("2 runs", exact=True)).to_be_visible(timeout=SLOW)
        served.post("runs/update", run_id=second, status="FINISHED")
        page.wait_for_timeout(1500)
        asked = [url for url in tabs.asked("runs/columns") if going.run_id in url]
        assert asked == []  # it has not changed
        assert all("run_id+IN" in url for url in tabs.asked("runs/columns"))
        for _ in range(8):  # until the runs that ended are committed
            tabs.requests.clear()
            page.wait_for_timeout(2000)
            if not tabs.requests:
                break
        assert tabs.requests == []  # nothing happens, nothing is asked


def test_without_web_locks_it_is_asked_now_and_then(browser: Browser, served: Served, going: Going) -> None:
    with logged_in(browser, served, NO_LOCKS) as tabs:
        page = tabs.open(f"/runs/{going.run_id}")
        expect(page.get_by_role("cell", name="1", exact=True).first).to_be_visible()
        served.log(going.run_id, metrics=[point(0.25, 3)])
        expect(page.get_by_role("cell", name="0.25", exact=True).first).to_be_visible(timeout=SLOW)
        assert tabs.streams == []


def test_where_streams_are_held_back_it_is_asked(browser: Browser, served: Served, going: Going) -> None:
    """By a proxy that waits for the end of an answer, or a server that has too many."""

    def refuse(route: Route) -> None:
        if route.request.resource_type == "eventsource":
            route.fulfill(status=429, json={"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "too many"})
        else:
            route.continue_()

    with logged_in(browser, served) as tabs:
        tabs.context.route(f"**{CHANGES}*", refuse)
        page = tabs.open(f"/runs/{going.run_id}")
        expect(page.get_by_role("cell", name="1", exact=True).first).to_be_visible()
        served.log(going.run_id, metrics=[point(0.75, 4)])
        expect(page.get_by_role("cell", name="0.75", exact=True).first).to_be_visible(timeout=SLOW)
        assert len(tabs.streams) == 1
        expect(page.get_by_role("status", name="Connection")).to_have_text("")


def test_a_login_that_ended_is_said_in_every_tab_and_leads_back(browser: Browser, served: Served, going: Going) -> None:
    with logged_in(browser, served) as tabs:
        page, other = tabs.open(f"/runs/{going.run_id}"), tabs.open(f"/?experiment={going.experiment}")
        until_listening(tabs)
        other.evaluate("fetch('/logout', {method: 'POST', body: '{}', headers: {'content-type': 'application/json'}})")
        for tab in (page, other):
            expect(tab.get_by_role("status", name="Connection")).to_contain_text("Your login has ended", timeout=SLOW)
            expect(tab.get_by_text("goes on").first).to_be_visible()  # what was there stays
        link = page.get_by_role("link", name="Log in again")
        assert link.get_attribute("href") == f"/login?next={quote(f'/runs/{going.run_id}', safe='')}"
        link.click()
        expect(page).to_have_url(re.compile("/login"))


def test_a_server_that_goes_away_and_comes_back(browser: Browser, tmp_path: Path) -> None:
    run_git(tmp_path, "init", "--quiet")
    store = Repo.find(tmp_path, create=True)
    token = Accounts.in_store(store.root).create_token("ana", (Grant(Role.ADMIN, "*", "*"),), by="test")[1]
    tracker = Tracker(store)
    run = tracker.create_run(name="goes on")
    run.log_metric("loss", 1.0, step=0)
    server = Process(tmp_path, [])
    server.start()
    context = browser.new_context(reduced_motion="reduce")
    try:
        url = f"http://127.0.0.1:{server.port}"
        page = context.new_page()
        page.goto(f"{url}/login#token={token}")
        page.wait_for_url(f"{url}/")
        page.goto(f"{url}/runs/{run.run_id}")
        expect(page.get_by_role("cell", name="1", exact=True).first).to_be_visible()
        assert server.stop() == 0
        said = page.get_by_role("status", name="Connection")
        expect(said).to_contain_text("The server does not answer", timeout=SLOW)
        expect(page.get_by_role("cell", name="1", exact=True).first).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
        run.log_metric("loss", 0.375, step=1)
        server.start()
        expect(page.get_by_role("cell", name="0.375", exact=True).first).to_be_visible(timeout=SLOW)
        expect(said).to_have_text("")
    finally:
        context.close()
        assert server.stop() == 0
        tracker.close()


def test_a_hidden_tab_asks_nothing(browser: Browser, served: Served, going: Going) -> None:
    hide = """
        let hidden = false;
        Object.defineProperty(document, 'visibilityState', { get: () => (hidden ? 'hidden' : 'visible') });
        window.hide = (how) => { hidden = how; document.dispatchEvent(new Event('visibilitychange')); };
    """
    with logged_in(browser, served, hide) as tabs:
        page = tabs.open(f"/runs/{going.run_id}")
        expect(page.get_by_role("cell", name="1", exact=True).first).to_be_visible()
        until_listening(tabs)
        page.evaluate("hide(true)")
        tabs.requests.clear()
        served.log(going.run_id, metrics=[point(0.875, 5)])
        page.wait_for_timeout(2500)
        assert tabs.requests == []
        page.evaluate("hide(false)")
        expect(page.get_by_role("cell", name="0.875", exact=True).first).to_be_visible(timeout=SLOW)
