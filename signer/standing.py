"""What somebody may do now: what they are enrolled for, what their login was worth, and what their memberships give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from certauth.bundles import VerifiedPeer
from certauth.enrolment import EnrolledRight, Enrolment, Entitlement, Terms, common_rights, held_rights
from certauth.names import Principal
from signer.store import Store


def owned(enrolment: Enrolment, store: Store) -> Enrolment:
    """``enrolment`` as it stands: an agent's is disabled if its owner is, and ends with its owner's."""
    if enrolment.owner is None:
        return enrolment
    owner = store.enrolment_by_principal(enrolment.owner)
    if owner is None or owner.disabled:
        return replace(enrolment, disabled=True)
    ends = [end for end in (enrolment.expires_at, owner.expires_at) if end is not None]
    return replace(enrolment, expires_at=min(ends, default=None))


class Standing:
    """Looks it up anew for every request: what changed since a certificate was issued counts at once."""

    def __init__(self, *, store: Store, entitlements: Iterable[Entitlement]) -> None:
        self._store = store
        self._entitlements = tuple(entitlements)

    def enrolment(self, principal: Principal) -> Enrolment | None:
        """The enrolment of ``principal``; an agent's is no better than its owner's."""
        enrolment = self._store.enrolment_by_principal(principal)
        return None if enrolment is None else owned(enrolment, self._store)

    def terms(self, peer: VerifiedPeer) -> Terms:
        """What the login from which ``peer``'s certificate comes was worth."""
        current = self._store.certificate(peer.fingerprint)
        return Terms() if current is None else current.row.terms

    def rights(self, enrolment: Enrolment, terms: Terms) -> tuple[EnrolledRight, ...]:
        """Everything a principal may do now; an agent nothing that its owner could not."""
        held = held_rights(enrolment, terms, self._entitlements)
        if enrolment.owner is None:
            return held
        owner = self._store.enrolment_by_principal(enrolment.owner)
        if owner is None:
            return ()
        return common_rights(held, held_rights(owner, self.newest_terms(owner.principal), self._entitlements))

    def newest_terms(self, principal: Principal) -> Terms:
        """What the newest login of somebody was worth, for those who act on their behalf."""
        newest = self._store.newest_certificate(principal)
        return Terms() if newest is None else newest.row.terms
