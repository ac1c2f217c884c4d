"""Users, tokens and sessions as they are kept, and what their grants allow."""

import os
import re
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from gittrack.errors import (
    AlreadyExistsError,
    CorruptError,
    InvalidValueError,
    NotFoundError,
    OverloadedError,
    StateError,
    UnauthenticatedError,
)
from gittrack.server.hub import accounts as module, credentials
from gittrack.server.hub.accounts import Accounts, hash_password, is_password, now
from gittrack.server.hub.credentials import Password, Token, new_token, of_header, parse_token
from gittrack.server.hub.roles import LOCAL, Caller, Grant, Role
from tests.databases import Server
from tests.server.guarded import EVERYTHING, PASSWORD, basic

pytestmark = pytest.mark.any_backend  # it starts no server
patterns = st.sampled_from(["*", "a*", "ab", "b?", "[ab]*", "zzz"])
grant = st.builds(Grant, st.sampled_from([*Role, None]), st.none() | patterns, st.none() | patterns)
grants = st.lists(grant, max_size=5).map(tuple)
names = st.sampled_from(["a", "ab", "abc", "b1", "zzz", "x", "A"])
about: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}), names.map(lambda one: {"experiment": one}), names.map(lambda one: {"model": one})
)


@pytest.fixture
def kept(tmp_path: Path) -> Accounts:
    return Accounts.in_store(tmp_path)


# --- grants


@given(grants, about, st.sampled_from(Role))
def test_a_role_may_all_that_a_smaller_one_may(given_: tuple[Grant, ...], what: dict[str, str], role: Role) -> None:
    caller = Caller("x", given_)
    if caller.may(role, **what):
        assert all(caller.may(smaller, **what) for smaller in Role if smaller <= role)


@given(grants, about, st.sampled_from(Role), st.randoms())
def test_the_order_of_grants_says_nothing(
    given_: tuple[Grant, ...], what: dict[str, str], role: Role, r: object
) -> None:
    assert Caller("x", given_).may(role, **what) == Caller("x", given_[::-1]).may(role, **what)


@given(grants, names, st.sampled_from(Role), st.sampled_from(["experiment", "model"]))
def test_a_denial_wins(given_: tuple[Grant, ...], name: str, role: Role, kind: str) -> None:
    denied = Grant(None, **{f"{kind}s": name})
    for all_of_them in ((denied, *given_), (*given_, denied)):
        assert not Caller("x", all_of_them).may(role, **{kind: name})
        assert not Caller("x", all_of_them).may(role)  # nor everything there is and will be


@given(grants, grant, about, st.sampled_from(Role))
def test_a_grant_more_takes_nothing_away(
    given_: tuple[Grant, ...], more: Grant, what: dict[str, str], role: Role
) -> None:
    if more.role is not None and Caller("x", given_).may(role, **what):
        assert Caller("x", (*given_, more)).may(role, **what)


@given(grants, about, st.sampled_from(Role))
def test_nothing_is_allowed_that_no_grant_allows(given_: tuple[Grant, ...], what: dict[str, str], role: Role) -> None:
    if Caller("x", given_).may(role, **what):
        assert any(one.role is not None and one.role >= role for one in given_)
    assert not Caller("x").may(role, **what)


@given(grants, names, st.sampled_from(Role))
def test_who_may_everything_may_each(given_: tuple[Grant, ...], name: str, role: Role) -> None:
    caller = Caller("x", given_)
    if caller.may(role):
        assert caller.may(role, experiment=name)
        assert caller.may(role, model=name)


def test_experiments_are_no_models() -> None:
    caller = Caller("x", (Grant(Role.WRITER, experiments="*"),))
    assert caller.may(Role.WRITER, experiment="a")
    assert not caller.may(Role.READER, model="a")
    assert not caller.may(Role.READER)
    assert LOCAL.may(Role.ADMIN)


# --- tokens


def test_a_token_is_kept_as_a_hash(kept: Accounts, tmp_path: Path) -> None:
    record, token = kept.create_token("ci", EVERYTHING, by="ana")
    assert re.fullmatch(r"gtk_[0-9a-z]{10}_[0-9A-Za-z]{43}", str(token))
    assert parse_token(str(token)) == token
    assert record.secret == credentials.hashed(token.secret)
    found = kept.tokens()
    assert found == [record]
    assert (found[0].created_by, found[0].last_used, found[0].expires) == ("ana", None, None)
    kept.close()
    for file in (tmp_path / "server").iterdir():
        assert token.secret.encode() not in file.read_bytes()


def test_tokens_differ() -> None:
    made = [new_token() for _ in range(200)]
    assert len({one.id for one in made}) == len({one.secret for one in made}) == 200


