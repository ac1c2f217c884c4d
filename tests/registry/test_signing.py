"""Signed tags: made with git's own settings, verified by git and by us, and eight forgeries that are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gittrack.errors import GitError, InvalidValueError, PolicyError
from gittrack.registry import policy, signing
from tests.conftest import MakeRepo, Sandbox, run_git
from tests.registry.conftest import Desk, copied

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


@dataclass
class Keys:
    """Keys of people, and the list of those whose signatures count."""

    folder: Path

    def make(self, name: str) -> Path:
        """A new key; its public part is beside it."""
        key = self.folder / name
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        return key

    def allow(self, name: str, options: str = "") -> None:
        """Let signatures of a key count, as those of ``name@lab``."""
        public = (self.folder / f"{name}.pub").read_text().split()
        line = f'{name}@lab namespaces="git"{options} {public[0]} {public[1]}\n'
        with (self.folder / "allowed").open("a") as file:
            file.write(line)

    def use(self, sandbox: Sandbox, name: str) -> None:
        """Sign with this key from now on."""
        for key, value in {
            "gpg.format": "ssh",
            "user.signingKey": str(self.folder / name),
            "gpg.ssh.allowedSignersFile": str(self.folder / "allowed"),
        }.items():
            sandbox.git("config", key, value)


@pytest.fixture
def keys(tmp_path: Path, templates: Path) -> Keys:
    """Ana, who may, and Eve, who may not: copies of the keys that `signed` is signed with."""
    template = templates / "keys"
    if not template.exists():
        template.mkdir()
        made = Keys(template)
        for name in ("ana", "bo", "eve"):
            made.make(name)
        made.allow("ana")
    shutil.copytree(template, tmp_path / "keys")
    return Keys(tmp_path / "keys")


@pytest.fixture
def signed(desk: Desk, keys: Keys, templates: Path) -> Desk:
    """A clone of Ana's with iris v1 and v2, both signed, v1 promoted and signed."""

    def fill(desk: Desk) -> None:
        keys.use(desk.sandbox, "ana")
        for accuracy in (0.9, 0.95):
            desk.registry.register("iris", desk.run(accuracy), "model", sign=True)
        desk.registry.promote("iris", 1, "Production", archive_existing=True, sign=True)

    signed = copied(desk, templates / "signed", fill)
    keys.use(signed.sandbox, "ana")  # this test's own copies
    return signed


def verdict(desk: Desk, tag: str) -> signing.Verification:
    return signing.verify(desk.registry.catalog, tag)


def force(desk: Desk, tag: str, content: bytes) -> None:
    """Put a tag object of that content at a tag's name, as somebody does who does not use gittrack."""
    oid = desk.sandbox.git("hash-object", "-t", "tag", "-w", "--stdin", input=content)
    desk.sandbox.git("update-ref", f"refs/tags/{tag}", oid)


def content(desk: Desk, tag: str) -> bytes:
    return (desk.sandbox.git("cat-file", "tag", f"refs/tags/{tag}") + "\n").encode()


