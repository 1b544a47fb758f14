"""Whatever is sent as a proof: a refusal with a code, or an identity that the signed words and the key account for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from joserfc import jwk as joserfc_jwk
from joserfc import jwt as joserfc_jwt

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
    verify_access_token,
    verify_client_assertion,
    verify_id_token,
    verify_introspected,
    verify_workload,
    with_userinfo,
)
from tests.certauth.identity.kit import (
    ACCESS_TOKEN,
    ID_TOKEN,
    KEY,
    NOW,
    PUBLIC,
    SALTED,
    STOLEN_BY,
    URL,
    WORKLOAD,
    T,
    id_token,
    issuer,
    keyset,
    provider_key,
    signed,
)
from tests.costs import least_cost, slowness
from tests.simulator.hostile_provider import ProviderKey, jwks

PEOPLE = issuer(
    ProofKind.ID_TOKEN,
    ProofKind.ACCESS_TOKEN,
    bindings={Binding.NONCE, Binding.CNF, Binding.DPOP, Binding.NONE},
    assurance=1,
    untyped_access_tokens=True,
)
MACHINES = issuer(ProofKind.WORKLOAD, bindings={Binding.AUDIENCE, Binding.CNF, Binding.NONE}, assurance=1)
ASSERTION: Mapping[str, object] = {
    **PUBLIC,
    "sub": URL,
    "aud": KEY.signer_id,
    "exp": T + 60,
    "jti": "a-1",
    "cnf": {"jkt": KEY.thumbprint()},
}
ANSWER: Mapping[str, object] = {**ACCESS_TOKEN, "active": True, "token_type": "DPoP"}


def assertion(token: str, key: BoundKey) -> VerifiedIdentity:
    """As the assertion of the provider itself, which registered its keys."""
    return verify_client_assertion(
        read_proof(token), principal=URL, keys=keyset(), key=key, now=NOW, skew=timedelta(seconds=60)
    )


def of(verify: Callable[..., VerifiedIdentity], by: Issuer) -> Callable[[str, BoundKey], VerifiedIdentity]:
    """The verifier as a function of a token's text and a key."""
    return lambda token, key: verify(read_proof(token), issuer=by, keys=keyset(), key=key, now=NOW)


# kind -> (its verifier, the header's typ and claims of a good one)
KINDS: Mapping[str, tuple[Callable[[str, BoundKey], VerifiedIdentity], str, Mapping[str, object]]] = {
    "ID token": (of(verify_id_token, PEOPLE), "JWT", ID_TOKEN),
    "access token": (of(verify_access_token, PEOPLE), "at+jwt", ACCESS_TOKEN),
    "workload": (of(verify_workload, MACHINES), "JWT", WORKLOAD),
    "client assertion": (assertion, "JWT", ASSERTION),
}
kinds = st.sampled_from(sorted(KINDS))
BOUND_WORDS = ["nonce", "cnf", "aud"]

words = st.sampled_from(
    [URL, "signer", "https://signer.example", KEY.signer_id, SALTED.nonce(), KEY.audience(), KEY.thumbprint(), "Bearer", "JWT"]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(T - 700, T + 700)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["jkt", "jwk", "x"]), inner, max_size=2),
    max_leaves=5,
)
NAMES = [
    *("iss", "sub", "aud", "azp", "client_id", "iat", "exp", "nbf", "auth_time", "nonce", "cnf", "jti", "acr", "amr", "scope"),
    *("email", "email_verified", "name", "typ", "token_use", "token_class", "token_type", "active", "events", "sid", "at_hash"),
]
changes = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)
headers = st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "zip", "x"]), values, max_size=3)


def test_the_bases_are_accepted() -> None:
    """Negative control: unchanged, each kind is accepted for the key it was made for."""
    for verify, typ, claims in KINDS.values():
        assert verify(signed(claims, typ=typ), SALTED).binding is not Binding.NONE


