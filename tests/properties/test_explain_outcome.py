"""What ``certauth signer issuer explain`` foretells is what happens: any rules, any login, whatever is known of it already.

The one side only looks. The other is the road of ``POST /v1/certificates`` from the identity on, with the real ledger, on a
copy of the same SQLite database.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from certauth import certificates, keys
from certauth.audit import record
from certauth.clock import system_clock
from certauth.enrolment import EnrolledRight, Enrolment, Login, Terms
from certauth.errors import CertauthError
from certauth.identity import Binding, ProofKind, VerifiedIdentity, registry
from certauth.issuance import CertificateGrant
from certauth.keys import Algorithm
from certauth.names import Kind, Principal, TrustDomain
from certauth.profiles import BACKDATE
from signer.admitting import Admitting
from signer.authority import Authority
from signer.changing import change
from signer.cli.common import facility as opened
from signer.codes import CODE_ISSUER, digest_of
from signer.foreseeing import Foreseeing, Foreseen, Wish
from signer.issuing import Issuing
from signer.ledger import Replay, Submission
from signer.recording import Recorder
from signer.rows import ApplicationRow, ApplicationState, Change, CodeRow, CodeUsed, EnrolmentRow, Purpose, StoreRow
from signer.schemas import CertificateBody, CodeProof
from signer.service import open_ledger
from signer.settings import GrantSettings, IssuerSettings, Settings
from signer.standing import Standing
from signer.store import Store
from tests.signer.kit import DOMAIN, facility, make_csr

IDP = "https://idp.example"
DOMAIN_ = TrustDomain(DOMAIN)
KEY = keys.generate(Algorithm.P256)
CSR = make_csr(KEY)
USED, FRESH = b"u" * 32, b"f" * 32
CODES = {name: name * 13 for name in ("ab", "cd", "ef", "gh", "ij", "kl")}
RULES: Mapping[str, Mapping[str, Any]] = {
    "all": {"when": {"everyone": True}},
    "by uid": {"when": {"everyone": True}, "subject": "user/{claim:/uid}"},
    "staff": {
        "when": {"all": [{"claim": "/groups", "any": ["staff"]}]},
        "groups": ["beamline"],
        "rights": [{"service": "data", "operations": ["read"], "path": "/a/"}],
    },
    "jobs": {"when": {"kinds": ["workload"]}, "subject": "agent/job-{sub|hash}", "max_lifetime": "2h"},
    "weak": {"when": {"everyone": True}, "assurance": 0},
    "brief": {"when": {"everyone": True}, "max_lifetime": "15m"},
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Place:
    """A facility in which everything has happened to somebody, and the moment at which it stands still."""

    directory: Path
    settings: Settings
    authority: Authority
    store: Store
    now: datetime

    def with_issuer(self, mode: str, rules: list[str]) -> Settings:
        """Its settings with one provider: these rules, this mode."""
        issuer = {
            "id": "campus",
            "url": IDP,
            "client_id": "signer",
            "enrolment": mode,
            "kinds": ("id_token", "access_token", "workload"),
            "bindings": ("nonce", "dpop", "audience"),
            "access_token_audience": "https://signer.example",
            "max_lifetime": "20h",
            "rule": [{"name": name, **RULES[name]} for name in rules],
        }
        grant = GrantSettings(group="beamline", service="beam", operations=("read", "write"), path="/run/")
        admins = (f"spiffe://{DOMAIN}/user/root",)
        return self.settings.model_copy(
            update={"issuer": (IssuerSettings.model_validate(issuer),), "grant": (grant,), "admins": admins}
        )


def principal(name: str, kind: Kind = Kind.USER) -> Principal:
    """Somebody of the facility."""
    return Principal(DOMAIN_, kind, name)


def enrolments(now: datetime) -> Iterator[Enrolment]:
    """One of each: whoever proves to be subject ``x`` at the provider is ``x`` here."""

    def one(name: str, kind: Kind = Kind.USER, **terms: Any) -> Enrolment:
        return Enrolment(principal=principal(name, kind), logins=(Login(IDP, name),), **terms)

    yield one("plain", rights=(EnrolledRight("files", "read", "/plain/"),))
    yield one("member", groups=("beamline",), rights=(EnrolledRight("beam", "read", "/run/7/"),))
    yield one("disabled", disabled=True)
    yield one("ended", expires_at=now - timedelta(seconds=1))
    yield one("ending", expires_at=now + timedelta(seconds=30))
    yield one("inside", networks=(ip_network("10.0.0.0/8"),))
    yield one("doubtful", assurance=0)
    yield one("short", max_lifetime=timedelta(minutes=10))
    yield one("job", Kind.AGENT, owner=principal("plain"), rights=(EnrolledRight("files", "read", "/plain/x/"),))
    yield one("orphan", Kind.AGENT, owner=principal("disabled"))
    yield one("heir", Kind.AGENT, owner=principal("ended"))
    yield one("daq", Kind.SERVICE, networks=(ip_network("10.0.0.0/8"),))
    own = str(principal("robot", Kind.SERVICE))
    yield Enrolment(principal=principal("robot", Kind.SERVICE), logins=(Login(own, own),))


SUBJECTS = (
    *("plain", "member", "disabled", "ended", "ending", "inside", "doubtful", "short", "job", "orphan", "heir", "daq"),
    *("waiting", "denied", "approved", "stranger"),
)


def codes(now: datetime) -> Iterator[StoreRow]:
    """Invitations as they come: open, with a name, for an address, for another provider, run out; and a machine's code."""

    def one(name: str, **members: Any) -> CodeRow:
        base = {"purpose": Purpose.INVITE, "expires_at": now + timedelta(hours=1), "by": "an admin", "at": now}
        return CodeRow(digest=digest_of(CODES[name]), **{**base, **members})

    yield one("ab", terms=Terms(rights=(EnrolledRight("files", "read", "/new/"),), max_lifetime=timedelta(hours=1)))
    yield one("cd", principal=principal("plain"))
    yield one("ef", email="a@x.example", principal=principal("invited"))
    yield one("gh", issuer="https://elsewhere.example")
    yield one("ij", expires_at=now)
    yield one("kl", purpose=Purpose.MACHINE, principal=principal("robot", Kind.SERVICE))
    yield CodeUsed(digest=digest_of(CODES["ij"]), by="spiffe://x/user/y", at=now)


