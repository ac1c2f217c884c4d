"""Runs beside each other: what differs first, the best marked, code, pictures; many of them, and some that are gone."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import SIZES, START, Served, Watched
from tests.ui.sound import sound

SERVED = "coded"
TABS = ("params", "metrics&turn=1", "environment", "code", "images")


def compare(watched: Watched, runs: list[str], tab: str = "params") -> Page:
    return watched.open(f"/compare?runs={','.join(runs)}&tab={tab}")


@pytest.mark.parametrize("watched", [(SIZES[0], "dark")], indirect=True, ids=["dark 360"])
def test_every_part_is_accessible_and_fits(watched: Watched, coded: Served) -> None:
    for tab in TABS:
        page = compare(watched, coded.runs, tab)
        page.wait_for_load_state("networkidle")
        sound(watched, tab)


def test_the_best_value_is_marked_whichever_is_asked_for(watched: Watched, coded: Served) -> None:
    page = compare(watched, coded.runs, "metrics")
    table = page.get_by_role("region", name="Metrics")
    expect(table.get_by_role("row", name="loss").locator("td.best")).to_have_text(re.compile(r"0\.5\s*★\s*the best"))
    expect(table.locator("td.best")).to_have_count(2)
    page.get_by_label("Value").select_option("max")
    expect(table.get_by_role("row", name="loss").get_by_role("cell").first).to_contain_text("3")
    expect(table.get_by_role("row", name="loss").locator("td.best")).to_contain_text("3")
    expect(table.get_by_role("row", name="nothing")).to_contain_text("NaN")
    assert "of=max" in page.url


def test_turned_and_searched(watched: Watched, coded: Served) -> None:
    page = compare(watched, coded.runs)
    table = page.get_by_role("region", name="Parameters")
    expect(table.get_by_role("row")).to_have_count(4)
    expect(page.get_by_text("2 of 3 differ")).to_be_visible()
    page.get_by_role("button", name="Runs as rows").click()
    expect(table.get_by_role("columnheader")).to_have_text(["Run", "extra", "lr", "epochs"])
    expect(table.get_by_role("row", name="third")).to_contain_text("0.2")
    page.get_by_label("Find in Parameters").fill("epo")
    expect(table.get_by_role("columnheader")).to_have_text(["Run", "epochs"])
    page.get_by_role("button", name="What differs").click()
    expect(page.get_by_text("Nothing has that in its name.")).to_be_visible()


def test_the_environment(watched: Watched, coded: Served) -> None:
    page = compare(watched, coded.runs, "environment&diff=1")
    rows = page.get_by_role("region", name="Environment").get_by_role("row")
    expect(rows.nth(1)).to_contain_text("code.uncommitted")
    expect(rows.nth(2)).to_contain_text("variables.CUDA_VISIBLE_DEVICES")
    expect(rows).to_have_count(3)


def test_the_code_of_a_pair(watched: Watched, coded: Served) -> None:
    _, second, third = coded.runs
    page = compare(watched, coded.runs, "code")
    expect(page.get_by_role("region", name="Changes of train.py").locator("tr.plus .text")).to_have_text("lr = 0.2")
    expect(page.get_by_role("region", name="Changes of train.py").locator("mark")).to_have_text(["1", "2"])
    page.get_by_role("combobox", name="From").select_option(second)
    page.get_by_role("combobox", name="to", exact=True).select_option(third)
    expect(page.get_by_text("1 file differs")).to_be_visible()
    change = page.get_by_role("region", name="Changes of src/model.py")
    expect(change.locator("tr.plus .text")).to_have_text("layers = 3")
    page.get_by_role("button", name="Swap").click()
    expect(change.locator("tr.minus .text")).to_have_text("layers = 3")
    assert f"base={third}&with={second}" in page.url
    page.get_by_role("combobox", name="From").select_option(second)
    expect(page.get_by_text("Both ran the same code")).to_be_visible()


def test_pictures_side_by_side(watched: Watched, coded: Served) -> None:
    page = compare(watched, coded.runs[:2], "images")
    strip = page.get_by_role("region", name="plots/curve.png")
    expect(strip.get_by_role("img")).to_have_count(2)
    for picture in strip.get_by_role("img").all():
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("(one) => one.naturalWidth")
    expect(page.get_by_role("region", name="plots/only.png")).to_contain_text("none")
    expect(page.get_by_role("heading", level=2).first).to_have_text("plots/curve.png")
    page.get_by_role("button", name="One over the other").click()
    expect(page.get_by_role("heading", level=2)).to_have_text(["plots/curve.png"])  # the only one that both keep
    edge = page.get_by_role("slider", name="Where changed begins over committed")
    edge.press("Home")
    edge.press("ArrowRight")
    over = page.get_by_role("img", name="plots/curve.png of changed")
    assert over.evaluate("(one) => one.parentElement.style.clipPath") == "inset(0px 0px 0px 1%)"
    page.get_by_role("combobox", name="Left").select_option("changed")
    expect(over).to_have_count(2)
    page.get_by_label("Find pictures").fill("nonsense")
    expect(page.get_by_text("There is no picture that both runs keep.")).to_be_visible()


def test_curves(watched: Watched, coded: Served) -> None:
    page = compare(watched, coded.runs, "charts")
    expect(page.get_by_role("img", name="loss: 2 curves, 5 points")).to_be_visible()


def test_a_hundred_runs_in_one_question(watched: Watched, coded: Served) -> None:
    runs = [coded.new_run(experiment_id="0", run_name=f"many-{number}", start_time=START) for number in range(100)]
    for number, run_id in enumerate(runs[:50]):
        coded.log(run_id, params=[{"key": "p", "value": str(number)}])
    for run_id in runs:  # of runs that go on there would be news
        coded.post("runs/update", run_id=run_id, status="FINISHED", end_time=START + 1000)
    page = compare(watched, [*runs, coded.runs[0]])
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare 100 runs")
    expect(page.get_by_text("The first 100 of 101 runs.")).to_be_visible()
    expect(page.get_by_role("region", name="Parameters").get_by_role("cell")).to_have_count(100)
    others = ("/runs/columns", "/gittrack/changes")  # of the page before, and what happens meanwhile
    asked = [one for one in watched.asked if "/ajax-api/" in one and not any(other in one for other in others)]
    assert [one.partition("?")[0].rpartition("/")[2] for one in asked] == ["compare"]


def test_runs_that_are_gone_leave_the_others(watched: Watched, coded: Served) -> None:
    gone = "0" * 32
    page = compare(watched, [*coded.runs[:2], gone])
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare 2 runs")
    expect(page.get_by_text("1 of the runs was not found")).to_be_visible()
    expect(page.get_by_role("region", name="Parameters")).to_be_visible()
    compare(watched, [gone])
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare 0 runs")
    watched.open("/compare")
    expect(page.get_by_text("Choose runs in")).to_be_visible()


def test_runs_that_have_nothing(watched: Watched, coded: Served) -> None:
    runs = [coded.new_run(experiment_id="0", run_name="empty", start_time=START) for _ in range(2)]
    for tab, said in {
        "params": "no parameters",
        "metrics": "no metrics yet",
        "environment": "None of these runs",
        "code": "or neither carries any",
        "images": "no pictures",
        "charts": "no metrics yet",
    }.items():
        expect(compare(watched, runs, tab).locator("main")).to_contain_text(said)
