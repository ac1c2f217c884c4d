"""What looks like a secret: a file that must not enter a run commit, text that must not enter a record.

A run commit can be pushed and is never rewritten, so a secret in it is lost for good.  Three things are looked at:
names of files (``.env``, ``id_rsa``), names of values (``api_key``, ``--password``), and the shapes of well-known
tokens.  Names are judged word by word, since machine learning is full of harmless ones: ``max_tokens``, ``pad_token``,
``key_dim``, ``forward_pass``.  This is a guard against accidents, not proof that nothing secret is left.

Every function takes time linear in its input: a pattern never starts again inside text that it has already gone over,
or else its length is bounded.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

REDACTED: Final = "[redacted]"  #: stands in for a secret, everywhere


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ---------------------------------------------------------------------------------------------------------------------
# Shapes of tokens.  Searched in bytes, so that one table serves files and text.

#: What it is, the literals that such a token starts with, and what follows.
_SHAPES: Final = (
    ("an AWS access key id", b"AKIA ASIA", rb"[A-Z2-7]{16}(?![A-Za-z0-9])"),
    ("a GitHub token", b"ghp_ gho_ ghu_ ghs_ ghr_", rb"[A-Za-z0-9]{36,255}"),
    ("a GitHub token", b"github_pat_", rb"[A-Za-z0-9_]{36,255}"),
    ("a GitLab token", b"glpat- gldt- glrt-", rb"[A-Za-z0-9_\-]{20,255}"),
    ("a Slack token", b"xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs- xapp-", rb"[A-Za-z0-9\-]{10,255}"),
    ("a Slack webhook", b"hooks.slack.com/services/", rb"T[A-Za-z0-9]{6,16}/B[A-Za-z0-9]{6,16}/[A-Za-z0-9]{16,64}"),
    ("an API key", b"sk-", rb"[A-Za-z0-9]{32,64}(?![A-Za-z0-9_\-])"),
    ("an API key", b"sk-proj- sk-svcacct- sk-admin- sk-ant- sk-or-", rb"[A-Za-z0-9_\-]{20,255}"),
    ("a Hugging Face token", b"hf_", rb"[A-Za-z0-9]{34,64}(?![A-Za-z0-9_])"),
    ("a Google API key", b"AIza", rb"[A-Za-z0-9_\-]{35}(?![A-Za-z0-9_\-])"),
    ("a Google access token", b"ya29.", rb"[A-Za-z0-9_\-]{20,1024}"),
    ("a Google client secret", b"GOCSPX-", rb"[A-Za-z0-9_\-]{28}"),
    ("a JSON web token", b"eyJ", rb"[A-Za-z0-9_\-]{8,4096}\.eyJ[A-Za-z0-9_\-]{8,8192}\.[A-Za-z0-9_\-]{16,2048}"),
    ("a Stripe key", b"sk_live_ rk_live_", rb"[A-Za-z0-9]{16,255}"),
    ("a PyPI token", b"pypi-AgE", rb"[A-Za-z0-9_\-]{50,1024}"),
    ("an npm token", b"npm_", rb"[A-Za-z0-9]{36}(?![A-Za-z0-9_])"),
    ("a SendGrid key", b"SG.", rb"[A-Za-z0-9_\-]{16,64}\.[A-Za-z0-9_\-]{32,128}"),
    ("a Databricks token", b"dapi", rb"[0-9a-f]{32}(?![A-Za-z0-9])"),
)


@cache
def _token_patterns() -> list[tuple[str, bytes, re.Pattern[bytes]]]:
    """One pattern for each literal; made when the first file is looked at, since compiling them takes milliseconds.

    The look-behind follows the literal, so that the engine can skip to the literal; it lets a token start only where a
    word starts, so that a run of word characters is gone over once.
    """
    return [
        (reason, literal, re.compile(start + rb"(?<![A-Za-z0-9_\-]" + start + rb")" + body))
        for reason, literals, body in _SHAPES
        for literal in literals.split()
        for start in [re.escape(literal)]
    ]


#: All of them at once, for short text: slower for each byte than skipping to literals, but only one search.
_ANY_TOKEN: Final = re.compile(
    rb"(?<![A-Za-z0-9_\-])(?:"
    + b"|".join(b"(?:" + b"|".join(map(re.escape, literals.split())) + b")" + body for _, literals, body in _SHAPES)
    + rb")"
)
_SHORTEST_TOKEN: Final = 15

_PLACEHOLDER: Final = re.compile(
    rb"x{4}|\*{3}|\.{3}|example|sample|dummy|placeholder|change.?me|replace|insert|your|abcdef|123456789|"
    rb"<|>|\$|%[({s]|\{|none|null|todo|!(?:secret|vault|env|ref|sub)",
    re.IGNORECASE,
)
_PLACEHOLDER_LETTERS: Final = 5  # as many different characters has `aaaa-bbbb`


def _is_placeholder(value: bytes) -> bool:
    """True for what documentation writes where a secret would stand."""
    return len(set(value)) <= _PLACEHOLDER_LETTERS or _PLACEHOLDER.search(value) is not None


_HEX: Final = re.compile(rb"[0-9a-fA-F]{32,128}")
_KINDS: Final = bytes(ord("a" if c.islower() else "A" if c.isupper() else "0") for c in map(chr, range(128))).ljust(256)
_PUNCTUATION: Final = bytes(c for c in range(256) if not bytes((c,)).isalnum())
_RANDOM_LETTERS: Final = 8  # fewer different characters have 16 random ones only once in 10,000 times, even in hex
#: How often the kind of character (lower, upper, digit) changes from one to the next: by chance 0.40 with two kinds
#: (base 36), 0.47 in hex, 0.62 with three kinds (base 64); in a name only at the borders of words.  Of random strings
#: of 20 characters these limits find 95 in 100, of 40 characters 99.
_RANDOM_CHANGES: Final = 0.2
_RANDOM_CHANGES_3: Final = 0.35


def _looks_random(value: bytes) -> bool:
    """True for a key made by a machine, False for names, paths and words."""
    kinds = value.translate(_KINDS, _PUNCTUATION)
    digits = kinds.count(b"0")
    if len(set(value)) < _RANDOM_LETTERS or not 0 < digits < len(kinds):
        return False
    changes = sum(a != b for a, b in pairwise(kinds)) / len(kinds)
    return changes >= (_RANDOM_CHANGES_3 if b"a" in kinds and b"A" in kinds else _RANDOM_CHANGES)


# ---------------------------------------------------------------------------------------------------------------------
# Names of values.

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORDS: Final = _words(
    "secret secrets passwd passphrase pwd credential credentials authorization jwt apikey apikeys authtoken "
    "accesstoken apitoken accesskey secretkey privatekey accountkey cookie"
)
_KEY_KINDS: Final = _words(
    "api access secret private auth encryption signing account shared ssh service master subscription storage consumer "
    "app application license deploy admin openai anthropic wandb comet neptune kaggle cohere mistral groq"
)
_PASS_KINDS: Final = _words(
    "db database user login admin root smtp ftp mail email redis pg postgres mysql mongo sudo ssh http proxy basic git "
    "registry docker"
)
#: Before ``token`` these make a word of a language model's vocabulary or a position in a text.
_TOKEN_ROLES: Final = _words(
    "pad padding eos bos cls sep separator mask unk unknown special image video audio visual vision text speech start "
    "end stop begin beginning next first last prev previous new class distill distillation word sub prompt query extra "
    "additional blank boi eoi sos eot eod eom oov null dummy think thinking target source input output max min num n "
    "per register memory global local speaker language lang control task latent learnable time timestamp decoder "
    "encoder forced tool patch summary each by of pooling pool cost filler suffix prefix fim system assistant role"
)
_TOKEN_OWNERS: Final = _words("api access auth refresh bearer session")
#: As the last word these say that the value is about a secret and not the secret itself.
_ABOUT: Final = _words(
    "path paths file files dir directory folder name names type types env var len length size dim dims count num ttl "
    "timeout expiry expires policy provider field fields column columns index idx limit rate usage cost mode level "
    "stdin prompt version format required enabled optional prefix suffix region scope scopes loss weight ratio manager "
    "backend store"
)
_HARMLESS: Final = frozenset(("", "true", "false", "none", "null", "yes", "no", "on", "off", REDACTED))
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,32}(?:\.[0-9]{0,32})?(?:[eE][+-]?[0-9]{1,8})?")
_LONGEST_NAME: Final = 256
_NOTHING, _WEAK, _STRONG = 0, 1, 2


@lru_cache(maxsize=4096)
def _secrecy(name: str) -> int:
    """How surely the name of a value names a secret: a ``_WEAK`` one (``token``) may also hold a harmless number."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _ABOUT:
        return _NOTHING
    last, before = words[-1], words[-2] if words[1:] else ""
    if (
        any(word in _SECRET_WORDS or "password" in word for word in words)
        or (last == "pass" and (not before or before in _PASS_KINDS))
        or any(second in ("key", "keys") and first in _KEY_KINDS for first, second in pairwise(words))
    ):
        return _STRONG
    if (last == "token" and before not in _TOKEN_ROLES) or (last == "tokens" and before in _TOKEN_OWNERS):
        return _WEAK
    return _NOTHING


