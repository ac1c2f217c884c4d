"""Settings: the one reader of the process environment, of `git config gittrack.*` and of `[tool.gittrack]`.

For each setting, the first of these that has it: the process (`GITTRACK_*`, then MLflow's name), the person (git's
configuration, nearest file first), the team (`pyproject.toml` at the top of the work tree), the default.
`gittrack help config` is made from the table below.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from gittrack.errors import InvalidValueError, NotFoundError
from gittrack.store import gateway

Origin = Literal["environment", "git", "pyproject", "default"]


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: Its name in ``Config``; with dashes in `[tool.gittrack]`, in camel case for git.
        default: The value if nobody says anything.
        help: What it does, in a line.
        mlflow: MLflow's environment variable for the same thing, if there is one.
        personal: Each person decides it: neither pyproject.toml, which comes with a repository, nor the repository's
            own git configuration, which may have been unpacked with it, can say it.
    """

    name: str
    parse: Callable[[str], Any]
    default: Any
    help: str
    mlflow: str | None = None
    personal: bool = False

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"GITTRACK_{self.name.upper()}"

    @property
    def git_key(self) -> str:
        """The key in git's configuration."""
        first, *rest = self.name.split("_")
        return "gittrack." + first + "".join(part.capitalize() for part in rest)

    @property
    def team_key(self) -> str:
        """The key in `[tool.gittrack]`."""
        return self.name.replace("_", "-")


def _flag(text: str) -> bool:
    value = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.strip().lower() not in value:
        raise ValueError("it must be true or false")
    return value[text.strip().lower()]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.01 <= value <= 86400:
        raise ValueError("it must be a number of seconds from 0.01 to 86400")
    return value


def _bytes(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})([kmg]?)", text.strip().lower())
    if match is None:
        raise ValueError("it must be a number of bytes, with k, m or g behind it for multiples of 1024")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2]]


def _staged(text: str) -> int:
    value = _bytes(text)
    if value < 64 << 10:
        raise ValueError("it must be at least 64k")
    return value


def _code(text: str) -> str:
    if text not in ("full", "commit", "none"):
        raise ValueError("it must be `full`, `commit` or `none`")
    return text


def _trust(text: str) -> str:
    if text not in ("never", "signed", "always"):
        raise ValueError("it must be `never`, `signed` or `always`")
    return text


def _places(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(re.split(r"[,\s]+", text.strip()))) if text.strip() else ()
    for word in words:
        if not re.fullmatch(r"@[\w-]+|(?i:staging|production|archived|versions)", word):
            raise ValueError(
                "it must name `staging`, `production`, `archived`, `versions` or `@ALIAS`, with commas between"
            )
    return words


def _prefix(text: str) -> str:
    if text and not re.fullmatch(r"refs/(?:[a-z0-9][a-z0-9_-]*/){2,4}", text):
        raise ValueError("it must be a folder of refs such as `refs/heads/gittrack/`")
    return text


def _depot(text: str) -> str:
    scheme, colon, rest = text.partition("://")
    known = ("s3", "gs", "gcs", "az", "abfs", "abfss", "ssh", "sftp", "file")
    absolute = Path(text).is_absolute()
    if "::" in text or (not absolute and (not colon or scheme.lower() not in known or not rest.strip("/"))):
        raise ValueError("it must be an address such as s3://BUCKET/PREFIX, gs:, az:, ssh:, file:, or an absolute path")
    return text


