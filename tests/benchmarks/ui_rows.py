"""The web page beside MLflow's and Aim's: the same runs and points, one browser, each in a profile of its own.

What counts is the time for which the browser's main thread works (`Performance.getMetrics`, in thread ticks), bytes and
requests: they hardly depend on what else the machine does.  The training that a page looks at is measured by its own
CPU.  The peers' stores are filled by `ui_peers.py`, which says how.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Locator, Page, Response, expect, sync_playwright

from gittrack._version import __version__
from gittrack.store.repo import Repo
from gittrack.store.seal import seal
from tests.benchmarks.measure import Figures, Row, Settings
from tests.benchmarks.populations import populated, repository
from tests.benchmarks.serving_rows import free_ports, started
from tests.benchmarks.ui_peers import POINTS, SPIKE, curve
from tests.ui.conftest import CHROMIUM, ui as ui_of
from tests.ui.populations import write_run

LONG: Final = 50
WIDE: Final = 500
MANY: Final = 250
IDLE: Final = 65.0
TABS: Final = 8
RATE: Final = 1000
_WAIT: Final = 180_000
#: A page is calm when its main thread works less than this share of half a second; so many of them are waited for.
_IDLE_SHARE: Final = 0.04
_CALM: Final = 60

#: Of a chart of Aim's: its lines, their points, and those that it draws at -20, above the rest: the outliers.
_DRAWN: Final = """() => {
    const lines = [...document.querySelectorAll("svg path.Line")].map(
        (line) => line.getAttribute("d").match(/[ML][^ML]+/g).map((point) => Number(point.slice(1).split(",")[1])));
    const points = lines.flat();
    return { lines: lines.length, points: points.length, spikes: points.filter((y) => y < -15).length };
}"""

#: A training: so many points a second for so many seconds; prints its CPU, and that of each call.
TRAINING: Final = """
import sys, time
import gittrack
rate, seconds = int(sys.argv[1]), float(sys.argv[2])
run = gittrack.start_run()
print(run.info.run_id, flush=True)
input()
began, calls, cost = time.perf_counter(), 0, 0.0
cpu = time.process_time()
while (now := time.perf_counter() - began) < seconds:
    while calls < now * rate:
        start = time.thread_time()
        gittrack.log_metric("loss", calls / 3, step=calls)
        cost += time.thread_time() - start
        calls += 1
    time.sleep(0.001)
