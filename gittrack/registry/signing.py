"""Signatures: tags signed with a person's own git settings, and the question whether a tag is what it claims to be.

The cryptography is stock git's: `git tag -s` and `git verify-tag`, with ``gpg.format``, ``user.signingKey``,
``gpg.ssh.allowedSignersFile`` and ``gpg.ssh.revocationFile`` as the person set them.  A good signature alone proves
little: git finds nothing wrong with a signed tag object that was copied to another name.  So the object's own name, its
target, the manifest of the files and the version it is about are compared as well.

What counts as a signer: for ssh, a principal of the allowed signers; for gpg, a key whose owner is known for certain
(trust ``full`` or ``ultimate``), named by its fingerprint, since anybody can write any address into a key.

Signing happens in an empty repository that borrows the objects of the real one.  The tag object that results goes into
a ``Batch``, so that it gets on disk, and its ref after it, in the one way that everything does.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from gittrack.errors import CorruptError, GitError, NotFoundError
from gittrack.registry import events, names
from gittrack.registry.events import AliasTag, Event, StageTag, VersionTag
from gittrack.registry.state import claim
from gittrack.store import layout
from gittrack.store.gateway import Git, Result, strip_credentials
from gittrack.store.pack import TAG_TYPE
from gittrack.types import ModelVersion, ModelVersionStages, ObjectId

if TYPE_CHECKING:
    from gittrack.registry.catalog import Catalog
    from gittrack.registry.state import ModelState
    from gittrack.store.git import GitStore
    from gittrack.store.pack import Batch

#: Seconds for one verification; signing has no limit, because it may ask for a passphrase.
VERIFY_TIMEOUT: Final = 30.0
UNSIGNED: Final = "it is not signed"
_TAGS: Final = "refs/tags/"

#: How git finds a signature: any line that begins so, wherever it is; the last one counts.
_ARMOUR = re.compile(rb"^-----BEGIN (PGP SIGNATURE|PGP MESSAGE|SIGNED MESSAGE|SSH SIGNATURE)-----", re.MULTILINE)
#: All of it: nothing may follow.
_ARMOURED = re.compile(rb"-----BEGIN ([A-Z ]+)-----\n(?:[^\n-][^\n]*\n|\n)*-----END \1-----\n?")
_METHODS: Final[Mapping[bytes, Method]] = {
    b"PGP SIGNATURE": "openpgp",
    b"PGP MESSAGE": "openpgp",
    b"SIGNED MESSAGE": "x509",
    b"SSH SIGNATURE": "ssh",
}
_SSH_GOOD = re.compile(r'Good "git" signature for (.+) with (\S+) key (SHA256:[A-Za-z0-9+/]+)')
_GNUPG: Final = "[GNUPG:] "
_GPG_TRUSTED: Final = ("TRUST_FULLY", "TRUST_ULTIMATE")
#: What gpg says of a signature that is not good, for people.
_GPG_BAD: Final = {
    "BADSIG": "the signature does not fit the text",
    "REVKEYSIG": "the key was revoked",
    "EXPKEYSIG": "the key has expired",
    "EXPSIG": "the signature has expired",
    "NO_PUBKEY": "the key is not in the keyring",
    "ERRSIG": "the signature cannot be checked",
    "NODATA": "the signature cannot be read",
}
#: Settings that decide how somebody signs.
_SIGNING_KEYS: Final = r"^(gpg|user|committer)\."

Method = Literal["ssh", "openpgp", "x509"]
State = Literal["good", "unsigned", "bad"]


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found out about a tag.

    Attributes:
        tag: Its name below ``refs/tags/``.
        oid: Id of the tag object.
        state: ``good``: signed by an allowed signer, and all it says is true.  ``unsigned``: true, but not signed.
            ``bad``: anything else.
        signer: Who signed it: a principal (ssh) or a user id (gpg).
        key: Fingerprint of the key.
        method: The kind of signature.
        reason: Why the state is not ``good``; empty if it is.
        hint: The next step, if one is known.
    """

    tag: str
    oid: ObjectId
    state: State
    signer: str | None = None
    key: str | None = None
    method: Method | None = None
    reason: str = ""
    hint: str | None = None

    @property
    def valid(self) -> bool:
        """True if it is signed by an allowed signer and all it says is true."""
        return self.state == "good"

    def is_by(self, signers: Iterable[str]) -> bool:
        """True if the signer is one of these: principals of ssh, or fingerprints of any kind of key."""
        known = {self.key, self.signer if self.method == "ssh" else None} - {None}
        return any(signer in known or _fingerprint(signer) in known for signer in signers)