SETTINGS: Final = (
    Setting(
        "tracking_uri",
        str,
        None,
        "where runs are kept: a folder, gittrack:///folder, or a server's http://host:port",
        "MLFLOW_TRACKING_URI",
    ),
    Setting(
        "tracking_insecure_tls",
        _flag,
        False,
        "do not check the certificate of the tracking server",
        "MLFLOW_TRACKING_INSECURE_TLS",
        personal=True,
    ),
    Setting(
        "tracking_server_cert_path",
        str,
        None,
        "a file of certificates to trust for the tracking server, instead of the system's",
        "MLFLOW_TRACKING_SERVER_CERT_PATH",
        personal=True,
    ),
    Setting("ship_timeout", _seconds, 10.0, "seconds that the end of a program waits until its runs are at the server"),
    Setting("experiment_name", str, None, "the experiment of new runs, by name", "MLFLOW_EXPERIMENT_NAME"),
    Setting("experiment_id", str, None, "the experiment of new runs, by id", "MLFLOW_EXPERIMENT_ID"),
    Setting("run_id", str, None, "the run to go on with instead of starting one", "MLFLOW_RUN_ID"),
    Setting(
        "active_model_id", str, None, "the logged model that metrics are linked to, by id", "MLFLOW_ACTIVE_MODEL_ID"
    ),
    Setting("sync", _seconds, 1.0, "seconds between putting a live run's records on disk"),
    Setting("code", _code, "full", "how much code a run carries: full, commit or none"),
    Setting(
        "max_untracked", _bytes, 1 << 20, "largest new untracked source file that a run carries, in bytes (k, m, g)"
    ),
    Setting("strict", _flag, False, "raise when recording fails, instead of warning once and going on"),
    Setting(
        "truncate_long_values",
        _flag,
        True,
        "cut param and tag values that are too long, instead of refusing them",
        "MLFLOW_TRUNCATE_LONG_VALUES",
    ),
    Setting(
        "system_metrics",
        _flag,
        False,
        "record CPU, memory, disk, network and GPU use of every run",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING",
    ),
    Setting(
        "system_metrics_interval",
        _seconds,
        10.0,
        "seconds between samples of system metrics",
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL",
    ),
    Setting(
        "artifacts",
        _depot,
        None,
        "where artifacts are kept, if not with the git remote: an s3:, gs:, az:, ssh: or file: address",
    ),
    Setting(
        "trust",
        _trust,
        "signed",
        "whose models may run their own code when they are loaded: never, signed (by an allowed signer) or always",
        personal=True,
    ),
    Setting(
        "user", str, None, "who runs are recorded as; the system's user name if not set", "MLFLOW_TRACKING_USERNAME"
    ),
    Setting(
        "ref_prefix",
        _prefix,
        "",
        "where runs are on remotes that take branches and tags only, such as refs/heads/gittrack/ (see"
        " `gittrack remote check`)",
    ),
    Setting(
        "require_signed",
        _places,
        (),
        "stages, @aliases or versions whose models are refused without a good signature (see `gittrack help signing`)",
    ),
    Setting(
        "max_staged", _staged, 10 << 20, "largest file that the pre-commit hook lets into a commit, in bytes (k, m, g)"
    ),
    Setting(
        "commit_trailer", _flag, False, "add the run that tried the staged code to commit messages, as `Gittrack-Run:`"
    ),
    Setting("push_runs", _flag, False, "`git push` also pushes the runs of the commits that it pushes"),
    Setting("push_after_commit", _flag, False, "push new runs in the background after each commit"),
)


@dataclass(frozen=True)
class Config:
    """Every setting's value; see ``SETTINGS`` for what they mean."""

    tracking_uri: str | None
    tracking_insecure_tls: bool
    tracking_server_cert_path: str | None
    ship_timeout: float
    experiment_name: str | None
    experiment_id: str | None
    run_id: str | None
    active_model_id: str | None
    sync: float
    code: str
    max_untracked: int
    strict: bool
    truncate_long_values: bool
    system_metrics: bool
    system_metrics_interval: float
    artifacts: str | None
    trust: str
    user: str | None
    ref_prefix: str
    require_signed: tuple[str, ...]
    max_staged: int
    commit_trailer: bool
    push_runs: bool
    push_after_commit: bool


@dataclass(frozen=True)
class Value:
    """A setting's value and where it was found."""

    setting: Setting
    value: Any
    origin: Origin
    where: str


def setting(name: str) -> Setting:
    """The setting of that name, in any of its spellings.  Raises NotFoundError."""
    wanted = name.removeprefix("gittrack.").replace("-", "").replace("_", "").lower()
    for known in SETTINGS:
        if known.name.replace("_", "") == wanted:
            return known
    import difflib

    near = difflib.get_close_matches(name, [s.team_key for s in SETTINGS], n=1)
    raise NotFoundError(
        f"no setting `{name}`", hint=f"did you mean `{near[0]}`?" if near else "`gittrack config` lists the settings"
    )


