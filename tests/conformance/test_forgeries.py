"""Every family of forgeries, in every algorithm: none is accepted, and joserfc, an independent library, is no stricter."""

from __future__ import annotations

import pytest
from joserfc import jwk as joserfc_jwk
from joserfc import jwt as joserfc_jwt
from joserfc.errors import JoseError

from certauth.errors import ProofError
from certauth.identity import KeySet, read_proof
from tests.conformance.forgeries import ALGORITHMS, CLAIMS, FAMILIES, Genuine, made, name_of, other_key_sets
from tests.simulator.hostile_provider import ProviderKey, jwks

LOOSER = {"extensions", "said_twice", "no_object"}
"""Where joserfc takes what we refuse: an empty ``crit``, members said twice, and JSON that is not strict."""
ECDSA_ONLY, RSA_ONLY = "other_numbers", "other_paddings"


def accepted(token: str, keys: KeySet) -> bool:
    """Whether it verifies. Only refusals with a code are expected; anything else fails the test."""
    try:
        proof = read_proof(token)
        keys.find(proof.kid).verify(proof.signing_input, proof.signature, alg=proof.alg)
    except ProofError:
        return False
    return True


def accepted_by_joserfc(token: str, key: ProviderKey) -> bool:
    """Whether joserfc verifies it; it meets some of these with errors of Python's."""
    published = joserfc_jwk.KeySet.import_key_set({"keys": [key.jwk]})
    try:
        joserfc_jwt.decode(token, published, algorithms=[name_of(key.alg)])
    except (JoseError, ValueError, TypeError, AttributeError, KeyError):
        return False
    return True


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_the_control_the_genuine_one_is_accepted(alg: str) -> None:
    """By both; what is refused below is refused for what was done to it."""
    key = made(alg, "key-1")
    good = Genuine(key)
    assert accepted(good.token, KeySet.parse(jwks(key)))
    assert accepted_by_joserfc(good.token, key)
    assert accepted(good.signed(good.header), KeySet.parse(jwks(key)))
    assert accepted(good.with_signature(good.signature), KeySet.parse(jwks(key)))


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_no_forgery_is_accepted(family: str, alg: str) -> None:
    """Not one; and joserfc refuses the same, but for what it is known to be looser about."""
    key = made(alg, "key-1")
    keys, forged = KeySet.parse(jwks(key)), list(FAMILIES[family](Genuine(key)))
    assert [token for token in forged if accepted(token, keys)] == []
    assert family in LOOSER or [token for token in forged if accepted_by_joserfc(token, key)] == []
    wanted = {ECDSA_ONLY: alg.startswith("ES"), RSA_ONLY: alg[:2] in ("RS", "PS")}.get(family, True)
    assert bool(forged) is wanted


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_no_key_that_is_not_to_be_used_verifies(alg: str) -> None:
    """The token is genuine; the set does not let its key be used, or does not say which it is."""
    key = made(alg, "key-1")
    token = key.sign(CLAIMS, key.header(alg=name_of(alg)))
    sets = list(other_key_sets(key))
    assert len(sets) > 15
    assert [documents for documents in sets if accepted(token, KeySet.parse(jwks(*documents)))] == []
