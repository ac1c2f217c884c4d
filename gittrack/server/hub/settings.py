"""What the settings of the web page show and change: accounts, the audit log, remotes, webhooks, storage.

Everybody sees to tokens of his own; the rest is for administrators.  Accounts are begun on the command line, by whoever
can write the server's files: where there are none yet, a page that everybody on the machine may open gives nobody one.
Passwords and tokens travel in bodies only, and nothing here answers with a hash or, but once, with a secret.
"""

from __future__ import annotations

import platform
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from gittrack import config
from gittrack._version import __version__
from gittrack.errors import CorruptError, GittrackError, InvalidValueError, NotFoundError, StateError, shown
from gittrack.server.hub.accounts import LONGEST_PASSWORD, TokenRecord, UserRecord, now
from gittrack.server.hub.audit import Event
from gittrack.server.hub.messages import Message, Values, integer, text
from gittrack.server.hub.projects import Projects
from gittrack.server.hub.roles import Grant, Role, described
from gittrack.server.hub.routes import Call, Permission, Route
from gittrack.server.hub.webhooks import DEAD, DELIVERED, KEY_FILE, WAITING, Delivery, Keys, Webhooks
from gittrack.store import check, gateway, usage
from gittrack.store.objects import ObjectStore
from gittrack.sync import pull, remotes
from gittrack.sync.standing import standing

if TYPE_CHECKING:
    from gittrack.server.hub.guard import Guard

_DAY: Final = 86_400_000
_MOST_DAYS: Final = 3650
_LINES: Final = 100
_MOST_LINES: Final = 1000

Json = dict[str, Any]


def _guard(call: Call) -> Guard:
    found: Guard = call.request.scope["gittrack.guard"]
    return found


def _with_accounts(call: Call) -> Guard:
    """The guard of a server that has accounts.  Raises StateError if there are none yet."""
    guard = _guard(call)
    if not guard.auth.has_accounts:
        raise StateError(
            "nobody has an account on this server",
            hint="`gittrack server user add NAME --role admin` begins with one, on the machine of the server",
        )
    return guard


# --- who asks, and his tokens


def _me(call: Call) -> Json:
    return {
        "name": call.caller.name,
        "kind": call.caller.kind,
        "is_admin": call.caller.may(Role.ADMIN),
        "may": described(call.caller.grants),
        "accounts": _guard(call).auth.has_accounts,
    }


def _own(guard: Guard, call: Call) -> list[TokenRecord]:
    """The tokens of the user who asks that have not ended."""
    user = next((one for one in guard.auth.accounts.users() if one.name == call.caller.name), None)
    if call.caller.kind != "user" or user is None:
        return []
    mine = (user.name, user.created)
    return [one for one in guard.auth.accounts.tokens() if one.owner == mine and not one.has_ended]


def _own_tokens(call: Call) -> Json:
    return {"tokens": [_token(one) for one in _own(_guard(call), call)]}


def _create_own(call: Call) -> Json:
    guard, values = _guard(call), call.values
    if call.caller.kind != "user":
        raise StateError("only somebody who logged in as a user makes tokens of his own")
    role = _role(values["role"])
    if role is None:
        raise InvalidValueError("a token is for some role")
    record, token = guard.auth.accounts.create_own_token(call.caller.name, values["name"], role, expires=_until(values))
    _note(call, "token.create", f"{record.name} ({record.id}): at most {role.name.lower()}")
    return {**_token(record), "token": str(token)}


def _revoke_own(call: Call) -> Json:
    guard = _guard(call)
    found = next((one for one in _own(guard, call) if one.id == call.values["id"]), None)
    if found is None:
        raise NotFoundError("you have no such token")
    guard.auth.accounts.revoke_token(found.id)
    _note(call, "token.revoke", f"{found.name} ({found.id})")
    return {}


def _note(call: Call, what: str, about: str) -> None:
    """Write to the audit log; what takes a maintainer or more is written there by the application itself."""
    address: str = call.request.scope["gittrack.address"]
    _guard(call).audit.record(Event(call.caller.name, call.caller.kind, what, about, address))