def values(start: Path | None = None) -> list[Value]:
    """Every setting with its value and origin, as seen from the folder ``start`` (the current one if None).

    Raises:
        InvalidValueError: A setting that cannot be read; the message names the place.
    """
    paths = gateway.discover(start or Path.cwd())
    person = _git_settings(paths)
    team = team_settings(paths)
    return [_value(known, person, team) for known in SETTINGS]


def current(start: Path | None = None) -> Config:
    """Every setting's value, as seen from the folder ``start`` (the current one if None).  Raises InvalidValueError."""
    found = {value.setting.name: value.value for value in values(start)}
    return Config(**{field.name: found[field.name] for field in fields(Config)})


def is_own(name: str) -> bool:
    """Whether the person set a setting: in the environment, or in git's configuration outside of any repository."""
    known = setting(name)
    named = any(os.environ.get(variable) for variable in (known.variable, known.mlflow) if variable)
    return named or known.git_key.lower() in _git_settings(None)


def _value(known: Setting, person: Mapping[str, tuple[str, str]], team: Mapping[str, Any]) -> Value:
    for variable in (known.variable, known.mlflow):
        if variable and os.environ.get(variable):
            return Value(known, _parsed(known, os.environ[variable], variable), "environment", variable)
    found = person.get(known.git_key.lower())
    if known.personal and found is not None:
        found = _git_settings(None).get(known.git_key.lower())
    if found is not None:
        return Value(known, _parsed(known, found[0], f"{known.git_key} in {found[1]}"), "git", found[1])
    if known.team_key in team:
        if known.personal:
            raise InvalidValueError(
                f"`{known.team_key}` stands in pyproject.toml, but each person decides it",
                hint=f"take it out there; `git config --global {known.git_key} …` sets it for yourself",
            )
        raw = team[known.team_key]
        words = map(str, raw) if isinstance(raw, list) else [str(raw).lower() if isinstance(raw, bool) else str(raw)]
        text = ",".join(words)
        return Value(known, _parsed(known, text, f"{known.team_key} in pyproject.toml"), "pyproject", "pyproject.toml")
    return Value(known, known.default, "default", "")


def _parsed(known: Setting, text: str, where: str) -> Any:
    try:
        return known.parse(text)
    except ValueError as error:
        raise InvalidValueError(
            f"`{where}` is `{text:.80}`: {error}", hint="`gittrack help config` says what it may be"
        ) from error


def git_value(key: str, start: Path | None = None) -> str | None:
    """A value of git's own configuration, such as ``core.pager``; None if it is not set."""
    found = _read_git(gateway.discover(start or Path.cwd()), key.lower().rpartition(".")[0].encode())
    value = found.get(key.lower())
    return None if value is None else value[0]


def _git_settings(paths: gateway.RepoPaths | None) -> dict[str, tuple[str, str]]:
    return _read_git(paths, b"gittrack")


def _read_git(paths: gateway.RepoPaths | None, section: bytes) -> dict[str, tuple[str, str]]:
    """``section``'s values by lower-case key, with the file they stand in; later files win, as in git."""
    home = Path("~").expanduser()
    files = [Path("/etc/gitconfig"), Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "git" / "config"]
    files.append(home / ".gitconfig")
    if os.environ.get("GIT_CONFIG_GLOBAL"):
        files[1:] = [Path(os.environ["GIT_CONFIG_GLOBAL"])]
    if os.environ.get("GIT_CONFIG_NOSYSTEM"):
        files.pop(0)
    if paths is not None:
        files.append(paths.common_dir / "config")
    found: dict[str, tuple[str, str]] = {}
    for file in files:
        try:
            seen = file.stat()
        except OSError:  # most of these files do not exist
            continue
        for key, value in _section_of(file, section, (seen.st_ino, seen.st_size, seen.st_mtime_ns)):
            found[f"{section.decode()}.{key}"] = (value, str(file))
    return found


