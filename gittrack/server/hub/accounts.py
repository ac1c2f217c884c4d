"""Users, tokens and web sessions: who is known to a server, and what he was given.

Kept in a database of their own: SQLite in the store (``.gittrack/server/accounts.db``, for its owner only), or any
other that SQLAlchemy knows, which several servers share.  Of tokens and sessions only hashes are kept, of passwords
argon2's.  Nothing is ever taken away without a trace: a token is revoked, a user is removed, the row stays, so that a
server that once asked for credentials does not stop to because the last ones are gone.

A user may be known to identity providers, too: by issuer and subject, which never change, and never by a name or an
e-mail address, which others can get.  An identity whose user was removed stays, and lets nobody in.

Every change raises a number, the generation, by which servers see that what they read is old.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from gittrack.errors import (
    AlreadyExistsError,
    CorruptError,
    InvalidValueError,
    MissingDependencyError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    StateError,
    StorageError,
    shown,
)
from gittrack.server.hub import credentials
from gittrack.server.hub.roles import Grant, Role
from gittrack.store import files

if TYPE_CHECKING:
    from argon2 import PasswordHasher
    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, Engine, Row

FOLDER: Final = "server"  #: below `.gittrack`
FILE: Final = "accounts.db"
SHORTEST_PASSWORD: Final = 10
LONGEST_PASSWORD: Final = 1024
_LONGEST_PATTERN: Final = 500
#: By whom a token was made that is a user's own: he, as he was added at that time.
_OWNER: Final = re.compile(r"user ([^ ]+) ([0-9]{1,19})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_MOST_LOGINS: Final = 10_000
_BUSY: Final = 10.0  #: seconds to wait for another process that writes
_VERSION: Final = 1

_metadata: Final = MetaData()
_state: Final = Table(
    "gittrack_accounts",
    _metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
)
_users: Final = Table(
    "gittrack_users",
    _metadata,
    Column("name", String(64), primary_key=True),
    Column("password", Text, nullable=False),
    Column("grants", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("removed", BigInteger),
)
_tokens: Final = Table(
    "gittrack_tokens",
    _metadata,
    Column("id", String(10), primary_key=True),
    Column("secret", LargeBinary(32), nullable=False),
    Column("name", String(64), nullable=False),
    Column("grants", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires", BigInteger),
    Column("last_used", BigInteger),
    Column("revoked", BigInteger),
)
_sessions: Final = Table(
    "gittrack_sessions",
    _metadata,
    Column("secret", LargeBinary(32), primary_key=True),
    Column("user", String(64), nullable=False, index=True),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
)
#: Whom identity providers know by which name here; without one: his account was removed.
_identities: Final = Table(
    "gittrack_identities",
    _metadata,
    Column("issuer", String(500), primary_key=True),
    Column("subject", String(255), primary_key=True),
    Column("user", String(64), index=True),
    Column("grants", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
)
#: Logins that are under way at an identity provider.
_logins: Final = Table(
    "gittrack_logins",
    _metadata,
    Column("state", LargeBinary(32), primary_key=True),
    Column("browser", LargeBinary(32), nullable=False),
    Column("next", Text, nullable=False),
    Column("expires", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is kept of a token.  Times are milliseconds since 1970.

    Attributes:
        id: Finds it.
        secret: The SHA-256 of its secret.
        name: For people.
        grants: What was given to it.
        created: When it was made.
        created_by: By whom.
        expires: When it ends; None: never.
        last_used: When it was used last, to the minute.
        revoked: When it was taken back.
    """

    id: str
    secret: bytes
    name: str
    grants: tuple[Grant, ...]
    created: int
    created_by: str
    expires: int | None = None
    last_used: int | None = None
    revoked: int | None = None

    @property
    def owner(self) -> tuple[str, int] | None:
        """Of a user's own token: his name, and when he was added; None of any other."""
        match = _OWNER.fullmatch(self.created_by)
        return None if match is None else (match[1], int(match[2]))

    @property
    def has_ended(self) -> bool:
        """Whether it was revoked or is too old."""
        return self.revoked is not None or (self.expires is not None and self.expires <= now())


