"""Hostile remotes: the P and G cases of the threat matrix.

Whatever a remote sends: nothing outside the clone is read or written, no program starts, what is bad is named and does
not count, what is good arrives, and both `git fsck` and `gittrack fsck` are clean afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gittrack.errors import GitError, GittrackError, InvalidValueError, NetworkError, RemoteDataError, UsageError
from gittrack.registry.check import fsck as registry_fsck
from gittrack.store import codec, layout
from gittrack.store.check import fsck
from gittrack.store.git import GitStore, RefUpdate
from gittrack.store.pack import Batch
from gittrack.sync import remotes
from gittrack.types import ObjectId
from tests.conftest import Sandbox
from tests.sync.conftest import Desk, assert_clean, listed, state_of
from tests.sync.servers import free_port

FILE, FOLDER, LINK, SYMLINK = 0o100644, 0o040000, 0o160000, 0o120000
WHO = "Eve <eve@example.org>"
Entry = tuple[str, int, ObjectId]


@dataclass
class Forge:
    """Makes what gittrack would never write, in the hub's own repository.

    Attributes:
        hub: The hub.
        run_id: A good run that is there.
        commit: Its commit.
        ref: Its ledger.
    """

    hub: Sandbox
    run_id: str
    commit: ObjectId
    ref: str

    def __post_init__(self) -> None:
        self.store: GitStore = self.hub.store
        self.batch: Batch = self.store.batch()

    def blob(self, data: bytes) -> ObjectId:
        return self.batch.add_blob(data)

    def tree(self, entries: Iterable[Entry]) -> ObjectId:
        """A folder exactly as given, in that order."""
        rows = [f"{mode:o} {name}".encode() + b"\0" + bytes.fromhex(oid) for name, mode, oid in entries]
        return self.batch.add_raw(2, b"".join(rows))

    def commit_of(self, tree: ObjectId, *parents: ObjectId, seconds: int = 1) -> ObjectId:
        return self.batch.add_commit(tree, parents, "forged\n", WHO, seconds)

    def parts(self) -> tuple[list[Entry], list[Entry]]:
        """The good run's tree, and its ``.gittrack`` folder."""
        root = self.store.list_tree(self.store.read_commit(self.commit).tree)
        inside = next(oid for name, _, oid in root if name == layout.FOLDER)
        return [entry for entry in root if entry[0] != layout.FOLDER], self.store.list_tree(inside)

    def record(self, **changes: object) -> bytes:
        """The good run's record, changed."""
        record = next(oid for name, _, oid in self.parts()[1] if name == layout.RECORD)
        known = {**codec.unpack(self.store.read_blob(record)), "run_id": "f" * 32, "segments": [], "metrics": {}}
        return codec.pack({**known, **changes})

    def run(
        self, *, code: Iterable[Entry] = (), inside: Iterable[Entry] = (), record: bytes | None = None,
        parents: tuple[ObjectId, ...] = (), seconds: int = 1,
    ) -> ObjectId:  # fmt: skip
        """A run commit with more in its code or in its ``.gittrack`` than there should be."""
        own = [(layout.RECORD, FILE, self.blob(record if record is not None else self.record()))]
        folder = self.tree(sorted([*own, *inside], key=lambda entry: entry[0]))
        entries = sorted([(layout.FOLDER, FOLDER, folder), *code], key=lambda entry: entry[0])
        return self.commit_of(self.tree(entries), *parents, seconds=seconds)

    def ledger(self, runs: dict[str, ObjectId], *more: Entry, parents: Iterable[ObjectId] | None = None) -> ObjectId:
        """A ledger commit that lists runs, and has more entries."""
        folders: dict[str, list[Entry]] = {}
        for run_id, commit in runs.items():
            folders.setdefault(run_id[:2], []).append((run_id[2:], LINK, commit))
        entries = [(name, FOLDER, self.tree(sorted(rows))) for name, rows in folders.items()]
        given = list(runs.values()) if parents is None else list(parents)
        return self.commit_of(self.tree(sorted([*entries, *more])), *given)

    def publish(self, refs: dict[str, ObjectId]) -> None:
        """Put everything and these refs into the hub."""
        self.store.publish(self.batch, [RefUpdate(ref, self.store.ref(ref), oid) for ref, oid in refs.items()])
        self.batch = self.store.batch()

    def offer(self, commit: ObjectId, *more: Entry, number: int = 1, run_id: str = "f" * 32) -> str:
        """A ledger of a writer of its own with one run; its ref."""
        ref = f"refs/runs/0/eve-{number}"
        self.publish({ref: self.ledger({run_id: commit}, *more)})
        return ref


