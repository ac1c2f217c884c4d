"""Tracker and ActiveRun: what a training process does, with processes, threads, forks and trouble."""

import logging
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from unittest import mock

import pytest

from gittrack.errors import (
    AlreadyExistsError,
    InvalidValueError,
    NotFoundError,
    StateError,
    StorageError,
)
from gittrack.store import check, codec, journal, seal
from gittrack.store.repo import Repo
from gittrack.track.active import ActiveRun
from gittrack.track.runs import Tracker
from gittrack.types import Dataset, DatasetInput, InputTag, Metric, ModelOutput, ViewType
from tests.conftest import Sandbox

FULL = os.environ.get("GITTRACK_FAULTS") == "full"


@pytest.fixture
def tracker(git_repo: Sandbox) -> Tracker:
    return Tracker(Repo.find(git_repo.path, create=True), strict=True)


def test_the_metrics_of_a_run_are_read_together(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tracker.create_run()
    for key in range(20):
        run.log_metric(f"m{key}", key, step=key, timestamp=1)
    run.end()
    tracker.flush()
    unpack = mock.Mock(wraps=codec.unpack_points)
    monkeypatch.setattr(codec, "unpack_points", unpack)
    for key in range(20):
        assert list(tracker.metric_history(run.run_id, f"m{key}").steps) == [key]
    assert not tracker.metric_history(run.run_id, "none").steps
    assert unpack.call_count == 1


def test_every_kind_of_fact_comes_back(tracker: Tracker) -> None:
    run = tracker.create_run(name="all", tags={"t": "1"}, user_id="ana", start_time=1234)
    run.log_params({"a": 1, "β/γ": "x", "none": None})
    run.log_metric("loss", 0.5, step=-(2**63), timestamp=0)
    run.log_metric("loss", float("nan"), step=2**63 - 1, timestamp=1)
    run.log_metrics([Metric("acc", math.inf, 5, 1), Metric("acc", -math.inf, 6, 2, model_id="m-1")])
    run.log_inputs([DatasetInput(Dataset("d", "1f", "local", "{}"), [InputTag("mlflow.data.context", "train")])])
    run.log_outputs([ModelOutput("m-1", 3)])
    run.delete_tag("t")
    run.set_name("renamed")
    run.end("FAILED", 9999)
    live = tracker.get_run(run.run_id)
    tracker.close()
    stored = tracker.get_run(run.run_id)
    assert stored.commit is not None
    assert repr(live.data) == repr(stored.data)
    assert stored.info.status == "FAILED"
    assert (stored.info.start_time, stored.info.end_time, stored.info.user_id) == (1234, 9999, "ana")
    assert stored.info.run_name == "renamed"
    assert stored.data.params == {"a": "1", "β/γ": "x", "none": "None"}
    assert "t" not in stored.data.tags
    assert math.isnan(stored.data.metrics["loss"])
    assert stored.data.metrics["acc"] == -math.inf
    assert stored.data.summaries["acc"].maximum == math.inf
    assert stored.inputs.dataset_inputs[0].tags == [InputTag("mlflow.data.context", "train")]
    assert stored.outputs.model_outputs == [ModelOutput("m-1", 3)]
    steps = [point.step for point in tracker.metric_history(run.run_id, "loss")]
    assert steps == [-(2**63), 2**63 - 1]


def test_ten_thousand_params(tracker: Tracker) -> None:
    run = tracker.create_run()
    run.log_params({f"layer.{i}.weight": i for i in range(10_000)})
    run.end()
    tracker.flush()
    assert len(tracker.get_run(run.run_id).data.params) == 10_000
    (found,) = tracker.search_runs(filter_string="params.\"layer.9999.weight\" = '9999'")
    assert found.info.run_id == run.run_id


def test_a_seal_at_the_moment_a_journal_is_opened_forgets_no_run(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tracker.create_run(capture=False)
    run.end()
    tracker.flush()
    before = tracker.get_run(run.run_id).commit
    opened = tracker.opened

    def opened_and_sealed(one: ActiveRun, path: Path) -> None:
        opened(one, path)
        tracker._seal_quietly()

    monkeypatch.setattr(tracker, "opened", opened_and_sealed)
    tracker.writer(run.run_id).set_tags({"later": "yes"})
    tracker.close()
    assert tracker.get_run(run.run_id).commit != before


def test_many_artifact_files(tracker: Tracker, tmp_path: Path) -> None:
    """A thousand in a hundred folders; ten thousand if GITTRACK_FAULTS=full."""
    each = 100 if FULL else 10
    folder = tmp_path / "many"
    for i in range(100):
        (folder / f"d{i:02d}").mkdir(parents=True)
        for j in range(each):
            (folder / f"d{i:02d}" / f"f{j:02d}.bin").write_bytes(f"{i}-{j}-".encode() * 1800)
    run = tracker.create_run()
    run.log_artifacts(folder, "data")
    run.end()
    tracker.close()
    artifacts = tracker.repo.artifacts(run.run_id)
    assert len(artifacts) == 100 * each
    assert sum(a.size for a in artifacts.values()) == sum(file.stat().st_size for file in folder.rglob("*.bin"))
    assert [f.path for f in tracker.list_artifacts(run.run_id, "data/d42")][:2] == [
        "data/d42/f00.bin",
        "data/d42/f01.bin",
    ]
    tracker.download_artifacts(run.run_id, "data/d99", tmp_path / "out")
    assert (tmp_path / "out/data/d99/f07.bin").read_bytes() == b"99-7-" * 1800


def test_a_run_that_had_an_id_elsewhere_keeps_it(tracker: Tracker) -> None:
    run = tracker.create_run(run_id="a" * 32, capture=False)
    assert run.run_id == "a" * 32
    with pytest.raises(AlreadyExistsError):  # while it is in its journal
        tracker.create_run(run_id="a" * 32, capture=False)
    run.end()
    tracker.close()
    with pytest.raises(AlreadyExistsError):  # once it is committed
        tracker.create_run(run_id="a" * 32, capture=False)
    with pytest.raises(InvalidValueError):
        tracker.create_run(run_id="../x", capture=False)
    with pytest.raises(InvalidValueError):
        tracker.begin_run("../x", "0")


def test_runs_that_end_together_are_committed_together(tracker: Tracker, git_repo: Sandbox) -> None:
    with tracker.sealing_later():
        for number in range(30):
            tracker.begin_run(f"{number:032x}", "0", name=f"run {number}").end("FINISHED", 5)
        assert tracker.repo.ledgers() == {}
    tracker.close()
    (ledger,) = tracker.repo.ledgers().values()
    assert git_repo.git("log", "-1", "--format=%s", ledger) == "30 run(s)"
    assert len(tracker.search_runs()) == 30


def test_a_param_is_written_once(tracker: Tracker) -> None:
    run = tracker.create_run()
    run.log_params({"lr": 0.1})
    run.log_params({"lr": "0.1"})
    with pytest.raises(InvalidValueError, match=r"'lr'.*`0\.1`.*`0\.2`"):
        run.log_batch([Metric("loss", 1.0, 1, 1)], {"new": 1, "lr": 0.2}, {"t": "x"})
    state = tracker.get_run(run.run_id)
    assert state.data.params == {"lr": "0.1"}
    assert state.data.metrics == {}
    assert "t" not in state.data.tags
    run.end()
    tracker.close()
    with pytest.raises(InvalidValueError, match="written once"):
        tracker.writer(run.run_id).log_params({"lr": 0.3})


@pytest.mark.parametrize(
    ("key", "value", "step", "time", "named"),
    [
        ("", 1.0, 0, 0, "metric"),
        ("a" * 251, 1.0, 0, 0, "250"),
        ("a\nb", 1.0, 0, 0, "metric"),
        ("../x", 1.0, 0, 0, "metric"),
        ("ok", "text", 0, 0, "ok"),
        ("ok", 1.0, 2**63, 0, "step"),
        ("ok", 1.0, 0, -1, "timestamp"),
    ],
)
def test_bad_values_are_named_and_not_written(
    tracker: Tracker, key: str, value: object, step: int, time: int, named: str
) -> None:
    run = tracker.create_run()
    with pytest.raises(InvalidValueError, match=named):
        run.log_metric(key, value, step, time)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match=named):
        run.log_metrics([Metric("fine", 1.0, 1, 1), Metric(key, value, time, step)])  # type: ignore[arg-type]
    assert tracker.get_run(run.run_id).data.metrics == {}


def test_secrets_in_params_are_redacted(tracker: Tracker) -> None:
    run = tracker.create_run()
    run.log_params({"db_password": "hunter22hunter22", "lr": 0.1})
    run.end()
    tracker.close()
    assert tracker.get_run(run.run_id).data.params == {"db_password": "[redacted]", "lr": "0.1"}


def test_threads_write_into_one_run(tracker: Tracker) -> None:
    run = tracker.create_run()

    def work(i: int) -> None:
        for step in range(500):
            run.log_metric(f"m{i}", float(step), step)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.end()
    tracker.close()
    summaries = tracker.get_run(run.run_id).data.summaries
    assert {key: s.count for key, s in summaries.items()} == {f"m{i}": 500 for i in range(8)}


def _child(tracker: Tracker, run: ActiveRun, rank: int) -> None:
    for step in range(100):
        run.log_metric(f"rank{rank}", float(step), step)
    os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("default:.*multi-threaded.*fork.*:DeprecationWarning")
def test_forked_children_write_into_journals_of_their_own(tracker: Tracker) -> None:
    run = tracker.create_run()
    run.log_metric("main", 1.0)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_child, args=(tracker, run, rank)) for rank in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert len(tracker.repo.journals(run.run_id)) == 4
    assert tracker.get_run(run.run_id).info.status == "RUNNING"
    run.end()
    tracker.close()
    data = tracker.get_run(run.run_id)
    assert data.info.status == "FINISHED"
    assert {key: s.count for key, s in data.data.summaries.items()} == {
        "main": 1, "rank0": 100, "rank1": 100, "rank2": 100,
    }  # fmt: skip


