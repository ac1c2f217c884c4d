"""Names of the registry: refs, model names, aliases and addresses, written and read side by side.

    models/<key>/v<N>               a version
    models/<key>/<stage>/<K>        the K-th event that put a version in that stage; `none` ends a stage
    models/<key>/@<alias>/<K>       the K-th event about an alias

``key`` is the model's first name, percent-encoded so that it is one part of a ref on every file system; ``+2``, ``+3``
… is appended where that part is taken by a model that was renamed.  Knows names only, no git.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from gittrack.errors import FormatError, InvalidValueError
from gittrack.types import ModelVersionStages

#: Bytes of a model's or an alias's part of a ref: a file system's limit, with room for what git appends.
MAX_PART: Final = 200
MAX_ALIAS: Final = 255
MAX_TAG_KEY: Final = 250
MAX_TAG_VALUE: Final = 100_000
MAX_NUMBER: Final = 2**31 - 1

_TAG = re.compile(r"models/([^/]+)/(?:v([1-9][0-9]{0,9})|(staging|production|archived|none|@[^/]+)/([1-9][0-9]{0,9}))")
_KEY = re.compile(r"([A-Za-z0-9_.%-]+)(?:\+([2-9]|[1-9][0-9]{1,5}))?")
_ALIAS = re.compile(r"[\w\-]+")
_VERSION_LIKE = re.compile(r"[vV]\d+")
_TAG_NAME = re.compile(r"[\w.\-/: ]*")
_CONTROL: Final = ("Cc", "Cs", "Zl", "Zp")


class TagName(NamedTuple):
    """A tag of the registry by its parts.

    Attributes:
        key: The model's.
        slot: ``v`` for a version, else a stage in lower case, or ``@`` and an alias (decoded).
        number: Of the version, or of the event in its slot.
    """

    key: str
    slot: str
    number: int

    def __str__(self) -> str:
        """The name below ``refs/tags/``."""
        if self.slot == "v":
            return f"models/{self.key}/v{self.number}"
        slot = "@" + _encoded(self.slot[1:]) if self.slot.startswith("@") else self.slot
        return f"models/{self.key}/{slot}/{self.number}"


@lru_cache(maxsize=1 << 16)  # a registry reads the names of all its tags each time one is new
def parse_tag(name: str) -> TagName:
    """The inverse of ``str(TagName)``.  Raises FormatError for what that would not write."""
    match = _TAG.fullmatch(name)
    if match is None:
        raise FormatError(f"`{name!r:.200}` is no tag of the registry")
    key, version, slot, number = match.groups()
    slot = slot or "v"
    if slot.startswith("@"):
        slot = "@" + unquote(slot[1:], errors="replace")
    found = TagName(key, slot, int(version or number))
    if str(found) != name or found.number > MAX_NUMBER or not is_key(key):
        raise FormatError(f"`{name!r:.200}` is no tag of the registry")
    return found


# -- model names and keys ----------------------------------------------------------------------------------------------


def _encoded(text: str) -> str:
    """Percent-encoded to one part of a ref: letters, digits, ``_``, ``-``, and dots where git allows them."""
    encoded = quote(text, safe="").replace("~", "%7E")
    # git refuses a leading dot, two in a row, and `.lock` at the end; Windows one at the end.
    return re.sub(r"^\.|\.(?=\.|$|lock$)", "%2E", encoded)


def key_of(name: str, attempt: int = 1) -> str:
    """The key of a model that is first called ``name``; the second, third … choice if it is taken."""
    return _encoded(name) + ("" if attempt == 1 else f"+{attempt}")


def first_name(key: str) -> str:
    """The name that a key was made from."""
    return unquote(key.partition("+")[0], errors="replace")


def is_key(text: str) -> bool:
    """True for what ``key_of`` writes."""
    match = _KEY.fullmatch(text)
    return match is not None and is_model_name(first_name(text)) and _encoded(first_name(text)) == match[1]


def is_model_name(text: str) -> bool:
    """True for what ``check_model_name`` lets pass."""
    try:
        return check_model_name(text) == text
    except InvalidValueError:
        return False


def folded(name: str) -> str:
    """What two names have in common that a person or a file system could take for each other."""
    return unicodedata.normalize("NFC", name).casefold()


def check_model_name(name: object) -> str:
    """A model's name, as MLflow allows it, in one printable line.

    Raises:
        InvalidValueError: It is empty, has ``/``, ``:`` or a control character, is ``.`` or ``..``, or is too long.
    """
    if not isinstance(name, str) or not name.strip():
        raise InvalidValueError("a model's name is missing or blank", hint="give it a name")
    if "/" in name or ":" in name:
        raise InvalidValueError(f"invalid model name `{name:.80}`", hint="a name cannot contain `/` or `:`")
    if posixpath.normpath(name) != name or name in (".", ".."):
        raise InvalidValueError(f"invalid model name `{name:.80}`", hint="a name is no path")
    if any(unicodedata.category(char) in _CONTROL for char in name):
        raise InvalidValueError(f"invalid model name `{name!r:.80}`", hint="it has an unprintable character")
    if len(_encoded(name)) > MAX_PART:
        raise InvalidValueError(f"model name `{name:.80}…` is too long", hint=f"at most {MAX_PART} bytes, encoded")
    return name


def check_alias(alias: object) -> str:
    """An alias to be set.  Raises InvalidValueError for one that MLflow refuses, or that is too long for a ref."""
    if not isinstance(alias, str) or not alias:
        raise InvalidValueError("an alias is missing or empty", hint="give it a name")
    if not _ALIAS.fullmatch(alias):
        raise InvalidValueError(f"invalid alias `{alias!r:.80}`", hint="letters, digits, `_` and `-` only")
    if len(alias) > MAX_ALIAS or len(_encoded(alias)) > MAX_PART:
        raise InvalidValueError(f"alias `{alias:.80}…` is too long", hint=f"at most {MAX_PART} bytes, encoded")
    if alias.lower() == "latest" or _VERSION_LIKE.fullmatch(alias):
        raise InvalidValueError(f"the alias `{alias}` is reserved", hint="it would read as a version")
    return alias


def check_version(version: object) -> int:
    """A version's number, from a number or its digits.  Raises InvalidValueError."""
    if isinstance(version, bool) or not isinstance(version, (int, str)):
        raise InvalidValueError(f"invalid version `{version!s:.40}`", hint="a version is a whole number")
    text = str(version)
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > MAX_NUMBER:
        raise InvalidValueError(f"invalid version `{text:.40}`", hint="a version is a whole number")
    return int(text)


