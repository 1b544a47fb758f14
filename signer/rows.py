"""What the store keeps, as typed values, and their spelling in columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, assert_never

from sqlalchemy import RowMapping

from certauth.enrolment import EnrolledRight, Enrolment, Login, Terms
from certauth.names import Principal
from certauth.revocation import Revoked
from signer.key_index import KeyIndexRow

Columns = dict[str, Any]
"""One row as SQLAlchemy takes it."""
Found = RowMapping
"""One row as SQLAlchemy gives it; ``signer.reading`` understands it."""

_NO_TERMS = Terms()


class Change(StrEnum):
    """What an enrolment row does to the table."""

    NEW = "new"
    """Insert; a principal or (issuer, subject) that is already there is a conflict, so nobody is silently replaced."""
    CHANGED = "changed"
    """Replace the terms of this principal, not whether it is disabled; one that is not there is a conflict."""
    STATE = "state"
    """Disable or enable this principal, and leave the terms: so neither change undoes another made at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRow:
    """A certificate that was granted. ``der`` is the leaf alone and authoritative."""

    fingerprint: str
    serial: int
    principal: Principal
    key_fingerprint: str
    not_before: datetime
    not_after: datetime
    der: bytes
    issuer_id: str
    terms: Terms
    session_at: datetime

    def columns(self, seq: int) -> Columns:
        return {
            "fingerprint": self.fingerprint,
            "serial": str(self.serial),  # up to 159 bits: no database integer holds it
            "principal": str(self.principal),
            "key_fingerprint": self.key_fingerprint,
            "issuer_id": self.issuer_id,
            "terms": _dump(_terms_members(self.terms)),
            "session_at": int(self.session_at.timestamp()),
            "not_before": int(self.not_before.timestamp()),
            "not_after": int(self.not_after.timestamp()),
            "der": self.der,
            "seq": seq,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """A token that was granted: its hash (hex SHA-256 of its bytes), never the token."""

    jti: str
    principal: Principal
    peer_fingerprint: str
    kid: str
    audience: tuple[str, ...]
    issued_at: datetime
    expires_at: datetime
    token_sha256: str
    ends_with: tuple[tuple[str, str], ...] = ()
    """What else ends it when it is withdrawn, kind and value: the token it was made from."""

    def columns(self, seq: int) -> Columns:
        return {
            "jti": self.jti,
            "principal": str(self.principal),
            "peer_fingerprint": self.peer_fingerprint,
            "kid": self.kid,
            "audience": _list(self.audience),
            "issued_at": int(self.issued_at.timestamp()),
            "expires_at": int(self.expires_at.timestamp()),
            "ends_with": _dump([list(one) for one in self.ends_with]),
            "token_sha256": self.token_sha256,
            "seq": seq,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationRow:
    """A withdrawal, and who made it."""

    revoked: Revoked
    by: str

    def columns(self, seq: int) -> Columns:
        entry = self.revoked
        return {
            "kind": str(entry.kind),
            "value": entry.value,
            "before": entry.before,
            "expires_at": entry.expires_at,
            "reason": entry.reason,
            "revoked_by": self.by,
            "at": entry.at,
            "seq": seq,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRow:
    """A login from now on leads to this principal; one that leads anywhere already is a conflict."""

    principal: Principal
    login: Login
    by: str
    at: datetime

    def columns(self, _seq: int = 0) -> Columns:
        return {
            "issuer": self.login.issuer,
            "subject": self.login.subject,
            "principal": str(self.principal),
            "linked_at": int(self.at.timestamp()),
            "linked_by": self.by,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRemoved:
    """A login leads nowhere any more; one that did not lead to this principal is a conflict."""

    principal: Principal
    login: Login


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRow:
    """Somebody is enrolled, or their enrolment changes (groups, rights, disabled, enabled again)."""

    enrolment: Enrolment
    display: str
    by: str
    at: datetime
    change: Change

    def columns(self) -> Columns:
        who, at = self.enrolment, int(self.at.timestamp())
        changing: Columns = {
            "display": self.display,
            "groups": _list(who.groups),
            "roles": _list(who.roles),
            "projects": _list(who.projects),
            "rights": _dump(_triples(who.rights)),
            "assurance": who.assurance,
            "max_lifetime": _seconds(who.max_lifetime),
            "owner": None if who.owner is None else str(who.owner),
            "expires_at": None if who.expires_at is None else int(who.expires_at.timestamp()),
            "networks": _list(tuple(str(network) for network in who.networks)),
            "hosts": _list(who.hosts),
        }
        state = {"disabled_at": at if who.disabled else None}
        match self.change:
            case Change.NEW:
                changing |= state | {"enrolled_at": at, "enrolled_by": self.by}
            case Change.STATE:
                changing = state
            case Change.CHANGED:
                pass
            case _:
                assert_never(self.change)
        return {"principal": str(who.principal)} | changing

    def logins(self) -> tuple[LoginRow, ...]:
        """The logins that come with a new enrolment."""
        who = self.enrolment
        return tuple([LoginRow(principal=who.principal, login=login, by=self.by, at=self.at) for login in who.logins])


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKeyRow:
    """A key with which a service or agent proves who it is; ``kid`` is the RFC 7638 thumbprint of ``jwk``."""

    principal: Principal
    kid: str
    jwk: str
    by: str
    at: datetime

    def columns(self, _seq: int = 0) -> Columns:
        return {
            "principal": str(self.principal),
            "kid": self.kid,
            "jwk": self.jwk,
            "added_at": int(self.at.timestamp()),
            "added_by": self.by,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKeyRemoved:
    """A key proves nothing any more; one that was not there is a conflict."""

    principal: Principal
    kid: str


class Purpose(StrEnum):
    """What a one-time code is for."""

    INVITE = "invite"
    """It lets a person whom an identity provider vouches for enrol themselves."""
    MACHINE = "machine"
    """It is itself the first proof of a service, host or agent that is enrolled already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRow:
    """A one-time code was handed out. ``digest`` is the hex SHA-256 of it; the code itself is nowhere."""

    digest: str
    purpose: Purpose
    expires_at: datetime
    by: str
    at: datetime
    principal: Principal | None = None
    email: str | None = None
    """Only for somebody whose provider vouches for this address."""
    issuer: str | None = None
    """Only for logins at this provider, by its URL."""
    terms: Terms = _NO_TERMS
    """What a newcomer is enrolled for."""

    def columns(self, _seq: int = 0) -> Columns:
        return {
            "digest": self.digest,
            "purpose": str(self.purpose),
            "principal": None if self.principal is None else str(self.principal),
            "email": self.email,
            "issuer": self.issuer,
            "terms": _dump(_terms_members(self.terms)),
            "expires_at": int(self.expires_at.timestamp()),
            "made_at": int(self.at.timestamp()),
            "made_by": self.by,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeUsed:
    """A code was used; one that was used before is a conflict, and so is one that was withdrawn."""

    digest: str
    by: str
    at: datetime

    def columns(self) -> Columns:
        return {"used_at": int(self.at.timestamp()), "used_by": self.by}


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeWithdrawn:
    """A code was taken back before it was used; one that was used is a conflict."""

    digest: str
    by: str
    at: datetime

    def columns(self) -> Columns:
        return {"used_at": int(self.at.timestamp()), "used_by": WITHDRAWN + self.by}


WITHDRAWN = "withdrawn by "
"""How the column tells a withdrawal from a use, which is by a principal."""


class ApplicationState(StrEnum):
    """What became of an application."""

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationRow:
    """Somebody asks to be enrolled, or an administrator has decided on it. Replaces what was said of them before."""

    login: Login
    name: str
    """The principal they asked to become; an administrator may have made them another one."""
    display: str
    email: str
    state: ApplicationState
    asked_at: datetime
    decided_at: datetime | None = None
    decided_by: str | None = None

    def columns(self) -> Columns:
        return {
            "issuer": self.login.issuer,
            "subject": self.login.subject,
            "name": self.name,
            "display": self.display,
            "email": self.email,
            "state": str(self.state),
            "asked_at": int(self.asked_at.timestamp()),
            "decided_at": None if self.decided_at is None else int(self.decided_at.timestamp()),
            "decided_by": self.decided_by,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """The personal data of a principal go: display name, logins, applications, addresses, and what the log only commits to.

    The name of the principal stays, disabled, so that nobody else can ever be given it; the log goes on verifying.
    Invitations of theirs that nobody used are withdrawn: without its address one would be anybody's.
    """

    principal: Principal
    by: str
    at: datetime


StoreRow = (
    CertificateRow
    | TokenRow
    | RevocationRow
    | EnrolmentRow
    | LoginRow
    | LoginRemoved
    | ClientKeyRow
    | ClientKeyRemoved
    | CodeRow
    | CodeUsed
    | CodeWithdrawn
    | ApplicationRow
    | Erasure
    | KeyIndexRow
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledPrincipal:
    """An enrolment as the admin sees it."""

    enrolment: Enrolment
    display: str
    disabled_at: datetime | None
    enrolled_at: datetime
    enrolled_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCertificate:
    """A certificate row with the index of the log entry that recorded it."""

    row: CertificateRow
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredToken:
    """A token row with the index of the log entry that recorded it."""

    row: TokenRow
    seq: int


def _terms_members(terms: Terms) -> dict[str, object]:
    return {
        "rule": terms.rule,
        "groups": list(terms.groups),
        "roles": list(terms.roles),
        "projects": list(terms.projects),
        "rights": _triples(terms.rights),
        "assurance": terms.assurance,
        "max_lifetime": _seconds(terms.max_lifetime),
    }


def _triples(rights: tuple[EnrolledRight, ...]) -> list[list[str]]:
    return [[right.service, right.operation, right.path] for right in rights]


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else int(span.total_seconds())


def _list(values: tuple[str, ...]) -> str:
    return _dump(list(values))


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
