"""The disk and the file system under the ledger: full, moved away, failing at COMMIT. Nothing is granted that is not there."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from certauth.errors import CertauthError, StoreError
from signer import database
from signer.ledger import Ledger, LedgerState, Outcome
from tests.faults.kit import Facility, certificate, proves, submission, verify

PATIENCE = 60.0


@pytest.fixture
def facility(tmp_path: Path) -> Facility:
    """A signer's directory, empty."""
    return Facility(tmp_path)


def refusal(ledger: Ledger, name: str = "refused") -> str:
    """The code with which a submission is refused, at once or after it was tried."""
    with pytest.raises(StoreError) as refused:
        ledger.record(submission(name), timeout=PATIENCE)
    return refused.value.code


def cause(ledger: Ledger) -> str:
    """Why the ledger is latched."""
    status = ledger.status()
    assert status.state is LedgerState.LATCHED
    assert status.cause is not None
    return status.cause.code


def until_ready(ledger: Ledger) -> None:
    """Wait until the ledger has recovered by itself."""
    pause = threading.Event()
    for _ in range(1200):
        if ledger.status().state is LedgerState.READY:
            return
        pause.wait(0.05)
    pytest.fail(f"the ledger did not recover: {ledger.status()}")


# --- the file moves ----------------------------------------------------------------------------------------------------


def _unlink(path: Path) -> None:
    path.unlink()


