"""Protocol Buffers' wire format, in one spelling: the part of it that Biscuit uses.

Protocol Buffers let one message be written in many ways: fields in any order, padded varints, repeated singular fields of
which the last counts, unknown fields. Two parsers may then read the same bytes differently, and the same token has many
digests. The reader here takes exactly what the canonical writer writes (fields in ascending order, shortest varints, no
unknown wire types) and leaves it to its callers to refuse fields they do not know or that occur twice.

Both work on ``bytes``; a malformed input raises ``ValueError`` or ``IndexError``, which :mod:`certauth.tokens.codec` turns
into one ``TokenError``.
"""

from __future__ import annotations

from typing import Any

_MAX_U64 = 2**64

Field = tuple[int, Any]
"""A tag (``field number << 3 | wire type``, always one byte here) and its value: an ``int``, or ``bytes``, as the tag says."""


class NotCanonical(ValueError):
    """Readable, but not the way it is written: another spelling of some message."""


def split(data: bytes, position: int = 0) -> list[Field]:
    """The fields of a message from ``position`` on, in ascending order of their tags."""
    fields: list[Field] = []
    end, last = len(data), 0
    while position < end:
        tag = data[position]
        value = data[position + 1]
        position += 2
        if value > 0x7F:
            value, position = varint(data, position - 1)
        if tag < last or tag > 0x7F:
            raise NotCanonical("fields out of order, or unknown")
        last = tag
        kind = tag & 7
        if kind == 2:
            stop = position + value
            if stop > end:
                raise ValueError("a field is longer than its message")
            fields.append((tag, data[position:stop]))
            position = stop
        elif kind == 0:
            fields.append((tag, value))
        else:
            raise NotCanonical("an unknown field")
    return fields


def repeated(data: bytes, position: int, tag: int) -> list[bytes]:
    """The values from ``position`` on, all of them length-delimited fields with the same ``tag``."""
    values: list[bytes] = []
    end = len(data)
    while position < end:
        if data[position] != tag:
            raise NotCanonical("an unknown or repeated field")
        size = data[position + 1]
        position += 2
        if size > 0x7F:
            size, position = varint(data, position - 1)
        stop = position + size
        if stop > end:
            raise ValueError("a field is longer than its message")
        values.append(data[position:stop])
        position = stop
    return values


def mismatch(fields: list[Field], *known: int) -> ValueError:
    """The error for a message of another shape: not canonical if a field is repeated or unknown, else malformed."""
    tags = [tag for tag, _ in fields]
    if len(set(tags)) < len(tags) or not set(tags) <= set(known):
        return NotCanonical("a repeated or unknown field")
    return ValueError("a field is missing, or has an impossible value")


def varint(data: bytes, position: int) -> tuple[int, int]:
    """The unsigned 64-bit varint at ``position`` and the position after it; only its shortest spelling is taken."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than 64 bits")
    if value >= _MAX_U64:
        raise ValueError("a varint of more than 64 bits")
    if byte == 0 and shift:
        raise NotCanonical("a varint longer than it needs to be")
    return value, position


def unsigned(value: int) -> bytes:
    """``value`` (0 … 2^64-1) as a varint."""
    if 0 <= value <= 0x7F:
        return bytes((value,))
    if not 0 <= value < _MAX_U64:
        raise ValueError("not an unsigned 64-bit integer")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def signed(value: int) -> bytes:
    """``value`` (-2^63 … 2^63-1) as a varint of its two's complement, the way ``int64`` is written."""
    if not -(2**63) <= value < 2**63:
        raise ValueError("not a signed 64-bit integer")
    return unsigned(value % _MAX_U64)


def to_signed(value: int) -> int:
    """The ``int64`` whose varint was read as the unsigned ``value``."""
    return value - _MAX_U64 if value >= 2**63 else value


def integer(tag: int, value: int) -> bytes:
    """A varint field."""
    return bytes((tag,)) + unsigned(value)


def nested(tag: int, content: bytes) -> bytes:
    """A length-delimited field: bytes, text or a message."""
    if len(content) <= 0x7F:
        return bytes((tag, len(content))) + content
    return bytes((tag,)) + unsigned(len(content)) + content
