"""OpenID Connect: asks an identity provider who somebody is.

The authorization code flow with PKCE.  What the provider says is believed only after everything that the standards ask
for was looked at: it comes from the addresses that the issuer itself names, the ID token is signed with one of its keys
by an algorithm of the list below, and is for this client, for this very login and for now.

Addresses: the issuer's is the administrator's choice, so it may be in a private network; others that it names are
public or on the issuer's own host.  TLS is a must, but for an issuer on this machine.

Source: https://openid.net/specs/openid-connect-core-1_0.html and …/openid-connect-discovery-1_0.html, RFC 7636 (PKCE),
RFC 9207 (``iss`` in answers), RFC 9700 (what to look at), …/openid-connect-rpinitiated-1_0.html (logging out).
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

import orjson

from gittrack.errors import (
    InvalidValueError,
    MissingDependencyError,
    NetworkError,
    RemoteDataError,
    UnauthenticatedError,
    shown,
)
from gittrack.server.hub.outgoing import Target, check_url, exchange
from gittrack.server.run import LOCAL_HOSTS

if TYPE_CHECKING:
    from joserfc.jwk import KeySet
    from joserfc.jwt import Token

#: Signatures by a key pair only: with the others whoever knows the client's secret, or nothing at all, could sign.
ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519",
)  # fmt: skip
SKEW: Final = 60  #: seconds that the clocks of the provider and of this machine may differ
_KINDS: Final = frozenset(("RSA", "EC", "OKP"))
_FRESH: Final = 3600.0  #: seconds that the provider's description and keys are good for
_AGAIN: Final = 10.0  #: seconds before keys are asked for again because none fits
_MOST: Final = 256 << 10  #: bytes of an answer
_LONGEST: Final = 4096  #: characters of a code
_LONGEST_SUBJECT: Final = 255
_LOCAL: Final = frozenset(host.strip("[]") for host in LOCAL_HOSTS)
Claims = Mapping[str, Any]


@dataclass(frozen=True)
class Client:
    """What this server is to the provider.

    Attributes:
        issuer: The provider, exactly as it calls itself.
        id: What it calls this server.
        secret: What this server shows it; None: nothing (PKCE protects the login all the same).
        redirect: Where it sends browsers back to.
        scopes: What is asked for.

    Raises:
        InvalidValueError: The issuer's address cannot be.
    """

    issuer: str
    id: str
    secret: str | None = field(repr=False)
    redirect: str
    scopes: tuple[str, ...] = ("openid", "profile", "email")

    def __post_init__(self) -> None:
        parts = urlsplit(self.issuer)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
            raise InvalidValueError(
                f"`{shown(self.issuer)}` is no issuer: it speaks TLS", hint="such as https://id.example.org/realms/team"
            )
        check_url(Target(self.issuer, private=True))
        if parts.query:
            raise InvalidValueError("the address of an issuer has no query")
        if not self.id:
            raise InvalidValueError("the client's id is empty", hint="`--oidc-client-id ID`")

    @property
    def is_local(self) -> bool:
        """The issuer is on this machine, without TLS."""
        return self.issuer.startswith("http:")


class Provider:
    """An identity provider.  Threads may share it.

    Args:
        client: What this server is to it.
        clock: Seconds since 1970.

    Attributes:
        client: As given.

    Raises:
        MissingDependencyError: What reads its tokens is not installed.
    """

    def __init__(self, client: Client, *, clock: Callable[[], float] = time.time) -> None:
        try:
            import joserfc  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                "logging in by OpenID Connect needs the package `joserfc`", hint="pip install 'gittrack[oidc]'"
            ) from error
        self.client = client
        self._clock = clock
        self._asking = threading.Lock()
        self._known: tuple[float, Claims] | None = None
        self._keys: tuple[float, KeySet] | None = None

    # --- the way there

    def address(self, state: str, nonce: str, verifier: str) -> str:
        """Where a browser is sent to log in.

        Args:
            state: Names this login.
            nonce: Has to be in the ID token.
            verifier: Is shown when the code is exchanged; the address has only its hash.

        Raises:
            NetworkError, RemoteDataError: The provider does not answer, or not with its description.
        """
        document = self._document()
        methods = document.get("code_challenge_methods_supported", ["S256"])
        if not isinstance(methods, list) or "S256" not in methods:
            raise RemoteDataError(f"`{self.client.issuer}` does not do PKCE with S256")
        url = self._endpoint(document, "authorization_endpoint").url
        asked = {
            "response_type": "code",
            "client_id": self.client.id,
            "redirect_uri": self.client.redirect,
            "scope": " ".join(self.client.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": _base64(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(asked, quote_via=quote)}"

    # --- and back

    def claims(
        self, code: str, issuer: str | None, nonce: str, verifier: str, wanted: Iterable[str]
    ) -> tuple[Claims, str]:
        """Who it is that a code came with, and the ID token that says so; ``sub`` is a text.

        Args:
            code: From the address that the browser came back to.
            issuer: What that says who sent it (RFC 9207), if it does.
            nonce: As it was sent.
            verifier: As it was sent, hashed.
            wanted: Claims that the provider is asked for besides, if the ID token does not have them.

        Raises:
            UnauthenticatedError: Nothing of that kind proves who it is.
            NetworkError, RemoteDataError: The provider does not answer, or not as it should.
        """
        document = self._document()
        if issuer is None and document.get("authorization_response_iss_parameter_supported") is True:
            raise UnauthenticatedError("the answer does not say which provider it is from")
        if issuer is not None and issuer != self.client.issuer:
            raise UnauthenticatedError("the answer is from another provider")
        if not 0 < len(code) <= _LONGEST:
            raise UnauthenticatedError("the answer has no code")
        found = self._exchanged(document, code, verifier)
        token = found.get("id_token")
        if not isinstance(token, str):
            raise RemoteDataError(f"`{self.client.issuer}` gave no ID token")
        claims = self._verified(token, nonce)
        if any(name not in claims for name in wanted) and isinstance(document.get("userinfo_endpoint"), str):
            claims = {**self._told(document, found.get("access_token"), claims["sub"]), **claims}
        return claims, token

    def _exchanged(self, document: Claims, code: str, verifier: str) -> Claims:
        client = self.client
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.redirect,
            "code_verifier": verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if client.secret is None:
            form["client_id"] = client.id
        elif isinstance(methods, list) and "client_secret_basic" in methods:
            pair = f"{quote(client.id, safe='')}:{quote(client.secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        else:
            form |= {"client_id": client.id, "client_secret": client.secret}
        target = self._endpoint(document, "token_endpoint")
        status, body = exchange(target, "POST", urlencode(form).encode(), headers, most=_MOST + 1)
        if status in (400, 401):
            error = _code_of(body)
            if error == "invalid_grant":  # the code was used before, is too old, or is not for this login
                raise UnauthenticatedError("the provider does not take the code")
            raise RemoteDataError(f"`{client.issuer}` does not give a token: {error or status}")
        return self._json("token", status, body)

    def _told(self, document: Claims, access: Any, subject: str) -> Claims:
        """What the provider says besides; about the same person, or it is not believed."""
        if not isinstance(access, str) or not access.isascii() or not access.isprintable():
            raise RemoteDataError(f"`{self.client.issuer}` gave no access token")
        headers = {"Authorization": f"Bearer {access}", "Accept": "application/json"}
        status, body = exchange(self._endpoint(document, "userinfo_endpoint"), "GET", None, headers, most=_MOST + 1)
        found = self._json("userinfo", status, body)
        if found.get("sub") != subject:
            raise UnauthenticatedError("the provider tells of somebody else")
        return found

    # --- and out

    def farewell(self, token: str | None) -> str | None:
        """Where a browser is sent to log out of the provider, too; None if that has no such place.

        It comes back to where it came to after the login, without anything in the address.

        Args:
            token: The ID token of the login, so that the provider knows what ends; None: it may have to ask.

        Raises:
            NetworkError, RemoteDataError: The provider does not answer, or not with its description.
        """
        document = self._document()
        if document.get("end_session_endpoint") is None:
            return None
        url = self._endpoint(document, "end_session_endpoint").url
        asked = {"client_id": self.client.id, "post_logout_redirect_uri": self.client.redirect}
        if token is not None:
            asked["id_token_hint"] = token
        return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(asked, quote_via=quote)}"

    # --- tokens

    def _verified(self, token: str, nonce: str) -> Claims:
        """The claims of an ID token.  Raises UnauthenticatedError if it proves nothing here and now."""
        from joserfc.errors import JoseError
        from joserfc.jwt import JWTClaimsRegistry

        client = self.client
        try:
            claims = self._decoded(token).claims
            JWTClaimsRegistry(
                now=int(self._clock()),
                leeway=SKEW,
                iss={"essential": True, "value": client.issuer},
                aud={"essential": True, "value": client.id},
                exp={"essential": True},
                iat={"essential": True},
                sub={"essential": True},
            ).validate(claims)
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            raise UnauthenticatedError(f"the ID token is not good: {error or type(error).__name__}") from error
        audience, party = claims["aud"], claims.get("azp")
        if (isinstance(audience, list) and len(audience) > 1 and party is None) or party not in (None, client.id):
            raise UnauthenticatedError("the ID token is for another client, too")
        if claims.get("nonce") != nonce:
            raise UnauthenticatedError("the ID token is not of this login")
        subject = claims["sub"]
        if len(subject) > _LONGEST_SUBJECT or not subject.isascii() or not subject.isprintable():
            raise UnauthenticatedError("the ID token names nobody")
        return claims

    def _decoded(self, token: str) -> Token:
        """What a token says, if a key of the issuer signed it; keys change, so they are asked for again if none did."""
        from joserfc import jwt
        from joserfc.errors import BadSignatureError, InvalidKeyIdError, InvalidKeyTypeError
        from joserfc.jws import JWSRegistry

        rules = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        keys = self._current_keys(_FRESH)
        try:
            return jwt.decode(token, keys, ALGORITHMS, rules)
        except (BadSignatureError, InvalidKeyIdError, InvalidKeyTypeError):
            again = self._current_keys(_AGAIN)
            if again is keys:
                raise
            return jwt.decode(token, again, ALGORITHMS, rules)

    # --- what is known of the provider

    def _document(self) -> Claims:
        """The provider's description of itself."""
        with self._asking:
            if self._known is None or self._is_old(self._known[0], _FRESH):
                url = self.client.issuer.rstrip("/") + "/.well-known/openid-configuration"
                found = self._fetched(Target(url, private=True), "description")
                if found.get("issuer") != self.client.issuer:
                    raise RemoteDataError(
                        f"the provider at `{self.client.issuer}` calls itself `{shown(str(found.get('issuer')))}`",
                        hint="`--oidc-issuer` is written exactly as it does",
                    )
                self._known = (self._clock(), found)
            return self._known[1]

    def _current_keys(self, age: float) -> KeySet:
        """The provider's keys, as of so many seconds ago at most."""
        document = self._document()
        with self._asking:
            if self._keys is None or self._is_old(self._keys[0], age):
                found = self._fetched(self._endpoint(document, "jwks_uri"), "keys")
                self._keys = (self._clock(), _key_set(found.get("keys")))
            return self._keys[1]

    def _is_old(self, since: float, age: float) -> bool:
        return not 0 <= self._clock() - since < age

    def _fetched(self, target: Target, what: str) -> Claims:
        status, body = exchange(target, "GET", None, {"Accept": "application/json"}, most=_MOST + 1)
        return self._json(what, status, body)

    def _json(self, what: str, status: int, body: bytes) -> Claims:
        if status >= 500 or status == 429:
            raise NetworkError(f"`{self.client.issuer}` answered with status {status}")
        try:
            found = orjson.loads(body) if status == 200 and len(body) <= _MOST else None
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise RemoteDataError(f"`{self.client.issuer}` gave no {what} (status {status}, {len(body)} bytes)")
        return found

    def _endpoint(self, document: Claims, name: str) -> Target:
        """One of the addresses that the provider names; see the module for what they may be."""
        url = document.get(name)
        if not isinstance(url, str):
            raise RemoteDataError(f"`{self.client.issuer}` does not say its {name}")
        try:
            parts = check_url(Target(url, private=True))
        except InvalidValueError as error:
            raise RemoteDataError(f"the {name} of `{self.client.issuer}` cannot be: {error.message}") from error
        if parts.scheme != "https" and not (self.client.is_local and parts.hostname in _LOCAL):
            raise RemoteDataError(f"the {name} of `{self.client.issuer}` is without TLS")
        return Target(url, private=parts.hostname == urlsplit(self.client.issuer).hostname)


def _key_set(found: Any) -> KeySet:
    """Those of the keys that sign and that are understood."""
    from joserfc.errors import JoseError
    from joserfc.jwk import JWKRegistry, KeySet

    keys = []
    for one in found if isinstance(found, list) else ():
        if isinstance(one, dict) and one.get("kty") in _KINDS and one.get("use", "sig") == "sig":
            try:
                keys.append(JWKRegistry.import_key(one))
            except (JoseError, ValueError, TypeError, AttributeError):  # one of a kind to come
                continue
    return KeySet(keys)


def _code_of(body: bytes) -> str:
    """The code of a refusal; empty if it has none."""
    try:
        found = orjson.loads(body)
        return shown(str(found["error"]))
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
