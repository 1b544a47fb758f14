"""What the journeys share: a real signer with two providers, a real door in front of an ordinary app, and raw connections."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from certauth import certificates, keys
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.decisions import verify_lines
from certauth.audit.verify import Report, verify_log
from certauth.bundles import TrustBundle
from certauth.clock import system_clock
from policy.middleware import PolicyMiddleware
from policy.server import Server, ServerSettings
from policy.tls import FailedHandshake
from policy.trust import Trust
from signer.log_reader import open_offline
from tests.signer.kit import CLIENT_ID, Identity, Site, run_cli
from tests.simulator.certificates import write_server_files
from tests.simulator.hostile_provider import HostileProvider, ProviderKey, hostile_provider, jwks

HOST = "127.0.0.1"
SECONDS = 60.0
"""How long anything may take before a test gives up."""

RULES = """
version = 1
service = "files"
[record]
mode = "strict"
path = "decisions.jsonl"
[[route]]
path = "/livez"
access = "public"
[[route]]
path = "/me"
access = "certificate"
[[route]]
path = "/files/"
methods = ["GET", "PUT"]
access = "token"
strip_prefix = "/files"
[[route]]
path = "/live/"
websocket = true
access = "token"
operation = "read"
strip_prefix = "/live"
"""


class MovableClock:
    """The system's clock, some time ahead."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return system_clock() + self.ahead


def until(condition: Callable[[], Any], *, seconds: float = SECONDS) -> Any:
    """The first true value of ``condition``; fails after a while."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.02)
    return value


# --- the signer's side ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def second_provider(site: Site, directory: Path, *, enrolment: str = "enrolled") -> Iterator[Site]:
    """The same facility as users of another provider, ``partner``, see it; call it before the service is started."""
    tls = write_server_files(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    with hostile_provider(tls=context) as provider:
        key = ProviderKey("ES256", kid="partner-1")
        provider.jwks = jwks(key)
        add_issuer(site, "partner", provider.issuer, CLIENT_ID, tls.ca, enrolment=enrolment)
        yield dataclasses.replace(site, provider=provider, provider_key=key)


def add_issuer(site: Site, name: str, url: str, client_id: str, ca_file: Path, *, enrolment: str = "enrolled") -> None:
    """One more identity provider in the settings."""
    members = {"id": name, "url": url, "client_id": client_id, "ca_file": str(ca_file), "enrolment": enrolment}
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in members.items())
    with site.settings_file.open("a") as file:
        file.write(f"\n[[issuer]]\n{table}")


def down(provider: HostileProvider) -> None:
    """The provider answers nobody any more."""
    provider.mode = "down"


def context_for(site: Site, identity: Identity | None) -> ssl.SSLContext:
    """A client that trusts the facility's root and shows ``identity``."""
    context = ssl.create_default_context(cafile=str(site.root))
    if identity is not None:
        stem = site.directory / f"shown-{identity.fingerprint[:12]}"
        stem.with_suffix(".pem").write_bytes(certificates.dump_chain(identity.chain))
        keys.save_private(stem.with_suffix(".key"), identity.key, passphrase=None)
        context.load_cert_chain(stem.with_suffix(".pem"), stem.with_suffix(".key"))
    return context


def mint(site: Site, identity: Identity, **wishes: Any) -> str:
    """A token of ``identity`` for the files."""
    with site.client(identity) as client:
        answer = client.post("/v1/tokens", json={"audience": "files", **wishes})
    if answer.status_code != 201:
        raise AssertionError(answer.text)
    token: str = answer.json()["token"]
    return token


def verify_database(site: Site) -> Report:
    """The log on the disk, read from outside, from its first entry to its signed head and every head before."""
    bundle = TrustBundle.parse((site.directory / "bundle.json").read_bytes(), allow_example_keys=False)
    with open_offline(site.directory / "signer.db") as reader:
        note = reader.checkpoint()
        if note is None:
            raise AssertionError("the log is empty")
        return verify_log(reader.entries(), note, VerifierKey.parse(bundle.log_vkey), older=list(reader.checkpoints()))


# --- the door ------------------------------------------------------------------------------------------------------------


async def livez(_request: Request) -> JSONResponse:
    """Alive."""
    return JSONResponse({"status": "ok"})


async def show(request: Request) -> JSONResponse:
    """Who is asking for what; reached by nobody whom the door does not let through."""
    request.app.state.reached.append(request.url.path)
    return JSONResponse({"identity": request.user.identity, "path": request.url.path, "body": len(await request.body())})


