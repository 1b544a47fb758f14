"""The same checks against ID tokens that a real OpenID provider issued (idpyoidc, over HTTPS, through the whole code flow).

What we accept of it joserfc, an independent library, accepts too, with the same claims.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certauth.errors import ProofError
from certauth.identity import Binding, BoundKey, Issuer, KeySet, ProofKind, read_proof, verify_access_token, verify_id_token
from tests.simulator.openid_provider import Provider, log_in, running_provider, sign_in
from tests.simulator.second_opinion import second_opinion

SIGNER = "https://signer.example:8443"
SALT = bytes(range(16))


def new_spki() -> bytes:
    """The public half of a new key."""
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module", params=["RS256", "ES256"])
def provider(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """The provider, signing ID tokens with one algorithm."""
    with running_provider(tmp_path_factory.mktemp("op"), users=("alice", "bob"), algorithm=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def published(provider: Provider) -> bytes:
    """The keys, as it publishes them."""
    with httpx2.Client(verify=ssl.create_default_context(cafile=str(provider.ca_file)), trust_env=False) as client:
        return client.get(f"{provider.issuer}/jwks.json").content


@pytest.fixture(scope="module")
def keys(published: bytes) -> KeySet:
    """The keys that it publishes."""
    return KeySet.parse(published)


def issuer_for(provider: Provider) -> Issuer:
    """The provider as a facility would configure it."""
    return Issuer(id="demo", url=provider.issuer, audience=provider.client_id)


def bound(spki: bytes, *, signer: str = SIGNER, salt: bytes = SALT) -> BoundKey:
    """The key that a login is for."""
    return BoundKey(signer_id=signer, spki=spki, salt=salt)


def test_a_real_login_proves_who_it_is_and_binds_the_key(provider: Provider, keys: KeySet, published: bytes) -> None:
    """Alice logs in for her key: the identity is hers. With any other key, salt or signer the same token is refused."""
    alice, thief = new_spki(), new_spki()
    token = log_in(provider, "alice", nonce=bound(alice).nonce())["id_token"]
    proof = read_proof(token)
    now, issuer = datetime.now(UTC), issuer_for(provider)
    identity = verify_id_token(proof, issuer=issuer, keys=keys, key=bound(alice), now=now)
    assert identity.claims == second_opinion(token, published)
    assert identity.subject == provider.subject_of("alice") != provider.subject_of("bob")
    assert (identity.kind, identity.binding) == (ProofKind.ID_TOKEN, Binding.NONCE)
    assert (identity.email, identity.name) == ("alice@demo.example", "Alice")
    assert identity.auth_time is not None
    assert abs(identity.auth_time - now) < timedelta(minutes=1)
    for other in (bound(thief), bound(alice, salt=SALT[::-1]), bound(alice, signer="https://signer.partner.example")):
        with pytest.raises(ProofError) as caught:
            verify_id_token(proof, issuer=issuer, keys=keys, key=other, now=now)
        assert caught.value.code == "key-not-bound"


def test_its_access_token_is_no_login(provider: Provider, keys: KeySet) -> None:
    """Its access token has the same issuer and audience, no ``typ`` and a good signature; it is refused as an ID token.

    Twice over: for what it says it is, and, were that left out, for lacking the nonce. An entry that accepts unbound logins, at
    the lowest assurance, refuses it as well.
    """
    key = bound(new_spki())
    proof = read_proof(log_in(provider, "alice", nonce=key.nonce())["access_token"])
    assert proof.unverified_issuer == provider.issuer
    assert provider.client_id in str(proof.unverified_claims["aud"])
    strict = issuer_for(provider)
    lax = replace(strict, bindings=frozenset({Binding.NONCE, Binding.NONE}), assurance=1)
    anonymous = {name: value for name, value in proof.unverified_claims.items() if name != "token_class"}
    for entry, salt, shown, code in (
        (strict, SALT, proof, "wrong-type"),
        (lax, None, proof, "wrong-type"),
        (strict, SALT, replace(proof, unverified_claims=anonymous), "key-not-bound"),
        (lax, None, replace(proof, unverified_claims=anonymous), "wrong-type"),
    ):
        with pytest.raises(ProofError) as caught:
            verify_id_token(shown, issuer=entry, keys=keys, key=replace(key, salt=salt), now=datetime.now(UTC))
        assert caught.value.code == code


def test_its_access_token_is_for_somebody_else(provider: Provider, keys: KeySet) -> None:
    """As an access token it is not for us: its audience is a client. Its ID token is no access token either."""
    key = bound(new_spki())
    tokens = log_in(provider, "alice", nonce=key.nonce())
    entry = Issuer(
        id="demo",
        url=provider.issuer,
        audience=provider.client_id,
        kinds=frozenset({ProofKind.ACCESS_TOKEN}),
        bindings=frozenset({Binding.NONE}),
        access_token_audience="https://signer.example",
        untyped_access_tokens=True,
        assurance=1,
    )
    for token, code in ((tokens["access_token"], "wrong-audience"), (tokens["id_token"], "wrong-type")):
        with pytest.raises(ProofError) as caught:
            verify_access_token(read_proof(token), issuer=entry, keys=keys, key=key, now=datetime.now(UTC))
        assert caught.value.code == code


def test_its_token_is_refused_for_another_client_and_after_its_time(provider: Provider, keys: KeySet) -> None:
    """Another client id in the configuration, or eleven minutes and a second later: refused."""
    key = bound(new_spki())
    proof = read_proof(log_in(provider, "bob", nonce=key.nonce())["id_token"])
    other = Issuer(id="demo", url=provider.issuer, audience="another-client")
    with pytest.raises(ProofError) as caught:
        verify_id_token(proof, issuer=other, keys=keys, key=key, now=datetime.now(UTC))
    assert caught.value.code == "wrong-audience"
    late = datetime.now(UTC) + timedelta(minutes=11, seconds=1)
    with pytest.raises(ProofError) as caught:
        verify_id_token(proof, issuer=issuer_for(provider), keys=keys, key=key, now=late)
    assert caught.value.code == "proof-expired"


def test_the_provider_is_a_strict_one(provider: Provider) -> None:
    """The simulator is worth something: no login without PKCE, with a wrong password, or to a foreign redirect."""
    url = f"{provider.issuer}/authorization?response_type=code&client_id={provider.client_id}&scope=openid&state=s&nonce=n"
    loopback = "&redirect_uri=http%3A%2F%2F127.0.0.1%3A50000%2Fcallback"
    pkce = f"&code_challenge={'A' * 43}&code_challenge_method=S256"
    for query, password, message in (
        (url + loopback, "alice-password", "code_challenge"),
        (url + loopback + pkce, "wrong", "access_denied"),
        (url + pkce + "&redirect_uri=https%3A%2F%2Fevil.example%2Fcallback", "alice-password", "RedirectURIError"),
    ):
        with pytest.raises(RuntimeError, match=message):
            sign_in(query, "alice", password, provider.ca_file)
