"""Fixtures that every test uses: a sealed environment, and git repositories of every kind that gittrack meets."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings

from gittrack.store import gateway
from gittrack.store.gateway import RepoPaths
from gittrack.store.git import GitStore
from tests.databases import KINDS as KINDS_OF_DATABASE, empty_index, place, postgres  # noqa: F401 — fixtures

# How long an example takes says nothing: other tests run beside it.
settings.register_profile("gittrack", deadline=None)
settings.load_profile("gittrack")

# Whoever started the tests in the background has these signals ignored, and a program that is started with a signal
# ignored keeps it so.  Our own children are to get them as from a terminal.
if threading.current_thread() is threading.main_thread():
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

NAME = "Ana Test"
MAIL = "ana@example.org"
#: What people and CI systems set, and what must not decide how a test ends.
FOREIGN = ("GIT_", "GITTRACK_", "MLFLOW_", "XDG_", "EMAIL", "VISUAL", "EDITOR", "PAGER")

GITCONFIG = f"""\
[user]
    name = {NAME}
    email = {MAIL}
[init]
    defaultBranch = main
[commit]
    gpgSign = false
[core]
    fsync = none
[gc]
    auto = 0
[protocol "file"]
    allow = always
[safe]
    directory = *
[advice]
    detachedHead = false
"""

KINDS = ("ordinary", "linked", "bare", "shallow", "unborn", "sha256", "plain", "read-only")
#: The kinds that are git repositories with a work tree.
WITH_FILES = ("ordinary", "linked", "shallow", "unborn", "sha256")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests that take minutes are asked for."""
    parser.addoption("--install", action="store_true", help="also run the tests that install packages from an index")
    parser.addoption("--database", choices=KINDS_OF_DATABASE, default="sqlite", help="where the servers' index is")
    parser.addoption("--objects", choices=("folder", "s3"), default="folder", help="where the servers' artifacts are")


def plain_environ() -> dict[str, str]:
    """The environment without what tests may have exported, for a server that many of them share."""
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


