"""DPoP (RFC 9449): each request to the provider carries a proof signed with the key that is being certified.

The provider answers with an access token whose ``cnf.jkt`` is the thumbprint of that key. So a token from the device grant,
which knows no nonce, is bound to the certification request all the same, and is worth nothing to whoever steals it.
"""

from __future__ import annotations

import re
import secrets

from certauth.client.jose import public_jwk, sign
from certauth.clock import Clock
from certauth.keys import SoftwareKey

_NONCE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,512}")  # RFC 9449 §8.1


class Prover:
    """Makes the proofs of one login. Holds the last nonce that the provider supplied (§8)."""

    def __init__(self, key: SoftwareKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._nonce: str | None = None

    def supplied(self, nonce: str | None) -> bool:
        """Remember a nonce of the provider for the next proof; whether it is a usable one that was not known yet."""
        if nonce is None or nonce == self._nonce or not _NONCE.fullmatch(nonce):
            return False
        self._nonce = nonce
        return True

    def proof(self, method: str, url: str) -> str:
        """The value of the ``DPoP`` header for one request (§4.2)."""
        claims: dict[str, object] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url.partition("#")[0].partition("?")[0],
            "iat": int(self._clock().timestamp()),
        }
        if self._nonce is not None:
            claims["nonce"] = self._nonce
        return sign({"typ": "dpop+jwt", "jwk": public_jwk(self._key.public_key)}, claims, self._key)
