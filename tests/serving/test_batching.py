"""Small requests that wait together are one call of the model, and nobody notices."""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.serving.conftest import Running, Start
from tests.serving.load import hammer, in_turn, post, repeat
from tests.serving.models import NAMES, WEIGHTS, Fake, Linear, columns, iris_like


def body(*rows: list[Any]) -> bytes:
    return json.dumps({"dataframe_split": {"columns": NAMES, "data": rows}}).encode()


def held(**options: Any) -> tuple[Fake, Linear]:
    """A model whose calls wait until they are let go."""
    model = iris_like(**options)
    linear: Linear = model.predictor
    linear.held = threading.Event()
    linear.held.set()
    return model, linear


def test_a_mix_of_good_and_bad_rows_under_load_is_answered_exactly(start: Start) -> None:
    """Every answer is that of its own request, whatever was joined with it."""
    model = iris_like()
    running = start(model)
    numbers = random.Random(7)
    rows: dict[tuple[int, int], list[Any]] = {}

    def ask(connection: int, number: int) -> bytes | None:
        if number == 60:
            return None
        rows[connection, number] = [numbers.randrange(1000) for _ in range(4)]
        kind = numbers.random()
        if kind < 0.1:
            rows[connection, number][2] = None  # the model fails on it
        elif kind < 0.15:
            rows[connection, number][1] = "x"  # the parser does
        return post(body(rows[connection, number]))

    load = asyncio.run(hammer(running.port, 16, ask))
    assert load.lost == 0
    assert len(load.replies) == 16 * 60
    for reply in load.replies:
        row = rows[reply.connection, reply.number]
        if any(not isinstance(value, int) for value in row):
            assert reply.status == 400
        else:
            assert reply.status == 200
            assert json.loads(reply.body) == {"predictions": [float(np.dot(row, WEIGHTS))]}
    assert max(model.predictor.calls) > 1, "nothing was joined"


def test_joined_requests_count_as_one_call(start: Start) -> None:
    model, linear = held()
    running = start(model, threads=1)
    running.post(body([0, 0, 0, 0]))
    assert linear.held is not None
    linear.pause = 0.05  # not answered in the event loop any more
    running.post(body([0, 0, 0, 0]))
    linear.held.clear()
    linear.calls.clear()
    replies: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: replies.append((n, running.post(body([n, 0, 0, 0]))))) for n in range(9)
    ]
    threads[0].start()
    running.until(lambda: len(linear.calls) == 1)
    for thread in threads[1:]:
        thread.start()
    waiting = running.service._installed.batcher._waiting
    running.until(lambda: len(waiting) == 8)
    linear.held.set()
    for thread in threads:
        thread.join(20)
    assert linear.calls == [1, 8]
    assert sorted((n, reply.predictions) for n, reply in replies) == [(n, [float(n)]) for n in range(9)]
    assert running.counted('gittrack_batch_requests_bucket{le="8"}') == running.counted("gittrack_batch_requests_count")


def test_a_joined_call_that_fails_is_made_again_one_by_one(start: Start) -> None:
    class Picky(Linear):
        def predict(self, data: Any, params: Any = None) -> Any:
            result = super().predict(data, params)
            if len(data) > 1:
                raise MemoryError
            return result

    running = start(Fake(Picky(), columns("double", "double", "double", "double")))
    load = asyncio.run(hammer(running.port, 8, in_turn([post(body([n, 0, 0, 0])) for n in range(8)], 20)))
    assert load.statuses == {200}
    for reply in load.replies:
        assert json.loads(reply.body)["predictions"] == [(reply.connection + reply.number) % 8]


def test_an_answer_that_is_not_one_per_row_is_not_shared(start: Start) -> None:
    class Summary(Linear):
        def predict(self, data: Any, params: Any = None) -> Any:
            return {"rows": len(data), "sum": float(super().predict(data).sum())}

    running = start(Fake(Summary(), columns("double", "double", "double", "double")))
    load = asyncio.run(hammer(running.port, 8, repeat(post(body([1, 0, 0, 0])), 20)))
    assert {reply.body for reply in load.replies} == {b'{"predictions":{"rows":1,"sum":1.0}}'}


