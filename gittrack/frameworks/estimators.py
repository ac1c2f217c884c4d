"""How an estimator with scikit-learn's interface is kept: as skops, which runs no code, or as a pickle if asked for."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gittrack.errors import FormatError, InvalidValueError, MissingDependencyError
from gittrack.frameworks import skops
from gittrack.models.trust import unpickle

if TYPE_CHECKING:
    from types import ModuleType

    from gittrack.models.trust import Trust

FORMATS: Final = ("skops", "cloudpickle", "pickle")


def file_name(form: str) -> str:
    """The name of the file.  Raises InvalidValueError for an unknown format."""
    if form not in FORMATS:
        raise InvalidValueError(f"unknown serialization_format `{form!s:.80}`", hint="one of " + ", ".join(FORMATS))
    return "model.skops" if form == "skops" else "model.pkl"


def save(
    model: Any, path: Path, form: str, *, trusted: Iterable[str] | None, allowed: Collection[str] = skops.ALLOWED
) -> tuple[list[str] | None, list[str]]:
    """Write an estimator.

    Args:
        model: The estimator.
        path: The file.
        form: One of ``FORMATS``.
        trusted: Types beyond ``allowed`` that the caller knows to be harmless.
        allowed: Types that a skops file may have, beyond those that skops trusts.

    Returns:
        The types in a skops file that skops does not trust by itself, for MLflow; and the formats for ``Saved``.

    Raises:
        InvalidValueError: It cannot be kept like that; the hint says how it can.
        MissingDependencyError: The package of the format is not installed.
    """
    if form != "skops":
        _pickle(model, path, form)
        return None, [form]
    types, unknown = skops.dump(model, path, allowed=allowed)
    if unknown and not set(unknown) <= set(trusted or ()):
        path.unlink()
        shown = ", ".join(f"`{name}`" for name in unknown[:5]) + (" …" if len(unknown) > 5 else "")
        raise InvalidValueError(
            f"the model has types that gittrack does not know to be harmless: {shown}",
            hint="pass skops_trusted_types with their names, or serialization_format='cloudpickle' if they are your "
            "own code; loading it then needs trust=True, or a version signed by someone who may",
        )
    return types or None, ["skops with other types" if unknown else "skops"]


def _pickle(model: Any, path: Path, form: str) -> None:
    # Python's default protocol, so that the oldest supported Python reads it.
    module = _cloudpickle() if form == "cloudpickle" else pickle
    try:
        path.write_bytes(module.dumps(model, protocol=pickle.DEFAULT_PROTOCOL))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InvalidValueError(f"this {type(model).__name__} cannot be pickled: {error!s:.300}") from error


def _cloudpickle() -> ModuleType:
    try:
        import cloudpickle
    except ImportError as error:
        raise MissingDependencyError(
            "the format `cloudpickle` needs the package of that name", hint="`pip install cloudpickle`"
        ) from error
    return cloudpickle  # type: ignore[no-any-return]  # it has no types


def load(path: Path, form: object, *, trust: Trust, allowed: Collection[str] = skops.ALLOWED) -> Any:
    """The estimator in a file.

    Raises:
        FormatError: Not in that format, or an unknown one.
        UntrustedModelError: It is a pickle, or has types that are not ``allowed``, and code may not run.
        MissingDependencyError: A package that it needs is not installed.
    """
    if form == "skops":
        return skops.load(path, trust=trust, allowed=allowed)
    if form not in FORMATS:
        raise FormatError(f"unknown serialization format `{form!s:.80}`")
    return unpickle(path, trust)
