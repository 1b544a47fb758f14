"""Step 3, certificate: the presented chain -> a ``VerifiedPeer`` of a trusted domain, on every request anew.

Building and checking a path costs about half a millisecond, so its result is kept, under exactly the presented
bytes and the generation of trust it was made under. What can change between two requests is looked at each time: the dates of
every certificate the path may rest on, and the revocations. Connections, and TLS sessions, outlive certificates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from certauth.bundles import TrustBundle, VerifiedPeer, verify_peer
from certauth.certificates import load_der
from certauth.errors import RevokedError
from policy.cache import Cache
from policy.trust import Trust, TrustState

REMEMBERED = 4096
"""Verified peers kept at most."""
MAX_KEPT = 8192
"""Bytes of a chain up to which it is kept as it is; of a longer one, its digest is."""


class PeerVerifier:
    """Verifies presented chains against the trust of this door."""

    def __init__(self, trust: Trust, *, remembered: int = REMEMBERED) -> None:
        self._trust = trust
        self._cache: Cache[tuple[VerifiedPeer, datetime]] = Cache(remembered)

    def verify(self, chain_der: Sequence[bytes], *, now: datetime, state: TrustState | None = None) -> VerifiedPeer:
        """The peer that presented ``chain_der`` (leaf first).

        ``state`` is the trust the request began with; by default, that of now. Raises ``ChainError`` (the codes of
        ``certauth.bundles.verify_peer``) and ``RevokedError`` (``certificate-revoked``).
        """
        state = state or self._trust.state
        # 1. The path.
        key = _key(chain_der, state)
        known = self._cache.get(key)
        # 2. The dates. Outside the time of any certificate the result may rest on, the path is verified anew, and says why.
        if known is not None and known[0].not_before <= now < known[1]:
            peer = known[0]
        else:
            peer = verify_peer(chain_der, state.entries, now=now)
            self._cache.put(key, (peer, _first_end(peer, chain_der, state.entries[peer.principal.domain].bundle, now)))
        # 3. Revocation.
        if revoked := state.certificate_revoked(peer):
            raise RevokedError(
                "certificate-revoked",
                f"the certificate of {peer.principal} was withdrawn: {revoked.reason}",
                hint="ask your facility",
            )
        return peer

    def path_ends(self, chain_der: Sequence[bytes], *, state: TrustState) -> datetime | None:
        """The first end of any certificate that the path of a peer just verified may rest on; ``None`` if it is not known."""
        known = self._cache.get(_key(chain_der, state))
        return None if known is None else known[1]


def _key(chain_der: Sequence[bytes], state: TrustState) -> tuple[object, int]:
    """Exactly the presented bytes, and the generation of trust. A connection has the same bytes for every request."""
    if sum(map(len, chain_der)) <= MAX_KEPT:
        return tuple(chain_der), state.generation
    digest = hashlib.sha256()
    for certificate in chain_der:  # length before each certificate: two different chains never have the same digest
        digest.update(len(certificate).to_bytes(4) + certificate)
    return digest.digest(), state.generation


def _first_end(peer: VerifiedPeer, chain_der: Sequence[bytes], bundle: TrustBundle, now: datetime) -> datetime:
    """The first end, after ``now``, of any certificate that may be on the path."""
    above = (
        *map(_end, chain_der[1:]),
        *(authority.not_valid_after_utc for authority in bundle.x509_issuers + bundle.x509_roots),
    )
    return min(peer.not_after, *(end for end in above if end > now))


@lru_cache(maxsize=256)  # the same few authorities stand above everybody
def _end(der: bytes) -> datetime:
    return load_der(der).not_valid_after_utc
