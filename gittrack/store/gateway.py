"""Finding a repository, and running the git program: the only module that starts it.

``discover`` and the reading of ``RepoPaths`` are plain file reads (no process, no import of GitPython), because every
command does them.  ``Git`` runs the program (on Windows through GitPython's process starter) with an environment and
options that nothing in the repository, its hooks or the user's environment can change.

How far a repository is trusted: as far as git trusts it.  A repository of another user is refused exactly when git
refuses it (``safe.directory``).  In a repository of one's own the user's filters (``filter.*.clean``, such as
git-lfs) do run where a file becomes a blob, as they do on ``git add``; hooks, the file system monitor, pagers,
external diffs and automatic maintenance never run.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NamedTuple

from gittrack.errors import (
    CorruptError,
    GitError,
    InvalidValueError,
    MissingDependencyError,
    NotARepositoryError,
    UnsupportedError,
)

if TYPE_CHECKING:
    import subprocess

# ---------------------------------------------------------------- finding a repository


@dataclass(frozen=True, slots=True)
class RepoPaths:
    """Where a repository's things are; all paths are absolute, without symlinks.

    Attributes:
        git_dir: The git folder of this work tree: HEAD and index.
        common_dir: The git folder that all work trees of the clone share: objects, refs and config.
        work_tree: Root of the checked-out files; None for a bare repository and for a private store.
        main_root: The folder that holds ``.gittrack``: the main work tree, a bare repository's own folder, or the
            plain folder that a private store was made for.
        bare: There is no work tree.
        object_format: ``sha1`` or ``sha256``.
        shallow: History was cut off when it was fetched.
    """

    git_dir: Path
    common_dir: Path
    work_tree: Path | None
    main_root: Path
    bare: bool
    object_format: str
    shallow: bool

    @property
    def private(self) -> bool:
        """True for the store that ``GitStore.create_private`` makes in a folder that is no repository."""
        return self.git_dir == private_git_dir(self.main_root)


def private_git_dir(folder: Path) -> Path:
    """Where the private store of a plain folder is."""
    return folder / ".gittrack" / "git"


def discover(start: str | os.PathLike[str]) -> RepoPaths | None:
    """The repository that ``start`` lies in, looking upwards like git does; None if there is none.

    In each folder a ``.git`` comes before a bare repository, and that before a private gittrack store.  Pure reading,
    well under 2 ms.

    Raises:
        UnsupportedError: The repository uses an extension that gittrack cannot read (such as reftable), or is a bare
            repository planted in the work tree of another one.
        NotARepositoryError: A ``.git`` file points to a folder that is no repository.
        CorruptError: Its config cannot be read.
    """
    folder = Path(os.path.realpath(start))
    for level in (folder, *folder.parents):
        dot_git = level / ".git"
        kind = _file_kind(dot_git)
        if kind == stat.S_IFDIR and _is_git_dir(dot_git):
            return _open(dot_git, level)
        if kind == stat.S_IFREG:
            return _open(_read_link(dot_git), level)
        if _is_git_dir(level) and not (level / "commondir").exists():
            return _open_inside(level)
        if _is_git_dir(private_git_dir(level)):
            return _open_private(level)
    return None


def _file_kind(path: Path) -> int:
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except OSError:
        return 0


def _is_git_dir(path: Path) -> bool:
    if not os.path.lexists(path / "HEAD"):
        return False
    return (path / "commondir").is_file() or ((path / "objects").is_dir() and (path / "refs").is_dir())


def _read_link(dot_git: Path) -> Path:
    """The git folder that a ``.git`` file (of a linked work tree or a submodule) names."""
    text = _read_line(dot_git)
    if not text.startswith("gitdir: "):
        raise NotARepositoryError(f"`{dot_git}` is no git folder and names none")
    target = Path(os.path.realpath(dot_git.parent / text[len("gitdir: ") :]))
    if not _is_git_dir(target):
        raise NotARepositoryError(
            f"`{dot_git}` points to `{target}`, which is no git repository",
            hint="if the main work tree was moved, run `git worktree repair` in it",
        )
    return target


def _read_line(path: Path) -> str:
    try:
        return os.fsdecode(path.read_bytes()[:8192]).rstrip("\r\n")
    except OSError as error:
        raise CorruptError(f"`{path}` cannot be read: {error.strerror}") from error


def _open_private(folder: Path) -> RepoPaths:
    git_dir = private_git_dir(folder)
    config = _Config(git_dir)
    return RepoPaths(git_dir, git_dir, None, folder, True, config.object_format, False)


def _open_inside(git_dir: Path) -> RepoPaths:
    """``start`` was inside a git folder: a bare repository, a private store, or a work tree's ``.git``."""
    if git_dir.name == "git" and git_dir.parent.name == ".gittrack":
        return _open_private(git_dir.parent.parent)
    if not _Config(git_dir).bare:
        return _open(git_dir, git_dir.parent if git_dir.name == ".git" else None)
    for above in git_dir.parents:
        if _is_git_dir(above / ".git"):
            raise UnsupportedError(
                f"the bare repository `{git_dir}` lies in the work tree `{above}` and is not opened",
                hint="files that came with a repository must not take it over; move the bare repository elsewhere",
            )
    return _open(git_dir, None)


