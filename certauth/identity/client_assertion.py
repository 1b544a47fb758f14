"""Client assertions (RFC 7523 §2.2, §3): an enrolled service or agent signs for itself, with a key it registered."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from certauth.clock import from_timestamp
from certauth.identity.binding import BoundKey, not_bound, signer_id_of
from certauth.identity.claims import audiences, printable
from certauth.identity.keyset import ALGORITHMS, KeySet
from certauth.identity.kinds import Binding, ProofKind
from certauth.identity.proof import VerifiedIdentity, check_algorithm, check_issuer, check_subject, check_times, foreign
from certauth.identity.read import UnverifiedProof
from certauth.identity.token_types import check_type

MAX_ASSERTION_LIFETIME: Final = timedelta(minutes=5)
ASSERTION_ASSURANCE: Final = 2
ASSERTION_ISSUER: Final = "assertion"
"""The issuer's id of an identity that vouches for itself."""


def verify_client_assertion(
    proof: UnverifiedProof, *, principal: str, keys: KeySet, key: BoundKey, now: datetime, skew: timedelta
) -> VerifiedIdentity:
    """Verify an assertion of ``principal`` with the ``keys`` it registered; it must name ``key`` in its ``cnf``.

    ``iss`` and ``sub`` are the principal, ``aud`` is this signer and nobody else, ``jti`` is there, and it lives five minutes
    at most. Raises ``ProofError``: ``alg-not-allowed``, ``wrong-type``, ``unknown-issuer``, ``unknown-key``, ``bad-signature``,
    ``missing-claim``, ``bad-claim``, ``proof-expired``, ``proof-not-yet-valid``, ``proof-too-old``, ``wrong-audience``,
    ``key-not-bound``.
    """
    claims = proof.unverified_claims
    check_algorithm(proof.alg, ALGORITHMS)
    check_type(proof.typ, claims, ProofKind.CLIENT_ASSERTION)
    check_issuer(proof.unverified_issuer, principal)
    keys.find(proof.kid).verify(proof.signing_input, proof.signature, alg=proof.alg)
    window = check_times(claims, now=now, skew=skew, max_age=MAX_ASSERTION_LIFETIME, max_lifetime=MAX_ASSERTION_LIFETIME)
    named = audiences(claims)
    if len(named) != 1 or not named <= {key.signer_id, signer_id_of(key.signer_id)}:
        raise foreign()
    check_issuer(check_subject(claims), principal)
    printable(claims, "jti", longest=255)
    if not key.is_confirmed_by(claims):
        raise not_bound()
    expires_at = from_timestamp(window.expires_at)
    return VerifiedIdentity(
        issuer_id=ASSERTION_ISSUER,
        issuer=principal,
        subject=principal,
        kind=ProofKind.CLIENT_ASSERTION,
        binding=Binding.POSSESSION,
        assurance=ASSERTION_ASSURANCE,
        auth_time=None,
        acr=None,
        amr=(),
        email=None,
        name=None,
        issued_at=from_timestamp(window.issued_at),
        expires_at=expires_at,
        proof_digest=proof.digest,
        replay_until=expires_at + skew,
        claims=MappingProxyType(dict(claims)),
    )
