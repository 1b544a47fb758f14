"""Renewal: a new certificate for the holder of a valid one, within the session or enrolment that it comes from."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from certauth import certificates, keys
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.receipt import Receipt, check
from certauth.clock import in_words
from certauth.errors import ChainError, Refused
from certauth.keys import Algorithm
from certauth.names import Principal
from signer.schemas import RenewalBody
from signer.service import Service
from tests.signer.agent_kit import certified, identity, make, mint, peer_of, prove, renew
from tests.signer.kit import DOMAIN, Identity, Site, facility, make_csr, run_cli


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility whose clock each test may move on: its log does not go back."""
    with facility(tmp_path_factory.mktemp("renewal")) as made:
        text = made.settings_file.read_text()
        made.settings_file.write_text(text + '\n[limits]\nsession = "24h"\nagent_lifetime = "30d"\n')
        made.enroll("alice", "files:read,write:/alice/")
        yield made


@pytest.fixture
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


def refused(answer: httpx2.Response, code: str, status: int = 403) -> None:
    """The answer is a problem document with this code."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def end_of(holder: Identity) -> Any:
    """When the certificate ends."""
    return holder.chain[0].not_valid_after_utc


def renewed(service: Service, holder: Identity, **wishes: Any) -> Identity:
    """The holder with the next certificate, asked for below the door, which the system's clock has closed."""
    body = RenewalBody(csr=make_csr(holder.key), **wishes)
    act = service.issuing.renewal(body, peer=peer_of(service, holder), address=None, request_id=secrets.token_hex(8))
    chain = str(asyncio.run(act).body["certificate_chain"])
    return Identity(key=holder.key, chain=certificates.load_chain(chain.encode()))


def test_the_same_person_with_a_later_end(site: Site, service: Service):
    """Same name, same assurance, the key of the request; a receipt proves that the log says it was for a certificate."""
    alice = site.log_in("alice")
    answer = renew(site, alice)
    later = certified(alice, answer)
    assert later.fingerprint != alice.fingerprint
    assert end_of(later) >= end_of(alice)
    assert certificates.principal_of(later.chain[0]) == certificates.principal_of(alice.chain[0])
    assert certificates.assurance_of(later.chain[0]) == certificates.assurance_of(alice.chain[0])
    proven = check(Receipt.from_dict(answer.json()["receipt"]), VerifierKey.parse(service.authority.bundle.log_vkey)).record
    found: Any = proven
    assert found["proof"] == {"kind": "certificate", "binding": "possession", "digest": alice.fingerprint}
    assert found["grant"]["cert"] == later.fingerprint
    # another key, and wishes for names that are reported and not granted
    other = keys.generate(Algorithm.P256)
    with site.client(later) as client:
        again = client.post("/v1/renewals", json={"csr": make_csr(other, name="root"), "lifetime": 600})
    assert again.json()["ignored"] == ["CN=root"]
    moved = certified(Identity(key=other), again)
    assert end_of(moved) - site.clock() <= timedelta(minutes=10)
    assert mint(site, moved).status_code == 201


def test_a_session_ends(site: Site, service: Service):
    """However often it is renewed, no certificate outlives the session; then a person logs in again."""
    begun, holder = site.clock(), site.log_in("alice")
    for hours in (6, 12, 18, 23):
        site.clock.offset = timedelta(hours=hours)
        before, holder = holder, renewed(service, holder, lifetime=86_400)
        assert end_of(holder) > end_of(before) or hours > 6
        assert end_of(holder) <= begun + timedelta(hours=24, seconds=30), in_words(end_of(holder) - begun)
    site.clock.offset = timedelta(hours=23, minutes=59, seconds=25)
    with pytest.raises(Refused) as caught:
        renewed(service, holder)
    assert caught.value.code == "session-ended"


def test_an_agent_goes_on_until_its_end(site: Site, service: Service):
    """Through certificate after certificate without its owner, and not a second past what it was made for."""
    agent = make(site, site.log_in("alice"), "job", lifetime=3 * 86_400)
    ends = service.store.enrolment_by_principal(Principal.parse(agent.principal))
    assert ends is not None
    assert ends.expires_at is not None
    holder, seen = identity(site, agent), set[str]()
    for hours in range(6, 72, 6):
        site.clock.offset = timedelta(hours=hours)
        holder = renewed(service, holder)
        seen.add(holder.fingerprint)
        assert end_of(holder) <= ends.expires_at
    assert len(seen) == 11
    site.clock.offset = timedelta(hours=71, minutes=59, seconds=30)
    with pytest.raises(Refused) as caught:
        renewed(service, holder)
    assert caught.value.code == "lifetime-exhausted"
    site.clock.offset = timedelta(hours=72, minutes=1)
    with pytest.raises(ChainError):
        renewed(service, holder)
    refused(prove(site, agent, keys.generate(Algorithm.P256)), "enrolment-ended")


def test_a_lost_answer_is_given_again(site: Site, service: Service):
    """The same request leads to one certificate; the same id for another key is refused."""
    alice, size = site.log_in("alice"), service.ledger.status().size
    csr = make_csr(alice.key)
    body = {"csr": csr, "request_id": "renewal-0001"}
    with site.client(alice) as client:
        first, second = (client.post("/v1/renewals", json=body) for _ in range(2))
        assert first.json()["certificate_chain"] == second.json()["certificate_chain"]
        assert service.ledger.status().size == size + 1
        other = client.post("/v1/renewals", json=body | {"csr": make_csr(keys.generate(Algorithm.P256))})
        refused(other, "request-id-used", 409)


def test_who_is_refused(site: Site, service: Service):
    """Nobody without a certificate, nobody withdrawn, nobody disabled; and a disabled person is told so in the log."""
    alice = site.log_in("alice")
    with site.client() as client:
        refused(client.post("/v1/renewals", json={"csr": make_csr(alice.key)}), "certificate-required", 401)
    with site.client(alice) as client:
        refused(client.post("/v1/renewals", json={"csr": "x"}), "csr-malformed", 400)
        done = client.post("/v1/revocations", json={"kind": "certificate", "value": alice.fingerprint, "reason": "lost"})
        assert done.status_code == 201
    refused(renew(site, alice), "certificate-revoked", 401)
    again = site.log_in("alice")
    run_cli("user", "disable", "alice", "--reason", "left", "--settings", site.settings_file)
    assert renew(site, again).json()["code"] in {"principal-disabled", "certificate-revoked"}
    with service.store.log() as reader:
        kinds = [json.loads(entry.body)["kind"] for entry in reader.entries()]
    assert "enrolment.change" in kinds
    assert str(certificates.principal_of(again.chain[0])) == f"spiffe://{DOMAIN}/user/alice"
