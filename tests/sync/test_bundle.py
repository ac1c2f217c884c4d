"""One file carries runs, models and their files between clones that no network connects."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gittrack.errors import (
    AlreadyExistsError,
    CorruptError,
    GitError,
    InvalidValueError,
    NotFoundError,
    StorageError,
    UnsupportedError,
    UsageError,
)
from gittrack.store.check import fsck
from gittrack.sync import bundle as bundling
from gittrack.sync.bundle import BundleReport, UnbundleReport
from gittrack.sync.select import Selection
from tests.conftest import MakeRepo, Sandbox, run_git
from tests.sync.conftest import Desk, Join, Killed, assert_clean, dying, state_of
from tests.sync.test_flavours import with_code

#: Every point instead of samples.
FULL = os.environ.get("GITTRACK_FAULTS") == "full"

Meet = Callable[..., Desk]
BIG = os.urandom(1 << 20) * 3 + b"end"


@pytest.fixture
def meet(make_repo: MakeRepo) -> Meet:
    """``meet("bo")`` is somebody's repository that no remote connects with another one."""

    def make(name: str, kind: str = "ordinary") -> Desk:
        sandbox = make_repo(kind)
        if kind != "plain":
            sandbox.git("config", "user.name", name.capitalize())
        return Desk(sandbox)

    return make


@pytest.fixture
def ana(meet: Meet) -> Desk:
    """Ana's repository."""
    return meet("ana")


@pytest.fixture
def bo(meet: Meet) -> Desk:
    """Bo's repository."""
    return meet("bo")


def pack(desk: Desk, file: Path, **options: object) -> BundleReport:
    """``gittrack bundle``."""
    return bundling.bundle(desk.registry, file, **options)  # type: ignore[arg-type]


def take(desk: Desk, file: Path, **options: object) -> UnbundleReport:
    """``gittrack unbundle``."""
    return bundling.unbundle(desk.registry, file, **options)  # type: ignore[arg-type]


def whole(desk: Desk) -> None:
    """The clone is in order, files of runs included, and nothing is left behind."""
    assert_clean(desk.repo.paths.common_dir)
    assert fsck(desk.repo, full=True) == []
    assert desk.repo.git.refs("refs/gittrack/incoming/") == {}
    assert not list((desk.repo.paths.common_dir / "objects" / "pack").glob("*.keep"))


def objects_of(desk: Desk) -> set[tuple[str, int]]:
    """The artifacts that are in a clone."""
    return {(str(digest), size) for digest, size in desk.repo.objects.iter_digests()}