print(calls, cost, time.process_time() - cpu, flush=True)
gittrack.end_run()
"""


@dataclass
class Visit:
    """What it took to get somewhere in a page.

    Attributes:
        cpu: Seconds of the main thread.
        wall: Seconds.
        requests: How many.
        size: Bytes that came over the wire.
        heap: Bytes of JavaScript's heap at the end.
        nodes: Of the document at the end.
        spikes: That are in the points that came.
        points: That came.
    """

    cpu: float
    wall: float
    requests: int
    size: int
    heap: int
    nodes: int
    spikes: int = 0
    points: int = 0

    def __str__(self) -> str:
        told = (
            f"{self.size / 1e6:.2f} MB in {self.requests} requests, heap {self.heap / 1e6:.0f} MB, {self.nodes:,} nodes"
        )
        return f"{told}, {self.spikes:,} spikes of {self.points:,} points" if self.points else told


class Looker:
    """A tab, and what it costs."""

    def __init__(self, browser: Browser, link: str) -> None:
        state = None
        if link:
            before = browser.new_context()
            before.set_default_timeout(_WAIT)
            page = before.new_page()
            page.goto(link)
            page.wait_for_url(re.compile(r"/$"))
            state = before.storage_state()
            before.close()
        self.context = browser.new_context(
            viewport={"width": 1280, "height": 800}, reduced_motion="reduce", storage_state=state
        )
        self.context.set_default_timeout(_WAIT)
        self.page = self.context.new_page()
        self.histories: list[Response] = []
        self.requests = 0
        self.size = 0
        self._worked = 0.0
        self.page.on("response", self._answered)
        tools = self._tools = self.context.new_cdp_session(self.page)
        tools.send("Performance.enable", {"timeDomain": "threadTicks"})
        tools.send("Network.enable")
        tools.on("Network.requestWillBeSent", self._asked)
        tools.on("Network.loadingFinished", self._loaded)

    def _asked(self, event: Any) -> None:
        self.requests += not event["request"]["url"].startswith(("data:", "blob:"))

    def _loaded(self, event: Any) -> None:
        self.size += int(event["encodedDataLength"])

    def _answered(self, answer: Response) -> None:
        if re.search("metrics/curves|get-history|metric/search|metrics/get-batch|search/metric", answer.url):
            self.histories.append(answer)

    def metrics(self) -> dict[str, float]:
        """What the browser counts; the work of its main thread (`TaskDuration`) without that for who measures it."""
        found = {one["name"]: one["value"] for one in self._tools.send("Performance.getMetrics")["metrics"]}
        return found | {"TaskDuration": found["TaskDuration"] - found["DevToolsCommandDuration"]}

    def _calm(self) -> dict[str, float]:
        """What was used when the main thread has little to do any more: drawing goes on after the data came."""
        before = self.metrics()
        for _ in range(_CALM):
            self.page.wait_for_timeout(500)
            now = self.metrics()
            if now["TaskDuration"] - before["TaskDuration"] < _IDLE_SHARE * 0.5:
                break
            before = now
        return now

    def visit(self, act: Callable[[Page], object]) -> Visit:
        """Do something until it is there; the first thing with nothing in the browser's cache."""
        self.requests = self.size = 0
        self.histories.clear()
        begun = time.perf_counter()
        act(self.page)
        wall = time.perf_counter() - begun
        now = self._calm()
        cpu, self._worked = now["TaskDuration"] - self._worked, now["TaskDuration"]
        spikes = points = 0
        for answer in self.histories:
            found = _values(answer)
            points += len(found)
            spikes += sum(value > 3 for value in found)
        heap, nodes = int(now["JSHeapUsedSize"]), self.page.evaluate("document.querySelectorAll('*').length")
        return Visit(cpu, wall, self.requests, self.size, heap, nodes, spikes, points)


def _values(answer: Response) -> list[float]:
    """The values of points that an answer has: ours, or MLflow's."""
    body = answer.body()
    if "metrics/curves" in answer.url:
        length = struct.unpack_from("<I", body)[0]
        head = json.loads(body[4 : 4 + length])
        places, start = head["places"], 4 + length + 8 * head["places"]
        found = array("f", body[start : start + 4 * places * len(head["curves"])])
        return [value for value in found if value == value]
    try:
        return [float(point["value"]) for point in json.loads(body).get("metrics", ())]
    except (ValueError, TypeError):  # Aim's own format
        return []


@dataclass
class _Site:
    """A server with a page, and its visits by what was done."""

    name: str
    link: str
    found: dict[str, list[Visit]] = field(default_factory=dict)

    def note(self, what: str, visit: Visit) -> None:
        self.found.setdefault(what, []).append(visit)

    def figures(self, what: str) -> Figures | None:
        return Figures(tuple(one.cpu for one in self.found[what]), "ms") if what in self.found else None

    def told(self, what: str) -> str:
        if what not in self.found:
            return ""
        last = self.found[what][-1]
        return f"{self.name}: {last}, wall {min(one.wall for one in self.found[what]):.1f} s"


@contextmanager
def _page(settings: Settings, folder: Path) -> Iterator[str]:
    """Our page of a repository; the link to it."""
    with ui_of(folder, settings.environment()) as served:
        yield served.link


def _curves(settings: Settings) -> Path:
    """A repository with long runs, and one with many metrics."""
    kept = settings.cache / f"curves-{MANY}-{__version__}"
    if not (kept / "complete").exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        folder = repository(settings, "curves")
        repo = Repo.find(folder)
        for number in range(LONG):
            write_run(repo, number, {"loss": list(curve(number))})
        for number in range(LONG, MANY):
            write_run(repo, number, {"other": list(curve(number))[:1000]})
        write_run(repo, MANY, {f"m{number:03}": [number, number + 1.0] for number in range(WIDE)})
        seal(repo)
        repo.refresh()
        repo.close()
        shutil.move(folder, kept / "repo")
        (kept / "complete").touch()
    return kept / "repo"


