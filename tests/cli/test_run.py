"""``gittrack run``: any program as a run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gittrack.store.repo import Repo
from gittrack.track import command
from gittrack.track.command import Transcript
from gittrack.track.runs import Tracker
from tests.cli.conftest import Cli
from tests.conftest import MakeRepo, Sandbox

PACKAGE = str(Path(command.__file__).parents[2])


@pytest.fixture
def repo(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch, program: Path) -> Sandbox:
    """An empty project as the current folder."""
    monkeypatch.chdir(git_repo.path)
    return git_repo


def run(program: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([program, "run", *words], capture_output=True, check=False, timeout=120, **options)


def latest(cli: Cli) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("show", "--json").out)
    return found


def cat(cli: Cli, path: str) -> str:
    return cli("artifacts", "cat", "latest", path).out


def test_output_and_status(repo: Sandbox, program: Path, cli: Cli) -> None:
    done = run(
        program, "--name", "mine", "-e", "churn", "-t", "team=blue", "--", "sh", "-c", "echo out; echo err >&2; exit 3"
    )
    assert (done.returncode, done.stdout) == (3, b"out\n")
    said = done.stderr.decode().splitlines()
    assert said[0].startswith("run ")
    assert said[0].endswith(" mine started")
    assert said[1] == "err"
    assert "failed after " in said[2]
    assert said[2].endswith("exit status 3")

    found = latest(cli)
    assert found["info"]["status"] == "FAILED"
    assert found["info"]["experiment_name"] == "churn"
    assert found["data"]["tags"]["gittrack.exit_status"] == "3"
    assert found["data"]["tags"]["team"] == "blue"
    assert found["environment"]["command"] == ["sh", "-c", "echo out; echo err >&2; exit 3"]
    assert found["environment"]["directory"] == "."
    assert found["code"]["commit"] == repo.git("rev-parse", "HEAD")
    assert found["commit"] is not None
    assert (cat(cli, "stdout.txt"), cat(cli, "stderr.txt")) == ("out\n", "err\n")


def test_success_in_silence(repo: Sandbox, program: Path, cli: Cli) -> None:
    done = run(program, "-q", "true")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert latest(cli)["info"]["status"] == "FINISHED"
    assert cli("artifacts", "latest").out == ""


def test_options_after_the_program_are_its_own(repo: Sandbox, program: Path) -> None:
    assert run(program, "-q", "echo", "--name", "-h").stdout == b"--name -h\n"


def test_standard_input_goes_through(repo: Sandbox, program: Path) -> None:
    assert run(program, "-q", "--", "tr", "a-z", "A-Z", input=b"hello").stdout == b"HELLO"


def test_no_such_program_makes_no_run(repo: Sandbox, program: Path, cli: Cli) -> None:
    done = run(program, "--", "no-such-program-1234")
    assert (done.returncode, done.stderr.decode().splitlines()[0]) == (
        127,
        "error: cannot run `no-such-program-1234`: no such program",
    )
    assert cli("log", "--all").out == ""


@pytest.mark.parametrize(
    ("word", "status", "why"), [("a.py", 127, "no such program"), ("./a.py", 126, "it is not exec")]
)
def test_a_script_that_is_no_program(repo: Sandbox, program: Path, cli: Cli, word: str, status: int, why: str) -> None:
    repo.write("a.py", "print('hello')\n")
    done = run(program, "--", word)
    assert done.returncode == status
    assert f"error: cannot run `{word}`: {why}" in done.stderr.decode()
    assert f"hint: `gittrack run -- python {word}` gives" in done.stderr.decode()
    assert cli("log", "--all").out == ""


def test_a_read_only_repository_is_said_once(make_repo: MakeRepo, program: Path) -> None:
    done = run(program, "--", "true", cwd=make_repo("read-only").path)
    assert done.returncode == 1
    assert [line.partition(":")[0] for line in done.stderr.decode().splitlines() if line] == ["error", "hint"]


def test_a_program_that_does_not_start_is_a_failed_run(repo: Sandbox, program: Path, cli: Cli) -> None:
    file = repo.write("broken", "#!/no/such/interpreter\n")
    file.chmod(0o755)
    done = run(program, "-q", "--", "./broken")
    assert done.returncode == 126
    assert done.stderr.startswith(b"error: cannot run `./broken`: ")
    assert latest(cli)["info"]["status"] == "FAILED"


@pytest.mark.parametrize(("name", "status"), [("KILL", "KILLED"), ("TERM", "KILLED"), ("SEGV", "FAILED")])
def test_a_program_that_dies_of_a_signal(repo: Sandbox, program: Path, cli: Cli, name: str, status: str) -> None:
    number = getattr(signal, f"SIG{name}")
    assert run(program, "-q", "--", "sh", "-c", f"kill -{name} $$").returncode == 128 + number
    assert latest(cli)["info"]["status"] == status
    assert latest(cli)["data"]["tags"]["gittrack.exit_status"] == str(128 + number)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_signals_reach_the_program(repo: Sandbox, program: Path, cli: Cli, name: str) -> None:
    script = (
        "import signal, sys, time\n"
        f"signal.signal(signal.{name}, lambda *_: (print('got it'), sys.exit(7)))\n"
        "print('ready')\n"
        "for _ in range(600): time.sleep(0.1)\n"  # one long sleep could begin just after the signal was noted
    )
    words = [str(program), "run", "-q", "--", sys.executable, "-c", script]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(getattr(signal, name))
    rest, _ = process.communicate(timeout=60)
    assert (rest, process.returncode) == (b"got it\n", 7)
    assert latest(cli)["info"]["status"] == "FAILED"
    assert cat(cli, "stdout.txt") == "ready\ngot it\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_while_the_program_starts_waits_for_it(
    repo: Sandbox, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It must neither end this process and leave the program alone, nor get lost."""
    number = getattr(signal, name)
    tracker = Tracker(Repo.find(repo.path, create=True))
    start = subprocess.Popen

    def start_slowly(*args: Any, **options: Any) -> Any:
        if args[0] != ["sleep", "60"]:  # git, which is started beside it
            return start(*args, **options)
        signal.raise_signal(number)
        process = start(*args, **options)
        signal.raise_signal(number)
        return process

    monkeypatch.setattr(subprocess, "Popen", start_slowly)
    before = signal.getsignal(number)
    outcome = command.execute(
        tracker.create_run(capture=False),
        ["sleep", "60"],
        environment=os.environ,
        pass_on=dict.fromkeys(("stdout", "stderr"), lambda _: None),
    )
    assert outcome == (128 + number, "KILLED")
    assert signal.getsignal(number) is before


