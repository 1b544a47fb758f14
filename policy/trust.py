"""Whom this door believes: one trust entry per domain, what each domain has withdrawn, and how fresh that knowledge is.

``Trust`` is loaded from ``trust.toml`` (``docs/specification/policy-document.md``) or made in code, and refreshes itself
between ``start()`` and ``stop()``. Deciding never waits for it: ``state`` is immutable and replaced as a whole; a request is
decided under the one it began with. ``generation`` grows with every change of any part; whatever is cached carries it.

Freshness of a domain's revocations, and what it means (``Standing``):

    fresh     decide
    stale     no newer feed in time: reading may go on for ``stale_reading`` seconds, everything else is denied
    unknown   none in that time either, or none was ever accepted: everything is denied, unless the entry says
              ``feed = "none"`` in so many words

The attesters of the document are looked at again as well; its ``[[domain]]`` tables are read at the start only.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType

from certauth.bundles import TrustEntry, VerifiedPeer
from certauth.certificates import dump_chain
from certauth.clock import Clock, system_clock
from certauth.errors import CertauthError, ConfigError
from certauth.names import TrustDomain
from certauth.revocation import RevocationKind, RevocationSet, Revoked
from certauth.tokens.datalog import KeyRef
from certauth.tokens.verify import TrustedAttester, TrustedTokenKey, VerifiedToken
from policy.attesters import by_key
from policy.bundle_source import BundleServer
from policy.feeds import BUNDLE_REFRESH, DomainTrust, Source, Standing
from policy.trust_file import TrustFile

logger = logging.getLogger("policy.trust")

Revocations = Callable[[TrustDomain], RevocationSet | None]
Wait = Callable[[threading.Event], bool]
"""Waits until the next look is due, or until the event is set; whether it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustState:
    """Everything believed at one moment. Immutable."""

    generation: int
    domains: Mapping[TrustDomain, DomainTrust]
    entries: Mapping[TrustDomain, TrustEntry]
    token_keys: Mapping[str, TrustedTokenKey]
    tainted: frozenset[str]
    """Ids of token keys that their facilities' bundles have withdrawn."""
    attesters: Mapping[KeyRef, TrustedAttester]

    def standing(self, domain: TrustDomain, now: datetime) -> Standing:
        """How fresh a domain's revocations are; ``UNKNOWN`` for a domain that is not trusted at all."""
        found = self.domains.get(domain)
        return Standing.UNKNOWN if found is None else found.standing(now)

    def certificate_revoked(self, peer: VerifiedPeer) -> Revoked | None:
        """The withdrawal that covers a certificate, by the word of its own domain only."""
        found = self.domains[peer.principal.domain].revocations
        return None if found is None else found.certificate(peer)

    def token_revoked(self, token: VerifiedToken) -> Revoked | None:
        """The withdrawal that covers a token or any of its blocks.

        By the word of the domain whose key signed it; but who vouched can take back having vouched, and a certificate that the
        token was handed over to may be anybody's: its fingerprint does not say whose, so every domain's word counts.
        """
        found = self.domains[token.domain].revocations
        if found is not None:
            revoked = found.token(
                kid=token.kid,
                jti=token.jti,
                user=token.user,
                issued_at=token.issued_at,
                block_ids=token.block_ids,
                certificates=token.chain,
            )
            if revoked is not None:
                return revoked
        if not token.hand_overs and not token.attestations:
            return None
        return self._withdrawn_by_others(token)

    def _withdrawn_by_others(self, token: VerifiedToken) -> Revoked | None:
        feeds = [domain.revocations for domain in self.domains.values() if domain.revocations is not None]
        for feed in feeds:
            for certificate in token.delegated_to:
                if revoked := feed.named(RevocationKind.CERTIFICATE, certificate):
                    return revoked
        for attestation in token.attestations:
            vouching = self.domains.get(self.attesters[attestation.key].domain)
            if vouching is not None and vouching.revocations is not None:
                block = token.block_ids[attestation.block]
                if revoked := vouching.revocations.named(RevocationKind.BLOCK, block):
                    return revoked
        return None


