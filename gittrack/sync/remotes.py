"""Remotes: which one is meant, what things are called there, and which names and addresses can be one's.

A ref of gittrack has one name in every clone, another one on a remote where ``gittrack.refPrefix`` moves it, and one
below ``refs/gittrack/remotes/<remote>/`` for what was last seen there.  Names that a remote sends are parsed here and
nowhere else; what is not exactly a ref that gittrack writes does not exist for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gittrack.errors import AlreadyExistsError, FormatError, InvalidValueError, NotFoundError, UsageError
from gittrack.store import gateway, layout

if TYPE_CHECKING:
    from gittrack.store.repo import Repo
    from gittrack.types import ObjectId

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}){0,4}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SCHEMES: Final = ("https", "http", "ssh", "git+ssh", "ssh+git", "file")
#: What can stand before ``:`` in git's short form for ssh, ``user@host:path``.
_HOST = re.compile(r"(?:[A-Za-z0-9_.+~-]+@)?(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]+)")
_RUNS: Final = "refs/runs/"
_DOCUMENTS: Final = "refs/gittrack/registry/"
_TAGS: Final = "refs/tags/"


@dataclass(frozen=True)
class Remote:
    """A remote of this clone.

    Attributes:
        name: As git's config has it.
        url: Where it is, without credentials: for people.
        push_url: Where pushes go, if that is somewhere else; as it stands in the config.
        prefix: Where ledgers and documents are on it, such as ``refs/heads/gittrack/``; empty: where they are here.
    """

    name: str
    url: str
    push_url: str | None = None
    prefix: str = ""

    def there(self, ref: str) -> str:
        """What one of this clone's refs is called on the remote."""
        if not self.prefix or ref.startswith(_TAGS):
            return ref
        return self.prefix + _short(ref)

    def here(self, ref: str) -> str | None:
        """The ref of this clone that a ref on the remote is; None if it is none of gittrack's."""
        if ref.startswith(_TAGS) or not self.prefix:
            local = ref
        elif ref.startswith(self.prefix):
            short = ref[len(self.prefix) :]
            local = f"refs/{short}" if short.startswith("runs/") else f"refs/gittrack/{short}"
        else:
            return None
        return local if is_shared(local) else None

    def seen(self, ref: str) -> str:
        """Where is kept what one of this clone's refs was last seen at on the remote."""
        return f"{layout.REMOTE_PREFIX}{self.name}/{_short(ref)}"

    def incoming(self, ref: str) -> str:
        """Where it is put when it has been fetched and was not looked at yet."""
        return f"{layout.INCOMING_PREFIX}{self.name}/{_short(ref)}"

    def seen_refs(self, repo: Repo) -> dict[str, ObjectId]:
        """What was last seen on the remote, by the names that the refs have here."""
        return self.seen_by(repo.git.refs)

    def seen_by(self, refs: Callable[[str], Mapping[str, ObjectId]]) -> dict[str, ObjectId]:
        """``seen_refs`` of a clone of which only the refs below a prefix can be asked for."""
        return _below(refs, f"{layout.REMOTE_PREFIX}{self.name}/")

    def incoming_refs(self, repo: Repo) -> dict[str, ObjectId]:
        """What was fetched and not looked at yet, likewise."""
        return _below(repo.git.refs, f"{layout.INCOMING_PREFIX}{self.name}/")


def _short(ref: str) -> str:
    """``runs/…``, ``registry/…`` or ``tags/models/…``."""
    return ref.removeprefix("refs/gittrack/").removeprefix("refs/")


def _below(refs: Callable[[str], Mapping[str, ObjectId]], prefix: str) -> dict[str, ObjectId]:
    found = {}
    for ref, oid in refs(prefix).items():
        short = ref[len(prefix) :]
        local = f"refs/gittrack/{short}" if short.startswith("registry/") else f"refs/{short}"
        if is_shared(local):
            found[local] = oid
    return found


def is_shared(ref: str) -> bool:
    """True for the refs that travel: ledgers, registry documents, registry tags; exactly as gittrack writes them."""
    if ref.startswith(_RUNS):
        return layout.parse_ledger_ref(ref) is not None
    if ref.startswith(_DOCUMENTS):
        return layout.is_writer(ref[len(_DOCUMENTS) :])
    if not ref.startswith(layout.TAG_PREFIX):
        return False
    from gittrack.registry import names  # a tenth of what a push takes that finds no tags and nothing to do

    try:
        names.parse_tag(ref[len(_TAGS) :])
    except FormatError:
        return False
    return True


# -- choosing ----------------------------------------------------------------------------------------------------------


def remotes(repo: Repo, prefix: str = "") -> dict[str, Remote]:
    """Every remote of the clone whose name can be one."""
    return {
        name: Remote(name, gateway.strip_credentials(url), gateway.push_url(repo.paths, name), prefix)
        for name, url in gateway.remotes(repo.paths).items()
        if is_name(name)
    }


