"""A facility of our own for tests: the real service over real TLS, and a provider that signs whatever the test wants."""

from __future__ import annotations

import contextlib
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from certauth import certificates, keys
from certauth.clock import Clock, system_clock
from certauth.encoding import b64url
from certauth.identity import nonce_for
from certauth.keys import Algorithm, SoftwareKey
from policy.server import Server, ServerSettings
from signer import authority, servers
from signer.app import create_app
from signer.cli import group
from signer.service import Service, start
from signer.settings import Settings, load
from tests.demo.stage import free_port
from tests.simulator.certificates import write_server_files
from tests.simulator.hostile_provider import HostileProvider, ProviderKey, hostile_provider, jwks

CLIENT_ID = "signer-under-test"
DOMAIN = "facility.test"


def run_cli(*arguments: object, expect: int = 0) -> dict[str, Any]:
    """An admin command with ``--json``; what it answered, or its error."""
    done = CliRunner().invoke(group, [*map(str, arguments), "--json"])
    assert done.exit_code == expect, done.output
    text = done.stdout if expect == 0 else done.stderr.strip().splitlines()[-1]
    found: dict[str, Any] = json.loads(text)
    return found


@dataclass(slots=True, kw_only=True)
class MovableClock:
    """The system's time, some way ahead or behind."""

    offset: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return system_clock() + self.offset


@dataclass(slots=True, kw_only=True)
class Identity:
    """Somebody's key and, after a login, chain."""

    key: SoftwareKey
    chain: list[x509.Certificate] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        return certificates.fingerprint(self.chain[0])


def make_csr(key: SoftwareKey, *, name: str | None = None, names: list[x509.GeneralName] | None = None) -> str:
    """A certification request, perhaps with wishes in it."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(key.private_key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(slots=True, kw_only=True)
class Site:
    """An initialised facility with its provider; ``serving`` runs the service."""

    directory: Path
    url: str
    provider: HostileProvider
    provider_key: ProviderKey
    clock: MovableClock

    @property
    def settings_file(self) -> Path:
        return self.directory / "signer.toml"

    @property
    def settings(self) -> Settings:
        return load(self.settings_file, {})

    @property
    def root(self) -> Path:
        return self.directory / "certificates" / "root.pem"

    def enroll(self, name: str, *rights: str, **options: str) -> None:
        """Enrol somebody whose subject is their name."""
        extra = [word for option, value in options.items() for word in (f"--{option.replace('_', '-')}", value)]
        granted = [word for right in rights for word in ("--right", right)]
        run_cli(
            *("user", "enroll", name, "--subject", name, *granted, *extra),
            *("--reason", "a test", "--settings", self.settings_file),
        )

    def id_token(self, subject: str, *, nonce: str, **claims: object) -> str:
        """An ID token signed by the provider, with claims changed or (``...``) left out."""
        now = int(self.clock().timestamp())
        members: dict[str, object] = {
            "iss": self.provider.issuer,
            "sub": subject,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 600,
            "nonce": nonce,
        }
        members |= claims
        return self.provider_key.sign({name: value for name, value in members.items() if value is not ...})

    def body(self, subject: str, key: SoftwareKey, *, csr: str | None = None, **claims: object) -> dict[str, Any]:
        """What ``POST /v1/certificates`` takes for somebody who just logged in with this key."""
        salt = secrets.token_bytes(16)
        nonce = nonce_for(signer_id=self.url, spki=keys.spki(key.public_key), salt=salt)
        token = self.id_token(subject, **({"nonce": nonce} | claims))  # type: ignore[arg-type]  # claims may replace it
        return {"csr": csr or make_csr(key), "proof": {"type": "id_token", "token": token, "salt": b64url(salt)}}

    def client(self, identity: Identity | None = None) -> httpx2.Client:
        """An HTTPS client that shows ``identity``'s certificate."""
        context = ssl.create_default_context(cafile=str(self.root))
        if identity is not None:
            stem = self.directory / f"client-{identity.fingerprint[:12]}"
            stem.with_suffix(".pem").write_bytes(certificates.dump_chain(identity.chain))
            keys.save_private(stem.with_suffix(".key"), identity.key, passphrase=None)
            context.load_cert_chain(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        return httpx2.Client(base_url=self.url, verify=context, timeout=60, trust_env=False)

    def log_in(self, subject: str, **claims: object) -> Identity:
        """A person with a fresh certificate."""
        identity = Identity(key=keys.generate(Algorithm.P256))
        with self.client() as client:
            answer = client.post("/v1/certificates", json=self.body(subject, identity.key, **claims))
        assert answer.status_code == 201, answer.text
        identity.chain = certificates.load_chain(answer.json()["certificate_chain"].encode())
        return identity

    @contextlib.contextmanager
    def serving(self, *, clock: Clock | None = None) -> Iterator[Service]:
        """The real service, over real TLS, in this process."""
        settings = self.settings
        service = start(settings, environment={}, clock=clock or self.clock)
        try:
            passphrase = authority.read_passphrase(settings, {})
            servers.renew_own(
                settings, authority=service.authority, ledger=service.ledger, passphrase=passphrase, clock=service.clock
            )
            with _running(service, self.url, passphrase):
                yield service
        finally:
            service.close()


@contextlib.contextmanager
def _running(service: Service, url: str, passphrase: bytes) -> Iterator[None]:
    app = create_app(service)
    chain, key = servers.own_paths(service.settings)
    roots = certificates.dump_chain([service.authority.root, service.authority.issuing])
    server = Server(
        app,
        ServerSettings(
            host="127.0.0.1",
            port=int(url.rpartition(":")[2]),
            certificate=chain,
            key=key,
            passphrase=passphrase.decode(),
            client_roots=lambda: roots,
        ),
        on_failed_handshake=app.note_failed_handshake,
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield
    finally:
        server.stop()
        thread.join(60)


@contextlib.contextmanager
def facility(directory: Path, *, enrolment: str = "enrolled") -> Iterator[Site]:
    """Make a facility below ``directory`` with a provider that runs."""
    tls = write_server_files(directory / "provider")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    with hostile_provider(tls=context) as provider:
        provider_key = ProviderKey("ES256")
        provider.jwks = jwks(provider_key)
        url = f"https://127.0.0.1:{free_port()}"
        place = directory / "facility"
        extra = ["--open-enrolment"] if enrolment == "open" else []
        run_cli(
            *("init", "--directory", place, "--trust-domain", DOMAIN, "--public-url", url),
            *("--listen", url.removeprefix("https://"), "--issuer-url", provider.issuer, "--client-id", CLIENT_ID),
            *("--issuer-ca", tls.ca, *extra),
        )
        yield Site(directory=place, url=url, provider=provider, provider_key=provider_key, clock=MovableClock())
