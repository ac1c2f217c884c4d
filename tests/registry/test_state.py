"""The fold: the same whatever the order, one stage per version, and a conflict exactly where clones disagree."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from gittrack.errors import ConflictError
from gittrack.registry.documents import Document
from gittrack.registry.events import AliasTag, Event, StageTag, VersionTag
from gittrack.registry.state import ModelState, claim, refs, subjects
from gittrack.types import Digest, ObjectId

_made = 0


def _oid() -> ObjectId:
    global _made  # noqa: PLW0603 - a counter
    _made += 1
    return ObjectId(f"{_made:040x}")


def _common(number: int) -> dict[str, Any]:
    return {"key": "iris", "number": number, "who": "Ana <a@x>", "time": 1_000, "title": "t", "oid": _oid()}


def version(number: int) -> VersionTag:
    content = {"run_id": f"run{number}", "manifest": Digest(f"{number:064x}"), "path": "model"}
    return VersionTag(target=ObjectId(f"{number:040x}"), **content, **_common(number))  # type: ignore[arg-type]


def stage(
    number: int, of: VersionTag, name: str, replaces: Iterable[Event] = (), archives: Iterable[int] = ()
) -> StageTag:
    return StageTag(
        version=of.number, stage=name, run_id=of.run_id, manifest=of.manifest, target=of.target,
        replaces=refs(replaces), archives=tuple(archives), **_common(number),
    )  # fmt: skip


def alias(number: int, of: VersionTag | None, replaces: Iterable[Event] = ()) -> AliasTag:
    if of is None:
        return AliasTag(alias="a", version=None, target=ObjectId("0" * 40), replaces=refs(replaces), **_common(number))
    return AliasTag(
        alias="a", version=of.number, run_id=of.run_id, manifest=of.manifest, target=of.target,
        replaces=refs(replaces), **_common(number),
    )  # fmt: skip


V1, V2, V3 = (version(number) for number in (1, 2, 3))


def fold(own: Iterable[Event], seen: Iterable[Event] = ()) -> ModelState:
    return ModelState("iris", [V1, V2, V3, *own], seen, Document("iris"))


def test_an_event_says_where_its_version_and_the_archived_ones_are() -> None:
    first = stage(1, V1, "Production")
    second = stage(2, V2, "Production", [first], [1])
    state = fold([second, first])
    assert [state.stage(n) for n in (1, 2, 3)] == ["Archived", "Production", "None"]
    assert state.in_stage("Production") == [2]
    assert not state.conflicts
    third = stage(1, V1, "Staging", [second])
    state = fold([first, second, third])
    assert [state.stage(n) for n in (1, 2, 3)] == ["Staging", "Production", "None"]
    assert not state.conflicts


def test_two_events_of_one_name_are_a_conflict_until_one_replaces_both() -> None:
    first = stage(1, V1, "Production")
    mine, theirs = stage(2, V2, "Production", [first], [1]), stage(2, V3, "Production", [first], [1])
    state = fold([first, mine], [first, theirs])
    assert state.conflict("Production")
    with pytest.raises(ConflictError, match="v2"):
        state.require_agreement("Production")
    state.require_agreement("Staging")
    assert state.stage(1) == "Archived"
    assert state.stage(2) == "Production"
    settled = stage(3, V3, "Production", [mine, theirs], [2])
    assert not fold([first, mine, settled], [first, theirs]).conflicts
    assert not fold([first, theirs, settled], [mine]).conflicts
    assert fold([first, theirs, settled]).stage(2) == "Archived"
    # what happens to a version that both agree about settles nothing
    other = stage(1, V1, "Staging", [mine, theirs])
    assert fold([first, mine, other], [theirs]).conflict("Production")


def test_the_same_said_twice_is_no_conflict() -> None:
    mine, theirs = stage(1, V2, "Production"), stage(1, V2, "Production")
    assert not fold([mine], [theirs]).conflicts
    assert fold([mine, theirs]).stage(2) == "Production"


def test_first_events_about_one_version_are_a_conflict_whatever_their_names() -> None:
    mine, theirs = stage(1, V2, "Staging"), stage(1, V2, "Production")
    state = fold([mine, theirs])
    assert state.conflict("Staging")
    assert state.conflict("Production")
    assert state.stage(2) == "Staging", "the less exposed one"
    assert not fold([mine, theirs, stage(2, V2, "Production", [mine, theirs])]).conflicts


def test_events_that_replace_one_event_about_different_versions_are_no_conflict() -> None:
    first = stage(1, V1, "Production")
    second = stage(2, V2, "Production", [first], [1])
    third, fourth = stage(1, V1, "Staging", [second]), stage(1, V2, "Archived", [second])
    state = fold([first, second, third, fourth])
    assert not state.conflicts
    assert [state.stage(n) for n in (1, 2)] == ["Staging", "Archived"]


def test_what_was_only_seen_changes_nothing_but_shows_conflicts() -> None:
    first = stage(1, V1, "Production")
    later = stage(2, V2, "Production", [first], [1])
    state = fold([first], [later])
    assert state.stage(1) == "Production"
    assert state.stage(2) == "None"
    assert not state.conflicts, "the remote is ahead, and that is all"
    a, b = stage(2, V2, "Staging"), stage(2, V3, "Staging")
    assert not fold([first], [a, b]).conflicts, "others' conflicts are theirs"


def test_an_alias_is_said_by_its_last_event() -> None:
    first = alias(1, V1)
    second = alias(2, V2, [first])
    assert fold([first, second]).aliases() == {"a": 2}
    assert fold([first, second, alias(3, None, [second])]).aliases() == {}
    other = alias(2, V3, [first])
    state = fold([first, second], [other])
    assert state.conflict("@a")
    assert not fold([first, second, alias(3, V3, [second, other])], [other]).conflicts


def test_an_event_about_another_version_of_that_number_does_not_count() -> None:
    other = version(2)
    forged = stage(1, V2, "Production")
    state = ModelState(
        "iris", [V1, other.__class__(**{**_fields(other), "target": ObjectId("f" * 40)}), forged], [], Document("iris")
    )
    assert state.stage(2) == "None"
    assert "another v2" in state.problems[0]
    state = ModelState("iris", [V1, forged], [], Document("iris"))
    assert "does not exist" in state.problems[0]


def _fields(event: VersionTag) -> dict[str, Any]:
    return {name: getattr(event, name) for name in
            ("key", "number", "target", "who", "time", "title", "oid", "run_id", "manifest", "path")}  # fmt: skip


def test_a_document_from_anybody_cannot_say_anything() -> None:
    document = Document("iris")
    said: dict[str, str | None] = {
        "name": "../\x1b[31m",
        "lifecycle": "gone",
        "versions.1.lifecycle": "x",
        "updated": "²",
    }
    document.edit("w", said, now=1, who="a <b>", known=Document("iris"))
    model, versions = ModelState("iris", [V1], [], document).records()
    assert (model.name, model.lifecycle_stage, versions[0].lifecycle_stage) == ("iris", "active", "active")


def test_one_number_for_two_versions_is_a_conflict() -> None:
    state = fold([], [version(2)])
    assert state.conflict("v2")
    assert not fold([], [V2]).conflicts


def test_approvals_change_nothing() -> None:
    first = stage(1, V1, "Production")
    approval = StageTag(
        version=1, stage="Production", run_id=V1.run_id, manifest=V1.manifest, target=V1.target,
        approves=refs([first]), **_common(2),
    )  # fmt: skip
    state = fold([first, approval])
    assert state.approvals == [approval]
    assert state.stage(1) == "Production"
    assert not state.conflicts


def test_history_tells_from_what_to_what() -> None:
    first = stage(1, V1, "Production")
    second = stage(2, V2, "Production", [first], [1])
    told = [
        (c.what, c.version, c.old, c.new) for c in fold([first, second, alias(1, V2)]).history() if c.what != "version"
    ]
    assert sorted(told, key=str) == sorted(
        [
            ("stage", 1, "None", "Production"),
            ("stage", 2, "None", "Production"),
            ("stage", 1, "Production", "Archived"),
            ("@a", 2, None, "2"),
        ],
        key=str,
    )


@st.composite
def histories(draw: st.DrawFn) -> list[StageTag | AliasTag]:
    """What two clones that sometimes meet could have written."""
    versions = [V1, V2, V3]
    clones: list[list[StageTag | AliasTag]] = [[], []]
    for _ in range(draw(st.integers(1, 12))):
        clone = clones[draw(st.integers(0, 1))]
        of = draw(st.sampled_from(versions))
        state = fold(clone)
        kind = draw(st.sampled_from(["Production", "Staging", "None", "alias", "meet"]))
        if kind == "meet":
            union = list({event.oid: event for event in clones[0] + clones[1]}.values())
            clones = [list(union), list(union)]
        elif kind == "alias":
            clone.append(alias(1 + sum(isinstance(e, AliasTag) for e in clone), of, state.heads("@a")))
        else:
            others = [n for n in state.in_stage(kind) if n != of.number] if kind == "Production" else []
            before = [head for n in (of.number, *others) for head in state.heads(n)]
            clone.append(stage(1 + sum(e.slot == kind.lower() for e in clone), of, kind, before, others))
    return list({event.oid: event for event in clones[0] + clones[1]}.values())


@settings(max_examples=200)
@given(histories(), st.randoms(use_true_random=False))
def test_the_fold_does_not_depend_on_the_order(events: list[StageTag | AliasTag], chance: random.Random) -> None:
    shuffled: list[Event] = [V1, V2, V3, *events]
    chance.shuffle(shuffled)
    one = fold(events)
    other = ModelState("iris", shuffled, [], Document("iris"))
    assert one.records() == other.records()
    assert one.history() == other.history()
    pairs = [{frozenset(event.oid for event in c.events) for c in state.conflicts} for state in (one, other)]
    assert pairs[0] == pairs[1]


@settings(max_examples=200)
@given(histories())
def test_heads_that_disagree_are_always_in_a_conflict(events: list[StageTag | AliasTag]) -> None:
    state = fold(events)
    concerned = {subject for conflict in state.conflicts for event in conflict.events for subject in subjects(event)}
    for number in (1, 2, 3):
        said = {claim(head, number) for head in state.heads(number) if isinstance(head, StageTag)}
        assert len(said) <= 1 or number in concerned
    assert len({head.version for head in state.heads("@a")}) <= 1 or "@a" in concerned
    if not state.conflicts:
        assert len(state.in_stage("Production")) <= 1, "every promotion to production archived the others"


@settings(max_examples=100)
@given(histories())
def test_a_later_event_about_everything_settles_everything(events: list[StageTag | AliasTag]) -> None:
    state = fold(events)
    stages = [event for event in events if isinstance(event, StageTag)]
    aliases = [event for event in events if isinstance(event, AliasTag)]
    last: list[Event] = [stage(99, V1, "Production", stages, [2, 3])] if stages else []
    last += [alias(99, V1, aliases)] if aliases else []
    state = fold([*events, *last])
    assert not state.conflicts
    if stages:
        assert [state.stage(n) for n in (1, 2, 3)] == ["Production", "Archived", "Archived"]
