"""Record, then release: what every act of the service ends with, whether it grants or refuses."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypedDict

import structlog

from certauth.audit import record
from certauth.bundles import VerifiedPeer
from certauth.clock import Clock
from certauth.errors import ProofError, Refused
from certauth.identity import VerifiedIdentity
from certauth.issuance import Refusal
from signer import entries
from signer.handoff import Handoff
from signer.ledger import Ledger, Submission
from signer.rows import StoreRow

log = structlog.get_logger("signer")

MAX_REFUSED: Final = 1000
"""Logins at one provider, refused for one reason, that have an entry of their own in an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What leaves the service: the members of the response, the receipt among them."""

    body: dict[str, object]
    log_index: int


class _Refused:
    """Which logins were refused in this hour, by code and provider."""

    def __init__(self) -> None:
        self._hour = -1
        self._logins: dict[tuple[str, str], set[bytes]] = {}

    def has_room(self, code: str, identity: VerifiedIdentity, *, hour: int) -> bool:
        """Whether the refusal of this login has an entry of its own; remembers it then."""
        if hour != self._hour:
            self._hour, self._logins = hour, {}
        known = self._logins.setdefault((code, identity.issuer), set())
        login = hashlib.sha256(identity.subject.encode("utf-8", "surrogatepass")).digest()
        if login not in known and len(known) >= MAX_REFUSED:
            return False
        known.add(login)
        return True


class _Proof(TypedDict, total=False):
    proof: str
    binding: str
    proof_digest: str


def _proof(identity: VerifiedIdentity | None, peer: VerifiedPeer | None) -> _Proof:
    """How they proved who they are, as the entry of a grant says it."""
    if identity is not None:
        digest = identity.proof_digest.hex()
        return _Proof(proof=str(identity.kind), binding=str(identity.binding), proof_digest=digest)
    if peer is not None:
        return _Proof(proof="certificate", binding="possession", proof_digest=peer.fingerprint)
    return _Proof()


class Recorder:
    """Makes acts durable. ``_refused`` is whose refusals were recorded this hour; touched by the event loop only.

    ``_names`` is a key of this process alone, for the request ids of refusals: these are in the log, and a plain hash of a
    login would tell everybody who tries enough subjects whose it is, beside a salted commitment and after its deletion.
    """

    def __init__(self, *, ledger: Ledger, clock: Clock, entropy: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._handoff = Handoff(ledger)
        self._clock = clock
        self._entropy = entropy
        self._names = entropy(32)
        self._refused = _Refused()

    async def write(self, submission: Submission) -> None:
        """Wait until the submission is durable; nothing leaves. Raises what the ledger does."""
        await self._handoff.record(submission)

    async def issue(self, submission: Submission, response: dict[str, object], *, request_id: str) -> Issued:
        """Wait until the submission is durable, and say what came of it; only then may anything leave.

        Raises what the ledger does; nothing was granted then.
        """
        try:
            committed = await self._handoff.record(submission)
        except ProofError as error:  # it was used before: which one, so that both uses can be found
            used = None if submission.replay is None else submission.replay.key.hex()
            log.info("proof.refused", code=error.code, proof=used, reason=error.message)
            raise
        if committed.response is not None:  # a repetition is answered with what was granted the first time
            response = json.loads(committed.response)
        body = response | {"request_id": request_id, "receipt": committed.receipt.to_dict()}
        return Issued(body=body, log_index=committed.index)

    async def refused(
        self,
        refusal: Refusal,
        *,
        operation: str,
        identity: VerifiedIdentity | None = None,
        peer: VerifiedPeer | None = None,
        rule: str | None = None,
        rows: tuple[StoreRow, ...] = (),
    ) -> Refused:
        """Record a refusal of somebody we know; the error to raise once that is durable. ``rule``: as a grant would name it."""
        # One entry an hour for a login refused for one reason, one a minute for a certificate: repeating a refused request must
        # not let the log grow. Not the client's request id, which it may use again once the reason is gone. And of many logins
        # at one provider so many an hour have an entry each, the rest one for all: who makes accounts there must not either.
        who: tuple[str, ...]
        hint, told = refusal.hint, identity
        if refusal.code == "not-enrolled" and identity is not None:
            hint = f"ask the facility to enrol issuer {identity.issuer} subject {identity.subject}"
        if identity is None:
            who = ("peer", peer.fingerprint if peer else "", str(self._minute()))
        elif rows or self._refused.has_room(refusal.code, identity, hour=self._hour()):
            who = ("login", identity.issuer, identity.subject, str(self._hour()))
        else:
            who, told, rule = ("others", identity.issuer, str(self._hour())), None, None
        event = record.Denied(
            operation=operation,
            code=refusal.code,
            principal=peer.principal if peer else None,
            issuer=identity.issuer if identity else None,
            subject=self.commit("sub", told.subject) if told else None,
            peer=peer.fingerprint if peer else None,
            rule=rule,
            **_proof(told, peer),
        )
        digest = hmac.digest(self._names, entries.digest("deny", operation, refusal.code, *who), "sha256")
        denial = Submission(request_id=entries.own_id("deny", digest), digest=digest, event=event, rows=rows, response=b"{}")
        await self._handoff.record(denial)
        return Refused(refusal.code, refusal.reason, hint=hint)

    def _hour(self) -> int:
        return int(self._clock().timestamp()) // 3600

    def _minute(self) -> int:
        return int(self._clock().timestamp()) // 60

    def commit(self, name: str, value: str) -> record.Commitment:
        """A commitment to personal data, freshly salted."""
        return record.commit(name, value, salt=self._entropy(record.SALT_BYTES))
