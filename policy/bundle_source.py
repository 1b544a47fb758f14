"""Newer bundles of a domain, from a server: so that a facility can replace its token keys without a word to any door.

A bundle is not signed. What comes from a server is therefore believed only within what the owner put into the file: the roots,
the key of the feed and the key of the log must be those of the file. Whoever can answer for the server can add and withdraw
token keys and intermediates, and nothing else; new roots are a new file, by hand.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from cryptography import x509

from certauth.bundles import MAX_BUNDLE, TrustBundle
from certauth.errors import CertauthError, ConfigError, UnavailableError
from certauth.keys import raw
from policy.fetching import DEADLINE, Fetcher, NotFetchedError

logger = logging.getLogger("policy.trust")

SOONEST, LATEST = 60.0, 3600.0
"""Bounds of the seconds between two looks, whatever a bundle's ``refresh_hint`` says; after a failure it is the former."""
BETWEEN = 30.0
"""Seconds between two looks, even if a token with an unknown key calls for one: anybody can write such tokens."""


class BundleServer:
    """Where a domain's newer bundles come from. Whoever looks there holds ``lock``."""

    def __init__(self, url: str, *, ca_file: Path | None, allow_example_keys: bool = False, deadline: float = DEADLINE) -> None:
        self.url = url
        self.lock = threading.Lock()
        self.problem: CertauthError | None = None
        """What the last look could not do; ``None`` if all is well."""
        self._fetcher = Fetcher(url, ca_file=ca_file, limit=MAX_BUNDLE, deadline=deadline)
        self._allow_example_keys = allow_example_keys
        self._called = threading.Event()
        self._refresh_hint = SOONEST

    def fetch(self, trusted: TrustBundle) -> bytes:
        """What the server says, which is not believed yet. Raises ``UnavailableError`` (``bundle-unavailable``)."""
        try:
            return self._fetcher.fetch(trusted)
        except NotFetchedError as error:
            hint = "the bundle from before stays in force; fetch it by hand, curl -v, and tell those who run that facility"
            raise UnavailableError("bundle-unavailable", f"no newer bundle: {error}", hint=hint) from error
        finally:
            self._fetcher.close()  # the next look is minutes away

    def read(self, data: bytes, *, pinned: TrustBundle, current: TrustBundle) -> TrustBundle | None:
        """The bundle in ``data`` if it is newer than ``current``, ``None`` if it is the same.

        Raises ``ConfigError`` (``bundle-malformed``, ``bundle-domain``, ``bundle-roots-changed``, ``bundle-rollback``,
        ``bundle-equivocates``) and ``KeyMaterialError`` (``example-key``).
        """
        bundle = TrustBundle.parse(data, allow_example_keys=self._allow_example_keys)
        if bundle.domain != pinned.domain:
            raise ConfigError(
                "bundle-domain",
                f"{self.url} is the bundle of {bundle.domain}, not of {pinned.domain}",
                hint="correct bundle_url in the trust document",
            )
        if not same_anchors(bundle, pinned):
            raise ConfigError(
                "bundle-roots-changed",
                f"{self.url} has other roots, or another feed or log key, than the bundle's file; these change by hand only",
                hint="ask the facility; if it did change them, compare fingerprints and put its new bundle there by hand",
            )
        self._refresh_hint = float(bundle.refresh_hint)
        if bundle.sequence < current.sequence:
            raise ConfigError(
                "bundle-rollback",
                f"{self.url} has sequence {bundle.sequence}; {current.sequence} was already in force",
                hint="ask the facility: its signer goes by an older state, or somebody else answers for it",
            )
        if bundle.sequence > current.sequence:
            return bundle
        if bundle.to_json() != current.to_json():
            raise ConfigError(
                "bundle-equivocates",
                f"{self.url} and the bundle in force both have sequence {bundle.sequence}, and differ",
                hint="ask the facility: a bundle that changes has a higher sequence",
            )
        return None

    def report(self, problem: CertauthError | None) -> None:
        """Keep what the last look could not do, and log it when it is news."""
        if problem is not None and str(problem) != str(self.problem):
            logger.warning("the bundle stays as it is: %s", problem)
        self.problem = problem

    def call(self) -> None:
        """Ask for a look as soon as may be. Costs nothing and waits for nothing."""
        self._called.set()

    def wait(self, stopping: threading.Event) -> bool:
        """Wait until the next look is due; whether to stop instead. After ``stopping`` is set, ``call`` ends the waiting."""
        if not stopping.wait(BETWEEN):
            self._called.wait(self.interval - BETWEEN)
        self._called.clear()
        return stopping.is_set()

    @property
    def interval(self) -> float:
        """Seconds until the next look, if nobody calls for one."""
        return SOONEST if self.problem is not None else min(max(self._refresh_hint, SOONEST), LATEST)


def same_anchors(one: TrustBundle, other: TrustBundle) -> bool:
    """Whether two bundles have the same anchors: all that is believed for its own sake, except for token keys."""
    return _anchors(one) == _anchors(other)


def _anchors(bundle: TrustBundle) -> tuple[frozenset[x509.Certificate], bytes, str]:
    # TLS libraries take every certificate that vouches for itself as a root, also one among the intermediates.
    self_made = (issuer for issuer in bundle.x509_issuers if issuer.issuer == issuer.subject)
    return frozenset((*bundle.x509_roots, *self_made)), raw(bundle.feed_key), bundle.log_vkey