def test_requests_of_many_sizes(start: Start) -> None:
    running = start(iris_like(), max_rows=16)

    def ask(connection: int, number: int) -> bytes | None:
        return None if number == 20 else post(body(*([[connection, number, 0, 0]] * (1 + (connection * number) % 40))))

    load = asyncio.run(hammer(running.port, 8, ask))
    for reply in load.replies:
        rows = 1 + (reply.connection * reply.number) % 40
        assert json.loads(reply.body)["predictions"] == [reply.connection + 10.0 * reply.number] * rows


def test_a_table_model_is_never_given_two_requests_at_once(start: Start) -> None:
    model = iris_like(matrix=False)
    running = start(model)
    asyncio.run(hammer(running.port, 8, repeat(post(body([1, 2, 3, 4])), 20)))
    assert set(model.predictor.calls) == {1}


# --- limits


def test_a_prediction_that_takes_too_long(start: Start) -> None:
    model, linear = held()
    running = start(model, timeout=0.3, threads=1)
    assert linear.held is not None
    linear.held.clear()
    begun = time.monotonic()
    replies = in_parallel(running, [body([n, 0, 0, 0]) for n in range(3)])
    assert time.monotonic() - begun < 10
    assert [reply.status for reply in replies] == [504] * 3
    assert replies[0].json["error_code"] == "DEADLINE_EXCEEDED"
    assert running.get("/ping").status == 200  # the event loop is free
    linear.held.set()
    linear.calls.clear()
    running.until(lambda: running.post(body([1, 0, 0, 0])).status == 200)
    assert sum(linear.calls) <= 3, "requests that nobody waits for are not predicted"


def test_a_server_whose_threads_all_hang_says_so(start: Start) -> None:
    model, linear = held()
    running = start(model, timeout=0.1, threads=1)
    assert linear.held is not None
    assert running.get("/ping").status == 200
    linear.held.clear()
    assert running.post(body([1, 0, 0, 0])).status == 504
    running.until(lambda: running.get("/ping").status == 503)
    assert running.get("/v2/health/ready").status == 503
    assert running.get("/v2/health/live").status == 200
    linear.held.set()
    running.until(lambda: running.get("/ping").status == 200)


def in_parallel(running: Running, bodies: list[bytes]) -> list[Any]:
    replies: list[Any] = [None] * len(bodies)

    def ask(at: int) -> None:
        replies[at] = running.post(bodies[at])

    threads = [threading.Thread(target=ask, args=(at,)) for at in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return replies


@pytest.mark.parametrize("matrix", [True, False])
def test_too_many_that_wait_are_refused_at_once(start: Start, matrix: bool) -> None:
    model, linear = held(matrix=matrix)
    running = start(model, timeout=5.0, threads=1, max_waiting=2, max_rows=1)
    assert linear.held is not None
    linear.held.clear()
    threading.Timer(1.0, linear.held.set).start()
    replies = in_parallel(running, [body([n, 0, 0, 0]) for n in range(12)])
    counted = Counter(reply.status for reply in replies)
    assert set(counted) == {200, 503}
    assert counted[200] <= 4
    refused = next(reply for reply in replies if reply.status == 503)
    assert refused.json["error_code"] == "TEMPORARILY_UNAVAILABLE"
    assert refused.headers["retry-after"] == "1"


def test_a_slow_model_does_not_hold_up_the_health_check(start: Start) -> None:
    model = iris_like()
    running = start(model)
    model.predictor.pause = 0.4
    running.post(body([1, 2, 3, 4]))
    thread = threading.Thread(target=running.post, args=(body([1, 2, 3, 4]),))
    thread.start()
    time.sleep(0.1)
    begun = time.monotonic()
    assert running.get("/ping").status == 200
    assert time.monotonic() - begun < 0.25
    thread.join(20)
