"""Environments: what a model asks for, installed in a folder of its own, made once and used again.

``local`` is the running Python, ``venv`` one made by Python's own venv and pip, ``uv`` one made by uv.  A folder is
named after what is installed in it, so that equal requirements share one; it is complete when its marker is there, and
one that is not is made anew.  Installing runs no code of packages (wheels only) unless the model is trusted.

gittrack itself is copied into the environment, with what it needs: the program that serves or verifies runs there.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gittrack import config
from gittrack.errors import InvalidValueError, MissingDependencyError, NotFoundError, StateError
from gittrack.models import requirements
from gittrack.store import files

if TYPE_CHECKING:
    from gittrack.models.addresses import LocalModel

LOCAL: Final = "local"
VENV: Final = "venv"
UV: Final = "uv"
KINDS: Final = (LOCAL, VENV, UV)

#: How long an installation may take.
INSTALL_SECONDS: Final = 3600.0
_LOCK_SECONDS: Final = 3600.0
_MARKER: Final = "gittrack-complete"
_PACKAGE: Final = Path(__file__).parents[1]
#: What a child gets of our environment; nothing that steers Python or pip but where packages come from.
_INHERITED: Final = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TZ|TMPDIR|TEMP|TMP|SYSTEMROOT|SSL_CERT_\w+|REQUESTS_CA_BUNDLE"
    r"|(?:https?|no|all)_proxy|PIP_(?:INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|CONFIG_FILE|CACHE_DIR|CERT|TRUSTED_HOST)"
    r"|UV_\w+|XDG_\w+|CUDA_\w+|NVIDIA_\w+|OMP_NUM_THREADS|OPENBLAS_\w+|MKL_NUM_THREADS|LD_LIBRARY_PATH"
    r"|GITTRACK_\w+|MLFLOW_TRACKING_URI",
    re.IGNORECASE,
)

#: How pip and uv begin the line that says why.
_TELLING: Final = re.compile(r"no matching|no solution|conflict|not found|depends on", re.IGNORECASE)

Say = Callable[[str], None]


def _silent(_text: str) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Environment:
    """A Python with packages.

    Attributes:
        kind: One of ``KINDS``.
        python: Its interpreter.
    """

    kind: str
    python: Path

    def run(self, module: str, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a module of gittrack's in it to its end; what it prints is captured.

        Args:
            module: Such as ``gittrack.models.verification``.
            arguments: The words after it.
            folder: Where it runs; not a place whose files could be taken for packages, since Python's ``-I`` is set.
        """
        return subprocess.run(
            [str(self.python), "-I", "-m", module, *arguments],
            env=child_environment(),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables for a program that runs somebody else's packages: the needed ones of ours, and ``extra``."""
    kept = {name: value for name, value in config.environment().items() if _INHERITED.fullmatch(name)}
    return {**kept, "PYTHONNOUSERSITE": "1", **(extra or {})}


def build(
    lines: Sequence[str],
    *,
    kind: str = VENV,
    python: str | None = None,
    constraints: Sequence[str] = (),
    trusted: bool = False,
    root: Path | None = None,
    say: Say = _silent,
) -> Environment:
    """The environment for these requirements, made if it is not there.

    Args:
        lines: Requirement lines.
        kind: ``local`` (nothing is made), ``venv`` or ``uv``.
        python: The version of Python that was recorded, such as ``3.11.7``; its minor version counts.
        constraints: Lines that limit what may be chosen.
        trusted: Packages may be built from source and come from plain addresses, which runs their code.
        root: Where environments are kept; the user's cache folder if not given.
        say: Told what is being done.

    Raises:
        InvalidValueError: An unknown kind, a line that is no requirement, or one that only a trusted model may have.
        MissingDependencyError: There is no uv, or no Python of that version.
        StateError: A requirement cannot be installed; says which.
        LockedError: Another process makes the same environment for too long.
    """
    if kind not in KINDS:
        raise InvalidValueError(f"unknown environment `{kind:.40}`", hint="one of " + ", ".join(KINDS))
    if kind == LOCAL:
        return Environment(LOCAL, Path(sys.executable))
    lines, constraints = requirements.check(lines), requirements.check(constraints)
    plain = [one for one in (*lines, *constraints) if requirements.parse_line(one).url is not None]
    if plain and not trusted:
        raise InvalidValueError(f"`{plain[0]}` names an address, not a version", hint="`--trust` allows it")
    tool, interpreter = _tool(kind), _interpreter(kind, python)
    own = own_requirements()
    known = [lines, constraints, own, kind, interpreter, platform.platform(), trusted]
    name = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:32]
    root = root or config.cache_folder() / "environments"
    files.make_dirs(root, durable=False)
    folder = root / name
    with files.FileLock(root / f"{name}.lock", timeout=_LOCK_SECONDS):
        found = Environment(kind, _python_in(folder))
        if not (folder / _MARKER).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            say(f"making an environment with {len(lines)} requirements in `{folder}`")
            _make(tool, folder, interpreter)
            _install(tool, found.python, lines, constraints, trusted=trusted, say=say)
            _install(tool, found.python, own, [], trusted=False, say=say)
            _copy_gittrack(found)
            files.write_atomic(folder / _MARKER, "\n".join(lines).encode())
        _refresh_gittrack(found)
    return found


