"""Objects and refs: the same as git's own, all or nothing, on disk, and safe beside git's housekeeping."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from gittrack.errors import (
    ConflictError,
    CorruptError,
    InvalidValueError,
    LockedError,
    NotFoundError,
    ReadOnlyError,
)
from gittrack.store import files, refs
from gittrack.store.gateway import discover
from gittrack.store.git import PIN_PREFIX, Batch, GitStore, RefUpdate
from gittrack.store.pack import clean_identity, decode_name, encode_name
from gittrack.store.refs import RefStore, check_name
from gittrack.types import ObjectId
from tests.conftest import MAIL, NAME, WITH_FILES, MakeRepo, Sandbox, run_git

ME = f"{NAME} <{MAIL}>"
REF = "refs/runs/0/ana-1"
FORMATS = ("ordinary", "sha256")


def add_commit(store: GitStore, batch: Batch, text: str = "x", parents: tuple[ObjectId, ...] = ()) -> ObjectId:
    tree = batch.add_tree([("file.txt", 0o100644, batch.add_blob(text.encode()))])
    return batch.add_commit(tree, parents, f"{text}\n", ME, 1_700_000_000)


def publish_one(store: GitStore, name: str = REF, text: str = "x") -> ObjectId:
    """Commit on top of what the ref is at; the new id."""
    batch, old = store.batch(), store.ref(name)
    new = add_commit(store, batch, text, () if old is None else (old,))
    store.publish(batch, [RefUpdate(name, old, new)])
    return new


def packs(repo: Sandbox) -> list[str]:
    return sorted(path.name for path in (repo.paths.common_dir / "objects" / "pack").iterdir())


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", [*WITH_FILES, "bare", "read-only"])
@pytest.mark.parametrize("packed", [False, True])
def test_reading_agrees_with_git(make_repo: MakeRepo, kind: str, packed: bool) -> None:
    repo = make_repo(kind)
    if packed and kind != "read-only":
        repo.git("pack-refs", "--all")
        repo.git("gc", "--quiet")
    store = repo.store
    listed = dict(
        line.split(" ")[::-1]
        for line in repo.git("for-each-ref", "--format=%(objectname) %(refname)").split("\n")
        if line
    )
    assert store.refs("refs/") == listed
    assert store.head_branch() == repo.git("symbolic-ref", "--short", "HEAD")
    if kind == "unborn":
        assert store.head() is None
        return
    head = store.head()
    assert head == repo.git("rev-parse", "HEAD")
    assert head is not None
    commit = store.read_commit(head)
    assert [commit.tree, str(commit.time), commit.author, commit.message] == [
        repo.git("log", "-1", f"--format={code}", head) for code in ("%T", "%ct", "%an <%ae>", "%B")
    ]
    graft = repo.git("cat-file", "-p", head)
    assert [f"parent {oid}" for oid in commit.parents] == [
        line for line in graft.split("\n") if line.startswith("parent ")
    ]
    shown = [
        f"{mode:06o} {'tree' if mode == 0o040000 else 'blob'} {oid}\t{name}"
        for name, mode, oid in store.list_tree(commit.tree)
    ]
    assert "\n".join(shown) == repo.git("ls-tree", head)
    found = store.lookup(commit.tree, "lib/util.py")
    assert found is not None
    assert store.read_blob(found[1]) == b"def double(x):\n    return 2 * x\n"
    for missing in ("lib/none.py", "none", "lib/util.py/x", ""):
        assert store.lookup(commit.tree, missing) is None
    assert store.exists(head)


@pytest.mark.parametrize("kind", FORMATS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_an_entry_is_found_as_a_list_has_it(make_repo: MakeRepo, kind: str, data: st.DataObject) -> None:
    """Also where an id, or another name, has the bytes that the entry looked for begins with."""
    store = make_repo(kind).store
    size = 20 if kind == "ordinary" else 32
    names = st.sampled_from(["a", "b", "ab", "40000 a", " a", "a b", "\u00e9", "0a"])
    texts = st.lists(st.sampled_from([b" a\0", b" ab\0", b"40000 a\0", b"100644 b\0", b"\0", b"7"]), max_size=12)
    ids = texts.map(lambda some: ObjectId(b"".join(some)[:size].rjust(size, b"\1").hex()))
    entries = data.draw(st.dictionaries(names, st.tuples(st.sampled_from([0o160000, 0o40000]), ids), max_size=6))
    batch = store.batch()
    tree = batch.add_tree((name, mode, oid) for name, (mode, oid) in entries.items())
    commit = batch.add_commit(tree, [], "x", ME, 0)
    store.publish(batch, [RefUpdate(REF, store.ref(REF), commit)])
    assert store.tree_of(commit) == tree
    assert {name: (mode, oid) for name, mode, oid in store.list_tree(tree)} == entries
    for name in ("a", "b", "ab", "40000 a", " a", "a b", "\u00e9", "0a", "", "c"):
        assert store.lookup(tree, name) == entries.get(name)


def test_detached_head(git_repo: Sandbox) -> None:
    git_repo.git("checkout", "--quiet", "--detach")
    assert git_repo.store.head_branch() is None
    assert git_repo.store.head() == git_repo.git("rev-parse", "HEAD")


def test_names_that_are_no_utf8_round_trip(git_repo: Sandbox) -> None:
    store = git_repo.store
    name = decode_name(b"caf\xe9 \xf0\x9f\x8c\xb3")
    batch = store.batch()
    tree = batch.add_tree([(name, 0o100644, batch.add_blob(b""))])
    store.publish(batch, [RefUpdate(REF, None, batch.add_commit(tree, [], "m", ME, 0))])
    assert store.list_tree(tree)[0][0] == name
    assert encode_name(name) == b"caf\xe9 \xf0\x9f\x8c\xb3"
    assert store.fsck() == []


@pytest.mark.parametrize("kind", FORMATS)
def test_missing_and_wrong_objects(make_repo: MakeRepo, kind: str) -> None:
    repo = make_repo(kind)
    store, head = repo.store, ObjectId(repo.git("rev-parse", "HEAD"))
    nothing = ObjectId("12" * (len(head) // 2))
    assert not store.exists(nothing)
    with pytest.raises(NotFoundError, match=nothing):
        store.read_blob(nothing)
    with pytest.raises(CorruptError, match="no blob"):
        store.read_blob(head)
    with pytest.raises(CorruptError, match="no tree"):
        store.list_tree(head)


@pytest.mark.parametrize("kind", ["ordinary", "sha256"])
def test_annotated_tags_are_read_strictly(make_repo: MakeRepo, kind: str) -> None:
    repo = make_repo(kind)
    head = ObjectId(repo.git("rev-parse", "HEAD"))
    repo.git("tag", "-a", "-m", "a subject\n\nand a body", "models/ü", head)
    store = repo.store
    oid = ObjectId(repo.git("rev-parse", "refs/tags/models/ü"))
    found = store.read_tag(oid)
    assert found[:4] == (head, "commit", "models/ü", f"{NAME} <{MAIL}>")
    assert found.message == "a subject\n\nand a body\n"
    batch = store.batch()
    made = batch.add_tag("models/m/v1", head, "text\n", "Bo <b@x>", 1_700_000_000)
    store.publish(batch, [RefUpdate("refs/tags/models/m/v1", None, made)])
    assert store.read_tag(made) == (head, "commit", "models/m/v1", "Bo <b@x>", 1_700_000_000, "text\n")
    with pytest.raises(CorruptError, match="no tag"):
        store.read_tag(head)
    with pytest.raises(NotFoundError):
        store.read_tag(ObjectId("0" * len(head)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"tagger", b"tagged"), (b"type commit", b"type blub"), (b"tag v1\n", b"tag v1\ngpgsig x\n"),
        (b"tag v1\n", b""), (b"+0000\n\n", b"+0000\n"), (b" 7 +0000", b" -7 +0000"),
        (b" 7 +0000", b" 7777777777777 +0000"), (b"text", b"\xff"), (b"text", b"x" * (1 << 20)), (b"<b@x>", b"b@x"),
    ],
)  # fmt: skip
def test_tags_of_another_form_are_refused(git_repo: Sandbox, old: bytes, new: bytes) -> None:
    store = git_repo.store
    head = git_repo.git("rev-parse", "HEAD")
    text = f"object {head}\ntype commit\ntag v1\ntagger Bo <b@x> 7 +0000\n\ntext\n".encode()
    assert old in text
    changed = text.replace(old, new)
    oid = git_repo.git("hash-object", "-t", "tag", "-w", "--literally", "--stdin", input=changed)
    with pytest.raises(CorruptError):
        store.read_tag(ObjectId(oid))


def test_damaged_objects_are_reported_as_such(git_repo: Sandbox) -> None:
    oid = ObjectId(git_repo.git("rev-parse", "HEAD:README.md"))
    path = git_repo.path / ".git" / "objects" / oid[:2] / oid[2:]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(CorruptError):
        git_repo.store.read_blob(oid)
    assert any(oid in line for line in git_repo.store.fsck())


def test_a_failure_that_does_not_come_again_is_none(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What dulwich raises when a file is replaced under it is anybody's guess."""
    store, oid = git_repo.store, ObjectId(git_repo.git("rev-parse", "HEAD"))
    store.exists(oid)
    opened = store._store
    monkeypatch.setattr(opened, "get_raw", lambda _: (_ for _ in ()).throw(ValueError("mmap closed or invalid")))
    assert store.read_commit(oid).message == "second\n"
    assert store._store is not opened


