"""ActiveRun: the handle through which everything is written to one run.

``log_*`` appends one frame to this process's journal and returns: no SQL, no git, no network, no lock shared with other
processes (design section 5).  A handle opens its journal when it first writes, and opens another one after a fork, or
after the journal was closed for sealing; so it never goes stale.  Trouble with the disk never reaches the training:
it is said once, what could not be written is kept in memory (up to a bound) and tried again.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from gittrack.errors import GittrackError, InvalidValueError, NotFoundError, StateError
from gittrack.store import codec, files, journal, layout, record
from gittrack.store.journal import Overtaken
from gittrack.track import limits
from gittrack.track.secrets import redact_value
from gittrack.types import TERMINAL, DatasetInput, Digest, LifecycleStage, Metric, ModelOutput, Run, RunData, RunInfo

if TYPE_CHECKING:
    from gittrack.store.record import RunState
    from gittrack.store.shared import Mark
    from gittrack.track.runs import Tracker

#: Bytes of frames kept in memory while the disk refuses them; beyond it they are counted and lost.
BACKLOG: Final = 64 * 1024 * 1024
#: Points in one frame: 24 bytes each, far below a frame's limit.
FRAME_POINTS: Final = 250_000
#: Seconds that what a handle knows of a run may be old, where other servers write into it too.
LOOK: Final = 1.0
#: Seconds after which a server forgets what it knows of a run that nobody writes into.
FORGET: Final = 60.0
#: Seconds between attempts to write the backlog.
RETRY: Final = 1.0

_log = logging.getLogger("gittrack")
_Point = tuple[str, float, int, int]  # key, value, timestamp, step
_METRIC = record.METRIC
_pack = codec.packer()
_STEP = range(limits.INT64_MIN, limits.INT64_MAX + 1)
_TIME = range(limits.INT64_MAX + 1)


_Operation = TypeVar("_Operation", bound=Callable[..., None])


def _current(operation: _Operation) -> _Operation:
    """What follows from what the handle knows of the run: if others wrote meanwhile, it learns that, and it is redone.

    Only servers that share a database can be overtaken.
    """

    @wraps(operation)
    def made(self: ActiveRun, *args: Any, **more: Any) -> None:
        if self._frames is None:
            operation(self, *args, **more)
            return
        with self._lock:
            outermost = not self._careful
            self._careful = True
            try:
                while True:
                    try:
                        operation(self, *args, **more)
                    except Overtaken:
                        if not outermost:
                            raise
                        self._catch_up()
                    else:
                        return
            finally:
                if outermost:
                    self._careful = False

    return cast("_Operation", made)


class ActiveRun:
    """A run that can be written to.  Made by ``Tracker``; threads may share it.

    Attributes:
        run_id: 32 hex digits.
        experiment_id: The experiment it belongs to.
        start_time: Milliseconds since the epoch.
        models: The logged models that the run made, by step, as this process knows it.
        owner: True if this process made or resumed the run and so says how it ends; False for a process that joined a
            run which another one has open.
    """

    def __init__(self, tracker: Tracker, state: RunState, *, owner: bool, mark: Mark | None = None) -> None:
        self.run_id = state.run_id
        self.experiment_id = state.experiment_id
        self.user_id = state.user_id
        self.start_time = state.start_time
        self.owner = owner
        self._tracker = tracker
        self._written = tracker.repo.written
        self._metrics = {key: summary.value for key, summary in state.current_summaries().items()}
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._counter = 0
        self._lifecycle: str = LifecycleStage.ACTIVE
        self._keys: set[str] = set()
        self.models: dict[int, list[str]] = {}
        self._read: set[str] = set()
        self._files: set[str] = set()
        self._learn(state)
        self._lock = threading.RLock()
        self._journal: journal.JournalWriter | None = None
        self._backlog: list[bytes] = []
        self._backlog_bytes = 0
        self._lost = 0
        self._retry_at = 0.0
        self._capturing = False
        self._close_wanted = False
        self.environment: dict[str, Any] = {}  #: what differs from this process's, if another program makes the run
        self.touched = time.monotonic()
        self._frames = tracker.repo.frames
        self._mark = mark  # how far this handle knows what is in the journal that it shares with other servers
        self._careful = False  # what is written now follows from what this handle knows
        self._looked = self.touched
        self._shares = False  # it has written into that journal lately
        files.tell_after_fork(self)

    def _learn(self, state: RunState) -> None:
        """Take over what a state says, be it the whole run or only what happened since this handle looked."""
        for key, value in state.params.items():
            self._params.setdefault(key, value)
        for name, field in state.fields.items():
            if name == "lifecycle":
                self._lifecycle = field.value or LifecycleStage.ACTIVE
            elif name == "name" or name.startswith("tags."):
                key = record.RUN_NAME_TAG if name == "name" else name.removeprefix("tags.")
                self._tags.pop(key, None)
                if field.value is not None:
                    self._tags[key] = field.value
        if state.created:
            self._tags.setdefault(record.RUN_NAME_TAG, "")
            if state.parent_run_id is not None:
                self._tags.setdefault(record.PARENT_TAG, state.parent_run_id)
        self._counter = max(self._counter, state.next_counter)
        self._status, self._end_time = state.status, state.end_time
        for output in state.outputs:
            known = self.models.setdefault(output.get("step", 0), [])
            if output["model_id"] not in known:
                known.append(output["model_id"])
        self._read |= {item["model_id"] for item in state.inputs if "model_id" in item}
        self._files |= {path for path, artifact in state.artifacts.items() if artifact is not None}
        self._files -= {path for path, artifact in state.artifacts.items() if artifact is None}
        self._folders = _folders_of(self._files)

    # -- metrics, params, tags ---------------------------------------------------------------------------------------

    def log_metric(self, key: str, value: float, step: int | None = None, timestamp: int | None = None) -> None:
        """Add one point.

        Args:
            key: The metric's name.
            value: Any number; NaN and infinities are kept.
            step: Signed 64-bit; 0 if not given.
            timestamp: Milliseconds since the epoch; now if not given.

        Raises:
            InvalidValueError: A name, value, step or time outside MLflow's limits.
        """
        # The hot path: one set look-up, one pack, one write.  A key is checked when it is first seen.
        if key not in self._keys:
            limits.check_key("metric", key)
            self._keys.add(key)
        if type(value) is not float:
            value = limits.check_metric_value(key, value)
        if step is None:
            step = 0
        elif type(step) is not int or step not in _STEP:
            step = limits.check_step(step)
        if timestamp is None:
            timestamp = int(time.time() * 1000)
        elif type(timestamp) is not int or timestamp not in _TIME:
            timestamp = limits.check_timestamp(timestamp)
        payload = _pack((_METRIC, key, value, timestamp, step))
        writer = self._journal
        if writer is None or self._backlog:
            self._write_slowly(payload)
            return
        try:
            writer.append(payload)
        except GittrackError:
            self._write(payload)
        else:
            self._written.add(self.run_id)

    def log_metrics(self, metrics: Iterable[Metric]) -> None:
        """Add many points in one frame; all of them or, if one is invalid, none.  Raises InvalidValueError."""
        self._write_points(*self._checked_points(metrics))

    def _checked_points(self, metrics: Iterable[Metric]) -> tuple[list[_Point], list[list[Any]]]:
        """The points as rows, and what they are linked to; the loop is kept tight for millions of them."""
        rows: list[_Point] = []
        links: list[list[Any]] = []
        keys = self._keys
        for metric in metrics:
            key, value, timestamp, step = metric.key, metric.value, metric.timestamp, metric.step
            if key not in keys:
                limits.check_key("metric", key)
                keys.add(key)
            if type(value) is not float:
                value = limits.check_metric_value(key, value)
            if type(step) is not int or step not in _STEP:
                step = limits.check_step(step)
            if type(timestamp) is not int or timestamp not in _TIME:
                timestamp = limits.check_timestamp(timestamp)
            row = (key, value, timestamp, step)
            if metric.model_id is None or rows[-1:] != [row]:  # the same point, measured of several models
                rows.append(row)
            if metric.model_id is not None or metric.dataset_name is not None:
                links.append([record.LINK, key, step, timestamp, limits.check_metric_link(metric)])
        return rows, links

    def _write_points(self, rows: list[_Point], links: list[list[Any]]) -> None:
        for start in range(0, len(rows), FRAME_POINTS):
            self._write(_points_frame(rows[start : start + FRAME_POINTS]))
        for link in links:
            self.write_event(link)

    @_current
    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write parameters, once each; the same value again is fine.

        Raises:
            InvalidValueError: A bad name or value, or a parameter that has another value already; nothing is written.
        """
        checked = dict(limits.check_param(key, value, truncate=self._tracker.truncate) for key, value in params.items())
        # What a run records is immutable and will be shared, so a secret must not get in.
        checked = {key: redact_value(key, value) for key, value in checked.items()}
        with self._lock:
            for key, value in checked.items():
                if self._params.get(key, value) != value:
                    raise InvalidValueError(
                        f"Changing param values is not allowed. Param with key='{key}' of run `{self.run_id}` "
                        f"is `{self._params[key]:.80}`, not `{value:.80}`",
                        hint="params are written once; use a metric or a tag for what changes",
                    )
            new = {key: value for key, value in checked.items() if key not in self._params}
            if new:
                self.write_event([record.PARAMS, new])
                self._params.update(new)

    def log_batch(self, metrics: Iterable[Metric], params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        """Metrics, params and tags together; if one is invalid, nothing is written.  Raises InvalidValueError."""
        rows, links = self._checked_points(metrics)
        for key, value in tags.items():
            limits.check_tag(key, value, truncate=self._tracker.truncate)
        self.log_params(params)  # may refuse a changed value, so it goes first
        self._write_points(rows, links)
        self.set_tags(tags)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; an old value is replaced.  Raises InvalidValueError."""
        checked = dict(limits.check_tag(key, value, truncate=self._tracker.truncate) for key, value in tags.items())
        self._edit({"name" if key == record.RUN_NAME_TAG else f"tags.{key}": value for key, value in checked.items()})

    @_current
    def delete_tag(self, key: str) -> None:
        """Remove a tag.  Raises NotFoundError if the run has no such tag, InvalidValueError if none can have it."""
        if limits.check_key("tag", key) not in self._tags:
            raise NotFoundError(f"run `{self.run_id}` has no tag `{key}`", hint="`gittrack show RUN` lists its tags")
        self._edit({f"tags.{key}": None})

    def has_tag(self, key: str) -> bool:
        """True if the run has that tag."""
        return key in self._tags

    def set_name(self, name: str) -> None:
        """Rename the run.  Raises InvalidValueError."""
        self._edit({"name": limits.check_run_name(name)})

    def set_lifecycle(self, stage: str) -> None:
        """Delete (restorably) or restore the run."""
        self._edit({"lifecycle": stage})
        self._lifecycle = stage

    @_current
    def _edit(self, changes: Mapping[str, str | None]) -> None:
        if not changes:
            return
        with self._lock:
            self.write_event([record.FIELDS, self._counter, self._tracker.repo.writer, dict(changes)])
            self._counter += 1
            for name, value in changes.items():
                key = record.RUN_NAME_TAG if name == "name" else name.removeprefix("tags.")
                if name.startswith(record.MODEL_FIELDS):
                    continue
                if value is None:
                    self._tags.pop(key, None)
                elif name == "name" or name.startswith("tags."):
                    self._tags[key] = value

    # -- artifacts, inputs -------------------------------------------------------------------------------------------

    def log_artifact(self, local_path: str | Path, artifact_path: str | None = None) -> None:
        """Keep a file, or a folder with all that is in it.

        Args:
            local_path: The file or folder.
            artifact_path: Folder below the run's artifact root; the root if not given.

        Raises:
            InvalidValueError: Nothing there, or no regular file or folder; a bad artifact path.
        """
        self.log_files(files_of(local_path, artifact_path))

    def log_artifacts(self, local_dir: str | Path, artifact_path: str | None = None) -> None:
        """Keep every file below a folder, as paths relative to it.

        Symbolic links that stay inside the folder are followed.  Folders without files leave no trace.

        Raises:
            InvalidValueError: No such folder, something in it that is no regular file, or a link that leads out of the
                folder or in a circle.
        """
        self.log_files(files_in(local_dir, artifact_path))

    def log_bytes(self, data: bytes, path: str) -> None:
        """Keep ``data`` as the artifact ``path``.  Raises InvalidValueError for a bad path."""
        path = limits.check_artifact_path(path)
        self._check_free([path])
        try:
            digest, size = self._tracker.repo.objects.put_bytes(data)
        except GittrackError as error:
            self._trouble(error, f"artifact `{path}` was not kept")
            return
        self._place([[path, digest, size]])

    def log_files(self, found: Mapping[str, Path]) -> None:
        """Keep files under the artifact paths that they are given by; links are refused.

        Raises:
            InvalidValueError: A bad artifact path, or something that is no regular file; nothing is kept.
        """
        paths = {limits.check_artifact_path(name): path for name, path in found.items()}
        self._check_free(paths)
        try:
            stored = self._tracker.repo.objects.put_many(list(paths.values()))
        except (InvalidValueError, LookupError):
            raise
        except GittrackError as error:
            self._trouble(error, f"{len(paths)} artifact file(s) were not kept")
            return
        rows = [[name, digest, size] for name, (digest, size) in zip(paths, stored, strict=True)]
        self._place(rows)

    def log_stored(self, path: str, digest: Digest, size: int) -> None:
        """Keep an object of this store as the artifact ``path``.  Raises InvalidValueError for a bad path."""
        path = limits.check_artifact_path(path)
        self._check_free([path])
        self._place([[path, digest, size]])

    def _check_free(self, paths: Iterable[str]) -> None:
        """Refuse a file where a folder is, and the other way round, as a disk does.  Raises InvalidValueError."""
        names = set(paths)
        folders = _folders_of(names)
        with self._lock:
            both = (names & folders) | (names & self._folders) | (folders & self._files)
        if both:
            raise InvalidValueError(
                f"artifact `{min(both)}` of run `{self.run_id}` cannot be a file and a folder", hint="use another name"
            )

    @_current
    def _place(self, rows: list[list[Any]]) -> None:
        """Record changes of artifacts, in this order."""
        with self._lock:
            if self._frames is not None:  # others may have been quicker since the caller looked
                self._check_free([path for path, digest, _ in rows if digest is not None])
            for start in range(0, len(rows), 10_000):
                self.write_event([record.ARTIFACTS, rows[start : start + 10_000]])
            here = {path for path, digest, _ in rows if digest is not None}
            gone = {path for path, digest, _ in rows if digest is None} & self._files
            self._files |= here
            self._folders |= _folders_of(here)
            if gone:
                self._files -= gone
                self._folders = _folders_of(self._files)

    def know_files(self, paths: Iterable[str]) -> None:
        """Learn which files the run has, besides those that are recorded since its last commit."""
        with self._lock:
            self._files.update(paths)
            self._folders = _folders_of(self._files)

    def move_artifacts(self, folder: str, target: str) -> None:
        """Give every artifact below ``folder`` a path below ``target`` instead; their bytes stay where they are.

        Raises:
            InvalidValueError: A bad path, or one that is a file where a folder is due.
        """
        found = self._tracker.repo.artifacts(self.run_id, limits.check_artifact_path(folder))
        target = limits.check_artifact_path(target)
        moved = {path: target + path[len(folder) :] for path in found}
        self._check_free(moved.values())
        rows: list[list[Any]] = []
        for path, artifact in found.items():
            rows += [[moved[path], artifact.digest, artifact.size], [path, None, 0]]
        self._place(rows)

    def remove_artifacts(self, paths: Iterable[str]) -> None:
        """Drop artifacts from the run; their bytes go at the next ``gc``.  Raises InvalidValueError."""
        self._place([[path, None, 0] for path in paths])

    @_current
    def log_inputs(self, inputs: Iterable[DatasetInput], model_ids: Iterable[str] = ()) -> None:
        """Record datasets and logged models that the run read; all or none.  Raises InvalidValueError."""
        events: list[dict[str, Any]] = []
        for item in map(limits.check_dataset_input, inputs):
            dataset = {name: getattr(item.dataset, name) for name in type(item.dataset).__slots__}
            events.append({"dataset": dataset, "tags": {tag.key: tag.value for tag in item.tags}})
        read = dict.fromkeys(limits.check_model_id(model_id) for model_id in model_ids)
        events += [{"model_id": model_id} for model_id in read if model_id not in self._read]
        for event in events:
            self.write_event([record.INPUT, event])
        self._read.update(read)

    @_current
    def log_outputs(self, outputs: Iterable[ModelOutput]) -> None:
        """Record logged models that the run made; all or none.  Raises InvalidValueError."""
        events: list[dict[str, Any]] = []
        for item in outputs:
            path = {} if item.path is None else {"path": limits.check_artifact_path(item.path)}
            model_id, step = limits.check_model_id(item.model_id), limits.check_step(item.step)
            events.append({"model_id": model_id, "step": step, **path})
        with self._lock:
            for event in events:
                self.write_event([record.OUTPUT, event])
                known = self.models.setdefault(event["step"], [])
                if event["model_id"] not in known:
                    known.append(event["model_id"])

    def models_at(self, step: int | None) -> list[str]:
        """The logged models that the run made at a step, as this process knows it.  Raises InvalidValueError."""
        return self.models.get(0 if step is None else limits.check_step(step), [])

    def set_artifact_uri(self, address: str) -> None:
        """Say that clients find the run's files at this address, and not at the usual one."""
        self._edit({"artifact_uri": address})

    # -- logged models -----------------------------------------------------------------------------------------------

    def keep_model(self, facts: Mapping[str, Any], edits: Mapping[str, str | None]) -> None:
        """Make a logged model that this run keeps.

        Args:
            facts: What never changes: ``model_id``, and what else ``record.MODEL`` has.
            edits: What can be edited, as for ``edit_model``.

        Raises:
            InvalidValueError: It cannot be recorded.
        """
        event = record.check_event([record.MODEL, dict(facts)])
        self.edit_model(facts["model_id"], edits)  # first: a model is never there without its status
        self.write_event(event)

    def edit_model(self, model_id: str, changes: Mapping[str, str | None]) -> None:
        """Change what can be edited of a logged model that this run keeps.

        Args:
            model_id: The model.
            changes: ``status``, ``status_message``, ``lifecycle``, ``updated``, ``artifact_uri``, ``tags.<key>``; None
                removes.
        """
        self._edit({f"{record.MODEL_FIELDS}{model_id}.{name}": value for name, value in changes.items()})

    # -- life --------------------------------------------------------------------------------------------------------

    def to_run(self) -> Run:
        """The run as this process knows it, without reading anything: metrics only up to when it was opened."""
        info = RunInfo(
            run_id=self.run_id,
            experiment_id=self.experiment_id,
            user_id=self.user_id,
            status=self._status,
            start_time=self.start_time,
            end_time=self._end_time,
            lifecycle_stage=self._lifecycle,
            artifact_uri=self._tracker.repo.artifact_uri(self.run_id),
            run_name=self._tags.get(record.RUN_NAME_TAG, ""),
        )
        return Run(info, RunData(dict(self._metrics), dict(self._params), dict(self._tags)))

    @property
    def status(self) -> str:
        """The status as this process knows it."""
        return self._status

    @property
    def lifecycle_stage(self) -> str:
        """``active`` or ``deleted``, as this process knows it."""
        return self._lifecycle

    @_current
    def set_status(self, status: str, end_time: int | None = None) -> None:
        """Say how the run is doing; a terminal status is on disk when this returns, and committed shortly after."""
        ended = status in TERMINAL
        if ended and end_time is None:
            end_time = int(time.time() * 1000)
        with self._lock:
            self.write_event([record.STATUS, status, end_time if ended else None])
            self._status, self._end_time = status, end_time if ended else None
        if ended:
            if self._capturing:  # the journal is closed when the code is known; the end must be on disk now
                self.sync()
            self._tracker.ended(self)

    def take_end(self, status: str, end_time: int | None) -> None:
        """The run is over, as another process has recorded."""
        with self._lock:
            self._status, self._end_time = status, end_time
        self.release()

    def end(self, status: str = "FINISHED", end_time: int | None = None) -> None:
        """This process is done with the run; ``end_time`` in milliseconds, now if None.

        A process that only joined the run does not end it for the others: its FINISHED is not recorded.
        """
        if self.owner or status != "FINISHED":
            self.set_status(status, end_time)
        else:
            self.release()

    def write_event(self, event: list[Any]) -> None:
        """Append an event.  Raises InvalidValueError, before anything is written, for one that could not be read."""
        self._write(codec.pack(record.check_event(event)))

    def begin_capture(self) -> None:
        """The journal stays open until ``finish_capture``: what is being captured belongs into it."""
        with self._lock:
            self._capturing = True

    def finish_capture(self) -> None:
        """What was captured is written; a close that had to wait for it happens now."""
        with self._lock:
            self._capturing = False
            if self._close_wanted:
                self.release()

    @property
    def capturing(self) -> bool:
        """True while code and environment are being captured."""
        return self._capturing

    def release(self) -> None:
        """Close the journal, so that it can be sealed once the run is over.  The next write opens another one."""
        with self._lock:
            if self._capturing:
                self._close_wanted = True
                return
            self._close_wanted = False
            self._flush_backlog()
            if self._backlog:  # a journal that is closed says that there is nothing more to come
                return
            writer, self._journal = self._journal, None
            self._shares = False
            self._tracker.closed(self)
            if writer is None:
                return
            try:
                writer.finish(codec.pack([record.CLOSE]))
            except GittrackError as error:
                self._trouble(error, "the run stays in its journal; `gittrack fsck` commits it later")

    def sync(self) -> None:
        """Put what was written on disk.  Trouble is reported, not raised."""
        if self._frames is not None:
            if self.idle > FORGET:
                self.release()
            return
        with self._lock:
            self._flush_backlog()
            if self._journal is not None:
                try:
                    self._journal.sync()
                except GittrackError as error:
                    self._trouble(error, "the last records may not survive a power cut")

    @property
    def idle(self) -> float:
        """Seconds since the last write."""
        return time.monotonic() - self.touched

    @property
    def written(self) -> float:
        """When something was written last, in seconds since the epoch; 0 if no journal is open."""
        writer = self._journal
        return 0.0 if writer is None else writer.written

    @property
    def open(self) -> bool:
        """True while this process has a journal open for the run."""
        return self._journal is not None or self._shares

    @property
    def terminated(self) -> bool:
        """True once the run has ended."""
        return self._status in TERMINAL

    def after_fork_in_child(self) -> None:
        """In a forked child: the journal and the run's end are the parent's; write into a journal of our own."""
        self._journal = None
        self._tracker.closed(self)
        self._lock = threading.RLock()
        self._capturing = self._close_wanted = False
        self._backlog, self._backlog_bytes = [], 0
        self.owner = False

    # -- writing -----------------------------------------------------------------------------------------------------

    def look_again(self) -> None:
        """Learn what other servers wrote, if this handle has not looked for a second.  Raises NetworkError."""
        now = time.monotonic()
        if self._frames is not None and now - self._looked > LOOK:
            with self._lock:
                self._looked = now
                if self._frames.mark(self.run_id) != self._mark:
                    self._catch_up()

    def _catch_up(self) -> None:
        """Learn what other servers wrote since this handle looked.  Raises NetworkError."""
        assert self._frames is not None  # noqa: S101 — nobody else overtakes
        mark, payloads = self._frames.since(self.run_id, self._mark)
        if payloads is None:
            self._learn(self._tracker.repo.state(self.run_id))
        else:
            news = record.RunState(self.run_id)
            news.status, news.end_time = self._status, self._end_time
            self._learn(record.RunState.fold(self.run_id, map(codec.unpack, payloads), news))
        self._mark = mark

    def _share(self, payload: bytes) -> None:
        """Commit a frame to the journal that all servers write into.  Raises NetworkError, Overtaken."""
        assert self._frames is not None  # noqa: S101 — as the caller found
        if self._careful:
            self._mark = self._frames.append_after(self.run_id, self._mark, payload, over=self.terminated)
        else:
            known, now = self._mark, self._frames.append(self.run_id, payload, over=self.terminated)
            if now == ((now.name, 1) if known is None else (known.name, known.size + 1)):
                self._mark = now  # else others wrote too; what follows from that is learnt when it is needed
        if not self._shares:
            self._shares = True
            self._tracker.opened(self)

    def _write(self, payload: bytes) -> None:
        writer = self._journal
        if writer is not None and not self._backlog:
            try:
                writer.append(payload)
            except StateError:
                pass  # released by the keeper at this moment; the slow way opens another one
            except GittrackError as error:
                self._keep(payload, error)
                return
            else:
                self._written.add(self.run_id)
                return
        self._write_slowly(payload)

    def _write_slowly(self, payload: bytes) -> None:
        """Open the journal first, or write what an earlier failure left in memory first."""
        with self._lock:
            self.touched = time.monotonic()
            if self._frames is not None:
                self._share(payload)
                return
            if self._backlog:
                self._keep(payload, None)
                if self.touched >= self._retry_at:
                    self._flush_backlog()
                return
            try:
                if self._journal is None:
                    self._journal = self._open()
                self._journal.append(payload)
                self._written.add(self.run_id)
            except GittrackError as error:
                self._keep(payload, error)

    def _open(self) -> journal.JournalWriter:
        folder = self._tracker.repo.live / self.run_id
        identity = files.process_identity()
        opening: dict[str, Any] = {
            "version": record.VERSION,
            "run_id": self.run_id,
            "process": identity.to_list(),
            "opened": time.time_ns(),
        }
        if self._tracker.serving:
            opening["serving"] = True
        path = folder / f"{identity.host}-{identity.pid}-{secrets.token_hex(4)}{journal.SUFFIX}"
        for attempt in range(10):
            try:
                files.make_dirs(folder, durable=False)  # the first sync of the journal puts the folder on disk too
                writer = journal.JournalWriter(path, codec.pack([record.OPEN, opening]))
            except GittrackError as error:
                # Whoever sealed the run's earlier journals removed the folder at this moment.
                if attempt == 9 or not isinstance(error.__cause__, (FileNotFoundError, NotADirectoryError)):
                    raise
            else:
                break
        self._tracker.opened(self, path)
        return writer

    def _keep(self, payload: bytes, error: GittrackError | None) -> None:
        if error is not None and self._tracker.serving:  # a client is told, and may try again: nothing is promised
            raise error
        with self._lock:
            if self._backlog_bytes + len(payload) <= BACKLOG:
                self._backlog.append(payload)
                self._backlog_bytes += len(payload)
            else:
                self._lost += 1
            self._retry_at = time.monotonic() + RETRY
            if error is not None:
                self._trouble(error, "records are kept in memory and tried again")

    def _flush_backlog(self) -> None:
        while self._backlog:
            try:
                if self._journal is None:
                    self._journal = self._open()
                self._journal.append(self._backlog[0])
                self._written.add(self.run_id)
            except GittrackError as error:
                self._retry_at = time.monotonic() + RETRY
                self._trouble(error, f"{len(self._backlog)} record(s) are kept in memory")
                return
            self._backlog_bytes -= len(self._backlog.pop(0))
        if self._lost:
            _log.warning("gittrack: run %s: %d record(s) were lost while the disk was full", self.run_id, self._lost)
            self._lost = 0

    def _trouble(self, error: GittrackError, consequence: str) -> None:
        self._tracker.trouble(error, f"run {self.run_id}: {consequence}")


def _folders_of(paths: Iterable[str]) -> set[str]:
    return {folder for path in paths for folder in layout.folders_of(path)}


def _points_frame(rows: list[_Point]) -> bytes:
    """The frame for many points: rows if they are few, columns (which fold at memory speed) if they are many."""
    if len(rows) <= 64:
        return codec.pack([record.METRICS, rows])
    columns: dict[str, record.Columns] = {}
    for key, value, timestamp, step in rows:
        found = columns.get(key)
        if found is None:
            found = columns[key] = (array("q"), array("q"), array("d"))
        found[0].append(step)
        found[1].append(timestamp)
        found[2].append(value)
    return codec.pack([record.COLUMNS, codec.pack_points(columns)])


def files_of(local_path: str | Path, artifact_path: str | None = None) -> dict[str, Path]:
    """What ``log_artifact`` keeps of a file, or of a folder: artifact path -> file.  Raises InvalidValueError."""
    path = Path(local_path)
    place = _joined(artifact_path, path.name)
    return files_in(path, place) if path.is_dir() else {place: path}


def files_in(local_dir: str | Path, artifact_path: str | None = None) -> dict[str, Path]:
    """What ``log_artifacts`` keeps of a folder: artifact path -> file.  Raises InvalidValueError."""
    top = Path(local_dir)
    if not top.is_dir():
        raise InvalidValueError(f"`{top}` is no folder", hint="use log_artifact for a single file")
    real = top.resolve()
    return {_joined(artifact_path, name): path for name, path in _files_below(real, "", (real,))}


def _files_below(folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """Name and real path of every file below a folder; ``above`` are the folders it is in, from the top to itself."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        real = folder / entry.name
        if entry.is_symlink():
            real = real.resolve()
            if above[0] not in real.parents or real in above:
                raise InvalidValueError(
                    f"`{entry.path}` is a symbolic link {'in a circle' if real in above else f'out of `{above[0]}`'}",
                    hint="log the file it points at",
                )
        if entry.is_dir():
            yield from _files_below(real, f"{prefix}{entry.name}/", (*above, real))
        else:
            yield prefix + entry.name, real


def _joined(folder: str | Path | None, name: str) -> str:
    folder = folder.as_posix() if isinstance(folder, Path) else folder
    return f"{folder.rstrip('/')}/{name}" if folder else name
