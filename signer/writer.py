"""One batch of grants as one transaction, everything but its BEGIN and COMMIT.

1. the head is read inside the transaction: another process may have moved it, and it must continue what we signed before;
2. requests already recorded, proofs already used and principals no longer enabled are looked up, for all at once;
3. each submission is accepted or refused on its own; a bad one never spoils its neighbours;
4. the tree and the chain are extended in memory, then entries, tiles, rows and replay keys are inserted;
5. the entries are read back and hashed again before anything about them is signed: a log once died of a bit that changed
   between the hash and the disk (Certificate Transparency, Yeti 2022);
6. the head moves, on condition that it is still where it was read, and the new checkpoint is signed and stored;
7. receipts are made from what step 4 computed.

Whoever called commits, and only then answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Table, bindparam, delete, insert, or_, select, update

from certauth.audit import chain, record, tiles
from certauth.audit.checkpoint import Checkpoint, sign
from certauth.audit.tree import Extension, extend, leaf_hash
from certauth.bundles import VerifiedPeer
from certauth.errors import CertauthError, LogError, ProofError, Refused, RequestError, RevokedError
from signer.batch import Accepted, Verdict, Withdrawn, answer, as_committed, as_of, codes_of, used_up
from signer.key_index import KeyIndexRow
from signer.log_head import LogIdentity, continued, entry_time, head_columns, microseconds
from signer.log_reader import Head, LogReader, Recorded
from signer.reading import revocation_from
from signer.row_changes import change, enrol, replace_keys
from signer.rows import (
    ApplicationRow,
    CertificateRow,
    ClientKeyRemoved,
    ClientKeyRow,
    CodeRow,
    CodeUsed,
    CodeWithdrawn,
    Columns,
    EnrolmentRow,
    Erasure,
    LoginRemoved,
    LoginRow,
    RevocationRow,
    TokenRow,
)
from signer.submission import Committed, Result, Submission
from signer.tables import (
    CERTIFICATE,
    CLIENT_KEY,
    CODE,
    LOG_CHECKPOINT,
    LOG_DISCLOSURE,
    LOG_ENTRY,
    LOG_HEAD,
    LOG_TILE,
    LOGIN,
    PRINCIPAL,
    REPLAY,
    REQUEST,
    REVOCATION,
    TOKEN,
    metadata,
)

_PRUNE_LEAST: Final = 32

# Statements are built once: building one costs more than running it.
_OWNER = PRINCIPAL.alias("owner")
_USED: Final = select(REPLAY.c.key).where(REPLAY.c.key.in_(bindparam("keys", expanding=True)))
_ENABLED: Final = select(PRINCIPAL.c.principal).where(
    PRINCIPAL.c.principal.in_(bindparam("principals", expanding=True)),
    PRINCIPAL.c.disabled_at.is_(None),
    # An agent is no more enabled than whoever it works for.
    or_(PRINCIPAL.c.owner.is_(None), PRINCIPAL.c.owner.in_(select(_OWNER.c.principal).where(_OWNER.c.disabled_at.is_(None)))),
)
_UNUSED: Final = select(CODE.c.digest).where(CODE.c.digest.in_(bindparam("digests", expanding=True)), CODE.c.used_at.is_(None))
_REVOKED: Final = select(REVOCATION).where(REVOCATION.c.value.in_(bindparam("names", expanding=True)))
_EXPIRED = select(REPLAY.c.key).where(REPLAY.c.until < bindparam("now")).order_by(REPLAY.c.until).limit(bindparam("at_most"))
_PRUNE: Final = delete(REPLAY).where(REPLAY.c.key.in_(_EXPIRED))
_MOVE_HEAD: Final = update(LOG_HEAD).where(LOG_HEAD.c.id == 1, LOG_HEAD.c.size == bindparam("read_size"))
_INSERT: Final = {table: insert(table) for table in metadata.sorted_tables}
_TABLES: Final = {
    CertificateRow: CERTIFICATE,
    TokenRow: TOKEN,
    RevocationRow: REVOCATION,
    LoginRow: LOGIN,
    ClientKeyRow: CLIENT_KEY,
    CodeRow: CODE,
}
"""Where rows go that are only ever inserted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """What a batch came to: one result per submission in their order, and the head to expect next time."""

    results: tuple[Result, ...]
    head: Head