def _open(git_dir: Path, work_tree: Path | None) -> RepoPaths:
    linked = (git_dir / "commondir").is_file()
    common_dir = Path(os.path.realpath(git_dir / _read_line(git_dir / "commondir"))) if linked else git_dir
    config = _Config(common_dir)
    main_tree: Path | None
    if config.bare:
        main_tree = None
    elif config.work_tree is not None:
        main_tree = Path(os.path.realpath(common_dir / config.work_tree))
    elif linked:
        main_tree = common_dir.parent if common_dir.name == ".git" else None
    else:
        main_tree = work_tree
    if not linked:
        work_tree = main_tree
    shallow = common_dir / "shallow"
    return RepoPaths(
        git_dir=git_dir,
        common_dir=common_dir,
        work_tree=work_tree,
        main_root=main_tree or common_dir,
        bare=work_tree is None,
        object_format=config.object_format,
        shallow=shallow.is_file() and shallow.stat().st_size > 0,
    )


def remotes(paths: RepoPaths) -> dict[str, str]:
    """The remotes that the repository's config names, and their URLs as they stand there; the first of several."""
    urls: dict[str, str] = {}
    for key, url in _read_config(paths.common_dir / "config"):
        if re.fullmatch(r"remote\..*\.url", key, re.DOTALL):
            urls.setdefault(key[len("remote.") : -len(".url")], url)
    return urls


def push_url(paths: RepoPaths, name: str) -> str | None:
    """Where pushes to a remote go, if its config says that this is somewhere else; credentials included."""
    return next(
        (url for key, url in _read_config(paths.common_dir / "config") if key == f"remote.{name}.pushurl"), None
    )


def default_remote(paths: RepoPaths, branch: str | None) -> str | None:
    """The remote that a branch is fetched from, else ``origin``, else the only one; None if there is none."""
    urls = remotes(paths)
    config = dict(_read_config(paths.common_dir / "config"))
    names = [config.get(f"branch.{branch}.remote"), "origin", next(iter(urls)) if len(urls) == 1 else None]
    return next((name for name in names if name is not None and name in urls), None)


def remote_url(paths: RepoPaths, branch: str | None) -> str | None:
    """The URL of the default remote, without credentials; None: no remote."""
    name = default_remote(paths, branch)
    return None if name is None else strip_credentials(remotes(paths)[name])


_SECTION = re.compile(r'\[\s*([A-Za-z0-9.-]+)\s*(?:"((?:[^"\\]|\\.)*)")?\s*\]')
_VARIABLE = re.compile(r"([A-Za-z][A-Za-z0-9-]*)\s*(?:=\s*(.*))?$", re.DOTALL)
#: What a repository of format version 1 may ask for without becoming unreadable for gittrack.
_EXTENSIONS: Final = {"noop", "preciousobjects", "partialclone", "worktreeconfig", "relativeworktrees"}


