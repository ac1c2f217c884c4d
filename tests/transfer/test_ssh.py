"""Artifacts in a folder on another machine: a real sshd on loopback."""

import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gittrack.errors import CorruptError, NetworkError
from gittrack.sync import artifacts, depots
from tests.transfer import servers
from tests.transfer.conftest import LARGE, Clone

servers.needs("sshfs", "asyncssh")

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
pytestmark = pytest.mark.skipif(SSHD is None or shutil.which("ssh-keygen") is None, reason="sshd is not installed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key of the machine and one of the person."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("host", "id_ed25519"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "id_ed25519.pub").rename(folder / "authorized")
    return folder


@pytest.fixture(scope="module")
def port(keys: Path) -> Iterator[int]:
    """A running sshd; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = int(probe.getsockname()[1])
    Path("/run/sshd").mkdir(exist_ok=True)
    (keys / "config").write_text(
        f"Port {number}\nListenAddress 127.0.0.1\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/authorized\n"
        "PidFile none\nStrictModes no\nPasswordAuthentication no\nUsePAM no\nPermitRootLogin yes\n"
        "Subsystem sftp internal-sftp\n"
    )
    with (keys / "log").open("wb") as log:
        process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(keys / "config")], stderr=log)
    try:
        for _ in range(100):
            if process.poll() is not None:
                pytest.skip(f"sshd does not run here: {(keys / 'log').read_text(errors='replace')[-200:]}")
            try:
                socket.create_connection(("127.0.0.1", number), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield number
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def known(keys: Path, port: int, sealed_environment: Path) -> Path:
    """The person's `~/.ssh`, where the machine is known."""
    folder = sealed_environment / ".ssh"
    folder.mkdir(mode=0o700)
    shutil.copy(keys / "id_ed25519", folder / "id_ed25519")
    key = (keys / "host.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(key)}\n")
    return folder


@pytest.fixture
def shelf(port: int, known: Path, tmp_path: Path, ana: Clone, ben: Clone) -> Path:
    """A folder there that both clones use."""
    folder = tmp_path / "shelf"
    for clone in (ana, ben):
        clone.git("config", "gittrack.artifacts", f"ssh://{getpass.getuser()}@127.0.0.1:{port}{folder}")
    return folder


def test_a_folder_on_another_machine(ana: Clone, ben: Clone, shelf: Path) -> None:
    items = ana.put(LARGE * 3, b"weights", b"")
    assert artifacts.upload(ana.tracker, None, items).count == 3
    assert artifacts.upload(ana.tracker, None, items).skipped == 3
    assert (shelf / items[0].digest[:2] / items[0].digest[2:4] / items[0].digest).read_bytes() == LARGE * 3
    assert list((shelf / "incoming").iterdir()) == []
    assert artifacts.ensure(ben.tracker, items).count == 3
    assert [ben.tracker.repo.objects.read(item.digest) for item in items] == [LARGE * 3, b"weights", b""]
    assert ben.temporaries() == []

    path = shelf / items[0].digest[:2] / items[0].digest[2:4] / items[0].digest
    path.write_bytes(b"x" * items[0].size)
    ben.tracker.repo.objects.delete(items[0].digest)
    with pytest.raises(CorruptError, match=items[0].digest):
        artifacts.ensure(ben.tracker, items)
    assert ben.has(items) == [False, True, True]


@pytest.mark.parametrize("how", ["unknown", "another key"])
def test_a_machine_that_is_not_the_one_that_is_known(
    ana: Clone, shelf: Path, known: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(depots, "_ATTEMPTS", 1)
    text = (known / "known_hosts").read_text()
    (known / "known_hosts").write_text("" if how == "unknown" else text.split()[0] + " " + other_key(known) + "\n")
    with pytest.raises(NetworkError, match=r"(?i)host key"):
        artifacts.upload(ana.tracker, None, ana.put(b"weights"))
    assert not shelf.exists()


def other_key(folder: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "other")], check=True)
    return " ".join((folder / "other.pub").read_text().split()[:2])
