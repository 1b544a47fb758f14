"""A real server on loopback, and clients with real certificates: nothing between them is simulated."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from certauth.certificates import dump_chain, make_service, random_serial
from certauth.clock import system_clock, whole_seconds
from certauth.keys import Algorithm, SoftwareKey, generate, save_private
from certauth.names import Kind, Principal
from policy.server import Server, ServerSettings
from policy.testing import Facility, Peer
from policy.tls import ClientCertificate, FailedHandshake

LOCALHOST = "127.0.0.1"
SECONDS = 60.0
"""How long anything may take before a test gives up."""


class MovableClock:
    """The system's clock, some time ahead."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return system_clock() + self.ahead


def until(condition: Callable[[], Any]) -> Any:
    """The first true value of ``condition``; fails after ``SECONDS``."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        time.sleep(0.01)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFiles:
    """Where a server's certificate and key are."""

    certificate: Path
    key: Path


def write_server_files(facility: Facility, directory: Path, *, name: str = "data") -> ServerFiles:
    """Write (or replace) a server certificate for loopback and its key."""
    key = generate(Algorithm.P256)
    now = whole_seconds(system_clock())
    certificate = make_service(
        principal=Principal.make(facility.domain, Kind.SERVICE, name),
        public_key=key.public_key,
        dns_names=("localhost",),
        ip_addresses=(IPv4Address(LOCALHOST),),
        issuer=facility.issuing,
        issuer_key=facility.issuing_key,
        serial=random_serial(generate_entropy()),
        not_before=now - timedelta(minutes=1),
        not_after=now + timedelta(days=1),
    )
    files = ServerFiles(certificate=directory / "server.pem", key=directory / "server.key")
    files.certificate.write_bytes(dump_chain([certificate, facility.issuing]))
    save_private(files.key, key, passphrase=None)
    return files


def generate_entropy() -> bytes:
    """Twenty random bytes."""
    import os

    return os.urandom(20)


def client_roots(facility: Facility) -> bytes:
    """The CAs that a server of this facility verifies handshakes against."""
    return dump_chain([facility.root, facility.issuing])


def client_context(facility: Facility, peer: Peer | None, directory: Path, *, leaf_only: bool = False) -> ssl.SSLContext:
    """A client that trusts the facility's root and, if ``peer`` is given, presents its certificate."""
    context = ssl.create_default_context(cadata=dump_chain([facility.root]).decode())
    if peer is not None:
        load_identity(context, peer, directory, leaf_only=leaf_only)
    return context


def load_identity(context: ssl.SSLContext, peer: Peer, directory: Path, *, leaf_only: bool = False) -> None:
    """Let a client context present the certificate of ``peer``."""
    stem = directory / f"{peer.principal.id}-{peer.fingerprint[:8]}"
    chain = peer.chain_der[:1] if leaf_only else peer.chain_der
    stem.with_suffix(".pem").write_text("".join(map(ssl.DER_cert_to_PEM_cert, chain)))
    save_private(stem.with_suffix(".key"), peer.key, passphrase=None)
    context.load_cert_chain(stem.with_suffix(".pem"), stem.with_suffix(".key"))


@dataclass(slots=True, kw_only=True)
class Live:
    """A running server."""

    server: Server
    files: ServerFiles
    failures: list[FailedHandshake]

    @property
    def port(self) -> int:
        return self.server.port

    def connect(self, context: ssl.SSLContext) -> http.client.HTTPSConnection:
        """A connection that is kept alive between requests."""
        return http.client.HTTPSConnection(LOCALHOST, self.port, context=context, timeout=SECONDS)


@contextmanager
def serving(
    app: Any,
    facility: Facility,
    directory: Path,
    *,
    on_failed_handshake: Callable[[FailedHandshake], None] | None = None,
    **settings: Any,
) -> Iterator[Live]:
    """Serve ``app`` in a thread until the block ends."""
    files = write_server_files(facility, directory)
    failures: list[FailedHandshake] = []
    made = ServerSettings(
        **{
            "host": LOCALHOST,
            "port": 0,
            "certificate": files.certificate,
            "key": files.key,
            "client_roots": lambda: client_roots(facility),
            "client_certificate": ClientCertificate.OPTIONAL,
            "reload_seconds": 0.05,
            "graceful_seconds": 2,
            **settings,
        }
    )
    server = Server(app, made, on_failed_handshake=on_failed_handshake or failures.append)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield Live(server=server, files=files, failures=failures)
    finally:
        server.stop()
        thread.join(SECONDS)
        if thread.is_alive():
            raise AssertionError("the server did not stop")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(connection: http.client.HTTPConnection, method: str, path: str, *, body: Any = None, **headers: str) -> Answer:
    """One request; header names are written with underscores."""
    connection.request(method, path, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def der_of(certificate: Any) -> bytes:
    """A certificate's DER."""
    return bytes(certificate.public_bytes(Encoding.DER))


def new_key() -> SoftwareKey:
    """A key that nobody vouches for."""
    return generate(Algorithm.P256)
