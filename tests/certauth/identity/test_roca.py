"""The fingerprint of RSA keys from the broken library (CVE-2017-15361)."""

from __future__ import annotations

import math
import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from certauth.encoding import b64url
from certauth.identity import KeySet
from certauth.identity.roca import is_vulnerable
from tests.simulator.hostile_provider import jwks

PRIMES = [number for number in range(2, 702) if all(number % lesser for lesser in range(2, number))]
M = math.prod(PRIMES)


def weak_prime() -> int:
    """A prime of 1024 bits as that library makes them: ``k * M + (65537 ** a mod M)``."""
    while True:
        low, high = (3 << 1022) // M + 1, (1 << 1024) // M  # two high bits: the product has 2048
        candidate = (low + secrets.randbelow(high - low)) * M + pow(65537, secrets.randbits(128), M)
        if all(pow(base, candidate - 1, candidate) == 1 for base in (2, 3, 5, 7)):
            return candidate


def test_a_key_made_as_the_broken_library_makes_them() -> None:
    """Its modulus is recognised, and its key verifies nothing; the primes it is made of are each as good as any."""
    assert len(PRIMES) == 126
    modulus = weak_prime() * weak_prime()
    assert is_vulnerable(modulus)
    jwk = {"kty": "RSA", "kid": "smartcard", "e": "AQAB", "n": b64url(modulus.to_bytes(256))}
    keys = KeySet.parse(jwks(jwk))
    assert len(keys) == 0
    assert "CVE-2017-15361" in keys.ignored[0]


def test_one_honest_prime_hides_the_fingerprint() -> None:
    """Negative control: with one prime of another origin the modulus is not recognised, so it is the structure that is."""
    honest = rsa.generate_private_key(65537, 2048).private_numbers().p
    assert not is_vulnerable(weak_prime() * honest)


@pytest.mark.parametrize("bits", [2048, 3072])
def test_an_ordinary_key_is_not_accused(bits: int) -> None:
    """A key of this machine's own library passes."""
    assert not is_vulnerable(rsa.generate_private_key(65537, bits).public_key().public_numbers().n)


def test_a_modulus_that_differs_by_two() -> None:
    """The number beside a vulnerable one is not."""
    modulus = weak_prime() * weak_prime()
    assert not is_vulnerable(modulus + 2)
