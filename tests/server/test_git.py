"""The server as a git remote: stock git and gittrack through it, and what it does not take."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gittrack.store import layout
from gittrack.types import ObjectId

from tests.conftest import Sandbox, run_git
from tests.server.remote import Served, serving
from tests.sync.conftest import Desk, assert_clean, closed_desks, hub, listed  # noqa: F401 - fixtures
from tests.sync.test_hostile import CASES, FILE, FOLDER, SYMLINK, WHO, Forge


@pytest.fixture
def served(hub: Sandbox) -> Iterator[Served]:  # noqa: F811
    """A server of the bare repository that has the project's code."""
    with serving(hub.path) as found:
        yield found


def desk(served: Served, folder: Path, name: str, token: str | None = None) -> Desk:
    """Somebody's clone of the default project."""
    run_git(folder, "clone", "--quiet", served.project(token=token), name)
    sandbox = Sandbox(folder / name, "ordinary")
    sandbox.git("config", "user.name", name.capitalize())
    return Desk(sandbox)


@pytest.fixture
def ana(served: Served, tmp_path: Path) -> Desk:
    return desk(served, tmp_path, "ana")


@pytest.fixture
def bo(served: Served, tmp_path: Path) -> Desk:
    return desk(served, tmp_path, "bo")


def test_runs_and_models_through_the_server(served: Served, ana: Desk, bo: Desk, hub: Sandbox) -> None:  # noqa: F811
    ana.model()
    ana.registry.promote("iris", 1, "Production", archive_existing=True)
    ana.registry.describe_model("iris", "flowers")
    report = ana.push()
    assert (report.runs, report.files) == (1, 3)
    assert bo.pull().published.runs == set(ana.names())
    assert bo.stages() == ana.stages()
    bo.run("of bo", files={"x.txt": b"x"})
    bo.push()
    ana.pull()
    assert ana.log() == bo.log()
    assert bo.pull().wanted == []
    assert_clean(hub.path)
    assert set(served.hub.client.search_runs(["0"])[0].data.metrics) == {"acc"}
    assert served.hub.client.get_model_version("iris", "1").current_stage == "Production"
    assert not list((hub.path / "gittrack.incoming").iterdir())


def test_code_goes_through_stock_git(served: Served, ana: Desk, bo: Desk) -> None:
    ana.sandbox.git("checkout", "--quiet", "-b", "side")
    head = ana.sandbox.commit("third", x_py="x = 1\n")
    ana.sandbox.git("tag", "-a", "v1", "-m", "one")
    ana.sandbox.git("push", "--quiet", "origin", "side", "v1")
    bo.sandbox.git("fetch", "--quiet", "origin")
    assert bo.sandbox.git("rev-parse", "origin/side") == head
    assert bo.sandbox.git("rev-parse", "v1^{commit}") == head


# -- what is not taken -------------------------------------------------------------------------------------------------