async def live(websocket: WebSocket) -> None:
    """Say who is connected."""
    await websocket.accept()
    await websocket.send_json({"identity": websocket.user.identity, "principal": str(websocket.user.principal)})
    await websocket.close()


@dataclass(slots=True, kw_only=True)
class Door:
    """An ordinary app behind ``PolicyMiddleware``, served over mutual TLS."""

    directory: Path
    clock: MovableClock
    middleware: PolicyMiddleware
    reached: list[str]
    failures: list[FailedHandshake]
    port: int = 0

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}"

    def client(self, context: ssl.SSLContext, token: str | None = None) -> httpx2.Client:
        """A client that keeps its connection."""
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        return httpx2.Client(base_url=self.url, verify=context, headers=headers, timeout=SECONDS, trust_env=False)

    def raw(self, context: ssl.SSLContext, request: bytes) -> bytes:
        """Exactly these bytes over a fresh connection, and what came back until the door closed it or said no more."""
        with (
            socket.create_connection((HOST, self.port), timeout=SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as tls,
        ):
            answer = b""
            with contextlib.suppress(TimeoutError, OSError):  # the door may hang up before we have said everything
                tls.sendall(request)
                while data := tls.recv(65536):
                    answer += data
        return answer

    def records(self) -> list[dict[str, Any]]:
        """Every recorded decision, from files whose chain verifies."""
        found: list[dict[str, Any]] = []
        for path in sorted(self.directory.glob("decisions-*.jsonl")):
            with path.open("rb") as file:
                verify_lines(file)
            found += [json.loads(line) for line in path.read_bytes().splitlines()[1:]]
        return [record for record in found if record["event"] != "started"]


@contextlib.contextmanager
def door(
    site: Site,
    directory: Path,
    *,
    others: str = "",
    more_roots: bytes = b"",
    bundle: Path | None = None,
    bundle_url: str = "none",
) -> Iterator[Door]:
    """The app, served; ``others`` are further ``[[domain]]`` tables, ``more_roots`` further CAs that TLS lets in.

    ``bundle`` is the door's own copy of the facility's, and ``bundle_url`` where newer ones come from; by default, it reads the
    signer's file.
    """
    directory.mkdir()
    made = ("service", "certificate", "files", "--host", HOST, "--directory", directory, "--settings", site.settings_file)
    run_cli(*made, "--reason", "a test")
    bundle = bundle or site.directory / "bundle.json"
    (directory / "policy.toml").write_text(RULES)
    (directory / "trust.toml").write_text(
        f'version = 1\n[[domain]]\nname = "{site.settings.trust_domain}"\nbundle = "{bundle}"\n'
        f'bundle_url = "{bundle_url}"\nfeed = "{site.url}/v1/revocations"\nfeed_refresh = 1\n{others}'
    )
    reached: list[str] = []
    app = Starlette(
        routes=[
            Route("/livez", livez),
            Route("/me", show),
            Route("/files/{path:path}", show, methods=["GET", "PUT"]),
            WebSocketRoute("/live/{path:path}", live),
        ]
    )
    app.state.reached = reached
    clock = MovableClock()
    trust = Trust.load(directory / "trust.toml", clock=clock)
    middleware = PolicyMiddleware(app, policy=directory / "policy.toml", trust=trust, clock=clock)
    failures: list[FailedHandshake] = []

    def failed(failure: FailedHandshake) -> None:
        failures.append(failure)
        middleware.note_failed_handshake(failure)

    settings = ServerSettings(
        host=HOST,
        port=0,
        certificate=directory / "chain.pem",
        key=directory / "key.pem",
        client_roots=lambda: trust.client_roots() + more_roots,
        graceful_seconds=2,
    )
    server = Server(middleware, settings, on_failed_handshake=failed)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        until(lambda: all(found.exempt or found.revocations is not None for found in trust.state.domains.values()))
        yield Door(
            directory=directory, clock=clock, middleware=middleware, reached=reached, failures=failures, port=server.port
        )
    finally:
        server.stop()
        thread.join(SECONDS)


# --- impostors -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Impostor:
    """Somebody who serves with a certificate that is not one for servers, and keeps what clients tell them."""

    port: int
    heard: list[bytes]


@contextlib.contextmanager
def impostor(chain: Path, key: Path) -> Iterator[Impostor]:
    """Serve TLS with ``chain`` and answer every request with 200."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    listener = socket.create_server((HOST, 0))
    heard: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), plain:
                plain.settimeout(SECONDS)
                with context.wrap_socket(plain, server_side=True) as tls:
                    data = tls.recv(65536)
                    if data:
                        heard.append(data)
                        tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Impostor(port=listener.getsockname()[1], heard=heard)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(SECONDS)
