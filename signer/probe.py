"""Looking at an identity provider before it is used: what it can, what is careless about it, and the settings it needs.

Nothing secret is sent and nothing is changed there: one discovery document, one more under a made-up host name, one key set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from certauth.encoding import strict_json
from certauth.errors import UnavailableError
from certauth.identity.keyset import KeySet, VerificationKey
from signer.discovery import Discovery, authority_of, check_host, discovery_url
from signer.issuer_table import IssuerTable
from signer.keeper import read_bearer
from signer.outbound import Answer, Outbound
from signer.sources import IssuerSource, Pace

_ELSEWHERE: Final = "certauth-check.invalid"
_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA", "RS384", "RS512", "PS384", "PS512")


class Level(StrEnum):
    """How much a finding matters. With a ``FAILURE`` no login through the provider will work."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found out. ``topic`` is stable; ``text`` is for people, and may quote the provider."""

    level: Level
    topic: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known about a provider now. ``table`` is the settings it needs, unless it cannot be used."""

    url: str
    findings: tuple[Finding, ...]
    discovery: Discovery | None = None
    keys: KeySet | None = field(default=None, repr=False)
    table: IssuerTable | None = None

    @property
    def usable(self) -> bool:
        """Whether logins through it could work."""
        return all(finding.level is not Level.FAILURE for finding in self.findings)


async def probe(source: IssuerSource, *, issuer_id: str, client_id: str, pace: Pace | None = None) -> Report:
    """Ask the provider of ``source`` what it is. Raises ``ConfigError`` for settings with which nobody could be asked."""
    source.check()
    outbound = Outbound(ca_file=source.ca_file, proxy=source.proxy, timeout=(pace or Pace()).timeout)
    findings: list[Finding] = []
    discovery = await _discovery(source, outbound, findings)
    if discovery is None:
        return Report(url=source.url, findings=tuple(findings))
    findings += _abilities(discovery)
    findings += await _follows_host(source, outbound)
    keys = await _keys(source, outbound, discovery, findings)
    report = Report(url=source.url, findings=tuple(findings), discovery=discovery, keys=keys)
    if keys is None or not report.usable:
        return report
    algorithms = _algorithms(discovery, keys)
    if not algorithms:
        failure = Finding(Level.FAILURE, "algorithms", "it signs with no algorithm that is accepted here")
        return replace(report, findings=(*findings, failure))
    return replace(report, table=_table(source, discovery, algorithms, issuer_id=issuer_id, client_id=client_id))


async def _discovery(source: IssuerSource, outbound: Outbound, findings: list[Finding]) -> Discovery | None:
    url = discovery_url(source.url)
    answer = await _get(outbound, url, source, "discovery", findings)
    if answer is None:
        return None
    try:
        found = Discovery.parse(answer.body, issuer=source.url, allow_loopback_http=source.allow_loopback_http)
    except (UnavailableError, ValueError) as error:
        reason = error.message if isinstance(error, UnavailableError) else "it is not strict JSON"
        findings.append(Finding(Level.FAILURE, "discovery", f"{url}: {reason}"))
        findings += _named(answer, source)
        return None
    findings.append(Finding(Level.GOOD, "discovery", f"{url} speaks for this issuer"))
    findings += (Finding(Level.WARNING, "endpoints", f"not usable: {ignored}") for ignored in found.ignored)
    return found


async def _get(outbound: Outbound, url: str, source: IssuerSource, topic: str, findings: list[Finding]) -> Answer | None:
    try:
        return await outbound.get(url, bearer=None if source.bearer_file is None else read_bearer(source.bearer_file))
    except UnavailableError as error:
        findings.append(Finding(Level.FAILURE, topic, f"{url}: {error.message}"))
        return None


def _named(answer: Answer, source: IssuerSource) -> Iterable[Finding]:
    """For whom the document speaks instead, if it does: most often the same URL, spelt otherwise."""
    try:
        document = strict_json(answer.body)
    except ValueError:
        return
    match document:
        case {"issuer": str(named)} if "{tenantid}" in named:
            text = "it speaks for every tenant at once; give the URL of yours, https://login.microsoftonline.com/TENANT-ID/v2.0"
            yield Finding(Level.NOTE, "issuer", text)
        case {"issuer": str(named)} if named != source.url:
            yield Finding(
                Level.NOTE, "issuer", f"it speaks for {named[:200]}; if that is the one you mean, give it to the letter"
            )
        case _:
            return


def _abilities(discovery: Discovery) -> Iterable[Finding]:
    def has(topic: str, present: object, good: str, absent: str, level: Level = Level.NOTE) -> Finding:
        return Finding(Level.GOOD, topic, good) if present else Finding(level, topic, absent)

    code = discovery.authorization_endpoint and discovery.token_endpoint and "code" in discovery.response_types
    yield has("code", code, "people can log in with the code flow", "people cannot log in there: it has no code flow")
    if code:
        pkce = "S256" in discovery.code_challenge_methods
        yield has("pkce", pkce, "PKCE with S256", "it does not announce PKCE with S256 (RFC 7636)", Level.WARNING)
        absent = "its redirects do not say who sends them (RFC 9207): with a second such provider, set own_callback = true"
        yield has("rfc9207", discovery.names_itself, "its redirects say who sends them (RFC 9207)", absent)
        public = "none" in discovery.token_auth_methods
        absent = "it announces no clients without a secret: log in through the signer, with client_secret_file"
        yield has("public-clients", public, "clients without a secret can log in", absent)
    device, dpop = discovery.device_authorization_endpoint, "ES256" in discovery.dpop_algorithms
    yield has("device", device, "device flow", "no device flow")
    yield has("dpop", dpop, "DPoP with ES256", "no DPoP with ES256 (RFC 9449): access tokens cannot be bound to a key")
    if device and not dpop:
        yield Finding(
            Level.NOTE, "device", "tokens of its device flow can be bound to no key; log in through the signer instead"
        )
    introspection = discovery.introspection_endpoint
    yield has("introspection", introspection, "opaque access tokens can be verified (RFC 7662)", "no introspection endpoint")
    if "none" in discovery.id_token_algorithms:
        yield Finding(Level.WARNING, "alg-none", "it offers ID tokens without a signature; they are refused here")
    if discovery.acr_values:
        yield Finding(Level.NOTE, "acr", f"levels of login (acr): {', '.join(sorted(discovery.acr_values))[:300]}")
    if discovery.claims:
        yield Finding(Level.NOTE, "claims", f"claims: {', '.join(sorted(discovery.claims))[:600]}")


async def _follows_host(source: IssuerSource, outbound: Outbound) -> list[Finding]:
    """A provider that calls itself whatever the Host header says speaks for anybody who can reach it by another name."""
    try:
        document = strict_json((await outbound.get(discovery_url(source.url), host=_ELSEWHERE)).body)
    except (UnavailableError, ValueError):
        return []
    match document:
        case {"issuer": str(named)} if _ELSEWHERE in named:
            text = (
                "its issuer follows the Host header; its proxy should fix the host name, or tokens for other names will exist"
            )
            return [Finding(Level.WARNING, "host-header", text)]
        case _:
            return []


async def _keys(source: IssuerSource, outbound: Outbound, discovery: Discovery, findings: list[Finding]) -> KeySet | None:
    try:
        check_host(discovery.jwks_uri, "key set", issuer=source.url, listed=source.jwks_hosts)
    except UnavailableError:
        host = _host_and_port(discovery.jwks_uri)
        findings.append(
            Finding(Level.WARNING, "key-host", f"its keys are on another host, {host}; list it if it belongs to it")
        )
    answer = await _get(outbound, discovery.jwks_uri, source, "keys", findings)
    if answer is None:
        return None
    try:
        keys = KeySet.parse(answer.body)
    except UnavailableError as error:
        findings.append(Finding(Level.FAILURE, "keys", f"{discovery.jwks_uri}: {error.message}"))
        return None
    findings += (Finding(Level.WARNING, "ignored-key", ignored) for ignored in keys.ignored)
    if not len(keys):
        findings.append(Finding(Level.FAILURE, "keys", f"{discovery.jwks_uri}: no usable key"))
        return None
    named = ", ".join(f"{kid} ({_fitness(key)})" for kid, key in keys.by_kid.items())
    findings.append(Finding(Level.GOOD, "keys", f"{len(keys)} usable: {named or 'without an id'}"))
    if keys.without_kid:
        text = "it has keys without an id: its tokens are accepted only with single_key = true, while it has exactly one key"
        findings.append(Finding(Level.WARNING, "key-ids", text))
    return keys


def _fitness(key: VerificationKey) -> str:
    """What a key is for; only RSA keys that do not say it are for several algorithms."""
    return next(iter(key.algorithms)) if len(key.algorithms) == 1 else "RSA"


def _algorithms(discovery: Discovery, keys: KeySet) -> tuple[str, ...]:
    """What it may sign ID tokens with: what its keys are for, and announced if it announces anything."""
    fitting = {name for key in (*keys.by_kid.values(), *keys.without_kid) for name in key.algorithms}
    announced = {"EdDSA" if name == "Ed25519" else name for name in discovery.id_token_algorithms} or fitting
    return tuple(name for name in _ALGORITHMS if name in fitting & announced)


def _table(
    source: IssuerSource, discovery: Discovery, algorithms: tuple[str, ...], *, issuer_id: str, client_id: str
) -> IssuerTable:
    """The settings with which logins through this provider work: no more is allowed than that needs."""
    endpoints = (discovery.jwks_uri, discovery.token_endpoint, discovery.userinfo_endpoint, discovery.introspection_endpoint)
    others = {_host_and_port(url) for url in endpoints if url and authority_of(url) != authority_of(source.url)}
    hosts = tuple(sorted(source.jwks_hosts | others))
    wanted = ("openid", "profile", "email")
    return IssuerTable(
        id=issuer_id,
        url=source.url,
        client_id=client_id,
        algorithms=algorithms,
        scopes=tuple(scope for scope in wanted if scope == "openid" or not discovery.scopes or scope in discovery.scopes),
        allowed_hosts=hosts,
        ca_file=None if source.ca_file is None else source.ca_file.resolve(),
        bearer_file=None if source.bearer_file is None else source.bearer_file.resolve(),
        proxy=source.proxy,
        allow_loopback_http=source.allow_loopback_http,
    )


def _host_and_port(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return host if parts.port in (None, 443) else f"{host}:{parts.port}"
