"""Events: what is written reads back, and nothing but gittrack's errors comes out of what is not ours."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from gittrack.errors import FormatError, InvalidValueError
from gittrack.registry import events, names
from gittrack.registry.events import AliasTag, Event, EventRef, StageTag, VersionTag
from gittrack.store import codec
from gittrack.store.git import TagInfo
from gittrack.types import Digest, ModelVersionStages, ObjectId

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
OID = st.text("0123456789abcdef", min_size=40, max_size=40).map(ObjectId)
DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64).map(Digest)
NUMBER = st.integers(1, 10**6)
RUN = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_\-]{0,40}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
PATH = st.sampled_from(["", "model", "a b/c.d", "ünï/日本", "a%41", "models/x%20y"])
KEY = st.sampled_from([names.key_of(name) for name in ("iris", "my model", "ü", "a.b")])


@st.composite
def any_event(draw: st.DrawFn) -> Event:
    """Any event that can be written."""
    key = draw(KEY)
    known: dict[str, Any] = {
        "key": key,
        "number": draw(NUMBER),
        "target": draw(OID),
        "who": "Ana <ana@example.org>",
        "time": draw(st.integers(0, 10**13)),
        "title": "a title",
        "reason": draw(TEXT.filter(lambda text: "-----BEGIN" not in text)),
    }
    known["reason"] = events.check_reason(known["reason"])
    tags = st.sampled_from([f"models/{key}/v1", f"models/{key}/production/2", f"models/{key}/@a/3"])
    refs = st.lists(st.builds(EventRef, tags, OID), max_size=3).map(tuple)
    known["replaces"] = draw(refs)
    kind = draw(st.sampled_from([VersionTag, StageTag, AliasTag]))
    content: dict[str, Any] = {"run_id": draw(RUN), "manifest": draw(DIGEST)}
    if kind is VersionTag:
        if draw(st.booleans()):
            source = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=40)
            elsewhere: dict[str, Any] = {"source": draw(source), "source_run": draw(st.none() | RUN)}
            return VersionTag(path="", **elsewhere, **content, **known)
        return VersionTag(path=draw(PATH), model_id=draw(st.none() | st.just("m-12ab")), **content, **known)
    if kind is StageTag:
        return StageTag(
            version=draw(NUMBER),
            stage=draw(st.sampled_from(ModelVersionStages.ALL)),
            archives=tuple(draw(st.lists(NUMBER, max_size=3))),
            approves=draw(refs),
            **content,
            **known,
        )
    alias = draw(st.sampled_from(["champion", "b-2", "Ä"]))
    if draw(st.booleans()):
        return AliasTag(alias=alias, version=None, **known)
    return AliasTag(alias=alias, version=draw(NUMBER), **content, **known)


def info(event: Event, message: str | None = None, **other: Any) -> TagInfo:
    """The tag object of an event."""
    text = events.message(event) if message is None else message
    return TagInfo(event.target, "commit", event.tag, event.who, event.time // 1000, text)._replace(**other)


@given(any_event())
def test_what_is_written_reads_back(event: Event) -> None:
    assert events.parse(event.oid, info(event)) == event
    assert events.from_list(codec.unpack(codec.pack(events.to_list(event)))) == event


@given(any_event(), st.sampled_from(["SSH SIGNATURE", "PGP SIGNATURE"]))
def test_a_signature_is_no_part_of_the_message(event: Event, kind: str) -> None:
    signed = f"{events.message(event)}-----BEGIN {kind}-----\nabc\n-----END {kind}-----\n"
    assert events.parse(event.oid, info(event, signed)) == dataclasses.replace(event, signed=True)


@settings(max_examples=300 if FULL else 80)
@given(any_event(), st.data())
def test_only_our_errors_come_out_of_a_changed_message(event: Event, data: st.DataObject) -> None:
    text = events.message(event)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 20)))
    put = data.draw(
        st.text(max_size=10) | st.sampled_from(["\n", "\n\n", "Gittrack-Version: 2\n", "Gittrack-Path: ../x\n"])
    )
    try:
        found = events.parse(event.oid, info(event, text[:start] + put + text[end:]))
    except FormatError:
        return
    assert found.tag == event.tag


@given(st.text(max_size=200), st.text(max_size=60), st.sampled_from(["commit", "blob"]))
def test_only_our_errors_come_out_of_anything(message: str, name: str, kind: str) -> None:
    with pytest.raises(FormatError):
        events.parse(ObjectId("0" * 40), TagInfo(ObjectId("1" * 40), kind, name, "a <b>", 0, message))


VERSION = VersionTag(
    key="iris", number=3, target=ObjectId("1" * 40), who="Ana <a@x>", time=5, title="iris v3: run one", run_id="abc",
    path="model", manifest=Digest("2" * 64),
)  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Gittrack-Model: iris", "Gittrack-Model: churn"),
        ("Gittrack-Version: 3", "Gittrack-Version: 4"),
        ("Gittrack-Version: 3", "Gittrack-Version: 03"),
        ("Gittrack-Version: 3\n", ""),
        ("Gittrack-Version: 3\n", "Gittrack-Version: 3\nGittrack-Version: 3\n"),
        ("Gittrack-Path: model", "Gittrack-Path: ../../etc"),
        ("Gittrack-Path: model", "Gittrack-Path: %2e%2e/x"),
        ("Gittrack-Path: model", "Gittrack-Path: %ff"),
        ("Gittrack-Path: model", "Gittrack-Path: m%6Fdel"),
        ("Gittrack-Run: abc", "Gittrack-Run: ../x"),
        ("Gittrack-Path: model", "Gittrack-Path: model\nGittrack-Source: s3://b/m"),
        ("Gittrack-Path: model", "Gittrack-Source: s3://b/%0Am"),
        ("Gittrack-Path: model", "Gittrack-Source: s3://b/%6d"),
        ("Gittrack-Path: model", "Gittrack-Source: " + "x" * 1_001),
        ("Gittrack-Path: model", "Gittrack-Source: s3://b/m\nGittrack-Source-Run: ../x"),
        ("Gittrack-Path: model", "Gittrack-Source-Run: abc"),
        ("2" * 64, "2" * 63),
        ("Gittrack-Time: 5", "Gittrack-Time: -5"),
        ("Gittrack-Time: 5", "Gittrack-Time: 5\nGittrack-New: x"),
        ("Gittrack-Time: 5", "Gittrack-Time: 5\nGittrack-Replaces: models/churn/v1 " + "1" * 40),
        ("Gittrack-Time: 5", "Gittrack-Time: 5\nGittrack-Replaces: models/iris/v1 " + "1" * 64),
        ("Gittrack-Time: 5", "Gittrack-Time: 5\nGittrack-Stage: Production"),
        ("Gittrack-Time: 5", "Gittrack-Time: 5\nnot a trailer"),
        ("iris v3: run one\n\n", ""),
        ("\n\nGittrack-Model", "\nGittrack-Model"),
    ],
)
def test_a_message_that_is_not_quite_ours_is_refused(old: str, new: str) -> None:
    text = events.message(VERSION)
    assert old in text
    with pytest.raises(FormatError):
        events.parse(VERSION.oid, info(VERSION, text.replace(old, new)))


def test_a_reason_cannot_pass_for_trailers_or_a_signature() -> None:
    reason = "because\n\nGittrack-Version: 9\nGittrack-Run: other"
    event = dataclasses.replace(VERSION, reason=reason)
    assert events.parse(event.oid, info(event)) == event
    with pytest.raises(InvalidValueError):
        events.message(dataclasses.replace(VERSION, reason="x\n-----BEGIN SSH SIGNATURE-----\n"))
    with pytest.raises(InvalidValueError):
        events.message(dataclasses.replace(VERSION, reason="x" * (events.MAX_REASON + 1)))


def test_too_many_trailers_are_refused() -> None:
    text = events.message(VERSION).rstrip("\n") + ("\nGittrack-Replaces: models/iris/v1 " + "1" * 40) * 6_000
    with pytest.raises(FormatError, match="more than"):
        events.parse(VERSION.oid, info(VERSION, text + "\n"))


@pytest.mark.parametrize(
    "other", [{"target_type": "tree"}, {"name": "models/iris/v4"}, {"name": "models/iris/production/3"}, {"name": "v3"}]
)
def test_a_tag_of_another_kind_or_name_is_refused(other: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        events.parse(VERSION.oid, info(VERSION, **other))
