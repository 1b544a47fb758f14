"""Issuing as one act: prove -> admit -> decide -> make -> record -> release.

Order, and why (each row is an attack that works in the other order):

1. The request is parsed and its possession proof checked before anything is looked up.
2. The proof is verified completely (``signer.proving``) before anything is consumed: a forged token must not burn a genuine
   one nor grow the database.
3. The decision is pure and sees verified values only; what the request asks for can narrow it, never widen it.
4. Certificate or token exist in memory only, until
5. one transaction holds the replay row, the credential's row, the audit entry and the signed tree head; and only then
6. the answer leaves, with the receipt that proves 5.

A refusal of somebody we know is recorded the same way, before they hear of it.
"""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from certauth import certificates
from certauth.bundles import VerifiedPeer
from certauth.clock import Clock
from certauth.encoding import canonical_json
from certauth.enrolment import Address, Terms
from certauth.identity import ASSERTION_ISSUER
from certauth.issuance import CertificateGrant, Refusal, decide_renewal
from certauth.names import Kind, Principal
from certauth.requests import CertificationRequest, parse_csr
from signer import entries
from signer.admitting import Admitting
from signer.authority import Authority, random_serial
from signer.codes import CODE_ISSUER
from signer.deciding import decide, longest_certificate
from signer.ledger import Replay, Submission
from signer.proving import Proving
from signer.recording import Issued, Recorder
from signer.rows import StoredCertificate, StoreRow
from signer.schemas import CertificateBody, RenewalBody
from signer.settings import Settings
from signer.standing import Standing
from signer.store import Store


class Issuing:
    """Certificates. Holds no state of its own; every call is given who asks, from where, and the request id."""

    def __init__(
        self,
        *,
        settings: Settings,
        authority: Authority,
        store: Store,
        recorder: Recorder,
        proving: Proving,
        admitting: Admitting,
        standing: Standing,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._authority = authority
        self._store = store
        self._recorder = recorder
        self._proving = proving
        self._admitting = admitting
        self._standing = standing
        self._clock = clock

    # --- certificates ------------------------------------------------------------------------------------------------

    async def certificate(self, body: CertificateBody, *, address: Address | None, request_id: str) -> Issued:
        """A certificate for the key of the request, if the proof shows who asks and they may have it.

        Raises ``RequestError``, ``ProofError``, ``Refused``, ``UnavailableError`` or ``StoreError``; nothing was granted then.
        """
        # 1. The request, with proof of possession.
        request = parse_csr(body.csr)
        # 2. The identity proof, bound to that very key.
        identity = await self._proving.identity(body.proof, request)
        # 3. The decision.
        admitted = self._admitting.admit(identity, invite=body.invite, at=self._clock())
        decided = decide(
            admitted,
            identity=identity,
            request=request,
            lifetime=body.wanted_lifetime,
            issuer_not_after=self._authority.issuing.not_valid_after_utc,
            max_lifetime=longest_certificate(self._settings, identity.issuer_id),
            address=address,
            now=self._clock(),
        )
        match decision := decided.outcome:
            case Refusal():
                raise await self._recorder.refused(
                    decision, operation="certificate", identity=identity, rule=admitted.rule, rows=decided.rows
                )
            case CertificateGrant():
                pass
            case _:
                assert_never(decision)
        # 4. The certificate, in memory. 5. The record. 6. The answer.
        return await self._grant(
            decision,
            request,
            proof=entries.Proof.of(identity, subject=self._recorder.commit("sub", identity.subject)),
            terms=admitted.terms,
            session_at=self._clock(),
            replay=Replay(key=identity.proof_digest, until=identity.replay_until),
            rows=decided.rows,
            # Somebody enrolled by this very request is not there yet when the ledger looks.
            grantee=None if admitted.newcomer else decision.principal,
            asked=(identity.proof_digest, str(body.lifetime)),
            request_id=request_id,
        )

    async def renewal(self, body: RenewalBody, *, peer: VerifiedPeer, address: Address | None, request_id: str) -> Issued:
        """A new certificate for the holder of ``peer``, within the session that its login began. Raises as ``certificate``."""
        request = parse_csr(body.csr)
        current = self._store.certificate(peer.fingerprint)
        decision = decide_renewal(
            peer=peer,
            enrolment=self._standing.enrolment(peer.principal),
            terms=Terms() if current is None else current.row.terms,
            issuer_id="" if current is None else current.row.issuer_id,
            session_ends=self._session_ends(peer, current),
            request=request,
            lifetime=body.wanted_lifetime,
            issuer_not_after=self._authority.issuing.not_valid_after_utc,
            max_lifetime=longest_certificate(self._settings, "" if current is None else current.row.issuer_id),
            address=address,
            now=self._clock(),
        )
        match decision:
            case Refusal():
                rule = None if current is None else current.row.terms.rule
                raise await self._recorder.refused(decision, operation="renewal", peer=peer, rule=rule)
            case CertificateGrant():
                pass
            case _:
                assert_never(decision)
        return await self._grant(
            decision,
            request,
            proof=entries.Proof.of_peer(
                peer, subject=self._recorder.commit("sub", str(peer.principal)), domain=self._authority.domain
            ),
            terms=Terms() if current is None else current.row.terms,
            session_at=self._clock() if current is None else current.row.session_at,
            replay=None,
            rows=(),
            grantee=decision.principal,
            asked=(peer.fingerprint, str(body.lifetime)),
            holder=peer,
            request_id=request_id,
        )

    async def _grant(
        self,
        grant: CertificateGrant,
        request: CertificationRequest,
        *,
        proof: entries.Proof,
        terms: Terms,
        session_at: datetime,
        replay: Replay | None,
        rows: tuple[StoreRow, ...],
        grantee: Principal | None,
        asked: tuple[str | bytes, ...],
        request_id: str,
        holder: VerifiedPeer | None = None,
    ) -> Issued:
        """Make, record and release a certificate (steps 4 to 6)."""
        serial = random_serial()
        certificate = certificates.make_leaf(
            grant=grant, issuer=self._authority.issuing, issuer_key=self._authority.issuing_key, serial=serial
        )
        response = entries.certificate_response(grant, [certificate, self._authority.issuing], serial=serial)
        row = entries.certificate_row(grant, certificate, serial=serial, terms=terms, session_at=session_at)
        submission = Submission(
            request_id=request_id,
            digest=entries.digest("certificate", request.der, *asked),
            event=entries.certificate_event(grant, proof, certificate, serial=serial),
            replay=replay,
            rows=(*rows, row),
            response=canonical_json(response),
            grantee=grantee,
            holder=holder,
        )
        return await self._recorder.issue(submission, response, request_id=request_id)

    def _session_ends(self, peer: VerifiedPeer, current: StoredCertificate | None) -> datetime | None:
        """When it must be proved again at a provider who this is; a machine that proves itself goes on with its enrolment.

        A certificate that we never recorded, or from a provider that is no longer used, has no session to be continued.
        """
        issuer_id = "" if current is None else current.row.issuer_id
        if current is not None and any(one.id == issuer_id for one in self._settings.issuer):
            return current.row.session_at + self._settings.limits.session
        itself = issuer_id in {"", ASSERTION_ISSUER, CODE_ISSUER} and peer.principal.kind is not Kind.USER
        return None if itself else self._clock()
