"""The keys of a provider: what may verify, and what may not."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from certauth.encoding import b64url, from_b64url
from certauth.errors import ProofError, UnavailableError
from certauth.identity import MAX_JWKS, KeySet
from tests.simulator.hostile_provider import ProviderKey, jwks, without_ellipsis

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


made_once = cache(ProviderKey)


def key(alg: str = "RS256", kid: str | None = "key-1", bits: int = 2048) -> ProviderKey:
    """A key of the provider."""
    return made_once(alg, kid, bits=bits)


def parse(*documents: dict[str, Any]) -> KeySet:
    """The key set of these documents."""
    return KeySet.parse(jwks(*documents))


@pytest.mark.parametrize("alg", ["RS256", "ES256", "ES384", "ES512", "EdDSA"])
def test_a_sound_key_is_usable(alg: str) -> None:
    """Every kind of key that providers publish is read, and verifies what its private half signs, but nothing else."""
    provider_key = key(alg)
    found = parse(provider_key.jwk).find("key-1")
    signing_input, _, signature = provider_key.sign({}).rpartition(".")
    found.verify(signing_input.encode(), from_b64url(signature), alg=alg)
    with pytest.raises(ProofError) as caught:
        found.verify(signing_input.encode() + b"x", from_b64url(signature), alg=alg)
    assert caught.value.code == "bad-signature"


def test_an_rsa_key_without_alg_serves_both_paddings_and_one_with_alg_only_that() -> None:
    """RS256 and PS256 share keys unless the provider says otherwise (RFC 7517 §4.4)."""
    assert parse(key().jwk).find("key-1").algorithms == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    pinned = parse({**key().jwk, "alg": "PS256"}).find("key-1")
    assert pinned.algorithms == {"PS256"}
    with pytest.raises(ProofError) as caught:
        pinned.verify(b"", b"", alg="RS256")
    assert caught.value.code == "alg-not-allowed"


def test_ed25519_under_its_new_name() -> None:
    """A key with ``alg: Ed25519`` (RFC 9864) is an EdDSA key."""
    assert parse({**key("EdDSA").jwk, "alg": "Ed25519"}).find("key-1").algorithms == {"EdDSA"}


@pytest.mark.parametrize(
    ("base", "changes", "reason"),
    [
        ("RS256", {"use": "enc"}, "not for signatures"),
        ("RS256", {"use": None}, "not for signatures"),
        ("RS256", {"key_ops": ["sign"]}, "not for verifying"),
        ("RS256", {"key_ops": "verify"}, "not for verifying"),
        ("RS256", {"key_ops": []}, "not for verifying"),
        ("RS256", {"kty": "oct", "k": "AAAA"}, "ALARM"),
        ("RS256", {"kty": "oct"}, "type is not"),
        ("RS256", {"kty": ...}, "member kty"),
        ("RS256", {"kty": ["RSA"]}, "member kty"),
        ("RS256", {"kty": "EC"}, "member crv"),
        ("RS256", {"d": "AQAB"}, "ALARM"),
        ("RS256", {"p": "AQAB"}, "ALARM"),
        ("RS256", {"alg": "ES256"}, "does not fit"),
        ("RS256", {"alg": "HS256"}, "does not fit"),
        ("RS256", {"alg": "none"}, "does not fit"),
        ("RS256", {"alg": 256}, "does not fit"),
        ("RS256", {"alg": "RSA-OAEP"}, "does not fit"),
        ("RS256", {"n": ...}, "member n"),
        ("RS256", {"n": 5}, "member n"),
        ("RS256", {"n": "AQAB"}, "2048"),
        ("RS256", {"n": "!!"}, "no valid key"),
        ("RS256", {"e": "Aw"}, "65537"),
        ("RS256", {"e": "AQAA"}, "65537"),
        ("RS256", {"e": "AQAC"}, "no valid key"),
        ("RS256", {"e": b64url(b"\x01" + bytes(31) + b"\x01")}, "65537"),
        ("RS256", {"kid": ""}, "its id"),
        ("RS256", {"kid": "x" * 201}, "its id"),
        ("RS256", {"kid": "new\nline"}, "its id"),
        ("RS256", {"kid": 1}, "its id"),
        ("ES256", {"crv": "P-384"}, "length of the curve"),
        ("ES256", {"crv": "secp256k1"}, "curve is not"),
        ("ES256", {"crv": ["P-256"]}, "member crv"),
        ("ES256", {"x": "AAAA"}, "length of the curve"),
        ("ES256", {"y": b64url(bytes(32))}, "no valid key"),
        ("ES256", {"y": ...}, "member y"),
        ("ES256", {"alg": "ES384"}, "does not fit"),
        ("EdDSA", {"crv": "Ed448"}, "not Ed25519"),
        ("EdDSA", {"crv": "X25519"}, "not Ed25519"),
        ("EdDSA", {"x": b64url(bytes(31))}, "no valid key"),
    ],
)
def test_an_unsuitable_key_verifies_nothing_and_says_why(base: str, changes: dict[str, object], reason: str) -> None:
    """A key that may not verify is left out with its reason; the provider's other keys stay usable."""
    good = key("ES256", "good")
    keys = parse(without_ellipsis({**key(base).jwk, **changes}), good.jwk)
    assert set(keys.by_kid) == {"good"}
    assert not keys.without_kid
    [ignored] = keys.ignored
    assert reason in ignored
    assert ignored.isascii()
    assert ignored.isprintable()


