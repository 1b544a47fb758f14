"""Tokens of machines: jobs in CI, pods in Kubernetes, SPIFFE JWT-SVIDs. Their platform signs them, and nobody logs in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from certauth.identity.binding import BoundKey, audience_prefix, not_bound, same
from certauth.identity.claims import audiences
from certauth.identity.issuers import Issuer
from certauth.identity.keyset import KeySet
from certauth.identity.kinds import Binding, ProofKind
from certauth.identity.proof import (
    VerifiedIdentity,
    check_algorithm,
    check_issuer,
    check_kind,
    check_provider_times,
    check_signature,
    check_subject,
    foreign,
    identity,
    settle,
)
from certauth.identity.read import UnverifiedProof
from certauth.identity.token_types import check_type


def verify_workload(proof: UnverifiedProof, *, issuer: Issuer, keys: KeySet, key: BoundKey, now: datetime) -> VerifiedIdentity:
    """Verify a workload's token (checks 3 to 9 and 11) for ``key``: by an audience made from it, its ``cnf``, or unbound.

    Raises ``ProofError`` as ``verify_id_token`` does.
    """
    claims = proof.unverified_claims
    check_kind(ProofKind.WORKLOAD, issuer)
    check_algorithm(proof.alg, issuer.algorithms)
    check_type(proof.typ, claims, ProofKind.WORKLOAD)
    check_issuer(proof.unverified_issuer, issuer.url)
    check_signature(proof, issuer, keys)
    window = check_provider_times(claims, issuer, now)
    named = _check_audience(claims, issuer, key)
    subject = check_subject(claims)
    binding = _binding(claims, issuer, key, named)
    return identity(
        claims,
        issuer=issuer,
        kind=ProofKind.WORKLOAD,
        subject=subject,
        binding=binding,
        window=window,
        auth_time=None,
        digest=proof.digest,
    )


def _check_audience(claims: Mapping[str, object], issuer: Issuer, key: BoundKey) -> frozenset[str]:
    """Check 7: it is for some key at this signer, or for us and for nobody else, who could use it here just as well."""
    named = audiences(claims)
    prefix = audience_prefix(key.signer_id)
    if named != {issuer.audience} and not any(name.startswith(prefix) for name in named):
        raise foreign()
    return named


def _binding(claims: Mapping[str, object], issuer: Issuer, key: BoundKey, named: frozenset[str]) -> Binding:
    """Check 9. A token for another key is refused even where unbound ones are accepted."""
    expected, found = key.audience(), []
    if any(same(name, expected) for name in named):
        found.append(Binding.AUDIENCE)
    elif named != {issuer.audience}:
        raise not_bound()
    if key.is_confirmed_by(claims):
        found.append(Binding.CNF)
    return settle(found, issuer)
