"""The lint refuses by structure, before any Datalog runs, and names the rule."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from certauth.errors import TokenError
from certauth.keys import Algorithm, generate
from certauth.tokens.blocks import Block
from certauth.tokens.codec import Token, decode
from certauth.tokens.conditions import (
    BodyDigest,
    Members,
    Networks,
    Operations,
    Paths,
    Peer,
    Services,
    Uses,
    Voucher,
    Window,
    to_check,
)
from certauth.tokens.datalog import (
    QUERY_HEAD,
    Binary,
    Check,
    CheckKind,
    Date,
    Foreign,
    KeyRef,
    Predicate,
    Query,
    Scope,
    TermSet,
    Unary,
    Variable,
)
from certauth.tokens.lint import MAX_DATE, MAX_JOIN, lint
from certauth.tokens.signing import append_answer, key_ref, third_party_answer, third_party_request
from certauth.tokens.vocabulary import Right
from tests.certauth.tokens.kit import ALICE, NOW, Facility, entropy, fact, with_block

KEY = KeyRef(0, b"k" * 32)
GOOD = key_ref(generate(Algorithm.ED25519).public_key)
NONCE = "0123456789abcdef"
X = Variable("x")


def rule(token: bytes | Token) -> str:
    """The rule by which the lint refuses ``token``."""
    with pytest.raises(TokenError) as caught:
        lint(decode(token) if isinstance(token, bytes) else token)
    assert caught.value.code.startswith("lint-")
    return caught.value.code


def query(*body: Predicate, limits: tuple[Any, ...] = (), scopes: tuple[Any, ...] = (), head: Predicate = QUERY_HEAD) -> Query:
    """One alternative."""
    return Query(head, body, limits, scopes)


def checking(*queries: Query, version: int = 4, kind: CheckKind = CheckKind.ONE) -> Block:
    """An attenuation block of one check."""
    return Block(version, checks=(Check(queries, kind),))


ANY = query(fact("operation", X))
READ = Operations(("read",))

ATTENUATIONS: list[tuple[str, Block]] = [
    ("lint-fact", Block(3, facts=(fact("right", "files", "write", "/"),))),
    ("lint-fact", Block(3, facts=(fact("time", Date(1)),))),
    ("lint-rule", Block(3, rules=(query(fact("operation", X), head=fact("right", X)),))),
    ("lint-scope", Block(4, checks=(READ,), scopes=(Scope.PREVIOUS,))),
    ("lint-scope", Block(3, checks=(READ,), context="for the log")),
    ("lint-scope", checking(query(fact("operation", X), scopes=(Scope.PREVIOUS,)))),
    ("lint-scope", checking(query(fact("operation", X), scopes=(Scope.AUTHORITY,)))),
    ("lint-key", checking(query(fact("operation", X), scopes=(KEY,)))),
    ("lint-key", Block(4, checks=(Peer(ALICE, KEY),))),
    ("lint-key", Block(4, checks=(Peer(ALICE, KEY, 2),))),
    ("lint-key", Block(4, checks=(Members((Voucher("g", KEY),)),), keys=(KEY._replace(key=b"l" * 32), KEY))),
    ("lint-check", Block(4, checks=(Members(tuple(Voucher(f"g{number}", KEY) for number in range(17))),))),
    ("lint-check", Block(3, checks=(Uses("short", 3),))),
    ("lint-check", Block(3, checks=(Uses("0123456789ABCDEF", 3),))),
    ("lint-check", Block(3, checks=(Uses(NONCE, 0),))),
    ("lint-check", Block(3, checks=(Uses(NONCE, -1),))),
    ("lint-check", Block(3, checks=(Uses(NONCE, 1_000_000_001),))),
    ("lint-check", Block(3, checks=(Uses(NONCE, 3),) * 9)),
    ("lint-term", Block(3, checks=(Window(None, MAX_DATE + 1),))),
    ("lint-set", Block(3, checks=(Operations(tuple(f"o{number}" for number in range(65))),))),
    ("lint-check", Block(3, checks=(Paths(tuple(f"/{number}" for number in range(17))),))),
    ("lint-check", Block(4, checks=(Networks(tuple(ip_network((number, 32)) for number in range(17))),))),
    ("lint-version", Block(2, checks=(READ,))),
    ("lint-version", Block(6, checks=(READ,))),
    ("lint-string", checking(query(fact("operation", "x" * 513)))),
    ("lint-string", checking(query(fact("operation", "x\x00")))),
    ("lint-string", checking(query(fact("operation", "\x1b[2J")))),
    ("lint-check", Block(3, checks=(READ,) * 33)),
    ("lint-check", checking(ANY, kind=CheckKind.REJECT)),
    ("lint-check", checking()),
    ("lint-check", checking(*(ANY,) * 17)),
    ("lint-query", checking(query(fact("operation", X), head=fact("right", "files")))),
    ("lint-query", checking(query(*(fact("operation", X),) * 5))),
    ("lint-query", checking(query(fact("operation", X), limits=((X,),) * 5))),
    ("lint-query", checking(query(fact("operation", X, X, X, X, X)))),
    ("lint-term", checking(query(fact("operation", True)))),
    ("lint-term", checking(query(fact("operation", b"bytes")))),
    ("lint-term", checking(query(fact("operation", TermSet(("read",)))))),
    ("lint-term", checking(query(fact("time", Date(MAX_DATE + 1))))),
    ("lint-term", checking(query(fact("f", Foreign("term", b"\x42\x00"))))),
    ("lint-term", checking(query(fact("f", X), limits=((X, True, Binary.EQUAL),)))),
    ("lint-term", checking(query(fact("f", X), limits=((TermSet((b"a",)), X, Binary.CONTAINS),)))),
    ("lint-set", checking(query(fact("f", X), limits=((TermSet(tuple(range(65))), X, Binary.CONTAINS),)))),
    ("lint-operator", checking(query(fact("f", X), limits=((X,) * 17,)))),
    ("lint-operator", checking(query(fact("f", X), limits=((X, X, Binary.ADD),)))),
    ("lint-operator", checking(query(fact("f", X), limits=((X, Unary.TYPE_OF),)))),
    ("lint-operator", checking(query(fact("f", X), limits=((X, X, Binary.LAZY_AND),)))),
    ("lint-operator", checking(query(fact("f", X), limits=((X, X, Binary.TRY_OR),)))),
    ("lint-regex", checking(query(fact("f", X), limits=((X, "((a{50}){50}){50}", Binary.REGEX),)))),
    ("lint-closure", checking(query(fact("f", X), limits=((X, Foreign("closure", b"\x22\x00"), Binary.ANY),)))),
    ("lint-extern", checking(query(fact("f", X), limits=((X, Foreign("extern", b"\x12\x05\x08\x04\x10\x80\x08")),)))),
]


@pytest.mark.parametrize(("code", "block"), ATTENUATIONS, ids=range(len(ATTENUATIONS)))
def test_what_an_attenuation_may_not_hold(als: Facility, code: str, block: Block) -> None:
    """Everything but bounded, plain checks is refused in a first-party block."""
    assert rule(with_block(als.mint(), block)) == code


BY_THIRD_PARTIES = [(code, block) for code, block in ATTENUATIONS if block.version != 2]


@pytest.mark.parametrize(("code", "block"), BY_THIRD_PARTIES, ids=range(len(BY_THIRD_PARTIES)))
def test_what_a_third_party_may_not_hold(als: Facility, code: str, block: Block) -> None:
    """The holder's key does not entitle to more: the same is refused in a block it signed."""
    parent = decode(als.mint())
    bound = block._replace(
        version=block.version if block.version == 6 else 5,
        facts=(*block.facts, fact("delegate", ALICE)),
        checks=(Peer(ALICE), *block.checks),
    )
    answer = third_party_answer(third_party_request(parent), bound, als.holder)
    found = rule(append_answer(parent, answer, entropy=entropy))
    assert found == {"lint-fact": "lint-third-party"}.get(code, code)


