"""Agents, over the wire: what a person may hand to their work, that it never is more than they have, and that it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx2
import pytest

from certauth import certificates, keys
from certauth.audit import record
from certauth.audit.checkpoint import VerifierKey
from certauth.audit.receipt import Receipt, check
from certauth.enrolment import EnrolledRight, Enrolment
from certauth.errors import Refused
from certauth.issuance import Refusal
from certauth.keys import Algorithm
from certauth.names import Kind, Principal, TrustDomain
from certauth.revocation import open_feed
from certauth.tokens import verify
from signer.agents_schema import AgentBody
from signer.agents_terms import Wish, decide_agent
from signer.ending import ending_with
from signer.ledger import Submission
from signer.rows import RevocationRow
from signer.schemas import RenewalBody
from signer.service import Service
from signer.settings import Limits
from tests.signer.agent_kit import (
    DAY,
    READ,
    Agent,
    ask,
    assertion,
    identity,
    listed,
    make,
    mint,
    peer_of,
    principal,
    prove,
    renew,
    stop,
    wish,
)
from tests.signer.kit import DOMAIN, Identity, Site, facility, make_csr, run_cli


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A facility with a few people, who may have few agents each."""
    with facility(tmp_path_factory.mktemp("agents")) as made:
        text = made.settings_file.read_text()
        assert "[limits]" not in text
        made.settings_file.write_text(text + '\n[limits]\nagents = 4\nagent_lifetime = "30d"\n')
        made.enroll("alice", "files:read,write:/alice/", "files:read:/shared/", "mail:send:/")
        made.enroll("bob", "files:read:/alice/run7/")
        made.enroll("many", "files:read:/alice/")
        made.enroll("loser", "files:read:/alice/", "files:write:/alice/")
        made.enroll("leaver", "files:read:/alice/")
        made.enroll("brief", "files:read:/alice/", max_lifetime="1h")
        made.enroll("a.b", "files:read:/alice/")
        made.enroll("a", "files:read:/alice/")
        yield made


@pytest.fixture(scope="module")
def service(site: Site) -> Iterator[Service]:
    """The running service."""
    with site.serving() as running:
        yield running


@pytest.fixture(scope="module")
def alice(site: Site, service: Service) -> Identity:
    """Somebody with a certificate."""
    return site.log_in("alice")


@pytest.fixture
def run(site: Site, alice: Identity) -> Iterator[Agent]:
    """An agent of hers, stopped afterwards."""
    name = f"run-{len(listed(site, alice))}"
    yield make(site, alice, name)
    assert stop(site, alice, name).status_code in {200, 201}


def refused(answer: httpx2.Response, code: str, status: int = 403) -> None:
    """The answer is a problem document with this code and a hint."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def recorded(answer: dict[str, Any], service: Service) -> dict[str, Any]:
    """The log entry that the receipt of an answer proves."""
    proven = check(Receipt.from_dict(answer["receipt"]), VerifierKey.parse(service.authority.bundle.log_vkey))
    found: dict[str, Any] = dict(proven.record)
    return found


# --- what an agent is ----------------------------------------------------------------------------------------------------


def test_an_agent_works_while_its_owner_is_away(site: Site, service: Service, run: Agent):
    """It proves itself with its own key, has a certificate of its own, and tokens for what it was given."""
    assert run.answer["owner"] == f"spiffe://{DOMAIN}/user/alice"
    assert run.answer["clamped"] is None
    entry = recorded(run.answer, service)
    assert entry["kind"] == record.EnrolmentChanged.kind
    assert entry["enrolment"]["action"] == "agent-create"
    assert entry["enrolment"]["principal"] == run.principal
    assert entry["enrolment"]["by"] == f"spiffe://{DOMAIN}/user/alice"
    assert len(entry["enrolment"]["terms_c"]) == 1
    at_work = identity(site, run)
    assert str(certificates.principal_of(at_work.chain[0])) == run.principal
    answer = mint(site, at_work)
    assert answer.status_code == 201, answer.text
    token = verify(answer.json()["token"], service.keys.roots)
    assert token.user == run.principal
    assert [tuple(right) for right in token.rights] == [("files", "read", "/alice/run7/")]
    assert token.groups == ()
    assert token.peer_fingerprint == at_work.fingerprint


def test_an_agent_may_do_what_it_was_given_and_no_more(site: Site, run: Agent):
    """What its owner may do besides is not the agent's."""
    at_work = identity(site, run)
    for operation, path in (("write", "/alice/run7/"), ("read", "/shared/"), ("read", "/alice/other/")):
        refused(mint(site, at_work, rights=[{"operation": operation, "path": path}]), "right-not-held")
    with site.client(at_work) as client:
        refused(client.post("/v1/tokens", json={"audience": "mail"}), "audience-unknown")


