"""Tells a page which of the runs that its reader may see have changed: at once when asked, or as it happens.

The latter are events as browsers understand them (https://html.spec.whatwg.org/multipage/server-sent-events.html).
A stream takes no thread, and ends with the server, or when its reader may not ask any more.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.responses import Response

from gittrack.errors import GittrackError, TooManyRequestsError
from gittrack.server.hub.app import Hub
from gittrack.server.hub.feed import News
from gittrack.server.hub.messages import Message, boolean, text, texts
from gittrack.server.hub.roles import Caller, Role
from gittrack.server.hub.routes import Call, Permission, Route
from gittrack.server.hub.streams import Timely, threaded

if TYPE_CHECKING:
    from gittrack.server.hub.guard import Guard

_EVENTS: Final = "text/event-stream"
#: Seconds of silence after which it is said that nothing changed: the connection is in use, and marks do not get old.
_HEARTBEAT: Final = 15.0
#: Seconds that a client may take no byte.
_SILENCE: Final = 30.0
#: Streams at a time: of one caller, whose browsers have one each; and of all, so that others get in, too.
_MOST_EACH: Final = 16
_MOST: Final = 512
#: Of more runs than this, who is told looks at all anyway.
_MOST_RUNS: Final = 500


async def _changes(call: Call) -> Any:
    mark = call.values.get("since")
    if _EVENTS in call.request.headers.get("accept", ""):
        return _stream(call, call.request.headers.get("last-event-id", mark))
    return await threaded(_looked, call, mark, limiter=call.hub.feed.threads)


def _looked(call: Call, mark: str | None) -> dict[str, Any]:
    call.hub.feed.look()
    return _told(call.hub, call.caller, call.hub.feed.since(mark))


def _told(hub: Hub, caller: Caller, news: News) -> dict[str, Any]:
    """What changed of that which a caller may see."""
    runs, experiments = news.runs, news.experiments
    if (runs or experiments) and not caller.may(Role.READER):
        homes = {home for home in runs.values() if home is not None}
        seen = set(hub.readable(caller, [*homes, *experiments]))
        runs = {run_id: home for run_id, home in runs.items() if home in seen}
        experiments = [one for one in experiments if one in seen]
    complete = news.complete and len(runs) <= _MOST_RUNS
    return {
        "mark": news.mark,
        "complete": complete,
        "run_ids": list(runs) if complete else [],
        "experiment_ids": experiments if complete else [],
    }


def _stream(call: Call, mark: str | None) -> Response:
    streams = call.hub.streams
    who = f"{call.caller.kind} {call.caller.name}"
    if streams[who] >= _MOST_EACH or streams.total() >= _MOST:
        raise TooManyRequestsError(
            "too many streams are open", again=60, hint="ask without `Accept: text/event-stream`"
        )
    streams[who] += 1
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}

    def ended() -> None:
        _end(streams, who)

    return Timely(_events(call, mark), silence=_SILENCE, ended=ended, media_type=_EVENTS, headers=headers)


def _end(streams: Counter[str], who: str) -> None:
    streams[who] -= 1
    if not streams[who]:
        del streams[who]


async def _events(call: Call, mark: str | None) -> AsyncIterator[bytes]:
    hub, scope = call.hub, call.request.scope
    guard: Guard = scope["gittrack.guard"]
    await threaded(hub.feed.look, limiter=hub.feed.threads)
    said = float("-inf")
    while not hub.is_ending():
        try:
            caller = await guard.again(scope)
        except GittrackError:  # revoked, or over; the next request is told why
            return
        news = hub.feed.since(mark)
        is_time = time.monotonic() >= said + _HEARTBEAT
        if is_time or news.runs or news.experiments or not news.complete:
            told = await threaded(_told, hub, caller, news, limiter=hub.feed.threads)
            if is_time or told["run_ids"] or told["experiment_ids"] or not told["complete"]:
                yield b"id: %s\ndata: %s\n\n" % (news.mark.encode(), orjson.dumps(told))
                said = time.monotonic()
        mark = news.mark
        await hub.feed.next()


ROUTES: Final = (
    Route(
        "GET",
        "{api}/gittrack/changes",
        Permission(Role.READER),
        _changes,
        Message(since=text()),
        answer=Message(
            mark=text(required=True),
            complete=boolean(required=True),
            run_ids=texts(required=True),
            experiment_ids=texts(required=True),
        ),
    ),
)
