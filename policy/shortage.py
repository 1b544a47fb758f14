"""Work that takes longer than the credential lasts, known before it begins: who is short of how much. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from certauth.bundles import VerifiedPeer
from certauth.clock import from_timestamp, in_words
from certauth.tokens.conditions import Window
from certauth.tokens.verify import VerifiedToken

TOO_SHORT = "credential-too-short"
UNPROCESSABLE = 422
"""The request is right and its credential good, and yet it cannot be done (RFC 9110 §15.5.21)."""
HINT = "certauth renew, then again; for work that outlasts every login: certauth agent create"


class Shortage(NamedTuple):
    """How long the work takes, and how long the credentials shown for it last."""

    required: timedelta
    remaining: timedelta

    def __str__(self) -> str:
        return f"this takes {in_words(self.required)}, and your credential lasts {in_words(self.remaining)}"

    @property
    def members(self) -> tuple[tuple[str, int], ...]:
        """The same for programs, in whole seconds."""
        return (
            ("required_seconds", -(-self.required // timedelta(seconds=1))),
            ("remaining_seconds", max(0, self.remaining // timedelta(seconds=1))),
        )


def shortage(needed: timedelta, *, peer: VerifiedPeer | None, token: VerifiedToken | None, now: datetime) -> Shortage | None:
    """What is missing for work of ``needed``, if anything: certificate, token and every narrowing of it must last as long.

    Where nobody was asked for a credential, none ends.
    """
    ends = [] if peer is None else [peer.not_after]
    if token is not None:
        ends.append(token.expires_at)
        ends += [from_timestamp(check.before) for block in token.blocks for check in block.checks if isinstance(check, Window)]
    if not ends or (left := min(ends) - now) >= needed:
        return None
    return Shortage(required=needed, remaining=left)