def test_objects_of_alternates_are_read(git_repo: Sandbox, tmp_path: Path) -> None:
    git_repo.git("clone", "--quiet", "--shared", ".", str(tmp_path / "shared"))
    found = discover(tmp_path / "shared")
    assert found is not None
    store = GitStore(found)
    head = store.head()
    assert head is not None
    assert store.read_commit(head).message == "second\n"


def test_new_packs_of_others_are_found(git_repo: Sandbox) -> None:
    reader, writer = git_repo.store, git_repo.store
    assert reader.refs("refs/runs/") == {}
    for number in range(3):
        oid = publish_one(writer, text=str(number))
        assert reader.read_commit(oid).message == f"{number}\n"


def test_reading_in_a_forked_child(git_repo: Sandbox) -> None:
    """Also if another thread of the parent was reading, and so held the lock, at the moment of the fork."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    store = git_repo.store
    oids = [publish_one(store, text=f"{number} " * 200) for number in range(30)]
    git_repo.git("repack", "-adq")
    store.read_commit(oids[0])
    children = []
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store._mutex:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            try:
                ok = all(GitStore.read_commit(store, oid).author == ME for oid in oids * 3)
            except BaseException:  # noqa: BLE001 - a child must not go on into pytest
                ok = False
            os._exit(0 if ok else 1)
        children.append(pid)
    done.set()
    holder.join()
    assert all(store.read_commit(oid).author == ME for oid in oids * 3)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4


def test_reading_from_many_threads(git_repo: Sandbox) -> None:
    store = git_repo.store
    oids = [publish_one(store, text=f"{number} " * 50) for number in range(20)]
    git_repo.git("repack", "-adq")
    store.close()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda oid: store.lookup(store.read_commit(oid).tree, "file.txt"), oids * 10))
    assert None not in found


# ---------------------------------------------------------------- making objects


@pytest.mark.parametrize("kind", FORMATS)
def test_ids_are_those_git_gives(make_repo: MakeRepo, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = make_repo(kind)
    batch = repo.store.batch()
    blob = batch.add_blob(b"content\n")
    assert blob == repo.git("hash-object", "-w", "--stdin", input=b"content\n")
    # `a.b` sorts before the folder `a`, `a0` after it: git compares folders as if they ended in a slash
    inner = batch.add_tree([("z", 0o100755, blob), ("b", 0o120000, blob)])
    entries = [
        ("a", 0o040000, inner),
        ("a0", 0o100644, blob),
        ("a.b", 0o100644, blob),
        ("s", 0o160000, ObjectId(repo.git("rev-parse", "HEAD"))),
    ]
    tree = batch.add_tree(entries)
    assert inner == repo.git("mktree", input=f"100755 blob {blob}\tz\n120000 blob {blob}\tb\n".encode())
    lines = "".join(
        f"{mode:06o} {'tree' if mode == 0o040000 else 'commit' if mode == 0o160000 else 'blob'} {oid}\t{name}\n"
        for name, mode, oid in entries
    )
    assert tree == repo.git("mktree", input=lines.encode())
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_DATE", "1700000000 +0130")
    head = ObjectId(repo.git("rev-parse", "HEAD"))
    commit = batch.add_commit(tree, [head], "Größe\n", ME, 1_700_000_000, tz=5400)
    assert commit == repo.git("commit-tree", tree, "-p", head, "-m", "Größe")
    tag = batch.add_tag("models/m/v1", commit, "a tag\n", ME, 1_700_000_000)
    text = f"object {commit}\ntype commit\ntag models/m/v1\ntagger {ME} 1700000000 +0000\n\na tag\n"
    assert tag == repo.git("mktag", input=text.encode())
    assert {blob, inner, tree, commit, tag} <= {oid for oid in (blob, inner, tree, commit, tag) if oid in batch}
    assert len(batch) == 5


@pytest.mark.parametrize("name", ["", ".", "..", ".git", ".GIT", "git~1", "a/b", "a\0b"])
def test_names_that_git_forbids_are_refused(git_repo: Sandbox, name: str) -> None:
    batch = git_repo.store.batch()
    with pytest.raises(InvalidValueError):
        batch.add_tree([(name, 0o100644, batch.add_blob(b""))])


def test_a_name_cannot_be_there_twice(git_repo: Sandbox) -> None:
    batch = git_repo.store.batch()
    blob = batch.add_blob(b"")
    with pytest.raises(InvalidValueError, match="twice"):
        batch.add_tree([("a", 0o100644, blob), ("a", 0o100755, blob)])


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("Ana <a@b>", b"Ana <a@b>"),
        ("Ana\nBad <a@b\n>", b"AnaBad <a@b>"),
        ("<>", b"unknown <unknown>"),
        ("no mail", b"no mail <unknown>"),
        ("A <a> <b>", b"A <a b>"),
        ("\udcff <x@y>", b"? <x@y>"),
    ],
)
def test_identities_are_made_fit_for_git(git_repo: Sandbox, text: str, stored: bytes) -> None:
    assert clean_identity(text) == stored
    store = git_repo.store
    batch = store.batch()
    oid = batch.add_commit(batch.add_tree([]), [], "nul \0 and lone \udc80\n", text, -5)
    store.publish(batch, [RefUpdate(REF, None, oid)])
    assert store.fsck() == []
    assert store.read_commit(oid).time == 0


# ---------------------------------------------------------------- publishing


@pytest.mark.parametrize("kind", [*WITH_FILES, "bare"])
def test_publish_and_read_back(make_repo: MakeRepo, kind: str) -> None:
    repo = make_repo(kind)
    first = publish_one(repo.store, text="one")
    second = publish_one(repo.store, text="two")
    fresh = repo.store
    assert fresh.ref(REF) == second == repo.git("rev-parse", REF)
    assert fresh.read_commit(second).parents == (first,)
    assert repo.git("show", f"{REF}:file.txt") == "two"
    assert fresh.fsck() == []
    assert not [name for name in packs(repo) if not name.startswith("pack-") or name.endswith(".keep")]


def test_publish_in_a_private_store(make_repo: MakeRepo) -> None:
    store = GitStore(GitStore.create_private(make_repo("plain").path))
    assert store.head() is None
    assert store.head_branch() == "main"
    oid = publish_one(store)
    assert store.refs("refs/") == {REF: oid}
    assert store.fsck() == []


def test_a_read_only_repository_says_so(make_repo: MakeRepo) -> None:
    store = make_repo("read-only").store
    with pytest.raises(ReadOnlyError):
        publish_one(store)
    head = store.head()
    assert head is not None
    with pytest.raises(ReadOnlyError):
        store.publish(store.batch(), [RefUpdate(REF, None, head)])
    assert store.fsck() == []


def test_create_only_and_compare_and_swap(git_repo: Sandbox) -> None:
    store = git_repo.store
    one = publish_one(store, text="one")
    before = packs(git_repo)
    batch = store.batch()
    two = add_commit(store, batch, "two")
    for old in (None, ObjectId("1" * 40)):
        with pytest.raises(ConflictError, match=REF):
            store.publish(batch, [RefUpdate(REF, old, two)])
    with pytest.raises(ConflictError, match="absent"):
        store.publish(batch, [RefUpdate("refs/runs/0/other", one, two)])
    assert store.ref(REF) == one
    assert packs(git_repo) == before, "a refused batch leaves nothing behind"
    store.publish(batch, [RefUpdate(REF, one, two)])
    assert store.ref(REF) == two


@pytest.mark.parametrize("packed", [False, True])
def test_many_refs_move_all_or_none(git_repo: Sandbox, packed: bool) -> None:
    store = git_repo.store
    names = [f"refs/runs/{number}/w" for number in range(5)]
    old = {name: publish_one(store, name, name) for name in names}
    if packed:
        git_repo.git("pack-refs", "--all")
    batch = store.batch()
    new = {name: add_commit(store, batch, f"new {name}") for name in names}
    updates = [RefUpdate(name, old[name], new[name]) for name in names]
    for wrong in range(5):
        changed = [*updates]
        changed[wrong] = changed[wrong]._replace(old=ObjectId("2" * 40))
        with pytest.raises(ConflictError, match=names[wrong]):
            store.publish(batch, [*changed, RefUpdate("refs/runs/9/new", None, new[names[0]])])
        assert store.refs("refs/runs/") == old
    assert not list((git_repo.path / ".git").rglob("*.lock")), "no lock is left"
    store.publish(batch, updates)
    assert store.refs("refs/runs/") == new
    with pytest.raises(InvalidValueError, match="twice"):
        store.publish(store.batch(), [RefUpdate(names[0], None, None)] * 2)


@pytest.mark.parametrize("state", ["loose", "packed", "both"])
def test_deleting_refs(git_repo: Sandbox, state: str) -> None:
    store = git_repo.store
    git_repo.git("config", "core.logAllRefUpdates", "always")
    git_repo.git("tag", "-a", "-m", "kept", "v1")
    oid = publish_one(store)
    git_repo.git("update-ref", "--create-reflog", REF, "HEAD", oid)
    git_repo.git("update-ref", REF, oid, "HEAD")
    assert (git_repo.path / ".git" / "logs" / REF).exists()
    if state != "loose":
        git_repo.git("pack-refs", "--all")
    if state == "both":
        oid = publish_one(store, text="newer")
    with pytest.raises(ConflictError):
        store.publish(store.batch(), [RefUpdate(REF, ObjectId("3" * 40), None)])
    tags = git_repo.git("show-ref", "--dereference", "--tags")
    store.publish(store.batch(), [RefUpdate(REF, oid, None)])
    assert store.ref(REF) is None
    assert store.refs("refs/runs/") == {}
    assert git_repo.git("for-each-ref", "refs/runs") == ""
    assert git_repo.git("show-ref", "--dereference", "--tags") == tags, "other packed refs keep their peeled ids"
    assert not (git_repo.path / ".git" / "logs" / REF).exists(), "a reflog would keep what was purged"
    store.publish(store.batch(), [RefUpdate(REF, None, None)])


def test_refs_with_reflogs_work(git_repo: Sandbox) -> None:
    git_repo.git("config", "core.logAllRefUpdates", "always")
    git_repo.git("update-ref", REF, "HEAD")
    new = publish_one(git_repo.store)
    assert git_repo.git("rev-parse", REF) == new
    git_repo.git("update-ref", REF, "HEAD", new)
    git_repo.git("reflog", "expire", "--all", "--expire=now")
    assert git_repo.store.fsck() == []


def test_folder_and_file_conflicts(git_repo: Sandbox) -> None:
    store = git_repo.store
    head = store.head()
    publish_one(store, "refs/runs/0/w")
    for name in ("refs/runs/0", "refs/runs/0/w/x"):
        with pytest.raises(ConflictError):
            store.publish(store.batch(), [RefUpdate(name, None, head)])
    git_repo.git("pack-refs", "--all")
    for name in ("refs/runs/0", "refs/runs/0/w/x"):
        with pytest.raises(ConflictError):
            store.publish(store.batch(), [RefUpdate(name, None, head)])
    (git_repo.path / ".git" / "refs" / "runs" / "1" / "w" / "empty").mkdir(parents=True)
    store.publish(store.batch(), [RefUpdate("refs/runs/1/w", None, head)])
    assert git_repo.git("rev-parse", "refs/runs/1/w") == head


def test_symbolic_refs_are_not_written_through(git_repo: Sandbox) -> None:
    git_repo.git("symbolic-ref", REF, "refs/heads/main")
    head = git_repo.store.head()
    assert git_repo.store.ref(REF) == head
    with pytest.raises(ConflictError, match="symbolic"):
        git_repo.store.publish(git_repo.store.batch(), [RefUpdate(REF, head, None)])
    assert git_repo.git("rev-parse", "main") == head


def test_a_ref_needs_its_object(git_repo: Sandbox) -> None:
    with pytest.raises(NotFoundError):
        git_repo.store.publish(git_repo.store.batch(), [RefUpdate(REF, None, ObjectId("4" * 40))])
    assert git_repo.store.ref(REF) is None


def test_a_held_lock_is_waited_for_and_named(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    store = git_repo.store
    publish_one(store)
    lock = git_repo.path / ".git" / f"{REF}.lock"
    lock.touch()
    monkeypatch.setattr(refs.RefStore.update, "__kwdefaults__", {"timeout": 0.2})
    with pytest.raises(LockedError, match=r"ana-1\.lock"):
        publish_one(store)
    assert lock.exists(), "a young lock may be git's"
    os.utime(lock, (1, 1))
    publish_one(store)
    assert not lock.exists(), "an old one is nobody's"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.sampled_from("ab/.~^:?*[\\@{ -\x7f\tlock\u00e9"), max_size=12))
@example("a.lock/b")
@example("@{")
@example("a//b")
@example(".a")
@example("a..b")
@example("a.")
@example("-a")
@example("@")
def test_ref_names_are_judged_as_git_judges_them(tmp_path: Path, name: str) -> None:
    full = f"refs/{name}"
    accepted = subprocess.run(["git", "check-ref-format", full], check=False).returncode == 0
    try:
        check_name(full)
    except InvalidValueError:
        assert not accepted or "/" not in name, "only refs directly below refs/ are refused beyond git's rules"
    else:
        assert accepted


@pytest.mark.parametrize(
    "name", ["HEAD", "runs/0/w", "refs/runs/../../config", "refs/../config", "/etc/passwd", "refs/x"]
)
def test_names_outside_are_never_paths(git_repo: Sandbox, name: str) -> None:
    config = (git_repo.path / ".git" / "config").read_bytes()
    with pytest.raises(InvalidValueError):
        git_repo.store.publish(git_repo.store.batch(), [RefUpdate(name, None, git_repo.store.head())])
    assert (git_repo.path / ".git" / "config").read_bytes() == config


# ---------------------------------------------------------------- durability


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to tell what is synced")
def test_everything_is_synced_before_its_name_counts(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of syncs and renames, as the file system sees them."""
    events: list[tuple[str, str]] = []
    sync, rename, unlink = os.fsync, Path.replace, os.unlink
    common = git_repo.path / ".git"

    def short(path: object) -> str:
        name = os.path.relpath(str(path), common)
        for suffix in (".pack", ".idx", ".keep"):
            if name.endswith(suffix):
                return suffix
        return name

    def traced_sync(fd: int) -> None:
        events.append(("sync", short(os.readlink(f"/proc/self/fd/{fd}"))))
        sync(fd)

    def traced_rename(self: Path, target: Path) -> Path:
        events.append((f"rename {short(self)}", short(target)))
        return rename(self, target)

    def traced_unlink(path: str, **options: int) -> None:
        events.append(("unlink", short(path)))
        unlink(path, **options)

    monkeypatch.setattr(os, "fsync", traced_sync)
    monkeypatch.setattr(Path, "replace", traced_rename)
    monkeypatch.setattr(os, "unlink", traced_unlink)
    publish_one(git_repo.store, "refs/runs/7/w")

    def at(kind: str, name: str) -> int:
        return next(i for i, (k, n) in enumerate(events) if k.startswith(kind) and n == name)

    temps = [i for i, (kind, name) in enumerate(events) if kind == "sync" and ".tmp-" in name]
    assert len(temps) == 2
    assert temps[0] < at("rename", ".pack") < temps[1] < at("rename", ".idx") < at("sync", "objects/pack")
    assert at("sync", "objects/pack") < at("rename", "refs/runs/7/w")
    for new_folder_in in ("refs", "refs/runs"):
        assert at("sync", new_folder_in) < at("rename", "refs/runs/7/w")
    assert at("sync", "refs/runs/7/w.lock") < at("rename", "refs/runs/7/w") < at("sync", "refs/runs/7")
    assert events.index(("unlink", ".keep")) > at("sync", "refs/runs/7")


