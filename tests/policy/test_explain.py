from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from certauth.errors import ConfigError, LogError, UsageError
from certauth.tokens import delegate, from_text, to_text
from policy.decision import Check, Deny
from policy.explain import Explanation, check_of, explain, explain_record, find_records
from policy.testing import Facility, Peer
from tests.policy.door import Door, HandClock, decision, record, request


def told(door: Door, what: str, peer: Peer | None = None, token: str | None = None) -> Explanation:
    """The explanation of a request that is decided now."""
    found = explain(door.ask(what, peer, token), request(what))
    json.dumps(found.data)
    return found


def test_a_permit_is_told_check_by_check() -> None:
    """Each check says what it was satisfied with: the rule, the names, the ends, the right."""
    clock = HandClock()
    facility = Facility("als.example", clock=clock)
    alice = facility.peer("alice", lifetime=timedelta(hours=1))
    found = told(Door(facility.trust(), clock), "GET /files/x", alice, facility.token(alice, "data", rights=["read /files/"]))
    assert found.data["outcome"] == "permit"
    for words in (
        "PERMIT permitted: GET /files/x",
        "route 4 (/files/), access token",
        "spiffe://als.example/user/alice, assurance 2, until 2026-05-01T13:00:00Z",
        alice.fingerprint[:16],
        "rights: read /files/x",
        "revocations are current",
        "requirements: met",
    ):
        assert words in found.text


def test_a_denial_is_told_with_the_check_that_failed_and_what_differed() -> None:
    """The owner reads which rule took the request, what held, and which value was another than it should be."""
    clock = HandClock()
    facility = Facility("als.example", clock=clock)
    alice, bob = facility.peer("alice"), facility.peer("bob")
    token = facility.token(alice, "data", rights=["read /files/"])
    found = told(Door(facility.trust(), clock), "GET /files/x", bob, token)
    assert (found.data["check"], found.data["code"], found.data["status"]) == ("binding", "token-binding", 401)
    assert alice.fingerprint[:16] in found.text
    assert bob.fingerprint[:16] in found.text
    assert "failed     binding" in found.text
    nothing = told(Door(facility.trust(), clock), "GET /nothing")
    assert nothing.data["route"] is None
    assert "failed     route: no route of this service takes GET /nothing" in nothing.text


@pytest.mark.parametrize(
    ("code", "check"),
    [
        ("no-route", Check.ROUTE),
        ("certificate-expired", Check.CERTIFICATE),
        ("chain-invalid", Check.CERTIFICATE),
        ("domain-unknown", Check.CERTIFICATE),
        ("revocations-stale", Check.FRESHNESS),
        ("token-expired", Check.TOKEN),
        ("lint-rule", Check.TOKEN),
        ("token-binding", Check.BINDING),
        ("right-not-held", Check.RIGHTS),
        ("token-path", Check.RIGHTS),
        ("group-required", Check.REQUIREMENTS),
        ("path-ambiguous", "request"),
        ("internal-error", None),
    ],
)
def test_every_code_belongs_to_a_check(code: str, check: str | None) -> None:
    """A code alone says which check denied; a failure of the door itself belongs to none."""
    assert check_of(code) == check


def test_a_denial_by_the_door_itself_is_told_as_such() -> None:
    """If no check failed but the door did, the explanation does not blame the request."""
    found = explain(Deny(code="internal-error", reasons=("the door failed",), status=500), request("GET /x"))
    assert "failed     the door: the door failed" in found.text


def test_a_recorded_decision_is_found_by_its_request_id(tmp_path: Path) -> None:
    """The id in the user's error message leads to the rule and the reason, in one file or in those of all processes."""
    file = record(
        tmp_path, decision("request-1"), decision("request-2", code="right-not-held", reasons=("no right to read /files/x",))
    )
    for where in (file, tmp_path / "decisions.jsonl"):
        (found,) = find_records(where, "request-2")
        told_ = explain_record(found)
        assert told_.data["check"] == "rights"
        assert told_.data["at"] == "2026-05-01T12:00:00Z"
        assert "_chain" not in told_.data
        assert "DENY right-not-held: GET /files/x" in told_.text
        assert "failed     rights: no right to read /files/x" in told_.text
        assert "spiffe://als.example/user/alice" in told_.text
    (permitted,) = find_records(file, "request-1")
    assert "check" not in explain_record(permitted).data


