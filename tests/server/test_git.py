"""The server as a git remote: stock git and gittrack through it, and what it does not take."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gittrack.errors import PushRefusedError
from gittrack.server.hub.roles import LOCAL, Caller, Grant, Role
from gittrack.store import layout
from gittrack.store.refs import RefUpdate
from gittrack.types import ObjectId
from tests.conftest import Sandbox, run_git
from tests.server.remote import Served, ask, serving
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


# -- who may what ------------------------------------------------------------------------------------------------------

TEAM = Caller("bo", (Grant(Role.WRITER, "team-a*", "a-*"),), "token")
READS = Caller("cy", (Grant(Role.READER, "*", "*"),), "token")
WRITES = Caller("dee", (Grant(Role.WRITER, "*", "*"),), "token")
ALL_BUT = Caller("flo", (Grant(Role.WRITER, "*", "*"), Grant(None, "secret")), "token")


@pytest.fixture
def team(served: Served, ana: Desk) -> dict[str, str]:
    """Ana's runs: one of ``team-a``, one that is ``secret``; their ids.  From now on the server asks who it is."""
    ids = {"team": ana.run("of the team", experiment="team-a"), "secret": ana.run("secret", experiment="secret")}
    ana.model("a-iris")
    ana.model("b-iris")
    ana.push(files=False)
    served.callers |= {"team": TEAM, "reads": READS, "writes": WRITES, "but": ALL_BUT, "local": LOCAL}
    return ids


def seen(served: Served, token: str, version: str = "2") -> set[str]:
    """The refs that somebody is shown."""
    said = run_git(Path("/"), "-c", f"protocol.version={version}", "ls-remote", served.project(token=token))
    return {row.partition("\t")[2].removesuffix("^{}") for row in said.splitlines()}


def test_who_is_nobody_is_asked_who_he_is(served: Served, team: dict[str, str]) -> None:
    for service in ("git-upload-pack", "git-receive-pack"):
        answer = ask(served, "GET", f"/git/default/info/refs?service={service}")
        assert (answer.status, answer.headers["www-authenticate"][:5]) == (401, "Basic")
        assert ask(served, "POST", f"/git/default/{service}", b"0000").status == 401
        assert ask(served, "GET", f"/git/nothing/info/refs?service={service}").status == 401, (
            "nor is told what is there"
        )
    assert ask(served, "GET", "/git/default/info/refs?service=git-upload-pack", token="wrong").status == 401
    assert ask(served, "GET", "/git/default/info/refs?service=git-receive-pack", token="reads").status == 403


def test_refs_are_shown_to_those_who_may_read_them(served: Served, ana: Desk, team: dict[str, str]) -> None:
    everything = seen(served, "reads")
    ledgers = {name: layout.experiment_id_of(name) for name in ("team-a", "secret")}
    secret = {ref for ref in everything if f"/{ledgers['secret']}/" in ref}
    assert secret
    for version in ("0", "2"):
        assert seen(served, "reads", version) == everything
        assert seen(served, "but", version) == {ref for ref in everything - secret if "registry" not in ref}
        assert seen(served, "team", version) == {
            ref for ref in everything if f"/{ledgers['team-a']}/" in ref or "models/a-iris" in ref
        }


def test_what_is_hidden_is_not_had_by_its_name(served: Served, ana: Desk, team: dict[str, str], tmp_path: Path) -> None:
    commit = str(ana.tracker.get_run(team["secret"]).commit)
    ledger = next(oid for ref, oid in ana.refs("refs/runs/").items() if layout.experiment_id_of("secret") in ref)
    for token in ("team", "but"):
        run_git(tmp_path, "init", "--quiet", token)
        for oid in (commit, ledger):
            for version in ("0", "2"):
                command = ["git", "-c", f"protocol.version={version}", "fetch", served.project(token=token), oid]
                done = subprocess.run(command, cwd=tmp_path / token, capture_output=True, check=False)
                assert done.returncode != 0, done.stderr
    mine = str(ana.tracker.get_run(team["team"]).commit)
    run_git(tmp_path / "team", "fetch", "--quiet", served.project(token="team"), "+refs/runs/*:refs/runs/*")
    assert run_git(tmp_path / "team", "cat-file", "-t", mine) == "commit"


