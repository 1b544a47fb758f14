"""A real OpenID provider on loopback: npm ``oidc-provider``, in a process of its own, over TLS with a throwaway CA.

It has what ``idpyoidc`` (``openid_provider.py``) lacks: the device grant, DPoP, JWT access tokens for a named audience
(RFC 8707, RFC 9068), opaque ones with introspection, ``private_key_jwt`` clients, and ``acr``, ``amr``, ``auth_time`` at will.

    with node_provider(tmp_path) as provider:                                    skips the test where Node is missing
        tokens = log_in(provider, "alice", nonce=nonce)                          code + PKCE: ["id_token"], ["access_token"] …
        tokens = log_in(provider, "alice", resource="https://signer.example")    an at+jwt for that audience
        tokens = log_in(provider, "alice", resource=..., dpop=DpopKey())         the same, with cnf.jkt
        tokens = device_login(provider, "alice", dpop=key, resource=...)         the device grant, the user's part included
        tokens = token_request(provider, client_id, grant_type="refresh_token", refresh_token=...)
        tokens = client_credentials(provider, "pipeline", sign=key.sign, resource=...)
        provider.change(accounts={...}, keys=[...])                              while it runs; sessions survive

``clients`` are client metadata as OpenID Connect Registration names them: see ``public_client``, ``confidential_client`` and
``service_client``. Users are ``accounts``: ``{name: account(...)}``, each with the password ``password_of(name)``; ``sub`` is
the name. ``keys`` are ``{"kid", "alg"}``, the first of an algorithm signs; another value of ``"renewed"`` makes a new key under
the same id. ``features`` are those of ``FEATURES``. ``Browser`` is a user's browser without a window: it fills in the forms.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html.parser
import json
import os
import secrets
import selectors
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.simulator.certificates import write_server_files

CLIENT_ID: Final = "certauth-cli"
SIGNER_CLIENT_ID: Final = "signer"
SIGNER_SECRET: Final = "of-a-test-and-long-enough-to-be-one"
REDIRECT: Final = "http://127.0.0.1:49152/callback"
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
FEATURES: Final[Mapping[str, object]] = {
    "device": True,
    "dpop": True,
    "dpop_nonce": False,
    "introspection": True,
    "revocation": True,
    "client_credentials": True,
    "pkce": "required",
}
_CLAIMS: Final[Mapping[str, Sequence[str]]] = {
    "profile": ("name", "preferred_username", "groups"),
    "email": ("email", "email_verified"),
}
_NODE_DIRECTORY: Final = Path(__file__).resolve().parents[1] / "node"
_READY_SECONDS: Final = 60
Clients = Sequence[Mapping[str, object]]


def password_of(user: str) -> str:
    """The password of a user."""
    return f"{user}-password"


def account(
    user: str,
    *,
    claims: Mapping[str, object] | None = None,
    access_token_claims: Mapping[str, object] | None = None,
    acr: str | None = None,
    amr: Sequence[str] | None = None,
    auth_time: int | None = None,
    refuses: bool = False,
) -> dict[str, object]:
    """A user: more ID-token claims, more access-token claims, how and when (epoch seconds) they logged in; or says no."""
    login = {"acr": acr, "amr": amr, "ts": auth_time}
    standard = {"name": user.capitalize(), "preferred_username": user, "email": f"{user}@demo.example", "email_verified": True}
    return {
        "password": password_of(user),
        "claims": {**standard, **(claims or {})},
        "access_token_claims": access_token_claims or {},
        "login": {name: value for name, value in login.items() if value is not None},
        "refuses": refuses,
    }


def public_client(
    client_id: str = CLIENT_ID, *, redirect_uris: Sequence[str] = (REDIRECT,), **more: object
) -> dict[str, object]:
    """A program on a user's machine: no secret, PKCE, device grant; loopback redirects match on any port (RFC 8252 §7.3)."""
    return {
        "client_id": client_id,
        "application_type": "native",
        "token_endpoint_auth_method": "none",
        "redirect_uris": [*redirect_uris],
        "grant_types": ["authorization_code", "refresh_token", DEVICE_GRANT],
        **more,
    }


def confidential_client(
    client_id: str = SIGNER_CLIENT_ID, *, secret: str = SIGNER_SECRET, redirect_uris: Sequence[str] = (), **more: object
) -> dict[str, object]:
    """A server with a secret (HTTP basic); it may introspect. Without redirect URIs it can do nothing else."""
    return {
        "client_id": client_id,
        "client_secret": secret,
        "token_endpoint_auth_method": "client_secret_basic",
        "redirect_uris": [*redirect_uris],
        "grant_types": ["authorization_code"] if redirect_uris else [],
        "response_types": ["code"] if redirect_uris else [],
        **more,
    }


