"""Where the artifacts of a git remote are: what git's configuration says, read as git-lfs reads it.

The LFS server of a remote is the first of ``lfs.pushurl`` (to send), ``lfs.url``, ``remote.<name>.lfspushurl`` (to
send), ``remote.<name>.lfsurl``, and what follows from the remote's own address.  `.lfsconfig`, which comes with the
repository, may say ``lfs.url``, ``lfs.pushurl`` and ``remote.<name>.lfsurl``, where git's own configuration does not,
and only name servers: no folder of this machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from gittrack.errors import GitError, InvalidValueError, NotFoundError, UnsupportedError
from gittrack.store.gateway import strip_credentials

if TYPE_CHECKING:
    from gittrack.store.repo import Repo

_LFSCONFIG: Final = ".lfsconfig"
_MAX_LFSCONFIG: Final = 64 << 10
_FROM_REPOSITORY: Final = re.compile(r"lfs\.(?:push)?url|remote\..+\.lfsurl", re.DOTALL)
_SSH: Final = ("ssh", "git+ssh", "ssh+git")
#: Settings that name a program: what the repository itself says about them does not count.
_PERSONAL: Final = {"core.sshcommand"}


@dataclass(frozen=True)
class Ssh:
    """A repository that is reached by ssh.

    Attributes:
        host: The machine.
        path: The repository there.
        user: Log in as; None for ssh's own choice.
        port: Port; None for ssh's own choice.
    """

    host: str
    path: str
    user: str | None = None
    port: int | None = None

    def __post_init__(self) -> None:
        for text in (self.host, self.path, self.user or "x"):
            if not text or text.startswith("-") or re.search(r"[\x00-\x1f\x7f]", text) or " " in self.host:
                raise InvalidValueError(f"`{text!s:.80}` cannot be part of an ssh address")

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"ssh://{user}{self.host}{port}/{self.path.removeprefix('/')}"


@dataclass(frozen=True)
class Server:
    """An LFS server.

    Attributes:
        url: Its address, without credentials, as ``https://host/repo.git/info/lfs``; empty if ssh tells it.
        ssh: Where to ask for the address, if by ssh.
        user: Log in as, if the address says so.
        password: With this password, if the address says so.
        named: The person named it, not a file that came with the repository.
    """

    url: str = ""
    ssh: Ssh | None = None
    user: str | None = None
    password: str | None = None
    named: bool = True

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return f"`{self.ssh or self.url}`"


@dataclass(frozen=True)
class GitSettings:
    """What git's configuration says about remotes and about LFS: the values of every key, the last one counts."""

    values: Mapping[str, list[str]]
    shipped: Mapping[str, list[str]]

    @classmethod
    def read(cls, repo: Repo) -> GitSettings:
        """The settings of a clone: its own, with includes, the person's, and `.lfsconfig`.  Raises GitError."""
        sections = r"^(lfs|remote|branch|url|core\.sshcommand$)"
        found = repo.git.program.call("config", "-z", "--show-scope", "--get-regexp", sections)
        if found.status not in (0, 1):
            raise GitError("`git config` failed")
        values: dict[str, list[str]] = {}
        words = found.stdout.decode("utf-8", "surrogateescape").split("\0")
        for scope, entry in zip(words[::2], words[1::2], strict=False):
            key, _, value = entry.partition("\n")
            if key not in _PERSONAL or scope in ("system", "global"):
                values.setdefault(key, []).append(value)
        return cls(values, dict(_shipped(repo)))

    def get(self, key: str) -> str | None:
        """The value that counts; section and variable of ``key`` are in lower case."""
        found = self.values.get(key)
        return found[-1] if found else None

    def remotes(self) -> list[str]:
        """The names of the remotes."""
        found = (re.fullmatch(r"remote\.(.+)\.url", key, re.DOTALL) for key in self.values)
        return [match[1] for match in found if match]

    def default_remote(self, branch: str | None) -> str | None:
        """The remote that git would use: the branch's, else ``origin``, else the only one."""
        names = self.remotes()
        wanted = [self.get(f"branch.{branch}.remote"), "origin", names[0] if len(names) == 1 else None]
        return next((name for name in wanted if name in names), None)

    def url(self, remote: str, *, push: bool) -> str:
        """The address of a remote, as git rewrites it.

        Args:
            remote: Its name, or an address.
            push: To send, not to fetch.

        Raises:
            NotFoundError: It is neither a remote nor an address.
        """
        given = (self.values.get(f"remote.{remote}.pushurl") if push else None) or []
        urls = self.values.get(f"remote.{remote}.url") or []
        if given:
            return self._rewritten(given[0], "insteadof")
        if not urls and not re.search(r"[:/\\]", remote) and not Path(remote).exists():
            near = ", ".join(f"`{name}`" for name in self.remotes()) or "none"
            raise NotFoundError(f"there is no remote `{remote}`", hint=f"this clone has {near}")
        url = urls[0] if urls else remote
        return self._rewritten(url, "pushinsteadof", "insteadof") if push else self._rewritten(url, "insteadof")

    def _rewritten(self, url: str, *ways: str) -> str:
        """``url`` after the first of ``url.<base>.<way>`` that fits; the longest one of a way counts."""
        for way in ways:
            fitting = [
                (start, key[len("url.") : -len(way) - 1])
                for key, starts in self.values.items()
                if key.startswith("url.") and key.endswith(f".{way}")
                for start in starts
                if start and url.startswith(start)
            ]
            if fitting:
                start, base = max(fitting, key=lambda pair: len(pair[0]))
                return base + url[len(start) :]
        return url

    def place(self, repo: Repo, remote: str, *, push: bool) -> Server | Path:
        """Where the artifacts of a remote are: a server, or the folder of a repository on this machine.

        Args:
            repo: This clone.
            remote: A remote, or an address.
            push: To send, not to fetch.

        Raises:
            NotFoundError: There is no such remote.
            UnsupportedError: The address of something that has no LFS.
            InvalidValueError: No address.
        """
        base = repo.paths.work_tree or repo.paths.git_dir
        keys = ["lfs.pushurl"] * push + ["lfs.url"]
        keys += [f"remote.{remote}.lfspushurl"] * push + [f"remote.{remote}.lfsurl"]
        for key in keys:
            if (own := self.get(key)) is not None:
                return place(self._rewritten(own, "insteadof"), base, lfs=True)
            if key in self.shipped:
                return _only_server(place(self.shipped[key][-1], base, lfs=True), key)
        return place(self.url(remote, push=push), base, lfs=False)