def test_a_record_of_another_kind_is_told_as_far_as_it_goes() -> None:
    """Members this program does not know, or that are missing, do not stop an explanation."""
    found = explain_record({"seq": 3, "event": "handshake", "at": "later", "code": "handshake-failed"})
    assert found.text.startswith("? handshake-failed")


def test_an_unknown_request_id_is_said_to_be_one(tmp_path: Path) -> None:
    """A mistyped id is the caller's mistake, and says where the right one is."""
    record(tmp_path, decision("request-1"))
    with pytest.raises(UsageError) as caught:
        find_records(tmp_path / "decisions.jsonl", "request-2")
    assert caught.value.code == "request-unknown"


def test_a_changed_file_explains_nothing(tmp_path: Path) -> None:
    """One byte changed in a decision file, and it is refused instead of being believed; a torn last line is left out."""
    file = record(tmp_path, decision("request-1"))
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"_chain":"torn')
    assert find_records(file, "request-1")
    file.write_bytes(whole.replace(b"permit", b"Permit"))
    with pytest.raises(LogError):
        find_records(file, "request-1")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A wrong path is reported with its name."""
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl"):
        find_records(tmp_path / "nowhere.jsonl", "request-1")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A file that is there and cannot be opened is reported, not passed over as if nothing were in it."""
    file = tmp_path / "decisions-0.jsonl"
    file.symlink_to(file)
    with pytest.raises(ConfigError, match=r"decisions-0\.jsonl") as caught:
        find_records(tmp_path / "decisions.jsonl", "request-1")
    assert caught.value.code == "unreadable"


def test_a_chain_and_a_word_are_told() -> None:
    """Through whose hands the token went, and who vouches for what, at the time and from the record."""
    clock = HandClock()
    als, nsls = Facility("als.example", clock=clock), Facility("nsls.example", clock=clock)
    alice, bob, job = als.peer("alice"), als.peer("bob"), als.peer("job")
    token = from_text(als.token(alice, "data", rights=["read /files/"], delegations=2))
    token = delegate(token, holder_key=alice.key, to_certificate=bob.certificate, depth=1)
    token = delegate(token, holder_key=bob.key, to_certificate=job.certificate)
    text = nsls.vouch(to_text(token), "run7")
    found = told(Door(als.trust(attesters=[nsls.attester()]), clock), "GET /files/x", job, text)
    chain = " → ".join(f"{peer.fingerprint[:16]}…" for peer in (alice, bob, job))
    assert f"binding: handed over: certificate {chain}" in found.text
    assert "vouched for as nsls.example:run7" in found.text
    recorded = explain_record(
        {"outcome": "permit", "code": "permitted", "path": "/x", "delegated": ["ab", "cd"], "uses": ["00: 1 of 2"]}
    )
    assert "  delegated  ab, cd" in recorded.text
    assert "  uses       00: 1 of 2" in recorded.text


@pytest.mark.parametrize(
    ("code", "check"),
    [
        ("token-member", Check.RIGHTS),
        ("token-used-up", Check.RIGHTS),
        ("uses-not-supported", Check.RIGHTS),
        ("uses-too-many", Check.RIGHTS),
        ("token-body", Check.RIGHTS),
        ("body-too-large", Check.RIGHTS),
        ("member-required", Check.REQUIREMENTS),
        ("token-unknown-attester", Check.TOKEN),
        ("token-attestation", Check.TOKEN),
    ],
)
def test_newer_codes_have_their_check(code: str, check: Check) -> None:
    """Whatever denies, it is known in which check."""
    assert check_of(code) == check
