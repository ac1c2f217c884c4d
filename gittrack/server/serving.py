"""One model behind HTTP: MLflow's scoring protocol, the Open Inference Protocol, health, metrics and a page about it.

An ASGI application; which model it answers with comes from a ``Source``.  A request is answered by the version that was
there when it came; another version is loaded beside the old one and put in its place between two requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from gittrack._version import __version__
from gittrack.errors import (
    DeadlineError,
    GittrackError,
    MediaTypeError,
    NotFoundError,
    OverloadedError,
    PredictionError,
    SchemaError,
    TooLargeError,
)
from gittrack.models import inference
from gittrack.models.scoring import JSON, Scorer, Served, dump, media_type
from gittrack.server import pages
from gittrack.server.batching import Batcher
from gittrack.server.metrics import CONTENT_TYPE, STATUSES, Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PREDICTING: Final = "predict"  #: begins the names of the threads that predict
_JSON: Final = JSON.encode()
INLINE_BYTES: Final = 512 << 10  #: a larger body is parsed in a thread, so that others need not wait
#: All bodies that are being received may take so much memory, or that of some of the largest allowed.
_BODIES_BYTES: Final = 256 << 20
_BODIES: Final = 4
_DISCARDED: Final = 4  #: so many times the largest body are read of one that is larger, before the answer is sent
_LOG_SECONDS: Final = 10.0  #: between two lines about models that fail

_log = logging.getLogger("gittrack.serving")

Header = tuple[bytes, bytes]
Answer = tuple[int, bytes, bytes, list[Header]]  # status, media type, body, more headers


@dataclass(frozen=True)
class ServedModel:
    """A loaded model and what it is called.

    Attributes:
        model: To predict with.
        name: Of the registered model, or of its folder.
        version: Of the registered model; None if it is none.
        example: The body of a request that it should be able to answer; None if it was saved without one.
    """

    model: Served
    name: str
    version: str | None = None
    example: bytes | None = None


class Source(Protocol):
    """Where the model comes from.  Its methods may take long and are called one at a time."""

    def load(self) -> ServedModel:
        """The model.  Raises GittrackError."""

    def newer(self) -> ServedModel | None:
        """Another version that should take the place of what was loaded last; None if there is none.

        Raises:
            GittrackError: There is one, and it cannot be loaded, or which one is meant cannot be told.  It is not
                raised again at once for the same reason.
        """


@dataclass(frozen=True)
class Options:
    """How to serve.

    Attributes:
        max_body: Bytes of a request's body.
        timeout: Seconds that a prediction may take.
        follow: Seconds between looking for another version; None for never.
        hosts: What the header ``Host`` may name, without the port; None for anything.
        max_rows: Of requests that are predicted together; 1 for none.
        threads: Predictions that run at a time.
        max_waiting: Requests that wait for a prediction; more are refused.
    """

    max_body: int = 8 << 20
    timeout: float = 60.0
    follow: float | None = None
    hosts: frozenset[str] | None = None
    max_rows: int = 256
    threads: int = 2
    max_waiting: int = 1024


class _Installed:
    """A model with everything that answers with it."""

    def __init__(self, served: ServedModel, scorer: Scorer, batcher: Batcher) -> None:
        self.name = served.name
        self.version = served.version
        self.scorer = scorer
        self.batcher = batcher
        label = served.version or ""
        self.headers = [(b"gittrack-model-version", label.encode("ascii", "replace"))] if label else []
        self.description = pages.describe(scorer, served.name, served.version)


class Service:
    """The application.

    Args:
        source: Where the model comes from.
        options: How to serve.
        metrics: Where to count.
        first: The model to start with; None to load it when the server starts.
    """

    def __init__(
        self, source: Source, options: Options, metrics: Metrics | None = None, first: ServedModel | None = None
    ) -> None:
        self._source = source
        self._options = options
        self._metrics = Metrics() if metrics is None else metrics
        self._first = first
        self._installed: _Installed  # when it has started
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix=PREDICTING)
        self._follower: asyncio.Task[None] | None = None
        self._known_hosts: set[bytes] = set()
        self._receiving = 0
        self._may_receive = max(_BODIES_BYTES, _BODIES * options.max_body)
        self._next_log = 0.0
        models = "/v2/models/{name}"
        versions = models + "/versions/{version}"
        self._pages = Starlette(
            routes=[
                Route("/ping", self._ping),
                Route("/health", self._ping),
                Route("/version", self._version),
                Route("/metrics", self._metrics_page),
                Route("/openapi.json", self._openapi),
                Route("/docs", self._docs),
                Route("/v2", self._server_metadata),
                Route("/v2/health/live", self._live),
                Route("/v2/health/ready", self._ready),
                *(Route(path, self._model_metadata) for path in (models, versions)),
                *(Route(f"{path}/ready", self._model_ready) for path in (models, versions)),
                *(Route(f"{path}/infer", self._infer, methods=["POST"]) for path in (models, versions)),
            ],
            exception_handlers={404: _no_such_page, 405: _no_such_method},
            lifespan=self._lifespan,
        )
        self._pages.router.redirect_slashes = False

    # --- life

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        served = self._first
        if served is None:
            served = await loop.run_in_executor(self._pool, self._source.load)
        self._first = None
        installed = self._install(served)
        try:
            await self._try_out(installed, served.example, self._pool)
        except GittrackError as error:
            _log.warning("the model cannot answer its own example: %s", shown(error))
        self._installed = installed
        if self._options.follow is not None:
            self._follower = asyncio.create_task(self._keep_following(self._options.follow))
        try:
            yield
        finally:
            if self._follower is not None:
                self._follower.cancel()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _install(self, served: ServedModel) -> _Installed:
        scorer = Scorer(served.model)
        batcher = Batcher(
            scorer,
            self._pool,
            threads=self._options.threads,
            timeout=self._options.timeout,
            max_rows=self._options.max_rows,
            max_waiting=self._options.max_waiting,
            count=self._metrics.batch,
        )
        return _Installed(served, scorer, batcher)

    async def _keep_following(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await self._follow()
            except Exception as error:  # noqa: BLE001 - whatever a new version does, the old one goes on
                self._metrics.failed_switch()
                _log.warning("%s stays, another version could not be put in: %s", self._label(), shown(error))

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        served = await loop.run_in_executor(None, self._source.newer)
        if served is None:
            return
        installed = self._install(served)
        await self._try_out(installed, served.example, None)
        self._installed = installed
        self._metrics.switched()
        _log.info("now serving %s", self._label())

    async def _try_out(self, installed: _Installed, example: bytes | None, pool: ThreadPoolExecutor | None) -> None:
        """Let a model answer its example.  Raises GittrackError if it cannot, or not in time."""
        tried = asyncio.get_running_loop().run_in_executor(pool, _try_out, installed.scorer, example)
        try:
            await asyncio.wait_for(tried, self._options.timeout)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise DeadlineError("the model does not answer its example in time") from error

    def _label(self) -> str:
        current = self._installed
        return current.name if current.version is None else f"{current.name} version {current.version}"

    # --- requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the entry point of an ASGI application."""
        if scope["type"] != "http":
            await self._pages(scope, receive, send)
            return
        begun = time.perf_counter()
        path = scope["path"]
        # Scoring does not go through the router, which takes longer than a small model.
        if path == "/invocations" and scope["method"] == "POST":
            answer = await self._guarded(scope, receive, self._invoke, _answer_of)
            if answer is not None:
                await self._send(send, answer)
                self._metrics.answered("invocations", answer[0], time.perf_counter() - begun)
            return
        status = 500

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        if not self._is_host_known(scope["headers"]):
            await self._send(watched, _error(421, "BAD_REQUEST", "the header Host names another server"))
        elif path == "/invocations":
            await self._send(watched, _error(405, "ENDPOINT_NOT_FOUND", "use POST"))
        else:
            await self._pages(scope, receive, watched)
        route = "infer" if path.endswith("/infer") else "other"
        self._metrics.answered(route, status if status in STATUSES else 500, time.perf_counter() - begun)

    async def _guarded(
        self,
        scope: Scope,
        receive: Receive,
        work: Callable[[bytes, str | None], Awaitable[Answer]],
        failed: Callable[[GittrackError], Answer],
    ) -> Answer | None:
        """The answer of ``work`` to the body of a request, or what ``failed`` makes of an error; None: nobody waits."""
        try:
            headers = scope["headers"]
            content_type = length = None
            for name, value in headers:
                if name == b"content-type":
                    content_type = value.decode("latin-1")
                elif name == b"content-length":
                    length = value
                elif name == b"content-encoding" and value.lower() != b"identity":
                    raise MediaTypeError("the body is compressed", hint="send it as it is")
            if not self._is_host_known(headers):
                return _error(421, "BAD_REQUEST", "the header Host names another server")
            if length is not None and (len(length) > 18 or int(length) > self._options.max_body):
                await self._refuse_body(receive, more=True)
            body = await self._body(receive)
            return None if body is None else await work(body, content_type)
        except GittrackError as error:
            self._log_cause(error)
            return failed(error)
        except Exception:  # noqa: BLE001 - the last line of defence: a bug becomes status 500
            _log.exception("a bug of gittrack's")
            return _error(500, "INTERNAL_ERROR", "the server failed")

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body; None if the client went away.

        Raises:
            TooLargeError: It is larger than it may be.
            OverloadedError: All that are being received are.
        """
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(body) > self._options.max_body:
                await self._refuse_body(receive, more=False)
            return body
        parts, size = [body], len(body)
        self._receiving += size
        try:
            while message.get("more_body", False):
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                self._receiving += len(part)
                if size > self._options.max_body:
                    await self._refuse_body(receive, more=message.get("more_body", False))
                if self._receiving > self._may_receive:
                    raise OverloadedError("too many large requests are being received", hint="send it again later")
            return b"".join(parts)
        finally:
            self._receiving -= size

    async def _refuse_body(self, receive: Receive, *, more: bool) -> NoReturn:
        """Say that a body is too large, but take some of what still comes: many clients read no answer before.

        Raises:
            TooLargeError: Always.
        """
        left = _DISCARDED * self._options.max_body
        while more and left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            more = message.get("more_body", False)
        raise TooLargeError(f"a body may have {self._options.max_body} bytes")

    async def _invoke(self, body: bytes, content_type: str | None) -> Answer:
        installed = self._installed
        scorer, batcher = installed.scorer, installed.batcher
        if scorer.predictor is not None and len(body) <= INLINE_BYTES and media_type(content_type) == JSON:
            request = scorer.read(body, content_type)
            if request.matrix:
                return 200, _JSON, scorer.write(await batcher.predict(request)), installed.headers
            done = await batcher.run(lambda: scorer.write(scorer.predict(request), unwrapped=request.unwrapped))
        else:
            done = await batcher.run(lambda: _whole(scorer, body, content_type))
        return 200, _JSON, done, installed.headers

    async def _send(self, send: Send, answer: Answer) -> None:
        status, media, body, more = answer
        headers = [(b"content-type", media), (b"content-length", b"%d" % len(body)), *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _is_host_known(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """False if the request is meant for another host: a page that had its name point here."""
        allowed = self._options.hosts
        if allowed is None:
            return True
        for name, value in headers:
            if name == b"host":
                if value in self._known_hosts:
                    return True
                host = value.decode("latin-1").lower()
                host = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
                if host in allowed and len(self._known_hosts) < 64:
                    self._known_hosts.add(value)
                return host in allowed
        return False

    def _log_cause(self, error: GittrackError) -> None:
        """What a model raised: for whoever runs the server, not for whoever asked; not more often than is readable."""
        now = time.monotonic()
        if isinstance(error, PredictionError) and now >= self._next_log:
            self._next_log = now + _LOG_SECONDS
            _log.warning("the model failed on an input: %s", shown(error.__cause__))

    # --- pages

    async def _ping(self, _: HttpRequest) -> Response:
        return Response(b"\n", 503 if self._installed.batcher.stuck else 200, media_type=JSON)

    async def _version(self, _: HttpRequest) -> Response:
        return Response(__version__, media_type=JSON)

    async def _metrics_page(self, _: HttpRequest) -> Response:
        current = self._installed
        text = await asyncio.to_thread(self._metrics.text, current.name, current.version or "")
        return Response(text, headers={"content-type": CONTENT_TYPE.decode()})

    async def _openapi(self, _: HttpRequest) -> Response:
        return Response(self._installed.description.openapi, media_type=JSON)

    async def _docs(self, _: HttpRequest) -> Response:
        return Response(self._installed.description.page, headers=pages.HEADERS)

    async def _server_metadata(self, _: HttpRequest) -> Response:
        return _json({"name": "gittrack", "version": __version__, "extensions": []})

    async def _live(self, _: HttpRequest) -> Response:
        return _json({"live": True})

    async def _ready(self, _: HttpRequest) -> Response:
        ready = not self._installed.batcher.stuck
        return _json({"live": True, "ready": ready}, 200 if ready else 503)

    def _named(self, request: HttpRequest) -> _Installed:
        """The model that a path names.  Raises NotFoundError."""
        current = self._installed
        name, version = request.path_params["name"], request.path_params.get("version", current.version)
        if name != current.name or version != current.version:
            known = current.name if current.version is None else f"{current.name}/versions/{current.version}"
            raise NotFoundError("no such model or version", hint=f"this server has `/v2/models/{known}`")
        return current

    async def _model_metadata(self, request: HttpRequest) -> Response:
        try:
            current = self._named(request)
        except NotFoundError as error:
            return _json({"error": str(error)}, error.http_status)
        versions = [] if current.version is None else [current.version]
        return _json(inference.model_metadata(current.scorer, current.name, versions))

    async def _model_ready(self, request: HttpRequest) -> Response:
        try:
            return _json({"name": self._named(request).name, "ready": True})
        except NotFoundError as error:
            return _json({"error": str(error)}, error.http_status)

    async def _infer(self, request: HttpRequest) -> Response:
        async def work(body: bytes, content_type: str | None) -> Answer:
            installed = self._named(request)
            if media_type(content_type) != JSON:
                raise MediaTypeError(f"the Content-Type must be {JSON}")
            return 200, _JSON, await self._inferred(installed, body), installed.headers

        answer = await self._guarded(request.scope, request.receive, work, _v2_answer_of)
        if answer is None:
            return Response(status_code=400)  # nobody reads it
        status, media, content, more = answer
        names = {name.decode(): value.decode() for name, value in more}
        return Response(content, status, names, media_type=media.decode())

    async def _inferred(self, installed: _Installed, body: bytes) -> bytes:
        scorer, batcher = installed.scorer, installed.batcher
        asked = (
            inference.Inference(scorer, body)
            if len(body) <= INLINE_BYTES
            else await batcher.run(lambda: inference.Inference(scorer, body))
        )
        request = asked.request
        if request.matrix:
            prediction = await batcher.predict(request)
        else:
            prediction = await batcher.run(lambda: scorer.predict(request))
        schema = scorer.metadata.get_output_schema()
        return dump(inference.answer(asked, prediction, schema, installed.name, installed.version))


def _whole(scorer: Scorer, body: bytes, content_type: str | None) -> bytes:
    request = scorer.read(body, content_type)
    return scorer.write(scorer.predict(request), unwrapped=request.unwrapped)


def _try_out(scorer: Scorer, example: bytes | None) -> None:
    """Let a model answer its example, or a row of zeros: it is warm then, and one that cannot is found out.

    Raises:
        GittrackError: The example cannot be answered.
    """
    if example is not None:
        _whole(scorer, example, JSON)
        return
    if scorer.columns is not None:
        with contextlib.suppress(GittrackError):  # there are models that take no zeros
            scorer.predict(scorer.rows(scorer.columns.labels, [[0] * len(scorer.columns)], scorer.params(None)))


def shown(error: BaseException | None) -> str:
    """An error in one line of a log: what it is, what it says and where it was raised; nothing that moves cursors."""
    if isinstance(error, GittrackError) and error.__cause__ is None:
        text = str(error)
    elif isinstance(error, GittrackError):
        text = f"{error}; {shown(error.__cause__)}"
    else:
        frames = traceback.extract_tb(error.__traceback__) if error is not None else []
        where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        text = f"{type(error).__name__}: {error!s:.300}{where}"
    return "".join(one if one.isprintable() else " " for one in text)


# --- answers


def _json(answer: Any, status: int = 200) -> Response:
    return Response(dump(answer), status, media_type=JSON)


def _error(status: int, code: str, message: str, **more: str) -> Answer:
    # The rest of a body that is too large is not read, and a client that is to come back later need not hold on.
    headers = [(b"connection", b"close")] if status in (413, 503) else []
    if status == 503:
        headers.append((b"retry-after", b"1"))
    return status, _JSON, dump({"error_code": code, "message": message, **more}), headers


def _answer_of(error: GittrackError) -> Answer:
    """An error as MLflow's scoring server writes it."""
    if isinstance(error, MediaTypeError):
        return error.http_status, b"text/plain; charset=utf-8", str(error).encode(), []
    status = error.http_status if error.http_status in STATUSES else 500
    if isinstance(error, SchemaError):
        return _error(status, error.code, str(error), sqlstate="KAM01", error_class="SCHEMA_ENFORCEMENT_FAILED")
    return _error(status, error.code, str(error))


def _v2_answer_of(error: GittrackError) -> Answer:
    """An error as the Open Inference Protocol writes it."""
    status, _, _, more = _answer_of(error)
    return status, _JSON, dump({"error": str(error)}), more


async def _no_such_page(_: HttpRequest, __: Exception) -> Response:
    hint = "`/docs` lists what there is"
    return _json({"error_code": "ENDPOINT_NOT_FOUND", "message": f"no such page (hint: {hint})"}, 404)


async def _no_such_method(_: HttpRequest, __: Exception) -> Response:
    return _json({"error_code": "ENDPOINT_NOT_FOUND", "message": "this page does not take that method"}, 405)
