"""Mediated logins for tests: the real routes behind the real door and TLS, a program, a person, and a provider on a string."""

from __future__ import annotations

import contextlib
import hashlib
import html.parser
import json
import os
import secrets
import selectors
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from certauth import keys
from certauth.clock import system_clock
from certauth.errors import CertauthError
from certauth.identity import Issuer
from certauth.keys import Algorithm, SoftwareKey
from certauth.requests import parse_csr
from policy.middleware import PolicyMiddleware
from policy.rules import Policy
from policy.server import Server, ServerSettings
from policy.testing import Facility as PolicyFacility
from signer.jwks import IssuerSource, KeySource
from signer.limits import RateLimiter
from signer.login import Logins
from signer.login_api import login_routes
from signer.login_code import Guesses
from signer.login_pages import Facility
from signer.login_provider import Provider
from signer.login_state import LoginLimits
from tests.simulator.certificates import ServerFiles, write_server_files
from tests.simulator.hostile_provider import ProviderKey, jwks
from tests.simulator.node_provider import SIGNER_SECRET, confidential_client, node_provider, public_client
from tests.simulator.openid_provider import password_of

ROOT = Path(__file__).resolve().parents[2]
CLIENT_ID = "the signer & co"  # form-encoding matters
QUICK = LoginLimits(interval=0.01)
FACILITY = Facility(name="als.example", certificate_lifetime=timedelta(hours=24))
RULES = b"""
version = 1
service = "signer"
[record]
mode = "buffered"
path = "decisions.jsonl"
""" + b"".join(
    b'[[route]]\npath = "%s"\nmethods = ["%s"]\naccess = "public"\n' % (path, method)
    for method, path in (
        (b"POST", b"/v1/logins"),
        (b"POST", b"/v1/logins/{login}"),
        (b"GET", b"/login"),
        (b"POST", b"/login"),
        (b"POST", b"/login/confirm"),
        (b"GET", b"/login/callback"),
        (b"GET", b"/login/callback/{issuer}"),
        (b"POST", b"/v1/certificates"),
    )
)


class Ticks:
    """Monotonic seconds that move when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- a provider that answers what the test wants -----------------------------------------------------------------------------


@dataclass(slots=True)
class Scripted:
    """An OpenID provider on loopback http. ``token`` and ``userinfo`` make its answers: (status, content type, body)."""

    issuer: str
    key: ProviderKey
    names_itself: bool = True
    discovery: dict[str, object] = field(default_factory=dict)
    token: Callable[[Scripted, dict[str, str]], tuple[int, str, bytes]] = lambda provider, form: provider.tokens(form)
    userinfo: Callable[[], tuple[int, str, bytes]] = lambda: (200, "application/json", b'{"sub": "alice"}')
    claims: dict[str, object] = field(default_factory=dict)
    nonces: dict[str, str] = field(default_factory=dict)
    forms: list[dict[str, str]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    fetches: Counter[str] = field(default_factory=Counter)
    stopping: threading.Event = field(default_factory=threading.Event)

    def document(self) -> dict[str, object]:
        """The discovery document."""
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/jwks",
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "authorization_response_iss_parameter_supported": self.names_itself,
            **self.discovery,
        }

    def authorize(self, url: str, **changes: str | None) -> dict[str, str]:
        """What the browser would bring back from ``url``; ``changes`` replace members or, with None, remove them."""
        asked = dict(parse_qsl(urlsplit(url).query))
        code = secrets.token_urlsafe(12)
        self.nonces[code] = asked["nonce"]
        answer: dict[str, str | None] = {"code": code, "state": asked["state"]}
        if self.names_itself:
            answer["iss"] = self.issuer
        return {name: value for name, value in (answer | changes).items() if value is not None}

    def tokens(self, form: Mapping[str, str]) -> tuple[int, str, bytes]:
        """An ID token for the nonce that the code was asked with, and an access token."""
        now = int(time.time())
        claims = {"iss": self.issuer, "sub": "alice", "aud": CLIENT_ID, "iat": now, "exp": now + 300}
        claims["nonce"] = self.nonces[form["code"]]
        members = {"id_token": self.key.sign({**claims, **self.claims}), "access_token": "opaque", "token_type": "Bearer"}
        return 200, "application/json", json.dumps(members).encode()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        provider = self.server.provider
        provider.fetches[self.path] += 1
        if self.path == "/.well-known/openid-configuration":
            self._send(200, "application/json", json.dumps(provider.document()).encode())
        elif self.path == "/jwks":
            self._send(200, "application/json", jwks(provider.key))
        elif self.path == "/userinfo":
            provider.authorizations.append(self.headers.get("authorization"))
            self._send(*provider.userinfo())
        else:
            self._send(404, "text/plain", b"")

    def do_POST(self) -> None:
        provider = self.server.provider
        provider.fetches[self.path] += 1
        form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
        provider.forms.append(form)
        provider.authorizations.append(self.headers.get("authorization"))
        self._send(*provider.token(provider, form))

    def _send(self, status: int, kind: str, body: bytes) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            if status in (301, 302, 307):
                self.send_header("location", f"{self.server.provider.issuer}/elsewhere")
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        """Silence."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    provider: Scripted

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news here."""


@contextlib.contextmanager
def scripted_provider() -> Iterator[Scripted]:
    """The provider, running in threads of this process."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.provider = Scripted(f"http://127.0.0.1:{server.server_address[1]}", ProviderKey("ES256"))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server.provider
        finally:
            server.provider.stopping.set()
            server.shutdown()
            thread.join()


