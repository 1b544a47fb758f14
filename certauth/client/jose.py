"""What a client signs for others to check: a compact JWS (RFC 7515) with one of our keys. Verifying is done elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from certauth.encoding import b64url
from certauth.errors import KeyMaterialError
from certauth.identity.binding import jwk_of
from certauth.keys import Algorithm, PublicKey, SigningKey

_CURVES = {"Ed25519", "P-256", "P-384"}
_NAMES = {Algorithm.ED25519: "Ed25519", Algorithm.P256: "ES256", Algorithm.P384: "ES384"}
_SIZES = {Algorithm.P256: 32, Algorithm.P384: 48}


def public_jwk(public: PublicKey) -> dict[str, object]:
    """The key as a JWK with its required members only (RFC 7517, RFC 8037); ``KeyMaterialError`` (``bad-key``) for RSA."""
    document = jwk_of(public)
    if document is None or document.get("crv") not in _CURVES:
        raise KeyMaterialError("bad-key", "the key is not Ed25519, P-256 or P-384", hint="make one of these kinds")
    return document


def sign(header: Mapping[str, object], claims: Mapping[str, object], key: SigningKey) -> str:
    """``claims`` as a compact JWS; ``alg`` follows from the key, the rest of the header is the caller's (RFC 9864 §2)."""
    whole = {**header, "alg": _NAMES[key.algorithm]}
    text = f"{b64url(json.dumps(whole).encode())}.{b64url(json.dumps(dict(claims)).encode())}"
    signature = key.sign(text.encode("ascii"))
    if key.algorithm in _SIZES:  # JWS wants r and s side by side, not DER (RFC 7518 §3.4)
        size = _SIZES[key.algorithm]
        signature = b"".join(number.to_bytes(size) for number in decode_dss_signature(signature))
    return f"{text}.{b64url(signature)}"
