"""RSA moduli made by the library of CVE-2017-15361, whose primes can be found from the modulus (Nemec et al., ACM CCS 2017).

Its primes are ``k * M + (65537 ** a mod M)`` with ``M`` the product of the first primes: 126 of them or more for moduli of 1984
bits and above. Their product is therefore a power of 65537 modulo each of these primes. That is what is tested, and it tests
for the property itself: an honest modulus has it with a probability below 2**-160.
"""

from __future__ import annotations

from functools import cache
from typing import Final

_GENERATOR: Final = 65537
_LARGEST: Final = 701  # the 126th prime


def is_vulnerable(modulus: int) -> bool:
    """Whether a modulus of at least 1984 bits carries the fingerprint."""
    return all(modulus % prime in powers for prime, powers in _powers().items())


@cache
def _powers() -> dict[int, frozenset[int]]:
    """For each of the primes: every power of 65537 modulo it."""
    primes = [number for number in range(2, _LARGEST + 1) if all(number % lesser for lesser in range(2, number))]
    return {prime: frozenset(pow(_GENERATOR, exponent, prime) for exponent in range(prime)) for prime in primes}
