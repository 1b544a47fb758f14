"""Permits that were given a moment ago: an equal request need not be decided again until something could decide it otherwise.

A decision depends on the request, the presented chain, the token, the rules, the trust and the time, and on nothing else
(``policy.decision`` is pure). So a permit stands for a request that is equal in all of what was looked at, as long as

* the trust in force is the very same object: not one bundle, feed, withdrawal or attester in it has changed, and
* no moment has come at which a comparison with the clock comes out otherwise: the beginning or end of a certificate on the
  path, of the token or of a narrowing in it, the end of a feed's freshness, the time a route asks to be left.

Both are looked at on every request; if either fails, the long way through every check is taken. Only permits are kept, and
none that depends on a body, on a count, or on a check of another program's making, in which time may have another meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from certauth.clock import from_timestamp
from certauth.names import TrustDomain
from certauth.tokens.conditions import Window
from certauth.tokens.datalog import Check
from certauth.tokens.verify import VerifiedToken
from policy.cache import Cache
from policy.certificate import PeerVerifier
from policy.decision import Permit
from policy.decision_log import DecisionRecord
from policy.peer import PresentedPeer
from policy.request import PEER_EXTENSION, AccessRequest, ReadHeaders, Scope
from policy.trust import TrustState

KEPT = 1024
"""Permits kept at most."""
SEEN = 16 * 1024
"""Requests of which it is known at most that they came once."""
MAX_KEPT = 16 * 1024
"""Bytes of path, credentials and certificates of a request up to which its permit is kept, so that nobody fills the memory."""

Key = tuple[object, ...]


@dataclass(slots=True, eq=False)
class Remembered:
    """A permit, what it was given to, under which trust and when; and what was made of it when it was asked for again."""

    permit: Permit
    request: AccessRequest
    presented: PresentedPeer
    state: TrustState
    since: datetime
    until: datetime | None = None
    """Until just before when it stands."""
    record: DecisionRecord | None = None
    """What is written down of such a request."""
    members: dict[str, Any] | None = None
    """What its caller is made of."""


class Permits:
    """The permits of one door; those used most recently stay."""

    def __init__(self, peers: PeerVerifier, *, kept: int = KEPT) -> None:
        self._peers = peers
        self._cache: Cache[Remembered] = Cache(kept)
        self._seen: dict[int, None] = {}  # of numbers, which cost nothing to keep; two keys with one number do no harm

    def find(self, key: Key | None, state: TrustState, now: datetime) -> Remembered | None:
        """The permit that stands for the request with this ``key`` at ``now``, under ``state``."""
        known = None if key is None else self._cache.get(key)
        if known is None or known.state is not state or now < known.since:
            return None
        if known.until is None:
            ends = self._peers.path_ends(known.presented.chain_der, state=state)
            known.until = stands_until(known.permit, state, known.since, path_ends=ends)
        return known if now < known.until else None

    def keep(self, key: Key | None, found: Remembered) -> None:
        """Remember a permit, if there was one for an equal request before: most requests do not come twice."""
        if key is None:
            return
        if (seen := hash(key)) in self._seen:
            self._cache.put(key, found)
        else:
            self._seen[seen] = None
            if len(self._seen) > SEEN:
                self._seen.clear()


def key_of(scope: Scope, headers: ReadHeaders) -> Key | None:
    """All of a request that a decision looks at, as it came; ``None`` for one too large to be remembered.

    Also for one whose certificate comes another way than through our own protocol classes, which hand it over as it is.
    """
    own = (scope.get("extensions") or {}).get(PEER_EXTENSION)
    if own is None or type(chain := own["chain_der"]) is not tuple:
        return None
    path, raw_path, offered = scope.get("path", ""), scope.get("raw_path"), tuple(scope.get("subprotocols") or ())
    parts = (path, raw_path or b"", *chain, *headers.authorization, *headers.biscuit, *offered)
    if sum(map(len, parts)) > MAX_KEPT:
        return None
    return (
        scope["type"], scope.get("method"), path, raw_path, headers.authorization, headers.biscuit, offered, chain,
        own["address"], own["uid"],
    )  # fmt: skip


def stands_until(permit: Permit, state: TrustState, now: datetime, *, path_ends: datetime | None) -> datetime:
    """The first moment after ``now`` at which an equal request could be decided otherwise; ``now`` if that is not known."""
    if permit.peer is None:
        return datetime.max.replace(tzinfo=now.tzinfo)  # of a public route nothing is asked
    if path_ends is None:
        return now
    ends, domains = [path_ends, permit.peer.not_after], {permit.peer.principal.domain}
    if permit.token is not None:
        windows = _windows(permit.token)
        if windows is None or permit.token.limits or permit.token.body_sha256:
            return now
        ends += windows
        domains.add(permit.token.domain)
    needed = permit.route.min_remaining or timedelta()
    # A moment before a credential begins cannot be next: the permit would not have been given.
    moments = [*ends, *(end - needed for end in ends), *_freshness(state, domains)]
    return min(moment for moment in moments if moment > now)


def _windows(token: VerifiedToken) -> list[datetime] | None:
    """Every moment that the token compares the time with; ``None`` if it holds a check that only the engine understands."""
    moments = [token.expires_at]
    for block in token.blocks:
        for check in block.checks:
            if isinstance(check, Check):
                return None
            if isinstance(check, Window):
                moments.append(from_timestamp(check.before))
    return moments


def _freshness(state: TrustState, domains: set[TrustDomain]) -> Iterator[datetime]:
    for domain in domains:
        found = state.domains[domain]
        if found.fresh_until is not None:
            yield from (found.fresh_until, found.fresh_until + found.stale_reading)