def check_model_tag(key: object, value: object) -> tuple[str, str]:
    """Key and value (as text) of a tag of a model or version, within MLflow's limits.  Raises InvalidValueError."""
    name = check_tag_key(key)
    text = str(value)
    if len(text) > MAX_TAG_VALUE:
        raise InvalidValueError(
            f"tag `{name:.80}` has {len(text)} characters", hint=f"at most {MAX_TAG_VALUE} characters"
        )
    return name, text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_tag_key(key: object) -> str:
    """The key of a tag of a model or version.  Raises InvalidValueError."""
    if not isinstance(key, str) or not key:
        raise InvalidValueError("a tag's key is missing", hint="give it a key")
    if not _TAG_NAME.fullmatch(key) or posixpath.normpath(key) != key or key.startswith(("/", "..")) or key == ".":
        raise InvalidValueError(
            f"invalid tag key `{key!r:.80}`", hint="letters, digits, `_ - . : /` and spaces; as a path, a plain one"
        )
    if len(key) > MAX_TAG_KEY:
        raise InvalidValueError(f"tag key `{key:.80}…` has {len(key)} characters", hint=f"at most {MAX_TAG_KEY}")
    return key


# -- addresses ---------------------------------------------------------------------------------------------------------


class Address(NamedTuple):
    """What ``models:/…`` or ``name@…`` asks for; of the last four exactly one is set, or none for the model itself.

    ``word`` stands for an alias or, if there is no such alias, for a version's number or a stage.
    """

    name: str
    version: int | None = None
    stage: str | None = None
    latest: bool = False
    word: str | None = None

    @property
    def of_model(self) -> bool:
        """True if it names a model and no version of it."""
        return self[1:] == (None, None, False, None)


def address_of(name: str, version: int | str) -> str:
    """The address of a version."""
    return f"models:/{name}/{version}"


def is_address_of_version(text: str) -> bool:
    """True for what ``address_of`` writes."""
    try:
        found = parse_address(text)
    except InvalidValueError:
        return False
    return found.version is not None and address_of(found.name, found.version) == text


def parse_address(text: str) -> Address:
    """Read an address.

    ``name/3``, ``name/Production``, ``name/latest``, ``name@champion``, ``name@v3``, ``name@3``, ``name@production``,
    ``name@latest``, each with or without ``models:/`` before it; ``name`` alone is the model.  What is behind the last
    ``@`` is no part of the name.

    Raises:
        InvalidValueError: It is none of these.
    """
    if not isinstance(text, str):
        raise InvalidValueError(f"a model's address is text, not {type(text).__name__}")
    body = re.sub(r"^models:/{0,3}(?=[^/])", "", text)
    if "/" in body:
        name, _, rest = body.rpartition("/")
        check_model_name(name)
        if re.fullmatch(r"[0-9]+", rest):
            return Address(name, version=check_version(rest))
        if rest.lower() == "latest":
            return Address(name, latest=True)
        return Address(name, stage=ModelVersionStages.canonical(rest))
    if "@" not in body:
        return Address(check_model_name(body))
    name, _, rest = body.rpartition("@")
    check_model_name(name)
    if match := re.fullmatch(r"[vV]([0-9]+)", rest):
        return Address(name, version=check_version(match[1]))
    if rest.lower() == "latest":
        return Address(name, latest=True)
    if not _ALIAS.fullmatch(rest):
        raise InvalidValueError(
            f"`{text:.200}` is no model's address", hint="write NAME@ALIAS, NAME@STAGE, NAME@vN, NAME/N or NAME/Stage"
        )
    return Address(name, word=rest)
