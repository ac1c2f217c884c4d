"""Webhooks of several servers that share a database: every delivery once, and none lost with the server that dies."""

import itertools
import json
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gittrack.server.hub import webhooks as kept
from gittrack.server.hub.accounts import Accounts
from gittrack.server.hub.news import RUN_FINISHED
from gittrack.server.hub.webhooks import DELIVERED, WAITING, Delivery, Keys, Webhooks
from tests.conftest import FOREIGN, GITCONFIG, run_git
from tests.databases import Server
from tests.server.process import Process
from tests.server.test_webhooks import Receiver, receiver

pytestmark = pytest.mark.any_backend  # the servers have a database of their own
__all__ = ["receiver"]  # a fixture

FULL = os.environ.get("GITTRACK_FAULTS") == "full"
RUNS = 30 if FULL else 4
_numbers = itertools.count()


@pytest.fixture
def accounts_url(postgres: Server) -> str:
    """The address of a database of accounts in PostgreSQL, which is empty."""
    import psycopg

    name = f"accounts_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.uri.replace("postgresql://", "postgresql+psycopg://").replace("/postgres?", f"/{name}?")


def test_what_several_see_is_queued_and_taken_once(accounts_url: str, tmp_path: Path) -> None:
    servers = [Webhooks(Accounts(accounts_url), Keys(tmp_path / kept.KEY_FILE)) for _ in range(4)]
    hook, _ = servers[0].add("https://x.org/", by="ana")
    idents = [secrets.token_hex(16) for _ in range(40)]
    taken: list[str] = []
    new: list[int] = []
    start = threading.Barrier(len(servers))

    def work(webhooks: Webhooks) -> None:
        start.wait(20)
        queued = [Delivery(ident, hook.id, "run.finished", "{}", WAITING, 0, 0, 0, "") for ident in idents]
        new.extend(webhooks.queue([one]) for one in queued)
        while found := webhooks.take(3):
            taken.extend(one.id for one in found)
            for one in found:
                webhooks.settle(one, 200, "")

    threads = [threading.Thread(target=work, args=(one,)) for one in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(new) == len(idents)
    assert sorted(taken) == sorted(idents)
    assert servers[0].counts() == {hook.id: {DELIVERED: len(idents)}}
    for one in servers:
        one._accounts.close()


@pytest.fixture(params=["one remote", pytest.param("one repository", marks=[] if FULL else pytest.mark.skip(
    reason="the long form runs with GITTRACK_FAULTS=full"))])  # fmt: skip
def pair(
    postgres: Server, accounts_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Process, Process]]:
    """Two servers that share runs, accounts and the webhooks' key; started, and gone afterwards."""
    (tmp_path / ".gitconfig").write_text(GITCONFIG)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environ |= {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "GITTRACK_ACCOUNTS": accounts_url}
    run_git(tmp_path, "init", "--quiet", "--bare", "hub.git")
    options = [f"--backend-store-uri={postgres.uri}", f"--artifacts-destination={tmp_path / 'objects'}",
               f"--webhook-key={tmp_path / 'key'}"]  # fmt: skip
    folders = [tmp_path / "hub.git"] * 2
    if request.param == "one remote":
        folders = [tmp_path / "one.git", tmp_path / "two.git"]
        for folder in folders:
            run_git(tmp_path, "init", "--quiet", "--bare", str(folder))
            run_git(folder, "remote", "add", "hub", str(tmp_path / "hub.git"))
        options.append("--shared-remote=hub")
    servers = Process(folders[0], options, environ), Process(folders[1], options, environ)
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            if server.process is not None and server.process.poll() is None:
                server.process.kill()
                server.process.wait()


def ask(server: Process, path: str, **body: Any) -> Any:
    with server.connected() as connection:
        connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
    assert answer.status == 200, text
    return json.loads(text)


def a_run(made: Process, ended: Process) -> str:
    run_id = str(ask(made, "runs/create", experiment_id="0")["run"]["info"]["run_id"])
    ask(ended, "runs/update", run_id=run_id, status="FINISHED")
    return run_id


def test_each_delivery_is_made_once_also_when_a_server_dies(
    pair: tuple[Process, Process], accounts_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    one, two = pair
    accounts = Accounts(accounts_url)
    hook, _ = Webhooks(accounts, Keys(tmp_path / "key")).add(receiver.url, by="ana", private=True)
    for server in pair:  # both have seen it: what happens from now on is told
        noted = server.folder / ".gittrack" / "server" / "webhooks.seen.json"
        deadline = time.monotonic() + 30
        while not noted.exists() or hook.id not in noted.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    wanted = {a_run(made, ended) for made, ended in itertools.islice(itertools.cycle([(one, two), (two, one)]), RUNS)}
    receiver.wait(RUNS, 40)
    # One dies right after it answered, before anybody asks the other for anything: the other tells of it.
    wanted.add(a_run(one, one))
    one.kill()
    receiver.wait(RUNS + 1, 60)
    wanted.add(a_run(two, two))
    receiver.wait(RUNS + 2, 40)
    # One that tells nobody anything, as if it died each time before it could: the other looks at what it pushed.
    assert one.environ is not None
    one.environ = {name: value for name, value in one.environ.items() if name != "GITTRACK_ACCOUNTS"}
    one.start()
    wanted.add(a_run(one, one))
    receiver.wait(RUNS + 3, 40)
    time.sleep(1.5)
    told = [json.loads(body) for _, body in receiver.got]
    assert {found["run_id"] for found in told if found["event"] == RUN_FINISHED} == wanted
    assert max(Counter(found["id"] for found in told).values()) == 1
    counts = Webhooks(accounts, Keys(tmp_path / "key")).counts()
    assert counts == {hook.id: {DELIVERED: len(told)}}
    accounts.close()
