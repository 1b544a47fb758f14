"""The Merkle tree against published vectors and a naive reading of RFC 9162 §2.1."""

from __future__ import annotations

import base64
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.audit.tree import (
    EMPTY_ROOT,
    MAX_SIZE,
    Frontier,
    consistency_proof,
    extend,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from certauth.errors import LogError

LIMIT = 300
LEAVES = [leaf_hash(f"entry {index}".encode()) for index in range(LIMIT)]
ALL = extend(Frontier(), LEAVES)
SMALL = 40

# The reference data of RFC 6962 implementations: eight inputs, the roots of the trees over the first n of them, some proofs.
REFERENCE_INPUTS = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
REFERENCE_ROOTS = [
    bytes.fromhex(text)
    for text in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
_96A2 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
_5F08 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
_6B47 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
_BC1A = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
_CA85 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
_D37E = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
_FAC5 = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
_6E34 = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
_0EBC = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"


@cache
def naive_root(start: int, end: int) -> bytes:
    """MTH(D[start:end]) as RFC 9162 §2.1.1 writes it."""
    if end == start:
        return EMPTY_ROOT
    if end - start == 1:
        return LEAVES[start]
    k = 1
    while k * 2 < end - start:
        k *= 2
    return node_hash(naive_root(start, start + k), naive_root(start + k, end))


def naive_path(index: int, start: int, end: int) -> list[bytes]:
    """PATH(m, D_n) as RFC 9162 §2.1.3.1 writes it."""
    if end - start == 1:
        return []
    k = 1
    while k * 2 < end - start:
        k *= 2
    if index < start + k:
        return [*naive_path(index, start, start + k), naive_root(start + k, end)]
    return [*naive_path(index, start + k, end), naive_root(start, start + k)]


def naive_subproof(first: int, start: int, end: int, *, known: bool) -> list[bytes]:
    """SUBPROOF(m, D_n, b) as RFC 9162 §2.1.4.1 writes it, with m counted from the whole tree's start."""
    if first == end:
        return [] if known else [naive_root(start, end)]
    k = 1
    while k * 2 < end - start:
        k *= 2
    if first <= start + k:
        return [*naive_subproof(first, start, start + k, known=known), naive_root(start + k, end)]
    return [*naive_subproof(first, start + k, end, known=False), naive_root(start, start + k)]


def include(index: int, size: int, /, **changes: object) -> None:
    """Verify the honest proof of an entry, with some arguments replaced."""
    arguments: dict[str, object] = {
        "leaf": LEAVES[index],
        "index": index,
        "size": size,
        "proof": inclusion_proof(index, size, ALL.read),
        "root": naive_root(0, size),
    }
    verify_inclusion(**{**arguments, **changes})


def consist(first: int, second: int, /, **changes: object) -> None:
    """Verify the honest consistency proof of two sizes, with some arguments replaced."""
    arguments: dict[str, object] = {
        "first": first,
        "first_root": naive_root(0, first),
        "second": second,
        "second_root": naive_root(0, second),
        "proof": consistency_proof(first, second, ALL.read),
    }
    verify_consistency(**{**arguments, **changes})


def test_the_reference_roots_are_reproduced() -> None:
    """Trees over the first 0 to 8 reference inputs have the published roots."""
    leaves = [leaf_hash(data) for data in REFERENCE_INPUTS]
    assert [extend(Frontier(), leaves[:size]).frontier.root() for size in range(9)] == REFERENCE_ROOTS


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (0, 1, []),
        (0, 8, [_96A2, _5F08, _6B47]),
        (5, 8, [_BC1A, _CA85, _D37E]),
        (2, 3, [_FAC5]),
        (1, 5, [_6E34, _5F08, _BC1A]),
    ],
)
def test_the_reference_inclusion_proofs_are_reproduced_and_verify(index: int, size: int, path: list[str]) -> None:
    """The published audit paths are the ones made here, and they verify."""
    leaves = [leaf_hash(data) for data in REFERENCE_INPUTS]
    proof = inclusion_proof(index, size, extend(Frontier(), leaves).read)
    assert [part.hex() for part in proof] == path
    verify_inclusion(leaf=leaves[index], index=index, size=size, proof=proof, root=REFERENCE_ROOTS[size])


@pytest.mark.parametrize(
    ("first", "second", "path"),
    [
        (1, 1, []),
        (1, 8, [_96A2, _5F08, _6B47]),
        (6, 8, [_0EBC, _CA85, _D37E]),
        (2, 5, [_5F08, _BC1A]),
    ],
)
def test_the_reference_consistency_proofs_are_reproduced_and_verify(first: int, second: int, path: list[str]) -> None:
    """The published consistency proofs are the ones made here, and they verify."""
    read = extend(Frontier(), [leaf_hash(data) for data in REFERENCE_INPUTS]).read
    proof = consistency_proof(first, second, read)
    assert [part.hex() for part in proof] == path
    verify_consistency(
        first=first, first_root=REFERENCE_ROOTS[first], second=second, second_root=REFERENCE_ROOTS[second], proof=proof
    )


