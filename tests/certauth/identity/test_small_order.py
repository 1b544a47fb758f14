"""Ed25519 keys that anybody can sign for are no keys, whoever publishes them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from certauth.encoding import b64url
from certauth.identity import KeySet
from certauth.keys import raw
from certauth.small_order import is_small_order
from tests.simulator.hostile_provider import ProviderKey, jwks

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
FORGED = b"\x01" + bytes(63)
"""R is the neutral element and S is zero: nobody's secret is in it."""


def root(square: int) -> int:
    """A square root modulo P, if there is one."""
    found = pow(square, (P + 3) // 8, P)
    return found if found * found % P == square else found * pow(2, (P - 1) // 4, P) % P


SQUARES = [(sign * root((1 + D) % P) - 1) * pow(D, -1, P) % P for sign in (1, -1)]
(EIGHTH,) = [root(square) for square in SQUARES if root(square) ** 2 % P == square]
SMALL = {f"{y:x}": y for y in (0, 1, P - 1, P, P + 1, EIGHTH, P - EIGHTH)}
"""The coordinates of the eight points, two of them also as they could be misspelt."""


def published(encoded: bytes) -> KeySet:
    """A provider's key set with this key."""
    return KeySet.parse(jwks({"kty": "OKP", "crv": "Ed25519", "x": b64url(encoded), "kid": "k"}))


@pytest.mark.parametrize("sign", [0, 2**255])
@pytest.mark.parametrize("y", SMALL.values(), ids=SMALL)
def test_a_key_that_anybody_can_sign_for_is_left_out(y: int, sign: int) -> None:
    """In every spelling, and with either sign; the reason is an alarm."""
    encoded = (y + sign).to_bytes(32, "little")
    assert is_small_order(encoded)
    keys = published(encoded)
    assert len(keys) == 0
    assert "ALARM" in keys.ignored[0]


def test_the_attack_works_without_it() -> None:
    """One signature, made with no key at all, verifies for whatever is said."""
    for claims in (b"admin", b"anything"):
        Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little")).verify(FORGED, claims)


def test_honest_keys_are_taken() -> None:
    """No key that was made as it should be has the property."""
    for seed in range(64):
        encoded = raw(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32).public_key())
        assert not is_small_order(encoded)
        assert len(published(encoded)) == 1
    assert len(KeySet.parse(jwks(ProviderKey("EdDSA")))) == 1