def _filled(settings: Settings, library: str, python: Path, kind: str, runs: int) -> Path:
    """A peer's store."""
    kept = settings.cache / f"{library}-{kind}-{runs}"
    if not (kept / "complete").exists():
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        if library == "aim":
            subprocess.run([python.parent / "aim", "init", "-y", "-s"], cwd=kept, check=True, capture_output=True)
        script = Path(__file__).with_name("ui_peers.py")
        words = [str(python), str(script), library, str(kept), kind, str(runs)]
        done = subprocess.run(words, cwd=kept, env={**settings.environment(), "PYTHONPATH": ""}, check=True,
                              capture_output=True, text=True)  # fmt: skip
        settings.say(f"{library}: {runs} runs ({kind}) were loaded in {done.stdout.split()[-1]} s")
        (kept / "complete").touch()
    return kept


@contextmanager
def _mlflow(settings: Settings, kind: str, runs: int) -> Iterator[_Site | None]:
    if settings.peer is None:
        yield None
        return
    folder = _filled(settings, "mlflow", settings.peer, kind, runs)
    port = free_ports(1)[0]
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    words = [str(settings.peer), "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *store]
    with started(settings, words, port, "/health", folder, PYTHONPATH=""):
        yield _Site("MLflow", f"http://127.0.0.1:{port}")


@contextmanager
def _aim(settings: Settings, kind: str, runs: int) -> Iterator[_Site | None]:
    if settings.aim is None:
        yield None
        return
    folder = _filled(settings, "aim", settings.aim, kind, runs)
    port = free_ports(1)[0]
    words = [str(settings.aim.parent / "aim"), "up", "--repo", str(folder), "--port", str(port)]
    path = {"PYTHONPATH": "", "AIM_UI_TELEMETRY_ENABLED": "0"}
    with started(settings, words, port, "/", folder, **path):
        yield _Site("Aim", f"http://127.0.0.1:{port}")


def ui(settings: Settings) -> list[Row]:
    """Tables, curves, what a page does when nothing happens; then what only ours shows."""
    rows: list[Row] = []
    expect.set_options(timeout=_WAIT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for runs in [settings.size(1000, 100), settings.size(10_000, 200)]:
            rows += _tables(settings, browser, runs)
        rows += _long(settings, browser)
        rows += _ours_alone(settings, browser)
        browser.close()
    return rows


def _row(work: str, sites: list[_Site], what: str, aim: str = "") -> Row:
    ours, peers = sites[0], {one.name: one for one in sites[1:]}
    figures = ours.figures(what)
    assert figures is not None
    aims = peers["Aim"].figures(what) if "Aim" in peers else None
    note = "<br>".join(filter(None, (one.told(what) for one in sites)))
    peer = peers["MLflow"].figures(what) if "MLflow" in peers else None
    return Row(f"Page: {work}, CPU of its main thread", figures, aims, "Aim's page" if aims else "", aim, peer, note)


def _tables(settings: Settings, browser: Browser, runs: int) -> list[Row]:
    """The first table that is of use; sorted; filtered; and then nothing for a minute."""
    with ExitStack() as stack:
        sites = [_Site("ours", stack.enter_context(_page(settings, populated(settings, runs))))]
        mlflow = stack.enter_context(_mlflow(settings, "small", runs))
        aim = stack.enter_context(_aim(settings, "small", runs))
        sites += [one for one in (mlflow, aim) if one is not None]
        for _ in range(settings.rounds):
            for site in sites:
                looker = Looker(browser, site.link if site.name == "ours" else "")
                for what, act in _STEPS[site.name].items():
                    base = site.link.partition("/login")[0]
                    try:
                        site.note(what, looker.visit(lambda page, act=act, base=base: act(page, base)))  # type: ignore[misc]
                    except Exception as error:
                        if site.name == "ours":
                            raise
                        settings.say(f"{site.name} failed at {what!r}: {str(error).splitlines()[0]}")
                        break  # each step goes on from the one before
                looker.context.close()
        if aim is not None:
            settings.say("Aim sorts in its metrics explorer alone: of the runs that it has indexed by then")
        rows = [
            _row(f"{runs:,} runs, the first rows", sites, "table", "≤ 300 ms at 10,000"),
            _row(f"{runs:,} runs, sorted by a metric", sites, "sort", "≤ 150 ms at 10,000"),
            _row(f"{runs:,} runs, filtered", sites, "filter"),
        ]
        if runs == settings.size(1000, 100):
            rows.append(_idle(settings, browser, sites))
    return rows


def _ours_table(page: Page, base: str) -> None:
    page.goto(base)
    expect(page.locator("[role=row] [role=gridcell] a").first).to_be_visible()


def _ours_sort(page: Page, base: str) -> None:
    header = page.get_by_role("columnheader", name="acc").first
    header.scroll_into_view_if_needed()
    header.get_by_role("button").first.click()
    expect(header).to_have_attribute("aria-sort", "descending")


def _ours_filter(page: Page, base: str) -> None:
    page.keyboard.press("/")
    page.keyboard.type("params.optimizer = 'adam-3'")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("filter="))
    page.wait_for_load_state("networkidle")


_PEERS_ROW: Final = re.compile(r"^run-\d+$")


def _mlflow_at(**settings: str) -> Callable[[Page, str], None]:
    query = "&".join(f"{name}={value}" for name, value in settings.items())

    def act(page: Page, base: str) -> None:
        address = f"{base}/#/experiments/1/runs?{query}"
        with page.expect_response(re.compile("runs/search")):
            page.goto(address)
        expect(page.get_by_text(_PEERS_ROW).first).to_be_visible()

    return act


def _aim_table(page: Page, base: str) -> None:
    page.goto(f"{base}/runs")
    expect(page.get_by_text(_PEERS_ROW).first).to_be_visible()


def _aim_explorer(page: Page, base: str, metric: str = "acc") -> None:
    """The explorer of metrics, with the one that there is of that name; the only place where Aim sorts."""
    page.goto(f"{base}/metrics")
    page.get_by_role("button", name="Metrics").first.click()
    page.get_by_text(metric, exact=True).last.click()  # the first one may be the heading of its group
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Search").first.click()
    expect(page.locator("button", has_text="Sort").first).to_be_visible()
    skip = page.get_by_role("button", name="Skip")  # an invitation, in front of the table
    if skip.is_visible():
        skip.click()


def _aim_sortable(page: Page, base: str) -> None:
    """What has to be there before something can be sorted: the rows of the group of all."""
    _aim_explorer(page, base)
    page.locator(".Table__group__config_expandButton").first.click()
    expect(page.get_by_text(_PEERS_ROW).first).to_be_visible()


def _aim_sort(page: Page, base: str) -> None:
    before = page.get_by_text(_PEERS_ROW).first.inner_text()
    page.locator("button", has_text="Sort").first.click()
    page.get_by_placeholder("Select Fields").click()
    page.get_by_role("option", name="metric.values.last").click()
    expect(page.get_by_text(_PEERS_ROW).first).not_to_have_text(before)


def _aim_filter(page: Page, base: str) -> None:
    page.locator(".monaco-editor").first.click()
    page.keyboard.type('run.hparams.optimizer == "adam-3"')
    with page.expect_response(re.compile("search/run")):
        page.get_by_role("button", name="Search").first.click()
    expect(page.get_by_text(_PEERS_ROW).first).to_be_visible()


_STEPS: Final[dict[str, dict[str, Callable[[Page, str], None]]]] = {
    "ours": {"table": _ours_table, "sort": _ours_sort, "filter": _ours_filter},
    "MLflow": {
        "table": _mlflow_at(),
        "sort": _mlflow_at(orderByKey="metrics.%60acc%60", orderByAsc="false"),
        "filter": _mlflow_at(searchFilter="params.optimizer%20%3D%20%27adam-3%27"),
    },
    "Aim": {"table": _aim_table, "filter": _aim_filter, "before it sorts": _aim_sortable, "sort": _aim_sort},
}


def _idle(settings: Settings, browser: Browser, sites: list[_Site]) -> Row:
    """What is asked while nothing happens and the page is looked at."""
    lookers = []
    for site in sites:
        looker = Looker(browser, site.link if site.name == "ours" else "")
        _STEPS[site.name]["table"](looker.page, site.link.partition("/login")[0])
        looker.page.wait_for_timeout(3000)
        looker.requests = looker.size = 0
        lookers.append((site, looker, looker.metrics()["TaskDuration"]))
    seconds = 5.0 if settings.quick else IDLE
    lookers[0][1].page.wait_for_timeout(seconds * 1000)
    for site, looker, before in lookers:
        cpu = looker.metrics()["TaskDuration"] - before
        site.note("idle", Visit(cpu, seconds, looker.requests, looker.size, 0, 0))
        looker.context.close()
    return _row(f"nothing happens for {seconds:.0f} s", sites, "idle", "0 requests")


def _long(settings: Settings, browser: Browser) -> list[Row]:
    """Long runs in one chart, and a part of it."""
    folder = _curves(settings)
    repo = Repo.find(folder)
    ids = [run.info.run_id for run in repo.index.get_runs(_ids(repo))][:LONG]
    repo.close()
    with ExitStack() as stack:
        sites = [_Site("ours", stack.enter_context(_page(settings, folder)))]
        mlflow = stack.enter_context(_mlflow(settings, "curves", LONG))
        aim = stack.enter_context(_aim(settings, "curves", LONG))
        sites += [one for one in (mlflow, aim) if one is not None]
        for _ in range(settings.rounds):
            looker = Looker(browser, sites[0].link)
            base = sites[0].link.partition("/login")[0]
            sites[0].note("long", looker.visit(lambda page, at=base: _compare(page, at, ids)))  # type: ignore[misc]
            sites[0].note("zoom", looker.visit(_zoom))
            looker.context.close()
            looker = Looker(browser, sites[0].link)
            sites[0].note("view", looker.visit(lambda page, at=base: _view(page, at)))  # type: ignore[misc]
            looker.context.close()
        for site in sites[1:]:
            for visits in _LONG_STEPS[site.name]:  # once: it takes minutes
                looker = Looker(browser, "")
                for what, act in visits.items():
                    try:
                        site.note(what, looker.visit(lambda page, at=site.link, act=act: act(page, at)))  # type: ignore[misc]
                    except Exception as error:  # noqa: BLE001 - as above
                        settings.say(f"{site.name} failed at {what!r} of long runs: {str(error).splitlines()[0]}")
                        break
                    if what == "long" and site.name == "Aim":
                        settings.say(f"Aim draws {_aim_drawn(looker.page)}")
                looker.context.close()
        spikes = LONG * POINTS // SPIKE
        return [
            _row(f"{LONG} runs of {POINTS:,} points in one chart ({spikes:,} spikes)", sites, "long", "≤ 250 ms"),
            _row("a twentieth of it; with us at full detail", sites, "zoom"),
            _row("the charts beside the table, of as many runs as there are by themselves", sites, "view"),
        ]


def _ids(repo: Repo, first: int = 0, end: int = LONG) -> list[str]:
    repo.refresh()
    every = {one.info.run_name: one.info.run_id for one in repo.index.get_runs(repo.all_run_ids())}
    return [every[f"run-{number}"] for number in range(first, end)]


def _compare(page: Page, base: str, ids: list[str]) -> None:
    page.goto(f"{base}/compare?runs={','.join(ids)}&tab=charts")
    chart = page.get_by_role("img", name=re.compile(f": {len(ids)} "))
    chart.first.scroll_into_view_if_needed()
    expect(chart.first.locator("canvas").first).to_be_visible()
    page.wait_for_load_state("networkidle")


def _view(page: Page, base: str) -> None:
    page.goto(f"{base}/?view=charts&filter=metrics.loss%20%3E%20-1")
    expect(page.get_by_role("img", name=re.compile("^loss: ")).locator("canvas").first).to_be_visible()
    page.wait_for_load_state("networkidle")


def _zoom(page: Page) -> None:
    with page.expect_response(re.compile("low=")):
        _drag(page, page.get_by_role("img", name=re.compile("loss")).first)


def _drag(page: Page, chart: Locator) -> None:
    """A twentieth of a chart's width."""
    box = chart.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.45, box["y"] + 80, steps=3)
    page.mouse.up()


