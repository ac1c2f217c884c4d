"""Importer: what a ``Source`` has, written as runs, experiments and registered models.

A run that was imported keeps where it came from in the tag ``gittrack.import.from``, and in ``gittrack.import.state``
how much of it there was; the latter is written last.  So a run that is whole is passed over, and one that is not (the
import was interrupted, or the run went on over there) gets what is missing.  Its id is the source's where that can be,
else it follows from the source's, so that two clones that import the same have the same run.

What cannot be kept is left out and said in the report; it never keeps the rest from coming.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.convert.mlflow import PROMPT_TEXT
from gittrack.convert.report import Report
from gittrack.convert.source import (
    Source,
    SourceExperiment,
    SourceFile,
    SourceModel,
    SourceRegistered,
    SourceRun,
    derived_id,
)
from gittrack.errors import (
    AlreadyExistsError,
    CorruptError,
    FormatError,
    GittrackError,
    InvalidValueError,
    NetworkError,
    NotFoundError,
    StateError,
)
from gittrack.models.addresses import is_model_id
from gittrack.registry import names
from gittrack.registry.registry import Registry
from gittrack.store import record, seal
from gittrack.store.layout import DEFAULT_EXPERIMENT_ID
from gittrack.track import limits
from gittrack.types import (
    TERMINAL,
    LifecycleStage,
    LoggedModelStatus,
    Metric,
    ModelOutput,
    ModelVersionStages,
    ObjectId,
    Run,
    RunInputs,
    ViewType,
    check_run_id,
)

if TYPE_CHECKING:
    from gittrack.convert.source import SourceVersion
    from gittrack.track.active import ActiveRun
    from gittrack.track.runs import Tracker

FROM_TAG: Final = "gittrack.import.from"
STATE_TAG: Final = "gittrack.import.state"
#: Ends ``STATE_TAG`` of a run some of whose files could not be had; the next import tries again.
INCOMPLETE: Final = ", without all files"
#: Begins ``FROM_TAG`` of a run that was made here to hold a logged model that no run had made.
LOOSE: Final = "-model:"
#: Likewise of one that holds the text of a prompt's version.
PROMPT: Final = "-prompt:"
#: Where the facts about logged models are kept that MLmodel does not say, as JSON.
MODEL_FACTS: Final = "logged_models"
#: Where the files of a model go whose name belongs to a newer one of the same run; as ``log_model`` does it.
SUPERSEDED: Final = "superseded"

#: A version that MLflow's ``copy_model_version`` made says where it is from, and may be a copy of a copy, so often.
_COPIED: Final = re.compile(r"models:/+([^/]+)/([1-9][0-9]{0,9})")
MAX_COPIES: Final = 100
_COMMIT_TAG: Final = "mlflow.source.git.commit"
_BRANCH_TAG: Final = "mlflow.source.git.branch"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
#: Runs that are looked up at a time; points, files and bytes that are written at a time.
_RUNS: Final = 500
_POINTS: Final = 100_000
_FILES: Final = 500
_BYTES: Final = 256 << 20
_YEAR_9999: Final = 253_402_300_799_999


class Importer:
    """Imports one source.

    Args:
        tracker: Where to.  It has to raise trouble with the disk (``strict``): what was not kept must not count.
        source: Where from.
        experiments: Names or ids, over there, of the experiments that are meant; all if empty.
        code: A run whose commit this repository has is put on top of it.
        artifacts: Take files, too.
        dry_run: Count, and write nothing.
        progress: Told (runs done, runs in all).
    """

    def __init__(
        self,
        tracker: Tracker,
        source: Source,
        *,
        experiments: Sequence[str] = (),
        code: bool = True,
        artifacts: bool = True,
        dry_run: bool = False,
        progress: Callable[[int, int | None], None] = lambda done, total: None,
    ) -> None:
        self._tracker = tracker
        self._source = source
        self._chosen = list(experiments)
        self._code = code
        self._artifacts = artifacts
        self._dry = dry_run
        self._progress = progress
        self._moment = 0  #: when what is done now was done over there
        self._registry = Registry(tracker, clock=lambda: min(max(self._moment, 0), _YEAR_9999) or _now())
        self._runs: dict[str, tuple[str, str | None]] = {}  #: run over there -> (run here, where its files are there)
        self._models: dict[str, str] = {}  #: logged model -> the run that has it here
        self._versions: dict[tuple[str, int], SourceVersion] = {}  #: the registry over there
        self._gone: list[tuple[str, str]] = []  #: runs that are deleted over there, and their states
        self._ids: set[str] = set()
        self._numbers = count()  #: names of files on their way
        self._closed: set[str] = set()  #: experiments that are deleted here
        self._ledgers = tracker.repo.ledgers()
        self._done = 0
        self.report = Report()

    def run(self) -> Report:
        """Do it.

        Raises:
            NotFoundError: An experiment that was asked for is not there.
            GittrackError: The store cannot be written; called again, the import goes on.
        """
        with tempfile.TemporaryDirectory(prefix="gittrack-") as scratch:
            self._scratch = Path(scratch)
            return self._all()

    def _all(self) -> Report:
        chosen = self._selected()
        totals = [self._source.count(one) for one in chosen]
        total = None if None in totals else sum(filter(None, totals))
        deleted = []
        for experiment in chosen:
            experiment_id = self._experiment(experiment)
            if experiment_id is None:
                continue
            self._all_runs(experiment, experiment_id, total)
            if experiment.lifecycle_stage == LifecycleStage.DELETED:
                deleted.append(experiment_id)
        self._tracker.flush()
        every = list(self._source.registered())  # a version may be a copy of one that comes later
        self._versions = {(model.name, one.number): one for model in every for one in model.versions}
        for registered in every:
            self._attempt(f"model `{registered.name:.80}`", partial(self._registered, registered))
        if not self._dry:
            self._delete(deleted)
            self._tracker.flush()
        self.report.problems += self._source.problems
        self.report.passed = dict(sorted((+self._source.passed).items()))
        return self.report

    def _selected(self) -> list[SourceExperiment]:
        known = list(self._source.experiments())
        for name in self._chosen:
            if not any(name in (one.name, one.key) for one in known):
                raise NotFoundError(
                    f"there is no experiment `{name}`",
                    hint="it has " + ", ".join(f"`{one.name:.80}`" for one in known[:10]) if known else None,
                )
        return [one for one in known if not self._chosen or one.name in self._chosen or one.key in self._chosen]

    def _attempt(self, what: str, action: Callable[[], Any]) -> Any:
        """What ``action`` returns; None, and a line in the report, if what it is about cannot be kept."""
        try:
            return action()
        except GittrackError as error:
            if isinstance(error, (OSError, NetworkError)):  # nothing else would go better
                raise
            self._problem(what, error)
        return None

    def _problem(self, what: str, error: GittrackError | str) -> None:
        self.report.problems.append(f"{what}: {error.message if isinstance(error, GittrackError) else error}")

    # -- experiments -------------------------------------------------------------------------------------------------

    def _experiment(self, experiment: SourceExperiment) -> str | None:
        """The id here of an experiment, which is made if there is none of that name; None if it cannot be."""
        here = self._tracker.get_experiment_by_name(experiment.name)
        if here is not None:
            if here.lifecycle_stage == LifecycleStage.DELETED:
                self._closed.add(here.experiment_id)
            return here.experiment_id
        what = f"experiment `{experiment.name:.80}`"
        tags = self._kept(what, experiment.tags, limits.check_experiment_tag)
        if self._dry:
            self.report.experiments += 1
            return ""

        def make() -> str:
            return self._tracker.create_experiment(
                experiment.name, tags=tags, creation_time=experiment.creation_time or None
            )

        made: str | None = self._attempt(what, make)
        self.report.experiments += made is not None
        return made

    def _kept(
        self, what: str, facts: Mapping[str, Any], check: Callable[[object, object], tuple[str, str]]
    ) -> dict[str, str]:
        """Those of the facts that pass their limits."""
        found: dict[str, str] = {}
        for key, value in facts.items():
            try:
                found.update([check(key, value)])
            except InvalidValueError as error:
                self._problem(what, error)
        return found

    def _delete(self, experiments: Iterable[str]) -> None:
        """Delete what is deleted over there: last, since a version of a deleted run could not be registered."""
        for run_id, state in self._gone:
            writer = self._tracker.writer(run_id)
            writer.set_tags({STATE_TAG: state})
            if writer.lifecycle_stage == LifecycleStage.ACTIVE:
                writer.set_lifecycle(LifecycleStage.DELETED)
            writer.release()
        self._tracker.seal_soon()
        for experiment_id in experiments:
            if self._tracker.get_experiment(experiment_id).lifecycle_stage == LifecycleStage.ACTIVE:
                self._tracker.delete_experiment(experiment_id)

    # -- runs --------------------------------------------------------------------------------------------------------

    def _all_runs(self, experiment: SourceExperiment, experiment_id: str, total: int | None) -> None:
        runs = self._source.runs(experiment)
        while some := list(islice(runs, _RUNS)):
            known = self._known([run.run_id for run in some])
            with self._tracker.sealing_later():
                for run in some:
                    here = known.get(run.run_id)
                    origin = f"{self._source.kind}:{run.key}"
                    self._attempt(f"run `{run.key:.80}`", partial(self._one_run, run, experiment_id, here, origin))
                    self._done += 1
                    self._progress(self._done, total)
        for model in self._source.loose_models(experiment):
            self._attempt(f"model `{model.model_id:.80}`", partial(self._loose, model, experiment_id))

    def _known(self, run_ids: Iterable[str]) -> dict[str, Run]:
        """Those of the runs that are here."""
        valid = []
        for run_id in run_ids:
            with suppress(InvalidValueError):
                valid.append(check_run_id(run_id))
        if not valid:
            return {}
        wanted = ", ".join(f"'{run_id}'" for run_id in valid)  # letters, digits, `-` and `_` only
        found = self._tracker.search_runs(None, f"run_id IN ({wanted})", view=ViewType.ALL, max_results=len(valid))
        return {run.info.run_id: run for run in found}

    def _one_run(
        self, run: SourceRun, experiment_id: str, here: Run | None, origin: str, *, keeper: bool = False
    ) -> None:
        run = replace(run, start_time=_time(run.start_time), end_time=_time(run.end_time))
        if run.run_id in self._ids:
            raise InvalidValueError(f"another run there has its id `{run.run_id}`, too")
        self._ids.add(run.run_id)
        self._runs[run.key] = (run.run_id, run.location)
        self._models.update((model.model_id, run.run_id) for model in run.models)
        if here is not None:
            tags = here.data.tags
            ended = here.info.status == run.status or here.info.status not in ("RUNNING", "KILLED")
            if tags.get(FROM_TAG) != origin or (tags.get(STATE_TAG) == run.state and ended):
                self.report.here += 1  # what this import did not make, it does not touch
                return
        elif experiment_id in self._closed:
            raise StateError("its experiment is deleted here")
        elif self._tracker.repo.purged(run.run_id, self._ledgers):
            raise StateError("it was purged here, and stays so")
        if self._dry:
            self.report.runs += 1
            self.report.points += sum(1 for _ in run.metrics())
            return
        what = f"run `{run.key:.80}`"
        tags = self._kept(what, run.tags, limits.check_tag)
        if here is None:
            writer = self._tracker.begin_run(
                run.run_id,
                experiment_id,
                name=self._name(what, run.name),
                start_time=run.start_time,
                tags=tags | {FROM_TAG: origin},
                user_id=run.user_id,
                keeper=keeper,
            )
            self._put_on_code(writer, tags)
        else:
            writer = self._tracker.writer(run.run_id)
            writer.set_tags({key: value for key, value in tags.items() if key not in here.data.tags})
        state = run.state if self._content(writer, run, here) else run.state + INCOMPLETE
        if here is None or here.data.tags.get(STATE_TAG) != state:
            if run.lifecycle_stage == LifecycleStage.DELETED:
                self._gone.append((run.run_id, state))
            else:
                writer.set_tags({STATE_TAG: state})
        self._end(writer, run, here)

    def _end(self, writer: ActiveRun, run: SourceRun, here: Run | None) -> None:
        """The run's status, and what it counts as."""
        if here is None or (here.info.status, here.info.end_time) != (run.status, run.end_time):
            writer.set_status(run.status, run.end_time)
        elif writer.open:
            self._tracker.ended(writer)
        else:
            self.report.here += 1  # nothing was missing but what cannot be had
            return
        self.report.runs += 1
        if run.status not in TERMINAL:  # it goes on, but not here
            writer.release()
            seal.checkpoint(self._tracker.repo, run.run_id, force=True)

    def _name(self, what: str, name: str | None) -> str | None:
        if name:
            try:
                return limits.check_run_name(name)
            except InvalidValueError as error:
                self._problem(what, error)
        return name and name.encode("unicode_escape").decode()[:250]

    def _put_on_code(self, writer: ActiveRun, tags: Mapping[str, str]) -> None:
        """Say which commit the run was made with, if this repository has it."""
        commit = tags.get(_COMMIT_TAG, "")
        if not self._code or not _COMMIT.fullmatch(commit):
            return
        with suppress(NotFoundError, CorruptError):
            self._tracker.repo.git.read_commit(ObjectId(commit))
            facts = {"commit": commit, "mode": "commit"}
            if _BRANCH_TAG in tags:
                facts["branch"] = tags[_BRANCH_TAG]
            writer.write_event([record.CODE, facts])

    def _content(self, writer: ActiveRun, run: SourceRun, here: Run | None) -> bool:
        """What the run does not have yet of its source; False if some of its files could not be had."""
        what = f"run `{run.key:.80}`"
        params = self._kept(what, run.params, limits.check_param)
        self._attempt(what, partial(writer.log_params, params))
        points = self._checked(what, run.metrics())
        if here is not None:
            points = self._missing(run.run_id, points)
        while some := list(islice(points, _POINTS)):
            writer.log_metrics(some)
            self.report.points += len(some)
        inputs = RunInputs() if here is None else here.inputs
        for dataset in run.datasets:
            if dataset not in inputs.dataset_inputs:
                self._attempt(what, partial(writer.log_inputs, [dataset]))
        read = {one.model_id for one in inputs.model_inputs}
        writer.log_inputs((), [model for model in run.model_inputs if is_model_id(model) and model not in read])
        if not self._artifacts:
            return False
        before = len(self.report.problems) + len(self._source.problems)
        present = set() if here is None else set(self._tracker.repo.artifacts(run.run_id))
        taken = self._files(what, writer, run.files(), present)
        if models := list(run.models):
            self._logged(what, writer, models, present, taken)
        return len(self.report.problems) + len(self._source.problems) == before

    def _checked(self, what: str, metrics: Iterable[Metric]) -> Iterator[Metric]:
        """The points that pass their limits; each bad key is said once."""
        good: set[str] = set()
        bad: set[str] = set()
        for metric in metrics:
            if metric.key not in good:
                if metric.key in bad:
                    continue
                try:
                    limits.check_key("metric", metric.key)
                except InvalidValueError as error:
                    bad.add(metric.key)
                    self._problem(what, error)
                    continue
                good.add(metric.key)
            if 0 <= metric.timestamp <= limits.INT64_MAX and limits.INT64_MIN <= metric.step <= limits.INT64_MAX:
                yield metric
            else:
                self._problem(what, f"a point of metric `{metric.key}` has a time or a step that is no 64-bit number")

    def _missing(self, run_id: str, metrics: Iterable[Metric]) -> Iterator[Metric]:
        """The points that the run does not have yet."""
        known: dict[str, set[tuple[int, int, str]]] = {}
        for metric in metrics:
            have = known.get(metric.key)
            if have is None:
                history = self._tracker.metric_history(run_id, metric.key)
                have = known[metric.key] = {(p.step, p.timestamp, repr(p.value)) for p in history}
            if (metric.step, metric.timestamp, repr(metric.value + 0.0)) not in have:
                yield metric

    # -- files and logged models -------------------------------------------------------------------------------------

    def _files(self, what: str, writer: ActiveRun, found: Iterable[SourceFile], present: set[str]) -> set[str]:
        """Keep files that the run does not have; the first parts of all their paths."""
        tops: set[str] = set()
        batch: dict[str, Path] = {}
        size = 0

        def keep() -> None:
            writer.log_files(batch)
            self.report.files += len(batch)
            self.report.size += size

        def store() -> None:
            self._attempt(what, keep)
            for path in batch.values():
                if path.parent == self._scratch:
                    path.unlink()
            batch.clear()

        for file in found:
            try:
                path = limits.check_artifact_path(file.path)
                tops.add(path.partition("/")[0])
                if path in present:
                    continue
                real = file.fetch(self._scratch / str(next(self._numbers)))
                size += real.lstat().st_size
            except NetworkError:
                raise
            except GittrackError as error:
                self._problem(what, error)
                continue
            except FileNotFoundError:
                self._problem(what, f"file `{file.path:.200}` went away")
                continue
            batch[path] = real
            if len(batch) == _FILES or size > _BYTES:
                store()
                size = 0
        if batch:
            store()
        return tops

    def _logged(
        self, what: str, writer: ActiveRun, models: list[SourceModel], present: set[str], taken: set[str]
    ) -> None:
        """Keep logged models among the run's artifacts: under their names, the newest of each name."""
        newest = {model.name: model.model_id for model in sorted(models, key=lambda one: one.created)}
        outputs = self._tracker.get_run(writer.run_id).outputs.model_outputs if present else []
        known = {output.model_id: output for output in outputs}
        for model in models:
            if not is_model_id(model.model_id):
                self._problem(what, f"`{model.model_id:.80}` is no id of a logged model")
                continue
            path = model.name
            try:
                plain = limits.check_artifact_path(path) == path and "/" not in path
            except InvalidValueError:
                plain = False
            mine = known.get(model.model_id)
            if mine is not None and mine.path is not None:
                path = mine.path
            elif not plain or newest[model.name] != model.model_id or path in taken or path == SUPERSEDED:
                path = f"{SUPERSEDED}/{model.model_id}"
            before = self.report.files
            below = (SourceFile(f"{path}/{file.path}", file.fetch) for file in model.files())
            self._files(what, writer, below, present)
            has_files = self.report.files > before or any(name.startswith(f"{path}/") for name in present)
            if f"{MODEL_FACTS}/{model.model_id}.json" not in present:
                writer.log_bytes(_json(model), f"{MODEL_FACTS}/{model.model_id}.json")
            if mine is None:
                self._keep(what, writer, model)
            output = ModelOutput(model.model_id, model.step, path if has_files else None)
            if output != mine:
                writer.log_outputs([output])

    def _keep(self, what: str, writer: ActiveRun, model: SourceModel) -> None:
        """Record what is said of a logged model."""
        facts: dict[str, Any] = {"model_id": model.model_id, "created": _time(model.created)}
        told = model.facts
        for name, value, check in (
            ("name", model.name, limits.check_logged_model_name),
            ("model_type", told.get("model_type"), limits.check_model_type),
            ("source_run_id", told.get("source_run_id"), check_run_id),
        ):
            if value:
                with suppress(InvalidValueError):
                    facts[name] = check(value)
        facts["params"] = self._kept(what, _texts(told.get("params")), limits.check_param)
        tags = self._kept(what, _texts(told.get("tags")), limits.check_tag)
        status = str(told.get("status", "READY"))
        edits = {"status": status if status in LoggedModelStatus.__members__ else "READY"}
        if isinstance(updated := told.get("updated"), int) and updated > 0:
            edits["updated"] = str(updated)
        writer.keep_model(facts, {**edits, **{f"tags.{key}": value for key, value in tags.items()}})

    def _loose(self, model: SourceModel, experiment_id: str) -> None:
        """A logged model that no run made, or none that is here, gets a run that holds it."""
        origin = f"{self._source.kind}{LOOSE}{model.model_id}"
        maker = {"source_run_id": model.run_key} if model.run_key else {}
        run = SourceRun(
            key=model.model_id,
            run_id=derived_id(origin),
            state="FINISHED",
            name=model.name,
            start_time=model.created,
            end_time=model.created,
            models=[replace(model, facts={**model.facts, **maker})],
        )
        here: Run | None = None
        with suppress(NotFoundError):
            here = self._tracker.get_run(run.run_id)  # no search finds it
        self._one_run(run, experiment_id, here, origin, keeper=True)

    # -- the registry ------------------------------------------------------------------------------------------------

    def _registered(self, model: SourceRegistered) -> None:
        versions = [one for one in model.versions if not self._chosen or self._is_chosen(one)]
        if self._chosen and not versions:
            return
        name = names.check_model_name(model.name)
        what = f"model `{name:.80}`"
        try:
            here = {one.tags.get(FROM_TAG) for one in self._registry.versions(name, ViewType.ALL)}
            made = False
        except NotFoundError:
            here, made = set(), True
            if not self._dry:
                self._moment = model.created
                tags = self._kept(what, model.tags, names.check_model_tag)
                self._registry.create_model(name, tags, model.description)
            self.report.models += 1
        for version in versions:
            origin = self._origin(name, version)
            if origin not in here:
                self._attempt(f"version {version.number} of {what}", partial(self._version, name, version, origin))
        if not self._dry:
            self._events(name, model, versions)
            if made and model.updated > model.created:
                self._moment = model.updated
                self._registry.describe_model(name, model.description)

    def _origin(self, name: str, version: SourceVersion) -> str:
        # The time tells the first version of `iris` in one store from that in another.
        return f"{self._source.kind}:{name}/{version.number}/{version.created}"

    def _is_chosen(self, version: SourceVersion) -> bool:
        with suppress(FormatError):  # a circle is told of where the others are taken over
            _, version = self._first("", version)
        return version.model_id in self._models or version.run_key in self._runs

    def _first(self, name: str, version: SourceVersion) -> tuple[str, SourceVersion]:
        """The name and the version that a version was copied from, however often: it has the files; or else itself.

        Raises:
            FormatError: It was copied from itself, or too often.
        """
        passed: list[tuple[str, int]] = []
        while match := _COPIED.fullmatch(version.source):
            place = match[1], int(match[2])
            if place in passed:
                raise FormatError(f"what it was copied from leads back to itself: `{version.source:.200}`")
            if len(passed) == MAX_COPIES:
                raise FormatError(f"it is a copy of a copy, more than {MAX_COPIES} times over")
            if place not in self._versions:  # deleted, perhaps
                break
            passed.append(place)
            name, version = match[1], self._versions[place]
        return name, version

    def _version(self, name: str, version: SourceVersion, origin: str) -> None:
        first = self._first(name, version)
        run_id, path = self._place(*first, version)
        if self._dry:
            self.report.versions += 1
            return
        what = f"version {version.number} of model `{name:.80}`"
        tags = self._kept(what, version.tags, names.check_model_tag) | {FROM_TAG: origin}
        facts: dict[str, Any] = {"description": version.description, "tags": tags, "run_link": version.run_link}
        self._moment = version.created
        model_id = first[1].model_id if is_model_id(first[1].model_id) else None
        try:
            self._registry.register(name, run_id, path, model_id=model_id, number=version.number, **facts)
        except AlreadyExistsError:
            given = self._registry.register(name, run_id, path, model_id=model_id, **facts)
            self._problem(what, f"the number is used here; it became version {given.version}")
        self.report.versions += 1

    def _place(self, name: str, version: SourceVersion, copy: SourceVersion) -> tuple[str, str]:
        """The run here and the path in it that have the files of a version, of which ``copy`` is one, or itself.

        Raises:
            NotFoundError: There is none.
        """
        if version.model_id in self._models:
            run_id = self._models[str(version.model_id)]
            if self._dry:
                return run_id, ""
            for output in self._tracker.get_run(run_id).outputs.model_outputs:
                if output.model_id == version.model_id and output.path is not None:
                    return run_id, output.path
        elif version.run_key in self._runs:
            run_id, location = self._runs[str(version.run_key)]
            match = re.fullmatch(r"runs:/+[^/]+/?(.*)", version.source)
            if match is not None:
                return run_id, match[1].strip("/")
            source = version.source.rstrip("/")
            if location is not None and f"{source}/".startswith(f"{location.rstrip('/')}/"):
                return run_id, source[len(location.rstrip("/")) :].strip("/")
        files = version.files or copy.files
        if files is not None:
            return self._own_run(name, version, files), "model"
        raise NotFoundError(f"its files at `{version.source:.200}` are not among what was imported")

    def _own_run(self, name: str, version: SourceVersion, files: Callable[[], Iterable[SourceFile]]) -> str:
        """A run that holds the files of a version that no run made."""
        what = PROMPT if PROMPT_TEXT in version.tags else "-version:"
        origin = f"{self._source.kind}{what}{name}/{version.number}/{version.created}"
        run = SourceRun(
            key=f"{name}/{version.number}",
            run_id=derived_id(origin),
            state="FINISHED",
            name=f"register {name}",
            start_time=version.created,
            end_time=version.created,
            files=lambda: (SourceFile(f"model/{file.path}", file.fetch) for file in files()),
        )
        self._one_run(run, DEFAULT_EXPERIMENT_ID, self._known([run.run_id]).get(run.run_id), origin)
        return run.run_id

    def _events(self, name: str, model: SourceRegistered, versions: Iterable[SourceVersion]) -> None:
        """Stages and aliases, where nothing was ever said here about that version or alias."""
        numbers = {
            one.tags.get(FROM_TAG): int(one.version) for one in self._registry.versions(name) if one.tags.get(FROM_TAG)
        }
        given = {one.number: numbers.get(self._origin(name, one)) for one in versions}
        state = self._registry.state(name)
        for version in versions:
            number = given[version.number]
            if number is None or state.heads(number):
                continue
            what = f"version {version.number} of model `{name:.80}`"
            self._moment = max(version.updated, version.created)
            if version.stage != ModelVersionStages.NONE:
                promote = partial(self._registry.promote, name, number, version.stage, archive_existing=False)
                self._attempt(what, promote)
            elif version.updated > version.created:
                record_ = self._registry.get_version(name, number)
                if record_.last_updated_timestamp < version.updated:
                    self._registry.describe_version(name, number, record_.description)
        for alias, number_there in sorted(model.aliases.items()):
            number = given.get(number_there)
            if number is not None and not state.heads(f"@{alias}"):
                self._moment = model.updated
                give = partial(self._registry.set_alias, name, alias, number)
                self._attempt(f"alias `{alias:.80}` of model `{name:.80}`", give)


def _time(milliseconds: int | None) -> Any:
    """A time that can be recorded: what is beyond the bounds becomes the nearest one."""
    return None if milliseconds is None else min(max(milliseconds, 0), _YEAR_9999)


def _now() -> int:
    return int(time.time() * 1000)


def _texts(facts: object) -> dict[str, str]:
    return {str(key): str(value) for key, value in facts.items()} if isinstance(facts, Mapping) else {}


def _json(model: SourceModel) -> bytes:
    facts = {"model_id": model.model_id, "name": model.name, "step": model.step, **model.facts}
    return (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode()
