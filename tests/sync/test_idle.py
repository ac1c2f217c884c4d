"""Nothing to push, nothing to pull: said only where it is so, and without asking the remote twice."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gittrack import cli
from gittrack.sync import idle, transport
from tests.conftest import Sandbox, run_git
from tests.sync.conftest import Desk, listed


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `settled` keeps what it has made."""
    return tmp_path_factory.mktemp("settled")


@pytest.fixture
def settled(ana: Desk, bo: Desk, hub: Sandbox, template: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Bo's clone, which has what the hub has: runs, a model, its documents; he is in it.

    The first test makes hub and clones, and the others get copies.
    """
    folders = {"hub": hub.path, "ana": ana.sandbox.path, "bo": bo.sandbox.path}
    if not (template / "made").exists():
        ana.run("one")
        ana.model()
        ana.registry.describe_model("iris", "flowers")
        ana.push(files=False)
        bo.run("two")
        bo.pull()
        bo.push(files=False)
        bo.pull()
        for desk in (ana, bo):
            desk.close()
        for name, folder in folders.items():
            shutil.copytree(folder, template / name, symlinks=True)
        (template / "made").touch()
    for name, folder in folders.items():
        shutil.rmtree(folder)
        shutil.copytree(template / name, folder, symlinks=True)
    for desk in (ana, bo):
        desk.sandbox.git("remote", "set-url", "origin", f"file://{hub.path}")
    monkeypatch.chdir(bo.sandbox.path)
    return bo


def asked(*words: str) -> str | None:
    transport._answers.clear()
    return idle.idle(list(words))


def test_nothing_to_do_is_said_as_the_verbs_say_it(
    settled: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked("push") == asked("push", "origin") == "nothing to push to `origin`"
    assert asked("pull") == asked("fetch", "origin") == "`origin` has nothing new"
    assert asked("-C", str(settled.sandbox.path), "pull") == "`origin` has nothing new"
    for verb in ("push", "pull", "fetch"):
        said = []
        for words in ([verb], [verb, "--dry-run"]):
            monkeypatch.setattr(sys, "argv", ["gittrack", *words])
            with pytest.raises(SystemExit) as left:
                cli.start()
            assert left.value.code == 0
            said.append(capsys.readouterr().err)
        assert said[0] == said[1]


def test_what_is_not_plain_is_left_to_the_verbs(settled: Desk) -> None:
    for words in ([], ["-C"], ["log"], ["push", "--dry-run"], ["push", "nobody"], ["pull", "origin", "x"],
                  ["-C", "/nowhere", "push"], ["sync"], ["push", str(settled.sandbox.path)]):  # fmt: skip
        assert asked(*words) is None


def new_run_here(desk: Desk, hub: Sandbox) -> None:
    desk.run("three")


def run_that_goes_on(desk: Desk, hub: Sandbox) -> None:
    desk.tracker.create_run(name="on", capture=False)


def model_here(desk: Desk, hub: Sandbox) -> None:
    desk.model("other")


def words_here(desk: Desk, hub: Sandbox) -> None:
    desk.registry.describe_model("iris", "irises")


def other_tag_here(desk: Desk, hub: Sandbox) -> None:
    desk.sandbox.git("update-ref", "refs/tags/models/iris/v1", "HEAD")


def new_ledger_there(desk: Desk, hub: Sandbox) -> None:
    hub.git("update-ref", "refs/runs/0/eve-1", "HEAD")


def ledger_gone_there(desk: Desk, hub: Sandbox) -> None:
    hub.git("update-ref", "-d", next(ref for ref in listed(hub.path) if ref.startswith("refs/runs/")))


def tag_gone_there(desk: Desk, hub: Sandbox) -> None:
    hub.git("update-ref", "-d", "refs/tags/models/iris/v1")


def not_seen(desk: Desk, hub: Sandbox) -> None:
    desk.sandbox.git("update-ref", "-d", next(ref for ref in desk.refs("refs/gittrack/remotes/")))


def something_incoming(desk: Desk, hub: Sandbox) -> None:
    desk.sandbox.git("update-ref", "refs/gittrack/incoming/origin/runs/0/eve-1", "HEAD")


def pushed_elsewhere(desk: Desk, hub: Sandbox) -> None:
    desk.sandbox.git("remote", "set-url", "--push", "origin", str(hub.path))


def other_names_there(desk: Desk, hub: Sandbox) -> None:
    desk.sandbox.git("config", "gittrack.refPrefix", "refs/heads/gittrack/")


def runs_kept_elsewhere(desk: Desk, hub: Sandbox) -> None:
    desk.sandbox.git("config", "gittrack.trackingUri", str(hub.path))


def no_store(desk: Desk, hub: Sandbox) -> None:
    (desk.sandbox.path / ".gittrack" / "writer").unlink()


def nobody_there(desk: Desk, hub: Sandbox) -> None:
    desk.sandbox.git("remote", "set-url", "origin", str(hub.path.parent / "nothing"))


CHANGES = (
    new_run_here, run_that_goes_on, model_here, words_here, other_tag_here, new_ledger_there, ledger_gone_there,
    tag_gone_there, not_seen, something_incoming, pushed_elsewhere, other_names_there, runs_kept_elsewhere, no_store,
    nobody_there,
)  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_differs_is_left_to_the_verbs(
    settled: Desk, hub: Sandbox, change: Callable[[Desk, Sandbox], None]
) -> None:
    change(settled, hub)
    assert asked("push") is None
    assert asked("pull") is None


def test_the_verb_takes_the_answer_over(ana: Desk, settled: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ana.run("three")
    ana.push(files=False)
    calls: list[str] = []
    real = settled.repo.git.program.over_network

    def counted(*args: str, **options: object) -> object:
        calls.append(args[0])
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(settled.repo.git.program), "over_network", lambda _, *args, **more: counted(*args, **more))
    assert asked("pull") is None
    assert len(settled.pull().published.runs) == 1
    assert calls == ["ls-remote", "fetch"]
    assert settled.pull().published.runs == set()
    assert calls == ["ls-remote", "fetch", "ls-remote"]


def test_packed_refs_and_linked_work_trees(settled: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled.sandbox.git("pack-refs", "--all")
    assert asked("push") is not None
    run_git(settled.sandbox.path, "worktree", "add", "-q", str(tmp_path / "linked"))
    monkeypatch.chdir(tmp_path / "linked")
    assert asked("pull") is not None