def test_a_pack_that_cannot_be_written_leaves_nothing(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    store = git_repo.store
    for failing in range(1, 4):
        count = 0

        def sync(fd: int, failing: int = failing) -> None:
            nonlocal count
            count += 1
            if count == failing:
                raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(files, "sync_file", sync)
            with pytest.raises(OSError, match="No space left"):
                publish_one(store)
        assert packs(git_repo) == []
        assert store.ref(REF) is None
    publish_one(store)


# ---------------------------------------------------------------- fingerprint


def test_the_fingerprint_follows_the_refs(git_repo: Sandbox) -> None:
    store = git_repo.store
    seen = [store.refs_fingerprint()]
    assert store.refs_fingerprint() == seen[0]
    publish_one(store, "refs/runs/0/w")
    seen.append(store.refs_fingerprint())
    publish_one(store, "refs/runs/0/w")
    seen.append(store.refs_fingerprint())
    publish_one(store, "refs/runs/1/w")
    seen.append(store.refs_fingerprint())
    git_repo.git("update-ref", "refs/heads/other", "HEAD")
    assert store.refs_fingerprint() == seen[-1], "refs elsewhere do not matter"
    git_repo.git("pack-refs", "--all")
    seen.append(store.refs_fingerprint())
    publish_one(store, "refs/runs/1/w")
    seen.append(store.refs_fingerprint())
    git_repo.git("update-ref", "-d", "refs/runs/0/w")
    seen.append(store.refs_fingerprint())
    assert len(set(seen)) == len(seen)
    assert git_repo.store.refs_fingerprint() == seen[-1], "and it is the same for everyone"


def test_quick_changes_of_equal_size_change_it(git_repo: Sandbox) -> None:
    """Stat alone would miss a ref that moved twice within a tick of the file system's clock."""
    path = git_repo.path / ".git" / REF
    path.parent.mkdir(parents=True)
    seen = set()
    for digit in "123456":
        path.write_text(digit * 40 + "\n")
        os.utime(path, ns=(10**18, 10**18))
        seen.add(git_repo.store.refs_fingerprint())
    assert len(seen) == 6


# ---------------------------------------------------------------- healing


def test_heal_removes_what_dead_processes_left(git_repo: Sandbox) -> None:
    store = git_repo.store
    publish_one(store)
    common = git_repo.path / ".git"
    dead = files.process_identity().to_list()
    dead[2], dead[3] = 2**22 + 1, "1"
    left = {
        f"{REF}.lock": "",
        "refs/gittrack/live/x.lock": "",
        "packed-refs.lock": "",
        f"objects/pack/pack-{'0' * 40}.keep": f"gittrack {dead}".replace("'", '"'),
        f"objects/pack/pack-{'3' * 40}.keep": "",
        "objects/pack/.tmp-0123": "",
    }
    spared = {
        "refs/heads/main.lock": "",
        "refs/runs/0/young.lock": "",
        "index.lock": "",
        f"objects/pack/pack-{'1' * 40}.keep": "kept by the user\n",
        f"objects/pack/pack-{'4' * 40}.keep": "",
        f"objects/pack/pack-{'4' * 40}.pack": "a pack that somebody keeps",
        f"objects/pack/pack-{'5' * 40}-young.keep": "",
        f"objects/pack/pack-{'2' * 40}.keep": f"gittrack {files.process_identity().to_list()}".replace("'", '"'),
    }
    for name, content in {**left, **spared}.items():
        (common / name).parent.mkdir(parents=True, exist_ok=True)
        (common / name).write_text(content)
        if "young" not in name:
            os.utime(common / name, (1, 1))
    removed = store.heal_locks()
    assert {*removed, "objects/pack/.tmp-0123"} == set(left)
    assert not [name for name in left if (common / name).exists()]
    assert not [name for name in spared if not (common / name).exists()]
    assert store.heal_locks() == []


def test_a_lock_of_the_packed_refs_may_be_held_for_minutes(git_repo: Sandbox) -> None:
    store = git_repo.store
    lock = git_repo.path / ".git" / "packed-refs.lock"
    lock.touch()
    for age, removed in ((500, []), (700, ["packed-refs.lock"])):
        os.utime(lock, (time.time() - age,) * 2)
        assert store.heal_locks() == removed
    assert not lock.exists()


# ---------------------------------------------------------------- pins


@pytest.mark.parametrize("packed", [False, True])
def test_pins(git_repo: Sandbox, packed: bool) -> None:
    store = git_repo.store
    head = store.head()
    assert head is not None
    name = store.pin(head)
    assert name == PIN_PREFIX + head
    if packed:
        git_repo.git("pack-refs", "--all")
    assert store.pin(head) == name, "idempotent"
    batch = store.batch()
    other = store.pin(add_commit(store, batch), batch)
    assert set(store.refs(PIN_PREFIX)) == {name, other}
    store.unpin_except([])
    assert set(store.refs(PIN_PREFIX)) == {name, other}, "young pins may belong to a run that is just starting"
    store.unpin_except([other], grace_s=-1)
    assert set(store.refs(PIN_PREFIX)) == {other}
    store.unpin([other, "refs/gittrack/live/unknown"])
    assert store.refs(PIN_PREFIX) == {}
    with pytest.raises(NotFoundError):
        store.pin(ObjectId("5" * 40))


def test_asking_for_an_old_pin_makes_it_young(git_repo: Sandbox) -> None:
    store = git_repo.store
    head = store.head()
    assert head is not None
    name = store.pin(head)
    os.utime(git_repo.path / ".git" / name, (1, 1))
    store.pin(head)
    store.unpin_except([])
    assert name in store.refs(PIN_PREFIX)
    os.utime(git_repo.path / ".git" / name, (1, 1))
    store.unpin_except([])
    assert store.refs(PIN_PREFIX) == {}


def test_a_pin_survives_everything_git_collects(git_repo: Sandbox) -> None:
    store = git_repo.store
    batch = store.batch()
    oid = add_commit(store, batch, "precious")
    store.pin(oid, batch)
    git_repo.git("gc", "--quiet", "--prune=now")
    assert git_repo.store.read_commit(oid).message == "precious\n"
    store.unpin([PIN_PREFIX + oid])
    git_repo.git("gc", "--quiet", "--prune=now")
    assert not git_repo.store.exists(oid)


# ---------------------------------------------------------------- identity and housekeeping


def test_identity_is_the_users(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_repo.store.identity() == ME
    git_repo.git("config", "user.name", "Örtlich")
    assert git_repo.store.identity() == f"Örtlich <{MAIL}>"
    monkeypatch.setenv("GIT_AUTHOR_NAME", "From CI")
    assert git_repo.store.identity() == f"From CI <{MAIL}>"


def test_identity_without_any(git_repo: Sandbox, sealed_environment: Path) -> None:
    (sealed_environment / ".gitconfig").write_text("[user]\nuseConfigOnly = true\n")
    name, _, mail = git_repo.store.identity().partition(" <")
    assert name
    assert "@" in mail


def test_maintain_merges_packs_and_loses_nothing(git_repo: Sandbox) -> None:
    store = git_repo.store
    oids = [publish_one(store, f"refs/runs/{number}/w", str(number)) for number in range(66)]
    loose = git_repo.git("hash-object", "-w", "--stdin", input=b"nobody names me")
    store.maintain()
    assert len([name for name in packs(git_repo) if name.endswith(".pack")]) <= 2
    assert [store.read_commit(oid).message for oid in oids] == [f"{number}\n" for number in range(66)]
    assert git_repo.store.exists(ObjectId(loose)), "it never prunes"
    assert store.fsck() == []
    before = packs(git_repo)
    store.maintain()
    assert packs(git_repo) == before


def test_maintain_packs_tags_and_nothing_else(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    store = git_repo.store
    monkeypatch.setattr("gittrack.store.git.MAX_LOOSE", 3)
    oid = publish_one(store, "refs/runs/0/w", "a run")
    for number in range(4):
        store.publish(store.batch(), [RefUpdate(f"refs/tags/models/m/v{number}", None, oid)])
    before, stamp = store.refs("refs/"), store.refs_fingerprint("refs/tags/")
    store.maintain()
    folder = git_repo.path / ".git"
    assert not [path for path in (folder / "refs" / "tags").rglob("*") if path.is_file()]
    assert (folder / "refs" / "runs" / "0" / "w").is_file()
    assert store.refs("refs/") == before
    assert store.refs_fingerprint("refs/tags/") != stamp
    store.publish(store.batch(), [RefUpdate("refs/tags/models/m/v3", oid, None)])
    assert store.refs("refs/tags/models/m/") == {f"refs/tags/models/m/v{n}": oid for n in range(3)}


def test_a_ref_that_was_read_is_not_opened_again(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    store, name = git_repo.store, "refs/runs/0/w"
    first = publish_one(store, name, "first")
    path = git_repo.path / ".git" / name
    opened: list[str] = []
    read = refs._read_small

    def reading(path: str) -> str:
        opened.append(path)
        return read(path)

    monkeypatch.setattr(refs, "_read_small", reading)
    assert store.refs("refs/runs/") == {name: first}
    assert store.refs("refs/runs/") == {name: first}
    assert len(opened) == 2, "it may have moved in the same moment"
    os.utime(path, (1, 1))
    monkeypatch.setattr(refs, "_YOUNG_NS", 0)
    assert store.refs("refs/runs/") == store.refs("refs/runs/") == {name: first}
    assert len(opened) == 3
    second = publish_one(store, name, "second")
    assert store.refs("refs/runs/") == {name: second}


def test_maintain_leaves_partial_clones_alone(git_repo: Sandbox) -> None:
    for number in range(66):
        publish_one(git_repo.store, f"refs/runs/{number}/w", str(number))
    (git_repo.path / ".git" / "objects" / "pack" / "pack-x.promisor").touch()
    before = packs(git_repo)
    git_repo.store.maintain()
    assert packs(git_repo) == before


# ---------------------------------------------------------------- beside git

COLLECTORS: dict[str, Callable[[Path], object]] = {
    "gc": lambda path: run_git(path, "gc", "--quiet", "--prune=now"),
    "repack": lambda path: run_git(path, "repack", "-adq"),
    "repack and prune": lambda path: (run_git(path, "repack", "-adfq"), run_git(path, "prune", "--expire=now")),
    "pack-refs": lambda path: run_git(path, "pack-refs", "--all"),
}


@pytest.mark.parametrize("collector", COLLECTORS)
@pytest.mark.parametrize("moment", ["before the refs move", "after the refs moved"])
def test_a_collection_in_the_middle_of_publishing(
    git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch, collector: str, moment: str
) -> None:
    """The gap between a pack and the refs that make it reachable is where collectors strike."""
    real = RefStore.update

    def update(self: RefStore, *args: object, **options: object) -> None:
        if moment == "before the refs move":
            COLLECTORS[collector](git_repo.path)
        real(self, *args, **options)  # type: ignore[arg-type]
        if moment == "after the refs moved":
            COLLECTORS[collector](git_repo.path)

    monkeypatch.setattr(RefStore, "update", update)
    oids = [publish_one(git_repo.store, text=str(number)) for number in range(3)]
    monkeypatch.undo()
    COLLECTORS[collector](git_repo.path)
    assert git_repo.store.read_commit(oids[0]).message == "0\n"
    assert git_repo.store.fsck() == []
    assert git_repo.git("rev-list", "--count", REF) == "3"


def test_a_pack_that_someone_removes_is_written_again(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    real = RefStore.update

    def update(self: RefStore, *args: object, **options: object) -> None:
        real(self, *args, **options)  # type: ignore[arg-type]
        for path in (git_repo.path / ".git" / "objects" / "pack").iterdir():
            path.unlink()

    monkeypatch.setattr(RefStore, "update", update)
    oid = publish_one(git_repo.store)
    assert git_repo.store.exists(oid)
    assert git_repo.store.fsck() == []


def test_reading_while_git_moves_everything(git_repo: Sandbox) -> None:
    store = git_repo.store
    oids = [publish_one(store, text=f"{number} " * 100) for number in range(40)]
    stop = time.monotonic() + 4
    reads = 0
    with ThreadPoolExecutor(1) as pool:

        def collect() -> None:
            while time.monotonic() < stop:
                for collector in COLLECTORS.values():
                    collector(git_repo.path)

        collecting = pool.submit(collect)
        while time.monotonic() < stop:
            store._cache.clear()
            store._cached = 0
            assert store.ref(REF) == oids[-1]
            for oid in oids:
                found = store.lookup(store.read_commit(oid).tree, "file.txt")
                assert found is not None
                store.read_blob(found[1])
                reads += 1
        collecting.result()
    assert reads > 100


WRITER = """
import sys
from pathlib import Path
from gittrack.errors import ConflictError
from gittrack.store.gateway import discover
from gittrack.store.git import GitStore, RefUpdate

where, number, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
store = GitStore(discover(where))
lost = 0
for turn in range(count):
    own, shared, run = f"refs/runs/{number}/w", "refs/runs/99/shared", f"{number:02x}{turn:030x}"
    while True:
        batch = store.batch()
        blob = batch.add_blob(f"{number} {turn}".encode())
        commit = batch.add_commit(batch.add_tree([("f", 0o100644, blob)]), [], "run", "A <a@b>", 0)
        updates = []
        for name in (own, shared):
            old = store.ref(name)
            new = store.ledger_build(batch, old, {run: commit}, {}, "l", author="A <a@b>", time_s=0)
            updates.append(RefUpdate(name, old, new))
        try:
            store.publish(batch, updates)
            break
        except ConflictError:
            lost += 1
    # what was acknowledged must be there, for a fresh reader too
    fresh = GitStore(discover(where))
    assert fresh.ledger_lookup(fresh.ref(shared), run) == commit
    print(run, commit, flush=True)
"""


def test_eight_writers_beside_collectors_lose_nothing(git_repo: Sandbox) -> None:
    """Every acknowledged commit is there in the end, though git packs, collects and prunes all the time."""
    writers, count = 8, 8
    root = Path(__file__).parents[2]
    program = [sys.executable, "-c", textwrap.dedent(WRITER), str(git_repo.path)]
    running = [
        subprocess.Popen(
            [*program, str(n), str(count)], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for n in range(writers)
    ]
    collections = 0
    while any(process.poll() is None for process in running):
        for collector in COLLECTORS.values():
            collector(git_repo.path)
            collections += 1
    acknowledged: dict[str, str] = {}
    for process in running:
        out, err = process.communicate()
        assert process.returncode == 0, err
        acknowledged.update((line[:32], line[33:]) for line in out.splitlines())
    assert len(acknowledged) == writers * count
    assert collections >= 8
    store = git_repo.store
    shared = store.ref("refs/runs/99/shared")
    assert shared is not None
    assert dict(store.ledger_read(shared)) == acknowledged
    own = {
        run: oid
        for n in range(writers)
        if (ref := store.ref(f"refs/runs/{n}/w"))
        for run, oid in store.ledger_read(ref)
    }
    assert own == acknowledged
    for oid in acknowledged.values():
        assert store.read_commit(ObjectId(oid)).message == "run"
    assert store.fsck() == []
    git_repo.git("gc", "--quiet", "--prune=now")
    assert git_repo.store.fsck() == []
    assert not [name for name in packs(git_repo) if name.endswith(".keep") or name.startswith(".tmp")]