def test_names_of_tokens(kept: Accounts) -> None:
    kept.create_token("ci", EVERYTHING, by="ana")
    with pytest.raises(AlreadyExistsError, match="`ci`"):
        kept.create_token("ci", EVERYTHING, by="ana")
    kept.revoke_token("ci")
    second, token = kept.create_token("ci", EVERYTHING, by="ana")
    assert kept.revoke_token(str(token)).id == second.id
    for name in ("", "a b", "a:b", "x" * 65, "\n", "-a", "ü"):
        with pytest.raises(InvalidValueError):
            kept.create_token(name, EVERYTHING, by="ana")
    with pytest.raises(NotFoundError):
        kept.revoke_token("ci")
    with pytest.raises(InvalidValueError, match="ended"):
        kept.create_token("old", EVERYTHING, by="ana", expires=now() - 1)
    for grants_ in ((Grant(Role.READER, ""),), (Grant(Role.READER, None, "x" * 501),)):
        with pytest.raises(InvalidValueError, match="pattern"):
            kept.create_token("x", grants_, by="ana")
    assert [one.revoked is None for one in kept.tokens()] == [False, False]


@pytest.mark.usefixtures("quick_argon2")
def test_every_change_raises_the_generation(kept: Accounts) -> None:
    seen = [kept.generation()]

    def changed() -> None:
        seen.append(kept.generation())
        assert seen[-1] > seen[-2]

    _, token = kept.create_token("ci", EVERYTHING, by="ana")
    changed()
    kept.add_user("ana", PASSWORD, EVERYTHING, by="root")
    changed()
    kept.set_grants("ana", lambda before: ())
    changed()
    kept.set_password("ana", PASSWORD + "!")
    changed()
    secret = kept.open_session("ana", 60)
    kept.note_used({token.id: now()})
    assert kept.generation() == seen[-1]
    kept.close_session(secret)
    changed()
    kept.revoke_token("ci")
    changed()
    kept.remove_user("ana")
    changed()
    assert kept.snapshot().generation == seen[-1]


# --- users


def test_users(kept: Accounts) -> None:
    kept.add_user("ana", PASSWORD, EVERYTHING, by="root")
    assert [one.name for one in kept.users()] == ["ana"]
    stored = kept.users()[0].password
    assert stored.startswith("$argon2id$")
    assert is_password(stored, PASSWORD)
    assert not is_password(stored, PASSWORD + "x")
    with pytest.raises(AlreadyExistsError):
        kept.add_user("ana", PASSWORD, EVERYTHING, by="root")
    session = kept.open_session("ana", 60)
    assert kept.session(session) is not None
    kept.set_password("ana", "another password")
    assert kept.session(session) is None
    kept.remove_user("ana")
    assert kept.users() == []
    assert kept.snapshot().ever  # a server that once asked for credentials goes on to
    with pytest.raises(NotFoundError):
        kept.set_password("ana", PASSWORD)
    kept.add_user("ana", PASSWORD, (), by="root")
    assert kept.users()[0].grants == ()


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_passwords_have_a_length(password: str) -> None:
    with pytest.raises(InvalidValueError, match="10 to 1024"):
        hash_password(password)


def test_what_is_no_hash_is_no_password() -> None:
    assert not is_password("", "")
    assert not is_password("plain", "plain")


# --- sessions


@pytest.mark.usefixtures("quick_argon2")
def test_sessions_end(kept: Accounts) -> None:
    kept.add_user("ana", PASSWORD, EVERYTHING, by="root")
    secret = kept.open_session("ana", 60)
    found = kept.session(secret)
    assert found is not None
    assert found.user == "ana"
    assert kept.session(kept.open_session("ana", -1)) is None
    kept.close_session(secret)
    assert kept.session(secret) is None


