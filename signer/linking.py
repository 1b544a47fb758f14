"""A person's second login: linked by themselves, and only from a session that their first one began.

1. The session is a certificate that was issued to a person after a login of a few minutes ago. A thief of a key that has
   been in use for hours cannot make their visit permanent with a login of their own.
2. The proof of the new login is bound to the key of that very certificate. So nobody's login is linked by accident, or by
   somebody who got hold of a proof made for another key.
3. A login that leads to anybody leads there for good, and one that the facility's rules would turn away is not linked.
4. The link is recorded before it works, with who made it.

What is linked is another way to prove who one is, worth what its own provider and rules make it. It brings no rights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, assert_never

import structlog
from pydantic import BaseModel, ConfigDict, Field

from certauth.bundles import VerifiedPeer
from certauth.clock import Clock
from certauth.encoding import canonical_json
from certauth.enrolment import Address, Enrolment, Login
from certauth.errors import RequestError
from certauth.identity import ProofKind, VerifiedIdentity
from certauth.identity.mapping import Admission, NotAdmitted, Rule, admit
from certauth.issuance import Refusal
from certauth.names import Kind
from certauth.requests import parse_csr
from signer import entries
from signer.changing import change
from signer.disclosing import login_members
from signer.ledger import Replay, Submission
from signer.proving import Proving
from signer.recording import Issued, Recorder
from signer.rows import LoginRow
from signer.schemas import Proof, RequestId
from signer.standing import Standing
from signer.store import Store

RECENT: Final = timedelta(minutes=15)
"""How long after a login another one can be linked to it."""
MAX_LOGINS: Final = 8

log = structlog.get_logger("signer")


class LinkBody(BaseModel):
    """``POST /v1/links``: a request signed by the key of the connection's certificate, and the proof bound to that key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    csr: Annotated[str, Field(max_length=32_768)]
    proof: Proof
    request_id: RequestId | None = None


