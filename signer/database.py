"""Opening the SQLite database so that a COMMIT means what it says, and noticing when it no longer can.

Three dangers are met here, each seen in practice:

* *The file moves.* In WAL mode SQLite keeps committing, without an error, into a database that was unlinked, renamed or
  replaced. ``Place.check`` compares device and inode of the database and its ``-wal`` with those that were opened.
* *Durability is configuration.* ``journal_mode`` and ``synchronous`` are set, then read back: only WAL with FULL is accepted.
* *Busy handlers are unfair.* With several processes some wait for seconds; ``turn`` makes them queue in the kernel.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, QueuePool

from certauth.errors import ConfigError, StoreError
from certauth.files import PRIVATE

BUSY_TIMEOUT: Final = 1.0
"""Seconds to wait for a writer that does not take turns (an SQL prompt)."""
_SYNCHRONOUS_FULL: Final = 2
_READERS: Final = 8

Identity = tuple[int, int]
"""Device and inode of a file."""


def path_of(url: str) -> Path:
    """The file an ``sqlite:///path`` URL names; ``ConfigError`` (``database-unsupported``) for any other URL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername != "sqlite" or parsed.query or parsed.database in (None, "", ":memory:"):
        raise ConfigError(
            "database-unsupported",
            "the database is named by a URL like sqlite:////var/lib/signer/signer.db",
            hint="write it as in the sentence, with four slashes for an absolute path",
        )
    return Path(str(parsed.database)).absolute()


def sqlite_url(path: Path) -> str:
    """The URL of a database file."""
    return URL.create("sqlite", database=str(path.absolute())).render_as_string()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which files we opened: the database and its write-ahead log, by path and by inode."""

    path: Path
    database: Identity
    wal: Identity

    def check(self) -> None:
        """Raise ``StoreError`` (``database-moved``) unless both paths still name the files that were opened.

        Attack or accident met: a COMMIT acknowledged into a file that nobody will ever open again. Two ``stat`` calls.
        """
        if identity(self.path) != self.database or identity(wal_of(self.path)) != self.wal:
            raise moved(self.path)


def moved(path: Path) -> StoreError:
    """The error for a database that is no longer where it was opened."""
    return StoreError(
        "database-moved",
        f"{path} or its -wal is not the file that was opened: it was moved, replaced or deleted",
        hint="put the original files back, or stop the signer, restore, and start it again",
        retry_after=30,
    )


def wal_of(path: Path) -> Path:
    """The write-ahead log that belongs to a database file."""
    return path.with_name(path.name + "-wal")


def identity(path: Path) -> Identity | None:
    """Device and inode of what ``path`` names now; ``None`` if it names nothing."""
    try:
        status = os.stat(path)  # noqa: PTH116  # twice as fast as Path.stat, and called twice for every batch
    except OSError:
        return None
    return status.st_dev, status.st_ino


def create_file(path: Path) -> Identity:
    """Make an empty database file, mode 0600; ``StoreError`` (``store-exists``) rather than touch one that is there."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, PRIVATE)
        status = os.fstat(descriptor)
        os.close(descriptor)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        return status.st_dev, status.st_ino
    except FileExistsError as error:
        raise StoreError(
            "store-exists", f"{path} already exists; nothing was changed", hint="name another place, or move that file away"
        ) from error
    except OSError as error:
        raise StoreError(
            "cannot-write", f"cannot create {path}: {error.strerror}", hint="see who owns it, and whether the disk is full"
        ) from error


def _connect(path: Path, expected: Identity) -> sqlite3.Connection:
    # mode=rw: a database that is missing is an error, never quietly a new and empty one. One that took its place is refused.
    if identity(path) != expected:
        raise moved(path)
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        # Personal data are deleted on request: what was deleted must not stay in the pages until they are used again.
        connection.execute("PRAGMA secure_delete=ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def writing_engine(path: Path, expected: Identity) -> Engine:
    """An engine whose transactions begin with the write lock, so that none fails half-way for having read first."""
    engine = create_engine("sqlite://", creator=lambda: _connect(path, expected), poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reading_engine(path: Path, expected: Identity) -> Engine:
    """A pooled engine that cannot write; each transaction is one snapshot."""
    engine = create_engine("sqlite://", creator=lambda: _connect(path, expected), poolclass=QueuePool, pool_size=_READERS)

    @event.listens_for(engine, "connect")
    def _read_only(dbapi_connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def check_durable(connection: Connection) -> None:
    """Raise ``StoreError`` (``not-durable``) unless this connection's COMMIT waits for the disk."""
    (journal,) = _pragma(connection, "journal_mode")
    (synchronous,) = _pragma(connection, "synchronous")
    if journal != "wal" or synchronous < _SYNCHRONOUS_FULL:
        raise StoreError(
            "not-durable",
            f"the database runs with journal_mode={journal}, synchronous={synchronous}; a grant could be lost",
            hint="keep the database on a local file system that supports shared memory (WAL)",
        )


def flush_wal(connection: Connection) -> bool:
    """Copy the write-ahead log into the database and empty it; ``False`` while somebody reads an older snapshot.

    After a failed fsync the kernel may hold pages it believes written. Copying rewrites them, so nothing rests on that belief.
    """
    busy, _frames, _copied = _pragma(connection, "wal_checkpoint(TRUNCATE)")
    return not busy


def _pragma(connection: Connection, pragma: str) -> tuple[Any, ...]:
    """The one row a pragma answers with, asked outside any transaction."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(f"PRAGMA {pragma}")
        return tuple(cursor.fetchone() or ())
    finally:
        cursor.close()


def locate(path: Path, database: Identity) -> Place:
    """The files behind an open connection to ``path``; call it right after a first read through that connection."""
    wal = identity(wal_of(path))
    if wal is None or identity(path) != database:
        raise moved(path)
    return Place(path=path, database=database, wal=wal)


@contextlib.contextmanager
def turn(path: Path) -> Iterator[None]:
    """Wait in the kernel's queue for our turn to write, and hold it; processes are served in the order they came.

    Only fairness hangs on this lock (``<database>.lock``): without it SQLite's own lock still keeps one chain. The wait has no
    end: a process that was stopped while it held the turn shows as ``busy_for`` in the status of all others.
    """
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