@pytest.fixture
def forge(ana: Desk, hub: Sandbox) -> Forge:
    """A forge in a hub that has a good run of Ana's."""
    run_id = ana.run("good", files={"a.txt": b"a"})
    ana.push(files=False)
    commit = ObjectId(str(ana.tracker.get_run(run_id).commit))
    return Forge(hub, run_id, commit, next(ref for ref in listed(hub.path) if ref.startswith("refs/runs/")))


@pytest.fixture(autouse=True)
def nothing_outside(tmp_path: Path, sealed_environment: Path) -> Iterator[None]:
    """Files around the clones and in the home folder are what they were."""
    canaries = [tmp_path / "canary", sealed_environment / "canary", sealed_environment / ".ssh" / "x"]
    for canary in canaries:
        canary.parent.mkdir(exist_ok=True)
        canary.write_text("sings")
    yield
    assert [canary.read_text() for canary in canaries] == ["sings"] * 3
    for folder in (tmp_path, sealed_environment):
        assert not list(folder.rglob("pwn*"))


def refused(bo: Desk, forge: Forge, refs: dict[str, str]) -> None:
    """Bo pulls: these refs do not count and it is said why, the good run arrives, and everything is clean."""
    before = state_of(bo.sandbox.path)
    report = bo.pull()
    assert set(report.refused) == set(refs)
    for ref, word in refs.items():
        assert word in report.refused[ref], (ref, word, report.refused[ref])
    assert bo.names() == {forge.run_id: "good"}
    assert not [name for name in bo.refs() if "eve-" in name or "incoming" in name]
    assert state_of(bo.sandbox.path) == before
    assert_clean(bo.sandbox.path)
    assert not [one for one in [*fsck(bo.repo, full=True), *registry_fsck(bo.registry)] if one.kind != "artifact"]
    assert set(bo.pull().refused) == set(refs), "nor do they the next time"


# -- P1 to P12: names and modes ----------------------------------------------------------------------------------------

BAD_NAMES = (
    ".git", ".GIT", "..", "a/b", "/abs", "..\\x", "x" * 4096, "a\x1b[2Jb", "a\\..\\..\\b", "git~1", ".",
)  # fmt: skip


@pytest.mark.parametrize("where", ["code", "artifacts", "ledger", ".gittrack"])
def test_bad_names(bo: Desk, forge: Forge, where: str) -> None:
    pointer = forge.blob(layout.pointer("0" * 64, 1))  # type: ignore[arg-type]
    refs = []
    for number, name in enumerate(BAD_NAMES):
        bad: Entry = (name, FILE, pointer)
        if where == "code":
            refs.append(forge.offer(forge.run(code=[bad]), number=number))
        elif where == "ledger":
            refs.append(forge.offer(forge.run(), bad, number=number))
        else:
            inside: Entry = bad if where == ".gittrack" else (layout.ARTIFACTS, FOLDER, forge.tree([bad]))
            refs.append(forge.offer(forge.run(inside=[inside]), number=number))
    refused(bo, forge, dict.fromkeys(refs, ""))


@pytest.mark.parametrize("where", ["artifacts", "ledger", ".gittrack", "metrics"])
def test_bad_modes(bo: Desk, forge: Forge, where: str) -> None:
    refs = []
    for number, (name, mode) in enumerate([("x", SYMLINK), ("x", LINK), (".gitmodules", SYMLINK), ("x", 0o100755)]):
        bad: Entry = (name, mode, forge.commit if mode == LINK else forge.blob(b"/etc/passwd"))
        if where == "ledger":
            refs.append(forge.offer(forge.run(), bad, number=number))
        else:
            inside: Entry = bad if where == ".gittrack" else (where, FOLDER, forge.tree([bad]))
            refs.append(forge.offer(forge.run(inside=[inside]), number=number))
    refused(bo, forge, dict.fromkeys(refs, ""))


