"""Transport: what a remote has, bringing it into quarantine, and pushing; git's network calls and their errors.

Everything goes through the user's own git, so that credentials, ssh, proxies and rewritten addresses are theirs.  No
text of the remote's reaches an option: refs that are fetched or pushed were parsed by ``remotes`` before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from gittrack.errors import (
    GittrackError,
    NetworkError,
    PushRefusedError,
    RemoteDataError,
    StorageError,
    UsageError,
)
from gittrack.store import gateway
from gittrack.types import ObjectId

if TYPE_CHECKING:
    from pathlib import Path

    from gittrack.store.gateway import Git, Result
    from gittrack.store.repo import Repo
    from gittrack.sync.remotes import Remote

#: Called with (what is done, steps done, steps in all or None).
Progress = Callable[[str, int, "int | None"], None]

#: Lines of a remote's refusal that are shown.
_LINES: Final = 4
#: Refs of one push: hosts get slow or refuse beyond that.
MAX_PUSH: Final = 500
#: Refs of one fetch: what has arrived stays when the connection breaks.
MAX_FETCH: Final = 200
#: Refs of gittrack's that a remote may have.
MAX_REFS: Final = 200_000

T = TypeVar("T")
_REF = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64})\t(refs/[^\x00-\x20\x7f]{1,1000})")
_STEP = re.compile(
    r"(?:remote: )?([A-Z][a-z]+(?: [a-z]+)?): +(?:\d+% \((\d+)/(\d+)\)|(\d+))(?:, ([\d.]+ \w+)(?: \| (.*))?)?"
)
#: How git, and servers that are not git, say that they cannot move several refs at once or none.
_NOT_ATOMIC = re.compile(r"(?i)does not support --atomic|atomic push(?:es)? (?:(?:is|are) )?not supported")
_PORCELAIN = re.compile(r"([ +\-*!=])\t([^\t]*):([^\t]+)\t(.*)")


#: What remotes answered to ``early``, by the clone's git folder and the remote's name.
_answers: dict[tuple[Path, str], Result] = {}
_LIST: Final = ("ls-remote", "--refs", "--quiet", "--")


def early(program: Git, remote: str, *, interactive: bool) -> dict[str, ObjectId]:
    """Every ref that a remote shows; its answer is kept for the first ``Transport.refs``.  Empty if it cannot be asked.

    Args:
        program: git, on the clone.
        remote: The remote's name.
        interactive: git may ask for a password on the terminal.

    Raises:
        GitError, MissingDependencyError: git cannot be run, or was left.
    """
    done = _answers[program.git_dir, remote] = program.over_network(*_LIST, remote, interactive=interactive)
    return _parsed(done.stdout) if done.status == 0 else {}


def _parsed(listed: bytes) -> dict[str, ObjectId]:
    found: dict[str, ObjectId] = {}
    for line in listed.split(b"\n"):
        match = _REF.fullmatch(line)
        if match is not None:
            found[match[2].decode("utf-8", "surrogateescape")] = ObjectId(match[1].decode())
    return found


class Move(NamedTuple):
    """One ref to be pushed.

    Attributes:
        ref: Its name on the remote.
        old: Where it is there; None: it does not exist.
        new: Where it shall be; None: it shall be gone.
    """

    ref: str
    old: ObjectId | None
    new: ObjectId | None


class Refusal(NamedTuple):
    """A ref that was not taken, and why, in the remote's words."""

    ref: str
    why: str


def silent(_what: str, _done: int, _total: int | None) -> None:
    """No progress wanted."""


def _unnoted(_moves: Sequence[Move]) -> None:
    """Nobody wants to know."""


def _nothing() -> str:
    return "nothing was pushed"


