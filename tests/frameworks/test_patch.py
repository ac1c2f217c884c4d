from __future__ import annotations

import copy
import gc
import inspect
import logging
import pickle
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from gittrack.errors import InvalidValueError
from gittrack.frameworks.patch import Integration, Patched, Patches, WeakMap, in_version_range, inside, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.frameworks.fakes import FakeRecorder


class Thing:
    """Something with a method."""

    def double(self, value: int) -> int:
        """Twice the value."""
        return 2 * value


def plus_one(original: Callable[..., int], *args: Any, **kwargs: Any) -> int:
    return original(*args, **kwargs) + 1


def module_function(value: int, *, times: int = 2) -> int:
    """A function that can be pickled."""
    return value * times


@dataclass(frozen=True)
class Options:
    exclusive: bool = False
    silent: bool = False
    extra_tags: Mapping[str, str] | None = None


@pytest.fixture
def integration(recorded: FakeRecorder) -> Integration[Options]:
    one: Integration[Options] = Integration("test", {})
    one.enable(Options())
    return one


def test_patched_methods_look_like_methods() -> None:
    patches = Patches()
    original = Thing.double
    patches.replace(Thing, "double", Patched(original, plus_one))
    thing = Thing()
    assert thing.double(3) == thing.double(value=3) == Thing.double(thing, 3) == 7
    assert inspect.isfunction(Thing.double)
    assert inspect.ismethod(thing.double)
    assert str(inspect.signature(thing.double)) == "(value: 'int') -> 'int'"
    assert thing.double.__name__ == "double"
    assert thing.double.__doc__ == "Twice the value."
    assert pickle.loads(pickle.dumps(thing.double))(3) == 7  # by name: the patched one here, the original elsewhere
    patches.undo()
    assert Thing.double is original


def test_patched_functions_are_pickled_and_copied_as_the_original() -> None:
    patched = Patched(module_function, plus_one)
    assert patched(3, times=3) == 10
    assert pickle.loads(pickle.dumps(patched)) is module_function
    assert copy.deepcopy(patched) is module_function


def test_undo_puts_back_what_was_inherited_and_leaves_what_others_replaced() -> None:
    class Child(Thing):
        pass

    patches = Patches()
    patches.replace(Child, "double", Patched(Thing.double, plus_one))
    patches.replace(Child, "extra", 1)

    def theirs(self: Child, value: int) -> int:
        return 0

    Child.double = theirs  # type: ignore[method-assign, assignment]
    patches.undo()
    assert vars(Child)["double"] is theirs
    assert not hasattr(Child, "extra")
    del Child.double
    patches.replace(Child, "double", Patched(Thing.double, plus_one))
    patches.undo()
    assert "double" not in vars(Child)


def test_weak_map_forgets_what_died_and_what_cannot_be_watched() -> None:
    known: WeakMap[str] = WeakMap()
    thing = Thing()
    known.set(thing, "thing")
    known.set([1], "a list")
    assert known.get(thing) == "thing"
    assert known.get(Thing()) is None
    number = id(thing)
    del thing
    gc.collect()
    assert number not in known._entries


def test_quiet_is_of_one_thread() -> None:
    elsewhere: list[bool] = []
    with quiet():
        assert inside()
        thread = threading.Thread(target=lambda: elsewhere.append(inside()))
        thread.start()
        thread.join()
        with quiet():
            pass
        assert inside()
    assert not inside()
    assert elsewhere == [False]


def test_training_makes_a_run_and_ends_it(integration: Integration[Options], recorded: FakeRecorder) -> None:
    integration.enable(Options(extra_tags={"team": "red"}))
    with integration.training() as run:
        assert run is not None
        with integration.training() as nested:
            assert nested is None
    [logged] = recorded.runs
    assert logged.status == "FINISHED"
    assert logged.tags == {"team": "red", "mlflow.autologging": "test"}


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("x"), "FAILED"), (SystemExit(1), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_training_that_raises(
    integration: Integration[Options], recorded: FakeRecorder, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)) as caught, integration.training():
        raise error
    assert caught.value is error
    assert recorded.runs[0].status == status
    assert not inside()


def test_training_in_the_users_run_leaves_it_open(integration: Integration[Options], recorded: FakeRecorder) -> None:
    with recorded.started() as mine:
        with integration.training() as run:
            assert run is not None
            assert run.info.run_id == mine.run_id
        with pytest.raises(ValueError, match="x"), integration.training():
            raise ValueError("x")
        assert mine.status == "RUNNING"
    assert len(recorded.runs) == 1


def test_exclusive_leaves_the_users_run_alone(integration: Integration[Options], recorded: FakeRecorder) -> None:
    integration.enable(Options(exclusive=True))
    with recorded.started(), integration.training() as run:
        assert run is None
    with integration.training() as run:
        assert run is not None


@pytest.mark.parametrize("call", ["active_run", "start_run", "end_run"])
def test_a_broken_store_does_not_reach_the_training(
    integration: Integration[Options], recorded: FakeRecorder, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    recorded.broken = {call}
    for _ in range(3):
        with integration.training():
            pass
    assert len(caplog.records) == 1
    assert "the training goes on" in caplog.text
    assert "No space left" in caplog.text


def test_a_failing_training_raises_its_own_error_when_the_run_cannot_be_ended(
    integration: Integration[Options], recorded: FakeRecorder
) -> None:
    recorded.broken = {"end_run"}
    with pytest.raises(ValueError, match="the cause"), integration.training():
        raise ValueError("the cause")


def test_silent_warns_of_nothing(
    integration: Integration[Options], recorded: FakeRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    integration.enable(Options(silent=True))
    recorded.broken = {"start_run"}
    with integration.training() as run:
        assert run is None
    assert caplog.records == []


def test_disabled_trainings_make_no_run(integration: Integration[Options], recorded: FakeRecorder) -> None:
    integration.disable()
    with integration.training() as run:
        assert run is None
    assert recorded.runs == []


@pytest.mark.parametrize("tags", [["a"], {1: "x"}, "a=b"])
def test_extra_tags_are_checked(integration: Integration[Options], tags: Any) -> None:
    with pytest.raises(InvalidValueError, match="extra_tags"):
        integration.enable(Options(extra_tags=tags))


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.4.0", (True, True)),
        ("1.3.2", (False, True)),
        ("1.9.1", (True, True)),
        ("1.10.0", (True, False)),
        ("2", (True, False)),
        ("1.9rc1", (True, True)),
        ("1.9.dev0+abc", (True, True)),
    ],
)
def test_versions(version: str, expected: tuple[bool, bool]) -> None:
    assert in_version_range(version, (1, 4), (1, 9)) == expected
