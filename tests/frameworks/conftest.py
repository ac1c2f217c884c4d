"""Autologging in the test process: recorded in memory, and off again after each test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gittrack import frameworks
from gittrack.frameworks import imports, models, recorder, sklearn as sklearn_framework
from tests.frameworks.fakes import FakeRecorder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def recorded() -> Iterator[FakeRecorder]:
    """What is recorded in this test."""
    fake = FakeRecorder()
    recorder.use((fake, fake))
    models.register("sklearn", None)
    yield fake
    sklearn_framework.INTEGRATION.disable()
    sklearn_framework.INTEGRATION.by_user = False
    for library in frameworks.FRAMEWORKS:
        imports.forget(library)
    imports.forget("autolog")
    models.forget("sklearn")
    recorder.use(None)
