"""Finding repositories, and running git so that nothing around it can steer it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gittrack.errors import GitError, InvalidValueError, NotARepositoryError, UnsupportedError
from gittrack.store import gateway
from gittrack.store.gateway import Git, discover
from gittrack.store.git import GitStore
from tests.conftest import WITH_FILES, MakeRepo, Sandbox, run_git

# ---------------------------------------------------------------- discover


@pytest.mark.parametrize("kind", [*WITH_FILES, "bare", "read-only"])
def test_discover_agrees_with_git(make_repo: MakeRepo, kind: str) -> None:
    repo = make_repo(kind)
    paths = repo.paths
    bare = kind == "bare"
    assert str(paths.git_dir) == repo.git("rev-parse", "--absolute-git-dir")
    assert paths.common_dir == (repo.path / repo.git("rev-parse", "--git-common-dir")).resolve()
    assert paths.bare == bare == (repo.git("rev-parse", "--is-bare-repository") == "true")
    assert paths.work_tree == (None if bare else Path(repo.git("rev-parse", "--show-toplevel")))
    assert paths.object_format == repo.git("rev-parse", "--show-object-format")
    assert paths.shallow == (repo.git("rev-parse", "--is-shallow-repository") == "true")
    assert not paths.private


@pytest.mark.parametrize("kind", WITH_FILES)
def test_discover_looks_upwards_and_through_symlinks(make_repo: MakeRepo, tmp_path: Path, kind: str) -> None:
    repo = make_repo(kind)
    deep = repo.path / "a" / "b"
    deep.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(deep)
    assert discover(deep) == discover(link) == discover(repo.path) == repo.paths


def test_all_work_trees_of_a_clone_share_one_main_root(make_repo: MakeRepo) -> None:
    linked = make_repo("linked")
    main = linked.path.parent / "main"
    assert linked.paths.main_root == main
    assert discover(main).main_root == main  # type: ignore[union-attr]
    assert linked.paths.common_dir == main / ".git"


def test_inside_the_git_folder_the_work_tree_is_meant(git_repo: Sandbox) -> None:
    assert discover(git_repo.path / ".git" / "refs" / "heads") == git_repo.paths


def test_a_bare_repository_with_work_trees(make_repo: MakeRepo, tmp_path: Path) -> None:
    bare = make_repo("bare")
    bare.git("worktree", "add", "--quiet", str(tmp_path / "tree"), "main")
    found = discover(tmp_path / "tree")
    assert found is not None
    assert (found.work_tree, found.main_root, found.bare) == (tmp_path / "tree", bare.path, False)


def test_the_hidden_bare_layout(make_repo: MakeRepo, tmp_path: Path) -> None:
    """`project/.bare` with a `.git` file beside it, as people set up many work trees."""
    source = make_repo("ordinary")
    project = tmp_path / "project"
    project.mkdir()
    run_git(project, "clone", "--quiet", "--bare", str(source.path), ".bare")
    (project / ".git").write_text("gitdir: ./.bare\n")
    found = discover(project)
    assert found is not None
    assert (found.bare, found.main_root) == (True, project / ".bare")


def test_a_submodule_is_its_own_repository(make_repo: MakeRepo) -> None:
    repo, other = make_repo("ordinary"), make_repo("ordinary")
    repo.git("submodule", "--quiet", "add", str(other.path), "sub")
    found = discover(repo.path / "sub")
    assert found is not None
    assert found.main_root == found.work_tree == repo.path / "sub"
    assert found.git_dir == repo.path / ".git" / "modules" / "sub"
    assert discover(repo.path / ".git" / "modules" / "sub") == found


def test_no_repository(tmp_path: Path) -> None:
    assert discover(tmp_path) is None
    (tmp_path / ".git").mkdir()  # an empty one is none
    assert discover(tmp_path) is None


def test_private_store(make_repo: MakeRepo) -> None:
    folder = make_repo("plain").path
    made = GitStore.create_private(folder)
    assert made.private
    assert made.bare
    assert made.main_root == folder
    assert made.work_tree is None
    (folder / "deep").mkdir()
    assert discover(folder / "deep") == made
    assert discover(made.git_dir / "objects") == made
    run_git(made.git_dir, "fsck", "--strict")
    assert GitStore.create_private(folder) == made, "making it twice is harmless"
    run_git(folder, "init", "--quiet")
    assert discover(folder) != made, "a repository made later comes first"


def test_a_dangling_git_file_says_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: /nowhere/at/all\n")
    with pytest.raises(NotARepositoryError, match="/nowhere/at/all"):
        discover(tmp_path)
    (tmp_path / ".git").write_text("something else\n")
    with pytest.raises(NotARepositoryError):
        discover(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        "[core]\nrepositoryformatversion = 1\n[extensions]\nrefStorage = reftable\n",
        "[core]\nrepositoryformatversion = 1\n[extensions]\ncompatObjectFormat = sha256\n",
        "[core]\nrepositoryformatversion = 1\n[extensions]\nobjectFormat = blake3\n",
        "[core]\nrepositoryformatversion = 2\n",
    ],
)
def test_extensions_that_gittrack_cannot_read_are_refused(git_repo: Sandbox, config: str) -> None:
    with (git_repo.path / ".git" / "config").open("a") as file:
        file.write(config)
    with pytest.raises(UnsupportedError, match="gittrack"):
        discover(git_repo.path)


def test_harmless_extensions_are_accepted(git_repo: Sandbox) -> None:
    git_repo.git("config", "core.repositoryFormatVersion", "1")
    git_repo.git("config", "extensions.worktreeConfig", "true")
    git_repo.git("config", "extensions.partialClone", "origin")
    assert discover(git_repo.path) == git_repo.paths


def test_a_planted_bare_repository_is_not_opened(git_repo: Sandbox) -> None:
    """Security case G10: a checkout may bring a folder that looks like a repository, with a config of its own."""
    planted = git_repo.path / "data" / "planted.git"
    planted.parent.mkdir()
    run_git(planted.parent, "init", "--quiet", "--bare", "planted.git")
    with pytest.raises(UnsupportedError, match=r"planted\.git"):
        discover(planted)
    assert discover(planted.parent) == git_repo.paths


def test_config_is_read_as_git_reads_it(git_repo: Sandbox) -> None:
    (git_repo.path / ".git" / "config").write_text(
        "# comment\n; comment\n[core] repositoryformatversion = 0\n\tbare = false ; why not\n"
        '[Remote "or\\"igin"]\n  URL = "https://user:secret@host/x;y.git" # a comment\n'
        '  fetch = +refs/heads/*:\\\nrefs/remotes/x/*\n[branch "a.b"]\n\tremote = or\\"igin\n[flag]\n\tset\n'
    )
    read = dict(gateway._read_config(git_repo.path / ".git" / "config"))
    for key, value in read.items():
        assert git_repo.git("config", "--get", key) == ("" if key == "flag.set" else value), key
    assert len(read) == 6
    assert gateway.remote_url(git_repo.paths, "a.b") == "https://host/x;y.git"


def test_remote_url_follows_the_branch(git_repo: Sandbox) -> None:
    assert gateway.remote_url(git_repo.paths, "main") is None
    git_repo.git("remote", "add", "fork", "https://token@example.org/fork.git")
    assert gateway.remote_url(git_repo.paths, "main") == "https://example.org/fork.git"
    git_repo.git("remote", "add", "origin", "git@example.org:team/x.git")
    assert gateway.remote_url(git_repo.paths, "main") == "git@example.org:team/x.git"
    git_repo.git("config", "branch.main.remote", "fork")
    assert gateway.remote_url(git_repo.paths, "main") == "https://example.org/fork.git"
    assert gateway.remote_url(git_repo.paths, None) == "git@example.org:team/x.git"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("https://me:pass@host/x", "https://host/x"),
        ("https://ghp_token@host/x", "https://host/x"),
        ("ssh://git:pass@host/x", "ssh://git@host/x"),
        ("fatal: cannot reach 'https://a:b@h/p' or http://c@h", "fatal: cannot reach 'https://h/p' or http://h"),
        ("git@host:team/x.git", "git@host:team/x.git"),
        ("https://user:p@ss@host/x", "https://host/x"),
    ],
)
def test_credentials_are_stripped(text: str, clean: str) -> None:
    assert gateway.strip_credentials(text) == clean


# ---------------------------------------------------------------- running git


def test_run_gives_bytes_and_passes_input(git_repo: Sandbox) -> None:
    program = git_repo.store.program
    oid = program.run("hash-object", "-w", "--stdin", input=b"\xff\x00\n").decode().strip()
    assert program.run("cat-file", "blob", oid) == b"\xff\x00\n"


def test_a_failure_names_the_verb_and_the_reason(git_repo: Sandbox) -> None:
    with pytest.raises(GitError, match=r"`git cat-file` failed: .*nowhere"):
        git_repo.store.program.run("cat-file", "blob", "nowhere")
    assert git_repo.store.program.run("rev-parse", "--verify", "nowhere", check=False) == b""
    assert git_repo.store.program.call("rev-parse", "--verify", "nowhere").status == 128


def test_a_git_that_hangs_is_stopped(git_repo: Sandbox) -> None:
    git_repo.git("config", "alias.hang", "!exec sleep 60")
    start = time.monotonic()
    with pytest.raises(GitError, match="longer than"):
        git_repo.store.program.run("hang", timeout=0.3)
    assert time.monotonic() - start < 10


HOSTILE_ENVIRONMENT = {
    "GIT_DIR": "/nonexistent",
    "GIT_WORK_TREE": "/nonexistent",
    "GIT_INDEX_FILE": "/nonexistent/index",
    "GIT_OBJECT_DIRECTORY": "/nonexistent/objects",
    "GIT_EXEC_PATH": "/nonexistent",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.fsmonitor",
    "GIT_CONFIG_VALUE_0": "touch {marker}; false",
    "GIT_EXTERNAL_DIFF": "touch {marker}",
    "GIT_SSH_COMMAND": "touch {marker}",
    "GIT_TRACE": "{marker}",
    "GIT_TRACE2_EVENT": "{marker}",
    "GIT_CEILING_DIRECTORIES": "/",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NAMESPACE": "evil",
}


def test_the_environment_cannot_steer_git(git_repo: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Security case G8."""
    marker = tmp_path / "PWNED"
    program = git_repo.store.program
    expected = program.run("status", "--porcelain=v2", "--branch")
    for name, value in HOSTILE_ENVIRONMENT.items():
        monkeypatch.setenv(name, value.replace("{marker}", str(marker)))
    assert program.run("status", "--porcelain=v2", "--branch") == expected
    assert b"GIT_TRACE" not in program.run("-c", "alias.e=!env", "e")
    assert not marker.exists()


