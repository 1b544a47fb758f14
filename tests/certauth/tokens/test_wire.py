"""The wire format takes one spelling and refuses the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.tokens.wire import NotCanonical, integer, mismatch, nested, repeated, signed, split, to_signed, unsigned, varint


@given(st.integers(0, 2**64 - 1))
def test_varints_survive_the_round_trip(value: int) -> None:
    """Every unsigned 64-bit integer is read back from what it is written as."""
    assert varint(unsigned(value), 0) == (value, len(unsigned(value)))


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_integers_survive_the_round_trip(value: int) -> None:
    """Every signed 64-bit integer is read back from its two's complement."""
    assert to_signed(varint(signed(value), 0)[0]) == value


@pytest.mark.parametrize("value", [-1, 2**64])
def test_no_varint_for_other_integers(value: int) -> None:
    """What does not fit into 64 bits is not written."""
    with pytest.raises(ValueError, match="unsigned"):
        unsigned(value)


@pytest.mark.parametrize("value", [-(2**63) - 1, 2**63])
def test_no_signed_varint_for_other_integers(value: int) -> None:
    """What does not fit into a signed 64-bit integer is not wrapped around."""
    with pytest.raises(ValueError, match="signed"):
        signed(value)


@pytest.mark.parametrize("padded", [b"\x80\x00", b"\x81\x80\x00"])
def test_padded_varints_are_another_spelling(padded: bytes) -> None:
    """A varint with a final zero byte is refused as not canonical."""
    with pytest.raises(NotCanonical, match="longer"):
        varint(padded, 0)


@pytest.mark.parametrize("long", [b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\x01"])
def test_varints_beyond_64_bits_are_refused(long: bytes) -> None:
    """No varint of more than 64 bits, however many bytes it brings."""
    with pytest.raises(ValueError, match="64 bits"):
        varint(long, 0)


def test_fields_are_split_by_tag() -> None:
    """Both wire types come back with their tag, long lengths included."""
    text = b"x" * 300
    assert split(integer(0x08, 5) + nested(0x12, b"") + nested(0x12, text)) == [(0x08, 5), (0x12, b""), (0x12, text)]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (nested(0x12, b"") + integer(0x08, 1), NotCanonical),  # descending
        (b"\x0d\x00\x00\x00\x00", NotCanonical),  # a fixed 32-bit field
        (b"\x09" + bytes(8), NotCanonical),  # a fixed 64-bit field
        (b"\x0b\x00", NotCanonical),  # a group
        (b"\x88\x01", NotCanonical),  # a tag of two bytes
        (b"\xa2\x00", NotCanonical),
        (b"\x12\x05ab", ValueError),  # longer than the message
        (b"\x12\xff\xff\xff\xff\x0f", ValueError),  # much longer
        (b"\x08", IndexError),  # nothing after the tag
        (b"\x12\xff", IndexError),  # a cut varint
    ],
)
def test_other_bytes_are_refused(data: bytes, error: type[Exception]) -> None:
    """Descending fields, other wire types, long tags and cut messages are errors."""
    with pytest.raises(error):
        split(data)


def test_repeated_fields_have_one_tag() -> None:
    """A list of one field is read from where it starts; any other tag in it is refused."""
    long = b"y" * 200
    data = b"--" + nested(0x0A, b"a") + nested(0x0A, long)
    assert repeated(data, 2, 0x0A) == [b"a", long]
    with pytest.raises(NotCanonical):
        repeated(data + nested(0x12, b""), 2, 0x0A)
    with pytest.raises(ValueError, match="longer"):
        repeated(b"\x0a\x02a", 0, 0x0A)


def test_mismatch_tells_repetition_from_absence() -> None:
    """A field that occurs twice is another spelling; so is an unknown one; an absent one is damage."""
    assert type(mismatch([(8, 1), (8, 1)], 8)) is NotCanonical
    assert type(mismatch([(8, 1)], 16)) is NotCanonical
    assert type(mismatch([(8, 1)], 8, 16)) is ValueError
