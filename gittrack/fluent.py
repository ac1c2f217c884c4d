"""The functions of ``import gittrack``: they act on the active run of the calling thread.  MLflow's fluent API.

A run is active in the thread that started it, until ``end_run`` or the end of its ``with`` block; a nested run is
active instead of its parent meanwhile.  A logging call without an active run starts one.  Other threads write into a
run by its id (``run_id=``, or ``start_run(run_id=...)``); a forked child goes on writing into the run that was active
when it was forked, and leaves it to its parent to end it.

The environment is read through ``gittrack.config``: ``GITTRACK_RUN_ID`` (the first ``start_run`` resumes that run),
``GITTRACK_EXPERIMENT_NAME``, ``GITTRACK_EXPERIMENT_ID``, ``GITTRACK_TRACKING_URI``, ``GITTRACK_SYSTEM_METRICS`` and
MLflow's names of them.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from gittrack import config, session, stores
from gittrack.client import (
    NOTE_TAG,
    PARENT_RUN_TAG,
    RUN_NAME_TAG,
    USER_TAG,
    Client,
    RunOperations,
    all_pages,
    now_ms,
    perform,
    run_facts,
)
from gittrack.errors import AlreadyExistsError, InvalidValueError, StateError, UnsupportedError
from gittrack.media import require
from gittrack.store import files
from gittrack.track import limits
from gittrack.types import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LifecycleStage,
    Metric,
    ModelInput,
    Param,
    Run,
    RunStatus,
    RunTag,
    ViewType,
    check_run_id,
)

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

    import pandas as pd

    from gittrack.data import Dataset as AnyDataset
    from gittrack.track.active import ActiveRun as Writer
    from gittrack.track.runs import Tracker
    from gittrack.track.system import SystemSampler
    from gittrack.types import ModelOutput

#: Most runs that ``search_runs`` puts into a DataFrame, if the caller does not say.
SEARCH_MAX_RESULTS_PANDAS: Final = 100_000

_CONTEXT_TAG: Final = "mlflow.data.context"
_DEFAULT_EXPERIMENT_ID: Final = "0"

_log = logging.getLogger("gittrack")


class ActiveRun(Run):
    """A run as ``start_run`` found or made it, to be used in a ``with`` statement.

    What it tells is of that moment; ``get_run`` tells how the run is now.  Leaving the ``with`` block ends the run:
    FINISHED, FAILED after an exception, KILLED after ``KeyboardInterrupt``.
    """

    def __init__(self, run: Run, writer: Writer) -> None:
        super().__init__(run.info, run.data, run.inputs, run.outputs, run.code, run.environment, run.commit)
        object.__setattr__(self, "_writer", writer)

    def __enter__(self) -> ActiveRun:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Copied, or sent to another process, it is a plain record: how the run ends is said here.
        return Run, (self.info, self.data, self.inputs, self.outputs, self.code, self.environment, self.commit)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not any(run.info.run_id == self.info.run_id for run in _thread.stack):
            return  # ended in the block already, or this is a forked child
        while _thread.stack[-1].info.run_id != self.info.run_id:
            end_run(_outcome(error))  # a nested run that the block left open
        end_run(_outcome(error))


def _outcome(error: BaseException | None) -> str:
    """The status of a run whose block was left by ``error``."""
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


class _Thread(threading.local):
    """What one thread has open.

    Attributes:
        writer: Where log calls go: the writer of the newest run on the stack.
        stack: Runs that this thread started, the parent before the nested.
        inherited: Runs of the thread that forked this process: to be written to, not to be ended here.
        last: Id of the run that ended last.
    """

    def __init__(self) -> None:
        self.writer: Writer | None = None
        self.stack: list[ActiveRun] = []
        self.inherited: list[ActiveRun] = []
        self.last: str | None = None

    def after_fork_in_child(self) -> None:
        """In a forked child: the runs are the parent's."""
        self.inherited, self.stack = [*self.inherited, *self.stack], []

    def current(self) -> ActiveRun | None:
        """The newest run that is open here."""
        runs = self.stack or self.inherited
        return runs[-1] if runs else None

    def settle(self) -> None:
        """Let the log calls go where the stack says."""
        run = self.current()
        self.writer = None if run is None else _writer_of(run)


class _Process:
    """What all threads share."""

    def __init__(self) -> None:
        self.experiment_id: str | None = None  #: as set by set_experiment
        self.experiment_lock = threading.Lock()
        self.samplers: dict[str, SystemSampler] = {}
        self.system_metrics: bool | None = None
        self.system_metrics_interval: float | None = None
        self.system_metrics_batch = 1
        self.system_metrics_node: str | None = None

    def after_fork_in_child(self) -> None:
        """In a forked child: the threads that sampled are the parent's."""
        self.experiment_lock = threading.Lock()
        self.samplers = {}