def service_client(
    client_id: str, public_jwk: Mapping[str, object], *, alg: str = "ES256", **more: object
) -> dict[str, object]:
    """A service that proves itself with ``private_key_jwt`` and gets tokens by ``client_credentials``."""
    return {
        "client_id": client_id,
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": alg,
        "jwks": {"keys": [dict(public_jwk)]},
        "redirect_uris": [],
        "response_types": [],
        "grant_types": ["client_credentials"],
        **more,
    }


@dataclass(slots=True, kw_only=True)
class NodeProvider:
    """A provider that is running: where it is, how to trust its TLS, and how to change it."""

    issuer: str
    ca_file: Path
    log: Path
    accounts: Mapping[str, Mapping[str, object]]
    client_id: str = CLIENT_ID
    _tell: Callable[[Mapping[str, object]], None] = field(repr=False)

    def change(self, **settings: object) -> None:
        """New ``clients``, ``accounts``, ``keys``, ``resources``, ``features`` …: whole values, in force when this returns."""
        if "features" in settings:
            settings["features"] = {**FEATURES, **settings["features"]}  # type: ignore[dict-item]  # a mapping: see above
        self._tell(settings)

    def client(self) -> httpx2.Client:
        """An HTTP client that trusts this provider, with cookies and without redirects."""
        tls = ssl.create_default_context(cafile=str(self.ca_file))
        return httpx2.Client(verify=tls, timeout=30, trust_env=False, follow_redirects=False)

    def discovery(self) -> dict[str, Any]:
        """The discovery document."""
        with self.client() as client:
            document: dict[str, Any] = client.get(f"{self.issuer}/.well-known/openid-configuration").raise_for_status().json()
            return document


