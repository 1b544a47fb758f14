"""Linking a second login: by the person, from a fresh session of the first, with a proof bound to that session's key."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx2
import pytest

from certauth import keys
from certauth.audit import record
from certauth.bundles import VerifiedPeer
from certauth.certificates import fingerprint, load_chain, principal_of
from certauth.clock import system_clock
from certauth.encoding import b64url
from certauth.enrolment import Address, Login
from certauth.errors import CertauthError, ProofError, Refused, RequestError
from certauth.identity import VerifiedIdentity, nonce_for, registry
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
from tests.signer import agent_kit
from tests.signer.kit import DOMAIN, Identity, Site, facility, make_csr, run_cli

REQUEST = "link-request-1"
READ = {"service": "files", "operation": "read", "path": "/a/"}


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


def post(site: Site, identity: Identity | None, asked: Mapping[str, object], **more: object) -> httpx2.Response:
    """``POST /v1/links`` over the connection of somebody."""
    with site.client(identity) as client:
        return client.post("/v1/links", json={**asked, **more})


def code_of(answer: httpx2.Response, status: int = 403) -> str:
    """The code of a refusal that comes with a hint."""
    problem = answer.json()
    assert (answer.status_code, bool(problem["hint"])) == (status, True), answer.text
    return str(problem["code"])


def test_a_lost_answer_is_given_again(site: Site, service: Service) -> None:
    """The same request has the same answer, and one entry; the same proof in another request links nothing."""
    alice, size = site.log_in("alice"), service.ledger.status().size
    asked = site.body("second", alice.key)
    first, again = (post(site, alice, asked, request_id=REQUEST) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201), again.text
    assert first.json()["receipt"]["entry"] == again.json()["receipt"]["entry"]
    assert service.ledger.status().size == size + 1
    assert code_of(post(site, alice, asked, request_id="link-request-2")) == "already-linked"
    other = site.body("third", alice.key)
    assert code_of(post(site, alice, other, request_id=REQUEST), 409) == "request-id-used"


def test_a_proof_links_once(site: Site, service: Service) -> None:
    """Whoever kept the proof of a login that was taken away again cannot link it a second time."""
    alice = site.log_in("alice")
    asked = site.body("second", alice.key)
    assert post(site, alice, asked).status_code == 201
    run_cli("user", "unlink", "alice", "--subject", "second", "--reason", "lost", "--settings", site.settings_file)
    site.clock.offset += timedelta(seconds=2)
    with site.client() as client:  # the key has a new certificate, so that the proof fits it still
        answer = client.post("/v1/certificates", json=site.body("alice", alice.key))
    alice.chain = load_chain(answer.json()["certificate_chain"].encode())
    assert code_of(post(site, alice, asked), 409) == "replayed"
    assert service.store.enrolment(issuer=site.provider.issuer, subject="second") is None


def test_a_proof_that_made_a_certificate_links_nothing(site: Site, service: Service) -> None:
    """A proof is used once, whatever for."""
    alice, bob = site.log_in("alice"), site.log_in("bob")
    asked = site.body("bob", alice.key)
    with site.client() as client:
        assert client.post("/v1/certificates", json=asked).status_code == 201
    assert code_of(post(site, alice, asked)) == "login-taken"
    run_cli("user", "disable", "bob", "--reason", "left", "--settings", site.settings_file)
    assert code_of(post(site, alice, asked)) == "login-taken", "also that of somebody who is disabled"
    service.withdrawals.changed()  # the door looks at what other processes revoked only now and then
    assert code_of(post(site, bob, site.body("x", bob.key)), 401) == "certificate-revoked"
    assert service.store.enrolment(issuer=site.provider.issuer, subject="x") is None


def test_no_machine_links_over_the_wire(site: Site, service: Service) -> None:
    """An agent of hers, and a service with a key: their certificates are good for the connection and for no link."""
    alice = site.log_in("alice")
    agent = agent_kit.identity(site, agent_kit.make(site, alice, "job", rights=[READ]))
    given = ("service", "enroll", "ingest", "--code", "--reason", "r", "--settings", site.settings_file)
    ingest = Identity(key=keys.generate(Algorithm.P256))
    proof = {"type": "code", "code": run_cli(*given)["code"]}
    with site.client() as client:
        answer = client.post("/v1/certificates", json={"csr": make_csr(ingest.key), "proof": proof})
    ingest.chain = load_chain(answer.json()["certificate_chain"].encode())
    for machine in (agent, ingest):
        assert code_of(post(site, machine, site.body("mine", machine.key))) == "not-a-person"
    assert service.store.enrolment(issuer=site.provider.issuer, subject="mine") is None


def test_of_two_who_link_one_login_at_once_one_has_it(site: Site, service: Service) -> None:
    """The second is told that it is taken, and not that the signer failed."""
    people = [site.log_in(name) for name in ("alice", "bob")]
    wishes = [site.body("shared", one.key) for one in people]
    ready = threading.Barrier(2)

    def act(number: int) -> httpx2.Response:
        with site.client(people[number]) as client:
            client.get("/livez")
            ready.wait()
            return client.post("/v1/links", json=wishes[number])

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(act, range(2)), key=lambda answer: answer.status_code)
    assert answers[0].status_code == 201
    assert code_of(answers[1]) == "login-taken"
    assert service.ledger.status().cause is None


def test_a_conflict_in_the_database_is_somebody_who_was_quicker(
    site: Site, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-up found nobody, the record did."""
    alice = site.log_in("alice")
    monkeypatch.setattr(service.linking, "_login", lambda *_: None)
    assert code_of(post(site, alice, site.body("bob", alice.key))) == "login-taken"
    service.ledger.close()
    assert code_of(post(site, alice, site.body("x", alice.key)), 503) == "audit-unavailable"