def _until(values: Values) -> int | None:
    days = values.get("days")
    if days is None:
        return None
    if not 1 <= days <= _MOST_DAYS:
        raise InvalidValueError(f"a token ends after 1 to {_MOST_DAYS} days, or never")
    return now() + int(days) * _DAY


def _token(one: TokenRecord) -> Json:
    return {
        "id": one.id,
        "name": one.name,
        "owner": None if one.owner is None else one.owner[0],
        "may": described(one.grants),
        "role": next((grant.role.name.lower() for grant in one.grants if grant.role is not None), None),
        "created": one.created,
        "created_by": one.created_by if one.owner is None else one.owner[0],
        "expires": one.expires,
        "last_used": one.last_used,
        "ended": one.has_ended,
    }


# --- users, and the tokens of programs


def _accounts(call: Call) -> Json:
    accounts = _guard(call).auth.accounts
    return {"users": [_user(one) for one in accounts.users()], "tokens": [_token(one) for one in accounts.tokens()]}


def _user(one: UserRecord) -> Json:
    grants = [
        {"role": None if grant.role is None else grant.role.name.lower(), "experiments": grant.experiments,
         "models": grant.models}
        for grant in one.grants
    ]  # fmt: skip
    return {
        "name": one.name,
        "grants": grants,
        "may": described(one.all_grants),
        "identities": [{"issuer": known.issuer, "may": described(known.grants)} for known in one.identities],
        "has_password": bool(one.password),
        "created": one.created,
        "created_by": one.created_by,
    }


def _role(said: str) -> Role | None:
    """A role by name; None denies."""
    if said == "none":
        return None
    if said.upper() not in Role.__members__:
        raise InvalidValueError("there is no such role", hint="reader, writer, maintainer, admin, or none to deny")
    return Role[said.upper()]


def _grant(values: Values) -> Grant:
    """What is said of experiments and models; of neither: of everything."""
    experiments, models = values.get("experiments") or None, values.get("models") or None
    role = _role(values["role"])
    if experiments is None and models is None:
        if role is None:
            raise InvalidValueError("what is denied?", hint="a pattern of experiments, of models, or both")
        experiments = models = "*"
    return Grant(role, experiments, models)


def _add_user(call: Call) -> Json:
    guard, values = _with_accounts(call), call.values
    added = guard.auth.accounts.add_user(values["name"], values["password"], [_grant(values)], by=call.caller.name)
    return {"user": _user(added)}


def _give(call: Call) -> Json:
    guard, grant = _with_accounts(call), _grant(call.values)
    changed = guard.auth.accounts.set_grants(call.values["name"], lambda before: tuple(dict.fromkeys((*before, grant))))
    return {"user": _user(changed)}


def _take(call: Call) -> Json:
    guard, grant, name = _with_accounts(call), _grant(call.values), call.values["name"]

    def without(before: tuple[Grant, ...]) -> list[Grant]:
        if grant not in before:
            raise NotFoundError(f"`{name}` was not given that")
        return [one for one in before if one != grant]

    _require_another(call, name)
    return {"user": _user(guard.auth.accounts.set_grants(name, without))}


def _set_password(call: Call) -> Json:
    _with_accounts(call).auth.accounts.set_password(call.values["name"], call.values["password"])
    return {}


def _remove_user(call: Call) -> Json:
    guard = _with_accounts(call)
    _require_another(call, call.values["name"])
    guard.auth.accounts.remove_user(call.values["name"])
    return {}


def _require_another(call: Call, name: str) -> None:
    """Keep an administrator from locking himself out.  Raises StateError."""
    if call.caller.kind == "user" and call.caller.name == name:
        raise StateError("that is your own account", hint="another administrator, or the command line, can do that")


def _create_token(call: Call) -> Json:
    guard, values = _with_accounts(call), call.values
    record, token = guard.auth.accounts.create_token(
        values["name"], [_grant(values)], by=call.caller.name, expires=_until(values)
    )
    return {**_token(record), "token": str(token)}


