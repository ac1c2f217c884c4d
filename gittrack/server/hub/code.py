"""The code of runs for the web page: the files that one ran, what of them was not committed, how two runs differ.

The code that a run ran is part of it: whoever may read its experiment may see it, as he does who fetches the run by
git.  What is kept out of it (secrets, files that are too large) is not here either.
"""

from __future__ import annotations

from typing import Any, Final

from gittrack.errors import TooLargeError
from gittrack.server.hub.app import Hub
from gittrack.server.hub.messages import Message, Values, integer, messages, text
from gittrack.server.hub.roles import Role
from gittrack.server.hub.routes import Call, Permission, Route, Scope
from gittrack.track import code, compare

_MAX_FILES: Final = 2000  #: that one answer lists
_MAX_PATCH: Final = 1 << 20  #: characters


def _sides(call: Call) -> tuple[str, str]:
    """The code that is compared: another run's, or what was committed, and the run's."""
    hub, values = call.hub, call.values
    repo, run = hub.tracker.repo, hub.run(values["run_id"])
    nothing = compare.empty_tree(repo)
    mine = compare.code_tree(run)
    if values.get("base_run_id"):
        return compare.code_tree(hub.run(values["base_run_id"])) or nothing, mine or nothing
    return (nothing, nothing) if mine is None else (code.base_of(repo, run), mine)


def _changes(call: Call) -> Any:
    found = code.changes(call.hub.tracker.repo, *_sides(call))
    files = [
        {"path": one.path, "status": one.status}
        | {name: value for name in ("old_path", "added", "deleted") if (value := getattr(one, name)) is not None}
        for one in found[:_MAX_FILES]
    ]
    return {"total": len(found), "files": files}


def _diff(call: Call) -> Any:
    values = call.values
    found = code.patch(call.hub.tracker.repo, *_sides(call), values["path"], values.get("old_path") or None)
    if len(found) > _MAX_PATCH:
        raise TooLargeError(
            f"`{values['path']}` differs in more than can be shown here", hint="`gittrack diff` shows all of it"
        )
    return {"diff": found}


def _files(call: Call) -> Any:
    hub, values = call.hub, call.values
    found = code.entries(hub.tracker.repo, hub.run(values["run_id"]), values.get("path", ""))
    shown = found[:_MAX_FILES]
    sizes = hub.tracker.repo.git.headers(one.oid for one in shown if one.kind == "file")
    return {
        "total": len(found),
        "files": [
            {"name": one.name, "kind": one.kind} | ({"size": sizes[one.oid].size} if one.oid in sizes else {})
            for one in shown
        ],
    }


def _file(call: Call) -> Any:
    found = code.read(call.hub.tracker.repo, call.hub.run(call.values["run_id"]), call.values["path"])
    return {"kind": found.kind, "size": found.size} | ({} if found.text is None else {"text": found.text})


def _scopes(hub: Hub, values: Values) -> list[Scope]:
    return [hub.run_scope(values[name]) for name in ("run_id", "base_run_id") if values.get(name)]


_RUN: Final = text(required=True)
_NAME: Final = text(required=True)
_AT: Final = "{api}/gittrack/runs/code"
_READ: Final = Permission(Role.READER, _scopes)

ROUTES: Final = (
    Route(
        "GET",
        f"{_AT}/changes",
        _READ,
        _changes,
        Message(run_id=_RUN, base_run_id=text()),
        answer=Message(
            total=integer(required=True),
            files=messages(
                Message(path=_NAME, status=_NAME, old_path=text(), added=integer(), deleted=integer()), required=True
            ),
        ),
    ),
    Route(
        "GET",
        f"{_AT}/diff",
        _READ,
        _diff,
        Message(run_id=_RUN, base_run_id=text(), path=_NAME, old_path=text()),
        answer=Message(diff=text(required=True)),
    ),
    Route(
        "GET",
        f"{_AT}/files",
        _READ,
        _files,
        Message(run_id=_RUN, path=text()),
        answer=Message(
            total=integer(required=True),
            files=messages(Message(name=_NAME, kind=_NAME, size=integer()), required=True),
        ),
    ),
    Route(
        "GET",
        f"{_AT}/file",
        _READ,
        _file,
        Message(run_id=_RUN, path=_NAME),
        answer=Message(kind=_NAME, size=integer(required=True), text=text()),
    ),
)