def applications(now: datetime) -> Iterator[ApplicationRow]:
    """What became of three who asked."""
    for state in ApplicationState:
        yield ApplicationRow(
            login=Login(IDP, str(state)), name=str(principal("n")), display="", email="", state=state, asked_at=now
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The facility; nothing writes to it any more."""
    directory, now = tmp_path_factory.mktemp("site"), system_clock()
    with facility(directory) as site, opened(site.settings_file, allow_example_keys=False) as made:
        people = [EnrolmentRow(enrolment=each, display="", by="a test", at=now, change=Change.NEW) for each in enrolments(now)]
        act = change(
            action="test",
            principal=principal("root"),
            by="a test",
            why="a test",
            rows=(*people, *list(codes(now))[:-1], *applications(now)),
        )
        made.ledger.record(act)
        made.ledger.record(change(action="test", principal=principal("root"), by="t", why="t", rows=(list(codes(now))[-1],)))
        denied = record.Denied(operation="certificate", code="x", principal=None, issuer=None)
        until = now + timedelta(hours=1)
        made.ledger.record(
            Submission(request_id="used-before", digest=b"d", event=denied, replay=Replay(key=USED, until=until))
        )
        yield Place(directory=directory, settings=made.settings, authority=made.authority, store=made.store, now=system_clock())


@st.composite
def logins(draw: st.DrawFn) -> dict[str, Any]:
    """A login, as everything that the decision could look at."""
    return {
        "kind": draw(
            st.sampled_from([ProofKind.ID_TOKEN, ProofKind.ID_TOKEN, ProofKind.ACCESS_TOKEN, ProofKind.WORKLOAD])
            | st.sampled_from([ProofKind.CLIENT_ASSERTION, ProofKind.CODE])
        ),
        "subject": draw(st.sampled_from(SUBJECTS) | st.just("stranger")),
        "assurance": draw(st.integers(0, 3)),
        "digest": draw(st.sampled_from([FRESH, FRESH, USED])),
        "email": draw(st.sampled_from([None, "a@x.example", "b@x.example"])),
        "claims": draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "uid": st.sampled_from(["plain", "new", "root", "no name"]),
                    "groups": st.sampled_from([["staff"], ["guest"]]),
                },
            )
        ),
    }


def identity(login: Mapping[str, Any], now: datetime) -> VerifiedIdentity:
    """The login as verified."""
    kind: ProofKind = login["kind"]
    itself = str(principal("robot", Kind.SERVICE)) if kind in {ProofKind.CLIENT_ASSERTION, ProofKind.CODE} else None
    digest: bytes = bytes.fromhex(digest_of(CODES["kl"])) if kind is ProofKind.CODE else login["digest"]
    return VerifiedIdentity(
        issuer_id="campus" if itself is None else CODE_ISSUER if kind is ProofKind.CODE else "assertion",
        issuer=itself or IDP,
        subject=itself or login["subject"],
        kind=kind,
        binding=Binding.NONCE,
        assurance=login["assurance"],
        auth_time=None,
        acr=None,
        amr=(),
        email=login["email"],
        name=None,
        issued_at=now,
        expires_at=now + timedelta(minutes=5),
        proof_digest=digest,
        replay_until=now + timedelta(minutes=6),
        claims={"sub": login["subject"], **login["claims"]},
    )


class Proven:
    """``Proving``, after the proof was verified."""

    def __init__(self, who: VerifiedIdentity) -> None:
        self._who = who

    async def identity(self, *_: object) -> VerifiedIdentity:
        return self._who


@contextlib.contextmanager
def copied(place: Place, settings: Settings) -> Iterator[Settings]:
    """Settings of a copy of the database."""
    path = place.directory / f"copy-{secrets.token_hex(6)}.db"
    with contextlib.closing(sqlite3.connect(place.store.path)) as ours, contextlib.closing(sqlite3.connect(path)) as other:
        ours.backup(other)
        other.execute("PRAGMA journal_mode = WAL")
    path.chmod(0o600)
    try:
        yield settings.model_copy(update={"database": path})
    finally:
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()


def contents(store: Store) -> str:
    """Everything in the database, as a hash."""
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()


Outcome = tuple[object, ...]


def happens(place: Place, settings: Settings, who: VerifiedIdentity, wish: Wish) -> Outcome:
    """What the road of a request comes to, on a copy."""
    with copied(place, settings) as elsewhere:
        clock = lambda: place.now  # noqa: E731
        store, ledger = open_ledger(elsewhere, place.authority, clock=clock)
        try:
            standing = Standing(store=store, entitlements=[one for grant in settings.grant for one in grant.entitlements()])
            issuing = Issuing(
                settings=elsewhere,
                authority=place.authority,
                store=store,
                recorder=Recorder(ledger=ledger, clock=clock),
                proving=Proven(who),  # type: ignore[arg-type]  # it is past that
                admitting=Admitting(
                    issuers=registry(issuer.issuer() for issuer in settings.issuer),
                    rules={issuer.id: issuer.rules for issuer in settings.issuer},
                    store=store,
                    domain=settings.domain,
                    admins=settings.admins,
                ),
                standing=standing,
                clock=clock,
            )
            body = CertificateBody(
                csr=CSR,
                proof=CodeProof(type="code", code="not looked at any more"),
                invite=wish.invite,
                lifetime=None if wish.lifetime is None else int(wish.lifetime.total_seconds()),
            )
            try:
                issued = asyncio.run(issuing.certificate(body, address=wish.address, request_id="the-request"))
            except CertauthError as error:
                return ("refused", error.code, error.message)
            leaf: x509.Certificate = certificates.load_chain(str(issued.body["certificate_chain"]).encode())[0]
            kept = store.certificate(certificates.fingerprint(leaf))
            assert kept is not None
            enrolled = store.enrolment_by_principal(kept.row.principal)
            assert enrolled is not None
            lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc - BACKDATE
            rights = standing.rights(enrolled, kept.row.terms)
            return ("granted", str(kept.row.principal), lifetime, certificates.assurance_of(leaf), rights)
        finally:
            ledger.close()
            store.close()


def foretold(foreseen: Foreseen) -> Outcome:
    """The same of what was foretold."""
    outcome = foreseen.outcome
    if isinstance(outcome, CertificateGrant):
        lifetime = outcome.not_after - outcome.not_before - BACKDATE
        return ("granted", str(outcome.principal), lifetime, outcome.assurance, foreseen.rights)
    return ("refused", outcome.code, outcome.reason)


def compared(place: Place, settings: Settings, who: VerifiedIdentity, wish: Wish) -> Outcome:
    """What is foretold, which is what happens then; and whoever asks what would happen changes nothing."""
    foreseeing = Foreseeing(settings=settings, store=place.store, issuer_not_after=place.authority.issuing.not_valid_after_utc)
    before = contents(place.store)
    said = foretold(foreseeing.certificate(who, wish, place.now))
    assert contents(place.store) == before
    assert said == happens(place, settings, who, wish)
    return said


@given(
    mode=st.sampled_from(["enrolled", "open", "invite", "approve"]),
    rules=st.lists(st.sampled_from(sorted(RULES)), max_size=2, unique=True),
    login=logins(),
    invite=st.none() | st.sampled_from([*CODES.values(), "nobody-ever-made-this"]),
    lifetime=st.sampled_from([None, None, timedelta(seconds=30), timedelta(minutes=15), timedelta(days=10)]),
    address=st.sampled_from([None, ip_address("10.1.2.3"), ip_address("192.0.2.1")]),
)
def test_what_is_foretold_is_what_happens(
    place: Place, mode: str, rules: list[str], login: dict[str, Any], invite: str | None, lifetime: Any, address: Any
) -> None:
    """R16 for the whole decision."""
    wish = Wish(invite=invite, lifetime=lifetime, address=address)
    compared(place, place.with_issuer(mode, rules), identity(login, place.now), wish)


@pytest.mark.parametrize(
    ("mode", "rules", "login", "wish", "outcome"),
    [
        ("enrolled", [], {"subject": "plain"}, {}, "granted"),
        ("enrolled", ["staff"], {"subject": "plain", "claims": {"groups": ["staff"]}}, {}, "granted"),
        ("enrolled", [], {"subject": "plain", "digest": USED}, {}, "replayed"),
        ("enrolled", [], {"subject": "disabled"}, {}, "principal-disabled"),
        ("enrolled", [], {"subject": "ended"}, {}, "enrolment-ended"),
        ("enrolled", [], {"subject": "ending"}, {}, "lifetime-exhausted"),
        ("enrolled", [], {"subject": "inside"}, {}, "address-not-allowed"),
        ("enrolled", [], {"subject": "inside"}, {"address": ip_address("10.9.9.9")}, "granted"),
        ("enrolled", [], {"subject": "doubtful"}, {}, "assurance-too-low"),
        ("enrolled", ["weak"], {"subject": "plain"}, {}, "assurance-too-low"),
        ("enrolled", [], {"subject": "plain"}, {"lifetime": timedelta(seconds=5)}, "lifetime-invalid"),
        ("enrolled", ["staff"], {"subject": "plain"}, {}, "not-admitted"),
        ("enrolled", [], {}, {}, "not-enrolled"),
        ("enrolled", [], {"subject": "orphan"}, {}, "principal-disabled"),
        ("enrolled", [], {"subject": "heir"}, {}, "enrolment-ended"),
        ("enrolled", [], {"subject": "job", "kind": ProofKind.WORKLOAD}, {}, "granted"),
        ("enrolled", [], {"subject": "plain", "kind": ProofKind.WORKLOAD}, {}, "profile-not-available"),
        ("enrolled", [], {"kind": ProofKind.CODE}, {}, "granted"),
        ("enrolled", [], {"kind": ProofKind.CLIENT_ASSERTION}, {}, "granted"),
        ("open", [], {}, {}, "granted"),
        ("open", ["by uid"], {"claims": {"uid": "plain"}}, {}, "name-taken"),
        ("open", ["by uid"], {"claims": {"uid": "root"}}, {}, "not-admitted"),
        ("open", ["by uid"], {"claims": {"uid": "new"}, "kind": ProofKind.WORKLOAD}, {}, "not-admitted"),
        ("approve", [], {}, {}, "approval-pending"),
        ("approve", [], {"subject": "waiting"}, {}, "approval-pending"),
        ("approve", [], {"subject": "denied"}, {}, "approval-denied"),
        ("invite", [], {}, {}, "invite-needed"),
        ("invite", [], {}, {"invite": CODES["ab"]}, "granted"),
        ("invite", [], {}, {"invite": CODES["cd"]}, "name-taken"),
        ("invite", ["staff"], {}, {"invite": CODES["ab"]}, "not-admitted"),
        ("invite", [], {"email": "b@x.example"}, {"invite": CODES["ef"]}, "invite-invalid"),
        ("invite", [], {"email": "a@x.example"}, {"invite": CODES["ef"]}, "granted"),
        ("invite", [], {}, {"invite": CODES["ij"]}, "invite-invalid"),
    ],
)  # fmt: skip
def test_everything_that_can_end_a_request(
    place: Place, mode: str, rules: list[str], login: dict[str, Any], wish: dict[str, Any], outcome: str
) -> None:
    """The same for one situation of each kind, whatever the examples above met."""
    plain: dict[str, Any] = {"kind": ProofKind.ID_TOKEN, "subject": "stranger", "assurance": 2, "digest": FRESH}
    who = identity({**plain, "email": None, "claims": {}, **login}, place.now)
    found = compared(place, place.with_issuer(mode, rules), who, Wish(**wish))
    assert (found[1] if found[0] == "refused" else "granted") == outcome
