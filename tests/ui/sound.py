"""Whether everybody can use a page as it stands: axe's rules, in both themes, and at every size without being too wide.

A page is loaded once for all of it: its styles alone follow the theme and the size, and what draws follows its box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, ViewportSize

from tests.ui.conftest import SIZES, Watched

#: What reaches beyond the right edge of the window, without being in a box of its own that scrolls.
TOO_WIDE: Final = """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
    [...document.querySelectorAll("body *")]
    .filter((one) => !one.closest(".hidden"))
    .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map((one) => `${one.tagName}.${one.className} ${one.getBoundingClientRect().right}`).slice(0, 5)"""
ALL: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")
#: The rules among them whose answer depends on the theme.
COLOURS: Final = ("color-contrast", "link-in-text-block")
#: Only what is wrong is brought here: what is right is thousands of elements.
_RUN: Final = """(rules) => axe.run({runOnly: rules, resultTypes: ["violations"]}).then((found) =>
    found.violations.map((one) => [one.id, one.nodes.map((node) => node.html.slice(0, 200))]))"""
#: Milliseconds: longer than the page waits before it asks for what came into view.
_REST: Final = 160
#: Then a frame for what observes its size, and one for what that changed.
_FRAMES: Final = """(rest) => new Promise((done) => setTimeout(() =>
    requestAnimationFrame(() => requestAnimationFrame(() => done())), rest))"""


def violations(page: Page, rules: Sequence[str] = ALL) -> Any:
    """Of each rule that the page violates its name and the elements."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    return page.evaluate(_RUN, rules)


def resize(watched: Watched, size: ViewportSize) -> None:
    """Give the window a size; wait until the page has drawn itself, and has what it asked for if it shows more."""
    page = watched.page
    before = page.viewport_size
    page.set_viewport_size(size)
    rest = _REST if before is not None and before["width"] < size["width"] else 0
    seen = -1
    while watched.pending or seen != len(watched.asked):
        seen = len(watched.asked)
        page.evaluate(_FRAMES, rest)


def sound(watched: Watched, what: str = "", *, phone: bool = False) -> None:
    """Hold a page to axe's rules where it is, to those of colours in the other theme, to the width of each size.

    Args:
        watched: The page. It comes back with the theme and the size that it had.
        what: The page or the part, for who reads that something is wrong with it.
        phone: Also hold it to axe's rules as it is on a phone, in both themes: it has other elements there.
    """
    page = watched.page
    own = page.viewport_size
    assert own is not None
    dark = page.evaluate("() => matchMedia('(prefers-color-scheme: dark)').matches")
    assert violations(page) == [], what
    page.emulate_media(color_scheme="light" if dark else "dark")
    assert violations(page, COLOURS) == [], f"{what}, in the other theme"
    for size in reversed(SIZES):
        resize(watched, size)
        assert page.evaluate(TOO_WIDE) == [], f"{what}, {size['width']} wide"
    if phone:  # the last of the sizes
        assert violations(page) == [], f"{what}, on a phone, in the other theme"
    page.emulate_media(color_scheme="dark" if dark else "light")
    if phone:
        assert violations(page, COLOURS) == [], f"{what}, on a phone"
    resize(watched, own)
