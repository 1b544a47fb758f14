"""Proofs that npm ``oidc-provider`` signs, over HTTPS: logins, DPoP-bound access tokens, the device grant, introspection.

Each is also read by joserfc, an independent library: what we accept it accepts, with the same claims.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from certauth import keys
from certauth.errors import ProofError
from certauth.identity import (
    Binding,
    BoundKey,
    Issuer,
    KeySet,
    ProofKind,
    opaque_digest,
    read_proof,
    verify_access_token,
    verify_id_token,
    verify_introspected,
)
from tests.simulator.node_provider import (
    CLIENT_ID,
    SIGNER_CLIENT_ID,
    SIGNER_SECRET,
    DpopKey,
    NodeProvider,
    confidential_client,
    device_login,
    log_in,
    node_provider,
    public_client,
)
from tests.simulator.second_opinion import second_opinion

SIGNER = "https://signer.example:8443"
SALT = bytes(range(16))
JWT_FOR_US, OPAQUE_FOR_US = "https://signer.example", "urn:signer.example:opaque"
BOTH = frozenset({ProofKind.ID_TOKEN, ProofKind.ACCESS_TOKEN})


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProvider]:
    """The provider, with two clients; it makes signed access tokens for one audience and opaque ones for another."""
    resources = {JWT_FOR_US: {}, OPAQUE_FOR_US: {"format": "opaque"}}
    other = public_client("portal")
    with node_provider(
        tmp_path_factory.mktemp("node"), clients=[public_client(), other, confidential_client()], resources=resources
    ) as running:
        yield running


@pytest.fixture(scope="module")
def document(provider: NodeProvider) -> bytes:
    """Its keys, as it publishes them."""
    with provider.client() as client:
        return client.get(provider.discovery()["jwks_uri"]).raise_for_status().content


def entry(provider: NodeProvider, **changes: Any) -> Issuer:
    """The provider as a facility would configure it."""
    settings = {
        "kinds": BOTH,
        "bindings": frozenset({Binding.NONCE, Binding.DPOP}),
        "access_token_audience": JWT_FOR_US,
        **changes,
    }
    return Issuer(id="node", url=provider.issuer, audience=CLIENT_ID, **settings)


def bound(dpop: DpopKey, salt: bytes | None = None) -> BoundKey:
    """The key that makes the DPoP proofs, as the key of a certification request."""
    return BoundKey(signer_id=SIGNER, spki=keys.spki(dpop.private.public_key()), salt=salt)


def test_a_login(provider: NodeProvider, document: bytes) -> None:
    """Code flow with our nonce: Alice, bound to her key; without the salt, or for another key, nothing."""
    alice = bound(DpopKey(), SALT)
    token = log_in(provider, "alice", nonce=alice.nonce())["id_token"]
    proof, published, now = read_proof(token), KeySet.parse(document), datetime.now(UTC)
    identity = verify_id_token(proof, issuer=entry(provider), keys=published, key=alice, now=now)
    assert (identity.subject, identity.binding) == ("alice", Binding.NONCE)
    assert identity.claims == second_opinion(token, document)
    for key in (replace(alice, salt=None), bound(DpopKey(), SALT)):
        with pytest.raises(ProofError, match="key-not-bound"):
            verify_id_token(proof, issuer=entry(provider), keys=published, key=key, now=now)


@pytest.mark.parametrize("flow", [log_in, device_login])
def test_an_access_token_bound_by_dpop(provider: NodeProvider, document: bytes, flow: Any) -> None:
    """Code flow and device grant: ``cnf.jkt`` names the key that made the proof, and no other key can use the token."""
    dpop = DpopKey()
    token = flow(provider, "alice", dpop=dpop, resource=JWT_FOR_US)["access_token"]
    proof, published, now = read_proof(token), KeySet.parse(document), datetime.now(UTC)
    identity = verify_access_token(proof, issuer=entry(provider), keys=published, key=bound(dpop), now=now)
    assert (identity.subject, identity.kind, identity.binding) == ("alice", ProofKind.ACCESS_TOKEN, Binding.DPOP)
    assert identity.claims == second_opinion(token, document)
    with pytest.raises(ProofError, match="key-not-bound"):
        verify_access_token(proof, issuer=entry(provider), keys=published, key=bound(DpopKey()), now=now)
    with pytest.raises(ProofError, match="wrong-type"):
        verify_id_token(proof, issuer=entry(provider), keys=published, key=bound(dpop), now=now)


def test_the_device_grant_leaves_the_nonce_out(provider: NodeProvider, document: bytes) -> None:
    """Its ID token is bound to nothing: refused, or worth 1 where the facility accepts that."""
    key = bound(DpopKey(), SALT)
    proof = read_proof(device_login(provider, "alice", nonce=key.nonce())["id_token"])
    published, now = KeySet.parse(document), datetime.now(UTC)
    for salt in (SALT, None):
        with pytest.raises(ProofError, match="key-not-bound"):
            verify_id_token(proof, issuer=entry(provider), keys=published, key=replace(key, salt=salt), now=now)
    lax = entry(provider, bindings=frozenset({Binding.NONCE, Binding.DPOP, Binding.NONE}), assurance=1)
    identity = verify_id_token(proof, issuer=lax, keys=published, key=replace(key, salt=None), now=now)
    assert (identity.subject, identity.binding, identity.assurance) == ("alice", Binding.NONE, 1)


def test_a_bearer_token_and_another_client_s_token(provider: NodeProvider, document: bytes) -> None:
    """An access token for us without DPoP, and one that another client asked for: refused."""
    dpop, published, now = DpopKey(), KeySet.parse(document), datetime.now(UTC)
    bearer = read_proof(log_in(provider, "alice", resource=JWT_FOR_US)["access_token"])
    portal = read_proof(log_in(provider, "alice", client_id="portal", dpop=dpop, resource=JWT_FOR_US)["access_token"])
    for proof, code in ((bearer, "key-not-bound"), (portal, "wrong-audience")):
        with pytest.raises(ProofError, match=code):
            verify_access_token(proof, issuer=entry(provider), keys=published, key=bound(dpop), now=now)
    listed = entry(provider, authorized_parties=frozenset({"portal"}))
    assert verify_access_token(portal, issuer=listed, keys=published, key=bound(dpop), now=now).subject == "alice"


def introspect(provider: NodeProvider, token: str) -> dict[str, Any]:
    """What the provider says of the token to the signer, which is a confidential client there."""
    with provider.client() as client:
        answer = client.post(
            provider.discovery()["introspection_endpoint"], data={"token": token}, auth=(SIGNER_CLIENT_ID, SIGNER_SECRET)
        )
        return dict(answer.raise_for_status().json())


def test_an_opaque_access_token(provider: NodeProvider) -> None:
    """Introspected, it is bound as a signed one is; its refresh token and an invented one are refused."""
    dpop, now = DpopKey(), datetime.now(UTC)
    tokens = log_in(provider, "alice", dpop=dpop, resource=OPAQUE_FOR_US, scope="openid offline_access")
    token, by = tokens["access_token"], entry(provider, access_token_audience=OPAQUE_FOR_US)
    digest, answer = hashlib.sha256(token.encode()).digest(), introspect(provider, token)
    assert opaque_digest(token) == digest
    identity = verify_introspected(answer, token_digest=digest, issuer=by, key=bound(dpop), now=now)
    assert (identity.subject, identity.binding, identity.proof_digest) == ("alice", Binding.DPOP, digest)
    refresh = introspect(provider, tokens["refresh_token"])
    assert refresh["active"] is True
    for said, issuer, key, code in (
        (answer, by, bound(DpopKey()), "key-not-bound"),
        (answer, entry(provider), bound(dpop), "wrong-audience"),
        (introspect(provider, "invented"), by, bound(dpop), "token-inactive"),
        (refresh, by, bound(dpop), "missing-claim"),
        ({**refresh, "aud": OPAQUE_FOR_US}, by, bound(dpop), "missing-claim"),
    ):
        with pytest.raises(ProofError, match=code):
            verify_introspected(said, token_digest=digest, issuer=issuer, key=key, now=now)