def test_a_login_that_an_administrator_declined_is_not_linked(site: Site) -> None:
    """Who applied and was turned down asks an administrator; who still waits is settled by the link."""
    site.settings_file.write_text(site.settings_file.read_text() + 'enrolment = "approve"\n')
    at = ("--settings", site.settings_file)
    with site.serving() as service:
        alice = site.log_in("alice")
        for subject in ("declined", "waiting"):
            with site.client() as client:
                asked = client.post("/v1/certificates", json=site.body(subject, keys.generate(Algorithm.P256)))
            assert asked.json()["code"] == "approval-pending"
        run_cli("user", "deny", "--subject", "declined", "--reason", "r", *at)
        assert code_of(post(site, alice, site.body("declined", alice.key))) == "approval-denied"
        assert post(site, alice, site.body("waiting", alice.key)).status_code == 201
        assert run_cli("user", "applications", *at)["applications"] == []
        assert service.store.enrolment(issuer=site.provider.issuer, subject="declined") is None


def test_a_login_that_leads_to_somebody_is_not_linked(site: Site, service: Service) -> None:
    """Neither another person's nor one's own: it leads where it leads."""
    alice = site.log_in("alice")
    for subject, code in (("bob", "login-taken"), ("alice", "already-linked")):
        refused(site, service, body(site, subject, alice), peer_of(alice), code)


def test_a_proof_for_another_key_is_nobodys_to_link(site: Site, service: Service) -> None:
    """A thief of bob's proof links nothing with it, and neither does alice with a request for another key than hers."""
    alice, other = site.log_in("alice"), Identity(key=keys.generate(Algorithm.P256))
    stolen = body(site, "victim", other)
    refused(site, service, stolen, peer_of(alice), "key-mismatch")
    mixed = LinkBody(csr=make_csr(alice.key), proof=stolen.proof)
    refused(site, service, mixed, peer_of(alice), "key-not-bound")
    foreign = nonce_for(signer_id="https://other.example", spki=keys.spki(alice.key.public_key), salt=secrets.token_bytes(16))
    refused(site, service, body(site, "victim", alice, nonce=foreign), peer_of(alice), "key-not-bound")


def test_a_token_that_is_bound_to_no_key_links_nothing(site: Site) -> None:
    """Where such a token is good for a certificate, it still makes nobody's login somebody else's: anybody may hold one."""
    site.settings_file.write_text(site.settings_file.read_text() + 'bindings = ["nonce", "none"]\nassurance = 1\n')
    with site.serving() as service:
        alice = site.log_in("alice")
        unbound = [site.body(subject, alice.key, nonce=...) for subject in ("alice", "victim")]
        for wish in unbound:
            del wish["proof"]["salt"]
        with site.client() as client:
            assert client.post("/v1/certificates", json=unbound[0]).status_code == 201
        assert code_of(post(site, alice, unbound[1])) == "key-not-bound"
        assert service.store.enrolment(issuer=site.provider.issuer, subject="victim") is None


def test_a_session_that_began_with_an_unbound_token_links_nothing(site: Site) -> None:
    """The attack: somebody's token leaks, the thief gets a certificate for it, renews it, and links a login of their own."""
    site.settings_file.write_text(site.settings_file.read_text() + 'bindings = ["nonce", "none"]\nassurance = 1\n')
    with site.serving() as running:
        thief = Identity(key=keys.generate(Algorithm.P256))
        leaked = site.body("alice", thief.key, nonce=...)
        del leaked["proof"]["salt"]
        with site.client() as client:
            thief.chain = load_chain(client.post("/v1/certificates", json=leaked).json()["certificate_chain"].encode())
        renewed = agent_kit.certified(thief, agent_kit.renew(site, thief))
        again = agent_kit.certified(renewed, agent_kit.renew(site, renewed))
        assert len({thief.fingerprint, renewed.fingerprint, again.fingerprint}) == 3
        for one in (thief, renewed, again):
            assert code_of(post(site, one, site.body("thief", one.key))) == "session-unbound"
        assert running.store.enrolment(issuer=site.provider.issuer, subject="thief") is None
        # Alice herself, with a proof for her key, renewed or not, links as before.
        alice = site.log_in("alice")
        assert post(site, alice, site.body("alice-2", alice.key)).status_code == 201
        later = agent_kit.certified(alice, agent_kit.renew(site, alice))
        assert post(site, later, site.body("alice-3", later.key)).status_code == 201