class _Admission:
    """Step 3: what becomes of each submission, given what is in the database and what the batch has brought so far."""

    def __init__(self, reader: LogReader, connection: Connection, batch: Sequence[Submission]) -> None:
        self._known = reader.recorded([submission.request_id for submission in batch])
        self._used = _used(connection, [submission.replay.key for submission in batch if submission.replay])
        self._enabled = _enabled(connection, {str(submission.grantee) for submission in batch if submission.grantee})
        self._unused = _unused(connection, [code.digest for submission in batch for code in codes_of(submission)])
        self._withdrawn = _withdrawn(connection, [submission.holder for submission in batch if submission.holder])

    def admit(self, submission: Submission, *, seq: int, at: datetime, encode: Callable[[Submission], bytes]) -> Verdict:
        """Accept as entry ``seq`` at the time ``at``, or recognise a repetition, or refuse."""
        earlier = self._known.get(submission.request_id)
        if earlier is not None:
            if earlier.digest == submission.digest and earlier.response is not None:
                return earlier
            return RequestError(
                "request-id-used",
                f"request id {submission.request_id!r} was used before, and its answer cannot be given again",
                hint="ask again under a new request id",
            )
        if submission.replay is not None and submission.replay.key in self._used:
            return ProofError("replayed", "this proof of identity was used before", hint="log in again")
        if submission.replay is not None and at >= submission.replay.until:
            # Whether it was used may be forgotten by now. The log's time never goes back, whatever the clock did since.
            return ProofError("proof-expired", "the proof has expired", hint="get a new one: log in again")
        codes = codes_of(submission)
        if any(code.digest not in self._unused for code in codes):
            return used_up(submission)
        if submission.grantee is not None and str(submission.grantee) not in self._enabled:
            return Refused("principal-disabled", f"{submission.grantee} is not, or no longer, enabled")
        if submission.holder is not None and self._withdrawn.certificate(submission.holder) is not None:
            return RevokedError("certificate-revoked", "the certificate was withdrawn", hint="log in again")
        try:
            body = encode(submission)
        except CertauthError as error:
            return error
        if submission.replay is not None:
            self._used.add(submission.replay.key)
        self._unused -= {code.digest for code in codes}
        self._enabled -= {
            str(row.enrolment.principal) for row in submission.rows if isinstance(row, EnrolmentRow) and row.enrolment.disabled
        }
        # What this one withdraws, the rest of the batch must already know.
        self._withdrawn.update(row.revoked for row in submission.rows if isinstance(row, RevocationRow))
        self._known[submission.request_id] = Recorded(
            request_id=submission.request_id, digest=submission.digest, response=submission.response, seq=seq
        )
        return Accepted(submission=submission, seq=seq, body=body)


def append(connection: Connection, batch: Sequence[Submission], *, log: LogIdentity, expected: Head, now: datetime) -> Appended:
    """Do the steps above inside the transaction that ``connection`` is in, which must hold the write lock.

    ``expected`` is the head this process signed or verified last. The head returned equals it if nothing is to be committed.
    Raises ``LogError`` if the stored log is not a continuation of it, ``Conflict`` or an SQLAlchemy error if a row cannot be
    inserted; the transaction must then be rolled back.
    """
    reader = LogReader(connection)
    # 1
    head = continued(reader, expected, log=log)
    at = entry_time(head, now)
    # 2
    admission = _Admission(reader, connection, batch)

    # 3
    def encode(submission: Submission) -> bytes:
        return record.encode(submission.event, origin=log.origin, request_id=submission.request_id, at=at, source=log.source)

    verdicts: list[Verdict] = []
    accepted: list[Accepted] = []
    for asked in batch:
        submission = as_of(asked, at)
        verdict = admission.admit(submission, seq=head.size + len(accepted), at=at, encode=encode)
        verdicts.append(verdict)
        if isinstance(verdict, Accepted):
            accepted.append(verdict)
    if not accepted:
        old: dict[int, Committed] = {}
        return Appended(results=tuple(answer(verdict, reader, old) for verdict in verdicts), head=head)
    # 4
    leaves = [leaf_hash(item.body) for item in accepted]
    chains = chain.extend_chain(head.chain, leaves)
    extension = extend(head.frontier, leaves)
    entries = [
        {"seq": item.seq, "leaf": leaf, "chain": value, "body": item.body}
        for item, leaf, value in zip(accepted, leaves, chains, strict=True)
    ]
    connection.execute(_INSERT[LOG_ENTRY], entries)
    _insert_rows(connection, accepted)
    _prune(connection, now=now, at_most=max(_PRUNE_LEAST, 2 * len(accepted)))
    _store_tiles(connection, reader, extension)
    # 5
    _reread(reader, entries, start=head.size)
    # 6
    moved = Head(frontier=extension.frontier, chain=chains[-1], at=microseconds(at))
    note = _move_head(connection, head, moved, log=log)
    # 7
    committed = {item.seq: as_committed(item, leaf, extension, note) for item, leaf in zip(accepted, leaves, strict=True)}
    return Appended(results=tuple(answer(verdict, reader, committed) for verdict in verdicts), head=moved)