def test_only_the_authority_lets_somebody_delegate(als: Facility) -> None:
    """A holder cannot add a condition that another certificate may meet by delegation, not even with the key already named."""
    block = Block(4, checks=(Peer(ALICE, key_ref(als.holder.public_key)),))
    assert rule(with_block(als.mint(), block)) == "lint-scope"


def test_a_third_party_needs_its_datalog_version(als: Facility) -> None:
    """A third party's block of an older Datalog would share symbols with the token in other programs' eyes."""
    parent = decode(als.mint())
    answer = third_party_answer(
        third_party_request(parent), Block(5, facts=(fact("delegate", ALICE),), checks=(Peer(ALICE),)), als.holder
    )
    token = append_answer(parent, answer, entropy=entropy)
    older = token.contents[1]._replace(version=4)
    forged = Token(
        root_key_id=token.root_key_id,
        blocks=token.blocks,
        contents=(token.contents[0], older),
        sealed=False,
        proof=token.proof,
    )
    assert rule(forged) == "lint-version"
    lint(token)


@pytest.mark.parametrize(
    "block",
    [
        Block(3, checks=(READ,) * 32),
        Block(3, checks=(*(Uses(NONCE, 1_000_000_000),) * 8, BodyDigest(ALICE))),
        Block(4, checks=(Members(tuple(Voucher(f"g{number}", GOOD) for number in range(16))),)),
        checking(*(ANY,) * 16),
        checking(query(fact("operation", X), fact("path", X), fact("user", X), fact("group", X))),
        checking(query(fact("time", Date(MAX_DATE)))),
        checking(query(fact("f", X), limits=((TermSet(tuple(range(64))), X, Binary.CONTAINS),))),
        checking(query(fact("f", X), limits=((X, Unary.LENGTH, 3, Binary.EQUAL, Unary.PARENS, Unary.NEGATE),))),
        checking(query(fact("f", X), limits=((X, "a", Binary.SUFFIX, X, "b", Binary.NOT_EQUAL, Binary.OR),))),
        checking(ANY, kind=CheckKind.ALL),
        checking(query()),
        checking(query(fact("x" * 512, "y" * 512))),
    ],
    ids=range(12),
)
def test_what_it_may_hold(als: Facility, block: Block) -> None:
    """Checks up to the bounds pass, and the engine verifies them."""
    token = with_block(als.mint(), block)
    lint(decode(token))
    assert len(als.verify(token).blocks) == 2


