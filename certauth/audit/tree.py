"""The Merkle tree of RFC 9162 §2.1 over SHA-256: arithmetic on hashes, nothing stored.

A *node* ``(level, index)`` is the hash of the complete subtree over the ``2**level`` leaves from ``index * 2**level`` on.
The *frontier* of a tree is its size and the hashes of its maximal complete subtrees, largest first: all that is needed to
append, and to say the root. Extending it yields every node a proof for the new leaves can need, so a batch is proved
without reading anything back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from certauth.errors import LogError

HASH_BYTES = 32
MAX_SIZE = 2**63 - 1
"""No tree, index or proof speaks of more leaves than this (C2SP tlog-checkpoint sizes fit in a signed 64-bit integer)."""

NodeReader = Callable[[int, int], bytes]
"""``read(level, index)`` gives the hash of one complete subtree, or raises ``LogError``."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of a leaf; its prefix differs from a node's, so that no entry can pose as an inner node (RFC 9162 §2.1.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node over its two children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


EMPTY_ROOT = hashlib.sha256(b"").digest()

# Copying a hash that was begun is a tenth faster than beginning one; the two loops below are what verifying a log costs.
_LEAF = hashlib.sha256(b"\x00")
_NODE = hashlib.sha256(b"\x01")


def leaf_hashes(entries: Iterable[bytes]) -> list[bytes]:
    """``leaf_hash`` of each of many entries."""
    values = []
    for entry in entries:
        state = _LEAF.copy()
        state.update(entry)
        values.append(state.digest())
    return values


def _parents(row: Sequence[bytes]) -> list[bytes]:
    """``node_hash`` of each whole pair."""
    values = []
    for left, right in zip(row[::2], row[1::2], strict=False):
        state = _NODE.copy()
        state.update(left + right)
        values.append(state.digest())
    return values


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: ``size`` leaves and one hash per set bit of ``size``, the largest subtree first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE or len(self.peaks) != self.size.bit_count():
            raise LogError(
                "frontier-malformed",
                "the log's right edge has not one hash per complete subtree",
                hint="restore the signer's database from a backup",
            )
        if any(len(peak) != HASH_BYTES for peak in self.peaks):
            raise LogError(
                "frontier-malformed",
                "the log's right edge holds something that is not a SHA-256 hash",
                hint="restore the signer's database from a backup",
            )

    def root(self) -> bytes:
        """The Merkle tree hash of all leaves; of no leaves, the hash of nothing."""
        return _fold(self.peaks) if self.peaks else EMPTY_ROOT

    def to_bytes(self) -> bytes:
        """The size in 8 bytes, big-endian, then the hashes."""
        return self.size.to_bytes(8, "big") + b"".join(self.peaks)

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """Read ``to_bytes`` back; raise ``LogError`` (``frontier-malformed``) for anything else."""
        if len(data) % HASH_BYTES != 8:
            raise LogError(
                "frontier-malformed", "the log's right edge is cut off", hint="restore the signer's database from a backup"
            )
        peaks = tuple(data[start : start + HASH_BYTES] for start in range(8, len(data), HASH_BYTES))
        return cls(int.from_bytes(data[:8], "big"), peaks)


@dataclass(frozen=True, slots=True)
class Row:
    """Consecutive nodes of one level, the first of them at index ``first``."""

    first: int
    hashes: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Extension:
    """What appending did: the new frontier, and per level the nodes touched (each may begin with one old peak)."""

    before: int
    frontier: Frontier
    rows: tuple[Row, ...]

    def read(self, level: int, index: int) -> bytes:
        """A ``NodeReader`` that answers for everything an inclusion proof of a new leaf needs, else raises ``node-missing``."""
        if level < len(self.rows):
            row = self.rows[level]
            if 0 <= index - row.first < len(row.hashes):
                return row.hashes[index - row.first]
        raise LogError(
            "node-missing",
            f"node {index} of level {level} is older than this batch, or not complete yet",
            hint="ask about entries and sizes that the log has; otherwise restore the database from a backup",
        )

    def completed(self) -> Iterator[tuple[int, int, bytes]]:
        """Every node that came into being, leaves included, as ``(level, index, hash)``."""
        for level, row in enumerate(self.rows):
            for index, node in enumerate(row.hashes, row.first):
                if index >= self.before >> level:
                    yield level, index, node


