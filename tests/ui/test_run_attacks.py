"""What is recorded in a run does nothing on its page: names, notes, files, code, what a program said (rows B4, B5).

Every test fails, too, if a script of an attack has run in the page, or if anything is asked of another machine.
"""

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from tests.ui.conftest import ATTACK, Served, Watched
from tests.ui.recorded import EVIL, EVIL_FILES

SERVED = "coded"
#: What must not be there: elements that only an attack makes, links that only it has.
WRONG = """() => [...document.querySelectorAll("a[href], [onerror], [onload], iframe, base, main script, main img")]
    .filter(
    (one) => one.localName !== "a" || !/^(https?|mailto):$/.test(one.protocol)
      || (one.origin !== location.origin && !/^https:\\/\\/(github|example)\\.com$/.test(one.origin)))
    .map((one) => one.outerHTML.slice(0, 200))"""


def visit(watched: Watched, path: str) -> Page:
    page = watched.open(path)
    page.wait_for_load_state("networkidle")
    return page


def leave(watched: Watched) -> None:
    """Pass over what the browser says that it did not do."""
    assert watched.page.evaluate("window.attacked") is None
    watched.page.goto("about:blank")
    watched.wrong.clear()


def test_no_text_is_more_than_text(watched: Watched, coded: Served) -> None:
    for tab in ("overview", "metrics", "artifacts", "code", "environment", "logs", "lineage"):
        page = visit(watched, f"/runs/{coded.evil}?tab={tab}")
        assert page.evaluate(WRONG) == [], tab
        expect(page.get_by_role("heading", level=1)).to_contain_text(ATTACK)


def test_a_note_is_elements_of_ours_and_nothing_else(watched: Watched, coded: Served) -> None:
    page = visit(watched, f"/runs/{coded.evil}")
    note = page.locator(".note")
    expect(note).to_contain_text("<script>window.attacked=1</script>")
    assert note.locator("a").count() == 0
    assert note.locator("img, iframe, script").count() == 0
    expect(note.get_by_role("table")).to_be_visible()


def test_a_file_is_shown_as_text(watched: Watched, coded: Served) -> None:
    for name in set(EVIL_FILES) - {"escape.html"}:
        page = visit(watched, f"/runs/{coded.evil}?tab=artifacts&path={quote(name, safe='')}")
        expect(page.get_by_label(f"Preview of {name}")).to_be_visible()
        if name == "a.svg":  # a picture runs nothing
            expect(page.get_by_role("img", name=name)).to_be_visible()
        else:
            assert page.evaluate(WRONG) == [], name
        assert page.evaluate("[({}).attacked, window.attacked]") == [None, None], name


def test_a_parquet_file_harms_nothing(watched: Watched, coded: Served) -> None:
    page = visit(watched, f"/runs/{coded.evil}?tab=artifacts&path=a.parquet")
    shown = page.get_by_label("Preview of a.parquet")
    expect(shown.get_by_role("columnheader")).to_have_text([f"{ATTACK}string", "__proto__string"])
    expect(shown.get_by_role("cell")).to_have_text([ATTACK, "x", "=1+1", ""])
    assert page.evaluate(WRONG) == []
    visit(watched, f"/runs/{coded.evil}?tab=artifacts&path=b.parquet")
    expect(page.get_by_label("Preview of b.parquet")).to_contain_text("takes too long", timeout=15_000)
    expect(page.get_by_role("heading", level=1)).to_contain_text(ATTACK)


@pytest.mark.parametrize("scripts", [False, True], ids=["as it comes", "with its scripts"])
def test_a_document_reaches_nothing(watched: Watched, coded: Served, scripts: bool) -> None:
    answered: list[str] = []
    watched.page.on("response", lambda answer: answered.append(answer.url))
    page = visit(watched, f"/runs/{coded.evil}?tab=artifacts&path=escape.html")
    if scripts:
        page.get_by_role("button", name="Run its scripts").click()
        expect(page.frame_locator("iframe").get_by_text(re.compile("^said $"))).to_be_visible()
    else:
        expect(page.frame_locator("iframe").get_by_text("waiting")).to_be_visible()
    page.frames[-1].evaluate("() => { location.href = 'https://evil.example/left'; }")
    page.wait_for_timeout(200)
    assert page.url.startswith(f"{coded.url}/runs/{coded.evil}")
    assert len(page.context.pages) == 1
    assert page.evaluate("[localStorage.getItem('theme'), window.attacked]") == [None, None]
    reached = re.compile("escaped|/session|experiments/create|runs/delete|/logout|/models|evil")
    assert [one for one in answered if reached.search(one)] == []
    leave(watched)


def test_a_document_is_not_shown_outside_of_the_page(watched: Watched, coded: Served) -> None:
    at = f"{coded.url}/show-artifact?run_id={coded.evil}&path=escape.html&scripts=true"
    answer = watched.page.goto(at)
    assert answer is not None
    assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
    page = watched.open("/")
    assert page.evaluate("(at) => fetch(at).then((one) => one.status)", at) == 400
    leave(watched)


def test_code_is_shown_as_text(watched: Watched, coded: Served) -> None:
    page = visit(watched, f"/runs/{coded.evil}?tab=code&path={quote(EVIL, safe='')}")
    expect(page.get_by_label(f"Text of {EVIL}")).to_contain_text(ATTACK)
    for name in (EVIL, "__proto__", "constructor"):
        page.get_by_role("button", name=f"new {name}").click()
        expect(page.get_by_role("region", name=f"Changes of {name}")).to_contain_text(ATTACK)
    assert page.evaluate(WRONG) == []


def test_beside_another_run(watched: Watched, coded: Served) -> None:
    for tab in ("params", "metrics", "environment", "code", "images", "charts"):
        page = visit(watched, f"/compare?runs={coded.evil},{coded.runs[0]}&tab={tab}")
        assert [one for one in page.evaluate(WRONG) if tab != "images" or not one.startswith("<img")] == [], tab


def test_addresses_that_mean_nothing(watched: Watched, coded: Served) -> None:
    pair = f"{coded.evil},{coded.runs[0]}"
    for path in (
        f"/runs/{quote('<img src=x onerror=window.attacked=1>')}?tab=code",
        f"/runs/{coded.evil}?tab=__proto__",
        f"/runs/{coded.evil}?tab=constructor",
        f"/compare?runs={quote(ATTACK, safe='')},x&tab=toString",
        f"/compare?runs={pair}&of=constructor&tab=metrics",
        f"/compare?runs={pair}&tab=code&base={quote(ATTACK, safe='')}&with=..%2Fx",
    ):
        page = visit(watched, path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert page.evaluate(WRONG) == [], path