def _shipped(repo: Repo) -> Iterator[tuple[str, list[str]]]:
    """What `.lfsconfig` may say: that in the work tree, else the committed one."""
    source = f"--blob=HEAD:{_LFSCONFIG}"
    if repo.paths.work_tree is not None:
        file = repo.paths.work_tree / _LFSCONFIG
        if file.is_symlink() or (file.is_file() and file.stat().st_size > _MAX_LFSCONFIG):
            return
        if file.is_file():
            source = f"--file={file}"
    found = repo.git.program.call("config", "-z", source, "--list")
    if found.status or len(found.stdout) > _MAX_LFSCONFIG:  # there is none, mostly
        return
    for entry in found.stdout.decode("utf-8", "replace").split("\0"):
        key, _, value = entry.partition("\n")
        if _FROM_REPOSITORY.fullmatch(key):
            yield key, [value]


def _only_server(found: Server | Path, key: str) -> Server:
    if isinstance(found, Path):
        raise UnsupportedError(
            f"`{key}` in `{_LFSCONFIG}` names a folder of this machine",
            hint=f"`git config {key} ADDRESS` says for this clone where artifacts are",
        )
    return replace(found, named=False)


def place(url: str, base: Path, *, lfs: bool) -> Server | Path:
    """What an address names.

    Args:
        url: ``https://…``, ``http://…``, ``ssh://…``, ``host:path``, ``git://…``, ``file:///…`` or a path.
        base: What a relative path is below.
        lfs: It is the address of an LFS server, not of a repository that has one.

    Raises:
        UnsupportedError: Another kind of address.
        InvalidValueError: No address.
    """
    scheme, colon, _ = url.partition("://")
    scheme = scheme.lower() if colon else ""
    try:
        parts = urlsplit(url) if colon else None
        port = parts.port if parts else None
    except ValueError as error:
        raise InvalidValueError(f"`{strip_credentials(url):.200}` is no address: {error}") from error
    if parts is None:
        bare = re.fullmatch(r"(?:([^@:/\[]+)@)?([^:/\[]+|\[[^]/]+\]):(?!:)(.+)", url)
        if bare and not re.match(r"[A-Za-z]:\\", url):
            return Server(ssh=Ssh(bare[2].strip("[]"), bare[3], bare[1]))
        if "::" in url:
            raise UnsupportedError(f"`{url.partition('::')[0]:.40}::` addresses have no artifacts")
        return base / Path(url).expanduser()
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise InvalidValueError(
                f"`{url:.200}` names a host", hint="a local address has three slashes: file:///path"
            )
        return Path(unquote(parts.path))
    if scheme in _SSH:
        user = unquote(parts.username) if parts.username else None
        return Server(ssh=Ssh(parts.hostname or "", unquote(parts.path), user, port))
    if scheme == "git":
        scheme, parts = "https", parts._replace(netloc=parts.hostname or "")
    if scheme not in ("http", "https") or not parts.hostname:
        raise UnsupportedError(f"artifacts cannot be kept at `{scheme:.40}:` addresses", hint="gittrack help artifacts")
    path = parts.path.rstrip("/")
    if not lfs:
        path += "/info/lfs" if path.endswith(".git") else ".git/info/lfs"
    netloc = parts.netloc.rpartition("@")[2]
    clean = urlunsplit((scheme, netloc, quote(path, safe="/%:@!$&'()*+,;=~"), "", ""))
    user, password = (unquote(part) if part is not None else None for part in (parts.username, parts.password))
    return Server(clean, None, user, password)


__all__ = ["GitSettings", "Server", "Ssh", "place"]
