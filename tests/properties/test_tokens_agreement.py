"""Whatever is in a token, and whoever wrote it: the engine and we see the same links, facts and bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from biscuit_auth import Biscuit, BiscuitBuilder, BlockBuilder, PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from certauth.keys import Algorithm, generate
from certauth.tokens.blocks import Block
from certauth.tokens.codec import MAX_BLOCKS, decode, encode
from certauth.tokens.conditions import Condition, Operations, Paths, Services, Window
from certauth.tokens.datalog import Date, Predicate, Term, TermSet
from certauth.tokens.signing import append, append_answer, key_ref, mint_chain, seal, third_party_answer, third_party_request
from tests.certauth.tokens.kit import entropy
from tests.conformance.agreement import key_text, read
from tests.conformance.corpus import Algorithm as EngineAlgorithm
from tests.conformance.corpus import reference, root

ROOT = generate(Algorithm.ED25519)
THIRD = (generate(Algorithm.ED25519), generate(Algorithm.P256))

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-(2**63), 2**63 - 1)
dates = st.integers(0, 253402300799)
simple: list[st.SearchStrategy[Any]] = [text, integers, st.booleans(), st.binary(max_size=8), dates.map(Date)]
sets = st.one_of([st.lists(kind, min_size=1, max_size=4, unique=True) for kind in simple]).map(
    lambda items: TermSet(tuple(items))
)
facts = st.builds(Predicate, text.filter(bool), st.lists(st.one_of(*simple, sets), min_size=1, max_size=4).map(tuple))
conditions = st.one_of(
    st.builds(Window, st.none() | dates, dates),
    st.builds(Services, st.lists(text, min_size=1, max_size=4, unique=True).map(tuple)),
    st.builds(Operations, st.lists(text, min_size=1, max_size=4, unique=True).map(tuple)),
    st.builds(Paths, st.lists(text, min_size=1, max_size=4, unique=True).map(tuple)),
)


def made(version: int, facts: list[Predicate], checks: list[Condition], context: str | None) -> Block:
    """A block; Hypothesis would invent what it is not told."""
    return Block(version, tuple(facts), tuple(checks), context=context)


blocks = st.builds(made, st.integers(3, 5), st.lists(facts, max_size=4), st.lists(conditions, max_size=3), st.none() | text)
links = st.tuples(st.sampled_from([None, *THIRD]), blocks)


@settings(max_examples=60)
@given(first=blocks, rest=st.lists(links, max_size=MAX_BLOCKS - 1), sealed=st.booleans())
def test_the_engine_takes_what_we_write(first: Block, rest: list[tuple[Any, Block]], sealed: bool) -> None:
    """Any chain we sign, of any content, verifies there with the same ids, keys and bytes."""
    token = mint_chain(first, ROOT, entropy=entropy)
    for third, block in rest:
        if third is None:
            token = append(token, block, entropy=entropy)
        else:
            answer = third_party_answer(third_party_request(token), block, third)
            token = append_answer(token, answer, entropy=entropy)
    data = encode(seal(token) if sealed else token)
    reading = read(data, key_ref(ROOT.public_key))
    assert (reading.accepted, reading.differences) == (True, [])
    assert reading.token is not None
    assert [block.facts for block in reading.token.contents] == [first.facts, *(block.facts for _, block in rest)]


def given_to_engine(term: Term) -> object:
    """A term as a parameter of the engine's."""
    match term:
        case Date(seconds):
            return datetime.fromtimestamp(seconds, UTC)
        case TermSet(items):
            return {given_to_engine(item) for item in items}
        case _:
            return term


def comparable(term: Term) -> object:
    """A term, in which the order of a set does not count."""
    return frozenset(term.items) if isinstance(term, TermSet) else (type(term), term)


algorithms = st.sampled_from([EngineAlgorithm.Ed25519, EngineAlgorithm.Secp256r1])
parameters = st.lists(st.one_of(*simple, sets), min_size=1, max_size=4)


@settings(max_examples=60)
@given(
    st.lists(parameters, min_size=1, max_size=4), st.sampled_from([EngineAlgorithm.Ed25519, EngineAlgorithm.Secp256r1]), blocks
)
def test_we_read_what_the_engine_writes(contents: list[list[Term]], algorithm: Any, ours: Block) -> None:
    """Facts it was given as values come back as those values, its bytes are ours, and it takes a block of ours on top."""
    private, _ = root(algorithm)
    sources = [(f"f({', '.join(f'{{v{number}}}' for number in range(len(terms)))})", terms) for terms in contents]
    values = [{f"v{number}": given_to_engine(term) for number, term in enumerate(terms)} for _, terms in sources]
    token = BiscuitBuilder(sources[0][0], values[0]).build(private)
    for (source, _), parameter in zip(sources[1:], values[1:], strict=True):
        token = token.append(BlockBuilder(source, parameter))
    data = bytes(token.to_bytes())
    reading = read(data, reference(private))
    assert (reading.accepted, reading.differences) == (True, [])
    assert reading.code.startswith("lint-")
    found = [[comparable(term) for term in fact.terms] for block in decode(data).contents for fact in block.facts]
    assert found == [[comparable(term) for term in terms] for terms in contents]
    longer = encode(append(decode(data), ours, entropy=entropy))
    again = Biscuit.from_bytes(longer, PublicKey(key_text(reference(private))))
    assert again.block_count() == len(contents) + 1
