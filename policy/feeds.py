"""Where trust comes from: a domain's bundle in a file, newer ones behind ``https``, and its revocation feed in either.

A ``Source`` belongs to one trust domain and remembers the newest thing it accepted, so that neither the bundle nor the feed
ever goes back to an earlier sequence: whoever can replace a file or answer for a server must not revive what was withdrawn.
What cannot be reached, read or verified leaves the last good copy in force and is told in ``problem``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from certauth.bundles import MAX_BUNDLE, TrustBundle, TrustEntry
from certauth.errors import CertauthError, ConfigError, LogError, UnavailableError
from certauth.names import TrustDomain
from certauth.revocation import MAX_FEED, Feed, RevocationSet, open_feed
from policy.bundle_source import BundleServer, same_anchors
from policy.fetching import DEADLINE, Fetcher, NotFetchedError, TooLongError

BUNDLE_REFRESH = 5.0
"""Seconds between two looks at the bundle of a domain without a feed."""
STALE_READING = timedelta(hours=1)
"""How long reading goes on after a domain's revocations stopped being fresh: an outage, not a way around them."""

_LOOK = "what was known stays in force until it is stale; fetch it by hand, curl -v, and tell those who run that facility"

Stamp = tuple[int, int, int, int]


class Standing(StrEnum):
    """What the age of a domain's revocations allows."""

    FRESH = "fresh"
    STALE = "stale"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainTrust:
    """What is in force for one domain."""

    entry: TrustEntry
    revocations: RevocationSet | None
    exempt: bool
    """The entry says that this domain has no feed."""
    fresh_until: datetime | None
    """``None``: the set is always current (it comes from the signer's own database)."""
    stale_reading: timedelta = STALE_READING
    """How long after ``fresh_until`` what is known still counts for reading."""

    def standing(self, now: datetime) -> Standing:
        if self.exempt:
            return Standing.FRESH
        if self.revocations is None:
            return Standing.UNKNOWN
        if self.fresh_until is None or now < self.fresh_until:
            return Standing.FRESH
        return Standing.STALE if now - self.fresh_until < self.stale_reading else Standing.UNKNOWN

    def means_the_same(self, other: DomainTrust) -> bool:
        """Whether nothing but the moment until which it is fresh has changed."""
        return self.entry is other.entry and self.revocations is other.revocations


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedAddress:
    """Where a domain's revocations are, how often to look (seconds), and how old they may get at most."""

    location: str | Path
    """An ``https`` URL, or a file."""
    ca_file: Path | None
    refresh: float
    max_age: timedelta | None
    """``None``: as old as the feed itself allows."""
    stale_reading: timedelta = STALE_READING
    """How long reading goes on after that."""
    deadline: float = DEADLINE
    """Seconds for a whole fetch."""


