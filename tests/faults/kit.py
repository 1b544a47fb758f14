"""What the tests of store and ledger share: a log key, submissions of every kind, and the check of the whole log."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert

from certauth.audit import record
from certauth.audit.chain import extend_chain
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.receipt import check
from certauth.audit.tree import extend, leaf_hash
from certauth.audit.verify import Report, verify_log
from certauth.enrolment import EnrolledRight, Enrolment, Login, Terms
from certauth.keys import SoftwareKey
from certauth.names import Principal, TrustDomain
from certauth.revocation import RevocationKind, Revoked
from signer.database import sqlite_url, writing_engine
from signer.ledger import Committed, Ledger, Replay, Submission
from signer.log_head import empty_head
from signer.log_reader import Head, LogReader
from signer.rows import CertificateRow, Change, EnrolmentRow, RevocationRow, StoreRow, TokenRow
from signer.store import Store, create_store, open_store
from signer.tables import LOG_ENTRY
from signer.writer import _move_head, _store_tiles

DOMAIN = TrustDomain("als.example")
ORIGIN = "als.example/certauth/log"
KEY = SoftwareKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"the log key of these tests").digest()))
VKEY = VerifierKey.make(ORIGIN, KEY.public_key)
SOURCE = record.Source(replica="replica-1", version="0.1.0", config=hashlib.sha256(b"settings").hexdigest())
NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
ISSUER = "https://login.als.example"


@dataclass
class TestClock:
    """A clock that stands still until told otherwise."""

    __test__ = False
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Facility:
    """One signer's database in a directory of its own."""

    directory: Path
    clock: TestClock = field(default_factory=TestClock)

    @property
    def path(self) -> Path:
        return self.directory / "signer.db"

    def create(self) -> Store:
        return create_store(sqlite_url(self.path), domain=DOMAIN, origin=ORIGIN)

    def open(self) -> Store:
        return open_store(sqlite_url(self.path), domain=DOMAIN, origin=ORIGIN)

    def ledger(self, store: Store, *, kind: type[Ledger] = Ledger, key: SoftwareKey = KEY) -> Ledger:
        return kind(store, key=key, source=SOURCE, clock=self.clock)

    @contextlib.contextmanager
    def running(self, *, kind: type[Ledger] = Ledger) -> Iterator[tuple[Store, Ledger]]:
        """Store and started ledger, created if the database is not there yet."""
        store = self.open() if self.path.exists() else self.create()
        ledger = self.ledger(store, kind=kind)
        try:
            with ledger:
                yield store, ledger
        finally:
            store.close()

    def sql(self, *statements: str) -> None:
        """What somebody with write access to the database can do to it; the append-only triggers do not stop them."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'log_%_no_%'"
        for (name,) in connection.execute(triggers).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
        connection.close()


def person(name: str = "bob", *, issuer: str = ISSUER, subject: str | None = None, **terms: object) -> Enrolment:
    """An enrolment with one right."""
    defaults: dict[str, object] = {
        "groups": ("beamline-8",),
        "rights": (EnrolledRight("files", "read", "/data/"),),
        "max_lifetime": timedelta(hours=8),
    }
    return Enrolment(
        principal=Principal.parse(f"spiffe://{DOMAIN}/user/{name}"),
        logins=(Login(issuer, subject or f"subject-of-{name}"),),
        **(defaults | terms),  # type: ignore[arg-type]  # the members' types are checked where they are written
    )


BOB = person().principal


def submission(
    name: str, *, rows: tuple[StoreRow, ...] = (), response: bytes | None = b"{}", proof: str | None = None, **more: object
) -> Submission:
    """A submission that records a refusal, under a request id made from ``name``; ``proof`` gives it a replay key."""
    replay = Replay(key=hashlib.sha256(proof.encode()).digest(), until=NOW + timedelta(minutes=10)) if proof else None
    members: dict[str, object] = {
        "request_id": f"request-{name}",
        "digest": hashlib.sha256(name.encode()).digest(),
        "event": record.Denied(operation="certificate", code="not-enrolled", principal=BOB),
        "replay": replay,
        "rows": rows,
        "response": response,
    }
    return Submission(**(members | more))  # type: ignore[arg-type]  # as above


def certificate_row(serial: int, *, principal: Principal = BOB) -> CertificateRow:
    """A row whose DER is not a certificate: the store never looks inside."""
    der = b"certificate %d" % serial
    return CertificateRow(
        fingerprint=hashlib.sha256(der).hexdigest(),
        serial=serial,
        principal=principal,
        key_fingerprint=hashlib.sha256(b"key").hexdigest(),
        not_before=NOW - timedelta(minutes=1),
        not_after=NOW + timedelta(hours=8),
        der=der,
        issuer_id="campus",
        terms=Terms(rule="staff", groups=("campus:staff",), max_lifetime=timedelta(hours=4)),
        session_at=NOW - timedelta(minutes=5),
    )


def certificate_granted(row: CertificateRow, *, salt: bytes = bytes(16)) -> record.CertificateGranted:
    """The record of a certificate, with one commitment."""
    return record.CertificateGranted(
        principal=row.principal,
        issuer=ISSUER,
        subject=record.commit("sub", "subject-of-bob", salt=salt),
        assurance=2,
        proof="id_token",
        binding="nonce",
        proof_digest=hashlib.sha256(b"proof").hexdigest(),
        rule="enrolled",
        clamp=None,
        ignored=(),
        serial=row.serial,
        certificate=row.fingerprint,
        spki=row.key_fingerprint,
        not_before=row.not_before,
        not_after=row.not_after,
        profile="user",
    )


def certificate(serial: int, **more: object) -> Submission:
    """A whole certificate grant: record, row, replay key."""
    row = certificate_row(serial)
    members: dict[str, object] = {"rows": (row,), "event": certificate_granted(row), "proof": f"proof {serial}"}
    return submission(f"certificate-{serial:x}", **(members | more))  # type: ignore[arg-type]  # as above


def token_row(jti: str) -> TokenRow:
    """A token of Bob's for an hour."""
    return TokenRow(
        jti=jti,
        principal=BOB,
        peer_fingerprint=hashlib.sha256(b"peer").hexdigest(),
        kid="0a0b0c0d",
        audience=("files", "queue"),
        issued_at=NOW,
        expires_at=NOW + timedelta(hours=1),
        token_sha256=hashlib.sha256(jti.encode()).hexdigest(),
    )


