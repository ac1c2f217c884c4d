"""Clones and remotes of every kind: shallow, partial, bare, linked, SHA-256, without code, and hosts with rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from gittrack.errors import PushRefusedError
from gittrack.store.repo import Repo
from gittrack.sync import probe
from gittrack.track.capture import Capturer
from gittrack.track.runs import Tracker
from tests.conftest import MakeRepo, Sandbox, run_git
from tests.sync.conftest import Desk, Join, assert_clean, listed

HOOK = """#!/bin/sh
while read old new ref; do
  case "$ref" in refs/heads/*|refs/tags/*) ;; *) echo "only branches and tags, please" >&2; exit 1;; esac
done
"""


def with_code(desk: Desk, name: str) -> str:
    """A run that carries its code, dirty as it is; its id."""
    desk.close()
    folder = desk.sandbox.path
    capture = Capturer(argv=[], environ={}, cwd=folder, mode="full", max_untracked=1 << 20)
    tracker = Tracker(Repo.find(folder, create=True), capture=capture, strict=True)
    desk.sandbox.write("train.py", f"print('{name}')\n")
    run = tracker.create_run(name=name)
    tracker.flush()
    run.end()
    tracker.close()
    return run.run_id


def both_ways(desk: Desk, bo: Desk, hub: Sandbox) -> None:
    """Runs with code go from a clone of some kind to an ordinary one and back."""
    mine = with_code(desk, "mine")
    assert desk.push(files=False).runs == 1
    theirs = with_code(bo, "theirs")
    bo.sandbox.git("checkout", "--quiet", "train.py")
    bo.sandbox.commit("more", more_py="print('more')\n")
    later = with_code(bo, "later")
    assert bo.push(files=False).code == 1, "a commit that the remote does not have comes along, and it is said"
    bo.pull()
    assert desk.pull().refused == {}
    assert set(desk.names()) == set(bo.names()) == {mine, theirs, later}
    assert desk.log() == bo.log()
    for one in (desk, bo):
        commit = one.tracker.get_run(later).commit
        assert "print('later')" in one.sandbox.git("show", f"{commit}:train.py")
    assert desk.push(files=False).ledgers == []
    for folder in (hub.path, bo.sandbox.path):
        assert_clean(folder)


@pytest.mark.parametrize("option", ["--depth=1", "--filter=blob:none", "--filter=tree:0", "--no-checkout"])
def test_shallow_and_partial_clones(join: Join, bo: Desk, hub: Sandbox, option: str) -> None:
    hub.git("config", "uploadpack.allowFilter", "true")
    desk = join("ci", option)
    config, shallow = desk.sandbox.path / ".git" / "config", desk.sandbox.path / ".git" / "shallow"
    before = config.read_bytes(), shallow.exists() and shallow.read_bytes()
    if option == "--no-checkout":
        desk.sandbox.git("checkout", "--quiet", "main")
    both_ways(desk, bo, hub)
    assert (config.read_bytes(), shallow.exists() and shallow.read_bytes()) == before


def test_a_linked_worktree(ana: Desk, bo: Desk, hub: Sandbox, tmp_path: Path) -> None:
    ana.sandbox.git("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    both_ways(Desk(Sandbox(tmp_path / "side", "linked")), bo, hub)


def test_a_bare_clone(hub: Sandbox, bo: Desk, tmp_path: Path) -> None:
    run_git(tmp_path, "clone", "--quiet", "--bare", str(hub.path), "server.git")
    server = Desk(Sandbox(tmp_path / "server.git", "bare"))
    mine, theirs = server.run("mine"), bo.run("theirs")
    server.push(files=False)
    bo.push(files=False)
    bo.pull()
    server.pull()
    assert set(server.names()) == set(bo.names()) == {mine, theirs}


def test_sha256(make_repo: MakeRepo, tmp_path: Path) -> None:
    source = make_repo("sha256")
    run_git(tmp_path, "clone", "--quiet", "--bare", str(source.path), "hub.git")
    desks = []
    for name in ("ana", "bo"):
        run_git(tmp_path, "clone", "--quiet", f"file://{tmp_path}/hub.git", name)
        desks.append(Desk(Sandbox(tmp_path / name, "sha256")))
    both_ways(desks[0], desks[1], Sandbox(tmp_path / "hub.git", "bare"))
    desks[0].model()
    desks[0].push(files=False)
    desks[1].pull()
    assert desks[0].stages() == desks[1].stages()


def test_a_folder_that_is_no_repository(make_repo: MakeRepo, hub: Sandbox, bo: Desk) -> None:
    plain = Desk(make_repo("plain"))
    run = plain.run("without code")
    from gittrack.sync import remotes

    remotes.add(plain.repo, "origin", str(hub.path))
    plain.push(files=False)
    bo.pull()
    assert set(bo.names()) == {run}
    other = bo.run()
    bo.push(files=False)
    plain.pull()
    assert set(plain.names()) == {run, other}


def test_an_empty_remote(ana: Desk, tmp_path: Path) -> None:
    run_git(tmp_path, "init", "--quiet", "--bare", "new.git")
    ana.sandbox.git("remote", "add", "new", str(tmp_path / "new.git"))
    with_code(ana, "first")
    assert ana.pull("new").wanted == []
    report = ana.push("new", files=False)
    assert (report.runs, report.code) == (1, 2)
    assert_clean(tmp_path / "new.git")


def test_a_host_that_takes_branches_and_tags_only(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    hook = hub.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(HOOK)
    hook.chmod(0o755)
    run = ana.run()
    ana.model()
    before = listed(hub.path)
    with pytest.raises(PushRefusedError, match="only branches and tags, please") as refused:
        ana.push(files=False)
    assert "nothing was pushed" in refused.value.message
    assert "remote check" in str(refused.value.hint)
    assert listed(hub.path) == before
    found = probe.check(ana.repo, ana.remote())
    assert (found.writable, found.tags, found.suggestion) == (False, True, "refs/heads/gittrack/")
    assert listed(hub.path) == before
    assert not [ref for ref in ana.refs() if "probe" in ref]

    for desk in (ana, bo):
        desk.prefix = found.suggestion
    assert probe.check(ana.repo, ana.remote()).writable
    ana.push(files=False)
    bo.pull()
    assert run in bo.names()
    assert bo.stages() == ana.stages()
    bo.model("other")
    bo.push(files=False)
    ana.pull()
    assert ana.log() == bo.log()
    assert {ref.rpartition("/")[0] for ref in listed(hub.path, "refs/heads/gittrack")} >= {"refs/heads/gittrack/runs/0"}
    assert ana.push(files=False).ledgers == []


def test_no_fast_forward_rules_of_a_host(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    hub.git("config", "receive.denyNonFastForwards", "true")
    hub.git("config", "receive.denyDeletes", "true")
    hub.git("config", "receive.fsckObjects", "true")
    ana.model()
    ana.push(files=False)
    bo.pull()
    bo.model()
    bo.push(files=False)
    ana.pull()
    assert ana.stages() == bo.stages()


def test_another_place_to_push_to(ana: Desk, hub: Sandbox, tmp_path: Path) -> None:
    run_git(tmp_path, "clone", "--quiet", "--bare", str(hub.path), "write.git")
    ana.sandbox.git("remote", "set-url", "--push", "origin", str(tmp_path / "write.git"))
    ana.run()
    assert ana.push(files=False).runs == 1
    assert ana.push(files=False).runs == 0
    assert not listed(hub.path, "refs/runs")
    assert listed(tmp_path / "write.git", "refs/runs")


def test_settings_of_the_person_that_would_change_a_push(ana: Desk, hub: Sandbox) -> None:
    for key, value in {
        "push.followTags": "true", "remote.origin.mirror": "true", "remote.origin.push": "refs/heads/*:refs/heads/x/*",
        "push.default": "matching", "fetch.prune": "true", "remote.origin.tagOpt": "--tags", "push.gpgSign": "if-asked",
        "submodule.recurse": "true", "push.pushOption": "ci.skip",
    }.items():  # fmt: skip
        ana.sandbox.git("config", key, value)
    ana.sandbox.git("tag", "-a", "-m", "x", "mine")
    ana.run()
    before = listed(hub.path)
    ana.push(files=False)
    assert set(listed(hub.path)) - set(before) == {f"refs/runs/0/{ana.repo.writer}"}
    assert ana.pull().refused == {}
