"""The decision on a certificate, from whom a login leads to: taken by ``signer.issuing``, foretold by ``signer.foreseeing``.

A function of values. It records nothing and releases nothing, so what is foretold cannot be another decision than the real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from certauth.enrolment import Address
from certauth.identity import VerifiedIdentity
from certauth.issuance import CertificateGrant, Refusal, decide_certificate
from certauth.requests import CertificationRequest
from signer.admitting import Admitted
from signer.rows import StoreRow
from signer.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A grant with what is recorded along with it, or a refusal with what is recorded along with that."""

    outcome: CertificateGrant | Refusal
    rows: tuple[StoreRow, ...]


def decide(
    admitted: Admitted,
    *,
    identity: VerifiedIdentity,
    request: CertificationRequest,
    lifetime: timedelta | None,
    issuer_not_after: datetime,
    max_lifetime: timedelta,
    address: Address | None,
    now: datetime,
) -> Decided:
    """Whether whoever ``identity`` leads to gets a certificate for the key of ``request``; arguments as ``decide_certificate``.

    A newcomer who gets none is not enrolled either, and their invitation stays good.
    """
    if admitted.refusal is not None:
        return Decided(outcome=admitted.refusal, rows=admitted.rows)
    outcome = decide_certificate(
        identity=identity,
        enrolment=admitted.enrolment,
        terms=admitted.terms,
        request=request,
        lifetime=lifetime,
        issuer_not_after=issuer_not_after,
        max_lifetime=max_lifetime,
        address=address,
        now=now,
    )
    match outcome:
        case CertificateGrant():
            return Decided(outcome=outcome, rows=admitted.rows)
        case Refusal():
            return Decided(outcome=outcome, rows=())
        case _:
            assert_never(outcome)


def longest_certificate(settings: Settings, issuer_id: str) -> timedelta:
    """The longest certificate that a login at this provider leads to."""
    caps = [one.max_lifetime for one in settings.issuer if one.id == issuer_id and one.max_lifetime is not None]
    return min([settings.limits.certificate_lifetime, *caps])
