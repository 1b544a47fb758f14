"""Who may withdraw a part of a token: whoever has, or had, what would end with it.

A block's id names that block and everything derived from it. A holder of the token, earlier or now, may withdraw any block
that was appended since the token came into its hands: only what it made or passed on ends with that. What came before is
shared with others, to whom the same parent may have been handed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from certauth.tokens.verify import VerifiedToken


@dataclass(frozen=True, slots=True)
class MayRevoke:
    """The block may be withdrawn by who asks; with ``until``, after which the entry in the feed can be forgotten."""

    block: int
    block_id: str
    until: datetime

    def __bool__(self) -> NoReturn:
        raise TypeError("match on MayRevoke and MayNotRevoke")


@dataclass(frozen=True, slots=True)
class MayNotRevoke:
    """It may not, for this reason."""

    code: str
    reason: str

    def __bool__(self) -> NoReturn:
        raise TypeError("match on MayRevoke and MayNotRevoke")


def may_revoke_block(
    token: VerifiedToken, block_id: str, holder_fingerprint: str, *, principal: str | None = None
) -> MayRevoke | MayNotRevoke:
    """Whether the holder of the certificate ``holder_fingerprint`` may withdraw the block ``block_id`` of ``token``.

    ``principal`` is who that certificate names: the token's own user may with a later certificate as well. Codes of a refusal:
    ``block-unknown``, ``not-a-holder``, ``block-shared``.
    """
    if block_id not in token.block_ids:
        return MayNotRevoke("block-unknown", "the token has no block with this id")
    since = _in_hands_since(token, holder_fingerprint, principal)
    if since is None:
        return MayNotRevoke("not-a-holder", "the token was never in the hands of this certificate")
    number = token.block_ids.index(block_id)
    if number < since:
        return MayNotRevoke("block-shared", "the block is older than this holder's part of the token, and others may share it")
    return MayRevoke(number, block_id, token.expires_at)


def _in_hands_since(token: VerifiedToken, fingerprint: str, principal: str | None) -> int | None:
    """The first block by which the token was in those hands: 0 if it was minted for them."""
    if fingerprint == token.peer_fingerprint or principal == token.user:
        return 0
    return next((handed.block for handed in token.hand_overs if handed.to.fingerprint == fingerprint), None)