@given(kinds, st.text(max_size=MAX_PROOF))
@example("workload", "." * MAX_PROOF)
@example("access token", "A" * 8000 + "." + "A" * 8000 + ".A")
@example("client assertion", "e30.e30.e30")
def test_any_text_is_refused(kind: str, text: str) -> None:
    """As whatever kind it is sent."""
    with pytest.raises(ProofError):
        KINDS[kind][0](text, SALTED)


@given(kinds, st.data())
def test_a_genuine_token_that_was_tampered_with(kind: str, data: st.DataObject) -> None:
    """Bytes of header, claims or signature replaced, cut out or repeated, and parts of two tokens joined: refused."""
    verify, typ, claims = KINDS[kind]
    token = signed(claims, typ=typ)
    parts = [from_b64url(part) for part in token.split(".")]
    which = data.draw(st.integers(0, 2))
    begin = data.draw(st.integers(0, len(parts[which])))
    end = data.draw(st.integers(begin, min(begin + 8, len(parts[which]))))
    changed = parts[which][:begin] + data.draw(st.binary(max_size=8)) + parts[which][end:]
    if changed != parts[which]:
        parts[which] = changed
        with pytest.raises(ProofError):
            verify(".".join(map(b64url, parts)), SALTED)


@given(kinds, headers, changes)
def test_any_signed_content(kind: str, header: Mapping[str, object], change: Mapping[str, object]) -> None:
    """Whatever an issuer signs: an identity that its words account for, or a refusal; and bound, it serves no other key."""
    verify, typ, claims = KINDS[kind]
    said = {**claims, **change}
    token = provider_key("ES256").sign(said, {**provider_key("ES256").header(typ=typ), **header})
    try:
        identity = verify(token, SALTED)
    except ProofError:
        return
    assert (identity.issuer, identity.subject, identity.claims) == (URL, said["sub"], said)
    assert identity.email is None or (identity.email == said["email"] and said["email_verified"] is True)
    assert identity.issued_at <= NOW + timedelta(seconds=60)
    assert identity.replay_until > NOW
    for thief in (replace(SALTED, spki=STOLEN_BY), BoundKey(signer_id=KEY.signer_id, spki=STOLEN_BY)):
        try:
            stolen = verify(token, thief)
        except ProofError:
            continue
        assert stolen.binding is identity.binding is Binding.NONE
        assert stolen.assurance <= 1


@given(changes)
def test_any_answer_of_introspection(change: Mapping[str, object]) -> None:
    """Whatever an issuer answers about an opaque token: an identity that its words account for, or a refusal."""
    said = {**ANSWER, **change}
    try:
        identity = verify_introspected(said, token_digest=bytes(32), issuer=PEOPLE, key=KEY, now=NOW)
    except ProofError:
        return
    assert said["active"] is True
    assert (identity.subject, said["iss"]) == (said["sub"], URL)
    assert identity.binding is (Binding.DPOP if "cnf" in said else Binding.NONE)


@given(changes)
def test_any_userinfo(change: Mapping[str, object]) -> None:
    """Whatever a provider adds, who logged in, how, and for which key stays what the token said."""
    before = id_token(signed(ID_TOKEN))
    try:
        after = with_userinfo(before, {"sub": before.subject, **change}, issuer=PEOPLE)
    except ProofError:
        assert change["sub"] != before.subject
        return
    assert replace(after, email=None, name=None, claims=before.claims) == before
    assert {name: after.claims[name] for name in before.claims} == before.claims


# --- a second implementation ----------------------------------------------------------------------------------------

ALGORITHMS = ("RS256", "RS512", "PS256", "PS384", "ES256", "ES384", "ES512", "EdDSA")
made_once = cache(ProviderKey)
legal = st.fixed_dictionaries(
    {"sub": st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=40)},
    optional={
        "aud": st.sampled_from(["signer", ["signer"]]),
        "azp": st.just("signer"),
        "nbf": st.integers(T - 100, T),
        "groups": st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4),
        "acr": st.sampled_from(["0", "urn:mfa"]),
        "address": st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), st.integers(), max_size=2),
    },
)