def test_the_number_of_combinations_is_bounded(als: Facility) -> None:
    """Checks that together could look at too many combinations of the token's facts are refused; few may."""
    rights = tuple(Right("files", "read", f"/{number}") for number in range(60))
    token = als.mint(rights=rights, delegate_key=None)
    pair = query(fact("right", X, X, X), fact("right", X, X, X))
    lint(decode(with_block(token, checking(pair))))
    assert rule(with_block(token, checking(pair, pair))) == "lint-join"
    assert rule(with_block(with_block(token, checking(pair)), checking(pair))) == "lint-join"
    assert rule(with_block(token, checking(query(*(fact("right", X, X, X),) * 3)))) == "lint-join"
    assert rule(with_block(token, checking(query(*(fact("tree", X),) * 3)))) == "lint-join"
    assert 60 * 60 < MAX_JOIN < 2 * 60 * 60


def test_counters_are_bounded_in_all_blocks_together(als: Facility) -> None:
    """What a door states for the counters a token names is bounded too, and counts among the combinations."""
    four = Block(3, checks=tuple(Uses(f"{number:016x}", 3) for number in range(4)))
    token = with_block(with_block(als.mint(), four), four)
    lint(decode(token))
    assert rule(with_block(token, Block(3, checks=(Uses(NONCE, 3),)))) == "lint-check"
    any_use = query(*(fact("uses", X, X),) * 4)
    lint(decode(with_block(with_block(als.mint(), four), checking(any_use))))
    assert rule(with_block(token, checking(any_use, any_use))) == "lint-join"


def authority(als: Facility, **changes: Any) -> Block:
    """Alice's authority block, with other facts or checks."""
    return als.spec().block()._replace(**changes)


def stating(als: Facility, name: str, *terms: Any) -> Block:
    """Alice's authority block, with the facts of one name replaced by one with these terms."""
    facts = tuple(known for known in als.spec().block().facts if known.name != name)
    return authority(als, facts=(*facts, Predicate(name, terms)))


