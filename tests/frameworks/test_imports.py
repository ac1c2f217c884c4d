from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from gittrack.frameworks import imports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Makes modules that can be imported in this test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def make(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]
    imports.forget("test")
    assert imports._finder not in sys.meta_path


def test_a_module_that_is_imported_already_is_reported_at_once() -> None:
    seen: list[ModuleType] = []
    imports.when_imported("json", "test", seen.append)
    assert [one.__name__ for one in seen] == ["json"]


def test_a_module_is_reported_when_it_has_been_executed(module: Callable[[str, str], None]) -> None:
    module("gt_late", "VALUE = 7")
    seen: list[int] = []
    imports.when_imported("gt_late", "test", lambda found: seen.append(found.VALUE))
    assert seen == []
    late = importlib.import_module("gt_late")
    assert seen == [7]
    assert late.__spec__ is not None
    assert "exec_module" not in vars(late.__spec__.loader)  # the loader is as it was
    importlib.reload(late)
    assert seen == [7]


def test_the_newest_wish_of_a_key_counts(module: Callable[[str, str], None]) -> None:
    module("gt_twice", "")
    seen: list[str] = []
    imports.when_imported("gt_twice", "test", lambda _: seen.append("first"))
    imports.when_imported("gt_twice", "test", lambda _: seen.append("second"))
    imports.when_imported("gt_twice", "other", lambda _: seen.append("other"))
    importlib.import_module("gt_twice")
    assert sorted(seen) == ["other", "second"]


def test_a_forgotten_wish_is_not_granted(module: Callable[[str, str], None]) -> None:
    module("gt_forgotten", "")
    seen: list[ModuleType] = []
    imports.when_imported("gt_forgotten", "test", seen.append)
    imports.forget("test")
    importlib.import_module("gt_forgotten")
    assert seen == []


def test_a_failing_callback_does_not_fail_the_import(
    module: Callable[[str, str], None], caplog: pytest.LogCaptureFixture
) -> None:
    module("gt_bad", "")

    def fail(_: ModuleType) -> None:
        raise RuntimeError("no such attribute")

    imports.when_imported("gt_bad", "test", fail)
    importlib.import_module("gt_bad")
    assert "gt_bad" in caplog.text
    assert "no such attribute" in caplog.text


def test_a_failed_import_fails_as_ever_and_may_be_tried_again(module: Callable[[str, str], None]) -> None:
    module("gt_broken", "raise OSError('first time')")
    seen: list[ModuleType] = []
    imports.when_imported("gt_broken", "test", seen.append)
    with pytest.raises(OSError, match="first time"):
        importlib.import_module("gt_broken")
    assert seen == []
    module("gt_broken", "HEALED = 'a text of another length'")
    importlib.import_module("gt_broken")
    assert len(seen) == 1


def test_a_missing_module_is_missing_as_ever() -> None:
    imports.when_imported("gt_missing", "test", lambda _: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("gt_missing")
    imports.forget("test")
