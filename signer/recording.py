"""Record, then release: what every act of the service ends with, whether it grants or refuses."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from certauth.audit import record
from certauth.bundles import VerifiedPeer
from certauth.clock import Clock
from certauth.errors import Refused
from certauth.identity import VerifiedIdentity
from certauth.issuance import Refusal
from signer import entries
from signer.handoff import Handoff
from signer.ledger import Ledger, Submission
from signer.rows import StoreRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What leaves the service: the members of the response, the receipt among them."""

    body: dict[str, object]
    log_index: int


class Recorder:
    """Makes acts durable. Holds no state of its own."""

    def __init__(self, *, ledger: Ledger, clock: Clock, entropy: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._handoff = Handoff(ledger)
        self._clock = clock
        self._entropy = entropy

    async def issue(self, submission: Submission, response: dict[str, object], *, request_id: str) -> Issued:
        """Wait until the submission is durable, and say what came of it; only then may anything leave.

        Raises what the ledger does; nothing was granted then.
        """
        committed = await self._handoff.record(submission)
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
        rows: tuple[StoreRow, ...] = (),
    ) -> Refused:
        """Record a refusal of somebody we know; the error to raise once that is durable."""
        event = record.Denied(
            operation=operation,
            code=refusal.code,
            principal=peer.principal if peer else None,
            issuer=identity.issuer if identity else None,
            subject=self.commit("sub", identity.subject) if identity else None,
            peer=peer.fingerprint if peer else None,
            proof_digest=identity.proof_digest.hex() if identity else None,
        )
        # One entry an hour for a login refused for one reason, one a minute for a certificate: repeating a refused request must
        # not let the log grow. Not the client's request id, which it may use again once the reason is gone.
        who = f"{identity.issuer} {identity.subject}" if identity else peer.fingerprint if peer else ""
        who = f"{who} {self._hour() if identity else self._minute()}"
        digest = entries.digest("deny", operation, refusal.code, who)
        denial = Submission(request_id=entries.own_id("deny", digest), digest=digest, event=event, rows=rows, response=b"{}")
        await self._handoff.record(denial)
        hint = refusal.hint
        if refusal.code == "not-enrolled" and identity is not None:
            hint = f"ask the facility to enrol issuer {identity.issuer} subject {identity.subject}"
        return Refused(refusal.code, refusal.reason, hint=hint)

    def _hour(self) -> int:
        return int(self._clock().timestamp()) // 3600

    def _minute(self) -> int:
        return int(self._clock().timestamp()) // 60

    def commit(self, name: str, value: str) -> record.Commitment:
        """A commitment to personal data, freshly salted."""
        return record.commit(name, value, salt=self._entropy(record.SALT_BYTES))
