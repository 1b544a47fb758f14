"""Linking a second login: by the person, from a fresh session of the first, with a proof bound to that session's key."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from certauth import keys
from certauth.audit import record
from certauth.bundles import VerifiedPeer
from certauth.certificates import fingerprint, principal_of
from certauth.clock import system_clock
from certauth.encoding import b64url
from certauth.enrolment import Address, Login
from certauth.errors import CertauthError, ProofError, Refused, RequestError
from certauth.identity import nonce_for, registry
from certauth.identity.mapping import Outputs, Rule, When
from certauth.identity.mapping.templates import Template
from certauth.keys import Algorithm
from certauth.names import Kind, Principal
from signer.changing import change
from signer.codes import Codes
from signer.introspection import Introspection
from signer.jwks import KeySource
from signer.linking import MAX_LOGINS, RECENT, LinkBody, Linking
from signer.providers import introspection_sources, key_sources
from signer.proving import Proving
from signer.recording import Recorder
from signer.rows import Change, EnrolmentRow, LoginRow
from signer.service import Service
from signer.standing import Standing
from tests.signer.kit import DOMAIN, Identity, Site, facility, make_csr, run_cli

REQUEST = "link-request-1"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A facility with two people."""
    with facility(tmp_path) as made:
        made.enroll("alice", "files:read:/a/")
        made.enroll("bob")
        yield made


@pytest.fixture
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


def peer_of(identity: Identity) -> VerifiedPeer:
    """What the door makes of a connection with this certificate."""
    leaf = identity.chain[0]
    return VerifiedPeer(
        principal=principal_of(leaf),
        fingerprint=fingerprint(leaf),
        serial=leaf.serial_number,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        assurance=2,
        public_key=identity.key.public_key,
        spki=keys.spki(identity.key.public_key),
        issuer_fingerprint=fingerprint(identity.chain[1]),
    )


def body(site: Site, subject: str, identity: Identity, *, csr: str | None = None, **claims: Any) -> LinkBody:
    """A login as ``subject``, bound to the key of ``identity``."""
    made = site.body(subject, identity.key, **claims)
    return LinkBody.model_validate({"csr": csr or made["csr"], "proof": made["proof"]})


def link(
    site: Site,
    service: Service,
    asked: LinkBody,
    peer: VerifiedPeer,
    *,
    rules: Mapping[str, Sequence[Rule]] | None = None,
    address: Address | None = None,
    request_id: str = REQUEST,
) -> dict[str, object]:
    """The act, with parts of its own but for store and ledger."""

    async def act() -> dict[str, object]:
        settings = site.settings
        key_source = KeySource(key_sources(settings))
        introspection = Introspection(introspection_sources(settings), key_source=key_source, clock=site.clock)
        try:
            proving = Proving(
                signer_id=settings.public_url,
                issuers=registry(issuer.issuer() for issuer in settings.issuer),
                key_source=key_source,
                introspection=introspection,
                logins=service.logins,
                codes=Codes(store=service.store),
                store=service.store,
                clock=site.clock,
            )
            linking = Linking(
                rules=rules or {},
                store=service.store,
                recorder=Recorder(ledger=service.ledger, clock=site.clock),
                proving=proving,
                standing=Standing(store=service.store, entitlements=()),
                clock=site.clock,
            )
            return (await linking.link(asked, peer=peer, address=address, request_id=request_id)).body
        finally:
            await introspection.aclose()
            await key_source.aclose()

    return asyncio.run(act())


def refused(site: Site, service: Service, asked: LinkBody, peer: VerifiedPeer, code: str, **options: Any) -> None:
    """The act is refused with this code and a hint, and no login was linked to anybody."""
    before = [person.enrolment.logins for person in service.store.enrolled_principals()]
    with pytest.raises(CertauthError) as caught:
        link(site, service, asked, peer, **options)
    assert (caught.value.code, bool(caught.value.hint)) == (code, True)
    assert isinstance(caught.value, Refused | RequestError | ProofError)
    assert [person.enrolment.logins for person in service.store.enrolled_principals()] == before


