"""What may be loaded: the formats that run no code, and everything else only for who says so.

The loader of a file is chosen by the format that gittrack's own code gives it, never by what a model says about itself;
a list of trusted types that comes with a model is written for MLflow and never read.  What runs code is loaded if the
caller passes ``trust=True``, or if the registered version is signed by someone who is allowed to (setting ``trust``).
"""

from __future__ import annotations

import pickle
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from gittrack.errors import (
    FormatError,
    InvalidValueError,
    MissingDependencyError,
    NotFoundError,
    UntrustedModelError,
)
from gittrack.track import limits

#: Formats whose readers run no code of the file's.  Whatever is not listed does.
SAFE_FORMATS: Final = frozenset(
    {
        "catboost",  # cbm, by CatBoost's own reader
        "json",
        "keras",  # .keras, with safe_mode
        "lightgbm",  # text, by LightGBM's own reader
        "onnx",
        "safetensors",
        "skops",  # with the allow-list of frameworks.sklearn
        "torch.export",  # .pt2 that was seen to have no pickle in it
        "xgboost",  # ubj and json, by XGBoost's own reader
    }
)

_PICKLE_PROTOCOLS: Final = range(2, 6)
_TORCH_MAGIC: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
#: An archive may be this much larger than its file when it is unpacked, and this much in any case.
MAX_RATIO: Final = 50
MIN_UNPACKED: Final = 512 << 20
MAX_MEMBERS: Final = 1_000_000


def runs_code(formats: object) -> bool:
    """True unless each of the named formats is known to run no code."""
    return not isinstance(formats, (list, tuple)) or not all(one in SAFE_FORMATS for one in formats)


class Trust:
    """Whether code that came with one model may run.

    Args:
        granted: It may.
        model: What is loaded, for messages: an address or a path.
        signed: Asked, once, if somebody wants to know and ``granted`` is not set: who vouches for the model may grant
            it, too.  Returns None if somebody does, else why that does not count.
    """

    def __init__(
        self, granted: bool = False, model: str = "the model", signed: Callable[[], str | None] | None = None
    ) -> None:
        self.model = model
        #: The person who loads it said so.  A signature says less: it is about the files that were registered.
        self.said = granted
        self._granted = granted
        self._signed = signed
        self._reason = ""

    @property
    def granted(self) -> bool:
        """True if code that came with the model may run."""
        if self._signed is not None and not self._granted:
            fault = self._signed()
            self._signed = None
            self._granted, self._reason = fault is None, fault or ""
        return self._granted

    def require(self, what: str) -> None:
        """Go on only if code may run.

        Args:
            what: What would run it: "a pickle, `model.pkl`".

        Raises:
            UntrustedModelError: It may not.
        """
        if not self.granted:
            why = f"; {self._reason}" if self._reason else ""
            raise UntrustedModelError(
                f"{self.model} has {what}: loading it runs code that came with it{why}",
                hint="if you trust who made it, pass trust=True or `--trust`; `gittrack help models` says more",
            )


def decide(model: str, *, trust: bool, setting: str, signed: Callable[[], str | None] | None = None) -> Trust:
    """Whether code that comes with ``model`` may run.

    Args:
        model: What is loaded, for messages.
        trust: The caller says so.
        setting: ``never`` (only if the caller says so), ``signed`` or ``always``.
        signed: As for ``Trust``.
    """
    return Trust(trust or setting == "always", model, signed if setting == "signed" else None)


def inside(folder: Path, name: object) -> Path:
    """The path of a file or folder of a model that its metadata names.

    Raises:
        FormatError: The name leads out of ``folder``, or through a link.
        NotFoundError: There is no such file.
    """
    try:
        path = folder / limits.check_artifact_path(name)
    except InvalidValueError as error:
        raise FormatError(f"the model names a file `{name!s:.80}`, which is no path inside of it") from error
    for part in (path, *path.parents):
        if part == folder:
            break
        try:
            mode = part.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(
                f"the model has no file `{name}`", hint=f"it has {', '.join(_names(folder))}"
            ) from error
        if stat.S_ISLNK(mode) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise FormatError(f"`{name}` of the model is a link, or no regular file")
    return path


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())[:20]


def refuse_pickle(path: Path, trust: Trust) -> None:
    """Refuse a file that is a pickle, whatever its name says; it is looked into, not believed.

    Raises:
        UntrustedModelError: It is one, and code may not run.
    """
    with path.open("rb") as file:
        start = file.read(64)
    if start[:1] == b"\x80" and len(start) > 1 and start[1] in _PICKLE_PROTOCOLS:
        trust.require(f"a pickle, `{path.name}`")
    if start.startswith(_TORCH_MAGIC):
        trust.require(f"a pickle of PyTorch, `{path.name}`")
    if start.startswith(b"PK"):
        for name in check_archive(path):
            if name.rpartition("/")[2].endswith((".pkl", ".pickle", ".pth", ".joblib")):
                trust.require(f"a pickle, `{name}` in `{path.name}`")


def unpickle(path: Path, trust: Trust, what: str = "a pickle") -> Any:
    """What is in a pickle: the one place that reads any.

    Raises:
        UntrustedModelError: Code may not run.
        MissingDependencyError: It needs code that is not here.
        FormatError: It is damaged.
    """
    trust.require(f"{what}, `{path.name}`")
    try:
        return pickle.loads(path.read_bytes())  # noqa: S301 - it was asked for
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(
            f"the model needs code that is not here: {error}",
            hint="install what its requirements.txt lists, or log it with code_paths",
        ) from error
    except (pickle.UnpicklingError, EOFError, IndexError, ValueError) as error:
        raise FormatError(f"`{path.name}` cannot be read: {error!s:.200}") from error


def check_archive(path: Path) -> list[str]:
    """The members of a zip file, if it does not unpack to far more than it is.

    Raises:
        FormatError: No zip file, or a bomb, or one whose members lead out of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise FormatError(f"`{path.name}` cannot be read: {error}") from error
    total = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS or total > max(MIN_UNPACKED, MAX_RATIO * path.stat().st_size):
        raise FormatError(
            f"`{path.name}` unpacks to {total} bytes in {len(members)} files, from {path.stat().st_size}: refused"
        )
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise FormatError(f"`{path.name}` has two members of the same name")
    if any(name.startswith("/") or "\\" in name or ".." in name.split("/") for name in names):
        raise FormatError(f"`{path.name}` has a member whose path leads out of it")
    return names