class Trust:
    """The trust of one door, kept current. Safe to use from any thread."""

    def __init__(
        self,
        domains: Iterable[DomainTrust],
        *,
        sources: tuple[Source, ...],
        clock: Clock,
        revocations: Revocations | None,
        attesters: Iterable[TrustedAttester],
        file: TrustFile | None = None,
    ) -> None:
        """Not for callers: use ``load`` or ``of``."""
        found = {domain.entry.bundle.domain: domain for domain in domains}
        self._state = _state(found, by_key(attesters), generation=1)
        self._file = file
        self._sources = sources
        self._clock = clock
        self._revocations = revocations
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads: tuple[threading.Thread, ...] = ()

    @classmethod
    def load(cls, path: Path | str, *, clock: Clock = system_clock, allow_example_keys: bool = False) -> Trust:
        """Read ``trust.toml`` and the files it names; paths in it are relative to it.

        Raises ``ConfigError`` for a document or bundle that is wrong, ``KeyMaterialError`` (``example-key``). A feed that is
        wrong or missing is no error here: what it would say stays unknown, and requests are denied until it is there.
        """
        file = TrustFile(Path(path), allow_example_keys=allow_example_keys)
        now = clock()
        for source in file.sources:
            if source.feed is not None and isinstance(source.feed.location, Path):
                source.refresh_feed(now)
        return cls(
            [source.in_force() for source in file.sources],
            sources=file.sources,
            clock=clock,
            revocations=None,
            attesters=file.attesters,
            file=file,
        )

    @classmethod
    def of(
        cls, entries: Iterable[TrustEntry], *, revocations: Revocations | None, attesters: Iterable[TrustedAttester] = ()
    ) -> Trust:
        """Trust made in code.

        ``revocations`` is asked for a domain's current set at every use and must be quick and thread-safe; ``None`` from it
        means unknown. ``revocations=None`` means that nothing is ever withdrawn. Raises ``ConfigError`` (``kid-conflict``,
        ``attester-conflict``).
        """
        domains = [
            DomainTrust(entry=entry, revocations=None, exempt=revocations is None, fresh_until=None) for entry in entries
        ]
        return cls(domains, sources=(), clock=system_clock, revocations=revocations, attesters=attesters)

    @property
    def state(self) -> TrustState:
        """What is believed now. Take it once per request."""
        ask = self._revocations
        if ask is not None:
            changed = [
                replace(found, revocations=current)
                for domain, found in self._state.domains.items()
                if (current := ask(domain)) is not found.revocations
            ]
            if changed:
                self._put(*changed)
        return self._state

    @property
    def generation(self) -> int:
        """Grows with every change of any bundle, feed or attester."""
        return self.state.generation

    @property
    def problems(self) -> Mapping[TrustDomain | Path, CertauthError]:
        """For each domain whose last refresh failed, and for the document itself, why; for health checks and logs."""
        found: dict[TrustDomain | Path, CertauthError] = {}
        for source in self._sources:
            fetching = None if source.server is None else source.server.problem
            if problem := source.problem or fetching:
                found[source.domain] = problem
        if self._file is not None and self._file.problem is not None:
            found[self._file.path] = self._file.problem
        return found

    def client_roots(self) -> bytes:
        """Every domain's authorities as PEM, for a server to verify handshakes against.

        Only a first sieve: which of them may vouch for a certificate is decided per domain, on each request.
        """
        bundles = [entry.bundle for entry in self.state.entries.values()]
        return dump_chain([authority for bundle in bundles for authority in (*bundle.x509_roots, *bundle.x509_issuers)])

    def refresh(self) -> None:
        """Look at every bundle and feed, and at the attesters, now. Blocks for the network.

        Never raises for what it finds (see ``problems``).
        """
        for source in self._sources:
            self._refresh(source)
            if source.server is not None:
                self._fetch_bundle(source, source.server)
        self._refresh_attesters()

    def call_for_bundles(self) -> None:
        """A token came whose key nobody here knows: it may be a new one, so look for newer bundles soon. Does not wait."""
        for source in self._sources:
            if source.server is not None:
                source.server.call()

    def start(self) -> None:
        """Begin refreshing, a thread for each feed and each server of bundles, so that none delays another.

        A second call does nothing.
        """
        with self._lock:
            if not self._threads:
                self._stopping = threading.Event()
                self._threads = tuple(
                    threading.Thread(target=self._watch, args=(what, refresh, wait, self._stopping), name=what, daemon=True)
                    for what, refresh, wait in self._watched()
                )
                for thread in self._threads:
                    thread.start()

    def stop(self) -> None:
        """End the threads, waiting for a fetch under way, and close their connections. ``start`` may follow."""
        with self._lock:
            threads, self._threads = self._threads, ()
            self._stopping.set()
        self.call_for_bundles()  # ends their waiting
        for thread in threads:
            thread.join()
        for source in self._sources:
            with source.lock:
                source.close()

    def _watched(self) -> Iterable[tuple[str, Callable[[], None], Wait]]:
        """What is refreshed on its own, by what, and the wait in between."""
        for source in self._sources:
            pause = partial(threading.Event.wait, timeout=source.interval)
            yield f"trust {source.domain}", partial(self._refresh, source), pause
            if source.server is not None:
                yield f"trust bundle {source.domain}", partial(self._fetch_bundle, source, source.server), source.server.wait
        if self._file is not None:
            yield "trust attesters", self._refresh_attesters, partial(threading.Event.wait, timeout=BUNDLE_REFRESH)

    def _watch(self, what: str, refresh: Callable[[], None], wait: Wait, stopping: threading.Event) -> None:
        while True:
            try:
                refresh()
            except Exception:
                # What is known grows stale and writes are denied, but the thread must be there when all is well again.
                logger.exception("%s could not be refreshed", what)
            if wait(stopping):
                return

    def _refresh(self, source: Source) -> None:
        with source.lock:
            source.problem = None
            bundle = source.read_new_bundle()
            if bundle is not None:
                try:
                    self._accept_bundle(source, bundle, from_file=True)
                except ConfigError as error:
                    source.problem = error
            source.refresh_feed(self._clock())
            self._put(source.in_force())

    def _fetch_bundle(self, source: Source, server: BundleServer) -> None:
        with server.lock:
            try:
                data = server.fetch(source.entry.bundle)  # without the source's lock: its feed must not wait for this server
                with source.lock:
                    entry = source.newer_bundle(data, server)
                    if entry is not None:
                        self._accept_bundle(source, entry, from_file=False)
            except CertauthError as error:
                server.report(error)
            else:
                server.report(None)

    def _refresh_attesters(self) -> None:
        if self._file is not None:
            with self._file.lock:
                attesters = self._file.read_new_attesters()
                if attesters is not None:
                    self._put(attesters=attesters)

    def _accept_bundle(self, source: Source, entry: TrustEntry, *, from_file: bool) -> None:
        """Raises ``ConfigError`` (``kid-conflict``) with everything as it was."""
        self._put(replace(source.in_force(), entry=entry))
        source.accept_bundle(entry, from_file=from_file)

    def _put(self, *changed: DomainTrust, attesters: Mapping[KeyRef, TrustedAttester] | None = None) -> None:
        """Put a new state in force. A feed that only says "still so" moves its own end, but not the generation."""
        with self._lock:
            old = self._state
            domains = {**old.domains, **{found.entry.bundle.domain: found for found in changed}}
            known = old.attesters if attesters is None else attesters
            same = known == old.attesters and all(one.means_the_same(old.domains[name]) for name, one in domains.items())
            self._state = _state(domains, known, generation=old.generation if same else old.generation + 1)