def _rename(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def _replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


def _unlink_wal(path: Path) -> None:
    database.wal_of(path).unlink()


MOVES = {"unlinked": _unlink, "renamed": _rename, "replaced": _replace, "its wal unlinked": _unlink_wal}


@pytest.mark.parametrize("how", MOVES)
def test_moved_database_is_noticed(facility: Facility, how: str) -> None:
    """A database that was unlinked, renamed or replaced gets no further grant, and stays refused while it is away."""
    with facility.running() as (_, ledger):
        ledger.record(submission("one"))
        MOVES[how](facility.path)
        assert refusal(ledger) == "database-moved"
        assert cause(ledger) == "database-moved"
        assert refusal(ledger) == "database-moved"


def test_what_waits_while_the_database_moves_is_refused_too(facility: Facility) -> None:
    """Submissions accepted before anybody could know are refused like the one that found out."""
    with facility.running() as (_, ledger):
        with database.turn(facility.path):
            first = ledger.submit(submission("one"))
            while ledger.status().queued:
                pass  # the first is in the writer's hands; the next must wait for the batch after
            second = ledger.submit(submission("two"))
            _rename(facility.path)
        for future in (first, second):
            error = future.exception(PATIENCE)
            assert isinstance(error, StoreError)
            assert error.code == "database-moved"


def test_sqlite_alone_would_not_notice(facility: Facility) -> None:
    """Why the guard exists: SQLite itself commits into a file that is gone, without an error."""
    store = facility.create()
    connection = sqlite3.connect(facility.path)
    connection.execute("INSERT INTO meta VALUES ('a', 'b')")
    facility.path.unlink()
    connection.commit()
    connection.close()
    store.close()


def test_database_that_comes_back_is_used_again(facility: Facility) -> None:
    """Once the very same file is back in its place, the ledger goes on by itself."""
    with facility.running() as (store, ledger):
        ledger.record(submission("one"))
        facility.path.rename(facility.directory / "away.db")
        assert refusal(ledger) == "database-moved"
        (facility.directory / "away.db").rename(facility.path)
        until_ready(ledger)
        assert ledger.record(submission("two")).index == 1
        assert verify(store).checkpoint.size == 2


@pytest.mark.parametrize("how", MOVES)
def test_database_that_moves_during_the_commit_is_not_acknowledged(facility: Facility, how: str) -> None:
    """The COMMIT succeeds, but into a file nobody will find again: the grant is withheld."""
    with facility.running() as (_, ledger):
        ledger.record(submission("one"))
        at_commit(ledger, lambda _: MOVES[how](facility.path))
        assert refusal(ledger, "two") == "database-moved"
        assert cause(ledger) == "database-moved"


def test_any_error_at_commit_is_an_unknown_outcome(facility: Facility) -> None:
    """Not only the database's own errors: whatever is raised while COMMIT runs, its outcome is looked up."""

    def fault(connection: Connection) -> None:
        connection.connection.commit()
        raise RuntimeError("something quite different")

    with facility.running() as (store, ledger):
        at_commit(ledger, fault)
        assert ledger.record(submission("one")).index == 0
        assert verify(store).checkpoint.size == 1


def test_start_refuses_a_database_that_moved_since_it_was_opened(facility: Facility) -> None:
    """Between opening the store and starting the ledger nobody may exchange the file."""
    store = facility.create()
    _replace(facility.path)
    with pytest.raises(StoreError) as refused:
        facility.ledger(store).start()
    assert refused.value.code == "database-moved"
    store.close()


# --- COMMIT fails ------------------------------------------------------------------------------------------------------


def at_commit(ledger: Ledger, fault: Callable[[Connection], None]) -> None:
    """Let the disk do something at the next COMMIT, once."""
    faults = [fault]

    @event.listens_for(ledger._engine, "commit")
    def _once(connection: Connection) -> None:
        if faults:
            faults.pop()(connection)


def _io_error() -> OperationalError:
    return OperationalError("COMMIT", {}, sqlite3.OperationalError("disk I/O error"))


def _fails_and_persists(connection: Connection) -> None:
    connection.connection.commit()
    raise _io_error()


def _fails_and_does_not_persist(_: Connection) -> None:
    raise _io_error()


def test_commit_that_failed_but_persisted_is_delivered(facility: Facility) -> None:
    """Unknown outcome, found after reopening: the grants are in the log, so they are delivered, each exactly once."""
    with facility.running() as (store, ledger):
        ledger.record(certificate(1))
        at_commit(ledger, _fails_and_persists)
        with database.turn(facility.path):
            futures = [ledger.submit(certificate(number)) for number in (2, 3, 4)]
            futures.append(ledger.submit(submission("again", proof="proof 1")))
        results = [future.result(PATIENCE) for future in futures[:3]]
        assert [(one.index, one.outcome) for one in results] == [(1, Outcome.NEW), (2, Outcome.NEW), (3, Outcome.NEW)]
        assert all(map(proves, results))
        error = futures[3].exception(PATIENCE)
        assert isinstance(error, CertauthError)
        assert error.code == "replayed"
        assert ledger.status().state is LedgerState.READY
        assert verify(store).checkpoint.size == 4
        assert ledger.record(certificate(2)).outcome is Outcome.REPEATED


def test_commit_that_failed_and_did_not_persist_is_refused(facility: Facility) -> None:
    """Unknown outcome, not found after reopening: refused, nothing consumed, and the same request can come again."""
    with facility.running() as (store, ledger):
        ledger.record(certificate(1))
        at_commit(ledger, _fails_and_does_not_persist)
        with pytest.raises(StoreError) as refused:
            ledger.record(certificate(2))
        assert refused.value.code == "audit-unavailable"
        assert ledger.status().state is LedgerState.READY
        assert verify(store).checkpoint.size == 1
        assert ledger.record(certificate(2)).index == 1


@pytest.mark.parametrize("persists", [True, False])
def test_unresolved_commit_grants_nothing_until_it_can_be_looked_up(facility: Facility, persists: bool) -> None:
    """While the database cannot be opened again the ledger stays latched; later, a repetition finds out what happened."""
    with facility.running() as (store, ledger):
        ledger.record(submission("one"))
        reader = store.engine.connect()
        reader.exec_driver_sql("SELECT count(*) FROM log_entry")  # a snapshot that keeps the write-ahead log from being emptied
        at_commit(ledger, _fails_and_persists if persists else _fails_and_does_not_persist)
        with pytest.raises(StoreError) as refused:
            ledger.record(submission("two"))
        assert refused.value.code == "audit-unavailable"
        if persists:  # otherwise there is nothing in the log that the reader would hold back
            assert cause(ledger) == "audit-unavailable"
            assert refusal(ledger) == "audit-unavailable"
        reader.close()
        until_ready(ledger)
        again = ledger.record(submission("two"))
        assert (again.index, again.outcome) == (1, Outcome.REPEATED if persists else Outcome.NEW)
        assert verify(store).checkpoint.size == 2


def test_result_that_cannot_be_looked_up_is_withheld(facility: Facility) -> None:
    """Recovered, but the table of requests cannot be read: then nobody is told that their grant is there."""
    with facility.running() as (store, ledger):
        ledger.record(submission("one"))

        def fault(connection: Connection) -> None:
            store.engine.dispose()
            _break_reading(store.engine.pool)
            _fails_and_persists(connection)

        at_commit(ledger, fault)
        assert refusal(ledger, "two") == "audit-unavailable"


def _break_reading(pool: object) -> None:
    @event.listens_for(pool, "checkout")
    def _no_more(*_: object) -> None:
        raise OperationalError("SELECT", {}, sqlite3.OperationalError("disk I/O error"))


# --- durability is checked ---------------------------------------------------------------------------------------------


class Careless(Ledger):
    """Somebody's file system or library does not do what was asked: synchronous stays off."""

    def _open(self, *, must_flush: bool) -> None:
        @event.listens_for(self._engine, "connect")
        def _off(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA synchronous=OFF")

        super()._open(must_flush=must_flush)


def test_start_refuses_a_connection_that_is_not_durable(facility: Facility) -> None:
    """What was asked of the database is read back; less than FULL does not start."""
    store = facility.create()
    with pytest.raises(StoreError) as refused:
        facility.ledger(store, kind=Careless).start()
    assert refused.value.code == "not-durable"
    store.close()


def test_somebody_elses_long_transaction_latches_and_releases(facility: Facility) -> None:
    """An SQL prompt that holds the write lock stops grants with a reason, and no longer than it lasts."""
    with facility.running() as (_, ledger):
        ledger.record(submission("one"))
        prompt = sqlite3.connect(facility.path, isolation_level=None)
        prompt.execute("BEGIN IMMEDIATE")
        assert refusal(ledger) == "audit-unavailable"
        prompt.execute("ROLLBACK")
        prompt.close()
        until_ready(ledger)
        assert ledger.record(submission("two")).index == 1


# --- the disk is full --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; only root can make one, so elsewhere this is skipped, and the strace test remains."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = shutil.which("mount")
    mounted = mount is not None and (
        subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "none", directory], capture_output=True, check=False).returncode
        == 0
    )
    if not mounted:
        pytest.skip("no right to mount a small file system; test_crash.py shows the same with injected ENOSPC")
    yield directory
    subprocess.run(["umount", directory], check=True)


