"""Every page: what it shows, with mouse and keyboard, in both themes, at three sizes, with nothing from outside."""

from __future__ import annotations

import csv
import json
import re
import struct
from array import array
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.ui.conftest import ATTACK, SPIKES, STEPS, Served, Watched
from tests.ui.sound import sound


def rows(page: Page) -> list[str]:
    """The names of the runs, from the top."""
    expect(page.get_by_role("grid")).to_be_visible()
    return [name.strip() for name in page.locator("[role=row] [role=gridcell] a").all_inner_texts()]


def pages_of(served: Served) -> list[str]:
    first, second = served.runs[:2]
    return [
        "/",
        "/?view=charts&smoothing=0.6",
        "/?filter=metrics.acc%20%3E%20nonsense",
        f"/runs/{first}",
        f"/runs/{served.evil}",
        f"/compare?runs={first},{second}",
        "/models",
        "/models/resnet",
    ]


def settled(watched: Watched, path: str) -> Page:
    """A page that has come to rest."""
    page = watched.open(path)
    expect(page.locator("h1")).to_be_attached()
    page.wait_for_load_state("networkidle")
    if "nonsense" in path:
        expect(page.get_by_role("alert")).to_contain_text("nonsense")
        watched.wrong = [one for one in watched.wrong if "400" not in one]
    return page


def test_every_page_is_accessible_and_fits(watched: Watched, served: Served) -> None:
    for path in pages_of(served):
        settled(watched, path)
        sound(watched, path)


def test_the_table_sorts_and_says_so(watched: Watched, served: Served) -> None:
    page = watched.open(f"/?experiment={served.experiment}")
    assert rows(page)[:2] == ["run-6", "run-5"]
    page.get_by_role("columnheader", name="acc").get_by_role("button").click()
    assert rows(page)[:2] == ["run-6", "run-5"]
    expect(page.get_by_role("columnheader", name="acc")).to_have_attribute("aria-sort", "descending")
    page.get_by_role("columnheader", name="acc").get_by_role("button").click()
    assert rows(page)[0] == "run-0"
    assert rows(page)[-1] == ATTACK  # NaN is last either way
    assert "sort=metrics.acc:asc" in page.url
    page.reload()
    assert rows(page)[0] == "run-0"


def test_a_filter_is_the_servers_and_stays_in_the_address(watched: Watched, served: Served) -> None:
    page = watched.open(f"/?experiment={served.experiment}")
    expect(page.get_by_text("8 runs")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("metrics.acc > 0.45 and params.epochs = '30'")
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 runs")).to_be_visible()
    assert rows(page) == ["run-6", "run-5"]
    page.go_back()
    expect(page.get_by_text("8 runs")).to_be_visible()
    page.go_forward()
    expect(page.get_by_text("2 runs")).to_be_visible()
    watched.open("/?filter=params.lr = 'never'")
    expect(page.get_by_text("No run meets this filter.")).to_be_visible()


def test_with_the_keyboard_alone(watched: Watched, served: Served) -> None:
    page = watched.open(f"/?experiment={served.experiment}")
    expect(page.get_by_role("grid")).to_be_visible()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "grid":
            break
    page.keyboard.press("x")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.get_by_role("button", name="Compare 2")).to_be_enabled()
    page.keyboard.press("c")
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare 2 runs")
    page.go_back()
    page.get_by_role("grid").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("run-6")


def test_what_differs_and_chosen_columns(watched: Watched, served: Served) -> None:
    page = watched.open(f"/?experiment={served.experiment}")
    expect(page.get_by_role("columnheader", name="epochs")).to_be_visible()
    page.get_by_role("button", name="Columns").click()
    page.get_by_role("checkbox", name="epochs").uncheck()
    expect(page.get_by_role("columnheader", name="epochs")).to_have_count(0)
    expect(page.get_by_role("columnheader", name="lr")).to_be_visible()
    watched.open(f"/?experiment={served.experiment}&diff=1&filter=metrics.acc > -1")
    expect(page.get_by_role("columnheader", name="lr")).to_be_visible()
    expect(page.get_by_role("columnheader", name="epochs")).to_have_count(0)


