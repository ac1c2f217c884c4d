"""Autologging: one small module for each library, that answers to :class:`Framework`.

``table`` names them; a module is imported when its library is.  What they share is in ``patch`` (watching functions),
``imports`` (acting on a library's import), ``recorder`` (the API they log through), ``datasets`` and ``models``.
"""

from __future__ import annotations

import inspect
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from gittrack.frameworks import imports
from gittrack.frameworks.patch import Integration, check_tags, logger
from gittrack.frameworks.table import FRAMEWORKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

__all__ = ["FRAMEWORKS", "Framework", "autolog"]


class Framework(Protocol):
    """What a framework's module offers.  It does not import its library: that is the user's doing."""

    INTEGRATION: Integration[Any]

    def autolog(self, *, disable: bool = False, exclusive: bool = False, silent: bool = False) -> None:
        """Switch autologging of the library on or off; more options are the framework's own."""


def autolog(
    log_input_examples: bool = False,
    log_model_signatures: bool = True,
    log_models: bool = True,
    log_datasets: bool = True,
    log_traces: bool = True,
    disable: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
    silent: bool = False,
    extra_tags: Mapping[str, str] | None = None,
    exclude_flavors: Sequence[str] | None = None,
) -> None:
    """Log every training with the libraries gittrack knows, whether they are imported already or later.

    A library whose own ``autolog`` was called, such as ``gittrack.sklearn.autolog``, keeps the options given there.

    Args:
        log_input_examples: Save the first rows of the training data with the model.
        log_model_signatures: Save the types of the model's input and output with it.
        log_models: Save trained models.
        log_datasets: Log name and digest of the data that is trained on.
        log_traces: Taken for MLflow's sake; gittrack records no traces.
        disable: Switch off, and put the libraries back as they were.
        exclusive: Log nothing while a run is active that the user started.
        disable_for_unsupported_versions: Stay off for versions that were not tested.
        silent: Give no warnings.
        extra_tags: Tags for the runs that are started here.
        exclude_flavors: Names of libraries to leave alone, such as ``["sklearn"]``.

    Raises:
        InvalidValueError: ``extra_tags`` is no dict with text keys.
    """
    options = {key: value for key, value in locals().items() if key not in ("exclude_flavors", "log_traces")}
    check_tags(extra_tags)
    for library, path in FRAMEWORKS.items():
        if library not in (exclude_flavors or ()):
            imports.when_imported(library, "autolog", partial(_switch, path, options))


def _switch(path: str, options: Mapping[str, Any], _library: ModuleType) -> None:
    """Call a framework's ``autolog`` with the options it has, unless the user has called it."""
    framework = cast("Framework", import_module(path))
    if framework.INTEGRATION.by_user:
        return
    known = inspect.signature(framework.autolog).parameters
    framework.autolog(**{key: value for key, value in options.items() if key in known})
    framework.INTEGRATION.by_user = False
    if not options["disable"]:
        logger.debug("autologging is on for %s", framework.INTEGRATION.name)
