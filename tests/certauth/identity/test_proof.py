"""ID tokens: a corpus of hostile ones, genuinely signed unless the signature is the point, and what each is refused for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc import jwk as joserfc_jwk
from joserfc import jwt as joserfc_jwt
from joserfc.errors import BadSignatureError
from jwt.algorithms import HMACAlgorithm

from certauth.encoding import b64url, from_b64url
from certauth.errors import ProofError
from certauth.identity import (
    MAX_PROOF,
    Binding,
    BoundKey,
    Issuer,
    KeySet,
    ProofKind,
    VerifiedIdentity,
    read_proof,
    verify_id_token,
)
from tests.simulator.hostile_provider import ProviderKey, jwks, malleated, without_ellipsis

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
T = int(NOW.timestamp())
URL = "https://idp.example"
ALICE = BoundKey(signer_id="https://signer.example", spki=b"alice's key", salt=bytes(16))
THIEF = BoundKey(signer_id="https://signer.example", spki=b"the thief's key", salt=bytes(16))
NONCE, FOREIGN = ALICE.nonce(), THIEF.nonce()
ALGORITHMS = frozenset({"RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"})
ISSUER = Issuer(id="lab", url=URL, audience="signer", algorithms=ALGORITHMS)
GOOD = {
    "iss": URL,
    "sub": "248289761001",
    "aud": "signer",
    "iat": T - 5,
    "exp": T + 600,
    "auth_time": T - 10,
    "nonce": NONCE,
    "acr": "https://refeds.org/profile/mfa",
    "amr": ["pwd", "otp"],
    "name": "Alice Liddell",
    "email": "alice@lab.example",
    "email_verified": True,
}


made_once = cache(ProviderKey)


def key(alg: str = "ES256", kid: str | None = "key-1") -> ProviderKey:
    """A key of the provider."""
    return made_once(alg, kid)


def keys(alg: str = "ES256", kid: str | None = "key-1") -> KeySet:
    """The key set that holds only that key."""
    return KeySet.parse(jwks(key(alg, kid)))


def claims(**changes: object) -> dict[str, object]:
    """The good claims with some changed; ``...`` leaves one out."""
    return without_ellipsis({**GOOD, **changes})


def check(
    token: str, *, issuer: Issuer = ISSUER, keyset: KeySet | None = None, bound: BoundKey = ALICE, now: datetime = NOW
) -> VerifiedIdentity:
    """Read and verify, as the signer does."""
    return verify_id_token(read_proof(token), issuer=issuer, keys=keys() if keyset is None else keyset, key=bound, now=now)


def refusal(token: str, **arguments: Any) -> str:
    """The code of the refusal; the text of the refusal must show nothing of the token."""
    with pytest.raises(ProofError) as caught:
        check(token, **arguments)
    for part in token.split("."):
        assert len(part) < 20 or part not in str(caught.value)
    return caught.value.code


# --- what is accepted -----------------------------------------------------------------------------------------------


def test_everything_in_the_identity_comes_from_the_token_and_the_configuration() -> None:
    """A good token becomes exactly this identity."""
    token = key().sign(GOOD)
    assert check(token) == VerifiedIdentity(
        issuer_id="lab",
        issuer=URL,
        subject="248289761001",
        kind=ProofKind.ID_TOKEN,
        binding=Binding.NONCE,
        assurance=2,
        auth_time=NOW - timedelta(seconds=10),
        acr="https://refeds.org/profile/mfa",
        amr=("pwd", "otp"),
        email="alice@lab.example",
        name="Alice Liddell",
        issued_at=NOW - timedelta(seconds=5),
        expires_at=NOW + timedelta(seconds=600),
        proof_digest=read_proof(token).digest,
        replay_until=NOW + timedelta(seconds=660),
        claims=GOOD,
        mediated=False,
    )


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_a_second_implementation_agrees_on_valid_tokens(alg: str) -> None:
    """joserfc, an independent library, accepts the same token with the same claims, and refuses it once a byte is changed."""
    name = "Ed25519" if alg == "EdDSA" else alg  # joserfc warns of the old name
    token = key(alg).sign(GOOD, key(alg).header(alg=name))
    other = joserfc_jwk.import_key(key(alg).jwk)
    decoded = joserfc_jwt.decode(token, other, algorithms=[name])
    assert decoded.claims == GOOD
    assert check(token, keyset=keys(alg)).subject == decoded.claims["sub"]
    head, body, signature = token.split(".")
    forged = f"{head}.{b64url(from_b64url(body).replace(b'248289761001', b'248289761002'))}.{signature}"
    assert refusal(forged, keyset=keys(alg)) == "bad-signature"
    with pytest.raises(BadSignatureError):
        joserfc_jwt.decode(forged, other, algorithms=[name])


def test_ed25519_under_its_new_name() -> None:
    """A header with ``alg: Ed25519`` (RFC 9864) is an EdDSA token."""
    token = key("EdDSA").sign(GOOD, key("EdDSA").header(alg="Ed25519"))
    assert check(token, keyset=keys("EdDSA")).subject == "248289761001"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"aud": ["signer"]}, id="audience as a list"),
        pytest.param({"aud": ["signer", "signer"]}, id="audience twice"),
        pytest.param({"aud": ["other", "signer"], "azp": "signer"}, id="several audiences, asked for by us"),
        pytest.param({"azp": "signer"}, id="asked for by us"),
        pytest.param({"iat": T - 5.5, "exp": T + 600.25}, id="fractions of a second are legal"),
        pytest.param({"nbf": T - 5}, id="not before a moment that has passed"),
        pytest.param({"iat": T + 60, "auth_time": T + 60, "nbf": T + 60}, id="from the future within the skew"),
        pytest.param({"iat": T - 659}, id="nearly too old, within the skew"),
        pytest.param({"iat": T - 600, "exp": T - 59}, id="expired within the skew"),
        pytest.param({"exp": T - 5 + 86400}, id="the longest life allowed"),
        pytest.param({"auth_time": ...}, id="no time of login"),
        pytest.param({"auth_time": 0}, id="a provider that writes 0 for unknown"),
        pytest.param({"auth_time": None}, id="a provider that writes null for unknown"),
        pytest.param({"acr": ..., "amr": ..., "name": ..., "email": ..., "jti": "x"}, id="nothing but the necessary"),
        pytest.param({"acr": None, "amr": None}, id="null for unknown methods"),
        pytest.param({"sub": "a" * 255}, id="the longest subject"),
        pytest.param({"sub": "Ålice ☂"}, id="a subject beyond ASCII"),
        pytest.param({"token_use": "id", "typ": "ID"}, id="says that it is an ID token"),
        pytest.param({"scope": ["openid"], "groups": [1, {"x": None}]}, id="odd further claims are not ours to judge"),
    ],
)
def test_legal_variants_are_accepted(changes: dict[str, object]) -> None:
    """What the specifications allow and providers do is no reason to refuse."""
    assert check(key().sign(claims(**changes))).issuer_id == "lab"


@pytest.mark.parametrize("header", [{"typ": ...}, {"typ": "jwt"}, {"x5t": "AAAA"}, {"unheard-of": {"a": 1}}])
def test_harmless_headers_are_accepted(header: dict[str, object]) -> None:
    """A missing type and members without effect do not matter (RFC 7515 §4)."""
    assert check(key().sign(GOOD, key().header(**header))).subject == "248289761001"


@pytest.mark.parametrize(
    ("changes", "email", "name"),
    [
        ({"email_verified": False}, None, "Alice Liddell"),
        ({"email_verified": ...}, None, "Alice Liddell"),
        ({"email_verified": "true"}, None, "Alice Liddell"),
        ({"email_verified": 1}, None, "Alice Liddell"),
        ({"email": ...}, None, "Alice Liddell"),
        ({"email": ["a@b"]}, None, "Alice Liddell"),
        ({"email": "a@b\n"}, None, "Alice Liddell"),
        ({"email": "a" * 255}, None, "Alice Liddell"),
        ({"name": "Alice\u202eecilA"}, "alice@lab.example", None),
        ({"name": ""}, "alice@lab.example", None),
        ({"name": "x" * 201}, "alice@lab.example", None),
        ({"name": 7}, "alice@lab.example", None),
    ],
)
def test_an_unverified_address_or_a_confusing_name_is_left_out(
    changes: dict[str, object], email: str | None, name: str | None
) -> None:
    """E-mail counts only with ``email_verified: true`` in the same document; texts that could mislead people are dropped."""
    identity = check(key().sign(claims(**changes)))
    assert (identity.email, identity.name) == (email, name)


# --- hostile claims, every one of them correctly signed -------------------------------------------------------------

CLAIMS = [
    # whose token is it?
    ("wrong-audience", "the token of another client", {"aud": "other-app"}),
    ("wrong-audience", "no audience is ours", {"aud": ["a", "b"], "azp": "signer"}),
    ("wrong-audience", "several audiences, nobody says who asked", {"aud": ["signer", "other-app"]}),
    ("wrong-audience", "several audiences, another asked", {"aud": ["signer", "other-app"], "azp": "other-app"}),
    ("wrong-audience", "one audience, another asked", {"azp": "other-app"}),
    ("wrong-audience", "our name in another case", {"aud": "Signer"}),
    ("wrong-audience", "an empty list", {"aud": []}),
    ("wrong-audience", "an empty text", {"aud": ""}),
    ("missing-claim", "no audience", {"aud": ...}),
    ("missing-claim", "a null audience", {"aud": None}),
    ("bad-claim", "an audience that is a number", {"aud": 1}),
    ("bad-claim", "an audience that is an object", {"aud": {"signer": True}}),
    ("bad-claim", "a list with a number", {"aud": ["signer", 1]}),
    ("bad-claim", "a list with a list", {"aud": ["signer", ["signer"]]}),
    ("bad-claim", "a list without end", {"aud": ["signer"] * 33, "azp": "signer"}),
    ("bad-claim", "an authorized party that is a list", {"azp": ["signer"]}),
    ("missing-claim", "a null authorized party", {"azp": None}),
    # when?
    ("proof-expired", "expired, skew and all", {"iat": T - 500, "exp": T - 60}),
    ("proof-not-yet-valid", "issued in the future", {"iat": T + 61}),
    ("proof-not-yet-valid", "not valid before the future", {"nbf": T + 61}),
    ("proof-not-yet-valid", "issued in the future, valid since before", {"iat": T + 61, "nbf": T - 5}),
    ("proof-too-old", "issued long ago, still not expired", {"iat": T - 660}),
    ("bad-claim", "lives ten years", {"exp": T + 10 * 365 * 86400}),
    ("bad-claim", "lives a second too long", {"exp": T - 5 + 86401}),
    ("bad-claim", "expires before it was issued", {"exp": T - 6}),
    ("bad-claim", "expires when it was issued", {"exp": T - 5}),
    ("missing-claim", "no expiry", {"exp": ...}),
    ("missing-claim", "a null expiry", {"exp": None}),
    ("missing-claim", "no issue time", {"iat": ...}),
    ("bad-claim", "expiry as text", {"exp": str(T + 600)}),
    ("bad-claim", "expiry as a boolean", {"exp": True}),
    ("bad-claim", "expiry beyond the calendar", {"exp": 1e308}),
    ("bad-claim", "expiry as a list", {"exp": [T + 600]}),
    ("bad-claim", "a negative issue time", {"iat": -1}),
    ("bad-claim", "an issue time of zero", {"iat": 0}),
    ("bad-claim", "not-before as text", {"nbf": "now"}),
    ("bad-claim", "not-before as a boolean", {"nbf": True}),
    ("missing-claim", "a null not-before", {"nbf": None}),
    ("bad-claim", "the login is in the future", {"auth_time": T + 61}),
    ("bad-claim", "login time as a boolean", {"auth_time": False}),
    ("bad-claim", "login time as text", {"auth_time": "0"}),
    # who?
    ("missing-claim", "nobody", {"sub": ...}),
    ("missing-claim", "null", {"sub": None}),
    ("bad-claim", "an empty subject", {"sub": ""}),
    ("bad-claim", "a subject too long", {"sub": "a" * 256}),
    ("bad-claim", "a number", {"sub": 7}),
    ("bad-claim", "a forged log line", {"sub": "alice\nbob logged in"}),
    ("bad-claim", "a NUL", {"sub": "alice\0admin"}),
    ("bad-claim", "text that runs backwards", {"sub": "alice\u202enimda"}),
    ("bad-claim", "an acr that is a list", {"acr": ["mfa"]}),
    ("bad-claim", "an empty acr", {"acr": ""}),
    ("bad-claim", "an amr that is a text", {"amr": "mfa"}),
    ("bad-claim", "an amr with a line break", {"amr": ["pwd", "a\nb"]}),
    # for which key?
    ("key-not-bound", "no nonce", {"nonce": ...}),
    ("key-not-bound", "a null nonce", {"nonce": None}),
    ("key-not-bound", "an empty nonce", {"nonce": ""}),
    ("key-not-bound", "the nonce of another key", {"nonce": FOREIGN}),
    ("key-not-bound", "a list with the nonce", {"nonce": [NONCE]}),
    ("key-not-bound", "half the nonce", {"nonce": NONCE[:21]}),
    ("key-not-bound", "the nonce and more", {"nonce": NONCE + "A"}),
    ("key-not-bound", "a nonce beyond ASCII", {"nonce": "é" * 43}),
    # another kind of token of the same provider
    ("wrong-type", "a logout token", {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}),
    ("wrong-type", "a Cognito access token", {"token_use": "access"}),
    ("wrong-type", "a Keycloak access token", {"typ": "Bearer"}),
    ("wrong-type", "a Keycloak refresh token", {"typ": "Refresh"}),
    ("wrong-type", "a type that is no text", {"typ": ["ID"]}),
    # whose word?
    ("unknown-issuer", "another issuer, same key", {"iss": "https://evil.example"}),
    ("unknown-issuer", "a trailing slash", {"iss": URL + "/"}),
    ("missing-claim", "no issuer", {"iss": ...}),
    ("bad-claim", "a list of issuers", {"iss": [URL]}),
    ("bad-claim", "an issuer with a line break", {"iss": URL + "\n"}),
]


@pytest.mark.parametrize(("code", "changes"), [pytest.param(code, changes, id=name) for code, name, changes in CLAIMS])
def test_hostile_claims(code: str, changes: dict[str, object]) -> None:
    """A correctly signed token is refused for what it says, with this code."""
    assert refusal(key().sign(claims(**changes))) == code


def test_the_corpus_base_is_accepted() -> None:
    """Negative control of the corpus: without any change the token is accepted, so each change is what is refused."""
    assert check(key().sign(claims())).subject == GOOD["sub"]


@pytest.mark.parametrize(
    ("code", "header"),
    [
        pytest.param("wrong-type", {"typ": "at+jwt"}, id="an access token (RFC 9068)"),
        pytest.param("wrong-type", {"typ": "application/at+jwt"}, id="an access token, written out"),
        pytest.param("wrong-type", {"typ": "logout+jwt"}, id="a logout token"),
        pytest.param("wrong-type", {"typ": "dpop+jwt"}, id="a DPoP proof"),
        pytest.param("wrong-type", {"typ": ""}, id="an empty type"),
        pytest.param("proof-malformed", {"typ": ["JWT"]}, id="a type that is a list"),
        pytest.param("unsupported-header", {"crit": ["exp"]}, id="critical extensions"),
        pytest.param("unsupported-header", {"crit": []}, id="an empty list of critical extensions"),
        pytest.param("unsupported-header", {"b64": False}, id="a payload that is not base64"),
        pytest.param("unsupported-header", {"zip": "DEF"}, id="compression"),
        pytest.param("unsupported-header", {"enc": "A128GCM"}, id="encryption"),
        pytest.param("unsupported-header", {"cty": "JWT"}, id="a token within"),
        pytest.param("unsupported-header", {"jku": "https://evil.example/jwks"}, id="keys from elsewhere"),
        pytest.param("unsupported-header", {"x5u": "https://evil.example/x509"}, id="a certificate from elsewhere"),
        pytest.param("unsupported-header", {"x5c": ["AAAA"]}, id="a certificate of its own"),
        pytest.param("unsupported-header", {"jwk": {"kty": "oct", "k": "AAAA"}}, id="a key of its own"),
        pytest.param("unsupported-header", {"jwk": None}, id="a null key of its own"),
        pytest.param("alg-not-allowed", {"alg": "none"}, id="no algorithm"),
        pytest.param("alg-not-allowed", {"alg": "None"}, id="no algorithm, in another case"),
        pytest.param("alg-not-allowed", {"alg": "HS256"}, id="a shared secret"),
        pytest.param("alg-not-allowed", {"alg": "es256"}, id="the algorithm in another case"),
        pytest.param("alg-not-allowed", {"alg": "RS512"}, id="an algorithm off the issuer's list"),
        pytest.param("alg-not-allowed", {"alg": "ES384"}, id="an algorithm on the list, not this key's"),
        pytest.param("alg-not-allowed", {"alg": "RS256"}, id="an algorithm of another kind of key"),
        pytest.param("proof-malformed", {"alg": ...}, id="algorithm missing"),
        pytest.param("proof-malformed", {"alg": ["ES256"]}, id="a list of algorithms"),
        pytest.param("unknown-key", {"kid": ...}, id="no key id"),
        pytest.param("unknown-key", {"kid": "key-2"}, id="another key id"),
        pytest.param("unknown-key", {"kid": "../../../dev/null"}, id="a path as key id"),
        pytest.param("unknown-key", {"kid": "' OR 1=1 --"}, id="SQL as key id"),
        pytest.param("proof-malformed", {"kid": ""}, id="an empty key id"),
        pytest.param("proof-malformed", {"kid": "k" * 201}, id="an endless key id"),
        pytest.param("proof-malformed", {"kid": "key\n1"}, id="a line break in the key id"),
        pytest.param("proof-malformed", {"kid": 1}, id="a number as key id"),
    ],
)
def test_hostile_headers(code: str, header: dict[str, object]) -> None:
    """A header that changes the rules, brings its own key or confuses the type is refused, though correctly signed."""
    assert refusal(key().sign(GOOD, key().header(**header))) == code


# --- attacks on the signature ---------------------------------------------------------------------------------------


def test_the_issuers_list_of_algorithms_rules_even_where_the_key_would_do() -> None:
    """A PS256 token under an RSA key without ``alg`` verifies, unless the issuer is configured for RS256 only."""
    provider_key = ProviderKey("PS256", "key-1")
    keyset, token = KeySet.parse(jwks(provider_key)), provider_key.sign(GOOD)
    assert check(token, keyset=keyset).subject == GOOD["sub"]
    assert refusal(token, keyset=keyset, issuer=variant(algorithms=frozenset({"RS256"}))) == "alg-not-allowed"


def test_the_public_key_as_a_shared_secret() -> None:
    """The classic: HS256 keyed with the provider's public key in PEM is not accepted, whatever the header claims."""
    public = key().private.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signing_input = f"{b64url(json.dumps(key().header(alg='HS256')).encode())}.{b64url(json.dumps(GOOD).encode())}"
    signature = HMACAlgorithm(HMACAlgorithm.SHA256).sign(signing_input.encode(), pem)
    assert refusal(f"{signing_input}.{b64url(signature)}") == "alg-not-allowed"


