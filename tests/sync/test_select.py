"""Less than everything: by experiment, run, model, author and date, both ways; the rest comes when it is asked for."""

from __future__ import annotations

import time

import pytest

from gittrack.store.rewrite import fold
from gittrack.sync.select import Selection
from tests.conftest import Sandbox
from tests.sync.conftest import Desk, Join, assert_clean, listed


def test_pushing_some(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    first, second = ana.run("first"), ana.run("second")
    other = ana.run("other", experiment="churn")
    churn = ana.tracker.get_run(other).info.experiment_id
    assert ana.push(files=False, select=Selection(runs=frozenset([second]))).runs == 1
    bo.pull()
    assert set(bo.names()) == {second}
    assert ana.push(files=False, select=Selection(experiments=frozenset([churn]))).runs == 1
    bo.pull()
    assert set(bo.names()) == {second, other}
    assert ana.pull().published.writer is None, "what it has itself pushed is no other clone"
    assert ana.push(files=False).runs == 1
    bo.pull()
    assert set(bo.names()) == {first, second, other}
    assert ana.log() == bo.log()
    assert not [ref for ref in ana.refs() if "outgoing" in ref]
    assert_clean(hub.path)


def test_pushing_by_date_and_author(ana: Desk, bo: Desk) -> None:
    old = ana.tracker.create_run(name="old", start_time=1_000, user_id="ana", capture=False)
    old.end()
    new = ana.tracker.create_run(name="new", user_id="cy", capture=False)
    new.end()
    ana.tracker.flush()
    assert ana.push(files=False, select=Selection(author="nobody")).runs == 0
    since = Selection(since=int(time.time() * 1000) - 3_600_000)
    assert ana.push(files=False, select=since, dry_run=True).runs == 1
    assert ana.push(files=False, select=since).runs == 1
    bo.pull()
    assert set(bo.names()) == {new.run_id}
    assert ana.push(files=False, select=Selection(author="ANA")).runs == 1
    bo.pull()
    assert set(bo.names()) == {new.run_id, old.run_id}


def test_pulling_some(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    first, second = ana.run("first"), ana.run("second")
    other = ana.run("other", experiment="churn")
    ana.model()
    ana.push(files=False)
    refs = listed(hub.path)
    bo.pull(select=Selection(models=frozenset(["iris"])))
    assert bo.stages() == ana.stages()
    assert bo.names() == {}
    bo.pull(select=Selection(runs=frozenset([first])))
    assert set(bo.names()) == {first}
    bo.pull(select=Selection(experiments=frozenset([ana.tracker.get_run(other).info.experiment_id])))
    assert set(bo.names()) == {first, other}
    assert bo.push(files=False).ledgers == [], "what is less than the remote has is not pushed"
    assert listed(hub.path) == refs
    bo.pull()
    assert {first, second, other} < set(bo.names())
    assert ana.log() == bo.log()


def test_pushing_a_model_takes_its_runs_along(ana: Desk, bo: Desk) -> None:
    ana.model("iris")
    ana.model("churn")
    ana.run("not meant")
    report = ana.push(files=False, select=Selection(models=frozenset(["churn"])))
    assert (report.tags, report.ledgers) == (["models/churn/v1"], [])
    bo.pull()
    version = bo.registry.get_version("churn", 1)
    assert bo.registry.run_of(version).info.run_name == "trained"
    assert bo.registry.manifest(version).digest == version.manifest


def test_pulling_by_date_and_author(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    """All is fetched, and only what was asked for is there: in the log, in the ledgers, in what is pushed on."""
    old = ana.tracker.create_run(name="old", start_time=1_000, user_id="ana", capture=False)
    new = ana.tracker.create_run(name="new", user_id="cy", capture=False)
    for run in (old, new):
        run.end()
    ana.tracker.flush()
    ana.push(files=False)
    refs = listed(hub.path)
    assert bo.pull(select=Selection(author="nobody")).published.runs == set()
    assert bo.names() == {}
    since = Selection(since=int(time.time() * 1000) - 3_600_000)
    assert bo.pull(select=since).published.runs == {new.run_id}
    ledgers = bo.repo.ledgers().values()
    assert {run for ledger in ledgers for run, _ in bo.repo.git.ledger_read(ledger)} == {new.run_id}
    assert set(bo.names()) == {new.run_id}
    assert bo.push(files=False).ledgers == []
    assert listed(hub.path) == refs
    assert bo.pull(select=Selection(author="ANA")).published.runs == {old.run_id}
    bo.pull()
    assert bo.log() == ana.log()


@pytest.mark.parametrize("heard", [False, True])
def test_some_runs_of_a_writer_that_was_folded_and_came_back(
    ana: Desk, bo: Desk, join: Join, hub: Sandbox, heard: bool
) -> None:
    """What is made of a ledger for one push or pull is no ledger that somebody else has taken in."""
    cy = join("cy")
    first = bo.run("first")
    bo.push(files=False)
    for desk in (ana, cy):
        desk.pull()
    fold(ana.repo, older_than_s=-60)
    ana.push(files=False)
    if heard:
        cy.pull()
    second, third, fourth = (bo.run(name) for name in ("second", "third", "fourth"))
    bo.push(files=False, select=Selection(runs=frozenset([second])))
    bo.push(files=False, select=Selection(runs=frozenset([second, third])))
    assert cy.pull(select=Selection(runs=frozenset([third]))).published.conflicts == []
    assert set(cy.names()) == {first, third}
    for desk in (bo, ana, cy, bo):
        desk.push(files=False)
        desk.pull()
    for desk in (ana, bo, cy):
        desk.pull()
        assert set(desk.names()) == {first, second, third, fourth}
    assert_clean(hub.path)
