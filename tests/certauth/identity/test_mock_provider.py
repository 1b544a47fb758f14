"""The careless provider: its tokens name no key, and its issuer is whatever it is called. What we accept joserfc accepts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from certauth.errors import ProofError
from certauth.identity import BoundKey, Issuer, KeySet, issuer_of, read_proof, registry, verify_id_token
from tests.certauth.identity.kit import SALTED, STOLEN_BY
from tests.simulator.mock_provider import CLIENT_ID, MockProvider, mock_log_in, mock_provider
from tests.simulator.second_opinion import second_opinion


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MockProvider]:
    """The provider."""
    with mock_provider(tmp_path_factory.mktemp("mock")) as running:
        yield running


@pytest.fixture(scope="module")
def published(provider: MockProvider) -> bytes:
    """Its keys, as it publishes them."""
    with provider.client() as client:
        document = client.get(f"{provider.issuer}/.well-known/openid-configuration").raise_for_status().json()
        return client.get(document["jwks_uri"]).raise_for_status().content


@pytest.fixture(scope="module")
def keys(published: bytes) -> KeySet:
    """Its keys."""
    return KeySet.parse(published)


def test_its_tokens_need_the_setting_and_the_nonce(provider: MockProvider, keys: KeySet, published: bytes) -> None:
    """Without ``kid``: refused by default; with ``single_key`` accepted, for the key of the login and no other."""
    token = mock_log_in(provider, "alice", nonce=SALTED.nonce())["id_token"]
    proof = read_proof(token)
    strict = Issuer(id="mock", url=provider.issuer, audience=CLIENT_ID)

    def verify(issuer: Issuer, key: BoundKey = SALTED) -> str:
        identity = verify_id_token(proof, issuer=issuer, keys=keys, key=key, now=datetime.now(UTC))
        assert identity.claims == second_opinion(token, published)
        return identity.subject

    assert proof.kid is None
    with pytest.raises(ProofError, match="unknown-key"):
        verify(strict)
    assert verify(replace(strict, single_key=True)) == "alice"
    with pytest.raises(ProofError, match="key-not-bound"):
        verify(replace(strict, single_key=True), replace(SALTED, spki=STOLEN_BY))


def test_the_same_provider_by_another_name_is_unknown(provider: MockProvider, keys: KeySet) -> None:
    """Called by another name, it signs that name: the same key, the same person, and still refused."""
    proof = read_proof(mock_log_in(provider, "alice", nonce=SALTED.nonce(), base=provider.other_name)["id_token"])
    issuer = Issuer(id="mock", url=provider.issuer, audience=CLIENT_ID, single_key=True)
    assert proof.unverified_issuer == provider.other_name
    with pytest.raises(ProofError, match="unknown-issuer"):
        issuer_of(proof.unverified_issuer, registry([issuer]))
    with pytest.raises(ProofError, match="unknown-issuer"):
        verify_id_token(proof, issuer=issuer, keys=keys, key=SALTED, now=datetime.now(UTC))
