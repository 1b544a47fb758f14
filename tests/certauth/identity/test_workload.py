"""Tokens of machines: bound by an audience made from the key."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

import pytest

from certauth.identity import Binding, BoundKey, ProofKind
from tests.certauth.identity.kit import (
    JOBS,
    KEY,
    LOGINS,
    MINE,
    SIGNER,
    THIEF,
    WORKLOAD,
    T,
    issuer,
    later,
    refusal,
    signed,
    workload,
)

UNBOUND = issuer(ProofKind.WORKLOAD, bindings={Binding.AUDIENCE, Binding.NONE}, assurance=1)
CNF = issuer(ProofKind.WORKLOAD, bindings={Binding.CNF})
FOR_US = {**WORKLOAD, "aud": "signer"}


def test_a_job_asks_for_an_audience_made_from_its_key() -> None:
    """A token for exactly this key and signer is the workload's proof."""
    identity = workload(signed(WORKLOAD, namespace="beamline"))
    assert (identity.kind, identity.binding, identity.assurance) == (ProofKind.WORKLOAD, Binding.AUDIENCE, 2)
    assert (identity.subject, identity.auth_time) == ("system:serviceaccount:beamline:reader", None)
    assert identity.claims["namespace"] == "beamline"
    assert identity.replay_until == later(660)


def test_the_audience_is_the_published_formula() -> None:
    """An independent computation gives the same audience."""
    digest = hashlib.sha256(b"certauth/v1 audience\0" + SIGNER.encode() + b"\0" + MINE).digest()
    assert KEY.audience() == f"{SIGNER}/#{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


@pytest.mark.parametrize("typ", ["JWT", ..., "jwt", "JOSE"])
def test_types_of_ci_kubernetes_and_spiffe(typ: object) -> None:
    """GitHub and GitLab write JWT, Kubernetes nothing, SPIFFE JWT or JOSE."""
    assert workload(signed(WORKLOAD, typ=typ)).binding is Binding.AUDIENCE


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        pytest.param("key-not-bound", {"aud": THIEF.audience()}, id="for another key"),
        pytest.param("key-not-bound", {"aud": KEY.audience()[:-1]}, id="for most of our key"),
        pytest.param("key-not-bound", {"aud": SIGNER + "/#"}, id="for no key"),
        pytest.param("wrong-audience", {"aud": replace(KEY, signer_id="https://other.example").audience()}, id="other signer"),
        pytest.param("wrong-audience", {"aud": SIGNER}, id="for the signer, no key"),
        pytest.param("wrong-audience", {"aud": "https://other.example"}, id="for another service"),
        pytest.param("key-not-bound", {"aud": "signer"}, id="for us, not bound"),
        pytest.param("wrong-audience", {"aud": []}, id="for nobody"),
        pytest.param("missing-claim", {"aud": ...}, id="no audience"),
        pytest.param("missing-claim", {"sub": ...}, id="nobody"),
        pytest.param("bad-claim", {"sub": "a" * 256}, id="a name too long"),
        pytest.param("proof-expired", {"iat": T - 500, "exp": T - 60}, id="expired"),
        pytest.param("proof-too-old", {"iat": T - 660}, id="too old"),
        pytest.param("bad-claim", {"exp": T + 365 * 86400}, id="lives for a year"),
        pytest.param("missing-claim", {"iat": ...}, id="no issue time"),
        pytest.param("wrong-type", {"nonce": "x"}, id="a login's nonce"),
        pytest.param("wrong-type", {"at_hash": "x"}, id="a login's access token"),
        pytest.param("wrong-type", {"auth_time": T}, id="somebody logged in"),
        pytest.param("wrong-type", {"amr": ["pwd"]}, id="with a password"),
        pytest.param("wrong-type", {"sid": "x"}, id="a session"),
        pytest.param("wrong-type", {"client_id": "signer"}, id="an access token"),
        pytest.param("wrong-type", {"token_use": "id"}, id="says that it is an ID token"),
        pytest.param("wrong-type", {"typ": "Bearer"}, id="says that it is an access token"),
        pytest.param("wrong-type", {"events": {}}, id="a security event"),
        pytest.param("key-not-bound", {"cnf": {"jkt": THIEF.thumbprint()}}, id="our audience, another key"),
        pytest.param("unknown-issuer", {"iss": "https://evil.example"}, id="another issuer"),
    ],
)
def test_hostile_tokens(code: str, changes: dict[str, object]) -> None:
    """A correctly signed token is refused for what it says."""
    assert refusal(lambda: workload(signed(WORKLOAD, **changes))) == code


