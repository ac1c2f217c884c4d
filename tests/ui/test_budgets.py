"""What a page may cost: bytes, requests, and the time for which the browser's main thread works.

That a machine does something else meanwhile lengthens this time by little, and not each time.  What the test itself has
the browser do is not the page's.
"""

from __future__ import annotations

import json
import re
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, Response, expect

from gittrack.store.repo import Repo
from gittrack.store.seal import seal
from tests.benchmarks.ui_peers import POINTS, SPIKE, curve
from tests.conftest import run_git
from tests.ui.conftest import ui
from tests.ui.populations import write_run

RUNS = 50
METRICS = 500
LINES = 200
#: In the screen, and near it.
FEW = 60
#: Seconds of the main thread, in a process that has just been started; four times as many lines may take longer.
BUSY, BUSY_LINES = 0.25, 0.4
CURVES = re.compile("/gittrack/metrics/curves")


@dataclass
class Large:
    """`gittrack ui` with long runs, and one of many metrics."""

    link: str
    runs: list[str]
    wide: str

    @property
    def url(self) -> str:
        return self.link.partition("/login")[0]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    folder = tmp_path_factory.mktemp("budgets")
    run_git(folder, "init", "--quiet")
    repo = Repo.find(folder, create=True)
    runs = [write_run(repo, number, {"loss": list(curve(number))}) for number in range(RUNS)]
    wide = write_run(repo, RUNS, {f"m{number:03}": [number, number + 1.0] for number in range(METRICS)})
    for number in range(LINES):
        write_run(repo, RUNS + 1 + number, {"acc": [number + step / 100 for step in range(100)]})
    assert len(seal(repo)) == RUNS + 1 + LINES
    repo.refresh()
    repo.close()
    with ui(folder) as served:
        yield Large(served.link, runs, wide)


class Measured:
    """A page whose answers and main thread are watched."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.answers: list[Response] = []
        page.on("response", self._answered)
        self._tools = page.context.new_cdp_session(page)
        self._tools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def _answered(self, answer: Response) -> None:
        self.answers.append(answer)

    def curves(self) -> list[Response]:
        return [one for one in self.answers if CURVES.search(one.url)]

    @property
    def cpu(self) -> float:
        """Seconds that the main thread has worked, but for what this test asked of it."""
        found = {one["name"]: one["value"] for one in self._tools.send("Performance.getMetrics")["metrics"]}
        return float(found["TaskDuration"] - found["DevToolsCommandDuration"])


@pytest.fixture
def measured(browser: Browser, large: Large) -> Iterator[Measured]:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(large.link)
    page.wait_for_url(f"{large.url}/")
    yield Measured(page)
    context.close()


def drawn(body: bytes) -> tuple[dict[str, Any], array[float], list[array[float]]]:
    """The head, the axis and the curves of the first chart of an answer."""
    length = struct.unpack_from("<I", body)[0]
    head = json.loads(body[4 : 4 + length])
    at, places = 4 + length, head["places"]
    axis = array("d", body[at : at + 8 * places])
    at += 8 * places
    size = 4 * places
    return head, axis, [array("f", body[at + n * size : at + (n + 1) * size]) for n in range(len(head["curves"]))]


def test_fifty_long_runs_beside_each_other(measured: Measured, large: Large) -> None:
    page = measured.page
    chart = page.get_by_role("img", name=re.compile(f"loss: {RUNS} .*{RUNS * POINTS} points"))

    def cost() -> float:
        page.goto("about:blank")
        before = measured.cpu
        measured.answers.clear()
        page.goto(f"{large.url}/compare?runs={','.join(large.runs)}&tab=charts")
        chart.scroll_into_view_if_needed()
        chart.locator("canvas").first.wait_for()  # `expect` has the page describe itself
        page.wait_for_load_state("networkidle")
        spent = measured.cpu - before
        print(f"compare: main thread {1000 * spent:.0f} ms")
        (answer,) = measured.curves()
        assert sum(int(one.headers.get("content-length", "0")) for one in measured.answers) <= 500_000
        _, _, curves = drawn(answer.body())
        assert sum(value > 3 for one in curves for value in one) == RUNS * POINTS // SPIKE
        return spent

    # The machine may do something else meanwhile, but not each time.
    assert any(cost() <= BUSY for _ in range(8))

    # A part of it is asked for, and is as fine as the points are.
    box = chart.bounding_box()
    assert box is not None
    with page.expect_response(re.compile(r"curves\?.*low=")) as zoomed:
        page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.44, box["y"] + 80, steps=3)
        page.mouse.up()
    head, axis, _ = drawn(zoomed.value.body())
    assert head["exact"] is True
    assert 100 < len(axis) < POINTS // 10
    assert len(measured.curves()) == 2


def test_two_hundred_lines_in_one_chart(measured: Measured, large: Large) -> None:
    page = measured.page
    chart = page.get_by_role("img", name=f"acc: {LINES} curves, {LINES * 100} points")

    def cost() -> float:
        page.goto("about:blank")
        before = measured.cpu
        measured.answers.clear()
        page.goto(f"{large.url}/?view=charts&lines={LINES}&filter={quote('metrics.acc > -1')}")
        chart.locator("canvas").first.wait_for(timeout=30_000)
        page.wait_for_load_state("networkidle")
        spent = measured.cpu - before
        print(f"{LINES} lines: main thread {1000 * spent:.0f} ms")
        (answer,) = measured.curves()
        assert len(drawn(answer.body())[2]) == LINES
        return spent

    assert any(cost() <= BUSY_LINES for _ in range(8))
    expect(page.get_by_role("group", name="Lines").get_by_role("button")).to_have_count(LINES)
    page.get_by_role("combobox", name="How many runs").select_option("the first 20")
    expect(page.get_by_role("img", name="acc: 20 curves")).to_be_visible()


def test_of_five_hundred_charts_those_in_view_are_made(measured: Measured, large: Large) -> None:
    page = measured.page
    page.goto(f"{large.url}/runs/{large.wide}?tab=metrics")
    page.locator("section.chart").first.scroll_into_view_if_needed()
    expect(page.locator("canvas").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert 4 <= page.locator("canvas").count() <= FEW
    assert 1 <= len(measured.curves()) <= FEW
    assert page.evaluate("document.querySelectorAll('*').length") < 12_000
    last = page.get_by_role("region", name=f"m{METRICS - 1}", exact=True)
    last.scroll_into_view_if_needed()
    expect(last.locator("canvas").first).to_be_visible(timeout=30_000)
    assert page.locator("canvas").count() <= 2 * FEW
