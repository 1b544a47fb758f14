"""What a token may state and how it may be narrowed is validated before it becomes Datalog."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certauth.errors import KeyMaterialError, UsageError
from certauth.keys import Algorithm, generate
from certauth.names import is_name
from certauth.tokens.conditions import BodyDigest, Members, Operations, Peer, Uses, Voucher
from certauth.tokens.signing import key_ref
from certauth.tokens.vocabulary import AMBIENT, PLURAL, SINGLE, MemberOf, Narrowing, Right, is_label, is_path
from tests.certauth.tokens.kit import ALICE, NOW, Facility

KEY = generate(Algorithm.P256).public_key


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"issuer": 'https://als.example/"); admin("true'}, "issuer"),
        ({"issuer": "als.example"}, "issuer"),
        ({"jti": "0123"}, "jti"),
        ({"jti": "g" * 32}, "jti"),
        ({"user": "alice"}, "user"),
        ({"user": 'spiffe://als.example/user/alice"); admin("true'}, "user"),
        ({"issued_at": NOW.replace(tzinfo=None)}, "zone"),
        ({"expires_at": NOW}, "expires_at"),
        ({"expires_at": NOW + timedelta(milliseconds=400)}, "expires_at"),
        ({"not_before": NOW + timedelta(seconds=1)}, "expires_at"),
        ({"not_before": datetime(1960, 1, 1, tzinfo=UTC)}, "expires_at"),
        ({"audience": ()}, "audience"),
        ({"audience": ("a b",)}, "audience"),
        ({"audience": tuple(f"s{number}" for number in range(17))}, "audience"),
        ({"rights": (Right("files", "read", "data"),)}, "rights"),
        ({"rights": (Right("files", "re ad", "/"),)}, "rights"),
        ({"rights": (Right("", "read", "/"),)}, "rights"),
        ({"groups": ("",)}, "groups"),
        ({"roles": ("a\nb",)}, "groups"),
        ({"projects": ("\x00",)}, "groups"),
        ({"audience": "files"}, "audience"),
        ({"rights": "ab/"}, "rights"),
        ({"rights": ("ab/",)}, "rights"),
        ({"rights": Right("files", "read", "/")}, "rights"),
        ({"rights": (("files", "read"),)}, "rights"),
        ({"groups": "staff"}, "groups"),
        ({"roles": "operator"}, "groups"),
        ({"projects": "p"}, "groups"),
        ({"assurance": 4}, "assurance"),
        ({"assurance": -1}, "assurance"),
        ({"peer_fingerprint": ALICE.upper()}, "peer_fingerprint"),
        ({"delegation_depth": -1}, "delegation_depth"),
        ({"delegation_depth": 5}, "delegation_depth"),
    ],
)
def test_impossible_tokens_are_refused(als: Facility, changes: dict[str, Any], what: str) -> None:
    """A value that cannot be in a token is named when the token is described, before anything is signed."""
    with pytest.raises(UsageError, match=what) as caught:
        als.spec(**changes)
    assert caught.value.code == "bad-token"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("operations", ()),
        ("operations", ("re/ad",)),
        ("paths", ("data",)),
        ("paths", ("/data/../etc",)),
        ("paths", tuple(f"/{number}" for number in range(17))),
        ("expires_at", NOW.replace(tzinfo=None)),
        ("services", ("",)),
        ("peer_fingerprint", "alice"),
        ("networks", ("10.0.0.1/8",)),
        ("networks", ("localhost",)),
        ("projects", ("",)),
        ("max_uses", 0),
        ("max_uses", -1),
        ("max_uses", 1_000_000_001),
        ("body_sha256", "alice"),
        ("body_sha256", ALICE.upper()),
        ("members", ()),
        ("members", (MemberOf("", KEY),)),
        ("members", (MemberOf("a\n", KEY),)),
        ("members", tuple(MemberOf(f"g{number}", KEY) for number in range(17))),
        ("operations", "read"),
        ("paths", "/"),
        ("services", "files"),
        ("networks", "10.0.0.0/8"),
        ("projects", "p"),
        ("members", "g"),
        ("members", MemberOf("g", KEY)),
    ],
)
def test_impossible_narrowings_are_refused(what: str, value: Any) -> None:
    """A narrowing that says nothing, too much or nonsense is named."""
    with pytest.raises(UsageError, match=what) as caught:
        Narrowing(**{what: value})
    assert caught.value.code == "bad-narrowing"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("/", True),
        ("/data/", True),
        ("/data/run 7/ä", True),
        ("/data/.hidden/..x", True),
        ("", False),
        ("data", False),
        ("//", False),
        ("/data//x", False),
        ("/data/./x", False),
        ("/data/..", False),
        ("/data/x\n", False),
        ("/" + "x" * 512, False),
    ],
)
def test_paths_have_one_form(path: str, good: bool) -> None:
    """A path is absolute, does not climb, repeats no slash and is printable."""
    assert is_path(path) is good


def test_names_and_labels() -> None:
    """Labels are ASCII without spaces; groups may be any printable text of at most 128 characters."""
    assert is_label("files-2.als")
    assert not is_label("файлы")
    assert is_name("Beamline 7 – früh")
    assert not is_name("x" * 129)
    assert not is_name('a\x1b[31m"')


def test_no_fact_of_a_token_has_an_ambient_name() -> None:
    """What a token states and what a door states never share a name, so a token cannot answer its own checks."""
    assert AMBIENT.isdisjoint({*SINGLE, *PLURAL, "delegate", "member"})


def test_values_are_stated_once(als: Facility) -> None:
    """Repeated groups, rights and services are stated once."""
    right = Right("files", "read", "/")
    block = als.spec(groups=("a", "a"), rights=(right, right), audience=("s", "s")).block()
    assert sum(fact.name in ("group", "right") for fact in block.facts) == 2
    assert Narrowing(operations=("read", "read")).conditions() == (Operations(("read",)),)


def test_secrets_are_in_no_repr(als: Facility) -> None:
    """Describing a token shows public keys only."""
    holder = generate(Algorithm.P256)
    number = holder.private_key.private_numbers().private_value  # type: ignore[union-attr]  # it is P-256
    text = repr(als.spec(delegate_key=holder.public_key)) + repr(holder)
    assert str(number) not in text
    assert f"{number:x}" not in text


def test_each_narrowing_to_a_number_of_uses_is_counted_apart() -> None:
    """Each has a counter of its own, named at random, in a form every door can count."""
    first, second = (Narrowing(max_uses=3).conditions() for _ in range(2))
    assert first != second
    assert Narrowing(max_uses=3).conditions(entropy=lambda size: b"\x07" * size) == (Uses("07" * 8, 3),)


def test_bodies_and_members() -> None:
    """Members are one condition of which any will do, said once each; other keys than Ed25519 and P-256 cannot vouch."""
    narrowing = Narrowing(body_sha256=ALICE, members=(MemberOf("a", KEY), MemberOf("b", KEY), MemberOf("a", KEY)))
    ref = key_ref(KEY)
    assert narrowing.conditions() == (BodyDigest(ALICE), Members((Voucher("a", ref), Voucher("b", ref))))
    with pytest.raises(KeyMaterialError):
        Narrowing(members=(MemberOf("a", generate(Algorithm.P384).public_key),)).conditions()


@pytest.mark.parametrize(
    ("depth", "peer"), [(0, Peer(ALICE)), (1, Peer(ALICE, key_ref(KEY))), (4, Peer(ALICE, key_ref(KEY), 4))]
)
def test_depth_of_delegation(als: Facility, depth: int, peer: Peer) -> None:
    """No depth names no key; without a key there is no depth."""
    assert als.spec(delegate_key=KEY, delegation_depth=depth).block().checks[2] == peer
    assert als.spec(delegate_key=None, delegation_depth=depth).block().checks[2] == Peer(ALICE)
