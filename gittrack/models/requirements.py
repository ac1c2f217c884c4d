"""What a model needs to be installed: found without importing or running anything, read and written strictly.

What is needed is read out of the model's files (the globals of pickles, the modules of skops and Keras files, the
imports of its code), and what a prediction imported is added.  Modules become distributions through the metadata of
what is installed, with exact versions.  MLflow loads the model a second time in another process instead, which takes
half a minute and misses what a function imports when it is called.

Requirement lines are those of PEP 508, pinned or not, with hashes; options of pip are refused, for the lines of a model
are somebody else's text and end in an installer.
"""

from __future__ import annotations

import ast
import functools
import io
import json
import pickletools
import re
import sys
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from gittrack.errors import FormatError, GittrackError, InvalidValueError, NotFoundError
from gittrack.models import trust
from gittrack.store import files
from gittrack.types import Artifact

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from gittrack.registry.registry import Registry
    from gittrack.types import ModelVersion

REQUIREMENTS: Final = "requirements.txt"
CONSTRAINTS: Final = "constraints.txt"
CONDA_ENV: Final = "conda.yaml"
#: Every distribution that the requirements lead to, as it was installed when the model was logged.
LOCK: Final = "requirements.lock.txt"
#: What was recorded with the model, in a copy whose requirements were overridden later.
RECORDED: Final = "requirements.recorded.txt"

MAX_LINES: Final = 2_000
MAX_LINE: Final = 4_000
_MAX_PICKLE: Final = 1 << 30  #: larger ones are not read to the end for this
_MAX_TEXT: Final = 64 << 20
_MAX_INCLUDES: Final = 10

#: Tools that are there in every environment, and those that write models but are not needed to run them.
_NEVER: Final = frozenset({"pip", "setuptools", "wheel", "gittrack", "mlflow", "mlflow-skinny", "mlflow-tracing"})
_PICKLES: Final = (".pkl", ".pickle", ".pth", ".pt", ".joblib", ".statsmodels", ".bin")
_ZIPPED: Final = (".skops", ".keras", ".pt2", ".pth", ".pt")
_HASH = re.compile(r"\s+--hash=(?:sha256|sha384|sha512):[0-9a-f]{64,128}")
_MODULE = re.compile(r"[A-Za-z_][\w.]{0,200}")


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


# --- inferring


def infer(folder: Path, *, distributions: Iterable[str] = (), modules: Collection[str] = ()) -> list[str]:
    """What loading the model in ``folder`` and predicting with it needs, pinned to what is installed; sorted.

    Args:
        folder: The model's files, written by this process: they are read, nothing in them is run.
        distributions: What its flavour needs in any case.
        modules: What a prediction imported that was not imported before.

    Returns:
        Lines such as ``scikit-learn==1.7.2``; one for a build that no index has (``2.9.0+cpu``) says so in a comment.
    """
    direct = {canonical(name) for name in distributions}
    direct |= _distributions_of(read_modules(folder))
    found = direct | (_distributions_of(modules) - _reached(direct))
    return [line for name in sorted(found - _NEVER) if (line := pinned(name)) is not None]


def lock(requirements: Iterable[str]) -> list[str]:
    """Every installed distribution that the requirements lead to, pinned, by name; those not installed are left out.

    Raises:
        InvalidValueError: A line that is no requirement.
    """
    found = _closure(parse_line(line) for line in requirements)
    return [line for name in sorted(found) if (line := pinned(name)) is not None]


def pinned(name: str) -> str | None:
    """The line for the installed version of a distribution; None if it is not installed."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
    public, plus, _ = version.partition("+")
    return f"{name}=={public}" + (f"  # installed was {version}" if plus else "")


def _reached(names: Iterable[str]) -> set[str]:
    """The distributions that these lead to, without themselves."""
    from packaging.requirements import Requirement

    names = set(names)
    return _closure(map(Requirement, names)) - names


def _closure(requirements: Iterable[Requirement]) -> set[str]:
    todo = [(canonical(one.name), frozenset(one.extras)) for one in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        item = todo.pop()
        if item not in seen:
            seen.add(item)
            todo += _needs(*item)
    return {name for name, _ in seen}


@functools.lru_cache(maxsize=4096)
def _needs(name: str, extras: frozenset[str]) -> tuple[tuple[str, frozenset[str]], ...]:
    """(name, extras) of what an installed distribution says that it needs here."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        lines = metadata.requires(name) or ()
    except metadata.PackageNotFoundError:
        return ()
    found = []
    for line in lines:
        try:
            need = Requirement(line)
        except InvalidRequirement:  # of an old package; what it needs cannot be told
            continue
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            found.append((canonical(need.name), frozenset(need.extras)))
    return tuple(found)


