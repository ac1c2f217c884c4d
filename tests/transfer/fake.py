"""An LFS server that misbehaves as it is told; in a thread of the test."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Handle = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request, with ways to answer it."""

    protocol_version = "HTTP/1.1"
    server: "FakeLfs"

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, data: bytes = b"", **headers: str) -> None:
        self.head(status, **{"Content_Length": str(len(data)), **headers})
        self.wfile.write(data)

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def document(self, document: object, status: int = 200) -> None:
        self.answer(status, json.dumps(document).encode(), Content_Type="application/vnd.git-lfs+json")

    def cut(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()

    def _any(self) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        with suppress(OSError, ValueError):
            self.server.handle(self)

    do_GET = do_POST = do_PUT = _any  # noqa: N815 - the names that http.server looks for


class FakeLfs(ThreadingHTTPServer):
    """A server that behaves, unless one of its steps is replaced.

    Attributes:
        objects: What it has, by sha256.
        seen: (method, path, headers) of every request.
        batch, get, put, verify: The steps.
        action: Makes the action of an object: (operation, oid, size) -> action.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.objects: dict[str, bytes] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.served = 0
        self.scheme = "http"
        self.batch: Handle = self.good_batch
        self.get: Handle = self.good_get
        self.put: Handle = self.good_put
        self.verify: Handle = self.good_verify
        self.action: Callable[[str, str, int], dict[str, Any]] = self.good_action

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def handle(self, request: Request) -> None:
        if request.path.endswith("/objects/batch"):
            self.batch(request)
        elif request.path.endswith("/verify"):
            self.verify(request)
        elif request.command == "PUT":
            self.put(request)
        else:
            self.get(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break here on purpose."""

    def good_action(self, operation: str, oid: str, size: int) -> dict[str, Any]:
        actions = {operation: {"href": f"{self.url}/store/{oid}"}}
        if operation == "upload":
            actions["verify"] = {"href": f"{self.url}/verify"}
        return actions

    def good_batch(self, request: Request) -> None:
        asked = json.loads(request.body())
        operation, found = asked["operation"], []
        for one in asked["objects"]:
            there = one["oid"] in self.objects
            if operation == "download" and not there:
                found.append({**one, "error": {"code": 404, "message": "Object does not exist"}})
            elif operation == "upload" and there:
                found.append(one)
            else:
                found.append({**one, "actions": self.action(operation, one["oid"], one["size"])})
        request.document({"transfer": "basic", "objects": found})

    def good_get(self, request: Request) -> None:
        data, start = self.slice(request)
        if start:
            total = start + len(data)
            request.answer(206, data, Content_Range=f"bytes {start}-{total - 1}/{total}")
        else:
            request.answer(200, data)
        self.served += len(data)

    def slice(self, request: Request) -> tuple[bytes, int]:
        """What is asked for, and where it starts."""
        start = int(request.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        return self.objects[request.path.rpartition("/")[2]][start:], start

    def good_put(self, request: Request) -> None:
        data = request.body()
        if len(data) == int(request.headers.get("Content-Length") or len(data)):  # nothing half is kept
            self.objects[request.path.rpartition("/")[2]] = data
            request.answer(200)

    def good_verify(self, request: Request) -> None:
        request.body()
        request.answer(200)

    def requests(self, method: str, part: str = "") -> list[dict[str, str]]:
        """The headers of the requests seen of a kind."""
        return [headers for verb, path, headers in self.seen if verb == method and part in path]


@contextmanager
def fake() -> Iterator[FakeLfs]:
    server = FakeLfs()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