_thread = _Thread()
_process = _Process()
files.tell_after_fork(_thread)
files.tell_after_fork(_process)


def _writer_of(run: ActiveRun) -> Writer:
    writer: Writer = run._writer  # type: ignore[attr-defined]  # set past the frozen dataclass, see ActiveRun
    return writer


def _active_id(run_id: str | None = None) -> str:
    """``run_id``, or the active run's; starts a run if there is none."""
    return run_id or (_thread.current() or start_run()).info.run_id


# -- runs ------------------------------------------------------------------------------------------------------------


def start_run(
    run_id: str | None = None,
    experiment_id: str | None = None,
    run_name: str | None = None,
    nested: bool = False,
    parent_run_id: str | None = None,
    tags: dict[str, Any] | None = None,
    description: str | None = None,
    log_system_metrics: bool | None = None,
) -> ActiveRun:
    """Start a run, or go on with one, and make it the active run of this thread.

    Args:
        run_id: Go on with this run: it is RUNNING again.  ``GITTRACK_RUN_ID`` says it for a program's first run.
        experiment_id: Experiment of a new run; if not given the one of ``set_experiment``, then
            ``GITTRACK_EXPERIMENT_NAME`` or ``GITTRACK_EXPERIMENT_ID``, then Default.
        run_name: The run's name; one is made up for a new run if not given.
        nested: Allow a run to be active already; it becomes the parent.
        parent_run_id: Parent of a new run; the active run, if there is one.
        tags: Tags to set; the values become text.
        description: Text of the tag ``mlflow.note.content``.
        log_system_metrics: Sample CPU, memory, disk, network and GPU while the run is active; if not given, as
            ``enable_system_metrics_logging`` or the setting ``system_metrics`` says.

    Returns:
        The run; leaving its ``with`` block ends it.

    Raises:
        StateError: A run is active and ``nested`` is not set; the run, its parent or its experiment is deleted.
        NotFoundError: No such run, parent or experiment.
        InvalidValueError: A name, tag or id is outside MLflow's limits.
    """
    if _thread.stack and not nested:
        raise StateError(
            f"run `{_thread.stack[-1].info.run_id}` is already active",
            hint="end it with end_run(), or pass nested=True to start a run inside it",
        )
    tags = _with_description(tags, description)
    tracker = stores.tracker()
    settings = config.current()
    resumed = run_id or settings.run_id
    if resumed:
        writer = _resume(tracker, check_run_id(resumed), run_name, tags, chosen=bool(run_id))
    else:
        writer = _create(tracker, experiment_id, run_name, parent_run_id or _parent(nested), tags, settings)
    if not run_id and settings.run_id:
        config.export(run_id=None)  # the next start_run makes a run of its own
    run = ActiveRun(writer.to_run(), writer)
    _thread.stack.append(run)
    _thread.writer = writer
    tracker.end_at_exit(writer)
    if log_system_metrics is None:
        log_system_metrics = settings.system_metrics if _process.system_metrics is None else _process.system_metrics
    if log_system_metrics:
        interval = _process.system_metrics_interval or settings.system_metrics_interval
        _sample(writer, interval, resumed=bool(resumed))
    return run


def _with_description(tags: dict[str, Any] | None, description: str | None) -> dict[str, Any]:
    tags = dict(tags or {})
    if description:
        if NOTE_TAG in tags:
            raise InvalidValueError(
                f"the description is given twice: as an argument and as the tag `{NOTE_TAG}`", hint="leave one out"
            )
        tags[NOTE_TAG] = description
    return tags


def _parent(nested: bool) -> str | None:
    """The run that a new run is nested in; for a forked child also one that its parent process has open."""
    active = _thread.current() if nested else None
    return None if active is None else active.info.run_id


def _resume(tracker: Tracker, run_id: str, run_name: str | None, tags: dict[str, Any], *, chosen: bool) -> Writer:
    """Go on with a run; ``chosen`` by the program itself, and not by its environment."""
    experiment_id = tracker.writer(run_id).experiment_id
    if _process.experiment_id not in (None, experiment_id):
        conflict = (
            f"run `{run_id}` is in experiment `{experiment_id}`, but set_experiment chose `{_process.experiment_id}`"
        )
        if chosen:
            raise StateError(conflict, hint="leave set_experiment out, or choose the run's experiment")
        _log.warning("%s; the run stays where it is", conflict)
    for key, value in tags.items():  # before the run is touched
        limits.check_tag(key, value)
    writer = tracker.resume(run_id)
    if run_name:
        writer.set_name(run_name)
    writer.set_tags(tags)
    return writer


