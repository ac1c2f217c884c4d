"""Files of runs go with a push, and come with a pull that asks for them."""

import json
import subprocess
import sys
from pathlib import Path

from gittrack.registry.registry import Registry
from gittrack.store.repo import Repo
from tests.transfer.conftest import LARGE, Clone


def run_cli(clone: Clone, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gittrack", *words]
    done = subprocess.run(command, cwd=clone.path, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done


def record(clone: Clone, **contents: bytes) -> str:
    run = clone.tracker.create_run()
    for name, content in contents.items():
        run.log_bytes(content, name)
    run.end()
    clone.tracker.flush()
    return run.run_id


def here(clone: Clone, run_id: str) -> set[str]:
    repo = Repo.find(clone.path)
    return {path for path, one in repo.artifacts(run_id).items() if repo.objects.has(one.digest, one.size)}


def test_push_sends_files_and_pull_leaves_them(ana: Clone, ben: Clone, remote: Path) -> None:
    run_id = record(ana, model=LARGE, notes=b"notes")
    assert "2 files of runs, 2.9 MiB" in run_cli(ana, "push", "--dry-run").stderr
    assert not (remote / "lfs").exists()
    assert json.loads(run_cli(ana, "push", "--json").stdout)["files"] == 2
    assert "nothing to push" in run_cli(ana, "push").stderr
    run_cli(ben, "pull")
    assert here(ben, run_id) == set()
    run_cli(ben, "fsck", "--full")  # that they are elsewhere is no damage
    done = run_cli(ben, "pull", "--artifacts")
    assert "fetched 2 files" in done.stderr
    assert here(ben, run_id) == {"model", "notes"}
    run_cli(ben, "fsck", "--full")
    path = ben.tracker.repo.objects.path(ben.tracker.repo.artifacts(run_id)["notes"].digest)
    path.chmod(0o644)
    path.write_bytes(b"no")
    assert "not in this clone" in run_cli(ben, "fsck", status=4).stdout
    path.unlink()
    run_cli(ben, "fsck")
    again = record(ana, more=b"unshared")  # no remote has it: it is lost
    ana.tracker.repo.objects.delete(ana.tracker.repo.artifacts(again)["more"].digest)
    assert "its bytes are not in this clone" in run_cli(ana, "fsck", status=4).stdout


def test_files_can_stay_and_go_later(ana: Clone, ben: Clone, remote: Path) -> None:
    run_id = record(ana, model=LARGE)
    run_cli(ana, "push", "--no-artifacts")
    run_cli(ben, "pull")
    assert "neither in this clone nor at" in run_cli(ben, "artifacts", "get", run_id, status=1).stderr
    done = run_cli(ana, "artifacts", "push", run_id)
    assert "sent 1 file, 2.9 MiB" in done.stderr
    assert "already" in run_cli(ana, "artifacts", "push", run_id).stderr
    run_cli(ben, "artifacts", "fetch", run_id)
    assert here(ben, run_id) == {"model"}


def test_runs_of_others_are_passed_on_without_files_that_are_not_here(ana: Clone, ben: Clone, tmp_path: Path) -> None:
    record(ana, model=LARGE)
    run_cli(ana, "push")
    run_cli(ben, "pull")
    ben.git("init", "-q", "--bare", str(tmp_path / "backup.git"))
    ben.git("remote", "add", "backup", str(tmp_path / "backup.git"))
    assert "1 file of these runs not sent: neither in this clone nor there" in run_cli(ben, "push", "backup").stderr
    run_cli(ben, "pull", "--artifacts")
    assert not (tmp_path / "backup.git" / "lfs").exists()


def test_a_push_whose_files_cannot_go_pushes_nothing(ana: Clone, remote: Path) -> None:
    record(ana, model=LARGE)
    (remote / "lfs").write_text("in the way")
    run_cli(ana, "push", status=1)
    assert ana.git("ls-remote", "origin", "refs/runs/*") == ""
    (remote / "lfs").unlink()
    run_cli(ana, "push")
    assert ana.git("ls-remote", "origin", "refs/runs/*") != ""


def test_the_files_of_a_model_come_with_it(ana: Clone, ben: Clone) -> None:
    kept = ana.tracker.create_run()
    kept.log_bytes(b"flavors:\n", "model/MLmodel")
    kept.log_bytes(b"other", "other")
    kept.end()
    Registry(ana.tracker).register("churn", kept.run_id, "model")
    ana.tracker.flush()
    run_cli(ana, "push")
    run_cli(ben, "pull", "--artifacts", "-m", "churn")
    repo = Repo.find(ben.path)
    version = Registry(ben.tracker).resolve("churn@v1")
    files = Registry(ben.tracker).manifest(version).files
    assert [repo.objects.has(digest, size) for digest, size in files.values()] == [True]
