"""Artifacts in Google Cloud Storage and in Azure, against servers of others that speak their protocols."""

from collections.abc import Iterator

import pytest

from gittrack.errors import CorruptError, NetworkError, NotFoundError
from gittrack.sync import artifacts, bucket
from gittrack.sync.artifacts import Item, Moved
from gittrack.types import Digest
from tests.transfer import servers
from tests.transfer.conftest import LARGE, Clone
from tests.transfer.test_bucket import use

#: aiohttp's, about how the backends hand it a part; as an error the backend takes it for the server's and tries again.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")


@pytest.fixture(scope="module", params=["gs", "az"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A prefix in a bucket, or container, that is there; credentials for it are in the environment."""
    folder = tmp_path_factory.mktemp("cloud")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "gs":
            servers.needs("gcp_storage_emulator", "gcsfs")
            # gcsfs asks Google about the kind of a bucket over gRPC, which the emulator does not speak.
            patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            import fsspec

            with servers.gcs(folder) as url:
                # Left alone, gcsfs looks for credentials first, also at an address of Google's own machines.
                patch.setitem(fsspec.config.conf, "gcs", {"token": "anon", "endpoint_url": url})
                yield "gs://team/runs/artifacts"
        else:
            servers.needs("adlfs")
            with servers.azurite(folder) as connection:
                from azure.storage.blob import BlobServiceClient

                patch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
                with BlobServiceClient.from_connection_string(connection) as client:
                    client.create_container("team")
                yield "az://team/runs/artifacts"


def test_there_and_back(ana: Clone, ben: Clone, cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_PIECE", 1 << 20)
    use(cloud, ana, ben)
    large = LARGE * 2  # several parts
    items = ana.put(large, b"weights", b"")
    total = len(large) + 7
    heard: list[tuple[int, int | None]] = []
    assert artifacts.upload(ana.tracker, None, items, progress=lambda *told: heard.append(told)) == Moved(3, total, 0)
    assert heard[-1] == (total, total)
    assert artifacts.upload(ana.tracker, None, items) == Moved(0, 0, 3)
    assert artifacts.ensure(ben.tracker, items).count == 3
    assert [ben.tracker.repo.objects.read(item.digest) for item in items] == [large, b"weights", b""]
    assert ben.temporaries() == []


def test_wrong_bytes_do_not_count(ana: Clone, ben: Clone, cloud: str) -> None:
    use(cloud, ana, ben)
    items = ana.put(b"true weights")
    artifacts.upload(ana.tracker, None, items)
    depot = bucket.BucketDepot(ana.tracker.repo.objects, cloud)
    path = depot._path(items[0].digest)
    for wrong in (b"fake weights", b"short"):
        depot._fs.pipe_file(path, wrong)
        with pytest.raises(CorruptError, match=items[0].digest[:12]):
            artifacts.ensure(ben.tracker, items)
    assert ben.has(items) == [False]
    assert artifacts.upload(ana.tracker, None, items).count == 1  # its size is wrong: sent again
    artifacts.ensure(ben.tracker, items)


def test_what_is_not_there(ana: Clone, cloud: str) -> None:
    use(cloud, ana)
    with pytest.raises(NotFoundError, match=r"neither in this clone nor at `(gs|az)://"):
        artifacts.ensure(ana.tracker, [Item(Digest("0" * 64), 5)])
    use(cloud.replace("team", "nobody-made-it"), ana)
    with pytest.raises(NetworkError, match="nobody-made-it"):
        artifacts.upload(ana.tracker, None, ana.put(b"weights"))
