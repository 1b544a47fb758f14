"""The bytes of a block, in the one spelling in which blocks are read (:mod:`~certauth.tokens.blocks`)."""

from __future__ import annotations

from typing import assert_never

from certauth.tokens.blocks import Block
from certauth.tokens.conditions import Condition, to_check
from certauth.tokens.datalog import (
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
from certauth.tokens.wire import integer, nested, signed


def encode_block(block: Block, tables: Tables) -> bytes:
    """The bytes of ``block`` after what ``tables`` knows; the symbols and keys it needs are added to both.

    ``block.symbols`` and ``block.keys`` come first, so that a decoded block is written as it was read.
    """
    known, known_keys = len(tables.symbols()), len(tables.keys)
    tables.add(block.symbols)
    tables.add_keys(block.keys)
    body = b"".join(
        (
            *(nested(0x22, nested(0x0A, _write_predicate(fact, tables))) for fact in block.facts),
            *(nested(0x2A, _write_query(rule, tables)) for rule in block.rules),
            *(nested(0x32, _write_check(check, tables)) for check in block.checks),
            *(nested(0x3A, _write_scope(scope, tables)) for scope in block.scopes),
        )
    )
    return b"".join(
        (
            *(nested(0x0A, symbol.encode()) for symbol in tables.symbols()[known:]),
            b"" if block.context is None else nested(0x12, block.context.encode()),
            integer(0x18, block.version),
            body,
            *(nested(0x42, encode_key(key)) for key in tables.keys[known_keys:]),
        )
    )


def encode_key(key: KeyRef) -> bytes:
    """A ``PublicKey`` message."""
    return integer(0x08, key.algorithm) + nested(0x12, key.key)


def _write_predicate(predicate: Predicate, tables: Tables) -> bytes:
    name = integer(0x08, tables.index(predicate.name))
    return name + b"".join(nested(0x12, _write_term(term, tables)) for term in predicate.terms)


def _write_term(term: Term, tables: Tables) -> bytes:
    match term:
        case str():
            return integer(0x18, tables.index(term))
        case bool():
            return integer(0x30, int(term))
        case int():
            return bytes((0x10,)) + signed(term)
        case bytes():
            return nested(0x2A, term)
        case Variable(name):
            return integer(0x08, tables.index(name))
        case Date(seconds):
            return integer(0x20, seconds)
        case TermSet(items):
            return nested(0x3A, b"".join(nested(0x0A, _write_term(item, tables)) for item in items))
        case Foreign(_, data):
            return data
        case _:
            assert_never(term)


def _write_op(op: Op, tables: Tables) -> bytes:
    match op:
        case Unary():
            return nested(0x12, integer(0x08, op.value))
        case Binary():
            return nested(0x1A, integer(0x08, op.value))
        case Foreign("closure" | "extern", data):
            return data
        case _:
            return nested(0x0A, _write_term(op, tables))


def _write_scope(scope: Scope | KeyRef, tables: Tables) -> bytes:
    match scope:
        case Scope():
            return integer(0x08, scope.value)
        case KeyRef():
            return integer(0x10, tables.key_index(scope))
        case _:
            assert_never(scope)


def _write_query(query: Query, tables: Tables) -> bytes:
    return b"".join(
        (
            nested(0x0A, _write_predicate(query.head, tables)),
            *(nested(0x12, _write_predicate(predicate, tables)) for predicate in query.body),
            *(nested(0x1A, b"".join(nested(0x0A, _write_op(op, tables)) for op in ops)) for ops in query.expressions),
            *(nested(0x22, _write_scope(scope, tables)) for scope in query.scopes),
        )
    )


def _write_check(content: Condition | Check, tables: Tables) -> bytes:
    check = content if isinstance(content, Check) else to_check(content)
    kind = b"" if check.kind is CheckKind.ONE else integer(0x10, check.kind.value)
    return b"".join(nested(0x0A, _write_query(query, tables)) for query in check.queries) + kind