def test_no_signature_at_all() -> None:
    """``alg: none`` with an empty signature is not even a proof; with a made-up one it is refused for its algorithm."""
    unsigned = f"{b64url(json.dumps(key().header(alg='none')).encode())}.{b64url(json.dumps(GOOD).encode())}."
    assert refusal(unsigned) == "proof-malformed"
    assert refusal(unsigned + "AAAA") == "alg-not-allowed"


@pytest.mark.parametrize("signature", ["AA", "A" * 86, "_" * 85 + "w", "A" * 43])
def test_degenerate_signatures(signature: str) -> None:
    """Signatures of zeros, of ones and of the wrong length verify nothing (CVE-2022-21449)."""
    assert refusal(f"{key().sign(GOOD).rpartition('.')[0]}.{signature}") == "bad-signature"


def test_a_foreign_key_under_the_same_id() -> None:
    """The attacker's key with the provider's key id signs nothing that is believed."""
    assert refusal(ProviderKey("ES256", "key-1").sign(GOOD)) == "bad-signature"


def test_every_changed_character_is_noticed() -> None:
    """Wherever one character of a good token is replaced, the token is refused."""
    token = key().sign(GOOD)
    for position in range(0, len(token), 3):
        other = "A" if token[position] != "A" else "B"
        with pytest.raises(ProofError):
            check(token[:position] + other + token[position + 1 :])


