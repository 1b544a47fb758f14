"""What becomes of the submissions of one batch: on their way into the log, and in what is answered. No database here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from certauth.audit import record
from certauth.audit.receipt import Receipt
from certauth.audit.tree import Extension, inclusion_proof, leaf_hash
from certauth.bundles import VerifiedPeer
from certauth.errors import CertauthError, ProofError, Refused
from certauth.revocation import RevocationSet, Revoked
from signer.log_reader import LogReader, Recorded
from signer.rows import CodeUsed, RevocationRow
from signer.submission import Committed, Outcome, Result, Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A submission on its way into the log."""

    submission: Submission
    seq: int
    body: bytes


Verdict = Accepted | Recorded | CertauthError


def as_of(submission: Submission, at: datetime) -> Submission:
    """A principal's revocation reaches to the moment it is recorded, not to the one at which somebody asked for it.

    Between the two a grant may be recorded, which a revocation dated earlier would miss.
    """
    if not any(isinstance(row, RevocationRow) and row.revoked.before is not None for row in submission.rows):
        return submission
    before = int(at.timestamp())
    rows = tuple(
        replace(row, revoked=replace(row.revoked, before=before))
        if isinstance(row, RevocationRow) and row.revoked.before is not None
        else row
        for row in submission.rows
    )
    event = submission.event
    if isinstance(event, record.CredentialRevoked) and event.before is not None:
        event = replace(event, before=before)
    return replace(submission, rows=rows, event=event)


def codes_of(submission: Submission) -> list[CodeUsed]:
    """The one-time codes that a submission uses up."""
    return [row for row in submission.rows if isinstance(row, CodeUsed)]


def used_up(submission: Submission) -> ProofError | Refused:
    """Between the decision and its record somebody else used the code, or it was withdrawn."""
    if submission.replay is not None and submission.replay.key in {bytes.fromhex(code.digest) for code in codes_of(submission)}:
        return ProofError("code-invalid", "this enrolment code was used or withdrawn meanwhile", hint="have a new one made")
    return Refused("invite-invalid", "this invitation was used or withdrawn meanwhile", hint="ask for a new one")


class Withdrawn:
    """The revocations that concern the certificates on whose connections a batch was asked for."""

    def __init__(self, entries: Iterable[Revoked]) -> None:
        self._entries = list(entries)

    def update(self, entries: Iterable[Revoked]) -> None:
        self._entries += entries

    def certificate(self, peer: VerifiedPeer) -> Revoked | None:
        """The entry that withdraws ``peer``'s certificate, by the same rules as every door's."""
        return RevocationSet.of(self._entries).certificate(peer) if self._entries else None


def as_committed(item: Accepted, leaf: bytes, extension: Extension, note: str) -> Committed:
    """The answer to a submission that has just been recorded, with its receipt against the new checkpoint ``note``."""
    proof = inclusion_proof(item.seq, extension.frontier.size, extension.read)
    receipt = Receipt(entry=item.body, index=item.seq, proof=proof, note=note)
    return Committed(index=item.seq, leaf_hash=leaf, receipt=receipt, outcome=Outcome.NEW, response=item.submission.response)


def answer(verdict: Verdict, reader: LogReader, committed: dict[int, Committed]) -> Result:
    """The answer to one submission; ``committed`` also remembers old receipts, for retries come in crowds."""
    match verdict:
        case Accepted(seq=seq):
            return committed[seq]
        case Recorded(seq=seq) if seq in committed:
            return replace(committed[seq], outcome=Outcome.REPEATED)
        case Recorded(seq=seq):
            committed[seq] = repeated(verdict, reader)
            return committed[seq]
        case error:
            return error


def repeated(recorded: Recorded, reader: LogReader) -> Committed:
    """The answer to a request that an earlier batch recorded, with a receipt against the newest checkpoint."""
    receipt = reader.receipt(recorded.seq)
    return Committed(
        index=recorded.seq,
        leaf_hash=leaf_hash(receipt.entry),
        receipt=receipt,
        outcome=Outcome.REPEATED,
        response=recorded.response,
    )
