"""Another facility's word in a token: bound to it, believed from known keys for known groups only, and ending in time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from certauth.errors import CertauthError, KeyMaterialError, TokenError, UsageError
from certauth.keys import Algorithm, SoftwareKey, generate
from certauth.names import TrustDomain
from certauth.tokens import (
    answer_from_text,
    answer_to_text,
    append_attestation,
    attest,
    describe,
    request_attestation,
    request_from_text,
    request_to_text,
    seal,
)
from certauth.tokens.attenuate import attenuate
from certauth.tokens.blocks import Block
from certauth.tokens.codec import MAX_BYTES, decode, encode, to_text
from certauth.tokens.conditions import Members, Operations, Peer, Voucher, Window, delegation, membership
from certauth.tokens.delegate import delegate
from certauth.tokens.lint import Attestation
from certauth.tokens.signing import append_answer, key_ref, third_party_answer, third_party_request
from certauth.tokens.verify import Member, TrustedAttester, VerifiedToken, verify
from certauth.tokens.vocabulary import MemberOf, Narrowing
from tests.certauth.tokens.kit import ALICE, BOB, NOW, Facility, ask, codes, entropy, fact, with_block

NSLS = TrustDomain("nsls.example")
GROUPS = generate(Algorithm.P256)
"""The key with which NSLS vouches for its groups."""
SOON = NOW + timedelta(minutes=30)
RUN7 = Narrowing(members=(MemberOf("run7", GROUPS.public_key),))


def attesters(key: SoftwareKey = GROUPS, *groups: str) -> dict[Any, TrustedAttester]:
    """What a door is told about the key."""
    ref = key_ref(key.public_key)
    return {ref: TrustedAttester(key=ref, domain=NSLS, groups=groups or ("run*",))}


def vouched(token: bytes, *groups: str, key: SoftwareKey = GROUPS, until: datetime = SOON) -> bytes:
    """``token`` with an answer in it, by way of both files."""
    request = request_to_text(request_attestation(token))
    answer = answer_to_text(attest(request_from_text(request), key=key, groups=groups or ("run7",), expires_at=until))
    return append_attestation(token, answer_from_text(answer))


def at_door(als: Facility, token: bytes, known: dict[Any, TrustedAttester] | None = None) -> VerifiedToken:
    """The token, verified where NSLS's key is known."""
    return verify(to_text(token), als.roots, attesters=attesters() if known is None else known)


def refused(als: Facility, token: bytes, known: dict[Any, TrustedAttester] | None = None) -> str:
    """The code with which it is refused there."""
    with pytest.raises(TokenError) as caught:
        at_door(als, token, known)
    return caught.value.code


def stating(token: bytes, block: Block, key: SoftwareKey = GROUPS) -> bytes:
    """A third party's block of any content, as nobody of ours would write it."""
    parent = decode(token)
    return encode(append_answer(parent, third_party_answer(third_party_request(parent), block, key), entropy=entropy))


@pytest.mark.parametrize("algorithm", [Algorithm.P256, Algorithm.ED25519])
def test_a_facility_vouches_offline(als: Facility, algorithm: Algorithm) -> None:
    """Request, answer, append: the door sees the group as that facility's, and the token allows what it allowed."""
    key = generate(algorithm)
    token = vouched(als.mint(), "run7", "run8", key=key)
    verified = at_door(als, token, attesters(key))
    assert verified.members == (Member(NSLS, "run7"), Member(NSLS, "run8"))
    assert [str(member) for member in verified.members] == ["nsls.example:run7", "nsls.example:run8"]
    ends = int(SOON.timestamp())
    assert verified.attestations == (Attestation(1, key_ref(key.public_key), ("run7", "run8"), ends),)
    assert (verified.groups, verified.makers) == (("beamline-7",), (None, None))
    assert codes(ask(verified)) == []


