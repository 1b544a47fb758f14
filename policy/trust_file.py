"""``trust.toml``: its format, what is read of it at the start, and its attesters, which are read again while the door works."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from certauth.bundles import TrustBundle, TrustEntry
from certauth.errors import CertauthError, ConfigError, RequestError
from certauth.names import Kind, TrustDomain
from certauth.tokens.datalog import KeyRef
from certauth.tokens.verify import TrustedAttester
from policy.attesters import AttesterTable, attester_of, by_key
from policy.bundle_source import BundleServer
from policy.documents import Model, parse_document, read_document
from policy.feeds import STALE_READING, FeedAddress, Source, stamp_of

logger = logging.getLogger("policy.trust")

NONE = "none"


class _Domain(Model):
    name: str
    bundle: str
    bundle_url: str = NONE
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


class TrustFile:
    """The document on disk, as last accepted. Whoever reads it again holds ``lock``.

    A document that is wrong, or whose ``[[domain]]`` tables are others than at the start, is told in ``problem`` and once in
    the log. Of the latter the attesters are taken all the same: an attester that an admin took out must not go on vouching.
    """

    def __init__(self, path: Path, *, allow_example_keys: bool) -> None:
        """Raises as ``Trust.load`` does: at the start there is no last good copy to fall back on."""
        self.path = path
        self.lock = threading.Lock()
        self.problem: CertauthError | None = None
        """What the last look could not do; ``None`` if all is well."""
        self._stamp = stamp_of(path)
        self._lasting: CertauthError | None = None
        document = self._read()
        self._domains = document.domain
        self.attesters = [*self._attesters_of(document).values()]
        self.sources = tuple(
            _source(table, f"{path}: domain[{number}]", path.parent, allow_example_keys=allow_example_keys)
            for number, table in enumerate(document.domain, 1)
        )
        if len({source.domain for source in self.sources}) != len(self.sources):
            raise ConfigError("trust-invalid", f"{path} names a domain twice", hint="one [[domain]] each")

    def read_new_attesters(self) -> Mapping[KeyRef, TrustedAttester] | None:
        """The attesters, if the file has changed to something acceptable, else ``None``: the old ones stay."""
        stamp = stamp_of(self.path)
        if stamp == self._stamp:
            self._report(self._lasting)
            return None
        try:
            document = self._read()
            attesters = self._attesters_of(document)
        except CertauthError as error:
            self._report(error)
            return None
        self._stamp = stamp
        self._lasting = None if document.domain == self._domains else _needs_a_restart(self.path)
        self._report(self._lasting)
        return attesters

    def _read(self) -> _Document:
        return parse_document(read_document(self.path), _Document, where=str(self.path), code="trust-invalid")

    def _attesters_of(self, document: _Document) -> Mapping[KeyRef, TrustedAttester]:
        return by_key(
            attester_of(table, f"{self.path}: attester[{number}]") for number, table in enumerate(document.attester, 1)
        )

    def _report(self, problem: CertauthError | None) -> None:
        if problem is not None and str(problem) != str(self.problem):
            logger.warning("%s is not in force as it is written: %s", self.path, problem)
        self.problem = problem


def _needs_a_restart(path: Path) -> ConfigError:
    return ConfigError(
        "restart-needed",
        f"{path}: the [[domain]] tables have changed, and are read at the start only",
        hint="restart the service; the attesters are in force already",
    )


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
        server=_bundle_server(table, where, base, allow_example_keys=allow_example_keys),
    )


def _bundle_server(table: _Domain, where: str, base: Path, *, allow_example_keys: bool) -> BundleServer | None:
    if table.bundle_url == NONE:
        return None
    if not _is_https(table.bundle_url):
        raise ConfigError(
            "trust-invalid",
            f"{where}.bundle_url: {table.bundle_url!r} cannot have newer bundles",
            hint='an https URL, or "none": then they come from the file only',
        )
    return BundleServer(table.bundle_url, ca_file=_feed_ca(table, base), allow_example_keys=allow_example_keys)


def _feed_address(table: _Domain, where: str, base: Path) -> FeedAddress | None:
    if table.feed == NONE:
        return None
    location: str | Path = table.feed
    if "://" not in table.feed:
        location = base / table.feed
    elif not _is_https(table.feed):
        raise ConfigError(
            "trust-invalid",
            f"{where}.feed: {table.feed!r} cannot be a feed",
            hint='an https URL, a file, or "none" in so many words',
        )
    return FeedAddress(
        location=location,
        ca_file=_feed_ca(table, base),
        refresh=table.feed_refresh,
        max_age=_seconds(table.feed_max_age),
        stale_reading=timedelta(seconds=table.stale_reading),
    )


def _feed_ca(table: _Domain, base: Path) -> Path | None:
    return None if table.feed_ca is None else base / table.feed_ca


def _is_https(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" and bool(parts.hostname)


def _seconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
