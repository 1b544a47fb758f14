from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from biscuit_auth import BiscuitBuilder, PrivateKey

from certauth.bundles import TrustEntry
from certauth.errors import UnavailableError
from certauth.names import Kind
from certauth.revocation import RevocationKind
from certauth.tokens import Narrowing, attenuate, delegate, from_text, to_text
from policy.certificate import PeerVerifier
from policy.decision import Check, Deny, Permit, decide
from policy.rules import Policy
from policy.testing import Facility
from policy.token import TokenVerifier
from policy.trust import Trust
from tests.policy.door import RULES, Door, HandClock, denied, request


@pytest.fixture
def clock() -> HandClock:
    """A clock that stands still."""
    return HandClock()


@pytest.fixture
def facility(clock: HandClock) -> Facility:
    """The facility whose door it is."""
    return Facility("als.example", clock=clock)


@pytest.fixture
def door(facility: Facility, clock: HandClock) -> Door:
    """A door that trusts this facility."""
    return Door(facility.trust(), clock)


def narrowed(token: str, **to: object) -> str:
    """A token with one narrowing."""
    return to_text(attenuate(from_text(token), Narrowing(**to)))  # type: ignore[arg-type]  # each test names one member


def test_a_permit_says_which_checks_it_went_through(door: Door, facility: Facility) -> None:
    """The holder of a certificate with a token bound to it and a right to the path is let through, after every check."""
    alice = facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /files/alice/"])
    permit = door.ask("GET /files/alice/run-7", alice, token)
    assert isinstance(permit, Permit)
    assert permit.held == tuple(Check)
    assert permit.route.path == "/files/"
    assert permit.peer is not None
    assert permit.peer.principal == alice.principal
    assert permit.token is not None
    assert permit.token.user == str(alice.principal)


def test_a_decision_has_no_truth_value(door: Door, facility: Facility) -> None:
    """``if decision:`` is the mistake that turns a denial into a permit; it does not run."""
    for decision in (door.ask("GET /livez"), door.ask("GET /nothing")):
        with pytest.raises(TypeError):
            bool(decision)


def test_what_no_route_takes_is_denied(door: Door, facility: Facility) -> None:
    """Deny by default: a path nobody wrote a rule for, a method nobody opened, a websocket on an http route."""
    alice = facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /", "write /", "delete /", "connect /"])
    for what in ("GET /", "GET /admin", "POST /files/x", "WEBSOCKET /files/x", "GET /live", "GET /files"):
        deny = denied(door.ask(what, alice, token))
        assert (deny.code, deny.status, deny.route, deny.held) == ("no-route", 403, None, ())


def test_a_public_route_asks_nobody(door: Door, facility: Facility, clock: HandClock) -> None:
    """Health checks answer without a certificate, and with one that has expired."""
    alice = facility.peer("alice", lifetime=timedelta(hours=1))
    clock.forward(hours=2)
    for peer in (None, alice):
        permit = door.ask("GET /livez", peer)
        assert isinstance(permit, Permit)
        assert (permit.peer, permit.token, permit.held) == (None, None, (Check.ROUTE,))
    assert door.code("HEAD /livez") == "permit"


def test_a_certificate_route_asks_who(door: Door, facility: Facility) -> None:
    """Without a certificate it is denied; with one it is permitted, and a token is not asked for."""
    deny = denied(door.ask("GET /me"))
    assert (deny.code, deny.status, deny.held) == ("certificate-required", 401, (Check.ROUTE,))
    permit = door.ask("GET /me", facility.peer("alice"))
    assert isinstance(permit, Permit)
    assert permit.held == (Check.ROUTE, Check.CERTIFICATE, Check.FRESHNESS, Check.REQUIREMENTS)


def test_a_token_alone_opens_nothing(door: Door, facility: Facility) -> None:
    """A token without a certificate, and a certificate without a token, are each denied for what is missing."""
    alice = facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /files/"])
    assert door.code("GET /files/x", None, token) == "certificate-required"
    deny = denied(door.ask("GET /files/x", alice))
    assert (deny.code, deny.status) == ("token-required", 401)
    assert deny.peer is not None


