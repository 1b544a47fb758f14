"""What a provider says about somebody in its userinfo answer (OpenID Connect Core §5.3), added to what its ID token proved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from certauth.errors import ProofError
from certauth.identity.binding import same
from certauth.identity.issuers import Issuer
from certauth.identity.proof import VerifiedIdentity, email_of, name_of

# What is about a login or a token and not about a person. Userinfo is not part of the login, so it says nothing about it.
_OF_A_TOKEN: Final = frozenset(
    {"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "azp", "nonce", "cnf", "auth_time", "acr", "amr", "sid", "events"}
    | {"at_hash", "c_hash", "s_hash", "client_id", "scope", "scp", "typ", "token_use", "token_class"}
)
_ADDRESS: Final = frozenset({"email", "email_verified"})


def with_userinfo(identity: VerifiedIdentity, answer: Mapping[str, object], *, issuer: Issuer) -> VerifiedIdentity:
    """``identity`` with the further claims of ``answer``; no claim of the token is replaced, and nothing about the login added.

    E-mail and ``email_verified`` come from one document, the token if it has either. Raises ``ProofError``
    (``userinfo-mismatch``) unless the answer is about the same subject: it must not be used then (§5.3.2).
    """
    if not same(answer.get("sub"), identity.subject):
        raise ProofError(
            "userinfo-mismatch",
            "the provider's userinfo is about somebody else than its token",
            hint="log in again; if it stays, tell those who run the provider",
        )
    kept = _OF_A_TOKEN | identity.claims.keys()
    if identity.claims.keys() & _ADDRESS:
        kept |= _ADDRESS
    claims = {name: value for name, value in answer.items() if name not in kept} | dict(identity.claims)
    return replace(identity, claims=MappingProxyType(claims), email=email_of(claims, issuer), name=name_of(claims))