class Transport:
    """The way to one remote.

    Args:
        repo: The clone.
        remote: The other end.
        progress: Told what git says it is doing.
        interactive: git may ask for a password on the terminal.
        bundle: A file of `git bundle` that takes the remote's place.

    Attributes:
        atomic: The remote moves several refs at once or none, as far as is known: False once it says that it cannot.
    """

    def __init__(
        self,
        repo: Repo,
        remote: Remote,
        *,
        progress: Progress = silent,
        interactive: bool = False,
        bundle: Path | None = None,
    ) -> None:
        self.repo = repo
        self.remote = remote
        self._from = remote.name if bundle is None else str(bundle)
        self._who = f"remote `{remote.name}`" if bundle is None else "the bundle"
        self.atomic = True
        self._progress = progress
        self._interactive = interactive

    def refs(self, *, pushing: bool = False) -> dict[str, ObjectId]:
        """Every ref that the remote shows, by its name there; one connection.

        Args:
            pushing: Ask where pushes go, if that is another place.

        Raises:
            NetworkError: It cannot be reached.
            RemoteDataError: It shows more than a million refs.
        """
        where = self.remote.push_url if pushing and self.remote.push_url else self.remote.name
        done = _answers.pop((self.repo.paths.git_dir, where), None) or self._call(*_LIST, where)
        if done.status != 0:
            raise self._failure(done, "nothing was transferred")
        return _parsed(done.stdout)

    def shared(self, refs: Mapping[str, ObjectId]) -> dict[str, ObjectId]:
        """Those of the remote's refs that are gittrack's, by the names that they have here.  Raises RemoteDataError."""
        found: dict[str, ObjectId] = {}
        for ref, oid in refs.items():
            local = self.remote.here(ref)
            if local is not None:
                found[local] = oid
        if len(found) > MAX_REFS:
            raise RemoteDataError(f"remote `{self.remote.name}` has {len(found):,} refs of gittrack's",
                                  hint=f"more than {MAX_REFS:,} cannot be right; see `git ls-remote`")  # fmt: skip
        return found

    def fetch(self, refs: Iterable[str]) -> dict[str, str]:
        """Bring these refs (their names here) with all their objects into quarantine.

        What one call has brought stays if a later one fails.

        Returns:
            Refs that were not brought because git refuses their objects, and why.

        Raises:
            NetworkError: The connection broke.
        """
        refused: dict[str, str] = {}
        for chunk in chunks(sorted(refs), MAX_FETCH):
            done = self._fetch(chunk)
            if done.status == 0:
                continue
            failure = self._failure(done, "what had arrived is kept")
            if not isinstance(failure, RemoteDataError) and not _is_gone(done):
                raise failure
            for ref in chunk:  # one bad ref must not keep the others away
                one = self._fetch([ref])
                if one.status == 0 or _is_gone(one):
                    continue
                why = self._failure(one, "")
                if not isinstance(why, RemoteDataError):
                    raise why
                refused[ref] = why.message
        return refused

    def _fetch(self, refs: Sequence[str]) -> Result:
        specs = "".join(f"+{self.remote.there(ref)}:{self.remote.incoming(ref)}\n" for ref in refs)
        return self._call(
            "fetch", "--progress", "--no-tags", "--no-prune", "--no-recurse-submodules", "--no-write-fetch-head",
            "--no-filter", "--no-auto-maintenance", "--no-show-forced-updates", "--atomic", "--stdin",
            "--", self._from, input=specs.encode(),
        )  # fmt: skip

    def push(
        self,
        groups: Sequence[Sequence[Move]],
        took: Callable[[Sequence[Move]], None] = _unnoted,
        left: Callable[[], str] = _nothing,
    ) -> list[Refusal]:
        """Move refs of the remote from exactly where they were seen: all or none of them.

        A remote that cannot do that gets one group after the other, until it refuses something.

        Args:
            groups: The moves, in the order in which it does no harm if the later ones are not made.
            took: Told what was moved, as soon as it is.
            left: What to say about what was transferred, if something breaks.

        Returns:
            Why refs were not moved; empty if all were.

        Raises:
            NetworkError: The connection broke; of what was sent last the remote has all or nothing, or, without
                atomic pushes, any part.
        """
        groups = [group for group in groups if group]
        if self.atomic:
            moved, refusals = self._push([move for group in groups for move in group], left)
            if self.atomic:
                if moved:
                    took(moved)
                return refusals
        for group in groups:
            moved, refusals = self._push(group, left)
            if moved:
                took(moved)
            if refusals:
                return refusals
        return []

    def _push(self, moves: Sequence[Move], left: Callable[[], str]) -> tuple[Sequence[Move], list[Refusal]]:
        """What was moved, and why the rest was not; neither if the remote says that it has no atomic pushes."""
        leases = [f"--force-with-lease={move.ref}:{move.old or ''}" for move in moves]
        specs = [f"{move.new or ''}:{move.ref}" for move in moves]
        options = [f"remote.{self.remote.name}.mirror=false"]
        done = self._call(
            "push", "--porcelain", "--progress", *(["--atomic"] if self.atomic else []), "--no-verify", *leases, "--",
            self.remote.name, *specs, options=options,
        )  # fmt: skip
        rows = [match for line in _text(done.stdout).splitlines() if (match := _PORCELAIN.fullmatch(line))]
        if done.status == 0:
            return moves, []
        refused = [Refusal(row[3], row[4]) for row in rows if row[1] == "!"]
        if self.atomic and _NOT_ATOMIC.search(_text(done.stderr) + "".join(one.why for one in refused)):
            self.atomic = False
            return [], []
        if not refused:
            known = left() if not rows else f"{left()}, and it is not known what else"
            raise failure(_text(done.stderr), done.status, f"remote `{self.remote.name}`", known, writing=True)
        said = [
            line.replace("error: remote unpack failed: ", "remote: ")
            for line in _text(done.stderr).splitlines()
            if line.startswith(("remote: ", "error: remote unpack failed: "))
        ]
        main = [one for one in refused if "atomic" not in one.why] or refused
        kept = {one.ref for one in refused} | {move.ref for move in moves if self.atomic}
        taken = {row[3] for row in rows} - kept
        return (
            [move for move in moves if move.ref in taken],
            [one._replace(why=_reason(one.why, said)) for one in main],
        )

    def _call(self, *args: str, input: bytes | None = None, options: Iterable[str] = ()) -> Result:
        return self.repo.git.program.over_network(
            *args, input=input, options=options, progress=self._told, interactive=self._interactive
        )

    def _told(self, line: str) -> None:
        match = _STEP.match(line)
        if match is None:
            return
        what = match[1].lower()
        if match[5]:
            what += f", {match[5]}" + (f" at {match[6].rstrip('.')}" if match[6] and "/s" in match[6] else "")
        self._progress(what, int(match[2] or match[4] or 0), int(match[3]) if match[3] else None)

    def _failure(self, done: Result, left: str) -> GittrackError:
        """The error that a failed call means, with what the remote said; ``left`` says what was transferred."""
        return failure(_text(done.stderr), done.status, self._who, left)