def test_a_process_that_joins_does_not_end_the_run(tracker: Tracker, git_repo: Sandbox) -> None:
    run = tracker.create_run()
    run.log_metric("loss", 1.0)
    script = textwrap.dedent(f"""
        from pathlib import Path
        from gittrack.store.repo import Repo
        from gittrack.track.runs import Tracker
        tracker = Tracker(Repo.find(Path.cwd(), create=True), strict=True)
        run = tracker.resume("{run.run_id}")
        assert not run.owner
        run.log_metric("other", 2.0)
        run.end()
        tracker.close()
    """)
    subprocess.run([sys.executable, "-c", script], cwd=git_repo.path, check=True)
    assert tracker.get_run(run.run_id).info.status == "RUNNING"
    assert tracker.get_run(run.run_id).data.metrics == {"loss": 1.0, "other": 2.0}
    run.end()
    tracker.close()
    assert tracker.get_run(run.run_id).data.metrics == {"loss": 1.0, "other": 2.0}


def test_a_finished_run_is_resumed(tracker: Tracker) -> None:
    run = tracker.create_run()
    run.log_metric("loss", 1.0, 0, 1)
    run.end()
    tracker.close()
    again = tracker.resume(run.run_id)
    assert tracker.get_run(run.run_id).info.status == "RUNNING"
    assert tracker.get_run(run.run_id).info.end_time is None
    again.log_metric("loss", 0.5, 1, 2)
    again.end()
    tracker.close()
    run_data = tracker.get_run(run.run_id)
    assert (run_data.info.status, run_data.data.metrics) == ("FINISHED", {"loss": 0.5})


