"""Exporter: runs, logged models and the registry, written to a MLflow.

What was exported carries, over there, the tag ``gittrack.runId`` (``gittrack.modelId``, ``gittrack.version``), and,
written last, ``gittrack.exported``: the revision that it is whole up to.  So the same export can be repeated, also
after it was interrupted; MLflow keeps a point that is sent twice once.  What was imported from the very MLflow that is
written to is known by what the import remembered, and left alone.

MLflow gives out ids, and the times at which experiments, models and versions were made, by itself; they are its own.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.convert.hub import Hub, There
from gittrack.convert.importer import FROM_TAG, LOOSE, MODEL_FACTS, PROMPT, STATE_TAG
from gittrack.convert.mlflow import PARENT_TAG, PROMPT_SOURCE, PROMPT_TEXT, PROMPTS, RUN_TAG, is_prompt
from gittrack.convert.report import Report
from gittrack.errors import FormatError, GittrackError, NetworkError, NotFoundError, StateError
from gittrack.models.model import MLMODEL, Model
from gittrack.registry.registry import Registry
from gittrack.store import seal
from gittrack.store.layout import DEFAULT_EXPERIMENT_ID
from gittrack.store.record import RUN_NAME_TAG
from gittrack.sync import artifacts
from gittrack.track.logged_models import LoggedModels
from gittrack.types import (
    TERMINAL,
    Experiment,
    LifecycleStage,
    Metric,
    ModelOutput,
    ModelVersion,
    ModelVersionStages,
    RegisteredModel,
    Run,
    ViewType,
)

if TYPE_CHECKING:
    from gittrack.store.record import RunState
    from gittrack.track.runs import Tracker

MODEL_TAG: Final = "gittrack.modelId"
VERSION_TAG: Final = "gittrack.version"
DONE_TAG: Final = "gittrack.exported"
_COMMIT_TAG: Final = "mlflow.source.git.commit"
#: MLflow's limits on one batch.
_POINTS: Final = 1000
_FEW: Final = 100
_PAGE: Final = 200
#: Numbers that are skipped to give a version its own; more of a gap gives it the next one.
_GAP: Final = 1000
_OURS: Final = frozenset({FROM_TAG, STATE_TAG, RUN_TAG, MODEL_TAG, VERSION_TAG, DONE_TAG})


class _Place:
    """An experiment, and what MLflow has of it.

    Args:
        experiment: As it is here.
        key: Its id there; empty in a dry run, if it is not there.
        known: Its runs there.
        models: Its logged models there, by the ids that they have here: an import keeps them, an export notes them.
    """

    def __init__(
        self, experiment: Experiment, key: str, known: Iterable[There] = (), models: Mapping[str, There] | None = None
    ) -> None:
        self.experiment = experiment
        self.key = key
        self.models = models or {}
        self.keepers: set[str] = set()  #: runs that are here only to keep a logged model
        self._origins: dict[str, There] = {}
        self._exported: dict[str, There] = {}
        for one in known:
            self._origins[f"mlflow:{one.key}"] = one
            if RUN_TAG in one.tags:
                self._exported[one.tags[RUN_TAG]] = one

    def mine(self, run: Run) -> There | None:
        """The run there that a run was imported from, or was exported as."""
        return self._origins.get(run.data.tags.get(FROM_TAG, "")) or self._exported.get(run.info.run_id)

    def exported(self, run: Run) -> There | None:
        """The run there that a run was exported as, and not imported from."""
        return self._exported.get(run.info.run_id)

    def is_loose(self, run: Run) -> bool:
        """True for a run that only stands for a logged model that no run made."""
        return run.info.run_id in self.keepers or LOOSE in run.data.tags.get(FROM_TAG, "")

    def has_whole(self, run: Run) -> bool:
        """True if all of a run is there."""
        if self.is_loose(run):
            models = [self.models.get(output.model_id) for output in run.outputs.model_outputs]
            return all(one is not None and one.whole for one in models)
        mine = self.mine(run)
        if mine is None:
            return False
        return run.info.run_id not in self._exported or mine.tags.get(DONE_TAG) == _revision(run)


class Exporter:
    """Exports to one MLflow.

    Args:
        tracker: Where from.
        hub: Where to.
        experiments: Ids of the experiments that are meant; all if None.
        artifacts: Send files, too.
        dry_run: Count, and write nothing.
        progress: Told (runs done, runs in all).
    """

    def __init__(
        self,
        tracker: Tracker,
        hub: Hub,
        *,
        experiments: Sequence[str] | None = None,
        artifacts: bool = True,
        dry_run: bool = False,
        progress: Callable[[int, int | None], None] = lambda done, total: None,
    ) -> None:
        self._tracker = tracker
        self._hub = hub
        self._chosen = experiments
        self._artifacts = artifacts
        self._dry = dry_run
        self._progress = progress
        self._given: dict[str, str] = {}  #: run -> its id there
        self._models: dict[str, str] = {}  #: logged model -> its id there
        self._gone: list[str] = []  #: ids there of experiments that are to be deleted
        self._deleted: list[str] = []  #: of runs likewise
        self._done = 0
        self.report = Report()

    def run(self) -> Report:
        """Do it.

        Raises:
            NetworkError: MLflow does not answer; called again, the export goes on.
        """
        if not self._tracker.repo.read_only:
            seal.seal(self._tracker.repo)  # an edit that is not committed yet would be taken for one that is there
        # Models first, and the runs that made them: any run may have read them.
        places = [place for one in self._experiments() if (place := self._place(one)) is not None]
        for place in places:
            for run in self._runs_of(place):
                if run.outputs.model_outputs and not place.has_whole(run):
                    self._attempt(f"run `{run.info.run_id[:8]}`", partial(self._begin, place, run))
        total = sum(self._count(place.experiment) for place in places)
        for place in places:
            self._content(place, total)
        for model in self._registered():
            self._attempt(f"model `{model.name:.80}`", partial(self._model, model))
        if not self._dry:
            for run_id in self._deleted:
                self._hub.delete_run(run_id)
            for key in self._gone:
                self._hub.delete_experiment(key)
        return self.report

    # -- experiments -------------------------------------------------------------------------------------------------

    def _experiments(self) -> list[Experiment]:
        """Those that are meant, oldest first."""
        found = self._all(lambda token: self._tracker.search_experiments(view=ViewType.ALL, page_token=token))
        return [one for one in found if self._chosen is None or one.experiment_id in self._chosen][::-1]

    def _count(self, experiment: Experiment) -> int:
        return self._tracker.repo.index.count_runs(None, [experiment.experiment_id], None)

    def _place(self, experiment: Experiment) -> _Place | None:
        """The experiment there, which is made if need be; None if there is nothing to be said about it."""
        there = self._hub.experiment(experiment.name)
        deleted = there is not None and there.deleted
        if there is None:
            if experiment.experiment_id == DEFAULT_EXPERIMENT_ID and not self._count(experiment):
                return None
            self.report.experiments += 1
            key = "" if self._dry else self._hub.create_experiment(experiment.name, self._shown(experiment.tags))
            place = _Place(experiment, key)
        else:
            models = {one.tags.get(MODEL_TAG, one.key): one for one in self._hub.logged_models(there.key)}
            place = _Place(experiment, there.key, list(self._hub.runs(there.key)), models)
        for run in self._runs_of(place):
            mine = place.mine(run)
            if mine is not None:
                self._given[run.info.run_id] = mine.key
        self._models.update({model_id: one.key for model_id, one in place.models.items()})
        if deleted and not self._dry and not all(place.has_whole(run) for run in self._runs_of(place)):
            self._hub.restore_experiment(place.key)
            deleted = False
        if experiment.lifecycle_stage == LifecycleStage.DELETED and not deleted:
            self._gone.append(place.key)
        return place

    def _runs_of(self, place: _Place) -> Iterator[Run]:
        """Its runs, oldest first, then those that are there only to keep a logged model."""
        order = ["attributes.start_time ASC"]
        yield from self._all(
            lambda token: self._tracker.search_runs(
                [place.experiment.experiment_id], view=ViewType.ALL, order_by=order, max_results=_PAGE, page_token=token
            )
        )

        found = self._all(
            lambda token: LoggedModels(self._tracker).search(
                [place.experiment.experiment_id], max_results=_PAGE, page_token=token
            )
        )
        for model in found:
            if model.is_alone:
                place.keepers.add(model.run_id)
                yield self._tracker.get_run(model.run_id)

    def _all(self, page: Callable[[str | None], Any]) -> Iterator[Any]:
        token: str | None = None
        while True:
            found = page(token)
            yield from found
            token = found.token
            if token is None:
                return

    def _attempt(self, what: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except (NetworkError, OSError):  # nothing else would go better
            raise
        except GittrackError as error:
            self.report.problems.append(f"{what}: {error.message}")

    def _shown(self, tags: Mapping[str, str]) -> dict[str, str]:
        """The tags that are not ours."""
        return {key: value for key, value in tags.items() if key not in _OURS}

    # -- runs --------------------------------------------------------------------------------------------------------

    def _content(self, place: _Place, total: int) -> None:
        """Export the runs of an experiment."""
        for run in self._runs_of(place):
            if PROMPT in run.data.tags.get(FROM_TAG, ""):
                pass  # there a prompt has no run
            elif place.has_whole(run):
                self.report.here += 1
                there = place.exported(run)
                if there is not None and not there.deleted and run.info.lifecycle_stage == LifecycleStage.DELETED:
                    self._deleted.append(there.key)  # that was still to be done when the last export was interrupted
            else:
                self.report.runs += 1
                self._attempt(f"run `{run.info.run_id[:8]}`", partial(self._run, place, run))
            self._done += 1
            self._progress(self._done, total)

    def _begin(self, place: _Place, run: Run) -> str | None:
        """Make a run and its logged models there; the run's id, None if it only stands for a model that no run made."""
        if self._dry:
            return None
        there: str | None = None
        if not place.is_loose(run):
            there = self._given.get(run.info.run_id)
            known = place.exported(run)
            if known is not None and known.deleted:
                self._hub.restore_run(known.key)
            if there is None:
                tags = self._tags(run)
                name = tags.pop(RUN_NAME_TAG, "")
                there = self._hub.create_run(place.key, name, run.info.start_time, run.info.user_id, tags)
                self._given[run.info.run_id] = there
        self._send_models(place, run, there)
        return there

    def _tags(self, run: Run) -> dict[str, str]:
        tags = self._shown(run.data.tags)
        parent = tags.pop(PARENT_TAG, None)
        if parent is not None and parent in self._given:
            tags[PARENT_TAG] = self._given[parent]
        if run.code.get("commit"):
            tags.setdefault(_COMMIT_TAG, str(run.code["commit"]))
        return {**tags, RUN_TAG: run.info.run_id}

    def _run(self, place: _Place, run: Run) -> None:
        if self._dry:
            self.report.points += sum(summary.count for summary in run.data.summaries.values())
            return
        before = len(self.report.problems)
        there = self._given.get(run.info.run_id) if run.outputs.model_outputs else self._begin(place, run)
        if there is None:
            return
        self._log(there, run.data.params, self._tags(run))
        self._inputs(there, run)
        self._points(there, run, self._tracker.repo.state(run.info.run_id))
        self._send_files(run, there)
        self._hub.set_status(there, run.info.status, run.info.end_time if run.info.status in TERMINAL else None)
        if len(self.report.problems) == before:  # else the next export tries again
            self._log(there, tags={DONE_TAG: _revision(run)})
        if run.info.lifecycle_stage == LifecycleStage.DELETED:
            self._deleted.append(there)

    def _inputs(self, there: str, run: Run) -> None:
        read = [self._models[one.model_id] for one in run.inputs.model_inputs if one.model_id in self._models]
        if run.inputs.dataset_inputs or read:
            self._hub.log_inputs(there, run.inputs.dataset_inputs, read)

    def _log(self, there: str, params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None) -> None:
        """Params and tags, as many at a time as MLflow takes."""
        for some in _some((params or {}).items(), _FEW):
            self._hub.log(there, (), dict(some), {})
        for some in _some((tags or {}).items(), _FEW):
            self._hub.log(there, (), {}, dict(some))

    def _points(self, there: str, run: Run, state: RunState) -> None:
        links: dict[tuple[str, int, int], list[dict[str, str]]] = {}
        for key, step, timestamp, to in state.links:
            links.setdefault((key, step, timestamp), []).append(to)
        for some in _some(self._linked(run, links), _POINTS):
            self._hub.log(there, list(some), {}, {})
            self.report.points += len(some)

    def _linked(self, run: Run, links: Mapping[tuple[str, int, int], list[dict[str, str]]]) -> Iterator[Metric]:
        """Every point of a run, with the ids that its models have there."""
        for key in run.data.metrics:
            for point in self._tracker.metric_history(run.info.run_id, key):
                about = links.get((key, point.step, point.timestamp)) if links else None
                for to in about or [{}]:
                    yield (
                        point
                        if not to
                        else point._replace(
                            model_id=self._models.get(to.get("model_id", "")),  # none, if that is not there
                            dataset_name=to.get("dataset_name"),
                            dataset_digest=to.get("dataset_digest"),
                        )
                    )

    # -- files and logged models -------------------------------------------------------------------------------------

    def _facts(self, run: Run, output: ModelOutput) -> dict[str, Any]:
        """What is known of a logged model; of one of an earlier version, what an import noted, or its MLmodel says."""
        with suppress(NotFoundError):
            if output.model_id in self._tracker.repo.state(run.info.run_id).models:
                model = LoggedModels(self._tracker).get(output.model_id, deleted=True)
                names = ("name", "model_type", "source_run_id", "params", "tags", "status")
                return {name: getattr(model, name) for name in names}
        try:
            data = self._tracker.read_artifact(run.info.run_id, f"{MODEL_FACTS}/{output.model_id}.json")
        except NotFoundError:
            return self._own_facts(run, output)
        try:
            facts = json.loads(data)
        except (ValueError, RecursionError) as error:
            self.report.problems.append(f"model `{output.model_id}`: what is known of it is no JSON: {error}")
            return {}
        return facts if isinstance(facts, dict) else {}

    def _own_facts(self, run: Run, output: ModelOutput) -> dict[str, Any]:
        try:
            data = self._tracker.read_artifact(run.info.run_id, f"{output.path}/{MLMODEL}")
            return dict(Model.from_bytes(data).gittrack)
        except (NotFoundError, FormatError):
            return {}

    def _send_models(self, place: _Place, run: Run, there: str | None) -> None:
        """Make a run's logged models there, and complete those whose files did not all get there."""
        for output in run.outputs.model_outputs:
            facts = self._facts(run, output)
            known = place.models.get(output.model_id)
            if known is None:
                name = str(facts.get("name") or (output.path or output.model_id).rpartition("/")[2])
                kind = None if facts.get("model_type") is None else str(facts["model_type"])
                tags = {**_texts(facts.get("tags")), MODEL_TAG: output.model_id}
                by = (
                    facts.get("source_run_id") if there is None else there
                )  # an id that means no run here means none there
                given = self._hub.create_model(place.key, name, by, kind, _texts(facts.get("params")), tags)
            else:
                given = known.key
            self._models[output.model_id] = given
            if there is not None:
                self._hub.log_outputs(there, [replace(output, model_id=given)])
            if known is None or not known.whole:
                for path, artifact in self._files_of(run, output.path):
                    self._send(partial(self._hub.upload_to_model, given), path, artifact)
                self._hub.finish_model(given, str(facts.get("status", "READY")))

    def _files_of(self, run: Run, folder: str | None) -> Iterator[tuple[str, Any]]:
        """Path below a folder, and digest, of the artifacts in it."""
        if not self._artifacts or folder is None:
            return
        for path, artifact in self._tracker.repo.artifacts(run.info.run_id, folder).items():
            yield path[len(folder) + 1 :], artifact

    def _send_files(self, run: Run, there: str) -> None:
        if not self._artifacts:
            return
        models = [f"{output.path}/" for output in run.outputs.model_outputs if output.path is not None]
        facts = {f"{MODEL_FACTS}/{output.model_id}.json" for output in run.outputs.model_outputs}
        for path, artifact in self._tracker.repo.artifacts(run.info.run_id).items():
            if path not in facts and not path.startswith(tuple(models)):
                self._attempt(
                    f"run `{run.info.run_id[:8]}`",
                    partial(self._send, partial(self._hub.upload, there), path, artifact),
                )

    def _send(self, upload: Callable[[str, Path], None], path: str, artifact: Any) -> None:
        """Send one file under its own name: what is read was verified."""
        with tempfile.TemporaryDirectory(prefix="gittrack-") as scratch:
            file = Path(scratch, path.rpartition("/")[2])
            artifacts.bring(self._tracker, [artifact])
            self._tracker.repo.objects.copy_out(artifact.digest, file, root=Path(scratch))
            upload(path, file)
        self.report.files += 1
        self.report.size += artifact.size

    # -- the registry ------------------------------------------------------------------------------------------------

    def _registered(self) -> Iterator[RegisteredModel]:
        registry = Registry(self._tracker)
        for only in (None, PROMPTS):
            yield from self._all(partial(registry.search_models, only, 1000, None))

    def _model(self, model: RegisteredModel) -> None:
        registry = Registry(self._tracker)
        versions = [
            one
            for one in registry.versions(model.name)
            if one.run_id in self._given
            or one.model_id in self._models
            or ((one.elsewhere or PROMPT_TEXT in one.tags) and self._chosen is None)
        ]
        if not versions and (self._chosen is not None or registry.versions(model.name, ViewType.ALL)):
            return
        aliases = self._hub.aliases(model.name)
        if aliases is None:
            self.report.models += 1
            if not self._dry:
                self._hub.create_registered(model.name, model.description, self._shown(model.tags))
        there = [] if aliases is None else list(self._hub.versions(model.name, prompt=is_prompt(model.tags)))
        numbers = {one.tags[VERSION_TAG]: int(one.key) for one in there if VERSION_TAG in one.tags}
        origins = {f"mlflow:{model.name}/{one.key}/{one.created}": int(one.key) for one in there}
        given: dict[str, int] = {}
        for version in versions:
            mine = origins.get(version.tags.get(FROM_TAG, "")) or numbers.get(version.tag_oid)
            if mine is None:
                self.report.versions += 1
                if self._dry:
                    continue
                mine = self._version(model.name, version)
                if version.current_stage != ModelVersionStages.NONE:
                    self._hub.set_stage(model.name, mine, version.current_stage)
            given[version.version] = mine
        for alias, number in model.aliases.items():
            if number in given and alias not in (aliases or {}) and not self._dry:
                self._hub.set_alias(model.name, alias, given[number])

    def _version(self, name: str, version: ModelVersion) -> int:
        """Register a version there, under its own number where that can be."""
        run_id = self._given.get(str(version.run_id))
        model_id = self._models.get(str(version.model_id))
        if PROMPT_TEXT in version.tags:
            source = PROMPT_SOURCE
        elif model_id is not None:
            source = f"models:/{model_id}"
        elif version.elsewhere:
            source, run_id = version.source, version.source_run_id
        elif run_id is not None:
            source = f"runs:/{run_id}/{version.path}"
        else:
            raise StateError(f"the run of version {version.version} was not exported")
        make = partial(
            self._hub.create_version, name, source, run_id=run_id, model_id=model_id,
            description=version.description, run_link=version.run_link,
            tags={**self._shown(version.tags), VERSION_TAG: version.tag_oid},
        )  # fmt: skip
        wanted = int(version.version)
        number = make()
        skipped = 0
        while number < wanted and skipped < _GAP:  # the numbers before were given to versions that are gone
            self._hub.delete_version(name, number)
            number = make()
            skipped += 1
        if number != wanted:
            self.report.problems.append(f"version {wanted} of model `{name}` became version {number} there")
        return number


def _revision(run: Run) -> str:
    """What changes when a run does."""
    return run.commit or f"{run.info.status} {run.info.end_time}"


def _texts(facts: object) -> dict[str, str]:
    return {str(key): str(value) for key, value in facts.items()} if isinstance(facts, dict) else {}


def _some(items: Iterable[Any], size: int) -> Iterator[Sequence[Any]]:
    every = iter(items)
    while some := list(islice(every, size)):
        yield some
