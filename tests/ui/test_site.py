"""`gittrack export site`: the page without a server, from a plain web server, below an address that is not its root."""

import contextlib
import gzip
import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from gittrack.client import PARENT_RUN_TAG
from gittrack.errors import AlreadyExistsError
from gittrack.server.hub import site
from gittrack.store.repo import Repo
from gittrack.track.reproduce import REPRODUCES_TAG
from gittrack.track.runs import Tracker
from tests.ui import recorded
from tests.ui.conftest import SIZES, Watched
from tests.ui.sound import sound

#: In everything that was not chosen.
OTHER = "marker-of-another"
LONG = 3000
SPIKES = range(37, LONG, 499)
BELOW = "/some/where"


@dataclass
class Store:
    """A repository, the runs that are exported, and one that is not."""

    folder: Path
    committed: str
    changed: str
    third: str
    evil: str
    long: str
    other: str

    @property
    def chosen(self) -> list[str]:
        return [self.committed, self.changed, self.third, self.evil, self.long]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    committed, changed, third, evil = recorded.seed(folder)
    values = [step / LONG + (50.0 if step in SPIKES else 0.0) for step in range(LONG)]
    params = {f"w{number:03}": str(number) for number in range(150)}
    long = recorded.record(
        folder, "long", number=3, metrics={"loss": values}, params=params, tags={PARENT_RUN_TAG: committed}
    )
    (folder / f"{OTHER}.py").write_text(f"{OTHER} = 1\n")
    other = recorded.record(
        folder, OTHER, number=4, params={f"a-{OTHER}": OTHER}, metrics={f"a-{OTHER}": [1.0]},
        files={f"{OTHER}.txt": OTHER.encode()}, tags={f"a-{OTHER}": OTHER, PARENT_RUN_TAG: committed},
    )  # fmt: skip
    with opened(folder) as tracker:
        tracker.set_experiment_tags("0", {"gittrack.view.mine": f"filter=params.a-{OTHER}"})
        elsewhere = tracker.create_run(tracker.create_experiment(OTHER), name=OTHER)
        elsewhere.set_tags({REPRODUCES_TAG: committed})
        elsewhere.end("FINISHED")
    return Store(folder, committed, changed, third, evil, long, other)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Tracker]:
    tracker = Tracker(Repo.find(folder), strict=True)
    try:
        yield tracker
    finally:
        tracker.close()


def export(store: Store, target: Path, **options: Any) -> site.Report:
    with opened(store.folder) as tracker:
        return site.export(tracker, store.chosen, target, site.Options(**options))


@dataclass
class Hosted:
    """A site, and where a web server has it."""

    folder: Path
    url: str
    report: site.Report


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def copyfile(self, source: Any, outputfile: Any) -> None:
        with contextlib.suppress(ConnectionError):  # the browser wants it no more
            super().copyfile(source, outputfile)