def test_a_hostile_config_and_hooks_run_nothing(git_repo: Sandbox, tmp_path: Path) -> None:
    """Security cases G7 and G9, for what gittrack does by itself."""
    marker = tmp_path / "PWNED"
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {marker}\n")
    evil.chmod(0o755)
    for key in ("core.fsmonitor", "core.sshCommand", "diff.external", "gpg.program", "core.pager", "core.editor"):
        git_repo.git("config", key, str(evil))
    hooks = git_repo.path / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for hook in ("reference-transaction", "post-index-change", "pre-auto-gc", "post-checkout"):
        (hooks / hook).hardlink_to(evil)
    marker.unlink(missing_ok=True)
    program = git_repo.store.program
    program.run("status", "--porcelain=v2")
    program.run("update-ref", "refs/gittrack/x", "HEAD")
    program.run("diff", "--no-ext-diff", "--no-textconv", "HEAD~1", "HEAD")
    program.run("repack", "-adq")
    assert not marker.exists()
    git_repo.git("update-ref", "refs/gittrack/y", "HEAD")
    assert marker.exists(), "the trap itself works"


def test_no_program_of_the_current_folder_is_run(git_repo: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Security case G10: `./git`, also when PATH names the current folder."""
    fake = git_repo.write("git", "#!/bin/sh\necho pwned\n")
    fake.chmod(0o755)
    monkeypatch.chdir(git_repo.path)
    monkeypatch.setenv("PATH", ".:" + ":" + os.environ["PATH"])
    gateway._program.cache_clear()
    assert b"git version" in git_repo.store.program.run("version")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="needs to give a folder to another user")
def test_a_repository_of_somebody_else_is_refused_as_git_does(git_repo: Sandbox, sealed_environment: Path) -> None:
    (sealed_environment / ".gitconfig").write_text("[user]\nname = x\nemail = y\n")
    os.chown(git_repo.path / ".git", 12345, 12345)
    os.chown(git_repo.path, 12345, 12345)
    with pytest.raises(GitError, match=r"does not trust") as caught:
        git_repo.store.program.run("status")
    assert "safe.directory" in str(caught.value.hint)
    run_git(git_repo.path, "config", "--global", "--add", "safe.directory", str(git_repo.path))
    assert git_repo.store.program.run("rev-parse", "HEAD")


def test_parallel_calls_do_not_disturb_each_other(git_repo: Sandbox) -> None:
    from concurrent.futures import ThreadPoolExecutor

    program = git_repo.store.program
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: program.run("hash-object", "--stdin", input=b"%d" % n), range(32)))
    assert found == [program.run("hash-object", "--stdin", input=b"%d" % n) for n in range(32)]


@pytest.mark.parametrize("value", ["", "-d", "--output=x", "a\nb", "a\0b", "\x7f"])
def test_rev_refuses_options_and_control_characters(value: str) -> None:
    with pytest.raises(InvalidValueError):
        gateway.rev(value)
    assert gateway.rev("HEAD~1") == "HEAD~1"


def test_bare_and_private_stores_can_be_asked(make_repo: MakeRepo) -> None:
    assert make_repo("bare").store.program.run("rev-parse", "HEAD")
    private = GitStore(GitStore.create_private(make_repo("plain").path))
    assert private.program.run("rev-parse", "--is-bare-repository") == b"true\n"


# ---------------------------------------------------------------- cost


def test_importing_loads_nothing_heavy() -> None:
    code = (
        "import sys; import gittrack.store.git, gittrack.store.gateway; "
        "from pathlib import Path; p = gittrack.store.gateway.discover('.'); "
        "s = gittrack.store.git.GitStore(p); s.refs('refs/runs/'); s.refs_fingerprint(); s.head(); s.head_branch(); "
        "print([m for m in ('dulwich', 'git', 'subprocess', 'tempfile', 'psutil') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_discover_and_fingerprint_are_fast(git_repo: Sandbox) -> None:
    head = git_repo.git("rev-parse", "HEAD")
    git_repo.git(
        "update-ref", "--stdin", input=b"".join(b"create refs/runs/%d/w %s\n" % (n, head.encode()) for n in range(20))
    )
    deep = git_repo.path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    store = git_repo.store
    best = min(_timed(lambda: (discover(deep), store.refs_fingerprint())) for _ in range(20))
    assert best < 0.004, f"{best * 1000:.2f} ms for both"


def _timed(work: object) -> float:
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - start


def test_git_is_a_gateway_of_its_folder_only(make_repo: MakeRepo) -> None:
    one, two = make_repo("ordinary"), make_repo("unborn")
    assert Git(two.paths.git_dir, two.path).call("rev-parse", "--verify", "HEAD").status != 0
    assert Git(one.paths.git_dir, one.path).run("rev-parse", "HEAD").decode().strip() == one.git("rev-parse", "HEAD")
