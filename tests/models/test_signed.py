"""Registered versions that run code: loaded if an allowed signer vouches for them; and the team's rules come first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression

import gittrack
import gittrack.sklearn
from gittrack import pyfunc, stores
from gittrack.errors import StateError, UntrustedModelError
from gittrack.registry import policy, signing
from gittrack.registry.registry import Registry


@pytest.fixture
def pickled(project: Path, iris: Any) -> Any:
    """A registered pickle in production, with an alias."""
    with gittrack.start_run():
        info = gittrack.sklearn.log_model(
            LogisticRegression(max_iter=500).fit(*iris),
            name="model",
            serialization_format="pickle",
            registered_model_name="iris",
        )
    registry = Registry(stores.tracker())
    registry.promote("iris", "1", "Production", archive_existing=False)
    registry.set_alias("iris", "champion", "1")
    return info


@pytest.mark.parametrize("valid", [True, False])
def test_a_signature_is_trust(valid: bool, pickled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def verify(catalog: Any, version: Any) -> Any:
        asked.append(version.version)
        return SimpleNamespace(valid=valid, reason="nobody signed it")

    monkeypatch.setattr(signing, "verify_version", verify)
    if valid:
        assert pyfunc.load_model("models:/iris/1").metadata.model_id == pickled.model_id
    else:
        with pytest.raises(UntrustedModelError, match="nobody signed it"):
            pyfunc.load_model("models:/iris/1")
    assert asked == ["1"]
    with pytest.raises(UntrustedModelError, match="it is no registered version"):  # its run's files are nobody's word
        pyfunc.load_model(pickled.model_uri)
    monkeypatch.setenv("GITTRACK_TRUST", "never")
    with pytest.raises(UntrustedModelError):
        pyfunc.load_model("models:/iris/1")
    assert pyfunc.load_model("models:/iris/1", trust=True).model_id == pickled.model_id
    assert asked == ["1"]


def test_the_rules_are_asked_with_the_place(pickled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []

    def check(catalog: Any, version: Any, place: str | None = None) -> None:
        places.append(place)
        raise StateError("refused by a rule")

    monkeypatch.setattr(policy, "check_load", check)
    addresses = (
        "models:/iris/1 models:/iris/latest models:/iris/Production iris@production iris@champion iris@v1 iris@1"
    )
    for address in addresses.split():
        with pytest.raises(StateError, match="refused by a rule"):
            pyfunc.load_model(address, trust=True)
    assert places == [None, None, "Production", "Production", "@champion", None, None]
