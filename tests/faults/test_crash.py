"""Processes that are killed, compete, or are traced: what was acknowledged is on the disk, in one chain."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.kit import Facility, verify

ROOT = Path(__file__).parents[2]
_ACK = re.compile(r"ack (\d+) (\S+)")


def command(facility: Facility, name: str, *, clients: int, grants: int, kind: str = "product") -> list[str]:
    """The command line of a writer process."""
    module = ["-m", "tests.faults.writer_process"]
    return [sys.executable, *module, str(facility.directory), name, str(clients), str(grants), kind]


@contextmanager
def started(*words: str, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[str]]:
    """A child process in its own session; killed at the end, with everything it started."""
    process = subprocess.Popen(words, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def acknowledged(lines: Iterator[str] | list[str]) -> dict[str, int]:
    """Request id and index of every acknowledgement; a last line cut off by the kill does not count."""
    whole = (_ACK.fullmatch(line.rstrip("\n")) for line in lines if line.endswith("\n"))
    return {match[2]: int(match[1]) for match in whole if match}


def lost(facility: Facility, acks: dict[str, int]) -> dict[str, int]:
    """Those acknowledgements that the log, verified from the first entry to the last, does not hold."""
    with facility.running() as (store, _):
        verify(store)
        with store.log() as reader:
            found = reader.recorded(list(acks))
        return {name: index for name, index in acks.items() if name not in found or found[name].seq != index}


def killed_after(
    facility: Facility, name: str, acks: int, *, clients: int = 32, grants: int = 100_000, kind: str = "product"
) -> dict[str, int]:
    """What a writer had acknowledged when it was killed, which is after ``acks`` of them, in the midst of its work."""
    with started(*command(facility, name, clients=clients, grants=grants, kind=kind)) as process:
        stream = process.stdout
        if stream is None:
            raise AssertionError("no pipe")
        lines = []
        for line in stream:
            lines.append(line)
            if len(lines) > acks:
                break
        os.killpg(process.pid, signal.SIGKILL)
        lines += list(stream)
    return acknowledged(lines)


@pytest.fixture
def facility(tmp_path: Path) -> Facility:
    """A signer's directory with an empty log."""
    made = Facility(tmp_path)
    made.create().close()
    return made


def test_kill_under_load_loses_no_acknowledged_grant(facility: Facility) -> None:
    """Kill -9, several times, at different moments, under load: every acknowledged grant is in the log, which verifies."""
    for number, acks in enumerate((1, 40, 333, 700)):
        seen = killed_after(facility, f"round-{number}", acks)
        assert len(seen) >= acks
        assert lost(facility, seen) == {}


@pytest.mark.parametrize(("kind", "honest"), [("product", True), ("early", False)])
def test_kill_after_the_last_answer(facility: Facility, kind: str, honest: bool) -> None:
    """Killed at once after its last answer, the product has lost nothing; a build that answers before COMMIT has."""
    seen = killed_after(facility, "last", 24, clients=4, grants=6, kind=kind)
    assert len(seen) == 24
    assert (lost(facility, seen) == {}) is honest


def test_two_processes_keep_one_chain(facility: Facility) -> None:
    """Two writers at once on one database: every grant of both is there, at its own index, in one log that verifies."""
    competed = [compete(facility, 0)]
    while not any(competed):  # one of them was done before the machine had let the other one begin
        competed.append(compete(facility, len(competed)))
        assert len(competed) < 10, "they never competed"


def compete(facility: Facility, number: int) -> bool:
    """Let two writers record at once; whether entries of one are among those of the other."""
    with (
        started(*command(facility, f"one-{number}", clients=8, grants=40), stdin=subprocess.PIPE) as one,
        started(*command(facility, f"two-{number}", clients=8, grants=40), stdin=subprocess.PIPE) as two,
    ):
        pipes = [(process.stdin, process.stdout) for process in (one, two)]
        for _, output in pipes:
            assert output is not None
            assert output.readline() == "ready\n"
        for control, _ in pipes:
            assert control is not None
            control.write("go\n")
            control.flush()
        lines = [line for _, output in pipes if output for line in output]
        assert [process.wait(120) for process in (one, two)] == [0, 0]
    acks = acknowledged(lines)
    assert len(acks) == len(set(acks.values())) == 2 * 8 * 40
    assert lost(facility, acks) == {}
    owners: dict[str, list[int]] = {"one": [], "two": []}
    for name, index in acks.items():
        owners[name.split("-")[1]].append(index)
    return min(owners["two"]) < max(owners["one"]) and min(owners["one"]) < max(owners["two"])


