"""What a library of native code makes of a file from elsewhere is found out in a child process first.

XGBoost, LightGBM, CatBoost and ONNX Runtime read their files in C++ and take much of what these say on trust: a damaged
or hostile file can crash the process, or worse.  So such a file is loaded, and predicts, in a child with limits on
memory, time and what it may write, before this process reads it.  A file that passed, or that a library of this machine
wrote, is remembered by its sha256 and the library's version, so that this is done once.  It proves nothing about inputs
that were not tried; who may not crash serves from a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack import config
from gittrack.errors import FormatError, StorageError
from gittrack.models.environments import child_environment
from gittrack.models.flavours import flavour
from gittrack.models.model import Model
from gittrack.models.trust import Trust, inside
from gittrack.store import files

if TYPE_CHECKING:
    from gittrack.models.addresses import LocalModel

_log = logging.getLogger("gittrack")

#: The flavours whose files are read by native code that does not check them -> the distribution that reads them.
LIBRARIES: Final = {"catboost": "catboost", "lightgbm": "lightgbm", "onnx": "onnxruntime", "xgboost": "xgboost"}
#: Seconds until a child that hangs is ended, and what it may take of the processor.
SECONDS: Final = 120
#: Bytes of address space, or all that the machine has if that is more: libraries reserve more than they use.
_SPACE: Final = 8 << 30
#: Of the memory that is free, what it may fill; and bytes that it may in any case.
_SHARE: Final = 0.75
_LEAST: Final = 1 << 30
#: What C++ says in an ordinary error when there was no memory left.
_NO_MEMORY: Final = ("bad_alloc", "bad allocation", "out of memory")
#: Rows of each input that is tried.
_ROWS: Final = 64
#: The child finds modules where this process does; Python's ``-I`` keeps everything else out.
_PROGRAM: Final = (
    "import json, sys; asked = json.load(sys.stdin); sys.path[:] = asked.pop('path'); "
    "from gittrack.models import rehearsal; rehearsal.answer(**asked)"
)
_PASSED: Final = b"passed"


def rehearse(local: LocalModel, name: str, conf: Mapping[str, Any]) -> None:
    """Go on only if the files of a model do not crash their library.

    Args:
        local: The model; one that is trusted is not tried.
        name: Its flavour.
        conf: That flavour's entry under ``flavors``.

    Raises:
        FormatError: They do, or take more memory or time than there is.
    """
    if name not in LIBRARIES or not sys.executable:
        return
    mark = _mark(local.folder, name, conf)
    if mark is None or mark.exists() or local.trusted:
        return
    asked = {"path": [one for one in sys.path if one], "name": name, "folder": str(local.folder)}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _PROGRAM],
            input=json.dumps(asked).encode(),
            env=child_environment({"OMP_NUM_THREADS": "1"}),
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FormatError(f"{local.trust.model} is read by {name} for more than {SECONDS} s: not loaded") from error
    if done.returncode:
        _log.debug("the child that tried %s: %s", local.trust.model, done.stderr[-2000:])
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise FormatError(
            f"{local.trust.model} makes {name} crash ({how}): its files are damaged, or were made to do that",
            hint="if you trust who made it, pass trust=True or `--trust` to load it all the same",
        )
    if done.stdout == _PASSED:
        _set(mark)
    elif done.stdout:  # not to be read here once more: there, it may have stopped at a limit that nobody has set here
        said = json.loads(done.stdout)
        raise FormatError(said["message"], hint=said["hint"])


def remember(folder: Path, name: str, conf: Mapping[str, Any]) -> None:
    """A library of this machine has just written these files: they need not be tried."""
    if name in LIBRARIES and (mark := _mark(folder, name, conf)) is not None:
        _set(mark)


def _mark(folder: Path, name: str, conf: Mapping[str, Any]) -> Path | None:
    """The file that says that these files passed; None if there are none, or no library: loading says so better."""
    path = inside(folder, conf.get("data"))
    try:
        version = metadata.version(LIBRARIES[name])
    except metadata.PackageNotFoundError:
        return None
    known = [name, version, str(conf.get("model_class")), platform.python_version(), platform.platform()]
    digest = hashlib.sha256(json.dumps(known).encode())
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with files.reporting(file, "read"), file.open("rb") as opened:
                while piece := opened.read(1 << 20):
                    digest.update(piece)
            digest.update(b"%d\n" % file.stat().st_size)
    return config.cache_folder() / "rehearsed" / digest.hexdigest()


def _set(mark: Path) -> None:
    try:
        files.make_dirs(mark.parent, durable=False)
        mark.touch()
    except (StorageError, OSError) as error:  # it is tried again the next time
        _log.debug("cannot remember that a model passed: %s", error)


# --- the child


def answer(name: str, folder: str) -> None:
    """Load and predict, and say whether that went well.

    Files that cannot be read are told to the parent; any other error that is no crash is one that it meets itself.
    """
    _limit()
    # Libraries print to standard output, too: what comes there is the answer alone.
    sys.stdout.flush()
    told = os.dup(1)
    os.dup2(2, 1)
    try:
        module, about = flavour(name), Model.load(Path(folder))
        conf = about.flavors[name]
        predictor = module.predictor(module.load(Path(folder), conf, trust=Trust()), conf)
        for data in _inputs(about, predictor):
            predictor.predict(data)
    except FormatError as error:
        os.write(told, json.dumps({"message": error.message, "hint": error.hint}).encode())
        return
    except Exception as error:  # noqa: BLE001 - see above
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in _NO_MEMORY):
            sys.exit(3)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201 - its answer to the parent
        return
    os.write(told, _PASSED)


def _limit() -> None:
    if sys.platform == "win32":
        return
    import resource

    import psutil

    memory = psutil.virtual_memory()
    limits = {
        resource.RLIMIT_AS: max(_SPACE, memory.total),
        resource.RLIMIT_DATA: max(_LEAST, int(memory.available * _SHARE)),
        resource.RLIMIT_CPU: SECONDS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,  # it has nothing to write
    }
    for what, most in limits.items():
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))


def _inputs(about: Model, predictor: Any) -> list[Any]:
    """Inputs of the shape that the signature asks for: zeros, large ones, missing values and random ones."""
    import numpy as np

    from gittrack.data.schema import NUMPY_TYPES, TensorSpec

    schema = None if about.signature is None else about.signature.inputs
    if schema is None:
        return []
    chance = np.random.default_rng(0)
    if schema.is_tensor_spec():
        specs = [spec for spec in schema.inputs if isinstance(spec, TensorSpec)]
        sizes = {spec.name: [_ROWS if size < 0 else size for size in spec.shape] for spec in specs}
        kinds = {spec.name: np.dtype(spec.type) for spec in specs}
        made = [
            {key: np.asarray(scale * chance.standard_normal(sizes[key])).astype(kinds[key]) for key in sizes}
            for scale in (0, 1, 100)
        ]
        return [one[None] if set(one) == {None} else one for one in made]
    names, types = schema.input_names(), [spec.type for spec in schema.inputs]
    if not all(isinstance(kind, str) and kind in ("integer", "long", "float", "double") for kind in types):
        return []
    shape = (_ROWS, len(types))
    tables = [np.zeros(shape), np.full(shape, 1e6), np.full(shape, -1e6), chance.standard_normal(shape) * 10]
    if all(kind in ("float", "double") for kind in types):
        tables.append(np.full(shape, np.nan))
    takes = getattr(predictor, "takes_matrix", None)
    if takes is not None and takes(names):
        return tables
    import pandas as pd

    columns = names or list(range(len(types)))
    return [
        pd.DataFrame({name: table[:, at].astype(NUMPY_TYPES[str(types[at])]) for at, name in enumerate(columns)})
        for table in tables
    ]


__all__ = ["LIBRARIES", "SECONDS", "answer", "rehearse", "remember"]
