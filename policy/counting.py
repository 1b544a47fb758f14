"""How often a token was used: what a door asks of whatever counts that.

A token can be narrowed to a number of uses (``certauth.tokens``: ``max_uses``). Nobody but the door can count them: it reserves
a use, all or none of what a token demands, after everything else about a request was found right and before the request is
recorded and let through. What was reserved stays counted, also if the request then comes to nothing.

``policy.uses`` counts in a file, for several processes; ``policy.testing`` in memory, for tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

MAX_COUNTERS = 4096
"""Counters of one token, which its holder can make at will by narrowing it again."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """The uses are counted. ``counts`` says for each counter which use it was, from 1."""

    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class NotReserved:
    """Nothing was counted: ``code`` is ``token-used-up`` or ``uses-too-many``."""

    code: str
    reason: str


Reservation = Reserved | NotReserved
TOO_MANY = NotReserved("uses-too-many", f"the token was narrowed to a number of uses more than {MAX_COUNTERS} times")


def used_up(used: Mapping[str, int], limits: Mapping[str, int]) -> NotReserved | None:
    """The refusal, if a counter is at its limit."""
    for nonce, limit in limits.items():
        if used[nonce] >= limit:
            return NotReserved("token-used-up", f"the token was used {limit} times, as often as it may")
    return None


class UseCounter(Protocol):
    """Something that counts. Safe to use from any thread."""

    def start(self) -> None:
        """Be ready to count; idempotent. Raises ``StoreError``."""
        ...

    def reserve(self, token: str, limits: Mapping[str, int], *, until: datetime, now: datetime) -> Reservation:
        """Count one use of each of the counters ``limits`` of ``token``, if none of them is at its limit; atomically.

        ``token`` names the token among all that this door accepts; it ends at ``until``. Raises ``StoreError`` if the outcome
        is unknown or nothing can be counted: then nothing must be let through.
        """
        ...

    def close(self) -> None:
        """Let go of everything held; idempotent."""
        ...
