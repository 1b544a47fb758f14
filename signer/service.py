"""The parts of the running service, put together once and taken apart in the opposite order."""

from __future__ import annotations

import hashlib
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from pathlib import Path

from certauth import __version__
from certauth.audit import record
from certauth.bundles import TrustEntry
from certauth.clock import Clock
from certauth.errors import StoreError
from certauth.identity import registry, signer_id_of
from certauth.names import Kind
from certauth.tokens.jwt_form import RIGHTS_TYPE
from policy.decision_log import DecisionLog
from policy.rules import Policy
from policy.trust import Trust
from signer import authority as authorities
from signer.admitting import Admitting
from signer.agents import Agents
from signer.authority import Authority
from signer.codes import Codes
from signer.database import sqlite_url
from signer.introspecting import Introspecting
from signer.introspection import Introspection
from signer.issuing import Issuing
from signer.jwks import KeySource
from signer.key_ring import KeyRing
from signer.ledger import Ledger, Submission
from signer.limits import RateLimiter
from signer.linking import Linking
from signer.login import Logins
from signer.minting import Minting
from signer.oauth import CLIENT_CREDENTIALS, EXCHANGE
from signer.providers import flows_of, introspection_sources, key_sources, login_providers
from signer.proving import Proving
from signer.recording import Recorder
from signer.revoking import Revoking
from signer.settings import Settings
from signer.standing import Standing
from signer.store import Store, open_store
from signer.telemetry import Metrics
from signer.withdrawals import Withdrawals


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Everything a handler may use."""

    settings: Settings
    authority: Authority
    keys: KeyRing
    store: Store
    ledger: Ledger
    key_source: KeySource
    introspection: Introspection
    logins: Logins
    issuing: Issuing
    minting: Minting
    revoking: Revoking
    linking: Linking
    agents: Agents
    introspecting: Introspecting
    withdrawals: Withdrawals
    policy: Policy
    trust: Trust
    decisions: DecisionLog
    limiter: RateLimiter
    metrics: Metrics
    clock: Clock

    def checkpoint(self) -> str:
        """The newest signed checkpoint (C2SP tlog-checkpoint); ``StoreError`` (``not-found``) before the first entry."""
        with self.store.log() as reader:
            note = reader.checkpoint()
        if note is None:
            raise StoreError("not-found", "the log is empty", hint="try again once something was granted")
        return note

    def metadata(self) -> dict[str, object]:
        """What a client must know before it can log in."""
        url = self.settings.public_url
        return {
            "signer": url,
            "signer_id": signer_id_of(url),
            "trust_domain": self.settings.trust_domain,
            "version": __version__,
            "endpoints": {
                "certificates": f"{url}/v1/certificates",
                "renewals": f"{url}/v1/renewals",
                "links": f"{url}/v1/links",
                "agents": f"{url}/v1/agents",
                "logins": f"{url}/v1/logins",
                "login_page": f"{url}/login",
                "tokens": f"{url}/v1/tokens",
                "token": f"{url}/token",
                "introspect": f"{url}/introspect",
                "revoke": f"{url}/revoke",
                "jwks": f"{url}/.well-known/jwks.json",
                "revocations": f"{url}/v1/revocations",
                "bundle": f"{url}/.well-known/certauth/bundle",
                "checkpoint": f"{url}/v1/log/checkpoint",
            },
            "issuers": [
                {
                    "id": issuer.id,
                    "url": issuer.url,
                    "client_id": issuer.program_client_id,
                    "scopes": list(issuer.scopes),
                    "kinds": list(issuer.kinds),
                    "bindings": list(issuer.bindings),
                    "flows": flows_of(issuer),
                    "access_token_audience": issuer.access_token_audience,
                }
                for issuer in self.settings.issuer
            ],
        }

    def oauth_metadata(self) -> dict[str, object]:
        """The authorization server's metadata (RFC 8414); the same document serves libraries that ask for OpenID's."""
        url = self.settings.public_url
        return {
            "issuer": url,
            "token_endpoint": f"{url}/token",
            "introspection_endpoint": f"{url}/introspect",
            "revocation_endpoint": f"{url}/revoke",
            "jwks_uri": f"{url}/.well-known/jwks.json",
            "grant_types_supported": [CLIENT_CREDENTIALS, EXCHANGE],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": ["tls_client_auth"],
            "introspection_endpoint_auth_methods_supported": ["tls_client_auth"],
            "revocation_endpoint_auth_methods_supported": ["tls_client_auth"],
            "tls_client_certificate_bound_access_tokens": True,
            "authorization_details_types_supported": [RIGHTS_TYPE],
        }

    def exposition(self) -> bytes:
        """The metrics as of now."""
        status = self.ledger.status()
        self.metrics.tree_size.set(status.size)
        self.metrics.queue.set(status.queued)
        self.metrics.latched.set(status.cause is not None)
        self.metrics.logins.set(self.logins.under_way)
        self.metrics.not_after.labels("issuing").set(self.authority.issuing.not_valid_after_utc.timestamp())
        return self.metrics.render()

    def close(self) -> None:
        """Record what is queued, then let go of everything."""
        self.ledger.close()
        self.decisions.close()
        self.store.close()


def config_digest(settings: Settings) -> str:
    """SHA-256 of the effective settings: which configuration a record was made under."""
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()


def source(settings: Settings) -> record.Source:
    """As whom this process writes to the log."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:64]
    return record.Source(replica=host or "signer", version=__version__, config=config_digest(settings))