def _fingerprint(text: str) -> str:
    """A gpg fingerprint as gpg prints it to programs."""
    return text.replace(" ", "").removeprefix("0x").upper()


def people(found: Iterable[Verification]) -> int:
    """How many different people signed: the same key or the same name means the same person."""
    groups: list[set[str | None]] = []
    for one in found:
        mine = {one.key, one.signer} - {None}
        same = [group for group in groups if group & mine]
        groups = [group for group in groups if group not in same] + [mine.union(*same)]
    return len(groups)


# -- signing -----------------------------------------------------------------------------------------------------------


def sign_tag(
    git: GitStore, batch: Batch, name: str, target: ObjectId, message: str, *, time_s: int | None = None
) -> Verification:
    """Add a signed annotated tag object to a batch; no ref is made.

    Args:
        git: Where the target is, and whose settings say how to sign.
        batch: To be published together with the tag's ref.
        name: The tag's name below ``refs/tags/``.
        target: The commit it points at.
        message: Its text, taken as it is.
        time_s: Seconds since the epoch; now if not given.

    Returns:
        The tag's id, and what ``git verify-tag`` says here about its signature.

    Raises:
        GitError: git could not sign it, or wrote something else.
    """
    settings = _signing_settings(git.program)
    when = {} if time_s is None else {"GIT_COMMITTER_DATE": f"{time_s} +0000"}
    with tempfile.TemporaryDirectory(prefix="gittrack-sign-") as folder:
        program = _borrowing(git, Path(folder))
        env = {**settings, **when}
        command = ("tag", "--sign", "--cleanup=verbatim", "--file=-", "--", name, target)
        done = program.call(*command, input=message.encode(), env=env)
        if done.status != 0:
            raise GitError(
                f"`{name}` could not be signed: {_said(done)}",
                hint="git signs with `user.signingKey` and `gpg.format`; see `gittrack help signing`",
            )
        oid = ObjectId((Path(folder) / _TAGS / name).read_text(encoding="ascii").strip())
        data = program.run("cat-file", "tag", oid)
        body = data.partition(b"\n\n")[2]
        if batch.add_raw(TAG_TYPE, data) != oid or not _is_asked(data, name, target, message):
            raise GitError(f"git did not sign `{name}` as it was asked to", hint="look at `gpg.program`")
        return _signature(program, name, oid, body, env)


def _is_asked(data: bytes, name: str, target: ObjectId, message: str) -> bool:
    """True if a tag object is the one that was asked for, and signed."""
    head, _, body = data.partition(b"\n\n")
    found = _ARMOUR.search(body)
    return (
        head.startswith(f"object {target}\ntype commit\ntag {name}\ntagger ".encode())
        and found is not None
        and body[: found.start()] == message.encode()
    )


def _signing_settings(program: Git) -> dict[str, str]:
    """The person's settings for signing, as they hold in this repository, as variables for git."""
    found = program.call("config", "--null", "--get-regexp", _SIGNING_KEYS)
    pairs = [part.partition("\n") for part in found.stdout.decode("utf-8", "surrogateescape").split("\0") if part]
    settings = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for at, (key, separator, value) in enumerate(pairs):
        settings[f"GIT_CONFIG_KEY_{at}"] = key
        settings[f"GIT_CONFIG_VALUE_{at}"] = value if separator else "true"
    return settings