def test_a_linked_login_leads_to_the_same_person(site: Site, service: Service) -> None:
    """Linked from a fresh session, the second login is the first's person; who linked it is in the log, its subject is not."""
    alice = site.log_in("alice")
    said = link(site, service, body(site, "alice-elsewhere", alice), peer_of(alice))
    assert said["principal"] == f"spiffe://{DOMAIN}/user/alice"
    assert str(principal_of(site.log_in("alice-elsewhere").chain[0])) == said["principal"]
    with service.store.log() as reader:
        entries = [record.decode(entry.body) for entry in reader.entries()]
    acts: list[Any] = [entry["enrolment"] for entry in entries if entry["kind"] == "enrolment.change"]
    assert (acts[-1]["action"], acts[-1]["by"], acts[-1]["principal"]) == ("link", said["principal"], said["principal"])
    assert "alice-elsewhere" not in str(entries)


def test_linking_over_the_wire(site: Site, service: Service) -> None:
    """The route asks for a certificate, answers with whom the login leads to, and refuses as a problem document."""
    alice = site.log_in("alice")
    asked = site.body("over-the-wire", alice.key)
    with site.client() as nobody:
        assert nobody.post("/v1/links", json=asked).status_code == 401
    with site.client(alice) as client:
        answer = client.post("/v1/links", json=asked)
        assert (answer.status_code, answer.json()["principal"]) == (201, f"spiffe://{DOMAIN}/user/alice"), answer.text
        taken = client.post("/v1/links", json=site.body("bob", alice.key))
        assert (taken.status_code, taken.json()["code"]) == (403, "login-taken")
        other = client.post("/v1/links", json=site.body("x", keys.generate(Algorithm.P256)))
        assert other.json()["code"] == "key-mismatch"
    assert service.store.enrolment(issuer=site.provider.issuer, subject="over-the-wire") is not None


def test_a_repeated_request_is_answered_and_another_use_of_the_proof_is_not(site: Site, service: Service) -> None:
    """A lost answer is had by the same request id; the same proof under another is refused: it leads to somebody now."""
    alice = site.log_in("alice")
    asked = body(site, "second", alice)
    link(site, service, asked, peer_of(alice))
    refused(site, service, asked, peer_of(alice), "login-taken", request_id="link-request-2")


def test_a_login_that_leads_to_somebody_is_not_linked(site: Site, service: Service) -> None:
    """Neither another person's nor one's own: it leads where it leads."""
    alice = site.log_in("alice")
    for subject in ("bob", "alice"):
        refused(site, service, body(site, subject, alice), peer_of(alice), "login-taken")


def test_a_proof_for_another_key_is_nobodys_to_link(site: Site, service: Service) -> None:
    """A thief of bob's proof links nothing with it, and neither does alice with a request for another key than hers."""
    alice, other = site.log_in("alice"), Identity(key=keys.generate(Algorithm.P256))
    stolen = body(site, "victim", other)
    refused(site, service, stolen, peer_of(alice), "key-mismatch")
    mixed = LinkBody(csr=make_csr(alice.key), proof=stolen.proof)
    refused(site, service, mixed, peer_of(alice), "key-not-bound")
    foreign = nonce_for(signer_id="https://other.example", spki=keys.spki(alice.key.public_key), salt=secrets.token_bytes(16))
    refused(site, service, body(site, "victim", alice, nonce=foreign), peer_of(alice), "key-not-bound")


def test_an_old_session_links_nothing(site: Site, service: Service) -> None:
    """Whoever stole a key hours after the login cannot make the visit permanent with a login of their own."""
    alice = site.log_in("alice")
    site.clock.offset = RECENT + timedelta(seconds=2)
    refused(site, service, body(site, "thief", alice), peer_of(alice), "login-not-recent")
    renewed = replace(peer_of(alice), fingerprint="0" * 64)
    refused(site, service, body(site, "thief", alice), renewed, "login-not-recent")


def test_a_machine_links_nothing(site: Site, service: Service) -> None:
    """Only people have logins; a service with a certificate is refused before its proof is looked at."""
    alice = site.log_in("alice")
    machine = replace(peer_of(alice), principal=replace(peer_of(alice).principal, kind=Kind.SERVICE))
    refused(site, service, body(site, "x", alice), machine, "not-a-person")


