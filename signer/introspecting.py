"""Whether a token is good, for services that cannot verify one themselves (RFC 7662).

An answer is about tokens of this facility only, and goes to the token's user, its holder, the service it is for, and admins: to
anybody else every token is inactive (§4), because what a token says is nobody else's business. Active means that it verifies,
has not run out, is not withdrawn, and that this signer made it; its rights are what narrowings left. They are spelled as in a
JWT, because the same libraries read them: a right to one path is in ``authorization_details`` and in no scope. A token that was
narrowed in another way, to a network or a number of uses, is inactive: a service that goes by this answer could not keep to it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from certauth.bundles import VerifiedPeer
from certauth.clock import Clock
from certauth.encoding import b64url, from_b64url, strict_json
from certauth.errors import TokenError
from certauth.names import Kind, TrustDomain
from certauth.revocation import RevocationKind, RevocationSet
from certauth.tokens import Right, VerifiedToken, verify
from certauth.tokens.jwt_form import details_of, scopes_of
from signer import entries
from signer.exchange import narrowed_rights, usable_from, usable_until
from signer.genuine import was_minted
from signer.key_ring import KeyRing
from signer.rows import StoredToken
from signer.store import Store
from signer.withdrawals import Withdrawals

Answer = dict[str, object]

_INACTIVE: Mapping[str, object] = {"active": False}


class Introspecting:
    """Answers about tokens. Holds no state of its own."""

    def __init__(
        self,
        *,
        domain: TrustDomain,
        issuer: str,
        admins: Collection[str],
        keys: KeyRing,
        store: Store,
        withdrawals: Withdrawals,
        clock: Clock,
    ) -> None:
        self._domain = domain
        self._issuer = issuer
        self._admins = admins
        self._keys = keys
        self._store = store
        self._withdrawals = withdrawals
        self._clock = clock

    def answer(self, token: str, *, peer: VerifiedPeer) -> Answer:
        """The members of RFC 7662 §2.2. Raises ``StoreError`` if it cannot be known whether the token was withdrawn."""
        stored = self._store.token_with_digest(entries.token_digest(token))
        revocations = self._withdrawals.revocations(self._domain)
        if revocations is None:
            return dict(_INACTIVE)
        found = self._jwt(token, stored, revocations) if stored is not None else self._biscuit(token, revocations)
        if found is None or not self._concerns(found, peer):
            return dict(_INACTIVE)
        return found

    def _concerns(self, found: Answer, peer: VerifiedPeer) -> bool:
        if str(peer.principal) in {found["sub"], *self._admins} or peer.fingerprint == _holder(found):
            return True
        audience = found["aud"]
        mine = peer.principal.domain == self._domain and peer.principal.kind is Kind.SERVICE
        return mine and isinstance(audience, list) and peer.principal.id in audience

    def _biscuit(self, text: str, revocations: RevocationSet) -> Answer | None:
        try:
            token = verify(text, self._keys.roots, attesters=None)
        except TokenError:
            return None
        now, ends = self._clock(), usable_until(token)
        withdrawn = revocations.token(
            kid=token.kid,
            jti=token.jti,
            user=token.user,
            issued_at=token.issued_at,
            block_ids=token.block_ids,
            certificates=(token.peer_fingerprint, *(handed.to.fingerprint for handed in token.hand_overs)),
        )
        rights = narrowed_rights(token)
        if withdrawn is not None or rights is None or not usable_from(token) <= now < ends:
            return None
        if not was_minted(token, self._store):
            return None
        left = tuple(Right(right.service, right.operation, right.path) for right in rights)
        return self._members(token, left) | {"exp": int(ends.timestamp())}

    def _members(self, token: VerifiedToken, rights: tuple[Right, ...]) -> Answer:
        return {
            "active": True,
            "iss": self._issuer,
            "sub": token.user,
            "aud": list(token.audience),
            "iat": int(token.issued_at.timestamp()),
            "nbf": int(token.not_before.timestamp()),
            "jti": token.jti,
            "token_type": "Bearer",
            "scope": " ".join(scopes_of(rights)),
            "authorization_details": details_of(rights),
            "cnf": {"x5t#S256": b64url(bytes.fromhex(token.holder))},
            "groups": list(token.groups),
            "assurance": token.assurance,
        }

    def _jwt(self, text: str, stored: StoredToken, revocations: RevocationSet) -> Answer | None:
        """What a JWT of ours says. Its very bytes are those that were minted, so its signature need not be checked again."""
        row, now = stored.row, self._clock()
        withdrawn = revocations.named(RevocationKind.CERTIFICATE, row.peer_fingerprint) or revocations.token(
            kid=row.kid, jti=row.jti, user=str(row.principal), issued_at=row.issued_at, block_ids=(), certificates=()
        )
        parents = [revocations.named(RevocationKind(kind), value) for kind, value in row.ends_with]
        # A key that has left the JWK set verifies nothing any more, wherever it is asked.
        known = self._keys.current().believes_jwt(row.kid)
        if not known or withdrawn is not None or any(parents) or now >= row.expires_at:
            return None
        claims: Any = strict_json(from_b64url(text.split(".")[1]))
        return {"active": True, "token_type": "Bearer", **claims}


def _holder(found: Answer) -> str | None:
    match found.get("cnf"):
        case {"x5t#S256": str(thumbprint)}:
            return from_b64url(thumbprint).hex()
        case _:
            return None