def test_a_stolen_token_is_worth_nothing(door: Door, facility: Facility) -> None:
    """Alice's token under Bob's certificate is denied, and so it is under a new certificate of Alice's own."""
    alice, bob = facility.peer("alice"), facility.peer("bob")
    token = facility.token(alice, "data", rights=["read /files/"])
    assert door.code("GET /files/x", alice, token) == "permit"
    for thief in (bob, facility.peer("alice")):
        deny = denied(door.ask("GET /files/x", thief, token))
        assert (deny.code, deny.status) == ("token-binding", 401)
        assert deny.held[-1] is Check.TOKEN


def test_a_token_without_a_binding_of_its_own_is_still_bound(facility: Facility, clock: HandClock) -> None:
    """Even if the check in the token were satisfied by anybody, the certificate it was issued to is compared here."""
    alice, bob = facility.peer("alice"), facility.peer("bob")
    state, now = facility.trust().state, clock()
    peer = PeerVerifier(facility.trust()).verify(bob.chain_der, now=now)
    bobs = TokenVerifier(facility.trust()).verify(facility.token(bob, "data", rights=["read /files/"]), now=now)
    # The engine will hold Bob's biscuit against Bob's certificate and be content; what was stated is Alice.
    unbound = replace(bobs, holder=alice.fingerprint)
    asked, policy = request("GET /files/x"), Policy.parse(RULES)
    assert isinstance(decide(request=asked, policy=policy, state=state, peer=peer, token=bobs, now=now), Permit)
    deny = denied(decide(request=asked, policy=policy, state=state, peer=peer, token=unbound, now=now))
    assert deny.code == "token-binding"


def test_a_delegated_token_works_for_whom_it_names_and_nobody_else(door: Door, facility: Facility) -> None:
    """The holder's key hands the token to a job; then the job may use it, and neither a third nor the giver may."""
    alice, job, eve = facility.peer("alice"), facility.peer("job", kind=Kind.AGENT), facility.peer("eve")
    token = facility.token(alice, "data", rights=["read /files/"])
    handed = to_text(
        delegate(
            from_text(token), holder_key=alice.key, to_certificate=job.fingerprint, narrowing=Narrowing(paths=("/files/a/",))
        )
    )
    permit = door.ask("GET /files/a/x", job, handed)
    assert isinstance(permit, Permit)
    assert permit.token is not None
    assert permit.token.user == str(alice.principal)
    assert door.code("GET /files/b/x", job, handed) == "token-path"
    assert door.code("GET /files/a/x", eve, handed) == "token-binding"
    assert door.code("GET /files/a/x", alice, handed) == "token-binding"


def test_rights_are_for_an_operation_on_a_path_at_a_service(door: Door, facility: Facility) -> None:
    """A read token does not write, a subtree ends at its boundary, and a token for another service is none."""
    alice = facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /files/alice/", "write /files/alice/new", "connect /live"])
    assert door.code("GET /files/alice/x", alice, token) == "permit"
    assert door.code("HEAD /files/alice/x", alice, token) == "permit"
    assert door.code("PUT /files/alice/new", alice, token) == "permit"
    assert door.code("WEBSOCKET /live", alice, token) == "permit"
    for what in (
        "PUT /files/alice/x",
        "DELETE /files/alice/new",
        "GET /files/alice2/x",
        "GET /files/alice",
        "GET /files/bob/x",
    ):
        deny = denied(door.ask(what, alice, token))
        assert (deny.code, deny.status) == ("right-not-held", 403), what
        assert deny.held[-1] is Check.BINDING
    elsewhere = facility.token(alice, "compute", rights=["read /files/alice/"])
    deny = denied(door.ask("GET /files/alice/x", alice, elsewhere))
    assert (deny.code, deny.status) == ("token-audience", 401)


def test_a_stripped_prefix_is_not_part_of_the_resource(door: Door, facility: Facility) -> None:
    """Behind a mount point, rights are compared with the path below it."""
    alice = facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /files/alice/"])
    assert door.code("GET /api/files/alice/x", alice, token) == "permit"
    assert door.code("GET /api/files/bob/x", alice, token) == "right-not-held"


