"""Two clones that meet through stock git: numbers, promotions, aliases and edits made without knowing of each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from gittrack.errors import ConflictError, InvalidValueError, NotFoundError, StateError
from gittrack.registry.check import fsck
from tests.registry.conftest import Desk, clone_of

#: What `gittrack help registry` tells people to fetch.
SEEN = (
    "refs/tags/models/*:refs/gittrack/remotes/origin/tags/models/*",
    "refs/gittrack/registry/*:refs/gittrack/registry/*",
)


@pytest.fixture
def ana(iris: Desk) -> Desk:
    """Whose clone is the remote of Bo's."""
    iris.registry.promote("iris", 1, "Production", archive_existing=True)
    iris.registry.set_alias("iris", "champion", 1)
    return iris


@pytest.fixture
def bo(ana: Desk, tmp_path: Path) -> Desk:
    """A clone of Ana's that knows all she has done so far."""
    bo = clone_of(ana, tmp_path / "bo")
    assert bo.registry.resolve("iris@champion").commit == ana.registry.resolve("iris@champion").commit
    return bo


def meet(bo: Desk) -> None:
    """Bo sees what Ana has."""
    bo.sandbox.git("fetch", "--quiet", "--no-tags", "origin", *SEEN)


def push(bo: Desk) -> list[str]:
    """Bo offers what he has; the tags that were refused."""
    said = bo.sandbox.git(
        "push", "--porcelain", "origin", "refs/tags/models/*", "refs/gittrack/registry/*", check=False
    )
    return [line.split("\t")[1].partition(":")[0] for line in said.splitlines() if line.startswith("!")]


def test_what_the_other_did_properly_is_no_conflict(ana: Desk, bo: Desk) -> None:
    ana.registry.promote("iris", 2, "Production", archive_existing=True)
    meet(bo)
    assert bo.registry.get_model("iris").conflicts == []
    assert bo.registry.resolve("iris/Production").version == "1", "seen is not yet ours"
    assert bo.registry.promote("iris", 3, "Staging", archive_existing=True).current_stage == "Staging"
    assert push(bo) == []
    assert ana.registry.resolve("iris/Staging").version == "3"


def test_two_promotions_are_a_conflict_until_somebody_decides(ana: Desk, bo: Desk) -> None:
    ana.registry.promote("iris", 2, "Production", archive_existing=True, reason="ana's")
    bo.registry.promote("iris", 3, "Production", archive_existing=True, reason="bo's")
    assert bo.registry.resolve("iris/Production").version == "3"
    meet(bo)
    assert bo.registry.get_model("iris").conflicts == ["Production"]
    for address in ("iris/Production", "iris@production"):
        with pytest.raises(ConflictError, match=r"Ana Test put v2 .*Bo put v3|Bo put v3 .*Ana Test put v2"):
            bo.registry.resolve(address)
    with pytest.raises(ConflictError):
        bo.registry.latest("iris", ["Production"])
    with pytest.raises(ConflictError):
        bo.registry.promote("iris", 1, "Production", archive_existing=True)
    assert bo.registry.resolve("iris/3").version == "3", "a number is a number"
    assert any("disagree" in problem.message for problem in fsck(bo.registry))
    with pytest.raises(InvalidValueError):
        bo.registry.settle("iris", "Production")
    with pytest.raises(NotFoundError):
        bo.registry.settle("iris", "Production", 9)

    settled = bo.registry.settle("iris", "production", 2, "we talked")
    assert settled is not None
    assert (settled.version, settled.current_stage) == ("2", "Production")
    assert bo.registry.get_version("iris", 3).current_stage == "Archived"
    assert bo.registry.get_model("iris").conflicts == []
    assert push(bo) == ["refs/tags/models/iris/production/2"], "Ana's event has that name; the one that settles it goes"
    again = ana.reopened().registry
    assert again.resolve("iris/Production").version == "2"
    assert again.get_version("iris", 3).current_stage == "Archived"
    assert again.get_model("iris").conflicts == []
    assert not fsck(again, full=True)
    assert ana.sandbox.git("fsck", "--strict", "--no-dangling") == ""


def test_the_conflict_is_the_same_on_both_sides(ana: Desk, bo: Desk) -> None:
    ana.registry.promote("iris", 2, "Production", archive_existing=True)
    bo.registry.promote("iris", 3, "Production", archive_existing=True)
    meet(bo)
    ana.sandbox.git("fetch", "--quiet", "--no-tags", str(bo.sandbox.path), SEEN[0].replace("origin", "bo"))
    conflicts = [
        {event.oid for conflict in desk.registry.state("iris").conflicts for event in conflict.events}
        for desk in (ana, bo)
    ]
    assert conflicts[0] == conflicts[1] != set()
    ana.registry.settle("iris", "Production", 3)
    meet(bo)
    assert bo.registry.get_model("iris").conflicts == [], "somebody else has decided"


def test_one_version_in_two_stages_is_a_conflict_about_both(ana: Desk, bo: Desk) -> None:
    ana.registry.promote("iris", 2, "Staging", archive_existing=True)
    bo.registry.promote("iris", 2, "Archived", archive_existing=False)
    meet(bo)
    assert bo.registry.get_model("iris").conflicts == ["Archived", "Staging"]
    bo.registry.settle("iris", "Staging", 2)
    assert bo.registry.get_model("iris").conflicts == []
    assert bo.registry.get_version("iris", 2).current_stage == "Staging"


def test_the_same_promotion_twice_is_no_conflict(ana: Desk, bo: Desk) -> None:
    for desk in (ana, bo):
        desk.registry.promote("iris", 2, "Production", archive_existing=True)
    meet(bo)
    assert bo.registry.get_model("iris").conflicts == []
    bo.registry.promote("iris", 3, "Production", archive_existing=True)
    assert "models/iris/production/3" in bo.tags()