def test_a_machines_code_is_no_login_of_a_person(site: Site, service: Service) -> None:
    """Proofs of machines are refused as what is linked, although they are genuine."""
    alice = site.log_in("alice")
    given = ("service", "enroll", "ingest", "--code", "--reason", "r", "--settings", site.settings_file)
    code = run_cli(*given)["code"]
    asked = LinkBody.model_validate({"csr": make_csr(alice.key), "proof": {"type": "code", "code": code}})
    refused(site, service, asked, peer_of(alice), "not-a-person")


def test_the_rules_of_the_provider_hold_for_what_is_linked(site: Site, service: Service) -> None:
    """A login that the rules turn away is not linked, nor one that they call somebody else."""
    alice = site.log_in("alice")
    issuer = site.settings.issuer[0].id
    nobody = Rule(name="none", when=When(kinds=frozenset({"workload"})), outputs=Outputs())
    refused(site, service, body(site, "x", alice), peer_of(alice), "not-admitted", rules={issuer: [nobody]})
    for name, taken in (("carol", True), ("alice", False)):
        named = Rule(name="n", when=When(everyone=True), outputs=Outputs(subject=Template.parse(f"user/{name}")))
        if taken:
            refused(site, service, body(site, "x", alice), peer_of(alice), "login-taken", rules={issuer: [named]})
        else:
            assert link(site, service, body(site, "x", alice), peer_of(alice), rules={issuer: [named]})


def test_who_may_nothing_links_nothing(site: Site, service: Service) -> None:
    """Disabled, ended, outside the networks, not enrolled: refused for that, before the proof is asked about."""
    alice = site.log_in("alice")
    peer = peer_of(alice)
    found = service.store.enrolled_principal(peer.principal)
    assert found is not None

    def now_is(**changes: Any) -> None:
        how = Change.STATE if "disabled" in changes else Change.CHANGED
        enrolment = replace(found.enrolment, **changes)
        row = EnrolmentRow(enrolment=enrolment, display="", by="x", at=system_clock(), change=how)
        service.ledger.record(change(action="test", principal=peer.principal, by="x", why="x", rows=(row,)))

    now_is(expires_at=system_clock() - timedelta(seconds=1))
    refused(site, service, body(site, "x", alice), peer, "enrolment-ended")

    now_is(networks=(ip_network("192.0.2.0/24"),))
    for address in (None, ip_address("198.51.100.1")):
        refused(site, service, body(site, "x", alice), peer, "address-not-allowed", address=address)
    now_is(disabled=True)
    refused(site, service, body(site, "x", alice), peer, "principal-disabled", address=ip_address("192.0.2.7"))
    stranger = replace(peer, principal=Principal.make(peer.principal.domain, Kind.USER, "nobody"))
    refused(site, service, body(site, "x", alice), stranger, "not-enrolled")


def test_a_session_that_was_revoked_meanwhile_links_nothing(site: Site, service: Service) -> None:
    """Between the door and the record the certificate was withdrawn: the ledger refuses."""
    alice = site.log_in("alice")
    run_cli("user", "revoke", "alice", "--reason", "stolen", "--settings", site.settings_file)
    with pytest.raises(CertauthError) as caught:
        link(site, service, body(site, "thief", alice), peer_of(alice))
    assert caught.value.code == "certificate-revoked"
    assert service.store.enrolment(issuer=site.provider.issuer, subject="thief") is None


def test_a_person_has_so_many_logins(site: Site, service: Service) -> None:
    """The number of logins is bounded."""
    alice = site.log_in("alice")
    peer = peer_of(alice)
    rows = tuple(
        LoginRow(principal=peer.principal, login=Login("https://x.example", f"s{i}"), by="x", at=system_clock())
        for i in range(MAX_LOGINS - 1)
    )
    service.ledger.record(change(action="test", principal=peer.principal, by="x", why="x", rows=rows))
    refused(site, service, body(site, "one more", alice), peer, "too-many-logins")


def test_a_body_has_no_other_members() -> None:
    """Nothing can be smuggled in: no principal, no rights."""
    with pytest.raises(ValueError, match="principal"):
        LinkBody.model_validate({"csr": "x", "proof": {"type": "code", "code": b64url(b"0" * 16)}, "principal": "x"})
