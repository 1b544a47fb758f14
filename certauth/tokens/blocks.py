"""A block, and reading its bytes strictly.

Reading accepts exactly what :mod:`~certauth.tokens.block_writer` produces: together with :mod:`~certauth.tokens.wire` that
means that every block we accept has one spelling, and that no other parser can see something else in it. Malformed input
raises ``ValueError``, ``IndexError`` or ``KeyError``; :mod:`certauth.tokens.codec` turns them into one ``TokenError``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from certauth.tokens.conditions import Condition, from_check
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
    Op,
    Predicate,
    Query,
    Scope,
    Tables,
    Term,
    TermSet,
    Unary,
    Variable,
)
from certauth.tokens.shapes import recognise
from certauth.tokens.wire import (
    Field,
    NotCanonical,
    integer,
    mismatch,
    repeated,
    split,
    to_signed,
    unsigned,
    varint,
)

# How a public key begins: its algorithm, and the length of what follows, which is the algorithm and the size of the key.
_KEY_FORMS = {b"\x08\x00\x12\x20": (0, 32), b"\x08\x01\x12\x21": (1, 33)}

# An operator, and a string or variable term, is one of few byte strings: a look-up is several times faster than parsing.
_OPERATORS: dict[bytes, Unary | Binary] = {b"\x12\x02\x08" + bytes((op.value,)): op for op in Unary} | {
    b"\x1a\x02\x08" + bytes((op.value,)): op for op in Binary
}
_INDICES = (*range(len(DEFAULT_SYMBOLS)), *range(OFFSET, OFFSET + 256))
_STRINGS = {b"\x18" + unsigned(index): index for index in _INDICES}
_VARIABLES = {b"\x08" + unsigned(index): index for index in _INDICES}
_HEAD = integer(0x08, DEFAULT_SYMBOLS.index("query"))
_SMALL = {b"\x10" + unsigned(number): number for number in range(16)}
# How a fact begins that holds one date of our days, of which five bytes follow.
_DATED = {
    bytes((0x0A, 9 + len(number), 0x08)) + number + b"\x12\x06\x20": index
    for number, index in ((unsigned(index), index) for index in _INDICES)
}
_ONLY_STRING = {b"\x12" + bytes((len(term),)) + term: index for term, index in _STRINGS.items()}

# Bytes of a fact up to which its form is remembered: a right has 26.
_SHORT = 32
_new = tuple.__new__  # of a NamedTuple, without the Python function that it has for a constructor

# The fields of a block: symbols, context, version (a number), facts, rules, checks, scopes and keys.
_FIELDS = frozenset({0x0A, 0x12, 0x18, 0x22, 0x2A, 0x32, 0x3A, 0x42})
_NOTHING_RARE: dict[int, list[Any]] = {}

Names = dict[int, str]


class Block(NamedTuple):
    """The content of one block. ``symbols`` and ``keys`` are what it adds to the token's tables."""

    version: int
    facts: tuple[Predicate, ...] = ()
    checks: tuple[Condition | Check, ...] = ()
    """A check that says one of our conditions, in the form in which we write it, is that condition."""
    rules: tuple[Query, ...] = ()
    scopes: tuple[Scope | KeyRef, ...] = ()
    context: str | None = None
    symbols: tuple[str, ...] = ()
    keys: tuple[KeyRef, ...] = ()


def decode_block(data: bytes, tables: Tables) -> Block:
    """The block in ``data``; ``tables`` knows what earlier blocks defined, and learns what this one does."""
    end, rare = len(data), _NOTHING_RARE
    # What nearly every block is: symbols, a version, facts, checks, keys. Whatever else is there stops one of the runs early.
    symbols, position = _run(data, 0, 0x0A)
    version, position = (data[position + 1], position + 2) if data[position : position + 1] == b"\x18" else (0x80, position)
    facts, position = _run(data, position, 0x22)
    checks, position = _run(data, position, 0x32)
    keys, position = _run(data, position, 0x42)
    if position != end or version > 0x7F:
        symbols, facts, checks, rare = _split(data)
        context, versions, keys = rare.get(0x12, []), rare.get(0x18, []), rare.get(0x42, [])
        if len(context) > 1 or len(versions) > 1:
            raise NotCanonical("a repeated field in a block")
        (version,) = versions
    texts = [symbol.decode() for symbol in symbols]
    added = tuple([decode_key(key) for key in keys]) if keys else ()
    tables.add(texts)
    tables.add_keys(added)
    names, known = tables.names, tables.keys
    return Block(
        version,
        _facts(facts, names),
        tuple([recognise(check, names, known) or _other_check(check, tables) for check in checks]),
        tuple([_query(rule, tables) for rule in rare[0x2A]]) if 0x2A in rare else (),
        tuple([_scope(scope, tables) for scope in rare[0x3A]]) if 0x3A in rare else (),
        rare[0x12][0].decode() if 0x12 in rare else None,
        tuple(texts),
        added,
    )


