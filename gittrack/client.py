"""Client: every operation of tracking, and (inherited) of the registry.  MLflow's ``MlflowClient``.

A call here is a call of ``gittrack.track``; what is added is MLflow's names, arguments and shapes.
"""

from __future__ import annotations

import json
import logging
import posixpath
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack import media, session, stores
from gittrack.errors import GittrackError, InvalidValueError, NotFoundError
from gittrack.logged_model_client import LoggedModelClient
from gittrack.registry_client import RegistryClient
from gittrack.track import limits
from gittrack.types import LifecycleStage, Metric, PagedList, RunStatus, ViewType

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from gittrack.track.active import ActiveRun
    from gittrack.track.runs import Tracker
    from gittrack.types import (
        DatasetInput,
        Experiment,
        FileInfo,
        ModelInput,
        ModelOutput,
        Param,
        Run,
        RunTag,
    )

_log = logging.getLogger("gittrack")

#: Runs or experiments on a page, if the caller does not say.
SEARCH_MAX_RESULTS_DEFAULT: Final = 1000

RUN_NAME_TAG: Final = "mlflow.runName"
USER_TAG: Final = "mlflow.user"
NOTE_TAG: Final = "mlflow.note.content"
PARENT_RUN_TAG: Final = "mlflow.parentRunId"
_ARTIFACTS_TAG: Final = "mlflow.loggedArtifacts"
_IMAGES_TAG: Final = "mlflow.loggedImages"
_IMAGE_KEY = re.compile(r"[\w\-./ ]+", re.ASCII)


