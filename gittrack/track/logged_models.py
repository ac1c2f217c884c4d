"""Logged models: made, finished, edited and searched, as the Python API, the command line and the server call it.

A logged model is kept by a run: its facts are in the run's record, its files in a folder of the run's artifacts, and
what is measured of it, by any run, is linked to it there.  One that no run made gets a run that is there for nothing
else, and that no search of runs finds.  So it is shared, merged, deleted for good and rebuilt as runs are.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gittrack.errors import AlreadyExistsError, InvalidValueError, NotFoundError, shown
from gittrack.model_types import LoggedModel, LoggedModelStatus
from gittrack.store import record
from gittrack.track import limits
from gittrack.track.runs import check_page, made_up_name, page
from gittrack.track.secrets import redact_value
from gittrack.types import LifecycleStage, ModelOutput, PagedList, ViewType, check_run_id

if TYPE_CHECKING:
    from gittrack.store.record import RunState
    from gittrack.track.active import ActiveRun
    from gittrack.track.query.tree import Measured, Node
    from gittrack.track.runs import Tracker

#: Models on a page, if the caller does not say.
SEARCH_MAX_RESULTS_DEFAULT: Final = 100
#: As many digits of a model's id are those of the run that keeps it.
RUN_DIGITS: Final = 16
#: Folder, among the artifacts of the run that keeps them, of models that were made before they had files.
FOLDER: Final = "models"
#: Tags of a run that say where it comes from, which the models that it logs have too.
CONTEXT_TAGS: Final = ("mlflow.user", "mlflow.source.name", "mlflow.source.type", "mlflow.source.git.commit")


class Place(NamedTuple):
    """Where the files of a logged model are."""

    run_id: str
    folder: str


def new_model_id(run_id: str) -> str:
    """An id whose first half is that of the run that keeps the model, for people to see."""
    half = run_id[:RUN_DIGITS] if set(run_id[:RUN_DIGITS]) <= set("0123456789abcdef") else ""
    return "m-" + half + secrets.token_hex(16)[len(half) :]


class LoggedModels:
    """The logged models of a repository.  Cheap to make.

    Args:
        tracker: Its runs.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    # -- writing -----------------------------------------------------------------------------------------------------

    def create(
        self,
        experiment_id: str,
        name: str | None = None,
        *,
        source_run_id: str | None = None,
        absent_run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        model_type: str | None = None,
        model_id: str | None = None,
        created: int | None = None,
    ) -> LoggedModel:
        """Make a model that is PENDING: its files, and ``finalize``, are to come.

        Args:
            experiment_id: An active experiment.
            name: Its name, which others may have, too; made up if not given.
            source_run_id: The run that makes it, if any.
            absent_run_id: The id of that run if it is none of this repository: it is written down, and nothing more.
            tags: First tags; the values become text.
            params: First params; the values become text.
            model_type: What kind of model it is, for people and searches.
            model_id: The id that it has elsewhere already; made up if not given.
            created: Milliseconds since the epoch; now if not given.

        Raises:
            NotFoundError: No such experiment or run.
            StateError: It is deleted.
            AlreadyExistsError: There is a model with that id.
            InvalidValueError: A bad name, tag, param, type or id.
        """
        name = made_up_name() if name is None else limits.check_logged_model_name(name)
        experiment_id = self._tracker.active_experiment(limits.check_experiment_id(experiment_id)).experiment_id
        edits = {"status": LoggedModelStatus.PENDING.value, **self._tags(tags)}
        facts: dict[str, Any] = {"name": name}
        if model_type is not None:
            facts["model_type"] = limits.check_model_type(model_type)
        if params:
            facts["params"] = self._params(params)
        facts["created"] = _now() if created is None else limits.check_timestamp(created)
        if model_id is not None:
            self._require_free(limits.check_new_model_id(model_id))
        if absent_run_id is not None:
            facts["source_run_id"] = check_run_id(absent_run_id)
        if source_run_id is None:
            run = self._tracker.create_run(
                experiment_id, name=name, start_time=facts["created"], capture=False, keeper=True
            )
            if not self._tracker.serving:
                self._tracker.end_at_exit(run)  # so that it is committed, whatever becomes of the model
        else:
            run = self._tracker.active_writer(check_run_id(source_run_id))
        if run.experiment_id != experiment_id:
            facts["experiment_id"] = experiment_id
        facts["model_id"] = model_id = model_id or new_model_id(run.run_id)
        run.keep_model({**facts, "path": f"{FOLDER}/{model_id}"}, edits)
        if source_run_id is None:
            run.log_outputs([ModelOutput(model_id)])  # so that it goes wherever a run's models go
        return self.get(model_id)

    def finalize(self, model_id: str, status: str, message: str | None = None) -> LoggedModel:
        """Say that a model is complete, or never will be.

        Args:
            model_id: The model.
            status: READY or FAILED.
            message: Why, for people.

        Raises:
            NotFoundError: No such model.
            InvalidValueError: Another status.
        """
        status = LoggedModelStatus.of(status)
        if not LoggedModelStatus.is_finalized(status):
            raise InvalidValueError(f"a logged model is finished as READY or FAILED, not as {status}")
        edits = {"status": status.value, **self._updated()}
        if message is not None:
            edits["status_message"] = limits.check_status_message(message)
        model = self.get(model_id)
        run = self._edit(model, edits)
        if model.is_alone and run.status != "FINISHED":
            run.end()  # it was there for this
        return self.get(model_id)

    def delete(self, model_id: str) -> None:
        """Mark a model deleted, if it is not yet; ``restore`` undoes it.  Raises NotFoundError."""
        model = self.get(model_id, deleted=True)
        if model.lifecycle_stage != LifecycleStage.DELETED:
            self._move(model, LifecycleStage.DELETED)

    def restore(self, model_id: str) -> None:
        """Undo ``delete``, if need be.  Raises NotFoundError."""
        model = self.get(model_id, deleted=True)
        if model.lifecycle_stage == LifecycleStage.DELETED:
            self._move(model, LifecycleStage.ACTIVE)

    def _move(self, model: LoggedModel, stage: str) -> None:
        run = self._edit(model, {"lifecycle": stage, **self._updated()})
        if model.is_alone:
            run.set_lifecycle(stage)  # so that it can be purged
            self._tracker.settle(run)

    def set_tags(self, model_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags; the values become text.  Raises NotFoundError, InvalidValueError."""
        self._edit(self.get(model_id), self._tags(tags))

    def delete_tag(self, model_id: str, key: str) -> None:
        """Remove a tag.  Raises NotFoundError if there is no such model, or it has no such tag."""
        model = self.get(model_id)
        if limits.check_key("tag", key) not in model.tags:
            raise NotFoundError(f"logged model `{model_id}` has no tag `{key}`")
        self._edit(model, {f"tags.{key}": None})

    def log_params(self, model_id: str, params: Mapping[str, Any]) -> None:
        """Write params, once each; the same value again is fine.

        Raises:
            NotFoundError: No such model.
            InvalidValueError: A bad name, or a param that has another value already; nothing is written.
        """
        model = self.get(model_id)
        checked = self._params(params)
        for key, value in checked.items():
            if model.params.get(key, value) != value:
                raise InvalidValueError(
                    f"param `{key}` of logged model `{model_id}` is `{model.params[key]:.80}`, not `{value:.80}`",
                    hint="params are written once; use a tag for what changes",
                )
        new = {key: value for key, value in checked.items() if key not in model.params}
        if new:
            run = self._tracker.writer(model.run_id)
            run.write_event([record.MODEL, {"model_id": model_id, "params": new}])
            self._settle(run)

    def _edit(self, model: LoggedModel, changes: Mapping[str, str | None]) -> ActiveRun:
        run = self._tracker.writer(model.run_id)
        run.edit_model(model.model_id, changes)
        self._settle(run)
        return run

    def _settle(self, run: ActiveRun) -> None:
        if run.terminated:
            self._tracker.settle(run)

    def _tags(self, tags: Mapping[str, Any] | None) -> dict[str, str]:
        truncate = self._tracker.truncate
        checked = (limits.check_tag(key, value, truncate=truncate) for key, value in (tags or {}).items())
        return {f"tags.{key}": value for key, value in checked}

    def _params(self, params: Mapping[str, Any]) -> dict[str, str]:
        truncate = self._tracker.truncate
        checked = dict(limits.check_param(key, value, truncate=truncate) for key, value in params.items())
        return {key: redact_value(key, value) for key, value in checked.items()}

    def _updated(self) -> dict[str, str]:
        return {"updated": str(_now())}

    def _require_free(self, model_id: str) -> None:
        self._tracker.repo.refresh()
        if self._tracker.repo.index.get_logged_model(model_id) is not None:
            raise AlreadyExistsError(f"logged model `{model_id}` exists", hint="leave the id out to get another one")

    def keep(
        self,
        run: ActiveRun,
        state: RunState,
        model_id: str,
        name: str,
        *,
        step: int,
        model_type: str | None,
        flavors: Sequence[str],
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
    ) -> None:
        """Record a model whose files the run has, complete as it is, as ``log_model`` makes it.

        As in MLflow it has the run's params, too, and what the run measured at that step, as far as that is at hand.

        Args:
            run: The run.
            state: The run as it is.
            model_id: The model's id.
            name: Its name.
            step: Step of the training.
            model_type: What kind of model it is.
            flavors: What it can be loaded as.
            params: Its own params.
            tags: Its own tags.
        """
        every = {**self._params(params), **state.params}
        context = {key: value for key, value in state.tags().items() if key in CONTEXT_TAGS}
        facts: dict[str, Any] = {"model_id": model_id, "name": name, "created": _now(), "flavors": sorted(flavors)}
        if model_type is not None:
            facts["model_type"] = limits.check_model_type(model_type)
        if every:
            facts["params"] = every
        run.keep_model(facts, self._tags({**context, **tags}))
        linked = {(key, at, when) for key, at, when, to in state.links if "model_id" in to}
        for point in state.points_at(step):
            if (point.key, step, point.timestamp) not in linked:
                to = limits.check_metric_link(point._replace(model_id=model_id))
                run.write_event([record.LINK, point.key, step, point.timestamp, to])

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, model_id: str, *, deleted: bool = False) -> LoggedModel:
        """A model as it is now.

        Args:
            model_id: Its id.
            deleted: Also if it is deleted.

        Raises:
            NotFoundError: There is none.
        """
        limits.check_model_id(model_id)
        self._tracker.repo.refresh()
        model = self._tracker.repo.index.get_logged_model(model_id)
        if model is None or (model.lifecycle_stage == LifecycleStage.DELETED and not deleted):
            raise NotFoundError(
                f"no logged model `{model_id}`", hint="`gittrack show RUN` lists the models that a run logged"
            )
        return model

    def files(self, model_id: str) -> Place:
        """Where the files of a model are, or will be.  Raises NotFoundError."""
        model = self._tracker.repo.index.get_logged_model(limits.check_model_id(model_id))
        # What was made for a model never moves; what `log_model` put under a name makes room for the next of that name.
        if model is None or model.path != f"{FOLDER}/{model_id}" or model.lifecycle_stage == LifecycleStage.DELETED:
            model = self.get(model_id)
        return Place(model.run_id, model.path)

    def search(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None = None,
        *,
        datasets: Sequence[Mapping[str, Any]] | None = None,
        max_results: int | None = None,
        order_by: Sequence[Mapping[str, Any]] | None = None,
        page_token: str | None = None,
        view: int = ViewType.ACTIVE_ONLY,
    ) -> PagedList[LoggedModel]:
        """One page of the models that match (`gittrack help search` has the grammar).

        Args:
            experiment_ids: Where to look; nowhere if empty.
            filter_string: The filter; everything if empty.
            datasets: Dicts with ``dataset_name`` and perhaps ``dataset_digest``: what the filter says of metrics is
                about what was measured on one of these, and a filter that says nothing of metrics finds what was
                measured on one of them at all.
            max_results: Models on a page, 1 to 50,000; 100 if not given.
            order_by: Dicts, see ``query.parse_model_order``; newest first if not given.
            page_token: The ``token`` of the page before, of the same search.
            view: ``ViewType``.

        Raises:
            QuerySyntaxError: A filter that cannot be read.
            InvalidValueError: Something else that is wrong.
        """
        from gittrack.track import query

        ids = [limits.check_experiment_id(one) for one in experiment_ids]
        measured = _datasets(datasets)
        asked = {
            "experiment_ids": ids,
            "filter_string": filter_string,
            "order_by": [dict(one) for one in order_by] if order_by and all(map(_is_dict, order_by)) else None,
            "datasets": [list(one) for one in measured],
        }
        offset = query.bound_offset(page_token, asked)
        size = SEARCH_MAX_RESULTS_DEFAULT if max_results in (None, 0) else max_results
        check_page(size)
        where = query.parse_filter(filter_string, query.LOGGED_MODELS)
        compiled = query.compile_query(where, query.parse_model_order(order_by), query.LOGGED_MODELS, measured)
        if measured and not any(field.kind == "metric" for field in _fields(where)):
            on = query.measured_on(measured, query.LOGGED_MODELS)
            compiled = compiled._replace(conditions=(*compiled.conditions, on))
        if not ids:
            return PagedList()
        self._tracker.repo.refresh()
        found = self._tracker.repo.index.search_logged_models(compiled, ids, view, size + 1, offset)
        return page(found, offset, size, lambda start: query.bound_token(start, asked))


def _now() -> int:
    return int(time.time() * 1000)


def _is_dict(value: object) -> bool:
    return isinstance(value, Mapping)


def _datasets(datasets: Sequence[Mapping[str, Any]] | None) -> list[Measured]:
    from gittrack.track.query import Measured

    found = []
    for told in datasets or ():
        name = told.get("dataset_name") if isinstance(told, Mapping) else None
        digest = told.get("dataset_digest") if isinstance(told, Mapping) else None
        if not isinstance(name, str) or not name or not isinstance(digest, (str, type(None))):
            raise InvalidValueError(
                f"a dataset to search for is a dict with `dataset_name`, got {shown(told)}",
                hint="{'dataset_name': 'test', 'dataset_digest': '…'}",
            )
        found.append(Measured(name, digest))
    return found


def _fields(node: Node | None) -> Iterator[Any]:
    from gittrack.track.query import Comparison, Negation

    if isinstance(node, Comparison):
        yield node.field
    elif node is not None:
        parts: Iterable[Node] = (node.part,) if isinstance(node, Negation) else node.parts
        for part in parts:
            yield from _fields(part)