def test_what_is_ignored_the_program_ignores_and_yet_gets(repo: Sandbox, program: Path, cli: Cli) -> None:
    """As with `nohup`: unless the program handles the signal, when it comes to it."""
    asks = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    words = ["nohup", str(program), "run", "-q", "--", sys.executable]
    assert subprocess.run([*words, "-c", asks], stdout=subprocess.PIPE, check=True).stdout == b"True\n"
    handles = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGHUP, lambda *_: sys.exit(7))\n"
        "print('ready')\n"
        "for _ in range(600): time.sleep(0.1)\n"
    )
    process = subprocess.Popen([*words, "-c", handles], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=60) == 7


LOGGING = f"""
import os, sys
sys.path.insert(0, {PACKAGE!r})
import gittrack
with gittrack.start_run():
    gittrack.log_metric("acc", 0.5)
    gittrack.log_param("lr", 0.1)
    gittrack.log_text("x", "note.txt")
print(os.environ["GITTRACK_RUN_ID"] == "" )
"""


def test_a_program_that_logs_itself_logs_into_the_run(repo: Sandbox, program: Path, cli: Cli) -> None:
    repo.write("train.py", LOGGING)
    done = run(program, "--name", "outer", "--", sys.executable, "train.py")
    assert done.returncode in {0, 1}, done.stderr
    assert len(json.loads(cli("log", "--json").out)) == 1
    found = latest(cli)
    assert found["info"]["run_name"] == "outer"
    assert found["data"]["metrics"] == {"acc": 0.5}
    assert found["data"]["params"] == {"lr": "0.1"}
    assert {one["path"] for one in found["artifacts"]} >= {"note.txt"}


def test_the_child_dies_after_its_own_run_ended_well(repo: Sandbox, program: Path, cli: Cli) -> None:
    repo.write("train.py", LOGGING + "\nsys.exit(5)\n")
    assert run(program, "-q", "--", sys.executable, "train.py").returncode != 0
    assert latest(cli)["info"]["status"] == "FAILED"


def test_runs_inside_runs(repo: Sandbox, program: Path, cli: Cli) -> None:
    assert run(program, "--name", "outer", "--", str(program), "run", "--name", "inner", "--", "true").returncode == 0
    runs = {one["info"]["run_name"]: one for one in json.loads(cli("log", "--json").out)}
    assert runs["inner"]["data"]["tags"]["mlflow.parentRunId"] == runs["outer"]["info"]["run_id"]