def test_two_providers_with_the_same_key_id() -> None:
    """A token of provider B is refused for A, under A's name with B's key, and under B's name with A's key set."""
    ours, theirs = key(), ProviderKey("ES256", "key-1")
    other = Issuer(id="other", url="https://other.example", audience="signer")
    their_token = theirs.sign(claims(iss=other.url))
    assert check(their_token, issuer=other, keyset=KeySet.parse(jwks(theirs))).issuer == other.url
    assert refusal(their_token) == "unknown-issuer"
    assert refusal(theirs.sign(GOOD)) == "bad-signature"
    assert refusal(their_token, issuer=other, keyset=KeySet.parse(jwks(ours))) == "bad-signature"


def test_the_second_signature_of_an_ecdsa_token_has_the_same_digest() -> None:
    """(r, n - s) is valid too; what is remembered against replay is the signing input, so it counts as the same token."""
    token = key().sign(GOOD)
    twin = malleated(token)
    assert twin != token
    assert check(twin).proof_digest == check(token).proof_digest


def test_different_tokens_have_different_digests() -> None:
    """Negative control: another token of the same person is not taken for a replay."""
    assert check(key().sign(claims(jti="1"))).proof_digest != check(key().sign(claims(jti="2"))).proof_digest


def test_a_stolen_token_is_worth_nothing_to_another_key() -> None:
    """Alice's token with the thief's key: refused; with Alice's key: accepted."""
    token = key().sign(GOOD)
    assert refusal(token, bound=THIEF) == "key-not-bound"
    assert check(token).subject == GOOD["sub"]


