"""Blocks are read as they are written, and in no other spelling; the engine reads them the same."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from biscuit_auth import Biscuit, BiscuitBuilder, BlockBuilder, KeyPair
from hypothesis import given
from hypothesis import strategies as st

from certauth.tokens.block_writer import encode_block, encode_key
from certauth.tokens.blocks import Block, decode_block, decode_key
from certauth.tokens.codec import decode
from certauth.tokens.conditions import Operations, Paths, Peer, Services, Window
from certauth.tokens.datalog import (
    DEFAULT_SYMBOLS,
    OFFSET,
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
    Tables,
    TermSet,
    Unary,
    Variable,
)
from certauth.tokens.wire import NotCanonical, integer, nested

KEY = KeyRef(0, b"k" * 32)
P256_KEY = KeyRef(1, b"\x02" + b"k" * 32)

strings = st.text(max_size=20)
plain = st.one_of(
    strings,
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.binary(max_size=20),
    st.integers(0, 2**64 - 1).map(Date),
    strings.map(Variable),
)
terms = st.one_of(plain, st.lists(plain, max_size=4, unique_by=repr).map(lambda items: TermSet(tuple(items))))
predicates = st.builds(Predicate, strings, st.lists(terms, max_size=4).map(tuple))
scopes = st.lists(st.sampled_from([Scope.AUTHORITY, Scope.PREVIOUS, KEY, P256_KEY]), max_size=3).map(tuple)
ops = st.one_of(terms, st.sampled_from([*Unary, *Binary]))
queries = st.builds(
    Query,
    st.one_of(st.just(QUERY_HEAD), predicates),
    st.lists(predicates, max_size=3).map(tuple),
    st.lists(st.lists(ops, max_size=5).map(tuple), max_size=3).map(tuple),
    scopes,
)
checks = st.builds(Check, st.lists(queries, max_size=3).map(tuple), st.sampled_from(CheckKind))
conditions = st.one_of(
    st.builds(Window, st.none() | st.integers(0, 2**36), st.integers(0, 2**36)),
    st.builds(Services, st.just(("files",)) | st.just(("read", "write"))),
    st.builds(Operations, st.just(("read",)) | st.just(("files",))),
    st.builds(Paths, st.lists(st.sampled_from(["/", "/a", "read", "read/"]), min_size=1, max_size=2).map(tuple)),
    st.builds(Peer, st.just("ab"), st.sampled_from([None, KEY, P256_KEY])),
)
blocks = st.builds(
    Block,
    st.integers(0, 9),
    st.lists(predicates, max_size=3).map(tuple),
    st.lists(st.one_of(checks, conditions), max_size=3).map(tuple),
    st.lists(queries, max_size=2).map(tuple),
    scopes,
    st.none() | strings,
    st.just(()),
    st.just(()),
)


def written(block: Block) -> bytes:
    """The block as the first of a token."""
    return encode_block(block, Tables())


@given(blocks)
def test_blocks_survive_the_round_trip(block: Block) -> None:
    """What is written is read back the same, and written the same again, symbols included."""
    data = written(block)
    read = decode_block(data, Tables())
    assert repr(read._replace(symbols=(), keys=())) == repr(block)
    assert written(read) == data


@given(blocks, st.data())
def test_accepted_bytes_have_one_spelling(block: Block, data: st.DataObject) -> None:
    """Whatever damaged bytes are still accepted are exactly what writing their meaning produces."""
    damaged = bytearray(written(block))
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position : position + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        read = decode_block(bytes(damaged), Tables())
    except (ValueError, IndexError, KeyError):
        return
    assert written(read) == bytes(damaged)


SOURCE = """
user("alice"); level(-3); born(2020-01-01T00:00:00Z); raw(hex:0aff); on(true); many({1, 2, 3}); names({"a", "b"});
derived($x) <- user($x), level($n), $n < 3 trusting previous;
check if user("alice") or level($n), ($n + 1) * 2 - 3 / 1 > 0, !false, "abc".length() === 3 trusting authority, {key};
check all names($s), $s.contains("a") && $s.union({"c"}).contains("c"), $s.intersection({"a"}).length() === 1;
check if user($u), $u.starts_with("a"), $u.ends_with("e"), $u.matches("a.*"), 1 & 2 | 3 ^ 4 !== 5, $u !== "eve";
"""


def test_the_engine_writes_what_we_read_and_write() -> None:
    """Blocks of the engine's own are read, re-encoded byte for byte, and keep their symbols across blocks."""
    pair = KeyPair()
    token = BiscuitBuilder(SOURCE, {}, {"key": KeyPair().public_key}).build(pair.private_key)
    token = token.append(BlockBuilder('check if user("alice"), other("new")'))
    ours = decode(bytes(token.to_bytes()))
    tables = Tables()
    assert [encode_block(block, tables) for block in ours.contents] == [link.content for link in ours.blocks]
    facts = {fact.name: fact.terms[0] for fact in ours.contents[0].facts}
    assert facts["level"] == -3
    assert facts["born"] == Date(int(datetime(2020, 1, 1, tzinfo=UTC).timestamp()))
    assert facts["raw"] == b"\x0a\xff"
    assert facts["on"] is True
    assert facts["many"] == TermSet((1, 2, 3))
    assert ours.contents[0].rules[0].scopes == (Scope.PREVIOUS,)
    assert ours.contents[0].checks[1].kind is CheckKind.ALL
    assert ours.contents[1].symbols == ("other", "new")
    assert Biscuit.from_bytes(token.to_bytes(), pair.public_key).block_count() == 2


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("check if x($a), [1, 2].any($p -> $p === $a)", "term"),
        ("check if x($a), {1, 2}.any($p -> $p === $a)", "closure"),
        ("check if x($a), $a.extern::f()", "extern"),
        ("check if x($a), $a.extern::f(1)", "extern"),
        ("f(null)", "term"),
        ("f([1])", "term"),
        ('f({"a": 1})', "term"),
    ],
)
def test_newer_constructs_are_kept_as_foreign_bytes(source: str, kind: str) -> None:
    """Null, arrays, maps, closures and foreign functions are recognised as such and re-encoded untouched."""
    pair = KeyPair()
    token = decode(bytes(BiscuitBuilder(source).build(pair.private_key).to_bytes()))
    block = token.contents[0]
    found = [term for fact in block.facts for term in fact.terms]
    found += [op for check in block.checks for query in check.queries for expression in query.expressions for op in expression]
    assert kind in {item.kind for item in found if isinstance(item, Foreign)}
    assert written(block) == token.blocks[0].content


