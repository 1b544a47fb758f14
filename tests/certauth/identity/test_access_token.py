"""Access tokens: signed ones (RFC 9068) and opaque ones (RFC 7662), bound by DPoP or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from certauth.identity import (
    Binding,
    BoundKey,
    Issuer,
    ProofKind,
    VerifiedIdentity,
    opaque_digest,
    read_proof,
    verify_introspected,
)
from tests.certauth.identity.kit import (
    ACCESS_TOKEN,
    CALLS,
    ID_TOKEN,
    KEY,
    LOGINS,
    NOW,
    SALTED,
    THIEF,
    T,
    access_token,
    issuer,
    later,
    refusal,
    signed,
)
from tests.simulator.hostile_provider import malleated, without_ellipsis

OURS = "https://signer.example"
BARE = {**ACCESS_TOKEN, "cnf": ...}
UNTYPED = issuer(ProofKind.ACCESS_TOKEN, bindings={Binding.DPOP}, untyped_access_tokens=True)
UNBOUND = issuer(ProofKind.ACCESS_TOKEN, bindings={Binding.DPOP, Binding.NONE}, assurance=1)


def at(**changes: object) -> str:
    """A good access token with changes."""
    return signed(without_ellipsis({**ACCESS_TOKEN, **changes}), typ="at+jwt")


# --- signed ones ----------------------------------------------------------------------------------------------------


def test_an_access_token_for_our_key() -> None:
    """A token that names our key is somebody's proof; everything comes from the token and the configuration."""
    token = at(auth_time=T - 100, acr="mfa", amr=["pwd", "otp"], name="Alice", email="a@b.example", email_verified=True)
    identity = access_token(token)
    assert identity == VerifiedIdentity(
        issuer_id="lab",
        issuer="https://idp.example",
        subject="248289761001",
        kind=ProofKind.ACCESS_TOKEN,
        binding=Binding.DPOP,
        assurance=2,
        auth_time=NOW - timedelta(seconds=100),
        acr="mfa",
        amr=("pwd", "otp"),
        email="a@b.example",
        name="Alice",
        issued_at=NOW - timedelta(seconds=5),
        expires_at=NOW + timedelta(seconds=600),
        proof_digest=read_proof(token).digest,
        replay_until=NOW + timedelta(seconds=660),
        claims=identity.claims,
    )
    assert identity.claims["scope"] == "openid certificates"


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "AT+JWT", "Application/At+Jwt"])
def test_a_media_type_has_no_case(typ: str) -> None:
    """Both spellings of RFC 9068 §2.1, in any case."""
    assert access_token(signed(ACCESS_TOKEN, typ=typ)).binding is Binding.DPOP


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        # which key?
        pytest.param("key-not-bound", {"cnf": {"jkt": THIEF.thumbprint()}}, id="bound to another key"),
        pytest.param("key-not-bound", {"cnf": ...}, id="a bearer token"),
        pytest.param("key-not-bound", {"cnf": None}, id="a null cnf"),
        pytest.param("key-not-bound", {"cnf": {"x5t#S256": KEY.thumbprint()}}, id="bound to a certificate"),
        # whose?
        pytest.param("wrong-audience", {"aud": "signer"}, id="for our client id"),
        pytest.param("wrong-audience", {"aud": "https://other.example"}, id="for another service"),
        pytest.param("wrong-audience", {"aud": ["https://other.example", "signer"]}, id="for others"),
        pytest.param("wrong-audience", {"aud": OURS + "/"}, id="a trailing slash"),
        pytest.param("missing-claim", {"aud": ...}, id="no audience"),
        pytest.param("wrong-audience", {"client_id": "other-app"}, id="asked for by another client"),
        pytest.param("wrong-audience", {"azp": "other-app"}, id="another authorized party"),
        pytest.param("missing-claim", {"client_id": ...}, id="asked for by nobody"),
        pytest.param("bad-claim", {"client_id": ["signer"]}, id="a list of clients"),
        pytest.param("missing-claim", {"jti": ...}, id="no token id"),
        pytest.param("bad-claim", {"jti": 7}, id="a token id that is a number"),
        # who?
        pytest.param("missing-claim", {"sub": ...}, id="nobody"),
        pytest.param("bad-claim", {"sub": "a\nb"}, id="a line break"),
        pytest.param("wrong-type", {"sub": "signer"}, id="the client's own token"),
        # when?
        pytest.param("proof-expired", {"iat": T - 500, "exp": T - 60}, id="expired"),
        pytest.param("proof-too-old", {"iat": T - 660}, id="too old"),
        pytest.param("proof-not-yet-valid", {"iat": T + 61}, id="from the future"),
        pytest.param("bad-claim", {"exp": T + 10 * 365 * 86400}, id="lives for ten years"),
        pytest.param("bad-claim", {"auth_time": T + 61}, id="a login to come"),
        pytest.param("missing-claim", {"iat": ...}, id="no issue time"),
        # what?
        pytest.param("wrong-type", {"events": {}}, id="a security event"),
        pytest.param("wrong-type", {"token_use": "id"}, id="says that it is an ID token"),
        pytest.param("wrong-type", {"typ": "Refresh"}, id="a Keycloak refresh token"),
        pytest.param("wrong-type", {"typ": "ID"}, id="a Keycloak ID token"),
        pytest.param("wrong-type", {"token_class": "refresh_token"}, id="an idpyoidc refresh token"),
        pytest.param("unknown-issuer", {"iss": "https://evil.example"}, id="another issuer"),
        pytest.param("bad-claim", {"acr": 1}, id="an acr that is a number"),
    ],
)
def test_hostile_access_tokens(code: str, changes: dict[str, object]) -> None:
    """A correctly signed token is refused for what it says."""
    assert refusal(lambda: access_token(at(**changes))) == code


@pytest.mark.parametrize("changes", [{}, {"aud": [OURS, "https://other.example"]}, {"azp": "signer"}, {"token_use": "access"}])
def test_legal_access_tokens(changes: dict[str, object]) -> None:
    """Negative control: what the specifications allow is accepted."""
    assert access_token(at(**changes)).subject == "248289761001"


def test_another_client_must_be_listed() -> None:
    """A portal's token is accepted where, and only where, the portal is listed."""
    portal = at(client_id="portal")
    assert refusal(lambda: access_token(portal)) == "wrong-audience"
    listed = replace(CALLS, authorized_parties=frozenset({"portal"}))
    assert access_token(portal, by=listed).subject == "248289761001"
    assert refusal(lambda: access_token(at(client_id="portal", sub="portal"), by=listed)) == "wrong-type"
    assert refusal(lambda: access_token(at(azp="portal", sub="portal"), by=listed)) == "wrong-type"


def test_our_name_as_audience_must_be_set() -> None:
    """A token with no audience that we gave ourselves is not accepted by an entry for ID tokens."""
    assert refusal(lambda: access_token(at(), by=LOGINS)) == "kind-not-allowed"


@pytest.mark.parametrize("typ", [..., "JWT"])
def test_an_access_token_that_does_not_say_so(typ: object) -> None:
    """Without ``at+jwt`` the entry must allow it, and the token must not look like the token of a login or be for a client."""
    token = signed(ACCESS_TOKEN, typ=typ)
    assert refusal(lambda: access_token(token)) == "wrong-type"
    assert access_token(token, by=UNTYPED).binding is Binding.DPOP
    for mark in ("nonce", "at_hash", "c_hash", "s_hash"):
        assert refusal(lambda mark=mark: access_token(signed(ACCESS_TOKEN, typ=typ, **{mark: "x"}), by=UNTYPED)) == "wrong-type"  # type: ignore[misc]
    both = signed(ACCESS_TOKEN, typ=typ, aud=[OURS, "signer"])
    assert refusal(lambda: access_token(both, by=UNTYPED)) == "wrong-audience"
    assert access_token(signed(ACCESS_TOKEN, typ=typ, jti=..., client_id=..., azp="signer"), by=UNTYPED).amr == ()
    assert refusal(lambda: access_token(signed(ACCESS_TOKEN, typ=typ, client_id=...), by=UNTYPED)) == "missing-claim"


