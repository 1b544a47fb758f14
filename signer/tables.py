"""The tables of the signer's database, as SQLModel classes: the schema, and what admin queries read.

Portable SQL only. Times are whole seconds since the epoch (the log's are microseconds), hashes that people look up are hex,
lists are canonical JSON. Nothing here is a secret: tokens appear as hashes, personal data of the log as disclosures that can
be deleted without touching the entry that commits to them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, LargeBinary
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

SCHEMA_VERSION: Final = "1"
KEY_INDEX: Final = "keys"
"""The row of ``meta`` that holds the signing keys and their states; absent until the first change of one."""


class Base(SQLModel, registry=registry()):
    """Keeps these tables apart from any other SQLModel in the process."""


def _bytes(*, primary_key: bool = False, nullable: bool = False) -> Column[bytes]:
    return Column(LargeBinary, primary_key=primary_key, nullable=nullable)


def _counter(*, primary_key: bool = False, index: bool | None = None) -> Column[int]:
    """A 64-bit number we assign ourselves; SQLite's INTEGER is one, and as a key it is the row's own address."""
    return Column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=primary_key, index=index, nullable=False, autoincrement=False
    )


class Meta(Base, table=True):
    """What this database is: schema version, trust domain, origin of its log; and which keys sign tokens."""

    __tablename__ = "meta"
    name: str = Field(primary_key=True)
    value: str


class PrincipalTable(Base, table=True):
    """Who is enrolled, and for what. ``owner`` is whose agent it is; ``networks`` and ``hosts`` as in ``Enrolment``."""

    __tablename__ = "principal"
    principal: str = Field(primary_key=True)
    display: str
    groups: str
    roles: str
    projects: str
    rights: str
    assurance: int
    max_lifetime: int | None = None
    owner: str | None = Field(default=None, index=True)
    expires_at: int | None = None
    networks: str
    hosts: str
    disabled_at: int | None = None
    enrolled_at: int
    enrolled_by: str


class LoginTable(Base, table=True):
    """The logins that lead to a principal: one (issuer, subject) is one principal, for ever."""

    __tablename__ = "login"
    issuer: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    principal: str = Field(index=True)
    linked_at: int
    linked_by: str


class ClientKeyTable(Base, table=True):
    """The public keys with which a service or agent signs its client assertions (RFC 7523), as JWKs."""

    __tablename__ = "client_key"
    principal: str = Field(primary_key=True)
    kid: str = Field(primary_key=True)
    jwk: str
    added_at: int
    added_by: str


class CodeTable(Base, table=True):
    """One-time codes that were handed out, by the SHA-256 of the code: invitations of people, first proofs of machines.

    ``principal`` is whom it leads to, if that was decided; ``terms`` are what a newcomer is enrolled for.
    """

    __tablename__ = "code"
    digest: str = Field(primary_key=True)
    purpose: str
    principal: str | None = None
    email: str | None = None
    issuer: str | None = None
    terms: str
    expires_at: int
    made_at: int
    made_by: str
    used_at: int | None = None
    used_by: str | None = None


class ApplicationTable(Base, table=True):
    """People who logged in at an issuer in mode ``approve`` and wait for an administrator."""

    __tablename__ = "application"
    issuer: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    name: str
    display: str
    email: str
    state: str = Field(index=True)
    asked_at: int
    decided_at: int | None = None
    decided_by: str | None = None


class CertificateTable(Base, table=True):
    """Every certificate issued, with the entry that recorded it.

    ``terms`` are what the admission rules made of the login that began the session at ``session_at``; a renewal keeps both.
    """

    __tablename__ = "certificate"
    fingerprint: str = Field(primary_key=True)
    serial: str = Field(unique=True)
    principal: str = Field(index=True)
    key_fingerprint: str
    issuer_id: str
    terms: str
    session_at: int
    not_before: int
    not_after: int
    der: bytes = Field(sa_column=_bytes())
    seq: int = Field(sa_column=_counter(index=True))


class TokenTable(Base, table=True):
    """Every token minted: what it was for and its hash, never the token."""

    __tablename__ = "token"
    jti: str = Field(primary_key=True)
    principal: str = Field(index=True)
    peer_fingerprint: str
    kid: str
    audience: str
    issued_at: int
    expires_at: int
    token_sha256: str = Field(index=True)
    ends_with: str
    seq: int = Field(sa_column=_counter(index=True))


class ReplayTable(Base, table=True):
    """Proofs already used, until the moment after which they would be refused as expired anyway."""

    __tablename__ = "replay"
    __table_args__ = ({"sqlite_with_rowid": False},)
    key: bytes = Field(sa_column=_bytes(primary_key=True))
    until: int = Field(index=True)


class RevocationTable(Base, table=True):
    """What was withdrawn, in the order in which it was."""

    __tablename__ = "revocation"
    id: int | None = Field(default=None, primary_key=True)
    kind: str
    value: str = Field(index=True)
    before: int | None = None
    expires_at: int | None = None
    reason: str
    revoked_by: str
    at: int
    seq: int = Field(sa_column=_counter())


class RequestTable(Base, table=True):
    """Requests already recorded: what makes a repetition of one harmless, and an unknown outcome knowable."""

    __tablename__ = "request"
    request_id: str = Field(primary_key=True)
    digest: bytes = Field(sa_column=_bytes())
    response: bytes | None = Field(default=None, sa_column=_bytes(nullable=True))
    seq: int = Field(sa_column=_counter())


class LogEntryTable(Base, table=True):
    """The log: exact bytes, their leaf hash, and the chain up to them."""

    __tablename__ = "log_entry"
    seq: int = Field(sa_column=_counter(primary_key=True))
    leaf: bytes = Field(sa_column=_bytes())
    chain: bytes = Field(sa_column=_bytes())
    body: bytes = Field(sa_column=_bytes())


class LogTileTable(Base, table=True):
    """Full tiles of 256 hashes; partial ones follow from the entries (level 0) or from the roots of the level below."""

    __tablename__ = "log_tile"
    level: int = Field(primary_key=True)
    idx: int = Field(sa_column=_counter(primary_key=True))
    root: bytes = Field(sa_column=_bytes())
    data: bytes = Field(sa_column=_bytes())


class LogHeadTable(Base, table=True):
    """The one row every batch changes: size, chain value, right edge of the tree, time of the newest entry."""

    __tablename__ = "log_head"
    id: int = Field(primary_key=True)
    size: int = Field(sa_column=_counter())
    chain: bytes = Field(sa_column=_bytes())
    frontier: bytes = Field(sa_column=_bytes())
    at: int = Field(sa_column=_counter())


class LogCheckpointTable(Base, table=True):
    """Every checkpoint ever signed, one per size."""

    __tablename__ = "log_checkpoint"
    size: int = Field(sa_column=_counter(primary_key=True))
    root: bytes = Field(sa_column=_bytes())
    note: str
    at: int = Field(sa_column=_counter())


class LogDisclosureTable(Base, table=True):
    """Personal data to which an entry commits; deleting a row erases the data and leaves every proof valid."""

    __tablename__ = "log_disclosure"
    __table_args__ = ({"sqlite_with_rowid": False},)
    seq: int = Field(sa_column=_counter(primary_key=True))
    digest: str = Field(primary_key=True)
    principal: str | None = Field(default=None, index=True)
    disclosure: str


metadata = Base.metadata
META, PRINCIPAL, LOGIN, CLIENT_KEY, CODE, APPLICATION = (
    metadata.tables[name] for name in ("meta", "principal", "login", "client_key", "code", "application")
)
CERTIFICATE, TOKEN, REPLAY, REVOCATION, REQUEST = (
    metadata.tables[name] for name in ("certificate", "token", "replay", "revocation", "request")
)
LOG_ENTRY, LOG_TILE, LOG_HEAD, LOG_CHECKPOINT, LOG_DISCLOSURE = (
    metadata.tables[name] for name in ("log_entry", "log_tile", "log_head", "log_checkpoint", "log_disclosure")
)

# Tamper evidence comes from the signed tree. The triggers only stop an honest mistake at an SQL prompt.
APPEND_ONLY_SQLITE: Final = tuple(
    f"CREATE TRIGGER {table.name}_no_{change.lower()} BEFORE {change} ON {table.name} "
    f"BEGIN SELECT RAISE(ABORT, '{table.name} is append-only'); END"
    for table in (LOG_ENTRY, LOG_TILE, LOG_CHECKPOINT)
    for change in ("UPDATE", "DELETE")
)
