"""What the engine and we make of the same bytes, and every way in which that could differ.

The engine decides whether signatures verify and what a token means; the codec decides what it is made of. For each token both
must see the same links: the same number, signatures, third parties, and not a byte more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from biscuit_auth import Biscuit, BiscuitValidationError, PublicKey

from certauth.errors import TokenError
from certauth.tokens.block_writer import encode_block
from certauth.tokens.codec import Token, decode, encode
from certauth.tokens.datalog import KeyRef, Tables
from certauth.tokens.lint import lint
from certauth.tokens.low_s import is_low_s
from tests.conformance.chain import verifies

ALGORITHMS = ("ed25519", "secp256r1")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What came out of one token."""

    accepted: bool
    """Whether the engine verifies it."""
    token: Token | None
    """What the codec reads in it, if it does."""
    code: str
    """How we refuse it, by codec or lint; empty if it follows the profile."""
    differences: list[str] = field(default_factory=list)


def key_text(key: KeyRef) -> str:
    """A public key as the engine writes it."""
    return f"{ALGORITHMS[key.algorithm]}/{key.key.hex()}"


def read(data: bytes, root: KeyRef) -> Reading:
    """Both readings of ``data``, of which ``root`` is to be the root key, and where they differ."""
    theirs = _engine(data, root)
    try:
        ours = decode(data)
    except TokenError as error:
        excused = theirs is None or error.code in {"token-too-large", "too-many-blocks"} or _has_other_form(theirs, error)
        return Reading(
            accepted=theirs is not None,
            token=None,
            code=error.code,
            differences=[] if excused else [f"the engine takes what the codec does not read: {error.code}"],
        )
    try:
        lint(ours)
        code = ""
    except TokenError as error:
        code = error.code
    return Reading(accepted=theirs is not None, token=ours, code=code, differences=[*_differences(data, root, ours, theirs)])


def _engine(data: bytes, root: KeyRef) -> Biscuit | None:
    try:
        return Biscuit.from_bytes(data, PublicKey(key_text(root)))
    except BiscuitValidationError:
        return None


def _has_other_form(theirs: Biscuit, error: TokenError) -> bool:
    """Whether the codec may refuse a token that verifies: it has an ECDSA signature, of which it takes one form only."""
    if error.code != "token-not-canonical":
        return False
    signatures = [bytes.fromhex(text) for text in theirs.revocation_ids]
    third = [theirs.block_external_key(number) for number in range(theirs.block_count())]
    return any(len(one) != 64 and not is_low_s(one) for one in signatures) or "secp256r1" in repr(third)


def _differences(data: bytes, root: KeyRef, ours: Token, theirs: Biscuit | None) -> list[str]:
    found = []
    if encode(ours) != data:
        found.append("the codec writes other bytes than it read")
    tables = Tables()
    for number, (link, block) in enumerate(zip(ours.blocks, ours.contents, strict=True)):
        if encode_block(block, tables if link.external is None else Tables()) != link.content:
            found.append(f"block {number} is written otherwise than it was read")
    if verifies(ours, root) != (theirs is not None):
        found.append(f"the signatures verify for {'us' if theirs is None else 'the engine'} only")
    if theirs is None:
        return found
    if bytes(theirs.to_bytes()) != data:
        found.append("the engine writes other bytes than it read")
    if theirs.revocation_ids != [link.signature.hex() for link in ours.blocks]:
        found.append("the revocation ids differ")
    third = [
        None if (key := theirs.block_external_key(number)) is None else repr(key) for number in range(theirs.block_count())
    ]
    if third != [None if link.external is None else key_text(link.external.key) for link in ours.blocks]:
        found.append("the keys of third parties differ")
    return found
