"""The free tree in two clones: each may make it, and a push and a pull make one of both."""

from gittrack.store import check
from gittrack.track.tree import Tree
from tests.sync.conftest import Desk


def put(desk: Desk, path: str, data: bytes) -> None:
    run = Tree(desk.tracker).writer()
    run.log_bytes(data, path)
    desk.tracker.settle(run)
    desk.tracker.close()


def test_both_have_what_either_has_put_there(ana: Desk, bo: Desk) -> None:
    put(ana, "team/ana", b"1")
    put(bo, "team/bo", b"2")
    ana.push()
    bo.push()
    ana.pull()
    for desk in (ana, bo):
        desk.pull()
        assert [one.path for one in Tree(desk.tracker).entries("team")] == ["team/ana", "team/bo"]
        assert desk.names() == {}
        assert [one for one in check.fsck(desk.repo) if one.kind != "artifact"] == []
    put(ana, "team/ana", b"3")
    ana.push()
    bo.pull()
    found = Tree(bo.tracker)
    assert found.file("team/ana").digest == Tree(ana.tracker).file("team/ana").digest
    assert found.file("team/bo").size == 1
