"""What would happen to a token: the rehearsal agrees with the engine wherever it claims to know."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.client.outlook import Situation, outlook
from certauth.errors import TokenError
from certauth.keys import Algorithm, generate
from certauth.tokens import append_attestation, attenuate, attest, delegate, request_attestation, to_text
from certauth.tokens.authorizer import Allowed
from certauth.tokens.blocks import Block
from certauth.tokens.datalog import QUERY_HEAD, Check, Query
from certauth.tokens.vocabulary import MemberOf
from tests.certauth.tokens.kit import ALICE, BOB, EVE, NOW, Facility, ask, fact, with_block

ALS = Facility()
GROUP = generate(Algorithm.ED25519)


def situation(**changes: Any) -> Situation:
    """The request of the kit."""
    usual: dict[str, Any] = {"now": NOW, "peer": ALICE, "service": "files", "operation": "read", "path": "/data/run7/a"}
    return Situation(**(usual | {"address": ip_address("10.1.2.3")} | changes))


def says(token: bytes, **changes: Any) -> list[str]:
    """What fails."""
    return [one.says for one in outlook(to_text(token), situation(**changes)) if one.holds is False]


wishes = st.fixed_dictionaries(
    {},
    optional={
        "read": st.sampled_from(["/data/", "/data/run7/", "/data/run7/a"]),
        "expires_in": st.sampled_from([timedelta(seconds=-1), timedelta(minutes=5)]),
        "service": st.sampled_from(["files", "jobs"]),
        "networks": st.sampled_from(["10.0.0.0/8", "2001:db8::/32"]),
        "project": st.sampled_from(["p-17", "p-18"]),
        "peer": st.sampled_from([ALICE, BOB]),
    },
).filter(bool)


@given(
    st.lists(wishes, max_size=3),
    st.booleans(),
    st.fixed_dictionaries(
        {
            "service": st.sampled_from(["files", "jobs"]),
            "operation": st.sampled_from(["read", "write"]),
            "path": st.sampled_from(["/data/run7/a", "/data/b", "/else"]),
            "peer": st.sampled_from([ALICE, BOB, EVE]),
            "address": st.sampled_from([ip_address("10.1.2.3"), ip_address("2001:db8::1")]),
            "project": st.sampled_from(["p-17", "p-18"]),
        }
    ),
)
def test_it_agrees_with_the_engine(narrowings: list[dict[str, Any]], handed: bool, asked: dict[str, Any]):
    """Where everything about a request is known, something fails here iff the engine does not allow it."""
    token = ALS.mint()
    for narrowing in narrowings:
        token = attenuate(token, **narrowing, clock=lambda: NOW)
    if handed:
        token = delegate(token, holder_key=ALS.holder, to_certificate=BOB)
    findings = outlook(to_text(token), situation(**asked))
    assert [one for one in findings if one.holds is None] == []
    request = {name: asked[name] for name in ("service", "operation", "path", "project")}
    decision = ask(ALS.verify(token), **request, peer_fingerprint=asked["peer"], client_address=str(asked["address"]))
    assert isinstance(decision, Allowed) == all(one.holds for one in findings)


def test_what_is_not_given_is_not_known():
    """A condition about something that was not asked is neither met nor failed, and says what it depends on."""
    token = attenuate(
        ALS.mint(), read="/data/run7/", networks="10.0.0.0/8", project="p", body_sha256="ab" * 32, max_uses=3, service="files"
    )
    unknown = {one.needs for one in outlook(to_text(token), Situation(now=NOW)) if one.holds is None}
    assert unknown == {
        "the service", "the operation", "the path", "the certificate", "the client's address", "the project", "the body",
        "the service's counter",
    }  # fmt: skip
    assert says(token, body_sha256="ab" * 32, project="p") == []
    assert len(says(token, body_sha256="cd" * 32, project="p")) == 1


def test_rights_are_asked_as_far_as_the_request_is_known():
    """That no right can cover the request is certain early; that one does, only when all of it is known."""
    token = to_text(ALS.mint())

    def right(**known: Any) -> tuple[bool | None, str | None, str]:
        last = outlook(token, Situation(now=NOW, **known))[-1]
        return last.holds, last.needs, last.says

    assert right() == (None, "the service", "a right to do something")
    assert right(service="jobs") == (False, None, "a right to do something at jobs")
    assert right(service="files", operation="read") == (None, "the path", "a right to read at files")
    assert right(service="files", operation="delete")[0] is False
    assert right(path="/elsewhere")[0] is False
    assert right(service="files", operation="read", path="/data/x")[0] is True


def test_members_need_their_word():
    """A group that must be vouched for fails until it is, by the very key."""
    asked = attenuate(ALS.mint(), members=[MemberOf("run7", GROUP.public_key)])
    assert len(says(asked)) == 1
    for key, fails in ((generate(Algorithm.ED25519), 1), (GROUP, 0)):
        answer = attest(request_attestation(asked), key=key, groups=["run7"], expires_at=NOW + timedelta(minutes=5))
        assert len(says(append_attestation(asked, answer))) == fails


def test_checks_of_other_programs_are_not_judged():
    """A check in another form is neither met nor failed here."""
    foreign = Check((Query(QUERY_HEAD, (fact("operation", "read"), fact("service", "files")), (), ()),))
    findings = outlook(to_text(with_block(ALS.mint(), Block(3, checks=(foreign,)))), situation())
    assert [(one.says, one.holds) for one in findings if one.block == 1] == [("a check of another program's making", None)]


def test_what_is_no_token():
    """Rubbish raises."""
    with pytest.raises(TokenError):
        outlook("x", situation())