def choose(repo: Repo, name: str | None = None, prefix: str = "") -> Remote:
    """The remote of that name; without one the branch's, else ``origin``, else the only one.

    Args:
        repo: The clone.
        name: A remote's name.
        prefix: The ``gittrack.refPrefix`` setting.

    Raises:
        NotFoundError: There is no such remote, or none at all, or several and none is meant.
        UsageError: A URL, or a file, in the place of a name.
    """
    known = remotes(repo, prefix)
    if name is None:
        name = gateway.default_remote(repo.paths, repo.git.head_branch())
        if name is None:
            shown = ", ".join(f"`{one}`" for one in known)
            hint = f"name one: {shown}" if known else "`gittrack remote add origin URL` names one"
            raise NotFoundError("this clone has no remote" if not known else "no remote is the default", hint=hint)
    if name in known:
        return known[name]
    if Path(name).is_file():
        import shlex

        command = f"gittrack unbundle {shlex.quote(name)}"
        raise UsageError(f"`{name:.200}` is a file, and no remote of this clone",
                         hint=f"`{command:.200}` takes over what a bundle has")  # fmt: skip
    if "/" in name or ":" in name:
        raise UsageError(f"`{gateway.strip_credentials(name):.200}` is no remote of this clone",
                         hint="`gittrack remote add NAME URL` gives it a name")  # fmt: skip
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "`gittrack remote list` shows them"
    raise NotFoundError(f"no remote `{name!s:.80}`", hint=hint)


# -- adding ------------------------------------------------------------------------------------------------------------


def is_name(name: str) -> bool:
    """True for what can be a remote's name: nothing in it could be an option, another setting or another folder."""
    return _NAME.fullmatch(name) is not None and ".." not in name and not re.search(r"\.lock(/|$)|\.(/|$)", name)


def check_url(url: str) -> str:
    """An address that git may be given.

    Raises:
        InvalidValueError: It could be an option, would start a program of its own choice, or has a password in it.
    """
    if not url or url.startswith("-") or any(ord(char) < 32 or ord(char) == 127 for char in url):
        raise InvalidValueError(f"invalid address `{gateway.strip_credentials(url)!r:.200}`", hint=_KINDS)
    shown = gateway.strip_credentials(url)
    scheme = _SCHEME.match(url)
    if scheme is None:
        if re.match(r"[A-Za-z0-9]*::", url):
            raise InvalidValueError(f"`{shown:.200}` asks for a program to be run", hint=_KINDS)
        host, colon, _ = url.partition(":")
        if colon and "/" not in host and not re.fullmatch(r"[A-Za-z]", host):  # else a path
            _check_host(host, shown)
        return url
    if scheme[1].lower() not in _SCHEMES:
        raise InvalidValueError(f"`{scheme[1]}://` is no kind of address that gittrack uses", hint=_KINDS)
    if scheme[1].lower() != "file":
        user, at, host = url[scheme.end() :].partition("/")[0].rpartition("@")
        if at and ":" in user:
            raise InvalidValueError(
                f"`{shown:.200}` was given with a password, which would stand in `.git/config`",
                hint="leave it out; git asks for it, and a credential helper (`git help credentials`) keeps it",
            )
        if user.startswith("-"):
            raise InvalidValueError(f"invalid address `{shown:.200}`", hint=_KINDS)
        _check_host(re.sub(r":[0-9]*$", "", host), shown)
    return url


_KINDS: Final = "use https://, ssh://, user@host:path, or a path"


def _check_host(host: str, shown: str) -> None:
    match = _HOST.fullmatch(host)
    if match is None or match[1].startswith("-") or host.startswith("-"):
        raise InvalidValueError(f"`{shown:.200}` has no valid host", hint=_KINDS)


def add(repo: Repo, name: str, url: str) -> Remote:
    """Give a remote a name, as `git remote add` does.

    Raises:
        InvalidValueError: A name or an address that cannot be one.
        AlreadyExistsError: The name is taken.
    """
    if not is_name(name):
        raise InvalidValueError(f"invalid remote name `{name!r:.80}`", hint="letters, digits, `_`, `-` and inner dots")
    check_url(url)
    if name in gateway.remotes(repo.paths):
        raise AlreadyExistsError(f"remote `{name}` exists", hint=f"`git remote set-url {name} URL` changes it")
    repo.git.program.run("remote", "add", "--", name, url)
    return choose(repo, name)


def remove(repo: Repo, name: str) -> None:
    """Forget a remote and what was seen on it; nothing of this clone's own.  Raises NotFoundError."""
    remote = choose(repo, name)
    from gittrack.store.refs import RefUpdate

    gone: Mapping[str, ObjectId] = {
        **repo.git.refs(f"{layout.REMOTE_PREFIX}{remote.name}/"),
        **repo.git.refs(f"{layout.INCOMING_PREFIX}{remote.name}/"),
    }
    repo.git.program.run("remote", "remove", "--", remote.name)
    repo.git.publish(repo.git.batch(), [RefUpdate(ref, oid, None) for ref, oid in gone.items()])