def test_every_narrowing_counts(door: Door, facility: Facility, clock: HandClock) -> None:
    """Operation, path, network and an earlier end that a holder added bind whoever has the narrower token."""
    alice = facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /files/", "write /files/"])
    assert door.code("PUT /files/x", alice, narrowed(token, operations=("read",))) == "token-operation"
    assert door.code("GET /files/x", alice, narrowed(token, paths=("/files/a/",))) == "token-path"
    near = narrowed(token, networks=("192.0.2.0/24",))
    assert door.code("GET /files/x", alice, near, address="192.0.2.9") == "permit"
    assert door.code("GET /files/x", alice, near, address="198.51.100.9") == "token-network"
    assert door.code("GET /files/x", alice, near, address="/run/socket") == "token-network"
    short = narrowed(token, expires_at=clock() + timedelta(minutes=10))
    assert door.code("GET /files/x", alice, short) == "permit"
    clock.forward(minutes=10)
    deny = denied(door.ask("PUT /files/x", alice, narrowed(short, operations=("read",))))
    assert (deny.code, deny.status) == ("token-expired", 401)
    assert len(deny.reasons) == 2


def test_credentials_end_while_the_connection_lives(door: Door, facility: Facility, clock: HandClock) -> None:
    """On one connection, request after request: permitted, then denied when the token ends, and when the certificate does."""
    alice = facility.peer("alice", lifetime=timedelta(hours=2))
    token = facility.token(alice, "data", rights=["read /files/"])
    assert door.code("GET /files/x", alice, token) == "permit"
    clock.forward(hours=1)
    assert door.code("GET /files/x", alice, token) == "token-expired"
    assert door.code("GET /me", alice) == "permit"
    clock.forward(hours=1)
    deny = denied(door.ask("GET /me", alice))
    assert (deny.code, deny.status) == ("certificate-expired", 401)


def test_a_revocation_denies_the_next_request(door: Door, facility: Facility) -> None:
    """What was permitted a moment ago is denied once its token, or its holder, is withdrawn."""
    alice = facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /files/"])
    permit = door.ask("GET /files/x", alice, token)
    assert isinstance(permit, Permit)
    assert permit.token is not None
    facility.revoke(RevocationKind.JTI, permit.token.jti)
    assert door.code("GET /files/x", alice, token) == "token-revoked"
    assert door.code("GET /me", alice) == "permit"
    facility.revoke(RevocationKind.CERTIFICATE, alice.fingerprint)
    assert door.code("GET /me", alice) == "certificate-revoked"
    assert door.code("GET /files/x", alice, token) == "certificate-revoked"


def test_another_facility_is_denied_until_it_is_trusted(facility: Facility, clock: HandClock) -> None:
    """The same name from elsewhere is somebody else, and somebody unknown."""
    partner = Facility("nsls.example", clock=clock)
    alice, namesake = facility.peer("alice"), partner.peer("alice")
    token = facility.token(alice, "data", rights=["read /files/"])
    closed, opened = Door(facility.trust(), clock), Door(facility.trust(partner), clock)
    assert closed.code("GET /files/x", namesake, token) == "domain-unknown"
    assert opened.code("GET /files/x", namesake, token) == "token-binding"
    theirs = partner.token(namesake, "data", rights=["read /files/"])
    assert closed.code("GET /files/x", alice, theirs) == "token-unknown-key"
    assert opened.code("GET /files/x", namesake, theirs) == "permit"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, "permit"),
        ({"groups": ["operators"]}, "permit"),
        ({"groups": []}, "group-required"),
        ({"groups": ["staff2"]}, "group-required"),
        ({"roles": ["visitor"]}, "role-required"),
        ({"projects": []}, "project-required"),
        ({"assurance": 1}, "assurance-too-low"),
    ],
)
def test_each_requirement_of_a_route_counts(door: Door, facility: Facility, change: dict[str, object], code: str) -> None:
    """Groups, roles and projects of the token and its assurance are compared with what the route demands."""
    alice = facility.peer("alice", assurance=3)
    stated = {"groups": ["staff"], "roles": ["scientist"], "projects": ["p1"], "assurance": 2} | change
    token = facility.token(alice, "data", rights=["read /beamline"], **stated)  # type: ignore[arg-type]  # a table of cases
    decision = door.ask("GET /beamline", alice, token)
    assert ("permit" if isinstance(decision, Permit) else decision.code) == code
    if isinstance(decision, Deny):
        assert decision.status == 403
        assert decision.held[-1] is Check.RIGHTS


