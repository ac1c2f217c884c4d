"""What others have recorded does nothing in the browser of somebody who looks at it (rows B2, B4, B5, B6).

Every test fails, too, if a script of an attack has run, or if the page violates its Content-Security-Policy.
"""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Error, Page

from tests.ui.conftest import ATTACK, START, Served, Watched

RUN = "window.attacked=1;try{top.attacked=1}catch(e){};fetch('/api/2.0/mlflow/experiments/search',{method:'POST'})"
SVG = f"<svg xmlns='http://www.w3.org/2000/svg' onload=\"{RUN}\"><script>{RUN}</script></svg>"
HTML = f'<!doctype html><body onload="{RUN}"><script>{RUN}</script><iframe srcdoc="<script>{RUN}</script>"></iframe>'
#: Files that do something where a browser takes them for what they say they are, or for what they look like.
FILES = {
    "a.html": HTML, "a.htm": HTML, "a.xhtml": f"<html xmlns='http://www.w3.org/1999/xhtml'><script>{RUN}</script></html>",
    "a.svg": SVG, "a.svgz": SVG,
    "a.xml": "<?xml version='1.0'?><?xml-stylesheet type='text/xsl' href='a.xsl'?><x/>",
    "a.xsl": f"<xsl:stylesheet version='1.0' xmlns:xsl='http://www.w3.org/1999/XSL/Transform'><xsl:template match='/'>"
             f"<html><script>{RUN}</script></html></xsl:template></xsl:stylesheet>",
    "a.pdf": f"%PDF-1.4\n1 0 obj<</OpenAction<</S/JavaScript/JS({RUN})>>>>endobj\ntrailer<</Root 1 0 R>>",
    "a.md": f"# x\n{HTML}\n[x](javascript:{RUN})", "a.csv": f"=cmd|' /C calc'!A0,{HTML}",
    "a.mhtml": f"MIME-Version: 1.0\nContent-Type: text/html\n\n{HTML}", "a.js": RUN, "a.mjs": RUN,
    "a.css": "*{display:none}",
    "a.ipynb": json.dumps({"cells": [{"cell_type": "markdown", "source": [HTML], "metadata": {}}], "metadata": {},
                           "nbformat": 4, "nbformat_minor": 5}),
    "a.png": HTML, "a.txt": HTML, "a.gif": f"GIF89a/*{HTML}*/=1;{RUN}", "a": HTML,
    "a.json": f'{{"x": "{ATTACK[:20]}</script>"}}',
}  # fmt: skip


@pytest.fixture(scope="module")
def files(served: Served) -> tuple[str, str]:
    """The experiment and the run that has them all."""
    experiment = served.new_experiment("files")
    run_id = served.new_run(experiment_id=experiment, run_name="files", start_time=START)
    for name, text in FILES.items():
        path = f"{experiment}/{run_id}/artifacts/{quote(name)}"
        served.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", text.encode())
    return experiment, run_id


def visit(page: Page, address: str) -> None:
    """Go there; a file that is handed out as a download goes nowhere."""
    with contextlib.suppress(Error):
        page.goto(address)
    page.wait_for_timeout(30)


def attacked(page: Page) -> bool:
    return bool(page.evaluate("() => window.attacked === 1"))


@pytest.mark.parametrize("where", ["run", "tree"])
def test_files_run_nowhere(watched: Watched, served: Served, files: tuple[str, str], where: str) -> None:
    """Opened by themselves (B4)."""
    experiment, run_id = files
    page = watched.page
    for name in FILES:
        path = quote(name)
        at = {
            "run": f"/get-artifact?run_id={run_id}&path={path}",
            "tree": f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run_id}/artifacts/{path}",
        }[where]
        visit(page, served.url + at)
        assert not attacked(page), name
    watched.wrong.clear()  # a sandbox says what it did not do


def test_files_run_in_no_frame(watched: Watched, served: Served, files: tuple[str, str]) -> None:
    """As part of a page, were somebody able to write into one: frames, objects, scripts, styles, workers (B4)."""
    _, run_id = files
    for name in FILES:
        page = watched.open("/login.css")
        at = f"/get-artifact?run_id={run_id}&path={quote(name)}"
        page.evaluate(
            """(at) => {
              const url = trustedTypes.createPolicy("attack", {createScriptURL: (text) => text}).createScriptURL(at);
              const add = (kind, facts) => document.body.append(Object.assign(document.createElement(kind), facts));
              for (const kind of ["iframe", "embed", "img"]) add(kind, {src: url});
              add("object", {data: url});
              add("link", {rel: "stylesheet", href: at});
              for (const type of ["text/javascript", "module"]) add("script", {type, src: url});
              new Worker(url);
            }""",
            at,
        )
        page.wait_for_timeout(60)
        assert not attacked(page), name
        assert page.evaluate("() => getComputedStyle(document.body).display") != "none", name
    page.goto("about:blank")  # what is still being loaded ends
    watched.wrong.clear()  # what was not loaded is said


TEXTS = ("run name", "tag", "param", "note", "metric", "experiment", "model", "dataset", "file")