def is_secret_name(name: str) -> bool:
    """True if a value under this name (of a parameter, option, variable or field) is likely a secret."""
    return _secrecy(name[-_LONGEST_NAME:]) != _NOTHING


def _is_secret_value(name: str, value: str) -> bool:
    secrecy = _secrecy(name[-_LONGEST_NAME:])
    if secrecy == _NOTHING or value.strip().lower() in _HARMLESS:
        return False
    return secrecy == _STRONG or not _NUMBER.fullmatch(value.strip())


# ---------------------------------------------------------------------------------------------------------------------
# Redaction of text.

_URL_USER: Final = re.compile(r"://([^\s/?#\"'<>]{1,1024})@")
_QUERY: Final = re.compile(r"([?&;])([A-Za-z0-9_.\-]{1,64})=([^&;\s#\"'<>]+)")
_SIGNATURES: Final = _words("sig signature x-amz-signature x-amz-credential x-goog-signature")
# `name=`, `"name":`; the name starts where a word starts and has a bounded length.
_ASSIGNED: Final = re.compile(
    r"(?<![A-Za-z0-9_.\-])([A-Za-z_][A-Za-z0-9_.\-]{0,63})(?:\s{0,3}=\s{0,3}(?!=)|[\"']\s{0,3}[:=]\s{0,3})"
)
_VALUE: Final = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s\"'&;,}]+")
_HEADER: Final = re.compile(
    r"\b((?:authorization|x-api-key|api-key|x-auth-token|private-token)\s{0,3}:\s{0,3}(?:\w{1,16} )?)[^\s\"',]+",
    re.IGNORECASE,
)
# A whole argument: `--password=x`, `API_KEY=x`, hydra's `+db.password=x`.
_ARGUMENT: Final = re.compile(r"([-+~/]{0,2})([A-Za-z_][A-Za-z0-9_.\-]{0,255})=(.*)", re.DOTALL)
_OPTION: Final = re.compile(r"--?[A-Za-z][A-Za-z0-9_.\-]{0,255}")