def test_two_aliases_are_a_conflict(ana: Desk, bo: Desk) -> None:
    ana.registry.set_alias("iris", "champion", 2)
    bo.registry.set_alias("iris", "champion", 3)
    meet(bo)
    assert bo.registry.get_model("iris").conflicts == ["@champion"]
    with pytest.raises(ConflictError, match="@champion"):
        bo.registry.resolve("iris@champion")
    with pytest.raises(ConflictError):
        bo.registry.by_alias("iris", "champion")
    with pytest.raises(ConflictError):
        bo.registry.set_alias("iris", "champion", 1)
    bo.registry.settle("iris", "@champion", 2)
    assert bo.registry.resolve("iris@champion").version == "2"
    assert push(bo) == ["refs/tags/models/iris/@champion/2"]
    assert ana.reopened().registry.resolve("iris@champion").version == "2"


def test_an_alias_that_one_moves_and_the_other_takes_away(ana: Desk, bo: Desk) -> None:
    ana.registry.set_alias("iris", "champion", 2)
    bo.registry.delete_alias("iris", "champion")
    meet(bo)
    assert bo.registry.get_model("iris").conflicts == ["@champion"]
    assert bo.registry.settle("iris", "@champion") is None
    assert bo.registry.get_model("iris").aliases == {}
    assert bo.registry.get_model("iris").conflicts == []


@pytest.mark.parametrize("writer", ["aaa-1", "zzz-1"])
def test_one_number_given_twice_is_renumbered(ana: Desk, bo: Desk, writer: str) -> None:
    (bo.registry.repo.root / "writer").write_text(f"{writer}\n")  # whose edit wins where neither knows the other's
    bo = bo.reopened()
    theirs = ana.registry.register("iris", ana.run(acc=0.5, extra=b"ana"), "model", description="ana's")
    mine = bo.registry.register("iris", bo.run(acc=0.6, extra=b"bo"), "model", description="bo's", tags={"a": "b"})
    assert (theirs.version, mine.version) == ("4", "4")
    bo.registry.promote("iris", 4, "Staging", archive_existing=True)
    meet(bo)
    assert bo.registry.get_model("iris").conflicts == ["v4"]
    for address in ("iris/4", "iris/Staging", "iris/latest"):
        with pytest.raises(ConflictError, match="v4"):
            bo.registry.resolve(address)
    with pytest.raises(ConflictError):
        bo.registry.promote("iris", 4, "Production", archive_existing=True)
    assert push(bo) == ["refs/tags/models/iris/v4"]

    renumbered = bo.registry.settle("iris", "v4", reason="ana was first")
    assert renumbered is not None
    assert (renumbered.version, renumbered.manifest) == ("5", mine.manifest)
    assert (renumbered.description, renumbered.tags) == ("bo's", {"a": "b"})
    assert bo.registry.get_version("iris", 4).manifest == theirs.manifest
    assert bo.registry.get_version("iris", 4).description == "ana's"
    assert bo.registry.get_version("iris", 4).current_stage == "None", "the promotion was of another v4"
    assert renumbered.current_stage == "Staging", "and goes with it"
    assert not [problem for problem in fsck(bo.registry) if problem.kind == "registry"]
    assert bo.registry.get_model("iris").conflicts == []
    with pytest.raises(StateError):
        bo.registry.settle("iris", "v4")
    push(bo)
    again = ana.reopened().registry
    assert again.get_version("iris", 5).manifest == mine.manifest
    assert again.get_version("iris", 4).description == "ana's"


def test_numbers_that_were_seen_are_not_used(ana: Desk, bo: Desk) -> None:
    ana.registry.register("iris", ana.run(), "model")
    meet(bo)
    assert bo.registry.register("iris", bo.run(), "model").version == "5"
    assert push(bo) == []


def test_a_version_that_was_only_seen_can_settle_a_conflict(ana: Desk, bo: Desk) -> None:
    ana.registry.register("iris", ana.run(extra=b"new"), "model")
    ana.registry.promote("iris", 4, "Production", archive_existing=True)
    bo.registry.promote("iris", 3, "Production", archive_existing=True)
    meet(bo)
    settled = bo.registry.settle("iris", "Production", 4)
    assert settled is not None
    assert settled.commit == ana.registry.get_version("iris", 4).commit
    assert bo.registry.resolve("iris/Production").version == "4"


def test_edits_of_both_are_merged(ana: Desk, bo: Desk) -> None:
    ana.registry.describe_version("iris", 1, "ana's")
    bo.registry.tag_version("iris", 1, {"bo": "was here"})
    bo.registry.describe_model("iris", "bo's")
    meet(bo)
    push(bo)
    for desk in (ana, bo):
        version = desk.registry.get_version("iris", 1)
        assert (version.description, version.tags) == ("ana's", {"bo": "was here"})
        assert desk.registry.get_model("iris").description == "bo's"
    bo.registry.describe_version("iris", 1, "bo's")  # knows of Ana's, and so comes after it
    push(bo)
    assert ana.registry.get_version("iris", 1).description == "bo's"


def test_one_name_for_two_models_is_said(ana: Desk, bo: Desk) -> None:
    ana.registry.create_model("churn")
    ana.registry.rename_model("churn", "flowers")
    bo.registry.create_model("flowers")
    meet(bo)
    with pytest.raises(ConflictError, match=r"`:churn`, `:flowers`|`:flowers`, `:churn`"):
        bo.registry.get_model("flowers")
    bo.registry.rename_model(":flowers", "roses")
    assert bo.registry.get_model("flowers").key == "churn"
    assert bo.registry.get_model("roses").key == "flowers"
