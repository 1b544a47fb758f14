"""The one way to change anything: a thread that commits what was submitted, in batches, and only then lets go of the answers.

While one batch is being synced to disk the next one gathers, so a single client waits for one fsync and 256 clients share one
("natural" batching; nobody waits for a timer). Several processes may write: each takes its turn, and reads the head anew.

A COMMIT that fails leaves an unknown outcome: the disk may hold the entry. The ledger then *latches*. Nothing more is granted;
the database is opened again, its write-ahead log emptied, the head verified, and the requests in doubt are looked up: what is
there is delivered, what is not is refused. So the log may hold a grant that nobody received, never the reverse. Every other
failure of the store latches too; the thread tries to recover, over and over.

Who may touch what: ``_queue`` is shared; ``_closing`` is guarded by ``_gate``; ``_state`` is replaced as a whole by the thread
and read by all; ``_connection`` and ``_head`` belong to the thread (before it starts, to ``start``).
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Self

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from certauth.audit.record import Source
from certauth.clock import Clock
from certauth.errors import CertauthError, StoreError, UnavailableError
from certauth.keys import SigningKey
from signer import database
from signer.faults import cause_of, is_fault_of_store, why
from signer.log_head import LogIdentity, entry_time, verified_head
from signer.log_reader import Head, LogReader, Recorded
from signer.store import Store
from signer.submission import Committed, Outcome, Replay, Result, Submission
from signer.writer import append

__all__ = ["Committed", "Ledger", "LedgerState", "LedgerStatus", "Outcome", "Replay", "Submission"]

MAX_BATCH: Final = 256
MAX_QUEUE: Final = 4096
"""Submissions that may wait; beyond, ``busy``. A longer queue would only be waited in vain."""
RECOVERY_INTERVAL: Final = 0.5
"""Seconds between attempts to recover."""
_SAID_AS_IT_IS: Final = frozenset({"disk-full", "database-moved"})


class LedgerState(StrEnum):
    """Whether submissions are taken."""

    READY = "ready"
    LATCHED = "latched"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatus:
    """What readiness and metrics are made of. ``busy_for`` is how many seconds the present batch has been under way."""

    state: LedgerState
    cause: CertauthError | None
    size: int
    queued: int
    batches: int
    busy_for: float


@dataclass(frozen=True, slots=True)
class _Pending:
    submission: Submission
    future: Future[Committed]


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """Written by the writer thread as a whole; so what others read is never half of something."""

    state: LedgerState = LedgerState.CLOSED
    cause: CertauthError | None = None
    size: int = 0
    batches: int = 0
    since: float | None = None


class _UnknownOutcome(Exception):
    """COMMIT failed, or succeeded into a file that is no longer where it was: what the disk holds must be looked up."""

    def __init__(self, results: Sequence[Result], cause: CertauthError) -> None:
        super().__init__(cause.message)
        self.results = results
        self.cause = cause


class Ledger:
    """The log's writer. ``start`` it before use and ``close`` it after, or use it as a context manager."""

    def __init__(self, store: Store, *, key: SigningKey, source: Source, clock: Clock) -> None:
        self._store = store
        self._log = LogIdentity(origin=store.origin, key=key, source=source)
        self._clock = clock
        self._queue: queue.Queue[_Pending | None] = queue.Queue(MAX_QUEUE)
        self._gate = threading.Lock()
        self._closing = False
        self._state = _State()
        self._engine = database.writing_engine(store.path, store.place.database)
        self._connection: Connection | None = None
        self._head: Head | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> Self:
        """Check that the database is durable and the log intact, then take submissions.

        Raises ``StoreError`` (``not-durable``, ``database-moved``, ``clock-behind``, ``audit-unavailable``), or ``LogError`` if
        the log is not what our key signed; nothing was changed then.
        """
        try:
            self._open(must_flush=False)
        except Exception as error:  # whatever the database holds, the answer is one of our errors
            self._disconnect()
            raise cause_of(error) from error
        self._thread.start()
        return self

    def submit(self, submission: Submission) -> Future[Committed]:
        """Queue a submission; the future's result exists only after COMMIT. Never blocks.

        Raises ``UnavailableError`` (``busy``), ``StoreError`` (``audit-unavailable``, ``disk-full``, ``database-moved``). The
        future raises those, or what is wrong with this submission: ``ProofError`` (``replayed``, ``proof-expired``),
        ``RequestError`` (``request-id-used``), ``Refused`` (``principal-disabled``), ``StoreError`` (``store-conflict``),
        ``LogError`` (not recordable). Cancelling it before its batch begins withdraws the submission; after that, it has no
        effect.
        """
        pending = _Pending(submission, Future())
        with self._gate:
            if self._closing or self._state.state is LedgerState.CLOSED:
                raise StoreError(
                    "audit-unavailable",
                    "the signer is shutting down",
                    retry_after=5,
                    hint="try again in a moment; the signer's /readyz names the cause",
                )
            if self._state.cause is not None:
                raise _refusal(self._state.cause)
            try:
                self._queue.put_nowait(pending)
            except queue.Full as error:
                raise UnavailableError(
                    "busy", f"{MAX_QUEUE} grants are waiting to be recorded", retry_after=1, hint="try again in a moment"
                ) from error
        return pending.future

    def record(self, submission: Submission, *, timeout: float = 30.0) -> Committed:
        """``submit`` and wait; for admin commands. A ``TimeoutError`` leaves the outcome to be asked for again."""
        return self.submit(submission).result(timeout)

    def status(self) -> LedgerStatus:
        state = self._state
        return LedgerStatus(
            state=state.state,
            cause=state.cause,
            size=state.size,
            queued=self._queue.qsize(),
            batches=state.batches,
            busy_for=0.0 if state.since is None else time.monotonic() - state.since,
        )

    def close(self, *, timeout: float = 30.0) -> None:
        """Take nothing more, record what is queued, and stop. What cannot be recorded in ``timeout`` seconds is refused."""
        deadline = time.monotonic() + timeout
        with self._gate:
            self._closing = True
        if self._thread.is_alive():
            try:
                self._queue.put(None, timeout=timeout)
            except queue.Full:
                self._refuse_queued()
            else:
                self._thread.join(max(0.0, deadline - time.monotonic()))
        self._refuse_queued()
        if not self._thread.is_alive():
            self._disconnect()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        running = True
        while running:
            batch, running = self._take()
            self._state = replace(self._state, since=time.monotonic())
            if self._state.cause is not None:
                self._recover()
            if batch:
                self._record(batch)
            self._state = replace(self._state, since=None)
        self._state = replace(self._state, state=LedgerState.CLOSED)

    def _take(self) -> tuple[list[_Pending], bool]:
        """What waits, up to a batch, and whether to go on after it; while latched, come back even if nothing waits."""
        batch: list[_Pending] = []
        try:
            item = self._queue.get(timeout=RECOVERY_INTERVAL if self._state.cause is not None else None)
            while item is not None:
                if item.future.set_running_or_notify_cancel():  # a client that went away is not granted anything
                    batch.append(item)
                if len(batch) == MAX_BATCH:
                    return batch, True
                item = self._queue.get_nowait()
            return batch, False
        except queue.Empty:
            return batch, True

    def _record(self, batch: Sequence[_Pending]) -> None:
        """Bring every future of ``batch`` to its end, whatever happens."""
        if self._state.cause is not None:
            _resolve(batch, _refusals(self._state.cause, batch))
            return
        try:
            results = self._commit([pending.submission for pending in batch])
        except _UnknownOutcome as unknown:
            self._latch(unknown.cause)
            known = self._recover()
            _resolve(batch, self._look_up(batch, unknown) if known else _refusals(unknown.cause, batch))
        except Exception as error:  # noqa: BLE001  # the thread must outlive whatever a submission or the store does
            if is_fault_of_store(error):
                self._latch(cause_of(error))
                _resolve(batch, _refusals(cause_of(error), batch))
            elif len(batch) == 1:
                _resolve(
                    batch,
                    [
                        StoreError(
                            "store-conflict",
                            f"the request cannot be recorded: {why(error)}",
                            hint="look at what is there now, then decide again",
                        )
                    ],
                )
            else:
                # One of them contradicts what is stored. Halving finds it in a few transactions and spares its neighbours.
                middle = len(batch) // 2
                self._record(batch[:middle])
                self._record(batch[middle:])
        else:
            _resolve(batch, results)

    def _commit(self, submissions: Sequence[Submission]) -> Sequence[Result]:
        """One transaction. Whatever is raised other than ``_UnknownOutcome`` means that nothing was changed."""
        connection, head = self._connection, self._head
        if connection is None or head is None:
            raise StoreError(
                "audit-unavailable",
                "the database is not open",
                hint="try again in a moment; the signer's /readyz names the cause",
            )
        with database.turn(self._store.path):
            self._store.place.check()
            transaction = connection.begin()
            try:
                appended = append(connection, submissions, log=self._log, expected=head, now=self._clock())
            except BaseException:
                transaction.rollback()
                raise
            if appended.head == head:
                transaction.rollback()
                return appended.results
            try:
                transaction.commit()
                self._store.place.check()  # again: what went into a file that nobody can open again is not durable
            except Exception as error:
                raise _UnknownOutcome(appended.results, cause_of(error)) from error
        self._head = appended.head
        self._state = replace(self._state, size=appended.head.size, batches=self._state.batches + 1)
        return appended.results

    def _look_up(self, batch: Sequence[_Pending], unknown: _UnknownOutcome) -> Sequence[Result]:
        """After recovery: what became of a batch whose COMMIT failed; its results hold for those that are there."""
        try:
            with self._store.log() as reader:
                recorded = reader.recorded([pending.submission.request_id for pending in batch])
        except StoreError as error:
            return _refusals(error, batch)
        return [
            result if _holds(result, recorded.get(pending.submission.request_id), pending) else _refusal(unknown.cause)
            for pending, result in zip(batch, unknown.results, strict=True)
        ]

    # ------------------------------------------------------------------ opening, latching, recovering

    def _open(self, *, must_flush: bool) -> None:
        self._disconnect()
        with database.turn(self._store.path):
            self._store.place.check()  # before SQLite could make a new write-ahead log where the old one is missing
            connection = self._connection = self._engine.connect()
            database.check_durable(connection)
            flushed = database.flush_wal(connection)
            if must_flush and not flushed:
                raise StoreError(
                    "audit-unavailable",
                    "the database is being read; its write-ahead log cannot be emptied yet",
                    hint="try again in a moment; the signer's /readyz names the cause",
                )
            with connection.begin() as transaction:
                head = verified_head(LogReader(connection), log=self._log, expected=self._head)
                entry_time(head, self._clock())
                transaction.rollback()
        self._head = head
        self._state = replace(self._state, state=LedgerState.READY, cause=None, size=head.size)

    def _recover(self) -> bool:
        """Open the database again and establish its head; ``False`` leaves the ledger latched."""
        try:
            self._open(must_flush=True)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is why nothing can be granted
            self._latch(cause_of(error))
            return False
        return True

    def _latch(self, cause: CertauthError) -> None:
        self._state = replace(self._state, state=LedgerState.LATCHED, cause=cause)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.invalidate()  # never reused, and nothing waits for it
            with contextlib.suppress(SQLAlchemyError):
                connection.close()

    def _refuse_queued(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                if item is not None and item.future.set_running_or_notify_cancel():
                    _resolve(
                        [item],
                        [
                            StoreError(
                                "audit-unavailable",
                                "the signer is shutting down",
                                retry_after=5,
                                hint="try again in a moment; the signer's /readyz names the cause",
                            )
                        ],
                    )
        self._queue.put(None)


def _holds(result: Result, found: Recorded | None, pending: _Pending) -> bool:
    """Whether a result made before a COMMIT of unknown outcome may be given out: refusals, and what is in the log after all."""
    if isinstance(result, CertauthError):
        return True
    return found is not None and (found.digest, found.seq) == (pending.submission.digest, result.index)


def _refusals(cause: CertauthError, batch: Sequence[_Pending]) -> list[Result]:
    return [_refusal(cause) for _ in batch]


def _refusal(cause: CertauthError) -> StoreError:
    """What a submitter is told while the ledger is latched; a new exception each time, for each is raised on its own."""
    code = cause.code if cause.code in _SAID_AS_IT_IS else "audit-unavailable"
    return StoreError(code, f"nothing can be recorded: {cause.message}", hint=cause.hint, retry_after=cause.retry_after or 1)


def _resolve(batch: Sequence[_Pending], results: Sequence[Result]) -> None:
    for pending, result in zip(batch, results, strict=True):
        if isinstance(result, Committed):
            pending.future.set_result(result)
        else:
            pending.future.set_exception(result)
