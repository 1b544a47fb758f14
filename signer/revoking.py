"""Taking back what was granted: one's own credentials, parts of tokens one holds or made, and for admins anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

import structlog

from certauth.audit import record
from certauth.bundles import VerifiedPeer
from certauth.clock import Clock
from certauth.encoding import canonical_json
from certauth.errors import RequestError, TokenError
from certauth.issuance import Refusal
from certauth.names import Principal
from certauth.revocation import RevocationKind, Revoked
from certauth.tokens import MayNotRevoke, MayRevoke, TrustedTokenKey, VerifiedToken, may_revoke_block, verify
from signer import entries
from signer.ending import MONTH, certificate_end, completing, ending_with, everything_of, left_out
from signer.ledger import Submission
from signer.recording import Issued, Recorder
from signer.rows import RevocationRow, StoreRow
from signer.schemas import RevocationBody
from signer.store import Store

MAX_TOKENS = 500
"""Living withdrawals of single tokens and parts of tokens that one principal may cause; the feed has room for 100 such."""

MAX_OWN_CERTIFICATES = 500
"""The same for withdrawals of one's own certificates."""

_TOO_MANY = Refusal(
    "too-many-revocations",
    f"{MAX_TOKENS} of your withdrawals of single tokens are in force",
    "revoke the token they were derived from, or your certificate: everything that comes from it ends with it",
)
_TOO_MANY_CERTIFICATES = Refusal(
    "too-many-revocations",
    f"{MAX_OWN_CERTIFICATES} of your withdrawals of certificates are in force",
    "have everything of yours revoked at once by the facility's administrator: certauth signer user revoke",
)
_NOT_YOURS = Refusal(
    "not-yours",
    "only its owner or an administrator may revoke this",
    "the facility's administrator can revoke it: certauth signer user revoke",
)


log = structlog.get_logger("signer")


@dataclass(frozen=True, slots=True)
class _Target:
    """What is to be withdrawn, until when that must be known, and what covers it already, if anything does."""

    kind: RevocationKind
    value: str
    expires_at: int | None
    covered: tuple[RevocationKind, str] | None = None

    def entry(self, reason: str, *, now: int) -> Revoked:
        """The withdrawal as of now; ``RequestError`` (``revocation-invalid``) for an odd value or reason."""
        before = now if self.kind is RevocationKind.PRINCIPAL else None
        try:
            if not reason.isprintable():
                raise ValueError("the reason has a character that cannot be printed")
            return Revoked(kind=self.kind, value=self.value, before=before, expires_at=self.expires_at, reason=reason, at=now)
        except ValueError as error:
            raise RequestError("revocation-invalid", str(error), hint="compare the id with what issued it") from error