@dataclass
class Eve:
    """Somebody who may write, and pushes what gittrack would never make.

    Attributes:
        forge: Makes it, in her own bare repository.
        served: The server.
        url: Where she pushes to.
    """

    forge: Forge
    served: Served
    url: str

    @property
    def folder(self) -> Path:
        return self.forge.hub.path

    def push(self, *specs: str, url: str | None = None) -> tuple[int, str]:
        """Stock git's push: its exit status, and what it says."""
        done = subprocess.run(
            ["git", "-c", "push.followTags=false", "push", "--porcelain", url or self.url, *specs],
            cwd=self.folder, capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")

    def refused(self, *specs: str, why: str = "") -> str:
        """Nothing of this is taken, and what is there stays as it is; what git says."""
        folder = self.served.hub.tracker.repo.paths.common_dir
        before, packs = listed(folder), sorted((folder / "objects" / "pack").iterdir())
        status, said = self.push(*specs)
        assert status == 1, said
        assert why in said
        assert listed(folder) == before
        assert sorted((folder / "objects" / "pack").iterdir()) == packs
        assert not list((folder / "gittrack.incoming").iterdir())
        return said


@pytest.fixture
def eve(served: Served, ana: Desk, tmp_path: Path) -> Eve:
    """Eve has cloned all that there is: a good run of Ana's, and a model with a stage."""
    run_id = ana.run("good", files={"a.txt": b"a"})
    ana.model()
    ana.registry.promote("iris", 1, "Production", archive_existing=True)
    ana.registry.describe_model("iris", "flowers")
    ana.push(files=False)
    commit = ObjectId(str(ana.tracker.get_run(run_id).commit))
    run_git(tmp_path, "clone", "--quiet", "--mirror", served.project(), "eve.git")
    sandbox = Sandbox(tmp_path / "eve.git", "bare")
    ref = next(ref for ref in listed(sandbox.path) if ref.startswith("refs/runs/"))
    return Eve(Forge(sandbox, run_id, commit, ref), served, served.project())


def test_names_that_git_refuses(eve: Eve) -> None:
    for number, name in enumerate((".git", ".GIT", "..", "a/b", "/abs", ".")):
        bad = (name, FILE, eve.forge.blob(b"x"))
        eve.refused(eve.forge.offer(eve.forge.run(code=[bad]), number=number), why="git refuses the objects")


@pytest.mark.parametrize("where", ["code", "artifacts", "ledger", ".gittrack"])
def test_names_that_git_lets_pass(eve: Eve, where: str) -> None:
    forge = eve.forge
    pointer = forge.blob(layout.pointer("0" * 64, 1))  # type: ignore[arg-type]
    refs = []
    for number, name in enumerate(("..\\x", "x" * 4096, "a\x1b[2Jb", "a\\..\\..\\b")):
        bad = (name, FILE, pointer)
        if where == "code":
            refs.append(forge.offer(forge.run(code=[bad]), number=number))
        elif where == "ledger":
            refs.append(forge.offer(forge.run(), bad, number=number))
        else:
            inside = bad if where == ".gittrack" else (layout.ARTIFACTS, FOLDER, forge.tree([bad]))
            refs.append(forge.offer(forge.run(inside=[inside]), number=number))
    said = eve.refused(*refs)
    assert said.count("[remote rejected]") == len(refs)
    assert "\x1b" not in said


def test_runs_that_cannot_be(eve: Eve) -> None:
    words = {}
    for number, (make, word) in enumerate(CASES.values()):
        words[eve.forge.offer(make(eve.forge), number=number)] = word
    said = eve.refused(*words)
    for ref, word in words.items():
        row = next(row for row in said.splitlines() if row.startswith("!") and f"{ref}\t" in row)
        assert "[remote rejected]" in row
        assert word in row


def test_modes_that_cannot_be(eve: Eve) -> None:
    forge, refs = eve.forge, []
    for number, where in enumerate(("artifacts", "ledger", ".gittrack", "metrics")):
        bad = ("x", SYMLINK, forge.blob(b"/etc/passwd"))
        if where == "ledger":
            refs.append(forge.offer(forge.run(), bad, number=number))
        else:
            inside = bad if where == ".gittrack" else (where, FOLDER, forge.tree([bad]))
            refs.append(forge.offer(forge.run(inside=[inside]), number=number))
    artifacts = forge.tree([("model.bin", FILE, forge.blob(b"no pointer\n"))])
    refs.append(forge.offer(forge.run(inside=[(layout.ARTIFACTS, FOLDER, artifacts)]), number=9))
    eve.refused(*refs)


def test_refs_that_are_none_of_a_pushs(eve: Eve) -> None:
    head = "HEAD"
    for ref in ("refs/notes/commits", "refs/replace/" + "1" * 40, "refs/stash", "refs/gittrack/live/x", "refs/runs/0/E",
                "refs/gittrack/remotes/origin/runs/0/eve", "refs/gittrack/incoming/x", "refs/runs/x/eve", "refs/x/y",
                "refs/heads/gittrack/runs/0/eve", "refs/runs/0/a/b", "refs/tags/models/x/v01", "refs/bisect/bad",
                f"refs/runs/0/{eve.served.hub.tracker.repo.writer}", "refs/gittrack/registry/E"):  # fmt: skip
        eve.refused(f"{head}:{ref}")


def test_ledgers_tags_and_branches_at_something_else(eve: Eve) -> None:
    forge = eve.forge
    blob = forge.blob(b"blob")
    tree = forge.tree([("x", FILE, blob)])
    head = ObjectId(forge.hub.git("rev-parse", "HEAD"))
    tag = forge.batch.add_tag("x", head, "tag\n", WHO, 1)
    forge.publish({"refs/eve/1": blob, "refs/eve/2": tree, "refs/eve/3": tag, "refs/eve/4": head})
    specs = [f"refs/eve/{number}:refs/runs/0/eve-{number}" for number in range(1, 5)]
    specs += ["refs/eve/4:refs/gittrack/registry/eve-5", "refs/eve/4:refs/tags/models/x/v1"]
    specs += ["refs/eve/3:refs/tags/models/x/v2"]
    eve.refused(*specs)
    old = listed(forge.hub.path)["refs/tags/models/iris/v1"]
    eve.refused(f"{old}:refs/tags/models/iris/v9", f"{old}:refs/tags/models/other/v1", why="says that it is")


def test_nothing_is_moved_back_or_away(eve: Eve) -> None:
    forge = eve.forge
    documents = next(ref for ref in listed(forge.hub.path) if ref.startswith(layout.DOCUMENT_PREFIX))
    for ref in (forge.ref, "refs/tags/models/iris/v1", "refs/tags/models/iris/production/1", documents,
                "refs/heads/main"):  # fmt: skip
        eve.refused(f":{ref}")
    other = forge.ledger({"f" * 32: forge.run()})
    forge.publish({"refs/eve/1": other})
    assert "would be lost" in eve.refused(f"+refs/eve/1:{forge.ref}")
    tags = listed(forge.hub.path)
    one, other_tag = "refs/tags/models/iris/v1", "refs/tags/models/iris/production/1"
    assert "never moved" in eve.refused(f"+{tags[one]}:{other_tag}")
    assert "never moved" in eve.refused(f"+{tags[other_tag]}:{one}")
    alone = forge.hub.git("commit-tree", "-m", "alone", forge.hub.git("rev-parse", "HEAD^{tree}"))
    eve.push(f"{alone}:refs/heads/side")
    later = forge.hub.git("commit-tree", "-m", "later", forge.hub.git("rev-parse", "HEAD^{tree}"))
    assert "fast-forward" in eve.refused(f"+{later}:refs/heads/side")


def test_a_ledger_that_does_not_keep_its_runs(eve: Eve) -> None:
    forge = eve.forge
    run = forge.run()
    forge.publish({"refs/eve/1": run})
    forge.publish({"refs/runs/0/eve-1": forge.ledger({"f" * 32: run}, parents=[])})
    eve.refused("refs/runs/0/eve-1")
    head = ObjectId(forge.hub.git("rev-parse", "HEAD"))
    forge.publish({"refs/runs/0/eve-2": forge.ledger({"f" * 32: run}, parents=[run, head])})
    eve.refused("refs/runs/0/eve-2", why="none of its runs")


def test_a_model_that_differs_by_case(eve: Eve, ana: Desk, tmp_path: Path) -> None:
    eve.refused("refs/tags/models/iris/v1:refs/tags/models/IRIS/v1", why="upper and lower case")
