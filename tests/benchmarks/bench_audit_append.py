"""Durable grants: what sharing commits is worth, and how many grants one fsync of this disk carries.

256 clients, each asking for the next grant when the last was acknowledged. A grant is record, certificate row, replay key,
tree, chain and signed checkpoint, on the disk. Compared within each round: the ledger, the same ledger with one commit for
each request, and the bare fdatasync of a file on the same disk.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

from signer.ledger import Committed, Ledger
from signer.submission import Submission
from tests.faults.kit import Facility, certificate

CLIENTS = 256
ROUNDS = 5
SECONDS = 1.0
MOST = 15_000
"""Grants that one round could possibly need; made beforehand, for making them is not the ledger's work."""


class OneCommitEach(Ledger):
    """The ledger without batches: what waits is taken one by one."""

    def _take(self) -> tuple[list[object], bool]:  # type: ignore[override]  # the element type is private to the ledger
        item = self._queue.get()
        if item is None or not item.future.set_running_or_notify_cancel():
            return [], item is not None
        return [item], True


class Load:
    """A closed loop of clients without a thread each: an acknowledgement sends the next request."""

    def __init__(self, ledger: Ledger, requests: Iterator[Submission]) -> None:
        self.ledger, self.requests = ledger, requests
        self.done = 0
        self.failure: BaseException | None = None
        self.idle = threading.Semaphore(0)
        self.deadline = 0.0

    def run(self) -> float:
        """Acknowledged grants per second."""
        begin = time.perf_counter()
        self.deadline = begin + SECONDS
        for request in list(itertools.islice(self.requests, CLIENTS)):
            self.ledger.submit(request).add_done_callback(self._next)
        for _ in range(CLIENTS):
            self.idle.acquire()
        if self.failure is not None:
            raise self.failure
        return self.done / (time.perf_counter() - begin)

    def _next(self, future: Future[Committed]) -> None:
        self.failure = self.failure or future.exception()
        self.done += 1
        if self.failure is None and time.perf_counter() < self.deadline:
            self.ledger.submit(next(self.requests)).add_done_callback(self._next)
        else:
            self.idle.release()


def measurements() -> Iterator[dict[str, object]]:
    """Both comparisons, the median of ``ROUNDS`` interleaved rounds."""
    shared: list[float] = []
    single: list[float] = []
    synced: list[float] = []
    cpu: list[float] = []
    build = Path("build")
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as directory:  # not /tmp, which may be memory
        facilities = {kind: Facility(Path(directory) / kind.__name__) for kind in (Ledger, OneCommitEach)}
        requests = map(certificate, itertools.count(1))
        for facility in facilities.values():
            facility.directory.mkdir()
        for _ in range(ROUNDS):
            synced.append(_fdatasyncs(Path(directory) / "baseline"))
            for kind, rates in ((Ledger, shared), (OneCommitEach, single)):
                rate, seconds = _grants(facilities[kind], kind, requests)
                rates.append(rate)
                if kind is Ledger:
                    cpu.append(seconds * 1e6)
    gain = statistics.median(one / other for one, other in zip(shared, single, strict=True))
    carried = statistics.median(one / other for one, other in zip(shared, synced, strict=True))
    yield _result("audit-append-shared-commit", gain, "x", 6, at_least=True, versus="one commit per request")
    yield _result("audit-append-per-fsync", carried, "grants", 6, at_least=True, versus="bare fdatasync of the same disk")
    yield _result(
        "audit-append-cpu", statistics.median(cpu), "us", 300, at_least=False, versus="CPU per grant, clients included"
    )


def _grants(facility: Facility, kind: type[Ledger], endless: Iterator[Submission]) -> tuple[float, float]:
    """Grants per second, and CPU seconds for each."""
    requests = iter(list(itertools.islice(endless, MOST if kind is Ledger else MOST // 5)))
    with facility.running(kind=kind) as (_, ledger):
        load, before = Load(ledger, requests), time.process_time()
        rate = load.run()
        return rate, (time.process_time() - before) / load.done


def _fdatasyncs(path: Path) -> float:
    """Syncs per second of four written kilobytes each."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < SECONDS / 2:
            os.pwrite(descriptor, bytes(4096), count * 4096)
            os.fdatasync(descriptor)
            count += 1
        return count / (time.perf_counter() - begin)
    finally:
        os.close(descriptor)


def _result(name: str, value: float, unit: str, bar: float, *, at_least: bool, versus: str) -> dict[str, object]:
    holds = value >= bar if at_least else value <= bar
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "bar": f"{'>=' if at_least else '<='} {bar}",
        "holds": holds,
        "runs": ROUNDS,
        "versus": versus,
    }
