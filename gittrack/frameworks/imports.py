"""Act when a module is imported, now or later: how autologging reaches a library without importing it."""

from __future__ import annotations

import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_logger = logging.getLogger("gittrack")
_lock = threading.RLock()
_waiting: dict[tuple[str, str], Callable[[ModuleType], None]] = {}


def when_imported(name: str, key: str, callback: Callable[[ModuleType], None]) -> None:
    """Call ``callback`` with the module ``name``: at once if it is imported already, else right after its import.

    Args:
        name: Full name of the module.
        key: Whose wish this is.  A second wish of the same key for the same module replaces one that still waits.
        callback: What to do.  An exception of it is logged: it never makes the import fail.
    """
    with _lock:
        module = sys.modules.get(name)
        if module is None:
            _waiting[name, key] = callback
            if _finder not in sys.meta_path:
                sys.meta_path.insert(0, _finder)
            return
    _call(callback, module)


def forget(key: str) -> None:
    """Drop every wish of ``key`` that still waits."""
    with _lock:
        for wish in [wish for wish in _waiting if wish[1] == key]:
            del _waiting[wish]
        _remove_idle_finder()


def _remove_idle_finder() -> None:
    if not _waiting and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)


def _call(callback: Callable[[ModuleType], None], module: ModuleType) -> None:
    try:
        callback(module)
    except Exception as error:  # noqa: BLE001 - somebody's `import` statement is running: it must not fail
        _logger.warning("cannot watch the module `%s`: %s", module.__name__, error)


def _imported(module: ModuleType) -> None:
    with _lock:
        wishes = [wish for wish in _waiting if wish[0] == module.__name__]
        callbacks = [_waiting.pop(wish) for wish in wishes]
        _remove_idle_finder()
    for callback in callbacks:
        _call(callback, module)


class _Finder:
    """Finds watched modules where the other finders find them, and hooks the end of their execution."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(name == fullname for name, _ in list(_waiting)):
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if finder is self or find is None else find(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module") and not isinstance(spec.loader, type):
                    _hook(spec.loader)
                return spec
        return None


def _hook(loader: Any) -> None:
    """Make the next ``exec_module`` of ``loader`` report the module.

    The loader object itself stays in place, since libraries ask ``__spec__.loader`` for resources.
    """
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        vars(loader).pop("exec_module", None)
        execute(module)
        _imported(module)

    loader.exec_module = exec_module


_finder = _Finder()