def failure(said: str, status: int, who: str, left: str, *, writing: bool = False) -> GittrackError:
    """The error that git's words mean.

    Args:
        said: What git and the remote have printed.
        status: git's exit status.
        who: What was called, for people.
        left: What was transferred; empty if that goes without saying.
        writing: It was to be written to, and can be read.
    """
    text = gateway.strip_credentials(said)
    lines = [
        line for line in text.splitlines() if line.strip() and not _STEP.match(line) and "remote: Total " not in line
    ]
    told = next((line for line in reversed(lines) if line.startswith("fatal: ")), None)
    errors = [line for line in lines if line.startswith(("error: ", "fatal: ", "remote: ", "ssh: "))]
    last = (errors[0] if errors else told or f"git ended with status {status}").partition(": ")[2] or text[-200:]
    after = f"; {left}" if left else ""
    full = re.search(
        r"No space left on device|Out of diskspace|File too large|Disk quota exceeded|Read-only file system", text
    )
    if full is not None and not any(full[0] in line for line in lines if line.startswith("remote: ")):
        return StorageError(f"what {who} sends cannot be written: {full[0].lower()}{after}",
                            hint="make room; the same command again goes on from there")  # fmt: skip
    if re.search(r"transport '.*' not allowed", text):
        return UsageError(f"{who} has an address of a kind that gittrack does not use",
                          hint="https, ssh and paths are used; `git remote set-url` changes it")  # fmt: skip
    if re.search(
        r"fsck error|bad pack|bad object|unresolved delta|premature end of pack|pack (?:has|is) |pack corrupt"
        r"|did not send all necessary objects|SHA1 COLLISION|inflate|not our ref",
        text,
    ) and not _broke(text):
        cause = next((line for line in lines if "error: object" in line or "fsck error" in line), last)
        return RemoteDataError(f"{who} sent objects that git refuses: {_short(cause)}")
    if writing and (no := _line(lines, r"HTTP 403|error: 403|access denied|[Pp]ermission to .* denied")):
        return PushRefusedError(f"{who} can be read, but does not let you write: {no}{after}",
                                hint="ask for the right to write; then the same command goes on")  # fmt: skip
    if key := _line(lines, r"[Hh]ost key verification|REMOTE HOST IDENTIFICATION"):
        return NetworkError(f"{who} is a machine that ssh does not know, or another one than before: {key}{after}",
                            hint="connect once with `ssh` and compare its key; then the same command goes on",
                            denied=True)  # fmt: skip
    no = _line(
        lines,
        r"[Aa]uthentication failed|could not read (?:Username|Password)|[Pp]ermission denied|terminal prompts"
        r"|HTTP 40[13]|error: 40[13]",
    )
    if no:
        return NetworkError(f"{who} does not let you in: {no}{after}", denied=True,
                            hint="gittrack uses git's own credentials and ssh: once `git ls-remote` on it works, the "
                                 "same command goes on")  # fmt: skip
    if re.search(r"does not appear to be a git repository|[Rr]epository .*not found|HTTP 404|error: 404", text):
        return NetworkError(
            f"{who} is no git repository, or none that you may see: {_short(last)}{after}",
            hint="`gittrack remote list` shows where it is, `git remote set-url` changes it",
        )
    if re.search(r"git-http-push failed", text):
        return PushRefusedError(f"{who} can only be read: its web server knows nothing of git (dumb http){after}",
                                hint="push over ssh, or have git's http-backend behind the web server")  # fmt: skip
    if far := _line(
        lines, r"[Cc]ould not resolve|[Cc]onnection refused|[Cc]ouldn't connect|No route to host|timed out"
    ):
        return NetworkError(
            f"{who} cannot be reached: {far}{after}",
            hint="`gittrack remote list` shows where it is; the same command again goes on",
        )
    return NetworkError(f"{who} cannot be reached, or the connection broke: {_short(last)}{after}",
                        hint="the same command again goes on from there")  # fmt: skip


