"""The one form of an ECDSA signature.

If ``(r, s)`` is a valid signature then so is ``(r, n - s)``, and everybody can turn one into the other. The same token would
have two spellings and a withdrawn block a second id. So ``s`` is in the lower half of the order of P-256 in whatever we write
(SEC 1 has both forms; "low-S" is the usual choice), in strict DER (RFC 3279 §2.2.3), and what we read has to be.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def low_s(signature: bytes) -> bytes:
    """A P-256 signature, in its one form; ``ValueError`` if it is none at all."""
    r, s = decode_dss_signature(signature)  # strict: one encoding for each pair of numbers
    if not (0 < r < _ORDER and 0 < s < _ORDER):
        raise ValueError("not a P-256 signature")
    return encode_dss_signature(r, min(s, _ORDER - s))


def is_low_s(signature: bytes) -> bool:
    """Whether ``signature`` is a P-256 signature in its one form."""
    try:
        return low_s(signature) == signature
    except ValueError:
        return False
