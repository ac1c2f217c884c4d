"""The life of a run: start, nest, resume, end; threads, forks, exits; the environment."""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import gittrack
from gittrack.errors import InvalidValueError, NotFoundError, StateError
from tests.api.conftest import git

Python = Callable[..., "subprocess.CompletedProcess[str]"]


def status(run: gittrack.ActiveRun) -> str:
    return gittrack.get_run(run.info.run_id).info.status


def test_a_block_makes_a_run_and_finishes_it(project: Path) -> None:
    with gittrack.start_run(run_name="first", tags={"n": 1}, description="note") as run:
        assert gittrack.active_run() is run
        assert run.info.status == "RUNNING"
        assert run.info.end_time is None
        assert status(run) == "RUNNING"
    assert gittrack.active_run() is None
    found = gittrack.get_run(run.info.run_id)
    assert re.fullmatch(r"[0-9a-f]{32}", found.info.run_id)
    assert found.info.run_uuid == found.info.run_id
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "first"
    assert found.info.end_time is not None
    assert found.info.end_time >= found.info.start_time > 1_700_000_000_000
    assert found.data.tags["n"] == "1"
    assert found.data.tags["mlflow.note.content"] == "note"
    assert found.data.tags["mlflow.runName"] == "first"
    assert found.data.tags["mlflow.source.git.commit"] == git(project, "rev-parse", "HEAD")
    assert found.data.tags["mlflow.source.type"] == "LOCAL"
    assert found.data.tags["mlflow.user"] == found.info.user_id != ""


def test_a_run_can_be_copied_and_sent_to_another_process(project: Path) -> None:
    with gittrack.start_run() as run:
        for same in (pickle.loads(pickle.dumps(run)), copy.deepcopy(run)):
            assert type(same) is gittrack.entities.Run
            assert same.info == run.info


def test_a_finished_run_is_a_commit_on_top_of_its_code(project: Path) -> None:
    (project / "train.py").write_text("print('changed')\n", encoding="utf-8")
    with gittrack.start_run() as run:
        gittrack.log_metric("loss", 0.5)
    gittrack.flush_async_logging()
    commit = gittrack.get_run(run.info.run_id).commit
    assert commit is not None
    assert git(project, "rev-parse", f"{commit}^") == git(project, "rev-parse", "HEAD")
    assert git(project, "show", f"{commit}:train.py") == "print('changed')"
    assert run.info.run_id in git(project, "show", "-s", "--format=%B", commit)
    assert git(project, "status", "--porcelain") == "M train.py"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("x"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(3), "FAILED"),
        (SystemExit(0), "FINISHED"),
        (SystemExit(), "FINISHED"),
    ],
)
def test_how_a_block_is_left_says_how_the_run_ended(project: Path, error: BaseException, expected: str) -> None:
    with pytest.raises(type(error)), gittrack.start_run() as run:
        raise error
    assert status(run) == expected
    assert gittrack.active_run() is None


def test_a_second_run_needs_nested(project: Path) -> None:
    with gittrack.start_run() as parent:
        with pytest.raises(StateError, match=parent.info.run_id):
            gittrack.start_run()
        with gittrack.start_run(nested=True, run_name="child") as child:
            assert gittrack.active_run() is child
            gittrack.log_param("who", "child")
        assert gittrack.active_run() is parent
        gittrack.log_param("who", "parent")
    assert gittrack.get_run(child.info.run_id).data.params == {"who": "child"}
    assert gittrack.get_run(parent.info.run_id).data.params == {"who": "parent"}
    assert gittrack.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id
    found = gittrack.get_parent_run(child.info.run_id)
    assert found is not None
    assert found.info.run_id == parent.info.run_id
    assert gittrack.get_parent_run(parent.info.run_id) is None