def variant(**changes: Any) -> Issuer:
    """The issuer with other settings."""
    return Issuer(**{"id": "lab", "url": URL, "audience": "signer", "algorithms": ALGORITHMS, **changes})


def test_a_listed_authorized_party_may_ask() -> None:
    """A foreign ``azp`` is accepted when, and only when, it is listed."""
    token = key().sign(claims(aud=["signer", "portal"], azp="portal"))
    assert refusal(token) == "wrong-audience"
    assert check(token, issuer=variant(authorized_parties=frozenset({"portal"}))).subject == GOOD["sub"]


def test_a_token_without_key_id_needs_the_setting_and_a_single_key() -> None:
    """Without ``kid`` nothing is guessed: the issuer must be configured for it and publish exactly one key."""
    nameless = key("ES256", None)
    token = nameless.sign(GOOD)
    alone = KeySet.parse(jwks(nameless))
    assert refusal(token, keyset=alone) == "unknown-key"
    assert check(token, issuer=variant(single_key=True), keyset=alone).subject == GOOD["sub"]
    assert refusal(token, issuer=variant(single_key=True), keyset=KeySet.parse(jwks(nameless, key()))) == "unknown-key"


@pytest.mark.parametrize(
    ("auth_time", "code"), [(..., "missing-claim"), (0, "missing-claim"), (T - 3660, "proof-too-old"), (T - 3659, None)]
)
def test_a_recent_login_can_be_demanded(auth_time: object, code: str | None) -> None:
    """With ``max_authentication_age`` the person must have been there recently, and the token must say when."""
    issuer = variant(max_authentication_age=timedelta(hours=1))
    token = key().sign(claims(auth_time=auth_time))
    if code is None:
        assert check(token, issuer=issuer).auth_time == NOW - timedelta(seconds=3659)
    else:
        assert refusal(token, issuer=issuer) == code


