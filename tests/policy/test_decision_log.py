"""``policy.decision_log``: a record is on the disk when the log says so, and a missing one shows."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from certauth.audit import decisions
from certauth.encoding import b64url
from certauth.errors import StoreError
from policy import decision_log
from policy.decision_log import DecisionLog, DecisionRecord
from policy.rules import RecordMode
from tests.policy.live import until

NOW = datetime(2026, 5, 1, 12, 0, 0, 7, tzinfo=UTC)


def record(number: int, **changes: Any) -> DecisionRecord:
    """A permit like any other."""
    return DecisionRecord(
        **{"event": "decision", "at": NOW, "outcome": "permit", "code": "permitted", "request": f"r{number}", **changes}
    )


class Logs:
    """Makes logs in one directory, and closes them all."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "decisions.jsonl"
        self.made: list[DecisionLog] = []

    def __call__(self, mode: RecordMode = RecordMode.STRICT, **options: Any) -> DecisionLog:
        log = DecisionLog(self.path, mode=mode, clock=lambda: NOW, program="test", **options)
        self.made.append(log)
        return log

    @property
    def file(self) -> Path:
        return self.path.with_name("decisions-0.jsonl")

    def lines(self) -> list[dict[str, Any]]:
        """The lines after the header of a file that verifies."""
        with self.file.open("rb") as file:
            assert decisions.verify_lines(file).torn == 0
        return [json.loads(line) for line in self.file.read_bytes().splitlines()[1:]]

    def requests(self) -> list[str]:
        return [line["request"] for line in self.lines() if "request" in line]


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    """Logs in a directory that does not exist yet."""
    made = Logs(tmp_path / "state" / "decisions")
    yield made
    for log in made.made:
        log.close()


def put(log: DecisionLog, *records: DecisionRecord) -> None:
    """Record all at once, as that many requests would."""

    async def together() -> None:
        await asyncio.gather(*(log.record(each) for each in records))

    asyncio.run(together())


class Disk:
    """A disk that loses what was not synced: its image is what each sync put there."""

    def __init__(self, path: Path) -> None:
        self.path, self.image, self.fails = path, b"", False

    def sync(self, descriptor: int) -> None:
        if self.fails:
            raise OSError(28, "No space left on device")
        os.fdatasync(descriptor)
        self.image = self.path.read_bytes()


def lost_in_a_power_cut(logs: Logs, sync: Callable[[Disk], Callable[[int], None]]) -> list[str]:
    """The requests that a strict log acknowledged, and that a power cut at that moment would have lost."""
    disk = Disk(logs.file)
    log = logs(sync=sync(disk))
    log.start()
    lost = []

    async def one(number: int) -> None:
        await log.record(record(number))
        if f'"r{number}"'.encode() not in disk.image:
            lost.append(f"r{number}")

    async def many() -> None:
        await asyncio.gather(*map(one, range(50)))

    asyncio.run(many())
    log.close()
    return lost


def test_strict_acknowledges_only_what_a_power_cut_cannot_take(logs: Logs) -> None:
    """Fifty requests at once: when each goes on, its record is in the disk's image."""
    assert lost_in_a_power_cut(logs, lambda disk: disk.sync) == []
    assert sorted(logs.requests()) == sorted(f"r{number}" for number in range(50))


def test_the_control_without_sync_acknowledged_records_are_lost(logs: Logs) -> None:
    """The negative control of the test above: take the sync away, and it fails."""
    assert len(lost_in_a_power_cut(logs, lambda _disk: lambda _descriptor: None)) == 50


def test_a_batch_shares_one_sync(logs: Logs) -> None:
    """While the disk is busy, whatever arrives goes with the next sync: that is what makes strict affordable."""
    busy, go, syncs = threading.Event(), threading.Event(), []

    def sync(descriptor: int) -> None:
        syncs.append(descriptor)
        busy.set()
        go.wait(60)

    log = logs(sync=sync)
    log.start()

    async def together() -> None:
        first = asyncio.ensure_future(log.record(record(0)))
        await asyncio.to_thread(busy.wait)
        others = [asyncio.ensure_future(log.record(record(number))) for number in range(1, 40)]
        await asyncio.sleep(0.05)
        go.set()
        await asyncio.gather(first, *others)

    asyncio.run(together())
    assert len(syncs) == 2
    assert logs.requests() == [f"r{number}" for number in range(40)]