def _used(connection: Connection, keys: list[bytes]) -> set[bytes]:
    if not keys:
        return set()
    return set(connection.execute(_USED, {"keys": keys}).scalars())


def _unused(connection: Connection, digests: list[str]) -> set[str]:
    if not digests:
        return set()
    return set(connection.execute(_UNUSED, {"digests": digests}).scalars())


def _enabled(connection: Connection, principals: set[str]) -> set[str]:
    if not principals:
        return set()
    return set(connection.execute(_ENABLED, {"principals": list(principals)}).scalars())


def _withdrawn(connection: Connection, peers: list[VerifiedPeer]) -> Withdrawn:
    if not peers:
        return Withdrawn(())
    names = {peer.fingerprint for peer in peers} | {str(peer.principal) for peer in peers}
    found = connection.execute(_REVOKED, {"names": list(names)}).mappings()
    return Withdrawn(revocation_from(row).row.revoked for row in found)


def _insert_rows(connection: Connection, accepted: Sequence[Accepted]) -> None:
    """Everything that is not the log itself, one statement per table."""
    inserts: dict[Table, list[Columns]] = {REQUEST: [], REPLAY: [], LOG_DISCLOSURE: []}
    for item in accepted:
        submission = item.submission
        inserts[REQUEST].append(
            {
                "request_id": submission.request_id,
                "digest": submission.digest,
                "response": submission.response,
                "seq": item.seq,
            }
        )
        if submission.replay is not None:
            until = math.ceil(submission.replay.until.timestamp())  # the memory never ends before the proof does
            inserts[REPLAY].append({"key": submission.replay.key, "until": until})
        whose = getattr(submission.event, "principal", None)
        for commitment in submission.event.commitments:
            inserts[LOG_DISCLOSURE].append(
                {
                    "seq": item.seq,
                    "digest": commitment.digest,
                    "principal": None if whose is None else str(whose),
                    "disclosure": commitment.disclosure,
                }
            )
        for row in submission.rows:
            match row:
                case EnrolmentRow():
                    enrol(connection, row)
                case CodeUsed() | CodeWithdrawn() | ApplicationRow() | LoginRemoved() | ClientKeyRemoved() | Erasure():
                    change(connection, row)
                case KeyIndexRow():
                    replace_keys(connection, row)
                case _:
                    inserts.setdefault(_TABLES[type(row)], []).append(row.columns(item.seq))
    for table, rows in inserts.items():
        if rows:
            connection.execute(_INSERT[table], rows)


def _prune(connection: Connection, *, now: datetime, at_most: int) -> None:
    """Forget some proofs that would be refused as expired anyway: a bounded number, yet more than a batch adds."""
    connection.execute(_PRUNE, {"now": int(now.timestamp()), "at_most": at_most})


def _store_tiles(connection: Connection, reader: LogReader, extension: Extension) -> None:
    """Store the tiles that became full, lowest level first: each level is made of the roots of the one below."""
    for tile in tiles.completed_tiles(extension.before, extension.frontier.size):
        data, root = reader.gather(tile), extension.read((tile.level + 1) * tiles.HEIGHT, tile.index)
        if tiles.subtree_root(data) != root:
            raise LogError("tile-malformed", f"the stored hashes under {tile.path()} are not those of the tree")
        connection.execute(_INSERT[LOG_TILE], {"level": tile.level, "idx": tile.index, "root": root, "data": data})


def _reread(reader: LogReader, written: Sequence[Columns], *, start: int) -> None:
    read = [
        {"seq": entry.index, "leaf": leaf_hash(entry.body), "chain": entry.chain, "body": entry.body, "stored": entry.leaf}
        for entry in reader.entries(start)
    ]
    if read != [entry | {"stored": entry["leaf"]} for entry in written]:
        raise LogError("log-entry-altered", "the database does not hold what was written to it; nothing was signed")


def _move_head(connection: Connection, head: Head, moved: Head, *, log: LogIdentity) -> str:
    """Store the new head and its signed checkpoint, if the head is still where it was read; return the note."""
    if connection.execute(_MOVE_HEAD, head_columns(moved) | {"read_size": head.size}).rowcount != 1:
        raise LogError("log-head", "the log's head moved under our lock")
    root = moved.frontier.root()
    note = sign(Checkpoint(log.origin, moved.size, root), key=log.key)
    connection.execute(_INSERT[LOG_CHECKPOINT], {"size": moved.size, "root": root, "note": note, "at": moved.at})
    return note