def _create(
    tracker: Tracker,
    experiment_id: str | None,
    run_name: str | None,
    parent_run_id: str | None,
    tags: dict[str, Any],
    settings: config.Config,
) -> Writer:
    if parent_run_id:
        check_run_id(parent_run_id)
        if _thread.stack and parent_run_id != _thread.stack[-1].info.run_id:
            raise StateError(
                f"run `{_thread.stack[-1].info.run_id}` is active, so run `{parent_run_id}` cannot be the parent",
                hint="end the active run first",
            )
        tracker.active_writer(parent_run_id)  # raises for one that is deleted or unknown
    if experiment_id is None:
        experiment_id = _chosen_experiment(tracker, settings)
    tags = {**_context_tags(tracker, session.user(settings)), **tags}
    if parent_run_id:
        tags[PARENT_RUN_TAG] = parent_run_id
    return tracker.create_run(
        limits.check_experiment_id(experiment_id),
        name=run_name or tags.pop(RUN_NAME_TAG, None),
        tags=tags,
        user_id=str(tags[USER_TAG]),
        parent_run_id=parent_run_id or None,
    )


def _context_tags(tracker: Tracker, user: str) -> dict[str, str]:
    """The tags by which MLflow says where a run comes from."""
    tags = {USER_TAG: user, "mlflow.source.name": sys.argv[0] or "<console>", "mlflow.source.type": "LOCAL"}
    head = tracker.code_commit()
    if head is not None:
        tags["mlflow.source.git.commit"] = head
    return tags


def _sample(writer: Writer, interval: float, *, resumed: bool) -> None:
    from gittrack.track.system import SystemSampler

    known = stores.tracker().get_run(writer.run_id).data.summaries if resumed else {}
    sampler = SystemSampler(
        writer.log_metrics,
        interval,
        _process.system_metrics_batch,
        node_id=_process.system_metrics_node,
        first_step=1 + max((known[name].step for name in known if name.startswith("system/")), default=-1),
    )
    _process.samplers[writer.run_id] = sampler
    sampler.start()


def end_run(status: str = "FINISHED") -> None:
    """End the active run of this thread, if there is one; its parent is active again.

    Args:
        status: FINISHED, FAILED or KILLED.

    Raises:
        InvalidValueError: Another status.
    """
    status = status or "FINISHED"
    RunStatus.from_string(status)
    if not _thread.stack:
        if _thread.inherited:  # a forked child is done with its parent's run
            _writer_of(_thread.inherited.pop()).release()
            _thread.settle()
        return
    run = _thread.stack.pop()
    _thread.last = run.info.run_id
    _thread.settle()
    sampler = _process.samplers.pop(run.info.run_id, None)
    if sampler is not None:
        sampler.stop()
    _writer_of(run).end(status)


def active_run() -> ActiveRun | None:
    """The active run of this thread, as it was when it was started; None if there is none."""
    return _thread.current()


def last_active_run() -> Run | None:
    """The active run of this thread, else the run that ended last in it as it is now, else None."""
    active = _thread.current()
    if active is not None:
        return active
    return None if _thread.last is None else get_run(_thread.last)


def get_run(run_id: str) -> Run:
    """A run as it is now.  Raises NotFoundError."""
    return Client().get_run(run_id)


def get_parent_run(run_id: str) -> Run | None:
    """The run that ``run_id`` is nested in; None if it is in none.  Raises NotFoundError."""
    return Client().get_parent_run(run_id)


def delete_run(run_id: str) -> None:
    """Delete a run, if it is not deleted yet; ``restore_run`` brings it back.  Raises NotFoundError."""
    Client().delete_run(run_id)


def restore_run(run_id: str) -> None:
    """Bring a run back, if it is deleted.  Raises NotFoundError."""
    Client().restore_run(run_id)


@overload
def search_runs(
    experiment_ids: list[str] | None = None,
    filter_string: str = "",
    run_view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int = SEARCH_MAX_RESULTS_PANDAS,
    order_by: list[str] | None = None,
    output_format: Literal["pandas"] = "pandas",
    search_all_experiments: bool = False,
    experiment_names: list[str] | None = None,
) -> pd.DataFrame: ...


@overload
def search_runs(
    experiment_ids: list[str] | None = None,
    filter_string: str = "",
    run_view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int = SEARCH_MAX_RESULTS_PANDAS,
    order_by: list[str] | None = None,
    *,
    output_format: Literal["list"],
    search_all_experiments: bool = False,
    experiment_names: list[str] | None = None,
) -> list[Run]: ...


def search_runs(
    experiment_ids: list[str] | None = None,
    filter_string: str = "",
    run_view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int = SEARCH_MAX_RESULTS_PANDAS,
    order_by: list[str] | None = None,
    output_format: Literal["pandas", "list"] = "pandas",
    search_all_experiments: bool = False,
    experiment_names: list[str] | None = None,
) -> list[Run] | pd.DataFrame:
    """Every run that matches.

    Args:
        experiment_ids: Experiments to search; the chosen one (see ``start_run``) if neither ids nor names are given.
        filter_string: As in ``gittrack help search``; everything if empty.
        run_view_type: ``ViewType.ACTIVE_ONLY``, ``DELETED_ONLY`` or ``ALL``.
        max_results: Most runs to return.
        order_by: Such as ``["metrics.loss ASC"]``; then by start time, newest first, and run id.
        output_format: ``pandas`` for a DataFrame, ``list`` for a list of ``Run``.
        search_all_experiments: Search all active experiments, if neither ids nor names are given.
        experiment_names: Experiments by name, instead of by id; unknown names are passed over with a warning.

    Returns:
        With ``pandas`` a DataFrame of one row a run: ``run_id experiment_id status artifact_uri start_time end_time``
        (times as UTC timestamps), then ``metrics.*``, ``params.*`` and ``tags.*``, null where a run has none.

    Raises:
        QuerySyntaxError: The filter or the order cannot be read; says at which column.
        InvalidValueError: Both ids and names are given, or another argument is wrong.
        MissingDependencyError: pandas is not installed and a DataFrame is asked for.
    """
    if output_format not in ("pandas", "list"):
        raise InvalidValueError(f"unknown output format `{output_format}`", hint="use 'pandas' or 'list'")
    if experiment_ids and experiment_names:
        raise InvalidValueError("experiment ids and experiment names are both given", hint="give only one of them")
    client = Client()
    ids = experiment_ids
    if experiment_names:
        ids = _ids_of(client, experiment_names)
    elif not experiment_ids:
        if search_all_experiments:
            ids = [experiment.experiment_id for experiment in search_experiments()]
        else:
            ids = [chosen_experiment()]
    runs: list[Run] = all_pages(
        lambda size, token: client.search_runs(ids or [], filter_string, run_view_type, size, order_by, token),
        max_results,
    )
    return runs if output_format == "list" else _frame(runs)


def _ids_of(client: Client, names: Iterable[str | None]) -> list[str]:
    ids = []
    for name in names:
        experiment = None if name is None else client.get_experiment_by_name(name)
        if experiment is not None:
            ids.append(experiment.experiment_id)
        elif name is not None:
            _log.warning("there is no experiment `%s` to search", name)
    return ids


def _frame(runs: list[Run]) -> pd.DataFrame:
    """The runs as ``search_runs`` describes."""
    pd = require("pandas", "search_runs(output_format='pandas')")
    columns: dict[str, list[Any]] = {
        name: [None] * len(runs)
        for name in ("run_id", "experiment_id", "status", "artifact_uri", "start_time", "end_time")
    }
    for row, run in enumerate(runs):
        for name, value in run_facts(run).items():
            if name not in columns:
                columns[name] = [float("nan") if name.startswith("metrics.") else None] * len(runs)
            columns[name][row] = value
    order = ("metrics.", "params.", "tags.")
    names = sorted(columns, key=lambda name: next((i for i, kind in enumerate(order, 1) if name.startswith(kind)), 0))
    frame = {name: columns[name] for name in names}
    for name in ("start_time", "end_time"):
        frame[name] = pd.to_datetime(frame[name], unit="ms", utc=True)
    return pd.DataFrame(frame)  # type: ignore[no-any-return]


# -- metrics, params, tags, inputs -----------------------------------------------------------------------------------


def log_metric(
    key: str,
    value: float,
    step: int | None = None,
    synchronous: bool | None = None,
    timestamp: int | None = None,
    run_id: str | None = None,
    model_id: str | None = None,
    dataset: AnyDataset | Dataset | None = None,
) -> RunOperations | None:
    """Add a point to a metric of the active run.

    Args:
        key: Name: at most 250 letters, digits, ``_ - . : /`` and spaces.
        value: A number, NaN and infinities included, or an array or tensor of one element.
        step: Signed 64-bit; 0 if not given.
        synchronous: False returns something with ``wait()``; the point is in the journal either way.
        timestamp: Milliseconds since the epoch; now if not given.
        run_id: Another run than the active one.
        model_id: The logged model that it was measured of; if not given the active one (``set_active_model``), or else
            those that the run has logged at this step.
        dataset: The dataset that it was measured on; it is also recorded as an input of the run.

    Raises:
        InvalidValueError: A name or value outside MLflow's limits.
    """
    if (
        run_id is None
        and model_id is None
        and dataset is None
        and synchronous is not False
        and session.models.active is None
    ):
        writer = _thread.writer or _writer_of(start_run())  # a training loop's call: nothing but the write
        if not (writer.models and writer.models_at(step)):
            writer.log_metric(key, value, step, timestamp or None)
            return None
    return log_metrics({key: value}, step, synchronous, run_id, timestamp, model_id, dataset)


def log_metrics(
    metrics: dict[str, float],
    step: int | None = None,
    synchronous: bool | None = None,
    run_id: str | None = None,
    timestamp: int | None = None,
    model_id: str | None = None,
    dataset: AnyDataset | Dataset | None = None,
) -> RunOperations | None:
    """Add one point to each of several metrics, all of them or, if one is not valid, none.

    Args:
        metrics: Names and values, as for ``log_metric``.
        step: Of every point; 0 if not given.
        synchronous: False returns something with ``wait()``; the points are in the journal either way.
        run_id: Another run than the active one.
        timestamp: Milliseconds since the epoch; now if not given.
        model_id: The logged model that they were measured of; as for ``log_metric`` if not given.
        dataset: The dataset that they were measured on; it is also recorded as an input of the run.
    """
    when = timestamp or now_ms()
    if model_id is None:
        model_id = session.models.active_id()
    if run_id is None and model_id is None and dataset is None and synchronous is not False:  # a training loop's call
        writer = _thread.writer or _writer_of(start_run())
        if not (writer.models and writer.models_at(step)):
            writer.log_metrics([Metric(key, value, when, step or 0) for key, value in metrics.items()])
            return None
    target = _active_id(run_id)

    def call() -> None:
        entity = None if dataset is None else dataset_entity(dataset)
        on = (entity.name, entity.digest) if entity else (None, None)
        writer = stores.tracker().active_writer(target)
        made = {one for models in writer.models.values() for one in models}
        about: list[str | None] = [model_id] if model_id is not None else [*writer.models_at(step)]
        writer.log_metrics(
            Metric(key, value, when, step or 0, one, *on) for key, value in metrics.items() for one in about or [None]
        )
        read = [model_id] if model_id is not None and model_id not in made else []
        writer.log_inputs([] if entity is None else [DatasetInput(entity)], read)

    return perform(synchronous, call)


def log_param(key: str, value: Any, synchronous: bool | None = None) -> Any:
    """Write a parameter of the active run, once.  The value becomes text, and is returned as it was given.

    Args:
        key: Name: at most 250 letters, digits, ``_ - . : /`` and spaces.
        value: Its text is cut at 6000 characters, with a warning.
        synchronous: False returns something with ``wait()`` instead of the value.

    Raises:
        InvalidValueError: The run has this parameter with another value.
    """
    return Client().log_param(_active_id(), key, value, synchronous)


def log_params(
    params: dict[str, Any], synchronous: bool | None = None, run_id: str | None = None
) -> RunOperations | None:
    """Write parameters of the active run (or of ``run_id``), as ``log_param`` does; all of them or none."""
    return Client().log_batch(
        _active_id(run_id), params=[Param(key, value) for key, value in params.items()], synchronous=synchronous
    )


def log_batch(
    metrics: Sequence[Metric] = (),
    params: Sequence[Param] = (),
    tags: Sequence[RunTag] = (),
    synchronous: bool | None = None,
    run_id: str | None = None,
) -> RunOperations | None:
    """Write many metrics, params and tags of the active run (or of ``run_id``) at once; all of them or none."""
    return Client().log_batch(_active_id(run_id), metrics, params, tags, synchronous)


def set_tag(key: str, value: Any, synchronous: bool | None = None) -> RunOperations | None:
    """Set a tag of the active run; the value becomes text, cut at 8000 characters with a warning."""
    return Client().set_tag(_active_id(), key, value, synchronous)


def set_tags(tags: dict[str, Any], synchronous: bool | None = None) -> RunOperations | None:
    """Set several tags of the active run, all of them or none."""
    return Client().log_batch(
        _active_id(), tags=[RunTag(key, value) for key, value in tags.items()], synchronous=synchronous
    )


def delete_tag(key: str) -> None:
    """Remove a tag of the active run.  Raises NotFoundError if it has no such tag."""
    Client().delete_tag(_active_id(), key)


def dataset_entity(dataset: Any) -> Dataset:
    """What is recorded of a dataset of ``gittrack.data`` or of MLflow's.

    Raises:
        InvalidValueError: Something else.
    """
    convert = getattr(dataset, "_to_mlflow_entity", None)
    entity = dataset if convert is None else convert()
    if isinstance(entity, Dataset):
        return entity
    try:
        return Dataset(**{name: getattr(entity, name) for name in Dataset.__slots__})
    except AttributeError as error:
        raise InvalidValueError(
            f"not a dataset: {type(dataset).__name__}", hint="make one with gittrack.data.from_pandas or from_numpy"
        ) from error


