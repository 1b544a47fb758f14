"""A token is believed only from a trusted key, in the name of its issuer, for that issuer's people."""

from __future__ import annotations

import logging

import pytest
from biscuit_auth import BiscuitBuilder, BlockBuilder, KeyPair

from certauth.errors import TokenError
from certauth.keys import key_id
from certauth.names import TrustDomain
from certauth.tokens.attenuate import attenuate
from certauth.tokens.blocks import Block
from certauth.tokens.codec import decode, encode, to_text
from certauth.tokens.delegate import delegate
from certauth.tokens.signing import seal
from certauth.tokens.verify import TrustedTokenKey, verify
from certauth.tokens.vocabulary import Narrowing
from certauth.tokens.wire import integer
from tests.certauth.tokens.kit import ALICE, BOB, Facility, codes, fact, with_block


def refused(text: str, roots: dict[str, TrustedTokenKey]) -> str:
    """The code by which ``text`` is refused."""
    with pytest.raises(TokenError) as caught:
        verify(text, roots)
    return caught.value.code


@pytest.fixture(scope="module")
def other() -> Facility:
    """Another facility, trusted as well."""
    return Facility(domain=TrustDomain("aps.example"))


def test_an_untrusted_key_is_refused(als: Facility, other: Facility) -> None:
    """A token of a facility we do not trust, or without any key id, is refused before its signatures are looked at."""
    assert refused(to_text(other.mint()), als.roots) == "token-unknown-key"
    without = als.mint()
    without = without[len(integer(0x08, int(als.kid, 16))) :]
    assert refused(to_text(without), als.roots) == "token-unknown-key"


def test_a_rewritten_key_id_does_not_help(als: Facility, other: Facility) -> None:
    """The key id is not signed: claiming a trusted key's id leads to that key, which did not sign."""
    token = other.mint(issuer=als.issuer, user=f"{als.issuer}/user/root")
    claimed = integer(0x08, int(als.kid, 16)) + token[len(integer(0x08, int(other.kid, 16))) :]
    assert refused(to_text(claimed), als.roots) == "token-signature"


def test_a_trusted_facility_speaks_for_itself_only(als: Facility, other: Facility) -> None:
    """A facility we trust cannot mint in the name of another, nor for another's people."""
    roots = als.roots | other.roots
    assert verify(to_text(other.mint()), roots).domain == other.domain
    assert refused(to_text(other.mint(issuer=als.issuer, user=f"{als.issuer}/user/alice")), roots) == "token-issuer"
    assert refused(to_text(other.mint(issuer=als.issuer)), roots) == "token-issuer"
    assert refused(to_text(other.mint(user=f"{als.issuer}/user/alice")), roots) == "token-user"


def test_every_flipped_byte_of_a_derived_token_is_refused(als: Facility) -> None:
    """Also with an attenuation and a third party's block, no byte can be changed, except to the same block's twin."""
    narrowed = attenuate(als.mint(), Narrowing(operations=("read",)))
    token = delegate(narrowed, holder_key=als.holder, to_certificate=BOB, narrowing=Narrowing())
    als.verify(token)
    for position in range(len(token)):
        changed = bytearray(token)
        changed[position] ^= 0x01
        with pytest.raises(TokenError):
            als.verify(bytes(changed))


def test_a_forged_secret_is_refused(als: Facility) -> None:
    """A token whose proof is not the secret of its last key is refused: it was cut or spliced."""
    first, second = decode(als.mint()), decode(als.mint())
    spliced = type(first)(
        root_key_id=first.root_key_id, blocks=first.blocks, contents=first.contents, sealed=False, proof=second.proof
    )
    assert refused(to_text(encode(spliced)), als.roots) == "token-signature"


def test_sealed_tokens_verify(als: Facility) -> None:
    """A sealed token is as good as an open one."""
    sealed = encode(seal(decode(als.mint())))
    assert codes(als.ask(sealed)) == []


def test_the_lint_comes_before_the_engine(als: Facility) -> None:
    """A properly signed hostile block is refused by its structure, not by the engine."""
    token = with_block(als.mint(), Block(3, facts=(fact("right", "files", "write", "/"),)))
    assert refused(to_text(token), als.roots) == "lint-fact"


def test_size_comes_before_everything(als: Facility) -> None:
    """A header of 41 kB, and a token of a thousand blocks, are refused by size or number alone."""
    assert refused("A" * 41_000, als.roots) == "token-too-large"
    pair = KeyPair()
    biscuit = BiscuitBuilder('user("alice")').build(pair.private_key)
    for _ in range(9):
        biscuit = biscuit.append(BlockBuilder('check if operation("read")'))
    assert refused(biscuit.to_base64(), als.roots) == "too-many-blocks"
    for _ in range(100):
        biscuit = biscuit.append(BlockBuilder('check if operation("read")'))
    assert refused(biscuit.to_base64(), als.roots) == "token-too-large"


def test_another_programs_token_is_refused(als: Facility) -> None:
    """A biscuit that is no token of this profile is refused though our key signed it: it is bound to nothing."""
    token = als.sign(Block(3, facts=(fact("user", "alice"),)))
    assert refused(to_text(token), als.roots) == "lint-fact"


def test_what_is_verified_is_stated(als: Facility) -> None:
    """The verified token names who, for whom, and every id by which it may be withdrawn."""
    token = als.verify(als.mint())
    assert (token.user, token.issuer, token.kid) == (f"{als.issuer}/user/alice", als.issuer, key_id(als.root.public_key))
    assert len(token.block_ids) == 1
    assert len(token.digest) == 64
    assert token.peer_fingerprint == ALICE


def test_representations_hold_no_secret(als: Facility, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the verified token nor the trusted key nor anything logged shows what would let somebody append."""
    data = als.mint()
    secret = decode(data).proof
    with caplog.at_level(logging.DEBUG):
        shown = repr(als.verify(data)) + repr(als.roots) + caplog.text
    assert secret.hex() not in shown
    assert to_text(data) not in shown
