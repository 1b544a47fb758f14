"""``policy.uses``: never more uses than allowed, by however many processes, whatever happens to them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from certauth.errors import StoreError
from policy import uses
from policy.counting import NotReserved, Reservation, Reserved, UseCounter
from policy.testing import MemoryUses
from policy.uses import UseFile
from tests.policy.door import START

UNTIL = START + timedelta(hours=1)
N1, N2 = "0123456789abcdef", "fedcba9876543210"


def use(counter: UseCounter, limits: dict[str, int], *, token: str = "als.example/a") -> Reservation:
    """One use, at the start."""
    return counter.reserve(token, limits, until=UNTIL, now=START)


def counted(reservation: Reservation) -> dict[str, int] | str:
    """Which uses they were, or why not."""
    return dict(reservation.counts) if isinstance(reservation, Reserved) else reservation.code


@pytest.fixture
def file(tmp_path: Path) -> Iterator[UseFile]:
    """Counters in a file."""
    counter = UseFile(tmp_path / "door" / "uses.sqlite")
    yield counter
    counter.close()


@pytest.fixture(params=["file", "memory"])
def counter(request: pytest.FixtureRequest, file: UseFile) -> UseCounter:
    """Either implementation."""
    return file if request.param == "file" else MemoryUses()


def test_as_often_as_it_may(counter: UseCounter) -> None:
    """Uses are counted from one to the limit, and then no more."""
    counter.start()
    assert [counted(use(counter, {N1: 3})) for _ in range(5)] == [{N1: 1}, {N1: 2}, {N1: 3}, "token-used-up", "token-used-up"]
    counter.close()


def test_tokens_and_counters_are_apart(counter: UseCounter) -> None:
    """The same nonce in another token is another counter, and so is another nonce in the same token."""
    for token in ("als.example/a", "als.example/b", "nsls.example/a"):
        assert counted(use(counter, {N1: 1}, token=token)) == {N1: 1}
    assert counted(use(counter, {N2: 1})) == {N2: 1}
    assert counted(use(counter, {N1: 1})) == "token-used-up"


def test_all_or_nothing(counter: UseCounter) -> None:
    """A token with two limits uses both or neither."""
    assert counted(use(counter, {N1: 1})) == {N1: 1}
    assert counted(use(counter, {N2: 5, N1: 1})) == "token-used-up"
    assert counted(use(counter, {N2: 5})) == {N2: 1}
    assert counted(use(counter, {N2: 5, N1: 2})) == {N2: 2, N1: 2}


def test_nothing_is_forgotten_between_processes(file: UseFile, tmp_path: Path) -> None:
    """Closed and opened again, by this or by another, the counters stand where they stood."""
    assert counted(use(file, {N1: 2})) == {N1: 1}
    file.close()
    file.close()
    assert counted(use(file, {N1: 2})) == {N1: 2}
    other = UseFile(tmp_path / "door" / "uses.sqlite")
    assert counted(use(other, {N1: 2})) == "token-used-up"
    other.close()


def test_the_file_is_private_and_every_use_synced(file: UseFile, tmp_path: Path) -> None:
    """Nobody else reads who used what, and a use is on the disk before it is one."""
    file.start()
    file.start()
    path = tmp_path / "door" / "uses.sqlite"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert file._opened is not None
    connection = file._opened.connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# --- several processes --------------------------------------------------------------------------------------------------

WORKER = """
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from policy.counting import Reserved
from policy.uses import UseFile

class Naive(UseFile):
    "The control: looks, and then writes, without keeping others out in between."
    def reserve(self, token, limits, *, until, now):
        connection = self._ready().connection
        (nonce, limit), = limits.items()
        row = connection.execute("SELECT used FROM uses WHERE token = ? AND nonce = ?", (token, nonce)).fetchone()
        if row is not None and row[0] >= limit:
            return None
        print("looked", flush=True)
        sys.stdin.readline()
        connection.execute("INSERT INTO uses VALUES (?, ?, 1, 1) ON CONFLICT DO UPDATE SET used = used + 1", (token, nonce))
        return Reserved({})

kind, path, limit, attempts = sys.argv[1:]
counter = {"naive": Naive, "real": UseFile}[kind](Path(path), busy_seconds=60)
counter.start()
now = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
print("ready", flush=True)
sys.stdin.readline()
got = 0
for _ in range(int(attempts)):
    got += isinstance(
        counter.reserve("t", {"n": int(limit)}, until=now + timedelta(hours=1), now=now), Reserved
    )
