"""What ties a proof to a key: nonce, audience, thumbprint."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwk as joserfc_jwk

from certauth.errors import ProofError, UsageError
from certauth.identity import BoundKey, audience_for, jwk_thumbprint, nonce_for, short_fingerprint, signer_id_of

SALT = bytes(range(16))
SPKI = b"\x30\x59 a public key"


def test_nonce_is_the_published_formula() -> None:
    """An independent computation of the documented formula gives the same 43 characters."""
    preimage = b"certauth/v1 nonce\0https://signer.example:8443\0" + SPKI + b"\0" + SALT
    expected = base64.urlsafe_b64encode(hashlib.sha256(preimage).digest()).rstrip(b"=").decode()
    assert nonce_for(signer_id="https://signer.example:8443", spki=SPKI, salt=SALT) == expected
    assert len(expected) == 43


@pytest.mark.parametrize(
    ("signer_id", "spki", "salt"),
    [
        pytest.param("https://signer.example:8443", SPKI + b"x", SALT, id="another key"),
        pytest.param("https://signer.example:8443", SPKI, SALT[:-1] + b"x", id="another salt"),
        pytest.param("https://signer.example:8444", SPKI, SALT, id="another port"),
        pytest.param("https://other.example:8443", SPKI, SALT, id="the signer of another facility"),
        pytest.param("http://signer.example:8443", SPKI, SALT, id="another scheme"),
    ],
)
def test_nonce_depends_on_every_part(signer_id: str, spki: bytes, salt: bytes) -> None:
    """Changing any one input gives another nonce."""
    original = nonce_for(signer_id="https://signer.example:8443", spki=SPKI, salt=SALT)
    assert nonce_for(signer_id=signer_id, spki=spki, salt=salt) != original


@given(st.binary(min_size=1, max_size=40), st.binary(min_size=16, max_size=16), st.integers(1, 39))
def test_bytes_cannot_be_moved_between_key_and_salt(spki: bytes, salt: bytes, shift: int) -> None:
    """No other split of the same bytes into key and salt gives the same nonce, because the salt's length is fixed."""
    joined = spki + b"\0" + salt
    with pytest.raises(ProofError, match="16"):
        nonce_for(signer_id="https://s.example", spki=joined[:shift], salt=salt + bytes(shift))


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_salt_of_another_length_binds_nothing(length: int) -> None:
    """A salt that is not 16 bytes is refused as a proof that is not bound."""
    with pytest.raises(ProofError) as caught:
        nonce_for(signer_id="https://signer.example", spki=SPKI, salt=bytes(length))
    assert caught.value.code == "key-not-bound"


@pytest.mark.parametrize(
    ("url", "signer_id"),
    [
        ("https://signer.example", "https://signer.example:443"),
        ("https://Signer.Example/", "https://signer.example:443"),
        ("HTTPS://signer.example:443", "https://signer.example:443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost", "http://localhost:80"),
        ("https://[::1]:8443/", "https://[::1]:8443"),
    ],
)
def test_both_sides_write_the_same_signer_id(url: str, signer_id: str) -> None:
    """Spellings of one origin become one text, and that text stays as it is."""
    assert signer_id_of(url) == signer_id
    assert signer_id_of(signer_id) == signer_id
    assert nonce_for(signer_id=url, spki=SPKI, salt=SALT) == nonce_for(signer_id=signer_id, spki=SPKI, salt=SALT)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "signer.example",
        "ftp://signer.example",
        "ftp://signer.example:21",
        "https://",
        "https://signer.example/path",
        "https://signer.example//",
        "https://signer.example?x",
        "https://signer.example#x",
        "https://alice@signer.example",
        "https://signer.example:port",
        "https://signer.example:99999",
        "https://signer.example\0",
        "https://sígner.example",
        "https://signer .example",
        "https://[::1",
    ],
)
def test_what_is_no_origin_is_refused(url: str) -> None:
    """A URL with more or less than scheme, host and port cannot name a signer."""
    with pytest.raises(UsageError) as caught:
        signer_id_of(url)
    assert caught.value.code == "bad-signer-url"


# --- audience -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signer_id", "spki"),
    [
        pytest.param("https://signer.example:8443", SPKI + b"x", id="another key"),
        pytest.param("https://signer.example:8444", SPKI, id="another port"),
        pytest.param("https://other.example:8443", SPKI, id="the signer of another facility"),
    ],
)
def test_the_audience_depends_on_every_part(signer_id: str, spki: bytes) -> None:
    """Changing key or signer gives another audience, and another digest within it."""
    original = audience_for(signer_id="https://signer.example:8443", spki=SPKI)
    other = audience_for(signer_id=signer_id, spki=spki)
    assert original.startswith("https://signer.example:8443/#")
    assert other != original
    assert other.partition("#")[2] != original.partition("#")[2]