def _quiet(page: Page, part: str) -> None:
    """Nothing of that kind was asked for three seconds."""
    last = time.monotonic()

    def seen(answer: Response) -> None:
        nonlocal last
        if part in answer.url:
            last = time.monotonic()

    page.on("response", seen)
    deadline = last + _WAIT / 1000
    while time.monotonic() < min(last + 5, deadline):
        page.wait_for_timeout(250)
    page.remove_listener("response", seen)


def _mlflow_long(page: Page, base: str) -> None:
    """The page of one metric of all runs."""
    answer = page.request.post(
        f"{base}/api/2.0/mlflow/runs/search", data={"experiment_ids": ["1"], "max_results": LONG}
    )
    ids = json.dumps([run["info"]["run_id"] for run in answer.json()["runs"]], separators=(",", ":"))
    query = f"runs={ids}&metric=%22loss%22&experiments=[%221%22]&plot_metric_keys=[%22loss%22]"
    with page.expect_response(re.compile("get-history")):
        page.goto(f"{base}/#/metric?{query}")
    expect(page.locator(".main-svg").first).to_be_visible()
    _quiet(page, "get-history")


def _aim_long(page: Page, base: str) -> None:
    _aim_explorer(page, base, "loss")
    expect(page.locator("svg path.Line").first).to_be_visible()


