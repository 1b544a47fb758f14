"""Tokens: decided from what somebody may do now, made for the certificate they hold, recorded, and only then released.

A token is a biscuit, or for services that are listed a JWT that says the same. Either way it never says more than its user may
do, and when it was asked for with another token (RFC 8693), never more than that one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

from certauth import tokens
from certauth.bundles import VerifiedPeer
from certauth.clock import Clock, whole_seconds
from certauth.enrolment import Address, common_rights
from certauth.errors import TokenError, UnavailableError
from certauth.issuance import Refusal, TokenGrant, decide_token, suspended
from certauth.keys import SoftwareKey
from certauth.requests import Right, TokenRequest
from certauth.revocation import RevocationKind
from certauth.tokens import TokenSpec, to_text
from certauth.tokens.jwt_form import mint_jwt
from signer import entries
from signer.authority import Authority
from signer.exchange import Subject, not_exchangeable, subject_of
from signer.genuine import was_minted
from signer.key_index import Use
from signer.key_ring import KeyRing
from signer.ledger import Submission
from signer.oauth import Form, TokenRequestForm
from signer.recording import Issued, Recorder
from signer.schemas import TokenBody
from signer.settings import Settings
from signer.standing import Standing
from signer.store import Store
from signer.withdrawals import Withdrawals


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request for a token, whatever interface it came through."""

    request: TokenRequest
    form: Form = "biscuit"
    subject: Subject | None = None