def _dataset_input(dataset: Any, context: str | None, tags: dict[str, str] | None) -> DatasetInput:
    entries = [InputTag(key, value) for key, value in (tags or {}).items()]
    if context:
        entries.append(InputTag(_CONTEXT_TAG, context))
    return DatasetInput(dataset_entity(dataset), entries)


def log_input(
    dataset: AnyDataset | Dataset | None = None,
    context: str | None = None,
    tags: dict[str, str] | None = None,
    model: ModelInput | None = None,
) -> None:
    """Record that the active run uses a dataset, or a logged model.

    Args:
        dataset: A dataset of ``gittrack.data``.
        context: What it is used for, such as ``training``.
        tags: Tags of this use: names of at most 255, values of at most 500 characters.
        model: A logged model that the run reads.
    """
    if dataset is None and (context or tags):
        raise InvalidValueError("`context` and `tags` are of a dataset, and there is none", hint="pass `dataset`")
    datasets = None if dataset is None else [_dataset_input(dataset, context, tags)]
    Client().log_inputs(_active_id(), datasets, None if model is None else [model])


def log_inputs(
    datasets: Sequence[AnyDataset | Dataset | None] | None = None,
    contexts: Sequence[str | None] | None = None,
    tags_list: Sequence[dict[str, str] | None] | None = None,
    models: Sequence[ModelInput | None] | None = None,
) -> None:
    """Record several datasets, and logged models, that the active run uses.

    Args:
        datasets: Datasets of ``gittrack.data``.
        contexts: What each is used for, or None; as many as datasets.
        tags_list: Tags of each use, or None; as many as datasets.
        models: Logged models.
    """
    datasets, contexts, tags_list = datasets or [], contexts or [], tags_list or []
    if not len(datasets) == len(contexts) == len(tags_list):
        raise InvalidValueError(
            f"`datasets`, `contexts`, `tags_list` have {len(datasets)}, {len(contexts)}, {len(tags_list)} entries",
            hint="give each dataset a context and tags, or None",
        )
    triples = zip(datasets, contexts, tags_list, strict=True)
    inputs = [_dataset_input(*triple) for triple in triples if triple[0] is not None]
    Client().log_inputs(_active_id(), inputs, [model for model in models or [] if model is not None])


def log_outputs(models: list[ModelOutput] | None = None) -> None:
    """Record logged models that the active run made."""
    Client().log_outputs(_active_id(), models or [])


# -- artifacts -------------------------------------------------------------------------------------------------------


def log_artifact(local_path: str | Path, artifact_path: str | None = None, run_id: str | None = None) -> None:
    """Keep a file, or a folder with all that is in it, as an artifact of the active run.

    Args:
        local_path: The file or folder.
        artifact_path: Folder below the run's artifacts to put it in.
        run_id: Another run than the active one.

    Raises:
        InvalidValueError: Nothing there, not a regular file, or a name that cannot be an artifact's.
    """
    Client().log_artifact(_active_id(run_id), local_path, artifact_path)


def log_artifacts(local_dir: str | Path, artifact_path: str | None = None, run_id: str | None = None) -> None:
    """Keep everything in a folder as artifacts of the active run (or of ``run_id``), below ``artifact_path``."""
    Client().log_artifacts(_active_id(run_id), local_dir, artifact_path)


def log_text(text: str, artifact_file: str, run_id: str | None = None) -> None:
    """Keep a text, in UTF-8, as the artifact ``artifact_file`` of the active run (or of ``run_id``)."""
    Client().log_text(_active_id(run_id), text, artifact_file)


def log_dict(dictionary: dict[str, Any], artifact_file: str, run_id: str | None = None) -> None:
    """Keep a dict or list as JSON or, if ``artifact_file`` ends in .yml or .yaml, as YAML."""
    Client().log_dict(_active_id(run_id), dictionary, artifact_file)


def log_stream(stream: io.BufferedIOBase | io.RawIOBase, artifact_file: str, run_id: str | None = None) -> None:
    """Keep what a binary stream gives until its end as the artifact ``artifact_file``; of any size."""
    Client().log_stream(_active_id(run_id), stream, artifact_file)


def log_figure(figure: Any, artifact_file: str, *, save_kwargs: dict[str, Any] | None = None) -> None:
    """Keep a figure of matplotlib or plotly as an artifact of the active run.

    Args:
        figure: A ``matplotlib.figure.Figure`` or ``plotly.graph_objects.Figure``.
        artifact_file: Its extension says the format.
        save_kwargs: Passed on to the library's own saving function.
    """
    Client().log_figure(_active_id(), figure, artifact_file, save_kwargs=save_kwargs)