def test_setuid_is_none(bo: Desk, forge: Forge) -> None:
    refs = [forge.offer(forge.run(code=[("x", 0o104755, forge.blob(b"x"))]), number=1)]
    inside = (layout.ARTIFACTS, FOLDER, forge.tree([("x", 0o104644, forge.blob(b"x"))]))
    refs.append(forge.offer(forge.run(inside=[inside]), number=2))
    report = bo.pull()
    assert set(report.refused) == set(refs)
    assert bo.names() == {forge.run_id: "good"}


def test_duplicate_entries(bo: Desk, forge: Forge) -> None:
    one, other = forge.blob(b"1"), forge.blob(b"2")
    refused(bo, forge, {forge.offer(forge.run(code=[("x", FILE, one), ("x", FILE, other)])): ""})


def test_what_is_no_pointer(bo: Desk, forge: Forge) -> None:
    artifacts = forge.tree([("model.bin", FILE, forge.blob(b"#!/bin/sh\ntouch pwned\n"))])
    ref = forge.offer(forge.run(inside=[(layout.ARTIFACTS, FOLDER, artifacts)]))
    refused(bo, forge, {ref: "pointer"})


# -- P13 to P16: refs --------------------------------------------------------------------------------------------------


def test_a_rewritten_ledger_takes_nothing_away(bo: Desk, forge: Forge) -> None:
    bo.pull()
    forge.publish({forge.ref: forge.ledger({"f" * 32: forge.run()})})
    report = bo.pull()
    assert "rewritten" in report.published.conflicts[0]
    assert bo.names() == {forge.run_id: "good"}
    assert_clean(bo.sandbox.path)


def test_a_run_that_is_another_one_now_is_kept_as_it_was(bo: Desk, forge: Forge) -> None:
    bo.pull()
    other = forge.run(record=forge.record(run_id=forge.run_id, params={"lr": "666"}))
    old = ObjectId(listed(forge.hub.path)[forge.ref])
    forge.publish({forge.ref: forge.ledger({forge.run_id: other}, parents=[old, other])})
    report = bo.pull()
    assert "rewritten" in report.published.conflicts[0]
    assert bo.tracker.get_run(forge.run_id).data.params == {"lr": "0.1"}


def test_a_tag_that_moves_is_refused(ana: Desk, bo: Desk, forge: Forge) -> None:
    ana.model(extra=b"1")
    ana.model(extra=b"2")
    ana.push(files=False)
    bo.pull()
    before = bo.stages()
    tags = listed(forge.hub.path, "refs/tags/")
    forge.publish({"refs/tags/models/iris/v1": ObjectId(tags["refs/tags/models/iris/v2"])})
    report = bo.pull()
    assert "never moved" in report.refused["refs/tags/models/iris/v1"]
    assert bo.stages() == before


def test_a_tag_under_another_name_does_not_count(ana: Desk, bo: Desk, forge: Forge) -> None:
    ana.model()
    ana.push(files=False)
    tag = ObjectId(listed(forge.hub.path, "refs/tags/")["refs/tags/models/iris/v1"])
    forge.publish({"refs/tags/models/iris/v9": tag, "refs/tags/models/other/v1": tag})
    report = bo.pull()
    assert set(report.refused) == {"refs/tags/models/iris/v9", "refs/tags/models/other/v1"}
    assert list(bo.stages()) == ["1"]


def test_what_the_remote_deletes_is_not_deleted_here(ana: Desk, bo: Desk, forge: Forge) -> None:
    ana.model()
    ana.push(files=False)
    bo.pull()
    mine = bo.run("of bo")
    bo.sandbox.git("config", "fetch.prune", "true")
    before = bo.names()
    for ref in listed(forge.hub.path):
        if not ref.startswith("refs/heads/"):
            forge.hub.git("update-ref", "-d", ref)
    assert bo.pull().refused == {}
    assert bo.names() == before
    assert mine in before
    assert list(bo.stages()) == ["1"]
    assert bo.push(files=False).runs == 3, "and it comes back with the next push"


