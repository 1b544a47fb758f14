from __future__ import annotations

from policy.rehearsal import rehearse
from policy.rules import Policy
from tests.policy.door import RULES, HandClock


def outcomes(tests: str) -> list[tuple[str, str | None]]:
    """What each test of a document came to, and how it failed if it did."""
    policy = Policy.parse(RULES + tests.encode())
    return [(outcome.got, outcome.failure) for outcome in rehearse(policy, clock=HandClock())]


def test_a_document_is_rehearsed_with_real_credentials() -> None:
    """Each test gets a certificate and, if it names rights, a token, and is decided as at the door."""
    found = outcomes(
        """
[[test]]
request = "GET /livez"
expect = "permit"
[[test]]
request = "GET /files/x"
expect = "certificate-required"
[[test]]
request = "GET /files/x"
as = "spiffe://als.example/user/alice"
expect = "token-required"
[[test]]
request = "PUT /files/x"
as = "spiffe://nsls.example/agent/job"
rights = ["read /files/", "write /files/x"]
expect = "permit"
[[test]]
request = "WEBSOCKET /live"
as = "spiffe://als.example/service/s"
rights = ["connect /live"]
expect = "permit"
[[test]]
request = "GET /beamline"
as = "spiffe://als.example/user/alice"
assurance = 1
rights = ["read /beamline"]
groups = ["staff"]
roles = ["scientist"]
projects = ["p1"]
expect = "assurance-too-low"
"""
    )
    assert [failure for _, failure in found] == [None] * 6
    assert [got for got, _ in found] == [
        "permit",
        "certificate-required",
        "token-required",
        "permit",
        "permit",
        "assurance-too-low",
    ]


def test_a_promise_that_is_not_kept_is_reported() -> None:
    """A test that expects the wrong thing fails, in both directions, with what was decided instead."""
    found = outcomes(
        """
[[test]]
request = "GET /files/x"
as = "spiffe://als.example/user/alice"
rights = ["read /files/"]
expect = "right-not-held"
[[test]]
request = "GET /nothing"
expect = "permit"
"""
    )
    assert [failure for _, failure in found] == [
        "test 1 (GET /files/x as spiffe://als.example/user/alice): expected right-not-held, got permit",
        "test 2 (GET /nothing as nobody): expected permit, got no-route",
    ]


def test_a_document_without_tests_has_nothing_to_rehearse() -> None:
    """No tests are no failures."""
    assert outcomes("") == []


def test_members_are_vouched_for() -> None:
    """A test says which facility vouches for what, and its word is in the token that is tried."""
    rules = b"""
version = 1
service = "data"
[[route]]
path = "/files/"
access = "token"
[route.require]
members_any = ["nsls.example:run7"]
"""
    test = """
[[test]]
request = "GET /files/x"
as = "spiffe://als.example/user/alice"
rights = ["read /files/"]
members = [%s]
expect = "permit"
"""
    names = ('"nsls.example:run7"', '"nsls.example:run8", "esrf.example:a: b", "nsls.example:run7"', '"esrf.example:run7"', "")
    found = rehearse(Policy.parse(rules + "".join(test % each for each in names).encode()))
    assert [outcome.got for outcome in found] == ["permit", "permit", "member-required", "member-required"]
