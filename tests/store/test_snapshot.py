"""The captured tree is the one git would make, and nothing of the user's changes in making it."""

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gittrack.errors import GitError
from gittrack.store import snapshot
from gittrack.store.git import PIN_PREFIX, GitStore
from gittrack.store.snapshot import CodeState, Policy, capture
from gittrack.types import ObjectId
from tests.conftest import MakeRepo, Sandbox, run_git


def look(repo: Sandbox, policy: Policy | None = None) -> CodeState:
    store = repo.store
    return capture(store.paths, store, policy or Policy())


def listing(repo: Sandbox, tree: str | None) -> list[str]:
    return [] if tree is None else repo.git("ls-tree", "-r", "-t", "-z", "--full-tree", tree).split("\0")[:-1]


def names(repo: Sandbox, tree: str | None) -> set[str]:
    return (
        set()
        if tree is None
        else set(repo.git("ls-tree", "-r", "-z", "--name-only", "--full-tree", tree).split("\0")[:-1])
    )


def content(repo: Sandbox, tree: str | None, path: str) -> str:
    return repo.git("cat-file", "blob", f"{tree}:{path}")


def as_git_would(repo: Sandbox, tmp_path: Path, *new: str) -> str:
    """The tree that `git add` makes of all changes to tracked files and of the new files ``new``, in a copy."""
    copy = tmp_path / f"copy-{time.monotonic_ns()}"
    shutil.copytree(repo.path, copy, symlinks=True)
    run_git(copy, "add", "--update", "--", ":/")
    if new:
        run_git(copy, "update-index", "--add", "-z", "--stdin", input="\0".join(new).encode("utf-8", "surrogateescape"))
    tree = run_git(copy, "write-tree")
    shutil.rmtree(copy)
    return tree


def everything(repo: Sandbox) -> dict[str, object]:
    """All that belongs to the user: files with content, mode and time; index, HEAD, config, refs, stash, logs."""
    found: dict[str, object] = {}
    git_dir, common = repo.paths.git_dir, repo.paths.common_dir
    for root in {repo.path, git_dir, common}:
        for where, folders, files in os.walk(root):
            if Path(where) in (common / "objects", common / "refs" / "gittrack"):
                folders.clear()
                continue
            for name in [*files, *folders]:
                path = Path(where, name)
                if path == common / "gittrack.mutex":
                    continue
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    found[str(path)] = (status.st_mode, status.st_mtime_ns, status.st_ino, path.read_bytes())
                elif stat.S_ISLNK(status.st_mode):
                    found[str(path)] = str(path.readlink())
                else:
                    found[str(path)] = status.st_mode
    return found


def assert_untouched(repo: Sandbox, before: dict[str, object]) -> None:
    after = everything(repo)
    grown = {path for path in set(after) - set(before) if not path.endswith(("refs/gittrack", "refs/gittrack/live"))}
    assert not grown
    assert not set(before) - set(after)
    changed = [path for path in before if before[path] != after[path]]
    assert not changed


# ---------------------------------------------------------------- kinds of repositories


def test_a_clean_tree_is_heads(any_repo: Sandbox) -> None:
    before = everything(any_repo)
    state = look(any_repo)
    assert_untouched(any_repo, before)
    assert (state.dirty, state.detached, state.untracked_taken, state.left_out) == (False, False, (), ())
    assert state.branch == ("side" if any_repo.kind == "linked" else "main")
    assert state.shallow == (any_repo.kind == "shallow")
    if any_repo.kind == "unborn":
        assert (state.commit, state.tree, state.pin) == (None, None, None)
    else:
        assert state.commit == any_repo.git("rev-parse", "HEAD")
        assert state.tree == any_repo.git("rev-parse", "HEAD^{tree}")
        assert state.pin == PIN_PREFIX + state.commit
    assert any_repo.store.fsck() == []


