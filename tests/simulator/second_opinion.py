"""What joserfc, which shares no code with us or with PyJWT, makes of a provider's token."""

from __future__ import annotations

import json
from typing import Any

from joserfc import jwk, jwt
from joserfc.errors import BadSignatureError

from certauth.encoding import b64url, from_b64url


def second_opinion(token: str, jwks: bytes, *, algorithms: tuple[str, ...] = ("RS256", "ES256")) -> dict[str, Any]:
    """The claims, if joserfc too verifies the token with one of these keys; and only as it is, not with another signature."""
    published = jwk.KeySet.import_key_set(json.loads(jwks))
    claims = dict(jwt.decode(token, published, algorithms=[*algorithms]).claims)
    signed, _, signature = token.rpartition(".")
    other = bytearray(from_b64url(signature))
    other[-1] ^= 1
    try:
        jwt.decode(f"{signed}.{b64url(bytes(other))}", published, algorithms=[*algorithms])
    except BadSignatureError:
        return claims
    raise AssertionError("joserfc takes any signature, so that its opinion is none")