def test_everything_must_be_said(site: Site, alice: Identity):
    """Without rights nothing is given; everything at one service, or at all, is what the owner holds at that moment."""
    key = keys.generate(Algorithm.P256)
    for changes in ({"rights": ...}, {"rights": []}, {"everything_at": ["files"]}, {"rights": ..., "everything_at": []}):
        refused(ask(site, alice, wish(key, "all", **changes)), "body-malformed", 400)
    mails = make(site, alice, "mails", rights=..., everything_at=["mail"])
    assert mails.answer["rights"] == [{"service": "mail", "operation": "send", "path": "/"}]
    everything = make(site, alice, "everything", rights=..., everything_at=["*"])
    assert {right["service"] for right in everything.answer["rights"]} == {"files", "mail"}
    assert len(everything.answer["rights"]) == 4
    refused(ask(site, alice, wish(key, "none", rights=..., everything_at=["nowhere"])), "right-not-held")
    for name in ("mails", "everything"):
        assert stop(site, alice, name).status_code == 201


def test_an_agent_lives_as_long_as_was_asked_and_never_longer(site: Site, service: Service, alice: Identity):
    """Asked for less than the limit it is that; asked for more, the limit, and that is said."""
    short = make(site, alice, "short", lifetime=3600)
    enrolment = service.store.enrolment_by_principal(Principal.parse(short.principal))
    assert enrolment is not None
    assert enrolment.expires_at is not None
    assert enrolment.expires_at <= site.clock() + timedelta(hours=1)
    at_work = identity(site, short)
    assert at_work.chain[0].not_valid_after_utc <= enrolment.expires_at
    long = make(site, alice, "long", lifetime=365 * DAY)
    assert long.answer["clamped"]["granted"] == 30 * DAY
    assert "the signer's settings" in long.answer["clamped"]["message"]
    refused(ask(site, alice, wish(keys.generate(Algorithm.P256), "no-time", lifetime=5)), "lifetime-invalid")
    for name in ("short", "long"):
        assert stop(site, alice, name).status_code == 201


def test_the_cap_of_the_owner_is_the_agents(site: Site, service: Service):
    """Somebody whose certificates may last an hour has agents whose certificates do."""
    owner = site.log_in("brief")
    agent = make(site, owner, "job")
    chain = identity(site, agent).chain
    assert chain[0].not_valid_after_utc - site.clock() <= timedelta(hours=1)


def test_the_owner_sees_their_agents(site: Site, alice: Identity):
    """State, end, the newest certificate, and when it was renewed."""
    agent = make(site, alice, "seen", networks=["127.0.0.0/8"])
    before = listed(site, alice)["seen"]
    assert before["state"] == "active"
    assert before["principal"] == agent.principal
    assert before["rights"] == [READ]
    assert before["networks"] == ["127.0.0.0/8"]
    assert before["renewed_at"] is before["certificate"] is before["not_after"] is None
    at_work = identity(site, agent)
    after = listed(site, alice)["seen"]
    assert after["certificate"] == at_work.fingerprint
    assert after["renewed_at"] >= before["created_at"]
    assert stop(site, alice, "seen").status_code == 201
    assert listed(site, alice)["seen"]["state"] == "stopped"
    assert listed(site, alice)["seen"]["stopped_at"] is not None


# --- more than the owner has ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "right",
    [
        {"service": "files", "operation": "read", "path": "/"},
        {"service": "files", "operation": "read", "path": "/bob/"},
        {"service": "files", "operation": "delete", "path": "/alice/"},
        {"service": "signer", "operation": "read", "path": "/alice/"},
    ],
)
def test_an_agent_is_not_given_what_its_owner_lacks(site: Site, service: Service, alice: Identity, right: dict[str, str]):
    """A wider path, another one, another operation or service: refused as a whole, recorded, nobody enrolled."""
    refused(ask(site, alice, wish(keys.generate(Algorithm.P256), "greedy", rights=[READ, right])), "right-not-held")
    assert service.store.enrolled_principal(Principal.parse(principal("alice", "greedy"))) is None
    with service.store.log() as reader:
        denials = [json.loads(entry.body) for entry in reader.entries() if b"grant.deny" in entry.body]
    decided = [entry["decision"] for entry in denials if entry["actor"]["peer"] == alice.fingerprint]
    assert {"operation": "agent-create", "code": "right-not-held"} in decided