def test_assurance_is_that_of_the_weaker_credential(door: Door, facility: Facility, clock: HandClock) -> None:
    """A strong token in the hands of a weak certificate is weak, and so is one above what its facility is trusted for."""
    stated = {"groups": ["staff"], "roles": ["scientist"], "projects": ["p1"]}
    weak = facility.peer("alice", assurance=1)
    token = facility.token(weak, "data", rights=["read /beamline"], assurance=3, **stated)
    assert door.code("GET /beamline", weak, token) == "assurance-too-low"
    strong = facility.peer("alice", assurance=3)
    token = facility.token(strong, "data", rights=["read /beamline"], assurance=3, **stated)
    assert door.code("GET /beamline", strong, token) == "permit"
    capped = Trust.of([TrustEntry(bundle=facility.bundle(), assurance_ceiling=1)], revocations=None)
    assert Door(capped, clock).code("GET /beamline", strong, token) == "assurance-too-low"


def test_the_ceiling_of_an_entry_bounds_a_token_in_a_partners_hands(facility: Facility, clock: HandClock) -> None:
    """A partner whose word counts little cannot raise it by handing its token to one of our well-proved people."""
    partner = Facility("nsls.example", clock=clock)
    entries = [TrustEntry(bundle=facility.bundle()), TrustEntry(bundle=partner.bundle(), assurance_ceiling=1)]
    rules = RULES.replace(b"spiffe://als.example/user/*", b"spiffe://nsls.example/*")
    visitor, ours = partner.peer("bob", assurance=3), facility.peer("alice", assurance=3)
    token = partner.token(
        visitor, "data", rights=["read /beamline"], assurance=3, groups=["staff"], roles=["scientist"], projects=["p1"]
    )
    handed = to_text(
        delegate(
            from_text(token), holder_key=visitor.key, to_certificate=ours.fingerprint, narrowing=Narrowing(operations=("read",))
        )
    )
    assert Door(Trust.of(entries, revocations=None), clock, rules).code("GET /beamline", ours, handed) == "assurance-too-low"
    assert Door(facility.trust(partner), clock, rules).code("GET /beamline", ours, handed) == "permit"


def test_principals_are_those_whose_rights_are_used(door: Door, facility: Facility, clock: HandClock) -> None:
    """With a token it is the token's user who is admitted; without, the holder of the certificate."""
    stated = {"groups": ["staff"], "roles": ["scientist"], "projects": ["p1"]}
    robot = facility.peer("robot", kind=Kind.AGENT)
    token = facility.token(robot, "data", rights=["read /beamline"], **stated)
    assert door.code("GET /beamline", robot, token) == "principal-not-allowed"
    alice = facility.peer("alice")
    handed = to_text(
        delegate(
            from_text(facility.token(alice, "data", rights=["read /beamline"], **stated)),
            holder_key=alice.key,
            to_certificate=robot.fingerprint,
            narrowing=Narrowing(operations=("read",)),
        )
    )
    assert door.code("GET /beamline", robot, handed) == "permit"
    rules = (
        b'version = 1\nservice = "data"\n[[route]]\npath = "/me"\naccess = "certificate"\n'
        b'require = {principals = ["spiffe://als.example/user/alice"], assurance = 2}\n'
    )
    only_alice = Door(door.trust, clock, rules)
    assert only_alice.code("GET /me", alice) == "permit"
    assert only_alice.code("GET /me", robot) == "principal-not-allowed"
    assert only_alice.code("GET /me", facility.peer("alice", assurance=1)) == "assurance-too-low"


def test_without_any_revocations_everything_is_denied(facility: Facility, clock: HandClock) -> None:
    """A door that has never heard what was withdrawn lets nobody in, and says that this is no fault of the caller."""
    door = Door(Trust.of([TrustEntry(bundle=facility.bundle())], revocations=lambda _domain: None), clock)
    alice = facility.peer("alice")
    for what in ("GET /me", "PUT /me"):
        deny = denied(door.ask(what, alice))
        assert (deny.code, deny.status) == ("revocations-unknown", 503)
    assert door.code("GET /livez") == "permit"


def test_the_domain_of_the_token_must_be_fresh_too(facility: Facility, clock: HandClock) -> None:
    """A token of a facility whose withdrawals are unknown is denied, although the certificate that shows it is ours."""
    partner = Facility("nsls.example", clock=clock)
    entries = [TrustEntry(bundle=facility.bundle()), TrustEntry(bundle=partner.bundle())]
    trust = Trust.of(entries, revocations=lambda domain: facility.revocations if domain == facility.domain else None)
    visitor, alice = partner.peer("bob"), facility.peer("alice")
    handed = to_text(
        delegate(
            from_text(partner.token(visitor, "data", rights=["read /files/"])),
            holder_key=visitor.key,
            to_certificate=alice.fingerprint,
            narrowing=Narrowing(operations=("read",)),
        )
    )
    deny = denied(Door(trust, clock).ask("GET /files/x", alice, handed))
    assert (deny.code, deny.status, deny.held[-1]) == ("revocations-unknown", 503, Check.TOKEN)
    assert Door(facility.trust(partner), clock).code("GET /files/x", alice, handed) == "permit"


