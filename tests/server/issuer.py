"""An identity provider that can be told to lie, and a browser that is sent there and back."""

import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.server.conftest import Answer
from tests.server.guarded import Guarded

CLIENT, SECRET = "hub of ours", "s3cret: of/the client"
REDIRECT = "http://127.0.0.1:5000/login/oidc/callback"
BROWSER = {"user-agent": "Mozilla/5.0", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
SENT_HERE = {"user-agent": "Mozilla/5.0", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}


@lru_cache(maxsize=4)
def key(number: int = 0) -> RSAKey:
    """A key pair; the numbers are their ids, too."""
    found: RSAKey = RSAKey.generate_key(2048, {"kid": str(number), "use": "sig"})
    return found


class Issuer:
    """It does what the standard says, but for what a test changes.

    Attributes:
        claims: Put into the next ID tokens; None takes one away.
        headers: Put into their headers.
        keys: What it signs with (the first) and publishes (all).
        token: Makes an ID token of its claims, another way than is right.
        document: Put into its description of itself.
        answers: What it answers at a path instead: a status and a body.
        asked: What was asked for: method, path, headers, form.
    """

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.headers: dict[str, Any] = {}
        self.keys = [key()]
        self.token: Callable[[dict[str, Any]], str] | None = None
        self.document: dict[str, Any] = {}
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        self.slow = 0.0
        self._codes: dict[str, dict[str, str]] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode())))

            def _answer(self, form: dict[str, str]) -> None:
                headers = {k.lower(): v for k, v in self.headers.items()}
                outer.asked.append((self.command, self.path, headers, form))
                time.sleep(outer.slow)
                status, body = outer.answers.get(self.path) or outer.answer(self.path, headers, form)
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("location", f"{outer.url}/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer(self, path: str, headers: dict[str, str], form: dict[str, str]) -> tuple[int, bytes]:
        if path == "/.well-known/openid-configuration":
            document = {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/auth?tenant=1",
                "token_endpoint": f"{self.url}/token",
                "userinfo_endpoint": f"{self.url}/me",
                "jwks_uri": f"{self.url}/jwks",
                "authorization_response_iss_parameter_supported": True,
                "code_challenge_methods_supported": ["plain", "S256"],
                **self.document,
            }
            return 200, json.dumps(document).encode()
        if path == "/jwks":
            found = [{"kty": "new", "kid": "z"}, {"kty": "RSA", "kid": "torn"}, 7]
            return 200, json.dumps({"keys": found + [one.as_dict(private=False) for one in self.keys]}).encode()
        if path == "/token":
            return self._exchange(headers, form)
        if path == "/me":
            assert headers["authorization"] == "Bearer an-access-token"
            return 200, json.dumps({"sub": "248289761001", "preferred_username": "ana", **self.claims}).encode()
        return 404, b""

    def _exchange(self, headers: dict[str, str], form: dict[str, str]) -> tuple[int, bytes]:
        asked = self._codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if (
            asked is None
            or asked["code_challenge"].encode() != challenge
            or asked["redirect_uri"] != form["redirect_uri"]
        ):
            return 400, b'{"error": "invalid_grant"}'
        shown = base64.b64decode(headers.get("authorization", "").removeprefix("Basic ")).decode()
        if shown != "hub%20of%20ours:s3cret%3A%20of%2Fthe%20client":
            return 401, b'{"error": "invalid_client"}'
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "248289761001",
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            "preferred_username": "ana",
            "groups": ["ml-team", "all"],
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        token = (self.token or self.sign)(claims)
        return 200, json.dumps({"id_token": token, "access_token": "an-access-token", "token_type": "Bearer"}).encode()

    def sign(self, claims: dict[str, Any]) -> str:
        header = {"alg": "RS256", "kid": self.keys[0].kid, **self.headers}
        return jwt.encode({k: v for k, v in header.items() if v is not None}, claims, self.keys[0])

    def log_in(self, address: str) -> str:
        """Where a browser is sent that came to ``address`` and logged in there: path and query."""
        parts = urlsplit(address)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.url}/auth"
        asked = {name: one[0] for name, one in parse_qs(parts.query, strict_parsing=True).items()}
        assert (asked["response_type"], asked["client_id"], asked["redirect_uri"]) == ("code", CLIENT, REDIRECT)
        assert asked["code_challenge_method"] == "S256"
        assert asked["tenant"] == "1"
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked
        return f"{urlsplit(REDIRECT).path}?{urlencode({'code': code, 'state': asked['state'], 'iss': self.url})}"


class Browser:
    """Keeps cookies, and asks a guard."""

    def __init__(self, hub: Guarded, issuer: Issuer) -> None:
        self.hub = hub
        self.issuer = issuer
        self.cookies: dict[str, str] = {}
        self.address = "127.0.0.1"

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        sent = dict(headers or BROWSER)
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        path, _, query = path.partition("?")
        data = b"" if body is None else json.dumps(body).encode()
        answer = self.hub.ask(method, path, query=query, body=data, headers=sent, client=self.address)
        self.keep(answer)
        return answer

    def keep(self, answer: Answer) -> None:
        for said in answer.headers.get("set-cookie", "").split(", "):
            name, _, value = said.partition(";")[0].partition("=")
            if "Max-Age=0" in said:
                self.cookies.pop(name, None)
            elif name:
                self.cookies[name] = value

    def begin(self, page: str = "/") -> str:
        """The address at the provider."""
        return str(self.ask("POST", "/login/oidc", {"next": page}).ok["url"])

    def back(self, path: str) -> Answer:
        return self.ask("GET", path, headers=SENT_HERE)

    def log_in(self, page: str = "/") -> Answer:
        return self.back(self.issuer.log_in(self.begin(page)))

    @property
    def session(self) -> Answer:
        return self.ask("GET", "/session")
