"""gittrack.store.catfile, and reading many objects at once: the same as one by one, damage included."""

from __future__ import annotations

from pathlib import Path

import pytest

from gittrack.errors import CorruptError, GitError
from gittrack.store import git, repo as repos
from gittrack.store.catfile import CatFile
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from gittrack.types import ObjectId
from tests.conftest import MakeRepo, Sandbox

NOWHERE = ObjectId("1" * 40)


def damage(sandbox: Sandbox, oid: str) -> None:
    """Give every object a file of its own, and cut this one's in the middle."""
    folder = sandbox.paths.common_dir / "objects"
    for pack in folder.glob("pack/*.pack"):
        moved = pack.rename(sandbox.path.parent / pack.name)
        sandbox.git("unpack-objects", "-q", input=moved.read_bytes())
    path = folder / oid[:2] / oid[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def runs(sandbox: Sandbox, count: int) -> list[str]:
    """Finished runs with two artifacts, one of which they share."""
    tracker = Tracker(Repo.find(sandbox.path, create=True), strict=True)
    for number in range(count):
        run = tracker.create_run(name=f"run-{number}", capture=False)
        run.log_metric("acc", number / 10, 0, 1_000)
        run.log_bytes(b"shared", "a/shared.txt")
        run.log_bytes(b"%d" % number, "a/b/own.txt")
        run.end()
    tracker.flush()
    tracker.close()
    return sorted(tracker.repo.all_run_ids())


def test_objects_are_told_and_read_in_the_order_asked_for(git_repo: Sandbox) -> None:
    head, tree = git_repo.git("rev-parse", "HEAD"), git_repo.git("rev-parse", "HEAD^{tree}")
    asked = CatFile(git_repo.store.program)
    names = [head, NOWHERE, f"{head}:README.md", f"{head}:nothing", tree]
    found = asked.headers(names)
    assert [None if one is None else one.kind for one in found] == ["commit", None, "blob", None, "tree"]
    contents = [one for one in asked.contents(names) if one is not None]
    assert [header for header, _ in contents] == [one for one in found if one is not None]
    assert [len(data) for _, data in contents] == [header.size for header, _ in contents]
    assert contents[1][1] == (git_repo.path / "README.md").read_bytes()
    asked.close()
    asked.close()
    assert asked.headers([head])[0] is not None, "it starts again"
    asked.close()


def test_more_is_asked_than_a_pipe_holds(git_repo: Sandbox) -> None:
    head = git_repo.git("rev-parse", "HEAD")
    asked = CatFile(git_repo.store.program)
    assert len({data for _, data in filter(None, asked.contents([head, NOWHERE] * 10_000))}) == 1
    asked.close()


def test_damage_is_an_error_and_the_next_question_is_answered(git_repo: Sandbox) -> None:
    head, blob = git_repo.git("rev-parse", "HEAD"), git_repo.git("rev-parse", "HEAD:README.md")
    damage(git_repo, blob)
    asked = CatFile(git_repo.store.program)
    with pytest.raises(GitError, match="damaged"):
        asked.contents([head, blob, head])
    assert asked.headers([head])[0] is not None
    asked.close()


@pytest.mark.parametrize("kind", ["ordinary", "sha256", "bare"])
def test_many_are_read_as_few_are(kind: str, make_repo: MakeRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = make_repo(kind)
    ids = runs(sandbox, 5)
    repo = Repo.find(sandbox.path)
    revisions = repo.revisions_of(ids)
    commits = [oid for run_id in ids for oid in revisions[run_id]]
    ledgers = list(repo.ledgers().values())
    trees = [repo.git.read_commit(oid).tree for oid in [*commits, *ledgers]]

    def seen() -> tuple[object, ...]:
        repo.reindex()
        return (
            repo.index.get_runs(ids),
            repo.revisions_of(ids),
            [list(repo.git.ledger_diff(None, oid)) for oid in ledgers],
            {(file.digest, file.size) for file in repo.artifacts_in(commits)},
            repo.git.list_trees(trees),
        )

    few = seen()
    monkeypatch.setattr(git, "MANY", 1)
    monkeypatch.setattr(repos, "MANY", 1)
    assert seen() == few
    assert len(repo.artifacts_in(commits)) == 6
    repo.close()


def test_one_damaged_run_hides_no_other(
    git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ids = runs(git_repo, 4)
    repo = Repo.find(git_repo.path)
    (commit,) = repo.revisions(ids[0])
    damage(git_repo, git_repo.git("rev-parse", f"{commit}:.gittrack/run.msgpack"))
    repo.close()
    monkeypatch.setattr(git, "MANY", 1)
    monkeypatch.setattr(repos, "MANY", 1)
    repo.reindex()
    assert [run.info.run_id for run in repo.index.get_runs(ids)] == ids[1:]
    assert f"`{ids[0]}` cannot be read" in caplog.text
    tree = ObjectId(git_repo.git("rev-parse", f"{commit}:.gittrack"))
    damage(git_repo, tree)
    with pytest.raises(CorruptError, match="cannot be read"):
        Repo.find(git_repo.path).git.list_trees([tree])


def test_a_partial_clone_is_asked_for_nothing_that_it_lacks(
    git_repo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = runs(git_repo, 3)
    git_repo.git("config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "partial"
    git_repo.git("clone", "-q", "--filter=blob:none", "--no-checkout", f"file://{git_repo.path}", str(clone))
    other = Sandbox(clone, "ordinary")
    other.git("fetch", "-q", "origin", "refs/runs/*:refs/runs/*")
    git_repo.path.rename(tmp_path / "away")
    repo = Repo.find(clone, create=True)
    assert repo.git.is_partial
    commits = [oid for found in repo.revisions_of(ids).values() for oid in found]
    monkeypatch.setattr(git, "MANY", 1)
    assert repo.git.headers_at(commits, ".gittrack/run.msgpack") == {}
    assert len(repo.git.headers_at(commits, ".gittrack")) == len(commits) == 3
    repo.close()