def test_deleted_runs_refuse_writes_until_restored(tracker: Tracker) -> None:
    run = tracker.create_run()
    run.end()
    tracker.delete_run(run.run_id)
    assert tracker.search_runs() == []
    assert [r.info.run_id for r in tracker.search_runs(view=ViewType.DELETED_ONLY)] == [run.run_id]
    with pytest.raises(StateError, match="deleted"):
        tracker.delete_run(run.run_id)
    with pytest.raises(StateError, match="deleted"):
        tracker.active_writer(run.run_id)
    with pytest.raises(StateError, match="deleted"):
        tracker.resume(run.run_id)
    tracker.close()
    tracker.restore_run(run.run_id)
    assert len(tracker.search_runs()) == 1


def test_experiments(tracker: Tracker) -> None:
    for location in (1, b"here", "x" * 2049):
        with pytest.raises(InvalidValueError, match="artifact location"):
            tracker.create_experiment("churn", artifact_location=location)  # type: ignore[arg-type]
    experiment_id = tracker.create_experiment("churn", tags={"team": "a"})
    other = Tracker(Repo.find(tracker.repo.paths.main_root))
    assert other.get_experiment(experiment_id).tags == {"team": "a"}
    with pytest.raises(AlreadyExistsError):
        other.create_experiment("churn")
    run = tracker.create_run(experiment_id)
    run.end()
    tracker.rename_experiment(experiment_id, "retention")
    assert tracker.get_experiment_by_name("churn") is None
    found = tracker.get_experiment_by_name("retention")
    assert found is not None
    assert found.experiment_id == experiment_id
    assert tracker.create_experiment("churn") != experiment_id  # the name is free, its first id is not
    tracker.set_experiment_tags(experiment_id, {"team": "b", "x": "1"})
    tracker.delete_experiment_tag(experiment_id, "x")
    tracker.delete_experiment(experiment_id)
    assert tracker.search_runs([experiment_id]) == []
    with pytest.raises(StateError, match="deleted"):
        tracker.create_run(experiment_id)
    with pytest.raises(StateError, match="deleted"):
        tracker.set_experiment_tags(experiment_id, {"a": "b"})
    assert [e.name for e in tracker.search_experiments(view=ViewType.DELETED_ONLY)] == ["retention"]
    tracker.restore_experiment(experiment_id)
    assert tracker.get_experiment(experiment_id).tags == {"team": "b"}
    assert len(tracker.search_runs([experiment_id])) == 1
    with pytest.raises(NotFoundError):
        tracker.get_experiment("12345")
    with pytest.raises(StateError, match="Default"):
        tracker.delete_experiment("0")