def for_model(local: LocalModel, lines: Sequence[str], *, kind: str = VENV, say: Say = _silent) -> Environment:
    """The environment of a fetched model; ``lines`` are the requirements in force.  Raises as ``build``.

    What they lead to is of the versions that were there when the model was logged, unless it has its own constraints.

    A signature on a version is about what was registered: for requirements that were set later, packages are built
    from source only if the person who asks trusts the model.
    """
    constraints = local.folder / requirements.CONSTRAINTS
    if constraints.is_file():
        limits = constraints.read_text(encoding="utf-8").splitlines()
    else:
        limits = requirements.locked(local.folder, lines)
    trusted = local.trust.said or (_as_registered(local, lines) and local.trusted)
    return build(lines, kind=kind, python=recorded_python(local.folder), constraints=limits, trusted=trusted, say=say)


def _as_registered(local: LocalModel, lines: Sequence[str]) -> bool:
    """Whether these are the requirements in the manifest of a fetched model."""
    path = local.folder / requirements.REQUIREMENTS
    known = local.manifest.files.get(requirements.REQUIREMENTS)
    if known is None or not path.is_file():
        return False
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest() == known[0] and requirements.parse(content) == list(lines)


def recorded_python(folder: Path) -> str | None:
    """The version of Python in a model's ``python_env.yaml``; None if there is none."""
    import yaml

    path = folder / "python_env.yaml"
    if not path.is_file() or path.stat().st_size > 1 << 20:
        return None
    try:
        document = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise InvalidValueError(f"`{path.name}` of the model cannot be read") from error
    version = document.get("python") if isinstance(document, dict) else None
    return version if isinstance(version, str) and re.fullmatch(r"\d+\.\d+(\.\d+)?\w{0,8}", version) else None


# --- making


def _tool(kind: str) -> str:
    if kind == VENV:
        return sys.executable
    found = shutil.which("uv")
    if found is None:
        raise MissingDependencyError("there is no `uv` here", hint="pip install uv, or use `--env venv`")
    return found


def _interpreter(kind: str, version: str | None) -> str:
    """The Python to make an environment with: ours if the minor version is the recorded one."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = ours if version is None else ".".join(version.split(".")[:2])
    if wanted == ours:
        return sys.executable
    found = shutil.which(f"python{wanted}")
    if found is None and kind == VENV:
        raise MissingDependencyError(
            f"the model was made with Python {wanted}, which is not here",
            hint=f"install it, or use `--env uv`, or `--env local` to try Python {ours}",
        )
    return found or wanted  # uv finds or fetches one


def _python_in(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _make(tool: str, folder: Path, interpreter: str) -> None:
    if tool == sys.executable:
        _call([interpreter, "-I", "-m", "venv", str(folder)], "the environment cannot be made")
    else:
        _call([tool, "venv", "--quiet", "--python", interpreter, str(folder)], "the environment cannot be made")


def _install(
    tool: str, python: Path, lines: Sequence[str], constraints: Sequence[str], *, trusted: bool, say: Say
) -> None:
    if not lines:
        return
    say(f"installing {len(lines)} packages and what they need")
    with tempfile.TemporaryDirectory(prefix="gittrack-") as scratch:
        wanted, limits = Path(scratch, "requirements.txt"), Path(scratch, "constraints.txt")
        wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
        limits.write_text("\n".join(constraints) + "\n", encoding="utf-8")
        if tool == sys.executable:
            words = [str(python), "-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        else:
            words = [tool, "pip", "install", "--quiet", "--python", str(python)]
        words += [] if trusted else ["--only-binary", ":all:"]
        words += ["-r", str(wanted), *(["-c", str(limits)] if constraints else [])]
        _call(words, "the requirements cannot be installed")


def _call(words: list[str], trouble: str) -> None:
    try:
        done = subprocess.run(
            words,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StateError(f"{trouble}: it took longer than {INSTALL_SECONDS:g} s") from error
    except OSError as error:
        raise StateError(f"{trouble}: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace") + done.stdout.decode("utf-8", "replace")
        raise StateError(f"{trouble}: {_cause(said)}", hint="`gittrack models requirements` edits what is asked for")


def _cause(said: str) -> str:
    """What pip or uv said went wrong, in one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.search(line)]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (telling or errors or lines or ["it failed and said nothing"])[0].removeprefix("ERROR: ")[:400]