def _state(
    domains: Mapping[TrustDomain, DomainTrust], attesters: Mapping[KeyRef, TrustedAttester], *, generation: int
) -> TrustState:
    entries = {domain: found.entry for domain, found in domains.items()}
    return TrustState(
        generation=generation,
        domains=MappingProxyType(dict(domains)),
        entries=MappingProxyType(entries),
        token_keys=MappingProxyType(_token_keys(entries.values())),
        tainted=frozenset(kid for entry in entries.values() for kid in entry.bundle.tainted_kids),
        attesters=attesters,
    )


def _token_keys(entries: Iterable[TrustEntry]) -> dict[str, TrustedTokenKey]:
    """Every token root key by its id.

    Ids are four bytes, so a facility could search for a key whose id is that of another's. ``ConfigError`` (``kid-conflict``):
    with two keys under one id, one would silently take the other's place.
    """
    keys: dict[str, TrustedTokenKey] = {}
    for entry in entries:
        for root in entry.bundle.believed_token_roots:
            if root.kid in keys:
                raise ConfigError(
                    "kid-conflict",
                    f"token key {root.kid} is claimed by {keys[root.kid].domain} and {entry.bundle.domain}",
                    hint="ask both: one of them has to make another token key, or trust only one of them",
                )
            keys[root.kid] = TrustedTokenKey(
                kid=root.kid, key=root.key, issuer=f"spiffe://{entry.bundle.domain}", domain=entry.bundle.domain
            )
    return keys