@pytest.mark.parametrize(
    ("offset", "code"), [(-66, "proof-not-yet-valid"), (-65, None), (0, None), (654, None), (655, "proof-too-old")]
)
def test_the_clock_may_be_off_by_the_skew_and_not_a_second_more(offset: int, code: str | None) -> None:
    """A token issued at T-5 is accepted from 60 s before to 10 min 60 s after its issue, to the second."""
    token, now = key().sign(claims(auth_time=...)), NOW + timedelta(seconds=offset)
    if code is None:
        assert check(token, now=now).subject == GOOD["sub"]
    else:
        assert refusal(token, now=now) == code


# --- malformed input ------------------------------------------------------------------------------------------------


def raw(header: bytes | None = None, body: bytes | None = None) -> str:
    """A correctly signed token over these very bytes."""
    return key().sign(GOOD if body is None else body, header)


JSON_GOOD = json.dumps(GOOD).encode()
JSON_HEADER = json.dumps({"alg": "ES256", "kid": "key-1"}).encode()
MALFORMED: list[tuple[str, Callable[[], str]]] = [
    ("empty", lambda: ""),
    ("dots", lambda: ".."),
    ("two parts", lambda: "e30.e30"),
    ("four parts", lambda: key().sign(GOOD) + ".AAAA"),
    ("five parts, encrypted", lambda: "e30.AA.AA.AA.AA"),
    ("padding", lambda: key().sign(GOOD) + "=="),
    ("a line break at the end", lambda: key().sign(GOOD) + "\n"),
    ("a space in front", lambda: " " + key().sign(GOOD)),
    ("standard base64", lambda: key().sign(GOOD).replace("_", "/").replace("-", "+") + "+"),
    ("not ASCII", lambda: key().sign(GOOD) + "é"),
    ("loose bits at the end", lambda: key().sign(GOOD)[:-1] + "B"),
    ("a header that is a list", lambda: raw(header=b'["alg"]')),
    ("a header that is no JSON", lambda: raw(header=b"alg")),
    ("a header with a member twice", lambda: raw(header=b'{"alg":"none","alg":"ES256","kid":"key-1"}')),
    ("a header with a mark of byte order", lambda: raw(header=b"\xef\xbb\xbf" + JSON_HEADER)),
    ("claims with the subject twice", lambda: raw(body=JSON_GOOD[:-1] + b',"sub":"admin"}')),
    ("claims with a nested member twice", lambda: raw(body=JSON_GOOD[:-1] + b',"x":{"a":1,"a":2}}')),
    ("claims with NaN", lambda: raw(body=JSON_GOOD[:-1] + b',"x":NaN}')),
    ("claims with Infinity", lambda: raw(body=JSON_GOOD.replace(b'"exp": %d' % (T + 600), b'"exp": Infinity'))),
    ("an infinite number in disguise", lambda: raw(body=JSON_GOOD.replace(b'"exp": %d' % (T + 600), b'"exp": 1e999'))),
    ("half a surrogate pair", lambda: key().sign(claims(sub="alice\ud800"))),
    ("claims in UTF-16", lambda: raw(body=json.dumps(GOOD).encode("utf-16"))),
    ("claims with broken UTF-8", lambda: raw(body=JSON_GOOD.replace(b"Alice", b"Al\xffce"))),
    ("claims followed by more", lambda: raw(body=JSON_GOOD + b"{}")),
    ("claims that are a text", lambda: raw(body=b'"sub"')),
    ("claims that are null", lambda: raw(body=b"null")),
    ("claims nested without end", lambda: raw(body=b"[" * 11000)),
    ("a number of ten thousand digits", lambda: raw(body=b'{"iat":' + b"1" * 10000 + b"}")),
]


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in MALFORMED])
def test_malformed(make: Callable[[], str]) -> None:
    """Anything but the one canonical spelling of a token is refused as malformed."""
    assert refusal(make()) == "proof-malformed"