def provider_for(running: Scripted, *, id: str = "campus", issuer: Mapping[str, Any] | None = None, **more: Any) -> Provider:  # noqa: A002 - of an issuer
    """The signer's side of a scripted provider."""
    return Provider(
        issuer=Issuer(id=id, url=running.issuer, audience=CLIENT_ID, allow_loopback_http=True, **(issuer or {})), **more
    )


@contextlib.asynccontextmanager
async def logins_for(*providers: Provider, ticks: Ticks, **more: Any) -> Any:
    """The state machine alone, for these providers."""
    source = KeySource([IssuerSource(url=each.issuer.url, allow_loopback_http=True) for each in providers])
    try:
        yield Logins(
            public_url="https://signer.example", providers=providers, keys=source, clock=system_clock, ticks=ticks, **more
        )
    finally:
        await source.aclose()


# --- the signer's login pages, running ------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Site:
    """A running signer, as far as mediated logins go."""

    url: str
    directory: Path
    tls: ServerFiles
    logins: Logins
    counted: Counter[tuple[str, str, str]]
    clients: list[httpx2.Client] = field(default_factory=list)

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.tls.ca))

    def client(self) -> httpx2.Client:
        """A client with cookies that follows nothing by itself; closed with the site."""
        made = httpx2.Client(base_url=self.url, verify=self.context, timeout=30, trust_env=False, follow_redirects=False)
        self.clients.append(made)
        return made

    def decisions(self) -> str:
        """What the door wrote down."""
        return "".join(path.read_text() for path in self.directory.glob("decisions*.jsonl"))


Configure = Callable[[str], tuple[Sequence[Provider], Sequence[IssuerSource]]]