def _aim_zoom(page: Page, base: str) -> None:
    line = page.locator("svg path.Line").first
    before = line.get_attribute("d") or ""
    page.get_by_title("Zoom in").click()
    _drag(page, page.locator("svg", has=page.locator("path.Line")).last)
    expect(line).not_to_have_attribute("d", before)


def _aim_drawn(page: Page) -> str:
    """What there is in Aim's chart."""
    found = page.evaluate(_DRAWN)
    return f"{found['lines']} lines of {found['points']:,} points, {found['spikes']:,} of them spikes"


def _mlflow_view(page: Page, base: str) -> None:
    """The charts beside the table: of ten runs, of 320 points each."""
    with page.expect_response(re.compile("get-history")):
        page.goto(f"{base}/#/experiments/1/runs?compareRunsMode=CHART")
    expect(page.locator(".main-svg").first).to_be_visible()


#: By peer, what is done one after the other in a tab.  MLflow's page (3.17) is not zoomed: it did not take the mouse's
#: going up in a quarter of an hour, at 100 % of a core, and there is no way to stop waiting for that.
_LONG_STEPS: Final[dict[str, list[dict[str, Callable[[Page, str], None]]]]] = {
    "MLflow": [{"long": _mlflow_long}, {"view": _mlflow_view}],
    "Aim": [{"long": _aim_long, "zoom": _aim_zoom}],
}


