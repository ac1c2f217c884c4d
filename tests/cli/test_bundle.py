"""`gittrack bundle` and `gittrack unbundle` on the command line."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Snapshot
from tests.conftest import MakeRepo, Sandbox


@pytest.fixture
def other(make_repo: MakeRepo) -> Sandbox:
    """A repository that knows nothing of the project."""
    return make_repo("unborn")


def test_there(project: Sandbox, other: Sandbox, cli: Cli, snapshot: Snapshot, tmp_path: Path) -> None:
    file = tmp_path / "all.bundle"
    snapshot("bundle-dry-run", cli("bundle", "-n", str(file)))
    assert not file.exists()
    made = cli("bundle", str(file))
    assert (made.out, made.status) == ("", 0)
    assert f"wrote `{file}` (" in made.err
    snapshot("error-bundle-exists", cli("bundle", str(file)))
    assert cli("bundle", "--force", str(file)).status == 0
    snapshot("unbundle-dry-run", cli("-C", str(other.path), "unbundle", "-n", str(file)))
    snapshot("unbundle", cli("-C", str(other.path), "unbundle", str(file)))
    snapshot("unbundle-again", cli("-C", str(other.path), "unbundle", str(file)))
    assert cli("-C", str(other.path), "log", "--json").out == cli("log", "--json").out
    assert cli("-C", str(other.path), "fsck", "--full").status == 0


def test_what_is_new(project: Sandbox, other: Sandbox, cli: Cli, snapshot: Snapshot, tmp_path: Path) -> None:
    first, second = tmp_path / "1.bundle", tmp_path / "2.bundle"
    report = json.loads(cli("bundle", "--json", "-e", "churn", "--no-artifacts", str(first)).out)
    assert (report["runs"], report["files"], report["length"]) == (3, 0, first.stat().st_size)
    assert cli("note", "beta", "-m", "again").status == 0
    report = json.loads(cli("bundle", "--json", "--since", str(first), str(second)).out)
    assert (report["runs"], report["revised"]) == (2, 1)
    answer = cli("-C", str(other.path), "unbundle", str(second))
    assert answer.status == 1
    assert "made to follow `1.bundle`" in answer.err
    assert "hint: first `gittrack unbundle 1.bundle`" in answer.err
    done = json.loads(cli("-C", str(other.path), "unbundle", "--json", str(first)).out)
    assert (len(done["runs"]), done["files"], done["absent"], done["dry_run"]) == (3, 0, 3, False)
    assert len(json.loads(cli("-C", str(other.path), "unbundle", "--json", str(second)).out)["revised"]) == 1
    snapshot("error-bundle-nothing", cli("bundle", "--since", str(second), str(tmp_path / "3.bundle")))


def test_errors(project: Sandbox, other: Sandbox, cli: Cli, snapshot: Snapshot, tmp_path: Path) -> None:
    file = str(tmp_path / "x.bundle")
    (tmp_path / "text").write_text("text")
    snapshot("error-bundle-since", cli("bundle", "--since", "yesterdy", file))
    snapshot("error-bundle-since-file", cli("bundle", "--since", "nowhere.bundle", file))
    snapshot("error-bundle-two-dates", cli("bundle", "--since", "2w", "--since", "3d", file))
    snapshot("error-bundle-json", cli("bundle", "--json", "-"))
    snapshot("error-bundle-folder", cli("bundle", str(tmp_path / "no" / "x.bundle")))
    snapshot("error-bundle-experiment", cli("bundle", "-e", "chrun", file))
    snapshot("error-unbundle-missing", cli("unbundle", str(tmp_path / "no.bundle")))
    snapshot("error-unbundle-text", cli("unbundle", str(tmp_path / "text")))
    snapshot("error-pull-bundle", cli("pull", str(tmp_path / "text")))
    snapshot("error-unbundle-folder", cli("unbundle", str(tmp_path)))
    assert not os.path.exists(file)


def test_a_date(project: Sandbox, cli: Cli, tmp_path: Path) -> None:
    made = json.loads(cli("bundle", "--json", "--since", "2026-01-02T03:05", str(tmp_path / "x.bundle")).out)
    assert made["runs"] == 4


def test_through_a_pipe(project: Sandbox, other: Sandbox, program: Path, cli: Cli) -> None:
    """`-` is standard output there and standard input here, and what is said goes to standard error."""
    with subprocess.Popen([program, "bundle", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
        done = subprocess.run([program, "unbundle", "-"], cwd=other.path, stdin=one.stdout, capture_output=True,
                              check=False)  # fmt: skip
        assert one.stdout is not None
        one.stdout.close()
        assert one.stderr is not None
        assert b"wrote standard output" in one.stderr.read()
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"from standard input: 5 new runs" in done.stderr
    assert cli("-C", str(other.path), "log", "--json").out == cli("log", "--json").out


def test_a_reader_that_goes_away(project: Sandbox, program: Path) -> None:
    with subprocess.Popen([program, "bundle", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
        assert one.stdout is not None
        one.stdout.close()
        assert one.wait() == 141
