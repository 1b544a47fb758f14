"""How identity providers are reached and how their keys stand: the settings of ``signer.jwks``, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from certauth.errors import ConfigError
from certauth.identity.issuers import check_issuer_url, check_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often and how long, in seconds. ``refresh_after`` yields to the provider's max-age between the two limits."""

    timeout: float = 5
    cooldown: float = 30
    refresh_after: float = 3600
    refresh_least: float = 300
    refresh_most: float = 6 * 3600
    rediscover_after: float = 24 * 3600
    expire_after: float = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSource:
    """Where one provider's keys are.

    By default in the key set that the discovery document of ``url`` names, on the same host or one of ``jwks_hosts`` (``host``,
    port 443, or ``host:port``). ``jwks_uri`` skips discovery; ``jwks_file`` uses a file and no network at all.
    ``ca_file`` (default: the system's roots) and ``proxy`` (default: none, whatever the environment says) are for reaching it.
    ``bearer_file`` holds a token sent with discovery and key set requests, read anew for each (Kubernetes).
    ``allow_loopback_http`` is for trying things out.
    """

    url: str
    ca_file: Path | None = None
    jwks_hosts: frozenset[str] = frozenset()
    jwks_file: Path | None = None
    jwks_uri: str | None = None
    bearer_file: Path | None = None
    proxy: str | None = None
    allow_loopback_http: bool = False

    def check(self) -> None:
        """Raise ``ConfigError`` (``issuer-invalid``) for what could never be safe, or says two things at once."""
        check_issuer_url(self.url, allow_loopback_http=self.allow_loopback_http)
        if self.jwks_uri is not None:
            check_url(self.jwks_uri, allow_loopback_http=self.allow_loopback_http)
        if self.jwks_file is not None and (self.jwks_uri is not None or self.bearer_file is not None):
            raise ConfigError(
                "issuer-invalid",
                f"issuer {self.url!r}: its keys are in a file, so there is nothing to fetch with jwks_uri or bearer_file",
                hint="keep jwks_file, or the others",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """How one provider's keys are, for readiness and metrics; ages and waits are in seconds.

    ``fresh``: as it should be. ``stale``: served from before, refresh overdue. ``none``: logins through it must wait.
    ``moved``: endpoints that are elsewhere than when this process first saw them.
    """

    url: str
    state: Literal["fresh", "stale", "none"]
    keys: int
    age: float | None
    failure: str | None
    next_fetch_in: float
    ignored: tuple[str, ...]
    moved: tuple[str, ...] = ()
