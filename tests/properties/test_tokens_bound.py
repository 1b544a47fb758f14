"""A token that the lint lets pass cannot be expensive: whatever its holders appended, deciding about it stays within the bound.

The bound is the engine's own time limit, which the engine looks at between rounds only; here it is CPU time of the thread, so a
busy machine does not count. The most expensive tokens found take about a twentieth of it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certauth.errors import CertauthError, TokenError
from certauth.tokens.blocks import Block
from certauth.tokens.codec import MAX_BYTES
from certauth.tokens.datalog import QUERY_HEAD, Binary, Check, CheckKind, Op, Predicate, Query, TermSet, Unary, Variable
from certauth.tokens.engine import MAX_TIME
from certauth.tokens.vocabulary import Right
from tests.certauth.tokens.kit import Facility, ask, with_block

ALS = Facility()
RICH = {
    size: ALS.mint(
        rights=tuple(Right("files", "read", f"/{number}/") for number in range(size)),
        groups=tuple(f"g{number}" for number in range(size // 2)),
        delegate_key=None,
    )
    for size in (2, 8, 40)
}
BOUND = MAX_TIME.total_seconds()

names = st.sampled_from(["right", "group", "role", "tree", "path", "operation", "time", "client_ip4", "uid", "nothing"])
ARITY = {"right": 3, "uid": 2}
variables = st.sampled_from([Variable(name) for name in "abcdef"])


def comparison(variable: Variable, kind: int, size: int) -> tuple[Op, ...]:
    """One step of a condition that is true for hardly anything, so that the search goes on."""
    match kind:
        case 0:
            return (TermSet(tuple(f"{item}" for item in range(size))), variable, Binary.CONTAINS)
        case 1:
            return (variable, "x" * size, Binary.SUFFIX)
        case 2:
            return (variable, "x" * size, Binary.CONTAINS)
        case 3:
            return (variable, Unary.LENGTH, size * 100, Binary.GREATER_THAN)
        case _:
            return (variable, "y" * size, Binary.EQUAL)


@st.composite
def checks(draw: st.DrawFn) -> Check:
    """A check of any shape within the bounds of the lint, or a little beyond."""
    queries = []
    for _ in range(draw(st.integers(1, 3))):
        body = []
        for name in draw(st.lists(names, min_size=1, max_size=4)):
            terms = draw(st.lists(variables, min_size=ARITY.get(name, 1), max_size=ARITY.get(name, 1)))
            body.append(Predicate(name, tuple(terms)))
        bound = [term for predicate in body for term in predicate.terms]
        expressions: list[tuple[Any, ...]] = []
        for _ in range(draw(st.integers(0, 4))):
            steps = [
                comparison(draw(st.sampled_from(bound)), draw(st.integers(0, 4)), draw(st.integers(1, 64)))  # type: ignore[arg-type]
                for _ in range(draw(st.integers(1, 4)))
            ]
            joined: tuple[Op, ...] = steps[0]
            for step in steps[1:]:
                joined += (*step, draw(st.sampled_from([Binary.AND, Binary.OR])))
            expressions.append(joined)
        queries.append(Query(QUERY_HEAD, tuple(body), tuple(expressions), ()))
    return Check(tuple(queries), draw(st.sampled_from([CheckKind.ONE, CheckKind.ALL])))


def cost(token: bytes) -> float | None:
    """CPU seconds for a decision about ``token``, whatever it is; ``None`` if the lint refuses it."""
    try:
        verified = ALS.verify(token)
    except TokenError as error:
        if not error.code.startswith("lint-"):
            raise
        return None
    start = time.thread_time()
    with suppress(CertauthError):  # a check that compares what cannot be compared is an error of the token's
        ask(verified)
    return time.thread_time() - start


@settings(max_examples=150)
@given(st.sampled_from(sorted(RICH)), st.lists(st.lists(checks(), min_size=1, max_size=4), min_size=1, max_size=4))
def test_what_passes_is_decided_within_the_bound(size: int, attenuations: list[list[Check]]) -> None:
    """Any number of blocks of any checks: refused by the lint or for its size, or decided in time."""
    token = RICH[size]
    for block in attenuations:
        longer = with_block(token, Block(5, checks=tuple(block)))
        token = longer if len(longer) <= MAX_BYTES else token
    spent = cost(token)
    assert spent is None or spent < BOUND


def worst(rights: int, width: int, predicates: int, expressions: int) -> bytes | None:
    """As many combinations as the lint lets pass, each with as much work as fits into a token; ``None`` if it does not fit."""
    x = Variable("c0")
    items = TermSet(tuple(range(width)))
    step: tuple[Op, ...] = (items, x, Binary.CONTAINS)
    condition = (*step, *(*step, Binary.OR) * 3, Unary.NEGATE)
    body = tuple(
        Predicate("right", (Variable(f"a{number}"), Variable(f"b{number}"), Variable(f"c{number}")))
        for number in range(predicates)
    )
    # The last one fails for every combination, so that all of them are looked at.
    limits = (condition,) * (expressions - 1) + ((*condition[:-1], Unary.PARENS),)
    token = ALS.mint(
        rights=tuple(Right("f", "r", f"/{number}") for number in range(rights)),
        groups=(),
        roles=(),
        projects=(),
        delegate_key=None,
    )
    token = with_block(token, Block(5, checks=(Check((Query(QUERY_HEAD, body, limits, ()),)),)))
    return token if len(token) <= MAX_BYTES else None


@pytest.mark.parametrize(("rights", "predicates"), [(60, 2), (15, 3), (7, 4)])
def test_the_worst_we_know_is_decided_within_the_bound(rights: int, predicates: int) -> None:
    """Tokens built to cost as much as can pass, with sets and expressions as large as fit."""
    tried = [worst(rights, width, predicates, expressions) for width in (1, 16, 64) for expressions in (1, 2, 4)]
    costs = [cost(token) for token in tried if token is not None]
    assert None not in costs
    assert len(costs) >= 3
    assert max(spent for spent in costs if spent is not None) < BOUND
