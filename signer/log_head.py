"""The head of the log: what may follow what. Nothing is signed on top of a state that these functions did not establish."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from certauth.audit import chain, record, tiles
from certauth.audit.checkpoint import Checkpoint, VerifierKey, open_note
from certauth.audit.tree import Frontier, leaf_hash, root_of, verify_consistency
from certauth.clock import from_timestamp
from certauth.errors import LogError, StoreError
from certauth.keys import SigningKey
from signer.log_reader import Head, LogReader
from signer.rows import Columns

MAX_CLOCK_STEP: Final = timedelta(seconds=10)
"""How far the clock may fall behind the newest entry before nothing is recorded any more: its times would be lies."""
_MICROSECOND: Final = timedelta(microseconds=1)
_EPOCH: Final = from_timestamp(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIdentity:
    """The log we write: its origin, its key, and who we are in its records."""

    origin: str
    key: SigningKey
    source: record.Source

    @property
    def vkey(self) -> VerifierKey:
        return VerifierKey.make(self.origin, self.key.public_key)


def continued(reader: LogReader, expected: Head, *, log: LogIdentity) -> Head:
    """The stored head, if it is ``expected`` or our key signed it as a continuation of that.

    Attack met: whoever can write to the database puts back an older state or another history and has us sign it.
    Raises ``LogError``: ``log-rolled-back``, ``log-head``, ``consistency-invalid``, and those of ``open_note``.
    """
    head = reader.head()
    if head == expected:
        return head
    if head.size <= expected.size or head.at < expected.at:
        raise LogError(
            "log-rolled-back",
            f"the log had {expected.size} entries, now it has {head.size}, or other ones",
            hint="keep this copy as evidence, compare it with another one, and tell the facility",
        )
    note = reader.checkpoint_of(head.size)
    if note is None or open_note(note, log.vkey) != Checkpoint(log.origin, head.size, head.frontier.root()):
        raise LogError(
            "log-head",
            f"the log's head at size {head.size} is not what was signed",
            hint="restore the signer's database from a backup, and keep this one as evidence",
        )
    if reader.entry(head.size - 1).chain != head.chain:
        raise LogError(
            "log-head",
            f"the chain value of the log's head is not that of entry {head.size - 1}",
            hint="restore the signer's database from a backup, and keep this one as evidence",
        )
    if expected.size:
        verify_consistency(
            first=expected.size,
            first_root=expected.frontier.root(),
            second=head.size,
            second_root=head.frontier.root(),
            proof=reader.consistency(expected.size, head.size),
        )
    return head


def verified_head(reader: LogReader, *, log: LogIdentity, expected: Head | None) -> Head:
    """The stored head, established from what is stored and signed; for start-up, in time logarithmic in the log's size.

    1. the head is ``expected``, if there is one, or was signed by our key as a continuation of it;
    2. there are exactly as many entries as it says, and no checkpoint of a longer log;
    3. the stored tiles, read again, have that root;
    4. the entries of the last tile have their hashes and continue the chain.

    Raises ``LogError``. That older entries are intact is for ``certauth audit verify`` to say.
    """
    # 1
    empty = empty_head(log.origin)
    head = continued(reader, expected or empty, log=log)
    # 2
    if reader.size() != head.size:
        raise LogError(
            "log-head",
            f"the log's head says {head.size} entries, {reader.size()} are stored",
            hint="restore the signer's database from a backup, and keep this one as evidence",
        )
    newest = reader.checkpoint()
    if newest != reader.checkpoint_of(head.size):
        raise LogError(
            "log-rolled-back",
            "a checkpoint of a longer log was signed",
            hint="keep this copy as evidence, compare it with another one, and tell the facility",
        )
    # 3
    if root_of(head.size, reader.nodes(head.size)) != head.frontier.root():
        raise LogError(
            "log-head",
            "the stored tiles do not have the root that was signed",
            hint="restore the signer's database from a backup, and keep this one as evidence",
        )
    # 4
    first = max(0, head.size - 1) // tiles.WIDTH * tiles.WIDTH
    value = reader.entry(first - 1).chain if first else empty.chain
    for entry in reader.entries(first):
        value = chain.next_chain(value, leaf_hash(entry.body))
        if entry.leaf != leaf_hash(entry.body) or entry.chain != value:
            raise LogError(
                "log-entry-altered",
                f"entry {entry.index} is not the one that was written",
                hint="keep this copy as evidence, compare it with another one, and tell the facility",
            )
    return head


def empty_head(origin: str) -> Head:
    """The head of a log without entries."""
    return Head(frontier=Frontier(), chain=chain.start(origin), at=0)


def head_columns(head: Head) -> Columns:
    """A head as its row."""
    return {"size": head.size, "chain": head.chain, "frontier": head.frontier.to_bytes(), "at": head.at}


def entry_time(head: Head, now: datetime) -> datetime:
    """The time of the next entries: never before the newest one; ``StoreError`` (``clock-behind``) if the clock fell back."""
    newest = _EPOCH + head.at * _MICROSECOND
    if now < newest - MAX_CLOCK_STEP:
        raise StoreError(
            "clock-behind",
            f"the clock says {now:%Y-%m-%dT%H:%M:%SZ}, but the log was written at {newest:%Y-%m-%dT%H:%M:%SZ}",
            hint="correct the clock",
        )
    return max(now, newest)


def microseconds(moment: datetime) -> int:
    """Microseconds since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND
