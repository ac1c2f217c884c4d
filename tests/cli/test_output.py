"""Colour, tables, JSON, the pager and progress, at a real terminal where it matters."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gittrack.cli import output
from gittrack.store import record
from gittrack.types import LifecycleStage
from tests.cli.conftest import Cli, open_tracker
from tests.conftest import Sandbox

#: The only escape sequences that may reach a terminal.
OURS = re.compile(r"\x1b\[(0|1|2|31|32|33|34|35|36)m")


def at_terminal(
    words: list[str], *, type_in: bytes = b"", wait_for: bytes = b"", columns: int = 80, rows: int = 30
) -> tuple[str, int]:
    """Run ``words`` with a terminal as its standard streams; what it showed, and its exit status."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(COLUMNS=str(columns), LINES=str(rows), TERM="xterm")
        with contextlib.suppress(OSError):
            os.execvp(words[0], words)
        os._exit(99)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if type_in and wait_for in shown:
            os.write(terminal, type_in)
            type_in = b""
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # Linux's word for the end of a terminal
            break
        if not data:
            break
        shown += data
    else:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    return shown.decode(errors="replace"), os.waitstatus_to_exitcode(status)


@pytest.fixture
def many_runs(project: Sandbox) -> Sandbox:
    """The project with 40 more runs."""
    tracker = open_tracker(project.path)
    for number in range(40):
        tracker.create_run(name=f"run {number}", capture=False).end()
    tracker.close()
    return project