def _revoke_token(call: Call) -> Json:
    _with_accounts(call).auth.accounts.revoke_token(call.values["id"])
    return {}


# --- the audit log


def _audit(call: Call) -> Json:
    """Lines, the newest first, that have a text in them; and whether the chain holds."""
    audit, values = _guard(call).audit, call.values
    wanted, before = values.get("search", "").lower(), values.get("before")
    most = values.get("max_results", _LINES)
    if not 1 <= most <= _MOST_LINES:
        raise InvalidValueError(f"`max_results` is between 1 and {_MOST_LINES}")
    found: deque[Json] = deque(maxlen=most + 1)
    broken = ""
    try:
        for line in audit.lines():
            if before is not None and line["seq"] >= before:
                break
            shown = {name: line.get(name, "") for name in _SHOWN}
            if wanted in " ".join(map(str, shown.values())).lower():
                found.append(shown)
    except CorruptError as error:
        broken = error.message
    lines = list(found)[::-1]
    return {"lines": lines[:most], "more": len(lines) > most, "broken": broken}


_SHOWN: Final = ("seq", "time", "who", "how", "what", "object", "address", "outcome")


def _verify(call: Call) -> Json:
    try:
        newest = _guard(call).audit.verify()
    except CorruptError as error:
        return {"broken": error.message}
    return {"line": newest.seq, "hash": newest.hash, "broken": ""}


# --- remotes, storage, the server


def _remotes(call: Call) -> Json:
    """Every remote, and how this repository stands to it by what was last seen there."""
    repo = call.hub.tracker.repo
    default = gateway.default_remote(repo.paths, repo.git.head_branch())
    return {"remotes": [_remote(call, one, default) for one in remotes.remotes(repo, _prefix(call)).values()]}


def _remote(call: Call, remote: remotes.Remote, default: str | None) -> Json:
    said: Json = {"name": remote.name, "url": remote.url, "default": remote.name == default, "trouble": ""}
    try:
        return {**said, **standing(call.hub.tracker.repo, remote)._asdict()}
    except GittrackError as error:
        return {**said, "trouble": error.message}


def _prefix(call: Call) -> str:
    paths = call.hub.tracker.repo.paths
    return config.current(paths.work_tree or paths.main_root).ref_prefix


def _look(call: Call) -> Json:
    """Ask a remote what it has, and take nothing over: `gittrack fetch`."""
    name = call.values["remote"]
    remote = remotes.remotes(call.hub.tracker.repo, _prefix(call)).get(name)
    if remote is None:  # addresses are no remotes: nobody sends the server where he likes
        raise NotFoundError(f"no remote `{shown(name)}`", hint="`gittrack remote add NAME URL` makes one")
    report = pull.pull(call.hub.registry, remote, take_over=False)
    return {"new": len(report.wanted), "refused": report.refused}


def _storage(call: Call) -> Json:
    repo = call.hub.tracker.repo
    found = usage.usage(repo)
    names = {one.experiment_id: one.name for one in call.hub.experiments()}
    report = check.gc(repo, dry_run=True)
    experiments = [
        {"experiment_id": key, "name": names.get(key, key), **asdict(share)} for key, share in found.experiments.items()
    ]
    return {
        **asdict(found),
        "experiments": sorted(experiments, key=lambda one: -one["distinct"]),
        "dropped": len(report.objects),
        "dropped_size": report.size,
        "kept_young": report.kept_young,
        "grace_days": check.GRACE_SECONDS // 86_400,
    }


def _webhooks(call: Call) -> Json:
    """Every webhook, what became of its deliveries, and of those that failed the last one; never its secret."""
    guard = _guard(call)
    webhooks = Webhooks(guard.auth.accounts, Keys(guard.audit.folder / KEY_FILE))
    counts, last = webhooks.counts(), webhooks.last_delivered()
    return {
        "webhooks": [
            {
                **asdict(one),
                **{state: counts.get(one.id, {}).get(state, 0) for state in (WAITING, DELIVERED, DEAD)},
                "last_delivered": last.get(one.id),
                "trouble": next(map(_trouble, webhooks.troubles(one.id, 1)), None),
            }
            for one in webhooks.all()
        ]
    }


