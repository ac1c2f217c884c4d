"""Who may let code run that came with a model."""

from __future__ import annotations

import pytest

from gittrack.errors import UntrustedModelError
from gittrack.models.trust import SAFE_FORMATS, Trust, decide, runs_code


@pytest.mark.parametrize(
    ("trust", "setting", "signed", "granted"),
    [
        (True, "never", None, True),
        (True, "signed", "no signature", True),
        (False, "always", None, True),
        (False, "never", "", False),
        (False, "signed", "no signature", False),
        (False, "signed", "", True),
        (False, "signed", None, False),
    ],
)
def test_the_caller_the_setting_and_the_signer(trust: bool, setting: str, signed: str | None, granted: bool) -> None:
    asked = []

    def ask() -> str | None:
        asked.append(1)
        return signed or None

    decided = decide("`m`", trust=trust, setting=setting, signed=None if signed is None else ask)
    assert asked == []  # verifying a signature takes time: only if somebody wants to know
    assert decided.granted is granted
    assert decided.granted is granted
    assert len(asked) <= 1
    if granted:
        decided.require("a pickle")
        return
    with pytest.raises(UntrustedModelError, match="`m` has a pickle: loading it runs code") as caught:
        decided.require("a pickle")
    assert ("no signature" in str(caught.value)) is (signed == "no signature" and setting == "signed")


def test_nothing_is_granted_by_itself() -> None:
    assert not Trust().granted
    assert Trust(granted=True).granted


def test_what_is_not_known_runs_code() -> None:
    assert not runs_code(["skops", "safetensors"])
    for formats in (["skops", "pickle"], ["joblib"], "skops", None, [None]):
        assert runs_code(formats)
    assert "pickle" not in SAFE_FORMATS
