"""Tokens have one spelling, in bytes and in text, and bounds that are looked at first."""

from __future__ import annotations

import base64

import pytest

from certauth.errors import TokenError
from certauth.tokens.block_writer import encode_key
from certauth.tokens.codec import MAX_BYTES, MAX_TEXT, decode, encode, from_text, to_text
from certauth.tokens.datalog import KeyRef
from certauth.tokens.wire import integer, nested, unsigned
from tests.certauth.tokens.kit import Facility

KEY = encode_key(KeyRef(0, b"k" * 32))
CONTENT = nested(0x0A, integer(0x18, 3))
LINK = CONTENT + nested(0x12, KEY) + nested(0x1A, b"s" * 64)
EXTERNAL = nested(0x22, nested(0x0A, b"s" * 64) + nested(0x12, KEY))
PROOF = nested(0x22, nested(0x0A, b"p" * 32))


def code(data: bytes) -> str:
    """What ``decode`` says about ``data``."""
    with pytest.raises(TokenError) as caught:
        decode(data)
    return caught.value.code


def test_tokens_survive_the_round_trip(als: Facility) -> None:
    """A token is encoded as it was decoded, with and without a root key id, a version and an external signature."""
    forms = (
        als.mint(),
        nested(0x12, LINK) + PROOF,
        integer(0x08, 7) + nested(0x12, LINK + integer(0x28, 1)) + nested(0x1A, LINK + EXTERNAL) + PROOF,
        nested(0x12, LINK) + nested(0x22, nested(0x12, b"final")),
    )
    for data in forms:
        assert encode(decode(data)) == data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "token-malformed"),
        (b"\x12", "token-malformed"),
        (integer(0x08, 1), "token-malformed"),  # nothing but a key id
        (PROOF, "token-malformed"),  # no authority
        (nested(0x12, LINK), "token-malformed"),  # no proof
        (integer(0x08, 2**32) + nested(0x12, LINK) + PROOF, "token-malformed"),
        (nested(0x12, LINK + EXTERNAL) + PROOF, "token-malformed"),  # an authority of a third party
        (nested(0x12, LINK) + nested(0x22, b""), "token-malformed"),
        (nested(0x12, LINK) + nested(0x22, integer(0x18, 1)), "token-not-canonical"),
        (nested(0x12, CONTENT + nested(0x12, KEY)) + PROOF, "token-malformed"),  # no signature
        (nested(0x12, LINK + nested(0x22, nested(0x0A, b"s"))) + PROOF, "token-malformed"),  # half an external signature
        (nested(0x12, CONTENT + nested(0x12, KEY[:-1]) + nested(0x1A, b"s")) + PROOF, "token-malformed"),
        (nested(0x12, nested(0x0A, b"") + LINK[len(CONTENT) :]) + PROOF, "token-malformed"),  # no version in the block
        (integer(0x08, 1) * 2 + nested(0x12, LINK) + PROOF, "token-not-canonical"),  # two key ids, of which one counts
        (nested(0x12, LINK) * 2 + PROOF, "token-not-canonical"),  # two authorities
        (nested(0x12, LINK) + PROOF * 2, "token-not-canonical"),
        (nested(0x12, LINK) + PROOF + nested(0x2A, b""), "token-not-canonical"),  # an unknown field
        (PROOF + nested(0x12, LINK), "token-not-canonical"),  # out of order
        (nested(0x12, LINK + integer(0x28, 0)) + PROOF, "token-not-canonical"),  # a default, written
        (nested(0x12, CONTENT + LINK) + PROOF, "token-not-canonical"),  # two contents
        (nested(0x12, LINK + nested(0x32, b"")) + PROOF, "token-not-canonical"),
        (nested(0x12, LINK) + nested(0x22, nested(0x0A, b"p" * 32) * 2), "token-not-canonical"),  # two proofs
        (nested(0x12, LINK) + b"\xa2\x00", "token-not-canonical"),
        (nested(0x12, LINK) + nested(0x1A, LINK) * 8 + PROOF, "too-many-blocks"),
        (b"\x00" * (MAX_BYTES + 1), "token-too-large"),
    ],
)
def test_other_bytes_are_refused(data: bytes, expected: str) -> None:
    """Damage, other spellings and excess each have their code."""
    assert code(data) == expected


def test_every_flipped_byte_is_refused(als: Facility) -> None:
    """No byte of a token can be changed without its being refused, wherever it is."""
    token = als.mint()
    als.verify(token)
    for position in range(len(token)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(token)
            changed[position] ^= flip
            with pytest.raises(TokenError):
                als.verify(bytes(changed))


def test_every_cut_is_refused(als: Facility) -> None:
    """No beginning of a token is a token."""
    token = als.mint()
    for size in range(len(token)):
        with pytest.raises(TokenError):
            decode(token[:size])


def test_text_is_unpadded_and_padding_is_let_pass(als: Facility) -> None:
    """What we write has no padding; right padding, which other implementations write, is taken."""
    token = als.mint()
    assert "=" not in to_text(token)
    for data in (token, b"a", b"ab", b"abc"):
        assert from_text(to_text(data)) == data
        assert from_text(base64.urlsafe_b64encode(data).decode()) == data


@pytest.mark.parametrize(
    "text", ["a", "YQ=", "YQ===", "YWI==", "YW=I", "YQ==\n", "YQ ", "Y+/=", "YR", "€€€€", "biscuit:YQ", "="]
)
def test_other_text_is_refused(text: str) -> None:
    """Wrong padding, another alphabet, stray bits and prefixes are not a token's text."""
    with pytest.raises(TokenError) as caught:
        from_text(text)
    assert caught.value.code == "token-malformed"


def test_long_text_is_refused_before_it_is_decoded() -> None:
    """A header of 41 kB is refused for its length alone, whatever it holds."""
    for text in ("A" * (MAX_TEXT + 1), "€" * 41_000):
        with pytest.raises(TokenError) as caught:
            from_text(text)
        assert caught.value.code == "token-too-large"
    assert len(from_text("A" * MAX_TEXT)) == MAX_BYTES


def test_repr_hides_the_proof(als: Facility) -> None:
    """The secret that allows to append is in no representation of a token."""
    token = decode(als.mint())
    assert token.proof.hex() not in repr(token)
    assert repr(token.proof) not in repr(token)
    assert als.kid in repr(token)
    assert decode(nested(0x12, LINK) + PROOF).kid is None


@pytest.mark.parametrize("less", [1, 2, 30])
def test_the_content_of_a_link_is_as_long_as_it_says(als: Facility, less: int) -> None:
    """A link in the form that is read by its places: the content that we lint is the content that the engine verifies."""
    token = decode(als.mint())
    content, key = token.blocks[0].content, nested(0x12, encode_key(token.blocks[0].next_key))
    rest = key + nested(0x1A, token.blocks[0].signature) + integer(0x28, 1)
    proof = nested(0x22, nested(0x0A, token.proof))
    assert decode(nested(0x12, nested(0x0A, content) + rest) + proof).contents == token.contents
    link = b"\x0a" + unsigned(len(content) - less) + content + rest
    assert code(nested(0x12, link) + proof) in {"token-not-canonical", "token-malformed"}
