"""Remotes that do not answer, do not let anybody in, or refuse: what is wrong, what was transferred, what goes on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gittrack.errors import GittrackError, NetworkError, NotFoundError, PushRefusedError
from gittrack.sync import artifacts
from tests.cli.conftest import Cli, cli
from tests.conftest import Sandbox
from tests.sync.conftest import Desk, listed
from tests.sync.servers import free_port, ssh_server, web_server

__all__ = ["cli"]


def point(desk: Desk, url: str) -> None:
    """The remote is somewhere else now."""
    desk.sandbox.git("remote", "set-url", "origin", url)


def refused(desk: Desk, verb: str, kind: type[GittrackError] = NetworkError) -> tuple[str, str]:
    """Message and hint of a push (without files) or a pull that fails; nothing has changed, here or there."""
    before = desk.refs()
    with pytest.raises(kind) as caught:
        desk.push(files=False) if verb == "push" else desk.pull()
    assert type(caught.value) is kind
    assert caught.value.exit_status == 1
    assert desk.refs() == before
    return caught.value.message, str(caught.value.hint)


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_nobody_answers(ana: Desk, verb: str) -> None:
    ana.run()
    ports = free_port(), free_port()
    for url, why in {
        "https://no-such-host.invalid/x.git": "Could not resolve host: no-such-host.invalid",
        "ssh://no-such-host.invalid/x.git": "Could not resolve hostname no-such-host.invalid",
        f"http://127.0.0.1:{ports[0]}/x.git": f"Failed to connect to 127.0.0.1 port {ports[0]}",
        f"ssh://127.0.0.1:{ports[1]}/x.git": f"connect to host 127.0.0.1 port {ports[1]}: Connection refused",
    }.items():
        point(ana, url)
        message, hint = refused(ana, verb)
        assert message.startswith("remote `origin` cannot be reached: ")
        assert why in message
        assert message.endswith("; nothing was transferred")
        assert "the same command again goes on" in hint


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_there_is_no_repository(ana: Desk, tmp_path: Path, verb: str) -> None:
    ana.run()
    (tmp_path / "empty").mkdir()
    for url in (f"file://{tmp_path}/nothing.git", str(tmp_path / "empty")):
        point(ana, url)
        message, hint = refused(ana, verb)
        assert "is no git repository" in message
        assert message.endswith("; nothing was transferred")
        assert "git remote set-url" in hint


def test_a_web_server_that_does_not_have_it_or_does_not_let_write(ana: Desk, hub: Sandbox, tmp_path: Path) -> None:
    ana.run(files={"a.txt": b"a"})
    hub.git("config", "http.receivepack", "false")
    with web_server(tmp_path / "web", hub.path.parent) as address:
        point(ana, f"{address}/nothing.git")
        assert "is no git repository, or none that you may see" in refused(ana, "pull")[0]
        point(ana, f"{address}/{hub.path.name}")
        assert ana.pull().wanted == []
        message, hint = refused(ana, "push", PushRefusedError)
        assert "can be read, but does not let you write" in message
        assert message.endswith("403; nothing was pushed")
        assert "ask for the right to write" in hint


def test_a_web_server_without_lfs_says_every_way_out(ana: Desk, hub: Sandbox, tmp_path: Path) -> None:
    run = ana.run(files={"a.txt": b"a"})
    with web_server(tmp_path / "web", hub.path.parent) as address:
        point(ana, f"{address}/{hub.path.name}")
        with pytest.raises(NetworkError) as caught:
            ana.push()
        assert "has no LFS for this repository" in caught.value.message
        assert caught.value.message.endswith("; nothing was pushed")
        assert "git config gittrack.artifacts" in str(caught.value.hint)
        assert "gittrack push --no-artifacts" in str(caught.value.hint)
        assert set(listed(hub.path)) == {"refs/heads/main"}
        assert ana.push(files=False).runs == 1, "the first way out"
        ana.sandbox.git("config", "gittrack.artifacts", str(tmp_path / "shelf"))
        ana.tracker.writer(run).log_bytes(b"b", "b.txt")
        ana.close()
        assert ana.push().files == 2, "the other way out: a revision takes along what the run had before"
        assert len([path for path in (tmp_path / "shelf").rglob("*") if path.is_file()]) == 2


def test_ssh_without_lfs_names_a_folder_there(
    ana: Desk, hub: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana.run(files={"a.txt": b"a"})
    with ssh_server(tmp_path / "sshd", monkeypatch) as address:
        point(ana, f"{address}{hub.path}")
        with pytest.raises(NetworkError, match=r"git-lfs-authenticate.*; nothing was pushed") as caught:
            ana.push()
        assert f"git config gittrack.artifacts {address}{hub.path}-artifacts" in str(caught.value.hint)
        assert "gittrack push --no-artifacts" in str(caught.value.hint)
        assert ana.push(files=False).runs == 1


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_password_that_is_missing_or_wrong(ana: Desk, hub: Sandbox, tmp_path: Path, verb: str) -> None:
    ana.run()
    with web_server(tmp_path / "web", hub.path.parent, password="s3cret") as address:
        point(ana, f"{address}/{hub.path.name}")
        message, hint = refused(ana, verb)
        assert "does not let you in: could not read Username" in message
        point(ana, f"{address}/{hub.path.name}".replace("://", "://ana:wr0ng@"))
        wrong, _ = refused(ana, verb)
        assert "does not let you in: Authentication failed" in wrong
        assert "wr0ng" not in wrong
        for said in (message, wrong):
            assert said.endswith("; nothing was transferred")
        assert "once `git ls-remote` on it works, the same command goes on" in hint


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_ssh_refuses_the_key_or_does_not_know_the_machine(
    ana: Desk, hub: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    ana.run()
    with ssh_server(tmp_path / "sshd", monkeypatch) as address:
        point(ana, f"{address}{hub.path}")
        command, other = os.environ["GIT_SSH_COMMAND"], tmp_path / "other"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
        monkeypatch.setenv("GIT_SSH_COMMAND", command.replace(f"-i {tmp_path}/sshd/user", f"-i {other}"))
        message, hint = refused(ana, verb)
        assert "does not let you in" in message
        assert "Permission denied (publickey" in message
        assert "the same command goes on" in hint
        monkeypatch.setenv("GIT_SSH_COMMAND", command.replace(f"{tmp_path}/sshd/known", f"{tmp_path}/nobody"))
        message, hint = refused(ana, verb)
        assert "a machine that ssh does not know, or another one than before" in message
        assert "compare its key" in hint


def test_a_web_server_that_only_has_files(ana: Desk, bo: Desk, hub: Sandbox, tmp_path: Path) -> None:
    """Dumb http: git can read it, and so can we."""
    ana.run()
    ana.push()
    hub.git("update-server-info")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"],
        cwd=hub.path.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        with process:
            bo.sandbox.git("remote", "set-url", "origin", f"http://127.0.0.1:{port}/{hub.path.name}")
            for _ in range(200):
                with socket.socket() as one:
                    if one.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            assert bo.pull().published.runs == set(ana.names())
            bo.run()
            message, _ = refused(bo, "push", PushRefusedError)
            assert message.endswith(
                "can only be read: its web server knows nothing of git (dumb http); nothing was pushed"
            )
            process.terminate()
    finally:
        process.kill()


def test_a_hook_that_declines_is_quoted_without_what_commands_a_terminal(ana: Desk, hub: Sandbox) -> None:
    ana.model()
    hook = hub.path / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        '#!/bin/sh\nprintf "=====\\n\\033[31mprotected\\033[0m refs: ask\\007 the\\033]0;owned\\007 owner\\n\\n" >&2\n'
        "echo 'https://ana:s3cret@host/rules' >&2\nexit 1\n"
    )
    hook.chmod(0o755)
    with pytest.raises(PushRefusedError) as caught:
        ana.push()
    message = caught.value.message
    ledger = f"refs/runs/0/{ana.repo.writer}"
    assert message.startswith(
        f"remote `origin` refused `{ledger}`, `refs/tags/models/iris/v1`: pre-receive hook declined: "
        "protected refs: ask  the owner | https://"
    )
    assert "s3cret" not in message
    assert message.endswith("; 3 files of runs and 0 of 2 refs were pushed")
    assert "goes on" in str(caught.value.hint)
    assert set(listed(hub.path)) == {"refs/heads/main"}
    hook.unlink()
    report = ana.push()
    assert (report.runs, report.files) == (1, 0), "the files are there already"


def test_files_that_nobody_has(ana: Desk, bo: Desk, hub: Sandbox, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs come; the error names the files, where they were looked for, and who can help."""
    run = ana.run(files={"a.txt": b"a"})
    (item,) = ana.tracker.artifacts(run)
    ana.repo.objects.delete(item.digest)
    assert ana.push().absent == 1
    monkeypatch.chdir(bo.sandbox.path)
    answer = cli("pull", "--artifacts")
    assert answer.status == 1
    said = " ".join(answer.err.split())
    assert f"artifact object `{item.digest[:12]}` is neither in this clone nor at `{hub.path}`" in said
    assert "the runs and models are here" in said
    assert "hint: `gittrack push` in the clone that has them, then try again" in said
    assert set(bo.names()) == {run}
    with pytest.raises(NotFoundError, match="neither in this clone nor at"):
        artifacts.bring(bo.tracker, bo.tracker.artifacts(run))


def test_a_tag_that_was_rewritten_on_the_remote(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    """It is refused by name on both ways; everything else goes on."""
    ana.model()
    ana.push()
    bo.pull()
    other = ana.run("other")
    hub.git("update-ref", "refs/tags/models/iris/v1", "HEAD")
    pushed = ana.push()
    assert pushed.runs == 1
    assert "`gittrack models resolve` settles it" in pushed.skipped["refs/tags/models/iris/v1"]
    pulled = bo.pull()
    assert pulled.published.runs == {other}
    assert "never moved" in pulled.refused["refs/tags/models/iris/v1"]
    assert bo.stages() == ana.stages()