@contextlib.contextmanager
def login_site(
    directory: Path,
    configure: Configure,
    *,
    limits: LoginLimits | None = None,
    guesses: Guesses | None = None,
    limiter: RateLimiter | None = None,
    ticks: Callable[[], float] = time.monotonic,
    name: str = "127.0.0.1",
) -> Iterator[Site]:
    """Serve the login routes. ``configure`` is told the signer's URL and says which providers there are, once they run.

    ``name`` is what the signer calls itself: to a browser, ``localhost`` and ``127.0.0.1`` are two sites.
    """
    tls, counted = write_server_files(directory / "tls"), Counter[tuple[str, str, str]]()
    holder: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await holder["app"](scope, receive, send)

    settings = ServerSettings(
        host="127.0.0.1", port=0, certificate=tls.certificate, key=tls.key, client_roots=tls.ca.read_bytes
    )
    server = Server(app, settings, on_failed_handshake=lambda _failure: None)
    url = f"https://{name}:{server.port}"
    try:
        providers, sources = configure(url)
    except BaseException:  # also a skip, where the provider is not installed: the port is bound already
        server._listener.close()
        raise
    source = KeySource(sources)
    logins = Logins(
        public_url=url, providers=providers, keys=source, clock=system_clock, ticks=ticks, limits=limits, guesses=guesses
    )

    async def claim(request: Request) -> Response:
        """What the service does with a login as proof, up to the decision."""
        body = json.loads(await request.body())
        try:
            identity = logins.claim(body["proof"]["login"], body["proof"]["secret"], parse_csr(body["csr"]).spki)
        except CertauthError as error:
            return JSONResponse({"code": error.code}, status_code=403)
        told = {name: getattr(identity, name) for name in ("issuer_id", "subject", "mediated", "assurance", "email", "binding")}
        return JSONResponse(told | {"claims": sorted(identity.claims)})

    def observe(operation: str, outcome: str, code: str) -> None:
        counted[(operation, outcome, code)] += 1

    routes = login_routes(
        logins,
        facility=FACILITY,
        public_url=url,
        limiter=limiter or RateLimiter(per_minute=60_000),
        observe=observe,
        ticks=ticks,
    )
    inner = Starlette(routes=[*routes, Route("/v1/certificates", claim, methods=["POST"])])
    policy = Policy.parse(RULES, where="policy.toml", base=directory)
    holder["app"] = PolicyMiddleware(inner, policy=policy, trust=PolicyFacility().trust())
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    site = Site(url=url, directory=directory, tls=tls, logins=logins, counted=counted)
    try:
        _until(lambda: server.started)
        yield site
    finally:
        for client in site.clients:
            client.close()
        server.stop()
        thread.join(30)


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(4000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise RuntimeError("the server did not start")


# --- the two sides of a login -----------------------------------------------------------------------------------------------


def certification_request(key: SoftwareKey) -> str:
    """A request that asks for nothing but the key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key.private_key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


class Program:
    """``certauth login`` on a machine without a browser, as far as it concerns the signer."""

    def __init__(self, site: Site, *, host: str = "login1.cluster.example", **more: object) -> None:
        self._http = site.client()
        self.key = keys.generate(Algorithm.P256)
        self.csr, self.secret = certification_request(self.key), secrets.token_urlsafe(32)
        wish = {"csr": self.csr, "host": host, "secret_sha256": hashlib.sha256(self.secret.encode()).hexdigest()}
        self.answer = self._http.post("/v1/logins", json={**wish, **more})
        self.begun: dict[str, Any] = self.answer.json()

    @property
    def code(self) -> str:
        return str(self.begun["user_code"])

    def state(self, *, secret: str | None = None) -> httpx2.Response:
        """Ask how far it is."""
        body = {"secret": self.secret if secret is None else secret}
        return self._http.post(f"/v1/logins/{self.begun['login']}", json=body)

    def claim(self) -> dict[str, Any]:
        """Who logged in, or why not."""
        proof = {"type": "login", "login": self.begun["login"], "secret": self.secret}
        answer: dict[str, Any] = self._http.post("/v1/certificates", json={"csr": self.csr, "proof": proof}).json()
        return answer


class Forms(html.parser.HTMLParser):
    """The fields of the only form on a page, and what a page says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action, self.text = "", ""
        self.fields: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = values["action"]
        elif tag == "input":
            self.fields[values["name"]] = values.get("value", "")

    def handle_data(self, data: str) -> None:
        self.text += data


class Person:
    """Somebody with a browser: cookies, forms, and an eye for what is on the page."""

    def __init__(self, site: Site) -> None:
        self.http = site.client()
        self.site = site

    def type_code(self, code: str) -> httpx2.Response:
        """Open the page and type the code."""
        page = self.http.get("/login")
        assert page.status_code == 200, page.text
        form = Forms(page.text)
        return self.http.post(form.action, data={**form.fields, "code": code})

    def answer(self, confirmation: httpx2.Response, answer: str) -> httpx2.Response:
        """Press one of the two buttons of the confirmation page."""
        form = Forms(confirmation.text)
        return self.http.post(form.action, data={**form.fields, "answer": answer})

    def to_provider(self, code: str) -> str:
        """Type the code, say "this is me": where the browser is sent."""
        shown = self.type_code(code)
        assert shown.status_code == 200, shown.text
        sent = self.answer(shown, "yes")
        assert sent.status_code == 303, sent.text
        return str(sent.headers["location"])

    def come_back(self, answer: Mapping[str, str], path: str = "/login/callback") -> httpx2.Response:
        """Follow the provider's redirect."""
        return self.http.get(path, params=dict(answer))


def log_in_at(url: str, user: str, ca_file: Path) -> str:
    """Log in at a real provider with its own forms; the redirect back to the signer, not visited."""
    home = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}/"
    with httpx2.Client(verify=ssl.create_default_context(cafile=str(ca_file)), timeout=30, trust_env=False) as browser:
        response = browser.get(url)
        for _ in range(16):
            if location := response.headers.get("location"):
                target = urljoin(str(response.url), location)
                if not target.startswith(home):
                    return target
                response = browser.get(target)
            elif response.status_code == 200 and "<form" in response.text:
                form = Forms(response.text)
                known = {"username": user, "password": password_of(user)}
                fields = {name: known.get(name, value) for name, value in form.fields.items()}
                response = browser.post(urljoin(str(response.url), form.action), data=fields)
            else:
                raise RuntimeError(f"the provider answered {response.status_code}: {response.text[:300]}")
    raise RuntimeError("the provider keeps redirecting")


