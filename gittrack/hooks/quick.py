"""Is there anything to do for a hook?  Answered by a few plain reads, before anything else is imported.

git waits for its hooks at every commit, and loading the store takes longer than a commit.  ``seen_text`` is what a hook
that looked at everything leaves behind in `.gittrack/hooks.seen`: the state of the refs and, for all runs, the ids of
their commits and trees.  While the refs have not moved, a commit whose id and tree are not in there concerns no run;
nor does one on a commit that no run started on with uncommitted changes.

May assume that it runs in a hook: git has made the top of the work tree the current folder.  Whatever is unusual (a
packed HEAD, a run that is going on, a file that cannot be read) is answered with "there may be": False.
"""

import os
import sys
import zlib

SEEN = "hooks.seen"
#: Staged files below this many bytes are never too large, whatever the settings say (``max_staged``).
SMALL = 64 * 1024
_MODE_LINK = b"160000"
_WAITING = "+"  #: before the id of a commit on which a run with changes started


class _Given:
    """What came on standard input, which can be read only once."""

    data = b""
    taken = False


def standard_input() -> bytes:
    """All of standard input; the same again when asked again."""
    if not _Given.taken:
        _Given.taken = True
        _Given.data = sys.stdin.buffer.read()
    return _Given.data


def idle(words: list[str]) -> bool:
    """True if ``gittrack hook WORDS`` certainly has nothing to do."""
    check = _CHECKS.get(words[0]) if words else None
    if check is None:
        return False
    try:
        return check(words[1:])
    except (OSError, ValueError, IndexError, zlib.error):
        return False


def _pre_commit(words: list[str]) -> bool:
    """The list of what is staged comes with the option ``--staged``: `git diff --cached --raw -z --no-abbrev`."""
    if words != ["--staged"]:
        return False
    records = standard_input().split(b"\0")
    objects = os.path.join(_place()[1], "objects")  # noqa: PTH118 - pathlib alone takes 10 ms to load
    for head, path in zip(records[::2], records[1::2], strict=False):
        mode, oid = head.split(b" ")[1], head.split(b" ")[3].decode()
        if path == b".gittrack" or path.startswith(b".gittrack/"):
            return False
        if mode != _MODE_LINK and int(_loose(objects, oid, 64).partition(b"\0")[0].split(b" ")[1]) >= SMALL:
            return False
    return not _may_have_gate("pyproject.toml")


def _post_commit(_: list[str]) -> bool:
    git_dir, common = _place()
    root = _root(git_dir, common)
    if root is None:
        return True
    ref = _read(f"{git_dir}/HEAD").decode().strip()
    head = _read(f"{common}/{ref[5:]}").decode().strip() if ref.startswith("ref: ") else ref
    lines = _loose(f"{common}/objects", head, 4096).partition(b"\0")[2].partition(b"\n\n")[0].split(b"\n")
    trees = [line[5:] for line in lines if line.startswith(b"tree ")]
    parents = [_WAITING.encode() + line[7:] for line in lines if line.startswith(b"parent ")]
    return len(trees) == 1 and _nothing_about([head.encode(), *trees, *parents], root, common)


def _post_rewrite(_: list[str]) -> bool:
    pairs = [line.split() for line in standard_input().splitlines()]
    git_dir, common = _place()
    root = _root(git_dir, common)
    if root is None:
        return True
    return bool(pairs) and _nothing_about([pair[0] for pair in pairs], root, common)  # git always tells; others may not


def _needs_store(_: list[str]) -> bool:
    return _root(*_place()) is None


_CHECKS = {
    "pre-commit": _pre_commit,
    "prepare-commit-msg": _needs_store,
    "post-commit": _post_commit,
    "post-rewrite": _post_rewrite,
    "pre-push": _needs_store,
}


def _place() -> tuple[str, str]:
    """The git folder of this work tree, and the one that all work trees share."""
    git_dir = ".git"
    if not os.path.isdir(git_dir):  # noqa: PTH112
        word, _, git_dir = _read(git_dir).decode().rstrip("\n").partition(" ")
        if word != "gitdir:":
            raise ValueError(word)
    named = os.environ.get("GIT_DIR")
    if named and os.path.realpath(named) != os.path.realpath(git_dir):
        raise ValueError(named)
    try:
        return git_dir, os.path.join(git_dir, _read(f"{git_dir}/commondir").decode().rstrip("\n"))  # noqa: PTH118
    except FileNotFoundError:
        return git_dir, git_dir


def _root(git_dir: str, common: str) -> str | None:
    """The `.gittrack` of the clone; None if there is none."""
    root = ".gittrack"
    if git_dir != common:  # a linked work tree: the store is in the main one
        common = os.path.realpath(common)
        if os.path.basename(common) != ".git":  # noqa: PTH119
            raise ValueError(common)  # of a submodule, or a bare repository
        root = os.path.join(os.path.dirname(common), root)  # noqa: PTH118, PTH120
    return root if os.path.exists(f"{root}/writer") else None  # noqa: PTH110


def _nothing_about(oids: list[bytes], root: str, common: str) -> bool:
    stamp, _, known = _read(f"{root}/{SEEN}").partition(b"\n\n")
    if stamp != fingerprint(common).encode() or os.listdir(f"{root}/live"):  # noqa: PTH208
        return False
    return not any(oid in known for oid in oids)


def _loose(objects: str, oid: str, size: int) -> bytes:
    """The first bytes of an object that has a file of its own, header included."""
    if not oid.isalnum():
        raise ValueError(oid)
    with open(f"{objects}/{oid[:2]}/{oid[2:]}", "rb") as file:  # noqa: PTH123
        return zlib.decompressobj().decompress(file.read(4096), size)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


def _may_have_gate(path: str) -> bool:
    try:
        text = _read(path)
    except FileNotFoundError:
        return False
    return b"gittrack" in text and b"gate" in text


def fingerprint(common: str) -> str:
    """Lines that stay the same while no ledger moves.

    Args:
        common: The git folder that all work trees share.
    """
    lines = []
    todo = [f"{common}/refs/runs"]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except FileNotFoundError:
            continue
        todo += [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
        lines += [
            f"{_read(entry.path).decode().strip()} {entry.path[len(common) :]}"
            for entry in found
            if not entry.is_dir(follow_symlinks=False)
        ]
    try:
        packed = os.stat(f"{common}/packed-refs")  # noqa: PTH116
        lines.append(f"packed {packed.st_ino} {packed.st_size} {packed.st_mtime_ns}")
    except FileNotFoundError:
        pass
    return "\n".join(["gittrack hooks 1", *sorted(lines)])


def seen_text(stamp: str, ids: list[str], waiting: list[str]) -> bytes:
    """The content of `.gittrack/hooks.seen`.

    Args:
        stamp: The ``fingerprint`` before the runs were looked at.
        ids: Every commit and tree that is known to belong to a run.
        waiting: The commits on which runs with uncommitted changes started.
    """
    return "\n".join([stamp, "", *ids, *(_WAITING + one for one in waiting), ""]).encode()