def _redact_user(match: re.Match[str]) -> str:
    """Of ``user:password@`` the password goes; over http the user goes too, since a token is often put there."""
    over_http = match.string[max(0, match.start() - 5) : match.start()].lower().endswith(("http", "https"))
    user = match[1].partition(":")[0]
    return f"://{user}@" if user and not over_http else "://"


def _redact_query(match: re.Match[str]) -> str:
    if match[2].lower() in _SIGNATURES or _is_secret_value(match[2], match[3]):
        return f"{match[1]}{match[2]}={REDACTED}"
    return match[0]


def _redact_assigned(text: str) -> str:
    parts: list[str] = []
    done = position = 0
    while match := _ASSIGNED.search(text, position):
        position = match.end()  # what follows may itself be an assignment: `--env=TOKEN=x`
        value = _VALUE.match(text, position) if is_secret_name(match[1]) else None
        if value and _is_secret_value(match[1], value[0].strip("\"'")):
            quote = value[0][0] if value[0][0] in "\"'" else ""
            parts += (text[done:position], quote, REDACTED, quote)
            done = position = value.end()
    return "".join((*parts, text[done:])) if parts else text


def _redact_tokens(text: str) -> str:
    if len(text) < _SHORTEST_TOKEN:
        return text
    data = text.encode("utf-8", "surrogatepass")
    return _ANY_TOKEN.sub(REDACTED.encode(), data).decode("utf-8", "surrogatepass")


