"""private_key_jwt of an enrolled service, read by a library that is not ours."""

from __future__ import annotations

import json
import time

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey

from certauth.client.attempt import Method
from certauth.client.jose import public_jwk
from certauth.errors import UsageError
from certauth.identity import signer_id_of
from certauth.identity.binding import BoundKey, jwk_thumbprint
from certauth.keys import Algorithm, generate
from certauth.names import Principal
from certauth.requests import parse_csr
from tests.certauth.client.conftest import LogIn
from tests.simulator.hostile_signer import HostileSigner

MOVER = Principal.parse("spiffe://hostile.example/service/mover")


@pytest.mark.parametrize(("algorithm", "alg"), [(Algorithm.P256, "ES256"), (Algorithm.ED25519, "Ed25519")])
def test_the_assertion_names_the_key_and_the_signer(signer: HostileSigner, log_me_in: LogIn, algorithm: Algorithm, alg: str):
    """RFC 7523 §3: issuer and subject, audience, one-time id, a short life; and the key to be certified, so that it is of no
    use with another. Signed with the enrolled key, which is not the certificate's.
    """
    key = generate(algorithm)
    done = log_me_in(method=Method.KEY, key=key, principal=MOVER)
    (proof,) = signer.proofs
    assert proof["type"] == "client_assertion"
    theirs = (ECKey if algorithm is Algorithm.P256 else OKPKey).import_key(dict(public_jwk(key.public_key)))
    found = jws.deserialize_compact(proof["token"], theirs, algorithms=[alg])
    assert found.protected == {"typ": "JWT", "alg": alg, "kid": jwk_thumbprint(public_jwk(key.public_key))}
    claims = json.loads(found.payload)
    csr = next(json.loads(body)["csr"] for _, path, _, body in signer.seen if path == "/v1/certificates")
    bound = BoundKey(signer_id=signer.url, spki=parse_csr(csr).spki)
    assert (claims["iss"], claims["sub"], claims["aud"]) == (str(MOVER), str(MOVER), signer_id_of(signer.url))
    assert claims["cnf"] == {"jkt": bound.thumbprint()}
    assert 0 < claims["exp"] - claims["iat"] <= 300
    assert abs(claims["iat"] - time.time()) < 120
    assert len(claims["jti"]) >= 16
    assert done.profile.signer().issuer == ""
    log_me_in(method=Method.KEY, key=key, principal=MOVER)
    again = json.loads(jws.extract_compact(signer.proofs[1]["token"].encode()).payload)
    assert again["jti"] != claims["jti"]


def test_key_and_principal_are_both_needed(signer: HostileSigner, log_me_in: LogIn):
    """Half of it is a mistake of the caller's, found before anything is sent."""
    for wishes in ({"key": generate(Algorithm.P256)}, {"principal": MOVER}, {}):
        with pytest.raises(UsageError) as caught:
            log_me_in(method=Method.KEY, **wishes)
        assert caught.value.code == "incomplete-wishes"
    assert signer.proofs == []
