"""Whether this signer made a biscuit whose signature is good. One that it did not make was made with a stolen key."""

from __future__ import annotations

import json
from typing import Any

import structlog

from certauth.tokens import VerifiedToken
from signer.store import Store

log = structlog.get_logger("signer")


def was_minted(token: VerifiedToken, store: Store) -> bool:
    """Whether the log records that ``token``, or the one it was narrowed from, was granted.

    Nothing is released before it is recorded, and neither row nor entry is ever deleted. The entry names the signature of the
    issuer's block, so a forgery that borrows the id of a token that was granted is found as well. Raises ``StoreError``.
    """
    if _is_recorded(token, store):
        return True
    log.warning("token.unknown", token=token.digest, kid=token.kid)
    return False


def _is_recorded(token: VerifiedToken, store: Store) -> bool:
    stored = store.token(token.jti)
    if stored is None:
        return False
    with store.log() as reader:
        entry: Any = json.loads(reader.entry(stored.seq).body)
    return bool(entry["grant"].get("block") == token.block_ids[0])
