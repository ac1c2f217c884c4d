"""What a name and a value may be: MLflow's limits, checked before anything is written.

Every function returns the value in the form that is stored, or raises :class:`InvalidValueError` naming the field, the
value and the limit.  Long parameter and tag values are the one exception, as in MLflow: they are cut to the limit with
a warning that names field and length, so that a long value never stops a training; ``truncate=False`` (MLflow's
``MLFLOW_TRUNCATE_LONG_VALUES=false``) makes them an error.

Lengths are in characters, except for artifact paths, which are file names and measured in bytes of UTF-8.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
import re
import unicodedata
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import unquote

from gittrack.errors import InvalidValueError, shown
from gittrack.store.record import is_model_id
from gittrack.types import Dataset, DatasetInput, InputTag, Metric

MAX_KEY: Final = 250
MAX_PARAM_VALUE: Final = 6000
MAX_TAG_VALUE: Final = 8000
MAX_EXPERIMENT_NAME: Final = 500
MAX_ARTIFACT_LOCATION: Final = 2048
MAX_EXPERIMENT_TAG_VALUE: Final = 20000
MAX_DATASET_NAME: Final = 500
MAX_DATASET_DIGEST: Final = 36
MAX_DATASET_SOURCE: Final = 65535
MAX_DATASET_SCHEMA: Final = 1048575
MAX_DATASET_PROFILE: Final = 16777215
MAX_INPUT_TAG_KEY: Final = 255
MAX_INPUT_TAG_VALUE: Final = 500
MAX_MODEL_ID: Final = 255
MAX_MODEL_NAME: Final = 500
MAX_MODEL_TYPE: Final = 500
MAX_STATUS_MESSAGE: Final = 1000
MAX_ARTIFACT_PATH_BYTES: Final = 1024
MAX_ARTIFACT_NAME_BYTES: Final = 255
INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)

_logger = logging.getLogger("gittrack")

_KEY = re.compile(r"[/\w.\- :]*")
_EXPERIMENT_ID = re.compile(r"[a-zA-Z0-9][\w\-]{0,63}", re.ASCII)
_NOT_IN_MODEL_NAMES: Final = "/:.%\"'"
_DRIVE = re.compile(r"[A-Za-z]:")
#: Windows opens a device for these names, with or without an extension.
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", *(port + n for port in ("com", "lpt") for n in "123456789¹²³")]
)
#: What NTFS and HFS+ take for ``.git``: git refuses trees that hold such a name.
_GIT_FOLDER = re.compile(r"(?:\.git|git~\d+)(?:::?.*)?", re.IGNORECASE)

_warned: set[tuple[str, str]] = set()


def _length(field: str, value: str, limit: int) -> str:
    if len(value) > limit:
        raise InvalidValueError(
            f"{field} `{shown(value)}` has {len(value)} characters, the limit is {limit}", hint="use a shorter one"
        )
    return value


def _storable(value: str) -> str:
    """``value`` as text that UTF-8 can hold: lone surrogates (undecodable file names) become backslash escapes."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")