# --- the file


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_nobody_else_can_read_the_files(tmp_path: Path, umask: int) -> None:
    script = (
        "import os, sys; from pathlib import Path; os.umask(int(sys.argv[2]))\n"
        "from gittrack.server.hub.accounts import Accounts; from gittrack.server.hub.audit import Audit, Event\n"
        "root = Path(sys.argv[1]); kept = Accounts.in_store(root); kept.create_token('x', (), by='me')\n"
        "log = Audit(root / 'server', full=10); [log.record(Event('a', 'b', 'c')) for _ in range(3)]\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path), str(umask)], check=True, env={**os.environ})
    folder = tmp_path / "server"
    assert folder.stat().st_mode & 0o777 == 0o700
    secret = [one for one in folder.iterdir() if one.suffix != ".lock"]
    assert len(secret) >= 4
    assert {one.name: oct(one.stat().st_mode & 0o777) for one in secret} == {one.name: "0o600" for one in secret}


def test_reading_makes_no_file(kept: Accounts, tmp_path: Path) -> None:
    assert kept.tokens() == []
    assert kept.users() == []
    assert kept.generation() == 0
    assert not kept.snapshot().ever
    assert list(tmp_path.iterdir()) == []


def test_many_make_accounts_at_once(tmp_path: Path) -> None:
    failed: list[Exception] = []

    def make(number: int) -> None:
        try:
            mine = Accounts.in_store(tmp_path)
            mine.create_token(f"t{number}", EVERYTHING, by="x")
            mine.close()
        except Exception as error:  # noqa: BLE001 - of a thread
            failed.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failed == []
    assert len(Accounts.in_store(tmp_path).tokens()) == 8


def test_a_database_that_does_not_answer(kept: Accounts, tmp_path: Path) -> None:
    kept.create_token("x", EVERYTHING, by="me")
    kept.close()
    (tmp_path / "server" / "accounts.db").write_bytes(b"no database" * 1000)
    with pytest.raises(OverloadedError, match="does not answer"):
        kept.tokens()


def test_what_cannot_be_read_grants_nothing(kept: Accounts, tmp_path: Path) -> None:
    kept.create_token("x", EVERYTHING, by="me")
    with sqlite3.connect(tmp_path / "server" / "accounts.db") as db:
        for text in ("[", '[["boss", "*", "*"]]', '[["admin"]]', "7", '[[7, "*", "*"]]'):
            db.execute("UPDATE gittrack_tokens SET grants = ?", (text,))
            db.commit()
            with pytest.raises(CorruptError):
                kept.snapshot()
        db.execute("UPDATE gittrack_tokens SET grants = '[]'")
        db.execute("UPDATE gittrack_accounts SET version = 99")
    db.close()
    kept.close()
    with pytest.raises(StateError, match="form 99"):
        kept.tokens()


@pytest.mark.usefixtures("quick_argon2")
def test_servers_share_accounts_in_postgresql(postgres: Server) -> None:
    url = postgres.uri.replace("postgresql://", "postgresql+psycopg://")
    one, other = Accounts(url), Accounts(url)
    assert not one.snapshot().ever
    _, token = one.create_token("ci", EVERYTHING, by="ana")
    one.add_user("ana", PASSWORD, EVERYTHING, by="root")
    session = other.open_session("ana", 60)
    before = other.snapshot()
    assert set(before.tokens) == {token.id}
    assert before.tokens[token.id].secret == credentials.hashed(token.secret)
    assert one.session(session) is not None
    other.revoke_token("ci")
    assert one.generation() > before.generation
    other.remove_user("ana")
    assert one.session(session) is None
    postgres.stop("immediate")
    try:
        with pytest.raises(OverloadedError, match="does not answer"):
            one.snapshot()
    finally:
        postgres.start()
    assert one.snapshot().ever
    one.close()
    other.close()


# --- what clients show


def test_what_a_header_says() -> None:
    token = new_token()
    text = str(token)
    assert of_header(f"Bearer {text}".encode()) == token
    assert of_header(f"bearer  {text}".encode()) == token
    for user, password in (("anybody", text), (text, "x-oauth-basic"), ("", text)):
        assert of_header(basic(user, password)["authorization"].encode()) == token
    assert of_header(basic("ana", "a:b")["authorization"].encode()) == Password("ana", "a:b")


@pytest.mark.parametrize(
    "value",
    [
        b"", b"Bearer", b"Bearer x", b"Basic", b"Basic !!!", b"Basic YQ==", b"Digest x", b"Negotiate " + b"x" * 5000,
        b"Basic " + b"A" * 5000, basic("ana", "")["authorization"].encode(), b"Basic /////w==", b"\xff\xfe",
    ],
)  # fmt: skip
def test_what_no_header_says(value: bytes) -> None:
    with pytest.raises(UnauthenticatedError):
        of_header(value)


def test_a_token_as_a_name_needs_a_password() -> None:
    with pytest.raises(UnauthenticatedError, match="empty"):
        of_header(basic(str(new_token()), "")["authorization"].encode())


@settings(max_examples=30)
@given(st.text(max_size=80) | st.from_regex(r"gtk_[0-9a-z]{8,12}_[0-9A-Za-z]{40,45}", fullmatch=True))
def test_only_whole_tokens_are_read(text: str) -> None:
    found = parse_token(text)
    assert found is None or (str(found) == text and len(found.secret) == 43 and isinstance(found, Token))


def test_no_credentials_are_in_the_package() -> None:
    root = Path(module.__file__).parents[2]
    for path in root.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert not credentials.LIKE_TOKEN.search(path.read_bytes()), path
            assert b"$argon2" not in path.read_bytes(), path