def revocation_row(kind: RevocationKind, value: str, *, expires_at: int | None = None) -> RevocationRow:
    """A withdrawal by the admin."""
    before = int(NOW.timestamp()) if kind is RevocationKind.PRINCIPAL else None
    revoked = Revoked(kind=kind, value=value, before=before, expires_at=expires_at, reason="lost", at=int(NOW.timestamp()))
    return RevocationRow(revoked=revoked, by="spiffe://als.example/user/admin")


def enrolment(who: Enrolment, *, change: Change = Change.NEW, name: str | None = None) -> Submission:
    """An enrolment, as the admin's command submits it."""
    row = EnrolmentRow(enrolment=who, display="Bob", by="admin", at=NOW, change=change)
    return submission(name or f"{change}-{who.principal.id}-{who.logins[0].issuer[-9:]}", rows=(row,))


def prefill(ledger: Ledger, count: int) -> None:
    """Give an empty, running log ``count`` entries in one go, the way the writer would have, only faster."""
    log, head, bodies = ledger._log, empty_head(ORIGIN), [b"entry %d" % number for number in range(count)]
    leaves = [leaf_hash(body) for body in bodies]
    chains = extend_chain(head.chain, leaves)
    extension = extend(head.frontier, leaves)
    engine = writing_engine(ledger._store.path, ledger._store.place.database)
    with engine.begin() as connection:
        rows = zip(bodies, leaves, chains, strict=True)
        entries = [{"seq": seq, "leaf": leaf, "chain": chain, "body": body} for seq, (body, leaf, chain) in enumerate(rows)]
        connection.execute(insert(LOG_ENTRY), entries)
        _store_tiles(connection, LogReader(connection), extension)
        _move_head(connection, head, Head(frontier=extension.frontier, chain=chains[-1], at=0), log=log)


def verify(store: Store) -> Report:
    """The whole log against every checkpoint ever signed."""
    with store.log() as reader:
        note = reader.checkpoint()
        if note is None:
            raise AssertionError("the log is empty")
        return verify_log(reader.entries(), note, VKEY, older=list(reader.checkpoints()))


def proves(committed: Committed) -> bool:
    """Whether a receipt, all by itself, shows that the log holds the entry."""
    checked = check(committed.receipt, VKEY)
    return (checked.index, checked.leaf_hash) == (committed.index, committed.leaf_hash)
