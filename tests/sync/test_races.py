"""Two clones that did the same thing at the same time: one gets the name, the other one gives way, and says so."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from gittrack.errors import ConflictError
from gittrack.registry.rebase import Renamed
from gittrack.sync.push import PushReport
from tests.conftest import Sandbox
from tests.sync.conftest import Desk, Join, assert_clean, listed


def renamed(report: PushReport) -> list[Renamed]:
    """Every tag that had to give way in a push."""
    return [one for done in report.pulled for one in done.renamed]


def together(*calls: Callable[[], PushReport]) -> list[PushReport]:
    """What calls return that start at the same moment."""
    barrier = threading.Barrier(len(calls))
    found: dict[int, PushReport] = {}

    def run(number: int, call: Callable[[], PushReport]) -> None:
        barrier.wait()
        found[number] = call()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(calls)
    return [found[number] for number in range(len(calls))]


def test_exactly_one_of_two_simultaneous_pushes_gets_the_version(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    assert (ana.model(acc=0.1, extra=b"ana"), bo.model(acc=0.2, extra=b"bo")) == ("1", "1")
    content = {id(desk): desk.registry.get_version("iris", 1).manifest for desk in (ana, bo)}
    reports = together(ana.push, bo.push)
    losers = [report for report in reports if renamed(report)]
    assert len(losers) == 1
    assert renamed(losers[0]) == [Renamed("iris", "models/iris/v1", "models/iris/v2")]
    loser, winner = (ana, bo) if losers[0] is reports[0] else (bo, ana)
    assert loser.registry.get_version("iris", 1).manifest == content[id(winner)]
    assert loser.registry.get_version("iris", 2).manifest == content[id(loser)]
    winner.pull()
    assert winner.stages() == loser.stages()
    assert set(listed(hub.path, "refs/tags")) == {"refs/tags/models/iris/v1", "refs/tags/models/iris/v2"}
    assert_clean(hub.path)


def test_stage_alias_and_description_go_with_the_renumbered_version(ana: Desk, bo: Desk) -> None:
    ana.model(extra=b"ana")
    ana.registry.describe_version("iris", 1, "ana's")
    bo.model(extra=b"bo")
    bo.registry.describe_version("iris", 1, "bo's")
    bo.registry.promote("iris", 1, "Staging", archive_existing=True, reason="looks good")
    bo.registry.set_alias("iris", "challenger", 1)
    bo.model(extra=b"more of bo")
    bo.registry.promote("iris", 2, "Staging", archive_existing=True)
    ana.push()
    report = bo.push()
    assert [one.new for one in renamed(report)] == [
        "models/iris/v3", "models/iris/@challenger/2", "models/iris/staging/3", "models/iris/staging/4",
    ]  # fmt: skip
    ana.pull()
    for desk in (ana, bo):
        assert {number: (stage, aliases) for number, (stage, _, aliases) in desk.stages().items()} == {
            "1": ("None", []), "2": ("Staging", []), "3": ("Archived", ["challenger"]),
        }  # fmt: skip
        assert [desk.registry.get_version("iris", n).description for n in (1, 3)] == ["ana's", "bo's"]
        assert desk.registry.get_model("iris").conflicts == []
        assert "looks good" in {change.reason for change in desk.registry.history("iris")}
        assert desk.registry.catalog.problems() == []
    assert ana.registry.get_version("iris", 3).manifest == bo.registry.get_version("iris", 3).manifest


def test_a_number_is_not_official_before_a_remote_has_it(ana: Desk, bo: Desk) -> None:
    ana.model()
    version = ana.registry.get_version("iris", 1)
    assert ana.registry.catalog.unpublished(version)
    ana.push()
    ana.registry.catalog.refresh()
    assert not ana.registry.catalog.unpublished(version)
    bo.pull()
    assert not bo.registry.catalog.unpublished(bo.registry.get_version("iris", 1))


def test_two_promotions_are_a_conflict_everywhere_until_somebody_decides(ana: Desk, bo: Desk, join: Join) -> None:
    for extra in (b"1", b"2"):
        ana.model(extra=extra)
    ana.push()
    bo.pull()
    cy = join("cy")
    ana.registry.promote("iris", 1, "Production", archive_existing=True, reason="ana's")
    bo.registry.promote("iris", 2, "Production", archive_existing=True, reason="bo's")
    ana.push()
    assert [one.new for one in renamed(bo.push())] == ["models/iris/production/2"]
    ana.pull()
    cy.pull()
    for desk in (ana, bo, cy):
        assert desk.registry.get_model("iris").conflicts == ["Production"]
        with pytest.raises(ConflictError, match="Production"):
            desk.registry.resolve("iris/Production")
    cy.registry.settle("iris", "Production", 1, "we talked")
    cy.push()
    for desk in (ana, bo):
        desk.pull()
        assert desk.registry.resolve("iris/Production").version == "1"
        assert desk.registry.get_model("iris").conflicts == []
    assert ana.stages() == bo.stages() == cy.stages()


def test_the_same_model_made_by_two(ana: Desk, bo: Desk) -> None:
    ana.registry.create_model("churn", description="ana's")
    bo.registry.create_model("churn", {"team": "blue"})
    ana.push()
    bo.push()
    ana.pull()
    bo.pull()
    for desk in (ana, bo):
        model = desk.registry.get_model("churn")
        assert (model.description, model.tags) == ("ana's", {"team": "blue"})


def test_a_copied_clone_takes_an_id_of_its_own(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    first = ana.run("first")
    ana.model()
    ana.push()
    bo.pull()
    (bo.repo.root / "writer").write_text(f"{ana.repo.writer}\n")  # as `cp -r` does it
    bo.close()
    mine, theirs = ana.run("of ana"), bo.run("of bo")
    bo.registry.describe_model("iris", "bo's")
    ana.registry.describe_version("iris", 1, "ana's")
    ana.push()
    report = bo.push()
    writers = [done.writer for done in report.pulled if done.writer]
    assert writers == [bo.repo.writer]
    assert bo.repo.writer != ana.repo.writer
    bo.close()
    ana.pull()
    for desk in (ana, bo):
        assert {first, mine, theirs} < set(desk.names())
        assert desk.registry.get_model("iris").description == "bo's"
        assert desk.registry.get_version("iris", 1).description == "ana's"
        assert desk.push().ledgers == []
    assert ana.log() == bo.log()
    assert_clean(hub.path)


def test_a_clone_that_was_restored_goes_on(ana: Desk, join: Join) -> None:
    run = ana.run()
    ana.push()
    again = join("again")
    again.registry  # noqa: B018 - makes the store
    again.close()
    (again.sandbox.path / ".gittrack" / "writer").write_text(f"{ana.repo.writer}\n")
    assert again.pull().published.writer is None
    other = again.run()
    assert again.push().runs == 1
    ana.pull()
    assert set(ana.names()) == {run, other}


def test_one_number_on_two_remotes_is_left_to_people(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    other = hub.path.parent / "other.git"
    hub.git("clone", "--quiet", "--bare", str(hub.path), str(other))
    ana.model(extra=b"ana")
    ana.push()
    bo.model(extra=b"bo")
    bo.sandbox.git("remote", "add", "other", str(other))
    bo.push("other")
    done = bo.pull("origin").published
    assert done.renamed == []
    assert "both are published" in done.conflicts[0]
    assert bo.registry.get_model("iris").conflicts == ["v1"]
    settled = bo.registry.settle("iris", "v1")
    assert settled is not None
    assert settled.version == "2"
    assert bo.push("origin").tags == ["models/iris/v2"]


def test_models_whose_names_differ_by_case_only_are_told_apart(ana: Desk, bo: Desk) -> None:
    ana.model("Iris")
    bo.model("iris")
    ana.push()
    bo.push()
    for desk in (ana, bo):
        assert any("upper and lower case" in conflict for conflict in desk.pull().published.conflicts)


def test_ledgers_of_dead_writers_are_folded_into_one(ana: Desk, bo: Desk, join: Join, hub: Sandbox) -> None:
    from gittrack.store.rewrite import fold

    jobs = [join(f"ci{number}") for number in range(3)]
    runs = {job.run(f"job {job.repo.writer}", experiment="nightly") for job in jobs}
    for job in jobs:
        job.push()
    bo.pull()
    ana.pull()
    assert fold(ana.repo, older_than_s=3600).ledgers == 0, "nobody is silent for an hour"
    assert fold(ana.repo, older_than_s=-60, dry_run=True).ledgers == 3
    report = fold(ana.repo, older_than_s=-60)
    assert (report.ledgers, report.runs, len(report.writers)) == (3, 3, 3)
    assert set(ana.names()) == runs
    sent = ana.push()
    assert len(sent.folded) == 3
    assert len(listed(hub.path, "refs/runs")) == 1
    done = bo.pull().published
    assert len(done.unfolded) == 3
    assert set(bo.names()) == runs
    assert bo.push().ledgers == [], "what was folded is not pushed again"
    again = jobs[0].run("later", experiment="nightly")
    jobs[0].push()
    for desk in (ana, bo):
        desk.pull()
        assert set(desk.names()) == runs | {again}
        assert desk.tracker.get_experiment_by_name("nightly") is not None
    assert_clean(hub.path)


def test_a_push_gives_way_to_what_was_only_fetched(ana: Desk, bo: Desk) -> None:
    """`gittrack fetch` has seen the other version; that is no reason not to take it over."""
    ana.model(extra=b"ana")
    bo.model(extra=b"bo")
    ana.push()
    bo.pull(take_over=False)
    report = bo.push()
    assert renamed(report) == [Renamed("iris", "models/iris/v1", "models/iris/v2")]
    assert (report.tags, report.skipped) == (["models/iris/v2"], {})


def test_a_conflict_is_told_by_whatever_brings_it(ana: Desk, bo: Desk) -> None:
    for desk in (ana, bo):
        desk.model(extra=desk.sandbox.path.name.encode())
        desk.registry.promote("iris", 1, "Production", archive_existing=True)
    ana.push()
    said = [line for done in bo.push().pulled for line in done.conflicts]
    assert said == [
        "Production of model `iris` was given to two versions; `gittrack models resolve` says which one is meant"
    ]
    assert ana.pull().published.conflicts == said
    assert ana.pull().published.conflicts == []
