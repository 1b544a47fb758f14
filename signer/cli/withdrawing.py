"""Taking back what was issued to a person or a machine: one certificate, one token, or everything until now."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime

from certauth.audit import record
from certauth.cli.output import Result
from certauth.clock import system_clock
from certauth.errors import UsageError
from certauth.names import Principal
from certauth.revocation import RevocationKind
from signer.changing import everything_of, revoked
from signer.cli.common import Facility, acting
from signer.ledger import Submission
from signer.rows import RevocationRow, StoreRow


def withdraw(
    place: Facility,
    principal: Principal,
    *,
    certificate: str | None,
    jti: str | None,
    reason: str,
    also: tuple[StoreRow, ...] = (),
) -> Result:
    """Revoke one certificate, one token, or everything of ``principal`` and ``also`` what hangs on it, and say so."""
    single = _single(place, principal, certificate, jti, reason)
    row = single or everything_of(principal, by=acting(), why=reason, at=system_clock())
    entry = row.revoked
    event = record.CredentialRevoked(
        credential=str(entry.kind), value=entry.value, reason=reason, by=acting(), before=entry.before
    )
    digest = hashlib.sha256(f"{entry.kind} {entry.value}".encode()).digest()
    rows = (row,) if single else (row, *also)
    place.ledger.record(Submission(request_id=f"revoke-{secrets.token_hex(12)}", digest=digest, event=event, rows=rows))
    data = {"principal": str(principal), "kind": str(entry.kind), "value": entry.value}
    return Result(data=data, text=f"Revoked: {entry.kind} {entry.value}.")


def _single(
    place: Facility, principal: Principal, certificate: str | None, jti: str | None, reason: str
) -> RevocationRow | None:
    end: datetime
    if certificate:
        found = place.store.certificate(certificate)
        if found is None or found.row.principal != principal:
            raise _not_found(f"{principal} holds no certificate {certificate[:80]}")
        kind, value, end = RevocationKind.CERTIFICATE, certificate, found.row.not_after
    elif jti:
        token = place.store.token(jti)
        if token is None or token.row.principal != principal:
            raise _not_found(f"{principal} holds no token {jti[:80]}")
        kind, value, end = RevocationKind.JTI, jti, token.row.expires_at
    else:
        return None
    at = int(system_clock().timestamp())
    entry = revoked(kind=kind, value=value, expires_at=int(end.timestamp()), reason=reason, at=at)
    return RevocationRow(revoked=entry, by=acting())


def _not_found(what: str) -> UsageError:
    return UsageError("not-found", what, hint="compare it with what 'show' lists")
