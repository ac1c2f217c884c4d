"""The terminal view, driven by Textual's own pilot at 80 columns and 24 lines, read as text."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from gittrack.cli import screens
from gittrack.track.runs import Tracker
from tests.cli.conftest import START, Cli, open_tracker
from tests.conftest import Sandbox

MARKUP = "[bold red]x[/] [@click=app.quit]y[/]"
ATTACK = f"{MARKUP} \x1b]0;owned\x07\x1b[2J"  # no run may be called that, but a parameter may have it
Story = Callable[["Seen"], Awaitable[None]]


class Seen:
    """The program, and what is on its screen."""

    def __init__(self, pilot: Pilot[None]) -> None:
        self.pilot = pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    @property
    def screen(self) -> str:
        """Every line, as a person reads it."""
        strips = self.pilot.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    @property
    def names(self) -> list[str]:
        """The runs of the table, from the top."""
        table = self.pilot.app.screen.query_one(DataTable)
        return [str(table.get_row_at(row)[1]) for row in range(table.row_count)]

    @property
    def text(self) -> str:
        """All of a screen that scrolls."""
        return str(self.pilot.app.screen.query_one("#text", Static).visual)

    async def until(self, seen: Callable[[], bool]) -> None:
        """Wait until something is seen; a test that waits for what never comes fails with the screen."""
        end = time.monotonic() + 40
        while True:
            await self.pilot.pause(0.02)
            if self.pilot.app._exit or seen():
                return
            assert time.monotonic() < end, self.screen


def play(tracker: Tracker, story: Story, *, size: tuple[int, int] = (80, 24), filter_string: str = "") -> None:
    async def run() -> None:
        app = screens.View(tracker, filter_string=filter_string, every=0.2)
        async with app.run_test(size=size) as pilot:
            seen = Seen(pilot)
            await seen.until(lambda: bool(pilot.app.screen.query(DataTable)) and "run" in seen.screen)
            await seen.until(lambda: bool(pilot.app.screen.query_one(DataTable).columns))
            await story(seen)

    asyncio.run(run())


@pytest.fixture
def tracker(project: Sandbox) -> Iterator[Tracker]:
    tracker = open_tracker(project.path)
    yield tracker
    tracker.close()


def test_the_table_fits_a_small_terminal(tracker: Tracker) -> None:
    async def story(seen: Seen) -> None:
        assert seen.names == ["日本語 run", "gamma", "beta", "alpha"]  # the newest first, no deleted one
        await seen.until(lambda: bool(re.search(r"beta +0\.95", seen.screen)))
        lines = seen.screen.split("\n")
        assert len(lines) == 24
        assert "4 runs; by start_time ↓" in seen.screen
        assert all(word in lines[-1] for word in ("/ Filter", "x Mark", "c Compare", "? Help"))

    play(tracker, story)


def test_filters_are_the_query_language_and_mistakes_are_said(tracker: Tracker) -> None:
    async def story(seen: Seen) -> None:
        await seen.press("slash")
        await seen.press(*"metrics.acc > 0.92", "enter")
        await seen.until(lambda: seen.names == ["日本語 run", "beta"])
        await seen.press("slash")
        seen.pilot.app.screen.query_one(Input).value = "metrics.acc => 0.9"
        await seen.press("enter")
        await seen.until(lambda: "use `>=`" in seen.screen)
        assert "column 13" in seen.screen
        assert seen.names == ["日本語 run", "beta"]  # what was there stays
        await seen.press("slash", "a", "escape")
        assert seen.pilot.app.screen.query_one(Input).value == "metrics.acc => 0.9"
        assert isinstance(seen.pilot.app.focused, DataTable)

    play(tracker, story)


def test_sorting(tracker: Tracker) -> None:
    async def story(seen: Seen) -> None:
        await seen.press("S")
        await seen.until(lambda: seen.names == ["alpha", "beta", "gamma", "日本語 run"])
        for _ in range(3):  # around to the name, then to the first metric
            await seen.press("s")
            if "by run_name" in seen.screen:
                break
            await seen.until(lambda: "by start_time" not in seen.screen)
        await seen.until(lambda: "by run_name ↑" in seen.screen)
        await seen.press("s")
        await seen.until(lambda: "by metrics.acc ↓" in seen.screen)
        await seen.until(lambda: seen.names == ["日本語 run", "beta", "alpha", "gamma"])  # what has none comes last

    play(tracker, story)


def test_a_run_is_shown_with_its_charts_and_keys_lead_back(tracker: Tracker) -> None:
    async def story(seen: Seen) -> None:
        await seen.press("j", "j", "j", "enter")
        await seen.until(lambda: isinstance(seen.pilot.app.screen, screens.One) and "Metrics" in seen.text)
        assert "Name:       alpha" in seen.screen
        assert "lr     0.1" in seen.text
        assert "notes/a.txt" in seen.text
        assert "┌" in seen.text.partition("Artifacts")[2]  # a chart
        assert max(map(len, seen.text.split("\n")[-16:])) <= 78
        before = seen.screen
        await seen.press("j", "j")
        assert seen.screen != before
        await seen.press("question_mark")
        await seen.until(lambda: "mark a run" in seen.screen)
        await seen.press("escape", "q")
        await seen.until(lambda: isinstance(seen.pilot.app.screen, screens.Runs))
        await seen.press("q")
        await seen.pilot.pause()
        assert seen.pilot.app._exit

    play(tracker, story)


def test_marked_runs_are_compared_what_differs_first(tracker: Tracker) -> None:
    async def story(seen: Seen) -> None:
        await seen.press("c")
        await seen.pilot.pause()
        assert isinstance(seen.pilot.app.screen, screens.Runs)  # nothing is marked
        await seen.press("j", "j", "x", "j", "x")
        await seen.until(lambda: "2 marked" in seen.screen)
        assert seen.screen.count("●") == 2
        await seen.press("c")
        await seen.until(lambda: isinstance(seen.pilot.app.screen, screens.Compare) and "Parameters" in seen.text)
        params = seen.text.partition("Parameters")[2].split("\n")
        assert [line.split() for line in params[2:6]] == [
            ["≠", "depth", "3", "–"], ["≠", "lr", "0.01", "0.1"], ["≠", "seed", "–", "1"], ["model", "svc", "svc"]
        ]  # fmt: skip
        chart = params[params.index("acc") :]
        assert "2" in chart[3]
        assert any("1" in line for line in chart[:17])
        await seen.press("d")
        await seen.until(lambda: "model" not in seen.text)

    play(tracker, story)


def test_what_goes_on_is_seen_and_the_cursor_stays(tracker: Tracker) -> None:
    async def story(seen: Seen) -> None:
        await seen.press("j", "j")
        run = tracker.create_run(name="live", start_time=START + 10**9, capture=False)
        await seen.until(lambda: seen.names[:1] == ["live"])
        assert seen.pilot.app.screen.query_one(DataTable).cursor_row == 3  # beta
        run.log_metric("acc", 0.123, 0, START)
        await seen.until(lambda: "0.123" in seen.screen)
        await seen.press("k", "k", "k", "enter")
        await seen.until(lambda: isinstance(seen.pilot.app.screen, screens.One) and "RUNNING" in seen.text)
        run.log_metric("acc", 0.456, 1, START)
        await seen.until(lambda: "0.456" in seen.text)
        run.end()

    play(tracker, story)


def test_texts_of_runs_are_text(tracker: Tracker) -> None:
    async def story(seen: Seen) -> None:
        assert seen.names[0] == MARKUP
        await seen.until(lambda: MARKUP in seen.screen)
        assert "\x1b" not in seen.screen
        await seen.press("enter")
        await seen.until(lambda: isinstance(seen.pilot.app.screen, screens.One) and "[@click=app.quit]" in seen.text)
        assert "\x1b" not in seen.text
        await seen.press("escape")
        await seen.press("x", "j", "x", "c")
        await seen.until(lambda: isinstance(seen.pilot.app.screen, screens.Compare) and "[bold red]" in seen.text)
        assert "\x1b" not in seen.text

    run = tracker.create_run(name=MARKUP, start_time=START + 10**9, capture=False)
    run.log_params({"lr": ATTACK})
    run.end()
    play(tracker, story)


def test_help_and_absence(project: Sandbox, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    said = cli("tui")
    assert (said.status, said.err.split("\n")[0]) == (2, "error: this is no terminal")
    monkeypatch.setattr("gittrack.cli.output.is_terminal", lambda stream=None: True)
    monkeypatch.setitem(sys.modules, "textual", None)
    monkeypatch.delitem(sys.modules, "gittrack.cli.screens", raising=False)
    said = cli("tui")
    assert said.status == 1
    assert "pip install 'gittrack[tui]'" in said.err


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_in_a_real_terminal(project: Sandbox) -> None:
    """Started as people start it: it draws, takes a key, and gives the terminal back."""
    import pty
    import select

    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gittrack", "tui", "metrics.acc > 0"], stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while b"beta" not in seen:
            assert select.select([ours], [], [], 30)[0], seen
            seen += os.read(ours, 65536)
        os.write(ours, b"q")
        with contextlib.suppress(OSError):  # which is how Linux says that the other end is closed
            while piece := os.read(ours, 65536):
                seen += piece
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(ours)
    assert b"\x1b[?1049l" in seen