@dataclass(frozen=True, slots=True, kw_only=True)
class RealProvider:
    """A real provider that is running."""

    issuer: str
    ca_file: Path
    client_id: str


@contextlib.contextmanager
def idpyoidc(directory: Path, *, redirect_uri: str, users: Sequence[str] = ("alice",)) -> Iterator[RealProvider]:
    """PyPI idpyoidc with a public client that the signer's callback is registered for."""
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.simulator.openid_provider", "--directory", str(directory)]
    command += ["--redirect", redirect_uri, "--client-id", CLIENT_ID]
    for user in users:
        command += ["--user", user]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (directory / "provider.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env=environment)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]  # stdout is a pipe
            line = process.stdout.readline() if selector.select(60) and process.stdout else b""
        if not line:
            raise RuntimeError(f"the provider did not start: {(directory / 'provider.log').read_text()[-2000:]}")
        ready = json.loads(line)
        yield RealProvider(issuer=ready["issuer"], ca_file=Path(ready["ca_file"]), client_id=ready["client_id"])
    finally:
        process.send_signal(signal.SIGKILL)  # it keeps nothing
        process.communicate()


@contextlib.contextmanager
def at_oidc_provider(
    directory: Path, *, confidential: bool = True, own_callback: bool = False, name: str = "127.0.0.1", **more: Any
) -> Iterator[tuple[Site, Path]]:
    """A signer that is a client of npm oidc-provider, with a secret or without; and the provider's CA."""
    secret = directory / "client-secret"
    secret.touch(mode=0o600)
    secret.write_text(f"{SIGNER_SECRET}\n")
    with contextlib.ExitStack() as running:

        def configure(url: str) -> tuple[list[Provider], list[IssuerSource]]:
            redirects = [f"{url}/login/callback/hpc" if own_callback else f"{url}/login/callback"]
            web = {"application_type": "web", "grant_types": ["authorization_code"]}
            client = (
                confidential_client(CLIENT_ID, redirect_uris=redirects)
                if confidential
                else public_client(CLIENT_ID, redirect_uris=redirects, **web)
            )
            real = running.enter_context(node_provider(directory / "op", clients=[client], **more))
            issuer = Issuer(id="hpc", url=real.issuer, audience=CLIENT_ID, scopes=("openid", "email"))
            provider = Provider(
                issuer=issuer, secret_file=secret if confidential else None, own_callback=own_callback, userinfo=True
            )
            return [provider], [IssuerSource(url=real.issuer, ca_file=real.ca_file)]

        site = running.enter_context(login_site(directory, configure, limits=QUICK, name=name))
        yield site, directory / "op" / "tls" / "ca.crt"
