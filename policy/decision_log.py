"""Step 6, record: what this door decided, in a file that shows when something is missing from it.

One file per process, ``decisions-<slot>.jsonl`` for a configured ``decisions.jsonl``: JSON lines chained by hash
(``certauth.audit.decisions``), written by one thread that syncs a whole batch at once. Two promises to choose from, and neither
is silently weaker than it says:

* strict: ``record`` returns after the record is on the disk. Nothing is permitted that a power cut could make unrecorded; a
  log that cannot be written raises ``StoreError`` (``decision-log-failed``), which the door answers with 503.
* buffered: ``record`` returns at once and the disk follows within ``FLUSH_SECONDS``; a crash loses at most that. When the disk
  is slower than the door, or fails, records beyond the bound are dropped, counted, and their number is written as a ``gap``.

A last line cut short by a crash is removed at the next start, and its removal recorded. A file that was moved, deleted,
replaced or shortened is noticed before a batch is written and again before it is acknowledged; the log goes on in a new file at
the old place, chained to the last value of the one before, so that what is missing stays provable. Nothing is overwritten.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from certauth.clock import Clock
from certauth.errors import LogError, StoreError
from certauth.files import make_private_directory
from policy.chained_file import ChainedFile, microseconds
from policy.rules import RecordMode

FLUSH_SECONDS = 0.05
CAPACITY = 8192
"""Records waiting for the disk; some 8 MB at most."""
MAX_BATCH = 1024
MAX_TEXT = 1024
"""Bytes of a recorded value in the file, so that one request cannot fill the disk."""
MAX_TEXT_OF_STRANGERS = 256
"""The same for requests without a verified certificate, of which anybody can make any number."""
MAX_ITEMS = 16
_LONGEST = 6
_WHOLE = re.compile(r"(?:[^\\]|\\u[0-9a-f]{4}|\\[^u])*")  # the escapes of a string, but for one cut short


class DecisionRecord(NamedTuple):
    """One line of the log. What is None is left out. Names of what was shown are recorded, never a credential itself.

    A tuple, because one is made for every request, and a frozen dataclass of this many fields takes three times as long.
    """

    event: str
    """``decision``; ``ended``: a permitted request was cut off or its app crashed; ``handshake``: TLS refused the client."""
    at: datetime
    outcome: str
    """``permit``, ``deny`` or ``error``."""
    code: str
    request: str | None = None
    kind: str | None = None
    method: str | None = None
    path: str | None = None
    operation: str | None = None
    address: str | None = None
    uid: int | None = None
    status: int | None = None
    route: str | None = None
    held: tuple[str, ...] | None = None
    """Of a denial: the checks before the one that failed."""
    reasons: tuple[str, ...] | None = None
    hint: str | None = None
    principal: str | None = None
    """Who the verified certificate names."""
    certificate: str | None = None
    """Fingerprint of that certificate."""
    user: str | None = None
    """Whose rights the token carries."""
    token: str | None = None
    """The token's ``jti``."""
    token_key: str | None = None
    blocks: tuple[str, ...] | None = None
    """Revocation ids of the token's blocks: what to revoke, and what to look for in the grants of the signer."""
    delegated: tuple[str, ...] | None = None
    """Of a token that was handed over: the certificates it was handed over to, in order."""
    vouched: tuple[str, ...] | None = None
    """Groups of other facilities that these vouch for in the token."""
    uses: tuple[str, ...] | None = None
    """Of a token with limited uses: the counter, and which use of how many this was."""
    policy: str | None = None
    """Digest of the rules, and in ``trust`` the generation of the trust, under which the decision was taken."""
    trust: int | None = None
    stripped: int | None = None
    """How many certificate-carrying headers the client smuggled in; they were removed."""

    def again(self, *, at: datetime, request: str, stripped: int | None) -> DecisionRecord:
        """The same of another, equal request."""
        # As `_replace` would, in a fifth of the time.
        return tuple.__new__(DecisionRecord, (self.event, at, self.outcome, self.code, request, *self[5:-1], stripped))

    def members(self) -> dict[str, object]:
        """The record as members of a line: no None, time in microseconds, text of bounded length."""
        limit = MAX_TEXT_OF_STRANGERS if self.principal is None else MAX_TEXT
        found: dict[str, object] = {"at": microseconds(self.at)}
        for name, value in zip(self._fields, self, strict=True):
            if isinstance(value, str):
                found[name] = _text(value, limit)
            elif isinstance(value, tuple):
                found[name] = [_text(item, limit) for item in value[:MAX_ITEMS]]
            elif isinstance(value, int):
                found[name] = value
        return found


def _text(value: str, limit: int) -> str:
    """``value``, bounded, and encodable: a lone surrogate must not be a way to stay out of the log.

    Bounded in bytes of its JSON form: a character takes up to four of them, an escaped one six.
    """
    if len(value) * _LONGEST <= limit and value.isascii():
        return value
    known = value[: limit + 1].encode("utf-8", "replace").decode()
    form = json.dumps(known, ensure_ascii=False)[1:-1].encode()
    if len(form) <= limit:
        return known
    cut = form[: limit - len("…".encode())].decode("utf-8", "ignore")
    text: str = json.loads(f'"{next(_WHOLE.finditer(cut))[0]}"')
    return text + "…"