print(got, flush=True)
sys.stdin.readline()
"""


def workers(kind: str, path: Path, *, limit: int, attempts: int, number: int) -> list[subprocess.Popen[str]]:
    """Processes that will use the same token, and have its file open."""
    command = [sys.executable, "-c", WORKER, kind, str(path), str(limit), str(attempts)]
    root = Path(uses.__file__).parent.parent
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(number)
    ]
    for process in started:
        assert said(process) == "ready"
    return started


def said(process: subprocess.Popen[str]) -> str:
    """The next line of a process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    """Have a process go on."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def ended(started: list[subprocess.Popen[str]]) -> None:
    """Wait for all of them."""
    for process in started:
        process.communicate("go\n")
        assert process.returncode == 0


def test_racing_processes_get_no_more_than_there_is(tmp_path: Path) -> None:
    """Four processes at once, each after all of it: together they get exactly what the token allows."""
    started = workers("real", tmp_path / "uses.sqlite", limit=25, attempts=20, number=4)
    for process in started:
        tell(process)
    assert sum(int(said(process)) for process in started) == 25
    ended(started)


def test_the_race_is_real(tmp_path: Path) -> None:
    """The control: a counter that looks before it writes gives one use to two processes."""
    started = workers("naive", tmp_path / "uses.sqlite", limit=1, attempts=1, number=2)
    for process in started:
        tell(process)
    assert [said(process) for process in started] == ["looked", "looked"]
    for process in started:
        tell(process)
    assert sum(int(said(process)) for process in started) == 2
    ended(started)


@pytest.mark.parametrize("let_go", [True, False])
def test_processes_that_first_open_the_file_at_once_wait_for_each_other(tmp_path: Path, let_go: bool) -> None:
    """SQLite turns away, without waiting, whoever would switch a file to WAL while another begins to write it."""
    path = tmp_path / "uses.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    counter = UseFile(path, busy_seconds=60 if let_go else 0.05)
    if let_go:
        release = threading.Timer(0.2, lambda: other.execute("ROLLBACK"))
        release.start()
        counter.start()
        release.join()
        assert counted(use(counter, {N1: 1})) == {N1: 1}
    else:
        with pytest.raises(StoreError) as refused:
            counter.start()
        assert refused.value.code == "uses-unavailable"
    counter.close()
    other.close()


def test_a_killed_process_loses_nothing(tmp_path: Path) -> None:
    """What was counted before a process was killed stays counted; what it was killed in the middle of locks nobody out."""
    path = tmp_path / "uses.sqlite"
    (process,) = workers("real", path, limit=9, attempts=7, number=1)
    tell(process)
    assert said(process) == "7"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    counter = UseFile(path)
    assert counted(counter.reserve("t", {"n": 9}, until=UNTIL, now=START)) == {"n": 8}
    counter.close()


def test_after_a_fork_the_file_is_opened_anew(file: UseFile) -> None:
    """A child must not share its parent's connection; nor does it close what is not its own."""
    file.start()
    assert file._opened is not None
    parents = file._opened
    parents.process = os.getpid() + 1  # as the child sees it
    assert counted(use(file, {N1: 2})) == {N1: 1}
    assert file._opened is not parents
    file.close()
    file._opened = parents
    file.close()
    assert parents.connection.execute("SELECT used FROM uses").fetchall() == [(1,)]
    parents.connection.close()


# --- what goes wrong ----------------------------------------------------------------------------------------------------


def failure(counter: UseCounter) -> str:
    """The code with which nothing is counted."""
    with pytest.raises(StoreError) as caught:
        use(counter, {N1: 5})
    assert caught.value.hint
    return caught.value.code


def replace(path: Path) -> None:
    """Put another file of counters into its place."""
    path.rename(path.with_suffix(".old"))
    UseFile(path).start()