def test_what_the_owner_loses_the_agent_loses(site: Site, service: Service):
    """The next token lacks it, although the agent was given it; and what the owner gains is not the agent's."""
    owner = site.log_in("loser")
    given = [{"service": "files", "operation": operation, "path": "/alice/"} for operation in ("read", "write")]
    at_work = identity(site, make(site, owner, "job", rights=given))
    both = mint(site, at_work).json()["rights"]
    assert {right["operation"] for right in both} == {"read", "write"}
    site.enroll("loser", "files:read:/alice/", "files:delete:/alice/")
    assert [right["operation"] for right in mint(site, at_work).json()["rights"]] == ["read"]
    refused(mint(site, at_work, rights=[{"operation": "write", "path": "/alice/"}]), "right-not-held")
    refused(mint(site, at_work, rights=[{"operation": "delete", "path": "/alice/"}]), "right-not-held")
    # the control: it is the right that is gone, not the agent
    assert renew(site, at_work).status_code == 201


def test_a_disabled_owner_has_no_agents(site: Site, service: Service):
    """Neither renewal nor token nor a first certificate; and what is alive is dead at the door."""
    owner = site.log_in("leaver")
    agent = make(site, owner, "job")
    at_work = identity(site, agent)
    assert mint(site, at_work).status_code == 201
    disable = ("user", "disable", "leaver", "--reason", "left", "--settings", site.settings_file)
    run_cli(*disable)
    refused(prove(site, agent, keys.generate(Algorithm.P256)), "principal-disabled")
    # Whether by the decision or, if the agent was ended with its owner, at the door already.
    for answer in (renew(site, at_work), mint(site, at_work)):
        assert answer.json()["code"] in {"principal-disabled", "certificate-revoked"}, answer.text


def test_ending_somebody_ends_their_agents(site: Site, service: Service):
    """The rows for the entry that ends the owner: each living agent disabled, its certificate refused by every door."""
    site.enroll("ender", "files:read:/alice/")
    owner = site.log_in("ender")
    first, second = (make(site, owner, name) for name in ("one", "two"))
    assert stop(site, owner, "two").status_code == 201
    at_work, now = identity(site, first), site.clock()
    rows = ending_with(service.store, Principal.parse(f"spiffe://{DOMAIN}/user/ender"), reason="left", by="admin", at=now)
    revoked = [row.revoked.value for row in rows if isinstance(row, RevocationRow)]
    assert revoked == [first.principal, at_work.fingerprint], "the stopped one is not ended again"
    ended = Principal.parse(f"spiffe://{DOMAIN}/user/ender")
    event = record.EnrolmentChanged(action="disable", principal=ended, by="admin", why="left", commitments=())
    service.ledger.record(Submission(request_id="end-of-ender", digest=b"x", event=event, rows=rows))
    service.withdrawals.changed()
    refused(renew(site, at_work), "certificate-revoked", 401)
    refused(prove(site, first, keys.generate(Algorithm.P256)), "principal-disabled")
    feed = open_feed(
        service.withdrawals.feed(),
        key=service.authority.feed_key.public_key,  # type: ignore[arg-type]  # an Ed25519 key
        domain=TrustDomain(DOMAIN),
        newest_sequence=0,
        now=site.clock(),
    )
    assert {first.principal, second.principal} <= {entry.value for entry in feed.entries}


# --- stopping ------------------------------------------------------------------------------------------------------------


def test_a_stopped_agent_gets_and_has_nothing(site: Site, service: Service, alice: Identity):
    """One entry disables it and withdraws everything; it is refused at once, and cannot come back."""
    agent = make(site, alice, "stopped")
    at_work = identity(site, agent)
    assert mint(site, at_work).status_code == 201
    size = service.ledger.status().size
    refused(stop(site, alice, "stopped", reason="a\nb"), "revocation-invalid", 400)
    answer = stop(site, alice, "stopped", reason="run 7 is finished")
    assert answer.status_code == 201, answer.text
    entry = recorded(answer.json(), service)["enrolment"]
    assert (entry["action"], entry["principal"], entry["why"]) == ("agent-stop", agent.principal, "run 7 is finished")
    assert service.ledger.status().size == size + 1
    assert agent.principal in {stored.row.revoked.value for stored in service.store.revocations(now=0)}
    refused(mint(site, at_work), "certificate-revoked", 401)
    refused(renew(site, at_work), "certificate-revoked", 401)
    refused(prove(site, agent, keys.generate(Algorithm.P256)), "principal-disabled")
    again = stop(site, alice, "stopped")
    assert (again.status_code, again.json()["state"]) == (200, "stopped")
    refused(ask(site, alice, wish(keys.generate(Algorithm.P256), "stopped")), "agent-exists")


