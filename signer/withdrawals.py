"""What the service publishes about revocations, and what its own door knows of them: two views of one table.

The feed is complete and signed anew when something was revoked, and before the last one stops counting as fresh. Both views
are rebuilt when the number of the newest revocation has grown; that number is the feed's sequence, so it never goes back.

Our own door does not depend on the signature: what cannot be signed, or is too long for other doors, is still refused here.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from certauth.clock import Clock, whole_seconds
from certauth.errors import CertauthError, StoreError, UnavailableError
from certauth.keys import SigningKey
from certauth.names import TrustDomain
from certauth.revocation import MAX_ENTRIES, MAX_FEED, Feed, RevocationSet, sign_feed
from signer.store import Store

_RECHECK = timedelta(milliseconds=200)
"""How long a revocation made by another process may go unnoticed here."""


FULL: Final = 0.6
"""From this part of its longest length on the feed is called nearly full: other doors would refuse a longer one."""

log = structlog.get_logger("signer")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Current:
    feed: Feed
    revocations: RevocationSet
    signed: bytes | CertauthError
    """What is published, or why nothing can be."""
    issued_at: datetime
    checked_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """How much is in the feed, whether other doors will soon refuse it for its length, and why it is not published, if so."""

    entries: int
    nearly_full: bool
    failure: CertauthError | None


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
        """The signed feed, current to within 0.2 s.

        Raises ``StoreError`` if the table cannot be read, ``UnavailableError`` with the code of why it cannot be published.
        """
        signed = self._refreshed().signed
        if isinstance(signed, CertauthError):
            raise UnavailableError(signed.code, signed.message, hint=signed.hint)
        return signed

    def revocations(self, domain: TrustDomain) -> RevocationSet | None:
        """The same, opened; ``None`` for a domain that is not ours. Raises ``StoreError``."""
        return self._refreshed().revocations if domain == self._domain else None

    def for_the_door(self, domain: TrustDomain) -> RevocationSet | None:
        """The same for our own door, which lets in nobody while it is ``None``; nor does it then while there is no database.

        What needs no certificate goes on: so a signer whose database is gone can say so.
        """
        try:
            return self.revocations(domain)
        except StoreError:
            return None

    def fill(self) -> Fill:
        """How full the feed is. Raises ``StoreError``."""
        current = self._refreshed()
        return Fill(
            entries=len(current.feed.entries),
            nearly_full=_nearly_full(current),
            failure=current.signed if isinstance(current.signed, CertauthError) else None,
        )

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
        if current is not None and current.feed.sequence == newest and now - current.issued_at < self._lifetime / 4:
            return replace(current, checked_at=now)
        moment = whole_seconds(now)
        feed = Feed(
            domain=self._domain,
            sequence=newest,
            issued_at=moment,
            next_update=moment + self._lifetime,
            entries=tuple(stored.row.revoked for stored in self._store.revocations(now=int(now.timestamp()))),
        )
        built = _Current(feed=feed, revocations=RevocationSet(feed), signed=self._signed(feed), issued_at=now, checked_at=now)
        if _nearly_full(built):
            log.warning("feed.nearly-full", entries=len(feed.entries), most=MAX_ENTRIES)
        return built

    def _signed(self, feed: Feed) -> bytes | CertauthError:
        try:
            return sign_feed(feed, self._key)
        except CertauthError as error:
            log.warning("feed.not-published", code=error.code, entries=len(feed.entries))
            return error


def _nearly_full(current: _Current) -> bool:
    size = len(current.signed) if isinstance(current.signed, bytes) else 0
    return len(current.feed.entries) >= FULL * MAX_ENTRIES or size >= FULL * MAX_FEED
