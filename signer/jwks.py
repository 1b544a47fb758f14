"""Where the keys of identity providers come from: discovery and JWKS over HTTPS, or a file; one keeper per provider.

What holds, for each provider on its own - keepers share no state, so a provider that is down or lies affects no other:

1. At most one fetch is under way; whoever needs its outcome waits for it, and a waiter who gives up does not end it.
2. A known key id never waits: keys that have grown old are refreshed behind the request.
3. After every fetch, good or bad, there is none for ``cooldown`` seconds. An unknown key id, or a bad signature under a known
   one (a reused id), causes at most one fetch per cooldown; where a fetch was withheld the answer is *later*, not *no*.
4. Keys outlive a failing provider for ``expire_after`` seconds and no longer.
5. One deadline covers a whole fetch; a body ends at 256 KiB and a key set at 64 keys; redirects, compression and proxies of the
   environment are not used (``signer.outbound``).
6. The discovery document must name the configured issuer to the letter, and its key set must be on the same host and port or
   on a listed one. It is read again daily; endpoints that moved meanwhile are named in ``status``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from certauth.errors import ProofError
from certauth.identity.keyset import KeySet
from signer.discovery import Discovery
from signer.keeper import NetworkKeeper
from signer.key_file import FileKeeper
from signer.outbound import Outbound
from signer.sources import IssuerSource, Pace, SourceStatus

__all__ = ["Discovery", "IssuerSource", "KeySource", "Pace", "SourceStatus"]

T = TypeVar("T")


class KeySource:
    """The keys of all configured providers; lives in one event loop and is closed with ``aclose``."""

    def __init__(
        self, sources: Iterable[IssuerSource], *, pace: Pace | None = None, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is fetched yet.

        Raises ``ConfigError``: ``issuer-invalid``, ``ca-file-unreadable``, ``proxy-invalid``, ``file-unreadable``,
        ``file-open``.
        """
        pace = pace or Pace()
        self._outbound: dict[str, Outbound] = {}
        self._keepers: dict[str, NetworkKeeper | FileKeeper] = {}
        for source in sources:
            source.check()
            outbound = Outbound(ca_file=source.ca_file, proxy=source.proxy, timeout=pace.timeout)
            self._outbound[source.url] = outbound
            if source.jwks_file is not None:
                self._keepers[source.url] = FileKeeper(source, source.jwks_file, pace, ticks)
            else:
                self._keepers[source.url] = NetworkKeeper(source, outbound, pace, ticks)

    async def keys(self, issuer_url: str, kid: str | None) -> KeySet:
        """The provider's key set, which contains ``kid`` if one is named.

        Raises ``ProofError`` (``unknown-issuer``; ``unknown-key``: looked for and not there) or ``UnavailableError``
        (``issuer-unavailable``; ``unknown-key``: not looked for again yet), with ``retry_after`` seconds.
        """
        return await self._keeper(issuer_url).keys(kid)

    async def verified(self, issuer_url: str, kid: str | None, check: Callable[[KeySet], T]) -> T:
        """``check`` applied to the provider's keys; once more, with new keys, if the first finds a bad signature.

        Some providers replace a key and keep its id. Raises what ``keys`` and ``check`` raise.
        """
        keeper = self._keeper(issuer_url)
        keys = await keeper.keys(kid)
        try:
            return check(keys)
        except ProofError as error:
            if error.code != "bad-signature":
                raise
            newer = await keeper.newer_than(keys)
            if newer is None:
                raise
        return check(newer)

    async def discovery(self, issuer_url: str) -> Discovery:
        """The provider's endpoints and abilities, as its discovery document says.

        Raises ``ProofError`` (``unknown-issuer``) or ``UnavailableError`` (``issuer-unavailable``, with ``retry_after``;
        ``no-discovery``: its keys are configured, so it is never asked).
        """
        return await self._keeper(issuer_url).discovery()

    def outbound(self, issuer_url: str) -> Outbound:
        """How the provider is reached: with its CA file and its proxy. Raises ``ProofError`` (``unknown-issuer``)."""
        self._keeper(issuer_url)
        return self._outbound[issuer_url]

    async def warm(self) -> None:
        """Fetch every provider's keys at once, so that the first login does not wait; failures show in ``status``."""
        await asyncio.gather(*(keeper.refresh() for keeper in self._keepers.values()))

    def status(self) -> tuple[SourceStatus, ...]:
        """How each provider's keys are; no provider's state makes the whole service unready."""
        return tuple(keeper.status() for keeper in self._keepers.values())

    async def aclose(self) -> None:
        """End fetches under way."""
        await asyncio.gather(*(keeper.aclose() for keeper in self._keepers.values()))

    def _keeper(self, issuer_url: str) -> NetworkKeeper | FileKeeper:
        try:
            return self._keepers[issuer_url]
        except KeyError as error:
            raise ProofError(
                "unknown-issuer",
                "the proof comes from an identity provider that is not configured",
                hint="log in at a provider that the facility lists",
            ) from error