# --- with strace -------------------------------------------------------------------------------------------------------


def strace() -> str:
    """The program, or a skip that everybody sees; in CI its absence is a failure."""
    path = shutil.which("strace")
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail("strace is not installed: the order of writes, syncs and answers cannot be shown")
        pytest.skip("strace is not installed: the order of writes, syncs and answers is NOT shown here")
    return path


_CALL = re.compile(r"(?P<thread>\d+) +(?:<\.\.\. (?P<resumed>\w+) resumed>|(?P<name>\w+)\()(?P<rest>.*)")


def answers_before_sync(trace: str) -> tuple[int, int]:
    """How many answers the trace of one client holds, and how many left without a WAL write and its sync since the last one.

    A write counts from the moment it begins, a sync from the moment it returns and only for writes before it began.
    """
    written = synced = answered = answers = early = 0
    syncing: dict[str, int] = {}
    for line in trace.splitlines():
        call = _CALL.match(line)
        if call is None:
            continue
        name, rest, thread = call["name"] or call["resumed"], call["rest"], call["thread"]
        if name in {"pwrite64", "write", "pwritev"} and call["name"] and "-wal>" in rest.split(",", 1)[0]:
            written += 1
        elif name in {"fdatasync", "fsync"}:
            if call["name"] and "-wal>" in rest:
                syncing[thread] = written
            if thread in syncing and rest.rstrip().endswith("= 0"):
                synced = max(synced, syncing.pop(thread))
        elif name == "write" and call["name"] and '"ack ' in rest:
            answers += 1
            early += not answered < synced == written
            answered = written
    return answers, early


@pytest.mark.parametrize(
    ("kind", "honest"), [("product", True), ("unsynced", False), ("early", False)], ids=["product", "no fsync", "answers early"]
)
def test_answer_leaves_after_the_wal_is_synced(facility: Facility, kind: str, honest: bool) -> None:
    """Each answer is preceded by a write to the write-ahead log and an fdatasync that returned; broken builds fail this."""
    trace = facility.directory / "trace"
    words = command(facility, "one", clients=1, grants=12, kind=kind)
    options = ["-f", "-y", "-s", "16", "-e", "trace=pwrite64,pwritev,write,fdatasync,fsync", "-o", str(trace)]
    with started(strace(), *options, *words) as process:
        output = process.communicate(timeout=180)[0]
    assert len(acknowledged(output.splitlines(keepends=True))) == 12
    answers, early = answers_before_sync(trace.read_text())
    assert answers == 12
    assert (early == 0) is honest


@pytest.mark.parametrize(
    ("call", "fault", "codes"),
    [
        ("fdatasync", "error=EIO:when=6..7", {"audit-unavailable"}),
        ("pwrite64", "error=ENOSPC:when=40..43", {"disk-full"}),
        ("pwrite64", "error=EIO:when=40..43", {"audit-unavailable"}),
        ("fdatasync", "signal=SIGKILL:when=9", set()),
    ],
    ids=["fsync fails", "no space", "write fails", "killed in fsync"],
)
def test_failing_system_calls_lose_nothing(facility: Facility, call: str, fault: str, codes: set[str]) -> None:
    """When the disk fails under a running writer, what was acknowledged stays; it refuses meanwhile and then goes on."""
    words = command(facility, "one", clients=1, grants=40)
    options = ["-f", "-qq", "-e", f"trace={call}", "-e", f"inject={call}:{fault}", "-o", "/dev/null"]
    with started(strace(), *options, *words) as process:
        output = process.communicate(timeout=180)[0]
    lines = output.splitlines(keepends=True)
    acks = acknowledged(lines)
    refused = {line.split()[1] for line in lines if line.startswith("refused")}
    assert acks
    assert lost(facility, acks) == {}
    assert refused == codes
    if codes:
        assert lines[-1] == "end ready\n", "it did not recover"
        last = next(number for number in reversed(range(len(lines))) if lines[number].startswith("refused"))
        assert any(line.startswith("ack") for line in lines[last:]), "it did not go on"