def open_ledger(settings: Settings, authority: Authority, *, clock: Clock) -> tuple[Store, Ledger]:
    """The database of this facility and a started ledger on it; the caller closes both."""
    store = open_store(sqlite_url(settings.database_path), domain=authority.domain, origin=authority.origin)
    try:
        ledger = Ledger(store, key=authority.log_key, source=source(settings), clock=clock).start()
    except BaseException:
        store.close()
        raise
    return store, ledger


def own_policy(state: Path) -> Policy:
    """The rules of the service's own door."""
    return Policy.parse(resources.files("signer").joinpath("policy.toml").read_bytes(), where="signer/policy.toml", base=state)


def start(settings: Settings, *, environment: Mapping[str, str], clock: Clock, allow_example_keys: bool = False) -> Service:
    """Load, check and open everything; the start itself is recorded before the first request is taken.

    Raises ``ConfigError``, ``KeyMaterialError``, ``StoreError`` or ``LogError``; nothing is left open then.
    """
    authority = authorities.load(settings, environment=environment, allow_example_keys=allow_example_keys)
    store, ledger = open_ledger(settings, authority, clock=clock)
    try:
        keys = KeyRing(authority, store)
        started = record.ServiceStarted(version=__version__, config=config_digest(settings))
        ledger.record(Submission(request_id=f"start-{secrets.token_hex(12)}", digest=b"start", event=started))
        return _assemble(settings, authority, keys, store, ledger, clock=clock)
    except BaseException:
        ledger.close()
        store.close()
        raise


def _assemble(
    settings: Settings, authority: Authority, keys: KeyRing, store: Store, ledger: Ledger, *, clock: Clock
) -> Service:
    withdrawals = Withdrawals(
        store=store, domain=authority.domain, key=authority.feed_key, lifetime=settings.feed_lifetime, clock=clock
    )
    key_source = KeySource(key_sources(settings))
    introspection = Introspection(introspection_sources(settings), key_source=key_source, clock=clock)
    logins = Logins(public_url=settings.public_url, providers=login_providers(settings), keys=key_source, clock=clock)
    issuers = registry(issuer.issuer() for issuer in settings.issuer)
    proving = Proving(
        signer_id=settings.public_url,
        issuers=issuers,
        key_source=key_source,
        introspection=introspection,
        logins=logins,
        codes=Codes(store=store),
        store=store,
        clock=clock,
    )
    rules = {issuer.id: issuer.rules for issuer in settings.issuer}
    recorder = Recorder(ledger=ledger, clock=clock)
    standing = Standing(store=store, entitlements=[one for grant in settings.grant for one in grant.entitlements()])
    policy = own_policy(settings.state)
    entry = TrustEntry(
        bundle=authority.bundle,
        kinds=frozenset(Kind),
        ids=("*",),
        assurance_ceiling=3,
        max_certificate_lifetime=timedelta(days=32),
    )
    return Service(
        settings=settings,
        authority=authority,
        keys=keys,
        store=store,
        ledger=ledger,
        key_source=key_source,
        introspection=introspection,
        logins=logins,
        issuing=Issuing(
            settings=settings,
            authority=authority,
            store=store,
            recorder=recorder,
            proving=proving,
            admitting=Admitting(
                issuers=issuers,
                rules=rules,
                store=store,
                domain=authority.domain,
                admins=settings.admins,
            ),
            standing=standing,
            clock=clock,
        ),
        minting=Minting(
            settings=settings,
            authority=authority,
            keys=keys,
            store=store,
            recorder=recorder,
            standing=standing,
            withdrawals=withdrawals,
            clock=clock,
        ),
        revoking=Revoking(admins=settings.admins, roots=keys.roots, store=store, recorder=recorder, clock=clock),
        linking=Linking(rules=rules, store=store, recorder=recorder, proving=proving, standing=standing, clock=clock),
        agents=Agents(limits=settings.limits, store=store, recorder=recorder, standing=standing, clock=clock),
        introspecting=Introspecting(
            domain=authority.domain,
            issuer=settings.public_url,
            admins=settings.admins,
            keys=keys,
            store=store,
            withdrawals=withdrawals,
            clock=clock,
        ),
        withdrawals=withdrawals,
        policy=policy,
        trust=Trust.of([entry], revocations=withdrawals.for_the_door),
        decisions=DecisionLog(policy.record_path, mode=policy.record_mode, clock=clock, program="certauth signer"),
        limiter=RateLimiter(per_minute=settings.limits.requests_per_minute),
        metrics=Metrics(),
        clock=clock,
    )
