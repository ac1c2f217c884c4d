"""Repo and sealing: runs from journals to commits and back, in every kind of repository."""

import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gittrack.errors import CorruptError, NotARepositoryError, NotFoundError, ReadOnlyError, StateError
from gittrack.store import check, codec, layout, rewrite, seal
from gittrack.store.record import CLOSE, CREATE, METRIC, OPEN, PARAMS, STATUS
from gittrack.store.repo import Repo
from gittrack.track.runs import Tracker
from gittrack.types import Artifact, Metric, ViewType
from tests.conftest import MakeRepo, Sandbox, run_git


def tracker_at(folder: Path) -> Tracker:
    return Tracker(Repo.find(folder, create=True), strict=True)


def finished_run(tracker: Tracker, **metrics: float) -> str:
    run = tracker.create_run(name="one", tags={"a": "b"})
    run.log_params({"lr": 0.1})
    run.log_metrics([Metric(key, value, 1000 + step, step) for key, value in metrics.items() for step in range(3)])
    run.log_bytes(b"hello", "notes/a.txt")
    run.end()
    tracker.flush()
    return run.run_id


def user_state(sandbox: Sandbox) -> dict[str, str]:
    """Everything of the user's that must never change, hashed."""
    git_dir = sandbox.paths.git_dir
    state = {}
    for name in (
        "index",
        "HEAD",
        "config",
        "packed-refs",
        "logs/HEAD",
        "refs/stash",
        "info/exclude",
        "info/attributes",
    ):
        for top in {git_dir, sandbox.paths.common_dir}:
            file = top / name
            state[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "absent"
    if not sandbox.paths.bare:
        for file in sorted(sandbox.path.rglob("*")):
            if ".git" not in file.parts and ".gittrack" not in file.parts and file.is_file():
                state[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return state


@pytest.mark.parametrize("kind", ["ordinary", "linked", "bare", "shallow", "unborn", "sha256", "plain"])
def test_a_run_becomes_a_commit_in_every_kind_of_repository(kind: str, make_repo: MakeRepo) -> None:
    sandbox = make_repo(kind)
    status = sandbox.git("status", "--porcelain") if kind not in ("plain", "bare") else ""
    before = user_state(sandbox) if kind != "plain" else {}  # after git's own look, which rewrites its index
    tracker = tracker_at(sandbox.path)
    run_id = finished_run(tracker, loss=0.5)

    run = Tracker(Repo.find(sandbox.path)).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.commit is not None
    assert run.data.params == {"lr": "0.1"}
    assert run.data.metrics == {"loss": 0.5}
    assert run.data.tags["a"] == "b"
    assert tracker.repo.artifacts(run_id) == {
        "notes/a.txt": Artifact("notes/a.txt", hashlib.sha256(b"hello").hexdigest(), 5)  # type: ignore[arg-type]
    }
    assert tracker.read_artifact(run_id, "notes/a.txt") == b"hello"
    assert [point.step for point in tracker.metric_history(run_id, "loss")] == [0, 1, 2]
    assert [found.info.run_id for found in tracker.search_runs(filter_string="params.lr = '0.1'")] == [run_id]

    git_dir = sandbox.paths.git_dir
    assert run_git(git_dir, "fsck", "--strict", "--no-progress") == ""
    assert f"Gittrack-Run: {run_id}" in run_git(git_dir, "log", "-1", "--format=%B", run.commit)
    assert run_git(git_dir, "cat-file", "-p", f"{run.commit}:.gittrack/artifacts/notes/a.txt").startswith(
        "version https"
    )
    assert not list(tracker.repo.live.iterdir())
    assert check.fsck(tracker.repo, full=True) == []
    if kind != "plain":
        assert user_state(sandbox) == before
    if kind not in ("plain", "bare"):
        assert sandbox.git("status", "--porcelain") == status


def test_all_worktrees_share_one_store(make_repo: MakeRepo) -> None:
    sandbox = make_repo("linked")
    repo = Repo.find(sandbox.path, create=True)
    assert repo.root == sandbox.paths.common_dir.parent / ".gittrack"


def test_a_folder_without_a_store_is_said_so(make_repo: MakeRepo) -> None:
    with pytest.raises(NotARepositoryError, match="no git repository"):
        Repo.find(make_repo("plain").path)


def test_a_read_only_store_can_be_read(git_repo: Sandbox) -> None:
    tracker = tracker_at(git_repo.path)
    run_id = finished_run(tracker, loss=0.5)
    repo = Repo.find(git_repo.path)
    repo.read_only = True
    reader = Tracker(repo)
    assert reader.get_run(run_id).info.status == "FINISHED"
    assert [run.info.run_id for run in reader.search_runs()] == [run_id]
    with pytest.raises(ReadOnlyError):
        reader.create_run()
    with pytest.raises(ReadOnlyError):
        reader.writer(run_id)


def test_an_edit_of_a_finished_run_is_a_revision_of_it(git_repo: Sandbox) -> None:
    tracker = tracker_at(git_repo.path)
    run_id = finished_run(tracker, loss=0.5)
    first = tracker.get_run(run_id).commit
    tracker.writer(run_id).set_tags({"checked": "yes"})
    tracker.writer(run_id).log_metric("loss", 0.25, step=7, timestamp=5000)
    assert tracker.get_run(run_id).data.metrics == {"loss": 0.25}  # before it is committed
    tracker.close()
    run = tracker.get_run(run_id)
    assert run.data.tags["checked"] == "yes"
    assert run.commit is not None
    assert git_repo.git("rev-parse", f"{run.commit}^@") == first
    assert [point.step for point in tracker.metric_history(run_id, "loss")] == [0, 1, 2, 7]
    assert run.data.summaries["loss"].count == 4
    assert check.fsck(tracker.repo, full=True) == []


def test_many_runs_are_one_ledger_commit(git_repo: Sandbox) -> None:
    tracker = tracker_at(git_repo.path)
    handles = [tracker.create_run(name=f"run {i}") for i in range(30)]
    tracker._keeper.seal_soon = lambda: None  # type: ignore[method-assign]  # so that they end before anybody seals
    for run in handles:
        run.end()
    tracker.flush()
    (ref,) = tracker.repo.ledgers()
    assert [line for line in git_repo.git("log", "--format=%s", ref).splitlines() if "run(s)" in line] == ["30 run(s)"]
    assert set(tracker.repo.all_run_ids()) == {run.run_id for run in handles}
    assert layout.parse_ledger_ref(ref) == ("0", tracker.repo.writer)


def test_a_journal_left_by_a_crash_after_the_commit_is_not_folded_twice(git_repo: Sandbox) -> None:
    tracker = tracker_at(git_repo.path)
    run = tracker.create_run()
    run.log_metric("loss", 1.0)
    [journal_path] = (tracker.repo.live / run.run_id).iterdir()
    saved = None
    run._tracker._keeper.seal_soon = lambda: None  # type: ignore[method-assign]
    run.end()
    saved = journal_path.read_bytes()
    tracker.flush()
    commit = tracker.get_run(run.run_id).commit
    journal_path.parent.mkdir()
    journal_path.write_bytes(saved)
    assert tracker.get_run(run.run_id).data.summaries["loss"].count == 1
    assert len(tracker.metric_history(run.run_id, "loss")) == 1
    seal.seal(tracker.repo)
    assert not journal_path.exists()
    assert tracker.get_run(run.run_id).commit == commit


def _dead_journal(repo: Repo, run_id: str, events: list[list[object]]) -> Path:
    """A journal as a process leaves it that was killed."""
    child = subprocess.run(
        [sys.executable, "-c", "from gittrack.store import files; print(files.process_identity().to_list())"],
        check=True,
        capture_output=True,
        text=True,
    )
    process = eval(child.stdout)  # our own child's list of plain values
    folder = repo.live / run_id
    folder.mkdir(parents=True)
    opening = [OPEN, {"version": 1, "run_id": run_id, "process": process, "opened": 1}]
    data = b"".join(codec.frame(codec.pack(event)) for event in [opening, *events])
    path = folder / "dead.journal"
    path.write_bytes(data)
    return path


def _create(run_id: str) -> list[object]:
    return [CREATE, {"run_id": run_id, "experiment_id": "0", "name": "n", "user_id": "u", "start_time": 1000}]


def test_a_ledger_is_as_old_as_the_newest_run_that_it_has_got(git_repo: Sandbox) -> None:
    """git walks by date: runs that are all older than their ledger would be a list that it goes up and down in."""
    repo = Repo.find(git_repo.path, create=True)

    def sealed(*ends: int) -> int:
        for end in ends:
            _dead_journal(repo, f"{end:032x}", [_create(f"{end:032x}"), [STATUS, "FINISHED", end * 1000]])
        assert len(seal.heal(repo)) == len(ends)
        (ledger,) = repo.ledgers().values()
        return repo.git.read_commit(ledger).time

    assert sealed(500, 7000, 600) == 7000
    assert sealed(800) == 7000, "no commit is older than its parent"
    assert sealed(9000) == 9000
    assert sealed(4_000_000_000) < 4_000_000_000, "nor is any of the future"


def test_a_run_whose_process_died_is_killed_and_loses_nothing(git_repo: Sandbox) -> None:
    repo = Repo.find(git_repo.path, create=True)
    _dead_journal(repo, "a" * 32, [_create("a" * 32), [METRIC, "loss", 0.5, 1000, 0]])
    assert seal.heal(repo) == ["a" * 32]
    run = repo.run("a" * 32)
    assert run.info.status == "KILLED"
    assert run.info.end_time is not None
    assert run.data.metrics == {"loss": 0.5}


def test_a_run_that_had_ended_keeps_its_status_when_the_process_died(git_repo: Sandbox) -> None:
    repo = Repo.find(git_repo.path, create=True)
    _dead_journal(repo, "b" * 32, [_create("b" * 32), [STATUS, "FINISHED", 2000]])
    seal.heal(repo)
    assert repo.run("b" * 32).info.status == "FINISHED"
    assert repo.run("b" * 32).info.end_time == 2000


def test_a_torn_tail_costs_only_itself(git_repo: Sandbox) -> None:
    repo = Repo.find(git_repo.path, create=True)
    path = _dead_journal(repo, "c" * 32, [_create("c" * 32), [PARAMS, {"a": "1"}], [PARAMS, {"b": "2"}]])
    path.write_bytes(path.read_bytes()[:-3])
    seal.heal(repo)
    assert repo.run("c" * 32).data.params == {"a": "1"}


def test_a_journal_without_its_beginning_is_set_aside_and_reported(
    git_repo: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    repo = Repo.find(git_repo.path, create=True)
    _dead_journal(repo, "d" * 32, [[METRIC, "loss", 0.5, 1000, 0], [CLOSE]])
    seal.seal(repo)
    assert "damaged" in caplog.text
    assert (repo.root / "lost" / ("d" * 32) / "dead.journal").exists()
    assert [problem.kind for problem in check.fsck(repo)] == ["journal"]


def test_a_run_of_a_living_process_is_left_alone(git_repo: Sandbox) -> None:
    tracker = tracker_at(git_repo.path)
    run = tracker.create_run()
    run.log_metric("loss", 1.0)
    assert seal.seal(Repo.find(git_repo.path)) == []
    assert tracker.get_run(run.run_id).info.status == "RUNNING"


def test_two_clones_that_amend_one_run_merge_field_by_field(git_repo: Sandbox, tmp_path: Path) -> None:
    tracker = tracker_at(git_repo.path)
    run_id = finished_run(tracker, loss=0.5)
    run_git(tmp_path, "clone", "-q", str(git_repo.path), "other")
    other_path = tmp_path / "other"
    run_git(other_path, "fetch", "-q", "origin", "refs/runs/*:refs/runs/*")
    other = tracker_at(other_path)
    assert other.repo.writer != tracker.repo.writer
    tracker.writer(run_id).set_tags({"here": "1", "both": "one"})
    tracker.writer(run_id).log_metric("acc", 0.9, 1, 2000)
    tracker.flush()
    tracker.close()
    other.writer(run_id).set_tags({"there": "2", "both": "two"})
    other.writer(run_id).log_metric("acc", 0.8, 2, 3000)
    other.close()
    run_git(other_path, "fetch", "-q", "origin", "refs/runs/*:refs/runs/*")
    merged = other.get_run(run_id)
    run_git(git_repo.path, "fetch", "-q", str(other_path), "refs/runs/*:refs/runs/*")
    assert tracker.get_run(run_id).data.tags == merged.data.tags
    assert merged.data.tags["here"] == "1"
    assert merged.data.tags["there"] == "2"
    assert merged.data.tags["both"] in ("one", "two")
    assert len(other.repo.revisions(run_id)) == 2
    assert [point.value for point in other.metric_history(run_id, "acc")] == [0.9, 0.8]
    other.writer(run_id).set_tags({"merged": "yes"})  # the next revision has both as parents
    other.close()
    assert len(other.repo.revisions(run_id)) == 1
    assert [point.value for point in other.metric_history(run_id, "acc")] == [0.9, 0.8]
    assert other.get_run(run_id).data.metrics == {"acc": 0.8, "loss": 0.5}
    assert {problem.kind for problem in check.fsck(other.repo, full=True)} == {"artifact"}  # its bytes were not fetched


def test_gc_drops_only_what_no_run_refers_to(git_repo: Sandbox) -> None:
    tracker = tracker_at(git_repo.path)
    run_id = finished_run(tracker, loss=0.5)
    digest, size = tracker.repo.objects.put_bytes(b"nobody wants me")
    assert check.gc(tracker.repo).kept_young == 1
    report = check.gc(tracker.repo, dry_run=True, grace_s=0)
    assert (report.objects, report.size) == ([digest], size)
    assert tracker.repo.objects.has(digest)
    assert check.gc(tracker.repo, grace_s=0).objects == [digest]
    assert not tracker.repo.objects.has(digest)
    tracker.delete_run(run_id)  # restorable, so its artifacts stay
    tracker.close()
    assert check.gc(tracker.repo, grace_s=0).objects == []
    assert tracker.read_artifact(run_id, "notes/a.txt") == b"hello"


def test_purge_forgets_a_run_for_good(git_repo: Sandbox) -> None:
    tracker = tracker_at(git_repo.path)
    keep = finished_run(tracker, loss=0.25)
    run = tracker.create_run()
    run.log_bytes(b"secret", "secret.txt")
    run.end()
    tracker.flush()
    with pytest.raises(StateError, match="not deleted"):
        rewrite.purge(tracker.repo, run.run_id)
    tracker.delete_run(run.run_id)
    tracker.close()
    assert rewrite.purge(tracker.repo, run.run_id) == 6
    with pytest.raises(NotFoundError):
        tracker.get_run(run.run_id)
    assert [found.info.run_id for found in tracker.search_runs(view=ViewType.ALL)] == [keep]
    git_repo.git("reflog", "expire", "--expire=now", "--all")
    git_repo.git("gc", "-q", "--prune=now")
    assert run.run_id not in git_repo.git("log", "--all", "--format=%B")
    assert check.fsck(tracker.repo, full=True) == []


def test_fsck_names_every_kind_of_damage(git_repo: Sandbox) -> None:
    tracker = tracker_at(git_repo.path)
    run_id = finished_run(tracker, loss=0.5)
    digest = hashlib.sha256(b"hello").hexdigest()
    path = tracker.repo.objects.path(digest)  # type: ignore[arg-type]
    os.chmod(path, 0o644)
    path.write_bytes(b"hellO")
    assert [p.subject for p in check.fsck(tracker.repo)] == []  # the size is right
    assert [(p.kind, p.subject) for p in check.fsck(tracker.repo, full=True)] == [("artifact", digest)]
    with pytest.raises(CorruptError):
        tracker.read_artifact(run_id, "notes/a.txt")
    path.unlink()
    assert [p.kind for p in check.fsck(tracker.repo)] == ["artifact"]
    with pytest.raises(NotFoundError):
        tracker.read_artifact(run_id, "notes/a.txt")


def test_a_ledger_whose_commit_is_missing_hides_only_its_own_runs(
    git_repo: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracker_at(git_repo.path)
    run_id = finished_run(tracker, loss=0.5)
    (git_repo.paths.git_dir / "refs/runs/0/somebody-1234").write_text("1" * 40 + "\n")
    tracker.repo.close()
    assert tracker.get_run(run_id).info.status == "FINISHED"
    assert [found.info.run_id for found in tracker.search_runs()] == [run_id]
    assert "somebody-1234" in caplog.text
    assert ("ledger", "refs/runs/0/somebody-1234") in [(p.kind, p.subject) for p in check.fsck(tracker.repo)]
    assert finished_run(tracker, loss=0.25)


def test_the_index_is_derived(git_repo: Sandbox) -> None:
    tracker = tracker_at(git_repo.path)
    run_id = finished_run(tracker, loss=0.5)
    before = repr(tracker.search_runs(view=ViewType.ALL))
    tracker.repo.close()
    (tracker.repo.root / "index.db").write_bytes(b"this is no database" * 1000)
    assert repr(tracker.search_runs(view=ViewType.ALL)) == before
    tracker.repo.close()
    (tracker.repo.root / "index.db").unlink()
    assert repr(tracker.search_runs(view=ViewType.ALL)) == before
    assert tracker.repo.reindex() == 1
    assert [found.info.run_id for found in tracker.search_runs()] == [run_id]


def test_a_running_run_of_another_process_is_found(git_repo: Sandbox) -> None:
    tracker = tracker_at(git_repo.path)
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from gittrack.store.repo import Repo
        from gittrack.track.runs import Tracker
        run = Tracker(Repo.find(Path.cwd(), create=True)).create_run(name="live")
        run.log_metric("loss", 0.5)
        print(run.run_id, flush=True)
        sys.stdin.readline()
        run.log_metric("loss", 0.25, step=1)
        print("more", flush=True)
        sys.stdin.readline()
        run.end()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=git_repo.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        run_id = child.stdout.readline().strip()
        (run,) = tracker.search_runs(filter_string="attributes.status = 'RUNNING'")
        assert (run.info.run_id, run.data.metrics) == (run_id, {"loss": 0.5})
        child.stdin.write("\n")
        child.stdin.flush()
        child.stdout.readline()
        (run,) = tracker.search_runs(filter_string="metrics.loss < 0.3")
        assert run.data.summaries["loss"].count == 2
        child.stdin.write("\n")
        child.stdin.flush()
        child.wait(timeout=30)
    (run,) = tracker.search_runs(filter_string="attributes.status = 'FINISHED'")
    assert run.info.run_id == run_id