def test_csv_has_what_is_shown(watched: Watched, served: Served, tmp_path: Path) -> None:
    page = watched.open(f"/?experiment={served.experiment}&sort=metrics.acc:asc")
    expect(page.get_by_role("grid")).to_be_visible()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV").click()
    waiting.value.save_as(tmp_path / "runs.csv")
    with (tmp_path / "runs.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["run_name"] for row in table][:2] == ["run-0", "run-1"]
    assert (table[1]["metrics.acc"], table[1]["params.lr"]) == ("0.1", "0.1")
    assert table[-1]["params.lr"] == ATTACK


def curve(body: bytes, key: str) -> array[float]:
    """The curve of a metric, of all charts that the server sends."""
    start, found = 0, {}
    while start < len(body):
        (length,) = struct.unpack_from("<I", body, start)
        head = json.loads(body[start + 4 : start + 4 + length])
        places = head["places"]
        start += 4 + length + 8 * places
        found[head["curves"][0]["key"]] = array("f", body[start : start + 4 * places])
        start += (4 * places + 7) // 8 * 8
    return found[key]


def test_charts_keep_every_spike_and_show_more_of_what_is_zoomed_into(watched: Watched, served: Served) -> None:
    page = watched.page
    with page.expect_response(re.compile("curves.*train")) as waiting:
        watched.open(f"/runs/{served.runs[0]}?tab=metrics")
        page.get_by_role("region", name="train/loss").scroll_into_view_if_needed()
    values = curve(waiting.value.body(), "train/loss")
    assert len(values) < STEPS
    assert sum(value > 50 for value in values) == len(SPIKES)
    chart = page.get_by_role("img", name="train/loss: 1 curves, 3000 points")
    expect(chart.locator("canvas")).to_be_visible()
    expect(page.get_by_role("list", name="train/loss")).to_contain_text("3000 points")
    box = chart.bounding_box()
    assert box is not None
    with page.expect_response(re.compile("low=")) as zoomed:
        page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 80, steps=4)
        page.mouse.up()
    assert len(curve(zoomed.value.body(), "train/loss")) < STEPS / 4  # every point of the part
    assert "zoom=" in page.url
    page.get_by_role("button", name="All of it").click()
    expect(chart).to_be_visible()


def test_artifacts_are_shown_as_what_they_are(watched: Watched, served: Served) -> None:
    page = watched.open(f"/runs/{served.runs[0]}?tab=artifacts")
    page.get_by_role("button", name="notes.txt").click()
    expect(page.locator("pre", has_text="what I saw")).to_be_visible()
    page.get_by_role("button", name="conf/").click()
    page.get_by_role("button", name="a.json").click()
    expect(page.get_by_label("Preview of a.json")).to_contain_text("[2]")


def test_an_attack_is_shown_as_text(watched: Watched, served: Served) -> None:
    page = watched.open(f"/runs/{served.evil}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(ATTACK)
    expect(page.locator(".note")).to_have_text(ATTACK)
    page = watched.open("/")
    assert ATTACK in rows(page)
    with page.expect_download() as kept:  # no file is a page of this host
        page.evaluate("(at) => { location.href = at; }", f"/get-artifact?run_id={served.runs[0]}&path=notes.txt")
    assert kept.value.suggested_filename == "notes.txt"


def test_an_address_that_is_none_is_said_on_the_page(watched: Watched) -> None:
    page = watched.open("/nothing/here")
    expect(page.get_by_role("heading", level=1)).to_have_text("There is nothing at this address")
    page.get_by_role("link", name="The runs").click()
    expect(page.get_by_role("grid")).to_be_visible()
    assert all("404" in one for one in watched.wrong)
    watched.wrong.clear()


def test_comparing_marks_what_differs_first(watched: Watched, served: Served) -> None:
    page = watched.open(f"/compare?runs={','.join(served.runs[:3])}")
    params = page.get_by_role("region", name="Parameters").get_by_role("row")
    expect(params.nth(1)).to_contain_text("lr")
    expect(params.nth(2)).to_contain_text("epochs")
    expect(params.nth(1)).to_have_class(re.compile("differs"))
    page.get_by_role("button", name="What differs").click()
    expect(page.get_by_role("rowheader", name="epochs")).to_have_count(0)


def test_models(watched: Watched) -> None:
    page = watched.open("/models")
    expect(page.get_by_role("row", name=re.compile("resnet"))).to_contain_text("v1 Production")
    page.get_by_role("link", name="resnet").click()
    expect(page.get_by_role("row", name=re.compile("^v1"))).to_contain_text("@champion")


def test_a_live_run_moves_on_by_itself(watched: Watched, served: Served) -> None:
    run_id = served.new_run(experiment_id="0", run_name="live")
    served.log(run_id, metrics=[{"key": "m", "value": 1, "timestamp": 1, "step": 0}])
    page = watched.open(f"/runs/{run_id}")
    expect(page.get_by_role("row", name="m 1 step 0")).to_be_visible()
    served.log(run_id, metrics=[{"key": "m", "value": 2, "timestamp": 2, "step": 1}])
    expect(page.get_by_role("row", name="m 2 step 1")).to_be_visible(timeout=4000)
    served.post("runs/update", run_id=run_id, status="FINISHED", end_time=5)
    expect(page.get_by_text("goes on")).to_have_count(0, timeout=6000)
    served.post("runs/delete", run_id=run_id)


def test_a_run_that_is_not_there_and_a_server_that_went_away(watched: Watched, served: Served) -> None:
    page = watched.open("/runs/0123456789abcdef")
    expect(page.get_by_role("alert")).to_contain_text("not found")
    page.context.set_offline(True)
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
    page.context.set_offline(False)
    watched.wrong = [one for one in watched.wrong if "404" not in one and "ERR_INTERNET_DISCONNECTED" not in one]


def test_the_first_page_is_small(watched: Watched) -> None:
    sizes: dict[str, int] = {}
    watched.page.on(
        "response", lambda answer: sizes.update({answer.url: int(answer.headers.get("content-length", "0"))})
    )
    page = watched.open("/")
    assert rows(page)
    parts = {url: size for url, size in sizes.items() if "/page/" in url or url == f"{watched.url}/"}
    assert len(parts) >= 3
    assert sum(parts.values()) <= 60_000
    assert not [url for url in parts if "Charts" in url]