def test_full_disk_refuses_and_recovers(small_disk: Path) -> None:
    """On a full disk grants are refused with the cause, reading goes on, and with space the same ledger goes on."""
    facility = Facility(small_disk)
    with facility.running() as (store, ledger):
        committed = ledger.record(certificate(1))
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        refused: list[str] = []
        for number in range(2, 100):
            try:
                ledger.record(certificate(number))
            except StoreError as error:
                refused.append(error.code)
                if len(refused) == 3:
                    break
        assert refused == ["disk-full"] * 3
        assert store.certificate_at(committed.index) is not None
        verify(store)
        ballast.unlink()
        until_ready(ledger)
        assert proves(ledger.record(certificate(1000)))
        size = verify(store).checkpoint.size
        assert len(store.certificates()) == size


def test_database_at_its_largest_size_rolls_back(facility: Facility) -> None:
    """Full before COMMIT: the whole batch is rolled back, with every row of it."""
    with facility.running() as (store, ledger):
        ledger.record(certificate(1))
        connection = ledger._connection
        assert connection is not None
        cursor = connection.connection.cursor()
        cursor.execute("PRAGMA page_count")
        (pages,) = cursor.fetchone() or (0,)
        cursor.execute(f"PRAGMA max_page_count = {pages + 4}")
        cursor.close()
        with database.turn(facility.path):
            futures = [ledger.submit(certificate(number)) for number in range(2, 200)]
        errors = [future.exception(PATIENCE) for future in futures]
        full = [error for error in errors if isinstance(error, StoreError) and error.code == "disk-full"]
        assert full
        until_ready(ledger)
        assert len(store.certificates()) == verify(store).checkpoint.size == 200 - 1 - len(full)
        assert ledger.record(certificate(500)).outcome is Outcome.NEW
