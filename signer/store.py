"""The signer's durable state: who is enrolled, what was granted and withdrawn, and the log that proves it.

Reading is here. Writing is not: every change is a row in a ``Submission`` to ``signer.ledger``, so that nothing changes
without the entry that records it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, Select, bindparam, exists, func, insert, inspect, not_, or_, select
from sqlalchemy.exc import SQLAlchemyError

from certauth.audit.checkpoint import check_origin
from certauth.clock import from_timestamp
from certauth.enrolment import Enrolment, Login
from certauth.errors import StoreError
from certauth.names import Principal, TrustDomain
from certauth.revocation import RevocationKind
from signer import database, reading
from signer.faults import cause_of
from signer.log_head import empty_head, head_columns
from signer.log_reader import LogReader
from signer.reading import StoredCode, StoredRevocation
from signer.rows import (
    ApplicationRow,
    ApplicationState,
    EnrolledPrincipal,
    StoredCertificate,
    StoredToken,
)
from signer.tables import (
    APPEND_ONLY_SQLITE,
    APPLICATION,
    CERTIFICATE,
    CLIENT_KEY,
    CODE,
    KEY_INDEX,
    LOG_HEAD,
    LOGIN,
    META,
    PRINCIPAL,
    REPLAY,
    REVOCATION,
    SCHEMA_VERSION,
    TOKEN,
    metadata,
)

PAGE = 1000
"""Rows a list returns at most; ask again after the last one."""

# On the road of every request, hence built once: building a statement costs more than running it.
_PEOPLE = select(PRINCIPAL, LOGIN.c.issuer, LOGIN.c.subject).outerjoin(LOGIN, LOGIN.c.principal == PRINCIPAL.c.principal)
_OF_LOGIN = select(LOGIN.c.principal).where(LOGIN.c.issuer == bindparam("issuer"), LOGIN.c.subject == bindparam("subject"))
_BY_LOGIN = _PEOPLE.where(PRINCIPAL.c.principal == _OF_LOGIN.scalar_subquery())
_BY_PRINCIPAL = _PEOPLE.where(PRINCIPAL.c.principal == bindparam("principal"))
_BY_OWNER = _PEOPLE.where(PRINCIPAL.c.owner == bindparam("owner")).order_by(PRINCIPAL.c.principal)
_KEY_INDEX = select(META.c.value).where(META.c.name == KEY_INDEX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """An open database. Safe to share between threads; ``close`` it when its ``Ledger`` is closed."""

    path: Path
    domain: TrustDomain
    origin: str
    place: database.Place
    engine: Engine

    def enrolment(self, *, issuer: str, subject: str) -> Enrolment | None:
        """Whoever this identity provider calls ``subject``; another provider's same subject is somebody else."""
        found = self._people(_BY_LOGIN, {"issuer": issuer, "subject": subject})
        return found[0].enrolment if found else None

    def enrolment_by_principal(self, principal: Principal) -> Enrolment | None:
        person = self.enrolled_principal(principal)
        return None if person is None else person.enrolment

    def enrolled_principal(self, principal: Principal) -> EnrolledPrincipal | None:
        found = self._people(_BY_PRINCIPAL, {"principal": str(principal)})
        return found[0] if found else None

    def enrolled_principals(self, *, after: str = "", limit: int = PAGE) -> tuple[EnrolledPrincipal, ...]:
        """Everybody enrolled, by principal, beginning after the principal ``after``."""
        page = select(PRINCIPAL.c.principal).where(PRINCIPAL.c.principal > after).order_by(PRINCIPAL.c.principal).limit(limit)
        return self._people(_PEOPLE.where(PRINCIPAL.c.principal.in_(page)).order_by(PRINCIPAL.c.principal))

    def owned_by(self, owner: Principal) -> tuple[EnrolledPrincipal, ...]:
        """The agents of ``owner``, by principal."""
        return self._people(_BY_OWNER, {"owner": str(owner)})

    def client_keys(self, principal: Principal) -> tuple[str, ...]:
        """The JWKs with which ``principal`` may sign client assertions."""
        statement = select(CLIENT_KEY.c.jwk).where(CLIENT_KEY.c.principal == str(principal)).order_by(CLIENT_KEY.c.kid)
        return tuple(row["jwk"] for row in self._all(statement))

    def _people(self, statement: Select[Any], parameters: Mapping[str, Any] | None = None) -> tuple[EnrolledPrincipal, ...]:
        """The people of a statement that yields them once for each of their logins."""
        of_each = groupby(self._all(statement, parameters), key=lambda row: str(row["principal"]))
        return tuple(reading.enrolled_principal_from(list(found)) for _, found in of_each)

    def code(self, digest: str) -> StoredCode | None:
        """The one-time code with this SHA-256 (hex)."""
        found = self._all(select(CODE).where(CODE.c.digest == digest))
        return reading.code_from(found[0]) if found else None

    def codes(self, *, limit: int = PAGE) -> tuple[StoredCode, ...]:
        """The codes handed out last, newest first."""
        statement = select(CODE).order_by(CODE.c.made_at.desc(), CODE.c.digest).limit(limit)
        return tuple(reading.code_from(row) for row in self._all(statement))

    def application(self, login: Login) -> ApplicationRow | None:
        """What somebody's wish to be enrolled came to."""
        statement = select(APPLICATION).where(APPLICATION.c.issuer == login.issuer, APPLICATION.c.subject == login.subject)
        found = self._all(statement)
        return reading.application_from(found[0]) if found else None

    def applications(self, state: ApplicationState, *, limit: int = PAGE) -> tuple[ApplicationRow, ...]:
        """Those in this state, the longest waiting first."""
        statement = select(APPLICATION).where(APPLICATION.c.state == str(state)).order_by(APPLICATION.c.asked_at).limit(limit)
        return tuple(reading.application_from(row) for row in self._all(statement))

    def has_used(self, proof_digest: bytes) -> bool:
        """Whether a proof of identity led to a grant already, as far back as it could be used again."""
        return bool(self._all(select(REPLAY.c.key).where(REPLAY.c.key == proof_digest)))

    def certificate(self, fingerprint: str) -> StoredCertificate | None:
        found = self._all(select(CERTIFICATE).where(CERTIFICATE.c.fingerprint == fingerprint))
        return reading.certificate_from(found[0]) if found else None

    def newest_certificate(self, principal: Principal) -> StoredCertificate | None:
        """The certificate recorded last for ``principal``."""
        statement = select(CERTIFICATE).where(CERTIFICATE.c.principal == str(principal)).order_by(CERTIFICATE.c.seq.desc())
        found = self._all(statement.limit(1))
        return reading.certificate_from(found[0]) if found else None

    def certificates_in_hand(
        self,
        principals: Sequence[Principal],
        *,
        ended_after: datetime,
        known_for: timedelta,
        until: int | None,
        limit: int,
    ) -> tuple[tuple[str, datetime], ...]:
        """Fingerprint and end of the certificates of ``principals`` that end after ``ended_after``, newest first.

        Without those that are withdrawn, by their fingerprint, for at least ``known_for`` past their end. With ``until``, those
        that were recorded before that log entry.
        """
        own = (CERTIFICATE.c.principal.in_([str(one) for one in principals]), CERTIFICATE.c.not_after > _posix(ended_after))
        known = exists().where(
            REVOCATION.c.value == CERTIFICATE.c.fingerprint,
            REVOCATION.c.kind == str(RevocationKind.CERTIFICATE),
            or_(
                REVOCATION.c.expires_at.is_(None),
                REVOCATION.c.expires_at >= CERTIFICATE.c.not_after + int(known_for.total_seconds()),
            ),
        )
        statement = select(CERTIFICATE.c.fingerprint, CERTIFICATE.c.not_after).where(*own, not_(known))
        if until is not None:
            statement = statement.where(CERTIFICATE.c.seq < until)
        found = self._all(statement.order_by(CERTIFICATE.c.seq.desc()).limit(limit))
        return tuple((row["fingerprint"], from_timestamp(row["not_after"])) for row in found)

    def certificate_at(self, seq: int) -> StoredCertificate | None:
        """The certificate that log entry ``seq`` recorded."""
        found = self._all(select(CERTIFICATE).where(CERTIFICATE.c.seq == seq))
        return reading.certificate_from(found[0]) if found else None

    def certificates(
        self, *, principal: Principal | None = None, after: int = -1, limit: int = PAGE
    ) -> tuple[StoredCertificate, ...]:
        """Certificates in the order they were recorded, beginning after log entry ``after``."""
        statement = select(CERTIFICATE).where(CERTIFICATE.c.seq > after).order_by(CERTIFICATE.c.seq).limit(limit)
        if principal is not None:
            statement = statement.where(CERTIFICATE.c.principal == str(principal))
        return tuple(reading.certificate_from(row) for row in self._all(statement))

    def token(self, jti: str) -> StoredToken | None:
        found = self._all(select(TOKEN).where(TOKEN.c.jti == jti))
        return reading.token_from(found[0]) if found else None

    def token_with_digest(self, sha256: str) -> StoredToken | None:
        """The token whose bytes have this SHA-256 (hex)."""
        found = self._all(select(TOKEN).where(TOKEN.c.token_sha256 == sha256))
        return reading.token_from(found[0]) if found else None

    def tokens(self, *, principal: Principal | None = None, after: int = -1, limit: int = PAGE) -> tuple[StoredToken, ...]:
        """Tokens in the order they were recorded, beginning after log entry ``after``."""
        statement = select(TOKEN).where(TOKEN.c.seq > after).order_by(TOKEN.c.seq).limit(limit)
        if principal is not None:
            statement = statement.where(TOKEN.c.principal == str(principal))
        return tuple(reading.token_from(row) for row in self._all(statement))

    def revocations(self, *, now: int, since: int = 0) -> tuple[StoredRevocation, ...]:
        """Every withdrawal numbered above ``since`` whose credential has not ended by itself at ``now`` (POSIX seconds)."""
        alive = or_(REVOCATION.c.expires_at.is_(None), REVOCATION.c.expires_at > now)
        statement = select(REVOCATION).where(REVOCATION.c.id > since, alive).order_by(REVOCATION.c.id)
        return tuple(reading.revocation_from(row) for row in self._all(statement))

    def living_revocations(self, kinds: Sequence[RevocationKind], *, by: str, now: int) -> int:
        """How many withdrawals of these kinds are in force that ``by`` caused."""
        named = [str(kind) for kind in kinds]
        mine = (REVOCATION.c.revoked_by == by, REVOCATION.c.kind.in_(named), REVOCATION.c.expires_at > now)
        with self._reading() as connection:
            return int(connection.execute(select(func.count()).select_from(REVOCATION).where(*mine)).scalar_one())

    def count_revocations(self, *, now: int) -> int:
        """How many withdrawals the feed holds at ``now`` (POSIX seconds)."""
        alive = or_(REVOCATION.c.expires_at.is_(None), REVOCATION.c.expires_at > now)
        with self._reading() as connection:
            return int(connection.execute(select(func.count()).select_from(REVOCATION).where(alive)).scalar_one())

    def is_withdrawn(self, kind: RevocationKind, value: str, *, until: int) -> bool:
        """Whether the feed names ``value``, and will at least ``until`` (POSIX seconds)."""
        known = or_(REVOCATION.c.expires_at.is_(None), REVOCATION.c.expires_at >= until)
        statement = select(REVOCATION.c.id).where(REVOCATION.c.kind == str(kind), REVOCATION.c.value == value, known)
        return bool(self._all(statement.limit(1)))

    def key_index(self) -> str | None:
        """The signing keys and their states (``signer.key_index``); ``None`` while none of them was ever changed."""
        found = self._all(_KEY_INDEX)
        return str(found[0]["value"]) if found else None

    def last_token_end(self, kid: str) -> datetime | None:
        """When the last token that this key signed ends by itself; ``None`` if it never signed one."""
        with self._reading() as connection:
            end = connection.execute(select(func.max(TOKEN.c.expires_at)).where(TOKEN.c.kid == kid)).scalar_one()
        return None if end is None else from_timestamp(end)

    def newest_revocation(self) -> int:
        """The number of the newest withdrawal, 0 before the first; it never goes back."""
        with self._reading() as connection:
            return int(connection.execute(select(func.coalesce(func.max(REVOCATION.c.id), 0))).scalar_one())

    @contextlib.contextmanager
    def log(self) -> Iterator[LogReader]:
        """The log as of now: one snapshot, however long the reading takes."""
        with self._reading() as connection:
            yield LogReader(connection)

    def check(self) -> None:
        """Raise ``StoreError`` if the database was moved away or cannot be read."""
        self.place.check()
        with self._reading() as connection:
            connection.execute(select(META.c.name).limit(1)).all()

    def close(self) -> None:
        self.engine.dispose()

    def _all(self, statement: Select[Any], parameters: Mapping[str, Any] | None = None) -> list[RowMapping]:
        with self._reading() as connection:
            return list(connection.execute(statement, parameters).mappings())

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self.engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise cause_of(error) from error


