"""What an enrolled service signs for itself (RFC 7523)."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from certauth.identity import Binding, BoundKey, KeySet, ProofKind, VerifiedIdentity, read_proof, verify_client_assertion
from tests.certauth.identity.kit import KEY, NOW, SIGNER, THIEF, T, keyset, later, refusal, signed
from tests.simulator.hostile_provider import ProviderKey, jwks, malleated

SERVICE = "spiffe://als.example/service/reader"
GOOD = {
    "iss": SERVICE,
    "sub": SERVICE,
    "aud": SIGNER,
    "iat": T - 5,
    "exp": T + 60,
    "jti": "a-1",
    "cnf": {"jkt": KEY.thumbprint()},
}


def verify(
    token: str, *, key: BoundKey = KEY, keys: KeySet | None = None, now: datetime = NOW, principal: str = SERVICE
) -> VerifiedIdentity:
    """Verify as the service's assertion, with the keys it registered."""
    return verify_client_assertion(
        read_proof(token),
        principal=principal,
        keys=keyset() if keys is None else keys,
        key=key,
        now=now,
        skew=timedelta(seconds=60),
    )


def test_a_service_vouches_for_itself() -> None:
    """A good assertion is the service's proof."""
    token = signed(GOOD)
    identity = verify(token)
    assert (identity.kind, identity.binding, identity.assurance) == (ProofKind.CLIENT_ASSERTION, Binding.POSSESSION, 2)
    assert (identity.issuer, identity.subject, identity.email, identity.name) == (SERVICE, SERVICE, None, None)
    assert (identity.expires_at, identity.replay_until) == (later(60), later(120))
    assert identity.proof_digest == read_proof(token).digest == verify(malleated(token)).proof_digest
    assert identity.claims == GOOD


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        pytest.param("unknown-issuer", {"iss": "spiffe://als.example/service/other"}, id="of another service"),
        pytest.param("unknown-issuer", {"sub": "spiffe://als.example/service/other"}, id="about another service"),
        pytest.param("missing-claim", {"sub": ...}, id="about nobody"),
        pytest.param("wrong-audience", {"aud": "https://other.example"}, id="for another signer"),
        pytest.param("wrong-audience", {"aud": [SIGNER, "https://other.example"]}, id="for another signer too"),
        pytest.param("wrong-audience", {"aud": SIGNER + "/v1/certificates"}, id="for an endpoint"),
        pytest.param("wrong-audience", {"aud": []}, id="for nobody"),
        pytest.param("missing-claim", {"aud": ...}, id="no audience"),
        pytest.param("missing-claim", {"jti": ...}, id="no id"),
        pytest.param("bad-claim", {"jti": ""}, id="an empty id"),
        pytest.param("missing-claim", {"iat": ...}, id="no issue time"),
        pytest.param("missing-claim", {"exp": ...}, id="no end"),
        pytest.param("bad-claim", {"exp": T + 296}, id="lives a second more than five minutes"),
        pytest.param("proof-expired", {"iat": T - 200, "exp": T - 60}, id="expired"),
        pytest.param("proof-not-yet-valid", {"iat": T + 61, "exp": T + 100}, id="from the future"),
        pytest.param("proof-not-yet-valid", {"nbf": T + 61}, id="not yet valid"),
        pytest.param("key-not-bound", {"cnf": ...}, id="names no key"),
        pytest.param("key-not-bound", {"cnf": {"jkt": THIEF.thumbprint()}}, id="names another key"),
        pytest.param("key-not-bound", {"cnf": {"kid": "key-1"}}, id="names a key id"),
        pytest.param("wrong-type", {"events": {}}, id="a security event"),
        pytest.param("wrong-type", {"token_use": "id"}, id="says that it is an ID token"),
    ],
)
def test_hostile_assertions(code: str, changes: dict[str, object]) -> None:
    """A correctly signed assertion is refused for what it says."""
    assert refusal(lambda: verify(signed(GOOD, **changes))) == code


@pytest.mark.parametrize(
    ("typ", "code"),
    [(..., None), ("JWT", None), ("client-authentication+jwt", None), ("at+jwt", "wrong-type"), ("dpop+jwt", "wrong-type")],
)
def test_types(typ: object, code: str | None) -> None:
    """No type, the general one, or the one made for it."""
    if code is None:
        assert verify(signed(GOOD, typ=typ)).subject == SERVICE
    else:
        assert refusal(lambda: verify(signed(GOOD, typ=typ))) == code


@pytest.mark.parametrize("audience", [SIGNER, [SIGNER], [SIGNER, SIGNER]])
def test_the_signer_is_the_audience(audience: object) -> None:
    """As a text or a list of one."""
    assert verify(signed(GOOD, aud=audience)).subject == SERVICE


def test_the_signer_by_its_configured_and_by_its_full_name() -> None:
    """Where the signer's URL has no port, both spellings of it are meant, and no third."""
    short = BoundKey(signer_id="https://signer.example", spki=KEY.spki)
    for audience in ("https://signer.example", "https://signer.example:443"):
        assert verify(signed(GOOD, aud=audience), key=short).subject == SERVICE
    assert refusal(lambda: verify(signed(GOOD, aud="https://signer.example/"), key=short)) == "wrong-audience"


def test_a_stolen_assertion_is_worth_nothing_to_another_key() -> None:
    """It is for the key of one certification request."""
    assert refusal(lambda: verify(signed(GOOD), key=THIEF)) == "key-not-bound"


def test_keys_are_the_service_s_own() -> None:
    """Another service's key, an unknown one, and a forged signature: refused. One registered key needs no id."""
    other = ProviderKey("ES256", "key-1")
    assert refusal(lambda: verify(signed(GOOD), keys=KeySet.parse(jwks(other)))) == "bad-signature"
    assert refusal(lambda: verify(signed(GOOD), keys=KeySet.parse(jwks(ProviderKey("ES256", "key-2"))))) == "unknown-key"
    nameless = ProviderKey("ES256", None)
    assert verify(nameless.sign(GOOD), keys=KeySet.parse(jwks(nameless))).subject == SERVICE
    assert refusal(lambda: verify(nameless.sign(GOOD), keys=KeySet.parse(jwks(nameless, other)))) == "unknown-key"
    assert refusal(lambda: verify(other.sign(GOOD, other.header(alg="HS256")))) == "alg-not-allowed"


def test_one_service_does_not_speak_for_another() -> None:
    """The assertion of one, checked as another's."""
    assert refusal(lambda: verify(signed(GOOD), principal="spiffe://als.example/service/writer")) == "unknown-issuer"


@pytest.mark.parametrize(("offset", "code"), [(-66, "proof-not-yet-valid"), (-65, None), (119, None), (120, "proof-expired")])
def test_the_clock_may_be_off_by_the_skew_and_not_a_second_more(offset: int, code: str | None) -> None:
    """Issued at T-5, until T+60: accepted from 60 s before to 60 s after."""
    if code is None:
        assert verify(signed(GOOD), now=later(offset)).subject
    else:
        assert refusal(lambda: verify(signed(GOOD), now=later(offset))) == code