@pytest.mark.parametrize("kind", ["ordinary", "sha256", "bare"])
def test_git_and_gittrack_agree(make_repo: MakeRepo, keys: Keys, kind: str) -> None:
    desk = Desk.at(make_repo(kind))
    keys.use(desk.sandbox, "ana")
    desk.registry.register("iris", desk.run(), "model", sign=True)
    desk.registry.promote("iris", 1, "Staging", archive_existing=True, reason="looks good", sign=True)
    for tag in ("models/iris/v1", "models/iris/staging/1"):
        done = subprocess.run(
            ["git", "tag", "-v", tag], cwd=desk.sandbox.path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert 'Good "git" signature for ana@lab' in done.stderr
        found = verdict(desk, tag)
        assert (found.state, found.signer, found.method) == ("good", "ana@lab", "ssh")
    assert desk.sandbox.git("fsck", "--strict", "--no-dangling") == ""
    assert signing.verify_version(desk.registry.catalog, desk.registry.get_version("iris", 1)).valid


def test_a_tag_that_stock_git_signed_is_verified(signed: Desk) -> None:
    message = content(signed, "models/iris/production/1").partition(b"\n\n")[2].partition(b"-----BEGIN")[0].decode()
    message = message.replace("iris v1 is Production", "iris v1 is Production, by hand")
    target = signed.sandbox.git("rev-parse", "models/iris/production/1^{commit}")
    signed.sandbox.git("update-ref", "-d", "refs/tags/models/iris/production/1")
    signed.sandbox.git("tag", "-s", "-m", message.strip(), "models/iris/production/1", target)
    assert verdict(signed.reopened(), "models/iris/production/1").valid


# --- forgeries


def unsigned(desk: Desk, keys: Keys) -> str:
    desk.registry.promote("iris", 2, "Production", archive_existing=True)
    return "models/iris/production/2"


def unlisted_key(desk: Desk, keys: Keys) -> str:
    keys.use(desk.sandbox, "eve")
    desk.registry.promote("iris", 2, "Production", archive_existing=True, sign=True)
    return "models/iris/production/2"


def revoked(desk: Desk, keys: Keys) -> str:
    (keys.folder / "revoked").write_text((keys.folder / "ana.pub").read_text())
    desk.sandbox.git("config", "gpg.ssh.revocationFile", str(keys.folder / "revoked"))
    return "models/iris/production/1"


def expired(desk: Desk, keys: Keys) -> str:
    (keys.folder / "allowed").write_text("")
    keys.allow("ana", ',valid-before="20200101"')
    return "models/iris/production/1"


def copied_to_another_name(desk: Desk, keys: Keys) -> str:
    desk.sandbox.git("update-ref", "refs/tags/models/iris/v9", "refs/tags/models/iris/v1")
    return "models/iris/v9"


def moved_to_another_commit(desk: Desk, keys: Keys) -> str:
    one, two = (desk.sandbox.git("rev-parse", f"models/iris/v{number}^{{commit}}") for number in (1, 2))
    force(
        desk, "models/iris/production/1", content(desk, "models/iris/production/1").replace(one.encode(), two.encode())
    )
    return "models/iris/production/1"


def changed_manifest(desk: Desk, keys: Keys) -> str:
    one, two = (desk.registry.get_version("iris", number).manifest.encode() for number in (1, 2))
    text = content(desk, "models/iris/production/1")
    force(desk, "models/iris/production/1", text.replace(one, two if one != two else b"0" * 64))
    return "models/iris/production/1"


def replayed_older_promotion(desk: Desk, keys: Keys) -> str:
    desk.registry.promote("iris", 2, "Production", archive_existing=True, sign=True)
    desk.sandbox.git("update-ref", "refs/tags/models/iris/production/3", "refs/tags/models/iris/production/1")
    return "models/iris/production/3"


FORGERIES: list[Callable[[Desk, Keys], str]] = [
    unsigned, unlisted_key, revoked, expired, copied_to_another_name, moved_to_another_commit, changed_manifest,
    replayed_older_promotion,
]  # fmt: skip


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_forged_tags_are_refused(signed: Desk, keys: Keys, forge: Callable[[Desk, Keys], str]) -> None:
    tag = forge(signed, keys)
    desk = signed.reopened()
    found = verdict(desk, tag)
    assert found.state == ("unsigned" if forge is unsigned else "bad")
    assert found.reason
    desk.sandbox.git("config", "gittrack.requireSigned", "production")
    if forge is copied_to_another_name:
        return  # it is no version at all, and nothing else changed
    if forge is replayed_older_promotion:  # what was promoted last still holds, and is signed
        assert desk.registry.resolve("iris/Production").version == "2"
        return
    version = desk.registry.get_version("iris", 2 if forge in (unsigned, unlisted_key) else 1)
    with pytest.raises(PolicyError, match="is not released as Production"):
        policy.check_load(desk.registry.catalog, version, "Production")


def test_without_a_key_nothing_is_written(desk: Desk, keys: Keys) -> None:
    run = desk.run()
    desk.sandbox.git("config", "gpg.format", "ssh")
    desk.sandbox.git("config", "user.signingKey", str(keys.folder / "missing"))
    with pytest.raises(GitError, match=r"could not be signed|did not sign"):
        desk.registry.register("iris", run, "model", sign=True)
    assert desk.tags() == []


# --- policy


def team(desk: Desk, text: str) -> None:
    desk.sandbox.write("pyproject.toml", text)


def test_the_run_must_be_good_enough(signed: Desk) -> None:
    team(signed, '[tool.gittrack.registry.production]\nrequire = "metrics.acc >= 0.93"\n')
    before = signed.tags()
    with pytest.raises(PolicyError, match=r"must come from a run with `metrics.acc >= 0.93`; run `\w+` has acc 0.9"):
        signed.registry.promote("iris", 1, "Production", archive_existing=True)
    assert signed.tags() == before
    signed.registry.promote("iris", 2, "Production", archive_existing=True)
    assert signed.registry.resolve("iris/Production").version == "2"


def test_two_people(signed: Desk, keys: Keys) -> None:
    keys.allow("bo")
    team(signed, '[tool.gittrack.registry.production]\nsigners = ["ana@lab", "bo@lab"]\nsignatures = 2\n')
    desk = signed.reopened()
    with pytest.raises(PolicyError, match="must be signed by ana@lab, bo@lab"):
        desk.registry.promote("iris", 2, "Production", archive_existing=True)
    desk.registry.promote("iris", 2, "Production", archive_existing=True, sign=True)
    version = desk.registry.get_version("iris", 2)
    with pytest.raises(PolicyError, match=r"needs 2 signatures by different people .*it has 1 \(ana@lab\)"):
        policy.check_load(desk.registry.catalog, version, "Production")
    with pytest.raises(PolicyError, match="has signed v2 in Production already"):
        desk.registry.promote("iris", 2, "Production", archive_existing=True, sign=True)
    keys.use(desk.sandbox, "bo")
    desk = desk.reopened()
    desk.registry.promote("iris", 2, "Production", archive_existing=True, reason="seen", sign=True)
    policy.check_load(desk.registry.catalog, desk.registry.get_version("iris", 2), "Production")
    assert "models/iris/production/3" in desk.tags()
    keys.use(desk.sandbox, "eve")
    with pytest.raises(PolicyError, match="does not count"):
        desk.reopened().registry.promote("iris", 1, "Production", archive_existing=True, sign=True)


def test_an_alias_that_is_called_like_a_stage_is_no_way_around(signed: Desk) -> None:
    signed.registry.set_alias("iris", "production", 2)
    team(signed, "[tool.gittrack.registry.production]\nsignatures = 1\n")
    assert signed.registry.resolve("iris@production").version == "2"
    with pytest.raises(PolicyError, match="is not released as @production"):
        policy.check_load(signed.registry.catalog, signed.registry.get_version("iris", 2), "@production")
    with pytest.raises(PolicyError, match="must be signed"):
        signed.registry.set_alias("iris", "production", 1)


def test_a_policy_that_wants_a_reason(signed: Desk) -> None:
    registry = signed.registry
    signed.sandbox.write("pyproject.toml", '[tool.gittrack.registry.staging]\nreason = true\n'
                         '[tool.gittrack.registry."@champion"]\nreason = true\n')  # fmt: skip
    with pytest.raises(PolicyError, match="what becomes Staging needs a reason"):
        registry.promote("iris", 2, "Staging", archive_existing=False, reason=" \n")
    with pytest.raises(PolicyError, match="@champion needs a reason"):
        registry.set_alias("iris", "champion", 2)
    assert (
        registry.promote("iris", 2, "Staging", archive_existing=False, reason="it is time").current_stage == "Staging"
    )
    registry.promote("iris", 2, "None", archive_existing=False)  # out of it needs none
    policy.check_load(registry.catalog, registry.get_version("iris", 2), "@champion")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.gittrack.registry.prodction]\n", "did you mean `production`"),
        ("[tool.gittrack.registry.production]\nsigner = []\n", "did you mean `signers`"),
        ("[tool.gittrack.registry.production]\nsigners = []\n", "nobody could promote"),
        ("[tool.gittrack.registry.production]\nsigners = 'ana'\n", "no list of names"),
        ("[tool.gittrack.registry.production]\nsignatures = -1\n", "signatures"),
        ('[tool.gittrack.registry.production]\nsigners = ["a"]\nsignatures = 2\n', "2 signatures of 1 signers"),
        ('[tool.gittrack.registry.production]\nrequire = "metrics.acc >>"\n', "column"),
        ("[tool.gittrack.registry.production]\nreason = 1\n", "true or false"),
        ("[tool.gittrack.registry.versions]\nreason = true\n", "versions have none"),
        ("[tool.gittrack]\nregistry = 3\n", "no table"),
    ],
)
def test_a_policy_that_cannot_be_read_lets_nothing_through(signed: Desk, text: str, message: str) -> None:
    team(signed, text)
    before = signed.tags()
    with pytest.raises(InvalidValueError) as caught:
        signed.registry.promote("iris", 2, "Production", archive_existing=True)
    assert message in str(caught.value)
    assert signed.tags() == before