def test_only_what_is_ours_is_fetched(bo: Desk, forge: Forge) -> None:
    head = ObjectId(forge.hub.git("rev-parse", "HEAD"))
    names = [
        "refs/heads/evil", "refs/notes/commits", f"refs/replace/{head}", "refs/stash", "refs/tags/v1", "refs/tags/-d",
        "refs/runs/0/E", "refs/runs/0/a/b", "refs/runs/x/eve", "refs/runs/0/-eve", "refs/gittrack/live/x",
        "refs/gittrack/remotes/origin/runs/0/eve", "refs/gittrack/registry/E", "refs/tags/models/x/v01",
        "refs/tags/models/a/b/c/d",
    ]  # fmt: skip
    for name in names:
        path = forge.hub.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{head}\n")
    before = set(bo.refs())
    report = bo.pull()
    new = set(bo.refs()) - before
    assert report.wanted == [forge.ref]
    assert new == {forge.ref, f"refs/gittrack/remotes/origin/{forge.ref.removeprefix('refs/')}"}


def test_a_million_refs(bo: Desk, forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    from gittrack.sync import transport

    monkeypatch.setattr(transport, "MAX_REFS", 50)
    ledger = listed(forge.hub.path)[forge.ref]
    packed = forge.hub.path / "packed-refs"
    rows = [f"{ledger} refs/runs/0/w{number}" for number in range(60)]
    packed.write_text((packed.read_text() if packed.exists() else "") + "\n".join(rows) + "\n")
    with pytest.raises(RemoteDataError, match="refs of gittrack"):
        bo.pull()
    assert bo.names() == {}


# -- P17 and P18: commits and records ----------------------------------------------------------------------------------


def test_a_ledger_ref_at_something_else(bo: Desk, forge: Forge) -> None:
    blob = forge.blob(b"blob")
    tree = forge.tree([("x", FILE, blob)])
    head = ObjectId(forge.hub.git("rev-parse", "HEAD"))
    tag = forge.batch.add_tag("x", head, "tag\n", WHO, 1)
    bad = {"refs/runs/0/eve-1": blob, "refs/runs/0/eve-2": tree, "refs/runs/0/eve-3": tag, "refs/runs/0/eve-4": head,
           "refs/gittrack/registry/eve-5": head, "refs/tags/models/x/v1": head,
           "refs/tags/models/x/v2": tag}  # fmt: skip
    forge.publish(bad)
    report = bo.pull()
    assert set(report.refused) == set(bad)
    assert bo.names() == {forge.run_id: "good"}
    assert_clean(bo.sandbox.path)


def test_a_ledger_ref_at_the_folder_of_a_good_ledger(bo: Desk, forge: Forge) -> None:
    """What was read as one kind of object is no other one when it is asked for again."""
    good = forge.ledger({"f" * 32: forge.run()})
    forge.publish({"refs/runs/0/eve-1": good})
    tree = forge.store.read_commit(good).tree
    forge.publish({"refs/runs/0/eve-2": tree, "refs/runs/0/eve-0": tree})
    report = bo.pull()
    assert set(report.refused) == {"refs/runs/0/eve-2", "refs/runs/0/eve-0"}
    assert all("is a tree, not a commit" in why for why in report.refused.values())
    assert set(bo.names()) == {forge.run_id, "f" * 32}


def test_a_ledger_of_many_commits(bo: Desk, forge: Forge) -> None:
    """Its history is read ahead of the looking; what is wrong in the middle of it is found."""
    at: tuple[ObjectId, ...] = ()
    runs: dict[str, ObjectId] = {}
    for number in range(60):
        run_id = f"{number:032x}"
        runs[run_id] = forge.run(record=forge.record(run_id=run_id))
        at = (forge.ledger(runs, parents=[*at, runs[run_id]]),)
        if number == 29:
            stray = forge.ledger(runs, parents=[*at, forge.run(record=forge.record(run_id="e" * 32))])
    forge.publish({"refs/runs/0/eve-1": at[0], "refs/runs/0/eve-2": stray})
    for _ in range(30):
        stray = forge.ledger(runs, parents=[stray, *runs.values()])
    forge.publish({"refs/runs/0/eve-3": stray})
    report = bo.pull()
    assert {ref: "none of its runs" in why for ref, why in report.refused.items()} == {
        "refs/runs/0/eve-2": True, "refs/runs/0/eve-3": True}  # fmt: skip
    assert set(bo.names()) == {forge.run_id, *runs}


Make = Callable[[Forge], ObjectId]
CASES: dict[str, tuple[Make, str]] = {
    "commit without our tree": (lambda forge: forge.commit_of(forge.tree([("x", FILE, forge.blob(b"x"))])), ""),
    "another run's commit": (lambda forge: forge.commit, "says it is run"),
    "another experiment": (lambda forge: forge.run(record=forge.record(experiment_id="7")), "experiment"),
    "no msgpack": (lambda forge: forge.run(record=b"\xc1"), "f" * 32),
    "too deep": (lambda forge: forge.run(record=b"\x91" * 100_000 + b"\xc0"), "f" * 32),
    "declared too long": (lambda forge: forge.run(record=b"\xdf\xff\xff\xff\xff"), "f" * 32),
    "wrong types": (lambda forge: forge.run(record=forge.record(params={"a": 1})), "param"),
    "unknown version": (lambda forge: forge.run(record=forge.record(version=99)), "version"),
    "a counter that leaves no room": (
        lambda forge: forge.run(record=forge.record(fields={"name": [2**62, "eve", "x"]})), "counter"),
    "a segment that is missing": (lambda forge: forge.run(record=forge.record(segments=["000001"])), "segment"),
    "not a run id": (lambda forge: forge.run(record=forge.record(run_id="../../x")), "run"),
    "record is a folder": (
        lambda forge: forge.commit_of(forge.tree([(layout.FOLDER, FOLDER,
            forge.tree([(layout.RECORD, FOLDER, forge.tree([]))]))])),
        "mode"),
    "an empty folder": (lambda forge: forge.commit_of(forge.tree([(layout.FOLDER, FOLDER, forge.tree([]))])), "record"),
}  # fmt: skip


def test_bad_runs(bo: Desk, forge: Forge) -> None:
    refs = {}
    for number, (make, word) in enumerate(CASES.values()):
        refs[forge.offer(make(forge), number=number)] = word
    refused(bo, forge, refs)


def test_a_run_that_the_ledger_does_not_keep_alive(bo: Desk, forge: Forge) -> None:
    run = forge.run()
    forge.publish({"refs/heads/side": run})
    forge.publish({"refs/runs/0/eve-1": forge.ledger({"f" * 32: run}, parents=[])})
    refused(bo, forge, {"refs/runs/0/eve-1": "keep it alive"})


def test_a_ledger_with_a_foreign_history(bo: Desk, forge: Forge) -> None:
    run, head = forge.run(), ObjectId(forge.hub.git("rev-parse", "HEAD"))
    forge.publish({"refs/runs/0/eve-1": forge.ledger({"f" * 32: run}, parents=[run, head])})
    refused(bo, forge, {"refs/runs/0/eve-1": "none of its runs"})


@pytest.mark.parametrize("seconds", [253_402_300_799, 2**40])
def test_dates_of_the_far_future_change_nothing(bo: Desk, forge: Forge, seconds: int) -> None:
    forge.offer(forge.run(seconds=seconds))
    assert bo.pull().refused == {}
    assert "f" * 32 in bo.names()
    assert bo.tracker.get_run("f" * 32).info.run_name == "good"


def test_a_long_chain_of_parents_is_no_trouble(bo: Desk, forge: Forge) -> None:
    parent = ObjectId(forge.hub.git("rev-parse", "HEAD"))
    tree = forge.tree([("x", FILE, forge.blob(b"x"))])
    for _ in range(3000):
        parent = forge.commit_of(tree, parent)
    forge.offer(forge.run(parents=(parent,)))
    assert bo.pull().refused == {}
    assert "f" * 32 in bo.names()


def test_ledger_files_that_are_none(bo: Desk, forge: Forge) -> None:
    run = forge.run()
    for number, (name, data) in enumerate([
        (layout.TOMBSTONES, codec.pack(["x"])), (layout.TOMBSTONES, b"\xc1"),
        (layout.FOLDED, codec.pack({"../x": "y"})),
        (layout.EXPERIMENT_FILE, codec.pack({"version": 1})), (layout.EXPERIMENT_FILE, codec.pack({
            "version": 1, "created": 1, "updated": 1, "fields": {"name": [2**62, "eve", "x"]}})),
    ]):  # fmt: skip
        forge.publish({f"refs/runs/0/eve-{number}": forge.ledger({"f" * 32: run}, (name, FILE, forge.blob(data)))})
    assert len(bo.pull().refused) == 5
    assert bo.names() == {forge.run_id: "good"}


def test_documents_that_are_none(bo: Desk, forge: Forge) -> None:
    def document(**changes: object) -> bytes:
        return codec.pack({"created": 1, "fields": {}, "log": [], "updated": 1, "version": 1, **changes})

    bad = [("iris", document(fields={"name": [2**61, "eve", "x"]})), ("iris", b"\xc1"), ("a b", document()),
           ("iris", document(fields={"name": [1, "eve", 7]}))]  # fmt: skip
    for number, (key, data) in enumerate(bad):
        tree = forge.tree([(key, FILE, forge.blob(data))])
        forge.publish({f"refs/gittrack/registry/eve-{number}": forge.commit_of(tree)})
    assert len(bo.pull().refused) == len(bad)
    assert bo.registry.search_models() == []


def test_a_version_whose_files_are_not_those_of_its_tag(ana: Desk, bo: Desk, forge: Forge) -> None:
    ana.model()
    tag = ana.repo.git.read_tag(ObjectId(ana.refs()["refs/tags/models/iris/v1"]))
    ana.push(files=False)
    other = tag.message.replace("Manifest-SHA256: ", "Manifest-SHA256: 0")[:]
    digest = next(line for line in tag.message.splitlines() if "Manifest" in line).rpartition(" ")[2]
    message = tag.message.replace(digest, "0" * 64).replace("Version: 1", "Version: 2")
    assert other != message
    forge.publish({"refs/tags/models/iris/v2": forge.batch.add_tag("models/iris/v2", tag.target, message, WHO, 1)})
    assert "vouches" in bo.pull().refused["refs/tags/models/iris/v2"]
    assert list(bo.stages()) == ["1"]


def test_damaged_objects_do_not_count(bo: Desk, forge: Forge) -> None:
    forge.offer(forge.run(record=forge.record(user_id="x" * 100_000)))
    newest = max((forge.hub.path / "objects" / "pack").glob("*.pack"), key=lambda path: path.stat().st_mtime_ns)
    data = bytearray(newest.read_bytes())
    for at in range(len(data) // 4, len(data) - 40, 16):
        data[at] ^= 0xFF
    newest.chmod(0o644)
    newest.write_bytes(data)
    with pytest.raises((RemoteDataError, NetworkError)):
        bo.pull()
    assert "f" * 32 not in bo.names()
    assert_clean(bo.sandbox.path)


# -- P19: replay -------------------------------------------------------------------------------------------------------


def test_an_old_state_that_is_offered_again_takes_nothing_back(ana: Desk, bo: Desk, forge: Forge) -> None:
    ana.model()
    ana.registry.promote("iris", 1, "Production", archive_existing=True)
    ana.push(files=False)
    old = listed(forge.hub.path)
    ana.model(extra=b"2")
    ana.registry.promote("iris", 2, "Production", archive_existing=True)
    ana.registry.describe_model("iris", "new")
    ana.push(files=False)
    bo.pull()
    now = bo.stages()
    for ref in listed(forge.hub.path):
        forge.hub.git("update-ref", *([ref, old[ref]] if ref in old else ["-d", ref]))
    report = bo.pull()
    assert report.published.conflicts == []
    assert bo.stages() == now
    assert bo.registry.get_model("iris").description == "new"
    assert bo.push(files=False).tags, "and the newest is pushed again"


# -- P20: bombs --------------------------------------------------------------------------------------------------------


def test_a_record_of_zeros_is_never_unpacked(bo: Desk, forge: Forge) -> None:
    refused(bo, forge, {forge.offer(forge.run(record=bytes(100 << 20))): "too large"})


def test_folders_within_folders_without_end(bo: Desk, forge: Forge) -> None:
    leaf = forge.blob(layout.pointer("0" * 64, 1))  # type: ignore[arg-type]
    tree = forge.tree([(f"{number:02}", FILE, leaf) for number in range(10)])
    for _ in range(9):  # ten thousand million files in ten objects
        tree = forge.tree([(f"{number:02}", FOLDER, tree) for number in range(10)])
    refused(bo, forge, {forge.offer(forge.run(inside=[(layout.ARTIFACTS, FOLDER, tree)])): "artifacts"})


def test_a_ledger_that_points_at_nothing(bo: Desk, forge: Forge) -> None:
    run = forge.run()
    table = [("ff", FOLDER, forge.tree([("f" * 30, LINK, ObjectId("1" * 40))]))]
    forge.publish({"refs/runs/0/eve-1": forge.commit_of(forge.tree(table), run)})
    refused(bo, forge, {"refs/runs/0/eve-1": ""})


# -- P21: a remote that talks ------------------------------------------------------------------------------------------


def fake_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An ssh that is a program of ours: what a remote could say."""
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(program))


def test_a_remote_that_says_nothing_is_left(bo: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_git(tmp_path, monkeypatch, "exec sleep 60")
    bo.sandbox.git("remote", "set-url", "origin", "ssh://example.org/x")
    with pytest.raises(GitError, match="said nothing"):
        bo.repo.git.program.over_network("ls-remote", "--", "origin", silence=1.0)


def test_endless_text_is_cut_off(bo: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gittrack.store import gateway

    monkeypatch.setattr(gateway, "MAX_ANSWER", 1 << 20)
    line = "003f" + "1" * 40 + " refs/runs/0/aaaaa\n"
    fake_git(tmp_path, monkeypatch, f"while :; do for i in 1 2 3 4 5 6 7 8; do printf '{line[:-1]}\\n'; done; done")
    bo.sandbox.git("remote", "set-url", "origin", "ssh://example.org/x")
    with pytest.raises(GittrackError):
        bo.repo.git.program.over_network("ls-remote", "--", "origin", silence=1.0)


def test_escape_sequences_of_a_remote_do_not_reach_the_terminal(
    bo: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from gittrack.cli import main

    fake_git(tmp_path, monkeypatch, r"printf 'error: \033[2J\033]0;pwned\007 boo\n' >&2; exit 1")
    bo.sandbox.git("remote", "set-url", "origin", "ssh://example.org/x")
    monkeypatch.chdir(bo.sandbox.path)
    assert main.run(["pull"]) == 1
    shown = capfd.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "\x07" not in shown.err


# -- G1 to G9: addresses, names and settings ---------------------------------------------------------------------------

BAD_URLS = (
    "--upload-pack=touch pwned;", "-uorigin", "ext::sh -c touch% pwned", "EXT::sh -c touch% pwned", "ext://x",
    "::x", "fd::7",
    "foo::bar", "ssh://-oProxyCommand=touch pwned/x", "git://-x/y", "-oProxyCommand=x:y", "https://host\nx",
    "ssh://h/\x00", "",
    "https://ana:secret@example.org/x.git", "javascript://x", "http:///#/../etc", "https://$HOME:x@h/", "ssh://a b/x",
)  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
def test_addresses_that_cannot_be(bo: Desk, url: str) -> None:
    before = bo.sandbox.git("config", "--local", "--list")
    with pytest.raises(InvalidValueError) as error:
        remotes.add(bo.repo, "evil", url)
    assert "secret" not in str(error.value)
    assert bo.sandbox.git("config", "--local", "--list") == before


GOOD_URLS = (
    "https://example.org/x.git", "ssh://git@example.org:22/x", "git@example.org:team/x.git", "/srv/x.git", "../x.git",
    "file:///srv/x.git", "https://ana@example.org/x", "http://[::1]:80/x", "C:/x", "./a:b", "/a/$HOME/'x'",
)  # fmt: skip


@pytest.mark.parametrize("url", GOOD_URLS)
def test_addresses_that_can_be(bo: Desk, url: str) -> None:
    remotes.add(bo.repo, "other", url)
    assert bo.sandbox.git("config", "--get", "remote.other.url") == url, "nothing in it is expanded"


@pytest.mark.parametrize(
    "name", ["-x", "a\nb", "a]", 'a"b', "a=b", "a#b", "a b", "..", "a..b", "a.lock", "", "a\r", "x/../y", "é"]
)
def test_names_that_cannot_be(bo: Desk, name: str) -> None:
    with pytest.raises(InvalidValueError):
        remotes.add(bo.repo, name, "https://example.org/x.git")


@pytest.mark.parametrize(
    "url", ["ext::sh -c touch% pwned", "foo::bar", "--upload-pack=touch pwned;", "ssh://-oProxyCommand=touch pwned/x"]
)
def test_hostile_addresses_in_the_config_start_nothing(
    bo: Desk, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "bin" / "git-remote-foo"
    helper.parent.mkdir()
    helper.write_text("#!/bin/sh\ntouch pwned\n")
    helper.chmod(0o755)
    import os

    monkeypatch.setenv("PATH", f"{helper.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "ext:foo:file")
    for key in ("protocol.ext.allow", "protocol.foo.allow", "protocol.allow"):
        bo.sandbox.git("config", key, "always")
    bo.run()
    bo.sandbox.git("config", "remote.origin.url", url)
    for call in (bo.pull, bo.push):
        with pytest.raises((UsageError, NetworkError)):
            call()


def test_hooks_of_the_clone_do_not_run(ana: Desk, bo: Desk) -> None:
    ana.run()
    ana.push(files=False)
    for name in ("reference-transaction", "pre-push", "post-merge", "post-checkout", "update", "post-update"):
        hook = bo.sandbox.path / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\ntouch pwned\n")
        hook.chmod(0o755)
    bo.sandbox.git("config", "core.fsmonitor", "touch pwned")
    bo.run()
    bo.pull()
    bo.push(files=False)
    assert len(bo.names()) == 2


@pytest.mark.parametrize(
    "variable", ["GIT_DIR", "GIT_CONFIG_COUNT", "GIT_TRACE", "GIT_EXEC_PATH", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY"]
)
def test_hostile_variables_change_nothing(
    ana: Desk, bo: Desk, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ana.run()
    ana.push(files=False)
    monkeypatch.setenv(variable, "1" if variable == "GIT_CONFIG_COUNT" else str(tmp_path / "pwned"))
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.sshCommand")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "touch pwned")
    bo.pull()
    monkeypatch.delenv(variable)
    assert set(bo.names()) == {run}


def test_passwords_in_the_config_are_shown_nowhere(
    bo: Desk, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gittrack.cli import main

    bo.sandbox.git("config", "remote.origin.url", f"http://ana:s3cret@127.0.0.1:{free_port()}/x.git")
    monkeypatch.chdir(bo.sandbox.path)
    for words in (["pull"], ["push"], ["remote"], ["remote", "--json"]):
        main.run(words)
    shown = capfd.readouterr()
    assert "s3cret" not in shown.out + shown.err
    assert "127.0.0.1" in shown.out


def test_a_password_is_not_a_process_argument(bo: Desk) -> None:
    """What git is given names the remote; its address stays in the config."""
    bo.sandbox.git("config", "remote.origin.url", "https://ana:s3cret@example.invalid/x.git")
    seen: list[str] = []
    program = bo.repo.git.program
    original = program.over_network

    def spy(*args: str, **options: object) -> object:
        seen.extend(args)
        return original(*args, **options)  # type: ignore[arg-type]

    program.over_network = spy  # type: ignore[assignment,method-assign]
    with pytest.raises(NetworkError):
        bo.pull()
    assert seen
    assert not [word for word in seen if "s3cret" in word]