def extend(frontier: Frontier, leaves: Sequence[bytes]) -> Extension:
    """Append leaf hashes; the result holds the new frontier and the nodes completed on the way."""
    before = frontier.size
    old_peaks = list(frontier.peaks)
    new_peaks: list[bytes] = []
    rows: list[Row] = []
    fresh = list(leaves)
    level = 0
    while fresh or old_peaks:
        odd = before >> level & 1
        row = [old_peaks.pop(), *fresh] if odd else fresh
        rows.append(Row((before >> level) - odd, row))
        if len(row) % 2:
            new_peaks.append(row[-1])
        fresh = _parents(row)
        level += 1
    return Extension(before, Frontier(before + len(leaves), tuple(reversed(new_peaks))), tuple(rows))


def root_of(size: int, read: NodeReader) -> bytes:
    """The root of the tree of the first ``size`` leaves, from its complete subtrees."""
    return _range_hash(0, size, read) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, read: NodeReader) -> tuple[bytes, ...]:
    """The audit path of leaf ``index`` in the tree of ``size`` leaves, from the leaf's sibling upwards (RFC 9162 §2.1.3.1)."""
    if not 0 <= index < size <= MAX_SIZE:
        raise LogError(
            "log-range", f"there is no entry {index} among {size}", hint="ask about entries that the checkpoint covers"
        )
    low, high = 0, size
    siblings: list[tuple[int, int]] = []
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            siblings.append((middle, high))
            high = middle
        else:
            siblings.append((low, middle))
            low = middle
    return tuple(_range_hash(start, end, read) for start, end in reversed(siblings))


def consistency_proof(first: int, second: int, read: NodeReader) -> tuple[bytes, ...]:
    """That the tree of ``first`` leaves is a prefix of the tree of ``second``: RFC 9162 §2.1.4.1, for 0 < first <= second."""
    if not 0 < first <= second <= MAX_SIZE:
        raise LogError(
            "log-range",
            f"no consistency can be shown from size {first} to {second}",
            hint="ask about entries that the checkpoint covers",
        )
    low, high = 0, second
    parts: list[tuple[int, int]] = []
    while first != high:
        middle = low + _split(high - low)
        if first <= middle:
            parts.append((middle, high))
            high = middle
        else:
            parts.append((low, middle))
            low = middle
    if low:  # the old tree is not one complete subtree from leaf 0, so the verifier does not know this hash yet
        parts.append((low, high))
    return tuple(_range_hash(start, end, read) for start, end in reversed(parts))


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise ``LogError`` (``inclusion-invalid``) unless ``proof`` leads from ``leaf`` at ``index`` to ``root`` (§2.1.3.2)."""
    failure = LogError(
        "inclusion-invalid",
        f"the proof does not place this entry at {index} of {size}",
        hint="compare receipt and entry: one of them is of another log or was changed",
    )
    if not 0 <= index < size <= MAX_SIZE or any(len(part) != HASH_BYTES for part in (leaf, root, *proof)):
        raise failure
    node, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise failure
        if node & 1 or node == last:
            value = node_hash(sibling, value)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        node, last = node >> 1, last >> 1
    if last or value != root:
        raise failure


def verify_consistency(*, first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise ``LogError`` (``consistency-invalid``) unless the second tree only appended to the first (RFC 9162 §2.1.4.2).

    Size 0 is refused as either side: every tree extends the empty one, so there is nothing to prove, and a caller that lets
    0 through lets a log forget its past.
    """
    failure = LogError(
        "consistency-invalid",
        f"the log of size {second} does not continue the one of size {first}",
        hint="keep both checkpoints as evidence and tell the facility: its log was rewritten",
    )
    if not 0 < first <= second <= MAX_SIZE or any(len(part) != HASH_BYTES for part in (first_root, second_root, *proof)):
        raise failure
    if first == second:
        if proof or first_root != second_root:
            raise failure
        return
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        raise failure
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = path[0]
    for part in path[1:]:
        if last == 0:
            raise failure
        if node & 1 or node == last:
            old, new = node_hash(part, old), node_hash(part, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, part)
        node, last = node >> 1, last >> 1
    if last or old != first_root or new != second_root:
        raise failure


def _split(width: int) -> int:
    """The largest power of two below ``width`` (which is at least 2): where RFC 9162 divides a tree."""
    return 1 << (width - 1).bit_length() - 1


def _range_hash(start: int, end: int, read: NodeReader) -> bytes:
    """The tree hash of leaves ``start`` to ``end``, where ``start`` is aligned as RFC 9162's recursion leaves it."""
    peaks: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        peaks.append(read(level, start >> level))
        start += 1 << level
    return _fold(peaks)


def _fold(peaks: Sequence[bytes]) -> bytes:
    """Join complete subtrees, largest first, into the one hash above them."""
    value = peaks[-1]
    for peak in reversed(peaks[:-1]):
        value = node_hash(peak, value)
    return value