def log_image(
    image: Any,
    artifact_file: str | None = None,
    key: str | None = None,
    step: int | None = None,
    timestamp: int | None = None,
    synchronous: bool | None = False,
) -> None:
    """Keep a picture of the active run, under a file name or as one of a series.

    Args:
        image: A numpy array of shape (height, width) or (height, width, 1 | 3 | 4), integers of 0 to 255 or floats of
            0 to 1; a PIL image; a ``gittrack.Image``.
        artifact_file: Path of the artifact; without ``key``, ``step`` and ``timestamp``.
        key: Name of the series.
        step: Its place in the series; 0 if not given.
        timestamp: Milliseconds since the epoch; now if not given.
        synchronous: Taken for MLflow's sake; the picture is kept when this returns.
    """
    Client().log_image(_active_id(), image, artifact_file, key, step, timestamp, synchronous)


def log_table(data: dict[str, Any] | pd.DataFrame, artifact_file: str, run_id: str | None = None) -> None:
    """Keep a table of the active run (or of ``run_id``); rows are added to it if the run has this table already.

    Args:
        data: A DataFrame, or a dict of columns.  A column of images is kept as pictures.
        artifact_file: Ends in .json or .parquet.
        run_id: Another run than the active one.
    """
    Client().log_table(_active_id(run_id), data, artifact_file)


def load_table(
    artifact_file: str, run_ids: list[str] | None = None, extra_columns: list[str] | None = None
) -> pd.DataFrame:
    """The rows that runs of the chosen experiment logged under one table name; see ``Client.load_table``."""
    return Client().load_table(chosen_experiment(), artifact_file, run_ids, extra_columns)


def get_artifact_uri(artifact_path: str | None = None) -> str:
    """The address of the active run's artifacts, or of one of them: ``runs:/<run id>/<path>``.

    It is for this library's own calls (``artifacts.download_artifacts`` and so on), in every clone that has the run.
    """
    if _thread.current() is None:
        _log.warning("get_artifact_uri is called without an active run, and starts one")
    root = f"runs:/{_active_id()}"
    return root if not artifact_path else f"{root}/{limits.check_artifact_path(artifact_path)}"


# -- experiments -----------------------------------------------------------------------------------------------------


def set_experiment(
    experiment_name: str | None = None, experiment_id: str | None = None, trace_location: Any = None
) -> Experiment:
    """Choose the experiment of the runs that follow, in every thread; it is made if there is none of that name.

    Args:
        experiment_name: Name of the experiment; or give
        experiment_id: its id.
        trace_location: Not supported; traces belong to another kind of program.

    Raises:
        NotFoundError: No experiment has this id.
        StateError: The experiment is deleted.
    """
    if (experiment_name is None) == (experiment_id is None):
        raise InvalidValueError("set_experiment takes either a name or an id", hint="set_experiment('my experiment')")
    _no_trace_location(trace_location)
    client = Client()
    with _process.experiment_lock:
        if experiment_id is not None:
            experiment = client.get_experiment(experiment_id)
        else:
            experiment = _named(client, limits.check_experiment_name(experiment_name))
        if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
            raise StateError(
                f"experiment `{experiment.name}` is deleted", hint="bring it back with restore_experiment(...)"
            )
        _process.experiment_id = experiment.experiment_id
        # A child process goes on in the same experiment; a name from outside would contradict the id.
        config.export(experiment_id=experiment.experiment_id, experiment_name=None)
    return experiment


def _no_trace_location(trace_location: Any) -> None:
    if trace_location is not None:
        raise UnsupportedError("trace locations are not supported", hint="leave `trace_location` out")


