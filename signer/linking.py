"""A person's second login: linked by themselves, and only from a session that their first one began.

1. The session is a certificate that was issued to a person after a login of a few minutes ago. A thief of a key that has
   been in use for hours cannot make their visit permanent with a login of their own.
2. The proof of the new login is bound to the key of that very certificate. So nobody's login is linked by accident, or by
   somebody who got hold of a proof made for another key.
3. A login that leads to anybody leads there for good, and one that the facility's rules would turn away is not linked.
4. A login whose provider is worth more than the session is not linked: who got in by the weaker login alone would have the
   stronger one for ever, and with it what the person may do only when more is known of them.
5. A session that began with a proof bound to no key links nothing: whoever got hold of that one token would have a way in
   for ever.
6. The link is recorded before it works, with who made it.

What is linked is another way to prove who one is, worth what its own provider and rules make it. It brings no rights.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, assert_never

import structlog
from pydantic import BaseModel, ConfigDict, Field

from certauth.audit import record
from certauth.bundles import VerifiedPeer
from certauth.clock import Clock
from certauth.encoding import canonical_json
from certauth.enrolment import Address, Login
from certauth.errors import RequestError, StoreError
from certauth.identity import Binding, ProofKind, VerifiedIdentity
from certauth.identity.mapping import Admission, NotAdmitted, Rule, admit
from certauth.issuance import Refusal, suspended
from certauth.names import Kind
from certauth.requests import parse_csr
from signer import entries
from signer.admitting import settled
from signer.changing import change
from signer.disclosing import login_members
from signer.ledger import Replay, Submission
from signer.proving import Proving
from signer.recording import Issued, Recorder
from signer.rows import ApplicationState, LoginRow, StoredCertificate
from signer.schemas import Proof, RequestId
from signer.standing import Standing
from signer.store import Store

RECENT: Final = timedelta(minutes=15)
"""How long after a login another one can be linked to it."""
MAX_LOGINS: Final = 8
_RENEWALS: Final = 64
"""Certificates of one session that are looked at: more than anybody has within ``RECENT``."""

log = structlog.get_logger("signer")


class LinkBody(BaseModel):
    """``POST /v1/links``: a request signed by the key of the connection's certificate, and the proof bound to that key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    csr: Annotated[str, Field(max_length=32_768)]
    proof: Proof
    request_id: RequestId | None = None


