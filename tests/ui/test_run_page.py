"""The page of one run: every part of it, what can be changed there, and what is too much or not there at all."""

import os
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import SIZES, START, Served, Watched
from tests.ui.parquet import parquet
from tests.ui.recorded import LARGE, LINES, ROWS
from tests.ui.sound import sound

SERVED = "coded"
FULL = os.environ.get("GITTRACK_FAULTS") == "full"
TABS = ("overview", "metrics", "artifacts", "code", "environment", "logs", "lineage")
REPORT = "artifacts&path=report.html"


def tab(watched: Watched, run_id: str, name: str) -> Page:
    return watched.open(f"/runs/{run_id}?tab={name}")


@pytest.mark.parametrize(
    "watched", [(SIZES[0], "dark"), *([(SIZES[1], "light")] if FULL else [])], indirect=True, ids=lambda one: one[1]
)
def test_every_part_is_accessible_and_fits(watched: Watched, coded: Served) -> None:
    for name in (*TABS, "artifacts&path=scores.csv", "artifacts&path=README.md", "artifacts&path=table.json"):
        page = tab(watched, coded.runs[1], name)
        page.wait_for_load_state("networkidle")
        sound(watched, name)


def test_tabs_are_in_the_address_and_with_the_keyboard(watched: Watched, coded: Served) -> None:
    page = watched.open(f"/runs/{coded.runs[1]}")
    link = page.get_by_role("navigation", name="Parts of the run").get_by_role("link", name="Environment")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("table", name="packages")).to_contain_text("orjson")
    assert page.url.endswith("?tab=environment")
    page.go_back()
    expect(page.get_by_role("table", name="parameters")).to_be_visible()
    tab(watched, coded.runs[1], "nonsense")
    expect(page.get_by_role("table", name="parameters")).to_be_visible()


def test_the_overview(watched: Watched, coded: Served) -> None:
    page = tab(watched, coded.runs[1], "overview")
    expect(page.get_by_role("table", name="metrics").get_by_role("row", name="loss 0.5 step 1")).to_be_visible()
    commit = page.locator("dl a.mono")
    assert re.fullmatch(r"https://github\.com/team/model/commit/[0-9a-f]{40}", commit.get_attribute("href") or "")
    assert commit.get_attribute("rel") == "noopener noreferrer"
    expect(page.get_by_role("link", name="with uncommitted changes")).to_be_visible()
    note = page.locator(".note")
    expect(note.get_by_role("listitem")).to_have_count(2)
    expect(note.get_by_role("link", name="seed")).to_have_attribute("href", "https://example.com/seed")
    expect(page.get_by_text(f"gittrack reproduce {coded.runs[1][:8]} --run")).to_be_visible()
    expect(page.get_by_text(f'gittrack.get_run("{coded.runs[1]}")')).to_be_visible()