def test_nobody_else_sees_or_stops_an_agent(site: Site, run: Agent):
    """Not another person, not the agent itself, whatever the path says."""
    bob, name = site.log_in("bob"), run.principal.rpartition(".")[2]
    at_work = identity(site, run)
    assert listed(site, bob) == listed(site, at_work) == {}
    refused(stop(site, bob, name), "agent-unknown")
    refused(stop(site, at_work, name), "agent-unknown")
    for trick in (f"..%2falice.{name}", f"alice.{name}", f"%2e%2e%2f{name}", f"alice%2F{name}"):
        answer = stop(site, bob, trick)
        assert answer.status_code in {400, 403, 404}, answer.text
    assert mint(site, at_work).status_code == 201, "it works on"


def test_an_agent_of_the_facility_is_nobodys(site: Site, service: Service, alice: Identity, tmp_path: Path):
    """One that an administrator enrolled is no person's to stop, not even of the person whose name its own begins with."""
    made = ("service", "enroll", "alice.backup", "--kind", "agent", "--code", "--output", tmp_path / "code")
    run_cli(*made, "--reason", "a test", "--settings", site.settings_file)
    refused(stop(site, alice, "backup"), "agent-unknown")
    enrolled = service.store.enrolled_principal(Principal.parse(principal("alice", "backup")))
    assert enrolled is not None
    assert not enrolled.enrolment.disabled


def test_two_owners_never_share_a_name(site: Site, service: Service):
    """Ids may have dots, names of agents may not: a.b's c is not a's b.c."""
    dotted, plain = site.log_in("a.b"), site.log_in("a")
    agent = make(site, dotted, "c")
    refused(ask(site, plain, wish(keys.generate(Algorithm.P256), "b.c")), "bad-name", 400)
    refused(stop(site, plain, "b.c"), "bad-name", 400)
    assert mint(site, identity(site, agent)).status_code == 201


@pytest.mark.parametrize("name", ["", ".", "..", "../bob", "a/b", "a.b", "A", "a b", "-a", "a" * 33, "é", "a\n", "*", "a%2fb"])
def test_a_name_is_one_plain_word(site: Site, alice: Identity, name: str):
    """Path tricks, dots, spaces, and what only looks like a letter."""
    refused(ask(site, alice, wish(keys.generate(Algorithm.P256), name)), "bad-name", 400)


# --- who may have agents -------------------------------------------------------------------------------------------------


def test_an_agent_has_no_agents(site: Site, run: Agent):
    """Else it would outlive every limit set for it."""
    refused(ask(site, identity(site, run), wish(keys.generate(Algorithm.P256), "child")), "agent-not-allowed")


def test_without_a_certificate_nobody_asks(site: Site, service: Service):
    """The door refuses before the request is read."""
    with site.client() as client:
        for answer in (
            client.get("/v1/agents"),
            client.post("/v1/agents", json=wish(keys.generate(Algorithm.P256), "x")),
            client.post("/v1/agents/x/stop", json={"reason": "y"}),
        ):
            refused(answer, "certificate-required", 401)


def test_an_old_login_makes_no_agents(tmp_path_factory: pytest.TempPathFactory):
    """A certificate stolen hours after the login does not turn into an agent for weeks, not even when it is renewed.

    Asked below the door: the TLS above us looks at the system's clock, which stands still here.
    """
    with facility(tmp_path_factory.mktemp("later")) as site:
        site.enroll("victim", "files:read:/alice/")
        with site.serving() as service:
            stolen = site.log_in("victim")
            assert make(site, stolen, "early")
            site.clock.offset = timedelta(hours=2)
            renewal = RenewalBody(csr=make_csr(stolen.key))
            peer = peer_of(service, stolen)
            issued = asyncio.run(service.issuing.renewal(renewal, peer=peer, address=None, request_id="renewal-1"))
            chain = certificates.load_chain(str(issued.body["certificate_chain"]).encode())
            for holder in (stolen, Identity(key=stolen.key, chain=chain)):
                body = AgentBody.model_validate(wish(keys.generate(Algorithm.P256), "thief"))
                act = service.agents.create(body, peer=peer_of(service, holder), address=None, request_id="thief-01")
                with pytest.raises(Refused) as caught:
                    asyncio.run(act)
                assert caught.value.code == "login-not-recent"


