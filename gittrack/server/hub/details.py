"""What the web page says of one run, or of several beside each other: values, files, surroundings, where from and to.

Several runs are asked for at once, as columns.  One that is not there, or that the caller may not see, is named as
absent, so that a comparison still shows the others when one was purged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from starlette.responses import Response

from gittrack.client import PARENT_RUN_TAG
from gittrack.errors import CorruptError, InvalidValueError, NotFoundError
from gittrack.server.hub import records
from gittrack.server.hub.messages import Message, number, text, texts
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route
from gittrack.server.hub.runs import run_scope
from gittrack.server.hub.views import sent
from gittrack.track import code, compare, links
from gittrack.track.reproduce import REPRODUCES_TAG
from gittrack.types import Artifact, DatasetInput, LifecycleStage, MetricSummary, Run, ViewType

_MAX_RUNS: Final = 100
_MAX_FILES: Final = 20_000  #: paths that one answer lists
_MAX_RELATED: Final = 200  #: children, revisions … of one run
_MAX_PATHS: Final = 200  #: of files that were left out of the code, or taken along
_CONTEXT_TAG: Final = "mlflow.data.context"
#: What is said of a run's code; anybody may have recorded it, as anything.
_CODE: Final = ("mode", "commit", "branch", "dirty", "detached", "remote_url", "shallow")


def _runs(call: Call) -> tuple[list[Run], records.Json]:
    """The runs that were asked for, and the beginning of the answer: what they are, which of them are absent."""
    asked = list(dict.fromkeys(call.values["run_ids"]))
    if len(asked) > _MAX_RUNS:
        raise InvalidValueError(f"at most {_MAX_RUNS} runs are compared at a time")
    found = call.hub.readable_runs(call.caller, asked)
    known = {run.info.run_id for run in found}
    names = {one.experiment_id: one.name for one in call.hub.experiments()} if found else {}
    infos = [
        {**_reference(run), "experiment_name": names.get(run.info.experiment_id), "user_id": run.info.user_id}
        for run in found
    ]
    return found, {"runs": infos, "absent": [one for one in asked if one not in known]}


def _reference(run: Run) -> records.Json:
    info = run.info
    return {
        "run_id": info.run_id,
        "run_name": info.run_name,
        "experiment_id": info.experiment_id,
        "status": info.status,
        "start_time": info.start_time,
        "end_time": info.end_time,
        "lifecycle_stage": info.lifecycle_stage,
    }


def _columns(tables: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Tables by row as one by column, its keys in order; None where a row has no such key."""
    keys = sorted({key for table in tables for key in table})
    return {key: [table.get(key) for table in tables] for key in keys}


# --- values


def _compare(call: Call) -> Response:
    found, answer = _runs(call)
    summaries: dict[str, list[MetricSummary | None]] = _columns([run.data.summaries for run in found])
    answer["metrics"] = {key: _metric(column) for key, column in summaries.items()}
    answer["params"] = _columns([run.data.params for run in found])
    answer["tags"] = _columns([run.data.tags for run in found])
    return sent(call, orjson.dumps(answer), "application/json")


def _metric(column: Iterable[MetricSummary | None]) -> records.Json:
    """One metric of all runs: its last value, the smallest, the greatest, the last step, how many points."""
    said: records.Json = {"last": [], "min": [], "max": [], "step": [], "count": []}
    for one in column:
        values = (
            (None,) * len(said)
            if one is None
            else (number(one.value), number(one.minimum), number(one.maximum), one.step, one.count)
        )
        for name, value in zip(said, values, strict=True):
            said[name].append(value)
    return said


# --- files


def _files(call: Call) -> Response:
    found, answer = _runs(call)
    paths = _columns([call.hub.tracker.repo.artifacts(run.info.run_id) for run in found])
    answer["total"] = len(paths)
    answer["files"] = {path: [_file(one) for one in column] for path, column in list(paths.items())[:_MAX_FILES]}
    return sent(call, orjson.dumps(answer), "application/json")


def _file(found: Artifact | None) -> records.Json | None:
    return None if found is None else {"size": found.size, "digest": found.digest}


# --- code and environment


def _environment(call: Call) -> Response:
    found, answer = _runs(call)
    answer["environment"] = _columns([dict(compare.flattened("", run.environment)) for run in found])
    answer["code"] = [_code(run) for run in found]
    return sent(call, orjson.dumps(answer), "application/json")