def _named(client: Client, name: str) -> Experiment:
    """The experiment of that name, made if need be."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.get_experiment(client.create_experiment(name))
        except AlreadyExistsError:  # another process was faster
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    return experiment


def chosen_experiment() -> str:
    """Id of the experiment of new runs and searches: see ``start_run``."""
    return _chosen_experiment(stores.tracker(), config.current())


def context_tags() -> dict[str, str]:
    """The tags by which MLflow says where a run, or a logged model, comes from."""
    return _context_tags(stores.tracker(), session.user())


def _chosen_experiment(tracker: Tracker, settings: config.Config) -> str:
    """Id of the experiment of new runs and searches: see ``start_run``."""
    if _process.experiment_id is not None:
        return _process.experiment_id
    if settings.experiment_name is not None:
        experiment = tracker.get_experiment_by_name(settings.experiment_name)
        if experiment is None:
            return str(tracker.create_experiment(settings.experiment_name))
        if settings.experiment_id not in (None, experiment.experiment_id):
            raise InvalidValueError(
                f"the settings name the experiment `{settings.experiment_name}`, whose id is"
                f" `{experiment.experiment_id}`, and the id `{settings.experiment_id}`",
                hint="unset GITTRACK_EXPERIMENT_NAME or GITTRACK_EXPERIMENT_ID",
            )
        return experiment.experiment_id
    if settings.experiment_id is not None:
        return tracker.get_experiment(limits.check_experiment_id(settings.experiment_id)).experiment_id
    return _DEFAULT_EXPERIMENT_ID


def create_experiment(
    name: str,
    artifact_location: str | None = None,
    tags: dict[str, Any] | None = None,
    trace_location: Any = None,
) -> str:
    """Make an experiment and return its id, which is the same in every clone for the same name.

    Args:
        name: 1 to 500 characters.
        artifact_location: Kept as a note; artifacts are always in the store.
        tags: First tags; the values become text.
        trace_location: Not supported.

    Raises:
        AlreadyExistsError: The name is taken, perhaps by a deleted experiment.
    """
    _no_trace_location(trace_location)
    return Client().create_experiment(name, artifact_location, tags)


def get_experiment(experiment_id: str) -> Experiment:
    """An experiment by its id, also a deleted one.  Raises NotFoundError."""
    return Client().get_experiment(experiment_id)


def get_experiment_by_name(name: str) -> Experiment | None:
    """An experiment by its name, also a deleted one; None if there is none."""
    return Client().get_experiment_by_name(name)


def search_experiments(
    view_type: int = ViewType.ACTIVE_ONLY,
    max_results: int | None = None,
    filter_string: str | None = None,
    order_by: list[str] | None = None,
) -> list[Experiment]:
    """Every experiment that matches, newest first unless ``order_by`` says otherwise.

    Args:
        view_type: ``ViewType.ACTIVE_ONLY``, ``DELETED_ONLY`` or ``ALL``.
        max_results: Most experiments to return; all if not given.
        filter_string: Over ``name``, ``creation_time``, ``last_update_time`` and ``tags.<key>``.
        order_by: Such as ``["name ASC"]``.
    """
    client = Client()
    return all_pages(
        lambda size, token: client.search_experiments(view_type, size, filter_string, order_by, token), max_results
    )


def delete_experiment(experiment_id: str) -> None:
    """Delete an experiment with its runs; ``restore_experiment`` brings it back.  Raises NotFoundError, StateError."""
    Client().delete_experiment(experiment_id)


def restore_experiment(experiment_id: str) -> None:
    """Bring a deleted experiment back.  Raises NotFoundError, StateError."""
    Client().restore_experiment(experiment_id)


def set_experiment_tag(key: str, value: Any) -> None:
    """Set a tag of the chosen experiment; the value becomes text."""
    set_experiment_tags({key: value})


def set_experiment_tags(tags: dict[str, Any]) -> None:
    """Set several tags of the chosen experiment, all of them or none."""
    stores.tracker().set_experiment_tags(chosen_experiment(), tags)


def delete_experiment_tag(key: str) -> None:
    """Remove a tag of the chosen experiment.  Raises NotFoundError if it has no such tag."""
    stores.tracker().delete_experiment_tag(chosen_experiment(), key)


# -- background ------------------------------------------------------------------------------------------------------


def flush_async_logging() -> None:
    """Put everything on disk and commit the runs that are over.  Nothing that was logged waits for this call."""
    stores.tracker().flush()


def flush_artifact_async_logging() -> None:
    """As ``flush_async_logging``."""
    flush_async_logging()


def enable_system_metrics_logging() -> None:
    """Sample CPU, memory, disk, network and GPU during the runs that are started from now on."""
    _process.system_metrics = True


def disable_system_metrics_logging() -> None:
    """Do not sample the machine during the runs that are started from now on."""
    _process.system_metrics = False


def set_system_metrics_sampling_interval(interval: float) -> None:
    """Seconds between two samples, for the runs that are started from now on."""
    if not 0 < float(interval) <= 86400:
        raise InvalidValueError(f"sampling interval `{interval}` is not between 0 and 86400 seconds")
    _process.system_metrics_interval = float(interval)


def set_system_metrics_samples_before_logging(samples: int) -> None:
    """How many samples are averaged to one point, for the runs that are started from now on."""
    if not isinstance(samples, int) or samples < 1:
        raise InvalidValueError(f"`{samples}` samples cannot be averaged", hint="give 1 or more")
    _process.system_metrics_batch = samples


def set_system_metrics_node_id(node_id: str | None) -> None:
    """Name of this machine in a distributed job: metrics become ``system/<node id>/…``."""
    _process.system_metrics_node = None if node_id is None else limits.check_key("metric", f"{node_id}")