def _run(data: bytes, position: int, tag: int) -> tuple[list[bytes], int]:
    """The values of all fields with this ``tag`` from ``position`` on, and their end: beyond ``data`` if that is cut short."""
    values: list[bytes] = []
    end = len(data)
    while position < end and data[position] == tag:
        size = data[position + 1]
        position += 2
        if size > 0x7F:
            size, position = varint(data, position - 1)
        values.append(data[position : position + size])
        position += size
    return values, position


def _split(data: bytes) -> tuple[list[bytes], list[bytes], list[bytes], dict[int, list[Any]]]:
    """Symbols, facts, checks, and by their tags all other fields."""
    found: dict[int, list[Any]] = {0x0A: [], 0x22: [], 0x32: []}
    for tag, value in split(data):
        if tag not in _FIELDS:
            raise NotCanonical("an unknown field in a block")
        found.setdefault(tag, []).append(value)
    return found.pop(0x0A), found.pop(0x22), found.pop(0x32), found


def decode_key(data: bytes) -> KeyRef:
    """A public key: its algorithm and its bytes, in the one allowed length."""
    form = _KEY_FORMS.get(data[:4])
    if form is None or len(data) != form[1] + 4:
        raise mismatch(split(data), 0x08, 0x12)
    return KeyRef(form[0], data[4:])


def _facts(messages: list[bytes], names: Names) -> tuple[Predicate, ...]:
    facts = []
    for data in messages:
        # Symbol numbers repeat from token to token, and with them the bytes of all facts but those that hold a date.
        if (head := _DATED.get(data[:-5])) is not None:
            seconds, end = varint(data, len(data) - 5)
            if end == len(data):
                facts.append(_new(Predicate, (names[head], (_new(Date, (seconds,)),))))
                continue
        elif len(data) <= _SHORT and (form := _form_of(data)) is not None:
            name, terms, only, number = form
            if only is not None:
                facts.append(_new(Predicate, (names[name], (names[only],))))
            elif number is not None:
                facts.append(_new(Predicate, (names[name], number)))
            else:
                facts.append(_new(Predicate, (names[name], tuple([names[term] for term in terms]))))
            continue
        tag, predicate = _single(data)
        if tag != 0x0A:
            raise NotCanonical("an unknown field in a fact")
        facts.append(_predicate(predicate, names))
    return tuple(facts)


@lru_cache(maxsize=4096)  # of short byte strings; what a stranger can do is push out ours, which are then read again
def _form_of(data: bytes) -> tuple[int, tuple[int, ...], int | None, tuple[int] | None] | None:
    """The symbol numbers of a fact's name and of its terms, all strings; that of the only one; or its one small integer.

    ``None`` for any other fact: a general reader has to look.
    """
    tag, predicate = _single(data)
    if tag != 0x0A or predicate[0] != 0x08:
        return None
    name, position = varint(predicate, 1)
    terms = repeated(predicate, position, 0x12)
    if len(terms) == 1 and (number := _SMALL.get(terms[0])) is not None:
        return name, (), None, (number,)
    known = tuple([_STRINGS[term] for term in terms if term in _STRINGS])
    if len(known) != len(terms):
        return None
    return name, known, known[0] if len(known) == 1 else None, None


def _predicate(data: bytes, names: Names) -> Predicate:
    if data[0] != 0x08:
        raise ValueError("a predicate without its name")
    number, position = data[1], 2
    if number > 0x7F:
        number, position = varint(data, 1)
    if (only := _ONLY_STRING.get(data[position:])) is not None:  # one term, and a string: by far the most frequent
        return Predicate(names[number], (names[only],))
    terms: list[Term] = []
    for term in repeated(data, position, 0x12):
        index = _STRINGS.get(term)
        terms.append(_term(term, names) if index is None else names[index])
    return Predicate(names[number], tuple(terms))