@pytest.mark.parametrize(
    ("code", "name", "terms"),
    [
        ("lint-ambient", "time", (Date(1),)),
        ("lint-ambient", "peer_cert", (ALICE,)),
        ("lint-ambient", "uid", ("a", "b")),
        ("lint-ambient", "holder", (ALICE,)),
        ("lint-ambient", "uses", (NONCE, 0)),
        ("lint-ambient", "body_sha256", (ALICE,)),
        ("lint-fact", "admin", ("alice",)),
        ("lint-fact", "delegate", (ALICE,)),
        ("lint-fact", "member", ("run7",)),
        ("lint-fact", "version", ("1",)),
        ("lint-fact", "version", (True,)),
        ("lint-fact", "user", ()),
        ("lint-fact", "group", ("a", "b")),
        ("lint-fact", "right", ("files", "read")),
        ("lint-fact", "iat", (5,)),
        ("lint-authority", "version", (2,)),
        ("lint-authority", "jti", ("by no feed",)),
        ("lint-authority", "user", ("alice",)),
        ("lint-authority", "iat", (Date(int(NOW.timestamp()) + 9999),)),
        ("lint-authority", "iat", (Date(0),)),
        ("lint-authority", "exp", (Date(int(NOW.timestamp()) + 9999),)),
        ("lint-authority", "assurance", (4,)),
        ("lint-authority", "assurance", (-1,)),
        ("lint-string", "role", ("a\n",)),
        ("lint-string", "project", ("\x1b[2J",)),
        ("lint-string", "right", ("files", "read", "/a\x00")),
        ("lint-string", "group", ("\u202egnp.exe",)),
    ],
)
def test_what_an_authority_may_not_state(als: Facility, code: str, name: str, terms: tuple[Any, ...]) -> None:
    """Unknown facts, other forms, ambient names and impossible values are refused, though properly signed."""
    assert rule(als.sign(stating(als, name, *terms))) == code


@pytest.mark.parametrize("name", ["version", "issuer", "jti", "user", "iat", "exp", "assurance"])
def test_an_authority_states_the_essentials_once(als: Facility, name: str) -> None:
    """A token without one of them, or with two, is refused."""
    facts = als.spec().block().facts
    assert rule(als.sign(authority(als, facts=tuple(known for known in facts if known.name != name)))) == "lint-fact"
    twice = tuple(known for known in facts if known.name == name)
    assert rule(als.sign(authority(als, facts=(*facts, *twice)))) == "lint-fact"


def test_an_authority_is_bound(als: Facility) -> None:
    """A token without its window, its audience or its certificate is a bearer token, and refused."""
    window, services, peer = als.spec().block().checks
    for checks in (
        (),
        (window, services),
        (window, peer),
        (services, peer),
        (services, window, peer),
        (window, services, peer, READ),
    ):
        assert rule(als.sign(authority(als, checks=checks))) == "lint-authority"
    for checks in (
        (Window(None, int(NOW.timestamp()) + 3600), services, peer),  # no beginning
        (Window(1, int(NOW.timestamp()) + 3601), services, peer),  # another end than it states
        (Window(int(NOW.timestamp()) + 1, int(NOW.timestamp()) + 3600), services, peer),
        (window, services, Check((query(fact("peer_cert", X)),))),  # in any hands
        (window, services, Check(to_check(peer).queries, CheckKind.ALL)),
        (window, services, Peer(ALICE, key_ref(als.holder.public_key), 5)),  # handed on without end
    ):
        assert rule(als.sign(authority(als, checks=checks))) == "lint-authority"
    lint(decode(als.sign(authority(als, checks=(window, Services(("a", "b")), peer)))))


def test_an_authority_holds_no_rules(als: Facility) -> None:
    """Rules are refused in the authority as well."""
    rules = (query(fact("user", X), head=fact("right", "files", "read", "/")),)
    assert rule(als.sign(authority(als, rules=rules))) == "lint-rule"


def test_the_chain_is_ed25519_and_version_1(als: Facility) -> None:
    """Links signed with the older payload, or handing over to P-256, are refused: their ids could be varied."""
    token = decode(als.mint())
    link = token.blocks[0]
    for broken, code in (
        (link._replace(version=0), "lint-version"),
        (link._replace(version=2), "lint-version"),
        (link._replace(next_key=KeyRef(1, b"\x02" + b"k" * 32)), "lint-key"),
    ):
        forged = Token(root_key_id=1, blocks=(broken,), contents=token.contents, sealed=False, proof=token.proof)
        assert rule(forged) == code


def test_messages_do_not_repeat_the_token(als: Facility) -> None:
    """A refusal says which block and which rule, and nothing that a stranger wrote."""
    token = with_block(als.mint(), Block(3, facts=(fact("right", "SECRET", "read", "/"),)))
    with pytest.raises(TokenError, match=r"block 1 states facts") as caught:
        lint(decode(token))
    assert "SECRET" not in str(caught.value)
