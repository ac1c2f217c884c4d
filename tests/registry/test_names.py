"""Names: every one reads back, fits into a git ref, and only gittrack's errors come out of the wrong ones."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, strategies as st

from gittrack.errors import FormatError, GittrackError, InvalidValueError
from gittrack.registry import names
from gittrack.registry.names import Address, TagName, parse_address, parse_tag
from gittrack.store.refs import check_name

ALIASES = st.text(st.characters(categories=("Lu", "Ll", "Nd"), include_characters="_-"), min_size=1, max_size=20)


MODEL_NAMES = st.text(min_size=1, max_size=40).filter(names.is_model_name)


@given(MODEL_NAMES, st.sampled_from(["v", "staging", "production", "archived", "none"]), st.integers(1, 10**6))
def test_a_tag_name_reads_back_and_is_a_ref(name: str, slot: str, number: int) -> None:
    tag = TagName(names.key_of(name), slot, number)
    assert parse_tag(str(tag)) == tag
    assert check_name(f"refs/tags/{tag}")
    assert names.first_name(tag.key) == name
    assert tag.key.isascii()


@given(ALIASES.filter(lambda alias: not names._VERSION_LIKE.fullmatch(alias) and alias.lower() != "latest"))
def test_an_alias_reads_back(alias: str) -> None:
    assert names.check_alias(alias) == alias
    tag = TagName("iris", f"@{alias}", 2)
    assert parse_tag(str(tag)) == tag
    assert check_name(f"refs/tags/{tag}")


@given(st.text(max_size=60) | st.text("models/irs v@%2E+-0123", max_size=40).map("models/{}".format))
def test_only_our_errors_come_out_of_a_wrong_tag(text: str) -> None:
    try:
        found = parse_tag(text)
    except FormatError:
        return
    assert str(found) == text


@given(st.text(max_size=60) | st.text("models:/irs@v0123 Production", max_size=40))
def test_only_our_errors_come_out_of_a_wrong_address(text: str) -> None:
    try:
        found = parse_address(text)
    except GittrackError:
        return
    assert names.check_model_name(found.name) == found.name


@pytest.mark.parametrize(
    "name",
    ["...", ".hidden", "a.lock", "a..b", "~", "a b", "@", "@{", "日本", "a%b", "100%", "-x", "CON", "a+2", "é" * 30],
)  # fmt: skip
def test_git_takes_every_name(name: str) -> None:
    ref = f"refs/tags/models/{names.key_of(names.check_model_name(name))}/v1"
    assert subprocess.run(["git", "check-ref-format", ref], check=False).returncode == 0
    assert parse_tag(ref.removeprefix("refs/tags/")).key == names.key_of(name)


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a:b", ".", "..", "a\nb", "a\0b", "\ud800", "x" * 300, None, 3])
def test_a_bad_model_name_is_refused(name: object) -> None:
    with pytest.raises(InvalidValueError):
        names.check_model_name(name)


@pytest.mark.parametrize("alias", ["", "a b", "a/b", "latest", "LATEST", "v1", "V23", "a@b", "x" * 256, None])
def test_a_bad_alias_is_refused(alias: object) -> None:
    with pytest.raises(InvalidValueError):
        names.check_alias(alias)


@pytest.mark.parametrize("version", [True, 1.0, "1.0", "-1", "v1", "", "١", "9" * 11, None])
def test_a_bad_version_is_refused(version: object) -> None:
    with pytest.raises(InvalidValueError):
        names.check_version(version)


def test_keys_of_renamed_models_differ_from_every_name() -> None:
    assert names.key_of("iris", 2) == "iris+2"
    assert names.key_of("iris+2") != "iris+2"
    assert names.is_key("iris+2")
    assert not names.is_key("iris+1")
    assert not names.is_key("iris%2")
    assert not names.is_key("iris%2e")
    assert not names.is_key("..")
    assert not names.is_key("a%2Fb"), "no model can be called a/b"
    assert not names.is_key("a%0Ab")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("iris/3", Address("iris", version=3)),
        ("models:/iris/3", Address("iris", version=3)),
        ("models:///iris/3", Address("iris", version=3)),
        ("iris/Production", Address("iris", stage="Production")),
        ("iris/production", Address("iris", stage="Production")),
        ("models:/iris/latest", Address("iris", latest=True)),
        ("iris@v3", Address("iris", version=3)),
        ("iris@3", Address("iris", word="3")),
        ("iris@champion", Address("iris", word="champion")),
        ("iris@production", Address("iris", word="production")),
        ("iris@Latest", Address("iris", latest=True)),
        ("iris", Address("iris")),
        ("a@b@champion", Address("a@b", word="champion")),
        ("a@b/2", Address("a@b", version=2)),
    ],
)
def test_addresses(text: str, found: Address) -> None:
    assert parse_address(text) == found


@pytest.mark.parametrize(
    "text", ["", "iris/Prod", "iris/3/4", "iris@", "@champion", "iris@a b", "models:/", "runs:/a/b"]
)
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_address(text)
