"""Ending what somebody has: the rows that withdraw a principal, the certificates in their hands, and their agents.

A principal is withdrawn as of a moment. That covers each certificate they show and each token they asked for. It does not
cover somebody else's token that went through their hands: such a token names the certificate in the middle by its fingerprint
alone, and no door knows whose it is. So the certificates that such a token may name are withdrawn beside the principal.

Looking and recording are two steps, and somebody may be given a certificate, or make an agent, between them. After the record
nobody can, so one looks a second time then (``completing``).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from certauth.audit import record
from certauth.enrolment import Enrolment
from certauth.errors import UsageError
from certauth.names import Principal
from certauth.revocation import MAX_ENTRIES, MAX_REASON, RevocationKind, Revoked
from signer.agents_terms import lives
from signer.rows import Change, EnrolledPrincipal, EnrolmentRow, RevocationRow, StoreRow
from signer.store import Store
from signer.submission import Submission

MONTH: Final = timedelta(days=32)
"""Longer than any credential lives: a principal's revocation may be forgotten after it."""
HANDED_ON: Final = timedelta(hours=24)
"""How long after the end of a certificate a token may live that went through its holder's hands: a token ends with the
certificate for which it was minted, and a person's lasts a day at most.
"""
MAX_CERTIFICATES: Final = 500
"""Certificates that one entry of the log withdraws one by one with their principals, the newest ones."""
MAX_OF_OWNER: Final = 250
"""Certificates of agents that their owner, by stopping them, may have in the feed: so that one person can neither use up the
room for others, nor all that they may withdraw themselves.
"""
_ROOM: Final = MAX_ENTRIES * 4 // 5
"""Entries of the feed beyond which no more are added that way: what is left is for withdrawals that somebody asks for."""


def everything_of(store: Store, principal: Principal, *, by: str, why: str, at: datetime) -> tuple[RevocationRow, ...]:
    """Whatever was issued to ``principal`` until now is dead, and what others handed on through their hands.

    ``UsageError`` (``revocation-invalid``) for a reason that has no place in the feed.
    """
    return _everything_of(store, [principal], by=by, why=why, at=at)


def ending(store: Store, agent: EnrolledPrincipal, *, reason: str, by: str, at: datetime) -> tuple[StoreRow, ...]:
    """The rows with which its owner ends one agent: it is disabled, and every credential it has is withdrawn."""
    before = store.living_revocations([RevocationKind.CERTIFICATE], by=by, now=int(at.timestamp()))
    return _ending(store, [agent], reason=reason, by=by, at=at, most=max(0, MAX_OF_OWNER - before))


def ending_all(
    store: Store, agents: Sequence[EnrolledPrincipal], *, reason: str, by: str, at: datetime
) -> tuple[StoreRow, ...]:
    """The rows with which an administrator ends agents, within one bound on what is added to the feed."""
    return _ending(store, agents, reason=reason, by=by, at=at)


def ending_with(store: Store, owner: Principal, *, reason: str, by: str, at: datetime) -> tuple[StoreRow, ...]:
    """The rows that end all living agents of ``owner``: for the entry that disables the owner, or withdraws all they have.

    A thief with somebody's certificate may have made agents; withdrawing the certificate alone would leave those to the thief.
    """
    living = [one for one in store.owned_by(owner) if lives(one.enrolment, at)]
    return _ending(store, living, reason=reason, by=by, at=at)


def completing(store: Store, entry: Revoked, *, by: str, at: datetime, recorded: int) -> Submission | None:
    """What was missed when the principal of ``entry`` was withdrawn by log entry ``recorded``, as a submission, if anything.

    That are agents that live, and certificates that were recorded before. What they get since is theirs to keep.
    """
    principal = Principal.parse(entry.value)
    agents = ending_with(store, principal, reason=entry.reason, by=by, at=at)
    late = _certificates(store, [principal], reason=entry.reason, by=by, at=at, until=recorded)
    if not agents and not late:
        return None
    return Submission(
        request_id=f"complete-{secrets.token_hex(12)}",
        digest=hashlib.sha256(f"complete {entry.value} {recorded}".encode()).digest(),
        event=record.CredentialRevoked(
            credential=str(entry.kind), value=entry.value, reason=entry.reason, by=by, before=entry.before
        ),
        rows=(*late, *agents),
    )