def test_an_old_session_links_nothing(site: Site, service: Service) -> None:
    """Whoever stole a key hours after the login cannot make the visit permanent with a login of their own."""
    alice = site.log_in("alice")
    site.clock.offset = RECENT + timedelta(seconds=2)
    refused(site, service, body(site, "thief", alice), peer_of(alice), "login-not-recent")
    renewed = replace(peer_of(alice), fingerprint="0" * 64)
    refused(site, service, body(site, "thief", alice), renewed, "login-not-recent")


def test_a_weak_login_links_no_stronger_one(site: Site) -> None:
    """Who has a password and not the second factor cannot link a login of their own that counts as if they had it."""
    rule = '[[issuer.rule]]\nname = "all"\nwhen.everyone = true\n'
    rule += 'assurance = {claim = "/acr", levels = {strong = 2}, otherwise = 1}\n'
    site.settings_file.write_text(f"{site.settings_file.read_text()}\n{rule}")
    with site.serving() as service:
        weak = site.log_in("alice", acr="weak")
        for acr in ("strong", "weak"):  # nor one that will be stronger the next time
            assert code_of(post(site, weak, site.body("thief", weak.key, acr=acr))) == "session-too-weak"
        assert service.store.enrolment(issuer=site.provider.issuer, subject="thief") is None
        strong = site.log_in("alice", acr="strong")
        assert post(site, strong, site.body("second", strong.key, acr="weak")).status_code == 201
        # Where the person counts as little themselves, there is nothing to be gained.
        site.enroll("carol", assurance="1")
        carol = site.log_in("carol", acr="weak")
        assert post(site, carol, site.body("carols", carol.key, acr="strong")).status_code == 201


def test_a_machine_links_nothing(site: Site, service: Service) -> None:
    """Only people have logins; a service with a certificate is refused before its proof is looked at."""
    alice = site.log_in("alice")
    machine = replace(peer_of(alice), principal=replace(peer_of(alice).principal, kind=Kind.SERVICE))
    refused(site, service, body(site, "x", alice), machine, "not-a-person")


def test_a_login_through_the_signers_pages_is_asked_for_as_what_it_is_for(
    site: Site, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a link to this very person, or for a certificate: ``signer.login`` gives it out for nothing else."""
    alice, asked = site.log_in("alice"), list[str | None]()

    def claim(_login: str, _secret: str, _spki: bytes, *, link: str | None = None) -> VerifiedIdentity:
        asked.append(link)
        raise ProofError("wrong-purpose", "the login was begun for something else", hint="begin another one")

    monkeypatch.setattr(service.logins, "claim", claim)
    wish = {"csr": make_csr(alice.key), "proof": {"type": "login", "login": "A" * 22, "secret": "x" * 43}}
    assert code_of(post(site, alice, wish), 401) == "wrong-purpose"
    with site.client() as client:
        assert code_of(client.post("/v1/certificates", json=wish), 401) == "wrong-purpose"
    assert asked == [f"spiffe://{DOMAIN}/user/alice", None]


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
    refused(site, service, body(site, "one more", alice), peer, "too-many-linked-logins")


def test_the_bound_holds_for_requests_at_once_and_for_a_lost_answer(
    site: Site, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several at once so many are linked as there is room for; who asks for the answer of the last one again has it."""
    monkeypatch.setattr("signer.linking.MAX_LOGINS", 2)
    alice, ready = site.log_in("alice"), threading.Barrier(4, timeout=60)
    wishes = [site.body(f"second-{number}", alice.key) | {"request_id": f"link-request-{number}"} for number in range(4)]
    clients = [site.client(alice) for _ in wishes]

    def act(number: int) -> httpx2.Response:
        with clients[number] as client:
            client.get("/livez")
            ready.wait()
            return client.post("/v1/links", json=wishes[number])

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(act, range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 403, 403, 403]
    assert {code_of(answer) for answer in answers if answer.status_code == 403} == {"too-many-linked-logins"}
    (done,) = (number for number, answer in enumerate(answers) if answer.status_code == 201)
    again = post(site, alice, wishes[done])
    assert again.status_code == 201, again.text
    assert again.json()["receipt"]["entry"] == answers[done].json()["receipt"]["entry"]


def test_a_body_has_no_other_members() -> None:
    """Nothing can be smuggled in: no principal, no rights."""
    with pytest.raises(ValueError, match="principal"):
        LinkBody.model_validate({"csr": "x", "proof": {"type": "code", "code": b64url(b"0" * 16)}, "principal": "x"})