def test_no_text_is_more_than_text(watched: Watched, served: Served) -> None:
    """An attack in everything that has a text, on every page that shows it (B5)."""
    experiment = served.post("experiments/create", name=f"x {ATTACK}")["experiment_id"]
    tags = [{"key": "k", "value": ATTACK}, {"key": "mlflow.note.content", "value": f"# {ATTACK}\n[x](javascript:x)"},
            {"key": "mlflow.source.name", "value": "javascript:window.attacked=1"}]  # fmt: skip
    run_id = served.new_run(experiment_id=experiment, run_name=ATTACK, start_time=START, tags=tags)
    other = served.new_run(experiment_id=experiment, run_name=f"{ATTACK}2", start_time=START)
    for one in (run_id, other):
        served.log(
            one,
            params=[{"key": "p", "value": ATTACK + one}],
            metrics=[{"key": "m/a.b-c", "value": "NaN", "timestamp": START, "step": 0}],
        )
    dataset = {"name": ATTACK, "digest": "<b>1</b>", "source_type": ATTACK, "source": ATTACK, "schema": ATTACK}
    served.post(
        "runs/log-inputs", run_id=run_id, datasets=[{"dataset": dataset, "tags": [{"key": "k", "value": ATTACK}]}]
    )
    name = '<img src=x onerror="window.attacked=1">.txt'
    path = f"{experiment}/{run_id}/artifacts/{quote(name)}"
    served.ask("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", ATTACK.encode())
    model = "<img src=x onerror=window.attacked=1>"
    served.post("registered-models/create", name=model, description=ATTACK, tags=[{"key": "k", "value": ATTACK}])
    served.post("model-versions/create", name=model, source=f"runs:/{run_id}/{name}", description=ATTACK)
    filters = quote(ATTACK)
    for at in (
        "/", f"/?experiment={experiment}", f"/?filter={filters}", f"/?experiments={experiment}", f"/runs/{run_id}",
        f"/compare?runs={run_id},{other}", "/models", f"/models/{quote(model)}", f"/models/{quote(ATTACK, safe='')}",
        f"/runs/{quote(ATTACK, safe='')}", f"/login?next={filters}",
    ):  # fmt: skip
        page = watched.page
        visit(page, served.url + at)
        page.wait_for_timeout(400)
        assert not attacked(page), at
        assert page.locator("img[onerror], a[href^='javascript:']").count() == 0, at
    policy = [one for one in watched.wrong if "Content Security Policy" in one]
    assert policy == []
    watched.wrong.clear()  # that such a run or filter is none is said, too


# --- other sites


class Evil(http.server.BaseHTTPRequestHandler):
    page = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(type(self).page)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def evil() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
        thread.join(10)


def test_a_page_of_another_site_can_do_nothing(watched: Watched, served: Served, evil: str) -> None:
    """With the session of somebody who is logged in: forms, fetches, frames, pictures, windows (B2, B3, B6)."""
    watched.open("/")
    before = len(served.post("experiments/search", max_results=1000)["experiments"])
    target = f"{served.url}/api/2.0/mlflow/experiments/create"
    Evil.page = f"""<!doctype html><iframe id=f src="{served.url}/"></iframe><img src="{served.url}/logout">
      <form id=form method=post action="{target}" target=f enctype="text/plain">
      <input name='{{"name":"forged","x":"' value='"}}'></form>
      <script>
        const said = [];
        const sent = [
          {{}}, {{mode: "no-cors"}}, {{credentials: "include"}}, {{mode: "no-cors", credentials: "include"}},
          {{credentials: "include", headers: {{"content-type": "application/json"}}}},
          {{credentials: "include", headers: {{"content-type": "text/plain"}}, mode: "no-cors"}},
        ];
        const body = '{{"name":"forged"}}';
        window.done = Promise.all(sent.map((one) => fetch("{target}", {{method: "POST", body, ...one}})
          .then((answer) => said.push(answer.type + answer.status), () => said.push("refused"))))
          .then(() => fetch("{served.url}/session", {{credentials: "include"}}).then(() => said.push("read"), () => 0))
          .then(() => {{ navigator.sendBeacon("{target}", '{{"name":"forged"}}'); form.submit(); return said; }});
      </script>""".encode()
    other = watched.page.context.new_page()
    other.goto(evil)
    said: list[str] = other.evaluate("() => window.done")
    other.wait_for_timeout(300)
    assert "read" not in said
    assert set(said) <= {"refused", "opaque0"}
    frames = [one for one in other.frames if one.url.startswith(served.url) and one.url != "about:blank"]
    for frame in frames:  # nothing of the page is in it
        assert frame.locator("body *").count() == 0 or "chrome-error" in frame.url
    after = served.post("experiments/search", max_results=1000)["experiments"]
    assert len(after) == before
    assert all(one["name"] != "forged" for one in after)
    assert watched.page.goto(f"{served.url}/session").ok  # type: ignore[union-attr]  # he is still logged in
    watched.wrong.clear()


@pytest.mark.parametrize(
    "wanted",
    ["//evil.example/", "https://evil.example/", "/\\evil.example", "javascript:attacked=1", "/%09/x.example"],
)
def test_logging_in_leads_nowhere_else(browser: Browser, served: Served, wanted: str) -> None:
    """B6."""
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.link.replace("/login#", f"/login?next={quote(wanted, safe='')}#"))
    page.wait_for_url(lambda url: not url.startswith(f"{served.url}/login"), timeout=10_000)
    assert page.url.startswith(f"{served.url}/")
    assert all(one.startswith((served.url, "data:", "blob:")) for one in asked)
    cookies: Any = context.cookies()
    assert [(one["httpOnly"], one["sameSite"]) for one in cookies] == [(True, "Strict")]
    context.close()