def _ours_alone(settings: Settings, browser: Browser) -> list[Row]:
    """Very many runs, very many lines, very many charts."""
    runs = settings.size(100_000, 300)
    site = _Site("ours", "")
    folder = _curves(settings)
    repo = Repo.find(folder)
    (wide,) = _ids(repo, MANY, MANY + 1)
    repo.close()
    with _page(settings, populated(settings, runs)) as link:
        base = link.partition("/login")[0]
        for _ in range(settings.rounds):
            looker = Looker(browser, link)
            for what, act in _STEPS["ours"].items():
                site.note(what, looker.visit(lambda page, act=act: act(page, base)))  # type: ignore[misc]
            looker.context.close()
    with _page(settings, folder) as link:
        base = link.partition("/login")[0]
        for _ in range(settings.rounds):
            looker = Looker(browser, link)
            site.note("lines", looker.visit(lambda page: _lines(page, base)))
            looker.context.close()
            looker = Looker(browser, link)
            site.note("charts", looker.visit(lambda page: _wide(page, base, wide)))
            canvases = looker.page.locator("canvas").count()
            looker.context.close()
    settings.say(f"of {WIDE} charts {canvases} were made")
    return [
        _row(f"{runs:,} runs, the first rows", [site], "table"),
        _row(f"{runs:,} runs, sorted by the server", [site], "sort"),
        _row(f"{runs:,} runs, filtered by the server", [site], "filter"),
        _row(f"{MANY - LONG} lines of 1,000 points in one chart", [site], "lines"),
        _row(f"a run with {WIDE} metrics", [site], "charts", "only charts in view"),
    ]