class _Config:
    """What decides how a repository is laid out, from its own config file; git follows no include for these either."""

    def __init__(self, common_dir: Path) -> None:
        self._values = dict(_read_config(common_dir / "config"))
        if self._flag("extensions.worktreeconfig") and (common_dir / "config.worktree").is_file():
            self._values.update(_read_config(common_dir / "config.worktree"))
        self.bare = self._flag("core.bare")
        self.work_tree = self._values.get("core.worktree")
        self.object_format = "sha1"
        self._check(common_dir)

    def _flag(self, name: str) -> bool:
        return (self._values.get(name) or "").lower() in ("true", "yes", "on", "1")

    def _check(self, common_dir: Path) -> None:
        version = self._values.get("core.repositoryformatversion") or "0"
        if version == "0":  # git takes no heed of most extensions then
            return
        if version != "1":
            raise UnsupportedError(f"`{common_dir}` has repository format {version}, which gittrack does not know")
        for key, value in self._values.items():
            section, _, name = key.partition(".")
            if section != "extensions" or name in _EXTENSIONS or (name == "refstorage" and value == "files"):
                continue
            if name == "objectformat" and value in ("sha1", "sha256"):
                self.object_format = value
                continue
            hint = "`git refs migrate --ref-format=files` turns it back" if name == "refstorage" else None
            raise UnsupportedError(
                f"`{common_dir}` uses the git extension `{name} = {value}`, which gittrack cannot read", hint=hint
            )


