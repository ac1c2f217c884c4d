"""Teaching git to show run records as text: what `gittrack init` sets beside making the store."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from gittrack.store import files, gateway

if TYPE_CHECKING:
    from gittrack.store.repo import Repo

#: Which files of a run commit are records; the rest of `.gittrack` in a commit is text already.
ATTRIBUTES: Final = (".gittrack/run.msgpack diff=gittrack", ".gittrack/metrics/* diff=gittrack")
TEXTCONV: Final = "diff.gittrack.textconv"


def teach_git(repo: Repo, program: str) -> list[str]:
    """Set the diff driver in the clone's git configuration and its attributes; what was changed, for people to read.

    ``git show`` and ``git diff`` then print records as text.  Nothing that the project commits is touched.

    Args:
        repo: The store.
        program: The `gittrack` program; where it is gone, git shows a line that says so instead of failing.

    Raises:
        GitError, StorageError: The configuration cannot be written.
    """
    # A driver that fails makes `git show` fail: hence the second and the third way.
    quoted = shlex.quote(program)
    command = (
        f'f() {{ {quoted} textconv "$1" 2>/dev/null || gittrack textconv "$1" 2>/dev/null'
        " || echo '(install gittrack to see this record as text)'; }; f"
    )
    git = gateway.Git(repo.paths.git_dir, repo.paths.work_tree)
    changed = []
    if git.call("config", "--local", "--get-all", TEXTCONV).stdout.decode().splitlines() != [command]:
        git.run("config", "--local", "--replace-all", TEXTCONV, command)
        changed.append(f"{TEXTCONV} in {repo.paths.common_dir / 'config'}")
    attributes = repo.paths.common_dir / "info" / "attributes"
    old = attributes.read_bytes() if attributes.exists() else b""
    missing = [line for line in ATTRIBUTES if line.encode() not in old.splitlines()]
    if missing:
        files.make_dirs(attributes.parent)
        separator = b"" if not old or old.endswith(b"\n") else b"\n"
        files.write_atomic(attributes, old + separator + "".join(line + "\n" for line in missing).encode())
        changed.append(f"diff=gittrack for run records in {attributes}")
    return changed
