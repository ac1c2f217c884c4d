"""Putting the hook scripts into a repository, taking them out again, and saying how it stands.

The scripts lie in the project's `hooks/` folder; an installed package carries them.  A hook that was there before is
kept under another name and goes on being run, first.  Where somebody else owns the hooks (``core.hooksPath``, a hook
manager), nothing is written: that is said, with the line to put there instead.  Nothing is written through a symlink.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files as package_files
from pathlib import Path
from typing import Final, NamedTuple

from gittrack.errors import NotARepositoryError, NotFoundError, StateError
from gittrack.hooks import NAMES
from gittrack.store import files, gateway
from gittrack.store.gateway import RepoPaths

#: What every script of ours has in its second line.
MARK: Final = b"# gittrack hook "
BEFORE: Final = ".before-gittrack"  #: behind the name of the hook that was there before
PROGRAM: Final = "gittrack.program"  #: git's setting of where the program is, for hooks that do not find it on the PATH
REMOVED: Final = ".removed-by-gittrack"  #: behind the name of a script of ours that somebody had changed
#: What a hook says that a manager made, the manager, and what to put where instead.
_MANAGERS: Final = (
    (b"pre-commit.com", "the pre-commit framework", "add gittrack to .pre-commit-config.yaml"),
    (b"lefthook", "lefthook", "add `gittrack hook {name} || [ $? -ne 10 ]` to lefthook.yml"),
    (b"husky", "husky", "add `gittrack hook {name} || [ $? -ne 10 ]` to .husky/{name}"),
    (b"overcommit", "overcommit", "add `gittrack hook {name} || [ $? -ne 10 ]` to .overcommit.yml"),
)
_SNIFF = 64 * 1024

# States of a hook.
INSTALLED: Final = "installed"
OUTDATED: Final = "outdated"  #: ours, of another version or changed by hand
ABSENT: Final = "not installed"
OTHER: Final = "other"  #: somebody's own
MANAGED: Final = "managed"  #: a hook manager's


class Hook(NamedTuple):
    """How one hook stands.

    Attributes:
        name: The hook.
        state: ``INSTALLED``, ``OUTDATED``, ``ABSENT``, ``OTHER`` or ``MANAGED``.
        before: There is an earlier hook, which ours runs first.
        note: The next step, if there is one.
    """

    name: str
    state: str
    before: bool = False
    note: str = ""


class Done(NamedTuple):
    """What was done about a hook: ``installed``, ``updated``, ``unchanged``, ``removed``, ``absent`` or ``refused``."""

    name: str
    what: str
    note: str = ""


def script(name: str) -> bytes:
    """The script of a hook.  Raises NotFoundError if the package lacks it."""
    carried = package_files("gittrack.hooks").joinpath("scripts").joinpath(name)
    source = Path(__file__).parents[2] / "hooks" / name  # an editable installation, or a checkout
    with suppress(FileNotFoundError):
        return carried.read_bytes()
    with suppress(FileNotFoundError):
        return source.read_bytes()
    raise NotFoundError(f"the script of the hook `{name}` is not in this installation", hint="install gittrack again")


def hooks_path(paths: RepoPaths) -> tuple[str, str] | None:
    """(scope, value) of ``core.hooksPath`` where somebody has set it; None if git uses the repository's own folder."""
    git = gateway.Git(paths.git_dir, paths.work_tree)
    out = git.call("config", "--show-scope", "--null", "--get-all", "core.hooksPath").stdout.decode()
    words = out.split("\0")
    found = [(scope, value) for scope, value in zip(words[::2], words[1::2], strict=False) if scope != "command"]
    return found[-1] if found else None


def folder(paths: RepoPaths) -> Path:
    """The repository's folder of hooks.

    Raises:
        NotARepositoryError: Nothing is committed here: a bare repository, or a private store.
        StateError: The hooks are somebody else's: ``core.hooksPath`` is set, or the folder is a symlink.
    """
    if paths.bare:
        raise NotARepositoryError(
            f"`{paths.main_root}` has no work tree, so that nobody commits there", hint="run it in a clone"
        )
    found = paths.common_dir / "hooks"
    owner = hooks_path(paths)
    if owner is not None:
        scope, value = owner
        own = Path(os.path.realpath((paths.work_tree or found) / value)) == found  # git takes it from the top, too
        if not own:
            raise StateError(
                f"core.hooksPath is `{value}` ({scope} configuration): the hooks there are not gittrack's to change",
                hint='put `gittrack hook NAME "$@" || [ $? -ne 10 ]` into the hooks there;'
                f" NAME is one of {', '.join(NAMES)}",
            )
    if found.is_symlink():
        raise StateError(
            f"`{found}` is a symlink to `{found.readlink()}`", hint="hooks are not installed through a symlink"
        )
    return found