@lru_cache(maxsize=32)  # every start of a run asks; who changes the file makes a new one of it, or a longer or newer
def _section_of(file: Path, section: bytes, _stamp: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
    """The section's (lower-case key, value) in one file of git's; empty if the file cannot be read."""
    try:
        text = file.read_bytes().lower()
    except OSError:
        return ()
    # The parser costs 40 ms to load; most configurations say nothing about the section.
    if section not in text and b"[include" not in text:
        return ()
    from dulwich.config import ConfigFile

    parsed = ConfigFile.from_path(str(file))
    return tuple(
        (key.decode().lower(), value.decode("utf-8", "replace"))
        for name in parsed.sections()
        if len(name) == 1 and name[0].lower() == section
        for key, value in parsed.items(name)
    )


def team_settings(paths: gateway.RepoPaths | None) -> Mapping[str, Any]:
    """`[tool.gittrack]` of pyproject.toml at the top of the work tree; empty without one.  Raises InvalidValueError."""
    if paths is None or paths.work_tree is None:
        return {}
    file = paths.work_tree / "pyproject.toml"
    try:
        data = file.read_bytes()
    except OSError:  # not every project has one
        return {}
    return read_team(data, str(file))


def read_team(data: bytes, where: str) -> Mapping[str, Any]:
    """`[tool.gittrack]` of a pyproject.toml with that content.  Raises InvalidValueError, which names ``where``."""
    if b"gittrack" not in data:
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(data.decode()).get("tool", {}).get("gittrack", {})
    except ValueError as error:
        raise InvalidValueError(f"`{where}` cannot be read: {error}") from error
    return table if isinstance(table, dict) else {}


def store(name: str, value: str | None, start: Path | None = None) -> Setting:
    """Set a setting in the repository's git configuration (a person's own in theirs); None takes it away again.

    Raises:
        NotFoundError: No such setting, or no git repository.
        InvalidValueError: The setting cannot have that value.
    """
    known = setting(name)
    paths = gateway.discover(start or Path.cwd())
    if paths is None:
        raise NotFoundError("there is no git repository here", hint="run `gittrack init` first")
    git = gateway.Git(paths.git_dir, paths.work_tree)
    where = "--global" if known.personal else "--local"
    if value is None:
        git.run("config", where, "--unset-all", known.git_key)
    else:
        _parsed(known, value, known.git_key)
        git.run("config", where, "--replace-all", known.git_key, value)
    return known


def export(**changes: str | None) -> None:
    """Set (or with None take away) settings in the environment, for the programs this process starts.

    Both names are set, gittrack's and MLflow's, so that a child that uses either goes on in the same place.
    """
    for name, value in changes.items():
        known = setting(name)
        for variable in filter(None, (known.variable, known.mlflow)):
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


def environment() -> Mapping[str, str]:
    """The process environment, for the parts that record some of it."""
    return os.environ


def credentials() -> tuple[str, str, str]:
    """What says who asks a tracking server: a token, or else a user and a password; empty where nothing is set.

    They are secrets, so they are no settings: no file of a project says them, and nothing lists them.
    """
    found = os.environ.get
    token = found("GITTRACK_TOKEN") or ""
    user, password = found("MLFLOW_TRACKING_USERNAME") or "", found("MLFLOW_TRACKING_PASSWORD") or ""
    if token or not (user and password):
        return token or found("MLFLOW_TRACKING_TOKEN") or "", "", ""
    return "", user, password


def data_folder() -> Path:
    """Where programs of this user keep what belongs to no project; need not exist."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path("~/AppData/Local").expanduser()) / "gittrack"
    return Path(os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()) / "gittrack"


def proxy(url: str) -> str | None:
    """The proxy that the environment, or the system, names for an address; None for a direct way."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    found = getproxies()
    return found.get(parts.scheme) or found.get("all")


def cache_folder() -> Path:
    """Where what can be made again is kept for this person: below ``XDG_CACHE_HOME``, or the system's place for it."""
    given = os.environ.get("XDG_CACHE_HOME")
    if given and Path(given).is_absolute():
        return Path(given) / "gittrack"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or "~/AppData/Local").expanduser() / "gittrack" / "cache"
    return Path("~/Library/Caches" if sys.platform == "darwin" else "~/.cache").expanduser() / "gittrack"
