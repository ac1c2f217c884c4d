"""The verbs that share, word for word: what two people see who push and pull through one bare repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from gittrack.registry.registry import Registry
from gittrack.store.repo import Repo
from gittrack.store.rewrite import purge
from gittrack.track.runs import Tracker
from tests.cli.conftest import START, Cli, Snapshot, stable_ids
from tests.cli.test_output import at_terminal
from tests.conftest import MakeRepo, Sandbox, run_git


class Desk:
    """Somebody's clone, and what happens in it.

    Args:
        hub: What it is a clone of.
        name: Whose it is.
    """

    def __init__(self, hub: Path, name: str) -> None:
        self.path = hub.parent.parent / name
        run_git(hub.parent, "clone", "--quiet", f"file://{hub}", str(self.path))
        Repo.find(self.path, create=True).close()
        (self.path / ".gittrack" / "writer").write_text(f"{name}-laptop-0001\n")

    def run(self, name: str, *, model: str = "", stage: str = "", minute: int = 0) -> str:
        """A finished run; registered under ``model`` and put into ``stage`` if they are given."""
        tracker = Tracker(Repo.find(self.path, create=True), strict=True)
        began = START + 60_000 * minute
        run = tracker.create_run(name=name, start_time=began, user_id=self.path.name, capture=False)
        run.log_metric("acc", 0.9, 0, began)
        run.log_bytes(b"flavors: {}\n", "model/MLmodel")
        run.log_bytes(name.encode() * 1000, "model/weights.bin")
        run.end(end_time=began + 1_000)
        tracker.flush()
        registry = Registry(tracker)
        if model:
            version = registry.register(model, run.run_id, "model").version
            if stage:
                registry.promote(model, version, stage, archive_existing=True)
        tracker.close()
        return run.run_id

    def purge(self, run_id: str) -> None:
        """Delete a run and forget it for good."""
        tracker = Tracker(Repo.find(self.path), strict=True)
        tracker.delete_run(run_id)
        tracker.flush()
        purge(tracker.repo, run_id)
        tracker.close()


@pytest.fixture
def hub(make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """A bare repository; runs have the same ids each time."""
    stable_ids(monkeypatch)
    return make_repo("bare")


def test_two_people(hub: Sandbox, cli: Cli, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    ana, bo = Desk(hub.path, "ana"), Desk(hub.path, "bo")

    def at(desk: Desk, name: str, *words: str) -> None:
        monkeypatch.chdir(desk.path)
        snapshot(f"share-{name}", cli(*words))

    at(ana, "push-nothing", "push")
    first = ana.run("first", model="iris", stage="Production")
    at(ana, "push-dry-run", "push", "-n")
    at(ana, "push-first", "push")
    at(ana, "push-no-op", "push")
    at(ana, "push-no-op-json", "push", "--json")
    bo.run("rival", model="iris", stage="Production", minute=1)
    at(bo, "pull-dry-run", "pull", "-n")
    at(bo, "fetch", "fetch")
    at(bo, "fetch-no-op", "fetch")
    at(bo, "push-renumbered", "push")
    at(bo, "pull-no-op", "pull")
    at(ana, "pull-conflict", "pull")
    at(ana, "models-conflict", "models")
    at(ana, "conflict-resolve", "models", "resolve", "iris", "production", "2")
    at(ana, "sync", "sync")
    at(bo, "sync-json", "sync", "--json")
    at(bo, "sync-no-op", "sync")
    gone = bo.run("secret", minute=2)
    bo.run("public", minute=3)
    at(bo, "push-run", "push", "-r", gone[:8], "--no-artifacts")
    at(ana, "pull-run", "pull", "-r", gone)
    at(bo, "push-rest", "push", "--json")
    at(ana, "pull-json", "pull", "--json")
    ana.purge(gone)
    at(ana, "push-tombstone", "push")
    at(bo, "pull-tombstone", "pull")
    at(bo, "push-after-tombstone", "push", "--json")
    at(ana, "pull-artifacts", "pull", "--artifacts")
    at(ana, "remote-check", "remote", "check")
    hook = hub.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        "#!/bin/sh\nprintf '\\033[1;31mGH013\\033[0m: Repository rule violations found\\n\\n' >&2\nexit 1\n"
    )
    hook.chmod(0o755)
    ana.run("protected", model="iris", minute=4)
    at(ana, "push-refused", "push")
    at(ana, "push-refused-json", "push", "--json")
    bo.run("newer", minute=5)
    hook.rename(hook.with_suffix(".off"))
    at(bo, "push-newer", "push", "--no-artifacts")
    hook.with_suffix(".off").rename(hook)
    at(ana, "sync-refused", "sync")
    hook.unlink()
    hub.git("config", "receive.advertiseAtomic", "false")
    at(ana, "push-not-atomic", "push")
    hub.git("update-ref", "refs/tags/models/iris/v1", "HEAD")
    at(bo, "pull-rewritten", "pull")
    assert first


def test_at_a_terminal(hub: Sandbox, program: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Progress comes and goes on its line; what stays is what a file would get."""
    ana, bo = Desk(hub.path, "ana"), Desk(hub.path, "bo")
    ana.run("first", model="iris")
    monkeypatch.chdir(ana.path)
    shown, status = at_terminal([str(program), "push"])
    assert status == 0
    lines = [line.rsplit("\r", 1)[-1] for line in shown.replace("\r\n", "\n").split("\n")]
    kept = [line.replace("\x1b[K", "").rstrip() for line in lines]
    assert [line for line in kept if line] == [
        "pushed to `origin`: 1 run, 1 registry tag, 2 files of runs, 4.9 KiB",
        "    models/iris/v1",
    ]
    monkeypatch.chdir(bo.path)
    run_git(bo.path, "remote", "set-url", "origin", f"{tmp_path}/nothing")
    shown, status = at_terminal([str(program), "pull"])
    assert status == 1
    assert "is no git repository" in shown
    assert "\x1b[31m" in shown, "errors are red"


