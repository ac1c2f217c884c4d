"""Watch a library's functions, and put them back: never changes what they return, never makes them fail.

Shared by every framework module.  An :class:`Integration` is one library's autologging; what it replaces are
:class:`Patched` callables, which know their original; :func:`training` is the run that a training is logged to.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import operator
import re
import threading
import weakref
from contextvars import ContextVar
from types import MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from gittrack.errors import InvalidValueError
from gittrack.frameworks import imports
from gittrack.frameworks.recorder import recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gittrack.types import Run

logger = logging.getLogger("gittrack")

AUTOLOGGING_TAG: Final = "mlflow.autologging"

V = TypeVar("V")
_ABSENT: Final = object()

# --- replacing functions


class Patched:
    """Stands in for a function or a method: a call becomes ``around(original, *args, **kwargs)``.

    It behaves like the function in what libraries are known to ask: it binds to instances, has its name, docstring
    and signature, is a real function when read from the class, and is pickled as the original, so that neither a
    worker process nor a saved model ever meets it.
    """

    def __init__(self, original: Callable[..., Any], around: Callable[..., Any]) -> None:
        functools.update_wrapper(self, original)
        self._original = original
        self._around = around

        @functools.wraps(original)
        def unbound(*args: Any, **kwargs: Any) -> Any:
            return self(*args, **kwargs)

        self._unbound = unbound

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what stands in."""
        return self._around(self._original, *args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Any]:
        return self._unbound if instance is None else MethodType(self, instance)

    def __reduce__(self) -> tuple[Any, ...]:
        return operator.itemgetter(0), ((self._original,),)


class Patches:
    """What was replaced, and how to put it back."""

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any]] = []

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Set attribute ``name`` of a class or a module."""
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        self._done.append((owner, name, before, value))

    def undo(self) -> None:
        """Put back everything, except what somebody else has replaced since."""
        while self._done:
            owner, name, before, value = self._done.pop()
            if vars(owner).get(name) is not value:
                continue
            if before is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, before)


class WeakMap(Generic[V]):
    """Values by the identity of objects, for as long as the objects live; they need not be hashable."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Any], V]] = {}

    def get(self, key: object) -> V | None:
        """The value of ``key``, or None."""
        entry = self._entries.get(id(key))
        return entry[1] if entry is not None and entry[0]() is key else None

    def set(self, key: object, value: V) -> None:
        """Set the value of ``key``.  Objects that cannot be referred to weakly (lists, numbers) are not kept."""
        number = id(key)

        def gone(reference: weakref.ref[Any]) -> None:
            entry = self._entries.get(number)
            if entry is not None and entry[0] is reference:  # else the id has a new owner
                del self._entries[number]

        with contextlib.suppress(TypeError):  # not weakly referable
            self._entries[number] = (weakref.ref(key, gone), value)


# --- nested calls

_inside: ContextVar[bool] = ContextVar("gittrack_inside", default=False)


def inside() -> bool:
    """True within a call that is watched already, or that must not be: what it calls is then not logged."""
    return _inside.get()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Log nothing that is called within, in this thread."""
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)


# --- one library's autologging


class Options(Protocol):
    """The options that every ``autolog()`` has."""

    @property
    def exclusive(self) -> bool:
        """Log nothing while a run of the user's is active."""

    @property
    def silent(self) -> bool:
        """Give no warnings."""

    @property
    def extra_tags(self) -> Mapping[str, str] | None:
        """Tags for the runs that are started."""


O = TypeVar("O", bound=Options)  # noqa: E741 - for options


class Integration(Generic[O]):
    """The autologging of one library: whether it is on, with which options, and what it has replaced.

    Attributes:
        name: The framework's name, which also goes into the run's ``mlflow.autologging`` tag.
        options: None while it is off.
        by_user: True if it was switched by the framework's own ``autolog()``, which ``gittrack.autolog()`` respects.
    """

    def __init__(self, name: str, watch: Mapping[str, Callable[[ModuleType, Patches], None]]) -> None:
        """``watch`` maps names of modules to what is to be replaced in them once they are imported."""
        self.name = name
        self.options: O | None = None
        self.by_user = False
        self._watch = watch
        self._patches = Patches()
        self._lock = threading.RLock()
        self._warned: set[str] = set()

    def enable(self, options: O) -> None:
        """Switch on, or change the options."""
        check_tags(options.extra_tags)
        with self._lock:
            self.disable()
            self.options = options
            self._warned.clear()
            for module, patch in self._watch.items():
                imports.when_imported(module, self.name, functools.partial(self._patch, patch))

    def _patch(self, patch: Callable[[ModuleType, Patches], None], module: ModuleType) -> None:
        with self._lock:
            patch(module, self._patches)

    def disable(self) -> None:
        """Switch off and put everything back."""
        with self._lock:
            self.options = None
            imports.forget(self.name)
            self._patches.undo()

    def warn(self, doing: str, error: object) -> None:
        """Say that ``doing`` failed: once for each thing done, until autologging is switched on again."""
        if doing in self._warned or self.options is None or self.options.silent:
            logger.debug("%s autologging cannot %s", self.name, doing, exc_info=True)
            return
        self._warned.add(doing)
        logger.warning("%s autologging cannot %s, the training goes on: %s", self.name, doing, error)

    @contextlib.contextmanager
    def attempt(self, doing: str) -> Iterator[None]:
        """Do something that may fail: an exception from within becomes a warning."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - tracking trouble never stops a training (design section 5)
            self.warn(doing, error)

    @contextlib.contextmanager
    def training(self) -> Iterator[Run | None]:
        """The run to log a training to: the active one, or a new one that ends when the training ends.

        None if it is not to be logged: within another training, under a run of the user's with ``exclusive``, or when
        no run can be made.  A run that is made here ends ``FAILED`` if the training raises, ``KILLED`` if it is
        interrupted.
        """
        options = self.options
        if options is None or inside():
            yield None
            return
        run, ours = self._run(options)
        with quiet():
            try:
                yield run
            except BaseException as error:
                if ours:
                    with self.attempt("end the run"):
                        recorder().end_run("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
                raise
            if ours:
                with self.attempt("end the run"):
                    recorder().end_run("FINISHED")

    def _run(self, options: O) -> tuple[Run | None, bool]:
        with self.attempt("start a run"):
            active = recorder().active_run()
            if active is not None:
                return (None if options.exclusive else active), False
            tags = {key: str(value) for key, value in (options.extra_tags or {}).items()}
            run = recorder().start_run(tags={**tags, AUTOLOGGING_TAG: self.name})
            logger.info("%s autologging records this training as run %s", self.name, run.info.run_id)
            return run, True
        return None, False


def check_tags(tags: object) -> None:
    """Refuse ``extra_tags`` that are no tags.

    Raises:
        InvalidValueError: Not a dict with text keys.
    """
    if tags is not None and not (isinstance(tags, dict) and all(isinstance(key, str) for key in tags)):
        raise InvalidValueError(f"extra_tags must be a dict with text keys, got {type(tags).__name__}")


def in_version_range(version: str, minimum: tuple[int, int], newest: tuple[int, int]) -> tuple[bool, bool]:
    """Whether ``version`` is at least ``minimum`` and at most ``newest``, by major and minor number."""
    major, minor = [int(number) for number in [*re.findall(r"\d+", version), "0", "0"][:2]]
    return (major, minor) >= minimum, (major, minor) <= newest