HEAD = nested(0x0A, integer(0x08, 27))
VERSION = integer(0x18, 3)
NAME = integer(0x08, 0)


def in_query(field: bytes) -> bytes:
    """A block with one check of one query, which holds ``field``."""
    return VERSION + nested(0x32, nested(0x0A, HEAD + field))


def in_term(term: bytes) -> bytes:
    """A block with one fact of one term."""
    return VERSION + nested(0x22, nested(0x0A, NAME + nested(0x12, term)))


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", ValueError),  # no version
        (b"\x0a\x05abc", ValueError),  # a symbol that is cut
        (nested(0x12, b"") + nested(0x0A, b"late") + VERSION, NotCanonical),
        (VERSION + nested(0x22, nested(0x12, NAME)), NotCanonical),  # something else for a predicate
        (VERSION + VERSION, NotCanonical),
        (nested(0x12, b"") * 2 + VERSION, NotCanonical),  # two contexts
        (VERSION + nested(0x4A, b""), NotCanonical),  # an unknown field
        (nested(0x0A, b"\xff") + VERSION, ValueError),  # not UTF-8
        (integer(0x18, 300) * 2, NotCanonical),  # two versions, and not small ones
        (VERSION + nested(0x22, nested(0x0A, NAME)) + b"\x22\x7f", ValueError),  # a fact that is cut
        (VERSION + nested(0x32, b"") + nested(0x22, nested(0x0A, NAME)), NotCanonical),  # a fact after a check
        (nested(0x0A, b"a") * 2 + VERSION, ValueError),  # the same symbol twice
        (nested(0x0A, b"read") + VERSION, ValueError),  # a default symbol again
        (VERSION + nested(0x42, encode_key(KEY)) * 2, ValueError),  # the same key twice
        (VERSION + nested(0x22, b""), ValueError),  # a fact of nothing
        (VERSION + nested(0x22, nested(0x0A, NAME) * 2), ValueError),  # of two predicates
        (VERSION + nested(0x22, nested(0x0A, nested(0x12, b""))), ValueError),  # no name
        (VERSION + nested(0x22, nested(0x0A, integer(0x08, 999))), KeyError),  # an unknown name
        (VERSION + nested(0x22, nested(0x0A, NAME + NAME)), NotCanonical),  # two names
        (VERSION + nested(0x22, nested(0x0A, NAME + nested(0x1A, b""))), NotCanonical),  # an unknown field
        (in_term(integer(0x18, 999)), KeyError),  # an unknown symbol
        (in_term(integer(0x08, 999)), KeyError),  # an unknown variable
        (in_term(integer(0x18, OFFSET + 300)), KeyError),
        (in_term(integer(0x30, 2)), ValueError),  # neither false nor true
        (in_term(integer(0x10, 1) * 2), NotCanonical),  # two values
        (in_term(integer(0x20, 1) + b"\x08\x00"), NotCanonical),  # a date and then some
        (in_term(integer(0x20, 1) + integer(0x30, 1)), ValueError),  # a date and a boolean
        (in_term(nested(0x5A, b"")), ValueError),  # no such kind
        (in_term(nested(0x3A, nested(0x0A, integer(0x10, 1)) * 2)), NotCanonical),  # a set with a repetition
        (in_term(nested(0x3A, nested(0x12, b""))), NotCanonical),  # an unknown field in a set
        (in_term(nested(0x3A, nested(0x0A, nested(0x3A, b"")))), ValueError),  # a set within a set
        (in_query(nested(0x1A, nested(0x0A, integer(0x10, 1)))), ValueError),  # no such operation
        (in_query(nested(0x1A, nested(0x0A, nested(0x2A, b"")))), ValueError),
        (in_query(nested(0x22, integer(0x08, 2))), ValueError),  # no such scope
        (in_query(nested(0x22, integer(0x10, 0))), IndexError),  # no such key
        (in_query(nested(0x22, integer(0x18, 0))), ValueError),
        (in_query(nested(0x2A, b"")), NotCanonical),  # an unknown field in a query
        (VERSION + nested(0x2A, nested(0x12, NAME)), ValueError),  # a rule without a head
        (VERSION + nested(0x32, integer(0x10, 0)), NotCanonical),  # `check if`, spelled out
        (VERSION + nested(0x32, integer(0x10, 1) * 2), NotCanonical),
        (VERSION + nested(0x32, integer(0x10, 3)), ValueError),  # no such kind of check
        (VERSION + nested(0x32, nested(0x12, b"")), NotCanonical),
    ],
)
def test_other_messages_are_refused(data: bytes, error: type[Exception]) -> None:
    """Missing, repeated, unknown and dangling fields are errors, and repetitions are told from damage."""
    with pytest.raises(error):
        decode_block(data, Tables())


