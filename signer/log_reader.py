"""Reading the stored log: entries, checkpoints, and proofs made from tiles. Nothing read here is believed before it verifies.

Everything about one question is read in one transaction, so a log that grows meanwhile cannot look damaged.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Label, LargeBinary, bindparam, cast, create_engine, event, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from certauth.audit.receipt import Receipt
from certauth.audit.tiles import WIDTH, Tile, TileReader
from certauth.audit.tree import MAX_SIZE, Frontier, consistency_proof, inclusion_proof, leaf_hash, verify_inclusion
from certauth.audit.verify import StoredEntry
from certauth.errors import LogError, StoreError
from signer.database import wal_of
from signer.tables import LOG_CHECKPOINT, LOG_DISCLOSURE, LOG_ENTRY, LOG_HEAD, LOG_TILE, META, REQUEST

_CHUNK = 1024


def _bytes(column: Column[Any]) -> Label[bytes]:
    return cast(column, LargeBinary).label(column.name)


# Statements are built once: building one costs more than running it.
# What is stored may be of another type than it should be, if somebody meddled; CAST makes bytes of it, whose hash then differs.
_HEAD = select(LOG_HEAD.c.size, LOG_HEAD.c.at, *(_bytes(LOG_HEAD.c[name]) for name in ("chain", "frontier")))
_NEWEST = select(LOG_CHECKPOINT).order_by(LOG_CHECKPOINT.c.size.desc()).limit(1)
_NOTE = select(LOG_CHECKPOINT.c.note).where(LOG_CHECKPOINT.c.size == bindparam("size"))
_ENTRIES = (
    select(LOG_ENTRY.c.seq, *(_bytes(LOG_ENTRY.c[name]) for name in ("body", "leaf", "chain")))
    .where(LOG_ENTRY.c.seq.between(bindparam("first"), bindparam("last")))
    .order_by(LOG_ENTRY.c.seq)
    .limit(_CHUNK)
)
_REQUESTS = select(REQUEST).where(REQUEST.c.request_id.in_(bindparam("request_ids", expanding=True)))
_TILE = select(_bytes(LOG_TILE.c.data)).where(LOG_TILE.c.level == bindparam("level"), LOG_TILE.c.idx == bindparam("index"))
_LEAVES = (
    select(LOG_ENTRY.c.leaf).where(LOG_ENTRY.c.seq.between(bindparam("first"), bindparam("last"))).order_by(LOG_ENTRY.c.seq)
)
_ROOTS = (
    select(_bytes(LOG_TILE.c.root))
    .where(LOG_TILE.c.level == bindparam("level"), LOG_TILE.c.idx.between(bindparam("first"), bindparam("last")))
    .order_by(LOG_TILE.c.idx)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where the log ends: size and right edge, chain value, time of the newest entry in microseconds since the epoch."""

    frontier: Frontier
    chain: bytes
    at: int

    @property
    def size(self) -> int:
        return self.frontier.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A request id that is in the log: what it asked for, what it is answered with again, and its entry."""

    request_id: str
    digest: bytes
    response: bytes | None
    seq: int


class LogReader:
    """The log as one transaction sees it."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def origin(self) -> str:
        """Which log the database says it holds."""
        return str(self._connection.execute(select(META.c.value).where(META.c.name == "origin")).scalar_one())

    def head(self) -> Head:
        """Raise ``LogError`` (``frontier-malformed``, ``log-head``) if the head row contradicts itself or is missing."""
        row = self._connection.execute(_HEAD).one_or_none()
        if row is None:
            raise LogError(
                "log-head",
                "the log has no head",
                hint="restore the signer's database from a backup, and keep this one as evidence",
            )
        head = Head(frontier=Frontier.from_bytes(row.frontier), chain=row.chain, at=row.at)
        if head.size != row.size:
            raise LogError(
                "log-head",
                f"the log's head names two sizes, {row.size} and {head.size}",
                hint="restore the signer's database from a backup, and keep this one as evidence",
            )
        return head

    def checkpoint(self) -> str | None:
        """The newest signed checkpoint; ``None`` in a log without entries."""
        row = self._connection.execute(_NEWEST).one_or_none()
        return None if row is None else str(row.note)

    def checkpoint_of(self, size: int) -> str | None:
        """The signed checkpoint for exactly ``size`` entries, if there ever was one."""
        note = self._connection.execute(_NOTE, {"size": size}).scalar_one_or_none()
        return None if note is None else str(note)

    def checkpoints(self) -> Iterator[str]:
        """Every checkpoint ever signed, the smallest first."""
        for row in self._connection.execute(select(LOG_CHECKPOINT.c.note).order_by(LOG_CHECKPOINT.c.size)):
            yield row.note

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[StoredEntry]:
        """The stored entries from ``start`` up to ``end``, in order, whatever they are."""
        last = MAX_SIZE if end is None else end - 1
        while True:
            chunk = self._connection.execute(_ENTRIES, {"first": start, "last": last}).all()
            for row in chunk:
                yield StoredEntry(index=row.seq, body=row.body, leaf=row.leaf, chain=row.chain)
            if len(chunk) < _CHUNK:
                return
            start = chunk[-1].seq + 1

    def entry(self, index: int) -> StoredEntry:
        """One entry; ``LogError`` (``log-range``) if there is none at ``index``."""
        found = next(self.entries(index, index + 1), None)
        if found is None:
            raise LogError("log-range", f"the log holds no entry {index}", hint="ask about entries that the checkpoint covers")
        return found

    def disclosures(self, index: int) -> tuple[str, ...]:
        """What is still known of the personal data that entry ``index`` commits to."""
        statement = select(LOG_DISCLOSURE.c.disclosure).where(LOG_DISCLOSURE.c.seq == index)
        return tuple(self._connection.execute(statement).scalars())

    def recorded(self, request_ids: list[str]) -> dict[str, Recorded]:
        """Those of ``request_ids`` that are in the log."""
        rows = self._connection.execute(_REQUESTS, {"request_ids": request_ids}).mappings()
        return {row["request_id"]: Recorded(**row) for row in rows}

    def tile(self, tile: Tile) -> bytes:
        """The hashes of a tile, a full one as stored; too few, which ``TileReader`` notices, if something is missing."""
        if tile.width < WIDTH:
            return self.gather(tile)
        full = self._connection.execute(_TILE, {"level": tile.level, "index": tile.index}).scalar_one_or_none()
        return bytes(full or b"")

    def gather(self, tile: Tile) -> bytes:
        """The hashes of a tile from what is below it: the entries' leaves, or the roots of the full tiles there."""
        first = tile.index * WIDTH
        range_ = {"first": first, "last": first + tile.width - 1}
        if tile.level == 0:
            return b"".join(self._connection.execute(_LEAVES, range_).scalars())
        return b"".join(self._connection.execute(_ROOTS, range_ | {"level": tile.level - 1}).scalars())

    def nodes(self, size: int) -> TileReader:
        """A reader of the tree's nodes as of ``size`` entries."""
        return TileReader(size, self.tile)

    def receipt(self, index: int) -> Receipt:
        """The receipt of entry ``index`` against the newest checkpoint; ``LogError`` (``log-range``) if none covers it."""
        row = self._connection.execute(_NEWEST).one_or_none()
        if row is None:
            raise LogError("log-range", f"the log holds no entry {index}", hint="ask about entries that the checkpoint covers")
        proof = inclusion_proof(index, row.size, self.nodes(row.size))
        body = self.entry(index).body
        # Damaged tiles must surface here, not months later in somebody else's hands.
        verify_inclusion(leaf=leaf_hash(body), index=index, size=row.size, proof=proof, root=row.root)
        return Receipt(entry=body, index=index, proof=proof, note=row.note)

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """The proof that the log of ``second`` entries only appended to that of ``first``."""
        size = self.size()
        if second > size:
            raise LogError(
                "log-range",
                f"the log holds {size} entries, fewer than {second}",
                hint="ask about entries that the checkpoint covers",
            )
        return consistency_proof(first, second, self.nodes(second))

    def size(self) -> int:
        """How many entries are stored."""
        newest = self._connection.execute(select(func.max(LOG_ENTRY.c.seq))).scalar_one()
        return 0 if newest is None else int(newest) + 1


@contextlib.contextmanager
def open_offline(path: Path) -> Iterator[LogReader]:
    """Read the log in a database file, of a running signer or a copy, as one snapshot and without changing a byte of it.

    ``StoreError``: ``store-missing``, ``store-unreadable``.
    """
    if not path.is_file():
        raise StoreError("store-missing", f"there is no database at {path}", hint="name the database file of a signer")
    # A write-ahead log beside the file holds newer commits and must be read with it. Without one nobody has the database open,
    # and "immutable" keeps SQLite from creating files next to what may be evidence.
    mode = "mode=ro" if wal_of(path).exists() else "immutable=1"
    uri = f"{path.absolute().as_uri()}?{mode}"
    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(uri, uri=True, isolation_level=None), poolclass=NullPool
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    try:
        with engine.connect() as connection:
            yield LogReader(connection)
    except SQLAlchemyError as error:
        raise StoreError(
            "store-unreadable",
            f"cannot read {path}: {getattr(error, 'orig', None) or type(error).__name__}",
            hint="a running signer's database is read by the signer's own user",
        ) from error