@given(st.sampled_from(ALGORITHMS), legal)
def test_a_second_implementation_reads_the_same(alg: str, change: Mapping[str, object]) -> None:
    """Joserfc verifies what we verify, and reads the same claims from it."""
    name = "Ed25519" if alg == "EdDSA" else alg  # joserfc warns of the old name
    key = made_once(alg, "key-1")
    token = key.sign({**ID_TOKEN, **change}, key.header(alg=name))
    by = Issuer(id="lab", url=URL, audience="signer", algorithms=frozenset({alg}))
    ours = verify_id_token(read_proof(token), issuer=by, keys=KeySet.parse(jwks(key)), key=SALTED, now=NOW)
    theirs = joserfc_jwt.decode(token, joserfc_jwk.import_key(key.jwk), algorithms=[name])
    assert ours.claims == theirs.claims


# --- cost -----------------------------------------------------------------------------------------------------------


def body(claims: bytes) -> str:
    """A proof with these bytes as its claims."""
    return f"{b64url(json.dumps(provider_key('ES256').header()).encode())}.{b64url(claims)}.AA"


def big(alg: str, room: int) -> tuple[str, KeySet, Issuer]:
    """As large a proof as there may be, signed with the costliest key of its kind."""
    key: Any = made_once(alg, "key-1", bits=4096)
    token = key.sign({**ID_TOKEN, "filler": "x" * room})
    return token, KeySet.parse(jwks(key)), Issuer(id="lab", url=URL, audience="signer", algorithms=frozenset({alg}))


COSTLY: Mapping[str, Callable[[], str | tuple[str, KeySet, Issuer]]] = {
    "dots": lambda: "." * MAX_PROOF,
    "one part": lambda: "A" * MAX_PROOF,
    "lists without end": lambda: body(b"[" * 12000),
    "objects without end": lambda: body(b'{"a":' * 2400),
    "many members": lambda: body(b"{" + b",".join(b'"%d":0' % number for number in range(1400)) + b"}"),
    "a long number": lambda: body(b'{"iat":' + b"1" * 4000 + b"}"),
    "a longer number": lambda: body(b'{"iat":' + b"1" * 12000 + b"}"),
    "a long fraction": lambda: body(b'{"iat":' + b"1" * 12000 + b".5}"),
    "a large exponent": lambda: body(b'{"iat":1e' + b"9" * 4000 + b"}"),
    "half characters": lambda: body(b'{"a":"' + b"\\ud83d" * 2000 + b'"}'),
    "escapes": lambda: body(b'{"a":"' + b"\\ud83d\\ude00" * 1000 + b'"}'),
    "a long issuer": lambda: body(b'{"iss":"' + b"x" * 12000 + b'"}'),
    "many audiences": lambda: signed(ID_TOKEN, aud=["signer"] * 1000),
    "RSA": lambda: big("RS512", 10800),
    "PSS": lambda: big("PS512", 10800),
    "P-521": lambda: big("ES512", 11000),
    "Ed25519": lambda: big("EdDSA", 11000),
}
BOUND_SECONDS = 0.005  # CPU time on the reference machine, where the costliest takes about half a millisecond


@pytest.mark.parametrize("name", COSTLY)
def test_no_proof_costs_much(name: str) -> None:
    """What the worst input of 16 KiB costs is bounded, far below anything worth an attacker's while."""
    made = COSTLY[name]()
    token, keys, by = made if isinstance(made, tuple) else (made, keyset(), replace(PEOPLE, assurance=1))
    assert len(token) <= MAX_PROOF
    refused: list[str] = []

    def verify() -> None:
        try:
            verify_id_token(read_proof(token), issuer=by, keys=keys, key=SALTED, now=NOW)
        except ProofError as error:
            refused.append(error.code)

    assert least_cost(verify) < BOUND_SECONDS * slowness()
    assert not (refused and isinstance(made, tuple))  # the signed ones are good