def test_an_unbound_access_token() -> None:
    """Refused by default; where allowed, worth 1 at most; one for another key is refused all the same."""
    assert refusal(lambda: access_token(signed(BARE, typ="at+jwt"))) == "key-not-bound"
    identity = access_token(signed(BARE, typ="at+jwt"), by=UNBOUND)
    assert (identity.binding, identity.assurance) == (Binding.NONE, 1)
    assert access_token(at(), by=UNBOUND).binding is Binding.DPOP
    assert refusal(lambda: access_token(at(), by=UNBOUND, key=THIEF)) == "key-not-bound"
    only_unbound = issuer(ProofKind.ACCESS_TOKEN, bindings={Binding.NONE}, assurance=1)
    assert access_token(at(), by=only_unbound).binding is Binding.NONE


def test_a_nonce_binds_no_access_token() -> None:
    """Our nonce in an access token is no binding: clients choose nonces, and resource servers see access tokens."""
    both = issuer(ProofKind.ID_TOKEN, ProofKind.ACCESS_TOKEN, bindings={Binding.NONCE, Binding.DPOP})
    token = signed(BARE, typ="at+jwt", nonce=SALTED.nonce())
    assert refusal(lambda: access_token(token, by=both, key=SALTED)) == "key-not-bound"


def test_the_second_signature_has_the_same_digest() -> None:
    """(r, n - s) is the same token."""
    token = at()
    assert access_token(malleated(token)).proof_digest == access_token(token).proof_digest


@pytest.mark.parametrize(("offset", "code"), [(-66, "proof-not-yet-valid"), (-65, None), (654, None), (655, "proof-too-old")])
def test_the_clock_may_be_off_by_the_skew_and_not_a_second_more(offset: int, code: str | None) -> None:
    """Issued at T-5, accepted from 60 s before to 10 min 60 s after."""
    if code is None:
        assert access_token(at(), now=later(offset)).subject
    else:
        assert refusal(lambda: access_token(at(), now=later(offset))) == code


def test_the_forged_and_the_algorithm_and_the_key() -> None:
    """The steps before the claims are those of every proof."""
    head, body, signature = at().split(".")
    other = at(sub="mallory").split(".")[1]
    assert refusal(lambda: access_token(f"{head}.{other}.{signature}")) == "bad-signature"
    assert refusal(lambda: access_token(at(), by=replace(CALLS, algorithms=frozenset({"RS256"})))) == "alg-not-allowed"
    assert access_token(f"{head}.{body}.{signature}").subject


# --- opaque ones ----------------------------------------------------------------------------------------------------

DIGEST = hashlib.sha256(b"an-opaque-token").digest()
ANSWER: Mapping[str, object] = {
    "active": True,
    "iss": "https://idp.example",
    "sub": "248289761001",
    "aud": OURS,
    "client_id": "signer",
    "token_type": "DPoP",
    "iat": T - 5,
    "exp": T + 600,
    "cnf": {"jkt": KEY.thumbprint()},
}


def introspected(*, by: Issuer = CALLS, key: BoundKey = KEY, now: datetime = NOW, **changes: object) -> VerifiedIdentity:
    """What becomes of the answer with changes."""
    answer = without_ellipsis({**ANSWER, **changes})
    return verify_introspected(answer, token_digest=DIGEST, issuer=by, key=key, now=now)


