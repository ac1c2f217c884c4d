"""What holds every page to be accessible and no wider than the screen finds what is wrong in one theme, at one size."""

from __future__ import annotations

import pytest

from tests.ui.conftest import SIZES, Watched
from tests.ui.sound import sound

FAINT = "{ header a { color: var(--back) !important } }"
LIGHT, DARK = ("(prefers-color-scheme: light)", "(prefers-color-scheme: dark)")
PHONE = "(max-width: 380px)"
ADOPT = """(style) => {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(style);
    document.adoptedStyleSheets = [sheet];
}"""


@pytest.mark.parametrize(
    ("style", "found"),
    {
        f"{LIGHT} {FAINT}": r"^it\n(?s:.*)color-contrast",
        f"{DARK} {FAINT}": r"^it, in the other theme\n(?s:.*)color-contrast",
        f"{PHONE} and {LIGHT} {FAINT}": r"^it, on a phone\n(?s:.*)color-contrast",
        f"{PHONE} and {DARK} {FAINT}": r"^it, on a phone, in the other theme\n(?s:.*)color-contrast",
        f"{PHONE} {{ main {{ min-width: 400px }} }}": r"^it, 360 wide\n(?s:.*)MAIN",
        "(min-width: 1000px) and (max-width: 1500px) { main { min-width: 1600px } }": r"^it, 1280 wide\n(?s:.*)MAIN",
        "(min-width: 3000px) { main { min-width: 4000px } }": r"^it, 3840 wide\n(?s:.*)MAIN",
    }.items(),
    ids=["light", "dark", "light phone", "dark phone", "360", "1280", "3840"],
)
def test_what_is_wrong_only_there_is_found(watched: Watched, style: str, found: str) -> None:
    watched.open("/models").evaluate(ADOPT, f"@media {style}")  # which its Content-Security-Policy lets in
    with pytest.raises(AssertionError, match=found):
        sound(watched, "it", phone=True)


def test_the_page_comes_back_as_it_was(watched: Watched) -> None:
    page = watched.open("/models")
    sound(watched, phone=True)
    assert page.viewport_size == SIZES[1]
    assert page.evaluate("[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]") == [1280, False]