def test_a_log_written_by_another_implementation_has_the_same_roots() -> None:
    """Tessera's published test log: the roots of its first 4, 14 and 15 entries."""
    words = "one two three four five six seven eit nain ten ileven twelf threeten fourten fivten"
    leaves = [leaf_hash(word.encode()) for word in words.split()]
    roots = {size: base64.b64encode(extend(Frontier(), leaves[:size]).frontier.root()).decode() for size in (4, 14, 15)}
    assert roots == {
        4: "zY1lN35vrXYAPixXSd59LsU29xUJtuW4o2dNNg5Y2Co=",
        14: "SvCd38yNade7xEPY1a/aAc1M3A2AHYVF8lIiUnsH1ao=",
        15: "rKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=",
    }


def test_a_leaf_cannot_pose_as_a_node() -> None:
    """An entry made of two hashes does not hash like the node above them."""
    assert leaf_hash(LEAVES[0] + LEAVES[1]) != node_hash(LEAVES[0], LEAVES[1])


@pytest.mark.parametrize("size", range(SMALL + 1))
def test_every_entry_of_every_small_tree_is_provable(size: int) -> None:
    """Root and audit path equal the RFC's recursive definition, and the path verifies."""
    assert root_of(size, ALL.read) == naive_root(0, size) == extend(Frontier(), LEAVES[:size]).frontier.root()
    for index in range(size):
        assert list(inclusion_proof(index, size, ALL.read)) == naive_path(index, 0, size)
        include(index, size)


@pytest.mark.parametrize("second", range(1, SMALL + 1))
def test_every_pair_of_small_trees_is_consistent(second: int) -> None:
    """The proof equals the RFC's recursive definition, and it verifies."""
    for first in range(1, second + 1):
        assert list(consistency_proof(first, second, ALL.read)) == naive_subproof(first, 0, second, known=True)
        consist(first, second)


@given(st.data())
def test_larger_trees_follow_the_definition_as_well(data: st.DataObject) -> None:
    """Up to 300 entries: frontier, inclusion and consistency agree with the recursive definition, whatever the batches."""
    size = data.draw(st.integers(1, LIMIT))
    frontier = Frontier()
    while frontier.size < size:
        step = data.draw(st.integers(0, size - frontier.size))
        frontier = extend(frontier, LEAVES[frontier.size : frontier.size + step]).frontier if step else frontier
        if not step:
            frontier = extend(frontier, LEAVES[frontier.size : frontier.size + 1]).frontier
    assert frontier.root() == naive_root(0, size)
    index = data.draw(st.integers(0, size - 1))
    assert list(inclusion_proof(index, size, ALL.read)) == naive_path(index, 0, size)
    include(index, size)
    first = data.draw(st.integers(1, size))
    assert list(consistency_proof(first, size, ALL.read)) == naive_subproof(first, 0, size, known=True)
    consist(first, size)


@pytest.mark.parametrize("before", range(SMALL))
def test_a_batch_is_provable_from_what_extending_returned(before: int) -> None:
    """For every new leaf of a batch the extension alone can prove it, and lists exactly the nodes that came into being."""
    frontier = extend(Frontier(), LEAVES[:before]).frontier
    for after in range(before, SMALL + 20):
        extension = extend(frontier, LEAVES[before:after])
        assert extension.frontier == extend(Frontier(), LEAVES[:after]).frontier
        for index in range(before, after):
            proof = inclusion_proof(index, after, extension.read)
            verify_inclusion(leaf=LEAVES[index], index=index, size=after, proof=proof, root=naive_root(0, after))
        expected = {
            (level, index): naive_root(index << level, index + 1 << level)
            for level in range(after.bit_length())
            for index in range(before >> level, after >> level)
        }
        assert {(level, index): node for level, index, node in extension.completed()} == expected


def test_an_extension_does_not_answer_for_older_nodes() -> None:
    """A node from before the batch, beyond its end or above its root is an error, never a guess."""
    extension = extend(extend(Frontier(), LEAVES[:8]).frontier, LEAVES[8:12])
    for level, index in [(0, 7), (0, 12), (2, 0), (4, 0), (9, 0)]:
        with pytest.raises(LogError, match="node-missing"):
            extension.read(level, index)