def redact_url(url: str) -> str:
    """``url`` without its password (over http without its user, too) and without secrets in its query.

    Text without ``://`` comes back as it is, so ``git@github.com:me/x.git`` and local paths pass.
    """
    if "://" not in url:
        return url
    return _redact_tokens(_QUERY.sub(_redact_query, _URL_USER.sub(_redact_user, url)))


def redact_text(text: str) -> str:
    """Free text without tokens of known shapes, passwords in URLs and the values of ``name=value`` secrets."""
    if "://" in text:
        text = redact_url(text)
    if "=" in text or ":" in text:
        text = _redact_assigned(_HEADER.sub(rf"\1{REDACTED}", text))
    return _redact_tokens(text)


def redact_value(key: str, value: str) -> str:
    """``value`` as it may be recorded under ``key``: ``[redacted]`` if the key names a secret, else cleaned text."""
    return REDACTED if _is_secret_value(key, value) else redact_text(value)


def redact_args(argv: Sequence[str]) -> list[str]:
    """A command line as it may be recorded, argument by argument.

    The values of ``--password x``, ``--token=x``, ``KEY=value`` and ``db.password=x`` go if the name is a secret's; so
    do tokens of known shapes, passwords in URLs and secrets inside JSON.
    """
    redacted: list[str] = []
    option = ""  # whose value this argument is, unless it is an option itself
    for arg in argv:
        named = _ARGUMENT.fullmatch(arg)
        if option and not arg.startswith("-") and _is_secret_value(option, arg):
            redacted.append(REDACTED)
        elif named and _is_secret_value(named[2], named[3]):
            redacted.append(f"{named[1]}{named[2]}={REDACTED}")
        else:
            redacted.append(redact_text(arg))
        option = arg if _OPTION.fullmatch(arg) else ""
    return redacted


# ---------------------------------------------------------------------------------------------------------------------
# Files.

