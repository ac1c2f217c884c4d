"""What is run while things go wrong, and what looks afterwards; each function runs in a forked process of its own.

A program that works on a store calls ``tracee.arm()`` where faults may start, and ``promise`` after each call that
returned.  A promise is a JSON list; ``harness.Project`` folds them into what must be found later.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import gittrack
from gittrack import stores
from gittrack.errors import GittrackError, NotFoundError
from gittrack.registry.check import fsck as check_registry
from gittrack.registry.registry import Registry
from gittrack.store.check import fsck, gc
from gittrack.store.repo import Repo
from gittrack.store.rewrite import purge as forget
from gittrack.track.runs import Tracker
from gittrack.types import ViewType
from tests.faults.power import cut_power
from tests.faults.tracer import Tracee

#: Bytes of the artifact that the programs log.
ARTIFACT = bytes(range(256)) * 1024


class _Warnings(logging.Handler):
    """Shows what gittrack warns of on stderr, and counts it."""

    count = 0
    seen = 0

    def emit(self, entry: logging.LogRecord) -> None:
        self.count += "left behind" not in entry.getMessage()  # that is healing, not trouble
        print(f"warning: {entry.getMessage()}", file=sys.stderr, flush=True)


_warnings = _Warnings(logging.WARNING)
logging.getLogger("gittrack").addHandler(_warnings)


def promise(tracee: Tracee, kind: str, *what: Any) -> None:
    """Acknowledge: ``kind`` is one of those that ``_find`` knows.  Says so if the call warned instead of raising."""
    warned = _warnings.count > _warnings.seen
    _warnings.seen = _warnings.count
    tracee.ack(json.dumps([*(["warned"] if warned else []), kind, *what]))


def intend(tracee: Tracee, kind: str, *what: Any) -> None:
    """Announce a change before it is made: until it is acknowledged, the old and the new value are both right."""
    tracee.ack(json.dumps(["maybe", kind, *what]))


# -- proving the tester ----------------------------------------------------------------------------------------------


def write_carelessly(tracee: Tracee, folder: str) -> None:
    """Replace a file in place and sync nothing."""
    tracee.arm()
    (Path(folder) / "data").write_bytes(b"new" * 1000)
    tracee.ack("written")


def write_carefully(tracee: Tracee, folder: str) -> None:
    """Replace a file the durable way."""
    from gittrack.store.files import write_atomic

    tracee.arm()
    write_atomic(Path(folder) / "data", b"new" * 1000)
    tracee.ack("written")


def write_with_help(tracee: Tracee, folder: str) -> None:
    """Three files: one from a thread, one from another program, one from here."""
    tracee.arm()
    helper = threading.Thread(target=(Path(folder) / "thread").write_bytes, args=(b"1",))
    helper.start()
    helper.join()
    subprocess.run(["dd", "if=/dev/zero", f"of={folder}/program", "bs=10", "count=1", "status=none"], check=False)
    (Path(folder) / "here").write_bytes(b"1")


# -- making a store --------------------------------------------------------------------------------------------------


def populate(tracee: Tracee, folder: str) -> None:
    """Three finished runs with everything in them, one of them deleted, in the git repository at ``folder``."""
    os.chdir(folder)
    gittrack.set_experiment("swept")
    for number in range(3):
        with gittrack.start_run(run_name=f"old-{number}") as run:
            run_id = run.info.run_id
            gittrack.log_params({"number": number, "text": "a b"})
            gittrack.log_metrics({"loss": number / 2, "nan": float("nan")}, step=number)
            gittrack.set_tag("colour", "red")
            gittrack.log_text(f"artifact of {number}", "notes/text.txt")
        promise(tracee, "param", run_id, "number", str(number))
        promise(tracee, "metric", run_id, "loss", number, number / 2)
        promise(tracee, "tag", run_id, "colour", "red")
        promise(tracee, "artifact", run_id, "notes/text.txt", _digest(f"artifact of {number}".encode()))
        promise(tracee, "status", run_id, "FINISHED")
        promise(tracee, "code", run_id)
    gittrack.delete_run(run_id)
    promise(tracee, "lifecycle", run_id, "deleted")
    settle()


def settle(run_id: str | None = None, seconds: float = 20.0) -> None:
    """Wait for what is done behind the back of the calls: every ended run is a commit, ``run_id`` has its code.

    Args:
        run_id: The run that is active, if one is.
        seconds: After that long, or a tenth of it after a warning, the checks are left to find what is missing.
    """
    live = Path(".gittrack/live")
    begun = time.monotonic()
    while time.monotonic() - begun < (seconds / 10 if _warnings.count else seconds):
        busy = {folder.name for folder in live.iterdir()} - {run_id}
        if not busy and (run_id is None or "tree" in gittrack.Client().get_run(run_id).code):
            return
        time.sleep(0.005)


# -- operations ------------------------------------------------------------------------------------------------------


def start(tracee: Tracee, folder: str) -> None:
    """Start a run (the code snapshot included) and log one parameter."""
    os.chdir(folder)
    gittrack.set_experiment("swept")
    tracee.arm()
    run_id = gittrack.start_run(run_name="swept").info.run_id
    promise(tracee, "run", run_id)
    gittrack.log_param("alpha", 0.5)
    promise(tracee, "param", run_id, "alpha", "0.5")


def log(tracee: Tracee, folder: str) -> None:
    """Params, metrics and tags into a run that has been started."""
    run_id = _begin(tracee, folder)
    tracee.arm()
    log_everything(tracee, run_id)


def log_everything(tracee: Tracee, run_id: str) -> None:
    """A few calls of every kind that only appends."""
    for step in range(3):
        gittrack.log_metric("loss", 1 / (step + 1), step=step)
        promise(tracee, "metric", run_id, "loss", step, 1 / (step + 1))
    gittrack.log_params({"alpha": "0.5", "beta": "x" * 100})
    promise(tracee, "param", run_id, "alpha", "0.5")
    promise(tracee, "param", run_id, "beta", "x" * 100)
    gittrack.set_tag("colour", "green")
    promise(tracee, "tag", run_id, "colour", "green")


def artifact(tracee: Tracee, folder: str, rest: float = 0.0) -> None:
    """One new file, the same bytes again under another name, and a small one deeper down."""
    run_id = _begin(tracee, folder)
    source = Path(folder).parent / "model.bin"
    source.write_bytes(ARTIFACT)
    time.sleep(rest)
    tracee.arm()
    gittrack.log_artifact(str(source))
    promise(tracee, "artifact", run_id, "model.bin", _digest(ARTIFACT))
    gittrack.log_artifact(str(source), "again")
    promise(tracee, "artifact", run_id, "again/model.bin", _digest(ARTIFACT))
    gittrack.log_dict({"a": 1}, "deep/er/a.json")
    promise(tracee, "artifact", run_id, "deep/er/a.json", _digest(b'{\n  "a": 1\n}'))


def end(tracee: Tracee, folder: str, rest: float = 0.0) -> None:
    """End a run that holds everything, ``rest`` seconds after the last log call, and wait until it is a commit."""
    run_id = _begin(tracee, folder)
    log_everything(tracee, run_id)
    gittrack.log_text("weights", "model/weights.txt")
    promise(tracee, "artifact", run_id, "model/weights.txt", _digest(b"weights"))
    time.sleep(rest)
    tracee.arm()
    gittrack.end_run()
    promise(tracee, "status", run_id, "FINISHED")
    promise(tracee, "code", run_id)
    settle()


def amend(tracee: Tracee, folder: str, runs: list[str]) -> None:
    """Edit, delete and restore runs that are commits already."""
    os.chdir(folder)
    client = gittrack.Client()
    tracee.arm()
    intend(tracee, "tag", runs[0], "colour", "blue")
    client.set_tag(runs[0], "colour", "blue")
    promise(tracee, "tag", runs[0], "colour", "blue")
    client.log_metric(runs[0], "late", 4.0, step=7)
    promise(tracee, "metric", runs[0], "late", 7, 4.0)
    client.delete_run(runs[1])
    promise(tracee, "lifecycle", runs[1], "deleted")
    intend(tracee, "lifecycle", runs[2], "active")
    client.restore_run(runs[2])
    promise(tracee, "lifecycle", runs[2], "active")
    settle()


def experiment(tracee: Tracee, folder: str) -> None:
    """Make and edit an experiment."""
    os.chdir(folder)
    client = gittrack.Client()
    tracee.arm()
    experiment_id = client.create_experiment("made", tags={"a": "1"})
    promise(tracee, "experiment", experiment_id, "made", {"a": "1"})
    intend(tracee, "experiment", experiment_id, "made", {"a": "1", "b": "2"})
    client.set_experiment_tag(experiment_id, "b", "2")
    promise(tracee, "experiment", experiment_id, "made", {"a": "1", "b": "2"})


def register(tracee: Tracee, folder: str, runs: list[str]) -> None:
    """Register two versions of a model, with a description and tags, and one of a run that goes on."""
    run_id = _begin(tracee, folder)
    gittrack.log_text("weights", "model/weights.txt")
    promise(tracee, "artifact", run_id, "model/weights.txt", _digest(b"weights"))
    client = gittrack.Client()
    client.create_registered_model("iris", {"a": "b"})
    tracee.arm()
    for number, source in enumerate((f"runs:/{runs[0]}/notes", f"runs:/{runs[1]}/notes", f"runs:/{run_id}/model"), 1):
        client.create_model_version("iris", source, tags={"n": number}, description=f"the {number}.")
        promise(tracee, "version", "iris", str(number), source, {"n": str(number)}, f"the {number}.")


def promote(tracee: Tracee, folder: str, runs: list[str]) -> None:
    """Promote one version after the other, and move an alias."""
    os.chdir(folder)
    client = gittrack.Client()
    for number, run_id in enumerate(runs[:2], 1):
        gittrack.register_model(f"runs:/{run_id}/notes", "iris")
        promise(tracee, "stage", "iris", str(number), "None")
    tracee.arm()
    intend(tracee, "stage", "iris", "1", "Production")
    client.transition_model_version_stage("iris", "1", "Production")
    promise(tracee, "stage", "iris", "1", "Production")
    intend(tracee, "stage", "iris", "1", "Archived")
    intend(tracee, "stage", "iris", "2", "Production")
    client.transition_model_version_stage("iris", "2", "Production", archive_existing_versions=True)
    promise(tracee, "stage", "iris", "1", "Archived")
    promise(tracee, "stage", "iris", "2", "Production")
    client.set_registered_model_alias("iris", "champion", "1")
    promise(tracee, "alias", "iris", "champion", "1")
    intend(tracee, "alias", "iris", "champion", "2")
    client.set_registered_model_alias("iris", "champion", "2")
    promise(tracee, "alias", "iris", "champion", "2")


def end_at_once(tracee: Tracee, folder: str) -> None:
    """Start, log and end a run without ever waiting."""
    os.chdir(folder)
    gittrack.set_experiment("swept")
    run_id = gittrack.start_run(run_name="swept").info.run_id
    log_everything(tracee, run_id)
    gittrack.log_text("weights", "model/weights.txt")
    gittrack.end_run()
    promise(tracee, "artifact", run_id, "model/weights.txt", _digest(b"weights"))
    promise(tracee, "status", run_id, "FINISHED")


def cut_after(tracee: Tracee, operation: str, wait: float, mount: str, folder: str, **arguments: Any) -> None:
    """Any of these operations, then ``wait`` seconds later the power goes."""
    globals()[operation](tracee, folder, **arguments)
    time.sleep(wait)
    cut_power(Path(mount))


def log_for(tracee: Tracee, seconds: float, mount: str, folder: str) -> None:
    """Log a metric every 10 ms for some time, then the power goes; says when each call returned."""
    run_id = _begin(None, folder)
    end = time.monotonic() + seconds
    step = 0
    while time.monotonic() < end:
        gittrack.log_metric("loss", step / 4, step=step)
        tracee.ack(json.dumps([["metric", run_id, "loss", step, step / 4], time.monotonic()]))
        step += 1
        time.sleep(0.01)
    tracee.ack(json.dumps(["cut", time.monotonic()]))
    cut_power(Path(mount))


def fill(tracee: Tracee, path: str, room: int) -> None:
    """Fill the disk of ``path`` until ``room`` bytes are left."""
    with Path(path).open("wb") as out:
        for size in (1 << 20, 1 << 12, 512):
            while True:
                free = os.statvfs(Path(path).parent)
                if free.f_bavail * free.f_frsize - room < size:
                    break
                try:
                    out.write(bytes(size))
                    out.flush()
                    os.fsync(out.fileno())
                except OSError:
                    break


def train(tracee: Tracee, folder: str, free: str) -> None:
    """A training script as people write them; at half of it the file ``free``, if given, is deleted."""
    os.chdir(folder)
    gittrack.set_experiment("swept")
    with gittrack.start_run(run_name="trained") as run:
        run_id = run.info.run_id
        promise(tracee, "run", run_id)
        gittrack.log_params({"alpha": "0.5"})
        promise(tracee, "param", run_id, "alpha", "0.5")
        for step in range(4000):
            gittrack.log_metric("a metric with a name of some length", step / 4, step=step)
            if step % 500 == 0:
                promise(tracee, "metric", run_id, "a metric with a name of some length", step, step / 4)
                gittrack.log_text("x" * 20_000 + str(step), f"texts/{step}.txt")
                promise(tracee, "artifact", run_id, f"texts/{step}.txt", _digest(b"x" * 20_000 + str(step).encode()))
            if step == 2000 and free:
                Path(free).unlink()
                time.sleep(1.5)
    promise(tracee, "status", run_id, "FINISHED")


def collect(tracee: Tracee, folder: str) -> None:
    """Collect artifacts that nothing refers to."""
    repo = Repo.find(Path(folder))
    for number in range(3):
        repo.objects.put_bytes(b"of no run %d" % number)
    tracee.arm()
    gc(repo, grace_s=0)


def purge(tracee: Tracee, folder: str, runs: list[str]) -> None:
    """Forget the deleted run for good; it may be there or not afterwards, until the call has returned."""
    tracee.arm()
    forget(Repo.find(Path(folder)), runs[2])
    tracee.ack(json.dumps(["purged", runs[2]]))


def _begin(tracee: Tracee | None, folder: str) -> str:
    os.chdir(folder)
    gittrack.set_experiment("swept")
    run_id = gittrack.start_run(run_name="swept").info.run_id
    if tracee is not None:
        promise(tracee, "run", run_id)
    settle(run_id)
    return str(run_id)


# -- looking ---------------------------------------------------------------------------------------------------------


def check(tracee: Tracee, folder: str, promises: list[list[list[Any]]], sealed: bool) -> None:
    """Acknowledge every promise that is not kept, in words.

    Args:
        tracee: Where to.
        folder: The project.
        promises: Each one as the alternatives of which one must hold.
        sealed: Every run that is over must be a commit by now.
    """
    os.chdir(folder)
    client = gittrack.Client()
    for alternatives in promises:
        if alternatives[0][0] == "code" and not sealed:
            continue
        broken = [_broken(client, *alternative) for alternative in alternatives]
        if all(broken):
            tracee.ack(f"{alternatives}: {broken}")


def _broken(client: Any, kind: str, subject: str, *what: Any) -> str | None:
    """What is wrong with one promise, or None."""
    try:
        found = _find(client, kind, subject, *what)
    except GittrackError as error:
        gone = kind == "purged" and isinstance(error, NotFoundError)
        return None if gone else f"{type(error).__name__}: {error}"
    return None if found == list(what) else f"found {found}"


def _find(client: Any, kind: str, subject: str, *what: Any) -> list[Any]:
    """What the store has in the place of a promise."""
    if kind == "purged":
        return [client.get_run(subject)]
    if kind == "experiment":
        experiment = client.get_experiment(subject)
        return [experiment.name, dict(experiment.tags)]
    if kind in ("version", "stage"):
        version = client.get_model_version(subject, what[0])
        said = [version.source, version.tags, version.description] if kind == "version" else [version.current_stage]
        return [version.version, *said]
    if kind == "alias":
        return [what[0], client.get_model_version_by_alias(subject, what[0]).version]
    run = client.get_run(subject)
    if kind == "code":
        return _missing_code(run)
    key = what[0] if what else ""
    if kind == "metric":
        points = [(m.step, m.value) for m in client.get_metric_history(subject, key)]
        return list(what) if (what[1], what[2]) in points and key in run.data.metrics else [key, points]
    if kind == "artifact":
        with tempfile.TemporaryDirectory() as target:
            return [key, _digest(Path(client.download_artifacts(subject, key, target)).read_bytes())]
    found: dict[str, list[Any]] = {
        "run": [],
        "status": [run.info.status],
        "lifecycle": [run.info.lifecycle_stage],
        "param": [key, run.data.params.get(key)],
        "tag": [key, run.data.tags.get(key)],
    }
    return found[kind]


def describe(tracee: Tracee, folder: str, name: str) -> None:
    """Acknowledge the runs of that name, as JSON."""
    os.chdir(folder)
    client = gittrack.Client()
    experiment_id = _swept(client)
    for run in client.search_runs([experiment_id], f"attributes.run_name = '{name}'"):
        run_id = run.info.run_id
        facts = {
            "status": run.info.status,
            "end_time": run.info.end_time,
            "metrics": {
                key: [[m.step, m.value] for m in client.get_metric_history(run_id, key)] for key in run.data.metrics
            },
            "artifacts": [found.path for found in client.list_artifacts(run_id)],
        }
        tracee.ack(json.dumps(facts))


def _swept(client: Any) -> str:
    """The id of the experiment that everything here is in."""
    return str(client.get_experiment_by_name("swept").experiment_id)


def _missing_code(run: Any) -> list[Any]:
    """What the commit of a run that is over lacks of the project as ``harness.Project.make`` left it."""
    expected = {
        name: hashlib.sha1(b"blob %d\0%s" % (len(text), text), usedforsecurity=False).hexdigest()
        for name, text in {"train.py": b"print('dirty')\n", "new.py": b"new\n", "staged.py": b"two\n"}.items()
    }
    shown = subprocess.run(["git", "ls-tree", str(run.commit), *expected], capture_output=True, text=True, check=False)
    found = {line.split("\t")[1]: line.split()[2] for line in shown.stdout.splitlines()}
    return [] if found == expected else [shown.stdout + shown.stderr]


def go_on(tracee: Tracee, folder: str) -> None:
    """The next command: a run from start to end, found again by a search; leaves nothing running."""
    os.chdir(folder)
    gittrack.set_experiment("swept")
    with gittrack.start_run(run_name="next") as run:
        gittrack.log_metric("loss", 0.25)
        gittrack.log_text("next", "next.txt")
    settle()
    promise(tracee, "metric", run.info.run_id, "loss", 0, 0.25)
    promise(tracee, "artifact", run.info.run_id, "next.txt", _digest(b"next"))
    promise(tracee, "status", run.info.run_id, "FINISHED")
    promise(tracee, "code", run.info.run_id)
    client = gittrack.Client()
    experiment_id = _swept(client)
    found = client.search_runs([experiment_id], "metrics.loss = 0.25 and attributes.run_name = 'next'")
    assert [r.info.run_id for r in found] == [run.info.run_id], found


def compare_index(tracee: Tracee, folder: str) -> None:
    """Acknowledge every run and experiment that the index tells differently after a rebuild."""
    repo = Repo.find(Path(folder))
    repo.refresh()
    before = dump(folder)
    repo.reindex()
    after = dump(folder)
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            tracee.ack(f"{key}: index says {before.get(key)}, a rebuild says {after.get(key)}")


def dump(folder: str) -> dict[str, str]:
    """Everything that searches can see: one line for each fact, by what it is a fact of."""
    os.chdir(folder)
    client = gittrack.Client()
    experiments = client.search_experiments(view_type=ViewType.ALL)
    found = client.search_runs([e.experiment_id for e in experiments], run_view_type=ViewType.ALL)
    rows = {}
    for kind, key, entity in [
        *(("experiment", "experiment_id", e) for e in experiments),
        *(("run", "run_id", r) for r in found),
        *(("model", "name", m) for m in client.search_registered_models()),
        *(("version", "tag", v) for v in client.search_model_versions()),
    ]:
        facts = _plain(entity)
        name = facts.get(key) or facts["info"][key]
        for field, value in facts.items():
            # As text, because NaN is not equal to itself; sorted, because the order of tags means nothing.
            rows[f"{kind} {name} {field}"] = json.dumps(value, sort_keys=True)
    return rows


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def tidy(tracee: Tracee, folder: str) -> None:
    """Collect what nothing refers to and what crashes left behind."""
    gc(Repo.find(Path(folder)), grace_s=0)


def edit(tracee: Tracee, folder: str, run_id: str) -> None:
    """Something that is sealed and captures no code."""
    os.chdir(folder)
    gittrack.Client().set_tag(run_id, "colour", "green")
    stores.tracker().close()


def problems(tracee: Tracee, folder: str) -> None:
    """Acknowledge what the store's own check finds."""
    repo = Repo.find(Path(folder))
    for problem in [*fsck(repo, full=True), *check_registry(Registry(Tracker(repo)), full=True)]:
        tracee.ack(str(problem))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