def _borrowing(git: GitStore, folder: Path) -> Git:
    """An empty repository in ``folder`` that finds the objects of ``git``."""
    for part in ("objects/info", "refs"):
        (folder / part).mkdir(parents=True)
    sha256 = git.paths.object_format == "sha256"
    version = "1\n[extensions]\n\tobjectFormat = sha256" if sha256 else "0"
    (folder / "config").write_text(f"[core]\n\trepositoryFormatVersion = {version}\n", encoding="ascii")
    quoted = (
        (git.paths.common_dir / "objects").as_posix().replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    )
    (folder / "objects" / "info" / "alternates").write_text(f'"{quoted}"\n', encoding="utf-8", errors="surrogateescape")
    (folder / "HEAD").write_text("ref: refs/heads/none\n", encoding="ascii")
    return Git(folder, git.paths.work_tree)


def _said(result: Result) -> str:
    """What git and the program it started said, without what says nothing."""
    lines = result.stderr.decode("utf-8", "replace").splitlines()
    plain = [re.sub(r"^(error|fatal|gpg): ", "", line).strip() for line in lines]
    told = [line for line in plain if line and not line.startswith(("hint:", "unable to sign", "gpg failed to sign"))]
    return strip_credentials("; ".join(told[:3])) or f"exit status {result.status}"


# -- one tag's signature -----------------------------------------------------------------------------------------------


def _signature(
    program: Git, tag: str, oid: ObjectId, message: bytes, env: Mapping[str, str] | None = None
) -> Verification:
    """What stock git says about the signature of a tag object with that message; nothing else is looked at."""
    armours = list(_ARMOUR.finditer(message))
    if not armours:
        return Verification(tag, oid, "unsigned", reason=UNSIGNED, hint="`--sign` signs what is promoted or registered")
    method = _METHODS[armours[-1][1]]
    wrong = Verification(tag, oid, "bad", method=method)
    # Signed text in which another signature seems to end, or text behind the signature, deceives whoever reads it.
    if len(armours) > 1:
        return replace(wrong, reason=f"it has {len(armours)} signatures")
    if not _ARMOURED.fullmatch(message, armours[0].start()):
        return replace(wrong, reason="its signature has an unknown form")
    said = program.call("verify-tag", "--raw", "--", oid, env=env, timeout=VERIFY_TIMEOUT)
    text = (said.stdout + said.stderr).decode("utf-8", "replace")
    found = _read_ssh(wrong, text) if method == "ssh" else _read_gpg(wrong, text)
    if found.valid and said.status != 0:
        return replace(found, state="bad", reason="git does not accept its signature: " + _said(said))
    return found


def _read_ssh(wrong: Verification, text: str) -> Verification:
    good = [match for line in text.splitlines() if (match := _SSH_GOOD.fullmatch(line))]
    if len(good) == 1:
        return replace(wrong, state="good", signer=good[0][1], key=good[0][3])
    key = re.search(r"^Good \"git\" signature with \S+ key (SHA256:\S+)$", text, re.MULTILINE)
    wrong = replace(wrong, key=None if key is None else key[1])
    hint = "`gpg.ssh.allowedSignersFile` of git's settings lists whose signatures count; see `gittrack help signing`"
    if "allowedSignersFile needs to be configured" in text or "Unable to open allowed keys file" in text:
        return replace(wrong, reason="there are no allowed signers to check it against", hint=hint)
    if "revoked" in text.lower():
        return replace(wrong, reason="the key was revoked")
    if "key has expired" in text or "key is not yet valid" in text:
        return replace(wrong, reason="the key was not valid at the tag's time")
    if key is not None:
        return replace(wrong, reason=f"the key {key[1]} is not among the allowed signers", hint=hint)
    return replace(wrong, reason="the signature does not fit the text")


