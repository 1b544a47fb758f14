"""A service or agent proves itself with its enrolled key: a signed assertion (RFC 7523) that names the key to be certified."""

from __future__ import annotations

import secrets
from datetime import timedelta

from certauth.client.attempt import Attempt, Proven
from certauth.client.jose import public_jwk, sign
from certauth.identity.binding import jwk_thumbprint, signer_id_of
from certauth.keys import SoftwareKey
from certauth.names import Principal

LIFETIME = timedelta(minutes=2)


def assertion(attempt: Attempt, key: SoftwareKey, principal: Principal) -> Proven:
    """An assertion of ``principal``, signed with its enrolled ``key``, for the new key only (``cnf.jkt``), good once."""
    now = int(attempt.clock().timestamp())
    claims = {
        "iss": str(principal),
        "sub": str(principal),
        "aud": signer_id_of(attempt.metadata.signer),
        "jti": secrets.token_urlsafe(16),
        "iat": now,
        "exp": now + int(LIFETIME.total_seconds()),
        "cnf": {"jkt": attempt.bound.thumbprint()},
    }
    token = sign({"typ": "JWT", "kid": jwk_thumbprint(public_jwk(key.public_key))}, claims, key)
    return Proven(proof={"type": "client_assertion", "token": token}, issuer="")