def _term(data: bytes, names: Names) -> Term:
    if (index := _STRINGS.get(data)) is not None:
        return names[index]
    if (index := _VARIABLES.get(data)) is not None:
        return Variable(names[index])
    kind = data[0]
    if kind in (0x20, 0x10):
        number, end = varint(data, 1)
        if end == len(data):
            return Date(number) if kind == 0x20 else to_signed(number)
    tag, value = _single(data)
    match tag:
        case 0x3A:
            return _set(value, names)
        case 0x2A:
            return bytes(value)
        case 0x30 if value < 2:
            return bool(value)
        case 0x18:
            return names[value]
        case 0x08:
            return Variable(names[value])
        case 0x42 | 0x4A | 0x52:
            return Foreign("term", data)
        case _:
            raise ValueError("not a term")


def _single(data: bytes) -> Field:
    """The one field of a message."""
    fields = split(data)
    if len(fields) != 1:
        raise mismatch(fields, *(tag for tag, _ in fields))
    return fields[0]


def _set(data: bytes, names: Names) -> TermSet:
    items = repeated(data, 0, 0x0A)
    if any(item[:1] == b"\x3a" for item in items):
        # No Datalog has them, and as many as fit into a token would be deeper than a program's stack.
        raise ValueError("a set within a set")
    if len(set(items)) != len(items):
        raise NotCanonical("a set holds the same value twice")
    return TermSet(tuple([_term(item, names) for item in items]))


def _expression(data: bytes, names: Names) -> tuple[Op, ...]:
    ops: list[Op] = []
    for op in repeated(data, 0, 0x0A):
        if (operator := _OPERATORS.get(op)) is not None:
            ops.append(operator)
        elif op[0] == 0x0A and op[1] == len(op) - 2 < 0x80:
            ops.append(_term(op[2:], names))
        else:
            ops.append(_other_op(op, names))
    return tuple(ops)


def _other_op(data: bytes, names: Names) -> Op:
    tag, value = _single(data)
    match tag:
        case 0x0A:
            return _term(value, names)
        case 0x12 | 0x1A:
            return Foreign("extern", data)
        case 0x22:
            return Foreign("closure", data)
        case _:
            raise ValueError("not an operation")


def _scope(data: bytes, tables: Tables) -> Scope | KeyRef:
    tag, value = _single(data)
    match tag:
        case 0x08:
            return Scope(value)
        case 0x10:
            return tables.keys[value]
        case _:
            raise ValueError("not a scope")


def _query(data: bytes, tables: Tables) -> Query:
    fields = split(data)
    names = tables.names
    body: list[Predicate] = []
    expressions: list[tuple[Op, ...]] = []
    scopes: list[Scope | KeyRef] = []
    if fields[0][0] != 0x0A:
        raise ValueError("a query without its head")
    head = QUERY_HEAD if fields[0][1] == _HEAD else _predicate(fields[0][1], names)
    for tag, value in fields[1:]:
        if tag == 0x12:
            body.append(_predicate(value, names))
        elif tag == 0x1A:
            expressions.append(_expression(value, names))
        elif tag == 0x22:
            scopes.append(_scope(value, tables))
        else:
            raise NotCanonical("an unknown or repeated field in a query")
    return Query(head, tuple(body), tuple(expressions), tuple(scopes))


def _other_check(data: bytes, tables: Tables) -> Condition | Check:
    check = _check(data, tables)
    return from_check(check) or check


def _check(data: bytes, tables: Tables) -> Check:
    kind = CheckKind.ONE
    queries = []
    for tag, value in split(data):
        if tag == 0x0A:
            queries.append(_query(value, tables))
        # `check if` is written without its kind: an explicit zero would be a second spelling of it.
        elif tag != 0x10 or value == CheckKind.ONE.value or kind is not CheckKind.ONE:
            raise NotCanonical("an unknown or repeated field in a check")
        else:
            kind = CheckKind(value)
    return Check(tuple(queries), kind)
