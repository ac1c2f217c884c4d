"""The server as a git remote: stock git and gittrack through it, and what it does not take."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from gittrack.errors import AlreadyExistsError, InvalidValueError, PushRefusedError
from gittrack.server.hub import incoming
from gittrack.server.hub.roles import LOCAL, Caller, Grant, Role
from gittrack.store import layout, rewrite
from gittrack.store.refs import RefUpdate
from gittrack.sync import probe
from gittrack.types import ObjectId
from tests.conftest import MakeRepo, Sandbox, run_git
from tests.server.conftest import Answer, running
from tests.server.remote import Served, ask, serving
from tests.sync.conftest import Desk, assert_clean, closed_desks, hub, listed  # noqa: F401 - fixtures
from tests.sync.test_hostile import CASES, FILE, FOLDER, SYMLINK, WHO, Forge

FULL = os.environ.get("GITTRACK_FAULTS") == "full"


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


def raw_push(served: Served, ana: Desk, ref: str, new: str, oids: list[str], *, cut: int | None = None) -> bytes:
    """A push on the wire; with ``cut``, the connection ends that many bytes before the end of the pack."""
    pack = subprocess.run(
        ["git", "pack-objects", "--stdout", "-q"], cwd=ana.sandbox.path, capture_output=True, check=True,
        input="\n".join(oids).encode(),
    ).stdout  # fmt: skip
    command = f"{'0' * 40} {new} {ref}\0report-status object-format=sha1".encode()
    body = b"%04x" % (len(command) + 4) + command + b"0000" + pack
    head = (
        "POST /git/default/git-receive-pack HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: application/x-git-receive-pack-request\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port), 30) as wire:
        wire.sendall(head.encode() + body[: -cut if cut else None])
        if cut is not None:
            time.sleep(0.3)
            return b""
        return wire.makefile("rb").read()


def large(who: Desk, size: int) -> str:
    """A commit of so many bytes that cannot be packed."""
    who.sandbox.git("config", "core.compression", "0")
    who.sandbox.write("x.bin", os.urandom(size))
    return who.sandbox.commit("large")


def _children() -> list[str]:
    return [one for path in Path("/proc/self/task").iterdir() for one in (path / "children").read_text().split()]


def _is_git(process: str) -> bool:
    """Other tests leave processes, too; those are not the server's."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().startswith("git")
    return False


def quiet(served: Served) -> None:
    """Nothing is going on any more, and nothing is left of it."""
    folder = served.hub.tracker.repo.paths.common_dir / "gittrack.incoming"
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        running = [one for one in _children() if _is_git(one)]
        if not running and not (folder.exists() and list(folder.iterdir())):
            return
        time.sleep(0.05)
    raise AssertionError((running, list(folder.iterdir())))


def test_clients_that_go_away(hub: Sandbox, tmp_path: Path) -> None:  # noqa: F811
    with serving(hub.path, incoming.Bounds(processes=1, wait=20)) as served:
        ana = desk(served, tmp_path, "ana")
        new = large(ana, 6 << 20)
        before = listed(hub.path)
        oids = ana.sandbox.git("rev-list", "--objects", "HEAD", "--not", "origin/main").split()
        for cut in (1, 3 << 20):
            raw_push(served, ana, "refs/heads/large", new, [oid for oid in oids if len(oid) == 40], cut=cut)
            quiet(served)
            assert listed(hub.path) == before
        assert_clean(hub.path)
        ana.sandbox.git("push", "--quiet", "origin", "HEAD:large")
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", served.port), 30) as wire:
                wire.sendall(wants(new))
                assert wire.recv(1000).startswith(b"HTTP/1.1 200")
            quiet(served)
        run_git(tmp_path, "clone", "--quiet", "-b", "large", served.project(), "again")


