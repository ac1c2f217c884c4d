"""What the web page shows of registered models, besides what MLflow's routes tell.

Signatures, numbers that no remote has taken yet, conflicts and who did what are read from the tags that hold them.  Who
may read a model may not therefore read the runs that it came from: of those of experiments that are hidden from him the
id is said, as MLflow's routes do, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, TypeVar

from gittrack.errors import CorruptError, GittrackError, InvalidValueError, NotFoundError, PolicyError
from gittrack.models import requirements
from gittrack.models.model import MAX_BYTES, MLMODEL, Model
from gittrack.registry import names, policy, signing
from gittrack.registry.events import AliasTag, Event, StageTag
from gittrack.registry.registry import Registry
from gittrack.registry.state import Change, Conflict, ModelState
from gittrack.server.hub import records
from gittrack.server.hub.app import Hub
from gittrack.server.hub.messages import Message, Values, integer, number, text
from gittrack.server.hub.registry import (
    MAINTAIN,
    NAME,
    NUMBER,
    ONE_VERSION,
    READ,
    REASON,
    model_json,
    told,
    version_json,
)
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route
from gittrack.store import gateway
from gittrack.track import compare
from gittrack.types import Artifact, Digest, ModelVersion, ModelVersionStages, ObjectId, Run

_VERSIONS: Final = 200  #: that are shown at a time
_CHANGES: Final = 100
_MOST: Final = 1000
#: Requirements of more bytes are not read for the page.
_MOST_LINES: Final = 1 << 20

Json = dict[str, Any]
#: The files of a version: path to digest and size.
Files = Mapping[str, tuple[Digest, int]]
T = TypeVar("T")


def _page(found: Sequence[T], values: Values, size: int) -> Sequence[T]:
    start, most = values.get("offset", 0), values.get("max_results", size)
    if start < 0 or most < 0:
        raise InvalidValueError("`offset` and `max_results` are not negative")
    return found[start : start + most]


# --- a model


def _state(call: Call) -> Json:
    """A model with its versions, the newest first, and what clones disagree about."""
    hub, values = call.hub, call.values
    registry = hub.registry
    model = registry.get_model(values["name"])
    state = registry.catalog.state(model.key)
    found = registry.versions(model.name)[::-1]
    verifier = signing.Verifier(registry.catalog)
    return {
        "model": model_json(call.caller, model),
        **_standing(call, model.name),
        "remote": gateway.default_remote(registry.repo.paths, registry.repo.git.head_branch()),
        "total": len(found),
        "versions": [_version(call, state, one, verifier) for one in _page(found, values, _VERSIONS)],
        "conflicts": [_conflict(registry, state, one) for one in state.conflicts],
        "problems": state.problems,
    }


def _standing(call: Call, name: str) -> Json:
    """What the caller may do with a model and, if he may put it somewhere, what the team asks for there."""
    role = max((one for one in Role if call.caller.may(one, model=name)), default=Role.READER)
    said: Json = {"role": role.name.lower(), "rules": [], "rules_trouble": ""}
    if role >= Role.MAINTAINER:
        try:
            said["rules"] = [asdict(rule) for rule in policy.load(call.hub.tracker.repo).values()]
        except InvalidValueError as error:
            said["rules_trouble"] = str(error)
    return said


def _version(call: Call, state: ModelState, version: ModelVersion, verifier: signing.Verifier) -> Json:
    registry = call.hub.registry
    places = [f"@{alias}" for alias in version.aliases]
    if version.current_stage in ModelVersionStages.ACTIVE:
        places.insert(0, version.current_stage)
    return {
        **version_json(call.caller, version),
        "published": not registry.catalog.unpublished(version),
        "signed": _verified(signing.verify_version(registry.catalog, version, verifier)),
        "conflict": state.conflict(f"v{version.version}") is not None,
        "refused": [said for place in places if (said := _refusal(registry, version, place))],
    }


def _refusal(registry: Registry, version: ModelVersion, place: str) -> str:
    """Why a version would not be loaded from a stage or by an alias; empty if it would."""
    try:
        policy.check_load(registry.catalog, version, place)
    except (PolicyError, InvalidValueError, CorruptError, NotFoundError) as error:
        return error.message
    return ""


def _verified(found: signing.Verification) -> Json:
    said = asdict(found)
    del said["hint"]  # it is about the server's own git
    return said


def _conflict(registry: Registry, state: ModelState, conflict: Conflict) -> Json:
    own = {event.oid for event in registry.catalog.own_events(state.key)}
    sides = [{**_event(event), "here": event.oid in own} for event in conflict.events]
    return {"about": list(conflict.about), "events": sides}


def _event(event: Event) -> Json:
    """What an event of a stage, an alias or a version says."""
    said: Json = {"who": event.who, "time": event.time, "reason": event.reason, "tag": event.tag, "title": event.title}
    if isinstance(event, StageTag):
        return {**said, "version": event.version, "stage": event.stage}
    if isinstance(event, AliasTag):
        return {**said, "version": event.version, "alias": event.alias}
    return {**said, "version": event.number}


def _history(call: Call) -> Json:
    """The audit trail of a model or of one version, the newest first."""
    values, registry = call.values, call.hub.registry
    state = registry.state(values["name"])
    version = values.get("version")
    found = [one for one in state.history() if version is None or one.version == int(version)][::-1]
    return {"total": len(found), "changes": [_change(state, one) for one in _page(found, values, _CHANGES)]}


def _change(state: ModelState, change: Change) -> Json:
    event = state.event(ObjectId(change.oid)) if change.oid else None
    replaced = event.replaces if isinstance(event, (StageTag, AliasTag)) else ()
    return {**change._asdict(), "replaces": [one.tag for one in replaced]}


def _settle(call: Call) -> Json:
    values = call.values
    found = call.hub.registry.settle(values["name"], values["about"], values.get("version"), values.get("reason", ""))
    return {} if found is None else {"model_version": version_json(call.caller, found)}


# --- a version


def _overview(call: Call) -> Json:
    """Everything about one version: where it came from, where it is in use, what it takes, its files."""
    registry, values = call.hub.registry, call.values
    version = registry.get_version(values["name"], values["version"])
    state = registry.catalog.state(version.key)
    verifier = signing.Verifier(registry.catalog)
    held = signing.holding(state, int(version.version))
    files, trouble = _files(registry, version)
    return {
        **_standing(call, version.name),
        "version": _version(call, state, version, verifier),
        "tags": [
            _verified(verifier.verify(tag, state)) for tag in dict.fromkeys([version.tag, *(e.tag for e in held)])
        ],
        "trouble": trouble,
        "manifest": version.manifest,
        "commit": version.commit,
        "path": version.path,
        "files": [{"path": path, "size": size, "sha256": digest} for path, (digest, size) in files.items()],
        "uses": [_event(event) for event in held if not (isinstance(event, StageTag) and event.approves)],
        "lineage": _lineage(call, version),
        "requirements": _requirements(registry, version, files),
        **_schema(registry, files),
    }


def _files(registry: Registry, version: ModelVersion) -> tuple[Files, str]:
    """The files of a version, or why they cannot be told."""
    try:
        return registry.manifest(version).files, ""
    except (CorruptError, NotFoundError) as error:
        return {}, error.message


def _sees(call: Call, run_id: str | None) -> bool:
    """Whether the caller may read a run."""
    if call.caller.may(Role.READER):
        return True
    try:
        Permission(Role.READER, lambda hub, _: [hub.run_scope(str(run_id))]).check(call.caller, call.hub, {})
    except NotFoundError:
        return False
    return True


def _lineage(call: Call, version: ModelVersion) -> Json:
    """The data, the code and the run that a version came from."""
    if version.elsewhere or not _sees(call, version.run_id):  # of files elsewhere the run here tells nothing
        return {"run": None, "datasets": [], "models": []}
    try:
        run = call.hub.registry.run_of(version)
    except (CorruptError, NotFoundError):
        return {"run": None, "datasets": [], "models": []}
    return {
        "run": _run(call.hub, run),
        "datasets": [records.dataset_input(one) for one in run.inputs.dataset_inputs],
        "models": [one.model_id for one in run.inputs.model_inputs],
    }


def _run(hub: Hub, run: Run) -> Json:
    try:
        info = hub.run(run.info.run_id).info  # it may have been registered while it went on
    except NotFoundError:  # it is in another clone
        info = run.info
    found = {one.experiment_id: one.name for one in hub.experiments()}
    code = {name: run.code.get(name) for name in ("commit", "branch", "dirty")}
    metrics = {key: number(value) for key, value in sorted(run.data.metrics.items())}
    return {
        **records.run_info(info),
        "experiment": found.get(info.experiment_id, ""),
        "code": code,
        "metrics": metrics,
        "params": dict(sorted(run.data.params.items())),
    }


def _requirements(registry: Registry, version: ModelVersion, files: Files) -> Json:
    """The lines that were recorded, those that hold, and who changed them; only of bytes that are here."""
    try:
        data = _bytes(registry, files, requirements.REQUIREMENTS, _MOST_LINES)
        recorded = None if data is None else requirements.parse(data)
    except GittrackError as error:
        return {"recorded": None, "lines": [], "changed": False, "history": [], "trouble": error.message}
    override = registry.requirements(version.name, version.version)
    history = registry.requirements_history(version.name, version.version)
    return {
        "recorded": recorded,
        "lines": (recorded or []) if override is None else override.splitlines(),
        "changed": override is not None,
        "history": [{"time": one.time, "who": one.who, "value": one.value, "reason": one.reason} for one in history],
        "trouble": "",
    }


def _schema(registry: Registry, files: Files) -> Json:
    """What MLmodel says that a model takes and gives, its flavours, and whether it brings code of its own."""
    nothing: Json = {"signature": None, "flavors": [], "runs_code": False}
    try:
        data = _bytes(registry, files, MLMODEL, MAX_BYTES)
        model = None if data is None else Model.from_bytes(data)
    except GittrackError as error:
        return {**nothing, "schema_trouble": error.message}
    if model is None:
        return nothing
    sides = (model.get_input_schema(), model.get_output_schema(), model.get_params_schema())
    parts = zip(("inputs", "outputs", "params"), sides, strict=True)
    return {
        "signature": {name: None if side is None else side.to_dict() for name, side in parts} if any(sides) else None,
        "flavors": sorted(model.flavors),
        "runs_code": bool(model.gittrack.get("runs_code")),
    }


def _bytes(registry: Registry, files: Files, name: str, most: int) -> bytes | None:
    """A small file of a model; None if there is none, or its bytes are not here: nothing is fetched for a page."""
    if name not in files:
        return None
    digest, size = files[name]
    objects = registry.repo.objects
    return objects.read(digest) if size <= most and objects.has(digest, size) else None


# --- two versions


def _diff(call: Call) -> Json:
    """What differs between two versions of a model: of their runs, for those who may read both, and of their files."""
    registry, values = call.hub.registry, call.values
    pair = [registry.get_version(values["name"], values[which]) for which in ("version", "other")]
    files = [{path: Artifact(path, *about) for path, about in registry.manifest(one).files.items()} for one in pair]
    runs = [registry.run_of(one) for one in pair]
    found = compare.compare(runs[0], runs[1], files[0], files[1])
    seen = all(_sees(call, one.run_id) for one in pair)
    said: Json = {
        "versions": [version_json(call.caller, one) for one in pair],
        "runs_seen": seen,
        "artifacts": {path: {"a": _artifact(one.a), "b": _artifact(one.b)} for path, one in found.artifacts.items()},
        "same": {"artifacts": found.same["artifacts"]},
        "requirements": [_requirements(registry, one, registry.manifest(one).files)["lines"] for one in pair],
        "signatures": [_schema(registry, registry.manifest(one).files)["signature"] for one in pair],
    }
    if seen:
        said["params"] = {key: asdict(one) for key, one in found.params.items()}
        said["metrics"] = {key: {"a": _value(one.a), "b": _value(one.b)} for key, one in found.metrics.items()}
        said["environment"] = {key: asdict(one) for key, one in found.environment.items()}
        said["same"] = found.same
    return said


def _artifact(one: Artifact | None) -> Json | None:
    return None if one is None else {"sha256": one.digest, "size": one.size}


def _value(value: float | None) -> float | str | None:
    return None if value is None else number(value)


_PAGE: Final = {"max_results": integer(most=_MOST), "offset": integer(most=1 << 31)}
_ANY_NUMBER: Final = replace(NUMBER, required=False)
_MODELS: Final = "{api}/gittrack/registered-models"
_VERSION: Final = "{api}/gittrack/model-versions"

_ROUTES: Final = (
    Route("GET", f"{_MODELS}/state", READ, _state, Message(name=NAME, **_PAGE)),
    Route("GET", f"{_MODELS}/history", READ, _history, Message(name=NAME, version=_ANY_NUMBER, **_PAGE)),
    Route(
        "POST",
        f"{_MODELS}/settle",
        MAINTAIN,
        _settle,
        Message(
            name=NAME,
            about=text(required=True, longest=names.MAX_PART),
            version=_ANY_NUMBER,
            reason=REASON,
        ),
    ),
    Route("GET", f"{_VERSION}/overview", READ, _overview, ONE_VERSION),
    Route("GET", f"{_VERSION}/diff", READ, _diff, Message(name=NAME, version=NUMBER, other=NUMBER)),
)

ROUTES: Final = tuple(replace(route, handler=told(route.handler)) for route in _ROUTES)