@functools.lru_cache(maxsize=1)
def _packages() -> Mapping[str, Sequence[str]]:
    return metadata.packages_distributions()  # reads all that is installed: a fifth of a second, once


def _distributions_of(modules: Iterable[str]) -> set[str]:
    """The distributions that the top-level packages of these modules come from; none for the standard library."""
    tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"__main__", ""}
    known = _packages() if tops else {}
    return {canonical(name) for top in tops for name in _owners(top, known)}


def _owners(top: str, known: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The distributions of a package; of a namespace that several share (``google``), none can be told."""
    owners = sorted({canonical(name) for name in known.get(top, ())})
    if len(owners) > 1:
        return [name for name in owners if name == canonical(top)] or owners[:1]
    return owners


def offering(module: str) -> str | None:
    """The line for the installed distribution that a module comes from; None if there is none."""
    names = sorted(_distributions_of([module]))
    return pinned(names[0]) if names else None


# --- reading files


def read_modules(folder: Path) -> set[str]:
    """The modules that the files of a model name; nothing of them is run or imported."""
    found: set[str] = set()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        if path.suffix == ".py":
            found |= _imported(path)
        elif path.suffix in _ZIPPED and zipfile.is_zipfile(path):
            found |= _in_archive(path)
        elif path.suffix in _PICKLES:
            with path.open("rb") as file:
                found |= _in_pickle(file)
    own = {path.stem for path in folder.rglob("*.py")} | {path.parent.name for path in folder.rglob("__init__.py")}
    return {module for module in found if module.partition(".")[0] not in own}


def _imported(path: Path) -> set[str]:
    """What a Python file imports, anywhere in it; nothing if it is no Python of this version."""
    if path.stat().st_size > _MAX_TEXT:
        return set()
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def _in_archive(path: Path) -> set[str]:
    """Modules in a skops, Keras or PyTorch file."""
    found: set[str] = set()
    try:
        names = trust.check_archive(path)
        with zipfile.ZipFile(path) as archive:
            for name in names:
                if archive.getinfo(name).file_size > _MAX_TEXT:
                    continue
                if name.endswith(".pkl"):
                    found |= _in_pickle(io.BytesIO(archive.read(name)))
                elif name in ("schema.json", "config.json"):
                    found |= set(_in_json(json.loads(archive.read(name))))
    except (GittrackError, zipfile.BadZipFile, ValueError, OSError, RecursionError):
        return found  # whoever loads it says what is wrong with it
    return found


def _in_json(document: object) -> Iterator[str]:
    """The modules that skops (``__module__``) and Keras (``module``) name."""
    todo = [document]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            for key in ("__module__", "module", "registered_name"):
                name = value.get(key)
                if isinstance(name, str) and _MODULE.fullmatch(name):
                    yield name
            todo += value.values()
        elif isinstance(value, list):
            todo += value


def _in_pickle(file: IO[bytes]) -> set[str]:
    """The modules of the globals of a pickle and, in functions that cloudpickle put into it, the modules they import.

    The operations are read one after the other and not carried out.  cloudpickle stores a function's code with the
    names that it uses; that a name is the one of an installed package is taken for an import of it.
    """
    found: set[str] = set()
    texts: list[str] = []  # the last two are the module and the name of a STACK_GLOBAL
    memo: dict[int, str] = {}
    code: set[str] = set()
    argument: Any
    try:
        for operation, argument, position in pickletools.genops(file):
            name = operation.name
            if name == "GLOBAL":
                found.add(str(argument).partition(" ")[0])
            elif name == "STACK_GLOBAL" and len(texts) >= 2:
                found.add(texts[-2])
            elif name in ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE"):
                texts.append(str(argument))
                code.add(str(argument))
            elif name == "MEMOIZE":
                memo[len(memo)] = texts[-1] if texts else ""
            elif name in ("BINPUT", "LONG_BINPUT") and texts:
                memo[int(argument)] = texts[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                texts.append(memo.get(int(argument), ""))
            del texts[:-4]
            if (position or 0) > _MAX_PICKLE:
                break
    except Exception:  # noqa: BLE001 - pickletools fails in many ways on what is no pickle; then it names no modules
        return found if texts else set()
    modules = {module for module in found if _MODULE.fullmatch(module)}
    if any(module.partition(".")[0] == "cloudpickle" for module in modules):
        installed = _packages()
        modules |= {text for text in code if text.partition(".")[0] in installed and _MODULE.fullmatch(text)}
    return modules


# --- lines


def parse_line(line: str) -> Requirement:
    """A requirement line without its comment and hashes.

    Raises:
        InvalidValueError: It is an option of pip, a path, a URL with credentials, or no requirement.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    text = _HASH.sub("", _without_comment(line)).strip()
    if len(line) > MAX_LINE or any(ord(char) < 32 and char != "\t" for char in line):
        raise InvalidValueError(f"a requirement of {len(line)} characters, or with control characters")
    if text.startswith("-"):
        raise InvalidValueError(
            f"`{text:.80}` is an option of pip, not a requirement", hint="write NAME==VERSION, one to a line"
        )
    try:
        found = Requirement(text)
    except InvalidRequirement as error:
        raise InvalidValueError(
            f"`{text:.80}` is no requirement: {str(error).splitlines()[0]}", hint="write NAME==VERSION, one to a line"
        ) from error
    if found.url is not None and not re.fullmatch(r"https://[^@\s]+", found.url):
        raise InvalidValueError(
            f"`{text:.80}` is installed from an address that is not plain https", hint="name a version instead"
        )
    return found


def name_of(line: str) -> str:
    """The distribution that a requirement line is about.  Raises as ``parse_line``."""
    return canonical(parse_line(line).name)


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*$", "", line).strip()


def check(lines: Iterable[str]) -> list[str]:
    """Requirement lines as they are, without blank ones and comments on lines of their own.

    Raises:
        InvalidValueError: One of them is none, or a distribution is there twice.
    """
    kept: dict[str, str] = {}
    for line in lines:
        if not _without_comment(line):
            continue
        found = parse_line(line)
        name = f"{canonical(found.name)};{found.marker or ''}"
        if kept.setdefault(name, line.strip()) != line.strip():
            raise InvalidValueError(f"`{found.name}` is there twice: `{kept[name]}` and `{line.strip()}`")
        if len(kept) > MAX_LINES:
            raise InvalidValueError(f"more than {MAX_LINES} requirements")
    return list(kept.values())


def given(requirements: Sequence[str] | str | None) -> tuple[list[str], list[str]]:
    """The requirement lines and the constraints that somebody gives to ``log_model``.

    Args:
        requirements: Lines, or the path of a file with them.  ``-r FILE`` and ``-c FILE`` are followed.

    Raises:
        NotFoundError: There is no such file.
        InvalidValueError: A line that is no requirement.
    """
    if requirements is None:
        return [], []
    if isinstance(requirements, str):
        requirements = [f"-r {requirements}"]
    lines: list[str] = []
    constraints: list[str] = []
    for kind, line in _followed(requirements, Path(), "-r", 0):
        (constraints if kind == "-c" else lines).append(line)
    return check(lines), check(constraints)


def _followed(lines: Iterable[str], folder: Path, kind: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _MAX_INCLUDES:
        raise InvalidValueError("requirements files that include each other")
    for raw in lines:
        line = _without_comment(raw)
        match = re.fullmatch(r"(-r|--requirement|-c|--constraint)[\s=]*(\S.*)", line)
        if match is None:
            if line:
                yield kind, raw.strip()
            continue
        path = folder / match[2]
        if not path.is_file():
            raise NotFoundError(f"there is no requirements file `{path}`", hint="pass a list of requirement lines")
        inner = "-c" if match[1] in ("-c", "--constraint") else kind
        yield from _followed(path.read_text(encoding="utf-8").splitlines(), path.parent, inner, depth + 1)


def read(folder: Path) -> list[str]:
    """The requirement lines of a model's folder, checked; empty if it has none.

    Raises:
        InvalidValueError: A line that is no requirement.
    """
    path = folder / REQUIREMENTS
    if not path.is_file():
        return []
    return parse(path.read_bytes())


def parse(text: bytes) -> list[str]:
    """The requirement lines in a model's ``requirements.txt``, which may refer to its constraints; as ``read``."""
    lines = text.decode("utf-8", "replace").splitlines()
    return check(line for line in lines if not re.fullmatch(rf"-c\s+{CONSTRAINTS}", line.strip()))


def locked(folder: Path, lines: Iterable[str]) -> list[str]:
    """What a model's requirements led to when it was logged, pinned.

    Empty if that is not known, or if it is not what ``lines`` ask for: they were given, and not found, or changed.

    Raises:
        InvalidValueError: A line that is no requirement.
    """
    path = folder / LOCK
    if not path.is_file():
        return []
    pins = parse(path.read_bytes())
    versions = {}
    for pin in map(parse_line, pins):
        exact = [one.version for one in pin.specifier if one.operator == "==" and "*" not in one.version]
        if len(exact) != 1 or len(pin.specifier) != 1:
            return []
        versions[canonical(pin.name)] = exact[0]
    for wanted in map(parse_line, lines):
        version = versions.get(canonical(wanted.name))
        if version is None or not wanted.specifier.contains(version, prereleases=True):
            return []
    return pins


def recorded(registry: Registry, version: ModelVersion) -> list[str]:
    """The requirement lines that a version was registered with; empty if it has none.

    Raises:
        NotFoundError: Nobody has their bytes.
        CorruptError: They are not those that were registered.
        InvalidValueError: A line that is no requirement.
    """
    found = registry.manifest(version).files.get(REQUIREMENTS)
    if found is None:
        return []
    from gittrack.sync import artifacts

    return parse(artifacts.read(registry.tracker, Artifact(REQUIREMENTS, *found)))


def in_force(registry: Registry, version: ModelVersion) -> list[str]:
    """The requirement lines of a version: those that were set since it was registered, else the recorded ones.

    Raises:
        NotFoundError, CorruptError, InvalidValueError: As ``recorded``.
    """
    text = registry.requirements(version.name, version.version)
    return recorded(registry, version) if text is None else check(text.splitlines())


def edited(lines: Sequence[str], *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> list[str]:
    """Requirement lines after a change: an added one takes the place of one for the same distribution.

    Raises:
        NotFoundError: One that is to be removed is not there; says what is.
        InvalidValueError: A line that is no requirement.
    """
    now = {name_of(line): line for line in check(lines)}
    for name in remove:
        wanted = name_of(name)
        if wanted not in now:
            raise NotFoundError(f"`{name}` is none of the requirements", hint=f"they are {', '.join(now) or 'none'}")
        del now[wanted]
    for line in check(add):
        now[name_of(line)] = line
    return sorted(now.values(), key=str.lower)


def override(folder: Path, text: str) -> None:
    """Let a copied model's folder ask for ``text`` instead; what it recorded is kept beside it.

    Raises:
        InvalidValueError: A line of ``text`` is no requirement.
    """
    lines = check(text.splitlines())
    path = folder / REQUIREMENTS
    if path.is_file():
        files.write_atomic(folder / RECORDED, path.read_bytes())
    replace(folder, lines)


def replace(folder: Path, lines: Sequence[str]) -> None:
    """Let a model's folder ask for other requirements, which are checked ones."""
    conda = folder / CONDA_ENV
    if conda.is_file():
        files.write_atomic(conda, conda_with(conda.read_bytes(), lines))
    files.write_atomic(folder / REQUIREMENTS, text_of(lines, constrained=(folder / CONSTRAINTS).is_file()))
    (folder / LOCK).unlink(missing_ok=True)  # it is the closure of what was recorded


def text_of(lines: Sequence[str], *, constrained: bool = False) -> bytes:
    """What ``requirements.txt`` says; ``constrained``: the model has constraints, which it refers to."""
    return "\n".join([*lines, *([f"-c {CONSTRAINTS}"] if constrained else [])]).encode()


def conda_with(document: bytes, lines: Sequence[str]) -> bytes:
    """A model's ``conda.yaml`` with other requirements for pip; as it is if it is no environment of conda's.

    Raises:
        FormatError: It is no YAML.
    """
    import yaml

    try:
        environment = yaml.safe_load(document)
    except yaml.YAMLError as error:
        raise FormatError(f"`{CONDA_ENV}` of the model cannot be read") from error
    if not isinstance(environment, dict) or not isinstance(environment.get("dependencies"), list):
        return document
    others = [part for part in environment["dependencies"] if not (isinstance(part, dict) and "pip" in part)]
    environment["dependencies"] = [*others, {"pip": list(lines)}]
    return yaml.safe_dump(environment, default_flow_style=False).encode()