@pytest.fixture(scope="module")
def hosted(browser: Browser, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    root = tmp_path_factory.mktemp("host")
    folder = root / BELOW[1:]
    report = export(store, folder, max_artifact=recorded.LARGE - 1)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Hosted(folder, f"http://127.0.0.1:{server.server_port}{BELOW}", report)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def visited(browser: Browser, hosted: Hosted, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A page of the site; whatever is said on the console, asked of another machine or let in is a failure."""
    theme: Literal["light", "dark"]
    size, theme = getattr(request, "param", (SIZES[1], "light"))
    context = browser.new_context(viewport=size, color_scheme=theme, reduced_motion="reduce", accept_downloads=True)
    found = Watched(context.new_page(), hosted.url)
    yield found
    attacked = found.page.evaluate("() => window.attacked === 1")
    context.close()
    assert not attacked
    assert found.wrong == []


def tab(visited: Watched, run_id: str, name: str) -> Page:
    page = visited.open(f"/#/runs/{run_id}?tab={name}")
    page.reload()  # what is behind a `#` loads no page
    return page


def preview(visited: Watched, run_id: str, path: str) -> Locator:
    return tab(visited, run_id, f"artifacts&path={path}").get_by_label(f"Preview of {path.rpartition('/')[2]}")


def test_the_table(visited: Watched, store: Store) -> None:
    page = visited.open("/")
    expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", "6")
    expect(page.get_by_role("row").nth(1)).to_contain_text("long")
    page.get_by_role("button", name="acc").click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("changed")
    page.get_by_role("button", name="acc").click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("committed")
    bar = page.get_by_role("combobox", name="Filter")
    bar.fill("metrics.loss.min < 0.6 AND NOT params.lr IS NULL")
    bar.press("Enter")
    expect(page.get_by_role("grid")).to_have_attribute("aria-rowcount", "2")
    expect(page.get_by_role("row").nth(1)).to_contain_text("changed")
    bar.fill("params.lr ~ 0.3")
    bar.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("At column 11")
    bar.fill("")
    bar.press("Enter")
    page.set_viewport_size({"width": 2400, "height": 900})  # every column is in view
    page.get_by_role("button", name="Sparklines").click()
    expect(page.locator("svg path")).to_have_count(4)  # `loss` of three, and `system/cpu`
    assert page.locator("svg path").first.evaluate("path => path.getTotalLength()") > 40
    for name in ("Edit", "Views", "Models", "Settings"):
        expect(page.get_by_role("button", name=name).or_(page.get_by_role("link", name=name))).to_have_count(0)
    page.get_by_role("link", name="committed").click(modifiers=["ControlOrMeta"])  # as a link it is whole
    page.get_by_role("link", name="committed").click()
    expect(page.get_by_role("heading", name="committed")).to_be_visible()
    assert page.url == f"{visited.url}/#/runs/{store.committed}"
    page.go_back()
    expect(page.get_by_role("grid")).to_be_visible()


def test_any_key_is_found_as_a_column(visited: Watched, store: Store) -> None:
    page = visited.open("/")
    page.get_by_role("button", name="Columns").click()
    params = page.get_by_role("group", name="Parameters")
    expect(params).to_contain_text("more: find them by their names.")
    page.get_by_role("searchbox", name="Find columns").fill("W14")
    params.get_by_role("checkbox", name="w149").check()
    params.get_by_role("button", name="pin w149").click()
    expect(page.get_by_role("gridcell", name="149")).to_be_visible()


def test_a_page_is_at_its_address(visited: Watched, store: Store) -> None:
    page = tab(visited, store.changed, "environment")
    expect(page.get_by_role("table", name="packages")).to_contain_text("orjson")
    page.get_by_role("link", name="Skip to the content").press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.url.endswith("?tab=environment")
    visited.open("/#/runs/" + "0" * 32)
    expect(page.get_by_role("alert")).to_contain_text("was not found")
    visited.open("/#/models")
    expect(page.get_by_role("heading", name="There is nothing at this address")).to_be_visible()


def test_a_run(visited: Watched, store: Store) -> None:
    page = tab(visited, store.changed, "overview")
    expect(page.get_by_role("table", name="metrics").get_by_role("row", name="loss 0.5 step 1")).to_be_visible()
    expect(page.locator(".note").get_by_role("listitem")).to_have_count(2)
    expect(page.get_by_role("button", name=re.compile("note|tag|Rename|Delete"))).to_have_count(0)
    page.get_by_role("link", name="with uncommitted changes").click()
    expect(page.get_by_role("region", name="Changes of train.py")).to_contain_text("lr = 0.2")
    expect(page.get_by_text("only what was not committed")).to_be_visible()
    tab(visited, store.committed, "lineage")
    expect(page.get_by_role("heading", name="Runs in it")).to_be_visible()
    expect(page.get_by_role("link", name="long")).to_have_attribute("href", f"#/runs/{store.long}")
    expect(page.get_by_text(OTHER)).to_have_count(0)
    tab(visited, store.changed, "logs")
    expect(page.locator("pre")).to_contain_text("done")
    expect(page.locator("pre")).to_contain_text(f"step {recorded.LINES - 1}")


def test_charts_keep_every_spike(visited: Watched, store: Store) -> None:
    page = visited.open(f"/#/compare?runs={store.committed},{store.long}&tab=charts&metric=loss")
    chart = page.get_by_role("img", name=re.compile("loss: 2 curves"))
    expect(chart).to_have_accessible_name(f"loss: 2 curves, {LONG + 3} points")
    with page.expect_download() as waiting:
        page.get_by_label("Save loss").click()
        expect(page.get_by_role("link", name="CSV")).to_have_count(0)
        page.get_by_role("button", name="SVG").click()
    drawing = Path(waiting.value.path()).read_text()
    paths = re.findall(r' d="([^"]+)"', drawing)
    longest = max(paths, key=len)
    heights = [float(point.split(",")[1]) for point in re.split("[ML ]+", longest) if point]
    middle = (min(heights) + max(heights)) / 2
    assert sum(height < middle for height in heights) == len(SPIKES)
    visited.open(f"/#/compare?runs={store.committed},{store.long}&tab=charts&metric=loss&smoothing=0.9&zoom=0:100")
    expect(page.get_by_role("img", name="loss: 2 curves, 104 points")).to_be_visible()
    visited.open("/#/?view=charts&group=params.epochs&metric=loss&axis=relative")
    expect(page.get_by_role("img", name=re.compile("loss: 2 curves"))).to_be_visible()


def test_runs_beside_each_other(visited: Watched, store: Store) -> None:
    page = visited.open(f"/#/compare?runs={store.committed},{store.changed},{store.third},{'0' * 32}")
    expect(page.get_by_role("row", name=re.compile("^lr"))).to_contain_text("0.1")
    expect(page.get_by_role("row", name=re.compile("^extra"))).to_be_visible()
    expect(page.get_by_text("1 of the runs was not found")).to_be_visible()
    expect(page.get_by_role("link", name="Code", exact=True)).to_have_count(0)
    page.get_by_role("link", name="Images").click()
    pictures = page.get_by_role("region", name="plots/curve.png").get_by_role("img")
    expect(pictures).to_have_count(2)
    expect(pictures.nth(1)).to_have_js_property("naturalWidth", 16)
    page.get_by_role("link", name="Environment").click()
    expect(page.get_by_role("row", name=re.compile("CUDA_VISIBLE_DEVICES"))).to_be_visible()
    page.get_by_role("link", name="Metrics").click()
    expect(page.get_by_role("row", name=re.compile("^loss"))).to_be_visible()


def test_files(visited: Watched, store: Store, hosted: Hosted) -> None:
    run = store.changed
    expect(preview(visited, run, "scores.csv").get_by_role("row").nth(1)).to_have_text(re.compile(r"a, b\s*0\.5"))
    expect(preview(visited, run, "scores.parquet").get_by_role("row").nth(1)).to_have_text(re.compile(r"0\.5\s*a, b"))
    expect(preview(visited, run, "conf/deep/er/config.json")).to_contain_text("layers [3]")
    expect(preview(visited, run, "README.md").get_by_role("heading", name="Title")).to_be_visible()
    for path in ("plots/curve.png", "figure.svg"):
        picture = preview(visited, run, path).get_by_role("img")
        expect(picture).to_be_visible()
        assert picture.evaluate("(one) => one.decode().then(() => one.naturalWidth)"), path
    expect(preview(visited, run, "sound.wav").locator("audio")).to_have_js_property("duration", 0.5)
    large = preview(visited, run, "large.txt")
    expect(large).to_contain_text("This file is not in this copy.")
    expect(large.get_by_role("link")).to_have_count(0)
    assert hosted.report.too_large == 1
    document = preview(visited, run, "report.html")
    expect(document.locator("iframe")).to_have_count(0)
    with visited.page.expect_download() as waiting:
        document.get_by_role("link", name="download").click()
    assert waiting.value.suggested_filename == "report.html"
    assert Path(waiting.value.path()).read_bytes() == recorded.FILES["report.html"]


def test_what_a_run_says_is_never_taken_for_ours(visited: Watched, store: Store, hosted: Hosted) -> None:
    page = tab(visited, store.evil, "overview")
    expect(page.get_by_role("heading", name="onerror").first).to_be_visible()
    for name in ("a.svg", "a.md", "a.json", "escape.html"):
        expect(preview(visited, store.evil, name)).to_be_visible()
        page.wait_for_load_state("networkidle")
    tab(visited, store.evil, "code")
    page.get_by_role("button", name="__proto__").click()
    expect(page.get_by_role("region", name=re.compile("Changes of")).first).to_be_visible()
    names = {path.name for path in hosted.folder.rglob("*") if path.is_file() and "page" not in path.parts}
    hashed = re.compile(r"[0-9a-f]{32}\.(json|bin)|[0-9a-f]{64}\.(bin|png|wav)")
    assert {one for one in names if not hashed.fullmatch(one)} == {"index.html", "index.json", ".nojekyll"}


@pytest.mark.parametrize("visited", [(SIZES[0], "dark")], indirect=True, ids=["360 dark"])
def test_it_is_accessible_and_fits(visited: Watched, store: Store) -> None:
    page = visited.page
    for path in ("/", f"/#/runs/{store.changed}?tab=code", f"/#/compare?runs={store.committed},{store.changed}"):
        visited.open(path)
        page.wait_for_load_state("networkidle")
        sound(visited, path)


def test_from_a_folder_it_says_what_it_needs(browser: Browser, hosted: Hosted) -> None:
    page = browser.new_page()
    page.goto(f"file://{hosted.folder}/index.html")
    expect(page.get_by_text("This page has to come from a web server")).to_be_visible(timeout=15_000)
    page.close()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_runs_give_the_same_bytes_and_nothing_of_others(hosted: Hosted, store: Store, tmp_path: Path) -> None:
    again = tmp_path / "again"
    report = export(store, again, max_artifact=recorded.LARGE - 1)
    written = content(again)
    assert written == content(hosted.folder)
    assert report == hosted.report
    assert report.files == len(written)
    assert report.size == sum(map(len, written.values()))
    for name, data in written.items():
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        assert OTHER.encode() not in plain, name
        assert store.other.encode() not in plain, name
    index = json.loads(written["data/index.json"])
    assert set(index["runs"]) == set(store.chosen)
    assert OTHER not in str(index["columns"]["keys"])


def test_a_folder_with_something_else_in_it_stays(hosted: Hosted, store: Store, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    link = tmp_path / "link"
    link.symlink_to(mine)
    for target in (mine, link, mine / "thesis.tex"):
        with pytest.raises(AlreadyExistsError):
            export(store, target)
    assert content(mine) == {"thesis.tex": b"x"}
    old = tmp_path / "old"
    shutil.copytree(hosted.folder, old)
    (old / ".git").write_text("gitdir: elsewhere")  # a worktree of its own
    with pytest.raises(AlreadyExistsError, match=r"\.git"):
        export(store, old)
    (old / ".git").unlink()
    export(store, old, max_artifact=0, code=False)
    assert not content(old / "files")
    assert b"lr = 0.2" not in b"".join(content(old / "data").values())
    assert {one.name for one in tmp_path.iterdir()} == {"mine", "link", "old"}
