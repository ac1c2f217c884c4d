"""What the table of many runs costs a browser: main-thread CPU, bytes, elements, requests; and that all can be reached.

Of 10,000 runs with 20 columns, like of 100,000, the server sends those that are looked at; of 10,000 all are in the
browser as soon as something takes all.  Wall time is the machine's affair and is only printed.  `GITTRACK_FAULTS=full`
has all 20 columns of the 100,000 too.
"""

from __future__ import annotations

import os
import re
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
from tests.ui.conftest import Served, Watched, log_in, ui
from tests.ui.many import START, fill, first_by, set_apart

#: The place of a run that is unlike the others: far from those that are looked at first.
APART = 5
FULL = os.environ.get("GITTRACK_FAULTS") == "full"


#: Milliseconds, as a last resort, in which all runs come.
SLOW = 30_000


class Costs:
    """What a page has cost so far, as the browser counts it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.session = page.context.new_cdp_session(page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.session.send("Network.enable")
        self.bytes = 0
        self.requests: list[str] = []
        self.answered = 0
        self.session.on("Network.loadingFinished", self._finished)
        page.on("request", self._asked)
        page.on("requestfinished", self._answered)

    def _asked(self, request: Request) -> None:
        if "/changes" not in request.url:  # what listens for news is not the table's
            self.requests.append(request.url)

    def _answered(self, request: Request) -> None:
        self.answered += "/changes" not in request.url

    def _finished(self, said: dict[str, Any]) -> None:
        self.bytes += int(said["encodedDataLength"])

    def rest(self) -> None:
        """Until nothing comes any more: what is asked for when a view rests has begun by then, too."""
        known = -1
        while known < len(self.requests) or self.answered < len(self.requests):
            known = len(self.requests)
            self.page.wait_for_timeout(400)

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

    server: Served
    best: dict[str, str]
    login: StorageState

    @property
    def url(self) -> str:
        return self.server.url


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
    set_apart(tracker.repo.index, APART)
    metrics = [f"accuracy_{number}" for number in range(1, min(4, columns // 2))]
    best = {metric: first_by(tracker.repo.index, metric) for metric in metrics}
    tracker.close()
    with ui(folder) as found:
        context = browser.new_context()
        log_in(context, found.link)
        login = context.storage_state()
        context.close()
        yield Many(found, best, login)


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
                page.locator("[aria-rowindex='2'] a").first.wait_for()  # `expect` has the page describe itself

            return costs.of(f"{many}: first rows", load)

    assert any(cost() <= 300 for _ in range(5))  # a machine that does much else makes one dearer, but not each


def test_ten_thousand_runs_cost_little(browser: Browser, ten_thousand: Many) -> None:
    with table_of(browser, ten_thousand) as (page, costs):

        def load() -> None:
            page.goto(ten_thousand.url)
            expect(page.locator("[aria-rowindex='2'] a")).to_have_text("run-9999")

        before = costs.cpu()
        costs.of("first rows", load)
        first = next(place for place, url in enumerate(costs.requests, 1) if "runs/columns" in url)
        assert first <= 6
        assert costs.elements() <= 3000
        grid = page.get_by_role("grid")
        expect(grid).to_have_attribute("aria-rowcount", "10001")
        costs.of("what follows them", costs.rest)
        grid.focus()

        def to_the_end() -> None:
            page.keyboard.press("End")
            expect(page.get_by_role("link", name="run-0", exact=True)).to_be_visible()
            costs.rest()

        costs.of("to the end", to_the_end)

        def by_a_metric() -> None:
            click(page, *next(metrics))
            costs.rest()

        metrics = iter(ten_thousand.best.items())
        spent = costs.of("sorted", by_a_metric)
        print(f"in all: {costs.cpu() - before:.0f} ms CPU, {costs.bytes} bytes")
        assert costs.bytes <= 1_000_000
        expect(page.locator("[aria-rowindex='2'] .best")).not_to_have_count(0)  # by what the server says of all
        assert min(spent, costs.least("sorted again", by_a_metric, 150)) <= 150

        def all_selected() -> None:
            page.get_by_role("checkbox", name="select all").click()
            expect(page.get_by_role("button", name="Compare 10000")).to_be_visible(timeout=SLOW)
            expect(page.get_by_role("checkbox", name="select all")).to_be_checked()

        costs.of("all selected", all_selected)
        assert costs.elements() <= 3000


@pytest.mark.parametrize(
    ("asked", "there"),
    {
        "group=params.param_0": "text='10000 runs, 10 groups'",
        "tree=1": "[aria-rowindex='2'][aria-expanded='false']",
        "diff=1&pin=params.alone": "[role=columnheader] >> text=alone",
        "sort=duration:desc": f"[aria-rowindex='2'] >> text=run-{APART}",
        "sort=params.size:desc": "[aria-rowindex='2'] >> text=run-9999",
        "view=charts&tab=plots": "[role=img][aria-label$='10000 of 10000 runs']",
    }.items(),
    ids=["groups", "tree", "what differs", "what the server cannot sort", "numbers that are text to it", "plots"],
)
def test_what_takes_all_runs_has_all(browser: Browser, ten_thousand: Many, asked: str, there: str) -> None:
    with table_of(browser, ten_thousand) as (page, _):
        page.goto(f"{ten_thousand.url}/?{asked}")
        expect(page.locator(there)).to_be_visible(timeout=SLOW)
        if asked == "tree=1":
            page.get_by_role("button", name="open run-9999").click()
            expect(page.locator("[aria-rowindex='3'][aria-level='2'] a")).to_have_text(f"run-{APART}")
        page.get_by_role("combobox", name="Filter").fill("params.param_0 = '7'")  # and so has what is asked next
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        expect(page.get_by_text(re.compile(r"^1000 runs(, 1 groups)?$"))).to_be_visible(timeout=SLOW)


def test_rows_that_are_not_here_are_selected_and_edited_and_saved(browser: Browser, ten_thousand: Many) -> None:
    with table_of(browser, ten_thousand) as (page, _):
        page.goto(ten_thousand.url)
        page.get_by_role("checkbox", name="select run-9999").click()
        with page.expect_download() as waiting:
            page.get_by_role("button", name="CSV").click()
        lines = waiting.value.path().read_bytes().decode().split("\r\n")
        assert len(lines) == 10_001
        assert [line.split(",")[1] for line in (lines[1], lines[-1])] == ["run-9999", "run-0"]
        page.get_by_role("grid").focus()
        page.keyboard.press("End")
        last = page.get_by_role("checkbox", name="select run-0", exact=True)
        expect(last).to_be_visible(timeout=SLOW)
        last.click(modifiers=["Shift"])
        expect(page.get_by_role("button", name="Compare 10000")).to_be_visible(timeout=SLOW)
        page.get_by_role("button", name="Edit 10000").click()
        expect(page.get_by_role("button", name="Restore")).to_be_disabled()  # all are known to be there


def test_columns_stay_as_one_scrolls_and_sorts(browser: Browser, ten_thousand: Many) -> None:
    with table_of(browser, ten_thousand) as (page, costs):
        page.goto(ten_thousand.url)
        headings = page.get_by_role("columnheader")
        expect(headings.nth(5)).to_be_visible()
        before = [text.strip(" ↑↓") for text in headings.all_inner_texts()]
        page.get_by_role("grid").focus()
        page.keyboard.press("End")
        expect(page.get_by_role("link", name=f"run-{APART}", exact=True)).to_be_visible()
        click(page, "accuracy_1", ten_thousand.best["accuracy_1"])
        costs.rest()
        assert [text.strip(" ↑↓") for text in headings.all_inner_texts()] == before


def test_of_news_only_what_changed_is_read(browser: Browser, ten_thousand: Many) -> None:
    server = ten_thousand.server
    with table_of(browser, ten_thousand) as (page, costs):
        page.goto(ten_thousand.url)
        expect(page.locator("[aria-rowindex='2'] a")).to_have_text("run-9999")
        costs.rest()
        run_id = server.new_run(experiment_id="0", run_name="comes", start_time=START + 10**8)
        try:
            expect(page.locator("[aria-rowindex='2'] a")).to_have_text("comes", timeout=SLOW)  # in its place
            expect(page.get_by_text("10001 runs", exact=True)).to_be_visible()
            costs.rest()
            asked = len(costs.requests)
            server.log(run_id, metrics=[{"key": "accuracy_1", "value": 0.125, "timestamp": 1, "step": 0}])
            expect(page.locator("[aria-rowindex='2']").get_by_text("0.125")).to_be_visible(timeout=SLOW)
            costs.rest()
            read = [url for url in costs.requests[asked:] if "runs/columns" in url]
            assert read
            assert all("run_id+IN" in url for url in read)
        finally:
            server.post("runs/delete", run_id=run_id)
        expect(page.locator("[aria-rowindex='2'] a")).to_have_text("run-9999", timeout=SLOW)


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
        costs.of("sorted by the server", lambda: click(page, "accuracy_1", hundred_thousand.best["accuracy_1"]))
        assert 1 <= len(costs.requests) - asked <= 3
        for place in range(0, 100_000, 5_000):  # more windows than are kept
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