def _trouble(one: Delivery) -> Json:
    return {
        "event": one.event,
        "created": one.created,
        "tries": one.tries,
        "error": one.error,
        "again": one.due if one.state == WAITING else None,
    }


def _server(call: Call) -> Json:
    repo, guard = call.hub.tracker.repo, _guard(call)
    return {
        "version": __version__,
        "python": platform.python_version(),
        "store": str(repo.root),
        "database": "SQLite" if repo.frames is None else "PostgreSQL",
        "objects": "files" if type(repo.objects) is ObjectStore else "a bucket",
        "projects": Projects(repo).names(),
        "tls": call.request.url.scheme == "https",
        "loopback": guard.options.loopback,
        "public": call.hub.options.public,
    }


_SETTINGS: Final = "{api}/gittrack/settings"
_EVERYBODY: Final = Permission(Role.READER)
_ADMIN: Final = Permission(Role.ADMIN)
_NAME: Final = text(required=True, longest=64)
_WHO: Final = text(required=True)  # somebody who is there, or not
_ROLE: Final = text(required=True)
_PASSWORD: Final = text(required=True, longest=LONGEST_PASSWORD)
_WHAT: Final = {"experiments": text(), "models": text()}
_ID: Final = Message(id=text(required=True))

ROUTES: Final = (
    Route("GET", f"{_SETTINGS}/me", _EVERYBODY, _me),
    Route("GET", f"{_SETTINGS}/own/tokens", _EVERYBODY, _own_tokens),
    Route(
        "POST",
        f"{_SETTINGS}/own/tokens",
        _EVERYBODY,
        _create_own,
        Message(name=_NAME, role=_ROLE, days=integer()),
    ),
    Route("DELETE", f"{_SETTINGS}/own/tokens", _EVERYBODY, _revoke_own, _ID),
    Route("GET", f"{_SETTINGS}/accounts", _ADMIN, _accounts),
    Route(
        "POST", f"{_SETTINGS}/users", _ADMIN, _add_user, Message(name=_NAME, password=_PASSWORD, role=_ROLE, **_WHAT)
    ),
    Route("DELETE", f"{_SETTINGS}/users", _ADMIN, _remove_user, Message(name=_WHO)),
    Route("POST", f"{_SETTINGS}/users/grants", _ADMIN, _give, Message(name=_WHO, role=_ROLE, **_WHAT)),
    Route("DELETE", f"{_SETTINGS}/users/grants", _ADMIN, _take, Message(name=_WHO, role=_ROLE, **_WHAT)),
    Route("POST", f"{_SETTINGS}/users/password", _ADMIN, _set_password, Message(name=_WHO, password=_PASSWORD)),
    Route(
        "POST",
        f"{_SETTINGS}/tokens",
        _ADMIN,
        _create_token,
        Message(name=_NAME, role=_ROLE, days=integer(), **_WHAT),
    ),
    Route("DELETE", f"{_SETTINGS}/tokens", _ADMIN, _revoke_token, _ID),
    Route(
        "GET",
        f"{_SETTINGS}/audit",
        _ADMIN,
        _audit,
        Message(search=text(), before=integer(), max_results=integer(most=_MOST_LINES)),
    ),
    Route("GET", f"{_SETTINGS}/audit/verify", _ADMIN, _verify),
    Route("GET", f"{_SETTINGS}/remotes", _ADMIN, _remotes),
    Route("POST", f"{_SETTINGS}/remotes/look", _ADMIN, _look, Message(remote=text(required=True))),
    Route("GET", f"{_SETTINGS}/storage", _ADMIN, _storage),
    Route("GET", f"{_SETTINGS}/webhooks", _ADMIN, _webhooks),
    Route("GET", f"{_SETTINGS}/server", _ADMIN, _server),
)