def test_buffered_returns_at_once_and_writes_soon(logs: Logs) -> None:
    """Nothing is waited for, and nothing is forgotten at the end."""
    log = logs(RecordMode.BUFFERED)
    log.start()
    put(log, record(1))
    until(lambda: "r1" in logs.requests())
    put(log, record(2))
    log.close()
    assert logs.requests() == ["r1", "r2"]


def test_what_comes_while_the_log_closes_is_written(logs: Logs) -> None:
    """The last batch is on its way when another record arrives: it is not left behind."""
    busy, go = threading.Event(), threading.Event()

    def sync(descriptor: int) -> None:
        busy.set()
        go.wait(60)
        os.fdatasync(descriptor)

    log = logs(RecordMode.BUFFERED, sync=sync)
    log.start()
    put(log, record(1))
    closing = threading.Thread(target=log.close)
    closing.start()
    busy.wait(60)
    until(lambda: log._closing)
    put(log, record(2))
    go.set()
    closing.join()
    assert logs.requests() == ["r1", "r2"]


def test_a_log_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    """A name the file system refuses is a ``StoreError`` at the start, not an exception nobody expects."""
    log = DecisionLog(tmp_path / ("x" * 300), mode=RecordMode.STRICT, clock=lambda: NOW, program="test")
    with pytest.raises(StoreError) as caught:
        log.start()
    assert caught.value.code == "decision-log-failed"


def test_off_writes_nothing(logs: Logs) -> None:
    """No file, no thread, and no complaint."""
    log = logs(RecordMode.OFF)
    log.start()
    put(log, record(1))
    log.note(record(2))
    log.close()
    assert log.file is None
    assert not logs.path.parent.exists()


