"""What the table of many runs costs a browser: main-thread CPU, bytes, elements, requests; and that all can be reached.

10,000 runs with 20 columns are all in the browser; of 100,000 the server sends those that are looked at.  Wall time is
the machine's affair and is only printed.  `GITTRACK_FAULTS=full` has all 20 columns of the 100,000 too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import run_git
from tests.server.conftest import Running, running
from tests.ui.conftest import Watched
from tests.ui.many import fill

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
pytestmark = pytest.mark.xdist_group("ui")


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
        page.on("request", lambda request: self.requests.append(request.url))

    def _finished(self, said: dict[str, Any]) -> None:
        self.bytes += int(said["encodedDataLength"])

    def cpu(self) -> float:
        """Milliseconds of the main thread."""
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return 1000 * next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")

    def elements(self) -> int:
        return int(self.page.evaluate("document.querySelectorAll('*').length"))

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


@contextmanager
def table_of(browser: Browser, server: Running) -> Iterator[tuple[Page, Costs]]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    costs = Costs(page)
    watched = Watched(page, f"http://127.0.0.1:{server.port}")
    yield page, costs
    context.close()
    assert watched.wrong == []


def served(tmp_path_factory: pytest.TempPathFactory, runs: int, columns: int) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("many")
    run_git(folder, "init", "--quiet")
    with running(folder) as server:
        server.hub.tracker.search_runs()
        fill(server.hub.tracker.repo.index, runs, columns // 2, columns // 2)
        yield server


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from served(tmp_path_factory, 10_000, 20)


@pytest.fixture(scope="module")
def hundred_thousand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from served(tmp_path_factory, 100_000, 20 if FULL else 4)


def first_row(page: Page) -> str:
    return page.locator("[aria-rowindex='2'] a").inner_text()


def click(page: Page, name: str, row: str) -> None:
    """Sort by a column, and wait for the row that is then the first."""
    page.get_by_role("columnheader").get_by_role("button", name=name).click()
    expect(page.locator("[aria-rowindex='2'] a")).to_have_text(row)


def best_of(server: Running, order: str) -> str:
    found = server.hub.tracker.search_columns(["0"], order_by=[order], max_results=1)[0]
    return str(found.facts["run_name"][0])


def test_ten_thousand_runs_cost_little(browser: Browser, ten_thousand: Running) -> None:
    url = f"http://127.0.0.1:{ten_thousand.port}"
    with table_of(browser, ten_thousand) as (page, costs):

        def load() -> None:
            page.goto(url)
            expect(page.locator("[aria-rowindex='2'] a")).to_have_text("run-9999")

        assert costs.of("first rows", load) <= 300
        first = next(place for place, url in enumerate(costs.requests, 1) if "runs/columns" in url)
        assert first <= 6
        assert costs.elements() <= 3000
        expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", "10001")
        expect(page.get_by_role("checkbox", name="select all")).to_be_enabled()  # all of them are here
        costs.of("all rows", page.wait_for_load_state)
        assert costs.bytes <= 1_000_000
        best = best_of(ten_thousand, "metrics.metric_1 DESC")
        asked = len(costs.requests)
        assert costs.of("sorted", lambda: click(page, "metric_1", best)) <= 150
        assert len(costs.requests) == asked  # the browser does it

        def all_selected() -> None:
            page.get_by_role("checkbox", name="select all").check()
            expect(page.get_by_role("button", name="Compare 10000")).to_be_visible()

        assert costs.of("all selected", all_selected) <= 150
        assert costs.elements() <= 3000


def test_a_hundred_thousand_runs_are_all_there(browser: Browser, hundred_thousand: Running) -> None:
    url = f"http://127.0.0.1:{hundred_thousand.port}"
    with table_of(browser, hundred_thousand) as (page, costs):

        def load() -> None:
            page.goto(url)
            expect(page.locator("[aria-rowindex='2'] a")).to_have_text("run-99999")

        assert costs.of("first rows of 100,000", load) <= 300
        expect(page.get_by_text("100000 runs", exact=True)).to_be_visible()
        grid = page.get_by_role("grid")
        assert grid.evaluate("grid => grid.scrollHeight") == 100_001 * 30

        def to(place: int) -> None:
            grid.evaluate(f"grid => (grid.scrollTop = {place * 30})")
            expect(page.get_by_role("link", name=f"run-{99_999 - place}", exact=True)).to_be_visible()

        assert costs.of("to the middle", lambda: to(50_000)) <= 150
        grid.focus()

        def to_the_end() -> None:
            page.keyboard.press("End")
            expect(page.get_by_role("link", name="run-0", exact=True)).to_be_visible()

        costs.of("to the end", to_the_end)
        best = best_of(hundred_thousand, "metrics.metric_1 DESC")
        asked = len(costs.requests)
        costs.of("sorted by the server", lambda: click(page, "metric_1", best))
        assert 1 <= len(costs.requests) - asked <= 2
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


def test_what_flies_by_is_not_asked_for(browser: Browser, hundred_thousand: Running) -> None:
    with table_of(browser, hundred_thousand) as (page, costs):
        page.goto(f"http://127.0.0.1:{hundred_thousand.port}")
        expect(page.locator("[aria-rowindex='2'] a")).to_have_text("run-99999")
        page.wait_for_load_state("networkidle")
        asked = len(costs.requests)
        page.get_by_role("grid").evaluate(
            """grid => new Promise((done) => {
                let at = 0;
                const step = () => {
                    grid.scrollTop = (at += 2000) * 30;
                    if (at < 80000) requestAnimationFrame(step);
                    else done();
                };
                step();
            })"""
        )
        expect(page.locator("[aria-rowindex='80005'] a")).to_be_visible()
        assert len(costs.requests) - asked <= 6  # of the forty that flew by


def test_all_of_them_as_csv(browser: Browser, hundred_thousand: Running) -> None:
    with table_of(browser, hundred_thousand) as (page, _):
        page.goto(f"http://127.0.0.1:{hundred_thousand.port}/?sort=params.param_1:asc,start_time:asc")
        expect(page.locator("[aria-rowindex='2'] a")).to_be_visible()
        with page.expect_download() as waiting:
            page.get_by_role("button", name="CSV").click()
        lines = waiting.value.path().read_bytes().decode().split("\r\n")
        assert len(lines) == 100_001
        assert lines[0].split(",")[:2] == ["run_id", "run_name"]
        place = lines[0].split(",").index("params.param_1")
        values = [line.split(",")[place] for line in lines[1:]]
        assert values == sorted(values)