def test_everything_travels_and_back(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    mine = ana.run("of ana", experiment="churn", files={"a.txt": b"a", "big.bin": BIG})
    ana.model()
    ana.model(acc=0.95, extra=b"2")
    ana.registry.promote("iris", 2, "Production", archive_existing=True, reason="better")
    ana.registry.set_alias("iris", "champion", 2)
    ana.registry.describe_version("iris", 2, "the good one")
    theirs = bo.run("of bo")
    before = state_of(bo.sandbox.path), state_of(ana.sandbox.path)
    report = pack(ana, tmp_path / "x.bundle")
    assert (report.runs, report.files, report.absent, report.needed, report.skipped) == (3, 6, 0, 0, {})
    assert (tmp_path / "x.bundle").stat().st_size == report.length
    came = take(bo, tmp_path / "x.bundle")
    assert came.refused == {}
    assert len(came.published.runs) == 3
    assert sorted(came.published.tags) == sorted(report.tags)
    assert (came.files, came.size) == (report.files, report.size)
    assert bo.stages() == ana.stages()
    assert bo.registry.get_version("iris", 2).description == "the good one"
    assert bo.registry.resolve("iris@champion").manifest == ana.registry.resolve("iris@champion").manifest
    artifact = next(one for one in bo.tracker.artifacts(mine) if one.path == "big.bin")
    assert bo.repo.objects.read(artifact.digest) == BIG
    whole(bo)
    reply = pack(bo, tmp_path / "reply.bundle", since=[tmp_path / "x.bundle"])
    assert (reply.runs, reply.tags, reply.files) == (1, [], 0)
    assert take(ana, tmp_path / "reply.bundle").published.runs == {theirs}
    assert ana.log() == bo.log()
    whole(ana)
    assert before == (state_of(bo.sandbox.path), state_of(ana.sandbox.path)), "branches, files, settings are the user's"


def test_a_second_time_adds_nothing(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    ana.run(files={"a.txt": b"a"})
    ana.model()
    file = tmp_path / "x.bundle"
    pack(ana, file)
    take(bo, file)
    refs, packs = bo.refs(), sorted((bo.sandbox.path / ".git" / "objects" / "pack").iterdir())
    again = take(bo, file)
    assert (again.wanted, again.files, again.published.runs, again.published.tags) == ([], 0, set(), [])
    assert bo.refs() == refs
    assert sorted((bo.sandbox.path / ".git" / "objects" / "pack").iterdir()) == packs
    assert take(ana, file).wanted == [], "nor does one's own"
    bo.run("later")
    bo.close()
    assert take(bo, file).wanted == []


def test_a_model_that_came_in_a_bundle_loads(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    script = """
import sys, gittrack, gittrack.sklearn as flavour
from sklearn.linear_model import LogisticRegression as Model
ana, bo, file = sys.argv[1:]
gittrack.set_tracking_uri(ana)
model = Model().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
with gittrack.start_run():
    flavour.log_model(model, name="m", registered_model_name="iris")
assert gittrack.bundle(file).runs == 1
gittrack.set_tracking_uri(bo)
gittrack.unbundle(file)
print(flavour.load_model("models:/iris/1").predict([[0.5], [2.5]]).tolist())
"""
    words = [sys.executable, "-c", script, str(ana.sandbox.path), str(bo.sandbox.path), str(tmp_path / "x.bundle")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
    assert done.stdout == "[0, 1]\n", done.stderr
    assert list(ana.stages()) == list(bo.stages()) == ["1"]
    whole(bo)


# -- less than everything ----------------------------------------------------------------------------------------------


def test_increments_in_order_and_not_otherwise(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    one, two, three = (tmp_path / f"{number}.bundle" for number in (1, 2, 3))
    first = ana.run("first", files={"a.txt": b"a"})
    pack(ana, one)
    second = ana.run("second", files={"b.txt": b"b"})
    ana.tracker.writer(first).set_tags({"seen": "again"})
    ana.tracker.flush()
    ana.model()
    report = pack(ana, two, since=[one])
    assert (report.runs, report.revised, report.files, report.code, report.needed) == (2, 1, 4, 0, 2)
    third = ana.run("third")
    assert pack(ana, three, since=[two]).runs == 1
    before = bo.refs()
    for file in (two, three):
        for dry in (True, False):
            with pytest.raises(NotFoundError, match="builds on") as refused:
                take(bo, file, dry_run=dry)
    assert "`gittrack unbundle 2.bundle`" in str(refused.value.hint)
    assert bo.refs() == before
    whole(bo)
    take(bo, one)
    with pytest.raises(NotFoundError, match=r"made to follow `2.bundle`"):
        take(bo, three)
    assert len(take(bo, two).published.revised) == 1
    assert take(bo, three).published.runs == {third}
    assert ana.log() == bo.log()
    assert {first, second, third} < set(bo.names())
    assert bo.stages() == ana.stages()
    with pytest.raises(NotFoundError, match="nothing is new"):
        pack(ana, tmp_path / "4.bundle", since=[three])
    assert not (tmp_path / "4.bundle").exists()
    whole(bo)


def test_a_promotion_of_what_is_there_already(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    """A tag whose run is left out: it is needed, although no commit in the bundle has it as a parent."""
    ana.model()
    pack(ana, tmp_path / "1.bundle")
    ana.registry.promote("iris", 1, "Production", archive_existing=True)
    report = pack(ana, tmp_path / "2.bundle", since=[tmp_path / "1.bundle"])
    assert (report.tags, report.ledgers, report.files, report.needed) == (["models/iris/production/1"], [], 0, 1)
    with pytest.raises(NotFoundError, match="builds on"):
        take(bo, tmp_path / "2.bundle")
    take(bo, tmp_path / "1.bundle")
    take(bo, tmp_path / "2.bundle")
    assert bo.stages() == ana.stages()
    whole(bo)


def test_what_a_remote_has_is_left_out(join: Join, hub: Sandbox, tmp_path: Path) -> None:
    ana, bo, cy = join("ana"), join("bo"), join("cy")
    ana.run("first", files={"a.txt": b"a"})
    with pytest.raises(NotFoundError, match="nothing is new"):
        pack(bo, tmp_path / "x.bundle", since=[bo.remote()])
    ana.push()
    second = ana.run("second", files={"b.txt": b"b"})
    report = pack(ana, tmp_path / "x.bundle", since=[ana.remote()])
    assert (report.runs, report.files, report.code) == (1, 1, 0)
    with pytest.raises(NotFoundError, match=r"leaves out what remote `origin`"):
        take(cy, tmp_path / "x.bundle")
    bo.pull()
    assert take(bo, tmp_path / "x.bundle").published.runs == {second}
    assert ana.log() == bo.log()
    assert bo.push().runs == 1, "who has a network sends it on"
    assert ana.push().runs == 0
    assert_clean(hub.path)


def test_some_runs_and_later_others(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    old = ana.tracker.create_run(name="old", start_time=1_000, user_id="ana", capture=False)
    old.end()
    ana.tracker.flush()
    new, other = ana.run("new", files={"n.txt": b"n"}), ana.run("other", experiment="churn")
    since = Selection(since=int(time.time() * 1000) - 3_600_000)
    assert pack(ana, tmp_path / "date.bundle", select=since).runs == 2
    assert not [ref for ref in ana.refs() if "outgoing" in ref]
    take(bo, tmp_path / "date.bundle")
    assert set(bo.names()) == {new, other}
    assert pack(ana, tmp_path / "author.bundle", select=Selection(runs=frozenset([old.run_id]))).runs == 1
    came = take(bo, tmp_path / "author.bundle")
    assert came.published.conflicts == [], "a ledger that lists other runs takes nothing away"
    assert set(bo.names()) == {old.run_id, new, other}
    later = ana.run("later")
    assert pack(ana, tmp_path / "late.bundle", select=Selection(runs=frozenset([later]))).runs == 1
    assert take(bo, tmp_path / "late.bundle").published.runs == {later}
    assert take(bo, tmp_path / "date.bundle").published.conflicts == []
    pack(ana, tmp_path / "all.bundle")
    assert take(bo, tmp_path / "all.bundle").published.conflicts == []
    assert ana.log() == bo.log()
    whole(bo)


def test_a_model_takes_its_runs_along(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    ana.model("iris")
    ana.model("churn")
    ana.run("not meant", files={"no.txt": b"no"})
    report = pack(ana, tmp_path / "x.bundle", select=Selection(models=frozenset(["churn"])))
    assert (report.tags, report.ledgers, report.files) == (["models/churn/v1"], [], 3)
    take(bo, tmp_path / "x.bundle")
    version = bo.registry.get_version("churn", 1)
    assert bo.registry.manifest(version).digest == version.manifest
    assert bo.names() == {}
    whole(bo)


def test_without_files(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    run = ana.run(files={"a.txt": b"a"})
    report = pack(ana, tmp_path / "x.bundle", artifacts=False)
    assert (report.files, report.absent) == (0, 0)
    came = take(bo, tmp_path / "x.bundle")
    assert (came.manifest.absent, came.files) == (1, 0)
    assert set(bo.names()) == {run}
    again = pack(bo, tmp_path / "y.bundle")
    assert (again.files, again.absent) == (0, 1)
    pack(ana, tmp_path / "z.bundle")
    assert take(bo, tmp_path / "z.bundle").files == 1
    whole(bo)


# -- where two clones meet ---------------------------------------------------------------------------------------------


def test_the_same_version_in_both_gets_another_number(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    ana.model(extra=b"of ana")
    bo.model(extra=b"of bo")
    pack(ana, tmp_path / "x.bundle")
    came = take(bo, tmp_path / "x.bundle")
    assert [(one.old, one.new) for one in came.published.renamed] == [("models/iris/v1", "models/iris/v2")]
    pack(bo, tmp_path / "y.bundle", since=[tmp_path / "x.bundle"])
    take(ana, tmp_path / "y.bundle")
    assert ana.stages() == bo.stages()
    assert set(ana.stages()) == {"1", "2"}
    assert ana.log() == bo.log()
    for desk in (ana, bo):
        whole(desk)


def test_purged_runs_stay_away(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    from gittrack.store.rewrite import purge

    gone, stays = ana.run("gone", files={"s.txt": b"secret"}), ana.run("stays")
    pack(ana, tmp_path / "old.bundle")
    take(bo, tmp_path / "old.bundle")
    ana.tracker.delete_run(gone)
    ana.tracker.flush()
    purge(ana.repo, gone)
    pack(ana, tmp_path / "new.bundle", since=[tmp_path / "old.bundle"])
    take(bo, tmp_path / "new.bundle")
    assert set(bo.names()) == {stays}
    take(bo, tmp_path / "old.bundle")
    take(ana, tmp_path / "old.bundle")
    assert set(bo.names()) == set(ana.names()) == {stays}
    for desk in (ana, bo):
        assert_clean(desk.sandbox.path)


def test_a_tag_that_was_another_one_is_refused(ana: Desk, bo: Desk, meet: Meet, tmp_path: Path) -> None:
    ana.model(extra=b"1")
    pack(ana, tmp_path / "1.bundle")
    take(bo, tmp_path / "1.bundle")
    cy = meet("cy")
    cy.model(extra=b"of cy")
    pack(cy, tmp_path / "cy.bundle")
    take(ana, tmp_path / "cy.bundle")
    assert list(ana.stages()) != ["1"]
    pack(ana, tmp_path / "2.bundle")
    came = take(bo, tmp_path / "2.bundle")
    assert "never moved" in came.refused["refs/tags/models/iris/v1"]
    assert bo.registry.get_version("iris", 1).run_id in bo.names()


# -- the file ----------------------------------------------------------------------------------------------------------


def test_stock_tools_read_it(ana: Desk, tmp_path: Path) -> None:
    ana.run(files={"a.txt": b"text of a\n"})
    ana.model()
    pack(ana, tmp_path / "x.bundle")
    listed = subprocess.run(["tar", "-tf", "x.bundle"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert listed.stderr == ""
    assert listed.stdout.splitlines()[:2] == ["gittrack-bundle.json", "git-bundle"]
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xf", "../x.bundle"], cwd=out, check=True)
    sums = subprocess.run(["sha256sum", *os.listdir(out / "objects")], cwd=out / "objects", capture_output=True,
                          text=True, check=True).stdout.splitlines()  # fmt: skip
    assert {line.split()[0] for line in sums} == {line.split()[1] for line in sums}
    run_git(tmp_path, "init", "--quiet", "other")
    other = tmp_path / "other"
    assert "complete history" in run_git(other, "bundle", "verify", str(out / "git-bundle"))
    run_git(other, "-c", "fetch.fsckObjects=true", "fetch", "--quiet", str(out / "git-bundle"), "refs/*:refs/*")
    assert run_git(other, "tag") == "models/iris/v1"
    assert_clean(other)
    with tarfile.open(tmp_path / "x.bundle") as archive:
        assert all(member.isreg() and member.mode == 0o444 for member in archive)


def test_increments_for_stock_git(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    ana.model()
    pack(ana, tmp_path / "1.bundle")
    ana.registry.promote("iris", 1, "Production", archive_existing=True)
    ana.run()
    pack(ana, tmp_path / "2.bundle", since=[tmp_path / "1.bundle"])
    subprocess.run(["tar", "-xf", "2.bundle", "git-bundle"], cwd=tmp_path, check=True)
    verify = ["git", "bundle", "verify", str(tmp_path / "git-bundle")]
    assert subprocess.run(verify, cwd=bo.sandbox.path, capture_output=True, check=False).returncode != 0
    take(bo, tmp_path / "1.bundle")
    assert subprocess.run(verify, cwd=bo.sandbox.path, capture_output=True, check=False).returncode == 0


def test_nothing_is_overwritten_unasked(ana: Desk, tmp_path: Path) -> None:
    file = tmp_path / "x.bundle"
    file.write_text("mine")
    with pytest.raises(AlreadyExistsError, match="exists"):
        pack(ana, file)
    with pytest.raises(NotFoundError, match="nothing to put"):
        pack(ana, file, overwrite=True)
    ana.run()
    with pytest.raises(AlreadyExistsError) as refused:
        pack(ana, file)
    assert "--force" in str(refused.value.hint)
    assert file.read_text() == "mine"
    assert pack(ana, file, overwrite=True).length == file.stat().st_size
    pack(ana, file, overwrite=True, dry_run=True)
    assert sorted(path.name for path in tmp_path.glob("*bundle*")) == ["x.bundle"]
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_damaged_file_of_a_run_makes_no_bundle(ana: Desk, tmp_path: Path) -> None:
    run = ana.run(files={"small": b"a", "big": BIG})
    for artifact in ana.tracker.artifacts(run):
        path = ana.repo.objects.path(artifact.digest)
        good = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(bytes(len(good)))
        with pytest.raises(CorruptError):
            pack(ana, tmp_path / "x.bundle")
        path.write_bytes(good)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
    pack(ana, tmp_path / "x.bundle")


def test_former_bundles_that_are_none(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    ana.run()
    other = tmp_path / "other.bundle"
    pack(ana, other)
    bo.run()
    with pytest.raises(NotFoundError, match=r"nothing of `other.bundle`") as refused:
        pack(bo, tmp_path / "x.bundle", since=[other])
    assert "gittrack unbundle other.bundle" in str(refused.value.hint)
    (tmp_path / "text").write_text("text")
    with pytest.raises(CorruptError, match="no bundle"):
        pack(bo, tmp_path / "x.bundle", since=[tmp_path / "text"])
    assert bundling.basis(bo.repo, "2w") is None
    with pytest.raises(NotFoundError, match="no file"):
        bundling.basis(bo.repo, "nowhere/last.bundle")
    run_git(bo.sandbox.path, "bundle", "create", "-q", str(tmp_path / "git.bundle"), "main")
    with pytest.raises(CorruptError, match="of git's") as plain:
        take(bo, tmp_path / "git.bundle")
    assert "git fetch" in str(plain.value.hint)


def test_a_bundle_is_no_remote(bo: Desk, tmp_path: Path) -> None:
    bo.run()
    pack(bo, tmp_path / "x.bundle")
    with pytest.raises(UsageError) as refused:
        bo.pull(str(tmp_path / "x.bundle"))
    assert "gittrack unbundle" in str(refused.value.hint)


def test_in_python(ana: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import datetime, timezone

    import gittrack

    ana.run()
    ana.close()
    monkeypatch.chdir(ana.sandbox.path)
    assert gittrack.bundle(tmp_path / "1.bundle").runs == 1
    assert gittrack.bundle(tmp_path / "2.bundle", since=datetime(2020, 1, 1, tzinfo=timezone.utc)).runs == 1
    with pytest.raises(NotFoundError, match="nothing is new"):
        gittrack.bundle(tmp_path / "3.bundle", since=tmp_path / "1.bundle")
    with pytest.raises(InvalidValueError, match="neither"):
        gittrack.bundle(tmp_path / "3.bundle", since="nobody")
    assert gittrack.unbundle(tmp_path / "1.bundle", dry_run=True).wanted == []


# -- clones of every kind ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", ["ordinary unborn", "sha256 sha256", "bare ordinary", "ordinary bare", "plain plain",
                                   "ordinary shallow", "linked linked"])  # fmt: skip
def test_kinds(meet: Meet, kinds: str, tmp_path: Path) -> None:
    one, other = (meet(name, kind) for name, kind in zip(("ana", "bo"), kinds.split(), strict=True))
    coded = one.sandbox.kind not in ("bare", "plain")
    mine = with_code(one, "mine") if coded else one.run("mine", files={"a": b"a"})
    one.model()
    pack(one, tmp_path / "1.bundle")
    take(other, tmp_path / "1.bundle")
    assert other.names() == one.names()
    theirs = other.run("theirs", files={"b": b"b"})
    pack(other, tmp_path / "2.bundle", since=[tmp_path / "1.bundle"])
    assert take(one, tmp_path / "2.bundle").published.runs == {theirs}
    assert one.log() == other.log()
    assert mine in other.names()
    assert one.stages() == other.stages()
    for desk in (one, other):
        whole(desk)


def test_object_ids_of_another_kind(ana: Desk, meet: Meet, tmp_path: Path) -> None:
    other = meet("bo", "sha256")
    ana.run()
    pack(ana, tmp_path / "x.bundle")
    with pytest.raises(UnsupportedError, match="sha1 object ids") as refused:
        take(other, tmp_path / "x.bundle")
    assert "--object-format=sha1" in str(refused.value.hint)


def test_out_of_a_shallow_clone(join: Join, meet: Meet, tmp_path: Path) -> None:
    """The code behind its end is needed; who has the code has that."""
    shallow, ana, nobody = join("ci", "--depth=1"), join("ana"), meet("cy", "unborn")
    run = with_code(shallow, "mine")
    assert pack(shallow, tmp_path / "x.bundle").needed == 1
    with pytest.raises(NotFoundError, match="builds on commit") as refused:
        take(nobody, tmp_path / "x.bundle")
    assert "shallow" in str(refused.value.hint)
    assert take(ana, tmp_path / "x.bundle").published.runs == {run}
    whole(ana)


@pytest.mark.parametrize("option", ["--filter=blob:none", "--filter=tree:0"])
def test_partial_clones(join: Join, hub: Sandbox, meet: Meet, option: str, tmp_path: Path) -> None:
    hub.git("config", "uploadpack.allowFilter", "true")
    ana, nobody, other = join("ana", option), meet("cy", "unborn"), join("bo", option)
    run = with_code(ana, "mine")
    pack(ana, tmp_path / "x.bundle")
    for desk in (nobody, other):
        assert take(desk, tmp_path / "x.bundle").published.runs == {run}
        commit = desk.tracker.get_run(run).commit
        assert "print('mine')" in desk.sandbox.git("show", f"{commit}:train.py")
        assert_clean(desk.sandbox.path)


def test_a_partial_clone_that_cannot_reach_its_remote(join: Join, hub: Sandbox, tmp_path: Path) -> None:
    """What it lacks of the code it cannot put in; without what the remote has, it can."""
    hub.git("config", "uploadpack.allowFilter", "true")
    ana, bo = join("ana", "--filter=tree:0"), join("bo")
    run = with_code(ana, "mine")
    hub.path.rename(tmp_path / "away")
    with pytest.raises(GitError, match="cannot be packed") as refused:
        pack(ana, tmp_path / "x.bundle")
    assert "partial clone" in str(refused.value.hint)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
    assert pack(ana, tmp_path / "x.bundle", since=[ana.remote()]).runs == 1
    assert take(bo, tmp_path / "x.bundle").published.runs == {run}
    whole(bo)


def test_partial_clones_take_increments(join: Join, hub: Sandbox, tmp_path: Path) -> None:
    """What a bundle leaves out need not be here but for its commits: a partial clone has no files of those."""
    hub.git("config", "uploadpack.allowFilter", "true")
    ana = join("ana")
    ana.sandbox.commit("large", train_py="".join(f"line {number}\n" for number in range(3000)))
    ana.sandbox.git("push", "--quiet")
    bo = join("bo", "--filter=blob:none", "--no-checkout")
    ana.sandbox.write("train.py", ana.sandbox.path.joinpath("train.py").read_text() + "one more\n")
    run = with_code(ana, "mine")
    pack(ana, tmp_path / "x.bundle", since=[ana.remote()])
    hub.path.rename(tmp_path / "gone")
    assert take(bo, tmp_path / "x.bundle").published.runs == {run}
    assert "print('mine')" in bo.sandbox.git("show", f"{bo.tracker.get_run(run).commit}:train.py")


def test_pipes(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    """Out of a pipe and into one, large files too."""
    import threading

    ana.run(files={"big": BIG, "small": b"s"})
    ana.model()
    out, into = os.pipe()
    writer = threading.Thread(target=lambda: (pack(ana, into), os.close(into)))  # type: ignore[arg-type,func-returns-value]
    writer.start()
    with open(out, "rb") as source:
        data = source.read()
    writer.join()
    (tmp_path / "x.bundle").write_bytes(data)
    out, into = os.pipe()

    def feed() -> None:
        with open(into, "wb") as target:
            target.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    assert take(bo, out).published.runs == set(ana.names())  # type: ignore[arg-type]
    feeder.join()
    os.close(out)
    assert bo.log() == ana.log()
    whole(bo)
    assert take(bo, tmp_path / "x.bundle").wanted == []


# -- interrupted -------------------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from gittrack.registry.registry import Registry
from gittrack.store.repo import Repo
from gittrack.sync import bundle
from gittrack.track.runs import Tracker
registry = Registry(Tracker(Repo.find(Path({folder!r})), strict=True))
print("ready", flush=True)
sys.stdin.readline()
bundle.{verb}(registry, Path({file!r}){more})
print("done", flush=True)
"""


def killed_after(desk: Desk, verb: str, file: Path, seconds: float, more: str = "") -> bool:
    """A process is killed after so many seconds; True if it was ready before."""
    desk.close()
    code = CHILD.format(
        root=str(Path(__file__).parents[2]), folder=str(desk.sandbox.path), verb=verb, file=str(file), more=more
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write(b"\n")
        process.stdin.flush()
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        return process.stdout.read() == b"done\n"


def test_killed_at_any_moment(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    for number in range(4):
        ana.run(f"run {number}", experiment=f"of {number % 2}", files={f"{number}": os.urandom(3 << 20)})
    ana.model()
    file = tmp_path / "x.bundle"
    for seconds in [step * (0.01 if FULL else 0.12) for step in range(60 if FULL else 3)]:
        if killed_after(ana, "bundle", file, seconds):
            break
        assert not file.exists() or take(bo, file, dry_run=True), "there is a whole file, or none"
    pack(ana, file, overwrite=True)
    bo.registry  # noqa: B018 - makes the store
    before = state_of(bo.sandbox.path)
    for seconds in [step * (0.01 if FULL else 0.12) for step in range(80 if FULL else 4)]:
        finished = killed_after(bo, "unbundle", file, seconds)
        assert_clean(bo.sandbox.path)
        if finished:
            break
    assert state_of(bo.sandbox.path) == before
    for lock in (bo.sandbox.path / ".git" / "refs").rglob("*.lock"):
        os.utime(lock, (time.time() - 60,) * 2)
    take(bo, file)
    assert bo.log() == ana.log()
    assert bo.stages() == ana.stages()
    whole(bo)


def test_killed_before_every_move_of_refs(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    ana.run(experiment="churn", files={"a": b"a"})
    ana.model()
    ana.registry.promote("iris", 1, "Production", archive_existing=True)
    bo.model(extra=b"of bo")
    file = tmp_path / "x.bundle"
    pack(ana, file)
    for last in range(20):
        bo.registry  # noqa: B018 - makes the store
        try:
            with dying(last):
                take(bo, file)
        except Killed:
            bo.close()
            assert_clean(bo.sandbox.path)
            continue
        break
    assert last >= 3
    take(bo, file)
    assert set(ana.names()) < set(bo.names())
    assert set(bo.stages()) == {"1", "2"}
    whole(bo)


@pytest.mark.parametrize("limit", [4096, 1 << 20])
def test_a_full_disk(ana: Desk, bo: Desk, tmp_path: Path, limit: int) -> None:
    """No file may grow beyond a limit: first the git objects do not fit, then the files of runs."""
    ana.run("run", files={"big": BIG, "random": os.urandom(20_000)})
    for _ in range(8):
        ana.run(f"run {os.urandom(300).hex()}")
    file = tmp_path / "x.bundle"
    with limited(limit), pytest.raises(StorageError):
        pack(ana, file)
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
    pack(ana, file)
    take(bo, file, dry_run=True)
    before = {ref: at for ref, at in bo.refs().items() if "/remotes/" not in ref}
    with limited(limit), pytest.raises(StorageError):
        take(bo, file)
    assert {ref: at for ref, at in bo.refs().items() if "/remotes/" not in ref} == before
    assert len(take(bo, file).published.runs) == 9
    assert bo.log() == ana.log()
    whole(bo)


class limited:  # noqa: N801 - reads as what it does
    """In the block no file may grow beyond so many bytes."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size, self._before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
        signal.signal(signal.SIGXFSZ, self._handler)


def test_objects_that_were_here_in_part_are_begun_anew(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    from gittrack.store import files

    run = ana.run(files={"big": BIG})
    pack(ana, tmp_path / "x.bundle")
    (artifact,) = ana.tracker.artifacts(run)
    temp = bo.repo.objects.root / "tmp"
    files.make_dirs(temp)
    files.part_path(temp, artifact.digest).write_bytes(b"wrong" * 1000)
    take(bo, tmp_path / "x.bundle")
    assert bo.repo.objects.read(artifact.digest) == BIG
    assert not list(temp.iterdir())


def test_git_does_not_collect_what_is_on_its_way(ana: Desk, bo: Desk, tmp_path: Path) -> None:
    """A `git gc` between the pack and the refs: the pack has a keep until they are there."""
    ana.run(files={"a": b"a"})
    pack(ana, tmp_path / "x.bundle")
    program = bo.repo.git.program
    original, seen = program.over_network, []

    def collecting(*args: str, **options: object) -> object:
        seen.append(args[0])
        bo.sandbox.git("gc", "--quiet", "--prune=now")
        return original(*args, **options)  # type: ignore[arg-type]

    program.over_network = collecting  # type: ignore[assignment,method-assign]
    take(bo, tmp_path / "x.bundle")
    assert seen == ["fetch"]
    whole(bo)