_SECRET_FILES: Final = _words(
    ".netrc _netrc .pypirc .pgpass .my.cnf .htpasswd .git-credentials .dockercfg .boto .s3cfg .env .envrc .vault-token "
    "kaggle.json .terraformrc .kube/config .aws/credentials .docker/config.json .huggingface/token "
    ".streamlit/secrets.toml"
)
_SECRET_ENDS: Final = (".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".ppk", ".kdbx", ".env", ".kubeconfig")
_ENV_TEMPLATES: Final = (".example", ".sample", ".template", ".dist", ".defaults", ".tmpl")
_SECRET_NAME: Final = re.compile(
    r"\.env\..*|id_(?:rsa|dsa|ecdsa|ed25519)(?:_sk)?(?:[._\-].*)?|(?:.*service[-_]?account|client[-_]secret).*\.json|"
    r"(?:credentials?|secrets?|passwords|kubeconfig)(?:\.(?:json|ya?ml|ini|toml|cfg|conf|config|txt|csv|xml|properties))?"
)

_PRIVATE_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z0-9]{2,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_KEY_BODY: Final = re.compile(rb"[A-Za-z0-9+/]{40}")
_KEY_HEADERS: Final = 600  # bytes that headers (Proc-Type, DEK-Info, Version) may take before the key itself
_SERVICE_ACCOUNT: Final = re.compile(rb"\"type\"\s{0,8}:\s{0,8}\"service_account\"")
_ONE_TOKEN: Final = re.compile(rb"\s*([A-Za-z0-9_\-+]{20,512}={0,2})\s*")
# In a program only what has quotes is a literal; inside a notebook's JSON the quotes have backslashes.
_LONG_VALUE: Final = re.compile(rb"[:=]\s{0,8}[bru]?(\\?[\"']?)([A-Za-z0-9+/=_\-]{20,512})")
_PROGRAMS: Final = tuple(
    _words(
        ".py .pyi .pyx .js .jsx .mjs .ts .tsx .c .cc .cpp .cu .h .hpp .java .kt .scala .go .rs .r .jl .lua .rb .swift"
    )
)
_NAME_BYTES: Final = bytes(c for c in range(256) if bytes((c,)).isalnum() or c in b"_-")
_URL_PASSWORD: Final = re.compile(rb"://[^\s/:@\"'<>{}$`]{1,64}:([^\s/@\"'<>{}$*`%]{3,128})@")
_PASSWORD_FILES: Final = (".json", ".yml", ".yaml", ".ini", ".toml", ".cfg", ".conf", ".config", ".properties", ".xml")
_PASSWORD: Final = re.compile(
    rb"(?:password|passwd|passphrase)[\"']?[ \t]{0,8}[:=][ \t]{0,8}[\"']?([^\s\"'#,;]{6,256})", re.IGNORECASE
)
_NO_PASSWORD: Final = re.compile(
    rb"(?:(?:my|the|a)?[-_]?(?:pass|passwd|passw|password|pwd|secret|token|string|required|optional)|true|false)\W*",
    re.IGNORECASE,
)


def _secret_by_name(path: str) -> str | None:
    parts = [part for part in path.replace("\\", "/").lower().split("/") if part]
    if not parts:
        return None
    name = parts[-1].rstrip(" .")  # Windows opens `.env.` and `.env ` as `.env`
    if name.endswith((".pub", *_ENV_TEMPLATES)):
        return None
    if (
        name in _SECRET_FILES
        or "/".join((*parts[-2:-1], name)) in _SECRET_FILES
        or name.endswith(_SECRET_ENDS)
        or _SECRET_NAME.fullmatch(name)
    ):
        return f"`{name[:80]}` is a name that secrets have"
    return None


def _has_key(head: bytes) -> str | None:
    if any(_KEY_BODY.search(head, key.end(), key.end() + _KEY_HEADERS) for key in _PRIVATE_KEY.finditer(head)):
        return "it holds a private key"
    if b"client-key-data:" in head:
        return "it holds a client key of a cluster"
    if b"private_key" in head and _SERVICE_ACCOUNT.search(head):
        return "it is the key of a service account"
    return None


def _has_token(head: bytes) -> str | None:
    for reason, literal, pattern in _token_patterns():
        if any(not _is_placeholder(match[0][len(literal) :]) for match in pattern.finditer(head)):
            return f"it holds {reason}"
    whole = _ONE_TOKEN.fullmatch(head)
    if whole and not _HEX.fullmatch(whole[1]) and _looks_random(whole[1]):  # hex alone is a checksum
        return "all of it is one random token"
    return None


def _names_random_value(match: re.Match[bytes], must_be_quoted: bool) -> bool:
    """True if ``_LONG_VALUE`` has found a random literal, and before it the name of a secret."""
    head, value = match.string, match[2]
    if must_be_quoted and not match[1]:
        return False
    before = head[max(0, match.start() - _LONGEST_NAME) : match.start()].rstrip(b" \t\"'\\")
    name = before[len(before.rstrip(_NAME_BYTES)) :]
    return is_secret_name(name.decode("ascii")) and _looks_random(value) and not _is_placeholder(value)


def _has_named_secret(name: str, head: bytes) -> str | None:
    is_program = name.endswith(_PROGRAMS)
    if any(_names_random_value(match, is_program) for match in _LONG_VALUE.finditer(head)):
        return "it gives a random value to the name of a secret"
    passwords = [(_URL_PASSWORD, "it holds a URL with a password")]
    if name.endswith(_PASSWORD_FILES):
        passwords.append((_PASSWORD, "it holds a password"))
    for pattern, reason in passwords:
        for match in pattern.finditer(head):
            if not _NO_PASSWORD.fullmatch(match[1]) and not _is_placeholder(match[1]):
                return reason
    return None


def looks_secret(path: str, head: bytes) -> str | None:
    """Why a file looks like it holds a secret, or None.

    Args:
        path: Path of the file, with ``/`` or the system's separator; the last two parts count.
        head: First bytes of the file.  What is not passed is not seen, so pass a small text file whole.

    Returns:
        A short reason for people (``it holds a GitHub token``) that never quotes the secret, or None.
    """
    return _secret_by_name(path) or _has_key(head) or _has_token(head) or _has_named_secret(path.lower(), head)
