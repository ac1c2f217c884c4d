"""Documents: bytes that read back, a merge that does not care about order, and nothing else from foreign bytes."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

from hypothesis import given, strategies as st

from gittrack.errors import FormatError
from gittrack.registry.documents import Document
from gittrack.store import codec

FIELDS = st.sampled_from(["name", "description", "tags.a", "versions.1.requirements", "versions.2.tags.b"])
CHANGES = st.dictionaries(FIELDS, st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1)
EDITS = st.lists(st.tuples(st.integers(0, 2), CHANGES, st.booleans()), max_size=8)


def written(edits: list[tuple[int, dict[str, str | None], bool]]) -> list[Document]:
    """The documents of three writers who edit, and sometimes know what the others wrote."""
    found = [Document("iris") for _ in range(3)]
    for now, (writer, changes, informed) in enumerate(edits, 1):
        known = Document("iris")
        for one in found if informed else [found[writer]]:
            known.merge(one)
        found[writer].edit(f"writer-{writer}", changes, now=now, who="a <b>", reason="why", known=known)
    return found


def folded(documents: list[Document]) -> Document:
    whole = Document("iris")
    for one in documents:
        whole.merge(one)
    return whole


@given(EDITS, st.randoms(use_true_random=False))
def test_the_merge_does_not_depend_on_the_order(
    edits: list[tuple[int, dict[str, str | None], bool]], chance: random.Random
) -> None:
    documents = written(edits)
    whole = folded(documents).encode()
    shuffled = [*documents, chance.choice(documents)]  # one of them twice
    chance.shuffle(shuffled)
    assert folded(shuffled).encode() == whole
    left, right = folded(shuffled[:2]), folded(shuffled[2:])
    left.merge(right)
    assert left.encode() == whole


@given(EDITS)
def test_documents_read_back(edits: list[tuple[int, dict[str, str | None], bool]]) -> None:
    for document in written(edits):
        assert Document.decode("iris", document.encode()).encode() == document.encode()


@given(EDITS)
def test_whoever_knows_all_writes_last(edits: list[tuple[int, dict[str, str | None], bool]]) -> None:
    documents = written([*edits, (0, {"name": "last"}, True)])
    assert folded(documents).value("name") == "last"
    assert folded(documents).below("")["name"] == "last"


VALUES = st.recursive(
    st.none() | st.integers(-5, 2**63) | st.text(max_size=5) | st.binary(max_size=5) | st.floats() | st.booleans(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=15,
)
SHAPED = st.fixed_dictionaries(
    {"version": st.just(1), "created": VALUES, "updated": VALUES, "fields": VALUES, "log": VALUES}
)


@given(VALUES | SHAPED)
def test_only_our_errors_come_out_of_another_shape(value: Any) -> None:
    with suppress(FormatError):
        Document.decode("iris", codec.pack(value))


@given(st.binary(max_size=200))
def test_only_our_errors_come_out_of_any_bytes(data: bytes) -> None:
    with suppress(FormatError):
        Document.decode("iris", data)


def test_long_values_are_cut_in_the_log_but_requirements_are_not() -> None:
    document = Document("iris")
    changes: dict[str, str | None] = {"description": "x" * 10_000, "versions.1.requirements": "y" * 10_000}
    document.edit("a", changes, now=1, who="a <b>", known=Document("iris"))
    assert {edit.field: len(edit.value or "") for edit in document.log.values()} == {
        "description": 500, "versions.1.requirements": 10_000,
    }  # fmt: skip
    assert document.value("description") == "x" * 10_000