def test_remotes_that_are_none(hub: Sandbox, cli: Cli, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    ana = Desk(hub.path, "ana")
    ana.run("first")
    monkeypatch.chdir(ana.path)
    snapshot("error-share-remote-name", cli("push", "orgin"))
    snapshot("error-share-remote-url", cli("pull", "https://ana:s3cret@host/x.git"))
    snapshot("error-share-run", cli("push", "-r", "nothing"))
    snapshot("error-share-since", cli("pull", "--since", "yesterday-ish"))
    run_git(ana.path, "remote", "set-url", "origin", f"{hub.path.parent}/nothing.git")
    for verb in ("push", "pull", "fetch", "sync"):
        snapshot(f"error-share-no-repository-{verb}", cli(verb))
    run_git(ana.path, "remote", "set-url", "origin", "https://no-such-host.invalid/x.git")
    snapshot("error-share-no-host", cli("push"))
    run_git(ana.path, "remote", "remove", "origin")
    snapshot("error-share-no-remote", cli("push"))


def test_remotes(hub: Sandbox, cli: Cli, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    ana = Desk(hub.path, "ana")
    monkeypatch.chdir(ana.path)
    snapshot("share-remote-add", cli("remote", "add", "backup", "git@host.invalid:team/project.git"))
    run_git(ana.path, "remote", "set-url", "origin", "https://ana:s3cret@host.invalid/team/project.git")
    snapshot("share-remote-list", cli("remote"))
    snapshot("share-remote-list-json", cli("remote", "list", "--json"))
    snapshot("share-remote-remove", cli("remote", "remove", "backup"))
    snapshot("error-share-remote-exists", cli("remote", "add", "origin", "ssh://host.invalid/x"))
    snapshot("error-share-remote-password", cli("remote", "add", "other", "https://ana:s3cret@host.invalid/x"))
    snapshot("error-share-remote-program", cli("remote", "add", "other", "ext::sh -c date"))
    snapshot("error-share-remote-option", cli("remote", "add", "other", "--", "-oProxyCommand=date"))
    snapshot("error-share-remote-unknown", cli("remote", "remove", "other"))


def test_a_clone(hub: Sandbox, cli: Cli, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ana = Desk(hub.path, "ana")
    ana.run("first", model="iris")
    monkeypatch.chdir(ana.path)
    assert cli("push").status == 0
    monkeypatch.chdir(tmp_path)
    snapshot("share-clone", cli("clone", f"file://{hub.path}", "cy"))
    snapshot("error-share-clone-again", cli("clone", f"file://{hub.path}", "cy"))
    monkeypatch.chdir(tmp_path / "cy")
    assert "first" in cli("log").out