@pytest.mark.parametrize("size", range(1, 20))
def test_a_proof_for_one_entry_proves_no_other(size: int) -> None:
    """Another leaf, index, size shape, root, or a proof one hash longer, shorter or altered in any place is refused."""
    for index in range(size):
        include(index, size)
        proof = inclusion_proof(index, size, ALL.read)
        wrong: list[dict[str, object]] = [
            {"leaf": LEAVES[size]},
            {"root": naive_root(0, size + 1)},
            {"size": index},
            {"index": -1},
            {"index": size},
            {"size": MAX_SIZE + 1},
            {"leaf": LEAVES[index][:31]},
            {"root": naive_root(0, size) + b"\x00"},
            {"proof": (*proof, LEAVES[0])},
            *({"index": other} for other in range(size) if other != index),
            *({"proof": proof[:at] + proof[at + 1 :]} for at in range(len(proof))),
            *(
                {"proof": (*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :])}
                for at in range(len(proof))
            ),
            *({"proof": (*proof[:at], proof[at][:31], *proof[at + 1 :])} for at in range(len(proof))),
        ]
        for change in wrong:
            with pytest.raises(LogError, match="inclusion-invalid"):
                include(index, size, **change)


@pytest.mark.parametrize("second", range(1, 20))
def test_a_rewritten_past_is_not_consistent(second: int) -> None:
    """Altered roots, altered, missing or surplus hashes, swapped sizes and size 0 are refused."""
    for first in range(1, second + 1):
        consist(first, second)
        proof = consistency_proof(first, second, ALL.read)
        wrong: list[dict[str, object]] = [
            {"first_root": naive_root(0, first + 1)},
            {"second_root": naive_root(0, second + 1)},
            {"first": 0},
            {"first": 0, "second": 0, "proof": ()},
            {"first": second + 1},
            {"second": second * 2},
            {"second": MAX_SIZE + 1},
            {"first_root": b""},
            {"second_root": b""},
            {"proof": (*proof, LEAVES[0])},
            *({"proof": proof[:at] + proof[at + 1 :]} for at in range(len(proof))),
            *(
                {"proof": (*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :])}
                for at in range(len(proof))
            ),
            *({"proof": (*proof[:at], proof[at] + b"\x00", *proof[at + 1 :])} for at in range(len(proof))),
        ]
        if first < second:
            wrong.append({"proof": ()})
        for change in wrong:
            with pytest.raises(LogError, match="consistency-invalid"):
                consist(first, second, **change)


def test_a_proof_longer_than_the_tree_is_high_is_refused() -> None:
    """True proofs of a larger tree do not pass for a smaller one: no hash may be left when the root is reached."""
    include(1, 2)
    with pytest.raises(LogError, match="inclusion-invalid"):
        include(1, 2, index=0, size=1)
    consist(7, 8)
    with pytest.raises(LogError, match="consistency-invalid"):
        consist(7, 8, first=3, second=4)


def test_hashes_of_other_lengths_cannot_shift_the_boundary() -> None:
    """A byte moved from the leaf to its sibling hashes to the same root; the lengths give it away."""
    with pytest.raises(LogError, match="inclusion-invalid"):
        include(0, 2, leaf=LEAVES[0][:31], proof=(LEAVES[0][31:] + LEAVES[1],))
    with pytest.raises(LogError, match="consistency-invalid"):
        consist(1, 2, first_root=LEAVES[0][:31], proof=(LEAVES[0][31:] + LEAVES[1],))


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0), (0, MAX_SIZE + 1)])
def test_there_is_no_proof_of_an_entry_outside_the_tree(index: int, size: int) -> None:
    """Asking for one is an error."""
    with pytest.raises(LogError, match="log-range"):
        inclusion_proof(index, size, ALL.read)


@pytest.mark.parametrize(("first", "second"), [(0, 5), (6, 5), (1, MAX_SIZE + 1)])
def test_there_is_no_consistency_from_nothing_or_backwards(first: int, second: int) -> None:
    """Asking for one is an error."""
    with pytest.raises(LogError, match="log-range"):
        consistency_proof(first, second, ALL.read)


@given(st.integers(0, LIMIT))
def test_a_frontier_survives_being_stored(size: int) -> None:
    """Its bytes read back as itself."""
    frontier = extend(Frontier(), LEAVES[:size]).frontier
    assert Frontier.from_bytes(frontier.to_bytes()) == frontier


@given(st.binary(max_size=120))
def test_bytes_that_are_no_frontier_are_refused(data: bytes) -> None:
    """Anything read back is either the frontier with exactly these bytes or a LogError."""
    try:
        frontier = Frontier.from_bytes(data)
    except LogError:
        return
    assert frontier.to_bytes() == data


@pytest.mark.parametrize(
    ("size", "peaks"), [(1, ()), (0, (LEAVES[0],)), (3, (LEAVES[0],)), (1, (b"short",)), (-1, ()), (MAX_SIZE + 1, (LEAVES[0],))]
)
def test_a_frontier_that_cannot_be_is_refused(size: int, peaks: tuple[bytes, ...]) -> None:
    """One hash of 32 bytes per set bit of the size, or an error."""
    with pytest.raises(LogError, match="frontier-malformed"):
        Frontier(size, peaks)
