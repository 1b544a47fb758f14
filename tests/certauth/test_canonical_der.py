"""The one encoding of a certificate, for every kind of authority."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certauth.canonical_der import canonical_certificate, is_canonical
from tests.certauth.facility import END, START

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])


def der(certificate: x509.Certificate) -> bytes:
    """The bytes of a certificate."""
    return certificate.public_bytes(Encoding.DER)


def self_signed(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, serial: int) -> x509.Certificate:
    """A certificate as a library makes it, canonical or not."""
    builder = x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(key.public_key()).serial_number(serial)
    return builder.not_valid_before(START).not_valid_after(END).sign(key, hashes.SHA256())


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_the_smaller_of_two_signatures_is_kept_and_verifies(curve: ec.EllipticCurve) -> None:
    """Of many certificates some change and some do not; all verify afterwards, and a second pass changes nothing."""
    key = ec.generate_private_key(curve)
    changed = set()
    for serial in range(1, 25):
        before = self_signed(key, serial)
        after = canonical_certificate(before, issuer_key=key.public_key())
        assert is_canonical(der(before), before, issuer_key=key.public_key()) == (after == before)
        assert is_canonical(der(after), after, issuer_key=key.public_key())
        assert canonical_certificate(after, issuer_key=key.public_key()) is after
        after.verify_directly_issued_by(after)
        assert after.tbs_certificate_bytes == before.tbs_certificate_bytes
        assert decode_dss_signature(after.signature)[0] == decode_dss_signature(before.signature)[0]
        assert decode_dss_signature(after.signature)[1] <= decode_dss_signature(before.signature)[1]
        changed.add(after != before)
    assert changed == {True, False}


def test_an_rsa_signature_has_one_form_already() -> None:
    """RSA certificates come out as they went in."""
    key = rsa.generate_private_key(65537, 2048)
    certificate = self_signed(key, 7)
    assert canonical_certificate(certificate, issuer_key=key.public_key()) is certificate
    assert is_canonical(der(certificate), certificate, issuer_key=key.public_key())


def test_a_curve_outside_the_table_is_an_error() -> None:
    """An unknown order would leave the signature malleable, so it is refused."""
    key = ec.generate_private_key(ec.SECP256K1())
    with pytest.raises(ValueError, match="curve"):
        canonical_certificate(self_signed(key, 7), issuer_key=key.public_key())