def test_pushes_need_their_roles(served: Served, ana: Desk, team: dict[str, str], tmp_path: Path) -> None:
    bo = desk(served, tmp_path, "bo", "team")
    assert bo.pull().published.runs >= {team["team"]}
    assert team["secret"] not in bo.names()
    new = bo.run("of bo", experiment="team-a")
    bo.run("in a new experiment", experiment="team-a/x")
    assert bo.push(files=False).runs == 2
    found = served.hub.client.search_runs([layout.experiment_id_of("team-a")])
    assert {one.info.run_id for one in found} == {team["team"], new}
    bo.run("of none of his", experiment="team-b")
    with pytest.raises(PushRefusedError, match="writer for experiment `team-b`"):
        bo.push(files=False)
    flo = desk(served, tmp_path, "flo", "but")
    flo.run("mine", experiment="other")
    flo.push(files=False)
    flo.run("secret", experiment="secret")
    with pytest.raises(PushRefusedError, match="secret"):
        flo.push(files=False)


def test_stages_take_a_maintainer(served: Served, ana: Desk, team: dict[str, str], tmp_path: Path) -> None:
    dee = desk(served, tmp_path, "dee", "writes")
    dee.pull()
    dee.model("c-iris")
    dee.push(files=False)
    dee.registry.promote("a-iris", 1, "Production", archive_existing=True)
    with pytest.raises(PushRefusedError, match="maintainer for model `a-iris`"):
        dee.push(files=False)
    dee.sandbox.git("remote", "set-url", "origin", served.project(token="local"))
    dee.push(files=False)
    assert served.hub.client.get_model_version("a-iris", "1").current_stage == "Production"


def test_what_is_hidden_is_not_had_by_a_push(served: Served, ana: Desk, team: dict[str, str], tmp_path: Path) -> None:
    """A ledger of one's own that lists a commit one was not given (gitnamespaces(7), "SECURITY")."""
    secret = ObjectId(str(ana.tracker.get_run(team["secret"]).commit))
    store = ana.repo.git
    batch = store.batch()
    rows = [(team["secret"][2:], 0o160000, secret)]
    table = batch.add_tree([(team["secret"][:2], 0o040000, batch.add_tree(rows))])
    ledger = batch.add_commit(table, [secret], "mine now\n", WHO, 1)
    store.publish(batch, [RefUpdate("refs/eve/1", None, ledger)])
    target = f"refs/runs/{layout.experiment_id_of('team-a')}/eve"
    # The thief has only the ledger commit and its tables; what it lists the thief knows by name.
    pack = subprocess.run(
        ["git", "pack-objects", "--stdout", "-q"], cwd=ana.sandbox.path, capture_output=True, check=True,
        input="\n".join([ledger, table, batch.add_tree(rows)]).encode(),
    ).stdout  # fmt: skip
    command = f"{'0' * 40} {ledger} {target}\0report-status object-format=sha1".encode()
    body = b"%04x" % (len(command) + 4) + command + b"0000" + pack
    kind = "application/x-git-receive-pack-request"
    answer = ask(served, "POST", "/git/default/git-receive-pack", body, "team", content_type=kind)
    assert (answer.status, b"ng " in answer.body) == (200, True), answer.body
    assert b"objects are missing" in answer.body
    assert target not in seen(served, "local")


# -- races, and ends in the middle -------------------------------------------------------------------------------------


def test_one_version_goes_to_one_of_two(served: Served, ana: Desk, bo: Desk, hub: Sandbox) -> None:  # noqa: F811
    ana.model(extra=b"0")
    ana.push(files=False)
    bo.pull()
    for who in (ana, bo):
        who.model(extra=who.sandbox.path.name.encode())
    go = threading.Barrier(2)
    said: dict[str, int] = {}

    def push(who: Desk) -> None:
        go.wait()
        command = ["git", "push", "--quiet", "origin", "refs/tags/models/iris/v2"]
        said[who.sandbox.path.name] = subprocess.run(
            command, cwd=who.sandbox.path, capture_output=True, check=False
        ).returncode

    threads = [threading.Thread(target=push, args=(who,)) for who in (ana, bo)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said.values()) == [0, 1]
    for who in (ana, bo):
        who.push(files=False)
        who.pull()
    ana.pull()
    assert ana.stages() == bo.stages()
    assert set(ana.stages()) == {"1", "2", "3"}
    assert_clean(hub.path)