class Linking:
    """Links logins. Holds no state of its own."""

    def __init__(
        self,
        *,
        rules: Mapping[str, Sequence[Rule]],
        store: Store,
        recorder: Recorder,
        proving: Proving,
        standing: Standing,
        clock: Clock,
    ) -> None:
        """``rules`` are by the id of their issuer."""
        self._rules = rules
        self._store = store
        self._recorder = recorder
        self._proving = proving
        self._standing = standing
        self._clock = clock

    async def link(self, body: LinkBody, *, peer: VerifiedPeer, address: Address | None, request_id: str) -> Issued:
        """The login of ``body`` leads to ``peer`` from now on.

        Raises ``RequestError``, ``ProofError``, ``Refused`` (``not-a-person``, ``login-not-recent``, ``login-taken``,
        ``too-many-logins``, ``not-admitted``, ``not-enrolled``, ``principal-disabled``, ``enrolment-ended``,
        ``address-not-allowed``), ``UnavailableError`` or ``StoreError``; nothing is linked then.
        """
        now = self._clock()
        request = parse_csr(body.csr)
        if request.spki != peer.spki:
            raise RequestError(
                "key-mismatch",
                "the request is for another key than that of your certificate",
                hint="make request and proof with the key with which you are connected",
            )
        refusal = self._session(peer, address, now)
        if refusal is not None:
            raise await self._recorder.refused(refusal, operation="link", peer=peer)
        identity = await self._proving.identity(body.proof, request)
        refusal = self._login(identity, peer)
        if refusal is not None:
            raise await self._recorder.refused(refusal, operation="link", peer=peer)
        response: dict[str, object] = {"principal": str(peer.principal), "issuer": identity.issuer}
        submission = self._submission(identity, peer, at=now, request_id=request_id, response=canonical_json(response))
        return await self._recorder.issue(submission, response, request_id=request_id)

    def _session(self, peer: VerifiedPeer, address: Address | None, now: datetime) -> Refusal | None:
        """Why nothing can be linked on this connection, if so."""
        if peer.principal.kind is not Kind.USER:
            return _NOT_A_PERSON
        enrolment = self._standing.enrolment(peer.principal)
        if (refusal := _suspended(enrolment, address, now)) is not None:
            return refusal
        current = self._store.certificate(peer.fingerprint)
        if current is None or now - current.row.session_at > RECENT:
            return _NOT_RECENT
        return _TOO_MANY if enrolment is not None and len(enrolment.logins) >= MAX_LOGINS else None

    def _login(self, identity: VerifiedIdentity, peer: VerifiedPeer) -> Refusal | None:
        """Why this login cannot become the peer's, if so."""
        if identity.kind not in {ProofKind.ID_TOKEN, ProofKind.ACCESS_TOKEN}:
            return _NOT_A_PERSON
        if self._store.enrolment(issuer=identity.issuer, subject=identity.subject) is not None:
            return _TAKEN
        admission = admit(self._rules.get(identity.issuer_id, ()), identity)
        match admission:
            case NotAdmitted(reason, _):
                log.info("login.not-admitted", issuer=identity.issuer_id, reason=reason, proof=identity.proof_digest.hex())
                return _NOT_ADMITTED
            case Admission(subject=subject):
                # A rule that calls this login somebody else here has the last word: it may be waiting for that very person.
                foreign = subject is not None and subject != f"{peer.principal.kind}/{peer.principal.id}"
                return _TAKEN if foreign else None
            case _:
                assert_never(admission)

    def _submission(
        self, identity: VerifiedIdentity, peer: VerifiedPeer, *, at: datetime, request_id: str, response: bytes
    ) -> Submission:
        login = Login(identity.issuer, identity.subject)
        by = str(peer.principal)
        act = change(
            action="link",
            principal=peer.principal,
            by=by,
            why="linked by themselves",
            rows=(LoginRow(principal=peer.principal, login=login, by=by, at=at),),
            terms={"logins": login_members([login])},
        )
        return Submission(
            request_id=request_id,
            digest=entries.digest("link", peer.fingerprint, identity.proof_digest),
            event=act.event,
            rows=act.rows,
            replay=Replay(key=identity.proof_digest, until=identity.replay_until),
            response=response,
            grantee=peer.principal,
            holder=peer,
        )


def _suspended(enrolment: Enrolment | None, address: Address | None, now: datetime) -> Refusal | None:
    """Whoever gets nothing at all just now links nothing either."""
    if enrolment is None:
        return Refusal("not-enrolled", "you are not enrolled here", "ask the facility's administrator to enrol you")
    if enrolment.disabled:
        return Refusal("principal-disabled", "your enrolment is disabled", "ask the facility's administrator why")
    if enrolment.expires_at is not None and now >= enrolment.expires_at:
        return Refusal("enrolment-ended", "your enrolment has ended", "have it renewed by the facility's administrator")
    if enrolment.networks and not any(address in network for network in enrolment.networks if address is not None):
        return Refusal("address-not-allowed", "you may not ask from this address", "ask from a network your enrolment lists")
    return None


_NOT_A_PERSON = Refusal(
    "not-a-person", "only a person links a login, and only one of a person", "machines have keys: certauth signer service key"
)
_NOT_RECENT = Refusal(
    "login-not-recent",
    f"your own login is more than {int(RECENT.total_seconds()) // 60} minutes ago",
    "log in with the login you have, then link the other one at once",
)
_TAKEN = Refusal(
    "login-taken",
    "this login leads to somebody already, or is meant for another name",
    "ask the facility's administrator: certauth signer user list",
)
_TOO_MANY = Refusal(
    "too-many-logins", f"a person has at most {MAX_LOGINS} logins", "have one removed: certauth signer user unlink"
)
_NOT_ADMITTED = Refusal(
    "not-admitted",
    "the rules of this facility do not admit this login",
    "its administrator can see why in the signer's log, or with: certauth signer issuer explain",
)