class Revoking:
    """Withdraws credentials; who may is decided by whose they are."""

    def __init__(
        self,
        *,
        admins: Collection[str],
        roots: Mapping[str, TrustedTokenKey],
        store: Store,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._admins = admins
        self._roots = roots
        self._store = store
        self._recorder = recorder
        self._clock = clock

    async def revoke(self, body: RevocationBody, *, peer: VerifiedPeer, request_id: str) -> Issued:
        """Withdraw a credential: one's own, or anybody's for an admin.

        Raises ``RequestError``, ``TokenError``, ``Refused``, ``UnavailableError`` or ``StoreError``; nothing is withdrawn then.
        """
        kind = RevocationKind(body.kind)
        if kind is RevocationKind.BLOCK and body.token is not None:
            found = verify(body.token, self._roots, attesters=None)
            allowed, target = isinstance(self._may(body.value, found, peer), MayRevoke), self._block(body.value, found)
        else:
            owner, expires_at = self._owner(kind, body.value)
            allowed, target = owner == peer.principal, _Target(kind, body.value, expires_at)
        if not allowed and str(peer.principal) not in self._admins:
            # Also for what does not exist: who may not revoke it may not learn whether it is there.
            raise await self._recorder.refused(_NOT_YOURS, operation="revoke", peer=peer)
        return await self._withdraw(target, body.reason, peer=peer, request_id=request_id)

    async def forget(self, token: str, *, reason: str, peer: VerifiedPeer, request_id: str) -> bool:
        """RFC 7009: withdraw a token by its text, or the newest part of it for whoever holds that part.

        A token that is none of ours, or not of this client, is silently left alone (§2.2): ``False``. Raises as ``revoke``.
        """
        target = self._stored(token, peer) or self._held(token, peer)
        if target is None:
            return False
        await self._withdraw(target, reason, peer=peer, request_id=request_id)
        return True

    def _stored(self, token: str, peer: VerifiedPeer) -> _Target | None:
        """A JWT of ours, known by the very bytes that were minted, if it is ``peer``'s or was made for it."""
        stored = self._store.token_with_digest(entries.token_digest(token))
        if stored is None or (peer.principal, peer.fingerprint) not in {
            (peer.principal, stored.row.peer_fingerprint),
            (stored.row.principal, peer.fingerprint),
        }:
            return None
        return _Target(RevocationKind.JTI, stored.row.jti, int(stored.row.expires_at.timestamp()))

    def _held(self, token: str, peer: VerifiedPeer) -> _Target | None:
        """A biscuit as a whole for its user, and its newest part for whoever holds or made that."""
        try:
            found = verify(token, self._roots, attesters=None)
        except TokenError:
            return None
        if found.user == str(peer.principal) and len(found.block_ids) == 1:
            return _Target(RevocationKind.JTI, found.jti, int(found.expires_at.timestamp()))
        block = found.block_ids[-1]
        return self._block(block, found) if isinstance(self._may(block, found, peer), MayRevoke) else None

    async def _withdraw(self, target: _Target, reason: str, *, peer: VerifiedPeer, request_id: str) -> Issued:
        at, by = self._clock(), str(peer.principal)
        now = int(at.timestamp())
        if by not in self._admins and target.covered is None:
            await self._check_quota(target.kind, peer, now)
        entry = target.entry(reason, now=now)
        digest = entries.digest("revoke", str(target.kind), target.value)
        response: dict[str, object] = {"kind": str(target.kind), "value": target.value}
        if target.covered is not None:
            response["covered_by"] = {"kind": str(target.covered[0]), "value": target.covered[1]}
        submission = Submission(
            # Withdrawing a credential twice is withdrawing it once: a repetition finds the first entry and adds nothing.
            request_id=request_id if entry.before else entries.own_id("revoke", digest),
            digest=digest,
            event=record.CredentialRevoked(
                credential=str(target.kind), value=target.value, reason=reason, by=by, before=entry.before
            ),
            rows=() if target.covered else self._rows(entry, by=by, at=at),
            response=canonical_json(response),
            holder=peer,
        )
        issued = await self._recorder.issue(submission, response, request_id=request_id)
        if target.kind is RevocationKind.PRINCIPAL:
            await self._complete(entry, by=by, recorded=issued.log_index)
        return issued

    def _rows(self, entry: Revoked, *, by: str, at: datetime) -> tuple[StoreRow, ...]:
        """With everything of a person end their agents: whoever stole the person's certificate may have made them."""
        if entry.kind is not RevocationKind.PRINCIPAL:
            return (RevocationRow(revoked=entry, by=by),)
        principal = Principal.parse(entry.value)
        return (
            *everything_of(self._store, principal, by=by, why=entry.reason, at=at),
            *ending_with(self._store, principal, reason=entry.reason, by=by, at=at),
        )

    async def _complete(self, entry: Revoked, *, by: str, recorded: int) -> None:
        """The second look: what somebody was given, or made, while we were recording that they have nothing any more."""
        at = self._clock()
        if (missed := completing(self._store, entry, by=by, at=at, recorded=recorded)) is not None:
            await self._recorder.write(missed)
        if left_out(self._store, Principal.parse(entry.value), at=at, recorded=recorded):
            log.warning("revocation.certificates-left-out", log_index=recorded)

    async def _check_quota(self, kind: RevocationKind, peer: VerifiedPeer, now: int) -> None:
        """Refuse if ``peer``'s principal has withdrawn very much one by one: every door carries it all."""
        by = str(peer.principal)
        if kind is RevocationKind.CERTIFICATE:
            if self._store.living_revocations([kind], by=by, now=now) >= MAX_OWN_CERTIFICATES:
                raise await self._recorder.refused(_TOO_MANY_CERTIFICATES, operation="revoke", peer=peer)
        elif self._store.living_revocations([RevocationKind.JTI, RevocationKind.BLOCK], by=by, now=now) >= MAX_TOKENS:
            raise await self._recorder.refused(_TOO_MANY, operation="revoke", peer=peer)

    def _block(self, block_id: str, token: VerifiedToken) -> _Target:
        """A part of a token, and what ends it already: the token as a whole, or a part from which it was made."""
        end = int(token.expires_at.timestamp())
        if block_id not in token.block_ids:  # an admin may name any block; this token says nothing of it then
            return _Target(RevocationKind.BLOCK, block_id, end)
        before = token.block_ids[: token.block_ids.index(block_id)]
        wider = [(RevocationKind.JTI, token.jti), *((RevocationKind.BLOCK, one) for one in before)]
        covered = next((one for one in wider if self._store.is_withdrawn(*one, until=end)), None)
        return _Target(RevocationKind.BLOCK, block_id, end, covered)

    def _may(self, block_id: str, token: VerifiedToken, peer: VerifiedPeer) -> MayRevoke | MayNotRevoke:
        return may_revoke_block(token, block_id, peer.fingerprint, principal=str(peer.principal))

    def _owner(self, kind: RevocationKind, value: str) -> tuple[Principal | None, int | None]:
        """Whose credential it is, and until when its withdrawal must be known."""
        if kind is RevocationKind.CERTIFICATE and (certificate := self._store.certificate(value)):
            return certificate.row.principal, certificate_end(certificate.row.not_after)
        if kind is RevocationKind.JTI and (token := self._store.token(value)):
            return token.row.principal, int(token.row.expires_at.timestamp())
        if kind is RevocationKind.PRINCIPAL:
            return None, int((self._clock() + MONTH).timestamp())
        return None, None
