"""From the columns of stored rows back to typed values; ``signer.rows`` spells them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_network
from typing import Any

from certauth.clock import from_timestamp
from certauth.enrolment import EnrolledRight, Enrolment, Login, Terms
from certauth.names import Principal
from certauth.revocation import RevocationKind, Revoked
from signer.rows import (
    WITHDRAWN,
    ApplicationRow,
    ApplicationState,
    CertificateRow,
    CodeRow,
    EnrolledPrincipal,
    Found,
    Purpose,
    RevocationRow,
    StoredCertificate,
    StoredToken,
    TokenRow,
)


class CodeState(StrEnum):
    """How a code stands."""

    OPEN = "open"
    USED = "used"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCode:
    """A code row, and whether it was used."""

    row: CodeRow
    used_at: datetime | None
    used_by: str | None
    """The principal that used it, or who withdrew it."""

    def state(self, now: datetime) -> CodeState:
        if self.used_at is not None:
            return CodeState.WITHDRAWN if (self.used_by or "").startswith(WITHDRAWN) else CodeState.USED
        return CodeState.EXPIRED if now >= self.row.expires_at else CodeState.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRevocation:
    """A withdrawal with its number (numbers only grow) and the index of its log entry."""

    id: int
    row: RevocationRow
    seq: int


def enrolled_principal_from(found: list[Found]) -> EnrolledPrincipal:
    """Somebody enrolled, from their row of ``principal`` joined with each of their logins."""
    columns = found[0]
    owner, ends, disabled_at = columns["owner"], columns["expires_at"], columns["disabled_at"]
    enrolment = Enrolment(
        principal=Principal.parse(columns["principal"]),
        logins=tuple([Login(row["issuer"], row["subject"]) for row in found if row["issuer"] is not None]),
        groups=tuple(json.loads(columns["groups"])),
        roles=tuple(json.loads(columns["roles"])),
        projects=tuple(json.loads(columns["projects"])),
        rights=_rights(json.loads(columns["rights"])),
        assurance=columns["assurance"],
        max_lifetime=_span(columns["max_lifetime"]),
        disabled=disabled_at is not None,
        owner=None if owner is None else Principal.parse(owner),
        expires_at=None if ends is None else from_timestamp(ends),
        networks=tuple([ip_network(network) for network in json.loads(columns["networks"])]),
        hosts=tuple(json.loads(columns["hosts"])),
    )
    return EnrolledPrincipal(
        enrolment=enrolment,
        display=columns["display"],
        disabled_at=None if disabled_at is None else from_timestamp(disabled_at),
        enrolled_at=from_timestamp(columns["enrolled_at"]),
        enrolled_by=columns["enrolled_by"],
    )


def code_from(columns: Found) -> StoredCode:
    """A row of ``code``."""
    principal, used_at = columns["principal"], columns["used_at"]
    row = CodeRow(
        digest=columns["digest"],
        purpose=Purpose(columns["purpose"]),
        principal=None if principal is None else Principal.parse(principal),
        email=columns["email"],
        issuer=columns["issuer"],
        terms=_terms(json.loads(columns["terms"])),
        expires_at=from_timestamp(columns["expires_at"]),
        at=from_timestamp(columns["made_at"]),
        by=columns["made_by"],
    )
    used = None if used_at is None else from_timestamp(used_at)
    return StoredCode(row=row, used_at=used, used_by=columns["used_by"])


def application_from(columns: Found) -> ApplicationRow:
    """A row of ``application``."""
    decided_at = columns["decided_at"]
    return ApplicationRow(
        login=Login(columns["issuer"], columns["subject"]),
        name=columns["name"],
        display=columns["display"],
        email=columns["email"],
        state=ApplicationState(columns["state"]),
        asked_at=from_timestamp(columns["asked_at"]),
        decided_at=None if decided_at is None else from_timestamp(decided_at),
        decided_by=columns["decided_by"],
    )


def certificate_from(columns: Found) -> StoredCertificate:
    """A row of ``certificate``."""
    row = CertificateRow(
        fingerprint=columns["fingerprint"],
        serial=int(columns["serial"]),
        principal=Principal.parse(columns["principal"]),
        key_fingerprint=columns["key_fingerprint"],
        not_before=from_timestamp(columns["not_before"]),
        not_after=from_timestamp(columns["not_after"]),
        der=columns["der"],
        issuer_id=columns["issuer_id"],
        terms=_terms(json.loads(columns["terms"])),
        session_at=from_timestamp(columns["session_at"]),
    )
    return StoredCertificate(row=row, seq=columns["seq"])


def token_from(columns: Found) -> StoredToken:
    """A row of ``token``."""
    row = TokenRow(
        jti=columns["jti"],
        principal=Principal.parse(columns["principal"]),
        peer_fingerprint=columns["peer_fingerprint"],
        kid=columns["kid"],
        audience=tuple(json.loads(columns["audience"])),
        issued_at=from_timestamp(columns["issued_at"]),
        expires_at=from_timestamp(columns["expires_at"]),
        token_sha256=columns["token_sha256"],
        ends_with=tuple([(kind, value) for kind, value in json.loads(columns["ends_with"])]),
    )
    return StoredToken(row=row, seq=columns["seq"])


def revocation_from(columns: Found) -> StoredRevocation:
    """A row of ``revocation``."""
    revoked = Revoked(
        kind=RevocationKind(columns["kind"]),
        value=columns["value"],
        before=columns["before"],
        expires_at=columns["expires_at"],
        reason=columns["reason"],
        at=columns["at"],
    )
    return StoredRevocation(id=columns["id"], row=RevocationRow(revoked=revoked, by=columns["revoked_by"]), seq=columns["seq"])


def _terms(members: dict[str, Any]) -> Terms:
    return Terms(
        rule=members["rule"],
        groups=tuple(members["groups"]),
        roles=tuple(members["roles"]),
        projects=tuple(members["projects"]),
        rights=_rights(members["rights"]),
        assurance=members["assurance"],
        max_lifetime=_span(members["max_lifetime"]),
    )


def _rights(triples: list[list[str]]) -> tuple[EnrolledRight, ...]:
    return tuple(EnrolledRight(service=service, operation=operation, path=path) for service, operation, path in triples)


def _span(seconds: int | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)
