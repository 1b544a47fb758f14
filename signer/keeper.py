"""The keys and the discovery document of one provider, fetched over the network. The rules are those of ``signer.jwks``."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from certauth.errors import ConfigError, ProofError, UnavailableError
from certauth.identity.keyset import KeySet
from signer.discovery import Discovery, check_host, discovery_url
from signer.key_file import read_regular
from signer.outbound import Outbound, in_words
from signer.sources import IssuerSource, Pace, SourceStatus

_MAX_MISSING: Final = 1024
_MAX_BEARER: Final = 16 * 1024
_BEARER: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 §2.1


class NetworkKeeper:
    """The keys of one provider and everything known about the last fetch. All times are of ``ticks``."""

    def __init__(self, source: IssuerSource, outbound: Outbound, pace: Pace, ticks: Callable[[], float]) -> None:
        self._source, self._outbound, self._pace, self._ticks = source, outbound, pace, ticks
        self._keys: KeySet | None = None
        self._fetched_at = self._refresh_at = self._next_fetch = -math.inf
        self._missing: set[str] = set()
        self._failure: str | None = None
        self._discovery: Discovery | None = None
        self._first_discovery: Discovery | None = None
        self._discovered_at = -math.inf
        self._discover_again = False
        self._flight: asyncio.Task[None] | None = None

    async def keys(self, kid: str | None) -> KeySet:
        keys = self._current()
        if keys is not None and (kid is None or kid in keys.by_kid):
            if self._ticks() >= self._refresh_at and self._may_fetch():
                self._fly()
            return keys
        if not self._may_fetch():
            raise self._later(kid)
        await self.refresh()
        keys = self._current()
        if keys is None or self._failure is not None:
            raise self._later(None)
        if kid is not None and kid not in keys.by_kid:
            if len(self._missing) < _MAX_MISSING:
                self._missing.add(kid)
            raise self._unknown_key()
        return keys

    async def newer_than(self, tried: KeySet) -> KeySet | None:
        """A key set newer than ``tried``, fetched if the cooldown allows; ``None`` if there is none."""
        if self._may_fetch():
            await self.refresh()
        return self._current() if self._keys is not tried else None

    async def discovery(self) -> Discovery:
        """The provider's endpoints; known ones never wait, and are looked at again daily."""
        if self._source.jwks_uri is not None:
            raise UnavailableError(
                "no-discovery",
                "this identity provider is used without its discovery document: where its keys are is configured",
                hint="log in at another provider of the facility, or bring a token of this one",
            )
        found = self._current_discovery()
        if found is not None:
            if self._discovery_is_due() and self._may_fetch():
                self._fly()
            return found
        if not self._may_fetch():
            raise self._later(None)
        await self.refresh()
        found = self._current_discovery()
        if found is None:
            raise self._later(None)
        return found

    async def refresh(self) -> None:
        """Wait for the fetch under way, or for a new one; its outcome is in the state, never an exception."""
        # The shield: one impatient client must not end the fetch for the 299 others who wait for it.
        await asyncio.shield(self._fly())

    def status(self) -> SourceStatus:
        now, keys = self._ticks(), self._current()
        state: Literal["fresh", "stale", "none"] = "fresh"
        if keys is None:
            state = "none"
        elif now >= self._refresh_at or self._failure is not None:
            state = "stale"
        first, newest = self._first_discovery, self._discovery
        return SourceStatus(
            url=self._source.url,
            state=state,
            keys=0 if keys is None else len(keys),
            age=None if keys is None else now - self._fetched_at,
            failure=self._failure,
            next_fetch_in=max(0.0, self._next_fetch - now),
            ignored=() if keys is None else keys.ignored,
            moved=() if first is None or newest is None else newest.moved_since(first),
        )

    async def aclose(self) -> None:
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    def _current(self) -> KeySet | None:
        return self._keys if self._ticks() < self._fetched_at + self._pace.expire_after else None

    def _current_discovery(self) -> Discovery | None:
        until = self._discovered_at + self._pace.rediscover_after + self._pace.expire_after
        return self._discovery if self._ticks() < until else None

    def _discovery_is_due(self) -> bool:
        return self._discover_again or self._ticks() >= self._discovered_at + self._pace.rediscover_after

    def _may_fetch(self) -> bool:
        return self._flight is not None or self._ticks() >= self._next_fetch

    def _later(self, kid: str | None) -> ProofError | UnavailableError:
        if kid is not None and kid in self._missing:
            return self._unknown_key()
        if kid is not None and self._current() is not None and self._failure is None:
            return UnavailableError(
                "unknown-key",
                "the proof names a key that was not published when its provider was last asked",
                hint="try again later: the provider is not asked more often",
                retry_after=self._wait(),
            )
        return UnavailableError(
            "issuer-unavailable",
            f"the keys of the identity provider cannot be fetched: {self._failure}",
            hint="'certauth signer issuer check' shows what is wrong",
            retry_after=self._wait(),
        )

    def _unknown_key(self) -> ProofError:
        return ProofError(
            "unknown-key",
            "the provider publishes no key with the id that the proof names",
            hint="log in again; if it stays, the provider signs with a key that it does not publish",
            retry_after=self._wait(),
        )

    def _wait(self) -> int:
        return max(1, math.ceil(self._next_fetch - self._ticks()))

    def _fly(self) -> asyncio.Task[None]:
        if self._flight is None:
            self._flight = asyncio.get_running_loop().create_task(self._fetch())
        return self._flight

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(self._pace.timeout):  # for both requests together
                bearer = self._bearer()
                uri = await self._key_address(bearer)
                answer = await self._outbound.get(uri, bearer=bearer)
            keys = KeySet.parse(answer.body)
            if not len(keys):
                raise UnavailableError(
                    "issuer-unavailable", "it publishes no usable key", hint="'certauth signer issuer check' says why"
                )
        except Exception as error:  # noqa: BLE001 - whatever a hostile answer makes a parser raise, it is this provider's failure
            self._failure = in_words(error)
            self._discover_again = True  # a provider that moved its keys is found again through discovery
        else:
            wanted = self._pace.refresh_after if answer.max_age is None else answer.max_age
            self._keys, self._failure, self._fetched_at = keys, None, self._ticks()
            self._refresh_at = self._fetched_at + min(max(wanted, self._pace.refresh_least), self._pace.refresh_most)
            self._missing.clear()
        finally:
            self._next_fetch = self._ticks() + self._pace.cooldown
            self._flight = None

    async def _key_address(self, bearer: str | None) -> str:
        """Where the key set is: configured, or known from discovery, or found by it now."""
        source = self._source
        if source.jwks_uri is not None:
            return source.jwks_uri
        if self._discovery is None or self._discovery_is_due():
            answer = await self._outbound.get(discovery_url(source.url), bearer=bearer)
            found = Discovery.parse(answer.body, issuer=source.url, allow_loopback_http=source.allow_loopback_http)
            check_host(found.jwks_uri, "key set", issuer=source.url, listed=source.jwks_hosts)
            self._first_discovery = self._first_discovery or found
            self._discovery, self._discovered_at, self._discover_again = found, self._ticks(), False
        return self._discovery.jwks_uri

    def _bearer(self) -> str | None:
        path = self._source.bearer_file
        return None if path is None else read_bearer(path)


def read_bearer(path: Path) -> str:
    """The token for asking a provider, read anew each time: Kubernetes replaces it every hour. It is never shown.

    Raises ``ConfigError`` (``bearer-malformed``, ``file-unreadable``).
    """
    token = read_regular(path, limit=_MAX_BEARER, trusted=False).strip()
    if not _BEARER.fullmatch(token):
        raise ConfigError("bearer-malformed", f"{path} holds no bearer token", hint="it holds the token and nothing else")
    return token.decode("ascii")
