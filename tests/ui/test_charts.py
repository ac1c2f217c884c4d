"""Charts and plots in a real Chromium: of many runs, by group, as files; and of what no chart can be made of."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.ui.conftest import SIZES, START, Served, Watched
from tests.ui.sound import sound

LONG = "long/" + "x" * 200
OPTIMIZERS = ("adam", "sgd", "lion")
STEPS = 300


@pytest.fixture(scope="module")
def experiment(served: Served) -> Iterator[str]:
    """Nine runs with curves of every kind, one of them with very many metrics."""
    found = served.new_experiment("charts")
    made = []
    for number in range(9):
        run_id = served.new_run(experiment_id=found, run_name=f"net-{number}", start_time=START + number)
        made.append(run_id)
        values: dict[str, list[float] | list[str]] = {
            "train/loss": [1.0 + number / 10 + (1000.0 if step == 7 * number else 0.0) for step in range(STEPS)],
            "odd/nan": ["NaN", "Infinity"],
            "odd/one": [float(number)],
            "odd/same": [3.0] * 5,
            "odd/negative": [-1.0 - step for step in range(5)],
            LONG: [0.1 * number, 0.2],
        }
        points = [
            {"key": key, "value": value, "timestamp": START + step, "step": step}
            for key, column in values.items()
            for step, value in enumerate(column)
        ]
        params = {"lr": f"{10.0 ** -(number % 5 + 1):g}", "optimizer": OPTIMIZERS[number % 3], "width": str(2**number)}
        said = [{"key": key, "value": value} for key, value in params.items()]
        score = {"key": "score", "value": number % 5 + number / 100, "timestamp": START, "step": 0}
        served.log(run_id, metrics=[*points, score], params=said)
        served.post("runs/update", run_id=run_id, status="FINISHED", end_time=START + 1000)
    many = [{"key": f"zoo/m{at:03}", "value": at, "timestamp": START, "step": 0} for at in range(500)]
    served.log(made[0], metrics=many)
    yield found
    for run_id in made:
        served.post("runs/delete", run_id=run_id)


def chart(page: Page, metric: str) -> Locator:
    return page.get_by_role("region", name=metric, exact=True)


def opened(watched: Watched, experiment: str, more: str = "") -> Page:
    page = watched.open(f"/?experiment={experiment}&view=charts{more}")
    expect(page.locator("section.chart").first).to_be_visible()
    return page


def asked(watched: Watched) -> list[dict[str, list[str]]]:
    return [parse_qs(urlsplit(url).query) for url in watched.asked if "/metrics/curves" in url]


def test_runs_by_group_are_a_mean_and_a_band(watched: Watched, experiment: str) -> None:
    page = opened(watched, experiment, "&metric=train")
    page.get_by_label("Group by").select_option("params.optimizer")
    lines = page.get_by_role("group", name="Lines")
    expect(lines.get_by_role("button")).to_have_count(3)
    loss = chart(page, "train/loss")
    expect(loss.get_by_role("img", name=f"train/loss: 3 curves, {9 * STEPS} points")).to_be_visible()
    assert asked(watched)[-1]["groups"] == ["lion", "sgd", "adam"] * 3
    lines.get_by_role("button", name="sgd").click()
    expect(loss.get_by_role("img", name=f"train/loss: 2 curves, {6 * STEPS} points")).to_be_visible()
    assert "group=params.optimizer" in page.url
    assert "off=sgd" in page.url
    page.reload()
    expect(lines.get_by_role("button", name="sgd")).to_have_attribute("aria-pressed", "false")
    lines.get_by_role("button", name="Show all").click()
    expect(loss.get_by_role("img", name=re.compile("3 curves"))).to_be_visible()


def test_how_charts_look_is_in_the_address(watched: Watched, experiment: str) -> None:
    page = opened(watched, experiment, "&metric=train|one")
    for name in ("Log scale", "Log axis", "Clip outliers", "Dashes"):
        page.get_by_role("button", name=name).click()
    page.get_by_role("combobox", name="Axis", exact=True).select_option("odd/one")
    page.get_by_label("Across").select_option("2")
    page.get_by_label("Height").select_option("high")
    page.get_by_role("button", name="Pin train/loss").click()
    expect(page.get_by_role("heading", name="Pinned")).to_be_visible()
    page.reload()
    expect(chart(page, "train/loss").get_by_role("img")).to_have_css("min-height", "340px")
    expect(page.locator("section.chart").first).to_have_attribute("aria-label", "train/loss")
    for name in ("Log scale", "Log axis", "Clip outliers", "Dashes", "Pin train/loss"):
        expect(page.get_by_role("button", name=name)).to_have_attribute("aria-pressed", "true")
    assert page.get_by_role("combobox", name="Axis", exact=True).input_value() == "metrics.odd/one"
    expect(chart(page, "train/loss").get_by_role("img", name="train/loss: 9 curves, 9 points")).to_be_visible()


def test_one_chart_over_the_page(watched: Watched, experiment: str) -> None:
    page = opened(watched, experiment, "&metric=train")
    page.get_by_role("button", name="Enlarge train/loss").click()
    dialog = page.get_by_role("dialog", name="train/loss")
    expect(dialog.locator("canvas")).to_be_visible()
    dialog.get_by_label("from").fill("0")
    dialog.get_by_label("to", exact=True).fill("3")
    dialog.get_by_role("button", name="Set the scale").click()
    assert "range=0:3" in page.url
    page.reload()
    expect(dialog.get_by_label("to", exact=True)).to_have_value("3")
    sound(watched)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert "open=" not in page.url
    assert "range=" not in page.url


def test_a_chart_as_files(watched: Watched, experiment: str, tmp_path: Path) -> None:
    page = opened(watched, experiment, "&metric=train&dash=1")
    loss = chart(page, "train/loss")
    expect(loss.locator("canvas")).to_be_visible()
    loss.get_by_label("Save train/loss").click()
    for role, kind in (("button", "PNG"), ("button", "SVG"), ("link", "CSV")):
        with page.expect_download() as waiting:
            loss.get_by_role(role, name=kind).click()  # type: ignore[arg-type]
        assert waiting.value.suggested_filename == ("points.csv" if kind == "CSV" else f"train_loss.{kind.lower()}")
        waiting.value.save_as(tmp_path / kind)
    assert (tmp_path / "PNG").read_bytes().startswith(b"\x89PNG")
    drawing = (tmp_path / "SVG").read_text(encoding="utf-8")
    assert drawing.count("<path") >= 9
    assert {f"net-{number}" for number in range(9)} <= set(re.findall(">([^<>]*)</text>", drawing))
    with (tmp_path / "CSV").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 * STEPS
    assert sum(float(row["value"]) > 1000 for row in rows) == 9


def test_metrics_that_are_hard_to_draw(watched: Watched, experiment: str) -> None:
    page = opened(watched, experiment, "&metric=odd|long&log=1&smoothing=0.5")
    expect(chart(page, "odd/nan")).to_contain_text("No finite value")
    expect(chart(page, "odd/negative")).to_contain_text("No value is above zero")
    expect(chart(page, "odd/one").get_by_role("img", name="odd/one: 9 curves, 9 points")).to_be_visible()
    expect(chart(page, "odd/same").locator("canvas")).to_be_visible()
    expect(chart(page, LONG).locator("canvas")).to_be_visible()
    page.get_by_role("button", name="Log scale").click()
    expect(chart(page, "odd/negative").locator("canvas")).to_be_visible()
    page.get_by_role("searchbox", name="Find charts").fill("nothing(")
    expect(page.get_by_text("No metric has that in its name.")).to_be_visible()


@pytest.mark.parametrize("watched", [(SIZES[0], "dark")], indirect=True)
def test_of_very_many_charts_only_those_in_view_are_there(watched: Watched, experiment: str) -> None:
    page = opened(watched, experiment, "&metric=zoo")
    expect(page.locator("section.chart")).to_have_count(500)
    expect(page.locator("canvas").first).to_be_visible()
    assert page.locator("canvas").count() < 12
    chart(page, "zoo/m499").scroll_into_view_if_needed()
    expect(chart(page, "zoo/m499").locator("canvas")).to_be_visible()
    expect(chart(page, "zoo/m000").locator("canvas")).to_have_count(0)
    assert page.locator("canvas").count() < 12
    keys = [len(one["metric_keys"]) for one in asked(watched)]
    assert sum(keys) < 40
    assert max(keys) > 1
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


# --- plots


def plot(watched: Watched, experiment: str, more: str) -> Page:
    page = watched.open(f"/?experiment={experiment}&view=charts&tab=plots{more}")
    expect(page.locator(".plot p, .plot canvas").first).to_be_visible()
    return page


def test_brushes_narrow_the_runs_and_are_in_the_address(watched: Watched, experiment: str) -> None:
    page = plot(watched, experiment, "&dims=params.optimizer,params.lr,metrics.score&logs=params.lr")
    picture = page.get_by_role("img", name="Parallel coordinates of optimizer, lr, score: 9 of 9 runs")
    box = picture.bounding_box()
    assert box is not None
    right = box["x"] + box["width"] - 70  # the last axis: score
    page.mouse.move(right, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(right, box["y"] + box["height"] * 0.3, steps=3)
    page.mouse.up()
    expect(page.get_by_role("img", name=re.compile(": 2 of 9 runs"))).to_be_visible()  # 3.03 is not; 4.04, 3.08 are
    assert re.search("brush=metrics.score:3.0[0-9]+:4", page.url)
    axes = page.get_by_role("list", name="Axes")
    axes.get_by_label("score from").fill("2")
    axes.get_by_label("score from").press("Enter")
    axes.get_by_role("combobox", name="only").select_option("sgd")
    expect(page.get_by_role("img", name=re.compile(": 2 of 9 runs"))).to_be_visible()  # 4.04, 2.07
    page.reload()
    page.get_by_text("As a table").click()
    table = page.get_by_role("region", name="The plot as a table").get_by_role("row")
    expect(table.nth(1)).to_have_text(re.compile("net-7.*sgd.*0.001.*2.07"))
    page.get_by_role("button", name="Select these 2").click()
    expect(page.get_by_role("button", name="Compare 2")).to_be_enabled()
    page.get_by_role("button", name="All runs").click()
    expect(page.get_by_role("img", name=re.compile(": 9 of 9 runs"))).to_be_visible()


@pytest.mark.parametrize("watched", [(SIZES[0], "dark")], indirect=True)
def test_many_axes_are_scrolled_to_on_a_phone(watched: Watched, experiment: str) -> None:
    axes = "params.optimizer,params.lr,params.width,metrics.score,start_time,duration"
    page = plot(watched, experiment, f"&dims={axes}")
    picture = page.get_by_role("img", name=re.compile("Parallel coordinates of optimizer"))
    assert picture.evaluate("box => [box.offsetWidth, box.parentElement.clientWidth < 360]") == [2 * 70 + 5 * 72, True]
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    picture.evaluate("box => (box.parentElement.scrollLeft = 1000)")
    box = picture.bounding_box()
    assert box is not None
    x = box["x"] + 70 + 3 * 72  # the axis of the score, wherever it is now
    page.mouse.move(x, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(x, box["y"] + box["height"] * 0.4, steps=3)
    page.mouse.up()
    expect(page.get_by_role("button", name="All runs")).to_be_visible()
    assert "brush=metrics.score:" in page.url


def test_a_run_is_a_dot_with_a_link(watched: Watched, experiment: str) -> None:
    page = plot(watched, experiment, "&plot=scatter&x=params.lr&y=metrics.score&logs=params.lr&colour=params.optimizer")
    picture = page.get_by_role("img", name="Scatter of score over lr: 9 runs")
    picture.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".under")).to_contain_text("net-7 lr 0.001 · score 2.07 · optimizer sgd")
    link = page.get_by_role("link", name="net-7")
    box = picture.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.get_by_role("button", name="Logarithmic lr").click()
    assert "logs=" not in page.url
    link.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("net-7")


def test_every_plot_is_accessible_and_fits(watched: Watched, experiment: str) -> None:
    shown = {
        "parallel": "Parallel coordinates",
        "scatter": "Scatter of",
        "bar": "Bars of score by run: 9 groups",
        "box": "Boxes of score by optimizer: 3 groups",
        "heat": "Mean score over width and optimizer: 9 cells",
        "contour": "Contours of score over ",
        "importance": "Importance of 3 parameters for score",
    }
    for kind, label in shown.items():
        more = (
            "&by=params.optimizer" if kind == "box" else "&x=params.width&y=params.optimizer" if kind == "heat" else ""
        )
        page = plot(watched, experiment, f"&plot={kind}&value=metrics.score{more}")
        expect(page.get_by_role("img", name=label)).to_be_visible()
        page.get_by_text("As a table").click()
        sound(watched, kind, phone=True)


def test_plots_are_saved_and_what_cannot_be_plotted_is_said(watched: Watched, experiment: str, tmp_path: Path) -> None:
    page = plot(watched, experiment, "&plot=importance&value=metrics.score")
    expect(page.get_by_text("random forest")).to_be_visible()
    for kind in ("SVG", "CSV", "PNG"):
        with page.expect_download() as waiting:
            page.get_by_role("group", name="Save as").get_by_role("button", name=kind).click()
        waiting.value.save_as(tmp_path / kind)
    assert "lr" in re.findall(">([^<>]*)</text>", (tmp_path / "SVG").read_text(encoding="utf-8"))
    with (tmp_path / "CSV").open(newline="", encoding="utf-8") as file:
        shares = {row["parameter"]: float(row["importance"]) for row in csv.DictReader(file)}
    assert max(shares, key=lambda name: shares[name]) == "lr"  # the score is made of it
    assert sum(shares.values()) == pytest.approx(1)
    plot(watched, experiment, "&plot=scatter&x=params.lr&y=metrics.odd/nan")
    expect(page.get_by_text("No run here has a value of odd/nan")).to_be_visible()
    plot(watched, experiment, "&plot=bar&value=metrics.odd/negative&logs=metrics.odd/negative")
    expect(page.get_by_text("No value is above zero")).to_be_visible()
    plot(watched, experiment, "&plot=importance&value=metrics.odd/same")
    expect(page.get_by_text("odd/same is the same in all of these runs.")).to_be_visible()


@pytest.mark.skipif(os.environ.get("GITTRACK_FAULTS") != "full", reason="many runs: GITTRACK_FAULTS=full")
def test_two_hundred_lines_in_one_chart(watched: Watched, served: Served) -> None:
    experiment = served.new_experiment("crowd")
    made = [served.new_run(experiment_id=experiment, run_name=f"c{at}", start_time=START) for at in range(200)]
    for at, run_id in enumerate(made):
        points = [{"key": "m", "value": at + step % 7, "timestamp": START, "step": step} for step in range(500)]
        served.log(run_id, metrics=points)
        served.post("runs/update", run_id=run_id, status="FINISHED", end_time=START)
    page = watched.open(f"/?experiment={experiment}")
    page.get_by_role("checkbox", name="select all").click()
    page.get_by_role("button", name="Charts", exact=True).click()
    expect(page.get_by_role("img", name=f"m: 200 curves, {200 * 500} points")).to_be_visible()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    canvas = chart(page, "m").locator("canvas")
    canvas.scroll_into_view_if_needed()
    expect(canvas).to_be_visible()

    def busy() -> float:
        found = session.send("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in found if one["name"] == "TaskDuration"))

    box = canvas.bounding_box()
    assert box is not None
    before = busy()
    for step in range(20):
        page.mouse.move(box["x"] + 80 + 10 * step, box["y"] + 60 + 3 * step)
    assert (busy() - before) / 20 < 0.15  # seconds for each move of the mouse
    for run_id in made:
        served.post("runs/delete", run_id=run_id)