@contextlib.contextmanager
def node_provider(
    directory: Path,
    *,
    clients: Clients | None = None,
    accounts: Mapping[str, Mapping[str, object]] | None = None,
    keys: Sequence[Mapping[str, object]] = ({"kid": "rs-1", "alg": "RS256"}, {"kid": "es-1", "alg": "ES256"}),
    resources: Mapping[str, Mapping[str, object]] | None = None,
    default_resource: str | None = None,
    features: Mapping[str, object] | None = None,
    claims: Mapping[str, Sequence[str]] | None = None,
    scopes: Sequence[str] = ("profile", "email"),
    access_token_claims: Mapping[str, object] | None = None,
    acr_values: Sequence[str] = ("urn:certauth:test:mfa", "urn:certauth:test:password"),
    ttl: Mapping[str, int] | None = None,
    port: int = 0,
) -> Iterator[NodeProvider]:
    """Start it, yield it when it answers, end it. Skips the test when Node or ``make ci-deps`` is missing.

    ``resources``: ``{audience: {"format": "jwt" | "opaque", "scope": "more scopes", "ttl": seconds, "alg": ...}}``; the default
    knows ``https://signer.example`` as a JWT. ``claims``: ``{scope: [claims it puts into the ID token]}``; a claim that
    accounts have at the start and no scope names comes with ``openid``. ``ttl``: seconds by kind
    (``IdToken``, ``AccessToken``, ``DeviceCode`` …).
    """
    node = shutil.which("node")
    if node is None or not (_NODE_DIRECTORY / "node_modules" / "oidc-provider").is_dir():
        pytest.skip("Node or its oidc-provider is not installed: make ci-deps")
    directory.mkdir(parents=True, exist_ok=True)
    files = write_server_files(directory / "tls")
    accounts = {"alice": account("alice"), "bob": account("bob")} if accounts is None else accounts
    by_scope: dict[str, Sequence[str]] = {**_CLAIMS, **(claims or {})}
    named = {claim for names in by_scope.values() for claim in names}
    extra = {claim for each in accounts.values() for claim in each["claims"]} - named  # type: ignore[attr-defined]  # a mapping
    settings = {
        "node_directory": str(_NODE_DIRECTORY),
        "certificate": str(files.certificate),
        "key": str(files.key),
        "port": port,
        "clients": [public_client(), confidential_client()] if clients is None else [*clients],
        "accounts": accounts,
        "keys": [*keys],
        "resources": {"https://signer.example": {}} if resources is None else resources,
        "default_resource": default_resource,
        "features": {**FEATURES, **(features or {})},
        "claims": {"openid": ["sub", "acr", "amr", "auth_time", *sorted(extra)], **by_scope},
        "scopes": [*scopes],
        "access_token_claims": access_token_claims or {},
        "acr_values": [*acr_values],
        "ttl": ttl or {},
        "server_errors": True,
    }
    (directory / "settings.json").write_text(json.dumps(settings))
    program = Path(__file__).with_suffix(".mjs")
    log = directory / "provider.log"
    environment = {"PATH": os.environ.get("PATH", ""), "NODE_ENV": "production", "NODE_NO_WARNINGS": "1"}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [node, str(program), str(directory / "settings.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
        )
    try:
        ready = _line(process, log)
        yield NodeProvider(
            issuer=ready["issuer"], ca_file=files.ca, log=log, accounts=accounts, _tell=lambda new: _tell(process, new, log)
        )
    finally:
        process.kill()  # it keeps nothing, so there is nothing to say goodbye to
        process.communicate()


def _tell(process: subprocess.Popen[bytes], settings: Mapping[str, object], log: Path) -> None:
    if process.stdin is None:
        raise RuntimeError("the provider has no stdin")
    process.stdin.write(json.dumps(settings).encode() + b"\n")
    process.stdin.flush()
    _line(process, log)


def _line(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    if process.stdout is None:
        raise RuntimeError("the provider has no stdout")
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(timeout=_READY_SECONDS):
            raise RuntimeError(f"the provider said nothing for {_READY_SECONDS} s: {log.read_text()[-2000:]}")
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the provider ended: {log.read_text()[-2000:]}")
    answer: dict[str, Any] = json.loads(line)
    return answer


# --- a user's browser, without a window -----------------------------------------------------------------------------


class Browser:
    """Follows redirects and fills in forms as ``user``; ``with Browser(provider, "alice") as browser: browser.open(url)``."""

    def __init__(self, provider: NodeProvider, user: str, *, password: str | None = None) -> None:
        self._fields = {"username": user, "password": password_of(user) if password is None else password}
        self._http = provider.client()
        self._home = provider.issuer

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def open(self, url: str, **fields: str) -> str:
        """Go on until the provider sends the browser elsewhere: that URL, not visited; or until there is nothing to submit.

        Then the text of the last page is returned. ``fields`` fill further inputs by name (``user_code=...``).
        Raises ``RuntimeError`` with the provider's page when it answers with an error.
        """
        answers = {**self._fields, **fields}
        response = self._http.get(url)
        for _ in range(16):
            if location := response.headers.get("location"):
                target = urljoin(str(response.url), location)
                if not target.startswith(f"{self._home}/"):
                    return target
                response = self._http.get(target)
            elif response.status_code != 200:
                raise RuntimeError(f"the provider answered {response.status_code}: {response.text[:600]}")
            elif "<form" in response.text:
                form = _Form.read(response.text)
                filled = {name: answers.get(name, value) for name, value in form.inputs.items()}
                response = self._http.post(urljoin(str(response.url), form.action), data=filled)
            else:
                return response.text
        raise RuntimeError("the provider keeps redirecting")


class _Form(html.parser.HTMLParser):
    """The first form of a page: where it goes and its named inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.inputs: dict[str, str] = {}

    @classmethod
    def read(cls, page: str) -> _Form:
        form = cls()
        form.feed(page)
        return form

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = values["action"]
        elif tag == "input" and "name" in values:
            self.inputs[values["name"]] = values.get("value", "")


# --- what clients do ------------------------------------------------------------------------------------------------


class DpopKey:
    """A P-256 key that makes DPoP proofs (RFC 9449 §4.2)."""

    def __init__(self, private: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1()) if private is None else private
        jwk = jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.jwk = {name: jwk[name] for name in ("crv", "kty", "x", "y")}

    @property
    def thumbprint(self) -> str:
        """RFC 7638: what ``cnf.jkt`` says of tokens bound to this key."""
        return _b64url(hashlib.sha256(json.dumps(self.jwk, separators=(",", ":"), sort_keys=True).encode()).digest())

    def proof(self, method: str, url: str, *, nonce: str | None = None) -> str:
        """A DPoP proof for one request."""
        claims = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": url, "iat": int(time.time())}
        if nonce is not None:
            claims["nonce"] = nonce
        return jwt.encode(claims, self.private, algorithm="ES256", headers={"typ": "dpop+jwt", "jwk": self.jwk})


def token_request(
    provider: NodeProvider, client_id: str | None, *, dpop: DpopKey | None = None, secret: str | None = None, **form: str
) -> dict[str, Any]:
    """One request of the token endpoint; a server-supplied DPoP nonce is used once. The answer, an error included."""
    url = provider.discovery()["token_endpoint"]
    auth = httpx2.USE_CLIENT_DEFAULT if secret is None else httpx2.BasicAuth(client_id or "", secret)
    if client_id is not None and secret is None:
        form["client_id"] = client_id
    with provider.client() as http:
        nonce: str | None = None
        answer: dict[str, Any] = {"error": "use_dpop_nonce"}
        for _ in range(2):
            headers = {} if dpop is None else {"dpop": dpop.proof("POST", url, nonce=nonce)}
            response = http.post(url, data=form, headers=headers, auth=auth)
            answer = response.json()
            if answer.get("error") != "use_dpop_nonce":
                break
            nonce = response.headers["dpop-nonce"]
        return answer


def log_in(
    provider: NodeProvider,
    user: str,
    *,
    client_id: str = CLIENT_ID,
    redirect_uri: str = REDIRECT,
    dpop: DpopKey | None = None,
    secret: str | None = None,
    scope: str = "openid profile email",
    **parameters: str,
) -> dict[str, Any]:
    """Code flow with PKCE, the client's part and the user's; ``parameters`` (nonce, resource, max_age …) go to the provider.

    Raises ``RuntimeError`` for an error of either endpoint; the token response otherwise.
    """
    verifier, state = secrets.token_urlsafe(32), secrets.token_urlsafe(16)
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": state,
        "code_challenge": _b64url(hashlib.sha256(verifier.encode()).digest()),
        "code_challenge_method": "S256",
        **parameters,
    }
    if dpop is not None:
        query["dpop_jkt"] = dpop.thumbprint
    with Browser(provider, user) as browser:
        arrived = browser.open(f"{provider.discovery()['authorization_endpoint']}?{urlencode(query)}")
    answer = dict(parse_qsl(urlsplit(arrived).query))
    if answer.get("state") != state or answer.get("iss") != provider.issuer or "code" not in answer:
        raise RuntimeError(f"no code: {answer.get('error')} {answer.get('error_description')}")
    form = {"grant_type": "authorization_code", "code": answer["code"], "code_verifier": verifier, "redirect_uri": redirect_uri}
    return _tokens(token_request(provider, client_id, dpop=dpop, secret=secret, **form))


def device_login(
    provider: NodeProvider,
    user: str,
    *,
    client_id: str = CLIENT_ID,
    dpop: DpopKey | None = None,
    scope: str = "openid profile email",
    **parameters: str,
) -> dict[str, Any]:
    """The device grant (RFC 8628), the user's part included; the token response, or ``RuntimeError``."""
    with provider.client() as http:
        url = provider.discovery()["device_authorization_endpoint"]
        started = _tokens(http.post(url, data={"client_id": client_id, "scope": scope, **parameters}).json())
    approve_device(provider, user, started["verification_uri"], started["user_code"])
    form = {"grant_type": DEVICE_GRANT, "device_code": started["device_code"]}
    return _tokens(token_request(provider, client_id, dpop=dpop, **form))


def approve_device(provider: NodeProvider, user: str, verification_uri: str, user_code: str) -> None:
    """What the user does at the verification page: type the code, confirm, log in."""
    with Browser(provider, user) as browser:
        page = browser.open(verification_uri, user_code=user_code)
    if "Logged in" not in page:
        raise RuntimeError(f"the provider did not accept the code: {page[:600]}")


def client_credentials(
    provider: NodeProvider, client_id: str, *, sign: Callable[[Mapping[str, object]], str], **parameters: str
) -> dict[str, Any]:
    """``client_credentials`` with ``private_key_jwt``: ``sign`` makes a JWS of the assertion's claims (RFC 7523 §2.2)."""
    now = int(time.time())
    claims = {"iss": client_id, "sub": client_id, "aud": provider.issuer, "jti": secrets.token_urlsafe(16)}
    form: dict[str, Any] = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": sign({**claims, "iat": now, "exp": now + 60}),
    }
    return _tokens(token_request(provider, None, **{**form, **parameters}))


def _tokens(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise RuntimeError(f"the provider answered {answer['error']}: {answer.get('error_description')}")
    return answer


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
