"""Signatures by gpg, tag objects that deceive, who counts as one person, and what is on disk when."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gittrack.errors import PolicyError
from gittrack.registry import policy, signing
from gittrack.registry.signing import Verification
from gittrack.types import ObjectId
from tests.conftest import MakeRepo
from tests.registry.conftest import Desk
from tests.registry.test_signing import Keys, content, force, keys, signed, team, verdict
from tests.store.syscalls import watch

__all__ = ["keys", "signed"]
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
TAG = "models/iris/production/1"


# --- gpg


class Gpg:
    """A keyring of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prints: dict[str, str] = {}

    def __call__(self, *words: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["gpg", "--batch", "--yes", "--no-tty", *words], input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make(self, who: str) -> str:
        """A new key of ``Name <mail>``; its fingerprint."""
        self("--passphrase", "", "--quick-gen-key", who, "ed25519", "sign", "never")
        listed = self("--with-colons", "--list-keys", f"={who}").splitlines()
        return next(line.split(":")[9] for line in listed if line.startswith("fpr"))

    def trust(self, fingerprint: str, level: int) -> None:
        """2: not known, 5: full, 6: ultimate."""
        self("--import-ownertrust", stdin=f"{fingerprint}:{level}:\n")


@pytest.fixture
def gpg(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpg]:
    """gpg, in a folder whose path is short enough for its socket."""
    if shutil.which("gpg") is None:
        pytest.skip("needs gpg")
    folder = Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))
    monkeypatch.setenv("GNUPGHOME", str(folder))
    yield Gpg(folder)
    subprocess.run(["gpgconf", "--kill", "all"], check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def by_gpg(desk: Desk, gpg: Gpg) -> tuple[Desk, str]:
    """A clone with iris v1, promoted and signed with Ana's key; its fingerprint."""
    key = gpg.make("Ana <ana@lab>")
    desk.sandbox.git("config", "user.signingKey", key)
    desk.registry.register("iris", desk.run(), "model", sign=True)
    desk.registry.promote("iris", 1, "Production", archive_existing=True, sign=True)
    return desk, key


def test_gpg_signs_and_verifies(by_gpg: tuple[Desk, str]) -> None:
    desk, key = by_gpg
    done = subprocess.run(["git", "tag", "-v", TAG], cwd=desk.sandbox.path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    found = verdict(desk, TAG)
    assert (found.state, found.signer, found.key, found.method) == ("good", "Ana <ana@lab>", key, "openpgp")
    assert signing.verify_version(desk.registry.catalog, desk.registry.get_version("iris", 1)).valid


def test_a_gpg_key_of_unknown_owner_does_not_count(by_gpg: tuple[Desk, str], gpg: Gpg) -> None:
    desk, key = by_gpg
    gpg.trust(key, 2)
    found = verdict(desk, TAG)
    assert found.state == "bad"
    assert "whose key" in found.reason
    assert key in (found.hint or "")


def test_a_gpg_key_that_is_gone_or_revoked_does_not_count(by_gpg: tuple[Desk, str], gpg: Gpg) -> None:
    desk, key = by_gpg
    revocation = (gpg.folder / "openpgp-revocs.d" / f"{key}.rev").read_text()
    gpg("--import", stdin=revocation.replace("\n:-----BEGIN", "\n-----BEGIN"))
    assert verdict(desk, TAG).reason == "the key was revoked"
    gpg("--delete-secret-and-public-key", key)
    assert verdict(desk, TAG).reason == "the key is not in the keyring"


def test_an_address_in_a_gpg_key_is_no_name(by_gpg: tuple[Desk, str]) -> None:
    desk, key = by_gpg
    version = desk.registry.get_version("iris", 1)
    for signers, allowed in (('["ana@lab"]', False), ('["Ana <ana@lab>"]', False), (f'["{key.lower()}"]', True)):
        team(desk, f"[tool.gittrack.registry.production]\nsigners = {signers}\n")
        if allowed:
            policy.check_load(desk.registry.catalog, version, "Production")
        else:
            with pytest.raises(PolicyError, match="is not released as Production"):
                policy.check_load(desk.registry.catalog, version, "Production")


def test_status_lines_in_a_text_deceive_nobody(desk: Desk, gpg: Gpg) -> None:
    """What gpg says to programs, said by the text of a tag, by a key's owner and by a tagger."""
    gpg.make("Bo <bo@lab>")
    mallory = gpg.make("M [GNUPG:] TRUST_ULTIMATE 0 <m@lab>")
    gpg.trust(mallory, 2)
    desk.sandbox.git("config", "user.signingKey", mallory)
    desk.registry.register("iris", desk.run(), "model")
    lines = '[GNUPG:] GOODSIG 0 Ana\n[GNUPG:] VALIDSIG 0\n[GNUPG:] TRUST_ULTIMATE 0 pgp\nGood "git" signature for ana'
    desk.registry.promote("iris", 1, "Production", archive_existing=True, reason=lines, sign=True)
    assert verdict(desk, TAG).state == "bad"


# --- tag objects that deceive


def resigned(desk: Desk, text: bytes) -> bytes:
    """A tag object with Ana's good signature of that text."""
    key = desk.sandbox.git("config", "user.signingKey")
    done = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", key, "-q"], input=text, capture_output=True, check=True
    )
    return text + done.stdout


def unsigned_text(desk: Desk, tag: str = TAG) -> bytes:
    return content(desk, tag).partition(b"-----BEGIN")[0]


def test_the_helper_signs_as_git_does(signed: Desk) -> None:
    force(signed, TAG, resigned(signed, unsigned_text(signed).replace(b"is Production", b"is now Production")))
    assert verdict(signed.reopened(), TAG).valid


ODD: dict[str, tuple[Callable[[Desk, bytes], bytes], str]] = {
    "signed twice": (lambda desk, text: resigned(desk, resigned(desk, text)), "2 signatures"),
    "two signatures": (lambda desk, text: resigned(desk, text) + resigned(desk, text)[len(text) :], "2 signatures"),
    "text behind it": (lambda desk, text: resigned(desk, text) + b"and v2 as well\n", "its signature has an unknown"),
    "line ends": (lambda desk, text: resigned(desk, text.replace(b"\n", b"\r\n")), "cannot be read"),
    "line ends of trailers": (
        lambda desk, text: resigned(desk, text.replace(b"\nGittrack", b"\r\nGittrack")), "is no event",
    ),
    "line ends of all": (lambda desk, text: resigned(desk, text).replace(b"\n", b"\r\n"), "cannot be read"),
    "tag of a tag": (lambda desk, text: resigned(desk, text.replace(b"type commit", b"type tag")), "not at a run"),
    "another header": (lambda desk, text: resigned(desk, text.replace(b"tagger", b"gpgsig x\ntagger")), "unknown form"),
    "no name": (
        lambda desk, text: resigned(desk, text.replace(b"\ntag models/iris/production/1", b"")), "cannot be read",
    ),
    "megabytes": (lambda desk, text: resigned(desk, text.replace(b"\n\n", b"\n\n" + b"x" * (3 << 20), 1)), "bytes"),
    "a trailer twice": (lambda desk, text: resigned(desk, text + b"Gittrack-Stage: Archived\n"), "is there 2 times"),
    "cut off": (lambda desk, text: resigned(desk, text)[:-60], "its signature has an unknown form"),
    "ssh nonsense": (
        lambda desk, text: text + b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n", "does not fit",
    ),
    "gpg nonsense": (
        lambda desk, text: text + b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n", "signature",
    ),
    "x509 nonsense": (
        lambda desk, text: text + b"-----BEGIN SIGNED MESSAGE-----\nAA\n-----END SIGNED MESSAGE-----\n", "signature",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_odd_tag_objects_are_bad(signed: Desk, kind: str) -> None:
    change, reason = ODD[kind]
    made = change(signed, unsigned_text(signed))
    oid = signed.sandbox.git("hash-object", "-t", "tag", "-w", "--literally", "--stdin", input=made)
    (signed.sandbox.path / ".git/refs/tags" / TAG).write_text(oid + "\n")
    found = verdict(signed.reopened(), TAG)
    assert (found.state, reason in found.reason) == ("bad", True), found


def test_a_good_signature_in_another_namespace_does_not_count(signed: Desk) -> None:
    text = unsigned_text(signed)
    key = signed.sandbox.git("config", "user.signingKey")
    done = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", key, "-q"], input=text, capture_output=True, check=True
    )
    force(signed, TAG, text + done.stdout)
    assert verdict(signed.reopened(), TAG).state == "bad"


def test_what_an_event_comes_after_has_to_be_what_is_here(signed: Desk) -> None:
    signed.registry.promote("iris", 2, "Production", archive_existing=True, sign=True)
    assert verdict(signed, "models/iris/production/2").valid
    # Another first promotion is put where the signed one was: what came after it does not come after this.
    force(signed, TAG, unsigned_text(signed).replace(b"is Production", b"was Production"))
    found = verdict(signed.reopened(), "models/iris/production/2")
    assert (found.state, "comes after another" in found.reason) == ("bad", True)


def test_purged_history_is_no_fault(signed: Desk) -> None:
    signed.registry.promote("iris", 2, "Production", archive_existing=True, sign=True)
    signed.sandbox.git("update-ref", "-d", f"refs/tags/{TAG}")
    assert verdict(signed.reopened(), "models/iris/production/2").valid


# --- people


def verification(signer: str, key: str, method: signing.Method = "ssh") -> Verification:
    return Verification("t", ObjectId("0" * 40), "good", signer, key, method)


def test_a_person_is_counted_once() -> None:
    ana, again, bo = verification("ana", "k1"), verification("ana", "k2"), verification("bo", "k3")
    assert signing.people([]) == 0
    assert signing.people([ana, again]) == 1
    assert signing.people([ana, verification("bo", "k1")]) == 1
    assert signing.people([ana, bo]) == 2
    # Ana's second key is also listed as Bo's: nobody can tell how many they are, so they are one.
    assert signing.people([ana, bo, verification("ana", "k3")]) == 1
    assert signing.people([ana, bo, verification("cy", "k4"), again]) == 3


def test_one_key_under_two_names_does_not_sign_twice(signed: Desk, keys: Keys) -> None:
    team(signed, "[tool.gittrack.registry.production]\nsignatures = 2\n")
    public = " ".join((keys.folder / "ana.pub").read_text().split()[:2])
    (keys.folder / "allowed").write_text(f'ana2@lab namespaces="git" {public}\n')
    desk = signed.reopened()
    with pytest.raises(PolicyError, match="has signed v1 in Production already"):
        desk.registry.promote("iris", 1, "Production", archive_existing=True, sign=True)


def test_an_approval_of_another_event_does_not_count(signed: Desk, keys: Keys) -> None:
    """Bo approved an earlier promotion of the same version to the same stage; that says nothing about this one."""
    keys.allow("bo")
    team(signed, "[tool.gittrack.registry.production]\nsignatures = 2\n")
    desk = signed.reopened()
    keys.use(desk.sandbox, "bo")
    desk.registry.promote("iris", 1, "Production", archive_existing=True, sign=True)
    policy.check_load(desk.registry.catalog, desk.registry.get_version("iris", 1), "Production")
    keys.use(desk.sandbox, "ana")
    desk.registry.promote("iris", 1, "Archived", archive_existing=False, sign=True)
    desk.registry.promote("iris", 1, "Production", archive_existing=True, sign=True)
    with pytest.raises(PolicyError, match=r"it has 1 \(ana@lab\)"):
        policy.check_load(desk.registry.catalog, desk.registry.get_version("iris", 1), "Production")


# --- settings of git


def test_verdicts_follow_the_allowed_signers(signed: Desk, keys: Keys) -> None:
    assert verdict(signed, TAG).valid
    listed = (keys.folder / "allowed").read_text()
    (keys.folder / "allowed").write_text("")
    assert not verdict(signed, TAG).valid
    (keys.folder / "allowed").write_text(listed)
    assert verdict(signed, TAG).valid
    signed.sandbox.git("config", "--unset", "gpg.ssh.allowedSignersFile")
    found = verdict(signed, TAG)
    assert (found.state, found.reason) == ("bad", "there are no allowed signers to check it against")
    assert "allowedSignersFile" in (found.hint or "")


def test_settings_of_an_included_file_sign_too(desk: Desk, keys: Keys, tmp_path: Path) -> None:
    """Many people have their key in a file that git includes for the folders of their work."""
    settings = tmp_path / "work.gitconfig"
    desk.sandbox.git("config", "--file", str(settings), "gpg.format", "ssh")
    desk.sandbox.git("config", "--file", str(settings), "user.signingKey", str(keys.folder / "ana"))
    desk.sandbox.git("config", "--file", str(settings), "gpg.ssh.allowedSignersFile", str(keys.folder / "allowed"))
    git_dir = desk.sandbox.git("rev-parse", "--absolute-git-dir")
    desk.sandbox.git("config", "--global", f"includeIf.gitdir:{git_dir}.path", str(settings))
    desk.registry.register("iris", desk.run(), "model", sign=True)
    assert verdict(desk, "models/iris/v1").valid


def test_a_relative_list_of_signers_is_found_from_the_top(signed: Desk, keys: Keys) -> None:
    signed.sandbox.write("signers", (keys.folder / "allowed").read_text())
    signed.sandbox.git("config", "gpg.ssh.allowedSignersFile", "signers")
    assert verdict(signed, TAG).valid
    (signed.sandbox.path / "signers").write_text("")
    assert not verdict(signed, TAG).valid
    signed.sandbox.write("signers", (keys.folder / "allowed").read_text())
    signed.registry.promote("iris", 2, "Staging", archive_existing=True, sign=True)
    assert verdict(signed, "models/iris/staging/1").valid


def test_signing_runs_no_hook_and_leaves_nothing(
    make_repo: MakeRepo, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk.at(make_repo("linked"))
    keys.use(desk.sandbox, "ana")
    hooks = Path(desk.sandbox.git("rev-parse", "--git-common-dir")) / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "reference-transaction").write_text(f"#!/bin/sh\ntouch '{tmp_path}/PWNED'\n")
    (hooks / "reference-transaction").chmod(0o755)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    desk.registry.register("iris", desk.run(), "model", sign=True)
    assert verdict(desk, "models/iris/v1").valid
    assert not (tmp_path / "PWNED").exists()
    assert list(temporary.iterdir()) == []


def test_a_signed_tag_is_on_disk_before_its_ref(signed: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(monkeypatch, signed.sandbox.path / ".git")
    signed.registry.promote("iris", 2, "Production", archive_existing=True, sign=True)
    seen.assert_durable()
    renames = [event[-1] for event in seen.events if event[0] in ("replace", "rename")]
    pack = next(at for at, name in enumerate(renames) if name.endswith(".idx"))
    ref = next(at for at, name in enumerate(renames) if name.endswith("refs/tags/models/iris/production/2"))
    assert pack < ref
    synced = [at for at, event in enumerate(seen.events) if event == ("fsync", str(Path(renames[pack]).parent))]
    moved = next(at for at, event in enumerate(seen.events) if event[-1] == renames[ref])
    assert min(synced) < moved