def test_a_narrowing_can_ask_for_it(als: Facility) -> None:
    """A token narrowed to members works with the attestation, whether it comes before or after, and not without."""
    narrow = attenuate(als.mint(), RUN7)
    assert codes(als.ask(narrow)) == ["token-member"]
    assert codes(ask(at_door(als, vouched(narrow)))) == []
    assert codes(ask(at_door(als, vouched(narrow, "run8")))) == ["token-member"]
    before = attenuate(vouched(als.mint()), RUN7)
    assert codes(ask(at_door(als, before))) == []
    other = generate(Algorithm.ED25519)
    both = attesters() | attesters(other)
    assert codes(ask(at_door(als, vouched(narrow, key=other), both))) == ["token-member"]
    either = attenuate(als.mint(), Narrowing(members=(MemberOf("run9", GROUPS.public_key), MemberOf("run7", other.public_key))))
    assert codes(ask(at_door(als, vouched(either, key=other), both))) == []


def test_it_can_be_handed_over_with_a_token(als: Facility) -> None:
    """Who hands a token over may ask for an attestation of its new holder, who brings it."""
    handed = delegate(als.mint(), holder_key=als.holder, to_certificate=BOB, narrowing=RUN7)
    assert codes(als.ask(handed, peer_fingerprint=BOB)) == ["token-member"]
    token = vouched(handed)
    assert codes(ask(at_door(als, token), peer_fingerprint=BOB)) == []
    assert at_door(als, token).makers == (None, ALICE, None)


def test_the_facility_sees_whose_token_it_is(als: Facility) -> None:
    """The request is a token that verifies and can be described, and that nobody can add to."""
    request = request_attestation(als.mint())
    assert verify(to_text(request), als.roots).user == "spiffe://als.example/user/alice"
    assert describe(to_text(request), now=NOW)["sealed"] is True
    with pytest.raises(TokenError) as caught:
        attenuate(request, Narrowing(operations=("read",)))
    assert caught.value.code == "token-sealed"
    with pytest.raises(TokenError) as caught:
        request_attestation(request)
    assert caught.value.code == "token-sealed"


def test_nobody_is_tricked_into_taking_a_token(als: Facility) -> None:
    """A token that is no sealed copy is not answered, so that no facility asks its users for live ones."""
    with pytest.raises(TokenError) as caught:
        attest(als.mint(), key=GROUPS, groups=("run7",), expires_at=SOON)
    assert caught.value.code == "token-not-sealed"


def test_it_ends_and_the_token_with_it(als: Facility) -> None:
    """After its end the token is refused; without the attestation it still works."""
    token = als.mint()
    late = {"now": SOON}
    assert codes(ask(at_door(als, vouched(token)), **late)) == ["token-expired"]
    assert codes(als.ask(token, **late)) == []


@pytest.mark.parametrize("known", [{}, attesters(generate(Algorithm.P256))], ids=["none", "another"])
def test_an_unknown_attester_is_refused(als: Facility, known: dict[Any, TrustedAttester]) -> None:
    """A key that nobody told the door about vouches for nothing, whatever it says."""
    assert refused(als, vouched(als.mint()), known) == "token-unknown-attester"


def test_who_lets_nobody_in_need_not_know_attesters(als: Facility) -> None:
    """To withdraw a token, say, it does not matter who vouches for what in it; nobody is a member of anything then."""
    token = vouched(als.mint())
    verified = verify(to_text(token), als.roots, attesters=None)
    assert (verified.members, len(verified.attestations)) == ((), 1)


@pytest.mark.parametrize(
    ("patterns", "group", "ok"),
    [
        (("run*",), "run7", True),
        (("run*",), "xrun7", False),
        (("run7",), "run77", False),
        (("run7",), "Run7", False),
        (("*-staff", "run?"), "beam-staff", True),
        (("*-staff", "run?"), "run7", False),
        (("*-staff", "run?"), "run?", True),
        (("[r]un7",), "run7", False),
        (("*",), "anything: at all", True),
        ((), "run7", False),
        ((), "", False),
    ],
)
def test_a_key_vouches_for_its_groups_only(als: Facility, patterns: tuple[str, ...], group: str, ok: bool) -> None:
    """A pattern matches the whole name, and a star is all there is to it."""
    ref = key_ref(GROUPS.public_key)
    attester = TrustedAttester(key=ref, domain=NSLS, groups=patterns)
    assert attester.may_vouch_for(group) is ok
    if group:
        token = vouched(als.mint(), group)
        if ok:
            assert at_door(als, token, {ref: attester}).members == (Member(NSLS, group),)
        else:
            assert refused(als, token, {ref: attester}) == "token-attestation"


def test_one_group_too_many_spoils_all(als: Facility) -> None:
    """A key that says what it may not say is not believed the rest."""
    assert refused(als, vouched(als.mint(), "run7", "staff")) == "token-attestation"


def test_an_answer_fits_one_token(als: Facility) -> None:
    """It cannot be appended to another token, nor to the same one narrowed meanwhile."""
    token = als.mint()
    answer = attest(request_attestation(token), key=GROUPS, groups=("run7",), expires_at=SOON)
    for other in (als.mint(), attenuate(token, Narrowing(operations=("read",)))):
        with pytest.raises(TokenError) as caught:
            append_attestation(other, answer)
        assert caught.value.code == "token-signature"


UNTIL = Window(None, int(SOON.timestamp()))
SAYINGS: dict[str, Block] = {
    "nothing": Block(5, checks=(UNTIL,)),
    "a right": Block(5, (fact("right", "files", "write", "/"),), (UNTIL,)),
    "a right besides": Block(5, (membership("run7"), fact("right", "files", "write", "/")), (UNTIL,)),
    "a user": Block(5, (fact("user", "spiffe://als.example/user/root"),), (UNTIL,)),
    "a group of the issuer's": Block(5, (fact("group", "run7"),), (UNTIL,)),
    "that it was handed over": Block(5, (delegation(1, BOB),), (Peer(BOB),)),
    "both": Block(5, (membership("run7"), delegation(1, BOB)), (UNTIL,)),
    "without an end": Block(5, (membership("run7"),)),
    "with a beginning": Block(5, (membership("run7"),), (Window(1, UNTIL.before),)),
    "more than an end": Block(5, (membership("run7"),), (UNTIL, Operations(("read",)))),
    "two ends": Block(5, (membership("run7"),), (UNTIL, UNTIL)),
    "a number": Block(5, (fact("member", 7),), (UNTIL,)),
    "two terms": Block(5, (fact("member", "run7", "run8"),), (UNTIL,)),
    "an empty name": Block(5, (membership(""),), (UNTIL,)),
    "a long name": Block(5, (membership("r" * 129),), (UNTIL,)),
    "too many": Block(5, tuple(membership(f"run{number}") for number in range(17)), (UNTIL,)),
    "that another key has to vouch": Block(
        5, (membership("run7"),), (Members((Voucher("run8", key_ref(GROUPS.public_key)),)),)
    ),
}


@pytest.mark.parametrize("block", SAYINGS.values(), ids=SAYINGS.keys())
def test_an_attester_speaks_of_members_only(als: Facility, block: Block) -> None:
    """Anything but groups until a given time is refused by the lint, though a trusted key signed it."""
    assert refused(als, stating(als.mint(), block)) == "lint-third-party"


@pytest.mark.parametrize("block", SAYINGS.values(), ids=SAYINGS.keys())
def test_such_an_answer_is_not_appended(als: Facility, block: Block) -> None:
    """Nor does it get into a token by our hand."""
    token = als.mint()
    answer = third_party_answer(third_party_request(decode(token)), block, GROUPS)
    with pytest.raises(TokenError) as caught:
        append_attestation(token, answer)
    assert caught.value.code == "lint-third-party"


def test_an_answer_that_hands_the_token_over_is_none(als: Facility) -> None:
    """Somebody with the holder's key cannot make them give the token away by calling it an answer."""
    token = als.mint()
    block = Block(5, (delegation(1, BOB),), (Peer(BOB),))
    with pytest.raises(TokenError) as caught:
        append_attestation(token, third_party_answer(third_party_request(decode(token)), block, als.holder))
    assert caught.value.code == "lint-third-party"


def test_the_holders_own_key_attests_nothing(als: Facility) -> None:
    """In this token it has one role, and that is another, even if the door knows it as an attester."""
    token = stating(als.mint(), Block(5, (membership("run7"),), (UNTIL,)), als.holder)
    assert refused(als, token, attesters(als.holder)) == "lint-third-party"


def test_a_holder_cannot_say_it_himself(als: Facility) -> None:
    """``member`` in a holder's or in the issuer's block is refused."""
    token = with_block(als.mint(), Block(5, (membership("run7"),), (UNTIL,)))
    assert refused(als, token) == "lint-fact"
    block = als.spec().block()
    assert refused(als, als.sign(block._replace(facts=(*block.facts, membership("run7"))))) == "lint-fact"


@pytest.mark.parametrize(
    ("groups", "until"),
    [
        ((), SOON),
        (("",), SOON),
        (("a\n",), SOON),
        ("run7", SOON),
        (("r" * 129,), SOON),
        (tuple(f"run{number}" for number in range(17)), SOON),
        (("run7",), SOON.replace(tzinfo=None)),
        (("run7",), NOW - timedelta(days=1)),
        (("run7",), datetime.fromisoformat("1960-01-01T00:00:00Z")),
    ],
)
def test_what_cannot_be_attested(als: Facility, groups: tuple[str, ...], until: datetime) -> None:
    """Groups and ends that no token could hold, or that have passed before it begins, are refused before anything is signed."""
    with pytest.raises(UsageError) as caught:
        attest(request_attestation(als.mint()), key=GROUPS, groups=groups, expires_at=until)
    assert caught.value.code == "bad-attestation"
    assert caught.value.hint


def test_with_which_keys(als: Facility) -> None:
    """Other kinds of key cannot sign a block."""
    with pytest.raises(KeyMaterialError):
        attest(request_attestation(als.mint()), key=generate(Algorithm.P384), groups=("run7",), expires_at=SOON)


@pytest.mark.parametrize("read", [request_from_text, answer_from_text])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "token-malformed"),
        ("certauth-request:", "token-malformed"),
        ("certauth-answer:", "token-malformed"),
        ("AAAA", "token-malformed"),
        ("{prefix}AA AA", "token-malformed"),
        ("{prefix}AAAA=", "token-malformed"),
        ("{prefix}AAAAA", "token-malformed"),
        ("{prefix}\u0661AAA", "token-malformed"),
        ("{prefix}{prefix}AAAA", "token-malformed"),
        ("{prefix}" + "A" * 8196, "token-too-large"),
        ("{prefix}AAAA" + " " * 100_000, "token-too-large"),
        ("{prefix}" + "A" * 10_000_000, "token-too-large"),
    ],
)
def test_other_texts_are_refused(read: Callable[[str], bytes], text: str, code: str) -> None:
    """Each file is read as what it says it is, whole, and at a bounded length."""
    prefix = "certauth-request:" if read is request_from_text else "certauth-answer:"
    with pytest.raises(TokenError) as caught:
        read(text.replace("{prefix}", prefix))
    assert caught.value.code == code
    assert MAX_BYTES == 6144


def test_files_may_end_in_a_newline(als: Facility) -> None:
    """Editors and mail programs add white space around a line."""
    request = request_attestation(als.mint())
    assert request_from_text(f"\n {request_to_text(request)}\r\n") == request


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x1a\x03abc", bytes(6144)])
def test_bytes_that_are_neither_are_refused(als: Facility, data: bytes) -> None:
    """What is no request is not answered, and what is no answer is not appended."""
    with pytest.raises(TokenError):
        attest(data, key=GROUPS, groups=("run7",), expires_at=SOON)
    with pytest.raises(TokenError):
        append_attestation(als.mint(), data)


def test_a_flipped_bit_anywhere_in_an_answer_is_seen(als: Facility) -> None:
    """No answer but the one that was given is appended and believed."""
    token = als.mint()
    answer = attest(request_attestation(token), key=GROUPS, groups=("run7",), expires_at=SOON)
    for place in range(len(answer)):
        changed = answer[:place] + bytes((answer[place] ^ 1,)) + answer[place + 1 :]
        with pytest.raises(CertauthError):
            append_attestation(token, changed)


def test_sealing(als: Facility) -> None:
    """A sealed token says what it said and takes nothing any more; it is sealed once."""
    sealed = seal(als.mint())
    assert codes(als.ask(sealed)) == []
    for again in (seal, request_attestation, lambda token: attenuate(token, Narrowing(operations=("read",)))):
        with pytest.raises(TokenError) as caught:
            again(sealed)
        assert caught.value.code == "token-sealed"
    with pytest.raises(TokenError) as caught:
        delegate(sealed, holder_key=als.holder, to_certificate=BOB)
    assert caught.value.code == "token-sealed"