def test_what_is_recorded(logs: Logs) -> None:
    """Every field given, none that is not; time in microseconds; long and unencodable text in bounds."""
    log = logs()
    log.start()
    assert log.file == logs.file
    known = {"principal": "spiffe://als.example/user/alice", "reasons": ("é" * 3000, "\ud800")}
    put(log, record(1, path="/" + "x" * 5000, status=None, uid=0, **known), record(2, path="/\ud800é"))
    first, second = logs.lines()
    assert first["at"] == 1777636800000007
    assert first["path"] == "/" + "x" * (decision_log.MAX_TEXT - 4) + "…"
    assert first["reasons"] == ["é" * ((decision_log.MAX_TEXT - 3) // 2) + "…", "?"]
    assert first["uid"] == 0
    assert "status" not in first
    assert second["path"] == "/?é"


@pytest.mark.parametrize("text", ["x", "é", "\U0001f511", "\x01", '"', "\\", "\\u", "ab\x7f\x00\\"])
@pytest.mark.parametrize(("principal", "limit"), [(None, 256), ("spiffe://als.example/user/alice", 1024)])
def test_recorded_text_is_bounded_in_bytes_of_the_file(logs: Logs, text: str, principal: str | None, limit: int) -> None:
    """Whatever the text is made of, and however it is escaped: less for a stranger, and always cut between characters."""
    log = logs()
    log.start()
    put(log, *(record(length, path=text * length, principal=principal) for length in range(1, 1200, 7)))
    log.close()
    for length, line in zip(range(1, 1200, 7), logs.lines(), strict=True):
        whole = text * length
        form = len(json.dumps(line["path"], ensure_ascii=False).encode()) - 2
        assert form <= limit
        if line["path"] != whole:
            assert whole.startswith(line["path"].removesuffix("…"))
            assert limit - 6 - len("…".encode()) < form
            assert len(json.dumps(whole, ensure_ascii=False).encode()) - 2 > limit


def test_a_full_buffer_is_a_gap_that_shows(logs: Logs) -> None:
    """What the disk could not take in time is counted, and the count is a record of its own."""
    disk = Disk(logs.file)
    disk.fails = True
    log = logs(RecordMode.BUFFERED, capacity=10, sync=disk.sync)
    log.start()
    put(log, *(record(number) for number in range(10)))
    until(lambda: log.failure)
    until(lambda: len(log._queue) == 10)
    put(log, *(record(number) for number in range(10, 25)))
    assert log.dropped >= 15
    disk.fails = False
    until(lambda: log.failure is None)
    log.close()
    recorded = logs.lines()
    assert recorded[-1]["event"] == "gap"
    assert sum(line.get("lost", 0) for line in recorded) + len(logs.requests()) == 25


def test_a_full_disk_refuses_in_strict_mode_and_heals(logs: Logs) -> None:
    """Each request learns that it cannot be recorded; what was not acknowledged is not in the log; space brings it back."""
    disk = Disk(logs.file)
    log = logs(sync=disk.sync)
    log.start()
    put(log, record(1))
    disk.fails = True
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            put(log, record(2, reasons=("a longer record than the next",)))
        assert caught.value.code == "decision-log-failed"
        assert caught.value.retry_after == 5
        assert "No space left" in caught.value.message
    disk.fails = False
    put(log, record(3))
    log.close()
    assert logs.requests() == ["r1", "r3"]


def test_a_full_disk_for_real(logs: Logs) -> None:
    """The file may not grow beyond a limit the kernel holds: refused, nothing torn, and healed when the limit goes."""
    program = """
import asyncio, resource, signal, sys
from pathlib import Path
from tests.policy.test_decision_log import Logs, record, put
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
logs = Logs(Path(sys.argv[1]))
log = logs()
log.start()
put(log, record(1))
size = logs.file.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
try:
    put(log, record(2))
except Exception as error:
    print(error.code)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
put(log, record(3))
log.close()
print(*logs.requests())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(logs.path.parent)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == ["decision-log-failed", "r1", "r3"], done.stderr


@pytest.mark.parametrize("how", ["move", "delete", "replace", "shorten"])
def test_the_log_goes_on_when_its_file_is_taken_away(logs: Logs, how: str) -> None:
    """Moved, deleted, replaced or cut: a new file begins at the old place, chained to the end of the old one."""
    log = logs()
    log.start()
    put(log, record(1))
    before = logs.file.read_bytes()
    with logs.file.open("rb") as file:
        head = decisions.verify_lines(file).head
    elsewhere = logs.file.with_name("elsewhere")
    match how:
        case "move":
            logs.file.rename(elsewhere)
        case "delete":
            logs.file.unlink()
        case "replace":
            logs.file.rename(elsewhere)
            logs.file.write_bytes(b"another file")
        case _:
            os.truncate(logs.file, len(before) - 5)
    put(log, record(2))
    log.close()
    lines = logs.lines()
    assert [line.get("event") for line in lines] == ["continued", "decision"]
    assert logs.requests() == ["r2"]
    header = json.loads(logs.file.read_bytes().splitlines()[0])
    assert header["after"] == {"count": 1, "chain": b64url(head.chain)}
    aside = list(logs.file.parent.glob("*.displaced-*"))
    kept = {"replace": b"another file", "shorten": before[:-5]}
    assert [path.read_bytes() for path in aside] == ([kept[how]] if how in kept else [])


def test_a_file_taken_away_during_a_batch_takes_no_record_along(logs: Logs) -> None:
    """Between the write and the acknowledgement is a moment, too: the batch is written again, to the new file."""
    taken: list[bool] = []

    def sync(descriptor: int) -> None:
        os.fdatasync(descriptor)
        if not taken:
            taken.append(True)
            logs.file.unlink()

    log = logs(sync=sync)
    log.start()
    put(log, record(1))
    log.close()
    assert logs.requests() == ["r1"]


def test_a_file_that_cannot_be_made_again_refuses(logs: Logs) -> None:
    """If the directory is gone, strict mode permits nothing."""
    log = logs()
    log.start()
    logs.file.parent.rename(logs.file.parent.with_name("gone"))
    with pytest.raises(StoreError) as caught:
        put(log, record(1))
    assert caught.value.code == "decision-log-failed"


def test_a_torn_last_line_is_cut_off_and_said_so(logs: Logs) -> None:
    """A crash in the middle of a write: the log is taken up after the last whole line."""
    log = logs()
    log.start()
    put(log, record(1))
    log.close()
    with logs.file.open("ab") as file:
        file.write(b'{"_chain":"half a li')
    log = logs()
    log.start()
    put(log, record(2))
    log.close()
    lines = logs.lines()
    assert [line["event"] for line in lines] == ["decision", "started", "decision"]
    assert (lines[1]["removed"], lines[1]["process"]) == (20, os.getpid())


def test_a_damaged_file_is_not_written_to(logs: Logs) -> None:
    """An altered record is evidence: the door does not open, the file stays as it is, and the slot is given back."""
    log = logs()
    log.start()
    put(log, record(1), record(2))
    log.close()
    damaged = logs.file.read_bytes().replace(b'"r1"', b'"r9"')
    logs.file.write_bytes(damaged)
    with pytest.raises(StoreError) as caught:
        logs().start()
    assert caught.value.code == "decision-log-damaged"
    assert logs.file.read_bytes() == damaged
    logs.file.rename(logs.file.with_name("evidence"))
    log = logs()
    log.start()
    assert log.file == logs.file


def test_each_process_has_a_file_of_its_own(logs: Logs) -> None:
    """A held slot is passed over; a free one is taken up again; and there is an end to it."""
    first, second = logs(), logs()
    first.start()
    first.start()
    second.start()
    assert [log.file and log.file.name for log in (first, second)] == ["decisions-0.jsonl", "decisions-1.jsonl"]
    first.close()
    first.close()
    third = logs()
    third.start()
    assert third.file == logs.file
    with pytest.raises(StoreError) as caught:
        logs(processes=2).start()
    assert caught.value.code == "locked"


def test_strict_refuses_when_it_does_not_run_or_is_full(logs: Logs) -> None:
    """Before the start, after the end, and beyond the bound there is no silent permit."""
    log = logs(capacity=0)
    for step in (lambda: None, log.start, log.close):
        step()
        with pytest.raises(StoreError) as caught:
            put(log, record(1))
        assert (caught.value.code, caught.value.retry_after) == ("decision-log-failed", 1)


def test_a_record_that_cannot_be_written_does_not_stop_the_others(logs: Logs) -> None:
    """A member that is not JSON is our own mistake: it is refused, counted as a gap, and the log goes on."""
    log = logs(RecordMode.BUFFERED)
    log.start()
    put(log, record(1, uid=2**60))
    until(lambda: log.failure)
    put(log, record(2))
    log.close()
    assert logs.requests() == ["r2"]
    assert [line["lost"] for line in logs.lines() if line.get("event") == "gap"] == [1]


def test_a_cancelled_request_and_a_dead_loop_do_not_disturb_the_writer(logs: Logs) -> None:
    """Whoever waited may have gone; the record is written, and the next one is served."""
    busy, go = threading.Event(), threading.Event()

    def sync(descriptor: int) -> None:
        busy.set()
        go.wait(60)
        os.fdatasync(descriptor)

    log = logs(sync=sync)
    log.start()

    async def cancelled() -> None:
        waiting = asyncio.ensure_future(log.record(record(1)))
        await asyncio.to_thread(busy.wait)
        waiting.cancel()
        await asyncio.wait([waiting])
        go.set()
        await log.record(record(2))

    asyncio.run(cancelled())
    busy.clear()
    go.clear()

    async def gone() -> None:
        waiting = asyncio.ensure_future(log.record(record(3)))
        await asyncio.to_thread(busy.wait)
        assert not waiting.done()

    asyncio.run(gone())
    go.set()
    put(log, record(4))
    assert logs.requests() == ["r1", "r2", "r3", "r4"]
