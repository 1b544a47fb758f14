"""Nothing passes as another kind: every token of every kind, shown to every verifier of an issuer that accepts all it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest

from certauth.errors import ProofError
from certauth.identity import (
    Binding,
    BoundKey,
    Issuer,
    ProofKind,
    VerifiedIdentity,
    read_proof,
    verify_access_token,
    verify_client_assertion,
    verify_id_token,
    verify_workload,
)
from tests.certauth.identity.kit import (
    ACCESS_TOKEN,
    ID_TOKEN,
    KEY,
    NOW,
    PUBLIC,
    SALTED,
    URL,
    WORKLOAD,
    T,
    issuer,
    keyset,
    refusal,
    signed,
)
from tests.simulator.hostile_provider import without_ellipsis

LOGIN, CALL, JOB, ASSERTION = (
    ProofKind.ID_TOKEN,
    ProofKind.ACCESS_TOKEN,
    ProofKind.WORKLOAD,
    ProofKind.CLIENT_ASSERTION,
)
ALL_BOUND = issuer(LOGIN, CALL, JOB, bindings=set(Binding) - {Binding.NONE, Binding.POSSESSION}, untyped_access_tokens=True)
PEOPLE = issuer(LOGIN, CALL, bindings=set(Binding) - {Binding.POSSESSION}, untyped_access_tokens=True, assurance=1)
MACHINES = issuer(JOB, CALL, bindings=set(Binding) - {Binding.POSSESSION}, untyped_access_tokens=True, assurance=1)
ISSUERS = {"bound": ALL_BOUND, "people": PEOPLE, "machines": MACHINES}
KEYS = {"salt": SALTED, "no salt": KEY}

BOUND = {"cnf": {"jkt": KEY.thumbprint()}}
NO_NONCE = {**ID_TOKEN, "nonce": ...}
API = {**ACCESS_TOKEN, "cnf": ...}
# name -> (header's typ, claims, as which kinds it may pass). An entry that passes as nothing is another kind altogether.
TOKENS: Mapping[str, tuple[object, Mapping[str, object], set[ProofKind]]] = {
    "ID token with our nonce": ("JWT", ID_TOKEN, {LOGIN}),
    "ID token with our nonce, no typ": (..., ID_TOKEN, {LOGIN}),
    "ID token without a nonce": ("JWT", NO_NONCE, {LOGIN}),
    "ID token without anything": ("JWT", {**NO_NONCE, "auth_time": ..., "amr": ...}, {LOGIN, JOB}),
    "ID token for several": ("JWT", {**ID_TOKEN, "aud": ["signer", "https://signer.example"], "azp": "signer"}, {LOGIN}),
    "key-bound ID token": ("dpop+id_token", {**NO_NONCE, **BOUND}, {LOGIN}),
    "Keycloak ID token": ("JWT", {**ID_TOKEN, "typ": "ID", "azp": "signer", "sid": "s", "at_hash": "x"}, {LOGIN}),
    "Cognito ID token": (..., {**ID_TOKEN, "token_use": "id", "at_hash": "x"}, {LOGIN}),
    "access token bound to our key": ("at+jwt", ACCESS_TOKEN, {CALL}),
    "access token, written out": ("application/at+jwt", ACCESS_TOKEN, {CALL}),
    "access token, bearer": ("at+jwt", API, {CALL}),
    "access token for our client": ("at+jwt", {**API, "aud": "signer"}, set()),
    "access token without typ": (..., ACCESS_TOKEN, {CALL}),
    "access token without typ, for our client": (..., {**API, "aud": "signer"}, set()),
    "idpyoidc access token": (..., {**API, "aud": ["signer"], "token_class": "access_token"}, set()),
    "idpyoidc access token that says nothing": (..., {**API, "aud": ["signer"]}, set()),
    "Keycloak access token for our client": ("JWT", {**API, "aud": "signer", "typ": "Bearer", "azp": "signer"}, set()),
    "Cognito access token": (..., {**API, "aud": ..., "token_use": "access"}, set()),
    "access token with our nonce": ("at+jwt", {**ACCESS_TOKEN, "aud": "signer", "nonce": SALTED.nonce()}, set()),
    "client credentials": ("at+jwt", {**ACCESS_TOKEN, "sub": "signer"}, set()),
    "refresh token": ("JWT", {**ID_TOKEN, "typ": "Refresh"}, set()),
    "job token bound to our key": ("JWT", WORKLOAD, {JOB}),
    "job token of Kubernetes": (..., {**WORKLOAD, "aud": ["signer"], "kubernetes.io": {"namespace": "a"}}, {JOB}),
    "job token of GitLab": ("JWT", {**WORKLOAD, "aud": "signer", "project_path": "a/b", "pipeline_id": "1"}, {JOB}),
    "JWT-SVID": ("JOSE", {**WORKLOAD, "sub": "spiffe://als.example/job"}, {JOB}),
    "client assertion": ("JWT", {**PUBLIC, "iss": "me", "sub": "me", "aud": KEY.signer_id, "jti": "1", **BOUND}, set()),
    "logout token": ("logout+jwt", {**ID_TOKEN, "events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, set()),
    "logout token without typ": (
        ...,
        {**ID_TOKEN, "events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
        set(),
    ),
    "security event": ("secevent+jwt", {**ID_TOKEN, "events": {}}, set()),
    "DPoP proof": ("dpop+jwt", {**ID_TOKEN, "htm": "POST", "htu": URL}, set()),
    "introspection answer": ("token-introspection+jwt", {**ID_TOKEN, "token_introspection": {}}, set()),
    "authorization request": ("oauth-authz-req+jwt", ID_TOKEN, set()),
    "entity statement": ("entity-statement+jwt", ID_TOKEN, set()),
    "verifiable credential": ("vc+sd-jwt", ID_TOKEN, set()),
    "key-binding JWT": ("kb+jwt", ID_TOKEN, set()),
}
VERIFIERS: Mapping[ProofKind, Callable[..., VerifiedIdentity]] = {
    LOGIN: verify_id_token,
    CALL: verify_access_token,
    JOB: verify_workload,
}


def token(name: str) -> str:
    """The token, signed by the provider."""
    typ, claims, _ = TOKENS[name]
    return signed(without_ellipsis(claims), typ=typ)


def accepted(name: str, kind: ProofKind, by: Issuer, key: BoundKey) -> bool:
    """Whether the token passes as that kind; a refusal is a ``ProofError``, anything else fails the test."""
    proof = read_proof(token(name))
    try:
        identity = VERIFIERS[kind](proof, issuer=by, keys=keyset(), key=key, now=NOW)
    except ProofError:
        return False
    assert identity.kind is kind
    return True


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_passes_as_its_own_kind_only(name: str) -> None:
    """With every setting as lax as it may be, with and without a salt: each token passes as what it is, and as nothing else."""
    passed = {
        kind
        for kind in VERIFIERS
        for by in ISSUERS.values()
        for key in KEYS.values()
        if kind in by.kinds and accepted(name, kind, by, key)
    }
    assert passed == TOKENS[name][2]


def test_what_carries_no_mark_is_told_apart_by_the_entry() -> None:
    """An ID token with nothing but a subject looks like a job's token. No entry accepts both unbound, so none confuses them."""
    name = "ID token without anything"
    assert accepted(name, LOGIN, PEOPLE, KEY)
    assert not accepted(name, JOB, PEOPLE, KEY)
    assert accepted(name, JOB, MACHINES, KEY)
    assert not any(accepted(name, kind, ALL_BOUND, key) for kind in VERIFIERS for key in KEYS.values())


def assertion(name: str) -> VerifiedIdentity:
    """The token, made to live shortly, as the assertion of its own issuer, whose keys somebody registered as theirs."""
    typ, claims, _ = TOKENS[name]
    proof = read_proof(signed(without_ellipsis({**claims, "exp": T + 60}), typ=typ))
    return verify_client_assertion(
        proof, principal=proof.unverified_issuer, keys=keyset(), key=KEY, now=NOW, skew=timedelta(seconds=60)
    )


@pytest.mark.parametrize("name", [name for name in TOKENS if name != "client assertion"])
def test_nothing_of_a_provider_is_a_client_assertion(name: str) -> None:
    """Not even where somebody registered the provider's keys as their own."""
    assert refusal(lambda: assertion(name)) in {"wrong-type", "wrong-audience"}


def test_a_client_assertion_that_is_one_passes() -> None:
    """Negative control of the test above."""
    assert assertion("client assertion").kind is ASSERTION