def test_pages(tracker: Tracker) -> None:
    handles = [tracker.create_run(start_time=1000 + i) for i in range(7)]
    for run in handles:
        run.end()
    seen, token = [], None
    while True:
        page = tracker.search_runs(max_results=3, page_token=token)
        seen += [run.info.run_id for run in page]
        token = page.token
        if token is None:
            break
    assert seen == [run.run_id for run in reversed(handles)]
    assert tracker.search_runs(max_results=7).token is None
    for bad in ("rubbish", "eyJvZmZzZXQiOiAtMX0=", "W10=", "{" * 5000):
        with pytest.raises(InvalidValueError, match="page token"):
            tracker.search_runs(page_token=bad)
    with pytest.raises(InvalidValueError, match="max_results"):
        tracker.search_runs(max_results=0)


def test_runs_are_found_by_what_people_type(tracker: Tracker) -> None:
    first = tracker.create_run(name="alpha", start_time=1000)
    second = tracker.create_run(name="beta", start_time=2000)
    for run in (first, second):
        run.end()
    assert tracker.resolve(first.run_id) == first.run_id
    assert tracker.resolve(first.run_id[:12]) == first.run_id
    assert tracker.resolve("alpha") == first.run_id
    assert tracker.resolve("alp") == first.run_id
    assert tracker.resolve("latest") == second.run_id
    assert tracker.resolve("@{-2}") == first.run_id
    with pytest.raises(NotFoundError) as info:
        tracker.resolve("alpah")
    assert info.value.hint == "did you mean `alpha`?"
    with pytest.raises(NotFoundError, match="there are only 2 runs"):
        tracker.resolve("@{-3}")
    tracker.create_run(name="beta").end()
    with pytest.raises(InvalidValueError, match="fits 2 runs"):
        tracker.resolve("beta")
    for hostile in ("--output=x", "a..b", "HEAD^{/x}", "\0", "'; drop table runs"):
        with pytest.raises(NotFoundError):
            tracker.resolve(hostile)


def test_artifact_paths_stay_inside(tracker: Tracker, tmp_path: Path) -> None:
    run = tracker.create_run()
    (tmp_path / "f.txt").write_text("x")
    for bad in ("../x", "/etc/x", "a/../../x", "..\\x", "C:x", "a//../b", ".git/x", "a\0b", "a/%2e%2e/b"):
        with pytest.raises(InvalidValueError):
            run.log_bytes(b"x", bad)
        with pytest.raises(InvalidValueError):
            run.log_artifact(tmp_path / "f.txt", bad)
        with pytest.raises(InvalidValueError):
            tracker.download_artifacts(run.run_id, bad, tmp_path / "out")
    assert tracker.repo.artifacts(run.run_id) == {}


def test_log_artifacts_refuses_what_is_no_file_of_the_folder(tracker: Tracker, tmp_path: Path) -> None:
    run = tracker.create_run()
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "inside.txt").write_text("in")
    (folder / "link.txt").symlink_to("inside.txt")
    run.log_artifacts(folder)
    assert sorted(tracker.repo.artifacts(run.run_id)) == ["inside.txt", "link.txt"]
    (folder / "leak").symlink_to("/etc/passwd")
    with pytest.raises(InvalidValueError, match="symbolic link out of"):
        run.log_artifacts(folder, "again")
    (folder / "leak").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidValueError, match="pipe"):
        run.log_artifacts(folder, "again")
    with pytest.raises((InvalidValueError, NotFoundError)):
        run.log_artifact(tmp_path / "absent")
    assert sorted(tracker.repo.artifacts(run.run_id)) == ["inside.txt", "link.txt"]