def test_a_changed_tree_is_kept_alive_and_nothing_is_touched(any_repo: Sandbox, tmp_path: Path) -> None:
    if any_repo.kind != "unborn":
        any_repo.write("README.md", "stashed\n")
        any_repo.git("stash", "--quiet")
        any_repo.git("rm", "--quiet", "lib/util.py")
    any_repo.write("staged.py", "staged\n")
    any_repo.git("add", "staged.py")
    any_repo.write("staged.py", "and changed again\n")
    any_repo.write("train.py", "changed\n")
    any_repo.write("new/deep/file.py", "new\n")
    before = everything(any_repo)
    state = look(any_repo)
    again = look(any_repo)
    assert_untouched(any_repo, before)
    assert again == state
    new = ["new/deep/file.py", *(["train.py"] if any_repo.kind == "unborn" else [])]
    assert list(state.untracked_taken) == new
    if any_repo.kind != "linked":  # a copy of a linked work tree is still linked to the same index
        assert state.tree == as_git_would(any_repo, tmp_path, *new)
    assert content(any_repo, state.tree, "staged.py") == "and changed again"
    assert state.dirty
    assert state.pin is not None
    pinned = state.pin.removeprefix(PIN_PREFIX)
    assert any_repo.git("rev-parse", f"{pinned}^{{tree}}") == state.tree
    assert any_repo.git("log", "-1", "--format=%P", pinned) == (state.commit or "")
    any_repo.git("gc", "--quiet", "--prune=now")
    assert content(any_repo, state.tree, "new/deep/file.py") == "new"
    assert any_repo.store.fsck() == []
    any_repo.store.unpin([state.pin])
    any_repo.git("gc", "--quiet", "--prune=now")
    assert not any_repo.store.exists(ObjectId(pinned))


def test_a_bare_repository_has_the_tree_of_head(make_repo: MakeRepo) -> None:
    repo = make_repo("bare")
    before = everything(repo)
    state = look(repo)
    assert_untouched(repo, before)
    assert (state.commit, state.tree) == (repo.git("rev-parse", "HEAD"), repo.git("rev-parse", "HEAD^{tree}"))
    assert (state.dirty, state.branch) == (False, "main")


def test_a_private_store_has_no_code(make_repo: MakeRepo) -> None:
    folder = make_repo("plain")
    GitStore.create_private(folder.path)
    folder.write("train.py", "x")
    state = look(folder)
    assert (state.commit, state.tree, state.pin, state.dirty) == (None, None, None, False)