def test_a_block_ends_the_nested_run_that_it_left_open(project: Path) -> None:
    started = []

    def work() -> None:
        with gittrack.start_run() as parent:
            started.extend([parent, gittrack.start_run(nested=True)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    parent, child = started
    assert (status(child), status(parent)) == ("FAILED", "FAILED")
    assert gittrack.active_run() is None


def test_a_parent_can_be_named(project: Path) -> None:
    with gittrack.start_run() as parent:
        pass
    with (
        gittrack.start_run(parent_run_id=parent.info.run_id) as child,
        pytest.raises(StateError, match="cannot be the parent"),
    ):
        gittrack.start_run(nested=True, parent_run_id=parent.info.run_id)
    assert gittrack.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id
    gittrack.delete_run(parent.info.run_id)
    with pytest.raises(StateError, match="deleted"):
        gittrack.start_run(parent_run_id=parent.info.run_id)
    with pytest.raises(NotFoundError):
        gittrack.start_run(parent_run_id="0" * 32)
    assert gittrack.active_run() is None


def test_ending_without_a_run_does_nothing(project: Path) -> None:
    gittrack.end_run()
    assert gittrack.last_active_run() is None


def test_a_status_must_be_one(project: Path) -> None:
    run = gittrack.start_run()
    with pytest.raises(InvalidValueError, match="unknown run status `DONE`"):
        gittrack.end_run("DONE")
    assert gittrack.active_run() is run
    gittrack.end_run("KILLED")
    assert status(run) == "KILLED"
    run = gittrack.start_run()
    gittrack.end_run(None)  # type: ignore[arg-type]  # as in MLflow, nothing is FINISHED
    assert status(run) == "FINISHED"


def test_a_number_is_a_name(project: Path) -> None:
    with gittrack.start_run(run_name=3) as fold:  # type: ignore[arg-type]
        assert fold.info.run_name == fold.data.tags["mlflow.runName"] == "3"
    gittrack.Client().update_run(fold.info.run_id, name=4)  # type: ignore[arg-type]
    assert gittrack.get_run(fold.info.run_id).info.run_name == "4"
    assert gittrack.Client().create_run("0", tags={"mlflow.runName": 5}).info.run_name == "5"


def test_the_last_run_is_remembered(project: Path) -> None:
    with gittrack.start_run() as run:
        assert gittrack.last_active_run() is run
    last = gittrack.last_active_run()
    assert last is not None
    assert (last.info.run_id, last.info.status) == (run.info.run_id, "FINISHED")


def test_a_log_call_without_a_run_starts_one(project: Path) -> None:
    gittrack.log_metric("m", 1.0)
    run = gittrack.active_run()
    assert run is not None
    gittrack.log_param("p", 1)
    gittrack.end_run()
    found = gittrack.get_run(run.info.run_id)
    assert (found.data.metrics, found.data.params) == ({"m": 1.0}, {"p": "1"})


def test_a_run_can_be_resumed(project: Path) -> None:
    with gittrack.start_run() as first:
        gittrack.log_param("p", 1)
        gittrack.log_metric("m", 1, step=0)
    with gittrack.start_run(run_id=first.info.run_id, run_name="again", tags={"t": 2}, description="d") as again:
        assert again.info.run_id == first.info.run_id
        assert again.info.status == "RUNNING"
        assert again.data.params == {"p": "1"}
        assert status(again) == "RUNNING"
        gittrack.log_metric("m", 2, step=1)
        with pytest.raises(InvalidValueError, match="params are written once"):
            gittrack.log_param("p", 2)
    found = gittrack.get_run(first.info.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "again"
    assert found.data.metrics == {"m": 2.0}
    assert found.data.tags["t"] == "2"
    assert found.data.tags["mlflow.note.content"] == "d"
    assert [(m.step, m.value) for m in gittrack.Client().get_metric_history(first.info.run_id, "m")] == [
        (0, 1.0),
        (1, 2.0),
    ]


def test_what_cannot_be_resumed(project: Path) -> None:
    with pytest.raises(NotFoundError):
        gittrack.start_run(run_id="0" * 32)
    with pytest.raises(InvalidValueError, match="invalid run id"):
        gittrack.start_run(run_id="../x")
    with gittrack.start_run() as run:
        pass
    with pytest.raises(InvalidValueError, match="tag name"):
        gittrack.start_run(run_id=run.info.run_id, tags={"": 1})
    assert status(run) == "FINISHED"
    gittrack.set_experiment("other")
    with pytest.raises(StateError, match="set_experiment"):
        gittrack.start_run(run_id=run.info.run_id)
    gittrack.delete_run(run.info.run_id)
    gittrack.fluent._process.experiment_id = None
    with pytest.raises(StateError, match="deleted"):
        gittrack.start_run(run_id=run.info.run_id)
    assert gittrack.active_run() is None


def test_a_description_is_given_once(project: Path) -> None:
    with pytest.raises(InvalidValueError, match="description is given twice"):
        gittrack.start_run(tags={"mlflow.note.content": "a"}, description="b")
    assert gittrack.active_run() is None
    assert gittrack.search_runs(output_format="list") == []


def test_a_bad_start_leaves_nothing(project: Path) -> None:
    for bad in ({"run_name": "a\nb"}, {"tags": {"": 1}}, {"experiment_id": "../x"}, {"experiment_id": "12345"}):
        with pytest.raises((InvalidValueError, NotFoundError)):
            gittrack.start_run(**bad)
    assert gittrack.active_run() is None
    assert gittrack.search_runs(output_format="list", search_all_experiments=True) == []


def test_deleting_and_restoring(project: Path) -> None:
    with gittrack.start_run() as run:
        pass
    run_id = run.info.run_id
    gittrack.delete_run(run_id)
    assert gittrack.get_run(run_id).info.lifecycle_stage == "deleted"
    assert gittrack.search_runs(output_format="list") == []
    with pytest.raises(StateError, match="deleted"):
        gittrack.log_metric("m", 1, run_id=run_id)
    with pytest.raises(StateError, match="deleted"):
        gittrack.log_params({"p": 1}, run_id=run_id)
    with pytest.raises(StateError, match="deleted"):
        gittrack.log_text("t", "t.txt", run_id=run_id)
    gittrack.restore_run(run_id)
    assert [r.info.run_id for r in gittrack.search_runs(output_format="list")] == [run_id]


# -- threads and processes -------------------------------------------------------------------------------------------


def test_a_run_is_active_in_its_own_thread_only(project: Path) -> None:
    seen: list[object] = []

    def work(run_id: str) -> None:
        seen.append(gittrack.active_run())
        for step in range(50):
            gittrack.log_metric("m", step, step=step, run_id=run_id)
        with gittrack.start_run(run_name="of the thread") as own:
            gittrack.log_param("mine", own.info.run_id)
        seen.append(gittrack.active_run())

    with gittrack.start_run() as run:
        threads = [threading.Thread(target=work, args=(run.info.run_id,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert gittrack.active_run() is run
    assert seen == [None] * 8
    runs = gittrack.search_runs(output_format="list")
    assert len(runs) == 5
    assert all(one.data.params == {"mine": one.info.run_id} for one in runs if one.info.run_name == "of the thread")
    # MLflow stores a point once; each of the four threads wrote steps 0 to 49, at times that may differ.
    history = gittrack.Client().get_metric_history(run.info.run_id, "m")
    assert {point.step for point in history} == set(range(50))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_writes_into_the_run_and_leaves_the_end_to_its_parent(python: Python) -> None:
    done = python(
        """
import os, json, gittrack
with gittrack.start_run() as run:
    gittrack.log_metric("m", 1, step=0)
    pid = os.fork()
    if pid == 0:
        assert gittrack.active_run().info.run_id == run.info.run_id
        gittrack.log_metric("m", 2, step=1)
        with gittrack.start_run(run_name="own") as own:       # allowed: the child has not started any
            gittrack.log_param("p", 1)
        with gittrack.start_run(run_name="nested", nested=True) as nested:
            pass
        gittrack.end_run()
        gittrack.end_run()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert gittrack.get_run(run.info.run_id).info.status == "RUNNING"
runs = {r.info.run_name: r for r in gittrack.search_runs(output_format="list")}
mine = gittrack.get_run(run.info.run_id)
points = [p.value for p in gittrack.Client().get_metric_history(mine.info.run_id, "m")]
states = [runs[name].info.status for name in ("own", "nested")]
parents = [runs[name].data.tags.get("mlflow.parentRunId") == mine.info.run_id for name in ("own", "nested")]
print(json.dumps([mine.info.status, points, states, parents, runs["own"].data.params]))
"""
    )
    assert json.loads(done.stdout) == ["FINISHED", [1.0, 2.0], ["FINISHED"] * 2, [False, True], {"p": "1"}]


def test_another_process_writes_into_the_run_by_its_id(project: Path, python: Python) -> None:
    with gittrack.start_run() as run:
        gittrack.log_metric("m", 1, step=0)
        python(
            f"""
import gittrack
gittrack.log_metric("m", 2, step=1, run_id="{run.info.run_id}")
with gittrack.start_run(run_id="{run.info.run_id}"):
    gittrack.log_metric("m", 3, step=2)
"""
        )
        assert status(run) == "RUNNING"  # the other process joined it, it does not end it
        gittrack.log_metric("m", 4, step=3)
    assert status(run) == "FINISHED"
    assert [p.value for p in gittrack.Client().get_metric_history(run.info.run_id, "m")] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("ending", "expected"),
    [("pass", "FINISHED"), ("raise ValueError", "FAILED"), ("raise KeyboardInterrupt", "KILLED")],
)
def test_the_end_of_the_program_ends_an_open_run(project: Path, python: Python, ending: str, expected: str) -> None:
    done = python(f"import gittrack\ngittrack.log_metric('m', 1)\n{ending}", check=False)
    assert (done.returncode == 0) == (expected == "FINISHED")
    (run,) = gittrack.search_runs(output_format="list")
    assert run.info.status == expected
    assert run.data.metrics == {"m": 1.0}


# -- environment -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GITTRACK_RUN_ID", "MLFLOW_RUN_ID"])
def test_the_environment_names_the_first_run(project: Path, python: Python, name: str) -> None:
    run = gittrack.Client().create_run("0")
    gittrack.Client().set_terminated(run.info.run_id)
    done = python(
        "import gittrack, os\n"
        "with gittrack.start_run() as a: pass\n"
        "with gittrack.start_run() as b: pass\n"
        "print(a.info.run_id, b.info.run_id, os.environ.get('GITTRACK_RUN_ID'), os.environ.get('MLFLOW_RUN_ID'))",
        **{name: run.info.run_id},
    )
    first, second, *rest = done.stdout.split()
    assert first == run.info.run_id != second
    assert rest == ["None", "None"]


def test_a_run_named_by_the_environment_is_not_left_for_an_experiment(project: Path, python: Python) -> None:
    run = gittrack.Client().create_run("0")
    done = python(
        "import gittrack\ngittrack.set_experiment('other')\n"
        "with gittrack.start_run() as run: print(run.info.run_id, run.info.experiment_id)",
        GITTRACK_RUN_ID=run.info.run_id,
    )
    assert done.stdout.split() == [run.info.run_id, "0"]
    assert "stays where it is" in done.stderr


@pytest.mark.parametrize("prefix", ["GITTRACK", "MLFLOW"])
def test_the_environment_names_the_experiment(project: Path, python: Python, prefix: str) -> None:
    text = "import gittrack\nwith gittrack.start_run() as run: print(run.info.experiment_id)"
    by_name = python(text, **{f"{prefix}_EXPERIMENT_NAME": "from outside"}).stdout.strip()
    experiment = gittrack.get_experiment_by_name("from outside")
    assert experiment is not None
    assert by_name == experiment.experiment_id
    assert python(text, **{f"{prefix}_EXPERIMENT_ID": by_name}).stdout.strip() == by_name
    both = python(text, check=False, **{f"{prefix}_EXPERIMENT_NAME": "from outside", f"{prefix}_EXPERIMENT_ID": "0"})
    assert both.returncode != 0
    assert "InvalidValueError" in both.stderr


def test_a_child_process_goes_on_in_the_chosen_experiment(project: Path, python: Python) -> None:
    chosen = gittrack.set_experiment("chosen")
    done = python("import gittrack\nwith gittrack.start_run() as run: print(run.info.experiment_id)")
    assert done.stdout.strip() == chosen.experiment_id


def test_a_folder_that_is_no_repository_gets_a_store_of_its_own(tmp_path: Path, python: Python) -> None:
    folder = tmp_path / "plain"
    folder.mkdir()
    done = python(
        f"import os, gittrack\nos.chdir({str(folder)!r})\n"
        "with gittrack.start_run(): gittrack.log_metric('m', 1)\n"
        "print(gittrack.search_runs(output_format='list')[0].data.metrics, gittrack.get_tracking_uri())"
    )
    assert done.stdout.split("\n")[0] == f"{{'m': 1.0}} {folder.as_uri()}"
    assert (folder / ".gittrack").is_dir()