def left_out(store: Store, principal: Principal, *, at: datetime, recorded: int) -> bool:
    """Whether there are more certificates than could be withdrawn one by one with ``principal``, by entry ``recorded``."""
    return bool(_in_hand(store, [principal], at=at, until=recorded, limit=1))


def revoked(*, kind: RevocationKind, value: str, expires_at: int, reason: str, at: int, before: int | None = None) -> Revoked:
    """An entry of the feed; ``UsageError`` (``revocation-invalid``) for a reason or value that has no place there."""
    try:
        if not reason.isprintable():
            raise ValueError("the reason has a character that cannot be printed")
        return Revoked(kind=kind, value=value, before=before, expires_at=expires_at, reason=reason, at=at)
    except ValueError as error:
        raise UsageError(
            "revocation-invalid", str(error), hint=f"a reason is printable text of at most {MAX_REASON} characters"
        ) from error


def certificate_end(not_after: datetime) -> int:
    """Until when the withdrawal of a certificate must be known, POSIX seconds: tokens that it handed on may outlive it."""
    return int((not_after + HANDED_ON).timestamp())


def _ending(
    store: Store, agents: Sequence[EnrolledPrincipal], *, reason: str, by: str, at: datetime, most: int | None = None
) -> tuple[StoreRow, ...]:
    principals = [one.enrolment.principal for one in agents]
    disabling = [_disabled(one, by=by, at=at) for one in agents]
    return (*disabling, *_everything_of(store, principals, by=by, why=reason[:MAX_REASON], at=at, most=most))


def _disabled(agent: EnrolledPrincipal, *, by: str, at: datetime) -> EnrolmentRow:
    """The row that disables an agent and leaves its terms."""
    enrolment = Enrolment(principal=agent.enrolment.principal, disabled=True)
    return EnrolmentRow(enrolment=enrolment, display=agent.display, by=by, at=at, change=Change.STATE)


def _everything_of(
    store: Store, principals: list[Principal], *, by: str, why: str, at: datetime, most: int | None = None
) -> tuple[RevocationRow, ...]:
    now, end = int(at.timestamp()), int((at + MONTH).timestamp())
    kind = RevocationKind.PRINCIPAL
    named = [revoked(kind=kind, value=str(one), before=now, expires_at=end, reason=why, at=now) for one in principals]
    rows = tuple(RevocationRow(revoked=one, by=by) for one in named)
    return (*rows, *_certificates(store, principals, reason=why, by=by, at=at, most=most))


def _certificates(
    store: Store,
    principals: list[Principal],
    *,
    reason: str,
    by: str,
    at: datetime,
    until: int | None = None,
    most: int | None = None,
) -> tuple[RevocationRow, ...]:
    """Each certificate of theirs that a living token may name; with ``until`` those recorded before that log entry.

    The newest ``most`` of them, where that is less than the bound for everybody.
    """
    now = int(at.timestamp())
    limit = min(MAX_CERTIFICATES if most is None else most, MAX_CERTIFICATES, max(0, _ROOM - store.count_revocations(now=now)))
    kind = RevocationKind.CERTIFICATE
    entries = [
        revoked(kind=kind, value=fingerprint, expires_at=certificate_end(not_after), reason=reason, at=now)
        for fingerprint, not_after in _in_hand(store, principals, at=at, until=until, limit=limit)
    ]
    return tuple(RevocationRow(revoked=entry, by=by) for entry in entries)


def _in_hand(
    store: Store, principals: list[Principal], *, at: datetime, until: int | None, limit: int
) -> tuple[tuple[str, datetime], ...]:
    return store.certificates_in_hand(principals, ended_after=at - HANDED_ON, known_for=HANDED_ON, until=until, limit=limit)