@dataclass(slots=True)
class _Waiting:
    """A record on its way to the disk, and who waits for it to arrive."""

    record: DecisionRecord
    future: asyncio.Future[None] | None


class DecisionLog:
    """The decision log of this process. Between ``start()`` and ``close()``, any thread or loop may ``record``."""

    def __init__(
        self,
        path: Path,
        *,
        mode: RecordMode,
        clock: Clock,
        program: str,
        capacity: int = CAPACITY,
        processes: int = 256,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self.mode = mode
        self.dropped = 0
        """Records lost since the start because the disk was too slow or failing (buffered mode only)."""
        self.failure: StoreError | None = None
        """Why the last batch could not be written; None while the log works."""
        self._path, self._processes, self._program = path, processes, program
        self._capacity, self._clock, self._sync = capacity, clock, sync
        self._queue: deque[_Waiting] = deque()
        self._gap = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._file: ChainedFile | None = None

    @property
    def file(self) -> Path | None:
        """The file this process writes; None before the start and with ``off``."""
        return None if self._file is None else self._file.path

    def start(self) -> None:
        """Open the file, start the writer. Raises ``StoreError``: a door that should record must not open without its log."""
        if self.mode is RecordMode.OFF or self._thread is not None:
            return
        make_private_directory(self._path.parent)
        try:
            self._file = ChainedFile.open(
                self._path, slots=self._processes, clock=self._clock, program=self._program, sync=self._sync
            )
        except OSError as error:
            raise StoreError("decision-log-failed", f"cannot open a decision log at {self._path}: {error.strerror}") from error
        self._closing = False
        self._thread = threading.Thread(target=self._run, args=(self._file,), name="decision-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a daemon thread, so that a forgotten close() cannot hang the exit, and still a last flush

    def close(self) -> None:
        """Write what is waiting and close the file. Idempotent."""
        if self._thread is None or self._file is None:
            return
        self._closing = True
        self._wake.set()
        self._thread.join()
        self._thread = None
        self._file.close()
        atexit.unregister(self.close)

    async def record(self, record: DecisionRecord) -> None:
        """Record, with the promise of the mode. Raises ``StoreError`` (``decision-log-failed``) in strict mode only."""
        if self.mode is not RecordMode.STRICT:
            self.note(record)
            return
        if self._thread is None or len(self._queue) >= self._capacity:
            raise StoreError("decision-log-failed", "the decision log does not take records now", retry_after=1)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(record, future))
        self._wake.set()
        await future

    def note(self, record: DecisionRecord) -> None:
        """Record without waiting, in any mode: for what has happened already and can no longer be withheld."""
        if self.mode is RecordMode.OFF:
            return
        if len(self._queue) >= self._capacity:
            with self._lock:
                self._gap += 1
                self.dropped += 1
            return
        self._queue.append(_Waiting(record, None))
        if not self._wake.is_set():
            self._wake.set()

    def _run(self, file: ChainedFile) -> None:
        pause = FLUSH_SECONDS if self.mode is RecordMode.BUFFERED else 0.0
        while True:
            self._wake.wait()
            if pause and not self._closing:
                time.sleep(pause)
            self._wake.clear()  # before the queue is read: a record that comes after sets it again
            # What is there now, and no more: to chase the tail would mean a sync for every few records.
            for _ in range(0, len(self._queue) + bool(self._gap), MAX_BATCH):
                if not self._write_batch(file):
                    break
            if self._closing:
                while (self._queue or self._gap) and self._write_batch(file):
                    pass
                return
            if self.failure is not None:
                time.sleep(FLUSH_SECONDS)
                self._wake.set()

    def _write_batch(self, file: ChainedFile) -> bool:
        """Write up to ``MAX_BATCH`` records; whether that worked. Those nobody waits for stay in the queue if it did not."""
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
        with self._lock:
            gap, self._gap = self._gap, 0
        members = [waiting.record.members() for waiting in batch]
        if gap:
            members.append({"event": "gap", "at": microseconds(self._clock()), "lost": gap})
        try:
            file.append(members)
        except (StoreError, LogError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.failure = StoreError("decision-log-failed", f"the decision log cannot be written: {reason}", retry_after=5)
            unwaited = [waiting for waiting in batch if waiting.future is None]
            if isinstance(error, LogError):  # about the records, not the disk: to try them again would stop the log for good
                gap, unwaited = gap + len(unwaited), []
            with self._lock:
                self._gap += gap
            self._queue.extendleft(reversed(unwaited))
        else:
            self.failure = None
        _resolve([waiting.future for waiting in batch if waiting.future is not None], self.failure)
        return self.failure is None


def _resolve(futures: list[asyncio.Future[None]], failure: StoreError | None) -> None:
    """Wake those who wait, each in its own loop, which may be gone by now."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for future in futures:
        by_loop.setdefault(future.get_loop(), []).append(future)
    for loop, theirs in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_settle, theirs, failure)


def _settle(futures: list[asyncio.Future[None]], failure: StoreError | None) -> None:
    for future in futures:
        if future.done():  # whoever waited was cancelled
            continue
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)
