"""The registry in one clone: what is registered, promoted, named and edited, and what a failed call leaves: nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gittrack.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptError,
    GittrackError,
    InvalidValueError,
    NotFoundError,
    QuerySyntaxError,
    ReadOnlyError,
    StateError,
)
from gittrack.registry import catalog, events
from gittrack.registry.check import fsck
from gittrack.registry.registry import Registry
from gittrack.store import check, rewrite
from gittrack.store.git import Batch, RefUpdate, TagInfo
from gittrack.store.index import Row
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from gittrack.types import Digest, ModelVersion, ObjectId, ViewType
from tests.conftest import KINDS, MakeRepo
from tests.registry.conftest import FILES, Desk


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "read-only"])
def test_register_promote_and_read_back_in_every_kind_of_repository(kind: str, make_repo: MakeRepo) -> None:
    desk = Desk.at(make_repo(kind))
    run_id = desk.run()
    version = desk.registry.register("iris", run_id, "model", description="first", tags={"a": 1})
    assert (version.version, version.current_stage, version.source) == ("1", "None", f"runs:/{run_id}/model")
    desk.registry.promote("iris", 1, "production", archive_existing=True)
    desk.registry.set_alias("iris", "champion", "1")
    again = desk.reopened().registry
    found = again.resolve("iris@champion")
    assert found == again.resolve("iris/Production")
    assert (found.description, found.tags, found.aliases) == ("first", {"a": "1"}, ["champion"])
    assert dict(again.manifest(found).files).keys() == FILES.keys()
    assert not fsck(again, full=True)
    assert not check.fsck(again.repo, full=True)
    if kind != "plain":
        git = desk.sandbox
        assert git.git("cat-file", "-t", "models/iris/v1") == "tag"
        assert git.git("rev-parse", "models/iris/v1^{commit}") == found.commit
        assert git.git("fsck", "--strict", "--no-dangling") == ""


def test_stock_git_reads_it_well(iris: Desk) -> None:
    iris.registry.promote("iris", 2, "Production", archive_existing=True, reason="better\n\nby far")
    listed = iris.sandbox.git("tag", "-n1", "--list", "models/*").splitlines()
    assert [line.split()[0] for line in listed] == [
        "models/iris/production/1", "models/iris/v1", "models/iris/v2", "models/iris/v3",
    ]  # fmt: skip
    assert "iris v2 is Production" in listed[0]
    assert "iris v1: run trained, acc 0.8" in listed[1]
    shown = iris.sandbox.git("show", "--no-patch", "models/iris/production/1")
    assert "Tagger: Ana Test" in shown
    assert "better" in shown
    assert "Gittrack-Stage: Production" in shown
    trailers = iris.sandbox.git("for-each-ref", "--format=%(contents)", "refs/tags/models/iris/production/1")
    parsed = subprocess.run(
        ["git", "interpret-trailers", "--parse"], input=trailers, capture_output=True, text=True, check=True
    )
    assert "Gittrack-Version: 2" in parsed.stdout.splitlines()


def test_a_version_is_what_the_run_had_then(desk: Desk) -> None:
    registry = desk.registry
    run = registry.tracker.create_run(name="live")
    run.log_bytes(b"one", "model/w")
    run.log_metric("loss", 1.0, 0, 1)
    first = registry.register("iris", run.run_id, "model")
    assert registry.run_of(first).info.status == "RUNNING"
    run.log_bytes(b"two", "model/w")
    run.log_metric("loss", 0.5, 1, 2)
    second = registry.register("iris", run.run_id, "model")
    run.end()
    registry.tracker.flush()
    third = registry.register("iris", run.run_id, "model")
    assert first.manifest != second.manifest == third.manifest
    assert registry.run_of(third).info.status == "FINISHED"
    assert [p.value for p in registry.tracker.metric_history(run.run_id, "loss")] == [1.0, 0.5]
    assert desk.sandbox.git("merge-base", "--is-ancestor", first.commit, third.commit) == ""
    assert not check.fsck(registry.repo, full=True)


def test_a_registered_run_whose_process_dies_is_closed(desk: Desk) -> None:
    program = """
        import os, sys
        from pathlib import Path
        from gittrack.registry.registry import Registry
        from gittrack.store.repo import Repo
        from gittrack.track.runs import Tracker
        tracker = Tracker(Repo.find(Path(sys.argv[1]), create=True))
        run = tracker.create_run(name="dies", capture=False)
        run.log_bytes(b"w", "model/w")
        Registry(tracker).register("iris", run.run_id, "model")
        print(run.run_id, flush=True)
        os._exit(9)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(desk.sandbox.path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    run_id = done.stdout.strip()
    assert run_id, done.stderr
    assert not check.fsck(desk.registry.repo)
    assert desk.registry.tracker.get_run(run_id).info.status == "KILLED"
    assert desk.registry.get_version("iris", 1).run_id == run_id


def test_a_single_file_and_everything_can_be_registered(desk: Desk) -> None:
    run_id = desk.run()
    one = desk.registry.register("file", run_id, "model/weights/w.bin")
    assert list(desk.registry.manifest(one).files) == ["w.bin"]
    everything = desk.registry.register("all", run_id, "")
    assert list(desk.registry.manifest(everything).files) == ["model/MLmodel", "model/weights/w.bin"]


def test_the_manifest_is_what_sha256sum_checks(iris: Desk, tmp_path: Path) -> None:
    manifest = iris.registry.pull(iris.registry.resolve("iris/1"), tmp_path / "out")
    (tmp_path / "sums").write_text(manifest.text())
    subprocess.run(["sha256sum", "--check", "--quiet", "../sums"], cwd=tmp_path / "out", check=True)


# -- stages and aliases ------------------------------------------------------------------------------------------------


def test_promoting_archives_the_others_if_asked(iris: Desk) -> None:
    registry = iris.registry
    registry.promote("iris", 1, "Production", archive_existing=False)
    registry.promote("iris", "2", "PRODUCTION", archive_existing=False)
    assert [v.version for v in registry.versions("iris") if v.current_stage == "Production"] == ["1", "2"]
    assert registry.resolve("iris/Production").version == "2", "the newest"
    registry.promote("iris", 3, "Production", archive_existing=True)
    assert [v.current_stage for v in registry.versions("iris")] == ["Archived", "Archived", "Production"]
    registry.promote("iris", 3, "None", archive_existing=False)
    assert registry.get_version("iris", 3).current_stage == "None"
    assert len([tag for tag in iris.tags() if "/production/" in tag]) == 3, "one tag for each event"
    assert [v.version for v in registry.latest("iris")] == ["3", "2"]
    assert [v.version for v in registry.latest("iris", ["archived"])] == ["2"]
    assert registry.latest("iris", ["Staging"]) == []


def test_what_changes_nothing_writes_nothing(iris: Desk) -> None:
    registry = iris.registry
    registry.promote("iris", 1, "Production", archive_existing=True)
    registry.promote("iris", 2, "Archived", archive_existing=False)
    registry.set_alias("iris", "champion", 1)
    tags, told = iris.tags(), registry.history("iris")
    before = registry.get_version("iris", 1)
    assert registry.promote("iris", 1, "production", archive_existing=True, reason="again") == before
    registry.promote("iris", 1, "Production", archive_existing=False)
    registry.promote("iris", 2, "archived", archive_existing=False)
    registry.promote("iris", 3, "None", archive_existing=False)
    registry.set_alias("iris", "champion", 1, "again")
    assert (iris.tags(), registry.history("iris")) == (tags, told)
    registry.promote("iris", 2, "Production", archive_existing=False)
    registry.promote("iris", 2, "Production", archive_existing=True)
    assert registry.get_version("iris", 1).current_stage == "Archived", "there was something to archive"
    registry.delete_alias("iris", "champion")
    registry.set_alias("iris", "champion", 1)
    assert registry.resolve("iris@champion").version == "1", "it had been taken away"


@pytest.mark.parametrize("stage", ["None", "Archived"])
def test_only_active_stages_archive(iris: Desk, stage: str) -> None:
    with pytest.raises(InvalidValueError, match="active"):
        iris.registry.promote("iris", 1, stage, archive_existing=True)


def test_an_alias_moves(iris: Desk) -> None:
    registry = iris.registry
    registry.set_alias("iris", "champion", 1)
    registry.set_alias("iris", "champion", 2, reason="better")
    registry.set_alias("iris", "3", 1)
    assert registry.get_model("iris").aliases == {"3": "1", "champion": "2"}
    assert registry.resolve("iris@3").version == "1", "an alias comes before a number"
    assert registry.by_alias("iris", "champion").aliases == ["champion"]
    registry.delete_alias("iris", "champion")
    registry.delete_alias("iris", "never")
    assert registry.get_model("iris").aliases == {"3": "1"}
    registry.set_alias("iris", "champion", 3)
    assert registry.resolve("models:/iris@champion").version == "3"
    assert registry.by_alias("iris", "latest").version == "3"


def test_aliases_that_only_case_tells_apart_are_refused(iris: Desk) -> None:
    iris.registry.set_alias("iris", "champion", 1)
    with pytest.raises(InvalidValueError, match="lower case"):
        iris.registry.set_alias("iris", "Champion", 2)
    assert iris.registry.get_model("iris").aliases == {"champion": "1"}


def test_a_word_behind_an_at_is_an_alias_before_a_stage(iris: Desk) -> None:
    registry = iris.registry
    registry.promote("iris", 1, "Production", archive_existing=True)
    assert registry.resolve("iris@production").version == "1"
    registry.set_alias("iris", "production", 3)
    assert registry.resolve("iris@production").version == "3"
    assert registry.resolve("iris/Production").version == "1"


# -- models ------------------------------------------------------------------------------------------------------------


def test_a_model_is_made_edited_renamed_deleted_and_restored(desk: Desk) -> None:
    registry = desk.registry
    made = registry.create_model("my model", {"team": "a"}, "what it is")
    assert (made.description, made.tags, made.latest_versions) == ("what it is", {"team": "a"}, [])
    with pytest.raises(AlreadyExistsError):
        registry.create_model("my model")
    registry.tag_model("my model", {"b": 2}, ["team", "never"])
    registry.describe_model("my model", None)
    registry.register("my model", desk.run(), "model")
    assert desk.tags() == ["models/my%20model/v1"]
    renamed = registry.rename_model("my model", "yours")
    assert (renamed.name, renamed.tags, renamed.description) == ("yours", {"b": "2"}, None)
    with pytest.raises(NotFoundError):
        registry.get_model("my model")
    assert registry.get_version("yours", 1).name == "yours"
    registry.register("yours", desk.run(), "model")
    assert desk.tags() == ["models/my%20model/v1", "models/my%20model/v2"]
    registry.delete_model("yours")
    with pytest.raises(NotFoundError, match="deleted"):
        registry.get_model("yours")
    assert registry.search_models() == []
    assert registry.search_versions("name = 'yours'") == []
    with pytest.raises(NotFoundError):
        registry.delete_model("yours")
    assert registry.restore_model("yours").latest_versions[0].version == "2"
    with pytest.raises(StateError):
        registry.restore_model("yours")


def test_a_name_that_was_renamed_away_can_be_used_by_another_model(iris: Desk) -> None:
    registry = iris.registry
    registry.rename_model("iris", "flowers")
    registry.register("iris", iris.run(), "model")
    assert "models/iris+2/v1" in iris.tags()
    assert [v.version for v in registry.versions("iris")] == ["1"]
    assert [v.version for v in registry.versions("flowers")] == ["1", "2", "3"]
    with pytest.raises(AlreadyExistsError):
        registry.rename_model("iris", "flowers")


def test_the_name_of_a_deleted_model_can_be_used_anew(iris: Desk) -> None:
    registry = iris.registry
    registry.tag_model("iris", {"a": "b"})
    first = registry.get_model("iris")
    registry.delete_model("iris")
    made = registry.create_model("iris", description="new")
    assert (made.tags, made.description, made.latest_versions) == ({}, "new", [])
    assert made.creation_timestamp == made.last_updated_timestamp > first.last_updated_timestamp
    assert "made" not in {change.what for change in registry.history("iris")}
    assert registry.register("iris", iris.run(), "model").version == "4", "no number is used twice"
    assert [v.version for v in registry.versions("iris")] == ["4"]
    registry.restore_version("iris", 2)
    assert [v.version for v in registry.versions("iris")] == ["2", "4"]
    registry.delete_model("iris")
    assert registry.register("iris", iris.run(), "model").version == "5", "registering makes it anew, too"
    assert [v.version for v in registry.versions("iris")] == ["5"]


@pytest.mark.parametrize("twin", ["Iris", "IRIS"])
def test_names_that_only_case_tells_apart_are_refused(iris: Desk, twin: str) -> None:
    run_id = iris.run()
    for call in (
        lambda: iris.registry.create_model(twin),
        lambda: iris.registry.register(twin, run_id, "model"),
        lambda: iris.registry.copy(iris.registry.resolve("iris/1"), twin),
    ):
        with pytest.raises(AlreadyExistsError, match="lower case"):
            call()
    iris.registry.create_model("other")
    with pytest.raises(AlreadyExistsError):
        iris.registry.rename_model("other", twin)
    assert iris.registry.rename_model("iris", twin).name == twin, "its own twin is no other model"


# -- versions ----------------------------------------------------------------------------------------------------------


def test_a_version_is_edited_deleted_and_restored(iris: Desk) -> None:
    registry = iris.registry
    before = registry.get_version("iris", 2)
    model = registry.get_model("iris")
    changed = registry.describe_version("iris", 2, "good")
    assert changed.description == "good"
    assert changed.last_updated_timestamp > before.last_updated_timestamp
    assert registry.get_model("iris").last_updated_timestamp == model.last_updated_timestamp, "as in MLflow"
    registry.tag_version("iris", 2, {"a": "1", "b": "2"}, ["c"])
    registry.tag_version("iris", 2, {}, ["a"])
    registry.set_alias("iris", "champion", 2)
    registry.promote("iris", 2, "Production", archive_existing=True)
    promoted = registry.get_model("iris")
    assert promoted.last_updated_timestamp > model.last_updated_timestamp
    registry.delete_version("iris", 2)
    assert registry.get_model("iris").last_updated_timestamp > promoted.last_updated_timestamp
    with pytest.raises(NotFoundError, match="deleted"):
        registry.get_version("iris", 2)
    assert registry.get_model("iris").aliases == {}
    with pytest.raises(NotFoundError):
        registry.resolve("iris/Production")
    assert [v.version for v in registry.versions("iris")] == ["1", "3"]
    assert len(registry.versions("iris", ViewType.ALL)) == 3
    back = registry.restore_version("iris", 2)
    assert (back.tags, back.aliases, back.current_stage) == ({"b": "2"}, ["champion"], "Production")
    with pytest.raises(StateError):
        registry.restore_version("iris", 2)


def test_numbers_are_never_used_twice(iris: Desk) -> None:
    iris.registry.delete_version("iris", 3)
    assert iris.registry.register("iris", iris.run(), "model").version == "4"


def test_a_new_version_is_read_and_written_alone(iris: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: what their tags say is known, and their rows in the index are as they were."""
    iris.registry.register("iris", iris.run(), "model")  # this process knows the first four
    run_id = iris.run()
    read: list[object] = []
    written: list[str] = []
    from_list, row = events.from_list, catalog._version_row

    def reading(values: list[object]) -> events.Event:
        read.append(values)
        return from_list(values)

    def writing(version: ModelVersion) -> Row:
        written.append(version.version)
        return row(version)

    monkeypatch.setattr(events, "from_list", reading)
    monkeypatch.setattr(catalog, "_version_row", writing)
    iris.registry.register("iris", run_id, "model")
    assert (len(read), written) == (1, ["5"])
    iris.registry.promote("iris", 4, "Production", archive_existing=False)
    iris.registry.promote("iris", 2, "Production", archive_existing=True)
    assert (len(read), written) == (3, ["5", "4", "2", "4"])
    iris.sandbox.git("tag", "--delete", "models/iris/v3")
    iris.registry.repo.index.clear()
    assert [version.version for version in iris.registry.versions("iris")] == ["1", "2", "4", "5"]
    assert written[4:] == ["1", "2", "4", "5"]
    assert iris.registry.catalog.stale() == []


def test_copying_keeps_the_very_files(iris: Desk) -> None:
    registry = iris.registry
    source = registry.resolve("iris/2")
    copied = registry.copy(source, "other", description="copy")
    assert (copied.manifest, copied.commit, copied.run_id) == (source.manifest, source.commit, source.run_id)
    assert (copied.version, copied.description) == ("1", "copy")


def test_requirements_can_be_overridden_with_history(iris: Desk) -> None:
    registry = iris.registry
    assert registry.requirements("iris", 1) is None
    registry.set_requirements("iris", 1, "numpy==2.0\n", "the old one is gone")
    registry.set_requirements("iris", 1, "numpy==2.1\n" * 100, "security")
    assert registry.requirements("iris", 1) == "numpy==2.1\n" * 100
    registry.set_requirements("iris", 1, None)
    assert registry.requirements("iris", 1) is None
    told = [(edit.value, edit.reason) for edit in registry.requirements_history("iris", "1")]
    assert told == [("numpy==2.0\n", "the old one is gone"), ("numpy==2.1\n" * 100, "security"), (None, "")]
    assert registry.requirements_history("iris", 2) == []


def test_which_version_a_file_comes_from(iris: Desk) -> None:
    registry = iris.registry
    manifest = registry.manifest(registry.resolve("iris/2"))
    digest = manifest.files["extra"][0]
    assert [v.version for v in registry.which(digest)] == ["2"]
    shared = manifest.files["MLmodel"][0]
    assert [v.version for v in registry.which(shared)] == ["1", "2", "3"]
    assert registry.runs_with(digest) == [(registry.resolve("iris/2").run_id, "model/extra")]
    assert registry.which(Digest("0" * 64)) == []


# -- search ------------------------------------------------------------------------------------------------------------


def test_searching_models_and_versions(iris: Desk) -> None:
    registry = iris.registry
    registry.create_model("churn", {"team": "b"})
    registry.tag_model("iris", {"team": "a"})
    registry.tag_version("iris", 2, {"ok": "yes"})
    registry.promote("iris", 3, "Staging", archive_existing=False)

    def models(text: str, order: list[str] | None = None) -> list[str]:
        return [model.name for model in registry.search_models(text, order_by=order)]

    def versions(text: str, order: list[str] | None = None) -> list[str]:
        return [version.version for version in registry.search_versions(text, order_by=order)]

    assert models("") == ["churn", "iris"]
    assert models("name LIKE 'i%'") == ["iris"]
    assert models("tags.team = 'b'") == ["churn"]
    assert models("tag.team != 'b'") == ["iris"]
    assert models("", ["name DESC"]) == ["iris", "churn"]
    run_id = registry.get_version("iris", 2).run_id
    assert versions(f"run_id = '{run_id}'") == ["2"]
    assert versions(f"run_id IN ('{run_id}', 'x')") == ["2"]
    assert versions("name = 'iris' and tags.ok = 'yes'") == ["2"]
    assert versions("version_number >= 2", ["version_number ASC"]) == ["2", "3"]
    assert versions(f"source_path = 'runs:/{run_id}/model'") == ["2"]
    assert versions("stage = 'Staging'") == ["3"]
    assert versions("name = 'nope'") == []
    page = registry.search_versions("", max_results=2, order_by=["version_number ASC"])
    assert [v.version for v in page] == ["1", "2"]
    rest = registry.search_versions("", max_results=2, order_by=["version_number ASC"], page_token=page.token)
    assert [v.version for v in rest] == ["3"]
    assert rest.token is None
    for text in ("version_number = 'a'", "nope = 1", "run.x = 'a'", "name ="):
        with pytest.raises(QuerySyntaxError):
            registry.search_versions(text)
    for size in (0, -1, 10**7, "3"):
        with pytest.raises(InvalidValueError):
            registry.search_versions("", size)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError):
        registry.search_models(page_token="x")


# -- history -----------------------------------------------------------------------------------------------------------


def test_history_and_what_was_when(iris: Desk) -> None:
    registry = iris.registry
    registry.promote("iris", 1, "Production", archive_existing=True, reason="first")
    time.sleep(0.01)
    moment = datetime.now(timezone.utc)
    time.sleep(0.01)
    registry.promote("iris", 2, "Production", archive_existing=True, reason="second")
    registry.delete_version("iris", 3)
    told = [(c.version, c.old, c.new, c.reason) for c in registry.history("iris") if c.what == "stage"]
    assert told == [
        (1, "None", "Production", "first"),
        (1, "Production", "Archived", "second"),
        (2, "None", "Production", "second"),
    ]
    assert {c.who for c in registry.history("iris")} == {"Ana Test <ana@example.org>"}
    then = registry.at("iris", moment)
    assert then.in_stage("Production") == [1]
    assert then.visible == [1, 2, 3]
    assert registry.state("iris").visible == [1, 2]
    commit = ObjectId(iris.sandbox.commit("later"))
    assert registry.at("iris", commit).name == "iris"
    with pytest.raises(NotFoundError, match="did not exist then"):
        registry.at("iris", datetime(2000, 1, 1, tzinfo=timezone.utc))
    registry.rename_model("iris", "flowers")
    registry.delete_model("flowers")
    assert [state.name for state in registry.all_at(moment)] == ["iris"]
    assert registry.at("iris", moment).in_stage("Production") == [1]
    assert registry.all_at(datetime.now(timezone.utc)) == []


# -- what is wrong is said, and nothing is made ------------------------------------------------------------------------


def test_a_failed_call_creates_nothing(iris: Desk) -> None:
    registry, run_id = iris.registry, iris.run()
    registry.tracker.delete_run(gone := iris.run())
    registry.tracker.flush()
    before = iris.sandbox.git("for-each-ref")
    calls: dict[str, Callable[[], object]] = {
        "no such run": lambda: registry.register("new", "0" * 32, "model"),
        "no such artifact": lambda: registry.register("new", run_id, "modle"),
        "deleted run": lambda: registry.register("new", gone, "model"),
        "bad name": lambda: registry.register("a/b", run_id, "model"),
        "bad path": lambda: registry.register("new", run_id, "../x"),
        "bad tag": lambda: registry.register("new", run_id, "model", tags={"": "x"}),
        "long tag": lambda: registry.register("new", run_id, "model", tags={"a": "x" * 100_001}),
        "bad model id": lambda: registry.register("new", run_id, "model", model_id="a b"),
        "twin": lambda: registry.register("IRIS", run_id, "model"),
        "no model": lambda: registry.promote("new", 1, "Production", archive_existing=True),
        "no version": lambda: registry.promote("iris", 9, "Production", archive_existing=True),
        "no stage": lambda: registry.promote("iris", 1, "Prod", archive_existing=True),
        "bad reason": lambda: registry.promote("iris", 1, "Staging", archive_existing=True, reason="-----BEGIN X"),
        "alias of nothing": lambda: registry.set_alias("iris", "a", 9),
        "bad alias": lambda: registry.set_alias("iris", "v1", 1),
        "describe nothing": lambda: registry.describe_version("iris", 9, "x"),
        "describe no model": lambda: registry.describe_model("new", "x"),
        "tag nothing": lambda: registry.tag_version("iris", 9, {"a": "b"}),
        "tag no model": lambda: registry.tag_model("new", {"a": "b"}),
        "rename nothing": lambda: registry.rename_model("new", "newer"),
        "no conflict": lambda: registry.settle("iris", "Production", 1),
        "no conflict about a number": lambda: registry.settle("iris", "v1"),
        "delete nothing": lambda: registry.delete_version("iris", 9),
        "restore nothing": lambda: registry.restore_version("iris", 9),
    }
    for what, call in calls.items():
        with pytest.raises(GittrackError):
            call()
        assert iris.sandbox.git("for-each-ref") == before, what


def test_errors_say_what_exists(iris: Desk) -> None:
    registry = iris.registry
    registry.set_alias("iris", "champion", 1)
    registry.promote("iris", 1, "Staging", archive_existing=True)
    for address, hint in {
        "irs/1": "did you mean `iris`?",
        "zzz/1": "there is `iris`",
        "iris/9": "it has 1, 2, 3",
        "iris/Production": "v1 is Staging",
        "iris@chmpion": "did you mean `@champion`?",
        "iris@zzz": "it has `@champion`",
    }.items():
        with pytest.raises(NotFoundError) as caught:
            registry.resolve(address)
        assert hint in str(caught.value), address
    with pytest.raises(InvalidValueError, match="no version of it"):
        registry.resolve("iris")
    with pytest.raises(InvalidValueError, match="no alias"):
        registry.by_alias("iris", "zzz")


def test_a_read_only_clone_can_be_read(
    make_repo: MakeRepo, iris: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    iris.registry.promote("iris", 2, "Production", archive_existing=True)
    sandbox = make_repo("read-only")
    empty = Registry(Tracker(Repo.find(sandbox.path), strict=True))
    assert empty.search_models() == []
    with pytest.raises(ReadOnlyError):
        empty.create_model("iris")
    copy = tmp_path / "copy"
    shutil.copytree(iris.sandbox.path, copy, symlinks=True)
    repo = Repo.find(copy)
    repo.read_only = True
    read = Registry(Tracker(repo, strict=True))
    assert read.resolve("iris/Production").version == "2"
    with pytest.raises(ReadOnlyError):
        read.promote("iris", 1, "Production", archive_existing=True)
    caplog.clear()
    read.tracker.shutdown("FINISHED", hurry=False)
    assert not caplog.messages, "nothing was recorded that could be lost"


# -- derived, and what does not count ----------------------------------------------------------------------------------


def test_everything_comes_back_from_tags_and_documents(iris: Desk) -> None:
    registry = iris.registry
    registry.promote("iris", 2, "Production", archive_existing=True)
    registry.set_alias("iris", "champion", 1)
    registry.describe_version("iris", 1, "text")
    registry.tag_model("iris", {"a": "b"})
    registry.create_model("empty")
    registry.delete_version("iris", 3)
    before = (registry.search_models(), registry.search_versions(), registry.history("iris"))
    registry.repo.close()
    (registry.repo.root / "index.db").unlink()
    iris.sandbox.git("pack-refs", "--all")
    iris.sandbox.git("gc", "--quiet", "--prune=now")
    again = iris.reopened().registry
    assert (again.search_models(), again.search_versions(), again.history("iris")) == before
    again.repo.reindex()
    assert (again.search_models(), again.search_versions(), again.history("iris")) == before
    assert not fsck(again, full=True)


def test_a_tag_object_is_read_once(iris: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id, registry = iris.run(), iris.reopened().registry
    read, known = registry.repo.git.read_tag, []

    def counted(oid: ObjectId) -> TagInfo:
        known.append(oid)
        return read(oid)

    monkeypatch.setattr(registry.repo.git, "read_tag", counted)
    registry.search_versions()
    assert registry.get_model("iris").name == "iris"
    assert known == [], "an earlier process has read them"
    version = registry.register("iris", run_id, "model")
    registry.promote("iris", 1, "Production", archive_existing=True)
    assert known == [version.tag_oid, ObjectId(iris.sandbox.git("rev-parse", "refs/tags/models/iris/production/1"))]


def test_an_index_that_lies_is_found(iris: Desk) -> None:
    registry = iris.registry
    registry.get_model("iris")
    index = registry.repo.index
    with index.transaction():
        index._execute("DELETE FROM model_versions WHERE version_number = 2")
    assert [problem.kind for problem in fsck(registry, full=True)] == ["index"]


def test_tags_that_are_not_events_are_passed_over_and_named(iris: Desk) -> None:
    git, registry = iris.sandbox, iris.registry
    commit = registry.resolve("iris/1").commit
    git.git("tag", "models/iris/v7", commit)  # lightweight
    git.git("tag", "-a", "-m", "by hand", "models/iris/v8", commit)
    git.git("tag", "-a", "-m", "by hand", "models/iris/production/1", commit)
    git.git("tag", "models/other", commit)
    git.git("update-ref", "refs/tags/models/iris/v9", "refs/tags/models/iris/v2")  # a copy under another name
    again = iris.reopened().registry
    assert [v.version for v in again.versions("iris")] == ["1", "2", "3"]
    problems = "\n".join(problem.message for problem in fsck(again))
    for word in ("v7", "v8", "production/1", "models/other", "made as `models/iris/v2`"):
        assert word in problems
    # their names are taken all the same
    assert again.register("iris", iris.run(), "model").version == "10"
    assert again.promote("iris", 1, "Production", archive_existing=True).current_stage == "Production"
    assert "models/iris/production/2" in iris.tags()


def test_a_version_whose_files_are_not_those_of_its_tag_is_refused(iris: Desk) -> None:
    registry = iris.registry
    version = registry.resolve("iris/1")
    text = iris.sandbox.git("cat-file", "tag", "models/iris/v1")
    forged = text.replace(version.manifest, "0" * 64)
    oid = iris.sandbox.git("mktag", input=(forged + "\n").encode())
    iris.sandbox.git("update-ref", "refs/tags/models/iris/v1", oid)
    again = iris.reopened().registry
    with pytest.raises(CorruptError):
        again.manifest(again.resolve("iris/1"))
    assert any("not those that were registered" in problem.message for problem in fsck(again))


def test_gc_keeps_what_only_a_tag_refers_to(iris: Desk) -> None:
    registry = iris.registry
    version = registry.resolve("iris/1")
    for ref in iris.sandbox.git("for-each-ref", "--format=%(refname)", "refs/runs").splitlines():
        iris.sandbox.git("update-ref", "-d", ref)
    check.gc(registry.repo, grace_s=0)
    for digest, size in registry.manifest(version).files.values():
        assert registry.repo.objects.has(digest, size)


def test_a_registered_run_is_not_purged(iris: Desk) -> None:
    registry = iris.registry
    run_id = str(registry.resolve("iris/1").run_id)
    registry.tracker.delete_run(run_id)
    registry.tracker.flush()
    with pytest.raises(StateError, match="models/iris/v1"):
        rewrite.purge(registry.repo, run_id)
    iris.sandbox.git("tag", "-d", "models/iris/v1")
    rewrite.purge(registry.repo, run_id)
    with pytest.raises(NotFoundError):
        registry.tracker.get_run(run_id)


def test_a_document_of_another_version_is_said_and_passed_over(iris: Desk) -> None:
    registry = iris.registry
    registry.describe_model("iris", "text")
    ref = f"refs/gittrack/registry/{registry.repo.writer}"
    blob = iris.sandbox.git("hash-object", "-w", "--stdin", input=b"\x81\xa7version\x02")
    tree = iris.sandbox.git("mktree", input=f"100644 blob {blob}\tiris\n".encode())
    commit = iris.sandbox.git("commit-tree", "-m", "x", tree)
    iris.sandbox.git("update-ref", "refs/gittrack/registry/other-1", commit)
    again = iris.reopened().registry
    assert [v.version for v in again.versions("iris")] == ["1", "2", "3"]
    assert any("format version" in problem.message for problem in fsck(again))
    assert iris.sandbox.git("rev-parse", ref)


# -- processes ---------------------------------------------------------------------------------------------------------


def test_two_processes_that_register_and_promote_at_once(desk: Desk) -> None:
    run_id = desk.run()
    desk.registry.tracker.close()
    program = """
        import sys
        from pathlib import Path
        from gittrack.registry.registry import Registry
        from gittrack.store.repo import Repo
        from gittrack.track.runs import Tracker
        registry = Registry(Tracker(Repo.find(Path(sys.argv[1])), strict=True))
        for _ in range(8):
            version = registry.register("iris", sys.argv[2], "model")
            registry.promote("iris", version.version, "Production", archive_existing=True)
            print(version.version, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(desk.sandbox.path), run_id]
    processes = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    numbers = sorted(int(line) for out, _ in said for line in out.split())
    assert numbers == list(range(1, 17)), "one winner per number, none left out"
    again = desk.reopened().registry
    assert not again.get_model("iris").conflicts
    assert len(again.state("iris").in_stage("Production")) == 1
    assert not fsck(again, full=True)


def test_threads_that_register_and_promote_at_once(desk: Desk) -> None:
    run_ids = [desk.run(), desk.run()]

    def work(run_id: str) -> list[int]:
        numbers = []
        for _ in range(6):
            version = desk.registry.register("iris", run_id, "model")
            desk.registry.set_alias("iris", "newest", version.version)
            numbers.append(int(version.version))
        return numbers

    with ThreadPoolExecutor() as pool:
        found = [number for numbers in pool.map(work, run_ids) for number in numbers]
    assert sorted(found) == list(range(1, 13))
    assert not fsck(desk.registry, full=True)


def test_a_tag_that_comes_meanwhile_costs_another_try(iris: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    registry, run_id = iris.registry, iris.run()
    publish, calls = registry.repo.git.publish, []

    def hurried(*args: object) -> None:
        calls.append(args)
        if len(calls) == 1:  # somebody fetches a v4 at this very moment
            iris.sandbox.git("update-ref", "refs/tags/models/iris/v4", "refs/tags/models/iris/v3")
        publish(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(registry.repo.git, "publish", hurried)
    assert registry.register("iris", run_id, "model").version == "5"
    assert len(calls) == 2


def test_a_tag_that_is_in_the_way_is_said(desk: Desk) -> None:
    desk.sandbox.git("tag", "models")
    with pytest.raises(ConflictError, match="a part of its path is a ref"):
        desk.registry.register("iris", desk.run(), "model")


def test_giving_up_is_a_conflict(iris: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = iris.registry.repo.git.publish

    def always_late(batch: Batch, updates: Sequence[RefUpdate]) -> None:
        iris.sandbox.git("update-ref", updates[0].name, "refs/tags/models/iris/v3")
        publish(batch, updates)

    run_id = iris.run()
    monkeypatch.setattr(iris.registry.repo.git, "publish", always_late)
    with pytest.raises(ConflictError, match="all the time"):
        iris.registry.register("iris", run_id, "model")


def test_a_version_that_had_a_number_and_a_time_elsewhere_keeps_them(make_repo: MakeRepo) -> None:
    desk = Desk.at(make_repo("ordinary"))
    run_id, then = desk.run(), 1_600_000_000_123
    registry = Registry(desk.registry.tracker, clock=lambda: then)
    version = registry.register("iris", run_id, "model", number=7)
    assert (version.version, version.creation_timestamp, version.last_updated_timestamp) == ("7", then, then)
    assert desk.sandbox.git("tag", "--list", "--format=%(taggerdate:unix)", "models/iris/v7") == str(then // 1000)
    assert registry.register("iris", run_id, "model", number=3).version == "3"
    assert registry.register("iris", run_id, "model").version == "8"
    with pytest.raises(AlreadyExistsError, match="has a version 7"):
        registry.register("iris", run_id, "model", number=7)
    with pytest.raises(InvalidValueError):
        registry.register("iris", run_id, "model", number=-1)
    registry.promote("iris", 3, "Staging", archive_existing=False)
    assert registry.get_version("iris", 3).last_updated_timestamp == then
    assert not fsck(registry, full=True)


def test_prompts_are_found_only_if_they_are_asked_for(desk: Desk) -> None:
    registry = desk.registry
    registry.create_model("model", {"mlflow.prompt.is_prompt": "false"})
    registry.create_model("plain")
    registry.create_model("prompt", {"mlflow.prompt.is_prompt": "true"})
    tag = "tags.`mlflow.prompt.is_prompt`"
    found = {
        text: [one.name for one in registry.search_models(text)]
        for text in ("", "name LIKE 'p%'", f"{tag} = 'true'", f"{tag} != 'true'", f"{tag} != 'true' OR name = 'prompt'")
    }
    assert found == {
        "": ["model", "plain"],
        "name LIKE 'p%'": ["plain"],
        f"{tag} = 'true'": ["prompt"],
        f"{tag} != 'true'": ["model", "plain"],
        f"{tag} != 'true' OR name = 'prompt'": ["model", "plain", "prompt"],
    }