class Linking:
    """Links logins. ``_linking`` is held from the look to the record, so that the limit holds for parallel requests."""

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
        self._linking = asyncio.Lock()

    async def link(self, body: LinkBody, *, peer: VerifiedPeer, address: Address | None, request_id: str) -> Issued:
        """The login of ``body`` leads to ``peer`` from now on.

        Raises ``RequestError``, ``ProofError``, ``Refused`` (``not-a-person``, ``login-not-recent``, ``key-not-bound``,
        ``login-taken``, ``already-linked``, ``approval-denied``, ``too-many-linked-logins``, ``not-admitted``,
        ``session-too-weak``, ``session-unbound``, ``not-enrolled``, ``principal-disabled``, ``enrolment-ended``,
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
        identity = await self._proving.identity(body.proof, request, link=peer.principal)
        response: dict[str, object] = {"principal": str(peer.principal), "issuer": identity.issuer}
        submission = self._submission(identity, peer, at=now, request_id=request_id, response=canonical_json(response))
        async with self._linking:
            return await self._link(submission, identity, peer, response)

    async def _link(
        self, submission: Submission, identity: VerifiedIdentity, peer: VerifiedPeer, response: dict[str, object]
    ) -> Issued:
        refusal = None if self._is_known(submission) else self._login(identity, peer)
        if refusal is not None:
            raise await self._recorder.refused(refusal, operation="link", peer=peer)
        try:
            return await self._recorder.issue(submission, response, request_id=submission.request_id)
        except StoreError as error:
            if error.code != "store-conflict":
                raise
            # Somebody was quicker: the login leads there now.
            raise await self._recorder.refused(_TAKEN, operation="link", peer=peer) from error

    def _is_known(self, submission: Submission) -> bool:
        """Whether this very request was recorded before, so that its answer is to be given again."""
        with self._store.log() as reader:
            known = reader.recorded([submission.request_id]).get(submission.request_id)
        return known is not None and known.digest == submission.digest

    def _session(self, peer: VerifiedPeer, address: Address | None, now: datetime) -> Refusal | None:
        """Why nothing can be linked on this connection, if so."""
        if peer.principal.kind is not Kind.USER:
            return _NOT_A_PERSON
        enrolment = self._standing.enrolment(peer.principal)
        if enrolment is None:
            return _NOT_ENROLLED
        if (refusal := suspended(enrolment, address, now)) is not None:
            return refusal
        current = self._store.certificate(peer.fingerprint)
        if current is None or now - current.row.session_at > RECENT:
            return _NOT_RECENT
        return _UNBOUND if self._is_unbound(current) else None

    def _is_unbound(self, current: StoredCertificate) -> bool:
        """Whether the session of this certificate began with a proof that was bound to no key, as far as can be told.

        A renewal names the certificate before it. Of a session with more renewals than anybody needs, the beginning is not
        looked for.
        """
        found: StoredCertificate | None = current
        with self._store.log() as reader:
            for _ in range(_RENEWALS):
                if found is None:
                    return True
                match record.decode(reader.entry(found.seq).body):
                    case {"proof": {"kind": "certificate", "digest": str(before)}}:
                        found = self._store.certificate(before)
                    case {"proof": {"binding": str(binding)}}:
                        return binding == Binding.NONE
                    case _:
                        return True
        return True

    def _login(self, identity: VerifiedIdentity, peer: VerifiedPeer) -> Refusal | None:
        """Why this login cannot become the peer's, if so."""
        if identity.kind not in {ProofKind.ID_TOKEN, ProofKind.ACCESS_TOKEN}:
            return _NOT_A_PERSON
        if identity.binding is Binding.NONE:  # whoever got hold of somebody's token would take that person's login from them
            return _NOT_BOUND
        found = self._store.enrolment(issuer=identity.issuer, subject=identity.subject)
        if found is not None:
            return _ALREADY if found.principal == peer.principal else _TAKEN
        owner = self._store.enrolment_by_principal(peer.principal)
        if owner is None:
            return _NOT_ENROLLED
        if len(owner.logins) >= MAX_LOGINS:
            return _TOO_MANY
        # What the provider is worth, not this one login there: the next may be a stronger one.
        if min(identity.assurance, owner.assurance) > peer.assurance:
            return _TOO_WEAK
        earlier = self._store.application(Login(identity.issuer, identity.subject))
        if earlier is not None and earlier.state is ApplicationState.DENIED:
            return _DENIED
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
            rows=(
                LoginRow(principal=peer.principal, login=login, by=by, at=at),
                *settled(self._store.application(login), by=by, at=at),
            ),
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


_NOT_ENROLLED = Refusal("not-enrolled", "you are not enrolled here", "ask the facility's administrator to enrol you")
_NOT_A_PERSON = Refusal(
    "not-a-person", "only a person links a login, and only one of a person", "machines have keys: certauth signer service key"
)
_NOT_RECENT = Refusal(
    "login-not-recent",
    f"your own login is more than {int(RECENT.total_seconds()) // 60} minutes ago",
    "certauth login --force, with the login you have; then at once again: certauth login --link",
)
_NOT_BOUND = Refusal(
    "key-not-bound",
    "a login is linked by a proof that was made for your key, and this one was made for none",
    "log in there with the program: certauth login --link --issuer ID",
)
_TOO_WEAK = Refusal(
    "session-too-weak",
    "this login is worth more than the one your certificate comes from",
    "certauth login --force, in a stronger way, and then link; or have the facility's administrator link it",
)
_UNBOUND = Refusal(
    "session-unbound",
    "your certificate comes from a token that was bound to no key, so anybody who saw that token could have it",
    "certauth login --force, in a way that binds the login to your key, and then link; or have an administrator link it",
)
_ALREADY = Refusal("already-linked", "this login leads to you already", "log in with it")
_DENIED = Refusal(
    "approval-denied",
    "an administrator has declined to enrol this login",
    "ask the facility's administrator, who can link it: certauth signer user link",
)
_TAKEN = Refusal(
    "login-taken",
    "this login leads to somebody already, or is meant for another name",
    "ask the facility's administrator: certauth signer user list",
)
_TOO_MANY = Refusal(
    "too-many-linked-logins", f"a person has at most {MAX_LOGINS} logins", "have one removed: certauth signer user unlink"
)
_NOT_ADMITTED = Refusal(
    "not-admitted",
    "the rules of this facility do not admit this login",
    "its administrator can see why in the signer's log, or with: certauth signer issuer explain",
)
