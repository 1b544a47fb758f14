"""What the service publishes about revocations, and what its own door knows of them: two views of one table.

The feed is complete and signed anew when something was revoked, and before the last one stops counting as fresh. Both views
are rebuilt when the number of the newest revocation has grown; that number is the feed's sequence, so it never goes back.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from certauth.clock import Clock, whole_seconds
from certauth.keys import SigningKey
from certauth.names import TrustDomain
from certauth.revocation import Feed, RevocationSet, sign_feed
from signer.store import Store

_RECHECK = timedelta(milliseconds=200)
"""How long a revocation made by another process may go unnoticed here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Current:
    signed: bytes
    revocations: RevocationSet
    sequence: int
    issued_at: datetime
    checked_at: datetime


class Withdrawals:
    """The current feed. ``_current`` is replaced as a whole, under ``_lock``; readers on any thread see one or the other."""

    def __init__(self, *, store: Store, domain: TrustDomain, key: SigningKey, lifetime: timedelta, clock: Clock) -> None:
        self._store = store
        self._domain = domain
        self._key = key
        self._lifetime = lifetime
        self._clock = clock
        self._lock = threading.Lock()
        self._current: _Current | None = None

    def feed(self) -> bytes:
        """The signed feed, current to within 0.2 s; raise ``StoreError`` if the table cannot be read."""
        return self._refreshed().signed

    def revocations(self, domain: TrustDomain) -> RevocationSet | None:
        """The same for our own door; ``None`` for a domain that is not ours."""
        return self._refreshed().revocations if domain == self._domain else None

    def changed(self) -> None:
        """Forget what is known: something was revoked just now."""
        with self._lock:
            self._current = None

    def _refreshed(self) -> _Current:
        now = self._clock()
        current = self._current
        if current is not None and now - current.checked_at < _RECHECK:
            return current
        with self._lock:
            self._current = current = self._rebuilt(self._current, now)
        return current

    def _rebuilt(self, current: _Current | None, now: datetime) -> _Current:
        # A database that was moved or replaced knows nothing of what was revoked since; signing its list would resurrect it.
        self._store.place.check()
        # The number first: what is revoked between the two queries is then in the list and in the next feed as well.
        newest = self._store.newest_revocation()
        if current is not None and current.sequence == newest and now - current.issued_at < self._lifetime / 4:
            return _Current(
                signed=current.signed,
                revocations=current.revocations,
                sequence=newest,
                issued_at=current.issued_at,
                checked_at=now,
            )
        moment = whole_seconds(now)
        feed = Feed(
            domain=self._domain,
            sequence=newest,
            issued_at=moment,
            next_update=moment + self._lifetime,
            entries=tuple(stored.row.revoked for stored in self._store.revocations(now=int(now.timestamp()))),
        )
        return _Current(
            signed=sign_feed(feed, self._key),
            revocations=RevocationSet(feed),
            sequence=newest,
            issued_at=now,
            checked_at=now,
        )