def wants(oid: str) -> bytes:
    """A request for everything that leads to a commit."""
    line = f"want {oid} side-band-64k\n".encode()
    body = b"%04x" % (len(line) + 4) + line + b"00000009done\n"
    return (
        b"POST /git/default/git-upload-pack HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/x-git-upload-pack-request\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body


def test_clients_that_stand_still(hub: Sandbox, tmp_path: Path) -> None:  # noqa: F811
    with serving(hub.path, incoming.Bounds(processes=1, wait=20, silence=0.6)) as served:
        ana = desk(served, tmp_path, "ana")
        new = large(ana, 12 << 20)
        ana.sandbox.git("push", "--quiet", "origin", "HEAD:large")
        with socket.create_connection(("127.0.0.1", served.port), 30) as still:
            still.sendall(wants(new))  # and never reads
            run_git(tmp_path, "clone", "--quiet", "-b", "main", served.project(), "bo")
        with socket.create_connection(("127.0.0.1", served.port), 30) as still:
            still.sendall(b"POST /git/default/git-receive-pack HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n"
                          b"Content-Type: application/x-git-receive-pack-request\r\n\r\n00")  # fmt: skip
            assert still.makefile("rb").readline().split()[1] == b"504"
        quiet(served)


def test_a_server_that_is_busy_says_so(hub: Sandbox, tmp_path: Path) -> None:  # noqa: F811
    with serving(hub.path, incoming.Bounds(processes=1, wait=0.2)) as served:
        ana = desk(served, tmp_path, "ana")
        new = large(ana, 12 << 20)
        ana.sandbox.git("push", "--quiet", "origin", "HEAD:large")
        with socket.create_connection(("127.0.0.1", served.port), 30) as still:
            still.sendall(wants(new))
            time.sleep(0.3)
            answer = ask(served, "GET", "/git/default/info/refs?service=git-upload-pack")
            assert (answer.status, answer.headers["retry-after"]) == (503, "10")
        quiet(served)
        assert ask(served, "GET", "/git/default/info/refs?service=git-upload-pack").status == 200


_PROGRAM = """
import sys, time
from pathlib import Path
from tests.server.remote import serving
with serving(Path(sys.argv[1])) as served:
    print(served.port, flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def program(code: str, *args: str, log: Path, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A Python program that prints its port, and the process; killed afterwards."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *args], stdout=subprocess.PIPE, stderr=errors, cwd=folder
        )
    assert process.stdout is not None
    try:
        text = process.stdout.readline()
        assert text.strip().isdigit(), log.read_text(errors="replace")[-2000:]
        yield int(text), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.any_backend  # what it took is in git
def test_a_server_that_is_killed_loses_nothing_that_it_took(make_repo: MakeRepo, tmp_path: Path) -> None:
    bare = make_repo("bare")
    took: dict[str, str] = {}
    ana: Desk | None = None
    for turn in range(12 if FULL else 3):
        with program(_PROGRAM, str(bare.path), log=tmp_path / "log", folder=Path(__file__).parents[2]) as (
            port,
            killed,
        ):
            url = f"http://127.0.0.1:{port}/git/default"
            if ana is None:
                run_git(tmp_path, "clone", "--quiet", url, "ana")
                ana = Desk(Sandbox(tmp_path / "ana", "ordinary"))
            ana.sandbox.git("remote", "set-url", "origin", url)
            for ref, oid in took.items():  # or further, if the push that was cut off had come that far
                run_git(bare.path, "merge-base", "--is-ancestor", oid, ref)
            ana.run(f"run {turn}")
            ana.push(files=False)
            took = listed(bare.path)
            ana.run(f"lost {turn}")
            pushing = subprocess.Popen(
                ["git", "push", "--quiet", "origin", *listed(ana.sandbox.path, "refs/runs/")], cwd=ana.sandbox.path,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            time.sleep(0.02 + 0.03 * turn)
            killed.kill()
            pushing.wait()
        assert_clean(bare.path)
    with serving(bare.path) as served:
        assert ana is not None
        ana.sandbox.git("remote", "set-url", "origin", served.project())
        ana.push(files=False)
        ledger = next(ref for ref in listed(ana.sandbox.path) if ref.startswith("refs/runs/"))
        assert listed(bare.path)[ledger] == listed(ana.sandbox.path)[ledger]


# -- too much ----------------------------------------------------------------------------------------------------------


def test_bodies_that_are_packed(served: Served, ana: Desk) -> None:
    kind = "application/x-git-upload-pack-request"

    def post(data: bytes, coding: str = "gzip", service: str = "git-upload-pack") -> Answer:
        sent = f"application/x-{service}-request"
        return ask(served, "POST", f"/git/default/{service}", data, content_type=sent, content_encoding=coding)

    good = wants(ana.sandbox.git("rev-parse", "HEAD")).partition(b"\r\n\r\n")[2]
    assert b"PACK" in post(gzip.compress(good)).body
    assert b"PACK" in ask(served, "POST", "/git/default/git-upload-pack", good, content_type=kind).body
    assert post(gzip.compress(bytes(70 << 20))).status == 413, "a bomb"
    assert post(gzip.compress(good)[:-4]).status == 400
    assert post(gzip.compress(good) + b"more").status == 400
    assert post(good).status == 400
    assert post(good, "br").status == 415
    assert (post(gzip.compress(b"0000"), service="git-receive-pack").status) == 200
    for bad in (b"", b"zzzz", b"0003", b"0001", b"0010", b"ffff", b"0032" + b"x" * 46, b"000bpush-c0000"):
        assert post(gzip.compress(bad), service="git-receive-pack").status == 400, bad
    assert ask(served, "POST", "/git/default/git-upload-pack", good).status == 404, "only git asks here"


def test_objects_and_packs_that_are_too_large(hub: Sandbox, tmp_path: Path) -> None:  # noqa: F811
    zeros = (300 if FULL else 40) << 20
    with serving(hub.path, incoming.Bounds(object=20 << 20, push=2 << 20)) as served:
        ana = desk(served, tmp_path, "ana")
        store = ana.repo.git

        def offer(data: bytes, name: str) -> str:
            batch = store.batch()
            commit = batch.add_commit(batch.add_tree([("x", FILE, batch.add_blob(data))]), [], "x\n", WHO, 1)
            store.publish(batch, [RefUpdate(f"refs/heads/{name}", None, commit)])
            command = ["git", "push", "origin", name]
            done = subprocess.run(command, cwd=ana.sandbox.path, capture_output=True, check=False)
            quiet(served)
            return f"{done.returncode} {done.stderr.decode()}"

        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        said = offer(bytes(zeros), "zeros")
        assert said.startswith("1")
        assert f"has {zeros:,} bytes" in said
        assert "git-lfs" in said
        assert "the pack has more than" in offer(os.urandom(3 << 20), "random")
        grown = (resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - before) >> 10
        print(f"{zeros >> 20} MiB of zeros: {grown} MiB")
        assert offer(b"small", "small").startswith("0")
        assert [ref for ref in listed(hub.path) if ref.startswith("refs/heads/")] == [
            "refs/heads/main",
            "refs/heads/small",
        ]
        assert_clean(hub.path)


# -- projects, and settings --------------------------------------------------------------------------------------------


def test_several_projects(served: Served, ana: Desk, tmp_path: Path) -> None:
    served.projects.create("other")
    with pytest.raises(AlreadyExistsError):
        served.projects.create("other")
    for bad in ("", "..", "a/b", "A", "a.git", "-x", ".x", "a..b", "x.", "a b", "é", "a.lock", "x" * 64, "a\n"):
        with pytest.raises(InvalidValueError):
            served.projects.create(bad)
        assert ask(served, "GET", f"/git/{quote(bad, safe='')}/info/refs?service=git-upload-pack").status == 404
    assert served.projects.names() == ["default", "other"]
    bo = desk(served, tmp_path, "bo")
    bo.sandbox.git("remote", "set-url", "origin", served.project("other"))
    bo.run("of another project", files={"x": b"x"})
    assert bo.push().files == 1
    assert ana.pull().published.runs == set()
    bo.sandbox.git("push", "--quiet", "origin", "main")
    run_git(tmp_path, "clone", "--quiet", "-b", "main", served.project("other"), "cy")
    assert (tmp_path / "cy" / "train.py").exists()


def test_a_project_has_a_rest_server_of_its_own(served: Served, tmp_path: Path) -> None:
    """What it records is fetched from the one server; that one's REST API shows the default project only."""
    folder = served.projects.create("other")
    with running(folder) as rest:
        run_id = rest.new_run(run_name="by REST")
        rest.post("runs/update", {"run_id": run_id, "status": "FINISHED"})
        rest.hub.tracker.flush()
        bo = desk(served, tmp_path, "bo")
        bo.sandbox.git("remote", "set-url", "origin", served.project("other"))
        bo.pull()
        assert bo.repo.state(run_id).field("name") == "by REST"
    assert run_id not in served.hub.tracker.repo.all_run_ids()


def test_a_remote_check_finds_out_what_it_takes(served: Served, ana: Desk) -> None:
    found = probe.check(ana.repo, ana.remote())
    assert (found.writable, found.tags, found.atomic, found.why, found.suggestion) == (True, True, True, "", "")
    assert "check" not in str(listed(served.hub.tracker.repo.paths.common_dir))


def test_code_can_be_kept_elsewhere(hub: Sandbox, tmp_path: Path) -> None:  # noqa: F811
    with serving(hub.path, incoming.Bounds(code=False)) as served:
        ana = desk(served, tmp_path, "ana")
        ana.run()
        ana.push(files=False)
        ana.sandbox.commit("third")
        done = subprocess.run(["git", "push"], cwd=ana.sandbox.path, capture_output=True, check=False)
        assert done.returncode == 1
        assert b"runs and models only" in done.stderr


def test_the_branch_of_a_work_tree_is_not_pulled_from_under_it(git_repo: Sandbox, tmp_path: Path) -> None:
    with serving(git_repo.path) as served:
        ana = desk(served, tmp_path, "ana")
        ana.sandbox.commit("third")
        done = subprocess.run(["git", "push"], cwd=ana.sandbox.path, capture_output=True, check=False)
        assert b"checked out on the server" in done.stderr
        ana.sandbox.git("push", "--quiet", "origin", "main:other")
        assert git_repo.git("status", "--porcelain", "--untracked-files=no") == ""


def test_hooks_and_settings_of_the_repository_have_no_say(served: Served, ana: Desk, bo: Desk, hub: Sandbox) -> None:  # noqa: F811
    for name in ("pre-receive", "update", "post-receive", "post-update", "reference-transaction", "proc-receive"):
        hook = hub.path / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\ntouch pwned\nexit 1\n")
        hook.chmod(0o755)
    for key in ("uploadpack.packObjectsHook", "core.fsmonitor", "receive.procReceiveRefs", "core.alternateRefsCommand"):
        hub.git("config", key, "touch pwned")
    hub.git("config", "uploadpack.allowAnySHA1InWant", "true")
    hub.git("config", "receive.denyCurrentBranch", "ignore")
    ana.run()
    ana.push(files=False)
    assert bo.pull().published.runs
    assert not list(hub.path.rglob("pwned"))


def test_objects_of_sha256(make_repo: MakeRepo, tmp_path: Path) -> None:
    with serving(make_repo("sha256").path) as served:
        ana = desk(served, tmp_path, "ana")
        ana.model()
        ana.push()
        assert desk(served, tmp_path, "bo").pull().published.runs == set(ana.names())


def test_only_the_smart_protocol(served: Served) -> None:
    assert ask(served, "GET", "/git/default/info/refs").status == 403
    assert ask(served, "GET", "/git/default/info/refs?service=git-upload-archive").status == 403
    for path in ("HEAD", "objects/info/packs", "config", "../default/config", "objects/pack/x.pack", "git-upload-pack"):
        assert ask(served, "GET", f"/git/default/{path}").status in (404, 405)


# -- deltas, purges, names ---------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """A size in a delta (https://git-scm.com/docs/pack-format)."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def pack_of(*objects: tuple[int, bytes, bytes]) -> bytes:
    """A pack of (type, what stands before the data, data)."""
    data = b"PACK" + struct.pack(">II", 2, len(objects))
    for kind, before, content in objects:
        size = len(content)
        head = [kind << 4 | size & 15]
        size >>= 4
        while size:
            head[-1] |= 0x80
            head.append(size & 0x7F)
            size >>= 7
        data += bytes(head) + before + zlib.compress(content)
    return data + hashlib.sha1(data).digest()


def test_deltas_that_say_they_are_huge(hub: Sandbox) -> None:  # noqa: F811
    base = bytes(1 << 20)
    name = hashlib.sha1(b"blob %d\0" % len(base) + base).digest()
    copy = b"\xf0\xff\xff\x0f"  # 0x0fffff bytes from the beginning
    times = 3000
    delta = varint(len(base)) + varint(times * 0x0FFFFF) + copy * times
    with serving(hub.path, incoming.Bounds(memory=512 << 20)) as served:
        command = f"{'0' * 40} {'1' * 40} refs/heads/bomb\0report-status object-format=sha1".encode()
        body = b"%04x" % (len(command) + 4) + command + b"0000" + pack_of((3, b"", base), (7, name, delta))
        kind = "application/x-git-receive-pack-request"
        answer = ask(served, "POST", "/git/default/git-receive-pack", body, content_type=kind)
        assert b"ng refs/heads/bomb" in answer.body, answer.body
        assert b"memory" in answer.body
        quiet(served)
        assert_clean(hub.path)


def test_purging_takes_a_maintainer(served: Served, ana: Desk, team: dict[str, str], tmp_path: Path) -> None:
    dee = desk(served, tmp_path, "dee", "writes")
    gone = dee.run("to be purged")
    dee.push(files=False)
    dee.tracker.delete_run(gone)
    dee.tracker.flush()
    rewrite.purge(dee.repo, gone)
    with pytest.raises(PushRefusedError, match="maintainer"):
        dee.push(files=False)
    dee.sandbox.git("remote", "set-url", "origin", served.project(token="local"))
    dee.push(files=False)
    assert gone not in {run.info.run_id for run in served.hub.client.search_runs(["0"])}


def test_a_model_is_not_taken_over_by_its_name(served: Served, ana: Desk, team: dict[str, str], tmp_path: Path) -> None:
    dee = desk(served, tmp_path, "dee", "writes")
    dee.pull()
    dee.registry.rename_model("a-iris", "z-iris")
    with pytest.raises(PushRefusedError, match="maintainer for model `a-iris`"):
        dee.push(files=False)


def test_an_experiment_is_not_taken_over_by_its_id(
    served: Served, ana: Desk, team: dict[str, str], tmp_path: Path
) -> None:
    """Bo, who may write to `team-a…` only, claims the id that `to-come` will have."""
    bo = desk(served, tmp_path, "bo", "team")
    bo.run("mine", experiment="to-come")
    bo.repo.edit_experiment(layout.experiment_id_of("to-come"), {"name": "team-a/to-come"}, 1)
    with pytest.raises(PushRefusedError, match="another id"):
        bo.push(files=False)


def test_ledgers_that_were_folded_may_go(served: Served, ana: Desk, bo: Desk) -> None:
    bo.run("of bo")
    bo.push(files=False)
    ana.pull()
    ledgers = set(listed(served.hub.tracker.repo.paths.common_dir, "refs/runs/"))
    rewrite.fold(ana.repo, older_than_s=-1)
    ana.push(files=False)
    after = set(listed(served.hub.tracker.repo.paths.common_dir, "refs/runs/"))
    assert ledgers - after
    assert {run.info.run_name for run in served.hub.client.search_runs(["0"])} == {"of bo"}


@pytest.mark.parametrize("options", [("--depth=1",), ("--filter=blob:none",), ("--bare",)])
def test_clones_of_every_kind(served: Served, ana: Desk, tmp_path: Path, options: tuple[str, ...]) -> None:
    ana.run("of ana")
    ana.push(files=False)
    run_git(tmp_path, "clone", "--quiet", *options, served.project(), "odd")
    odd = Desk(Sandbox(tmp_path / "odd", "ordinary"))
    assert odd.pull().published.runs == set(ana.names())
    odd.run("of the odd one")
    odd.push(files=False)
    assert ana.pull().published.runs
