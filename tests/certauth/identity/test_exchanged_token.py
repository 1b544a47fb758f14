"""Access tokens that a real provider (idpyoidc) made for us out of others (RFC 8693): as what they pass, and as what not.

They have no ``typ``, and the issuer and the keys of its ID tokens: only the settings and the claims tell what they are.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from certauth.errors import ProofError
from certauth.identity import (
    Binding,
    BoundKey,
    Issuer,
    KeySet,
    ProofKind,
    VerifiedIdentity,
    read_proof,
    verify_access_token,
    verify_id_token,
    verify_workload,
)
from tests.simulator.openid_provider import Provider, exchange, log_in, running_provider
from tests.simulator.second_opinion import second_opinion

US = "https://signer.example"
KEY = BoundKey(signer_id="https://signer.example:8443", spki=b"key", salt=None)
Verify = Callable[..., VerifiedIdentity]
OURS: dict[str, Any] = {"audience": US, "access_token_audience": None, "untyped_access_tokens": False}
"""An entry whose client is called as the audience is."""


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """The provider."""
    with running_provider(tmp_path_factory.mktemp("op"), users=("alice",)) as running:
        yield running


@pytest.fixture(scope="module")
def published(provider: Provider) -> bytes:
    """Its keys, as it publishes them."""
    with httpx2.Client(verify=ssl.create_default_context(cafile=str(provider.ca_file)), trust_env=False) as client:
        return client.get(f"{provider.issuer}/jwks.json").content


@pytest.fixture(scope="module")
def original(provider: Provider) -> str:
    """An access token of Alice's, for her client."""
    return log_in(provider, "alice", nonce="n" * 43)["access_token"]


def entry(provider: Provider, **changes: Any) -> Issuer:
    """A facility that takes such tokens for itself, bound to nothing, for what that is worth."""
    settings: dict[str, Any] = {
        "kinds": frozenset({ProofKind.ACCESS_TOKEN}),
        "bindings": frozenset({Binding.NONE}),
        "access_token_audience": US,
        "untyped_access_tokens": True,
        "assurance": 1,
    }
    return Issuer(id="op", url=provider.issuer, audience=provider.client_id, **settings | changes)


def test_it_passes_as_an_access_token_for_us(provider: Provider, published: bytes, original: str) -> None:
    """Where the facility lists the kind, names this audience, and takes unbound ones: Alice, at the lowest assurance."""
    token = exchange(provider, original, audience=US)
    proof = read_proof(token)
    identity = verify_access_token(proof, issuer=entry(provider), keys=KeySet.parse(published), key=KEY, now=datetime.now(UTC))
    assert proof.typ is None
    assert (identity.subject, identity.binding, identity.assurance) == (provider.subject_of("alice"), Binding.NONE, 1)
    assert identity.claims == second_opinion(token, published)


@pytest.mark.parametrize(
    ("verify", "changes", "code"),
    [
        (verify_id_token, {}, "kind-not-allowed"),
        (verify_workload, {}, "kind-not-allowed"),
        (verify_id_token, {"kinds": frozenset({ProofKind.ID_TOKEN})}, "wrong-type"),
        (verify_id_token, OURS | {"kinds": frozenset({ProofKind.ID_TOKEN})}, "wrong-type"),
        (verify_workload, OURS | {"kinds": frozenset({ProofKind.WORKLOAD})}, "wrong-type"),
        (verify_access_token, {"kinds": frozenset({ProofKind.ID_TOKEN})}, "kind-not-allowed"),
        (verify_access_token, {"untyped_access_tokens": False}, "wrong-type"),
        (verify_access_token, {"access_token_audience": "https://signer.partner.example"}, "wrong-audience"),
        (verify_access_token, {"audience": "another-client"}, "wrong-audience"),
        (verify_access_token, {"bindings": frozenset({Binding.DPOP}), "assurance": 2}, "key-not-bound"),
    ],
)
def test_it_passes_as_nothing_else(
    provider: Provider, published: bytes, original: str, verify: Verify, changes: dict[str, Any], code: str
) -> None:
    """As another kind, for another audience, from a client that is not listed, or where tokens must be bound: refused."""
    proof, issuer = read_proof(exchange(provider, original, audience=US)), replace(entry(provider), **changes)
    with pytest.raises(ProofError) as caught:
        verify(proof, issuer=issuer, keys=KeySet.parse(published), key=KEY, now=datetime.now(UTC))
    assert caught.value.code == code


def test_what_it_was_made_from_is_not_for_us(provider: Provider, published: bytes, original: str) -> None:
    """The token before the exchange, and one that was exchanged for somebody else."""
    for token in (original, exchange(provider, original, audience="https://portal.example")):
        with pytest.raises(ProofError, match="wrong-audience"):
            verify_access_token(
                read_proof(token), issuer=entry(provider), keys=KeySet.parse(published), key=KEY, now=datetime.now(UTC)
            )
