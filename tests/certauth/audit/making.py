"""Small logs for the tests: deterministic keys, one event of every kind, and everything a log of n entries publishes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from certauth.audit import chain, checkpoint, record, tree
from certauth.audit.receipt import Receipt
from certauth.audit.verify import StoredEntry
from certauth.keys import SoftwareKey
from certauth.names import Principal

ORIGIN = "signer.demo.example/audit"
NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
ALICE = Principal.parse("spiffe://demo.example/user/alice")
SOURCE = record.Source(replica="signer-1", version="0.1.0", config="cf" * 32)


def key(seed: int = 1) -> SoftwareKey:
    """A log key that is the same in every run."""
    return SoftwareKey(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def vkey(seed: int = 1, origin: str = ORIGIN) -> checkpoint.VerifierKey:
    """Its verifier key, under a log's origin."""
    return checkpoint.VerifierKey.make(origin, key(seed).public_key)


@dataclass(frozen=True, slots=True)
class Clamp:
    what: str = "lifetime"
    requested: timedelta = timedelta(hours=9)
    granted: timedelta = timedelta(hours=8)
    by: str = "profile user"


SUBJECT = record.commit("subject", "248289761001", salt=b"0123456789abcdef")

CERTIFICATE = record.CertificateGranted(
    principal=ALICE,
    issuer="https://login.demo.example",
    subject=SUBJECT,
    assurance=2,
    proof="id_token",
    binding="nonce",
    proof_digest="d1" * 32,
    rule="enrolled",
    clamp=Clamp(),
    ignored=("CN=bob", "URI:spiffe://demo.example/user/bob"),
    serial=0x1F2E3D,
    certificate="ce" * 32,
    spki="5f" * 32,
    not_before=NOW - timedelta(minutes=1),
    not_after=NOW + timedelta(hours=8),
    profile="user",
)
TOKEN = record.TokenGranted(
    principal=ALICE,
    peer="ce" * 32,
    rule="enrolled-rights",
    clamp=None,
    jti="00112233445566778899aabbccddeeff",
    kid="0a1b2c3d",
    audience=("beamline-data",),
    rights=(("beamline-data", "read", "/data/"), ("beamline-data", "write", "/data/alice/")),
    expires_at=NOW + timedelta(hours=1),
    block="ab" * 16,
    token="70" * 32,
    form="biscuit",
    delegations=1,
)
DENIED = record.Denied(operation="certificate", code="not-enrolled", issuer="https://login.demo.example", subject=SUBJECT)
REVOKED = record.CredentialRevoked(
    credential="principal", value=str(ALICE), reason="laptop lost", by="spiffe://demo.example/user/admin", before=1772366400
)
ENROLLED = record.EnrolmentChanged(
    action="enrolled", principal=ALICE, by="local", why="new at the beamline", commitments=(SUBJECT,)
)
STARTED = record.ServiceStarted(version="0.1.0", config="cf" * 32)
ISSUER_ADDED = record.IssuerAdded(
    issuer_id="campus", url="https://login.demo.example", by="local", why="contract with the campus"
)
KEY_ADDED = record.KeyAdded(use="token", kid="0a1b2c3d", spki="5f" * 32, by="local")
KEY_CHANGED = record.KeyChanged(
    use="token", changes=(("0a1b2c3d", "tainted"), ("1b2c3d4e", "active")), by="local", why="tape lost"
)

EVENTS: tuple[record.Event, ...] = (
    STARTED,
    KEY_ADDED,
    ENROLLED,
    CERTIFICATE,
    TOKEN,
    DENIED,
    REVOKED,
    KEY_CHANGED,
    ISSUER_ADDED,
)


def entry(index: int, *, origin: str = ORIGIN) -> bytes:
    """The bytes of the index-th record of the log that every test uses."""
    return record.encode(
        EVENTS[index % len(EVENTS)],
        origin=origin,
        request_id=f"request-{index:06d}",
        at=NOW + timedelta(milliseconds=index),
        source=SOURCE,
    )


def stored(bodies: Sequence[bytes], *, origin: str = ORIGIN) -> list[StoredEntry]:
    """The rows an honest log would keep for these entries."""
    rows = []
    value = chain.start(origin)
    for index, body in enumerate(bodies):
        leaf = tree.leaf_hash(body)
        value = chain.next_chain(value, leaf)
        rows.append(StoredEntry(index, body, leaf, value))
    return rows


@dataclass(frozen=True, slots=True)
class Log:
    """A log of n entries and what it can say about itself."""

    bodies: tuple[bytes, ...]
    rows: tuple[StoredEntry, ...]
    extension: tree.Extension

    @classmethod
    def of(cls, size: int) -> Log:
        bodies = tuple(entry(index) for index in range(size))
        rows = tuple(stored(bodies))
        return cls(bodies, rows, tree.extend(tree.Frontier(), [row.leaf for row in rows]))

    def checkpoint(self, size: int | None = None) -> checkpoint.Checkpoint:
        count = len(self.bodies) if size is None else size
        return checkpoint.Checkpoint(ORIGIN, count, tree.root_of(count, self.extension.read))

    def note(self, size: int | None = None) -> str:
        return checkpoint.sign(self.checkpoint(size), key=key())

    def receipt(self, index: int) -> Receipt:
        proof = tree.inclusion_proof(index, len(self.bodies), self.extension.read)
        return Receipt(entry=self.bodies[index], index=index, proof=proof, note=self.note())


def mutations(data: bytes) -> Iterator[bytes]:
    """Every single-byte change worth trying: each bit of each byte, bytes that end lines or text, one removed, one doubled."""
    for position, byte in enumerate(data):
        for other in {*(byte ^ 1 << bit for bit in range(8)), 0x00, 0x0A, 0x20, 0xFF} - {byte}:
            yield data[:position] + bytes([other]) + data[position + 1 :]
        yield data[:position] + data[position + 1 :]
        yield data[:position] + data[position : position + 1] + data[position:]
