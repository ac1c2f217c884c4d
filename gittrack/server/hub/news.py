"""What happened in a repository since it was looked at last: runs that ended, versions, stages, aliases.

Read from git's refs and not from requests, so that it is all the same how something came about: by REST, by a push, by
a run that was sealed, by a command in the repository, before or after the server was started.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from gittrack.errors import GittrackError
from gittrack.registry import names
from gittrack.registry.catalog import Catalog
from gittrack.registry.state import Change
from gittrack.store import layout
from gittrack.store.repo import Repo
from gittrack.types import ObjectId

RUN_FINISHED: Final = "run.finished"
VERSION_CREATED: Final = "model_version.created"
STAGE_CHANGED: Final = "model_version.stage_changed"
ALIAS_SET: Final = "model_version.alias_set"
ALIAS_DELETED: Final = "model_version.alias_deleted"
EVENTS: Final = (RUN_FINISHED, VERSION_CREATED, STAGE_CHANGED, ALIAS_SET, ALIAS_DELETED)

_TAGS: Final = "refs/tags/models/"
_log = logging.getLogger("gittrack.server")


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened.

    Attributes:
        event: One of ``EVENTS``.
        key: The same for the same happening, whoever looks.
        time: Milliseconds since 1970.
        actor: Who did it, as git has it.
        ref: The ref that tells of it.
        facts: What it is about, for JSON.
    """

    event: str
    key: str
    time: int
    actor: str
    ref: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """The refs of a repository at one time."""

    ledgers: Mapping[str, ObjectId] = field(default_factory=dict)
    tags: Mapping[str, ObjectId] = field(default_factory=dict)


def look(repo: Repo) -> Seen:
    """The refs as they are now."""
    return Seen(repo.ledger_refs(), repo.git.refs(_TAGS))


def between(repo: Repo, old: Seen, new: Seen) -> Iterator[Happening]:
    """What happened between two looks, as far as it can be read."""
    for ref, oid in new.ledgers.items():
        before = old.ledgers.get(ref)
        if before == oid:
            continue
        try:
            yield from _runs(repo, ref, before, oid)
        except GittrackError as error:
            _log.warning("no webhooks for `%s`: %s", ref, error)
    tags = {ref: oid for ref, oid in new.tags.items() if old.tags.get(ref) != oid}
    if not tags:
        return
    catalog = Catalog(repo)
    catalog.refresh()
    keys = set()
    for ref in tags:
        try:
            keys.add(names.parse_tag(ref.removeprefix("refs/tags/")).key)
        except GittrackError:  # no event: somebody's own tag
            continue
    oids = set(tags.values())
    for key in sorted(keys):
        state = catalog.state(key)
        for change in state.history():
            if change.oid in oids:
                yield from _change(state.name, change)


def _runs(repo: Repo, ref: str, before: ObjectId | None, now: ObjectId) -> Iterator[Happening]:
    known = layout.parse_ledger_ref(ref)
    if before is not None and not repo.git.exists(before):
        before = None  # rewritten by a purge; what was told before is told once
    experiment = "" if known is None else known[0]
    states = repo.experiment_states()
    for run_id, old, new in repo.git.ledger_diff(before, now):
        if new is None:
            continue
        state = repo.stored_state(run_id, [new])
        if state is None or state.keeper or not state.terminated:
            continue
        if old is not None:
            earlier = repo.stored_state(run_id, [old])
            if earlier is not None and earlier.terminated:
                continue  # an edit of a run that had ended
        info = state.to_run(repo.artifact_uri(run_id)).info
        at = states.get(experiment)
        facts = {
            "run_id": run_id,
            "run_name": info.run_name,
            "status": info.status,
            "experiment_id": info.experiment_id,
            "experiment": None if at is None else at.to_experiment().name,
            "commit": str(new),
        }
        yield Happening(RUN_FINISHED, f"run {run_id}", info.end_time or 0, info.user_id or "", ref, facts)


def _change(name: str, change: Change) -> Iterator[Happening]:
    facts: dict[str, Any] = {"model": name, "version": None if change.version is None else str(change.version)}
    if change.what == "version":
        event = VERSION_CREATED
        facts |= {"source": change.new}
    elif change.what == "stage":
        event = STAGE_CHANGED
        facts |= {"from_stage": change.old, "to_stage": change.new, "reason": change.reason}
    elif change.what.startswith("@"):
        event = ALIAS_DELETED if change.new is None else ALIAS_SET
        facts |= {"alias": change.what[1:], "from_version": change.old, "to_version": change.new}
    else:
        return
    key = f"{change.oid} {change.version}"
    yield Happening(event, key, change.time, change.who, f"refs/tags/{change.tag}", facts)
