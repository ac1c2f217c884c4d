"""Versions that were copied: what they are a copy of is a fact that those who may see the copy need not see."""

from pathlib import Path

import pytest

from gittrack.registry import check, names
from tests.registry.conftest import Desk, clone_of


def test_a_copy_says_what_it_is_a_copy_of(desk: Desk) -> None:
    registry = desk.registry
    made = registry.register("iris", desk.run(), "model")
    copied = registry.copy(made, "flower")
    again = registry.copy(copied, "rose")
    said = [one.copied_from for one in (made, copied, again)]
    assert said == [None, "models:/iris/1", "models:/flower/1"]
    assert {one.source for one in (made, copied, again)} == {made.source}
    assert registry.files_uri(again) == made.source
    registry.rename_model("iris", "lily")
    registry.delete_model("flower")
    registry = desk.reopened().registry
    assert registry.get_version("rose", 1) == again
    assert check.fsck(registry, full=True) == []


def test_neither_tags_nor_the_history_tell_it(desk: Desk) -> None:
    registry = desk.registry
    registry.copy(registry.register("secret", desk.run(), "model"), "open")
    assert "secret" not in desk.sandbox.git("cat-file", "tag", "models/open/v1")
    assert "secret" not in repr(registry.history("open"))


def test_a_copy_is_one_in_every_clone(desk: Desk, tmp_path: Path) -> None:
    registry = desk.registry
    registry.copy(registry.register("iris", desk.run(), "model"), "flower")
    other = clone_of(desk, tmp_path / "clone").registry
    assert other.get_version("flower", 1).copied_from == "models:/iris/1"


@pytest.mark.parametrize("text", ["models:/a/1", "models:/ü b/2147483647"])
def test_an_address_of_a_version(text: str) -> None:
    assert names.is_address_of_version(text)


@pytest.mark.parametrize(
    "text",
    ["", "a/1", "models:/a", "models:/a/01", "models:/a@1", "models:/a/Production", "models:/../1", "models://a/1",
     "models:/a/1\n", "models:/a/b/1", "runs:/a/1", "models:/m-1", "models:/a/99999999999"],
)  # fmt: skip
def test_what_is_no_address_of_a_version(text: str) -> None:
    assert not names.is_address_of_version(text)
