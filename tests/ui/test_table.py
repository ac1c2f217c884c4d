"""The table of runs: filters as they are typed, columns, groups, trees, curves in cells, changes to many, views."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from gittrack.server.hub.roles import Caller, Grant, Role
from tests.conftest import run_git
from tests.server.conftest import running
from tests.ui.conftest import ATTACK, START, Served, Watched
from tests.ui.sound import sound
from tests.ui.test_pages import rows

RUNS = 8


@pytest.fixture(scope="module")
def sweep(served: Served) -> str:
    """An experiment of eight runs, two of which started three others each."""
    experiment = served.new_experiment("sweep")
    parent = ""
    for number in range(RUNS):
        tags = [{"key": "team", "value": "red" if number % 2 else "blue"}]
        if number % 4:
            tags.append({"key": "mlflow.parentRunId", "value": parent})
        made = served.new_run(
            experiment_id=experiment, run_name=f"try-{number}", start_time=START - 10**9 + number, tags=tags
        )
        if number % 4 == 0:
            parent = made
        points = [
            {"key": "train/loss", "value": 1 / (step + 1) + number, "timestamp": START, "step": step}
            for step in range(100)
        ]
        points.append({"key": "acc", "value": number / 10, "timestamp": START, "step": 0})
        params = [{"key": "optimizer", "value": "adam" if number < 6 else "sgd"}, {"key": "lr", "value": f"{number}"}]
        served.log(made, params=params, metrics=points)
        served.post("runs/update", run_id=made, status="FINISHED", end_time=START)
    return experiment


def table(watched: Watched, sweep: str, **settings: str) -> Page:
    """The runs of the sweep."""
    said = "".join(f"&{name}={quote(value)}" for name, value in settings.items())
    page = watched.open(f"/?experiment={sweep}{said}")
    expect(page.locator("[aria-label=Runs]")).to_be_visible()
    return page


def headings(page: Page) -> list[str]:
    return [text.strip() for text in page.get_by_role("columnheader").all_inner_texts()]


def setting(page: Page, name: str) -> str:
    return parse_qs(urlsplit(page.url).query).get(name, [""])[0]


def line(page: Page, name: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


# --- the filter


def test_a_filter_is_completed_as_it_is_typed(watched: Watched, sweep: str) -> None:
    page = table(watched, sweep)
    box = page.get_by_role("combobox", name="Filter")
    box.click()
    expect(box).to_have_attribute("aria-expanded", "false")
    page.keyboard.type("opt")
    proposals = page.get_by_role("listbox").get_by_role("option")
    expect(proposals).to_have_text(["params.optimizerparams"])
    page.keyboard.press("ArrowDown")
    expect(box).to_have_attribute("aria-activedescendant", "proposal-0")
    page.keyboard.press("Enter")
    expect(proposals.first).to_have_text("=operator")
    page.keyboard.type("= s")
    page.get_by_role("option", name="'sgd'").click()
    expect(box).to_have_value("params.optimizer = 'sgd' ")
    expect(proposals).to_have_text(["ANDand then", "ORand then"])
    page.keyboard.press("Escape")
    expect(box).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 runs", exact=True)).to_be_visible()
    assert rows(page) == ["try-7", "try-6"]


def test_what_cannot_be_read_is_shown_where_it_is(watched: Watched, sweep: str) -> None:
    page = table(watched, sweep)
    box = page.get_by_role("combobox", name="Filter")
    box.click()
    page.keyboard.type("params.lr = '🙂' and parms.lr = '1'")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("At column 21: unknown prefix `parms` (hint: did you mean `params`?)")
    expect(alert.locator("mark")).to_have_text("parms.lr")
    expect(box).to_have_attribute("aria-invalid", "true")
    assert box.evaluate("box => box.value.slice(box.selectionStart)") == "parms.lr = '1'"
    box.fill("params.lr = '1'")
    page.keyboard.press("Enter")
    expect(alert).to_be_empty()
    assert rows(page) == ["try-1"]
    watched.wrong = [one for one in watched.wrong if "400" not in one]


# --- columns


def test_columns_are_pinned_moved_and_found_again(watched: Watched, sweep: str) -> None:
    page = table(watched, sweep)
    assert headings(page)[:4] == ["Run", "Started ↓", "Duration", "acc"]
    page.get_by_role("button", name="Columns").click()
    page.get_by_role("searchbox", name="Find columns").fill("OPTI")
    expect(page.get_by_role("button", name=re.compile("^pin "))).to_have_count(1)
    page.get_by_role("button", name="pin optimizer").click()
    page.get_by_role("searchbox", name="Find columns").fill("")
    page.get_by_role("button", name="move acc to the left").click()
    page.get_by_role("checkbox", name="Started").uncheck()
    wanted = ["Run", "optimizer", "acc", "Duration"]
    assert headings(page)[:4] == wanted
    assert (setting(page, "pin"), setting(page, "hide")) == ("params.optimizer", "start_time")
    page.reload()
    expect(page.get_by_role("grid")).to_be_visible()
    assert headings(page)[:4] == wanted
    watched.open("/models")
    page = table(watched, sweep)  # an address that says nothing: as he had it, and then it says so
    expect(page.get_by_role("columnheader", name="Started")).to_have_count(0)
    assert headings(page)[:4] == wanted
    assert setting(page, "pin") == "params.optimizer"
    page.get_by_role("button", name="Columns").click()
    page.get_by_role("button", name="As they were").click()
    expect(page.get_by_role("columnheader", name="Started")).to_be_visible()
    assert setting(page, "pin") == ""
    watched.open("/models")
    table(watched, sweep)
    expect(page.get_by_role("columnheader", name="Started")).to_be_visible()


def test_of_more_keys_than_are_columns_any_is_found(watched: Watched, served: Served) -> None:
    wide = served.new_experiment("wide")
    run_id = served.new_run(experiment_id=wide, run_name="broad", start_time=START)
    for start in range(0, 300, 100):
        said = [{"key": f"layer.{number:03}", "value": f"v{number}"} for number in range(start, start + 100)]
        served.log(run_id, params=said)
    page = table(watched, wide)
    page.get_by_role("button", name="Columns").click()
    params = page.get_by_role("group", name="Parameters")
    expect(params).to_contain_text("200 more: find them by their names.")
    page.get_by_role("searchbox", name="Find columns").fill("R.29")
    expect(params.get_by_role("checkbox")).to_have_count(10)
    params.get_by_role("checkbox", name="layer.297").check()
    expect(params.get_by_role("button", name="pin layer.297")).to_be_visible()  # it is a column like the others now
    assert setting(page, "also") == "params.layer.297"
    params.get_by_role("button", name="pin layer.297").click()
    expect(page.get_by_role("gridcell", name="v297")).to_be_visible()
    page.reload()
    expect(page.get_by_role("gridcell", name="v297")).to_be_visible()
    page.get_by_role("button", name="Columns").click()
    page.get_by_role("searchbox", name="Find columns").fill("layer.297")
    params.get_by_role("checkbox", name="layer.297").uncheck()
    expect(page.get_by_role("gridcell", name="v297")).to_have_count(0)
    assert (setting(page, "also"), setting(page, "hide")) == ("", "")
    page.get_by_role("searchbox", name="Find columns").fill("nothing has this")
    expect(page.get_by_text("No column has that in its name.")).to_be_visible()
    page.get_by_role("button", name="As they were").click()


def test_a_pinned_column_stays(watched: Watched, sweep: str) -> None:
    page = table(watched, sweep, pin="params.optimizer", width="metrics.acc:900,params.lr:900")
    cell = page.get_by_role("gridcell", name="adam").first
    before = cell.bounding_box()
    page.get_by_role("grid").evaluate("grid => (grid.scrollLeft = 800)")
    expect(page.get_by_role("columnheader", name="Started")).to_have_count(0)
    assert before is not None
    assert cell.bounding_box() == before


def test_columns_are_moved_and_resized_by_hand(watched: Watched, sweep: str) -> None:
    page = table(watched, sweep)
    page.get_by_role("button", name="acc").drag_to(page.get_by_role("columnheader", name="Started"))
    expect(page.get_by_role("columnheader").nth(1)).to_contain_text("acc")
    heading = page.get_by_role("columnheader", name="acc")
    box = heading.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] + 47, box["y"] + 10, steps=3)
    page.mouse.up()
    expect(page).to_have_url(re.compile(r"width=metrics\.acc:180"))
    page.get_by_role("button", name="acc").focus()
    page.keyboard.press("Shift+ArrowLeft")
    expect(page).to_have_url(re.compile(r"width=metrics\.acc:170"))
    after = heading.bounding_box()
    assert after is not None
    assert round(after["width"]) == 170
    assert setting(page, "sort") == ""  # none of that was a click


# --- rows


def test_several_columns_sort_and_the_best_stands_out(watched: Watched, sweep: str) -> None:
    page = table(watched, sweep)
    page.get_by_role("button", name="optimizer").click()
    page.get_by_role("button", name="acc").click(modifiers=["Shift"])
    assert setting(page, "sort") == "params.optimizer:asc,metrics.acc:desc"
    assert rows(page)[:2] == ["try-5", "try-4"]
    assert rows(page)[-2:] == ["try-7", "try-6"]
    expect(page.get_by_role("columnheader", name="acc ↓2")).to_be_visible()
    expect(line(page, "try-7").get_by_title("0.7, the best")).to_be_visible()
    best = line(page, "try-0").locator(".best")
    expect(best).to_have_text("0.01")  # of the loss, the least
    expect(best).to_have_accessible_name("0.01 the best")


def test_curves_in_cells_are_one_question(watched: Watched, sweep: str) -> None:
    page = table(watched, sweep)
    assert page.locator("svg path").count() == 0
    page.get_by_role("button", name="Sparklines").click()
    expect(page.locator("svg path")).to_have_count(RUNS)
    asked = [one for one in watched.asked if "sparklines" in one]
    assert len(asked) == 1
    assert page.locator("svg path").first.evaluate("path => path.getTotalLength()") > 40
    page.get_by_role("button", name="acc").click()
    page.get_by_role("button", name="Tree").click()
    expect(page.locator("svg path")).to_have_count(2)
    page.wait_for_timeout(250)  # longer than it waits before it asks
    assert [one for one in watched.asked if "sparklines" in one] == asked


def test_groups(watched: Watched, sweep: str) -> None:
    page = table(watched, sweep, sort="metrics.acc:desc")
    page.get_by_label("Group by").select_option("params.optimizer")
    grid = page.get_by_role("treegrid")
    expect(page.get_by_text("8 runs, 2 groups")).to_be_visible()
    lines = grid.get_by_role("row")
    expect(lines).to_have_count(3)
    expect(lines.nth(1)).to_contain_text("sgd")  # it has the better mean
    expect(lines.nth(1).get_by_role("gridcell", name="0.65 ± 0.0707")).to_be_visible()
    expect(lines.nth(2).get_by_title("mean 0.25 ± 0.18708, min 0, max 0.5, of 6")).to_be_visible()
    page.get_by_label("Of a group's metrics").select_option("max")
    expect(lines.nth(2).get_by_role("gridcell", name="0.5", exact=True)).to_be_visible()
    expect(lines.nth(1)).to_have_attribute("aria-expanded", "false")
    grid.focus()
    page.keyboard.press("ArrowRight")
    expect(lines).to_have_count(5)
    expect(lines.nth(1)).to_have_attribute("aria-expanded", "true")
    expect(lines.nth(2)).to_have_attribute("aria-level", "2")
    page.get_by_role("checkbox", name="select all with sgd").check()
    expect(page.get_by_role("button", name="Compare 2")).to_be_enabled()
    page.reload()
    expect(page.get_by_text("8 runs, 2 groups")).to_be_visible()


def test_runs_below_those_that_started_them(watched: Watched, sweep: str) -> None:
    page = table(watched, sweep)
    page.get_by_role("button", name="Tree").click()
    expect(page.get_by_role("treegrid")).to_be_visible()
    lines = page.get_by_role("row")
    expect(lines).to_have_count(3)
    page.get_by_role("button", name="open try-4").click()
    expect(lines).to_have_count(6)
    expect(line(page, "try-7")).to_have_attribute("aria-level", "2")
    page.get_by_role("treegrid").focus()
    page.keyboard.press("ArrowLeft")
    expect(lines).to_have_count(3)


# --- changes to many


def test_a_range_is_selected_tagged_deleted_and_brought_back(watched: Watched, sweep: str) -> None:
    page = table(watched, sweep)
    page.get_by_role("checkbox", name="select try-6").check()
    page.get_by_role("checkbox", name="select try-3").click(modifiers=["Shift"])
    page.get_by_role("button", name="Edit 4").click()
    panel = page.get_by_role("region", name="Change the selected runs")
    panel.get_by_placeholder("tag").fill("team")
    panel.get_by_placeholder("value").fill("green")
    panel.get_by_role("button", name="Set tag").click()
    expect(panel.get_by_role("status")).to_contain_text("Tag team set: 4 runs.")
    expect(page.get_by_role("gridcell", name="green")).to_have_count(4)
    panel.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("gridcell", name="green")).to_have_count(0)
    expect(line(page, "try-5").get_by_role("gridcell", name="red")).to_be_visible()
    panel.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("4 runs", exact=True)).to_be_visible()
    panel.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("8 runs", exact=True)).to_be_visible()
    expect(panel).to_contain_text("4 runs selected")
    panel.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("4 runs", exact=True)).to_be_visible()
    page.get_by_role("button", name="Deleted too").click()
    expect(line(page, "try-5")).to_contain_text("deleted")
    page.get_by_role("checkbox", name="select all").check()
    panel.get_by_role("button", name="Restore").click()
    expect(panel.get_by_role("status")).to_contain_text("Restored: 4 runs.")
    page.get_by_role("button", name="Deleted too").click()
    expect(page.get_by_text("8 runs", exact=True)).to_be_visible()


@pytest.fixture
def of_a_reader(browser: Browser, tmp_path: Path) -> Iterator[Watched]:
    """What somebody sees who may read, and no more."""
    run_git(tmp_path, "init", "--quiet")
    context = browser.new_context()
    with running(tmp_path) as server:
        for number in range(3):
            server.new_run(experiment_id="0", run_name=f"theirs-{number}")
        server.caller = Caller("ana", (Grant(Role.READER, experiments="Default"),), "user")
        found = Watched(context.new_page(), f"http://127.0.0.1:{server.port}")
        found.page.route("**/gittrack/changes*", nothing_happens)
        yield found
        context.close()
    assert [one for one in found.wrong if "403" not in one] == []


def nothing_happens(route: Route) -> None:
    """The answer to who listens for changes: streams are watched over by what this server is without."""
    said = json.dumps({"mark": "0", "complete": True, "run_ids": [], "experiment_ids": []})
    if "event-stream" in route.request.headers["accept"]:
        route.fulfill(content_type="text/event-stream", body=f"data: {said}\n\n")
    else:
        route.fulfill(content_type="application/json", body=said)


def test_who_may_not_is_told_so_calmly(of_a_reader: Watched) -> None:
    page = of_a_reader.open("/")
    page.get_by_role("checkbox", name="select all").check()
    page.get_by_role("button", name="Edit 3").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    status = page.get_by_role("region", name="Change the selected runs").get_by_role("status")
    expect(status).to_contain_text("3 runs stayed as before. You may not do this here:")
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)
    expect(page.get_by_text("3 runs", exact=True)).to_be_visible()


# --- views


def test_a_view_is_saved_for_everybody(watched: Watched, served: Served, sweep: str) -> None:
    page = table(watched, sweep, filter="params.optimizer = 'sgd'", pin="metrics.acc")
    page.get_by_role("button", name="Views").click()
    page.get_by_placeholder("name").fill("the best")
    page.get_by_role("button", name="Save this view").click()
    expect(page.get_by_role("link", name="the best")).to_be_visible()
    kept = served.ask("GET", f"/api/2.0/mlflow/experiments/get?experiment_id={sweep}", b"")["experiment"]
    tags = {tag["key"]: tag["value"] for tag in kept["tags"]}
    assert tags["gittrack.view.the best"] == "filter=params.optimizer+%3D+%27sgd%27&pin=metrics.acc"
    watched.open("/")
    page.get_by_role("button", name="Views").click()
    page.get_by_role("link", name="the best").click()
    expect(page.get_by_text("2 runs", exact=True)).to_be_visible()
    assert (setting(page, "experiment"), setting(page, "pin")) == (sweep, "metrics.acc")
    page.get_by_role("button", name="delete the view the best").click()
    expect(page.get_by_role("link", name="the best")).to_have_count(0)


def test_a_view_that_is_an_attack_is_settings_and_text(watched: Watched, served: Served, sweep: str) -> None:
    said = {
        "experiment_id": sweep,
        "key": "gittrack.view.javascript: 1",
        "value": f"filter={quote(ATTACK)}&theme=1&a=b&__proto__=1",
    }
    served.post("experiments/set-experiment-tag", **said)
    page = table(watched, sweep)
    page.get_by_role("button", name="Views").click()
    page.get_by_role("link", name="javascript: 1").click()
    expect(page.get_by_role("alert").first).to_contain_text("onerror")
    assert set(parse_qs(urlsplit(page.url).query)) == {"experiment", "filter"}
    assert page.evaluate("window.attacked") is None
    page.goto("about:blank")  # or news would make it ask again
    served.post("experiments/delete-experiment-tag", experiment_id=sweep, key=said["key"])
    watched.wrong = [one for one in watched.wrong if "400" not in one]


# --- all of it


def test_every_part_is_accessible_and_fits(watched: Watched, sweep: str) -> None:
    page = table(watched, sweep, group="params.optimizer", pin="metrics.acc", hide="start_time,duration", spark="1")
    page.get_by_role("button", name="open adam").click()
    expect(page.locator("svg path")).to_have_count(6)
    page.get_by_role("checkbox", name="select try-5").check()
    page.get_by_role("button", name="Edit 1").click()
    expect(page.get_by_role("region", name="Change the selected runs")).to_be_visible()
    sound(watched, "groups and changes", phone=True)
    page.get_by_role("button", name="Columns").click()
    expect(page.get_by_role("region", name="Columns")).to_be_visible()
    page.get_by_role("combobox", name="Filter").fill("m")
    expect(page.get_by_role("listbox")).to_be_visible()
    sound(watched, "columns and proposals", phone=True)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Views").click()
    expect(page.get_by_role("region", name="Saved views")).to_be_visible()
    sound(watched, "views", phone=True)