def create_store(url: str, *, domain: TrustDomain, origin: str) -> Store:
    """Make an empty database for a trust domain's signer; ``StoreError`` (``store-exists``) if the file is there."""
    path, head = database.path_of(url), empty_head(check_origin(origin))
    engine = database.writing_engine(path, database.create_file(path))
    try:
        with engine.begin() as connection:
            metadata.create_all(connection)
            for statement in APPEND_ONLY_SQLITE:
                connection.exec_driver_sql(statement)
            connection.execute(insert(LOG_HEAD), {"id": 1} | head_columns(head))
            described = {"schema": SCHEMA_VERSION, "domain": str(domain), "origin": origin}
            connection.execute(insert(META), [{"name": name, "value": value} for name, value in described.items()])
    except SQLAlchemyError as error:
        path.unlink()  # it is ours, made a moment ago, and half a database would only be in the way
        raise cause_of(error) from error
    return open_store(url, domain=domain, origin=origin)


def open_store(url: str, *, domain: TrustDomain, origin: str) -> Store:
    """Open the database of this trust domain's signer.

    Raises ``StoreError``: ``store-missing`` (a database is made by ``create_store`` only, so a wrong path never becomes an
    empty log), ``store-foreign`` (it belongs to another trust domain or log), ``store-version``, ``database-moved``.
    """
    path = database.path_of(url)
    identity = database.identity(path)
    if identity is None:
        raise StoreError("store-missing", f"there is no database at {path}", hint="run 'certauth signer init' first")
    engine = database.reading_engine(path, identity)
    try:
        with engine.connect() as connection:
            described = read_meta(connection)
            place = database.locate(path, identity)
    except SQLAlchemyError as error:
        engine.dispose()
        raise cause_of(error) from error
    store = Store(path=path, domain=domain, origin=origin, place=place, engine=engine)
    try:
        _is_ours(store, described)
    except StoreError:
        store.close()
        raise
    return store


def _posix(moment: datetime) -> int:
    return int(moment.timestamp())


def read_meta(connection: Connection) -> dict[str, str]:
    """What the database says it is; empty for a database that is not a signer's."""
    if not inspect(connection).has_table(META.name):
        return {}
    return {row.name: row.value for row in connection.execute(select(META))}


def _is_ours(store: Store, described: dict[str, str]) -> None:
    if described.get("schema") != SCHEMA_VERSION:
        raise StoreError(
            "store-version",
            f"{store.path} does not hold version {SCHEMA_VERSION} of the signer's tables",
            hint="use the version of certauth that made it",
        )
    if (described.get("domain"), described.get("origin")) != (str(store.domain), store.origin):
        raise StoreError(
            "store-foreign",
            f"{store.path} belongs to {described.get('domain')} and holds the log {described.get('origin')}",
            hint="check 'database' and 'trust_domain' in the settings",
        )
