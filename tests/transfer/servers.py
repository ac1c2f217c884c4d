"""Servers of others on loopback, each a program of its own: an LFS server, an S3, a Google Cloud Storage, an Azure."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_GIFTLESS = """
import sys
from giftless.app import init_app
from werkzeug.serving import make_server
basic = {"options": {"storage_options": {"path": sys.argv[1]}}}
app = init_app(additional_config={
    "AUTH_PROVIDERS": [sys.argv[2]], "LEGACY_ENDPOINTS": False, "TRANSFER_ADAPTERS": {"basic": basic},
})
server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""
_MOTO = """
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
server._thread.join()
"""
#: One thread, as it has, waits for the end of a connection that is kept while others wait for it.
_GCS = """
import http.server
http.server.HTTPServer = http.server.ThreadingHTTPServer
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="team")
server.start()
print(server._api._httpd.server_port, flush=True)
server._api._thread.join()
"""


def needs(*modules: str) -> None:
    """Skip where a package of the extra `sharing` is missing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[sharing]'", allow_module_level=True)


@contextmanager
def program(code: str, *args: str, log: Path) -> Iterator[int]:
    """A Python program that prints its port; ended afterwards."""
    with _running([sys.executable, "-c", code, *args], rb"(\d+)", log) as port:
        yield port


@contextmanager
def _running(command: list[str], says: bytes, log: Path) -> Iterator[int]:
    """A program whose output has a line with its port; ended afterwards."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, cwd=log.parent)
    assert process.stdout is not None
    try:
        found = None
        for line in process.stdout:
            found = re.search(says, line)
            if found is not None:
                break
        assert found is not None, log.read_text(errors="replace")[-2000:]
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextmanager
def giftless(folder: Path) -> Iterator[str]:
    """giftless, an LFS server (https://giftless.datopian.com); its address."""
    folder.mkdir(parents=True, exist_ok=True)
    with program(_GIFTLESS, str(folder), "giftless.auth.allow_anon:read_write", log=folder / "log") as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def moto(folder: Path) -> Iterator[str]:
    """moto in server mode, an S3 over HTTP; its address."""
    with program(_MOTO, log=folder / "log") as port:
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                with urllib.request.urlopen(url, timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        yield url


@contextmanager
def gcs(folder: Path) -> Iterator[str]:
    """gcp-storage-emulator, with a bucket `team`; its address."""
    with program(_GCS, log=folder / "log") as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """azurite, Microsoft's emulator of Azure's storage, from npm; a connection string for it."""
    found = shutil.which("azurite-blob")
    if found is None:
        pytest.skip("azurite is not on the PATH: npm install azurite")
    options = ["--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    with _running([found, *options], rb"listens on http://127.0.0.1:(\d+)", folder / "log") as port:
        yield (
            "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT"
            "50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
            f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
