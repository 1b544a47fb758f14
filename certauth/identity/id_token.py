"""ID tokens (OpenID Connect Core §3.1.3.7): somebody logged in, for this key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from certauth.errors import ProofError
from certauth.identity.binding import BoundKey, not_bound, same
from certauth.identity.claims import audiences
from certauth.identity.issuers import Issuer
from certauth.identity.keyset import KeySet
from certauth.identity.kinds import Binding, ProofKind
from certauth.identity.proof import (
    VerifiedIdentity,
    check_algorithm,
    check_authentication,
    check_issuer,
    check_kind,
    check_party,
    check_provider_times,
    check_signature,
    check_subject,
    foreign,
    identity,
    settle,
)
from certauth.identity.read import UnverifiedProof
from certauth.identity.token_types import KEY_BOUND, check_type, check_unbound_login


def verify_id_token(
    proof: UnverifiedProof,
    *,
    issuer: Issuer,
    keys: KeySet,
    key: BoundKey,
    now: datetime,
) -> VerifiedIdentity:
    """Verify an ID token (checks 3 to 9 and 11) for ``key``, by its nonce, its ``cnf``, or neither where the issuer allows it.

    ``keys`` are those of ``issuer`` and of nobody else. Raises ``ProofError``: ``kind-not-allowed``, ``alg-not-allowed``,
    ``wrong-type``, ``unknown-issuer``, ``unknown-key``, ``bad-signature``, ``missing-claim``, ``bad-claim``, ``proof-expired``,
    ``proof-not-yet-valid``, ``proof-too-old``, ``wrong-audience``, ``key-not-bound``.
    """
    claims = proof.unverified_claims
    check_kind(ProofKind.ID_TOKEN, issuer)
    check_algorithm(proof.alg, issuer.algorithms)
    media = check_type(proof.typ, claims, ProofKind.ID_TOKEN)
    check_issuer(proof.unverified_issuer, issuer.url)
    check_signature(proof, issuer, keys)
    # From here on the claims are the issuer's words; whether they are meant for us is still open.
    window = check_provider_times(claims, issuer, now)
    auth_time = check_authentication(claims, issuer, now)
    _check_audience(claims, issuer)
    subject = check_subject(claims)
    binding = _binding(claims, issuer, key, must_name_key=media == KEY_BOUND)
    return identity(
        claims,
        issuer=issuer,
        kind=ProofKind.ID_TOKEN,
        subject=subject,
        binding=binding,
        window=window,
        auth_time=auth_time,
        digest=proof.digest,
    )


def _check_audience(claims: Mapping[str, object], issuer: Issuer) -> None:
    """Check 7 (OpenID Connect Core §3.1.3.7, points 3 to 5)."""
    named = audiences(claims)
    if issuer.audience not in named:
        raise foreign()
    if "azp" in claims:
        check_party(claims, "azp", issuer)
    elif len(named) > 1:
        raise ProofError(
            "wrong-audience",
            "the proof is for several audiences and does not say who asked for it (azp)",
            hint="register a client for the signer alone, with no other audience",
        )


def _binding(claims: Mapping[str, object], issuer: Issuer, key: BoundKey, *, must_name_key: bool) -> Binding:
    """Check 9. Every tie there is must hold, even if another one would do."""
    found = []
    if key.salt is not None:  # whoever sends a salt says that the login was made with our nonce
        if not same(claims.get("nonce"), key.nonce()):
            raise not_bound()
        found.append(Binding.NONCE)
    if key.is_confirmed_by(claims):
        found.append(Binding.CNF)
    elif must_name_key:
        raise not_bound()
    binding = settle(found, issuer)
    if binding is Binding.NONE:
        check_unbound_login(claims)
        if claims.get("nonce") is not None and Binding.NONCE not in found:
            # The login was bound to something that is not shown here: a token taken from where it belongs.
            raise not_bound()
    return binding
