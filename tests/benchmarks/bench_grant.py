"""What a whole grant costs the signer's process: over HTTPS, kept alive, with fsync, from ID token to receipt.

The server runs in a process of its own; its CPU time comes from the kernel's account of that process. The cryptographic floor
is measured before each round in this process: the operations nobody can leave out, by the same libraries.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import ssl
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certauth import keys
from certauth.keys import Algorithm, SoftwareKey
from certauth.names import Kind
from certauth.profiles import leaf_profile
from tests.demo.stage import CERTAUTH
from tests.signer.kit import Site, facility, make_csr
from tests.simulator.hostile_provider import ProviderKey, jwks

CLIENTS, GRANTS, ROUNDS = 16, 480, 5
_TICK = os.sysconf("SC_CLK_TCK")


def measurements() -> Iterator[dict[str, Any]]:
    """CPU of the server per grant, and its ratio to the cryptographic floor."""
    with tempfile.TemporaryDirectory() as directory, facility(Path(directory)) as site, _signer(site) as process:
        _round(site, process.pid, CLIENTS * 2)  # warm
        floors, costs = [], []
        for _ in range(ROUNDS):
            floors.append(_floor())
            costs.append(_round(site, process.pid, GRANTS))
        yield _result("grant-cpu", statistics.median(costs) * 1e3, "ms CPU", 1.0, "the bar itself")
        ratios = [cost / floor for cost, floor in zip(costs, floors, strict=True)]
        yield _result("grant-cpu-over-floor", statistics.median(ratios), "x", 2.5, "the libraries: decode, CSR, build and sign")


def _result(name: str, value: float, unit: str, bar: float, versus: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "bar": bar, "holds": value <= bar, "runs": ROUNDS, "versus": versus}


@contextlib.contextmanager
def _signer(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    site.provider_key = ProviderKey("RS256")
    site.provider.jwks = jwks(site.provider_key)
    site.enroll("alice")
    text = site.settings_file.read_text().replace("[[issuer]]", "[limits]\nrequests_per_minute = 1000000\n\n[[issuer]]")
    site.settings_file.write_text(text)
    command = [str(CERTAUTH), "signer", "serve", "--settings", str(site.settings_file)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), _connection(site) as connection:
                connection.request("GET", "/livez")
                if connection.getresponse().status == 200:
                    break
            time.sleep(0.1)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@contextlib.contextmanager
def _connection(site: Site) -> Iterator[http.client.HTTPSConnection]:
    host, _, port = site.url.removeprefix("https://").partition(":")
    context = ssl.create_default_context(cafile=str(site.root))
    connection = http.client.HTTPSConnection(host, int(port), timeout=30, context=context)
    try:
        yield connection
    finally:
        connection.close()


def _round(site: Site, pid: int, grants: int) -> float:
    """CPU seconds of the server per grant, over kept-alive connections of several clients at once."""
    key = keys.generate(Algorithm.P256)
    bodies = [json.dumps(site.body("alice", key)).encode() for _ in range(grants)]
    failures: list[str] = []
    ready = threading.Barrier(CLIENTS + 1)

    def client(mine: list[bytes]) -> None:
        with _connection(site) as connection:
            connection.request("GET", "/livez")
            connection.getresponse().read()
            ready.wait()
            for body in mine:
                connection.request("POST", "/v1/certificates", body)
                answer = connection.getresponse()
                data = answer.read()
                if answer.status != 201:
                    failures.append(data.decode())

    threads = [threading.Thread(target=client, args=(bodies[number::CLIENTS],)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    ready.wait()
    before = _cpu(pid)
    for thread in threads:
        thread.join()
    spent = _cpu(pid) - before
    if failures:
        raise RuntimeError(failures[0])
    return spent / grants


def _cpu(pid: int) -> float:
    """User and system time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _floor() -> float:
    """CPU seconds of what no grant can leave out, as the libraries do it.

    Verify the ID token, parse and verify the request, build and sign the certificate. A pause before each measurement lets the
    caches grow as cold as they are between two requests: in a tight loop the same operations cost a third.
    """
    provider, key = ProviderKey("RS256"), keys.generate(Algorithm.P256)
    now = int(time.time())
    token = provider.sign({"iss": "https://idp.example", "sub": "alice", "aud": "us", "iat": now, "exp": now + 600})
    public, csr = provider.private.public_key(), make_csr(key).encode()

    def operations() -> None:
        jwt.decode(token, public, algorithms=["RS256"], audience="us", issuer="https://idp.example")
        if not x509.load_pem_x509_csr(csr).is_signature_valid:
            raise RuntimeError("the request does not verify")
        _certificate(key)

    costs = []
    for _ in range(60):
        time.sleep(0.005)
        begun = time.thread_time()
        operations()
        costs.append(time.thread_time() - begun)
    return statistics.median(costs)


def _certificate(key: SoftwareKey) -> x509.Certificate:
    """A leaf with the extensions that ours has, by the library's own builder."""
    name, public = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")]), key.private_key.public_key()
    start = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, public, x509.random_serial_number(), start, start + timedelta(hours=8))
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (leaf_profile(Kind.USER).key_usage, True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False),
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://als.example/user/alice")]), False),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(key.private_key, hashes.SHA256())
