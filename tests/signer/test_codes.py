"""One-time codes: what they are made of, what is stored of them, and that the ledger lets each be used once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from certauth.clock import system_clock
from certauth.enrolment import Enrolment, Login
from certauth.errors import CertauthError, ProofError, Refused
from certauth.names import Kind, Principal, TrustDomain
from signer.changing import change
from signer.cli.common import Facility
from signer.cli.common import facility as opened
from signer.codes import CODE_BYTES, Codes, digest_of, make_code, same_address, unusable
from signer.ledger import Committed, Replay, Submission
from signer.reading import CodeState, StoredCode
from signer.rows import Change, CodeRow, CodeUsed, CodeWithdrawn, EnrolmentRow, Purpose, StoreRow
from tests.signer.kit import DOMAIN, facility

HOUR = timedelta(hours=1)
INGEST = Principal(TrustDomain(DOMAIN), Kind.SERVICE, "ingest")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Facility]:
    """An open facility."""
    with facility(tmp_path) as site, opened(site.settings_file, allow_example_keys=False) as made:
        yield made


def submission(*rows: StoreRow, replay: bytes | None = None) -> Submission:
    """An act with these rows, and perhaps a proof that is used once."""
    made = change(action="test", principal=INGEST, by="a test", why="a test", rows=rows)
    return made if replay is None else replace(made, replay=Replay(key=replay, until=system_clock() + HOUR))


def handed_out(place: Facility, purpose: Purpose, *, principal: Principal | None = None) -> tuple[str, str]:
    """A recorded code and its digest."""
    code, now = make_code(secrets.token_bytes(CODE_BYTES)), system_clock()
    row = CodeRow(digest=digest_of(code), purpose=purpose, principal=principal, expires_at=now + HOUR, by="a test", at=now)
    place.ledger.record(submission(row))
    return code, row.digest


def outcome(future: Future[Committed]) -> Committed | BaseException:
    """What became of a submission."""
    return future.exception(30) or future.result()


def used(digest: str, who: str) -> CodeUsed:
    """Somebody used it, now."""
    return CodeUsed(digest=digest, by=who, at=system_clock())


def test_a_code_has_128_bits_and_survives_being_typed() -> None:
    """Sixteen bytes, no more and no less; upper case, blanks and missing dashes make no difference, another letter does."""
    code = make_code(bytes(range(CODE_BYTES)))
    assert make_code(bytes(range(1, CODE_BYTES + 1))) != code
    assert digest_of(f" {code.upper().replace('-', ' ')}\r\n") == digest_of(code)
    assert digest_of(code[:-1] + ("b" if code[-1] == "a" else "a")) != digest_of(code)
    for size in (0, 15, 17):
        with pytest.raises(ValueError, match="16 random bytes"):
            make_code(bytes(size))


def test_a_digest_is_made_of_any_text() -> None:
    """Half a surrogate pair, which JSON can hold, is a code that does not exist and not a crash."""
    assert len(digest_of("\ud800 \udfff" * 8)) == 64


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Grace@Campus.Example", "grace@campus.example", True),
        ("kate@x.example", "\u212aate@x.example", False),
        ("\u212aate@x.example", "\u212aate@x.example", False),
        ("strasse@x.example", "stra\u00dfe@x.example", False),
        ("grace@x.example", "grace@x.example.", False),
        ("grace@x.example", "", False),
    ],
)
def test_addresses_are_compared_in_ascii(one: str, other: str, same: bool) -> None:
    """No two letters are equal but for their case in ASCII: an address nobody gave cannot open an invitation."""
    assert same_address(one, other) is same
    assert same_address(other, one) is same


def test_a_code_is_open_then_used_withdrawn_or_expired() -> None:
    """Its state follows from what was stored, and only an open code of the right purpose is usable."""
    now = system_clock()
    row = CodeRow(digest="d", purpose=Purpose.INVITE, expires_at=now + HOUR, by="x", at=now)
    spent = CodeWithdrawn(digest="d", by="admin root", at=now).columns()["used_by"]
    codes = {
        CodeState.OPEN: StoredCode(row=row, used_at=None, used_by=None),
        CodeState.USED: StoredCode(row=row, used_at=now, used_by=str(INGEST)),
        CodeState.WITHDRAWN: StoredCode(row=row, used_at=now, used_by=spent),
        CodeState.EXPIRED: StoredCode(row=replace(row, expires_at=now), used_at=None, used_by=None),
    }
    for state, code in codes.items():
        assert code.state(now) is state
        assert unusable(code, Purpose.INVITE, now=now) is (state is not CodeState.OPEN)
        assert unusable(code, Purpose.MACHINE, now=now)
    assert unusable(None, Purpose.INVITE, now=now)


@pytest.mark.parametrize("together", [True, False], ids=["one batch", "two batches"])
def test_of_two_grants_that_use_one_invitation_one_is_recorded(place: Facility, together: bool) -> None:
    """Both were decided while it was unused. The ledger records one, and the other is refused with a stable code."""
    _, digest = handed_out(place, Purpose.INVITE)
    first = place.ledger.submit(submission(used(digest, "first")))
    if not together:
        first.result(30)
    second = place.ledger.submit(submission(used(digest, "second")))
    assert isinstance(outcome(first), Committed)
    refusal = outcome(second)
    assert isinstance(refusal, Refused)
    assert (refusal.code, refusal.hint is not None) == ("invite-invalid", True)
    stored = place.store.code(digest)
    assert stored is not None
    assert stored.used_by == "first"


def test_a_machines_code_that_was_withdrawn_meanwhile_grants_nothing(place: Facility) -> None:
    """Withdrawn between the decision and its record, a code is no proof any more."""
    code, digest = handed_out(place, Purpose.MACHINE, principal=INGEST)
    codes = Codes(store=place.store)
    assert codes.identity(code, now=system_clock()).subject == str(INGEST)
    place.ledger.record(submission(CodeWithdrawn(digest=digest, by="a test", at=system_clock())))
    late = submission(used(digest, str(INGEST)), replay=bytes.fromhex(digest))
    refusal = outcome(place.ledger.submit(late))
    assert isinstance(refusal, ProofError)
    assert refusal.code == "code-invalid"
    with pytest.raises(ProofError, match="does not exist"):
        codes.identity(code, now=system_clock())


def test_a_used_machine_code_is_known_until_it_expires_for_the_answer_that_was_lost(place: Facility) -> None:
    """The same request finds its grant; another one with the code is a replay."""
    code, digest = handed_out(place, Purpose.MACHINE, principal=INGEST)
    key = bytes.fromhex(digest)
    place.ledger.record(submission(used(digest, str(INGEST)), replay=key))
    identity = Codes(store=place.store).identity(code, now=system_clock())
    assert identity.proof_digest == key
    refusal = outcome(place.ledger.submit(submission(used(digest, str(INGEST)), replay=key)))
    assert isinstance(refusal, ProofError)
    assert refusal.code == "replayed"
    with pytest.raises(ProofError):
        Codes(store=place.store).identity(code, now=system_clock() + HOUR)


def test_a_code_is_withdrawn_once(place: Facility) -> None:
    """Withdrawing what was used or withdrawn changes nothing and says so."""
    _, digest = handed_out(place, Purpose.INVITE)
    withdrawal = CodeWithdrawn(digest=digest, by="a test", at=system_clock())
    place.ledger.record(submission(withdrawal))
    error = outcome(place.ledger.submit(submission(withdrawal)))
    assert isinstance(error, CertauthError)
    assert error.code == "store-conflict"


@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_code_for_something_else_is_no_proof(place: Facility, purpose: Purpose) -> None:
    """An invitation proves nothing, and neither does a machine's code without a machine."""
    code, _ = handed_out(place, purpose)
    with pytest.raises(ProofError, match="does not exist"):
        Codes(store=place.store).identity(code, now=system_clock())


