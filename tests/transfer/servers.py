"""Servers of others on loopback, each a program of its own: an LFS server, an S3."""

import importlib.util
import os
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


def needs(*modules: str) -> None:
    """Skip where a package of the extra `sharing` is missing."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install -e '.[sharing]'", allow_module_level=True)


@contextmanager
def program(code: str, *args: str, log: Path) -> Iterator[int]:
    """A Python program that prints its port; ended afterwards."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *args], stdout=subprocess.PIPE, stderr=errors, env=environment, cwd=log.parent
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.strip().isdigit(), log.read_text(errors="replace")[-2000:]
        yield int(line)
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