def test_verifying_many_tags_is_quick(signed: Desk) -> None:
    for _ in range(20):
        signed.registry.promote("iris", 1, "Staging", archive_existing=True)
        signed.registry.promote("iris", 1, "Production", archive_existing=True)
    start = time.perf_counter()
    assert all(verdict(signed, tag).state in ("good", "unsigned") for tag in signed.tags())
    assert time.perf_counter() - start < 20


def test_the_command_line(signed: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from gittrack.cli import main

    monkeypatch.chdir(signed.sandbox.path)
    assert main.run(["models", "verify", "iris"]) == 0
    assert "ana@lab" in capsys.readouterr().out
    signed.registry.set_alias("iris", "champion", 1)
    assert main.run(["models", "verify", "iris@champion", "--policy"]) == 0
    assert main.run(["models", "verify", "iris@v1", "--signed"]) == 4
    assert "unsigned" in capsys.readouterr().out
    signed.registry.delete_alias("iris", "champion")
    assert main.run(["models", "verify", "iris@v2", "--json", "--policy"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {one["state"] for one in document["tags"]} == {"good"}
    assert main.run(["models", "show", "iris@v1"]) == 0
    assert "Signed:     by ana@lab" in capsys.readouterr().out
    assert main.run(["models", "verify", "models/iris/production/1", "--json", "--signed"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["version"], document["place"]) == ("iris", "1", "Production")
    signed.registry.promote("iris", 2, "Production", archive_existing=True)
    assert main.run(["models", "verify", "models/iris/production/1"]) == 1
    assert "holds no more" in capsys.readouterr().err
    assert main.run(["models", "verify", "models/iris/production/9"]) == 1
    assert main.run(["models", "verify", "models/iris/production/2", "--signed"]) == 4
    run_git(signed.sandbox.path, "update-ref", "refs/tags/models/iris/v9", "refs/tags/models/iris/v1")
    assert main.run(["models", "verify", "models/iris/v9"]) == 4
    capsys.readouterr()
    assert main.run(["models", "verify", "iris"]) == 4
    assert "was made as `models/iris/v1` and copied here" in capsys.readouterr().out
    assert main.run(["models", "verify"]) == 2
