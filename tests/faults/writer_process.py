"""A signer's writing half as a process of its own, to be killed, traced and starved.

    python -m tests.faults.writer_process <directory> <name> <clients> <grants> [product|unsynced|early]

``clients`` threads record ``grants`` each; every line on stdout is one system call, made after the grant was acknowledged:
``ack <index> <request id>``, or ``refused <code>``. ``unsynced`` and ``early`` are broken on purpose: the tests must notice.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from certauth.errors import CertauthError
from signer import database
from signer.ledger import Ledger, LedgerState
from signer.submission import Result, Submission
from signer.writer import append
from tests.faults.kit import Facility, submission


class Unsynced(Ledger):
    """Broken: turns off, behind the back of the check at the start, what makes a COMMIT wait for the disk."""

    def _open(self, *, must_flush: bool) -> None:
        super()._open(must_flush=must_flush)
        if self._connection is not None:
            self._connection.connection.cursor().execute("PRAGMA synchronous=OFF")


class Early(Ledger):
    """Broken: lets go of a batch's answers before its COMMIT, which happens when the next batch comes."""

    def _commit(self, submissions: Sequence[Submission]) -> Sequence[Result]:
        connection, head = self._connection, self._head
        if connection is None or head is None:
            raise AssertionError("not started")
        transaction = connection.get_transaction()
        if transaction is not None:
            transaction.commit()
        with database.turn(self._store.path):
            connection.begin()
            appended = append(connection, submissions, log=self._log, expected=head, now=self._clock())
            self._head = appended.head
            return appended.results


KINDS: dict[str, type[Ledger]] = {"product": Ledger, "unsynced": Unsynced, "early": Early}


def main(directory: str, name: str, clients: str, grants: str, kind: str = "product") -> None:
    """Record until done; with more refusals than grants left, wait for the ledger to recover in between."""
    facility = Facility(Path(directory))
    with facility.running(kind=KINDS[kind]) as (_, ledger):
        say("ready")
        sys.stdin.readline()  # whoever started us may hold us back until everybody is ready
        threads = [
            threading.Thread(target=client, args=(ledger, f"{name}-{number}", int(grants))) for number in range(int(clients))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        say(f"end {ledger.status().state}")


def client(ledger: Ledger, name: str, grants: int) -> None:
    """One client: the next grant is asked for when the one before was answered."""
    for number in range(grants):
        one = submission(f"{name}-{number}", proof=f"{name}-{number}")
        try:
            committed = ledger.record(one)
        except CertauthError as error:
            say(f"refused {error.code} {one.request_id}")
            wait_for(ledger)
        else:
            say(f"ack {committed.index} {one.request_id}")


def wait_for(ledger: Ledger) -> None:
    """A while, or until the ledger takes submissions again."""
    for _ in range(40):
        if ledger.status().state is LedgerState.READY:
            return
        time.sleep(0.1)


def say(line: str) -> None:
    """One line, one system call, nothing buffered."""
    os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
