"""The pages of models: what they show, what who may changes there, and that nothing in a name gets out of its place."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

from gittrack.registry.registry import Registry
from gittrack.server.hub.roles import Grant, Role
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from tests.conftest import run_git
from tests.server.team import Team, serving
from tests.ui.conftest import ATTACK
from tests.ui.models import logged_in, model, register
from tests.ui.sound import TOO_WIDE, sound

#: As much of the attack as a model's name can have.
NAME = ATTACK.replace("/", "").replace(":", "")
PAGES = ("/models", "/models/iris", "/models/iris/versions/2", "/models/iris?diff=1,2")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """A server with `iris` in three versions, whose staging takes a signature."""
    folder = tmp_path_factory.mktemp("team")
    run_git(folder, "init", "--quiet")
    (folder / "pyproject.toml").write_text(
        "[tool.gittrack.registry]\nstaging = {signatures = 1}\narchived = {reason = true}\n"
    )
    with serving(folder) as found:
        model(found)
        yield found


@pytest.fixture
def team(started: Team) -> Team:
    """The same, asked over a new connection: the server closes those that nothing comes over."""
    started.close()
    return started


def opened(page: Page, url: str) -> Page:
    page.goto(url)
    expect(page.locator("h1")).to_be_attached()
    page.wait_for_load_state("networkidle")
    return page


def test_the_pages_of_models_are_accessible_and_fit(browser: Browser, team: Team) -> None:
    with logged_in(browser, team) as watched:
        for path in PAGES:
            page = opened(watched.page, team.url + path)
            if path == "/models/iris":
                page.get_by_role("button", name="Stage of v3").click()
            if path.endswith("versions/2"):
                page.get_by_role("button", name="Edit the requirements").click()
            sound(watched, path)


def test_models_are_searched_and_the_address_says_so(browser: Browser, team: Team) -> None:
    with logged_in(browser, team) as watched:
        page = watched.open("/models")
        page.get_by_role("searchbox", name="Search").fill("kinds of")
        expect(page.get_by_role("link", name="iris")).to_be_visible()
        assert "search=kinds+of" in page.url
        watched.open("/models?search=nothing like it")
        expect(page.get_by_text("No model is called so.")).to_be_visible()


def test_a_version_is_promoted_with_the_keyboard_alone(browser: Browser, team: Team) -> None:
    assert team.post("registered-models/create", {"name": "wine"}).ok
    register(team, "wine", 0.7)
    with logged_in(browser, team) as watched:
        page = watched.open("/models/wine")
        expect(page.get_by_role("button", name="Stage of v1")).to_be_visible()
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Stage of v1":
                break
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Stage of wine v1")
        expect(dialog.get_by_role("combobox")).to_be_focused()
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        expect(page.get_by_role("button", name="Stage of v1")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.type("Prod")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.type("it is the best we have")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("row", name="v1").first).to_contain_text("Production")
        expect(page.get_by_role("region", name="History")).to_contain_text("it is the best we have")
    assert team.app.hub.registry.get_version("wine", 1).current_stage == "Production"


def test_what_is_refused_is_said_in_the_dialog(browser: Browser, team: Team) -> None:
    with logged_in(browser, team) as watched:
        page = watched.open("/models/iris")
        page.get_by_role("button", name="Stage of v3").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Staging needs a signature of an allowed signer")
        dialog.get_by_role("button", name="Put it there").click()
        expect(dialog.get_by_role("alert")).to_contain_text("must be signed")
        dialog.get_by_label("Stage").select_option("Archived")
        expect(dialog.get_by_label("Reason")).to_have_attribute("required", "")
        dialog.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        watched.wrong = [one for one in watched.wrong if "403" not in one]


def test_aliases_tags_and_the_description(browser: Browser, team: Team) -> None:
    with logged_in(browser, team) as watched:
        page = watched.open("/models/iris")
        page.get_by_role("button", name="Alias for v3").click()
        page.get_by_role("dialog").get_by_label("Alias", exact=True).fill("@challenger")
        page.get_by_role("button", name="Give it").click()
        expect(page.get_by_role("row", name="v3").first).to_contain_text("@challenger")
        page.get_by_role("button", name="Take @challenger away").click()
        page.get_by_role("dialog").get_by_role("button", name="Take it away").click()
        expect(page.get_by_role("button", name="Take @challenger away")).to_have_count(0)
        expect(page.get_by_role("region", name="History")).to_contain_text("@challenger taken away")
        page.get_by_role("button", name="Edit the description").click()
        page.get_by_role("textbox", name="Description").fill("Tells four kinds apart.")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("p.text")).to_contain_text("Tells four kinds apart.")
        page.get_by_role("button", name="Add a tag").click()
        page.get_by_role("textbox", name="Tag", exact=True).fill("team")
        page.get_by_role("textbox", name="Value of the tag").fill("blue")
        page.get_by_role("button", name="Set", exact=True).click()
        page.get_by_role("button", name="Remove the tag team").click()
        expect(page.get_by_role("button", name="Remove the tag team")).to_have_count(0)
    assert team.app.hub.registry.get_model("iris").description == "Tells four kinds apart."


def test_a_version_and_its_lineage(browser: Browser, team: Team) -> None:
    with logged_in(browser, team) as watched:
        page = watched.open("/models/iris")
        page.get_by_role("link", name="v2").first.click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("iris v2")
        lineage = page.get_by_role("region", name="Lineage")
        for text in ("iris.csv", "trained 0.9", "iris v2", "Production", "@champion"):
            expect(lineage).to_contain_text(text)
        page.get_by_text("As a list").click()
        expect(page.get_by_text("local: data/iris.csv")).to_be_visible()
        expect(page.get_by_role("row", name="count long, optional")).to_be_visible()
        expect(page.get_by_role("region", name="curl")).to_contain_text('"columns":["petal","count"]')
        expect(page.get_by_role("region", name="Files")).to_contain_text("requirements.txt")
        lineage.get_by_role("link", name="trained 0.9").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text("trained 0.9")


def test_requirements_are_changed_and_taken_back(browser: Browser, team: Team) -> None:
    with logged_in(browser, team) as watched:
        page = watched.open("/models/iris/versions/1")
        page.get_by_role("button", name="Edit the requirements").click()
        lines = page.get_by_label("Requirements, one a line")
        expect(lines).to_have_value("scikit-learn==1.7.2\nnumpy==2.3.1")
        lines.fill("--index-url=http://evil")
        page.get_by_role("button", name="Use these").click()
        expect(page.get_by_role("alert")).to_contain_text("index-url")
        lines.fill("scikit-learn==1.7.2\nnumpy==2.4.0")
        page.get_by_label("Reason").fill("a fix of numpy's")
        page.get_by_role("button", name="Use these").click()
        expect(page.get_by_text("Changed since it was registered")).to_be_visible()
        expect(page.locator("del")).to_have_text("numpy==2.3.1")
        page.get_by_role("button", name="Edit the requirements").click()
        page.get_by_role("button", name="Back to those recorded").click()
        expect(page.get_by_text("Changed since it was registered")).to_have_count(0)
        expect(page.get_by_role("region", name="History")).to_contain_text("a fix of numpy's")
        watched.wrong = [one for one in watched.wrong if "400" not in one]


def test_two_versions_beside_each_other(browser: Browser, team: Team) -> None:
    with logged_in(browser, team) as watched:
        page = watched.open("/models/iris")
        page.get_by_label("Compare").select_option("1")
        page.get_by_label("with").select_option("2")
        page.get_by_role("button", name="Show what differs").click()
        assert page.url.endswith("/models/iris?diff=1,2")
        expect(page.get_by_role("row", name="lr 0.08 0.09")).to_be_visible()
        expect(page.get_by_role("row", name="acc 0.8 0.9")).to_be_visible()
        expect(page.get_by_role("region", name="Files")).to_contain_text("extra")


def test_a_reader_sees_no_buttons_and_no_hidden_run(browser: Browser, team: Team) -> None:
    with logged_in(browser, team, team.token(Grant(Role.READER, models="iris"))) as watched:
        page = watched.open("/models/iris")
        expect(page.get_by_role("region", name="Versions")).to_contain_text("v3")
        for name in ("Stage of v3", "Alias for v3", "Edit the description", "Add a tag"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        page = watched.open("/models/iris/versions/2")
        expect(page.get_by_role("region", name="Lineage")).to_contain_text("run that is hidden")
        expect(page.get_by_text("trained 0.9")).to_have_count(0)
        page = watched.open("/models/wine")
        expect(page.get_by_role("alert")).to_contain_text("not found")
        watched.wrong = [one for one in watched.wrong if "404" not in one]


def test_what_clones_disagree_about_is_decided(browser: Browser, tmp_path: Path) -> None:
    folder, hub, bo = tmp_path / "server", tmp_path / "hub.git", tmp_path / "bo"
    folder.mkdir()
    run_git(folder, "init", "--quiet")
    subprocess.run(["git", "init", "--quiet", "--bare", str(hub)], check=True)
    run_git(folder, "remote", "add", "origin", str(hub))
    run_git(folder, "commit", "--quiet", "--allow-empty", "-m", "begin")
    with serving(folder) as team:
        model(team)
        team.tracker.flush()
        shared = [f"{ref}:{ref}" for ref in ("refs/tags/models/*", "refs/runs/*", "refs/gittrack/registry/*")]
        run_git(folder, "push", "--quiet", "origin", "HEAD:refs/heads/main", *shared)
        subprocess.run(["git", "clone", "--quiet", str(hub), str(bo)], check=True, stderr=subprocess.DEVNULL)
        run_git(bo, "fetch", "--quiet", "origin", *shared)
        tracker = Tracker(Repo.find(bo, create=True), strict=True)
        Registry(tracker).promote("iris", 3, "Production", archive_existing=True, reason="<b>better</b>")
        tracker.close()
        moved = {"name": "iris", "version": "1", "stage": "Production", "archive_existing_versions": True}
        assert team.post("model-versions/transition-stage", moved).ok
        run_git(bo, "push", "--quiet", "origin", shared[0])
        run_git(folder, "fetch", "--quiet", "origin", "refs/tags/models/*:refs/gittrack/remotes/origin/tags/models/*")
        with logged_in(browser, team) as watched:
            page = watched.open("/models/iris")
            expect(page.get_by_role("heading", name="Clones disagree about Production")).to_be_visible()
            expect(page.get_by_text("<b>better</b>")).to_be_visible()
            page.get_by_role("button", name="Decide…").click()
            page.get_by_role("radio", name="v3").check()
            page.get_by_role("dialog").get_by_label("Reason").fill("it is the newer one")
            page.get_by_role("dialog").get_by_role("button", name="Decide").click()
            expect(page.get_by_role("heading", name="Clones disagree")).to_have_count(0)
            expect(page.get_by_role("row", name="v3").first).to_contain_text("Production")


def test_an_attack_in_every_text_of_a_model(browser: Browser, team: Team) -> None:
    said = {"name": NAME, "description": ATTACK, "tags": [{"key": "k", "value": ATTACK}]}
    assert team.post("registered-models/create", said).ok
    files = {
        "MLmodel": f"flavors: {{'{'x'}': {{}}}}\nsignature: {{inputs: '[]'}}\n".encode(),
        "requirements.txt": ATTACK.encode(),
    }
    run_id = register(team, NAME, 0.5, **files)
    described = {"name": NAME, "version": "1", "description": ATTACK}
    assert team.ask("PATCH", "/api/2.0/mlflow/model-versions/update", described).ok
    assert team.post(
        "model-versions/transition-stage", {"name": NAME, "version": "1", "stage": "Production", "reason": ATTACK}
    ).ok
    assert team.post("runs/set-tag", {"run_id": run_id, "key": "mlflow.runName", "value": ATTACK}).ok == {}
    address = quote(NAME, safe="")
    with logged_in(browser, team) as watched:
        for path in ("/models", f"/models/{address}", f"/models/{address}/versions/1", f"/models/{address}?diff=1,1"):
            page = opened(watched.page, team.url + path)
            expect(page.locator("main")).to_contain_text(NAME)
            assert page.evaluate(TOO_WIDE) == []
        opened(page, f"{team.url}/models/{address}")
        page.get_by_role("button", name="Stage of v1").click()
        expect(page.get_by_role("dialog")).to_contain_text(NAME)