def _lines(page: Page, base: str) -> None:
    """The table's charts, of all runs that have the metric."""
    page.goto(f"{base}/?view=charts&lines={MANY - LONG}&filter=metrics.other%20%3E%20-1")
    expect(page.get_by_role("img", name=f"other: {MANY - LONG} ").locator("canvas").first).to_be_visible()
    page.wait_for_load_state("networkidle")


def _wide(page: Page, base: str, run_id: str) -> None:
    page.goto(f"{base}/runs/{run_id}?tab=metrics")
    page.locator("section.chart").first.scroll_into_view_if_needed()
    expect(page.locator("canvas").first).to_be_visible()
    page.wait_for_load_state("networkidle")


# --- a training that is looked at


def ui_live(settings: Settings) -> list[Row]:
    """A training that logs a thousand points a second, alone, with our server, and with eight tabs at its run."""
    seconds = 3.0 if settings.quick else 20.0
    folder = repository(settings, "live")
    found: dict[str, list[tuple[float, float]]] = {"alone": [], "tabs": []}
    with sync_playwright() as playwright, _page(settings, folder) as link:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(settings.rounds):
            for tabs in (0, TABS):
                found["tabs" if tabs else "alone"].append(_trained(settings, browser, link, folder, tabs, seconds))
        browser.close()
    calls = {name: Figures(tuple(call for call, _ in values), "us") for name, values in found.items()}
    shares = {name: Figures(tuple(cpu for _, cpu in values), "ms") for name, values in found.items()}
    return [
        Row(f"Page: CPU of a call that logs a point, {TABS} tabs looking at {RATE:,} points/s", calls["tabs"],
            calls["alone"], "without tabs", "1×"),
        Row(f"Page: CPU of the training in a second, {TABS} tabs looking", shares["tabs"], shares["alone"],
            "without tabs", "1×"),
    ]  # fmt: skip


def _trained(
    settings: Settings, browser: Browser, link: str, folder: Path, tabs: int, seconds: float
) -> tuple[float, float]:
    """CPU seconds of a call, and of the process in a second."""
    words = [sys.executable, "-c", TRAINING, str(RATE), str(seconds)]
    with subprocess.Popen(
        words, cwd=folder, env=settings.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as training:
        assert training.stdin is not None
        assert training.stdout is not None
        run_id = training.stdout.readline().strip()
        with ExitStack() as stack:
            page = None
            if tabs:
                looker = Looker(browser, link)
                stack.callback(looker.context.close)
                page = looker.page
                page.goto(f"{link.partition('/login')[0]}/runs/{run_id}")
                for _ in range(tabs - 1):
                    other = looker.context.new_page()
                    other.goto(page.url)
                page.wait_for_timeout(1500)
            training.stdin.write("\n")
            training.stdin.flush()
            if page is not None:
                page.wait_for_timeout(seconds * 1000)
                shown = page.get_by_text(re.compile("^step [1-9]")).count()
                assert shown or "tab" in page.url, "the page does not move on"
            calls, cost, cpu = map(float, training.stdout.readline().split())
        assert calls >= 0.95 * RATE * seconds, f"{calls:.0f} points in {seconds:.0f} s"
    return cost / calls, cpu / seconds