def _read_config(path: Path) -> tuple[tuple[str, str], ...]:
    """(``section.name`` or ``section.subsection.name``, value) of a config file; includes are not followed."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise CorruptError(f"`{path}` cannot be read: {error.strerror}") from error
    return _read_config_at(path, (seen.st_ino, seen.st_size, seen.st_mtime_ns))


@lru_cache(maxsize=16)  # every start of a run asks; git replaces the file when it changes it, so its inode tells
def _read_config_at(path: Path, _stamp: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    try:
        text = os.fsdecode(path.read_bytes())
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise CorruptError(f"`{path}` cannot be read: {error.strerror}") from error
    return tuple(_parse_config(text))


def _parse_config(text: str) -> Iterator[tuple[str, str]]:
    section = ""
    for line in re.sub(r"\\\r?\n", "", text).splitlines():
        rest = line.strip()
        header = _SECTION.match(rest)
        if header is not None:
            section = header[1].lower() + ("" if header[2] is None else "." + re.sub(r"\\(.)", r"\1", header[2]))
            rest = rest[header.end() :].strip()
        variable = _VARIABLE.match(rest)
        if section and variable is not None:
            value = "true" if variable[2] is None else _unquote(variable[2])
            yield f"{section}.{variable[1].lower()}", value


_ESCAPES: Final = {"n": "\n", "t": "\t", "b": "\b"}


def _unquote(text: str) -> str:
    """A config value without quotes, escapes and a comment at its end."""
    out, quoted, escaped = [], False, False
    for char in text:
        if escaped:
            out.append(_ESCAPES.get(char, char))
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char in "#;" and not quoted:
            break
        else:
            out.append(char)
    return "".join(out).strip()


# ---------------------------------------------------------------- running git

#: Every call gets these; a repository's or a person's config cannot change them.
FIXED_OPTIONS: Final = (
    f"core.hooksPath={os.devnull}",
    "core.fsmonitor=false",
    "core.fsync=all",
    "core.splitIndex=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "fetch.fsckObjects=true",
    "transfer.fsckObjects=true",
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.http.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=user",
    "safe.bareRepository=explicit",
    "submodule.recurse=false",
    "log.showSignature=false",
)

#: Variables of git that say who somebody is, and nothing else; every other ``GIT_*`` is taken away.
_KEPT: Final = frozenset({"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"})

#: More of them for calls that go to a remote: how the person reaches it.
_KEPT_FOR_NETWORK: Final = re.compile(
    r"GIT_(?:SSH|SSH_COMMAND|SSH_VARIANT|ASKPASS|TERMINAL_PROMPT|PROXY_COMMAND|PROXY_SSL_\w+|SSL_\w+)"
    r"|GIT_HTTP_(?:PROXY_AUTHMETHOD|USER_AGENT)"
)
#: On top of ``FIXED_OPTIONS`` for calls that go to a remote.
NETWORK_OPTIONS: Final = (
    "transfer.unpackLimit=1",  # a pack that is refused leaves nothing; loose objects would stay
    "fetch.unpackLimit=1",
    "fetch.prune=false",
    "fetch.pruneTags=false",
    "fetch.writeCommitGraph=false",
    "push.pushOption=",
    "push.followTags=false",
    "push.gpgSign=false",
    "push.recurseSubmodules=no",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=600",
)
#: Transports that reach a remote, whatever a config allows: no program of the config's choice is one.
_PROTOCOLS: Final = "file:http:https:ssh"
#: Bytes of standard output of a call to a remote: about a million refs.
MAX_ANSWER: Final = 128 << 20
#: Seconds in which a remote may say nothing at all.
MAX_SILENCE: Final = 600.0

_FIXED_ENVIRONMENT: Final = {
    "LC_ALL": "C",
    "LANGUAGE": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
}


class Result(NamedTuple):
    """What a run of git gave."""

    status: int
    stdout: bytes
    stderr: bytes


def rev(value: str) -> str:
    """``value`` if it can stand as a revision or ref in a command line.

    Callers put it behind ``--end-of-options`` all the same; this is the second lock on that door.

    Raises:
        InvalidValueError: It is empty, begins with ``-`` or holds a control character.
    """
    if not value or value.startswith("-") or any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise InvalidValueError(f"invalid revision `{value!r:.80}`")
    return value


class Git:
    """Runs git on one repository, without a shell and without anything from outside that could steer it.

    Args:
        git_dir: The git folder.
        work_tree: Root of the checked-out files, also the current folder of the process; None for a bare repository.
    """

    def __init__(self, git_dir: Path, work_tree: Path | None) -> None:
        self.git_dir = git_dir
        self.work_tree = work_tree
        self._trusted = False

    def run(
        self,
        *args: str,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> bytes:
        """Run ``git ARGS`` and return what it printed.

        Anything that came from a person or a remote must stand behind ``--end-of-options`` or ``--``.

        Args:
            args: The verb and its arguments, passed on as they are.
            input: Bytes for standard input; none if left out.
            env: Variables to set on top of the cleaned environment (may name ``GIT_*``).
            check: Raise if git fails.
            timeout: Seconds after which git is killed.

        Raises:
            GitError: git failed, was killed after ``timeout``, or does not trust the repository.
            MissingDependencyError: There is no git program.
        """
        result = self.call(*args, input=input, env=env, timeout=timeout)
        if check and result.status != 0:
            raise GitError(f"`git {args[0]}` failed: {_last_line(result)}")
        return result.stdout

    def call(
        self,
        *args: str,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        source: int | None = None,
        target: int | None = None,
    ) -> Result:
        """Like ``run``, for callers that tell failures apart themselves: never raises for git's exit status.

        Args:
            args: As for ``run``, like the next three.
            input: Bytes for standard input.
            env: Variables.
            timeout: Seconds.
            source: An open file to be standard input instead, from where it stands.
            target: An open file that standard output goes to, instead of into the result.
        """
        self.check_trust()
        location = [f"--git-dir={self.git_dir}"]
        if self.work_tree is not None:
            location.append(f"--work-tree={self.work_tree}")
        options = [part for option in FIXED_OPTIONS for part in ("-c", option)]
        return _start([*location, *options, *args], self.work_tree or self.git_dir, input, env, timeout,
                      source=source, target=target)  # fmt: skip

    def over_network(
        self,
        *args: str,
        options: Iterable[str] = (),
        input: bytes | None = None,
        progress: Callable[[str], None] | None = None,
        interactive: bool = False,
        silence: float = MAX_SILENCE,
    ) -> Result:
        """Like ``call``, for verbs that talk to a remote: with the person's ssh, proxies and credential helpers.

        Args:
            args: The verb and its arguments.
            options: Further ``key=value`` settings.
            input: Bytes for standard input.
            progress: Told each line of progress that git or the remote prints.
            interactive: git may ask for a password on the terminal.
            silence: Seconds without a byte from git after which it is stopped.

        Raises:
            GitError: git does not trust the repository, said nothing for too long, or the remote said too much.
            MissingDependencyError: There is no git program.
        """
        self.check_trust()
        location = [f"--git-dir={self.git_dir}"]
        if self.work_tree is not None:
            location.append(f"--work-tree={self.work_tree}")
        return _talk([*location, *_network_options(options), *args], self.work_tree or self.git_dir, input, progress,
                     interactive=interactive, silence=silence)  # fmt: skip

    def start(
        self,
        *args: str,
        options: Iterable[str] = (),
        stdin: int | IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
        protocol: str = "",
        leading: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start ``git ARGS`` for a caller that feeds and reads it while it runs.

        Args:
            args: The verb and its arguments, as for ``run``.
            options: Further ``key=value`` settings.
            stdin: A file; a pipe if not given.
            stderr: A file for what it says, which is dropped if there is none.
            protocol: The version of git's protocol that a client asks for, as in ``GIT_PROTOCOL``.
            leading: It leads a process group of its own, so that what it starts can be ended with it.

        Raises:
            GitError: git does not trust the repository, or cannot be started.
            MissingDependencyError: There is no git program.
        """
        import subprocess

        self.check_trust()
        given = [part for option in (*FIXED_OPTIONS, *options) for part in ("-c", option)]
        environment = _environment({"GIT_PROTOCOL": protocol} if protocol else None)
        return _popen(
            [f"--git-dir={self.git_dir}", *given, *args], self.git_dir, environment,
            stdin=subprocess.PIPE if stdin is None else stdin,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
            start_new_session=leading and os.name == "posix",
        )  # fmt: skip

    def check_trust(self) -> None:
        """Have git apply ``safe.directory``, which it skips where the git folder is named outright.

        Only folders of somebody else need the question, so that no process is spent on the usual case.
        """
        if self._trusted:
            return
        if sys.platform != "win32" and any(
            path.stat().st_uid != os.geteuid() for path in (self.git_dir, self.work_tree) if path is not None
        ):
            location = [] if self.work_tree is not None else ["-c", "safe.bareRepository=all"]
            asked = _start([*location, "rev-parse", "--git-dir"], self.work_tree or self.git_dir, None, None, 10)
            if asked.status != 0:
                raise GitError(
                    f"git does not trust `{self.work_tree or self.git_dir}`: {_last_line(asked)}",
                    hint=f"if you do: git config --global --add safe.directory {self.work_tree or self.git_dir}",
                )
        self._trusted = True


