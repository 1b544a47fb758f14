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
from certauth.revocation import RevocationKind, Revoked
from signer.cli.common import Facility, acting
from signer.ending import certificate_end, completing, ending_with, everything_of, left_out, revoked
from signer.ledger import Submission
from signer.rows import RevocationRow, StoreRow


def withdraw(place: Facility, principal: Principal, *, certificate: str | None, jti: str | None, reason: str) -> Result:
    """Revoke one certificate, one token, or everything of ``principal`` and the agents that work for them, and say so."""
    at, by = system_clock(), acting()
    single = _single(place, principal, certificate, jti, reason)
    # A thief may have made agents, which would outlive the certificate.
    rows = (single,) if single else everything_with_agents(place, principal, reason=reason, at=at)
    entry = _first(rows)
    event = record.CredentialRevoked(credential=str(entry.kind), value=entry.value, reason=reason, by=by, before=entry.before)
    digest = hashlib.sha256(f"{entry.kind} {entry.value}".encode()).digest()
    submission = Submission(request_id=f"revoke-{secrets.token_hex(12)}", digest=digest, event=event, rows=rows)
    index = place.ledger.record(submission).index
    said = f"Revoked: {entry.kind} {entry.value}."
    if not single:
        said += look_again(place, rows, recorded=index) + _ways_in(place, principal)
    data = {"principal": str(principal), "kind": str(entry.kind), "value": entry.value}
    return Result(data=data, text=said)


def everything_with_agents(place: Facility, principal: Principal, *, reason: str, at: datetime) -> tuple[StoreRow, ...]:
    """The rows that withdraw all that ``principal`` has, themselves first, and end their agents."""
    by = acting()
    everything = everything_of(place.store, principal, by=by, why=reason, at=at)
    return (*everything, *ending_with(place.store, principal, reason=reason, by=by, at=at))


def look_again(place: Facility, rows: tuple[StoreRow, ...], *, recorded: int) -> str:
    """Once ``rows`` are entry ``recorded``: withdraw what was made between looking and recording; what is to be said of it."""
    entry, at = _first(rows), system_clock()
    if missed := completing(place.store, entry, by=acting(), at=at, recorded=recorded):
        place.ledger.record(missed)
    if left_out(place.store, Principal.parse(entry.value), at=at, recorded=recorded):
        return (
            "\nThere are too many certificates to name each in the list of revocations. They are refused, but a token of"
            " somebody else that was handed on with one of the oldest works until it ends."
        )
    return ""


def _ways_in(place: Facility, principal: Principal) -> str:
    """With which logins they come in again, if there are several: a thief may have linked one."""
    found = place.store.enrolment_by_principal(principal)
    logins = () if found is None or found.disabled else found.logins
    if len(logins) < 2:
        return ""
    named = "".join(f"\n  {login.subject} at {login.issuer}" for login in logins)
    return f"\nThese logins still lead to {principal}; take away whatever is not theirs, with 'user unlink':{named}"


def _first(rows: tuple[StoreRow, ...]) -> Revoked:
    return next(row.revoked for row in rows if isinstance(row, RevocationRow))


def _single(
    place: Facility, principal: Principal, certificate: str | None, jti: str | None, reason: str
) -> RevocationRow | None:
    if certificate:
        found = place.store.certificate(certificate)
        if found is None or found.row.principal != principal:
            raise _not_found(f"{principal} holds no certificate {certificate[:80]}")
        kind, value, end = RevocationKind.CERTIFICATE, certificate, certificate_end(found.row.not_after)
    elif jti:
        token = place.store.token(jti)
        if token is None or token.row.principal != principal:
            raise _not_found(f"{principal} holds no token {jti[:80]}")
        kind, value, end = RevocationKind.JTI, jti, int(token.row.expires_at.timestamp())
    else:
        return None
    at = int(system_clock().timestamp())
    entry = revoked(kind=kind, value=value, expires_at=end, reason=reason, at=at)
    return RevocationRow(revoked=entry, by=acting())


def _not_found(what: str) -> UsageError:
    return UsageError("not-found", what, hint="compare it with what 'show' lists")