def test_there_are_only_so_many(site: Site, service: Service):
    """At once, and one after the other; a stopped one makes room."""
    owner = site.log_in("many")
    answers: list[httpx2.Response] = []

    def one(client: httpx2.Client, body: dict[str, Any]) -> None:
        answers.append(client.post("/v1/agents", json=body))

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(site.client(owner)) for _ in range(8)]
        bodies = [wish(keys.generate(Algorithm.P256), f"n{number}") for number in range(8)]
        threads = [threading.Thread(target=one, args=pair) for pair in zip(clients, bodies, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [403] * 4
    assert {answer.json()["code"] for answer in answers if answer.status_code == 403} == {"too-many-agents"}
    living = next(name for name, one in listed(site, owner).items() if one["state"] == "active")
    assert stop(site, owner, living).status_code == 201
    assert make(site, owner, "room")


# --- repetition and theft ------------------------------------------------------------------------------------------------


def test_a_lost_answer_is_given_again(site: Site, service: Service, alice: Identity):
    """The same request makes one agent; the same id with another wish, and the same name again, are refused."""
    key, size = keys.generate(Algorithm.P256), service.ledger.status().size
    body = wish(key, "again", request_id="again-0001")
    first, second = ask(site, alice, body), ask(site, alice, body)
    assert (first.status_code, second.status_code) == (201, 201)
    assert {first.json()[name] for name in ("principal", "expires_at")} == {
        second.json()[name] for name in ("principal", "expires_at")
    }
    assert service.ledger.status().size == size + 1
    refused(ask(site, alice, body | {"lifetime": 15 * DAY}), "request-id-used", 409)
    refused(ask(site, alice, wish(keys.generate(Algorithm.P256), "again")), "agent-exists")
    assert stop(site, alice, "again").status_code == 201


def test_somebody_elses_request_replayed_makes_nothing(site: Site, alice: Identity):
    """The id is taken; under another id the agent would be the replayer's own, and they lack the right."""
    body = wish(keys.generate(Algorithm.P256), "replayed", request_id="replayed-01", rights=[READ | {"path": "/alice/"}])
    assert ask(site, alice, body).status_code == 201
    bob = site.log_in("bob")
    refused(ask(site, bob, body), "right-not-held")
    refused(ask(site, bob, body | {"rights": [READ]}), "request-id-used", 409)
    assert stop(site, alice, "replayed").status_code == 201


def test_a_stolen_certificate_is_nothing_without_its_key(site: Site, run: Agent):
    """The chain is public; with another key no connection comes about, and a replayed assertion certifies no other key."""
    at_work, thief = identity(site, run), keys.generate(Algorithm.P256)
    with pytest.raises((OSError, httpx2.HTTPError)):
        renew(site, replace(at_work, key=thief))
    with pytest.raises((OSError, httpx2.HTTPError)):
        mint(site, replace(at_work, key=thief))
    impostor = Agent(principal=run.principal, key=thief)
    refused(prove(site, impostor, thief), "unknown-key", 401)


def test_an_assertion_is_for_one_key_and_once(site: Site, run: Agent):
    """Caught on its way, it certifies neither the catcher's key nor the same one twice."""
    key, thief = keys.generate(Algorithm.P256), keys.generate(Algorithm.P256)
    proof = {"type": "client_assertion", "token": assertion(site, run, key)}
    with site.client() as client:
        refused(client.post("/v1/certificates", json={"csr": make_csr(thief), "proof": proof}), "key-not-bound", 401)
        assert client.post("/v1/certificates", json={"csr": make_csr(key), "proof": proof}).status_code == 201
        refused(client.post("/v1/certificates", json={"csr": make_csr(key), "proof": proof}), "replayed", 409)


def test_the_key_is_shown_to_be_held(site: Site, alice: Identity):
    """A request that somebody else signed enrols no key."""
    body = wish(keys.generate(Algorithm.P256), "unproven")
    for csr, code in ((body["csr"].replace("M", "N", 3), "csr-malformed"), ("", "csr-malformed")):
        assert ask(site, alice, body | {"csr": csr}).json()["code"] in {code, "csr-signature"}


def test_from_where_an_agent_may_ask(site: Site, service: Service, alice: Identity):
    """From the networks it was given; from elsewhere its certificate and key get nothing."""
    away = make(site, alice, "away", networks=["192.0.2.0/24", "2001:db8::/32"])
    refused(prove(site, away, keys.generate(Algorithm.P256)), "address-not-allowed")
    refused(ask(site, alice, wish(keys.generate(Algorithm.P256), "bad", networks=["192.0.2.1/24"])), "agent-networks", 400)
    assert stop(site, alice, "away").status_code == 201


# --- the decision alone --------------------------------------------------------------------------------------------------


def decide(alice: Identity, service: Service, **changes: Any) -> Any:
    """The decision on an agent of alice's, with one thing about it changed."""
    peer = peer_of(service, alice)
    owner: dict[str, Any] = {"principal": peer.principal} | changes.pop("owner", {})
    body = AgentBody.model_validate(wish(keys.generate(Algorithm.P256), "job") | changes.pop("body", {}))
    usual: dict[str, Any] = {
        "peer": peer,
        "owner": Enrolment(**owner),
        "held": [EnrolledRight("files", "read", "/alice/")],
        "most": None,
        "login_at": service.clock(),
        "siblings": 0,
        "limits": Limits(),
        "address": None,
        "now": service.clock(),
    }
    found = decide_agent(Wish.read(body, owner=peer.principal), **(usual | changes))
    return found.code if isinstance(found, Refusal) else found[0]


def test_every_reason_for_a_refusal(alice: Identity, service: Service):
    """Each condition on its own; the control is the decision with none of them changed."""
    granted = decide(alice, service)
    assert isinstance(granted, Enrolment)
    now = service.clock()
    inside: dict[str, Any] = {"owner": {"networks": (ip_network("192.0.2.0/24"),)}, "address": ip_address("192.0.2.9")}
    assert decide(alice, service, owner={"principal": Principal(TrustDomain(DOMAIN), Kind.USER, "bob")}) == "not-enrolled"
    assert decide(alice, service, owner={"disabled": True}) == "principal-disabled"
    assert decide(alice, service, owner={"expires_at": now}) == "enrolment-ended"
    assert decide(alice, service, owner={"expires_at": now + timedelta(seconds=30)}) == "lifetime-exhausted"
    assert decide(alice, service, owner=inside["owner"]) == "address-not-allowed"
    assert decide(alice, service, login_at=None) == "login-not-recent"
    assert decide(alice, service, siblings=20) == "too-many-agents"
    many = [EnrolledRight("files", "read", f"/{number}/") for number in range(65)]
    everything = {"rights": None, "everything_at": ["files"]}
    assert decide(alice, service, body=everything, held=many) == "too-many-rights"
    assert decide(alice, service, **inside, body={"networks": ["192.0.3.0/24"]}) == "network-not-held"
    assert decide(alice, service, **inside, body={"networks": ["2001:db8::/32"]}) == "network-not-held"


def test_what_the_owner_has_bounds_the_agent(alice: Identity, service: Service):
    """Its end, its networks, its cap and how certain one is of it."""
    now = service.clock()
    soon = now.replace(microsecond=0) + timedelta(days=3)
    assert decide(alice, service, owner={"expires_at": soon}).expires_at == soon
    networks = (ip_network("192.0.2.0/24"),)
    here: dict[str, Any] = {"owner": {"networks": networks}, "address": ip_address("192.0.2.9")}
    assert decide(alice, service, **here).networks == networks
    assert decide(alice, service, **here, body={"networks": ["192.0.2.128/25"]}).networks == (ip_network("192.0.2.128/25"),)
    assert decide(alice, service, owner={"assurance": 1}).assurance == 1
    assert decide(alice, service).assurance == 2
    assert decide(alice, service, most=timedelta(hours=2)).max_lifetime == timedelta(hours=2)
    capped = decide(alice, service, most=timedelta(hours=2), owner={"max_lifetime": timedelta(hours=1)})
    assert capped.max_lifetime == timedelta(hours=1)


def test_a_database_that_fails_is_not_a_name_that_is_taken(site: Site, alice: Identity, service: Service):
    """Only a conflict means that the name is used; what the store cannot do is said as that."""
    moved = site.directory / "signer.db"
    hidden = moved.with_name("elsewhere.db")
    moved.rename(hidden)
    try:
        answer = ask(site, alice, wish(keys.generate(Algorithm.P256), "unlucky"))
        assert answer.status_code == 503
        assert answer.json()["code"] != "agent-exists"
    finally:
        hidden.rename(moved)
