"""Write the example facility: ``python keys-example/regenerate.py [--into DIRECTORY]``. The same bytes every time.

Every private key is derived from a sentence printed below, so nothing here is or ever was secret.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: E402 - the path above must come first

from certauth import certificates, keys, profiles  # noqa: E402
from certauth.audit.checkpoint import VerifierKey  # noqa: E402
from certauth.bundles import TokenRoot, TrustBundle  # noqa: E402
from certauth.files import PUBLIC, make_private_directory, write_atomic  # noqa: E402
from certauth.issuance import CertificateGrant  # noqa: E402
from certauth.names import Kind, Principal, TrustDomain  # noqa: E402
from certauth.revocation import Feed, sign_feed  # noqa: E402
from certauth.tokens import Right, TokenSpec, mint, to_text  # noqa: E402

DOMAIN = TrustDomain.parse("facility.example")
SIGNER_URL = "https://localhost:8443"
START = datetime(2025, 1, 1, tzinfo=UTC)
END = datetime(2045, 1, 1, tzinfo=UTC)  # a real certificate of a person lives for hours
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of the group of P-256, SP 800-186 §3.2.1.3

SEED = "certauth example key, known to everybody: "
ED25519 = ("token", "log", "feed")
P256 = ("root", "intermediate", "service", "alice")

HEADER = '''"""SHA-256 of the SPKI of every key in ``keys-example/``. Written by ``keys-example/regenerate.py``; do not edit."""

EXAMPLE_KEYS: frozenset[str] = frozenset(
    {
'''


def example_key(name: str) -> keys.SoftwareKey:
    """The private key that the sentence ``SEED + name`` determines."""
    seed = hashlib.sha256((SEED + name).encode()).digest()
    if name in ED25519:
        return keys.SoftwareKey(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
    return keys.SoftwareKey(ec.derive_private_key(1 + int.from_bytes(seed) % (ORDER - 1), ec.SECP256R1()))


def facility() -> tuple[dict[str, keys.SoftwareKey], dict[str, bytes]]:
    """The keys by name, and the public files by name."""
    key = {name: example_key(name) for name in (*P256, *ED25519)}
    alice = Principal.make(DOMAIN, Kind.USER, "alice")
    root = certificates.make_root(domain=DOMAIN, key=key["root"], serial=1, now=START, lifetime=END - START)
    intermediate = certificates.make_intermediate(
        domain=DOMAIN,
        public_key=key["intermediate"].public_key,
        issuer=root,
        issuer_key=key["root"],
        serial=2,
        now=START,
        lifetime=END - START,
    )
    service = certificates.make_service(
        principal=Principal.make(DOMAIN, Kind.SERVICE, "files"),
        public_key=key["service"].public_key,
        dns_names=("localhost",),
        ip_addresses=(IPv4Address("127.0.0.1"), IPv6Address("::1")),
        issuer=intermediate,
        issuer_key=key["intermediate"],
        serial=3,
        not_before=START,
        not_after=END,
    )
    grant = CertificateGrant(
        principal=alice,
        profile=profiles.USER,
        public_key=key["alice"].public_key,
        spki=keys.spki(key["alice"].public_key),
        not_before=START,
        not_after=END,
        assurance=2,
        issuer_id="example",
        ignored=(),
        clamped=None,
        rule="enrolled",
    )
    certificate = certificates.make_leaf(grant=grant, issuer=intermediate, issuer_key=key["intermediate"], serial=4)
    token = mint(
        TokenSpec(
            issuer=f"spiffe://{DOMAIN}",
            jti=hashlib.sha256(b"certauth example token").hexdigest()[:32],
            user=str(alice),
            issued_at=START,
            not_before=START,
            expires_at=END,
            audience=("files",),
            rights=(Right("files", "read", "/data/"), Right("files", "write", "/data/alice/")),
            groups=("beamline-7",),
            assurance=2,
            peer_fingerprint=certificates.fingerprint(certificate),
            delegate_key=key["alice"].public_key,
        ),
        key["token"],
        entropy=lambda size: hashlib.sha256(b"certauth example entropy").digest()[:size],
    )
    bundle = TrustBundle(
        domain=DOMAIN,
        sequence=1,
        issued_at=START,
        refresh_hint=300,
        x509_roots=(root,),
        x509_issuers=(intermediate,),
        token_roots=(TokenRoot(kid=keys.key_id(key["token"].public_key), key=key["token"].public_key),),
        log_vkey=str(VerifierKey.make(f"{DOMAIN}/audit", key["log"].public_key)),
        feed_key=key["feed"].public_key,
        signer_url=SIGNER_URL,
        feed_url=f"{SIGNER_URL}/v1/revocations",
    )
    feed = Feed(domain=DOMAIN, sequence=1, issued_at=START, next_update=END, entries=())
    return key, {
        "root.pem": certificates.dump_chain([root]),
        "intermediate.pem": certificates.dump_chain([intermediate]),
        "service.pem": certificates.dump_chain([service, intermediate]),
        "alice.pem": certificates.dump_chain([certificate, intermediate]),
        "alice.token": to_text(token).encode() + b"\n",
        "bundle.json": bundle.to_json() + b"\n",
        "feed.json": sign_feed(feed, key["feed"]) + b"\n",
    }


def regenerate(into: Path) -> None:
    """Write ``keys-example/`` and ``certauth/example_keys.py`` below ``into``."""
    key, files = facility()
    directory, package = into / "keys-example", into / "certauth"
    make_private_directory(directory)
    make_private_directory(package)
    for name, secret in key.items():
        keys.save_private(directory / f"{name}.key", secret, passphrase=None)
    for name, data in files.items():
        write_atomic(directory / name, data, mode=PUBLIC)
    fingerprints = sorted(keys.fingerprint(secret.public_key) for secret in key.values())
    listing = HEADER + "".join(f'        "{fingerprint}",\n' for fingerprint in fingerprints) + "    }\n)\n"
    write_atomic(package / "example_keys.py", listing.encode(), mode=PUBLIC)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="write the example facility, the same bytes every time")
    parser.add_argument("--into", type=Path, default=ROOT, help="a directory to write to instead of the project")
    regenerate(parser.parse_args().into)
