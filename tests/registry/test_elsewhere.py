"""Versions whose files are elsewhere: an address that a tag vouches for, and no files."""

from pathlib import Path

import pytest

from gittrack.errors import InvalidValueError, NotFoundError
from gittrack.models import addresses
from gittrack.registry import check
from tests.registry.conftest import Desk, clone_of

ADDRESS = "s3://bucket/models/iris 50%"


def test_an_address_is_a_version_as_others_are(desk: Desk, tmp_path: Path) -> None:
    registry = desk.registry
    made = registry.register_elsewhere("iris", ADDRESS, "abc", description="big", tags={"a": "b"}, run_link="http://x")
    assert (made.version, made.source, made.elsewhere, made.source_run_id) == ("1", ADDRESS, True, "abc")
    assert (made.description, made.tags, made.run_link, made.path) == ("big", {"a": "b"}, "http://x", "")
    copied = registry.copy(made, "flower")
    assert (copied.source, copied.source_run_id, copied.commit) == (ADDRESS, "abc", made.commit)
    assert registry.promote("iris", 1, "Production", archive_existing=True).current_stage == "Production"
    registry.set_alias("iris", "champion", 1)
    assert registry.register("iris", desk.run(), "model").version == "2"
    assert [one.version for one in registry.search_versions("run_id = 'abc'") if one.name == "iris"] == ["1"]
    assert [one.name for one in registry.search_versions(f"source_path = '{ADDRESS}'")] == ["iris", "flower"]
    again = desk.reopened().registry
    assert again.resolve("iris@champion").source == ADDRESS
    assert check.fsck(again, full=True) == []
    other = clone_of(desk, tmp_path / "clone").registry
    assert other.resolve("iris/Production").source == ADDRESS
    assert {one.subject for one in check.fsck(other) if "iris@v2" not in one.message} == set()
    assert f"Gittrack-Source: {ADDRESS.replace('%', '%25')}" in desk.sandbox.git("cat-file", "tag", "models/iris/v1")


def test_the_run_that_keeps_it_is_no_run_of_anybody(desk: Desk) -> None:
    made = desk.registry.register_elsewhere("iris", ADDRESS)
    assert desk.registry.tracker.search_runs(["0"]) == []
    assert desk.registry.run_of(made).info.status == "FINISHED"
    assert made.source_run_id is None


def test_files_that_are_not_here_are_not_handed_out(desk: Desk) -> None:
    made = desk.registry.register_elsewhere("iris", ADDRESS)
    with pytest.raises(NotFoundError, match="only their address"):
        desk.registry.pull(made, desk.sandbox.path / "out")
    with pytest.raises(NotFoundError, match="only their address"):
        addresses.locate("models:/iris/1", tracker=desk.registry.tracker)
    assert not (desk.sandbox.path / "out").exists()


@pytest.mark.parametrize(
    "source",
    ["", "s3://b/\n", "s3://b/\udc80", "s3://" + "x" * 1_000, "https://ana:secret@host/m", "https://h/m?token=abc"],
)
def test_what_cannot_be_an_address_leaves_nothing(desk: Desk, source: str) -> None:
    before = desk.sandbox.git("for-each-ref")
    with pytest.raises(InvalidValueError):
        desk.registry.register_elsewhere("iris", source)
    assert desk.sandbox.git("for-each-ref") == before
