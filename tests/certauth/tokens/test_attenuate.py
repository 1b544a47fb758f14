"""Attenuation narrows and does nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certauth.errors import TokenError, UsageError
from certauth.keys import Algorithm, generate
from certauth.tokens.attenuate import attenuate, narrowed_to
from certauth.tokens.codec import decode, encode, from_text, to_text
from certauth.tokens.signing import seal
from certauth.tokens.vocabulary import MemberOf, Narrowing
from tests.certauth import facility
from tests.certauth.tokens.kit import ALICE, BOB, NOW, Facility, ask, codes

subsets = {
    "operations": st.sampled_from([("read",), ("write",), ("read", "write")]),
    "paths": st.sampled_from([("/data/",), ("/data/run7/",), ("/data/run7/a", "/else/"), ("/",)]),
    "expires_at": st.sampled_from([NOW, NOW + timedelta(seconds=1), NOW + timedelta(days=9)]),
    "services": st.sampled_from([("files",), ("jobs",), ("files", "jobs")]),
    "peer_fingerprint": st.sampled_from([ALICE, BOB]),
    "networks": st.sampled_from([("10.0.0.0/8",), ("192.0.2.0/24", "2001:db8::/32")]),
    "projects": st.sampled_from([("p-17",), ("p-18",)]),
}
narrowings = st.dictionaries(st.sampled_from(list(subsets)), st.none(), min_size=1, max_size=3).flatmap(
    lambda chosen: st.fixed_dictionaries({name: subsets[name] for name in chosen}).map(lambda given: Narrowing(**given))
)
requests = st.fixed_dictionaries(
    {
        "now": st.sampled_from([NOW, NOW + timedelta(hours=2)]),
        "service": st.sampled_from(["files", "jobs"]),
        "operation": st.sampled_from(["read", "write"]),
        "path": st.sampled_from(["/data/run7/a", "/data/b", "/else/c", "/data/alice/log"]),
        "peer_fingerprint": st.sampled_from([ALICE, BOB]),
        "client_address": st.sampled_from(["10.1.2.3", "192.0.2.1", "2001:db8::1", None]),
        "project": st.sampled_from(["p-17", "p-18", None]),
    }
)


@settings(max_examples=120, deadline=None)
@given(st.lists(narrowings, min_size=1, max_size=3), requests)
def test_attenuation_only_narrows(als: Facility, wanted: list[Narrowing], request_: dict[str, Any]) -> None:
    """Whatever a narrowed token allows, the token it came from allows; the engine is asked at each step."""
    token = als.mint()
    before = ask(als.verify(token), **request_)
    for narrowing in wanted:
        token = attenuate(token, narrowing)
        after = ask(als.verify(token), **request_)
        assert not codes(before) or codes(after), "a narrowed token allows what its parent does not"
        before = after


@pytest.mark.parametrize(
    ("narrowing", "changes", "code"),
    [
        (Narrowing(operations=("write",)), {}, "token-operation"),
        (Narrowing(paths=("/data/run8/",)), {}, "token-path"),
        (Narrowing(expires_at=NOW), {}, "token-expired"),
        (Narrowing(services=("jobs",)), {}, "token-audience"),
        (Narrowing(peer_fingerprint=BOB), {}, "token-binding"),
        (Narrowing(networks=("192.0.2.0/24",)), {}, "token-network"),
        (Narrowing(networks=("10.0.0.0/8",)), {"client_address": "unix:/run/app.sock"}, "token-network"),
        (Narrowing(projects=("p-17",)), {}, "token-project"),
        (Narrowing(projects=("p-17",)), {"project": "p-18"}, "token-project"),
    ],
)
def test_each_narrowing_bites(als: Facility, narrowing: Narrowing, changes: dict[str, Any], code: str) -> None:
    """Each kind of narrowing refuses what its parent allows, and says so by its own code and block."""
    token = als.mint()
    assert codes(als.ask(token, **changes)) == []
    decision = als.ask(attenuate(token, narrowing), **changes)
    assert codes(decision) == [code]
    assert [failed.block for failed in getattr(decision, "failed", ())] == [1]


def test_a_project_narrowing_is_about_the_request(als: Facility) -> None:
    """That the user is in a project does not satisfy a narrowing to it: the request must belong to it."""
    token = attenuate(als.mint(projects=("p-17",)), Narrowing(projects=("p-17",)))
    assert codes(als.ask(token)) == ["token-project"]
    assert codes(als.ask(token, project="p-17")) == []


def test_a_later_end_does_not_extend(als: Facility) -> None:
    """A narrowing to a later end than the token's leaves the token's."""
    token = attenuate(als.mint(), Narrowing(expires_at=NOW + timedelta(days=30)))
    assert codes(als.ask(token, now=NOW + timedelta(hours=1))) == ["token-expired"]


def test_nothing_to_narrow_is_an_error(als: Facility) -> None:
    """A block that says nothing is not appended."""
    with pytest.raises(UsageError) as caught:
        attenuate(als.mint(), Narrowing())
    assert caught.value.code == "bad-narrowing"


def test_sealed_and_damaged_tokens_take_none(als: Facility) -> None:
    """A sealed token and a thing that is no token are refused by their codes."""
    for token, code in ((encode(seal(decode(als.mint()))), "token-sealed"), (b"nonsense", "token-not-canonical")):
        with pytest.raises(TokenError) as caught:
            attenuate(token, Narrowing(operations=("read",)))
        assert caught.value.code == code


def test_removing_a_narrowing_is_noticed(als: Facility) -> None:
    """Who holds a narrowed token cannot cut the narrowing off: the secret of the shorter token is not in it."""
    narrowed = decode(attenuate(als.mint(), Narrowing(operations=("read",))))
    cut = type(narrowed)(
        root_key_id=narrowed.root_key_id,
        blocks=narrowed.blocks[:1],
        contents=narrowed.contents[:1],
        sealed=False,
        proof=narrowed.proof,
    )
    with pytest.raises(TokenError) as caught:
        als.verify(encode(cut))
    assert caught.value.code == "token-signature"


def test_text_gives_text_and_bytes_give_bytes(als: Facility) -> None:
    """The one-line form works on what one has, and both say the same."""
    token = als.mint()
    text = attenuate(to_text(token), read="/data/run7/", expires_in=timedelta(minutes=5), clock=lambda: NOW)
    data = attenuate(token, read="/data/run7/", expires_in=timedelta(minutes=5), clock=lambda: NOW)
    assert decode(from_text(text)).contents == decode(data).contents
    assert codes(als.ask(data)) == []
    assert codes(als.ask(data, path="/data/other")) == ["token-path"]
    assert codes(als.ask(data, now=NOW + timedelta(minutes=5))) == ["token-expired"]


def test_wishes_are_a_narrowing(als: Facility) -> None:
    """Each wish has its member; one name stands for a list of one; a certificate for its fingerprint."""
    key = generate(Algorithm.P256).public_key
    certificate = facility.Facility().leaf()
    wanted = narrowed_to(
        read=("/a/", "/b"),
        rights=[("delete", "/a/"), ("delete", "/b")],
        service="files",
        expires_at=NOW,
        networks=["10.0.0.0/8"],
        project="p-17",
        peer=certificate,
        max_uses=3,
        body_sha256="ab" * 32,
        members=[MemberOf("run7", key)],
    )
    assert wanted == Narrowing(
        operations=("read", "delete"),
        paths=("/a/", "/b"),
        services=("files",),
        expires_at=NOW,
        networks=("10.0.0.0/8",),
        projects=("p-17",),
        peer_fingerprint=facility.certificates.fingerprint(certificate),
        max_uses=3,
        body_sha256="ab" * 32,
        members=(MemberOf("run7", key),),
    )
    assert narrowed_to() == Narrowing()
    assert narrowed_to(peer=ALICE).peer_fingerprint == ALICE


@pytest.mark.parametrize(
    ("wishes", "code"),
    [
        ({"read": "/a", "write": "/b"}, "not-expressible"),
        ({"read": "/a", "rights": [("write", "/b")]}, "not-expressible"),
        ({"read": "/a", "write": []}, "bad-narrowing"),
        ({"read": [], "expires_at": NOW}, "bad-narrowing"),
        ({"rights": [], "expires_at": NOW}, "bad-narrowing"),
        ({"networks": [], "expires_at": NOW}, "bad-narrowing"),
        ({"members": [], "expires_at": NOW}, "bad-narrowing"),
        ({"service": iter(()), "expires_at": NOW}, "bad-narrowing"),
        ({"expires_at": NOW, "expires_in": timedelta(1)}, "bad-narrowing"),
        ({"narrowing": Narrowing(operations=("read",)), "read": "/a"}, "bad-narrowing"),
        ({"read": "a"}, "bad-narrowing"),
        ({"rights": "ab"}, "bad-narrowing"),
        ({"rights": ["a/"]}, "bad-narrowing"),
        ({"rights": ("read", "/data/")}, "bad-narrowing"),
        ({"rights": [("read", "/data/", "files")]}, "bad-narrowing"),
        ({"members": "g"}, "bad-narrowing"),
        ({"max_uses": 0}, "bad-narrowing"),
        ({}, "bad-narrowing"),
    ],
)
def test_what_cannot_be_said_is_refused_and_not_widened(als: Facility, wishes: dict[str, Any], code: str) -> None:
    """Different operations on different paths, contradictions, and lists on which nothing is left make no token."""
    with pytest.raises(UsageError) as caught:
        attenuate(als.mint(), **wishes)
    assert caught.value.code == code
    assert caught.value.hint
