"""Ed25519 public keys that anybody can sign for: the eight points whose order divides 8 (RFC 7748 §6, RFC 8032 §8.9).

Under such a key a signature that involves no secret verifies, for one message in eight or for all of them. Libraries take them
because RFC 8032 does not forbid it. On the curve ``-x^2 + y^2 = 1 + d x^2 y^2`` they are the points with ``y = 1``, ``y = -1``,
``y = 0``, and those whose double has ``y = 0``, which is ``d y^4 + 2 y^2 = 1``.
"""

from __future__ import annotations

from typing import Final

_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P


def is_small_order(encoded: bytes) -> bool:
    """Whether the 32 bytes of a public key are such a point, in any spelling."""
    y = int.from_bytes(encoded, "little") % 2**255 % _P
    return y in (0, 1, _P - 1) or (_D * pow(y, 4, _P) + 2 * y * y - 1) % _P == 0