class Identity(NamedTuple):
    """Somebody as an identity provider knows him.

    Attributes:
        issuer: The provider.
        subject: His id there.
        grants: What follows from what the provider said of him when he logged in last.
    """

    issuer: str
    subject: str
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class UserRecord:
    """What is kept of a user; see ``TokenRecord``.

    Attributes:
        name: His name.
        password: Argon2's hash of his password, with its parameters and its salt; empty: he has none.
        grants: What was given to him.
        created: When he was added.
        created_by: By whom.
        identities: How identity providers know him.
    """

    name: str
    password: str
    grants: tuple[Grant, ...]
    created: int
    created_by: str
    identities: tuple[Identity, ...] = ()

    @property
    def all_grants(self) -> tuple[Grant, ...]:
        """What was given to him here, and what follows from what identity providers say."""
        return (*self.grants, *(grant for one in self.identities for grant in one.grants))


class SessionRecord(NamedTuple):
    """Whose a session of the web page is, and when it ends."""

    user: str
    expires: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that callers are known by, at one time.

    Attributes:
        generation: Of that time.
        tokens: By id, with those that have ended.
        users: By name.
        ever: Whether there ever was a token or a user.
    """

    generation: int
    tokens: Mapping[str, TokenRecord]
    users: Mapping[str, UserRecord]
    ever: bool

    def grants_of(self, token: TokenRecord) -> tuple[Grant, ...] | None:
        """What a token may do now: a user's own never more than he; None if he has no account any more."""
        if token.owner is None:
            return token.grants
        name, created = token.owner
        user = self.users.get(name)
        if user is None or user.created != created:  # removed, and perhaps somebody else was added by his name
            return None
        roles = [grant.role for grant in token.grants if grant.role is not None]
        return tuple(grant.at_most(max(roles)) for grant in user.all_grants) if roles else ()


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Accounts:
    """The accounts of a server.

    Args:
        url: The database, as SQLAlchemy names it; tables are made when something is first written.
        file: Its file, if it is one of the store.
    """

    def __init__(self, url: str, file: Path | None = None) -> None:
        self._url = url
        self._file = file
        self._opening = threading.Lock()
        self._opened: Engine | None = None
        self._made: set[MetaData] = set()

    @classmethod
    def in_store(cls, root: Path) -> Accounts:
        """Those that are kept in the store ``root`` (a folder `.gittrack`)."""
        file = root / FOLDER / FILE
        return cls(f"sqlite:///{file}", file)

    def close(self) -> None:
        """Close the connections to the database."""
        with self._opening:
            if self._opened is not None:
                self._opened.dispose()
                self._opened = None

    # --- tokens

    def create_token(
        self, name: str, grants: Iterable[Grant], *, by: str, expires: int | None = None
    ) -> tuple[TokenRecord, credentials.Token]:
        """Make a token; nobody can show it again.

        Args:
            name: For people; no other token that still works has it.
            grants: What it may do.
            by: Who makes it.
            expires: When it ends, in milliseconds since 1970.

        Raises:
            AlreadyExistsError: Another token has the name.
            InvalidValueError: The name, a pattern or the time cannot be.
            OverloadedError: The database does not answer.
        """
        if expires is not None and expires <= now():
            raise InvalidValueError("the token would have ended already", hint="name a time that is to come")
        token = credentials.new_token()
        record = TokenRecord(
            token.id, credentials.hashed(token.secret), _named(name), tuple(grants), now(), by, expires=expires
        )
        with self._writing() as db:
            for row in db.execute(select(_tokens).where(_tokens.c.name == name, _tokens.c.revoked.is_(None))):
                if row.expires is None or row.expires > now():
                    raise AlreadyExistsError(
                        f"there is a token `{name}` already", hint=f"`gittrack server token revoke {name}` ends it"
                    )
            db.execute(
                insert(_tokens).values(
                    id=record.id,
                    secret=record.secret,
                    name=name,
                    grants=_written(record.grants),
                    created=record.created,
                    created_by=by,
                    expires=expires,
                )
            )
        return record, token

    def create_own_token(
        self, user: str, name: str, role: Role, *, expires: int | None = None
    ) -> tuple[TokenRecord, credentials.Token]:
        """Make a token with which a user's programs may do what he may at the time, and no more than ``role``.

        It is called ``<user>+<name>``, and ends with his account.  Raises NotFoundError and as ``create_token``.
        """
        record = next((one for one in self.users() if one.name == user), None)
        if record is None:
            raise NotFoundError(f"there is no user `{shown(user)}`")
        by = f"user {record.name} {record.created}"
        return self.create_token(f"{user}+{name}", (Grant(role, "*", "*"),), by=by, expires=expires)

    def tokens(self) -> list[TokenRecord]:
        """Every token there ever was, the oldest first.  Raises OverloadedError."""
        return [_token(row) for row in self._rows(select(_tokens).order_by(_tokens.c.created, _tokens.c.id))]

    def revoke_token(self, which: str) -> TokenRecord:
        """End a token, by its id or its name.

        Raises:
            NotFoundError: No token that is not revoked is called that.
            OverloadedError: The database does not answer.
        """
        which = which.removeprefix("gtk_").partition("_")[0] if which.startswith("gtk_") else which
        with self._writing() as db:
            rows = db.execute(select(_tokens).where(_tokens.c.revoked.is_(None))).all()
            found = [row for row in rows if row.id == which] or [row for row in rows if row.name == which]
            if not found:
                raise NotFoundError(f"there is no token `{shown(which)}`", hint="`gittrack server token` lists them")
            newest = max(found, key=lambda row: row.created)  # others of the name have ended
            db.execute(update(_tokens).where(_tokens.c.id == newest.id).values(revoked=now()))
        return _token(newest)

    def note_used(self, used: Mapping[str, int]) -> None:
        """Write when tokens were used last, by id; no change that servers must see.  Raises OverloadedError."""
        with self._writing(changes=False) as db:
            for token, when in used.items():
                db.execute(update(_tokens).where(_tokens.c.id == token).values(last_used=when))

    # --- users

    def add_user(
        self, name: str, password: str | None, grants: Iterable[Grant], *, by: str, identity: Identity | None = None
    ) -> UserRecord:
        """Add a user, or one who was removed.

        Args:
            name: His name.
            password: His password; None: he has none.
            grants: What he may do.
            by: Who adds him.
            identity: How an identity provider knows him.

        Raises:
            AlreadyExistsError: He is there, or the identity is that of another user.
            InvalidValueError: The name, the password or a pattern cannot be.
            OverloadedError: The database does not answer.
        """
        kept = "" if password is None else hash_password(password)
        known = () if identity is None else (identity,)
        record = UserRecord(_named(name), kept, tuple(grants), now(), by, known)
        values = {
            "password": record.password,
            "grants": _written(record.grants),
            "created": record.created,
            "created_by": by,
            "removed": None,
        }
        with self._writing() as db:
            row = db.execute(select(_users).where(_users.c.name == name)).one_or_none()
            if row is None:
                db.execute(insert(_users).values(name=name, **values))
            elif row.removed is None:
                raise AlreadyExistsError(
                    f"there is a user `{name}` already", hint=f"`gittrack server user passwd {name}` sets a password"
                )
            else:
                db.execute(update(_users).where(_users.c.name == name).values(**values))
            if identity is not None:
                _link(db, name, identity, by)
        return record

    def users(self) -> list[UserRecord]:
        """The users, by name.  Raises OverloadedError."""
        if not self.is_there:
            return []
        with _reporting(), self._engine().connect() as db:
            return _users_of(db, db.execute(select(_users).order_by("name")))

    def set_password(self, name: str, password: str) -> None:
        """Give a user another password, and end his sessions.

        Raises:
            NotFoundError: There is no such user.
            InvalidValueError: It is too short or too long.
            OverloadedError: The database does not answer.
        """
        kept = hash_password(password)
        with self._writing() as db:
            _change_user(db, name, password=kept)

    def set_grants(self, name: str, change: Callable[[tuple[Grant, ...]], Iterable[Grant]]) -> UserRecord:
        """Give a user other grants: what ``change`` makes of those that he has.

        Raises:
            NotFoundError: There is no such user.
            InvalidValueError: A pattern cannot be.
            OverloadedError: The database does not answer.
        """
        with self._writing() as db:
            before = _user(_the_user(db, name))
            after = tuple(change(before.grants))
            db.execute(update(_users).where(_users.c.name == name).values(grants=_written(after)))
        return UserRecord(before.name, before.password, after, before.created, before.created_by)

    def remove_user(self, name: str) -> None:
        """End a user's account and his sessions, and keep out whoever comes from an identity provider as him.

        Raises:
            NotFoundError: There is no such user.
            OverloadedError: The database does not answer.
        """
        with self._writing() as db:
            _change_user(db, name, removed=now(), password="", grants=_written(()))
            db.execute(update(_identities).where(_identities.c.user == name).values(user=None, grants=_written(())))

    # --- identity providers

    def link(self, name: str, identity: Identity, *, by: str) -> None:
        """Let in as a user whom an identity provider knows so.

        Raises:
            NotFoundError: There is no such user.
            AlreadyExistsError: That is another user.
            OverloadedError: The database does not answer.
        """
        with self._writing() as db:
            _the_user(db, name)
            _link(db, name, identity, by)

    def admit(self, identity: Identity, name: str | None) -> tuple[UserRecord, bool]:
        """The user who comes from an identity provider, and whether he is new.

        Args:
            identity: How he is known there, and what follows from that: it replaces what followed before.
            name: What he is called here if he is new; None: only who is known is let in.

        Raises:
            PermissionDeniedError: Nobody said that he may come in, or he may not any more.
            OverloadedError: The database does not answer.
        """
        with self._writing() as db:
            row = db.execute(select(_identities).where(*_is(identity))).one_or_none()
            if row is not None and row.user is None:
                raise PermissionDeniedError("the account was removed")
            if row is None:
                if name is None or not identity.grants:
                    raise PermissionDeniedError("there is no account for this identity")
                name = _free_name(db, name, identity)
                values = {"password": "", "grants": _written(()), "created": now(), "created_by": identity.issuer}
                db.execute(insert(_users).values(name=name, **values))
                _link(db, name, identity, identity.issuer)
            else:
                name = str(row.user)
                db.execute(update(_identities).where(*_is(identity)).values(grants=_written(identity.grants)))
            found = _users_of(db, db.execute(select(_users).where(_users.c.name == name)))[0]
        if not any(grant.role is not None for grant in found.all_grants):  # what he had before is gone all the same
            raise PermissionDeniedError("nothing is granted to this identity any more")
        return found, row is None

    def begin_login(self, state: str, browser: str, next_page: str, seconds: int) -> None:
        """Keep that a browser was sent to an identity provider.

        Args:
            state: Names the login; only its hash is kept, as of ``browser``.
            browser: The secret that only this browser has.
            next_page: Where it goes when it has logged in.
            seconds: So long the login may take.

        Raises:
            OverloadedError: Very many are under way, or the database does not answer.
        """
        with self._writing(changes=False) as db:
            db.execute(delete(_logins).where(_logins.c.expires <= now()))
            if db.execute(select(func.count()).select_from(_logins)).scalar_one() >= _MOST_LOGINS:
                raise OverloadedError("too many logins are under way", hint="try again in some minutes")
            db.execute(
                insert(_logins).values(
                    state=credentials.hashed(state),
                    browser=credentials.hashed(browser),
                    next=next_page,
                    expires=now() + seconds * 1000,
                )
            )

    def end_login(self, state: str, browser: str) -> str | None:
        """Where a browser that came back goes; None if it was never sent, was here before, or took too long.

        Whoever comes with a state, it is good once.  Raises OverloadedError.
        """
        with self._writing(changes=False) as db:
            which = _logins.c.state == credentials.hashed(state)
            row = db.execute(select(_logins).where(which)).one_or_none()
            db.execute(delete(_logins).where(which))
        if row is None or row.expires <= now():
            return None
        return str(row.next) if hmac.compare_digest(bytes(row.browser), credentials.hashed(browser)) else None

    # --- sessions

    def open_session(self, user: str, seconds: int) -> str:
        """Begin a session of a user; its secret.  Those that have ended are removed.  Raises OverloadedError."""
        secret = secrets.token_urlsafe(32)
        with self._writing(changes=False) as db:
            db.execute(delete(_sessions).where(_sessions.c.expires <= now()))
            db.execute(
                insert(_sessions).values(
                    secret=credentials.hashed(secret), user=user, created=now(), expires=now() + seconds * 1000
                )
            )
        return secret

    def session(self, secret: str) -> SessionRecord | None:
        """Whose a session is; None if there is none, or it has ended.  Raises OverloadedError."""
        query = select(_sessions).where(_sessions.c.secret == credentials.hashed(secret))
        return next((SessionRecord(row.user, row.expires) for row in self._rows(query) if row.expires > now()), None)

    def close_session(self, secret: str) -> None:
        """End a session, on every server.  Raises OverloadedError."""
        with self._writing() as db:
            db.execute(delete(_sessions).where(_sessions.c.secret == credentials.hashed(secret)))

    # --- all of it

    def generation(self) -> int:
        """The number that every change raises.  Raises OverloadedError."""
        return next((int(row.generation) for row in self._rows(select(_state))), 0)

    def snapshot(self) -> Snapshot:
        """Everything that callers are known by.  Raises OverloadedError."""
        if not self.is_there:
            return Snapshot(0, {}, {}, ever=False)
        with _reporting(), self._engine().connect() as db:
            generation = db.execute(select(_state.c.generation)).scalar_one()
            tokens = {row.id: _token(row) for row in db.execute(select(_tokens))}
            rows = db.execute(select(_users)).all()
            users = {one.name: one for one in _users_of(db, rows)}
        return Snapshot(generation, tokens, users, ever=bool(tokens or rows))

    # --- the database

    def _rows(self, query: Any) -> list[Row[Any]]:
        if not self.is_there:
            return []
        with _reporting(), self._engine().connect() as db:
            return list(db.execute(query))

    @contextlib.contextmanager
    def _writing(self, *, changes: bool = True) -> Iterator[Connection]:
        """One transaction; the generation is written first, so that of two writers one waits for the other."""
        with _reporting(), self._engine().begin() as db:
            db.execute(update(_state).values(generation=_state.c.generation + (1 if changes else 0)))
            yield db

    @contextlib.contextmanager
    def beside(self, tables: MetaData) -> Iterator[Connection]:
        """One transaction on tables that are kept beside the accounts; they are made when they are missing."""
        engine = self._engine()
        with _reporting():
            if tables not in self._made:
                with contextlib.suppress(OperationalError, ProgrammingError, IntegrityError):  # another process does
                    tables.create_all(engine)
                tables.create_all(engine)
                self._made.add(tables)
            with engine.begin() as db:
                yield db

    @property
    def is_there(self) -> bool:
        """False if nothing was ever written: what only reads makes no file."""
        return self._opened is not None or self._file is None or self._file.exists()

    def _engine(self) -> Engine:
        """The database, opened."""
        with self._opening:
            if self._opened is None:
                if self._file is not None:
                    _make_private(self._file)
                with _reporting():
                    self._opened = _open(self._url)
            return self._opened


