"""Counters of limited uses that several processes share, that outlive them, and that never count too few.

A counter ends with its token: after ``until`` the token is refused for its age, and the row can go. The doors that shall count
together share one file; each file counts for itself.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from certauth.errors import StoreError
from certauth.files import PRIVATE, make_private_directory
from policy.counting import MAX_COUNTERS, TOO_MANY, Reservation, Reserved, used_up

MAX_BYTES = 256 * 1024 * 1024
"""Size of a file of counters; some two million."""
BUSY_SECONDS = 5.0
"""How long to wait for another process that is writing."""
KEPT_BEYOND = timedelta(minutes=10)
"""How much longer than its token a counter is kept, should a clock go back."""
_PRUNE_EVERY = timedelta(minutes=1)
_PRUNED_AT_ONCE = 10_000
_RETRY_SECONDS = 0.01
_VERSION = 1
_PAGE = 4096


@dataclass(slots=True)
class _Open:
    """A connection, the file it has open, and when to look for what can go."""

    connection: sqlite3.Connection
    file: tuple[int, int] | None
    process: int
    prune_at: datetime | None = None


class UseFile:
    """Counters in an SQLite file, shared by every process of this machine that opens it. Each use is on the disk when counted.

    The file must be on a local file system. Whoever deletes it, sets every counter to zero; while a process has it open, that
    is noticed and nothing is let through until the process is started again.
    """

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS, max_bytes: int = MAX_BYTES) -> None:
        self._path, self._busy, self._max_pages = path, busy_seconds, max(max_bytes // _PAGE, 8)
        self._lock = threading.Lock()
        self._opened: _Open | None = None
        self._lost = False
        """The file was moved away or replaced: what was counted in it may be gone, whatever is there now."""

    def start(self) -> None:
        with self._held():
            self._ready()

    def reserve(self, token: str, limits: Mapping[str, int], *, until: datetime, now: datetime) -> Reservation:
        with self._held():
            opened = self._ready()
            if opened.prune_at is None or now >= opened.prune_at or opened.prune_at - now > _PRUNE_EVERY:
                self._prune(opened, now)
            with self._transaction(opened) as connection:
                used = {nonce: _used(connection, token, nonce) for nonce in limits}
                if refused := used_up(used, limits):
                    return refused
                if 0 in used.values():
                    (known,) = connection.execute("SELECT count(*) FROM uses WHERE token = ?", (token,)).fetchone()
                    if known + list(used.values()).count(0) > MAX_COUNTERS:
                        return TOO_MANY
                connection.executemany(
                    "INSERT INTO uses (token, nonce, used, until) VALUES (?, ?, 1, ?)"
                    " ON CONFLICT (token, nonce) DO UPDATE SET used = used + 1",
                    [(token, nonce, int(until.timestamp())) for nonce in limits],
                )
            return Reserved({nonce: count + 1 for nonce, count in used.items()})

    def close(self) -> None:
        with self._lock:
            if self._opened is not None and self._opened.process == os.getpid():
                self._opened.connection.close()
            self._opened = None

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The lock, for a bounded time, and whatever goes wrong as one ``StoreError``."""
        if not self._lock.acquire(timeout=self._busy):
            raise self._failed("another request is still being counted")
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._failed(str(error)) from error
        finally:
            self._lock.release()

    def _ready(self) -> _Open:
        """The open file. After a fork it is opened anew: two processes must not share one connection."""
        if self._lost:
            raise self._failed("the file was replaced since the start")
        if self._opened is None or self._opened.process != os.getpid():
            self._opened = self._open()
        return self._opened

    def _open(self) -> _Open:
        make_private_directory(self._path.parent)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE))
        connection = sqlite3.connect(self._path, timeout=self._busy, isolation_level=None, check_same_thread=False)
        try:
            file = self._identity()
            self._set_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA max_page_count = {self._max_pages}")
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if (version, tables) == (0, 0):
                connection.execute(
                    "CREATE TABLE uses (token TEXT NOT NULL, nonce TEXT NOT NULL, used INTEGER NOT NULL,"
                    " until INTEGER NOT NULL, PRIMARY KEY (token, nonce)) WITHOUT ROWID"
                )
                connection.execute("CREATE INDEX uses_until ON uses (until)")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise self._failed("it is a database of another program or version")
            connection.execute("COMMIT")
            _sync_directory(self._path.parent)
        except BaseException:
            connection.close()
            raise
        return _Open(connection, file, os.getpid())

    def _set_wal(self, connection: sqlite3.Connection) -> None:
        """Switch the file to WAL. Of two processes that first open it at once, SQLite turns one away without waiting."""
        deadline = time.monotonic() + self._busy
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                return

    def _identity(self) -> tuple[int, int] | None:
        """Which file the path names; ``None`` if there is none."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    @contextmanager
    def _transaction(self, opened: _Open) -> Iterator[sqlite3.Connection]:
        """One writer at a time; nothing is kept unless all of it is, in the file that the path still names."""
        connection = opened.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            if self._identity() != opened.file:
                self._lost = True
                raise self._failed("the file was replaced")
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _prune(self, opened: _Open, now: datetime) -> None:
        """Forget counters of tokens that have ended. In a transaction of its own: a full file could not be emptied else."""
        before = int((now - KEPT_BEYOND).timestamp())
        with self._transaction(opened) as connection:
            gone = connection.execute(
                "DELETE FROM uses WHERE (token, nonce) IN (SELECT token, nonce FROM uses WHERE until < ? LIMIT ?)",
                (before, _PRUNED_AT_ONCE),
            ).rowcount
        opened.prune_at = now if gone == _PRUNED_AT_ONCE else now + _PRUNE_EVERY

    def _failed(self, why: str) -> StoreError:
        return StoreError(
            "uses-unavailable",
            f"uses of tokens cannot be counted in {self._path.name}: {why}",
            hint="the owner of this service can see why in its log",
            retry_after=1,
        )


def _used(connection: sqlite3.Connection, token: str, nonce: str) -> int:
    row = connection.execute("SELECT used FROM uses WHERE token = ? AND nonce = ?", (token, nonce)).fetchone()
    return 0 if row is None else int(row[0])


def _sync_directory(path: Path) -> None:
    """Have the name of a new file survive a crash as well."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