def test_colour_on_a_terminal_only(project: Sandbox, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [str(program), "log", "--oneline"]
    shown, status = at_terminal(words)
    assert (status, "\x1b[33mb945d8cb\x1b[0m" in shown) == (0, True)
    assert "\x1b" not in subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "\x1b" in subprocess.run([*words, "--color=always"], capture_output=True, text=True, check=True).stdout
    assert "\x1b" not in at_terminal([*words, "--color", "never"])[0]
    assert "\x1b" not in at_terminal([str(program), "--color", "never", "log", "--oneline"])[0]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in at_terminal(words)[0]


def test_the_pager_gets_what_does_not_fit(many_runs: Sandbox, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_PAGER", "sed s/^/paged:/")
    assert "paged:" in at_terminal([str(program), "log", "--oneline"])[0]
    assert "paged:" not in at_terminal([str(program), "log", "--oneline", "-n", "3"])[0]
    assert "paged:" not in at_terminal([str(program), "log", "--oneline", "--no-pager"])[0]
    assert "paged:" not in at_terminal([str(program), "--no-pager", "log", "--oneline"])[0]
    piped = subprocess.run([program, "log", "--oneline"], capture_output=True, text=True, check=True)
    assert "paged:" not in piped.stdout


def test_which_pager(many_runs: Sandbox, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", "sed s/^/third:/")
    assert "third:" in at_terminal([str(program), "log"])[0]
    many_runs.git("config", "core.pager", "sed s/^/second:/")
    assert "second:" in at_terminal([str(program), "log"])[0]
    monkeypatch.setenv("GIT_PAGER", "sed s/^/first:/ | cat")
    assert "first:" in at_terminal([str(program), "log"])[0]
    monkeypatch.setenv("GIT_PAGER", "no-such-pager-1234")
    shown, status = at_terminal([str(program), "log", "--oneline"])
    assert (status, "run 39" in shown) == (0, True)


def test_leaving_the_pager_early_is_no_error(
    many_runs: Sandbox, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_PAGER", "head -n 1")
    shown, status = at_terminal([str(program), "log", "--oneline", "--color=never"])
    assert status == 0
    assert shown.count("\n") == 1


def test_less_keeps_colours_and_the_screen(many_runs: Sandbox, program: Path) -> None:
    shown, status = at_terminal([str(program), "log", "--oneline"], type_in=b"q", wait_for=b"run 39")
    assert status == 0
    assert "\x1b[33m" in shown  # less -R


def test_broken_pipe(many_runs: Sandbox, program: Path) -> None:
    script = f"{program} log --color=always | head -n 1; echo ${{PIPESTATUS[0]}}"
    for _ in range(3):  # all of it may fit into the pipe before head goes
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] in {"0", "141"}
    gone = (
        "import os, subprocess, sys; r, w = os.pipe(); os.close(r); sys.exit(subprocess.call(sys.argv[1:], stdout=w))"
    )
    done = subprocess.run([sys.executable, "-c", gone, program, "log"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_wide_table_on_a_narrow_terminal(project: Sandbox, program: Path) -> None:
    shown, _ = at_terminal([str(program), "--color=never", "search", "-e", "churn"], columns=60)
    lines = shown.replace("\r", "").splitlines()
    assert any("columns not shown for lack of room: " in line for line in lines)
    assert all(len(line) <= 60 for line in lines if "not shown" not in line)


def test_a_last_column_of_text_is_cut_and_not_left_out(project: Sandbox, program: Path) -> None:
    shown, _ = at_terminal([str(program), "--color=never", "config"], columns=80)
    lines = shown.replace("\r", "").splitlines()
    assert lines[0].split() == ["setting", "value", "from", "meaning"]
    assert all(len(line) <= 80 for line in lines)
    assert any(line.endswith("…") for line in lines)


def test_many_columns_that_are_left_out_are_one_line(project: Sandbox, program: Path, cli: Cli) -> None:
    tracker = open_tracker(project.path)
    run = tracker.create_run(name="many", capture=False)
    run.log_params({f"parameter-{number:03}": "1" for number in range(100)})
    run.end()
    tracker.close()
    shown, _ = at_terminal([str(program), "--color=never", "search", "params.`parameter-001` = '1'"], columns=80)
    (line,) = (line for line in shown.replace("\r", "").splitlines() if "not shown" in line)
    assert len(line) <= 80
    assert " columns not shown for lack of room: `parameter-0" in line
    assert line.endswith(" more")


def test_columns_that_were_asked_for_stand_first(project: Sandbox, program: Path) -> None:
    words = ["search", "-e", "churn", "-c", "metrics.acc,params.lr,params.model"]
    shown, _ = at_terminal([str(program), "--color=never", *words], columns=44)
    assert "run       name        acc  lr    model" in shown.replace("\r", "")


def test_log_breaks_lines_between_facts(project: Sandbox, program: Path) -> None:
    tracker = open_tracker(project.path)
    run = tracker.create_run(name="wordy", capture=False)
    run.log_params({f"name{number}": "value" * number for number in range(9)} | {"long": "x" * 5000})
    run.end()
    tracker.close()
    shown, _ = at_terminal([str(program), "--color=never", "log", "-1"], columns=50)
    facts = [line for line in shown.replace("\r", "").splitlines() if line.startswith("    ")]
    assert [word for line in facts for word in line.split()][-2:] == ["name7=" + "value" * 7, "name8=" + "value" * 8]
    assert all(len(line) <= 50 for line in facts if " " in line.strip())
    assert max(map(len, facts)) < 80  # a summary; `gittrack show` has the value


def test_diff_of_long_values_is_no_table(project: Sandbox, program: Path) -> None:
    long = "python train.py " + "--option " * 12
    tracker = open_tracker(project.path, command=long.split())
    tracker.create_run(name="long").end()
    tracker.close()
    shown, _ = at_terminal([str(program), "--color=never", "diff", "alpha", "long", "--no-code"], columns=80)
    lines = shown.replace("\r", "").splitlines()
    at = lines.index("    command")
    assert lines[at + 1 : at + 3] == ["      a  python train.py --lr 0.1", f"      b  {long.strip()}"]
    assert all(len(line) <= 80 for line in lines if line != lines[at + 2])
    piped = subprocess.run([program, "diff", "alpha", "long", "--no-code"], capture_output=True, text=True, check=True)
    assert f"    command  python train.py --lr 0.1  {long.strip()}" in piped.stdout


@pytest.fixture
def hostile(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run with escape sequences wherever a run holds text, written past every check; its id."""
    monkeypatch.chdir(git_repo.path)
    tracker = open_tracker(git_repo.path)
    bad = "x\x1b[31m\x1b]0;pwned\x07\x9b2J\r\u202e\u2066\nfake line"
    for status in ("FINISHED", "FAILED"):
        run = tracker.create_run(name="first", tags={"mlflow.note.content": bad}, user_id=bad)
        run.write_event([record.PARAMS, {bad: bad}])
        run.write_event([record.METRIC, bad, 1.0, 5, 0])
        run.write_event([record.METRIC, bad, 2.0, 6, 1])
        run.write_event([record.FIELDS, 9, bad, {"name": bad + status, f"tags.{bad}": bad}])
        run.write_event([record.ENVIRONMENT, {bad: bad, "command": [bad], "packages": {bad: bad}}])
        run.write_event(
            [record.INPUT, {"dataset": {"name": bad, "digest": bad, "source_type": bad, "source": bad}, "tags": {}}]
        )
        run.log_bytes(bad.encode(), "bad.txt")
        run.end(status)
    tracker.close()
    return run.run_id


@pytest.mark.parametrize(
    "line",
    [
        "log", "log --oneline", "log --json", "log --format %N|%P|%M|%u|%g(x)", "show RUN --env", "show RUN --json",
        "status", "search", "search --json", "metrics RUN", "metrics RUN --plot", "metrics RUN --json", "tag RUN",
        "tag RUN --json", "note RUN", "diff", "diff --json", "artifacts RUN", "artifacts cat RUN bad.txt",
        "fsck --full", "show nobody", "rm RUN", "log --all --oneline",
    ],
)  # fmt: skip
def test_no_run_commands_the_terminal(hostile: str, program: Path, line: str) -> None:
    words = [hostile if word == "RUN" else word for word in line.split()]
    shown, status = at_terminal([str(program), "--color=always", *words], columns=200, rows=500)
    rest = OURS.sub("", shown).replace("\r\n", "\n")
    assert status in {0, 1}, shown
    assert not set(rest) & set("\x1b\x07\x9b\r\u202e\u2066"), rest
    assert not re.search("(?m)^fake line", rest) or "note" in line or "show" in line or "cat" in line


def test_a_run_cannot_forge_a_style() -> None:
    assert output._finished("\x00red\x00 \x1b[31m", color=True) == "\\x00red\\x00 \\x1b[31m"
    styled = output.style("a\x1b[31m", "red")
    assert output._finished(styled, color=True) == "\x1b[31ma\\x1b[31m\x1b[0m"
    assert output._finished(styled, color=False) == "a\\x1b[31m"


def test_json_has_no_nan(cli: Cli, project: Sandbox) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(cli("log", "--json").out, parse_constant=refuse)
    values = {run["info"]["run_name"]: run["data"]["metrics"] for run in found}
    assert values["beta"]["précision"] == "NaN"
    assert values["日本語 run"]["acc"] == "Infinity"


def test_json_is_one_element_a_line(cli: Cli, project: Sandbox) -> None:
    lines = cli("log", "--json", "--all").out.splitlines()
    assert (lines[0], lines[-1]) == ("[", "]")
    assert [json.loads(line.rstrip(","))["info"]["lifecycle_stage"] for line in lines[1:-1]].count(
        LifecycleStage.DELETED
    ) == 1
    assert json.loads(cli("search", "params.lr = 'none'", "--json").out) == []


def test_progress_shows_after_a_second_and_goes_away(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(output.__file__).parents[2])!r})\n"
        "from gittrack.cli.output import Progress\n"
        "with Progress('doing it') as progress:\n"
        "    time.sleep(float(sys.argv[1]))\n"
        "    progress.update(30, 120)\n"
        "    time.sleep(float(sys.argv[1]))\n"
        "print('done')\n"
    )
    shown, _ = at_terminal([sys.executable, str(script), "1.4"], columns=70)
    assert re.search(r"doing it… 1\.\d s", shown)
    assert "doing it █████░░░░░░░░░░░░░░░  25% 30/120" in shown
    last = shown.replace("\r\n", "\n").rpartition("\r")[2]
    assert last == "done\n"  # the line was wiped
    assert "doing" not in at_terminal([sys.executable, str(script), "0.1"])[0]
    silent = subprocess.run([sys.executable, script, "1.2"], capture_output=True, text=True, check=True)
    assert silent.stderr == ""


def test_gc_asks_on_a_terminal(project: Sandbox, program: Path, cli: Cli) -> None:
    (delta,) = (run for run in json.loads(cli("log", "--all", "--json").out) if run["info"]["run_name"] == "delta")
    words = [str(program), "gc", "--purge", delta["info"]["run_id"], "--older-than", "0"]
    shown, status = at_terminal(words, type_in=b"\x04", wait_for=b"[y/N]")
    assert "nothing removed" in shown
    shown, status = at_terminal(words, type_in=b"n\n", wait_for=b"[y/N]")
    assert (status, "delta" in cli("log", "--all", "--oneline").out) == (0, True), shown
    shown, status = at_terminal(words, type_in=b"y\n", wait_for=b"[y/N]")
    assert (status, "delta" in cli("log", "--all", "--oneline").out) == (0, False), shown


def test_binary_artifacts_stay_off_the_terminal(project: Sandbox, program: Path) -> None:
    shown, status = at_terminal([str(program), "artifacts", "cat", "alpha", "model.bin"])
    assert (status, "is no text" in shown) == (2, True)
    shown, status = at_terminal([str(program), "--color=never", "artifacts", "cat", "alpha", "notes/a.txt"])
    assert (status, shown) == (0, "first line\r\nsecond  line\r\n")


Print = Callable[[list[str]], None]


def test_a_column_without_name_and_content_takes_no_room() -> None:
    rows = [["a", "", "1", ""], ["b", "", "22", ""]]
    assert list(output.table(["x", "", "y", ""], rows, right=[2])) == [
        output.style("x", "dim") + "  " + output.style(" y", "dim"), "a   1", "b  22",
    ]  # fmt: skip
    assert list(output.table(["x", ""], [["a", ""], ["b", "!"]]))[1:] == ["a", "b  !"]


def test_table_without_a_terminal_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    output.lines(output.table(["name", "value"], [["a" * 100, "1"], ["日本", output.Cell("22", "red")]], right=[1]))
    assert capsys.readouterr().out == (f"name{' ' * 96}  value\n{'a' * 100}      1\n日本{' ' * 96}     22\n")
