"""From an identity to an enrolment, without the wire: names, administrators, agents, and who may not even wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import pytest
import structlog.testing

from certauth.clock import system_clock
from certauth.enrolment import Enrolment, Login
from certauth.identity import Binding, Issuer, ProofKind, VerifiedIdentity
from certauth.identity.mapping import Outputs, Rule, When
from certauth.identity.mapping.templates import Template
from certauth.issuance import Refusal
from certauth.names import Kind, Principal, TrustDomain
from signer.admitting import MAX_WAITING, Admitting, own_name, settled
from signer.changing import change
from signer.cli.common import Facility
from signer.cli.common import facility as opened
from signer.codes import digest_of
from signer.ledger import Submission
from signer.rows import ApplicationRow, ApplicationState, Change, CodeRow, EnrolmentRow, Purpose, StoreRow
from tests.signer.kit import DOMAIN, facility

IDP = "https://idp.example"
DOMAIN_ = TrustDomain(DOMAIN)
ROOT = Principal(DOMAIN_, Kind.USER, "root")
Mode = Literal["enrolled", "open", "invite", "approve"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    """An open facility, one for all tests: each has subjects of its own."""
    with facility(tmp_path_factory.mktemp("site")) as site, opened(site.settings_file, allow_example_keys=False) as made:
        yield made


def identity(subject: str, *, kind: ProofKind = ProofKind.ID_TOKEN, **changes: Any) -> VerifiedIdentity:
    """Somebody whom the provider vouches for."""
    now = system_clock()
    made = VerifiedIdentity(
        issuer_id="campus",
        issuer=IDP,
        subject=subject,
        kind=kind,
        binding=Binding.NONCE,
        assurance=2,
        auth_time=None,
        acr=None,
        amr=(),
        email=None,
        name=None,
        issued_at=now,
        expires_at=now + timedelta(minutes=5),
        proof_digest=b"d" * 32,
        replay_until=now + timedelta(minutes=6),
        claims={"sub": subject},
    )
    return replace(made, **changes)


def rule(subject: str) -> Rule:
    """Everybody is called this."""
    return Rule(name="fixed", when=When(everyone=True), outputs=Outputs(subject=Template.parse(subject)))


def admitting(place: Facility, mode: Mode, *, rules: Sequence[Rule] = (), admins: Sequence[str] = ()) -> Admitting:
    """The part under test, with one provider."""
    issuer = Issuer(id="campus", url=IDP, audience="signer", algorithms=frozenset({"ES256"}), enrolment=mode)
    return Admitting(issuers={IDP: issuer}, rules={"campus": rules}, store=place.store, domain=DOMAIN_, admins=admins)


def record(place: Facility, *rows: StoreRow) -> None:
    """Store rows, as an act."""
    place.ledger.record(change(action="test", principal=ROOT, by="a test", why="a test", rows=rows))


def enrol(place: Facility, enrolment: Enrolment, how: Change = Change.NEW) -> None:
    """Store an enrolment."""
    record(place, EnrolmentRow(enrolment=enrolment, display="", by="a test", at=system_clock(), change=how))


def invitation(place: Facility, text: str, principal: Principal | None = None) -> str:
    """A recorded invitation."""
    now = system_clock()
    expires_at = now + timedelta(hours=1)
    row = CodeRow(
        digest=digest_of(text), purpose=Purpose.INVITE, principal=principal, expires_at=expires_at, by="an admin", at=now
    )
    record(place, row)
    return text


def refusal_of(found: Any) -> Refusal:
    """The refusal, with nothing granted."""
    assert (found.enrolment, found.newcomer) == (None, False)
    assert isinstance(found.refusal, Refusal)
    return found.refusal


@pytest.mark.parametrize("mode", ["open", "approve"])
def test_no_login_becomes_an_administrator(place: Facility, mode: Mode) -> None:
    """A mapped name that the settings list as an administrator's is refused and nothing is recorded; another is not."""
    for name, code in (("root", "not-admitted"), ("ruth", None if mode == "open" else "approval-pending")):
        part = admitting(place, mode, rules=[rule(f"user/{name}")], admins=[str(ROOT)])
        found = part.admit(identity(f"{mode}-{name}"), invite=None, at=system_clock())
        said = found.refusal
        assert (None if said is None else said.code) == code
        assert (found.rows == ()) is (code == "not-admitted")


def test_an_invitation_that_names_nobody_does_not_make_an_administrator(place: Facility) -> None:
    """The name comes from the rule then, and a rule makes no administrator; an administrator's own word can."""
    part = admitting(place, "invite", rules=[rule("user/root")], admins=[str(ROOT)])
    nameless = part.admit(identity("n-1"), invite=invitation(place, "a" * 26), at=system_clock())
    assert refusal_of(nameless).code == "not-admitted"
    said = part.admit(identity("n-1"), invite=invitation(place, "b" * 26, ROOT), at=system_clock())
    assert said.enrolment is not None
    assert said.enrolment.principal == ROOT