def test_audience_and_nonce_have_nothing_in_common() -> None:
    """One is never the other, even for a salt of nothing but zeros."""
    audience = audience_for(signer_id="https://signer.example", spki=SPKI)
    assert nonce_for(signer_id="https://signer.example", spki=SPKI, salt=bytes(16)) not in audience


def test_both_sides_write_the_same_audience() -> None:
    """However the signer's URL is spelled."""
    assert audience_for(signer_id="HTTPS://Signer.Example/", spki=SPKI) == audience_for(
        signer_id="https://signer.example:443", spki=SPKI
    )


# --- the key itself -------------------------------------------------------------------------------------------------

KEYS: dict[str, Any] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "P-521": ec.generate_private_key(ec.SECP521R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA": rsa.generate_private_key(65537, 2048),
}


def bound(public: ed448.Ed448PublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey) -> BoundKey:
    """The key as the signer sees it in a request."""
    return BoundKey(
        signer_id="https://signer.example", spki=public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.mark.parametrize("kind", KEYS)
def test_two_libraries_agree_on_the_thumbprint(kind: str) -> None:
    """Joserfc computes the same RFC 7638 thumbprint from the same key, and we from PyJWT's JWK of it."""
    public = KEYS[kind].public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    kty: Any = {"RSA": "RSA", "Ed25519": "OKP"}.get(kind, "EC")
    assert bound(public).thumbprint() == joserfc_jwk.import_key(pem, kty).thumbprint()
    algorithm = {"RSA": "RS256", "Ed25519": "EdDSA", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[kind]
    assert bound(public).thumbprint() == jwk_thumbprint(jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True))


def test_a_coordinate_with_leading_zeros() -> None:
    """RFC 7518 §6.2.1.2: coordinates have the full length of the curve, and so has what the thumbprint is made of."""
    numbers = next(
        key
        for key in (ec.derive_private_key(scalar, ec.SECP256R1()).public_key() for scalar in range(1, 5000))
        if key.public_numbers().x < 1 << 248
    )
    pem = numbers.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert bound(numbers).thumbprint() == joserfc_jwk.import_key(pem, "EC").thumbprint()


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(bound(ed448.Ed448PrivateKey.generate().public_key()), id="Ed448"),
        pytest.param(bound(ec.generate_private_key(ec.SECP256K1()).public_key()), id="another curve"),
        pytest.param(BoundKey(signer_id="https://signer.example", spki=b"no key"), id="no key"),
        pytest.param(BoundKey(signer_id="https://signer.example", spki=b""), id="nothing"),
    ],
)
def test_a_key_without_a_thumbprint_is_bound_to_nothing(key: BoundKey) -> None:
    """No ``cnf`` can name it."""
    with pytest.raises(ProofError) as caught:
        key.is_confirmed_by({"cnf": {"jkt": "A" * 43}})
    assert caught.value.code == "key-not-bound"


@pytest.mark.parametrize(
    "jwk",
    [
        None,
        "",
        [],
        {},
        {"kty": "EC"},
        {"kty": ["EC"]},
        {"kty": "oct", "k": "AA"},
        {"kty": "RSA", "n": "AQAB", "e": 3},
        {"kty": "RSA", "n": "\ud800", "e": "AQAB"},
    ],
)
def test_what_is_no_public_key_has_no_thumbprint(jwk: object) -> None:
    """Neither has a shared secret."""
    assert jwk_thumbprint(jwk) is None


def test_a_fingerprint_that_people_compare() -> None:
    """The first 16 digits of SHA-256, in fours."""
    digits = hashlib.sha256(SPKI).hexdigest()
    assert short_fingerprint(SPKI) == f"{digits[:4]} {digits[4:8]} {digits[8:12]} {digits[12:16]}"
    assert short_fingerprint(SPKI) != short_fingerprint(SPKI + b"x")


def test_the_salt_is_not_shown() -> None:
    """What a log would print of a key shows no salt."""
    assert SALT.hex() not in repr(BoundKey(signer_id="https://s.example", spki=SPKI, salt=SALT))
    assert repr(SALT) not in repr(BoundKey(signer_id="https://s.example", spki=SPKI, salt=SALT))