def test_mlflow_of_another_store_is_left_alone(repo: Sandbox, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os; print(sorted(name for name in os.environ if name.startswith(('GITTRACK', 'MLFLOW'))))"
    ask = ["-q", "--", sys.executable, "-c", script]
    assert run(program, *ask).stdout.decode() == "['GITTRACK_RUN_ID', 'GITTRACK_TRACKING_URI']\n"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", repo.path.as_uri())
    assert "MLFLOW_RUN_ID" in run(program, *ask).stdout.decode()


def test_output_is_seen_while_the_program_runs(repo: Sandbox, program: Path, cli: Cli) -> None:
    script = "import time\nfor i in range(400):\n    print('line', i)\n    time.sleep(0.05)\n"
    process = subprocess.Popen([program, "run", "-q", "--name", "slow", "--", sys.executable, "-c", script],
                               stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            shown = cli("artifacts", "cat", "slow", "stdout.txt")
            if "line 0\n" in shown.out:
                break
            time.sleep(0.3)
        assert "line 0\n" in shown.out
        assert process.poll() is None
        assert "RUNNING" in cli("log", "--oneline").out
    finally:
        process.terminate()
        process.wait(30)


def test_much_output_keeps_its_beginning_and_its_end(repo: Sandbox, program: Path, cli: Cli) -> None:
    script = "import sys\nfor i in range(1_500_000): sys.stdout.write(f'{i:09d}\\n')\n"
    done = run(program, "-q", "--", sys.executable, "-c", script)
    assert len(done.stdout) == 15_000_000
    kept = cat(cli, "stdout.txt")
    assert kept.startswith("000000000\n000000001\n")
    assert kept.endswith("001499999\n")
    assert f"\n[gittrack left out {15_000_000 - 2 * command.KEEP} bytes here]\n" in kept


def test_a_reader_that_goes_away_does_not_stop_the_program(repo: Sandbox, program: Path, cli: Cli) -> None:
    script = f"{program} run -q -- sh -c 'for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.1; done; echo end' | head -n 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")
    deadline = time.monotonic() + 20
    while latest(cli)["info"]["status"] == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert latest(cli)["info"]["status"] == "FINISHED"
    assert cat(cli, "stdout.txt").endswith("end\n")


def test_a_grandchild_that_keeps_the_output_open_is_not_waited_for(repo: Sandbox, program: Path, cli: Cli) -> None:
    started = time.monotonic()
    process = subprocess.Popen(
        [program, "run", "-q", "--", "sh", "-c", "sleep 30 & echo done"], stdout=subprocess.DEVNULL
    )
    assert process.wait(25) == 0
    assert time.monotonic() - started < 20
    assert cat(cli, "stdout.txt") == "done\n"


def test_killed_with_its_wrapper(repo: Sandbox, program: Path, cli: Cli) -> None:
    """SIGKILL for both: the next command finds a KILLED run with what had been kept."""
    process = subprocess.Popen([program, "run", "-q", "--", "sh", "-c", "echo hello; sleep 60"], stdout=subprocess.PIPE,
                               start_new_session=True)  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(3)  # the output has been published by then
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    found = latest(cli)
    assert found["info"]["status"] == "KILLED"
    assert cat(cli, "stdout.txt") == "hello\n"


def test_secrets_on_the_command_line_are_not_kept(repo: Sandbox, program: Path, cli: Cli) -> None:
    run(program, "-q", "--", "true", "--api-key", "sk-1234567890abcdefghij1234")
    assert latest(cli)["environment"]["command"] == ["true", "--api-key", "[redacted]"]
    assert "sk-1234567890" not in repo.git("log", "--all", "-p", "--text")


def test_the_packages_of_another_python_are_recorded(repo: Sandbox, program: Path, cli: Cli, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "rare_package-1.2.dist-info").mkdir()
    python = tmp_path / "venv/bin/python"
    assert run(program, "-q", "--", str(python), "-c", "pass").returncode == 0
    environment = latest(cli)["environment"]
    assert environment["packages"] == {"rare-package": "1.2"}
    assert environment["python"]["executable"] == str(python)


def test_in_a_folder_below_the_top(repo: Sandbox, program: Path, cli: Cli) -> None:
    run(program, "-q", "--", "true", cwd=repo.path / "lib")
    assert latest(cli)["environment"]["directory"] == "lib"


def test_outside_of_git(make_repo: MakeRepo, program: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make_repo("plain")
    monkeypatch.chdir(sandbox.path)
    assert run(program, "-q", "echo", "hi").stdout == b"hi\n"
    assert cat(cli, "stdout.txt") == "hi\n"
    assert cli("fsck", "--full").status == 0


@given(st.lists(st.binary(max_size=30)), st.integers(1, 20))
def test_transcript(pieces: list[bytes], keep: int) -> None:
    transcript = Transcript(keep)
    for piece in pieces:
        transcript.add(piece)
    whole = b"".join(pieces)
    assert transcript.size == len(whole)
    if len(whole) <= 2 * keep:
        assert transcript.content() == whole
    else:
        gap = f"\n[gittrack left out {len(whole) - 2 * keep} bytes here]\n".encode()
        assert transcript.content() == whole[:keep] + gap + whole[-keep:]
