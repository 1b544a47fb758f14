"""One certificate, one encoding.

The bytes outside a certificate's signed part can be changed without breaking its signature: ECDSA accepts ``(r, n-s)`` for
``(r, s)``, and parsers accept a BIT STRING that calls its last zero bits unused. Each change gives the same certificate
another fingerprint, so its holder could walk around a revocation, or look to the audit like a forger. So we make only the
canonical encoding, and doors accept no other.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from certauth.keys import PublicKey

# Group orders, SP 800-186 §3.2.1.
_ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
    "secp521r1": int("1FF" + "F" * 63 + "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16),
}


def is_canonical(der: bytes, certificate: x509.Certificate, *, issuer_key: PublicKey) -> bool:
    """Whether ``der``, which was parsed as ``certificate``, has the smaller of two ECDSA signatures and no unused bits.

    ``issuer_key`` must have verified the signature. Other signature schemes have one form to begin with.
    """
    signature = certificate.signature
    # The parser accepts one spelling of all that stands before the signature; only the end is left to compare.
    return _low(signature, issuer_key) == signature and der.endswith(_bit_string(signature))


def canonical_certificate(certificate: x509.Certificate, *, issuer_key: PublicKey) -> x509.Certificate:
    """``certificate`` with the smaller of its two ECDSA signatures (RFC 5280 §4.1 leaves the choice open)."""
    signature = _low(certificate.signature, issuer_key)
    if signature == certificate.signature:
        return certificate
    der = certificate.public_bytes(Encoding.DER)
    signed = certificate.tbs_certificate_bytes
    body = der[der.index(signed) : -len(_bit_string(certificate.signature))] + _bit_string(signature)
    return x509.load_der_x509_certificate(_tlv(0x30, body))


def _low(signature: bytes, key: PublicKey) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return signature
    order = _ORDERS.get(key.curve.name)
    if order is None:
        raise ValueError("not a curve of certificates")
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, min(s, order - s))


def _bit_string(content: bytes) -> bytes:
    return _tlv(0x03, b"\x00" + content)


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content
