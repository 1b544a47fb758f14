"""Tiles as C2SP tlog-tiles lays them out."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certauth.audit.tiles import Tile, TileReader, build, completed_tiles, subtree_root, tiles_of
from certauth.audit.tree import (
    Frontier,
    consistency_proof,
    extend,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from certauth.errors import LogError

LIMIT = 70_000
LEAVES = [leaf_hash(index.to_bytes(4, "big")) for index in range(LIMIT)]
ALL = extend(Frontier(), LEAVES)


def reader(size: int) -> TileReader:
    """A reader over exactly the tiles a log of this size serves."""
    served = set(tiles_of(size))

    def fetch(tile: Tile) -> bytes:
        assert tile in served
        return build(tile, ALL.read)

    return TileReader(size, fetch)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(1, 999), "tile/1/999"),
        (Tile(2, 1000), "tile/2/x001/000"),
        (Tile(0, 273, 112), "tile/0/273.p/112"),
    ],
)
def test_paths_follow_the_specification(tile: Tile, path: str) -> None:
    """Three digits per element, all but the last with an x, partial tiles with their width."""
    assert tile.path() == path


def test_the_specifications_example_of_70000_entries() -> None:
    """273 full and a partial tile of 112 at level 0, a full one and one of 17 at level 1, one of 1 at level 2."""
    tiles = list(tiles_of(70_000))
    assert Counter((tile.level, tile.width) for tile in tiles) == {
        (0, 256): 273,
        (0, 112): 1,
        (1, 256): 1,
        (1, 17): 1,
        (2, 1): 1,
    }
    assert tiles == sorted(tiles)


def test_the_specifications_example_of_256_entries() -> None:
    """A full tile at level 0 and a partial one of width 1 above it; an empty log has none."""
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == []


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_completed_tiles_are_each_named_once(first: int, second: int) -> None:
    """Growing in two steps completes the same full tiles as growing in one."""
    before, after = sorted((first, second))
    whole = {tile for tile in tiles_of(after) if tile.width == 256}
    steps = [*completed_tiles(0, before), *completed_tiles(before, after)]
    assert len(steps) == len(set(steps))
    assert set(steps) == whole


def test_a_full_tiles_root_is_one_hash_of_the_tile_above() -> None:
    """Level 1 can be made from level 0 alone."""
    above = build(Tile(1, 0, 17), ALL.read)
    assert above[32 * 5 : 32 * 6] == subtree_root(build(Tile(0, 5), ALL.read))


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 513, 65_535, 65_536, 65_537, 70_000])
def test_proofs_from_tiles_verify(size: int) -> None:
    """Roots, inclusion and consistency proofs made from tiles alone are those of the whole tree."""
    read = reader(size)
    root = extend(Frontier(), LEAVES[:size]).frontier.root()
    assert root_of(size, read) == root
    for index in {0, size // 2, size - 1}:
        proof = inclusion_proof(index, size, read)
        verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=root)
    for first in {1, size // 2 + 1, size}:
        first_root = extend(Frontier(), LEAVES[:first]).frontier.root()
        verify_consistency(
            first=first, first_root=first_root, second=size, second_root=root, proof=consistency_proof(first, size, read)
        )


def test_a_tile_is_fetched_once() -> None:
    """A proof of 70,000 entries needs at most one tile per level and branch."""
    fetched: list[Tile] = []

    def fetch(tile: Tile) -> bytes:
        fetched.append(tile)
        return build(tile, ALL.read)

    inclusion_proof(12_345, 70_000, TileReader(70_000, fetch))
    assert len(fetched) == len(set(fetched)) <= 5


@pytest.mark.parametrize("level", [0, 1])
def test_an_altered_tile_makes_a_proof_that_does_not_verify(level: int) -> None:
    """Every hash of a tile counts: the flaw of readers that skip some tiles (CVE-2026-56865) would show here."""
    size, index = 65_536 + 300, 700
    root = root_of(size, ALL.read)
    needed: set[Tile] = set()

    def recording(tile: Tile) -> bytes:
        needed.add(tile)
        return build(tile, ALL.read)

    inclusion_proof(index, size, TileReader(size, recording))
    for target in sorted(tile for tile in needed if tile.level == level):
        for position in range(target.width):

            def fetch(tile: Tile, target: Tile = target, position: int = position) -> bytes:
                data = bytearray(build(tile, ALL.read))
                if tile == target:
                    data[position * 32] ^= 1
                return bytes(data)

            proof = inclusion_proof(index, size, TileReader(size, fetch))
            own = target.level == 0 and target.index * 256 + position == index
            own |= target.level == 1 and target.index * 256 + position == index >> 8
            if own:  # on the path itself, so not part of the proof
                verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=root)
                continue
            with pytest.raises(LogError, match="inclusion-invalid"):
                verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=root)


@pytest.mark.parametrize("change", [b"", b"\x00" * 32, None])
def test_a_tile_of_the_wrong_length_is_refused(change: bytes | None) -> None:
    """Short, long and empty tiles are errors."""

    def fetch(tile: Tile) -> bytes:
        data = build(tile, ALL.read)
        return data[:-1] if change is None else data + change if change else b""

    with pytest.raises(LogError, match="tile-malformed"):
        inclusion_proof(3, 300, TileReader(300, fetch))


@pytest.mark.parametrize(("level", "index"), [(0, 300), (8, 1), (1, 150), (0, -1), (40, 0)])
def test_a_node_that_is_not_complete_is_refused(level: int, index: int) -> None:
    """A reader never invents a hash beyond the tree's right edge."""
    with pytest.raises(LogError, match="node-missing"):
        reader(300)(level, index)