def status(paths: RepoPaths) -> list[Hook]:
    """How every hook stands.  Raises as ``folder``."""
    where = folder(paths)
    return [_look(where, name) for name in NAMES]


def _look(where: Path, name: str) -> Hook:
    content = _read(where / name)
    before = os.path.lexists(where / (name + BEFORE))
    if content is None:
        return Hook(name, ABSENT, before)
    if _is_ours(content):
        same = content == script(name)
        return Hook(name, INSTALLED if same else OUTDATED, before, "" if same else "`gittrack hooks install` renews it")
    manager = _manager(content, name)
    if manager is not None:
        return Hook(name, MANAGED, before, f"made by {manager[0]}: {manager[1]}")
    return Hook(name, OTHER, before, "`gittrack hooks install` keeps it and runs it first")


def remembered(paths: RepoPaths) -> str | None:
    """The program that hooks start where `gittrack` is not on the PATH; None if it is not there any more."""
    found = gateway.Git(paths.git_dir, paths.work_tree).call("config", "--get", PROGRAM).stdout.decode().rstrip("\n")
    return found if found and os.access(found, os.X_OK) else None


def install(
    paths: RepoPaths, names: Sequence[str] = (), *, program: str | None = None, dry_run: bool = False
) -> list[Done]:
    """Install hooks; all if none is named.  Running it again renews them.

    Args:
        paths: The repository.
        names: The hooks.
        program: Where `gittrack` is.  It is remembered for programs that start git without the PATH of a shell, such as
            editors and desktop clients.
        dry_run: Change nothing.

    Raises:
        NotFoundError: There is no hook of that name.
        StateError, NotARepositoryError: As ``folder``.
        ReadOnlyError, StorageError: The system refused.
    """
    where = folder(paths)
    wanted = _checked(names)
    if not dry_run:
        files.make_dirs(where)
        if program is not None and Path(program).is_absolute():
            gateway.Git(paths.git_dir, paths.work_tree).run("config", "--local", "--replace-all", PROGRAM, program)
    return [_install(where, name, dry_run) for name in wanted]


def _install(where: Path, name: str, dry_run: bool) -> Done:
    now = _look(where, name)
    path = where / name
    if now.state == MANAGED:
        return Done(name, "refused", now.note)
    if now.state == INSTALLED and os.access(path, os.X_OK):
        return Done(name, "unchanged")
    chained = now.before
    if now.state == OTHER:
        kept = path.with_name(name + BEFORE)
        if now.before:
            return Done(name, "refused", f"`{kept}` is there already: move it away first")
        chained = True
        if not dry_run:
            with files.reporting(path):
                path.rename(kept)  # a symlink is moved as it is
    if not dry_run:
        try:
            files.write_atomic(path, script(name), mode=0o755)
        except BaseException:
            if now.state == OTHER:
                path.with_name(name + BEFORE).rename(path)
            raise
    what = "updated" if now.state in (OUTDATED, INSTALLED) else "installed"
    return Done(name, what, f"runs {name}{BEFORE} first" if chained else "")


def uninstall(paths: RepoPaths, names: Sequence[str] = (), *, dry_run: bool = False) -> list[Done]:
    """Take hooks out again and put those back that were there before; all if none is named.  Raises as ``install``."""
    where = folder(paths)
    if not names and not dry_run:
        gateway.Git(paths.git_dir, paths.work_tree).call("config", "--local", "--unset-all", PROGRAM)
    return [_uninstall(where, name, dry_run) for name in _checked(names)]


def _uninstall(where: Path, name: str, dry_run: bool) -> Done:
    now = _look(where, name)
    path, before = where / name, where / (name + BEFORE)
    if now.state not in (INSTALLED, OUTDATED):
        return Done(name, "absent")
    notes = []
    if now.state == OUTDATED:
        notes.append(f"it was not as installed, so it is kept as {name}{REMOVED}")
    if now.before:
        notes.append("the hook that was there before is back")
    if not dry_run:
        with files.reporting(path):
            if now.state == OUTDATED:
                path.replace(path.with_name(name + REMOVED))
            else:
                path.unlink()
            if now.before:
                before.rename(path)
    return Done(name, "removed", "; ".join(notes))


def _checked(names: Sequence[str]) -> list[str]:
    for name in names:
        if name not in NAMES:
            raise NotFoundError(f"there is no hook `{name:.80}`", hint=f"the hooks are {', '.join(NAMES)}")
    return [name for name in NAMES if not names or name in names]


def _read(path: Path) -> bytes | None:
    """The beginning of a hook, nothing of what is no plain file; None if there is none."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(_SNIFF)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise files.failure(error, path, "read") from error


def _is_ours(content: bytes) -> bool:
    return any(line.startswith(MARK) for line in content.splitlines()[:3])


def _manager(content: bytes, name: str) -> tuple[str, str] | None:
    for word, who, instead in _MANAGERS:
        if word in content:
            return who, instead.format(name=name)
    return None