def _read_gpg(wrong: Verification, text: str) -> Verification:
    said = [line[len(_GNUPG) :].split(" ") for line in text.splitlines() if line.startswith(_GNUPG)]
    words = [line[0] for line in said]
    for word, reason in _GPG_BAD.items():
        if word in words:
            return replace(wrong, reason=reason)
    good = [line for line in said if line[0] == "GOODSIG" and len(line) > 2]
    valid = [line for line in said if line[0] == "VALIDSIG" and len(line) > 1]
    if len(good) != 1 or len(valid) != 1:
        return replace(wrong, reason="gpg cannot check the signature", hint="is gpg installed?")
    known = replace(wrong, signer=" ".join(good[0][2:]), key=valid[0][10] if len(valid[0]) > 10 else valid[0][1])
    if not any(word in _GPG_TRUSTED for word in words):
        return replace(
            known,
            reason=f"it is not certain whose key {known.key} is",
            hint=f"if you know: gpg --lsign-key {known.key}",
        )
    return replace(known, state="good")


# -- verifying events --------------------------------------------------------------------------------------------------

#: Good ssh signatures by repository, tag object and what they were checked against.  Only in memory: a verdict that
#: came out of a file of the repository would be worth as much as the repository.
_verdicts: OrderedDict[tuple[str, ObjectId, bytes], Verification] = OrderedDict()
_MOST_VERDICTS: Final = 4096


class Verifier:
    """Verifies tags of one registry; made anew for each question, since keys may have been revoked meanwhile.

    Args:
        catalog: Of that registry.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._git = catalog.repo.git
        self._whole: set[tuple[str, int]] = set()
        self._against: bytes | None = None

    def tags(self, key: str) -> list[str]:
        """The names of all tags of a model, those that do not count too."""
        return [ref[len(_TAGS) :] for ref in self._git.refs(f"{layout.TAG_PREFIX}{key}/")]

    def verify(self, tag: str, state: ModelState) -> Verification:
        """Whether the tag of that name is signed by an allowed signer, and all it says is true.

        Args:
            tag: Its name below ``refs/tags/``.
            state: Of the model that it is about.

        Raises:
            NotFoundError: There is no such tag.
            GitError: git cannot be run.
        """
        oid = self._git.ref(_TAGS + tag)
        if oid is None:
            raise NotFoundError(f"no tag `{tag}`")
        wrong = Verification(tag, oid, "bad")
        try:
            info = self._git.read_tag(oid)
            if info.name != tag:
                return replace(wrong, reason=f"it was made as `{info.name}` and copied here")
            event = events.parse(oid, info)
            self._require_true(event, state)
        except (CorruptError, NotFoundError) as error:
            return replace(wrong, reason=error.message, hint=error.hint)
        return self._checked(tag, oid, info.message)

    def _require_true(self, event: Event, state: ModelState) -> None:
        """Raise CorruptError or NotFoundError unless all that an event says is so."""
        if isinstance(event, VersionTag):
            self._require_files(event, event.number, state)
        elif isinstance(event, (StageTag, AliasTag)):
            self._require_order(event)
            if event.version is not None:
                self._require_files(event, event.version, state)

    def _require_files(self, event: VersionTag | StageTag | AliasTag, number: int, state: ModelState) -> None:
        """Raise CorruptError or NotFoundError unless it is about that version, and that is as it was registered."""
        version = state.versions.get(number)
        if version is None:
            raise NotFoundError(f"it is about v{number}, which does not exist here", hint="fetch all tags of the model")
        if version.target != event.target:
            raise CorruptError(f"it points at commit `{event.target[:10]}`, v{number} is `{version.target[:10]}`")
        if (version.run_id, version.manifest) != (event.run_id, event.manifest):
            raise CorruptError(f"it is about other files than those of v{number}")
        if (state.key, number) not in self._whole:
            self._catalog.repo.stored_state(version.run_id, [version.target])  # it is a commit of that run
            self._catalog.manifest(state.version_record(number))
            self._whole.add((state.key, number))

    def _require_order(self, event: StageTag | AliasTag) -> None:
        """Raise CorruptError unless what an event replaces or approves is what has these names here.

        A name that is not here is no fault: purging removes tags.  Two events of one name, made in two clones, are both
        replaced by the event that settled it; one of them has the name.
        """
        said: dict[str, set[ObjectId]] = {}
        for ref in (*event.replaces, *(event.approves if isinstance(event, StageTag) else ())):
            said.setdefault(ref.tag, set()).add(ref.oid)
        for tag, oids in said.items():
            here = self._git.ref(_TAGS + tag)
            if here is not None and here not in oids:
                raise CorruptError(f"it comes after another `{tag}` than the one that is here")
            folder, _, number = tag.rpartition("/")
            if folder == event.tag.rpartition("/")[0] and number.isdecimal() and int(number) >= event.number:
                raise CorruptError(f"it comes after `{tag}`, which is later")

    def _checked(self, tag: str, oid: ObjectId, message: str) -> Verification:
        """The verdict on a tag's signature, from memory if it is one that time does not change."""
        if not _ARMOUR.search(message.encode()):  # most tags are not signed, and git need not be asked about that
            return _signature(self._git.program, tag, oid, message.encode())
        if self._against is None:
            self._against = _compared_with(self._git)
        key = (str(self._git.paths.common_dir), oid, self._against)
        if key in _verdicts:
            _verdicts.move_to_end(key)
            return replace(_verdicts[key], tag=tag)
        found = _signature(self._git.program, tag, oid, message.encode())
        if found.method == "ssh" and found.valid:
            _verdicts[key] = found
            if len(_verdicts) > _MOST_VERDICTS:
                _verdicts.popitem(last=False)
        return found