@pytest.mark.parametrize("typ", ["at+jwt", "logout+jwt", "dpop+jwt", "dpop+id_token", ""])
def test_other_types(typ: str) -> None:
    """A header that says something else is believed."""
    assert refusal(lambda: workload(signed(WORKLOAD, typ=typ))) == "wrong-type"


def test_further_audiences_do_no_harm_to_a_bound_token() -> None:
    """Whoever else may read the token does not have the key."""
    token = signed(WORKLOAD, aud=["https://kubernetes.default.svc", KEY.audience()])
    assert workload(token).binding is Binding.AUDIENCE
    assert refusal(lambda: workload(token, key=THIEF)) == "key-not-bound"


@pytest.mark.parametrize("signer", ["https://signer.example:8444", "http://signer.example:8443", "https://partner.example"])
def test_a_token_for_one_signer_is_worth_nothing_at_another(signer: str) -> None:
    """The signer of another facility cannot use what it was shown."""
    assert refusal(lambda: workload(signed(WORKLOAD), key=BoundKey(signer_id=signer, spki=MINE))) == "wrong-audience"


def test_an_unbound_token_is_for_us_alone() -> None:
    """Where unbound tokens are accepted: ours and nobody else's, as whoever else may read it could use it here."""
    identity = workload(signed(FOR_US), by=UNBOUND)
    assert (identity.binding, identity.assurance) == (Binding.NONE, 1)
    assert workload(signed(FOR_US, aud=["signer"]), by=UNBOUND).binding is Binding.NONE
    assert refusal(lambda: workload(signed(FOR_US, aud=["signer", "other"]), by=UNBOUND)) == "wrong-audience"


def test_a_bound_token_cannot_be_used_as_an_unbound_one() -> None:
    """A token for another key is refused where unbound ones are accepted, alone and beside our own name."""
    for audience in ([THIEF.audience()], ["signer", THIEF.audience()]):
        assert refusal(lambda audience=audience: workload(signed(WORKLOAD, aud=audience), by=UNBOUND)) == "key-not-bound"  # type: ignore[misc]
    assert workload(signed(WORKLOAD), by=UNBOUND).binding is Binding.AUDIENCE


def test_a_platform_that_writes_the_key_into_its_token() -> None:
    """``cnf`` binds a token for us, where the entry allows it."""
    token = signed(FOR_US, cnf={"jkt": KEY.thumbprint()})
    assert workload(token, by=CNF).binding is Binding.CNF
    assert refusal(lambda: workload(token, by=CNF, key=THIEF)) == "key-not-bound"
    assert refusal(lambda: workload(token)) == "key-not-bound"


def test_an_issuer_that_signs_no_workloads() -> None:
    """A login's provider is not believed about machines, nor the other way round."""
    assert refusal(lambda: workload(signed(WORKLOAD), by=LOGINS)) == "kind-not-allowed"


@pytest.mark.parametrize(("offset", "code"), [(-66, "proof-not-yet-valid"), (-65, None), (654, None), (655, "proof-too-old")])
def test_the_clock_may_be_off_by_the_skew_and_not_a_second_more(offset: int, code: str | None) -> None:
    """Issued at T-5, accepted from 60 s before to 10 min 60 s after."""
    if code is None:
        assert workload(signed(WORKLOAD), now=later(offset)).subject
    else:
        assert refusal(lambda: workload(signed(WORKLOAD), now=later(offset))) == code


def test_the_steps_before_the_claims() -> None:
    """Signature and algorithm, as for every proof; and an address counts only when verified."""
    head, _, signature = signed(WORKLOAD).split(".")
    other = signed(WORKLOAD, sub="mallory").split(".")[1]
    assert refusal(lambda: workload(f"{head}.{other}.{signature}")) == "bad-signature"
    assert refusal(lambda: workload(signed(WORKLOAD), by=replace(JOBS, algorithms=frozenset({"RS256"})))) == "alg-not-allowed"
    assert workload(signed(WORKLOAD, email="a@b.example", email_verified=False)).email is None
