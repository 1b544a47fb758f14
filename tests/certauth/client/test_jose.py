"""What the client signs, read by libraries that are not ours."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jws
from joserfc.errors import BadSignatureError
from joserfc.jwk import ECKey, OKPKey

from certauth.client.jose import public_jwk, sign
from certauth.encoding import b64url
from certauth.errors import KeyMaterialError
from certauth.identity.binding import BoundKey, jwk_thumbprint
from certauth.keys import Algorithm, generate, spki

KINDS = {Algorithm.ED25519: "Ed25519", Algorithm.P256: "ES256", Algorithm.P384: "ES384"}


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_signature_is_one_for_others_too(algorithm: Algorithm):
    """A JWS of each kind of key verifies with joserfc, under the algorithm of the key, and not when a byte is changed."""
    key = generate(algorithm)
    document = public_jwk(key.public_key)
    theirs = (OKPKey if algorithm is Algorithm.ED25519 else ECKey).import_key(dict(document))
    for _ in range(20):  # so that short numbers occur
        text = sign({"typ": "x", "alg": "none"}, {"a": 1}, key)
        found = jws.deserialize_compact(text, theirs, algorithms=[KINDS[algorithm]])
        assert found.payload == b'{"a": 1}'
        assert found.protected == {"typ": "x", "alg": KINDS[algorithm]}
    head, _, signature = text.split(".")
    other = b64url(b'{"a": 2}')
    with pytest.raises(BadSignatureError):
        jws.deserialize_compact(f"{head}.{other}.{signature}", theirs, algorithms=[KINDS[algorithm]])


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_the_jwk_has_the_thumbprint_that_the_signer_computes(algorithm: Algorithm):
    """RFC 7638: joserfc, our JWK and the signer's view of the certified key agree on one thumbprint."""
    key = generate(algorithm)
    document = public_jwk(key.public_key)
    theirs = (OKPKey if algorithm is Algorithm.ED25519 else ECKey).import_key(dict(document))
    bound = BoundKey(signer_id="https://signer.example", spki=spki(key.public_key))
    assert theirs.thumbprint() == jwk_thumbprint(document) == bound.thumbprint()
    assert "d" not in document


def test_keys_of_other_kinds_have_no_place():
    """An RSA key or another curve is refused before anything is signed with it."""
    for public in (rsa.generate_private_key(65537, 2048).public_key(), ec.generate_private_key(ec.SECP521R1()).public_key()):
        with pytest.raises(KeyMaterialError) as caught:
            public_jwk(public)
        assert caught.value.code == "bad-key"
