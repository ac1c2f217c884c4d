"""The page in a real Chromium: a server with runs of every kind, and a browser that forgives nothing.

A message on the console, an error of the page, a violation of its Content-Security-Policy or a request to any other
machine fails the test in which it happens.
"""

import contextlib
import http.client
import json
import math
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, ViewportSize, sync_playwright

from gittrack.server.hub import website
from tests.conftest import plain_environ, run_git
from tests.ui import recorded

pytest.register_assert_rewrite("tests.ui.sound")  # so that what is wrong is said

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZES: list[ViewportSize] = [
    {"width": 360, "height": 740},
    {"width": 1280, "height": 800},
    {"width": 3840, "height": 2160},
]
STEPS = 3000
SPIKES = range(50, STEPS, 500)


@pytest.fixture(scope="package")  # async tests of other packages do not run beside Playwright
def browser() -> Iterator[Browser]:
    missing = None
    if CHROMIUM is None:
        missing = "there is no Chromium on this machine"
    elif not website.is_built():
        missing = "the page was not built: GITTRACK_WITHOUT_PAGE was set when this was installed"
    if missing is not None:
        if os.environ.get("GITTRACK_BROWSER_TESTS") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    assert CHROMIUM is not None
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


START = recorded.START
ATTACK = recorded.ATTACK


@dataclass
class Served:
    """`gittrack ui`, its link, and the runs that it shows."""

    link: str
    runs: list[str]
    evil: str
    experiment: str = ""

    @property
    def url(self) -> str:
        return self.link.partition("/login")[0]

    def ask(self, method: str, path: str, body: Any) -> Any:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        try:
            connection.request(method, path, data, {"content-type": kind})
            answer = connection.getresponse()
            said = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, said
        return json.loads(said)

    def post(self, path: str, **said: Any) -> Any:
        return self.ask("POST", f"/api/2.0/mlflow/{path}", said)

    def new_experiment(self, name: str) -> str:
        """Of that name and more: who works through a module's tests in two parts makes what they need twice."""
        return str(self.post("experiments/create", name=f"{name} {secrets.token_hex(4)}")["experiment_id"])

    def new_run(self, **said: Any) -> str:
        return str(self.post("runs/create", **said)["run"]["info"]["run_id"])

    def log(self, run_id: str, **said: Any) -> None:
        self.post("runs/log-batch", run_id=run_id, **said)

    def seed(self) -> None:
        """Seven runs of all sorts, and one whose every text is an attack."""
        self.experiment = experiment = self.post("experiments/create", name="vision")["experiment_id"]
        for number in range(7):
            run_id = self.new_run(experiment_id=experiment, run_name=f"run-{number}", start_time=START + number)
            params = [{"key": "lr", "value": f"{10.0**-number:g}"}, {"key": "epochs", "value": "30"}]
            point = {"key": "acc", "value": number / 10, "timestamp": START, "step": 0}
            self.log(run_id, params=params, tags=[{"key": "team", "value": "blue"}], metrics=[point])
            self.post("runs/update", run_id=run_id, status="FINISHED", end_time=START + 90_000)
            self.runs.append(run_id)
        first = self.runs[0]
        values = [math.exp(-step / 400) + (50.0 if step in SPIKES else 0.0) for step in range(STEPS)]
        points = [{"key": "train/loss", "value": v, "timestamp": START + s, "step": s} for s, v in enumerate(values)]
        for start in range(0, STEPS, 1000):
            self.log(first, metrics=points[start : start + 1000])
        root = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{first}/artifacts"
        for path, data in {
            "notes.txt": b"what I saw",
            "conf/a.json": b'{"a":[1,2]}',
            "page.html": ATTACK.encode(),
        }.items():
            self.ask("PUT", f"{root}/{path}", data)
        self.evil = self.new_run(experiment_id=experiment, run_name=ATTACK, start_time=START - 1000)
        nothing = [{"key": "acc", "value": "NaN", "timestamp": 1, "step": 0}]
        note = [{"key": "mlflow.note.content", "value": ATTACK}]
        self.log(self.evil, metrics=nothing, params=[{"key": "lr", "value": ATTACK}], tags=note)
        self.post("registered-models/create", name="resnet")
        self.post("model-versions/create", name="resnet", source=f"runs:/{first}/conf", run_id=first)
        self.post("model-versions/transition-stage", name="resnet", version="1", stage="Production")
        self.post("registered-models/alias", name="resnet", version="1", alias="champion")


@contextlib.contextmanager
def ui(folder: Path, environ: Mapping[str, str] | None = None) -> Iterator[Served]:
    """`gittrack ui` in a repository; what it says is in a file, for a pipe that nobody reads becomes full."""
    command = [sys.executable, "-m", "gittrack", "ui", "--no-browser"]
    log = folder.with_suffix(".log")
    with log.open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, stderr=said, env=environ or plain_environ())
    try:
        yield Served(_link(process, log), [], "")
    finally:
        process.terminate()
        assert process.wait(60) == 0, log.read_text()[-5000:]


def _link(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where the page is, as soon as the server says so."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        found = re.search(r"are at (http://127\.0\.0\.1:\d+/login#token=\S+) ", log.read_text())
        if found is not None:
            return found[1]
        time.sleep(0.02)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("ui")
    run_git(folder, "init", "--quiet")
    with ui(folder) as found:
        found.seed()
        yield found


@pytest.fixture(scope="package")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Runs with code, an environment and files, for modules that say so: ``SERVED = "coded"``."""
    folder = tmp_path_factory.mktemp("coded")
    runs = recorded.seed(folder)
    with ui(folder) as found:
        *found.runs, found.evil = runs
        yield found


class Watched:
    """A page, and what went wrong in it."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        self.asked: list[str] = []
        #: What was asked and is not answered yet; news go on for ever.
        self.pending: set[Request] = set()
        page.on("console", lambda message: self._said(message.type, message.text))
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("request", self._asks)
        page.on("requestfinished", self._has)
        page.on("requestfailed", self._has)

    def _said(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.wrong.append(f"{kind}: {text}")

    def _asks(self, request: Request) -> None:
        url = request.url
        self.asked.append(url)
        if request.resource_type != "eventsource":
            self.pending.add(request)
        if not url.startswith((self.url, "blob:", "data:")):
            self.wrong.append(f"asks {url}")

    def _has(self, request: Request) -> None:
        self.pending.discard(request)

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page


def log_in(context: BrowserContext, link: str) -> None:
    """As the page of the login does with a link, without that page and the one that it leads to."""
    url, _, token = link.partition("/login#token=")
    answer = context.request.post(f"{url}/login", data={"token": token})
    assert answer.ok, answer.text()


@pytest.fixture
def watched(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A page of somebody who is logged in; the parameter, if there is one, is (size, theme)."""
    size: ViewportSize
    theme: Literal["light", "dark"]
    size, theme = getattr(request, "param", (SIZES[1], "light"))
    served: Served = request.getfixturevalue(getattr(request.module, "SERVED", "served"))
    context = browser.new_context(viewport=size, color_scheme=theme, reduced_motion="reduce", accept_downloads=True)
    log_in(context, served.link)
    page = context.new_page()
    found = Watched(page, served.url)
    yield found
    attacked = page.evaluate("() => window.attacked === 1")
    context.close()
    assert not attacked
    assert found.wrong == []