def _line(lines: Sequence[str], pattern: str) -> str:
    """The first line that says this, without the name of who says it; empty if none does."""
    found = next((line for line in lines if re.search(pattern, line)), "")
    return _short(re.sub(r"^(?:(?:remote|fatal|error|ssh|ERROR): )+", "", found.strip()).rstrip("."))


def _broke(text: str) -> bool:
    return (
        re.search(r"early EOF|hung up unexpectedly|RPC failed|Connection (?:reset|closed)|unexpected disconnect", text)
        is not None
    )


def _is_gone(done: Result) -> bool:
    return b"couldn't find remote ref" in done.stderr


def _reason(why: str, said: Sequence[str]) -> str:
    """Why a ref was refused: git's words, and the first of the remote's, without what could command a terminal."""
    inner = re.search(r"\(([^()]*)\)\s*$", why)
    text = inner[1] if inner else why
    plain = (_plain(line.removeprefix("remote: ")) for line in said if not _STEP.match(line))
    spoken = " | ".join(islice((line for line in plain if line), _LINES))
    return _short(gateway.strip_credentials(f"{text}: {spoken}" if spoken else text))


def _plain(line: str) -> str:
    """A line of somebody else's without colours and other control characters, and without rules of ``=`` or ``-``."""
    line = re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)?", "", line)
    line = "".join(char if char.isprintable() else " " for char in line).strip()
    return "" if re.fullmatch(r"[-=_*#~]*", line) else line


def _short(line: str) -> str:
    return line if len(line) <= 300 else f"{line[:300]}…"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items, at most ``size`` at a time."""
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _names(refs: Sequence[str]) -> str:
    more = f" and {len(refs) - 2} more" if len(refs) > 2 else ""
    return ", ".join(f"`{ref}`" for ref in refs[:2]) + more


def refused(remote: str, refusals: Sequence[Refusal], left: str) -> PushRefusedError:
    """The error that says that a remote did not take a push."""
    reasons: dict[str, list[str]] = {}
    for one in refusals:
        reasons.setdefault(one.why, []).append(one.ref)
    shown = "; ".join(f"{_names(refs)}: {why}" for why, refs in islice(reasons.items(), 3))
    shown += " …" if len(reasons) > 3 else ""
    hint = "`gittrack remote check` finds out what it takes; the same command goes on from there"
    if any(re.search(r"unpacker error|migrate objects|No space left", one.why) for one in refusals):
        hint = "its disk may be full, or cannot be written; when that is mended, the same command goes on from there"
    return PushRefusedError(f"remote `{remote}` refused {shown}; {left}", hint=hint)