# --- gittrack inside of it


def own_requirements() -> list[str]:
    """What gittrack needs to run, as its own metadata says it."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("gittrack") or []
    except metadata.PackageNotFoundError:  # run from its source, not installed
        return []
    found = map(Requirement, lines)
    return sorted(str(one) for one in found if one.marker is None or one.marker.evaluate({"extra": ""}))


def _site_packages(environment: Environment) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run(
        [str(environment.python), "-I", "-c", code],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    folder = Path(done.stdout.strip())
    if done.returncode or not folder.is_dir():
        raise StateError(f"the environment of `{environment.python}` is broken", hint="delete it and try again")
    return folder


def _copy_gittrack(environment: Environment) -> None:
    target = _site_packages(environment) / "gittrack"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(_PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
    (target / ".source").write_text(_fingerprint(), encoding="utf-8")


def _refresh_gittrack(environment: Environment) -> None:
    """Copy gittrack anew if it is another one than when the environment was made."""
    source = _site_packages(environment) / "gittrack" / ".source"
    if not source.is_file() or source.read_text(encoding="utf-8") != _fingerprint():
        _copy_gittrack(environment)


def _fingerprint() -> str:
    """Changes when gittrack's own files do."""
    seen = [(str(path.relative_to(_PACKAGE)), path.stat().st_mtime_ns) for path in sorted(_PACKAGE.rglob("*.py"))]
    return hashlib.sha256(repr(seen).encode()).hexdigest()


# --- verifying


@dataclass(frozen=True)
class Verification:
    """Whether a model works where only its requirements are installed.

    Attributes:
        requirements: What was installed.
        works: It was loaded and, if it has an input example, predicted from it.
        predicted: There was an input example.
        problem: What went wrong; empty if nothing did.
        missing: The module that was not there, if that was it.
        suggestion: The requirement that would bring it, as it is installed here.
    """

    requirements: list[str]
    works: bool
    predicted: bool
    problem: str = ""
    missing: str | None = None
    suggestion: str | None = None


def verify(local: LocalModel, lines: Sequence[str], *, kind: str = VENV, say: Say = _silent) -> Verification:
    """Load a fetched model, and predict its input example, in a fresh environment with these requirements only.

    What gittrack itself needs is there, too.

    Raises:
        NotFoundError: The model has no requirements at all.
        InvalidValueError: ``kind`` is ``local``, or as ``build``.
        StateError, MissingDependencyError: The environment cannot be made.
    """
    if kind == LOCAL:
        raise InvalidValueError("the local environment proves nothing", hint="use venv or uv")
    if not lines:
        raise NotFoundError("the model names no requirements", hint="`gittrack models requirements NAME@V --add …`")
    environment = for_model(local, lines, kind=kind, say=say)
    say("loading the model there")
    words = [str(local.folder), *(["--trust"] if local.trusted else [])]
    done = environment.run("gittrack.models.verification", *words, folder=local.folder.parent)
    try:
        answer = json.loads(done.stdout.decode("utf-8", "replace").splitlines()[-1])
        missing = answer["missing"]
        found = Verification(list(lines), answer["works"], answer["predicted"], answer["problem"], missing)
    except (ValueError, KeyError, TypeError, IndexError):
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"status {done.returncode}"]
        return Verification(list(lines), False, False, f"the process ended without an answer: {last[0]}")
    if missing:
        offered = requirements.offering(str(missing))
        return Verification(list(lines), False, found.predicted, found.problem, missing, offered)
    return found