def test_an_opaque_token_is_what_its_issuer_says() -> None:
    """A complete answer becomes an identity, with the digest of the token."""
    identity = introspected(email="a@b.example", email_verified=True)
    assert (identity.kind, identity.binding, identity.subject) == (ProofKind.ACCESS_TOKEN, Binding.DPOP, "248289761001")
    assert (identity.proof_digest, identity.email, identity.issuer) == (DIGEST, "a@b.example", "https://idp.example")
    assert identity.replay_until == later(660)


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        pytest.param("token-inactive", {"active": False}, id="not valid"),
        pytest.param("token-inactive", {"active": ...}, id="no answer"),
        pytest.param("token-inactive", {"active": 1}, id="active: 1"),
        pytest.param("token-inactive", {"active": "true"}, id="active as a text"),
        pytest.param("token-inactive", {"active": None}, id="active: null"),
        pytest.param("unknown-issuer", {"iss": "https://other.example"}, id="somebody else's token"),
        pytest.param("bad-claim", {"iss": ["https://idp.example"]}, id="a list of issuers"),
        pytest.param("wrong-audience", {"aud": "https://other.example"}, id="for another service"),
        pytest.param("missing-claim", {"aud": ...}, id="for nobody"),
        pytest.param("missing-claim", {"client_id": ...}, id="asked for by nobody"),
        pytest.param("wrong-audience", {"client_id": "other-app"}, id="asked for by another client"),
        pytest.param("missing-claim", {"sub": ...}, id="nobody's"),
        pytest.param("wrong-type", {"sub": "signer"}, id="the client's own"),
        pytest.param("missing-claim", {"exp": ...}, id="without end"),
        pytest.param("missing-claim", {"iat": ...}, id="without beginning"),
        pytest.param("proof-expired", {"iat": T - 500, "exp": T - 60}, id="expired"),
        pytest.param("missing-claim", {"token_type": ...}, id="a refresh token (oidc-provider)"),
        pytest.param("wrong-type", {"token_type": "refresh_token"}, id="a refresh token that says so"),
        pytest.param("wrong-type", {"typ": "Refresh"}, id="a Keycloak refresh token"),
        pytest.param("wrong-type", {"token_use": "id"}, id="an ID token"),
        pytest.param("key-not-bound", {"cnf": {"jkt": THIEF.thumbprint()}}, id="bound to another key"),
        pytest.param("key-not-bound", {"cnf": {}}, id="bound to something unsaid"),
        pytest.param("key-not-bound", {"cnf": ...}, id="a bearer token"),
    ],
)
def test_hostile_answers(code: str, changes: dict[str, Any]) -> None:
    """An answer that is not about an access token of somebody, for us, now, and for this key: refused."""
    assert refusal(lambda: introspected(**changes)) == code


@pytest.mark.parametrize("token", ["an-opaque-token", "ory_at_Zm9v.YmFy", "ya29.a0Af_H6~S+/M==", "A" * 16384])
def test_the_digest_of_an_opaque_token(token: str) -> None:
    """Tokens as providers make them: SHA-256 of their text."""
    assert opaque_digest(token) == hashlib.sha256(token.encode()).digest()


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(at(), id="a JWT"),
        pytest.param(at() + "=", id="a JWT, spelled otherwise"),
        pytest.param(at() + ".", id="a JWT and a dot"),
        pytest.param("a.b.c", id="three parts"),
        pytest.param("a.b.c.d.e", id="an encrypted token"),
        pytest.param("token ", id="a space at the end"),
        pytest.param("token\n", id="a line break at the end"),
        pytest.param(".token", id="a part of nothing"),
        pytest.param("to=ken", id="an equals sign within"),
        pytest.param("token%20", id="an escape"),
        pytest.param("tökén", id="not ASCII"),
        pytest.param("", id="nothing"),
        pytest.param("A" * 16385, id="too long"),
    ],
)
def test_what_has_another_spelling_is_not_introspected(token: str) -> None:
    """A JWT, or a text that an issuer might repair, would have a digest for each of its spellings."""
    assert refusal(lambda: opaque_digest(token)) == "proof-malformed"


def test_what_an_answer_may_leave_out() -> None:
    """The issuer's name is known from whom was asked; a bearer token is accepted where unbound ones are, at 1."""
    assert introspected(iss=...).issuer == "https://idp.example"
    identity = introspected(cnf=..., token_type="bearer", by=UNBOUND)
    assert (identity.binding, identity.assurance) == (Binding.NONE, 1)
    assert refusal(lambda: introspected(by=UNBOUND, key=THIEF)) == "key-not-bound"


def test_an_issuer_whose_access_tokens_are_not_accepted() -> None:
    """The kind is asked first."""
    assert refusal(lambda: introspected(by=LOGINS)) == "kind-not-allowed"
    assert refusal(lambda: introspected(by=LOGINS, active=False)) == "kind-not-allowed"


def test_an_id_token_is_no_access_token() -> None:
    """With every setting as lax as it can be, the token of a login is still refused as an access token."""
    lax = issuer(
        ProofKind.ID_TOKEN,
        ProofKind.ACCESS_TOKEN,
        bindings={Binding.NONCE, Binding.DPOP, Binding.NONE},
        assurance=1,
        untyped_access_tokens=True,
    )
    for changes in ({}, {"nonce": ...}, {"nonce": ..., "aud": ["signer", OURS], "azp": "signer"}):
        code = refusal(lambda changes=changes: access_token(signed(ID_TOKEN, **changes), by=lax, key=SALTED))  # type: ignore[misc]
        assert code in {"wrong-type", "wrong-audience"}