@pytest.mark.parametrize("change", [Path.unlink, replace])
def test_a_file_that_is_replaced_or_gone_counts_no_more(
    file: UseFile, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    """Its counters would be another file's, or everybody's back at zero: nothing is let through."""
    path = tmp_path / "door" / "uses.sqlite"
    assert counted(use(file, {N1: 5})) == {N1: 1}
    change(path)
    assert failure(file) == "uses-unavailable"
    assert failure(file) == "uses-unavailable", "nor at the next request, whatever is there by then"


def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    """A database of somebody else's is not written to, and what is no database is no counter."""
    for name, version in (("a", 7), ("b", 0)):
        with sqlite3.connect(tmp_path / name) as connection:
            connection.execute("CREATE TABLE theirs (x)")
            connection.execute(f"PRAGMA user_version = {version}")
        connection.close()
        before = (tmp_path / name).read_bytes()[100:]
        assert failure(UseFile(tmp_path / name)) == "uses-unavailable"
        assert (tmp_path / name).read_bytes()[100:] == before
    (tmp_path / "c").write_bytes(b"not a database at all" * 100)
    assert failure(UseFile(tmp_path / "c")) == "uses-unavailable"
    (tmp_path / "d").mkdir()
    assert failure(UseFile(tmp_path / "d")) == "uses-unavailable"


def test_a_busy_file_is_waited_for_only_so_long(file: UseFile, tmp_path: Path) -> None:
    """Somebody who keeps the file locked, or a thread that is stuck, holds up no request for ever."""
    file.start()
    impatient = UseFile(tmp_path / "door" / "uses.sqlite", busy_seconds=0.05)
    impatient.start()
    with sqlite3.connect(tmp_path / "door" / "uses.sqlite", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert failure(impatient) == "uses-unavailable"
        other.execute("ROLLBACK")
    other.close()
    assert counted(use(impatient, {N1: 5})) == {N1: 1}
    with impatient._lock:
        assert failure(impatient) == "uses-unavailable"
    impatient.close()


def test_a_full_file_counts_nothing_until_tokens_have_ended(tmp_path: Path) -> None:
    """At its bound the file takes no new counter, and none half; when their tokens have ended, counters make room."""
    counter = UseFile(tmp_path / "uses.sqlite", max_bytes=64 * 1024)

    def fill() -> None:
        for made in range(5000):
            counter.reserve(f"als.example/{made:032x}", {N1: 1, N2: 1}, until=UNTIL, now=START)

    with pytest.raises(StoreError, match="full"):
        fill()
    assert (tmp_path / "uses.sqlite").stat().st_size <= 64 * 1024
    assert counted(counter.reserve(f"als.example/{0:032x}", {N1: 1}, until=UNTIL, now=START)) == "token-used-up"
    with pytest.raises(StoreError, match="full"):  # some time longer than its token a counter is kept
        counter.reserve(f"als.example/{5000:032x}", {N1: 1, N2: 1}, until=UNTIL, now=START + timedelta(minutes=69))
    later = START + timedelta(minutes=71)
    assert counted(counter.reserve("als.example/x", {N1: 1}, until=later + timedelta(hours=1), now=later)) == {N1: 1}
    assert counter._opened is not None
    assert counter._opened.connection.execute("SELECT count(*) FROM uses").fetchone() == (1,)
    counter.close()


def test_pruning_goes_in_bounded_steps(file: UseFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with much to forget forgets it over several uses, and looks again only after a while."""
    monkeypatch.setattr(uses, "_PRUNED_AT_ONCE", 2)
    for number in range(5):
        use(file, {N1: 1}, token=f"old/{number}")
    left = []
    for number in range(5):
        late = START + timedelta(hours=2)
        file.reserve(f"new/{number}", {N1: 1}, until=late + timedelta(hours=1), now=late)
        assert file._opened is not None
        left.append(file._opened.connection.execute("SELECT count(*) FROM uses WHERE token LIKE 'old/%'").fetchone()[0])
    assert left == [3, 1, 0, 0, 0]


def test_a_clock_that_goes_back_prunes_again(file: UseFile) -> None:
    """After a clock was wrong for a while, counters are not kept for as long as it was wrong."""
    use(file, {N1: 1})
    file.reserve("x", {N1: 1}, until=UNTIL, now=START - timedelta(days=300))
    assert file._opened is not None
    assert file._opened.prune_at is not None
    assert file._opened.prune_at < START


def test_a_holder_cannot_fill_the_file(file: UseFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrowing again and again makes a bounded number of counters for one token; those it has go on counting."""
    monkeypatch.setattr(uses, "MAX_COUNTERS", 3)
    for number in range(3):
        assert counted(use(file, {f"{number:016x}": 5})) == {f"{number:016x}": 1}
    assert counted(use(file, {f"{3:016x}": 5})) == "uses-too-many"
    assert counted(use(file, {f"{2:016x}": 5, f"{4:016x}": 5})) == "uses-too-many"
    assert counted(use(file, {f"{2:016x}": 5})) == {f"{2:016x}": 2}
    assert isinstance(use(file, {f"{3:016x}": 5}, token="als.example/b"), Reserved)
    assert isinstance(uses.TOO_MANY, NotReserved)
