"""Text for terminals: what is spelled out, how wide it is, how numbers read."""

import pytest
from hypothesis import given, strategies as st

from gittrack.cli import text

#: Starts of escape sequences, and what moves, reorders or hides text.
DANGEROUS = (
    "\x00\x07\x08\x1b\x7f\x84\x9b\x9d\n\r\t\u061c\u200b\u200e\u200f\u2028\u202a\u202e\u2066\u2069\ufeff\U000e0041"
)


def test_clean_spells_out_what_commands_a_terminal() -> None:
    assert text.clean("a\x1b[31mred\x1b]0;title\x07") == "a\\x1b[31mred\\x1b]0;title\\x07"
    assert text.clean("two\nlines\r\n\t") == "two\\nlines\\r\\n\\t"
    assert text.clean("abc\u202edcba") == "abc\\u202edcba"
    assert text.clean("\x9b31m\U000e0041\ud800") == "\\x9b31m\\U000e0041\\ud800"


def test_clean_leaves_languages_alone() -> None:
    for fine in ("naïve café", "日本語", "فارسی می‌خواهم", "हिन्दी", "👩‍🔬 🇩🇪", "μ ± 2σ → ∞"):
        assert text.clean(fine) == fine


@given(st.text(alphabet=st.characters() | st.sampled_from(DANGEROUS)))
def test_clean_leaves_nothing_dangerous(value: str) -> None:
    cleaned = text.clean(value)
    assert not set(cleaned) & set(DANGEROUS)
    assert cleaned.isprintable() or set(cleaned) - set(value) <= set("\\xuUnrt0123456789abcdef")
    assert text.clean(cleaned) == cleaned


def test_clean_lines() -> None:
    assert text.clean_lines("a\tb\r\nc\x1b[0m\n") == ["a       b", "c\\x1b[0m", ""]


@pytest.mark.parametrize(
    ("value", "columns"), [("abc", 3), ("日本", 4), ("é", 1), ("e\u0301", 1), ("👍", 2), ("a\u200db", 2), ("", 0)]
)
def test_width(value: str, columns: int) -> None:
    assert text.width(value) == columns


@given(st.text(alphabet="ab日é\u0301👍"), st.integers(0, 12), st.booleans())
def test_fit_is_exact(value: str, columns: int, right: bool) -> None:
    fitted = text.fit(value, columns, right=right)
    assert text.width(fitted) == columns
    if text.width(value) <= columns:
        assert fitted.strip() == value.strip()


def test_numbers() -> None:
    assert [text.number(value) for value in (0.1 + 0.2, 1e-9, 123456789.0, float("nan"), float("-inf"), 3.0)] == [
        "0.3", "1e-09", "1.23457e+08", "nan", "-inf", "3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (20 << 20, "20 MiB"), (3 << 50, "3072 TiB")],
)
def test_size(amount: int, shown: str) -> None:
    assert text.size(amount) == shown


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (-5, "0 ms"), (340, "340 ms"), (12_300, "12.3 s"), (250_000, "4 min 10 s"), (7_500_000, "2 h 5 min"),
        (273_600_000, "3 d 4 h"),
    ],
)  # fmt: skip
def test_duration(milliseconds: int, shown: str) -> None:
    assert text.duration(milliseconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-60, "in the future"), (0, "0 seconds ago"), (1, "1 second ago"), (89, "89 seconds ago"), (90, "1 minute ago"),
        (3 * 3600, "3 hours ago"), (5 * 86400, "5 days ago"), (30 * 86400, "4 weeks ago"),
        (300 * 86400, "10 months ago"), (800 * 86400, "2 years ago"),
    ],
)  # fmt: skip
def test_ago(seconds: float, shown: str) -> None:
    assert text.ago(1_000_000_000_000, now=1_000_000_000 + seconds) == shown


def test_dates_that_no_calendar_holds() -> None:
    assert text.date(2**80) == f"{2**80} ms"
    assert text.date(-(2**80), iso=True) == f"{-(2**80)} ms"
    assert text.date(0, iso=True) == "1970-01-01T00:00:00+00:00"


def test_suggest() -> None:
    assert text.suggest("lgo", ["log", "show"]) == "did you mean `log`?"
    assert text.suggest("zzz", ["log", "show"]) is None
