"""Remotes that cannot move several refs at once or none: what comes first does no harm if the rest is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gittrack.errors import PushRefusedError
from gittrack.sync import probe
from gittrack.sync.push import ROUNDS
from tests.conftest import Sandbox
from tests.sync.conftest import Desk, assert_clean, listed
from tests.sync.test_races import renamed, together


@pytest.fixture
def hub(hub: Sandbox) -> Sandbox:
    """A bare repository whose server says nothing of atomic pushes, as old ones do."""
    hub.git("config", "receive.advertiseAtomic", "false")
    return hub


def refuse(hub: Sandbox, pattern: str) -> Path:
    """An update hook that takes no ref of that pattern, and writes down all that it was asked about."""
    hook = hub.path / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        f'#!/bin/sh\necho "$1" >> {hub.path}/asked\ncase "$1" in {pattern}) echo "$1 is protected" >&2; exit 1;; esac\n'
    )
    hook.chmod(0o755)
    return hook


def worked(desk: Desk) -> None:
    """A model with a description, a stage and an alias; a run beside it."""
    desk.run("other", experiment="churn")
    desk.model()
    desk.registry.promote("iris", 1, "Production", archive_existing=True)
    desk.registry.set_alias("iris", "champion", 1)
    desk.registry.describe_version("iris", 1, "good")


def test_everything_arrives_one_kind_after_the_other(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    worked(ana)
    refuse(hub, "nothing")
    report = ana.push()
    assert not report.atomic
    assert (report.runs, len(report.tags), len(report.documents)) == (2, 3, 1)
    kinds = [ref.split("/")[1] if "/v1" not in ref else "version" for ref in (hub.path / "asked").read_text().split()]
    assert kinds == ["gittrack", "runs", "runs", "version", "tags", "tags"], "documents, ledgers, versions, events"
    again = ana.push()
    assert (again.atomic, again.runs, again.tags) == (True, 0, []), "nothing was sent, so nothing is said"
    bo.pull()
    assert (bo.stages(), bo.log()) == (ana.stages(), ana.log())
    assert_clean(hub.path)


@pytest.mark.parametrize(
    ("pattern", "there"),
    [("refs/runs/*", 1), ("refs/tags/*/v1", 3), ("refs/tags/*/production/*", 5), ("refs/gittrack/*", 0)],
)
def test_what_was_taken_before_a_refusal_is_said_and_not_sent_again(
    ana: Desk, bo: Desk, hub: Sandbox, pattern: str, there: int
) -> None:
    worked(ana)
    hook = refuse(hub, pattern)
    with pytest.raises(PushRefusedError, match="is protected") as refused:
        ana.push(files=False)
    there_now = [ref for ref in listed(hub.path) if not ref.startswith("refs/heads/")]
    assert len(there_now) == there
    said = f"{there} of 6 refs were pushed" if there else "nothing was pushed"
    assert said in refused.value.message
    assert "goes on" in str(refused.value.hint)
    hook.unlink()
    report = ana.push(files=False)
    sent = len(report.ledgers) + len(report.tags) + len(report.documents)
    assert sent == 6 - there
    bo.pull()
    assert (bo.stages(), bo.log()) == (ana.stages(), ana.log())
    assert_clean(hub.path)


def test_a_version_number_still_has_one_owner(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    ana.model(extra=b"ana")
    bo.run()
    bo.model(extra=b"bo")
    ana.push()
    report = bo.push()
    assert [(one.old, one.new) for one in renamed(report)] == [("models/iris/v1", "models/iris/v2")]
    assert (report.runs, report.tags) == (2, ["models/iris/v2"])
    ana.pull()
    assert ana.stages() == bo.stages()
    assert_clean(hub.path)


def test_exactly_one_of_two_simultaneous_pushes_gets_the_version(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    for desk in (ana, bo):
        desk.model(extra=desk.sandbox.path.name.encode())
    reports = together(ana.push, bo.push)
    assert [renamed(report) for report in reports].count([]) == 1
    for desk in (ana, bo):
        desk.pull()
    assert ana.stages() == bo.stages()
    assert len([ref for ref in listed(hub.path) if ref.startswith("refs/tags/")]) == 2
    assert_clean(hub.path)


def test_a_ref_that_moves_while_it_is_pushed(ana: Desk, bo: Desk, hub: Sandbox) -> None:
    """Somebody takes the number between the look and the push: what was pushed before stays, the rest is made anew."""
    bo.model(extra=b"bo")
    bo.push()
    taken = listed(hub.path)["refs/tags/models/iris/v1"]
    hub.git("update-ref", "-d", "refs/tags/models/iris/v1")
    ana.model(extra=b"ana")
    hook = hub.path / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(
        "#!/bin/sh\nunset GIT_QUARANTINE_PATH\n"
        f'case "$1" in refs/runs/*) git update-ref refs/tags/models/iris/v1 {taken};; esac\n'
    )
    hook.chmod(0o755)
    report = ana.push()
    assert (report.runs, report.tags, len(report.ledgers)) == (1, ["models/iris/v2"], 1)
    assert len(report.pulled) < ROUNDS
    bo.pull()
    assert ana.stages() == bo.stages()
    assert_clean(hub.path)


def test_the_check_finds_it_out(ana: Desk) -> None:
    found = probe.check(ana.repo, ana.remote())
    assert (found.writable, found.tags, found.atomic) == (True, True, False)
