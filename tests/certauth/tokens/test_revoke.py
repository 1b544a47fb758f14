"""A block is withdrawn by whoever has, or had, what ends with it."""

from __future__ import annotations

import pytest

from certauth.tokens.attenuate import attenuate
from certauth.tokens.delegate import delegate
from certauth.tokens.revoke import MayNotRevoke, MayRevoke, may_revoke_block
from certauth.tokens.verify import VerifiedToken
from certauth.tokens.vocabulary import Narrowing
from tests.certauth.tokens.kit import Facility
from tests.certauth.tokens.test_delegate import A, B, C, D, minted, on

READ = Narrowing(operations=("read",))


@pytest.fixture(scope="module")
def chain(als: Facility) -> VerifiedToken:
    """0 the issuer's; 1 Alice narrows; 2 to Bob; 3 Bob narrows; 4 to Carol; 5 Carol narrows."""
    token = on(attenuate(minted(als, 2), READ), A, B, depth=1)
    return als.verify(attenuate(on(attenuate(token, READ), B, C), READ))


@pytest.mark.parametrize(("who", "since"), [(A, 0), (B, 2), (C, 4)], ids=["alice", "bob", "carol"])
def test_holders_withdraw_their_own_part(chain: VerifiedToken, who: object, since: int) -> None:
    """Whoever had the token withdraws every block from when they got it, and none before, which others may share."""
    fingerprint = {A: A, B: B, C: C}[who].hex  # type: ignore[index]
    for number, block_id in enumerate(chain.block_ids):
        match may_revoke_block(chain, block_id, fingerprint):
            case MayRevoke(block, named, until):
                assert number >= since
                assert (block, named, until) == (number, block_id, chain.expires_at)
            case MayNotRevoke(code, reason):
                assert number < since
                assert code == "block-shared"
                assert reason


def test_others_withdraw_nothing(chain: VerifiedToken) -> None:
    """Somebody who merely has the text, or is handed it by accident, is no holder; and no id is taken on trust."""
    assert may_revoke_block(chain, chain.block_ids[5], D.hex) == MayNotRevoke(
        "not-a-holder", "the token was never in the hands of this certificate"
    )
    match may_revoke_block(chain, "0" * 32, A.hex):
        case MayNotRevoke(code, _):
            assert code == "block-unknown"
        case MayRevoke():
            pytest.fail("a block of another token was withdrawn")


def test_the_user_may_with_a_later_certificate(chain: VerifiedToken) -> None:
    """A token outlives the certificate it was minted for; its user has a new one by then. Others' names do not help."""
    match may_revoke_block(chain, chain.block_ids[1], D.hex, principal=chain.user):
        case MayRevoke(block, _, _):
            assert block == 1
        case MayNotRevoke():
            pytest.fail("the user was refused")
    other = may_revoke_block(chain, chain.block_ids[5], D.hex, principal="spiffe://als.example/user/bob")
    assert isinstance(other, MayNotRevoke)


def test_twice_in_the_same_hands(als: Facility) -> None:
    """Who has it for the second time may withdraw from the first time on."""
    token = als.verify(on(on(on(minted(als, 3), A, B, depth=2), B, C, depth=1), C, B))
    assert isinstance(may_revoke_block(token, token.block_ids[2], B.hex), MayRevoke)
    assert isinstance(may_revoke_block(token, token.block_ids[0], B.hex), MayNotRevoke)


def test_answers_have_no_truth_value(chain: VerifiedToken) -> None:
    """A refusal cannot be mistaken for a permission."""
    for answer in (may_revoke_block(chain, "", A.hex), may_revoke_block(chain, chain.block_ids[0], A.hex)):
        with pytest.raises(TypeError):
            bool(answer)


def test_a_delegate_of_an_undelegable_part(als: Facility) -> None:
    """The last holder may withdraw the very block by which it got the token: that ends its own part only."""
    narrowed = attenuate(minted(als, 1), READ)
    handed = als.verify(delegate(narrowed, holder_key=A.key, to_certificate=B.hex))
    assert isinstance(may_revoke_block(handed, handed.block_ids[2], B.hex), MayRevoke)
    assert isinstance(may_revoke_block(handed, handed.block_ids[1], B.hex), MayNotRevoke)
    assert als.verify(narrowed).block_ids[1] == handed.block_ids[1], "it is Alice's as well"
