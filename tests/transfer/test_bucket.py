"""Artifacts in an S3 bucket over HTTP, and in plain folders."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gittrack import config
from gittrack.errors import CorruptError, InvalidValueError, MissingDependencyError, NetworkError, NotFoundError
from gittrack.sync import artifacts, bucket, depots
from gittrack.sync.artifacts import Item, Moved
from gittrack.types import Digest
from tests.transfer import servers
from tests.transfer.conftest import LARGE, Clone


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    servers.needs("moto", "s3fs", "flask")
    with servers.moto(tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture
def place(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A bucket of its own, and the credentials for it in the environment."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    name = f"b{abs(hash(tmp_path)):x}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}/team/artifacts"


def use(place: str, *clones: Clone) -> None:
    for clone in clones:
        clone.git("config", "gittrack.artifacts", place)


@pytest.mark.usefixtures("place")
def test_a_bucket(ana: Clone, ben: Clone, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_PIECE", 1 << 20)
    use(place, ana, ben)
    large = LARGE * 12  # 37 MB: several parts
    items = ana.put(large, b"weights", b"")
    total = len(large) + 7
    heard: list[tuple[int, int | None]] = []
    assert artifacts.upload(ana.tracker, None, items, progress=lambda *told: heard.append(told)) == Moved(3, total, 0)
    assert heard[-1] == (total, total)
    assert artifacts.upload(ana.tracker, None, items) == Moved(0, 0, 3)
    assert artifacts.ensure(ben.tracker, items).count == 3
    assert [ben.tracker.repo.objects.read(item.digest) for item in items] == [large, b"weights", b""]
    assert ben.temporaries() == []

    import boto3

    keys = boto3.client("s3").list_objects_v2(Bucket=place.split("/")[2])["Contents"]
    wanted = {f"team/artifacts/{item.digest[:2]}/{item.digest[2:4]}/{item.digest}" for item in items}
    assert {one["Key"] for one in keys} == wanted


def test_an_upload_that_breaks_leaves_no_parts_and_goes_on(
    ana: Clone, ben: Clone, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is whole stays; the parts of what is not are removed, and cost nobody anything."""
    import boto3

    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setattr(bucket, "_S3", replace(bucket._S3, sending={"chunksize": 5 << 20}))
    monkeypatch.setitem(bucket._KINDS, "s3", bucket._S3)
    monkeypatch.setattr(depots, "_FIRST_PAUSE_S", 0.01)
    use(place, ana, ben)
    items = ana.put(LARGE * 6, *(b"small %d" % number for number in range(10)))  # 18 MB in four parts
    call = s3fs.S3FileSystem._call_s3
    calls: list[str] = []

    async def breaking(self: object, method: str, *args: object, **more: object) -> object:
        calls.append(method)
        if method == "upload_part" and more["PartNumber"] == 3:
            raise ConnectionResetError("reset by peer")
        return await call(self, method, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_call_s3", breaking)
        with pytest.raises(NetworkError, match="reset by peer; 10 of 11 objects were moved") as broken:
            artifacts.upload(ana.tracker, None, items)
    assert "goes on from there" in str(broken.value.hint)
    assert calls.count("create_multipart_upload") == calls.count("abort_multipart_upload") > 1, "each try cleans up"
    client, name = boto3.client("s3"), place.split("/")[2]
    assert "Uploads" not in client.list_multipart_uploads(Bucket=name)
    assert len(client.list_objects_v2(Bucket=name)["Contents"]) == 10
    assert artifacts.upload(ana.tracker, None, items) == Moved(1, items[0].size, 10)
    assert artifacts.ensure(ben.tracker, items).count == 11
    assert "Uploads" not in client.list_multipart_uploads(Bucket=name)


def test_wrong_bytes_in_a_bucket_do_not_count(ana: Clone, ben: Clone, place: str) -> None:
    import boto3

    use(place, ana, ben)
    items = ana.put(LARGE, b"weights")
    artifacts.upload(ana.tracker, None, items)
    client = boto3.client("s3")
    name = place.split("/")[2]
    for item, data in zip(items, (LARGE, b"weights"), strict=True):
        key = f"team/artifacts/{item.digest[:2]}/{item.digest[2:4]}/{item.digest}"
        client.put_object(Bucket=name, Key=key, Body=b"x" + data[1:])
        with pytest.raises(CorruptError, match=item.digest):
            artifacts.ensure(ben.tracker, [item])
        client.put_object(Bucket=name, Key=key, Body=data[:-1])
        with pytest.raises(CorruptError):
            artifacts.ensure(ben.tracker, [item])
    assert ben.has(items) == [False, False]
    assert artifacts.upload(ana.tracker, None, items).count == 2  # their sizes are wrong: sent again
    artifacts.ensure(ben.tracker, items)


def test_what_a_bucket_lacks_and_a_bucket_that_is_not_there(ana: Clone, place: str) -> None:
    use(place, ana)
    with pytest.raises(NotFoundError, match=r"neither in this clone nor at `s3://"):
        artifacts.ensure(ana.tracker, [Item(Digest("0" * 64), 5)])
    use("s3://nobody-made-it/x", ana)
    with pytest.raises(NetworkError, match="nobody-made-it"):
        artifacts.upload(ana.tracker, None, ana.put(b"weights"))


def test_a_server_that_is_not_there(ana: Clone, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from gittrack.sync import depots

    monkeypatch.setattr(depots, "_ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    use(place, ana)
    with pytest.raises(NetworkError) as failed:
        artifacts.upload(ana.tracker, None, ana.put(b"weights"))
    assert "run the same command again" in str(failed.value.hint)


@pytest.mark.parametrize("form", ["path", "file"])
def test_a_folder(ana: Clone, ben: Clone, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "lab disk"
    use(str(folder) if form == "path" else folder.as_uri(), ana, ben)
    items = ana.put(LARGE, b"weights")
    assert artifacts.upload(ana.tracker, None, items).count == 2
    assert (folder / items[0].digest[:2] / items[0].digest[2:4] / items[0].digest).read_bytes() == LARGE
    ben.git("remote", "remove", "origin")  # none is needed
    assert artifacts.ensure(ben.tracker, items).count == 2


@pytest.mark.parametrize("value", ["", "s3:", "s3://", "bucket", "ftp://x/y", "simplecache::s3://x/y", "../x", "a::sh"])
def test_what_the_setting_cannot_be(value: str) -> None:
    with pytest.raises(ValueError, match="must be an address"):
        config.setting("artifacts").parse(value)


@pytest.mark.parametrize("value", ["file:///srv/x", "ssh://host/x", "/srv/x"])
def test_a_repository_does_not_choose_a_place_of_a_person(ana: Clone, value: str) -> None:
    (ana.path / "pyproject.toml").write_text(f'[tool.gittrack]\nartifacts = "{value}"\n')
    with pytest.raises(InvalidValueError, match="each person decides") as failed:
        artifacts.upload(ana.tracker, None, ana.put(b"x"))
    assert f"git config gittrack.artifacts {value}" in str(failed.value.hint)


def test_a_team_chooses_a_bucket_in_pyproject(ana: Clone, place: str) -> None:
    (ana.path / "pyproject.toml").write_text(f'[tool.gittrack]\nartifacts = "{place}"\n')
    assert artifacts.upload(ana.tracker, None, ana.put(b"x")).count == 1


def test_a_missing_package_is_named(ana: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    use("gs://bucket/x", ana)
    with pytest.raises(MissingDependencyError, match="need the package `gcsfs`") as failed:
        artifacts.upload(ana.tracker, None, ana.put(b"x"))
    assert failed.value.hint == "pip install 'gittrack[gcs]'"


def test_nothing_of_it_is_loaded_where_all_is_here(ana: Clone) -> None:
    code = (
        "import sys; from pathlib import Path; from gittrack.store.repo import Repo\n"
        "from gittrack.sync import artifacts; from gittrack.track.runs import Tracker\n"
        "artifacts.ensure(Tracker(Repo.find(Path(sys.argv[1]))), [])\n"
        "print([name for name in ('urllib3', 'fsspec', 's3fs', 'dulwich', 'git') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(ana.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout == "[]\n"