def now_ms() -> int:
    """The time as MLflow counts it: milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class RunOperations:
    """What a logging call with ``synchronous=False`` returns.

    The call has put its record into the journal before it returns, so there is nothing to wait for.  What was wrong
    with it is told by ``wait``, as in MLflow, and by a warning.

    Args:
        error: Why nothing was recorded, if so.
    """

    def __init__(self, error: GittrackError | None = None) -> None:
        self._error = error

    def wait(self) -> None:
        """Return at once, or raise what was wrong with the call."""
        if self._error is not None:
            raise self._error


def perform(synchronous: bool | None, call: Callable[[], None]) -> RunOperations | None:
    """Make a logging call in the way that the caller asked for: see ``RunOperations``."""
    if synchronous is not False:
        call()
        return None
    try:
        call()
    except GittrackError as error:
        _log.warning("%s", error)
        return RunOperations(error)
    return RunOperations()


class Client(RegistryClient, LoggedModelClient):
    """Creates, reads, writes and searches experiments, runs and models.  Cheap to make; threads may share one.

    Args:
        tracking_uri: The store; the one that ``get_tracking_uri`` tells if not given.
        registry_uri: Taken for MLflow's sake; the registry is in the same repository.
    """

    def __init__(self, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        self._uri = None if tracking_uri is None else str(tracking_uri)
        self._registry_uri = registry_uri

    @property
    def tracking_uri(self) -> str:
        """The store that this client uses."""
        return self._uri or stores.get_tracking_uri()

    @property
    def _tracker(self) -> Tracker:
        return stores.tracker(self._uri)

    def _writer(self, run_id: str) -> ActiveRun:
        return self._tracker.active_writer(run_id)

    # -- runs --------------------------------------------------------------------------------------------------------

    def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: dict[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Run:
        """Make a run; it is RUNNING until ``set_terminated``, and is not made active.

        Args:
            experiment_id: The experiment it belongs to.
            start_time: Milliseconds since the epoch; now if not given.
            tags: First tags; the values become text.
            run_name: A name; one is made up if not given.

        Raises:
            NotFoundError: No such experiment.
            StateError: The experiment is deleted.
            InvalidValueError: A tag or the name is outside MLflow's limits, or two names are given.
        """
        tags = dict(tags or {})
        named = tags.get(RUN_NAME_TAG)
        run_name, named = (None if name is None else limits.check_run_name(name) for name in (run_name, named))
        if run_name and named and run_name != named:
            raise InvalidValueError(
                f"run name `{run_name}` and tag `{RUN_NAME_TAG}` = `{named}` differ", hint="give only one of them"
            )
        parent = tags.get(PARENT_RUN_TAG)
        writer = self._tracker.create_run(
            limits.check_experiment_id(experiment_id),
            name=run_name or named,
            start_time=start_time,
            tags=tags,
            user_id=str(tags.get(USER_TAG, "")),
            parent_run_id=parent,
        )
        return writer.to_run()

    def get_run(self, run_id: str) -> Run:
        """A run as it is now.  Raises NotFoundError."""
        return self._tracker.get_run(run_id)

    def get_parent_run(self, run_id: str) -> Run | None:
        """The run that ``run_id`` is nested in; None if it is in none.  Raises NotFoundError."""
        parent = self.get_run(run_id).data.tags.get(PARENT_RUN_TAG)
        return None if parent is None else self.get_run(parent)

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        """Change the status or the name of a run.

        Args:
            run_id: The run.
            status: RUNNING, SCHEDULED, FINISHED, FAILED or KILLED; unchanged if not given.
            name: New name; unchanged if not given or empty.
        """
        if status is not None:
            RunStatus.from_string(status)
        writer = self._writer(run_id)
        if name:
            writer.set_name(name)
        if status is not None:
            writer.set_status(status)

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        """End a run.

        Args:
            run_id: The run.
            status: FINISHED if not given.
            end_time: Milliseconds since the epoch; now if not given.
        """
        status = status or "FINISHED"
        RunStatus.from_string(status)
        if end_time is not None:
            end_time = limits.check_timestamp(end_time, "end time")
        self._writer(run_id).set_status(status, end_time)

    def delete_run(self, run_id: str) -> None:
        """Delete a run, if it is not deleted yet; ``restore_run`` brings it back.  Raises NotFoundError."""
        if self.get_run(run_id).info.lifecycle_stage != LifecycleStage.DELETED:
            self._tracker.delete_run(run_id)

    def restore_run(self, run_id: str) -> None:
        """Bring a run back, if it is deleted.  Raises NotFoundError."""
        if self.get_run(run_id).info.lifecycle_stage == LifecycleStage.DELETED:
            self._tracker.restore_run(run_id)

    def search_runs(
        self,
        experiment_ids: list[str],
        filter_string: str = "",
        run_view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Run]:
        """One page of the runs that match.

        Args:
            experiment_ids: Experiments to search; a single id is taken, too.
            filter_string: As in ``gittrack help search``; everything if empty.
            run_view_type: ``ViewType.ACTIVE_ONLY``, ``DELETED_ONLY`` or ``ALL``.
            max_results: Most runs on the page, 1 to 50000.
            order_by: Such as ``["metrics.loss ASC"]``; then by start time, newest first, and run id.
            page_token: ``token`` of the page before, with the same query.

        Raises:
            QuerySyntaxError: The filter or the order cannot be read; says at which column.
            InvalidValueError: Another argument is wrong.
        """
        ids = [experiment_ids] if isinstance(experiment_ids, (str, int)) else experiment_ids
        if not isinstance(ids, Iterable):
            raise InvalidValueError(f"experiment ids are a list of texts, got {type(ids).__name__}")
        return self._tracker.search_runs(
            [limits.check_experiment_id(one) for one in ids],
            filter_string,
            view=run_view_type,
            max_results=max_results,
            order_by=order_by,
            page_token=page_token,
        )

    # -- metrics, params, tags ---------------------------------------------------------------------------------------

    def get_metric_history(self, run_id: str, key: str) -> PagedList[Metric]:
        """Every point of a metric, by (timestamp, step, value), on one page; empty if the run has no such metric."""
        return PagedList(self._tracker.metric_history(run_id, key))

    def log_metric(
        self,
        run_id: str,
        key: str,
        value: float,
        timestamp: int | None = None,
        step: int | None = None,
        synchronous: bool | None = None,
        dataset_name: str | None = None,
        dataset_digest: str | None = None,
        model_id: str | None = None,
    ) -> RunOperations | None:
        """Add a point to a metric.

        Args:
            run_id: The run.
            key: Name of the metric.
            value: A number, or an array or tensor of one element.
            timestamp: Milliseconds since the epoch; now if not given.
            step: Signed 64-bit; 0 if not given.
            synchronous: False returns something with ``wait()``; the point is in the journal either way.
            dataset_name: Name of the dataset that it was measured on; then also ``dataset_digest``.
            dataset_digest: Digest of that dataset.
            model_id: The logged model that it was measured of; the active one (``set_active_model``) if not given.
        """
        if model_id is None:
            model_id = session.models.active_id()

        def call() -> None:
            writer = self._writer(run_id)
            if dataset_name is None and dataset_digest is None and model_id is None:
                writer.log_metric(key, value, step, timestamp)
            else:
                when = now_ms() if timestamp is None else timestamp
                writer.log_metrics([Metric(key, value, when, step or 0, model_id, dataset_name, dataset_digest)])

        return perform(synchronous, call)

    def log_param(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> Any:
        """Write a parameter, once.  The value becomes text; returned as it was given.

        Raises:
            InvalidValueError: The run has this parameter with another value.
        """
        result = perform(synchronous, lambda: self._writer(run_id).log_params({key: value}))
        return value if result is None else result

    def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> RunOperations | None:
        """Set a tag of a run; the value becomes text."""
        return perform(synchronous, lambda: self._writer(run_id).set_tags({key: value}))

    def delete_tag(self, run_id: str, key: str) -> None:
        """Remove a tag of a run.  Raises NotFoundError if it has no such tag."""
        self._writer(run_id).delete_tag(key)

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> RunOperations | None:
        """Write many metrics, params and tags at once, as many as you like: all or, if one is not valid, none."""

        def call() -> None:
            values: dict[str, Any] = {}
            for param in params:
                if param.key in values:
                    raise InvalidValueError(
                        f"Duplicate parameter keys have been submitted: `{param.key}`", hint="give each one value"
                    )
                values[param.key] = param.value
            self._writer(run_id).log_batch(metrics, values, {tag.key: tag.value for tag in tags})

        return perform(synchronous, call)

    def log_inputs(
        self,
        run_id: str,
        datasets: Sequence[DatasetInput] | None = None,
        models: Sequence[ModelInput] | None = None,
    ) -> None:
        """Record datasets and logged models that a run read."""
        self._writer(run_id).log_inputs(datasets or (), [model.model_id for model in models or ()])

    def log_outputs(self, run_id: str, models: list[ModelOutput]) -> None:
        """Record logged models that a run made."""
        self._writer(run_id).log_outputs(models)

    # -- experiments -------------------------------------------------------------------------------------------------

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: dict[str, Any] | None = None
    ) -> str:
        """Make an experiment and return its id, which is the same in every clone for the same name.

        Args:
            name: 1 to 500 characters.
            artifact_location: Kept as a note; artifacts are always in the store.
            tags: First tags; the values become text.

        Raises:
            AlreadyExistsError: The name is taken, perhaps by a deleted experiment.
        """
        return str(self._tracker.create_experiment(name, tags=tags, artifact_location=artifact_location))

    def get_experiment(self, experiment_id: str) -> Experiment:
        """An experiment by its id, also a deleted one.  Raises NotFoundError."""
        return self._tracker.get_experiment(limits.check_experiment_id(experiment_id))

    def get_experiment_by_name(self, name: str) -> Experiment | None:
        """An experiment by its name, also a deleted one; None if there is none."""
        return self._tracker.get_experiment_by_name(name)

    def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int | None = SEARCH_MAX_RESULTS_DEFAULT,
        filter_string: str | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """One page of the experiments that match; newest first unless ``order_by`` says otherwise.

        Args:
            view_type: ``ViewType.ACTIVE_ONLY``, ``DELETED_ONLY`` or ``ALL``.
            max_results: Most experiments on the page, 1 to 50000.
            filter_string: Over ``name``, ``creation_time``, ``last_update_time`` and ``tags.<key>``.
            order_by: Such as ``["name ASC"]``.
            page_token: ``token`` of the page before, with the same query.
        """
        limit = SEARCH_MAX_RESULTS_DEFAULT if max_results is None else max_results
        return self._tracker.search_experiments(
            view=view_type, max_results=limit, filter_string=filter_string, order_by=order_by, page_token=page_token
        )

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Give an experiment another name; its id stays.  Raises AlreadyExistsError, NotFoundError."""
        self._tracker.rename_experiment(limits.check_experiment_id(experiment_id), new_name)

    def delete_experiment(self, experiment_id: str) -> None:
        """Delete an experiment with its runs; ``restore_experiment`` brings it back.  Raises NotFoundError."""
        self._tracker.delete_experiment(limits.check_experiment_id(experiment_id))

    def restore_experiment(self, experiment_id: str) -> None:
        """Bring a deleted experiment back.  Raises NotFoundError."""
        self._tracker.restore_experiment(limits.check_experiment_id(experiment_id))

    def set_experiment_tag(self, experiment_id: str, key: str, value: Any) -> None:
        """Set a tag of an experiment; the value becomes text."""
        self._tracker.set_experiment_tags(limits.check_experiment_id(experiment_id), {key: value})

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Remove a tag of an experiment.  Raises NotFoundError if it has no such tag."""
        self._tracker.delete_experiment_tag(limits.check_experiment_id(experiment_id), key)

    # -- artifacts ---------------------------------------------------------------------------------------------------

    def log_artifact(self, run_id: str, local_path: str | Path, artifact_path: str | None = None) -> None:
        """Keep a file, or a folder with all that is in it, as an artifact.

        Args:
            run_id: The run.
            local_path: The file or folder.
            artifact_path: Folder below the run's artifacts to put it in.
        """
        self._writer(run_id).log_artifact(local_path, artifact_path)

    def log_artifacts(self, run_id: str, local_dir: str | Path, artifact_path: str | None = None) -> None:
        """Keep everything in a folder as artifacts; ``artifact_path`` is the folder below the run's to put it in."""
        self._writer(run_id).log_artifacts(local_dir, artifact_path)

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        """Keep a text as the artifact ``artifact_file``, in UTF-8."""
        if not isinstance(text, str):
            raise InvalidValueError(f"log_text takes a text, got {type(text).__name__}", hint="str(...) makes one")
        self._writer(run_id).log_bytes(text.encode("utf-8", "backslashreplace"), artifact_file)

    def log_dict(self, run_id: str, dictionary: dict[str, Any], artifact_file: str) -> None:
        """Keep a dict or list as JSON or, if ``artifact_file`` ends in .yml or .yaml, as YAML."""
        artifact_file = limits.check_artifact_path(artifact_file)
        self._writer(run_id).log_bytes(media.dict_bytes(dictionary, artifact_file), artifact_file)

    def log_stream(self, run_id: str, stream: io.BufferedIOBase | io.RawIOBase, artifact_file: str) -> None:
        """Keep what a binary stream gives until its end as the artifact ``artifact_file``; of any size."""
        artifact_file = limits.check_artifact_path(artifact_file)
        with tempfile.TemporaryDirectory(prefix="gittrack-") as folder:
            path = Path(folder, posixpath.basename(artifact_file))
            with path.open("wb") as file:
                shutil.copyfileobj(stream, file)
            self._writer(run_id).log_artifact(path, posixpath.dirname(artifact_file) or None)

    def log_figure(
        self, run_id: str, figure: Any, artifact_file: str, *, save_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Keep a figure of matplotlib or plotly.

        Args:
            run_id: The run.
            figure: A ``matplotlib.figure.Figure`` or ``plotly.graph_objects.Figure``.
            artifact_file: Its extension says the format.
            save_kwargs: Passed on to the library's own saving function.
        """
        self._writer(run_id).log_bytes(media.figure_bytes(figure, artifact_file, save_kwargs), artifact_file)

    def log_image(
        self,
        run_id: str,
        image: Any,
        artifact_file: str | None = None,
        key: str | None = None,
        step: int | None = None,
        timestamp: int | None = None,
        synchronous: bool | None = None,
    ) -> None:
        """Keep a picture, under a file name or as one of a series.

        Args:
            run_id: The run.
            image: A numpy array of shape (height, width) or (height, width, 1 | 3 | 4), integers of 0 to 255 or floats
                of 0 to 1; a PIL image; a ``gittrack.Image``.
            artifact_file: Path of the artifact; without ``key``, ``step`` and ``timestamp``.
            key: Name of the series; the picture is kept below ``images/``, with a small copy beside it.
            step: Its place in the series; 0 if not given.
            timestamp: Milliseconds since the epoch; now if not given.
            synchronous: Taken for MLflow's sake; the picture is kept when this returns.

        Raises:
            InvalidValueError: Not exactly one of ``artifact_file`` and ``key``, or nothing that is an image.
        """
        if (artifact_file is None) == (key is None) or (
            artifact_file is not None and (step, timestamp) != (None, None)
        ):
            raise InvalidValueError(
                "log_image takes either `artifact_file`, or `key` with `step` and `timestamp`",
                hint="log_image(image, 'plot.png') or log_image(image, key='samples', step=3)",
            )
        writer = self._writer(run_id)
        if artifact_file is not None:
            writer.log_bytes(media.image_bytes(image, artifact_file), artifact_file)
            return
        if not _IMAGE_KEY.fullmatch(str(key)):
            raise InvalidValueError(
                f"image key `{key}` has other characters than letters, digits, `_`, `-`, `.`, `/` and spaces"
            )
        when = limits.check_timestamp(now_ms() if timestamp is None else timestamp)
        # MLflow's scheme: its page finds series, step and time in the name.
        stem = (
            f"images/{str(key).replace('/', '~')}+step+{limits.check_step(step or 0)}+timestamp+{when}+{uuid.uuid4()}"
        )
        writer.log_bytes(media.image_bytes(image, f"{stem}.png"), f"{stem}.png")
        writer.log_bytes(media.small_image_bytes(image), f"{stem}+compressed.webp")
        writer.set_tags({_IMAGES_TAG: True})

    def log_table(self, run_id: str, data: dict[str, Any] | pd.DataFrame, artifact_file: str) -> None:
        """Keep a table; rows are added to it if the run has this table already.

        Args:
            run_id: The run.
            data: A DataFrame, or a dict of columns.  A column of PIL images or ``gittrack.Image`` is kept as pictures.
            artifact_file: Ends in .json or .parquet (then needs pyarrow).

        Raises:
            InvalidValueError: Another kind of data or of file name.
            MissingDependencyError: pandas is not installed.
        """
        artifact_file = media.check_table_path(limits.check_artifact_path(artifact_file))
        frame = media.table_frame(data)
        for column in frame.columns:
            images = [media.is_image(value) for value in frame[column]]
            if any(images):
                if not all(images):
                    raise InvalidValueError(f"column `{column}` has both images and other values")
                frame[column] = frame[column].map(lambda image: self._table_image(run_id, image, artifact_file))
        known = self._read(run_id, artifact_file)
        if known is not None:
            frame = media.concat([media.read_table(known, artifact_file), frame])
        writer = self._writer(run_id)
        writer.log_bytes(media.table_bytes(frame, artifact_file), artifact_file)
        listed = _listed_artifacts(self.get_run(run_id))
        entry = {"path": artifact_file, "type": "table"}
        if entry not in listed:
            writer.set_tags({_ARTIFACTS_TAG: json.dumps([*listed, entry])})

    def _table_image(self, run_id: str, image: Any, artifact_file: str) -> dict[str, str]:
        stem = posixpath.join("table_images", posixpath.splitext(artifact_file)[0], str(uuid.uuid4()))
        writer = self._writer(run_id)
        writer.log_bytes(media.image_bytes(image, f"{stem}.png"), f"{stem}.png")
        writer.log_bytes(media.small_image_bytes(image), f"{stem}.webp")
        return {"type": "image", "filepath": f"{stem}.png", "compressed_filepath": f"{stem}.webp"}

    def load_table(
        self,
        experiment_id: str,
        artifact_file: str,
        run_ids: list[str] | None = None,
        extra_columns: list[str] | None = None,
    ) -> pd.DataFrame:
        """The rows that several runs logged under one table name, one after the other.

        Args:
            experiment_id: The experiment of the runs.
            artifact_file: The table, as given to ``log_table``.
            run_ids: Only these runs; every run of the experiment that has the table if not given or empty.
            extra_columns: Facts of the runs to add as columns, under the names that ``search_runs`` gives them, such as
                ``run_id``, ``params.lr`` or ``metrics.loss``.

        Raises:
            NotFoundError: No run has this table.
            InvalidValueError: A run has no such fact.
        """
        media.check_table_path(artifact_file)
        tables = []
        for run in self._every_run(experiment_id, f"tags.{_ARTIFACTS_TAG} LIKE '%\"table\"%'"):
            run_id = run.info.run_id
            if run_ids and run_id not in run_ids:
                continue
            if {"path": artifact_file, "type": "table"} not in _listed_artifacts(run):
                continue
            data = self._read(run_id, artifact_file)
            if data is None:
                raise NotFoundError(f"run `{run_id}` has no artifact `{artifact_file}`")
            table = media.read_table(data, artifact_file)
            for column in extra_columns or ():
                table[f"{column}_" if column in table else column] = _run_fact(run, column)
            tables.append(table)
        if not tables:
            raise NotFoundError(f"no run of experiment `{experiment_id}` has a table `{artifact_file}`")
        return media.concat(tables)

    def _every_run(self, experiment_id: str, filter_string: str) -> list[Run]:
        return all_pages(
            lambda size, token: self.search_runs([experiment_id], filter_string, max_results=size, page_token=token)
        )

    def _read(self, run_id: str, path: str) -> bytes | None:
        try:
            return stores.read_artifact(self._tracker, run_id, path)
        except NotFoundError:
            self._tracker.get_run(run_id)
            return None

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[FileInfo]:
        """Files and folders directly below ``path``, or below the run's artifact root; empty if ``path`` is a file."""
        return list(self._tracker.list_artifacts(run_id, path or ""))

    def download_artifacts(self, run_id: str, path: str, dst_path: str | Path | None = None) -> str:
        """Copy an artifact, or a folder of them, out of the store; every byte is verified on the way.

        What is not in this clone is fetched from the remote.

        Args:
            run_id: The run.
            path: File or folder below the run's artifact root; an empty text is everything.
            dst_path: A folder that exists; a new one among the temporary files if not given.

        Returns:
            Where it is now: ``dst_path``, made absolute, joined with the last part of ``path``.

        Raises:
            NotFoundError: No such artifact, nobody has its bytes, or ``dst_path`` does not exist.
            NetworkError: They cannot be fetched.
            CorruptError: The stored bytes are not what was logged.
        """
        if dst_path is None:
            dst_path = tempfile.mkdtemp(prefix="gittrack-")
        elif not Path(dst_path).is_dir():
            raise NotFoundError(f"folder `{dst_path}` does not exist", hint="make it first")
        return str(stores.download_artifacts(self._tracker, run_id, path, Path(dst_path).absolute()))


#: MLflow's name of it.
MlflowClient = Client


def all_pages(
    page: Callable[[int, str | None], PagedList[Any]], limit: int | None = None, most: int = 10_000
) -> list[Any]:
    """Up to ``limit`` results (all if None) of a search that gives ``page(size, token)``, ``most`` on a page."""
    found: list[Any] = []
    token: str | None = None
    while limit is None or len(found) < limit:
        size = most if limit is None else min(most, limit - len(found))
        some = page(size, token)
        found += some
        token = some.token
        if token is None:
            break
    return found


def _listed_artifacts(run: Run) -> list[Mapping[str, str]]:
    """The tables that a run's tag lists; empty if someone else wrote nonsense into it."""
    try:
        listed = json.loads(run.data.tags.get(_ARTIFACTS_TAG, "[]"))
    except ValueError:
        return []
    return listed if isinstance(listed, list) else []


def run_facts(run: Run) -> dict[str, Any]:
    """A run as one flat row: the columns of ``search_runs``; times stay milliseconds."""
    info = run.info
    return {
        "run_id": info.run_id,
        "experiment_id": info.experiment_id,
        "status": info.status,
        "artifact_uri": info.artifact_uri,
        "start_time": info.start_time,
        "end_time": info.end_time,
        **{f"metrics.{key}": value for key, value in run.data.metrics.items()},
        **{f"params.{key}": value for key, value in run.data.params.items()},
        **{f"tags.{key}": value for key, value in run.data.tags.items()},
    }


def _run_fact(run: Run, column: str) -> Any:
    facts = run_facts(run)
    if column not in facts:
        raise InvalidValueError(
            f"run `{run.info.run_id}` has no `{column}`", hint="one of " + ", ".join(list(facts)[:12])
        )
    return facts[column]