def _compared_with(git: GitStore) -> bytes:
    """A digest of all that a verdict on an ssh signature depends on: git's settings, and the files that they name."""
    settings = git.program.call("config", "--null", "--get-regexp", r"^gpg\.").stdout
    digest = hashlib.sha256(settings)
    names = git.program.call("config", "--null", "--type=path", "--get-regexp", r"^gpg\.ssh\..*file$").stdout
    base = git.paths.work_tree or git.paths.git_dir
    for part in names.decode("utf-8", "surrogateescape").split("\0"):
        if part:
            file = base / part.partition("\n")[2]
            digest.update(b"\0" + (file.read_bytes() if file.is_file() else b"-"))
    return digest.digest()


def verify_version(catalog: Catalog, version: ModelVersion, verifier: Verifier | None = None) -> Verification:
    """Whether an allowed signer vouches for the files of a version.

    That is so if its own tag is signed, or an event that holds and puts it into use: into Staging or Production, or
    an alias.

    Args:
        catalog: Of the registry that it is in.
        version: The version.
        verifier: One for all versions that are asked for at a time.

    Raises:
        GitError: git cannot be run.
    """
    verifier, state = verifier or Verifier(catalog), catalog.state(version.key)
    own = verifier.verify(version.tag, state)
    if own.valid:
        return own
    number = int(version.version)
    for event in holding(state, number):
        if _puts_to_use(event, number) and (found := verifier.verify(event.tag, state)).valid:
            return found
    return own


def holding(state: ModelState, number: int) -> list[StageTag | AliasTag]:
    """The events that say where a version is and which aliases it has, and those that approve them."""
    aliases = [alias for alias, version in state.aliases().items() if version == number]
    heads = [*state.heads(number), *(head for alias in aliases for head in state.heads(f"@{alias}"))]
    return [*heads, *(one for one in approvals(state, heads) if one.version == number)]


def _puts_to_use(event: StageTag | AliasTag, number: int) -> bool:
    return not isinstance(event, StageTag) or claim(event, number) in ModelVersionStages.ACTIVE


def approvals(state: ModelState, of: Iterable[Event]) -> list[StageTag]:
    """The events that approve one of these."""
    known = {event.oid for event in of}
    return [event for event in state.approvals if any(ref.oid in known for ref in event.approves)]


def verify(catalog: Catalog, tag: str) -> Verification:
    """Whether the tag of that name (below ``refs/tags/``) is signed by an allowed signer, and all it says is true.

    Raises:
        NotFoundError: There is no such tag.
        FormatError: The registry has no tags of such names.
        GitError: git cannot be run.
    """
    catalog.refresh()
    return Verifier(catalog).verify(tag, catalog.state(names.parse_tag(tag).key))


__all__ = [
    "UNSIGNED",
    "Verification",
    "Verifier",
    "approvals",
    "holding",
    "people",
    "sign_tag",
    "verify",
    "verify_version",
]
