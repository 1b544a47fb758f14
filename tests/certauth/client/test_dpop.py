"""DPoP proofs, read by a library that is not ours."""

from __future__ import annotations

import json

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from certauth.client.dpop import Prover
from certauth.client.jose import public_jwk
from certauth.clock import from_timestamp
from certauth.keys import Algorithm, generate

NOW = 1_790_000_000


def test_a_proof_says_what_rfc_9449_asks_for():
    """Key, method, address without query and fragment, time and a fresh id; nothing private."""
    key = generate(Algorithm.P256)
    prover = Prover(key, lambda: from_timestamp(NOW))
    one, two = (prover.proof("POST", "https://op.example/token?x=1#y") for _ in range(2))
    found = jws.deserialize_compact(one, ECKey.import_key(dict(public_jwk(key.public_key))), algorithms=["ES256"])
    assert found.protected == {"typ": "dpop+jwt", "alg": "ES256", "jwk": public_jwk(key.public_key)}
    claims = json.loads(found.payload)
    assert len(claims.pop("jti")) >= 16
    assert claims == {"htm": "POST", "htu": "https://op.example/token", "iat": NOW}
    assert one != two
    assert json.loads(jws.extract_compact(two.encode()).payload)["jti"] != json.loads(found.payload)["jti"]


@pytest.mark.parametrize("nonce", [None, "", 'a"b', "a b", "x" * 513, "ü", "a\nb"])
def test_a_nonce_that_is_none_is_not_taken(nonce: str | None):
    """Only the characters of RFC 9449 §8.1, and not without bound."""
    prover = Prover(generate(Algorithm.P256), lambda: from_timestamp(NOW))
    assert not prover.supplied(nonce)
    assert "nonce" not in json.loads(jws.extract_compact(prover.proof("POST", "https://x").encode()).payload)


def test_the_last_nonce_is_used_and_known():
    """A new nonce is worth another attempt, the same one again is not."""
    prover = Prover(generate(Algorithm.P256), lambda: from_timestamp(NOW))
    assert prover.supplied("first")
    assert not prover.supplied("first")
    assert prover.supplied("second")
    assert json.loads(jws.extract_compact(prover.proof("POST", "https://x").encode()).payload)["nonce"] == "second"
