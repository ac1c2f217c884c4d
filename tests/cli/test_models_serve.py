"""``gittrack models predict`` and ``serve`` as programs."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gittrack.sklearn
from gittrack.models.signature import infer_signature
from tests.cli.conftest import Cli
from tests.serving.load import hammer, post, repeat

pd = pytest.importorskip("pandas")
linear_model = pytest.importorskip("sklearn.linear_model")
BODY = '{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4.5]]}}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that adds two columns up."""
    features = pd.DataFrame(np.random.default_rng(0).random((20, 2)), columns=["a", "b"])
    model = linear_model.LinearRegression().fit(features, features.a + features.b)
    path = tmp_path_factory.mktemp("model") / "sums"
    gittrack.sklearn.save_model(
        model, path, signature=infer_signature(features, features.a), pip_requirements=["scikit-learn"]
    )
    return path


@pytest.mark.parametrize("option", ["-m", "--model-uri"])
def test_predict_for_a_file(cli: Cli, folder: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "in.json").write_text(BODY)
    answer = cli("models", "predict", option, str(folder), "-i", str(tmp_path / "in.json"))
    assert (answer.status, answer.err) == (0, "")
    assert json.loads(answer.out) == {"predictions": [pytest.approx(3.0), pytest.approx(7.5)]}


def test_predict_from_stdin_into_a_file(cli: Cli, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    answer = cli("models", "predict", "-m", str(folder), "-o", str(target), "-t", "csv", stdin="b,a\n2,1\n")
    assert (answer.status, answer.out, answer.err) == (0, "", "")
    assert json.loads(target.read_text()) == {"predictions": [pytest.approx(3.0)]}


@pytest.mark.parametrize(
    ("words", "stdin", "status", "message"),
    [
        (["-i", "nothing.csv"], "", 1, "there is no file `nothing.csv`\n\nhint: `-i FILE`"),
        (["-i", ".", "-t", "csv"], "", 1, "cannot read `.`"),
        (["-i", "x.txt"], "", 2, "does not end in"),
        ([], "{", 2, "not JSON"),
        ([], '{"inputs": {"a": [1]}}', 2, "the input misses `b`"),
        (["-t", "csv"], "a,b\n1,x\n", 2, "column `b` is of type double"),
    ],
)
def test_predict_says_what_is_wrong(
    cli: Cli, folder: Path, words: list[str], stdin: str, status: int, message: str
) -> None:
    answer = cli("models", "predict", "-m", str(folder), *words, stdin=stdin)
    assert (answer.status, answer.out) == (status, "")
    assert message in answer.err


def test_a_model_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    for verb in ("predict", "serve"):
        answer = cli("models", verb, "-m", str(tmp_path / "nothing"))
        assert answer.status == 1
        assert "there is no folder" in answer.err


def test_wrong_options(cli: Cli, folder: Path) -> None:
    for words in (
        ["serve"],
        ["serve", "-m", str(folder), "--port", "70000"],
        ["serve", "-m", str(folder), "--max-body", "much"],
        ["serve", "-m", str(folder), "--workers", "0"],
        ["serve", "-m", str(folder), "--env", "conda"],
        ["predict", "-m", str(folder), "-t", "xml"],
    ):
        assert cli("models", *words).status == 2


def test_a_port_that_is_taken(cli: Cli, folder: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        answer = cli("models", "serve", "-m", str(folder), "--port", str(other.getsockname()[1]))
    assert answer.status == 1
    assert "cannot listen on `127.0.0.1` port" in answer.err


class Served:
    """`gittrack models serve` in a process of its own."""

    def __init__(self, *words: str, own_group: bool = False) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gittrack", "models", "serve", "--port", "0", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=own_group,
        )
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.said)
        assert found, self.said + self.process.communicate(timeout=30)[1]
        self.port = int(found[1])

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=30)
        assert out == ""
        return self.process.returncode, err


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    one = Served("-m", str(folder))
    yield one
    if one.process.poll() is None:
        one.process.kill()
        one.process.communicate(timeout=30)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_serve(served: Served) -> None:
    assert served.said.startswith("serving ")
    assert "^C ends it" in served.said
    assert "following" not in served.said
    load = asyncio.run(hammer(served.port, 4, repeat(post(BODY.encode()), 20)))
    assert load.statuses == {200}
    (reply,) = {reply.body for reply in load.replies}
    assert json.loads(reply)["predictions"] == [pytest.approx(3.0), pytest.approx(7.5)]
    other: Any = asyncio.run(hammer(served.port, 1, repeat(post(BODY.encode(), host="evil.example"), 1)))
    assert other.statuses == {421}
    bad = BODY.replace("4.5", "null").encode()
    assert asyncio.run(hammer(served.port, 1, repeat(post(bad), 1))).statuses == {400}
    status, said = served.stop()
    assert status == 0
    (line,) = said.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\dT\S+ WARNING the model failed on an input: ValueError: Input X contains NaN", line)


