"""Every kind of sample of the Biscuit specification: the engine, the other implementation and we agree on ours of that kind.

On each: whether it verifies, what is in it, and what comes of requests with it. And on tokens of profile ``fac/1``, whole and
damaged in the same ways, whether they verify, because there ours is a verdict of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from biscuit_auth import Biscuit, BiscuitValidationError, PublicKey

from certauth.clock import whole_seconds
from certauth.errors import TokenError
from certauth.keys import Algorithm, generate
from certauth.tokens.attenuate import attenuate
from certauth.tokens.attest import append_attestation, attest, request_attestation
from certauth.tokens.codec import decode, encode, to_text
from certauth.tokens.delegate import delegate
from certauth.tokens.signing import key_ref, seal
from certauth.tokens.verify import verify
from certauth.tokens.vocabulary import Narrowing
from tests.certauth.tokens.kit import BOB, NOW, Facility, entropy
from tests.conformance.agreement import key_text
from tests.conformance.corpus import readable
from tests.conformance.kinds import ALLOW, DAMAGE, FAILED, KINDS, REFUSED, relinked, verdict
from tests.conformance.test_wasm import ask, missing

ALS = Facility()


def test_there_is_one_of_each_kind() -> None:
    """The specification has 38 samples, of which five do not verify."""
    assert len(KINDS) == 38
    assert [name for name, kind in KINDS.items() if not kind.verifies] == ["different root key", *DAMAGE]
    assert all(kind.requests for kind in KINDS.values() if kind.verifies)


@pytest.mark.parametrize("name", KINDS)
def test_the_engine_and_we_see_the_same(name: str) -> None:
    """The same links, keys, signatures and bytes, and whether they verify; and none of it follows our profile."""
    kind = KINDS[name]
    _, reading = readable(kind.make)
    assert (reading.accepted, reading.differences) == (kind.verifies, [])
    assert reading.code.startswith("lint-" if kind.verifies else ("lint-", "token-"))


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.verifies])
def test_it_means_what_its_name_says(name: str) -> None:
    """What the engine answers to each request is what such a token is for."""
    sample = KINDS[name].make()
    assert {request: verdict(sample, request) for request in KINDS[name].requests} == KINDS[name].requests


def test_the_other_implementation_agrees() -> None:
    """On what verifies, on every byte of it, and on what comes of every request."""
    if reason := missing():
        pytest.skip(reason)
    made = {name: kind.make() for name, kind in KINDS.items()}
    answers = ask(*({"do": "read", "token": one.data.hex(), "root": key_text(one.root)} for one in made.values()))
    for (name, sample), answer in zip(made.items(), answers, strict=True):
        assert answer.get("token") == (sample.data.hex() if KINDS[name].verifies else None), name
    asked = [(name, request) for name, kind in KINDS.items() for request in kind.requests]
    questions = [
        {"do": "authorize", "token": made[name].data.hex(), "root": key_text(made[name].root), "code": request}
        for name, request in asked
    ]
    for (name, request), answer in zip(asked, ask(*questions), strict=True):
        assert said(answer) == KINDS[name].requests[request], (name, request, answer)


def said(answer: dict[str, object]) -> str:
    """An answer of the other implementation in our words."""
    if "policy" in answer:
        return str(answer["policy"])
    return REFUSED if str(answer["error"]).startswith('{"FailedLogic"') else FAILED


def narrowed() -> bytes:
    """Three blocks of ours."""
    once = attenuate(ALS.mint(), Narrowing(operations=("read",)), entropy=entropy)
    return attenuate(once, Narrowing(expires_at=NOW + timedelta(minutes=1)), entropy=entropy)


def vouched(algorithm: Algorithm) -> bytes:
    """One of ours for which another facility vouched."""
    end = whole_seconds(NOW) + timedelta(minutes=30)
    token = ALS.mint()
    answer = attest(request_attestation(token), key=generate(algorithm), groups=["run7"], expires_at=end)
    return append_attestation(token, answer, entropy=entropy)


OURS: dict[str, tuple[Callable[[], bytes], bool]] = {
    "as it was minted": (ALS.mint, True),
    "narrowed": (narrowed, True),
    "sealed": (lambda: encode(seal(decode(narrowed()))), True),
    "handed over": (lambda: delegate(ALS.mint(), holder_key=ALS.holder, to_certificate=BOB, entropy=entropy), True),
    "vouched for, Ed25519": (lambda: vouched(Algorithm.ED25519), True),
    "vouched for, P-256": (lambda: vouched(Algorithm.P256), True),
    "expired": (lambda: ALS.mint(expires_at=NOW + timedelta(seconds=1)), True),
    "different root key": (Facility().mint, False),
    **{name: (lambda how=how: relinked(narrowed(), how), False) for name, how in DAMAGE.items()},
    "sealed, then cut": (lambda: relinked(encode(seal(decode(narrowed()))), lambda token: token.blocks[:-1]), False),
    "cut": (lambda: relinked(narrowed(), lambda token: token.blocks[:-1]), False),
    "said twice": (lambda: relinked(narrowed(), lambda token: (*token.blocks, token.blocks[-1])), False),
    "without its voucher's signature": (
        lambda: relinked(vouched(Algorithm.ED25519), lambda token: (token.blocks[0], token.blocks[1]._replace(external=None))),
        False,
    ),
}


@pytest.mark.parametrize("name", OURS)
def test_tokens_of_our_profile_verify_for_both_or_neither(name: str) -> None:
    """Whole ones for the engine and for us, damaged ones for neither of us."""
    make, good = OURS[name]
    data = make()
    assert by_us(data) == by_the_engine(data) == good


def test_tokens_of_our_profile_verify_for_the_other_implementation() -> None:
    """The same ones."""
    if reason := missing():
        pytest.skip(reason)
    key = key_text(key_ref(ALS.root.public_key))
    answers = ask(*({"do": "read", "token": make().hex(), "root": key} for make, _ in OURS.values()))
    read = {name: "error" not in answer for name, answer in zip(OURS, answers, strict=True)}
    assert read == {name: good for name, (_, good) in OURS.items()}


def by_us(data: bytes) -> bool:
    """Whether a door lets it verify, whoever is vouched for."""
    try:
        verify(to_text(data), ALS.roots, attesters=None)
    except TokenError:
        return False
    return True


def by_the_engine(data: bytes) -> bool:
    """Whether the engine does."""
    try:
        Biscuit.from_bytes(data, PublicKey(key_text(key_ref(ALS.root.public_key))))
    except BiscuitValidationError:
        return False
    return True


def test_the_control_one_token_gets_every_verdict() -> None:
    """The verdicts above are asked for: with other requests the same token gets another."""
    sample = KINDS["basic token"].make()
    asked = ('deny if may("scan", "sample-1");', 'allow if "a" === 1;', 'target("sample-1"); action("scan");' + ALLOW)
    assert [verdict(sample, request) for request in asked] == [REFUSED, FAILED, "0"]
