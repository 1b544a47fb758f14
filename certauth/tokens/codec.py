"""The wire form of a token: signed blocks, their payloads, and the text they travel as (Biscuit specification, format v3).

What is guaranteed: :func:`decode` accepts a token only in its one canonical spelling (``encode(decode(data)) == data``), so
our lint and the engine that verifies signatures see the same thing. That includes ECDSA signatures, of which each has a
second valid form: only the one of :mod:`~certauth.tokens.low_s` is read. Links are signed in
:mod:`~certauth.tokens.signing`; nothing here verifies a signature: the engine does, in :mod:`~certauth.tokens.verify`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from certauth.encoding import b64url, from_b64url
from certauth.errors import TokenError
from certauth.tokens.block_writer import encode_key
from certauth.tokens.blocks import Block, decode_block, decode_key
from certauth.tokens.datalog import ED25519, P256, KeyRef, Tables
from certauth.tokens.low_s import is_low_s
from certauth.tokens.wire import NotCanonical, integer, mismatch, nested, split, varint

MAX_BYTES = 6144
MAX_TEXT = (MAX_BYTES + 2) // 3 * 4
MAX_BLOCKS = 8
_NEXT_KEY, _SIGNATURE, _VERSION = b"\x12\x24\x08\x00\x12\x20", b"\x1a\x40", b"\x28\x01"
_LINK_NEEDS = frozenset({0x0A, 0x12, 0x1A})
_LINK_HAS = _LINK_NEEDS | {0x22, 0x28}
_PADDING = re.compile("={1,2}")
WHOLE = "copy it again, whole and unchanged, or mint a new one"


class External(NamedTuple):
    """The signature of a third party over a block, and its key."""

    signature: bytes
    key: KeyRef


class SignedBlock(NamedTuple):
    """One link of the chain: content, the key that signs the next link, and this link's signature."""

    content: bytes
    next_key: KeyRef
    signature: bytes
    external: External | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A decoded token, unverified. ``proof`` is a secret unless it is sealed, and is never shown."""

    root_key_id: int | None
    blocks: tuple[SignedBlock, ...]
    contents: tuple[Block, ...] = field(repr=False)
    sealed: bool
    proof: bytes = field(repr=False)

    def __repr__(self) -> str:
        return f"<Token kid={self.kid} blocks={len(self.blocks)}>"

    @property
    def kid(self) -> str | None:
        """The id of the root key this token claims, eight hex digits. A hint: it is not signed."""
        return None if self.root_key_id is None else f"{self.root_key_id:08x}"


# --- text ---------------------------------------------------------------------------------------------------------------


def to_text(data: bytes) -> str:
    """The token as unpadded base64url, fit for headers and WebSocket subprotocols."""
    return b64url(data)


def from_text(text: str) -> bytes:
    """The bytes of a token's text, whose length is looked at before anything else; right padding is let pass.

    Raises ``TokenError`` (``token-too-large``, ``token-malformed``).
    """
    if len(text) > MAX_TEXT:
        raise _too_large()
    unpadded = text.rstrip("=")
    if unpadded != text and (len(text) % 4 or not _PADDING.fullmatch(text[len(unpadded) :])):
        raise TokenError("token-malformed", "the token is not base64url", hint=WHOLE)
    try:
        return from_b64url(unpadded)
    except ValueError as error:
        raise TokenError("token-malformed", "the token is not base64url", hint=WHOLE) from error


def _too_large() -> TokenError:
    return TokenError(
        "token-too-large",
        f"the token exceeds {MAX_BYTES} bytes",
        hint="ask for fewer rights, or derive from an earlier token instead of from a derived one",
    )


# --- bytes --------------------------------------------------------------------------------------------------------------


def decode(data: bytes) -> Token:
    """The token in ``data``.

    Raises ``TokenError``: ``token-too-large``, ``too-many-blocks``, ``token-not-canonical`` for another spelling of a token,
    ``token-malformed`` for anything else.
    """
    if len(data) > MAX_BYTES:
        raise _too_large()
    try:
        return _decode(data)
    except NotCanonical as error:
        raise TokenError("token-not-canonical", "this is not a token in its one canonical form", hint=WHOLE) from error
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise TokenError("token-malformed", "this is not a token, or it was damaged", hint=WHOLE) from error


def _decode(data: bytes) -> Token:
    fields = split(data)
    root_key_id = fields.pop(0)[1] if fields[0][0] == 0x08 else None
    if [tag for tag, _ in fields if tag != 0x1A] != [0x12, 0x22]:
        raise mismatch([pair for pair in fields if pair[0] != 0x1A], 0x12, 0x22)
    if len(fields) - 1 > MAX_BLOCKS:
        raise TokenError(
            "too-many-blocks",
            f"the token has {len(fields) - 1} blocks, more than {MAX_BLOCKS}",
            hint="derive from an earlier token instead of from a derived one",
        )
    if root_key_id is not None and root_key_id >= 2**32:
        raise ValueError("a root key id of more than 32 bits")
    blocks = tuple([_signed_block(value) for _, value in fields[:-1]])
    if blocks[0].external is not None:
        raise ValueError("an authority block with an external signature")
    sealed, proof = _proof(fields[-1][1])
    _check_forms(blocks, proof if sealed else None)
    tables = Tables()
    contents = tuple([decode_block(block.content, tables if block.external is None else Tables()) for block in blocks])
    return Token(root_key_id=root_key_id, blocks=blocks, contents=contents, sealed=sealed, proof=proof)


def _signed_block(data: bytes) -> SignedBlock:
    # What nearly every link is: content, and then an Ed25519 key, a signature and version 1, at fixed places from the end.
    if data[-106:-100] == _NEXT_KEY and data[-68:-66] == _SIGNATURE and data[-2:] == _VERSION and data[0] == 0x0A:
        size, start = varint(data, 1)
        if start + size == len(data) - 106:
            next_key = KeyRef(ED25519, data[-100:-68])
            return SignedBlock(data[start:-106], next_key, data[-66:-2], None, 1)
    fields = split(data)
    found: dict[int, Any] = dict(fields)
    if len(found) != len(fields) or not _LINK_NEEDS <= found.keys() <= _LINK_HAS:
        raise mismatch(fields, *_LINK_HAS)
    version = found.get(0x28, 0)
    if version == 0 and 0x28 in found:
        raise NotCanonical("a version that is written although it is the default")
    external = found.get(0x22)
    return SignedBlock(
        found[0x0A], decode_key(found[0x12]), found[0x1A], None if external is None else read_external(external), version
    )


def read_external(data: bytes) -> External:
    """An ``ExternalSignature`` message; ``ValueError`` for anything else."""
    fields = split(data)
    if [tag for tag, _ in fields] != [0x0A, 0x12]:
        raise mismatch(fields, 0x0A, 0x12)
    return External(fields[0][1], decode_key(fields[1][1]))


def _check_forms(blocks: tuple[SignedBlock, ...], seal: bytes | None) -> None:
    """Raise ``NotCanonical`` for an ECDSA signature in another than its one form.

    The authority's is by a root key, which a token does not name; those are Ed25519.
    """
    for block, before in zip(blocks, (None, *blocks), strict=False):
        _check_form(block.signature, before and before.next_key)
        if block.external is not None:
            _check_form(*block.external)
    if seal is not None:
        _check_form(seal, blocks[-1].next_key)


def _check_form(signature: bytes, key: KeyRef | None) -> None:
    if key is not None and key.algorithm == P256 and not is_low_s(signature):
        raise NotCanonical("an ECDSA signature in another form")


def _proof(data: bytes) -> tuple[bool, bytes]:
    fields = split(data)
    if len(fields) != 1 or fields[0][0] not in (0x0A, 0x12):
        raise mismatch(fields, 0x0A, 0x12)
    return fields[0][0] == 0x12, fields[0][1]


def encode(token: Token) -> bytes:
    """The canonical bytes of ``token``."""
    authority, *rest = (_write_signed(block) for block in token.blocks)
    return b"".join(
        (
            b"" if token.root_key_id is None else integer(0x08, token.root_key_id),
            nested(0x12, authority),
            *(nested(0x1A, block) for block in rest),
            nested(0x22, nested(0x12 if token.sealed else 0x0A, token.proof)),
        )
    )


def _write_signed(block: SignedBlock) -> bytes:
    return b"".join(
        (
            nested(0x0A, block.content),
            nested(0x12, encode_key(block.next_key)),
            nested(0x1A, block.signature),
            b"" if block.external is None else nested(0x22, write_external(block.external)),
            integer(0x28, block.version) if block.version else b"",
        )
    )


def write_external(external: External) -> bytes:
    """An ``ExternalSignature`` message."""
    return nested(0x0A, external.signature) + nested(0x12, encode_key(external.key))
