"""An identity provider that does as it is told: slow, down, lying, huge, redirecting, rotating, reusing key ids.

``ProviderKey`` signs anything at all - any header, any bytes as claims - so that each hostile token in the tests is refused for
what it says and not for a broken signature. ``HostileProvider`` serves discovery and JWKS on loopback, answers introspection
requests (RFC 7662), counts the requests and remembers their headers and forms.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from certauth.encoding import b64url, from_b64url

_ALGORITHMS = get_default_algorithms()
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

Mode = Literal["ok", "down", "silent", "drip", "huge", "redirect", "zipped", "text", "empty", "not-json"]


class ProviderKey:
    """A signing key of a provider, with its public half as a JWK."""

    def __init__(self, alg: str = "RS256", kid: str | None = "key-1", *, bits: int = 2048) -> None:
        self.alg, self.kid = alg, kid
        if alg in _CURVES:
            self.private: Any = ec.generate_private_key(_CURVES[alg])
        elif alg == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
        else:
            self.private = rsa.generate_private_key(65537, bits)

    @property
    def jwk(self) -> dict[str, Any]:
        document = _ALGORITHMS[self.alg].to_jwk(self.private.public_key(), as_dict=True)
        document.pop("key_ops", None)
        return document if self.kid is None else {**document, "kid": self.kid}

    def header(self, **members: object) -> dict[str, object]:
        """The header this key's tokens have, with members changed; a member set to ``...`` is left out."""
        return without_ellipsis({"alg": self.alg, "kid": self.kid if self.kid is not None else ..., "typ": "JWT", **members})

    def sign(self, claims: Mapping[str, object] | bytes, header: Mapping[str, object] | bytes | None = None) -> str:
        """A compact JWS over exactly these claims and this header; bytes are taken as they are."""
        first = header if isinstance(header, bytes) else json.dumps(self.header() if header is None else header).encode()
        second = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        signing_input = f"{b64url(first)}.{b64url(second)}"
        alg = "EdDSA" if self.alg == "Ed25519" else self.alg
        return f"{signing_input}.{b64url(_ALGORITHMS[alg].sign(signing_input.encode(), self.private))}"


def without_ellipsis(members: Mapping[str, object]) -> dict[str, object]:
    """The members that are not ``...``."""
    return {name: value for name, value in members.items() if value is not ...}


def malleated(es256_token: str) -> str:
    """The same token with the other valid signature: (r, n - s) verifies wherever (r, s) does."""
    signing_input, _, signature = es256_token.rpartition(".")
    data = from_b64url(signature)
    r, s = int.from_bytes(data[:32]), int.from_bytes(data[32:])
    return f"{signing_input}.{b64url(r.to_bytes(32) + (_P256_ORDER - s).to_bytes(32))}"


def jwks(*keys: ProviderKey | Mapping[str, object]) -> bytes:
    """A JWKS document of these keys."""
    return json.dumps({"keys": [key.jwk if isinstance(key, ProviderKey) else dict(key) for key in keys]}).encode()


class HostileProvider:
    """What the provider says and how it behaves; change the attributes while it runs."""

    def __init__(self, *, port: int, scheme: str) -> None:
        self.issuer = f"{scheme}://127.0.0.1:{port}"
        self.claimed_issuer = self.issuer
        self.jwks_uri: object = f"{self.issuer}/jwks"
        self.jwks = jwks()
        self.mode: Mode = "ok"
        self.headers: dict[str, str] = {}
        self.more: dict[str, object] = {}  # further members of the discovery document; those that are ``...`` are left out
        self.follows_host = False  # its issuer is what the Host header says
        self.bearer: str | None = None  # what a GET must be authorised with
        self.status = 200  # of the answer to a POST
        self.says: object = {"active": False}  # the answer to a POST; bytes are sent as they are
        self.seen: list[dict[str, str]] = []  # headers of each request, names in lower case
        self.forms: list[dict[str, str]] = []
        self.fetches: Counter[str] = Counter()
        self.bytes_sent = 0
        self.gate = threading.Event()  # cleared: answers wait until it is set
        self.gate.set()

    def discovery(self, host: str = "") -> bytes:
        """The document as it is served under the name ``host``."""
        issuer = f"{self.issuer.partition(':')[0]}://{host}" if self.follows_host else self.claimed_issuer
        return json.dumps(without_ellipsis({"issuer": issuer, "jwks_uri": self.jwks_uri, **self.more})).encode()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        provider = self.server.provider
        path = "discovery" if self.path.endswith("/.well-known/openid-configuration") else self.path.strip("/")
        self._note(path)
        with contextlib.suppress(OSError):
            if provider.bearer is not None and self.headers.get("authorization") != f"Bearer {provider.bearer}":
                self._send(401, b"")
            else:
                body = provider.discovery(self.headers.get("host", "")) if path == "discovery" else provider.jwks
                self._answer(provider, body, path)

    def do_POST(self) -> None:
        provider = self.server.provider
        form = dict(parse_qsl(self.rfile.read(min(int(self.headers.get("content-length", 0)), 2**20)).decode()))
        provider.forms.append(form)
        self._note(self.path.strip("/"))
        body = provider.says if isinstance(provider.says, bytes) else json.dumps(provider.says).encode()
        with contextlib.suppress(OSError):
            if provider.mode == "ok":
                self._send(provider.status, body, **{"content-type": "application/json"})
            else:
                self._answer(provider, body, "post")

    def _note(self, path: str) -> None:
        provider = self.server.provider
        provider.seen.append({name.lower(): value for name, value in self.headers.items()})
        provider.fetches[path] += 1
        provider.gate.wait(30)

    def _answer(self, provider: HostileProvider, body: bytes, path: str) -> None:
        match provider.mode:
            case "down":
                self._send(503, b"")
            case "silent":
                self.server.stopping.wait(30)
            case "redirect":
                self._send(302, b"", location=f"{provider.issuer}/elsewhere")
            case "zipped":
                self._send(200, body, **{"content-encoding": "gzip"})
            case "drip":
                self._send(200, b"", **{"content-length": "100000"})
                while not self.server.stopping.wait(0.02):
                    self.wfile.write(b" ")
            case "huge":
                self._send(200, b"", **{"content-length": str(200 * 2**20)})
                for _ in range(200):
                    self.wfile.write(b" " * 2**20)
                    provider.bytes_sent += 2**20
            case "text":
                self._send(200, b"[]")
            case "not-json":
                self._send(200, b"<html>")
            case "empty":
                self._send(200, body if path == "discovery" else b'{"keys": []}')
            case "ok":
                self._send(200, body)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers, **self.server.provider.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Silence."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    provider: HostileProvider
    stopping: threading.Event

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news here."""


@contextlib.contextmanager
def hostile_provider(*, tls: ssl.SSLContext | None = None) -> Iterator[HostileProvider]:
    """A provider on loopback in threads of this process, over http, or over TLS with the given server context."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.stopping = threading.Event()
        server.provider = HostileProvider(port=server.server_address[1], scheme="http" if tls is None else "https")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server.provider
        finally:
            server.stopping.set()
            server.provider.gate.set()
            server.shutdown()
            thread.join()
