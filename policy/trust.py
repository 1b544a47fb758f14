"""Whom this door believes: one trust entry per domain, what each domain has withdrawn, and how fresh that knowledge is.

``Trust`` is loaded from ``trust.toml`` (``docs/specification/policy-document.md``) or made in code, and refreshes itself
between ``start()`` and ``stop()``. Deciding never waits for it: ``state`` is immutable and replaced as a whole; a request is
decided under the one it began with. ``generation`` grows with every change of any part; whatever is cached carries it.

Freshness of a domain's revocations, and what it means (``Standing``):

    fresh     decide
    stale     no newer feed in time: reading may go on for ``stale_reading`` seconds, everything else is denied
    unknown   none in that time either, or none was ever accepted: everything is denied, unless the entry says
              ``feed = "none"`` in so many words
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from certauth.bundles import TrustBundle, TrustEntry, VerifiedPeer
from certauth.certificates import dump_chain
from certauth.clock import Clock, system_clock
from certauth.errors import CertauthError, ConfigError, RequestError
from certauth.names import Kind, TrustDomain
from certauth.revocation import RevocationKind, RevocationSet, Revoked
from certauth.tokens.datalog import KeyRef
from certauth.tokens.verify import TrustedAttester, TrustedTokenKey, VerifiedToken
from policy.attesters import AttesterTable, attester_of
from policy.documents import Model, parse_document, read_document
from policy.feeds import STALE_READING, DomainTrust, FeedAddress, Source, Standing

logger = logging.getLogger("policy.trust")

NO_FEED = "none"

Revocations = Callable[[TrustDomain], RevocationSet | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustState:
    """Everything believed at one moment. Immutable."""

    generation: int
    domains: Mapping[TrustDomain, DomainTrust]
    entries: Mapping[TrustDomain, TrustEntry]
    token_keys: Mapping[str, TrustedTokenKey]
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
    ) -> None:
        """Not for callers: use ``load`` or ``of``."""
        found = {domain.entry.bundle.domain: domain for domain in domains}
        self._state = _state(found, _attesters(attesters), generation=1)
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
        path = Path(path)
        document = parse_document(read_document(path), _Document, where=str(path), code="trust-invalid")
        sources = tuple(
            _source(table, f"{path}: domain[{number}]", path.parent, allow_example_keys=allow_example_keys)
            for number, table in enumerate(document.domain, 1)
        )
        if len({source.domain for source in sources}) != len(sources):
            raise ConfigError("trust-invalid", f"{path} names a domain twice", hint="one [[domain]] each")
        now = clock()
        for source in sources:
            if source.feed is not None and isinstance(source.feed.location, Path):
                source.refresh_feed(now)
        return cls(
            [source.in_force() for source in sources],
            sources=sources,
            clock=clock,
            revocations=None,
            attesters=[attester_of(table, f"{path}: attester[{number}]") for number, table in enumerate(document.attester, 1)],
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
        """Grows with every change of any bundle or feed."""
        return self.state.generation

    @property
    def problems(self) -> Mapping[TrustDomain, CertauthError]:
        """For each domain whose last refresh failed, why; for health checks and logs."""
        return {source.domain: source.problem for source in self._sources if source.problem is not None}

    def client_roots(self) -> bytes:
        """Every domain's authorities as PEM, for a server to verify handshakes against.

        Only a first sieve: which of them may vouch for a certificate is decided per domain, on each request.
        """
        bundles = [entry.bundle for entry in self.state.entries.values()]
        return dump_chain([authority for bundle in bundles for authority in (*bundle.x509_roots, *bundle.x509_issuers)])

    def refresh(self) -> None:
        """Look at every bundle and feed now. Blocks for the network; never raises for what it finds (see ``problems``)."""
        for source in self._sources:
            self._refresh(source)

    def start(self) -> None:
        """Begin refreshing, one thread for each domain, so that a slow feed delays no other; a second call does nothing."""
        with self._lock:
            if not self._threads:
                self._stopping = threading.Event()
                self._threads = tuple(
                    threading.Thread(
                        target=self._watch, args=(source, self._stopping), name=f"trust {source.domain}", daemon=True
                    )
                    for source in self._sources
                )
                for thread in self._threads:
                    thread.start()

    def stop(self) -> None:
        """End the threads, waiting for a fetch under way, and close their connections. ``start`` may follow."""
        with self._lock:
            threads, self._threads = self._threads, ()
            self._stopping.set()
        for thread in threads:
            thread.join()
        for source in self._sources:
            with source.lock:
                source.close()

    def _watch(self, source: Source, stopping: threading.Event) -> None:
        while True:
            try:
                self._refresh(source)
            except Exception:
                # What is known grows stale and writes are denied, but the thread must be there when all is well again.
                logger.exception("the trust in %s could not be refreshed", source.domain)
            if stopping.wait(source.interval):
                return

    def _refresh(self, source: Source) -> None:
        with source.lock:
            source.problem = None
            bundle = source.read_new_bundle()
            if bundle is not None:
                self._accept_bundle(source, bundle)
            source.refresh_feed(self._clock())
            self._put(source.in_force())

    def _accept_bundle(self, source: Source, entry: TrustEntry) -> None:
        entries = {**self._state.entries, source.domain: entry}
        try:
            _token_keys(entries.values())
        except ConfigError as error:
            source.problem = error
        else:
            source.accept_bundle(entry)

    def _put(self, *changed: DomainTrust) -> None:
        """Put a new state in force. A feed that only says "still so" moves its own end, but not the generation."""
        with self._lock:
            old = self._state
            domains = {**old.domains, **{found.entry.bundle.domain: found for found in changed}}
            same = all(found.means_the_same(old.domains[domain]) for domain, found in domains.items())
            self._state = _state(domains, old.attesters, generation=old.generation if same else old.generation + 1)


def _state(
    domains: Mapping[TrustDomain, DomainTrust], attesters: Mapping[KeyRef, TrustedAttester], *, generation: int
) -> TrustState:
    entries = {domain: found.entry for domain, found in domains.items()}
    return TrustState(
        generation=generation,
        domains=MappingProxyType(dict(domains)),
        entries=MappingProxyType(entries),
        token_keys=MappingProxyType(_token_keys(entries.values())),
        attesters=attesters,
    )


def _attesters(attesters: Iterable[TrustedAttester]) -> Mapping[KeyRef, TrustedAttester]:
    """Attesters by their keys. ``ConfigError`` (``attester-conflict``): one key speaks for one domain, in one entry."""
    found: dict[KeyRef, TrustedAttester] = {}
    for attester in attesters:
        if attester.key in found:
            raise ConfigError(
                "attester-conflict",
                f"one key is to vouch for {found[attester.key].domain} and again for {attester.domain}",
                hint="one [[attester]] for each key, with all its groups",
            )
        found[attester.key] = attester
    return MappingProxyType(found)


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
                    "kid-conflict", f"token key {root.kid} is claimed by {keys[root.kid].domain} and {entry.bundle.domain}"
                )
            keys[root.kid] = TrustedTokenKey(
                kid=root.kid, key=root.key, issuer=f"spiffe://{entry.bundle.domain}", domain=entry.bundle.domain
            )
    return keys


class _Domain(Model):
    name: str
    bundle: str
    feed: str
    feed_ca: str | None = None
    feed_refresh: Annotated[int, Field(ge=1, le=3600)] = 5
    feed_max_age: Annotated[int, Field(ge=10)] | None = None
    stale_reading: Annotated[int, Field(ge=0, le=86400)] = int(STALE_READING.total_seconds())
    kinds: Annotated[tuple[Annotated[Kind, Field(strict=False)], ...], Field(strict=False, min_length=1)] = (
        Kind.USER,
        Kind.SERVICE,
        Kind.AGENT,
    )
    ids: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = ("*",)
    assurance_ceiling: Annotated[int, Field(ge=0, le=3)] = 3
    max_certificate_lifetime: Annotated[int, Field(ge=60)] | None = None


class _Document(Model):
    version: Literal[1]
    domain: Annotated[tuple[_Domain, ...], Field(strict=False, min_length=1)]
    attester: Annotated[tuple[AttesterTable, ...], Field(strict=False)] = ()


def _source(table: _Domain, where: str, base: Path, *, allow_example_keys: bool) -> Source:
    try:
        domain = TrustDomain.parse(table.name)
    except RequestError as error:
        raise ConfigError("trust-invalid", f"{where}.name: {error.message}", hint=error.hint) from error

    def entry_for(bundle: TrustBundle) -> TrustEntry:
        return TrustEntry(
            bundle=bundle,
            kinds=frozenset(table.kinds),
            ids=table.ids,
            assurance_ceiling=table.assurance_ceiling,
            max_certificate_lifetime=_seconds(table.max_certificate_lifetime),
        )

    return Source(
        domain=domain,
        bundle_path=base / table.bundle,
        entry_for=entry_for,
        feed=_feed_address(table, where, base),
        allow_example_keys=allow_example_keys,
    )


def _feed_address(table: _Domain, where: str, base: Path) -> FeedAddress | None:
    if table.feed == NO_FEED:
        return None
    location: str | Path = table.feed
    if "://" not in table.feed:
        location = base / table.feed
    elif urlsplit(table.feed).scheme != "https" or not urlsplit(table.feed).hostname:
        raise ConfigError(
            "trust-invalid",
            f"{where}.feed: {table.feed!r} cannot be a feed",
            hint='an https URL, a file, or "none" in so many words',
        )
    return FeedAddress(
        location=location,
        ca_file=None if table.feed_ca is None else base / table.feed_ca,
        refresh=table.feed_refresh,
        max_age=_seconds(table.feed_max_age),
        stale_reading=timedelta(seconds=table.stale_reading),
    )


def _seconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
