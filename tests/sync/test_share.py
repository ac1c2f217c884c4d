"""Runs, models and what is said about them travel between clones through a bare repository; nothing is clobbered."""

from __future__ import annotations

import shutil
from pathlib import Path

from gittrack.store.check import fsck
from gittrack.store.rewrite import fold, purge
from gittrack.track.logged_models import LoggedModels
from tests.conftest import Sandbox
from tests.sync.conftest import Desk, Join, Killed, assert_clean, dying, listed, state_of


def test_runs_of_both_are_in_both_logs(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    mine = ana.run("of ana", experiment="churn", files={"a.txt": b"a"})
    theirs = bo.run("of bo")
    before = state_of(ana.sandbox.path), state_of(bo.sandbox.path)
    report = ana.push()
    assert (report.runs, report.code, report.skipped) == (1, 0, {})
    assert bo.push().runs == 1
    assert ana.pull().published.runs == {theirs}
    assert bo.pull().published.runs == {mine}
    assert ana.names() == bo.names() == {mine: "of ana", theirs: "of bo"}
    assert ana.log() == bo.log()
    assert before == (state_of(ana.sandbox.path), state_of(bo.sandbox.path)), (
        "branches, files and settings are the user's"
    )
    assert bo.tracker.get_experiment_by_name("churn") is not None
    for folder in (hub.path, ana.sandbox.path, bo.sandbox.path):
        assert_clean(folder)
    assert not [problem for problem in fsck(bo.repo, full=True) if problem.kind != "artifact"]
    assert {ref.split("/")[1] for ref in listed(hub.path)} == {"heads", "runs"}


def test_there_is_nothing_to_do_the_second_time(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    ana.model()
    ana.push()
    refs = listed(hub.path)
    again = ana.push()
    assert (again.runs, again.ledgers, again.tags, again.documents) == (0, [], [], [])
    bo.pull()
    assert bo.pull().wanted == []
    assert bo.push().ledgers == []
    assert listed(hub.path) == refs
    assert not [ref for ref in bo.refs() if ref.startswith("refs/gittrack/incoming/")]


def test_models_travel_with_stage_alias_and_description(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    ana.model()
    ana.model(acc=0.95, extra=b"2")
    ana.registry.promote("iris", 2, "Production", archive_existing=True, reason="better")
    ana.registry.set_alias("iris", "champion", 2)
    ana.registry.describe_version("iris", 2, "the good one")
    report = ana.push()
    assert sorted(report.tags) == [
        "models/iris/@champion/1", "models/iris/production/1", "models/iris/v1", "models/iris/v2",
    ]  # fmt: skip
    done = bo.pull().published
    assert sorted(done.tags) == sorted(report.tags)
    assert bo.stages() == ana.stages()
    assert bo.registry.get_version("iris", 2).description == "the good one"
    assert bo.registry.resolve("iris@champion").manifest == ana.registry.resolve("iris@champion").manifest
    bo.registry.describe_version("iris", 1, "bo's words")
    bo.push()
    ana.pull()
    assert ana.registry.get_version("iris", 1).description == "bo's words"
    assert_clean(hub.path)


def test_an_amended_run_travels_back(ana: Desk, bo: Desk) -> None:
    run_id = ana.run()
    ana.push()
    bo.pull()
    bo.tracker.writer(run_id).set_tags({"seen": "by bo"})
    bo.tracker.flush()
    bo.close()
    ana.tracker.writer(run_id).set_tags({"by": "ana"})
    ana.close()
    assert bo.push().revised + bo.push().runs >= 0
    ana.pull()
    ana.push()
    bo.pull()
    tags = ana.tracker.get_run(run_id).data.tags
    assert (tags["seen"], tags["by"]) == ("by bo", "ana")
    assert bo.tracker.get_run(run_id).data.tags == tags


def test_dry_runs_change_nothing(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    ana.run()
    assert ana.push(dry_run=True).runs == 1
    assert not [ref for ref in listed(hub.path) if ref.startswith("refs/runs/")]
    ana.push()
    before = bo.refs()
    report = bo.pull(dry_run=True)
    assert (report.ledgers, report.tags) == (1, 0)
    assert bo.refs() == before


def test_a_purged_run_goes_everywhere_and_stays_away(ana: Desk, bo: Desk, join: Join, hub: Sandbox) -> None:
    gone, stays = ana.run("gone", files={"secret.txt": b"secret"}), ana.run("stays")
    ana.push()
    bo.pull()
    cy = join("cy")
    cy.pull()
    cy.tracker.writer(gone).set_tags({"seen": "by cy"})
    cy.close()
    cy.push()
    ana.tracker.delete_run(gone)
    ana.tracker.flush()
    purge(ana.repo, gone)
    assert set(ana.names()) == {stays}
    ana.push()
    assert bo.pull().published.dropped == []
    assert set(bo.names()) == {stays}
    assert cy.pull().published.dropped == [gone]
    assert set(cy.names()) == {stays}
    cy.push()
    ana.pull()
    bo.pull()
    for desk in (ana, bo, cy):
        assert set(desk.names()) == {stays}
        assert desk.push().runs == 0
    assert_clean(hub.path)


def test_a_pull_that_dies_over_a_purge_is_finished_by_the_next_one(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    """Whichever write is the last one that is made: the run is gone after the next pull."""
    gone, stays = bo.run("gone", files={"secret.txt": b"secret"}), bo.run("stays")
    bo.push()
    ana.pull()
    (secret,) = (item.digest for item in bo.tracker.artifacts(gone))
    assert bo.repo.objects.has(secret, 6)
    ana.tracker.delete_run(gone)
    ana.tracker.flush()
    ana.push(files=False)
    purge(ana.repo, gone)
    ana.push(files=False)
    bo.pull(take_over=False)
    kept = Path(shutil.copytree(bo.sandbox.path, hub.path.parent / "kept", symlinks=True))
    deaths = 0
    for last in range(20):
        bo.close()
        shutil.rmtree(bo.sandbox.path)
        shutil.copytree(kept, bo.sandbox.path, symlinks=True)
        finished = True
        with dying(last):
            try:
                bo.pull()
            except Killed:
                finished, deaths = False, deaths + 1
        bo.close()
        own = f"refs/runs/0/{bo.repo.writer}"
        bo.pull()
        assert bo.pull().wanted == []
        assert set(bo.names()) == {stays}
        assert {run for run, _ in bo.repo.git.ledger_read(bo.repo.ledgers()[own])} == {stays}, f"write {last}"
        if finished:
            assert not bo.repo.objects.has(secret, 6), "its files went along"
            break
    assert deaths > 1
    assert bo.push(files=False).skipped == {}
    assert_clean(hub.path)


def test_logged_models_travel_and_edits_of_both_merge(ana: Desk, bo: Desk) -> None:
    mine = LoggedModels(ana.tracker)
    run_id = ana.run()
    made = mine.create("0", "forest", source_run_id=run_id, params={"depth": "3"})
    alone = mine.create("0", "alone")
    ana.tracker.writer(alone.run_id).log_bytes(b"x", f"{alone.path}/MLmodel")
    for model in (made, alone):
        mine.finalize(model.model_id, "READY")
    ana.close()
    ana.push()
    bo.pull()
    assert {model.name for model in LoggedModels(bo.tracker).search(["0"])} == {"forest", "alone"}
    theirs = LoggedModels(bo.tracker)
    theirs.set_tags(made.model_id, {"seen": "by bo"})
    theirs.delete(alone.model_id)
    bo.close()
    mine = LoggedModels(ana.tracker)
    mine.set_tags(made.model_id, {"by": "ana"})
    ana.close()
    bo.push()
    ana.pull()
    ana.push()
    bo.pull()
    for desk in (ana, bo):
        (found,) = LoggedModels(desk.tracker).search(["0"])
        assert found.tags == {"by": "ana", "seen": "by bo"}
        assert desk.names() == {run_id: "trained"}
        assert not [problem for problem in fsck(desk.repo, full=True) if problem.kind != "artifact"]


def test_clones_that_fold_each_other_lose_nothing(ana: Desk, bo: Desk, join: Join, hub: Sandbox) -> None:
    """Both were silent for long, both take in the other one's ledger, and only then do they hear of each other."""
    runs = {ana.run("of ana"), bo.run("of bo")}
    for desk in (ana, bo, ana):
        desk.push(files=False)
        desk.pull()
    for desk in (ana, bo):
        assert fold(desk.repo, older_than_s=-60).ledgers == 1
    for desk in (ana, bo, ana, bo):
        desk.push(files=False)
        desk.pull()
        assert set(desk.names()) == runs
    assert len([ref for ref in listed(hub.path) if ref.startswith("refs/runs/")]) == 1, "one of them stays"
    cy = join("cy")
    cy.pull()
    assert set(cy.names()) == runs
    for desk in (ana, bo):
        runs.add(desk.run("later"))
    for desk in (ana, bo, ana, cy, bo):
        desk.push(files=False)
        assert desk.pull().published.conflicts == []
    for desk in (ana, bo, cy):
        assert set(desk.names()) == runs
    assert_clean(hub.path)


def test_a_writer_that_begins_anew_after_it_was_folded(ana: Desk, bo: Desk, join: Join) -> None:
    """Whoever knew its old ledger gets the new one, and the other one that has the old runs."""
    cy = join("cy")
    runs = {ana.run("of ana")}
    ana.push(files=False)
    for desk in (bo, cy):
        desk.pull()
    fold(bo.repo, older_than_s=-60)
    bo.push(files=False)
    ana.pull()
    runs.add(ana.run("later"))
    ana.push(files=False)
    assert cy.pull().published.conflicts == []
    for desk in (ana, cy):
        assert set(desk.names()) == runs
    bo.pull()
    assert bo.log() == cy.log() == ana.log()
