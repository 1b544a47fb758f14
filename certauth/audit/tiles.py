"""Tiles: the tree cut into pieces of 256 hashes, as C2SP tlog-tiles lays them out.

A tile of level ``L`` holds hashes of complete subtrees of 256**L leaves. Between two tile levels nothing is stored: the seven
levels in the middle are hashed again from the 256. So the stored hashes of a log are 32.1 bytes per entry, each written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from certauth.audit.tree import HASH_BYTES, Frontier, NodeReader, extend
from certauth.errors import LogError

HEIGHT = 8
WIDTH = 1 << HEIGHT


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Which tile: ``width`` hashes (256 when full) at ``index`` of tile level ``level``."""

    level: int
    index: int
    width: int = WIDTH

    def path(self) -> str:
        """Where C2SP tlog-tiles serves it: ``tile/0/x001/234``, and ``.p/<width>`` behind a partial one."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{self.level}/{'/'.join(groups)}{partial}"


TileFetcher = Callable[[Tile], bytes]
"""Gives the concatenated hashes of one tile, or raises."""


def tiles_of(size: int) -> Iterator[Tile]:
    """Every tile of a tree of ``size`` leaves, level by level, a partial one last."""
    yield from _between(0, size)


def completed_tiles(before: int, after: int) -> Iterator[Tile]:
    """The tiles that became full while the tree grew from ``before`` to ``after`` leaves."""
    return (tile for tile in _between(before, after) if tile.width == WIDTH)


def _between(before: int, after: int) -> Iterator[Tile]:
    level = 0
    while after:
        full, rest = divmod(after, WIDTH)
        for index in range(before // WIDTH, full):
            yield Tile(level, index)
        if rest:
            yield Tile(level, full, rest)
        before, after, level = before // WIDTH, full, level + 1


def build(tile: Tile, read: NodeReader) -> bytes:
    """The bytes of a tile, from its nodes."""
    first = tile.index * WIDTH
    return b"".join(read(tile.level * HEIGHT, first + offset) for offset in range(tile.width))


def subtree_root(hashes: bytes) -> bytes:
    """The root over a tile's hashes; over a full tile it is one hash of the tile above."""
    return extend(Frontier(), _split(hashes)).frontier.root()


class TileReader:
    """A ``NodeReader`` for the tree of ``size`` leaves that keeps each tile it has fetched; make one per question.

    What it reads is not authenticated here: a proof built from it must be verified against a signed root before it is
    believed or handed out.
    """

    __slots__ = ("_fetch", "_rows", "_size")

    def __init__(self, size: int, fetch: TileFetcher) -> None:
        self._size = size
        self._fetch = fetch
        self._rows: dict[tuple[int, int], list[bytes]] = {}

    def __call__(self, level: int, index: int) -> bytes:
        """The node's hash; ``LogError``: ``node-missing`` outside the tree, ``tile-malformed`` for a wrong number of bytes."""
        tile_level, height = divmod(level, HEIGHT)
        first = index << height
        number, offset = divmod(first, WIDTH)
        if not 0 <= first <= (self._size >> tile_level * HEIGHT) - (1 << height):
            raise LogError(
                "node-missing",
                f"node {index} of level {level} is not complete in a log of {self._size} entries",
                hint="ask about entries and sizes that the log has; otherwise restore the database from a backup",
            )
        hashes = self._tile(tile_level, number)[offset : offset + (1 << height)]
        return extend(Frontier(), hashes).frontier.root()

    def _tile(self, level: int, index: int) -> list[bytes]:
        row = self._rows.get((level, index))
        if row is None:
            width = min(WIDTH, (self._size >> level * HEIGHT) - index * WIDTH)
            data = self._fetch(Tile(level, index, width))
            if len(data) != width * HASH_BYTES:
                raise LogError(
                    "tile-malformed",
                    f"{Tile(level, index, width).path()} has {len(data)} bytes",
                    hint="restore the signer's database from a backup",
                )
            row = self._rows[level, index] = _split(data)
        return row


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]