def test_a_command_is_copied(watched: Watched, coded: Served) -> None:
    watched.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = tab(watched, coded.runs[0], "overview")
    page.get_by_role("button", name="Copy the command that reruns it").click()
    expect(page.get_by_text("copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == f"gittrack reproduce {coded.runs[0][:8]} --run"


def test_what_can_be_changed(watched: Watched, coded: Served) -> None:
    run_id = coded.new_run(experiment_id="0", run_name="plain", start_time=START)
    page = tab(watched, run_id, "overview")
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("New name").fill("better")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("better")
    page.get_by_role("button", name="Add a note").click()
    page.get_by_label("Note, in Markdown").fill("it is **fine**")
    page.get_by_role("button", name="Save note").click()
    expect(page.locator(".note strong")).to_have_text("fine")
    page.get_by_label("Tag", exact=True).fill("team")
    page.get_by_label("Value of the tag").fill("red")
    page.get_by_role("button", name="Set tag").click()
    expect(page.get_by_role("row", name=re.compile("team red"))).to_be_visible()
    page.reload()
    expect(page.locator(".note strong")).to_have_text("fine")
    page.get_by_role("button", name="Remove tag team").click()
    expect(page.get_by_role("row", name=re.compile("team red"))).to_have_count(0)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Restore").click()
    expect(page.get_by_role("button", name="Delete")).to_be_visible()


def test_a_deleted_run_can_be_seen_and_says_why_it_does_not_change(watched: Watched, coded: Served) -> None:
    run_id = coded.new_run(experiment_id="0", run_name="gone", start_time=START)
    coded.post("runs/delete", run_id=run_id)
    page = tab(watched, run_id, "overview")
    expect(page.get_by_text("running, deleted")).to_be_visible()
    page.get_by_label("Tag", exact=True).fill("team")
    page.get_by_role("button", name="Set tag").click()
    expect(page.get_by_role("alert")).to_contain_text("deleted")
    watched.wrong = [one for one in watched.wrong if "400" not in one]


def test_metrics_and_those_of_the_machine(watched: Watched, coded: Served) -> None:
    page = tab(watched, coded.runs[0], "metrics")
    expect(page.get_by_role("row", name="loss 2 1 3 2 3")).to_be_visible()
    expect(page.get_by_role("row", name="nothing NaN NaN NaN 0 1")).to_be_visible()
    expect(page.get_by_role("region", name="nothing")).to_be_visible()
    expect(page.get_by_text("system/cpu")).to_have_count(0)
    page.get_by_role("button", name="The machine's (1)").click()
    expect(page.get_by_role("row", name="system/cpu 20 10 20 1 2")).to_be_visible()


# --- artifacts


def preview(watched: Watched, coded: Served, path: str) -> Any:
    page = tab(watched, coded.runs[1], f"artifacts&path={path}")
    return page.get_by_label(f"Preview of {path.rpartition('/')[2]}")


def test_files_are_shown_as_what_they_are(watched: Watched, coded: Served) -> None:
    expect(preview(watched, coded, "scores.csv").get_by_role("row").nth(1)).to_have_text(re.compile(r"a, b\s*0\.5"))
    expect(preview(watched, coded, "table.json").get_by_role("row").nth(2)).to_have_text(re.compile("2"))
    expect(preview(watched, coded, "conf/deep/er/config.json")).to_contain_text("layers [3]")
    expect(preview(watched, coded, "broken.json").locator("pre")).to_have_text('{"a": ')
    expect(preview(watched, coded, "README.md").get_by_role("heading", name="Title")).to_be_visible()
    expect(preview(watched, coded, "model.bin")).to_contain_text("gittrack artifacts get")
    expect(preview(watched, coded, "paper.pdf")).to_contain_text("Download it")
    for path in ("plots/curve.png", "figure.svg"):
        picture = preview(watched, coded, path).get_by_role("img")
        expect(picture).to_be_visible()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("(one) => one.naturalWidth"), path
    sound = preview(watched, coded, "sound.wav").locator("audio")
    expect(sound).to_have_js_property("duration", 0.5)


def test_of_a_large_text_the_beginning_is_fetched(watched: Watched, coded: Served) -> None:
    page = watched.page
    with page.expect_response(re.compile("get-artifact.*large.txt")) as waiting:
        shown = preview(watched, coded, "large.txt")
    assert waiting.value.status == 206
    assert len(waiting.value.body()) == 256 << 10 < LARGE
    expect(shown).to_contain_text("The first 256 KiB of 300 KiB.")


def test_a_file_of_many_gigabytes_is_not_fetched(watched: Watched, coded: Served) -> None:
    def huge(route: Any) -> None:
        route.fulfill(
            json={"files": [{"path": name, "is_dir": False, "file_size": 5 << 30} for name in ("w.bin", "p.png")]}
        )

    page = watched.page
    page.route("**/artifacts/list**", huge)
    for name in ("w.bin", "p.png"):
        shown = preview(watched, coded, name)
        expect(shown).to_contain_text("5.00 GiB")
        expect(shown).to_contain_text(f"gittrack artifacts get {coded.runs[1][:8]} {name}")
    assert not [one for one in watched.asked if "/get-artifact" in one]


def test_a_parquet_file_is_a_table(watched: Watched, coded: Served) -> None:
    shown = preview(watched, coded, "scores.parquet")
    expect(shown.get_by_role("columnheader")).to_have_text(["nint64", "scoredouble", "namestring"])
    rows = shown.get_by_role("row")
    expect(rows.nth(1).get_by_role("cell")).to_have_text(["", "0.5", "a, b"])
    expect(rows.nth(2).get_by_role("cell")).to_have_text([str(2**60), "NaN", ""])
    expect(shown).to_contain_text(f"The first 1000 of {ROWS} rows.")
    shown = preview(watched, coded, "packed.parquet")
    expect(shown).to_contain_text("the first is compressed with ZSTD, which this page does not read")
    expect(shown.get_by_role("link", name="download")).to_be_visible()
    expect(preview(watched, coded, "cut.parquet")).to_contain_text("This is no Parquet file, or it is damaged.")


def test_of_a_large_parquet_file_a_part_is_fetched(watched: Watched, coded: Served) -> None:
    data = parquet({"text": [f"{number:06}" * 20 for number in range(30_000)], "n": list(range(30_000))})
    sent = []

    def piece(route: Any) -> None:
        first, last = map(int, re.findall(r"\d+", route.request.headers["range"]))
        sent.append(min(last + 1, len(data)) - first)
        route.fulfill(status=206, body=data[first : last + 1], headers={"content-length": str(sent[-1])})

    watched.page.route("**/get-artifact**", piece)
    listed = {"files": [{"path": "long.parquet", "is_dir": False, "file_size": len(data)}]}
    watched.page.route("**/artifacts/list**", lambda route: route.fulfill(json=listed))
    shown = preview(watched, coded, "long.parquet")
    expect(shown.get_by_role("row").nth(3)).to_have_text(re.compile(r"(000002){20}\s*2"))
    expect(shown).to_contain_text("The first 1000 of 30000 rows.")
    assert sum(sent) < 2_700_000 < len(data)


def test_a_document_is_in_a_world_of_its_own(watched: Watched, coded: Served) -> None:
    page = tab(watched, coded.runs[1], REPORT)
    frame = page.locator("iframe")
    expect(frame).to_have_attribute("sandbox", "")
    expect(page.frame_locator("iframe").get_by_text("static")).to_be_visible()
    expect(page.frame_locator("iframe").get_by_text("scripted")).to_have_count(0)
    page.get_by_role("button", name="Run its scripts").click()
    expect(page.frame_locator("iframe").get_by_text("scripted")).to_be_visible()
    expect(page.locator("iframe")).to_have_attribute("sandbox", "allow-scripts")
    watched.wrong = [one for one in watched.wrong if "Blocked script execution" not in one]


def test_folders_deep_and_full(watched: Watched, coded: Served) -> None:
    page = tab(watched, coded.runs[1], "artifacts&path=conf/deep/er/config.json")
    expect(page.get_by_role("button", name="config.json")).to_have_attribute("aria-current", "true")
    page.get_by_role("button", name="many/").click()
    expect(page.get_by_role("button", name="file-0199.txt")).to_be_visible()
    expect(page.get_by_role("button", name="file-0200.txt")).to_have_count(0)
    page.get_by_role("searchbox", name="Find in many").fill("1499")
    page.get_by_role("button", name="file-1499.txt").click()
    assert page.url.endswith("path=many%2Ffile-1499.txt")
    expect(page.get_by_label("Preview of file-1499.txt").locator("pre")).to_have_text("x")
    tab(watched, coded.runs[1], "artifacts&path=none.txt")
    expect(page.get_by_role("alert")).to_contain_text("There is no file none.txt")


# --- code, logs, lineage


def test_the_code_and_what_was_not_committed(watched: Watched, coded: Served) -> None:
    page = tab(watched, coded.runs[1], "code&path=train.py")
    diff = page.get_by_role("region", name="Changes of train.py")
    expect(diff.locator("tr.minus .text")).to_have_text("lr = 0.1")
    expect(diff.locator("tr.plus .text")).to_have_text("lr = 0.2")
    expect(page.get_by_role("region", name="Changes of new.py")).to_contain_text("x = 1")
    expect(page.get_by_label("Text of train.py")).to_contain_text("lr = 0.2")
    files = page.get_by_role("list", name="Files of the code")
    expect(files.get_by_role("listitem").filter(has_text="new.py")).to_contain_text("new 6 B")
    page.get_by_role("button", name="src/").click()
    page.get_by_role("button", name="model.py").click()
    expect(page.get_by_label("Text of src/model.py")).to_have_text("layers = 2")
    tab(watched, coded.runs[0], "code")
    expect(page.get_by_text("Nothing: the run ran its commit as it is.")).to_be_visible()


def test_a_run_without_code_or_environment(watched: Watched, coded: Served) -> None:
    run_id = coded.new_run(experiment_id="0", run_name="bare", start_time=START)
    for name, said in {
        "code": "carries no code",
        "environment": "No environment is recorded",
        "logs": "Nothing was kept",
        "artifacts": "No artifacts",
        "metrics": "no metrics yet",
        "lineage": "Nothing is recorded",
    }.items():
        expect(tab(watched, run_id, name).locator("main")).to_contain_text(said)


def test_the_end_of_what_was_said(watched: Watched, coded: Served) -> None:
    page = tab(watched, coded.runs[1], "logs")
    shown = page.get_by_label("What the program said in stdout.txt")
    expect(shown).to_contain_text(f"step {LINES - 1}\ndone")
    assert "10%" not in (shown.text_content() or "")
    page.get_by_role("button", name="stderr.txt").click()
    expect(page.get_by_label("What the program said in stderr.txt")).to_have_text("a warning\n")
    assert "log=stderr.txt" in page.url


def test_a_log_is_followed_while_the_run_goes_on(watched: Watched, coded: Served) -> None:
    run_id = coded.new_run(experiment_id="0", run_name="talking", start_time=START)
    at = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/stdout.txt"
    coded.ask("PUT", at, b"x" * (100 << 10) + b"\nfirst\n")
    page = tab(watched, run_id, "logs")
    expect(page.get_by_label("What the program said")).to_contain_text("first")
    coded.ask("PUT", at, b"x" * (100 << 10) + b"\nfirst\nsecond\n")
    expect(page.get_by_label("What the program said")).to_contain_text("second", timeout=5000)
    page.get_by_role("button", name="Show more").click()
    expect(page.get_by_role("button", name="Show more")).to_have_count(0)


def test_lineage(watched: Watched, coded: Served) -> None:
    parent = coded.runs[0]
    child = coded.new_run(experiment_id="0", run_name="child", tags=[{"key": "mlflow.parentRunId", "value": parent}])
    dataset = {"name": "digits", "digest": "abc", "source_type": "local", "source": "x"}
    coded.post("runs/log-inputs", run_id=child, datasets=[{"dataset": dataset}])
    coded.post("registered-models/create", name="net")
    coded.post("model-versions/create", name="net", source=f"runs:/{parent}/plots", run_id=parent)
    page = tab(watched, parent, "lineage")
    expect(page.get_by_role("link", name="net")).to_have_attribute("href", "/models/net")
    page.get_by_role("link", name="child").click()
    expect(page.get_by_role("link", name=parent[:8])).to_be_visible()
    page.get_by_role("link", name="Lineage").click()
    expect(page.get_by_text("digits")).to_be_visible()
    expect(page.get_by_role("link", name="committed")).to_be_visible()


# --- too much, not there


def test_ten_thousand_parameters(watched: Watched, coded: Served) -> None:
    run_id = coded.new_run(experiment_id="0", run_name="wide", start_time=START)
    for start in range(0, 10_000, 100):
        coded.log(
            run_id, params=[{"key": f"p{number:05}", "value": str(number)} for number in range(start, start + 100)]
        )
    page = tab(watched, run_id, "overview")
    expect(page.get_by_role("button", name="More: 200 of 10000 are shown")).to_be_visible()
    page.get_by_label("Find in parameters").fill("p09999")
    expect(page.get_by_role("row", name="p09999 9999")).to_be_visible()
    assert page.evaluate("document.querySelectorAll('*').length") < 1500


def test_a_run_that_was_purged_meanwhile(watched: Watched, coded: Served) -> None:
    page = tab(watched, "0123456789abcdef", "code")
    expect(page.get_by_role("alert")).to_contain_text("not found")
    tab(watched, coded.runs[0], "overview")
    page.route("**/runs/compare**", lambda route: route.fulfill(json={"runs": [], "absent": [coded.runs[0]]}))
    tab(watched, coded.runs[0], "overview")
    expect(page.get_by_role("alert")).to_contain_text("purged")