def _unprintable(value: str) -> str | None:
    """The first control, format (bidi, zero-width) or surrogate character or line separator of ``value``."""
    if value.isascii() and value.isprintable():
        return None
    return next((c for c in value if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")), None)


def check_key(kind: str, key: object) -> str:
    """A metric, parameter or tag name.

    Args:
        kind: What it names, for the message: ``metric``, ``param``, ``tag``, ``experiment tag``.
        key: 1 to 250 letters, digits, ``_ - . : /`` and spaces; as a path it must be relative and normalised.
    """
    if not isinstance(key, str):
        raise InvalidValueError(f"{kind} name must be text, got {shown(key)} ({type(key).__name__})")
    if not key:
        raise InvalidValueError(f"{kind} name is empty", hint=f"give a name of 1 to {MAX_KEY} characters")
    _length(f"{kind} name", key, MAX_KEY)
    if not _KEY.fullmatch(key):
        bad = next(c for c in key if not _KEY.fullmatch(c))
        raise InvalidValueError(
            f"{kind} name `{shown(key)}` has the character `{shown(bad)}`",
            hint="letters, digits, `_`, `-`, `.`, `:`, `/` and spaces are allowed",
        )
    normal = posixpath.normpath(key)
    if normal != key or normal == "." or normal.startswith(("..", "/")):
        raise InvalidValueError(
            f"{kind} name `{shown(key)}` is not a plain relative path",
            hint="no `.` or `..` parts, and no `/` at the start, at the end or doubled",
        )
    return str.__str__(key)  # also for subclasses such as numpy's, which msgpack does not pack


def check_metric_value(key: str, value: Any) -> float:
    """A metric's value as a float: a number (NaN and ±Inf too), numeric text, an array or tensor of one element."""
    if type(value) is float:
        return value
    # A tensor that needs grad or lives on a GPU converts only after these two; duck-typed: torch is not imported here.
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = value.detach().cpu()
    # numpy deprecates float() of an array with dimensions, even of one element.
    if getattr(value, "shape", ()) != () and getattr(value, "size", None) == 1 and hasattr(value, "item"):
        value = value.item()
    try:
        return float(value)
    # TypeError is numpy's for several elements, RuntimeError torch's; OverflowError is an int above 1e308.
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InvalidValueError(
            f"metric `{shown(key)}` must be one number, got {shown(value)} ({type(value).__name__})",
            hint="pass a float, an int, or an array or tensor of one element",
        ) from error


def _check_int64(field: str, value: Any) -> int:
    whole: int | None = None
    with contextlib.suppress(TypeError, ValueError, OverflowError):  # no number at all, NaN, infinity
        known = value.__index__() if hasattr(value, "__index__") and not isinstance(value, bool) else int(value)
        if known == value:
            whole = known
    if whole is None:
        raise InvalidValueError(f"{field} must be a whole number, got {shown(value)} ({type(value).__name__})")
    if not INT64_MIN <= whole <= INT64_MAX:
        raise InvalidValueError(f"{field} {shown(whole)} is outside of 64 bits ({INT64_MIN} to {INT64_MAX})")
    return whole


def check_step(step: Any) -> int:
    """A step: any whole number of 64 bits with sign, also as a float or a numpy integer."""
    return step if type(step) is int and INT64_MIN <= step <= INT64_MAX else _check_int64("step", step)


def check_timestamp(timestamp: Any, field: str = "timestamp") -> int:
    """Milliseconds since the epoch: 0 to 2^63-1.  ``field`` is the name for the message."""
    checked = _check_int64(field, timestamp)
    if checked < 0:
        raise InvalidValueError(f"{field} {checked} is negative", hint="give milliseconds since the epoch")
    return checked


def _text(field: str, key: str, value: object, limit: int, truncate: bool) -> str:
    try:
        text = _storable(str(value))
    except Exception as error:  # `__str__` is the user's code: it can raise anything
        raise InvalidValueError(
            f"{field} `{shown(key)}` has a value that cannot be turned into text: {error}"
        ) from error
    if len(text) <= limit:
        return text
    if not truncate:
        raise InvalidValueError(
            f"{field} `{shown(key)}` has a value of {len(text)} characters, the limit is {limit}",
            hint="log long text with log_text",
        )
    if (field, key) not in _warned:
        _warned.add((field, key))
        _logger.warning(
            "%s `%s` has a value of %d characters; it is cut to %d (hint: log long text with log_text)",
            field,
            key,
            len(text),
            limit,
        )
    return text[:limit]


def check_param(key: object, value: object, *, truncate: bool = True) -> tuple[str, str]:
    """Name and value of a parameter; the value as text of at most 6000 characters (cut, unless ``truncate`` is off)."""
    name = check_key("param", key)
    return name, _text("param", name, value, MAX_PARAM_VALUE, truncate)


def check_tag(key: object, value: object, *, truncate: bool = True) -> tuple[str, str]:
    """Name and value of a run's tag; the value as text of at most 8000 characters (cut, unless ``truncate`` is off)."""
    name = check_key("tag", key)
    return name, _text("tag", name, value, MAX_TAG_VALUE, truncate)


def check_experiment_tag(key: object, value: object) -> tuple[str, str]:
    """Name and value of an experiment's tag; more than 20000 characters are an error."""
    name = check_key("experiment tag", key)
    return name, _text("experiment tag", name, value, MAX_EXPERIMENT_TAG_VALUE, truncate=False)


def _check_title(field: str, name: object, limit: int) -> str:
    if not isinstance(name, str):
        raise InvalidValueError(f"{field} must be text, got {shown(name)} ({type(name).__name__})")
    bad = _unprintable(name)
    if bad is not None:
        raise InvalidValueError(
            f"{field} `{shown(name)}` has the unprintable character `{shown(bad)}`", hint="remove it"
        )
    return _length(field, name, limit)


def check_run_name(name: object) -> str:
    """A run's name: one printable line, at most 8000 characters (it is a tag, too); whole numbers are taken."""
    return _check_title("run name", str(name) if type(name) is int else name, MAX_TAG_VALUE)


def check_experiment_name(name: object) -> str:
    """An experiment's name: one printable line of 1 to 500 characters, not blank, no ``..`` among its ``/`` parts."""
    title = _check_title("experiment name", name, MAX_EXPERIMENT_NAME)
    if not title.strip():
        raise InvalidValueError("experiment name is blank", hint=f"give one of 1 to {MAX_EXPERIMENT_NAME} characters")
    if ".." in re.split(r"[/\\]", title):
        raise InvalidValueError(f"experiment name `{shown(title)}` has a `..` part", hint="use a plain name")
    return title


def check_artifact_location(location: object) -> str | None:
    """Where an experiment's artifacts are said to be: text of at most 2048 characters, or nothing."""
    return None if location is None else _check_text("artifact location", location, MAX_ARTIFACT_LOCATION)


def check_experiment_id(experiment_id: object) -> str:
    """An experiment's id: a letter or digit, then up to 63 letters, digits, ``_``, ``-``; whole numbers are taken."""
    text = str(experiment_id) if type(experiment_id) is int else experiment_id
    if not isinstance(text, str) or not _EXPERIMENT_ID.fullmatch(text):
        raise InvalidValueError(
            f"invalid experiment id `{shown(experiment_id)}`", hint="`gittrack experiments` lists the ids"
        )
    return text


def _check_text(field: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise InvalidValueError(f"{field} must be text, got {shown(value)} ({type(value).__name__})")
    return _storable(_length(field, str.__str__(value), limit))


def _check_dataset_text(field: str, value: object) -> str:
    limit = {
        "name": MAX_DATASET_NAME,
        "digest": MAX_DATASET_DIGEST,
        "source_type": MAX_DATASET_NAME,
        "source": MAX_DATASET_SOURCE,
        "schema": MAX_DATASET_SCHEMA,
        "profile": MAX_DATASET_PROFILE,
    }[field]
    return _check_text(f"dataset {field}", value, limit)


def check_dataset(dataset: Dataset) -> Dataset:
    """What is recorded of a dataset: name, digest, source type and source are text, every field within its limit."""
    return Dataset(
        name=_check_dataset_text("name", dataset.name),
        digest=_check_dataset_text("digest", dataset.digest),
        source_type=_check_dataset_text("source_type", dataset.source_type),
        source=_check_dataset_text("source", dataset.source),
        schema=None if dataset.schema is None else _check_dataset_text("schema", dataset.schema),
        profile=None if dataset.profile is None else _check_dataset_text("profile", dataset.profile),
    )


def check_model_id(model_id: object) -> str:
    """The id of a logged model: text of 1 to 255 characters."""
    text = _check_text("model id", model_id, MAX_MODEL_ID)
    if not text:
        raise InvalidValueError("model id is empty")
    return text


def check_new_model_id(model_id: object) -> str:
    """The id of a logged model that is to be made: a letter or digit, then letters, digits, ``_`` and ``-``."""
    text = check_model_id(model_id)
    if not is_model_id(text):
        raise InvalidValueError(f"invalid model id `{shown(text)}`", hint="letters, digits, `_` and `-`")
    return text


def check_logged_model_name(name: object) -> str:
    """The name of a logged model: 1 to 500 characters, none of them ``/ : . %`` or a quote."""
    title = _check_title("logged model name", name, MAX_MODEL_NAME)
    bad = next((c for c in _NOT_IN_MODEL_NAMES if c in title), None)
    if not title or bad is not None:
        raise InvalidValueError(
            f"logged model name `{shown(title)}` " + ("is empty" if bad is None else f"has the character `{bad}`"),
            hint="not allowed are / : . % and quotes",
        )
    return title


def check_model_type(model_type: object) -> str:
    """What kind of model a logged model is: text of at most 500 characters."""
    return _check_text("model type", model_type, MAX_MODEL_TYPE)


def check_status_message(message: object) -> str:
    """Why a logged model is in its status: text of at most 1000 characters."""
    return _check_text("status message", message, MAX_STATUS_MESSAGE)


def check_metric_link(metric: Metric) -> dict[str, str]:
    """What a point of a metric is linked to: a logged model, the name and the digest of a dataset."""
    link = {}
    if metric.model_id is not None:
        link["model_id"] = check_model_id(metric.model_id)
        link["value"] = repr(check_metric_value(metric.key, metric.value) + 0.0)
    if metric.dataset_name is not None:
        link["dataset_name"] = _check_dataset_text("name", metric.dataset_name)
    if metric.dataset_digest is not None:
        link["dataset_digest"] = _check_dataset_text("digest", metric.dataset_digest)
    return link


def check_dataset_input(entry: DatasetInput) -> DatasetInput:
    """A dataset with the tags of its use: tag names of at most 255, tag values of at most 500 characters."""
    tags = [
        InputTag(
            _check_text("dataset tag name", tag.key, MAX_INPUT_TAG_KEY),
            _check_text("dataset tag value", tag.value, MAX_INPUT_TAG_VALUE),
        )
        for tag in entry.tags or ()
    ]
    return DatasetInput(check_dataset(entry.dataset), tags)


def _climbs(path: str) -> bool:
    """True if a reader that knows backslashes, drives or ``;x`` parameters would leave the folder."""
    parts = re.split(r"[/\\]", path)
    return path[:1] in ("/", "\\") or any(p.partition(";")[0].strip() == ".." or _DRIVE.match(p) for p in parts)


def _name_fault(name: str) -> str | None:
    """Why ``name`` cannot be one part of an artifact path, or None."""
    if name in ("", ".", ".."):
        return "is not a plain relative path (no `.`, `..` or empty parts)"
    if name[-1] in " .":
        return "has a part that ends in a dot or a space"
    if len(name.encode("utf-8")) > MAX_ARTIFACT_NAME_BYTES:
        return f"has a part of more than {MAX_ARTIFACT_NAME_BYTES} bytes"
    if _GIT_FOLDER.fullmatch(name):
        return "has a part that git takes for its own folder"
    if name.partition(".")[0].rstrip().lower() in _DEVICES:
        return "has a part that is a device on Windows"
    return None


def _path_fault(path: str, normal: str) -> str | None:
    """Why ``path`` (``normal`` in NFC) cannot be an artifact's path, or None."""
    if not path:
        return "is empty"
    bad = _unprintable(path)
    if bad is not None:
        return f"has the unprintable character `{shown(bad)}`"
    if "\\" in path:
        return "has a backslash"
    if _climbs(path):
        return "leads out of the run's folder"
    if len(normal.encode("utf-8")) > MAX_ARTIFACT_PATH_BYTES:
        return f"has more than {MAX_ARTIFACT_PATH_BYTES} bytes"
    decoded = path
    while (following := unquote(decoded)) != decoded:  # ends: every decoded `%` makes the text shorter
        decoded = following
        if _climbs(decoded):
            return "leads out of the run's folder once decoded"
    return next((fault for fault in map(_name_fault, normal.split("/")) if fault), None)


def check_artifact_path(path: object) -> str:
    """Path of an artifact below its run: relative, with ``/``, normalised; returned in Unicode's NFC form.

    The path becomes a path in a git tree and, on download, a file on any system.  So everything is refused that some
    system or some later decoding would read as another place: ``..``, absolute and drive paths, backslashes, percent
    encodings of those, control, bidi and zero-width characters, names that git or Windows keeps for itself.  A part has
    at most 255 bytes, the path at most 1024.
    """
    path = path.as_posix() if isinstance(path, PurePath) else path
    if not isinstance(path, str):
        raise InvalidValueError(f"artifact path must be text, got {shown(path)} ({type(path).__name__})")
    normal = unicodedata.normalize("NFC", path)
    fault = _path_fault(path, normal)
    if fault is not None:
        raise InvalidValueError(
            f"artifact path `{shown(path)}` {fault}", hint="use a relative path such as `plots/roc.png`"
        )
    return normal