def _code(run: Run) -> records.Json:
    said = {name: run.code[name] for name in _CODE if isinstance(run.code.get(name), str | bool)}
    return {
        **said,
        "has_code": compare.code_tree(run) is not None,
        "run_commit": run.commit,
        "untracked_taken": [str(one) for one in _some(run.code.get("untracked_taken"))],
        "left_out": [[str(part) for part in one[:2]] for one in _some(run.code.get("left_out")) if _is_pair(one)],
        "submodules": [[str(part) for part in one[:2]] for one in _some(run.code.get("submodules")) if _is_pair(one)],
    }


def _some(value: Any) -> list[Any]:
    return list(value[:_MAX_PATHS]) if isinstance(value, list | tuple) else []


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


# --- lineage


def _lineage(call: Call) -> Any:
    hub, run = call.hub, call.hub.run(call.values["run_id"])
    run_id = run.info.run_id
    above = {kind: run.data.tags.get(tag) for kind, tag in (("parent", PARENT_RUN_TAG), ("repeats", REPRODUCES_TAG))}
    known = {one.info.run_id: _reference(one) for one in hub.readable_runs(call.caller, filter(None, above.values()))}
    return {
        **{kind: known[other] for kind, other in above.items() if other in known},
        "children": _tagged(call, PARENT_RUN_TAG, run_id),
        "repeated_by": _tagged(call, REPRODUCES_TAG, run_id),
        "revisions": _revisions(call, run_id),
        "commits": [{"commit": oid, "why": why} for oid, why in links.linked_commits(run).items()],
        "datasets": [_dataset(one) for one in run.inputs.dataset_inputs],
        "models_read": _models(call, (one.model_id for one in run.inputs.model_inputs)),
        "models": _models(call, (one.model_id for one in run.outputs.model_outputs)),
        "versions": _versions(call, run_id),
    }


def _tagged(call: Call, tag: str, run_id: str) -> list[records.Json]:
    """The runs whose tag names this one, as far as the caller may see them."""
    hub = call.hub
    where = hub.readable(call.caller, [one.experiment_id for one in hub.experiments()])
    found = hub.tracker.search_runs(
        where, f"tags.`{tag}` = '{run_id}'", view=ViewType.ALL, max_results=_MAX_RELATED, order_by=["start_time ASC"]
    )
    return [_reference(one) for one in found]


def _revisions(call: Call, run_id: str) -> list[records.Json]:
    try:
        found = code.history(call.hub.tracker.repo, run_id, _MAX_RELATED)
    except (CorruptError, NotFoundError):  # a shallow clone, or damage that `gittrack fsck` names
        return []
    return [{"commit": oid, "time": 1000 * seconds} for oid, seconds in found]


def _dataset(found: DatasetInput) -> records.Json:
    context = next((tag.value for tag in found.tags if tag.key == _CONTEXT_TAG), "")
    return {**records.dataset_input(found)["dataset"], "context": context}


def _models(call: Call, model_ids: Iterable[str]) -> list[records.Json]:
    """Logged models that are there and that the caller may know of."""
    hub = call.hub
    found = []
    for model_id in list(model_ids)[:_MAX_RELATED]:
        try:
            found.append(hub.logged_model(model_id))
        except (NotFoundError, InvalidValueError):
            continue
    readable = set(hub.readable(call.caller, list({one.experiment_id for one in found})))
    return [
        {"model_id": one.model_id, "name": one.name, "run_id": one.source_run_id, "path": one.path}
        for one in found
        if one.experiment_id in readable and one.lifecycle_stage == LifecycleStage.ACTIVE
    ]


def _versions(call: Call, run_id: str) -> list[records.Json]:
    found = call.hub.registry.search_versions(f"run_id = '{run_id}'", _MAX_RELATED, ["name ASC"])
    return [
        {"name": one.name, "version": one.version, "stage": one.current_stage, "aliases": one.aliases, "path": one.path}
        for one in found
        if call.caller.may(Role.READER, model=one.name)
    ]


_SEVERAL: Final = Message(run_ids=texts(required=True))
_AT: Final = "{api}/gittrack/runs"

ROUTES: Final = (
    Route("GET", f"{_AT}/compare", Permission(Role.READER), _compare, _SEVERAL),
    Route("GET", f"{_AT}/environment", Permission(Role.READER), _environment, _SEVERAL),
    Route("GET", f"{_AT}/files", Permission(Role.READER), _files, _SEVERAL),
    Route("GET", f"{_AT}/lineage", Permission(Role.READER, run_scope), _lineage, Message(run_id=text(required=True))),
)