@pytest.mark.parametrize(
    "data",
    [
        encode_key(KeyRef(0, b"k" * 31)),
        encode_key(KeyRef(1, b"\x04" + b"k" * 64)),  # an uncompressed point: a second spelling of the same key
        encode_key(KeyRef(2, b"k" * 32)),
        encode_key(KEY) + b"\x1a\x00",
        encode_key(KEY)[:-1],
        b"",
    ],
)
def test_keys_have_one_form(data: bytes) -> None:
    """A key of another length, form or algorithm is refused."""
    with pytest.raises((ValueError, IndexError)):
        decode_key(data)


def test_long_and_rare_values_take_the_slow_road() -> None:
    """Values beyond the prepared tables are read all the same: high symbol numbers, long terms in facts and expressions."""
    names = tuple(f"symbol{number}" for number in range(400))
    items = TermSet(tuple(f"item{number}" for number in range(40)))
    body = (Predicate(names[399], (Variable(names[398]), names[397])),)
    query = Query(QUERY_HEAD, body, ((items, Variable(names[398]), Binary.CONTAINS),), ())
    block = Block(3, (Predicate("big", (items,)),), (Check((query,)),), symbols=names)
    read: Any = decode_block(written(block), Tables())
    assert (read.facts, read.checks) == (block.facts, block.checks)


def test_tables_number_symbols_and_keys() -> None:
    """Symbols of the token begin at 1024, known ones are not repeated, and keys likewise."""
    tables = Tables()
    assert tables.index("read") == DEFAULT_SYMBOLS.index("read")
    assert (tables.index("mine"), tables.index("other"), tables.index("mine")) == (1024, 1025, 1024)
    assert tables.symbols() == ("mine", "other")
    assert (tables.key_index(KEY), tables.key_index(P256_KEY), tables.key_index(KEY)) == (0, 1, 0)