def _make_private(file: Path) -> None:
    """Make an empty file that nobody else can read, whatever the umask; SQLite gives its journal the same mode."""
    files.make_dirs(file.parent)
    if os.name == "posix":
        file.parent.chmod(0o700)
    try:
        os.close(files.create_append(file, 0o600))
    except StorageError as error:
        if error.errno != errno.EEXIST:
            raise
    files.sync_dir(file.parent)


def _open(url: str) -> Engine:
    arguments = {"timeout": _BUSY} if url.startswith("sqlite:") else {}
    try:
        engine = create_engine(url, connect_args=arguments, pool_pre_ping=not arguments)
    except (ArgumentError, NoSuchModuleError):  # whose text may have a password in it
        raise InvalidValueError(
            "the accounts' address is no address of a database", hint="such as postgresql+psycopg://HOST/DATABASE"
        ) from None
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the accounts' database needs `{error.name}`", hint=f"pip install {error.name}"
        ) from error
    if arguments:
        event.listen(engine, "connect", _durable)
    try:
        _create(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _durable(connection: Any, _record: Any) -> None:
    """A setting of SQLite that survives a power cut for each answer."""
    connection.execute("PRAGMA synchronous = EXTRA")


def _create(engine: Engine) -> None:
    """Make the tables; if others do so at the same time, theirs are ours."""
    for _ in range(2 * len(_metadata.tables)):  # each of them may be made by somebody else just now
        with contextlib.suppress(OperationalError, ProgrammingError, IntegrityError):
            _metadata.create_all(engine)
            break
    else:
        _metadata.create_all(engine)
    with contextlib.suppress(IntegrityError), engine.begin() as db:
        if db.execute(select(_state)).one_or_none() is None:
            db.execute(insert(_state).values(version=_VERSION, generation=1))
    with engine.connect() as db:
        version = db.execute(select(_state.c.version)).scalar_one()
    if version != _VERSION:
        raise StateError(
            f"the accounts are kept in form {version}, which this version of gittrack does not know",
            hint="install a newer gittrack",
        )


@contextlib.contextmanager
def _reporting() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        said = " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())
        raise OverloadedError(
            f"the database of the accounts does not answer: {said}", hint="see that it runs and can be written"
        ) from error


# --- names, passwords, grants


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidValueError(
            f"`{shown(name)}` cannot be the name of an account",
            hint="1 to 64 letters, digits and any of . _ @ + -, the first a letter or a digit",
        )
    return name


def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher()  # RFC 9106's second choice: 64 MiB, 3 rounds


def hash_password(password: str) -> str:
    """What is kept of a password.  Raises InvalidValueError if it is too short or too long."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InvalidValueError(
            f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters", hint="take some words"
        )
    return _hasher().hash(password)


def is_password(stored: str, password: str) -> bool:
    """True if ``stored`` is what is kept of the password.  Takes some 50 ms and 64 MiB."""
    from argon2.exceptions import InvalidHashError, VerificationError

    if len(password) > LONGEST_PASSWORD:
        return False
    try:
        return _hasher().verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


def _the_user(db: Connection, name: str) -> Row[Any]:
    row = db.execute(select(_users).where(_users.c.name == name, _users.c.removed.is_(None))).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no user `{shown(name)}`", hint="`gittrack server user` lists them")
    return row


def _change_user(db: Connection, name: str, **values: Any) -> None:
    """Change a user, and end his sessions."""
    _the_user(db, name)
    db.execute(update(_users).where(_users.c.name == name).values(**values))
    db.execute(delete(_sessions).where(_sessions.c.user == name))


def _users_of(db: Connection, rows: Iterable[Row[Any]]) -> list[UserRecord]:
    """Those of some users who were not removed, with their identities."""
    known: dict[str, list[Identity]] = {}
    for row in db.execute(select(_identities).where(_identities.c.user.is_not(None))):
        known.setdefault(row.user, []).append(Identity(row.issuer, row.subject, _read(row.grants)))
    return [
        replace(_user(row), identities=tuple(sorted(known.get(row.name, ())))) for row in rows if row.removed is None
    ]


def _is(identity: Identity) -> tuple[ColumnElement[bool], ...]:
    return _identities.c.issuer == identity.issuer, _identities.c.subject == identity.subject


def _link(db: Connection, name: str, identity: Identity, by: str) -> None:
    values = {"user": name, "grants": _written(identity.grants), "created": now(), "created_by": by}
    row = db.execute(select(_identities).where(*_is(identity))).one_or_none()
    if row is None:
        db.execute(insert(_identities).values(issuer=identity.issuer, subject=identity.subject, **values))
    elif row.user in (None, name):
        db.execute(update(_identities).where(*_is(identity)).values(**values))
    else:
        raise AlreadyExistsError(f"that identity is the user `{row.user}`", hint="`gittrack server user` lists them")


def _free_name(db: Connection, wanted: str, identity: Identity) -> str:
    """A name that nobody has or had, near the one that is wanted."""
    plain = re.sub(r"[^A-Za-z0-9._@+-]", "-", wanted).lstrip("._@+-")[:64] or "user"
    mark = hashlib.sha256(f"{identity.issuer}\0{identity.subject}".encode()).hexdigest()
    for name in (plain, f"{plain[:57]}-{mark[:6]}", f"user-{mark[:32]}"):
        if db.execute(select(_users).where(_users.c.name == name)).one_or_none() is None:
            return name
    raise AlreadyExistsError("every name for this identity is taken")


def _written(grants: Iterable[Grant]) -> str:
    found = []
    for grant in grants:
        for pattern in (grant.experiments, grant.models):
            if pattern is not None and not 0 < len(pattern) <= _LONGEST_PATTERN:
                raise InvalidValueError(f"a pattern has 1 to {_LONGEST_PATTERN} characters", hint="`*` is everything")
        found.append([None if grant.role is None else grant.role.name.lower(), grant.experiments, grant.models])
    return json.dumps(found)


def _read(text: str) -> tuple[Grant, ...]:
    """Grants as ``_written`` writes them.  What cannot be read must not become a wider grant."""
    try:
        return tuple(
            Grant(None if role is None else Role[role.upper()], experiments, models)
            for role, experiments, models in json.loads(text)
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptError("the grants of an account cannot be read", hint="restore the accounts' database") from error


def _token(row: Row[Any]) -> TokenRecord:
    return TokenRecord(
        row.id,
        bytes(row.secret),
        row.name,
        _read(row.grants),
        row.created,
        row.created_by,
        row.expires,
        row.last_used,
        row.revoked,
    )


def _user(row: Row[Any]) -> UserRecord:
    return UserRecord(row.name, row.password, _read(row.grants), row.created, row.created_by)
