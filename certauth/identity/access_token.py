"""Access tokens: as JWTs (RFC 9068), by what they say; opaque ones by what their issuer says of them (RFC 7662)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime

from certauth.errors import ProofError
from certauth.identity.binding import BoundKey
from certauth.identity.claims import audiences, missing, printable
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
from certauth.identity.read import MAX_PROOF, UnverifiedProof
from certauth.identity.token_types import ACCESS_TOKEN, check_type, check_untyped_access, wrong_type

_INTROSPECTED_TYPES = frozenset({"bearer", "dpop"})
_OPAQUE = re.compile(r"[A-Za-z0-9~+/_-]+(\.[A-Za-z0-9~+/_-]+)?=*")  # RFC 6750 §2.1, with a dot at most, between two parts


def verify_access_token(
    proof: UnverifiedProof, *, issuer: Issuer, keys: KeySet, key: BoundKey, now: datetime
) -> VerifiedIdentity:
    """Verify a JWT access token (checks 3 to 9 and 11) for ``key``, by its ``cnf``, or unbound where the issuer allows it.

    Raises as ``verify_id_token`` does.
    """
    claims = proof.unverified_claims
    check_kind(ProofKind.ACCESS_TOKEN, issuer)
    check_algorithm(proof.alg, issuer.algorithms)
    typed = check_type(proof.typ, claims, ProofKind.ACCESS_TOKEN) == ACCESS_TOKEN
    if not typed:
        if not issuer.untyped_access_tokens:
            raise wrong_type(ProofKind.ACCESS_TOKEN)
        check_untyped_access(claims)
    check_issuer(proof.unverified_issuer, issuer.url)
    check_signature(proof, issuer, keys)
    if typed:
        printable(claims, "jti", longest=255)  # RFC 9068 §2.2
    return _accept(claims, issuer=issuer, key=key, now=now, digest=proof.digest, untyped=not typed)


def opaque_digest(token: str) -> bytes:
    """SHA-256 of an access token that is not a JWT, by which it is known once introspected.

    ``ProofError`` (``proof-malformed``) for a text that is none (RFC 6750 §2.1), and for anything like a JWT: an issuer may
    accept other spellings of one, each with a digest of its own, so that it could be used again and again.
    """
    if len(token) > MAX_PROOF or not _OPAQUE.fullmatch(token):
        raise ProofError(
            "proof-malformed",
            "the access token is neither a JWT in its one spelling nor an opaque token",
            hint="send the access token as its issuer made it",
        )
    return hashlib.sha256(token.encode("ascii")).digest()


def verify_introspected(
    answer: Mapping[str, object], *, token_digest: bytes, issuer: Issuer, key: BoundKey, now: datetime
) -> VerifiedIdentity:
    """Verify an opaque access token by what ``issuer`` itself answered about it, over a connection of its own (RFC 7662 §2.2).

    ``answer`` was parsed with ``strict_json``; ``token_digest`` is what ``opaque_digest`` made of the token. Raises
    ``ProofError`` as ``verify_id_token`` does, and ``token-inactive``.
    """
    check_kind(ProofKind.ACCESS_TOKEN, issuer)
    if answer.get("active") is not True:
        raise ProofError(
            "token-inactive",
            "the issuer says that this access token is not valid, or none of its own",
            hint="get a new one: log in again",
        )
    check_type(None, answer, ProofKind.ACCESS_TOKEN)
    # Asked about a refresh token, an issuer may answer as well; only access tokens have a type (RFC 6749 §7.1).
    if printable(answer, "token_type", longest=32).lower() not in _INTROSPECTED_TYPES:
        raise wrong_type(ProofKind.ACCESS_TOKEN)
    if "iss" in answer:
        check_issuer(printable(answer, "iss", longest=2048), issuer.url)
    return _accept(answer, issuer=issuer, key=key, now=now, digest=token_digest, untyped=False)


def _accept(
    claims: Mapping[str, object], *, issuer: Issuer, key: BoundKey, now: datetime, digest: bytes, untyped: bool
) -> VerifiedIdentity:
    """Checks 6 to 9 and 11, on the issuer's own words."""
    window = check_provider_times(claims, issuer, now)
    auth_time = check_authentication(claims, issuer, now)
    clients = _check_audience(claims, issuer, untyped=untyped)
    subject = check_subject(claims)
    if subject in clients:
        # The client's own token (RFC 9068 §2.2): a program's, and nobody logged in for it.
        raise wrong_type(ProofKind.ACCESS_TOKEN)
    binding = settle([Binding.DPOP] if key.is_confirmed_by(claims) else [], issuer)
    return identity(
        claims,
        issuer=issuer,
        kind=ProofKind.ACCESS_TOKEN,
        subject=subject,
        binding=binding,
        window=window,
        auth_time=auth_time,
        digest=digest,
    )


def _check_audience(claims: Mapping[str, object], issuer: Issuer, *, untyped: bool) -> list[str]:
    """Check 7 (RFC 9068 §4): it is for us, and a client that we know asked for it; by which names is returned."""
    named = audiences(claims)
    # An ID token is always for a client. What does not say what it is may therefore not be for one.
    if issuer.access_token_audience not in named or (untyped and issuer.audience in named):
        raise foreign()
    clients = [check_party(claims, name, issuer) for name in ("client_id", "azp") if name in claims]
    if not clients:
        raise missing("client_id")
    return clients
