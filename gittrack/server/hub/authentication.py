"""Who asks: credentials -> ``Caller``, from memory.

What accounts there are is read once and looked at again once a second, in a thread; so a token that is revoked, on
whatever server or by the command line, ends within a second, and a request costs one hash.  If the database does not
answer, nobody is let in.  A password that was right is remembered for some minutes under a keyed hash, since argon2 is
slow on purpose.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

import anyio.to_thread
from anyio import CapacityLimiter

from gittrack.errors import OverloadedError, UnauthenticatedError
from gittrack.server.hub import accounts as stored, credentials
from gittrack.server.hub.accounts import Accounts, SessionRecord, Snapshot
from gittrack.server.hub.credentials import Password, Token
from gittrack.server.hub.roles import LOCAL, Caller

FRESH: Final = 1.0  #: seconds that what was read of the accounts is good for
REMEMBERED: Final = 300.0  #: seconds that a password needs no argon2 again
_MOST: Final = 4096  #: passwords and sessions that are remembered
_NOTED: Final = 60.0  #: seconds between writes of when tokens were used
_HASHES: Final = 2  #: argon2 at a time: each takes 64 MiB

#: Before the id of a token whose session it is, in the place of a user's name, which has no space.
_BY_ID: Final = "of token "
_WRONG: Final = "the credentials are wrong"
#: Compared with where there is no such token: to find that out takes as long as to find a wrong secret.
_NOBODY: Final = bytes(32)

_log = logging.getLogger("gittrack.server")


class Authenticator:
    """Knows callers by their credentials.

    Args:
        accounts: Where they are kept.
        start: Make a token that is good for as long as this lives, for whoever started the server.
        clock: Seconds that only grow.

    Attributes:
        accounts: As given.
        start_token: That token.
        hashing: To be held by those who ask for a password to be verified.
    """

    def __init__(self, accounts: Accounts, *, start: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self.accounts = accounts
        self.start_token = credentials.new_token() if start else None
        self._start_secret = None if self.start_token is None else credentials.hashed(self.start_token.secret)
        self._clock = clock
        self._snapshot = Snapshot(-1, {}, {}, ever=True)  # nobody, until it was read
        self._callers: dict[str, Caller] = {}
        self._fresh_until = float("-inf")
        self._refreshing = asyncio.Lock()
        self.hashing = CapacityLimiter(_HASHES)
        self._key = secrets.token_bytes(32)
        self._passwords: OrderedDict[bytes, float] = OrderedDict()
        self._sessions: OrderedDict[bytes, SessionRecord | None] = OrderedDict()
        self._local_sessions: OrderedDict[bytes, float] = OrderedDict()
        self._used: dict[str, int] = {}
        self._noted = clock()
        self._unknown = ""

    @property
    def has_accounts(self) -> bool:
        """Whether there ever was a token or a user."""
        return self._snapshot.ever

    # --- what is known

    @property
    def is_fresh(self) -> bool:
        """Whether what was read is good enough to answer from."""
        return self._clock() < self._fresh_until

    async def refresh(self, *, at_once: bool = False) -> None:
        """Read the accounts anew if they changed.

        Args:
            at_once: Also if they were read less than a second ago.

        Raises:
            OverloadedError: They cannot be read.
        """
        async with self._refreshing:
            if self.is_fresh and not at_once:
                return
            asked = self._clock()
            found = await anyio.to_thread.run_sync(self._read)
            if found is not None:
                self._snapshot = found
                grants = {one.id: found.grants_of(one) for one in found.tokens.values()}
                self._callers = {
                    one.id: Caller(one.name, given, "token")
                    for one in found.tokens.values()
                    if (given := grants[one.id]) is not None
                }
                self._sessions.clear()
            self._fresh_until = asked + FRESH

    def _read(self) -> Snapshot | None:
        """In a thread: the accounts, or None if they are as before."""
        if not self._unknown:
            self._unknown = stored.hash_password(secrets.token_urlsafe(32))
        if self._used and self._clock() - self._noted > _NOTED:
            self._note_used()
        if self.accounts.generation() == self._snapshot.generation:
            return None
        return self.accounts.snapshot()

    def _note_used(self) -> None:
        """Write when tokens were used last.  Nobody is kept out because that cannot be written."""
        used, self._used = self._used, {}
        self._noted = self._clock()
        try:
            if used:
                self.accounts.note_used(used)
        except OverloadedError as error:
            _log.warning("when tokens were used could not be written: %s", error)

    def close(self) -> None:
        """Write what is still to be written, and close the accounts."""
        self._note_used()
        self.accounts.close()

    # --- tokens

    def by_token(self, token: Token) -> Caller:
        """Whose a token is.

        Raises:
            UnauthenticatedError: It is wrong, or it has ended.
        """
        if self.start_token is not None and token.id == self.start_token.id:
            if hmac.compare_digest(credentials.hashed(token.secret), self._start_secret or _NOBODY):
                return LOCAL
            raise UnauthenticatedError(_WRONG)
        known = self._snapshot.tokens.get(token.id)
        right = hmac.compare_digest(credentials.hashed(token.secret), _NOBODY if known is None else known.secret)
        if known is None or not right:
            raise UnauthenticatedError(_WRONG)
        if known.has_ended:
            how = "has expired" if known.revoked is None else "was revoked"
            raise UnauthenticatedError(f"the token `{known.name}` {how}", hint="ask for another one")
        if known.id not in self._callers:
            raise UnauthenticatedError(f"whose token `{known.name}` was has no account any more")
        self._used[known.id] = stored.now()
        return self._callers[known.id]

    def _id_of(self, caller: Caller) -> str:
        return next(token for token, one in self._callers.items() if one is caller)

    # --- passwords

    def remembers(self, shown: Password) -> Caller | None:
        """The user, if his password was right a short while ago."""
        user = self._snapshot.users.get(shown.user)
        if user is None:
            return None
        key = self._memory_key(shown, user.password)
        until = self._passwords.get(key)
        if until is None or until <= self._clock():
            return None
        return Caller(user.name, user.all_grants, "user")

    async def by_password(self, shown: Password) -> Caller:
        """Whose a name and a password are; to be called inside ``hashing``.

        Raises:
            UnauthenticatedError: They are wrong.
        """
        user = self._snapshot.users.get(shown.user)
        kept = self._unknown if user is None or not user.password else user.password
        right = await anyio.to_thread.run_sync(stored.is_password, kept, shown.password)
        if user is None or kept is self._unknown or not right:
            raise UnauthenticatedError(_WRONG)
        _remember(self._passwords, self._memory_key(shown, kept), self._clock() + REMEMBERED)
        return Caller(user.name, user.all_grants, "user")

    def _memory_key(self, shown: Password, kept: str) -> bytes:
        """Of name and password, and of what is kept: after another password was set, it is another key."""
        text = "\0".join((shown.user, kept, shown.password))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).digest()

    # --- sessions of the web page

    async def open_session(self, caller: Caller, seconds: int) -> str:
        """Begin a session; its secret.  Raises OverloadedError."""
        if caller.kind != "local":
            owner = caller.name if caller.kind == "user" else _BY_ID + self._id_of(caller)
            return await anyio.to_thread.run_sync(self.accounts.open_session, owner, seconds)
        secret = secrets.token_urlsafe(32)
        _remember(self._local_sessions, credentials.hashed(secret), self._clock() + seconds)
        return secret

    async def by_session(self, secret: str) -> Caller | None:
        """Whose a session is; None if it is over.  Raises OverloadedError."""
        key = credentials.hashed(secret)
        until = self._local_sessions.get(key)
        if until is not None:
            return LOCAL if until > self._clock() else None
        if key in self._sessions:
            session = self._sessions[key]
        else:
            session = await anyio.to_thread.run_sync(self.accounts.session, secret)
            _remember(self._sessions, key, session)
        if session is None or session.expires <= stored.now():
            return None
        if session.user.startswith(_BY_ID):
            known = self._snapshot.tokens.get(session.user.removeprefix(_BY_ID))
            return None if known is None or known.has_ended else self._callers.get(known.id)
        user = self._snapshot.users.get(session.user)
        return None if user is None else Caller(user.name, user.all_grants, "user")

    async def close_session(self, secret: str) -> None:
        """End a session.  Raises OverloadedError."""
        key = credentials.hashed(secret)
        if self._local_sessions.pop(key, None) is None:
            await anyio.to_thread.run_sync(self.accounts.close_session, secret)
            _remember(self._sessions, key, None)


def _remember(where: OrderedDict[bytes, Any], key: bytes, value: Any) -> None:
    where[key] = value
    where.move_to_end(key)
    while len(where) > _MOST:
        where.popitem(last=False)
