"""Ledgers: any run id comes back, a diff costs what changed, and git itself keeps and moves them."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from gittrack.errors import CorruptError, InvalidValueError
from gittrack.store import ledger
from gittrack.store.git import GitStore, RefUpdate
from gittrack.types import ObjectId
from tests.conftest import MakeRepo, Sandbox, run_git

ME = "Ana <ana@example.org>"
REF = "refs/runs/0/ana-1"
run_ids = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_\-]{0,20}", fullmatch=True)


@pytest.fixture
def store(make_repo: MakeRepo) -> GitStore:
    return GitStore(GitStore.create_private(make_repo("plain").path))


def runs_of(store: GitStore, count: int) -> list[ObjectId]:
    """``count`` different commits in the store."""
    batch = store.batch()
    empty = batch.add_tree([])
    commits = [batch.add_commit(empty, [], f"run {number}", ME, 0) for number in range(count)]
    store.publish(
        batch,
        [
            RefUpdate(f"refs/gittrack/test/{oid}", None, oid)
            for oid in commits
            if store.ref(f"refs/gittrack/test/{oid}") is None
        ],
    )
    return commits


def build(
    store: GitStore,
    old: ObjectId | None,
    changes: dict[str, ObjectId | None],
    files: dict[str, bytes | None] | None = None,
) -> ObjectId:
    batch = store.batch()
    new = store.ledger_build(batch, old, changes, files or {}, "ledger\n", author=ME, time_s=0)
    store.publish(batch, [RefUpdate(REF, store.ref(REF), new)])
    return new


@given(run_id=run_ids)
@example("a")
@example("ab")
@example("abc")
@example("a_")
@example("0" * 256)
@example("a-_")
def test_every_run_id_round_trips(run_id: str) -> None:
    folder, name = ledger.split(run_id)
    assert folder == "_" or len(folder) == 2
    assert name
    assert ledger.join(folder, name) == run_id


@given(one=run_ids, two=run_ids)
def test_no_two_run_ids_share_an_entry(one: str, two: str) -> None:
    assert (ledger.split(one) == ledger.split(two)) == (one == two)


@pytest.mark.parametrize("run_id", ["", "_x", "-x", "a/b", "..", "a b", "é", "x" * 257, "ab\n"])
def test_what_is_no_run_id_is_refused(store: GitStore, run_id: str) -> None:
    with pytest.raises(InvalidValueError):
        store.ledger_build(store.batch(), None, {run_id: ObjectId("1" * 40)}, {}, "m", author=ME, time_s=0)


@pytest.mark.parametrize(
    ("folder", "name"), [("ab", ""), ("_", "abc"), ("_", "_"), ("a", "b"), ("abc", "d"), ("ab", "/x")]
)
def test_entries_that_no_run_id_has_are_damage(folder: str, name: str) -> None:
    with pytest.raises(CorruptError):
        ledger.join(folder, name)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.dictionaries(
                st.sampled_from(["a", "ab", "abc", "abd", "ABC", "x" * 32, "x" * 31 + "y", "b_"]) | run_ids,
                st.none() | st.integers(0, 4),
                max_size=6,
            ),
            st.dictionaries(
                st.sampled_from(["experiment.msgpack", "tombstones.msgpack"]),
                st.none() | st.binary(max_size=20),
                max_size=2,
            ),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_ledger_is_a_table(
    store: GitStore, steps: list[tuple[dict[str, int | None], dict[str, bytes | None]]]
) -> None:
    """Against a dict: after any sequence of changes it reads the same, and so does every difference."""
    commits = runs_of(store, 5)
    states: list[dict[str, ObjectId]] = [{}]
    files: dict[str, bytes | None] = {}
    ledgers: list[ObjectId | None] = [None]
    for changes, contents in steps:
        entries = {run: None if number is None else commits[number] for run, number in changes.items()}
        ledgers.append(build(store, ledgers[-1], entries, contents))
        states.append({run: oid for run, oid in {**states[-1], **entries}.items() if oid is not None})
        files.update(contents)
        new = ledgers[-1]
        assert new is not None
        assert dict(store.ledger_read(new)) == states[-1]
        for run in {*changes, "absent"}:
            assert store.ledger_lookup(new, run) == states[-1].get(run)
        for name in ("experiment.msgpack", "tombstones.msgpack", "ab"):
            assert store.ledger_blob(new, name) == files.get(name)
    for old, before in zip(ledgers, states, strict=True):
        for new, after in zip(ledgers, states, strict=True):
            expected = {
                (run, before.get(run), after.get(run)) for run in {*before, *after} if before.get(run) != after.get(run)
            }
            found = list(store.ledger_diff(old, new))
            assert len(found) == len(expected)
            assert set(found) == expected


def test_parents_are_the_ledger_before_and_the_runs_added(store: GitStore) -> None:
    one, two, three = runs_of(store, 3)
    first = build(store, None, {"a" * 32: one, "b" * 32: two})
    assert store.read_commit(first).parents == (one, two)
    second = build(store, first, {"a" * 32: None, "b" * 32: three, "c" * 32: three})
    assert store.read_commit(second).parents == (first, three)


def test_a_diff_reads_only_what_changed(store: GitStore, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = runs_of(store, 2)
    old = build(store, None, {f"{number:032x}"[::-1]: commits[0] for number in range(5000)})
    new = build(store, old, {f"{7:032x}"[::-1]: commits[1]})
    read: list[ObjectId] = []
    real = GitStore.list_tree

    def list_tree(self: GitStore, oid: ObjectId) -> list[tuple[str, int, ObjectId]]:
        read.append(oid)
        return real(self, oid)

    monkeypatch.setattr(GitStore, "list_tree", list_tree)
    assert list(store.ledger_diff(old, new)) == [(f"{7:032x}"[::-1], commits[0], commits[1])]
    assert len(read) == 4, "two roots and one folder of each"


@pytest.mark.parametrize("kind", ["ordinary", "sha256"])
def test_git_keeps_and_moves_ledgers(make_repo: MakeRepo, kind: str, tmp_path: Path) -> None:
    """Gitlinks to commits that are no submodules must pass every check that git and git hosts make."""
    repo = make_repo(kind)
    store = repo.store
    code = store.head()
    assert code is not None
    batch = store.batch()
    tree = store.read_commit(code).tree
    runs = {f"{number:032x}"[::-1]: batch.add_commit(tree, [code], f"run {number}", ME, 0) for number in range(300)}
    first = store.ledger_build(
        batch, None, dict(list(runs.items())[:200]), {"experiment.msgpack": b"x"}, "m", author=ME, time_s=0
    )
    store.publish(batch, [RefUpdate(REF, None, first)])
    second = build(store, first, dict(list(runs.items())[200:]))
    repo.git("gc", "--quiet", "--prune=now")
    assert "dangling" not in repo.git("fsck", "--strict", "--full")
    assert dict(repo.store.ledger_read(second)) == runs
    assert all(repo.store.exists(oid) for oid in runs.values())
    for args in (["--mirror"], ["--mirror", "--no-local"]):
        target = tmp_path / f"copy{len(args)}"
        run_git(
            repo.path, "-c", "transfer.fsckObjects=true", "clone", "--quiet", *args, f"file://{repo.path}", str(target)
        )
        assert run_git(target, "rev-parse", REF) == second
        run_git(target, "fsck", "--strict")
    run_git(tmp_path, "init", "--quiet", "--bare", f"--object-format={'sha256' if kind == 'sha256' else 'sha1'}", "hub")
    run_git(tmp_path / "hub", "config", "receive.fsckObjects", "true")
    repo.git("push", "--quiet", str(tmp_path / "hub"), f"{REF}:{REF}")
    run_git(tmp_path / "hub", "fsck", "--strict")


def test_foreign_entries_in_a_ledger_are_damage_or_passed_over(git_repo: Sandbox) -> None:
    store = git_repo.store
    head = store.head()
    assert head is not None
    batch = store.batch()
    blob = batch.add_blob(b"")
    good = batch.add_tree([("c" * 30, 0o160000, head), ("note", 0o100644, blob)])
    tree = batch.add_tree([("ab", 0o040000, good), (".gittrack", 0o040000, good), ("file", 0o100644, blob)])
    fine = batch.add_commit(tree, [], "m", ME, 0)
    bad = batch.add_commit(batch.add_tree([("lib", 0o040000, good)]), [], "m", ME, 0)
    store.publish(batch, [RefUpdate(REF, None, fine), RefUpdate("refs/runs/1/x", None, bad)])
    assert list(store.ledger_read(fine)) == [("ab" + "c" * 30, head)]
    assert store.ledger_lookup(fine, "abnote") is None
    with pytest.raises(CorruptError, match="lib"):
        list(store.ledger_read(bad))