@pytest.mark.parametrize(("bits", "usable"), [(1024, False), (2048, True), (4096, True)])
def test_rsa_sizes(bits: int, usable: bool) -> None:
    """1024 bits are too few."""
    assert len(parse(key(bits=bits).jwk)) == usable


def test_an_rsa_key_of_16384_bits_is_left_out() -> None:
    """Verifying with a giant key is work that a provider must not be able to order."""
    numbers = rsa.RSAPublicNumbers(65537, (1 << 16383) + 1)
    jwk = {"kty": "RSA", "kid": "giant", "e": "AQAB", "n": b64url(numbers.n.to_bytes(2048))}
    assert len(parse(jwk)) == 0


def test_an_id_used_twice_verifies_nothing() -> None:
    """Two keys under one id: neither is used, whichever order they come in, usable or not."""
    first, second = key("ES256", "twice").jwk, key("RS256", "twice").jwk
    assert parse(first, second, key("ES256", "good").jwk).by_kid.keys() == {"good"}
    assert not len(parse(first, {**second, "use": "enc"}))


def test_a_token_without_key_id_finds_the_only_key_or_none() -> None:
    """No id: the one key there is, with or without an id of its own; never a guess among several."""
    lonely = parse(key("ES256", None).jwk)
    assert lonely.find(None) is lonely.without_kid[0]
    named = parse(key("ES256", "a").jwk)
    assert named.find(None) is named.by_kid["a"]
    for keys in (
        parse(),
        parse(key("ES256", "a").jwk, key("ES256", "b").jwk),
        parse(key("ES256", None).jwk, key("ES256", "b").jwk),
    ):
        with pytest.raises(ProofError) as caught:
            keys.find(None)
        assert caught.value.code == "unknown-key"


def test_a_named_key_is_never_replaced_by_a_nameless_one() -> None:
    """A token that names a key does not fall back to a key without a name."""
    with pytest.raises(ProofError) as caught:
        parse(key("ES256", None).jwk).find("key-1")
    assert caught.value.code == "unknown-key"


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [1]}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [{"kid": "a", "kid": "b"}]}',
        b'\xef\xbb\xbf{"keys": []}',
        b'{"keys": [NaN]}',
        b'{"keys": [{"kid": "\\ud800"}]}',
        b"\xff",
        b"[" * 100_000,
        json.dumps({"keys": [{}] * 65}).encode(),
        b'{"keys": []}' + b" " * MAX_JWKS,
    ],
)
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    """A document that is not a key set, or is far too large, counts as the provider being unavailable."""
    with pytest.raises(UnavailableError) as caught:
        KeySet.parse(document)
    assert caught.value.code == "issuer-unavailable"


MEMBERS = ["kty", "kid", "use", "alg", "n", "e", "x", "y", "crv", "key_ops", "d"]


@given(st.lists(st.dictionaries(st.sampled_from(MEMBERS), JSON | st.sampled_from(["RSA", "EC", "OKP", "P-256"])), max_size=4))
def test_no_document_makes_it_fail_otherwise(documents: list[dict[str, Any]]) -> None:
    """Whatever a provider publishes as keys, the result is a key set without them."""
    assert len(KeySet.parse(json.dumps({"keys": documents}).encode())) == 0