#: The program, which waits where it is told to; there, code swallows what interrupts it if that is asked for.
WAITING = """
import sys, time
from gittrack.models import addresses
from gittrack.server import run

where, swallows = sys.argv.pop(1), sys.argv.pop(1) == "swallows"

def waiting(function):
    def wait(*words, **options):
        print("here", flush=True)
        try:
            time.sleep(20)
        except BaseException:
            if not swallows:
                raise
        return function(*words, **options)
    return wait

if where == "fetch":
    addresses.fetch = waiting(addresses.fetch)
elif where == "listen":
    run.listen = waiting(run.listen)
from gittrack.cli.main import main
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["fetch", "listen"])
@pytest.mark.parametrize("swallows", ["swallows", "raises"])
def test_a_signal_while_it_starts_ends_it(
    folder: Path, tmp_path: Path, sign: signal.Signals, where: str, swallows: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, where, swallows, "models", "serve", "-m", str(folder), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(sign)
    assert process.communicate(timeout=15) == ("", "")
    assert process.returncode == 0
    assert not list(tmp_path.iterdir()), "the copy of the model"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupt_at_the_terminal_ends_all_workers_without_a_trace(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    served = Served("-m", str(folder), "--workers", "2", own_group=True)
    time.sleep(0.3)  # the workers are being started
    os.killpg(served.process.pid, signal.SIGINT)
    assert served.process.communicate(timeout=60) == ("", "")
    assert served.process.returncode == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_workers_leave_no_files(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    served = Served("-m", str(folder), "--workers", "2")
    deadline = time.monotonic() + 60
    counters = b"GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    while b"gittrack_workers_started_total 2" not in (
        asyncio.run(hammer(served.port, 1, repeat(counters, 1), 60)).replies[0].body
    ):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert served.stop() == (0, "")
    assert not list(tmp_path.iterdir())


IN_ANOTHER = """
import sys
from pathlib import Path
from gittrack.models import environments

def for_model(local, lines, *, kind, say):
    say(f"{kind} for {lines}")
    return environments.Environment(kind, Path(sys.executable))

environments.for_model = for_model
from gittrack.cli.main import main
main()
"""


def test_another_environment_runs_the_same_command(folder: Path, tmp_path: Path) -> None:
    """The environment that is made is this one; that one can be made at all is tested elsewhere."""
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    words = ["-C", tmp_path.name, "models", "predict", "-m", str(folder), "-i", "in.csv", "--env", "uv"]
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER, *words], cwd=tmp_path.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"predictions": [pytest.approx(3.0)]}
    assert "uv for ['scikit-learn'" in done.stderr


#: Another process sends the signal when this one has become the other Python, which has not come to its code yet.
SIGNALLED = (
    """
import os, subprocess
execve = os.execve

def signalled(*words):
    subprocess.Popen(["sh", "-c", f"sleep 0.03; kill -TERM {os.getpid()}"], stdout=subprocess.DEVNULL)
    execve(*words)

os.execve = signalled
"""
    + IN_ANOTHER
)


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_while_another_environment_is_entered(folder: Path) -> None:
    words = ["models", "serve", "-m", str(folder), "--port", "0", "--env", "uv"]
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr
