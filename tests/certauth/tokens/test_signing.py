"""Every link we sign is one the engine accepts, and none can be moved, varied or forged."""

from __future__ import annotations

import pytest
from biscuit_auth import Biscuit, BlockBuilder, KeyPair, PrivateKey
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certauth.errors import KeyMaterialError, TokenError
from certauth.keys import Algorithm, SoftwareKey, generate
from certauth.tokens.blocks import Block
from certauth.tokens.codec import MAX_BYTES, External, Token, decode, encode, write_external
from certauth.tokens.conditions import Operations, Peer
from certauth.tokens.datalog import P256, KeyRef
from certauth.tokens.low_s import is_low_s, low_s
from certauth.tokens.signing import (
    _link,
    append,
    append_answer,
    key_ref,
    link_ids,
    mint_chain,
    public_key,
    seal,
    third_party_answer,
    third_party_request,
)
from certauth.tokens.wire import nested
from tests.certauth.tokens.kit import ALICE, Facility, entropy, fact
from tests.conformance.chain import malleated

CHECKS = Block(3, checks=(Operations(("read",)),))
VOUCHED = Block(5, facts=(fact("member", "beamline-7"),))


def engine_takes(als: Facility, token: Token) -> bool:
    """Whether the engine verifies ``token`` from the facility's key."""
    return bool(Biscuit.from_bytes(encode(token), als.roots[als.kid].engine_key).block_count() == len(token.blocks))


@pytest.fixture
def minted(als: Facility) -> Token:
    """A fresh token."""
    return decode(als.mint())


def test_the_engine_accepts_our_chain(als: Facility, minted: Token) -> None:
    """Authority, attenuation, third-party block of either algorithm, and the seal verify in the engine."""
    for algorithm in (Algorithm.P256, Algorithm.ED25519):
        token = append(minted, CHECKS, entropy=entropy)
        answer = third_party_answer(third_party_request(token), VOUCHED, generate(algorithm))
        token = append(append_answer(token, answer, entropy=entropy), CHECKS, entropy=entropy)
        assert engine_takes(als, token)
        assert engine_takes(als, seal(token))
        assert engine_takes(als, decode(encode(seal(token))))


def test_blocks_that_were_not_read_back_are_the_same(als: Facility) -> None:
    """A chain that was made in one go means what it means when it is read: later blocks know the symbols of earlier ones."""
    peer = Peer(ALICE, key_ref(generate(Algorithm.P256).public_key))
    first = als.spec().block()
    token = mint_chain(first, als.root, entropy=entropy)
    for name in ("one", "two", "one"):
        token = append(token, Block(4, checks=(Operations((name, "read")), peer)), entropy=entropy)
    answer = third_party_answer(third_party_request(token), VOUCHED, als.holder)
    token = append(append_answer(token, answer, entropy=entropy), CHECKS, entropy=entropy)
    assert decode(encode(token)) == token
    assert token.contents[0].facts == first.facts
    assert [block.checks[:1] for block in token.contents[1:3]] == [(Operations((name, "read")),) for name in ("one", "two")]
    source = Biscuit.from_bytes(encode(token), als.roots[als.kid].engine_key).block_source(2)
    assert '{"read", "two"}.contains' in source


def test_the_engine_appends_to_our_tokens(als: Facility, minted: Token) -> None:
    """A block the engine appends is one we read, signed with the payload version ours began with."""
    biscuit = Biscuit.from_bytes(encode(minted), als.roots[als.kid].engine_key)
    token = decode(bytes(biscuit.append(BlockBuilder('check if operation("read")')).to_bytes()))
    assert token.contents[1].checks == CHECKS.checks
    assert {link.version for link in token.blocks} == {1}


def test_the_engine_and_we_sign_the_same_third_party_payload(als: Facility, minted: Token) -> None:
    """A third-party block the engine makes from its own request is accepted by our verification, and ours by the engine."""
    pem = generate(Algorithm.ED25519).private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    private = PrivateKey.from_pem(pem.decode())
    biscuit = Biscuit.from_bytes(encode(minted), als.roots[als.kid].engine_key)
    block = biscuit.third_party_request().create_block(private, BlockBuilder('member("beamline-7")'))
    with_theirs = decode(bytes(biscuit.append_third_party(KeyPair.from_private_key(private).public_key, block).to_bytes()))
    link = with_theirs.blocks[1]
    assert link.external is not None
    answer = nested(0x0A, link.content) + nested(
        0x12, nested(0x0A, link.external.signature) + nested(0x12, b"\x08\x00" + nested(0x12, link.external.key.key))
    )
    assert engine_takes(als, append_answer(minted, answer, entropy=entropy))


def test_roots_are_ed25519(als: Facility) -> None:
    """A P-256 key does not mint: its signatures could be varied, and a revoked token would get a second id."""
    with pytest.raises(KeyMaterialError) as caught:
        mint_chain(als.spec().block(), generate(Algorithm.P256), entropy=entropy)
    assert caught.value.code == "bad-key"


def test_only_small_keys_sign_blocks() -> None:
    """RSA and P-384 keys have no place in a token."""
    for key in (rsa.generate_private_key(65537, 2048).public_key(), generate(Algorithm.P384).public_key):
        with pytest.raises(KeyMaterialError):
            key_ref(key)


@pytest.mark.parametrize("algorithm", [Algorithm.P256, Algorithm.ED25519])
def test_key_references_name_one_key(algorithm: Algorithm) -> None:
    """A key comes back from its reference."""
    public = generate(algorithm).public_key
    assert key_ref(public_key(key_ref(public))) == key_ref(public)


def test_a_sealed_token_takes_no_block(minted: Token) -> None:
    """Who gives a sealed token away gives no right to append."""
    with pytest.raises(TokenError) as caught:
        append(seal(minted), CHECKS, entropy=entropy)
    assert caught.value.code == "token-sealed"
    with pytest.raises(TokenError):
        seal(seal(minted))


def test_there_are_eight_blocks_at_most(minted: Token) -> None:
    """The ninth block is refused with what to do instead."""
    for _ in range(7):
        minted = append(minted, CHECKS, entropy=entropy)
    with pytest.raises(TokenError) as caught:
        append(minted, CHECKS, entropy=entropy)
    assert caught.value.code == "too-many-blocks"


def test_a_foreign_last_key_is_refused(minted: Token) -> None:
    """A token that hands over to a P-256 key, or with a proof of another size, cannot be appended to."""
    last = minted.blocks[-1]._replace(next_key=KeyRef(1, b"\x02" + b"k" * 32))
    for broken in (
        Token(root_key_id=1, blocks=(last,), contents=minted.contents, sealed=False, proof=minted.proof),
        Token(root_key_id=1, blocks=minted.blocks, contents=minted.contents, sealed=False, proof=b"short"),
    ):
        with pytest.raises(TokenError) as caught:
            append(broken, CHECKS, entropy=entropy)
        assert caught.value.code == "token-malformed"


@pytest.mark.parametrize("request_", [b"", b"\x1a", nested(0x12, b"x" * 64), nested(0x1A, b"x" * 64) * 2, b"\x1a\xff"])
def test_bad_requests_are_refused(request_: bytes) -> None:
    """A third party signs for a well-formed request only."""
    with pytest.raises(TokenError) as caught:
        third_party_answer(request_, VOUCHED, generate(Algorithm.P256))
    assert caught.value.code == "token-malformed"


def test_bad_answers_are_refused(minted: Token) -> None:
    """An answer that is damaged, or no answer, is not appended."""
    answer = third_party_answer(third_party_request(minted), VOUCHED, generate(Algorithm.P256))
    external = answer[answer.index(b"\x12\x6c") if b"\x12\x6c" in answer else len(answer) - 1 :]
    wrong_tags = nested(0x12, b"") + nested(0x1A, answer[-1:])
    for bad in (b"", answer[:-1], answer + b"\x1a\x00", wrong_tags, external):
        with pytest.raises(TokenError) as caught:
            append_answer(minted, bad, entropy=entropy)
        assert caught.value.code == "token-malformed"


def test_answers_under_other_fields_are_refused(minted: Token) -> None:
    """The parts of an answer count only in their own fields."""
    content = b"\x18\x05"
    signed = nested(0x0A, b"s" * 64) + nested(0x12, b"\x08\x00" + nested(0x12, b"k" * 32))
    with pytest.raises(TokenError) as caught:
        append_answer(minted, nested(0x12, content) + nested(0x1A, signed), entropy=entropy)
    assert caught.value.code == "token-malformed"


@pytest.mark.parametrize("algorithm", [Algorithm.P256, Algorithm.ED25519])
def test_answers_belong_to_one_token(als: Facility, minted: Token, algorithm: Algorithm) -> None:
    """An answer for one token is not accepted for another, not even one that states the same."""
    answer = third_party_answer(third_party_request(minted), VOUCHED, generate(algorithm))
    other = decode(als.mint())
    with pytest.raises(TokenError) as caught:
        append_answer(other, answer, entropy=entropy)
    assert caught.value.code == "token-signature"


def test_a_point_off_the_curve_verifies_nothing(minted: Token) -> None:
    """A third party's key that is no key is an invalid signature, not a crash."""
    content, signature = b"\x18\x05", bytes.fromhex("3006020101020101")
    signed = nested(0x0A, signature) + nested(0x12, b"\x08\x01" + nested(0x12, b"\x02" + b"\xff" * 32))
    with pytest.raises(TokenError) as caught:
        append_answer(minted, nested(0x0A, content) + nested(0x12, signed), entropy=entropy)
    assert caught.value.code == "token-signature"


def test_ids_name_blocks(minted: Token) -> None:
    """Ids are 32 hex digits, distinct, and those of earlier blocks stay when blocks are added."""
    longer = append(minted, CHECKS, entropy=entropy)
    ids = link_ids(longer)
    assert ids[:1] == link_ids(minted)
    assert len(set(ids)) == 2
    assert all(len(name) == 32 for name in ids)


def test_appending_again_gives_a_delegation_no_new_id(als: Facility, minted: Token) -> None:
    """A third party's block that is appended once more, under a fresh key, keeps its id."""
    answer = third_party_answer(third_party_request(minted), VOUCHED, als.holder)
    first, again = (append_answer(minted, answer, entropy=entropy) for _ in range(2))
    assert first.blocks[1].signature != again.blocks[1].signature
    assert link_ids(first) == link_ids(again)


def test_the_other_form_of_a_signature_is_refused(als: Facility, minted: Token) -> None:
    """The engine takes ``(r, n - s)`` for ``(r, s)``: a second spelling of the block, with a second id. We take one."""
    answer = third_party_answer(third_party_request(minted), VOUCHED, als.holder)
    token = append_answer(minted, answer, entropy=entropy)
    external = token.blocks[1].external
    assert external is not None
    tampered = relink(minted, token, external._replace(signature=malleated(external.signature)))
    assert engine_takes(als, tampered), "the control: without the codec's rule it would be accepted"
    with pytest.raises(TokenError) as caught:
        decode(encode(tampered))
    assert caught.value.code == "token-not-canonical"
    assert decode(encode(token)).blocks == token.blocks


def relink(parent: Token, child: Token, external: External) -> Token:
    """``child``, with another external signature on its last block and that link signed anew, as its holder can."""
    return _link(parent, child.blocks[-1].content, external, child.contents[-1], entropy=entropy)


def test_answers_in_either_form_are_appended_in_one(als: Facility, minted: Token) -> None:
    """Other implementations write either form of an ECDSA signature; what we append is the one form of it."""
    answer = third_party_answer(third_party_request(minted), VOUCHED, als.holder)
    external = append_answer(minted, answer, entropy=entropy).blocks[1].external
    assert external is not None
    other = external._replace(signature=malleated(external.signature))
    rewritten = nested(0x0A, append_answer(minted, answer, entropy=entropy).blocks[1].content) + nested(
        0x12, write_external(other)
    )
    assert rewritten != answer
    token = append_answer(minted, rewritten, entropy=entropy)
    assert token.blocks[1].external == external
    assert engine_takes(als, token)


@pytest.mark.parametrize("signature", [b"", b"s" * 64, bytes.fromhex("3006020101020100"), bytes.fromhex("3006020101020101")])
def test_answers_without_a_signature_are_refused(als: Facility, minted: Token, signature: bytes) -> None:
    """What is no ECDSA signature, or one of something else, is not appended."""
    signed = write_external(External(signature, key_ref(als.holder.public_key)))
    with pytest.raises(TokenError) as caught:
        append_answer(minted, nested(0x0A, b"\x18\x05") + nested(0x12, signed), entropy=entropy)
    assert caught.value.code in {"token-malformed", "token-signature"}


def test_messages_between_facilities_are_bounded(als: Facility, minted: Token) -> None:
    """A request holds one Ed25519 signature and no more; an answer is never longer than a token."""
    for size in (0, 63, 65, 100_000):
        with pytest.raises(TokenError) as caught:
            third_party_answer(nested(0x1A, b"x" * size), VOUCHED, als.holder)
        assert caught.value.code == "token-malformed"
    answer = third_party_answer(third_party_request(minted), VOUCHED._replace(context="c" * MAX_BYTES), als.holder)
    with pytest.raises(TokenError) as caught:
        append_answer(minted, answer, entropy=entropy)
    assert caught.value.code == "token-malformed"


class Device:
    """A key behind a callback, as a hardware module is: three members, and no private key to be had."""

    def __init__(self, key: SoftwareKey, *, signs_with: SoftwareKey | None = None) -> None:
        self.algorithm, self.public_key = key.algorithm, key.public_key
        self._key = signs_with or key
        self.asked = 0

    def sign(self, data: bytes) -> bytes:
        self.asked += 1
        return self._key.sign(data)


def test_a_callback_is_all_that_signing_needs(als: Facility) -> None:
    """Root and third party sign through the protocol alone, once each; the engine takes the token."""
    root, holder = Device(als.root), Device(generate(Algorithm.P256))
    token = mint_chain(als.spec().block(), root, entropy=entropy)
    answer = third_party_answer(third_party_request(token), VOUCHED, holder)
    assert engine_takes(als, append_answer(token, answer, entropy=entropy))
    assert (root.asked, holder.asked) == (1, 1)


@pytest.mark.parametrize("algorithm", [Algorithm.ED25519, Algorithm.P256])
def test_a_device_that_signs_wrongly_is_noticed(als: Facility, minted: Token, algorithm: Algorithm) -> None:
    """A signature that does not verify with the public key of the same device is never released."""
    broken = Device(generate(algorithm), signs_with=generate(algorithm))
    with pytest.raises(KeyMaterialError) as caught:
        third_party_answer(third_party_request(minted), VOUCHED, broken)
    assert caught.value.code == "bad-key"
    with pytest.raises(KeyMaterialError) as caught:
        mint_chain(als.spec().block(), Device(als.root, signs_with=generate(algorithm)), entropy=entropy)
    assert caught.value.code == "bad-key"


def test_we_write_the_low_form(minted: Token) -> None:
    """Third parties' signatures are written in the one form, whichever the key gave: half of them are the other."""
    for _ in range(16):
        answer = third_party_answer(third_party_request(minted), VOUCHED, generate(Algorithm.P256))
        external = append_answer(minted, answer, entropy=entropy).blocks[1].external
        assert external is not None
        assert nested(0x0A, external.signature) in answer, "it was in the one form before it was appended"
        assert is_low_s(external.signature)


def test_chains_of_p256_have_one_form(minted: Token) -> None:
    """Links and seals that a P-256 key in the chain made are read in the one form only; the profile refuses them later."""
    key = generate(Algorithm.P256)
    first = minted.blocks[0]._replace(next_key=key_ref(key.public_key))
    low = low_s(key.sign(b"link"))
    link = append(minted, CHECKS, entropy=entropy).blocks[1]

    def chain(signature: bytes, proof: bytes | None) -> bytes:
        blocks = (first, link._replace(signature=signature)) if proof is None else (first,)
        token = Token(root_key_id=1, blocks=blocks, contents=(), sealed=proof is not None, proof=proof or minted.proof)
        return encode(token)

    for good in (chain(low, None), chain(b"", low)):
        assert {block.next_key.algorithm for block in decode(good).blocks[:1]} == {P256}
    for bad in (malleated(low), low + b"\x00", b"s" * 64):
        for data in (chain(bad, None), chain(b"", bad)):
            with pytest.raises(TokenError) as caught:
                decode(data)
            assert caught.value.code == "token-not-canonical"
