"""Guards of the road, and how each is taken out: see ``tests.mutations``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.guards import (
    admitting,
    door,
    granting,
    keys,
    linking,
    logins,
    oauth,
    program,
    proofs,
    providers,
    taking_back,
    trust,
)
from tests.guards.form import Guard

GUARDS: Final[Mapping[str, tuple[Guard, ...]]] = {
    "who asks": proofs.GUARDS,
    "what providers say": providers.GUARDS,
    "who becomes whom": admitting.GUARDS,
    "second logins": linking.GUARDS,
    "what is granted": granting.GUARDS,
    "tokens for tokens": oauth.GUARDS,
    "taking back": taking_back.GUARDS,
    "the keys that sign": keys.GUARDS,
    "logins through the signer": logins.GUARDS,
    "the user's program": program.GUARDS,
    "the door: tokens": door.GUARDS,
    "the door: trust": trust.GUARDS,
}
"""By what they guard."""