def _start(
    args: list[str],
    folder: Path,
    input: bytes | None,
    env: Mapping[str, str] | None,
    timeout: float | None,
    *,
    source: int | None = None,
    target: int | None = None,
) -> Result:
    import subprocess

    stdin = subprocess.PIPE if input is not None else subprocess.DEVNULL if source is None else source
    process = _popen(args, folder, _environment(env), stdin=stdin, stdout=target)
    with process:
        try:
            out, err = process.communicate(input, timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()  # its pipes are not read to the end: a filter or ssh that git started may hold them open
            raise GitError(f"git took longer than {timeout:g} s and was stopped") from error
        except BaseException:  # Ctrl-C must not leave it running
            process.kill()
            raise
    return Result(process.returncode, out or b"", err)


def _popen(
    args: list[str],
    folder: Path,
    env: Mapping[str, str],
    *,
    stdin: int | IO[bytes],
    stdout: int | None = None,
    stderr: int | IO[bytes] | None = None,
    start_new_session: bool = False,
) -> subprocess.Popen[bytes]:
    import subprocess

    start: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
    if sys.platform == "win32":
        # GitPython's own starter: there it never looks for programs in the current folder; elsewhere it is the one
        # above, and asking for it costs 50 ms.  Its `Git.execute` cannot be used, because it always hands on the whole
        # environment, hostile GIT_* variables included.
        try:
            from git.cmd import safer_popen as start
        except ImportError as error:
            raise MissingDependencyError(f"git cannot be run: {error}", hint="install git 2.36 or newer") from error

    try:
        return start(
            [_program(), *args],
            cwd=str(folder),
            env=dict(env),
            stdin=stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE if stderr is None else stderr,
            shell=False,
            start_new_session=start_new_session,
        )
    except OSError as error:
        raise GitError(f"git cannot be started: {error.strerror}") from error


def clone(
    url: str,
    folder: Path,
    *args: str,
    progress: Callable[[str], None] | None = None,
    interactive: bool = False,
) -> Result:
    """``git clone ARGS -- URL FOLDER``: the one call that needs no repository.  As ``Git.over_network``."""
    given = [*_network_options(()), "clone", "--progress", "--no-recurse-submodules", *args, "--", url, str(folder)]
    return _talk(given, Path.cwd(), None, progress, interactive=interactive, silence=MAX_SILENCE)


def _network_options(more: Iterable[str]) -> list[str]:
    return [part for option in (*FIXED_OPTIONS, *NETWORK_OPTIONS, *more) for part in ("-c", option)]


def _talk(
    args: list[str],
    folder: Path,
    input: bytes | None,
    progress: Callable[[str], None] | None,
    *,
    interactive: bool,
    silence: float,
) -> Result:
    """Run git with a remote at its other end, which may send anything for as long as it likes."""
    import subprocess
    import threading

    process = _popen(
        args,
        folder,
        _network_environment(interactive=interactive),
        stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
    )
    ears = _Ears(progress)
    jobs = [
        threading.Thread(target=ears.read_answer, args=(process.stdout,), daemon=True),
        threading.Thread(target=ears.read_said, args=(process.stderr,), daemon=True),
    ]
    if input is not None:
        jobs.append(threading.Thread(target=_write, args=(process.stdin, input), daemon=True))
    try:
        for job in jobs:
            job.start()
        while any(job.is_alive() for job in jobs[:2]):
            jobs[0].join(0.05)
            jobs[1].join(0.05)
            if process.poll() is not None:  # a helper that outlives git may hold its pipes open
                jobs[0].join(10.0)
                jobs[1].join(10.0)
                break
            ears.check(silence)
        ears.check(silence)
        process.wait()
    except BaseException:  # Ctrl-C too
        _stop(process)
        raise
    return Result(process.returncode, bytes(ears.answer), "\n".join(ears.said).encode("utf-8", "replace"))


def _write(pipe: IO[bytes], data: bytes) -> None:
    with suppress(OSError), pipe:  # git may leave before it has read everything
        pipe.write(data)


_PERCENT = re.compile(r": +[0-9]{1,3}% \(")


class _Ears:
    """What git and the remote say, as it comes: the answer, and the last of what is said about it."""

    def __init__(self, progress: Callable[[str], None] | None) -> None:
        import time
        from collections import deque

        self.answer = bytearray()
        self.said: deque[str] = deque(maxlen=200)
        self._progress = progress
        self._clock = time.monotonic
        self._heard = self._clock()

    def read_answer(self, pipe: IO[bytes]) -> None:
        with pipe:
            while len(self.answer) <= MAX_ANSWER and (data := os.read(pipe.fileno(), 1 << 16)):
                self._heard = self._clock()
                self.answer += data

    def read_said(self, pipe: IO[bytes]) -> None:
        rest = b""
        with pipe:
            while data := os.read(pipe.fileno(), 1 << 16):
                self._heard = self._clock()
                *lines, rest = re.split(rb"[\r\n]+", rest + data)
                for line in lines:
                    self._tell(line[:2000].decode("utf-8", "replace").rstrip())
                rest = rest[-2000:]
        self._tell(rest.decode("utf-8", "replace").rstrip())

    def _tell(self, line: str) -> None:
        if line:
            if not _PERCENT.search(line):  # hundreds of them would push out what matters
                self.said.append(line)
            if self._progress is not None:
                self._progress(line)

    def check(self, silence: float) -> None:
        """Raise GitError if the remote sends no end of text, or nothing for too long."""
        if len(self.answer) > MAX_ANSWER:
            raise GitError("the remote sends no end of text, and was left")
        if self._clock() - self._heard > silence:
            raise GitError(f"the remote has said nothing for {silence:g} s, and was left")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End git so that it can remove its lock files and stop its helpers; at once if it does not."""
    import subprocess

    process.terminate()
    try:
        process.wait(3.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def end(process: subprocess.Popen[bytes]) -> int:
    """End what ``Git.start`` started, with all that it started, at once; its exit status."""
    if process.poll() is None:
        if os.name == "posix":
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        else:  # pragma: no cover - there are no process groups
            process.kill()
    return process.wait()


def _network_environment(*, interactive: bool) -> dict[str, str]:
    """As ``_environment``, with what says how the person reaches remotes."""
    kept = {name: value for name, value in os.environ.items() if _KEPT_FOR_NETWORK.fullmatch(name)}
    environment = {**_environment(None), **kept, "GIT_ALLOW_PROTOCOL": _PROTOCOLS}
    if not interactive:
        environment["GIT_TERMINAL_PROMPT"] = "0"
    elif "GIT_TERMINAL_PROMPT" not in kept:
        del environment["GIT_TERMINAL_PROMPT"]
    del environment["GIT_NO_LAZY_FETCH"]  # what a partial clone lacks may be needed to send the rest
    return environment


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    """The environment git runs in: the process's own (PATH, HOME, proxies, ssh agent) without git's variables.

    The one place below ``config`` that reads the environment: a child process has to be given one.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    return {**kept, **_FIXED_ENVIRONMENT, **(extra or {})}


@lru_cache(maxsize=1)
def _program() -> str:
    """Absolute path of the git program, looked for once, in absolute folders of PATH only."""
    import shutil

    folders = [part for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(part).is_absolute()]
    found = shutil.which("git", path=os.pathsep.join(folders))
    if found is None or not Path(found).is_absolute():
        raise MissingDependencyError("the git program was not found", hint="install git 2.36 or newer")
    return found


def _last_line(result: Result) -> str:
    """What git said last, without credentials; the exit status if it said nothing."""
    lines = result.stderr.decode("utf-8", "replace").strip().splitlines()
    said = next((line for line in reversed(lines) if not line.startswith("hint:")), f"exit status {result.status}")
    return strip_credentials(said)


def strip_credentials(text: str) -> str:
    """``text`` with the user and password of every URL in it removed (of an ssh URL only the password)."""

    def clean(found: re.Match[str]) -> str:
        scheme, user = found[1], found[2].partition(":")[0]
        return f"{scheme}{user}@" if "ssh" in scheme.lower() else scheme

    return re.sub(r"(\w[\w+.-]*://)([^/\s]*)@", clean, text)


__all__ = [
    "FIXED_OPTIONS",
    "Git",
    "RepoPaths",
    "Result",
    "clone",
    "default_remote",
    "push_url",
    "discover",
    "end",
    "remotes",
    "rev",
    "strip_credentials",
]