def test_downloads_never_follow_a_symbolic_link(tracker: Tracker, tmp_path: Path) -> None:
    run = tracker.create_run()
    run.log_bytes(b"new", "sub/file.txt")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target/sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidValueError, match="symbolic link"):
        tracker.download_artifacts(run.run_id, None, tmp_path / "target")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_trouble_with_the_disk_never_reaches_the_training(
    git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker(Repo.find(git_repo.path, create=True))
    run = tracker.create_run()
    run.log_metric("before", 1.0)
    real = journal.JournalWriter.append
    full = True

    def append(self: journal.JournalWriter, payload: bytes) -> None:
        if full:
            raise StorageError("no space left on device")
        real(self, payload)

    monkeypatch.setattr(journal.JournalWriter, "append", append)
    with caplog.at_level(logging.WARNING):
        for step in range(100):
            run.log_metric("loss", float(step), step)
            run.log_params({f"p{step}": step})
    assert caplog.text.count("no space left on device") == 1
    full = False
    run.end()
    tracker.close()
    data = tracker.get_run(run.run_id)
    assert data.info.status == "FINISHED"
    assert data.data.summaries["loss"].count == 100
    assert len(data.data.params) == 100
    assert check.fsck(tracker.repo, full=True) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize(
    ("ending", "status", "code"),
    [
        ("pass", "FINISHED", 0),
        ("raise ValueError('x')", "FAILED", 1),
        ("raise KeyboardInterrupt", "KILLED", -signal.SIGINT),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "KILLED", -signal.SIGTERM),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "KILLED", -signal.SIGKILL),
    ],
)
def test_how_a_process_ends_is_how_its_run_ends(git_repo: Sandbox, ending: str, status: str, code: int) -> None:
    script = textwrap.dedent(f"""
        from gittrack import session
        tracker = session.open_tracker()
        run = tracker.create_run(name="x")
        tracker.end_at_exit(run)
        run.log_metric("loss", 0.5)
        {ending}
    """)
    git_repo.write("train.py", script)
    done = subprocess.run([sys.executable, "train.py"], cwd=git_repo.path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    tracker = Tracker(Repo.find(git_repo.path))
    check.fsck(tracker.repo)
    (run,) = tracker.search_runs()
    assert (run.info.status, run.data.metrics) == (status, {"loss": 0.5})
    assert run.commit is not None


def test_a_program_that_ends_while_git_still_reads_its_code_loses_nothing_of_it(
    git_repo: Sandbox, tmp_path: Path
) -> None:
    git_repo.git("config", "filter.slow.clean", "touch reading; sleep 1; cat")
    git_repo.write(".git/info/attributes", "new.py filter=slow\n")
    script = """
        import pathlib, time
        import gittrack
        gittrack.start_run()
        while not pathlib.Path("reading").exists():
            time.sleep(0.01)
    """
    git_repo.write("new.py", textwrap.dedent(script))
    environment = {**os.environ, "TMPDIR": str(tmp_path / "scratch")}
    (tmp_path / "scratch").mkdir()
    done = subprocess.run(
        [sys.executable, "new.py"], cwd=git_repo.path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    tracker = Tracker(Repo.find(git_repo.path))
    seal.heal(tracker.repo)
    (run,) = tracker.search_runs()
    assert "left_out" not in run.code
    assert "new.py" in git_repo.git("ls-tree", "--name-only", run.code["tree"]).split()
    assert not list((tmp_path / "scratch").iterdir())


def test_a_run_that_a_server_records_outlives_the_server(git_repo: Sandbox) -> None:
    repo = Repo.find(git_repo.path, create=True)
    first = Tracker(repo, serving=True)
    run = first.create_run()
    run.log_metric("m", 1.0, 1)
    first.close()
    seal.heal(repo)
    again = Tracker(Repo.find(git_repo.path), serving=True)
    assert again.get_run(run.run_id).info.status == "RUNNING"
    resumed = again.active_writer(run.run_id)
    resumed.log_metric("m", 2.0, 2)
    resumed.set_status("FINISHED")
    again.close()
    found = again.get_run(run.run_id)
    assert (found.info.status, found.data.metrics, found.commit is not None) == ("FINISHED", {"m": 2.0}, True)
    assert [one.value for one in again.metric_history(run.run_id, "m")] == [1.0, 2.0]