class Minting:
    """Makes tokens. Holds no state of its own."""

    def __init__(
        self,
        *,
        settings: Settings,
        authority: Authority,
        keys: KeyRing,
        store: Store,
        recorder: Recorder,
        standing: Standing,
        withdrawals: Withdrawals,
        clock: Clock,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._settings = settings
        self._authority = authority
        self._keys = keys
        self._store = store
        self._recorder = recorder
        self._standing = standing
        self._withdrawals = withdrawals
        self._clock = clock
        self._entropy = entropy

    async def token(self, body: TokenBody, *, peer: VerifiedPeer, address: Address | None, request_id: str) -> Issued:
        """A token bound to ``peer``'s certificate.

        Raises ``RequestError``, ``Refused``, ``UnavailableError`` or ``StoreError``; nothing was granted then.
        """
        request = TokenRequest.make(
            audience=body.audience,
            rights=None if body.rights is None else [Right.make(right.operation, right.path) for right in body.rights],
            lifetime=body.wanted_lifetime,
            delegations=body.delegations,
        )
        return await self._mint(Asked(request=request), peer=peer, address=address, request_id=request_id)

    async def exchange(self, form: TokenRequestForm, *, peer: VerifiedPeer, address: Address | None, request_id: str) -> Issued:
        """The same through OAuth's token endpoint, also in JWT form, also for another token. Raises as ``token``."""
        subject = None if form.subject_token is None else self._subject(form.subject_token, peer)
        if isinstance(subject, Refusal):
            raise await self._recorder.refused(subject, operation="exchange", peer=peer)
        if (refusal := self._unavailable(form, subject, peer)) is not None:
            raise await self._recorder.refused(refusal, operation="exchange", peer=peer)
        request = TokenRequest.make(
            audience=form.audience,
            rights=form.rights,
            lifetime=None if form.lifetime is None else timedelta(seconds=form.lifetime),
            delegations=0 if form.form == "jwt" or subject is not None else 1,
        )
        asked = Asked(request=request, form=form.form, subject=subject)
        return await self._mint(asked, peer=peer, address=address, request_id=request_id)

    def _subject(self, token: str, peer: VerifiedPeer) -> Subject | Refusal:
        try:
            found = tokens.verify(token, self._keys.roots, attesters=None)
        except TokenError as error:
            return not_exchangeable(error.message, error.hint)
        revocations = self._withdrawals.revocations(self._authority.domain)
        subject = subject_of(found, peer=peer, revocations=revocations, now=self._clock())
        if isinstance(subject, Subject) and not was_minted(found, self._store):
            return not_exchangeable(
                "this signer has no record of it", "ask for a new one, and tell the facility's administrator"
            )
        return subject

    def _unavailable(self, form: TokenRequestForm, subject: Subject | None, peer: VerifiedPeer) -> Refusal | None:
        """Why this form of token is not made from this one, or for this service."""
        if form.form == "biscuit" and subject is not None and (subject.handed_over or subject.user != peer.principal):
            # It would no longer end with the token it came from. We make none for somebody else's certificate that was not
            # handed over, so such a one was made with a stolen key: it must not be turned into one that outlives that key.
            hint = "narrow it with 'certauth token attenuate', which needs no signer"
            return not_exchangeable("it was handed over to you, and another biscuit would outlive its withdrawal", hint)
        if form.form == "jwt" and form.audience not in self._settings.jwt_services:
            hint = "use a biscuit; an admin lists services that check cnf in jwt_services"
            return Refusal("jwt-not-offered", "no JWTs are made for this service", hint)
        return None

    async def _mint(self, asked: Asked, *, peer: VerifiedPeer, address: Address | None, request_id: str) -> Issued:
        now = self._clock()
        decision = self._decide(asked, peer=peer, address=address, now=now)
        match decision:
            case Refusal():
                raise await self._recorder.refused(decision, operation="token", peer=peer)
            case TokenGrant():
                pass
            case _:
                assert_never(decision)
        spec = entries.token_spec(
            decision, issuer=self._authority.token_issuer, jti=self._entropy(16).hex(), issued_at=whole_seconds(now)
        )
        text, stored, kid = self._make(spec, asked.form, peer)
        submission = Submission(
            request_id=request_id,
            digest=entries.digest("token", asked.form, peer.fingerprint, repr(asked)),
            event=entries.token_event(decision, spec, stored, kid=kid, form=asked.form),
            rows=(
                entries.token_row(decision, spec, stored, kid=kid, ends_with=asked.subject.ends_with if asked.subject else ()),
            ),
            grantee=decision.principal,
            holder=peer,
        )
        return await self._recorder.issue(submission, entries.token_response(decision, spec, text), request_id=request_id)

    def _decide(self, asked: Asked, *, peer: VerifiedPeer, address: Address | None, now: datetime) -> TokenGrant | Refusal:
        limits, subject = self._settings.limits, asked.subject
        user = peer.principal if subject is None else subject.user
        own = user == peer.principal
        terms = self._standing.terms(peer) if own else self._standing.newest_terms(user)
        enrolment = self._standing.enrolment(user)
        rights = () if enrolment is None else self._standing.rights(enrolment, terms)
        longest = limits.token_lifetime if asked.form == "biscuit" else min(limits.token_lifetime, limits.jwt_lifetime)
        if subject is not None:
            rights, longest = common_rights(rights, subject.rights), min(longest, subject.expires_at - whole_seconds(now))
        exchanger = None if own else self._standing.enrolment(peer.principal)
        if exchanger is not None and (refusal := suspended(exchanger, address, now)) is not None:
            return refusal
        decision = decide_token(
            peer=peer,
            enrolment=enrolment,
            terms=terms,
            rights=rights,
            request=asked.request,
            max_lifetime=longest,
            address=address,
            now=now,
            user=user,
        )
        return decision if subject is None or isinstance(decision, Refusal) else _within(decision, subject)

    def _make(self, spec: TokenSpec, form: Form, peer: VerifiedPeer) -> tuple[str, bytes, str]:
        """The token's text, the bytes by whose hash it is known, and the id of the key that signed it."""
        match form:
            case "biscuit":
                key, kid = self._signing(Use.TOKEN)
                token = tokens.mint(spec, key)
                return to_text(token), token, kid
            case "jwt":
                key, kid = self._signing(Use.JWT)
                issuer, client = self._settings.public_url, str(peer.principal)
                text = mint_jwt(spec, key, kid=kid, issuer=issuer, client=client)
                return text, text.encode("ascii"), kid
            case _:
                assert_never(form)

    def _signing(self, use: Use) -> tuple[SoftwareKey, str]:
        """The key that signs now; ``UnavailableError``, ``StoreError`` if there is none whose tokens anybody would accept."""
        key, kid = self._keys.signing(use)
        revocations = self._withdrawals.revocations(self._authority.domain)
        if revocations is not None and revocations.named(RevocationKind.KID, kid) is not None:
            raise UnavailableError(
                "signing-key-withdrawn",
                f"the {use} key {kid} is in the feed of revocations, and no other has taken over",
                hint=f"its administrator can let another take over: certauth signer key taint {kid}",
                retry_after=5,
            )
        return key, kid


def _within(grant: TokenGrant, subject: Subject) -> TokenGrant:
    """``grant`` without what the token it is made from does not say: no membership and no certainty is added."""
    return replace(
        grant,
        groups=tuple(name for name in grant.groups if name in subject.groups),
        roles=tuple(name for name in grant.roles if name in subject.roles),
        projects=tuple(name for name in grant.projects if name in subject.projects),
        assurance=min(grant.assurance, subject.assurance),
    )