def test_a_limit_of_the_engine_is_no_decision(facility: Facility, clock: HandClock) -> None:
    """A token that exhausts the engine, had it passed the lint, would be answered with 503 and not be taken for a denial."""
    alice = facility.peer("alice")
    trust, now = facility.trust(), clock()
    peer = PeerVerifier(trust).verify(alice.chain_der, now=now)
    token = TokenVerifier(trust).verify(facility.token(alice, "data", rights=["read /files/"]), now=now)
    bomb = BiscuitBuilder("pair($x, $y) <- n($x), n($y);" + "".join(f"n({number});" for number in range(40)))
    hostile = replace(token, biscuit=bomb.build(PrivateKey("ed25519-private/" + "11" * 32)))
    with pytest.raises(UnavailableError) as caught:
        decide(
            request=request("GET /files/x"), policy=Policy.parse(RULES), state=trust.state, peer=peer, token=hostile, now=now
        )
    assert caught.value.code == "decision-limit"


def test_four_busy_neighbours_cause_no_denial(door: Door, facility: Facility) -> None:
    """On a machine whose cores are all taken, every valid request is permitted: load is no reason to deny."""
    alice = facility.peer("alice")
    token = facility.token(alice, "data", rights=["read /files/"])

    def code(path: str) -> str:
        try:
            return door.code(path, alice, token)
        except UnavailableError:  # the whole machine stood still for half a second: it is for the client to come again
            return door.code(path, alice, token)

    neighbours = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        codes = [code(f"GET /files/{number}") for number in range(1000)]
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()
    assert codes == ["permit"] * 1000


MEMBERS = b"""
version = 1
service = "data"
[[route]]
path = "/files/"
access = "token"
[route.require]
members_any = ["nsls.example:run7", "nsls.example:run9"]
"""


def test_a_route_can_ask_for_another_facilitys_word() -> None:
    """With a group that a known key of that very facility vouches for; the issuer's own group of that name is none."""
    clock = HandClock()
    als, nsls, esrf = (Facility(f"{name}.example", clock=clock) for name in ("als", "nsls", "esrf"))
    alice = als.peer("alice")
    door = Door(als.trust(attesters=[nsls.attester("run*"), esrf.attester("run*")]), clock, MEMBERS)
    names = ("run7", "nsls.example:run7")
    plain = als.token(alice, "data", rights=["read /files/"], groups=names, roles=names, projects=names)

    def code(token: str) -> str:
        return door.code("GET /files/x", alice, token)

    assert code(plain) == "member-required"
    assert code(nsls.vouch(plain, "run7")) == "permit"
    assert code(nsls.vouch(plain, "run8", "run9")) == "permit"
    assert code(nsls.vouch(plain, "run8")) == "member-required"
    assert code(esrf.vouch(plain, "run7")) == "member-required"
    assert code(nsls.vouch(esrf.vouch(plain, "run1"), "run7")) == "permit"
    assert code(nsls.vouch(plain, "staff")) == "token-attestation"
    ending = nsls.vouch(plain, "run7", lifetime=timedelta(minutes=1))
    clock.forward(minutes=1)
    assert code(ending) == "token-expired"
    assert code(nsls.vouch(plain, "run7")) == "permit"


def test_anothers_word_is_no_group_of_the_issuers() -> None:
    """A trusted attester makes nobody a member of a group that the route expects the token's own facility to state."""
    clock = HandClock()
    als = Facility("als.example", clock=clock)
    alice = als.peer("alice")
    rules = MEMBERS.replace(b'members_any = ["nsls.example:run7", "nsls.example:run9"]', b'groups_any = ["run7"]')
    for attesting in (Facility("nsls.example", clock=clock), als):
        door = Door(als.trust(attesters=[attesting.attester()]), clock, rules)
        token = attesting.vouch(als.token(alice, "data", rights=["read /files/"]), "run7", "als.example:run7")
        assert door.code("GET /files/x", alice, token) == "group-required"
