"""Taking back what was granted: one's own credentials, parts of tokens one holds or made, and for admins anything."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

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
from signer.agents import ending_with
from signer.ledger import Submission
from signer.recording import Issued, Recorder
from signer.rows import RevocationRow, StoreRow
from signer.schemas import RevocationBody
from signer.store import Store

MONTH = timedelta(days=32)
"""Longer than any credential lives: a principal's revocation may be forgotten after it."""

MAX_TOKENS = 500
"""Living withdrawals of single tokens and parts of tokens that one principal may cause; the feed has room for 100 such."""

_TOO_MANY = Refusal(
    "too-many-revocations",
    f"{MAX_TOKENS} of your withdrawals of single tokens are in force",
    "revoke the token they were derived from, or your certificate: everything that comes from it ends with it",
)
_NOT_YOURS = Refusal(
    "not-yours",
    "only its owner or an administrator may revoke this",
    "the facility's administrator can revoke it: certauth signer user revoke",
)


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
            allowed, expires_at = self._block(body.value, body.token, peer)
        else:
            owner, expires_at = self._owner(kind, body.value)
            allowed = owner == peer.principal
        if not allowed and str(peer.principal) not in self._admins:
            # Also for what does not exist: who may not revoke it may not learn whether it is there.
            raise await self._recorder.refused(_NOT_YOURS, operation="revoke", peer=peer)
        return await self._withdraw(kind, body.value, body.reason, expires_at, peer=peer, request_id=request_id)

    async def forget(self, token: str, *, reason: str, peer: VerifiedPeer, request_id: str) -> bool:
        """RFC 7009: withdraw a token by its text, or the newest part of it for whoever holds that part.

        A token that is none of ours, or not of this client, is silently left alone (§2.2): ``False``. Raises as ``revoke``.
        """
        found = self._stored(token, peer) or self._held(token, peer)
        if found is None:
            return False
        kind, value, end = found
        await self._withdraw(kind, value, reason, int(end.timestamp()), peer=peer, request_id=request_id)
        return True

    def _stored(self, token: str, peer: VerifiedPeer) -> tuple[RevocationKind, str, datetime] | None:
        """A JWT of ours, known by the very bytes that were minted, if it is ``peer``'s or was made for it."""
        stored = self._store.token_with_digest(entries.token_digest(token))
        if stored is None or (peer.principal, peer.fingerprint) not in {
            (peer.principal, stored.row.peer_fingerprint),
            (stored.row.principal, peer.fingerprint),
        }:
            return None
        return RevocationKind.JTI, stored.row.jti, stored.row.expires_at

    def _held(self, token: str, peer: VerifiedPeer) -> tuple[RevocationKind, str, datetime] | None:
        """A biscuit as a whole for its user, and its newest part for whoever holds or made that."""
        try:
            found = verify(token, self._roots, attesters=None)
        except TokenError:
            return None
        if found.user == str(peer.principal) and len(found.block_ids) == 1:
            return RevocationKind.JTI, found.jti, found.expires_at
        block = found.block_ids[-1]
        return (RevocationKind.BLOCK, block, found.expires_at) if isinstance(self._may(block, found, peer), MayRevoke) else None

    async def _withdraw(
        self,
        kind: RevocationKind,
        value: str,
        reason: str,
        expires_at: int | None,
        *,
        peer: VerifiedPeer,
        request_id: str,
    ) -> Issued:
        at = self._clock()
        now = int(at.timestamp())
        before = now if kind is RevocationKind.PRINCIPAL else None
        by = str(peer.principal)
        if kind in {RevocationKind.JTI, RevocationKind.BLOCK} and by not in self._admins:
            await self._check_quota(peer, now)
        try:
            revoked = Revoked(kind=kind, value=value, before=before, expires_at=expires_at, reason=reason, at=now)
        except ValueError as error:
            raise RequestError("revocation-invalid", str(error), hint="compare the id with what issued it") from error
        digest = entries.digest("revoke", str(kind), value)
        submission = Submission(
            # Withdrawing a credential twice is withdrawing it once: a repetition finds the first entry and adds nothing.
            request_id=request_id if before else entries.own_id("revoke", digest),
            digest=digest,
            event=record.CredentialRevoked(
                credential=str(kind), value=value, reason=reason, by=str(peer.principal), before=before
            ),
            rows=(RevocationRow(revoked=revoked, by=by), *self._agents(kind, value, reason, by=by, at=at)),
            response=canonical_json({"kind": str(kind), "value": value}),
            holder=peer,
        )
        return await self._recorder.issue(submission, {"kind": str(kind), "value": value}, request_id=request_id)

    async def _check_quota(self, peer: VerifiedPeer, now: int) -> None:
        """Refuse if ``peer``'s principal has withdrawn very many tokens one by one: every door carries them all."""
        if self._store.living_revocations(by=str(peer.principal), now=now) >= MAX_TOKENS:
            raise await self._recorder.refused(_TOO_MANY, operation="revoke", peer=peer)

    def _agents(self, kind: RevocationKind, value: str, reason: str, *, by: str, at: datetime) -> tuple[StoreRow, ...]:
        """With everything of a person end their agents: whoever stole the person's certificate may have made them."""
        if kind is not RevocationKind.PRINCIPAL:
            return ()
        return ending_with(self._store, Principal.parse(value), reason=reason, by=by, at=at)

    def _block(self, block_id: str, token: str, peer: VerifiedPeer) -> tuple[bool, int | None]:
        """Whether ``peer`` holds or made a block of the token it shows, and when that ends; ``TokenError`` for a bad token."""
        found = verify(token, self._roots, attesters=None)
        return isinstance(self._may(block_id, found, peer), MayRevoke), int(found.expires_at.timestamp())

    def _may(self, block_id: str, token: VerifiedToken, peer: VerifiedPeer) -> MayRevoke | MayNotRevoke:
        return may_revoke_block(token, block_id, peer.fingerprint, principal=str(peer.principal))

    def _owner(self, kind: RevocationKind, value: str) -> tuple[Principal | None, int | None]:
        """Whose credential it is, and when it would end by itself."""
        if kind is RevocationKind.CERTIFICATE and (certificate := self._store.certificate(value)):
            return certificate.row.principal, int(certificate.row.not_after.timestamp())
        if kind is RevocationKind.JTI and (token := self._store.token(value)):
            return token.row.principal, int(token.row.expires_at.timestamp())
        if kind is RevocationKind.PRINCIPAL:
            return None, int((self._clock() + MONTH).timestamp())
        return None, None
