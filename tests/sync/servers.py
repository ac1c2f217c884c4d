"""Remotes over the network, on loopback: a real sshd, and git's http-backend behind a real web server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SEARCH = os.pathsep.join(["/usr/sbin", "/usr/local/sbin", "/sbin", os.environ.get("PATH", "")])
SSHD = shutil.which("sshd", path=_SEARCH)
LIGHTTPD = shutil.which("lighttpd", path=_SEARCH)


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as one:
            one.settimeout(0.5)
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            pytest.skip(f"the server does not run here: {log.read_text(errors='replace')[-300:]}")
        time.sleep(0.05)
    raise AssertionError("the server does not listen")


@contextmanager
def ssh_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A running sshd for whoever runs the tests; ``ssh://…`` in front of an absolute path."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("sshd is not installed")
    folder.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    port, log = free_port(), folder / "log"
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nLogLevel ERROR\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    assert SSHD is not None
    process = subprocess.Popen([SSHD, "-D", "-f", folder / "config", "-E", log])
    try:
        _wait(port, process, log)
        key = (folder / "host.pub").read_text().split()
        (folder / "known").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
        monkeypatch.setenv(
            "GIT_SSH_COMMAND", f"ssh -F none -i {folder}/user -o UserKnownHostsFile={folder}/known -o BatchMode=yes"
        )
        yield f"ssh://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def web_server(folder: Path, projects: Path, *, password: str | None = None) -> Iterator[str]:
    """A running lighttpd with git's http-backend over the repositories in ``projects``; the address in front of them.

    Args:
        folder: For its files.
        projects: Where the repositories are.
        password: Of the user ``ana``, if it shall ask for one.
    """
    backend = Path(subprocess.run(["git", "--exec-path"], capture_output=True, check=True, text=True).stdout.strip())
    if LIGHTTPD is None or not (backend / "git-http-backend").exists():
        pytest.skip("lighttpd or git's http-backend is not installed")
    folder.mkdir()
    port, log = free_port(), folder / "log"
    given = {"GIT_PROJECT_ROOT": projects, "GIT_HTTP_EXPORT_ALL": 1, "HOME": os.environ["HOME"]}
    if password is None:
        given["REMOTE_USER"] = "ana"
    environment = ", ".join(f'"{name}" => "{value}"' for name, value in given.items())
    lines = [
        'server.modules = ("mod_auth", "mod_authn_file", "mod_setenv", "mod_alias", "mod_cgi")',
        f'server.document-root = "{folder}"',
        f"server.port = {port}",
        'server.bind = "127.0.0.1"',
        f'server.errorlog = "{log}"',
        f'server.upload-dirs = ("{folder}")',
        f'alias.url = ("/git" => "{backend}/git-http-backend")',
        'cgi.assign = ("" => "")',
        f"setenv.add-environment = ({environment})",
    ]
    if password is not None:
        (folder / "users").write_text(f"ana:{password}\n")
        lines.append(f'auth.backend = "plain"\nauth.backend.plain.userfile = "{folder}/users"')
        lines.append('auth.require = ("/git" => ("method" => "basic", "realm" => "git", "require" => "valid-user"))')
    (folder / "config").write_text("\n".join(lines) + "\n")
    assert LIGHTTPD is not None
    process = subprocess.Popen([LIGHTTPD, "-D", "-f", folder / "config"], stderr=subprocess.DEVNULL)
    try:
        _wait(port, process, log)
        yield f"http://127.0.0.1:{port}/git"
    finally:
        process.terminate()
        process.wait()