@pytest.fixture(autouse=True)
def sealed_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own with a known git config, and none of the variables of whoever runs the tests.

    Yields the home folder.
    """
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(GITCONFIG)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    yield home
    # What a test has exported (`set_tracking_uri`) is not for the servers that later ones share.
    for name in list(os.environ):
        if name.startswith(FOREIGN):
            del os.environ[name]


@dataclass(frozen=True)
class Sandbox:
    """A folder to test in, with a repository of one of ``KINDS`` or none.

    Attributes:
        path: Where a user would be: the work tree, the bare repository or the plain folder.
        kind: One of ``KINDS``.
    """

    path: Path
    kind: str

    def git(self, *args: str, input: bytes | None = None, check: bool = True) -> str:
        """Run the stock git there, as a user would, and return its output without the last line end."""
        return run_git(self.path, *args, input=input, check=check)

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file of the work tree, with the folders it needs."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def commit(self, message: str = "change", **content: str) -> str:
        """Write files (``a_py="x"`` is ``a.py``), commit everything, return the commit's id."""
        for name, text in content.items():
            self.write(name.replace("_", "."), text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    @property
    def paths(self) -> RepoPaths:
        """What gittrack finds there."""
        found = gateway.discover(self.path)
        assert found is not None
        return found

    @property
    def store(self) -> GitStore:
        """A freshly opened GitStore."""
        return GitStore(self.paths)


def run_git(folder: Path, *args: str, input: bytes | None = None, check: bool = True) -> str:
    """Run the stock git in ``folder``; its output without the last line end."""
    done = subprocess.run(["git", *args], cwd=folder, input=input, capture_output=True, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"git {args} failed: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode("utf-8", "surrogateescape").removesuffix("\n")


MakeRepo = Callable[[str], Sandbox]


@pytest.fixture
def make_repo(tmp_path: Path, request: pytest.FixtureRequest) -> MakeRepo:
    """``make_repo(kind)`` makes a new sandbox of that kind (see ``KINDS``).

    All but ``unborn`` and ``plain`` have two commits with `train.py`, `lib/util.py` and `README.md`.
    """
    count = 0

    def make(kind: str) -> Sandbox:
        nonlocal count
        assert kind in KINDS
        count += 1
        return _MAKERS.get(kind, _make_ordinary)(tmp_path / f"{kind}-{count}", kind, request)

    return make


@pytest.fixture
def git_repo(make_repo: MakeRepo) -> Sandbox:
    """An ordinary repository."""
    return make_repo("ordinary")


@pytest.fixture(params=WITH_FILES)
def any_repo(request: pytest.FixtureRequest, make_repo: MakeRepo) -> Sandbox:
    """A repository of every kind that has a work tree, one after the other."""
    return make_repo(request.param)


def _make_ordinary(path: Path, kind: str, request: pytest.FixtureRequest) -> Sandbox:
    """A copy of a repository that is made once: six processes less per test."""
    kind = kind if kind in ("sha256", "unborn") else "ordinary"
    templates: Path = request.getfixturevalue("_templates")
    if not (templates / kind / "done").exists():
        _make_template(templates / kind / "repo", kind)
        (templates / kind / "done").touch()
    shutil.copytree(templates / kind / "repo", path, symlinks=True)
    return Sandbox(path, kind)


@pytest.fixture(scope="session")
def _templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("templates")


def _make_template(path: Path, kind: str) -> Sandbox:
    path.mkdir(parents=True)
    sandbox = Sandbox(path, kind)
    object_format = "sha256" if kind == "sha256" else "sha1"
    sandbox.git("init", "--quiet", "--template=", f"--object-format={object_format}")
    if kind != "unborn":
        sandbox.write("lib/util.py", "def double(x):\n    return 2 * x\n")
        sandbox.commit("first", train_py="print('train')\n")
        sandbox.commit("second", README_md="# A project\n")
    return sandbox


def _make_linked(path: Path, kind: str, request: pytest.FixtureRequest) -> Sandbox:
    main = _make_ordinary(path / "main", "ordinary", request)
    main.git("worktree", "add", "--quiet", "-b", "side", str(path / "side"))
    return Sandbox(path / "side", kind)


def _make_bare(path: Path, kind: str, request: pytest.FixtureRequest) -> Sandbox:
    source = _make_ordinary(path / "source", "ordinary", request)
    source.git("clone", "--quiet", "--bare", ".", str(path / "project.git"))
    return Sandbox(path / "project.git", kind)


def _make_shallow(path: Path, kind: str, request: pytest.FixtureRequest) -> Sandbox:
    source = _make_ordinary(path / "source", "ordinary", request)
    source.git("clone", "--quiet", "--depth=1", f"file://{source.path}", str(path / "clone"))
    return Sandbox(path / "clone", kind)


def _make_plain(path: Path, kind: str, _: pytest.FixtureRequest) -> Sandbox:
    path.mkdir(parents=True)
    return Sandbox(path, kind)


def _make_read_only(path: Path, kind: str, request: pytest.FixtureRequest) -> Sandbox:
    """A repository that cannot be written: by permission, or for root, whom those do not stop, by its mount."""
    sandbox = Sandbox(_make_ordinary(path, kind, request).path, kind)
    if os.geteuid() != 0:
        folders = [Path(where) for where, _, _ in os.walk(path)]
        for folder in folders:
            folder.chmod(0o555)
            request.addfinalizer(partial(folder.chmod, 0o755))
        return sandbox
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "--bind", path, path], check=False, capture_output=True).returncode:
        pytest.skip("root is stopped by no permission, and nothing can be mounted here")
    request.addfinalizer(lambda: subprocess.run(["umount", path], check=True))
    subprocess.run([mount, "-o", "remount,bind,ro", path], check=True)
    return sandbox


_MAKERS = {
    "linked": _make_linked,
    "bare": _make_bare,
    "shallow": _make_shallow,
    "plain": _make_plain,
    "read-only": _make_read_only,
}