class Source:
    """The bundle and the feed of one domain, as last accepted. Whoever refreshes it holds ``lock``."""

    def __init__(
        self,
        *,
        domain: TrustDomain,
        bundle_path: Path,
        entry_for: Callable[[TrustBundle], TrustEntry],
        feed: FeedAddress | None,
        allow_example_keys: bool,
        server: BundleServer | None = None,
    ) -> None:
        """``server`` is where newer bundles than the file's come from; ``None``: from the file alone.

        Raises ``ConfigError`` if the bundle cannot be used: at the start there is no last good copy to fall back on.
        """
        self.domain = domain
        self.lock = threading.Lock()
        self.feed = feed
        self.problem: CertauthError | None = None
        """What the last refresh could not do; ``None`` if all is well."""
        self.server = server
        self._entry_for = entry_for
        self._bundle_path = bundle_path
        self._allow_example_keys = allow_example_keys
        self._fetcher = _fetcher(feed)
        self._stamp = stamp_of(bundle_path)
        self._pinned = self._read_bundle()
        self.entry = entry_for(self._pinned)
        self.newest: Feed | None = None
        self.revocations: RevocationSet | None = None

    @property
    def fresh_until(self) -> datetime | None:
        """When silence begins to count as an attack; ``None`` before the first feed."""
        if self.newest is None or self.feed is None:
            return None
        allowed, cap = self.newest.next_update, self.feed.max_age
        return allowed if cap is None else min(allowed, self.newest.issued_at + cap)

    @property
    def interval(self) -> float:
        """Seconds between two looks."""
        return BUNDLE_REFRESH if self.feed is None else self.feed.refresh

    def in_force(self) -> DomainTrust:
        """What requests are decided under from now on."""
        return DomainTrust(
            entry=self.entry,
            revocations=self.revocations,
            exempt=self.feed is None,
            fresh_until=self.fresh_until,
            stale_reading=STALE_READING if self.feed is None else self.feed.stale_reading,
        )

    def read_new_bundle(self) -> TrustEntry | None:
        """A new entry if the bundle's file has changed to something acceptable, else ``None``."""
        try:
            stamp = stamp_of(self._bundle_path)
            if stamp == self._stamp:
                return None
            bundle = self._read_bundle()
            if self._is_behind(bundle):
                self._stamp, self._pinned = stamp, bundle
                return None
            if bundle.sequence < self.entry.bundle.sequence:
                raise ConfigError(
                    "bundle-rollback",
                    f"{self._bundle_path} has sequence {bundle.sequence}; {self.entry.bundle.sequence} was already in force",
                    hint="put the newest bundle of that facility there; an older one could bring back what was withdrawn",
                )
        except CertauthError as error:
            self.problem = error
            return None
        self._stamp = stamp
        return self._entry_for(bundle)

    def newer_bundle(self, data: bytes, server: BundleServer) -> TrustEntry | None:
        """An entry with what the server said, if that is newer; ``None`` if it is no news. Raises as ``BundleServer.read``."""
        bundle = server.read(data, pinned=self._pinned, current=self.entry.bundle)
        return None if bundle is None else self._entry_for(bundle)

    def accept_bundle(self, entry: TrustEntry, *, from_file: bool) -> None:
        """Put a new bundle in force. Connections made under the old one's authorities are not used again."""
        self.entry = entry
        if from_file:
            self._pinned = entry.bundle
        self.close()

    def refresh_feed(self, now: datetime) -> None:
        """Look for a newer feed; what is wrong with it goes to ``problem``, and the last good one stays."""
        if self.feed is None:
            return
        try:
            feed = open_feed(
                self._read_feed(self.feed),
                key=self.entry.bundle.feed_key,
                domain=self.domain,
                newest_sequence=self.newest.sequence if self.newest else 0,
                now=now,
            )
            if self.newest is not None:
                _refuse_equivocation(self.newest, feed)
        except CertauthError as error:
            self.problem = error
            return
        if self.newest is None or feed.sequence > self.newest.sequence:
            self.newest, self.revocations = feed, RevocationSet(feed)
        elif feed.issued_at > self.newest.issued_at:
            self.newest = feed  # "still so": nothing else is withdrawn, and we know it for longer

    def close(self) -> None:
        """Close the connection to the feed's server."""
        if self._fetcher is not None:
            self._fetcher.close()

    def _is_behind(self, bundle: TrustBundle) -> bool:
        """Whether a file is older than what the server said since, and says nothing else: that is how it is meant to be."""
        newest, pinned = self.entry.bundle.sequence, self._pinned
        return pinned.sequence <= bundle.sequence < newest and same_anchors(bundle, pinned)

    def _read_bundle(self) -> TrustBundle:
        bundle = TrustBundle.parse(_read_file(self._bundle_path, MAX_BUNDLE), allow_example_keys=self._allow_example_keys)
        if bundle.domain != self.domain:
            raise ConfigError(
                "bundle-domain",
                f"{self._bundle_path} is the bundle of {bundle.domain}, but its entry says {self.domain}",
                hint="name the file of the other domain, or correct the name of the entry",
            )
        return bundle

    def _read_feed(self, feed: FeedAddress) -> bytes:
        if self._fetcher is None:
            return _read_file(Path(feed.location), MAX_FEED)
        try:
            return self._fetcher.fetch(self.entry.bundle)
        except TooLongError as error:
            raise LogError("feed-too-large", f"no newer feed: {error}", hint=_LOOK) from error
        except NotFetchedError as error:
            raise UnavailableError("feed-unavailable", f"no newer feed: {error}", hint=_LOOK) from error


def _fetcher(feed: FeedAddress | None) -> Fetcher | None:
    if feed is None or isinstance(feed.location, Path):
        return None
    return Fetcher(feed.location, ca_file=feed.ca_file, limit=MAX_FEED, deadline=feed.deadline)


def _refuse_equivocation(old: Feed, new: Feed) -> None:
    """One sequence means one content, but for entries that have run out since; else the signer speaks with two tongues."""
    if new.sequence != old.sequence:
        return
    before, after = set(old.entries), set(new.entries)
    now = new.issued_at.timestamp()
    if after - before or any(entry.expires_at is None or entry.expires_at > now for entry in before - after):
        raise LogError(
            "feed-equivocates",
            f"two different feeds of {new.domain} have sequence {new.sequence}",
            hint="keep both and ask that facility: its signer, or somebody with its feed key, says two things at once",
        )


def stamp_of(path: Path) -> Stamp | None:
    """What changes when a file does, even if it is replaced within one tick of the clock by one of the same size."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read_file(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        hint = "make it readable for the user that runs the service"
        raise ConfigError("unreadable", f"cannot read {path}: {error.strerror}", hint=hint) from error
    if len(data) > limit:
        raise ConfigError("unreadable", f"{path} is larger than {limit} bytes", hint="check that the path is the right one")
    return data