def test_a_pseudonym_is_not_an_administrator_either(place: Facility) -> None:
    """Without rules the name is a hash; listed as an administrator's, it is refused like any other."""
    someone = identity("p-1")
    listed = f"spiffe://{DOMAIN}/user/{own_name(someone)}"
    part = admitting(place, "open", admins=[listed])
    assert refusal_of(part.admit(someone, invite=None, at=system_clock())).code == "not-admitted"


@pytest.mark.parametrize(
    ("subject", "kind", "reason"),
    [
        ("agent/x", ProofKind.ID_TOKEN, "would make a agent"),
        ("user/x", ProofKind.WORKLOAD, "would make a user"),
        ("user/root", ProofKind.ID_TOKEN, "an administrator"),
    ],
)
def test_the_outside_hears_one_sentence_for_every_rule(place: Facility, subject: str, kind: ProofKind, reason: str) -> None:
    """What a rule does wrong is in the signer's log; the refusal is the same for all, and names no rule."""
    part = admitting(place, "open", rules=[rule(subject)], admins=[str(ROOT)])
    with structlog.testing.capture_logs() as logs:
        said = refusal_of(part.admit(identity("o-1", kind=kind), invite=None, at=system_clock()))
    assert reason in logs[-1]["reason"]
    assert (said.code, "fixed" in f"{said.reason}{said.hint}") == ("not-admitted", False)
    assert "o-1" not in str(logs)


def test_an_agent_is_no_more_enabled_than_its_owner(place: Facility) -> None:
    """An agent whose owner is disabled, or gone, is disabled however it proves itself."""
    owner = Principal(DOMAIN_, Kind.USER, "olga")
    enrol(place, Enrolment(principal=owner, logins=(Login(IDP, "olga"),)))
    for name, boss in (("olga.job", owner), ("ghost.job", Principal(DOMAIN_, Kind.USER, "ghost"))):
        agent = Principal(DOMAIN_, Kind.AGENT, name)
        enrol(place, Enrolment(principal=agent, logins=(Login(str(agent), str(agent)),), owner=boss))
    part = admitting(place, "enrolled")

    def is_disabled(name: str) -> bool:
        uri = f"spiffe://{DOMAIN}/agent/{name}"
        shown = identity(uri, kind=ProofKind.CLIENT_ASSERTION, issuer=uri, issuer_id="assertion")
        found = part.admit(shown, invite=None, at=system_clock()).enrolment
        assert found is not None
        return found.disabled

    assert (is_disabled("olga.job"), is_disabled("ghost.job")) == (False, True)
    enrol(place, Enrolment(principal=owner, disabled=True), Change.STATE)
    assert is_disabled("olga.job")


def test_a_machines_token_uses_no_invitation(place: Facility) -> None:
    """An invitation is for a person: a CI job that got hold of one is refused, and the invitation still works."""
    code = invitation(place, "c" * 26, Principal(DOMAIN_, Kind.USER, "cleo"))
    part = admitting(place, "invite")
    job = part.admit(identity("job-1", kind=ProofKind.WORKLOAD), invite=code, at=system_clock())
    assert refusal_of(job).code == "invite-invalid"
    assert part.admit(identity("cleo"), invite=code, at=system_clock()).newcomer


def test_only_so_many_may_wait(place: Facility) -> None:
    """A provider that makes up people fills a bounded queue; who waits already is still told so, and no row is added."""
    at = system_clock()
    waiting = [
        ApplicationRow(
            login=Login(IDP, f"w-{i}"),
            name=f"spiffe://{DOMAIN}/user/w{i}",
            display="",
            email="",
            state=ApplicationState.WAITING,
            asked_at=at,
        )
        for i in range(MAX_WAITING)
    ]
    part = admitting(place, "approve")
    assert refusal_of(part.admit(identity("late"), invite=None, at=at)).code == "approval-pending"
    record(place, *waiting)
    found = part.admit(identity("late"), invite=None, at=at)
    assert (refusal_of(found).code, found.rows) == ("approval-queue-full", ())
    assert refusal_of(part.admit(identity("w-7"), invite=None, at=at)).code == "approval-pending"
    decided = [replace(one, state=ApplicationState.DENIED) for one in waiting]
    record(place, *decided)
    assert refusal_of(part.admit(identity("late"), invite=None, at=at)).code == "approval-pending"


def test_an_application_is_settled_by_being_enrolled() -> None:
    """Whoever is enrolled, in whatever way, waits no more; without an application nothing is recorded."""
    at = system_clock()
    assert settled(None, by="x", at=at) == ()
    earlier = ApplicationRow(login=Login(IDP, "s"), name="n", display="", email="", state=ApplicationState.DENIED, asked_at=at)
    (row,) = settled(earlier, by="an admin", at=at)
    assert (row.state, row.name, row.decided_by) == (ApplicationState.APPROVED, "n", "an admin")


def test_a_submission_is_named_anew_each_time() -> None:
    """Two acts are two entries, also when they say the same."""
    acts: list[Submission] = [change(action="a", principal=ROOT, by="b", why="c", rows=()) for _ in range(2)]
    assert acts[0].request_id != acts[1].request_id
    assert acts[0].digest == acts[1].digest