def test_size_comes_before_everything_else() -> None:
    """One character more than 16 KiB is refused without a look at it; a token of that size is still read."""
    assert refusal("." * (MAX_PROOF + 1)) == "proof-too-large"
    filler = "x" * ((MAX_PROOF - len(key().sign(claims(filler="")))) * 3 // 4 - 3)
    assert len(key().sign(claims(filler=filler))) > MAX_PROOF - 8
    assert check(key().sign(claims(filler=filler))).subject == GOOD["sub"]


def test_no_representation_shows_the_token() -> None:
    """A proof that ends up in a log or traceback shows neither signature nor claims."""
    token = key().sign(GOOD)
    shown = repr(read_proof(token))
    assert "248289761001" not in shown
    assert "alice@lab.example" not in shown
    assert not any(part in shown for part in token.split("."))


# --- anything at all ------------------------------------------------------------------------------------------------


@given(st.text(max_size=MAX_PROOF))
@example("e30.e30.e30")
@example("." * MAX_PROOF)
@example("A" * 8000 + "." + "A" * 8000 + ".A")
@example(b64url(b'{"alg":' + b"[" * 6000) + ".e30.AA")
@example(b64url(b"{" + b'"a":{' * 1500) + ".e30.AA")
def test_any_text_is_refused_and_nothing_else_happens(text: str) -> None:
    """Whatever arrives as a proof, the only outcome is a refusal."""
    with pytest.raises(ProofError):
        check(text)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from([URL, NONCE, T]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
HEADER_NAMES = st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "zip", "x"])


@given(st.dictionaries(HEADER_NAMES, VALUES, max_size=3), st.dictionaries(st.sampled_from(sorted(GOOD)), VALUES, max_size=4))
def test_any_signed_content_is_accepted_or_refused(header: Mapping[str, object], changes: Mapping[str, object]) -> None:
    """Whatever a provider signs, the outcome is an identity with the values signed, or a refusal; never another exception."""
    try:
        identity = check(key().sign({**GOOD, **changes}, {**key().header(), **header}))
    except ProofError:
        return
    assert identity.subject == changes.get("sub", GOOD["sub"])
    assert changes.get("nonce", NONCE) == NONCE
    assert changes.get("iss", URL) == URL
