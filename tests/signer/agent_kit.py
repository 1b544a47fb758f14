"""Agents for tests: made by their owner, proving themselves with their own key."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import httpx2
from cryptography.hazmat.primitives.serialization import Encoding

from certauth import certificates, keys
from certauth.bundles import TrustEntry, VerifiedPeer, verify_peer
from certauth.client.jose import public_jwk, sign
from certauth.identity import jwk_thumbprint
from certauth.identity.binding import signer_id_of
from certauth.keys import Algorithm, SoftwareKey
from certauth.names import TrustDomain
from signer.service import Service
from tests.signer.kit import DOMAIN, Identity, Site, make_csr

DAY = 86_400
READ = {"service": "files", "operation": "read", "path": "/alice/run7/"}


@dataclass(slots=True, kw_only=True)
class Agent:
    """An agent's name, its own key, and what its owner was told."""

    principal: str
    key: SoftwareKey = field(default_factory=lambda: keys.generate(Algorithm.P256))
    answer: dict[str, Any] = field(default_factory=dict)


def wish(key: SoftwareKey, name: str, **changes: Any) -> dict[str, Any]:
    """What ``POST /v1/agents`` takes; a change to ``...`` leaves the member out."""
    usual = {"name": name, "csr": make_csr(key), "rights": [READ], "lifetime": 14 * DAY}
    return {member: value for member, value in (usual | changes).items() if value is not ...}


def ask(site: Site, owner: Identity, body: dict[str, Any]) -> httpx2.Response:
    """Ask for an agent."""
    with site.client(owner) as client:
        return client.post("/v1/agents", json=body)


def make(site: Site, owner: Identity, name: str, **changes: Any) -> Agent:
    """An agent that was made."""
    key = keys.generate(Algorithm.P256)
    answer = ask(site, owner, wish(key, name, **changes))
    assert answer.status_code == 201, answer.text
    body = answer.json()
    return Agent(principal=body["principal"], key=key, answer=body)


def assertion(site: Site, agent: Agent, key: SoftwareKey, **changes: Any) -> str:
    """What the agent signs to have ``key`` certified."""
    now = int(site.clock().timestamp())
    claims = {
        "iss": agent.principal,
        "sub": agent.principal,
        "aud": signer_id_of(site.url),
        "jti": secrets.token_urlsafe(16),
        "iat": now,
        "exp": now + 120,
        "cnf": {"jkt": jwk_thumbprint(public_jwk(key.public_key))},
    }
    return sign({"typ": "JWT", "kid": jwk_thumbprint(public_jwk(agent.key.public_key))}, claims | changes, agent.key)


def prove(site: Site, agent: Agent, key: SoftwareKey, **changes: Any) -> httpx2.Response:
    """Ask for a certificate for ``key``."""
    body = {"csr": make_csr(key), "proof": {"type": "client_assertion", "token": assertion(site, agent, key, **changes)}}
    with site.client() as client:
        return client.post("/v1/certificates", json=body)


def identity(site: Site, agent: Agent) -> Identity:
    """The agent with a fresh certificate."""
    found = Identity(key=keys.generate(Algorithm.P256))
    return certified(found, prove(site, agent, found.key))


def renew(site: Site, holder: Identity, **wishes: Any) -> httpx2.Response:
    """Ask for the next certificate with the present one."""
    with site.client(holder) as client:
        return client.post("/v1/renewals", json={"csr": make_csr(holder.key), **wishes})


def certified(holder: Identity, answer: httpx2.Response) -> Identity:
    """The holder with the certificate that was answered."""
    assert answer.status_code == 201, answer.text
    chain = certificates.load_chain(answer.json()["certificate_chain"].encode())
    return Identity(key=holder.key, chain=chain)


def mint(site: Site, holder: Identity, **wishes: Any) -> httpx2.Response:
    """Ask for a token for the files."""
    with site.client(holder) as client:
        return client.post("/v1/tokens", json={"audience": "files", **wishes})


def stop(site: Site, owner: Identity, name: str, **body: Any) -> httpx2.Response:
    """Stop an agent."""
    with site.client(owner) as client:
        return client.post(f"/v1/agents/{name}/stop", json={"reason": "done"} | body)


def listed(site: Site, owner: Identity) -> dict[str, dict[str, Any]]:
    """The caller's agents, by name."""
    with site.client(owner) as client:
        answer = client.get("/v1/agents")
    assert answer.status_code == 200, answer.text
    return {one["name"]: one for one in answer.json()["agents"]}


def principal(owner: str, name: str) -> str:
    """What an agent is called."""
    return f"spiffe://{DOMAIN}/agent/{owner}.{name}"


def peer_of(service: Service, holder: Identity) -> VerifiedPeer:
    """The holder's certificate as the door verifies it, by the facility's clock."""
    der = [certificate.public_bytes(Encoding.DER) for certificate in holder.chain]
    return verify_peer(der, {TrustDomain(DOMAIN): TrustEntry(bundle=service.authority.bundle)}, now=service.clock())
