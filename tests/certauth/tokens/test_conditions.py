"""Conditions become checks and are recognised again; in Python and in the engine they decide the same."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certauth.tokens.blocks import Block
from certauth.tokens.conditions import (
    BodyDigest,
    Condition,
    Members,
    Networks,
    Operations,
    Paths,
    Peer,
    Projects,
    Services,
    Uses,
    Voucher,
    Window,
    from_check,
    to_check,
)
from certauth.tokens.datalog import (
    QUERY_HEAD,
    Binary,
    Check,
    CheckKind,
    Date,
    KeyRef,
    Predicate,
    Query,
    Scope,
    TermSet,
    Unary,
    Variable,
)
from certauth.tokens.meaning import HandOver, Request, Stated, holds, is_within, key_name, plain_address, words
from certauth.tokens.vocabulary import Right, datalog_version
from tests.certauth.tokens.kit import ALICE, BOB, EVE, NOW, Facility, ask, codes, with_block

KEY = KeyRef(0, bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
EMPTY = hashlib.sha256(b"").hexdigest()
SECONDS = int(NOW.timestamp())
names = st.lists(st.sampled_from(["read", "write", "list", 'x"); admin("true']), min_size=1, max_size=3, unique=True).map(tuple)
paths = st.lists(
    st.sampled_from(["/", "/data/", "/data/run7/", "/data/run7/a", "/data", "/else/"]), min_size=1, max_size=3, unique=True
)
networks = st.lists(
    st.sampled_from(
        ["0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "192.0.2.0/24", "255.255.255.255/32", "::/0", "2001:db8::/33", "8000::/1"]
    ),
    min_size=1,
    max_size=3,
    unique=True,
)
conditions: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Window, st.none() | st.integers(SECONDS - 2, SECONDS + 2), st.integers(SECONDS - 2, SECONDS + 2)),
    st.builds(Services, names),
    st.builds(Operations, names),
    st.builds(Projects, names),
    st.builds(Peer, st.sampled_from([ALICE, BOB])),
    st.builds(Paths, paths.map(tuple)),
    st.builds(Networks, networks.map(lambda texts: tuple(ip_network(text) for text in texts))),
    st.builds(Uses, st.sampled_from(["0123456789abcdef", "fedcba9876543210"]), st.integers(1, 3)),
    st.builds(BodyDigest, st.sampled_from([EMPTY, ALICE])),
    st.builds(
        Members, st.lists(st.sampled_from([Voucher("run7", KEY), Voucher("x", KEY)]), min_size=1, unique=True).map(tuple)
    ),
)
requests = st.fixed_dictionaries(
    {
        "now": st.integers(-2, 2).map(lambda seconds: NOW + timedelta(seconds=seconds)),
        "operation": st.sampled_from(["read", "write"]),
        "path": st.sampled_from(["/", "/data", "/data/run7/a", "/data/run7", "/data/run77", "/elsewhere"]),
        "peer_fingerprint": st.just(ALICE),
        "client_address": st.sampled_from(
            [
                None,
                "10.1.2.3",
                "::ffff:10.1.2.3",
                "192.0.2.9",
                "255.255.255.255",
                "2001:db8:7fff::1",
                "2001:db8:8000::1",
                "ffff::1",
            ]
        ),
        "project": st.sampled_from([None, "read", "other"]),
        "uses": st.none() | st.fixed_dictionaries({"0123456789abcdef": st.integers(0, 3), "fedcba9876543210": st.just(2)}),
        "body_sha256": st.sampled_from([None, EMPTY]),
    }
)


@given(st.one_of(conditions, st.builds(Peer, st.just(ALICE), st.just(KEY), st.integers(1, 4))))
def test_conditions_are_recognised(condition: Condition) -> None:
    """The check a condition becomes is recognised as that condition."""
    assert from_check(to_check(condition)) == condition
    assert words(condition)


WIDE = (Right("files", "read", "/"), Right("files", "write", "/"), Right("files", "read", "/data"))


@pytest.fixture(scope="module")
def wide(als: Facility) -> bytes:
    """A token for everything."""
    return als.mint(rights=WIDE)


@settings(max_examples=150, deadline=None)
@given(st.lists(conditions, min_size=1, max_size=3), requests)
def test_the_engine_decides_the_same(als: Facility, wide: bytes, wanted: list[Condition], request_: dict[str, Any]) -> None:
    """A token narrowed by any conditions is allowed by the engine iff they all hold in Python, and what fails is named."""
    token = wide
    for condition in wanted:
        token = with_block(token, Block(datalog_version((condition,)), checks=(condition,)))
    address = None if request_["client_address"] is None else ip_address(request_["client_address"])
    request = Request(service="files", **{**request_, "client_address": plain_address(address)})
    failing = [number for number, condition in enumerate(wanted, 1) if not holds(condition, request)]
    decision = ask(als.verify(token), **request_)
    assert [failed.block for failed in getattr(decision, "failed", ())] == failing
    assert bool(codes(decision)) is bool(failing)


X, T = Variable("x"), Variable("t")


def query(name: str, *terms: Any, limits: tuple[tuple[Any, ...], ...] = (), scopes: tuple[Any, ...] = ()) -> Query:
    """One alternative of a check."""
    return Query(QUERY_HEAD, (Predicate(name, terms),), limits, scopes)


def chained(depth: Any, scopes: tuple[Any, ...] = (Scope.AUTHORITY, KEY)) -> Query:
    """The alternative that a chain of hand-overs meets."""
    chain = (Predicate("peer_cert", (X,)), Predicate("holder", (X,)), Predicate("delegate", (depth, Variable("y"))))
    return Query(QUERY_HEAD, chain, (), scopes)


def test_a_chain_is_recognised() -> None:
    """The control for the following: with everything as it should be, it is a condition."""
    assert from_check(Check((query("peer_cert", ALICE), chained(2)))) == Peer(ALICE, KEY, 2)


@pytest.mark.parametrize(
    "check",
    [
        Check(()),
        Check((Query(QUERY_HEAD, (), (), ()),)),
        Check((query("user", "alice"),)),
        Check((query("time", T),)),  # any time will do
        Check((query("time", T, limits=((T, Date(5), Binary.GREATER_THAN),)),)),
        Check((query("time", T, limits=((T, "5", Binary.LESS_THAN),)),)),
        Check((query("time", T, limits=((T, Date(5), Unary.NEGATE),)),)),
        Check((query("time", T, limits=((T, Date(5), Binary.LESS_THAN),)),), CheckKind.ALL),
        Check((query("time", X, limits=((X, Date(5), Binary.LESS_THAN),)),)),  # another variable: another spelling
        Check((query("time", T, limits=((T, Date(1), Binary.GREATER_OR_EQUAL), (T, Date(5), Binary.LESS_OR_EQUAL))),)),
        Check((query("peer_cert", X),)),  # in any hands
        Check((query("peer_cert", ALICE), query("peer_cert", X))),
        Check((query("peer_cert", ALICE), query("peer_cert", X, scopes=(Scope.AUTHORITY, KEY)))),
        Check((query("peer_cert", ALICE), query("peer_cert", X, scopes=(Scope.AUTHORITY, Scope.PREVIOUS)))),
        Check((query("peer_cert", ALICE), query("peer_cert", X, scopes=(KEY,)))),
        Check((query("operation", X),)),
        Check((query("operation", X, limits=((X,),)),)),
        Check((query("operation", X, limits=((TermSet((1,)), X, Binary.CONTAINS),)),)),
        Check((query("operation", X, limits=((TermSet(("a",)), X, Binary.CONTAINS), (X, "a", Binary.EQUAL))),)),
        Check((query("path", X),)),
        Check((query("path", X, limits=((X, 5, Binary.PREFIX),)),)),
        Check((query("path", X, limits=((X, "/data/", Binary.PREFIX),)),)),
        Check((query("path", "/data/"),)),  # exactly a directory is not what a trailing slash says
        *(Check((query("peer_cert", ALICE), chained(depth))) for depth in (0, 1, -3, True, "2")),
        Check((query("peer_cert", ALICE), chained(2, scopes=(KEY,)))),
        Check((query("peer_cert", ALICE), chained(2), query("peer_cert", BOB))),
        Check((query("peer_cert", ALICE), query("delegate", 2, X, scopes=(Scope.AUTHORITY, KEY)))),  # in any hands
        Check((query("uses", "0123456789abcdef", Variable("n")),)),
        Check((query("uses", "0123456789abcdef", Variable("n"), limits=((Variable("n"), 3, Binary.LESS_OR_EQUAL),)),)),
        Check((query("uses", X, Variable("n"), limits=((Variable("n"), 3, Binary.LESS_THAN),)),)),
        Check((query("uses", "0123456789abcdef", Variable("n"), limits=((Variable("n"), "3", Binary.LESS_THAN),)),)),
        Check((query("uses", "0123456789abcdef", Variable("n"), limits=((Variable("n"), True, Binary.LESS_THAN),)),)),
        Check((query("body_sha256", X),)),
        Check((query("member", "run7"),)),  # in anybody's word
        Check((query("member", X, scopes=(KEY,)),)),
        Check((query("member", "run7", scopes=(KEY, Scope.AUTHORITY)),)),
        Check((query("member", "run7", scopes=(Scope.PREVIOUS,)),)),
        Check((query("client_ip4", X),)),
        Check((query("client_ip4", X, limits=((X, "a", Binary.BITWISE_AND, 3, Binary.EQUAL),)),)),
        Check((query("client_ip4", Variable("i"), limits=((Variable("i"), 255, Binary.BITWISE_AND, 3, Binary.EQUAL),)),)),
        Check((query("client_ip4", Variable("i"), limits=((Variable("i"), 2**40, Binary.BITWISE_AND, 2**40, Binary.EQUAL),)),)),
    ],
)
def test_other_checks_are_not_mistaken(check: Check) -> None:
    """A check that says something else, or in another form, is not taken for a condition."""
    assert from_check(check) is None


def test_delegation_is_by_the_named_key() -> None:
    """A certificate counts as delegated only if the key in the condition named it, at the depth in the condition."""
    request = Request(now=NOW, service="s", operation="o", path="/", peer_fingerprint=BOB)
    other = KeyRef(0, b"e" * 32)

    def met(condition: Condition, *hand_overs: HandOver) -> bool:
        return holds(condition, request, Stated(hand_overs=hand_overs))

    assert met(Peer(ALICE, KEY), HandOver(KEY, 1, BOB))
    assert not met(Peer(ALICE, KEY), HandOver(other, 1, BOB))
    assert not met(Peer(ALICE, KEY), HandOver(KEY, 1, EVE))
    assert not met(Peer(ALICE), HandOver(KEY, 1, BOB))
    assert met(Peer(ALICE, KEY, 3), HandOver(KEY, 3, EVE), HandOver(other, 2, BOB))  # whether EVE's key did is another question
    assert not met(Peer(ALICE, KEY, 3), HandOver(KEY, 3, BOB), HandOver(other, 2, EVE))
    assert not met(Peer(ALICE, KEY, 3), HandOver(KEY, 2, BOB), HandOver(other, 3, BOB))


def test_membership_is_by_the_named_key() -> None:
    """A group counts only in the word of the key that goes with it."""
    request = Request(now=NOW, service="s", operation="o", path="/", peer_fingerprint=BOB)
    wanted = Members((Voucher("run7", KEY), Voucher("run8", KEY)))
    assert holds(wanted, request, Stated(vouchers=(Voucher("run8", KEY),)))
    for said in ((), (Voucher("run9", KEY),), (Voucher("run7", KeyRef(0, b"e" * 32)),)):
        assert not holds(wanted, request, Stated(vouchers=said))


def test_keys_have_a_name() -> None:
    """In words a key is called by its id; bytes that are no key, by that."""
    assert key_name(KEY) == hashlib.sha256(KEY.key).hexdigest()[:8]
    assert key_name(KeyRef(1, b"\x02" + b"\xff" * 32)) == "that is none"


@pytest.mark.parametrize(
    ("path", "granted", "within"),
    [
        ("/api/me", "/api/me", True),
        ("/api/me2", "/api/me", False),
        ("/api/me/x", "/api/me", False),
        ("/api/me/x", "/api/me/", True),
        ("/api/me", "/api/me/", False),
        ("/api/me2", "/api/me/", False),
        ("/anything", "/", True),
    ],
)
def test_paths_and_subtrees(path: str, granted: str, within: bool) -> None:
    """A path covers itself; with a trailing slash, everything below it and no sibling of a longer name."""
    assert is_within(path, granted) is within
