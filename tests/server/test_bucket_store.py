"""The objects of a server in an S3 bucket over HTTP, and in a folder."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from gittrack.errors import CorruptError, InvalidValueError, NetworkError, NotFoundError
from gittrack.store import check
from gittrack.store.objects import ObjectStore
from gittrack.sync import bucket_store, depots
from gittrack.types import Digest
from tests.conftest import Sandbox
from tests.server.conftest import running

pytestmark = pytest.mark.any_backend  # it has buckets of its own


@pytest.fixture
def store(tmp_path: Path, bucket: str) -> bucket_store.BucketStore:
    found = bucket_store.at(tmp_path / "objects", bucket)
    assert isinstance(found, bucket_store.BucketStore)
    return found


def sha(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).hexdigest())


def local(store: ObjectStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


def test_what_is_put_is_in_the_bucket_and_nowhere_else(store: bucket_store.BucketStore, tmp_path: Path) -> None:
    large = os.urandom(9 << 20)
    (tmp_path / "file").write_bytes(large)
    assert store.put_many([tmp_path / "file", tmp_path / "file"]) == [(sha(large), len(large))] * 2
    assert store.put_bytes(b"") == (sha(b""), 0)
    with store.incoming() as incoming:
        incoming.write(b"in pi")
        incoming.write(b"eces")
        assert incoming.finish() == (sha(b"in pieces"), 9)
    assert local(store) == []
    other = bucket_store.at(tmp_path / "other", f"s3://{store._bucket._root}")
    assert sorted(other.iter_digests()) == sorted((sha(one), len(one)) for one in (large, b"", b"in pieces"))
    assert [other.read(sha(one)) for one in (large, b"", b"in pieces")] == [large, b"", b"in pieces"]
    assert other.has(sha(large))
    assert other.has(sha(large), len(large))
    assert not other.has(sha(large), 1)
    with other.open_from(sha(large), 5 << 20) as file:
        assert file.read() == large[5 << 20 :]
    other.copy_out(sha(large), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == large
    assert abs(other.modified(sha(large)) - (tmp_path / "file").stat().st_mtime) < 120
    assert other.delete(sha(large)) == len(large)
    assert not store.has(sha(large))
    assert other.delete(sha(large)) == 0
    with pytest.raises(NotFoundError):
        store.read(sha(large))
    assert local(other) == []


def test_what_was_not_finished_leaves_nothing(store: bucket_store.BucketStore) -> None:
    def send() -> None:
        with store.incoming() as incoming:
            incoming.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        send()
    assert list(store.iter_digests()) == []
    assert local(store) == []


def test_objects_from_before_the_bucket_are_found(tmp_path: Path, store: bucket_store.BucketStore) -> None:
    digest, _ = ObjectStore(store.root).put_bytes(b"old")
    assert store.has(digest, 3)
    assert store.size(digest) == 3
    assert store.read(digest) == b"old"
    assert list(store.iter_digests()) == [(digest, 3)]
    store.put_bytes(b"old")
    assert local(store) == []
    assert store.read(digest) == b"old"


def test_wrong_bytes_are_not_given_out(store: bucket_store.BucketStore, tmp_path: Path) -> None:
    data = os.urandom(5 << 20)
    digest, _ = store.put_bytes(data)
    store._bucket._fs.pipe_file(store._bucket._path(digest), b"x" + data[1:])
    with pytest.raises(CorruptError):
        store.verify(digest)
    with pytest.raises(CorruptError):
        store.copy_out(digest, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_many_send_the_same_at_once(store: bucket_store.BucketStore) -> None:
    failed: list[BaseException] = []

    def put() -> None:
        try:
            for number in range(4):
                store.put_bytes(b"the same %d" % number)
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=put) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(list(store.iter_digests())) == 4
    assert local(store) == []


def test_a_bucket_that_is_away_is_said(store: bucket_store.BucketStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depots, "_ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = bucket_store.at(store.root, "s3://bucket/prefix")
    with pytest.raises(NetworkError):
        away.put_bytes(b"data")


def test_a_server_with_its_files_elsewhere(git_repo: Sandbox, bucket: str, tmp_path: Path) -> None:
    for number, place in enumerate((bucket, str(tmp_path / "lab disk"), (tmp_path / "disk").as_uri())):
        with running(git_repo.path, bucket=place) as server:
            run_id = server.new_run()
            path = f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/weights"
            data = b"weights" * 100_000 + bytes([number])
            assert server.ask("PUT", path, data).status == 200
            assert server.get(path).body == data
            assert server.post("runs/update", {"run_id": run_id, "status": "FINISHED"}).status == 200
            server.hub.tracker.flush()
            repo = server.hub.tracker.repo
            assert [size for _, size in repo.objects.iter_digests()] == [len(data)]
            problems = [one for one in check.fsck(repo, full=True) if run_id in one.message]
            assert problems == []
            assert check.gc(repo, grace_s=0).objects == []
    assert local(ObjectStore(git_repo.path / ".gittrack/objects")) == []


@pytest.mark.parametrize("url", ["", "nfs://host/x", "https://example.org/x", "file://host/x"])
def test_places_that_nothing_can_be_kept_at(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidValueError):
        bucket_store.at(tmp_path, url)