def test_whoever_is_disabled_in_a_batch_is_granted_nothing_later_in_it(place: Facility) -> None:
    """A grant that follows a disabling, be it in the same transaction, is refused; an agent's also, when its owner's was."""
    owner = Principal(TrustDomain(DOMAIN), Kind.USER, "olga")
    agent = Principal(TrustDomain(DOMAIN), Kind.AGENT, "olga.job")
    for who, boss in ((owner, None), (agent, owner)):
        enrolment = Enrolment(principal=who, logins=(Login(str(who), str(who)),), owner=boss)
        row = EnrolmentRow(enrolment=enrolment, display="", by="x", at=system_clock(), change=Change.NEW)
        place.ledger.record(submission(row))
    for who in (owner, agent):
        place.ledger.record(replace(submission(), grantee=who))
    disabled = Enrolment(principal=owner, disabled=True)
    row = EnrolmentRow(enrolment=disabled, display="", by="x", at=system_clock(), change=Change.STATE)
    both = [place.ledger.submit(submission(row)), place.ledger.submit(replace(submission(), grantee=owner))]
    both.append(place.ledger.submit(replace(submission(), grantee=agent)))
    assert isinstance(outcome(both[0]), Committed)
    refusal = outcome(both[1])
    assert isinstance(refusal, Refused)
    assert refusal.code == "principal-disabled"
    later = outcome(place.ledger.submit(replace(submission(), grantee=agent)))
    assert isinstance(later, Refused)
    assert later.code == "principal-disabled"
