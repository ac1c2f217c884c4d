"""What the table of many runs costs a browser: main-thread CPU, bytes, elements, requests; and that all can be reached.

10,000 runs with 20 columns are all in the browser; of 100,000 the server sends those that are looked at.  Wall time is
the machine's affair and is only printed.  `GITTRACK_FAULTS=full` has all 20 columns of the 100,000 too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, StorageState, expect

from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from tests.conftest import run_git
from tests.ui.conftest import Watched, ui
from tests.ui.many import fill, first_by

FULL = os.environ.get("GITTRACK_FAULTS") == "full"


class Costs:
    """What a page has cost so far, as the browser counts it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session = page.context.new_cdp_session(page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.session.send("Network.enable")
        self.bytes = 0
        self.requests: list[str] = []
        self.session.on("Network.loadingFinished", self._finished)
        page.on("request", self._asked)

    def _asked(self, request: Request) -> None:
        if "/changes" not in request.url:  # what listens for news is not the table's
            self.requests.append(request.url)

    def _finished(self, said: dict[str, Any]) -> None:
        self.bytes += int(said["encodedDataLength"])

    def cpu(self) -> float:
        """Milliseconds of the main thread, but for what the test asked of it."""
        found = {one["name"]: one["value"] for one in self.session.send("Performance.getMetrics")["metrics"]}
        return 1000 * float(found["TaskDuration"] - found["DevToolsCommandDuration"])

    def elements(self) -> int:
        return int(self.page.evaluate("document.querySelectorAll('*').length"))

    def least(self, name: str, work: Callable[[], None], most: float) -> float:
        """As ``of``, of three attempts at most: a machine that does much else meanwhile makes each dearer."""
        spent = self.of(name, work)
        for _ in range(2):
            if spent <= most:
                break
            spent = min(spent, self.of(name, work))
        return spent

    def of(self, name: str, work: Callable[[], None]) -> float:
        """The CPU that some work takes, printed with the wall time."""
        begun, before = time.monotonic(), self.cpu()
        work()
        spent = self.cpu() - before
        print(
            f"{name}: {spent:.0f} ms CPU, {time.monotonic() - begun:.2f} s wall, {self.bytes / 1000:.0f} kB,"
            f" {len(self.requests)} requests, {self.elements()} elements"
        )
        return spent


@dataclass
class Many:
    """`gittrack ui` with many runs; by metric the name of the one with the greatest; and who is logged in."""

    url: str
    best: dict[str, str]
    login: StorageState


@contextmanager
def table_of(browser: Browser, many: Many) -> Iterator[tuple[Page, Costs]]:
    """A page that nothing was loaded into before."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, storage_state=many.login)
    page = context.new_page()
    costs = Costs(page)
    watched = Watched(page, many.url)
    yield page, costs
    context.close()
    assert watched.wrong == []


def served(browser: Browser, folder: Path, runs: int, columns: int) -> Iterator[Many]:
    run_git(folder, "init", "--quiet")
    tracker = Tracker(Repo.find(folder, create=True))
    tracker.search_runs()
    fill(tracker.repo.index, runs, columns // 2, columns // 2)
    metrics = [f"metric_{number}" for number in range(1, min(4, columns // 2))]
    best = {metric: first_by(tracker.repo.index, metric) for metric in metrics}
    tracker.close()
    with ui(folder) as found:
        context = browser.new_context()
        page = context.new_page()
        page.goto(found.link)
        page.wait_for_url(f"{found.url}/")
        login = context.storage_state()
        context.close()
        yield Many(found.url, best, login)


@pytest.fixture(scope="module")
def ten_thousand(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    yield from served(browser, tmp_path_factory.mktemp("many"), 10_000, 20)


@pytest.fixture(scope="module")
def hundred_thousand(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    yield from served(browser, tmp_path_factory.mktemp("more"), 100_000, 20 if FULL else 4)


def click(page: Page, name: str, row: str) -> None:
    """Sort by a column, and wait for the row that is then the first."""
    page.get_by_role("columnheader").get_by_role("button", name=name).click()
    expect(page.locator("[aria-rowindex='2'] a")).to_have_text(row)


@pytest.mark.parametrize("many", ["ten_thousand", "hundred_thousand"])
def test_first_rows_are_there_soon(browser: Browser, many: str, request: pytest.FixtureRequest) -> None:
    found: Many = request.getfixturevalue(many)

    def cost() -> float:
        with table_of(browser, found) as (page, costs):

            def load() -> None:
                page.goto(found.url)
                expect(page.locator("[aria-rowindex='2'] a").first).to_be_visible()

            return costs.of(f"{many}: first rows", load)

    assert any(cost() <= 300 for _ in range(5))  # a machine that does much else makes one dearer, but not each


def test_ten_thousand_runs_cost_little(browser: Browser, ten_thousand: Many) -> None:
    with table_of(browser, ten_thousand) as (page, costs):

        def load() -> None:
            page.goto(ten_thousand.url)
            expect(page.locator("[aria-rowindex='2'] a")).to_have_text("run-9999")

        costs.of("first rows", load)
        first = next(place for place, url in enumerate(costs.requests, 1) if "runs/columns" in url)
        assert first <= 6
        assert costs.elements() <= 3000
        expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", "10001")
        expect(page.get_by_role("checkbox", name="select all")).to_be_enabled()  # all of them are here
        assert costs.bytes <= 1_000_000
        asked = len(costs.requests)
        metrics = iter(ten_thousand.best.items())
        assert costs.least("sorted", lambda: click(page, *next(metrics)), 150) <= 150
        assert not [one for one in costs.requests[asked:] if "ajax-api" in one]  # the browser does it

        def all_selected() -> None:
            page.get_by_role("checkbox", name="select all").check()
            expect(page.get_by_role("button", name="Compare 10000")).to_be_visible()

        costs.of("all selected", all_selected)
        assert costs.elements() <= 3000


def test_a_hundred_thousand_runs_are_all_there(browser: Browser, hundred_thousand: Many) -> None:
    with table_of(browser, hundred_thousand) as (page, costs):

        def load() -> None:
            page.goto(hundred_thousand.url)
            expect(page.locator("[aria-rowindex='2'] a")).to_have_text("run-99999")

        costs.of("first rows of 100,000", load)
        expect(page.get_by_text("100000 runs", exact=True)).to_be_visible()
        grid = page.get_by_role("grid")
        assert grid.evaluate("grid => grid.scrollHeight") == 100_001 * 30

        def to(place: int) -> None:
            grid.evaluate(f"grid => (grid.scrollTop = {place * 30})")
            expect(page.get_by_role("link", name=f"run-{99_999 - place}", exact=True)).to_be_visible()

        costs.of("to the middle", lambda: to(50_000))
        grid.focus()

        def to_the_end() -> None:
            page.keyboard.press("End")
            expect(page.get_by_role("link", name="run-0", exact=True)).to_be_visible()

        costs.of("to the end", to_the_end)
        asked = len(costs.requests)
        costs.of("sorted by the server", lambda: click(page, "metric_1", hundred_thousand.best["metric_1"]))
        assert 1 <= len(costs.requests) - asked <= 3
        for place in range(0, 100_000, 9_000):  # more windows than are kept
            grid.evaluate(f"grid => (grid.scrollTop = {place * 30})")
            expect(page.locator(f"[aria-rowindex='{place + 5}'] a")).to_be_visible()
        held = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        print(f"heap after looking everywhere: {held:.0f} MB")
        assert held < 60
        assert costs.elements() <= 3000
        expect(page.get_by_role("checkbox", name="select all")).to_be_disabled()
        page.get_by_role("combobox", name="Filter").fill("params.param_0 = '7'")
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        expect(page.get_by_text("10000 runs", exact=True)).to_be_visible()
        expect(page.get_by_role("checkbox", name="select all")).to_be_enabled()  # few enough to be here


@pytest.mark.skipif(not FULL, reason="reads 100,000 runs five times: GITTRACK_FAULTS=full")
def test_all_of_them_as_csv(browser: Browser, hundred_thousand: Many) -> None:
    with table_of(browser, hundred_thousand) as (page, _):
        page.goto(f"{hundred_thousand.url}/?sort=params.param_1:asc,start_time:asc")
        expect(page.locator("[aria-rowindex='2'] a")).to_be_visible()
        with page.expect_download() as waiting:
            page.get_by_role("button", name="CSV").click()
        lines = waiting.value.path().read_bytes().decode().split("\r\n")
        assert len(lines) == 100_001
        assert lines[0].split(",")[:2] == ["run_id", "run_name"]
        place = lines[0].split(",").index("params.param_1")
        values = [line.split(",")[place] for line in lines[1:]]
        assert values == sorted(values)