def test_from_a_subfolder_of_the_work_tree(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    git_repo.write("lib/new.py", "x\n")
    monkeypatch.chdir(git_repo.path / "lib")
    assert look(git_repo).untracked_taken == ("lib/new.py",)


def test_a_detached_head(git_repo: Sandbox) -> None:
    git_repo.git("checkout", "--quiet", "--detach", "HEAD~1")
    state = look(git_repo)
    assert (state.detached, state.branch, state.dirty) == (True, None, False)
    assert state.commit == git_repo.git("rev-parse", "HEAD")


def test_a_remote_without_its_credentials(git_repo: Sandbox) -> None:
    git_repo.git("remote", "add", "origin", "https://ana:secret@example.org/x.git")
    assert look(git_repo).remote_url == "https://example.org/x.git"


# ---------------------------------------------------------------- kinds of changes

ODD_NAMES = ("-d", ":(top)x", '"quoted"', "new\nline", "back\\slash", " space ", "ünï", "#x", "*")

#: What a user does, as a shell script in the work tree.
CHANGES = {
    "modified": "echo changed > train.py",
    "emptied": ": > train.py",
    "staged": "echo changed > train.py; git add train.py",
    "staged and modified": "echo a > train.py; git add train.py; echo b > train.py",
    "staged and taken back": "cp train.py x; echo a > train.py; git add train.py; mv x train.py",
    "added": "echo a > added.py; git add added.py",
    "added and removed": "echo a > added.py; git add added.py; rm added.py",
    "added by intent": "echo a > added.py; git add --intent-to-add added.py",
    "deleted": "rm lib/util.py",
    "deleted in the index": "git rm --quiet lib/util.py",
    "renamed": "git mv train.py lib/renamed.py",
    "made a program": "chmod +x train.py",
    "made a symlink": "ln -sf README.md train.py",
    "dangling symlink": "ln -sf /no/such/file train.py",
    "file becomes folder": "rm train.py; mkdir train.py; echo x > train.py/x.py; git add train.py/x.py",
    "folder becomes file": "rm -r lib; echo x > lib; git add lib",
    "folder becomes symlink": "rm -r lib; ln -s . lib; git add lib",
    "everything deleted": "rm -r *",
    "touched only": "touch -d 2001-01-01 train.py",
    "odd names": "odd names",
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_tree_is_what_git_would_store(git_repo: Sandbox, tmp_path: Path, change: str) -> None:
    if change == "odd names":
        for text in ("tracked", "changed"):
            for name in ODD_NAMES:
                git_repo.write(name, text)
            git_repo.git("add", *(["--all"] if text == "tracked" else ["--", ":(literal)*"]))
    else:
        subprocess.run(["sh", "-ec", CHANGES[change]], cwd=git_repo.path, check=True)
    before = everything(git_repo)
    state = look(git_repo)
    assert_untouched(git_repo, before)
    expected = as_git_would(git_repo, tmp_path)
    if change == "everything deleted":
        assert state.tree is None
    else:
        assert listing(git_repo, state.tree) == listing(git_repo, expected)
        assert state.tree == expected
    assert state.dirty == (change != "touched only")
    assert state.left_out == ()
    assert git_repo.store.fsck() == []


def test_names_that_are_no_utf8(git_repo: Sandbox, tmp_path: Path) -> None:
    tracked, new = "caf\udce9.py", "n\udcff.py"
    git_repo.write(tracked, "x")
    git_repo.git("add", "--all")
    git_repo.write(tracked, "y")
    git_repo.write(new, "z")
    state = look(git_repo)
    assert state.tree == as_git_would(git_repo, tmp_path, new)
    assert state.untracked_taken == ("n\\xff.py",), "recorded so that it can be printed and stored anywhere"


def test_new_symlinks_are_kept_as_such(git_repo: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("do not read")
    (git_repo.path / "link").symlink_to(secret)
    (git_repo.path / "folder").symlink_to(tmp_path)
    (git_repo.path / "train.py").unlink()
    (git_repo.path / "train.py").symlink_to(secret)
    state = look(git_repo)
    assert state.tree == as_git_would(git_repo, tmp_path, "link", "folder")
    assert content(git_repo, state.tree, "link") == content(git_repo, state.tree, "train.py") == str(secret)


def test_a_new_program_is_executable(git_repo: Sandbox, tmp_path: Path) -> None:
    git_repo.write("run.sh", "#!/bin/sh\n").chmod(0o755)
    assert look(git_repo).tree == as_git_would(git_repo, tmp_path, "run.sh")


def test_taken_out_of_the_index_but_still_there(git_repo: Sandbox) -> None:
    git_repo.git("rm", "--quiet", "--cached", "train.py")
    state = look(git_repo)
    assert state.untracked_taken == ("train.py",)
    assert state.tree == git_repo.git("rev-parse", "HEAD^{tree}"), "the run sees the file all the same"


def test_a_merge_with_conflicts(git_repo: Sandbox, tmp_path: Path) -> None:
    git_repo.git("checkout", "--quiet", "-b", "other", "HEAD~1")
    git_repo.commit("theirs", train_py="theirs\n", README_md="theirs\n")
    git_repo.git("rm", "--quiet", "lib/util.py")
    git_repo.commit("gone")
    git_repo.git("checkout", "--quiet", "main")
    git_repo.write("lib/util.py", "ours\n")
    git_repo.commit("ours", train_py="ours\n")
    git_repo.git("merge", "other", check=False)
    before = everything(git_repo)
    assert git_repo.git("ls-files", "--unmerged")
    state = look(git_repo)
    assert_untouched(git_repo, before)
    assert state.tree == as_git_would(git_repo, tmp_path)
    assert "<<<<<<<" in content(git_repo, state.tree, "train.py")
    assert content(git_repo, state.tree, "lib/util.py") == "ours"
    (git_repo.path / "lib/util.py").unlink()
    assert look(git_repo).tree == as_git_would(git_repo, tmp_path)


def test_a_sparse_checkout_keeps_what_is_not_there(git_repo: Sandbox) -> None:
    git_repo.commit("more", other_py="x")
    git_repo.write("big/data.py", "x")
    git_repo.commit("big")
    git_repo.git("sparse-checkout", "set", "lib")
    assert not (git_repo.path / "big").exists()
    before = everything(git_repo)
    state = look(git_repo)
    assert (state.tree, state.dirty) == (git_repo.git("rev-parse", "HEAD^{tree}"), False)
    git_repo.write("lib/util.py", "changed\n")
    state = look(git_repo)
    assert "big/data.py" in names(git_repo, state.tree)
    assert content(git_repo, state.tree, "lib/util.py") == "changed"
    git_repo.write("lib/util.py", "def double(x):\n    return 2 * x\n")
    assert set(everything(git_repo)) - {str(git_repo.path / ".git" / "gittrack.mutex")} >= set(before)


@pytest.mark.parametrize("extension", ["splitIndex", "untrackedCache"])
def test_index_extensions_are_left_alone(git_repo: Sandbox, tmp_path: Path, extension: str) -> None:
    git_repo.git("config", f"core.{extension}", "true")
    git_repo.git("update-index", "--split-index" if extension == "splitIndex" else "--untracked-cache")
    git_repo.write("train.py", "changed\n")
    git_repo.write("new.py", "x\n")
    index = (git_repo.path / ".git" / "index").read_bytes()
    state = look(git_repo)
    assert (git_repo.path / ".git" / "index").read_bytes() == index
    assert state.tree == as_git_would(git_repo, tmp_path, "new.py")


def test_filters_and_line_endings_apply(git_repo: Sandbox, tmp_path: Path) -> None:
    git_repo.git("config", "filter.upper.clean", "tr a-z A-Z")
    git_repo.git("config", "filter.upper.required", "true")
    git_repo.write(".gitattributes", "*.up filter=upper\n*.txt text eol=crlf\n")
    git_repo.write("a.up", "tracked\n")
    git_repo.commit("attributes")
    git_repo.write("a.up", "changed\n")
    git_repo.write("b.up", "new\n")
    git_repo.write("c.txt", "one\r\ntwo\r\n")
    state = look(git_repo)
    assert content(git_repo, state.tree, "a.up") == "CHANGED"
    assert content(git_repo, state.tree, "c.txt") == "one\ntwo"
    assert state.tree == as_git_would(git_repo, tmp_path, "b.up", "c.txt")


def test_a_filter_that_fails_leaves_that_file_out(git_repo: Sandbox) -> None:
    git_repo.git("config", "filter.broken.clean", "false")
    git_repo.git("config", "filter.broken.required", "true")
    git_repo.write(".git/info/attributes", "*.bad filter=broken\n")
    git_repo.write("x.bad", "x\n")
    git_repo.write("good.py", "x\n")
    state = look(git_repo)
    assert state.left_out == (("x.bad", "git cannot read it"),)
    assert names(git_repo, state.tree) == {"good.py", "train.py", "README.md", "lib/util.py"}


def test_a_file_that_vanishes_meanwhile(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    git_repo.write("train.py", "changed\n")
    git_repo.write("lib/util.py", "changed\n")
    real = snapshot._Capture._hash

    def hash_later(self: snapshot._Capture, paths: list[bytes], folder: Path) -> object:
        (git_repo.path / "train.py").unlink(missing_ok=True)
        return real(self, paths, folder)

    monkeypatch.setattr(snapshot._Capture, "_hash", hash_later)
    state = look(git_repo)
    assert names(git_repo, state.tree) == {"README.md", "lib/util.py"}
    assert content(git_repo, state.tree, "lib/util.py") == "changed"


def test_a_blob_beyond_the_limit_keeps_its_old_version(git_repo: Sandbox) -> None:
    git_repo.write("train.py", os.urandom(5000))
    state = look(git_repo, Policy(max_tracked_bytes=4000))
    assert state.left_out == (("train.py", "larger than 4000 bytes"),)
    assert content(git_repo, state.tree, "train.py") == "print('train')"
    assert state.dirty
    git_repo.git("config", "core.bigFileThreshold", "1k")
    assert look(git_repo, Policy(max_tracked_bytes=4000)).left_out == state.left_out


def test_submodules(make_repo: MakeRepo) -> None:
    repo, other = make_repo("ordinary"), make_repo("ordinary")
    repo.git("submodule", "--quiet", "add", str(other.path), "sub")
    repo.commit("with a submodule")
    head = look(repo)
    assert (head.dirty, head.submodules) == (False, ())
    sub = Sandbox(repo.path / "sub", "ordinary")
    sub.write("train.py", "dirty\n")
    dirty = look(repo)
    assert dirty.left_out == (("sub", "uncommitted changes inside a submodule"),)
    assert (dirty.dirty, dirty.tree) == (True, head.tree)
    moved = sub.commit("moved")
    before = everything(repo)
    state = look(repo)
    assert_untouched(repo, before)
    assert state.submodules == (("sub", moved),)
    assert repo.git("rev-parse", f"{state.tree}:sub") == moved
    assert repo.store.fsck() == []


# ---------------------------------------------------------------- new files


def test_what_new_files_are_taken(git_repo: Sandbox) -> None:
    git_repo.write(".gitignore", "*.log\n")
    git_repo.commit("ignore")
    git_repo.write("new.py", "x\n")
    git_repo.write("empty.py", "")
    git_repo.write("x.log", "ignored\n")
    git_repo.write("model.bin", b"\x00\x01")
    git_repo.write("large.csv", "1,2\n" * 300_000)
    git_repo.write(".gittrack/live/x.journal", "ours\n")
    os.mkfifo(git_repo.path / "pipe")
    run_git(git_repo.path, "init", "--quiet", "nested")
    git_repo.write("nested/file.py", "x\n")
    before = everything(git_repo)
    state = look(git_repo)
    assert_untouched(git_repo, before)
    assert state.untracked_taken == ("empty.py", "new.py")
    assert dict(state.left_out) == {
        "large.csv": "larger than 1 MiB",
        "model.bin": "not text",
        "nested/": "a repository of its own",
    }


def test_new_data_alone_does_not_make_the_code_dirty(git_repo: Sandbox) -> None:
    git_repo.write("model.bin", b"\x00\x01")
    state = look(git_repo)
    assert not state.dirty
    assert state.pin == PIN_PREFIX + git_repo.git("rev-parse", "HEAD")


def test_new_files_have_limits_together(git_repo: Sandbox) -> None:
    for number in range(5):
        git_repo.write(f"{number}.py", "x" * 10)
    assert look(git_repo, Policy(max_untracked_total=35)).untracked_taken == ("0.py", "1.py", "2.py")
    state = look(git_repo, Policy(max_untracked_files=2))
    assert state.untracked_taken == ("0.py", "1.py")
    assert dict(state.left_out)["2.py"] == "too many new files"
    git_repo.write("a/deep.py", "x")
    assert look(git_repo, Policy(max_untracked_files=5)).untracked_taken == tuple(f"{n}.py" for n in range(5))


def test_a_folder_full_of_data_is_not_read(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        git_repo.write(f"data/{number:03}.csv", "1,2\n" * 5000)
    git_repo.write("new.py", "x\n")
    read: list[int] = []
    real = snapshot._Capture._content

    def content(self: snapshot._Capture, path: bytes, limit: int) -> bytes:
        data = real(self, path, limit)
        read.append(len(data))
        return data

    monkeypatch.setattr(snapshot._Capture, "_content", content)
    state = look(git_repo, Policy(max_untracked_files=10, max_untracked_total=50_000))
    assert state.untracked_taken == ("data/000.csv", "data/001.csv", "new.py")
    assert sum(read) < 100_000
    assert len(state.left_out) == snapshot.MAX_LISTED + 1
    assert state.left_out[-1] == (".", f"and {298 - snapshot.MAX_LISTED} more files")


def test_a_submodule_cannot_run_programs(make_repo: MakeRepo, tmp_path: Path) -> None:
    """`git status` goes into submodules, whose config came from somewhere else."""
    marker, evil = tmp_path / "PWNED", tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {marker}\n")
    evil.chmod(0o755)
    repo, other = make_repo("ordinary"), make_repo("ordinary")
    repo.git("submodule", "--quiet", "add", str(other.path), "sub")
    repo.commit("with a submodule")
    run_git(repo.path / "sub", "config", "core.fsmonitor", str(evil))
    (repo.path / "sub" / "train.py").write_text("changed\n")
    assert look(repo).left_out
    assert not marker.exists()
    repo.git("status")
    assert marker.exists(), "the trap itself works"


def test_what_looks_secret_never_enters_the_repository(git_repo: Sandbox) -> None:
    def looks_secret(path: str, head: bytes) -> str | None:
        return "looks like a secret" if path.endswith(".env") or b"TOKEN" in head else None

    git_repo.write("a.env", "unique-1\n")
    git_repo.write("b.py", "TOKEN = 'unique-2'\n")
    git_repo.write("c.env", "unique-3\n")
    git_repo.write("d.py", "fine\n")
    git_repo.git("add", "c.env")
    git_repo.git("reset", "--quiet", "c.env")
    git_repo.git("prune", "--expire=now")
    git_repo.git("add", "--intent-to-add", "c.env")
    (git_repo.path / "e.env").symlink_to("a.env")
    state = look(git_repo, Policy(looks_secret=looks_secret))
    assert state.untracked_taken == ("d.py",)
    assert {path for path, _ in state.left_out} == {"a.env", "b.py", "c.env", "e.env"}
    objects = git_repo.git("cat-file", "--batch", "--batch-all-objects")
    assert "unique-" not in objects


def test_a_staged_secret_is_left_out_of_the_tree(git_repo: Sandbox) -> None:
    git_repo.write(".env", "x\n")
    git_repo.git("add", ".env")
    state = look(git_repo, Policy(looks_secret=lambda path, _: "secret" if path == ".env" else None))
    assert state.left_out == ((".env", "secret"),)
    assert ".env" not in names(git_repo, state.tree)
    assert state.dirty


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root can read everything")
def test_an_unreadable_file_is_left_out(git_repo: Sandbox) -> None:
    git_repo.write("closed.py", "x").chmod(0)
    assert look(git_repo).left_out == (("closed.py", "cannot be read: Permission denied"),)


def test_only_the_commit(git_repo: Sandbox) -> None:
    git_repo.write("train.py", "changed\n")
    git_repo.write("new.py", "x\n")
    state = look(git_repo, Policy(full=False))
    assert (state.dirty, state.untracked_taken) == (True, ())
    assert state.tree == git_repo.git("rev-parse", "HEAD^{tree}")
    assert state.pin == PIN_PREFIX + str(state.commit)


# ---------------------------------------------------------------- against any sequence of changes

FILES = ["a", "b", "d/a", "d/b", "d/e/f", "ü"]
actions = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(FILES), st.sampled_from(["", "1\n", "2\n"])),
    st.tuples(
        st.sampled_from(["add", "intent", "remove", "unlink", "uncache", "chmod", "link"]),
        st.sampled_from(FILES),
        st.just(""),
    ),
    st.tuples(st.sampled_from(["commit", "stash", "reset"]), st.just(""), st.just("")),
)


COMMANDS = {
    "commit": ["commit", "-qam", "m"],
    "stash": ["stash", "-q"],
    "reset": ["reset", "-q"],
    "add": ["add", "--"],
    "intent": ["add", "-N", "--"],
    "remove": ["rm", "-qf", "--"],
    "uncache": ["rm", "-q", "--cached", "--"],
}


def perform(repo: Sandbox, action: str, name: str, text: str) -> None:
    path = repo.path / name
    if action == "write":
        for parent in reversed(path.parents):
            if parent.is_relative_to(repo.path) and (parent.is_file() or parent.is_symlink()):
                parent.unlink()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        repo.write(name, text)
    elif action in ("commit", "stash", "reset"):
        repo.git(*COMMANDS[action], check=False)
    elif action == "unlink":
        path.unlink(missing_ok=True)
    elif action == "chmod":
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode ^ 0o111)
    elif action == "link":
        if path.is_file():
            path.unlink()
            path.symlink_to("somewhere")
    else:
        command = {
            "add": ["add", "--"],
            "intent": ["add", "-N", "--"],
            "remove": ["rm", "-qf", "--"],
            "uncache": ["rm", "-q", "--cached", "--"],
        }[action]
        repo.git(*command, name, check=False)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(actions, min_size=1, max_size=12))
def test_any_state_is_captured_exactly(make_repo: MakeRepo, tmp_path: Path, steps: list[tuple[str, str, str]]) -> None:
    repo = make_repo("ordinary")
    for step in steps:
        perform(repo, *step)
    before = everything(repo)
    state = look(repo)
    assert_untouched(repo, before)
    untracked = repo.git("ls-files", "--others", "--exclude-standard", "-z").split("\0")[:-1]
    assert sorted(state.untracked_taken) == sorted(untracked)
    expected = as_git_would(repo, tmp_path, *untracked)
    assert listing(repo, state.tree) == listing(repo, expected)
    assert state.dirty == (repo.git("status", "--porcelain") != "")


# ---------------------------------------------------------------- beside others


def test_a_collection_between_status_and_pin(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new tree names a blob that only the index holds; the user resets and collects at the worst moment."""
    git_repo.write("train.py", "only in the index\n")
    git_repo.git("add", "train.py")
    attempts: list[int] = []
    real = snapshot._Capture._build

    def build(self: snapshot._Capture, *args: object) -> object:
        if not attempts:
            git_repo.git("reset", "--quiet", "--hard")
            git_repo.git("gc", "--quiet", "--prune=now")
            attempts.append(1)
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot._Capture, "_build", build)
    state = look(git_repo)
    assert attempts
    assert state.tree == git_repo.git("rev-parse", "HEAD^{tree}"), "taken anew, as it is now"


def test_a_blob_that_git_had_already_is_kept_too(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """`git hash-object` does not write what is in the repository, though nothing may keep that alive."""
    git_repo.git("hash-object", "-w", "--stdin", input=b"seen before\n")
    git_repo.write("new.py", "seen before\n")
    real = GitStore.pin

    def pin(self: GitStore, *args: object) -> str:
        git_repo.git("prune", "--expire=now")
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(GitStore, "pin", pin)
    state = look(git_repo)
    git_repo.git("prune", "--expire=now")
    assert content(git_repo, state.tree, "new.py") == "seen before"


def test_many_processes_capture_the_same(git_repo: Sandbox) -> None:
    git_repo.write("train.py", "changed\n")
    program = (
        "import sys; from gittrack.store import gateway, git, snapshot; p = gateway.discover(sys.argv[1]); "
        "print(snapshot.capture(p, git.GitStore(p), snapshot.Policy()).pin)"
    )
    root = Path(__file__).parents[2]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(git_repo.path)], cwd=root, stdout=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    pins = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0] * 6
    assert len(pins) == 1
    assert git_repo.git("rev-parse", pins.pop())
    assert git_repo.store.fsck() == []


def test_a_git_that_takes_too_long_is_given_up(git_repo: Sandbox) -> None:
    git_repo.git("config", "filter.slow.clean", "sleep 30")
    git_repo.write(".git/info/attributes", "*.slow filter=slow\n")
    git_repo.write("x.slow", "x\n")
    start = time.monotonic()
    with pytest.raises(GitError, match="longer than"):
        look(git_repo, Policy(timeout_s=0.5))
    assert time.monotonic() - start < 10
    assert git_repo.store.refs(PIN_PREFIX) == {}
