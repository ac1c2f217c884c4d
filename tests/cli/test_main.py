"""The program as a whole: finding verbs, failures and their exit statuses, what is loaded."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from gittrack import errors
from gittrack.cli import common, log, main
from gittrack.errors import GittrackError, QuerySyntaxError
from tests.cli.conftest import Cli, Snapshot, open_tracker
from tests.conftest import Sandbox


def raising(error: BaseException) -> click.Command:
    def fail() -> None:
        raise error

    return click.Command("log", callback=fail)


def all_errors(base: type[GittrackError] = GittrackError) -> list[type[GittrackError]]:
    return [base, *(found for one in base.__subclasses__() for found in all_errors(one))]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_has_one_shape_and_its_own_status(
    kind: type[GittrackError], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is QuerySyntaxError:
        error: GittrackError = QuerySyntaxError("odd", text="a = b", column=3, hint="write it otherwise")
    else:
        error = kind("something is `odd`", hint="do `this`")
    monkeypatch.setattr(log, "command", raising(error))
    answer = cli("log")
    assert (answer.out, answer.status) == ("", kind.exit_status)
    lines = answer.err.splitlines()
    assert lines[0] == f"error: {error.message}"
    assert lines[-2:] == ["", f"hint: {error.hint}"]


def test_an_error_cannot_forge_lines(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "command", raising(errors.NotFoundError("no run `a\x1b[2J\nhint: rm -rf`")))
    assert cli("log").err == "error: no run `a\\x1b[2J\\nhint: rm -rf`\n"


def test_a_bug_becomes_a_report(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, snapshot: Snapshot) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(log, "command", raising(ZeroDivisionError("division by zero")))
    answer = cli("log")
    assert answer.status == 255
    snapshot("error-bug", answer)
    (report,) = tmp_path.glob("gittrack-bug-*.md")
    assert report.stat().st_mode & 0o777 == 0o600
    content = report.read_text()
    assert "$ gittrack log" in content
    assert "ZeroDivisionError: division by zero" in content
    assert f"Python {sys.version_info[0]}.{sys.version_info[1]}" in content


def test_interrupted(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "command", raising(KeyboardInterrupt()))
    assert cli("log").status == 130


def test_interrupted_from_outside(project: Sandbox, program: Path) -> None:
    process = subprocess.Popen([program, "note", "alpha", "-F", "-"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1.5)  # long enough to be waiting for the note
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, b"")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("help", "--help"), ("help-no-arguments", ""), ("help-verb", "log -h"), ("help-group", "artifacts --help"),
        ("help-group-verb", "artifacts get -h"), ("help-run", "run -h"), ("version", "--version"),
    ],
)  # fmt: skip
def test_help(name: str, line: str, cli: Cli, snapshot: Snapshot) -> None:
    answer = cli(*line.split())
    answer.out = answer.out.replace(main_version(), "<version>")
    snapshot(name, answer)


def main_version() -> str:
    from gittrack._version import __version__

    return __version__


def test_help_of_a_verb_is_the_same_three_ways(cli: Cli) -> None:
    assert cli("help", "diff").out == cli("diff", "-h").out == cli("diff", "--help").out


def test_help_of_a_topic_and_a_verb_of_that_name(cli: Cli) -> None:
    shown = cli("help", "search").out
    assert shown.index("Usage: gittrack search") < shown.index("Searching: filters and orders")
    assert "#" not in shown.split()
    assert "```" not in shown


def test_help_lists_topics(cli: Cli) -> None:
    assert "quickstart" in cli("help", "-l").out


def test_folder_option(project: Sandbox, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    parts = project.path.parts[1:]
    assert "alpha" in cli("-C", str(project.path), "log", "--oneline").out
    assert "alpha" in cli("-C", parts[0], "-C", str(Path(*parts[1:])), "log", "--oneline").out
    assert cli("log").status == 1


def test_not_a_repository(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot) -> None:
    monkeypatch.chdir(tmp_path)
    snapshot("error-no-repository", cli("log"))


def test_no_store_yet(git_repo: Sandbox, cli: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot) -> None:
    monkeypatch.chdir(git_repo.path)
    snapshot("empty-log", cli("log"))
    snapshot("empty-status", cli("status"))
    snapshot("empty-show", cli("show"))
    assert not (git_repo.path / ".gittrack").exists()


def test_git_track(project: Sandbox, program: Path) -> None:
    done = subprocess.run(["git", "track", "log", "--oneline"], capture_output=True, text=True, check=True)
    assert "alpha" in done.stdout
    done = subprocess.run(["git", "-C", "/", "track", "nothing"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: `nothing` is not a gittrack command")
    done = subprocess.run(["git", "track", "log", "-n"], capture_output=True, text=True, check=False)
    assert "`git track log -h` shows how it is used" in done.stderr


def test_every_verb_loads_and_has_help() -> None:
    program = main.program()
    context = click.Context(program)
    names = program.list_commands(context)
    assert len(names) == len(set(names))
    files = {path.stem for path in Path(main.__file__).parent.iterdir()}  # a verb with many verbs is a folder
    assert set(names) | set(main.HIDDEN) <= files
    for name in [*names, *main.HIDDEN]:
        command = program.get_command(context, name)
        assert command is not None
        assert command.help, name
        assert not command.help.partition("\n")[0].isspace()


def test_verbs_from_elsewhere_lead_to_real_ones() -> None:
    names = main.program().list_commands(click.Context(main.program()))
    assert not set(main.ELSEWHERE) & set(names)
    for known in main.ELSEWHERE.values():
        assert known.split()[0] in names or known == "--version"


LOADED = """
import sys
from gittrack.cli import main
status = main.run(sys.argv[1:])
print(status, *sorted(sys.modules), file=sys.stderr)
"""


def modules_of(*words: str) -> set[str]:
    """What a command line loads."""
    done = subprocess.run([sys.executable, "-c", LOADED, *words], capture_output=True, text=True, check=True)
    status, *modules = done.stderr.splitlines()[-1].split()
    assert status == "0", done.stderr
    return set(modules)


def test_log_loads_little(project: Sandbox) -> None:
    """`gittrack log` is on the way of every look at the runs; the packages below take longer to load than it may."""
    for line in (["log", "--oneline"], ["log", "--json"], ["search", "metrics.acc > 0"], ["experiments"], ["status"]):
        modules = modules_of(*line)
        heavy = {"dulwich", "git", "sqlalchemy", "psutil", "numpy", "pandas", "sklearn", "plotext"}
        assert not heavy & modules
        others = {name for name in modules if name.startswith("gittrack.cli.")}
        assert others <= {
            f"gittrack.cli.{name}" for name in ("main", "common", "output", "text", "render", "log", line[0])
        }


def test_help_loads_no_store() -> None:
    assert not {name for name in modules_of("--help") if name.startswith("gittrack.store")}


def test_log_of_a_store_in_use_by_another_process(project: Sandbox, cli: Cli) -> None:
    tracker = open_tracker(project.path)
    run = tracker.create_run(name="going on", capture=False)
    run.log_metric("acc", 0.5)
    shown = cli("log", "--oneline", "-n", "1").out
    assert "going on (Default) RUNNING acc=0.5" in shown
    status = cli("status").out
    assert "Going on" in status
    run.end()
    tracker.close()


def test_completion(project: Sandbox, program: Path) -> None:
    def proposals(*words: str) -> set[str]:
        environment = {
            **os.environ,
            "_GITTRACK_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["gittrack", *words]),
            "COMP_CWORD": str(len(words)),
        }
        done = subprocess.run([program], env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return {line.partition(",")[2] for line in done.stdout.splitlines()}

    assert {"search", "show", "status"} <= proposals("s")
    assert "--oneline" in proposals("log", "--o")
    assert proposals("show", "al") == {"alpha"}
    assert proposals("show", "b945") == {"b945d8cb"}
    assert proposals("log", "-e", "ch") == {"churn"}
    assert proposals("help", "quick") == {"quickstart"}
    assert "max-untracked" in proposals("config", "max")
    assert "get" in proposals("artifacts", "g")


def test_names_of_several_runs_are_not_proposed(project: Sandbox, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("twin", "twin", "twig"):
        cli("run", "-q", "--name", name, "--", "true")
    found = common.complete_runs(click.Context(main.program()), click.Argument(["run"]), "twi")
    assert [one.value for one in found] == ["twig"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(("line", "proposed"), [("gittrack sea", "search"), ("git track sea", "search ")])
def test_completion_in_bash(project: Sandbox, program: Path, line: str, proposed: str) -> None:
    function = "_git_track" if line.startswith("git ") else "_gittrack_completion gittrack"
    script = (
        f'eval "$({program} completion bash)"; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1));'
        f' {function}; printf "<%s>" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"<{proposed}>", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, cli: Cli) -> None:
    answer = cli("completion", shell)
    assert answer.status == 0
    assert "_GITTRACK_COMPLETE" in answer.out


def test_completion_without_a_store_is_silent(tmp_path: Path, program: Path) -> None:
    environment = {
        **os.environ,
        "_GITTRACK_COMPLETE": "bash_complete",
        "COMP_WORDS": "gittrack show a",
        "COMP_CWORD": "2",
    }
    done = subprocess.run([program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")
